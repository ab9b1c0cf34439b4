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
from typing import TYPE_CHECKING, Any, Final
from urllib.request import getproxies, proxy_bypass

import httpx2
import msgspec
from typing_extensions import override

from plait.errors import excerpt
from plait.mcp.client.exchanges import BROKEN, Events, Exchange, WireError, beginning, whole, why_of
from plait.mcp.client.failures import CannotReach

if TYPE_CHECKING:
    from collections.abc import Callable

    from plait.mcp.client.redact import Redactor
    from plait.mcp.client.targets import Address

UNSENT: Final = -32_950
"""The request never reached the server."""
GONE: Final = -32_951
"""The server does not know the session (any more): https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#session-management"""
FOREIGN: Final = -32_953
"""The answer was none of this protocol."""
FAILED: Final = -32_954
"""The server answered with an HTTP error."""

MAX_BODY: Final = 16_000_000
"""Bytes of one answer, or of one event of a stream."""
_ASIDE: Final = 2.0
"""Seconds for what nobody waits for: a notification, the end of a session."""
_EMPTY_STREAMS: Final = 5
"""Short streams in a row that ended without a message; then no more are opened."""
_LASTING: Final = 1.0
"""Seconds from which on a stream is not short."""
_BETWEEN: Final = 0.1
"""Seconds from one short stream to the next, whatever the server asks for and whatever came on it; then twice that,"""
_AT_MOST: Final = 30.0
"""and so on up to this."""
_SESSION: Final = "mcp-session-id"
_SMALL: Final = 64_000
_EVENT_STREAM: Final = "text/event-stream"


class _Head(msgspec.Struct):
    """What is read of a request."""

    method: str = ""
    id: int | str | None = None
    params: dict[str, Any] | None = None


class _Error(msgspec.Struct):
    message: str
    code: int


class _Refusal(msgspec.Struct):
    """What is read of an error."""

    error: _Error


_head: Final = msgspec.json.Decoder(_Head, strict=False).decode


class Wire(httpx2.AsyncBaseTransport):
    """Carries the requests of one session.

    Args:
        address: the server.
        connect_timeout: seconds to connect.
        lost: called with the reason when a session over the older transport cannot go on.
        redact: takes secrets out of what the server says.

    Attributes:
        trouble: why the server cannot be used, as far as its first answers tell.

    Raises:
        CannotReach: the proxy that the environment names is none.
    """

    def __init__(self, address: Address, connect_timeout: float, lost: Callable[[str], None], redact: Redactor) -> None:
        self.trouble: CannotReach | None = None
        self._address = address
        self._url = httpx2.URL(address.url)
        self._lost = lost
        self._redact = redact
        # Certificates take 20 ms to load, and are of no use without TLS.
        try:
            self._inner = httpx2.AsyncHTTPTransport(verify=self._url.scheme == "https", proxy=_proxy(self._url))
        except (ImportError, ValueError, httpx2.InvalidURL):
            msg = (
                f"the proxy that {self._url.scheme}_proxy names cannot be used: only http:// and https:// are known; "
                f"name another, or none for this server: no_proxy={self._url.host}"
            )
            raise CannotReach(msg) from None
        self._connect_timeout = connect_timeout
        self._open: dict[str, Exchange] = {}
        self._short = self._empty = 0
        self._last_stream = -1.0

    @override
    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if request.method == "GET":
            return await self._listen(request)
        if request.method != "POST":
            return await self._aside(request, 405)
        head = _head(await request.aread())  # one that follows a redirect was not read yet
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
            WireError: it goes to another origin.
        """
        url = request.url
        own = (url.scheme, url.host, url.port) == (self._url.scheme, self._url.host, self._url.port)
        if not own:  # the SDK follows redirects within the origin, and from http to https
            msg = f"{self._address.url} leads to another origin, {_origin(url)}, which gets no request"
            raise WireError(msg)
        if url == self._url and (query := self._address.query.reveal()):
            url = url.copy_with(query=query.encode())
        headers = httpx2.Headers(request.headers)
        headers["accept-encoding"] = "identity"  # so that what is counted is what is kept
        headers.update({name: value.reveal() for name, value in self._address.headers.items()})
        seconds = self._connect_timeout
        timeout = {"connect": seconds, "write": seconds, "read": None, "pool": None}  # each call has a time of its own
        extensions = {**request.extensions, "timeout": timeout}
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
            async with asyncio.timeout(self._connect_timeout):
                response = await self._send(request)
                await response.aclose()
        except (httpx2.TransportError, TimeoutError) as error:
            why = why_of(error) if isinstance(error, httpx2.TransportError) else "it did not take a message in time"
            self._lost(why)
            raise WireError(why) from None
        if not response.is_success:
            self._lost(f"it answered with status {response.status_code}")
        return httpx2.Response(response.status_code, request=request)

    async def _ask(self, request: httpx2.Request, key: str, number: int | str) -> httpx2.Response:
        """Send a request and give its answer, or an error in its place."""
        exchange = self._open[key] = Exchange(number)
        try:
            with exchange.scope():
                response = await self._send(request)
                return await self._answer(request, response, exchange)
            return exchange.failed(request, BROKEN, "it was given up")
        except WireError as error:
            return self._no_use(request, exchange, str(error))
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError, httpx2.UnsupportedProtocol) as error:
            self.trouble = CannotReach(f"{self._address.url} cannot be reached: {why_of(error)}", retryable=True)
            return exchange.failed(request, UNSENT, str(self.trouble))
        except httpx2.TransportError as error:
            said = f"{self._address.url} broke off: {why_of(error)}"
            # A server that speaks something else is one at which to try no other way.
            self.trouble = CannotReach(said, retryable=True)
            return exchange.failed(request, BROKEN, said)
        finally:
            if not exchange.streams:
                self._open.pop(key, None)

    def _no_use(self, request: httpx2.Request, exchange: Exchange, why: str) -> httpx2.Response:
        self.trouble = CannotReach(why, foreign=True)
        return exchange.failed(request, FOREIGN, why)

    async def _answer(self, request: httpx2.Request, response: httpx2.Response, exchange: Exchange) -> httpx2.Response:
        status, kind = response.status_code, _kind(response)
        if response.has_redirect_location:
            return await self._redirect(request, response, exchange)
        if status >= 400:  # noqa: PLR2004  # as the HTTP standard divides them
            return await self._refusal(request, response, exchange)
        if status == 202 or kind == "application/json":  # noqa: PLR2004
            body = await whole(response, MAX_BODY)
            return httpx2.Response(status, headers=_plain(response), content=body, request=request)
        if kind == _EVENT_STREAM:
            exchange.streams = True
            stream = Events(response, exchange, self._message_came, lambda: self._forget(exchange))
            return httpx2.Response(status, headers=_plain(response), stream=stream, request=request)
        await response.aclose()
        shown = excerpt(self._redact(kind), 40) or "no content type"
        what = f"answers with {shown} where an MCP server answers with JSON or events"
        return self._no_use(request, exchange, f"{self._address.url} {what}; check the address, often it ends in /mcp")

    async def _redirect(
        self, request: httpx2.Request, response: httpx2.Response, exchange: Exchange
    ) -> httpx2.Response:
        """Let the SDK follow within the origin; nothing goes anywhere else."""
        await response.aclose()
        if _stays(request, response):
            return httpx2.Response(response.status_code, headers=_plain(response), content=b"", request=request)
        target = request.url.join(response.headers["location"])
        what = f"redirects to {_origin(target)}{excerpt(self._redact(target.path), 100)}, which is not followed"
        return self._no_use(request, exchange, f"{self._address.url} {what}; if that is the server, give its address")

    async def _refusal(self, request: httpx2.Request, response: httpx2.Response, exchange: Exchange) -> httpx2.Response:
        status, url = response.status_code, self._address.url
        in_session = _SESSION in request.headers
        body = await beginning(response, 0 if in_session and status == 404 else _SMALL)  # noqa: PLR2004
        if in_session and (status == 404 or (status == 400 and b"session" in body.lower())):  # noqa: PLR2004
            return exchange.failed(request, GONE, "it does not know the session any more")
        if status in {401, 403}:
            self.trouble = CannotReach(
                f"{url} lets nobody in with this token (status {status}); check token and headers"
            )
            return exchange.failed(request, FAILED, str(self.trouble))
        if status >= 500 or status in {408, 429}:  # noqa: PLR2004
            self.trouble = CannotReach(f"{url} answers with status {status}", retryable=True)
            return exchange.failed(request, FAILED, str(self.trouble))
        said = _error_message(body) if _kind(response) == "application/json" else None
        why = (
            excerpt(self._redact(said)) if said else "no MCP server is there; check the address, often it ends in /mcp"
        )
        self.trouble = CannotReach(f"{url} answers with status {status}: {why}", foreign=True)
        if said is not None:  # the SDK reads more from it
            return httpx2.Response(status, headers=_plain(response), content=body, request=request)
        return exchange.failed(request, FAILED, f"it answers with status {status}" if in_session else str(self.trouble))

    def _give_up(self, key: str) -> None:
        if exchange := self._open.pop(key, None):
            exchange.give_up()

    # --- streams that the SDK opens by itself ---

    async def _listen(self, request: httpx2.Request) -> httpx2.Response:
        older = self._address.kind == "sse"
        if not older and self._empty >= _EMPTY_STREAMS:
            return httpx2.Response(405, request=request)
        loop = asyncio.get_running_loop()
        delay = min(_BETWEEN * 2.0 ** min(self._short - 1, 10), _AT_MOST)
        if self._short and (early := self._last_stream + delay - loop.time()) > 0:
            await asyncio.sleep(early)
        started = self._last_stream = loop.time()
        self._short += 1
        self._empty += 1
        try:
            response = await self._send(request)
        except httpx2.TransportError as error:
            self.trouble = CannotReach(f"{self._address.url} cannot be reached: {why_of(error)}", retryable=True)
            raise
        if response.is_success and _kind(response) == _EVENT_STREAM:
            stream = Events(response, None, self._message_came, lambda: self._stream_ended(loop.time() - started))
            return httpx2.Response(response.status_code, headers=_plain(response), stream=stream, request=request)
        await response.aclose()
        if response.has_redirect_location and _stays(request, response):
            return httpx2.Response(response.status_code, headers=_plain(response), content=b"", request=request)
        if older:
            status = response.status_code
            denied = status in {401, 403}
            why = "lets nobody in with this token" if denied else "gives no events, so no MCP server is there"
            hint = "check token and headers" if denied else "check the address"
            self.trouble = CannotReach(f"{self._address.url} {why} (status {status}); {hint}", foreign=not denied)
            raise WireError(str(self.trouble))
        return httpx2.Response(405 if response.is_success else response.status_code, request=request)

    def _stream_ended(self, lasted: float) -> None:
        if lasted >= _LASTING:
            self._short = self._empty = 0

    def _message_came(self) -> None:
        self._empty = 0

    def _forget(self, exchange: Exchange) -> None:
        self._open.pop(str(exchange.number), None)


def _kind(response: httpx2.Response) -> str:
    return str(response.headers.get("content-type", "")).partition(";")[0].strip().lower()


def _stays(request: httpx2.Request, response: httpx2.Response) -> bool:
    """Whether a redirect stays within the origin and keeps the method: one that the SDK follows."""
    target, own = request.url.join(response.headers["location"]), request.url
    same = (target.scheme, target.host, target.port) == (own.scheme, own.host, own.port)
    return same and response.status_code in {307, 308}


def _plain(response: httpx2.Response) -> httpx2.Headers:
    """Give the headers without those that tell how the body came."""
    dropped = {"content-length", "transfer-encoding", "content-encoding"}
    return httpx2.Headers([(name, value) for name, value in response.headers.multi_items() if name not in dropped])


def _error_message(body: bytes) -> str | None:
    """Give the message of a JSON-RPC error; None for anything else."""
    try:
        return msgspec.json.decode(body, type=_Refusal).error.message
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _origin(url: httpx2.URL) -> str:
    return excerpt(f"{url.scheme}://{url.netloc.decode('ascii', 'replace').rpartition('@')[2]}", 100)


def _proxy(url: httpx2.URL) -> str | None:
    """Give the proxy that the environment names for an address."""
    proxy = getproxies().get(url.scheme)
    if not proxy or proxy_bypass(url.netloc.decode("ascii")):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"
