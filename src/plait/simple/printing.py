"""A run in readable lines, for ``debug_print=True``: requests, answers, function calls and decisions.

Made of hooks, so it sees what they see: no key, and of a secret only its name. What models, functions and people say is
shown in excerpts that cannot drive a terminal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from plait.errors import excerpt

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from plait.events import Usage
    from plait.hooks import (
        AfterRequest,
        BeforeRequest,
        BudgetExceeded,
        ContextOverflow,
        FunctionCallEnd,
        FunctionCallStart,
        MessagesDropped,
        RunEnded,
    )
    from plait.messages import Message

_SHOWN: Final = 160
_MESSAGES: Final = 6


class DebugPrinter:
    """Prints what a run does, one line for each step; ``hooks`` go to the run.

    Args:
        agent_name: stands before each line.
        user_id: stands behind it, where it was given.
        chat_id: likewise, after a slash.
        out: prints a line.
    """

    def __init__(
        self,
        agent_name: str,
        user_id: str | None = None,
        chat_id: str | None = None,
        out: Callable[[str], object] = print,
    ) -> None:
        whose = excerpt(user_id or "", 40) + ("" if chat_id is None else f"/{excerpt(chat_id, 40)}")
        self._name = excerpt(agent_name, 40) + (whose and f" {whose}")
        self._out = out

    @property
    def hooks(self) -> dict[str, Callable[..., None]]:
        """The hooks that print; they change nothing."""
        return {
            "on_before_request": self._asks,
            "on_after_request": self._answered,
            "on_function_call_start": self._calls,
            "on_function_call_end": self._called,
            "on_function_call_error": self._failed,
            "on_context_overflow": self._overflows,
            "on_message_dropped": self._drops,
            "on_budget_exceeded": self._exceeds,
            "on_final_response": self._ends,
        }

    def _line(self, sign: str, text: str) -> None:
        self._out(f"[{self._name}] {sign} {text}")

    def _asks(self, event: BeforeRequest) -> None:
        request = event.request
        tools = [tool.name for tool in request.tools]
        with_tools = f", tools {excerpt(', '.join(tools), _SHOWN)}" if tools else ""
        self._line("->", f"turn {event.turn}: asks with {_count(request.messages)}{with_tools}")
        older = len(request.messages) - _MESSAGES
        if older > 0:
            self._line("  ", f"... {older} earlier")
        for message in request.messages[-_MESSAGES:]:
            for line in _lines(message):
                self._line("  ", line)

    def _answered(self, event: AfterRequest) -> None:
        answer = event.answer
        for line in _lines(answer.message):
            self._line("<-", line)
        who = excerpt(f"{answer.message.provider}:{answer.message.model}", _SHOWN)
        self._line(
            "<-", f"{who} ended with {excerpt(answer.finish_reason or 'no reason', 40)}, {_tokens(answer.usage)}"
        )

    def _calls(self, event: FunctionCallStart) -> None:
        self._line("=>", f"calls {_name(event.call.name)}({excerpt(event.call.arguments, _SHOWN)})")

    def _failed(self, event: FunctionCallEnd) -> None:
        if event.refused:  # the others are told as calls that ended
            self._line("!!", f"{_name(event.call.name)} was not called: {excerpt(event.result.text, _SHOWN)}")

    def _called(self, event: FunctionCallEnd) -> None:
        sign = "!!" if event.result.is_error else "<="
        self._line(
            sign, f"{_name(event.call.name)} gave, after {event.seconds:.3f} s: {excerpt(event.result.text, _SHOWN)}"
        )

    def _overflows(self, event: ContextOverflow) -> None:
        self._line("--", f"the context is full: {event.tokens:,} of {event.limit:,} tokens are sent")

    def _drops(self, event: MessagesDropped) -> None:
        self._line("--", f"leaves out {_count(event.messages)} more, {event.total} in all")

    def _exceeds(self, event: BudgetExceeded) -> None:
        self._line("--", event.reason)

    def _ends(self, event: RunEnded) -> None:
        result = event.result
        why = f" ({excerpt(result.error, _SHOWN)})" if result.error else ""
        cost = "" if result.cost is None else f", {result.cost:.6f} USD"
        self._line("##", f"ended: {result.stop_reason}{why}, {_tokens(result.usage)}{cost}")


def _lines(message: Message) -> list[str]:
    """Say what a message says, a line for each text, call and result."""
    lines = [f"{message.role}: {excerpt(message.text, _SHOWN)}"] if message.text else []
    lines += [
        f"{message.role}: wants {_name(call.name)}({excerpt(call.arguments, _SHOWN)})" for call in message.tool_calls
    ]
    lines += [
        f"{message.role}: {_name(result.name)} gave {excerpt(result.text, _SHOWN)}" for result in message.tool_results
    ]
    others = [part.type for part in message.parts if part.type not in _SAID]
    return lines + ([f"{message.role}: {', '.join(others)}"] if others else [])


_SAID: Final[frozenset[Any]] = frozenset({"text", "tool_call", "tool_result", "reasoning"})


def _count(messages: Sequence[Message]) -> str:
    return "1 message" if len(messages) == 1 else f"{len(messages)} messages"


def _name(name: str) -> str:
    """Give the name of a function as the model wrote it, so that it cannot drive a terminal."""
    return excerpt(name, 64)


def _tokens(usage: Usage | None) -> str:
    if usage is None:
        return "tokens not told"
    about = "about " if usage.estimated else ""
    return f"{about}{usage.input_tokens:,} tokens in, {usage.output_tokens:,} out"
