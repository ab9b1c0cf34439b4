"""The messages of a thread as they may be sent, with the sums of their tokens: the table a trimmer works on.

Knows nothing of bounds. Places count from 0 in the table; ``at`` says where in the thread each message is from.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from plait.messages import Message


class Sendables:
    """Parallel lists, so that what is sent is one slice; any stretch's tokens are one subtraction.

    Attributes:
        at: the index of each in the thread's messages, ascending.
        whole: each in full.
        sent: each as it is sent, which is the same object unless it was cut.
    """

    __slots__ = ("_sums", "at", "sent", "whole")

    def __init__(self) -> None:
        self.at: list[int] = []
        self.whole: list[Message] = []
        self.sent: list[Message] = []
        self._sums = [0]

    def copy(self) -> Sendables:
        """Give a table of its own with the same rows."""
        made = Sendables()
        made.at, made.whole, made.sent, made._sums = [*self.at], [*self.whole], [*self.sent], [*self._sums]
        return made

    def __len__(self) -> int:
        return len(self.at)

    def append(self, at: int, whole: Message, sent: Message, tokens: int) -> None:
        """Add a message, and how many tokens of it are sent."""
        self.at.append(at)
        self.whole.append(whole)
        self.sent.append(sent)
        self._sums.append(self._sums[-1] + tokens)

    def tokens(self, begin: int, end: int) -> int:
        """Count what is sent of the messages from one place to before another."""
        return self._sums[end] - self._sums[begin]

    def find(self, at: int) -> int:
        """Give the place of the first message from here in the thread, or the end."""
        return bisect_left(self.at, at)

    def unit_of(self, place: int) -> int:
        """Give the place where the unit begins: a call, and the results that come right after it."""
        while place and self.whole[place].role == "tool":
            place -= 1
        return place

    def whole_from(self, place: int) -> int:
        """Give the first place from here on that does not separate results from their call, or the end."""
        while place < len(self.whole) and self.whole[place].role == "tool":
            place += 1
        return place

    def replace(self, place: int, sent: Message, tokens: int) -> None:
        """Send something else of a message; takes time for all that come after it."""
        self.sent[place] = sent
        less = self.tokens(place, place + 1) - tokens
        self._sums[place + 1 :] = [total - less for total in self._sums[place + 1 :]]

    def take_from(self, place: int) -> list[tuple[int, Message, Message]]:
        """Take the messages from here on out of the table: where each is from, in full, and as it is sent."""
        taken = list(zip(self.at[place:], self.whole[place:], self.sent[place:], strict=True))
        del self.at[place:], self.whole[place:], self.sent[place:], self._sums[place + 1 :]
        return taken
