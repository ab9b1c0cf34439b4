"""What a store is: append-only logs of threads, and who runs on them.

Knows entries, not what they mean. Numbers, leases and stop flags are all that a store must keep consistent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from plait.log import Entry


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadInfo:
    """A thread as its store knows it; ``name`` is unique among the threads of one user."""

    thread_id: str
    name: str | None = None
    user_id: str = "default"


class Store(Protocol):
    """Where threads live. All methods may be called from any task of the event loop."""

    async def thread(self, name: str, user_id: str = "default") -> ThreadInfo:
        """Give the user's thread of this name; it is created where there is none.

        Raises:
            StoreUnavailable: the store cannot be reached, is busy, or is no store.
        """
        ...

    async def new_thread(self, user_id: str = "default") -> ThreadInfo:
        """Create a thread without a name."""
        ...

    async def read(self, thread_id: str, after: int = 0) -> list[Entry]:
        """Give the entries numbered above ``after``, in order.

        Raises:
            CorruptRecord: an entry cannot be read.
        """
        ...

    async def append(self, thread_id: str, entries: Sequence[Entry], *, lease: Lease | None = None) -> None:
        """Add entries, all or none; returns when they are durable.

        The entries carry their numbers: the first must be one above the last that is stored. With a ``lease``
        its owner must still hold the thread.

        Raises:
            StateConflict: another writer was first, or the lease is lost; nothing was written.
        """
        ...

    async def acquire(self, thread_id: str, run_id: str, owner: str, seconds: float) -> Lease | None:
        """Take the thread for a run, unless another owner holds an unexpired lease on it; None then."""
        ...

    async def renew(self, leases: Sequence[Lease], seconds: float) -> list[Lease]:
        """Extend leases; gives those that are still held, with their new times."""
        ...

    async def release(self, lease: Lease) -> None:
        """Give the thread back; nothing happens when the lease is lost already."""
        ...

    async def holder(self, thread_id: str) -> Lease | None:
        """Give the unexpired lease on a thread, or None."""
        ...

    async def close(self) -> None:
        """Release files, connections and threads. Appends under way are finished first."""
        ...
