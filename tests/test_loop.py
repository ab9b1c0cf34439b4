"""The loop: every ending, and what the log says after it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel

from plait import (
    Agent,
    Answer,
    AssistantMessage,
    AudioPart,
    ConfigurationError,
    DetailsDelta,
    EmptyAnswer,
    FinishDelta,
    FrozenDict,
    MemoryStore,
    NothingToResume,
    OfflineProvider,
    OutputInvalid,
    ProviderError,
    Refused,
    Request,
    RunFinished,
    RunLimits,
    RunResult,
    StateConflict,
    StopSignal,
    SystemMessage,
    TextDelta,
    TextPart,
    ToolCall,
    ToolCallFinished,
    ToolCallStarted,
    ToolResult,
    UserMessage,
    Veto,
    history,
    tool,
)
from plait.counting import SIMPLE, message_tokens
from plait.entries import Entry, MessageEntry, RunEnd, RunStart, ToolEnd, ToolStart, entry
from plait.events import Usage
from plait.log import Tail
from plait.loop import Ask, CallTools, Finish, next_step
from plait.messages import ServerToolPart
from plait.testing import FaultServer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from plait.hooks import BeforeRequest, FunctionCallEnd, FunctionCallStart, RunEnded
    from plait.messages import Message

CALL = ToolCall(id="1", name="add", arguments='{"a": 1, "b": 2}')
OTHER = ToolCall(id="2", name="add", arguments='{"a": 3, "b": 4}')


def add(a: int, b: int) -> int:
    return a + b


def log_of(*bodies: Any) -> list[Entry]:
    return [entry(n, body, "run_1") for n, body in enumerate(bodies, 1)]


def asked(text: str = "hi") -> MessageEntry:
    return MessageEntry(message=UserMessage(text=text))


def called(*calls: ToolCall) -> MessageEntry:
    return MessageEntry(message=AssistantMessage(parts=calls))


def said(text: str, cut: str | None = None) -> MessageEntry:
    return MessageEntry(message=AssistantMessage(text=text), cut=cut)


def paused(text: str) -> MessageEntry:
    return MessageEntry(message=AssistantMessage(text=text), finish_reason="pause_turn")


def gave(call: ToolCall, text: str = "3") -> ToolEnd:
    return ToolEnd(result=ToolResult(call_id=call.id, name=call.name, text=text))


def begun(call: ToolCall) -> ToolStart:
    return ToolStart(call_id=call.id)


@pytest.mark.parametrize(
    ("bodies", "limits", "expected"),
    [
        ([RunStart(), asked()], RunLimits(), Ask(1)),
        ([RunStart(), asked(), said("hello")], RunLimits(), Finish("response")),
        ([RunStart(), asked(), said("hel", cut="user_stop")], RunLimits(), Ask(2)),
        ([RunStart(), asked(), paused("hel")], RunLimits(), Ask(2)),
        ([RunStart(), asked(), paused("hel")], RunLimits(max_turns=1), Finish("max_turns")),
        ([RunStart(), asked(), called(CALL, OTHER)], RunLimits(), CallTools((CALL, OTHER))),
        ([RunStart(), asked(), called(CALL, OTHER)], RunLimits(max_tool_calls=1), CallTools((CALL,))),
        ([RunStart(), asked(), called(CALL)], RunLimits(max_tool_calls=0), Finish("max_tool_calls")),
        ([RunStart(), asked(), called(CALL, OTHER), begun(CALL)], RunLimits(), CallTools((OTHER,), (CALL,))),
        ([RunStart(), asked(), called(CALL), begun(CALL), gave(CALL)], RunLimits(), Ask(2)),
        ([RunStart(), asked(), called(CALL), begun(CALL), gave(CALL)], RunLimits(max_turns=1), Finish("max_turns")),
        (
            [
                RunStart(),
                asked(),
                called(CALL),
                begun(CALL),
                gave(CALL),
                RunEnd(stop_reason="max_turns"),
                RunStart(resumed=True),
            ],
            RunLimits(max_turns=1),
            Ask(1),
        ),
    ],
)
def test_next_step_is_a_function_of_the_log(
    bodies: list[Any], limits: RunLimits, expected: Ask | CallTools | Finish
) -> None:
    assert next_step(Tail(log_of(*bodies)), limits) == expected


def assert_sendable(messages: Sequence[Message]) -> None:
    """Each tool call has exactly one result, right after its message and in its order."""
    for number, message in enumerate(messages):
        if message.role == "tool":
            assert [r.call_id for r in message.tool_results] == [c.id for c in messages[number - 1].tool_calls]
        if message.tool_calls:
            assert messages[number + 1].role == "tool"


async def check_usable(agent: Agent[Any, Any], thread: str, run_id: str) -> None:
    """After every ending the history is valid, equals the view of the log, and the thread can be continued."""
    log = await agent.log(thread)
    assert_sendable(history(log))
    assert [item.n for item in log] == list(range(1, len(log) + 1))
    assert {item.run_id for item in log} == {run_id}
    further = Agent(provider=OfflineProvider(["and on"]), store=agent.store)
    result = await further.run("go on", thread=thread)
    assert result.output == "and on"
    assert_sendable(result.history)


async def test_a_run_with_tools_gives_everything() -> None:
    provider = OfflineProvider([[CALL, OTHER], "three and seven"])
    agent = Agent(name="Adder", provider=provider, tools=[add], store=MemoryStore())
    run = agent.run("add", thread="t")
    events = [event async for event in run]
    result = await run
    assert isinstance(result, RunResult)
    results = [e.result for e in events if isinstance(e, ToolCallFinished)]
    assert results == [
        ToolResult(call_id="1", name="add", text="3"),
        ToolResult(call_id="2", name="add", text="7"),
    ]
    assert [e.call for e in events if isinstance(e, ToolCallStarted)] == [CALL, OTHER]
    assert "".join(e.text for e in events if isinstance(e, TextDelta)) == "three and seven"
    assert isinstance(events[-1], RunFinished)
    assert events[-1].stop_reason == "response"
    assert result.output == result.text == "three and seven"
    assert result.stop_reason == "response"
    assert [m.role for m in result.messages] == ["user", "assistant", "tool", "assistant"]
    assert result.history == result.messages
    assert [m.text for m in result.history_without_tool_calls] == ["add", "three and seven"]
    assert (result.truncated, result.error, result.cost, result.agent_name) == (False, None, None, "Adder")
    assert result.usage is not None
    assert result.usage.requests == 2
    assert (result.provider, result.model) == ("offline", "offline")
    assert [item.kind for item in await agent.log("t")] == [
        "run_started",
        "message",
        "message",
        "tool_started",
        "tool_started",
        "tool_result",
        "tool_result",
        "message",
        "run_finished",
    ]
    await check_usable(agent, "t", result.run_id)


async def test_results_keep_call_order_whichever_ends_first() -> None:
    first_may_end = asyncio.Event()

    async def first() -> str:
        await first_may_end.wait()
        return "first"

    async def second() -> str:
        first_may_end.set()
        return "second"

    calls = [ToolCall(id="a", name="first"), ToolCall(id="b", name="second")]
    result = await Agent(provider=OfflineProvider([calls, "done"]), tools=[first, second]).run("go")
    assert [r.text for r in result.messages[2].tool_results] == ["first", "second"]


async def test_max_turns() -> None:
    agent = Agent(provider=OfflineProvider(function=lambda _: CALL), tools=[add], store=MemoryStore())
    result = await agent.run("add for ever", thread="t", limits=RunLimits(max_turns=2))
    assert (result.stop_reason, result.output) == ("max_turns", "")
    assert [m.role for m in result.messages] == ["user", "assistant", "tool", "assistant", "tool"]
    await check_usable(agent, "t", result.run_id)


async def test_max_tool_calls_answers_the_calls_it_did_not_make() -> None:
    agent = Agent(provider=OfflineProvider([[CALL, OTHER]]), tools=[add], store=MemoryStore(), max_tool_calls=1)
    result = await agent.run("add", thread="t")
    assert result.stop_reason == "max_tool_calls"
    assert result.messages[-1].tool_results == (
        ToolResult(call_id="1", name="add", text="3"),
        ToolResult(
            call_id="2",
            name="add",
            text="This call was not carried out: the run had reached its limit of tool calls.",
            is_error=True,
        ),
    )
    await check_usable(agent, "t", result.run_id)


@pytest.mark.parametrize("kind", [StopSignal, asyncio.Event])
async def test_a_stop_in_the_middle_of_a_stream_keeps_the_text(kind: type[StopSignal | asyncio.Event]) -> None:
    agent = Agent(provider=OfflineProvider(["one two three four"], delay=0.001), store=MemoryStore())
    stop = kind()
    run = agent.run("count", thread="t", stop=stop)
    async for event in run:
        if event == TextDelta(" two"):
            stop.set()
    result = await run
    assert (result.stop_reason, result.output) == ("user_stop", "one two")
    prompt, said = UserMessage(text="count"), AssistantMessage(text="one two", provider="offline", model="offline")
    took = Usage(
        input_tokens=message_tokens(prompt, SIMPLE), output_tokens=message_tokens(said, SIMPLE), estimated=True
    )
    assert (await agent.log("t"))[2].body == MessageEntry(message=said, usage=took, cut="user_stop")
    assert result.usage == took
    await check_usable(agent, "t", result.run_id)


async def test_a_stop_in_the_middle_of_a_tool_cancels_it() -> None:
    stop, ended = StopSignal(), asyncio.Event()

    async def wait() -> str:
        stop.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return "never"

    call = ToolCall(id="1", name="wait")
    agent = Agent(provider=OfflineProvider([call]), tools=[wait], store=MemoryStore())
    result = await agent.run("wait", thread="t", stop=stop)
    assert ended.is_set()
    assert result.stop_reason == "user_stop"
    assert result.messages[-1].tool_results == (
        ToolResult(
            call_id="1",
            name="wait",
            text="This call was cancelled while it ran; it may or may not have happened: the run was stopped.",
            is_error=True,
        ),
    )
    await check_usable(agent, "t", result.run_id)


async def test_a_tool_that_swallows_the_stop_does_not_keep_the_run_going() -> None:
    stop = StopSignal()

    async def stubborn() -> str:
        stop.set()
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            return "I go on"
        return "never"

    agent = Agent(provider=OfflineProvider([ToolCall(id="1", name="stubborn")]), tools=[stubborn], store=MemoryStore())
    result = await agent.run("go", thread="t", stop=stop)
    assert result.stop_reason == "user_stop"
    assert [r.text for r in result.messages[2].tool_results] == ["I go on"]
    await check_usable(agent, "t", result.run_id)


@pytest.mark.parametrize("calls", [1, 2])
async def test_a_tool_that_will_not_end_is_ended(calls: int) -> None:
    stop = StopSignal()
    swallowed = 0

    async def deaf() -> str:
        nonlocal swallowed
        stop.set()
        while True:
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                swallowed += 1

    asked = [ToolCall(id=str(n), name="deaf") for n in range(calls)]
    agent = Agent(provider=OfflineProvider([asked]), tools=[deaf], store=MemoryStore())
    async with asyncio.timeout(10):
        result = await agent.run("go", thread="t", stop=stop)
    assert result.stop_reason == "user_stop"
    assert swallowed >= calls
    await check_usable(agent, "t", result.run_id)


async def test_a_tool_with_a_time_limit_of_its_own_goes_on_after_it() -> None:
    async def patient() -> str:
        try:
            async with asyncio.timeout(0.01):
                await asyncio.sleep(30)
        except TimeoutError:
            await asyncio.sleep(0.6)  # longer than a cancelled tool would be given
            return "another way"
        return "never"

    result = await Agent(provider=OfflineProvider([ToolCall(id="1", name="patient"), "done"]), tools=[patient]).run(
        "go"
    )
    assert result.messages[2].tool_results[0].text == "another way"


async def test_a_signal_that_is_set_before_stops_at_once() -> None:
    stop = StopSignal()
    stop.set()
    provider = OfflineProvider(["hello"], delay=0.01)
    result = await Agent(provider=provider).run("hi", stop=stop)
    assert (result.stop_reason, result.output) == ("user_stop", "")


async def test_the_deadline_ends_a_run() -> None:
    agent = Agent(provider=OfflineProvider(["one two three"], delay=30), store=MemoryStore())
    result = await agent.run("count", thread="t", limits=RunLimits(deadline=0.02))
    assert (result.stop_reason, result.output) == ("deadline", "")
    await check_usable(agent, "t", result.run_id)


async def test_a_failure_is_raised_and_written_and_can_be_resumed() -> None:
    error = ProviderError("the provider is ill", status=500)
    agent = Agent(provider=OfflineProvider([error, "well again"]), store=MemoryStore())
    run = agent.run("hi", thread="t")
    with pytest.raises(ProviderError) as raised:
        await run
    assert raised.value is error
    assert [item.body for item in await agent.log("t")] == [
        RunStart(agent_name="Assistant"),
        asked("hi"),
        RunEnd(error="ProviderError: the provider is ill"),
    ]
    result = await agent.resume("t")
    assert (result.output, [m.text for m in result.messages]) == ("well again", ["hi", "well again"])


async def test_resume_of_a_finished_run_gives_its_result_and_asks_nobody() -> None:
    provider = OfflineProvider(["hello"])
    agent = Agent(provider=provider, store=MemoryStore())
    first = await agent.run("hi", thread="t")
    second = await agent.resume("t")
    assert second == first
    assert len(provider.requests) == 1
    assert len(await agent.log("t")) == 4


async def test_resume_needs_a_run() -> None:
    agent = Agent(provider="offline", store=MemoryStore())
    with pytest.raises(NothingToResume, match="there is no thread 'empty' of user 'default', so"):
        await agent.resume("empty")
    assert await agent.log("empty") == []


@pytest.mark.parametrize("idempotent", [True, False])
async def test_a_call_in_doubt_follows_its_policy(*, idempotent: bool) -> None:
    """A crash after the intent and before the result: the log ends there, and no end is written."""
    times = 0

    @tool(idempotent=idempotent)
    def pay() -> str:
        nonlocal times
        times += 1
        return "paid"

    call = ToolCall(id="1", name="pay")
    agent = Agent(provider=OfflineProvider(["done"]), tools=[pay], store=MemoryStore())
    info = await agent.store.thread("t")
    await agent.store.append(info.thread_id, log_of(RunStart(), asked(), called(call), begun(call)))
    result = await agent.resume("t")
    (outcome,) = result.messages[2].tool_results
    if idempotent:
        assert (outcome.text, times) == ("paid", 1)
    else:
        assert "may or may not have happened" in outcome.text
        assert (outcome.is_error, times) == (True, 0)
    assert result.output == "done"
    assert [item.kind for item in await agent.log("t")][4:] == ["tool_result", "message", "run_finished"]


async def test_a_new_prompt_after_a_crash_closes_the_open_calls() -> None:
    agent = Agent(provider=OfflineProvider(["fine"]), tools=[add], store=MemoryStore())
    info = await agent.store.thread("t")
    await agent.store.append(info.thread_id, log_of(RunStart(), asked(), called(CALL, OTHER), begun(CALL), gave(CALL)))
    result = await agent.run("never mind", thread="t")
    assert_sendable(result.history)
    assert [r.text for r in result.history[2].tool_results] == [
        "3",
        "This call was not carried out: the run was interrupted.",
    ]


async def test_messages_of_a_run_are_its_own_whatever_the_history_moves() -> None:
    agent = Agent(provider=OfflineProvider(["one", "two"]), store=MemoryStore())
    await agent.run("first", thread="t")
    prompt = [SystemMessage(text="Be brief."), UserMessage(text="second")]
    result = await agent.run(prompt, thread="t")
    assert [m.text for m in result.messages] == ["Be brief.", "second", "two"]
    assert [m.text for m in result.history] == ["Be brief.", "first", "one", "second", "two"]


async def test_the_same_call_three_times_is_said_to_the_model() -> None:
    agent = Agent(provider=OfflineProvider([CALL, CALL, CALL, "enough"]), tools=[add])
    result = await agent.run("add")
    results = [message.tool_results[0].text for message in result.messages if message.role == "tool"]
    assert results[:2] == ["3", "3"]
    assert results[2] == ("3\n[This is the same call with the same arguments in 3 turns running. Do something else.]")


async def test_the_same_call_three_times_in_one_turn_is_no_loop() -> None:
    calls = [ToolCall(id=str(n), name="add", arguments='{"a": 1, "b": 2}') for n in range(3)]
    result = await Agent(provider=OfflineProvider([calls, "enough"]), tools=[add]).run("add")
    assert [r.text for r in result.messages[2].tool_results] == ["3", "3", "3"]


async def test_a_call_cut_by_the_token_limit_is_not_made() -> None:
    made = []

    def note(text: str) -> str:
        made.append(text)
        return "noted"

    cut = ToolCall(id="1", name="note", arguments='{"text": "half"}')
    provider = OfflineProvider([Answer(AssistantMessage(parts=(cut,)), "length"), "sorry"])
    result = await Agent(provider=provider, tools=[note]).run("note it")
    (outcome,) = result.messages[2].tool_results
    assert made == []
    assert outcome.is_error
    assert "token limit" in outcome.text
    assert result.output == "sorry"


def ended(text: str, reason: str) -> Answer:
    return Answer(AssistantMessage(text=text), reason)


@pytest.mark.parametrize("reason", ["length", "max_tokens", "max_output_tokens", "model_context_window_exceeded"])
async def test_an_answer_cut_by_the_token_limit_says_so(reason: str) -> None:
    result = await Agent(provider=OfflineProvider([ended("half an ans", reason)])).run("hi")
    assert (result.output, result.truncated, result.finish_reason) == ("half an ans", True, reason)


@pytest.mark.parametrize("reason", ["refusal", "content_filter"])
async def test_an_answer_the_provider_declined_to_finish_is_a_refusal(reason: str) -> None:
    with pytest.raises(Refused, match="content filter cut the answer short, after: so far") as raised:
        await Agent(provider=OfflineProvider([ended("so far", reason)])).run("hi")
    assert raised.value.text == "so far"


@pytest.mark.parametrize("reason", ["pause_turn", "compaction"])
async def test_an_answer_that_its_provider_paused_goes_on(reason: str) -> None:
    searched = ServerToolPart(name="web_search", details=FrozenDict({"id": "srv_1", "input": {"q": "Lisbon"}}))
    first = AssistantMessage(parts=(TextPart(text="I look."), searched, TextPart(text="Still looking.")))
    provider = OfflineProvider([Answer(first, reason), "It is sunny."])
    result = await Agent(provider=provider).run("hi")
    assert (result.output, result.stop_reason, len(provider.requests)) == ("It is sunny.", "response", 2)
    assert provider.requests[1].messages[-1].parts == first.parts


async def test_an_empty_answer_is_an_error() -> None:
    with pytest.raises(EmptyAnswer):
        await Agent(provider=OfflineProvider([""])).run("hi")


async def test_a_refusal_is_an_error_with_its_text_and_stays_in_the_thread() -> None:
    refusal = AssistantMessage(parts=(TextPart(text="I will not.", refusal=True),))
    agent = Agent(provider=OfflineProvider([refusal]), store=MemoryStore())
    with pytest.raises(Refused) as raised:
        await agent.run("do it", thread="t")
    assert raised.value.text == "I will not."
    assert [m.refusal for m in history(await agent.log("t"))] == ["", "I will not."]


class City(BaseModel):
    name: str
    population: int


async def test_output_is_validated_and_asked_for_again() -> None:
    provider = OfflineProvider(['{"name": "Lisbon"}', '{"name": "Lisbon", "population": 545796}'])
    result = await Agent(provider=provider, output=City).run("describe")
    assert result.output == City(name="Lisbon", population=545796)
    assert [m.role for m in result.messages] == ["user", "assistant", "user", "assistant"]
    assert "population" in result.messages[2].text


async def test_output_is_asked_for_a_bounded_number_of_times() -> None:
    provider = OfflineProvider(function=lambda _: "no JSON")
    with pytest.raises(OutputInvalid) as raised:
        await Agent(provider=provider, output=City).run("describe")
    assert raised.value.text == "no JSON"
    assert len(provider.requests) == 3


async def test_output_cut_by_the_token_limit_is_not_asked_for_again() -> None:
    provider = OfflineProvider([ended('{"name": "Lis', "length")])
    with pytest.raises(OutputInvalid, match="token limit") as raised:
        await Agent(provider=provider, output=City).run("describe")
    assert (raised.value.text, raised.value.provider, len(provider.requests)) == ('{"name": "Lis', "offline", 1)


async def test_hooks_see_and_change_a_run() -> None:
    seen: list[str] = []

    async def before(event: BeforeRequest, user_id: str, chat_id: str) -> None:
        seen.append(f"request {event.turn} {user_id} {chat_id == event.context.thread_id}")

    def start(event: FunctionCallStart) -> ToolCall | Veto:
        if event.call.id == "2":
            return Veto(reason="not that one")
        return event.call.model_copy(update={"arguments": '{"a": 10, "b": 20}'})

    def end(event: FunctionCallEnd) -> None:
        seen.append(f"tool {event.result.text}")

    def final(event: RunEnded) -> None:
        seen.append(f"final {event.result.output}")

    agent = Agent(
        provider=OfflineProvider([[CALL, OTHER], "done"]),
        tools=[add],
        hooks={
            "on_before_request": before,
            "on_function_call_start": start,
            "on_function_call_end": end,
            "on_final_response": final,
        },
    )
    result = await agent.run("add", user_id="ada")
    assert [r.text for r in result.messages[2].tool_results] == ["30", "This call was not allowed: not that one"]
    assert seen == ["request 1 ada True", "tool 30", "request 2 ada True", "final done"]


async def test_a_vetoed_request_ends_the_run() -> None:
    provider = OfflineProvider(["never"])
    agent = Agent(
        provider=provider, store=MemoryStore(), hooks={"on_before_request": lambda _: Veto(reason="over budget")}
    )
    result = await agent.run("hi", thread="t")
    assert (result.stop_reason, result.error, result.output) == ("guardrail", "over budget", "")
    assert provider.requests == []
    await check_usable(agent, "t", result.run_id)


class _Gate(OfflineProvider):
    """Answers each request when its gate is opened."""

    def __init__(self) -> None:
        super().__init__(function=self._wait)
        self.asked: asyncio.Queue[str] = asyncio.Queue()
        self.gates: dict[str, asyncio.Event] = {}

    async def _wait(self, request: Request) -> str:
        prompt = request.messages[-1].text
        gate = self.gates.setdefault(prompt, asyncio.Event())
        self.asked.put_nowait(prompt)
        await gate.wait()
        return f"answer to {prompt}"


async def test_two_prompts_on_one_thread_are_queued_in_order() -> None:
    provider = _Gate()
    agent = Agent(provider=provider, store=MemoryStore())
    first, second = agent.run("1", thread="t"), agent.run("2", thread="t")
    assert await asyncio.wait_for(provider.asked.get(), 5) == "1"
    assert provider.asked.empty()
    provider.gates["1"].set()
    assert await asyncio.wait_for(provider.asked.get(), 5) == "2"
    provider.gates["2"].set()
    assert (await first).output == "answer to 1"
    assert [m.text for m in (await second).history] == ["1", "answer to 1", "2", "answer to 2"]


async def test_a_second_prompt_can_be_rejected() -> None:
    provider = _Gate()
    agent = Agent(provider=provider, store=MemoryStore())
    first = agent.run("1", thread="t")
    await asyncio.wait_for(provider.asked.get(), 5)
    with pytest.raises(StateConflict, match="is busy with run"):
        await agent.run("2", thread="t", if_busy="reject")
    provider.gates["1"].set()
    assert (await first).output == "answer to 1"


async def test_a_second_prompt_can_interrupt_the_first() -> None:
    provider = _Gate()
    agent = Agent(provider=provider, store=MemoryStore())
    first = agent.run("1", thread="t")
    await asyncio.wait_for(provider.asked.get(), 5)
    second = agent.run("2", thread="t", if_busy="interrupt")
    assert await asyncio.wait_for(provider.asked.get(), 5) == "2"
    provider.gates["2"].set()
    assert (await first).stop_reason == "user_stop"
    assert [m.text for m in (await second).history] == ["1", "2", "answer to 2"]


async def test_a_stop_while_queued_ends_without_a_trace() -> None:
    provider = _Gate()
    agent = Agent(provider=provider, store=MemoryStore())
    first = agent.run("1", thread="t")
    await asyncio.wait_for(provider.asked.get(), 5)
    stop = StopSignal()
    second = agent.run("2", thread="t", stop=stop)
    await asyncio.sleep(0)
    stop.set()
    result = await asyncio.wait_for(second.aresolve(), 5)
    assert (result.stop_reason, result.output) == ("user_stop", "")
    provider.gates["1"].set()
    assert [m.text for m in (await first).history] == ["1", "answer to 1"]


def test_one_agent_serves_one_event_loop_after_another() -> None:
    agent = Agent(provider=OfflineProvider(delay=0.001), store=MemoryStore())

    async def two_at_once() -> list[str]:
        return list(await asyncio.gather(agent.chat("1", thread="t"), agent.chat("2", thread="t")))

    assert len(asyncio.run(two_at_once()) + asyncio.run(two_at_once())) == 4


async def test_what_the_caller_gave_is_never_changed() -> None:
    given: list[Any] = [{"role": "user", "content": "one"}, UserMessage(text="two")]
    before = [dict(given[0]), given[1]]
    agent = Agent(provider=OfflineProvider([CALL, "done"]), tools=[add])
    result = await agent.run(given)
    assert given == before
    assert [m.text for m in result.messages[:2]] == ["one", "two"]


async def test_cancelled_at_every_await_point_the_log_is_valid_and_resume_gives_the_same_answer() -> None:
    """Cancel the run's own task at its 1st, 2nd, 3rd ... step of the event loop, until it is through before that."""

    @tool(idempotent=True)
    async def slow_add(a: int, b: int) -> int:
        await asyncio.sleep(0)
        return a + b

    async def provider(request: Request) -> Any:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        done = any(message.role == "tool" for message in request.messages)
        calls = [ToolCall(id=str(n), name="slow_add", arguments='{"a": 1, "b": 2}') for n in (1, 2)]
        return "three and three" if done else calls

    for steps in range(1, 200):
        agent = Agent(provider=OfflineProvider(function=provider), tools=[slow_add], store=MemoryStore())
        thread = f"cancel-{steps}"
        task = asyncio.ensure_future(agent.chat("add", thread=thread))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        try:
            answer = await task
        except asyncio.CancelledError:
            log = await agent.log(thread)
            assert_sendable(history(log))
            if log:
                assert (await agent.resume(thread)).output == "three and three", steps
        else:
            assert answer == "three and three"
            break
    else:
        pytest.fail("the run never came to its end")
    assert steps >= 8  # two waits in each of two requests, and the tools between them


async def test_a_veto_holds_after_a_crash_too() -> None:
    sent: list[str] = []

    @tool(idempotent=True)
    def send(to: str) -> str:
        sent.append(to)
        return "sent"

    call = ToolCall(id="1", name="send", arguments='{"to": "everyone"}')
    hooks = {"on_function_call_start": lambda _: Veto(reason="too many")}
    agent = Agent(provider=OfflineProvider(["done"]), tools=[send], store=MemoryStore(), hooks=hooks)
    info = await agent.store.thread("t")
    await agent.store.append(info.thread_id, log_of(RunStart(), asked(), called(call), begun(call)))
    result = await agent.resume("t")
    assert sent == []
    assert result.messages[2].tool_results[0].text == "This call was not allowed: too many"


async def test_a_refusal_is_one_after_resume_too() -> None:
    refusal = AssistantMessage(parts=(TextPart(text="I will not.", refusal=True),))
    provider = OfflineProvider([refusal])
    agent = Agent(provider=provider, store=MemoryStore())
    with pytest.raises(Refused, match=r"I will not\."):
        await agent.run("do it", thread="t")
    with pytest.raises(Refused, match=r"I will not\."):
        await agent.resume("t")
    assert len(provider.requests) == 1


async def test_a_repair_of_a_finished_run_stands_inside_a_run() -> None:
    store = MemoryStore()
    await Agent(provider=OfflineProvider(["no JSON"]), store=store).run("describe", thread="t")
    agent = Agent(provider=OfflineProvider(['{"name": "Lisbon", "population": 1}']), store=store, output=City)
    assert (await agent.resume("t")).output == City(name="Lisbon", population=1)
    kinds = [item.kind for item in await agent.log("t")]
    assert kinds == [
        "run_started",
        "message",
        "message",
        "run_finished",
        "run_started",
        "message",
        "message",
        "run_finished",
    ]


async def test_a_repair_keeps_the_question_in_a_short_memory() -> None:
    provider = OfflineProvider(["no JSON", '{"name": "Lisbon", "population": 1}'])
    agent = Agent(provider=provider, output=City, memory_params={"n": 2})
    await agent.chat("the question")
    assert provider.requests[1].messages[0].text == "the question"


async def test_a_complete_call_before_the_cut_one_is_made() -> None:
    calls = [CALL, ToolCall(id="2", name="add", arguments='{"a": 1')]
    provider = OfflineProvider([Answer(AssistantMessage(parts=calls), "length")])
    result = await Agent(provider=provider, tools=[add], max_tool_calls=1).run("go")
    assert [r.text for r in result.messages[2].tool_results] == [
        "3",
        "This call was not carried out: the run had reached its limit of tool calls.",
    ]


async def test_a_request_says_what_was_said_before_the_run() -> None:
    provider = OfflineProvider([[CALL], "one", [OTHER], "two"])
    agent = Agent(role="r", provider=provider, tools=[add], memory_params={"n": 4})
    await agent.chat("first")
    await agent.chat("second")
    # system and prompt; system, prompt, call, result; then four of the thread, of which some are the run's
    assert [(len(request.messages), request.earlier) for request in provider.requests] == [
        (2, 1),
        (4, 1),
        (5, 4),
        (5, 2),
    ]


async def test_a_part_that_a_provider_cannot_take_does_not_end_its_thread() -> None:
    with FaultServer() as server:
        agent = Agent(provider="anthropic:m", api_key="k", base_url=server.url_for("anthropic"))
        with pytest.raises(ConfigurationError, match="part of type 'audio', which cannot be sent to 'anthropic'"):
            await agent.chat(UserMessage(text="Hear this", parts=[AudioPart(data=b"RIFF")]))
        assert server.requests == []
        await agent.chat("Never mind. Hello?")
        (sent,) = [request["messages"] for request in server.requests]
    assert sent == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Hear this"},
                {"type": "text", "text": "[A sound (audio/wav) stood here, which cannot be shown to this model.]"},
            ],
        },
        {"role": "user", "content": "Never mind. Hello?"},
    ]


class _Unkeepable(OfflineProvider):
    """Gives fields of its own that no log can keep."""

    async def stream(self, request: Request) -> Any:
        yield [TextDelta("so far"), DetailsDelta({"score": float("nan")}), FinishDelta("stop")]


async def test_a_run_has_its_end_in_the_log_whatever_its_provider_gave() -> None:
    agent = Agent(provider=_Unkeepable(), store=MemoryStore())
    with pytest.raises(ConfigurationError):
        await agent.run("hi", thread="t")
    assert [item.kind for item in await agent.log("t")] == ["run_started", "message", "run_finished"]
    with pytest.raises(ConfigurationError):
        async with agent.run("again", thread="t") as run:
            await run
    assert [item.kind for item in await agent.log("t")][3:] == ["run_started", "message", "run_finished"]
