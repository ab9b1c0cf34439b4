"""Processes that are killed, and databases that are locked."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from faults.aftermath import HOWS, STILL_HERE, WITHIN, How, ask, assert_goes_on, assert_sendable, nothing_left
from plait import Agent, OfflineProvider, Request, StoreUnavailable, ToolCall, history, tool
from plait.store.database import DatabaseStore

if TYPE_CHECKING:
    from collections.abc import Iterator

KILLING = '''
"""Kills a run before and after each of its writes, in a child each time, and resumes it in another. argv: chat ..."""
import asyncio, json, os, signal, sys
from plait import Agent, NothingToResume, OfflineProvider, ToolCall, history, tool
from plait.store.database import DatabaseStore

how, folder = sys.argv[1:]
number, die_at, moment = 0, 0, ""


class Dying(DatabaseStore):
    appends = 0

    async def append(self, thread_id, entries, *, lease=None):
        self.appends += 1
        if self.appends == die_at and moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        await super().append(thread_id, entries, lease=lease)
        if self.appends == die_at and moment == "after":
            os.kill(os.getpid(), signal.SIGKILL)


def effect(name):
    with open(f"{folder}/{number}.txt", "a") as file:
        file.write(name + "\\n")


@tool(idempotent=True)
async def measure(place: str) -> str:
    effect("measure " + place)
    return "3 degrees in " + place


@tool
def note(text: str) -> str:
    effect("note " + text)
    return "noted " + text


def answer(request):
    turn = sum(message.role == "tool" for message in request.messages)
    if turn == 2:
        return "It is cold everywhere."
    return [
        ToolCall(id=f"{turn}a", name="measure", arguments='{"place": "%d"}' % turn),
        ToolCall(id=f"{turn}b", name="note", arguments='{"text": "%d"}' % turn),
    ]


async def run():
    store = Dying(f"sqlite:///{folder}/{number}.db")
    agent = Agent(provider=OfflineProvider(function=answer), tools=[measure, note], store=store, sequential_tools=True)
    try:
        said = (await agent.resume("walk")).output
    except NothingToResume:
        if how == "chat":
            said = await agent.chat("Go.", thread="walk")
        elif how == "run":
            said = (await agent.run("Go.", thread="walk")).output
        else:
            said = "".join([text async for text in agent.stream("Go.", thread="walk")])
    log = await agent.log("walk")
    await store.close()
    calls = {call.id: 0 for message in history(log) for call in message.tool_calls}
    for message in history(log):
        for result in message.tool_results:
            calls[result.call_id] += 1
    users = [message.text for message in history(log) if message.role == "user"]
    with open(f"{folder}/{number}.json", "w") as file:
        json.dump({"said": said, "calls": calls, "users": users, "ids": len({e.id for e in log}) == len(log)}, file)


def in_child():
    child = os.fork()
    if child == 0:
        code = 1
        try:
            asyncio.run(asyncio.wait_for(run(), 20))
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


while True:
    number += 1
    die_at, moment = (number + 1) // 2, ("before", "after")[number % 2]
    first = in_child()
    if first == 0:
        break
    assert first == -signal.SIGKILL, first
    die_at = 0
    assert in_child() == 0
print(number)
'''


@pytest.mark.fault("P01")
@pytest.mark.parametrize("how", ["chat", "stream"])  # test_crash.py kills what `run` began
def test_killed_at_every_write(how: How, tmp_path: Any) -> None:
    program = tmp_path / "killing.py"
    program.write_text(KILLING)
    done = subprocess.run(
        [sys.executable, str(program), how, str(tmp_path)], capture_output=True, text=True, timeout=45, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    count = int(done.stdout)
    assert count > 2 * 6  # a beginning, two turns of calls and results, an end
    for number in range(1, count + 1):
        found = json.loads((tmp_path / f"{number}.json").read_text())
        assert found["said"] == "It is cold everywhere.", number
        assert found["calls"] == {"0a": 1, "0b": 1, "1a": 1, "1b": 1}, number
        assert found["users"] == ["Go."], number
        assert found["ids"], number
        effects = (tmp_path / f"{number}.txt").read_text().splitlines()
        notes = [effect for effect in effects if effect.startswith("note")]
        assert len(set(notes)) == len(notes), number  # one that had begun is not begun again


LOCKING = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN " + sys.argv[2])
print("locked", flush=True)
sys.stdin.readline()
connection.execute("COMMIT")
print("free", flush=True)
"""


@contextmanager
def locked(path: str, how: str) -> Iterator[subprocess.Popen[str]]:
    """Have another process hold the database, until a line is written to it or the block is left."""
    process = subprocess.Popen(
        [sys.executable, "-c", LOCKING, path, how], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        yield process
    finally:
        process.communicate("\n", timeout=WITHIN)


@pytest.mark.fault("P06")
@pytest.mark.parametrize("lock", ["IMMEDIATE", "EXCLUSIVE"])
@pytest.mark.parametrize("how", HOWS)
async def test_a_lock_is_waited_for_and_then_the_store_is_busy(how: How, lock: str) -> None:
    done: list[str] = []

    @tool
    def pay(amount: int) -> str:
        done.append(f"paid {amount}")
        return f"paid {amount}"

    def answer(request: Request) -> Any:
        last = request.messages[-1]
        if last.text == "Are you still there?":
            return STILL_HERE
        call = ToolCall(id="1", name="pay", arguments='{"amount": 3}')
        return last.tool_results[0].text if last.role == "tool" else call

    store = DatabaseStore("sqlite:///plait.db", busy_seconds=0.05)
    async with nothing_left():
        agent: Agent[Any, Any] = Agent(provider=OfflineProvider(function=answer), tools=[pay], store=store)
        await assert_goes_on(agent, "t")
        before = await agent.log("t")
        with locked("plait.db", lock):
            with pytest.raises(StoreUnavailable, match="is busy: another program held a lock on it") as refused:
                await ask(agent, how, thread="t")
            assert refused.value.retryable
            assert await agent.log("t") == before  # reading goes on
        assert done == []
        assert await ask(agent, how, thread="t") == "paid 3"
        await assert_goes_on(agent, "t")
        await store.close()

    patient = DatabaseStore("sqlite:///plait.db", busy_seconds=WITHIN)
    agent = Agent(provider=OfflineProvider(function=answer), tools=[pay], store=patient)
    with locked("plait.db", lock) as other:
        waiting = asyncio.ensure_future(ask(agent, how, thread="t"))
        await asyncio.wait([waiting], timeout=0.3)
        assert not waiting.done()
        assert other.stdin is not None
        other.stdin.write("\n")
        other.stdin.flush()
        assert await waiting == "paid 3"
    await assert_goes_on(agent, "t")
    await patient.close()


@pytest.mark.fault("P06")
@pytest.mark.parametrize("how", HOWS)
async def test_a_lock_in_the_middle_of_a_run_loses_nothing(how: How) -> None:
    """The tool has done its work when the lock comes: what it did is told, or said to be in doubt, never done twice."""
    done: list[str] = []
    holders: list[Any] = []

    @tool
    def pay() -> str:
        done.append("paid")
        holder = locked("plait.db", "IMMEDIATE")
        holder.__enter__()
        holders.append(holder)
        return "paid"

    def answer(request: Request) -> Any:
        if request.messages[-1].text == "Are you still there?":
            return STILL_HERE
        return "All is paid." if request.messages[-1].role == "tool" else ToolCall(id="1", name="pay")

    store = DatabaseStore("sqlite:///plait.db", busy_seconds=0.05)
    agent: Agent[Any, Any] = Agent(provider=OfflineProvider(function=answer), tools=[pay], store=store)
    with pytest.raises(StoreUnavailable, match="is busy"):
        await ask(agent, how, thread="t")
    holders[0].__exit__(None, None, None)
    assert (await agent.resume("t")).output == "All is paid."
    assert done == ["paid"]
    log = await agent.log("t")
    assert_sendable(list(history(log)))
    await assert_goes_on(agent, "t")
    await store.close()
