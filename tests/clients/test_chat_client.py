from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel

from plait import (
    AsyncOpenRouterClient,
    AsyncToolClient,
    ChatCompletion,
    OfflineProvider,
    OpenRouterAPIError,
    OpenRouterClient,
    OpenRouterConnectionError,
    OpenRouterError,
    OpenRouterModel,
    StopSignal,
)
from plait.errors import ConfigurationError, EmptyAnswer, OutputInvalid, Refused
from plait.providers.retry import Retrying
from plait.testing import FaultServer, Reply, answer, fault, tool_calls

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE = 10.0
HELLO = [{"role": "user", "content": "Hello"}]
ERROR_429 = Reply(status=429, body=b'{"error": {"message": "slow down", "code": 429}}')


def client_of(server: FaultServer, **options: Any) -> AsyncOpenRouterClient:
    quick = {"retry_initial_delay": 0.0, "retry_max_delay": 0.0}
    return AsyncOpenRouterClient("sk-or-test", base_url=server.url, **{**quick, **options})


async def test_the_default_request() -> None:
    with FaultServer("Paris.") as server:
        completion = await client_of(server).create(HELLO)
        (asked,) = server.requests
        (exchange,) = server.exchanges
    assert completion.choices[0].message.content == "Paris."
    assert (completion.choices[0].finish_reason, completion.provider, completion.object) == (
        "stop",
        "openrouter",
        "chat.completion",
    )
    assert asked == {"model": "openai/gpt-3.5-turbo", "messages": [{"role": "user", "content": "Hello"}]}
    assert exchange.headers["authorization"] == "Bearer sk-or-test"


async def test_options_are_sent_in_the_provider_s_words() -> None:
    weather = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
    with FaultServer() as server:
        client = client_of(server, default_headers={"X-Title": "test"})
        await client.chat(
            HELLO,
            model="CLAUDE_3_HAIKU",
            temperature=0.2,
            max_completion_tokens=7,
            stop="END",
            tools=[weather],
            tool_choice={"type": "function", "function": {"name": "weather"}},
            response_format={"type": "json_object"},
            frequency_penalty=0.5,
            seed=None,
            extra_body={"transforms": ["middle-out"]},
        )
        (asked,) = server.requests
        (exchange,) = server.exchanges
    assert exchange.headers["x-title"] == "test"
    assert asked == {
        "model": "anthropic/claude-3-haiku",
        "messages": [{"role": "user", "content": "Hello"}],
        "temperature": 0.2,
        "max_tokens": 7,
        "stop": ["END"],
        "tools": [
            {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
        ],
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
        "response_format": {"type": "json_object"},
        "frequency_penalty": 0.5,
        "transforms": ["middle-out"],
    }


async def test_all_answers_that_were_asked_for_are_choices() -> None:
    body = json.dumps(
        {
            "id": "gen-1",
            "model": "m",
            "choices": [
                {"index": number, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
                for number, text in enumerate(["one", "two"])
            ],
        }
    )
    with FaultServer(Reply(body=body.encode(), headers={"content-type": "application/json"})) as server:
        completion = await client_of(server).create(HELLO, n=2)
        assert server.requests[0]["n"] == 2
    assert [(choice.index, choice.message.content) for choice in completion.choices] == [(0, "one"), (1, "two")]
    assert (completion.id, completion.model, completion.usage) == ("gen-1", "m", None)


async def test_fields_of_openrouter_and_options_without_effect_are_taken() -> None:
    with FaultServer() as server:
        await client_of(server).create(HELLO, top_k=5, transforms=[], stream_options={"include_usage": True})  # type: ignore[call-overload]  # not OpenAI's
        (asked,) = server.requests
    assert (asked["top_k"], asked["transforms"], "stream_options" in asked) == (5, [], False)


async def test_calls_of_tools_are_for_the_caller() -> None:
    with FaultServer(tool_calls(("look", {"a": 1})), "Seen.") as server:
        client = client_of(server)
        look = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
        first = await client.create(HELLO, tools=[look])
        message = first.choices[0].message
        assert (first.choices[0].finish_reason, message.content) == ("tool_calls", None)
        assert message.tool_calls is not None
        (call,) = message.tool_calls
        assert (call.function.name, call.function.arguments) == ("look", '{"a": 1}')
        result = {"role": "tool", "tool_call_id": call.id, "content": "a view"}
        second = await client.create([*HELLO, message, result], tools=[look])
        asked = server.requests[-1]["messages"]
    assert second.choices[0].message.content == "Seen."
    assert [one["role"] for one in asked] == ["user", "assistant", "tool"]
    assert (asked[1]["tool_calls"][0]["id"], asked[2]["tool_call_id"], asked[2]["content"]) == (
        call.id,
        call.id,
        "a view",
    )


# --- models -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "meant"),
    [
        (OpenRouterModel.GPT41, "openai/gpt-4.1"),
        ("GPT41", "openai/gpt-4.1"),
        ("openai/gpt-4.1", "openai/gpt-4.1"),
        ("vendor/any-model", "vendor/any-model"),
    ],
)
def test_a_model_is_named_in_any_way(model: str, meant: str) -> None:
    client = AsyncOpenRouterClient("sk-test", model)
    assert (client.model, client.provider.name) == (meant, "openrouter")
    client = AsyncOpenRouterClient("sk-test")
    assert client.model == "openai/gpt-3.5-turbo"
    client.model = model
    assert client.model == meant
    client.set_model("GPT4")
    assert client.model == "openai/gpt-4"


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize("kind", [OpenRouterClient, AsyncOpenRouterClient])
def test_a_registered_model(kind: type[OpenRouterClient | AsyncOpenRouterClient]) -> None:
    kind.register_model("CUSTOM_MODEL", "provider/model-name")
    kind.register_model("CUSTOM_MODEL", "provider/model-name")
    with pytest.raises(ValueError, match="stands for 'provider/model-name' already"):
        kind.register_model("CUSTOM_MODEL", "provider/other")
    assert kind("sk-test", "CUSTOM_MODEL").model == "provider/model-name"
    assert kind.list_models()["CUSTOM_MODEL"] == "provider/model-name"


# --- any provider -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("provider", "dialect"),
    [("anthropic", "anthropic"), ("ollama", "ollama"), ("openai", "chat"), ("openai-responses", "responses")],
)
async def test_any_provider(provider: str, dialect: Any) -> None:
    with FaultServer("Hello there.") as server:
        client = AsyncOpenRouterClient("sk-test", base_url=server.url_for(dialect), provider=provider)
        whole = await client.create(HELLO)
        stream = await client.create(HELLO, stream=True)
        said = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    assert (whole.choices[0].message.content, said) == ("Hello there.", "Hello there.")
    assert (whole.provider, whole.choices[0].finish_reason) == (provider, "stop")
    assert client.model != "openai/gpt-3.5-turbo"


async def test_a_provider_object_is_asked_as_it_is() -> None:
    provider = OfflineProvider(["Hi."])
    client = AsyncOpenRouterClient(provider=provider)
    assert client.provider is provider
    assert (await client.create("Hello")).choices[0].message.content == "Hi."
    with pytest.raises(ConfigurationError, match="comes too late"):
        await client.create("Hello", model="another")


# --- typed answers ----------------------------------------------------------------------------------------------------


class City(BaseModel):
    name: str
    population: int


PARIS = '{"name": "Paris", "population": 2100000}'


async def test_parse_gives_a_value() -> None:
    with FaultServer(PARIS) as server:
        completion = await client_of(server, model="openai/gpt-4o").parse(HELLO, City)
        (asked,) = server.requests
    assert completion.choices[0].message.parsed == City(name="Paris", population=2100000)
    assert completion.choices[0].message.content == PARIS
    assert completion.model_dump()["choices"][0]["message"]["parsed"] == {"name": "Paris", "population": 2100000}
    assert ChatCompletion.__name__ in repr(completion)
    assert asked["response_format"]["type"] == "json_schema"


@dataclass
class Trip:
    start: City
    stops: dict[str, City]


async def test_a_parsed_value_is_dumped_whole() -> None:
    city = {"name": "Paris", "population": 2}
    said = json.dumps({"start": city, "stops": {"a": city}})
    completion = await AsyncOpenRouterClient(provider=OfflineProvider([said])).parse(HELLO, Trip)
    for mode in ("python", "json"):
        dumped = completion.model_dump(mode=mode)
        assert dumped["choices"][0]["message"]["parsed"] == {"start": city, "stops": {"a": city}}
    assert json.loads(completion.model_dump_json())["choices"][0]["message"]["parsed"]["stops"] == {"a": city}


async def test_parse_asks_again_for_an_answer_that_does_not_fit() -> None:
    with FaultServer('{"name": "Paris"}', PARIS) as server:
        completion = await client_of(server).parse(HELLO, City)
        assert len(server.requests) == 2
    assert completion.choices[0].message.parsed == City(name="Paris", population=2100000)
    assert completion.usage is not None
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (18, 24)  # of both requests


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (answer(refusal="I will not."), Refused),
        (answer('{"name": "Par', finish_reason="length"), OutputInvalid),
        (answer("no JSON"), OutputInvalid),
    ],
)
async def test_parse_never_gives_half_a_value(said: Reply, error: type[Exception]) -> None:
    with FaultServer(said) as server:
        with pytest.raises(error):
            await client_of(server).parse(HELLO, City)
        assert len(server.requests) <= 3


# --- streams ----------------------------------------------------------------------------------------------------------


async def test_a_stream_gives_its_chunks_and_the_whole() -> None:
    with FaultServer(answer("One two", piece=3)) as server:
        stream = await client_of(server).create(HELLO, stream=True)
        said = [chunk.choices[0].delta.content async for chunk in stream]
        whole = await stream.get_final_completion()
        (asked,) = server.requests
    assert said == ["One", " tw", "o", None]
    assert whole.choices[0].message.content == "One two"
    assert (asked["stream"], asked["stream_options"]) == (True, {"include_usage": True})


async def test_chunks_come_before_the_answer_has_ended() -> None:
    waiting = Waiting()
    stream = await AsyncOpenRouterClient(provider=waiting).create(HELLO, stream=True)
    assert (await anext(stream)).choices[0].delta.content == "Wait"
    assert not waiting.ended.is_set()
    await stream.close()
    assert waiting.ended.is_set()


async def test_what_goes_wrong_before_the_first_chunk_is_raised_where_it_was_asked() -> None:
    with FaultServer(Reply(status=401, body=b'{"error": {"message": "no such key"}}')) as server:
        with pytest.raises(OpenRouterAPIError, match="no such key") as caught:
            await client_of(server).create(HELLO, stream=True)
        assert (len(server.exchanges), caught.value.status) == (1, 401)


async def test_a_cut_stream_is_an_error_after_its_chunks() -> None:
    with FaultServer(fault("L20", at=3)) as server:
        stream = await client_of(server, max_retries=0).create(HELLO, stream=True)
        said, error = "", None
        try:
            async for chunk in stream:
                said += chunk.choices[0].delta.content or ""
        except OpenRouterError as failure:
            error = failure
        assert error is not None
        with pytest.raises(type(error)):
            await stream.get_final_completion()
    assert said
    assert error.partial == said


@pytest.mark.parametrize("how", ["drop", "close", "with"])
async def test_leaving_a_stream_early_closes_its_connection(how: str) -> None:
    waiting = Waiting()
    client = AsyncOpenRouterClient(provider=waiting)
    stream = await client.create(HELLO, stream=True)
    assert (await anext(stream)).choices[0].delta.content == "Wait"
    if how == "drop":
        del stream
        gc.collect()
    elif how == "with":
        async with stream:
            pass
    else:
        await stream.close()
    await asyncio.wait_for(waiting.ended.wait(), PATIENCE)


class Waiting:
    """A provider that says one word and then nothing for ever."""

    name = model = "waiting"

    def __init__(self) -> None:
        self.ended = asyncio.Event()

    async def stream(self, _request: Any) -> Any:
        from plait.events import TextDelta

        try:
            yield [TextDelta("Wait")]
            await asyncio.Event().wait()
        finally:
            self.ended.set()


async def test_a_stream_outlives_the_task_that_asked_for_it() -> None:
    client = AsyncOpenRouterClient(provider=OfflineProvider(["a few words of text"]))
    stream = await asyncio.create_task(client.create(HELLO, stream=True))
    await asyncio.sleep(0)
    assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == "a few words of text"


class Slow:
    """A provider that never begins to answer, and takes a moment to end."""

    name = model = "slow"

    def __init__(self) -> None:
        self.begun, self.ended = asyncio.Event(), False

    async def stream(self, _request: Any) -> Any:
        try:
            self.begun.set()
            await asyncio.Event().wait()
            yield []
        finally:
            await asyncio.sleep(0)
            self.ended = True


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("tools", [False, True])
async def test_cancelling_a_call_ends_its_request(stream: bool, tools: bool) -> None:
    slow = Slow()
    plain = AsyncOpenRouterClient(provider=slow)
    client: Any = AsyncToolClient(plain) if tools else plain
    asking = asyncio.create_task(client.chat("x", stream=stream))
    await asyncio.wait_for(slow.begun.wait(), PATIENCE)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert slow.ended


# --- what goes wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("retries", [0, 1, 3])
@pytest.mark.parametrize("how", ["create", "stream", "parse"])
async def test_retries_are_as_many_as_were_said(retries: int, how: str) -> None:
    with FaultServer(ERROR_429) as server:
        client = client_of(server, max_retries=retries)
        asking: dict[str, Callable[[], Any]] = {
            "create": lambda: client.create(HELLO),
            "stream": lambda: client.create(HELLO, stream=True),
            "parse": lambda: client.parse(HELLO, City),
        }
        with pytest.raises(OpenRouterAPIError) as caught:
            await asking[how]()
        assert (len(server.exchanges), caught.value.attempts) == (retries + 1, retries + 1)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
async def test_what_is_the_caller_s_fault_is_asked_once(status: int) -> None:
    with FaultServer(Reply(status=status, body=b'{"error": {"message": "no"}}')) as server:
        with pytest.raises(OpenRouterAPIError) as caught:
            await client_of(server).create(HELLO)
        assert (len(server.exchanges), caught.value.status) == (1, status)
    assert len(str(caught.value)) < 500


def test_the_default_retries_are_three() -> None:
    provider = AsyncOpenRouterClient("sk-test").provider
    assert isinstance(provider, Retrying)
    policy = provider.policy
    assert (policy.max_retries, policy.initial_delay, policy.max_delay) == (3, 1.0, 10.0)


async def test_no_server_is_a_connection_error() -> None:
    client = AsyncOpenRouterClient("sk-test", base_url="http://127.0.0.1:9/v1", max_retries=0)
    with pytest.raises(OpenRouterConnectionError, match=r"cannot connect to 127\.0\.0\.1:9"):
        await client.create(HELLO)


async def test_an_empty_answer_is_an_error() -> None:
    with FaultServer(answer("")) as server, pytest.raises(EmptyAnswer):
        await client_of(server, max_retries=0).create(HELLO)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"timeout": 3},
            "'timeout' is no option of this call; what takes its place is limits=TransportLimits(...) of the client",
        ),
        ({"temperature": "hot"}, "Settings(temperature=...) takes a number of at least 0, not 'hot'"),
        ({"tools": [print]}, "tools[0] is no description of a function"),
        ({"tools": "weather"}, "tools takes a list of tools, not str"),
        ({"tool_choice": 7}, "tool_choice takes 'auto', 'none', 'required'"),
        ({"response_format": City}, "is given to parse(messages, response_format)"),
        ({"extra_body": 7}, "extra_body takes a dict of fields for the request, not int"),
        ({"extra_body": {"messages": []}}, "'messages' in extra_body has a place of its own: give messages=..."),
        ({"extra_body": {"n": 2}}, "'n' in extra_body has a place of its own: give n=..."),
        ({"user": "a", "extra_body": {"user": "b"}}, "'user' in extra_body has a place of its own"),
        ({"max_tokens": 5, "max_completion_tokens": 9}, "max_tokens and max_completion_tokens say the same"),
        ({"max_turns": 3}, "ToolClient(..., max_turns=..., max_tool_calls=...)"),
        ({"max_retries": 0}, "max_retries=... of the client"),
        ({"thread": "x"}, "Agent, which keeps threads"),
        ({"user_id": "x"}, "a plain client carries out no tool"),
        ({"temprature": 1}, "there is no option 'temprature'; is 'temperature' meant?"),
        ({"max_token": 1}, "is 'max_tokens' meant?"),
        ({"straem": True}, "is 'stream' meant?"),
        ({"deadline": 1}, "limits=TransportLimits(...) of the client"),
        ({"stop": StopSignal()}, "a StopSignal ends a call of a client with tools"),
        ({"modalities": ["text", "audio"]}, "answers are text, and images"),
        ({"model": ["a"]}, "model must be a model's name, not ['a']"),
        ({"model": " "}, "model must be a model's name, not ' '"),
        (
            {"tools": [{"type": "function", "function": {"name": "x", "parameters": {"type": object()}}}]},
            "object",
        ),
    ],
)
async def test_wrong_options_are_refused_before_anything_is_sent(options: dict[str, Any], sentence: str) -> None:
    with FaultServer() as server:
        with pytest.raises(ConfigurationError) as caught:
            await client_of(server).create(HELLO, **options)
        assert server.exchanges == []
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"token": 7}, "token must be a text, not int"),
        ({"token": "x", "base_url": "nowhere"}, "nowhere"),
        ({"token": "x", "max_retries": -1}, "max_retries of a RetryPolicy is -1"),
        ({"token": "x", "provider": "openruter"}, "Did you mean 'openrouter'?"),
        ({"token": None}, "OPENROUTER_API_KEY"),
    ],
)
def test_a_client_that_cannot_be_is_refused(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        AsyncOpenRouterClient(**arguments)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"tools": [{}]}, "parse of a ToolClient, which carries its tools out"),
        ({"stream": True}, "Agent(output=...).stream_output"),
        ({"n": 2}, "n=2 gives several answers"),
    ],
)
async def test_parse_refuses_what_it_cannot_do(options: dict[str, Any], sentence: str) -> None:
    client = AsyncOpenRouterClient(provider=OfflineProvider([]))
    with pytest.raises(ConfigurationError) as caught:
        await client.parse(HELLO, City, **options)
    assert sentence in str(caught.value)


@pytest.mark.parametrize("kind", [None, {"type": "json_object"}, 7])
async def test_parse_takes_a_type(kind: Any) -> None:
    client = AsyncOpenRouterClient(provider=OfflineProvider([]))
    with pytest.raises(ConfigurationError):
        await client.parse(HELLO, kind)


def test_a_model_named_with_its_provider_may_be_changed() -> None:
    client = AsyncOpenRouterClient("sk-test", provider="anthropic:claude-a")
    assert (client.provider.name, client.model) == ("anthropic", "claude-a")
    client.set_model("claude-b")
    assert (client.provider.name, client.model) == ("anthropic", "claude-b")


@pytest.mark.usefixtures("registry")
def test_a_name_is_looked_up_anew_each_time() -> None:
    client = AsyncOpenRouterClient("sk-test")
    assert client.provider_for("fast").model == "fast"
    AsyncOpenRouterClient.register_model("fast", "vendor/quick")
    assert client.provider_for("fast").model == "vendor/quick"


def test_retries_reach_every_provider_of_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-test")
    client = AsyncOpenRouterClient(max_retries=0, provider=["openai:a", "anthropic:b"])
    chain: Any = client.provider
    assert [one.policy.max_retries for one in chain.providers] == [0, 0]
    with pytest.raises(ConfigurationError, match="retries of a provider object are its own"):
        AsyncOpenRouterClient(max_retries=0, provider=OfflineProvider())


def test_no_header_is_in_a_sentence() -> None:
    with pytest.raises(ConfigurationError) as caught:
        AsyncOpenRouterClient(default_headers={"Authorization": "Bearer sk-SECRET"}, provider=OfflineProvider())
    assert "SECRET" not in str(caught.value)


async def test_keys_stay_apart_and_out_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with FaultServer() as server:
        monkeypatch.setenv("OPENROUTER_API_KEY", "sk-of-the-environment")
        before = dict(os.environ)
        first = AsyncOpenRouterClient(base_url=server.url)
        second = AsyncOpenRouterClient("sk-given", base_url=server.url)
        await asyncio.gather(first.create("1"), second.create("2"))
        keys = sorted(exchange.headers["authorization"] for exchange in server.exchanges)
    assert keys == ["Bearer sk-given", "Bearer sk-of-the-environment"]
    assert dict(os.environ) == before
    assert "sk-" not in repr([first, second, vars(type(first)), first.provider])


async def test_requests_are_logged_without_content_or_key(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with FaultServer(ERROR_429, "The answer.") as server:
        await client_of(server).create([{"role": "user", "content": "The question."}])
    records = [record.getMessage() for record in caplog.records if record.name.startswith("plait")]
    assert any("request 1 failed (RateLimited 429)" in said for said in records)
    assert not [said for said in records if "question" in said or "answer." in said or "sk-or" in said or "\n" in said]


async def test_many_clients_are_built_and_asked_at_once() -> None:
    async def ask(number: int) -> str | None:
        client = AsyncOpenRouterClient(f"sk-{number}", base_url=server.url)
        return (await client.create(HELLO)).choices[0].message.content

    with FaultServer("ok") as server:
        assert await asyncio.gather(*map(ask, range(200))) == ["ok"] * 200
        assert {one.headers["authorization"] for one in server.exchanges} == {f"Bearer sk-{n}" for n in range(200)}
