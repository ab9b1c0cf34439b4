"""The connections of an event loop: those that are kept, and where the next one comes from.

aiohttp's connector finds names, opens sockets, speaks TLS and goes through proxies; which connection is used again is
decided here. All providers of an event loop share them, and they are closed with the loop. Imported with the first
request, for it imports aiohttp.
"""

from __future__ import annotations

import os
import select
from asyncio import CancelledError, sleep
from base64 import b64encode
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Final

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from plait.providers.http.lookout import Lookout

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Task, TimerHandle
    from collections.abc import AsyncGenerator, Mapping

    from aiohttp.client_proto import ResponseHandler
    from aiohttp.client_reqrep import ConnectionKey
    from aiohttp.connector import Connection

_KEEP_ALIVE: Final = 30.0  # seconds an idle connection is kept
_MOST_KEPT: Final = 1000  # idle connections to one address
_MOST_PACES: Final = 256  # addresses whose last openings are remembered
_PER_REQUEST: Final = frozenset({"content-length", "transfer-encoding"})  # what the head of a request says of its body


class Line:
    """One connection, from its opening to its end: used for one exchange after the other.

    Attributes:
        protocol: aiohttp's, which parses what arrives.
        idle_since: when it was last used, in the loop's time.
    """

    __slots__ = ("_connection", "_connections", "_key", "_poll", "idle_since", "protocol")

    def __init__(self, connection: Connection, connections: Connections, key: ConnectionKey) -> None:
        protocol = connection.protocol
        assert protocol is not None  # noqa: S101  # a connection that was just opened has one
        self.protocol: ResponseHandler = protocol
        self.idle_since = 0.0
        self._connection = connection
        self._connections = connections
        self._key = key
        self._poll: select.poll | None = None

    def keep(self) -> None:
        """Say that it is free for another exchange; it is closed if its server wants that."""
        if self.protocol.should_close or self._connections.closed:
            self.close()
        else:
            self._connections.keep(self, self._key)

    def fit(self) -> bool:
        """Whether another request may be written to it: its server has not ended it, and nothing unasked waits there.

        What has arrived since the event loop last looked is seen here, right before a request is written: nothing was
        sent yet, so taking another connection is no second try. The end of a connection that crosses the request on its
        way cannot be told from a server that dropped the request, and is an error. Nor is half an answer seen that came
        together with the last one's end: aiohttp has swallowed it, and its other half, if it comes, is an error.
        """
        transport = self.protocol.transport
        if transport is None or transport.is_closing() or self.protocol.should_close:
            return False
        number = transport.get_extra_info("socket").fileno()
        if number < 0:
            return False
        if self._poll is None:
            self._poll = select.poll()
            self._poll.register(number, select.POLLIN)
        return not self._poll.poll(0)

    def close(self) -> None:
        """End it."""
        if self.protocol.transport is not None and not self._connections.closed:
            self.protocol.transport.abort()  # closing it would wait for what is not written, and for TLS's goodbye
        self._connection.close()


class Pace:
    """How fast connections to one address are begun: a few at once, then one every two milliseconds.

    A server takes new connections one after the other, and small ones keep only five waiting; what comes beyond is
    dropped, and the system tries again after one second, then two, and so on, up to minutes. Many clients that begin
    together would wait for that; so they begin in turn.
    """

    __slots__ = ("_next",)

    AT_ONCE: Final = 5
    GAP: Final = 0.002

    def __init__(self) -> None:
        self._next = 0.0

    def delay(self, now: float) -> float:
        """Take a turn; say how many seconds to wait for it."""
        turn = max(self._next, now - (self.AT_ONCE - 1) * self.GAP)
        self._next = turn + self.GAP
        return max(0.0, turn - now)


class Connections:
    """What one event loop has open.

    Attributes:
        loop: the event loop.
        lookout: watches the deadlines of what is asked here.
    """

    __slots__ = ("_connector", "_kept", "_paces", "_timer", "lookout", "loop")

    def __init__(self, loop: AbstractEventLoop) -> None:
        self.loop = loop
        self.lookout = Lookout(loop)
        self._connector = aiohttp.TCPConnector(limit=0)
        self._kept: dict[ConnectionKey, list[Line]] = {}
        self._paces: dict[ConnectionKey, Pace] = {}
        self._timer: TimerHandle | None = None

    @property
    def closed(self) -> bool:
        """Whether the loop was closed, or the process forked, since."""
        return self._connector.closed

    def take(self, key: ConnectionKey) -> Line | None:
        """Give a free one to an address, the one used last, if there is one that may still be used."""
        kept = self._kept.get(key)
        while kept:
            line = kept.pop()
            if line.fit():
                return line
            line.close()
        return None

    def keep(self, line: Line, key: ConnectionKey) -> None:
        """Put one to those that are free; the oldest goes when they are too many."""
        line.idle_since = self.loop.time()
        kept = self._kept.get(key)
        if kept is None:
            kept = self._kept[key] = []
        kept.append(line)
        if len(kept) > _MOST_KEPT:
            kept.pop(0).close()
        if self._timer is None:
            # In a context of its own: it must not keep alive what belongs to the run that asked last.
            self._timer = self.loop.call_later(_KEEP_ALIVE, self._close_old, context=Context())

    async def open(self, request: aiohttp.ClientRequest, timeout: aiohttp.ClientTimeout, key: ConnectionKey) -> Line:  # noqa: ASYNC109  # aiohttp's own
        """Open one; see `Route.connect`.

        In a context of its own: aiohttp looks up a name once for all who wait for it, in the context of the first, and
        a connection keeps the one it was opened in. Neither may belong to a run, nor end with what a tool left behind.
        """
        pace = self._paces.get(key)
        if pace is None:
            if len(self._paces) >= _MOST_PACES:
                self._paces.clear()
            pace = self._paces[key] = Pace()
        if delay := pace.delay(self.loop.time()):
            await sleep(delay)
        opening = self.loop.create_task(self._connector.connect(request, [], timeout), context=Context())
        try:
            return Line(await opening, self, key)
        except CancelledError:
            if opening.done():
                self._give_up(key, opening)
            else:  # at a loop's end both tasks are cancelled at once, and a connection may come all the same
                opening.add_done_callback(partial(self._give_up, key))
            raise

    def _give_up(self, key: ConnectionKey, opening: Task[Connection]) -> None:
        """Close a connection that came when nobody waited for it any more."""
        if not opening.cancelled() and opening.exception() is None:
            Line(opening.result(), self, key).close()

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
        for key, kept in list(self._kept.items()):
            while kept and kept[0].idle_since + _KEEP_ALIVE <= now:
                kept.pop(0).close()
            if not kept:
                del self._kept[key]
        if self._kept:
            oldest = min(kept[0].idle_since for kept in self._kept.values())
            self._timer = self.loop.call_at(oldest + _KEEP_ALIVE, self._close_old, context=Context())


class Route:
    """The way of one event loop to one address: gives connections, and the head that every request begins with.

    What a request needs besides its body is worked out once. aiohttp's own session does it for each request anew, with
    cookies, redirects, traces and forms that are not used here, and takes twice as long as everything else together.

    Attributes:
        connections: those of the event loop.
        head: the request's first bytes, up to the number of its ``content-length``.
    """

    __slots__ = ("_key", "_request", "_timeout", "connections", "head")

    def __init__(
        self, connections: Connections, url: str, *, headers: Mapping[str, str], proxy: str | None, seconds: float
    ) -> None:
        """Work out the way.

        Args:
            connections: those of the event loop.
            url: the address.
            headers: what every request says.
            proxy: the address of a proxy to go through, if any, with the user name and password it asks for.
            seconds: within which a connection must stand.
        """
        target, through, sent = URL(url), None if proxy is None else URL(proxy), CIMultiDict(headers)
        if through is not None and target.scheme == "http":
            # aiohttp tells a proxy who asks when it opens a connection: to one that reads each request, only once.
            if through.user is not None or through.password is not None:
                who = b64encode(f"{through.user or ''}:{through.password or ''}".encode()).decode()
                sent.setdefault("Proxy-Authorization", f"Basic {who}")
            through = through.with_user(None)
        self.connections = connections
        self._timeout = aiohttp.ClientTimeout(total=None, connect=seconds)
        self._request = aiohttp.ClientRequest("POST", target, headers=sent, loop=connections.loop, proxy=through)
        self._key = self._request.connection_key
        self.head = self._head()

    async def connect(self) -> Line:
        """Give a kept connection, or open one.

        Raises:
            TimeoutError: it does not stand in time.
            aiohttp.ClientError, OSError: it cannot be opened.
        """
        line = self.connections.take(self._key)
        return line or await self.connections.open(self._request, self._timeout, self._key)

    def _head(self) -> bytes:
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
    for other in list(_open):  # other threads, with loops of their own, do the same at the same time
        if other.is_closed() and (left := _open.pop(other, None)) is not None:
            left[0].forget()
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


# A child shares its parent's sockets and selector: it must use, and close, none of them.
os.register_at_fork(after_in_child=_forget_all)
