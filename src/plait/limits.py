"""Budgets: how much money or how many tokens a run, a chat or a user may use.

Owns what a budget is and in which account of a store (`plait.store.ledger`) it is kept. Does not know how it is kept
to: `plait.purse` does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeAlias, get_args

from plait.errors import ConfigurationError, LimitExceeded, excerpt
from plait.prices import Usd, usd
from plait.store.base import check_name
from plait.store.catalog import open_store
from plait.store.ledger import MOST, NANOS, NOTHING, Claim, Spending

if TYPE_CHECKING:
    from plait.store.base import Store

Per = Literal["run", "chat", "user"]
"""What a budget is for; a chat is a thread."""

_MAX_USD: Final = MOST // NANOS
_CONTROL: Final = {
    "max_budget_for_this_chat": "max_cost",
    "stop_on_budget_exceeded": "stop",
    "reserved_budget": "reserved",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How much may be used.

    Attributes:
        max_cost: US dollars, or None.
        max_tokens: input and output together, or None.
        per: for each run, for each chat (thread), or for each user. Without it: for each chat, and with a key for all
            that runs under that.
        reserved: US dollars on top, for auxiliary requests only (summaries, judges, extraction).
        reserved_tokens: tokens on top, likewise.
        stop: False lets runs go on when the budget is exceeded; the hook is told.
        key: a name; what runs under it, of whatever agent, uses the same budget: all of it, or with ``per`` each
            user's, chat's or run's part by itself.

    Raises:
        ConfigurationError: there is no limit, or one that cannot be.
    """

    max_cost: Usd | None = None
    max_tokens: int | None = None
    per: Per | None = None
    reserved: Usd = 0
    reserved_tokens: int = 0
    stop: bool = True
    key: str | None = None

    def __post_init__(self) -> None:
        if self.max_cost is None and self.max_tokens is None:
            msg = "a Budget needs a limit: give max_cost (US dollars), max_tokens, or both"
            raise ConfigurationError(msg)
        if self.max_cost is not None:
            object.__setattr__(self, "max_cost", _money(self.max_cost, "max_cost"))
        object.__setattr__(self, "reserved", _money(self.reserved, "reserved"))
        if self.max_tokens is not None:
            _check_tokens(self.max_tokens, "max_tokens")
        _check_tokens(self.reserved_tokens, "reserved_tokens")
        for limit, extra in (("max_cost", "reserved"), ("max_tokens", "reserved_tokens")):
            if getattr(self, limit) is None and getattr(self, extra):
                msg = f"a Budget with {extra}={getattr(self, extra)} needs {limit}: it is on top of that"
                raise ConfigurationError(msg)
        if self.per is None and self.key is None:
            object.__setattr__(self, "per", "chat")
        if self.per is not None and self.per not in get_args(Per):
            msg = f"per of a Budget must be 'run', 'chat' or 'user', not {excerpt(repr(self.per), 40)}"
            raise ConfigurationError(msg)
        if not isinstance(self.stop, bool):
            msg = f"stop of a Budget must be True or False, not {excerpt(repr(self.stop), 40)}"
            raise ConfigurationError(msg)
        if self.key is not None:
            check_name(self.key, "key of a Budget")

    @property
    def max_nanos(self) -> int | None:
        """``max_cost`` in nano-dollars."""
        return None if self.max_cost is None else int(Decimal(self.max_cost) * NANOS)

    def account(self, *, user_id: str, thread_id: str, run_id: str) -> str:
        """Name the account that this is kept in. Budgets for the same have the same one, whatever they allow."""
        if self.per is None:
            return f"key {self.key}"
        whose = {"user": user_id, "chat": thread_id, "run": run_id}[self.per]
        if self.key is None:
            return f"{self.per} {whose}"
        return f"{self.per}-key {len(self.key)} {self.key} {whose}"  # both may hold any characters, spaces too

    def claim(self, account: str, *, auxiliary: bool) -> Claim:
        """Give how far the account may go because of this: without end, where it stops no run."""
        if not self.stop:
            return Claim(account=account)
        nanos, tokens = self.max_nanos, self.max_tokens
        if auxiliary:
            nanos = None if nanos is None else nanos + int(Decimal(self.reserved) * NANOS)
            tokens = None if tokens is None else tokens + self.reserved_tokens
        return Claim(account=account, nanos=nanos, tokens=tokens)

    @classmethod
    def from_control(cls, control: Mapping[str, Any]) -> Self:
        """Make a budget of ``budget_control``, as `AsyncOpenAISimpleAgent` takes it.

        Args:
            control: ``max_budget_for_this_chat`` (US dollars), and perhaps ``stop_on_budget_exceeded`` (True) and
                ``reserved_budget`` (US dollars, 0).

        Raises:
            ConfigurationError: something else is in it, or a value cannot be.
        """
        if not isinstance(control, Mapping):
            msg = f"budget_control must be a dict, not {type(control).__name__}"
            raise ConfigurationError(msg)
        if unknown := [name for name in control if name not in _CONTROL]:
            msg = f"budget_control has no {excerpt(repr(unknown[0]), 60)}; it takes {', '.join(map(repr, _CONTROL))}"
            if all(name in cls.__dataclass_fields__ for name in control):
                fields = excerpt(", ".join(f"{name}={value!r}" for name, value in control.items()), 80)
                msg = f"budget_control has no {unknown[0]!r}, but a Budget has: use Budget({fields})"
            raise ConfigurationError(msg)
        if control.get("max_budget_for_this_chat") is None:
            msg = "budget_control needs 'max_budget_for_this_chat', in US dollars"
            raise ConfigurationError(msg)
        return cls(**{_CONTROL[name]: value for name, value in control.items()})


def _money(value: Usd, name: str) -> Decimal:
    amount = usd(value, f"{name} of a Budget")
    if amount > _MAX_USD or amount * NANOS % 1:
        msg = f"{name} of a Budget must be at most {_MAX_USD:,} US dollars, in whole nano-dollars, not {amount}"
        raise ConfigurationError(msg)
    return amount


def _check_tokens(value: object, name: str) -> None:
    if type(value) is not int or not 0 <= value <= MOST:
        shown = excerpt(str(value), 40) if isinstance(value, int | float) else type(value).__name__
        msg = f"{name} of a Budget must be a whole number of tokens from 0 to {MOST:,}, not {shown}"
        raise ConfigurationError(msg)


BudgetLike: TypeAlias = Budget | Sequence[Budget] | Mapping[str, Any]
"""Budgets, as people give them: one, several, or what ``budget_control`` is; see `Budget.from_control`."""


def budgets_of(given: BudgetLike | None) -> tuple[Budget, ...]:
    """Give the budgets that somebody asked for: one, several, those of a ``budget_control``, or none.

    Raises:
        ConfigurationError: it is something else.
    """
    if given is None:
        return ()
    if isinstance(given, Budget):
        return (given,)
    if isinstance(given, Mapping):
        return (Budget.from_control(given),)
    if isinstance(given, list | tuple) and all(isinstance(one, Budget) for one in given):
        return tuple(given)
    msg = f"budget takes a Budget, or several in a list, not {excerpt(repr(given), 60)}"
    raise ConfigurationError(msg)


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

    @property
    def used(self) -> Decimal | int:
        """What was spent or is reserved, in the unit of the limit."""
        return Decimal(self.spent.nanos) / NANOS if self.unit == "USD" else self.spent.tokens

    def __str__(self) -> str:
        spent = self.used
        key, per = self.budget.key, self.budget.per
        whose = ("" if key is None else f" of {key!r}") + ("" if per is None else f" for this {per}")
        said = f"the budget of {number(self.limit)} {self.unit}{whose} is "
        if not self.needed:
            return f"{said}exceeded: {number(spent)} were spent"
        return f"{said}used up: {number(spent)} were spent, and the next request needs at least {number(self.needed)}"


class NoRoom(LimitExceeded):
    """A budget has no room for a request that would help a run, such as a judge's."""


def number(value: Decimal | int) -> str:
    """Write a number down plainly, with at least the cents of an amount of money."""
    if isinstance(value, int):
        return f"{value:,}"
    whole, _, rest = f"{value:,f}".partition(".")
    return f"{whole}.{rest.rstrip('0'):0<2}"


async def spent(
    store: Store | str | None,
    budget: Budget,
    *,
    user_id: str = "default",
    thread: str | None = None,
    thread_id: str | None = None,
    run_id: str | None = None,
) -> Spending:
    """Give what was spent of a budget.

    Args:
        store: where it is kept: the agent's store, or its URL; None as for `open_store`.
        budget: which one; what counts is whom it is for (``per``, ``key``), not how much it allows.
        user_id: of which user.
        thread: of which chat, by its name.
        thread_id: of which chat, by its id.
        run_id: of which run.

    Raises:
        ConfigurationError: the budget is for each chat or run, and none was named; or the URL names no store.
        StoreUnavailable: the store cannot be reached.
    """
    store = open_store(store) if store is None or isinstance(store, str) else store
    if budget.per == "chat" and thread_id is None:
        if thread is None:
            msg = "the budget is for each chat: say of which, with thread= (its name) or thread_id="
            raise ConfigurationError(msg)
        info = await store.find(thread, user_id)
        if info is None:
            return NOTHING
        thread_id = info.thread_id
    if budget.per == "run" and run_id is None:
        msg = "the budget is for each run: say of which, with run_id="
        raise ConfigurationError(msg)
    account = budget.account(user_id=user_id, thread_id=thread_id or "", run_id=run_id or "")
    (found,) = await store.spending([account])
    return found
