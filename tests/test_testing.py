from __future__ import annotations

import asyncio
import gzip
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from faults.aftermath import open_files
from plait import Agent, ConfigurationError, Retrying, ToolCall
from plait.providers.chat import ChatProvider
from plait.testing import (
    FAULTS,
    Asked,
    Call,
    Cut,
    Exchange,
    FaultServer,
    Flood,
    Gate,
    Injected,
    OfflineProvider,
    Recorder,
    Reply,
    Said,
    Style,
    Wire,
    answer,
    certificate,
    fault,
    tool_calls,
)
from plait.testing.__main__ import main
from plait.testing.chat import ChatDialect
from plait.testing.writing import steps_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from plait.testing.reply import Scripted

QUESTION = json.dumps({"model": "m1", "messages": [], "tools": [{"function": {"name": "weather"}}]}).encode()
STREAMED = json.dumps({"model": "m1", "messages": [], "stream": True}).encode()


def ask(server: FaultServer, body: bytes = QUESTION) -> tuple[int, bytes]:
    """Ask as a program does that knows nothing of event loops."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    try:
        connection.request("POST", "/v1/chat/completions", body, {"authorization": "Bearer sk-1"})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def events(body: bytes) -> list[bytes]:
    return [event.removeprefix(b"data: ") for event in body.split(b"\n\n") if event]


# --- answers ---------------------------------------------------------------------------------------------------------


def test_a_blocked_program_is_served_whole_and_streamed() -> None:
    with FaultServer(answer("Hello there", usage=(1, 2)), "again") as server:
        status, body = ask(server)
        assert status == 200
        assert json.loads(body)["choices"] == [
            {"index": 0, "message": {"role": "assistant", "content": "Hello there"}, "finish_reason": "stop"}
        ]
        assert json.loads(body)["usage"] == {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
        _, streamed = ask(server, STREAMED)
        deltas = [json.loads(event)["choices"][0]["delta"] for event in events(streamed)[:-1]]
        assert deltas == [{"role": "assistant", "content": ""}, {"content": "again"}, {}]
        assert events(streamed)[-1] == b"[DONE]"
        assert [request["model"] for request in server.requests] == ["m1", "m1"]


def test_the_last_entry_is_played_again_and_again_and_a_script_can_be_changed() -> None:
    with FaultServer("one", "two") as server:
        said = [json.loads(ask(server)[1])["choices"][0]["message"]["content"] for _ in range(3)]
        server.play("three")
        said.append(json.loads(ask(server)[1])["choices"][0]["message"]["content"])
        assert said == ["one", "two", "two", "three"]


def test_a_call_of_no_name_calls_the_first_tool_that_is_offered() -> None:
    with FaultServer(tool_calls(Call(arguments={"city": "A"}), ("other", "junk"), text="Well,")) as server:
        message = json.loads(ask(server)[1])["choices"][0]["message"]
    assert message["content"] == "Well,"
    assert [(call["id"], call["function"]) for call in message["tool_calls"]] == [
        ("call_1_0", {"name": "weather", "arguments": '{"city": "A"}'}),
        ("call_1_1", {"name": "other", "arguments": "junk"}),
    ]


def test_one_call_may_be_given_by_itself_and_calls_as_agents_know_them() -> None:
    one = Reply(said=Said(calls=(Call(name="weather", arguments={"city": "x"}),)))
    assert tool_calls("weather", {"city": "x"}) == tool_calls(("weather", {"city": "x"})) == one
    assert tool_calls("weather").said.calls == (Call(name="weather"),)
    assert tool_calls(ToolCall(id="a", name="f", arguments="junk")).said.calls == (
        Call(name="f", arguments="junk", id="a"),
    )


@pytest.mark.parametrize(
    "wrong",
    [(), ({"name": "f", "arguments": {}},), ("f", {}, "g"), ("f", ["x"]), (("f",), 5), (("f", {}), "g"), (None,)],
)
def test_what_is_no_call_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=r'a Call, a ToolCall, or a pair such as \("weather", \{"city"'):
        tool_calls(*wrong)


def test_a_function_may_answer_with_a_reply_its_text_or_a_fault() -> None:
    def chosen(asked: Asked) -> Injected:
        return fault("overloaded")

    with FaultServer(lambda asked: answer(f"{asked.number} {asked.tools}"), lambda asked: "just so", chosen) as server:
        assert b"1 ('weather',)" in ask(server)[1]
        assert json.loads(ask(server)[1])["choices"][0]["message"]["content"] == "just so"
        assert ask(server)[0] == 529


def test_programs_that_look_for_the_models_find_one() -> None:
    with FaultServer(fault("server-error")) as server:
        for path, status in (("/v1/models", 200), ("/elsewhere", 404)):
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
            connection.request("GET", path)
            response = connection.getresponse()
            assert (response.status, json.loads(response.read()).keys() <= {"object", "data", "error"}) == (
                status,
                True,
            )
            connection.close()
        assert server.requests == []
        assert ask(server)[0] == 500


def test_requests_in_chunks_and_after_a_question_are_read() -> None:
    with FaultServer("yes") as server, socket.create_connection(("127.0.0.1", server.port), timeout=5) as raw:
        raw.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nexpect: 100-continue\r\ntransfer-encoding: chunked\r\n\r\n")
        assert raw.recv(100).startswith(b"HTTP/1.1 100 Continue")
        raw.sendall(b'3\r\n{"a\r\n4;x=y\r\n":1}\r\n0\r\n\r\n')
        assert raw.recv(1000).startswith(b"HTTP/1.1 200 OK")
        assert server.requests == [{"a": 1}]


# --- values ---------------------------------------------------------------------------------------------------------


def test_a_reply_may_be_given_in_shorter_forms() -> None:
    assert Reply(said="hello") == Reply(said=Said(text="hello")) == answer("hello")
    assert Reply(headers={"Retry-After": "1"}).headers == (("Retry-After", "1"),)
    assert Reply(raw=[b"a", "fin"], events=[b"x"]) == Reply(raw=(b"a", "fin"), events=(b"x",))


_STEPS = "bytes to send, seconds to wait, a Gate, a Flood, 'fin', 'rst' or 'hold'"


@pytest.mark.parametrize(
    ("kind", "given", "why"),
    [
        (Reply, {"raw": b"HTTP"}, f"raw of a Reply is b'HTTP'; give a tuple of steps, each {_STEPS}"),
        (Reply, {"raw": ()}, f"raw of a Reply is (); give a tuple of steps, each {_STEPS}"),
        (Reply, {"raw": (b"a", "close")}, f"step 2 of raw of a Reply is 'close'; give {_STEPS}"),
        (Reply, {"raw": ("HTTP/1.1", "fin")}, f"step 1 of raw of a Reply is 'HTTP/1.1'; give {_STEPS}"),
        (Reply, {"raw": (-1,)}, f"step 1 of raw of a Reply is -1; give {_STEPS}"),
        (Reply, {"body": "hello"}, "the body of a Reply is 'hello'; give bytes"),
        (Reply, {"events": b"x"}, "events of a Reply is b'x'; give a tuple of bytes, the data of each event"),
        (Reply, {"status": "503"}, "the status of a Reply is '503'; give a whole number from 100 to 999"),
        (Reply, {"status": 42}, "the status of a Reply is 42; give a whole number from 100 to 999"),
        (
            Reply,
            {"headers": {"Retry-After": 1}},
            "headers of a Reply is {'Retry-After': 1}; give pairs of texts, or a mapping: {'Retry-After': '1'}",
        ),
        (
            Reply,
            {"wire": Cut()},
            "the wire of a Reply is Cut(head=None, byte=None, event=None, then='fin'); give a Wire(...)",
        ),
        (Reply, {"said": b"x"}, "said of a Reply is b'x'; give a Said(...), or the text of the answer"),
        (Cut, {"then": "reset"}, "then of a Cut is 'reset'; give 'fin', 'rst', 'hold' or 'end'"),
        (Cut, {"event": "3"}, "event of a Cut is '3'; give a whole number from 0"),
        (Style, {"newline": "x"}, "the newline of a Style is 'x'; give '\\n', '\\r\\n', '\\r' or 'mixed'"),
        (Style, {"bom": "no"}, "bom of a Style is 'no'; give True or False"),
        (Wire, {"piece": 0}, "the piece of a Wire is 0; give a whole number from 1"),
        (Wire, {"gzip": True}, "gzip of a Wire is True; give 'true' or 'false'"),
        (Wire, {"then": "close"}, "then of a Wire is 'close'; give 'fin', 'rst', 'hold' or 'keep'"),
        (Wire, {"pause": "1"}, "the pause of a Wire is '1'; give seconds, from 0"),
        (Wire, {"delay": float("nan")}, "the delay of a Wire is nan; give seconds, from 0"),
        (Flood, {"data": b""}, "the data of a Flood is b''; give at least one byte, as bytes"),
        (Said, {"text": b"x"}, "the text of a Said is b'x'; give a text or None"),
        (Said, {"calls": ("f",)}, "calls of a Said is ('f',); give a tuple of Call(...)"),
        (Said, {"piece": 0}, "the piece of a Said is 0; give a whole number from 1"),
        (Call, {"arguments": ["x"]}, "arguments of a Call is ['x']; give a mapping, or the model's own text"),
    ],
)
def test_a_value_that_cannot_be_is_refused_when_it_is_made(kind: Any, given: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        kind(**given)
    assert str(caught.value) == why


# --- the wire --------------------------------------------------------------------------------------------------------


def written(reply: Reply, **asked: Any) -> list[Any]:
    return list(steps_of(reply, ChatDialect(), Asked(**asked)))


def test_a_reply_becomes_steps() -> None:
    raw = (b"a", 0.5, "fin")
    assert written(Reply(raw=raw)) == list(raw)  # type: ignore[arg-type]
    head, body = written(Reply(body=b"hello", headers=(("Content-Type", "x"), ("A", "1"), ("A", "2"))))
    assert head == b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nContent-Type: x\r\nA: 1\r\nA: 2\r\n\r\n"
    assert body == b"hello"
    hello = Reply(body=b"hello")
    assert written(hello.over(Wire(cut=Cut(head=8, then="rst")))) == [b"HTTP/1.1", "rst"]
    assert written(hello.over(Wire(cut=Cut(byte=2))))[1:] == [b"he", "fin"]
    assert b"content-length: 5" in written(hello.over(Wire(cut=Cut(byte=2))))[0]
    assert b"content-length: 2" in written(hello.over(Wire(cut=Cut(byte=2, then="end"))))[0]
    assert written(hello.over(Wire(piece=2, pause=0.1)))[1:] == [b"he", 0.1, b"ll", 0.1, b"o"]
    assert written(hello.over(Wire(framing="chunked", bad_chunk=0)))[1:] == [b"ZZ\r\nhello\r\n", b"0\r\n\r\n"]
    assert written(hello.over(Wire(framing="close")))[1:] == [b"hello", "fin"]
    assert written(hello.over(Wire(flood=b"x")))[1:] == [b"hello", Flood(b"x")]
    assert written(hello.over(Wire(delay=1.0, then="hold"))) == [1.0, *written(hello), "hold"]
    assert gzip.decompress(written(hello.over(Wire(gzip="true")))[1]) == b"hello"
    assert written(hello.over(Wire(gzip="false")))[1] == b"hello"
    assert b"content-length: 12" in written(hello.over(Wire(longer=7)))[0]


def test_a_stream_is_cut_by_events_and_bytes_of_the_next() -> None:
    reply = answer("a b c").over(Wire(framing="close"))
    whole = written(reply, stream=True)[1:-1]
    assert len(whole) == 7  # the role, three words, the reason, the tokens, [DONE]
    assert written(reply.over(Wire(framing="close", cut=Cut(event=2))), stream=True)[1:] == [*whole[:2], "fin"]
    cut = Wire(framing="close", cut=Cut(event=2, byte=9, then="end"))
    assert written(reply.over(cut), stream=True)[1:] == [*whole[:2], whole[2][:9], "fin"]


def test_faults_happen_where_they_are_told() -> None:
    for at in (0, 2):
        with FaultServer(fault("L22", at=at)) as server:
            assert len(events(ask(server, STREAMED)[1])) == at
    with FaultServer(fault("ended-midway", byte=11)) as server:
        assert len(ask(server, STREAMED)[1]) == 11
    with FaultServer(fault("wait-seconds", at=7)) as server:
        ask(server)
        assert b"Retry-After: 7\r\n" in server.exchanges[0].sent


# --- the log ---------------------------------------------------------------------------------------------------------


def test_the_log_says_how_each_exchange_ended() -> None:
    told: list[str] = []
    script: list[Scripted] = ["yes", fault("closed-at-once"), fault("reset-at-once"), fault("no-answer")]
    with FaultServer(*script, tell=lambda exchange: told.append(str(exchange))) as server:
        ask(server)
        for _ in range(2):
            with pytest.raises((ConnectionError, http.client.RemoteDisconnected)):
                ask(server)
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as raw:
            raw.sendall(b"POST /v1/chat/completions HTTP/1.1\r\n\r\n")
            assert server.wait_for_requests(4)
            assert not server.wait_until_idle(0)
        assert server.wait_until_idle()
        assert server.wait_until_left()
        assert [exchange.ended for exchange in server.exchanges] == ["complete", "closed", "reset", "client left"]
        first = server.exchanges[0]
        assert (first.connection, first.headers["authorization"]) == (1, "Bearer sk-1")
        assert "sk-1" not in f"{first!r} {first} {server!r}"
        assert first.sent.startswith(b"HTTP/1.1 200 OK")
        assert first.seconds > 0
    assert [line.split()[-3] for line in told] == ["complete,", "closed,", "reset,", "left,"]


def test_nothing_of_a_server_is_left() -> None:
    before = threading.enumerate()
    with FaultServer(fault("no-answer")) as server:
        held = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(3)]
        held[0].sendall(b"POST / HTTP/1.1\r\n\r\n")
        server.wait_for_requests(1)
        port = server.port
    assert threading.enumerate() == before
    for one in held:
        one.close()
    with FaultServer(port=port) as again:  # and the port is free
        assert ask(again)[0] == 200


def test_a_port_that_is_taken_is_told() -> None:
    with FaultServer() as first:
        second = FaultServer(port=first.port)
        with pytest.raises(ConfigurationError, match=rf"cannot listen on port {first.port}: Address already in use"):
            second.start()
    with pytest.raises(ConfigurationError, match="is not running"):
        first.refuse()


@pytest.mark.parametrize("port", [-1, 65_536, 70_000])
def test_a_port_that_does_not_exist_is_refused(port: int) -> None:
    with pytest.raises(ConfigurationError, match=rf"cannot listen on port {port}; give one from 1 to 65535"):
        FaultServer(port=port)


def test_what_fails_while_a_server_begins_is_raised_and_leaves_nothing() -> None:
    before, files = threading.enumerate(), open_files()
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ConfigurationError, match="already in use"):
        FaultServer(port=taken.getsockname()[1]).start()
    assert (threading.enumerate(), open_files()) == (before, files)


def test_a_server_begins_once_until_it_was_stopped() -> None:
    with FaultServer("one") as server:
        with pytest.raises(ConfigurationError, match=rf"is running already, at http://127.0.0.1:{server.port}/v1"):
            server.start()
        assert ask(server)[0] == 200
    with server:
        assert ask(server)[0] == 200


@pytest.mark.parametrize("wrong", [5, None, b"bytes", ["a"]])
def test_what_is_no_script_is_refused_at_once(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=r'entry 2 of the script is .*; give .*, fault\("name"\), or'):
        FaultServer("fine", wrong)
    with FaultServer("fine") as server:
        with pytest.raises(ConfigurationError, match="entry 1 of the script is "):
            server.play(wrong)
        assert json.loads(ask(server)[1])["choices"][0]["message"]["content"] == "fine"


def test_a_text_that_is_a_fault_s_name_is_taken_for_a_mistake() -> None:
    with pytest.raises(ConfigurationError, match=r'entry 2 .* write fault\("closed-midway"\) for the fault, or answer'):
        FaultServer("fine", "closed-midway")


def test_a_server_that_was_not_started_has_no_address() -> None:
    server = FaultServer("fine")
    with pytest.raises(ConfigurationError, match=r"not started; use `with FaultServer\(\.\.\.\) as server:`"):
        server.url  # noqa: B018  # a property
    assert repr(server) == "FaultServer(not started, 0 exchanges)"


@pytest.mark.parametrize("make", [lambda name: FaultServer(tls=name), certificate])
@pytest.mark.parametrize("wrong", ["bad", True])
def test_a_certificate_that_does_not_exist_is_refused(make: Callable[[Any], object], wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="give 'good', 'expired' or 'wrong-name'"):
        make(wrong)


def raising(asked: Asked) -> Reply:
    message = f"no reply to {asked.number}"
    raise LookupError(message)


def ask_unheard(server: FaultServer) -> None:
    with pytest.raises(http.client.RemoteDisconnected):
        ask(server)


def test_an_error_in_a_script_ends_the_exchange_and_is_raised_when_the_server_ends() -> None:
    server = FaultServer(raising)
    server.start()
    ask_unheard(server)
    ask_unheard(server)
    assert server.wait_until_idle()
    assert [exchange.ended for exchange in server.exchanges] == ["closed", "closed"]
    with pytest.raises(LookupError, match="no reply to 1"):
        server.stop()
    server.stop()
    server.play("well")
    with server:  # it was told, and is told once
        assert ask(server)[0] == 200


def test_an_error_in_a_script_is_raised_over_the_client_s_and_under_an_interruption() -> None:
    def run(then: BaseException | None) -> None:
        with FaultServer(raising) as server:
            ask_unheard(server)
            if then is not None:
                raise then

    with pytest.raises(LookupError, match="no reply to 1"):
        run(None)
    with pytest.raises(LookupError, match="no reply to 1") as caught:
        run(ConnectionError("the client's"))
    assert repr(caught.value.__context__) == """ConnectionError("the client's")"""
    with pytest.raises(KeyboardInterrupt):
        run(KeyboardInterrupt())


def test_a_function_of_a_script_that_gives_no_reply_is_told() -> None:
    nothing: Any = {}.get
    server = FaultServer(nothing)
    server.start()
    ask_unheard(server)
    with pytest.raises(ConfigurationError, match="a function of the script gave None; give a Reply, the text of an"):
        server.stop()


def test_an_error_in_what_is_told_of_exchanges_is_raised_too() -> None:
    def tell(exchange: Exchange) -> None:
        raise LookupError(exchange.ended)

    server = FaultServer(tell=tell)
    server.start()
    assert ask(server)[0] == 200
    assert server.wait_until_left()
    with pytest.raises(LookupError, match="complete"):
        server.stop()


def test_it_can_refuse_and_accept_again() -> None:
    with FaultServer() as server:
        server.refuse()
        with pytest.raises(ConnectionRefusedError):
            ask(server)
        server.accept()
        server.accept()
        assert ask(server)[0] == 200
        server.refuse()
        with FaultServer(port=server.port), pytest.raises(ConfigurationError, match="in use; give another port"):
            server.accept()


async def test_a_gate_holds_a_reply_back() -> None:
    gate = Gate()
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"
    with FaultServer(Reply(raw=(head, gate, b"{}"))) as server:
        asking = asyncio.create_task(asyncio.to_thread(ask, server))
        await asyncio.to_thread(server.wait_for_requests, 1)
        assert not server.wait_until_idle(0.02)
        gate.open()
        assert await asyncio.wait_for(asking, 5) == (200, b"{}")
        assert await asyncio.to_thread(ask, server) == (200, b"{}")


def test_certificates_are_there() -> None:
    for name in ("good", "expired", "wrong-name"):
        assert "BEGIN CERTIFICATE" in certificate(name).read_text("ascii")


# --- the catalogue ---------------------------------------------------------------------------------------------------


def test_every_row_of_the_model_s_api_has_a_fault() -> None:
    rows = {one.row for one in FAULTS.values()}
    assert rows == {f"L{number:02}" for number in range(1, 53)}
    assert list(FAULTS) == [one.name for one in sorted(FAULTS.values(), key=lambda one: one.row)]
    assert [one.name for one in FAULTS.values() if not one.sentence or len(one.sentence) > 90] == []


@pytest.mark.parametrize("name", [name for name, one in FAULTS.items() if one.setting])
def test_a_fault_before_a_request_is_no_reply(name: str) -> None:
    with pytest.raises(ConfigurationError, match="happens before there is a request"):
        fault(name)


def test_a_fault_that_does_not_exist() -> None:
    with pytest.raises(ConfigurationError, match=r"no fault 'closed-midwy'; did you mean 'closed-midway'\? 'python -m"):
        fault("closed-midwy")
    with pytest.raises(ConfigurationError, match=r"no fault 'T04'; 'python -m plait\.testing --list' shows all"):
        fault("T04")
    assert fault("L20") == fault("l20") == fault("closed-midway")
    wrong: Any = 429
    with pytest.raises(ConfigurationError, match="the name of a fault is 429; give a name such as 'rate-limited'"):
        fault(wrong)


def test_what_a_fault_would_have_said_may_be_a_text() -> None:
    assert fault("L20", said="abc") == fault("L20", said=Said(text="abc"))


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ({"at": "3"}, "at of a fault is '3'; give a whole number from 0"),
        ({"at": -1}, "at of a fault is -1; give a whole number from 0"),
        ({"byte": 2.0}, "byte of a fault is 2.0; give a whole number from 0"),
        ({"said": b"x"}, "said of a fault is b'x'; give a Said(...), or the text of the answer"),
    ],
)
def test_a_place_that_is_none_is_refused(place: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        fault("L20", **place)
    assert str(caught.value) == why


# --- the record ------------------------------------------------------------------------------------------------------


async def test_a_recorder_remembers_what_an_agent_did() -> None:
    def weather(city: str) -> str:
        """Tell the weather."""
        return f"sunny in {city}"

    recorder = Recorder()
    script: list[Any] = [ToolCall(id="a", name="weather", arguments='{"city": "Lisbon"}'), "Sunny."]
    agent = Agent(role="r", provider=OfflineProvider(script), tools=[weather], hooks=recorder.hooks)
    assert await agent.chat("How is it?") == "Sunny."
    assert [len(request.messages) for request in recorder.requests] == [2, 4]
    assert [found.message.text for found in recorder.answers] == ["", "Sunny."]
    assert [(call.name, result.text) for call, result in recorder.calls] == [("weather", "sunny in Lisbon")]
    assert [result.stop_reason for result in recorder.results] == ["response"]


async def test_the_openai_sdk_can_be_pointed_at_it() -> None:
    openai = pytest.importorskip("openai")
    with FaultServer(fault("overloaded"), "hi", tool_calls(("f", {"x": 1}))) as server:
        async with openai.AsyncOpenAI(base_url=server.url, api_key="sk-1", max_retries=1) as client:
            asked: dict[str, Any] = {"model": "m1", "messages": [{"role": "user", "content": "hi"}]}
            made = await client.chat.completions.create(**asked)
            assert made.choices[0].message.content == "hi"
            stream = await client.chat.completions.create(**asked, stream=True)
            pieces = [chunk.choices[0].delta async for chunk in stream if chunk.choices]
            called = [call.function.arguments for delta in pieces for call in delta.tool_calls or ()]
            assert "".join(called) == '{"x": 1}'


# --- the program -----------------------------------------------------------------------------------------------------


def test_the_list_shows_every_fault(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [[one.row, one.name] for one in FAULTS.values()]


def test_what_is_wrong_is_told_in_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--fault", "nonsense"]) == 2
    assert capsys.readouterr().err.startswith("error: there is no fault 'nonsense'")
    with FaultServer() as taken:
        assert main(["--port", str(taken.port)]) == 2
    assert "give another port" in capsys.readouterr().err
    for wrong in (["--count", "0"], ["--at", "-1"], ["--port", "70000"], ["--at", "x"]):
        with pytest.raises(SystemExit) as caught:
            main(wrong)
        assert caught.value.code == 2


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_the_program_prints_its_address_and_the_log_and_ends_cleanly(end: signal.Signals, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-X", "dev", "-m", "plait.testing", "--fault", "L06", "--count", "1", "--text", "fine"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    url = process.stdout.readline().strip()
    assert process.stdout.readline() == "fault server-error (L06): 500\n"

    async def chat() -> str:
        provider = Retrying(ChatProvider("m1", name="acme", base_url=url))
        return await Agent(role="r", provider=provider).chat("hi")

    assert asyncio.run(chat()) == "fine"
    first, second = process.stdout.readline(), process.stdout.readline()
    assert first.startswith("   1  connection 1  POST /v1/chat/completions  ")
    assert " complete, " in second
    process.send_signal(end)
    out, err = process.communicate(timeout=10)
    assert (out, err, process.returncode) == ("ended after 2 requests\n", "", 0)


@pytest.mark.parametrize("name", ["refused", "no-such-host", "not-tls", "certificate-expired"])
def test_faults_before_a_request_are_served_too(name: str, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "plait.testing", "--fault", name],
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    url = process.stdout.readline().strip()

    async def chat() -> str:
        from plait import RetryPolicy, TransportError

        provider = Retrying(ChatProvider("m1", name="acme", base_url=url), RetryPolicy(max_retries=0))
        with pytest.raises(TransportError):
            await Agent(role="r", provider=provider).chat("hi")
        return "failed"

    assert asyncio.run(chat()) == "failed"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=10)[0].endswith("ended after 0 requests\n")


def test_the_whole_test_of_the_page_passes(tmp_path: Path) -> None:
    page = (Path(__file__).parents[1] / "docs" / "testing.md").read_text("utf-8")
    code = page.partition("### A whole test")[2].partition("```python\n")[2].partition("```")[0]
    (tmp_path / "test_page.py").write_text(code, "utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_page.py"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, "1 passed" in done.stdout) == (0, True), done.stdout


def test_importing_it_loads_nothing_heavy() -> None:
    code = (
        "import sys, plait.testing\nprint([n for n in ('aiohttp', 'sqlalchemy', 'typer', 'anyio') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
