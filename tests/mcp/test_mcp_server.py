"""`MCPServer`, seen by the official SDK's client: in this process, over stdin and stdout, and over HTTP."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import asynccontextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import aiohttp
import mcp_types as types
import pytest
from mcp import Client
from mcp.client.stdio import StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp.shared.exceptions import MCPError

from plait import AudioPart, ConfigurationError, FilePart, ImagePart, Message, RunContext, Secret, TextPart, Tool
from plait.mcp.server import MCPServer, mcp_host

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

TIMEOUT = 20.0
PROGRAM = Path(__file__).parent / "conformance_server.py"
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


# --- what is offered


def add(first: int, second: int = 2) -> int:
    """Add two numbers.

    Args:
        first: the first number.
        second: the second.
    """
    return first + second


class Shout(Tool):
    name = "shout"
    description = "Says it loud."
    idempotent = True

    async def execute(self, words: str) -> str:
        return words.upper()


@pytest.mark.parametrize("mode", MODES)
async def test_a_host_sees_each_tool_as_a_model_would(mode: Mode) -> None:
    server = MCPServer("sums", "Adds up.", tools=[add, Shout()], version="1.2", instructions="Add first.")
    async with client_of(server, mode) as client:
        assert client.server_info == types.Implementation(name="sums", description="Adds up.", version="1.2")
        assert client.instructions == "Add first."
        listed = {tool.name: tool for tool in (await client.list_tools()).tools}
    definitions = {tool.name: tool.get_definition() for tool in server.tools}
    assert {name: (tool.description, tool.input_schema) for name, tool in listed.items()} == {
        name: (definition.description, definition.parameters) for name, definition in definitions.items()
    }
    assert listed["shout"].annotations == types.ToolAnnotations(idempotent_hint=True)
    assert listed["add"].annotations == types.ToolAnnotations(idempotent_hint=False)


async def test_a_tool_added_later_is_there_and_one_name_stands_for_one_tool() -> None:
    server = MCPServer("sums", tools=[add])
    async with client_of(server) as client:
        shout = server.add_tool(Shout())
        assert [tool.name for tool in (await client.list_tools()).tools] == ["add", "shout"]
        assert text(await client.call_tool("shout", {"words": "ho"})) == "HO"
    assert server.add_tool(shout) is shout  # the same again is no second one
    with pytest.raises(ConfigurationError, match="another tool named 'shout'"):
        server.add_tool(Shout())


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: MCPServer(" "), "needs a name"),
        (lambda: MCPServer("x", tools=["no_such_tool"]), "there is no tool 'no_such_tool'"),
        (lambda: MCPServer("x", tools=[add, {"name": "add", "func": lambda: 0}]), "two tools are named 'add'"),
        (lambda: MCPServer("x", token=""), "token must be"),
        (lambda: MCPServer("x", at_once=0), "at_once must be"),
        (lambda: MCPServer("x", allowed_hosts="example.com"), r"allowed_hosts=\['example.com'\]"),
        (lambda: MCPServer("x").run(transport="carrier pigeon"), "there is no transport 'carrier pigeon'"),  # type: ignore[arg-type]  # the point
        (lambda: MCPServer("x").run("http", host="0.0.0.0", port=0), "everybody could call the tools"),  # noqa: S104  # refused
        (lambda: MCPServer("x").resource("a://{b")(add), "no template of addresses"),
        (lambda: MCPServer("x").resource("a://{c}")(add), "do not agree about: c, first"),
    ],
)
def test_what_cannot_be_is_refused_at_once(make: Callable[[], object], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        make()


def test_importing_it_loads_neither_the_sdk_nor_a_web_server() -> None:
    program = (
        "import sys; from plait.mcp.server import MCPServer; MCPServer('x', tools=[{'name': 'y', 'func': lambda: 0}]); "
        "print(sorted({'mcp', 'mcp_types', 'starlette', 'uvicorn', 'anyio', 'aiohttp'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"


# --- calls


PNG = b"\x89PNG\r\n\x1a\n" + bytes(8)


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("value", "content", "structured"),
    [
        ("plain", types.TextContent(text="plain"), None),
        ({"a": [1]}, types.TextContent(text='{"a":[1]}'), {"a": [1]}),
        ([1, 2], types.TextContent(text="[1,2]"), None),
        ("{not json", types.TextContent(text="{not json"), None),
        (PNG, types.ImageContent(data=b64(PNG), mime_type="image/png"), None),
        (AudioPart(data=b"RIFF"), types.AudioContent(data=b64(b"RIFF"), mime_type="audio/wav"), None),
        (
            FilePart(data=b"hi", url="note://1", media_type="text/plain"),
            types.EmbeddedResource(
                resource=types.TextResourceContents(uri="note://1", mime_type="text/plain", text="hi")
            ),
            None,
        ),
        (
            FilePart(data=b"\xff\xfe", name="my file", media_type="text/plain"),
            types.EmbeddedResource(
                resource=types.BlobResourceContents(
                    uri="attachment:my%20file", mime_type="text/plain", blob=b64(b"\xff\xfe")
                )
            ),
            None,
        ),
        (
            ImagePart(url="https://example.com/a.png"),
            types.ResourceLink(uri="https://example.com/a.png", name="image", mime_type="image/png"),
            None,
        ),
        (
            FilePart(url="https://example.com/a.pdf", name="a"),
            types.ResourceLink(uri="https://example.com/a.pdf", name="a", mime_type="application/pdf"),
            None,
        ),
    ],
)
async def test_every_kind_of_result_arrives(
    mode: Mode, value: object, content: types.ContentBlock, structured: object
) -> None:
    server = MCPServer("values", tools=[{"name": "give", "func": lambda: value}])
    async with client_of(server, mode) as client:
        result = await client.call_tool("give")
    assert (result.content, result.structured_content, result.is_error) == ([content], structured, False)


async def test_what_goes_wrong_is_an_error_result_without_a_trace() -> None:
    def fail() -> None:
        msg = "no entry with key=sk-abcdefghijklmnop"
        raise RuntimeError(msg)

    server = MCPServer("sums", tools=[add, fail, {"name": "lost", "func": lambda: FilePart(file_id="f")}])
    async with client_of(server) as client:
        results = [
            await client.call_tool("add", {"first": "one"}),
            await client.call_tool("fail"),
            await client.call_tool("lost"),
        ]
        with pytest.raises(MCPError, match="there is no tool 'ad'; the tools are: add") as unknown:
            await client.call_tool("ad", {})
    assert [result.is_error for result in results] == [True] * 3
    assert "first" in text(results[0])
    assert text(results[1]) == "RuntimeError: no entry with key=***"
    assert "without data or url" in text(results[2])
    assert unknown.value.code == types.INVALID_PARAMS


async def test_tools_get_what_the_server_was_given_and_never_from_the_host() -> None:
    seen: list[tuple[object, str, str, str]] = []

    def who(context: RunContext[dict[str, int]], user_id: str, thread_id: str) -> str:
        seen.append((context.deps, user_id, thread_id, context.run_id))
        return context.tool_call_id

    server = MCPServer("who", tools=[who], deps={"a": 1}, user_id="anna")
    async with client_of(server) as client:
        assert (await client.list_tools()).tools[0].input_schema.get("properties") == {}
        calls = [await client.call_tool("who", {}) for _ in range(2)]
    (deps, user, thread, run), again = seen
    assert (deps, user, again[:3]) == ({"a": 1}, "anna", (deps, user, thread))
    assert thread.startswith("thr_")
    assert run != again[3]
    assert text(calls[0]) != text(calls[1])


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


async def test_calls_run_at_the_same_time_up_to_a_number() -> None:
    meeting = Meeting()
    server = MCPServer("meeting", tools=[meeting.wait], at_once=3)
    async with client_of(server) as client, asyncio.TaskGroup() as group:
        calls = [group.create_task(client.call_tool("wait", {"name": str(n)})) for n in range(7)]
        await until(lambda: meeting.inside == 3)
        meeting.go.set()
    assert [text(call.result()) for call in calls] == list("0123456")
    assert meeting.most == 3


async def test_an_exclusive_tool_is_alone_and_nobody_overtakes_it() -> None:
    meeting = Meeting()
    inside: list[int] = []

    async def alone() -> None:
        inside.append(meeting.inside)
        await asyncio.sleep(0)
        inside.append(meeting.inside)

    server = MCPServer("meeting", tools=[meeting.wait, {"name": "alone", "func": alone, "exclusive": True}])
    async with client_of(server) as client, asyncio.TaskGroup() as group:
        group.create_task(client.call_tool("wait", {"name": "first"}))
        await until(lambda: meeting.inside == 1)
        group.create_task(client.call_tool("alone"))
        group.create_task(client.call_tool("wait", {"name": "second"}))
        await client.list_tools()  # all three are there
        assert meeting.inside == 1
        meeting.go.set()
    assert inside == [0, 0]
    assert meeting.ended == ["first", "second"]


@pytest.mark.parametrize("mode", MODES)
async def test_a_call_that_is_cancelled_ends_and_so_does_what_it_started(mode: Mode) -> None:
    meeting = Meeting()

    async def begin() -> str:
        beside = asyncio.create_task(meeting.wait("beside"))
        try:
            return await meeting.wait("call") + await beside
        finally:
            await asyncio.sleep(0)  # cleaning up may wait

    server = MCPServer("meeting", tools=[begin])
    async with client_of(server, mode) as client:
        call = asyncio.create_task(client.call_tool("begin"))
        await until(lambda: meeting.inside == 2)
        call.cancel()
        await until(lambda: meeting.inside == 0)
        with pytest.raises(asyncio.CancelledError):
            await call
        if mode == "legacy":  # over a connection, which is as good as before
            await client.list_tools()
    assert sorted(meeting.ended) == ["beside", "call"]


async def test_a_call_that_is_cancelled_while_it_waits_gives_its_turn_away() -> None:
    meeting = Meeting()
    server = MCPServer("meeting", tools=[meeting.wait], at_once=1)
    async with client_of(server) as client, asyncio.TaskGroup() as group:
        group.create_task(client.call_tool("wait", {"name": "first"}))
        await until(lambda: meeting.inside == 1)
        second = group.create_task(client.call_tool("wait", {"name": "second"}))
        third = group.create_task(client.call_tool("wait", {"name": "third"}))
        await client.list_tools()
        second.cancel()
        await client.list_tools()
        meeting.go.set()
        assert text(await third) == "third"
    assert meeting.ended == ["first", "third"]


async def test_the_end_of_a_connection_ends_its_calls() -> None:
    meeting = Meeting()
    server = MCPServer("meeting", tools=[meeting.wait])
    async with client_of(server) as client:
        call = asyncio.create_task(client.call_tool("wait", {"name": "late"}))
        await until(lambda: meeting.inside == 1)
    assert meeting.ended == ["late"]
    with pytest.raises(MCPError):
        await call


# --- the host, asked by tools


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


@pytest.mark.parametrize("mode", MODES)
async def test_a_tool_asks_the_hosts_person_and_model(mode: Mode) -> None:
    server = MCPServer("greeter", tools=[greet])
    me = types.Implementation(name="host", version="1")
    options = {"elicitation_callback": a_person(name="Ann"), "sampling_callback": a_model, "client_info": me}
    async with client_of(server, mode, **options) as client:
        assert text(await client.call_tool("greet")) == "host, m-1: <Greet Ann>"


@pytest.mark.parametrize("mode", MODES)
async def test_a_host_that_cannot_be_asked_or_answers_wrongly_is_an_error_result(mode: Mode) -> None:
    server = MCPServer("greeter", tools=[greet])
    async with client_of(server, mode) as client:
        assert text(await client.call_tool("greet")).startswith("the MCP host has no person to ask")
    async with client_of(server, mode, elicitation_callback=a_person(age="7")) as client:
        result = await client.call_tool("greet")
    assert result.is_error
    assert text(result).startswith("what the person at the MCP host filled in does not fit the form")


async def test_a_person_may_say_no() -> None:
    async def decline(_: object, __: object) -> types.ElicitResult:
        return types.ElicitResult(action="decline")

    async with client_of(MCPServer("greeter", tools=[greet]), elicitation_callback=decline) as client:
        assert text(await client.call_tool("greet")) == "decline"


async def test_a_made_up_state_is_refused() -> None:
    async with client_of(MCPServer("greeter", tools=[greet]), "auto") as client:
        for state in ("{", "{}", "[" * 100_000):
            result = await client.session.call_tool("greet", {}, request_state=state, allow_input_required=True)
            assert isinstance(result, types.CallToolResult)
            assert text(result) == "the state that came with the call is not what the server gave"


async def test_progress_and_the_wanted_log_records_arrive_in_order() -> None:
    heard: list[object] = []

    async def work() -> str:
        host = mcp_host()
        assert host is not None
        for step in (1, 2):
            await host.log("detail", "debug")
            await host.report_progress(step, 2, f"step {step}")
            await host.log({"step": step}, "warning", logger="work")
        return "done"

    async def on_log(params: types.LoggingMessageNotificationParams) -> None:
        heard.append((params.level, params.data, params.logger))

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        heard.append((progress, total, message))

    async with client_of(MCPServer("worker", tools=[work]), logging_callback=on_log) as client:
        await client.session.send_request(
            types.SetLevelRequest(params=types.SetLevelRequestParams(level="info")), types.EmptyResult
        )
        assert text(await client.call_tool("work", progress_callback=on_progress)) == "done"
        await until(lambda: len(heard) == 4)
    assert heard == [
        (1, 2, "step 1"),
        ("warning", {"step": 1}, "work"),
        (2, 2, "step 2"),
        ("warning", {"step": 2}, "work"),
    ]


async def test_a_tool_in_a_thread_knows_its_host_and_elsewhere_there_is_none() -> None:
    def whose() -> str:
        host = mcp_host()
        return "nobody's" if host is None else host.name

    async with client_of(
        MCPServer("x", tools=[whose]), client_info=types.Implementation(name="h", version="1")
    ) as client:
        assert text(await client.call_tool("whose")) == "h"
    assert whose() == "nobody's"


# --- prompts and resources


def library() -> MCPServer:
    server = MCPServer("library")

    @server.prompt
    def review(book: str, tone: Literal["kind", "keen", "stern"] = "kind") -> list[TextPart | ImagePart]:
        """Review a book.

        Args:
            book: its title.
            tone: how.
        """
        return [TextPart(text=f"Review {book}, {tone}."), ImagePart(data=PNG)]

    @server.resource("book://{title}/text", description="A book.", media_type="text/markdown")
    def book(title: str) -> str:
        if title == "missing":
            msg = "not on the shelf"
            raise LookupError(msg)
        return f"# {title}"

    @server.resource("cover://", name="cover")
    def cover() -> bytes:
        return PNG

    return server


async def test_prompts() -> None:
    async with client_of(library()) as client:
        (prompt,) = (await client.list_prompts()).prompts
        made = await client.get_prompt("review", {"book": "Emma"})
        with pytest.raises(MCPError, match="there is no prompt 'revue'"):
            await client.get_prompt("revue")
        with pytest.raises(MCPError, match="book") as wrong:
            await client.get_prompt("review", {})
        ref = types.PromptReference(name="review")
        completed = await client.complete(ref, {"name": "tone", "value": "k"})
    assert prompt == types.Prompt(
        name="review",
        description="Review a book.",
        arguments=[
            types.PromptArgument(name="book", description="its title.", required=True),
            types.PromptArgument(name="tone", description='how. (default: "kind")', required=False),
        ],
    )
    assert [(message.role, message.content) for message in made.messages] == [
        ("user", types.TextContent(text="Review Emma, kind.")),
        ("user", types.ImageContent(data=b64(PNG), mime_type="image/png")),
    ]
    assert wrong.value.code == types.INVALID_PARAMS
    assert completed.completion == types.Completion(values=["kind", "keen"], total=2, has_more=False)


@pytest.mark.fault("S04")
async def test_resources() -> None:
    async with client_of(library()) as client:
        (resource,) = (await client.list_resources()).resources
        (template,) = (await client.list_resource_templates()).resource_templates
        assert (resource.uri, resource.name) == ("cover://", "cover")
        assert (template.uri_template, template.description) == ("book://{title}/text", "A book.")
        assert (await client.read_resource("book://War%20and%20Peace/text")).contents == [
            types.TextResourceContents(
                uri="book://War%20and%20Peace/text", mime_type="text/markdown", text="# War and Peace"
            )
        ]
        assert (await client.read_resource("cover://")).contents == [
            types.BlobResourceContents(uri="cover://", mime_type="image/png", blob=b64(PNG))
        ]
        for uri in ("book://..%2F..%2Fetc%2Fpasswd/text", "book://%2Fetc%2Fpasswd/text", "book://a%00/text", "x://"):
            with pytest.raises(MCPError, match="there is no such resource"):
                await client.read_resource(uri)
        with pytest.raises(MCPError, match="LookupError: not on the shelf"):
            await client.read_resource("book://missing/text")


async def test_a_host_that_subscribed_hears_of_changes_and_others_do_not() -> None:
    server, heard = library(), asyncio.Queue[str]()

    async def hear(message: object) -> None:
        if isinstance(message, types.ResourceUpdatedNotification):
            heard.put_nowait(message.params.uri)

    protocol = server.sdk_server()
    async with Client(protocol, mode="legacy", message_handler=hear) as client, Client(protocol, mode="legacy"):
        subscribe = types.SubscribeRequest(params=types.SubscribeRequestParams(uri="cover://"))
        await client.session.send_request(subscribe, types.EmptyResult)
        await server.resource_updated("other://")
        await server.resource_updated("cover://")
        async with asyncio.timeout(TIMEOUT):
            assert await heard.get() == "cover://"
        unsubscribe = types.UnsubscribeRequest(params=types.UnsubscribeRequestParams(uri="cover://"))
        await client.session.send_request(unsubscribe, types.EmptyResult)
        await server.resource_updated("cover://")
        await client.list_tools()
    assert heard.empty()


# --- over stdin and stdout


STDIO = """
import asyncio, os, subprocess, sys, time
from pathlib import Path
from plait.mcp.server import MCPServer

async def wait(mark: str) -> str:
    child = await asyncio.create_subprocess_exec("sleep", "600")
    Path(mark).write_text(str(child.pid))
    try:
        await asyncio.sleep(600)
    finally:
        child.kill()
        await child.wait()
        Path(mark + ".ended").touch()
    return ""

def noisy() -> str:
    print("printed by a tool")
    os.write(1, b"written by a tool\\n")
    subprocess.run(["echo", "said by a child"], check=True)
    return f"{input.__name__} read {sys.stdin.read()!r}"

def block() -> None:
    time.sleep(600)

print("before")
MCPServer("stdio", tools=[wait, noisy, block]).run()
print("after")
"""


class Process:
    """A server that speaks over pipes, as a host would start it."""

    def __init__(self, folder: Path) -> None:
        program = folder / "program.py"
        program.write_text(STDIO.replace('print("before")', ""))
        self.running = subprocess.Popen(
            [sys.executable, str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert self.running.stdin is not None
        assert self.running.stdout is not None
        self.stdin, self.stdout = self.running.stdin, self.running.stdout

    def send(self, *messages: dict[str, Any] | bytes) -> None:
        lines = (message if isinstance(message, bytes) else json.dumps(message).encode() for message in messages)
        self.stdin.write(b"".join(line + b"\n" for line in lines))
        self.stdin.flush()

    def receive(self) -> dict[str, Any]:
        line = self.stdout.readline()
        assert line, self.running.communicate(timeout=TIMEOUT)[1].decode()
        told: dict[str, Any] = json.loads(line)
        return told

    def greet(self) -> None:
        client = {"name": "t", "version": "1"}
        params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client}
        self.send({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params})
        assert self.receive()["result"]["serverInfo"]["name"] == "stdio"
        self.send({"jsonrpc": "2.0", "method": "notifications/initialized"})

    def call(self, number: int, name: str, **arguments: object) -> None:
        params = {"name": name, "arguments": arguments}
        self.send({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params})

    def end(self) -> tuple[int, str, str]:
        """Give the exit code, and what else was on stdout and stderr."""
        out, err = self.running.communicate(timeout=TIMEOUT)
        return self.running.returncode, out.decode(), err.decode()


@pytest.fixture
def process(tmp_path: Path) -> Any:
    made = Process(tmp_path)
    yield made
    made.running.kill()
    made.running.communicate()


async def test_the_sdks_client_over_stdio() -> None:
    program = (
        "from plait.mcp.server import MCPServer; MCPServer('s', tools=[{'name': 'hi', 'func': lambda: 'ho'}]).run()"
    )
    environment = {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    parameters = StdioServerParameters(command=sys.executable, args=["-c", program], env=environment)
    async with Client(parameters, read_timeout_seconds=TIMEOUT) as client:
        assert text(await client.call_tool("hi")) == "ho"


def test_stdout_belongs_to_the_protocol_and_stdin_too(process: Process) -> None:
    process.greet()
    process.call(1, "noisy")
    assert process.receive()["result"]["content"] == [{"type": "text", "text": "input read ''"}]
    code, out, err = process.end()
    assert (code, out) == (0, "after\n")  # it is given back
    assert sorted(err.splitlines()) == ["printed by a tool", "said by a child", "written by a tool"]


@pytest.mark.fault("S13")
def test_lines_that_are_no_messages_get_bounded_errors_and_the_rest_goes_on(process: Process) -> None:
    process.greet()
    bombs = [
        (b"junk", types.PARSE_ERROR),
        (b"[" * 100_000, types.PARSE_ERROR),
        (b'{"a":' * 100_000, types.PARSE_ERROR),
        (b"1" * 100_000, types.PARSE_ERROR),
        (b"{}", types.INVALID_REQUEST),
        (b"\xff\xfe", types.PARSE_ERROR),
        (b'"' + b"x" * 5_000_000 + b'"', types.INVALID_REQUEST),
    ]
    for bomb, code in bombs:
        process.send(bomb, b"")
        answer = process.receive()
        assert (answer["id"], answer["error"]["code"]) == (None, code), bomb[:20]
        assert len(json.dumps(answer)) < 300
    number = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"noisy","arguments":{"a":%b}}}'
    for many in (b"1e999", b"9" * 5000, b"[" * 150 + b"]" * 150):
        process.send(number % many)
        answer = process.receive()
        assert "error" in answer or answer["result"]["isError"], many[:20]
        assert len(json.dumps(answer)) < 500
    process.send({"jsonrpc": "2.0", "id": 2, "method": "ping"})
    assert process.receive() == {"jsonrpc": "2.0", "id": 2, "result": {}}


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.fault("M12")
@pytest.mark.parametrize("ending", ["eof", "sigterm", "ctrl-c"])
async def test_every_end_ends_the_process_with_nothing_left(process: Process, ending: str, tmp_path: Path) -> None:
    process.greet()
    mark = tmp_path / "mark"
    process.call(1, "wait", mark=str(mark))
    process.call(2, "block")
    await until(lambda: mark.exists() and mark.read_text() != "")
    if ending == "eof":
        process.stdin.close()
        process.running.stdin = None
    else:
        process.running.send_signal(signal.SIGTERM if ending == "sigterm" else signal.SIGINT)
    code, out, err = await asyncio.to_thread(process.end)
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == "after"
    assert (tmp_path / "mark.ended").exists()
    assert not _is_running(int(mark.read_text()))


def test_a_host_that_does_not_read_and_goes_away(process: Process) -> None:
    process.greet()
    for number in range(2000):
        process.send({"jsonrpc": "2.0", "id": number, "method": "tools/list"})
    process.stdout.close()
    assert process.running.stderr is not None
    with suppress(BrokenPipeError):
        while process.running.poll() is None:
            process.send({"jsonrpc": "2.0", "id": 1, "method": "tools/list"})
    process.running.wait(TIMEOUT)
    assert b"plait" not in process.running.stderr.read()  # all that failed is the program's own print


def test_a_file_of_requests_as_stdin(tmp_path: Path) -> None:
    requests = tmp_path / "requests"
    initialize = {
        "jsonrpc": "2.0",
        "id": 0,
        "method": "initialize",
        "params": {
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": {"name": "t", "version": "1"},
        },
    }
    requests.write_text(json.dumps(initialize))  # with no end of line
    answers = tmp_path / "answers"
    program = "from plait.mcp.server import MCPServer; MCPServer('file').run()"
    with requests.open() as source, answers.open("w") as sink:
        subprocess.run([sys.executable, "-c", program], stdin=source, stdout=sink, check=True, timeout=TIMEOUT)
    assert json.loads(answers.read_text())["result"]["serverInfo"]["name"] == "file"


# --- over HTTP


class Listening:
    """A server of this process, by HTTP."""

    def __init__(self, url: str) -> None:
        self.url = url

    def client(self, mode: Mode = "legacy", **options: Any) -> Client:
        return Client(self.url, mode=mode, read_timeout_seconds=TIMEOUT, **options)

    async def post(self, body: bytes = b"", **headers: str) -> tuple[int, dict[str, str], str]:
        told = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
        told |= {name.replace("_", "-"): value for name, value in headers.items()}
        async with (
            aiohttp.ClientSession() as session,
            session.post(self.url, data=BytesIO(body), headers=told) as answer,
        ):
            return answer.status, dict(answer.headers), await answer.text()


@asynccontextmanager
async def listening(
    server: MCPServer, capsys: pytest.CaptureFixture[str], host: str = "127.0.0.1"
) -> AsyncIterator[Listening]:
    serving = asyncio.create_task(server.serve_http(host, 0))
    said = ""

    def is_there() -> bool:
        nonlocal said
        said += capsys.readouterr().err
        return "\n" in said or serving.done()

    try:
        await until(is_there)
        assert said.startswith(f"{server.name}: MCP at http://"), said
        yield Listening(said.rsplit(maxsplit=1)[-1].replace("0.0.0.0", "127.0.0.1"))  # noqa: S104  # a name to replace
    finally:
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving


@pytest.mark.parametrize("mode", MODES)
async def test_the_sdks_client_over_http(mode: Mode, capsys: pytest.CaptureFixture[str]) -> None:
    server = MCPServer("http", tools=[add, greet])
    options = {"elicitation_callback": a_person(name="Ann"), "sampling_callback": a_model}
    async with listening(server, capsys) as there, there.client(mode, **options) as client:
        assert text(await client.call_tool("add", {"first": 1})) == "3"
        assert text(await client.call_tool("greet")).endswith("m-1: <Greet Ann>")


INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 0,
    "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
}


@pytest.mark.fault("S07")
async def test_browsers_of_other_places_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    body = json.dumps(INITIALIZE).encode()
    async with listening(MCPServer("http"), capsys) as there:
        answers = [
            await there.post(body, Host="evil.example.com"),
            await there.post(body, Origin="http://evil.example.com"),
            await there.post(body, Origin="null"),
            await there.post(body, Content_Type="text/plain"),
            await there.post(body, Origin="http://localhost:3000"),
        ]
    assert [status for status, _, _ in answers] == [421, 403, 403, 400, 200]


@pytest.mark.fault("S07")
async def test_with_allowed_hosts_those_alone(capsys: pytest.CaptureFixture[str]) -> None:
    body = json.dumps(INITIALIZE).encode()
    server = MCPServer("http", allowed_hosts=["mcp.example.com"])
    async with listening(server, capsys, host="0.0.0.0") as there:  # noqa: S104  # names are checked
        answers = [
            await there.post(body),
            await there.post(body, Host="mcp.example.com", Origin="https://mcp.example.com"),
        ]
    assert [status for status, _, _ in answers] == [421, 200]


@pytest.mark.fault("S20")
async def test_a_token_lets_in_and_goes_no_further(capsys: pytest.CaptureFixture[str]) -> None:
    token = "s3cret-token-value"
    seen: list[object] = []

    def look(context: RunContext[object]) -> str:
        seen.append((context, mcp_host()))
        return repr(context)

    server = MCPServer("http", tools=[look], token=Secret(token))
    body = json.dumps(INITIALIZE).encode()
    async with listening(server, capsys) as there:
        without = await there.post(body)
        wrong = await there.post(body, Authorization=f"Bearer {token}x")
        strange = await there.post(body, Authorization="Bearer \xfc")
        http = create_mcp_http_client(headers={"Authorization": f"Bearer {token}"})
        async with http, Client(streamable_http_client(there.url, http_client=http), mode="legacy") as client:
            result = await client.call_tool("look")
    assert [(status, headers["WWW-Authenticate"]) for status, headers, _ in (without, wrong, strange)] == [
        (401, "Bearer"),
        (401, 'Bearer error="invalid_token"'),
        (401, 'Bearer error="invalid_token"'),
    ]
    assert not result.is_error
    told = "".join((*capsys.readouterr(), repr(server), repr(seen), text(result), without[2], wrong[2]))
    assert token not in told


@pytest.mark.fault("S13")
async def test_bodies_that_are_no_messages_get_bounded_errors(capsys: pytest.CaptureFixture[str]) -> None:
    async with listening(MCPServer("http", tools=[add]), capsys) as there:
        bombs = [b"[" * 100_000, b'{"a":' * 100_000, b"1" * 100_000, b"junk", b"{}", b"", b"\xff"]
        answers = [await there.post(bomb) for bomb in bombs]
        assert [status for status, _, _ in answers] == [400] * len(bombs)
        assert max(len(told) for _, _, told in answers) < 5000
        assert not any("Traceback" in told for _, _, told in answers)
        assert (await there.post(b"x" * 5_000_000))[0] == 413
        async with there.client() as client:  # it is as good as before
            assert text(await client.call_tool("add", {"first": 1})) == "3"


async def test_what_is_elsewhere_is_not_found(capsys: pytest.CaptureFixture[str]) -> None:
    async with listening(MCPServer("http"), capsys) as there:
        there.url = there.url.removesuffix("/mcp")
        status, _, said = await there.post()
    assert (status, json.loads(said)) == (404, {"error": "the protocol is spoken at /mcp"})


async def test_the_end_of_the_server_ends_calls_and_open_streams(capsys: pytest.CaptureFixture[str]) -> None:
    meeting = Meeting()
    async with listening(MCPServer("http", tools=[meeting.wait]), capsys) as there:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", ASK, there.url, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        await until(lambda: meeting.inside == 1)
    assert meeting.ended == ["late"]
    process.kill()
    await process.communicate()


ASK = """
import asyncio, sys
from mcp import Client

async def main():
    async with Client(sys.argv[1], mode="legacy") as client:
        await client.call_tool("wait", {"name": "late"})

asyncio.run(main())
"""


async def test_a_taken_port_is_said_plainly() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"cannot listen at 127.0.0.1 port {port}: .* choose another port"):
            await MCPServer("http").serve_http(port=port)


async def test_run_within_an_event_loop_says_what_to_do() -> None:
    with pytest.raises(ConfigurationError, match=r"await server\.serve_stdio"):
        MCPServer("x").run()


async def test_the_application_works_where_another_one_mounts_it() -> None:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.routing import Mount

    server = MCPServer("mounted", tools=[add])
    outer = Starlette(routes=[Mount("/tools", app=server.app)])
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/tools/mcp"
        web = uvicorn.Server(uvicorn.Config(outer, log_config=None))
        task = asyncio.create_task(web.serve([listening]))
        async with Client(url, mode="legacy", read_timeout_seconds=TIMEOUT) as client:
            assert text(await client.call_tool("add", {"first": 1})) == "3"
        web.should_exit = True
        await task
    await server.app.close()
    assert server.app is server.app


async def test_the_application_lives_as_long_as_its_lifespan() -> None:
    import uvicorn

    server = MCPServer("own", tools=[add])
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/mcp"
        web = uvicorn.Server(uvicorn.Config(server.app, log_config=None, lifespan="on"))
        task = asyncio.create_task(web.serve([listening]))
        async with Client(url, mode="legacy", read_timeout_seconds=TIMEOUT) as client:
            assert text(await client.call_tool("add", {"first": 1})) == "3"
        web.should_exit = True
        await task  # and no task is left


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_http_server_without_a_trace(ending: signal.Signals) -> None:
    process = subprocess.Popen([sys.executable, str(PROGRAM)], stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stderr is not None
        assert process.stderr.readline().startswith(b"plait conformance: MCP at http://127.0.0.1:")
        process.send_signal(ending)
        assert process.communicate(timeout=TIMEOUT) == (b"", b"")
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()
