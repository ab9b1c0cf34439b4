"""Where a request parts from the one before it: what a provider's prompt cache kept is of no use from there on.

Pure; knows bodies of requests as bytes, and nothing of dialects, threads or hooks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from plait.errors import excerpt

if TYPE_CHECKING:
    from plait.providers.encoding import Encoded

_SHOWN: Final = 40
_BEFORE: Final = 16  # of these, so many bytes stand before the first one that differs
_MOST_BYTES: Final = 4  # of one character in UTF-8
_INNER: Final = bytes(range(0x80, 0xC0))  # bytes of UTF-8 with which no character begins


class PrefixChange(msgspec.Struct, frozen=True, kw_only=True):
    """The first place in which a request differs from what a cache kept of the one before it.

    Attributes:
        at: the number of the first byte that differs, from 0.
        message: the number of the message, from 0, of the earlier request in which that is; None where it is in no
            message: in the tools, the form of the answer, or another field that stands before them.
        before: what stood there, with the bytes shortly before it: at most 40 characters.
        after: what stands there now.
    """

    at: int
    message: int | None = None
    before: str
    after: str

    def __str__(self) -> str:
        where = "before the messages" if self.message is None else f"in message {self.message}"
        return f"the prefix changed at byte {self.at}, {where}: {self.before!r} became {self.after!r}"


def first_change(before: Encoded, after: Encoded) -> PrefixChange | None:
    """Find where a request parts from what a prompt cache may have kept of an earlier one.

    Args:
        before: the earlier request of a thread.
        after: the next one.

    Returns:
        None when the later body begins with the whole prefix of the earlier one.
    """
    kept = before.body[: before.prefix]
    if after.body.startswith(kept):
        return None
    at = _parting(kept, after.body)
    return PrefixChange(
        at=at,
        message=_message_at(before, at),
        before=_around(kept, at),
        after=_around(after.body, at),
    )


def _parting(one: bytes, other: bytes) -> int:
    """Give the number of the first byte in which the other differs, which does not begin with the one; by halves."""
    same, differs = 0, len(one)
    while differs - same > 1:
        middle = (same + differs) // 2
        if one[same:middle] == other[same:middle]:
            same = middle
        else:
            differs = middle
    return same


def _message_at(request: Encoded, at: int) -> int | None:
    """Give the number of the message that a byte belongs to; the comma before one belongs to it."""
    previous = None
    for number, (start, end) in enumerate(request.spans):
        if start < end:
            if (start if previous is None or start != previous + 1 else previous) <= at < end:
                return number
            previous = end
    return None


def _around(body: bytes, at: int) -> str:
    part = body[max(0, at - _BEFORE) : at + _SHOWN * _MOST_BYTES]
    return excerpt(part.lstrip(_INNER) if at > _BEFORE else part, _SHOWN - 1)
