from __future__ import annotations

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest
from openai.types.chat import ChatCompletion as SdkCompletion
from openai.types.chat import ChatCompletionChunk as SdkChunk
from pydantic import BaseModel

from plait import (
    AsyncOpenRouterClient,
    AsyncToolClient,
    ConfigurationError,
    OfflineProvider,
    RunContext,
    RunLimits,
    Secret,
    StopPoll,
    StopSignal,
    Tool,
    ToolCall,
    tool,
)
from plait.errors import ProviderError
from plait.testing import FaultServer, Reply, answer, tool_calls

if TYPE_CHECKING:
    from plait.testing.reply import Scripted

PATIENCE = 10.0
WEATHER = [{"role": "user", "content": "What's the weather like in Tokyo?"}]


def get_weather(location: str, unit: str = "celsius") -> dict[str, Any]:
    """Get weather information for a location.

    Args:
        location: The city or location name
        unit: Temperature unit (celsius or fahrenheit)
    """
    return {"location": location, "temperature": 22, "unit": unit}


def client_of(server: FaultServer, **options: Any) -> AsyncToolClient:
    chat = AsyncOpenRouterClient("sk-test", base_url=server.url, retry_initial_delay=0.0)
    made = AsyncToolClient(chat, **options)
    made.register_tool("get_weather", "Get current weather for a location", get_weather)
    return made


ASKED = tool_calls("get_weather", {"location": "Tokyo"})


async def test_a_tool_is_carried_out_and_the_model_answers() -> None:
    with FaultServer(ASKED, "22 degrees in Tokyo.") as server:
        given = [dict(message) for message in WEATHER]
        completion = await client_of(server).chat(given)
        first, second = server.requests
    assert given == WEATHER
    assert completion.choices[0].message.content == "22 degrees in Tokyo."
    assert (completion.choices[0].finish_reason, completion.stop_reason) == ("stop", "response")
    assert completion.usage is not None
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (18, 24)  # of both requests
    SdkCompletion.model_validate(completion.model_dump())
    (offered,) = first["tools"]
    assert offered["function"]["description"] == "Get current weather for a location"
    assert offered["function"]["parameters"]["properties"]["location"]["description"] == "The city or location name"
    assert first["messages"] == WEATHER
    result = second["messages"][-1]
    assert (result["role"], json.loads(result["content"])) == (
        "tool",
        {"location": "Tokyo", "temperature": 22, "unit": "celsius"},
    )


async def test_a_stream_goes_on_after_the_tools() -> None:
    script: tuple[Scripted, ...] = (
        tool_calls("get_weather", {"location": "Tokyo"}, text="Let me look."),
        answer("22 degrees.", piece=4),
    )
    with FaultServer(*script) as server:
        stream = await client_of(server).chat(WEATHER, stream=True)
        chunks = [chunk async for chunk in stream]
        whole = await stream.get_final_completion()
    for chunk in chunks:
        SdkChunk.model_validate(chunk.model_dump())
    said = [chunk.choices[0].delta.content for chunk in chunks]
    assert "".join(text or "" for text in said) == "Let me look.\n\n22 degrees."
    assert said[-4:] == ["\n\n22 d", "egre", "es.", None]
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [*[None] * (len(chunks) - 1), "stop"]
    assert [chunk.choices[0].delta.tool_calls for chunk in chunks] == [None] * len(chunks)
    assert {chunk.id for chunk in chunks} == {whole.id}
    assert (whole.choices[0].message.content, chunks[-1].usage, chunks[-1].stop_reason) == (
        "22 degrees.",
        whole.usage,
        "response",
    )


class Forecast(BaseModel):
    city: str
    degrees: int


async def test_parse_with_tools() -> None:
    with FaultServer(ASKED, '{"city": "Tokyo", "degrees": 22}') as server:
        completion = await client_of(server).parse(WEATHER, Forecast)
    assert completion.choices[0].message.parsed == Forecast(city="Tokyo", degrees=22)


async def test_several_calls_run_side_by_side_and_their_results_go_in_order() -> None:
    meeting = asyncio.Barrier(3)

    async def meet(number: int) -> int:
        async with asyncio.timeout(PATIENCE):
            await meeting.wait()
        return number

    calls = tool_calls(*(("meet", {"number": number}) for number in range(3)))
    with FaultServer(calls, "Done.") as server:
        client = client_of(server)
        client.register_tool("meet", "Meet the others", meet)
        await client.chat("Meet.")
        results = [message["content"] for message in server.requests[-1]["messages"] if message["role"] == "tool"]
    assert results == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("called", "said"),
    [
        (tool_calls("no_such_tool"), "there is no tool 'no_such_tool'; the tools are: get_weather"),
        (tool_calls("get_weather", "{not JSON"), "the text of the arguments"),
        (tool_calls("get_weather", {"place": "Tokyo"}), "'location' is missing"),
    ],
)
async def test_what_a_model_calls_wrongly_is_said_to_it(called: Reply, said: str) -> None:
    with FaultServer(called, "I see.") as server:
        completion = await client_of(server).chat(WEATHER)
        result = server.requests[-1]["messages"][-1]
    assert completion.choices[0].message.content == "I see."
    assert said in result["content"]


@pytest.mark.parametrize(
    ("options", "limit", "requests"),
    [({"max_turns": 3}, "max_turns", 3), ({"max_tool_calls": 2}, "max_tool_calls", 3), ({}, "max_turns", 10)],
)
async def test_a_model_that_never_stops_calling_is_stopped(options: dict[str, int], limit: str, requests: int) -> None:
    with FaultServer(ASKED) as server:
        completion = await client_of(server, **options).chat(WEATHER)
        assert len(server.requests) == requests
    assert (completion.stop_reason, completion.choices[0].finish_reason) == (limit, "tool_calls")
    SdkCompletion.model_validate(completion.model_dump())


async def test_the_limits_of_one_call() -> None:
    with FaultServer(ASKED) as server:
        completion = await client_of(server).chat(WEATHER, limits=RunLimits(max_turns=1))
        assert len(server.requests) == 1
    assert completion.stop_reason == "max_turns"


async def test_a_stop_signal_ends_a_call_and_its_tool() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def wait_long() -> str:
        begun.set()
        try:
            await asyncio.sleep(PATIENCE)
        finally:
            ended.set()
        return "never"

    stop = StopSignal()
    with FaultServer(tool_calls("wait_long")) as server:
        client = client_of(server)
        client.register_tool("wait_long", "Wait", wait_long)
        calling = asyncio.create_task(client.chat("Wait.", stop=stop))
        await asyncio.wait_for(begun.wait(), PATIENCE)
        threading.Thread(target=stop.set).start()
        completion = await asyncio.wait_for(calling, PATIENCE)
    assert (completion.stop_reason, ended.is_set()) == ("user_stop", True)


async def test_a_text_to_stop_at_is_sent() -> None:
    with FaultServer("Ok.") as server:
        await client_of(server).chat(WEATHER, stop=["END"])
        assert server.requests[0]["stop"] == ["END"]


@dataclass
class Shop:
    name: str


async def test_what_the_caller_gives_reaches_the_tools_and_not_the_model() -> None:
    seen = []

    def order(item: str, user_id: str, token: Secret, context: RunContext[Shop]) -> str:
        seen.append((item, user_id, token.reveal(), context.deps.name))
        return "ordered"

    with FaultServer(tool_calls("order", {"item": "tea", "user_id": "mallory"}), "Done.") as server:
        client = client_of(server)
        client.register_tool("order", "Order something", order)
        secrets = {"token": Secret("t-1")}
        await client.chat("Order tea.", user_id="ann", deps=Shop("corner"), secrets=secrets)
        bodies = json.dumps(server.requests)
    assert seen == [("tea", "ann", "t-1", "corner")]
    assert "t-1" not in bodies
    assert [one["function"]["name"] for one in server.requests[0]["tools"]] == ["get_weather", "order"]
    assert list(server.requests[0]["tools"][1]["function"]["parameters"]["properties"]) == ["item"]


# --- registering ------------------------------------------------------------------------------------------------------


def tools_of() -> AsyncToolClient:
    return AsyncToolClient(AsyncOpenRouterClient(provider=OfflineProvider()))


def test_a_schema_by_hand_is_used_as_it_is() -> None:
    client = tools_of()
    schema = {"type": "object", "properties": {"location": {"type": "string"}}, "required": ["location"]}
    client.register_tool("weather", "Weather", get_weather, schema)
    assert client.get_tools() == [
        {"type": "function", "function": {"name": "weather", "description": "Weather", "parameters": schema}}
    ]


def test_a_tool_may_be_registered_under_another_name() -> None:
    @tool(timeout=5, idempotent=True)
    def look(place: str) -> str:
        return place

    class Search(Tool):
        name = "search"
        description = "Search"
        timeout = 7

        def execute(self, words: str) -> str:
            return words

    client = tools_of()
    looked = client.register_tool("look_there", "Look at a place", look)
    searched = client.register_tool("find", "Find words", Search())
    assert (looked.name, looked.timeout, looked.idempotent) == ("look_there", 5, True)
    assert (searched.name, searched.description, searched.timeout) == ("find", "Find words", 7)
    assert list(client.tools) == ["look_there", "find"]


async def test_a_tool_under_another_name_keeps_the_types_of_its_arguments() -> None:
    seen = []

    class Remind(Tool):
        name = "remind"
        description = "Remind"

        def execute(self, at: datetime) -> str:
            seen.append(at)
            return "set"

    called = ToolCall(id="c", name="alarm", arguments='{"at": "2026-01-02T03:04:05"}')
    client = AsyncToolClient(AsyncOpenRouterClient(provider=OfflineProvider([called, "Done."])))
    client.register_tool("alarm", "Set an alarm", Remind())
    await client.chat("Remind me.")
    assert seen == [datetime.fromisoformat("2026-01-02T03:04:05")]


def test_tools_registered_by_many_threads_are_all_there() -> None:
    client = tools_of()
    with ThreadPoolExecutor(20) as pool:
        list(pool.map(lambda number: client.register_tool(f"t{number}", "One of many", get_weather), range(200)))
    assert len(client.tools) == 200
    with pytest.raises(TypeError):
        client.tools["x"] = client.tools["t1"]  # type: ignore[index]  # to be seen refused
    client.get_tools()[0]["function"]["parameters"]["evil"] = 1
    assert "evil" not in client.get_tools()[0]["function"]["parameters"]


async def test_a_tool_that_must_be_called_is_called_once() -> None:
    with FaultServer(ASKED, "22 degrees.") as server:
        completion = await client_of(server).chat(WEATHER, tool_choice="required")
        assert [body.get("tool_choice") for body in server.requests] == ["required", None]
    assert completion.stop_reason == "response"


async def test_an_answer_that_was_cut_by_the_deadline_is_not_said_to_be_whole() -> None:
    provider = OfflineProvider(["word " * 1000], delay=0.01)
    client = AsyncToolClient(AsyncOpenRouterClient(provider=provider))
    completion = await client.chat("Talk.", limits=RunLimits(deadline=0.2))
    assert (completion.stop_reason, completion.choices[0].finish_reason) == ("deadline", "length")


@pytest.mark.parametrize(
    ("name", "function", "schema", "sentence"),
    [
        ("weather", get_weather, None, "two tools are named 'weather'"),
        ("has spaces", get_weather, None, "is no name for a tool"),
        ("other", "no function", None, "register_tool takes a function or a Tool as its function, not str"),
        ("other", get_weather, {"type": "array"}, "must have an object at its root"),
        ("other", get_weather, ["no schema"], "must be a dict"),
    ],
)
def test_what_cannot_be_registered_is_said_and_the_others_stay(
    name: str, function: Any, schema: Any, sentence: str
) -> None:
    client = tools_of()
    client.register_tool("weather", "Weather", get_weather)
    with pytest.raises(ConfigurationError, match=sentence):
        client.register_tool(name, "Something", function, schema)
    assert list(client.tools) == ["weather"]


@pytest.mark.parametrize("given", [None, "openrouter", OfflineProvider()])
def test_it_takes_a_chat_client(given: Any) -> None:
    with pytest.raises(ConfigurationError, match="AsyncToolClient takes an AsyncOpenRouterClient, which it asks, not"):
        AsyncToolClient(given)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"tools": [{}]}, "what takes its place is register_tool: a client with tools carries its tools out itself"),
        ({"n": 2}, "n=2 gives several answers"),
        ({"limits": 3}, "the option 'limits' takes a RunLimits"),
        ({"secrets": {"a": "b"}}, "the option 'secrets' takes"),
        ({"user_id": ""}, "user id"),
        ({"max_turns": 3}, "limits=RunLimits(...) of a call with tools"),
        ({"response_format": {"type": "json_object"}}, "parse(messages, response_format)"),
    ],
)
async def test_wrong_options_are_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        await tools_of().chat("Hello", **options)
    assert sentence in str(caught.value)


async def test_a_conversation_that_has_come_to_its_end_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="the last message is the model's own"):
        await tools_of().chat([*WEATHER, {"role": "assistant", "content": "Sunny."}])


async def test_a_failure_is_the_model_s_error_and_its_retries_are_the_client_s() -> None:
    with FaultServer(Reply(status=500, body=b"")) as server:
        chat = AsyncOpenRouterClient("sk-test", base_url=server.url, max_retries=1, retry_initial_delay=0.0)
        with pytest.raises(ProviderError):
            await AsyncToolClient(chat).chat(WEATHER)
        assert len(server.exchanges) == 2


async def test_a_long_history_counts_no_turns() -> None:
    history = []
    for number in range(30):
        history += [{"role": "user", "content": f"{number}?"}, {"role": "assistant", "content": f"{number}."}]
    with FaultServer(ASKED, "Done.") as server:
        completion = await client_of(server).chat([*history, *WEATHER])
    assert (completion.stop_reason, completion.choices[0].message.content) == ("response", "Done.")


@pytest.mark.parametrize("stop", [lambda: True, StopPoll(lambda: True, 0.01)])
async def test_a_function_that_says_stop_ends_a_call(stop: StopPoll) -> None:
    provider = OfflineProvider(["one two three four five six seven eight"], delay=0.05)
    client = AsyncToolClient(AsyncOpenRouterClient(provider=provider))
    completion = await client.chat([{"role": "user", "content": "Count."}], stop=stop)
    assert completion.stop_reason == "user_stop"
