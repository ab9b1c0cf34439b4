"""Ending a run from outside: a stop signal, an interrupting second prompt, or the deadline.

Knows tasks and signals, and nothing of what is stopped.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Self

from plait.errors import ConfigurationError
from plait.run import StopSignal

if TYPE_CHECKING:
    from collections.abc import Callable

    from plait.events import StopReason


class Guard:
    """Surrounds what may be stopped: a stop signal or the deadline cancels what the task waits for inside.

    As `asyncio.timeout` does, it takes back the cancellation it made itself, and lets every other pass. After the
    block, ``stopped`` says why it was left early; whatever fires later reaches nobody. Enter it in the task that
    drives the run.

    Args:
        stop: the caller's signal, if any.
        deadline: seconds from now, if any.

    Attributes:
        stopped: the reason, when the block was ended from outside; else None.
    """

    __slots__ = ("_armed", "_base", "_deadline", "_failure", "_fired", "_loop", "_stop", "_task", "_undo", "stopped")

    def __init__(self, stop: StopSignal | asyncio.Event | None, deadline: float | None) -> None:
        self.stopped: StopReason | None = None
        self._stop = stop
        self._deadline = deadline
        self._armed = False
        self._fired: StopReason | None = None
        self._failure: ConfigurationError | None = None
        self._undo: tuple[Callable[[], object], ...] = ()

    async def __aenter__(self) -> Self:
        loop = self._loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        if task is None:
            msg = "a run must be driven from a task of the event loop"
            raise RuntimeError(msg)
        self._task, self._base, self._armed = task, task.cancelling(), True
        if isinstance(self._stop, StopSignal):
            self._undo += (self._stop.on_set(self._fire),)
        elif self._stop is not None:
            watcher = loop.create_task(self._stop.wait(), name="plait: stop event")
            watcher.add_done_callback(self._event_seen)
            self._undo += (watcher.cancel,)
        if self._deadline is not None:
            self._undo += (loop.call_later(self._deadline, self._fire, "deadline").cancel,)
        return self

    def interrupt(self) -> None:
        """Stop the run, as the caller's signal does; from any thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._fire)

    def _event_seen(self, watcher: asyncio.Task[object]) -> None:
        if watcher.cancelled():
            return
        if watcher.exception() is not None:
            self._failure = ConfigurationError("stop= is an asyncio.Event of another event loop; use a StopSignal")
        self._fire()

    def _fire(self, reason: StopReason = "user_stop") -> None:
        if self._armed and self._fired is None:
            self._fired = reason
            self._task.cancel()

    @property
    def fired(self) -> bool:
        """Whether it was told to stop."""
        return self._fired is not None

    async def checkpoint(self) -> None:
        """Stop here, after it fired: foreign code may have swallowed the cancellation."""
        await asyncio.sleep(0)  # raises here, if the cancellation is still to come
        raise asyncio.CancelledError

    async def __aexit__(self, kind: type[BaseException] | None, _error: object, _traceback: object) -> bool:
        self._armed = False
        for undo in self._undo:
            undo()
        if self._fired is None:
            return False
        ours = kind is not None and issubclass(kind, asyncio.CancelledError)
        if not ours:
            # It fired after the last wait: its cancellation is still to come, and belongs to nobody else.
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
        if self._task.uncancel() > self._base:
            raise asyncio.CancelledError  # somebody else cancelled as well
        if self._failure is not None:
            raise self._failure
        if ours:
            self.stopped = self._fired
        return ours
