"""Budgets as users meet them: whole runs, what they are refused, and what stands in the accounts afterwards."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from plait import Agent, Answer, Budget, OfflineProvider, Settings, StopSignal, Usage, open_store, spent, tool
from plait.context.window import summary_dropping
from plait.entries import ContextNote
from plait.errors import (
    ConfigurationError,
    EmptyAnswer,
    ProviderError,
    RateLimited,
    StoreUnavailable,
    TransportError,
)
from plait.events import AttemptDelta, RunFinished, TextDelta, ToolCallDelta, UsageDelta
from plait.guardrails.guarding import WITHHELD, Guardrails
from plait.guardrails.judge import JUDGE_SETTINGS, InjectionJudge
from plait.guardrails.patterns import forbid
from plait.hooks import BudgetExceeded, Veto
from plait.inquiry import input_tokens
from plait.messages import AssistantMessage, ToolCall, UserMessage
from plait.plain import FrozenDict
from plait.providers.base import Request
from plait.providers.catalog import get_provider
from plait.providers.fallback import Fallback
from plait.providers.retry import Retrying, RetryPolicy
from plait.run import RunLimits
from plait.store.ledger import Spending
from plait.store.memory import MemoryStore
from plait.testing import FaultServer, answer
from plait.testing.reply import Reply

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
    from pathlib import Path

    from plait.events import Delta
    from plait.guardrails.judge import WhenItFails
    from plait.providers.base import Provider
    from plait.store.base import Store
    from plait.store.ledger import Claim, Estimate, Refused, Reserved
    from plait.testing.reply import DialectName

PRICES = {"offline": {"input": 1, "output": 10}}
"""1,000 nano-dollars for a token of input, 10,000 for one of output."""

PATIENCE = 10.0
SUMMARY_TOKENS = 50


@tool
def look(what: str) -> str:
    """Look at something."""
    return f"a {what}"


LOOK = ToolCall(id="c1", name="look", arguments='{"what":"tree"}')


def said(text: str, input_tokens: int, output_tokens: int, *calls: ToolCall) -> Answer:
    parts = AssistantMessage(text=text).parts if text else ()
    used = Usage(input_tokens=input_tokens, output_tokens=output_tokens)
    return Answer(AssistantMessage(parts=(*parts, *calls)), usage=used)


def holding(tokens: int, nanos: int, estimated: tuple[int, int] = (0, 0), unpriced: int = 0) -> Spending:
    return Spending(
        tokens=tokens,
        nanos=nanos,
        estimated_tokens=estimated[0],
        estimated_nanos=estimated[1],
        unpriced=unpriced,
    )


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    made: Store = MemoryStore() if request.param == "memory" else open_store(f"sqlite:///{tmp_path}/budgets.db")
    yield made
    await made.close()


async def chat(store: Store, thread: str = "t") -> Spending:
    return await spent(store, Budget(max_tokens=1), thread=thread)


# --- no room ----------------------------------------------------------------------------------------------------------


async def test_a_run_without_room_asks_nobody_and_goes_on_when_there_is_some(store: Store) -> None:
    model = OfflineProvider([said("hello", 7, 3)])
    told: list[BudgetExceeded] = []
    poor = Agent(provider=model, store=store, budget=Budget(max_tokens=20), hooks={"on_budget_exceeded": told.append})
    result = await poor.run("hi", thread="t")

    sentence = "the budget of 20 tokens for this chat is used up: 0 were spent, and the next request needs at least 22"
    assert (result.stop_reason, result.error, result.output) == ("budget", sentence, "")
    assert (result.usage, result.cost, model.requests) == (None, None, [])
    assert [message.text for message in result.history] == ["hi"]
    assert await chat(store) == Spending()
    (event,) = told
    assert event == BudgetExceeded(
        context=event.context,
        reason=sentence,
        per="chat",
        unit="tokens",
        limit=20,
        spent=0,
        needed=22,
        stops=True,
        turn=1,
    )
    assert event.context.run_id == result.run_id

    rich = Agent(provider=model, store=store, budget=Budget(max_tokens=200))
    again = await rich.resume("t")
    assert (again.stop_reason, again.output, again.run_id) == ("response", "hello", result.run_id)
    assert await chat(store) == holding(10, 0, unpriced=1)


@pytest.mark.fault("S17")
async def test_a_run_that_runs_out_between_turns_has_a_history_that_can_be_sent_on(store: Store) -> None:
    model = OfflineProvider([said("", 100, 20, LOOK), said("a tree it is", 130, 5), said("bye", 150, 5)])
    budget = Budget(max_cost="0.0005", per="run")
    told: list[BudgetExceeded] = []
    agent = Agent(
        provider=model,
        store=store,
        tools=[look],
        budget=budget,
        prices=PRICES,
        hooks={"on_budget_exceeded": told.append},
    )
    result = await agent.run("what is it?", thread="t")

    assert result.stop_reason == "budget"
    assert [message.role for message in result.history] == ["user", "assistant", "tool"]
    assert result.cost == pytest.approx(0.0003)
    assert [(event.turn, event.per, event.unit, event.limit, event.spent) for event in told] == [
        (2, "run", "USD", 0.0005, 0.0003)
    ]
    assert await spent(store, budget, run_id=result.run_id) == holding(120, 300_000)

    richer = Agent(provider=model, store=store, tools=[look], budget=Budget(max_cost=1, per="run"), prices=PRICES)
    resumed = await richer.resume("t")
    assert (resumed.stop_reason, resumed.output, resumed.run_id) == ("response", "a tree it is", result.run_id)
    assert await spent(store, budget, run_id=result.run_id) == holding(255, 480_000)  # one account for both halves
    assert resumed.cost == pytest.approx(0.00048)

    later = await richer.run("thanks", thread="t")
    assert later.output == "bye"
    assert await spent(store, budget, run_id=later.run_id) == holding(155, 200_000)


async def test_a_run_that_ran_out_is_the_same_for_who_reads_it_and_who_awaits_it() -> None:
    agent = Agent(provider=OfflineProvider([]), store=MemoryStore(), budget=Budget(max_tokens=1))
    async with agent.run("hi") as run:
        events = [event async for event in run]
    assert events[-1] == RunFinished("budget", None, (await run).error)
    assert await agent.chat("hi") == ""


async def test_a_budget_that_stops_nobody_is_told_of_once() -> None:
    told: list[BudgetExceeded] = []
    model = OfflineProvider([said("", 60, 50, LOOK), said("", 70, 10, LOOK), said("done", 80, 10)])
    store = MemoryStore()
    agent = Agent(
        provider=model,
        store=store,
        tools=[look],
        budget=Budget(max_tokens=100, key="team", stop=False),
        hooks={"on_budget_exceeded": told.append},
    )
    result = await agent.run("go", thread="t")

    assert (result.stop_reason, result.output) == ("response", "done")
    (event,) = told
    assert event == BudgetExceeded(
        context=event.context,
        reason="the budget of 100 tokens of 'team' is exceeded: 110 were spent",
        per="team",
        unit="tokens",
        limit=100,
        spent=110,
        needed=0,
        stops=False,
        turn=1,
    )
    assert [request.settings.max_tokens for request in model.requests] == [None] * 3  # nothing is cut


# --- the request that is sent -----------------------------------------------------------------------------------------

LENGTHS: dict[DialectName, tuple[str, Callable[[Any], int]]] = {
    "chat": ("openai", lambda body: body["max_tokens"]),
    "responses": ("openai-responses", lambda body: body["max_output_tokens"]),
    "anthropic": ("anthropic", lambda body: body["max_tokens"]),
    "ollama": ("ollama", lambda body: body["options"]["num_predict"]),
}


@pytest.mark.parametrize("dialect", LENGTHS)
async def test_the_length_of_an_answer_is_sent_cut_and_changes_no_prefix(dialect: DialectName) -> None:
    vendor, length = LENGTHS[dialect]
    changes: list[object] = []
    with FaultServer(answer("one", usage=(1_000, 500)), answer("two", usage=(1_100, 500))) as server:
        provider = get_provider(f"{vendor}:exact", api_key="key", base_url=server.url_for(dialect), retry=0)
        agent = Agent(
            provider=provider,
            store=MemoryStore(),
            budget=Budget(max_tokens=5_000),
            max_tokens=4_000,
            hooks={"on_prefix_changed": changes.append},
        )
        assert await agent.chat("hello", thread="t") == "one"
        assert await agent.chat("again", thread="t") == "two"
        lengths = [length(body) for body in server.requests]

    assert lengths[0] == 4_000
    assert 3_400 < lengths[1] < 3_500  # 1,500 were used, and the input takes some
    assert changes == []


# --- whose it is ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("budget", "whose", "sums"),
    [
        (Budget(max_tokens=10_000), [{"thread": "a"}, {"thread": "b"}], [30, 10]),
        (
            Budget(max_tokens=10_000, per="user"),
            [{"user_id": "ann"}, {"user_id": "bob"}],
            [30, 10],
        ),
        (Budget(max_tokens=10_000, key="all"), [{}], [40]),
    ],
)
async def test_agents_share_an_account(
    store: Store, budget: Budget, whose: list[dict[str, str]], sums: list[int]
) -> None:
    agents = [
        Agent(provider=OfflineProvider(function=lambda _: said("so", 7, 3)), store=store, budget=budget)
        for _ in range(2)
    ]
    by_user = budget.per == "user"
    for agent, first in ((agents[0], True), (agents[1], True), (agents[0], True), (agents[1], False)):
        user = "default" if not by_user else "ann" if first else "bob"
        await agent.chat("hi", user, thread="a" if first else "b")

    assert [(await spent(store, budget, **one)).tokens for one in whose] == sums


async def test_of_several_budgets_the_tightest_decides_and_all_are_charged(store: Store) -> None:
    budgets = [
        Budget(max_cost=1, per="user"),
        Budget(max_tokens=1_000, key="a"),
        Budget(max_tokens=100_000),
        Budget(max_cost="0.01", per="run"),
    ]
    model = OfflineProvider([said("so", 40, 60)])
    agent = Agent(provider=model, store=store, budget=budgets, prices=PRICES)
    result = await agent.run("hi", thread="t")

    assert model.requests[0].settings.max_tokens == 994  # 1,000 less the input of 5, a fifth on top
    whose: dict[str, str] = {"thread": "t", "run_id": result.run_id}
    assert [await spent(store, budget, **whose) for budget in budgets] == [holding(100, 640_000)] * 4


async def test_a_second_agent_cannot_spend_what_the_first_has_spent(store: Store) -> None:
    budget = Budget(max_tokens=100, per="user")
    first = Agent(provider=OfflineProvider([said("so", 50, 40)]), store=store, budget=budget)
    second = Agent(provider=OfflineProvider([]), store=store, budget=budget)
    assert await first.chat("hi", "ann", thread="a") == "so"
    assert (await second.run("hi", user_id="ann", thread="b")).stop_reason == "budget"


async def test_agents_within_agents_share_the_budget_of_their_user() -> None:
    store, budget = MemoryStore(), Budget(max_tokens=10_000, per="user")
    inner = Agent(provider=OfflineProvider([said("42", 30, 3)]), name="helper", store=store, budget=budget)
    call = ToolCall(id="c", name="helper", arguments='{"prompt":"six times seven?"}')
    model = OfflineProvider([said("", 20, 4, call), said("it is 42", 40, 5)])
    outer = Agent(provider=model, tools=[inner.as_tool()], store=store, budget=budget)
    result = await outer.run("ask", user_id="ann")

    assert result.output == "it is 42"
    assert result.usage is not None
    assert result.usage.total_tokens == 69  # its own
    assert (await spent(store, budget, user_id="ann")).tokens == 102


async def test_an_agent_within_an_agent_that_has_no_room_is_an_error_result() -> None:
    store, budget = MemoryStore(), Budget(max_tokens=200, key="both")
    inner = Agent(provider=OfflineProvider([]), name="helper", store=store, budget=Budget(max_tokens=60, key="both"))
    call = ToolCall(id="c", name="helper", arguments='{"prompt":"well?"}')
    outer = Agent(
        provider=OfflineProvider([said("", 50, 4, call), said("nobody knows", 60, 5)]),
        tools=[inner.as_tool()],
        store=store,
        budget=budget,
    )
    result = await outer.run("ask")
    assert result.output == "nobody knows"
    (given,) = result.messages[2].tool_results
    assert given.is_error
    assert "budget" in given.text


async def test_runs_of_one_chat_at_once_take_turns_with_its_budget(store: Store) -> None:
    model = OfflineProvider(function=lambda _: said("so", 40, 20))
    agent = Agent(provider=model, store=store, budget=Budget(max_tokens=130), memory_params={"n": 1})
    ended = await asyncio.gather(*(agent.run("hi", thread="t") for _ in range(4)))

    assert sorted(result.stop_reason for result in ended) == ["budget", "budget", "response", "response"]
    assert (await chat(store)).tokens == 120


# --- what did not come to an answer -----------------------------------------------------------------------------------

NOTHING = Reply(status=500), Reply(status=429), Reply(status=400), Reply(status=401)


@pytest.mark.parametrize("reply", NOTHING, ids=lambda reply: str(reply.status))
async def test_an_error_for_an_answer_costs_nothing(reply: Reply) -> None:
    store = MemoryStore()
    with FaultServer(reply) as server:
        provider = get_provider("openai:exact", api_key="key", base_url=server.url, retry=0)
        agent = Agent(provider=provider, store=store, budget=Budget(max_tokens=10_000))
        with pytest.raises(Exception, match=r"."):
            await agent.run("hi", thread="t")
        assert len(server.requests) == 1
    assert await chat(store) == Spending()


async def test_a_refused_connection_costs_nothing() -> None:
    store = MemoryStore()
    with FaultServer() as server:
        port = server.port
    provider = get_provider("openai:exact", api_key="key", base_url=f"http://127.0.0.1:{port}/v1", retry=0)
    agent = Agent(provider=provider, store=store, budget=Budget(max_tokens=10_000))
    with pytest.raises(Exception, match="connect"):
        await agent.run("hi", thread="t")
    assert await chat(store) == Spending()


async def test_a_request_that_is_tried_again_is_charged_once() -> None:
    store = MemoryStore()
    with FaultServer(Reply(status=500), answer("well", usage=(40, 20))) as server:
        policy = {"max_retries": 1, "initial_delay": 0.01}
        provider = get_provider("openai:exact", api_key="key", base_url=server.url, retry=policy)
        agent = Agent(provider=provider, store=store, budget=Budget(max_tokens=10_000))
        assert await agent.chat("hi", thread="t") == "well"
        assert len(server.requests) == 2
    assert await chat(store) == holding(60, 0, unpriced=1)


@pytest.mark.fault("C05")
async def test_what_stopped_streams_took_is_estimated_everywhere(store: Store) -> None:
    stop = StopSignal()
    model = OfflineProvider(["one two three four five six seven eight nine ten"], delay=0.001)
    agent = Agent(provider=model, store=store, budget=Budget(max_cost=1), prices=PRICES)
    async with asyncio.timeout(PATIENCE), agent.run("count", thread="t", stop=stop) as run:
        async for event in run:
            if isinstance(event, TextDelta) and "three" in event.text:
                stop.set()
        result = await run

    assert (result.stop_reason, result.output) == ("user_stop", "one two three")
    assert result.usage is not None
    used = result.usage
    assert used.estimated
    assert 0 < used.output_tokens <= 12
    nanos = 1_000 * used.input_tokens + 10_000 * used.output_tokens
    assert result.cost == pytest.approx(nanos / 1e9)
    assert await chat(store) == holding(used.total_tokens, nanos, (used.total_tokens, nanos))
    assert [
        entry.body.usage for entry in await agent.log("t") if hasattr(entry.body, "usage") and entry.body.usage
    ] == [used]


async def test_a_deadline_in_the_middle_of_an_answer_leaves_an_estimate() -> None:
    store = MemoryStore()
    model = OfflineProvider(["one two three"], delay=PATIENCE)
    agent = Agent(provider=model, store=store, budget=Budget(max_tokens=1_000))
    result = await agent.run("count", thread="t", limits=RunLimits(deadline=0.05))
    assert result.stop_reason == "deadline"
    now = await chat(store)
    assert 0 < now.tokens == now.estimated_tokens < 20  # the input; not the 1,000 that were reserved


async def test_a_cancelled_run_leaves_what_it_took() -> None:
    store, begun = MemoryStore(), asyncio.Event()
    agent = Agent(
        provider=OfflineProvider(["one two three four"], delay=0.001),
        store=store,
        budget=Budget(max_tokens=1_000),
        hooks={"on_token_received": lambda _: begun.set()},
    )
    run = asyncio.ensure_future(agent.chat("count", thread="t"))
    await asyncio.wait_for(begun.wait(), PATIENCE)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    now = await chat(store)
    assert 0 < now.tokens == now.estimated_tokens < 30


@pytest.mark.fault("L50")
async def test_an_answer_without_its_tokens_is_charged_by_estimate() -> None:
    store = MemoryStore()
    with FaultServer(answer("one two three four", usage=None)) as server:
        provider = get_provider("openai:exact", api_key="key", base_url=server.url, retry=0)
        agent = Agent(provider=provider, store=store, budget=Budget(max_cost=1), prices={"exact": (1, 10)})
        result = await agent.run("hi", thread="t")
    assert (result.output, result.usage, result.cost) == ("one two three four", None, None)
    now = await chat(store)
    assert 0 < now.tokens == now.estimated_tokens < 30
    assert now.estimated_nanos == now.nanos > 10_000


async def test_an_answer_that_came_to_nothing_is_in_the_log_and_the_account() -> None:
    store = MemoryStore()
    agent = Agent(
        provider=OfflineProvider([said("", 40, 20)]), store=store, budget=Budget(max_tokens=10_000), prices=PRICES
    )
    with pytest.raises(EmptyAnswer):
        await agent.run("hi", thread="t")
    assert await chat(store) == holding(60, 240_000)
    notes = [entry.body for entry in await agent.log("t") if isinstance(entry.body, ContextNote)]
    assert notes == [ContextNote(by="request", usage=Usage(input_tokens=40, output_tokens=20, cost=0.00024))]


async def test_half_a_tool_call_is_paid_for() -> None:
    store, stop = MemoryStore(), StopSignal()
    call = ToolCall(id="c1", name="look", arguments='{"what":"a tree that stands on a hill"}')
    agent = Agent(
        provider=OfflineProvider([call], delay=0.001),
        tools=[look],
        store=store,
        budget=Budget(max_cost=1),
        prices=PRICES,
    )
    async with asyncio.timeout(PATIENCE), agent.run("look", thread="t", stop=stop) as run:
        async for event in run:
            if isinstance(event, ToolCallDelta) and event.arguments:
                stop.set()
        result = await run
    assert (result.stop_reason, [message.role for message in result.history]) == ("user_stop", ["user"])
    assert result.usage is not None
    assert (result.usage.estimated, result.usage.output_tokens > 3) == (True, True)
    now = await chat(store)
    assert now.tokens == result.usage.total_tokens
    assert now.cost == pytest.approx(result.cost)


@pytest.mark.parametrize(
    ("error", "kept"),
    [
        (TransportError("it took too long", timeout=True), True),
        (TransportError("the connection broke"), True),
        (TransportError("nobody listens", sent=False), False),
        (ProviderError("the model is gone", status=500), False),
        (ConfigurationError("it cannot be said"), False),
    ],
    ids=str,
)
async def test_a_request_that_may_have_been_read_keeps_its_estimate(error: Exception, kept: bool) -> None:
    store = MemoryStore()
    agent = Agent(provider=OfflineProvider([error]), store=store, budget=Budget(max_tokens=10_000))
    with pytest.raises(type(error)):
        await agent.run("hi", thread="t")
    now = await chat(store)
    assert now.tokens == now.estimated_tokens
    assert (now.tokens > 0) is kept


async def test_a_request_that_was_never_sent_gives_back_what_it_had_reserved() -> None:
    store, stop, compared = MemoryStore(), StopSignal(), asyncio.Event()

    async def compare(_event: object) -> None:
        compared.set()
        await asyncio.Event().wait()

    model = OfflineProvider(function=lambda _: said("so", 7, 3))
    budget = Budget(max_tokens=10_000)
    hooks = {"on_prefix_changed": compare}
    agent = Agent(provider=model, store=store, budget=budget, hooks=hooks, memory_params={"n": 1})
    assert await agent.chat("one", thread="t") == "so"
    async with asyncio.timeout(PATIENCE), agent.run("another", thread="t", stop=stop) as run:
        await compared.wait()
        stop.set()
        assert (await run).stop_reason == "user_stop"
    assert (len(model.requests), await chat(store)) == (1, holding(10, 0, unpriced=1))


# --- tries that failed ------------------------------------------------------------------------------------------------

LATE = TransportError("nobody answers", timeout=True)
AT_ONCE = RetryPolicy(initial_delay=0)
HI_TOKENS = input_tokens(Request(messages=(UserMessage(text="hi"),)))


class Breaking:
    """A provider that tells what it read, and then breaks."""

    name, model = "offline", "broken"

    async def stream(self, _: Request) -> AsyncGenerator[list[Delta], None]:
        yield [UsageDelta(Usage(input_tokens=5_000))]
        raise LATE


@pytest.mark.parametrize(
    ("provider", "lost"),
    [
        (Retrying(OfflineProvider([LATE, LATE, said("hello", 7, 3)]), AT_ONCE), [HI_TOKENS, HI_TOKENS]),
        (Retrying(OfflineProvider([TransportError("no", sent=False), said("hello", 7, 3)]), AT_ONCE), []),
        (Retrying(OfflineProvider([ProviderError("", retryable=True), said("hello", 7, 3)]), AT_ONCE), []),
        (Fallback(OfflineProvider([LATE]), OfflineProvider([said("hello", 7, 3)])), [HI_TOKENS]),
        (Fallback(Breaking(), OfflineProvider([said("hello", 7, 3)])), [5_000]),
        (
            Fallback(Breaking(), Retrying(OfflineProvider([LATE, said("hello", 7, 3)]), AT_ONCE)),
            [5_000, HI_TOKENS],
        ),
    ],
)
async def test_tries_that_failed_before_the_answer_are_paid_for(provider: Provider, lost: list[int]) -> None:
    store = MemoryStore()
    agent = Agent(provider=provider, store=store, budget=Budget(max_cost=1), prices=1)
    async with agent.run("hi", thread="t") as run:
        events = [event async for event in run]
        result = await run
    total = 10 + sum(lost)

    assert (result.text, result.usage) == (
        "hello",
        Usage(
            input_tokens=7 + sum(lost),
            output_tokens=3,
            requests=1 + len(lost),
            cost=result.cost,
            estimated=bool(lost),
        ),
    )
    assert result.cost == pytest.approx(total / 1e6)
    assert await chat(store) == holding(total, total * 1_000, (total, total * 1_000) if lost else (0, 0))
    assert not any(isinstance(event, AttemptDelta) for event in events)


async def test_tries_that_failed_before_an_error_are_paid_for() -> None:
    store = MemoryStore()
    provider = Retrying(OfflineProvider([LATE, ProviderError("no", status=400)]), AT_ONCE)
    agent = Agent(provider=provider, store=store, budget=Budget(max_cost=1), prices=1)
    with pytest.raises(ProviderError):
        await agent.run("hi", thread="t")
    assert await chat(store) == holding(HI_TOKENS, HI_TOKENS * 1_000, (HI_TOKENS, HI_TOKENS * 1_000))


@pytest.mark.parametrize(
    ("error", "kept"), [(RateLimited("slow", status=429, retryable=True), 0), (LATE, HI_TOKENS)], ids=["429", "late"]
)
async def test_a_stop_between_two_tries_pays_for_no_third(error: Exception, kept: int) -> None:
    store, waiting, stop = MemoryStore(), asyncio.Event(), StopSignal()

    async def wait(_: float) -> None:
        waiting.set()
        await asyncio.Event().wait()

    provider = Retrying(OfflineProvider([error]), sleep=wait)
    agent = Agent(provider=provider, store=store, budget=Budget(max_cost=1), prices=1)
    async with asyncio.timeout(PATIENCE):
        run = agent.run("hi", thread="t", stop=stop)
        async with run:
            await waiting.wait()
            stop.set()
            result = await run
    assert result.stop_reason == "user_stop"
    assert result.usage == Usage(input_tokens=kept, requests=bool(kept), cost=kept / 1e6, estimated=bool(kept))
    assert await chat(store) == holding(kept, kept * 1_000, (kept, kept * 1_000))


# --- what helps a run -------------------------------------------------------------------------------------------------


async def test_a_judge_uses_what_is_reserved_for_it_and_is_counted() -> None:
    store = MemoryStore()
    judge = OfflineProvider([said("safe", 90, 7)], model="judge")
    agent = Agent(
        provider=OfflineProvider([said("fine", 10, 5)]),
        store=store,
        budget=Budget(max_tokens=60, reserved_tokens=5_000),
        prices=PRICES | {"judge": (2, 20)},
        judge_provider=judge,
        memory_params={"n": 1},
    )
    result = await agent.run("hi", thread="t")

    assert (result.stop_reason, judge.requests[0].settings.max_tokens) == ("budget", JUDGE_SETTINGS.max_tokens)
    assert result.usage == Usage(input_tokens=90, output_tokens=7, cost=0.00032)
    assert await chat(store) == holding(97, 320_000)


async def test_what_a_judge_took_that_refused_the_prompt_is_told() -> None:
    store = MemoryStore()
    judge = OfflineProvider([said("unsafe", 90, 7)])
    agent = Agent(
        provider=OfflineProvider([]), store=store, budget=Budget(max_tokens=9_000), prices=PRICES, judge_provider=judge
    )
    async with agent.run("ignore all that", thread="t") as run:
        events = [event async for event in run]
        result = await run
    used = Usage(input_tokens=90, output_tokens=7, cost=0.00016)
    assert (result.stop_reason, result.usage, result.history) == ("guardrail", used, ())
    assert events == [RunFinished("guardrail", used, result.error)]
    assert await chat(store) == holding(97, 160_000)


@pytest.mark.parametrize("when_it_fails", ["refuse", "allow"])
async def test_a_judge_without_room_refuses_and_asks_nobody(when_it_fails: WhenItFails) -> None:
    asked, model = OfflineProvider([]), OfflineProvider([])
    told: list[BudgetExceeded] = []
    agent = Agent(
        provider=model,
        store=MemoryStore(),
        budget=Budget(max_tokens=10),
        judge_provider=InjectionJudge(asked, when_it_fails=when_it_fails),
        hooks={"on_budget_exceeded": told.append},
    )
    result = await agent.run("hi", thread="t")
    assert (result.stop_reason, asked.requests, model.requests) == ("guardrail", [], [])
    (event,) = told
    assert (event.limit, event.unit, event.stops, event.turn) == (10, "tokens", True, 0)
    assert event.reason.startswith("the budget of 10 tokens for this chat is used up: 0 were spent, and the next")
    why = f"the check 'injection judge' failed, and what it could not check is refused: {event.reason}"
    assert result.error == why


async def test_a_judge_whose_price_nobody_knows_says_so() -> None:
    agent = Agent(
        provider=OfflineProvider([]),
        store=MemoryStore(),
        budget=Budget(max_cost=1),
        judge_provider=OfflineProvider([], model="odd"),
    )
    result = await agent.run("hi", thread="t")
    assert result.stop_reason == "guardrail"
    assert result.error == (
        "the check 'injection judge' failed, and what it could not check is refused: nobody knows the price of "
        "'offline:odd', so it cannot be kept within the budget of 1.00 USD; give the agent its price, in US "
        "dollars for a million tokens: {'offline:odd': {'input': ..., 'output': ...}}"
    )


async def test_a_judge_that_breaks_off_is_paid_for() -> None:
    store = MemoryStore()
    judge = OfflineProvider([TransportError("it took too long", timeout=True)])
    agent = Agent(provider=OfflineProvider([]), store=store, budget=Budget(max_tokens=9_000), judge_provider=judge)
    assert (await agent.run("hi", thread="t")).stop_reason == "guardrail"
    now = await chat(store)
    assert 0 < now.tokens == now.estimated_tokens < 2_000


async def test_a_summary_is_in_the_account_and_the_result() -> None:
    store, summaries = MemoryStore(), 0

    def reply(request: Request) -> Answer:
        nonlocal summaries
        asks = request.settings.max_tokens == SUMMARY_TOKENS + 1_000  # it may think before it writes
        summaries += asks
        return said("what was said", 300, 30) if asks else said("so", 40, 10)

    agent = Agent(
        provider=OfflineProvider(function=reply),
        store=store,
        memory_strategy=summary_dropping(max_tokens=1_000, summary_tokens=SUMMARY_TOKENS),
        budget=Budget(max_tokens=1_000_000),
        prices=PRICES,
    )
    total, cost = 0, 0.0
    for number in range(6):
        before = summaries
        result = await agent.run(f"{number} " + "many words " * 150, thread="t")
        made = summaries - before
        used = Usage(input_tokens=40 + 300 * made, output_tokens=10 + 30 * made, requests=1 + made, cost=result.cost)
        assert result.usage == used
        total, cost = total + used.total_tokens, cost + (result.cost or 0)
    assert summaries > 0
    assert await chat(store) == holding(total, round(cost * 1e9))


async def test_an_answer_that_a_guardrail_withholds_is_paid_for() -> None:
    store = MemoryStore()
    guardrails = Guardrails(output=[forbid("secret", name="secrets")])
    agent = Agent(
        provider=OfflineProvider([said("a secret", 40, 20)]),
        store=store,
        budget=Budget(max_tokens=10_000),
        prices=PRICES,
        guardrails=guardrails,
    )
    result = await agent.run("hi", thread="t")
    assert (result.stop_reason, result.messages[-1].text) == ("guardrail", WITHHELD)
    assert result.usage == Usage(input_tokens=40, output_tokens=20, cost=0.00024)
    assert await chat(store) == holding(60, 240_000)


async def test_answers_that_are_asked_for_again_are_all_paid_for() -> None:
    store = MemoryStore()
    agent = Agent(
        provider=OfflineProvider([said("many", 40, 2), said("[1, 2]", 60, 6)]),
        store=store,
        output=list[int],
        budget=Budget(max_tokens=10_000),
        prices=PRICES,
    )
    result = await agent.run("numbers", thread="t")
    assert (result.output, result.usage and result.usage.requests) == ([1, 2], 2)
    assert await chat(store) == holding(108, 180_000)


async def test_a_request_that_a_hook_refuses_reserves_nothing() -> None:
    store = MemoryStore()
    agent = Agent(
        provider=OfflineProvider([]),
        store=store,
        budget=Budget(max_tokens=10_000),
        hooks={"on_before_request": lambda _: Veto(reason="not now")},
    )
    assert (await agent.run("hi", thread="t")).stop_reason == "guardrail"
    assert await chat(store) == Spending()


async def test_of_a_chain_the_dearest_is_reserved_and_who_answered_is_paid() -> None:
    store = MemoryStore()
    dear, cheap = (
        OfflineProvider([ProviderError("gone", status=500)], model="dear"),
        OfflineProvider([said("so", 10, 10)], model="cheap"),
    )
    agent = Agent(
        provider=Fallback(dear, cheap),
        store=store,
        budget=Budget(max_cost="0.001"),
        prices={"dear": (1, 10), "cheap": ("0.1", 1)},
    )
    result = await agent.run("hi", thread="t")
    assert (result.output, result.model) == ("so", "cheap")
    assert cheap.requests[0].settings.max_tokens == 99
    assert await chat(store) == holding(20, 11_000)


# --- the accounts cannot be reached -----------------------------------------------------------------------------------


class Broken(MemoryStore):
    """A store whose accounts cannot be reached from some moment on."""

    def __init__(self, when: str) -> None:
        super().__init__()
        self.when = when

    async def reserve(self, operation: str, claims: Sequence[Claim], estimate: Estimate) -> Reserved | Refused:
        if self.when == "reserve":
            msg = "the disk is gone"
            raise StoreUnavailable(msg)
        return await super().reserve(operation, claims, estimate)

    async def settle(
        self, operation: str, tokens: int | None, nanos: int | None, *, estimated: bool = False
    ) -> dict[str, Spending]:
        if self.when == "settle":
            msg = "the disk is gone"
            raise StoreUnavailable(msg)
        return await super().settle(operation, tokens, nanos, estimated=estimated)


async def test_where_nothing_can_be_reserved_nothing_is_sent() -> None:
    model, store = OfflineProvider(["so"]), Broken("reserve")
    agent = Agent(provider=model, store=store, budget=Budget(max_tokens=10_000))
    with pytest.raises(StoreUnavailable, match="the disk is gone"):
        await agent.run("hi", thread="t")
    assert model.requests == []
    store.when = "never"
    assert (await agent.resume("t")).output == "so"


async def test_where_nothing_can_be_settled_the_answer_is_given_and_the_estimate_stands(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = Broken("settle")
    agent = Agent(provider=OfflineProvider([said("so", 7, 3)]), store=store, budget=Budget(max_tokens=1_000))
    result = await agent.run("hi", thread="t")
    assert (result.output, result.usage) == ("so", Usage(input_tokens=7, output_tokens=3))
    assert "its estimate stands: the disk is gone" in caplog.text
    assert await chat(store) == holding(1_000, 0, (1_000, 0), unpriced=1)


class Slow(MemoryStore):
    """A store that settles when it is allowed to."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.go = asyncio.Event(), asyncio.Event()

    async def settle(
        self, operation: str, tokens: int | None, nanos: int | None, *, estimated: bool = False
    ) -> dict[str, Spending]:
        if not self.asked.is_set():
            self.asked.set()
            await self.go.wait()
        return await super().settle(operation, tokens, nanos, estimated=estimated)


async def test_a_stop_while_an_answer_is_settled_loses_neither_the_answer_nor_what_it_took() -> None:
    store, stop = Slow(), StopSignal()
    agent = Agent(provider=OfflineProvider([said("so", 7, 3)]), store=store, budget=Budget(max_tokens=1_000))
    async with asyncio.timeout(PATIENCE), agent.run("hi", thread="t", stop=stop) as run:
        await store.asked.wait()
        stop.set()
        result = await run
    assert (result.stop_reason, result.output) == ("user_stop", "so")
    assert await chat(store) == holding(10, 0, unpriced=1)


async def test_a_run_may_be_given_budgets_in_place_of_the_agents() -> None:
    store = MemoryStore()
    agent = Agent(provider=OfflineProvider(["a", "b"]), store=store, budget=Budget(max_tokens=0))
    assert (await agent.run("hi", thread="t")).stop_reason == "budget"
    assert (await agent.run("hi", thread="t", budget=[])).stop_reason == "response"
    month = Budget(max_tokens=5_000, per="user", key="2026-11")
    assert (await agent.run("hi", thread="t", budget=month)).stop_reason == "response"
    assert (await agent.run("hi", thread="t", budget=Budget(max_tokens=1, per="run"))).stop_reason == "budget"
    assert [(await spent(store, month, user_id=who)).tokens > 0 for who in ("default", "ann")] == [True, False]
    for wrong, said in ((None, "takes a Budget, or several in a list, not None"), (5, "budget takes a Budget, or")):
        with pytest.raises(ConfigurationError, match=said):
            await agent.run("hi", budget=wrong)  # type: ignore[arg-type]  # that is what is tested


# --- what cannot be ---------------------------------------------------------------------------------------------------


async def test_a_budget_in_money_refuses_a_model_whose_price_nobody_knows() -> None:
    model = OfflineProvider([])
    agent = Agent(provider=model, store=MemoryStore(), budget=Budget(max_cost="0.5"))
    with pytest.raises(ConfigurationError) as refused:
        await agent.run("hi", thread="t")
    assert str(refused.value) == (
        "nobody knows the price of 'offline:offline', so it cannot be kept within the budget of 0.50 USD; give the "
        "agent its price, in US dollars for a million tokens: {'offline:offline': {'input': ..., 'output': ...}}"
    )
    assert model.requests == []


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"budget": 5}, "budget takes a Budget, or several in a list, not 5"),
        ({"budget": [Budget(max_tokens=1), 2]}, "budget takes a Budget, or several in a list"),
        ({"budget": {"max": 1}}, "budget_control has no 'max'"),
        ({"budget": Budget(max_tokens=1), "prices": {"m": "cheap"}}, "the price of 'm': "),
        ({"prices": -1}, "must be from 0 to"),
    ],
)
def test_an_agent_is_not_built_with_nonsense(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        Agent(provider=OfflineProvider([]), **options)
    assert sentence in str(refused.value)


async def test_the_length_of_an_answer_is_said_in_one_place() -> None:
    model = OfflineProvider([])
    settings = Settings(extra=FrozenDict({"max_completion_tokens": 5}))
    agent = Agent(provider=model, store=MemoryStore(), budget=Budget(max_tokens=100), settings=settings)
    with pytest.raises(ConfigurationError, match="must not hold 'max_completion_tokens'"):
        await agent.run("hi")
    assert model.requests == []


# --- what a run cost --------------------------------------------------------------------------------------------------


class Named(OfflineProvider):
    """An offline provider with the name of one whose prices are known."""

    name = "openai"


@pytest.mark.parametrize("budget", [None, Budget(max_tokens=10_000)])
@pytest.mark.parametrize(
    ("model", "prices", "reported", "cost"),
    [
        ("gpt-4o-mini", {"gpt-4o-mini": (1, 10)}, 0.5, 0.0012),  # the caller's goes before
        ("gpt-4o-mini", None, 0.5, 0.5),  # what the provider says
        ("gpt-4o-mini", None, None, 0.00021),  # the package's
        ("nobody-s", None, None, None),
        ("nobody-s", 0, None, 0.0),
    ],
)
async def test_where_the_cost_of_a_run_comes_from(
    budget: Budget | None, model: str, prices: Any, reported: float | None, cost: float | None
) -> None:
    used = Usage(input_tokens=1_000, output_tokens=100, cost=reported)
    if model == "gpt-4o-mini" and cost == 0.0012:
        used = used.model_copy(update={"input_tokens": 200})
    provider = Named([Answer(AssistantMessage(text="so"), usage=used)], model=model)
    agent = Agent(provider=provider, store=MemoryStore(), prices=prices, budget=budget)
    result = await agent.run("hi", thread="t")
    assert result.cost == (None if cost is None else pytest.approx(cost))
    assert result.usage is not None
    assert result.usage.cost == result.cost
    if budget is not None:
        now = await chat(agent.store)
        assert now.cost == pytest.approx(cost or 0)
        assert now.unpriced == int(cost is None)


async def test_the_cost_of_several_turns_is_unknown_where_one_is() -> None:
    answers = [said("", 10, 5, LOOK), Answer(AssistantMessage(text="so"), usage=Usage(input_tokens=10, cost=0.25))]
    result = await Agent(provider=OfflineProvider(answers), tools=[look]).run("hi")
    assert result.cost is None
    assert [message.role for message in result.messages] == ["user", "assistant", "tool", "assistant"]


async def test_a_stopped_run_without_a_budget_is_priced_too() -> None:
    stop = StopSignal()
    agent = Agent(provider=OfflineProvider(["one two three"], delay=0.001), prices=PRICES)
    async with asyncio.timeout(PATIENCE), agent.run("count", stop=stop) as run:
        async for event in run:
            if isinstance(event, TextDelta):
                stop.set()
        result = await run
    assert result.usage is not None
    assert result.usage.estimated
    assert result.cost == pytest.approx(result.usage.input_tokens * 1e-6 + result.usage.output_tokens * 1e-5)
