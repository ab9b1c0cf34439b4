"""The tools of MCP servers in agents and in chat clients, which connect by themselves."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

from mcp_servers import free_port, gone, listening, official, pids, raw
from plait import (
    Agent,
    AsyncMCPClient,
    AsyncOpenRouterClient,
    ConfigurationError,
    MCPClient,
    MCPConnection,
    MCPError,
    OfflineProvider,
    OpenRouterClient,
    ToolCall,
)
from plait.mcp.client.several import MCPServers

if TYPE_CHECKING:
    from pathlib import Path

    from plait import Request

ADD = {"a": 1, "b": 2}


def adding(request: Request) -> str | ToolCall:
    """Call the tool that adds, then say what it gave."""
    last = request.messages[-1]
    if last.role == "tool":
        return f"It is {last.tool_results[0].text}."
    name = next(tool.name for tool in request.tools if tool.name.endswith("add"))
    return ToolCall(id="c1", name=name, arguments=json.dumps(ADD))


def provider() -> OfflineProvider:
    return OfflineProvider(function=adding)


# --- agents -----------------------------------------------------------------------------------------------------------


async def test_an_agent_connects_with_its_first_run_and_until_it_is_closed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with Agent(role="You act.", provider="offline", mcp_servers={"raw": raw(log=str(log))}) as agent:
        assert (dict(agent.tools), pids(log)) == ({}, [])
        assert (await agent.run("Act.")).stop_reason == "response"
        assert (list(agent.tools), await agent.chat("Again.")) == (["raw_act"], "raw_act says: act done")
        (pid,) = pids(log)
    assert gone(pid)
    assert await agent.chat("Once more.") == "raw_act says: act done"  # it connects anew
    await agent.close()


async def test_all_runs_that_begin_at_once_share_one_connection(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with Agent(role="You act.", provider="offline", mcp_servers=[raw(log=str(log))]) as agent:
        assert [result.stop_reason for result in await asyncio.gather(*(agent.run("Act.") for _ in range(5)))] == [
            "response"
        ] * 5
    assert len(pids(log)) == 1


async def test_an_agent_s_own_tools_and_those_of_two_servers() -> None:
    port = free_port()

    def own() -> str:
        """Do something of one's own."""
        return "own"

    with listening("streamable-http", port):
        servers = {"there": f"http://127.0.0.1:{port}/mcp", "here": official("stdio")}
        async with Agent(role="You add.", provider=provider(), tools=[own], mcp_servers=servers) as agent:
            assert await agent.chat("Add.") == "It is 3."
            assert [
                name for name in agent.tools if not name.endswith(("wait", "point", "fail", "greet", "everything"))
            ] == [
                "own",
                "there_add",
                "here_add",
            ]


def test_a_sync_caller_s_agent() -> None:
    agent = Agent(role="You add.", provider=provider(), mcp_servers={"demo": official("stdio")})
    assert (agent.chat_sync("Add."), "".join(agent.stream_sync("Add."))) == ("It is 3.", "It is 3.")
    assert asyncio.run(agent.chat("Add.")) == "It is 3."  # in another event loop, while the first one goes on


async def test_a_server_that_is_none_fails_the_run_and_says_so() -> None:
    agent = Agent(role="You act.", provider="offline", mcp_servers={"gone": f"http://127.0.0.1:{free_port()}/mcp"})
    with pytest.raises(MCPError, match=r"the MCP server 'gone' cannot be used: .*127\.0\.0\.1"):
        await agent.chat("Act.")


@pytest.mark.fault("M01")
async def test_servers_that_open_beside_one_that_is_none_are_nobodys_task(tmp_path: Path) -> None:
    before = asyncio.all_tasks()
    servers = MCPServers({"hangs": raw(log=str(tmp_path / "log"), start="hang"), "none": [sys.executable, "-c", "0"]})
    with pytest.raises(MCPError, match="the MCP server 'none' cannot be used"):
        await servers.open()
    await servers.close()
    assert asyncio.all_tasks() == before
    assert all(map(gone, pids(tmp_path / "log")))


@pytest.mark.fault("M05")
async def test_a_name_that_is_taken_fails_every_run_and_never_leaves_the_tools_out() -> None:
    def raw_act() -> str:
        """Act."""
        return "own"

    async with Agent(provider=OfflineProvider(["one", "two"]), tools=[raw_act], mcp_servers={"raw": raw()}) as agent:
        for _ in range(2):
            with pytest.raises(ConfigurationError, match="two tools are named 'raw_act'"):
                await agent.chat("Go.")


@pytest.mark.fault("M04")
async def test_an_agent_is_told_of_a_tool_as_it_was_approved_last() -> None:
    act = {"name": "act", "description": "Act.", "inputSchema": {"type": "object"}}
    changed = {**act, "description": "Act otherwise."}
    connection = MCPConnection("raw", raw(call="change", tools=[act], later=[changed]))
    script: list[ToolCall | str] = [ToolCall(id="1", name="raw_act", arguments="{}")] * 2
    provider = OfflineProvider([*script, "One.", script[0], "Two."])
    async with Agent(provider=provider, mcp_servers=[connection]) as agent:
        assert await agent.chat("Go.") == "One."
        assert "changed the tool 'raw_act' after" in provider.requests[-1].messages[-1].tool_results[0].text
        connection.approve()
        assert await agent.chat("Go.") == "Two."
        assert [tool.description for tool in provider.requests[-1].tools] == ["Act otherwise."]
        assert provider.requests[-1].messages[-1].tool_results[0].text == "done"


async def test_a_tool_of_a_server_never_takes_the_place_of_another() -> None:
    def demo_add(a: int, b: int) -> int:
        """Add."""
        return a + b

    agent = Agent(role="You add.", provider=provider(), tools=[demo_add], mcp_servers={"demo": official("stdio")})
    with pytest.raises(ConfigurationError, match="two tools are named 'demo_add'"):
        await agent.chat("Add.")
    await agent.close()


@pytest.mark.parametrize(
    ("servers", "names"),
    [
        (["http://localhost:8000/mcp"], ["localhost_8000"]),
        ([["npx", "-y", "@modelcontextprotocol/server-everything"]], ["server-everything"]),
        ([["uvx", "mcp-server-time"], ["python", "my server.py"]], ["mcp-server-time", "my_server"]),
        ([["just-this"]], ["just-this"]),
        ([{"command": "npx", "args": ["-y", "thing"]}], ["thing"]),
        ([{"name": "mine", "command": "npx", "args": ["-y", "thing"]}], ["mine"]),
        ({"web": "http://localhost/mcp", "files": {"command": "x", "args": []}}, ["web", "files"]),
        ({"mcpServers": {"time": {"command": "uvx", "args": ["mcp-server-time"]}}}, ["time"]),
        ([MCPConnection("kept", "http://localhost/mcp")], ["kept"]),
    ],
)
def test_servers_are_named(servers: Any, names: list[str]) -> None:
    assert list(MCPServers(servers)._connections) == names  # noqa: SLF001  # the names stand before the tools'


@pytest.mark.parametrize(
    ("servers", "sentence"),
    [
        ("http://localhost/mcp", "mcp_servers takes a list of servers, or a dict of them by name, not str"),
        ([7], "an MCP server is a URL, a command as a list, a dict or an MCPConnection, not 7"),
        ([["x", "same"], ["y", "same"]], "two MCP servers are named 'same'"),
        (["nowhere"], "'nowhere' is no URL"),
        ([{"comand": "x"}], "unknown keys comand"),
    ],
)
def test_what_is_no_server_is_refused_when_the_agent_is_made(servers: Any, sentence: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Agent(role="x", provider="offline", mcp_servers=servers)
    assert sentence in str(caught.value)


# --- chat clients -----------------------------------------------------------------------------------------------------


async def test_a_client_with_an_mcp_server() -> None:
    async with AsyncMCPClient(AsyncOpenRouterClient(provider=provider())) as client:
        tools = await client.register_mcp_server("demo", official("stdio"))
        assert "demo_add" in tools
        assert (await client.chat("Add.")).choices[0].message.content == "It is 3."
        stream = await client.chat("Add.", stream=True)
        assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == "It is 3."
        assert client.get_tools()[0]["function"]["name"] == "demo_add"


async def test_a_client_s_server_ends_with_it(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with AsyncMCPClient(AsyncOpenRouterClient(provider="offline")) as client:
        await client.register_mcp_server("raw", raw(log=str(log)))
        (pid,) = pids(log)
    assert gone(pid)


async def test_what_cannot_be_registered_leaves_the_others() -> None:
    async with AsyncMCPClient(AsyncOpenRouterClient(provider=provider())) as client:
        await client.register_mcp_server("demo", official("stdio"))
        before = list(client.tools)
        with pytest.raises(ConfigurationError, match="two MCP servers are named 'demo'"):
            await client.register_mcp_server("demo", official("stdio"))
        with pytest.raises(MCPError, match="the MCP server 'gone' cannot be used"):
            await client.register_mcp_server("gone", f"http://127.0.0.1:{free_port()}/mcp")
        with pytest.raises(ConfigurationError, match="is no URL"):
            await client.register_mcp_server("wrong", "localhost:8000")
        client.register_tool("x_act", "Act", lambda: "acted")
        with pytest.raises(ConfigurationError, match="two tools are named 'x_act'"):
            await client.register_mcp_server("x", raw())
        assert list(client.tools) == [*before, "x_act"]
        assert (await client.chat("Add.")).choices[0].message.content == "It is 3."


async def test_a_connection_may_be_registered_for_what_has_no_argument(tmp_path: Path) -> None:
    log = tmp_path / "log"
    connection = MCPConnection("raw", raw(log=str(log)), prefix="plain", idempotent=True)
    async with AsyncMCPClient(AsyncOpenRouterClient(provider="offline")) as client:
        for name, token in (("other", None), ("raw", "secret")):
            with pytest.raises(ConfigurationError) as caught:
                await client.register_mcp_server(name, connection, token)
            assert str(caught.value) == (
                "this MCPConnection is named 'raw'; register it by this name, and give the token to it"
            )
        tools = await client.register_mcp_server("raw", connection)
        assert [(name, tool.idempotent) for name, tool in tools.items()] == [("plain_act", True)]
        (pid,) = pids(log)
    assert gone(pid)


def test_the_sync_client_in_every_form() -> None:
    with MCPClient(OpenRouterClient(provider=provider())) as client:
        assert "demo_add" in client.register_mcp_server("demo", official("stdio"))
        assert client.chat("Add.").choices[0].message.content == "It is 3."
        with client.chat("Add.", stream=True) as stream:
            assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "It is 3."

        async def awaited() -> str | None:  # the caller's event loop, while the session is the portal's
            completion = await client.achat("Add.")
            return completion.choices[0].message.content

        assert asyncio.run(awaited()) == "It is 3."


def test_a_sync_client_registers_in_the_caller_s_event_loop() -> None:
    async def awaited() -> list[str | None]:
        async with MCPClient(OpenRouterClient(provider=provider())) as client:
            await client.aregister_mcp_server("demo", official("stdio"))
            here = await client.achat("Add.")
            there = await asyncio.to_thread(client.chat, "Add.")  # through the portal, while the session is this loop's
            return [here.choices[0].message.content, there.choices[0].message.content]

    assert asyncio.run(awaited()) == ["It is 3.", "It is 3."]


# --- agents for hosts -------------------------------------------------------------------------------------------------

ASSISTANT = """
from plait import Agent, MCPServer
assistant = Agent(role="You repeat what you hear.", name="The Assistant", provider="offline")
MCPServer("office", tools=[assistant.as_tool(description="Ask the assistant.")]).run()
"""


async def test_an_agent_is_offered_to_hosts_as_a_tool() -> None:
    async with MCPConnection("office", [sys.executable, "-c", ASSISTANT]) as office:
        (tool,) = office.tools.values()
        definition = tool.get_definition()
        assert (definition.name, definition.description) == ("office_The_Assistant", "Ask the assistant.")
        assert list(definition.parameters["properties"]) == ["prompt"]
        assert (await tool.execute(prompt="Good morning.")).text == "You said: Good morning."
