"""Scopes: who owns promises and tasks, and what an owner's end does to what it owns.

This module owns which scope is current, what is cancelled or waited for when a scope is left, and how long a task that
is being cancelled may still wait. It does not know what it owns: all that it asks of it is `Owned`.

What is made in a scope is owned by it; else by a scope that stands for the task that made it; else (made in no task) by
the event loop. What ends an owner cancels what it owns.
"""

# ruff: noqa: SLF001 - a scope, those in it and those round it are of one kind
from __future__ import annotations

import asyncio
import logging
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, Protocol, Self
from weakref import WeakKeyDictionary

from plait.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable
    from contextvars import Context

FATAL: Final = (KeyboardInterrupt, SystemExit, GeneratorExit)
"""Errors after which nothing more is waited for; they are raised out of a producer, whoever else is told."""

GRACE: Final = 1.0
"""Seconds a cancelled producer may take to clean up before it is reported."""

_log = logging.getLogger("plait.promises")  # one name for promises and their owners

_NONE: Final[dict[asyncio.Task[Any], Owned | asyncio.Task[Any]]] = {}
"""What a scope owns that owns nothing yet, as most never will: never written to."""


class Owned(Protocol):
    """What a scope owns, beside the task that does its work."""

    def cancel(self) -> None:
        """End it now, with all it started."""

    def owner_leaves(self) -> None:
        """Go on without the calling task, which leaves the scope and will only wait for the end."""


class Scope:
    """Owns promises and tasks: nothing that is started in it outlives it.

    ``async with Scope():`` makes it the owner of every promise made in the block, also by functions and tasks called
    there. Leaving the block normally waits for them (their errors go to their readers, not to the block); leaving it
    by an exception or by cancellation cancels them and waits, at most `GRACE` seconds, until they really ended. A
    bounded stream that the leaving task would have had to read is discarded unread, so that its producer can finish.

    While a promise's producer runs, the current scope is the promise's own; it ends with the producer.

    Attributes:
        closed: whether it has ended: a promise made in it now is cancelled from the start. Only to be read.
        loop: the event loop of what it owns, once that is known. Only to be read.
    """

    # The context of a run outlives the run wherever a callback keeps it (a pooled connection keeps that of the run that
    # opened it). So contexts hold this small object, never the promise, and it lets go of the promise at the end.
    __slots__ = ("__weakref__", "_children", "_entered", "_outer", "_producing", "closed", "loop")

    def __init__(self) -> None:
        self._children = _NONE
        self.closed = self._entered = False
        self.loop: asyncio.AbstractEventLoop | None = None
        self._outer: Scope | None = None
        self._producing: Owned | None = None

    @property
    def producing(self) -> Owned | None:
        """The promise whose producer this scope, or the nearest one round it, belongs to."""
        scope: Scope | None = self
        while scope is not None and scope._producing is None:
            scope = scope._outer
        return None if scope is None else scope._producing

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """Own a task of this event loop: it is waited for or cancelled as the promises are."""
        self.bind(task.get_loop())
        self._own(task, task)
        task.add_done_callback(self._disown)
        if self.closed:
            task.cancel()

    def bind(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Belong to this event loop from now on; False if it belongs to another."""
        if self.loop is None:
            self.loop = loop
        return self.loop is loop

    def cancel(self) -> None:
        """Cancel all that is owned, now; what is made in this scope later is cancelled from the start."""
        self.closed = True
        for child in tuple(self._children.values()):
            child.cancel()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        if self.closed or self._entered or not self.bind(loop):
            msg = "a Scope can be entered once, in the event loop of what it owns; make a new one"
            raise ConfigurationError(msg)
        self._entered = True
        self._outer = _scope.get()
        _scope.set(self)
        return self

    async def __aexit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        if _scope.get() is self:
            _scope.set(self._outer)
        try:
            while error is None and self._children:
                for child in tuple(self._children.values()):
                    if not isinstance(child, asyncio.Task):
                        child.owner_leaves()
                await asyncio.wait(tuple(self._children))
        finally:
            await self._wind_up()

    def _own(self, task: asyncio.Task[Any], child: Owned | asyncio.Task[Any]) -> None:
        if self._children is _NONE:
            self._children = {}
        self._children[task] = child

    def _disown(self, task: asyncio.Task[Any]) -> None:
        self._children.pop(task, None)

    async def _wind_up(self) -> None:
        self.cancel()
        if self._children:
            await _let_end(self._children)


class Producer(Scope):
    """What works for a promise: a task, owned by a scope, and itself the scope of all that this task starts.

    Args:
        promise: what is produced; its ``cancel`` is to `stop` this.
        work: called with this at once; it calls `enter`, `clear` and `leave`, and tells the promise what came of it.
        ended: called with the task when that has ended; it calls `end`.
        owner: the scope that owns it.
        loop: the event loop to work in, which the owner belongs to.
        name: the task's name.
        context: the context to work in.
    """

    __slots__ = ("_task",)

    loop: asyncio.AbstractEventLoop
    _outer: Scope

    def __init__(  # noqa: PLR0917 - it has one caller, once for each promise
        self,
        promise: Owned,
        work: Callable[[Producer], Coroutine[object, object, None]],
        ended: Callable[[asyncio.Task[None]], None],
        owner: Scope,
        loop: asyncio.AbstractEventLoop,
        name: str,
        context: Context,
    ) -> None:
        Scope.__init__(self)
        self.loop, self._outer, self._producing = loop, owner, promise
        self._task: asyncio.Task[None] | None = None
        task = self._task = loop.create_task(work(self), name=name, context=context)
        owner._own(task, promise)
        task.add_done_callback(ended, context=context)

    def enter(self) -> None:
        """Be the current scope, in the task that works."""
        _scope.set(self)

    @property
    def busy(self) -> bool:
        """Whether something of what the work started is still running."""
        return bool(self._children)

    async def clear(self) -> None:
        """Cancel what is left running, and wait for it."""
        await self._wind_up()

    def leave(self) -> None:
        """Say that the work is done: nothing more can be started."""
        self.closed, self._producing = True, None

    def end(self, task: asyncio.Task[None]) -> None:
        """Let go of the task, which has ended."""
        self.closed, self._producing, self._task = True, None, None  # closed here if the task never began
        self._outer._children.pop(task, None)
        if not task.cancelled():
            task.exception()  # asked for, so that asyncio does not report it as never retrieved

    def stop(self) -> None:
        """Cancel the task and all that it started."""
        if not self.loop.is_closed():
            self.cancel()
            if self._task is not None:
                self._task.cancel()

    async def wait(self) -> None:
        """Wait, at most `GRACE` seconds, until the stopped task really ended."""
        if self._task is not None:
            await _let_end((self._task,))

    def pass_on(self, callback: Callable[[], None]) -> bool:
        """Have the callback called in this event loop, unless that is here, or closed; say whether."""
        if self.loop is running_loop():
            return False
        try:
            self.loop.call_soon_threadsafe(callback)
        except RuntimeError:
            return False
        return True


class _TaskScope(Scope):
    """Owns what a task made outside of all scopes; asyncio calls it when that task is done."""

    __slots__ = ()

    def __call__(self, _task: asyncio.Task[Any]) -> None:
        self.cancel()


class _LoopScope(Scope):
    """Owns what was made in no task, in any event loop; asyncio cancels its tasks when their loop is closed."""

    __slots__ = ()

    def bind(self, loop: asyncio.AbstractEventLoop) -> bool:  # noqa: ARG002 - it belongs to none
        return True


_scope: ContextVar[Scope | None] = ContextVar("plait_scope", default=None)
_scope_of_task: WeakKeyDictionary[asyncio.Task[Any], Scope] = WeakKeyDictionary()
_loop_scope: Final = _LoopScope()


def current_scope() -> Scope | None:
    """Give the innermost scope round the caller (a block's or a producer's), or None."""
    return _scope.get()


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Give the event loop that runs here, or None."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def owner_here(loop: asyncio.AbstractEventLoop | None, context: Context) -> Scope:
    """Give the owner of what is made here: the current scope, else the calling task's, else the event loop's.

    Args:
        loop: the running event loop, if there is one.
        context: a copy of the present context.
    """
    if loop is None:
        return _loop_scope
    scope = _scope.get()
    if scope is not None and scope.loop is loop:  # contexts are copied to other threads, and so to other loops
        return scope
    task = asyncio.current_task(loop)
    if task is None:
        return _loop_scope
    found = _scope_of_task.get(task)
    if found is not None:
        return found
    made = _scope_of_task[task] = _TaskScope()
    made.bind(loop)
    task.add_done_callback(made, context=context)  # which would else copy one more
    return made


def owner_beyond_task() -> Scope:
    """Give the owner of what only its reader holds, who may hand it on: the current scope, else the event loop's."""
    scope = _scope.get()
    return scope if scope is not None and scope.loop is running_loop() else _loop_scope


async def _let_end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Wait at most `GRACE` seconds for cancelled tasks; those that still run are reported.

    Raises:
        CancelledError: the caller was cancelled meanwhile; it is raised when the waiting is over.
    """
    left = {task for task in tasks if not task.done()} - {asyncio.current_task()}
    try:
        await _outlast(left, GRACE)
    finally:
        for task in left:
            if not task.done():
                _log.warning("%r was cancelled and is still running after %g s", task.get_name(), GRACE)


async def settle(make: Callable[[], Coroutine[object, object, object]], seconds: float = GRACE) -> None:
    """Carry out closing work although the caller is being cancelled.

    Args:
        make: begins what must be done before the caller may end, in a task of its own. It is called once more when
            that task is cancelled: `asyncio.run` cancels every task at its end, such tasks included.
        seconds: how long it may take; then it is cancelled, and a warning is logged.

    Raises:
        CancelledError: the caller was cancelled meanwhile; it is raised when the work is over.
        Exception: the work's own, otherwise.
    """
    task = asyncio.ensure_future(make())
    cancelled: asyncio.CancelledError | None = None
    for again in (True, False):
        try:
            await _outlast({task}, seconds)
        except asyncio.CancelledError as error:
            cancelled = error
        if not (again and task.done() and task.cancelled()):
            break
        task = asyncio.ensure_future(make())
    try:
        if not task.done():
            task.cancel()
            _log.warning("closing work took longer than %g s and was given up", seconds)
        elif cancelled is None:
            task.result()
        elif not task.cancelled():
            task.exception()  # asked for, so that asyncio does not report it as never retrieved
        if cancelled is not None:
            raise cancelled
    finally:
        del cancelled  # its traceback keeps this frame


async def _outlast(tasks: set[asyncio.Task[Any]], seconds: float) -> None:
    """Wait for tasks; a cancellation of the caller meanwhile is raised when that is over."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    cancelled: asyncio.CancelledError | None = None
    while (left := [task for task in tasks if not task.done()]) and (rest := deadline - loop.time()) > 0:
        try:
            await asyncio.wait(left, timeout=rest)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        try:
            raise cancelled
        finally:
            del cancelled  # its traceback keeps this frame
