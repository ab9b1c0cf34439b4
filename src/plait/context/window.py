"""Memory strategies by the names that users know: which messages of a thread are sent. The log keeps all of them.

All names make a `ContextWindow`, and one trimmer keeps it. A strategy of one's own is any object with ``choose``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from inspect import signature
from typing import TYPE_CHECKING, Any, Final, Protocol

from plait.context.bounds import LEAST_TOKENS, Bounds, whole
from plait.context.summaries import is_prompt
from plait.context.trimming import Trimmer
from plait.counting import message_tokens
from plait.errors import ConfigurationError, excerpt
from plait.messages import SystemMessage, as_message

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from plait.counting import Counter
    from plait.messages import Message


def check_room(bounds: Bounds, counter: Counter, fixed_tokens: int) -> None:
    """Check that something of a thread can be sent beside what is always sent.

    Raises:
        ConfigurationError: system prompt, tools and notes leave no room for a message in ``max_tokens``.
    """
    if bounds.max_tokens is None:
        return
    notes = [SystemMessage(text=note) for note in (bounds.dropped_note, bounds.overflow_note) if note]
    always = fixed_tokens + sum(message_tokens(note, counter) for note in notes) + bounds.summary_bound
    if always + LEAST_TOKENS > bounds.max_tokens:
        msg = (
            f"system prompt, tools and notes take {always:,} tokens, and at most {bounds.max_tokens:,} may be sent: "
            "there is no room for messages; let more be sent, or say less"
        )
        raise ConfigurationError(msg)


class MemoryStrategy(Protocol):
    """Chooses what is sent."""

    def choose(self, messages: Sequence[Message]) -> Sequence[Message]:
        """Give the messages to send, in order; ``messages`` is valid to send, and so must the answer be."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextWindow(Bounds):
    """What of a thread is sent: ``ContextWindow(max_tokens=16_000, last=50)``. See `Bounds` for what it takes.

    An agent keeps a trimmer with each thread, which looks only at what is new; the methods here look at a whole list.
    """

    def choose(self, messages: Sequence[Message]) -> list[Message]:
        """Give the messages to send, in order; there are no summaries, which take a model.

        Args:
            messages: a thread as it may be sent; with ``keep_tool_calls=False``, its newest prompt begins the run that
                keeps its calls.

        Raises:
            LimitExceeded: what must be sent is more than ``max_tokens``.
        """
        window = replace(self, dropping="simple", summary_tokens=None, trim_to=self.share)
        newest = next((number for number in range(len(messages) - 1, -1, -1) if is_prompt(messages[number])), 0)
        return Trimmer(window, None).trim(messages, newest).messages

    async def build(
        self,
        messages: Iterable[str | Message | Mapping[str, Any]],
        system_prompt: str = "",
        max_tokens: int | None = None,
    ) -> list[Message]:
        """Give the messages to send, with a system prompt before them.

        Args:
            messages: a conversation; also as ``{"role": "user", "content": "text"}``.
            system_prompt: it counts, and is always sent; empty for none.
            max_tokens: a bound of all that is sent; the smaller of this and the window's own holds.

        Raises:
            ConfigurationError: a message is none, or ``max_tokens`` is no bound.
            LimitExceeded: what must be sent is more than ``max_tokens``.
        """
        said = [as_message(message) for message in messages]
        if system_prompt:
            said.insert(0, SystemMessage(text=system_prompt))
        if max_tokens is None:
            return self.choose(said)
        whole("build()", "max_tokens", max_tokens, LEAST_TOKENS)
        most = min(max_tokens, self.max_tokens or max_tokens)
        each = self.max_tokens_per_message
        within = replace(
            self,
            max_tokens=most,
            max_tokens_per_message=None if each is None else min(each, most),
            dropping="simple",
            summary_tokens=None,
            trim_to=self.share,
        )
        return within.choose(said)


def last_n(n: int = 20) -> ContextWindow:
    """Send the last ``n`` messages, all system text and the newest user message.

    A call goes with its results: where the last ``n`` would begin with the results of a call, these are left out, but
    never the last call, without whose results the model would only call again.

    Raises:
        ConfigurationError: ``n`` is no whole number of at least 1.
    """
    whole("memory strategy 'last_n'", "n", n, 1)
    return ContextWindow(last=n, dropped_note=None)


def first_last(first: int = 2, last: int = 10) -> ContextWindow:
    """Send the first messages and the last ones, all system text and the newest user message.

    Raises:
        ConfigurationError: ``first`` is no whole number, or ``last`` none of at least 1.
    """
    whole("memory strategy 'first_last'", "first", first, 0)
    whole("memory strategy 'first_last'", "last", last, 1)
    return ContextWindow(first=first, last=last, dropped_note=None)


def token_window(max_tokens: int = 100_000, counting: str | Counter = "Simple") -> ContextWindow:
    """Send as many of the newest messages as fit.

    Raises:
        ConfigurationError: a value is out of its range.
    """
    return ContextWindow(max_tokens=max_tokens, counting=counting)


def simple(
    max_tokens: int = 100_000,
    last: int | None = None,
    max_tokens_per_message: int | None = None,
    *,
    keep_tool_calls: bool = True,
    counting: str | Counter = "Simple",
) -> ContextWindow:
    """Send as many of the newest messages as fit, at most ``last``, long ones cut.

    Raises:
        ConfigurationError: a value is out of its range.
    """
    return ContextWindow(
        max_tokens=max_tokens,
        last=last,
        max_tokens_per_message=max_tokens_per_message,
        keep_tool_calls=keep_tool_calls,
        counting=counting,
    )


def summary_dropping(
    max_tokens: int = 100_000,
    last: int | None = None,
    max_tokens_per_message: int | None = None,
    *,
    keep_tool_calls: bool = True,
    counting: str | Counter = "Simple",
    summary_tokens: int | None = None,
    trim_to: float | None = None,
) -> ContextWindow:
    """As `simple`, with a summary in place of what is left out.

    Raises:
        ConfigurationError: a value is out of its range.
    """
    window = simple(max_tokens, last, max_tokens_per_message, keep_tool_calls=keep_tool_calls, counting=counting)
    return replace(window, dropping="summary", summary_tokens=summary_tokens, trim_to=trim_to)


_STRATEGIES: Final[dict[str, Callable[..., ContextWindow]]] = {
    made.__name__: made for made in (last_n, first_last, token_window, simple, summary_dropping)
}


def get_memory_strategy(name: str, **params: Any) -> ContextWindow:
    """Make a memory strategy by name: ``get_memory_strategy("last_n", n=20)``.

    Raises:
        ConfigurationError: the name or a parameter is unknown, or a value is out of range.
    """
    made = _STRATEGIES.get(name) if isinstance(name, str) else None
    if made is None:
        shown = excerpt(repr(name), 60) if isinstance(name, str) else type(name).__name__
        msg = f"there is no memory strategy {shown}; there is {', '.join(map(repr, _STRATEGIES))}"
        raise ConfigurationError(msg)
    known = list(signature(made).parameters)
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
