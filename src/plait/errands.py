"""Errands: what a tool starts belongs to the run that called it, and ends with that run.

While a tool works, an `Errand` is the current scope: promises made there are owned by it, and tasks made there copy
the context variables it stands in. At first nothing else holds an errand. So one that is gone when its tool has
returned left nothing behind, and nothing is looked for; of the others the event loop's tasks are asked when the run
ends: at once, unless that takes long and was done a moment ago. No task factory, no list of tasks: a tool that starts
nothing costs two context variables and a weak reference. Knows nothing of how tools are called.
"""

# ruff: noqa: SLF001 - an errand is a scope, and scopes and those who look for them are of one kind
from __future__ import annotations

import asyncio
import gc
import logging
import sys
from collections import Counter
from contextvars import Context
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary, ref

from plait.scopes import GRACE, Scope, _outlast, _scope, settle

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

MAX_DEPTH: Final = 8
"""Agents within agents: how many tools, each of which called the agent that called the next, may be under way."""

_CANCEL_AGAIN: Final = GRACE / 4
"""Seconds after which a task that took no notice of its cancellation is cancelled again."""
_CHEAP: Final = 0.0002
"""Looking through all tasks is done at once while it takes less than so many seconds. Else it is not done again"""
_SHARE: Final = 20
"""before so many times its own time has gone by,"""
_MOST: Final = 0.1
"""or so many seconds, if that is less; who asks meanwhile waits, and shares the next look."""

_log = logging.getLogger("plait.tools")

Task = asyncio.Task[Any]
_Asked = asyncio.Future["Mapping[Scope, list[Task]]"]


class Errand(Scope):
    """The scope of one tool call.

    Attributes:
        tool: the tool's name.
        run_id: the run that called it.
    """

    __slots__ = ("run_id", "tool")

    def __init__(self, tool: str, run_id: str, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self.tool, self.run_id, self.loop = tool, run_id, loop
        self._outer = _scope.get()


class Errands:
    """The errands of one run. Nothing they started is left after `end`.

    Args:
        watched: report tools that block the event loop (see `plait.watchdog`).
    """

    __slots__ = ("_left", "_loop", "_watched")

    def __init__(self, *, watched: bool = False) -> None:
        self._left: list[ref[Errand]] | None = None
        self._loop = asyncio.get_running_loop()
        self._watched = watched
        if watched:
            from plait.watchdog import WATCHDOG

            WATCHDOG.watch(self._loop, _who)

    def begin(self, tool: str, run_id: str) -> ref[Errand]:
        """Make an errand the current scope, until `finish` is called with what this returns."""
        errand = Errand(tool, run_id, self._loop)
        _scope.set(errand)
        return ref(errand)

    def finish(self, weak: ref[Errand]) -> None:
        """Say that the tool has returned, or was given up."""
        errand = weak()
        if errand is None:
            return
        if _scope.get() is errand:  # a generator that nobody closed is closed in some other context
            _scope.set(errand._outer)
        del errand
        if weak() is not None:
            if self._left is None:
                self._left = []
            self._left.append(weak)

    async def end(self) -> None:
        """End what the tools left behind, and wait for it; what does not end within `GRACE` seconds is reported.

        Raises:
            CancelledError: the caller was cancelled meanwhile; it is raised when this is over.
        """
        watched, self._watched = self._watched, False
        try:
            if self._left:
                search = _search()
                search.spare(self._left)
                left = {errand for weak in self._left if (errand := weak()) is not None}
                self._left = None
                if left:
                    await _end_all(left, search)
        finally:
            if watched:
                from plait.watchdog import WATCHDOG

                WATCHDOG.leave(self._loop)


def depth_here() -> int:
    """Say how many tools are under way round the caller, of agents that called one another."""
    scope, depth = _scope.get(), 0
    while scope is not None:
        depth += isinstance(scope, Errand)
        scope = scope._outer
    return depth


async def _end_all(errands: set[Errand], search: _Search) -> None:
    for errand in errands:
        errand.cancel()
    left = _running(errands, search.look()) if search.is_due else None
    if left is None or left:
        await settle(lambda: _cancel_tasks(errands, search, left), GRACE * 2)


def _running(errands: Collection[Errand], found: Mapping[Scope, list[Task]]) -> dict[Task, Errand]:
    """Give the tasks that still run of what was started in errands."""
    left = {task: errand for errand in errands for task in (*found.get(errand, ()), *errand._children)}
    here = asyncio.current_task()
    return {task: errand for task, errand in left.items() if not task.done() and task is not here}


async def _cancel_tasks(errands: set[Errand], search: _Search, left: dict[Task, Errand] | None) -> None:
    """Cancel what runs of errands: what is left, if that is known, and what is found after it."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + GRACE
    told: set[Task] = set()
    if left is None:
        left = _running(errands, await search.tasks())
    # Again and again: a task may start others while it ends, or take no notice the first time.
    while left and loop.time() < deadline:
        for task, errand in left.items():
            if task not in told:
                _log.info("a task that the tool %r left behind ends with its run: %s", errand.tool, task.get_name())
                told.add(task)
            task.cancel()
        await _outlast(set(left), min(_CANCEL_AGAIN, deadline - loop.time()))
        left = _running(errands, await search.tasks())
    for (tool, run_id), count in Counter((errand.tool, errand.run_id) for errand in left.values()).items():
        said = (tool, run_id, count, GRACE)
        _log.warning("the tool %r of run %s left tasks behind that do not end: %d still run after %g s", *said)


class _Pace:
    """When something that may take long is to be done again: see `_CHEAP`."""

    __slots__ = ("_cost", "_ended")

    def __init__(self) -> None:
        self._cost = self._ended = 0.0

    @property
    def is_cheap(self) -> bool:
        """Whether it takes next to nothing."""
        return self._cost < _CHEAP

    @property
    def wait(self) -> float:
        """The seconds until it may be done."""
        return 0.0 if self.is_cheap else self._ended + min(self._cost * _SHARE, _MOST) - perf_counter()

    def did(self, began: float) -> None:
        """Say that it was done just now, and when it began."""
        self._ended = perf_counter()
        self._cost = self._ended - began


class _Search:
    """Finds out which tasks of an event loop belong to errands, in one look for all who ask at about the same time.

    Holds nothing that holds the event loop, which is what it is kept by.
    """

    __slots__ = ("_asked", "_look", "_spare")

    def __init__(self) -> None:
        self._look, self._spare = _Pace(), _Pace()
        self._asked: ref[_Asked] | None = None

    @property
    def is_due(self) -> bool:
        """Whether to look at once, rather than to wait for `tasks`."""
        return self._look.is_cheap or (self._awaited is None and self._look.wait <= 0)

    @property
    def _awaited(self) -> _Asked | None:
        """What others wait for."""
        return None if self._asked is None else self._asked()

    async def tasks(self) -> Mapping[Scope, list[Task]]:
        """Give the tasks that run, by errand; where there are many, maybe after a while, and with others who ask."""
        if self.is_due:
            return self.look()
        asked = self._awaited
        if asked is None:
            loop = asyncio.get_running_loop()
            asked = loop.create_future()
            self._asked = ref(asked)
            loop.call_later(self._look.wait, self._answer, asked, context=Context())
        await asyncio.shield(asked)
        return asked.result()

    def _answer(self, asked: _Asked) -> None:
        self._asked = None
        if not asked.done():
            asked.set_result(self.look())

    def look(self) -> Mapping[Scope, list[Task]]:
        """Give the tasks that run, by errand; one that belongs to an errand within an errand stands under both."""
        began = perf_counter()
        found: dict[Scope, list[Task]] = {}
        for task in asyncio.all_tasks():
            scope = _scope_of(task)
            while scope is not None:
                if type(scope) is Errand:
                    found.setdefault(scope, []).append(task)
                scope = scope._outer
        self._look.did(began)
        return found

    def spare(self, errands: Collection[ref[Errand]]) -> None:
        """Where a look takes long, end errands that are held by nothing but timers that were cancelled.

        Such as every time-out within a tool leaves behind: asyncio keeps a cancelled timer, and that its context, until
        its time would have come (https://github.com/python/cpython/blob/3.13/Lib/asyncio/base_events.py, `_run_once`).
        """
        if self._look.is_cheap or self._spare.wait > 0 or not any(weak() is not None for weak in errands):
            return
        began = perf_counter()
        loop = asyncio.get_running_loop()
        timers: Iterable[Any] = getattr(loop, "_scheduled", ()) if isinstance(loop, asyncio.BaseEventLoop) else ()
        for timer in timers:
            if timer._cancelled:
                timer._context = _NOWHERE
        self._spare.did(began)


_NOWHERE: Final = Context()
_searches: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, _Search]] = WeakKeyDictionary()


def _search() -> _Search:
    loop = asyncio.get_running_loop()
    found = _searches.get(loop)
    if found is None:
        found = _searches[loop] = _Search()
    return found


def _scope_of(task: Task) -> Scope | None:
    if sys.version_info >= (3, 12):
        return task.get_context().get(_scope)
    # Before 3.12 a task does not show its context, but it tells the garbage collector.
    for held in gc.get_referents(task):
        if type(held) is Context:
            return held.get(_scope)
    return None


def _who(task: Task) -> str | None:
    """Say which tool a task works for."""
    scope = _scope_of(task)
    while scope is not None:
        if isinstance(scope, Errand):
            return f"the tool {scope.tool!r} of run {scope.run_id}"
        scope = scope._outer
    return None
