"""One request over HTTP and its answer, under way: read within bounds, given up at any time, and never without an end.

A stream of events that breaks ends with an event that answers the request with an error, so that nobody waits for
what cannot come. Knows nothing of which requests there are. Loaded with the SDK.
"""

from __future__ import annotations

import json
import ssl
from typing import TYPE_CHECKING, Final

import anyio
import httpx2
from typing_extensions import override

from plait.errors import excerpt

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

BROKEN: Final = -32_952
"""The connection broke while the answer was awaited."""


class WireError(httpx2.TransportError):
    """What an answer must not be, for the SDK to catch."""


class Exchange:
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

    def error(self, code: int, said: str) -> bytes:
        """Give an error as the answer."""
        answer = {"jsonrpc": "2.0", "id": self.number, "error": {"code": code, "message": said}}
        return json.dumps(answer).encode()

    def failed(self, request: httpx2.Request, code: int, said: str) -> httpx2.Response:
        """Give an error as the answer, over HTTP."""
        headers = {"content-type": "application/json"}
        return httpx2.Response(503, headers=headers, content=self.error(code, said), request=request)


class Events(httpx2.AsyncByteStream):
    """A stream of events.

    Args:
        response: what the events come in.
        exchange: the request that they answer, or None where they answer none.
        message_came: called when a piece came that holds a message, or some of it.
        ended: called at the end.
    """

    def __init__(
        self,
        response: httpx2.Response,
        exchange: Exchange | None,
        message_came: Callable[[], None],
        ended: Callable[[], None] = lambda: None,
    ) -> None:
        self._response = response
        self._exchange = exchange
        self._message_came = message_came
        self._ended = ended

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
                yield self._last(exchange, f"the connection broke: {why_of(error)}")
                return
            if b"{" in chunk:
                self._message_came()
            yield chunk

    @staticmethod
    def _last(exchange: Exchange, said: str) -> bytes:
        """Give an event that answers the request, behind whatever has come of another."""
        return b"\n\nevent: message\ndata: " + exchange.error(BROKEN, said) + b"\n\n"

    @override
    async def aclose(self) -> None:
        self._ended()
        await self._response.aclose()


async def whole(response: httpx2.Response, most: int) -> bytes:
    """Read a body.

    Raises:
        WireError: it is longer, or encoded.
    """
    body = bytearray()
    try:
        if response.headers.get("content-encoding", "identity") != "identity":
            msg = "its answer is encoded in a way that was not asked for"
            raise WireError(msg)
        async for chunk in response.stream:  # type: ignore[union-attr]  # of an asynchronous transport
            body += chunk
            if len(body) > most:
                msg = f"its answer has more than {most:,} bytes"
                raise WireError(msg)
    finally:
        await response.aclose()
    return bytes(body)


async def beginning(response: httpx2.Response, most: int) -> bytes:
    """Read as much of a body as tells why the status is what it is; nothing about it is an error of its own."""
    body = bytearray()
    try:
        if most and response.headers.get("content-encoding", "identity") == "identity":
            async for chunk in response.stream:  # type: ignore[union-attr]  # of an asynchronous transport
                body += chunk
                if len(body) > most:
                    break
    except httpx2.TransportError:
        pass  # it broke off; the status has come
    finally:
        await response.aclose()
    return bytes(body[:most])


def why_of(error: BaseException) -> str:
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
