"""`MCPServer` over HTTP: who may come in, and how it ends."""

from __future__ import annotations

import asyncio
import json
import select
import signal
import socket
import subprocess
import sys
from contextlib import asynccontextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import mcp_types as types
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp.shared.exceptions import MCPError
from sse_starlette import sse

from hosting import MODES, TIMEOUT, Meeting, Mode, a_model, a_person, add, greet, text, until
from plait import ConfigurationError, FilePart, RunContext, Secret, TextPart, ToolError
from plait.mcp.server.http import Limits, _watchers, serve
from plait.mcp.server.server import MCPServer, mcp_host

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PROGRAM = Path(__file__).parent / "conformance_server.py"


class Listening:
    """A server of this process, by HTTP."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.port = int(url.removesuffix("/mcp").rpartition(":")[2])

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


def end_watchers() -> None:
    """End what the SDK's library for event streams leaves in an event loop that is no server of plait's."""
    for task in _watchers():
        task.cancel()


@asynccontextmanager
async def listening(
    server: MCPServer, capsys: pytest.CaptureFixture[str], host: str = "127.0.0.1", limits: Limits | None = None
) -> AsyncIterator[Listening]:
    endless = server.serve_http(host, 0) if limits is None else serve(server.app, server.name, host, 0, "/mcp", limits)
    serving = asyncio.create_task(endless)
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


@pytest.mark.parametrize("mode", MODES)
async def test_half_a_surrogate_pair_is_replaced_wherever_it_stands(
    mode: Mode, capsys: pytest.CaptureFixture[str]
) -> None:
    server = MCPServer("halves")
    asked: list[str] = []

    @server.add_tool
    async def tool() -> list[TextPart | FilePart]:
        host = mcp_host()
        assert host is not None
        await host.report_progress(1, message="p\ud83d")
        await host.elicit("Who\ud83d?", {"type": "object", "properties": {"\ud83d": {"type": "string"}}})
        await host.sample("s\ud83d", system="y\ud83d")
        return [TextPart(text="t\ud83d\ude00\ud83d"), FilePart(data=b"x", name="f\ud83d", media_type="a/b")]

    @server.add_tool
    def structured() -> str:
        return '{"\\ud83d": ["\\ud83d"]}'

    @server.prompt
    @server.resource("half://")
    def half() -> str:
        return "h\ud83d"

    @server.prompt
    def bad() -> str:
        msg = "b\ud83d"
        raise ToolError(msg)

    async def person(_: object, params: types.ElicitRequestParams) -> types.ElicitResult:
        assert isinstance(params, types.ElicitRequestFormParams)
        asked.extend((params.message, *params.requested_schema["properties"]))
        return types.ElicitResult(action="decline")

    async def model(_: object, params: types.CreateMessageRequestParams) -> types.CreateMessageResult:
        (message,) = params.messages
        assert isinstance(message.content, types.TextContent)
        asked.extend((message.content.text, str(params.system_prompt)))
        return types.CreateMessageResult(role="assistant", content=types.TextContent(text="k"), model="m")

    lost = "\N{REPLACEMENT CHARACTER}"
    options: dict[str, Any] = {"elicitation_callback": person, "sampling_callback": model}
    async with listening(server, capsys) as there, there.client(mode, **options) as client:
        first, second = (await client.call_tool("tool")).content
        assert isinstance(second, types.EmbeddedResource)
        assert (first, second.resource.uri) == (
            types.TextContent(text=f"t\N{GRINNING FACE}{lost}"),
            "attachment:f%EF%BF%BD",
        )
        assert asked == [f"Who{lost}?", lost, f"s{lost}", f"y{lost}"]
        assert (await client.call_tool("structured")).structured_content == {lost: [lost]}
        (message,) = (await client.get_prompt("half")).messages
        (content,) = (await client.read_resource("half://")).contents
        assert message.content == types.TextContent(text=f"h{lost}")
        assert content == types.TextResourceContents(uri="half://", mime_type="text/plain", text=f"h{lost}")
        with pytest.raises(MCPError, match=f"b{lost}"):
            await client.get_prompt("bad")


INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 0,
    "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
}


async def test_many_hosts_may_be_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    body = json.dumps(INITIALIZE).encode()
    async with listening(MCPServer("http"), capsys) as there:
        answers = await asyncio.gather(*(there.post(body) for _ in range(9)))
    assert [status for status, _, _ in answers] == [200] * 9
    assert len({headers["mcp-session-id"] for _, headers, _ in answers}) == 9


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
    server = MCPServer("http", allowed_hosts=["mcp.example.com"], open_to_all=True)
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


@pytest.mark.parametrize("mode", MODES)
async def test_the_end_of_the_server_ends_calls_and_open_streams(
    mode: Mode, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    meeting = Meeting()
    mark = tmp_path / "mark"
    async with listening(MCPServer("http", tools=[meeting.wait]), capsys) as there:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", ASK, there.url, mode, str(mark), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        await until(lambda: meeting.inside == 1 and mark.exists())
    assert meeting.ended == ["late"]
    assert [record.name for record in caplog.records if record.name.startswith("uvicorn")] == []
    with suppress(ProcessLookupError):  # it has ended by itself
        process.kill()
    await process.wait()


ASK = """
import asyncio, sys
from pathlib import Path
from mcp import Client

async def main():
    async with Client(sys.argv[1], mode=sys.argv[2]) as client, asyncio.TaskGroup() as group:
        group.create_task(client.call_tool("wait", {"name": "late"}))
        if sys.argv[2] == "auto":
            async with client.listen(tools_list_changed=True):
                Path(sys.argv[3]).touch()
                await asyncio.sleep(600)
        Path(sys.argv[3]).touch()

asyncio.run(main())
"""


async def test_the_end_of_a_session_ends_its_calls_and_no_others(capsys: pytest.CaptureFixture[str]) -> None:
    meeting = Meeting()
    async with listening(MCPServer("http", tools=[meeting.wait]), capsys) as there, there.client() as other:
        stays = asyncio.create_task(other.call_tool("wait", {"name": "stays"}))
        async with there.client() as client:
            goes = asyncio.create_task(client.call_tool("wait", {"name": "goes"}))
            await until(lambda: meeting.inside == 2)
        await until(lambda: meeting.ended == ["goes"])
        with pytest.raises(MCPError):
            await goes
        meeting.go.set()
        assert text(await stays) == "stays"


@pytest.mark.fault("S17")
@pytest.mark.parametrize("mode", MODES)
async def test_one_host_cannot_keep_the_others_waiting(mode: Mode, capsys: pytest.CaptureFixture[str]) -> None:
    meeting = Meeting()
    server = MCPServer("http", tools=[meeting.wait, add], at_once=2)
    names = [types.Implementation(name=name, version="1") for name in ("one", "other")]
    async with (
        listening(server, capsys) as there,
        there.client(mode, client_info=names[0]) as one,
        there.client(mode, client_info=names[1]) as other,
        asyncio.TaskGroup() as group,
    ):
        calls = [group.create_task(one.call_tool("wait", {"name": name})) for name in "ab"]
        await until(lambda: meeting.inside == 1)
        assert text(await other.call_tool("add", {"first": 1})) == "3"
        assert meeting.inside == 1
        meeting.go.set()
    assert [text(call.result()) for call in calls] == ["a", "b"]


@pytest.mark.fault("S17")
async def test_requests_that_do_not_arrive_are_given_up_and_long_calls_are_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    meeting = Meeting()
    server = MCPServer("http", tools=[meeting.wait])
    head = b"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    whole = head + b"Content-Length: 0\r\n\r\n"
    async with (
        listening(server, capsys, limits=Limits(request_within=0.2)) as there,
        there.client() as client,
        asyncio.TaskGroup() as group,
    ):
        call = group.create_task(client.call_tool("wait", {"name": "long"}))
        await until(lambda: meeting.inside == 1)
        for half in (b"", head, head + b"Content-Length: 9\r\n\r\n{", whole + head):
            reader, writer = await asyncio.open_connection("127.0.0.1", there.port)
            writer.write(half)
            async with asyncio.timeout(TIMEOUT):
                await reader.read()  # to the end
            writer.close()
        meeting.go.set()
    assert text(call.result()) == "long"


@pytest.mark.fault("S17")
async def test_with_too_many_connections_requests_are_told_to_come_later(capsys: pytest.CaptureFixture[str]) -> None:
    body = json.dumps(INITIALIZE).encode()
    async with listening(MCPServer("http"), capsys, limits=Limits(connections=3)) as there:
        before = (await there.post(body))[0]
        writers = [(await asyncio.open_connection("127.0.0.1", there.port))[1] for _ in range(2)]
        during = (await there.post(body))[0]
        for writer in writers:
            writer.close()
            await writer.wait_closed()
    assert (before, during) == (200, 503)


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
    for _ in range(2):  # its end is no end for good
        with socket.create_server(("127.0.0.1", 0)) as listening:
            url = f"http://127.0.0.1:{listening.getsockname()[1]}/tools/mcp"
            web = uvicorn.Server(uvicorn.Config(outer, log_config=None))
            task = asyncio.create_task(web.serve([listening]))
            async with Client(url, mode="legacy", read_timeout_seconds=TIMEOUT) as client:
                assert text(await client.call_tool("add", {"first": 1})) == "3"
            web.should_exit = True
            await task
        await server.app.close()
    end_watchers()
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
        await task
    end_watchers()  # no other task is left


async def test_the_end_of_a_server_ends_nothing_of_other_applications(capsys: pytest.CaptureFixture[str]) -> None:
    async def _shutdown_watcher() -> None:
        await asyncio.sleep(600)

    namesake = asyncio.create_task(_shutdown_watcher())
    theirs = asyncio.create_task(sse._shutdown_watcher())  # noqa: SLF001  # as it begins itself
    async with listening(MCPServer("http", tools=[add]), capsys) as there, there.client() as client:
        await client.list_tools()
    await asyncio.sleep(0)
    assert [task.done() for task in (namesake, theirs)] == [False, False]
    for task in (namesake, theirs):
        task.cancel()
    await asyncio.wait((namesake, theirs))


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_http_server_without_a_trace(ending: signal.Signals) -> None:
    process = subprocess.Popen([sys.executable, str(PROGRAM)], stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stderr is not None
        assert select.select([process.stderr], [], [], TIMEOUT)[0]
        assert process.stderr.readline().startswith(b"plait conformance: MCP at http://127.0.0.1:")
        process.send_signal(ending)
        assert process.communicate(timeout=TIMEOUT) == (b"", b"")
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()
