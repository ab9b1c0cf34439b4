"""What an answer says, whichever dialect writes it and whatever goes wrong on its way. Knows neither."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from json import dumps
from typing import Any, Final

from plait.testing.checks import of_kind, refuse, whole

BY_ITSELF: Final = "(by itself)"
"""The finish reason that fits what is said."""

_PAIR: Final = 2
WORDS: Final = "Hello from the fault server: this answer has a few words."


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A tool call in an answer.

    Attributes:
        name: the tool's name; the empty text stands for the first tool that the request offers.
        arguments: what is passed, as a mapping; or the model's own text, which may be no JSON at all.
        id: the call's id; None has one made that no other call has.

    Raises:
        ConfigurationError: one of them is of another type.
    """

    name: str = ""
    arguments: Mapping[str, Any] | str = "{}"
    id: str | None = None

    def __post_init__(self) -> None:
        of_kind("the name of a Call", self.name, str, "the tool's name")
        of_kind("arguments of a Call", self.arguments, (str, Mapping), "a mapping, or the model's own text")
        of_kind("the id of a Call", self.id, (str, type(None)), "a text, or None to have one made")

    @property
    def text(self) -> str:
        """The arguments as the model writes them."""
        return self.arguments if isinstance(self.arguments, str) else dumps(self.arguments)


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What an answer says.

    Attributes:
        text: its text; None has it say nothing.
        calls: its tool calls.
        refusal: the words with which the model declines.
        finish_reason: why the model stopped; by itself ``"tool_calls"`` or ``"stop"``; None says nothing of it.
        usage: tokens sent and received; None has them left out.
        piece: characters of text in each event of a stream; without a number, a word.

    Raises:
        ConfigurationError: one of them is of another type.
    """

    text: str | None = None
    calls: tuple[Call, ...] = ()
    refusal: str | None = None
    finish_reason: str | None = BY_ITSELF
    usage: tuple[int, int] | None = (9, 12)
    piece: int | None = None

    def __post_init__(self) -> None:
        for name in ("text", "refusal", "finish_reason"):
            of_kind(f"the {name} of a Said", getattr(self, name), (str, type(None)), "a text or None")
        if not isinstance(self.calls, tuple | list) or not all(isinstance(call, Call) for call in self.calls):
            refuse("calls of a Said", self.calls, "a tuple of Call(...)")
        object.__setattr__(self, "calls", tuple(self.calls))
        if self.usage is not None and not (isinstance(self.usage, tuple | list) and len(self.usage) == _PAIR):
            refuse("the usage of a Said", self.usage, "(tokens sent, tokens received), or None")
        if self.piece is not None:
            whole("the piece of a Said", self.piece, 1)

    @property
    def reason(self) -> str | None:
        """The finish reason."""
        if self.finish_reason != BY_ITSELF:
            return self.finish_reason
        return "tool_calls" if self.calls else "stop"

    def pieces(self) -> list[str]:
        """Give the text as a stream cuts it; together they are the text."""
        text = self.text or ""
        if self.piece is not None:
            return [text[at : at + self.piece] for at in range(0, len(text), self.piece)]
        words = text.split(" ")
        return [word if number == 0 else f" {word}" for number, word in enumerate(words)] if text else []
