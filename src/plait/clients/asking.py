"""What a single question may be given beside its messages, in the words of chat APIs, as `Settings`. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final, Literal, TypedDict, TypeVar

from plait.errors import ConfigurationError, excerpt
from plait.plain import FrozenDict, freeze
from plait.providers.base import DEFAULT_SETTINGS, Settings, ToolDefinition
from plait.schema import output_schema
from plait.tools import read_definition

if TYPE_CHECKING:
    from plait.providers.base import OutputMode
    from plait.schema import OutputSchema

Output = TypeVar("Output")


class ChatOptions(TypedDict, total=False):
    """What a single call may be given: the settings of the model, in OpenAI's words.

    Any other keyword is sent as a field of the request, as ``extra_body`` is; None says nothing.

    Attributes:
        temperature: randomness, from 0 to 2.
        max_tokens: the most tokens of one answer; ``max_completion_tokens`` says the same.
        top_p: nucleus sampling, from 0 to 1.
        stop: texts at which the answer ends.
        seed: asks for repeatable answers.
        n: how many answers to give; they are the completion's ``choices``.
        tool_choice: ``"auto"``, ``"none"``, ``"required"``, or a tool: its name, or OpenAI's dict of it.
        parallel_tool_calls: whether one answer may call several tools.
        cache: see `Settings`.
        output_mode: see `Settings`.
        extra_body: further fields of the request, as OpenAI's SDK takes them.
    """

    temperature: float | None
    max_tokens: int | None
    max_completion_tokens: int | None
    top_p: float | None
    stop: str | Sequence[str] | None
    seed: int | None
    n: int | None
    tool_choice: str | Mapping[str, Any] | None
    parallel_tool_calls: bool | None
    cache: bool | Literal["5m", "1h"] | None
    output_mode: OutputMode | None
    frequency_penalty: float | None
    presence_penalty: float | None
    reasoning: Mapping[str, Any] | None
    reasoning_effort: str | None
    user: str | None
    extra_body: Mapping[str, Any] | None


_KNOWN: Final = frozenset(item.name for item in fields(Settings)) - {"extra"}
_NOT_EXTRA: Final = _KNOWN | {"model", "messages", "stream", "max_completion_tokens", "response_format"}

_FIELDS: Final = frozenset(
    {
        *("frequency_penalty", "presence_penalty", "repetition_penalty", "logit_bias", "logprobs", "top_logprobs"),
        *("top_k", "top_a", "min_p", "reasoning", "reasoning_effort", "include_reasoning", "verbosity", "user"),
        *("metadata", "store", "service_tier", "prediction", "web_search_options", "safety_identifier"),
        *("prompt_cache_key", "transforms", "models", "route", "provider", "plugins", "usage", "response_format"),
        *("structured_outputs", "prompt", "session_id", "think", "keep_alive", "format"),
    }
)
"""Fields of requests that are sent as they are given; what is nearly one of them, or an option, is a misprint."""

_LIMITS: Final = "ToolClient(..., max_turns=..., max_tool_calls=...), or limits=RunLimits(...) of a call with tools"
_WITH_TOOLS: Final = "the same option of a ToolClient: a plain client carries out no tool"
ELSEWHERE: Final = {
    "timeout": "limits=TransportLimits(...) of the client",
    "extra_headers": "default_headers=... of the client",
    "extra_query": "base_url=... of the client",
    "max_retries": "max_retries=... of the client",
    "deadline": "limits=TransportLimits(...) of the client, or limits=RunLimits(...) of a call with tools",
    "functions": "tools=[...]",
    "function_call": "tool_choice=...",
    "audio": "nothing: answers that are sound cannot be read",
    "modalities": "nothing: answers are text, and images where the model makes them by itself",
    "max_turns": _LIMITS,
    "max_tool_calls": _LIMITS,
    "thread": "Agent, which keeps threads; a chat client's caller keeps the messages",
}
"""What has another place than the options of a call, with that place."""
OF_PLAIN_CLIENTS: Final = ELSEWHERE | dict.fromkeys(("user_id", "deps", "secrets", "limits"), _WITH_TOOLS)
OF_PARSE: Final = OF_PLAIN_CLIENTS | {
    "stream": "Agent(output=...).stream_output, which gives the value while it grows",
    "tools": "parse of a ToolClient, which carries its tools out",
    "tool_choice": "parse of a ToolClient",
}
OF_TOOL_CLIENTS: Final = ELSEWHERE | {
    "tools": "register_tool: a client with tools carries its tools out itself",
    "response_format": "parse(messages, response_format)",
}


def check_place(options: Mapping[str, Any], elsewhere: Mapping[str, str]) -> None:
    """Refuse options that have another place: passed on, they would do nothing, and nobody would see it.

    Raises:
        ConfigurationError: it names the option, and the place.
    """
    for name, place in elsewhere.items():
        if options.get(name) is not None:
            msg = f"{name!r} is no option of this call; what takes its place is {place}"
            raise ConfigurationError(msg)


def read_options(options: Mapping[str, Any]) -> Settings:
    """Give the settings that a call's options mean.

    Raises:
        ConfigurationError: an option has a value that no provider could take, or is given twice.
    """
    given = {name: value for name, value in options.items() if value is not None}
    if not given:
        return DEFAULT_SETTINGS
    given.pop("stream_options", None)  # a stream always tells its tokens
    if callable(getattr(given.get("stop"), "set", None)):
        msg = "a StopSignal ends a call of a client with tools, which needs to have none: ToolClient(client).chat(...)"
        raise ConfigurationError(msg)
    limit = given.pop("max_completion_tokens", None)
    if limit is not None and given.setdefault("max_tokens", limit) != limit:
        msg = "max_tokens and max_completion_tokens say the same; give one of them"
        raise ConfigurationError(msg)
    if "tool_choice" in given:
        given["tool_choice"] = _tool_choice(given["tool_choice"])
    extra = given.pop("extra_body", {})
    if not isinstance(extra, Mapping):
        msg = f"extra_body takes a dict of fields for the request, not {type(extra).__name__}"
        raise ConfigurationError(msg)
    if twice := [name for name in extra if name in _NOT_EXTRA or name in given]:
        msg = f"{twice[0]!r} in extra_body has a place of its own: give {twice[0]}=..."
        raise ConfigurationError(msg)
    known = {name: value for name, value in given.items() if name in _KNOWN}
    more = {name: value for name, value in given.items() if name not in _KNOWN}
    for name in more:
        if name not in _FIELDS and (meant := get_close_matches(name, [*_KNOWN, *_FIELDS, "stream"], 1, 0.8)):
            msg = f"there is no option {excerpt(name, 40)!r}; is {meant[0]!r} meant? What is, goes into extra_body"
            raise ConfigurationError(msg)
    return Settings(**known, extra=FrozenDict({**more, **extra})) if more or extra else Settings(**known)


def _tool_choice(choice: Any) -> str:
    match choice:
        case str():
            return choice
        case {"type": "function", "function": {"name": str(name)}}:
            return name
        case _:
            msg = (
                "tool_choice takes 'auto', 'none', 'required', the name of a tool, or {'type': 'function', "
                f"'function': {{'name': ...}}}}, not {excerpt(repr(choice), 80)}"
            )
            raise ConfigurationError(msg)


def read_tools(tools: Sequence[Any] | None) -> tuple[ToolDefinition, ...]:
    """Give what a model is told of tools that the caller carries out, from OpenAI's dicts of them.

    Raises:
        ConfigurationError: one of them cannot be offered.
    """
    if tools is None:
        return ()
    if not isinstance(tools, Sequence) or isinstance(tools, str):
        msg = f"tools takes a list of tools, not {type(tools).__name__}"
        raise ConfigurationError(msg)
    return tuple([_definition(item, number) for number, item in enumerate(tools)])


def _definition(item: Any, number: int) -> ToolDefinition:
    if isinstance(item, ToolDefinition):
        return item
    read = read_definition(item) if isinstance(item, Mapping) else None
    if read is None or not isinstance(read.name, str) or not read.name:
        msg = (
            f"tools[{number}] is no description of a function: it must be {{'type': 'function', 'function': {{'name', "
            "'description', 'parameters'}}. Functions themselves are carried out by a ToolClient; what else a "
            "provider offers goes into extra_body={'tools': [...]}"
        )
        raise ConfigurationError(msg)
    freeze(read.parameters)
    return read


def read_output(response_format: type[Output]) -> OutputSchema[Output]:
    """Give the schema of the type that an answer shall have.

    Raises:
        ConfigurationError: it is no type that has a form in JSON.
    """
    if response_format is None or isinstance(response_format, Mapping):
        shown = "None" if response_format is None else "a dict, which is an option of create"
        msg = f"parse takes a type, such as a pydantic model, as its response_format, not {shown}"
        raise ConfigurationError(msg)
    return output_schema(response_format)


_SAID_AS: Final = "a type, such as a pydantic model, is given to parse(messages, response_format)"


def check_response_format(response_format: object) -> None:
    """Refuse a type where a field of the request is meant.

    Raises:
        ConfigurationError: it is no dict such as ``{"type": "json_object"}``.
    """
    if response_format is not None and not isinstance(response_format, Mapping):
        msg = f"response_format of a plain call is a dict such as {{'type': 'json_object'}}; {_SAID_AS}"
        raise ConfigurationError(msg)
