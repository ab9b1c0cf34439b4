"""Carrying out what MCP hosts ask for, through plait's one executor: many calls at once, exclusive ones alone.

Each call has a task of its own, which anyio's scopes (the SDK's) cannot reach into: a scope that is cancelled
cancels its task over and over, and a tool that cleans up would never get to it. Knows nothing of the protocol.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio

from plait.errands import Errands
from plait.errors import ToolError
from plait.executor import error_result, execute
from plait.ids import new_id
from plait.mcp.server.host import HOST
from plait.mcp.server.turns import Turns
from plait.messages import ToolCall

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from plait.mcp.server.host import MCPHost
    from plait.mcp.server.turns import Turn
    from plait.messages import ToolResult
    from plait.run import RunContext
    from plait.toolbase import Tool


class Calls:
    """The calls of all hosts of one server.

    Args:
        context: what tools receive that ask for it; each call gets its own ``run_id``.
        at_once: how many tools run at the same time; and as many prompts and resources are read meanwhile.
        shared: whether several hosts may come, see `Turns`.

    Attributes:
        tools: the turns of tools.
        readings: the turns of prompts and resources, which no exclusive tool holds up.
    """

    def __init__(self, context: RunContext[Any], at_once: int, *, shared: bool) -> None:
        self._context = context
        self.tools = Turns(at_once, shared=shared)
        self.readings = Turns(at_once, shared=shared)

    async def carry_out(  # noqa: PLR0917  # each says another thing of the one call
        self,
        tool: Tool,
        arguments: str,
        host: MCPHost,
        thread_id: str,
        turn: AbstractAsyncContextManager[Turn],
        enough: asyncio.Future[Any] | None = None,
    ) -> ToolResult | None:
        """Carry out one call. When this is cancelled, the tool is, and has ended when this ends.

        Args:
            tool: what to call.
            arguments: a JSON object.
            host: who called.
            thread_id: what stands for the host's connection.
            turn: what to wait for before it begins, and to have until it has ended.
            enough: when this is done, the tool is cancelled.

        Returns:
            The result; None when there was enough before there was one.
        """
        call = ToolCall(id=new_id("call"), name=tool.name, arguments=arguments)
        task = asyncio.get_running_loop().create_task(
            self._carry_out(call, tool, host, thread_id, turn), name=f"plait: MCP call of {tool.name}"
        )
        try:
            await asyncio.wait((task,) if enough is None else (task, enough), return_when=asyncio.FIRST_COMPLETED)
            return task.result() if task.done() else None
        finally:
            if not task.done():
                task.cancel()
                with anyio.CancelScope(shield=True):
                    await asyncio.wait((task,))

    async def _carry_out(
        self, call: ToolCall, tool: Tool, host: MCPHost, thread_id: str, turn: AbstractAsyncContextManager[Turn]
    ) -> ToolResult:
        HOST.set(host)
        context = replace(self._context, run_id=new_id("run"), thread_id=thread_id)
        try:
            async with turn as host.turn:
                errands = Errands()
                try:
                    async with aclosing(execute([call], {tool.name: tool}, context, errands)) as batches:
                        return (await anext(batches))[0].result
                finally:
                    await errands.end()
        except ToolError as error:  # there was no turn for it
            return error_result(call, str(error))
