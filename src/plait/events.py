"""What a run's stream yields: deltas (increments of an answer) and run events; and folding deltas into a message.

There is one delta per token, so these are msgspec structs, not pydantic models. Knows nothing of wire formats:
providers make deltas, the loop makes the other events.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from plait.frozen import Frozen, assemble
from plait.messages import (
    AssistantMessage,
    ImagePart,
    Message,
    ReasoningPart,
    ServerToolPart,
    TextPart,
    ToolCall,
    ToolResult,
)
from plait.plain import EMPTY, FrozenDict

if TYPE_CHECKING:
    from collections.abc import Iterable

StopReason = Literal[
    "response", "max_turns", "max_tool_calls", "budget", "user_stop", "interrupt", "guardrail", "deadline"
]
"""Why a run ended. Failures are exceptions, not stop reasons."""


CUT: Final = frozenset(
    {
        *("length", "max_tokens", "max_output_tokens", "model_context_window_exceeded"),
        *("incomplete", "max_messages", "steered"),
    }
)
"""The finish reasons of answers that reached a limit of tokens, or were cut short otherwise, as providers say it."""

DECLINED: Final = frozenset({"content_filter", "refusal"})
"""The finish reasons of answers that the model, or the provider's filter, declined to give or to finish."""

PAUSED: Final = frozenset({"pause_turn", "compaction"})
"""The finish reasons of answers that the provider goes on with when they are sent back as they are."""

MAY_BE_EMPTY: Final = CUT | DECLINED | PAUSED
"""The finish reasons for which an answer may well say nothing."""


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
        estimated: whether some of it is our estimate: of an answer that was cut before its tokens were told.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    requests: int = 1
    cost: float | None = None
    estimated: bool = False

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
                "estimated": self.estimated or other.estimated,
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
    details: dict[str, Any] | None = None


class PartDelta(_Struct, frozen=True, tag="part"):
    """A whole part of the answer, with the provider's own details.

    It takes the place of the pieces of its kind that came since the last whole part, whose text it repeats; what comes
    after it begins new parts. So a signature finds the thoughts it signs, and parts keep their order.
    """

    part: TextPart | ReasoningPart | ServerToolPart | ImagePart
    choice: int = 0


class AttemptDelta(_Struct, frozen=True, tag="attempt"):
    """The answer begins anew: what came of it before is void. ``attempt`` is the number of the request, from 2."""

    attempt: int


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


Delta = (
    TextDelta
    | RefusalDelta
    | ReasoningDelta
    | ToolCallDelta
    | PartDelta
    | DetailsDelta
    | UsageDelta
    | ModelDelta
    | FinishDelta
    | AttemptDelta
)

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


class MessagesSummarised(_Struct, frozen=True, tag="summarised"):
    """From now on a summary is sent in place of the entries ``first`` to ``last``, which stay in the log."""

    first: int
    last: int
    usage: Usage | None = None


class RunFinished(_Struct, frozen=True, tag="run_finished"):
    """A run ended, with the tokens of all its turns. A run that failed has no reason, and its stream raises."""

    stop_reason: StopReason | None
    usage: Usage | None = None
    error: str | None = None


RunEvent = RunStarted | MessageAdded | ToolCallStarted | ToolCallFinished | MessagesSummarised | RunFinished
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
    _void: Usage | None = None  # the tokens of attempts that were superseded

    def add(self, deltas: Iterable[Delta]) -> None:
        """Take in the deltas of one socket read."""
        choices = self._choices
        for delta in deltas:
            kind = type(delta)
            if kind is UsageDelta:
                used = delta.usage  # type: ignore[union-attr]  # the exact type was asked for
                self.usage = used if self._void is None else self._void + used
            elif kind is ModelDelta:
                self._named(delta)  # type: ignore[arg-type]
            elif kind is AttemptDelta:
                self._begin_anew()
            else:
                number = delta.choice  # type: ignore[union-attr]
                choice = choices.get(number)
                if choice is None:
                    choice = choices[number] = _Choice()
                if kind is TextDelta and choice.text is not None:  # nearly all of them
                    choice.text.append(delta.text)  # type: ignore[union-attr]
                else:
                    choice.add(delta)

    def _named(self, delta: ModelDelta) -> None:
        self.model = delta.model or self.model
        self.provider = delta.provider or self.provider
        self.response_id = delta.response_id or self.response_id

    def _begin_anew(self) -> None:
        """Drop what came of the answer, but not what it cost: where that was not told, the cost is not known."""
        self._choices.clear()
        if self.usage is None or self.usage is self._void:  # the last attempt told nothing of its tokens
            untold = Usage()
            self.usage = untold if self._void is None else self._void + untold
        self._void = self.usage

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
    """One answer that grows: its parts in the order in which they began, and those that are open for more."""

    parts_begun: list[Any] = msgspec.field(default_factory=list)  # whole parts, and what grows into one
    text: list[str] | None = None  # the pieces of the text that is open
    open: dict[type | None, _Pieces] | None = None  # what is open, by the kind of its pieces
    calls: dict[int, _Call] | None = None
    details: dict[str, Any] | None = None
    finish_reason: str | None = None

    def add(self, delta: Any) -> None:
        kind = type(delta)
        if kind is ToolCallDelta:
            self._call(delta)
        elif kind in _PIECES:
            self._pieces(kind).said.append(delta.text)
        elif kind is PartDelta:
            self._whole(delta.part)
        elif kind is FinishDelta:
            self.finish_reason = delta.finish_reason
        elif kind is DetailsDelta:
            self.details = (self.details or {}) | delta.details

    def _pieces(self, kind: type) -> _Pieces:
        if self.open is None:
            self.open = {}
        pieces = self.open.get(kind)
        if pieces is None:
            pieces = self.open[kind] = _Pieces(kind, len(self.parts_begun))
            self.parts_begun.append(pieces)
            if kind is TextDelta:
                self.text = pieces.said
        return pieces

    def _call(self, delta: ToolCallDelta) -> None:
        if self.calls is None:
            self.calls = {}
        call = self.calls.get(delta.index)
        if call is None:
            call = self.calls[delta.index] = _Call()
            self.parts_begun.append(call)
        call.id = call.id or delta.id
        call.name = call.name or delta.name
        call.arguments.append(delta.arguments)
        if delta.details:
            call.details = (call.details or {}) | delta.details

    def _whole(self, part: Any) -> None:
        grown = self.open.get(_kind_of(part)) if self.open else None
        if grown is None:
            self.parts_begun.append(part)
        else:
            self.parts_begun[grown.at] = part
        self.open = self.text = None

    def parts(self, *, calls: bool) -> tuple[Any, ...]:
        made = []
        in_order = iter([call for _, call in sorted((self.calls or {}).items())])
        for begun in self.parts_begun:
            kind = type(begun)
            if kind is _Pieces:
                if text := "".join(begun.said):
                    made.append(begun.part(text))
            elif kind is not _Call:
                made.append(begun)
            elif calls:  # they stand where calls began, in the order of their numbers
                made.append(next(in_order).part())
        return tuple(made)


class _Pieces(msgspec.Struct, gc=False, eq=False):
    """A part that comes in pieces."""

    kind: type
    at: int  # its place among the parts that began
    said: list[str] = msgspec.field(default_factory=list)

    def part(self, text: str) -> TextPart | ReasoningPart:
        if self.kind is ReasoningDelta:
            return assemble(ReasoningPart, {"text": text})
        return assemble(TextPart, {"text": text} if self.kind is TextDelta else {"text": text, "refusal": True})


class _Call(msgspec.Struct, gc=False, eq=False):
    id: str = ""
    name: str = ""
    arguments: list[str] = msgspec.field(default_factory=list)
    details: dict[str, Any] | None = None

    def part(self) -> ToolCall:
        fields: dict[str, Any] = {"id": self.id, "name": self.name, "arguments": "".join(self.arguments)}
        return assemble(ToolCall, fields | {"details": FrozenDict(self.details)} if self.details else fields)


_PIECES: Final = frozenset({TextDelta, RefusalDelta, ReasoningDelta})


def _kind_of(part: object) -> type | None:
    """Give the kind of pieces that grow into such a part."""
    if type(part) is TextPart:
        return RefusalDelta if part.refusal else TextDelta
    return ReasoningDelta if type(part) is ReasoningPart else None


def fold(batches: Iterable[Iterable[Delta]], *, provider: str = "", model: str = "") -> tuple[Answer, ...]:
    """Give the answers that a request's deltas make, one for each choice."""
    made = Fold(provider, model)
    for batch in batches:
        made.add(batch)
    return made.answers()
