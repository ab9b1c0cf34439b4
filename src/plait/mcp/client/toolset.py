"""The tools of one server: as they were approved, and as the server lists them now.

A tool is taken when it is first listed. From then on it is what it was: one that the server changes is not called, and
a new one is not offered, until a person approves. Knows nothing of sessions.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal

from plait.errors import ConfigurationError, ToolError, excerpt
from plait.mcp.client.listing import MAX_TOOL_NAME, Listed
from plait.mcp.client.names import plain_name, tool_names
from plait.mcp.client.tools import MCPTool

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from plait.mcp.client.tools import Carry

logger = logging.getLogger("plait.mcp")

_SHOWN: Final = 5
"""Tools that are not used of which the log tells why; `Toolset.refused` has more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MCPChange:
    """How a tool differs from what was approved.

    Attributes:
        name: the tool's name, as the model has it or would have it.
        kind: what happened to it.
        listed: what the server says of it now, for the person who approves; None for one that is gone.
    """

    name: str
    kind: Literal["changed", "new", "gone"]
    listed: Listed | None


class Toolset:
    """The tools of a server.

    Args:
        server: the server's name.
        prefix: stands before the tools' names; empty for nothing.
        idempotent: names of tools that may be called again, or True for all.
        carry: calls a tool.

    Attributes:
        tools: the approved tools by name.
        refused: the server's names of tools that cannot be used, with the reason.
    """

    def __init__(self, server: str, prefix: str, idempotent: Collection[str] | bool, carry: Carry) -> None:  # noqa: FBT001  # all or these
        self.tools: dict[str, MCPTool] = {}
        self.refused: Mapping[str, str] = {}
        self._server = server
        self._prefix = plain_name(prefix)
        self._idempotent = idempotent
        self._carry = carry
        self._offered: Mapping[str, Listed] = {}
        self._left_out = 0
        self._taken = False

    def take(self, offered: Mapping[str, Listed], refused: Mapping[str, str], *, listed: int) -> None:
        """Take what the server lists: the first time as the tools, later to compare.

        Args:
            offered: the usable tools by the server's names.
            refused: others, with the reason.
            listed: how many there were, those beyond any bound among them.
        """
        left_out = listed - len(offered)
        if left_out > 0 and (self._left_out, self.refused) != (left_out, refused):
            shown = "; ".join(f"{excerpt(name, 64)!r}: {why}" for name, why in list(refused.items())[:_SHOWN])
            said = "%d tools that the MCP server %r lists are not used%s"
            logger.warning(said, left_out, self._server, f"; {shown}" if shown else ", for there are too many")
        self._offered, self.refused, self._left_out = offered, refused, left_out
        if not self._taken:
            for original, name in tool_names(self._prefix, offered).items():
                self._add(name, offered[original])
            self._taken = bool(self.tools)
        elif changes := self.changes:
            said = "the MCP server %r changed its tools; %d of them wait for approval"
            logger.warning(said, self._server, len(changes))

    @property
    def changes(self) -> Mapping[str, MCPChange]:
        """How what the server lists now differs from the approved tools, by name."""
        found: dict[str, MCPChange] = {}
        for original, name in self._names().items():
            listed, tool = self._offered[original], self.tools.get(name)
            if tool is None or tool.pin != listed.pin:
                found[name] = MCPChange(name=name, kind="changed" if tool else "new", listed=listed)
        for tool in self.tools.values():
            if tool.original not in self._offered:
                found[tool.name] = MCPChange(name=tool.name, kind="gone", listed=None)
        return MappingProxyType(found)

    def approve(self, *which: str | MCPChange) -> None:
        """Take tools as they are listed now: those of these names, without one all of `changes`.

        Raises:
            ConfigurationError: there is no such change, or not any more.
        """
        changes = self.changes
        for given in which or tuple(changes):
            name = given if isinstance(given, str) else given.name
            change = changes.get(name)
            if change is None or (isinstance(given, MCPChange) and given != change):
                msg = f"the MCP server {self._server!r} has no such change at {excerpt(name, 64)!r} to approve"
                raise ConfigurationError(msg)
            if change.listed is None:
                del self.tools[name]
            else:
                self._add(name, change.listed)

    def check(self, tool: MCPTool) -> None:
        """Refuse a tool that is not what was approved.

        Raises:
            ToolError: it is not.
        """
        listed = self._offered.get(tool.original)
        if listed is None:
            why = self.refused.get(excerpt(tool.original, MAX_TOOL_NAME))
            what = f"cannot be used any more: {why}" if why else "is no longer offered"
            msg = f"the tool {tool.name!r} of the MCP server {self._server!r} {what}; do without it"
            raise ToolError(msg)
        current = self.tools.get(tool.name)
        if current is not None and current is not tool:
            msg = (
                f"the tool {tool.name!r} of the MCP server {self._server!r} was approved anew, and who calls it knows "
                "only what it was before; make the agent or client anew with the tools that the connection has now"
            )
            raise ToolError(msg)
        if listed.pin != tool.pin or current is None:
            msg = (
                f"the MCP server {self._server!r} changed the tool {tool.name!r} after it was approved; it is not "
                "called until a person approves it again; do without it"
            )
            raise ToolError(msg)

    def _names(self) -> dict[str, str]:
        """Give the name of each tool that is listed; one that was approved keeps its name."""
        return tool_names(self._prefix, self._offered, {tool.original: tool.name for tool in self.tools.values()})

    def _add(self, name: str, listed: Listed) -> None:
        again = self._idempotent
        idempotent = again if isinstance(again, bool) else name in again or listed.name in again
        self.tools[name] = MCPTool(self._server, name, listed, self._carry, idempotent=idempotent)
