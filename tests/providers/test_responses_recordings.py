"""Every recorded exchange of the Responses dialect, read by plait and by the official SDK, and asked for again.

The recordings are served by the replay server kept beside the checkout: as recorded, and with their streams cut
and joined at random, with other line ends and with comments between the events.
"""

from __future__ import annotations

import asyncio
import base64
import json
from typing import TYPE_CHECKING, Any, Final

import openai
import pytest

from plait import Agent, MemoryStore
from plait.errors import ModelError, ProviderError, RateLimited
from plait.events import Answer, Fold, PartDelta, TextDelta, ToolCallFinished
from plait.messages import (
    AssistantMessage,
    FilePart,
    ImagePart,
    Message,
    Part,
    ReasoningPart,
    ServerToolPart,
    SystemMessage,
    TextPart,
    ToolCall,
    ToolMessage,
    ToolResult,
    UserMessage,
)
from plait.plain import FrozenDict, thaw
from plait.providers.base import Request, Settings, ToolDefinition
from plait.providers.responses import ResponsesProvider
from recorded import DELIVERIES, read_recordings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KEY: Final = "sk-recorded"
FAMILIES: Final = ("openai-responses", "openrouter-responses")
ENCRYPTED: Final = "reasoning.encrypted_content"

Recording = dict[str, Any]
Item = dict[str, Any]


@pytest.fixture(scope="module")
def recordings(shared: Path) -> list[Recording]:
    """Every recorded exchange of this dialect."""
    return read_recordings(shared, *FAMILIES)


def provider_for(recording: Recording, server: str = "http://127.0.0.1:9", replay: str = "") -> ResponsesProvider:
    return ResponsesProvider(
        recording["request"]["body"]["model"],
        name=recording["provider"],
        base_url=server + recording["request"]["path"].removesuffix("/responses"),
        api_key=KEY,
        headers={"x-replay-id": replay or recording["id"]},
    )


# --- answers ---------------------------------------------------------------------------------------------------------


def summary(answer: Answer) -> dict[str, Any]:
    """Say what an answer holds, part by part, in the words in which the SDK can say it too."""
    parts: list[Any] = []
    for part in answer.message.parts:
        match part:
            case TextPart():
                parts.append(("refusal" if part.refusal else "text", part.text, thaw(part.citations)))
            case ReasoningPart():
                parts.append(("reasoning", part.text, thaw(part.details)))
            case ToolCall():
                parts.append(("call", part.id, part.name, part.arguments, thaw(part.details)))
            case ServerToolPart():
                parts.append(("server tool", thaw(part.details)))
            case _:
                parts.append(part)
    usage = answer.usage
    return {
        "parts": [part for part in parts if part != ("text", "", [])],
        "finish_reason": answer.finish_reason,
        "usage": usage and (usage.input_tokens, usage.output_tokens, usage.total_tokens),
        "of which": usage and (usage.cache_read_tokens, usage.cache_write_tokens, usage.reasoning_tokens, usage.cost),
        "model": answer.message.model,
        "id": answer.response_id,
    }


async def by_plait(recording: Recording, server: str) -> Any:
    provider = provider_for(recording, server)
    fold = Fold(provider.name, provider.model)
    streamed = ""
    try:
        async for batch in provider.stream(Request(messages=[UserMessage(text="again")], stream=recording["stream"])):
            fold.add(batch)
            streamed += "".join(delta.text for delta in batch if isinstance(delta, TextDelta))
    except ModelError as error:
        return error
    answer = fold.answer()
    assert answer.message.text == streamed
    return summary(answer)


async def by_sdk(recording: Recording, client: openai.AsyncOpenAI, server: str) -> Any:
    client = client.with_options(base_url=server + recording["request"]["path"].removesuffix("/responses"))
    try:
        made: Any = await client.responses.create(
            model=recording["request"]["body"]["model"],
            input="again",
            stream=recording["stream"],
            extra_headers={"x-replay-id": recording["id"]},
        )
        if not recording["stream"]:
            return collected(made, made.output)
        events = [event async for event in made]
    except openai.APIError as error:  # its traceback keeps a stream open, so only what it says is handed on
        return getattr(error, "status_code", None), error.code
    items = [event.item for event in events if event.type == "response.output_item.done"]
    ends = [event.response for event in events if event.type in ("response.completed", "response.incomplete")]
    told = collected(ends[-1], items)
    streamed = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert streamed == "".join(part[1] for part in told["parts"] if part[0] == "text")
    return told


def collected(response: Any, items: list[Any]) -> dict[str, Any]:
    """Put together what the SDK gives."""
    parts: list[Any] = []
    for item in items:
        told = item.to_dict(mode="json")
        match item.type:
            case "message":
                for content in item.content:
                    notes = told["content"][item.content.index(content)].get("annotations", [])
                    kind = "text" if content.type == "output_text" else "refusal"
                    parts.append((kind, content.text if kind == "text" else content.refusal, notes))
            case "reasoning":
                parts.append(("reasoning", "\n\n".join(section.text for section in item.summary), told))
            case "function_call":
                own = {name: value for name, value in told.items() if name in ("id", "status")}
                parts.append(("call", item.call_id, item.name, item.arguments, own))
            case _:
                parts.append(("server tool", told))
    usage = response.usage
    written = getattr(usage.input_tokens_details, "cache_write_tokens", None) or 0
    details = (usage.input_tokens_details.cached_tokens, written, usage.output_tokens_details.reasoning_tokens)
    return {
        "parts": [part for part in parts if part != ("text", "", [])],
        "finish_reason": response.incomplete_details.reason if response.incomplete_details else response.status,
        "usage": (usage.input_tokens, usage.output_tokens, usage.total_tokens),
        "of which": (*details, getattr(usage, "cost", None)),
        "model": response.model,
        "id": response.id,
    }


@pytest.mark.parametrize("delivery", DELIVERIES)
async def test_answers_are_what_the_sdk_gives(
    delivery: str, recordings: list[Recording], servers: dict[str, str]
) -> None:
    server = servers[delivery]
    few = asyncio.Semaphore(4)  # the replay server refuses connections when many are opened at once
    async with openai.AsyncOpenAI(api_key=KEY, base_url=server, max_retries=0) as client:

        async def both(recording: Recording) -> tuple[Any, Any]:
            async with few:
                return await by_plait(recording, server), await by_sdk(recording, client, server)

        pairs = await asyncio.gather(*map(both, recordings))
        if left := asyncio.all_tasks() - {asyncio.current_task()}:  # the SDK closes a stream that failed by and by
            await asyncio.wait(left, timeout=10)
    different, failed = [], 0
    for recording, (ours, theirs) in zip(recordings, pairs, strict=True):
        if isinstance(theirs, tuple):
            assert isinstance(ours, ProviderError), (recording["id"], ours, theirs)
            status, code = theirs
            assert (recording["id"], ours.code) == (recording["id"], code)
            assert ours.status == (status or 429)
            assert isinstance(ours, RateLimited) == (ours.status == 429)
            assert ours.provider == recording["provider"]
            failed += 1
        elif ours != theirs:
            different.append((recording["id"], ours, theirs))
    assert different == []
    assert (len(recordings), failed) == (34, 3)


# --- requests --------------------------------------------------------------------------------------------------------


def test_requests_are_the_recorded_ones(recordings: list[Recording]) -> None:
    different = []
    for recording in recordings:
        recorded = recording["request"]["body"]
        provider = provider_for(recording)
        built = json.loads(provider.encode(as_request(recorded, provider.name)))
        ours, theirs = normal(built), normal(recorded)
        if ours != theirs:
            different.append((recording["id"], ours, theirs))
    assert different == []


class _Output:
    """An output type as recorded, in place of one worked out from a Python type."""

    def __init__(self, recorded: dict[str, Any]) -> None:
        self.name = recorded["name"]
        self.description = ""
        self.schema = recorded["schema"]
        self.strict = recorded["strict"]


def as_request(body: dict[str, Any], provider: str) -> Request:
    """Say with plait's values what a recorded body says."""
    settings: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    tools: list[ToolDefinition] = []
    output: Any = None
    messages: list[Message] = [SystemMessage(text=body["instructions"])] if "instructions" in body else []
    for name, value in body.items():
        match name:
            case "model" | "instructions" | "stream":
                pass
            case "input":
                messages += as_messages(value, provider)
            case "tools":
                tools = [as_tool(tool) for tool in value if tool["type"] == "function"]
                if own := [tool for tool in value if tool["type"] != "function"]:
                    extra["tools"] = own
            case "text" if value["format"]["type"] == "json_schema":
                output = _Output(value["format"])
            case "include":  # plait asks for encrypted thoughts by itself, where the recorded clients did
                left = [one for one in value if one != ENCRYPTED]
                extra |= {"include": left} if left or not value else {}
            case "max_output_tokens":
                settings["max_tokens"] = value
            case "temperature" | "top_p" | "tool_choice" | "parallel_tool_calls":
                settings[name] = value
            case _:
                extra[name] = value
    return Request(
        messages=messages,
        tools=tools,
        output=output,
        settings=Settings(**settings, extra=FrozenDict(extra)),
        stream=body.get("stream", False),
    )


def as_tool(tool: Item) -> ToolDefinition:
    return ToolDefinition(
        name=tool["name"],
        description=tool.get("description") or "",
        parameters=tool["parameters"],
        strict=tool.get("strict", False),
    )


def as_messages(items: str | list[Item], provider: str) -> list[Message]:
    """Make messages of items: what the model said one after the other is one, and so are results."""
    if isinstance(items, str):
        return [UserMessage(text=items)]
    made: list[Message] = []
    for item in items:
        role = item.get("role")
        if role in ("user", "system", "developer"):
            parts = as_parts(item["content"])
            made.append(UserMessage(parts=parts) if role == "user" else SystemMessage(parts=parts))
            continue
        called = item.get("type") == "function_call_output"
        part = ToolResult(call_id=item["call_id"], text=item["output"]) if called else as_said(item)
        fresh: Message = ToolMessage() if called else AssistantMessage(provider=provider)
        if not made or type(made[-1]) is not type(fresh):
            made.append(fresh)
        made[-1] = made[-1].model_copy(update={"parts": (*made[-1].parts, part)})
    return made


def as_parts(content: str | list[Item]) -> tuple[Part, ...]:
    if isinstance(content, str):
        return (TextPart(text=content),)
    return tuple([as_part(part) for part in content])


def as_part(part: Item) -> Part:
    match part["type"]:
        case "input_text":
            return TextPart(text=part["text"])
        case "input_image" if part["image_url"].startswith("data:"):
            media_type, _, data = part["image_url"].removeprefix("data:").partition(";base64,")
            return ImagePart(data=base64.b64decode(data), media_type=media_type)
        case "input_image":
            return ImagePart(url=part["image_url"])
        case _:
            assert part["type"] == "input_file"
            return FilePart(url=part["file_url"])


def as_said(item: Item) -> Part:
    match item["type"]:
        case "message":
            (part,) = item["content"]
            head = {name: value for name, value in item.items() if name not in ("type", "role", "content")}
            return TextPart(text=part["text"], details=FrozenDict({"message": head}))
        case "function_call":
            own: dict[str, Any] = {name: item[name] for name in ("id", "status") if name in item}
            return ToolCall(id=item["call_id"], name=item["name"], arguments=item["arguments"], details=FrozenDict(own))
        case "reasoning":
            return ReasoningPart(details=FrozenDict(item))
        case _:
            return ServerToolPart(name=item["type"], details=FrozenDict(item))


def normal(body: dict[str, Any]) -> dict[str, Any]:
    """Take out of a body what may differ without meaning anything else."""
    made = dict(body)
    if made.get("stream") is False:
        del made["stream"]
    said = made["input"]
    made["input"] = [normal_item(item) for item in ([{"role": "user", "content": said}] if type(said) is str else said)]
    if made["input"][0].get("role") == "system":  # the field and an item that stands first say the same
        made["instructions"] = made["input"].pop(0)["content"]
    made["tools"] = [normal_tool(tool) for tool in body.get("tools", ())]
    return made


def normal_tool(tool: Item) -> Item:
    made = dict(tool)
    if tool["type"] == "function":
        made["description"] = tool.get("description") or ""  # some say of it that it is null
        # Two clients leave it out, and so leave to the API whether it can make the schema strict. Plait says no.
        made["strict"] = tool.get("strict", False)
    return made


def normal_item(item: Item) -> Item:
    made = dict(item)
    if made.get("role") in ("user", "system", "developer"):
        made.pop("type", None)  # "message", which the role says already
        made["role"] = "user" if made["role"] == "user" else "system"  # OpenAI's newer word for it is developer
        content = made["content"]
        if isinstance(content, list) and [part["type"] for part in content] == ["input_text"]:
            made["content"] = content[0]["text"]  # one text part, or the text itself
    if made.get("type") == "function_call_output":
        made.pop("status", None)  # one client says that a result is complete, which all are
    return made


# --- the next step ---------------------------------------------------------------------------------------------------


def next_steps(recordings: list[Recording]) -> list[tuple[Recording, Recording]]:
    """The steps whose answer was sent again in the step after, with that."""
    by_place = {(recording["scenario"], recording["step"]): recording for recording in recordings}
    pairs = [(recording, by_place.get((recording["scenario"], recording["step"] + 1))) for recording in recordings]
    return [(one, after) for one, after in pairs if after is not None and sent_again(after)]


def sent_again(recording: Recording) -> list[Item]:
    said = recording["request"]["body"]["input"]
    return [item for item in said if is_said(item)] if isinstance(said, list) else []


def is_said(item: Item) -> bool:
    return item.get("role") == "assistant" or item.get("type", "message") not in ("message", "function_call_output")


def recorded_items(recording: Recording) -> list[Item]:
    """The items of a recorded answer, read by hand."""
    body = recording["response"]["body"]
    if not recording["stream"]:
        return list(json.loads(body)["output"])
    events = [json.loads(line[6:]) for line in body.splitlines() if line.startswith("data: {")]
    return [event["item"] for event in events if event["type"] == "response.output_item.done"]


async def test_what_was_said_goes_back_unchanged(recordings: list[Recording], servers: dict[str, str]) -> None:
    gone_back = 0
    for recording, after in next_steps(recordings):
        provider = provider_for(recording, servers["cut at random"])
        fold = Fold(provider.name, provider.model)
        async for batch in provider.stream(Request(messages=[UserMessage(text="x")], stream=recording["stream"])):
            fold.add(batch)
        body = after["request"]["body"]
        asked, *_ = as_messages(body["input"], provider.name)
        rest = as_messages([item for item in body["input"] if not is_said(item)], provider.name)[1:]
        thread = [asked, fold.answer().message, *rest]
        built = json.loads(provider.encode(Request(messages=thread, stream=body["stream"])))["input"]
        said = [item for item in built if is_said(item)]
        # What plait sends is what the provider said; the recorded clients left some of it out.
        assert said == [without_logprobs(item) for item in recorded_items(recording)]
        assert [holds(ours, theirs) for ours, theirs in zip(said, sent_again(after), strict=True)] == [True] * len(said)
        recorded_rest = [normal_item(item) for item in body["input"] if not is_said(item)]
        assert [normal_item(item) for item in built if not is_said(item)] == recorded_rest
        gone_back += 1
    assert gone_back == 6


def without_logprobs(item: Item) -> Item:
    """Take out of a message its empty list of probabilities, which plait does not keep."""
    if item["type"] != "message":
        return item
    content = [{name: value for name, value in part.items() if name != "logprobs"} for part in item["content"]]
    return {**item, "content": content}


def holds(ours: Any, theirs: Any) -> bool:
    """Whether an item says all that another one says."""
    if isinstance(theirs, dict):
        return all(holds(ours.get(name), value) for name, value in theirs.items() if value not in (None, []))
    return bool(ours == theirs or (isinstance(theirs, list) and all(map(holds, ours, theirs))))


# --- through the loop ------------------------------------------------------------------------------------------------


class Tools:
    """The recorded tools as functions: they note their arguments, and give the recorded results in order."""

    def __init__(self, steps: list[Recording]) -> None:
        sent = steps[-1]["request"]["body"]["input"]
        self.results = [item["output"] for item in sent if item.get("type") == "function_call_output"]
        self.called: list[tuple[str, dict[str, Any]]] = []
        offered = steps[0]["request"]["body"]["tools"]
        self.forms = [
            {"name": tool["name"], "function_schema": tool, "func": self._function(tool["name"])} for tool in offered
        ]

    def _function(self, name: str) -> Callable[..., Any]:
        async def call(**arguments: Any) -> str:
            self.called.append((name, arguments))
            return str(self.results[len(self.called) - 1])

        return call


@pytest.mark.parametrize("delivery", DELIVERIES)
@pytest.mark.parametrize("scenario", ["reasoning-session-two-tool-calls-streaming", "test-tool-calls"])
async def test_a_conversation_with_tools_comes_to_its_recorded_end(
    recordings: list[Recording], servers: dict[str, str], scenario: str, delivery: str
) -> None:
    steps = [recording for recording in recordings if recording["scenario"].endswith(scenario)]
    first, last = steps
    provider = provider_for(first, servers[delivery], first["scenario"])
    tools = Tools(steps)
    body = first["request"]["body"]
    agent = Agent(role=body.get("instructions"), provider=provider, tools=tools.forms, store=MemoryStore())
    (prompt,) = as_messages(body["input"], provider.name)
    run = agent.run(prompt.text, thread="t")
    streamed, finished, parts = "", 0, 0
    async for event in run:
        streamed += event.text if isinstance(event, TextDelta) else ""
        finished += isinstance(event, ToolCallFinished)
        parts += isinstance(event, PartDelta)
    result = await run
    calls = [item for item in recorded_items(first) if item["type"] == "function_call"]
    assert tools.called == [(call["name"], json.loads(call["arguments"])) for call in calls]
    assert finished == len(calls)
    assert result.stop_reason == "response"
    assert result.output == streamed == recorded_items(last)[0]["content"][0]["text"]
    assert [r.text for message in result.messages for r in message.tool_results] == tools.results
    assert parts == sum(item["type"] == "reasoning" for item in recorded_items(first))
