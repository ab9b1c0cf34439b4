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
    from collections.abc import Callable
    from collections.abc import Set as AbstractSet

    from plait.messages import Message, Role, ToolCall
    from plait.providers.base import Settings

_NO_NAME: Final = r"[^a-zA-Z0-9_-]"
_LONGEST_NAME: Final = 64
_DIGEST: Final = 16  # letters that tell long ids apart
_is_name = re.compile(r"[a-zA-Z0-9_-]{1,64}").fullmatch
_INVALID: Final = "invalid_json"


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
    return ConfigurationError(
        f"a message with role {role!r} has a part of type {kind!r}, which cannot be sent to {provider!r}"
    )


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


class Unfetched(ConfigurationError):
    """A message has an image of which only the address is known, for a provider that takes bytes; ``message`` is it."""

    def __init__(self, message: Message, provider: str) -> None:
        super().__init__(f"{provider!r} takes no address of an image; give the image's data")
        self.message = message


def spared(message: Message, encode: Callable[[Message], object]) -> Message:
    """Give a message in which each part that cannot be sent is named in its place.

    For what was said before, and for what tools give: a conversation must not end because of it.

    Args:
        message: the one that could not be encoded.
        encode: raises ConfigurationError for a message that cannot be sent.
    """

    def sendable(part: Any, result: ToolResult | None) -> Any:
        if isinstance(part, ToolResult):
            return part.model_copy(update={"parts": tuple(sendable(item, part) for item in part.parts)})
        alone = part if result is None else result.model_copy(update={"parts": (part,)})
        try:
            encode(message.model_copy(update={"parts": (alone,)}))
        except Unfetched:
            pass
        except ConfigurationError:
            return TextPart(text=f"[{_named(part)} stood here, which cannot be shown to this model.]")
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
