"""What a run is stopped by, and when that was true: signals and events that are set, and functions that are asked."""

from __future__ import annotations

import asyncio
import threading
from time import perf_counter
from typing import Final, Literal, get_args

from plait import StopPoll, StopSignal

Way = Literal["signal", "signal from a thread", "event", "function", "async function"]
"""What stops it."""

WAYS: Final[tuple[Way, ...]] = get_args(Way)


class Stop:
    """What a run is stopped by, and when that was true.

    Attributes:
        given: what the run takes.
        at: when it was true; for a function, when it first said so; None before that.
    """

    def __init__(self, way: Way, every: float) -> None:
        self.at: float | None = None
        self.given: StopSignal | asyncio.Event | StopPoll
        self._way = way
        self._said = False
        self._loop = asyncio.get_running_loop()
        match way:
            case "event":
                self.given = asyncio.Event()
            case "function":
                self.given = StopPoll(self._ask, every=every)
            case "async function":
                self.given = StopPoll(self._ask_async, every=every)
            case _:
                self.given = StopSignal()

    def say(self) -> None:
        """Have it be true: now, or when its function is asked next."""
        if self._said:
            return
        self._said = True
        if self._way == "signal from a thread":
            threading.Thread(target=self._set).start()
        elif not isinstance(self.given, StopPoll):
            self._set()

    def after(self, seconds: float) -> None:
        """Have it be true so many seconds later; threads may call this."""
        self._loop.call_soon_threadsafe(self._loop.call_later, seconds, self.say)

    def _set(self) -> None:
        assert not isinstance(self.given, StopPoll)
        self.at = perf_counter()
        self.given.set()

    def _ask(self) -> bool:
        if self._said and self.at is None:
            self.at = perf_counter()
        return self.at is not None

    async def _ask_async(self) -> bool:
        await asyncio.sleep(0)
        return self._ask()
