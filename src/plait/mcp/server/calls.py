"""Carrying out what MCP hosts ask for, through plait's one executor: many calls at once, exclusive ones alone.

Each call has a task of its own, which anyio's scopes (the SDK's) cannot reach into: a scope that is cancelled
cancels its task over and over, and a tool that cleans up would never get to it. Knows nothing of the protocol.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import anyio

from plait.errands import Errands
from plait.errors import ToolError
from plait.executor import error_result, execute
from plait.ids import new_id
from plait.mcp.server.host import HOST
from plait.messages import ToolCall

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from plait.mcp.server.host import MCPHost
    from plait.messages import ToolResult
    from plait.run import RunContext
    from plait.toolbase import Tool

MAX_WAITING: Final = 1000
"""Calls that wait for their turn; one more is refused."""


class Calls:
    """The calls of all hosts of one server.

    Args:
        context: what tools receive that ask for it; each call gets its own ``run_id``.
        at_once: how many run at the same time.
    """

    def __init__(self, context: RunContext[Any], at_once: int) -> None:
        self._context = context
        self._turns = Turns(at_once)

    async def carry_out(
        self, tool: Tool, arguments: str, host: MCPHost, thread_id: str, enough: asyncio.Future[Any] | None = None
    ) -> ToolResult | None:
        """Carry out one call. When this is cancelled, the tool is, and has ended when this ends.

        Args:
            tool: what to call.
            arguments: a JSON object.
            host: who called.
            thread_id: what stands for the host's connection.
            enough: when this is done, the tool is cancelled.

        Returns:
            The result; None when there was enough before there was one.
        """
        call = ToolCall(id=new_id("call"), name=tool.name, arguments=arguments)
        task = asyncio.get_running_loop().create_task(
            self._carry_out(call, tool, host, thread_id), name=f"plait: MCP call of {tool.name}"
        )
        try:
            await asyncio.wait((task,) if enough is None else (task, enough), return_when=asyncio.FIRST_COMPLETED)
            return task.result() if task.done() else None
        finally:
            if not task.done():
                task.cancel()
                with anyio.CancelScope(shield=True):
                    await asyncio.wait((task,))

    async def _carry_out(self, call: ToolCall, tool: Tool, host: MCPHost, thread_id: str) -> ToolResult:
        HOST.set(host)
        context = replace(self._context, run_id=new_id("run"), thread_id=thread_id)
        try:
            async with self._turns.take(alone=tool.exclusive):
                errands = Errands()
                try:
                    async with aclosing(execute([call], {tool.name: tool}, context, errands)) as batches:
                        return (await anext(batches))[0].result
                finally:
                    await errands.end()
        except ToolError as error:  # there was no turn for it
            return error_result(call, str(error))


class Turns:
    """Lets so many in at once, and one that must be alone only alone; who came first goes first."""

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._inside = 0
        self._alone = False
        self._waiting: deque[tuple[asyncio.Future[None], bool]] = deque()

    @asynccontextmanager
    async def take(self, *, alone: bool = False) -> AsyncIterator[None]:
        """Wait for a turn, and have it while inside.

        Raises:
            ToolError: too many wait.
        """
        await self._enter(alone)
        try:
            yield
        finally:
            self._leave()

    async def _enter(self, alone: bool) -> None:  # noqa: FBT001  # the one caller is above
        if len(self._waiting) >= MAX_WAITING:
            msg = f"the server is busy: {MAX_WAITING:,} calls wait for their turn; try again later"
            raise ToolError(msg)
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((turn, alone))
        self._let_in()
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # let in, and cancelled before it noticed
                self._leave()
            raise

    def _leave(self) -> None:
        self._inside -= 1
        self._alone = False
        self._let_in()

    def _let_in(self) -> None:
        while self._waiting and not self._alone and self._inside < self._at_once:
            turn, alone = self._waiting[0]
            if alone and self._inside and not turn.cancelled():
                return
            self._waiting.popleft()
            if not turn.cancelled():
                self._inside += 1
                self._alone = alone
                turn.set_result(None)
