"""The wire below the SDK's HTTP transports: what it lacks is put right here, request by request.

- What is secret (headers, the query) is put on here, on requests to the server's own origin and no other; nothing above
  this ever has it, so nothing above can log it.
- Whatever goes wrong becomes the answer of the one request that it concerns, as a JSON-RPC error with one of the codes
  below. The SDK would end the session with a storm of exceptions, wait for ever, or say less than is known.
- An answer is bounded (`MAX_BODY`), and a stream that keeps ending without a message is not opened for ever.
- A request that was given up is closed.

Nothing here reads the protocol beyond the method and id of a request. Loaded with the SDK.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from typing import TYPE_CHECKING, Any, Final
from urllib.request import getproxies, proxy_bypass

import anyio
import httpx2
import msgspec
from typing_extensions import override

from plait.errors import excerpt
from plait.mcp.failures import CannotReach

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from plait.mcp.targets import Address

UNSENT: Final = -32_950
"""The request never reached the server."""
GONE: Final = -32_951
"""The server does not know the session (any more): https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#session-management"""
BROKEN: Final = -32_952
"""The connection broke while the answer was awaited."""
FOREIGN: Final = -32_953
"""The answer was none of this protocol."""
FAILED: Final = -32_954
"""The server answered with an HTTP error."""
OWN: Final = frozenset((UNSENT, GONE, BROKEN, FOREIGN, FAILED))

MAX_BODY: Final = 16_000_000
"""Bytes of one answer, or of one event of a stream."""
_ASIDE: Final = 2.0
"""Seconds for what nobody waits for: a notification, the end of a session."""
_EMPTY_STREAMS: Final = 5
"""Streams in a row that ended without a message; then no more are opened."""
_BETWEEN: Final = 0.25
"""Seconds between two of them, whatever the server asks for."""
_SESSION: Final = "mcp-session-id"
_SMALL: Final = 64_000
_EVENT_STREAM: Final = "text/event-stream"


class _Head(msgspec.Struct):
    """What is read of a request."""

    method: str = ""
    id: int | str | None = None
    params: dict[str, Any] | None = None


_head: Final = msgspec.json.Decoder(_Head, strict=False).decode


class _WireError(httpx2.TransportError):
    """The one error that leaves this module, for the SDK to catch."""


class Wire(httpx2.AsyncBaseTransport):
    """Carries the requests of one session.

    Args:
        address: the server.
        connect_timeout: seconds to connect.
        lost: called with the reason when a session over the older transport cannot go on.

    Attributes:
        trouble: why the server cannot be used, as far as its first answers tell.
    """

    def __init__(self, address: Address, connect_timeout: float, lost: Callable[[str], None]) -> None:
        self.trouble: CannotReach | None = None
        self._address = address
        self._url = httpx2.URL(address.url)
        self._lost = lost
        self._inner = httpx2.AsyncHTTPTransport(proxy=_proxy(self._url))
        self._timeout = {"connect": connect_timeout, "write": connect_timeout, "read": None, "pool": None}
        self._open: dict[str, _Exchange] = {}
        self._empty = 0
        self._last_stream = -1.0

    @override
    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if request.method == "GET":
            return await self._listen(request)
        if request.method != "POST":
            return await self._aside(request, 405)
        head = _head(request.content)
        if head.id is None or not head.method or self._address.kind == "sse":
            if head.method == "notifications/cancelled" and head.params:
                self._give_up(str(head.params.get("requestId")))
            return await self._post_event(request) if self._address.kind == "sse" else await self._aside(request, 202)
        return await self._ask(request, str(head.id), head.id)

    @override
    async def aclose(self) -> None:
        await self._inner.aclose()

    # --- one request ---

    async def _send(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request with what is secret.

        Raises:
            _WireError: it goes to another origin.
        """
        url = request.url
        own = (url.scheme, url.host, url.port) == (self._url.scheme, self._url.host, self._url.port)
        if not own:  # the SDK follows redirects within the origin, and from http to https
            msg = f"{self._address.url} leads to another origin, {_origin(url)}, which gets no request"
            raise _WireError(msg)
        if url == self._url and (query := self._address.query.reveal()):
            url = url.copy_with(query=query.encode())
        headers = httpx2.Headers(request.headers)
        headers["accept-encoding"] = "identity"  # so that what is counted is what is kept
        headers.update({name: value.reveal() for name, value in self._address.headers.items()})
        extensions = {**request.extensions, "timeout": self._timeout}
        stream = httpx2.ByteStream(request.content) if request.method == "POST" else None
        return await self._inner.handle_async_request(
            httpx2.Request(request.method, url, headers=headers, stream=stream, extensions=extensions)
        )

    async def _aside(self, request: httpx2.Request, status: int) -> httpx2.Response:
        """Send what nobody waits for; whatever comes of it, the SDK gets this status."""
        try:
            async with asyncio.timeout(_ASIDE):
                response = await self._send(request)
                await response.aclose()
        except (httpx2.TransportError, TimeoutError):
            pass
        return httpx2.Response(status, request=request)

    async def _post_event(self, request: httpx2.Request) -> httpx2.Response:
        """Send a message whose answer comes on the stream of the older transport."""
        try:
            response = await self._send(request)
        except httpx2.TransportError as error:
            self._lost(_why(error))
            raise
        if not response.is_success:
            self._lost(f"it answered with status {response.status_code}")
        return response

    async def _ask(self, request: httpx2.Request, key: str, number: int | str) -> httpx2.Response:
        """Send a request and give its answer, or an error in its place."""
        exchange = self._open[key] = _Exchange(number)
        try:
            with exchange.scope():
                response = await self._send(request)
                return await self._answer(request, response, exchange)
            return exchange.failed(request, BROKEN, "it was given up")
        except _WireError as error:
            return self._no_use(request, exchange, str(error))
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError, httpx2.UnsupportedProtocol) as error:
            self.trouble = CannotReach(f"{self._address.url} cannot be reached: {_why(error)}", retryable=True)
            return exchange.failed(request, UNSENT, str(self.trouble))
        except httpx2.TransportError as error:
            said = f"{self._address.url} broke off: {_why(error)}"
            # A server that speaks something else is one at which to try no other way.
            self.trouble = CannotReach(said, retryable=True)
            return exchange.failed(request, BROKEN, said)
        finally:
            if not exchange.streams:
                self._open.pop(key, None)

    def _no_use(self, request: httpx2.Request, exchange: _Exchange, why: str) -> httpx2.Response:
        self.trouble = CannotReach(why, foreign=True)
        return exchange.failed(request, FOREIGN, why)

    async def _answer(
        self, request: httpx2.Request, response: httpx2.Response, exchange: _Exchange
    ) -> httpx2.Response:
        status, kind = response.status_code, _kind(response)
        if response.has_redirect_location:
            return await self._redirect(request, response, exchange)
        if status >= 400:  # noqa: PLR2004  # as the HTTP standard divides them
            return await self._refusal(request, response, exchange)
        if status == 202 or kind == "application/json":  # noqa: PLR2004
            body = await _whole(response, MAX_BODY)
            return httpx2.Response(status, headers=_plain(response), content=body, request=request)
        if kind == _EVENT_STREAM:
            exchange.streams = True
            stream = _Events(response, self, exchange)
            return httpx2.Response(status, headers=_plain(response), stream=stream, request=request)
        await response.aclose()
        what = f"answers with {excerpt(kind, 40) or 'no content type'} where an MCP server answers with JSON or events"
        return self._no_use(request, exchange, f"{self._address.url} {what}; check the address, often it ends in /mcp")

    async def _redirect(
        self, request: httpx2.Request, response: httpx2.Response, exchange: _Exchange
    ) -> httpx2.Response:
        """Let the SDK follow within the origin; nothing goes anywhere else."""
        target = request.url.join(response.headers["location"])
        same = (target.scheme, target.host, target.port) == (request.url.scheme, request.url.host, request.url.port)
        await response.aclose()
        if same and response.status_code in {307, 308}:
            return httpx2.Response(response.status_code, headers=_plain(response), content=b"", request=request)
        what = f"redirects to {_origin(target)}{excerpt(target.path, 100)}, which is not followed"
        return self._no_use(request, exchange, f"{self._address.url} {what}; if that is the server, give its address")

    async def _refusal(
        self, request: httpx2.Request, response: httpx2.Response, exchange: _Exchange
    ) -> httpx2.Response:
        status, url = response.status_code, self._address.url
        body = await _whole(response, _SMALL)
        in_session = _SESSION in request.headers
        if in_session and (status == 404 or (status == 400 and b"session" in body.lower())):  # noqa: PLR2004
            return exchange.failed(request, GONE, "it does not know the session any more")
        if status in {401, 403}:
            self.trouble = CannotReach(f"{url} lets nobody in with this token (status {status}); check token and headers")
            return exchange.failed(request, FAILED, str(self.trouble))
        if status >= 500 or status in {408, 429}:  # noqa: PLR2004
            self.trouble = CannotReach(f"{url} answers with status {status}", retryable=True)
            return exchange.failed(request, FAILED, str(self.trouble))
        why = f"{url} answers with status {status}: no MCP server is there; check the address, often it ends in /mcp"
        self.trouble = CannotReach(why, foreign=True)
        if _kind(response) == "application/json" and _is_error(body):  # the SDK reads more from it
            return httpx2.Response(status, headers=_plain(response), content=body, request=request)
        return exchange.failed(request, FAILED, f"it answers with status {status}" if in_session else why)

    def _give_up(self, key: str) -> None:
        if exchange := self._open.pop(key, None):
            exchange.give_up()

    # --- streams that the SDK opens by itself ---

    async def _listen(self, request: httpx2.Request) -> httpx2.Response:
        older = self._address.kind == "sse"
        if not older and self._empty >= _EMPTY_STREAMS:
            return httpx2.Response(405, request=request)
        loop = asyncio.get_running_loop()
        if self._empty and (early := self._last_stream + _BETWEEN - loop.time()) > 0:
            await asyncio.sleep(early)
        self._last_stream = loop.time()
        self._empty += 1
        try:
            response = await self._send(request)
        except httpx2.TransportError as error:
            self.trouble = CannotReach(f"{self._address.url} cannot be reached: {_why(error)}", retryable=True)
            raise
        if response.is_success and _kind(response) == _EVENT_STREAM:
            stream = _Events(response, self, None)
            return httpx2.Response(response.status_code, headers=_plain(response), stream=stream, request=request)
        await response.aclose()
        if older:
            status = response.status_code
            denied = status in {401, 403}
            why = "lets nobody in with this token" if denied else "gives no events, so no MCP server is there"
            hint = "check token and headers" if denied else "check the address"
            self.trouble = CannotReach(f"{self._address.url} {why} (status {status}); {hint}", foreign=not denied)
            raise _WireError(str(self.trouble))
        return httpx2.Response(405 if response.is_success else response.status_code, request=request)

    def message_came(self) -> None:
        """Note that a stream was good for something."""
        self._empty = 0

    def ended(self, exchange: _Exchange) -> None:
        """Forget a request whose stream has ended."""
        self._open.pop(str(exchange.number), None)


class _Exchange:
    """A request and its answer under way."""

    def __init__(self, number: int | str) -> None:
        self.number = number
        self.streams = False
        self._scope: anyio.CancelScope | None = None
        self._given_up = False

    def scope(self) -> anyio.CancelScope:
        """Give what `give_up` ends."""
        self._scope = anyio.CancelScope()
        if self._given_up:
            self._scope.cancel()
        return self._scope

    def give_up(self) -> None:
        """End it."""
        self._given_up = True
        if self._scope is not None:
            self._scope.cancel()

    def error(self, code: int, why: str) -> bytes:
        """Give an error as the answer."""
        answer = {"jsonrpc": "2.0", "id": self.number, "error": {"code": code, "message": why}}
        return json.dumps(answer).encode()

    def failed(self, request: httpx2.Request, code: int, why: str) -> httpx2.Response:
        """Give an error as the answer, over HTTP."""
        headers = {"content-type": "application/json"}
        return httpx2.Response(503, headers=headers, content=self.error(code, why), request=request)


class _Events(httpx2.AsyncByteStream):
    """A stream of events, whose end is told."""

    def __init__(self, response: httpx2.Response, wire: Wire, exchange: _Exchange | None) -> None:
        self._response = response
        self._wire = wire
        self._exchange = exchange

    @override
    async def __aiter__(self) -> AsyncIterator[bytes]:
        source = aiter(self._response.stream)  # type: ignore[arg-type]  # of an asynchronous transport
        exchange = self._exchange
        while True:
            chunk = b""
            try:
                if exchange is None:
                    chunk = await anext(source)
                else:
                    with exchange.scope() as scope:
                        chunk = await anext(source)
                    if scope.cancelled_caught:
                        yield self._last(exchange, "it was given up")
                        return
            except StopAsyncIteration:
                return
            except httpx2.TransportError as error:
                if exchange is None:
                    raise
                yield self._last(exchange, f"the connection broke: {_why(error)}")
                return
            if b"{" in chunk:
                self._wire.message_came()
            yield chunk

    @staticmethod
    def _last(exchange: _Exchange, why: str) -> bytes:
        """Give an event that answers the request, behind whatever has come of another."""
        return b"\n\nevent: message\ndata: " + exchange.error(BROKEN, why) + b"\n\n"

    @override
    async def aclose(self) -> None:
        if self._exchange is not None:
            self._wire.ended(self._exchange)
        await self._response.aclose()


async def _whole(response: httpx2.Response, most: int) -> bytes:
    """Read a body.

    Raises:
        _WireError: it is longer, or encoded.
    """
    body = bytearray()
    try:
        if response.headers.get("content-encoding", "identity") != "identity":
            msg = "its answer is encoded in a way that was not asked for"
            raise _WireError(msg)
        async for chunk in response.stream:  # type: ignore[union-attr]  # of an asynchronous transport
            body += chunk
            if len(body) > most:
                msg = f"its answer has more than {most:,} bytes"
                raise _WireError(msg)
    finally:
        await response.aclose()
    return bytes(body)


def _kind(response: httpx2.Response) -> str:
    return str(response.headers.get("content-type", "")).partition(";")[0].strip().lower()


def _plain(response: httpx2.Response) -> httpx2.Headers:
    """Give the headers without those that tell how the body came."""
    dropped = {"content-length", "transfer-encoding", "content-encoding"}
    return httpx2.Headers([(name, value) for name, value in response.headers.multi_items() if name not in dropped])


def _is_error(body: bytes) -> bool:
    try:
        found = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return False
    return isinstance(found, dict) and isinstance(found.get("error"), dict)


def _origin(url: httpx2.URL) -> str:
    return excerpt(f"{url.scheme}://{url.netloc.decode('ascii', 'replace').rpartition('@')[2]}", 100)


def _why(error: BaseException) -> str:
    """Say in a few words what went wrong below HTTP."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not accepted ({excerpt(cause.verify_message, 100)})"
        if isinstance(cause, ssl.SSLError):
            return "it does not speak TLS as it should; is the scheme right?"
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, httpx2.ConnectTimeout):
        return "no connection in time"
    if isinstance(error, httpx2.RemoteProtocolError):
        return "it ended the connection, or does not speak HTTP"
    if isinstance(error, httpx2.ReadError | httpx2.WriteError):
        return "the connection broke"
    return excerpt(str(error), 100) or type(error).__name__


def _proxy(url: httpx2.URL) -> str | None:
    """Give the proxy that the environment names for an address."""
    proxy = getproxies().get(url.scheme)
    if not proxy or proxy_bypass(url.netloc.decode("ascii")):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"
