"""What a run's stream yields: deltas (increments of an answer) and run events; and folding deltas into a message.

There is one delta per token, so these are msgspec structs, not pydantic models. Knows nothing of wire formats:
providers make deltas, the loop makes the other events.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec

from plait.frozen import EMPTY, Frozen, FrozenDict, assemble
from plait.messages import AssistantMessage, Message, ReasoningPart, TextPart, ToolCall, ToolResult

if TYPE_CHECKING:
    from collections.abc import Iterable

StopReason = Literal[
    "response", "max_turns", "max_tool_calls", "budget", "user_stop", "interrupt", "guardrail", "deadline"
]
"""Why a run ended. Failures are exceptions, not stop reasons."""


class Usage(Frozen):
    """Tokens of one or more model requests.

    Attributes:
        input_tokens: tokens sent, cached ones included.
        output_tokens: tokens received, reasoning included.
        cache_read_tokens: the part of the input that came from the provider's cache.
        cache_write_tokens: the part of the input that was written to it.
        reasoning_tokens: the part of the output that was reasoning.
        requests: how many model requests these are.
        cost: what the provider says it cost, in US dollars; None when it says nothing. The cost of several requests is
            None as well when one of them is not known: a sum without it would be too low.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    requests: int = 1
    cost: float | None = None

    @property
    def total_tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens

    def __add__(self, other: Usage) -> Usage:
        if not self.requests:
            cost = other.cost
        elif not other.requests:
            cost = self.cost
        else:
            cost = None if self.cost is None or other.cost is None else self.cost + other.cost
        return assemble(
            Usage,
            {
                "input_tokens": self.input_tokens + other.input_tokens,
                "output_tokens": self.output_tokens + other.output_tokens,
                "cache_read_tokens": self.cache_read_tokens + other.cache_read_tokens,
                "cache_write_tokens": self.cache_write_tokens + other.cache_write_tokens,
                "reasoning_tokens": self.reasoning_tokens + other.reasoning_tokens,
                "requests": self.requests + other.requests,
                "cost": cost,
            },
        )


class _Struct(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """The base of deltas and events: small, immutable, never part of a reference cycle."""


# Deltas: what a provider's answer grows by. ``choice`` tells answers apart where several were asked for (n > 1).


class TextDelta(_Struct, frozen=True, tag="text"):
    """More text of the answer."""

    text: str
    choice: int = 0


class RefusalDelta(_Struct, frozen=True, tag="refusal"):
    """More of the words with which the model declines."""

    text: str
    choice: int = 0


class ReasoningDelta(_Struct, frozen=True, tag="reasoning"):
    """More of what the model thinks."""

    text: str
    choice: int = 0


class ToolCallDelta(_Struct, frozen=True, tag="tool_call"):
    """The beginning of a tool call (``id`` and ``name``), or more of its arguments.

    ``index`` tells the calls of one answer apart; it is the provider's where that is sound.
    """

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""
    choice: int = 0


class DetailsDelta(_Struct, frozen=True, tag="details"):
    """The provider's own fields of the message, kept and sent back unchanged; later ones replace earlier ones."""

    details: dict[str, Any]
    choice: int = 0


class UsageDelta(_Struct, frozen=True, tag="usage"):
    """The tokens of the request so far."""

    usage: Usage


class ModelDelta(_Struct, frozen=True, tag="model"):
    """Who answers: the model as the provider names it, and the provider's id of the answer."""

    model: str = ""
    response_id: str = ""
    provider: str = ""


class FinishDelta(_Struct, frozen=True, tag="finish"):
    """The end mark of one answer: the provider's own finish reason."""

    finish_reason: str
    choice: int = 0


Delta = TextDelta | RefusalDelta | ReasoningDelta | ToolCallDelta | DetailsDelta | UsageDelta | ModelDelta | FinishDelta

# Run events: what the loop says around the deltas.


class RunStarted(_Struct, frozen=True, tag="run_started"):
    """A run begins, or goes on after a stop or a crash (``resumed``)."""

    run_id: str
    thread_id: str
    agent_name: str
    resumed: bool = False


class MessageAdded(_Struct, frozen=True, tag="message"):
    """A whole message entered the thread: the prompt, or a complete answer with its tokens."""

    message: Message
    usage: Usage | None = None
    finish_reason: str | None = None


class ToolCallStarted(_Struct, frozen=True, tag="tool_started"):
    """A tool is called."""

    call: ToolCall


class ToolCallFinished(_Struct, frozen=True, tag="tool_finished"):
    """A tool gave its result, after ``seconds``."""

    call: ToolCall
    result: ToolResult
    seconds: float = 0.0


class RunFinished(_Struct, frozen=True, tag="run_finished"):
    """A run ended, with the tokens of all its turns. A run that failed has no reason, and its stream raises."""

    stop_reason: StopReason | None
    usage: Usage | None = None
    error: str | None = None


RunEvent = RunStarted | MessageAdded | ToolCallStarted | ToolCallFinished | RunFinished
Event = Delta | RunEvent


class Answer(msgspec.Struct, frozen=True):
    """A complete or cut answer: the message, why the model stopped, and the tokens (None when not reported)."""

    message: AssistantMessage
    finish_reason: str | None = None
    usage: Usage | None = None
    response_id: str = ""


class Fold(msgspec.Struct, gc=False, eq=False):
    """Collects the deltas of one request and gives the answers they make.

    Calls keep the ids the server gave, which may be empty or the same twice: the log makes them unique (`Tail`).
    Pieces are appended to lists and joined once, so that a long answer costs time in proportion to its length.
    """

    # Like all that is kept while an answer comes, it is no part of a cycle, and the garbage collector's time goes with
    # the number of objects it has to look at: of many streams that are alive at once.
    provider: str
    model: str
    response_id: str = ""
    usage: Usage | None = None
    _choices: dict[int, _Choice] = msgspec.field(default_factory=dict)

    def add(self, deltas: Iterable[Delta]) -> None:
        """Take in the deltas of one socket read."""
        choices = self._choices
        for delta in deltas:
            kind = type(delta)
            if kind is UsageDelta:
                self.usage = delta.usage  # type: ignore[union-attr]  # the exact type was asked for
            elif kind is ModelDelta:
                self._named(delta)  # type: ignore[arg-type]
            else:
                number = delta.choice  # type: ignore[union-attr]
                choice = choices.get(number)
                if choice is None:
                    choice = choices[number] = _Choice()
                if kind is TextDelta:  # nearly all of them
                    choice.text.append(delta.text)  # type: ignore[union-attr]
                else:
                    choice.add(delta)

    def _named(self, delta: ModelDelta) -> None:
        self.model = delta.model or self.model
        self.provider = delta.provider or self.provider
        self.response_id = delta.response_id or self.response_id

    @property
    def finished(self) -> bool:
        """Whether every answer begun has its end mark."""
        for choice in self._choices.values():
            if choice.finish_reason is None:
                return False
        return bool(self._choices)

    def answer(self, choice: int = 0, *, calls: bool = True) -> Answer:
        """Give one answer as it stands.

        Args:
            choice: which of several.
            calls: False leaves tool calls out, which may be half received when an answer was cut.
        """
        made = self._choices.get(choice) or _Choice()
        return Answer(
            assemble(
                AssistantMessage,
                {
                    "parts": made.parts(calls=calls),
                    "provider": self.provider or None,
                    "model": self.model or None,
                    "details": FrozenDict(made.details) if made.details else EMPTY,
                },
            ),
            made.finish_reason,
            self.usage,
            self.response_id,
        )

    def answers(self) -> tuple[Answer, ...]:
        """Give all answers, in the order of their numbers."""
        return tuple(self.answer(number) for number in sorted(self._choices))


class _Choice(msgspec.Struct, gc=False, eq=False):
    text: list[str] = msgspec.field(default_factory=list)
    refusal: list[str] | None = None  # the rest is made when it is needed, which is seldom
    reasoning: list[str] | None = None
    calls: dict[int, _Call] | None = None
    details: dict[str, Any] | None = None
    finish_reason: str | None = None

    def add(self, delta: Any) -> None:
        kind = type(delta)
        if kind is ToolCallDelta:
            if self.calls is None:
                self.calls = {}
            call = self.calls.get(delta.index)
            if call is None:
                call = self.calls[delta.index] = _Call()
            call.id = call.id or delta.id
            call.name = call.name or delta.name
            call.arguments.append(delta.arguments)
        elif kind is ReasoningDelta:
            if self.reasoning is None:
                self.reasoning = []
            self.reasoning.append(delta.text)
        elif kind is RefusalDelta:
            if self.refusal is None:
                self.refusal = []
            self.refusal.append(delta.text)
        elif kind is FinishDelta:
            self.finish_reason = delta.finish_reason
        elif kind is DetailsDelta:
            self.details = (self.details or {}) | delta.details

    def parts(self, *, calls: bool) -> tuple[ReasoningPart | TextPart | ToolCall, ...]:
        made: list[ReasoningPart | TextPart | ToolCall] = []
        if reasoning := "".join(self.reasoning or ()):
            made.append(assemble(ReasoningPart, {"text": reasoning}))
        if text := "".join(self.text):
            made.append(assemble(TextPart, {"text": text}))
        if refusal := "".join(self.refusal or ()):
            made.append(TextPart(text=refusal, refusal=True))
        if calls and self.calls is not None:
            made.extend(
                assemble(ToolCall, {"id": call.id, "name": call.name, "arguments": "".join(call.arguments)})
                for _, call in sorted(self.calls.items())
            )
        return tuple(made)


class _Call(msgspec.Struct, gc=False, eq=False):
    id: str = ""
    name: str = ""
    arguments: list[str] = msgspec.field(default_factory=list)


def fold(batches: Iterable[Iterable[Delta]], *, provider: str = "", model: str = "") -> tuple[Answer, ...]:
    """Give the answers that a request's deltas make, one for each choice."""
    made = Fold(provider, model)
    for batch in batches:
        made.add(batch)
    return made.answers()
