"""Every recorded exchange with Anthropic, read by plait and by the official SDK, asked for again, and gone on with.

The recordings are served by the replay server kept beside the checkout: as recorded, and with their streams cut
and joined at random, with other line ends and with comments between the events.
"""

from __future__ import annotations

import asyncio
import base64
import json
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import anthropic
import pytest
from pydantic_core import from_json

from plait import Agent, MemoryStore, Settings, TextDelta, ToolCallFinished, history
from plait.errors import ModelError, ProviderError
from plait.events import Answer, Fold, PartDelta
from plait.messages import (
    AssistantMessage,
    FilePart,
    ImagePart,
    Message,
    ReasoningPart,
    ServerToolPart,
    SystemMessage,
    TextPart,
    ToolCall,
    ToolMessage,
    ToolResult,
    UserMessage,
)
from plait.plain import FrozenDict
from plait.providers.anthropic import AnthropicProvider
from plait.providers.anthropic_request import encode_container, encode_message
from plait.providers.base import Request, ToolDefinition
from recorded import DELIVERIES, read_recordings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Recording = dict[str, Any]

KEY: Final = "sk-recorded"
SERVER_TOOLS: Final = ("server_tool_use", "_tool_result")


@pytest.fixture(scope="module")
def recordings(shared: Path) -> list[Recording]:
    """Every recorded exchange with Anthropic."""
    return read_recordings(shared, "anthropic")


def provider_for(
    recording: Recording, server: str = "http://127.0.0.1:9", replay: str | None = None
) -> AnthropicProvider:
    return AnthropicProvider(
        recording["request"]["body"]["model"],
        base_url=server,
        api_key=KEY,
        headers={"x-replay-id": replay or recording["id"]},
    )


# --- answers ---------------------------------------------------------------------------------------------------------


async def by_plait(recording: Recording, server: str) -> Answer | ModelError:
    provider = provider_for(recording, server)
    fold = Fold(provider.name, provider.model)
    streamed = ""
    try:
        async for batch in provider.stream(Request(messages=[UserMessage(text="x")], stream=recording["stream"])):
            fold.add(batch)
            streamed += "".join(delta.text for delta in batch if isinstance(delta, TextDelta))
            parts = [delta.part for delta in batch if isinstance(delta, PartDelta)]
            assert all(part.details for part in parts if isinstance(part, ReasoningPart | ServerToolPart))
    except ModelError as error:
        return error
    answer = fold.answer()
    assert streamed == answer.message.text
    return answer


def summary(answer: Answer) -> dict[str, Any]:
    """Give an answer as the SDK gives it, its blocks as they go back."""
    message, usage = answer.message, answer.usage
    assert usage is not None
    cached = usage.cache_read_tokens, usage.cache_write_tokens
    details = message.to_json().get("details", {})
    return {
        "id": answer.response_id,
        "model": message.model,
        "blocks": blocks_of(message),
        "arguments": [from_json(call.arguments, allow_partial=True) for call in message.tool_calls],
        "finish_reason": answer.finish_reason,
        "stop_sequence": details.get("stop_sequence"),
        "stop_details": details.get("stop_details"),
        "container": details.get("container", {}).get("id"),
        "usage": (usage.input_tokens, usage.output_tokens, *cached, usage.reasoning_tokens),
    }


def blocks_of(message: Message) -> list[dict[str, Any]]:
    content = json.loads(encode_message(message, "anthropic"))["content"]
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
    return [{**block, "input": None} if block["type"] == "tool_use" else block for block in blocks]


async def by_sdk(recording: Recording, client: anthropic.AsyncAnthropic) -> Any:
    asked: Any = {
        "model": "any",
        "max_tokens": 9,
        "messages": [{"role": "user", "content": "x"}],
        "extra_headers": {"x-replay-id": recording["id"]},
    }
    try:
        if not recording["stream"]:
            message: Any = await client.messages.create(**asked)
        else:
            async with client.messages.stream(**asked) as stream:
                message = await stream.get_final_message()
    except anthropic.APIStatusError as error:
        return error
    said, usage = message.to_dict(mode="json"), message.usage
    thought = usage.output_tokens_details
    cached = usage.cache_read_input_tokens or 0, usage.cache_creation_input_tokens or 0
    return {
        "id": message.id,
        "model": message.model,
        "blocks": [sent_back(block) for block in said["content"]],
        "arguments": [block.input for block in message.content if block.type == "tool_use"],
        "finish_reason": message.stop_reason,
        "stop_sequence": message.stop_sequence,
        "stop_details": said.get("stop_details"),
        "container": message.container.id if message.container else None,
        "usage": (
            usage.input_tokens + sum(cached),
            usage.output_tokens,
            *cached,
            thought.thinking_tokens if thought else 0,
        ),
    }


def sent_back(block: dict[str, Any]) -> dict[str, Any]:
    """Give a block as the SDK would send it back, without fields that say nothing."""
    if block["type"] == "tool_use":
        return {**block, "input": None}  # which is compared by itself, for one recording cuts it off
    if block["type"] == "text":
        return {name: value for name, value in block.items() if name != "citations" or value}
    return block


@pytest.mark.parametrize("delivery", DELIVERIES)
async def test_answers_are_what_the_sdk_gives(
    delivery: str, recordings: list[Recording], servers: dict[str, str]
) -> None:
    server = servers[delivery]
    few = asyncio.Semaphore(4)  # the replay server refuses connections when many are opened at once
    async with anthropic.AsyncAnthropic(api_key=KEY, base_url=server, max_retries=0) as client:

        async def both(recording: Recording) -> tuple[Any, Any]:
            async with few:
                return await by_plait(recording, server), await by_sdk(recording, client)

        pairs = await asyncio.gather(*map(both, recordings))
    different: list[Any] = []
    failed = 0
    for recording, (ours, theirs) in zip(recordings, pairs, strict=True):
        if isinstance(theirs, anthropic.APIStatusError):
            failed += 1
            assert isinstance(ours, ProviderError), (recording["id"], ours, theirs)
            assert (ours.status, ours.request_id) == (theirs.status_code, theirs.request_id), recording["id"]
            assert theirs.body["error"]["message"] in str(ours)  # type: ignore[index]  # these have a JSON object
        elif isinstance(ours, ModelError):
            different.append((recording["id"], ours, theirs))
        elif summary(ours) != theirs:
            different.append((recording["id"], summary(ours), theirs))
    assert different == []
    assert (len(recordings), failed) == (39, 3)


# --- requests --------------------------------------------------------------------------------------------------------


def test_requests_are_the_recorded_ones(recordings: list[Recording]) -> None:
    different = []
    for recording in recordings:
        recorded = recording["request"]["body"]
        built = json.loads(provider_for(recording).encode(as_request(recorded)))
        bare = any("cache_control" in tool for tool in recorded.get("tools", ()))
        ours, theirs = normal(built, bare=bare), normal(recorded, bare=bare)
        if ours != theirs:
            different.append((recording["id"], ours, theirs))
    assert different == []


class _Output:
    """An output type as recorded, in place of one worked out from a Python type."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self.name = "recorded"
        self.schema = schema
        self.strict = True


def as_request(body: dict[str, Any]) -> Request:
    """Say with plait's values what a recorded body says."""
    settings: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    output: Any = None
    tools = [tool for tool in body.get("tools", ()) if "input_schema" in tool]
    for name, value in body.items():
        match name:
            case "max_tokens" | "temperature":
                settings[name] = value
            case "stop_sequences":
                settings["stop"] = tuple(value)
            case "tool_choice":
                settings["tool_choice"] = value["type"]
            case "output_format":
                output = _Output(value["schema"])
            case "output_config":
                output = _Output(value["format"]["schema"])
            case "tools":
                if own := [tool for tool in value if "input_schema" not in tool]:
                    extra["tools"] = own
            case "thinking" | "cache_control" | "container":
                extra[name] = value
            case _:
                assert name in ("model", "system", "messages", "stream"), name
    system = blocks_in(body.get("system", []))
    messages = [as_message(message) for message in body["messages"]]
    return Request(
        messages=[SystemMessage(parts=tuple(as_part(part) for part in system)), *messages] if system else messages,
        tools=[as_tool(tool) for tool in tools],
        output=output,
        settings=Settings(**settings, extra=FrozenDict(extra)),
        stream=body.get("stream", False),
    )


def as_tool(tool: dict[str, Any]) -> ToolDefinition:
    return ToolDefinition(
        name=tool["name"],
        description=tool.get("description", ""),
        parameters=tool["input_schema"],
        strict=tool.get("strict", False),
    )


def blocks_in(content: Any) -> list[dict[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def as_message(message: dict[str, Any]) -> Message:
    blocks = blocks_in(message["content"])
    if message["role"] == "assistant":
        return AssistantMessage(parts=tuple(as_said(block) for block in blocks), provider="anthropic")
    if blocks[0]["type"] == "tool_result":
        return ToolMessage(parts=tuple(as_result(block) for block in blocks))
    return UserMessage(parts=tuple(as_part(block) for block in blocks))


def as_said(block: dict[str, Any]) -> Any:
    """Say with plait's values what a model said."""
    rest = {name: value for name, value in block.items() if name not in ("type", "id", "name", "input", "text")}
    match block["type"]:
        case "text":
            return TextPart(text=block["text"], details=rest)
        case "thinking":
            return ReasoningPart(text=rest.pop("thinking"), details=rest)
        case "redacted_thinking":
            return ReasoningPart(details=block)
        case "tool_use":
            return ToolCall(id=block["id"], name=block["name"], arguments=json.dumps(block["input"]), details=rest)
        case kind:
            assert kind.endswith(SERVER_TOOLS), kind
            return ServerToolPart(name=kind, details=block)


def as_result(block: dict[str, Any]) -> ToolResult:
    parts = tuple(as_part(part) for part in blocks_in(block["content"]))
    return ToolResult(call_id=block["tool_use_id"], parts=parts, is_error=block.get("is_error", False))


def as_part(block: dict[str, Any]) -> Any:
    """Say with plait's values what a person said."""
    details = {name: block[name] for name in ("cache_control", "citations") if block.get(name) is not None}
    source = block.get("source", {})
    match block["type"], source.get("type"):
        case "text", _:
            return TextPart(text=block["text"], details=details)
        case "image", "base64":
            return ImagePart(data=base64.b64decode(source["data"]), media_type=source["media_type"])
        case "document", "url":
            return FilePart(url=source["url"], name=block["title"], details=details)
        case "document", "text":
            data, media_type = source["data"].encode(), source["media_type"]
            return FilePart(data=data, media_type=media_type, name=block["title"], details=details)
        case kind, _:
            assert kind == "container_upload"
            return FilePart(file_id=block["file_id"], media_type="text/csv")


def normal(body: dict[str, Any], *, bare: bool) -> dict[str, Any]:
    """Take out of a body what may differ without meaning anything else.

    ``bare`` says that the client puts marks for the prompt cache on tools and all that follows by itself; they are
    taken out. Where somebody asked for a mark, it stays.
    """
    made = dict(body)
    if made.get("stream") is False:
        del made["stream"]
    if "output_format" in made:  # the older place of output_config.format
        made["output_config"] = {"format": made.pop("output_format")}
    made["system"] = [normal_block(block, bare=bare) for block in blocks_in(body.get("system", []))]
    made["tools"] = [normal_tool(tool) for tool in body.get("tools", ())]
    made["messages"] = [
        {**message, "content": [normal_block(block, bare=bare) for block in blocks_in(message["content"])]}
        for message in body["messages"]
    ]
    return made


def normal_tool(tool: dict[str, Any]) -> dict[str, Any]:
    means_nothing = {"strict": False, "description": ""}  # leaving them out means the same
    unmarked = {name: value for name, value in tool.items() if name != "cache_control"}
    return {name: value for name, value in unmarked.items() if (name, value) not in means_nothing.items()}


def normal_block(block: dict[str, Any], *, bare: bool) -> dict[str, Any]:
    made = {name: value for name, value in block.items() if not (bare and name == "cache_control")}
    if made["type"] == "tool_result":
        made["content"] = blocks_in(made["content"])
        if made.get("is_error") is False:  # which is what leaving it out means
            del made["is_error"]
    return made


# --- conversations ---------------------------------------------------------------------------------------------------


def steps_of(recordings: list[Recording]) -> list[tuple[Recording, Recording]]:
    """Give each recording with the one that goes on with its answer."""
    return [
        (before, after)
        for before, after in pairwise(sorted(recordings, key=lambda step: (step["scenario"], step["step"])))
        if before["scenario"] == after["scenario"] and len(messages_in(after)) > len(messages_in(before))
    ]


def messages_in(recording: Recording) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = recording["request"]["body"]["messages"]
    return found


async def test_what_a_model_said_goes_back_as_the_recorded_client_sent_it(
    recordings: list[Recording], servers: dict[str, str]
) -> None:
    gone_on = []
    for before, after in steps_of(recordings):
        answer = await by_plait(before, servers["cut at random"])
        assert isinstance(answer, Answer)
        sent = json.loads(encode_message(answer.message, "anthropic"))
        recorded = messages_in(after)[len(messages_in(before))]
        ours = [as_sent(block) for block in blocks_in(sent["content"])]
        # One client says a blank before calls, which the model did not.
        theirs = [as_sent(block) for block in blocks_in(recorded["content"]) if block.get("text") != " "]
        assert (sent["role"], ours) == (recorded["role"], theirs), before["id"]
        asked = Request(messages=[answer.message], settings=Settings(extra=FrozenDict({"tools": []})))
        then = datetime(2026, 6, 30, 23, 59, tzinfo=UTC)
        container = {"container": after["request"]["body"].get("container")}
        assert (
            json.loads(b"{" + (encode_container(asked, "anthropic", then)[1:] or b'"container":null') + b"}")
            == container
        )
        gone_on.append(before["scenario"])
    assert len(gone_on) == 9


def as_sent(block: dict[str, Any]) -> Any:
    """Give a block as the recorded clients sent it.

    They leave out fields without a value, and what the API says anew: that the model itself called a tool. One recorder
    wrote typographic signs in plain letters.
    """
    made = {name: value for name, value in block.items() if name != "caller" and value is not None}
    return json.loads(json.dumps(made, ensure_ascii=False).translate({0x2019: "'", 0x2013: "-"}))


class Tools:
    """The recorded tools as functions: they note their arguments, and give the recorded results in order."""

    def __init__(self, first: Recording, last: Recording) -> None:
        blocks = [block for message in messages_in(last) for block in blocks_in(message["content"])]
        self.wanted = [(block["name"], block["input"]) for block in blocks if block["type"] == "tool_use"]
        results = [block["content"] for block in blocks if block["type"] == "tool_result"]
        self.results = ["".join(part["text"] for part in blocks_in(content)) for content in results]
        self.called: list[tuple[str, dict[str, Any]]] = []
        self.forms = [
            {"name": tool["name"], "function_schema": schema_of(tool), "func": self._function(tool["name"])}
            for tool in first["request"]["body"]["tools"]
        ]

    def _function(self, name: str) -> Callable[..., Any]:
        async def call(**arguments: Any) -> str:
            self.called.append((name, arguments))
            return self.results[len(self.called) - 1]

        return call


def schema_of(tool: dict[str, Any]) -> dict[str, Any]:
    function = {"name": tool["name"], "description": tool.get("description", ""), "parameters": tool["input_schema"]}
    return {"type": "function", "function": function}


@pytest.mark.parametrize("delivery", DELIVERIES)
async def test_each_conversation_with_tools_comes_to_its_recorded_end(
    recordings: list[Recording], servers: dict[str, str], delivery: str
) -> None:
    gone_through = 0
    for first, last in steps_of(recordings):
        if "tool_result_turn" not in last["features"]:
            continue
        tools = Tools(first, last)
        provider = provider_for(first, servers[delivery], first["scenario"])
        agent = Agent(provider=provider, tools=tools.forms, store=MemoryStore())
        run = agent.run(blocks_in(messages_in(first)[0]["content"])[0]["text"], thread="t")
        streamed, finished = "", 0
        async for event in run:
            streamed += event.text if isinstance(event, TextDelta) else ""
            finished += isinstance(event, ToolCallFinished)
        result = await run
        expected = await by_plait(last, servers["as recorded"])
        assert isinstance(expected, Answer)
        assert result.stop_reason == "response"
        assert result.output == expected.message.text
        assert streamed.endswith(expected.message.text)
        assert tools.called == tools.wanted
        assert finished == len(tools.wanted) > 0
        kept = [r.text for message in history(await agent.log("t")) for r in message.tool_results]
        assert kept == tools.results
        gone_through += 1
    assert gone_through == 7


async def test_a_paused_answer_is_gone_on_with(recordings: list[Recording], servers: dict[str, str]) -> None:
    first, last = next((a, b) for a, b in steps_of(recordings) if "pause_turn" in a["features"])
    agent = Agent(provider=provider_for(first, servers["cut at random"], first["scenario"]), store=MemoryStore())
    result = await agent.run(messages_in(first)[0]["content"][0]["text"], thread="t")
    expected = await by_plait(last, servers["as recorded"])
    assert isinstance(expected, Answer)
    assert [message.role for message in result.messages] == ["user", "assistant", "assistant"]
    assert result.output == expected.message.text
    assert expected.message.parts == result.messages[-1].parts
