"""plait's MCP client with servers written by others, over each transport and an older protocol, and with its own."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import sys
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from foreign import PATIENCE, free_port, listening
from plait import (
    Agent,
    AudioPart,
    FilePart,
    ImagePart,
    MCPClient,
    MCPConnection,
    OfflineProvider,
    OpenRouterClient,
    TextPart,
    ToolCall,
    ToolError,
    ToolResult,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from foreign import Foreign
    from plait.messages import ContentPart

HERE = Path(__file__).parent

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 16
WAV = b"RIFF\x24\0\0\0WAVEfmt " + b"\0" * 24
PDF = b"%PDF-1.7\n"
"""What plait_server.py gives."""

NINE_IN_TOKYO = {"source_timezone": "Asia/Tokyo", "time": "09:30", "target_timezone": "UTC"}

EVERYTHING = (
    "echo",
    "get-annotated-message",
    "get-env",
    "get-resource-links",
    "get-resource-reference",
    "get-structured-content",
    "get-sum",
    "get-tiny-image",
    "gzip-file-as-resource",
    "toggle-simulated-logging",
    "toggle-subscriber-updates",
    "trigger-long-running-operation",
)

Target = str | list[str]


def texts(*said: str) -> tuple[ContentPart, ...]:
    return tuple(TextPart(text=text) for text in said)


async def call(connection: MCPConnection, name: str, /, **arguments: Any) -> tuple[ContentPart, ...]:
    """Call a tool that succeeds; give what a model gets."""
    result = await connection.tools[f"{connection.name}_{name}"].execute(**arguments)
    assert isinstance(result, ToolResult)
    assert not result.is_error, result.text
    return tuple(result.parts)


async def error(connection: MCPConnection, name: str, /, **arguments: Any) -> str:
    """Call a tool that says that it failed; give what it says."""
    result = await connection.tools[f"{connection.name}_{name}"].execute(**arguments)
    assert isinstance(result, ToolResult)
    assert result == ToolResult(call_id="", name=f"{connection.name}_{name}", parts=result.parts, is_error=True)
    return result.text


# --- the protocol's own server, which has a bit of everything


@pytest.fixture(scope="module")
def everything_http(others: Foreign, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = free_port()
    log = tmp_path_factory.mktemp("everything") / "log"
    with listening([*others.everything, "streamableHttp"], port, log, {"PORT": str(port)}):
        yield f"http://127.0.0.1:{port}/mcp"


@pytest.fixture(scope="module")
def everything_sse(others: Foreign, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = free_port()
    log = tmp_path_factory.mktemp("everything") / "log"
    with listening([*others.everything, "sse"], port, log, {"PORT": str(port)}):
        yield f"http://127.0.0.1:{port}/sse"


@pytest.fixture(params=["stdio", "http", "sse"])
def everything(request: pytest.FixtureRequest, others: Foreign) -> Target:
    """Where the server is, once for each transport."""
    if request.param == "stdio":
        return [*others.everything, "stdio"]
    url: str = request.getfixturevalue(f"everything_{request.param}")
    return url


@pytest.fixture(scope="session")
def picture(others: Foreign) -> ImagePart:
    """The picture that the server gives, from its source."""
    source = (Path(others.everything[-1]).parent / "tools" / "get-tiny-image.js").read_text("utf-8")
    found = re.search(r'"(iVBORw0KGgo[^"]+)"', source)
    assert found
    return ImagePart(data=base64.b64decode(found[1]), media_type="image/png")


async def test_every_tool_is_listed(everything: Target) -> None:
    async with MCPConnection("all", everything) as connection:
        assert tuple(connection.tools) == tuple(f"all_{name}" for name in EVERYTHING)
        assert connection.refused == {
            "simulate-research-query": "it can be called only as a task, which is not done here"
        }
        definition = connection.tools["all_get-sum"].get_definition()
    assert (definition.name, definition.description) == ("all_get-sum", "Returns the sum of two numbers")
    assert definition.parameters["properties"] == {
        "a": {"type": "number", "description": "First number"},
        "b": {"type": "number", "description": "Second number"},
    }
    assert definition.parameters["required"] == ["a", "b"]


@pytest.mark.fault("M07")
async def test_every_kind_of_content_arrives(everything: Target, picture: ImagePart) -> None:
    async with MCPConnection("all", everything) as connection:
        assert await call(connection, "echo", message="sm\N{LATIN SMALL LETTER O WITH STROKE}r\n\0") == texts(
            "Echo: sm\N{LATIN SMALL LETTER O WITH STROKE}r\n\0"
        )
        assert await call(connection, "get-sum", a=1, b=2.5) == texts("The sum of 1 and 2.5 is 3.5.")
        assert await call(connection, "get-tiny-image") == (
            TextPart(text="Here's the image you requested:"),
            picture,
            TextPart(text="The image above is the MCP logo."),
        )
        assert await call(connection, "get-structured-content", location="Chicago") == texts(
            '{"temperature":36,"conditions":"Light rain / drizzle","humidity":82}'
        )
        assert await call(connection, "get-annotated-message", messageType="success", includeImage=True) == (
            TextPart(text="Operation completed successfully"),
            picture,
        )
        assert await call(connection, "get-resource-links", count=2) == texts(
            "Here are 2 resource links to resources available in this server:",
            "[link to the resource Blob Resource 1: demo://resource/dynamic/blob/1, text/plain, "
            "Resource 1: plaintext resource]",
            "[link to the resource Text Resource 2: demo://resource/dynamic/text/2, text/plain, "
            "Resource 2: plaintext resource]",
        )
        assert await call(connection, "gzip-file-as-resource", name="a.gz", data="data:text/plain,hello") == texts(
            "[link to the resource a.gz: demo://resource/session/a.gz, application/gzip]"
        )


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("Text", ["[resource URI]\nResource 7: This is a plaintext resource created at TIME"]),
        ("Blob", ["[resource URI]", "Resource 7: This is a base64 blob created at TIME"]),
    ],
)
async def test_embedded_resources_arrive(everything: Target, kind: str, said: list[str]) -> None:
    async with MCPConnection("all", everything) as connection:
        parts = await call(connection, "get-resource-reference", resourceType=kind, resourceId=7)
    got = [re.sub(r"\d+:\d\d:\d\d.[AP]M$", "TIME", part.text) for part in parts if isinstance(part, TextPart)]
    assert len(got) == len(parts)
    assert [text.replace(f"demo://resource/dynamic/{kind.lower()}/7", "URI") for text in got] == [
        "Returning resource reference for Resource 7:",
        *said,
        "You can access this resource using the URI: URI",
    ]


async def test_what_a_server_says_of_a_wrong_call_is_an_error_for_the_model(everything: Target) -> None:
    async with MCPConnection("all", everything) as connection:
        assert await error(connection, "get-resource-reference", resourceId=-1) == (
            "Invalid resourceId: -1. Must be a finite positive integer."
        )
        assert await error(connection, "echo") == (
            "MCP error -32602: Input validation error: Invalid arguments for tool echo: "
            "Invalid input: expected string, received undefined at message"
        )
        assert await call(connection, "echo", message="still here") == texts("Echo: still here")


@pytest.mark.fault("M02")
async def test_a_long_call_ends_well_or_in_time(everything: Target) -> None:
    async with MCPConnection("all", everything, timeout=1.5) as connection:
        assert await call(connection, "trigger-long-running-operation", duration=0.4, steps=2) == texts(
            "Long running operation completed. Duration: 0.4 seconds, Steps: 2."
        )
        with pytest.raises(ToolError) as late:
            await call(connection, "trigger-long-running-operation", duration=100, steps=10)
        assert str(late.value) == (
            "the MCP server 'all' gave no answer to the call of 'all_trigger-long-running-operation' "
            "within 1.5 seconds; it was told to stop"
        )
        assert await call(connection, "echo", message="next") == texts("Echo: next")


@pytest.mark.fault("M13")
async def test_a_server_asks_the_person_and_the_model(everything: Target) -> None:
    asked: list[Any] = []

    async def person(message: str, schema: Mapping[str, Any]) -> Mapping[str, Any] | None:
        asked.append((message, sorted(schema["properties"])[:3], schema["required"]))
        return {"name": "Ada"} if len(asked) == 1 else None

    async def model(wanted: Mapping[str, Any]) -> str | None:
        asked.append(dict(wanted))
        return "forty-two" if len(asked) == 3 else None

    async with MCPConnection("all", everything, on_elicitation=person, on_sampling=model) as connection:
        assert {name for name in connection.tools if name.removeprefix("all_") not in EVERYTHING} == {
            "all_trigger-elicitation-request",
            "all_trigger-sampling-request",
            "all_trigger-url-elicitation",
        }
        _, inputs, raw = await call(connection, "trigger-elicitation-request")
        assert inputs == TextPart(text="User inputs:\n- Name: Ada\n- Favorite Integer: 42\n- Favorite Number: 3.14")
        assert isinstance(raw, TextPart)
        assert json.loads(raw.text.partition(":")[2]) == {
            "action": "accept",
            "content": {
                "name": "Ada",
                "firstLine": "It was a dark and stormy night.",
                "integer": 42,
                "number": 3.14,
                "untitledSingleSelectEnum": "Monica",
                "untitledMultipleSelectEnum": ["Guitar"],
                "titledSingleSelectEnum": "hero-1",
                "titledMultipleSelectEnum": ["fish-1"],
                "legacyTitledEnum": "pet-1",
            },
        }
        declined = await call(connection, "trigger-elicitation-request")
        assert declined[-1] == TextPart(text='\nRaw result: {\n  "action": "decline"\n}')
        (answer,) = await call(connection, "trigger-sampling-request", prompt="What is it?")
        assert isinstance(answer, TextPart)
        assert json.loads(answer.text.partition(":")[2]) == {
            "model": "unknown",
            "stopReason": "endTurn",
            "role": "assistant",
            "content": {"type": "text", "text": "forty-two"},
        }
        assert await error(connection, "trigger-sampling-request", prompt="Again?") == "MCP error -32600: declined"
    question = ("Please provide inputs for the following fields:", ["birthdate", "check", "email"], ["name"])
    text = {"type": "text", "text": "Resource trigger-sampling-request context: What is it?"}
    again = {"type": "text", "text": "Resource trigger-sampling-request context: Again?"}
    request = {"systemPrompt": "You are a helpful test server.", "maxTokens": 100, "temperature": 0.7}
    assert asked == [
        question,
        question,
        {"messages": [{"role": "user", "content": text}], **request},
        {"messages": [{"role": "user", "content": again}], **request},
    ]


async def test_an_agent_uses_the_tools_as_its_own(everything: Target, picture: ImagePart) -> None:
    calls = [
        ToolCall(id="1", name="all_echo", arguments='{"message": "hi"}'),
        ToolCall(id="2", name="all_get-tiny-image", arguments="{}"),
        ToolCall(id="3", name="all_get-sum", arguments='{"a": 1}'),
    ]
    provider = OfflineProvider([calls, "done"])
    async with Agent(provider=provider, mcp_servers={"all": everything}) as agent:
        assert await agent.chat("go") == "done"
    assert [tool.name for tool in provider.requests[0].tools] == [f"all_{name}" for name in EVERYTHING]
    echo, image, wrong = provider.requests[1].messages[-1].tool_results
    assert echo == ToolResult(call_id="1", name="all_echo", text="Echo: hi")
    assert image == ToolResult(
        call_id="2",
        name="all_get-tiny-image",
        parts=(
            TextPart(text="Here's the image you requested:"),
            picture,
            TextPart(text="The image above is the MCP logo."),
        ),
    )
    assert wrong == ToolResult(
        call_id="3", name="all_get-sum", text="wrong arguments for 'all_get-sum': 'b' is missing", is_error=True
    )


def test_a_sync_chat_client_with_servers_of_three_sdks(others: Foreign, everything_http: str, tmp_path: Path) -> None:
    calls = [
        ToolCall(id="1", name="js_get-sum", arguments='{"a": 2, "b": 3}'),
        ToolCall(id="2", name="clock_convert_time", arguments=json.dumps(NINE_IN_TOKYO)),
        ToolCall(id="3", name="db_list_tables", arguments="{}"),
    ]
    provider = OfflineProvider([calls, "done"])
    with MCPClient(OpenRouterClient(provider=provider)) as client:
        client.register_mcp_server("js", everything_http)
        client.register_mcp_server("clock", others.time)
        client.register_mcp_server("db", [*others.sqlite, "--db-path", str(tmp_path / "a.db")])
        assert client.chat("go").choices[0].message.content == "done"
    added, time, tables = provider.requests[1].messages[-1].tool_results
    assert added == ToolResult(call_id="1", name="js_get-sum", text="The sum of 2 and 3 is 5.")
    assert json.loads(time.text)["time_difference"] == "-9.0h"
    assert tables == ToolResult(call_id="3", name="db_list_tables", text="[]")


async def test_a_server_gets_nothing_of_the_environment(others: Foreign, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    target = {"command": others.everything[0], "args": [*others.everything[1:], "stdio"], "env": {"GIVEN": "yes"}}
    async with MCPConnection("all", target) as connection:
        (part,) = await call(connection, "get-env")
    assert isinstance(part, TextPart)
    environment = json.loads(part.text)
    assert environment["GIVEN"] == "yes"
    assert set(environment) <= {"GIVEN", "HOME", "LOGNAME", "PATH", "SHELL", "TERM", "USER"}


# --- servers of the Python SDK, today's and an older one


async def test_the_time_server(others: Foreign) -> None:
    async with MCPConnection("time", others.time) as connection:
        assert tuple(connection.tools) == ("time_get_current_time", "time_convert_time")
        (part,) = await call(connection, "convert_time", **NINE_IN_TOKYO)
        assert isinstance(part, TextPart)
        told = json.loads(part.text)
        day = re.compile(r"^\d{4}-\d\d-\d\dT")
        assert day.sub("", told["source"]["datetime"]) == "09:30:00+09:00"
        assert day.sub("", told["target"]["datetime"]) == "00:30:00+00:00"
        assert (told["source"]["timezone"], told["target"]["timezone"]) == ("Asia/Tokyo", "UTC")
        assert told["time_difference"] == "-9.0h"
        said = await error(connection, "get_current_time", timezone="Nowhere/None")
        assert said == (
            "Error executing tool get_current_time: Invalid timezone: 'No time zone found with key Nowhere/None'"
        )


async def protocol_of(command: list[str]) -> str:
    """Ask a server for a session in the name of a newer protocol; give the one that it speaks instead."""
    params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "0"}}
    line = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}) + "\n"
    process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE)
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(line.encode())
        async with asyncio.timeout(PATIENCE):
            answer = json.loads(await process.stdout.readline())
    finally:
        process.kill()
        await process.communicate()
    return str(answer["result"]["protocolVersion"])


async def test_a_server_of_an_older_protocol(others: Foreign, tmp_path: Path) -> None:
    target = [*others.sqlite, "--db-path", str(tmp_path / "a.db")]
    assert await protocol_of(target) == "2024-11-05"
    async with MCPConnection("db", target) as connection:
        assert tuple(connection.tools) == (
            "db_read_query",
            "db_write_query",
            "db_create_table",
            "db_list_tables",
            "db_describe_table",
            "db_append_insight",
        )
        assert await call(connection, "create_table", query="CREATE TABLE a (b TEXT)") == texts(
            "Table created successfully"
        )
        assert await call(connection, "write_query", query="INSERT INTO a VALUES ('\N{SNOWMAN}'), (NULL)") == texts(
            "[{'affected_rows': 2}]"
        )
        assert await call(connection, "read_query", query="SELECT b FROM a") == texts(
            "[{'b': '\N{SNOWMAN}'}, {'b': None}]"
        )
        assert await call(connection, "read_query", query="DROP TABLE a") == texts(
            "Error: Only SELECT queries are allowed for read_query"
        )
        assert await call(connection, "list_tables") == texts("[{'name': 'a'}]")
    async with MCPConnection("db", target) as connection:  # what was written is there for a new process
        assert await call(connection, "list_tables") == texts("[{'name': 'a'}]")


# --- plait's own server


@pytest.fixture(scope="module")
def own_http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = free_port()
    log = tmp_path_factory.mktemp("own") / "log"
    with listening([sys.executable, str(HERE / "plait_server.py"), str(port)], port, log):
        yield f"http://127.0.0.1:{port}/mcp"


@pytest.fixture(params=["stdio", "http"])
def own(request: pytest.FixtureRequest) -> Target:
    """Where the server is, once for each transport."""
    if request.param == "stdio":
        return [sys.executable, str(HERE / "plait_server.py"), "stdio"]
    url: str = request.getfixturevalue("own_http")
    return url


async def test_the_tools_of_plaits_server(own: Target) -> None:
    async with MCPConnection("own", own) as connection:
        names = ("add", "everything", "mapping", "wrong", "broken", "slow", "ask", "poet")
        assert tuple(connection.tools) == tuple(f"own_{name}" for name in names)
        definition = connection.tools["own_add"].get_definition()
        assert definition.description == "Add two numbers."
        assert definition.parameters["properties"]["a"] == {"type": "integer", "description": "the first"}
        assert definition.parameters["required"] == ["a"]  # what has a default may be left out
        assert await call(connection, "add", a=1) == texts("2")


async def test_results_of_plaits_server(own: Target) -> None:
    async with MCPConnection("own", own) as connection:
        assert await call(connection, "add", a=2, b=40) == texts("42")
        assert await call(connection, "mapping") == texts('{"primes":[2,3,5]}')
        assert await call(connection, "poet", prompt="Rain.") == texts("Rain, rain.")
        assert await call(connection, "everything") == (
            TextPart(text="for default: sm\N{LATIN SMALL LETTER O WITH STROKE}r"),
            ImagePart(data=PNG, media_type="image/png"),
            AudioPart(data=WAV, media_type="audio/wav"),
            TextPart(text="[resource attachment:a%20b.pdf]"),
            FilePart(data=PDF, media_type="application/pdf"),
            TextPart(text="[resource test://table]\na,b\n"),
            TextPart(text="[link to the resource image: https://example.com/a.png, image/png]"),
        )


async def test_errors_of_plaits_server(own: Target) -> None:
    async with MCPConnection("own", own, timeout=1.5) as connection:
        assert await error(connection, "wrong") == "there is no such city"
        assert await error(connection, "broken") == "LookupError: nobody knows"
        assert await error(connection, "add", b=1) == "wrong arguments for 'add': 'a' is missing"
        assert await call(connection, "slow", seconds=0.1) == texts("at last")
        with pytest.raises(ToolError) as late:
            await call(connection, "slow", seconds=100)
        assert str(late.value) == (
            "the MCP server 'own' gave no answer to the call of 'own_slow' within 1.5 seconds; it was told to stop"
        )
        assert await call(connection, "add", a=1) == texts("2")


async def test_plaits_server_asks_back(own: Target) -> None:
    async def person(message: str, schema: Mapping[str, Any]) -> Mapping[str, Any] | None:
        assert (message, sorted(schema["properties"])) == ("Where to?", ["city", "days"])
        return {"city": "Oslo"}

    async def model(wanted: Mapping[str, Any]) -> str | None:
        text = {"type": "text", "text": "Is Oslo nice?"}
        assert (wanted["messages"], wanted["maxTokens"]) == ([{"role": "user", "content": text}], 10)
        return "Very."

    async with MCPConnection("own", own, on_elicitation=person, on_sampling=model) as connection:
        (said,) = await call(connection, "ask")
    assert said == TextPart(text="accept {'days': 2, 'city': 'Oslo'}: Very.")


@pytest.mark.fault("M13")
async def test_plaits_server_is_told_that_nobody_answers(own: Target) -> None:
    async with MCPConnection("own", own) as connection:
        said = await error(connection, "ask")
    assert said == "the MCP host has no person to ask: it did not offer 'elicitation'"
