from __future__ import annotations

import asyncio
import contextvars
import json
import logging
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from executing import executing
from plait.errors import ToolError
from plait.interrupts import Secret
from plait.messages import ImagePart, TextPart, ToolCall, ToolResult
from plait.run import RunContext
from plait.tools import Tool, as_tool, find_tools

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from plait.executor import Finished

CONTEXT: RunContext[None] = RunContext(deps=None, user_id="ann", thread_id="thr_1", run_id="run_1", agent_name="Helper")
WITHIN = 10  # seconds that a test may take before it has failed


def call(name: str, arguments: str = "", number: int = 1) -> ToolCall:
    return ToolCall(id=f"call_{number}", name=name, arguments=arguments)


async def run(calls: list[ToolCall], *forms: Any, context: RunContext[Any] = CONTEXT, **options: Any) -> list[Finished]:
    found: list[Finished] = []
    async with asyncio.timeout(WITHIN), executing(calls, find_tools(forms), context, **options) as batches:
        async for batch in batches:
            found += batch
    return found


async def said(form: Any, arguments: str = "", *, context: RunContext[Any] = CONTEXT) -> tuple[str, bool]:
    """Give the text of one call's result, and whether it is an error."""
    name = next(iter(find_tools([form])))
    [done] = await run([call(name, arguments)], form, context=context)
    return done.result.text, done.result.is_error


def timed(function: Callable[..., Any], seconds: float, **options: Any) -> Tool:
    return as_tool({"func": function, "timeout": seconds, **options})


async def test_one_call_gives_one_result() -> None:
    async def double(x: int) -> int:
        return 2 * x

    [done] = await run([call("double", '{"x": 3}')], double)
    assert done.call == call("double", '{"x": 3}')
    assert done.result == ToolResult(call_id="call_1", name="double", text="6")
    assert done.seconds > 0


async def test_one_call_runs_in_the_run_s_own_task() -> None:
    seen: list[object] = []

    async def look() -> None:
        seen.append(asyncio.current_task())

    await run([call("look")], look)
    assert seen == [asyncio.current_task()]


async def test_calls_of_one_turn_run_at_the_same_time_and_each_gives_its_own_result() -> None:
    everybody = asyncio.Barrier(3)

    async def meet(x: int) -> int:
        await everybody.wait()
        return x

    done = await run([call("meet", f'{{"x": {x}}}', x) for x in range(3)], meet)
    assert {one.call.id: one.result.text for one in done} == {"call_0": "0", "call_1": "1", "call_2": "2"}


async def test_a_result_is_given_when_it_is_there() -> None:
    go = asyncio.Event()

    async def slow() -> str:
        await go.wait()
        return "slow"

    async def quick() -> str:
        return "quick"

    order: list[list[str]] = []
    calls = [call("slow", number=1), call("quick", number=2)]
    async with asyncio.timeout(WITHIN), executing(calls, find_tools([slow, quick]), CONTEXT) as batches:
        async for batch in batches:
            order.append([one.result.text for one in batch])
            go.set()
    assert order == [["quick"], ["slow"]]


async def test_calls_at_once_are_bounded() -> None:
    running: list[int] = []
    most = 0

    async def work(x: int) -> None:
        nonlocal most
        running.append(x)
        most = max(most, len(running))
        await asyncio.sleep(0)
        running.remove(x)

    done = await run([call("work", f'{{"x": {x}}}', x) for x in range(128)], work)
    assert sorted(one.call.id for one in done) == sorted(f"call_{x}" for x in range(128))
    assert most == 16


async def test_sequential_calls_run_one_after_the_other_in_order() -> None:
    steps: list[str] = []

    async def work(x: int) -> None:
        steps.append(f"begin {x}")
        await asyncio.sleep(0)
        steps.append(f"end {x}")

    await run([call("work", f'{{"x": {x}}}', x) for x in range(3)], work, sequential=True)
    assert steps == ["begin 0", "end 0", "begin 1", "end 1", "begin 2", "end 2"]


async def test_an_exclusive_tool_runs_alone() -> None:
    steps: list[str] = []

    async def work() -> None:
        steps.append("work begins")
        await asyncio.sleep(0)
        steps.append("work ends")

    async def alone() -> None:
        steps.append("alone begins")
        await asyncio.sleep(0)
        steps.append("alone ends")

    names = ["work", "work", "alone", "work"]
    await run([call(name, number=n) for n, name in enumerate(names)], work, as_tool({"func": alone, "exclusive": True}))
    assert steps == [
        "work begins",
        "work begins",
        "work ends",
        "work ends",
        "alone begins",
        "alone ends",
        "work begins",
        "work ends",
    ]


# --- what goes wrong is a result


async def test_an_unknown_tool_is_named_with_the_known_ones() -> None:
    async def get_weather() -> None: ...

    async def buy() -> None: ...

    [done] = await run([call("get_wether")], buy, get_weather)
    assert done.result.is_error
    assert done.result.text == "there is no tool 'get_wether'; the tools are: get_weather, buy"
    [done] = await run([call("anything")])
    assert done.result.text == "there is no tool 'anything'; there are no tools"


async def test_a_tool_never_runs_with_wrong_arguments() -> None:
    ran: list[int] = []

    async def work(x: int) -> None:
        ran.append(x)

    for arguments in ("", "[]", '{"x": "a"}', '{"x": 1', '{"x": 1, "y": 2}', '{"x": 1, "x": 2}', "[" * 100_000):
        text, is_error = await said(work, arguments)
        assert is_error
        assert "'work'" in text
    assert ran == []


async def test_an_exception_is_its_type_and_message() -> None:
    async def work() -> None:
        msg = "the shop\nis closed"
        raise ValueError(msg)

    def deep() -> None:
        deep()

    def full() -> None:
        raise MemoryError

    async def group() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(work())

    async def ended() -> None:
        raise StopIteration

    assert await said(work) == ("ValueError: the shop is closed", True)
    assert await said(deep) == ("RecursionError: maximum recursion depth exceeded", True)
    assert await said(full) == ("MemoryError", True)
    assert await said(group) == (
        "ExceptionGroup: unhandled errors in a TaskGroup (1 sub-exception); ValueError: the shop is closed",
        True,
    )
    assert await said(ended) == ("RuntimeError: coroutine raised StopIteration", True)


async def test_a_tool_error_is_its_text() -> None:
    def work() -> None:
        msg = "Ask for the order number.\nThen call again."
        raise ToolError(msg)

    assert await said(work) == ("Ask for the order number.\nThen call again.", True)


async def test_secrets_are_cut_out_of_errors_and_results() -> None:
    async def fail() -> None:
        msg = (
            "GET https://bob:pa55word@db.local/x?token=abcdef&a=1 with Bearer abcdefghijkl and sk-proj-0123456789abcdef"
        )
        raise OSError(msg)

    text, _ = await said(fail)
    assert text == "OSError: GET https://***@db.local/x?token=***&a=1 with Bearer *** and ***"

    async def leak(token: Secret) -> str:
        return f"used {token.reveal()}"

    context = RunContext(deps=None, secrets={"token": Secret("hunter2")})
    assert await said(leak, context=context) == ("used <secret:token>", False)


PASSWORD, PEM, TOKEN = 'p"ss\\word1', "-----BEGIN KEY-----\nMIIabc\n-----END KEY-----", "abcdefghijklmnop"
HOLDING = RunContext(
    deps=None, secrets={"password": Secret(PASSWORD), "pem": Secret(PEM), "token": Secret(TOKEN), "pin": Secret("4711")}
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"url": "x", "pw": PASSWORD}, '{"url":"x","pw":"<secret:password>"}'),
        ([PEM, {PEM: 1}], '["<secret:pem>",{"<secret:pem>":1}]'),
        ({"pin": 4711}, '{"pin":"<secret:pin>"}'),
        (json.dumps({"pw": PASSWORD}), '{"pw": "<secret:password>"}'),
        (f"token is {TOKEN}", "token is <secret:tok\n[cut: only the first 20 characters are shown]"),
        ([TOKEN, TOKEN], '["<secret:token>","<\n[cut: only the first 20 characters are shown]'),
        (PEM.encode(), "<secret:pem>"),
        (ImagePart(url=f"https://x/?token={TOKEN}"), ImagePart(url="https://x/?token=<secret:token>")),
    ],
)
async def test_a_secret_is_taken_out_before_anything_is_escaped_or_cut(value: object, text: object) -> None:
    async def leak() -> object:
        return value

    async def raised() -> object:
        raise ToolError(value)

    most = 20 if "cut" in str(text) else 50_000
    (part,) = (await run([call("leak")], as_tool({"func": leak, "max_result": most}), context=HOLDING))[0].result.parts
    assert part == (TextPart(text=text) if isinstance(text, str) else text)
    if isinstance(value, str):
        assert await said(as_tool({"func": raised, "max_result": most}), context=HOLDING) == (text, True)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError(f"cannot parse {PEM}"), "ValueError: cannot parse <secret:pem>"),
        (KeyError(PASSWORD), "KeyError: '<secret:password>'"),
        (OSError(f"GET /?q={quote(PASSWORD)}"), "OSError: GET /?q=<secret:password>"),
        (ValueError("x" * 495 + TOKEN), "ValueError: " + "x" * 495 + "<secr…"),
        (ValueError("x" * 490 + " sk-proj-0123456789"), "ValueError: " + "x" * 490 + " ***"),
        (ExceptionGroup("two", [ValueError(PEM)]), "ExceptionGroup: two (1 sub-exception); ValueError: <secret:pem>"),
    ],
)
async def test_a_secret_is_taken_out_of_an_exception_before_it_is_cut(error: Exception, text: str) -> None:
    async def fail() -> None:
        raise error

    assert await said(fail, context=HOLDING) == (text, True)


@pytest.mark.parametrize("pieces", [["token is ab", "cdefghi", "jklmnop", "."], ["token is ", *TOKEN, *"." * 99]])
async def test_a_secret_that_comes_in_pieces_is_taken_out(pieces: list[str]) -> None:
    def grow() -> Iterator[str]:
        yield from pieces

    form = as_tool({"func": grow, "max_result": 12})
    assert await said(form, context=HOLDING) == ("token is <se\n[cut: only the first 12 characters are shown]", False)


async def test_a_failing_tool_is_logged_in_one_line_without_its_words(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="plait.tools")

    async def fail() -> None:
        raise ValueError(TOKEN)

    await said(fail, context=HOLDING)
    (record,) = caplog.records
    assert (record.getMessage(), record.exc_info) == ("the tool 'fail' raised ValueError", None)


async def test_an_async_tool_that_hangs_is_ended_at_its_time() -> None:
    ended = asyncio.Event()

    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    assert await said(timed(hang, 0.01)) == (
        "the tool 'hang' gave no result within 0.01 seconds and was cancelled",
        True,
    )
    assert ended.is_set()


async def test_a_tool_that_will_not_be_cancelled_is_ended_all_the_same() -> None:
    ended = asyncio.Event()

    async def stubborn() -> None:
        try:
            while True:
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    continue
        finally:
            ended.set()

    text, is_error = await said(timed(stubborn, 0.01))
    assert (text, is_error) == ("the tool 'stubborn' gave no result within 0.01 seconds and was cancelled", True)
    assert ended.is_set()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_time_out_of_the_tool_s_own_is_its_own_error() -> None:
    async def hang() -> None:
        async with asyncio.timeout(0.01):
            await asyncio.Event().wait()

    assert await said(hang) == ("TimeoutError", True)


@pytest.mark.fault("T11")
async def test_one_of_ten_fails_and_nine_keep_their_results() -> None:
    async def work(x: int) -> int:
        if x == 4:
            raise ValueError(x)
        return x

    done = await run([call("work", f'{{"x": {x}}}', x) for x in range(10)], work)
    assert {one.call.id: one.result.text for one in done} == {
        f"call_{x}": "ValueError: 4" if x == 4 else str(x) for x in range(10)
    }
    assert [one.call.id for one in done if one.result.is_error] == ["call_4"]


async def _raises_cancelled() -> None:
    raise asyncio.CancelledError


async def _awaits_a_cancelled_task() -> None:
    task = asyncio.ensure_future(asyncio.Event().wait())
    task.cancel()
    await task


async def _cancels_its_task() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.Event().wait()


async def _cancels_its_task_and_raises() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    raise asyncio.CancelledError


@pytest.mark.parametrize(
    "work", [_raises_cancelled, _awaits_a_cancelled_task, _cancels_its_task, _cancels_its_task_and_raises]
)
@pytest.mark.parametrize("count", [1, 2])
async def test_a_tool_that_cancels_itself_cancels_nothing_else(work: Callable[..., Any], count: int) -> None:
    done = await run([call(work.__name__, number=n) for n in range(count)], work)
    assert [one.result.text for one in done] == [f"the tool {work.__name__!r} cancelled itself"] * count
    await asyncio.sleep(0)  # a cancellation that was left over would come here
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_tool_that_cancels_itself_and_returns_at_once_has_its_result() -> None:
    async def work() -> str:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        return "done"

    assert await said(work) == ("done", False)
    await asyncio.sleep(0)


@pytest.mark.parametrize(("count", "swallows"), [(1, False), (3, False), (3, True)])
async def test_cancelling_the_run_cancels_its_calls_and_is_passed_on(count: int, *, swallows: bool) -> None:
    begun, ended = asyncio.Barrier(count + 1), 0

    async def work() -> str:
        nonlocal ended
        await begun.wait()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if not swallows:
                raise
        finally:
            ended += 1
        return "swallowed"

    async with asyncio.timeout(WITHIN):
        task = asyncio.create_task(run([call("work", number=n) for n in range(count)], work))
        await begun.wait()
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert ended == count


async def test_closing_half_way_cancels_what_runs() -> None:
    ended = asyncio.Event()

    async def quick() -> None: ...

    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    calls = [call("quick", number=1), call("hang", number=2)]
    async with asyncio.timeout(WITHIN), executing(calls, find_tools([quick, hang]), CONTEXT) as batches:
        async for batch in batches:
            assert [one.call.name for one in batch] == ["quick"]
            break
    assert ended.is_set()


class _EndError(BaseException):
    """Stands for KeyboardInterrupt, which a test runner takes for its own."""


@pytest.mark.fault("T09")
@pytest.mark.parametrize("kind", [_EndError, SystemExit, GeneratorExit, KeyboardInterrupt])
@pytest.mark.parametrize("is_async", [True, False])
async def test_ends_of_the_program_are_raised_after_the_other_calls_are_cancelled(
    kind: type[BaseException], *, is_async: bool
) -> None:
    ended = asyncio.Event()
    waits = asyncio.Event()

    async def hang() -> None:
        try:
            waits.set()
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def leave() -> None:
        await waits.wait()
        raise kind

    def leave_thread() -> None:
        raise kind

    name = "leave" if is_async else "leave_thread"
    with pytest.raises(kind):
        await run([call("hang", number=1), call(name, number=2)], hang, leave, leave_thread)
    assert ended.is_set()
    waits.set()
    with pytest.raises(kind):
        await run([call(name)], leave, leave_thread)


# --- sync tools


async def test_sync_tools_run_in_threads_with_the_caller_s_context_variables() -> None:
    variable = contextvars.ContextVar("variable", default="unset")
    variable.set("set")
    loop_thread = threading.current_thread()

    def look() -> list[object]:
        return [threading.current_thread() is loop_thread, variable.get()]

    assert await said(look) == ('[false,"set"]', False)


@pytest.mark.fault("T04")
async def test_a_sync_tool_does_not_hold_up_the_loop() -> None:
    go = threading.Event()

    def wait() -> str:
        return "went" if go.wait(WITHIN) else "nobody came"

    async with asyncio.timeout(WITHIN):
        task = asyncio.create_task(said(wait))
        for _ in range(3):
            await asyncio.sleep(0)
        go.set()  # the loop is free to do this while the tool waits for it
        assert await task == ("went", False)


async def test_sync_tools_run_at_the_same_time() -> None:
    everybody = threading.Barrier(3, timeout=WITHIN)

    def meet() -> str:
        everybody.wait()
        return "met"

    done = await run([call("meet", number=n) for n in range(3)], meet)
    assert [one.result.text for one in done] == ["met"] * 3


async def test_a_sync_tool_that_hangs_is_left_and_reported(caplog: pytest.LogCaptureFixture) -> None:
    go = threading.Event()

    def hang() -> None:
        go.wait(WITHIN)

    caplog.set_level(logging.WARNING, "plait.tools")
    text = (
        "the tool 'hang' gave no result within 0.01 seconds and may still be at work, because a function in a thread "
        "cannot be stopped: find out before you repeat it"
    )
    try:
        assert await said(timed(hang, 0.01)) == (text, True)
    finally:
        go.set()
    assert [record.getMessage() for record in caplog.records] == [
        "the sync tool 'hang' is still in its thread; threads left so: 1"
    ]


async def test_a_sync_function_that_gives_a_coroutine_is_awaited_on_the_loop() -> None:
    loop_thread = threading.current_thread()

    async def later() -> bool:
        await asyncio.sleep(0)
        return threading.current_thread() is loop_thread

    def work() -> Any:
        return later()

    assert await said(work) == ("true", False)


# --- generators


async def test_generators_give_their_pieces_as_one() -> None:
    def texts() -> Iterator[str]:
        yield from ("a", "b")

    async def numbers() -> AsyncIterator[int]:
        yield 1
        yield 2

    assert await said(texts) == ("ab", False)
    assert await said(numbers) == ("[1,2]", False)


async def test_a_generator_that_gives_too_much_is_closed() -> None:
    closed: list[str] = []

    async def endless() -> AsyncIterator[str]:
        try:
            while True:
                yield "x" * 10
        finally:
            closed.append("async")

    def endless_sync() -> Iterator[str]:
        try:
            while True:
                yield "x" * 10
        finally:
            closed.append("sync")

    cut = ("x" * 25 + "\n[cut: only the first 25 characters are shown]", False)
    assert await said(as_tool({"func": endless, "max_result": 25})) == cut
    assert await said(as_tool({"func": endless_sync, "max_result": 25})) == cut
    assert closed == ["async", "sync"]


async def test_an_async_generator_that_hangs_is_closed_at_its_time() -> None:
    closed = asyncio.Event()

    async def hang() -> AsyncIterator[str]:
        try:
            yield "a"
            await asyncio.Event().wait()
        finally:
            closed.set()

    _, is_error = await said(timed(hang, 0.01))
    assert is_error
    assert closed.is_set()


# --- results


async def test_results_by_the_table() -> None:
    async def picture() -> list[object]:
        return [TextPart(text="a cat"), ImagePart(url="https://example.org/cat.png")]

    async def wrong() -> object:
        return {"x": float("nan")}

    async def failed() -> ToolResult:
        return ToolResult(call_id="", text="no luck", is_error=True)

    async def long() -> str:
        return "x" * 60_000

    [done] = await run([call("picture")], picture)
    assert done.result.parts == (TextPart(text="a cat"), ImagePart(url="https://example.org/cat.png"))
    text, is_error = await said(wrong)
    assert is_error
    assert text.startswith("the result.x is the number nan, which has no form in JSON")
    [done] = await run([call("failed")], failed)
    assert done.result == ToolResult(call_id="call_1", name="failed", text="no luck", is_error=True)
    text, is_error = await said(long)
    assert text == "x" * 50_000 + "\n[cut: only the first 50,000 characters are shown]"
    assert not is_error


# --- what the run fills


async def test_the_run_fills_what_is_declared_and_the_model_cannot() -> None:
    seen: list[object] = []

    async def look(city: str, user_id: str, chat_id: str, agent_name: str, context: RunContext[Any]) -> None:
        seen.extend((city, user_id, chat_id, agent_name, context))

    arguments = '{"city": "Bonn", "user_id": "root", "chat_id": "other", "agent_name": "boss", "context": {}}'
    text, is_error = await said(look, arguments)
    assert (text, is_error) == ("The tool finished and returned nothing.", False)
    assert seen == [
        "Bonn",
        "ann",
        "thr_1",
        "Helper",
        RunContext(
            deps=None,
            user_id="ann",
            thread_id="thr_1",
            run_id="run_1",
            agent_name="Helper",
            tool_call_id="call_1",
            idempotency_key="run_1:call_1",
        ),
    ]


async def test_a_tool_with_a_schema_written_by_hand_is_filled_too() -> None:
    def look(city: str, user_id: str) -> str:
        return f"{user_id} in {city}"

    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    made = as_tool({"name": "look", "function_schema": schema, "func": look})
    assert await said(made, '{"city": "Bonn", "user_id": "root"}') == ("ann in Bonn", False)


async def test_secrets_come_from_the_run() -> None:
    seen: list[object] = []

    async def pay(amount: int, token: Secret, pin: Secret | None = None) -> None:
        seen.extend((amount, token, pin))

    text, is_error = await said(pay, '{"amount": 1, "token": "guessed"}')
    assert (text, is_error) == ("the tool 'pay' needs the secret 'token', which was not given to this run", True)
    context = RunContext(deps=None, secrets={"token": Secret("hunter2")})
    assert await said(pay, '{"amount": 1}', context=context) == ("The tool finished and returned nothing.", False)
    assert seen == [1, Secret("hunter2"), None]


@pytest.mark.parametrize("by_hand", [True, False])
async def test_a_secret_that_was_not_given_is_not_taken_from_the_model(*, by_hand: bool) -> None:
    seen: list[object] = []

    async def pay(amount: int, pin: Secret | None = None) -> None:
        seen.append(pin)

    schema = {"type": "object", "properties": {"amount": {"type": "integer"}}, "additionalProperties": False}
    form = {"func": pay, "function_schema": schema} if by_hand else {"func": pay}
    _, is_error = await said(as_tool(form), '{"amount": 1, "pin": "1234"}')
    assert (seen, is_error) == ([None], False)


async def test_a_secret_s_name_in_an_argument_becomes_its_value() -> None:
    seen: list[str] = []

    async def send(header: str, text: str) -> None:
        seen.extend((header, text))

    context = RunContext(deps=None, secrets={"key": Secret("hunter2")})
    await said(send, '{"header": "<secret:key>", "text": "my <secret:key> and <secret:other>"}', context=context)
    assert seen == ["hunter2", "my <secret:key> and <secret:other>"]


async def test_arguments_are_new_for_each_call() -> None:
    async def grow(items: list[int]) -> int:
        items.append(1)
        return len(items)

    one = call("grow", '{"items": [5]}')
    assert [(await run([one], grow))[0].result.text for _ in range(2)] == ["2", "2"]
    assert one.arguments == '{"items": [5]}'


async def test_a_class_is_carried_out_like_a_function() -> None:
    class Weather(Tool):
        name = "get_weather"
        timeout = 0.01

        async def execute(self, city: str, user_id: str) -> str:
            if city == "nowhere":
                await asyncio.Event().wait()
            return f"{city} for {user_id}"

    tool = Weather()
    assert await said(tool, '{"city": "Bonn"}') == ("Bonn for ann", False)
    _, is_error = await said(tool, '{"city": "nowhere"}')
    assert is_error


async def test_a_call_that_is_cancelled_before_it_begins_has_its_result() -> None:
    async def quick() -> str:
        return "done"

    async def cancels_others() -> str:
        for task in asyncio.all_tasks():
            if task.get_name() == "plait: tool quick":
                task.cancel()
        return "first"

    calls = [ToolCall(id="a", name="cancels_others"), ToolCall(id="b", name="quick"), ToolCall(id="c", name="quick")]
    async with asyncio.timeout(WITHIN):
        found = await run(calls, cancels_others, quick)

    assert {(one.call.id, one.result.text, one.result.is_error) for one in found} == {
        ("a", "first", False),
        ("b", "the tool 'quick' was cancelled from outside its run", True),
        ("c", "the tool 'quick' was cancelled from outside its run", True),
    }
