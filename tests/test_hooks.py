from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from plait import Agent, OfflineProvider
from plait.errors import ConfigurationError
from plait.events import Answer
from plait.hooks import (
    HOOK_NAMES,
    AfterRequest,
    BeforeRequest,
    BudgetExceeded,
    ContextOverflow,
    FunctionCallEnd,
    FunctionCallStart,
    HookName,
    Hooks,
    MessagesDropped,
    PrefixChanged,
    RunEnded,
    TokenReceived,
    Veto,
)
from plait.messages import AssistantMessage, ToolCall, ToolResult, UserMessage
from plait.providers.base import Request, Settings
from plait.run import RunContext, RunResult

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from plait.hooks import HookEvent

CONTEXT = RunContext(deps=None, user_id="ada", thread_id="thr_1")
REQUEST = Request(messages=[UserMessage(text="hi")])
BEFORE = BeforeRequest(context=CONTEXT, request=REQUEST, turn=1)
CALL = ToolCall(id="a", name="f", arguments="{}")
START = FunctionCallStart(context=CONTEXT, call=CALL)
END = FunctionCallEnd(context=CONTEXT, call=CALL, result=ToolResult(call_id="a", text="x"), seconds=0.5)
AFTER = AfterRequest(context=CONTEXT, answer=Answer(AssistantMessage(text="hi")), turn=1)
ENDED = RunEnded(
    context=CONTEXT,
    result=RunResult(
        output="", stop_reason="response", messages=(), history=(), usage=None, thread_id="", run_id="", agent_name=""
    ),
)
EVENTS: dict[HookName, HookEvent] = {
    "on_before_request": BEFORE,
    "on_after_request": AFTER,
    "on_token_received": TokenReceived(context=CONTEXT, text="hi", turn=1),
    "on_function_call_start": START,
    "on_function_call_end": END,
    "on_function_call_error": END,
    "on_context_overflow": ContextOverflow(context=CONTEXT, tokens=90, limit=100, turn=1),
    "on_message_dropped": MessagesDropped(context=CONTEXT, messages=(UserMessage(text="hi"),), total=1, turn=2),
    "on_prefix_changed": PrefixChanged(context=CONTEXT, at=12, before="a", after="b", message=0, trimmed=False, turn=2),
    "on_budget_exceeded": BudgetExceeded(
        context=CONTEXT,
        reason="spent",
        per="chat",
        unit="USD",
        limit=1.0,
        spent=0.9,
        needed=0.2,
        stops=True,
        turn=1,
    ),
    "on_max_turns_reached": ENDED,
    "on_max_tool_calls_reached": ENDED,
    "on_manual_stop": ENDED,
    "on_final_response": ENDED,
}


def colder(event: BeforeRequest) -> Request:
    return replace(event.request, settings=Settings(temperature=(event.request.settings.temperature or 1) / 2))


def test_every_name_has_an_event() -> None:
    assert set(EVENTS) == set(HOOK_NAMES)


@pytest.mark.parametrize("name", HOOK_NAMES)
async def test_hooks_are_sync_or_async_and_get_what_they_declare(name: HookName) -> None:
    seen: list[object] = []

    def plain(event: object) -> None:
        seen.append(event)

    async def slow(event: object, *, user_id: str) -> None:
        await asyncio.sleep(0)
        seen.append((event, user_id))

    class Both:
        async def __call__(self, event: object, user_id: str, chat_id: str) -> None:
            seen.append((event, user_id, chat_id))

    hooks = Hooks({name: [plain, slow, Both(), lambda event, chat_id="none": seen.append(chat_id)]})
    event = EVENTS[name]
    assert await hooks.call(name, event) is None
    assert seen == [event, (event, "ada"), (event, "ada", "thr_1"), "thr_1"]


def test_only_names_that_have_a_hook_are_in() -> None:
    hooks = Hooks({"on_before_request": lambda _event: None, "on_manual_stop": []})
    assert "on_before_request" in hooks
    assert "on_manual_stop" not in hooks
    assert "on_after_request" not in hooks
    assert hooks
    assert not Hooks()
    assert not Hooks({})
    assert not Hooks({"on_manual_stop": ()})


async def test_a_name_without_hooks_decides_nothing() -> None:
    assert await Hooks().call("on_before_request", BEFORE) is None


# --- deciding ---


async def test_a_veto_stops_and_a_change_changes() -> None:
    veto = Veto(reason="no")
    assert await Hooks({"on_function_call_start": lambda _event: veto}).call("on_function_call_start", START) is veto
    changed = await Hooks({"on_before_request": colder}).call("on_before_request", BEFORE)
    assert isinstance(changed, Request)
    assert changed.settings == Settings(temperature=0.5)
    assert REQUEST.settings == Settings()


async def test_each_hook_sees_what_the_ones_before_it_changed() -> None:
    seen: list[float | None] = []

    async def look(event: BeforeRequest) -> None:
        seen.append(event.request.settings.temperature)

    changed = await Hooks({"on_before_request": [look, colder, look, colder, look]}).call("on_before_request", BEFORE)
    assert isinstance(changed, Request)
    assert seen == [None, 0.5, 0.25]
    assert changed.settings == Settings(temperature=0.25)


async def test_each_hook_sees_the_call_as_it_was_changed() -> None:
    seen: list[ToolCall] = []
    other = CALL.model_copy(update={"arguments": '{"x":1}'})
    hooks = Hooks({"on_function_call_start": [lambda _event: other, lambda event: seen.append(event.call)]})
    assert await hooks.call("on_function_call_start", START) == other
    assert seen == [other]


@pytest.mark.parametrize("order", [0, 1])
async def test_a_veto_wins_over_a_change_and_the_first_over_later_ones(order: int) -> None:
    first, seen = Veto(reason="first"), list[str]()
    deciding: list[Callable[[Any], object]] = [lambda _event: first, colder]
    hooks = [
        *(deciding if order == 0 else reversed(deciding)),
        lambda _event: Veto(reason="second"),
        lambda _event: seen.append("told"),
    ]
    assert await Hooks({"on_before_request": hooks}).call("on_before_request", BEFORE) is first
    assert seen == ["told"], "those that only watch are called all the same"


# --- hooks that go wrong ---


@pytest.mark.fault("T13")
async def test_a_failing_hook_is_logged_once_and_breaks_nothing(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[int] = []

    def fail(_event: object) -> None:
        msg = "what a person said"
        raise KeyError(msg)

    hooks = Hooks({"on_final_response": [fail, lambda _event: seen.append(1)]})
    for _ in range(3):
        assert await hooks.call("on_final_response", ENDED) is None
    assert seen == [1, 1, 1]
    (record,) = caplog.records
    assert (record.name, record.levelno, record.exc_info) == ("plait.hooks", logging.WARNING, None)
    assert record.getMessage() == "the hook on_final_response failed and is ignored: KeyError"


async def test_a_failing_hook_is_logged_once_also_where_runs_bring_hooks_of_their_own(
    caplog: pytest.LogCaptureFixture,
) -> None:
    own = Hooks({"on_final_response": _raises_cancelled})
    for _ in range(3):
        joined = own.joined(Hooks({"on_final_response": lambda _event: None}))
        assert await joined.call("on_final_response", ENDED) is None
    assert caplog.messages == ["the hook on_final_response failed and is ignored: CancelledError"]


def _raises_cancelled(_event: object) -> None:
    raise asyncio.CancelledError


async def _raises_cancelled_later(_event: object) -> None:
    await asyncio.sleep(0)
    raise asyncio.CancelledError


async def _awaits_a_cancelled_task(_event: object) -> None:
    task = asyncio.ensure_future(asyncio.sleep(60))
    task.cancel()
    await task


@pytest.mark.parametrize("hook", [_raises_cancelled, _raises_cancelled_later, _awaits_a_cancelled_task])
async def test_a_hook_that_cancels_itself_has_failed(
    hook: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[int] = []
    hooks = Hooks({"on_final_response": [hook, lambda _event: seen.append(1)]})
    assert await hooks.call("on_final_response", ENDED) is None
    assert seen == [1]
    assert caplog.messages == ["the hook on_final_response failed and is ignored: CancelledError"]


async def test_a_hook_that_cancels_itself_has_failed_also_where_a_cancellation_was_ignored_before() -> None:
    async def work() -> object:
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return await Hooks({"on_manual_stop": _raises_cancelled_later}).call("on_manual_stop", ENDED)

    task = asyncio.ensure_future(work())
    await asyncio.sleep(0)
    task.cancel()
    async with asyncio.timeout(5):
        assert await task is None


async def test_a_cancellation_on_its_way_is_no_hook_s_own() -> None:
    def stop(_event: object) -> None:
        task.cancel()

    async def wait(_event: object) -> None:
        await asyncio.Event().wait()

    hooks = Hooks({"on_manual_stop": [stop, wait]})
    task = asyncio.ensure_future(hooks.call("on_manual_stop", ENDED))
    async with asyncio.timeout(5):
        with pytest.raises(asyncio.CancelledError):
            await task


@pytest.mark.fault("T13")
async def test_a_hanging_hook_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    cancelled: list[bool] = []

    async def hang(_event: object) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    hooks = Hooks({"on_manual_stop": hang}, time_limit=0.01)
    async with asyncio.timeout(5):
        assert await hooks.call("on_manual_stop", ENDED) is None
    assert cancelled == [True]
    assert caplog.messages == [
        "the hook on_manual_stop failed and is ignored: TimeoutError; a hook may take 0.01 s"
    ]  # fmt: skip


async def test_a_cancellation_passes_through_a_hook() -> None:
    begun = asyncio.Event()

    async def wait(_event: object) -> None:
        begun.set()
        await asyncio.Event().wait()

    hooks = Hooks({"on_manual_stop": wait})
    task = asyncio.ensure_future(hooks.call("on_manual_stop", ENDED))
    async with asyncio.timeout(5):
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_an_interrupt_from_the_keyboard_passes_through_a_hook() -> None:
    def interrupt(_event: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await Hooks({"on_manual_stop": interrupt}).call("on_manual_stop", ENDED)


@pytest.mark.parametrize(("name", "event"), [("on_before_request", BEFORE), ("on_function_call_start", START)])
async def test_an_answer_that_decides_nothing_is_logged(
    name: HookName, event: HookEvent, caplog: pytest.LogCaptureFixture
) -> None:
    assert await Hooks({name: lambda _event: True}).call(name, event) is None
    assert caplog.messages == [f"the hook {name} failed and is ignored: it returned bool"]


async def test_what_a_watching_hook_returns_is_nobodys_business(caplog: pytest.LogCaptureFixture) -> None:
    assert await Hooks({"on_after_request": lambda _event: 3}).call("on_after_request", AFTER) is None
    assert caplog.messages == []


# --- registering ---


async def no_event() -> None: ...


@pytest.mark.parametrize("name", ["on_befor_request", "", 3, None])
def test_unknown_names_are_refused(name: Any) -> None:
    with pytest.raises(ConfigurationError) as raised:
        Hooks({name: print})
    assert str(raised.value) == f"there is no hook {name!r}; the hooks are {', '.join(HOOK_NAMES)}"


@pytest.mark.parametrize(("hook", "kind"), [(3, "int"), ("print", "str"), ([print, None], "NoneType")])
def test_what_cannot_be_called_is_refused(hook: Any, kind: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        Hooks({"on_manual_stop": hook})
    assert str(raised.value) == (
        f"the hook 'on_manual_stop' must be a function of one event (sync or async), not {kind}"
    )


@pytest.mark.parametrize(
    ("hook", "why"),
    [
        (no_event, "too many positional arguments"),
        (lambda user_id: None, "multiple values for argument 'user_id'"),
        (lambda event, other: None, "missing a required argument: 'other'"),
    ],
)
def test_what_cannot_be_called_with_one_event_is_refused(hook: Any, why: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        Hooks({"on_manual_stop": hook})
    assert str(raised.value) == (
        f"the hook 'on_manual_stop' must take one event, and user_id and chat_id if it likes: {why}"
    )


def test_hooks_are_a_mapping() -> None:
    with pytest.raises(ConfigurationError, match="hooks must be a mapping of names to functions, not list"):
        Hooks([print])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("hook", "logged"),
    [
        (print, []),
        (dict, ["the hook on_manual_stop failed and is ignored: TypeError"]),  # it takes one value, but not this one
        ([].append, []),
        (lambda *args, **kwargs: None, []),
        (lambda event, more=1: None, []),
    ],
)
async def test_anything_that_takes_one_value_is_a_hook(
    hook: Callable[..., Awaitable[Any] | Any], logged: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    hooks = Hooks({"on_manual_stop": hook})
    assert "on_manual_stop" in hooks
    assert await hooks.call("on_manual_stop", ENDED) is None
    assert caplog.messages == logged


async def test_tokens_are_told_as_they_come_also_where_nobody_reads_the_stream() -> None:
    told: list[TokenReceived] = []

    def hear(event: TokenReceived, chat_id: str) -> None:
        assert chat_id == event.context.thread_id
        told.append(event)

    provider = OfflineProvider([ToolCall(id="a", name="get_current_time", arguments="{}"), "It is late now."])
    agent = Agent(provider=provider, tools=["get_current_time"], hooks={"on_token_received": hear})
    assert await agent.chat("What time is it?") == "It is late now."
    assert [(event.text, event.turn) for event in told] == [("It", 2), (" is", 2), (" late", 2), (" now.", 2)]
    assert [request.stream for request in provider.requests] == [True, True]


async def test_a_limit_of_tool_calls_is_told_before_the_end() -> None:
    seen: list[tuple[str, str]] = []

    def of(name: HookName) -> Callable[[RunEnded], None]:
        return lambda event: seen.append((name, event.result.stop_reason))

    names: list[HookName] = ["on_max_tool_calls_reached", "on_max_turns_reached", "on_manual_stop", "on_final_response"]
    call = ToolCall(id="a", name="get_current_time", arguments="{}")
    agent = Agent(
        provider=OfflineProvider([call, "never"]),
        tools=["get_current_time"],
        max_tool_calls=0,
        hooks={name: of(name) for name in names},
    )
    await agent.run("go")
    assert seen == [("on_max_tool_calls_reached", "max_tool_calls"), ("on_final_response", "max_tool_calls")]
