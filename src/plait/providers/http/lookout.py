"""Deadlines: one timer for everything that an event loop waits for.

Knows nothing of what is watched; that says itself when a deadline of its own could pass.
"""

from __future__ import annotations

from contextvars import Context
from math import inf
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    import asyncio

_TICK: Final = 1.0  # seconds between looks


class Watched(Protocol):
    """What has deadlines."""

    def look(self, now: float) -> float:
        """End the wait whose deadline has passed; give when the next one could pass, in the loop's time."""
        ...


class Lookout:
    """Looks at what is watched every second while there is anything, and when a deadline could pass.

    It may ring once more when all are gone, and then rests.
    """

    __slots__ = ("_at", "_timer", "_watched", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._watched: dict[Watched, None] = {}
        self._at = inf
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, watched: Watched, until: float) -> None:
        """Look at something from now on, for the first time at ``until`` in the loop's time or earlier."""
        self._watched[watched] = None
        if until < self._at:
            self._look_at(min(until, self.loop.time() + _TICK))

    def forget(self, watched: Watched) -> None:
        """Look at it no more."""
        self._watched.pop(watched, None)

    def _look_at(self, moment: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._at = moment
        # In a context of its own: it must not keep alive what belongs to the run that is asking just now.
        self._timer = self.loop.call_at(moment, self._look, context=Context())

    def _look(self) -> None:
        self._timer, self._at = None, inf
        now = self.loop.time()
        following = min((watched.look(now) for watched in tuple(self._watched)), default=None)
        if following is not None:
            self._look_at(min(following, now + _TICK))
