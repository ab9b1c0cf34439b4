"""What cancelled runs run in: a model behind a socket, tools, stores, and a count of what runs leave behind."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from plait import Agent, MemoryStore, OfflineProvider, ToolCall, tool
from plait.providers.chat import ChatProvider
from plait.providers.retry import Retrying, RetryPolicy
from plait.store.database import DatabaseStore
from plait.workers import ASKERS, WORKERS
from soak.leftovers import descriptors, soon, tasks_left
from soak.server import Server, Step, streamed, whole

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence

    from plait.providers.base import Request
    from plait.store.base import Store

STORES: Final = ("memory", "sqlite")
ANSWER: Final = "All three were there."
PATIENCE: Final = 5.0  # seconds for what a run leaves to be gone


@tool(idempotent=True)
async def look(number: int) -> str:
    """Wait a little."""
    await asyncio.sleep(0.001)
    return f"saw {number}"


@tool(idempotent=True)
def count(number: int) -> str:
    """Hold a thread a little."""
    time.sleep(0.001)
    return f"counted {number}"


@tool
async def send(number: int) -> str:
    """Wait in two places."""
    await asyncio.sleep(0)
    await asyncio.sleep(0.0005)
    return f"sent {number}"


TOOLS: Final = (look, count, send)


class Model:
    """Answers as a model would: with tool calls, then with text; now and then first with an error, or never.

    Attributes:
        holds: whether there are answers that have no end.
    """

    def __init__(self) -> None:
        self.holds = True
        self._asked: set[tuple[str, int]] = set()

    def __call__(self, asked: Any) -> Iterable[Step]:
        messages = asked["messages"]
        last = max(n for n, message in enumerate(messages) if message["role"] == "user")
        prompt = messages[last]["content"]
        turn = sum(message["role"] == "assistant" and "tool_calls" in message for message in messages[last:])
        first = (prompt, turn) not in self._asked
        self._asked.add((prompt, turn))
        if first and "busy" in prompt:
            return whole({"error": {"message": "busy"}}, 503)
        hold = self.holds and "hold" in prompt and turn == ("later" in prompt)
        calls = _calls(len(messages)) if turn == 0 and "again" not in prompt else []
        return _streamed(calls, hold=hold) if asked.get("stream") else _whole(calls, hold=hold)


def _calls(number: int) -> list[dict[str, Any]]:
    functions = [{"name": made.name, "arguments": json.dumps({"number": number})} for made in TOOLS]
    return [{"id": f"c{number}{n}", "type": "function", "function": function} for n, function in enumerate(functions)]


def _whole(calls: list[dict[str, Any]], *, hold: bool) -> list[Step]:
    message = {"role": "assistant", "content": None if calls else ANSWER, "tool_calls": calls or None}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if calls else "stop"}
    usage = {"prompt_tokens": 5, "completion_tokens": 5}
    return ["hold"] if hold else [0.001, *whole({"id": "r", "model": "m", "choices": [choice], "usage": usage})]


def _streamed(calls: list[dict[str, Any]], *, hold: bool) -> list[Step]:
    deltas: list[dict[str, Any]] = [{"content": word} for word in ANSWER.split(" ")] if not calls else []
    deltas = [{"content": f"{' ' if n else ''}{delta['content']}"} for n, delta in enumerate(deltas)]
    for index, call in enumerate(calls):
        function = call["function"]
        deltas.append({"tool_calls": [{**call, "index": index, "function": {**function, "arguments": ""}}]})
        half = len(function["arguments"]) // 2
        for piece in (function["arguments"][:half], function["arguments"][half:]):
            deltas.append({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
    events = [_event(delta) for delta in deltas]
    if hold:
        return [*streamed(*events[: len(events) // 2])[:-1], "hold"]
    finish = "tool_calls" if calls else "stop"
    return streamed(*events[:2], 0.001, *events[2:], _event({}, finish), b"data: [DONE]\n\n")


def _event(delta: dict[str, Any], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: " + json.dumps({"id": "r", "model": "m", "choices": [choice]}).encode() + b"\n\n"


async def _offline(request: Request) -> str | list[ToolCall]:
    """Answer as `Model` does, with no socket in between."""
    await asyncio.sleep(0)
    last = max(n for n, message in enumerate(request.messages) if message.role == "user")
    if "again" in request.messages[last].text or any(message.role == "tool" for message in request.messages[last:]):
        return ANSWER
    number = len(request.messages)
    return [ToolCall(id=f"c{number}{n}", name=one.name, arguments=f'{{"number": {n}}}') for n, one in enumerate(TOOLS)]


@dataclass
class World:
    """A server, and agents that ask it, or nobody, for each kind of store."""

    model: Model
    server: Server
    agents: dict[tuple[str, bool], Agent[Any, Any]]
    sockets: int
    tasks: set[asyncio.Task[Any]]

    async def left(self) -> list[str]:
        """Give what is left of runs that are over, but for what may stay until its owner is closed."""
        return await left_by_runs([self.server], self.tasks, self.sockets)


async def left_by_runs(servers: Sequence[Server], tasks: set[asyncio.Task[Any]], sockets: int) -> list[str]:
    """Give what is left of runs that are over, but for idle connections and threads.

    Args:
        servers: those that were asked, in this process.
        tasks: what there was before the runs, without the servers' own.
        sockets: how many there were when nobody was connected.
    """
    found = [f"task {name!r}" for name in await tasks_left(tasks.union(*(s.tasks for s in servers)), PATIENCE)]
    if not await soon(lambda: not any(server.busy for server in servers), PATIENCE):
        found.append(f"{sum(server.busy for server in servers)} requests that a server still answers")

    def more() -> int:
        return descriptors()["socket"] - sockets - 2 * sum(server.open for server in servers)

    if not await soon(lambda: not more(), PATIENCE):
        found.append(f"{more()} sockets")
    if not await soon(lambda: not WORKERS.left + ASKERS.left, PATIENCE):
        found.append(f"{WORKERS.left} threads in tools, {ASKERS.left} in questions, that nobody waits for")
    return found


def in_a_loop(work: Callable[[Path], Coroutine[Any, Any, None]]) -> Counter[str]:
    """Do something in an event loop and a folder of its own; give what is open that was not, once both are gone."""
    before = descriptors()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(work(Path(folder)))
        return descriptors() - before


@asynccontextmanager
async def world(folder: Path) -> AsyncIterator[World]:
    """Make a world in a folder; it is closed again."""
    model = Model()
    async with Server(model) as server:
        policy = RetryPolicy(initial_delay=0.001, max_delay=0.002)
        provider = Retrying(ChatProvider("m", base_url=server.url, api_key="sk-soak"), policy)
        stores: dict[str, Store] = {"memory": MemoryStore(), "sqlite": DatabaseStore(f"sqlite:///{folder / 'soak.db'}")}
        sockets = descriptors()["socket"]
        agents = {}
        for (kind, store), offline in product(stores.items(), (False, True)):
            asked = OfflineProvider(function=_offline) if offline else provider
            agents[kind, offline] = Agent(name="Soak", provider=asked, tools=TOOLS, store=store)
        made = World(model, server, agents, sockets, asyncio.all_tasks())
        for agent in agents.values():  # what is made once, and imported, is made and imported now
            assert await agent.chat("warm up", thread="warm up") == ANSWER
        try:
            yield made
        finally:
            for store in stores.values():
                await store.close()
