"""Tools that raise, hang, block, cancel themselves, end the program, or are left half read."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from faults.aftermath import (
    HOWS,
    KEY,
    WITHIN,
    How,
    agent_with,
    ask,
    assert_goes_on,
    assert_sendable,
    calls,
    nothing_left,
    stored,
    timed,
)
from plait import (
    Agent,
    Secret,
    ToolCall,
)
from plait.workers import MAX_LEFT, WORKERS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

# --- T01: raises ------------------------------------------------------------------------------------------------------


class Mute(Exception):
    def __str__(self) -> str:
        msg = "no words"
        raise RuntimeError(msg)


class Odd(Exception):
    def __str__(self) -> str:
        return 7  # type: ignore[return-value]  # noqa: PLE0307


def deep(depth: int = 0) -> int:
    return deep(depth + 1) + 1


RAISED: list[tuple[Callable[[], BaseException], str]] = [
    (lambda: ValueError("no such city"), "ERROR ValueError: no such city"),
    (MemoryError, "ERROR MemoryError"),
    (lambda: RecursionError("too deep"), "ERROR RecursionError: too deep"),
    (lambda: StopIteration("early"), "ERROR .*StopIteration.*"),
    (lambda: StopAsyncIteration("early"), "ERROR .*StopAsyncIteration.*"),
    (Mute, "ERROR Mute"),
    (Odd, "ERROR Odd"),
    (
        lambda: ExceptionGroup("both", [ValueError("one"), ExceptionGroup("inner", [KeyError("two")])]),
        "ERROR ExceptionGroup: both .*one.*",
    ),
    (lambda: ExceptionGroup("both", [Mute()]), "ERROR ExceptionGroup: both.*Mute.*"),
    (lambda: ValueError("line one\nline two\x1b[31m\x00"), r"ERROR ValueError: line one line two[^\n\x1b\x00]*"),
    (lambda: ValueError("x" * 10_000_000), "ERROR ValueError: x{100,600}…"),
    (lambda: ValueError("\ud800"), r"ERROR ValueError: \\ud800"),
    (lambda: ValueError(f"401 for {KEY}"), "ERROR ValueError: 401 for ((?!sk-secret).)*"),
    (lambda: OSError(2, "No such file", "x"), "ERROR FileNotFoundError: .*"),
    (TimeoutError, "ERROR TimeoutError"),
    (asyncio.InvalidStateError, "ERROR InvalidStateError"),
]


@pytest.mark.fault("T01")
@pytest.mark.parametrize("kind", ["async", "sync"])
@pytest.mark.parametrize(("error", "said"), RAISED)
async def test_whatever_a_tool_raises_is_a_result(error: Callable[[], BaseException], said: str, kind: str) -> None:
    async def lookup() -> str:
        raise error()

    def lookup_in_a_thread() -> str:
        raise error()

    async with nothing_left():
        for how in HOWS:
            agent = agent_with(lookup if kind == "async" else lookup_in_a_thread)
            assert re.fullmatch(said, await ask(agent, how)), how
            if how == "chat":
                await assert_goes_on(agent)


@pytest.mark.fault("T01")
@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_a_recursion_without_end_is_a_result(kind: str) -> None:
    async def endless() -> int:
        return deep()

    agent = agent_with(endless if kind == "async" else deep)
    assert (await ask(agent, "chat")).startswith("ERROR RecursionError: maximum recursion depth exceeded")
    await assert_goes_on(agent)


@pytest.mark.fault("T01")
async def test_a_traceback_and_a_secret_reach_nobody(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "plait")

    async def pay(token: Secret) -> None:
        try:
            json.loads(token.reveal())
        except ValueError as error:
            msg = f"Bearer {token.reveal()} was refused; key={KEY}"
            raise RuntimeError(msg) from error

    agent = agent_with(pay)
    run = agent.run("go", secrets={"token": Secret("hunter2-hunter2")})
    events = [repr(event) for event in [event async for event in run]]
    result = await run
    for text in (*events, repr(result.history), result.output, caplog.text):
        assert "hunter2" not in text
        assert KEY not in text
        assert "Traceback" not in text
    assert result.output == "ERROR RuntimeError: Bearer *** was refused; key=***"


# --- T02: hangs -------------------------------------------------------------------------------------------------------


async def waits() -> None:
    await asyncio.Event().wait()


async def swallows() -> None:
    while True:
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()


async def swallows_everything() -> None:
    for _ in range(6):  # not for ever: it would go on when it is collected, where no event loop runs
        with suppress(BaseException):
            await asyncio.sleep(60)


async def answers_late() -> str:
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        return "too late"
    return ""


async def raises_late() -> str:
    try:
        await asyncio.Event().wait()
    finally:
        msg = "while cleaning up"
        raise ValueError(msg)


async def shields() -> None:
    await asyncio.shield(asyncio.ensure_future(waits()))


async def groups() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(waits())
        group.create_task(swallows_once())


async def swallows_once() -> None:
    with suppress(asyncio.CancelledError):
        await asyncio.Event().wait()
    await asyncio.sleep(0)


async def generates() -> AsyncIterator[str]:
    yield "one"
    await asyncio.Event().wait()


@pytest.mark.fault("T02")
@pytest.mark.parametrize(
    "hangs", [waits, swallows, swallows_everything, answers_late, raises_late, shields, groups, generates]
)
async def test_a_tool_that_hangs_is_ended_at_its_time(hangs: Callable[..., Any]) -> None:
    async with nothing_left():
        limited = timed(hangs, 0.05)
        for made in (calls(limited.name, 2), calls(limited.name))[hangs in (swallows, swallows_everything) :]:
            agent = agent_with(limited, made=made)
            said = (await ask(agent, "chat" if len(made) == 1 else "stream")).splitlines()
            assert len(said) == len(made)
            for line in said:
                assert line in ("too late", "ERROR ValueError: while cleaning up") or line.startswith(
                    f"ERROR the tool '{limited.name}' gave no result within 0.05 seconds"
                )
            if len(made) == 1:
                await assert_goes_on(agent)


# --- T03: hangs in a thread -------------------------------------------------------------------------------------------


@pytest.mark.fault("T03")
async def test_a_hundred_sync_tools_that_hang_take_few_threads(caplog: pytest.LogCaptureFixture) -> None:
    release = threading.Event()

    def hang() -> str:
        release.wait(WITHIN)
        return "released"

    def quick() -> str:
        return "quick"

    before = threading.active_count()
    agent = agent_with(timed(hang, 0.05), quick, made=calls("hang", 100), max_tool_calls=200)
    try:
        said = (await ask(agent, "chat")).splitlines()
        assert len(said) == 100
        assert all(line.startswith("ERROR the tool 'hang' ") for line in said)
        assert sum("was not called" in line for line in said) >= 100 - MAX_LEFT - 16
        assert WORKERS.left <= MAX_LEFT + 16
        assert threading.active_count() - before <= MAX_LEFT + 16 + 16
        assert "threads left so: " in caplog.text
        assert_sendable(agent.history)
    finally:
        release.set()
    async with asyncio.timeout(WITHIN):
        while WORKERS.left:  # noqa: ASYNC110  # threads tell nobody that they have ended
            await asyncio.sleep(0.01)
    assert await ask(agent_with(quick), "chat") == "quick"
    await assert_goes_on(agent)


# --- T04: blocks the event loop ---------------------------------------------------------------------------------------


def block_until(event: threading.Event) -> None:
    event.wait(WITHIN)


@pytest.mark.fault("T04")
@pytest.mark.parametrize("count", [1, 2])
async def test_in_debug_mode_a_tool_that_blocks_the_loop_is_named(count: int) -> None:
    """The tool blocks until it is reported: a watchdog that needed the loop could never report it."""
    reported = threading.Event()
    records: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record.getMessage())
            reported.set()

    async def calm() -> str:
        await asyncio.sleep(0)
        return "calm"

    async def fetch() -> str:
        began = time.monotonic()
        block_until(reported)
        return f"{time.monotonic() - began < WITHIN}"

    logger, listener = logging.getLogger("plait.tools"), Listener(logging.WARNING)
    logger.addHandler(listener)
    try:
        async with nothing_left():
            for how in HOWS:
                records.clear()
                reported.clear()
                agent = agent_with(fetch, calm, made=[*calls("fetch"), *calls("calm", 2)[1:]][:count], debug=True)
                assert (await ask(agent, how)).splitlines()[0] == "True"
                said = records[0]
                who = r"the tool 'fetch' of run run_\w+ has blocked the event loop for \d\.\d\d s"
                where = r"at .*threading\.py:\d+ in wait, called from .*\.py:\d+ in fetch"
                assert re.fullmatch(f"{who}, {where}", said)
            assert not any("watchdog" in thread.name for thread in threading.enumerate())
            await assert_goes_on(agent_with(calm, debug=True))
    finally:
        logger.removeHandler(listener)


@pytest.mark.fault("T04")
async def test_without_debug_there_is_no_watchdog_and_sync_tools_block_nothing() -> None:
    seen: list[set[str]] = []
    ticked = threading.Event()

    def wait_for_the_loop() -> bool:
        seen.append({thread.name for thread in threading.enumerate()})
        return ticked.wait(WITHIN)

    async def tick() -> None:
        while not seen:  # noqa: ASYNC110  # the tool is in a thread
            await asyncio.sleep(0)
        ticked.set()

    ticker = asyncio.ensure_future(tick())
    assert await ask(agent_with(wait_for_the_loop), "chat") == "true"
    await ticker
    assert not any("watchdog" in name for name in seen[0])


@pytest.mark.fault("T04")
async def test_a_tool_that_waits_as_it_should_is_not_reported(caplog: pytest.LogCaptureFixture) -> None:
    async def patient() -> str:
        await asyncio.sleep(0.4)
        return "done"

    assert await ask(agent_with(patient, debug=True), "run") == "done"
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


# --- T08: cancels itself ----------------------------------------------------------------------------------------------


async def raises_cancelled() -> None:
    raise asyncio.CancelledError


async def cancels_its_task() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)


async def cancels_its_task_often() -> None:
    task = asyncio.current_task()
    assert task is not None
    for _ in range(5):
        task.cancel()
    await asyncio.Event().wait()


async def awaits_what_was_cancelled() -> None:
    task = asyncio.ensure_future(waits())
    await asyncio.sleep(0)
    task.cancel()
    await task


def raises_cancelled_in_a_thread() -> None:
    raise asyncio.CancelledError


async def generates_and_cancels() -> AsyncIterator[str]:
    yield "one"
    raise asyncio.CancelledError


@pytest.mark.fault("T08")
@pytest.mark.parametrize(
    "cancels",
    [
        raises_cancelled,
        cancels_its_task,
        cancels_its_task_often,
        awaits_what_was_cancelled,
        raises_cancelled_in_a_thread,
        generates_and_cancels,
    ],
)
async def test_a_tool_that_cancels_itself_does_not_cancel_the_run(cancels: Callable[..., Any]) -> None:
    async with nothing_left():
        for how in HOWS:
            for count in (1, 3):
                agent = agent_with(cancels, made=calls(cancels.__name__, count))
                said = f"ERROR the tool '{cancels.__name__}' cancelled itself"
                other = f"ERROR the tool '{cancels.__name__}' was cancelled from outside its run"
                assert set((await ask(agent, how)).splitlines()) <= {said, other}
                if how == "chat":
                    await assert_goes_on(agent)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0


# --- T09: ends the program --------------------------------------------------------------------------------------------


class Halt(BaseException):
    """Neither an Exception nor one that Python knows."""


@pytest.mark.fault("T09")
@pytest.mark.parametrize("kind", ["async", "sync", "one of three"])
@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit, Halt])
def test_an_end_of_the_program_is_raised_and_what_happened_is_saved(
    error: type[BaseException], how: How, kind: str
) -> None:
    async def leave() -> str:
        await asyncio.sleep(0)
        raise error

    def leave_a_thread() -> str:
        raise error

    async def wait() -> str:
        await asyncio.Event().wait()
        return ""

    def made(store: Any) -> Agent[Any, Any]:
        first = leave_a_thread if kind == "sync" else leave
        name = first.__name__
        script = [*calls(name), *calls("wait", 3)[1:]] if kind == "one of three" else calls(name)
        return agent_with(first, wait, made=script, store=store)

    async def first() -> None:
        async with stored() as store:
            await ask(made(store), how, "go", thread="t")

    async def second() -> list[str]:
        async with stored() as store:
            agent = made(store)
            log = await agent.log("t")
            await assert_goes_on(agent, "t")
            return [item.kind for item in log]

    with pytest.raises(error):
        asyncio.run(first())
    kinds = asyncio.run(second())
    assert kinds[:3] == ["run_started", "message", "message"]
    assert "tool_started" in kinds
    assert kinds[-1] == "run_finished"


# --- T11: one of ten fails --------------------------------------------------------------------------------------------


@pytest.mark.fault("T11")
@pytest.mark.parametrize("how", HOWS)
async def test_when_one_of_ten_fails_the_others_keep_their_results(how: How) -> None:
    failed = asyncio.Event()

    async def work(n: int) -> str:
        if n == 4:
            failed.set()
            msg = "four"
            raise ValueError(msg)
        await failed.wait()
        await asyncio.sleep(0)
        return str(n)

    made = [ToolCall(id=f"call_{n}", name="work", arguments=f'{{"n": {n}}}') for n in range(10)]
    async with nothing_left():
        agent = agent_with(work, made=made)
        said = (await ask(agent, how)).splitlines()
        assert said == ["ERROR ValueError: four" if n == 4 else str(n) for n in range(10)]
        if how == "chat":
            await assert_goes_on(agent)


# --- T12: a generator left half read ----------------------------------------------------------------------------------


@pytest.mark.fault("T12")
@pytest.mark.parametrize("kind", ["async", "sync"])
@pytest.mark.parametrize("why", ["too much", "time-out", "raises", "run cancelled"])
async def test_a_generator_that_is_left_half_read_is_closed(why: str, kind: str) -> None:
    closed, begun, go_on = threading.Event(), asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    async def pieces() -> AsyncIterator[str]:
        try:
            yield "x" * 60_000 if why == "too much" else "piece"
            begun.set()
            if why == "raises":
                msg = "half way"
                raise ValueError(msg)
            await asyncio.Event().wait()
            yield "never"
        finally:
            closed.set()

    def pieces_in_a_thread() -> Iterator[str]:
        try:
            yield "x" * 60_000 if why == "too much" else "piece"
            loop.call_soon_threadsafe(begun.set)
            if why == "raises":
                msg = "half way"
                raise ValueError(msg)
            go_on.wait(WITHIN)
            yield "one more"
            yield "never"
            go_on.clear()
        finally:
            closed.set()

    function = pieces if kind == "async" else pieces_in_a_thread
    agent = agent_with(timed(function, 0.05) if why == "time-out" else function)
    task = asyncio.ensure_future(ask(agent, "chat"))
    if why == "run cancelled":
        await asyncio.wait_for(begun.wait(), WITHIN)
        task.cancel()
    await asyncio.wait([task], timeout=WITHIN)
    go_on.set()
    assert await asyncio.to_thread(closed.wait, WITHIN)
    assert go_on.is_set()  # it did not run to its end
    if why != "run cancelled":
        told = {"too much": "xxx", "time-out": "ERROR the tool", "raises": "ERROR ValueError: half way"}
        assert (await task).startswith(told[why])
    await assert_goes_on(agent)
