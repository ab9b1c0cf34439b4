"""Ending a run from outside: a stop signal, an interrupting second prompt, or the deadline.

Knows tasks and signals, and nothing of what is stopped.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from plait.run import StopSignal

if TYPE_CHECKING:
    from collections.abc import Callable

    from plait.events import StopReason


class Guard:
    """Ends a run from outside: a stop signal or the deadline cancels what the run's task waits for.

    As `asyncio.timeout` does, it takes back the cancellation it made itself (`claim`), and lets every other pass.
    Enter it in the task that drives the run.

    Args:
        stop: the caller's signal, if any.
        deadline: seconds from now, if any.
    """

    __slots__ = ("_base", "_deadline", "_loop", "_reason", "_stop", "_task", "_undo")

    def __init__(self, stop: StopSignal | asyncio.Event | None, deadline: float | None) -> None:
        self._stop = stop
        self._deadline = deadline
        self._reason: StopReason | None = None
        self._undo: list[Callable[[], object]] = []

    async def __aenter__(self) -> Self:
        loop = self._loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        if task is None:
            msg = "a run must be driven from a task of the event loop"
            raise RuntimeError(msg)
        self._task, self._base = task, task.cancelling()
        if isinstance(self._stop, StopSignal):
            self._undo.append(self._stop.on_set(self._fire))
        elif self._stop is not None:
            watcher = loop.create_task(self._stop.wait(), name="plait: stop event")
            watcher.add_done_callback(lambda done: None if done.cancelled() else self._fire())
            self._undo.append(watcher.cancel)
        if self._deadline is not None:
            self._undo.append(loop.call_later(self._deadline, self._fire, "deadline").cancel)
        return self

    def interrupt(self) -> None:
        """Stop the run, as the caller's signal does; from any thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._fire)

    def _fire(self, reason: StopReason = "user_stop") -> None:
        if self._reason is None:
            self._reason = reason
            self._task.cancel()

    async def checkpoint(self) -> None:
        """Stop here if it fired: foreign code may have swallowed the cancellation."""
        if self._reason is not None:
            await asyncio.sleep(0)  # raises here, if the cancellation is still to come
            raise asyncio.CancelledError

    def claim(self) -> StopReason | None:
        """Give the reason of a cancellation that this guard made, and take it back; None when others cancelled."""
        if self._reason is None or self._task.uncancel() > self._base:
            return None
        return self._reason

    async def __aexit__(self, kind: object, error: object, trace: object) -> None:
        for undo in self._undo:
            undo()
        if self._reason is not None and self._task.cancelling() > self._base and kind is None:
            # It fired after the last wait: its cancellation is still to come, and belongs to nobody else.
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
            self._task.uncancel()
