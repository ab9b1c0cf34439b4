"""What may be left behind: tasks, threads, sockets and files of this process. Linux tells of the last two."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def descriptors() -> Counter[str]:
    """Count what is open, by what it is: the path of a file, or ``socket``, ``pipe`` or the like."""
    found: Counter[str] = Counter()
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the one that reads this folder is gone by now
            path = str(link.readlink())
            found[path.partition(":")[0] if not path.startswith("/") else path] += 1
    return found


async def tasks_left(before: set[asyncio.Task[object]], seconds: float) -> list[str]:
    """Wait until no task is left but those of before and the caller's; name those that are there in the end."""
    deadline = time.monotonic() + seconds
    while True:
        left = asyncio.all_tasks() - before - {asyncio.current_task()}
        if not left or time.monotonic() > deadline:
            return sorted(task.get_name() for task in left)
        await asyncio.sleep(0.001)  # not 0, which would keep a store's threads from the interpreter


async def soon(true: Callable[[], bool], seconds: float) -> bool:
    """Wait, at most so long, until something is true; say whether it is."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.001)
    return True


def threads_left(before: set[threading.Thread], seconds: float) -> list[str]:
    """Wait until no thread is left but those of before; name those that are there in the end."""
    deadline = time.monotonic() + seconds
    while True:
        left = set(threading.enumerate()) - before
        if not left or time.monotonic() > deadline:
            return sorted(thread.name for thread in left)
        time.sleep(0.01)
