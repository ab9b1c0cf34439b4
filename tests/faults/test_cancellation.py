"""Cancelled, interrupted, timed out, dropped, forked: anywhere, twice, and from the keyboard."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import types
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any

import pytest

from faults.aftermath import (
    HOWS,
    STILL_HERE,
    WITHIN,
    How,
    agent_with,
    ask,
    assert_goes_on,
    assert_sendable,
    calls,
    nothing_left,
    stored,
)
from plait import (
    Agent,
    Cancelled,
    MemoryStore,
    OfflineProvider,
    ProviderError,
    Request,
    TextDelta,
    ToolCall,
    history,
    tool,
)
from plait.promises import Promise, StreamedPromise
from plait.store.database import DatabaseStore

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Generator, Sequence
    from pathlib import Path

    from plait.entries import Entry
    from plait.store.base import Lease

FINAL = "It is cold everywhere."


class Steps:
    """Counts the steps of the task that carries a run out, and cancels somebody in the middle of some of them.

    A task is cancelled while it waits: at its n-th await for every n, until it has no n-th. It is made the event loop's
    task factory, because the task of a promise is not there to be seen.
    """

    def __init__(self, *at: int) -> None:
        self.at = at
        self.count = 0
        self.victim: asyncio.Task[Any] | None = None

    def __call__(
        self, loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], **options: Any
    ) -> asyncio.Task[Any]:
        name = getattr(coroutine, "__qualname__", "")
        watched = name == "ask" or name.endswith("Promise._produce")
        return asyncio.Task(self._count(coroutine) if watched else coroutine, loop=loop, **options)

    async def _count(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return await self._counted(coroutine)

    @types.coroutine
    def _counted(self, coroutine: Coroutine[Any, Any, Any]) -> Generator[Any, None, Any]:
        thrown: BaseException | None = None
        while True:
            try:
                waits_for = coroutine.send(None) if thrown is None else coroutine.throw(thrown)
            except StopIteration as stop:
                return stop.value
            self.count += 1
            if self.count in self.at and self.victim is not None:
                self.victim.cancel()
            try:
                yield waits_for
                thrown = None
            except BaseException as error:  # noqa: BLE001  # it is passed on
                thrown = error


class Walk:
    """An agent in a SQLite file whose run asks twice and calls an async, a sync and an unrepeatable tool."""

    def __init__(self, store: Any) -> None:
        self.noted: list[str] = []

        @tool(idempotent=True)
        async def measure(place: str) -> str:
            await asyncio.sleep(0)
            return f"3 degrees in {place}"

        @tool(idempotent=True)
        def look(place: str) -> str:
            return f"fog in {place}"

        @tool
        async def note(place: str) -> str:
            self.noted.append(place)
            await asyncio.sleep(0)
            return "noted"

        self.agent: Agent[Any, Any] = Agent(
            provider=OfflineProvider(function=self.answer), tools=[measure, look, note], store=store
        )

    async def answer(self, request: Request) -> Any:
        await asyncio.sleep(0)
        if request.messages[-1].text == "Are you still there?":
            return STILL_HERE
        turn = sum(message.role == "tool" for message in request.messages)
        if turn == 2:
            return FINAL
        place = f'{{"place": "{turn}"}}'
        if turn == 1:
            return ToolCall(id="1n", name="note", arguments=place)
        return [ToolCall(id=f"{turn}{name[0]}", name=name, arguments=place) for name in ("measure", "look", "note")]


async def cancelled_at(steps: Steps, walk: Walk, how: How, thread: str) -> str | None:
    """Run, cancelled in these steps; gives the answer, None when a CancelledError came out."""
    loop = asyncio.get_running_loop()
    loop.set_task_factory(steps)  # type: ignore[arg-type]  # its context comes as a keyword
    try:
        task = steps.victim = loop.create_task(ask(walk.agent, how, thread=thread))
    finally:
        task.add_done_callback(lambda _: loop.set_task_factory(None))
    await asyncio.wait([task], timeout=WITHIN)
    assert task.done()
    return None if task.cancelled() else task.result()


@pytest.mark.fault("C01", "C02")
@pytest.mark.parametrize("times", [1, 3], ids=["once", "three times"])
@pytest.mark.parametrize("how", HOWS)
async def test_cancelled_at_every_await_point(how: How, times: int) -> None:
    async with nothing_left(), stored() as store:
        for step in range(1, 300):
            walk, thread = Walk(store), f"{how}-{step}"
            steps = Steps(*range(step, step + times))
            answer = await cancelled_at(steps, walk, how, thread)
            if answer is not None and steps.count < step:
                assert answer == FINAL
                break
            assert answer in (None, FINAL), step
            log = await walk.agent.log(thread)
            assert_sendable(list(history(log)))
            assert len({item.id for item in log}) == len(log)
            if log:
                result = await asyncio.wait_for(walk.agent.resume(thread), WITHIN)
                assert (result.output, result.stop_reason) == (FINAL, "response"), step
                assert sorted(walk.noted) in (["0", "1"], ["1"], ["0"], []), step  # none of them twice
                assert_sendable(result.history)
            await assert_goes_on(walk.agent, thread)
        else:
            pytest.fail("the run never came to its end")
        assert step > 12


class Stuck(MemoryStore):
    """A store that stops answering."""

    __slots__ = ("reached", "stuck")

    def __init__(self) -> None:
        super().__init__()
        self.stuck = False
        self.reached = asyncio.Event()

    async def append(self, thread_id: str, entries: Sequence[Entry], *, lease: Lease | None = None) -> None:
        if self.stuck:
            self.reached.set()
            await asyncio.Event().wait()
        await super().append(thread_id, entries, lease=lease)


@pytest.mark.fault("C02")
@pytest.mark.parametrize("how", HOWS)
async def test_cleaning_up_is_bounded_where_the_store_is_stuck(how: How, caplog: pytest.LogCaptureFixture) -> None:
    began = asyncio.Event()

    async def wait() -> str:
        began.set()
        await asyncio.Event().wait()
        return ""

    async with nothing_left():
        store = Stuck()
        agent = agent_with(wait, store=store)
        task = asyncio.ensure_future(ask(agent, how, thread="t"))
        await asyncio.wait_for(began.wait(), WITHIN)
        store.stuck = True
        task.cancel()
        await asyncio.wait_for(store.reached.wait(), WITHIN)
        task.cancel()
        await asyncio.wait([task], timeout=WITHIN)
        assert task.cancelled()
        async with asyncio.timeout(WITHIN):
            while not any("closing work took longer than 1 s" in message for message in caplog.messages):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        store.stuck = False
        await assert_goes_on(agent, "t")


@pytest.mark.fault("C03")
@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("where", ["model", "async tool", "sync tool"])
async def test_a_time_out_round_a_run_ends_it(how: How, where: str) -> None:
    release = threading.Event()

    async def wait() -> str:
        await asyncio.Event().wait()
        return ""

    def wait_in_a_thread() -> str:
        release.wait(WITHIN)
        return ""

    async def answer(request: Request) -> Any:
        if request.messages[-1].text == "Are you still there?":
            return STILL_HERE
        if where == "model":
            await asyncio.Event().wait()
        return calls("wait" if where == "async tool" else "wait_in_a_thread")

    async with stored() as store:
        agent: Agent[Any, Any] = Agent(
            provider=OfflineProvider(function=answer), tools=[wait, wait_in_a_thread], store=store
        )

        async def timed() -> None:
            async with asyncio.timeout(0.2):
                if how == "run":  # a promise belongs to its block, or to the task that made it; not to who awaits it
                    async with agent.run("go", thread="t") as run:
                        await run
                else:
                    await ask(agent, how, thread="t")

        with pytest.raises(TimeoutError):
            await timed()
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        release.set()
        await assert_goes_on(agent, "t")


# --- C04: the keyboard ------------------------------------------------------------------------------------------------

PROGRAM = """
import asyncio, signal, sys, time
from plait import Agent, OfflineProvider, ToolCall

# What was started in the background of a shell inherits that Ctrl-C is ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)

async def hang():
    print("there", flush=True)
    await asyncio.Event().wait()

def hang_in_a_thread():
    print("there", flush=True)
    time.sleep(60)

async def busy():
    print("there", flush=True)
    end = time.monotonic() + 0.15
    while time.monotonic() < end:
        pass
    await asyncio.Event().wait()

async def speak(request):
    print("there", flush=True)
    await asyncio.Event().wait()

how, where = sys.argv[1:]
tools = [hang, hang_in_a_thread, busy]
first = speak if where == "speak" else lambda request: ToolCall(id="1", name=where)

async def main():
    # With any handler of its own the event loop is woken by every signal. Without one, Python notices a signal that
    # comes just before the loop waits only when it has waited.
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, lambda: None)
    agent = Agent(provider=OfflineProvider(function=first), tools=tools, store="sqlite:///plait.db")
    if how == "chat":
        await agent.chat("go", thread="t")
    elif how == "run":
        await agent.run("go", thread="t")
    else:
        async for _ in agent.stream("go", thread="t"):
            pass

asyncio.run(main())
"""


@pytest.mark.fault("C04")
@pytest.mark.parametrize("where", ["hang", "hang_in_a_thread", "busy", "speak"])
@pytest.mark.parametrize("how", HOWS)
def test_an_interrupt_from_the_keyboard(how: How, where: str, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PROGRAM))
    process = subprocess.Popen(
        [sys.executable, str(program), how, where], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "there\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=WITHIN)
    assert process.returncode == -signal.SIGINT
    assert errors.count("Traceback") <= 2  # Python's own: where it was, and the KeyboardInterrupt
    assert errors.endswith("KeyboardInterrupt\n")
    for noise in ("never retrieved", "never awaited", "was destroyed", "Exception ignored", "Warning"):
        assert noise not in errors

    async def afterwards() -> list[str]:
        async with stored() as store:
            agent: Agent[Any, Any] = Agent(provider=OfflineProvider(function=lambda _: STILL_HERE), store=store)
            log = await agent.log("t")
            await assert_goes_on(agent, "t")
            return [item.kind for item in log]

    kinds = asyncio.run(afterwards())
    assert kinds[:2] == ["run_started", "message"]
    assert kinds[-1] == "run_finished"


@pytest.mark.fault("C04")
@pytest.mark.parametrize("command", [["run", "a b c", "--thread", "t"], ["chat", "--thread", "t"]])
def test_the_command_ends_at_an_interrupt(command: list[str], tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent("""
        import asyncio
        from plait import OfflineProvider, register_provider
        from plait.cli import main

        async def wait(request):
            print("there", flush=True)
            await asyncio.Event().wait()

        register_provider("waiting", lambda model: OfflineProvider(function=wait), model="m1")
        main()
        """)
    )
    process = subprocess.Popen(
        [sys.executable, str(program), *command, "--provider", "waiting", "--store", "sqlite:///plait.db"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("hello\n")
    process.stdin.flush()
    assert process.stdout.readline() == "there\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=WITHIN)
    assert "Traceback" not in errors
    assert process.returncode in (3, 130) or command[0] == "chat"

    async def kinds() -> list[str]:
        async with stored() as store:
            info = await store.find("t")
            assert info is not None
            return [item.kind for item in await store.read(info.thread_id)]

    # What the request may have cost is noted, although nothing came of it.
    assert asyncio.run(kinds()) == ["run_started", "message", "context_note", "run_finished"]


# --- C08: dropped -----------------------------------------------------------------------------------------------------


class Endless(OfflineProvider):
    """Speaks without end, and says when it was closed."""

    def __init__(self) -> None:
        super().__init__(["unused"])
        self.closed = asyncio.Event()
        self.silent = False

    async def stream(self, request: Request) -> AsyncGenerator[list[Any], None]:
        if request.messages[-1].text == "Are you still there?":
            async for batch in OfflineProvider([STILL_HERE]).stream(request):
                yield batch
            return
        try:
            while True:
                yield [TextDelta("more ")]
                await asyncio.sleep(0)
        finally:
            self.closed.set()


@pytest.mark.fault("C08")
@pytest.mark.parametrize("way", ["break", "del", "in a cycle", "aclosing", "async with", "error", "anext"])
async def test_a_stream_dropped_half_read_ends_its_run(way: str) -> None:
    async with nothing_left(), stored() as store, asyncio.timeout(WITHIN):
        provider = Endless()
        agent: Agent[Any, Any] = Agent(provider=provider, store=store)
        match way:
            case "break":
                async for _ in agent.stream("go", thread="t"):
                    break
            case "del":
                reader = aiter(agent.stream("go", thread="t"))
                await anext(reader)
                del reader
            case "in a cycle":
                cycle: list[Any] = [aiter(agent.stream("go", thread="t"))]
                await anext(cycle[0])
                cycle.append(cycle)
                del cycle
                gc.collect()
            case "aclosing":
                async with aclosing(aiter(agent.stream("go", thread="t"))) as closing:
                    await anext(closing)
                assert provider.closed.is_set()
            case "async with":
                async with agent.run("go", thread="t") as run:
                    async for _ in run:
                        break
                assert provider.closed.is_set()
            case "error":
                with suppress(ZeroDivisionError):
                    async for _ in agent.stream("go", thread="t"):
                        1 / 0  # noqa: B018
            case _:
                await anext(aiter(agent.stream("go", thread="t")))
        await provider.closed.wait()
        await assert_goes_on(agent, "t")


# --- C09: promises that nobody, or everybody, waits for ---------------------------------------------------------------


@pytest.mark.fault("C09")
@pytest.mark.parametrize("error", [ValueError("mine"), ProviderError("theirs", status=400), asyncio.CancelledError()])
async def test_an_error_reaches_each_reader_and_makes_no_noise(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    expected = Cancelled if isinstance(error, asyncio.CancelledError) else type(error)

    async def fail(_: Request) -> str:
        await asyncio.sleep(0)
        raise error

    async with nothing_left(), asyncio.timeout(WITHIN):
        agent: Agent[Any, Any] = Agent(provider=OfflineProvider(function=fail))
        run = agent.run("go")
        early = await asyncio.gather(*(_read(run) for _ in range(5)), return_exceptions=True)
        late = await asyncio.gather(*(_read(run) for _ in range(5)), return_exceptions=True)
        assert [type(outcome) for outcome in (*early, *late)] == [expected] * 10
        events = [outcome async for outcome in _events(run)]
        assert [type(outcome) for outcome in events[-1:]] == [expected]
        del early, late, events, run

        unread = agent.run("go")
        while not unread.done():  # noqa: ASYNC110  # it is not awaited, that is the point
            await asyncio.sleep(0)
        del unread
        never_begun: Promise[int] = Promise(lambda: asyncio.sleep(0, 1), start_soon=False)
        del never_begun
        stream = agent.stream("go")
        del stream
        gc.collect()
        await asyncio.sleep(0)
    assert [record for record in caplog.records if record.name == "asyncio"] == []


async def _read(run: StreamedPromise[Any, Any]) -> Any:
    return await run


async def _events(run: StreamedPromise[Any, Any]) -> AsyncIterator[Any]:
    try:
        async for event in run:
            yield event
    except Exception as error:  # noqa: BLE001  # what is looked at
        yield error


@pytest.mark.fault("C09")
async def test_ten_readers_of_a_run_get_the_same_result() -> None:
    agent: Agent[Any, Any] = Agent(provider="offline")
    run = agent.run("hello")
    results = [*await asyncio.gather(*(_read(run) for _ in range(9))), await run]
    assert {id(result) for result in results} == {id(results[0])}
    assert [event async for event in run] == [event async for event in run]


# --- C11: new loops, forks --------------------------------------------------------------------------------------------


@pytest.mark.fault("C11")
def test_one_agent_serves_one_event_loop_after_another(tmp_path: Path) -> None:
    def add() -> str:
        return "three"

    store = DatabaseStore(f"sqlite:///{tmp_path / 'plait.db'}")
    agent = agent_with(add, store=store)
    for how in HOWS * 2:
        assert asyncio.run(ask(agent, how, thread="t")) == "three"
    loop = asyncio.new_event_loop()
    abandoned = loop.create_task(ask(agent, "run", thread="t"))
    loop.run_until_complete(asyncio.wait([abandoned], timeout=0.001))
    abandoned.cancel()
    with suppress(asyncio.CancelledError):
        loop.run_until_complete(abandoned)
    loop.run_until_complete(asyncio.sleep(0.05))
    loop.close()
    asyncio.run(assert_goes_on(agent, "t"))
    asyncio.run(store.close())


FORKING = """
import asyncio, os, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: forking with threads, which is what is tried here
from plait import Agent, OfflineProvider, ToolCall

def add():
    return "three"

def answer(request):
    last = request.messages[-1]
    return last.tool_results[0].text if last.role == "tool" else ToolCall(id="1", name="add")

agent = Agent(provider=OfflineProvider(function=answer), tools=[add], store="sqlite:///plait.db", debug=True)

async def ask():
    assert (await agent.run("go", thread="t")).output == "three"
    assert await agent.chat("go", thread="t") == "three"

asyncio.run(ask())
children = []
for _ in range(3):
    child = os.fork()
    if child == 0:
        code = 1
        try:
            asyncio.run(asyncio.wait_for(ask(), 20))
            code = 0
        finally:
            os._exit(code)
    children.append(child)
asyncio.run(ask())
assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0, 0]
asyncio.run(ask())
print(asyncio.run(agent.log("t"))[-1].n)
"""


@pytest.mark.fault("C11")
def test_parent_and_children_of_a_fork_use_one_agent(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(FORKING)
    done = subprocess.run(
        [sys.executable, str(program)], capture_output=True, text=True, timeout=45, check=False, env=dict(os.environ)
    )
    assert (done.stderr, done.returncode) == ("", 0)
    assert done.stdout == f"{12 * 7}\n"  # twelve runs, each of seven entries, in one log
