"""What a model is told of what is missing: that earlier messages were left out, and that the window is full."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plait.messages import SystemMessage

if TYPE_CHECKING:
    from plait.context.bounds import Bounds
    from plait.context.cutting import Forms
    from plait.context.trimmed import Origin
    from plait.messages import Message


class Notes:
    """The notes of one trimmer: two messages, either of which may be none. They are counted once."""

    __slots__ = ("_dropped", "_overflow", "_tokens")

    def __init__(self, bounds: Bounds, forms: Forms) -> None:
        self._dropped = SystemMessage(text=bounds.dropped_note) if bounds.dropped_note else None
        self._overflow = SystemMessage(text=bounds.overflow_note) if bounds.overflow_note else None
        self._tokens = [0 if note is None else forms.tokens(note) for note in (self._dropped, self._overflow)]

    def sent(self, *, dropped: object, overflow: bool) -> dict[Origin, Message]:
        """Give those that are sent, by what they are.

        Args:
            dropped: whether messages are left out: anything that is true.
            overflow: whether tokens were the reason.
        """
        notes: dict[Origin, Message] = {}
        if dropped and self._dropped is not None:
            notes["dropped_note"] = self._dropped
        if overflow and self._overflow is not None:
            notes["overflow_note"] = self._overflow
        return notes

    def tokens(self, *, dropped: object, overflow: bool) -> int:
        """Count those that are sent."""
        of_dropped, of_overflow = self._tokens
        return (of_dropped if dropped else 0) + (of_overflow if overflow else 0)
