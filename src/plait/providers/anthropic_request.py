"""Requests in Anthropic's Messages dialect: from messages, tools and settings to bytes. Pure functions.

https://docs.anthropic.com/en/api/messages

What the dialect has no place for is refused before anything is sent. What a model thought, and what a provider's own
tools did, goes back to the provider it came from, unchanged, and to no other. Texts of nothing but white space, which
the API refuses from people and tools, are left out, and so are messages that hold nothing else.

A mark for the prompt cache (``cache_control``) is never part of a message's kept bytes, but where a person put it on a
part: the mark moves on with the newest message, and the bytes before it must stay as they were.
"""

from __future__ import annotations

import re
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, assert_never

from plait.attachments import file_data, file_type, image_source
from plait.errors import ConfigurationError
from plait.messages import (
    AssistantMessage,
    AudioPart,
    FilePart,
    ImagePart,
    ReasoningPart,
    ServerToolPart,
    TextPart,
    ToolCall,
    ToolResult,
)
from plait.plain import parse_json, thaw, to_json
from plait.providers.anthropic_schema import enforced, within_limits
from plait.providers.history import (
    check_extra,
    check_unsaid,
    described,
    named_tool,
    sendable_arguments,
    sendable_name,
    source_of,
    take_list,
    unsendable,
)
from plait.providers.wire import MessageBytes, around, fields_said

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from plait.messages import Message, Part, Role
    from plait.providers.base import Request, Settings, ToolDefinition
    from plait.schema import OutputSchema

DEFAULT_MAX_TOKENS: Final = 4096

_IMAGES: Final = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})
_PDF: Final = "application/pdf"
_OWN_FIELDS: Final = frozenset({"messages", "stream", "system"})
# Not tool_choice: what is cached of the messages is lost with another one, as of the tools it is not.
# https://platform.claude.com/docs/en/build-with-claude/prompt-caching#what-invalidates-the-cache
_HOW: Final = frozenset({"max_tokens", "temperature", "top_p", "stop_sequences", "stream"})
_FAILED: Final = "The call failed."  # of an error without words, which the API refuses
_ANSWERED: Final = b'{"role":"assistant"'
_BEFORE: Final = b'{"role":"user","content":"[What came before is left out.]"}'
_OF_PEOPLE: Final = (TextPart, ImagePart, FilePart)
_FIELDS_OF_TEXT: Final = ("cache_control",)
_FIELDS_OF_FILES: Final = ("cache_control", "citations", "context")
_no_id = re.compile(r"[^a-zA-Z0-9_-]").sub

Json = dict[str, Any]


@lru_cache(maxsize=64)
def message_bytes(provider: str) -> MessageBytes:
    """Give the keeper of message bytes for a provider of this name."""
    return MessageBytes(lambda message: encode_message(message, provider))


def encode_message(message: Message, provider: str) -> bytes:
    """Encode one message: system text as its blocks, joined by commas; any other as the object that says it.

    Returns:
        The bytes; none if there is nothing in it that can be sent.

    Raises:
        ConfigurationError: it has a part that the dialect cannot say.
    """
    match message.role:
        case "system":
            return to_json([_said(part, "system", provider, (TextPart,)) for part in _full(message.parts)])[1:-1]
        case "user":
            first = message.parts[0] if len(message.parts) == 1 else None
            if type(first) is TextPart and not first.details and not _is_blank(first.text):  # nearly all of them
                return to_json({"role": "user", "content": first.text})
            blocks = [_said(part, "user", provider, _OF_PEOPLE) for part in _full(message.parts)]
        case "assistant":
            blocks = _assistant(message, provider)
        case "tool":
            blocks = _results(message.parts, provider)
        case _:
            assert_never(message.role)
    role = "assistant" if message.role == "assistant" else "user"
    return to_json({"role": role, "content": _short(blocks)}) if blocks else b""


def opening(said: Sequence[bytes]) -> bytes:
    """Give what must stand before messages, some of which may be empty: the API wants a user's to be the first.

    A conversation may begin with an answer when what came before is not sent any more.
    """
    first = next(filter(None, said), b"")
    return _BEFORE + b"," if first.startswith(_ANSWERED) else b""


def _full(parts: Sequence[Part]) -> list[Part]:
    return [part for part in parts if type(part) is not TextPart or not _is_blank(part.text)]


def _is_blank(text: str) -> bool:
    """Whether the API refuses a text: "text content blocks must contain non-whitespace text"."""
    return not text or text.isspace()


def _short(blocks: list[Json]) -> str | list[Json]:
    """Give a lone text as such."""
    alone = len(blocks) == 1 and blocks[0].keys() == {"type", "text"}
    return str(blocks[0]["text"]) if alone else blocks


def _said(part: Part, role: Role, provider: str, kinds: tuple[type[TextPart | ImagePart | FilePart], ...]) -> Json:
    """Say a part of what a person, or a tool, said."""
    if not isinstance(part, kinds):
        raise unsendable(part.type, role, provider)
    if isinstance(part, TextPart):
        said: Json = {"type": "text", "text": part.text}
        return said | _own(part.details, _FIELDS_OF_TEXT) if part.details else said
    return _image(part, provider) if isinstance(part, ImagePart) else _file(part, provider)


def _own(details: Mapping[str, Any], names: Sequence[str]) -> Json:
    return {name: thaw(details[name]) for name in names if name in details}


def _image(part: ImagePart, provider: str) -> Json:
    found = image_source(part)
    if isinstance(found, str):
        return {"type": "image", "source": {"type": "url", "url": found}}
    if found.media_type not in _IMAGES:
        takes = ", ".join(sorted(_IMAGES))
        msg = f"an image of type {found.media_type!r} cannot be sent to {provider!r}; it takes {takes}"
        raise ConfigurationError(msg)
    source = {"type": "base64", "media_type": found.media_type, "data": thaw(found.data)}
    return {"type": "image", "source": source}


def _file(part: FilePart, provider: str) -> Json:
    held = None if part.file_id is not None else file_data(part)
    kind = (file_type(part) if held is None else held.media_type).partition(";")[0].strip().lower()
    source: Json
    if part.file_id is not None:
        source = {"type": "file", "file_id": part.file_id}
        if kind.startswith("image/"):
            return {"type": "image", "source": source}
        if kind not in (_PDF, "text/plain"):  # it can only be laid where the code-execution tool finds it
            return {"type": "container_upload", "file_id": part.file_id}
    elif held is None:
        if part.url is None:
            msg = "a file part has neither data nor url nor file_id; give it one of them"
            raise ConfigurationError(msg)
        if kind != _PDF:
            msg = f"a file of type {kind!r} cannot be sent to {provider!r} by its address, only {_PDF}; give its data"
            raise ConfigurationError(msg)
        source = {"type": "url", "url": part.url}
    elif kind == _PDF:
        source = {"type": "base64", "media_type": _PDF, "data": thaw(held.data)}
    elif kind.startswith("text/"):
        source = {"type": "text", "media_type": "text/plain", "data": _decoded(held.data, part.name)}
    else:
        msg = f"a file of type {kind!r} cannot be sent to {provider!r}; it takes {_PDF}, and text in UTF-8"
        raise ConfigurationError(msg)
    title = {} if part.name is None else {"title": part.name}
    return {"type": "document", "source": source} | title | _own(part.details, _FIELDS_OF_FILES)


def _decoded(data: bytes, name: str | None) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        msg = f"the text file {name or ''!r} is not in UTF-8: its byte {error.start} is no part of any character"
        raise ConfigurationError(msg) from None


def _assistant(message: Message, provider: str) -> list[Json]:
    whose = getattr(message, "provider", None)
    own = whose == provider
    made = []
    for part in message.parts:
        match part:
            case TextPart():
                if part.text and not (part.refusal and own):  # its refusal is what the API said, not the model
                    made.append({"type": "text", "text": part.text} | (thaw(part.details) if own else {}))
            case ToolCall():
                called = {
                    "type": "tool_use",
                    "id": _id(part.id),
                    "name": sendable_name(part.name),
                    "input": parse_json(sendable_arguments(part)),
                }
                made.append(called | (thaw(part.details) if own else {}))
            case ReasoningPart():
                if own and part.details:
                    made.append(_thought(part))
            case ServerToolPart():
                if own and part.details:
                    made.append(thaw(part.details))
            case ImagePart() if whose is not None:
                pass  # another model made it
            case ImagePart() | AudioPart() | FilePart() | ToolResult():
                raise unsendable(part.type, "assistant", provider)
            case _:
                assert_never(part)
    if all(block.get("type") == "text" and _is_blank(block["text"]) for block in made):
        return []  # beside something else, and in its own answers, the API takes white space
    return made


def _thought(part: ReasoningPart) -> Json:
    details: Json = thaw(part.details)
    if details.get("type") == "redacted_thinking":
        return details
    return {"type": "thinking", "thinking": part.text} | details


def _id(said: str) -> str:
    """Give the id of a call in the letters that the API takes; other providers use more. Ids that differ go on so."""
    return _no_id(lambda letter: f"_{ord(letter[0]):x}", said) or "_"


def _results(parts: Sequence[Part], provider: str) -> list[Json]:
    """Say the results of a turn; an error must have text, and nothing else: what else it has follows the results."""
    results: list[Json] = []
    more: list[Json] = []
    for part in parts:
        if type(part) is not ToolResult:
            raise unsendable(part.type, "tool", provider)
        made: Json = {"type": "tool_result", "tool_use_id": _id(part.call_id)}
        blocks = [_said(item, "tool", provider, _OF_PEOPLE) for item in _full(part.parts)]
        if part.is_error:
            made["is_error"] = True
            if others := [block for block in blocks if block["type"] != "text"]:
                more += [{"type": "text", "text": source_of(part)}, *others]
            blocks = [block for block in blocks if block["type"] == "text"] or [{"type": "text", "text": _FAILED}]
        if blocks:
            made["content"] = _short(blocks)
        results.append(made)
    return results + more


def encode_rest(request: Request, model: str, provider: str, *, strict: bool, bare: bool) -> tuple[bytes, bytes]:
    """Encode what a request says beside messages and system text: what stands before them, and behind; see `around`.

    Tools of the provider's own come in ``settings.extra["tools"]``, and are offered beside those of the request; any
    other field of ``extra`` has the last word.

    Args:
        request: what is asked; its messages are left out.
        model: who is asked.
        provider: the vendor's name.
        strict: whether the model can be held to the schemas of tools.
        bare: whether there is no system text, whose end is marked for the prompt cache rather than that of the tools.

    Raises:
        ConfigurationError: a setting has no place in the dialect, or the output's schema cannot be enforced.
    """
    settings = request.settings
    check_extra(settings, _OWN_FIELDS)
    check_unsaid(provider, {"seed": settings.seed, "n": None if settings.n == 1 else settings.n})
    extra: Json = thaw(settings.extra)
    mark = _mark(settings)
    strict = strict and within_limits(request.tools, request.output)
    tools = [*(_tool(tool, strict=strict) for tool in request.tools), *take_list(extra, "tools")]
    if bare and tools and mark:
        tools[-1] = {"cache_control": mark} | tools[-1]
    config = {} if request.output is None else {"format": _format(request.output, provider)}
    if isinstance(extra.get("output_config"), dict):
        config |= extra.pop("output_config")
    fields: Json = {
        "model": model,
        "max_tokens": _enough(extra.get("thinking")) if settings.max_tokens is None else settings.max_tokens,
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "stop_sequences": settings.stop,
        "output_config": config or None,
        "tools": tools or None,
        "tool_choice": _choice(settings, tools) if tools else None,
        "cache_control": mark,  # at the end of the conversation, wherever that is
        "stream": request.stream or None,
    }
    return around(fields_said(fields) | extra, _HOW)


def _enough(thinking: Any) -> int:
    """Give the most tokens of an answer, where nobody said: what is thought counts, and must leave room for more."""
    budget = thinking.get("budget_tokens") if isinstance(thinking, dict) else None
    return DEFAULT_MAX_TOKENS + (budget if type(budget) is int else 0)


def _tool(tool: ToolDefinition, *, strict: bool) -> Json:
    schema = enforced(tool.parameters) if strict and tool.strict else None
    if schema is None:
        return {**described(tool), "input_schema": tool.parameters}
    return {**described(tool), "input_schema": schema, "strict": True}


def _format(output: OutputSchema[Any], provider: str) -> Json:
    schema = enforced(output.schema)
    if schema is None:
        msg = (
            f"{provider!r} cannot enforce the schema of {output.name!r}, which is recursive or leaves a type open; "
            "ask for the output by a tool or in the prompt"
        )
        raise ConfigurationError(msg)
    return {"type": "json_schema", "schema": schema}


def _choice(settings: Settings, tools: list[Any]) -> Json | None:
    choice = settings.tool_choice
    one_at_a_time = settings.parallel_tool_calls is False and choice != "none"
    if choice is None and not one_at_a_time:
        return None
    name = named_tool(settings, tools)
    kind = "any" if choice == "required" else choice or "auto"
    made: Json = {"type": kind} if name is None else {"type": "tool", "name": name}
    return made | ({"disable_parallel_tool_use": True} if one_at_a_time else {})


def _mark(settings: Settings) -> Json | None:
    """Give the mark for the prompt cache that is asked for."""
    match settings.cache:
        case None | False:
            return None
        case True:
            return {"type": "ephemeral"}
        case _:
            return {"type": "ephemeral", "ttl": settings.cache}


SYSTEM: Final = b',"system":['
"""What the field for system text begins with."""


def marked(told: list[bytes], settings: Settings) -> list[bytes]:
    """Put a mark for the prompt cache at the end of system text, if one is asked for and nobody put one on it.

    The API itself puts a mark at the end of the conversation. The one here is for what threads have in common: the
    tools, and the system text behind them.

    Args:
        told: the blocks of each message of system text; of some there may be none.
        settings: how the model shall answer.
    """
    mark = _mark(settings)
    if mark and not any(b'"cache_control":' in blocks for blocks in told):  # in a text its quotes would be escaped
        last = next((at for at in reversed(range(len(told))) if told[at]), None)
        if last is not None:
            told[last] = told[last][:-1] + b',"cache_control":' + to_json(mark) + b"}"
    return told


def encode_container(request: Request, provider: str, now: datetime) -> bytes:
    """Encode the field for the container in which the provider's code-execution tool worked last, if it is still there.

    It stands at the end of the body, for it changes from request to request.
    """
    if "tools" not in request.settings.extra or "container" in request.settings.extra:
        return b""
    for message in reversed(request.messages):
        if isinstance(message, AssistantMessage) and message.provider == provider and "container" in message.details:
            said = message.details["container"]
            try:
                alive = datetime.fromisoformat(said["expires_at"]) > now
                return b',"container":' + to_json(said["id"]) if alive else b""
            except (KeyError, TypeError, ValueError):
                return b""
    return b""
