"""What one run holds of its budgets: each model request reserves what it may use before, and settles what it did after.

Owns the upper estimate of a request, and cuts its answer to what is left. What was spent stands in the accounts of a
store (`plait.store.ledger`). It asks no model and ends no run: it says what a request may still be, or that there is no
room for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from functools import partial
from math import ceil
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from plait.errors import ConfigurationError, StoreError
from plait.ids import new_id
from plait.limits import Budget, Exceeded, number
from plait.providers.base import may_be_read
from plait.scopes import settle
from plait.store.ledger import MOST, NANOS, Claim, Estimate, Refused, Spending

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from plait.events import Usage
    from plait.prices import Price, Prices
    from plait.providers.base import Provider, Request, Settings
    from plait.store.ledger import Ledger

logger = logging.getLogger("plait.limits")

DEFAULT_OUTPUT: Final = 4096
"""The most tokens of an answer within a budget, where nobody said."""

LEAST_OUTPUT: Final = 16
"""An answer that could only be shorter than this is not asked for, unless the caller wants a shorter one."""

MARGIN: Final = 1.2
"""An estimate of an input is multiplied by this, to be no lower than the truth."""

_PICOS_A_TOKEN: Final = 1_000_000
"""Pico-dollars for each token, for each US dollar that a million tokens cost."""

_LENGTH: Final = "use max_tokens, which is cut to what is left"
_MODEL: Final = "another model has another price; give the provider that model, or a Fallback of several"
_TIER: Final = "it changes prices, and those that are known hold without it"
_READ: Final = "the model would read more than is sent, and nobody could count it"
_UNBOUNDED: Final = {
    **dict.fromkeys(("max_tokens", "max_completion_tokens", "max_output_tokens"), _LENGTH),
    "n": "use the setting n, which is reserved for",
    **dict.fromkeys(("model", "models"), _MODEL),
    "service_tier": _TIER,
    **dict.fromkeys(("previous_response_id", "conversation", "prompt"), _READ),
}
"""What ``settings.extra`` may not hold within a budget that can stop a run, and why."""


Took: TypeAlias = "tuple[str, str, Usage]"
"""Who was asked, which model, and what that took."""


class Purse:
    """The budgets of one run. Requests of the run may be under way at the same time.

    Args:
        budgets: which ones.
        prices: what models cost.
        ledger: the store in whose accounts they are kept.
        user_id: for whom the run is.
        thread_id: the thread it continues.
        run_id: the run.
    """

    __slots__ = ("_accounts", "_asked", "_auxiliary", "_claims", "_ledger", "_money", "_settings", "_told", "prices")

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
        whose = {"user_id": user_id, "thread_id": thread_id, "run_id": run_id}
        self._accounts = tuple((budget, budget.account(**whose)) for budget in budgets)
        self._claims, self._auxiliary = (
            _together(budget.claim(account, auxiliary=auxiliary) for budget, account in self._accounts)
            for auxiliary in (False, True)
        )
        self._money = next((budget for budget in budgets if budget.max_cost is not None), None)
        self.prices = prices
        self._ledger = ledger
        self._told: set[Budget] = set()
        self._asked: tuple[Provider, tuple[tuple[str, str], ...]] | None = None
        self._settings: tuple[Settings, Settings] | None = None  # the last that were cut, and what they became

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
            ConfigurationError: a budget in money, and a price that nobody knows; or ``settings.extra`` says how long
                the answer may be, who answers, or what else is read.
            StoreUnavailable: the accounts cannot be reached. Nothing may be sent then.
        """
        if not self.prices.loaded:
            await self.prices.load()
        claims = self._auxiliary if auxiliary else self._claims
        stops = any(budget.stop for budget, _ in self._accounts)
        if stops and request.settings.extra:
            _check_extra(request.settings)
        prices = self._known_prices(provider)
        estimate = _estimate(request.settings, input_tokens if exact else ceil(input_tokens * MARGIN), prices)
        operation = new_id("req")
        try:
            answer = await self._ledger.reserve(operation, claims, estimate)
        except asyncio.CancelledError:  # it may have been carried out all the same, and nothing will be sent
            await settle(partial(self.settle, operation, 0, 0))
            raise
        if isinstance(answer, Refused):
            return self._exceeded(answer, estimate, auxiliary=auxiliary)
        cut = self._cut(request, answer.units) if stops else request
        return Reservation(self, operation, cut, provider=provider, prices=prices)

    def _known_prices(self, provider: Provider) -> tuple[Price, ...]:
        """Give the prices of all that may answer; none where one of them is not known and need not be."""
        if self._asked is None or self._asked[0] is not provider:
            self._asked = provider, tuple(_members(provider))
        prices = []
        for name, model in self._asked[1]:
            price = self.prices.find(name, model)
            if price is not None:
                prices.append(price)
            elif self._money is None:
                return ()
            else:
                msg = (
                    f"nobody knows the price of '{name}:{model}', so it cannot be kept within the budget of "
                    f"{number(Decimal(self._money.max_cost or 0))} USD; give the agent its price, in US dollars for a "
                    f"million tokens: {{'{name}:{model}': {{'input': ..., 'output': ...}}}}"
                )
                raise ConfigurationError(msg)
        return tuple(prices)

    def _cut(self, request: Request, units: int) -> Request:
        """Give a request whose answer has at most so many tokens."""
        before = request.settings
        if before.max_tokens == units:
            return request
        if self._settings is None or self._settings[0] is not before or self._settings[1].max_tokens != units:
            self._settings = before, replace(before, max_tokens=units)
        return replace(request, settings=self._settings[1])

    def _exceeded(self, refused: Refused, estimate: Estimate, *, auxiliary: bool) -> Exceeded:
        """Say which budget of an account has no room."""
        budget, claim = next(
            (budget, claim)
            for budget, account in self._accounts
            if account == refused.account
            and estimate.units_within(claim := budget.claim(account, auxiliary=auxiliary), refused.spent)
            < estimate.least
        )
        nanos, tokens = estimate.nanos_for(estimate.least), estimate.tokens_for(estimate.least)
        if claim.nanos is not None and refused.spent.nanos + nanos > claim.nanos:
            limit, needed = Decimal(claim.nanos) / NANOS, Decimal(nanos) / NANOS
            return Exceeded(budget=budget, spent=refused.spent, limit=limit, needed=needed, unit="USD")
        return Exceeded(budget=budget, spent=refused.spent, limit=claim.tokens or 0, needed=tokens, unit="tokens")

    async def settle(
        self, operation: str, tokens: int | None, nanos: int | None, *, estimated: bool = False
    ) -> tuple[Exceeded, ...]:
        """Settle a reservation (`Reservation` does so); gives the budgets that are passed now, and stop no run."""
        try:
            after = await self._ledger.settle(operation, tokens, nanos, estimated=estimated)
        except StoreError as error:
            logger.warning("what a model request used could not be written down; its estimate stands: %s", error)
            return ()
        return tuple(self._passed(after))

    def _passed(self, after: Mapping[str, Spending]) -> Iterator[Exceeded]:
        """Give the budgets that do not stop a run and that are passed now, each once."""
        for budget, account in self._accounts:
            now = after.get(account)
            if budget.stop or now is None or budget in self._told:
                continue
            nanos = budget.max_nanos
            if nanos is not None and now.nanos > nanos:
                self._told.add(budget)
                yield Exceeded(budget=budget, spent=now, limit=Decimal(nanos) / NANOS, needed=0, unit="USD")
            elif budget.max_tokens is not None and now.tokens > budget.max_tokens:
                self._told.add(budget)
                yield Exceeded(budget=budget, spent=now, limit=budget.max_tokens, needed=0, unit="tokens")


def _together(claims: Iterable[Claim]) -> tuple[Claim, ...]:
    """Give one claim for each account, as strict as the strictest for it."""
    by_account: dict[str, Claim] = {}
    for claim in claims:
        other = by_account.get(claim.account, claim)
        nanos = min((one.nanos for one in (claim, other) if one.nanos is not None), default=None)
        tokens = min((one.tokens for one in (claim, other) if one.tokens is not None), default=None)
        by_account[claim.account] = Claim(account=claim.account, nanos=nanos, tokens=tokens)
    return tuple(by_account.values())


class Reservation:
    """What a request may use, until it is settled: once, by `settle`, `broke_off` or `release`.

    Where the accounts cannot be reached then, that is logged, and the estimate stands.

    Attributes:
        request: the request to send: where a budget can stop it, its ``max_tokens`` is set, and cut to what is left.
    """

    __slots__ = ("_operation", "_prices", "_provider", "_purse", "request")

    def __init__(
        self, purse: Purse, operation: str, request: Request, *, provider: Provider, prices: tuple[Price, ...]
    ) -> None:
        self._purse = purse
        self._operation: str | None = operation
        self.request = request
        self._provider = provider
        self._prices = prices

    async def settle(
        self,
        usage: Usage | None,
        *,
        provider: str | None = None,
        model: str | None = None,
        lost: Sequence[Took] = (),
    ) -> tuple[Exceeded, ...]:
        """Put what the request did use in the place of what was reserved. A second time it does nothing.

        Args:
            usage: what the provider told, or what was counted here (``estimated``); None leaves all that was reserved
                as the estimate.
            provider: who answered, where that is another than was asked.
            model: the model that answered, as the answer names it.
            lost: what tries took that failed before.

        Returns:
            The budgets with ``stop=False`` that are passed now; each is told once by each purse.
        """
        if usage is None:
            return await self._end(None, None, estimated=True)
        answered = (provider or self._provider.name, model or self._provider.model, usage)
        return await self._settle([answered, *lost], estimated=usage.estimated or bool(lost))

    async def broke_off(
        self,
        error: BaseException | None,
        taken: Usage,
        *,
        begun: bool,
        provider: str | None = None,
        model: str | None = None,
        lost: Sequence[Took] = (),
        waiting: bool = False,
    ) -> tuple[Exceeded, ...]:
        """Settle a request that ended before its answer did: by an error, a stop or a cancellation.

        Nobody is charged for one that was not sent, or got an error for an answer; any other may have been read.

        Args:
            error: what ended it; None for a stop.
            taken: the input that was sent and the output that was received.
            begun: whether anything came of an answer, or of its figures.
            provider: as for `settle`.
            model: as for `settle`.
            lost: as for `settle`.
            waiting: whether it ended between two tries.

        Returns:
            As `settle`.
        """
        if waiting or not may_be_charged(error, begun=begun):
            return await self._settle(lost, estimated=bool(lost))
        return await self.settle(taken, provider=provider, model=model, lost=lost)

    async def release(self) -> None:
        """Give back all that was reserved: nothing was sent."""
        await self._end(0, 0, estimated=False)

    async def _settle(self, took: Sequence[Took], *, estimated: bool) -> tuple[Exceeded, ...]:
        costs = [self._nanos(used, provider, model) for provider, model, used in took]
        nanos = sum(cost for cost in costs if cost is not None)
        tokens = sum(used.total_tokens for _, _, used in took)
        return await self._end(tokens, None if None in costs else nanos, estimated=estimated)

    def _nanos(self, used: Usage, provider: str, model: str) -> int | None:
        """Give what was used in nano-dollars: as whoever answered is priced, else as the dearest that was asked."""
        if used.estimated and used.cost is not None:
            used = used.model_copy(update={"cost": None})  # what was told in the middle of an answer is too little
        cost = self._purse.prices.cost(provider, model, used)
        if cost is None and self._prices:
            cost = float(max(price.cost(used) for price in self._prices))
        return None if cost is None else round(cost * NANOS)

    async def _end(self, tokens: int | None, nanos: int | None, *, estimated: bool) -> tuple[Exceeded, ...]:
        if self._operation is None:
            return ()
        passed = await self._purse.settle(self._operation, tokens, nanos, estimated=estimated)
        self._operation = None
        return passed


def may_be_charged(error: BaseException | None, *, begun: bool) -> bool:
    """Say whether a provider may charge for a request that ended before its answer did.

    Args:
        error: what ended it; None for a stop.
        begun: whether anything came of an answer, or of its figures.
    """
    return begun or may_be_read(error)


def _estimate(settings: Settings, input_tokens: int, prices: Sequence[Price]) -> Estimate:
    """Say what a request uses at most, at the dearest of some prices; without one, its price is not known."""
    thinking = settings.extra.get("thinking") if settings.extra else None
    budget = thinking.get("budget_tokens") if isinstance(thinking, Mapping) else None
    thought = budget if type(budget) is int else 0  # Anthropic wants ``max_tokens`` above it
    most = DEFAULT_OUTPUT + thought if settings.max_tokens is None else min(settings.max_tokens, MOST)
    answers = settings.n or 1
    held = [price.at(input_tokens) for price in prices]
    # Some of the input may be written to the provider's cache, where that costs more.
    dearest = max((max(one.input_per_million, one.cache_write_per_million or 0) for one in held), default=0)
    return Estimate(
        least=min(LEAST_OUTPUT + thought, most),
        most=most,
        tokens=input_tokens,
        tokens_each=answers,
        picos=int(dearest * _PICOS_A_TOKEN) * input_tokens,
        picos_each=int(max((one.output_per_million for one in held), default=0) * _PICOS_A_TOKEN) * answers,
        priced=bool(prices),
    )


def _members(provider: Any) -> Iterator[tuple[str, str]]:
    """Give the name and model of all that may answer: wrappers hold others as ``provider`` or ``providers``."""
    several = getattr(provider, "providers", None)
    held = several if isinstance(several, list | tuple) else (getattr(provider, "provider", None),)
    inner = [one for one in held if callable(getattr(one, "stream", None))]
    for one in inner:
        yield from _members(one)
    if not inner:
        yield provider.name, provider.model


def _check_extra(settings: Settings) -> None:
    """See that ``extra`` says nothing that a budget has to know: how long an answer may be, who answers, what is read.

    Raises:
        ConfigurationError: it does.
    """
    extra = settings.extra
    options = extra.get("options")
    said = [name for name in _UNBOUNDED if name in extra]
    said += [name for name in ("num_predict",) if isinstance(options, Mapping) and name in options]
    if said:
        msg = f"within a budget settings.extra must not hold {said[0]!r}: {_UNBOUNDED.get(said[0], _LENGTH)}"
        raise ConfigurationError(msg)
