"""What a provider is: one method that answers a request with lists of deltas.

A provider maps a wire format. It knows nothing of agents, limits, threads or logs; retry, fallback, recording
and replay wrap a provider and are providers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, get_args

from plait.errors import ConfigurationError, excerpt
from plait.events import AttemptDelta, ModelDelta, UsageDelta
from plait.plain import EMPTY, FrozenDict, freeze

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from plait.events import Delta
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
        ConfigurationError: ``extra`` is no plain JSON object, ``stop`` holds more than texts, or there is no such
            ``output_mode``.
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
        if self.output_mode is not None and self.output_mode not in OUTPUT_MODES:
            known = ", ".join(map(repr, OUTPUT_MODES))
            msg = f"Settings(output_mode=...) takes {known} or None, not {excerpt(repr(self.output_mode), 60)}"
            raise ConfigurationError(msg)
        if self.stop is not None:
            stop = (self.stop,) if isinstance(self.stop, str) else self.stop
            if not isinstance(stop, Sequence) or not all(isinstance(text, str) for text in stop):
                msg = f"Settings(stop=...) takes a text, or several in a list, not {excerpt(repr(self.stop), 60)}"
                raise ConfigurationError(msg)
            object.__setattr__(self, "stop", tuple(stop) or None)
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
    """

    messages: Sequence[Message]
    tools: Sequence[ToolDefinition] = ()
    output: OutputSchema[Any] | None = None
    settings: Settings = DEFAULT_SETTINGS
    stream: bool = True
    earlier: int = 0


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
