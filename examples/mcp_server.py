"""Offer a tool to any MCP host: ``python examples/mcp_server.py`` over stdio, with a port such as 8000 over HTTP."""

from __future__ import annotations

import sys

from plait import MCPServer, PlaitError

server = MCPServer("dice", "Rolls dice.")


@server.add_tool
def roll() -> dict[str, int]:
    """Roll one die."""
    return {"roll": 6}  # a loaded die, so that this example always says the same


def main(port: str = "") -> None:
    """Serve until the host goes, or until Ctrl-C."""
    try:
        if port:
            server.run("http", port=int(port))
        else:
            server.run()
    except (PlaitError, ValueError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(*sys.argv[1:2])
