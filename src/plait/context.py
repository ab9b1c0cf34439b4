"""Memory strategies: which messages of a thread are sent. The log keeps all of them.

A strategy is a pure function of the messages. It never separates a tool call from its results, and never drops the
newest user message or system text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from plait.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from plait.messages import Message


class MemoryStrategy(Protocol):
    """Chooses what is sent."""

    def choose(self, messages: Sequence[Message]) -> Sequence[Message]:
        """Give the messages to send, in order; ``messages`` is valid to send, and so must the answer be."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LastN:
    """Sends the last ``n`` messages: fewer where a call would lose its results, more to keep the newest user message."""

    n: int = 20

    def __post_init__(self) -> None:
        if type(self.n) is not int or self.n < 1:
            msg = f"memory strategy 'last_n' takes n as a whole number of at least 1, not {self.n!r}"
            raise ConfigurationError(msg)

    def choose(self, messages: Sequence[Message]) -> Sequence[Message]:
        """Give at most the last ``n`` messages, with all system text and the newest user message."""
        if len(messages) <= self.n:
            return messages
        start = len(messages) - self.n
        while start < len(messages) and messages[start].role == "tool":
            start += 1
        newest = next((i for i in range(len(messages) - 1, -1, -1) if messages[i].role == "user"), start)
        first_other = next((i for i, message in enumerate(messages) if message.role != "system"), 0)
        kept = [*messages[: min(first_other, start)], *messages[start:]]
        return kept if newest >= start else [*messages[: min(first_other, newest)], messages[newest], *messages[start:]]


_STRATEGIES: Final = {"last_n": LastN}


def get_memory_strategy(name: str, **params: Any) -> MemoryStrategy:
    """Make a memory strategy by name: ``get_memory_strategy("last_n", n=20)``.

    Raises:
        ConfigurationError: the name or a parameter is unknown, or a value is out of range.
    """
    made = _STRATEGIES.get(name)
    if made is None:
        msg = f"there is no memory strategy {name!r}; there is {', '.join(map(repr, _STRATEGIES))}"
        raise ConfigurationError(msg)
    unknown = set(params) - {"n"}
    if unknown:
        msg = f"memory strategy {name!r} has no parameter {sorted(unknown)[0]!r}; it takes n, the number of messages"
        raise ConfigurationError(msg)
    return made(**params)


def strategy_of(name: str | MemoryStrategy, params: Mapping[str, Any] | None) -> MemoryStrategy:
    """Make the strategy an agent was given by name and parameters, or take the object it was given."""
    return get_memory_strategy(name, **(params or {})) if isinstance(name, str) else name
