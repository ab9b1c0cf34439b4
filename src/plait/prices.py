"""What model requests cost: prices for tokens, and where the price of a model comes from.

Owns the arithmetic of prices and the order in which they are looked for. Knows no budget, and asks no network: the
prices of the ``genai-prices`` package are those that it was released with.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal, InvalidOperation
from functools import cache
from operator import itemgetter
from threading import Lock, Thread
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec

from plait.errors import ConfigurationError, excerpt

if TYPE_CHECKING:
    from collections.abc import Callable

    from plait.events import Usage

logger = logging.getLogger("plait.prices")

Usd: TypeAlias = int | float | Decimal | str
"""US dollars: ``0.1`` is a tenth of a dollar exactly, and so is ``"0.1"``."""

MOST_USD: Final = 1_000_000_000
_FINEST: Final = Decimal("0.000001")  # of a price, so that a token costs a whole number of pico-dollars
_MILLION: Final = 1_000_000
_REMEMBERED: Final = 1_000
_FRESH: Final = 60.0


def usd(value: object, what: str) -> Decimal:
    """Give an amount of money as the exact number that it was written as.

    Args:
        value: US dollars; see `Usd`.
        what: what it is, for the message: ``"max_cost of a Budget"``.

    Raises:
        ConfigurationError: it is no number, or below 0, or above `MOST_USD`.
    """
    try:
        amount = _amount(value)
    except InvalidOperation:
        amount = None
    if amount is None:
        shown = excerpt(repr(value), 40) if isinstance(value, str | bool | None) else type(value).__name__
        msg = f"{what} must be a number of US dollars, not {shown}"
    elif not amount.is_finite() or not 0 <= amount <= MOST_USD:
        msg = f"{what} must be from 0 to {MOST_USD:,} US dollars, not {excerpt(str(amount), 40)}"
    else:
        return amount
    raise ConfigurationError(msg)


def _amount(value: object) -> Decimal | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, float):
        return Decimal(repr(value))  # the number that was written, not the nearest one that a float can hold
    return Decimal(value) if isinstance(value, int | Decimal | str) else None


@dataclass(frozen=True, slots=True, init=False)
class Price:
    """What a million tokens of a model cost, in US dollars.

    Attributes:
        input_per_million: of what is sent.
        output_per_million: of what is answered, reasoning included.
        cache_read_per_million: of the part of the input that came from the provider's cache; None: as other input.
        cache_write_per_million: of the part of the input that was written to it; None: as other input.
        above: other prices for requests with more tokens of input than so many, the longest first; they hold for all
            tokens of such a request. Given as a mapping, whose prices are written in any form; see `price_of`.

    Raises:
        ConfigurationError: a price is no number from 0 to a thousand million, or finer than a millionth of a dollar; or
            ``above`` is no mapping of numbers of tokens to prices.
    """

    input_per_million: Decimal
    output_per_million: Decimal
    cache_read_per_million: Decimal | None
    cache_write_per_million: Decimal | None
    above: tuple[tuple[int, Price], ...]

    def __init__(
        self,
        input_per_million: Usd,
        output_per_million: Usd,
        cache_read_per_million: Usd | None = None,
        cache_write_per_million: Usd | None = None,
        *,
        above: Mapping[int, PriceLike] | None = None,
    ) -> None:
        given = {
            "input_per_million": input_per_million,
            "output_per_million": output_per_million,
            "cache_read_per_million": cache_read_per_million,
            "cache_write_per_million": cache_write_per_million,
        }
        for name, value in given.items():
            object.__setattr__(self, name, None if value is None and "cache" in name else _checked(value, name))
        object.__setattr__(self, "above", () if above is None else _steps(above))

    def at(self, input_tokens: int) -> Price:
        """Give the prices that hold for an input of so many tokens."""
        for tokens, price in self.above:
            if input_tokens > tokens:
                return price
        return self

    def cost(self, usage: Usage) -> Decimal:
        """Give what a request costs, in US dollars, exactly.

        Args:
            usage: its tokens; of several requests together only where the length of the input does not matter.
        """
        price = self.at(usage.input_tokens) if self.above else self
        each = price.input_per_million
        read, written = usage.cache_read_tokens, usage.cache_write_tokens
        cost = each * max(0, usage.input_tokens - read - written) + price.output_per_million * usage.output_tokens
        if read:
            cost += (each if price.cache_read_per_million is None else price.cache_read_per_million) * read
        if written:
            cost += (each if price.cache_write_per_million is None else price.cache_write_per_million) * written
        return cost / _MILLION


def _checked(value: Usd | None, name: str) -> Decimal:
    price = usd(value, f"{name} of a Price")
    if price % _FINEST:
        msg = f"{name} of a Price must be whole millionths of a US dollar, not {price}"
        raise ConfigurationError(msg)
    return price


def _steps(above: object) -> tuple[tuple[int, Price], ...]:
    """Give the prices of long inputs, the longest first."""
    if not isinstance(above, Mapping):
        msg = (
            f"above of a Price takes prices by tokens of input, {{200_000: Price(6, 22.5)}}, not {type(above).__name__}"
        )
        raise ConfigurationError(msg)
    steps = []
    for tokens, price in above.items():
        if type(tokens) is not int or tokens < 0:
            msg = f"above of a Price takes whole numbers of tokens, 0 or more, not {excerpt(repr(tokens), 40)}"
            raise ConfigurationError(msg)
        try:
            steps.append((tokens, price_of(price)))
        except ConfigurationError as error:
            msg = f"above {tokens:,} tokens: {error}"
            raise ConfigurationError(msg) from None
    return tuple(sorted(steps, reverse=True, key=itemgetter(0)))


PriceLike: TypeAlias = Price | Usd | tuple[Usd, Usd] | list[Usd] | Mapping[str, Any]
"""A price, as people write it; see `price_of`."""

_PARTS: Final = {
    "input": "input_per_million",
    "output": "output_per_million",
    "cache_read": "cache_read_per_million",
    "cached_input": "cache_read_per_million",
    "cache_write": "cache_write_per_million",
    "above": "above",
}
_IN_AND_OUT: Final = 2
_OF_PRICES: Final = re.compile(
    r"(in|inputs?|out|outputs?|prompts?|completions?|cached?|reads?|writes?|tokens?|prices?|costs?|per|usd)(?![^\W_])",
    re.IGNORECASE,
)
"""How names begin that can only be meant for parts of a price: ``in``, ``input_tokens``, ``prompt``."""


def price_of(value: PriceLike) -> Price:
    """Give the price that somebody wrote down.

    Args:
        value: a number of US dollars for a million tokens, in and out alike; two of them, for input and output; or a
            mapping with ``input`` and ``output``, and perhaps ``cache_read`` (or ``cached_input``), ``cache_write`` and
            ``above`` (other prices, in any of these forms, by the tokens of input above which they hold).

    Raises:
        ConfigurationError: it is none of these.
    """
    if isinstance(value, Price):
        return value
    if isinstance(value, Mapping):
        parts = {_PARTS.get(name, name): part for name, part in value.items()}
        known = set(_PARTS.values())
        if parts.keys() <= known and parts.keys() >= {"input_per_million", "output_per_million"}:
            return Price(**parts)
        msg = f"a price needs 'input' and 'output', and may have {', '.join(map(repr, list(_PARTS)[2:]))}; "
        msg += f"it has {excerpt(', '.join(map(repr, value)), 80) or 'nothing'}"
        raise ConfigurationError(msg)
    if isinstance(value, list | tuple):
        if len(value) != _IN_AND_OUT:
            msg = f"a price is one number, or two, for input and output; it has {len(value)}"
            raise ConfigurationError(msg)
        return Price(*value)
    return Price(each := usd(value, "a price for a million tokens"), each)


class Prices:
    """Where the price of a model comes from.

    First from the caller, then from what the provider said of a request (``usage.cost``), then from the package
    ``genai-prices`` where that is installed. A price that nobody knows is None, never zero.

    Args:
        given: one price for all models, or prices by model: ``"gpt-4o"`` or ``"openai:gpt-4o"``. A mapping with a name
            that speaks of input, output, tokens, the cache or a price is one price, every other is of models. An exact
            name wins over a beginning (``"ollama:*"``), and a longer beginning over a shorter one. ``"gpt-4o"`` is the
            price of ``"gpt-4o-2024-08-06"`` too, but not that of ``"gpt-4o-mini"``.

    Raises:
        ConfigurationError: a price is none; see `price_of`.

    Attributes:
        loaded: whether no look-up has to import the package any more.
    """

    __slots__ = ("_everywhere", "_found", "_given", "loaded")

    def __init__(self, given: PriceLike | Mapping[str, PriceLike] | None = None) -> None:
        self._everywhere: Price | None = None
        self._given: dict[str, Price] = {}
        self._found: dict[tuple[str, str], _Found] = {}
        if isinstance(given, Mapping) and not any(_OF_PRICES.match(str(name)) for name in given):
            self._given = {name: _named(name, price) for name, price in given.items()}
        elif given is not None:
            self._everywhere = price_of(given)  # no mapping of models: those were seen above
        self.loaded = self._everywhere is not None

    async def load(self) -> None:
        """Import the package in a thread: it takes 0.2 s, once in a process, which no look-up should cost the loop."""
        if not self.loaded and package.cache_info().currsize == 0:
            loop = asyncio.get_running_loop()
            done = loop.create_future()

            def tell(_: Future[None]) -> None:
                with suppress(RuntimeError):  # nobody waits on a loop that is closed
                    loop.call_soon_threadsafe(_set, done)

            _importing().add_done_callback(tell)
            await done
        self.loaded = True

    def find(self, provider: str, model: str) -> Price | None:
        """Give the price of a model as it is known before a request, or None when nobody knows.

        Args:
            provider: the vendor's name, such as ``"openai"``.
            model: the model's name, also as an answer gives it.
        """
        return self._find(provider, model).price

    def cost(self, provider: str, model: str, usage: Usage) -> float | None:
        """Give what a request cost in US dollars, or None when nobody knows.

        Args:
            provider: who answered.
            model: which model.
            usage: the tokens, and what the provider says they cost.
        """
        found = self._find(provider, model)
        if usage.cost is not None and not found.is_given:
            return usage.cost
        return None if found.price is None else float(found.price.cost(usage))

    def _find(self, provider: str, model: str) -> _Found:
        if self._everywhere is not None:
            return _Found(self._everywhere, is_given=True)
        found = self._found.get((provider, model))
        if found is None or (found.until is not None and found.until < monotonic()):
            if len(self._found) >= _REMEMBERED:  # models are named by answers, too
                self._found.clear()
            found = self._found[provider, model] = self._looked_up(provider, model)
        return found

    def _looked_up(self, provider: str, model: str) -> _Found:
        own = self._of_caller(provider, model)
        return _of_package(_VENDORS.get(provider, provider), model) if own is None else _Found(own, is_given=True)

    def _of_caller(self, provider: str, model: str) -> Price | None:
        given = self._given
        if not given:
            return None
        dated = _DATE.search(model)
        models = [model] if dated is None else [model, model[: dated.start()]]
        providers = dict.fromkeys((f"{provider}:", f"{_VENDORS.get(provider, provider)}:", ""))
        for name in models:
            for prefix in providers:
                if (price := given.get(prefix + name)) is not None:
                    return price
        names = tuple(prefix + model for prefix in providers)
        fitting = [key for key in given if key.endswith("*") and any(name.startswith(key[:-1]) for name in names)]
        return given[max(fitting, key=len)] if fitting else None


class _Found(msgspec.Struct, frozen=True):
    """A price, or that there is none; whether the caller gave it; and until when that holds."""

    price: Price | None
    is_given: bool = False
    until: float | None = None


def _named(name: str, price: PriceLike) -> Price:
    try:
        return price_of(price)
    except ConfigurationError as error:
        msg = f"the price of {excerpt(str(name), 60)!r}: {error}"
        raise ConfigurationError(msg) from None


# --- genai-prices: https://github.com/pydantic/genai-prices -----------------------------------------------------------

_VENDORS: Final = {
    "openai-responses": "openai",
    "openrouter-responses": "openrouter",
    "ollama-chat": "ollama",
}
"""Vendors that have a name of their own for another dialect, and whose models cost the same in each."""

_DATE: Final = re.compile(r"(-latest|[-@](\d{4}-\d\d-\d\d|\d{8}|\d{3,4}))$")
"""How vendors name one state of a model."""

_FIELDS: Final = ("input_mtok", "output_mtok", "cache_read_mtok", "cache_write_mtok")
_NOT_IN_TOKENS: Final = ("requests_kcount", "output_reasoning_mtok", "output_citation_mtok")
"""What some models are charged for besides, and a provider's `Usage` does not tell."""


def _set(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)


_one_at_a_time: Final = Lock()
_under_way: list[Future[None]] = []  # at most one


def _importing() -> Future[None]:
    """Import the package in a thread, once for all that ask meanwhile, on whatever event loop."""
    with _one_at_a_time:
        if not _under_way:
            # A thread that ends with its work: an executor's would stay as long as the event loop, or hold up the end
            # of the program.
            ended: Future[None] = Future()
            Thread(target=_import, args=(ended,), name="plait: prices", daemon=True).start()
            _under_way.append(ended)
        return _under_way[0]


def _import(ended: Future[None]) -> None:
    try:
        package()
    finally:
        with _one_at_a_time:
            _under_way.clear()
        ended.set_result(None)


@cache
def package() -> Callable[[str, str], Any] | None:
    """Import the package; gives what calculates the price of nothing, by vendor and model."""
    try:
        from genai_prices import Usage, calc_price

        nothing = Usage(input_tokens=0, output_tokens=0)

        def calculated(vendor: str, model: str) -> Any:
            return calc_price(nothing, model, provider_id=vendor)

        calculated("openai", "gpt-4o")  # its tables are imported by the first question
    except ImportError:
        return None
    except (Exception, SystemExit) as error:  # noqa: BLE001  # foreign code
        _warn(type(error).__name__)
        return None
    return calculated


@cache
def _warn(error: str) -> None:
    """Say that the package is broken, once for each kind of error."""
    logger.warning("the package genai-prices is broken, and the prices it should know are not known: %s", error)


def _of_package(vendor: str, model: str) -> _Found:
    """Give the price of a model as the package has it."""
    calculated = package()
    if calculated is None:
        return _Found(None)
    try:
        found = calculated(vendor, model)
        if found.provider.id != vendor:  # it also knows vendors by names that are only alike
            return _Found(None)
        # Prices with conditions change with the day, or the hour.
        until = monotonic() + _FRESH if isinstance(found.model.prices, list) else None
        return _Found(_translated(vars(found.model_price)), until=until)
    except LookupError:
        return _Found(None)
    except Exception as error:  # noqa: BLE001  # foreign code
        _warn(type(error).__name__)
        return _Found(None)


def _translated(prices: Mapping[str, Any]) -> Price | None:
    """Give a price as the package has it in our form, or None where it is not one for tokens."""
    if any(prices.get(name) is not None for name in _NOT_IN_TOKENS):
        return None
    parts = [prices.get(name) for name in _FIELDS]
    if parts[0] is None or parts[1] is None:
        return None
    tiers = {tier.start for part in parts for tier in getattr(part, "tiers", ())}
    above = {start: Price(*(_at(part, start + 1) for part in parts)) for start in tiers}  # type: ignore[arg-type]
    return Price(*(_at(part, 0) for part in parts), above=above)  # type: ignore[arg-type]  # the first two are there


def _at(part: Any, input_tokens: int) -> Decimal | None:
    """Give a part of a price at a length of the input; what is finer than we count is rounded up."""
    if part is None:
        return None
    value = getattr(part, "base", part)
    for tier in getattr(part, "tiers", ()):  # in the order of their lengths
        if input_tokens > tier.start:
            value = tier.price
    price = Decimal(value)
    return price.quantize(_FINEST, ROUND_CEILING) if price % _FINEST else price
