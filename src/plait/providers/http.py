"""The HTTP client: one POST, answered whole or as batches of events; deadlines; typed errors.

The only file that knows aiohttp, which is imported with the first request (it takes 0.2 s). It knows no
dialect: bytes go out, bytes come back.

There is one session for each event loop, shared by all providers and closed with the loop. It keeps no cookies
and follows no redirect: a redirect is an error, so that a key never reaches another host. Proxies are taken from
the environment as other tools take them (``HTTPS_PROXY``, ``HTTP_PROXY``, ``NO_PROXY``), once for each endpoint;
``~/.netrc`` is not read.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from contextvars import ContextVar
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from plait.errors import (
    ConfigurationError,
    LimitExceeded,
    ModelError,
    ProtocolViolation,
    ProviderError,
    TransportError,
    excerpt,
)
from plait.providers.sse import EventReader
from plait.providers.status import Service, http_error

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import AsyncGenerator, Mapping

    from aiohttp import ClientResponse, ClientSession

logger = logging.getLogger("plait.providers.http")

_REDIRECTS: Final = range(300, 400)
_FIRST_ERROR: Final = 300
_TICK: Final = 1.0  # seconds between looks at a connection that somebody waits for
_LINGER: Final = 0.25  # seconds to wait for the end of a body whose last event was seen
_ERROR_BYTES: Final = 65_536  # of an error's body; its beginning is all we show
_ERROR_SECONDS: Final = 5.0  # without a byte of an error's body before we do without the rest
_KEEP_ALIVE: Final = 30.0  # seconds an idle connection is kept
_LARGE: Final = 2**20  # aiohttp warns of larger bodies as bytes, and sends a file in steps


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


# --- one session for each event loop ---------------------------------------------------------------------------------

_sessions: dict[AbstractEventLoop, tuple[ClientSession, AsyncGenerator[None, None]]] = {}


class _Attempt:
    """Whether a request had to open a connection of its own."""

    __slots__ = ("opened",)

    def __init__(self) -> None:
        self.opened = False


_attempt: ContextVar[_Attempt | None] = ContextVar("plait_attempt", default=None)


def _open_socket(address: tuple[Any, ...]) -> socket.socket:
    """Make the socket aiohttp asks for, and note that this request's connection is a new one."""
    attempt = _attempt.get()
    if attempt is not None:
        attempt.opened = True
    family, kind, protocol, _, _ = address
    return socket.socket(family=family, type=kind, proto=protocol)


async def _session(loop: AbstractEventLoop) -> ClientSession:
    known = _sessions.get(loop)
    if known is not None and not known[0].closed:
        return known[0]
    import aiohttp

    for other in [one for one in _sessions if one.is_closed()]:
        _forget(other)
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE, socket_factory=_open_socket),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None),
    )
    keeper = _keep(loop, session)
    _sessions[loop] = (session, keeper)
    await anext(keeper)
    return session


async def _keep(loop: AbstractEventLoop, session: ClientSession) -> AsyncGenerator[None, None]:
    """Close the session with its loop: a loop closes the async generators begun on it before it closes itself."""
    try:
        yield
    finally:
        _sessions.pop(loop, None)
        await session.close()


def _forget(loop: AbstractEventLoop) -> None:
    """Let go of a session whose loop was closed without ending its generators, or belongs to the parent process."""
    session, _ = _sessions.pop(loop)
    connector = session.connector
    session.detach()
    if connector is not None:
        # Closing it would speak to the loop; aiohttp offers no other way to say that nobody will.
        connector._closed = True  # noqa: SLF001


def _forget_all() -> None:
    for loop in list(_sessions):
        _forget(loop)


if hasattr(os, "register_at_fork"):
    # A child shares its parent's sockets and selector: it must use, and close, none of them.
    os.register_at_fork(after_in_child=_forget_all)


# --- asking ----------------------------------------------------------------------------------------------------------


class Endpoint:
    """One address that is asked by POST: with the same headers, the same limits and the same words for errors."""

    __slots__ = ("_headers", "_limits", "_proxy", "_sent", "_service", "_url")

    def __init__(
        self,
        url: str,
        service: Service,
        *,
        headers: Mapping[str, str],
        limits: TransportLimits = DEFAULT_LIMITS,
    ) -> None:
        """Check the address; nothing is sent.

        Raises:
            ConfigurationError: see `address_of`.
        """
        address_of(url)
        self._url = url
        self._service = service
        self._headers = dict(headers)
        self._limits = limits
        self._proxy = _proxy_for(url)
        self._sent: dict[str, Any] | None = None

    async def post(self, body: bytes) -> bytes:
        """Send a request; give the whole body of its answer.

        Raises:
            ProviderError: the answer's status was no success.
            TransportError: there was no answer, or half of one.
            ProtocolViolation: the answer was no HTTP.
            LimitExceeded: the answer is larger than ``answer_bytes``.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + self._limits.total
        response = await self._send(loop, body, self._limits.total, f"no answer within {self._limits.total:g} s")
        answer = _Body(response, self._service, until, None)
        try:
            if response.status >= _FIRST_ERROR:
                raise await self._refusal(response, answer)
            return await answer.whole(self._limits.answer_bytes)
        finally:
            answer.close()

    async def open(self, body: bytes, framing: Framing | None = None) -> EventStream | bytes:
        """Send a request for a streamed answer.

        Args:
            body: the request's.
            framing: what finds the records in the answer; server-sent events if it is None.

        Returns:
            The stream, which must be closed; or the whole body, when the server says that it sent plain JSON.

        Raises:
            ProviderError, TransportError, LimitExceeded: as `post`.
            ProtocolViolation: the answer was no HTTP, or is an HTML page.
        """
        loop = asyncio.get_running_loop()
        limits = self._limits
        until = loop.time() + limits.total
        patience = min(limits.silence, limits.total)
        response = await self._send(loop, body, patience, f"no answer within {patience:g} s")
        answer = _Body(response, self._service, until, limits.silence)
        stream = None
        try:
            if response.status >= _FIRST_ERROR:
                raise await self._refusal(response, answer)
            kind = response.headers.get("content-type", "").lower()
            if "html" in kind:
                page = await answer.beginning()
                raise _violation(self._service, f"sent {excerpt(kind, 40)} instead of an event stream", page)
            if "json" in kind and not ("ndjson" in kind or "lines" in kind or "stream" in kind):
                return await answer.whole(limits.answer_bytes)
            stream = EventStream(answer, framing or EventReader(), limits, self._service)
            return stream
        finally:
            if stream is None:
                answer.close()

    async def _send(self, loop: AbstractEventLoop, body: bytes, seconds: float, late: str) -> ClientResponse:
        """Send the request and wait for the answer's headers."""
        import aiohttp

        attempt = _Attempt()
        token = _attempt.set(attempt)
        session = await _session(loop)
        sent = self._sent or self._constant_part()
        failure: ModelError
        cause: BaseException | None
        began = loop.time()
        try:
            while True:
                attempt.opened = False
                try:
                    async with asyncio.timeout(seconds):
                        response = await session.post(data=body if len(body) <= _LARGE else BytesIO(body), **sent)
                except aiohttp.ConnectionTimeoutError as error:
                    failure = self._late(f"no connection within {self._limits.connect:g} s")
                    cause = error
                except (aiohttp.ClientError, OSError) as error:
                    # A kept connection may have been closed by the server just now: that is nobody's failure.
                    if not attempt.opened and _said_nothing(error):
                        continue
                    if isinstance(error, TimeoutError):
                        failure, cause = self._late(late), None
                    else:
                        failure, cause = _failure(error, self._service)
                else:
                    if logger.isEnabledFor(logging.DEBUG):
                        took = loop.time() - began
                        what = "%s answers %d after %.3f s to a request of %d bytes"
                        logger.debug(what, self._service.address, response.status, took, len(body))
                    return response
                # Raised out here, the error's context does not hold aiohttp's, whose repr shows request headers.
                raise failure from cause
        finally:
            _attempt.reset(token)

    def _constant_part(self) -> dict[str, Any]:
        """Give what every request is sent with, in aiohttp's own types, so that it is read once."""
        from aiohttp import ClientTimeout
        from multidict import CIMultiDict
        from yarl import URL

        self._sent = {
            "url": URL(self._url),
            "headers": CIMultiDict(self._headers),
            "allow_redirects": False,
            "proxy": self._proxy,
            "timeout": ClientTimeout(total=None, connect=self._limits.connect),
        }
        return self._sent

    def _late(self, what: str) -> TransportError:
        return TransportError(f"{self._service.address}: {what}", timeout=True, provider=self._service.provider)

    async def _refusal(self, response: ClientResponse, answer: _Body) -> ProviderError:
        """Make the error for an answer that is no success, with what can be read of its body."""
        headers = {name.lower(): value for name, value in response.headers.items()}
        if response.status in _REDIRECTS:
            target = urlsplit(headers.get("location", "")).netloc.rpartition("@")[2] or "another path"
            return ProviderError(
                f"{self._service.address} redirects ({response.status}) to {excerpt(target, 80)!r}; redirects are not "
                f"followed, so that a key never reaches another host: correct base_url",
                status=response.status,
                provider=self._service.provider,
            )
        return http_error(response.status, headers, await answer.beginning(), self._service)


def address_of(url: str) -> str:
    """Give ``host:port`` of an address.

    Raises:
        ConfigurationError: it is no ``http`` or ``https`` address, or has a user name or password in it.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port, parts = None, None, urlsplit("")
    if parts.username is not None or parts.password is not None:
        msg = f"the address of {host!r} has a user name or password in it; send it in headers= instead"
        raise ConfigurationError(msg)
    if parts.scheme not in ("http", "https") or not host:
        msg = f"{excerpt(url, 100)!r} is no address; it must begin with http:// or https:// and a host"
        raise ConfigurationError(msg)
    shown = f"[{host}]" if ":" in host else host
    return f"{shown}:{port or (443 if parts.scheme == 'https' else 80)}"


def _proxy_for(url: str) -> str | None:
    parts = urlsplit(url)
    proxy = getproxies().get(parts.scheme)
    return None if proxy is None or proxy_bypass(parts.netloc) else proxy


# --- reading ---------------------------------------------------------------------------------------------------------


class _Body:
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
                raise _too_large(self._service, "the answer", most)
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
            return _violation(self._service, "broke the rules of HTTP in the middle of its answer", b""), None
        return _failure(error, self._service)

    def _rest(self) -> bytes:
        """Give what had arrived before the failure and was not read; aiohttp hides it behind the failure."""
        self._content.set_exception(None)  # type: ignore[arg-type]  # so that it can be read
        return self._content.read_nowait()


class EventStream:
    """The events of one streamed answer, in batches: what one read of the socket completed.

    It must be closed, by `close`, however it was left.
    """

    __slots__ = ("_body", "_ended", "_framing", "_limits", "_received", "_service", "beginning")

    def __init__(self, body: _Body, framing: Framing, limits: TransportLimits, service: Service) -> None:
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
                raise _too_large(self._service, "the stream", limits.stream_bytes)
            crowded = framing.size + len(part) > limits.answer_bytes
            events = framing.feed(part)
            if crowded and max((framing.size, *map(len, events))) > limits.answer_bytes:
                raise _too_large(self._service, "one event of the stream", limits.answer_bytes)
            if events:
                return events
        return None

    async def finish(self) -> None:
        """Say that the last event was read: what the server still sends is dropped, and its connection kept."""
        await self._body.finish()

    def close(self) -> None:
        """Let go of the connection: it is kept if the stream was read to its end, else closed at once."""
        self._body.close()


# --- errors ----------------------------------------------------------------------------------------------------------


def _client_error() -> type[Exception]:
    import aiohttp

    return aiohttp.ClientError


def _too_large(service: Service, what: str, most: int) -> LimitExceeded:
    return LimitExceeded(f"{what} of {service.address} has more than {most} bytes", limit=most)


def _violation(service: Service, what: str, said: bytes | str) -> ProtocolViolation:
    text = excerpt(service.clean(said.decode("utf-8", "replace") if isinstance(said, bytes) else said))
    shown = f": {text}" if text else ""
    return ProtocolViolation(f"{service.address} {what}{shown}", excerpt=text, provider=service.provider)


def _said_nothing(error: BaseException) -> bool:
    """Whether the connection ended before the first byte of an answer."""
    import aiohttp

    if isinstance(error, aiohttp.ServerDisconnectedError):
        return isinstance(error.message, str)  # else it holds the headers that came
    return isinstance(error, aiohttp.ClientOSError) and not isinstance(error, aiohttp.ClientConnectorError)


def _failure(error: BaseException, service: Service) -> tuple[ModelError, BaseException | None]:
    """Give our error for aiohttp's, and the cause to name: the innermost one, which holds no request headers."""
    import aiohttp
    from aiohttp.http_exceptions import ContentEncodingError

    where = service.address
    retryable = True
    inner = error.__cause__
    if isinstance(error, aiohttp.ClientHttpProxyError):
        said = f"the proxy refused the connection to {where} ({error.status})"
        inner = None
    elif isinstance(error, aiohttp.ClientResponseError):
        return _violation(service, "does not speak HTTP", error.message), inner
    elif isinstance(error, aiohttp.ClientPayloadError):
        if isinstance(inner, ContentEncodingError):
            return _violation(service, "sent a body that is not in the encoding it declares", inner.message), inner
        said = f"the connection to {where} ended in the middle of the answer"
    elif isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ServerFingerprintMismatch):
        said = f"the certificate of {where} is not valid for it: {excerpt(str(inner or error), 120)}"
        retryable = False
    elif isinstance(error, aiohttp.ClientConnectorSSLError):
        said = f"{where} does not speak TLS as it should: {excerpt(str(inner or error), 120)}"
    elif isinstance(error, aiohttp.ClientConnectorDNSError):
        said = f"the name of {where} cannot be resolved: {excerpt(str(error.os_error.strerror), 80)}"
    elif isinstance(error, aiohttp.ClientProxyConnectionError):
        said = f"the proxy on the way to {where} cannot be reached: {excerpt(str(error.os_error.strerror), 80)}"
    elif isinstance(error, aiohttp.ClientConnectorError):
        said = f"cannot connect to {where}: {excerpt(str(error.os_error.strerror), 80)}"
    elif isinstance(error, aiohttp.ServerDisconnectedError):
        said = f"{where} closed the connection before it had answered"
    else:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
        said = f"the connection to {where} broke: {excerpt(reason, 80)}"
    return TransportError(said, provider=service.provider, retryable=retryable), inner or error
