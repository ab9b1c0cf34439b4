from __future__ import annotations

import asyncio
import base64
import gc
import gzip
import json
import os
import pickle
import socket
import ssl
import subprocess
import sys
import threading
import time
import traceback
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any
from weakref import ref

import pytest

from plait.errands import Errands
from plait.errors import (
    ConfigurationError,
    LimitExceeded,
    ModelError,
    ProtocolViolation,
    ProviderError,
    RateLimited,
    TransportError,
)
from plait.providers.http import Endpoint, TransportLimits, address_of
from plait.providers.http.connections import Pace
from plait.providers.status import Service
from plait.testing import FaultServer, certificate

if TYPE_CHECKING:
    from providers.conftest import Loopback, Serve, Step

KEY = "sk-very-secret-key"
PATIENCE = 10.0
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"


def endpoint(url: str, **limits: float) -> Endpoint:
    made: dict[str, Any] = limits
    service = Service(provider="acme", address=address_of(url), model="m1", secrets=(KEY,))
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    return Endpoint(f"{url}/ask", service, headers=headers, limits=TransportLimits(**made))


async def read(asked: Endpoint) -> list[bytes]:
    """Ask for a stream, and read it to its end."""
    opened = await asked.open(b"{}")
    assert not isinstance(opened, bytes)
    found = []
    try:
        while (events := await opened.read()) is not None:
            found += events
    finally:
        opened.close()
    return found


async def many_at_once(serve: Serve, count: int) -> tuple[Loopback, Endpoint]:
    """Have so many requests under way at the same time, and then let all be answered."""
    go = asyncio.Event()
    server = await serve([go, *serve.whole(b"one")])
    asked = endpoint(server.url)
    asking = [asyncio.create_task(asked.post(b"{}")) for _ in range(count)]
    while len(server.requests) < count:
        server.asked.clear()
        await asyncio.wait_for(server.asked.wait(), PATIENCE)
    go.set()
    assert await asyncio.gather(*asking) == [b"one"] * count
    return server, asked


async def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


# --- what goes well --------------------------------------------------------------------------------------------------


async def test_a_request_is_posted_and_its_answer_given_whole(serve: Serve) -> None:
    server = await serve(serve.whole(b"answer"))
    assert await endpoint(server.url).post(b'{"a":1}') == b"answer"
    request = server.requests[0]
    assert (request.path, request.body, request.headers["authorization"]) == ("/v1/ask", b'{"a":1}', f"Bearer {KEY}")
    assert "cookie" not in request.headers


async def test_a_large_request_is_sent_without_a_warning(serve: Serve) -> None:
    server = await serve(serve.whole(b"answer"))
    body = b"x" * 3_000_000
    assert await endpoint(server.url).post(body) == b"answer"
    assert server.requests[0].body == body


async def test_connections_are_kept_and_shared_between_endpoints(serve: Serve) -> None:
    server = await serve(
        serve.whole(b"answer"), serve.stream(b"data: 1\n\n"), serve.whole(b"no", 400), serve.whole(b"x")
    )
    await endpoint(server.url).post(b"{}")
    assert await read(endpoint(server.url)) == [b"1"]
    with pytest.raises(ProviderError):
        await endpoint(server.url).post(b"{}")
    await endpoint(server.url).post(b"{}")
    assert (server.connections, len(server.requests)) == (1, 4)


async def test_cookies_are_not_kept(serve: Serve) -> None:
    server = await serve(serve.whole(b"x", headers={"set-cookie": "a=b"}))
    await endpoint(server.url).post(b"{}")
    await endpoint(server.url).post(b"{}")
    assert "cookie" not in server.requests[1].headers


async def test_a_batch_is_what_one_read_gave(serve: Serve) -> None:
    first, second = asyncio.Event(), asyncio.Event()
    server = await serve(serve.stream(b"data: 1\n\ndata: 2\n\ndata: 3", first, b"4\n\n", second, b"data: 5\n\n"))
    opened = await endpoint(server.url).open(b"{}")
    assert not isinstance(opened, bytes)
    assert await opened.read() == [b"1", b"2"]
    first.set()
    assert await opened.read() == [b"34"]
    second.set()
    assert await opened.read() == [b"5"]
    assert await opened.read() is None
    assert await opened.read() is None
    opened.close()


async def test_compressed_answers_are_read(serve: Serve) -> None:
    body = gzip.compress(b"data: 1\n\n" * 1000)
    server = await serve(
        [HEAD + b"content-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(body) + body],
        serve.whole(gzip.compress(b"answer"), headers={"content-encoding": "gzip"}),
    )
    assert await read(endpoint(server.url)) == [b"1"] * 1000
    assert await endpoint(server.url).post(b"{}") == b"answer"


async def test_json_instead_of_a_stream_is_given_whole(serve: Serve) -> None:
    server = await serve(serve.whole({"a": 1}))
    assert await endpoint(server.url).open(b"{}") == b'{"a": 1}'


async def test_other_framings_can_be_read(serve: Serve) -> None:
    class Lines:
        size = 0

        def feed(self, part: bytes) -> list[bytes]:
            return part.splitlines()

        def end(self) -> list[bytes]:
            return [b"end"]

    server = await serve(serve.stream(b'{"a":1}\n{"b":2}\n', kind="application/x-ndjson"))
    opened = await endpoint(server.url).open(b"{}", Lines())
    assert not isinstance(opened, bytes)
    assert [await opened.read() for _ in range(3)] == [[b'{"a":1}', b'{"b":2}'], [b"end"], None]
    opened.close()


# --- faults ----------------------------------------------------------------------------------------------------------

# None stands for a pause, so that what is before and after arrives in two pieces.
BROKEN: dict[str, tuple[list[Step | None], type[ModelError], str]] = {
    "closed at once": (["close"], TransportError, "closed the connection before it had answered"),
    "reset at once": (["reset"], TransportError, "the connection to 127.0.0.1:PORT broke: connection reset by peer"),
    "cut headers": ([b"HTTP/1.1 200 OK\r\ncontent-ty", "close"], TransportError, "before it had answered"),
    "no HTTP": (
        [b"SSH-2.0-OpenSSH_9\r\n\r\n", "close"],
        ProtocolViolation,
        "does not speak proper HTTP",
    ),
    "no status": ([b"HTTP/1.1 abc OK\r\n\r\n", "close"], ProtocolViolation, "does not speak proper HTTP"),
    "endless header": ([b"HTTP/1.1 200 OK\r\na: " + b"x" * 20_000], ProtocolViolation, "does not speak proper HTTP"),
    "bad chunk size": ([CHUNKED + b"5\r\nhello\r\nZZ\r\nhello\r\n", "close"], ProtocolViolation, "HTTP"),
    "bad chunk size later": ([CHUNKED + b"5\r\nhello\r\n", None, b"ZZ\r\n"], ProtocolViolation, "rules of HTTP"),
    "no gzip": ([HEAD + b"content-encoding: gzip\r\ncontent-length: 5\r\n\r\nhello"], ProtocolViolation, "encoding"),
    "unknown encoding": ([HEAD + b"content-encoding: br\r\ncontent-length: 5\r\n\r\nhello"], ProtocolViolation, ""),
    "short body": (
        [HEAD + b"content-length: 100\r\n\r\nhello", "close"],
        TransportError,
        "in the middle of the answer",
    ),
    "closed in a chunk": ([CHUNKED + b"5\r\nhel", "close"], TransportError, "in the middle of the answer"),
    "closed between chunks": ([CHUNKED + b"5\r\nhello\r\n", "close"], TransportError, "in the middle of the answer"),
    "reset later": ([CHUNKED + b"5\r\nhello\r\n", None, "reset"], TransportError, "in the middle of the answer"),
}


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("fault", BROKEN)
async def test_every_fault_of_the_wire_is_a_typed_error(fault: str, streamed: bool, serve: Serve) -> None:
    steps, expected, said = BROKEN[fault]
    pause = asyncio.Event()
    server = await serve([pause if step is None else step for step in steps])
    asyncio.get_running_loop().call_later(0.05, pause.set)
    asked = endpoint(server.url)
    with pytest.raises(ModelError) as caught:
        await asyncio.wait_for(read(asked) if streamed else asked.post(b"{}"), PATIENCE)
    error = caught.value
    assert type(error) is expected
    assert said.replace("PORT", str(server.port)) in str(error)
    assert error.retryable is (expected is TransportError)
    assert error.provider == "acme"
    assert len(server.requests) == 1  # a connection of its own is not tried again here
    assert_no_secret(error)
    await asyncio.wait_for(server.left.wait(), PATIENCE)


def assert_no_secret(error: BaseException) -> None:
    """Look for the key in everything a log or a tracker of errors would show of an error, and of its causes."""
    one: BaseException | None = error
    while one is not None:
        assert KEY not in f"{one} {one!r} {vars(one)!r} {one.args!r}"
        one = one.__cause__ or one.__context__


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (b"", "closed the connection before it had answered"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nabc", "ended in the middle of the answer"),
        (b"HTTP/1.0 200 OK\r\n\r\nabc", "b'abc'"),
    ],
)
async def test_an_end_seen_when_the_deadlines_are_looked_at_is_that_end(
    said: bytes, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One round of the event loop is told of the connection's end, and looks at the deadlines before it is over."""
    from aiohttp.client_proto import ResponseHandler

    from plait.providers.http.connections import connections_of

    lookout = (await connections_of(asyncio.get_running_loop())).lookout
    told = ResponseHandler.eof_received

    def eof_received(protocol: ResponseHandler) -> None:
        asyncio.get_running_loop().call_soon(lookout._look)  # noqa: SLF001  # its timer would ring here by chance alone
        told(protocol)

    monkeypatch.setattr(ResponseHandler, "eof_received", eof_received)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        writer.write(said)
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        asked = endpoint(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        try:
            outcome = repr(await asyncio.wait_for(asked.post(b"{}"), PATIENCE))
        except TransportError as error:
            outcome = str(error)
    assert expected in outcome


async def test_a_violation_that_came_while_nobody_read_is_one(serve: Serve) -> None:
    go = asyncio.Event()
    server = await serve([CHUNKED + b"9\r\ndata: 1\n\n\r\n", go, b"ZZ\r\n", "hold"])
    opened = await endpoint(server.url).open(b"{}")
    assert not isinstance(opened, bytes)
    assert await opened.read() == [b"1"]
    go.set()
    await asyncio.wait_for(server.left.wait(), PATIENCE)
    with pytest.raises(ProtocolViolation, match="rules of HTTP"):
        await opened.read()
    opened.close()


async def test_a_server_that_ends_without_reading_the_request_is_not_waited_for() -> None:
    """It says that it will say nothing, and takes no more: what is left to write never leaves us."""
    over = asyncio.Event()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write_eof()
        await over.wait()
        writer.transport.abort()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        asked = endpoint(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", total=60.0)
        with pytest.raises(TransportError, match="closed the connection before it had answered"):
            await asyncio.wait_for(asked.post(b"x" * 30_000_000), PATIENCE)
        over.set()


async def test_what_came_before_the_break_is_not_lost(serve: Serve) -> None:
    """The data and the reset are both there before the reader looks."""
    server = await serve([CHUNKED + b"9\r\ndata: 1\n\n\r\n", "close"], serve.whole(b"x"))
    opened = await endpoint(server.url).open(b"{}")
    assert not isinstance(opened, bytes)
    await asyncio.wait_for(server.left.wait(), PATIENCE)
    for _ in range(20):
        await asyncio.sleep(0)
    assert await opened.read() == [b"1"]
    with pytest.raises(TransportError):
        await opened.read()
    opened.close()


@pytest.mark.parametrize("last_words", [b"", b"HTTP/1.1 408 X\r\ncontent-length: 0\r\n\r\n"])
async def test_a_kept_connection_that_the_server_ended_is_replaced(last_words: bytes, serve: Serve) -> None:
    """It ends so late that the loop has not been told when the next request is about to be written."""
    server = await serve(serve.whole(b"one"), serve.whole(b"two"))
    asked = endpoint(server.url)
    assert await asked.post(b"{}") == b"one"
    (writer,) = server.writers.values()
    raw = socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno()))
    with raw:
        raw.send(last_words)
        raw.shutdown(socket.SHUT_RDWR)
    assert await asked.post(b"{}") == b"two"
    assert (server.connections, len(server.requests)) == (2, 2)


async def test_every_kept_connection_that_ended_is_passed_over(serve: Serve) -> None:
    server, asked = await many_at_once(serve, 3)
    for writer in server.writers.values():
        writer.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
    assert await asked.post(b"{}") == b"one"
    assert (server.connections, len(server.requests)) == (4, 4)


async def test_a_kept_connection_that_ended_long_ago_is_replaced(serve: Serve) -> None:
    server = await serve([*serve.whole(b"one"), "close"], serve.whole(b"two"))
    asked = endpoint(server.url)
    assert await asked.post(b"{}") == b"one"
    await asyncio.wait_for(server.left.wait(), PATIENCE)
    await asyncio.sleep(0)
    assert await asked.post(b"{}") == b"two"
    assert (server.connections, len(server.requests)) == (2, 2)


@pytest.mark.parametrize("end", ["close", "reset"])
@pytest.mark.parametrize("streamed", [True, False])
async def test_a_request_that_was_read_and_dropped_is_not_sent_again(streamed: bool, end: Any, serve: Serve) -> None:
    """Also on a kept connection: the server may have worked on it."""
    server = await serve(serve.whole(b"one"), [end], serve.whole(b"two"))
    asked = endpoint(server.url)
    assert await asked.post(b"{}") == b"one"
    with pytest.raises(TransportError) as caught:
        await (read(asked) if streamed else asked.post(b"{}"))
    assert (caught.value.retryable, caught.value.timeout) == (True, False)
    assert (server.connections, len(server.requests)) == (1, 2)
    assert await asked.post(b"{}") == b"two"
    assert (server.connections, len(server.requests)) == (2, 3)


async def test_half_an_answer_on_a_kept_connection_is_not_asked_for_again(serve: Serve) -> None:
    server = await serve(serve.whole(b"one"), [b"HTTP/1.1 200 OK\r\ncontent-", "close"])
    asked = endpoint(server.url)
    await asked.post(b"{}")
    with pytest.raises(TransportError):
        await asked.post(b"{}")
    assert len(server.requests) == 2


@pytest.mark.parametrize("streamed", [True, False])
async def test_an_error_status_is_the_error_its_body_tells(streamed: bool, serve: Serve) -> None:
    body = {"error": {"message": f"slow down, {KEY}", "code": "limit"}}
    server = await serve(serve.whole(body, 429, {"Retry-After": "3", "X-Request-Id": "req_1"}))
    asked = endpoint(server.url)
    with pytest.raises(RateLimited) as caught:
        await (read(asked) if streamed else asked.post(b"{}"))
    error = caught.value
    assert str(error) == "acme answered 429 (limit): slow down, ***; it asks to wait 3 s"
    assert (error.retry_after, error.request_id, error.code) == (3.0, "req_1", "limit")
    assert_no_secret(error)


@pytest.mark.parametrize("status", [300, 304, 305])
async def test_what_is_no_redirect_is_an_error_as_any(status: int, serve: Serve) -> None:
    answer = f"HTTP/1.1 {status} X\r\nlocation: http://other.test/\r\ncontent-length: 0\r\n\r\n".encode()
    server = await serve([answer])
    with pytest.raises(ProviderError, match=f"^acme answered {status}$") as caught:
        await endpoint(server.url).post(b"{}")
    assert (caught.value.status, caught.value.retryable) == (status, False)


@pytest.mark.parametrize("status", [100, 102, 103, 199])
async def test_what_is_said_before_the_answer_is_passed_over(status: int, serve: Serve) -> None:
    (whole,) = serve.whole(b"answer")
    assert isinstance(whole, bytes)
    server = await serve([f"HTTP/1.1 {status} X\r\n\r\n".encode() + whole])
    assert await endpoint(server.url).post(b"{}") == b"answer"


async def test_html_instead_of_a_stream_is_a_violation(serve: Serve) -> None:
    server = await serve(serve.whole(b"<html>login</html>" + b"x" * 900, headers={"content-type": "text/html"}))
    with pytest.raises(ProtocolViolation, match=r"sent text/html instead of an event .*: <html>login") as caught:
        await read(endpoint(server.url))
    assert len(caught.value.excerpt) == 201


async def test_nobody_listens_in_plain_words() -> None:
    port = await free_port()
    with pytest.raises(TransportError) as caught:
        await endpoint(f"http://127.0.0.1:{port}").post(b"{}")
    assert str(caught.value) == f"cannot connect to 127.0.0.1:{port}: connection refused; check base_url"


async def test_a_program_error_is_not_taken_for_one_of_the_server(serve: Serve) -> None:
    """Two read one stream at once, which cannot be: it is no violation of HTTP."""
    server = await serve(serve.stream(b"data: 1\n\n", "hold", end=False))
    opened = await endpoint(server.url).open(b"{}")
    assert not isinstance(opened, bytes)
    assert await opened.read() == [b"1"]
    first = asyncio.create_task(opened.read())
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="already waiting"):
        await opened.read()
    first.cancel()
    opened.close()


# --- TLS -------------------------------------------------------------------------------------------------------------


OVER_TLS = """
import asyncio, sys
from plait.errors import ModelError
from plait.providers.http import Endpoint
from plait.providers.status import Service

async def ask():
    asked = Endpoint(sys.argv[1] + "/ask", Service(provider="acme", address="acme.test:443"), headers={})
    try:
        return await asked.post(b"{}")
    except ModelError as error:
        return f"{type(error).__name__} {error.retryable} {error}"

print(asyncio.run(ask()))
"""


async def test_a_connection_over_tls_is_kept(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """What TLS itself sends on an idle connection (session tickets) is not taken for its end."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate("good"))
    server = await serve(serve.whole(b"one"), serve.whole(b"two"), tls=context)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate("good")))
    twice = OVER_TLS.replace("return await", "await asked.post(b'{}'); return await")
    assert (await run(twice, server)).strip() == "b'two'"
    assert server.connections == 1


@pytest.mark.parametrize(("kind", "trusted"), [("good", False), ("wrong-name", True)])
async def test_why_a_certificate_is_refused_is_said_without_jargon(
    kind: Any, trusted: bool, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate(kind))
    server = await serve(serve.whole(b"one"), tls=context)
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate(kind)))
    reason = "IP address mismatch, certificate is not valid for '127.0.0.1'" if trusted else "self-signed certificate"
    said = (await run(OVER_TLS, server)).strip().removesuffix(".")
    assert said == f"TransportError False the certificate of acme.test:443 is not valid for it: {reason}"


async def test_what_speaks_no_tls_is_said_without_jargon() -> None:
    with FaultServer() as plain:
        url = plain.url.replace("http://", "https://")
        with pytest.raises(TransportError) as caught:
            await endpoint(url).post(b"{}")
    assert str(caught.value) == f"{address_of(url)} does not speak TLS as it should: wrong version number"


# --- deadlines and sizes ---------------------------------------------------------------------------------------------


async def test_no_connection_in_time() -> None:
    with socket.socket() as full:  # a listener whose queue is full answers nobody
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = []
        for _ in range(4):
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex(full.getsockname())
            waiting.append(one)
        port = full.getsockname()[1]
        with pytest.raises(TransportError, match=f"127.0.0.1:{port}: no connection within 0.2 s") as caught:
            await asyncio.wait_for(endpoint(f"http://127.0.0.1:{port}", connect=0.2).post(b"{}"), PATIENCE)
        for one in waiting:
            one.close()
    assert caught.value.timeout


@pytest.mark.parametrize("streamed", [True, False])
async def test_no_answer_at_all(streamed: bool, serve: Serve) -> None:
    server = await serve(["hold"])
    asked = endpoint(server.url, silence=0.2) if streamed else endpoint(server.url, total=0.2)
    with pytest.raises(TransportError, match=f"127.0.0.1:{server.port}: no answer within 0.2 s") as caught:
        await asyncio.wait_for(read(asked) if streamed else asked.post(b"{}"), PATIENCE)
    assert caught.value.timeout
    await asyncio.wait_for(server.left.wait(), PATIENCE)


async def test_silence_in_a_stream(serve: Serve) -> None:
    server = await serve(serve.stream(b"data: 1\n\n", "hold", end=False))
    opened = await endpoint(server.url, silence=0.2).open(b"{}")
    assert not isinstance(opened, bytes)
    assert await opened.read() == [b"1"]
    with pytest.raises(TransportError, match=r"no byte for 0.2 s") as caught:
        await asyncio.wait_for(opened.read(), PATIENCE)
    assert caught.value.timeout
    opened.close()
    await asyncio.wait_for(server.left.wait(), PATIENCE)


async def test_silence_counts_only_while_somebody_waits(serve: Serve) -> None:
    """A reader that takes its time is no silent server."""
    go = asyncio.Event()
    server = await serve(serve.stream(b"data: 1\n\n", go, b"data: 2\n\n"))
    opened = await endpoint(server.url, silence=0.1).open(b"{}")
    assert not isinstance(opened, bytes)
    assert await opened.read() == [b"1"]
    await asyncio.sleep(0.3)
    go.set()
    assert await asyncio.wait_for(opened.read(), PATIENCE) == [b"2"]
    opened.close()


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_slow_drip_ends_at_the_total(streamed: bool, serve: Serve) -> None:
    class Drip(asyncio.Event):
        async def wait(self) -> Any:
            await asyncio.sleep(0.02)

    steps: list[Step] = [part for _ in range(500) for part in (b": x\n", Drip())]
    server = await serve(serve.stream(*steps))
    asked = endpoint(server.url, total=0.3)
    with pytest.raises(TransportError, match=r"not complete within") as caught:
        await asyncio.wait_for(read(asked) if streamed else asked.post(b"{}"), PATIENCE)
    assert caught.value.timeout
    await asyncio.wait_for(server.left.wait(), PATIENCE)


@pytest.mark.parametrize(
    ("limits", "answer", "limit"),
    [
        ({"answer_bytes": 1000}, "whole", 1000),
        ({"answer_bytes": 1000}, "one event", 1000),
        ({"answer_bytes": 1000}, "line without end", 1000),
        ({"stream_bytes": 5000}, "many events", 5000),
    ],
)
async def test_what_is_too_large_is_cut_off(limits: dict[str, int], answer: str, limit: int, serve: Serve) -> None:
    flood: list[Step] = [b"x" * 900] * 200_000
    answers: dict[str, list[Step]] = {
        "whole": [HEAD + b"\r\n", *flood],
        "one event": serve.stream(b"data: " + b"x" * 2000 + b"\n\n", "hold", end=False),
        "line without end": [HEAD + b"\r\ndata: ", *flood],
        "many events": [HEAD + b"\r\n", *[b"data: " + b"x" * 100 + b"\n\n"] * 200_000],
    }
    server = await serve(answers[answer])
    asked = endpoint(server.url, **limits)
    with pytest.raises(LimitExceeded, match=f"has more than {limit} bytes") as caught:
        await asyncio.wait_for(asked.post(b"{}") if answer == "whole" else read(asked), PATIENCE)
    assert caught.value.limit == limit
    await asyncio.wait_for(server.left.wait(), PATIENCE)


async def test_a_small_body_that_unpacks_to_a_large_one_is_cut_off(serve: Serve) -> None:
    bomb = gzip.compress(b"\0" * 50_000_000)
    server = await serve(serve.whole(bomb, headers={"content-encoding": "gzip"}))
    with pytest.raises(LimitExceeded):
        await endpoint(server.url, answer_bytes=1_000_000).post(b"{}")


# --- leaving early ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("after", range(12))
async def test_cancelled_anywhere_no_connection_is_left_in_use(after: int, streamed: bool, serve: Serve) -> None:
    server = await serve([*serve.stream(b"data: 1\n\n", end=False), "hold"])
    asked = endpoint(server.url)
    task = asyncio.create_task(read(asked) if streamed else asked.post(b"{}"))
    if after > 9:
        await asyncio.wait_for(server.asked.wait(), PATIENCE)
        await asyncio.sleep(0.02 * (after - 9))
    else:
        for _ in range(after):
            await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    if server.open:
        await asyncio.wait_for(server.left.wait(), PATIENCE)


async def test_a_stream_left_half_read_is_closed(serve: Serve) -> None:
    server = await serve(serve.stream(b"data: 1\n\n", "hold", end=False))
    opened = await endpoint(server.url).open(b"{}")
    assert not isinstance(opened, bytes)
    await opened.read()
    opened.close()
    await asyncio.wait_for(server.left.wait(), PATIENCE)


async def test_after_the_last_event_the_rest_is_waited_for_only_a_moment(serve: Serve) -> None:
    server = await serve(serve.stream(b"data: 1\n\n", "hold", end=False), serve.whole(b"x"))
    opened = await endpoint(server.url).open(b"{}")
    assert not isinstance(opened, bytes)
    await opened.read()
    await asyncio.wait_for(opened.finish(), PATIENCE)
    opened.close()
    await asyncio.wait_for(server.left.wait(), PATIENCE)


# --- connections belong to nobody ------------------------------------------------------------------------------------


async def test_what_a_tool_began_for_all_does_not_end_with_it(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name of a server is looked up once for all who wait for it."""
    loop = asyncio.get_running_loop()
    looked_up, go = asyncio.Event(), asyncio.Event()
    of_the_system = loop.getaddrinfo

    async def getaddrinfo(host: str, port: int, **options: Any) -> Any:
        looked_up.set()
        await go.wait()
        return await of_the_system("127.0.0.1", port, **options)

    monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)
    server = await serve(serve.whole(b"answer"))
    url = f"http://llm.test:{server.port}"
    errands = Errands()

    async def tool() -> asyncio.Task[bytes]:
        weak = errands.begin("search", "run_1")
        errand = weak()
        left = asyncio.create_task(endpoint(url).post(b"{}"))
        del errand
        errands.finish(weak)
        return left

    left = await asyncio.create_task(tool())
    await asyncio.wait_for(looked_up.wait(), PATIENCE)
    other = asyncio.create_task(endpoint(url).post(b"{}"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await asyncio.wait_for(errands.end(), PATIENCE)
    assert left.cancelled()
    go.set()
    assert await asyncio.wait_for(other, PATIENCE) == b"answer"


async def test_a_kept_connection_does_not_keep_what_belonged_to_the_run_that_opened_it(serve: Serve) -> None:
    class Large:
        pass

    server = await serve(serve.whole(b"answer"))
    belongs: ContextVar[Large] = ContextVar("belongs")

    async def ask() -> ref[Large]:
        large = Large()
        belongs.set(large)
        assert await endpoint(server.url).post(b"{}") == b"answer"
        return ref(large)

    weak = await asyncio.create_task(ask())
    await asyncio.sleep(0)  # the event loop itself lets go of the task
    gc.collect()
    assert weak() is None
    assert server.open == 1


async def test_of_many_free_connections_not_all_are_kept(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    from plait.providers.http import connections

    monkeypatch.setattr(connections, "_MOST_KEPT", 10)
    server, asked = await many_at_once(serve, 12)
    deadline = time.monotonic() + PATIENCE
    while server.open != 10:
        assert time.monotonic() < deadline, server.open
        await asyncio.sleep(0.01)
    assert await asked.post(b"{}") == b"one"
    assert server.connections == 12


async def test_an_address_that_nobody_asks_any_more_is_forgotten(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    from plait.providers.http import connections

    monkeypatch.setattr(connections, "_KEEP_ALIVE", 0.05)
    server = await serve(serve.whole(b"one"))
    asked = endpoint(server.url)
    await asked.post(b"{}")
    await asyncio.wait_for(server.left.wait(), PATIENCE)
    here = await connections.connections_of(asyncio.get_running_loop())
    assert here._kept == {}  # noqa: SLF001  # nothing else shows it
    assert await asked.post(b"{}") == b"one"
    assert server.connections == 2


def test_a_loop_that_another_thread_forgot_meanwhile_does_no_harm() -> None:
    from plait.providers.http.connections import _open, connections_of

    async def begin() -> None:
        await connections_of(asyncio.get_running_loop())

    class Left(asyncio.SelectorEventLoop):
        """While one thread asks whether it is closed, another one asks too, forgets it, and is done."""

        asked = False

        def is_closed(self) -> bool:
            if super().is_closed() and not self.asked:
                self.asked = True
                quicker = threading.Thread(target=asyncio.run, args=(begin(),))
                quicker.start()
                quicker.join()
            return super().is_closed()

    left = Left()
    left.run_until_complete(begin())
    left.close()  # without ending its async generators, as careless programs do
    asyncio.run(begin())
    assert left.asked
    assert left not in _open


# --- loops, processes, addresses -------------------------------------------------------------------------------------

PROGRAM = """
import asyncio, os, sys, warnings
warnings.simplefilter("error")
from plait.providers.http import Endpoint
from plait.providers.http.connections import _open
from plait.providers.status import Service

async def ask():
    asked = Endpoint(sys.argv[1] + "/ask", Service(provider="acme", address="x"), headers={})
    return await asked.post(b"{}")

def in_a_loop_of_its_own():
    loop = asyncio.new_event_loop()
    made = loop.run_until_complete(ask())
    loop.close()  # without ending its async generators, as careless programs do
    return made

assert asyncio.run(ask()) == asyncio.run(ask()) == b"answer"
assert not _open
"""


async def run(program: str, server: Loopback, *options: str) -> str:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *options,
        "-c",
        program,
        server.url,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    said, _ = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0, said.decode()
    return said.decode()


async def test_a_session_is_closed_with_its_loop_without_a_word(serve: Serve) -> None:
    server = await serve(serve.whole(b"answer"))
    assert await run(PROGRAM, server, "-W", "error") == ""
    assert server.connections == 2


async def test_a_loop_closed_carelessly_does_no_harm(serve: Serve) -> None:
    server = await serve(serve.whole(b"answer"))
    more = "\nwarnings.simplefilter('ignore')\nfor _ in range(3): assert in_a_loop_of_its_own() == b'answer'\n"
    said = await run(f"{PROGRAM}{more}assert len(_open) == 1\nassert asyncio.run(ask()) == b'answer'", server)
    assert said == ""


@pytest.mark.fault("C11")
async def test_after_a_fork_the_child_has_connections_of_its_own(serve: Serve) -> None:
    server = await serve(serve.whole(b"answer"))
    more = """
loop = asyncio.new_event_loop()
loop.run_until_complete(ask())
child = os.fork()
if child == 0:
    assert asyncio.run(ask()) == b"answer"
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert loop.run_until_complete(ask()) == b"answer"  # the parent's connection is unharmed
loop.run_until_complete(loop.shutdown_asyncgens())
loop.close()
"""
    assert await run(PROGRAM + more, server) == ""
    assert server.connections == 4  # two of the program before, the parent's one, the child's one


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("https://api.acme.test/v1", "api.acme.test:443"),
        ("http://localhost", "localhost:80"),
        ("http://[::1]:8080/x", "[::1]:8080"),
    ],
)
def test_addresses(url: str, address: str) -> None:
    assert address_of(url) == address


@pytest.mark.parametrize(
    "url",
    [
        *("", "api.acme.test", "ftp://x", "http://", "http://x:port", "http://u:secret@x/"),
        *("http://x/v1?y=1", "http://x/v1#y", "http://x\N{HORIZONTAL ELLIPSIS}y/"),
        *("http://a..b/", f"http://{'a' * 64}.test/", "http://\ud800.test/", "http://[::1/"),
    ],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        address_of(url)
    assert "secret" not in str(caught.value)


async def test_proxies_of_the_environment_are_used(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = await serve(serve.whole(b"by proxy"))
    direct = await serve(serve.whole(b"direct"))
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert await endpoint("http://api.acme.test/v1").post(b"{}") == b"by proxy"
    assert await endpoint(direct.url).post(b"{}") == b"direct"
    assert proxy.requests[0].path == "http://api.acme.test/v1/ask"


async def test_a_proxy_with_a_password_is_told_it_with_each_request(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also on a connection that another endpoint opened."""
    proxy = await serve(serve.whole(b"by proxy"))
    monkeypatch.setenv("HTTP_PROXY", f"http://me%40home:s%3Aecret@127.0.0.1:{proxy.port}")
    for _ in range(2):
        asked = endpoint("http://api.acme.test/v1")
        assert [await asked.post(b"{}"), await asked.post(b"{}")] == [b"by proxy"] * 2
    expected = "Basic " + base64.b64encode(b"me@home:s:ecret").decode()
    assert [request.headers.get("proxy-authorization") for request in proxy.requests] == [expected] * 4
    assert {request.headers["authorization"] for request in proxy.requests} == {f"Bearer {KEY}"}
    assert proxy.connections == 1


async def test_a_proxy_with_a_password_is_told_it_with_each_tunnel(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = await serve([b"HTTP/1.1 407 X\r\ncontent-length: 0\r\n\r\n", "close"])
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:secret@127.0.0.1:{proxy.port}")
    with pytest.raises(TransportError, match=r"the proxy refused the connection to api.acme.test:443 \(407\)"):
        await endpoint("https://api.acme.test/v1").post(b"{}")
    assert proxy.requests[0].headers["proxy-authorization"] == "Basic " + base64.b64encode(b"me:secret").decode()
    assert "authorization" not in proxy.requests[0].headers


async def test_a_proxy_without_a_scheme_is_one(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = await serve(serve.whole(b"by proxy"))
    monkeypatch.setenv("HTTP_PROXY", f"127.0.0.1:{proxy.port}")
    assert await endpoint("http://api.acme.test/v1").post(b"{}") == b"by proxy"


@pytest.mark.parametrize(
    "proxy",
    [
        *("http://u:secret@a..b:80", f"http://{'a' * 64}:80", "http://u:secret@127.0.0.1:99999", "http://[::secret"),
        *("socks5://u:secret@127.0.0.1:9", "http://"),
    ],
)
async def test_a_proxy_that_cannot_be_one_is_refused(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy)
    with pytest.raises(ConfigurationError, match="HTTP_PROXY names no proxy") as caught:
        await endpoint("http://api.acme.test/v1").post(b"{}")
    shown = "".join(traceback.format_exception(caught.value))
    assert "secret" not in shown


def test_limits_are_plain_values() -> None:
    limits = TransportLimits(connect=1.0)
    assert pickle.loads(pickle.dumps(limits)) == limits  # noqa: S301  # our own bytes
    assert json.dumps(limits.silence) == "60.0"


def test_connections_are_begun_a_few_at_once_and_then_in_turn() -> None:
    pace = Pace()
    assert [round(pace.delay(100.0), 6) for _ in range(7)] == [0, 0, 0, 0, 0, 0.002, 0.004]
    assert [round(pace.delay(100.003), 6) for _ in range(2)] == [0.003, 0.005]
    assert [round(pace.delay(200.0), 6) for _ in range(6)] == [0, 0, 0, 0, 0, 0.002]
