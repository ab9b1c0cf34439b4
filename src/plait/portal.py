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
import os
import threading
from collections import deque
from collections.abc import Awaitable
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final, Generic, Self, TypeVar

from plait.errors import Cancelled, ConfigurationError
from plait.scopes import GRACE, Scope, current_scope, running_loop

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable, Sequence

T = TypeVar("T")

_ENDS_WITHIN: Final = 3 * GRACE
"""Seconds that what was cancelled may take to clean up before its caller goes on without it."""

_LEFT_BEHIND: Final = "a sync call was made on the thread that carries sync calls out, so it would wait for itself"


class _Work(Generic[T]):
    """One coroutine that the portal carries out for one caller, with a copy of the caller's context variables."""

    __slots__ = ("_function", "_loop", "_outcome", "_task", "ended")

    def __init__(self, function: Callable[[], Awaitable[T]], loop: asyncio.AbstractEventLoop) -> None:
        self.ended = threading.Event()
        self._function = function
        self._loop = loop
        self._outcome: Future[T] = Future()
        self._task: asyncio.Task[None] | None = None
        self._outcome.add_done_callback(self._told)
        loop.call_soon_threadsafe(self._begin)
        scope = current_scope()
        if scope is not None and scope.loop is not None and scope.loop is not loop:
            # Whoever calls from a sync tool belongs to a run of another event loop, and this ends with that run.
            scope.loop.call_soon_threadsafe(self._join, scope)

    def result(self) -> T:
        """Wait for what comes of it. A caller who is interrupted meanwhile (Ctrl-C) cancels it, and waits for its end.

        Raises:
            Cancelled: it was cancelled, by the portal's end or by the run that the caller is part of.
        """
        try:
            return self._outcome.result()
        except CancelledError:
            self.ended.wait(_ENDS_WITHIN)
            msg = "a sync call was cancelled before it had its answer"
            raise Cancelled(msg) from None
        finally:
            if not self._outcome.done():
                self.cancel()
                self.ended.wait(_ENDS_WITHIN)
            del self  # an error's traceback keeps this frame

    def cancel(self) -> None:
        """End it, from any thread."""
        self._outcome.cancel()

    def when_told(self, callback: Callable[[], object]) -> None:
        """Call back, in any thread, once it is known what came of it."""
        self._outcome.add_done_callback(lambda _: callback())

    def _begin(self) -> None:
        self._task = self._loop.create_task(self._carry_out(), name="plait: sync call")
        self._task.add_done_callback(self._task_ended)
        if self._outcome.cancelled():
            self._task.cancel()

    async def _carry_out(self) -> None:
        try:
            whole = await self._function()
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001  # raised again in the caller's thread; here it would end the loop
            self._tell(error=error)
        else:
            self._tell(whole)

    def _tell(self, whole: Any = None, error: BaseException | None = None) -> None:
        with suppress(Exception):  # the caller has left, perhaps just now
            if error is None:
                self._outcome.set_result(whole)
            else:
                self._outcome.set_exception(error)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        self.ended.set()
        if task.cancelled():
            self._outcome.cancel()

    def _told(self, outcome: Future[T]) -> None:
        if outcome.cancelled() and not self.ended.is_set():
            with suppress(RuntimeError):  # the loop is closed, and the task with it
                self._loop.call_soon_threadsafe(self._cancel_task)

    def _cancel_task(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _join(self, scope: Scope) -> None:
        """Let the scope own a task of its own event loop that lasts as long as this, and cancels it."""

        async def stand_in() -> None:
            with suppress(asyncio.CancelledError, Exception):
                await asyncio.wrap_future(self._outcome)

        scope.adopt(asyncio.ensure_future(stand_in()))


class SyncStream(Generic[T]):
    """Pieces of a stream, for a sync reader: ``for piece in stream``.

    Leaving it early ends what produces it: by dropping it, by `close`, or by leaving ``with stream:``.
    """

    __slots__ = ("_arrived", "_ready", "_work")

    def __init__(
        self,
        open_stream: Callable[[], AsyncIterable[Sequence[T]] | Awaitable[AsyncIterable[Sequence[T]]]],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._ready: deque[T] = deque()
        arrived: SimpleQueue[Sequence[T] | None] = SimpleQueue()
        self._arrived = arrived

        async def read() -> None:
            opened = open_stream()
            async for batch in await opened if isinstance(opened, Awaitable) else opened:
                arrived.put(batch)

        self._work: _Work[None] | None = _Work(read, loop)
        self._work.when_told(partial(arrived.put, None))

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        if not self._ready and not self.begin():
            raise StopIteration
        return self._ready.popleft()

    def begin(self) -> bool:
        """Wait until there is a piece to read; False when no more will come.

        Raises:
            PlaitError: the stream failed.
        """
        try:
            while not self._ready and self._work is not None:
                batch = self._arrived.get()
                if batch is None:
                    work, self._work = self._work, None
                    work.result()
                else:
                    self._ready.extend(batch)
        except BaseException:
            self.close()
            raise
        return bool(self._ready)

    def close(self) -> None:
        """End the stream, and wait until it ended. What was not read is dropped."""
        work, self._work = self._work, None
        self._ready.clear()
        if work is not None:
            work.cancel()
            work.ended.wait(_ENDS_WITHIN)

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
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closing: asyncio.Event | None = None

    def call(self, function: Callable[[], Awaitable[T]]) -> T:
        """Carry a coroutine function out, and wait for what it gives: ``PORTAL.call(lambda: agent.chat("Hello"))``.

        Raises:
            ConfigurationError: the caller stands on the portal's own thread.
            Cancelled: it was cancelled from outside.
        """
        return _Work(function, self._loop_for_caller()).result()

    def iterate(
        self, open_stream: Callable[[], AsyncIterable[Sequence[T]] | Awaitable[AsyncIterable[Sequence[T]]]]
    ) -> SyncStream[T]:
        """Begin a stream of batches, and give it piece by piece.

        Args:
            open_stream: gives the batches, or what gives them when awaited; all is read in one task of the portal.

        Raises:
            ConfigurationError: the caller stands on the portal's own thread.
        """
        return SyncStream(open_stream, self._loop_for_caller())

    def close(self) -> None:
        """End what is under way, the loop and the thread. The next call begins anew."""
        with self._lock:
            loop, thread, closing = self._loop, self._thread, self._closing
            self._loop = self._thread = self._closing = None
        if loop is None or thread is None or closing is None:
            return
        with suppress(RuntimeError):  # the loop has ended by itself
            loop.call_soon_threadsafe(closing.set)
        if thread is not threading.current_thread():
            thread.join(2 * _ENDS_WITHIN)

    def _loop_for_caller(self) -> asyncio.AbstractEventLoop:
        loop = self._loop
        if loop is not None and loop is running_loop():
            msg = f"{_LEFT_BEHIND}; in a coroutine await the async form (achat, Agent.chat, AsyncToolClient, ...)"
            raise ConfigurationError(msg)
        return self._started() if loop is None else loop

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                ready: SimpleQueue[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = SimpleQueue()
                thread = threading.Thread(target=asyncio.run, args=(_serve(ready),), name="plait: portal", daemon=True)
                thread.start()
                self._thread = thread
                self._loop, self._closing = ready.get()
            return self._loop


async def _serve(ready: SimpleQueue[tuple[asyncio.AbstractEventLoop, asyncio.Event]]) -> None:
    """Let the event loop run until it is to be closed; `asyncio.run` then cancels what is left, and closes it."""
    closing = asyncio.Event()
    ready.put((asyncio.get_running_loop(), closing))
    await closing.wait()


PORTAL: Final = Portal()
"""The one portal of the process."""

atexit.register(PORTAL.close)
os.register_at_fork(after_in_child=PORTAL.reset)
