"""Threads of a store: leases between processes, and what is found out after a disturbed write."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from itertools import groupby
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from plait import Agent, MemoryStore, OfflineProvider, Request, StateConflict, UserMessage, history
from plait import threads as threads_module
from plait.entries import MessageEntry, RunStart, entry
from plait.store.database import DatabaseStore
from plait.threads import Thread

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from plait.entries import Entry
    from plait.store.base import Lease

PROGRAM = """
import asyncio, sys
from plait import Agent, OfflineProvider

async def main():
    agent = Agent(provider=OfflineProvider(delay=0.002), store=sys.argv[1])
    for n in range(5):
        await agent.chat(f"{sys.argv[2]} {n}", thread="t")
    await agent.store.close()

asyncio.run(main())
"""


def start(url: str, name: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", PROGRAM, url, name], stderr=subprocess.PIPE, text=True)


class SharedStore(MemoryStore):
    """A store that other processes could write to."""

    __slots__ = ()
    shared: ClassVar[bool] = True


async def test_three_processes_on_one_thread_take_turns(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 't.db'}"
    processes = [start(url, name) for name in "abc"]
    for process in processes:
        _, errors = await asyncio.to_thread(process.communicate, None, 60)
        assert process.returncode == 0, errors
    store = DatabaseStore(url)
    log = await store.read((await store.thread("t")).thread_id)
    await store.close()
    runs = [run_id for run_id, _ in groupby(log, key=lambda item: item.run_id)]
    assert len(runs) == len(set(runs)) == 15
    assert [item.kind for item in log] == ["run_started", "message", "message", "run_finished"] * 15
    asked = [message.text for message in history(log) if message.role == "user"]
    assert sorted(asked) == [f"{name} {n}" for name in "abc" for n in range(5)]
    for name in "abc":
        assert [text for text in asked if text.startswith(name)] == [f"{name} {n}" for n in range(5)]


async def test_a_thread_held_by_another_process_can_be_refused() -> None:
    store = SharedStore()
    agent = Agent(provider="offline", store=store)
    info = await store.thread("t")
    held = await store.acquire(info.thread_id, "run_elsewhere", "somebody else", 60)
    assert held is not None
    with pytest.raises(StateConflict, match="is busy with run 'run_elsewhere'"):
        await agent.chat("hi", thread="t", if_busy="reject")
    waiting = asyncio.ensure_future(agent.chat("hi", thread="t"))
    await asyncio.sleep(0.06)
    assert not waiting.done()
    await store.release(held)
    assert await asyncio.wait_for(waiting, 5) == "You said: hi"


async def test_leases_are_renewed_and_a_lost_one_stops_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads_module, "RENEW_SECONDS", 0.01)
    store, gate = SharedStore(), asyncio.Event()

    async def wait(_: Request) -> str:
        await gate.wait()
        return "never"

    agent = Agent(provider=OfflineProvider(function=wait), store=store)
    run = agent.run("hi", thread="t")
    info = await store.thread("t")
    while (lease := await store.holder(info.thread_id)) is None:  # noqa: ASYNC110  # a store tells nobody
        await asyncio.sleep(0)
    first = lease.expires_at
    async with asyncio.timeout(5):
        while lease is not None and lease.expires_at == first:
            await asyncio.sleep(0.005)
            lease = await store.holder(info.thread_id)
    assert lease is not None
    await store.release(lease)
    assert await store.acquire(info.thread_id, "run_2", "somebody else", 60) is not None
    with pytest.raises(StateConflict):
        await asyncio.wait_for(run.aresolve(), 5)


class Disturbed(MemoryStore):
    """Is cancelled in the middle of an append, before or after it was carried out."""

    __slots__ = ("after", "disturbing")

    def __init__(self, *, after: bool) -> None:
        super().__init__()
        self.after = after
        self.disturbing = True

    async def append(self, thread_id: str, entries: Sequence[Entry], *, lease: Lease | None = None) -> None:
        if not self.disturbing:
            return await super().append(thread_id, entries, lease=lease)
        self.disturbing = False
        if self.after:
            await super().append(thread_id, entries, lease=lease)
        raise asyncio.CancelledError


@pytest.mark.parametrize("after", [True, False])
async def test_a_disturbed_flush_is_found_out(*, after: bool) -> None:
    store = Disturbed(after=after)
    thread = Thread.stored(store, "thr_1", "default")
    thread.add("run_1", RunStart())
    thread.add("run_1", MessageEntry(message=UserMessage(text="hi")))
    with pytest.raises(asyncio.CancelledError):
        await thread.flush()
    thread.add("run_1", MessageEntry(message=UserMessage(text="more")))
    await thread.flush()
    assert [item.n for item in await store.read("thr_1")] == [1, 2, 3]
    assert [message.text for message in history(await store.read("thr_1"))] == ["hi", "more"]


async def test_what_a_failed_run_left_unwritten_is_forgotten() -> None:
    store = MemoryStore()
    thread = Thread.stored(store, "thr_1", "default")
    thread.add("run_1", RunStart())
    other: list[Any] = [entry(1, RunStart(), "run_2")]
    await store.append("thr_1", other)
    with pytest.raises(StateConflict):
        await thread.flush()
    await thread.hold("run_3", lambda: None, "queue")
    assert thread.tail.run is not None
    assert (thread.tail.n, thread.tail.run.run_id) == (1, "run_2")
    await thread.leave()
