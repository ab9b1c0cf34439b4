"""What model requests cost: prices for tokens, and where the price of a model comes from.

Owns the arithmetic of prices and the order in which they are looked for. Knows no budget, and asks no network: the
prices of the ``genai-prices`` package are those that it was released with.
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from decimal import Decimal, InvalidOperation
from functools import cache
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from plait.errors import ConfigurationError, excerpt
from plait.plain import EMPTY

if TYPE_CHECKING:
    from plait.events import Usage
    from plait.providers.base import Settings

Usd: TypeAlias = int | float | Decimal | str
"""US dollars: ``0.1`` is a tenth of a dollar exactly, and so is ``"0.1"``."""

MOST_USD: Final = 1_000_000_000
_SMALLEST: Final = Decimal("0.000001")  # of a price, so that a token costs a whole number of pico-dollars
_MILLION: Final = 1_000_000
_REMEMBERED: Final = 1_000
_FRESH: Final = 60.0


def usd(value: Usd, what: str) -> Decimal:
    """Give an amount of money as the exact number that it was written as.

    Args:
        value: US dollars.
        what: what it is, for the message: ``"max_cost of a Budget"``.

    Raises:
        ConfigurationError: it is no number, or below 0, or above `MOST_USD`.
    """
    try:
        amount = Decimal(str(value)) if isinstance(value, int | float | Decimal | str) else None
    except InvalidOperation:
        amount = None
    if amount is None or isinstance(value, bool):
        shown = excerpt(repr(value), 40) if isinstance(value, str | bool) else type(value).__name__
        msg = f"{what} must be a number of US dollars, not {shown}"
    elif not amount.is_finite() or not 0 <= amount <= MOST_USD:
        msg = f"{what} must be from 0 to {MOST_USD:,} US dollars, not {excerpt(str(value), 40)}"
    else:
        return amount
    raise ConfigurationError(msg)


@dataclass(frozen=True, slots=True)
class Price:
    """What a million tokens of a model cost, in US dollars.

    Attributes:
        input_per_million: of what is sent.
        output_per_million: of what is answered, reasoning included.
        cache_read_per_million: of the part of the input that came from the provider's cache; None: as other input.
        cache_write_per_million: of the part of the input that was written to it; None: as other input.
        above: other prices for requests with a longer input, by the number of tokens that must be passed; they hold for
            all tokens of such a request.

    Raises:
        ConfigurationError: a price is no number from 0 to a thousand million, or finer than a millionth of a dollar.
    """

    input_per_million: Decimal
    output_per_million: Decimal
    cache_read_per_million: Decimal | None = None
    cache_write_per_million: Decimal | None = None
    above: Mapping[int, Price] = EMPTY

    def __init__(
        self,
        input_per_million: Usd,
        output_per_million: Usd,
        cache_read_per_million: Usd | None = None,
        cache_write_per_million: Usd | None = None,
        *,
        above: Mapping[int, Price] = EMPTY,
    ) -> None:
        given = (input_per_million, output_per_million, cache_read_per_million, cache_write_per_million)
        for field, value in zip(fields(Price), given, strict=False):
            object.__setattr__(self, field.name, None if value is None else _price(value, field.name))
        object.__setattr__(self, "above", above)

    def at(self, input_tokens: int) -> Price:
        """Give the prices that hold for an input of so many tokens."""
        raise NotImplementedError

    def cost(self, usage: Usage) -> Decimal:
        """Give what requests cost, in US dollars, exactly.

        Args:
            usage: the tokens, of one request where the length of the input matters (``above``).
        """
        raise NotImplementedError


PriceLike: TypeAlias = Price | Usd | tuple[Usd, Usd] | list[Usd] | Mapping[str, Usd | None]
"""A price, as people write it; see `price_of`."""


def price_of(value: PriceLike) -> Price:
    """Give the price that somebody wrote down.

    Args:
        value: a number of US dollars for a million tokens, in and out alike; two of them, for input and output; or a
            mapping with ``input`` and ``output``, and perhaps ``cache_read`` (``cached_input``) and ``cache_write``.

    Raises:
        ConfigurationError: it is none of these.
    """
    raise NotImplementedError


class Prices:
    """Where the price of a model comes from.

    First from the caller, then from what the provider said of a request (``usage.cost``), then from the package
    ``genai-prices`` where that is installed. A price that nobody knows is None, never zero.

    Args:
        given: one price for all models, or prices by model: ``"gpt-4o"`` or ``"openai:gpt-4o"``. An exact name wins
            over a beginning (``"ollama:*"``), and a longer beginning over a shorter one; ``"gpt-4o"`` is the price of
            ``"gpt-4o-2024-08-06"`` too, but not that of ``"gpt-4o-mini"``.

    Raises:
        ConfigurationError: a price is none; see `price_of`.
    """

    def __init__(self, given: PriceLike | Mapping[str, PriceLike] | None = None) -> None:
        raise NotImplementedError

    @property
    def loaded(self) -> bool:
        """Whether a look-up imports nothing any more."""
        raise NotImplementedError

    async def load(self) -> None:
        """Import the package in a thread, 0.2 s once in a process, so that no look-up holds up the event loop."""
        raise NotImplementedError

    def find(self, provider: str, model: str) -> Price | None:
        """Give the price of a model as it is known before a request, or None."""
        raise NotImplementedError

    def cost(self, provider: str, model: str, usage: Usage) -> float | None:
        """Give what requests cost in US dollars, or None when nobody knows."""
        raise NotImplementedError
