"""Memory after many runs in one process, good ones and failed ones: it must be what it was.

Python's own allocations are counted exactly; what others allocate shows in the resident memory, roughly.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import tempfile
import tracemalloc
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from plait import (
    Agent,
    OfflineProvider,
    OutputInvalid,
    PlaitError,
    ProviderError,
    RunLimits,
    StopSignal,
    StreamTruncated,
    ToolCall,
    tool,
)
from plait.providers.chat import ChatProvider
from plait.store.database import DatabaseStore
from soak.leftovers import descriptors, tasks_left
from soak.server import LAST_CHUNK, Server, Step, chunk, streamed, whole

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from plait.providers.base import Request
    from soak.progress import Proof

WARM: Final = 0.25  # the share of runs after which memory must have come to what it stays at
ONCE: Final = 64 * 1024  # bytes that may be allocated once, later than that
EACH: Final = 16  # bytes for each run: less than any object has
RESIDENT_ONCE: Final = 6 * 2**20
RESIDENT_EACH: Final = 256
OF_ONE_AGENT: Final = 50  # runs, before the agents are made anew: they keep some threads by intent
ANSWER: Final = "It is done, all of it."
PATIENCE: Final = 20.0


@tool
async def double(number: int) -> int:
    """Give twice the number."""
    return number * 2


@tool
def fail(number: int) -> int:
    """Raise."""
    msg = f"no {number}"
    raise ValueError(msg)


def _chunk(finish: str | None = None, **delta: Any) -> bytes:
    return to_event({"id": "r", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})


def to_event(value: object) -> bytes:
    """Give a server-sent event with JSON in it."""
    return b"data: " + json.dumps(value).encode() + b"\n\n"


WORDS: Final = [_chunk(content=f"{word} ") for word in ANSWER.split()]
CALLS: Final = [
    {"index": n, "id": f"c{n}", "type": "function", "function": {"name": "double", "arguments": f'{{"number": {n}}}'}}
    for n in range(2)
]


def _model(asked: Any) -> Iterable[Step]:
    """Answer with two tool calls, then with text; or go wrong as the prompt says."""
    prompt, last = next(one["content"] for one in asked["messages"] if one["role"] == "user"), asked["messages"][-1]
    if "refuse" in prompt:
        return whole({"error": {"message": "no"}}, 500)
    if "truncate" in prompt:
        return streamed(*WORDS)
    if "break" in prompt:
        return [*streamed(*WORDS)[:-1], chunk(WORDS[0])[:9], "close"]
    calls = CALLS if last["role"] == "user" else []
    if asked.get("stream"):
        return [*streamed(*([_chunk(tool_calls=calls)] if calls else WORDS), _chunk("stop"))[:-1], LAST_CHUNK]
    message = {"content": None if calls else ANSWER, "tool_calls": calls or None}
    return whole({"id": "r", "model": "m", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})


def _offline(request: Request) -> str | list[ToolCall] | Exception:
    prompt = next(message.text for message in request.messages if message.role == "user")
    if "raise" in prompt:
        return ProviderError("it cannot be done", status=400)
    name = "fail" if "fail" in prompt else "double"
    if request.messages[-1].role == "tool" and name == "double":
        return ANSWER
    return [ToolCall(id=f"c{n}", name=name, arguments=f'{{"number": {n}}}') for n in range(2)]


@dataclass
class Agents:
    """What asks: nobody, or a server; with a store, or without."""

    offline: Agent[Any, Any]
    asking: Agent[Any, Any]
    stored: Agent[Any, Any]
    typed: Agent[Any, Any]


def _agents(url: str, store: DatabaseStore) -> Agents:
    tools = [double, fail]
    provider = ChatProvider("m", base_url=url, api_key="sk-soak")
    return Agents(
        Agent(provider=OfflineProvider(function=_offline), tools=tools),
        Agent(provider=provider, tools=tools),
        Agent(provider=OfflineProvider(function=_offline), tools=tools, store=store),
        Agent(provider=OfflineProvider(function=lambda _: "no number"), output=int),
    )


async def _run(agents: Agents, number: int) -> object:
    return (await agents.offline.run(f"go on {number}")).output


async def _chat(agents: Agents, number: int) -> object:
    agents.offline.new_thread()
    return await agents.offline.chat(f"go on {number}")


async def _stream(agents: Agents, number: int) -> object:
    stream = agents.asking.stream(f"go on {number}", f"user {number % 7}")
    pieces = [piece async for piece in stream]
    agents.asking.new_thread(f"user {number % 7}")
    return "".join(pieces).strip()


async def _asked(agents: Agents, number: int) -> object:
    agents.asking.new_thread()
    return await agents.asking.chat(f"go on {number}")


async def _stored(agents: Agents, number: int) -> object:
    return (await agents.stored.run(f"go on {number}", thread=f"thread {number}")).output


GOOD: Final = (_run, _chat, _stream, _asked, _stored)


async def _refused(agents: Agents, number: int) -> object:
    return await _raised(agents.asking.run(f"refuse {number}"), ProviderError)


async def _truncated(agents: Agents, number: int) -> object:
    how = "truncate" if number % 2 else "break"
    return await _raised(agents.asking.run(f"{how} {number}"), StreamTruncated)


async def _raising(agents: Agents, number: int) -> object:
    return await _raised(agents.offline.chat(f"raise {number}", f"user {number % 7}"), ProviderError)


async def _invalid(agents: Agents, number: int) -> object:
    return await _raised(agents.typed.run(f"how many? {number}"), OutputInvalid)


async def _not_stored(agents: Agents, number: int) -> object:
    return await _raised(agents.stored.run(f"raise {number}", thread=f"thread {number}"), ProviderError)


async def _no_end(agents: Agents, number: int) -> object:
    result = await agents.offline.run(f"fail {number}", limits=RunLimits(max_turns=3))
    return ANSWER if result.stop_reason == "max_turns" else result.stop_reason


async def _stopped(agents: Agents, number: int) -> object:
    stop = StopSignal()
    run = agents.asking.run(f"go on {number}", stop=stop)
    async for _ in run:
        stop.set()
    reason = (await run).stop_reason
    return ANSWER if reason == "user_stop" else reason


async def _cancelled(agents: Agents, number: int) -> object:
    task = asyncio.ensure_future(agents.asking.chat(f"go on {number}"))
    for _ in range(number % 20 + 1):
        await asyncio.sleep(0)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    agents.asking.new_thread()
    return ANSWER


async def _left(agents: Agents, number: int) -> object:
    async for _ in agents.asking.stream(f"go on {number}"):
        break
    agents.asking.new_thread()
    return ANSWER


FAILED: Final = (_refused, _truncated, _raising, _invalid, _not_stored, _no_end, _stopped, _cancelled, _left)


async def _raised(work: Awaitable[object], kind: type[PlaitError]) -> object:
    try:
        return await work
    except kind:
        return ANSWER


Doing = tuple["Callable[[Agents, int], Awaitable[object]]", ...]


def memory(proof: Proof) -> None:
    """Run many times in one process, in every way there is; memory stays what it was."""
    _flat(proof, GOOD)


def failures(proof: Proof) -> None:
    """As `memory`, with runs that fail, are stopped, cancelled or left."""
    _flat(proof, FAILED)


def _flat(proof: Proof, doing: Doing) -> None:
    before = descriptors()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_many(proof, doing, Path(folder)))
        if left := descriptors() - before:
            proof.leaves(proof.done, f"the event loop and the store are closed, and these are open: {dict(left)}")


async def _many(proof: Proof, doing: Doing, folder: Path) -> None:
    store = DatabaseStore(f"sqlite:///{folder / 'soak.db'}")
    warm, first, traced = int(proof.wanted * WARM), None, tracemalloc.is_tracing()
    if not traced:
        tracemalloc.start()
    async with Server(_model) as server:
        agents, tasks = _agents(server.url, store), asyncio.all_tasks()
        for case in proof.cases():
            if case % OF_ONE_AGENT == 0:
                agents = _agents(server.url, store)
            way = doing[case % len(doing)]
            answer = await asyncio.wait_for(way(agents, case), PATIENCE)
            if answer != ANSWER:
                proof.differs(case, f"{way.__name__} gave {answer!r}")
            proof.did()
            if first is None and proof.done >= warm:
                agents = _agents(server.url, store)
                first = (proof.done, *await _used(server, tasks))
        agents = _agents(server.url, store)
        if first is not None and proof.at is None:
            _compare(proof, first, await _used(server, tasks))
        for name in await tasks_left(tasks | server.tasks, PATIENCE):
            proof.leaves(proof.done, f"task {name!r}")
    if not traced:
        tracemalloc.stop()
    await store.close()


async def _used(server: Server, tasks: set[asyncio.Task[Any]]) -> tuple[int, int]:
    """Give the bytes that Python has allocated, and those that are resident, when all that ends has ended."""
    await tasks_left(tasks | server.tasks, PATIENCE)
    for _ in range(3):
        gc.collect()
        await asyncio.sleep(0.01)
    return tracemalloc.get_traced_memory()[0], _resident()


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _compare(proof: Proof, first: tuple[int, int, int], last: tuple[int, int]) -> None:
    runs = proof.done - first[0]
    allocated, resident = last[0] - first[1], last[1] - first[2]
    proof.counts["bytes more allocated"] = allocated
    proof.counts["bytes more resident"] = resident
    proof.counts["runs in which they were"] = runs
    if allocated > ONCE + EACH * runs:
        proof.leaves(proof.done, f"{allocated:,} bytes allocated in {runs:,} runs")
    if resident > RESIDENT_ONCE + RESIDENT_EACH * runs:
        proof.leaves(proof.done, f"{resident:,} bytes resident after {runs:,} runs")
