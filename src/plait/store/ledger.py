"""What was spent, in accounts: a call reserves what it may cost at most, and settles what it did cost.

Owns the values that go in and out, the arithmetic of a reservation, and accounts in memory. Knows no budget, price or
model: what an account is for, and where its limit comes from, is said elsewhere.

Money is whole nano-dollars, and what a token costs is whole pico-dollars, so that sums are exact: a price of 0.000001
dollars for a million tokens is one pico-dollar for each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

NANOS: Final = 1_000_000_000
"""Nano-dollars in a dollar."""

_PICOS: Final = 1_000
"""Pico-dollars in a nano-dollar."""

MOST: Final = 10**15
"""The most tokens, or nano-dollars, of one call: a million dollars. What is said to be more is not added up."""


class Spending(msgspec.Struct, frozen=True, kw_only=True):
    """What was spent on one account.

    What calls reserved counts as spent, and as estimated, until they are settled. The estimate of a call whose process
    was killed stays, as does that of a call that was stopped before its tokens were told.

    Attributes:
        nanos: nano-dollars.
        tokens: input and output together.
        estimated_nanos: how many of the nano-dollars are an estimate.
        estimated_tokens: how many of the tokens are an estimate.
        unpriced: how many calls had no known price; their tokens count, and what they cost is not in ``nanos``.
    """

    nanos: int = 0
    tokens: int = 0
    estimated_nanos: int = 0
    estimated_tokens: int = 0
    unpriced: int = 0

    @property
    def cost(self) -> float:
        """US dollars."""
        return self.nanos / NANOS

    @property
    def estimated_cost(self) -> float:
        """US dollars that are an estimate."""
        return self.estimated_nanos / NANOS


NOTHING: Final = Spending()


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """An account that a call is put on, and how far it may go; None for no limit.

    Attributes:
        account: its name, any text.
        nanos: the nano-dollars it may hold with this call.
        tokens: the tokens it may hold with this call.
    """

    account: str
    nanos: int | None = None
    tokens: int | None = None


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """What a call uses at most: what is certain, and what each unit of its answer adds.

    Attributes:
        least: with fewer units the call would be useless.
        most: more units are not wanted.
        tokens: without any unit.
        tokens_each: for each unit.
        picos: pico-dollars without any unit.
        picos_each: pico-dollars for each unit.
        priced: whether the price is known; without one, ``picos`` and ``picos_each`` say nothing.
    """

    least: int
    most: int
    tokens: int = 0
    tokens_each: int = 0
    picos: int = 0
    picos_each: int = 0
    priced: bool = True

    def nanos_for(self, units: int) -> int:
        """Give the nano-dollars for so many units, rounded up."""
        return min(-(-(self.picos + units * self.picos_each) // _PICOS), MOST)

    def tokens_for(self, units: int) -> int:
        """Give the tokens for so many units."""
        return min(self.tokens + units * self.tokens_each, MOST)

    def units_within(self, claim: Claim, spent: Spending) -> int:
        """Give how many units an account has room for; below 0 where there is not even room for what is certain."""
        units = self.most
        if claim.nanos is not None:
            units = _within((claim.nanos - spent.nanos) * _PICOS - self.picos, self.picos_each, units)
        if claim.tokens is not None:
            units = _within(claim.tokens - spent.tokens - self.tokens, self.tokens_each, units)
        return units


def _within(left: int, each: int, units: int) -> int:
    """Give how many units what is left is enough for; -1 where nothing is."""
    if left < 0:
        return -1
    return min(units, left // each) if each else units


class Reserved(msgspec.Struct, frozen=True):
    """A call may be made, and its answer may have so many ``units``."""

    units: int


class Refused(msgspec.Struct, frozen=True):
    """A call may not be made: an account has no room for it. Nothing was reserved.

    Attributes:
        account: the first one without room.
        spent: what was spent on it.
    """

    account: str
    spent: Spending


class Ledger(Protocol):
    """Accounts that several calls, tasks and processes spend from at once; every `Store` keeps one."""

    async def reserve(self, operation: str, claims: Sequence[Claim], estimate: Estimate) -> Reserved | Refused:
        """Put the estimate of a call on accounts, on all or on none: with as many units as all of them have room for.

        Done when it is durable. An operation that has its reservation already gets the same answer, so that one whose
        outcome was not learnt may be repeated.

        Args:
            operation: an id of this one call.
            claims: the accounts, each once.
            estimate: what the call uses at most.

        Raises:
            StoreUnavailable: the accounts cannot be reached; nothing was reserved.
        """
        ...

    async def settle(
        self, operation: str, tokens: int | None, nanos: int | None, *, estimated: bool = False
    ) -> dict[str, Spending]:
        """Put what a call did use in the place of what it had reserved.

        An operation without an open reservation changes nothing: settling it twice is settling it once.

        Args:
            operation: the id that was reserved under.
            tokens: input and output together; None leaves the estimate as it is.
            nanos: nano-dollars, or None for a price that is not known.
            estimated: whether the two are an estimate still.

        Returns:
            What is spent now, by account; nothing for an operation that was settled before.

        Raises:
            StoreUnavailable: the accounts cannot be reached; the estimate stands.
        """
        ...

    async def spending(self, accounts: Sequence[str]) -> list[Spending]:
        """Give what was spent on each of some accounts; nothing at all on one that is not known.

        Raises:
            StoreUnavailable: the accounts cannot be reached.
        """
        ...


class Open(msgspec.Struct, frozen=True):
    """A reservation that is not settled: what stands on each of its accounts."""

    accounts: tuple[str, ...]
    units: int
    tokens: int
    nanos: int
    priced: bool


def decide(
    claims: Sequence[Claim], spent: Sequence[Spending], estimate: Estimate
) -> tuple[Open, dict[str, Spending]] | Refused:
    """Say what a call reserves, from what was spent on its accounts.

    Args:
        claims: the accounts.
        spent: what was spent on each of them.
        estimate: what the call uses at most.

    Returns:
        The reservation, with what is then spent on each account; or why there is none.
    """
    units = estimate.most
    for claim, before in zip(claims, spent, strict=True):
        room = estimate.units_within(claim, before)
        if room < estimate.least:
            return Refused(claim.account, before)
        units = min(units, room)
    nanos = estimate.nanos_for(units) if estimate.priced else 0
    accounts = tuple(claim.account for claim in claims)
    made = Open(accounts, units, estimate.tokens_for(units), nanos, estimate.priced)
    unpriced = int(not estimate.priced)
    return made, {
        account: _moved(before, made.tokens, nanos, made.tokens, nanos, unpriced)
        for account, before in zip(accounts, spent, strict=True)
    }


def settled(
    open_: Open, spent: Sequence[Spending], tokens: int | None, nanos: int | None, *, estimated: bool
) -> dict[str, Spending]:
    """Say what is spent on the accounts of a reservation once it is settled; see `Ledger.settle`."""
    if tokens is None:
        tokens, estimated = open_.tokens, True
        nanos = open_.nanos if open_.priced else None
    unpriced = int(nanos is None) - int(not open_.priced)
    tokens, nanos = min(tokens, MOST), min(nanos or 0, MOST)
    more_tokens, more_nanos = tokens - open_.tokens, nanos - open_.nanos
    certain_tokens, certain_nanos = (more_tokens, more_nanos) if estimated else (-open_.tokens, -open_.nanos)
    return {
        account: _moved(before, more_tokens, more_nanos, certain_tokens, certain_nanos, unpriced)
        for account, before in zip(open_.accounts, spent, strict=True)
    }


def _moved(  # noqa: PLR0917  # one number for each field, in their order
    before: Spending, tokens: int, nanos: int, estimated_tokens: int, estimated_nanos: int, unpriced: int
) -> Spending:
    return Spending(
        nanos=before.nanos + nanos,
        tokens=before.tokens + tokens,
        estimated_nanos=before.estimated_nanos + estimated_nanos,
        estimated_tokens=before.estimated_tokens + estimated_tokens,
        unpriced=before.unpriced + unpriced,
    )


class Accounts:
    """Accounts in memory, with the behaviour of `Ledger`; no method waits."""

    __slots__ = ("_open", "_spent")

    def __init__(self) -> None:
        self._spent: dict[str, Spending] = {}
        self._open: dict[str, Open] = {}

    def reserve(self, operation: str, claims: Sequence[Claim], estimate: Estimate) -> Reserved | Refused:
        """As `Ledger.reserve`."""
        there = self._open.get(operation)
        if there is not None:
            return Reserved(there.units)
        decided = decide(claims, self.spending([claim.account for claim in claims]), estimate)
        if isinstance(decided, Refused):
            return decided
        made, after = decided
        self._open[operation] = made
        self._spent |= after
        return Reserved(made.units)

    def settle(self, operation: str, tokens: int | None, nanos: int | None, *, estimated: bool) -> dict[str, Spending]:
        """As `Ledger.settle`."""
        there = self._open.pop(operation, None)
        if there is None:
            return {}
        after = settled(there, self.spending(there.accounts), tokens, nanos, estimated=estimated)
        self._spent |= after
        return after

    def spending(self, accounts: Sequence[str]) -> list[Spending]:
        """As `Ledger.spending`."""
        return [self._spent.get(account, NOTHING) for account in accounts]
