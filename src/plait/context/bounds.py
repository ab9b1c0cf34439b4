"""How much of a thread is sent, as one checked value: `Bounds`.

Knows nothing of messages: `trimming` chooses by it, and `window` makes it by the names that users know.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from plait.counting import counter_of
from plait.errors import ConfigurationError, excerpt

if TYPE_CHECKING:
    from plait.counting import Counter

Dropping = Literal["simple", "summary"]
"""What becomes of messages that are left out: nothing, or a summary that is sent in their place."""

LEAST_TOKENS: Final = 32
"""Below this, a message that was cut would hold hardly more than the mark that says so."""

_LEAST_WITH_SUMMARIES: Final = 8 * LEAST_TOKENS

OVERFLOW_NOTE: Final = (
    "The context window is full, so part of this conversation is missing or cut here. Answer from what is here, say so "
    "where that is not enough, and make nothing up."
)
DROPPED_NOTE: Final = "Earlier messages of this conversation were left out here."


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What may be sent of a thread. All of it is kept in the log.

    System text, the newest message of a person and the last call with its results are always sent.

    Attributes:
        first: how many messages from the beginning are sent always.
        last: at most so many of the newest messages are sent; system text is not counted.
        max_tokens: at most so many tokens are sent in all: system prompt, notes, definitions of tools and messages.
        max_tokens_per_message: what a message has beyond this is cut in what is sent, and the cut is said in it.
        keep_tool_calls: False leaves the calls of earlier runs, and their results, out.
        counting: how tokens are counted: ``"Simple"``, ``"Accurate"``, or an object with ``count(text)``.
        dropping: ``"summary"`` sends a summary of what was left out.
        summary_tokens: at most so many tokens of a summary are sent; None is an eighth of ``max_tokens``, and
            at most 1,000.
        trim_to: when there is too much, messages are left out until this share of the room is used. 1.0 sends as much
            as fits; less leaves the beginning of what is sent alone for longer, which providers' caches live on. None
            is 0.5 with summaries, so that they are rare, and else 1.0.
        overflow_note: what the model is told while tokens make something be left out or cut; empty for nothing.
        dropped_note: what the model is told while messages are left out; empty for nothing.

    Raises:
        ConfigurationError: a value is out of its range, or two cannot both hold.
    """

    first: int = 0
    last: int | None = None
    max_tokens: int | None = None
    max_tokens_per_message: int | None = None
    keep_tool_calls: bool = True
    counting: str | Counter = "Simple"
    dropping: Dropping = "simple"
    summary_tokens: int | None = None
    trim_to: float | None = None
    overflow_note: str | None = OVERFLOW_NOTE
    dropped_note: str | None = DROPPED_NOTE

    def __post_init__(self) -> None:
        owner = "a context window"
        whole(owner, "first", self.first, 0)
        for name, least in (
            ("last", 1),
            ("max_tokens", LEAST_TOKENS),
            ("max_tokens_per_message", LEAST_TOKENS),
            ("summary_tokens", LEAST_TOKENS),
        ):
            if (value := getattr(self, name)) is not None:
                whole(owner, name, value, least)
        for name in ("overflow_note", "dropped_note"):
            if not isinstance(value := getattr(self, name), str | None):
                _refuse(f"{owner} takes {name} as a text, or None for no note, not {type(value).__name__}")
        if type(self.keep_tool_calls) is not bool:
            _refuse(f"{owner} takes keep_tool_calls as True or False, not {_shown(self.keep_tool_calls)}")
        if self.dropping not in ("simple", "summary"):
            _refuse(f"{owner} takes dropping as 'simple' or 'summary', not {excerpt(repr(self.dropping), 60)}")
        share = self.trim_to
        if share is not None and (type(share) not in (int, float) or not 0 < share <= 1):
            _refuse(f"{owner} takes trim_to as a number above 0 and at most 1, not {_shown(share)}")
        if not isinstance(self.counting, str) or self.counting.casefold() not in ("simple", "accurate"):
            counter_of(self.counting)  # says what is wrong with it
        self._check_together()

    def _check_together(self) -> None:
        most = self.max_tokens
        if most is not None:
            if self.max_tokens_per_message is not None and self.max_tokens_per_message > most:
                _refuse(
                    f"max_tokens_per_message is {self.max_tokens_per_message} and max_tokens only {most}: one "
                    "message would be larger than all that may be sent; make it the smaller of the two"
                )
            if self.summary_tokens is not None and self.summary_tokens > most // 2:
                _refuse(
                    f"summary_tokens is {self.summary_tokens} and max_tokens only {most}: a summary may take half "
                    "of what may be sent at most; make it smaller"
                )
            if self.dropping == "summary" and most < _LEAST_WITH_SUMMARIES:
                _refuse(
                    f"max_tokens is {most}, and summaries need at least {_LEAST_WITH_SUMMARIES}; raise it, or let "
                    "dropping be 'simple'"
                )
        elif self.dropping == "summary" and self.last is None:
            _refuse("with neither last nor max_tokens nothing is left out that could be summarised; give one of them")

    @property
    def counts(self) -> bool:
        """Whether tokens have to be counted to keep these bounds."""
        return self.max_tokens is not None or self.max_tokens_per_message is not None

    def leaves_alone(self, messages: int) -> bool:
        """Whether a thread of so many messages is sent as it is, whatever they are."""
        return (self.last is None or messages <= self.last) and self.keep_tool_calls and not self.counts

    @property
    def summary_bound(self) -> int:
        """The most tokens of a summary that are sent; 0 where there are no summaries."""
        if self.dropping == "simple":
            return 0
        if self.summary_tokens is not None:
            return self.summary_tokens
        return 1000 if self.max_tokens is None else min(1000, self.max_tokens // 8)

    @property
    def share(self) -> float:
        """The share of the room that stays in use when there was too much."""
        if self.trim_to is not None:
            return float(self.trim_to)
        return 0.5 if self.dropping == "summary" else 1.0


def whole(owner: str, name: str, value: object, least: int) -> None:
    """Check that a value is a whole number of at least ``least``.

    Raises:
        ConfigurationError: it is not; the sentence begins with ``owner``.
    """
    if type(value) is not int or value < least:
        _refuse(f"{owner} takes {name} as a whole number of at least {least}, not {_shown(value)}")


def _shown(value: object) -> str:
    return excerpt(repr(value), 60) if isinstance(value, int | float | None) else type(value).__name__


def _refuse(msg: str) -> None:
    raise ConfigurationError(msg)
