"""Counting the steps of a run's tasks, to do something at one of them.

A step is what a task does from one wait to the next. `Steps.task` has its task counted with every task that is made in
it, directly or not: by a context variable, so that a server's tasks in the same event loop are not. Knows nothing of
plait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Literal, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

T = TypeVar("T")

Moment = Literal["waiting", "waking"]
"""When in a step: once the task waits, or when what it waits for is there and it has not gone on yet."""

_steps: ContextVar[Steps | None] = ContextVar("steps", default=None)


class Steps:
    """Counts steps, and calls back once, at one of them.

    Args:
        at: the number of the step, from 1.
        moment: when in that step.
        then: what to call; it may cancel a task.

    Attributes:
        count: the steps so far.
    """

    def __init__(self, at: int, moment: Moment, then: Callable[[], object]) -> None:
        self.count = 0
        self._at = at
        self._moment = moment
        self._then = then

    def waits(self, waits_for: object) -> None:
        """Take note that a task has done a step, and waits for this now."""
        self.count += 1
        if self.count != self._at:
            return
        if self._moment == "waking" and isinstance(waits_for, asyncio.Future):
            # The task's own callback comes after this one, so the task has not gone on when it is called.
            waits_for.add_done_callback(lambda _: self._then())
        else:
            asyncio.get_running_loop().call_soon(self._then)

    def task(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Make the task whose steps, with those of every task it makes, are counted. Its loop needs `counting`."""
        token = _steps.set(self)
        try:
            return asyncio.get_running_loop().create_task(work)
        finally:
            _steps.reset(token)


class _Stepped(Coroutine[Any, Any, T]):
    """A coroutine that says when it waits."""

    def __init__(self, work: Coroutine[Any, Any, T], steps: Steps) -> None:
        self._work = work
        self._steps = steps

    def send(self, value: Any, /) -> Any:
        waits_for = self._work.send(value)
        self._steps.waits(waits_for)
        return waits_for

    def throw(self, *error: Any) -> Any:
        waits_for = self._work.throw(*error)
        self._steps.waits(waits_for)
        return waits_for

    def close(self) -> None:
        self._work.close()

    def __await__(self) -> Generator[Any, Any, T]:
        return self._work.__await__()


@contextmanager
def counting() -> Iterator[None]:
    """Have the running event loop count the steps of `Steps.task` and of the tasks it makes."""
    loop = asyncio.get_running_loop()
    before = loop.get_task_factory()

    def made(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> asyncio.Task[Any]:
        context = options.get("context")
        steps = _steps.get() if context is None else context.get(_steps)
        return asyncio.Task(work if steps is None else _Stepped(work, steps), loop=loop, **options)

    loop.set_task_factory(made)
    try:
        yield
    finally:
        loop.set_task_factory(before)
