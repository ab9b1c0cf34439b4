"""Memory strategies: which messages of a thread are sent. The log keeps all of them.

A strategy is a pure function of the messages. It never separates a tool call from its results, and never drops the
newest user message or system text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final, Protocol

from plait.errors import ConfigurationError, excerpt
from plait.log import REPAIR

if TYPE_CHECKING:
    from collections.abc import Sequence

    from plait.messages import Message


class MemoryStrategy(Protocol):
    """Chooses what is sent."""

    def choose(self, messages: Sequence[Message]) -> Sequence[Message]:
        """Give the messages to send, in order; ``messages`` is valid to send, and so must the answer be."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LastN:
    """Sends the last ``n`` messages, all system text and the newest user message.

    A call goes with its results: where the last ``n`` would begin with the results of a call, these are left out, but
    never the last call, without whose results the model would only call again.

    Raises:
        ConfigurationError: ``n`` is no whole number of at least 1.
    """

    n: int = 20

    def __post_init__(self) -> None:
        if type(self.n) is not int or self.n < 1:
            shown = repr(self.n) if isinstance(self.n, int | float | None) else type(self.n).__name__
            msg = f"memory strategy 'last_n' takes n as a whole number of at least 1, not {shown}"
            raise ConfigurationError(msg)

    def choose(self, messages: Sequence[Message]) -> Sequence[Message]:
        """Give the messages to send, in order.

        Returns:
            System text, which comes first in ``messages``, and at most ``n`` of the others; one more where ``n`` is 1
            and the last message holds results; and the newest user message, if it is none of these.
        """
        end = len(messages)
        if end <= self.n:
            return messages
        others = next((number for number, message in enumerate(messages) if message.role != "system"), end)
        start = end - self.n
        if start <= others:
            return messages
        while start < end and messages[start].role == "tool":
            start += 1
        if start == end:
            start -= 2
        newest = next((number for number in range(end - 1, -1, -1) if _is_prompt(messages[number])), start)
        kept = [*messages[:others], *messages[start:]]
        if others <= newest < start:
            kept.insert(others, messages[newest])
        return kept


def _is_prompt(message: Message) -> bool:
    """Whether a person said it; a run asks again for an answer's form in the user's name."""
    return message.role == "user" and REPAIR not in message.metadata


_STRATEGIES: Final = {"last_n": LastN}


def get_memory_strategy(name: str, **params: Any) -> MemoryStrategy:
    """Make a memory strategy by name: ``get_memory_strategy("last_n", n=20)``.

    Raises:
        ConfigurationError: the name or a parameter is unknown, or a value is out of range.
    """
    made = _STRATEGIES.get(name) if isinstance(name, str) else None
    if made is None:
        shown = excerpt(repr(name), 60) if isinstance(name, str) else type(name).__name__
        msg = f"there is no memory strategy {shown}; there is {', '.join(map(repr, _STRATEGIES))}"
        raise ConfigurationError(msg)
    known = [field.name for field in fields(made)]
    unknown = [param for param in params if param not in known]
    if unknown:
        msg = f"memory strategy {name!r} has no parameter {excerpt(unknown[0], 60)!r}; it takes {', '.join(known)}"
        raise ConfigurationError(msg)
    return made(**params)


def strategy_of(name: str | MemoryStrategy, params: Mapping[str, Any] | None) -> MemoryStrategy:
    """Make the strategy an agent was given by name and parameters, or take the object it was given.

    Raises:
        ConfigurationError: the name or a parameter is unknown; or the object is no strategy, or came with parameters.
    """
    if isinstance(name, str):
        if params is not None and not (isinstance(params, Mapping) and all(isinstance(param, str) for param in params)):
            msg = (
                f"memory_params must be a mapping of names to values, such as {{'n': 20}}, not {type(params).__name__}"
            )
            raise ConfigurationError(msg)
        return get_memory_strategy(name, **(params or {}))
    if not callable(getattr(name, "choose", None)):
        msg = f"memory_strategy must be a name such as 'last_n', or an object with choose(), not {type(name).__name__}"
        raise ConfigurationError(msg)
    if params:
        msg = "memory_params belong to a memory_strategy given by name; give these to the object itself"
        raise ConfigurationError(msg)
    return name
