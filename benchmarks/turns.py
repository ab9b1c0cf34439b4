"""Cases of single runs, tool turns and streams: CPU of the client, each side by turns on one event loop."""

from __future__ import annotations

import gc
import statistics
import time
from functools import partial
from typing import TYPE_CHECKING, Final

from benchmarks.clock import cost, drained, race, settle
from benchmarks.dialects import DIALECTS
from benchmarks.server import model_of
from benchmarks.sides import Plait

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from benchmarks.dialects import Dialect
    from benchmarks.goals import Raw
    from benchmarks.setting import Setting
    from benchmarks.sides import Side, Talker

_TURN: Final = 0.004
"""CPU seconds of a side's turn: so short that a change in the machine's speed meets both sides."""
_TURNS: Final = 400

LONG: Final = 2000
SHORT: Final = 20
_PACED: Final = 300
WINDOW: Final = 8_000
_AROUND: Final = 20
"""Turns whose mean stands for one."""


def _named(name: str, times: Mapping[str, float]) -> Raw:
    return {side: {name: value} for side, value in times.items()}


async def run(setting: Setting, sides: Mapping[str, Side]) -> Raw:
    """One question, one answer of 20 words."""
    jobs = {name: side.runner(model_of(words=20)) for name, side in sides.items()}
    return _named("run", await race(jobs, rounds=setting.times(_TURNS), seconds=_TURN))


async def tools(setting: Setting, sides: Mapping[str, Side]) -> Raw:
    """A question, three calls of tools at once, and the answer: two requests."""
    jobs = {name: side.runner(model_of(calls=3), tools=True) for name, side in sides.items()}
    return _named("tools", await race(jobs, rounds=setting.times(_TURNS), seconds=_TURN))


async def structured(setting: Setting, sides: Mapping[str, Side]) -> Raw:
    """An answer that is a pydantic model."""
    jobs = {name: side.runner(model_of(form=1), form=True) for name, side in sides.items()}
    return _named("structured", await race(jobs, rounds=setting.times(_TURNS), seconds=_TURN))


async def burst(setting: Setting, sides: Mapping[str, Side]) -> Raw:
    """A stream that comes all at once: the price of a chunk is the slope between a long and a short stream."""
    short, pieces = await _short(setting, sides), setting.sized(LONG, least=2 * SHORT)
    jobs = {name: drained(side.streamer(model_of(pieces=pieces))) for name, side in sides.items()}
    long = await race(jobs, rounds=setting.times(120), seconds=_TURN)
    return {name: {"short": short[name], "chunk": (long[name] - short[name]) / (pieces - SHORT)} for name in sides}


async def hooks(setting: Setting, sides: Mapping[str, Side]) -> Raw:
    """An answer of 20 streamed pieces, and a tool turn, with a hook of every name; the floor has none.

    The hook for tokens makes answers stream, so the floor drains a stream, too.
    """
    answers, calls = {}, {}
    for name, side in sides.items():
        watched = side.hooked() if isinstance(side, Plait) else side
        short = model_of(pieces=SHORT)
        answers[name] = watched.runner(short) if isinstance(side, Plait) else drained(side.streamer(short))
        calls[name] = watched.runner(model_of(calls=3), tools=True)
    answer = await race(answers, rounds=setting.times(_TURNS), seconds=_TURN)
    turn = await race(calls, rounds=setting.times(_TURNS), seconds=_TURN)
    return {name: {"answer": answer[name], "turn": turn[name]} for name in sides}


async def paced(setting: Setting, sides: Mapping[str, Side]) -> Raw:
    """A stream whose chunks come 1 ms apart: each wakes the event loop."""
    short, pieces = await _short(setting, sides), setting.sized(_PACED, least=2 * SHORT)
    jobs = {name: drained(side.streamer(model_of(pieces=pieces, gap=1))) for name, side in sides.items()}
    for job in jobs.values():
        await job()
    settle()
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(setting.times(12)):
        for name, job in jobs.items():
            times[name].append(await cost(job))
    gc.unfreeze()
    return {name: {"paced": (statistics.median(times[name]) - short[name]) / (pieces - SHORT)} for name in sides}


async def dialect(name: str, setting: Setting, sides: Mapping[str, Talker]) -> Raw:
    """A run, a chunk of a stream that comes all at once, and a chunk of one whose chunks come 1 ms apart."""
    spoken, pieces, slow = DIALECTS[name], setting.sized(LONG, least=2 * SHORT), setting.sized(_PACED, least=2 * SHORT)
    for side_name, side in sides.items():
        await _looked_at(side_name, side, spoken)
    jobs = {key: side.dialect_runner(spoken, model_of(words=20)) for key, side in sides.items()}
    runs = await race(jobs, rounds=setting.times(_TURNS), seconds=_TURN)

    async def streamed(rounds: int, **parts: int) -> dict[str, float]:
        jobs = {key: drained(side.dialect_streamer(spoken, model_of(**parts))) for key, side in sides.items()}
        return await race(jobs, rounds=setting.times(rounds), seconds=_TURN)

    short, long = await streamed(_TURNS, pieces=SHORT), await streamed(120, pieces=pieces)
    paced = await streamed(12, pieces=slow, gap=1)
    return {
        key: {
            "run": runs[key],
            "chunk": (long[key] - short[key]) / (pieces - SHORT),
            "paced": (paced[key] - short[key]) / (slow - SHORT),
        }
        for key in sides
    }


async def _looked_at(name: str, side: Talker, spoken: Dialect) -> None:
    """See that a side reads what it is sent: a fast wrong answer is no answer."""
    words = " ".join(f"word{number}" for number in range(5))
    run = str(await side.dialect_runner(spoken, model_of(words=5))())
    text = "".join([text async for text in side.dialect_streamer(spoken, model_of(pieces=5))()]).rstrip()
    if (run, text) != (words, words):
        msg = f"{name} gave {run!r} and {text!r} instead of {words!r} twice"
        raise AssertionError(msg)


async def _short(setting: Setting, sides: Mapping[str, Side]) -> dict[str, float]:
    jobs = {name: drained(side.streamer(model_of(pieces=SHORT))) for name, side in sides.items()}
    return await race(jobs, rounds=setting.times(_TURNS), seconds=_TURN)


async def first(setting: Setting, sides: Mapping[str, Side]) -> Raw:
    """The time on the wall from the call to the first piece of text: what nine of ten took longer than."""
    streams = {name: side.streamer(model_of(pieces=SHORT)) for name, side in sides.items()}
    for stream in streams.values():
        await drained(stream)()
    settle()
    times: dict[str, list[float]] = {name: [] for name in streams}
    for _ in range(setting.times(1000)):
        for name, stream in streams.items():
            began, found = time.perf_counter(), 0.0
            async for _text in stream():
                found = found or time.perf_counter() - began
            times[name].append(found)
    gc.unfreeze()
    return _named("first", {name: sorted(found)[len(found) // 10] for name, found in times.items()})


async def growth(setting: Setting, sides: Mapping[str, Talker]) -> Raw:
    """Turn 400 of a thread in memory, all of which is sent, against its first turn."""
    return await _grown(setting, {name: partial(side.talker, model_of(words=20)) for name, side in sides.items()})


async def window(setting: Setting, sides: Mapping[str, Talker]) -> Raw:  # noqa: ARG001  # the floor leaves nothing out
    """The same in a window of tokens, which has been full for half of the turns."""
    plait = Plait(setting.base_url)
    return await _grown(setting, {"plait": partial(plait.talker, model_of(words=20), setting.sized(WINDOW, least=400))})


async def _grown(setting: Setting, talkers: Mapping[str, Callable[[], Callable[[], Awaitable[object]]]]) -> Raw:
    turns = setting.sized(400, least=10)
    firsts, lasts = (dict.fromkeys(talkers, float("inf")) for _ in range(2))
    for _ in range(setting.times(12)):
        for name, talker in talkers.items():
            begun = [talker() for _ in range(_AROUND)]
            firsts[name] = min(firsts[name], await _mean(begun))
            for _ in range(turns - 1 - _AROUND // 2):
                await begun[0]()
            lasts[name] = min(lasts[name], await _mean([begun[0]] * _AROUND))
    return {
        name: {"first": firsts[name], "last": lasts[name], "growth": lasts[name] / firsts[name]} for name in talkers
    }


async def _mean(operations: Sequence[Callable[[], Awaitable[object]]]) -> float:
    """Give the mean CPU seconds of operations, garbage collections that fall into them included."""
    began = time.process_time()
    for operation in operations:
        await operation()
    return (time.process_time() - began) / len(operations)
