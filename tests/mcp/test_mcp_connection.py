"""One MCP server and its tools, as agents use them; the servers are made with the official SDK."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from mcp_servers import call, free_port, listening, official, raw
from plait import Agent, ConfigurationError, OfflineProvider, ToolCall, tool
from plait.errors import MCPError, MissingExtra
from plait.mcp.client.connection import MCPConnection
from plait.mcp.client.results import to_result
from plait.messages import AudioPart, ImagePart, TextPart
from plait.tools import find_tools

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ALL = ["demo_add", "demo_wait", "demo_point", "demo_fail", "demo_greet", "demo_everything"]
PNG = b"\x89PNG\r\n\x1a\n" + b"0" * 20


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    port = free_port()
    with listening("streamable-http", port):
        yield port


async def person(message: str, schema: Mapping[str, Any]) -> Mapping[str, Any]:
    assert (message, sorted(schema["properties"])) == ("Who are you?", ["name", "polite"])
    return {"name": "Ada"}


def over(transport: str, port: int, **options: Any) -> MCPConnection:
    target: Any = official("stdio") if transport == "stdio" else f"http://127.0.0.1:{port}"
    return MCPConnection("demo", target, **options)


@pytest.mark.parametrize("transport", ["stdio", "http"])
async def test_every_kind_of_result_arrives(transport: str, port: int) -> None:
    async with over(transport, port, on_elicitation=person) as demo:
        assert list(demo.tools) == ALL
        assert demo.refused == {}
        definition = demo.tools["demo_add"].get_definition()
        assert (definition.name, definition.description) == ("demo_add", "Add two numbers.")
        assert definition.parameters["required"] == ["a", "b"]
        assert (await call(demo.tools, "demo_add", a=1, b=2)).text == "3"
        assert (await call(demo.tools, "demo_greet")).text == "accept: name='Ada' polite=True"
        assert '"x": 1' in (await call(demo.tools, "demo_point", x=1, y=2)).text
        failed = await call(demo.tools, "demo_fail")
        assert failed.is_error
        assert "the disk is full" in failed.text
        found = await call(demo.tools, "demo_everything")
        assert found.parts == (
            TextPart(text="words"),
            ImagePart(data=PNG, media_type="image/png"),
            AudioPart(data=b"RIFF0000WAVE" + b"0" * 20, media_type="audio/wav"),
            TextPart(text="[link to the resource notes: file:///notes.txt, text/plain]"),
            TextPart(text="[resource file:///a.txt]\ninside"),
            TextPart(text="[resource file:///b.png]"),
            ImagePart(data=PNG, media_type="image/png"),
        )


@pytest.mark.parametrize(
    ("texts", "structured", "expected"),
    [
        ([], {"x": 1, "y": [2]}, ['{"x":1,"y":[2]}']),
        (["2 rows found"], {"rows": [1, 2]}, ["2 rows found", '{"rows":[1,2]}']),
        (['{"y": [2], "x": 1}'], {"x": 1, "y": [2]}, ['{"y": [2], "x": 1}']),
        (["3"], {"result": 3}, ["3"]),
        (["three"], {"result": "three"}, ["three"]),
        (["1", "b"], {"result": [1, "b"]}, ["1", "b"]),
        ([], None, ["[no content]"]),
        (["[" * 100_000], {"a": 1}, ["[" * 100_000, '{"a":1}']),
    ],
)
def test_structured_content_is_said_where_no_text_says_it(
    texts: list[str], structured: Any, expected: list[str]
) -> None:
    content = [{"type": "text", "text": text} for text in texts]
    found = to_result("act", content, structured, 1_000_000, is_error=False)
    assert found.parts == tuple(TextPart(text=text) for text in expected)


@pytest.mark.parametrize("transport", ["stdio", "http"])
async def test_an_agent_calls_the_tools_of_a_server(transport: str, port: int) -> None:
    @tool
    def double(n: int) -> int:
        """Double a number."""
        return 2 * n

    script: list[list[ToolCall] | str] = [
        [
            ToolCall(id="1", name="demo_add", arguments='{"a": 1, "b": 2}'),
            ToolCall(id="2", name="demo_add", arguments='{"a": 1, "b": "two"}'),
            ToolCall(id="3", name="double", arguments='{"n": 4}'),
            ToolCall(id="4", name="demo_fail", arguments="{}"),
        ],
        "Done.",
    ]
    provider = OfflineProvider(script)
    async with over(transport, port) as demo:
        assert await Agent(provider=provider, tools=[*demo.tools.values(), double]).chat("Go.") == "Done."
    parts = [part for message in provider.requests[-1].messages for part in message.parts]
    results = {part.call_id: part for part in parts if part.type == "tool_result"}
    assert (results["1"].text, results["1"].is_error) == ("3", False)
    assert results["2"].text.startswith("wrong arguments for 'demo_add': 'b'")
    assert results["3"].text == "8"
    assert results["4"].is_error


async def test_a_session_that_a_run_opened_is_not_ended_with_the_run(tmp_path: Any) -> None:
    log = tmp_path / "log"
    async with MCPConnection("raw", raw(log=str(log), call="die once"), idempotent=True) as raw_server:
        for _ in range(2):  # the first call opens a new session, from within a tool call
            script: list[ToolCall | str] = [ToolCall(id="1", name="raw_act", arguments="{}"), "Done."]
            agent = Agent(provider=OfflineProvider(script), tools=[*raw_server.tools.values()])
            assert await agent.chat("Go.") == "Done."
    assert log.read_text().count("start") == 2


@pytest.mark.fault("M05")
async def test_the_same_name_at_two_servers_or_in_the_program_never_stands_before_another() -> None:
    @tool(name="raw_act")
    def act() -> str:
        """Act."""
        return "local"

    async with (
        MCPConnection("raw", raw()) as one,
        MCPConnection("raw", raw()) as same,
        MCPConnection("b", raw()) as two,
    ):
        assert list(find_tools([*one.tools.values(), *two.tools.values()])) == ["raw_act", "b_act"]
        for other in (act, same.tools["raw_act"]):
            with pytest.raises(ConfigurationError, match="two tools are named 'raw_act'"):
                find_tools([*one.tools.values(), other])


async def test_a_prefix_of_ones_own_or_none() -> None:
    async with MCPConnection("raw", raw(), prefix="") as bare, MCPConnection("raw", raw(), prefix="mine") as own:
        assert [*bare.tools, *own.tools] == ["act", "mine_act"]


async def test_concurrent_calls_share_one_session(port: int) -> None:
    async with over("http", port) as demo:
        sums = await asyncio.gather(*(call(demo.tools, "demo_add", a=n, b=n) for n in range(50)))
        assert [found.text for found in sums] == [str(2 * n) for n in range(50)]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"name": ""}, "an MCP server needs a name"),
        ({"timeout": 0}, "timeout of the MCP server 'x' must be seconds above 0, not 0"),
        ({"connect_timeout": "10"}, "connect_timeout of the MCP server 'x' must be seconds above 0, not '10'"),
    ],
)
def test_a_wrong_argument_is_one_clear_error(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        MCPConnection(**{"name": "x", "target": "http://h", **options})


@pytest.mark.fault("M09")
async def test_a_session_serves_other_event_loops_while_its_own_runs() -> None:
    async with MCPConnection("raw", raw()) as raw_server:
        tools = await asyncio.to_thread(asyncio.run, raw_server.open())
        assert (await asyncio.to_thread(asyncio.run, call(tools, "raw_act"))).text == "act done"
        assert (await call(tools, "raw_act")).text == "act done"
        await asyncio.to_thread(asyncio.run, raw_server.close())
        assert (await raw_server.open()).keys() == {"raw_act"}


@pytest.mark.fault("M09")
def test_a_session_whose_event_loop_stands_still_is_not_taken_by_another() -> None:
    raw_server = MCPConnection("raw", raw())
    with asyncio.Runner() as runner:
        runner.run(raw_server.open())
        with pytest.raises(
            MCPError, match=r"is open on another event loop, and its event loop does not run: .*close it there"
        ):
            asyncio.run(raw_server.open())
        assert runner.run(call(raw_server.tools, "raw_act")).text == "act done"
        runner.run(raw_server.close())


@pytest.mark.fault("M09")
def test_a_program_that_ends_with_an_open_session_ends_silently(port: int) -> None:
    program = f"""
import asyncio
from plait.mcp.client.connection import MCPConnection

async def main():
    tools = await MCPConnection("demo", "http://127.0.0.1:{port}").open()
    print((await tools["demo_add"].execute(a=1, b=2)).text)

asyncio.run(main(), debug=True)
"""
    command = [sys.executable, "-W", "default", "-c", program]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (ran.stdout, ran.stderr) == ("3\n", "")


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1", "ftp://127.0.0.1:1"])
async def test_a_proxy_that_is_none_is_one_clear_error(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", proxy)
    said = (
        "the MCP server 'web' cannot be used: the proxy that http_proxy names cannot be used: only http:// and "
        "https:// are known; name another, or none for this server: no_proxy=example.invalid"
    )
    with pytest.raises(MCPError) as caught:
        await MCPConnection("web", "http://example.invalid/mcp").open()
    assert str(caught.value) == said


def test_the_sdk_is_not_imported_before_a_connection_is_opened() -> None:
    program = """
import sys
from plait.mcp.client.connection import MCPConnection
made = [MCPConnection(f"s{n}", "http://127.0.0.1:1") for n in range(1000)]
print(sorted({name.partition(".")[0] for name in sys.modules} & {"mcp", "mcp_types", "httpx2", "jsonschema", "anyio"}))
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


def test_without_the_sdk_the_extra_is_named() -> None:
    program = """
import asyncio, sys
sys.modules["mcp"] = None
from plait.errors import MissingExtra
from plait.mcp.client.connection import MCPConnection
try:
    asyncio.run(MCPConnection("x", "http://127.0.0.1:1").open())
except MissingExtra as error:
    print(error)
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout == f"{MissingExtra('mcp', 'connecting to an MCP server')}\n"
