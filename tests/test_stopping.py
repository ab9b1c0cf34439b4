"""Stops, interrupts, deadlines and cancellations at awkward moments: each run ends once, and nobody else is hit."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from plait import (
    Agent,
    ConfigurationError,
    FinishDelta,
    MemoryStore,
    OfflineProvider,
    ProviderError,
    Request,
    RunLimits,
    StateConflict,
    StopPoll,
    StopSignal,
    StreamTruncated,
    TextDelta,
    ToolCall,
    UserMessage,
    Veto,
    history,
    tool,
)
from plait.counting import SIMPLE, message_tokens
from plait.entries import ContextNote, MessageEntry, RunEnd
from plait.events import Usage
from plait.workers import ASKERS, MAX_WORKERS, WORKERS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from plait.entries import Entry
    from plait.store.base import Lease


class SharedStore(MemoryStore):
    """A store that other processes could write to, with slow leases."""

    __slots__ = ("releasing",)
    shared: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()
        self.releasing = asyncio.Event()

    async def acquire(self, thread_id: str, run_id: str, owner: str, seconds: float) -> Lease | None:
        taken = await super().acquire(thread_id, run_id, owner, seconds)
        await asyncio.sleep(0)
        return taken

    async def release(self, lease: Lease) -> None:
        self.releasing.set()
        await steps(10)
        await super().release(lease)


def ends(log: list[Entry]) -> list[str | None]:
    return [item.body.stop_reason or item.body.error for item in log if isinstance(item.body, RunEnd)]


@tool(idempotent=True)
async def slow_add(a: int, b: int) -> int:
    await asyncio.sleep(0)
    return a + b


async def answer(request: Request) -> Any:
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    if any(message.role == "tool" for message in request.messages):
        return "three and three"
    return [ToolCall(id=str(n), name="slow_add", arguments='{"a": 1, "b": 2}') for n in (1, 2)]


async def watch(_: Any) -> None:
    await asyncio.sleep(0)


HOOKS = dict.fromkeys(("on_before_request", "on_after_request", "on_function_call_end", "on_final_response"), watch)


async def steps(number: int) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not true():  # noqa: ASYNC110  # threads tell nobody that they have ended
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("how", ["stop", "interrupt"])
async def test_a_stop_at_every_await_point_ends_the_run_once(how: str) -> None:
    seen = set()
    for number in range(1, 200):
        agent = Agent(provider=OfflineProvider(function=answer), tools=[slow_add], store=SharedStore(), hooks=HOOKS)
        stop = StopSignal()
        task = asyncio.ensure_future(_result_and_cancelling(agent, stop))
        await steps(number)
        over = task.done()
        if how == "stop":
            stop.set()
        else:
            second = await agent.run("again", thread="t", if_busy="interrupt")
            assert second.output == "three and three"
        reason, cancelling = await asyncio.wait_for(task, 5)
        assert cancelling == 0, number
        assert reason in ("user_stop", "response"), number
        log = await agent.log("t")
        first = [item for item in log if item.run_id == (log[0].run_id if log else None)]
        assert ends(first) in ([], [reason], ["response"]), number
        history(log)
        seen.add(reason)
        if over:
            break
    else:
        pytest.fail("the run never came to its end")
    assert seen == {"user_stop", "response"}


async def _result_and_cancelling(agent: Agent[Any, Any], stop: StopSignal) -> tuple[str, int]:
    thread = await agent.outfit.threads.open("t", "default")
    run = await agent.outfit.made((UserMessage(text="add"),), thread, {"stop": stop})  # as `chat` drains it
    async for _ in run.events():
        pass
    task = asyncio.current_task()
    assert task is not None
    assert run.result is not None
    return run.result.stop_reason, task.cancelling()


async def test_a_stop_that_comes_while_the_run_leaves_changes_nothing() -> None:
    store = SharedStore()
    agent = Agent(provider=OfflineProvider(["hello"]), store=store)
    stop = StopSignal()
    task = asyncio.ensure_future(agent.chat("hi", thread="t", stop=stop))
    await asyncio.wait_for(store.releasing.wait(), 5)
    stop.set()
    assert await task == "hello"
    assert ends(await agent.log("t")) == ["response"]


async def test_a_stop_that_comes_with_a_failure_does_not_hide_it() -> None:
    stop, ill = StopSignal(), ProviderError("the provider is ill", status=400)

    def fail(_: Request) -> str:
        stop.set()
        raise ill

    agent = Agent(provider=OfflineProvider(function=fail), store=SharedStore())
    with pytest.raises(ProviderError, match="the provider is ill"):
        await agent.chat("hi", thread="t", stop=stop)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_an_interrupt_does_not_reach_what_its_caller_does_afterwards() -> None:
    gate = asyncio.Event()

    async def wait(_: Request) -> str:
        await gate.wait()
        return "done"

    agent = Agent(provider=OfflineProvider(function=wait), store=MemoryStore())

    async def first() -> str:
        said = await agent.chat("a", thread="t")
        await asyncio.sleep(0.02)
        return str(said)

    task = asyncio.ensure_future(first())
    await steps(5)
    gate.set()
    await agent.chat("b", thread="t", if_busy="interrupt")
    assert await asyncio.wait_for(task, 5) in ("done", "")


async def test_a_chat_cancelled_while_it_takes_its_lease_leaves_no_lease() -> None:
    for number in range(1, 6):
        store = SharedStore()
        agent = Agent(provider=OfflineProvider(function=lambda _: "hello"), store=store)
        task = asyncio.ensure_future(agent.chat("hi", thread="t"))
        await steps(number)
        task.cancel()
        await asyncio.wait([task])
        info = await store.thread("t")
        assert await store.holder(info.thread_id) is None, number
        assert await asyncio.wait_for(agent.chat("hi", thread="t"), 2) == "hello"


def test_two_event_loops_of_one_process_take_turns() -> None:
    agent = Agent(provider=OfflineProvider(delay=0.01), store=MemoryStore())
    answers: list[str] = []
    workers = [
        threading.Thread(target=lambda n=n: answers.append(asyncio.run(agent.chat(f"{n}", thread="t"))))
        for n in range(3)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(20)
    assert sorted(answer.splitlines()[0] for answer in answers) == ["You said: 0", "You said: 1", "You said: 2"]


async def test_an_event_of_another_loop_is_refused_and_stops_nobody() -> None:
    event = asyncio.Event()

    async def bind() -> None:
        task = asyncio.ensure_future(event.wait())
        await asyncio.sleep(0)
        task.cancel()

    await asyncio.to_thread(asyncio.run, bind())
    agent = Agent(provider=OfflineProvider(["one two three"], delay=0.01))
    with pytest.raises(ConfigurationError, match=r"an asyncio\.Event of another event loop; use a StopSignal"):
        await agent.run("hi", stop=event)
    with pytest.raises(ConfigurationError, match=r"takes a StopSignal, an asyncio\.Event, or a function"):
        await agent.run("hi", stop=threading.Event())  # type: ignore[arg-type]


async def test_reject_sees_those_who_wait() -> None:
    gate = asyncio.Event()

    async def wait(_: Request) -> str:
        await gate.wait()
        return "done"

    agent = Agent(provider=OfflineProvider(function=wait), store=MemoryStore())
    runs = [agent.run(str(n), thread="t") for n in range(2)]
    await steps(5)
    gate.set()
    while not runs[0].done():
        with pytest.raises(StateConflict):
            await agent.run("3", thread="t", if_busy="reject")
    await runs[1]


async def test_results_are_written_before_anyone_is_told() -> None:
    stop = StopSignal()

    async def told(_: Any) -> None:
        stop.set()
        await asyncio.sleep(0.01)

    calls = [ToolCall(id=str(n), name="slow_add", arguments='{"a": 1, "b": 2}') for n in (1, 2)]
    agent = Agent(
        provider=OfflineProvider([calls, "never"]),
        tools=[slow_add],
        store=MemoryStore(),
        hooks={"on_function_call_end": told},
    )
    result = await agent.run("add", thread="t", stop=stop)
    assert result.stop_reason == "user_stop"
    assert [r.text for r in result.messages[2].tool_results] == ["3", "3"]


@pytest.mark.parametrize("name", ["on_after_request", "on_final_response"])
async def test_a_stop_in_a_hook_loses_no_answer(name: str) -> None:
    stop = StopSignal()

    async def told(_: Any) -> None:
        stop.set()
        await asyncio.sleep(0.01)

    hooks: dict[str, Callable[..., Any]] = {name: told}
    agent = Agent(provider=OfflineProvider(["hello"]), store=MemoryStore(), hooks=hooks)
    result = await agent.run("hi", thread="t", stop=stop)
    assert result.output == "hello"
    assert len(ends(await agent.log("t"))) == 1


class Cut(OfflineProvider):
    """Ends its stream without an end mark."""

    async def stream(self, request: Request) -> Any:
        del request
        yield [TextDelta("half an ans")]


async def test_an_answer_without_an_end_mark_is_no_answer() -> None:
    agent = Agent(provider=Cut(), store=MemoryStore())
    with pytest.raises(StreamTruncated) as raised:
        await agent.chat("hi", thread="t")
    assert raised.value.partial == "half an ans"
    kept = [item.body for item in await agent.log("t") if isinstance(item.body, MessageEntry)]
    assert [(body.message.text, body.cut) for body in kept] == [("hi", None), ("half an ans", "error")]


class Lingering(OfflineProvider):
    """Gives a whole answer, and does not end its stream."""

    async def stream(self, request: Request) -> Any:
        yield [TextDelta("all of it"), FinishDelta("stop")]
        await asyncio.sleep(30)


@pytest.mark.fault("C05")
@pytest.mark.parametrize("how", ["user_stop", "cancelled"])
async def test_an_end_between_an_answer_and_the_end_of_its_stream_keeps_the_text(how: str) -> None:
    agent, stop = Agent(provider=Lingering(), store=MemoryStore()), StopSignal()
    async with agent.run("hi", thread="t", stop=stop) as run:
        async for event in run:
            if isinstance(event, TextDelta):
                break
        if how == "user_stop":
            stop.set()
            assert (await run).output == "all of it"
        else:
            run.cancel()
    kept = [item.body for item in await agent.log("t") if isinstance(item.body, MessageEntry)]
    assert [(body.message.text, body.cut) for body in kept] == [("hi", None), ("all of it", how)]


async def test_what_a_left_stream_had_said_stays_and_resume_answers_anew() -> None:
    provider = OfflineProvider(["one two three four", "one two three four"], delay=0.001)
    agent = Agent(provider=provider, store=MemoryStore())
    async for text in agent.stream("count", thread="t"):
        if text == " two":
            break
    await agent.resume("t")
    log = await agent.log("t")
    texts = [(item.body.message.text, item.body.cut) for item in log if isinstance(item.body, MessageEntry)]
    assert texts == [("count", None), ("one two", "cancelled"), ("one two three four", None)]
    assert [message.text for message in provider.requests[-1].messages] == ["count"]


async def test_a_deadline_keeps_the_text_so_far_of_a_chat() -> None:
    words = "one " * 200
    agent = Agent(provider=OfflineProvider([words], delay=0.02))
    said = await agent.chat("count", limits=RunLimits(deadline=0.5))
    assert said.startswith("one")
    assert len(said) < len(words)


async def test_a_stop_that_comes_with_a_veto_gives_one_end() -> None:
    stop = StopSignal()

    async def veto(_: Any) -> Veto:
        stop.set()
        with suppress(asyncio.CancelledError):  # foreign code that swallows the stop
            await asyncio.sleep(30)
        return Veto(reason="over budget")

    agent = Agent(provider=OfflineProvider(["never"]), store=MemoryStore(), hooks={"on_before_request": veto})
    result = await agent.run("hi", thread="t", stop=stop)
    assert ends(await agent.log("t")) == ["guardrail"]
    assert (result.stop_reason, result.error) == ("guardrail", "over budget")


@pytest.mark.fault("C05")
@pytest.mark.parametrize("form", ["sync", "async", "sync that gives a coroutine"])
async def test_a_function_that_says_stop_ends_a_run_in_the_middle_of_an_answer(form: str) -> None:
    asked: list[tuple[str, str]] = []
    said = asyncio.Event()

    def sync(user_id: str, chat_id: str) -> bool:
        asked.append((user_id, chat_id))
        return said.is_set()

    async def waits(user_id: str, chat_id: str) -> bool:
        await asyncio.sleep(0)
        return sync(user_id, chat_id)

    def gives(user_id: str, chat_id: str) -> Awaitable[bool]:
        return waits(user_id, chat_id)

    forms: dict[str, Any] = {"sync": sync, "async": waits, "sync that gives a coroutine": gives}
    function = forms[form]
    agent = Agent(provider=OfflineProvider(["one two three four five six"] * 2, delay=0.02))
    run = agent.run("go", user_id="ada", stop=StopPoll(function, every=0.01))
    text = ""
    async for event in run:
        if isinstance(event, TextDelta):
            text += event.text
            said.set()
    result = await run
    assert (result.stop_reason, result.output) == ("user_stop", text)
    assert 0 < len(text) < len("one two three four five six")
    assert set(asked) == {("ada", result.thread_id)}
    assert not [task for task in asyncio.all_tasks() if "stop" in task.get_name()]
    assert (await agent.run([*result.history, UserMessage(text="again")])).stop_reason == "response"


async def test_a_function_that_says_stop_is_asked_before_anything_else_and_ends_a_tool() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    @tool
    async def hangs() -> str:
        begun.set()
        try:
            await asyncio.sleep(30)
        finally:
            ended.set()
        return "never"

    def script() -> OfflineProvider:
        return OfflineProvider([ToolCall(id="a", name="hangs", arguments="{}"), "done"])

    result = await Agent(provider=script(), tools=[hangs]).run("go", stop=StopPoll(begun.is_set, every=0.01))
    assert (result.stop_reason, ended.is_set()) == ("user_stop", True)
    assert result.history[-1].tool_results[0].text == (
        "This call was cancelled while it ran; it may or may not have happened: the run was stopped."
    )
    result = await Agent(provider=script(), tools=[hangs]).run("go", stop=lambda: True)
    assert result.stop_reason == "user_stop"


async def test_a_function_that_cannot_say_is_asked_again_and_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    answers: Iterator[bool | OSError] = iter([OSError("secret"), OSError("again"), True])

    def broken() -> bool:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    agent = Agent(provider=OfflineProvider(["one two three four"], delay=0.5))
    with caplog.at_level("WARNING", "plait.run"):
        result = await agent.run("go", stop=StopPoll(broken, every=0.01))
    assert result.stop_reason == "user_stop"
    assert caplog.messages == ["the function broken, which says whether to stop, failed: OSError"]


async def test_a_function_that_hangs_stops_nothing_and_ends_with_the_run() -> None:
    ended = asyncio.Event()

    async def hangs() -> bool:
        try:
            await asyncio.sleep(30)
        finally:
            ended.set()
        return True

    result = await Agent(provider=OfflineProvider(["one two"], delay=0.01)).run("go", stop=hangs)
    assert (result.stop_reason, ended.is_set()) == ("response", True)


async def test_a_sync_function_that_hangs_stops_nothing_and_is_left_in_its_thread() -> None:
    go = threading.Event()

    def hangs() -> bool:
        return not go.wait(30)

    try:
        result = await Agent(provider=OfflineProvider(["one two"], delay=0.01)).run("go", stop=hangs)
        assert (result.stop_reason, ASKERS.left) == ("response", 1)
    finally:
        go.set()
    await until(lambda: not ASKERS.left)


@pytest.mark.fault("C05")
async def test_a_sync_function_is_asked_while_tools_hold_all_their_threads() -> None:
    go = threading.Event()
    held = [asyncio.ensure_future(WORKERS.run(lambda: go.wait(30))) for _ in range(MAX_WORKERS + 1)]
    try:
        agent = Agent(provider=OfflineProvider(["one two three"], delay=5.0))
        result = await asyncio.wait_for(agent.run("go", stop=StopPoll(lambda: True, every=0.01)), 5)
        assert (result.stop_reason, sum(one.done() for one in held)) == ("user_stop", 0)
    finally:
        go.set()
        await asyncio.gather(*held)


@pytest.mark.fault("C05", "T03")
async def test_a_sync_tool_that_is_left_by_a_stop_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    go, stop = threading.Event(), StopSignal()

    @tool
    def hold() -> str:
        stop.set()
        go.wait(30)
        return "late"

    agent = Agent(provider=OfflineProvider([ToolCall(id="a", name="hold", arguments="{}"), "never"]), tools=[hold])
    try:
        result = await asyncio.wait_for(agent.run("go", stop=stop), 5)
    finally:
        go.set()
    assert (result.stop_reason, result.history[-1].tool_results[0].is_error) == ("user_stop", True)
    assert caplog.messages == ["the sync tool 'hold' is still in its thread; threads left so: 1"]
    await until(lambda: not WORKERS.left)


any_poll: Any = StopPoll  # for what type checkers refuse, too


@pytest.mark.parametrize(
    ("made", "sentence"),
    [
        (lambda: any_poll(StopSignal), "takes a function that says whether to stop, not the class StopSignal"),
        (lambda: any_poll(3), "takes a function that says whether to stop, not int"),
        (lambda: any_poll(print, every=0), r"StopPoll\(every=...\) takes seconds above 0, not 0"),
        (lambda: any_poll(print, every="3"), r"StopPoll\(every=...\) takes seconds above 0, not str"),
        (lambda: any_poll(lambda run: True), "may take user_id and chat_id, and nothing else: missing a required"),
        (lambda: any_poll(lambda user_id, other: True), "may take user_id and chat_id, and nothing else"),
    ],
)
def test_what_cannot_say_whether_to_stop_is_refused(made: Callable[[], object], sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        made()


@pytest.mark.parametrize("kind", [StopSignal, asyncio.Event])
async def test_a_run_that_is_stopped_before_it_begins_asks_nobody(kind: type[StopSignal | asyncio.Event]) -> None:
    stop, provider = kind(), OfflineProvider(["never"])
    stop.set()
    agent = Agent(provider=provider, store=MemoryStore())
    for thread in (None, "t"):
        result = await agent.run("go", thread=thread, stop=stop)
        assert (result.stop_reason, result.output, result.usage) == ("user_stop", "", None)
    assert provider.requests == []
    assert await agent.log("t") == []


@pytest.mark.fault("C05")
@pytest.mark.parametrize("how", ["user_stop", "deadline"])
async def test_a_run_is_stopped_while_its_mcp_servers_are_connected(how: str) -> None:
    silent = [sys.executable, "-c", "import time; time.sleep(30)"]
    async with Agent(provider=OfflineProvider(["never"]), mcp_servers=[silent]) as agent:
        stop = StopSignal()
        run = agent.run("go", stop=stop, limits=RunLimits(deadline=0.2 if how == "deadline" else 60))
        await asyncio.sleep(0)
        if how == "user_stop":
            asyncio.get_running_loop().call_later(0.1, stop.set)
        result = await asyncio.wait_for(run, 10)
    assert (result.stop_reason, result.messages) == (how, (UserMessage(text="go"),))


@pytest.mark.fault("C05")
async def test_a_run_is_stopped_while_its_thread_is_looked_up_in_a_locked_file(tmp_path: Path) -> None:
    agent = Agent(provider=OfflineProvider(["one", "never"]), store=f"sqlite:///{tmp_path}/plait.db")
    await agent.chat("hi", thread="another")
    lock = sqlite3.connect(tmp_path / "plait.db", isolation_level=None)
    try:
        lock.execute("BEGIN EXCLUSIVE")
        stop = StopSignal()
        run = agent.run("go", thread="t", stop=stop)
        await asyncio.sleep(0.05)
        assert not run.done()
        stop.set()
        assert (await asyncio.wait_for(run, 3)).stop_reason == "user_stop"
    finally:
        lock.close()
    await agent.store.close()


async def test_what_a_request_took_that_was_stopped_before_its_first_word_is_told() -> None:
    asked = asyncio.Event()

    async def silent(_: Request) -> str:
        asked.set()
        await asyncio.sleep(30)
        return "never"

    stop = StopSignal()
    agent = Agent(provider=OfflineProvider(function=silent), store=MemoryStore())
    run = agent.run("go", thread="t", stop=stop)
    await asyncio.wait_for(asked.wait(), 5)
    stop.set()
    result = await run
    took = Usage(input_tokens=message_tokens(UserMessage(text="go"), SIMPLE), estimated=True)
    assert (result.stop_reason, result.usage, result.messages) == ("user_stop", took, (UserMessage(text="go"),))
    assert (await agent.log("t"))[2].body == ContextNote(by="request", usage=took)
