"""Requests in Ollama's own dialect: from messages, tools and settings to bytes. Pure functions.

https://docs.ollama.com/api/chat and https://github.com/ollama/ollama/blob/main/api/types.go

A message has one text, and beside it images in base64: where only an address is given, somebody else has to fetch it
first (`Unfetched`). The images of a tool's result follow the results in a user message. What the dialect has no place
for is refused before anything is sent.
"""

from __future__ import annotations

from base64 import b64encode
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, assert_never

from plait.errors import ConfigurationError
from plait.messages import AssistantMessage, ImagePart, TextPart, ToolResult
from plait.plain import thaw, to_json
from plait.providers.history import (
    Unfetched,
    check_extra,
    sendable_arguments,
    sendable_name,
    source_of,
    take_list,
    unsendable,
)
from plait.providers.wire import MessageBytes, parse_data_url

if TYPE_CHECKING:
    from collections.abc import Iterable

    from plait.messages import Message, Part, Role, ToolCall
    from plait.providers.base import Request, Settings, ToolDefinition

_SAID_BY_MODELS: Final = frozenset({"text", "reasoning", "tool_call", "server_tool"})
_OWN_FIELDS: Final = frozenset({"messages", "stream"})
_OPTIONS: Final = "options"


@lru_cache(maxsize=64)
def message_bytes(provider: str, *, private: bool) -> MessageBytes:
    """Give the keeper of message bytes for a provider of this name, one for all that fetch from the same addresses."""
    del private  # what was fetched with more leave is no business of those with less
    return MessageBytes(lambda message: encode_message(message, provider))


def encode_message(message: Message, provider: str) -> bytes:
    """Encode one message as the JSON objects, joined by commas, that say it in this dialect.

    A message of tool results is one object for each result, then perhaps a user message with their images.

    Raises:
        ConfigurationError: it has a part that the dialect cannot say.
        Unfetched: it has an image of which only the address is known.
    """
    try:
        match message.role:
            case "system":
                return to_json(_said(message.parts, "system", provider, images=False))
            case "user":
                return to_json(_said(message.parts, "user", provider))
            case "assistant":
                return _assistant(message, provider)
            case "tool":
                return to_json(_results(message, provider))[1:-1]
            case _:
                assert_never(message.role)
    except _NoData:
        raise Unfetched(message, provider) from None


class _NoData(Exception):
    """An image has an address only."""


def _said(parts: Iterable[Part], role: Role, provider: str, *, images: bool = True) -> dict[str, Any]:
    texts, seen = [], []
    for part in parts:
        if isinstance(part, TextPart):
            texts.append(part.text)
        elif isinstance(part, ImagePart) and images:
            seen.append(_image(part))
        else:
            raise unsendable(part.type, role, provider)
    made: dict[str, Any] = {"role": role, "content": "".join(texts)}
    return made | {"images": seen} if seen else made


def _image(part: ImagePart) -> str:
    data = part.data
    if data is None and part.url is not None:
        found = parse_data_url(part.url)
        if found is None:
            raise _NoData
        data = found[1]
    if data is None:
        msg = "an image part has neither url nor data; give it one of them"
        raise ConfigurationError(msg)
    return b64encode(data).decode("ascii")


def _assistant(message: Message, provider: str) -> bytes:
    whose = message.provider if isinstance(message, AssistantMessage) else None
    for part in message.parts:
        if part.type not in _SAID_BY_MODELS and (whose is None or part.type != "image"):
            raise unsendable(part.type, "assistant", provider)
    # The words of a refusal are text to this dialect.
    made = {"role": "assistant", "content": "".join(part.text for part in message.parts if isinstance(part, TextPart))}
    if whose == provider and message.reasoning:
        made["thinking"] = message.reasoning
    said = to_json(made)
    if not message.tool_calls:
        return said
    return b'%b,"tool_calls":[%b]}' % (said[:-1], b",".join(map(_called, message.tool_calls)))


def _called(call: ToolCall) -> bytes:
    """Encode a call; its arguments are an object, in the words of the model.

    A lone surrogate can stand in a string only, where its escape says the same.
    """
    arguments = sendable_arguments(call).encode("utf-8", "backslashreplace")
    head = to_json({"id": call.id, "type": "function", "function": {"name": sendable_name(call.name)}})
    return b'%b,"arguments":%b}}' % (head[:-2], arguments)


def _results(message: Message, provider: str) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []
    more: list[Part] = []
    for part in message.parts:
        if not isinstance(part, ToolResult):
            raise unsendable(part.type, "tool", provider)
        result = {"role": "tool", "content": part.text, "tool_call_id": part.call_id}
        made.append(result | {"tool_name": sendable_name(part.name)} if part.name else result)
        if others := [item for item in part.parts if not isinstance(item, TextPart)]:
            line_end = "\n" if more else ""
            more += [TextPart(text=line_end + source_of(part)), *others]
    if more:
        made.append(_said(more, "user", provider))
    return made


def encode_head(request: Request, model: str, provider: str) -> bytes:
    """Encode all that a request says beside its messages, as the beginning of an object.

    Most settings are ``options``. ``settings.extra`` has the last word, but options in it join these, and tools in it
    are offered beside those of the request.

    Args:
        request: what is asked; its messages are left out. Without tools, the settings that speak of them mean nothing.
        model: who is asked.
        provider: the vendor's name.

    Raises:
        ConfigurationError: a setting has no place in the dialect, or ``extra`` names a field that is the library's own.
    """
    settings, output = request.settings, request.output
    check_extra(settings, _OWN_FIELDS)
    if settings.n not in (None, 1):
        msg = f"{provider!r} gives one answer to a request, not n={settings.n!r}; leave it out, or ask several times"
        raise ConfigurationError(msg)
    extra = thaw(settings.extra)
    offered = () if settings.tool_choice == "none" else request.tools  # there is no other way to say it
    tools = [{"type": "function", "function": _function(tool)} for tool in offered]
    tools += take_list(extra, "tools")
    if tools:
        _check_tool_settings(settings, provider)
    options: dict[str, Any] = {
        "temperature": settings.temperature,
        "num_predict": settings.max_tokens,
        "top_p": settings.top_p,
        "stop": settings.stop,
        "seed": settings.seed,
    }
    options = {name: value for name, value in options.items() if value is not None}
    more = extra.pop(_OPTIONS, {})
    if not isinstance(more, dict):
        msg = f"settings.extra['options'] of {provider!r} is an object of options, not {type(more).__name__}"
        raise ConfigurationError(msg)
    fields: dict[str, Any] = {
        "model": model,
        "stream": request.stream,  # which is what Ollama does unless told otherwise
        _OPTIONS: options | more or None,
        "tools": tools or None,
        "format": None if output is None else output.schema,
    }
    return to_json({name: value for name, value in fields.items() if value is not None} | extra)[:-1]


def _function(tool: ToolDefinition) -> dict[str, Any]:
    described = {"description": tool.description} if tool.description else {}
    return {"name": tool.name, **described, "parameters": tool.parameters}


def _check_tool_settings(settings: Settings, provider: str) -> None:
    if settings.tool_choice not in (None, "auto", "none"):
        msg = f"{provider!r} cannot be made to call a tool: tool_choice={settings.tool_choice!r}; leave it out"
        raise ConfigurationError(msg)
    if settings.parallel_tool_calls is False:
        msg = f"{provider!r} cannot be kept from calling several tools: parallel_tool_calls=False; leave it out"
        raise ConfigurationError(msg)
