"""Cases of the chat clients: a completion, a chunk of a stream, what the sync form adds, a thousand clients."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final

from benchmarks.clock import Ticker, drained, race
from benchmarks.server import model_of
from benchmarks.sides import KEY, PROMPT, ROLE
from benchmarks.turns import LONG, SHORT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

    from benchmarks.goals import Raw
    from benchmarks.setting import Setting
    from benchmarks.sides import Side
    from plait import AsyncOpenRouterClient

_MESSAGES: Final[list[dict[str, Any]]] = [
    {"role": "system", "content": ROLE},
    {"role": "user", "content": PROMPT},
]
_TURN: Final = 0.004
_CLIENTS: Final = 1000


def _client(setting: Setting, model: str) -> AsyncOpenRouterClient:
    from plait import AsyncOpenRouterClient

    return AsyncOpenRouterClient(KEY, model, setting.base_url, provider="openai")


async def client(setting: Setting, sides: Mapping[str, Side]) -> Raw:
    """One completion of 20 words; a chunk of a stream that comes all at once; 1,000 clients built and asked at once."""
    floor, pieces = sides["floor"], setting.sized(LONG, least=2 * SHORT)
    asking = _client(setting, model_of(words=20))
    jobs: dict[str, Callable[[], Awaitable[object]]] = {
        "floor": floor.runner(model_of(words=20)),
        "plait": lambda: asking.create(_MESSAGES),
    }
    created = await race(jobs, rounds=setting.times(400), seconds=_TURN)

    async def streamed(rounds: int, count: int) -> dict[str, float]:
        model = model_of(pieces=count)
        streaming = _client(setting, model)

        async def texts() -> AsyncIterator[str]:
            async for chunk in await streaming.create(_MESSAGES, stream=True):
                if text := chunk.choices[0].delta.content:
                    yield text

        jobs = {"floor": drained(floor.streamer(model)), "plait": drained(texts)}
        return await race(jobs, rounds=setting.times(rounds), seconds=_TURN)

    short, long = await streamed(200, SHORT), await streamed(120, pieces)
    raw = {
        side: {"create": created[side], "chunk": (long[side] - short[side]) / (pieces - SHORT)}
        for side in ("floor", "plait")
    }
    raw["plait"]["built"] = await _built(setting)
    return raw


async def _built(setting: Setting) -> float:
    """Give the longest stall of the event loop while so many tasks build a client of their own."""
    model = model_of(words=20)
    _client(setting, model)

    async def build() -> None:
        _client(setting, model)

    least = float("inf")
    for _ in range(setting.times(5)):
        async with Ticker() as ticker:
            await asyncio.gather(*(build() for _ in range(setting.sized(_CLIENTS))))
        least = min(least, ticker.longest)
    return least


def sync_client(setting: Setting, names: Sequence[str]) -> Raw:
    """What the sync form of a completion adds on the wall: to the async one, by turns, the least of each."""
    from plait import OpenRouterClient

    del names
    model = model_of(words=20)
    in_sync = OpenRouterClient(KEY, model, setting.base_url, provider="openai")
    awaited = _client(setting, model)
    least = {"awaited": float("inf"), "in sync": float("inf")}
    rounds, each = setting.times(200), 20
    with asyncio.Runner() as runner:

        async def asked() -> float:
            began = time.perf_counter()
            for _ in range(each):
                await awaited.create(_MESSAGES)
            return time.perf_counter() - began

        for _ in range(rounds):
            least["awaited"] = min(least["awaited"], runner.run(asked()) / each)
            began = time.perf_counter()
            for _ in range(each):
                in_sync.create(_MESSAGES)
            least["in sync"] = min(least["in sync"], (time.perf_counter() - began) / each)
    return {"floor": {"sync": least["awaited"]}, "plait": {"sync": least["in sync"]}}
