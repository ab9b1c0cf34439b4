"""Cases of what must stay small whatever comes: stalls of the event loop, time for twice as much, memory."""

from __future__ import annotations

import asyncio
import gc
import statistics
import tracemalloc
from functools import partial
from typing import TYPE_CHECKING, Final

from benchmarks.clock import Ticker, cost, drained, peak, reset_peak
from benchmarks.server import model_of
from benchmarks.sides import PROMPT, Plait, make_side

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from benchmarks.goals import Raw
    from benchmarks.setting import Setting
    from benchmarks.sides import Side

ANSWER: Final = 10_000_000
_PIECE: Final = 1000
_RESULT: Final = 50_000_000
_CROWD: Final = 1000
_WAIT_MS: Final = 200
_SECONDS: Final = 2.0
"""CPU for finding out how one cost grows."""


async def longest_stall(operation: Callable[[], Awaitable[object]], rounds: int) -> float:
    """Give the longest stall in seconds; of several rounds the middle one, for other programs cause stalls too."""
    longest = []
    for _ in range(rounds):
        gc.collect()
        async with Ticker() as ticker:
            await operation()
        longest.append(ticker.longest)
    return statistics.median(longest)


async def stalls(setting: Setting, sides: Mapping[str, Side]) -> Raw:
    """The longest time that the event loop did not come round, over large answers and many streams."""
    size, rounds = setting.sized(ANSWER), setting.times(5)
    raw: Raw = {}
    for name, side in sides.items():
        whole = side.runner(model_of(size=size, pieces=1))
        streamed = drained(side.streamer(model_of(size=_PIECE, pieces=setting.sized(ANSWER // _PIECE))))
        await side.runner(model_of(words=20))()
        raw[name] = {
            "whole": await longest_stall(whole, rounds),
            "streamed": await longest_stall(streamed, rounds),
            "streams": await longest_stall(partial(many_streams, side, setting), setting.times(3)),
        }
        usual = gc.get_threshold()
        gc.set_threshold(700, 10, 100)  # as the README advises for many runs in one process
        raw[name]["streams_set"] = await longest_stall(partial(many_streams, side, setting), setting.times(3))
        gc.set_threshold(*usual)
    raw["plait"]["result"] = await _large_result(setting, rounds)
    return raw


async def many_streams(side: Side, setting: Setting) -> None:
    """Have 1,000 streams alive at once: begun one after the other, each with a piece every 400 ms."""
    stream = drained(side.streamer(model_of(pieces=setting.sized(10), gap=setting.sized(400))))
    tasks = []
    for _ in range(setting.sized(_CROWD)):
        tasks.append(asyncio.ensure_future(stream()))
        await asyncio.sleep(0.002)
    await asyncio.gather(*tasks)


async def _large_result(setting: Setting, rounds: int) -> float:
    """Have a tool return 50 MB: as a text, and as a list of records; give the longer stall."""
    size = setting.sized(_RESULT)
    text = "x" * size
    records = [{"name": "Lisbon", "people": 545_796}] * (size // 40)
    returned: list[object] = []

    async def fetch(x: int) -> object:
        """Fetch everything.

        Args:
            x: what is not used
        """
        return returned[x]

    agent = Plait(setting.base_url).agent(model_of(calls=1), (fetch,))

    async def ask() -> None:
        agent.new_thread()
        await agent.chat(PROMPT)

    stalled = []
    for value in (text, records):
        returned[:] = [value]
        stalled.append(await longest_stall(ask, rounds))
    return max(stalled)


async def linear(setting: Setting, sides: Mapping[str, Side]) -> Raw:
    """CPU of twice as much divided by CPU of as much: 2 if time is linear, 4 if it is quadratic."""
    pieces, size = setting.sized(20_000, least=100), setting.sized(ANSWER, least=80_000)
    raw: Raw = {}
    for name, side in sides.items():
        streams = [drained(side.streamer(model_of(pieces=n))) for n in (pieces, 2 * pieces)]
        # Where memory comes from changes with the size, in steps: so the mean of three doublings.
        answers = [side.runner(model_of(size=n)) for n in (size // 8, size)]
        raw[name] = {"events": await _growth(setting, streams), "bytes": await _growth(setting, answers, 3)}

    async def keep(x: str) -> str:
        """Keep a text.

        Args:
            x: the text
        """
        return f"kept {len(x)} characters"

    def streamed(count: int) -> Callable[[], Awaitable[object]]:
        agent = Plait(setting.base_url).agent(model_of(calls=1, arguments=count), (keep,))

        async def ask() -> None:
            agent.new_thread()
            async for _ in agent.stream(PROMPT):
                pass

        return ask

    raw["plait"]["arguments"] = await _growth(setting, [streamed(pieces), streamed(2 * pieces)])
    return raw


async def _growth(setting: Setting, operations: Sequence[Callable[[], Awaitable[object]]], doublings: int = 1) -> float:
    """Give how many times the CPU one doubling takes, from an operation and one that is doubled so many times."""
    times = [float("inf")] * len(operations)
    took = 0.0
    for operation in operations:
        await operation()
        took += await cost(operation)
    for _ in range(setting.times(max(6, min(100, round(_SECONDS / took))))):
        for number, operation in enumerate(operations):
            times[number] = min(times[number], await cost(operation))
    growth: float = (times[1] / times[0]) ** (1 / doublings)
    return growth


async def answer_memory(setting: Setting, sides: Mapping[str, Side]) -> Raw:
    """The most memory that Python had allocated over an answer of 10 MB, in times of its size."""
    size = setting.sized(ANSWER // _PIECE) * _PIECE
    raw: Raw = {}
    for name, side in sides.items():
        await side.runner(model_of(words=20))()
        await drained(side.streamer(model_of(pieces=20)))()
        raw[name] = {
            "whole": await _allocated(side.runner(model_of(size=size, pieces=1))) / size,
            "streamed": await _allocated(drained(side.streamer(model_of(size=_PIECE, pieces=size // _PIECE)))) / size,
        }
    return raw


async def _allocated(operation: Callable[[], Awaitable[object]]) -> int:
    gc.collect()
    tracemalloc.start()
    try:
        await operation()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def crowd(setting: Setting, names: Sequence[str]) -> Raw:
    """1,000 runs at once, CPU of each: each round with an event loop and connections of its own."""
    least = dict.fromkeys(names, float("inf"))
    order = list(names)
    for _ in range(setting.times(8)):
        for name in order:
            least[name] = min(least[name], asyncio.run(_crowd(setting, name, _cpu_a_run)))
        order.reverse()
    return {name: {"crowd": value} for name, value in least.items()}


def crowd_memory(setting: Setting, names: Sequence[str]) -> Raw:
    """1,000 runs at once, the growth of this process in bytes for each. Needs a process for each side."""
    return {name: {"crowd": asyncio.run(_crowd(setting, name, _bytes_a_run))} for name in names}


async def _crowd(
    setting: Setting, name: str, measure: Callable[[Callable[[], Awaitable[object]], int], Awaitable[float]]
) -> float:
    side = make_side(name, setting.base_url)
    count = setting.sized(_CROWD)
    run = side.runner(model_of(words=20, wait=_WAIT_MS))

    async def all_at_once() -> None:
        await asyncio.gather(*(run() for _ in range(count)))

    try:
        await run()
        return await measure(all_at_once, count)
    finally:
        await side.close()


async def _cpu_a_run(operation: Callable[[], Awaitable[object]], count: int) -> float:
    return await cost(operation) / count


async def _bytes_a_run(operation: Callable[[], Awaitable[object]], count: int) -> float:
    before = reset_peak()
    await operation()
    return max(0, peak() - before) / count
