"""What the vendors' own clients read of the fault server's answers, and how it knows the dialect it is asked in."""

from __future__ import annotations

import http.client
import json
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

import anthropic
import httpx
import ollama
import openai
import pytest

from plait import ConfigurationError
from plait.testing import FAULTS, Asked, Call, FaultServer, Reply, Said, Style, answer, fault, tool_calls
from plait.testing.__main__ import main
from plait.testing.dialects import DIALECTS, dialect_of
from plait.testing.reply import DialectName
from plait.testing.writing import steps_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from plait.testing.reply import Scripted


class Read(NamedTuple):
    """What a vendor's client made of an answer; calls are pairs of a tool and its arguments."""

    text: str | None
    calls: list[tuple[str, dict[str, Any]]]
    reason: str | None
    usage: tuple[int | None, int | None]
    refusal: str | None = None


ASK: Any = [{"role": "user", "content": "hi"}]


def by_openai_chat(server: FaultServer, *, stream: bool) -> Read:
    with openai.OpenAI(base_url=server.url_for("chat"), api_key="k", max_retries=0) as client:
        if stream:
            options: Any = {"include_usage": True}
            with client.chat.completions.stream(model="m1", messages=ASK, stream_options=options) as events:
                for _ in events:
                    pass
                made: Any = events.get_final_completion()
        else:
            made = client.chat.completions.create(model="m1", messages=ASK)
    (choice,) = made.choices
    calls = [
        (call.function.name, json.loads(call.function.arguments)) for call in choice.message.tool_calls or () if call.id
    ]
    usage = (made.usage.prompt_tokens, made.usage.completion_tokens)
    return Read(choice.message.content, calls, choice.finish_reason, usage, choice.message.refusal)


def by_anthropic(server: FaultServer, *, stream: bool) -> Read:
    with anthropic.Anthropic(base_url=server.url_for("anthropic"), api_key="k", max_retries=0) as client:
        if stream:
            with client.messages.stream(model="m1", max_tokens=9, messages=ASK) as events:
                made: Any = events.get_final_message()
        else:
            made = client.messages.create(model="m1", max_tokens=9, messages=ASK)
    text = "".join(block.text for block in made.content if block.type == "text")
    calls = [(block.name, block.input) for block in made.content if block.type == "tool_use" and block.id]
    refusal = None if made.stop_details is None else made.stop_details.explanation
    return Read(text, calls, made.stop_reason, (made.usage.input_tokens, made.usage.output_tokens), refusal)


def by_ollama(server: FaultServer, *, stream: bool) -> Read:
    with closing(ollama.Client(host=server.url_for("ollama"))) as client:
        made: list[Any] = [*client.chat("m1", ASK, stream=True)] if stream else [client.chat("m1", ASK)]
    last = made[-1]
    assert [one.done for one in made] == [False] * (len(made) - 1) + [True]
    calls = [
        (call.function.name, dict(call.function.arguments)) for one in made for call in one.message.tool_calls or ()
    ]
    text = "".join(one.message.content or "" for one in made)
    return Read(text, calls, last.done_reason, (last.prompt_eval_count, last.eval_count))


def by_openai_responses(server: FaultServer, *, stream: bool) -> Read:
    with openai.OpenAI(base_url=server.url_for("responses"), api_key="k", max_retries=0) as client:
        if not stream:
            made: Any = client.responses.create(model="m1", input="hi")
        else:
            with client.responses.stream(model="m1", input="hi") as events:  # checks each event against the last
                *_, last = list(events)
            assert last.type in ("response.completed", "response.incomplete")
            made = last.response
    parts = [part for item in made.output if item.type == "message" for part in item.content]
    text = "".join(part.text for part in parts if part.type == "output_text")
    refusal = next((part.refusal for part in parts if part.type == "refusal"), None)
    calls = [
        (item.name, json.loads(item.arguments))
        for item in made.output
        if item.type == "function_call" and item.call_id != item.id
    ]
    reason = made.status if made.incomplete_details is None else made.incomplete_details.reason
    return Read(text, calls, reason, (made.usage.input_tokens, made.usage.output_tokens), refusal)


class Client(NamedTuple):
    """The vendor's own client: how it is asked, and its words for why a model stops."""

    ask: Callable[..., Read]
    stop: str
    calls: str
    length: str
    refused: str = "stop"


CLIENTS: dict[DialectName, Client] = {
    "chat": Client(by_openai_chat, "stop", "tool_calls", "length"),
    "anthropic": Client(by_anthropic, "end_turn", "tool_use", "max_tokens", "refusal"),
    "ollama": Client(by_ollama, "stop", "stop", "length"),
    "responses": Client(by_openai_responses, "completed", "completed", "max_output_tokens", "completed"),
}
STREAM = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


@STREAM
@pytest.mark.parametrize("dialect", CLIENTS)
def test_a_vendor_s_client_reads_text_calls_reasons_and_tokens(dialect: DialectName, stream: bool) -> None:
    client = CLIENTS[dialect]
    cities = [Call(name="weather", arguments={"city": city}) for city in "AB"]
    with FaultServer(answer("Hello there", usage=(7, 3)), tool_calls(*cities, text="Well,")) as server:
        assert client.ask(server, stream=stream) == Read("Hello there", [], client.stop, (7, 3))
        called = [("weather", {"city": "A"}), ("weather", {"city": "B"})]
        assert client.ask(server, stream=stream) == Read("Well,", called, client.calls, (9, 12))


@STREAM
@pytest.mark.parametrize("dialect", [name for name in CLIENTS if name != "chat"])
def test_a_vendor_s_client_reads_an_answer_that_was_cut(dialect: DialectName, stream: bool) -> None:
    """OpenAI's helper for chat streams makes an error of it."""
    client = CLIENTS[dialect]
    with FaultServer(answer("so far", finish_reason="length")) as server:
        assert client.ask(server, stream=stream) == Read("so far", [], client.length, (9, 12))


@STREAM
@pytest.mark.parametrize("dialect", CLIENTS)
def test_a_vendor_s_client_reads_a_refusal(dialect: DialectName, stream: bool) -> None:
    client = CLIENTS[dialect]
    with FaultServer(Reply(said=Said(refusal="No."))) as server:
        read = client.ask(server, stream=stream)
    assert (read.reason, read.calls) == (client.refused, [])
    assert read.refusal == (None if dialect == "ollama" else "No.")
    assert (read.text or "") == ("No." if dialect == "ollama" else "")


ERRORS = (openai.APIStatusError, anthropic.APIStatusError, ollama.ResponseError)


@pytest.mark.parametrize("dialect", CLIENTS)
def test_a_vendor_s_client_reads_errors(dialect: DialectName) -> None:
    with FaultServer(fault("not-found")) as server:
        with pytest.raises(ERRORS, match="the fault server answers 404") as caught:
            CLIENTS[dialect].ask(server, stream=False)
        raised: Any = caught.value
        assert raised.status_code == 404


@pytest.mark.parametrize("dialect", [name for name in CLIENTS if name != "responses"])
def test_a_vendor_s_client_reads_an_error_in_a_stream(dialect: DialectName) -> None:
    """OpenAI's client hands on the error event of a response as an event."""
    with FaultServer(fault("error-midway")) as server, pytest.raises(Exception, match="the model is overloaded"):
        CLIENTS[dialect].ask(server, stream=True)


@pytest.mark.parametrize("name", ["error-midway", "failed-midway"])
def test_openai_s_client_reads_a_response_that_fails(name: str) -> None:
    with FaultServer(fault(name)) as server, openai.OpenAI(base_url=server.url, api_key="k", max_retries=0) as client:
        events: list[Any] = [*client.responses.create(model="m1", input="hi", stream=True)]
    told = [event for event in events if event.type in ("error", "response.failed")]
    said = [one.message if one.type == "error" else one.response.error.message for one in told]
    assert said == ["the model is overloaded"]


# --- which dialect ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "dialect"),
    [
        ("/v1/chat/completions", "chat"),
        ("/v1/messages", "anthropic"),
        ("/v1/messages?beta=true", "anthropic"),
        ("/api/chat", "ollama"),
        ("/v1/responses/", "responses"),
        ("/openai/v1/responses", "responses"),
        ("/anything", "chat"),
    ],
)
def test_the_path_tells_the_dialect(path: str, dialect: DialectName) -> None:
    assert dialect_of(path).name == dialect


def test_one_server_speaks_all_dialects_and_one_dialect_may_be_forced() -> None:
    with FaultServer("yes") as server:
        said = [CLIENTS[dialect].ask(server, stream=stream).text for dialect in CLIENTS for stream in (False, True)]
        assert said == ["yes"] * 8
        asked = [(exchange.path, exchange.ended) for exchange in server.exchanges[::2]]
        paths = ["/v1/chat/completions", "/v1/messages", "/api/chat", "/v1/responses"]
        assert asked == [(path, "complete") for path in paths]
    with FaultServer("yes", dialect=DIALECTS["ollama"]) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
        connection.request("POST", "/v1/chat/completions", b'{"stream": false}')
        assert json.loads(connection.getresponse().read())["message"]["content"] == "yes"
        connection.close()


def test_the_base_url_of_each_dialect() -> None:
    with FaultServer() as server:
        root = f"http://127.0.0.1:{server.port}"
        assert {name: server.url_for(name) for name in DIALECTS} == {
            "chat": f"{root}/v1",
            "anthropic": root,
            "ollama": root,
            "responses": f"{root}/v1",
        }
        assert server.url == server.url_for("chat")
        wrong: Any = "gemini"
        with pytest.raises(ConfigurationError, match="'gemini'; give 'chat', 'anthropic', 'ollama' or 'responses'"):
            server.url_for(wrong)


@pytest.mark.parametrize("path", ["/v1/models", "/api/tags"])
def test_each_dialect_finds_the_models(path: str) -> None:
    with FaultServer() as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
        connection.request("GET", path)
        response = connection.getresponse()
        assert (response.status, b"fault-1" in response.read()) == (200, True)
        connection.close()


def test_who_says_nothing_of_a_stream_gets_one_from_ollama_only() -> None:
    assert [name for name, dialect in DIALECTS.items() if dialect.asked({}).stream] == ["ollama"]
    assert [name for name, dialect in DIALECTS.items() if dialect.asked({"stream": True}).stream] == [*DIALECTS]
    assert not any(dialect.asked({"stream": False}).stream for dialect in DIALECTS.values())


def test_each_dialect_finds_the_tools_it_is_offered() -> None:
    flat: Any = [{"name": "a"}, None, {"type": "web_search"}, {"name": "b"}]
    nested: Any = [{"function": {"name": "a"}}, None, {"function": None}, {"function": {"name": "b"}}]
    for name, dialect in DIALECTS.items():
        tools = nested if name in ("chat", "ollama") else flat
        assert dialect.asked({"tools": tools}).tools == ("a", "b"), name
        assert dialect.asked({"tools": None}).tools == (), name


# --- faults in each dialect ------------------------------------------------------------------------------------------


@STREAM
@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_fault_can_be_written_in_every_dialect_that_it_says(dialect: DialectName, stream: bool) -> None:
    asked = Asked(stream=stream, tools=("weather",), dialect=dialect, url="http://127.0.0.1/x")
    for name, found in FAULTS.items():
        if found.setting:
            continue
        if dialect in found.dialects:
            assert steps_of(fault(name)(asked), DIALECTS[dialect], asked), name
        else:
            with pytest.raises(ConfigurationError, match=f"the fault '{name}' is none of the dialect '{dialect}', in"):
                fault(name)(asked)


def test_the_number_of_a_row_stands_for_the_first_fault_that_a_dialect_has() -> None:
    azure: Scripted = fault("L36")
    assert callable(azure)
    for dialect, name in (("chat", "choices-empty"), ("anthropic", "answer-null"), ("responses", "answer-null")):
        asked = Asked(dialect=dialect)  # type: ignore[arg-type]
        assert azure(asked) == fault(name)(asked)
    with pytest.raises(ConfigurationError, match="the fault 'filtered' is none of the dialect 'ollama'"):
        fault("L39")(Asked(dialect="ollama"))
    assert {dialect for one in FAULTS.values() for dialect in one.dialects} == {*get_args(DialectName)}


def test_a_fault_that_a_dialect_does_not_have_is_said_when_the_block_ends() -> None:
    with (
        pytest.raises(
            ConfigurationError, match=r"'no-done' is none .* in which http://127.* asked; it happens in 'chat'"
        ),
        FaultServer(fault("no-done")) as server,
        suppress(httpx.RemoteProtocolError, ConnectionError),
        closing(ollama.Client(host=server.url_for("ollama"))) as client,
    ):
        client.chat("m1", ASK)


def test_the_list_says_which_dialects_have_a_fault_when_not_all_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    lines = {line.split()[1]: line for line in capsys.readouterr().out.splitlines()}
    assert lines["newlines-cr"].endswith("lines end with CR [chat, anthropic, responses]")
    assert lines["closed-midway"].endswith("events (at) or bytes (byte)")


# --- lines of JSON ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("style", "written"),
    [
        (Style(), b"{1}\n{2}\n{3}\n"),
        (Style(newline="\r\n"), b"{1}\r\n{2}\r\n{3}\r\n"),
        (Style(newline="mixed", bom=True), b"\xef\xbb\xbf{1}\n{2}\r\n{3}\n"),
        (Style(comments=True, last_blank=False), b"\n\n{1}\n\n\n{2}\n\n\n{3}"),
        (Style(space=False, lines=True), b"{1}\n{2}\n{3}\n"),
    ],
)
def test_lines_of_json_are_written_in_their_styles(style: Style, written: bytes) -> None:
    assert b"".join(DIALECTS["ollama"].frame([b"{1}", b"{2}", b"{3}"], style)) == written


def test_lines_of_json_do_not_end_with_cr() -> None:
    with pytest.raises(ConfigurationError, match="which ends no line of JSON"):
        DIALECTS["ollama"].frame([b"{}"], Style(newline="\r"))


def test_arguments_that_are_json_are_written_as_json_and_others_as_text() -> None:
    texts = ['{"a": 1e999}', "[1]", "null", "", "{", '{"a": NaN}', '"\ud83d"', '{"a": 1' + "0" * 5000 + "}"]
    said = Said(calls=tuple(Call(name="f", arguments=text) for text in texts))
    written = json.loads(DIALECTS["ollama"].whole(said, Asked()))
    arguments = [call["function"]["arguments"] for call in written["message"]["tool_calls"]]
    assert arguments == [{"a": 10**999}, [1], None, "", "{", '{"a": NaN}', "\ud83d", texts[-1]]
