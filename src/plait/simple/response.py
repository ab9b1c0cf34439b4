"""What a message to a service comes to, as a value and as plain JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from plait.clients.answers import token_usage
from plait.clients.completions import TokenUsage
from plait.log import without_tools
from plait.plain import to_json
from plait.simple.history import HistoryEntry, shown
from plait.streams import result_of

if TYPE_CHECKING:
    from plait.loop import Run

ServiceStopReason = Literal[
    "response",
    "max_turns",
    "max_function_calls",
    "user_stop",
    "budget",
    "guardrail",
    "deadline",
]
"""Why a message's run ended: a run's stop reasons, of which ``max_tool_calls`` is called ``max_function_calls``."""

_CALLED: Final = {"max_tool_calls": "max_function_calls"}


class MessageResponse(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one message.

    Attributes:
        output: the answer's text; what there was of it, where ``stop_reason`` is another than ``"response"``.
        stop_reason: why it ended.
        history: the conversation, this message and its answer included: give it with the next message. A summary of
            earlier messages stands in it as an entry of its own, behind those.
        history_without_function_calls: the same, as people would read it: without functions and summary.
        usage: the tokens of all requests, in OpenAI's words; None when the provider did not report any.
        agent_name: who answered.
        user_id: for whom.
        chat_id: in which chat.
        run_id: the run, as it is called in logs.
        cost: US dollars, or None when that is not known.
        error: what went wrong, where it ended early without failing: which budget, which check.
        truncated: whether the answer reached its limit of tokens.
        provider: who gave the last answer; None where there was none.
        model: which model gave it, as the provider names it.
    """

    output: str
    stop_reason: ServiceStopReason
    history: list[HistoryEntry]
    history_without_function_calls: list[HistoryEntry]
    usage: TokenUsage | None
    agent_name: str
    user_id: str
    chat_id: str
    run_id: str
    cost: float | None = None
    error: str | None = None
    truncated: bool = False
    provider: str | None = None
    model: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Give this as plain JSON data."""
        fields = {name: getattr(self, name) for name in self.__struct_fields__}
        return fields | {"usage": self.usage.model_dump() if self.usage else None}

    def to_json(self) -> str:
        """Give this as JSON on one line."""
        return to_json(self.to_dict()).decode()


def response_of(run: Run[Any], user_id: str, chat_id: str) -> MessageResponse:
    """Give the response that a run came to, which was carried out to its end."""
    result, tail = result_of(run), run.thread.tail
    return MessageResponse(
        output=result.output,
        stop_reason=_CALLED.get(result.stop_reason, result.stop_reason),  # type: ignore[arg-type]  # the table says it
        history=shown(result.history, tail.summary, tail.summarised(result.history)),
        history_without_function_calls=shown(without_tools(result.history)),
        usage=token_usage(result.usage),
        agent_name=result.agent_name,
        user_id=user_id,
        chat_id=chat_id,
        run_id=result.run_id,
        cost=result.cost,
        error=result.error,
        truncated=result.truncated,
        provider=result.provider,
        model=result.model,
    )
