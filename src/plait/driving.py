"""Driving foreign coroutines: a tool's, a hook's. They end in time, and cancel nobody but themselves.

Knows nothing of what is driven.
"""

from __future__ import annotations

import asyncio
import signal
import types
from contextlib import suppress
from contextvars import Context
from math import inf
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator

_GRACE: Final = 0.5
"""Seconds between the cancellations of a coroutine whose time is up and that does not end."""
_TRIES: Final = 3


class CancelledItself(Exception):
    """The coroutine ended by a cancellation of its own, or by one that it raised."""


class TimeUp(Exception):
    """The coroutine was cancelled because its time was up."""


@types.coroutine
def drive(coroutine: Coroutine[Any, Any, Any], seconds: float) -> Generator[Any, None, Any]:
    """Await a foreign coroutine, in this task, for so long at most.

    A coroutine that takes no notice of its cancellation is cancelled again, and closed in the end. One that ends in
    time in spite of a cancellation of its own has its result.

    Raises:
        CancelledItself, TimeUp: see there.
        CancelledError: this task was cancelled from outside.
        BaseException: the coroutine's own.
    """
    task = asyncio.current_task()
    assert task is not None  # noqa: S101  # a coroutine that asyncio runs is in a task
    before = task.cancelling()
    try:
        waits_for = coroutine.send(None)
    except StopIteration as stop:
        if task.cancelling() == before:
            return stop.value  # it waited for nothing, so nobody could come between
        ended = _judged(_Watch(task, before, seconds), stop.value, None)
    except BaseException as error:
        if task.cancelling() == before and not isinstance(error, asyncio.CancelledError):
            raise
        ended = _judged(_Watch(task, before, seconds), None, error)
    else:
        ended = _watched(_Watch(task, before, seconds), coroutine, waits_for)
    return (yield from ended.__await__())


async def _watched(watch: _Watch, coroutine: Coroutine[Any, Any, Any], waits_for: object) -> Any:
    """Await the rest of a coroutine that has begun to wait."""
    failure: BaseException | None = None
    value = None
    try:
        value = await watch.drive(coroutine, waits_for)
    except BaseException as error:  # noqa: BLE001  # raised again below, once it is known who cancelled
        failure = error
    try:
        return await _judged(watch, value, failure)
    finally:
        del failure  # its traceback holds this frame


async def _judged(watch: _Watch, value: object, failure: BaseException | None) -> Any:
    """Give a coroutine's value, or raise what it failed with, by whose cancellations there were."""
    cancelled = isinstance(failure, asyncio.CancelledError)
    others = await watch.take_back() if cancelled or watch.own or watch.expired else False
    if failure is None:
        return value
    if not cancelled or others:
        try:
            raise failure
        finally:
            del failure  # its traceback holds this frame
    failure = None
    raise TimeUp if watch.expired else CancelledItself


class _Watch:
    """Drives a coroutine, cancels it when its time is up, and counts how often it cancels itself.

    Somebody else's cancellation comes while the task waits, its own while it runs. Nothing else tells
    the two from one another. Leaner than `asyncio.timeout`, which cannot tell them at all.
    """

    # Most coroutines end in time and cancel nobody: what only the others need is not written for each.
    own = expired = _interrupted = 0
    _timer: asyncio.TimerHandle | None = None
    _hurry: asyncio.TimerHandle | None = None

    def __init__(self, task: asyncio.Task[Any], before: int, seconds: float) -> None:
        self._task = task
        self._before = before
        self._seconds = seconds
        self._ran(before)

    def _ran(self, before: int) -> None:
        """Count the cancellations that came while the coroutine ran."""
        if (more := self._task.cancelling() - before) > 0:
            self.own += max(0, more - self._interrupts())

    @types.coroutine
    def drive(self, coroutine: Coroutine[Any, Any, Any], waits_for: object) -> Generator[Any, None, Any]:
        """Await the coroutine, which waits for something the first time: from then on the clock runs."""
        task = self._task
        if self._seconds < inf:
            self._timer = task.get_loop().call_later(self._seconds, self._expire, context=Context())
        try:
            while True:
                thrown: BaseException | None = None
                try:
                    yield waits_for
                except BaseException as error:
                    if isinstance(error, GeneratorExit) or self.expired > _TRIES:
                        _close(coroutine)
                        raise
                    thrown = error
                    if self._hurry is None and isinstance(error, asyncio.CancelledError):
                        self._hurry = task.get_loop().call_later(_GRACE, self._insist, context=Context())
                before = task.cancelling()
                try:
                    waits_for = coroutine.send(None) if thrown is None else coroutine.throw(thrown)
                except StopIteration as stop:
                    return stop.value
                finally:
                    self._ran(before)
        finally:
            for timer in (self._timer, self._hurry):
                if timer is not None:
                    timer.cancel()

    def _interrupts(self) -> int:
        """Say how often somebody pressed Ctrl-C since this was asked last.

        asyncio then cancels the main task, in the middle of whatever runs; the coroutine has no part in it
        (https://docs.python.org/3/library/asyncio-runner.html#handling-keyboard-interruption).
        """
        runner = getattr(getattr(signal.getsignal(signal.SIGINT), "func", None), "__self__", None)
        count: int = getattr(runner, "_interrupt_count", 0)
        more, self._interrupted = count - self._interrupted, count
        return more

    def _insist(self) -> None:
        """See that a coroutine which was cancelled from outside does end, and not only swallow the cancellation."""
        self._hurry = None
        if self._task.cancelling() - self._before > self.own + self.expired:
            if self._timer is not None:
                self._timer.cancel()
            self._expire()

    def _expire(self) -> None:
        self.expired += 1
        self._timer = self._task.get_loop().call_later(_GRACE, self._expire, context=Context())
        self._task.cancel()

    async def take_back(self) -> bool:
        """Take back the cancellations of the coroutine and of its time; say whether there are others."""
        mine = self.own + self.expired
        others = self._task.cancelling() - self._before > mine
        for _ in range(mine):
            self._task.uncancel()
        if self.own and not others:  # one that did not wait after it has not got its cancellation yet
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                return self._task.cancelling() > self._before
        return others


def _close(coroutine: Coroutine[Any, Any, Any]) -> None:
    """End a coroutine that would not end; it may take no notice of this either, a few times."""
    for _ in range(_TRIES):
        with suppress(RuntimeError):
            coroutine.close()
            return
