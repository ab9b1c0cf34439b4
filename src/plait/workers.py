"""Daemon threads that run blocking functions off the event loop.

A function that does not come back in time cannot be ended: its thread is left behind and counted. Daemon threads,
so that such a one cannot keep the interpreter from ending. Knows nothing of tools.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from contextlib import suppress
from contextvars import copy_context
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

from plait.errors import LimitExceeded

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

MAX_WORKERS: Final = 64
MAX_ASKERS: Final = 16
MAX_LEFT: Final = 32
_IDLE_SECONDS: Final = 5.0


class NoThreadLeft(LimitExceeded):
    """A function was not called, because too many did not come back."""


class _Job:
    """One call of a function, and where its outcome goes."""

    __slots__ = ("context", "function", "future", "loop", "state")

    def __init__(self, function: Callable[[], Any]) -> None:
        self.function = function
        self.context = copy_context()
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[tuple[Any, BaseException | None]] = self.loop.create_future()
        self.state: Literal["waiting", "running", "left", "done"] = "waiting"

    def run(self) -> None:
        """Call the function in the caller's context variables, and send the outcome to the caller's loop."""
        outcome: tuple[Any, BaseException | None]
        try:
            outcome = (self.context.run(self.function), None)
        except BaseException as error:  # noqa: BLE001  # raised again where the call is awaited
            outcome = (None, error)
        with suppress(RuntimeError):  # the loop was closed; nobody waits
            self.loop.call_soon_threadsafe(self._deliver, outcome)

    def _deliver(self, outcome: tuple[Any, BaseException | None]) -> None:
        if not self.future.done():
            self.future.set_result(outcome)


class Workers:
    """A bounded set of threads, started when needed and ended after five idle seconds.

    Args:
        most: threads that run functions somebody waits for.
        most_left: threads left behind, in functions nobody waits for any more, before new calls are refused.
    """

    def __init__(self, most: int = MAX_WORKERS, most_left: int = MAX_LEFT) -> None:
        self.most = most
        self.most_left = most_left
        self.reset()

    def reset(self) -> None:
        """Begin with no threads, as a forked child does."""
        self._lock = threading.Lock()
        self._jobs: SimpleQueue[_Job] = SimpleQueue()
        self._queued = 0
        self._idle = 0
        self._threads = 0
        self._left = 0

    @property
    def left(self) -> int:
        """How many threads are in functions that nobody waits for any more."""
        return self._left

    async def run(self, function: Callable[[], T], when_left: Callable[[], object] | None = None) -> T:
        """Call a function in a thread, with a copy of the caller's context variables.

        When the caller is cancelled, a function that has not begun never begins; one that has goes on, and is
        counted in `left`.

        Args:
            function: what to call.
            when_left: is called, by the caller's task, when the function is left behind.

        Raises:
            NoThreadLeft: too many threads were left behind.
        """
        if self._left >= self.most_left:
            msg = f"{self._left} blocking functions did not come back and hold their threads; no more are started"
            raise NoThreadLeft(msg, limit=self.most_left)
        job = _Job(function)
        with self._lock:
            self._queued += 1
            self._jobs.put(job)
            self._start_if_needed()
        try:
            value, error = await job.future
        except asyncio.CancelledError:
            if self._leave(job) and when_left is not None:
                when_left()
            raise
        if error is not None:
            raise error
        return value  # type: ignore[no-any-return]  # it is what the function gave

    def _start_if_needed(self) -> None:
        if self._queued > self._idle and self._threads - self._left < self.most:
            self._threads += 1
            threading.Thread(target=self._work, name="plait: sync tool", daemon=True).start()

    def _leave(self, job: _Job) -> bool:
        """Leave a job; say whether its function is at work."""
        with self._lock:
            at_work = job.state == "running"
            if at_work:
                self._left += 1
                self._start_if_needed()
            if job.state != "done":
                job.state = "left"
            return at_work

    def _work(self) -> None:
        while True:
            job = self._next()
            if job is None:
                return
            job.run()
            with self._lock:
                if job.state == "left":
                    self._left -= 1
                job.state = "done"
            del job  # while it waits it holds nobody's context

    def _next(self) -> _Job | None:
        """Wait for a job that is still wanted; None when this thread is no longer needed."""
        while True:
            with self._lock:
                if self._threads - self._left > self.most:  # it was left behind and came back; another has its place
                    self._threads -= 1
                    return None
                self._idle += 1
            try:
                job = self._jobs.get(timeout=_IDLE_SECONDS)
            except Empty:
                job = None
            with self._lock:
                self._idle -= 1
                if job is None and self._queued:
                    continue
                if job is None:
                    self._threads -= 1
                    return None
                self._queued -= 1
                if job.state == "waiting":
                    job.state = "running"
                    return job


def _processors() -> int:
    """Say how many processors this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


WORKERS: Final = Workers()
"""For tools, and for what takes as long."""
ASKERS: Final = Workers(MAX_ASKERS)
"""For short questions of a run that must be answered while tools hold all other threads."""
STARTERS: Final = Workers(_processors(), sys.maxsize)
"""For starting processes, as many at once as can run: more would only hold each other up. Who leaves one kills what it
starts, so that it comes back at once."""

for _workers in (WORKERS, ASKERS, STARTERS):
    os.register_at_fork(after_in_child=_workers.reset)
