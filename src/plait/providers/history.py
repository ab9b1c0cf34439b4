"""What is the same in every dialect about the messages of a thread that are sent again.

A call with a name or arguments that no server takes is said in a form that they take: the rest of the conversation must
not be lost with it. What a dialect has no place for is refused before anything is sent. Knows no dialect.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from plait.errors import ConfigurationError
from plait.plain import parse_json, to_json

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from plait.messages import Role, ToolCall, ToolResult
    from plait.providers.base import Settings

_NO_NAME: Final = r"[^a-zA-Z0-9_-]"
_LONGEST_NAME: Final = 64
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


def source_of(result: ToolResult) -> str:
    """Give the line that stands before what a tool gave beside text, where that follows in a user message."""
    named = f"{result.name!r} ({result.call_id})" if result.name else result.call_id
    return f"From the result of {named}:"


def unsendable(kind: str, role: Role, provider: str) -> ConfigurationError:
    """Make the error for a part of a message that a provider has no place for."""
    return ConfigurationError(
        f"a message with role {role!r} has a part of type {kind!r}, which cannot be sent to {provider!r}"
    )


def check_extra(settings: Settings, own: AbstractSet[str]) -> None:
    """Check that ``settings.extra`` leaves alone what a request says by itself.

    Raises:
        ConfigurationError: it names one of these fields.
    """
    if taken := own & settings.extra.keys():
        msg = f"settings.extra must not hold {sorted(taken)}: the request says that itself"
        raise ConfigurationError(msg)
