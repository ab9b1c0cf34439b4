"""Requests in OpenAI's Responses dialect: from messages, tools and settings to bytes. Pure functions.

https://platform.openai.com/docs/api-reference/responses/create

A thread is a list of items. What the provider said goes back to it as the items that it said, unchanged and in their
order: messages, thoughts, calls, and what its own tools did. Of what others said, only text and calls go.

Two fields are not the API's own defaults. A tool says whether it is strict, for what is left out is taken as true. And
models that think are asked for their thoughts in encrypted form, so that these go back whole also where nothing is
stored, or no longer; other models refuse to be asked for them, and to be told others' thoughts. Whether the provider
stores an answer is left to its own default: ``Settings(extra={"store": False})`` says otherwise, and then nothing of a
thread is lost either.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, assert_never

from plait.attachments import file_data, file_name
from plait.errors import ConfigurationError
from plait.messages import (
    AssistantMessage,
    AudioPart,
    FilePart,
    ImagePart,
    Message,
    ReasoningPart,
    ServerToolPart,
    TextPart,
    ToolCall,
    ToolResult,
)
from plait.plain import EMPTY, thaw, to_json
from plait.providers.history import (
    check_extra,
    check_unsaid,
    described,
    named_tool,
    sendable_arguments,
    sendable_id,
    sendable_name,
    take_list,
    text_in_lines,
    unsendable,
)
from plait.providers.wire import MessageBytes, around, data_url, fields_said, image_url

if TYPE_CHECKING:
    from plait.messages import Part
    from plait.providers.base import Request, ToolDefinition
    from plait.schema import OutputSchema

Item = dict[str, Any]

_OWN_FIELDS: Final = frozenset({"input", "instructions", "stream"})
_HOW: Final = frozenset(
    {"temperature", "max_output_tokens", "top_p", "stream", "tool_choice", "parallel_tool_calls", "include"}
)
_LONGEST_ID: Final = 64
_ENCRYPTED: Final = "reasoning.encrypted_content"
# https://platform.openai.com/docs/models, also as OpenRouter and those who tune them name them.
_DO_NOT_THINK: Final = re.compile(r"(?:.*/)?(?:ft:)?(?:gpt-[34]|chatgpt-|gpt-5-chat)")
_THINK: Final = re.compile(r"(?:.*/)?(?:ft:)?(?:o\d|gpt-[5-9]|gpt-1\d|codex)")


def thinks(model: str) -> bool | None:
    """Whether a model of OpenAI's is one that thinks; None where its name does not tell."""
    return False if _DO_NOT_THINK.match(model) else True if _THINK.match(model) else None


@lru_cache(maxsize=64)
def item_bytes(provider: str, *, thoughts: bool) -> MessageBytes:
    """Give the keeper of the bytes of messages as items, one for all models that are told the same."""
    return MessageBytes(lambda message: encode_message(message, provider, thoughts=thoughts))


@lru_cache(maxsize=64)
def instruction_bytes(provider: str) -> MessageBytes:
    """Give the keeper of the bytes of system text that stands first, which is a field of its own."""
    return MessageBytes(lambda message: to_json(_system(message, provider)))


def encode_message(message: Message, provider: str, *, thoughts: bool = True) -> bytes:
    """Encode one message as the items, joined by commas, that say it in this dialect; there may be none.

    Args:
        message: the message.
        provider: who is asked.
        thoughts: whether the model may be told thoughts; else what led from one is told as if another had said it.

    Raises:
        ConfigurationError: it has a part that the dialect cannot say.
    """
    items: list[Item]
    match message.role:
        case "system":
            items = [{"role": "system", "content": _system(message, provider)}]
        case "user":
            items = [{"role": "user", "content": _content(message, provider)}]
        case "assistant":
            items = _said(message, provider, thoughts=thoughts)
        case "tool":
            items = [_result(part, provider) for part in message.parts]
        case _:
            assert_never(message.role)
    return to_json(items)[1:-1]


def _system(message: Message, provider: str) -> str:
    for part in message.parts:
        if not isinstance(part, TextPart):
            raise unsendable(part.type, "system", provider)
    return text_in_lines(message.parts)


def _content(message: Message, provider: str) -> str | list[Item]:
    parts = message.parts
    if len(parts) == 1 and isinstance(parts[0], TextPart):
        return parts[0].text
    made = []
    for part in parts:
        if not isinstance(part, TextPart | ImagePart | FilePart):
            raise unsendable(part.type, message.role, provider)
        made.append(_input(part, provider))
    return made or ""


def _input(part: TextPart | ImagePart | FilePart, provider: str) -> Item:
    match part:
        case TextPart():
            return {"type": "input_text", "text": part.text}
        case ImagePart():
            made = {"type": "input_image", "image_url": image_url(part)}
            return made if part.detail is None else {**made, "detail": part.detail}
        case FilePart():
            return {"type": "input_file", **_file(part, provider)}
        case _:
            assert_never(part)


def _file(part: FilePart, provider: str) -> dict[str, str]:
    if part.file_id is not None:
        return {"file_id": part.file_id}
    held = file_data(part)
    if held is not None:
        return {"filename": file_name(part, held.media_type), "file_data": data_url(held.data, held.media_type)}
    if part.url is not None:
        return {"file_url": part.url}
    msg = f"{provider!r} takes no file without data, url or file_id; give it one of them"
    raise ConfigurationError(msg)


def _said(message: Message, provider: str, *, thoughts: bool) -> list[Item]:
    whose = message.provider if isinstance(message, AssistantMessage) else None
    own = whose == provider
    own = own and (thoughts or all(part.type != "reasoning" for part in message.parts))
    items: list[Item] = []
    for part in message.parts:
        match part:
            case TextPart():
                _say(part, thaw(part.details if own else EMPTY), items)
            case ToolCall():
                name, arguments = sendable_name(part.name), sendable_arguments(part)
                call_id = sendable_id(part.id, _LONGEST_ID)
                call = {"type": "function_call", "call_id": call_id, "name": name, "arguments": arguments}
                items.append({**call, **thaw(part.details)} if own else call)
            case ReasoningPart() | ServerToolPart():
                if own and part.details:
                    items.append(thaw(part.details))
            case ImagePart() if whose is not None:
                pass  # another model made it
            case _:
                raise unsendable(part.type, "assistant", provider)
    return _without_loose_thoughts(items)


def _without_loose_thoughts(items: list[Item]) -> list[Item]:
    """Leave out thoughts without the very item that they led to, which may have been cut: OpenAI refuses them.

    "Item 'rs_...' of type 'reasoning' was provided without its required following item." OpenRouter, which says in what
    format each is, takes them, and puts those of some models last.
    """
    kept: list[Item] = []
    for item in reversed(items):
        if item.get("type") != "reasoning" or "format" in item or (kept and "id" in kept[-1]):
            kept.append(item)
    return kept[::-1]


def _say(part: TextPart, details: dict[str, Any], items: list[Item]) -> None:
    """Add a text to the items: as what it was a part of, if that is known, else as a message of its own."""
    head = details.pop("message", {})
    if part.refusal:
        said = {"type": "refusal", "refusal": part.text, **details}
    else:
        said = {"type": "output_text", "text": part.text, "annotations": [], **details}
    last = items[-1] if items else {}
    if head and last.get("type") == "message" and last.get("id") == head.get("id"):
        last["content"].append(said)
    elif head or details or part.refusal:
        items.append({"type": "message", "role": "assistant", "content": [said], **head})
    elif part.text:
        items.append({"role": "assistant", "content": part.text})


def _result(part: Part, provider: str) -> Item:
    if not isinstance(part, ToolResult):
        raise unsendable(part.type, "tool", provider)
    output: str | list[Item] = text_in_lines(part.parts)
    if not all(isinstance(item, TextPart) for item in part.parts):
        output = []
        for item in part.parts:
            if isinstance(item, AudioPart):
                raise unsendable(item.type, "tool", provider)
            output.append(_input(item, provider))
    return {"type": "function_call_output", "call_id": sendable_id(part.call_id, _LONGEST_ID), "output": output}


def encode_rest(request: Request, model: str, provider: str) -> tuple[bytes, bytes]:
    """Encode what a request says beside its messages: what stands before them, and what behind; see `around`.

    ``settings.extra`` has the last word, but tools and inclusions in it are added to ours, and its ``text`` is joined
    with the form of the answer. An empty ``include`` asks for nothing.

    Args:
        request: what is asked; its messages are left out. Without tools, the settings that speak of them are left out,
            for they would be refused.
        model: the model.
        provider: who is asked.

    Raises:
        ConfigurationError: a setting has no place in the dialect, or ``extra`` names a field that is the library's own.
    """
    settings, output = request.settings, request.output
    check_extra(settings, _OWN_FIELDS)
    n = None if settings.n == 1 else settings.n
    check_unsaid(provider, {"stop": settings.stop, "seed": settings.seed, "n": n})
    extra = thaw(settings.extra)
    fields: dict[str, Any] = {
        "model": model,
        "temperature": settings.temperature,
        "max_output_tokens": settings.max_tokens,
        "top_p": settings.top_p,
        "stream": request.stream or None,
    }
    if offered := [_function(tool) for tool in request.tools] + take_list(extra, "tools"):
        name = named_tool(settings, offered)
        fields["tools"] = offered
        fields["tool_choice"] = settings.tool_choice if name is None else {"type": "function", "name": name}
        fields["parallel_tool_calls"] = settings.parallel_tool_calls
    if thinks(model) and extra.get("include") != []:
        fields["include"] = list(dict.fromkeys([_ENCRYPTED, *take_list(extra, "include")]))
    if output is not None:
        text = extra.pop("text", None)
        fields["text"] = {"format": _format(output), **(text if isinstance(text, dict) else {})}
    return around(fields_said(fields) | extra, _HOW)


def _function(tool: ToolDefinition) -> Item:
    return {"type": "function", **described(tool), "parameters": tool.parameters, "strict": tool.strict}


def _format(output: OutputSchema[Any]) -> Item:
    made: Item = {"type": "json_schema", "name": output.name}
    if output.description:
        made["description"] = output.description
    return {**made, "schema": output.schema, "strict": output.strict}
