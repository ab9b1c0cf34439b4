"""Servers over HTTP that go wrong, are started again, are none, or lead elsewhere."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import ssl
import time
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from mcp_servers import TOOL, WITHIN, Talk, call, free_port, listening, open_files, saying, until
from plait import ToolError
from plait.errors import MCPError
from plait.mcp.client.connection import MCPConnection
from plait.testing.server import Certificate, certificate

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

SOON = 1.0
GONE = b'{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"Session not found"}}'
DONE = {"content": [{"type": "text", "text": "done"}]}


def answering(
    how: Callable[[Talk], Awaitable[None] | None], **headers: str
) -> Callable[[Talk], Awaitable[None] | None]:
    """Give a server that is as it should be until a tool is called."""

    def handle(talk: Talk) -> Awaitable[None] | None:
        return None if talk.usual(**headers) else how(talk)

    return handle


# --- death ---


@pytest.mark.fault("M01", "M08")
@pytest.mark.parametrize("kind", ["streamable-http", "sse"])
async def test_a_server_that_dies_fails_its_calls_soon_and_is_reached_again_when_it_is_back(
    kind: str, tmp_path: Path
) -> None:
    port, mark = free_port(), tmp_path / "called"
    connection = MCPConnection("demo", f"http://127.0.0.1:{port}", token="k")
    before = asyncio.all_tasks()
    try:
        with listening(kind, port) as server:
            assert (await connection.open()).keys() >= {"demo_add", "demo_wait"}
            assert (await call(connection.tools, "demo_add", a=1, b=2)).text == "3"
            waiting = asyncio.create_task(call(connection.tools, "demo_wait", seconds=60, mark=str(mark)))
            await until(mark.exists)
            server.kill()
            started = time.monotonic()
            with pytest.raises(ToolError, match=r"broke off under the call of 'demo_wait'.*may have happened"):
                await waiting
            assert time.monotonic() - started < SOON
            server.wait()
            started = time.monotonic()
            with pytest.raises(ToolError, match="cannot be reached"):
                await call(connection.tools, "demo_add", a=1, b=2)
            assert time.monotonic() - started < SOON
        with listening(kind, port):
            assert (await call(connection.tools, "demo_add", a=1, b=2)).text == "3"
    finally:
        await connection.close()
    assert asyncio.all_tasks() == before


@pytest.mark.fault("M01")
@pytest.mark.parametrize("how", ["before the answer", "within the events", "within resumable events"])
async def test_a_connection_that_breaks_fails_its_call_at_once(how: str) -> None:
    def breaking(talk: Talk) -> None:
        if how == "within the events":
            talk.events(b": hello\n\n", end=False)
        if how == "within resumable events":
            talk.events(b"id: 7\ndata:\n\n", end=False)
        talk.writer.transport.abort()

    async with saying(answering(breaking)) as (url, seen), MCPConnection("web", url) as web:
        started = time.monotonic()
        with pytest.raises(ToolError, match=r"broke off under the call of 'web_act' .*; it may have happened"):
            await call(web.tools, "web_act")
        assert time.monotonic() - started < SOON
        assert [asked.body["method"] for asked in seen if asked.body].count("tools/call") == 1


@pytest.mark.fault("M01")
async def test_a_call_is_repeated_only_if_its_tool_is_idempotent() -> None:
    calls: list[Talk] = []

    def once(talk: Talk) -> None:
        calls.append(talk)
        if len(calls) % 2:
            talk.writer.transport.abort()
        else:
            talk.result(DONE)

    async with saying(answering(once)) as (url, _):
        async with MCPConnection("web", url, idempotent=True) as web:
            assert (await call(web.tools, "web_act")).text == "done"
        assert len(calls) == 2
        async with MCPConnection("web", url) as web:
            with pytest.raises(ToolError, match="broke off"):
                await call(web.tools, "web_act")
        assert len(calls) == 3


@pytest.mark.fault("M01")
async def test_a_message_that_the_older_transport_cannot_deliver_fails_its_call_at_once() -> None:
    streams: list[Talk] = []

    def older(talk: Talk) -> None:
        def tell(result: Any) -> None:
            event = b"data: " + json.dumps({"jsonrpc": "2.0", "id": talk.id, "result": result}).encode() + b"\n\n"
            streams[-1].writer.write(b"%x\r\n%s\r\n" % (len(event), event))

        match talk.rpc:
            case "GET":
                streams.append(talk)
                talk.events(b"event: endpoint\ndata: /messages?id=1\n\n", end=False)
            case "initialize":
                info = {"name": "older", "version": "1"}
                tell({"protocolVersion": "2024-11-05", "capabilities": {"tools": {}}, "serverInfo": info})
                talk.answer(202)
            case "tools/list":
                tell({"tools": [TOOL]})
                talk.answer(202)
            case "tools/call":
                talk.answer(500)
            case _:
                talk.answer(202)

    async with saying(older) as (url, seen), MCPConnection("web", url, transport="sse", token="k") as web:
        started = time.monotonic()
        with pytest.raises(ToolError, match="broke off under the call of 'web_act'"):
            await call(web.tools, "web_act")
        assert time.monotonic() - started < SOON
    assert {asked.headers["authorization"] for asked in seen} == {"Bearer k"}


@pytest.mark.fault("M08")
@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [
        (404, GONE, {}),
        (400, GONE, {}),
        (404, b"<html>" + b"x" * 100_000, {"content_type": "text/html"}),
        (404, b"\x1f\x8b\x00", {"content_encoding": "gzip"}),
        (400, GONE + b" " * 100_000, {}),
    ],
)
async def test_a_forgotten_session_is_opened_anew_once_and_then_the_call_made(
    status: int, body: bytes, headers: dict[str, str]
) -> None:
    sessions: list[str] = []
    known: set[str] = set()

    def forgetful(talk: Talk) -> None:
        if talk.rpc == "initialize":
            sessions.append(f"s{len(sessions)}")
            known.add(sessions[-1])
            talk.usual(mcp_session_id=sessions[-1])
        elif talk.asked.headers.get("mcp-session-id") not in known:
            talk.answer(status, body, **headers)
        elif not talk.usual():
            talk.result(DONE)

    async with saying(forgetful) as (url, seen), MCPConnection("web", url) as web:
        assert (await call(web.tools, "web_act")).text == "done"
        known.clear()
        assert (await call(web.tools, "web_act")).text == "done"
        assert sessions == ["s0", "s1"]
        known.clear()
        forgets = [asyncio.create_task(call(web.tools, "web_act")) for _ in range(5)]
        assert {found.text for found in await asyncio.gather(*forgets)} == {"done"}
        calls = [asked for asked in seen if asked.body and asked.body["method"] == "tools/call"]
        assert len([asked for asked in calls if asked.headers["mcp-session-id"] == sessions[-1]]) == 5


@pytest.mark.fault("M08")
async def test_a_server_that_forgets_every_session_is_asked_twice_and_no_more() -> None:
    def handle(talk: Talk) -> None:
        if talk.rpc == "tools/call":
            talk.answer(404)
        else:
            talk.usual(mcp_session_id="s")

    async with saying(handle) as (url, seen), MCPConnection("web", url) as web:
        with pytest.raises(ToolError, match="does not know the session any more"):
            await call(web.tools, "web_act")
        assert [asked.body["method"] for asked in seen if asked.body].count("tools/call") == 2


# --- silence ---


@pytest.mark.fault("M02")
async def test_a_call_without_an_answer_ends_at_its_time_and_its_connection_is_closed() -> None:
    silent: list[Talk] = []
    async with saying(answering(silent.append)) as (url, seen), MCPConnection("web", url, timeout=0.2) as web:
        for _ in range(3):
            with pytest.raises(ToolError, match=r"gave no answer to the call of 'web_act' within 0\.2 seconds"):
                await call(web.tools, "web_act")
        await until(
            lambda: [asked.body["method"] for asked in seen if asked.body].count("notifications/cancelled") == 3
        )
        await until(lambda: all(talk.writer.transport.is_closing() for talk in silent))


@pytest.mark.fault("M02")
async def test_who_is_cancelled_is_free_at_once() -> None:
    silent: list[Talk] = []
    async with saying(answering(silent.append)) as (url, _), MCPConnection("web", url) as web:
        calling = asyncio.create_task(call(web.tools, "web_act"))
        await until(lambda: silent)
        calling.cancel()
        started = time.monotonic()
        with pytest.raises(asyncio.CancelledError):
            await calling
        assert time.monotonic() - started < SOON / 4


@pytest.mark.fault("M02")
async def test_a_server_that_accepts_and_says_nothing_ends_at_the_connect_timeout() -> None:
    async with saying(lambda _: None) as (url, _):
        with pytest.raises(MCPError, match=r"it gave no answer within 0\.3 s"):
            await MCPConnection("web", url, connect_timeout=0.3).open()


@pytest.mark.fault("M02", "M03")
@pytest.mark.parametrize(
    "body", [b"{", b"[]", b'{"jsonrpc":"2.0","id":999,"result":{"content":[]}}', b'{"jsonrpc":"2.0"}', b"\xff" * 1000]
)
async def test_an_answer_that_is_none_is_an_error_or_ends_at_its_time(body: bytes) -> None:
    async with (
        saying(answering(lambda talk: talk.answer(200, body))) as (url, _),
        MCPConnection("web", url, timeout=0.3) as web,
    ):
        with pytest.raises(ToolError):
            await call(web.tools, "web_act")
        with pytest.raises(ToolError):
            await call(web.tools, "web_act")


# --- streams ---


@pytest.mark.fault("M10")
@pytest.mark.parametrize("retry", [b": \n\n", b"retry: 0\n\n"])
async def test_a_stream_that_keeps_ending_is_not_opened_for_ever(retry: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    from mcp.client import streamable_http

    monkeypatch.setattr(streamable_http, "DEFAULT_RECONNECTION_DELAY_MS", 10)  # the SDK has no argument for it

    def ending(talk: Talk) -> None:
        if talk.rpc == "GET":
            talk.events(retry)
        elif not talk.usual(mcp_session_id="s"):
            talk.result(DONE)

    async with saying(ending) as (url, seen), MCPConnection("web", url) as web:

        def streams() -> int:
            return [asked.method for asked in seen].count("GET")

        await until(lambda: streams() == 5)
        assert (await call(web.tools, "web_act")).text == "done"
        await asyncio.sleep(0.5)  # twice the time between two of them
        assert streams() == 5


@pytest.mark.fault("M10")
@pytest.mark.parametrize(
    "event", [b'data: {"jsonrpc":"2.0","method":"notifications/nothing"}\n\n', b"data: {\n\n", b": {\n\n"]
)
async def test_streams_that_say_something_and_end_are_opened_ever_more_seldom(event: bytes) -> None:
    opened: list[float] = []

    def ending(talk: Talk) -> None:
        if talk.rpc == "GET":
            opened.append(time.monotonic())
            talk.events(b"retry: 0\n" + event)
        elif not talk.usual(mcp_session_id="s"):
            talk.result(DONE)

    async with saying(ending) as (url, _), MCPConnection("web", url) as web:
        await until(lambda: len(opened) == 5)
        assert (await call(web.tools, "web_act")).text == "done"
    waited = [later - earlier for earlier, later in pairwise(opened)]
    assert [seconds > least for seconds, least in zip(waited, (0.09, 0.19, 0.39, 0.79), strict=True)] == [True] * 4


@pytest.mark.fault("M10")
async def test_an_answer_whose_stream_keeps_ending_fails() -> None:
    def ending(talk: Talk) -> None:
        talk.events(b"retry: 1\nid: 1\ndata:\n\n")

    def handle(talk: Talk) -> None:
        if talk.rpc == "GET" or not talk.usual():
            ending(talk)

    async with saying(handle) as (url, seen), MCPConnection("web", url) as web:
        with pytest.raises(ToolError, match="broke off"):
            await call(web.tools, "web_act")
        assert 0 < [asked.method for asked in seen].count("GET") <= 6


async def test_an_answer_whose_stream_ended_once_is_fetched() -> None:
    """The server may close a stream and be asked again (SEP-1699)."""
    numbers: list[Any] = []

    def handle(talk: Talk) -> None:
        if talk.rpc == "GET" and numbers:
            assert talk.asked.headers["last-event-id"] == "1"
            answer = {"jsonrpc": "2.0", "id": numbers[0], "result": DONE}
            talk.events(b"id: 2\ndata: " + json.dumps(answer).encode() + b"\n\n")
        elif not talk.usual():
            numbers.append(talk.id)
            talk.events(b"retry: 10\nid: 1\ndata:\n\n")

    async with saying(handle) as (url, _), MCPConnection("web", url) as web:
        assert (await call(web.tools, "web_act")).text == "done"


@pytest.mark.fault("M07")
@pytest.mark.parametrize("streamed", [False, True])
async def test_an_answer_beyond_the_bound_is_an_error(*, streamed: bool) -> None:
    def large(talk: Talk) -> None:
        body = json.dumps(
            {"jsonrpc": "2.0", "id": talk.id, "result": {"content": [{"type": "text", "text": "x" * 17_000_000}]}}
        )
        if streamed:
            talk.events(f"data: {body}\n\n".encode())
        else:
            talk.answer(200, body.encode())

    async with saying(answering(large)) as (url, _), MCPConnection("web", url) as web:
        with pytest.raises(ToolError, match=r"16,?000,?000|broke off"):
            await call(web.tools, "web_act")


# --- what is no MCP server ---


def page(talk: Talk) -> None:
    talk.answer(200, b"<html>hello</html>", kind="text/html")


def missing(talk: Talk) -> None:
    talk.answer(404, b"<html>no</html>", kind="text/html")


def denied(talk: Talk) -> None:
    talk.answer(401, b'{"error":"token k-secret is wrong"}')


def refusing(talk: Talk) -> None:
    talk.answer(400, b'{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"an API key is needed"}}')


def broken(talk: Talk) -> None:
    talk.answer(500, b"oops")


def garbage(talk: Talk) -> None:
    talk.writer.write(b"SSH-2.0-OpenSSH\r\n\r\n")


def moved(talk: Talk) -> None:
    talk.answer(302, location="http://127.0.0.1:9/elsewhere?key=k-secret")


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        (
            page,
            (
                "{url} answers with text/html where an MCP server answers with JSON or events; check the address, "
                "often it ends in /mcp"
            ),
        ),
        (missing, "{url} answers with status 404: no MCP server is there; check the address, often it ends in /mcp"),
        (denied, "{url} lets nobody in with this token (status 401); check token and headers"),
        (refusing, "{url} answers with status 400: an API key is needed"),
        (broken, "{url} answers with status 500"),
        (garbage, "{url} broke off: it ended the connection, or does not speak HTTP"),
        (
            moved,
            (
                "{url} redirects to http://127.0.0.1:9/elsewhere, which is not followed; if that is the server, give "
                "its address"
            ),
        ),
    ],
)
async def test_what_is_no_mcp_server_is_one_clear_error(how: Callable[[Talk], None], expected: str) -> None:
    async with saying(how) as (url, seen):
        connection = MCPConnection("web", url + "?key=k-secret", token="k-secret")
        with pytest.raises(MCPError) as raised:
            await connection.open()
        assert str(raised.value) == "the MCP server 'web' cannot be used: " + expected.format(url=url)
        assert raised.value.server == "web"
        assert len(seen) <= 2


async def test_nobody_there_is_one_clear_error() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(MCPError) as raised:
        await MCPConnection("web", url).open()
    assert (
        str(raised.value)
        == f"the MCP server 'web' cannot be used: {url} cannot be reached: All connection attempts failed"
    )
    assert raised.value.retryable


async def test_tls_that_is_none_is_one_clear_error() -> None:
    async def plain(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(plain, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(MCPError, match=rf"https://127\.0\.0\.1:{port} cannot be reached: it does not speak TLS"):
            await MCPConnection("web", f"https://127.0.0.1:{port}").open()


@pytest.mark.parametrize("name", ["good", "expired", "wrong-name"])
async def test_a_certificate_that_nobody_vouches_for_is_one_clear_error(name: Certificate) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate(name))

    async def never(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(never, "127.0.0.1", 0, ssl=context) as server:
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/mcp"
        with pytest.raises(MCPError, match=rf"{url} cannot be reached: its certificate is not accepted \(.+\)$"):
            await MCPConnection("web", url, token="k-secret").open()


# --- secrets ---


@pytest.mark.fault("S02")
async def test_token_and_query_go_to_the_server_alone_and_are_never_shown(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with saying(page) as (elsewhere, seen_elsewhere):

        def leading_away(talk: Talk) -> None:
            talk.answer(307, location=elsewhere)

        async with (
            saying(answering(leading_away, mcp_session_id="k-session")) as (url, seen),
            MCPConnection("web", url + "?key=k-secret", token="k-secret", headers={"X-Own": "k-secret"}) as web,
        ):
            with pytest.raises(ToolError, match="redirects to") as raised:
                await call(web.tools, "web_act")
            assert "k-secret" not in repr(web) + repr(vars(web)) + str(raised.value)
    assert seen_elsewhere == []
    assert {asked.path for asked in seen} == {"/mcp?key=k-secret"}
    assert {(asked.headers["authorization"], asked.headers["x-own"]) for asked in seen} == {
        ("Bearer k-secret", "k-secret")
    }
    assert "k-secret" not in caplog.text
    assert "k-session" not in caplog.text


@pytest.mark.fault("S01")
@pytest.mark.parametrize("status", [200, 400])
async def test_what_a_server_repeats_of_its_secrets_reaches_nobody(status: int) -> None:
    secret = 'pa"ss\\word'

    def repeating(talk: Talk) -> None:
        password = base64.b64decode(talk.asked.headers["authorization"].removeprefix("Basic ")).decode()
        said = f"no: {password} {talk.asked.headers['authorization']} {talk.asked.path} {talk.asked.headers['x-key']}"
        error = {"jsonrpc": "2.0", "id": talk.id, "error": {"code": -32_000, "message": said}}
        talk.answer(status, json.dumps(error).encode())

    def handle(talk: Talk) -> None:
        if talk.asked.body and (status == 400 or talk.rpc == "tools/call"):
            repeating(talk)
        else:
            talk.usual()

    async with saying(handle) as (url, _):
        target = url.replace("//", f"//user:{quote(secret)}@") + "?key=a%20query%20key"
        connection = MCPConnection("web", target, headers={"x-key": "one-header"})
        try:
            with pytest.raises((ToolError, MCPError)) as caught:
                await call(await connection.open(), "web_act")
        finally:
            await connection.close()
    assert str(caught.value).endswith("no: user:*** *** /mcp?*** ***")


@pytest.mark.fault("S13")
async def test_half_a_character_in_an_argument_breaks_neither_the_session_nor_other_calls() -> None:
    whole = asyncio.Event()

    async def handle(talk: Talk) -> None:
        if talk.usual():
            return
        arguments = talk.asked.body["params"]["arguments"]
        if arguments == {"wait": True}:
            await whole.wait()
        else:
            whole.set()
        talk.result({"content": [{"type": "text", "text": json.dumps(arguments)}]})

    async with saying(handle) as (url, _), MCPConnection("web", url) as web:
        waiting = asyncio.create_task(call(web.tools, "web_act", wait=True))
        assert (
            await call(web.tools, "web_act", x="\ud83d!", y="👩")
        ).text == '{"x": "\\ufffd!", "y": "\\ud83d\\udc69"}'
        assert (await waiting).text == '{"wait": true}'


async def test_a_redirect_within_the_origin_is_followed() -> None:
    def handle(talk: Talk) -> None:
        if talk.asked.path == "/mcp":
            talk.answer(307, location="/mcp/")
        elif not talk.usual():
            talk.result(DONE)

    async with saying(handle) as (url, seen), MCPConnection("web", url, token="k") as web:
        assert (await call(web.tools, "web_act")).text == "done"
    assert {asked.headers["authorization"] for asked in seen} == {"Bearer k"}


# --- changes and ownership ---


@pytest.mark.fault("M04")
async def test_a_tool_that_changed_while_the_server_was_started_again_is_not_called() -> None:
    tools = [TOOL]
    forgotten = asyncio.Event()

    def handle(talk: Talk) -> None:
        if talk.rpc == "tools/call" and forgotten.is_set():
            forgotten.clear()
            talk.answer(404)
        elif not talk.usual(tools, mcp_session_id="s"):
            talk.result(DONE)

    async with saying(handle) as (url, _), MCPConnection("web", url) as web:
        assert (await call(web.tools, "web_act")).text == "done"
        tools[0] = {**TOOL, "description": "Other."}
        forgotten.set()
        with pytest.raises(ToolError, match="changed the tool 'web_act' after it was approved"):
            await call(web.tools, "web_act")
        web.approve()
        assert (await call(web.tools, "web_act")).text == "done"


@pytest.mark.fault("M04")
async def test_a_server_of_later_versions_only_is_used_and_tells_of_changes() -> None:
    """From protocol version 2026-07-28 on there is no session, and a client asks to be told."""
    tools = [TOOL]
    streams: list[Talk] = []
    whole = {"resultType": "complete", "ttlMs": 0, "cacheScope": "public"}

    def event(talk: Talk, method: str, **params: Any) -> bytes:
        meta = {"io.modelcontextprotocol/subscriptionId": talk.id}
        return (
            b"data: " + json.dumps({"jsonrpc": "2.0", "method": method, "params": {"_meta": meta, **params}}).encode()
        )

    def handle(talk: Talk) -> None:
        match talk.rpc:
            case "initialize":
                data = {"supported": ["2026-07-28"], "requested": "2025-11-25"}
                error = {"code": -32022, "message": "too old", "data": data}
                talk.answer(400, json.dumps({"jsonrpc": "2.0", "id": talk.id, "error": error}).encode())
            case "server/discover":
                talk.result({"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, **whole})
            case "tools/list":
                talk.result({"tools": list(tools), **whole})
            case "subscriptions/listen":
                streams.append(talk)
                known = event(
                    talk, "notifications/subscriptions/acknowledged", notifications={"toolsListChanged": True}
                )
                talk.events(known + b"\n\n", end=False)
            case "tools/call":
                talk.result({**DONE, "resultType": "complete"})
            case _:
                talk.answer(405)

    async with saying(handle) as (url, _), MCPConnection("web", url) as web:
        assert (await call(web.tools, "web_act")).text == "done"
        tools[0] = {**TOOL, "description": "Other."}
        changed = event(streams[0], "notifications/tools/list_changed") + b"\n\n"
        streams[0].writer.write(b"%x\r\n%s\r\n" % (len(changed), changed))
        link = web._link  # noqa: SLF001  # there is no other way to see that it was heard
        assert link is not None
        await until(lambda: link.stale)
        with pytest.raises(ToolError, match="changed the tool 'web_act' after it was approved"):
            await call(web.tools, "web_act")


@pytest.mark.fault("M09")
async def test_a_connection_is_closed_by_another_task_with_calls_under_way() -> None:
    silent: list[Talk] = []
    before = asyncio.all_tasks()
    async with saying(answering(silent.append)) as (url, _):
        web = MCPConnection("web", url)
        await asyncio.create_task(web.open())
        calls = [asyncio.create_task(call(web.tools, "web_act")) for _ in range(3)]
        await until(lambda: len(silent) == 3)
        async with asyncio.timeout(WITHIN):
            await asyncio.create_task(web.close())
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [ToolError] * 3
    assert asyncio.all_tasks() == before


async def test_no_socket_is_left_open() -> None:
    async with saying(answering(lambda talk: talk.result(DONE))) as (url, _):
        before = open_files()
        for _ in range(3):
            async with MCPConnection("web", url) as web:
                await call(web.tools, "web_act")
        await until(lambda: open_files() == before)
