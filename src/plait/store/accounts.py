"""Accounts in a database: the statements of `plait.store.ledger`, one function for each transaction.

Every function gets a connection inside a transaction that nobody else writes beside, so that what it reads still holds
when it writes.
"""

from __future__ import annotations

from time import time
from typing import TYPE_CHECKING, Final

from msgspec.structs import asdict
from sqlalchemy import bindparam, delete, insert, select, update

from plait.errors import CorruptRecord
from plait.store.ledger import NOTHING, Open, Refused, Reserved, Spending, decide, settled
from plait.store.migrations.tables import accounts, reservations

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection

    from plait.store.ledger import Claim, Estimate

_FIELDS: Final = Spending.__struct_fields__
_SPENT: Final = select(accounts.c.account, *(accounts.c[name] for name in _FIELDS)).where(
    accounts.c.account.in_(bindparam("accounts", expanding=True))
)
_ADD: Final = insert(accounts)
_SET: Final = (
    update(accounts)
    .where(accounts.c.account == bindparam("of_account"))
    .values({name: bindparam(name) for name in _FIELDS})
)
_GRANTED: Final = select(reservations.c.units).where(reservations.c.operation == bindparam("operation")).limit(1)
_OPEN: Final = (
    select(
        *(reservations.c[name] for name in ("account", "units", "tokens", "nanos", "priced")),
        *(accounts.c[name] for name in _FIELDS),
    )
    .join(accounts, accounts.c.account == reservations.c.account)
    .where(reservations.c.operation == bindparam("operation"))
)
_ADD_OPEN: Final = insert(reservations)
_CLOSE: Final = delete(reservations).where(reservations.c.operation == bindparam("of_operation"))


def reserve(connection: Connection, operation: str, claims: Sequence[Claim], estimate: Estimate) -> Reserved | Refused:
    """As `Ledger.reserve`."""
    there = connection.scalar(_GRANTED, {"operation": operation})
    if there is not None:
        _check(operation, [there])
        return Reserved(there)
    names = [claim.account for claim in claims]
    known = _known(connection, names)
    decided = decide(claims, [known.get(name, NOTHING) for name in names], estimate)
    if isinstance(decided, Refused):
        return decided
    made, after = decided
    kept = {"units": made.units, "tokens": made.tokens, "nanos": made.nanos, "priced": made.priced, "at": time()}
    if names:
        connection.execute(_ADD_OPEN, [{"operation": operation, "account": name, **kept} for name in names])
    _write(connection, known, after)
    return Reserved(made.units)


def settle(
    connection: Connection, operation: str, tokens: int | None, nanos: int | None, *, estimated: bool
) -> dict[str, Spending]:
    """As `Ledger.settle`."""
    rows = connection.execute(_OPEN, {"operation": operation}).all()
    if not rows:
        return {}
    _, units, reserved_tokens, reserved_nanos, priced, *_ = rows[0]
    _check(operation, (units, reserved_tokens, reserved_nanos))
    known = {name: _spending(name, spent) for name, _, _, _, _, *spent in rows}
    there = Open(tuple(known), units, reserved_tokens, reserved_nanos, priced)
    after = settled(there, list(known.values()), tokens, nanos, estimated=estimated)
    connection.execute(_CLOSE, {"of_operation": operation})
    _write(connection, known, after)
    return after


def spending(connection: Connection, names: Sequence[str]) -> list[Spending]:
    """As `Ledger.spending`."""
    known = _known(connection, names)
    return [known.get(name, NOTHING) for name in names]


def _known(connection: Connection, names: Sequence[str]) -> dict[str, Spending]:
    """Give what was spent on those of the accounts that are there."""
    return {name: _spending(name, spent) for name, *spent in connection.execute(_SPENT, {"accounts": list(names)})}


def _spending(account: str, numbers: Sequence[int]) -> Spending:
    _check(account, numbers)
    return Spending(**dict(zip(_FIELDS, numbers, strict=True)))


def _check(record: str, numbers: Sequence[object]) -> None:
    """See that a damaged row is not taken for an account."""
    if any(type(number) is not int for number in numbers):
        msg = f"what was spent on {record!r} cannot be read: the row is not as it was written"
        raise CorruptRecord(msg, record=record)


def _write(connection: Connection, known: Mapping[str, Spending], after: Mapping[str, Spending]) -> None:
    changed = [{"of_account": name, **asdict(now)} for name, now in after.items() if name in known]
    if changed:
        connection.execute(_SET, changed)
    new = [{"account": name, **asdict(now)} for name, now in after.items() if name not in known]
    if new:
        connection.execute(_ADD, new)
