"""Every recorded exchange of Ollama's own dialect, read by plait and by the official SDK, and asked for again."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any, Final

import ollama
import pytest

from plait import Agent, MemoryStore, TextDelta, history
from plait.errors import ModelError, ProviderError
from plait.events import Fold
from plait.messages import (
    AssistantMessage,
    ImagePart,
    Message,
    Part,
    ReasoningPart,
    SystemMessage,
    TextPart,
    ToolCall,
    ToolMessage,
    ToolResult,
    UserMessage,
)
from plait.plain import FrozenDict
from plait.providers.base import Request, Settings, ToolDefinition
from plait.providers.ollama import OllamaProvider
from providers.test_ollama import read
from recorded import DELIVERIES, read_recordings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from plait.events import Answer

Recording = dict[str, Any]
HOW_MANY: Final = 17


@pytest.fixture(scope="module")
def exchanges(shared: Path) -> list[Recording]:
    found = read_recordings(shared, "ollama-native")
    assert len(found) >= HOW_MANY
    return found


def provider_for(recording: Recording, server: str = "http://127.0.0.1:9", wanted: str = "id") -> OllamaProvider:
    model = recording["request"]["body"]["model"]
    return OllamaProvider(model, base_url=server, headers={"x-replay-id": recording[wanted]})


# --- answers ---------------------------------------------------------------------------------------------------------


def summary(answer: Answer) -> dict[str, Any]:
    message, usage = answer.message, answer.usage
    return {
        "text": message.text,
        "reasoning": message.reasoning,
        "calls": [(call.name, json.loads(call.arguments)) for call in message.tool_calls],
        "finish_reason": answer.finish_reason,
        "usage": None if usage is None else (usage.input_tokens, usage.output_tokens),
        "model": message.model,
    }


async def by_plait(recording: Recording, server: str) -> Answer | ModelError:
    provider = provider_for(recording, server)
    fold = Fold(provider.name, provider.model)
    try:
        async for batch in provider.stream(Request(messages=[UserMessage(text="x")], stream=recording["stream"])):
            fold.add(batch)
    except ModelError as error:
        return error
    return fold.answer()


async def by_sdk(recording: Recording, server: str) -> dict[str, Any] | int:
    """Ask with the SDK, and put together what it gives, with nothing but concatenation."""
    # Nothing of the SDK can be closed but the client inside it.
    client = ollama.AsyncClient(host=server, headers={"x-replay-id": recording["id"]})
    async with client._client:  # noqa: SLF001
        try:
            made: Any = await client.chat(
                model=recording["request"]["body"]["model"],
                messages=[{"role": "user", "content": "x"}],
                stream=recording["stream"],
            )
            answers = [part async for part in made] if recording["stream"] else [made]
        except ollama.ResponseError as error:
            return error.status_code
    last, messages = answers[-1], [answer.message for answer in answers]
    return {
        "text": "".join(message.content or "" for message in messages),
        "reasoning": "".join(message.thinking or "" for message in messages),
        "calls": [
            (call.function.name, call.function.arguments) for message in messages for call in message.tool_calls or ()
        ],
        "finish_reason": last.done_reason,
        "usage": (last.prompt_eval_count, last.eval_count),
        "model": last.model,
    }


def lines_of(recording: Recording) -> list[dict[str, Any]]:
    return [json.loads(line) for line in recording["response"]["body"].splitlines()]


def ids_in(recording: Recording) -> list[str]:
    """The ids of the recorded calls, which the SDK drops."""
    messages = [line["message"] for line in lines_of(recording)]
    return [call.get("id", "") for message in messages for call in message.get("tool_calls", ())]


@pytest.mark.parametrize("delivery", DELIVERIES)
async def test_answers_are_what_the_sdk_gives(
    delivery: str, exchanges: list[Recording], servers: dict[str, str]
) -> None:
    for recording in exchanges:
        ours, theirs = await by_plait(recording, servers[delivery]), await by_sdk(recording, servers[delivery])
        if isinstance(theirs, int):
            assert isinstance(ours, ProviderError)
            assert (recording["id"], ours.status) == (recording["id"], theirs)
            continue
        assert not isinstance(ours, ModelError), (recording["id"], ours)
        assert (recording["id"], summary(ours)) == (recording["id"], theirs)
        assert [call.id for call in ours.message.tool_calls] == ids_in(recording)
        for call in ours.message.tool_calls:  # in the model's own words
            assert f'"arguments":{call.arguments}' in recording["response"]["body"]


def test_other_line_ends_and_blank_lines_change_nothing(exchanges: list[Recording]) -> None:
    streams = [recording["response"]["body"].encode() for recording in exchanges if recording["stream"]]
    assert len(streams) >= 7
    for stream in streams:
        plain = read([stream])
        assert not isinstance(plain, Exception)
        for other in (
            stream.replace(b"\n", b"\r\n"),
            b"\xef\xbb\xbf" + stream.replace(b"\n", b"\n\n"),
            stream.rstrip(b"\n"),
        ):
            assert read([other]) == plain
            assert read([other[n : n + 5] for n in range(0, len(other), 5)]) == plain


# --- requests --------------------------------------------------------------------------------------------------------


def test_requests_are_the_recorded_ones(exchanges: list[Recording]) -> None:
    for recording in exchanges:
        recorded = recording["request"]["body"]
        built = json.loads(provider_for(recording).encode(as_request(recorded)))
        assert (recording["id"], normal(built)) == (recording["id"], normal(recorded))


class _Output:
    """An output type as recorded, in place of one worked out from a Python type."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self.name, self.schema, self.strict = "recorded", schema, False


def as_request(body: dict[str, Any]) -> Request:
    """Say with plait's values what a recorded body says."""
    options = dict(body.get("options", {}))
    names = {"temperature": "temperature", "seed": "seed", "num_predict": "max_tokens", "top_p": "top_p"}
    settings = {names[name]: options.pop(name) for name in list(options) if name in names}
    known = {"model", "messages", "tools", "stream", "options", "format"}
    extra = {name: value for name, value in body.items() if name not in known}
    output: Any = _Output(body["format"]) if "format" in body else None
    return Request(
        messages=[as_message(message) for message in body["messages"]],
        tools=[as_tool(tool["function"]) for tool in body.get("tools", ())],
        output=output,
        settings=Settings(**settings, extra=FrozenDict(extra | ({"options": options} if options else {}))),
        stream=body["stream"],
    )


def as_tool(function: dict[str, Any]) -> ToolDefinition:
    return ToolDefinition(name=function["name"], description=function["description"], parameters=function["parameters"])


def as_message(message: dict[str, Any]) -> Message:
    text = [TextPart(text=message["content"])] if message["content"] else []
    match message["role"]:
        case "user":
            images = [ImagePart(data=base64.b64decode(image)) for image in message.get("images", ())]
            return UserMessage(parts=(*text, *images))
        case "tool":
            return ToolMessage(parts=(ToolResult(call_id="", name=message["tool_name"], parts=tuple(text)),))
        case "assistant":
            thought: list[Part] = [ReasoningPart(text=message["thinking"])] if message.get("thinking") else []
            calls = [
                ToolCall(id="", name=call["function"]["name"], arguments=json.dumps(call["function"]["arguments"]))
                for call in message.get("tool_calls", ())
            ]
            return AssistantMessage(parts=(*thought, *text, *calls), provider="ollama")
        case _:
            return SystemMessage(parts=tuple(text))


def normal(body: dict[str, Any]) -> dict[str, Any]:
    """Take out of a body what may differ without meaning anything else."""
    made = dict(body)
    for name in ("options", "tools"):  # some SDKs send them empty
        if not made.get(name):
            made.pop(name, None)
    made["messages"] = [normal_message(message) for message in body["messages"]]
    return made


def normal_message(message: dict[str, Any]) -> dict[str, Any]:
    made = dict(message)
    made.pop("tool_call_id", None)  # ids: the recorded SDKs know none
    if "tool_calls" in made:
        made["tool_calls"] = [{name: call[name] for name in call if name != "id"} for call in made["tool_calls"]]
    return made


# --- conversations ---------------------------------------------------------------------------------------------------


def conversations(exchanges: list[Recording]) -> list[tuple[Recording, Recording]]:
    """The conversations of two steps, in which results of tools were sent."""
    steps = {(recording["scenario"], recording["step"]): recording for recording in exchanges}
    found = [(steps[scenario, 1], last) for (scenario, step), last in steps.items() if step == 2]
    assert len(found) >= 3
    return found


async def test_an_answer_goes_back_as_it_was_recorded_to_go(
    exchanges: list[Recording], servers: dict[str, str]
) -> None:
    for first, last in conversations(exchanges):
        answer = await by_plait(first, servers["as recorded"])
        assert not isinstance(answer, ModelError)
        recorded = as_request(last["request"]["body"])
        messages = [answer.message if message.role == "assistant" else message for message in recorded.messages]
        asked = Request(messages=messages, tools=recorded.tools, settings=recorded.settings, stream=recorded.stream)
        built = json.loads(provider_for(last).encode(asked))
        assert normal(built) == normal(last["request"]["body"])


class Tools:
    """The recorded tools as functions: they note their arguments, and give the recorded results in order."""

    def __init__(self, first: Recording, last: Recording) -> None:
        self.results = [one["content"] for one in last["request"]["body"]["messages"] if one["role"] == "tool"]
        self.called: list[tuple[str, dict[str, Any]]] = []
        self.forms = [
            {
                "name": tool["function"]["name"],
                "function_schema": tool,
                "func": self._function(tool["function"]["name"]),
            }
            for tool in first["request"]["body"]["tools"]
        ]

    def _function(self, name: str) -> Callable[..., Any]:
        async def call(**arguments: Any) -> str:
            self.called.append((name, arguments))
            return str(self.results[len(self.called) - 1])

        return call


@pytest.mark.parametrize("delivery", DELIVERIES)
async def test_each_conversation_comes_to_its_recorded_end(
    delivery: str, exchanges: list[Recording], servers: dict[str, str]
) -> None:
    for first, last in conversations(exchanges):
        system, prompt, said, *_ = last["request"]["body"]["messages"]
        tools = Tools(first, last)
        provider = provider_for(first, servers[delivery], "scenario")
        agent = Agent(role=system["content"], provider=provider, tools=tools.forms, store=MemoryStore())
        streamed = ""
        run = agent.run(prompt["content"], thread="t")
        async for event in run:
            streamed += event.text if isinstance(event, TextDelta) else ""
        result = await run
        expected = "".join(line["message"]["content"] for line in lines_of(last))
        assert (result.stop_reason, result.output) == ("response", expected)
        assert streamed.endswith(expected)
        functions = [call["function"] for call in said["tool_calls"]]
        assert tools.called == [(function["name"], function["arguments"]) for function in functions]
        kept = [part.text for message in history(await agent.log("t")) for part in message.tool_results]
        assert kept == tools.results
