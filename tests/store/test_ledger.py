"""Accounts: what every store does with them, and that no reservation ever passes a limit."""

from __future__ import annotations

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from plait.errors import CorruptRecord, StoreUnavailable
from plait.store.database import DatabaseStore
from plait.store.ledger import MOST, Accounts, Claim, Estimate, Refused, Reserved, Spending
from plait.store.memory import MemoryStore
from store.test_database import listening, plain

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from plait.store.base import Store


@pytest.fixture(params=["memory", "database"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    made: Store = MemoryStore() if request.param == "memory" else DatabaseStore("sqlite:///plait.db")
    yield made
    await made.close()


CALL = Estimate(least=10, most=100, tokens=50, tokens_each=1, picos=5_000, picos_each=2_000)
"""50 tokens and 5 nano-dollars for certain; each unit is a token for 2 nano-dollars."""


def claim(account: str, nanos: int | None = None, tokens: int | None = None) -> Claim:
    return Claim(account=account, nanos=nanos, tokens=tokens)


def spending(
    nanos: int, tokens: int, estimated_nanos: int = 0, estimated_tokens: int = 0, unpriced: int = 0
) -> Spending:
    return Spending(
        nanos=nanos,
        tokens=tokens,
        estimated_nanos=estimated_nanos,
        estimated_tokens=estimated_tokens,
        unpriced=unpriced,
    )


async def test_what_is_reserved_is_an_estimate_until_it_is_settled(store: Store) -> None:
    assert await store.spending(["a", "b"]) == [Spending(), Spending()]

    assert await store.reserve("req_1", [claim("a", nanos=1_000)], CALL) == Reserved(100)
    assert await store.spending(["a", "b"]) == [spending(205, 150, 205, 150), Spending()]

    assert await store.settle("req_1", 60, 25) == {"a": spending(25, 60)}
    assert await store.spending(["b", "a"]) == [Spending(), spending(25, 60)]


async def test_an_answer_is_cut_to_what_the_scarcest_account_has_room_for(store: Store) -> None:
    claims = [claim("a", nanos=200), claim("b", tokens=90), claim("c")]

    assert await store.reserve("req_1", claims, CALL) == Reserved(40)
    assert await store.spending(["a", "b", "c"]) == [spending(85, 90, 85, 90)] * 3
    assert await store.reserve("req_2", [claim("a", nanos=200)], CALL) == Reserved(55)
    assert await store.spending(["a"]) == [spending(200, 195, 200, 195)]


@pytest.mark.parametrize(
    ("first", "second"), [((24, None), (None, None)), ((None, 59), (None, None)), ((None, None), (4, 49))]
)
async def test_of_several_accounts_all_are_put_on_or_none(
    store: Store, first: tuple[int | None, int | None], second: tuple[int | None, int | None]
) -> None:
    claims = [claim("a", *first), claim("b", *second)]

    answer = await store.reserve("req_1", claims, CALL)

    assert answer == Refused("a" if any(first) else "b", Spending())
    assert await store.spending(["a", "b"]) == [Spending()] * 2
    assert await store.settle("req_1", 1, 1) == {}


async def test_room_is_counted_to_the_last_nano_dollar_and_token(store: Store) -> None:
    assert await store.reserve("req_1", [claim("a", nanos=25, tokens=60)], CALL) == Reserved(10)
    assert await store.reserve("req_2", [claim("a", nanos=49)], CALL) == Refused("a", spending(25, 60, 25, 60))


async def test_parts_of_a_nano_dollar_are_rounded_up(store: Store) -> None:
    dust = Estimate(least=1, most=3, picos_each=400)
    assert await store.reserve("req_1", [claim("a", nanos=1)], dust) == Reserved(2)
    assert await store.spending(["a"]) == [spending(1, 0, 1, 0)]


async def test_a_call_on_no_account_is_free(store: Store) -> None:
    assert await store.reserve("req_1", [], CALL) == Reserved(100)
    assert await store.settle("req_1", 5, 5) == {}


async def test_an_operation_is_reserved_once_and_settled_once(store: Store) -> None:
    claims = [claim("a", nanos=300)]
    assert await store.reserve("req_1", claims, CALL) == Reserved(100)
    assert await store.reserve("req_1", claims, CALL) == Reserved(100)
    assert await store.spending(["a"]) == [spending(205, 150, 205, 150)]

    assert await store.settle("req_1", 60, 25) == {"a": spending(25, 60)}
    assert await store.settle("req_1", 60, 25) == {}
    assert await store.settle("req_unknown", 1, 1) == {}
    assert await store.spending(["a"]) == [spending(25, 60)]


async def test_a_stopped_call_leaves_an_estimate(store: Store) -> None:
    for operation in ("req_1", "req_2", "req_3"):
        await store.reserve(operation, [claim("a")], CALL)

    await store.settle("req_1", 60, 25, estimated=True)
    assert await store.settle("req_2", None, None) == {"a": spending(435, 360, 435, 360)}
    assert await store.settle("req_3", 51, 7) == {"a": spending(25 + 205 + 7, 60 + 150 + 51, 230, 210)}


async def test_a_price_that_is_not_known_is_not_nothing(store: Store) -> None:
    free = Estimate(least=1, most=10, tokens=5, tokens_each=1, priced=False)
    for operation in ("req_1", "req_2"):
        await store.reserve(operation, [claim("a", tokens=100)], free)
    assert await store.spending(["a"]) == [spending(0, 30, 0, 30, unpriced=2)]

    assert await store.settle("req_1", 8, None) == {"a": spending(0, 23, 0, 15, unpriced=2)}
    assert await store.settle("req_2", 9, 40) == {"a": spending(40, 17, unpriced=1)}

    await store.reserve("req_3", [claim("a")], CALL)
    assert await store.settle("req_3", 3, None) == {"a": spending(40, 20, unpriced=2)}


async def test_a_call_that_used_more_than_it_was_to_is_counted_as_it_was(store: Store) -> None:
    await store.reserve("req_1", [claim("a", nanos=205)], CALL)

    assert await store.settle("req_1", 500, 900) == {"a": spending(900, 500)}
    assert await store.reserve("req_2", [claim("a", nanos=905)], CALL) == Refused("a", spending(900, 500))


async def test_absurd_figures_break_no_account(store: Store) -> None:
    await store.reserve("req_1", [claim("a")], CALL)
    assert await store.settle("req_1", 10**30, 10**30) == {"a": spending(MOST, MOST)}

    huge = Estimate(least=1, most=MOST, tokens=10**20, tokens_each=1, picos=10**30, picos_each=1)
    assert await store.reserve("req_2", [claim("b")], huge) == Reserved(MOST)
    assert await store.spending(["b"]) == [spending(MOST, MOST, MOST, MOST)]


async def test_many_at_once_never_pass_the_limit(store: Store) -> None:
    limit = 1_000

    async def call(number: int) -> int:
        answer = await store.reserve(f"req_{number}", [claim("a", nanos=limit), claim(f"own {number}")], CALL)
        return answer.units if isinstance(answer, Reserved) else 0

    units = await asyncio.gather(*(call(number) for number in range(20)))

    (now,) = await store.spending(["a"])
    assert now.nanos == sum(5 + 2 * one for one in units if one) <= limit
    assert now.nanos > limit - 25


async def test_odd_names_are_data(store: Store) -> None:
    names = ["user '; DROP TABLE accounts; --", "user \N{FIRE}", "user a%", "user A%", "x" * 300]
    for number, name in enumerate(names):
        await store.reserve(f"req_{number}", [claim(name)], Estimate(least=0, most=number, tokens_each=1))

    assert [one.tokens for one in await store.spending(names)] == [0, 1, 2, 3, 4]


async def test_a_closed_store_says_so(store: Store) -> None:
    await store.close()
    for use in (store.reserve("req_1", [claim("a")], CALL), store.settle("req_1", 1, 1), store.spending(["a"])):
        with pytest.raises(StoreUnavailable, match="the store is closed"):
            await use


# --- in a database ----------------------------------------------------------------------------------------------------


async def test_accounts_outlive_the_store_and_so_does_an_open_reservation() -> None:
    first = DatabaseStore("sqlite:///plait.db")
    await first.reserve("req_1", [claim("a"), claim("b")], CALL)
    await first.reserve("req_2", [claim("a")], CALL)
    await first.settle("req_2", 1, 2)
    await first.close()

    second = DatabaseStore("sqlite:///plait.db")
    assert await second.spending(["a", "b"]) == [spending(207, 151, 205, 150), spending(205, 150, 205, 150)]
    assert set(await second.settle("req_1", 10, 20)) == {"a", "b"}
    assert await second.spending(["a", "b"]) == [spending(22, 11), spending(20, 10)]
    await second.close()


async def test_what_waits_together_is_committed_together() -> None:
    store = DatabaseStore("sqlite:///plait.db")
    await store.spending(["a"])
    commits: list[object] = []
    with listening("commit", commits.append):
        calls = [store.reserve(f"req_{number}", [claim("a", tokens=500)], CALL) for number in range(50)]
        answers = await asyncio.gather(*calls)
    await store.close()

    assert [type(answer) for answer in answers] == [Reserved] * 3 + [Refused] * 47
    assert len(commits) < 10


@pytest.mark.parametrize(
    ("damage", "record"),
    [
        ("UPDATE accounts SET nanos = 'many'", "a"),
        ("UPDATE accounts SET unpriced = x'00'", "a"),
        ("UPDATE reservations SET tokens = 1.5", "req_1"),
    ],
)
async def test_a_damaged_account_is_named(damage: str, record: str) -> None:
    store = DatabaseStore("sqlite:///plait.db")
    await store.reserve("req_1", [claim("a")], CALL)
    await store.reserve("req_2", [claim("b")], CALL)
    with plain() as connection:
        connection.execute(damage + (" WHERE account = 'a'"))

    with pytest.raises(CorruptRecord, match=f"what was spent on '{record}' cannot be read") as caught:
        await store.settle("req_1", 1, 1)

    assert caught.value.record == record
    assert await store.settle("req_2", 1, 1) == {"b": spending(1, 1)}
    await store.close()


# --- whatever is done -------------------------------------------------------------------------------------------------

amounts = st.integers(0, 200)
names = st.sampled_from(["a", "b", "c"])
LIMITS = {"a": (300, None), "b": (None, 400), "c": (500, 500)}
estimates = st.builds(
    lambda least, more, **rest: Estimate(least=least, most=least + more, **rest),
    least=st.integers(0, 10),
    more=st.integers(0, 50),
    tokens=amounts,
    tokens_each=st.integers(0, 3),
    picos=st.integers(0, 200_000),
    picos_each=st.integers(0, 3_000),
)
wholes = st.lists(names, min_size=1, max_size=3, unique=True)
claims_of = wholes.map(lambda chosen: [claim(name, *LIMITS[name]) for name in chosen])


class Spent(RuleBasedStateMachine):
    """Calls on three accounts that use no more than they reserved, as exact counts do."""

    operations = Bundle("operations")

    def __init__(self) -> None:
        super().__init__()
        self.accounts = Accounts()
        self.stands: dict[str, tuple[list[str], int, int, bool]] = {}  # what each call stands for just now
        self.count = 0

    @rule(target=operations, claims=claims_of, estimate=estimates)
    def reserve(self, claims: list[Claim], estimate: Estimate) -> str:
        self.count += 1
        operation = f"req_{self.count}"
        before = self.accounts.spending([one.account for one in claims])
        answer = self.accounts.reserve(operation, claims, estimate)
        if isinstance(answer, Refused):
            assert self.accounts.spending([one.account for one in claims]) == before
            return operation
        units = answer.units
        assert estimate.least <= units <= estimate.most
        assert self.accounts.reserve(operation, claims, estimate) == answer
        chosen = [one.account for one in claims]
        self.stands[operation] = chosen, estimate.tokens_for(units), estimate.nanos_for(units), True
        return operation

    @rule(operation=consumes(operations), share=st.fractions(0, 1), estimated=st.booleans(), times=st.integers(1, 2))
    def settle(self, operation: str, share: Any, estimated: bool, times: int) -> None:
        there = self.stands.get(operation)
        for _ in range(times):
            tokens, nanos = (int(there[1] * share), int(there[2] * share)) if there else (1, 1)
            self.accounts.settle(operation, tokens, nanos, estimated=estimated)
            if there is not None:
                self.stands[operation] = there[0], tokens, nanos, estimated

    @rule(operation=consumes(operations))
    def leave(self, operation: str) -> None:
        """Its process is killed: nobody will settle it."""

    @invariant()
    def nothing_is_lost_and_no_limit_is_passed(self) -> None:
        for name, (most_nanos, most_tokens) in LIMITS.items():
            here = [there for there in self.stands.values() if name in there[0]]
            assert self.accounts.spending([name]) == [
                spending(
                    sum(nanos for _, _, nanos, _ in here),
                    sum(tokens for _, tokens, _, _ in here),
                    sum(nanos for _, _, nanos, estimated in here if estimated),
                    sum(tokens for _, tokens, _, estimated in here if estimated),
                )
            ]
            (now,) = self.accounts.spending([name])
            assert most_nanos is None or now.nanos <= most_nanos
            assert most_tokens is None or now.tokens <= most_tokens


TestWhateverIsDone = Spent.TestCase

numbers = st.integers(0, 5)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("reserve"), numbers, claims_of, estimates),
        st.tuples(st.just("settle"), numbers, st.none() | amounts, st.none() | amounts, st.booleans()),
    ),
    max_size=15,
)


@settings(max_examples=25)
@given(steps)
def test_a_database_keeps_accounts_as_memory_does(taken: list[tuple[Any, ...]]) -> None:
    async def both() -> None:
        with TemporaryDirectory() as folder:
            stores: list[Store] = [MemoryStore(), DatabaseStore(f"sqlite:///{Path(folder)}/plait.db")]
            for what, number, *rest in taken:
                said = [
                    await store.reserve(f"req_{number}", *rest)
                    if what == "reserve"
                    else await store.settle(f"req_{number}", *rest[:2], estimated=rest[2])
                    for store in stores
                ]
                assert said[0] == said[1]
                first, second = [await store.spending(["a", "b", "c"]) for store in stores]
                assert first == second
            for store in stores:
                await store.close()

    asyncio.run(both())
