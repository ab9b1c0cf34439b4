"""How a question is asked in a trial: in which dialect, by a bare provider or an agent, whole or streamed."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, get_args

from plait.testing.reply import DialectName

if TYPE_CHECKING:
    from collections.abc import Iterable


DIALECTS: tuple[DialectName, ...] = get_args(DialectName)


class Way(NamedTuple):
    """One way to ask; it is written ``anthropic agent streamed``."""

    dialect: DialectName
    is_agent: bool
    is_streamed: bool

    def __str__(self) -> str:
        asker = "agent" if self.is_agent else "client"
        return f"{self.dialect} {asker}{' streamed' if self.is_streamed else ''}"


EVERY = tuple(
    Way(dialect, is_agent, is_streamed)
    for dialect in DIALECTS
    for is_agent in (False, True)
    for is_streamed in (False, True)
)
"""Every way there is."""

CHAT = tuple(way for way in EVERY if way.dialect == "chat")
"""The ways of one dialect, for what only it can say."""

EACH = tuple(way for way in EVERY if way.is_agent == way.is_streamed)
"""Each dialect whole, by a provider, and streamed, by an agent."""

SHARED = tuple(way for way in EVERY if way.dialect == "chat" or way in EACH)
"""For what all dialects share: every way of one, and `EACH` of the others."""


def streamed(ways: Iterable[Way] = EVERY) -> tuple[Way, ...]:
    """Give the ways that stream."""
    return tuple(way for way in ways if way.is_streamed)


def by_agents(ways: Iterable[Way] = EVERY) -> tuple[Way, ...]:
    """Give the ways of agents."""
    return tuple(way for way in ways if way.is_agent)


def by_clients(ways: Iterable[Way] = EVERY) -> tuple[Way, ...]:
    """Give the ways of bare providers."""
    return tuple(way for way in ways if not way.is_agent)


def of(ways: Iterable[Way], *dialects: DialectName) -> tuple[Way, ...]:
    """Give the ways of some dialects."""
    return tuple(way for way in ways if way.dialect in dialects)
