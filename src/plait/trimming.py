"""The one trimmer: which messages of a thread are sent next, in time for what is new.

Signatures first; the machine follows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from plait.bounds import Bounds
    from plait.counting import Counter
    from plait.messages import Message

Origin = int | Literal["dropped_note", "overflow_note", "summary"]
"""Where a sent message comes from: its index in the thread's messages, or what put it there."""


class Cut(NamedTuple):
    """A message of which only a part is sent: its index in the thread's messages, and the tokens left out."""

    index: int
    left_out: int


class Unsummarised(NamedTuple):
    """What a summary is wanted of: ``messages``, all before index ``upto``, to be worked into ``earlier``."""

    messages: tuple[Message, ...]
    upto: int
    earlier: str | None


class Trimmed(NamedTuple):
    """What is sent now."""

    messages: list[Message]
    tokens: int
    stable: bool
    overflow: bool
    dropped: tuple[Message, ...]
    dropped_total: int
    cut: tuple[Cut, ...]
    summarize: Unsummarised | None


class Trimmer:
    """Trims one thread for one agent."""

    def __init__(
        self, bounds: Bounds, counter: Counter | None, fixed_tokens: int = 0, summary: tuple[int, str] | None = None
    ) -> None:
        raise NotImplementedError

    def trim(self, messages: Sequence[Message], first_of_run: int, factor: float = 1.0) -> Trimmed:
        raise NotImplementedError

    def summarised(self, upto: int, text: str) -> Trimmed:
        raise NotImplementedError

    def origins(self) -> list[Origin]:
        raise NotImplementedError
