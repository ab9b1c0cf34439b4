"""What a store is: append-only logs of threads, who runs on them, and what was spent.

Knows entries, not what they mean. Numbers, leases, stop flags and accounts are all that a store must keep consistent.
"""

from __future__ import annotations

import os
import re
from functools import lru_cache
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from plait.errors import ConfigurationError, StateConflict, StoreUnavailable, excerpt
from plait.store.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from plait.entries import Entry

NAME_LENGTH: Final = 200
_NOT_IN_NAMES: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """Who may continue a thread just now: at most one run at a time, from any process.

    Attributes:
        thread_id: the thread.
        run_id: the run that holds it.
        owner: the process and run that holds it (see `plait.store.base.owner_name`).
        expires_at: seconds since the epoch, by the store's clock.
    """

    thread_id: str
    run_id: str
    owner: str
    expires_at: float


class ThreadInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A thread as its store knows it; ``name`` is unique among the threads of one user."""

    thread_id: str
    name: str | None = None
    user_id: str = "default"


class Store(Ledger, Protocol):
    """Where threads live, and accounts (`Ledger`). All methods may be called from any task of the event loop."""

    @property
    def shared(self) -> bool:
        """Whether other processes may write to its threads, so that a run needs a lease."""
        ...

    @property
    def closed(self) -> bool:
        """Whether `close` was called; every other method raises StoreUnavailable then."""
        ...

    async def thread(self, name: str, user_id: str = "default") -> ThreadInfo:
        """Give the user's thread of this name; it is created where there is none.

        Raises:
            ConfigurationError: the name or the user id is none (see `check_name`).
            StoreUnavailable: the store cannot be reached, is busy, or is no store.
        """
        ...

    async def find(self, name: str, user_id: str = "default") -> ThreadInfo | None:
        """Give the user's thread of this name, or None where there is none; nothing is created.

        Raises:
            ConfigurationError: the name or the user id is none (see `check_name`).
        """
        ...

    async def new_thread(self, user_id: str = "default") -> ThreadInfo:
        """Create a thread without a name."""
        ...

    async def read(self, thread_id: str, after: int = 0) -> list[Entry]:
        """Give the entries numbered above ``after``, in order; none for a thread that is not known.

        Raises:
            CorruptRecord: an entry cannot be read; those after it can, with a higher ``after``.
        """
        ...

    async def append(self, thread_id: str, entries: Sequence[Entry], *, lease: Lease | None = None) -> None:
        """Add entries, all or none; returns when they are durable.

        The entries carry their numbers: the first must be one above the last that is stored. With a ``lease``
        the thread must still be held by that run and owner; a lease that has run out holds until another takes it.
        Entries that are stored already, at these numbers and with these ids, are not written again and are no
        conflict, so an append whose outcome was not learnt may be repeated. A thread that was not made before
        begins with its first entry, as a thread of the user ``"default"`` without a name.

        An append that is cancelled may have been carried out or not. What is read afterwards shows which: nothing
        becomes visible later.

        Raises:
            ConfigurationError: the entries are not numbered one after the other.
            StateConflict: another writer was first, or the lease is lost; nothing was written.
        """
        ...

    async def acquire(self, thread_id: str, run_id: str, owner: str, seconds: float) -> Lease | None:
        """Take the thread for a run, unless another owner holds an unexpired lease on it; None then.

        The lease of an owner that is known to be dead (`owner_is_dead`) counts as expired.
        """
        ...

    async def renew(self, leases: Sequence[Lease], seconds: float) -> list[Lease]:
        """Extend leases; gives those that nobody else has taken, with their new times."""
        ...

    async def release(self, lease: Lease) -> None:
        """Give the thread back; nothing happens when the lease is lost already."""
        ...

    async def holder(self, thread_id: str) -> Lease | None:
        """Give the unexpired lease on a thread, or None; that of a dead owner counts as expired."""
        ...

    async def close(self) -> None:
        """Release files, connections and threads. Appends under way are finished first."""
        ...


def check_name(value: object, what: str = "thread name") -> str:
    """Give back a name or id if it is one: 1 to 200 characters, none a control character or half a surrogate pair.

    Every other text is data and is kept exactly as it is: two names are the same only if all characters are.

    Args:
        value: the name, or the id of a user or thread.
        what: what it is, for the message.

    Raises:
        ConfigurationError: it is none.
    """
    if not isinstance(value, str):
        wrong = f"is no text, but of type {type(value).__name__}"
    elif not value:
        wrong = "is empty"
    elif len(value) > NAME_LENGTH:
        wrong = f"has {len(value)} characters"
    elif _NOT_IN_NAMES.search(value):
        wrong = "holds a control character or half a surrogate pair"
    else:
        return value
    msg = f"the {what} {excerpt(repr(value), 60)} {wrong}; use 1 to {NAME_LENGTH} printable characters"
    raise ConfigurationError(msg)


def check_numbers(entries: Sequence[Entry]) -> None:
    """Make sure that entries are numbered one after the other.

    Raises:
        ConfigurationError: they are not.
    """
    first = entries[0].n
    if first < 1 or any(item.n != n for n, item in enumerate(entries, first)):
        msg = f"the entries to append are numbered {[item.n for item in entries][:10]}; number them one after the other"
        raise ConfigurationError(msg)


def number_conflict(thread_id: str, expected: int, found: int) -> StateConflict:
    """Make the error for an append that is numbered ``expected`` to a log whose next number is ``found``."""
    msg = (
        f"entry {expected} cannot be appended to thread {thread_id!r}: its next entry is number {found}; another "
        "writer was first, so read the thread anew"
    )
    return StateConflict(msg, expected=expected, found=found)


def lease_conflict(lease: Lease, holder: str | None) -> StateConflict:
    """Make the error for an append whose lease is lost, to ``holder`` (a run's id) or to nobody."""
    now = f"run {holder!r} holds it now" if holder else "it was given back"
    msg = f"run {lease.run_id!r} no longer holds thread {lease.thread_id!r}: {now}; nothing was written"
    return StateConflict(msg)


def store_closed() -> StoreUnavailable:
    """Make the error for the use of a store after its end."""
    error = StoreUnavailable("the store is closed; open it again with open_store(url)")
    error.retryable = False
    return error


def owner_name() -> str:
    """Name this process and a run in it: ``host/pid/random``, and what proves that the process is dead once it is.

    The proof is the machine's boot id, the pid namespace and the start time of the process (in clock ticks since the
    boot), which Linux tells (https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html, field 22); elsewhere there
    is none. Each call gives another name.
    """
    host, proof = _process(os.getpid())
    return f"{host}/{os.getpid()}/{token_hex(8)}{proof}"


def owner_is_dead(owner: str) -> bool:
    """Whether the process that an owner's name speaks of is known to have ended: it ran on this machine, and is gone.

    False whenever that cannot be proven: for a process of another machine or container, and where there is no /proc.
    """
    try:
        _, pid, _, boot, namespace, started = owner.rsplit("/", 5)
        _, proof = _process(os.getpid())
        if proof.split("/")[1:3] != [boot, namespace]:
            return False
        os.kill(int(pid), 0)
        return _started(int(pid)) != started
    except ProcessLookupError:
        return True
    except (ValueError, OSError, OverflowError):
        return False


@lru_cache(maxsize=1)
def _process(pid: int) -> tuple[str, str]:
    """The host's name, and the proof ``/boot id/pid namespace/start time`` or nothing."""
    host = os.uname().nodename
    try:
        if Path("/proc/self").readlink().name != str(pid):
            return host, ""  # this /proc speaks of another pid namespace
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        namespace = Path("/proc/self/ns/pid").stat().st_ino
        return host, f"/{boot}/{namespace}/{_started(pid)}"
    except (OSError, ValueError):
        return host, ""


def _started(pid: int) -> str:
    """When a process started, or ``"ended"`` for one whose parent has not yet taken note of its end."""
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    state, *fields = stat[stat.rindex(")") + 1 :].split()  # the name before it may hold anything
    if state in "ZX" and len(list(Path(f"/proc/{pid}/task").iterdir())) <= 1:
        return "ended"
    return fields[18]
