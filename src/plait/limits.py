"""Budgets: how much money or how many tokens a run, a chat or a user may use, and what keeps to it.

Owns what a budget is, what is reserved before a model request and what is settled after it. Prices come from
`plait.prices`; what was spent stands in the accounts of a store (`plait.store.ledger`). It asks no model and ends no
run: it says what a request may still be, or that there is no room for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, Self

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from decimal import Decimal

    from plait.events import Usage
    from plait.prices import Prices, Usd
    from plait.providers.base import Provider, Request
    from plait.store.base import Store
    from plait.store.ledger import Ledger, Spending

Per = Literal["run", "chat", "user"]
"""What a budget is for; a chat is a thread."""

DEFAULT_OUTPUT: Final = 4096
"""The most tokens of an answer within a budget, where nobody said."""

LEAST_OUTPUT: Final = 16
"""An answer that can only be shorter than this is not asked for, unless the caller wants a shorter one."""

MARGIN: Final = 1.2
"""An estimate of an input is at most a fifth too low."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How much may be used.

    Attributes:
        max_cost: US dollars, or None.
        max_tokens: input and output together, or None.
        per: for each run, for each chat (thread), or for each user.
        reserved: US dollars on top, for auxiliary requests only (summaries, judges, extraction).
        reserved_tokens: tokens on top, likewise.
        stop: False lets runs go on when the budget is exceeded; the hook is told.
        key: a name; all that runs under it, of whatever user and agent, uses the same budget, and ``per`` says nothing.

    Raises:
        ConfigurationError: there is no limit, or one that cannot be.
    """

    max_cost: Usd | None = None
    max_tokens: int | None = None
    per: Per = "chat"
    reserved: Usd = 0
    reserved_tokens: int = 0
    stop: bool = True
    key: str | None = None

    @classmethod
    def from_control(cls, control: Mapping[str, object]) -> Self:
        """Make a budget of ``budget_control``, as `AsyncOpenAISimpleAgent` takes it.

        Args:
            control: ``max_budget_for_this_chat`` (US dollars), and perhaps ``stop_on_budget_exceeded`` (True) and
                ``reserved_budget`` (US dollars, 0).

        Raises:
            ConfigurationError: something else is in it, or a value cannot be.
        """
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class Exceeded:
    """A budget that has no room for a request, or that was passed; as text, a sentence for people.

    Attributes:
        budget: which one.
        spent: what was spent of it so far.
        limit: how far it goes: US dollars or tokens, the reserved part included for an auxiliary request.
        needed: how much more of the same the request would use at least; 0 for a budget that was passed.
        unit: of ``limit`` and ``needed``.
    """

    budget: Budget
    spent: Spending
    limit: Decimal | int
    needed: Decimal | int
    unit: Literal["USD", "tokens"]


class Reservation:
    """What a request may use, until it is settled: once, by `settle` or `release`.

    Attributes:
        request: the request to send: its ``max_tokens`` is set, and cut to what is left.
    """

    request: Request

    async def settle(
        self,
        usage: Usage | None,
        *,
        output_tokens: int | None = None,
        provider: str | None = None,
        model: str | None = None,
    ) -> tuple[Exceeded, ...]:
        """Put what the request did use in the place of what was reserved. A second time it does nothing.

        Args:
            usage: what the provider told, or None.
            output_tokens: where it told nothing, the tokens that were received, counted here; what they cost is an
                estimate then. None leaves all that was reserved as the estimate.
            provider: who answered, where that is another than was asked.
            model: the model that answered, as the answer names it.

        Returns:
            The budgets with ``stop=False`` that are passed now; each is told once by each purse.
        """
        raise NotImplementedError

    async def release(self) -> None:
        """Give back all that was reserved: nothing was sent, or an error answer came, for which nobody is charged."""
        raise NotImplementedError


class Purse:
    """The budgets of one run.

    Args:
        budgets: which ones.
        prices: what models cost.
        ledger: the store in whose accounts they are kept.
        user_id: for whom the run is.
        thread_id: the thread it continues.
        run_id: the run.
    """

    def __init__(
        self,
        budgets: Sequence[Budget],
        prices: Prices,
        ledger: Ledger,
        *,
        user_id: str,
        thread_id: str,
        run_id: str,
    ) -> None:
        raise NotImplementedError

    async def reserve(
        self, request: Request, provider: Provider, input_tokens: int, *, exact: bool = False, auxiliary: bool = False
    ) -> Reservation | Exceeded:
        """Reserve what a request may use, in all budgets at once or in none.

        Args:
            request: what is to be asked.
            provider: who is to be asked; of several (`Fallback`) the dearest counts.
            input_tokens: the tokens of the messages, tools and output form.
            exact: whether that is a count and no estimate, so that it needs no margin.
            auxiliary: whether it is a summary, a judgement or the like, which may use the reserved part.

        Returns:
            What to send and to settle, or the budget that has no room for it.

        Raises:
            ConfigurationError: a budget in money, and a price that nobody knows.
            StoreUnavailable: the accounts cannot be reached. Nothing may be sent then.
        """
        raise NotImplementedError


async def spent(
    store: Store,
    budget: Budget,
    *,
    user_id: str = "default",
    thread: str | None = None,
    thread_id: str | None = None,
    run_id: str | None = None,
) -> Spending:
    """Give what was spent of a budget.

    Args:
        store: where it is kept: the agent's store.
        budget: which one; what counts is whom it is for (``per``, ``key``), not how much it allows.
        user_id: of which user.
        thread: of which chat, by its name.
        thread_id: of which chat, by its id.
        run_id: of which run.

    Raises:
        ConfigurationError: the budget is for each chat or run, and none was named.
    """
    raise NotImplementedError
