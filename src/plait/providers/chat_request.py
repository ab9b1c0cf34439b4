"""Requests in OpenAI's chat dialect: from messages, tools and settings to bytes. Pure functions.

https://platform.openai.com/docs/api-reference/chat/create

What the dialect has no place for is refused before anything is sent, but for two things: what a model thought is
left out where the vendor does not take it back, and images or files in a tool's result, which has room for text
only, follow the results in a user message. A call with a name or arguments that no server takes is said in a form
that they take: the rest of the conversation must not be lost with it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, assert_never

from plait.attachments import file_data, file_name, image_type
from plait.errors import ConfigurationError
from plait.messages import AssistantMessage, AudioPart, FilePart, ImagePart, Message, TextPart, ToolResult
from plait.plain import thaw, to_json
from plait.providers.history import (
    check_extra,
    check_said_by_model,
    check_unsaid,
    described,
    named_tool,
    sendable_arguments,
    sendable_id,
    sendable_name,
    source_of,
    take_list,
    text_in_lines,
    unsendable,
)
from plait.providers.wire import MessageBytes, around, data_url, fields_said, image_url

if TYPE_CHECKING:
    from plait.messages import ContentPart, Role, ToolCall
    from plait.providers.base import Request, Settings, ToolDefinition
    from plait.providers.vendors import ChatForm
    from plait.schema import OutputSchema

_AUDIO_FORMATS: Final = {"mpeg": "mp3", "x-wav": "wav", "wave": "wav", "vnd.wave": "wav"}
_OF_CALLS: Final = frozenset({"extra_content"})  # a vendor's own fields of a tool call
_OWN_FIELDS: Final = frozenset({"messages", "stream"})
_OF_TOOLS: Final = frozenset({"tool_choice", "parallel_tool_calls"})
_HOW: Final = frozenset({"temperature", "top_p", "stop", "seed", "n", "stream", "stream_options"}) | _OF_TOOLS
_SAY_NOTHING: Final = {"n": (1,), "tool_choice": ("auto", "none"), "parallel_tool_calls": (True,)}


@lru_cache(maxsize=64)
def message_bytes(form: ChatForm) -> MessageBytes:
    """Give the keeper of message bytes in this form, one for all providers that share it."""
    return MessageBytes(lambda message: encode_message(message, form))


def encode_message(message: Message, form: ChatForm) -> bytes:
    """Encode one message as the JSON objects, joined by commas, that say it in this dialect.

    A message of tool results is one object for each result, then perhaps a user message with their images.

    Raises:
        ConfigurationError: it has a part that the dialect cannot say.
    """
    match message.role:
        case "system":
            return to_json({"role": "system", "content": _content(message, form, text_only=True)})
        case "user":
            return to_json({"role": "user", "content": _content(message, form)})
        case "assistant":
            return to_json(_assistant(message, form))
        case "tool":
            return to_json(_results(message, form))[1:-1]
        case _:
            assert_never(message.role)


def _content(message: Message, form: ChatForm, *, text_only: bool = False) -> str | list[dict[str, Any]]:
    parts = message.parts
    if len(parts) == 1 and isinstance(parts[0], TextPart):
        return parts[0].text
    made = []
    for part in parts:
        if isinstance(part, TextPart) or (isinstance(part, ImagePart | AudioPart | FilePart) and not text_only):
            made.append(_part(part, message.role, form))
        else:
            raise unsendable(part.type, message.role, form.provider)
    return made or ""


def _part(part: ContentPart, role: Role, form: ChatForm) -> dict[str, Any]:
    if part.type != "text" and part.type not in form.takes:
        raise unsendable(part.type, role, form.provider)
    match part:
        case TextPart():
            return {"type": "text", "text": part.text}
        case ImagePart():
            return _image(part, form)
        case AudioPart():
            kind = part.media_type.partition("/")[2]
            sound = {"data": thaw(part.data), "format": _AUDIO_FORMATS.get(kind, kind)}
            return {"type": "input_audio", "input_audio": sound}
        case FilePart():
            return {"type": "file", "file": _file(part, form)}
        case _:
            assert_never(part)


def _image(part: ImagePart, form: ChatForm) -> dict[str, Any]:
    url = image_url(part)
    if not (form.image_urls or url.startswith("data:")):
        msg = f"{form.provider!r} takes no address of an image; give the image's data"
        raise ConfigurationError(msg)
    detail = {} if part.detail is None else {"detail": part.detail}
    return {"type": "image_url", "image_url": {"url": url, **detail}}


def _drawn(part: ImagePart) -> dict[str, Any]:
    """Say an image that the model made: it goes back as it came, whatever it is."""
    url = part.url if part.data is None else data_url(part.data, image_type(part))
    return {"type": "image_url", "image_url": {"url": url}}


def _file(part: FilePart, form: ChatForm) -> dict[str, str]:
    if part.file_id is not None:
        return {"file_id": part.file_id}
    held = file_data(part)
    if held is not None:
        kind = held.media_type
        if form.file_types and kind not in form.file_types:
            takes = ", ".join(sorted(form.file_types))
            what = f"a file of type {kind!r} cannot be sent to {form.provider!r}; it takes {takes}"
            msg = f"{what}. Send it as text or images"
            raise ConfigurationError(msg)
        return {"file_data": data_url(held.data, held.media_type), "filename": file_name(part, kind)}
    if part.url is not None and form.file_urls:
        return {"file_data": part.url, "filename": part.name or part.url.rsplit("/", 1)[-1] or "file"}
    what = "a file's url" if part.url is not None else "a file without data, url or file_id"
    msg = f"{form.provider!r} takes no {what.removeprefix('a ')}; give the file's data or file_id"
    raise ConfigurationError(msg)


def _assistant(message: Message, form: ChatForm) -> dict[str, Any]:
    check_said_by_model(message, form.provider)
    own = getattr(message, "provider", None) == form.provider
    calls, text, refusal = message.tool_calls, message.text, message.refusal
    made: dict[str, Any] = {"role": "assistant", "content": text if text or not (calls or refusal) else None}
    if refusal:
        made["refusal"] = refusal
    if calls:
        made["tool_calls"] = [_called(call, form, own=own) for call in calls]
    if own and isinstance(message, AssistantMessage):
        details = {name: value for name, value in message.details.items() if name in form.details}
        made.update(details)
        if form.reasoning and message.reasoning and not details:
            made[form.reasoning] = message.reasoning
        images = [part for part in message.parts if isinstance(part, ImagePart)] if form.images else []
        if images:
            made["images"] = [_drawn(part) for part in images]
    return made


def _called(call: ToolCall, form: ChatForm, *, own: bool) -> dict[str, Any]:
    function = {"name": sendable_name(call.name), "arguments": sendable_arguments(call)}
    made = {"id": sendable_id(call.id, form.longest_id), "type": "function", "function": function}
    if own and call.details:
        made.update({name: value for name, value in call.details.items() if name in _OF_CALLS})
    return made


def _results(message: Message, form: ChatForm) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []
    more: list[dict[str, Any]] = []
    for part in message.parts:
        if not isinstance(part, ToolResult):
            raise unsendable(part.type, "tool", form.provider)
        call_id = sendable_id(part.call_id, form.longest_id)
        made.append({"role": "tool", "tool_call_id": call_id, "content": text_in_lines(part.parts)})
        if others := [_part(item, "tool", form) for item in part.parts if not isinstance(item, TextPart)]:
            more += [{"type": "text", "text": source_of(part)}, *others]
    if more:
        made.append({"role": "user", "content": more})
    return made


def encode_rest(request: Request, model: str, form: ChatForm) -> tuple[bytes, bytes]:
    """Encode all that a request says beside its messages: what stands before them, and what behind; see `around`.

    ``settings.extra`` has the last word, but tools in it are offered beside those of the request.

    Args:
        request: what is asked; its messages are left out. Without tools, the settings that speak of them are left out,
            for they would be refused.
        model: who is asked.
        form: the vendor's.

    Raises:
        ConfigurationError: ``extra`` names a field that is the library's own, or a setting would be passed over.
    """
    settings, output = request.settings, request.output
    check_extra(settings, _OWN_FIELDS)
    silent = settings.tool_choice == "none" and "tool_choice" in form.ignores
    offered = () if silent else request.tools  # there is no other way to say it
    extra: dict[str, Any] = thaw(settings.extra)
    tools = [{"type": "function", "function": _function(tool)} for tool in offered]
    tools += take_list(extra, "tools")
    asked = {name: getattr(settings, name) for name in (form.ignores if tools else form.ignores - _OF_TOOLS)}
    check_unsaid(
        form.provider, {name: value for name, value in asked.items() if value not in _SAY_NOTHING.get(name, ())}
    )
    fields: dict[str, Any] = {
        "model": model,
        "temperature": settings.temperature,
        form.max_tokens: settings.max_tokens,
        "top_p": settings.top_p,
        "stop": settings.stop,
        "seed": settings.seed,
        "n": settings.n,
        "tools": tools or None,
        "tool_choice": _choice(settings, tools) if tools else None,
        "parallel_tool_calls": settings.parallel_tool_calls if tools else None,
        "response_format": None if output is None else {"type": "json_schema", "json_schema": _schema(output)},
        "stream": request.stream or None,
        "stream_options": {"include_usage": True} if request.stream else None,  # else tokens are not told
    }
    return around(fields_said(fields) | extra, _HOW | {form.max_tokens}, b',"messages":[')


def _choice(settings: Settings, tools: list[Any]) -> str | dict[str, Any] | None:
    name = named_tool(settings, tools)
    return settings.tool_choice if name is None else {"type": "function", "function": {"name": name}}


def _schema(output: OutputSchema[Any]) -> dict[str, Any]:
    made: dict[str, Any] = {"name": output.name, "schema": output.schema}
    return {**made, "strict": True} if output.strict else made


def _function(tool: ToolDefinition) -> dict[str, Any]:
    made = {**described(tool), "parameters": tool.parameters}
    return {**made, "strict": True} if tool.strict else made
