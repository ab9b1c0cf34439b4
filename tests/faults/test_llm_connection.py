"""Connections that fail: before the request, in the answer's head, by silence; redirects, and what is no HTTP."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from faults.spoken import KEY
from faults.trials import trial
from faults.ways import DIALECTS, EACH, SHARED, Way, by_agents
from plait import LimitExceeded, ProtocolViolation, ProviderError, RetryPolicy, StreamTruncated, TransportError
from plait.providers.http import TransportLimits
from plait.testing import Cut, FaultServer, Flood, Reply, Wire, answer, certificate, fault, tool_calls

if TYPE_CHECKING:
    from plait.testing.reply import DialectName, Scripted

ONCE = RetryPolicy(max_retries=0)
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


# --- before there is an answer ---------------------------------------------------------------------------------------


@pytest.mark.fault("L10")
@pytest.mark.parametrize("way", SHARED)
async def test_nobody_listens(way: Way) -> None:
    async with trial(way=way) as made:
        made.server.refuse()
        error = (await made.ask()).error
        assert (type(error), error.retryable, error.timeout, error.attempts) == (TransportError, True, False, 3)
        assert f"cannot connect to 127.0.0.1:{made.server.port}: connection refused; " in str(error)
        assert str(error).endswith("; check the network, and base_url if you gave one (after 3 tries)")
        made.server.accept()


@pytest.mark.fault("L10")
async def test_nobody_listens_where_ollama_should() -> None:
    from plait import Request, UserMessage
    from plait.providers.chat import ChatProvider

    with FaultServer() as server:
        server.refuse()
        provider = ChatProvider("llama", name="ollama-chat", base_url=server.url)
        with pytest.raises(TransportError, match=r"; start Ollama there \(ollama serve\), or correct OLLAMA_HOST"):
            await anext(provider.stream(Request(messages=(UserMessage(text="hi"),))))


@pytest.mark.fault("L10")
@pytest.mark.parametrize("way", SHARED)
async def test_it_comes_back_between_two_tries(way: Way) -> None:
    policy = RetryPolicy(max_retries=3, initial_delay=0.05, backoff="fixed", jitter=0.0)
    async with trial("yes", way=way, policy=policy) as made:
        made.server.refuse()
        asyncio.get_running_loop().call_later(0.02, made.server.accept)
        outcome = await made.ask()
        assert (outcome.text, outcome.error, made.sent) == ("yes", None, 1)


NO_SUCH_NAME = """
import asyncio, sys, threading
from faults.spoken import provider
from plait import Agent, Retrying, RetryPolicy, TransportError

async def main():
    inner = provider(sys.argv[1], "http://no-such-host.invalid/v1", api_key="sk-secret-secret")
    agent = Agent(role="r", provider=Retrying(inner, RetryPolicy(max_retries=1, initial_delay=0.0)))
    for ask in (agent.chat, agent.stream, agent.run):
        try:
            await ask("hi")
        except TransportError as error:
            assert "the name of no-such-host.invalid:80 cannot be resolved: " in str(error), error
            assert str(error).endswith("; check the network, and base_url if you gave one (after 2 tries)"), error
        else:
            raise SystemExit("no error")

asyncio.run(main())
print([thread.name for thread in threading.enumerate()])
"""


@pytest.mark.fault("L11")
@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_name_is_unknown_and_no_thread_is_left(dialect: DialectName) -> None:
    done = subprocess.run(
        [sys.executable, "-c", NO_SUCH_NAME, dialect],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert (done.stdout, done.stderr) == ("['MainThread']\n", "")


@pytest.mark.fault("L12")
@pytest.mark.parametrize("way", SHARED)
async def test_it_does_not_speak_tls(way: Way) -> None:
    with FaultServer() as plain:
        url = plain.url_for(way.dialect).replace("http", "https", 1)
        async with trial(way=way, url=url, heals=False) as made:
            error = (await made.ask()).error
            assert (type(error), error.attempts) == (TransportError, 3)
            assert f"127.0.0.1:{plain.port} does not speak TLS" in str(error)
        assert plain.exchanges == []


@pytest.mark.fault("L12")
@pytest.mark.parametrize("way", SHARED)
@pytest.mark.parametrize("kind", ["good", "expired", "wrong-name"])
async def test_a_certificate_that_nobody_vouches_for_is_final(kind: str, way: Way) -> None:
    async with trial(way=way, tls=kind, heals=False) as made:  # type: ignore[arg-type]
        error = (await made.ask()).error
        assert (type(error), error.retryable, error.attempts) == (TransportError, False, 1)
        assert f"the certificate of 127.0.0.1:{made.server.port} is not valid for it: " in str(error)
        assert (made.sent, made.server.connections) == (0, 0)  # a handshake that fails makes no connection


OVER_TLS = """
import asyncio, sys
from faults.spoken import provider
from plait import Agent, Retrying, TransportError

async def main():
    inner = provider(sys.argv[1], sys.argv[2], api_key="sk-secret-secret")
    agent = Agent(role="r", provider=Retrying(inner))
    for ask in (agent.chat, agent.stream):
        try:
            print(await ask("hi"))
        except TransportError as error:
            print(error.retryable, error.attempts, error)

asyncio.run(main())
"""


@pytest.mark.fault("L12")
@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("good", "yes"),
        ("expired", "False 1 the certificate of 127.0.0.1:PORT is not valid for it: "),
        ("wrong-name", "False 1 the certificate of 127.0.0.1:PORT is not valid for it: "),
    ],
)
@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_trusted_certificate_must_fit_too(kind: str, said: str, dialect: DialectName) -> None:
    """What to trust is read from the environment when Python starts to speak TLS, so each is a program of its own."""
    with FaultServer("yes", tls=kind) as server:  # type: ignore[arg-type]
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", OVER_TLS, dialect, server.url_for(dialect)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(sys.path),
                "SSL_CERT_FILE": str(certificate(kind)),  # type: ignore[arg-type]
            },
        )
        out, err = await asyncio.wait_for(process.communicate(), 30)
        lines = out.decode().splitlines()
        assert err == b""
        assert [line.startswith(said.replace("PORT", str(server.port))) for line in lines] == [True, True]
        assert len(server.exchanges) == (2 if kind == "good" else 0)


@pytest.mark.fault("L13")
@pytest.mark.parametrize("way", SHARED)
@pytest.mark.parametrize("end", ["fin", "rst"])
async def test_the_head_breaks_off(end: str, way: Way) -> None:
    async with trial(way=way) as made:
        for head in (0, 1, 4, 8, 9, 12, 15, 16, 17, 30, 60):
            broken = Reply(wire=Wire(cut=Cut(head=head, then=end)))  # type: ignore[arg-type]
            made.server.play(broken, answer("yes"))
            sent = made.sent
            outcome = await made.ask()
            assert (outcome.text, outcome.error, made.sent - sent) == ("yes", None, 2), head
            made.server.play(broken)
            error = (await made.ask()).error
            assert (type(error), error.attempts, error.timeout) == (TransportError, 3, False), head


@pytest.mark.fault("L13")
@pytest.mark.parametrize("way", SHARED)
async def test_only_an_interim_answer_comes(way: Way) -> None:
    interim = b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"
    async with trial(Reply(raw=(interim, "fin")), way=way, policy=ONCE) as made:
        assert type((await made.ask()).error) is TransportError


# --- what is no HTTP -------------------------------------------------------------------------------------------------

NO_HTTP: dict[str, Scripted] = {
    "another protocol": fault("not-http"),
    "TLS": Reply(raw=(b"\x15\x03\x01\x00\x02\x02\x46\r\n\r\n", "fin")),
    "a status that is none": fault("bad-status"),
    "a header without a colon": Reply(raw=(b"HTTP/1.1 200 OK\r\nnonsense\r\n\r\n", "fin")),
    "a header without an end": Reply(raw=(b"HTTP/1.1 200 OK\r\na: ", Flood(b"x" * 10_000))),
    "two lengths": Reply(raw=(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello", "fin")),
    "a length that is none": Reply(raw=(b"HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\nhello", "fin")),
    "length and chunks": Reply(
        raw=(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", "fin")
    ),
    "a bad chunk size": fault("bad-chunk-size"),
    "a bad chunk size later": Reply(raw=(HEAD + b"1\r\n\n\r\n", 0.05, b"ZZ\r\n", "fin")),
    "a negative chunk size": Reply(raw=(HEAD + b"-5\r\nhello\r\n", "fin")),
    "a chunk size with a sign": Reply(raw=(HEAD + b"+5\r\nhello\r\n", "fin")),
    "a chunk without its end": Reply(raw=(HEAD + b"5\r\nhelloXX6\r\n", "fin")),
}


MAIN = ("another protocol", "a bad chunk size")  # asked in every way, their relatives whole and streamed


@pytest.mark.fault("L14")
@pytest.mark.parametrize(
    ("what", "way"),
    [(what, way) for what in NO_HTTP for way in (SHARED if what in MAIN else EACH)],
)
async def test_it_is_no_http(what: str, way: Way) -> None:
    async with trial(NO_HTTP[what], way=way) as made:
        error = (await made.ask()).error
        assert (type(error), error.retryable, made.sent) == (ProtocolViolation, False, 1)
        assert "HTTP" in str(error)
        for word in ("Expected", "Invalid", "RTSP", "llhttp", "aiohttp", "b'", "^"):
            assert word not in str(error), "the library's words"
        assert len(error.excerpt) <= 201


@pytest.mark.fault("L14", "L51")
@pytest.mark.parametrize("way", SHARED)
async def test_a_chunk_size_that_never_ends(way: Way) -> None:
    limits = TransportLimits(silence=0.2, total=0.4)
    async with trial(Reply(raw=(HEAD, Flood(b"0" * 10_000))), way=way, limits=limits, policy=ONCE) as made:
        assert isinstance((await made.ask()).error, ProtocolViolation | TransportError | StreamTruncated)


# --- silence and time ------------------------------------------------------------------------------------------------


@pytest.mark.fault("L15")
@pytest.mark.parametrize("way", SHARED)
@pytest.mark.parametrize("raw", [b"", b"HTTP/1.1 200 OK\r\ncontent-ty", b"HTTP/1.1 100 Continue\r\n\r\n"])
async def test_nothing_comes(raw: bytes, way: Way) -> None:
    limits = TransportLimits(silence=0.12, total=0.12)
    policy = RetryPolicy(max_retries=1, initial_delay=0.0)
    async with trial(Reply(raw=(raw, "hold")), way=way, limits=limits, policy=policy) as made:
        error = (await made.ask()).error
        assert (type(error), error.timeout, error.attempts, made.sent) == (TransportError, True, 2, 2)
        assert "no answer within 0.12 s" in str(error)


@pytest.mark.fault("L15")
@pytest.mark.parametrize("way", SHARED)
async def test_one_deadline_bounds_all_tries(way: Way) -> None:
    policy = RetryPolicy(max_retries=1000, initial_delay=0.01, deadline=0.4)
    limits = TransportLimits(silence=0.08, total=0.12)
    async with trial(fault("no-answer"), way=way, limits=limits, policy=policy) as made:
        error = (await made.ask()).error  # which a thousand tries would not give in time
        assert (type(error), error.timeout) == (TransportError, True)
        assert 1 <= made.sent < 10


@pytest.mark.fault("L25")
@pytest.mark.parametrize("way", SHARED)
@pytest.mark.parametrize("where", ["head", "body"])
async def test_a_slow_drip(where: str, way: Way) -> None:
    slowly = [step for _ in range(300) for step in (b"a", 0.01)]
    drip = Reply(raw=(b"HTTP/1.1 200 OK\r\na: ", *slowly)) if where == "head" else fault("slow-drip")
    limits = TransportLimits(silence=0.15, total=0.2)
    async with trial(drip, way=way, limits=limits, policy=ONCE) as made:
        outcome = await made.ask()
        assert isinstance(outcome.error, TransportError | StreamTruncated)
        assert outcome.error.timeout
        assert isinstance(outcome.error, StreamTruncated) is (where == "body" and way.is_streamed)


# --- connections that are kept ---------------------------------------------------------------------------------------


@pytest.mark.fault("L16")
@pytest.mark.parametrize("way", SHARED)
@pytest.mark.parametrize("how", ["closed after", "closed while kept", "closed unseen"])
async def test_a_kept_connection_has_gone_stale(how: str, way: Way) -> None:
    first: Scripted = fault("closed-after") if how == "closed after" else answer("one")
    async with trial(first, answer("two"), way=way, policy=ONCE) as made:
        assert (await made.ask()).error is None
        if how != "closed after":
            made.server.hang_up()
        assert made.server.wait_until_left()
        if how != "closed unseen":
            await made.settle()
        outcome = await made.ask()
        assert (outcome.text, outcome.error) == ("two", None)
        assert (made.server.connections, made.sent) == (2, 2)


@pytest.mark.fault("L16")
@pytest.mark.parametrize("way", SHARED)
async def test_a_server_that_closes_says_so(way: Way) -> None:
    last = Reply(headers=(("Connection", "close"),), wire=Wire(then="fin"))
    async with trial(last, answer("two"), way=way, policy=ONCE) as made:
        assert (await made.ask()).error is None
        assert ((await made.ask()).text, made.server.connections) == ("two", 2)  # at once, without a look at the socket


# --- redirects -------------------------------------------------------------------------------------------------------


@pytest.mark.fault("L17", "S02")
@pytest.mark.parametrize("way", SHARED)
@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308])
async def test_a_redirect_is_never_followed(status: int, way: Way) -> None:
    with FaultServer("stolen") as other:
        location = ("Location", f"http://user:word@127.0.0.1:{other.port}/v1/chat/completions")
        async with trial(Reply(status=status, headers=(location,), body=b""), way=way) as made:
            error = (await made.ask()).error
            assert (type(error), error.status, error.retryable, made.sent) == (ProviderError, status, False, 1)
            said = f"answered {status}" if status in {300, 304} else f"redirects ({status}) to '127.0.0.1:{other.port}'"
            assert said in str(error)
            assert "word" not in str(error)
        assert other.connections == 0


@pytest.mark.fault("L17")
@pytest.mark.parametrize("way", SHARED)
@pytest.mark.parametrize(
    "location", ["", "/elsewhere", "//[", "http://", f"http://x.test/?key={KEY}", "x" * 5000, None]
)
async def test_a_redirect_to_anywhere(location: str | None, way: Way) -> None:
    headers = () if location is None else (("Location", location),)
    async with trial(Reply(status=307, headers=headers, body=b""), way=way) as made:
        error = (await made.ask()).error
        assert (type(error), error.status, made.sent) == (ProviderError, 307, 1)
        assert "redirects (307) to " in str(error)


@pytest.mark.fault("L17")
@pytest.mark.parametrize("way", SHARED)
async def test_a_redirect_to_itself(way: Way) -> None:
    async with trial(fault("redirect-loop"), way=way) as made:
        assert ((await made.ask()).error.status, made.sent) == (307, 1)


# --- bodies that are not what their head says ------------------------------------------------------------------------


@pytest.mark.fault("L18")
@pytest.mark.parametrize("way", SHARED)
@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd"])
async def test_a_body_in_another_encoding(encoding: str, way: Way) -> None:
    async with trial(Reply(headers=(("Content-Encoding", encoding),)), way=way) as made:
        error = (await made.ask()).error
        assert (type(error), made.sent) == (ProtocolViolation, 1)


@pytest.mark.fault("L18")
@pytest.mark.parametrize("way", SHARED)
async def test_gzip_that_breaks_off(way: Way) -> None:
    async with trial(Reply(wire=Wire(gzip="true", longer=50)), way=way, policy=ONCE) as made:
        outcome = await made.ask()  # all of it was there, so a stream is complete
        assert type(outcome.error) in ((type(None), TransportError) if way.is_streamed else (TransportError,))


@pytest.mark.fault("L18")
@pytest.mark.parametrize("way", SHARED)
@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
async def test_gzip_is_read(framing: str, way: Way) -> None:
    async with trial(Reply(wire=Wire(gzip="true", framing=framing)), way=way) as made:  # type: ignore[arg-type]
        outcome = await made.ask()
        assert (outcome.text[:10], outcome.error) == ("Hello from", None)


@pytest.mark.fault("L18")
@pytest.mark.parametrize("way", SHARED)
async def test_gzip_without_end(way: Way) -> None:
    import gzip

    bomb = gzip.compress(b"data: " + b"\0" * 3_000_000)
    reply = Reply(body=bomb, headers=(("content-encoding", "gzip"),))
    async with trial(reply, way=way, limits=TransportLimits(answer_bytes=1_000_000)) as made:
        assert type((await made.ask()).error) is LimitExceeded


@pytest.mark.fault("L18")
@pytest.mark.parametrize("way", SHARED)
async def test_shorter_than_declared(way: Way) -> None:
    """A stream that was whole before the connection closed is an answer all the same; one in one piece is not."""
    async with trial(fault("too-short"), way=way, policy=ONCE) as made:
        outcome = await made.ask()
        if way.is_streamed:
            assert (outcome.text[:5], outcome.error) == ("Hello", None)
        else:
            assert type(outcome.error) is TransportError


@pytest.mark.fault("L18", "L20", "L21")
@pytest.mark.parametrize("way", by_agents(SHARED))
@pytest.mark.parametrize("then", ["fin", "rst"])
async def test_a_break_after_tool_calls_leaves_a_log_that_can_be_sent(then: str, way: Way) -> None:
    calls = tool_calls(("weather", {"city": "A"}), ("weather", {"city": "B"}))
    broken = answer("never", piece=1).over(Wire(cut=Cut(event=2, then=then)))  # type: ignore[arg-type]
    async with trial(calls, broken, way=way, policy=ONCE) as made:
        assert isinstance((await made.ask()).error, TransportError | StreamTruncated)
        assert sorted(made.calls) == ["A", "B"]


def test_threads_of_the_server_end_with_it() -> None:
    before = threading.enumerate()
    with FaultServer() as server, socket.create_connection(("127.0.0.1", server.port)):
        assert len(threading.enumerate()) == len(before) + 1
    assert threading.enumerate() == before
