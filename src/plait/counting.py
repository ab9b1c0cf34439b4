"""Counting tokens: of a text, of a message as it is sent, of the definitions of tools.

Owns two counters, an estimate without tables and the exact one of tiktoken, and what a part of a message that is no
text is counted as. What was counted once is kept as long as it lives. Knows nothing of windows, of what is left out of
them, or of prices.
"""

from __future__ import annotations

import functools
import re
from math import ceil
from typing import TYPE_CHECKING, Any, Final, Protocol, assert_never
from weakref import ref

from plait.errors import ConfigurationError, excerpt
from plait.plain import to_json

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from plait.messages import ContentPart, Message, Part
    from plait.providers.base import ToolDefinition
    from plait.schema import OutputSchema


class Counter(Protocol):
    """Counts the tokens of a text; any object with this method is one."""

    def count(self, text: str) -> int:
        """Give how many tokens a text is, at least 0, and 0 for an empty one; must never fail."""
        ...


class _Simple:
    __slots__ = ()

    def count(self, text: str) -> int:
        return ceil(len(text.encode("utf-8", "surrogatepass")) / 4)


SIMPLE: Final[Counter] = _Simple()


def accurate(model: str = "") -> Counter:
    raise NotImplementedError(model)


def counter_of(method: str | Counter, model: str = "") -> Counter:
    """Give the counter that a user asks for.

    Args:
        method: ``"Accurate"`` or ``"Simple"``, in upper or lower case, or a counter of one's own.
        model: the name of the model whose tokens are counted.

    Raises:
        ConfigurationError: it is none of these, or cannot be had on this machine; see `accurate`.
    """
    if isinstance(method, str):
        match method.casefold():
            case "accurate":
                return accurate(model)
            case "simple":
                return SIMPLE
    elif callable(getattr(method, "count", None)):
        return method
    msg = (
        f"tokens are counted by 'Accurate', 'Simple', or an object with count(text), not by {excerpt(repr(method), 60)}"
    )
    raise ConfigurationError(msg)


def message_tokens(message: Message, counter: Counter) -> int:
    """Count a message as it is sent."""
    entry = _KEPT.get((id(message), id(counter)))
    return (
        entry.tokens
        if entry is not None
        else _keep(message, counter, sum(_part(p, counter) for p in message.parts) + 4)
    )


def tools_tokens(definitions: Sequence[ToolDefinition], counter: Counter) -> int:
    """Count the definitions of tools."""
    total = 0
    for definition in definitions:
        entry = _KEPT.get((id(definition), id(counter)))
        total += entry.tokens if entry is not None else _keep(definition, counter, _definition(definition, counter))
    return total


def output_tokens(output: OutputSchema[Any], counter: Counter) -> int:
    """Count the schema of a structured answer."""
    entry = _KEPT.get((id(output), id(counter)))
    if entry is not None:
        return entry.tokens
    said = f"{output.name}\n{output.description}\n{to_json(output.schema).decode()}"
    return _keep(output, counter, counter.count(said) + 8)


class _Kept(ref[Any]):
    __slots__ = ("counter", "key", "tokens")

    counter: Counter
    key: tuple[int, int]
    tokens: int


_KEPT: Final[dict[tuple[int, int], _Kept]] = {}


def _forget(entry: _Kept) -> None:
    _KEPT.pop(entry.key, None)


def _keep(counted: object, counter: Counter, tokens: int) -> int:
    entry = _Kept(counted, _forget)
    entry.counter, entry.key, entry.tokens = counter, (id(counted), id(counter)), tokens
    _KEPT[entry.key] = entry
    return tokens


def _definition(definition: ToolDefinition, counter: Counter) -> int:
    said = f"{definition.name}\n{definition.description}\n{to_json(definition.parameters).decode()}"
    return counter.count(said) + 8


def _part(part: Part | ContentPart, counter: Counter) -> int:
    match part.type:
        case "text" | "reasoning":
            return counter.count(part.text)
        case "tool_call":
            return counter.count(part.name) + counter.count(part.arguments) + 4
        case "tool_result":
            return sum(_part(p, counter) for p in part.parts) + 4
        case "server_tool":
            return counter.count(part.name) + counter.count(to_json(part.details).decode()) + 4
        case "image":
            return 85 if part.detail == "low" else 1000
        case "audio":
            return ceil(len(part.data) / 1000)
        case "file":
            return ceil(len(part.data) / 50) if part.data is not None else 2000
        case _:
            assert_never(part.type)


class Correction:
    """How far a counter's estimates are from what providers report."""

    __slots__ = ("_sums",)

    def __init__(self) -> None:
        self._sums: dict[tuple[str, str], tuple[float, float]] = {}

    def learn(self, provider: str, model: str, estimated: int, reported: int) -> None:
        """Take one request's tokens."""
        if estimated < 50 or not 0.2 < reported / estimated < 5:
            return
        said, was = self._sums.get((provider, model), (500.0, 500.0))
        self._sums[provider, model] = (said * 0.8 + estimated, was * 0.8 + reported)

    def factor(self, provider: str, model: str) -> float:
        """Give what to multiply an estimate with."""
        sums = self._sums.get((provider, model))
        return 1.0 if sums is None else min(max(sums[1] / sums[0], 0.5), 3.0)
