"""What an answer says, whichever dialect writes it and whatever goes wrong on its way. Knows neither."""

from __future__ import annotations

from dataclasses import dataclass
from json import dumps
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

BY_ITSELF: Final = "(by itself)"
"""The finish reason that fits what is said."""

WORDS: Final = "Hello from the fault server: this answer has a few words."


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A tool call in an answer.

    Attributes:
        name: the tool's name; the empty text stands for the first tool that the request offers.
        arguments: what is passed, as a mapping; or the model's own text, which may be no JSON at all.
        id: the call's id; None has one made that no other call has.
    """

    name: str = ""
    arguments: Mapping[str, Any] | str = "{}"
    id: str | None = None

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
    """

    text: str | None = None
    calls: tuple[Call, ...] = ()
    refusal: str | None = None
    finish_reason: str | None = BY_ITSELF
    usage: tuple[int, int] | None = (9, 12)
    piece: int | None = None

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
