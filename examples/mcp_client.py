"""Use the tools of an MCP server: ``python examples/mcp_client.py [--async] openrouter "Roll the dice" [URL]``.

Without a URL, ``mcp_server.py`` beside this program is started, and spoken to over stdio.
"""

from __future__ import annotations

import sys
from pathlib import Path

from command import run
from plait import AsyncMCPClient, AsyncOpenRouterClient, MCPClient, OpenRouterClient

QUESTION = "Roll a die."
SERVER = [sys.executable, str(Path(__file__).with_name("mcp_server.py"))]


def ask(provider: str = "offline", question: str = QUESTION, url: str = "") -> None:
    """Ask a model that may use the server's tools, and print their names and its answer."""
    with MCPClient(OpenRouterClient(provider=provider)) as client:
        tools = client.register_mcp_server("dice", url or SERVER)
        print(f"Tools: {', '.join(tools)}")
        completion = client.chat([{"role": "user", "content": question}])
        print(completion.choices[0].message.content)


async def ask_async(provider: str = "offline", question: str = QUESTION, url: str = "") -> None:
    """Do the same in an event loop."""
    async with AsyncMCPClient(AsyncOpenRouterClient(provider=provider)) as client:
        tools = await client.register_mcp_server("dice", url or SERVER)
        print(f"Tools: {', '.join(tools)}")
        completion = await client.chat([{"role": "user", "content": question}])
        print(completion.choices[0].message.content)


if __name__ == "__main__":
    run(ask, ask_async)
