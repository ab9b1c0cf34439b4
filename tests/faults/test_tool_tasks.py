"""Tools that start tasks and return."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
from contextlib import suppress
from contextvars import Context
from typing import Any

import pytest

from faults.aftermath import (
    HOWS,
    WITHIN,
    How,
    agent_with,
    ask,
    assert_goes_on,
    calls,
    nothing_left,
    stored,
)
from plait import (
    Agent,
    OfflineProvider,
    Request,
    ToolCall,
)
from plait.promises import Promise
from plait.scopes import Scope

# --- T10: starts a task and returns -----------------------------------------------------------------------------------


class Started:
    """Tasks that a tool starts, in every way there is."""

    def __init__(self) -> None:
        self.ended: list[str] = []
        self.kept: set[Any] = set()

    async def work(self, name: str, stubborn: int = 0) -> None:
        try:
            while True:
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    stubborn -= 1
                    if stubborn < 0:
                        raise
        finally:
            self.ended.append(name)

    def keep(self, thing: Any) -> None:
        self.kept.add(thing)

    async def start(self) -> str:
        """Start them."""
        loop = asyncio.get_running_loop()
        self.keep(asyncio.create_task(self.work("create_task")))
        self.keep(asyncio.ensure_future(self.work("ensure_future")))
        self.keep(loop.create_task(self.work("loop")))
        self.keep(asyncio.create_task(self.work("stubborn", 1)))
        self.keep(asyncio.create_task(self.nest()))
        self.keep(asyncio.gather(self.work("gathered"), asyncio.shield(self.work("shielded"))))
        loop.call_soon(lambda: self.keep(asyncio.ensure_future(self.work("callback"))))
        group = asyncio.TaskGroup()
        await group.__aenter__()
        self.keep(group.create_task(self.work("group")))
        self.keep(Promise(lambda: self.work("promise")))
        for _ in range(3):
            await asyncio.sleep(0)  # until all of them have begun
        return "started"

    async def nest(self) -> None:
        try:
            self.keep(asyncio.create_task(self.work("nested")))
            await asyncio.Event().wait()
        finally:
            self.keep(asyncio.create_task(self.work("while ending")))

    names = ("create_task", "ensure_future", "loop", "stubborn", "gathered", "shielded", "callback", "group", "promise")


@pytest.mark.fault("T10")
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("how", HOWS)
async def test_tasks_that_a_tool_leaves_end_with_their_run(how: How, count: int) -> None:
    async with nothing_left():
        started = Started()
        agent = agent_with(started.start, made=calls("start", count))
        assert (await ask(agent, how)).splitlines() == ["started"] * count
        expected = {*started.names, "nested"}
        assert set(started.ended) - {"while ending"} == expected
        started.kept.clear()
        await assert_goes_on(agent)


@pytest.mark.fault("T10")
async def test_a_task_lives_while_its_run_does_and_may_end_by_itself(caplog: pytest.LogCaptureFixture) -> None:
    done = asyncio.Event()
    kept: list[asyncio.Task[None]] = []

    async def report() -> None:
        await asyncio.sleep(0)
        done.set()

    async def begin() -> str:
        kept.append(asyncio.create_task(report()))
        return "begun"

    async def wait_for_it() -> str:
        await done.wait()
        return "there"

    def answer(request: Request) -> Any:
        results = [message.text for message in request.messages if message.role == "tool"]
        return [*calls("begin"), *calls("wait_for_it", 2)[1:], "done"][len(results)]

    caplog.set_level(logging.INFO, "plait.tools")
    agent = Agent(provider=OfflineProvider(function=answer), tools=[begin, wait_for_it])
    assert await ask(agent, "chat") == "done"
    assert kept[0].done()
    assert not kept[0].cancelled()
    assert caplog.messages == []


@pytest.mark.fault("T10")
async def test_a_task_that_does_not_end_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    started, release = Started(), asyncio.Event()

    async def stay() -> None:
        while not release.is_set():
            with suppress(asyncio.CancelledError):
                await release.wait()

    async def begin() -> str:
        started.keep(asyncio.create_task(stay()))
        started.keep(asyncio.create_task(stay()))
        return "begun"

    agent = agent_with(begin)
    result = await agent.run("go")
    assert result.output == "begun"
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert warnings == [
        f"the tool 'begin' of run {result.run_id} left tasks behind that do not end: 2 still run after 1 s"
    ]
    release.set()
    await asyncio.wait(started.kept)
    await assert_goes_on(agent)


@pytest.mark.fault("T10")
@pytest.mark.parametrize("end", ["cancelled", "failed", "stream left"])
async def test_tasks_end_however_their_run_ends(end: str) -> None:
    started, begun = Started(), asyncio.Event()

    async def begin() -> str:
        started.keep(asyncio.create_task(started.work("task")))
        begun.set()
        return "begun"

    async def answer(request: Request) -> Any:
        if request.messages[-1].role != "tool":
            return calls("begin")
        if end == "failed":
            return ValueError("no more")
        await asyncio.Event().wait()
        return ""

    async with nothing_left():
        agent: Agent[Any, Any] = Agent(provider=OfflineProvider(function=answer), tools=[begin])
        if end == "stream left":
            stream = agent.stream("go").__aiter__()
            reading = asyncio.ensure_future(anext(stream))
            await asyncio.wait_for(begun.wait(), WITHIN)
            reading.cancel()
            await asyncio.wait([reading])
            await stream.aclose()
        else:
            task = asyncio.ensure_future(agent.chat("go"))
            await asyncio.wait_for(begun.wait(), WITHIN)
            if end == "cancelled":
                task.cancel()
            await asyncio.wait([task], timeout=WITHIN)
            assert task.done()
            assert isinstance(None if task.cancelled() else task.exception(), ValueError | None)
        assert started.ended == ["task"]


@pytest.mark.fault("T10")
async def test_only_what_the_run_s_own_tools_started_is_ended() -> None:
    """Other runs, tasks round the run, what another scope owns, and what asked to be nobody's, live on."""
    theirs, others = Started(), Started()
    gate = asyncio.Event()

    async def begin(name: str) -> str:
        theirs.keep(asyncio.create_task(theirs.work(name)))
        if name == "first":
            context = Context()
            others.keep(asyncio.get_running_loop().create_task(others.work("nobody's"), context=context))
            others.keep(Promise(lambda: others.work("a scope's"), owner=scope))
        return name

    async def wait_for_gate() -> str:
        await gate.wait()
        return "through"

    def answer(request: Request) -> Any:
        name = request.messages[0].text
        done = sum(message.role == "tool" for message in request.messages)
        first = ToolCall(id="1", name="begin", arguments=json.dumps({"name": name}))
        return [first, *([calls("wait_for_gate", 2)[1:]] if name == "second" else []), name][done]

    before = asyncio.create_task(others.work("round it"))
    scope = Scope()
    agent: Agent[Any, Any] = Agent(provider=OfflineProvider(function=answer), tools=[begin, wait_for_gate])
    second = agent.run("second")
    async for event in second:
        if "begin" in repr(event) and theirs.kept:
            break
    assert (await agent.run("first")).output == "first"
    assert theirs.ended == ["first"]
    assert others.ended == []
    gate.set()
    assert (await second).output == "second"
    assert sorted(theirs.ended) == ["first", "second"]
    assert others.ended == []
    scope.cancel()
    for task in (before, *others.kept):
        task.cancel()
    await asyncio.wait([before, *(task for task in others.kept if isinstance(task, asyncio.Task))])
    await asyncio.sleep(0)
    assert sorted(others.ended) == ["a scope's", "nobody's", "round it"]


@pytest.mark.fault("T10")
async def test_a_lease_taken_within_a_tool_is_still_renewed_when_the_run_is_over() -> None:
    """The task that renews leases works for all runs, and is begun by the first."""
    async with nothing_left(), stored() as store:
        inner = Agent(provider=OfflineProvider(function=lambda _: "inner"), store=store)
        gate, there = asyncio.Event(), asyncio.Event()

        async def wait(_: Request) -> str:
            there.set()
            await gate.wait()
            return "slow"

        slow = Agent(provider=OfflineProvider(function=wait), store=store)
        started = Started()

        async def ask_inner() -> str:
            said = await inner.chat("hi", thread="inner")
            started.keep(asyncio.create_task(started.work("left")))
            return str(said)

        outer = agent_with(ask_inner)
        lasting = asyncio.create_task(slow.chat("hi", thread="slow"))
        await asyncio.wait_for(there.wait(), WITHIN)
        assert await ask(outer, "chat") == "inner"
        keepers = [task for task in asyncio.all_tasks() if task.get_name() == "plait: lease renewal"]
        assert len(keepers) == 1
        assert not keepers[0].cancelling()
        gate.set()
        assert await lasting == "slow"


@pytest.mark.fault("T10")
async def test_a_thousand_runs_at_once_each_leave_a_task() -> None:
    started = Started()

    async def begin() -> str:
        started.keep(asyncio.create_task(started.work("task")))
        return "begun"

    async with nothing_left(), asyncio.timeout(WITHIN):
        agent = agent_with(begin)
        results = await asyncio.gather(*(agent.run("go") for _ in range(1000)))
        assert {result.output for result in results} == {"begun"}
        assert len(started.ended) == 1000


@pytest.mark.fault("T10")
async def test_of_a_tool_that_leaves_nothing_nothing_is_kept() -> None:
    from plait.errands import Errand

    async def calm() -> str:
        async with asyncio.timeout(60):
            await asyncio.create_task(asyncio.sleep(0))
        return "calm"

    def errands() -> set[int]:
        return {id(thing) for thing in gc.get_objects() if type(thing) is Errand}

    gc.collect()
    before = errands()
    await ask(agent_with(calm), "chat")
    loop: Any = asyncio.get_running_loop()
    loop._scheduled.clear()  # noqa: SLF001  # cancelled timers keep their context until their time comes
    await asyncio.sleep(0)
    assert errands() <= before
