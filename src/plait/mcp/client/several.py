"""The MCP servers of an agent or a client, in every form that people name them; connected when first needed."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from plait.errors import ConfigurationError, excerpt
from plait.mcp.client.connection import MCPConnection
from plait.toolbase import Toolbox

if TYPE_CHECKING:
    from plait.toolbase import Tool

MCPServerForm = MCPConnection | str | Sequence[str] | Mapping[str, Any]
"""A connection; a URL; a command as a list; or an entry of the usual ``mcpServers`` JSON, with or without a name."""


class MCPServers:
    """Several MCP servers.

    Args:
        servers: a list of them, or a mapping of names to them, as in the usual ``mcpServers`` JSON. One without a name
            gets that of its host or program.

    Raises:
        ConfigurationError: one of them is no server, or two have the same name.
    """

    __slots__ = ("_connections", "_given", "_opened")

    def __init__(self, servers: Sequence[MCPServerForm] | Mapping[str, MCPServerForm]) -> None:
        if isinstance(servers, str) or not isinstance(servers, Sequence | Mapping):
            msg = f"mcp_servers takes a list of servers, or a dict of them by name, not {type(servers).__name__}"
            raise ConfigurationError(msg)
        if isinstance(servers, Mapping) and set(servers) == {"mcpServers"}:  # a whole file of the usual form
            servers = cast("Mapping[str, MCPServerForm]", servers["mcpServers"])
        named = servers.items() if isinstance(servers, Mapping) else ((None, server) for server in servers)
        self._connections: dict[str, MCPConnection] = {}
        self._opened = False
        self._given: list[Tool] = []
        for name, server in named:
            self.add(_connection(name, server))

    def add(self, connection: MCPConnection) -> None:
        """Take one more.

        Raises:
            ConfigurationError: one has this name already.
        """
        if self._connections.setdefault(connection.name, connection) is not connection:
            msg = f"two MCP servers are named {connection.name!r}; give one of them another name"
            raise ConfigurationError(msg)

    def remove(self, connection: MCPConnection) -> None:
        """Take one out; its session is not touched."""
        self._connections.pop(connection.name, None)

    async def open(self) -> None:
        """Open all connections, the first time; later nothing, for the tools connect by themselves when called.

        Raises:
            MCPError: a server cannot be reached, or has no usable tool.
        """
        if self._opened:
            return
        try:
            async with asyncio.TaskGroup() as opening:
                for connection in self._connections.values():
                    opening.create_task(connection.open())
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        self._opened = True

    @contextmanager
    def renewed(self, toolbox: Toolbox) -> Iterator[Toolbox]:
        """Give a toolbox with the tools as they are approved now, in place of those that it got here before.

        The toolbox counts as taken when the block was not left by an error.

        Raises:
            ConfigurationError: two tools have the same name.
        """
        tools = [tool for connection in self._connections.values() for tool in connection.tools.values()]
        yield toolbox if tools == self._given else self.without(toolbox).joined(tools)
        self._given = tools

    def without(self, toolbox: Toolbox) -> Toolbox:
        """Give a toolbox without the tools that it got here."""
        return Toolbox.of({name: tool for name, tool in toolbox.tools.items() if tool not in self._given})

    async def close(self) -> None:
        """End the connections, and the servers that were started here."""
        self._opened = False
        closing = (connection.close() for connection in self._connections.values())
        outcomes = await asyncio.gather(*closing, return_exceptions=True)  # each is closed, whatever another raises
        for error in outcomes:
            if error is not None:
                raise error


def _connection(name: str | None, server: MCPServerForm) -> MCPConnection:
    if isinstance(server, MCPConnection):
        return server
    target: Any = server
    if isinstance(server, Mapping) and "name" in server:
        target = {key: value for key, value in server.items() if key != "name"}
        name = name or server["name"]
    return MCPConnection(name or _name_of(target), target)


def _name_of(target: Any) -> str:
    """Name a server by its host, or by the program that is run."""
    if isinstance(target, Mapping):
        command = [target.get("command"), *(target.get("args") or ())]
        return _name_of(target.get("url", command))
    if isinstance(target, str):
        try:
            said = urlsplit(target).netloc.rpartition("@")[2]
        except ValueError:
            said = ""
    elif isinstance(target, Sequence):
        program, *arguments = [str(word) for word in target] or [""]
        said = PurePath(next((word for word in arguments if not word.startswith("-")), program)).stem
    else:
        msg = (
            f"an MCP server is a URL, a command as a list, a dict or an MCPConnection, not {excerpt(repr(target), 60)}"
        )
        raise ConfigurationError(msg)
    return re.sub(r"[^a-zA-Z0-9_-]+", "_", said).strip("_") or "mcp"
