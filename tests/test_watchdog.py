from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading

import pytest

from plait.errands import Errands
from plait.watchdog import Watchdog

WITHIN = 10


def watchdogs() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if "watchdog" in thread.name]


@pytest.mark.fault("T04")
def test_the_thread_ends_when_the_event_loop_was_closed_under_a_run() -> None:
    async def begin_a_run() -> Errands:
        return Errands(watched=True)

    loop = asyncio.new_event_loop()
    errands = loop.run_until_complete(begin_a_run())
    (thread,) = watchdogs()
    loop.close()
    thread.join(WITHIN)
    assert not thread.is_alive()
    asyncio.run(errands.end())  # and the run may still end
    assert watchdogs() == []


def test_a_loop_that_is_watched_keeps_the_thread_when_another_is_closed() -> None:
    watchdog = Watchdog()
    kept, closed = asyncio.new_event_loop(), asyncio.new_event_loop()
    for loop in (kept, closed):
        watchdog.watch(loop, lambda _: None)
    (thread,) = watchdogs()
    closed.close()
    kept.run_until_complete(asyncio.sleep(0.12))  # more than two beats
    assert watchdogs() == [thread]
    watchdog.leave(closed)
    watchdog.leave(kept)
    assert watchdogs() == []
    kept.close()


FORKING = """
import asyncio, os, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: forking with threads, which is what is tried here
from plait.errands import Errands

async def main():
    errands = Errands(watched=True)
    child = os.fork()
    await errands.end()
    if child:
        assert os.waitpid(child, 0)[1] == 0

asyncio.run(main())
print("ended", flush=True)
"""


@pytest.mark.fault("C11")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_run_ends_in_a_child_that_was_forked_within_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKING], capture_output=True, text=True, timeout=WITHIN * 2, check=False
    )
    assert (done.stdout, done.stderr, done.returncode) == ("ended\n" * 2, "", 0)
