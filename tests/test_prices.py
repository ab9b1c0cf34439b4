from __future__ import annotations

import asyncio
import sys
import threading
from decimal import Decimal
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from genai_prices.data import providers
from hypothesis import given
from hypothesis import strategies as st

from plait import prices as module
from plait.errors import ConfigurationError
from plait.events import Usage
from plait.prices import Price, Prices, price_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MINI = Price("0.15", "0.6", "0.075")


def tokens(input_tokens: int = 0, output_tokens: int = 0, **parts: Any) -> Usage:
    return Usage(input_tokens=input_tokens, output_tokens=output_tokens, **parts)


# --- the arithmetic ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("price", "usage", "cost"),
    [
        (MINI, tokens(1_000_000), "0.15"),
        (MINI, tokens(0, 1_000_000), "0.6"),
        (MINI, tokens(3, 1), "0.00000105"),
        (MINI, tokens(10, 0, cache_read_tokens=4), "0.0000012"),
        (Price(3, 15, "0.3", "3.75"), tokens(1000, 10, cache_read_tokens=500, cache_write_tokens=400), "0.0021"),
        (Price(3, 15), tokens(1000, 10, cache_read_tokens=500, cache_write_tokens=400), "0.00315"),
        (Price(1, 2), tokens(0, 100, reasoning_tokens=90), "0.0002"),
        (Price(1, 2), tokens(5, 0, cache_read_tokens=9), "0.000009"),
        (Price(1, 2), tokens(), "0"),
    ],
)
def test_what_tokens_cost(price: Price, usage: Usage, cost: str) -> None:
    assert price.cost(usage) == Decimal(cost)


def test_a_long_input_makes_all_tokens_dearer() -> None:
    price = Price(1, 2, above={200: Price(3, 4), 100: Price(2, 3)})

    assert [price.at(length).input_per_million for length in (0, 100, 101, 200, 201)] == [1, 1, 2, 2, 3]
    assert price.cost(tokens(100, 10)) == Decimal("0.00012")
    assert price.cost(tokens(101, 10)) == Decimal("0.000232")


def test_a_number_is_what_was_written() -> None:
    assert Price(0.1, 0.3) == Price("0.1", "0.3") == Price(Decimal("0.1"), Decimal("0.30"))
    assert hash(Price(0.1, 0.3)) == hash(Price("0.1", "0.3"))


@given(st.lists(st.tuples(st.integers(0, 10**7), st.integers(0, 10**7)), max_size=20), st.integers(0, 10**9))
def test_costs_add_up_exactly(requests: list[tuple[int, int]], millionths: int) -> None:
    price = Price(Decimal(millionths) / 10**6, "0.6")
    parts = sum((price.cost(tokens(*one)) for one in requests), Decimal())
    assert parts == price.cost(tokens(*(sum(column) for column in zip(*requests, strict=True)) if requests else ()))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (-1, "input_per_million of a Price must be from 0 to 1,000,000,000 US dollars, not -1"),
        (float("nan"), "must be from 0 to 1,000,000,000 US dollars, not NaN"),
        ("-inf", "not -Infinity"),
        ("sNaN", "not sNaN"),
        (10**12, "not 1000000000000"),
        ("much", "must be a number of US dollars, not 'much'"),
        (None, "not None"),
        (True, "not True"),
        ([1], "not list"),
        ("0.0000001", "must be whole millionths of a US dollar, not 1E-7"),
    ],
)
def test_what_is_no_price_is_refused(value: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match="per_million of a Price") as caught:
        Price(value, 1)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("above", "said"),
    [
        ({1.5: 1}, "above of a Price takes whole numbers of tokens, 0 or more, not 1.5"),
        ({"many": 1}, "not 'many'"),
        ({True: 1}, "not True"),
        ({-5: 1}, "not -5"),
        ({1_000: None}, "above 1,000 tokens: a price for a million tokens must be a number of US dollars, not None"),
        ([(5, 1)], "takes prices by tokens of input, {200_000: Price(6, 22.5)}, not list"),
    ],
)
def test_what_is_no_price_of_a_long_input_is_refused(above: Any, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Price(1, 1, above=above)
    assert said in str(caught.value)


# --- how people write them --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "price"),
    [
        (MINI, MINI),
        (2, Price(2, 2)),
        ("0.5", Price("0.5", "0.5")),
        ((1, 2), Price(1, 2)),
        ([1, "2.5"], Price(1, "2.5")),
        ({"input": 1, "output": 2}, Price(1, 2)),
        ({"input": 1, "output": 2, "cached_input": 0.5}, Price(1, 2, 0.5)),
        ({"input": 1, "output": 2, "cache_read": 0.5, "cache_write": 1.25}, Price(1, 2, 0.5, 1.25)),
        ({"input_per_million": 1, "output_per_million": 2}, Price(1, 2)),
        (
            {"input": 1, "output": 2, "above": {100: {"input": 2, "output": 3}, 200: (3, 4)}},
            Price(1, 2, above={200: Price(3, 4), 100: Price(2, 3)}),
        ),
    ],
)
def test_a_price_in_each_form(value: Any, price: Price) -> None:
    assert price_of(value) == price
    assert Prices(value).find("anyone", "anything") == price


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"input": 1}, "a price needs 'input' and 'output', and may have .*; it has 'input'"),
        ({"input": 1, "output": 2, "image": 3}, ".*it has 'input', 'output', 'image'"),
        ({"in": 1, "out": 2}, "a price needs 'input' and 'output', and may have .*; it has 'in', 'out'"),
        ({"prompt": 1, "completion": 2}, "a price needs 'input' and 'output', .*; it has 'prompt', 'completion'"),
        ({"input_tokens": 1, "output_tokens": 2}, "a price needs 'input' and 'output', .*; it has 'input_tokens', "),
        ({"Input": 1, "Output": 2}, "a price needs 'input' and 'output', .*; it has 'Input', 'Output'"),
        ({"gpt-4o": 1, "per_million": 2}, "a price needs 'input' and 'output', .*; it has 'gpt-4o', 'per_million'"),
        ((1, 2, 3), "a price is one number, or two, for input and output; it has 3"),
        (object(), "a price for a million tokens must be a number of US dollars, not object"),
        ({"input": 1, "output": -2}, "output_per_million of a Price must be from 0"),
    ],
)
def test_what_is_no_price_in_any_form_is_refused(value: Any, said: str) -> None:
    if isinstance(value, dict):
        with pytest.raises(ConfigurationError, match=said):
            Prices(value)
    with pytest.raises(ConfigurationError, match=said):
        price_of(value)
    with pytest.raises(ConfigurationError, match=f"the price of 'gpt-4o': {said}"):
        Prices({"gpt-4o": value})


@pytest.mark.parametrize("name", ["offline", "o3", "openai:*", "inflection-2", "internlm", "token1", "*", "perplexity"])
def test_every_other_name_is_a_models(name: str) -> None:
    assert Prices({name: 1, "gpt-4o": (1, 2)}).find("openai", "gpt-4o") == Price(1, 2)


# --- whose price counts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("provider", "model", "price"),
    [
        ("openai", "m", 1),
        ("other", "m", 2),
        ("openai-responses", "m", 1),
        ("openai", "m-2024-08-06", 1),
        ("other", "m-20250929", 2),
        ("other", "m@20250929", 2),
        ("other", "m-latest", 2),
        ("other", "m-0613", 2),
        ("other", "m-mini", 4),
        ("other", "m-mini-2024-08-06", 4),
        ("other", "m-32k", 4),
        ("ollama", "llama", 0),
        ("ollama-chat", "llama", 0),
        ("ollama", "m-very", 4),
        ("ollama", "m-exact-2024-08-06", 5),
        ("other", "unknown", None),
        ("other", "M", None),
    ],
)
def test_the_callers_prices(provider: str, model: str, price: int | None) -> None:
    given = {"openai:m": 1, "m": 2, "ollama:*": 0, "m-*": 4, "m-exact-2024-08-06": 5, "ollama:m-*": 4}
    found = Prices(given)
    assert [found.find(provider, model) for _ in range(2)] == [None if price is None else Price(price, price)] * 2


def test_the_caller_then_the_provider_then_the_package() -> None:
    said = tokens(1_000_000, 0, cost=0.7)
    silent = tokens(1_000_000, 0)
    given, none = Prices({"gpt-4o": 1}), Prices()

    assert [given.cost("openai", "gpt-4o", usage) for usage in (said, silent)] == [1.0, 1.0]
    assert [none.cost("openai", "gpt-4o", usage) for usage in (said, silent)] == [0.7, 2.5]
    assert [none.cost("openai", "gpt-none", usage) for usage in (said, silent)] == [0.7, None]
    assert none.cost("openai", "gpt-4o", tokens(9, cost=0.0)) == 0.0


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("ollama", "llama3.1"),
        ("ollama-chat", "gpt-4o"),
        ("offline", "offline"),
        ("my-openai", "gpt-4o"),
        ("", ""),
        ("x", ""),
    ],
)
def test_what_nobody_knows_is_not_nothing(provider: str, model: str) -> None:
    assert Prices().find(provider, model) is None
    assert Prices({}).cost(provider, model, tokens(1, 1)) is None


# --- genai-prices -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("openai", "gpt-4o"),
        ("openai-responses", "gpt-4o-mini-2024-07-18"),
        ("anthropic", "claude-sonnet-4-5-20250929"),
        ("openrouter", "openai/gpt-4o"),
        ("openrouter-responses", "anthropic/claude-sonnet-4.5"),
    ],
)
def test_the_package_knows_the_usual_models(provider: str, model: str) -> None:
    price = Prices().find(provider, model)
    assert price is not None
    assert 0 < price.input_per_million < price.output_per_million


def test_prices_of_long_inputs_come_from_the_package() -> None:
    price = Prices().find("anthropic", "claude-sonnet-4-5")
    assert price is not None
    ((length, long),) = price.above
    assert length == 200_000
    assert long.input_per_million > price.input_per_million
    assert long.above == ()


@pytest.mark.parametrize("model", ["sonar", "sonar-deep-research"])
def test_a_model_that_is_not_charged_by_tokens_alone_has_no_price(model: str) -> None:
    assert Prices().find("perplexity", model) is None


def test_every_model_of_the_package_has_a_price_that_can_be_or_none() -> None:
    found = Prices()
    prices = [found.find(vendor.id, model.id) for vendor in providers for model in vendor.models]
    assert len([price for price in prices if price is not None]) > len(prices) / 2 > 500
    assert Prices({model.id: 1 for vendor in providers for model in vendor.models}).find("any", "gpt-4o") == Price(1, 1)


class Package:
    """Stands for the package: one price for whatever is asked, and how often that was."""

    def __init__(self, prices: object) -> None:
        self.Usage = SimpleNamespace
        self.asked = 0
        self.prices = prices

    def calc_price(self, _: object, model_ref: str, *, provider_id: str) -> SimpleNamespace:
        self.asked += 1
        price = SimpleNamespace(input_mtok=Decimal(1), output_mtok=Decimal("0.0000004"), cache_read_mtok=None)
        return SimpleNamespace(
            provider=SimpleNamespace(id=provider_id), model=SimpleNamespace(prices=self.prices), model_price=price
        )


@pytest.fixture
def stands_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Package | None], None]]:
    """Puts something in the place of the package; None for its not being installed."""

    def put(package: Package | None) -> None:
        monkeypatch.setitem(sys.modules, "genai_prices", package)
        forget()

    def forget() -> None:
        module.package.cache_clear()
        module._warn.cache_clear()  # noqa: SLF001  # it speaks once in a process

    yield put
    forget()


def test_a_price_is_looked_up_once_and_few_are_remembered(stands_in: Callable[[Package | None], None]) -> None:
    stands_in(package := Package(prices=None))
    found = Prices()
    assert found.find("a", "b") == Price(1, "0.000001")
    before = package.asked

    assert [found.find("a", "b") for _ in range(5)] == [Price(1, "0.000001")] * 5
    assert package.asked == before
    for number in range(1_500):
        found.find("a", f"model {number}")
    found.find("a", "b")
    assert package.asked == before + 1_501


def test_a_price_with_conditions_is_looked_up_again_after_a_minute(
    monkeypatch: pytest.MonkeyPatch, stands_in: Callable[[Package | None], None]
) -> None:
    now = 1_000.0
    monkeypatch.setattr(module, "monotonic", lambda: now)
    stands_in(package := Package(prices=[]))
    found = Prices()
    found.find("a", "b")
    before = package.asked

    now += 59
    found.find("a", "b")
    assert package.asked == before
    now += 2
    found.find("a", "b")
    assert package.asked == before + 1


async def test_without_the_package_only_the_others_know(stands_in: Callable[[Package | None], None]) -> None:
    stands_in(None)
    found = Prices({"mine": 1})
    await found.load()

    assert found.loaded
    assert found.find("openai", "mine") == Price(1, 1)
    assert found.find("openai", "gpt-4o") is None
    assert found.cost("openai", "gpt-4o", tokens(1, 1, cost=0.25)) == 0.25


async def test_the_package_is_imported_off_the_event_loop() -> None:
    module.package.cache_clear()
    found = Prices()
    assert not found.loaded

    await asyncio.gather(found.load(), found.load())

    assert found.loaded
    assert Prices(1).loaded


PATIENCE = 10.0


class Slow(Package):
    """Stands for a package that takes until it is told to be imported, and counts how often it was."""

    def __init__(self, error: BaseException | None = None) -> None:
        super().__init__(prices=None)
        self.error = error
        self.imported = 0
        self.begun, self.may_go_on = threading.Event(), threading.Event()

    def calc_price(self, _: object, model_ref: str, *, provider_id: str) -> SimpleNamespace:
        self.imported += 1
        self.begun.set()
        assert self.may_go_on.wait(PATIENCE)
        if self.error is not None:
            raise self.error
        return super().calc_price(_, model_ref, provider_id=provider_id)


def test_the_package_is_imported_once_for_all_event_loops(stands_in: Callable[[Package | None], None]) -> None:
    stands_in(slow := Slow())
    waiting = threading.Barrier(3)
    loaded: list[bool] = []

    async def load_many() -> None:
        found = [Prices() for _ in range(20)]
        loads = [asyncio.ensure_future(one.load()) for one in found]
        await asyncio.sleep(0)  # each of them has begun
        waiting.wait(PATIENCE)
        await asyncio.wait_for(asyncio.gather(*loads), PATIENCE)
        loaded.extend(one.loaded for one in found)

    loops = [threading.Thread(target=asyncio.run, args=(load_many(),)) for _ in range(2)]
    for loop in loops:
        loop.start()
    waiting.wait(PATIENCE)
    assert slow.begun.wait(PATIENCE)
    slow.may_go_on.set()
    for loop in loops:
        loop.join(PATIENCE)

    assert (loaded, slow.imported) == ([True] * 40, 1)


@pytest.mark.parametrize("error", [RuntimeError("its tables are broken"), KeyError("gpt-4o"), SystemExit()])
async def test_a_broken_package_means_no_prices(
    error: BaseException, stands_in: Callable[[Package | None], None], caplog: pytest.LogCaptureFixture
) -> None:
    stands_in(slow := Slow(error))
    slow.may_go_on.set()
    found = [Prices({"mine": 1}) for _ in range(2)]
    for one in found:
        await asyncio.wait_for(one.load(), PATIENCE)
    assert all(one.loaded for one in found)
    assert [one.find("openai", "gpt-4o") for one in found] == [None, None]
    kind = type(error).__name__
    said = f"the package genai-prices is broken, and the prices it should know are not known: {kind}"
    assert [record.message for record in caplog.records] == [said]


async def test_a_look_up_that_breaks_finds_nothing(
    stands_in: Callable[[Package | None], None], caplog: pytest.LogCaptureFixture
) -> None:
    stands_in(slow := Slow())
    slow.may_go_on.set()
    found = Prices()
    await found.load()
    slow.error = ZeroDivisionError()
    assert [found.find("openai", name) for name in ("a", "b")] == [None, None]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
