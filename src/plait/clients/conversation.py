"""Messages as users of chat APIs write them: from OpenAI's dicts, and from completions, to `Message`s. Pure.

https://platform.openai.com/docs/api-reference/chat/create#chat-create-messages
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from plait.attachments import parse_data_url
from plait.clients.completions import ChatCompletionMessage
from plait.errors import ConfigurationError, excerpt
from plait.frozen import assemble
from plait.messages import (
    AssistantMessage,
    AudioPart,
    FilePart,
    ImagePart,
    Message,
    ReasoningPart,
    SystemMessage,
    TextPart,
    ToolCall,
    ToolMessage,
    ToolResult,
    UserMessage,
    as_message,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from plait.messages import ContentPart

ChatMessage = str | Message | Mapping[str, Any] | ChatCompletionMessage[Any]
"""What may stand among messages: OpenAI's dicts, answers as they came, `Message`s, and text, which is a user's."""

_PLAIN: Final = frozenset({"role", "content"})
_TAKEN: Final = {
    "system": _PLAIN,
    "developer": _PLAIN,
    "user": _PLAIN,
    "assistant": _PLAIN | {"tool_calls", "refusal", "reasoning", "reasoning_details", "annotations", "details"},
    "tool": _PLAIN | {"tool_call_id", "name"},
}
_OF_TEXT: Final[dict[str, type[Message]]] = {
    "user": UserMessage,
    "system": SystemMessage,
    "developer": SystemMessage,
    "assistant": AssistantMessage,
}
_SAY_NOTHING: Final = frozenset({"parsed", "images", "audio", "function_call", "reasoning_content", "said"})
"""Fields of answers that are not sent back."""

_MEDIA: Final = {"wav": "audio/wav", "mp3": "audio/mpeg"}
_DETAILS: Final = ("reasoning_details", "annotations")


def read_messages(given: str | Sequence[Any], provider: str) -> tuple[Message, ...]:
    """Give the conversation that a caller's messages are; what was given is left as it is.

    Args:
        given: the messages, oldest first, each a `ChatMessage` or an object of OpenAI's SDK.
        provider: who is asked: an answer's details, in a dict, are taken to be this provider's.

    Raises:
        ConfigurationError: there is none, or one of them cannot be read; the sentence says which and why.
    """
    items = (given,) if isinstance(given, str | Mapping | Message | ChatCompletionMessage) else given
    if not isinstance(items, Sequence) or not items:
        what = "there are none" if isinstance(items, Sequence) else f"not {type(items).__name__}"
        msg = f"messages must be a list such as [{{'role': 'user', 'content': 'Hello'}}]; {what}"
        raise ConfigurationError(msg)
    return _with_results_together([_read(item, number, provider) for number, item in enumerate(items)])


def _with_results_together(messages: Iterable[Message]) -> tuple[Message, ...]:
    """Join the results of one turn's calls, which OpenAI has a message for each of."""
    made: list[Message] = []
    for message in messages:
        if message.role == "tool" and made and made[-1].role == "tool":
            made[-1] = ToolMessage(parts=[*made[-1].parts, *message.parts])
        else:
            made.append(message)
    return tuple(made)


def _read(item: Any, number: int, provider: str) -> Message:
    if type(item) is dict and len(item) == len(_PLAIN):  # nearly all of them
        role, text = item.get("role"), item.get("content")
        if type(text) is str and type(role) is str and role in _OF_TEXT:
            return assemble(_OF_TEXT[role], {"parts": (assemble(TextPart, {"text": text}),)})
    if isinstance(item, str | Message):
        return as_message(item)
    if isinstance(item, ChatCompletionMessage):
        if item.said is not None:
            return item.said
        item = item.model_dump()
    elif not isinstance(item, Mapping) and hasattr(item, "model_dump"):
        item = item.model_dump()  # an object of OpenAI's SDK
    where = f"messages[{number}]"
    if not isinstance(item, Mapping):
        msg = f"{where} is a {type(item).__name__}; a message is a dict such as {{'role': 'user', 'content': 'Hello'}}"
        raise ConfigurationError(msg)
    role = item.get("role")
    taken = _TAKEN.get(role) if isinstance(role, str) else None
    if taken is None:
        msg = f"{where} has the role {excerpt(repr(role), 60)}; the roles are {', '.join(_TAKEN)}"
        raise ConfigurationError(msg)
    said = {key: value for key, value in item.items() if value is not None and key not in _SAY_NOTHING}
    if unknown := [key for key in said if key not in taken]:
        msg = (
            f"{where} has a field {excerpt(repr(unknown[0]), 60)}, which is not sent; a message of role {role!r} has "
            f"{', '.join(sorted(taken))}"
        )
        raise ConfigurationError(msg)
    try:
        return _message(str(role), said, where, provider)
    except ConfigurationError as error:
        if str(error).startswith(where):
            raise
        msg = f"{where}: {error}"
        raise ConfigurationError(msg) from error


def _message(role: str, said: Mapping[str, Any], where: str, provider: str) -> Message:
    content = said.get("content")
    if role == "tool":
        call_id = said.get("tool_call_id")
        if not isinstance(call_id, str) or not call_id:
            msg = f"{where} has no tool_call_id; a message of role 'tool' names the call whose result it is"
            raise ConfigurationError(msg)
        result = ToolResult(call_id=call_id, name=said.get("name", ""), parts=_parts(content or "", where))
        return ToolMessage(parts=[result])
    if role == "assistant":
        return _answer(said, where, provider)
    if content is None:
        msg = f"{where} has no content; give it a text, or a list of parts"
        raise ConfigurationError(msg)
    parts = _parts(content, where)
    return UserMessage(parts=parts) if role == "user" else SystemMessage(parts=parts)


def _answer(said: Mapping[str, Any], where: str, provider: str) -> AssistantMessage:
    parts: list[Any] = []
    if reasoning := said.get("reasoning"):
        parts.append(ReasoningPart(text=reasoning))
    parts += _parts(said["content"], where) if said.get("content") else ()
    if refusal := said.get("refusal"):
        parts.append(TextPart(text=refusal, refusal=True))
    calls = said.get("tool_calls") or ()
    parts += [_call(call, f"{where}['tool_calls'][{number}]") for number, call in enumerate(calls)]
    details = dict(said.get("details", {}))
    details |= {name: [*said[name], *details.get(name, ())] for name in _DETAILS if said.get(name)}
    own = provider if details or reasoning else None
    return AssistantMessage(parts=parts, details=details, provider=own)


def _call(call: Any, where: str) -> ToolCall:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        msg = f"{where} is no call: it must be {{'id': ..., 'type': 'function', 'function': {{'name', 'arguments'}}}}"
        raise ConfigurationError(msg)
    arguments = function.get("arguments")
    if arguments is not None and not isinstance(arguments, str):
        msg = f"{where}['function']['arguments'] is the text of a JSON object, not {type(arguments).__name__}"
        raise ConfigurationError(msg)
    return ToolCall(id=str(call.get("id") or ""), name=function["name"], arguments=arguments or "")


def _parts(content: Any, where: str) -> list[ContentPart]:
    if isinstance(content, str):
        return [TextPart(text=content)]
    if not isinstance(content, Sequence):
        msg = f"{where}['content'] is a text, or a list of parts, not {type(content).__name__}"
        raise ConfigurationError(msg)
    return [_part(part, f"{where}['content'][{number}]") for number, part in enumerate(content)]


def _part(part: Any, where: str) -> ContentPart:
    match part:
        case str():
            return TextPart(text=part)
        case TextPart() | ImagePart() | AudioPart() | FilePart():
            return part
        case {"type": "text", "text": str(text)}:
            return TextPart(text=text, details={key: part[key] for key in part if key not in {"type", "text"}})
        case {"type": "refusal", "refusal": str(text)}:
            return TextPart(text=text, refusal=True)
        case {"type": "image_url", "image_url": str(url)}:
            return ImagePart(url=url)
        case {"type": "image_url", "image_url": {"url": str(url), **more}}:
            return ImagePart(url=url, detail=more.get("detail"))  # type: ignore[arg-type]  # the part says what it takes
        case {"type": "input_audio", "input_audio": {"data": str(sound), "format": str(form)}}:
            kind = _MEDIA.get(form, f"audio/{form}")
            return AudioPart(data=_bytes(f"data:{kind};base64,{sound}", where), media_type=kind)
        case {"type": "file", "file": {**file}}:
            return FilePart(**_file(file))
        case _:
            found = part.get("type") if isinstance(part, Mapping) else type(part).__name__
            msg = (
                f"{where} cannot be read ({excerpt(repr(found), 60)}); parts are text, image_url, input_audio and "
                "file, as OpenAI has them, or those that plait.attachment makes"
            )
            raise ConfigurationError(msg)


def _file(said: Mapping[Any, Any]) -> dict[str, Any]:
    return {"url": said.get("file_data"), "file_id": said.get("file_id"), "name": said.get("filename")}


def _bytes(url: str, where: str) -> bytes:
    held = parse_data_url(url)
    if held is None:
        msg = f"{where} holds data that is no base64"
        raise ConfigurationError(msg)
    return held.data
