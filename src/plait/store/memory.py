"""A store that ends with its process: for runs without a named thread, and for tests.

Owns nothing but dictionaries. For use from one event loop at a time; no method waits, so each is one step.
"""

from __future__ import annotations

from time import time
from typing import TYPE_CHECKING, ClassVar

from msgspec.structs import replace

from plait.ids import new_id
from plait.store.base import (
    Lease,
    ThreadInfo,
    check_name,
    check_numbers,
    lease_conflict,
    number_conflict,
    owner_is_dead,
    store_closed,
)
from plait.store.ledger import Accounts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from plait.entries import Entry
    from plait.store.ledger import Claim, Estimate, Refused, Reserved, Spending


class MemoryStore:
    """Threads in memory, with the behaviour of the stores that last (see `plait.store.base.Store`)."""

    __slots__ = ("__weakref__", "_accounts", "_leases", "_logs", "_named", "closed")

    shared: ClassVar[bool] = False

    def __init__(self) -> None:
        self.closed = False
        self._logs: dict[str, list[Entry]] = {}
        # Many stores hold one thread without a name, of one run. The garbage collector looks at all there is of a run.
        self._named: dict[tuple[str, str], ThreadInfo] | None = None
        self._leases: dict[str, Lease] | None = None
        self._accounts: Accounts | None = None

    def __repr__(self) -> str:
        return f"MemoryStore({len(self._logs)} threads)"

    async def thread(self, name: str, user_id: str = "default") -> ThreadInfo:
        """As `Store.thread`."""
        found = await self.find(name, user_id)
        if found is None:
            found = ThreadInfo(thread_id=new_id("thr"), name=name, user_id=user_id)
            if self._named is None:
                self._named = {}
            self._named[user_id, name] = found
        return found

    async def find(self, name: str, user_id: str = "default") -> ThreadInfo | None:
        """As `Store.find`."""
        self._check_open()
        key = check_name(user_id, "user id"), check_name(name)
        return None if self._named is None else self._named.get(key)

    async def new_thread(self, user_id: str = "default") -> ThreadInfo:
        """As `Store.new_thread`."""
        self._check_open()
        return ThreadInfo(thread_id=new_id("thr"), user_id=check_name(user_id, "user id"))

    async def read(self, thread_id: str, after: int = 0) -> list[Entry]:
        """As `Store.read`."""
        if self.closed:
            raise store_closed()
        log = self._logs.get(thread_id)
        return log[max(after, 0) :] if log else []

    async def append(self, thread_id: str, entries: Sequence[Entry], *, lease: Lease | None = None) -> None:
        """As `Store.append`."""
        if self.closed:
            raise store_closed()
        if lease is not None:
            self._check_lease(thread_id, lease)
        if not entries:
            return
        log = self._logs.get(thread_id)
        if log is None:
            log = []
        n = len(log)
        for item in entries:
            n += 1
            if item.n != n:
                self._check_repeated(thread_id, log, entries)
                return
        log.extend(entries)
        self._logs[thread_id] = log

    async def acquire(self, thread_id: str, run_id: str, owner: str, seconds: float) -> Lease | None:
        """As `Store.acquire`."""
        held = await self.holder(thread_id)
        if held is not None and held.owner != owner:
            return None
        lease = Lease(thread_id=thread_id, run_id=run_id, owner=owner, expires_at=time() + seconds)
        self._keep(lease)
        return lease

    async def renew(self, leases: Sequence[Lease], seconds: float) -> list[Lease]:
        """As `Store.renew`."""
        self._check_open()
        held = [replace(lease, expires_at=time() + seconds) for lease in leases if self._holds(lease)]
        for lease in held:
            self._keep(lease)
        return held

    async def release(self, lease: Lease) -> None:
        """As `Store.release`."""
        self._check_open()
        if self._leases is not None and self._holds(lease):
            del self._leases[lease.thread_id]

    async def holder(self, thread_id: str) -> Lease | None:
        """As `Store.holder`."""
        self._check_open()
        held = self._held(thread_id)
        return held if held and held.expires_at > time() and not owner_is_dead(held.owner) else None

    async def reserve(self, operation: str, claims: Sequence[Claim], estimate: Estimate) -> Reserved | Refused:
        """As `Ledger.reserve`."""
        return self._ledger().reserve(operation, claims, estimate)

    async def settle(
        self, operation: str, tokens: int | None, nanos: int | None, *, estimated: bool = False
    ) -> dict[str, Spending]:
        """As `Ledger.settle`."""
        return self._ledger().settle(operation, tokens, nanos, estimated=estimated)

    async def spending(self, accounts: Sequence[str]) -> list[Spending]:
        """As `Ledger.spending`."""
        return self._ledger().spending(accounts)

    def forget(self, thread_id: str) -> None:
        """Drop a thread and its lease; a run on a thread that nobody can name leaves nothing behind."""
        self._logs.pop(thread_id, None)
        if self._leases is not None:
            self._leases.pop(thread_id, None)
        if self._named is not None:
            self._named = {key: info for key, info in self._named.items() if info.thread_id != thread_id}

    async def close(self) -> None:
        """Drop everything; every other method raises StoreUnavailable from here on."""
        self.closed = True
        self._logs, self._named, self._leases, self._accounts = {}, None, None, None

    def _check_open(self) -> None:
        if self.closed:
            raise store_closed()

    def _ledger(self) -> Accounts:
        self._check_open()
        if self._accounts is None:
            self._accounts = Accounts()
        return self._accounts

    def _keep(self, lease: Lease) -> None:
        if self._leases is None:
            self._leases = {}
        self._leases[lease.thread_id] = lease

    def _held(self, thread_id: str) -> Lease | None:
        return None if self._leases is None else self._leases.get(thread_id)

    def _holds(self, lease: Lease) -> bool:
        held = self._held(lease.thread_id)
        return held is not None and (held.owner, held.run_id) == (lease.owner, lease.run_id)

    def _check_lease(self, thread_id: str, lease: Lease) -> None:
        if lease.thread_id != thread_id or not self._holds(lease):
            held = self._held(thread_id)
            raise lease_conflict(lease, held.run_id if held else None)

    def _check_repeated(self, thread_id: str, log: list[Entry], entries: Sequence[Entry]) -> None:
        """Accept entries that are there already; anything else is a conflict."""
        check_numbers(entries)
        first = entries[0].n
        there = log[first - 1 : first - 1 + len(entries)]
        if [item.id for item in there] != [item.id for item in entries]:
            raise number_conflict(thread_id, first, len(log) + 1)
