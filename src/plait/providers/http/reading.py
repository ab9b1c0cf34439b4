"""Reading an answer: whole or as records, and the most there may be of it.

Owns the limits of a request. It is given an exchange that has begun, and knows neither connections nor requests.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from plait.providers.http.failures import too_large

if TYPE_CHECKING:
    from plait.providers.http.exchange import Exchange
    from plait.providers.status import Service


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportLimits:
    """How long, and how much, one request may take.

    Attributes:
        connect: seconds until the connection stands: name, TCP and TLS.
        silence: seconds without any byte while a streamed answer is awaited.
        total: seconds for one request in all; the only limit on waiting for an answer in one piece.
        answer_bytes: the most bytes of an answer in one piece, or of one event of a stream.
        stream_bytes: the most bytes of a whole stream; in a stream each token comes in an envelope of 200 to 400.
    """

    connect: float = 5.0
    silence: float = 60.0
    total: float = 600.0
    answer_bytes: int = 16 * 2**20
    stream_bytes: int = 128 * 2**20


DEFAULT_LIMITS: Final = TransportLimits()
_BEGINNING: Final = 1000  # bytes of a stream that are kept, to show if they make no sense


class Framing(Protocol):
    """Finds the records in a stream's bytes; `EventReader` is one. ``size`` is what it holds of the next one."""

    size: int

    def feed(self, part: bytes) -> list[bytes]:
        """Take in what one read gave; give the records that are complete now."""
        ...

    def end(self) -> list[bytes]:
        """Give what is left at the clean end of the stream."""
        ...


async def read_whole(exchange: Exchange, most: int, service: Service) -> bytes:
    """Give the whole body of an answer.

    Raises:
        LimitExceeded: it has more than ``most`` bytes.
        TransportError, ProtocolViolation: see `Exchange.read`.
    """
    parts = []
    size = 0
    while part := await exchange.read():
        parts.append(part)
        size += len(part)
        if size > most:
            raise too_large(service, "the answer", most)
    return parts[0] if len(parts) == 1 else b"".join(parts)


class EventStream:
    """The events of one streamed answer, in batches: what one read of the socket completed.

    It must be closed, by `close`, however it was left.
    """

    __slots__ = ("_ended", "_exchange", "_framing", "_limits", "_received", "_service", "beginning")

    def __init__(self, exchange: Exchange, framing: Framing, limits: TransportLimits, service: Service) -> None:
        self._exchange = exchange
        self._framing = framing
        self._limits = limits
        self._service = service
        self._received = 0
        self._ended = False
        self.beginning = b""

    async def read(self) -> list[bytes] | None:
        """Give the data of the next events, at least one; None at the clean end.

        ``beginning`` holds the first bytes, in case no event came at all.

        Raises:
            TransportError: the stream broke off, or a deadline passed.
            ProtocolViolation: it broke the rules of HTTP or of its content encoding.
            LimitExceeded: an event, or the stream, is too large.
        """
        limits = self._limits
        framing = self._framing
        while not self._ended:
            part = await self._exchange.read()
            if not part:
                self._ended = True
                return framing.end() or None
            if self._received < _BEGINNING:
                self.beginning += part[: _BEGINNING - self._received]
            self._received += len(part)
            if self._received > limits.stream_bytes:
                raise too_large(self._service, "the stream", limits.stream_bytes)
            crowded = framing.size + len(part) > limits.answer_bytes
            events = framing.feed(part)
            if crowded and max((framing.size, *map(len, events))) > limits.answer_bytes:
                raise too_large(self._service, "one event of the stream", limits.answer_bytes)
            if events:
                return events
        return None

    async def finish(self) -> None:
        """Say that the last event was read: what the server still sends is dropped, and its connection kept."""
        await self._exchange.finish()

    def close(self) -> None:
        """Let go of the connection: it is kept if the stream was read to its end, else closed at once."""
        self._exchange.close()
