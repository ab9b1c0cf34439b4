"""Hosts of the Model Context Protocol, and tools for them: what the tests of `MCPServer` share."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Literal

import mcp_types as types
from mcp import Client

from plait import Message
from plait.mcp.server.server import MCPServer, mcp_host

if TYPE_CHECKING:
    from collections.abc import Callable

TIMEOUT = 20.0
Mode = Literal["legacy", "auto"]
MODES: list[Mode] = ["legacy", "auto"]  # protocol versions up to 2025-11-25, with a handshake; and from 2026-07-28 on


def client_of(server: MCPServer, mode: Mode = "legacy", **options: Any) -> Client:
    return Client(server.sdk_server(), mode=mode, read_timeout_seconds=TIMEOUT, **options)


def text(result: types.CallToolResult) -> str:
    return "".join(block.text for block in result.content if isinstance(block, types.TextContent))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(TIMEOUT):
        while not condition():  # noqa: ASYNC110  # of another process, or in the middle of a tool
            await asyncio.sleep(0.01)


def add(first: int, second: int = 2) -> int:
    """Add two numbers.

    Args:
        first: the first number.
        second: the second.
    """
    return first + second


class Meeting:
    """Tools that wait inside, for tests that look at who is in."""

    def __init__(self) -> None:
        self.inside = 0
        self.most = 0
        self.ended: list[str] = []
        self.go = asyncio.Event()

    async def wait(self, name: str) -> str:
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            await self.go.wait()
        finally:
            self.inside -= 1
            self.ended.append(name)
        return name


async def greet() -> str:
    host = mcp_host()
    assert host is not None
    form = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
    first = await host.elicit("Who are you?", form)
    if first.action != "accept":
        return first.action
    answer = await host.sample([Message(text=f"Greet {first.values['name']}")], system="Be kind.", max_tokens=9)
    return f"{host.name}, {answer.model}: {answer.text}"


def a_person(**filled_in: str) -> Callable[..., Any]:
    async def fill_in(_: object, params: types.ElicitRequestParams) -> types.ElicitResult:
        assert isinstance(params, types.ElicitRequestFormParams)
        assert params.message == "Who are you?"
        return types.ElicitResult(action="accept", content=dict(filled_in))

    return fill_in


async def a_model(_: object, params: types.CreateMessageRequestParams) -> types.CreateMessageResult:
    assert (params.system_prompt, params.max_tokens) == ("Be kind.", 9)
    (message,) = params.messages
    assert isinstance(message.content, types.TextContent)
    said = types.TextContent(text=f"<{message.content.text}>")
    return types.CreateMessageResult(role="assistant", content=said, model="m-1")
