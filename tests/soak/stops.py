"""Runs that are stopped, at random moments of streams, tools and waits: how soon they end, and what they leave.

A run that was told to stop ends at once with what it has: the text that had come, with what it took; nothing of it is
left, its server sees it leave, its log is valid, and its thread and its history go on.
"""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass, field
from itertools import islice
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from plait import (
    Agent,
    AssistantMessage,
    MessageAdded,
    RunContext,
    StopSignal,
    TextDelta,
    UserMessage,
    tool,
)
from plait.context.window import ContextWindow
from plait.entries import MessageEntry
from plait.limits import Budget, spent
from plait.purse import DEFAULT_OUTPUT
from plait.workers import WORKERS
from soak.cancellations import MOMENTS, PATIENCE, within_time, wrong_log
from soak.leftovers import soon
from soak.progress import percentile
from soak.server import Step, whole
from soak.signals import WAYS, Stop, Way
from soak.steps import Steps, counting
from soak.upstreams import LOOKING, Upstream, Upstreams, upstreams
from soak.world import in_a_loop

if TYPE_CHECKING:
    import random
    from collections.abc import Callable
    from pathlib import Path

    from plait import RunResult
    from plait.events import Event
    from plait.messages import Message
    from plait.store.base import Store
    from soak.progress import Proof

Place = Literal[
    "first byte",
    "stream",
    "last piece",
    "between turns",
    "sync tool",
    "async tool",
    "agent in a tool",
    "back-off",
    "queue",
    "lease",
    "summary",
    "any step",
]
"""Where a run is when it is stopped.

It waits for an answer, reads one, or has read all but its end; it goes on to the next turn; it is in a tool, or in one
that has another agent run; it waits to ask again, for another run of its thread, here or elsewhere, or for a summary of
what was said before; or it does anything.
"""

PLACES: Final[tuple[Place, ...]] = get_args(Place)
ENDLESS: Final = ("async tool", "agent in a tool")  # places in the tool that waits for ever
LONG: Final = ContextWindow(last=2, dropping="summary")
BUDGET: Final = 10**7  # tokens
HOOKS: Final = ("on_after_request", "on_function_call_end", "on_before_request")  # of these, one is between turns
TOGETHER: Final = 8  # runs at the same time: few, so that their times are not those of a busy machine
OF_ONE_LOOP: Final = 200  # runs, before the event loop, the servers and the stores are closed and made anew
AT_MOST: Final = 0.1  # seconds to the end of a run, for 99 of a hundred
ENOUGH: Final = 300  # times, to judge by
LATEST: Final = 0.3  # seconds after which a run is stopped at the latest


@dataclass
class Case:
    """One run that is stopped, and what came of it.

    Attributes:
        number, place, way, store: which it is, and where, by what and with what store it is stopped.
        text: of the last answer, as readers got it.
        partial: of an answer that did not come to its end; None where there was none.
        result: how it ended.
        seconds: from the moment the stop was true to the end; None if it ended before.
        in_thread: whether its sync tool is at work.
        cleaned_up: whether its async tool was ended.
    """

    number: int
    upstream: Upstream = field(repr=False)
    store: str
    kept_in: Store = field(repr=False)
    place: Place
    way: Way
    chance: random.Random = field(repr=False)
    text: str = ""
    partial: str | None = None
    result: RunResult[Any] | None = field(default=None, repr=False)
    seconds: float | None = None
    in_thread: bool = False
    cleaned_up: bool = False

    def __post_init__(self) -> None:
        self.means = (f"by {self.way}", f"on {self.store}", f"of {self.upstream.subject.name}")
        self.thread = f"stop {self.number}"
        self.stop = Stop(self.way, self.chance.uniform(0.01, 0.03))
        self.let_go = threading.Event()
        self.budget = Budget(max_tokens=BUDGET, key=self.thread)
        self.agent = Agent(
            name="Soak",
            provider=self.upstream.provider(),
            tools=TOOLS,
            store=self.kept_in,
            sequential_tools=self.chance.random() < 0.5,
            memory_strategy=LONG if self.place == "summary" else "last_n",
            budget=self.budget if self.chance.random() < 0.5 else None,
        )
        self.upstream.cases[self.number] = self._answer

    # --- what it is answered

    def _answer(self, turn: int) -> list[Step]:
        """Give the steps of the server for one of the turns, and have the stop be true while it does them."""
        chance, upstream, pace = self.chance, self.upstream, self.chance.uniform(0.001, 0.006)
        match self.place:
            case "first byte":
                self.stop.after(chance.uniform(0, 0.02))
                return chance.choice([["hold"], [upstream.head, "hold"]])
            case "back-off":
                self.stop.after(chance.uniform(0.01, 0.05))
                asked = chance.choice(["", "retry-after: 20\r\n"])
                return whole({"error": {"message": "busy"}}, chance.choice([429, 503]), asked)
            case "stream":
                pieces, most = upstream.pieces(chance.choice(upstream.subject.references))
                pieces = pieces[: chance.randint(1, most)]
                self.stop.after(chance.uniform(0, pace * (len(pieces) + 2)))
                return upstream.held(pieces, pace)
            case "last piece":
                pieces, most = upstream.pieces(upstream.plain)
                return upstream.held(pieces[: chance.choice([most, most + 1])], pace / 4)
            case _ if turn == 0:
                return upstream.whole(upstream.calling)
            case _:
                pieces, most = upstream.pieces(upstream.plain)
                return upstream.held(pieces[: chance.randint(0, most)], pace)

    def read(self, event: Event) -> None:
        """Take note of what readers get."""
        if isinstance(event, TextDelta):
            self.text = self.partial = (self.partial or "") + event.text
            if self.place == "last piece" and self.text == self.upstream.plain.text:
                self.stop.after(self.chance.choice([0.0, 0.003]))
        elif isinstance(event, MessageAdded) and event.finish_reason is not None:
            self.partial = None  # that was the whole answer, and its text stays

    # --- its run

    async def stopped(self) -> str | None:
        """Run, and be stopped; say what is wrong with that."""
        match self.place:
            case "queue":
                wrong = await self._behind_another()
            case "lease":
                thread = await self.kept_in.thread(self.thread)
                lease = await self.kept_in.acquire(thread.thread_id, "run_other", "elsewhere", PATIENCE)
                assert lease is not None
                wrong = await self._wrong_run(self.chance.uniform(0, 0.03))
                await self.kept_in.release(lease)
            case "summary":
                wrong = await self._wrong_run(self.chance.uniform(0, 0.03))
            case "any step":
                steps = Steps(self.chance.randint(1, 60), self.chance.choice(MOMENTS), self.stop.say)
                wrong = await steps.task(self._wrong_run(LATEST))
            case _:
                wrong = await self._wrong_run()
        if wrong is None and self.place == "sync tool" and not self.in_thread:
            wrong = "its sync tool was waited for"
        if wrong is None and self.place in ENDLESS and not self.cleaned_up:
            wrong = "its async tool was not ended"
        return wrong

    async def _behind_another(self) -> str | None:
        stop = StopSignal()
        first = self.agent.run(f"hold {self.number}", thread=self.thread, stop=stop)
        if not await soon(lambda: self.number in self.upstream.holds, PATIENCE):
            return "the run before it asks nobody"
        wrong = await self._wrong_run(self.chance.uniform(0, 0.03))
        stop.set()
        reason = (await first).stop_reason
        return wrong or (None if reason == "user_stop" else f"the run before it ended with {reason!r}")

    async def _wrong_run(self, latest: float | None = None) -> str | None:
        run = self.agent.run(
            self._prompt(),
            thread=self.thread,
            stop=self.stop.given,
            deps=self,
            hooks={self.chance.choice(HOOKS): self._turned} if self.place == "between turns" else {},
        )
        if latest is not None:
            self.stop.after(latest)
        async for event in run:
            self.read(event)
        self.result = result = await run
        ended = perf_counter()
        if self.stop.at is not None and result.stop_reason == "user_stop":
            self.seconds = ended - self.stop.at
        if self.seconds is None and not (self.place == "last piece" and result.stop_reason == "response"):
            return f"it ended with {result.stop_reason!r}"
        if result.output != self.text:
            return f"its output is {result.output!r}, and readers got {self.text!r}"
        return None

    def _prompt(self) -> list[Message]:
        """Give what the run is asked: of what is long, the summary is asked for first, and never comes."""
        go = UserMessage(text=f"go {self.number}")
        if self.place != "summary":
            return [go]
        said: list[Message] = [UserMessage(text=f"hold {self.number}"), AssistantMessage(text="I hold.")]
        return [*said, UserMessage(text="Well?"), AssistantMessage(text="Yes."), go]

    async def _turned(self, _: object) -> None:
        """Be told by a hook that an answer or a call is over, or that the next request begins."""
        if self.text == LOOKING:
            self.stop.say()

    # --- what it leaves

    async def goes_on(self) -> str | None:
        """Say what is wrong with the log, and go on: with the thread, and with the history alone."""
        assert self.result is not None
        log = await self.agent.log(self.thread)
        mine = [item.body for item in log if item.run_id == self.result.run_id]
        cut = [body for body in mine if isinstance(body, MessageEntry) and body.cut is not None]
        if self.place in ("queue", "lease"):
            if mine or self.result.messages[0].text != f"go {self.number}":
                return f"it never had its thread, and wrote {mine}"
        elif self.partial is not None and self.seconds is not None:
            if [(body.message.text, body.cut) for body in cut] != [(self.partial, "user_stop")]:
                return f"{self.partial!r} was read, and these were kept: {cut}"
            usage = cut[0].usage
            told = self.place in {"last piece", "any step"}  # the provider may have told all of it before the stop
            if usage is None or not (usage.estimated or told) or not usage.input_tokens or not usage.output_tokens:
                return f"what was cut took {usage}"
            if self.result.usage is None or self.result.usage.output_tokens < usage.output_tokens:
                return f"the run took {self.result.usage}, its cut answer {usage}"
        if wrong := wrong_log(log) or await self._wrong_budget():
            return wrong
        agent = Agent(name="Soak", provider=self.upstream.provider(), tools=TOOLS, store=self.kept_in)
        prompt = f"again {self.number}"
        for how, again in (
            ("its history", agent.run([*self.result.history, UserMessage(text=prompt)])),
            ("its thread", agent.run(prompt, thread=self.thread)),
        ):
            if (answer := (await again).output) != self.upstream.plain.text:
                return f"{how} goes on with {answer!r}"
        return wrong_log(await self.agent.log(self.thread))

    async def _wrong_budget(self) -> str | None:
        """Say what is still reserved for requests that are over."""
        spending = await spent(self.kept_in, self.budget)
        open_still = spending.tokens >= DEFAULT_OUTPUT  # at least so much is reserved for each
        return f"its requests are over, and {spending} stands in its account" if open_still else None


@tool
def weather(place: str, context: RunContext[Case]) -> str:
    """Hold a thread, where that is the place."""
    case = context.deps
    if case.place == "sync tool":
        case.in_thread = True
        case.stop.after(case.chance.uniform(0, 0.02))
        case.let_go.wait(PATIENCE)
        case.in_thread = False
    else:
        time.sleep(0.001)
    return f"cold in {place}"


@tool(name="time")
async def clock(zone: str, context: RunContext[Case]) -> str:
    """Wait for ever, for nothing or for another agent, where that is the place."""
    case = context.deps
    if case.place in ENDLESS:
        case.stop.after(case.chance.uniform(0, 0.02))
        try:
            await (asyncio.sleep(PATIENCE) if case.place == "async tool" else case.agent.run(f"hold {case.number}"))
        finally:
            case.cleaned_up = True
    return f"late in {zone}"


@tool
async def ping() -> str:
    """Do nothing."""
    return "pong"


TOOLS: Final = (weather, clock, ping)


def stops(proof: Proof) -> None:
    """Stop runs in streams, tools and waits; 99 of a hundred end within 0.1 s."""
    cases, slowest = proof.cases(), (0.0, 0)
    for what in ("all", *PLACES, *(f"by {way}" for way in WAYS)):
        proof.times[what] = []  # in this order
    while numbers := list(islice(cases, OF_ONE_LOOP)):

        async def main(folder: Path, numbers: list[int] = numbers) -> None:
            nonlocal slowest
            async with upstreams(folder) as made:
                with counting():
                    slowest = max(slowest, await _in_turns(proof, numbers, made))

        if left := in_a_loop(main):
            proof.leaves(numbers[0], f"the event loop and the stores are closed, and these are open: {dict(left)}")
    times = proof.times["all"]
    if len(times) >= ENOUGH and percentile(times, 99) > AT_MOST:
        proof.differs(slowest[1], f"99 of a hundred end within {percentile(times, 99):.3f} s, not {AT_MOST} s")


async def _in_turns(proof: Proof, numbers: list[int], made: Upstreams) -> tuple[float, int]:
    """Do some of the cases, a few together; give the longest time, and whose it is."""
    waiting, slowest = iter(numbers), (0.0, 0)
    while together := list(islice(waiting, TOGETHER)):
        cases = [_by_chance(proof, made, number) for number in together]
        await _all_of(proof, cases, Case.stopped)
        held = sum(case.in_thread for case in cases)
        if WORKERS.left != held:
            proof.leaves(together[0], f"{WORKERS.left} threads are said to be left in tools, and {held} are")
        for case in cases:
            case.let_go.set()
        await _left(proof, cases, made)
        await _all_of(proof, cases, Case.goes_on)
        await _left(proof, cases, made)
        for case in cases:
            proof.counts[case.place if case.seconds is not None else "ended before"] += 1
            if case.seconds is not None:
                slowest = max(slowest, (case.seconds, case.number))
                for what in ("all", case.place, *case.means):
                    proof.times[what].append(case.seconds)
        proof.did(1 if proof.at is not None else sum(case.seconds is not None for case in cases))
        if not proof.goes_on:
            break
    return slowest


def _by_chance(proof: Proof, made: Upstreams, number: int) -> Case:
    chance = proof.chance(number)
    place = PLACES[number % len(PLACES)]
    store = "sqlite" if place == "lease" else chance.choice(list(made.stores))
    upstream = chance.choice(list(made.of.values()))
    return Case(number, upstream, store, made.stores[store], place, chance.choice(WAYS), chance)


async def _all_of(proof: Proof, cases: list[Case], act: Callable[[Case], Any]) -> None:
    wrong = await asyncio.gather(*(within_time(act(case)) for case in cases))
    for case, what in zip(cases, wrong, strict=True):
        if what is not None:
            proof.differs(case.number, f"{case}: {what}")


async def _left(proof: Proof, cases: list[Case], made: Upstreams) -> None:
    for what in await made.left():
        proof.leaves(cases[0].number, f"of cases {[case.number for case in cases]}: {what}")
