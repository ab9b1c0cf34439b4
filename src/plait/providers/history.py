"""What is the same in every dialect about the messages of a thread that are sent again.

A call with a name or arguments that no server takes is said in a form that they take: the rest of the conversation must
not be lost with it. What a dialect has no place for is refused before anything is sent, or, where it was said before or
a tool gave it, named in its place. Knows no dialect.
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from plait.errors import ConfigurationError, excerpt
from plait.messages import TextPart, ToolResult
from plait.plain import parse_json, to_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from plait.messages import Message, Part, Role, ToolCall
    from plait.providers.base import Settings, ToolDefinition

_NO_NAME: Final = r"[^a-zA-Z0-9_-]"
_LONGEST_NAME: Final = 64
_DIGEST: Final = 16  # letters that tell long ids apart
_is_name = re.compile(r"[a-zA-Z0-9_-]{1,64}").fullmatch
_INVALID: Final = "invalid_json"
_TOOL_CHOICES: Final = frozenset({"auto", "none", "required"})
_SAID_BY_MODELS: Final = frozenset({"text", "reasoning", "tool_call", "server_tool"})
_IN_PLACE_OF: Final = {
    "image": "say in words what it shows",
    "audio": "send it as text",
    "file": "send it as text or images",
}


def sendable_name(name: str) -> str:
    """Give the name of a tool that was called, in the letters of names; models invent others.

    A server refuses the whole conversation for one: "string does not match pattern '^[a-zA-Z0-9_-]+$'".
    """
    return name if _is_name(name) else re.sub(_NO_NAME, "_", name)[:_LONGEST_NAME] or "_"


def sendable_arguments(call: ToolCall) -> str:
    """Give the arguments of a call as the model wrote them, and in an object if what it wrote is none.

    Ollama, and what OpenRouter passes a request on to, refuse the whole conversation for text that is no JSON object.
    """
    text = call.arguments
    if not text or text.isspace():
        return "{}"
    try:
        if type(said := parse_json(text)) is dict:
            return text
    except ValueError:
        said = text
    return "{}" if said is None else to_json({_INVALID: text}).decode()


def sendable_id(said: str, longest: int | None) -> str:
    """Give the id of a call in a length that a server takes; ids that differ go on so.

    OpenAI refuses the whole conversation for one: "string too long. Expected a string with maximum length 64".
    """
    if longest is None or len(said) <= longest:
        return said
    digest = sha256(said.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST]
    return f"{said[: longest - _DIGEST - 1]}_{digest}"


def source_of(result: ToolResult) -> str:
    """Give the line that stands before what a tool gave beside text, where that follows in a user message."""
    named = f"{result.name!r} ({result.call_id})" if result.name else result.call_id
    return f"From the result of {named}:"


def unsendable(kind: str, role: Role, provider: str) -> ConfigurationError:
    """Make the error for a part of a message that a provider has no place for."""
    what = f"a message with role {role!r} has a part of type {kind!r}, which cannot be sent to {provider!r}"
    in_its_place = _IN_PLACE_OF.get(kind)
    if in_its_place is not None and role == "system":
        in_its_place = "put it into a user message"
    return ConfigurationError(f"{what}; leave it out" + (f", or {in_its_place}" if in_its_place else ""))


def check_said_by_model(message: Message, provider: str) -> None:
    """Check that a message of a model holds what models say; an image is passed over where another one made it.

    Raises:
        ConfigurationError: it holds something else.
    """
    images = getattr(message, "provider", None) is not None
    for part in message.parts:
        if part.type not in _SAID_BY_MODELS and not (images and part.type == "image"):
            raise unsendable(part.type, "assistant", provider)


def check_unsaid(provider: str, settings: Mapping[str, object]) -> None:
    """Check that nothing is asked for that a provider has no place for.

    Args:
        provider: who is asked.
        settings: by its name, the value of each setting that cannot be said; None says nothing.

    Raises:
        ConfigurationError: one of them says something.
    """
    for name, value in settings.items():
        if value is not None:
            msg = f"{provider!r} takes no {name!r}; leave it out"
            raise ConfigurationError(msg)


def described(tool: ToolDefinition) -> dict[str, Any]:
    """Give name and description of a tool, which every dialect says alike."""
    return {"name": tool.name, "description": tool.description} if tool.description else {"name": tool.name}


def named_tool(settings: Settings, tools: Sequence[Any]) -> str | None:
    """Give the one tool that must be called, if ``tool_choice`` names one.

    Args:
        settings: how the model shall answer.
        tools: what it is offered, as it is sent.

    Raises:
        ConfigurationError: there is none of that name.
    """
    choice = settings.tool_choice
    if choice is None or choice in _TOOL_CHOICES:
        return None
    told = [tool.get("function", tool) for tool in tools if isinstance(tool, dict)]
    names = [str(one["name"]) for one in told if isinstance(one, dict) and "name" in one]
    if choice in names:
        return choice
    msg = f"tool_choice={choice!r} names no tool of the request; it has {', '.join(names) or 'none with a name'}"
    raise ConfigurationError(msg)


def take_list(extra: dict[str, Any], name: str) -> list[Any]:
    """Take the list of this name out of ``settings.extra``, to join it with what a request says by itself.

    Raises:
        ConfigurationError: it is no list.
    """
    found = extra.pop(name, None) or []
    if not isinstance(found, list):
        msg = f"settings.extra[{name!r}] must be a list, not {type(found).__name__}"
        raise ConfigurationError(msg)
    return found


def text_in_lines(parts: Iterable[Part]) -> str:
    """Give the texts among the parts of what a person or a tool said, each on lines of its own, for one text in all."""
    return "\n".join([part.text for part in parts if isinstance(part, TextPart)])


def spared(message: Message, encode: Callable[[Message], object]) -> Message:
    """Give a message in which each part that cannot be sent is named in its place.

    For what was said before, and for what tools give: a conversation must not end because of it.

    Args:
        message: the one that could not be encoded.
        encode: raises ConfigurationError for a message that cannot be sent.
    """
    # What a model said is put together again as it came, without a line end between its parts.
    line_end = "\n" if message.role == "assistant" else ""

    def sendable(part: Any, result: ToolResult | None) -> Any:
        if isinstance(part, ToolResult):
            return part.model_copy(update={"parts": tuple(sendable(item, part) for item in part.parts)})
        alone = part if result is None else result.model_copy(update={"parts": (part,)})
        try:
            encode(message.model_copy(update={"parts": (alone,)}))
        except ConfigurationError:
            named = f"[{_named(part)} stood here, which cannot be shown to this model.]"
            return TextPart(text=f"{line_end}{named}{line_end}")
        return part

    return message.model_copy(update={"parts": tuple(sendable(part, None) for part in message.parts)})


def _named(part: Any) -> str:
    what = {"image": "An image", "audio": "A sound", "file": "A file"}.get(part.type, "Something")
    name = getattr(part, "name", None) or getattr(part, "url", None) or getattr(part, "media_type", part.type)
    return f"{what} ({excerpt(str(name), 80)})"


def check_extra(settings: Settings, own: AbstractSet[str]) -> None:
    """Check that ``settings.extra`` leaves alone what a request says by itself.

    Raises:
        ConfigurationError: it names one of these fields.
    """
    if taken := own & settings.extra.keys():
        msg = f"settings.extra must not hold {sorted(taken)}: the request says that itself"
        raise ConfigurationError(msg)
