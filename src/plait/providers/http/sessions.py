"""The sessions, and the connections they keep.

There is one session for each event loop, shared by all providers and closed with the loop. It keeps no cookies.
Imported with the first request, for it imports aiohttp.
"""

from __future__ import annotations

import os
import select
import socket
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

import aiohttp

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, BaseTransport
    from collections.abc import AsyncGenerator

    from aiohttp.tracing import Trace

_KEEP_ALIVE: Final = 30.0  # seconds an idle connection is kept

_sessions: dict[AbstractEventLoop, tuple[aiohttp.ClientSession, AsyncGenerator[None, None]]] = {}


class _Opening:
    """Whether a connection had to be opened."""

    __slots__ = ("happened",)

    def __init__(self) -> None:
        self.happened = False


_opening: ContextVar[_Opening | None] = ContextVar("plait_opening", default=None)


def _open_socket(address: tuple[Any, ...]) -> socket.socket:
    """Make the socket aiohttp asks for, and note that it did."""
    opening = _opening.get()
    if opening is not None:
        opening.happened = True
    family, kind, protocol, _, _ = address
    return socket.socket(family=family, type=kind, proto=protocol)


class _Connector(aiohttp.TCPConnector):
    """Gives out a kept connection only if its server has not ended it.

    aiohttp itself drops what the loop was told of. What has arrived since the loop last looked is seen here, right
    before a request is written: nothing was sent yet, so taking another connection is no second try. The end of a
    connection that crosses the request on its way cannot be told from a server that dropped the request, and is an
    error.
    """

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109  # the signature is aiohttp's
    ) -> aiohttp.connector.Connection:
        """Give a kept connection, or open one; see `aiohttp.BaseConnector.connect`."""
        opening = _Opening()
        token = _opening.set(opening)
        try:
            while True:
                connection = await super().connect(req, traces, timeout)
                if opening.happened or not _has_ended(connection.transport):
                    return connection
                connection.close()
        finally:
            _opening.reset(token)


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


async def session_of(loop: AbstractEventLoop) -> aiohttp.ClientSession:
    """Give the loop's session; it is made when there is none."""
    known = _sessions.get(loop)
    if known is not None and not known[0].closed:
        return known[0]
    for other in [one for one in _sessions if one.is_closed()]:
        _forget(other)
    session = aiohttp.ClientSession(
        connector=_Connector(limit=0, keepalive_timeout=_KEEP_ALIVE, socket_factory=_open_socket),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None),
    )
    keeper = _keep(loop, session)
    _sessions[loop] = (session, keeper)
    await anext(keeper)
    return session


async def _keep(loop: AbstractEventLoop, session: aiohttp.ClientSession) -> AsyncGenerator[None, None]:
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
