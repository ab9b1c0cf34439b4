"""A server made with the official SDK: ``python sdk_server.py stdio``, or ``streamable-http PORT`` or ``sse PORT``."""

import base64
import sys
from pathlib import Path

import anyio
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import (
    AudioContent,
    BlobResourceContents,
    CallToolResult,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
    TextResourceContents,
)
from pydantic import BaseModel

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"0" * 20).decode()
WAV = base64.b64encode(b"RIFF0000WAVE" + b"0" * 20).decode()
server = MCPServer("demo", log_level="ERROR")


class Point(BaseModel):
    x: int
    y: int


@server.tool()
def add(a: int, b: int) -> str:
    """Add two numbers."""
    return str(a + b)


@server.tool()
async def wait(seconds: float, mark: str) -> str:
    """Make a file, and wait."""
    Path(mark).touch()  # noqa: ASYNC240  # it takes no time
    await anyio.sleep(seconds)
    return "waited"


@server.tool()
def point(x: int, y: int) -> Point:
    """Make a point."""
    return Point(x=x, y=y)


@server.tool()
def fail() -> str:
    """Fail."""
    message = "the disk is full"
    raise ToolError(message)


class Name(BaseModel):
    name: str
    polite: bool = True


@server.tool()
async def greet(context: Context) -> str:
    """Greet somebody who is asked for the name."""
    answer = await context.elicit("Who are you?", Name)
    return f"{answer.action}: {answer.data if answer.action == 'accept' else None}"


@server.tool()
def everything() -> CallToolResult:
    """Give one of each."""
    return CallToolResult(
        content=[
            TextContent(type="text", text="words"),
            ImageContent(type="image", data=PNG, mime_type="image/png"),
            AudioContent(type="audio", data=WAV, mime_type="audio/wav"),
            ResourceLink(type="resource_link", name="notes", uri="file:///notes.txt", mime_type="text/plain"),
            EmbeddedResource(
                type="resource",
                resource=TextResourceContents(uri="file:///a.txt", text="inside", mime_type="text/plain"),
            ),
            EmbeddedResource(
                type="resource", resource=BlobResourceContents(uri="file:///b.png", blob=PNG, mime_type="image/png")
            ),
        ]
    )


kind = sys.argv[1]
if kind == "stdio":
    server.run("stdio")
elif kind == "streamable-http":
    server.run("streamable-http", port=int(sys.argv[2]))
else:
    server.run("sse", port=int(sys.argv[2]))
