"""The sync face: one thread with one event loop, in which everything that sync callers ask for is carried out.

Owns that thread, and how a caller waits for it: for a whole (`Portal.call`) or for pieces (`Portal.iterate`). What is
carried out is a coroutine function's business; this module knows none of them, so that a sync method is one line.

The thread begins with the first call and ends with the interpreter, or with `Portal.close`. It is nobody's event loop
but the sync callers', so a caller may stand anywhere: in a script, in a notebook whose own loop runs, in a sync tool,
in any number of threads. Only on the portal's thread itself a call would wait for itself, and is refused.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures.thread  # noqa: F401  # its exit handler, which waits for pools, must be there before ours
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Awaitable
from concurrent.futures import CancelledError, Future, wait
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final, Generic, Self, TypeVar

from plait.errors import Cancelled, ConfigurationError
from plait.readers import close_stream
from plait.scopes import GRACE, Scope, current_scope, running_loop

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable, Sequence

T = TypeVar("T")

_LOOK_AFTER: Final = 0.05
"""Seconds after which a caller who blocks a task looks whether that was told to end."""

_NAP: Final = 0.002
"""Seconds between two looks for a piece, where a caller blocks a task."""

_ENDS_WITHIN: Final = 3 * GRACE
"""Seconds that what was cancelled may take to clean up before its caller goes on without it."""


class _Work(Generic[T]):
    """One coroutine that the portal carries out for one caller, with a copy of the caller's context variables."""

    __slots__ = ("_function", "_loop", "_task", "ended", "outcome")

    def __init__(self, function: Callable[[], Awaitable[T]]) -> None:
        self.ended = threading.Event()
        self._function: Callable[[], Awaitable[T]] | None = function
        self._loop: asyncio.AbstractEventLoop | None = None
        self.outcome: Future[T] = Future()
        self._task: asyncio.Task[None] | None = None

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have it carried out."""
        self._loop = loop
        loop.call_soon_threadsafe(self._begin, loop)
        scope = current_scope()
        if scope is not None and scope.loop is not None and scope.loop is not loop:
            # Whoever calls from a sync tool belongs to a run of another event loop, and this ends with that run.
            with suppress(RuntimeError):  # that loop is closed, and the run has ended
                scope.loop.call_soon_threadsafe(self._join, scope)

    def result(self) -> T:
        """Wait for what comes of it.

        Raises:
            Cancelled: it was cancelled, by the portal's end or by the run that the caller is part of.
        """
        told = _Told()
        try:
            while told.patience is not None and not wait((self.outcome,), told.patience).done:
                told.check()
            return self.outcome.result()
        except CancelledError:
            self.ended.wait(_ENDS_WITHIN)
            msg = "a sync call was cancelled before it had its answer"
            raise Cancelled(msg) from None
        finally:
            del self  # an error's traceback keeps this frame

    def cancel(self) -> None:
        """End it, from any thread, unless it has ended."""
        if self.outcome.cancel() and self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed, and the task with it
                self._loop.call_soon_threadsafe(self._cancel_task)

    def end(self) -> None:
        """End it, and wait until it ended."""
        if not self.outcome.done() or self.outcome.cancelled():
            self.cancel()
            if self._loop is not None:
                self.ended.wait(_ENDS_WITHIN)

    def when_told(self, callback: Callable[[], object]) -> None:
        """Call back, in any thread, once it is known what came of it."""
        self.outcome.add_done_callback(lambda _: callback())

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        self._task = loop.create_task(self._carry_out(), name="plait: sync call")
        self._task.add_done_callback(self._task_ended)
        if self.outcome.cancelled():
            self._task.cancel()

    async def _carry_out(self) -> None:
        function, self._function = self._function, None
        if function is None:
            return
        try:
            whole = await function()
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001  # raised again in the caller's thread
            self._tell(error=error)
        else:
            self._tell(whole)

    def _tell(self, whole: Any = None, error: BaseException | None = None) -> None:
        with suppress(Exception):  # the caller has left, perhaps just now
            if error is None:
                self.outcome.set_result(whole)
            else:
                self.outcome.set_exception(error)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        self.ended.set()
        if task.cancelled():
            self.outcome.cancel()

    def _cancel_task(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _join(self, scope: Scope) -> None:
        """Let the scope own a task of its own event loop that lasts as long as this, and cancels it."""

        async def stand_in() -> None:
            try:
                await asyncio.wrap_future(self.outcome)
            except asyncio.CancelledError:
                self.cancel()
            except Exception:  # noqa: BLE001, S110  # the caller is told
                pass

        scope.adopt(asyncio.ensure_future(stand_in()))


class _Told:
    """Whether the task that a sync caller blocks is told to end meanwhile.

    Under `asyncio.run` the first Ctrl-C raises nothing: it cancels the main task, which cannot notice while it blocks.

    Attributes:
        patience: seconds between two looks; None where there is no task.
    """

    __slots__ = ("_before", "_task", "patience")

    def __init__(self) -> None:
        self._task = None if running_loop() is None else asyncio.current_task()
        self._before = 0 if self._task is None else self._task.cancelling()
        self.patience = None if self._task is None else _LOOK_AFTER

    def check(self) -> None:
        """Look.

        Raises:
            CancelledError: asyncio's, for the task.
        """
        if self._task is not None and self._task.cancelling() > self._before:
            raise asyncio.CancelledError


class SyncStream(Generic[T]):
    """Pieces of a stream, for sync readers: ``for piece in stream``.

    Leaving it early ends what produces it: by dropping it, by `close`, or by leaving ``with stream:``.
    """

    __slots__ = ("_arrived", "_ready", "_work")

    def __init__(self, work: _Work[None], arrived: SimpleQueue[Sequence[T] | None]) -> None:
        self._ready: deque[T] = deque()
        self._arrived = arrived
        self._work: _Work[None] | None = work

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        while True:
            try:
                return self._ready.popleft()
            except IndexError:
                if not self._wait():
                    raise StopIteration from None

    def _wait(self) -> bool:
        """Wait for more; say whether there may be some."""
        work = self._work
        if work is None:
            return bool(self._ready)
        try:
            batch = self._next()
            if batch is not None:
                self._ready.extend(batch)
                return True
            self._arrived.put(None)  # for another thread that reads
            ours, self._work = self._work is work, None
            if ours:
                work.result()
        except BaseException:
            self.close()
            raise
        return bool(self._ready)

    def _next(self) -> Sequence[T] | None:
        told = _Told()
        if told.patience is None:
            return self._arrived.get()
        while True:
            try:
                return self._arrived.get_nowait()
            except Empty:
                told.check()
                time.sleep(_NAP)  # not get(timeout=...): Python 3.11's waits for ever where a signal meets its end

    def close(self) -> None:
        """End the stream, from any thread, and wait until what produces it ended. What was not read is dropped."""
        work, self._work = self._work, None
        self._ready.clear()
        if work is not None:
            work.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def __del__(self) -> None:
        work = getattr(self, "_work", None)
        if work is not None:
            work.cancel()


class Portal:
    """A thread with an event loop, for callers who have none; see `PORTAL`."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin without a thread, as a forked child does."""
        self._lock = threading.RLock()  # a signal handler or a finalizer may call in the middle of a call
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closing: asyncio.Future[None] | None = None

    def call(self, function: Callable[[], Awaitable[T]]) -> T:
        """Carry a coroutine function out, and wait for what it gives: ``PORTAL.call(lambda: agent.chat("Hello"))``.

        A caller who is interrupted meanwhile (Ctrl-C) cancels it, and waits for its end.

        Raises:
            ConfigurationError: the caller stands on the portal's own thread, or the interpreter is ending.
            Cancelled: it was cancelled from outside.
        """
        work = _Work(function)
        try:
            self._begin(work)
            return work.result()
        except BaseException:
            work.end()
            raise

    async def bring(self, function: Callable[[], Awaitable[T]]) -> T:
        """Carry a coroutine function out here, for a caller who awaits in an event loop of their own.

        Raises:
            ConfigurationError: the interpreter is ending.
        """
        if self._loop is running_loop():
            return await function()
        work = _Work(function)
        self._begin(work)
        try:
            return await asyncio.wrap_future(work.outcome)
        except asyncio.CancelledError:
            work.cancel()
            raise

    def iterate(
        self, open_stream: Callable[[], AsyncIterable[Sequence[T]] | Awaitable[AsyncIterable[Sequence[T]]]]
    ) -> SyncStream[T]:
        """Begin a stream of batches, and give it piece by piece.

        Args:
            open_stream: gives the batches, or what gives them when awaited; all is read in one task of the portal.

        Returns:
            The stream, once it was opened: what goes wrong in that is raised here.

        Raises:
            ConfigurationError: as `call`.
        """
        arrived: SimpleQueue[Sequence[T] | None] = SimpleQueue()

        async def read() -> None:
            opened = open_stream()
            stream = await opened if isinstance(opened, Awaitable) else opened
            try:
                arrived.put(())
                async for batch in stream:
                    arrived.put(batch)
            finally:
                await close_stream(stream)

        work = _Work(read)
        try:
            work.when_told(lambda: arrived.put(None))
            stream = SyncStream(work, arrived)
            self._begin(work)
            stream._wait()  # noqa: SLF001  # of one kind with this
        except BaseException:
            work.end()
            raise
        return stream

    def close(self) -> None:
        """End what is under way, the loop and the thread. The next call begins anew."""
        with self._lock:
            loop, thread, closing = self._loop, self._thread, self._closing
            self._loop = self._thread = self._closing = None
        if loop is None or thread is None or closing is None:
            return
        with suppress(RuntimeError):  # the loop has ended by itself
            loop.call_soon_threadsafe(_set, closing)
        if thread is not threading.current_thread():
            thread.join(2 * _ENDS_WITHIN)

    def _begin(self, work: _Work[Any]) -> None:
        with self._lock:  # so that it is begun before the loop can be closed
            loop = self._loop
            if loop is None or loop.is_closed():
                loop = self._started()
            if loop is running_loop():
                msg = (
                    "a sync call was made on the thread that carries sync calls out, so it would wait for itself; in a "
                    "coroutine await the async form (achat, Agent.chat, AsyncToolClient, ...)"
                )
                raise ConfigurationError(msg)
            work.begin(loop)

    def _started(self) -> asyncio.AbstractEventLoop:
        ending = "no sync call can be made any more: the interpreter is ending"
        if sys.is_finalizing():  # a new thread would never begin
            raise ConfigurationError(ending)
        ready: SimpleQueue[asyncio.AbstractEventLoop] = SimpleQueue()
        self._thread = threading.Thread(target=self._serve, args=(ready,), name="plait: portal", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            raise ConfigurationError(ending) from error
        return ready.get()

    def _serve(self, ready: SimpleQueue[asyncio.AbstractEventLoop]) -> None:
        """Let the event loop run until it is to be closed; then what is left is cancelled."""
        with asyncio.Runner() as runner:
            loop = self._loop = runner.get_loop()
            closing = self._closing = loop.create_future()
            ready.put(loop)
            while not closing.done():
                # A task raises these through the loop; its caller is told them, and they are no end for the others.
                with suppress(KeyboardInterrupt, SystemExit):
                    loop.run_until_complete(closing)


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


PORTAL: Final = Portal()
"""The one portal of the process."""

# Before the interpreter ends it waits for the threads of pools, and these may wait for the portal.
getattr(threading, "_register_atexit", atexit.register)(PORTAL.close)
os.register_at_fork(after_in_child=PORTAL.reset)
