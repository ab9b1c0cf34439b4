"""A store in a database: what is asked of its tables, one function for each transaction.

Knows SQL, but neither connections nor threads: those belong to the kind of database. SQLite files are the one kind
there is now.
"""

from __future__ import annotations

import os
import weakref
from asyncio import CancelledError
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, ClassVar, Final, TypedDict, TypeVar
from zlib import crc32

from msgspec.structs import replace
from sqlalchemy import and_, bindparam, delete, func, insert, select, update

from plait.entries import decode, encode
from plait.errors import ConfigurationError, CorruptRecord
from plait.ids import new_id
from plait.store import accounts as books
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
from plait.store.migrations.tables import entries, leases, threads
from plait.store.sqlite.transactions import SqliteFile

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection

    from plait.entries import Entry
    from plait.store.ledger import Claim, Estimate, Refused, Reserved, Spending

T = TypeVar("T")

_PREFIX: Final = "sqlite:///"
_PART: Final = 500


class DatabaseStore:
    """Threads in a database, for any number of event loops, threads and processes at once.

    Nothing is opened before the first call. The store has threads of its own; `close` ends them, and so does the end
    of the process, after what was handed in is written. A forked child opens the database anew.

    Args:
        url: ``sqlite:///file.db`` (relative to the working folder of this moment) or ``sqlite:////absolute/file.db``.
        busy_seconds: how long to wait for a lock that another process holds, before StoreUnavailable.

    Raises:
        ConfigurationError: the URL names no kind of database that there is.
    """

    __slots__ = ("__weakref__", "_busy_seconds", "_cancelled", "_files", "_path", "_settled", "closed", "url")

    shared: ClassVar[bool] = True

    def __init__(self, url: str, *, busy_seconds: float = 5.0) -> None:
        self._path = _path(url)
        self._busy_seconds = busy_seconds
        self.url = _PREFIX + self._path
        self.closed = False
        self._files: dict[int, SqliteFile] = {}  # by process: see `_file`
        self._cancelled = 0  # writes whose caller did not wait for the outcome
        self._settled = 0  # how many of them are known to have had one

    def __repr__(self) -> str:
        return f"DatabaseStore({self.url!r})"

    async def thread(self, name: str, user_id: str = "default") -> ThreadInfo:
        """As `Store.thread`."""
        found = await self.find(name, user_id)
        if found is None:
            found = await self._write(lambda connection: _made(connection, name, user_id))
        return found

    async def find(self, name: str, user_id: str = "default") -> ThreadInfo | None:
        """As `Store.find`."""
        check_name(name)
        check_name(user_id, "user id")
        return await self._read(lambda connection: _named(connection, name, user_id))

    async def new_thread(self, user_id: str = "default") -> ThreadInfo:
        """As `Store.new_thread`."""
        info = ThreadInfo(thread_id=new_id("thr"), user_id=check_name(user_id, "user id"))
        await self._write(lambda connection: _add_thread(connection, info))
        return info

    async def read(self, thread_id: str, after: int = 0) -> list[Entry]:
        """As `Store.read`."""
        check_name(thread_id, "thread id")
        return await self._read(lambda connection: _entries(connection, thread_id, after))

    async def append(self, thread_id: str, entries: Sequence[Entry], *, lease: Lease | None = None) -> None:
        """As `Store.append`."""
        check_name(thread_id, "thread id")
        if entries:
            check_numbers(entries)
        rows = [_row(thread_id, item) for item in entries]
        await self._write(lambda connection: _append(connection, thread_id, rows, lease))

    async def acquire(self, thread_id: str, run_id: str, owner: str, seconds: float) -> Lease | None:
        """As `Store.acquire`."""
        check_name(thread_id, "thread id")
        return await self._write(lambda connection: _acquire(connection, thread_id, run_id, owner, seconds))

    async def renew(self, leases: Sequence[Lease], seconds: float) -> list[Lease]:
        """As `Store.renew`."""
        return await self._write(lambda connection: _renew(connection, leases, seconds))

    async def release(self, lease: Lease) -> None:
        """As `Store.release`."""
        await self._write(lambda connection: _release(connection, lease))

    async def holder(self, thread_id: str) -> Lease | None:
        """As `Store.holder`."""
        check_name(thread_id, "thread id")
        return await self._read(lambda connection: _holder(connection, thread_id))

    async def reserve(self, operation: str, claims: Sequence[Claim], estimate: Estimate) -> Reserved | Refused:
        """As `Ledger.reserve`."""
        return await self._write(lambda connection: books.reserve(connection, operation, claims, estimate))

    async def settle(
        self, operation: str, tokens: int | None, nanos: int | None, *, estimated: bool = False
    ) -> dict[str, Spending]:
        """As `Ledger.settle`."""
        return await self._write(
            lambda connection: books.settle(connection, operation, tokens, nanos, estimated=estimated)
        )

    async def spending(self, accounts: Sequence[str]) -> list[Spending]:
        """As `Ledger.spending`."""
        return await self._read(lambda connection: books.spending(connection, accounts))

    async def close(self) -> None:
        """As `Store.close`."""
        self.closed = True
        file = self._files.get(os.getpid())
        if file is not None:
            await file.close()

    async def _write(self, work: Callable[[Connection], T]) -> T:
        try:
            return await self._file().write(work)
        except CancelledError:
            self._cancelled += 1
            raise

    async def _read(self, work: Callable[[Connection], T]) -> T:
        cancelled = self._cancelled
        if cancelled != self._settled:
            # The writer may be at work on one of them: wait until it is not, so that what is read does not change.
            await self._file().write(None)
            self._settled = max(self._settled, cancelled)
        return await self._file().read(work)

    def _file(self) -> SqliteFile:
        """Give the file as this process has it open: neither threads nor connections survive a fork."""
        if self.closed:
            raise store_closed()
        pid = os.getpid()
        file = self._files.get(pid)
        if file is None:
            made = SqliteFile(self._path, self._busy_seconds)
            file = self._files.setdefault(pid, made)
            if file is made:
                weakref.finalize(self, made.stop).atexit = False
        return file


def _path(url: str) -> str:
    """Give the absolute path that a URL names."""
    scheme = url.partition(":")[0]
    path = url.removeprefix(_PREFIX)
    if not url.startswith("sqlite:"):
        msg = f"there is no database store for {scheme!r} URLs yet; use 'sqlite:///file.db'"
    elif path == url or path in ("", ":memory:"):
        msg = f"the URL {url!r} names no file; use 'sqlite:///file.db', or MemoryStore() for this process only"
    elif any(character < " " for character in path):
        msg = f"the path in {url!r} holds a control character; leave it out"
    else:
        return str(Path(path).absolute())
    raise ConfigurationError(msg)


# --- transactions: statements are made once, for SQLAlchemy to find them compiled -------------------------------------

_THREAD_NAMED: Final = select(threads.c.thread_id).where(
    threads.c.user_id == bindparam("user_id"), threads.c.name == bindparam("name")
)
_THREAD: Final = select(threads.c.thread_id).where(threads.c.thread_id == bindparam("thread_id"))
_ADD_THREAD: Final = insert(threads)
_ADD_ENTRIES: Final = insert(entries)
_LAST: Final = select(func.max(entries.c.n)).where(entries.c.thread_id == bindparam("thread_id"))
_AFTER: Final = (
    select(entries.c.n, entries.c.id, entries.c.line, entries.c.crc)
    .where(entries.c.thread_id == bindparam("thread_id"), entries.c.n > bindparam("after"))
    .order_by(entries.c.n)
)
_IDS: Final = (
    select(entries.c.id)
    .where(entries.c.thread_id == bindparam("thread_id"), entries.c.n.between(bindparam("first"), bindparam("last")))
    .order_by(entries.c.n)
)
_LEASE: Final = select(leases.c.run_id, leases.c.owner, leases.c.expires_at).where(
    leases.c.thread_id == bindparam("thread_id")
)
_OWN: Final = and_(
    leases.c.thread_id == bindparam("of_thread"),
    leases.c.run_id == bindparam("of_run"),
    leases.c.owner == bindparam("of_owner"),
)
_ADD_LEASE: Final = insert(leases)
_TAKE_LEASE: Final = (
    update(leases)
    .where(leases.c.thread_id == bindparam("of_thread"))
    .values(run_id=bindparam("run_id"), owner=bindparam("owner"), expires_at=bindparam("expires_at"))
)
_RENEW: Final = update(leases).where(_OWN).values(expires_at=bindparam("expires_at"))
_RELEASE: Final = delete(leases).where(_OWN)


def _named(connection: Connection, name: str, user_id: str) -> ThreadInfo | None:
    thread_id = connection.scalar(_THREAD_NAMED, {"name": name, "user_id": user_id})
    return ThreadInfo(thread_id=thread_id, name=name, user_id=user_id) if thread_id else None


def _made(connection: Connection, name: str, user_id: str) -> ThreadInfo:
    found = _named(connection, name, user_id)  # another may have made it since
    if found is None:
        found = ThreadInfo(thread_id=new_id("thr"), name=name, user_id=user_id)
        _add_thread(connection, found)
    return found


def _add_thread(connection: Connection, info: ThreadInfo) -> None:
    row = {"thread_id": info.thread_id, "user_id": info.user_id, "name": info.name, "created_at": time()}
    connection.execute(_ADD_THREAD, row)


class _Row(TypedDict):
    """An entry as the table has it."""

    thread_id: str
    n: int
    id: str
    run_id: str | None
    kind: str
    at: float
    line: str
    crc: int


def _row(thread_id: str, item: Entry) -> _Row:
    line = encode(item)
    return {
        "thread_id": thread_id,
        "n": item.n,
        "id": item.id,
        "run_id": item.run_id,
        "kind": item.kind,
        "at": item.at,
        "line": line.decode(),
        "crc": crc32(line),
    }


def _append(connection: Connection, thread_id: str, rows: list[_Row], lease: Lease | None) -> None:
    if lease is not None:
        held = connection.execute(_LEASE, {"thread_id": thread_id}).first()
        if lease.thread_id != thread_id or held is None or (held.run_id, held.owner) != (lease.run_id, lease.owner):
            raise lease_conflict(lease, held.run_id if held else None)
    if not rows:
        return
    last = connection.scalar(_LAST, {"thread_id": thread_id}) or 0
    first, final = rows[0]["n"], rows[-1]["n"]
    if first != last + 1:
        bounds = {"thread_id": thread_id, "first": first, "last": final}
        if connection.scalars(_IDS, bounds).all() != [row["id"] for row in rows]:
            raise number_conflict(thread_id, first, last + 1)
        return  # they are there already
    if last == 0 and connection.scalar(_THREAD, {"thread_id": thread_id}) is None:
        _add_thread(connection, ThreadInfo(thread_id=thread_id))
    connection.execute(_ADD_ENTRIES, rows)


def _entries(connection: Connection, thread_id: str, after: int) -> list[Entry]:
    rows = connection.execute(_AFTER, {"thread_id": thread_id, "after": after})
    # In parts, for to make rows of a long thread at once would hold up the event loop.
    return [_entry(thread_id, n, id_, line, crc) for part in rows.partitions(_PART) for n, id_, line, crc in part]


def _entry(thread_id: str, n: int, id_: object, line: object, crc: int) -> Entry:
    """Read one row; what is not as it was written is refused, also where it is still good JSON."""
    why = "its text is not as it was written"
    try:
        if isinstance(line, str) and crc32(line.encode()) == crc:
            item = decode(line)
            if item.n == n:
                return item
            why = f"it says it is number {item.n}"
    except CorruptRecord as error:
        why = str(error)
    msg = f"entry {n} of thread {thread_id!r} (id {id_!r}) cannot be read: {why}; entries after it can, with after={n}"
    raise CorruptRecord(msg, record=str(id_))


def _valid(connection: Connection, thread_id: str) -> tuple[Lease | None, bool]:
    """Give the unexpired lease of a living owner, and whether there is a row at all."""
    row = connection.execute(_LEASE, {"thread_id": thread_id}).first()
    if row is None:
        return None, False
    if row.expires_at <= time() or owner_is_dead(row.owner):
        return None, True
    return Lease(thread_id=thread_id, run_id=row.run_id, owner=row.owner, expires_at=row.expires_at), True


def _holder(connection: Connection, thread_id: str) -> Lease | None:
    return _valid(connection, thread_id)[0]


def _acquire(connection: Connection, thread_id: str, run_id: str, owner: str, seconds: float) -> Lease | None:
    held, is_row = _valid(connection, thread_id)
    if held is not None and held.owner != owner:
        return None
    lease = Lease(thread_id=thread_id, run_id=run_id, owner=owner, expires_at=time() + seconds)
    row = {"run_id": run_id, "owner": owner, "expires_at": lease.expires_at}
    if is_row:
        connection.execute(_TAKE_LEASE, {"of_thread": thread_id, **row})
    else:
        connection.execute(_ADD_LEASE, {"thread_id": thread_id, **row})
    return lease


def _own(lease: Lease) -> dict[str, object]:
    return {"of_thread": lease.thread_id, "of_run": lease.run_id, "of_owner": lease.owner}


def _renew(connection: Connection, leases: Sequence[Lease], seconds: float) -> list[Lease]:
    until = time() + seconds
    # One statement each: a count of rows for all together would not say whose lease is lost.
    held = [lease for lease in leases if connection.execute(_RENEW, {**_own(lease), "expires_at": until}).rowcount]
    return [replace(lease, expires_at=until) for lease in held]


def _release(connection: Connection, lease: Lease) -> None:
    connection.execute(_RELEASE, _own(lease))
