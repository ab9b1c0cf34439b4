"""A watchdog for event loops: it reports what blocks one, while somebody asks for it. For debugging.

A thread asks each watched loop for a sign of life. When there is none it looks where the loop's thread is. Knows
nothing of tools: who is at work is for the caller to say.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

BLOCKED_SECONDS: Final = 0.25
"""An event loop that gives no sign of life for so long is blocked."""
_BEAT_SECONDS: Final = 0.05

_log = logging.getLogger("plait.tools")


class _Watched:
    """An event loop, how many asked to have it watched, and the last sign of life that was asked of it."""

    __slots__ = ("alive", "asked_at", "loop", "told", "users", "who", "work")

    def __init__(self, loop: asyncio.AbstractEventLoop, who: Callable[[asyncio.Task[Any]], str | None]) -> None:
        self.loop = loop
        self.who = who
        self.work = threading.get_ident()
        self.users = 0
        self.alive = True
        self.told = False
        self.asked_at = 0.0

    def answer(self) -> None:
        self.alive = True

    def look(self) -> None:
        if self.alive:
            self.alive, self.told, self.asked_at = False, False, monotonic()
            with suppress(RuntimeError):  # the loop was closed
                self.loop.call_soon_threadsafe(self.answer)
        elif not self.told and monotonic() - self.asked_at > BLOCKED_SECONDS:
            self.told = self._report()

    def _report(self) -> bool:
        """Say who blocks the loop, and where; False if that is nobody we were asked about."""
        task = asyncio.current_task(self.loop)
        frame = sys._current_frames().get(self.work)  # noqa: SLF001  # the documented way to another thread's stack
        who = None if task is None else self.who(task)
        if who is None or frame is None:
            return False
        seconds = monotonic() - self.asked_at
        _log.warning("%s has blocked the event loop for %.2f s, at %s", who, seconds, _where(frame))
        return True


class Watchdog:
    """Watches event loops with one thread, which is there only while there is something to watch."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin anew, as a forked child does."""
        self._lock = threading.Lock()
        self._watched: dict[asyncio.AbstractEventLoop, _Watched] = {}
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()

    def watch(self, loop: asyncio.AbstractEventLoop, who: Callable[[asyncio.Task[Any]], str | None]) -> None:
        """Watch the event loop that runs in this thread, until `leave` was called as often as this.

        Args:
            loop: the event loop.
            who: says what a task of it works for, from another thread; None for what is not to be reported.
        """
        with self._lock:
            watched = self._watched.get(loop)
            if watched is None:
                watched = _Watched(loop, who)
                self._watched = {**self._watched, loop: watched}
            watched.users += 1
            if self._thread is None:
                self._ended = threading.Event()
                work = (self._ended,)
                self._thread = threading.Thread(target=self._guard, args=work, name="plait: watchdog", daemon=True)
                self._thread.start()

    def leave(self, loop: asyncio.AbstractEventLoop) -> None:
        """Watch the event loop for one less; for the last one the thread ends.

        Nothing happens when it is not watched: in a child that was forked while it was, or when it has been closed.
        """
        with self._lock:
            watched = self._watched.get(loop)
            if watched is None:
                return
            watched.users -= 1
            if not watched.users:
                self._watched = {other: kept for other, kept in self._watched.items() if other is not loop}
            if self._watched or self._thread is None:
                return
            thread, self._thread = self._thread, None
            self._ended.set()
        thread.join()

    def _guard(self, ended: threading.Event) -> None:
        while not ended.wait(_BEAT_SECONDS):
            for watched in self._watched.values():
                watched.look()
            self._forget_closed(ended)

    def _forget_closed(self, ended: threading.Event) -> None:
        """Let go of event loops that were closed under a run, which will not leave; without others the thread ends."""
        with self._lock:
            if not ended.is_set() and any(loop.is_closed() for loop in self._watched):
                self._watched = {loop: kept for loop, kept in self._watched.items() if not loop.is_closed()}
                if not self._watched:
                    self._thread = None
                    ended.set()


def _where(frame: FrameType) -> str:
    """Give the place where a thread is; and, where that is in some library, the place it was called from."""
    line = f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"
    own: FrameType = frame
    outer = frame.f_back
    while outer is not None and not _is_machinery(outer):
        own, outer = outer, outer.f_back
    if own is frame:
        return line
    return f"{line}, called from {own.f_code.co_filename}:{own.f_lineno} in {own.f_code.co_name}"


def _is_machinery(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0] in {"plait", "asyncio"}


WATCHDOG: Final = Watchdog()
os.register_at_fork(after_in_child=WATCHDOG.reset)
