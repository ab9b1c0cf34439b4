"""What a trimmer says: `Trimmed`, and the values in it."""

from __future__ import annotations

from operator import is_
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from plait.messages import Message

Origin = int | Literal["dropped_note", "overflow_note", "summary"]
"""Where a sent message comes from: its index in the thread's messages, or what put it there."""


class Cut(NamedTuple):
    """A message of which only a part is sent: its index in the thread's messages, and the tokens left out."""

    at: int
    left_out: int


class Unsummarised(NamedTuple):
    """What a summary is wanted of.

    Attributes:
        messages: what was left out and is in no summary yet, in order.
        upto: the index of the first message that the summary will not hide; `Trimmer.summarised` takes it back.
        earlier: the summary so far, into which they are to be worked; None when there is none.
        since: the index of the first of the messages.
    """

    messages: tuple[Message, ...]
    upto: int
    earlier: str | None
    since: int


class Trimmed(NamedTuple):
    """What is sent now.

    Attributes:
        messages: system text, notes, and what was chosen, in order.
        tokens: all that is sent, system prompt and tools too, as the counter counts it, not corrected; None where
            nothing is counted.
        earlier: how many of the messages, from the first, were said before the run, or are notes.
        before: what was sent last time; None where this is the first time.
        overflow: whether tokens made something be left out, or be cut beyond what its own bound asked for.
        overflowed: whether they did so since the last time; for a thread just opened, for this request.
        dropped: what was left out since the last time, likewise.
        dropped_total: how many messages of the thread are left out.
        cut: what was cut since the last time, likewise.
        summarize: what a summary is wanted of; None when of nothing.
    """

    messages: list[Message]
    tokens: int | None
    earlier: int
    before: list[Message] | None
    overflow: bool
    overflowed: bool
    dropped: tuple[Message, ...]
    dropped_total: int
    cut: tuple[Cut, ...]
    summarize: Unsummarised | None

    @property
    def stable(self) -> bool:
        """Whether what was sent last time, the same objects, is still the beginning of this."""
        before = self.before
        return before is None or (len(before) <= len(self.messages) and all(map(is_, before, self.messages)))
