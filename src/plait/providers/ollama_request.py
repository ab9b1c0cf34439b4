"""Requests in Ollama's own dialect: from messages, tools and settings to bytes. Pure functions.

https://docs.ollama.com/api/chat and https://github.com/ollama/ollama/blob/main/api/types.go

A message has one text, and beside it images in base64: where only an address is given, somebody else has to fetch it
first (`addresses_in`). The images of a tool's result follow the results in a user message. What the dialect has no
place for is refused before anything is sent.
"""

from __future__ import annotations

from base64 import b64encode
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, assert_never

from plait.attachments import image_source, is_web_address
from plait.errors import ConfigurationError
from plait.messages import ImagePart, TextPart, ToolResult
from plait.plain import thaw, to_json
from plait.providers.history import (
    check_extra,
    check_said_by_model,
    described,
    sendable_arguments,
    sendable_name,
    source_of,
    take_list,
    text_in_lines,
    unsendable,
)
from plait.providers.wire import MessageBytes, around, fields_said

if TYPE_CHECKING:
    from collections.abc import Sequence

    from plait.messages import Message, Part, Role, ToolCall
    from plait.providers.base import Request, Settings
    from plait.providers.image_input import Fetching

_OWN_FIELDS: Final = frozenset({"messages", "stream"})
_OPTIONS: Final = "options"
_HOW: Final = frozenset({"stream", "format", _OPTIONS})


@lru_cache(maxsize=64)
def message_bytes(provider: str, fetching: Fetching) -> MessageBytes:
    """Give the keeper of message bytes for a provider of this name, one for all that fetch images in the same way."""
    del fetching  # what was fetched with more leave is no business of those with less
    return MessageBytes(lambda message: encode_message(message, provider))


def encode_message(message: Message, provider: str) -> bytes:
    """Encode one message as the JSON objects, joined by commas, that say it in this dialect.

    A message of tool results is one object for each result, then perhaps a user message with their images.

    Raises:
        ConfigurationError: it has a part that the dialect cannot say.
    """
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


def addresses_in(message: Message) -> list[str]:
    """Give the web addresses of a message's images, in whose place the images must stand before it can be sent."""
    if message.role not in ("user", "tool"):
        return []
    given = (part.parts if isinstance(part, ToolResult) else (part,) for part in message.parts)
    return [url for parts in given for part in parts if (url := _at_address(part)) is not None]


def without_addresses(message: Message) -> Message:
    """Give a message without the images of which it has only a web address."""

    def kept(parts: Sequence[Part]) -> tuple[Part, ...]:
        return tuple([_without(part) for part in parts if _at_address(part) is None])

    def _without(part: Part) -> Part:
        return part.model_copy(update={"parts": kept(part.parts)}) if isinstance(part, ToolResult) else part

    return message.model_copy(update={"parts": kept(message.parts)})


def _at_address(part: Part) -> str | None:
    """Give the web address of an image of which nothing else is known."""
    url = part.url if isinstance(part, ImagePart) and part.data is None else None
    return url if url is not None and is_web_address(url) else None


def _said(parts: Sequence[Part], role: Role, provider: str, *, images: bool = True) -> dict[str, Any]:
    seen = []
    for part in parts:
        if isinstance(part, ImagePart) and images:
            seen.append(_image(part, provider))
        elif not isinstance(part, TextPart):
            raise unsendable(part.type, role, provider)
    made: dict[str, Any] = {"role": role, "content": text_in_lines(parts)}
    return made | {"images": seen} if seen else made


def _image(part: ImagePart, provider: str) -> str:
    source = image_source(part)
    if isinstance(source, str):
        msg = f"{provider!r} takes no address of an image; give the image's data"
        raise ConfigurationError(msg)
    return b64encode(source.data).decode("ascii")


def _assistant(message: Message, provider: str) -> bytes:
    check_said_by_model(message, provider)
    # The words of a refusal are text to this dialect.
    made = {"role": "assistant", "content": "".join(part.text for part in message.parts if isinstance(part, TextPart))}
    if getattr(message, "provider", None) == provider and message.reasoning:
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
        result = {"role": "tool", "content": text_in_lines(part.parts), "tool_call_id": part.call_id}
        made.append(result | {"tool_name": sendable_name(part.name)} if part.name else result)
        if others := [item for item in part.parts if not isinstance(item, TextPart)]:
            more += [TextPart(text=source_of(part)), *others]
    if more:
        made.append(_said(more, "user", provider))
    return made


def encode_rest(request: Request, model: str, provider: str) -> tuple[bytes, bytes]:
    """Encode all that a request says beside its messages: what stands before them, and what behind; see `around`.

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
    tools = [{"type": "function", "function": {**described(tool), "parameters": tool.parameters}} for tool in offered]
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
    more = extra.pop(_OPTIONS, {})
    if not isinstance(more, dict):
        msg = f"settings.extra['options'] of {provider!r} is an object of options, not {type(more).__name__}"
        raise ConfigurationError(msg)
    fields: dict[str, Any] = {
        "model": model,
        "stream": request.stream,  # which is what Ollama does unless told otherwise
        _OPTIONS: fields_said(options) | more or None,
        "tools": tools or None,
        "format": None if output is None else output.schema,
    }
    return around(fields_said(fields) | extra, _HOW, b',"messages":[')


def _check_tool_settings(settings: Settings, provider: str) -> None:
    if settings.tool_choice not in (None, "auto", "none"):
        msg = f"{provider!r} cannot be made to call a tool: tool_choice={settings.tool_choice!r}; leave it out"
        raise ConfigurationError(msg)
    if settings.parallel_tool_calls is False:
        msg = f"{provider!r} cannot be kept from calling several tools: parallel_tool_calls=False; leave it out"
        raise ConfigurationError(msg)
