from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait.errors import (
    ConfigurationError,
    ProviderError,
    RateLimited,
    StoreUnavailable,
    StreamTruncated,
    TransportError,
)
from plait.events import FinishDelta, Usage
from plait.limits import Budget, Exceeded
from plait.messages import UserMessage
from plait.prices import Price, Prices, package
from plait.providers.base import Request, Settings
from plait.providers.fallback import Fallback
from plait.providers.offline import OfflineProvider
from plait.providers.retry import Retrying, RetryPolicy
from plait.purse import Purse, Reservation
from plait.store.database import DatabaseStore
from plait.store.ledger import Claim, Estimate, Refused, Reserved, Spending
from plait.store.memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from plait.events import Delta
    from plait.prices import PriceLike
    from plait.store.ledger import Ledger

REQUEST = Request(messages=(UserMessage(text="hello"),))
MODEL = OfflineProvider(model="m")
PRICE = Price(1, 10)
"""A token of input is a millionth of a dollar, one of output ten."""

THINKING = {"thinking": {"type": "enabled", "budget_tokens": 1_000}}


def purse(
    *budgets: Budget,
    ledger: Ledger | None = None,
    prices: PriceLike | dict[str, Price] | Prices | None = PRICE,
    **whose: str,
) -> Purse:
    known = prices if isinstance(prices, Prices) else Prices(prices)
    ids = {"user_id": "ann", "thread_id": "thr_1", "run_id": "run_1"} | whose
    return Purse(budgets, known, MemoryStore() if ledger is None else ledger, **ids)


def asking(**settings: Any) -> Request:
    return Request(messages=REQUEST.messages, settings=Settings(**settings))


def guessed(input_tokens: int, output_tokens: int, **more: Any) -> Usage:
    return Usage(input_tokens=input_tokens, output_tokens=output_tokens, estimated=True, **more)


async def reserved(held: Purse, tokens: int = 100, request: Request = REQUEST, **how: bool) -> Reservation:
    answer = await held.reserve(request, MODEL, tokens, **{"exact": True, **how})
    assert isinstance(answer, Reservation), answer
    return answer


async def refused(held: Purse, tokens: int = 100, request: Request = REQUEST, **how: bool) -> Exceeded:
    answer = await held.reserve(request, MODEL, tokens, **{"exact": True, **how})
    assert isinstance(answer, Exceeded)
    return answer


async def chat(ledger: Ledger) -> Spending:
    (found,) = await ledger.spending(["chat thr_1"])
    return found


# --- before a request -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "budget", "length"),
    [
        ({}, Budget(max_cost=1), 4096),
        ({"max_tokens": 50}, Budget(max_cost=1), 50),
        ({"max_tokens": 9_999}, Budget(max_cost=1), 9_999),
        ({}, Budget(max_cost="0.0103"), 1_020),
        ({"max_tokens": 1_021}, Budget(max_cost="0.0103"), 1_020),
        ({"max_tokens": 1_020}, Budget(max_cost="0.0103"), 1_020),
        ({"n": 3}, Budget(max_cost="0.0103"), 340),
        ({}, Budget(max_tokens=1_000), 900),
        ({"n": 2}, Budget(max_tokens=1_000), 450),
        ({}, Budget(max_tokens=1_000, max_cost="0.0003"), 20),
        ({}, Budget(max_tokens=116), 16),
        ({"max_tokens": 3}, Budget(max_tokens=103), 3),
        ({"max_tokens": 0}, Budget(max_tokens=100), 0),
        ({"extra": THINKING}, Budget(max_cost=1), 5_096),
        ({"extra": {"thinking": {"type": "disabled"}}}, Budget(max_cost=1), 4_096),
    ],
)
async def test_the_length_of_an_answer_is_always_said_and_cut_to_what_is_left(
    settings: dict[str, Any], budget: Budget, length: int
) -> None:
    held = await reserved(purse(budget), request=asking(temperature=0.5, **settings))

    assert held.request == asking(temperature=0.5, **settings | {"max_tokens": length})


@pytest.mark.parametrize(
    ("settings", "budget", "sentence"),
    [
        ({}, Budget(max_cost="0.000259"), "of 0.000259 USD for this chat is used up: 0.00 were spent, and the next"),
        ({}, Budget(max_cost="0.000259"), "needs at least 0.00026"),
        ({"max_tokens": 3}, Budget(max_cost="0.000129"), "needs at least 0.00013"),
        ({"n": 2}, Budget(max_tokens=131), "the budget of 131 tokens for this chat is used up: 0 were spent"),
        ({"n": 2}, Budget(max_tokens=131), "the next request needs at least 132"),
        ({}, Budget(max_tokens=0, per="user"), "the budget of 0 tokens for this user is used up"),
        ({}, Budget(max_cost=0), "the budget of 0.00 USD for this chat is used up"),
        ({"extra": THINKING}, Budget(max_tokens=1_115), "the next request needs at least 1,116"),
    ],
)
async def test_a_request_without_room_is_refused_in_a_sentence(
    settings: dict[str, Any], budget: Budget, sentence: str
) -> None:
    ledger = MemoryStore()
    answer = await refused(purse(budget, ledger=ledger), request=asking(**settings))

    assert sentence in str(answer)
    assert (answer.budget, answer.spent) == (budget, Spending())
    assert await chat(ledger) == Spending()


async def test_an_estimate_of_the_input_is_taken_a_fifth_higher() -> None:
    ledger = MemoryStore()
    held = purse(Budget(max_tokens=1_000), ledger=ledger)
    first = await reserved(held, 101, exact=False)

    assert first.request.settings.max_tokens == 1_000 - 122
    await first.settle(guessed(101, 9))
    assert await chat(ledger) == Spending(nanos=191_000, tokens=110, estimated_nanos=191_000, estimated_tokens=110)


async def test_the_strictest_of_several_budgets_counts() -> None:
    ledger = MemoryStore()
    budgets = (
        Budget(max_cost=1),
        Budget(max_tokens=490),
        Budget(max_cost="0.001", per="user"),
        Budget(max_tokens=10_000, key="team"),
        Budget(max_cost=5, per="run", stop=False),
    )
    held = purse(*budgets, ledger=ledger)

    first = await reserved(held)
    assert first.request.settings.max_tokens == 90
    assert (await refused(held)).budget == budgets[2]
    other = await reserved(purse(*budgets, ledger=ledger, user_id="bob"))
    assert other.request.settings.max_tokens == 90
    assert (await refused(purse(*budgets, ledger=ledger, user_id="cid"))).budget == budgets[1]
    spending = await ledger.spending(["chat thr_1", "user ann", "user bob", "key team", "run run_1"])
    assert [one.tokens for one in spending] == [380, 190, 190, 380, 380]


async def test_the_reserved_part_is_for_auxiliary_requests() -> None:
    held = purse(Budget(max_cost="0.001", reserved="0.001", max_tokens=190, reserved_tokens=190))
    await reserved(held)
    assert "budget of 0.001 USD" in str(await refused(held))

    assert (await reserved(held, auxiliary=True)).request.settings.max_tokens == 90
    assert "budget of 0.002 USD" in str(await refused(held, auxiliary=True))


async def test_a_budget_that_does_not_stop_leaves_requests_alone_and_tells_once() -> None:
    ledger = MemoryStore()
    budget = Budget(max_cost="0.001", stop=False)
    held = purse(budget, ledger=ledger)

    told = []
    for _ in range(4):
        call = await reserved(held)
        assert call.request is REQUEST
        told.append(await call.settle(Usage(input_tokens=100, output_tokens=30)))

    spending = Spending(nanos=1_200_000, tokens=390)
    assert told == [
        (),
        (),
        (Exceeded(budget=budget, spent=spending, limit=Decimal("0.001"), needed=0, unit="USD"),),
        (),
    ]


async def test_a_budget_in_tokens_that_does_not_stop_tells_too() -> None:
    budget = Budget(max_tokens=130, stop=False)
    held = purse(budget, prices=None)
    assert await (await reserved(held)).settle(Usage(input_tokens=130)) == ()

    (told,) = await (await reserved(held)).settle(Usage(input_tokens=1))

    assert str(told) == "the budget of 130 tokens for this chat is exceeded: 131 were spent"


async def test_a_request_that_is_short_enough_is_sent_as_it_is() -> None:
    request = asking(max_tokens=10)
    assert (await reserved(purse(Budget(max_cost=1)), request=request)).request is request


async def test_the_same_cut_gives_the_same_settings() -> None:
    held = purse(Budget(max_cost=1))
    first, second = await reserved(held), await reserved(held)
    assert first.request.settings is second.request.settings


@pytest.mark.parametrize(
    ("extra", "why"),
    [
        ({"max_tokens": 5}, "'max_tokens': use max_tokens"),
        ({"max_completion_tokens": 9}, "'max_completion_tokens': use max_tokens"),
        ({"options": {"num_predict": 7}}, "'num_predict': use max_tokens"),
        ({"n": 2}, "'n': use the setting n"),
        ({"model": "gpt-4"}, "'model': another model has another price"),
        ({"models": ["openai/o1-pro"]}, "'models': another model has another price"),
        ({"service_tier": "priority"}, "'service_tier': it changes prices"),
        ({"previous_response_id": "resp_1"}, "'previous_response_id': the model would read more than is sent"),
        ({"conversation": "conv_1"}, "'conversation': the model would read more than is sent"),
        ({"prompt": {"id": "pmpt_1"}}, "'prompt': the model would read more than is sent"),
    ],
)
async def test_what_a_budget_must_know_is_said_nowhere_else(extra: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"within a budget settings\.extra must not hold {why}"):
        await reserved(purse(Budget(max_tokens=1_000)), request=asking(extra=extra))
    await reserved(purse(Budget(max_tokens=1_000, stop=False)), request=asking(extra=extra))
    await reserved(purse(Budget(max_tokens=1_000)), request=asking(extra={"options": {"num_ctx": 7}, "user": "a"}))


# --- prices -----------------------------------------------------------------------------------------------------------


async def test_a_budget_in_money_needs_a_price() -> None:
    ledger = MemoryStore()
    with pytest.raises(ConfigurationError) as caught:
        await reserved(purse(Budget(max_cost="2.5", stop=False), ledger=ledger, prices=None))

    assert str(caught.value) == (
        "nobody knows the price of 'offline:m', so it cannot be kept within the budget of 2.50 USD; give the agent its "
        "price, in US dollars for a million tokens: {'offline:m': {'input': ..., 'output': ...}}"
    )
    assert await chat(ledger) == Spending()


async def test_what_knows_prices_is_loaded_before_the_first_request() -> None:
    package.cache_clear()
    prices = Prices()

    await reserved(purse(Budget(max_tokens=9_000), prices=prices))

    assert prices.loaded


@pytest.mark.fault("L50")
async def test_a_budget_in_tokens_needs_none_and_counts_what_was_not_priced() -> None:
    ledger = MemoryStore()
    held = purse(Budget(max_tokens=1_000), ledger=ledger, prices=None)
    calls = [await reserved(held, request=asking(max_tokens=10)) for _ in range(4)]

    await calls[0].settle(Usage(input_tokens=90, output_tokens=10))
    await calls[1].settle(Usage(input_tokens=90, output_tokens=10, cost=0.25))
    await calls[2].settle(guessed(100, 5))

    assert await chat(ledger) == Spending(
        nanos=250_000_000, tokens=100 + 100 + 105 + 110, estimated_tokens=215, unpriced=3
    )


async def test_of_several_providers_the_dearest_counts_and_all_have_a_price() -> None:
    cheap, dear, odd = (OfflineProvider(model=name) for name in ("cheap", "dear", "odd"))
    prices = Prices({"offline:cheap": (1, 1), "dear": {"input": 2, "output": 5, "cache_write": 4}, "odd": (3, 1)})
    chain = Retrying(Fallback(cheap, Retrying(Fallback(dear, odd), RetryPolicy())), RetryPolicy())
    ledger = MemoryStore()

    held = purse(Budget(max_cost=1), ledger=ledger, prices=prices)
    first = await held.reserve(asking(max_tokens=10), chain, 100, exact=True)
    assert isinstance(first, Reservation)
    assert (await chat(ledger)).nanos == 100 * 4_000 + 10 * 5_000

    await first.settle(Usage(input_tokens=100, output_tokens=10), provider="offline", model="cheap")
    assert (await chat(ledger)).nanos == 110_000

    second = await held.reserve(asking(max_tokens=10), chain, 100, exact=True)
    assert isinstance(second, Reservation)
    await second.settle(Usage(input_tokens=100, output_tokens=10), provider="offline", model="a name of its own")
    assert (await chat(ledger)).nanos == 110_000 + 310_000

    with pytest.raises(ConfigurationError, match="nobody knows the price of 'offline:odd'"):
        await purse(Budget(max_cost=1), prices={"cheap": 1, "dear": 2}).reserve(REQUEST, chain, 100)
    unknown = purse(Budget(max_tokens=500), ledger=(other := MemoryStore()), prices={"cheap": 1})
    await unknown.reserve(REQUEST, chain, 100)
    assert (await chat(other)).unpriced == 1


class Mine:
    """A provider with attributes of its own, which have the names of those that wrappers have."""

    name, model, provider, providers = "offline", "m", "azure", {"eu": "azure"}

    async def stream(self, _: Request) -> AsyncGenerator[list[Delta], None]:
        yield [FinishDelta("stop")]


async def test_only_providers_within_a_provider_are_asked_for_their_price() -> None:
    held = purse(Budget(max_cost=1), prices={"offline:m": 1})
    for provider in (Mine(), Retrying(Mine())):
        assert isinstance(await held.reserve(REQUEST, provider, 100), Reservation)


async def test_a_long_input_is_reserved_at_its_price() -> None:
    ledger = MemoryStore()
    held = purse(Budget(max_cost=1), ledger=ledger, prices=Price(1, 2, above={100: Price(2, 3)}))
    for tokens in (100, 101):
        await reserved(held, tokens, request=asking(max_tokens=10))
    assert (await chat(ledger)).nanos == 100 * 1_000 + 10 * 2_000 + 101 * 2_000 + 10 * 3_000


# --- after it ---------------------------------------------------------------------------------------------------------


async def test_what_was_used_takes_the_place_of_what_was_reserved() -> None:
    ledger = MemoryStore()
    held = purse(Budget(max_cost=1), ledger=ledger)
    call = await reserved(held)
    assert (await chat(ledger)).estimated_nanos == (await chat(ledger)).nanos == 100_000 + 4096 * 10_000

    await call.settle(Usage(input_tokens=90, output_tokens=7))
    await call.settle(Usage(input_tokens=9_999))
    await call.release()

    assert await chat(ledger) == Spending(nanos=160_000, tokens=97)


@pytest.mark.fault("L50")
async def test_without_figures_an_estimate_stands() -> None:
    ledger = MemoryStore()
    held = purse(Budget(max_cost=1), ledger=ledger)
    stopped, silent = [await reserved(held, request=asking(max_tokens=20)) for _ in range(2)]

    await stopped.settle(guessed(100, 5))
    assert await chat(ledger) == Spending(nanos=450_000, tokens=225, estimated_nanos=450_000, estimated_tokens=225)
    await silent.settle(None)
    assert await chat(ledger) == Spending(nanos=450_000, tokens=225, estimated_nanos=450_000, estimated_tokens=225)


async def test_a_cut_answer_is_priced_from_what_was_received() -> None:
    ledger = MemoryStore()
    held = purse(Budget(max_cost=1), ledger=ledger, prices={"m": PRICE})
    await (await reserved(held)).settle(guessed(80, 30, cost=0.5))
    assert await chat(ledger) == Spending(nanos=380_000, tokens=110, estimated_nanos=380_000, estimated_tokens=110)

    unknown = purse(Budget(max_tokens=9_000), ledger=(other := MemoryStore()), prices=None)
    await (await reserved(unknown)).settle(guessed(80, 30, cost=0.5))
    assert await chat(other) == Spending(tokens=110, estimated_tokens=110, unpriced=1)


@pytest.mark.parametrize(
    ("error", "begun", "tokens"),
    [
        (ProviderError("overloaded", status=529), False, 0),
        (RateLimited("slow down", status=429), False, 0),
        (ConfigurationError("no place for an image"), False, 0),
        (ProviderError("overloaded", status=None), True, 107),
        (TransportError("nobody is there", sent=False), False, 0),
        (TransportError("it broke before the answer"), False, 107),
        (TransportError("nobody answers", timeout=True), False, 107),
        (TransportError("it broke"), True, 107),
        (None, False, 107),
        (StreamTruncated("it ended"), True, 107),
        (asyncio.CancelledError(), True, 107),
        (asyncio.CancelledError(), False, 107),
    ],
)
async def test_what_a_request_that_broke_off_used(error: BaseException | None, begun: bool, tokens: int) -> None:
    ledger = MemoryStore()
    call = await reserved(purse(Budget(max_cost=1), ledger=ledger))

    await call.broke_off(error, guessed(100, 7), begun=begun)

    now = await chat(ledger)
    assert (now.tokens, now.estimated_tokens) == (tokens, tokens)


async def test_what_was_not_sent_is_given_back() -> None:
    ledger = MemoryStore()
    call = await reserved(purse(Budget(max_cost=1), ledger=ledger))
    await call.release()
    await call.settle(Usage(input_tokens=5))
    assert await chat(ledger) == Spending()


class Broken(MemoryStore):
    """Cannot be reached for some of its methods."""

    __slots__ = ("failing",)

    def __init__(self, *failing: str) -> None:
        super().__init__()
        self.failing = failing

    async def reserve(self, operation: str, claims: Sequence[Claim], estimate: Estimate) -> Reserved | Refused:
        self._fail("reserve")
        return await super().reserve(operation, claims, estimate)

    async def settle(
        self, operation: str, tokens: int | None, nanos: int | None, *, estimated: bool = False
    ) -> dict[str, Spending]:
        self._fail("settle")
        return await super().settle(operation, tokens, nanos, estimated=estimated)

    def _fail(self, what: str) -> None:
        if what in self.failing:
            msg = f"no {what}"
            raise StoreUnavailable(msg)


async def test_without_the_accounts_nothing_is_sent() -> None:
    with pytest.raises(StoreUnavailable, match="no reserve"):
        await reserved(purse(Budget(max_cost=1), ledger=Broken("reserve")))


async def test_what_cannot_be_settled_is_logged_and_its_estimate_stands(caplog: pytest.LogCaptureFixture) -> None:
    ledger = Broken("settle")
    call = await reserved(purse(Budget(max_tokens=1_000), ledger=ledger), request=asking(max_tokens=10))

    assert await call.settle(Usage(input_tokens=1)) == ()

    assert await chat(ledger) == Spending(nanos=200_000, tokens=110, estimated_nanos=200_000, estimated_tokens=110)
    assert [record.message for record in caplog.records] == [
        "what a model request used could not be written down; its estimate stands: no settle"
    ]


async def test_a_reservation_that_is_cancelled_half_way_leaves_nothing() -> None:
    ledger = DatabaseStore("sqlite:///plait.db")
    held = purse(Budget(max_cost=1), ledger=ledger)
    await (await reserved(held)).release()
    for ticks in range(12):
        task = asyncio.ensure_future(held.reserve(REQUEST, MODEL, 100))
        for _ in range(ticks):
            await asyncio.sleep(0)
        task.cancel()
        outcome = (await asyncio.gather(task, return_exceptions=True))[0]
        assert isinstance(outcome, asyncio.CancelledError)
        assert await chat(ledger) == Spending()
    await ledger.close()


async def test_a_settlement_that_is_cancelled_can_be_repeated() -> None:
    ledger = DatabaseStore("sqlite:///plait.db")
    held = purse(Budget(max_cost=1), ledger=ledger)
    for number in range(1, 6):
        call = await reserved(held)
        task = asyncio.ensure_future(call.settle(Usage(input_tokens=10, output_tokens=1)))
        for _ in range(number):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await call.settle(Usage(input_tokens=10, output_tokens=1))
        assert await chat(ledger) == Spending(nanos=20_000 * number, tokens=11 * number)
    await ledger.close()


# --- whatever is asked ------------------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.integers(0, 3_000), st.integers(0, 500), st.integers(1, 3), st.fractions(0, 1))),
    st.integers(0, 30_000),
    st.integers(0, 20_000),
)
def test_answers_that_are_no_longer_than_asked_never_pass_a_budget(
    calls: list[tuple[int, int, int, Any]], micros: int, tokens: int
) -> None:
    async def spend() -> Spending:
        ledger = MemoryStore()
        held = purse(Budget(max_cost=Decimal(micros) / 10**6, max_tokens=tokens), ledger=ledger, prices=("0.35", "1.7"))
        for number, (length, wanted, answers, share) in enumerate(calls):
            request = asking(n=answers, max_tokens=wanted)
            answer = await held.reserve(request, MODEL, length, exact=True)
            if isinstance(answer, Exceeded) or number % 5 == 4:  # every fifth is killed
                continue
            longest = answer.request.settings.max_tokens
            assert longest is not None
            assert min(wanted, 16) <= longest <= wanted
            await answer.settle(Usage(input_tokens=length, output_tokens=int(longest * answers * share)))
        return await chat(ledger)

    now = asyncio.run(spend())
    assert now.nanos <= micros * 1_000
    assert now.tokens <= tokens
