"""Ending a run from outside: a stop signal, a function that is asked, an interrupting second prompt, or the deadline.

Knows tasks and signals, and nothing of what is stopped.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Self

from plait.driving import CancelledItself, TimeUp, drive
from plait.errors import ConfigurationError
from plait.run import RunContext, StopPoll, StopSignal
from plait.signatures import function_name, plain_function
from plait.workers import ASKERS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from plait.events import StopReason

logger = logging.getLogger("plait.run")


_LEAST_TIME: Final = 1.0  # seconds that an async function has to answer, and a cancelled one to end


_NOBODY: Final = RunContext(deps=None)


class Guard:
    """Surrounds what may be stopped: a stop signal or the deadline cancels what the task waits for inside.

    As `asyncio.timeout` does, it takes back the cancellation it made itself, and lets every other pass. After the
    block, ``stopped`` says why it was left early; whatever fires later reaches nobody. Enter it in the task that
    drives the run.

    Args:
        stop: the caller's signal, or the function to ask, if any.
        deadline: seconds from now, if any.
        context: of the run, for a function that declares something of it.
        stopped: why it is to be left at once, if it is.

    Attributes:
        stopped: the reason, when the block was ended from outside; else None.
    """

    __slots__ = (
        "_armed",
        "_at_once",
        "_base",
        "_context",
        "_deadline",
        "_failure",
        "_fired",
        "_loop",
        "_stop",
        "_task",
        "_undo",
        "_watcher",
        "stopped",
    )

    def __init__(
        self,
        stop: StopSignal | StopPoll | asyncio.Event | None,
        deadline: float | None,
        context: RunContext[Any] = _NOBODY,
        stopped: StopReason | None = None,
    ) -> None:
        self.stopped: StopReason | None = None
        self._stop = stop
        self._deadline = deadline
        self._context = context
        self._at_once = stopped
        self._armed = False
        self._fired: StopReason | None = None
        self._failure: ConfigurationError | None = None
        self._undo: tuple[Callable[[], object], ...] = ()
        self._watcher: asyncio.Task[object] | None = None

    async def __aenter__(self) -> Self:
        loop = self._loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        if task is None:
            msg = "a run must be driven from a task of the event loop"
            raise RuntimeError(msg)
        self._task, self._base, self._armed = task, task.cancelling(), True
        if self._at_once is not None:
            self._fire(self._at_once)
        elif isinstance(self._stop, StopSignal | asyncio.Event) and self._stop.is_set():
            self._fire()
        elif isinstance(self._stop, StopSignal):
            self._undo += (self._stop.on_set(self._fire),)
        elif self._stop is not None:
            stop = self._stop
            work = _asked(stop, self._context) if isinstance(stop, StopPoll) else stop.wait()
            watcher = self._watcher = loop.create_task(work, name="plait: stop watcher", context=Context())
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
        if self._fired is None and not self._undo:  # most runs have nothing that could stop them
            return False
        for undo in self._undo:
            undo()
        try:
            return await self._left(kind)
        finally:
            if self._watcher is not None:  # no task outlives the run
                await asyncio.wait({self._watcher}, timeout=_LEAST_TIME)

    async def _left(self, kind: type[BaseException] | None) -> bool:
        """Take back our own cancellation; say whether it was what the block was left by."""
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


async def _asked(poll: StopPoll, context: RunContext[Any]) -> None:
    """Ask a function whether to stop, again and again, until it says yes."""
    values = {"user_id": context.user_id, "chat_id": context.chat_id}
    ask = partial(poll.function, **{name: values[name] for name in poll.told})
    is_async = inspect.iscoroutinefunction(plain_function(poll.function))
    failed = False
    while True:
        try:
            answer = ask() if is_async else await ASKERS.run(ask)
            if inspect.isawaitable(answer):
                answer = await drive(_awaited(answer), max(poll.every, _LEAST_TIME))
            if answer:
                return
        except (Exception, CancelledItself, TimeUp) as error:  # foreign code, asked again
            if not failed:
                failed = True
                name = function_name(poll.function)
                logger.warning("the function %s, which says whether to stop, failed: %s", name, type(error).__name__)
                logger.debug("the first failure of %s", name, exc_info=error)
        await asyncio.sleep(poll.every)


async def _awaited(answer: Awaitable[bool]) -> bool:
    return await answer
