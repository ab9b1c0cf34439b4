from __future__ import annotations

import asyncio
import dataclasses
import gc
import math
import signal
import threading
import weakref
from typing import Any

import pytest

from plait.errors import ConfigurationError
from plait.events import StopReason, Usage
from plait.interrupts import Secret
from plait.messages import AssistantMessage, Message, TextPart, ToolCall, ToolMessage, ToolResult, UserMessage
from plait.run import RunContext, RunLimits, RunResult, StopSignal

# --- limits ---


def test_limits() -> None:
    assert RunLimits() == RunLimits(max_turns=10, max_tool_calls=50, deadline=None)
    assert RunLimits(max_turns=1, max_tool_calls=0, deadline=0.5).deadline == 0.5
    with pytest.raises(dataclasses.FrozenInstanceError):
        RunLimits().max_turns = 3  # type: ignore[misc]


@pytest.mark.parametrize("value", [0, -1, True, 2.0, None, "many"])
def test_wrong_numbers_of_turns(value: Any) -> None:
    with pytest.raises(ConfigurationError) as raised:
        RunLimits(max_turns=value)
    shown = "str" if value == "many" else value
    assert str(raised.value) == f"max_turns must be a whole number of at least 1, not {shown}"


@pytest.mark.parametrize("value", [-1, False, 2.0, None, "many"])
def test_wrong_numbers_of_tool_calls(value: Any) -> None:
    with pytest.raises(ConfigurationError) as raised:
        RunLimits(max_tool_calls=value)
    shown = "str" if value == "many" else value
    assert str(raised.value) == f"max_tool_calls must be a whole number of at least 0, not {shown}"


@pytest.mark.parametrize("value", [0, -0.5, True, math.nan, "soon"])
def test_wrong_deadlines(value: Any) -> None:
    with pytest.raises(ConfigurationError) as raised:
        RunLimits(deadline=value)
    shown = "str" if value == "soon" else value
    assert str(raised.value) == f"deadline must be a number of seconds above 0, or None, not {shown}"


# --- context and result ---


def test_a_context_shows_no_secret() -> None:
    context = RunContext(deps=3, user_id="u", secrets={"token": Secret("abc")})
    assert context.deps == 3
    assert (context.thread_id, context.run_id, context.agent_name, context.usage) == ("", "", "", None)
    assert "abc" not in repr(context)
    assert "Secret('***')" in repr(context)
    assert RunContext(deps=None).secrets == {}


CALLED = AssistantMessage(parts=[TextPart(text="I look"), ToolCall(id="a", name="f")])
ANSWERED = (
    UserMessage(text="q"),
    CALLED,
    ToolMessage(parts=[ToolResult(call_id="a", text="r")]),
    AssistantMessage(text="done"),
)


def result(
    stop_reason: StopReason, messages: tuple[Message, ...] = ANSWERED, usage: Usage | None = None
) -> RunResult[str]:
    return RunResult(
        output="done",
        stop_reason=stop_reason,
        messages=messages,
        history=messages,
        usage=usage,
        thread_id="thr_1",
        run_id="run_1",
        agent_name="a",
    )


@pytest.mark.parametrize(
    "reason",
    ["response", "max_turns", "max_tool_calls", "budget", "user_stop", "interrupt", "guardrail", "deadline"],
)
def test_every_field_is_there_for_every_stop_reason(reason: StopReason) -> None:
    made = result(reason, usage=Usage(input_tokens=3, cost=0.5))
    assert (made.output, made.stop_reason, made.messages, made.history) == ("done", reason, ANSWERED, ANSWERED)
    assert (made.thread_id, made.run_id, made.agent_name) == ("thr_1", "run_1", "a")
    assert (made.truncated, made.error, made.finish_reason, made.provider, made.model) == (
        False,
        None,
        None,
        None,
        None,
    )
    assert (made.usage, made.cost) == (Usage(input_tokens=3, cost=0.5), 0.5)
    assert made.text == "done"


def test_views_of_a_result() -> None:
    made = result("response")
    expected = (UserMessage(text="q"), AssistantMessage(text="I look"), AssistantMessage(text="done"))
    assert made.history_without_tool_calls == expected
    assert made.history_without_tool_calls is made.history_without_tool_calls
    assert made.history == ANSWERED
    assert made.cost is None
    assert result("deadline", usage=Usage()).cost is None
    assert result("user_stop", ()).text == ""
    assert result("user_stop", (UserMessage(text="q"),)).text == ""
    assert "history" not in repr(made)
    with pytest.raises(AttributeError, match="immutable"):
        made.output = "x"  # type: ignore[misc]


# --- stop signals ---


def set_in_a_thread(stop: StopSignal) -> None:
    thread = threading.Thread(target=stop.set)
    thread.start()
    thread.join(5)


async def tick(times: int = 3) -> None:
    for _ in range(times):
        await asyncio.sleep(0)


async def test_a_signal_reaches_the_loop_from_another_thread() -> None:
    stop, called = StopSignal(), asyncio.Event()
    stop.on_set(called.set)
    assert not stop.is_set()
    threading.Thread(target=stop.set).start()
    async with asyncio.timeout(5):
        await called.wait()
    assert stop.is_set()
    assert repr(stop) == "StopSignal(set)"
    assert repr(StopSignal()) == "StopSignal(not set)"


async def test_a_signal_that_is_set_already_calls_back_soon_but_not_at_once() -> None:
    stop, said = StopSignal(), list[int]()
    stop.set()
    stop.on_set(lambda: said.append(1))
    assert said == []
    await tick()
    assert said == [1]


async def test_twice_is_once() -> None:
    stop, said = StopSignal(), list[int]()
    stop.on_set(lambda: said.append(1))
    stop.set()
    stop.set()
    set_in_a_thread(stop)
    await tick()
    assert said == [1]


async def test_one_signal_stops_many() -> None:
    stop, said = StopSignal(), list[int]()

    def say() -> None:
        said.append(1)

    stop.on_set(say)
    forget = stop.on_set(say)
    stop.on_set(lambda: said.append(2))
    forget()
    stop.set()
    await tick()
    assert sorted(said) == [1, 2]


@pytest.mark.parametrize("when", ["before", "after", "already"])
async def test_what_was_taken_back_is_never_called(when: str) -> None:
    """Also when the signal came first: a run that has ended must not cancel what its task does next."""
    stop, said = StopSignal(), list[int]()
    if when == "already":
        stop.set()
    forget = stop.on_set(lambda: said.append(1))
    if when == "after":
        set_in_a_thread(stop)
    forget()
    forget()
    stop.set()
    await tick()
    assert said == []


def test_closed_loops_are_passed_over() -> None:
    stop, said = StopSignal(), list[int]()

    async def watch(number: int) -> None:
        stop.on_set(lambda: said.append(number))

    asyncio.run(watch(1))

    async def live() -> None:
        stop.on_set(lambda: said.append(2))
        stop.set()
        await tick()

    asyncio.run(live())
    assert said == [2]


def test_one_callback_on_two_loops_is_called_on_both() -> None:
    stop, said = StopSignal(), list[int]()
    both = threading.Barrier(3, timeout=5)
    here = threading.local()

    def say() -> None:
        said.append(threading.get_ident())
        here.called.set()

    async def watch() -> None:
        here.called = asyncio.Event()
        stop.on_set(say)
        both.wait()
        async with asyncio.timeout(5):
            await here.called.wait()

    threads = [threading.Thread(target=asyncio.run, args=(watch(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    both.wait()
    stop.set()
    for thread in threads:
        thread.join(10)
    assert len(set(said)) == len(said) == 2


async def test_a_callback_that_raises_does_not_keep_the_others_from_being_called() -> None:
    stop, said, errors = StopSignal(), list[int](), list[dict[str, Any]]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))

    def fail() -> None:
        msg = "a callback"
        raise ValueError(msg)

    stop.on_set(fail)
    stop.on_set(lambda: said.append(1))
    stop.set()
    await tick()
    assert said == [1]
    assert [str(error["exception"]) for error in errors] == ["a callback"]


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="needs POSIX signals")
async def test_a_signal_handler_may_set_it_at_any_moment() -> None:
    """A handler runs inside whatever the main thread does, also inside `on_set` itself."""
    stop = StopSignal()
    before = signal.signal(signal.SIGALRM, lambda *_: stop.set())
    called = 0

    def count() -> None:
        nonlocal called
        called += 1

    try:
        async with asyncio.timeout(20):
            for _ in range(50):
                stop = StopSignal()
                called = watched = 0
                signal.setitimer(signal.ITIMER_REAL, 0.0005)
                while not stop.is_set():
                    stop.on_set(count)
                    watched += 1
                await tick()
                assert called == watched
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


async def test_a_signal_keeps_nothing_of_runs_that_are_over() -> None:
    stop = StopSignal()
    kept = UserMessage(text="x")
    seen = weakref.ref(kept)
    stop.on_set(kept.to_json)()  # type: ignore[arg-type]  # any bound method
    del kept
    gc.collect()
    assert seen() is None


def test_only_a_running_loop_can_be_called_back() -> None:
    with pytest.raises(RuntimeError, match="no running event loop"):
        StopSignal().on_set(lambda: None)
