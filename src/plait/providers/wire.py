"""Bytes that are made once and joined often: what every dialect's requests are built from.

A message is encoded once for each form it is sent in, and its bytes live as long as the message does. So the
400th request of a thread is a join, and begins with exactly the bytes of the 399th, which is what providers'
prompt caches look for. What a model reads stands first: tools, the form of the answer, messages. How it shall answer
(``max_tokens``, whether the answer is streamed) stands behind the messages: it may differ from request to request, and
no cache is lost with it.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar
from weakref import ref

import msgspec

from plait.attachments import image_source
from plait.errors import ConfigurationError
from plait.plain import EMPTY, to_json
from plait.providers.history import spared

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Set as AbstractSet

    from plait.messages import ImagePart, Message

V = TypeVar("V")

Span = tuple[int, int]
"""Where in a body something stands: from its first byte to the one behind its last."""

_MOST: Final = 64
_MOST_TOKENS: Final = 10**12
_MOST_DOLLARS: Final = 1e6


class Pieces(msgspec.Struct, frozen=True, gc=False):
    """The body of a request, in pieces that stand one behind the other.

    Attributes:
        head: all that stands before the list of messages, and its opening bracket.
        listed: the messages in the list, in their order; one of which nothing is sent is empty.
        tail: the list's closing bracket, and all that stands behind it.
        apart: where in the head those messages stand that are not in the list, by their number in the request.
    """

    head: bytes
    listed: Sequence[bytes]
    tail: bytes
    apart: Mapping[int, Span] = EMPTY  # type: ignore[assignment]  # it is empty

    def body(self) -> bytes:
        """Join them."""
        return b"".join((self.head, b",".join(filter(None, self.listed)), self.tail))

    def spans(self) -> tuple[Span, ...]:
        """Give where in the body each message of the request stands; one of which nothing is sent has no length."""
        listed = iter(laid(len(self.head), self.listed))
        count = len(self.listed) + len(self.apart)
        return tuple([self.apart[number] if number in self.apart else next(listed) for number in range(count)])


def laid(start: int, listed: Sequence[bytes]) -> list[Span]:
    """Give where each of these stands when they are joined by commas, without the empty ones, from ``start`` on."""
    spans = []
    for one in listed:
        spans.append((start, start + len(one)))
        start += len(one) + 1 if one else 0
    return spans


class MessageBytes:
    """The bytes of messages in one form, kept as long as the messages live.

    Messages are found by identity: comparing or hashing one costs more than encoding it. One such object serves
    every provider that sends messages in the same form.
    """

    __slots__ = ("_encode", "_forget", "_known", "_spared")

    def __init__(self, encode: Callable[[Message], bytes]) -> None:
        """Take the function that encodes a message; it must depend on nothing but the message."""
        self._encode = encode
        self._known: dict[int, _Known] = {}
        self._spared: dict[int, _Known] = {}  # as messages are said that were said before
        self._forget = self._gone  # bound once: each entry keeps it

    def all(self, messages: Sequence[Message], earlier: int = 0) -> list[bytes]:
        """Give the bytes of each message.

        Args:
            messages: what is sent.
            earlier: how many of them were said before; see `Request`.

        Raises:
            ConfigurationError: the form has no place for something in a message that is new.
        """
        known = self._known.get
        found: list[bytes] = []
        for message in messages:
            # An entry is removed when its message goes, before another object can have its number.
            entry = known(id(message))
            found.append(self._add(message, spare=len(found) < earlier) if entry is None else entry.data)
        return found

    def knows(self, message: Message, *, spare: bool) -> bool:
        """Whether the bytes of a message are kept; ``spare`` says whether it was said before."""
        return id(message) in self._known or (spare and id(message) in self._spared)

    def keep(self, message: Message, said: Message, *, spare: bool) -> bytes:
        """Keep for a message the bytes of what is said in its place, such as itself with its images fetched.

        Args:
            message: the one that will be asked for.
            said: what is encoded.
            spare: whether it was said before, so that what cannot be sent is named in its place.

        Raises:
            ConfigurationError: as `all`.
        """
        kept = self._known
        try:
            data = self._encode(said)
        except ConfigurationError:
            if message.role != "tool":
                if not spare:
                    raise
                kept = self._spared
            data = self._encode(spared(said, self._encode))
        entry = _Known(message, self._forget)
        entry.number = id(message)
        entry.data = data
        kept[entry.number] = entry
        return data

    def _add(self, message: Message, *, spare: bool) -> bytes:
        if spare and (entry := self._spared.get(id(message))) is not None:
            return entry.data
        return self.keep(message, message, spare=spare)

    def _gone(self, entry: _Known) -> None:
        self._known.pop(entry.number, None)
        self._spared.pop(entry.number, None)

    def __len__(self) -> int:
        return len(self._known)


class _Known(ref["Message"]):
    """A weak reference to a message, with its bytes."""

    __slots__ = ("data", "number")

    data: bytes
    number: int


class Recent(Generic[V]):
    """Values made of objects that are told apart by identity; the oldest goes when there are too many."""

    __slots__ = ("_made",)

    def __init__(self) -> None:
        self._made: dict[tuple[int, ...], tuple[tuple[object, ...], V]] = {}

    def get(self, parts: tuple[object, ...], make: Callable[[], V]) -> V:
        """Give the value that was made of these very objects, else make it."""
        numbers = tuple(map(id, parts))
        found = self._made.get(numbers)
        if found is None:
            if len(self._made) >= _MOST:
                del self._made[next(iter(self._made))]
            found = self._made[numbers] = (parts, make())  # holding the objects keeps their numbers theirs
        return found[1]


def fields_said(fields: dict[str, Any]) -> dict[str, Any]:
    """Give the fields of a request that say something: those that are not None."""
    return {name: value for name, value in fields.items() if value is not None}


def around(fields: Mapping[str, Any], behind: AbstractSet[str], opening: bytes = b"") -> tuple[bytes, bytes]:
    """Encode the fields of a request that stand before its messages, and those that stand behind them.

    Args:
        fields: all but the messages; at least one stands before them.
        behind: the names of those that stand behind them.
        opening: what stands between the first and the messages.

    Returns:
        The beginning of an object, and the end of a list and of that object.
    """
    first = to_json({name: value for name, value in fields.items() if name not in behind})
    last = to_json({name: value for name, value in fields.items() if name in behind})
    return first[:-1] + opening, b"]," + last[1:] if len(last) > len(b"{}") else b"]}"


def data_url(data: bytes, media_type: str) -> str:
    """Give bytes as a ``data:`` address (https://www.rfc-editor.org/rfc/rfc2397)."""
    return f"data:{media_type};base64,{b64encode(data).decode('ascii')}"


def image_url(part: ImagePart) -> str:
    """Give the address of an image, which is a ``data:`` address if its bytes are known.

    Raises:
        ConfigurationError: it cannot be sent; see `image_source`.
    """
    source = image_source(part)
    return source if isinstance(source, str) else data_url(source.data, source.media_type)


def token_count(value: object) -> int | None:
    """Give a number of tokens as a provider reports it; None for what cannot be one."""
    return value if type(value) is int and 0 <= value < _MOST_TOKENS else None


def dollars(value: object) -> float | None:
    """Give what a request cost, as a provider reports it; None for what cannot be a price."""
    return float(value) if type(value) in (int, float) and 0 <= value < _MOST_DOLLARS else None  # type: ignore[operator, arg-type]  # the exact type was asked for
