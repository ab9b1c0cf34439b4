"""The sync face: the same methods as the async one, wherever the caller stands."""

from __future__ import annotations

import asyncio
import inspect
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel

from plait import (
    Agent,
    AsyncChatStream,
    AsyncMCPClient,
    AsyncOpenRouterClient,
    AsyncToolClient,
    Cancelled,
    ChatStream,
    ConfigurationError,
    MCPClient,
    OfflineProvider,
    OpenRouterClient,
    OpenRouterError,
    StopSignal,
    TextDelta,
    ToolCall,
    ToolClient,
)
from plait.testing import FaultServer, Reply

if TYPE_CHECKING:
    from collections.abc import Callable

    from plait import Request

PATIENCE = 10.0
AWAITED = {"TextStream", "OutputStream[Output]", "AgentRun[Output]"}
PAIRS: list[tuple[type, type]] = [
    (AsyncOpenRouterClient, OpenRouterClient),
    (AsyncToolClient, ToolClient),
    (AsyncMCPClient, MCPClient),
    (AsyncChatStream, ChatStream),
]


def public(kind: type) -> dict[str, Any]:
    return {name: value for name, value in inspect.getmembers(kind) if not name.startswith("_")}


def parameters(function: Callable[..., Any]) -> list[tuple[str, Any, Any]]:
    return [(one.name, one.kind, one.default) for one in inspect.signature(function).parameters.values()]


ONLY_ASYNC = {"provider_for", "begun", "batches"}
"""How a client finds its provider, and how a stream begins and is handed on: these are left to the other."""


@pytest.mark.parametrize(("of_async", "of_sync"), PAIRS)
def test_both_sides_have_the_same_methods_with_the_same_parameters(of_async: type, of_sync: type) -> None:
    there, here = public(of_async), public(of_sync)
    awaited = {name for name in here if name[0] == "a" and name[1:] in here}  # acreate, achat, aparse
    assert set(here) - awaited == set(there) - ONLY_ASYNC
    for name in set(here) - awaited:
        if callable(here[name]):
            assert parameters(here[name]) == parameters(there[name]), name
            assert not inspect.iscoroutinefunction(here[name]), name
    for name in awaited:
        assert parameters(here[name]) == parameters(there[name[1:]]), name
        assert inspect.iscoroutinefunction(here[name]), name
    if of_sync is not ChatStream:
        assert awaited - {"aregister_mcp_server"} == {"acreate", "achat", "aparse"}


@pytest.mark.parametrize(("of_async", "of_sync"), PAIRS[:3])
def test_both_sides_are_made_with_the_same_arguments(of_async: type, of_sync: type) -> None:
    assert parameters(of_async) == parameters(of_sync)


def test_an_agent_s_methods_have_sync_forms_with_the_same_parameters() -> None:
    awaited = {
        name
        for name, method in public(Agent).items()
        if inspect.isfunction(method)
        if inspect.iscoroutinefunction(method) or inspect.signature(method).return_annotation in AWAITED
    }
    awaited -= {"made", "opened", "explained"}  # for the other faces of the engine
    assert awaited == {"chat", "stream", "stream_output", "run", "resume", "explain", "log", "close"}
    for name in awaited:
        assert parameters(getattr(Agent, f"{name}_sync")) == parameters(getattr(Agent, name))


def test_an_agent_s_other_sync_methods() -> None:
    with Agent(role="You know.", provider=OfflineProvider(function=answer_to), output=City) as agent:
        assert list(agent.stream_output_sync("Paris?"))[-1] == City(name="Paris", population=2)
        assert [entry.body for entry in agent.log_sync()]
        assert agent.resume_sync().output == City(name="Paris", population=2)


def test_wrong_options_of_a_sync_stream_are_refused_at_once() -> None:
    with pytest.raises(ConfigurationError, match="a run has no option 'stopp'"):
        Agent(role="x", provider="offline").stream_sync("x", stopp=1)  # type: ignore[call-arg]  # to be seen refused


@pytest.mark.parametrize("how", ["close", "break", "drop"])
@pytest.mark.parametrize("tools", [False, True])
def test_leaving_a_sync_stream_ends_its_request(how: str, tools: bool) -> None:
    provider = Waiting()
    client: Any = OpenRouterClient(provider=provider)
    stream = (ToolClient(client) if tools else client).create("x", stream=True)
    assert next(stream).choices[0].delta.content == "Wait"
    if how == "close":
        stream.close()
    elif how == "break":
        with stream:
            pass
    else:
        del stream
    assert provider.ended.wait(PATIENCE if how == "drop" else 0)  # the other ways wait for the end


class Waiting:
    """A provider that says one word and then nothing for ever."""

    name = model = "waiting"

    def __init__(self) -> None:
        self.ended = threading.Event()

    async def stream(self, _request: Request) -> Any:
        try:
            yield [TextDelta("Wait")]
            await asyncio.Event().wait()
        finally:
            self.ended.set()


# --- all that a client does, by every kind of caller ------------------------------------------------------------------


class City(BaseModel):
    name: str
    population: int


def look(place: str) -> str:
    """Look at a place."""
    return f"seen: {place}"


def answer_to(request: Request) -> str | ToolCall:
    """Give a city where one is asked for, a call first where tools are offered, else a greeting."""
    if request.output is not None:
        return '{"name": "Paris", "population": 2}'
    if request.tools and request.messages[-1].role == "user":
        return ToolCall(id="c1", name="look", arguments='{"place": "there"}')
    return "Hello."


def everything() -> list[Any]:
    """Ask in every way; give what came of it."""
    client = OpenRouterClient(provider=OfflineProvider(function=answer_to))
    tools = ToolClient(client)
    tools.register_tool("look", "Look at a place", look)
    agent = Agent(role="You help.", provider=client.provider, tools=[look])
    with tools.chat("Tools, streamed", stream=True) as stream:
        streamed = [chunk.choices[0].delta.content or "" for chunk in stream]
        whole = stream.get_final_completion()
    return [
        client.create("Whole").choices[0].message.content,
        "".join(chunk.choices[0].delta.content or "" for chunk in client.create("Streamed", stream=True)),
        client.parse("Parsed", City).choices[0].message.parsed,
        tools.chat("Tools").choices[0].message.content,
        "".join(streamed),
        whole.choices[0].message.content,
        agent.chat_sync("Chat"),
        agent.run_sync("Run").stop_reason,
        "".join(agent.stream_sync("Stream")),
    ]


HELLO = "Hello."
EXPECTED = [HELLO, HELLO, City(name="Paris", population=2), HELLO, HELLO, HELLO, HELLO, "response", HELLO]


def test_in_a_plain_function() -> None:
    assert everything() == EXPECTED
    assert everything() == EXPECTED  # and once more


async def test_under_a_running_event_loop() -> None:
    assert everything() == EXPECTED


def test_one_client_serves_fifty_threads() -> None:
    with FaultServer("ok") as server, ThreadPoolExecutor(50) as pool:
        client = OpenRouterClient("sk-test", base_url=server.url)
        said = pool.map(lambda _: client.create("x").choices[0].message.content, range(200))
        assert list(said) == ["ok"] * 200


def test_in_fifty_threads() -> None:
    with ThreadPoolExecutor(50) as pool:
        assert list(pool.map(lambda _: everything(), range(50))) == [EXPECTED] * 50


@pytest.mark.parametrize("how", ["async", "sync"])
def test_inside_a_sync_tool(how: str) -> None:
    made = []

    def ask() -> str:
        """Ask in every way."""
        made.append(everything())
        return "asked"

    agent = Agent(role="You ask.", provider=OfflineProvider([ToolCall(id="c", name="ask"), "Done."]), tools=[ask])
    said = agent.chat_sync("Ask.") if how == "sync" else asyncio.run(agent.chat("Ask."))
    assert (said, made) == ("Done.", [EXPECTED])


def test_inside_an_async_tool_of_a_sync_call_it_is_refused_and_not_a_deadlock() -> None:
    async def ask() -> str:
        """Ask."""
        return OpenRouterClient(provider=OfflineProvider(["never"])).create("x").id

    provider = OfflineProvider([ToolCall(id="c", name="ask"), "Done."])
    assert Agent(role="You ask.", provider=provider, tools=[ask]).chat_sync("Ask.") == "Done."
    result = provider.requests[-1].messages[-1].tool_results[0]
    assert (result.is_error, "would wait for itself" in result.text) == (True, True)


def test_the_awaited_methods_of_a_sync_client_run_in_the_caller_s_loop() -> None:
    client = OpenRouterClient(provider=OfflineProvider(function=answer_to))
    tools = ToolClient(client)
    tools.register_tool("look", "Look at a place", look)

    async def ask() -> list[Any]:
        streamed = [chunk.choices[0].delta.content or "" async for chunk in await client.acreate("x", stream=True)]
        through_tools = [chunk.choices[0].delta.content or "" async for chunk in await tools.achat("x", stream=True)]
        return [
            (await client.acreate("x")).choices[0].message.content,
            (await client.achat("x")).choices[0].message.content,
            (await client.aparse("x", City)).choices[0].message.parsed,
            (await tools.achat("x")).choices[0].message.content,
            (await tools.acreate("x")).choices[0].message.content,
            (await tools.aparse("x", City)).choices[0].message.parsed,
            "".join(streamed),
            "".join(through_tools),
        ]

    city = City(name="Paris", population=2)
    assert asyncio.run(ask()) == [HELLO, HELLO, city, HELLO, HELLO, city, HELLO, HELLO]


def test_errors_keep_their_type() -> None:
    with FaultServer(Reply(status=401, body=b'{"error": {"message": "no such key"}}')) as server:
        client = OpenRouterClient("sk-test", base_url=server.url)
        with pytest.raises(OpenRouterError, match="no such key") as caught:
            client.create("x")
        with pytest.raises(type(caught.value)):
            client.create("x", stream=True)
    with pytest.raises(ConfigurationError, match="takes an OpenRouterClient, which it asks, not str"):
        ToolClient("client")  # type: ignore[arg-type]  # to be seen refused


def test_connections_are_used_again_from_call_to_call() -> None:
    with FaultServer("ok") as server:
        client = OpenRouterClient("sk-test", base_url=server.url)
        for _ in range(5):
            client.create("x")
        assert {exchange.connection for exchange in server.exchanges} == {1}


def test_a_stop_signal_of_another_thread_ends_a_sync_call() -> None:
    begun, stop = threading.Event(), StopSignal()

    async def wait_long() -> str:
        """Wait."""
        begun.set()
        await asyncio.sleep(PATIENCE)
        return "never"

    tools = ToolClient(OpenRouterClient(provider=OfflineProvider([ToolCall(id="c", name="wait_long")])))
    tools.register_tool("wait_long", "Wait", wait_long)

    def end() -> None:
        assert begun.wait(PATIENCE)
        stop.set()

    ending = threading.Thread(target=end)
    ending.start()
    assert tools.chat("Wait.", stop=stop).stop_reason == "user_stop"
    ending.join()


def test_a_stream_that_was_left_has_no_completion() -> None:
    stream = OpenRouterClient(provider=Waiting()).create("x", stream=True)
    stream.close()
    with pytest.raises(Cancelled, match="the stream was left before its answer was whole"):
        stream.get_final_completion()


def test_help_says_the_same_on_both_sides() -> None:
    assert OpenRouterClient.acreate.__doc__ == OpenRouterClient.create.__doc__ == AsyncOpenRouterClient.create.__doc__
    assert ToolClient.register_tool.__doc__ == AsyncToolClient.register_tool.__doc__


def test_properties_are_those_of_the_async_form() -> None:
    client = OpenRouterClient("sk-test", "GPT41")
    client.set_model("GPT4")
    assert (client.model, repr(client)) == (
        "openai/gpt-4",
        "OpenRouterClient(model='openai/gpt-4', provider='openrouter')",
    )
    client.model = "vendor/model"
    assert client.provider.model == "vendor/model"
    tools = ToolClient(client)
    tools.register_tool("look", "Look at a place", look)
    assert (list(tools.tools), [one["function"]["name"] for one in tools.get_tools()]) == (["look"], ["look"])
    assert repr(tools) == "ToolClient(OpenRouterClient(model='vendor/model', provider='openrouter'), tools=['look'])"
    with client, tools:
        pass


CTRL_C = """
import os, signal, threading, time
from plait import OpenRouterClient, ToolClient, OfflineProvider, ToolCall
import asyncio

async def wait_long() -> str:
    "Wait."
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        await asyncio.sleep(60)
    finally:
        print("cancelled", flush=True)
    return "never"

tools = ToolClient(OpenRouterClient(provider=OfflineProvider([ToolCall(id="c", name="wait_long")])))
tools.register_tool("wait_long", "Wait", wait_long)
try:
    tools.chat("Wait.")
except KeyboardInterrupt:
    print("interrupted", [thread.name for thread in threading.enumerate() if not thread.daemon])
"""


def test_ctrl_c_cancels_a_call_and_leaves_no_thread() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CTRL_C], capture_output=True, text=True, timeout=45, check=False, env=dict(os.environ)
    )
    assert (done.returncode, done.stdout.splitlines(), done.stderr) == (
        0,
        ["cancelled", "interrupted ['MainThread']"],
        "",
    )
