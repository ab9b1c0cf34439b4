"""Reading an answer: its bytes under two deadlines, its records, and the most there may be of both.

Owns the limits of a request. It is given an answer that has begun, and knows neither connections nor requests.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from plait.errors import ModelError, TransportError
from plait.providers.http.failures import failure_of, too_large, violation

if TYPE_CHECKING:
    from aiohttp import ClientResponse

    from plait.providers.status import Service

_TICK: Final = 1.0  # seconds between looks at a connection that somebody waits for
_LINGER: Final = 0.25  # seconds to wait for the end of a body whose last event was seen
_ERROR_BYTES: Final = 65_536  # of an error's body; its beginning is all we show
_ERROR_SECONDS: Final = 5.0  # without a byte of an error's body before we do without the rest


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


class Framing(Protocol):
    """Finds the records in a stream's bytes; `EventReader` is one. ``size`` is what it holds of the next one."""

    size: int

    def feed(self, part: bytes) -> list[bytes]:
        """Take in what one read gave; give the records that are complete now."""
        ...

    def end(self) -> list[bytes]:
        """Give what is left at the clean end of the stream."""
        ...


class Body:
    """The body of one answer, read piece by piece under two deadlines.

    One timer watches it: it looks again when a deadline could have passed, so that a piece costs no timer.
    """

    __slots__ = (
        "_content",
        "_expired",
        "_failure",
        "_loop",
        "_response",
        "_service",
        "_silence",
        "_timer",
        "_until",
        "_waiting",
    )

    def __init__(self, response: ClientResponse, service: Service, until: float, silence: float | None) -> None:
        self._response = response
        self._content = response.content
        self._service = service
        self._loop = asyncio.get_running_loop()
        self._until = until
        self._silence = silence
        self._waiting: float | None = None  # since when the next piece is awaited
        self._timer: asyncio.TimerHandle | None = None
        self._expired: str | None = None
        self._failure: ModelError | None = None

    async def read(self) -> bytes:
        """Give what has arrived, at least one byte; nothing at the end of the body.

        Raises:
            TransportError: it broke off, or a deadline passed.
            ProtocolViolation: it broke the rules of HTTP or of its content encoding.
        """
        content = self._content
        if self._failure is not None:
            raise self._failure
        if self._timer is None and not content.is_eof():
            self._timer = self._loop.call_at(self._next_look(self._loop.time()), self._look)
        self._waiting = self._loop.time()
        try:
            return await content.readany()
        except (OSError, RuntimeError, _client_error()) as error:
            failure, cause = self._explain(error)
        finally:
            self._waiting = None
        failure.__cause__ = cause
        self._failure = failure
        rest = self._rest()
        if rest:
            return rest
        raise failure

    async def whole(self, most: int) -> bytes:
        """Give the whole body.

        Raises:
            LimitExceeded: it has more than ``most`` bytes.
            TransportError, ProtocolViolation: as `read`.
        """
        parts = []
        size = 0
        while part := await self.read():
            parts.append(part)
            size += len(part)
            if size > most:
                raise too_large(self._service, "the answer", most)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def beginning(self) -> bytes:
        """Give the body or as much of it as can be had soon: an error is explained by what there is."""
        self._silence = min(self._silence or _ERROR_SECONDS, _ERROR_SECONDS)
        parts = []
        size = 0
        try:
            while size < _ERROR_BYTES and (part := await self.read()):
                parts.append(part)
                size += len(part)
        except ModelError:
            pass
        return b"".join(parts)

    async def finish(self) -> None:
        """Wait a moment for the end of a body that is not needed any more, so that its connection can be kept."""
        if self._content.is_eof():
            return
        self._until = min(self._until, self._loop.time() + _LINGER)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        try:
            while await self.read():
                pass
        except ModelError:
            pass

    def close(self) -> None:
        """Let go of the connection: back to the pool when the body was read to its end, else closed."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._response.close()

    def _next_look(self, now: float) -> float:
        return min(now + _TICK, self._until, now + (_TICK if self._silence is None else self._silence))

    def _look(self) -> None:
        """See whether the wait has to end. Ending it is closing the response, which wakes the reader."""
        now = self._loop.time()
        if self._waiting is not None:
            connection = self._response.connection
            if now >= self._until:
                self._expired = "the answer was not complete in time"
            elif self._silence is not None and now >= self._waiting + self._silence:
                self._expired = f"no byte for {self._silence:g} s"
            elif connection is None or not connection.closed:
                silent = now + _TICK if self._silence is None else self._waiting + self._silence
                self._timer = self._loop.call_at(min(now + _TICK, silent, self._until), self._look)
                return
            # What is left is a connection that aiohttp closed for a violation of HTTP without telling the reader.
            self._timer = None
            self._response.close()
        else:
            self._timer = self._loop.call_at(now + _TICK, self._look)

    def _explain(self, error: BaseException) -> tuple[ModelError, BaseException | None]:
        if self._expired is not None:
            late = f"{self._service.address}: {self._expired}"
            return TransportError(late, timeout=True, provider=self._service.provider), None
        if isinstance(error, RuntimeError) or str(error) == "Connection closed":
            return violation(self._service, "broke the rules of HTTP in the middle of its answer", b""), None
        return failure_of(error, self._service)

    def _rest(self) -> bytes:
        """Give what had arrived before the failure and was not read; aiohttp hides it behind the failure."""
        self._content.set_exception(None)  # type: ignore[arg-type]  # so that it can be read
        return self._content.read_nowait()


class EventStream:
    """The events of one streamed answer, in batches: what one read of the socket completed.

    It must be closed, by `close`, however it was left.
    """

    __slots__ = ("_body", "_ended", "_framing", "_limits", "_received", "_service", "beginning")

    def __init__(self, body: Body, framing: Framing, limits: TransportLimits, service: Service) -> None:
        self._body = body
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
            part = await self._body.read()
            if not part:
                self._ended = True
                return framing.end() or None
            if not self._received:
                self.beginning = part[:1000]
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
        await self._body.finish()

    def close(self) -> None:
        """Let go of the connection: it is kept if the stream was read to its end, else closed at once."""
        self._body.close()


def _client_error() -> type[Exception]:
    import aiohttp

    return aiohttp.ClientError
