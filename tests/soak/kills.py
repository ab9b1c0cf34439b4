"""A process that calls tools is killed, again and again, and each time another one goes on where it was.

Each walk is one thread in a file of its own. Its process is a fork of this one, so a kill costs no start of an
interpreter: nothing here may start a thread. The first process of half the walks asks for whole answers; what goes on
after a kill is always streamed. Moments are chosen by seed, and hit as exactly as the machine's clock allows.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sqlite3
import tempfile
import time
from collections import defaultdict
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from plait import Agent, NothingToResume, OfflineProvider, RunContext, ToolCall, tool
from plait.entries import MessageEntry, RunStart, ToolEnd, ToolStart, decode
from plait.log import history
from plait.store.database import DatabaseStore
from store.processes import ended, forked

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator, Sequence

    from plait.entries import Entry
    from plait.providers.base import Request
    from plait.store.base import Lease
    from soak.progress import Proof

Moment = Literal["before", "during", "after", "at random"]

PROMPT = "Go and measure."
ANSWER = "It is cold everywhere, and everyone was told."
THREAD = "walk"
IDEMPOTENT = frozenset({"measure", "tally"})
DOUBT = "may or may not have happened"
MOST_KILLS = 6  # of one walk
WRITES = (1, 1, 2, 2, 3, 3, 4, 5, 7)  # at which a process is killed; a whole walk has four to fourteen
LONGEST = 0.08  # seconds from a fork within which it is killed at random; a whole walk takes about as long


class Dying(DatabaseStore):
    """A store whose process dies at one of its writes, and which says what is durable."""

    __slots__ = ("_at", "_moment", "_told", "_within", "_writes")

    def __init__(self, url: str, told: int, at: int, moment: Moment, within: float) -> None:
        super().__init__(url)
        self._told, self._at, self._moment, self._within = told, at, moment, within
        self._writes = 0

    async def append(self, thread_id: str, entries: Sequence[Entry], *, lease: Lease | None = None) -> None:
        self._writes += 1
        here = self._writes == self._at
        if here and self._moment == "before":
            _die()
        if here and self._moment == "during":
            asyncio.get_running_loop().call_later(self._within, _die)
        await super().append(thread_id, entries, lease=lease)
        tell(self._told, "durable", entries[-1].n)
        if here and self._moment == "after":
            _die()


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def tell(file: int, *what: object) -> None:
    """Write one line, with one call, so that a kill cannot leave half of it."""
    os.write(file, json.dumps(what).encode() + b"\n")


@tool(idempotent=True)
async def measure(what: str, before: float, after: float, context: RunContext[int]) -> str:
    """Take effect in the middle of some waiting; may be repeated."""
    return await _slowly("measure", what, before, after, context)


@tool
async def send(what: str, before: float, after: float, context: RunContext[int]) -> str:
    """Take effect in the middle of some waiting; must not be repeated."""
    return await _slowly("send", what, before, after, context)


@tool(idempotent=True)
def tally(what: str, before: float, after: float, context: RunContext[int]) -> str:
    """As `measure`, in a thread."""
    return _blocking("tally", what, before, after, context)


@tool
def note(what: str, before: float, after: float, context: RunContext[int]) -> str:
    """As `send`, in a thread."""
    return _blocking("note", what, before, after, context)


async def _slowly(name: str, what: str, before: float, after: float, context: RunContext[int]) -> str:
    await asyncio.sleep(before)
    tell(context.deps, "effect", what, context.idempotency_key)
    await asyncio.sleep(after)
    return done(name, what)


def _blocking(name: str, what: str, before: float, after: float, context: RunContext[int]) -> str:
    time.sleep(before)
    tell(context.deps, "effect", what, context.idempotency_key)
    time.sleep(after)
    return done(name, what)


def done(name: str, what: str) -> str:
    """Give what a tool says that was carried out."""
    return f"{name} {what}: done"


TOOLS = (measure, send, tally, note)


@dataclass
class Walk:
    """One thread, its file, what its tools did, and what was known of it after each death."""

    folder: Path
    chance: random.Random
    turns: list[list[ToolCall]] = field(default_factory=list)
    log: list[tuple[int, str, str]] = field(default_factory=list)
    doubtful: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        names = [made.name for made in TOOLS]
        for turn in range(self.chance.choice([1, 2, 2, 3])):
            calls = []
            for number in range(self.chance.choice([1, 2, 3, 5])):
                what = f"{turn}{'abcde'[number]}"
                times = [round(self.chance.uniform(0, 0.004), 4) for _ in range(2)]
                arguments = json.dumps({"what": what, "before": times[0], "after": times[1]})
                calls.append(ToolCall(id=what, name=self.chance.choice(names), arguments=arguments))
            self.turns.append(calls)
        self.whole = self.chance.random() < 0.5
        self.delay = self.chance.choice([0.0, 0.0005])

    @property
    def file(self) -> Path:
        return self.folder / "walk.db"

    @property
    def told(self) -> list[list[object]]:
        """What the processes of this walk told, line by line."""
        with suppress(FileNotFoundError):
            return [json.loads(line) for line in (self.folder / "told").read_text().splitlines()]
        return []

    async def go(self, at: int, moment: Moment, within: float) -> None:
        """Go on with the walk to its end, in a process of its own, which may be killed meanwhile."""

        async def answer(request: Request) -> str | list[ToolCall]:
            await asyncio.sleep(self.delay)
            turn = sum(message.role == "tool" for message in request.messages)
            return self.turns[turn] if turn < len(self.turns) else ANSWER

        told = os.open(self.folder / "told", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        store = Dying(f"sqlite:///{self.file}", told, at, moment, within)
        provider = OfflineProvider(function=answer, delay=self.delay)
        agent = Agent(name="Walker", provider=provider, tools=TOOLS, store=store)
        try:
            said = (await agent.resume(THREAD, deps=told)).output
        except NothingToResume:
            if self.whole:
                said = await agent.chat(PROMPT, thread=THREAD, deps=told)
            else:
                said = (await agent.run(PROMPT, thread=THREAD, deps=told)).output
        await store.close()
        tell(told, "answer", said)

    def moments(self, case: int) -> Iterator[Moment]:
        """Go on until the end of the walk; give each moment at which it was killed."""
        for number in range(self.chance.randint(1, MOST_KILLS)):
            moment: Moment = "at random"
            if (case + number) % 2:
                moment = self.chance.choice(["before", "during", "after"])
            if not self.killed(moment):
                return
            yield moment
        self.finish()

    def killed(self, moment: Moment) -> bool:
        """Go on in a process that is killed; False when it was at its end before."""
        at, within = self.chance.choice(WRITES), self.chance.uniform(0, 0.003)
        pid = forked(lambda: self.go(0 if moment == "at random" else at, moment, within))
        if moment == "at random":
            time.sleep(self.chance.uniform(0, LONGEST))
            os.kill(pid, signal.SIGKILL)  # it is not waited for yet, so the number is its own
        return self._over(pid)

    def finish(self) -> None:
        """Go on in a process that nobody kills."""
        if self._over(forked(lambda: self.go(0, "before", 0.0))):
            self.problems.append("a process was killed that nobody killed")

    def _over(self, pid: int) -> bool:
        code = ended([pid])[0]
        if code not in (0, -signal.SIGKILL):
            self.problems.append(f"a process ended with code {code}; its error stands above")
        self._look()
        return code == -signal.SIGKILL

    def _look(self) -> None:
        """See what is durable; nothing may have gone that was there before, or that a process was told is there."""
        found = self._rows()
        numbers = [n for n, _, _ in found]
        if numbers != list(range(1, len(found) + 1)):
            self.problems.append(f"the entries are numbered {numbers}")
        if found[: len(self.log)] != self.log:
            self.problems.append("entries that were there before are gone or changed")
        last = max((n for what, n, *_ in self.told if what == "durable" and isinstance(n, int)), default=0)
        if len(found) < last:
            self.problems.append(f"entry {last} was said to be durable, and the log ends at {len(found)}")
        self.log = found
        if early := {str(what[1]) for what in self.told if what[0] == "effect"} - set(self.begun()):
            self.problems.append(f"{sorted(early)} took effect before the log said that they would be called")
        begun = set(self.begun()) - set(self.results())
        self.doubtful |= {call for call in begun if self.name_of(call) not in IDEMPOTENT}

    def _rows(self) -> list[tuple[int, str, str]]:
        """Read the log from a copy: to open the file itself would be the recovery that is the next process's to do."""
        copy = self.folder / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir()
        for name in ("walk.db", "walk.db-wal", "walk.db-journal"):  # a file that is being made has the last one
            with suppress(FileNotFoundError):
                shutil.copy(self.folder / name, copy / name)
        if not (copy / "walk.db").exists():
            return []
        with closing(sqlite3.connect(copy / "walk.db")) as connection:
            try:
                return connection.execute("SELECT n, id, line FROM entries ORDER BY n").fetchall()
            except sqlite3.OperationalError as error:
                if "no such table" in str(error):
                    return []  # killed while the file was made
                raise

    @property
    def entries(self) -> list[Entry]:
        return [decode(line) for _, _, line in self.log]

    def begun(self) -> list[str]:
        """The calls that the log says were begun."""
        return [item.body.call_id for item in self.entries if isinstance(item.body, ToolStart)]

    def results(self) -> dict[str, tuple[str, bool]]:
        """The text of each call's result, and whether it is an error."""
        results = [item.body.result for item in self.entries if isinstance(item.body, ToolEnd)]
        return {result.call_id: (result.text, result.is_error) for result in results}

    def name_of(self, call_id: str) -> str:
        """The tool of a call."""
        return next(call.name for calls in self.turns for call in calls if call.id == call_id)

    def check(self) -> list[str]:
        """Give what is wrong with a walk that has come to its end."""
        found = self.problems
        calls = [call for turn in self.turns for call in turn]
        answers = [what[1] for what in self.told if what[0] == "answer"]
        if not answers or set(map(str, answers)) != {ANSWER}:
            found.append(f"the answers were {answers}")
        found += self._wrong_entries(calls)
        found += self._wrong_effects(calls)
        return found

    def _wrong_entries(self, calls: list[ToolCall]) -> list[str]:
        entries, found = self.entries, []
        kinds = [item.kind for item in entries]
        counts = {kind: kinds.count(kind) for kind in set(kinds)}
        wanted = {"run_started": 1, "message": len(self.turns) + 2, "run_finished": 1}
        wanted |= {"tool_started": len(calls), "tool_result": len(calls)}
        if counts != wanted:
            found.append(f"the log has {counts}, not {wanted}")
        if len({item.id for item in entries}) != len(entries):
            found.append("two entries have the same id")
        messages = [item.body.message for item in entries if isinstance(item.body, MessageEntry)]
        texts = [(message.role, message.text, message.tool_calls) for message in messages]
        turns = [("assistant", "", tuple(turn)) for turn in self.turns]
        if texts != [("user", PROMPT, ()), *turns, ("assistant", ANSWER, ())]:
            found.append(f"the messages are {texts}")
        told = [(one.call_id, one.text, one.is_error) for message in history(entries) for one in message.tool_results]
        for call, (call_id, text, is_error) in zip(calls, told, strict=False):
            if call.id in self.doubtful:
                right = is_error and DOUBT in text
            else:
                right = not is_error and text == done(call.name, call.id)
            if call_id != call.id or not right:
                found.append(f"the result of {call.id} ({call.name}) is {call_id}: {text!r}; doubtful: {self.doubtful}")
        if len(told) != len(calls):
            found.append(f"{len(calls)} calls have {len(told)} results")
        return found

    def _wrong_effects(self, calls: list[ToolCall]) -> list[str]:
        run_id = next((item.run_id for item in self.entries if isinstance(item.body, RunStart)), None)
        keys: dict[str, list[object]] = defaultdict(list)
        for what in self.told:
            if what[0] == "effect":
                keys[str(what[1])].append(what[2])
        found = []
        for call in calls:
            made = keys.pop(call.id, [])
            if set(made) - {f"{run_id}:{call.id}"}:
                found.append(f"{call.id} ({call.name}) was called with the keys {made} in run {run_id}")
            most = MOST_KILLS + 1 if call.name in IDEMPOTENT else 1
            least = 0 if call.id in self.doubtful else 1
            if not least <= len(made) <= most:
                found.append(f"{call.id} ({call.name}) took effect {len(made)} times")
        return [*found, f"calls that nobody made took effect: {dict(keys)}"] if keys else found


def kills(proof: Proof) -> None:
    """Kill the process of a run, half the time at a random moment, half the time at a write, until it comes through."""
    with tempfile.TemporaryDirectory() as folder:
        for case in proof.cases():
            walk = Walk(Path(folder) / str(case), proof.chance(case))
            walk.folder.mkdir()
            moments: list[Moment] = []
            try:
                for moment in walk.moments(case):
                    moments.append(moment)
                    proof.counts[f"{moment}{'' if moment == 'at random' else ' a write'}"] += 1
                    proof.did()
                problems = walk.check()
            except sqlite3.Error as error:
                problems = [f"{type(error).__name__}: {error}"]
            for problem in problems:
                proof.differs(case, f"killed {', '.join(moments) or 'never'}: {problem}")
            proof.counts["walks"] += 1
            proof.counts["calls in doubt"] += len(walk.doubtful)
            if proof.at is not None and not proof.done:
                proof.did()
            shutil.rmtree(walk.folder)
