from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import pytest

from faults.aftermath import until
from plait.errors import LimitExceeded
from plait.workers import Workers

WITHIN = 10


async def test_the_value_or_the_exception_comes_back() -> None:
    workers = Workers()
    assert await workers.run(lambda: 3) == 3

    def fail() -> None:
        raise KeyError(1)

    with pytest.raises(KeyError, match="1"):
        await workers.run(fail)


async def test_threads_are_used_again_and_never_more_than_allowed() -> None:
    workers = Workers(most=2)
    running: list[int] = []
    most = 0
    lock = threading.Lock()

    def work() -> int:
        nonlocal most
        with lock:
            running.append(1)
            most = max(most, len(running))
        threading.Event().wait(0.001)
        with lock:
            running.pop()
        return threading.get_ident()

    async with asyncio.timeout(WITHIN):
        threads = await asyncio.gather(*(workers.run(work) for _ in range(20)))
    assert len(set(threads)) <= 2
    assert most <= 2


async def test_a_function_that_is_left_holds_no_place_and_is_counted_until_it_ends() -> None:
    workers = Workers(most=1, most_left=1)
    begun, go, over = threading.Event(), threading.Event(), threading.Event()

    def hang() -> None:
        begun.set()
        go.wait(WITHIN)
        over.set()

    task = asyncio.create_task(workers.run(hang))
    async with asyncio.timeout(WITHIN):
        assert await asyncio.to_thread(begun.wait, WITHIN)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert workers.left == 1
        with pytest.raises(LimitExceeded, match="1 blocking functions did not come back"):
            await workers.run(lambda: 3)
        go.set()
        while workers.left:  # noqa: ASYNC110  # a thread ends without telling anybody
            await asyncio.sleep(0.001)
        assert over.is_set()
        assert await workers.run(lambda: 3) == 3


async def test_another_thread_takes_the_place_of_one_that_was_left() -> None:
    workers = Workers(most=1, most_left=8)
    begun, go = threading.Event(), threading.Event()

    def hang() -> None:
        begun.set()
        go.wait(WITHIN)

    hanging = asyncio.create_task(workers.run(hang))
    async with asyncio.timeout(WITHIN):
        assert await asyncio.to_thread(begun.wait, WITHIN)
        waiting = asyncio.create_task(workers.run(lambda: 3))
        await asyncio.sleep(0)
        hanging.cancel()
        assert await waiting == 3
    go.set()


async def test_a_thread_that_comes_back_when_its_place_is_taken_loses_no_function() -> None:
    workers = Workers(most=1)
    begun, first, second = threading.Event(), threading.Event(), threading.Event()

    def hang() -> None:
        begun.set()
        first.wait(WITHIN)

    async with asyncio.timeout(WITHIN):
        left = asyncio.create_task(workers.run(hang))
        assert await asyncio.to_thread(begun.wait, WITHIN)
        left.cancel()
        await asyncio.wait([left])
        in_its_place = asyncio.create_task(workers.run(lambda: second.wait(WITHIN)))
        await asyncio.sleep(0)
        first.set()
        await until(lambda: not workers.left)
        waiting = asyncio.create_task(workers.run(lambda: 3))
        await asyncio.sleep(0.01)
        second.set()
        assert await in_its_place
        assert await waiting == 3


async def test_a_function_that_has_not_begun_never_begins() -> None:
    workers = Workers(most=1)
    go = threading.Event()
    ran: list[int] = []
    first = asyncio.create_task(workers.run(lambda: go.wait(WITHIN)))
    await asyncio.sleep(0)
    second = asyncio.create_task(workers.run(lambda: ran.append(1)))
    await asyncio.sleep(0)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    go.set()
    async with asyncio.timeout(WITHIN):
        assert await first is True
        assert await workers.run(lambda: 3) == 3
    assert (ran, workers.left) == ([], 0)


def test_a_function_that_hangs_does_not_keep_the_interpreter_from_ending() -> None:
    code = (
        "import asyncio, threading\n"
        "from plait.workers import Workers\n"
        "async def main():\n"
        "    try:\n"
        "        async with asyncio.timeout(0.05):\n"
        "            await Workers().run(threading.Event().wait)\n"
        "    except TimeoutError:\n"
        "        print('left')\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        timeout=30,
        check=True,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    assert done.stdout == "left\n"
