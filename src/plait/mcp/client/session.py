"""One session with a server: a task of its own opens it, keeps it, and closes it.

The SDK's sessions must be left by the task that entered them; so one task does both, and everybody else asks it. It
stands in an empty context: it belongs to no tool call that happened to need it first. Calls are tasks of the session
too, so that whoever waits for one can go at once. Loaded with the SDK, of which this is the only user of the client.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from contextvars import Context, ContextVar
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Final, TypeVar

import httpx2
from mcp.client import Client
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp.client.subscriptions import SubscriptionLost
from mcp.shared.exceptions import MCPError as ProtocolError
from mcp_types import (
    CONNECTION_CLOSED,
    METHOD_NOT_FOUND,
    PARSE_ERROR,
    UNSUPPORTED_PROTOCOL_VERSION,
    CallToolResult,
    Implementation,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from plait.errors import excerpt
from plait.mcp.client.exchanges import BROKEN
from plait.mcp.client.failures import Broken, CannotReach, Declined, NoAnswer, Unsent
from plait.mcp.client.http import GONE, MAX_BODY, UNSENT, Wire
from plait.mcp.client.listing import MAX_TOOLS
from plait.mcp.client.redact import Redactor
from plait.mcp.client.stdio import ChildStreams
from plait.mcp.client.tap import Tap, tapped
from plait.mcp.client.targets import Command, secrets_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Coroutine, Iterator, Sequence
    from contextlib import AbstractAsyncContextManager

    from plait.mcp.client.questions import Questions
    from plait.mcp.client.targets import Address, Way

T = TypeVar("T")

MAX_PAGES: Final = 100
_ACKNOWLEDGED: Final = 2.0
"""Seconds for a server to agree to tell of changes; some never do."""
_SAID: Final = 500
"""Characters of what went wrong, an address among it."""
_BROKEN_OFF: Final = ("Connection closed", "SSE stream")
"""How the SDK's own word begins that a session ended; servers use the same number for anything."""

_ours: ContextVar[bool] = ContextVar("plait: within a session with an MCP server", default=False)


class _NotOurs(logging.Filter):
    """Passes what other users of the SDK cause.

    Its records quote what servers say, session ids and headers among it, over many lines; what matters of them for
    plait's own sessions is said at ``plait.mcp``.
    """

    def filter(self, record: logging.LogRecord) -> bool:  # noqa: ARG002  # all of them
        return not _ours.get()


_QUIET: Final = (
    *("client", "mcp.client.client", "mcp.client.sse", "mcp.client.streamable_http", "mcp.client._probe"),
    *("mcp.client.subscriptions", "mcp.shared.jsonrpc_dispatcher", "mcp.shared._httpx_utils", "httpx2"),
    *("httpcore2.connection", "httpcore2.http11", "httpcore2.http2", "httpcore2.proxy", "httpcore2.socks"),
)
for _name in _QUIET:
    logging.getLogger(_name).addFilter(_NotOurs())


class Session:
    """A session, from the first try to reach the server to its end.

    Args:
        name: the server's name.
        ways: how it may be reached; each is tried until one leads to an MCP server.
        questions: who answers what it asks back.
        connect_timeout: seconds until the session stands.

    Attributes:
        loop: the event loop it lives on.
        tap: what passes.
        stale: the list of tools was not asked for, or has changed since.
        over: no new call can be made.
        way: the way that led to the server.
        listing: held while the list is asked for.
    """

    def __init__(self, name: str, ways: Sequence[Way], questions: Questions, connect_timeout: float) -> None:
        self.loop = loop = asyncio.get_running_loop()
        self.listing = asyncio.Lock()
        self.stale = True
        self.over = False
        self.way = ways[0]
        self._name = name
        self._ways = ways
        self._questions = questions
        self._connect_timeout = connect_timeout
        self._ready: asyncio.Future[CannotReach | None] = loop.create_future()
        self._end: asyncio.Future[None] = loop.create_future()
        self._waiting = 0
        self._calls: set[asyncio.Task[Any]] = set()
        self._child: ChildStreams | None = None
        self._wire: Wire | None = None
        self._context = Context()
        self._context.run(_ours.set, True)  # noqa: FBT003  # a context variable takes its value so
        self._task = loop.create_task(self._own(), name=f"plait: MCP server {name}", context=self._context)
        self._task.add_done_callback(lambda _: self._gone(None))  # one cancelled before its first step runs no line

    # --- the owner ---

    async def _own(self) -> None:
        trouble: CannotReach | None = None
        try:
            for way in self._ways:
                found = await self._session(way)
                if found is None:
                    break
                if trouble is None or not found.foreign:  # the first way is the one that was meant
                    trouble = found
                if not found.foreign:
                    break
        finally:
            self._gone(trouble)

    def _gone(self, trouble: CannotReach | None) -> None:
        self._finish()
        if not self._ready.done():
            self._ready.set_result(trouble or CannotReach("it was closed"))

    async def _session(self, way: Way) -> CannotReach | None:
        """Keep a session until it is to end; give why there was none."""
        for mode in ("legacy", "auto"):
            try:
                async with asyncio.timeout(self._connect_timeout) as limit, self._opened(way, mode) as client:
                    limit.reschedule(None)
                    self._client, self.way = client, way
                    async with _told_of_changes(client):
                        self._ready.set_result(None)
                        await self._end
            except Exception as error:  # noqa: BLE001  # the SDK raises many kinds, alone and in groups
                if self._ready.done():
                    self._finish()
                    return None
                if mode == "legacy" and _speaks_later_versions_only(error):
                    continue
                return self._trouble(error)
            return None
        return None

    def _opened(self, way: Way, mode: str) -> Client:
        self.tap = tap = Tap(self._name, ended=self._finish, changed=self._changed)
        self._child = self._wire = None
        self._redact = redact = Redactor(secrets_of(way))
        transport: AbstractAsyncContextManager[Any]
        if isinstance(way, Command):
            transport = self._child = ChildStreams(way, tap.warn, redact)
        else:
            self._wire = Wire(way, self._connect_timeout, self._lost, redact)
            transport = _over_http(way, self._wire)
        questions = self._questions
        return Client(
            tapped(transport, tap),
            mode=mode,
            cache=None,
            client_info=_this_client(),
            elicitation_callback=questions.elicit if questions.on_elicitation else None,
            sampling_callback=questions.sample if questions.on_sampling else None,
        )

    def _trouble(self, error: Exception) -> CannotReach:
        """Say why there is no session, by what is known nearest to the wire."""
        if self._wire is not None and self._wire.trouble is not None:
            return self._wire.trouble
        leaves = list(_leaves(error))
        reached = next((leaf for leaf in leaves if isinstance(leaf, CannotReach)), None)
        if reached is not None:
            return reached
        said = self._child.last_words if self._child is not None else ""
        ending = f"; its last words were: {said}" if said else ""
        if isinstance(error, TimeoutError):
            msg = f"it gave no answer within {self._connect_timeout:g} s{ending}"
            return CannotReach(msg, retryable=True)
        refused = next((leaf for leaf in leaves if isinstance(leaf, ProtocolError)), None)
        if refused is not None and refused.error.code != CONNECTION_CLOSED:
            return CannotReach(f"it refuses a session: {excerpt(self._redact(refused.error.message))}{ending}")
        if self._child is not None:
            return CannotReach(f"the program ended before there was a session{ending}", retryable=True)
        return CannotReach(f"its answer is not what the protocol says ({type(leaves[0]).__name__})", foreign=True)

    def _changed(self) -> None:
        self.stale = True

    def _lost(self, why: str) -> None:
        logging.getLogger("plait.mcp").info("the session with the MCP server %r ends: %s", self._name, why)
        self._finish()

    def _finish(self) -> None:
        """Let the owner end the session; who waits for a call is told at once."""
        self.over = True
        if not self._end.done():
            self._end.set_result(None)

    # --- for everybody ---

    async def ready(self) -> CannotReach | None:
        """Wait until the session stands; give why it does not. When nobody waits any more, it is given up."""
        self._waiting += 1
        try:
            await asyncio.wait((self._ready,))
        finally:
            self._waiting -= 1
            if not self._waiting and not self._ready.done():
                self.over = True
                self._task.cancel()
        return self._ready.result()

    async def list_tools(self, seconds: float) -> list[tuple[str, str, dict[str, Any]]]:
        """Give name, description and schema of each tool, of all pages.

        Raises:
            Unsent, Broken, NoAnswer, Declined: see there.
        """
        return await self._run(self._list(), seconds)

    async def _list(self) -> list[tuple[str, str, dict[str, Any]]]:
        kept: set[str] = set()
        cursor: str | None = None
        seen: set[str] = set()
        self.tap.begin_listing()
        for _ in range(MAX_PAGES):
            try:
                page = await self._client.list_tools(cursor=cursor)
            except ProtocolError as error:
                if error.error.code == METHOD_NOT_FOUND:
                    break
                raise
            kept.update(tool.name for tool in page.tools)
            cursor = page.next_cursor
            if not cursor or cursor in seen or self.tap.listed >= MAX_TOOLS:
                break
            seen.add(cursor)
        return [tool for tool in self.tap.tools if tool[0] in kept]

    async def call(self, name: str, arguments: dict[str, Any], seconds: float) -> CallToolResult:
        """Call a tool.

        Raises:
            Unsent, Broken, NoAnswer, Declined: see there.
        """
        return await self._run(self._client.call_tool(name, arguments), seconds)

    async def _run(self, request: Coroutine[Any, Any, T], seconds: float) -> T:
        if self.over:
            request.close()
            raise Unsent
        self._questions.call_begins(is_only=not self._calls)
        task = self.loop.create_task(request, name=f"plait: MCP call at {self._name}", context=self._context.copy())
        self._calls.add(task)
        task.add_done_callback(self._ended)
        try:
            while not task.done():
                asked = self._questions.asked
                await asyncio.wait((task,), timeout=seconds)
                # The time of a server does not run while it waits for a person.
                if not task.done() and not self._questions.waiting and asked == self._questions.asked:
                    raise NoAnswer
        finally:
            task.cancel()  # one that has ended takes no notice; another tells the server
        return self._outcome(task)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._calls.discard(task)
        if not task.cancelled():
            task.exception()  # somebody has gone who would have asked
        if self.over and not self._calls:
            self._finish()

    def _outcome(self, task: asyncio.Task[T]) -> T:
        if task.cancelled():
            msg = "the session was closed"
            raise Broken(msg)
        error = task.exception()
        if error is None:
            return task.result()
        if isinstance(error, Unsent):
            raise error
        if not isinstance(error, ProtocolError):
            msg = f"what it answered is no result ({type(next(_leaves(error))).__name__})"
            raise Declined(msg)
        code, said = error.error.code, excerpt(self._redact(error.error.message), _SAID)
        if code in {UNSENT, GONE}:
            raise Unsent(said)
        if code in {BROKEN, PARSE_ERROR} or (code == CONNECTION_CLOSED and (self.over or said.startswith(_BROKEN_OFF))):
            raise Broken(said if code == BROKEN else "the server ended the connection")
        raise Declined(excerpt(said) or f"error {code}")

    def retire(self) -> None:
        """Take no new call, and end with the last one under way."""
        self.over = True
        if not self._calls:
            self._finish()

    async def close(self) -> None:
        """End the session, and wait until nothing of it is left."""
        self._finish()
        for call in tuple(self._calls):
            call.cancel()
        if not self._ready.done():
            self._task.cancel()
        await asyncio.wait((self._task, *self._calls))

    @property
    def is_gone(self) -> bool:
        """Whether nothing of it is left."""
        return self._task.done()

    def abandon(self) -> None:
        """End from another thread what outlives an event loop that does not run; the rest ends when it runs again."""
        if self._child is not None:
            self._child.kill()
        with suppress(RuntimeError):  # it is closed
            self.loop.call_soon_threadsafe(self._finish)


@asynccontextmanager
async def _over_http(address: Address, wire: Wire) -> AsyncGenerator[Any, None]:
    def client(
        headers: dict[str, str] | None = None,  # noqa: ARG001  # the wire has them
        timeout: httpx2.Timeout | None = None,  # noqa: ARG001
        auth: httpx2.Auth | None = None,  # noqa: ARG001
    ) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(transport=wire, trust_env=False)

    if address.kind == "sse":
        async with sse_client(address.url, httpx_client_factory=client) as streams:
            yield streams
    else:
        async with (
            client() as made,
            streamable_http_client(address.url, http_client=made, max_sse_event_size=MAX_BODY) as streams,
        ):
            yield streams


@asynccontextmanager
async def _told_of_changes(client: Client) -> AsyncGenerator[None, None]:
    """Have the server tell of changes of its tools where it has to be asked to; the `Tap` hears it."""
    async with AsyncExitStack() as stack:
        if client.protocol_version in MODERN_PROTOCOL_VERSIONS:
            with suppress(ProtocolError, SubscriptionLost, TimeoutError):
                async with asyncio.timeout(_ACKNOWLEDGED):
                    await stack.enter_async_context(client.listen(tools_list_changed=True))
        yield


@cache
def _this_client() -> Implementation:
    try:
        return Implementation(name="plait", version=version("plait"))
    except PackageNotFoundError:
        return Implementation(name="plait", version="0")


def _speaks_later_versions_only(error: Exception) -> bool:
    codes = {leaf.error.code for leaf in _leaves(error) if isinstance(leaf, ProtocolError)}
    return UNSUPPORTED_PROTOCOL_VERSION in codes


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
