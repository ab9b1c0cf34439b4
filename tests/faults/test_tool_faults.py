"""Tools that raise, hang, block, return too much or the wrong thing, and do what no tool should."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import json
import logging
import re
import threading
import time
from contextlib import suppress
from contextvars import Context
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel, model_serializer

from faults.aftermath import (
    AGAIN,
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
    MemoryStore,
    OfflineProvider,
    Request,
    RunContext,
    Secret,
    ToolCall,
    ToolResult,
    history,
    tool,
)
from plait.entries import ToolEnd
from plait.promises import Promise
from plait.scopes import Scope
from plait.tools import Tool, as_tool
from plait.workers import MAX_LEFT, WORKERS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

KEY = "sk-secret-0123456789abcdef"


def timed(function: Callable[..., Any], seconds: float, **options: Any) -> Tool:
    return as_tool({"func": function, "timeout": seconds, **options})


# --- T01: raises ------------------------------------------------------------------------------------------------------


class Mute(Exception):
    def __str__(self) -> str:
        msg = "no words"
        raise RuntimeError(msg)


class Rude(Exception):
    """Not even its class can be asked."""

    def __str__(self) -> str:
        raise KeyboardInterrupt

    __repr__ = __str__


class Odd(Exception):
    def __str__(self) -> str:
        return 7  # type: ignore[return-value]


def deep(depth: int = 0) -> int:
    return deep(depth + 1) + 1


RAISED: list[tuple[Callable[[], BaseException], str]] = [
    (lambda: ValueError("no such city"), "ERROR ValueError: no such city"),
    (lambda: MemoryError(), "ERROR MemoryError"),
    (lambda: RecursionError("too deep"), "ERROR RecursionError: too deep"),
    (lambda: StopIteration("early"), "ERROR .*StopIteration.*"),
    (lambda: StopAsyncIteration("early"), "ERROR .*StopAsyncIteration.*"),
    (lambda: Mute(), "ERROR Mute"),
    (lambda: Odd(), "ERROR Odd"),
    (
        lambda: ExceptionGroup("both", [ValueError("one"), ExceptionGroup("inner", [KeyError("two")])]),
        "ERROR ExceptionGroup: both .*one.*",
    ),
    (lambda: ExceptionGroup("both", [Mute()]), "ERROR ExceptionGroup: both.*Mute.*"),
    (lambda: ValueError("line one\nline two\x1b[31m\x00"), r"ERROR ValueError: line one line two[^\n\x1b\x00]*"),
    (lambda: ValueError("x" * 10_000_000), "ERROR ValueError: x{100,600}…"),
    (lambda: ValueError("\ud800"), r"ERROR ValueError: \\ud800"),
    (lambda: ValueError(f"401 for {KEY}"), "ERROR ValueError: 401 for ((?!sk-secret).)*"),
    (lambda: OSError(2, "No such file", "/tmp/x"), "ERROR FileNotFoundError: .*"),
    (lambda: TimeoutError(), "ERROR TimeoutError"),
    (lambda: asyncio.InvalidStateError(), "ERROR InvalidStateError"),
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

    async def pay(token: Secret) -> str:
        try:
            raise ValueError(token.reveal())
        except ValueError as error:
            msg = f"Bearer {token.reveal()} was refused; {token.reveal().upper()[:0]}key={KEY}"
            raise RuntimeError(msg) from error

    agent = agent_with(pay)
    run = agent.run("go", secrets={"token": Secret("hunter2-hunter2")})
    events = [repr(event) for event in [event async for event in run]]
    result = await run
    for text in (*events, repr(result.history), result.output, caplog.text):
        assert "hunter2" not in text
        assert KEY not in text
        assert "Traceback" not in text
    assert result.output == "ERROR RuntimeError: Bearer <secret:token> was refused; key=***"


# --- T02: hangs -------------------------------------------------------------------------------------------------------


async def waits() -> None:
    await asyncio.Event().wait()


async def swallows() -> None:
    while True:
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()


async def swallows_everything() -> None:
    for _ in range(10):  # not for ever: it would go on when it is collected, where no event loop runs
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
        for made in (calls(limited.name), calls(limited.name, 2)):
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
async def test_a_hundred_sync_tools_that_hang_take_a_bounded_number_of_threads(caplog: pytest.LogCaptureFixture) -> None:
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
        while WORKERS.left:
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
                [said] = records
                where = rf"the tool 'fetch' of run run_\w+ has blocked the event loop for 0\.\d\d s, at .*threading\.py:\d+ "
                assert re.fullmatch(rf"{where}in wait, called from .*test_tool_faults\.py:\d+ in fetch", said)
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
        while not seen:
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


# --- T05: no JSON -----------------------------------------------------------------------------------------------------


class Model(BaseModel):
    name: str = "m"
    number: float = 1.5


class Liar(BaseModel):
    @model_serializer
    def lie(self) -> dict[str, Any]:
        msg = f"never {KEY}"
        raise ValueError(msg)


class Cyclic(BaseModel):
    inner: Any = None


@dataclasses.dataclass
class Point:
    x: int = 1


class Dear(str):
    """Text that lies about its length."""

    __slots__ = ()

    def __len__(self) -> int:
        return 3


class Sly(dict[str, Any]):
    def items(self) -> Any:
        msg = "no items today"
        raise RuntimeError(msg)


class Endless(list[int]):
    def __iter__(self) -> Iterator[int]:
        n = 0
        while True:
            yield (n := n + 1)


def cycle() -> list[Any]:
    made: list[Any] = []
    made.append({"self": made})
    return made


def cyclic_model() -> Cyclic:
    made = Cyclic()
    made.inner = [made]
    return made


def nested(depth: int) -> list[Any]:
    made: list[Any] = []
    for _ in range(depth):
        made = [made]
    return made


RETURNED: list[tuple[Callable[[], Any], str]] = [
    (lambda: float("nan"), "ERROR .*nan, which has no form in JSON.*"),
    (lambda: {"a": [1, float("-inf")]}, r"ERROR the result\.a\[1\] is the number -inf.*"),
    (lambda: {3, 1, 2}, r"\[1,2,3\]"),
    (lambda: {"b", 1, None, ("x", 2)}, r'\["b",\["x",2\],1,null\]'),
    (lambda: b"plain", "plain"),
    (lambda: b"\xff\xfe\x00", "ERROR the tool returned 3 bytes of an unknown kind.*"),
    (lambda: {"raw": b"x"}, "ERROR the result.raw is of type bytes.*"),
    (cycle, "ERROR .* holds itself.*"),
    (cyclic_model, "ERROR .*"),
    (lambda: nested(100_000), "ERROR the result is nested too deeply.*"),
    (lambda: object(), "ERROR the result is of type object.*"),
    (lambda: {"fine": 1, "x": object}, "ERROR the result.x is of type type.*"),
    (lambda: Model(), r'\{"name":"m","number":1.5\}'),
    (lambda: [Model(number=float("nan"))], "ERROR .*|.*null.*"),
    (lambda: Liar(), "ERROR .*(?<!sk-secret).*"),
    (lambda: Point(), r'\{"x":1\}'),
    (lambda: Point, "ERROR the result is of type type.*"),
    (lambda: 10**5000, "ERROR the result is a number with too many digits"),
    (lambda: "\ud800", "\ud800"),
    (lambda: {"\ud800": "\udfff"}, '.*'),
    (lambda: "\x00", "\x00"),
    (lambda: {1: "a", None: "b", True: "c"}, '.*'),
    (lambda: {(1, 2): "a"}, "ERROR the result has a key of type tuple.*"),
    (lambda: (item for item in "abc"), "ERROR the result is of type generator.*|abc"),
    (lambda: Dear("x" * 100_000), r"x{50000}\n\[cut.*"),
    (lambda: Sly(a=1), "ERROR RuntimeError: no items today"),
    (lambda: Endless([1]), r"(?s)\[1,2,3,.*\[cut.*"),
    (lambda: threading.Lock(), "ERROR the result is of type lock.*"),
    (lambda: ValueError("returned, not raised"), "ERROR the result is of type ValueError.*"),
    (lambda: Secret("hunter2-hunter2"), "ERROR the result is a Secret, which no model may see.*"),
    (lambda: waits, "ERROR the result is of type function.*"),
    (lambda: ToolResult(call_id="wrong", name="wrong", text="mine"), "mine"),
]


@pytest.mark.fault("T05")
@pytest.mark.parametrize("kind", ["async", "sync"])
@pytest.mark.parametrize(("value", "said"), RETURNED)
async def test_a_result_has_a_stated_form_or_is_an_error(value: Callable[[], Any], said: str, kind: str) -> None:
    async def give() -> Any:
        return value()

    def give_in_a_thread() -> Any:
        return value()

    async with nothing_left(), stored() as store:
        agent = agent_with(give if kind == "async" else give_in_a_thread, store=store)
        text = await ask(agent, "chat", thread="t")
        assert re.fullmatch(said, text), text[:300]
        assert KEY not in text
        for entry in await agent.log("t"):
            if isinstance(entry.body, ToolEnd):
                assert entry.body.result.call_id == "call_0"
        await assert_goes_on(agent, "t")


# --- T06: too much ----------------------------------------------------------------------------------------------------

HUGE = 50_000_000


class Verbose:
    def __repr__(self) -> str:
        return "v" * HUGE


class Wide(BaseModel):
    items: list[int]


def huge_strings() -> Iterator[str]:
    for _ in range(HUGE // 1000):
        yield "y" * 1000


MUCH: list[tuple[Callable[[], Any], str]] = [
    (lambda: "x" * HUGE, r"x{50000}\n\[cut: only the first 50,000 characters are shown\]"),
    (lambda: ["x" * 50] * (HUGE // 50), r'\["x+",.*\n\[cut: only the first 50,000 characters are shown\]'),
    (lambda: {"a": "\x00" * HUGE}, r'\{"a":".*\n\[cut: only the first 50,000 characters are shown\]'),
    (lambda: b"x" * HUGE, r"x{50000}\n\[cut: only the first 50,000 characters are shown\]"),
    (lambda: b"\x89PNG\r\n\x1a\n" + b"x" * HUGE, "ERROR the tool returned 50,000,008 bytes of image/png; at most .*"),
    (lambda: "é" * (HUGE // 2), r"é{50000}\n\[cut.*"),
    (lambda: Verbose(), "ERROR the result is of type Verbose.*"),
    (lambda: set(range(2_000_000)), r"\[.*\n\[cut: .*"),
    (lambda: Wide.model_construct(items=list(range(2_000_000))), r'\{"items":\[0,1,.*\n\[cut: .*'),
    (lambda: bytearray(HUGE), "\x00{50000}\n\\[cut.*"),
]


@pytest.mark.fault("T06")
@pytest.mark.parametrize(("value", "said"), MUCH)
async def test_a_huge_result_is_cut_and_says_so(value: Callable[[], Any], said: str) -> None:
    made = value()

    async def give() -> Any:
        return made

    agent = agent_with(give, store=MemoryStore())
    text = await ask(agent, "stream", thread="t")
    assert re.fullmatch(said, text, re.DOTALL), text[:200]
    log = await agent.log("t")
    assert all(len(entry.body.result.text) < 60_000 for entry in log if isinstance(entry.body, ToolEnd))
    await assert_goes_on(agent, "t")


@pytest.mark.fault("T06")
async def test_huge_pieces_and_huge_errors_are_cut_too() -> None:
    def fails() -> str:
        raise ValueError(Verbose())

    for function, said in ((huge_strings, r"y{50000}\n\[cut.*"), (fails, "ERROR ValueError: v+…")):
        agent = agent_with(function)
        text = await ask(agent, "chat")
        assert re.fullmatch(said, text), text[:200]
        await assert_goes_on(agent)
