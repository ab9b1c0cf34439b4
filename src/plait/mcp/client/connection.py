"""One MCP server as a client sees it: its tools, kept as they were approved, and a session whenever one is needed.

Owns what outlives a session: the tools and their pins, when a broken session is opened anew, and what a model is told
of a call that failed. A session is `plait.mcp.client.session`'s, which is loaded when the first one is opened.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from plait.errors import ConfigurationError, MCPError, MissingExtra, ToolError, excerpt
from plait.mcp.client.elsewhere import elsewhere
from plait.mcp.client.failures import Broken, Declined, Elsewhere, NoAnswer, Unheard, Unsent
from plait.mcp.client.listing import judge_all
from plait.mcp.client.names import whole_characters
from plait.mcp.client.questions import Questions
from plait.mcp.client.results import to_result
from plait.mcp.client.targets import read_target
from plait.mcp.client.toolset import Toolset
from plait.workers import WORKERS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
    from types import TracebackType

    from plait.interrupts import Secret
    from plait.mcp.client.questions import OnElicitation, OnSampling
    from plait.mcp.client.session import Session
    from plait.mcp.client.targets import Transport
    from plait.mcp.client.tools import MCPTool
    from plait.mcp.client.toolset import MCPChange
    from plait.messages import ToolResult
    from plait.toolbase import Tool

T = TypeVar("T")

_FIRST_DELAY: Final = 0.5
_LONGEST_DELAY: Final = 30.0
_WAITED_OUT: Final = 1.0
"""Seconds that a call waits for its turn to connect; beyond that the model is told."""


class MCPConnection:
    """An MCP server, and its tools for agents.

    ::

        async with MCPConnection("files", ["npx", "-y", "@modelcontextprotocol/server-filesystem", "."]) as files:
            agent = Agent(tools=[*files.tools.values()])

    A session is opened when it is needed, and again after it broke: at once the first time, then with growing delays.
    The tools stay as they were when they were first listed: one whose name, description or schema the server changes
    is not called, and a new one is not offered, until `approve`.

    Args:
        name: your name for the server; it stands before the names of its tools.
        target: a URL; a command as a list; or one entry of the usual ``mcpServers`` JSON: ``{"command", "args", "env",
            "cwd"}`` or ``{"url", "headers"}``. A URL without a path is also tried with ``/mcp`` and ``/sse``.
        token: sent as ``Authorization: Bearer ...`` to the server's own origin, and nowhere else.
        headers: further headers, sent likewise.
        transport: ``http`` (streamable HTTP), ``sse`` (the older one) or ``stdio``; ``auto`` finds out.
        timeout: seconds for one call.
        connect_timeout: seconds for opening a session.
        idempotent: names of tools (or True for all) that are called again by themselves when the connection broke
            under a call. What the server says of that is a hint from a stranger, and not relied on.
        prefix: stands before the names of the tools; None for ``name``, empty for nothing.
        on_elicitation: asked when the server asks a person: with its message and a JSON Schema of flat values; gives
            the values, or None to decline. Without it, the server is refused.
        on_sampling: asked when the server wants to use the model: with its request as plain JSON; gives the text, or
            None to decline. Without it, the server is refused.

    Attributes:
        name: see above.
        tools: the usable tools by name, once it was opened.
        refused: the server's tools that cannot be used, with the reason.

    Raises:
        ConfigurationError: an argument is wrong.
    """

    def __init__(
        self,
        name: str,
        target: str | Sequence[str] | Mapping[str, Any],
        *,
        token: str | Secret | None = None,
        headers: Mapping[str, str] | None = None,
        transport: Transport = "auto",
        timeout: float = 60.0,
        connect_timeout: float = 10.0,
        idempotent: Collection[str] | bool = (),
        prefix: str | None = None,
        on_elicitation: OnElicitation | None = None,
        on_sampling: OnSampling | None = None,
    ) -> None:
        if not isinstance(name, str) or not name:
            msg = f"an MCP server needs a name, a text that is not empty, not {excerpt(repr(name), 40)}"
            raise ConfigurationError(msg)
        for what, seconds in (("timeout", timeout), ("connect_timeout", connect_timeout)):
            if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds > 0:
                msg = f"{what} of the MCP server {name!r} must be seconds above 0, not {excerpt(repr(seconds), 40)}"
                raise ConfigurationError(msg)
        self.name = name
        self._ways = read_target(name, target, token=token, headers=headers, transport=transport)
        self._timeout = timeout
        self._connect_timeout = connect_timeout
        self._questions = Questions(name, on_elicitation, on_sampling)
        self._toolset = Toolset(name, name if prefix is None else prefix, idempotent, self._carry)
        self._lock = threading.Lock()  # sessions are looked for, made and given up by several threads
        self._closed = False
        self._closings = 0
        self._link: Session | None = None
        self._retired: set[Session] = set()
        self._failures = 0
        self._not_before = 0.0

    def __repr__(self) -> str:
        return f"MCPConnection(name={self.name!r}, tools={len(self.tools)})"

    @property
    def tools(self) -> Mapping[str, Tool]:
        """The usable tools by name."""
        return MappingProxyType(self._toolset.tools)

    @property
    def refused(self) -> Mapping[str, str]:
        """The server's names of tools that cannot be used, with the reason."""
        return MappingProxyType(self._toolset.refused)

    async def open(self) -> Mapping[str, Tool]:
        """Open a session, unless there is one, and give the usable tools by name.

        Whoever waits here at the same time shares one session.

        Raises:
            MCPError: there is no session, or no usable tool.
            MissingExtra: the SDK is not installed.
        """
        self._closed = False
        return await self._open(self._closings)

    async def _open(self, closings: int) -> Mapping[str, Tool]:
        try:
            await self._linked(closings)
        except Elsewhere as there:
            return await self._there(there.loop, lambda: self._open(closings))
        except (Unsent, Broken, NoAnswer, Declined) as error:
            msg = f"the MCP server {self.name!r} does not list its tools: {str(error) or 'no answer in time'}"
            raise MCPError(msg, server=self.name, retryable=not isinstance(error, Declined)) from None
        if not self.tools:
            await self.close()
            reasons = "; ".join(f"{excerpt(name, 40)!r}: {why}" for name, why in list(self.refused.items())[:3])
            msg = f"the MCP server {self.name!r} offers no tool that can be used{f' ({reasons})' if reasons else ''}"
            raise MCPError(msg, server=self.name)
        return self.tools

    async def close(self) -> None:
        """End the session, from any task and any event loop; a server that was started here ends with it."""
        with self._lock:
            self._closed = True
            self._closings += 1
            if self._link is not None:
                self._retired.add(self._link)
                self._link = None
        for one in tuple(self._retired):
            if one.loop is asyncio.get_running_loop():
                await one.close()
            elif not one.is_gone:
                try:
                    await elsewhere(one.loop, one.close, self._connect_timeout)
                except Unheard:
                    one.abandon()
            self._retired.discard(one)

    async def __aenter__(self) -> Self:
        try:
            await self.open()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def changes(self) -> Mapping[str, MCPChange]:
        """How what the server lists now differs from the approved tools, by name, with what a person needs to judge."""
        return self._toolset.changes

    def approve(self, *which: str | MCPChange) -> Mapping[str, Tool]:
        """Take tools as the server lists them now.

        Args:
            which: names, or values of `changes`, which are taken only as they were shown; without one, all `changes`.

        Returns:
            The tools, as in `tools`. One that had changed is a new object, for the old one says what it said before:
            an agent made with ``tools=`` must be made anew, one made with ``mcp_servers=`` has it in its next run.

        Raises:
            ConfigurationError: there is no such change, or not any more.
        """
        self._toolset.approve(*which)
        return self.tools

    # --- the session ---

    async def _linked(self, closings: int) -> Session:
        """Give a session whose tools are known.

        Args:
            closings: how often the connection had been closed when somebody began to need one.

        Raises:
            MCPError: there is none.
            Elsewhere: it is to be used in another event loop.
            Unsent, Broken, NoAnswer, Declined: it does not list its tools.
        """
        await _load()
        await self._back_off()
        link = self._current_or_new(closings)
        trouble = await link.ready()
        if trouble is not None:
            self._leave(link)
            msg = f"the MCP server {self.name!r} cannot be used: {trouble}"
            raise MCPError(msg, server=self.name, retryable=trouble.retryable)
        self._ways = (link.way, *(way for way in self._ways if way is not link.way))  # the next time, this one first
        if link.stale or link.listing.locked():
            async with link.listing:
                if link.stale:
                    await self._list(link)
        return link

    async def _list(self, link: Session) -> None:
        link.stale = False  # before it is asked: a change meanwhile makes it stale again
        try:
            found = await link.list_tools(self._timeout)
        except BaseException as error:
            link.stale = True
            if isinstance(error, Unsent | Broken):
                self._leave(link)
            raise
        over = threading.Event()
        try:
            judged = await WORKERS.run(partial(judge_all, found, link.tap.refused, over.is_set))
        finally:
            over.set()
        self._toolset.take(*judged, listed=link.tap.listed)

    def _current_or_new(self, closings: int) -> Session:
        from plait.mcp.client.session import Session

        with self._lock:
            if self._closings != closings:
                msg = f"the MCP server {self.name!r} was closed meanwhile"
                raise MCPError(msg, server=self.name)
            link = self._link
            if link is not None and not link.over:
                if link.loop is asyncio.get_running_loop():
                    return link
                if not link.loop.is_closed():
                    raise Elsewhere(link.loop)
                link.abandon()
            elif link is not None and not link.is_gone:
                self._retired.add(link)
            self._retired = {link for link in self._retired if not link.is_gone}
            self._link = Session(self.name, self._ways, self._questions, self._connect_timeout)
            return self._link

    def _leave(self, link: Session) -> None:
        """Use a session no more, and let some time pass before the next if that was not the first to fail."""
        link.retire()
        if link is not self._link:
            return  # somebody else was faster
        self._link = None
        self._retired.add(link)
        self._failures += 1
        if self._failures > 1:
            delay = min(_FIRST_DELAY * 2.0 ** min(self._failures - 2, 10), _LONGEST_DELAY)
            self._not_before = asyncio.get_running_loop().time() + delay

    async def _back_off(self) -> None:
        if self._failures <= 1 or (self._link is not None and not self._link.over):
            return
        early = self._not_before - asyncio.get_running_loop().time()
        if early > _WAITED_OUT:
            msg = f"the MCP server {self.name!r} failed {self._failures} times; the next try is in {early:.0f} s"
            raise MCPError(msg, server=self.name, retryable=True)
        if early > 0:
            await asyncio.sleep(early)

    async def _there(self, loop: asyncio.AbstractEventLoop, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Have something done in the session's event loop.

        Raises:
            MCPError: that event loop has ended, or does not run.
        """
        try:
            return await elsewhere(loop, work, self._timeout)
        except Unheard as error:
            msg = f"the event loop in which the MCP server {self.name!r} was open has ended"
            if not error.ended:
                msg = (
                    f"the MCP server {self.name!r} is open on another event loop, and its event loop does not run: it "
                    "was left, or a sync call blocks it; use the async form there, or close it there first"
                )
            raise MCPError(msg, server=self.name, retryable=error.ended) from None

    # --- calls ---

    async def _carry(self, tool: MCPTool, arguments: dict[str, Any]) -> ToolResult:
        """Call a tool; everything that goes wrong is a sentence for the model."""
        if self._closed:
            raise self._was_closed(tool)
        return await self._carried(tool, arguments, self._closings)

    def _was_closed(self, tool: MCPTool) -> ToolError:
        return ToolError(f"the MCP server {self.name!r} was closed; open it again to call {tool.name!r}")

    async def _carried(self, tool: MCPTool, arguments: dict[str, Any], closings: int) -> ToolResult:
        server = f"the MCP server {self.name!r}"
        for again in (True, False):
            link: Session | None = None
            sent = False
            try:
                link = await self._linked(closings)
                self._toolset.check(tool)
                sent = True
                given = await link.call(tool.original, whole_characters(arguments), self._timeout)
            except Elsewhere as there:
                return await self._carried_there(there.loop, tool, arguments, closings)
            except MCPError as error:
                raise (self._was_closed(tool) if self._closings != closings else ToolError(str(error))) from None
            except NoAnswer:
                what = f"to the call of {tool.name!r}" if sent else "when asked for its tools"
                msg = f"{server} gave no answer {what} within {self._timeout:g} seconds; it was told to stop"
                raise ToolError(msg) from None
            except Declined as error:
                msg = f"{server} refused the call of {tool.name!r}: {error}"
                raise ToolError(msg) from None
            except (Unsent, Broken) as error:
                if link is not None:
                    self._leave(link)
                happened = sent and isinstance(error, Broken)
                if again and (tool.idempotent or not happened):
                    continue
                after = "it may have happened: find out before you repeat it" if happened else "nothing was called"
                msg = (
                    f"{server} broke off under the call of {tool.name!r} ({str(error) or 'the session ended'}); {after}"
                )
                raise ToolError(msg) from None
            self._failures = 0
            data = given.model_dump(by_alias=True)
            return to_result(
                tool.name, data["content"], data.get("structuredContent"), tool.max_result, is_error=given.is_error
            )
        raise AssertionError  # the second round returns or raises

    async def _carried_there(
        self, loop: asyncio.AbstractEventLoop, tool: MCPTool, arguments: dict[str, Any], closings: int
    ) -> ToolResult:
        try:
            return await self._there(loop, lambda: self._carried(tool, arguments, closings))
        except MCPError as error:
            raise ToolError(str(error)) from None


async def _load() -> None:
    """Load the SDK, which takes about a second, in a thread.

    Raises:
        MissingExtra: it is not installed.
    """
    if hasattr(sys.modules.get("plait.mcp.client.session"), "Session"):  # whole: another thread may be at it
        return
    try:
        await WORKERS.run(_import)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in {"mcp", "mcp_types", "httpx2", "jsonschema"}:
            extra = "mcp"
            raise MissingExtra(extra, "connecting to an MCP server") from None
        raise


def _import() -> None:
    import jsonschema.validators  # type: ignore[import-untyped]  # noqa: F401 # so that it is there when the first tool is judged

    import plait.mcp.client.session  # noqa: F401
