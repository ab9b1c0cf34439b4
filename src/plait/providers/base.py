"""What a provider is: one method that answers a request with lists of deltas.

A provider maps a wire format. It knows nothing of agents, limits, threads or logs; retry, fallback, recording
and replay wrap a provider and are providers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, get_args

from plait.errors import ConfigurationError, ProviderError, TransportError, excerpt
from plait.events import AttemptDelta, ModelDelta, UsageDelta
from plait.plain import EMPTY, FrozenDict, freeze

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from plait.events import Delta, Usage
    from plait.messages import Message
    from plait.schema import OutputSchema

OutputMode = Literal["native", "tool", "prompt"]
"""How a model is asked for an answer of an output type; see `Settings`."""

OUTPUT_MODES: Final[tuple[OutputMode, ...]] = get_args(OutputMode)

PREAMBLE: Final = frozenset({ModelDelta, UsageDelta, AttemptDelta})
"""The kinds of deltas that are no part of an answer yet: as long as only they came, somebody else may be asked."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, weakref_slot=True)
class ToolDefinition:
    """What a model is told of a tool.

    Attributes:
        name: letters, digits, ``_`` and ``-``, at most 64.
        description: when and how to use it.
        parameters: a JSON Schema with an object at its root.
        strict: whether the schema keeps the rules of providers' strict mode (every property required,
            ``additionalProperties`` false), so that they may be asked to enforce it.
    """

    name: str
    description: str = ""
    parameters: dict[str, Any] = field(default_factory=lambda: {"type": "object", "properties": {}})
    strict: bool = False


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _are_texts(value: object) -> bool:
    return isinstance(value, str) or (isinstance(value, Sequence) and all(isinstance(text, str) for text in value))


_SETTINGS: Final[dict[str, tuple[Callable[[Any], bool], str]]] = {
    "temperature": (lambda value: _is_number(value) and value >= 0, "a number of at least 0"),
    "max_tokens": (lambda value: _is_whole(value) and value >= 0, "a whole number of at least 0"),
    "top_p": (lambda value: _is_number(value) and 0 <= value <= 1, "a number from 0 to 1"),
    "stop": (_are_texts, "a text, or several in a list"),
    "seed": (_is_whole, "a whole number"),
    "n": (lambda value: _is_whole(value) and value >= 1, "a whole number of at least 1"),
    "tool_choice": (
        lambda value: isinstance(value, str) and value != "",
        "'auto', 'none', 'required' or the name of a tool",
    ),
    "parallel_tool_calls": (lambda value: isinstance(value, bool), "True or False"),
    "cache": (lambda value: isinstance(value, bool) or value in ("5m", "1h"), "True, False, '5m' or '1h'"),
    "output_mode": (lambda value: value in OUTPUT_MODES, "'native', 'tool' or 'prompt'"),
}
"""What each setting takes, and the words for it."""


def check_setting(owner: str, name: str, value: object) -> None:
    """Check what was given for a setting; None says nothing.

    Args:
        owner: what takes it: ``"Settings"``.
        name: which one of the fields of `Settings`, but for ``extra``.
        value: what was given.

    Raises:
        ConfigurationError: no provider could take it.
    """
    fits, takes = _SETTINGS[name]
    if value is not None and not fits(value):
        msg = f"{owner}({name}=...) takes {takes}, not {excerpt(repr(value), 60)}"
        raise ConfigurationError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a model shall answer. What is None is not sent, so that the provider's own default holds.

    Attributes:
        temperature: randomness, from 0 to 2.
        max_tokens: the most tokens of one answer.
        top_p: nucleus sampling, from 0 to 1.
        stop: texts at which the answer ends; one may be given as it is, and none of them is nothing to send.
        seed: asks for repeatable answers.
        n: how many answers (choices) to give.
        tool_choice: ``"auto"``, ``"none"``, ``"required"``, or the name of one tool.
        parallel_tool_calls: whether one answer may call several tools.
        cache: True asks the provider to keep what requests begin with in its prompt cache, ``"5m"`` or ``"1h"`` for how
            long. A hint: Anthropic needs it, and takes more for what it writes there and far less for what it reads;
            other providers cache by themselves, and leave it out.
        output_mode: how an answer of an output type is asked for: ``"native"`` (the provider enforces the schema),
            ``"tool"`` (the answer is the arguments of a tool that the model must call) or ``"prompt"`` (the schema is
            part of the instructions). None takes the best that the provider and the model can do.
        extra: further fields of the provider's request body, as they are.

    Raises:
        ConfigurationError: a field has a value that no provider could take, or ``extra`` is no plain JSON object.
    """

    temperature: float | None = None
    max_tokens: int | None = None
    top_p: float | None = None
    stop: Sequence[str] | None = None
    seed: int | None = None
    n: int | None = None
    tool_choice: Literal["auto", "none", "required"] | str | None = None  # noqa: PYI051  # the words say what is usual
    parallel_tool_calls: bool | None = None
    cache: bool | Literal["5m", "1h"] | None = None
    output_mode: OutputMode | None = None
    extra: FrozenDict = EMPTY

    def __post_init__(self) -> None:
        for name in _SETTINGS:
            check_setting("Settings", name, getattr(self, name))
        if self.stop is not None:
            stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)
            object.__setattr__(self, "stop", stop or None)
        if self.extra is EMPTY:
            return
        if not isinstance(self.extra, Mapping):
            msg = f"Settings(extra=...) takes a dict of fields for the request, not {type(self.extra).__name__}"
            raise ConfigurationError(msg)
        try:
            frozen = freeze(dict(self.extra))
            json.dumps(frozen)
        except (ConfigurationError, ValueError) as error:  # of an integer with too many digits, too
            msg = f"Settings(extra=...) cannot be sent: {error}"
            raise ConfigurationError(msg) from None
        object.__setattr__(self, "extra", frozen)


DEFAULT_SETTINGS = Settings()


@dataclass(frozen=True, slots=True)
class Loss:
    """A try of a request that failed, that may be charged all the same, and of which its reader saw nothing.

    Attributes:
        provider: who was asked.
        model: the model that was asked.
        usage: what was told of its tokens; None for nothing.
    """

    provider: str
    model: str
    usage: Usage | None = None


@dataclass(slots=True)
class Losses:
    """What keeps account of the tries of one request: whoever asks again, or asks another, notes what that lost.

    Attributes:
        lost: the tries that failed so far, and may be charged.
        waiting: whether none is under way, for the next one is yet to be sent.
    """

    lost: list[Loss] = field(default_factory=list)
    waiting: bool = False

    def add(self, error: Exception, provider: str, model: str, usage: Usage | None = None) -> None:
        """Note a try that failed and is followed by another, if it may be charged."""
        if usage is not None or may_be_read(error):
            self.lost.append(Loss(provider, model, usage))


def may_be_read(error: BaseException | None) -> bool:
    """Say whether a request that gave no answer may have been read: it was sent, and no error came for an answer.

    Args:
        error: what ended it; None for a stop.
    """
    unsent = isinstance(error, TransportError) and not error.sent
    return not (unsent or isinstance(error, ConfigurationError | ProviderError))


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One question to a model.

    Attributes:
        messages: the history, system text first; every tool call in it has exactly one result.
        tools: what the model may call.
        output: the form the answer must have, or None for text.
        settings: sampling and limits.
        stream: False asks for the answer in one piece.
        earlier: how many of the messages, from the first, were said before this run. What a provider has no place for
            in these, or in the result of a tool, is named in its place; in the others it is refused.
        losses: where tries that failed are noted, within a budget.
    """

    messages: Sequence[Message]
    tools: Sequence[ToolDefinition] = ()
    output: OutputSchema[Any] | None = None
    settings: Settings = DEFAULT_SETTINGS
    stream: bool = True
    earlier: int = 0
    losses: Losses | None = field(default=None, compare=False, repr=False)


class Provider(Protocol):
    """A model behind a wire format, or a wrapper around one.

    Attributes:
        name: the vendor's name, such as ``"openai"``.
        model: the model's name, such as ``"gpt-4o"``.
    """

    name: str
    model: str

    def stream(self, request: Request) -> AsyncGenerator[list[Delta], None]:
        """Answer a request: one list of deltas for each socket read; one list in all when not streamed.

        Each answer ends with a `FinishDelta`; a stream that ends without one raises `StreamTruncated`.

        Raises:
            ModelError: see the tree in `plait.errors`.
        """
        ...
