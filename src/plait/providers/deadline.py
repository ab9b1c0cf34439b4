"""One moment by which a stream of batches has to be over, whichever batch it is waiting for then.

Knows nothing of retries, or of what the batches hold.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from plait.events import Delta


class Deadline:
    """Ends the wait for a batch at one moment: one timer, and none for each batch.

    `asyncio.timeout` cannot stand round a ``yield``: it would cancel what the reader does between two batches.

    Attributes:
        passed: whether the moment is over.
        given: the batches of the iteration that is under way, so far.
    """

    __slots__ = ("_batches", "_cancelled", "_timer", "_waiting", "given", "passed")

    def __init__(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self.passed = False
        self.given: list[list[Delta]] = []
        self._batches: AsyncIterator[list[Delta]] | None = None
        self._cancelled = False  # whether the wait was ended, which has to be taken back
        self._waiting: asyncio.Task[object] | None = None
        self._timer = loop.call_at(loop.time() + seconds, self._pass)

    def over(self, batches: AsyncIterator[list[Delta]]) -> Self:
        """Give these batches, until the deadline: an iteration raises TimeoutError when it passed."""
        self._batches = batches
        self.given = []
        return self

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[Delta]:
        if self._batches is None:
            raise StopAsyncIteration
        if self.passed:
            raise TimeoutError
        task = self._waiting = asyncio.current_task()
        before = task.cancelling() if task is not None else 0
        try:
            batch = await anext(self._batches)
        except asyncio.CancelledError:
            if (left := self._take_back()) is not None and left <= before:
                raise TimeoutError from None
            raise
        except BaseException:
            self._take_back()
            raise
        self._take_back()
        self.given.append(batch)
        return batch

    def end(self) -> None:
        """Forget the timer."""
        self._timer.cancel()

    def _pass(self) -> None:
        self.passed = True
        if self._waiting is not None:
            self._cancelled = self._waiting.cancel()

    def _take_back(self) -> int | None:
        """Say that nobody waits any more; take back the cancellation that ended the wait, and count what is left."""
        task, self._waiting = self._waiting, None
        if not self._cancelled or task is None:
            return None
        self._cancelled = False
        return task.uncancel()
