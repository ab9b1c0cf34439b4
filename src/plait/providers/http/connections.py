"""The connections of an event loop: those that are kept, and where the next one comes from.

aiohttp's connector finds names, opens sockets, speaks TLS and goes through proxies; which connection is used again is
decided here. All providers of an event loop share them, and they are closed with the loop. Imported with the first
request, for it imports aiohttp.
"""

from __future__ import annotations

import os
import select
from contextvars import Context
from typing import TYPE_CHECKING, Final

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from plait.providers.http.lookout import Lookout

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, TimerHandle
    from collections.abc import AsyncGenerator, Mapping

    from aiohttp.client_proto import ResponseHandler
    from aiohttp.client_reqrep import ConnectionKey
    from aiohttp.connector import Connection

_KEEP_ALIVE: Final = 30.0  # seconds an idle connection is kept
_PER_REQUEST: Final = frozenset({"content-length", "transfer-encoding"})  # what the head of a request says of its body


class Line:
    """One connection, from its opening to its end: used for one exchange after the other.

    Attributes:
        protocol: aiohttp's, which parses what arrives.
        idle_since: when it was last used, in the loop's time.
    """

    __slots__ = ("_connection", "_connections", "_kept", "_poll", "idle_since", "protocol")

    def __init__(self, connection: Connection, connections: Connections, kept: list[Line]) -> None:
        protocol = connection.protocol
        assert protocol is not None  # noqa: S101  # a connection that was just opened has one
        self.protocol: ResponseHandler = protocol
        self.idle_since = 0.0
        self._connection = connection
        self._connections = connections
        self._kept = kept
        self._poll: select.poll | None = None

    def keep(self) -> None:
        """Say that it is free for another exchange; it is closed if its server wants that."""
        if self.protocol.should_close or self._connections.closed:
            self.close()
        else:
            self._connections.keep(self, self._kept)

    def fit(self) -> bool:
        """Whether another request may be written to it: its server has not ended it, and has said nothing unasked.

        What has arrived since the event loop last looked is seen here, right before a request is written: nothing was
        sent yet, so taking another connection is no second try. The end of a connection that crosses the request on its
        way cannot be told from a server that dropped the request, and is an error.
        """
        transport = self.protocol.transport
        if transport is None or transport.is_closing() or self.protocol.should_close:
            return False
        number = transport.get_extra_info("socket").fileno()
        if number < 0:
            return False
        if not hasattr(select, "poll"):  # on Windows, where select takes any number
            return not select.select([number], [], [], 0)[0]
        if self._poll is None:
            self._poll = select.poll()
            self._poll.register(number, select.POLLIN)
        return not self._poll.poll(0)

    def close(self) -> None:
        """End it."""
        if self.protocol.transport is not None and not self._connections.closed:
            self.protocol.transport.abort()  # closing it would wait for what is not written, and for TLS's goodbye
        self._connection.close()


class Connections:
    """What one event loop has open.

    Attributes:
        loop: the event loop.
        lookout: watches the deadlines of what is asked here.
    """

    __slots__ = ("_connector", "_kept", "_timer", "lookout", "loop")

    def __init__(self, loop: AbstractEventLoop) -> None:
        self.loop = loop
        self.lookout = Lookout(loop)
        self._connector = aiohttp.TCPConnector(limit=0)
        self._kept: dict[ConnectionKey, list[Line]] = {}
        self._timer: TimerHandle | None = None

    @property
    def closed(self) -> bool:
        """Whether the loop was closed, or the process forked, since."""
        return self._connector.closed

    def kept(self, key: ConnectionKey) -> list[Line]:
        """Give the list of those that are free, to one address; the last is the one used last."""
        return self._kept.setdefault(key, [])

    def keep(self, line: Line, kept: list[Line]) -> None:
        """Put one into its list."""
        line.idle_since = self.loop.time()
        kept.append(line)
        if self._timer is None:
            # In a context of its own: it must not keep alive what belongs to the run that asked last.
            self._timer = self.loop.call_later(_KEEP_ALIVE, self._close_old, context=Context())

    async def open(self, request: aiohttp.ClientRequest, timeout: aiohttp.ClientTimeout, kept: list[Line]) -> Line:  # noqa: ASYNC109  # aiohttp's own
        """Open one; see `Route.connect`."""
        return Line(await self._connector.connect(request, [], timeout), self, kept)

    async def close(self) -> None:
        """Close what is free, and what is still in use."""
        if self._timer is not None:
            self._timer.cancel()
        self._drop()
        await self._connector.close()

    def forget(self) -> None:
        """Let go of all without a word to the loop: it was closed without ending this, or is that of a parent process.

        aiohttp offers no other way to say that nobody will close them.
        """
        self._connector._closed = True  # noqa: SLF001
        self._drop()

    def _drop(self) -> None:
        for kept in self._kept.values():
            while kept:
                kept.pop().close()

    def _close_old(self) -> None:
        self._timer = None
        now = self.loop.time()
        oldest = now
        for kept in self._kept.values():
            while kept and kept[0].idle_since + _KEEP_ALIVE <= now:
                kept.pop(0).close()
            oldest = min([oldest, *(line.idle_since for line in kept[:1])])
        if oldest < now:
            self._timer = self.loop.call_at(oldest + _KEEP_ALIVE, self._close_old, context=Context())


class Route:
    """The way of one event loop to one address: gives connections, and the head that every request begins with.

    What a request needs besides its body is worked out once. aiohttp's own session does it for each request anew, with
    cookies, redirects, traces and forms that are not used here, and takes twice as long as everything else together.

    Attributes:
        connections: those of the event loop.
        head: the request's first bytes, up to the number of its ``content-length``.
    """

    __slots__ = ("_kept", "_request", "_timeout", "connections", "head")

    def __init__(
        self, connections: Connections, url: str, *, headers: Mapping[str, str], proxy: str | None, seconds: float
    ) -> None:
        """Work out the way.

        Args:
            connections: those of the event loop.
            url: the address.
            headers: what every request says.
            proxy: the address of a proxy to go through, if any.
            seconds: within which a connection must stand.
        """
        self.connections = connections
        self.head = b""
        self._timeout = aiohttp.ClientTimeout(total=None, connect=seconds)
        self._request = aiohttp.ClientRequest(
            "POST",
            URL(url),
            headers=CIMultiDict(headers),
            loop=connections.loop,
            proxy=None if proxy is None else URL(proxy),
        )
        self._kept = connections.kept(self._request.connection_key)

    async def connect(self) -> Line:
        """Give a kept connection, or open one.

        Raises:
            TimeoutError: it does not stand in time.
            aiohttp.ClientError, OSError: it cannot be opened.
        """
        kept = self._kept
        while kept:
            line = kept.pop()
            if line.fit():
                self.head = self.head or self._head()
                return line
            line.close()
        line = await self.connections.open(self._request, self._timeout, kept)
        self.head = self.head or self._head()
        return line

    def _head(self) -> bytes:
        """Write the head down; after a connection was opened, when a proxy's own header is known."""
        request = self._request
        whole = request.proxy is not None and not request.is_ssl()  # what a proxy passes on names its host
        target = str(request.url) if whole else request.url.raw_path_qs
        lines = [f"{name}: {value}" for name, value in request.headers.items() if name.lower() not in _PER_REQUEST]
        return "\r\n".join([f"POST {target} HTTP/1.1", *lines, "Content-Length: "]).encode()


_open: dict[AbstractEventLoop, tuple[Connections, AsyncGenerator[None, None]]] = {}


async def connections_of(loop: AbstractEventLoop) -> Connections:
    """Give the loop's connections; they begin here when there are none."""
    known = _open.get(loop)
    if known is not None and not known[0].closed:
        return known[0]
    for other in [one for one in _open if one.is_closed()]:
        _open.pop(other)[0].forget()
    connections = Connections(loop)
    keeper = _keep(connections)
    _open[loop] = (connections, keeper)
    await anext(keeper)
    return connections


async def _keep(connections: Connections) -> AsyncGenerator[None, None]:
    """Close them with their loop: a loop closes the async generators begun on it before it closes itself."""
    try:
        yield
    finally:
        _open.pop(connections.loop, None)
        await connections.close()


def _forget_all() -> None:
    while _open:
        _open.popitem()[1][0].forget()


if hasattr(os, "register_at_fork"):
    # A child shares its parent's sockets and selector: it must use, and close, none of them.
    os.register_at_fork(after_in_child=_forget_all)
