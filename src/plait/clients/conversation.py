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
_LISTS: Final = ("tool_calls", "reasoning_details", "annotations", "images")
_OF_ANSWERS: Final = {"refusal", "reasoning", "reasoning_content", "said", *_LISTS}
_TAKEN: Final = {
    "system": _PLAIN,
    "developer": _PLAIN,
    "user": _PLAIN,
    "assistant": _PLAIN | _OF_ANSWERS,
    "tool": _PLAIN | {"tool_call_id", "name"},
}
ROLES: Final = tuple(_TAKEN)
_OF_TEXT: Final[dict[str, type[Message]]] = {
    "user": UserMessage,
    "system": SystemMessage,
    "developer": SystemMessage,
    "assistant": AssistantMessage,
}
_REPEATED: Final = frozenset({"parsed"})
"""Fields of answers that say again what another one says."""

_OF_CALLS: Final = frozenset({"id", "type", "function", "index"})
_MEDIA: Final = {"wav": "audio/wav", "mp3": "audio/mpeg"}
_FLAT: Final = ("text", "refusal")
_PARTS: Final = (*_FLAT, "image_url", "input_audio", "file")
_OF_PARTS: Final = frozenset({"type", "index"})
_OF_FILES: Final = {"file_data": "url", "file_id": "file_id", "filename": "name"}
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
    read = [_read(item, number, provider) for number, item in enumerate(items)]
    _check_results(read)
    return _with_results_together(read)


def _with_results_together(messages: Iterable[Message]) -> tuple[Message, ...]:
    """Join the results of one turn's calls, which OpenAI has a message for each of."""
    made: list[Message] = []
    for message in messages:
        if message.role == "tool" and made and made[-1].role == "tool":
            made[-1] = ToolMessage(parts=[*made[-1].parts, *message.parts])
        else:
            made.append(message)
    return tuple(made)


def _check_results(messages: Sequence[Message]) -> None:
    """Refuse calls without results, and results without calls: providers do, and a call is carried out once."""
    calls: set[str] = set()  # of the last message that is no result
    waiting: dict[str, int] = {}  # those without a result, and the number of that message
    for number, message in enumerate(messages):
        if results := {result.call_id for result in message.tool_results}:
            if strange := results - calls:
                name = excerpt(repr(min(strange)), 60)
                msg = (
                    f"messages[{number}] has a result of the call {name}, and no such call is in the message before it"
                )
                raise ConfigurationError(msg)
            waiting = {name: at for name, at in waiting.items() if name not in results}
        else:
            _check_none_waits(waiting)
            calls = {call.id for call in message.tool_calls}
            waiting = dict.fromkeys(calls, number)
    _check_none_waits(waiting)


def _check_none_waits(waiting: Mapping[str, int]) -> None:
    if waiting:
        name = min(waiting)
        msg = (
            f"messages[{waiting[name]}] has the call {excerpt(repr(name), 60)}, which has no result: after a message "
            "with tool_calls, each of them needs a message {'role': 'tool', 'tool_call_id': ..., 'content': ...}"
        )
        raise ConfigurationError(msg)


def _as_mapping(item: Any) -> Any:
    """Give an object of OpenAI's SDK, or one of ours, as the dict that it stands for."""
    return item if isinstance(item, Mapping) or not hasattr(item, "model_dump") else item.model_dump()


def _read(item: Any, number: int, provider: str) -> Message:
    if type(item) is dict and len(item) == len(_PLAIN):  # nearly all of them
        role, text = item.get("role"), item.get("content")
        if type(text) is str and type(role) is str and role in _OF_TEXT:
            return assemble(_OF_TEXT[role], {"parts": (assemble(TextPart, {"text": text}),)})
    if isinstance(item, str | Message):
        return as_message(item)
    if isinstance(item, ChatCompletionMessage) and item.said is not None:
        return item.said
    where = f"messages[{number}]"
    if hasattr(item, "choices"):
        msg = f"{where} is a whole completion; what goes among the messages is its choices[0].message"
        raise ConfigurationError(msg)
    item = _as_mapping(item)
    if not isinstance(item, Mapping):
        kind = type(item).__name__
        msg = f"{where} is of type {kind}; a message is a dict such as {{'role': 'user', 'content': 'Hello'}}"
        raise ConfigurationError(msg)
    role = item.get("role")
    taken = _TAKEN.get(role) if isinstance(role, str) else None
    if taken is None:
        msg = f"{where} has the role {excerpt(repr(role), 60)}; the roles are {', '.join(ROLES)}"
        raise ConfigurationError(msg)
    said = {key: value for key, value in item.items() if value is not None and key not in _REPEATED}
    if unknown := [key for key in said if key not in taken]:
        msg = (
            f"{where} has a field {excerpt(repr(unknown[0]), 60)}, which is not sent; leave it out: a message of role "
            f"{role!r} has {', '.join(sorted(taken))}"
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
        result = ToolResult(call_id=call_id, name=said.get("name", ""), parts=_parts(content, where))
        return ToolMessage(parts=[result])
    if role == "assistant":
        return _answer(said, where, provider)
    if content is None:
        msg = f"{where} has no content; give it a text, or a list of parts"
        raise ConfigurationError(msg)
    parts = _parts(content, where)
    return UserMessage(parts=parts) if role == "user" else SystemMessage(parts=parts)


def _answer(said: Mapping[str, Any], where: str, provider: str) -> AssistantMessage:
    for name in _LISTS:
        if not isinstance(said.get(name, []), list | tuple):
            msg = f"{where}[{name!r}] is a list, not {type(said[name]).__name__}"
            raise ConfigurationError(msg)
    parts: list[Any] = []
    reasoning = said.get("reasoning") or said.get("reasoning_content")
    if reasoning:
        parts.append(ReasoningPart(text=reasoning))
    parts += _parts(said.get("content"), where)
    if refusal := said.get("refusal"):
        parts.append(TextPart(text=refusal, refusal=True))
    parts += [_part(image, f"{where}['images'][{number}]") for number, image in enumerate(said.get("images", ()))]
    calls = said.get("tool_calls", ())
    parts += [_call(call, f"{where}['tool_calls'][{number}]") for number, call in enumerate(calls)]
    details = {name: said[name] for name in _DETAILS if said.get(name)}
    own = provider if details or reasoning else None
    made = AssistantMessage(parts=parts, details=details, provider=own)
    whole = Message.from_json(said["said"]) if isinstance(said.get("said"), Mapping) else None
    if isinstance(whole, AssistantMessage) and _says_the_same(whole, made):
        return whole  # else the caller has changed it, and the other fields say how
    return made


def _says_the_same(whole: AssistantMessage, shown: AssistantMessage) -> bool:
    def of(message: Message) -> tuple[Any, ...]:
        calls = [(call.id, call.name, call.arguments) for call in message.tool_calls]
        return message.text, message.refusal, calls

    return of(whole) == of(shown)


def _call(call: Any, where: str) -> ToolCall:
    call = _as_mapping(call)
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        msg = f"{where} is no call: it must be {{'id': ..., 'type': 'function', 'function': {{'name', 'arguments'}}}}"
        raise ConfigurationError(msg)
    arguments = function.get("arguments")
    if arguments is not None and not isinstance(arguments, str):
        msg = f"{where}['function']['arguments'] is the text of a JSON object, not {type(arguments).__name__}"
        raise ConfigurationError(msg)
    details = {name: item for name, item in call.items() if name not in _OF_CALLS and item is not None}
    return ToolCall(id=str(call.get("id") or ""), name=function["name"], arguments=arguments or "", details=details)


def _parts(content: Any, where: str) -> list[ContentPart]:
    if content is None:
        return []
    if isinstance(content, str):
        return [TextPart(text=content)] if content else []
    if not isinstance(content, Sequence):
        msg = f"{where}['content'] is a text, or a list of parts, not {type(content).__name__}"
        raise ConfigurationError(msg)
    return [_part(part, f"{where}['content'][{number}]") for number, part in enumerate(content)]


def _part(part: Any, where: str) -> ContentPart:
    if isinstance(part, TextPart | ImagePart | AudioPart | FilePart):
        return part
    if isinstance(part, str):
        return TextPart(text=part)
    part = _as_mapping(part)
    kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
    said = _said_in(part, kind, where)
    match kind:
        case "text":
            return TextPart(text=said.pop("text", None), details=said)
        case "refusal":
            made: ContentPart = TextPart(text=said.pop("refusal", None), refusal=True)
        case "image_url":
            made = ImagePart(url=said.pop("url", None), detail=said.pop("detail", None))
        case "input_audio":
            form = said.pop("format", "wav")
            media_type = _MEDIA.get(form, f"audio/{form}")
            sound = _bytes(f"data:{media_type};base64,{said.pop('data', '')}", where)
            made = AudioPart(data=sound, media_type=media_type)
        case _:
            made = FilePart(**{ours: said.pop(theirs, None) for theirs, ours in _OF_FILES.items()})
            if made.url is None and made.file_id is None:
                msg = f"{where} holds no file: it needs file_data or file_id"
                raise ConfigurationError(msg)
    if said:
        msg = f"{where} has a field {excerpt(repr(min(said)), 60)}, which is not sent with a part of this type"
        raise ConfigurationError(msg)
    return made


def _said_in(part: Any, kind: object, where: str) -> dict[str, Any]:
    """Give all that a part says, with what stands in its inner object; what is None says nothing."""
    if kind not in _PARTS:
        msg = (
            f"{where} cannot be read ({excerpt(repr(kind), 60)}); parts are text, image_url, input_audio and file, as "
            "OpenAI has them, or those that plait.attachment makes"
        )
        raise ConfigurationError(msg)
    said = {str(name): value for name, value in part.items() if value is not None and name not in _OF_PARTS}
    inner = said.pop(str(kind), None) if kind not in _FLAT else None
    if isinstance(inner, str) and kind == "image_url":
        inner = {"url": inner}
    if kind not in _FLAT and not isinstance(inner, Mapping):
        msg = f"{where} has no {kind!r}, an object with what it is"
        raise ConfigurationError(msg)
    return said | {str(name): value for name, value in (inner or {}).items() if value is not None}


def _bytes(url: str, where: str) -> bytes:
    held = parse_data_url(url)
    if held is None:
        msg = f"{where} holds data that is no base64"
        raise ConfigurationError(msg)
    return held.data
