"""Reading answers that are given as a call of a tool.

Knows no dialect, and does no I/O.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from plait.events import FinishDelta, PartDelta, ReasoningDelta, TextDelta, ToolCallDelta
from plait.messages import TextPart

if TYPE_CHECKING:
    from collections.abc import Iterable

    from plait.errors import TransportError
    from plait.events import Delta
    from plait.providers.judging import Judge


class AnswerByTool:
    """Reads an answer that is given as a call of a tool: what stands in its arguments is the text.

    What the model says beside the call is no part of the answer, so it is handed out as what it thinks. It is known to
    be that, and not the answer of a model that called no tool, when the call begins; until then text waits. Calls of
    other tools pass; then the loop goes on, and what is text is not the answer yet.
    """

    __slots__ = ("_choices", "_reader", "_tool", "done")

    def __init__(self, reader: Judge[Any], tool: str) -> None:
        """Take the dialect's reader, and the name of the tool."""
        self.done = reader.done
        self._reader = reader
        self._tool = tool
        self._choices: dict[int, _Choice] = {}

    @property
    def partial(self) -> str:
        """The text of the first choice so far."""
        first = self._choices.get(0)
        return "".join(first.said) if first is not None and first.said else self._reader.partial

    def whole(self, body: bytes) -> list[Delta]:
        """Read an answer in one piece; see `Judge.whole`."""
        return self._read(self._reader.whole(body))

    def feed(self, events: Iterable[bytes]) -> list[Delta]:
        """Read the events of one socket read; see `Judge.feed`."""
        deltas = self._read(self._reader.feed(events))
        self.done = self._reader.done
        return deltas

    def end(self, beginning: bytes = b"", *, broken: TransportError | None = None) -> list[Delta]:
        """Judge a stream at its end; see `Judge.end`."""
        return self._read(self._reader.end(beginning, broken=broken))

    def _read(self, deltas: list[Delta]) -> list[Delta]:
        made: list[Delta] = []
        for delta in deltas:
            if isinstance(delta, TextDelta | ToolCallDelta | FinishDelta) or (
                isinstance(delta, PartDelta) and type(delta.part) is TextPart and not delta.part.refusal
            ):
                choice = self._choices.get(delta.choice)
                if choice is None:
                    choice = self._choices[delta.choice] = _Choice(delta.choice)
                if isinstance(delta, ToolCallDelta):
                    choice.call(delta, self._tool, made)
                elif isinstance(delta, FinishDelta):
                    choice.end(made)
                    made.append(delta)
                else:
                    choice.speak(delta, made)
            else:
                made.append(delta)
        return made


class _Choice(msgspec.Struct, gc=False, eq=False):
    """What was seen of one choice.

    Attributes:
        number: which it is.
        answer: the index of the call that is the answer, once it began.
        said: the answer's text, in pieces.
        waiting: text of which it is not known yet what it is.
        nameless: the pieces of calls whose name has not come, by index.
        others: the indexes of calls that pass.
    """

    number: int
    answer: int | None = None
    said: list[str] = msgspec.field(default_factory=list)
    waiting: list[TextDelta | PartDelta] = msgspec.field(default_factory=list)
    nameless: dict[int, list[ToolCallDelta]] = msgspec.field(default_factory=dict)
    others: set[int] = msgspec.field(default_factory=set)

    def speak(self, delta: TextDelta | PartDelta, made: list[Delta]) -> None:
        """Take in text."""
        self.waiting.append(delta)
        if self.answer is not None:
            self._think(made)

    def call(self, delta: ToolCallDelta, tool: str, made: list[Delta]) -> None:
        """Take in a piece of a call."""
        index = delta.index
        if index == self.answer:
            self._say(delta.arguments, made)
        elif index in self.others:
            made.append(delta)
        elif not delta.name:
            self.nameless.setdefault(index, []).append(delta)
        elif delta.name != tool:
            self.others.add(index)
            self._release(made)
            made += [*self.nameless.pop(index, ()), delta]
        elif self.answer is None:
            self.answer = index
            self._think(made)
            for piece in (*self.nameless.pop(index, ()), delta):
                self._say(piece.arguments, made)
        # A model that calls it once more says nothing new: the first answer is the answer.

    def end(self, made: list[Delta]) -> None:
        """Hand out what waits: no call comes any more."""
        if self.answer is not None and not self.said:
            self._say("{}", made)  # as with any tool, no arguments are an object without entries
        self._release(made)
        for pieces in self.nameless.values():
            made += pieces if self.answer is None else ()
        self.nameless.clear()

    def _say(self, text: str, made: list[Delta]) -> None:
        if text:
            self.said.append(text)
            made.append(TextDelta(text, self.number))

    def _release(self, made: list[Delta]) -> None:
        made += self.waiting
        self.waiting.clear()

    def _think(self, made: list[Delta]) -> None:
        told = False  # whether a whole part repeats what came in pieces
        for delta in self.waiting:
            if type(delta) is TextDelta:
                made.append(ReasoningDelta(delta.text, self.number))
                told = True
            elif isinstance(delta, PartDelta):
                if not told and isinstance(delta.part, TextPart):
                    made.append(ReasoningDelta(delta.part.text, self.number))
                told = False
        self.waiting.clear()
