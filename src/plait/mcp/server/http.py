"""MCP over HTTP (the protocol's "streamable HTTP"): who may come in, and an ASGI server of our own. Imports the SDK.

Before the SDK sees a request, its path, token, Host and Origin are checked. Knows nothing of what the messages say.
"""

from __future__ import annotations

import asyncio
import hmac
import socket
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import anyio
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecurityMiddleware, TransportSecuritySettings
from sse_starlette import sse
from starlette.requests import Request
from starlette.responses import JSONResponse
from typing_extensions import override

from plait.errors import ConfigurationError, excerpt
from plait.scopes import running_loop, settle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import uvicorn
    from mcp.server.lowlevel import Server
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from plait.interrupts import Secret

MAX_BODY: Final = 4 * 1024 * 1024
"""Bytes of one request."""
MAX_SESSIONS: Final = 1000
"""Hosts at the same time; one more is told to come later."""
SESSION_IDLE: Final = 30 * 60.0
"""Seconds after which a session that nobody uses ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What keeps connections from holding up a server of our own.

    Attributes:
        connections: how many there may be; with more, requests are told to come later (503).
        request_within: seconds for a whole request to arrive, headers and body; then its connection is closed.
    """

    connections: int = 2 * MAX_SESSIONS
    request_within: float = 30.0


_CLOSING: Final = 5.0
"""Seconds."""
LOOPBACK: Final = ("127.0.0.1", "localhost", "[::1]")
_WAYS: Final = ("http", "https")


class Door:
    """Decides who may come in.

    Args:
        token: what must stand in ``Authorization: Bearer ...``; None for no such check.
        hosts: the names under which the server may be reached, with or without a port, which a browser must have
            asked for, and from whose pages it may ask; ``"*"`` for any.
    """

    def __init__(self, token: Secret | None, hosts: Iterable[str]) -> None:
        self._expected = None if token is None else token.reveal().encode()
        names = list(hosts)
        self._check = TransportSecurityMiddleware(
            TransportSecuritySettings(
                enable_dns_rebinding_protection="*" not in names,
                allowed_hosts=[form for name in names for form in (name, f"{name}:*")],
                allowed_origins=[f"{way}://{form}" for name in names for form in (name, f"{name}:*") for way in _WAYS],
            )
        )

    async def refusal(self, scope: Scope) -> ASGIApp | None:
        """Give the answer to a request that may not come in, or None."""
        request = Request(scope)
        refused = await self._check.validate_request(request, is_post=request.method == "POST")
        if refused is not None or self._expected is None:
            return refused
        way, _, said = request.headers.get("authorization", "").partition(" ")
        if way.lower() == "bearer" and hmac.compare_digest(said.strip().encode("latin-1"), self._expected):
            return None
        how = 'Bearer error="invalid_token"' if said else "Bearer"
        return JSONResponse({"error": "a valid bearer token is needed"}, 401, {"WWW-Authenticate": how})


class App:
    """The ASGI application. It works with and without a lifespan, and so also where another application mounts it.

    Without one, its sessions begin with the first request, and end with `close`, or with their event loop.

    Args:
        make: makes the SDK's server for one event loop.
        door: who may come in.
        path: where the protocol is spoken.
    """

    def __init__(self, make: Callable[[], Server[Any]], door: Door, path: str) -> None:
        self._make = make
        self._door = door
        self._path = path
        self._sessions: StreamableHTTPSessionManager | None = None
        self._opened = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._requests: set[anyio.CancelScope] = set()
        self._closing = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or live through one lifespan."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            await self._carry(await self._answer(scope), scope, receive, send)

    async def close(self) -> None:
        """End all sessions and requests, and with them their calls."""
        self._closing = True
        try:
            for request in self._requests:
                request.cancel()
            if self._keeper is not None:
                self._keeper.cancel()
                await asyncio.wait((self._keeper,))
        finally:
            self._closing = False

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            kind = (await receive())["type"]
            if kind == "lifespan.shutdown":
                await self.close()
            await send({"type": f"{kind}.complete"})
            if kind == "lifespan.shutdown":
                return

    async def _answer(self, scope: Scope) -> ASGIApp:
        if scope["path"].removeprefix(scope.get("root_path", "")).rstrip("/") != self._path.rstrip("/"):
            return JSONResponse({"error": f"the protocol is spoken at {self._path}"}, 404)
        if self._closing:
            return _ENDS
        return await self._door.refusal(scope) or (await self._open()).handle_request

    async def _carry(self, answer: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Have a request answered; when `close` ends it, what was not said is left out."""
        begun = ended = False

        async def say(message: Message) -> None:
            nonlocal begun, ended
            begun, ended = True, message["type"] == "http.response.body" and not message.get("more_body", False)
            await send(message)

        with anyio.CancelScope() as request:
            self._requests.add(request)
            try:
                await answer(scope, receive, say)
            finally:
                self._requests.discard(request)
        if request.cancelled_caught and not begun:
            await _ENDS(scope, receive, send)
        elif request.cancelled_caught and not ended:
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _open(self) -> StreamableHTTPSessionManager:
        keeper = self._keeper
        if self._sessions is None or keeper is None or keeper.done() or keeper.get_loop() is not running_loop():
            self._sessions = StreamableHTTPSessionManager(
                self._make(),
                max_request_body_size=MAX_BODY,
                session_idle_timeout=SESSION_IDLE,
                max_sessions=MAX_SESSIONS,
            )
            self._opened = asyncio.Event()
            self._keeper = asyncio.create_task(_keep(self._sessions, self._opened), name="plait: MCP sessions")
        sessions = self._sessions
        await self._opened.wait()
        return sessions


_ENDS: Final = JSONResponse({"error": "the server ends"}, 503)


async def _keep(sessions: StreamableHTTPSessionManager, opened: asyncio.Event) -> None:
    try:
        async with sessions.run():
            opened.set()
            await anyio.sleep_forever()
    finally:
        opened.set()


async def serve(  # noqa: PLR0917  # as users write it, but for the last
    app: App, name: str, host: str, port: int, path: str, limits: Limits = Limits()
) -> None:
    """Listen, until cancelled; says on stderr where.

    Raises:
        ConfigurationError: the address cannot be listened at.
    """
    try:
        listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        msg = f"cannot listen at {excerpt(host)} port {port}: {error.strerror}; choose another port, or 0 for any"
        raise ConfigurationError(msg) from error
    with listening:
        shown = f"[{host}]" if ":" in host else host
        print(  # noqa: T201  # whoever started it wants to know
            f"{name}: MCP at http://{shown}:{listening.getsockname()[1]}{path}", file=sys.stderr, flush=True
        )
        server, before = _server(app, limits), _watchers()
        task = asyncio.create_task(server.serve([listening]), name="plait: MCP over HTTP")

        async def end() -> None:
            await asyncio.wait((task,))
            await app.close()  # again: a request may have come in while the others were sent away
            for watcher in _watchers() - before:
                watcher.cancel()

        try:
            await asyncio.wait((task,))
        finally:
            server.should_exit = True
            await settle(end, _CLOSING)
        task.result()


def _watchers() -> set[asyncio.Task[Any]]:
    """Find the task that the SDK's library for event streams begins once in an event loop, and never ends."""
    code = sse._shutdown_watcher.__code__  # noqa: SLF001  # it is shown in no other way
    return {task for task in asyncio.all_tasks() if getattr(task.get_coro(), "cr_code", None) is code}


def _server(app: App, limits: Limits) -> uvicorn.Server:
    import uvicorn

    class Listener(uvicorn.Server):
        """Ends sessions before it waits for their connections to close, and leaves signals to the program."""

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            await app.close()
            await super().shutdown(sockets)

        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

    return Listener(
        uvicorn.Config(
            app,
            http=_protocol(limits.request_within),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            limit_concurrency=limits.connections,
            timeout_graceful_shutdown=2,
        )
    )


def _protocol(request_within: float) -> type[asyncio.Protocol]:
    import h11
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Protocol(H11Protocol):
        """Closes connections whose requests do not arrive, for which uvicorn has no option."""

        _late: asyncio.TimerHandle | None = None

        @override
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
            super().connection_made(transport)
            self._watch()

        @override
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch()

        @override
        def connection_lost(self, exc: Exception | None) -> None:
            self._rest()
            super().connection_lost(exc)

        def _watch(self) -> None:
            if self.conn.their_state not in {h11.IDLE, h11.SEND_BODY}:
                self._rest()
            elif self._late is None:
                self._late = self.loop.call_later(request_within, self.transport.close)

        def _rest(self) -> None:
            if self._late is not None:
                self._late.cancel()
                self._late = None

    return Protocol
