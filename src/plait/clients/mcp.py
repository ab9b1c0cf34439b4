"""The MCP client, async and sync: a client with tools that come from MCP servers as well as from functions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from typing_extensions import override

from plait.clients.sync import ToolClient, async_form
from plait.clients.tools import AsyncToolClient
from plait.errors import ConfigurationError
from plait.mcp.client.connection import MCPConnection
from plait.mcp.client.several import MCPServers
from plait.portal import PORTAL
from plait.run import DEFAULT_LIMITS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from plait.clients.chat import AsyncOpenRouterClient
    from plait.clients.sync import OpenRouterClient
    from plait.interrupts import Secret
    from plait.mcp.client.several import MCPServerForm
    from plait.tools import Tool, Toolbox


class AsyncMCPClient(AsyncToolClient):
    """A chat client with tools of MCP servers: ``await client.register_mcp_server("files", "http://localhost:8000")``.

    Connections last until `close`, or until ``async with client:`` is left, or as long as the event loop.

    Args:
        openrouter_client, max_turns, max_tool_calls: as for `AsyncToolClient`.
    """

    __slots__ = ("_servers",)

    def __init__(
        self,
        openrouter_client: AsyncOpenRouterClient,
        *,
        max_turns: int = DEFAULT_LIMITS.max_turns,
        max_tool_calls: int = DEFAULT_LIMITS.max_tool_calls,
    ) -> None:
        super().__init__(openrouter_client, max_turns=max_turns, max_tool_calls=max_tool_calls)
        self._servers = MCPServers([])

    async def register_mcp_server(
        self, name: str, base_url: MCPServerForm, token: str | Secret | None = None
    ) -> Mapping[str, Tool]:
        """Connect to an MCP server, and offer its tools to the model.

        Args:
            name: what the server is called here; its tools' names begin with it.
            base_url: where it is (``"http://localhost:8000/mcp"``); or the command that starts it, as a list or as
                ``{"command": ..., "args": [...], "env": {...}}``; or an `MCPConnection` of this name, for all that has
                no argument here.
            token: sent as a bearer token, to this server only.

        Returns:
            The tools, by the names that the model sees.

        Raises:
            ConfigurationError: a server of this name is there already, or a tool of its would take another's name.
            PlaitError: it cannot be reached, is no MCP server, or has no tool that can be used; see `MCPConnection`.
        """
        connection = _connection(name, base_url, token)
        self._servers.add(connection)
        try:
            tools = await connection.open()
            self._renew()
        except BaseException:
            self._servers.remove(connection)
            self._renew()
            await connection.close()
            raise
        return tools

    async def close(self) -> None:
        """End the connections, and take their tools back; the servers may be registered anew."""
        servers, self._servers = self._servers, MCPServers([])
        with self._adding:
            self._toolbox = servers.without(self._toolbox)
        await servers.close()

    @override
    def _tools_now(self) -> Toolbox:
        return self._renew()

    def _renew(self) -> Toolbox:
        """Have the tools of the servers as they are approved now."""
        with self._adding, self._servers.renewed(self._toolbox) as renewed:
            self._toolbox = renewed
            return renewed

    @override
    async def __aexit__(self, *_exception: object) -> None:
        await self.close()


def _connection(name: str, server: MCPServerForm, token: str | Secret | None) -> MCPConnection:
    if not isinstance(server, MCPConnection):
        return MCPConnection(name, server, token=token)
    if server.name != name or token is not None:
        msg = f"this MCPConnection is named {server.name!r}; register it by this name, and give the token to it"
        raise ConfigurationError(msg)
    return server


class MCPClient(ToolClient):
    """A chat client with tools of MCP servers; see `AsyncMCPClient`."""

    __slots__ = ()

    _client: AsyncMCPClient

    def __init__(
        self,
        openrouter_client: OpenRouterClient,
        *,
        max_turns: int = DEFAULT_LIMITS.max_turns,
        max_tool_calls: int = DEFAULT_LIMITS.max_tool_calls,
    ) -> None:
        client = async_form(openrouter_client, type(self).__name__)
        self._client = AsyncMCPClient(client, max_turns=max_turns, max_tool_calls=max_tool_calls)

    def register_mcp_server(
        self, name: str, base_url: MCPServerForm, token: str | Secret | None = None
    ) -> Mapping[str, Tool]:
        """See `AsyncMCPClient.register_mcp_server`."""
        return PORTAL.call(lambda: self._client.register_mcp_server(name, base_url, token))

    async def aregister_mcp_server(
        self, name: str, base_url: MCPServerForm, token: str | Secret | None = None
    ) -> Mapping[str, Tool]:
        """See `AsyncMCPClient.register_mcp_server`. The session is the portal's, as for every other method here."""
        return await PORTAL.bring(lambda: self._client.register_mcp_server(name, base_url, token))

    def close(self) -> None:
        """See `AsyncMCPClient.close`."""
        PORTAL.call(self._client.close)

    def __exit__(self, *_exception: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await PORTAL.bring(self._client.close)
