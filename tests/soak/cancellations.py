"""Runs that are cancelled: at random moments, many at once, and one by one at each of their steps.

Each run is cancelled once, and says so once; nothing of it is left; its log is valid, and its thread goes on.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import partial
from itertools import islice, product
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from plait import Cancelled, NothingToResume
from plait.log import history
from soak.steps import Moment, Steps, counting
from soak.world import ANSWER, STORES, World, in_a_loop, world

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable
    from pathlib import Path

    from plait import Agent
    from plait.entries import Entry
    from plait.streams import AgentRun
    from soak.progress import Proof

Kind = Literal["chat", "run", "stream", "promise"]
"""How a run is asked for, and who is cancelled: the caller, or (``promise``) the run by its own `cancel`."""

KINDS: Final[tuple[Kind, ...]] = ("chat", "run", "stream", "promise")
MOMENTS: Final[tuple[Moment, ...]] = ("waiting", "waking")
PROMPTS: Final = ("go", "go", "busy", "hold", "hold later")
TOGETHER: Final = 32  # runs at the same time
OF_ONE_LOOP: Final = 800  # runs, before the event loop, the server and the stores are closed and made anew
PATIENCE: Final = 20.0  # seconds for a run to end
MOST_STEPS: Final = 1000  # of a run: cases are numbered by the thousand


@dataclass
class Case:
    """One run that is cancelled, and what came of it.

    Attributes:
        number, agent, store, kind, prompt, thread: which it is, and how it runs.
        at, moment: the step at which it is cancelled; 0 for none.
        seconds: after which it is cancelled in any case.
        again: seconds after which it is cancelled a second time, while it is being cleaned up or after that.
        resume: whether its thread is resumed afterwards, before another chat.
        at_once: whether that chat begins the moment the caller was told of the cancellation.
        output: what the run gave, if it came to its end.
        cancellations: how many came out.
        steps: how many steps it had.
        to_cancel: what is called to cancel it; says whether it was still under way.
        told: whether it was cancelled before its end.
    """

    number: int
    agent: Agent[Any, Any] = field(repr=False)
    store: str
    kind: Kind
    prompt: str
    thread: str
    at: int = 0
    moment: Moment = "waiting"
    seconds: float | None = None
    again: float | None = None
    resume: bool = True
    at_once: bool = False
    output: str | None = None
    cancellations: int = 0
    steps: int = 0
    to_cancel: list[Callable[[], bool]] = field(default_factory=list, repr=False)
    told: bool = False

    async def cancelled(self) -> str | None:
        """Run, and be cancelled, unless the run ends before; say what is wrong with that."""
        steps = Steps(self.at, self.moment, self._cancel)
        task = steps.task(self._drive())
        if self.kind != "promise":
            self.to_cancel.append(task.cancel)
        timer = None
        if self.seconds is not None:
            timer = asyncio.get_running_loop().call_later(self.seconds, self._cancel)
        await asyncio.wait([task])
        self.steps = steps.count
        if timer is not None:
            timer.cancel()
        if not task.cancelled():
            task.result()
        if self.told and not self.cancellations:
            return "it was cancelled, and went on"
        if self.cancellations > (1 if self.again is None else 2):
            return f"{self.cancellations} cancellations came out of one"
        if not self.cancellations and self.output != ANSWER:
            return f"it was not cancelled, and the answer is {self.output!r}"
        return await self._wrong_chat() if self.at_once else None

    async def goes_on(self) -> str | None:
        """Go on with the thread; say what is wrong with its log, or its answers."""
        if wrong := wrong_log(await self.agent.log(self.thread)) or await self._wrong_lease():
            return wrong
        if self.resume and not self.at_once:
            try:
                answer = (await self.agent.resume(self.thread)).output
            except NothingToResume:
                answer = await self.agent.chat(self.prompt, thread=self.thread)
            if answer != ANSWER:
                return f"resumed, the answer is {answer!r}"
        return await self._wrong_chat() or wrong_log(await self.agent.log(self.thread))

    def _cancel(self) -> None:
        """Cancel, once: the step may come at which the run ends because its time is up."""
        if self.to_cancel:
            cancel = self.to_cancel.pop()
            self.told = cancel()
            if self.again is not None:
                asyncio.get_running_loop().call_later(self.again, cancel)

    async def _wrong_lease(self) -> str | None:
        """Say who holds the thread, while no run is under way."""
        store = self.agent.store
        thread = await store.find(self.thread)
        lease = await store.holder(thread.thread_id) if thread is not None else None
        return None if lease is None else f"run {lease.run_id!r} is over and holds its thread"

    async def _wrong_chat(self) -> str | None:
        answer = await self.agent.chat("again", thread=self.thread)
        return None if answer == ANSWER else f"the next answer is {answer!r}"

    async def _drive(self) -> None:
        """Run to the end, or to the cancellation; a second one would come while this counts the first."""
        try:
            self.output = await self._run()
        except asyncio.CancelledError:
            self.cancellations += 1
            try:
                for _ in range(5):
                    await asyncio.sleep(0)
            except asyncio.CancelledError:
                self.cancellations += 1
            raise
        except Cancelled:
            self.cancellations += 1

    async def _run(self) -> str | None:
        match self.kind:
            case "chat":
                return str(await self.agent.chat(self.prompt, thread=self.thread))
            case "stream":
                stream = self.agent.stream(self.prompt, thread=self.thread)
                async for _ in stream:
                    pass
                return await stream
            case _:
                run = self.agent.run(self.prompt, thread=self.thread)
                if self.kind == "promise":
                    self.to_cancel.append(partial(_cancel_promise, run))
                return str((await run).output)


def _cancel_promise(run: AgentRun[Any]) -> bool:
    was_under_way = not run.done()
    run.cancel()
    return was_under_way


def wrong_log(log: list[Entry]) -> str | None:
    """Say what is wrong with a log that no run is writing."""
    if [item.n for item in log] != list(range(1, len(log) + 1)) or len({item.id for item in log}) != len(log):
        return f"the entries are numbered {[item.n for item in log]}"
    if log and log[-1].kind != "run_finished":
        return f"the last entry is {log[-1].kind!r}: nobody wrote that the run ended"
    messages = history(log)
    for number, message in enumerate(messages):
        calls = [call.id for call in message.tool_calls]
        results = [result.call_id for after in messages[number + 1 : number + 2] for result in after.tool_results]
        if calls != results:
            return f"the calls {calls} are followed by the results {results}"
    return None


# --- at random moments ------------------------------------------------------------------------------------------------


def cancellations(proof: Proof) -> None:
    """Cancel runs at random moments, many at a time."""
    cases = proof.cases()
    while numbers := list(islice(cases, OF_ONE_LOOP)):
        _in_a_loop(proof, numbers[0], partial(_at_random, proof, numbers))


def _in_a_loop(proof: Proof, case: int, work: Callable[[World], Coroutine[Any, Any, None]]) -> None:
    """Do some of the cases in an event loop of their own; with it, everything of plait's must be closed."""

    async def main(folder: Path) -> None:
        async with world(folder) as made:
            with counting():
                await work(made)

    if left := in_a_loop(main):
        proof.leaves(case, f"the event loop and the stores are closed, and these are open: {dict(left)}")


async def _at_random(proof: Proof, numbers: Iterable[int], made: World) -> None:
    waiting = iter(numbers)
    while together := list(islice(waiting, TOGETHER)):
        cases = [_by_chance(proof, made, number) for number in together]
        await _cancelled(proof, made, cases)
        for case in cases:
            proof.counts[f"{case.kind} on {case.store}" if case.cancellations else "ended before"] += 1
        proof.did(1 if proof.at is not None else sum(case.cancellations > 0 for case in cases))
        if not proof.goes_on:
            return


def _by_chance(proof: Proof, made: World, number: int) -> Case:
    chance = proof.chance(number)
    store, what = chance.choice(STORES), chance.choice(PROMPTS)
    case = Case(number, made.agents[store, False], store, chance.choice(KINDS), f"{what} {number}", f"random {number}")
    case.moment, case.seconds = chance.choice(MOMENTS), chance.uniform(0, 0.1)
    case.resume, case.at_once = chance.random() < 0.5, chance.random() < 0.3
    if chance.random() < 0.2:
        case.again = chance.choice([0.0, 0.0, 0.001, 0.01])
    if chance.random() < 0.5:
        case.at, case.seconds = chance.randint(1, 60), 0.3
    return case


async def _cancelled(proof: Proof, made: World, cases: list[Case]) -> None:
    """Do cases together: run and cancel, see that nothing is left, go on with their threads, and see again."""
    for act in (Case.cancelled, Case.goes_on):
        made.model.holds = act is Case.cancelled
        wrong = await asyncio.gather(*(within_time(act(case)) for case in cases))
        for case, what in zip(cases, wrong, strict=True):
            if what is not None:
                proof.differs(case.number, f"{case}: {what}")
        for what in await made.left():
            proof.leaves(cases[0].number, f"after {act.__name__}: {what}")


async def within_time(act: Coroutine[Any, Any, str | None]) -> str | None:
    """Give what is wrong, also when it takes too long or raises."""
    try:
        return await asyncio.wait_for(act, PATIENCE)
    except Exception as error:  # noqa: BLE001  # no error may come out of any of this
        return f"{type(error).__name__} came out: {str(error)[:300]}"


# --- at every step ----------------------------------------------------------------------------------------------------


class Way(NamedTuple):
    """One way to run, and to be cancelled."""

    kind: Kind
    store: str
    offline: bool
    moment: Moment


WAYS: Final = tuple(Way(*way) for way in product(KINDS, STORES, (True, False), MOMENTS))


def steps(proof: Proof, ways: Iterable[Way] = WAYS) -> None:
    """Cancel a run at its first step, another at its second, and so on (some 800), for each way to run."""
    chosen = list(ways)
    if proof.at is not None:
        chosen = [WAYS[proof.at // MOST_STEPS]]
    _in_a_loop(proof, proof.at or 0, partial(_at_every_step, proof, chosen))
    proof.wanted = proof.done


async def _at_every_step(proof: Proof, ways: list[Way], made: World) -> None:
    for way in ways:
        for at in range(1, MOST_STEPS) if proof.at is None else [proof.at % MOST_STEPS]:
            number = WAYS.index(way) * MOST_STEPS + at
            case = Case(number, made.agents[way.store, way.offline], way.store, way.kind, "go", f"step {number}")
            case.at, case.moment = at, way.moment
            await _cancelled(proof, made, [case])
            proof.did()
            proof.counts[f"{way.kind} on {way.store}" if case.cancellations else "ended before"] += 1
            if case.steps < at or not proof.goes_on:
                break
