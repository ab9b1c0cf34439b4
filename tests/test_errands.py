from __future__ import annotations

import asyncio
import gc
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from weakref import ref

import pytest

from plait.errands import _MOST, Errands

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

MANY = 3000
"""So many tasks cannot be looked through in a fifth of a millisecond."""


async def ends_at_once(work: Callable[[], Awaitable[object]]) -> bool:
    """Do a tool's work in an errand, and say whether the run's end waits for nothing."""
    errands = Errands()
    errand = errands.begin("work", "run_1")
    await work()
    errands.finish(errand)
    rounds: list[int] = []
    asyncio.get_running_loop().call_soon(rounds.append, 1)
    await errands.end()
    return not rounds


@asynccontextmanager
async def many_tasks() -> AsyncIterator[None]:
    """Have many tasks that have nothing to do with any run."""
    tasks = [asyncio.create_task(asyncio.Event().wait()) for _ in range(MANY)]
    await asyncio.sleep(0)
    yield
    assert not any(task.done() for task in tasks)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


@pytest.mark.fault("T10")
async def test_a_run_whose_tool_used_a_time_out_ends_at_once_among_many_tasks() -> None:
    async def with_a_time_out() -> None:
        async with asyncio.timeout(60):
            await asyncio.sleep(0)

    async with many_tasks():
        assert await ends_at_once(with_a_time_out)
        assert await ends_at_once(with_a_time_out)


@pytest.mark.fault("T10")
async def test_the_first_run_for_a_while_that_left_something_ends_at_once_among_many_tasks() -> None:
    kept: list[asyncio.TimerHandle] = []

    async def with_a_timer() -> None:
        kept.append(asyncio.get_running_loop().call_later(60, kept.clear))

    async with many_tasks():
        assert await ends_at_once(with_a_timer)
        await asyncio.sleep(_MOST)
        assert await ends_at_once(with_a_timer)


@pytest.mark.fault("T10")
async def test_a_timer_that_a_tool_leaves_is_still_called() -> None:
    called: list[str] = []

    async def with_timers() -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(60, called.append, "cancelled").cancel()
        loop.call_later(0.01, called.append, "called")

    async with many_tasks(), asyncio.timeout(10):
        for _ in range(2):
            await ends_at_once(with_timers)
        while len(called) < 2:  # noqa: ASYNC110  # no event tells of it
            await asyncio.sleep(0.001)
    assert called == ["called"] * 2


@pytest.mark.fault("T10")
def test_an_event_loop_in_which_something_was_left_is_not_kept() -> None:
    loops: list[ref[asyncio.AbstractEventLoop]] = []

    async def run() -> None:
        kept: list[asyncio.Task[object]] = []
        loops.append(ref(asyncio.get_running_loop()))

        async def begin() -> None:
            kept.append(asyncio.create_task(asyncio.Event().wait()))

        await ends_at_once(begin)

    for _ in range(3):
        asyncio.run(run())
    gc.collect()
    assert [loop() for loop in loops] == [None] * 3
