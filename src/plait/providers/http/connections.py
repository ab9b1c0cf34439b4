"""The connections that are kept, and where the next one to an address comes from.

aiohttp's connector finds names, opens sockets, speaks TLS and goes through proxies. There is one for each event loop,
shared by all providers and closed with the loop. Imported with the first request, for it imports aiohttp.
"""

from __future__ import annotations

import os
import select
from typing import TYPE_CHECKING, Final
from weakref import WeakSet

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from plait.providers.http.exchange import Lookout

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, BaseTransport
    from collections.abc import AsyncGenerator, Mapping

    from aiohttp.client_proto import ResponseHandler
    from aiohttp.connector import Connection

_KEEP_ALIVE: Final = 30.0  # seconds an idle connection is kept
_PER_REQUEST: Final = frozenset({"content-length", "transfer-encoding"})  # what the head of a request says of its body


class Route:
    """The way of one event loop to one address: gives connections, and the head that every request begins with.

    What a request needs besides its body is worked out once. aiohttp's own session does it for each request anew, with
    cookies, redirects, traces and forms that are not used here, and takes twice as long as everything else together.

    Attributes:
        loop: the event loop it belongs to.
        lookout: watches the deadlines of what is asked in this loop.
        head: the request's first bytes, up to the number of its ``content-length``.
    """

    __slots__ = ("_connector", "_request", "_timeout", "head", "lookout", "loop")

    def __init__(
        self,
        loop: AbstractEventLoop,
        connector: _Connector,
        url: str,
        *,
        headers: Mapping[str, str],
        proxy: str | None,
        seconds: float,
    ) -> None:
        self.loop = loop
        self.lookout = connector.lookout
        self.head = b""
        self._connector = connector
        self._timeout = aiohttp.ClientTimeout(total=None, connect=seconds)
        self._request = aiohttp.ClientRequest(
            "POST",
            URL(url),
            headers=CIMultiDict(headers),
            loop=loop,
            proxy=None if proxy is None else URL(proxy),
        )

    @property
    def closed(self) -> bool:
        """Whether the loop was closed, or the process forked, since."""
        return self._connector.closed

    async def connect(self) -> Connection:
        """Give a kept connection, or open one.

        Raises:
            TimeoutError: it does not stand in time.
            aiohttp.ClientError, OSError: it cannot be opened.
        """
        connection = await self._connector.connect(self._request, [], self._timeout)
        self.head = self.head or self._head()
        return connection

    def _head(self) -> bytes:
        """Write the head down; after a connection was opened, when a proxy's own header is known."""
        request = self._request
        whole = request.proxy is not None and not request.is_ssl()  # what a proxy passes on names its host
        target = str(request.url) if whole else request.url.raw_path_qs
        lines = [f"{name}: {value}" for name, value in request.headers.items() if name.lower() not in _PER_REQUEST]
        return "\r\n".join([f"POST {target} HTTP/1.1", *lines, "Content-Length: "]).encode()


class _Connector(aiohttp.TCPConnector):
    """Gives out a kept connection only if its server has not ended it.

    aiohttp itself drops what the loop was told of. What has arrived since the loop last looked is seen here, right
    before a request is written: nothing was sent yet, so taking another connection is no second try. The end of a
    connection that crosses the request on its way cannot be told from a server that dropped the request, and is an
    error.
    """

    def __init__(self, loop: AbstractEventLoop) -> None:
        super().__init__(limit=0, keepalive_timeout=_KEEP_ALIVE)
        self.lookout = Lookout(loop)
        self._used: WeakSet[ResponseHandler] = WeakSet()

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[aiohttp.tracing.Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109  # the signature is aiohttp's
    ) -> Connection:
        """Give a kept connection, or open one; see `aiohttp.BaseConnector.connect`."""
        while True:
            connection = await super().connect(req, traces, timeout)
            protocol = connection.protocol
            if protocol not in self._used:
                if protocol is not None:
                    self._used.add(protocol)
                return connection
            if not _has_ended(connection.transport):
                return connection
            connection.close()


def _has_ended(transport: BaseTransport | None) -> bool:
    """Whether an idle connection is of no use: something is there to read, and nobody has asked for anything."""
    raw = None if transport is None else transport.get_extra_info("socket")
    number = -1 if raw is None else raw.fileno()
    if number < 0:
        return True
    if not hasattr(select, "poll"):  # on Windows, where select takes any number
        return bool(select.select([number], [], [], 0)[0])
    poll = select.poll()
    poll.register(number, select.POLLIN)
    return bool(poll.poll(0))


_connectors: dict[AbstractEventLoop, tuple[_Connector, AsyncGenerator[None, None]]] = {}


async def connector_of(loop: AbstractEventLoop) -> _Connector:
    """Give the loop's connector; it is made when there is none."""
    known = _connectors.get(loop)
    if known is not None and not known[0].closed:
        return known[0]
    for other in [one for one in _connectors if one.is_closed()]:
        _forget(other)
    connector = _Connector(loop)
    keeper = _keep(loop, connector)
    _connectors[loop] = (connector, keeper)
    await anext(keeper)
    return connector


async def _keep(loop: AbstractEventLoop, connector: _Connector) -> AsyncGenerator[None, None]:
    """Close the connector with its loop: a loop closes the async generators begun on it before it closes itself."""
    try:
        yield
    finally:
        _connectors.pop(loop, None)
        await connector.close()


def _forget(loop: AbstractEventLoop) -> None:
    """Let go of a connector whose loop was closed without ending its generators, or belongs to the parent process."""
    connector, _ = _connectors.pop(loop)
    # Closing it would speak to the loop; aiohttp offers no other way to say that nobody will.
    connector._closed = True  # noqa: SLF001


def _forget_all() -> None:
    for loop in list(_connectors):
        _forget(loop)


if hasattr(os, "register_at_fork"):
    # A child shares its parent's sockets and selector: it must use, and close, none of them.
    os.register_at_fork(after_in_child=_forget_all)
