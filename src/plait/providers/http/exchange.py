"""One request and its answer on one connection, under two deadlines.

Writes the request once, and reads what comes back piece by piece. aiohttp parses it: this module drives its protocol
object, and knows neither what the bytes say nor how much of them is too much.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final

from plait.errors import ModelError, TransportError
from plait.plain import EMPTY
from plait.providers.http.failures import failure_of
from plait.providers.status import violation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttp import StreamReader
    from aiohttp.client_proto import ResponseHandler

    from plait.errors import ProtocolViolation
    from plait.providers.http.connections import Line, Route
    from plait.providers.http.lookout import Lookout
    from plait.providers.status import Service

_LINGER: Final = 0.25  # seconds to wait for the end of a body whose last event was seen
_ERROR_BYTES: Final = 65_536  # of an error's body; its beginning is all we show
_ERROR_SECONDS: Final = 5.0  # without a byte of an error's body before we do without the rest
_LARGE: Final = 65_536  # bytes of a body that are not worth copying for one write less
_INTERIM: Final = frozenset(range(100, 200)) - {101}  # answers before the answer


class Exchange:
    """A request that was written to a connection, and its answer. It must be closed, by `close`, however it was left.

    A `Lookout` watches its deadlines, so that neither a request nor a piece costs a timer.

    Attributes:
        status: of the answer, after `begin`.
        headers: its headers, whose names may be written in any case.
    """

    __slots__ = (
        "_content",
        "_failure",
        "_line",
        "_lookout",
        "_loop",
        "_protocol",
        "_service",
        "_silence",
        "_total",
        "_until",
        "_waiting",
        "headers",
        "status",
    )

    def __init__(
        self,
        line: Line,
        service: Service,
        lookout: Lookout,
        *,
        began: float,
        total: float,
        silence: float | None,
    ) -> None:
        """Take a connection that is ready for a request.

        Args:
            line: the connection.
            service: who is asked.
            lookout: that of the running event loop.
            began: when it was wished for, in the loop's time.
            total: seconds from then on within which the answer must be complete.
            silence: seconds without a byte that end it, or None.
        """
        self._line: Line | None = line
        self._protocol = line.protocol
        self._service = service
        self._lookout = lookout
        self._loop = lookout.loop
        self._total = total
        self._until = began + total
        self._silence = silence
        self._content: StreamReader | None = None
        self._waiting: float | None = None  # since when the next piece is awaited
        self._failure: ModelError | None = None
        self.status = 0
        self.headers: Mapping[str, str] = EMPTY

    async def begin(self, route: Route, body: bytes) -> None:
        """Write the request, and wait for the answer's status and headers.

        Args:
            route: where the connection leads. Its ``head``, with the key in it, must be no local variable: tools that
                report errors show those.
            body: the request's.

        Raises:
            TransportError: no answer came, or not in time.
            ProtocolViolation: what came is no HTTP.
        """
        protocol = self._protocol
        transport = protocol.transport
        now = self._waiting = self._loop.time()
        self._lookout.watch(self, min(self._until, inf if self._silence is None else now + self._silence))
        try:
            protocol.set_response_params(read_until_eof=True)
            if transport is None:
                raise ConnectionResetError
            if len(body) > _LARGE:
                transport.write(b"%b%d\r\n\r\n" % (route.head, len(body)))
                transport.write(body)
            else:
                transport.write(b"%b%d\r\n\r\n%b" % (route.head, len(body), body))
            message, content = await protocol.read()
            while message.code in _INTERIM:
                message, content = await protocol.read()
        except _breakages() as error:
            failure, cause = self._explain(error)
        else:
            self.status, self.headers, self._content = message.code, message.headers, content
            return
        finally:
            self._waiting = None
        # Raised out here, the error's context does not hold aiohttp's.
        raise failure from cause

    async def read(self) -> bytes:
        """Give what has arrived of the body, at least one byte; nothing at its end.

        Raises:
            TransportError: it broke off, or a deadline passed.
            ProtocolViolation: it broke the rules of HTTP or of its content encoding.
        """
        content = self._content
        if self._failure is not None:
            raise self._failure
        assert content is not None  # noqa: S101  # it has begun
        self._waiting = self._loop.time()
        try:
            return await content.readany()
        except _breakages() as error:
            failure, cause = self._explain(error)
        except RuntimeError:
            # "Connection closed.": aiohttp closed it, before the reader asked, and did not tell it why.
            if not _is_violated(self._protocol):
                raise
            failure, cause = self._violation(), None
        finally:
            self._waiting = None
        failure.__cause__ = cause
        self._failure = failure
        # What had arrived before the failure and was not read is hidden behind it.
        content.set_exception(None)  # type: ignore[arg-type]  # so that it can be read
        rest = content.read_nowait()
        if rest:
            return rest
        raise failure

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
        if self._content is None or self._content.is_eof():
            return
        now = self._loop.time()
        self._until = min(self._until, now + _LINGER)
        self._lookout.watch(self, self._until)
        try:
            while await self.read():
                pass
        except ModelError:
            pass

    def close(self) -> None:
        """Let go of the connection: back to those that are kept when the body was read to its end, else closed."""
        self._lookout.forget(self)
        line, self._line = self._line, None
        if line is None:
            return
        transport = self._protocol.transport
        written = transport is not None and not transport.get_write_buffer_size()
        if written and self._content is not None and self._content.is_eof():
            line.keep()
        else:
            line.close()

    def look(self, now: float) -> float:
        """See whether the wait has to end: the reader is woken with the error to raise.

        Args:
            now: the loop's time.

        Returns:
            When a deadline could pass next, if nothing comes until then.
        """
        waiting, silence = self._waiting, self._silence
        if waiting is None:
            return inf
        if now >= self._until:
            what = "no answer" if self._content is None else "the answer was not complete"
            return self._wake(self._late(f"{what} within {self._total:g} s"))
        silent = inf if silence is None else waiting + silence
        if now >= silent:
            what = "no answer within" if self._content is None else "no byte for"
            return self._wake(self._late(f"{what} {silence:g} s"))
        content = self._content
        if content is not None and not content.is_eof() and _is_violated(self._protocol):
            # aiohttp closed the connection without telling the reader.
            return self._wake(self._violation())
        transport = self._protocol.transport
        if transport is not None and transport.is_closing():
            transport.abort()  # the server ended it: nobody waits for it to take the rest of what we say
        return min(self._until, silent)

    def _late(self, what: str) -> TransportError:
        return TransportError(f"{self._service.address}: {what}", timeout=True, provider=self._service.provider)

    def _wake(self, failure: ModelError) -> float:
        (self._protocol if self._content is None else self._content).set_exception(failure)
        return inf

    def _explain(self, error: BaseException) -> tuple[ModelError, BaseException | None]:
        if isinstance(error, ModelError):
            return error, None
        failure, cause = failure_of(error, self._service)
        if isinstance(failure, TransportError) and self._content is not None and _is_violated(self._protocol):
            return self._violation(), None
        return failure, cause

    def _violation(self) -> ProtocolViolation:
        return violation(self._service, "broke the rules of HTTP in the middle of its answer", b"")


def _is_violated(protocol: ResponseHandler) -> bool:
    """Whether aiohttp closed the connection itself: its reader may be told of nothing but the end of it."""
    from aiohttp.http_exceptions import HttpProcessingError

    return isinstance(protocol.exception(), HttpProcessingError)


def _breakages() -> tuple[type[Exception], ...]:
    """What a broken connection or answer raises, ours included: a timer wakes the reader with it."""
    from aiohttp import ClientError
    from aiohttp.http_exceptions import HttpProcessingError

    return ClientError, HttpProcessingError, ModelError, OSError
