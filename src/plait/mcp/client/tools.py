"""A tool of an MCP server as one of plait's: the same `Tool` for everything above.

Knows what the model is told and how the result arrives; who carries the call to the server is handed in.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from math import inf
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from plait.providers.base import ToolDefinition
from plait.toolbase import Tool

if TYPE_CHECKING:
    from plait.mcp.client.listing import Listed
    from plait.messages import ToolResult

Carry = Callable[["MCPTool", dict[str, Any]], Awaitable["ToolResult"]]


class MCPTool(Tool):
    """A tool of an MCP server, as it was approved; one that is approved anew is another object.

    Attributes:
        server: the server's name.
        original: the server's own name for the tool.
        parameters: the JSON Schema of its arguments.
        pin: a hash of what the server said of it when it was taken; a tool that changes is not called.
    """

    timeout = inf  # the connection bounds each call, and says what ended it

    def __init__(self, server: str, name: str, listed: Listed, carry: Carry, *, idempotent: bool) -> None:
        self.server = server
        self.name = name
        self.original = listed.name
        self.idempotent = idempotent
        self._carry = carry
        self.description = listed.description
        self.parameters = listed.parameters
        self.pin = listed.pin

    @override
    async def execute(self, /, **arguments: Any) -> ToolResult:
        """Call the tool on its server."""
        return await self._carry(self, arguments)

    @override
    def get_definition(self) -> ToolDefinition:
        """Give what the model is told."""
        return ToolDefinition(name=self.name, description=self.description, parameters=self.parameters)
