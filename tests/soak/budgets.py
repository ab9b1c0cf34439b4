"""Many processes spend from one budget in one file, and some are killed: purses alone, and agents in whole runs.

The provider counts exactly, and writes down what it was asked for before it answers: that is the truth which the
accounts are held against. All processes are forks of this one: nothing here may start a thread.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import signal
import sqlite3
import tempfile
import time
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from plait import Agent, StopSignal, tool
from plait.counting import SIMPLE, message_tokens
from plait.events import FinishDelta, Fold, TextDelta, ToolCallDelta, Usage, UsageDelta
from plait.inquiry import input_tokens
from plait.limits import Budget, Exceeded
from plait.messages import AssistantMessage, UserMessage
from plait.prices import Price, Prices
from plait.providers.base import Request, Settings
from plait.purse import Purse
from plait.store.database import DatabaseStore
from store.processes import PATIENCE, ended, forked

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from plait.events import Delta
    from soak.progress import Proof

PRICE: Final = Price("0.25", "1.5")
INPUT, OUTPUT = 250, 1_500  # nano-dollars for a token
LONGEST_CALL: Final = 0.05  # seconds
TEXT: Final = "so many"
COUNTED: Final = message_tokens(AssistantMessage(text=TEXT), SIMPLE)  # where a run is stopped after it
PATIENT: Final = 10  # refusals after which a process gives up
LONGEST_LIFE: Final = 0.6  # seconds from the fork within which a process may be killed


def tell(file: int, *what: object) -> None:
    """Write one line, with one call, so that a kill cannot leave half of it."""
    os.write(file, json.dumps(what).encode() + b"\n")


@dataclass
class Meter:
    """A provider that answers with as many tokens as it likes, and never with more than it was asked for."""

    told: int
    chance: random.Random
    name: str = "meter"
    model: str = "exact"
    input_tokens: int = 0

    async def stream(self, request: Request) -> AsyncGenerator[list[Delta], None]:
        most = request.settings.max_tokens
        assert most is not None
        least = min(COUNTED, most)  # a provider does not tell fewer tokens than it sends
        output = self.chance.choice([most, self.chance.randint(least, most)])
        tell(self.told, "used", self.input_tokens, output)
        await asyncio.sleep(self.chance.uniform(0, LONGEST_CALL))
        yield [TextDelta(TEXT), UsageDelta(Usage(input_tokens=self.input_tokens, output_tokens=output))]
        yield [FinishDelta("stop")]


@dataclass
class Household:
    """One budget in one file, and the processes that spend from it.

    Attributes:
        folder: where the file is.
        processes: how many there are.
        killed: how many of them are killed, at most.
        ends: their exit codes.
        left: how many reservations nobody will settle any more.
        life: seconds from the fork within which a process may be killed.
    """

    folder: Path
    chance: random.Random
    processes: int
    killed: int
    ends: list[int] = field(default_factory=list)
    left: int = 0
    life: float = LONGEST_LIFE

    def __post_init__(self) -> None:
        self.nanos = self.chance.randint(1_000_000, 10_000_000) * self.processes
        self.tokens = self.nanos // self.chance.randint(700, 1_300)  # either may be used up first
        money = Budget(max_cost=f"{self.nanos / 1_000_000_000:.9f}", per="user")
        self.budgets = (money, Budget(max_tokens=self.tokens, key="household"), Budget(max_tokens=10**9))

    def opened(self) -> tuple[int, DatabaseStore]:
        """Give where a process writes down what it does, and the store with the budget."""
        told = os.open(self.folder / "told", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        return told, DatabaseStore(f"sqlite:///{self.folder / 'plait.db'}", busy_seconds=PATIENCE)

    async def spend(self, number: int) -> None:
        """Ask until there is no room any more, in a process of its own."""
        chance = random.Random(f"{self.chance.random()}:{number}")  # noqa: S311  # repeatable, nothing secret
        told, store = self.opened()
        ids = {"user_id": "ann", "thread_id": f"thr_{number}", "run_id": f"run_{number}"}
        purse = Purse(self.budgets, Prices(PRICE), store, **ids)
        meter = Meter(told, chance)
        refused = 0
        while refused < PATIENT:
            meter.input_tokens = chance.randint(1, 400)
            settings = Settings(max_tokens=chance.choice([None, 5, 5, 50, 50, 500, 500, 500]))
            request = Request(messages=(UserMessage(text="how many?"),), settings=settings)
            call = await purse.reserve(request, meter, meter.input_tokens, exact=True)
            if isinstance(call, Exceeded):
                refused += 1
                await asyncio.sleep(LONGEST_CALL)  # what others reserved and do not use may leave room
                continue
            fold = Fold(meter.name, meter.model)
            async for deltas in meter.stream(call.request):
                fold.add(deltas)
            assert fold.usage is not None
            if chance.random() < 0.1:  # it was stopped before its end, and what was received is counted here
                await call.settle(fold.usage.model_copy(update={"estimated": True}))
            else:
                await call.settle(fold.usage)
            tell(told, "settled", fold.usage.input_tokens, fold.usage.output_tokens, 1)
        tell(told, "refused")
        await store.close()

    def live(self) -> None:
        """Let all processes spend, and kill some of them meanwhile."""
        pids = [forked(lambda number=number: self.spend(number)) for number in range(self.processes)]  # type: ignore[misc]  # the number of this turn
        moments = sorted(self.chance.uniform(0, self.life) for _ in range(self.killed))
        doomed = self.chance.sample(pids, self.killed)
        began = time.monotonic()
        for moment, pid in zip(moments, doomed, strict=True):
            time.sleep(max(0.0, began + moment - time.monotonic()))
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)  # it is not waited for yet, so the number is its own
        self.ends = ended(pids)

    @property
    def told(self) -> list[list[object]]:
        with suppress(FileNotFoundError):
            return [json.loads(line) for line in (self.folder / "told").read_text().splitlines()]
        return []

    @property
    def settled(self) -> int:
        """How many calls were, as their processes say."""
        return sum(int(str(one[3])) for one in self.told if one[0] == "settled")

    def sums(self, what: str) -> tuple[int, int]:
        """Give the nano-dollars and tokens of what was told."""
        pairs = [(int(str(one[1])), int(str(one[2]))) for one in self.told if one[0] == what]
        return sum(a * INPUT + b * OUTPUT for a, b in pairs), sum(a + b for a, b in pairs)

    def problems(self) -> list[str]:
        """Give what is not as it must be, once all processes are gone."""
        found = []
        if wrong := [end for end in self.ends if end not in (0, -signal.SIGKILL)]:
            found.append(f"processes ended with {wrong}; their errors stand above")
        with closing(sqlite3.connect(self.folder / "plait.db")) as connection:
            fields = "nanos, tokens, estimated_nanos, estimated_tokens"
            accounts = connection.execute(f"SELECT account, {fields} FROM accounts ORDER BY account").fetchall()  # noqa: S608
            open_ = connection.execute(
                "SELECT total(nanos), total(tokens) FROM reservations WHERE account = 'user ann'"
            ).fetchone()
            (self.left,) = connection.execute("SELECT count(DISTINCT operation) FROM reservations").fetchone()
        rows = {name: numbers for name, *numbers in accounts}
        nanos, tokens, estimated_nanos, estimated_tokens = rows.get("user ann", [0, 0, 0, 0])
        if rows.get("key household", [0, 0, 0, 0]) != [nanos, tokens, estimated_nanos, estimated_tokens]:
            found.append(f"a call stands on one account and not on another: {rows}")
        used, settled = self.sums("used"), self.sums("settled")
        for unit, limit, said, true, done, guessed, left in (
            ("nano-dollars", self.nanos, nanos, used[0], settled[0], estimated_nanos, int(open_[0])),
            ("tokens", self.tokens, tokens, used[1], settled[1], estimated_tokens, int(open_[1])),
        ):
            if true > limit:
                found.append(f"{true} {unit} were used, and the budget was {limit}")
            if said > limit:
                found.append(f"the account holds {said} {unit}, and the budget was {limit}")
            if said < true:
                found.append(f"the account holds {said} {unit}, and {true} were used: a hole")
            if said - guessed > true or said - left < done:
                found.append(
                    f"{done} of {true} {unit} were settled; the account: {said}, {guessed} estimated, {left} open"
                )
            if not (self.killed or said == true):
                found.append(f"nobody was killed, and the account holds {said} {unit} for {true}")
        return found


@tool
def look(what: str) -> str:
    """Look at something."""
    return f"a {what}"


@dataclass
class Model(Meter):
    """A meter that counts what it is really sent, calls a tool now and then, and can be stopped before its end."""

    stop: StopSignal = field(default_factory=StopSignal)

    async def stream(self, request: Request) -> AsyncGenerator[list[Delta], None]:
        self.input_tokens = input_tokens(request)
        calls = request.messages[-1].role == "user" and self.chance.random() < 0.5
        async for deltas in super().stream(request):
            if calls and isinstance(deltas[0], FinishDelta):
                yield [ToolCallDelta(0, "c1", "look", '{"what":"purse"}'), FinishDelta("tool_calls")]
            else:
                yield deltas
            if self.chance.random() < 0.1:
                self.stop.set()
                await asyncio.sleep(0)


@dataclass
class Agency(Household):
    """The same with an agent in each process, which asks in whole runs on a thread of its own."""

    life: float = 3 * LONGEST_LIFE

    async def spend(self, number: int) -> None:
        """Run until there is no room any more, in a process of its own."""
        chance = random.Random(f"{self.chance.random()}:{number}")  # noqa: S311  # repeatable, nothing secret
        told, store = self.opened()
        model = Model(told, chance)
        agent = Agent(provider=model, store=store, tools=[look], budget=self.budgets, prices=PRICE)
        refused = 0
        while refused < PATIENT:
            model.stop = StopSignal()
            limited = Settings(max_tokens=chance.choice([None, 50, 500]))
            hooks = {"on_before_request": lambda event, limited=limited: replace(event.request, settings=limited)}
            question = "how many? " * chance.randint(1, 20)
            result = await agent.run(question, thread=f"t{number}", user_id="ann", stop=model.stop, hooks=hooks)
            if result.usage is not None:
                used = result.usage
                tell(told, "settled", used.input_tokens, used.output_tokens, used.requests)
            if result.stop_reason == "budget":
                refused += 1
                await asyncio.sleep(LONGEST_CALL)
        tell(told, "refused")
        await store.close()


def budgets(proof: Proof, processes: int = 50, kind: type[Household] = Household) -> None:
    """Let 50 processes spend from one budget with exact counts, and kill up to 20 of them, in one file each time."""
    with tempfile.TemporaryDirectory() as folder:
        for case in proof.cases():
            chance = proof.chance(case)
            killed = chance.choice([0, processes // 8, processes * 2 // 5])
            household = kind(Path(folder) / str(case), chance, processes, killed)
            household.folder.mkdir()
            household.live()
            for problem in household.problems():
                proof.differs(case, problem)
            told = [one[0] for one in household.told]
            proof.counts["calls"] += told.count("used")
            proof.counts["files with half of the budget used"] += household.sums("used")[0] * 2 > household.nanos
            proof.counts["processes that were refused"] += told.count("refused")
            proof.counts["processes that were killed"] += household.ends.count(-signal.SIGKILL)
            proof.counts["calls that were killed"] += told.count("used") - household.settled
            proof.counts["estimates left"] += household.left
            proof.did()
            shutil.rmtree(household.folder)


def budgets_of_8(proof: Proof) -> None:
    """The same with 8 processes, in less time."""
    budgets(proof, 8)


def agents(proof: Proof, processes: int = 50) -> None:
    """Let 50 processes with an agent each run on one user's budget, and kill up to 20 of them, likewise."""
    budgets(proof, processes, Agency)


def agents_of_8(proof: Proof) -> None:
    """The same with 8 processes, in less time."""
    agents(proof, 8)
