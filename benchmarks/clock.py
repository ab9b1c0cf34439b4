"""How cost is measured so that it can be measured again: CPU of this process, sides by turns, the least of many rounds.

Other programs on the machine only ever add to a figure (they empty the caches, and slow the clock down), so the least
of many short rounds is nearest to what the code costs; and because the sides take turns, all have the same chances.
"""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping


def pin(role: Literal["client", "server"]) -> None:
    """Keep this process on one CPU, client and server on different ones, where there are two."""
    with suppress(AttributeError, OSError):  # not on macOS
        cpus = sorted(os.sched_getaffinity(0))
        if len(cpus) > 1:
            os.sched_setaffinity(0, {cpus[-1] if role == "client" else cpus[0]})


def raise_file_limit() -> None:
    """Allow as many connections as the system lets this process have."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def settle() -> None:
    """Set aside what is in memory, so that garbage collections in a round see only what the round made."""
    gc.collect()
    gc.freeze()


async def cost(operation: Callable[[], Awaitable[object]], times: int = 1) -> float:
    """Give the CPU seconds, user and system, of doing something so many times, for each time.

    What is done many times is done twice before the clock runs: a garbage collection, and the other side's turn, leave
    nothing of this side's in the caches of the CPU, which no program sees that does one thing all the time.
    """
    gc.collect()
    for _ in range(2 if times > 1 else 0):
        await operation()
    began = time.process_time()
    for _ in range(times):
        await operation()
    return (time.process_time() - began) / times


async def race(
    operations: Mapping[str, Callable[[], Awaitable[object]]], *, rounds: int, seconds: float, most: int = 1000
) -> dict[str, float]:
    """Give the least CPU seconds that one operation took, for each side; the sides take turns.

    Args:
        operations: what each side does.
        rounds: how many times each side has its turn.
        seconds: about how much CPU one turn takes: that decides how many operations it has.
        most: the most operations of a turn.
    """
    times = {}
    for name, operation in operations.items():
        await cost(operation, 3)
        times[name] = max(1, min(most, round(seconds / max(1e-6, await cost(operation, 3)))))
    settle()
    least = dict.fromkeys(operations, float("inf"))
    order = list(operations)
    for _ in range(rounds):
        for name in order:
            least[name] = min(least[name], await cost(operations[name], times[name]))
        order.reverse()
    gc.unfreeze()
    return least


def drained(stream: Callable[[], AsyncIterator[str]]) -> Callable[[], Awaitable[object]]:
    """Give the operation that reads a stream to its end."""

    async def drain() -> None:
        async for _ in stream():
            pass

    return drain


def reset_peak() -> int:
    """Forget the most memory this process had so far, where the system can; give what it has now, in bytes."""
    gc.collect()
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # man 5 proc_pid_clear_refs
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()
    except OSError:
        return peak()


def peak() -> int:
    """Give the most memory this process had since `reset_peak`, in bytes."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Ticker:
    """Notes the longest time that the event loop did not come round: ``async with Ticker() as ticker``.

    Attributes:
        longest: seconds by the clock on the wall, beyond the pause it asked for.
    """

    _PAUSE = 0.001

    def __init__(self) -> None:
        self.longest = 0.0
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Ticker:  # noqa: PYI034  # typing.Self would be no shorter
        self._task = asyncio.create_task(self._tick())
        await asyncio.sleep(2 * self._PAUSE)
        self.longest = 0.0
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.sleep(2 * self._PAUSE)  # so that a stall at the very end is seen
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _tick(self) -> None:
        last = time.perf_counter()
        while True:
            await asyncio.sleep(self._PAUSE)
            now = time.perf_counter()
            self.longest = max(self.longest, now - last - self._PAUSE)
            last = now
