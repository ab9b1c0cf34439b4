"""An MCP server of plait's, with a tool for each kind of result, for plait's own client.

Run it as ``python plait_server.py stdio`` or ``python plait_server.py PORT``.
"""

from __future__ import annotations

import asyncio
import sys

from plait import Agent, AudioPart, FilePart, ImagePart, MCPServer, OfflineProvider, RunContext, TextPart, ToolError
from plait.mcp.server.server import mcp_host

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 16
WAV = b"RIFF\x24\0\0\0WAVEfmt " + b"\0" * 24
PDF = b"%PDF-1.7\n"

server = MCPServer("plait", "Has a tool for each kind of result.", version="1.0")


@server.add_tool
def add(a: int, b: int = 1) -> int:
    """Add two numbers.

    Args:
        a: the first
        b: the second
    """
    return a + b


@server.add_tool
async def everything(context: RunContext) -> list[TextPart | ImagePart | AudioPart | FilePart]:
    """Give a part of each kind, the first naming whom it is for."""
    return [
        TextPart(text=f"for {context.user_id}: sm\N{LATIN SMALL LETTER O WITH STROKE}r"),
        ImagePart(data=PNG, media_type="image/png"),
        AudioPart(data=WAV, media_type="audio/wav"),
        FilePart(data=PDF, media_type="application/pdf", name="a b.pdf"),
        FilePart(data=b"a,b\n", media_type="text/csv", url="test://table"),
        ImagePart(url="https://example.com/a.png", media_type="image/png"),
    ]


@server.add_tool
def mapping() -> dict[str, list[int]]:
    """Give a JSON object."""
    return {"primes": [2, 3, 5]}


@server.add_tool
def wrong() -> str:
    """Go wrong in a way that the model is told of."""
    msg = "there is no such city"
    raise ToolError(msg)


@server.add_tool
def broken() -> str:
    """Go wrong in a way that nobody thought of."""
    msg = "nobody knows"
    raise LookupError(msg)


@server.add_tool
async def slow(seconds: float) -> str:
    """Take so long."""
    await asyncio.sleep(seconds)
    return "at last"


@server.add_tool
async def ask() -> str:
    """Ask the person, then the model, at the other end."""
    host = mcp_host()
    assert host is not None
    form = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer", "default": 2}}}
    told = await host.elicit("Where to?", form)
    said = await host.sample(f"Is {told.values.get('city')} nice?", max_tokens=10)
    return f"{told.action} {dict(told.values)}: {said.text}"


poet = Agent(name="poet", role="You write short poems.", provider=OfflineProvider(function=lambda _: "Rain, rain."))
server.add_tool(poet.as_tool())


if __name__ == "__main__":
    if sys.argv[1] == "stdio":
        server.run()
    else:
        server.run(transport="http", port=int(sys.argv[1]))
