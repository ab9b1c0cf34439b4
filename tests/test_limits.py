from __future__ import annotations

from decimal import Decimal
from typing import Any, get_args

import pytest

from plait.errors import ConfigurationError
from plait.limits import Budget, Exceeded, Per, budgets_of, spent
from plait.store.catalog import open_store
from plait.store.ledger import Claim, Estimate, Spending
from plait.store.memory import MemoryStore

CENT = 10_000_000
"""Nano-dollars."""


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "a Budget needs a limit: give max_cost (US dollars), max_tokens, or both"),
        ({"max_cost": -1}, "max_cost of a Budget must be from 0 to 1,000,000,000 US dollars, not -1"),
        ({"max_cost": "much"}, "max_cost of a Budget must be a number of US dollars, not 'much'"),
        ({"max_cost": float("inf")}, "not Infinity"),
        ({"max_cost": 2_000_000}, "max_cost of a Budget must be at most 1,000,000 US dollars"),
        ({"max_cost": "0.0000000001"}, "in whole nano-dollars, not 1E-10"),
        ({"max_tokens": -5}, "max_tokens of a Budget must be a whole number of tokens from 0 to"),
        ({"max_tokens": 1.5}, "not 1.5"),
        ({"max_tokens": True}, "not True"),
        ({"max_tokens": "many"}, "not str"),
        ({"max_cost": 1, "reserved": -2}, "reserved of a Budget must be from 0"),
        ({"max_tokens": 1, "reserved_tokens": None}, "reserved_tokens of a Budget must be a whole number"),
        ({"max_cost": 1, "reserved": None}, "reserved of a Budget must be a number of US dollars, not None"),
        (
            {"max_cost": 1, "reserved_tokens": 5},
            "a Budget with reserved_tokens=5 needs max_tokens: it is on top of that",
        ),
        ({"max_tokens": 1, "reserved": 3}, "a Budget with reserved=3 needs max_cost"),
        ({"max_cost": 1, "per": "day"}, "per of a Budget must be 'run', 'chat' or 'user', not 'day'"),
        ({"max_cost": 1, "per": ["run"]}, "not ['run']"),
        ({"max_cost": 1, "stop": 1}, "stop of a Budget must be True or False, not 1"),
        ({"max_cost": 1, "key": ""}, "the key of a Budget '' is empty"),
        ({"max_cost": 1, "key": "a\nb"}, "holds a control character"),
    ],
)
def test_a_budget_that_cannot_be_is_refused_with_its_numbers(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Budget(**fields)
    assert said in str(caught.value)


def test_budgets_are_values() -> None:
    assert Budget(max_cost=0.1) == Budget(max_cost="0.1") == Budget(max_cost=Decimal("0.10"))
    assert len({Budget(max_cost=0.1), Budget(max_cost="0.1"), Budget(max_tokens=1)}) == 2
    assert Budget(max_cost=0).max_nanos == 0
    assert (Budget(max_cost="1.000000001").max_nanos, Budget(max_tokens=1).max_nanos) == (1_000_000_001, None)


def test_the_documents_form() -> None:
    control = {"max_budget_for_this_chat": 1, "stop_on_budget_exceeded": False, "reserved_budget": 10}
    assert Budget.from_control(control) == Budget(max_cost=1, stop=False, reserved=10, per="chat")
    assert Budget.from_control({"max_budget_for_this_chat": 0}) == Budget(max_cost=0)


@pytest.mark.parametrize(
    ("control", "said"),
    [
        ({}, "budget_control needs 'max_budget_for_this_chat', in US dollars"),
        ({"max_budget_for_this_chat": None}, "budget_control needs"),
        ({"max_budget": 1}, "budget_control has no 'max_budget'; it takes 'max_budget_for_this_chat', 'stop_on"),
        ({"max_budget_for_this_chat": -1}, "from 0 to 1,000,000,000 US dollars, not -1"),
        ([1], "budget_control must be a dict, not list"),
    ],
)
def test_what_is_no_budget_control_is_refused(control: Any, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Budget.from_control(control)
    assert said in str(caught.value)


def test_one_or_several() -> None:
    one, other = Budget(max_cost=1), Budget(max_tokens=5, per="user")
    assert [budgets_of(given) for given in (None, one, [one, other], (), {"max_budget_for_this_chat": 1})] == [
        (),
        (one,),
        (one, other),
        (),
        (one,),
    ]
    for wrong in (5, [one, 5], "1"):
        with pytest.raises(ConfigurationError, match="budget takes a Budget, or several in a list, not"):
            budgets_of(wrong)  # type: ignore[arg-type]  # that is what is tested


def test_whom_a_budget_is_for() -> None:
    whose = {"user_id": "ann", "thread_id": "thr_1", "run_id": "run_1"}
    budgets = [Budget(max_cost=1, per="run"), Budget(max_cost=1), Budget(max_cost=2, per="user")]
    assert [one.account(**whose) for one in budgets] == ["run run_1", "chat thr_1", "user ann"]
    assert Budget(max_cost=1, key="team").account(**whose) == "key team"


def test_each_user_has_an_account_of_their_own_under_a_key() -> None:
    def account(per: Per | None, key: str | None, who: str) -> str:
        budget = Budget(max_cost=1, per=per, key=key)
        return budget.account(user_id=who, thread_id=f"chat of {who}", run_id=f"run of {who}")

    assert account("user", "2026-11", "ann") == "user-key 7 2026-11 ann"
    names = ["a", "a b", "b", "1 a", "key a", "user a", "-key 1 a", "user-key 1 a b", "ä\u2028", "3 a b"]
    named = [account(per, key, who) for per in get_args(Per) for key in (None, *names) for who in names]
    named += [account(None, key, "anybody") for key in names]
    assert len(set(named)) == len(named) == 3 * 11 * 10 + 10


def test_how_far_an_account_may_go() -> None:
    budget = Budget(max_cost=1, max_tokens=100, reserved="0.5", reserved_tokens=20)
    assert budget.claim("a", auxiliary=False) == Claim(account="a", nanos=100 * CENT, tokens=100)
    assert budget.claim("a", auxiliary=True) == Claim(account="a", nanos=150 * CENT, tokens=120)
    assert Budget(max_cost=1, stop=False).claim("a", auxiliary=False) == Claim(account="a")
    assert Budget(max_tokens=1).claim("a", auxiliary=True) == Claim(account="a", tokens=1)


def test_spending_is_told_in_dollars() -> None:
    half = Spending(nanos=50 * CENT, estimated_nanos=CENT)
    assert (half.cost, half.estimated_cost) == (0.5, 0.01)


def test_an_exceeded_budget_is_a_sentence() -> None:
    half = Spending(nanos=1_230_000_000, tokens=12_345)
    month = Budget(max_cost=1, per="user", key="2026-11")
    said = [
        str(Exceeded(budget=Budget(max_cost=2), spent=half, limit=Decimal(2), needed=Decimal("0.8"), unit="USD")),
        str(Exceeded(budget=Budget(max_cost=1, per="user"), spent=half, limit=Decimal(1), needed=0, unit="USD")),
        str(Exceeded(budget=Budget(max_tokens=9, key="team"), spent=half, limit=12_000, needed=16, unit="tokens")),
        str(Exceeded(budget=month, spent=half, limit=Decimal(1), needed=0, unit="USD")),
    ]
    assert said == [
        "the budget of 2.00 USD for this chat is used up: 1.23 were spent, and the next request needs at least 0.80",
        "the budget of 1.00 USD for this user is exceeded: 1.23 were spent",
        "the budget of 12,000 tokens of 'team' is used up: 12,345 were spent, and the next request needs at least 16",
        "the budget of 1.00 USD of '2026-11' for this user is exceeded: 1.23 were spent",
    ]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"max_cost": 5}, "budget_control has no 'max_cost', but a Budget has: use Budget(max_cost=5)"),
        (
            {"max_cost": 5, "per": "user"},
            "budget_control has no 'max_cost', but a Budget has: use Budget(max_cost=5, per='user')",
        ),
        (
            {"max": 5},
            (
                "budget_control has no 'max'; it takes 'max_budget_for_this_chat', 'stop_on_budget_exceeded', "
                "'reserved_budget'"
            ),
        ),
    ],
)
def test_fields_of_a_budget_in_a_dict_are_told_where_they_belong(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        budgets_of(given)
    assert str(caught.value) == sentence


async def test_what_was_spent_can_be_asked_of_a_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAIT_STORE", "memory://spent")
    store, budget = open_store("memory://spent"), Budget(max_cost=1, per="user", key="2026-11")
    account = "user-key 7 2026-11 ann"
    await store.reserve("r", [Claim(account=account)], Estimate(least=0, most=0, tokens=9))
    await store.settle("r", 9, 0)
    asked = [await spent(of, budget, user_id=who) for of in (store, "memory://spent", None) for who in ("ann", "bob")]
    assert [one.tokens for one in asked] == [9, 0] * 3
    with pytest.raises(ConfigurationError, match="is no URL of a store"):
        await spent("x.db", budget)


async def test_what_was_spent_can_be_asked() -> None:
    store = MemoryStore()
    thread = await store.thread("talk", "ann")
    accounts = [f"chat {thread.thread_id}", "user ann", "run run_1", "key team"]
    for tokens, account in enumerate(accounts, 1):
        await store.reserve(account, [Claim(account=account)], Estimate(least=0, most=0, tokens=tokens))
        await store.settle(account, tokens, tokens * CENT)

    asked = [
        await spent(store, Budget(max_cost=1), user_id="ann", thread="talk"),
        await spent(store, Budget(max_cost=1), thread_id=thread.thread_id),
        await spent(store, Budget(max_tokens=5, per="user"), user_id="ann"),
        await spent(store, Budget(max_cost=1, per="run"), run_id="run_1"),
        await spent(store, Budget(max_cost=1, key="team")),
        await spent(store, Budget(max_cost=1), thread="talk"),  # of the default user
        await spent(store, Budget(max_cost=1, per="user")),
    ]

    assert [(one.tokens, one.cost) for one in asked] == [
        (1, 0.01),
        (1, 0.01),
        (2, 0.02),
        (3, 0.03),
        (4, 0.04),
        (0, 0.0),
        (0, 0.0),
    ]
    assert await store.find("talk") is None
    with pytest.raises(ConfigurationError, match="say of which, with thread= "):
        await spent(store, Budget(max_cost=1))
    with pytest.raises(ConfigurationError, match="say of which, with run_id="):
        await spent(store, Budget(max_cost=1, per="run"), thread="talk")
