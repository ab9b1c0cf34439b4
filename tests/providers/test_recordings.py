"""Every recorded exchange of the chat dialect, read by plait and by the official SDK, and asked for again.

The recordings are served by the replay server kept beside the checkout: as recorded, and with their streams cut
and joined at random, with other line ends and with comments between the events.
"""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any, Final

import openai
import pytest

from plait.errors import ModelError, ProviderError, RateLimited
from plait.events import Answer, Fold
from plait.messages import (
    AssistantMessage,
    FilePart,
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
from plait.providers.chat import ChatProvider
from recorded import DELIVERIES, FAMILIES

KEY: Final = "sk-recorded"


def provider_for(recording: dict[str, Any], server: str = "http://127.0.0.1:9") -> ChatProvider:
    path = recording["request"]["path"].removesuffix("/chat/completions")
    return ChatProvider(
        recording["request"]["body"]["model"],
        name=FAMILIES[recording["provider"]],
        base_url=server + path,
        api_key=KEY,
        headers={"x-replay-id": recording["id"]},
    )


# --- answers ---------------------------------------------------------------------------------------------------------


def summary(answer: Answer) -> dict[str, Any]:
    message = answer.message
    return {
        "text": message.text,
        "refusal": message.refusal,
        "reasoning": message.reasoning,
        "calls": [(call.id, call.name, call.arguments) for call in message.tool_calls],
        "finish_reason": answer.finish_reason,
        "reasoning_details": message.to_json().get("details", {}).get("reasoning_details", []),
    }


async def by_plait(recording: dict[str, Any], server: str) -> Any:
    provider = provider_for(recording, server)
    request = Request(messages=[UserMessage(text="as recorded")], stream=recording["stream"])
    fold = Fold(provider.name, provider.model)
    try:
        async for batch in provider.stream(request):
            fold.add(batch)
    except ModelError as error:
        return error
    usage = fold.usage
    counted = None if usage is None else (usage.input_tokens, usage.output_tokens, usage.total_tokens, usage.cost)
    return {
        "choices": [summary(answer) for answer in fold.answers()],
        "usage": counted,
        "cached": None if usage is None else (usage.cache_read_tokens, usage.reasoning_tokens),
        "model": fold.model,
        "id": fold.response_id,
    }


async def by_sdk(recording: dict[str, Any], client: openai.AsyncOpenAI, server: str) -> Any:
    path = recording["request"]["path"].removesuffix("/chat/completions")
    client = client.with_options(base_url=server + path)
    try:
        made: Any = await client.chat.completions.create(
            model=recording["request"]["body"]["model"],
            messages=[{"role": "user", "content": "as recorded"}],
            stream=recording["stream"],
            extra_headers={"x-replay-id": recording["id"]},
        )
        answers = [chunk async for chunk in made] if recording["stream"] else [made]
    except openai.APIError as error:  # its traceback keeps a stream open, so only the status is handed on
        return int(getattr(error, "status_code", None) or error.code or 0)
    return collected(answers)


def collected(answers: list[Any]) -> dict[str, Any]:
    """Put together what the SDK gives, with nothing but concatenation."""
    choices: dict[int, dict[str, Any]] = {}
    usage: Any = None
    for answer in answers:
        usage = answer.usage or usage
        for choice in answer.choices:
            said = getattr(choice, "delta", None) or choice.message
            whole = choices.setdefault(
                choice.index,
                {
                    "text": "",
                    "refusal": "",
                    "reasoning": "",
                    "calls": {},
                    "finish_reason": None,
                    "reasoning_details": [],
                },
            )
            whole["text"] += said.content or ""
            whole["refusal"] += said.refusal or ""
            whole["reasoning"] += getattr(said, "reasoning", None) or ""
            whole["reasoning_details"] += getattr(said, "reasoning_details", None) or []
            whole["finish_reason"] = choice.finish_reason or whole["finish_reason"]
            for number, call in enumerate(said.tool_calls or ()):
                known = whole["calls"].setdefault(getattr(call, "index", number), ["", "", ""])
                known[0] = known[0] or call.id or ""
                known[1] = known[1] or call.function.name or ""
                known[2] += call.function.arguments or ""
    for whole in choices.values():
        whole["calls"] = [tuple(call) for _, call in sorted(whole["calls"].items())]
    of_input = getattr(usage, "prompt_tokens_details", None)
    of_output = getattr(usage, "completion_tokens_details", None)
    return {
        "choices": [whole for _, whole in sorted(choices.items())],
        "usage": None
        if usage is None
        else (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens, getattr(usage, "cost", None)),
        "cached": None
        if usage is None
        else (getattr(of_input, "cached_tokens", 0) or 0, getattr(of_output, "reasoning_tokens", 0) or 0),
        "model": answers[-1].model,
        "id": answers[-1].id,
    }


@pytest.mark.parametrize("delivery", DELIVERIES)
async def test_answers_are_what_the_sdk_gives(
    delivery: str, recordings: list[dict[str, Any]], servers: dict[str, str]
) -> None:
    server = servers[delivery]
    few = asyncio.Semaphore(4)  # the replay server refuses connections when many are opened at once
    async with openai.AsyncOpenAI(api_key=KEY, base_url=server, max_retries=0) as client:

        async def both(recording: dict[str, Any]) -> tuple[Any, Any]:
            async with few:
                return await by_plait(recording, server), await by_sdk(recording, client, server)

        pairs = await asyncio.gather(*map(both, recordings))
        if left := asyncio.all_tasks() - {asyncio.current_task()}:  # the SDK closes a stream that failed by and by
            await asyncio.wait(left, timeout=10)
    different = []
    for recording, (ours, theirs) in zip(recordings, pairs, strict=True):
        if isinstance(theirs, int):
            assert isinstance(ours, ProviderError), (recording["id"], ours, theirs)
            assert (recording["id"], ours.status) == (recording["id"], theirs)
            assert isinstance(ours, RateLimited) == (theirs == 429)
            assert ours.provider == FAMILIES[recording["provider"]]
        elif ours != theirs:
            different.append((recording["id"], ours, theirs))
    assert different == []
    assert len(recordings) >= 52


# --- requests --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_requests_are_the_recorded_ones(family: str, recordings: list[dict[str, Any]]) -> None:
    different = []
    for recording in recordings:
        if recording["provider"] != family:
            continue
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
        self.schema = recorded["schema"]
        self.strict = recorded.get("strict", False)


def as_request(body: dict[str, Any], provider: str) -> Request:
    """Say with plait's values what a recorded body says."""
    known = {"model", "messages", "tools", "stream", "stream_options", "response_format"}
    settings: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    output: Any = None
    for name, value in body.items():
        if name in ("max_tokens", "max_completion_tokens"):
            settings["max_tokens"] = value
        elif name in ("temperature", "top_p", "seed", "n", "tool_choice", "parallel_tool_calls"):
            settings[name] = value
        elif name == "stop":
            settings["stop"] = tuple(value)
        elif name == "response_format" and value["type"] == "json_schema":
            output = _Output(value["json_schema"])
        elif name == "response_format" or name not in known:
            extra[name] = value
    return Request(
        messages=[as_message(message, provider) for message in body["messages"]],
        tools=[as_tool(tool["function"]) for tool in body.get("tools", ())],
        output=output,
        settings=Settings(**settings, extra=FrozenDict(extra)),
        stream=body.get("stream", False),
    )


def as_tool(function: dict[str, Any]) -> ToolDefinition:
    return ToolDefinition(
        name=function["name"],
        description=function.get("description", ""),
        parameters=function["parameters"],
        strict=function.get("strict", False),
    )


def as_message(message: dict[str, Any], provider: str) -> Message:
    content = message.get("content")
    parts: list[Any] = [as_part(part) for part in content] if isinstance(content, list) else []
    if isinstance(content, str) and content:
        parts = [TextPart(text=content)]
    match message["role"]:
        case "user":
            return UserMessage(parts=tuple(parts))
        case "tool":
            return ToolMessage(parts=(ToolResult(call_id=message["tool_call_id"], parts=tuple(parts)),))
        case "assistant":
            calls = [
                ToolCall(id=call["id"], name=call["function"]["name"], arguments=call["function"]["arguments"])
                for call in message.get("tool_calls", ())
            ]
            thought: list[Part] = [ReasoningPart(text=message["reasoning"])] if "reasoning" in message else []
            details = {name: value for name, value in message.items() if name == "reasoning_details"}
            return AssistantMessage(parts=(*thought, *parts, *calls), provider=provider, details=details)
        case _:
            return SystemMessage(parts=tuple(parts))


def as_part(part: dict[str, Any]) -> Part:
    if part["type"] == "text":
        return TextPart(text=part["text"])
    if part["type"] == "image_url":
        url = part["image_url"]["url"]
        if url.startswith("data:"):
            media_type, data = read_data_url(url)
            return ImagePart(data=data, media_type=media_type)
        return ImagePart(url=url)
    assert part["type"] == "file"
    media_type, data = read_data_url(part["file"]["file_data"])
    return FilePart(data=data, media_type=media_type, name=part["file"]["filename"])


def read_data_url(url: str) -> tuple[str, bytes]:
    media_type, _, data = url.removeprefix("data:").partition(";base64,")
    return media_type, base64.b64decode(data)


def normal(body: dict[str, Any]) -> dict[str, Any]:
    """Take out of a body what may differ without meaning anything else."""
    made = dict(body)
    made.pop("stream_options", None)
    if made.get("stream") is False:
        del made["stream"]
    if "max_tokens" in made:  # the older name of the same setting
        made["max_completion_tokens"] = made.pop("max_tokens")
    made["messages"] = [normal_message(message) for message in body["messages"]]
    made["tools"] = [normal_tool(tool) for tool in body.get("tools", ())]
    return made


def normal_tool(tool: dict[str, Any]) -> dict[str, Any]:
    function = dict(tool["function"])
    if function.get("strict") is False:  # which is what leaving it out means
        del function["strict"]
    return {**tool, "function": function}


def normal_message(message: dict[str, Any]) -> dict[str, Any]:
    made = dict(message)
    content = made.get("content")
    if isinstance(content, list) and [part["type"] for part in content] == ["text"]:
        made["content"] = content[0]["text"]  # one text part, or the text itself
    if made["role"] == "assistant" and not made.get("content"):
        made.pop("content", None)  # "", null and nothing at all are in use beside tool calls
    if made["role"] == "developer":  # OpenAI's newer word for system
        made["role"] = "system"
    if made.get("reasoning_content") == made.get("reasoning"):  # one SDK says it twice, for servers that know either
        made.pop("reasoning_content", None)
    return made
