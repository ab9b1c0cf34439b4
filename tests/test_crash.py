"""A process that is killed with SIGKILL, at any moment, goes on to the same final log."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from plait import history
from plait.entries import Entry, encode
from plait.store.database import DatabaseStore

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence
    from pathlib import Path

TURNS = 2
PROGRAM = '''
"""Runs or resumes one thread. argv: store, log of effects, append to die at ("" for none), "before" or "after" it."""
import asyncio, os, signal, sys
from plait import Agent, NothingToResume, OfflineProvider, ToolCall, tool
from plait.store.database import DatabaseStore

url, effects, die_at, moment = sys.argv[1:5]


class Dying(DatabaseStore):
    appends = 0

    async def append(self, thread_id, entries, *, lease=None):
        self.appends += 1
        if die_at and self.appends == int(die_at) and moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        await super().append(thread_id, entries, lease=lease)
        if die_at and self.appends == int(die_at) and moment == "after":
            os.kill(os.getpid(), signal.SIGKILL)


def effect(name):
    with open(effects, "a") as file:
        file.write(name + "\\n")


@tool(idempotent=True)
async def measure(place: str) -> str:
    effect("measure " + place)
    await asyncio.sleep(0.02)
    return "3 degrees in " + place


@tool(idempotent=IDEMPOTENT)
def note(text: str) -> str:
    effect("note " + text)
    return "noted " + text


async def answer(request):
    await asyncio.sleep(0.02)
    turn = sum(message.role == "tool" for message in request.messages)
    if turn == TURNS:
        return "It is cold everywhere."
    return [
        ToolCall(id=f"{turn}a", name="measure", arguments='{"place": "%d"}' % turn),
        ToolCall(id=f"{turn}b", name="note", arguments='{"text": "%d"}' % turn),
    ]


async def main():
    store = Dying(url)
    agent = Agent(name="Walker", provider=OfflineProvider(function=answer), tools=[measure, note], store=store)
    print("ready", flush=True)
    try:
        result = await agent.resume("walk")
    except NothingToResume:
        result = await agent.run("Go and measure.", thread="walk")
    print(result.output)
    await store.close()


asyncio.run(main())
'''


class Walk:
    """The program, its store, and what its tools did."""

    def __init__(self, folder: Path, *, idempotent: bool = True) -> None:
        folder.mkdir()
        self.program = folder / "program.py"
        self.program.write_text(PROGRAM.replace("IDEMPOTENT", str(idempotent)).replace("TURNS", str(TURNS)))
        self.url = f"sqlite:///{folder / 'walk.db'}"
        self.effects_file = folder / "effects.txt"

    def start(self, die_at: int | None = None, moment: str = "before") -> subprocess.Popen[str]:
        command = [sys.executable, str(self.program), self.url, str(self.effects_file), str(die_at or ""), moment]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def finish(self) -> str:
        done, errors = (process := self.start()).communicate(timeout=45)
        assert process.returncode == 0, errors
        return done.removeprefix("ready\n").strip()

    @property
    def effects(self) -> list[str]:
        return self.effects_file.read_text().splitlines() if self.effects_file.exists() else []

    async def log(self) -> list[Entry]:
        store = DatabaseStore(self.url)
        try:
            return await store.read((await store.thread("walk")).thread_id)
        finally:
            await store.close()


def comparable(log: list[Entry]) -> list[Any]:
    """The log without what differs from run to run: ids, times, and which of two tools at work was the first to end."""
    made: list[Any] = []
    for item in log:
        data = json.loads(encode(item))
        data["body"].pop("seconds", None)
        made.append((data["kind"], data["body"]))
        if data["kind"] == "tool_result" and made[-2][0] == "tool_result":
            made[-2:] = sorted(made[-2:], key=lambda one: str(one[1]["result"]["call_id"]))
    return [(n, *one) for n, one in enumerate(made, 1)]


async def two_at_once(work: Sequence[Awaitable[bool]]) -> list[bool]:
    """Await all, two at a time: each is a process that would like a core of its own."""
    room = asyncio.Semaphore(2)

    async def one(item: Awaitable[bool]) -> bool:
        async with room:
            return await item

    return list(await asyncio.gather(*map(one, work)))


async def undisturbed(folder: Path, *, idempotent: bool = True) -> list[Any]:
    walk = Walk(folder / "undisturbed", idempotent=idempotent)
    assert await asyncio.to_thread(walk.finish) == "It is cold everywhere."
    assert sorted(walk.effects) == sorted(f"{what} {n}" for n in range(TURNS) for what in ("measure", "note"))
    return comparable(await walk.log())


@pytest.mark.fault("P01")
async def test_killed_at_every_write_it_resumes_to_the_same_log(tmp_path: Path) -> None:
    expected = await undisturbed(tmp_path)

    async def one(die_at: int, moment: str) -> bool:
        walk = Walk(tmp_path / f"{die_at}-{moment}")
        process = walk.start(die_at, moment)
        await asyncio.to_thread(process.communicate, None, 60)
        if process.returncode == 0:
            return False
        assert process.returncode == -signal.SIGKILL
        assert await asyncio.to_thread(walk.finish) == "It is cold everywhere."
        assert comparable(await walk.log()) == expected
        return True

    writes = 2 + 3 * TURNS  # the beginning; each turn's calls, and its two results one after the other; the end
    died = await two_at_once([one(n, moment) for n in range(1, writes + 2) for moment in ("before", "after")])
    assert died == [True] * (2 * writes) + [False] * 2


@pytest.mark.fault("P01")
async def test_20_processes_killed_at_random_moments_resume_to_the_same_log(tmp_path: Path) -> None:
    expected = await undisturbed(tmp_path)
    chance = random.Random(20)  # noqa: S311  # repeatable, nothing secret

    async def one(number: int, seconds: float) -> bool:
        walk = Walk(tmp_path / str(number))
        process = walk.start()
        assert process.stdout is not None
        await asyncio.to_thread(process.stdout.readline)
        try:
            await asyncio.to_thread(process.wait, seconds)
        except subprocess.TimeoutExpired:
            process.kill()
        await asyncio.to_thread(process.communicate)
        assert await asyncio.to_thread(walk.finish) == "It is cold everywhere."
        log = await walk.log()
        assert comparable(log) == expected, number
        assert len({item.id for item in log}) == len(log)
        return process.returncode == -signal.SIGKILL

    killed = await two_at_once([one(number, chance.uniform(0, 0.2)) for number in range(20)])
    assert sum(killed) >= 5  # the others were through before their moment came


@pytest.mark.fault("P01")
@pytest.mark.parametrize("die_at", [3, 6])
async def test_a_tool_that_is_not_idempotent_is_never_called_twice(tmp_path: Path, die_at: int) -> None:
    """Killed when the results are about to be written: the notes were made, and nobody wrote that down."""
    walk = Walk(tmp_path / "walk", idempotent=False)
    process = walk.start(die_at, "before")
    await asyncio.to_thread(process.communicate, None, 60)
    assert process.returncode == -signal.SIGKILL
    made = walk.effects.count(f"note {(die_at - 3) // 3}")
    assert made == 1
    assert await asyncio.to_thread(walk.finish) == "It is cold everywhere."
    notes = [effect for effect in walk.effects if effect.startswith("note")]
    assert sorted(notes) == [f"note {n}" for n in range(TURNS)]
    log = await walk.log()
    results = [result for message in history(log) for result in message.tool_results if result.name == "note"]
    doubtful = [result for result in results if result.is_error]
    assert len(results) == TURNS
    assert [result.call_id for result in doubtful] == [f"{(die_at - 3) // 3}b"]
    assert "may or may not have happened" in doubtful[0].text
