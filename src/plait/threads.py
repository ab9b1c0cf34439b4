"""A thread as one process holds it: its tail, what is still to be written, its place in the queue, its lease.

Knows entries and stores; what the entries are for is the loop's business.
"""

from __future__ import annotations

import asyncio
import logging
import os
from contextvars import Context
from typing import TYPE_CHECKING, Final, Literal
from weakref import WeakKeyDictionary, WeakValueDictionary

from plait.entries import Body, entry
from plait.errors import PlaitError, StateConflict
from plait.log import Tail, entry_events
from plait.scopes import settle
from plait.store.base import Lease, Store, owner_name
from plait.store.memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from plait.context.trimming import Trimmer
    from plait.entries import Entry
    from plait.events import Event
    from plait.providers.encoding import Encoded

logger = logging.getLogger("plait.threads")

IfBusy = Literal["queue", "reject", "interrupt"]
"""What a second prompt does while a run is under way on its thread: wait for its turn, fail, or stop the run that is
under way and take its turn; prompts that were waiting before it keep theirs."""

LEASE_SECONDS: Final = 10.0
RENEW_SECONDS: Final = 3.0
_POLL_SECONDS: Final = 0.05


class Thread:
    """One thread, opened for runs of this process. `add` says what happened, `flush` makes it durable.

    Attributes:
        name: what its users call it; empty where it has no name.
        tail: the log's end, with what was added and is not written yet.
        observed: whether anyone wants the events of what is added; a run sets it for itself.
        trimmer: what has chosen from the thread so far, so that only what is new is looked at; the runs' own.
        last_sent: the request that was sent last, where somebody compares it with the next; likewise.
    """

    __slots__ = (
        "_desk",
        "_events",
        "_holding",
        "_lease",
        "_staged",
        "_unsure",
        "last_sent",
        "name",
        "observed",
        "store",
        "tail",
        "thread_id",
        "trimmer",
        "user_id",
    )

    def __init__(self, store: Store, thread_id: str, user_id: str, desk: _Desk | None, name: str = "") -> None:
        self.store = store
        self.thread_id = thread_id
        self.name = name
        self.user_id = user_id
        self.tail = Tail()
        self._desk = desk
        self._holding = False
        self._staged: list[Entry] | None = None  # added, and not written yet
        self._events: list[Event] | None = None  # what they stand for
        self._lease: Lease | None = None
        self._unsure = False
        self.observed = True
        self.trimmer: Trimmer | None = None
        self.last_sent: Encoded | None = None

    @classmethod
    def stored(cls, store: Store, thread_id: str, user_id: str, name: str = "") -> Thread:
        """Open a thread of a store; all that open it in this process queue at one desk."""
        return cls(store, thread_id, user_id, _desk(store, thread_id), name)

    @classmethod
    def in_memory(cls, thread_id: str, user_id: str) -> Thread:
        """Make a thread that ends with this object."""
        return cls(MemoryStore(), thread_id, user_id, _Desk())

    @classmethod
    def for_one_run(cls, thread_id: str, user_id: str, name: str = "") -> Thread:
        """Make a thread that only one run will ever see: it needs no queue."""
        return cls(MemoryStore(), thread_id, user_id, None, name)

    def add(self, run_id: str, body: Body) -> None:
        """Append an entry to the log as this process sees it; `flush` before anyone else may rely on it."""
        made = entry(self.tail.n + 1, body, run_id)
        if self.observed:
            if self._events is None:
                self._events = []
            self._events += entry_events(self.tail, made, self.thread_id)
        else:
            self.tail.add(made)
        if self._staged is None:
            self._staged = []
        self._staged.append(made)

    async def flush(self) -> list[Event]:
        """Write what was added, in one transaction, and give the events it stands for.

        A flush that is cancelled may have been carried out or not; the next one finds out.

        Raises:
            StateConflict: another writer was first; nothing was written.
            StoreUnavailable: the store cannot be reached; nothing was written.
        """
        if self._unsure and self._staged:
            self._staged = await self._unwritten(self._staged)
            self._unsure = False
        if self._staged:
            self._unsure = True
            await self.store.append(self.thread_id, self._staged, lease=self._lease)
            self._unsure = False
        self._staged = None
        events, self._events = self._events, None
        return [] if events is None else events

    async def _unwritten(self, staged: list[Entry]) -> list[Entry]:
        """Learn whether the last, disturbed flush was carried out; give what is still to be written."""
        found = await self.store.read(self.thread_id, after=staged[0].n - 1)
        if not found or found[0].id != staged[0].id:
            return staged
        written = {item.id for item in found}
        return [item for item in staged if item.id not in written]

    async def _catch_up(self) -> None:
        """Read what others wrote since; whatever a failed run of this process left unwritten is forgotten."""
        if self._staged or self._unsure:
            self._staged, self._events, self._unsure = None, None, False
            self.tail, self.trimmer = Tail(), None
        for item in await self.store.read(self.thread_id, after=self.tail.n):
            self.tail.add(item)

    async def scratch(self) -> Thread:
        """Give a thread that begins where this one ends now, to try on it what would happen: nobody sees it.

        Raises:
            StoreUnavailable: the store cannot be reached.
        """
        made = Thread.for_one_run(self.thread_id, self.user_id)
        if not (self._staged or self._unsure):  # see `_catch_up`
            made.tail = self.tail.copy()
            made.trimmer = None if self.trimmer is None else self.trimmer.copy()
        for item in await self.store.read(self.thread_id, after=made.tail.n):
            made.tail.add(item)
        return made

    async def hold(self, run_id: str, interrupt: Callable[[], None], if_busy: IfBusy) -> None:
        """Hold the thread for one run until `leave`: nobody else, in any process, writes to it meanwhile.

        Args:
            run_id: the run.
            interrupt: stops this run, for a later one that wants its place; may be called from any thread.
            if_busy: what to do while another run holds the thread. Runs of this process are served in order. A run
                of another process cannot be interrupted from here; it is waited for.

        Raises:
            StateConflict: the thread is busy and ``if_busy`` is ``"reject"``.
        """
        desk = self._desk
        if desk is None:
            return
        desk.check_process()
        if if_busy == "reject" and desk.users:
            raise self._busy(desk.run_id)
        while not desk.serves(asyncio.get_running_loop()):  # noqa: ASYNC110  # no event reaches across event loops
            await asyncio.sleep(_POLL_SECONDS)
        if if_busy == "interrupt" and desk.interrupt is not None:
            desk.interrupt()
        desk.users += 1
        try:
            await desk.lock.acquire()
        except BaseException:
            desk.users -= 1
            raise
        self._holding = True
        desk.run_id, desk.interrupt = run_id, interrupt
        try:
            if self.store.shared:
                self._lease = await self._acquire(desk, run_id, interrupt, if_busy)
            await self._catch_up()
        except BaseException:
            await self.leave()
            raise

    async def leave(self) -> None:
        """Give the thread back to whoever waits for it."""
        desk = self._desk
        if desk is None or not self._holding:
            return
        try:
            if self._lease is not None:
                await self._give_back(self._lease)
        finally:
            self._holding = False
            self._lease = None
            desk.run_id, desk.interrupt = "", None
            desk.users -= 1
            desk.lock.release()

    def _busy(self, run_id: str) -> StateConflict:
        msg = (
            f"thread {self.thread_id!r} is busy with run {run_id!r}; wait for it, or pass if_busy='queue' or "
            "if_busy='interrupt'"
        )
        return StateConflict(msg)

    async def _acquire(self, desk: _Desk, run_id: str, interrupt: Callable[[], None], if_busy: IfBusy) -> Lease:
        wait = _POLL_SECONDS
        while True:
            try:
                lease = await self.store.acquire(self.thread_id, run_id, desk.owner, LEASE_SECONDS)
            except asyncio.CancelledError:
                # It may have been taken all the same, and nobody else could have the thread until it ran out.
                taken = Lease(thread_id=self.thread_id, run_id=run_id, owner=desk.owner, expires_at=0.0)
                await self._give_back(taken)
                raise
            if lease is not None:
                _keeper(self.store).keep(self.store, lease, interrupt)
                return lease
            if if_busy == "reject":
                holder = await self.store.holder(self.thread_id)
                raise self._busy(holder.run_id if holder else "")
            await asyncio.sleep(wait)
            wait = min(wait * 1.5, 0.5)

    async def _give_back(self, lease: Lease) -> None:
        _keeper(self.store).drop(lease)
        try:
            await settle(lambda: self.store.release(lease))
        except PlaitError as error:  # it runs out by itself
            logger.warning("the lease on thread %s was not given back: %s", self.thread_id, type(error).__name__)


class _Desk:
    """Where the runs of this process queue for one thread, and how the present one is interrupted.

    Attributes:
        owner: the name under which leases are taken here: a leftover of an earlier run can be taken over.
        users: how many runs hold the thread or wait for it.
    """

    __slots__ = ("__weakref__", "_loop", "_owner", "_process", "interrupt", "lock", "run_id", "users")

    def __init__(self) -> None:
        self._reset()

    def check_process(self) -> None:
        """Begin with nobody here in a forked child: its runs are not its parent's, and queue behind those."""
        if self._process != os.getpid():
            self._reset()

    def _reset(self) -> None:
        self._process = os.getpid()
        self.lock = asyncio.Lock()
        self.users = 0
        self.run_id = ""
        self.interrupt: Callable[[], None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._owner = ""

    @property
    def owner(self) -> str:
        self._owner = self._owner or owner_name()
        return self._owner

    def serves(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Say whether runs of this event loop can queue here now; those of another loop must have left before."""
        if self._loop is loop:
            return True
        if self.users and self._loop is not None and not self._loop.is_closed():
            return False
        self._loop, self.lock, self.users, self.run_id, self.interrupt = loop, asyncio.Lock(), 0, "", None
        return True


_DESKS: Final[WeakKeyDictionary[Store, WeakValueDictionary[str, _Desk]]] = WeakKeyDictionary()


def _desk(store: Store, thread_id: str) -> _Desk:
    desks = _DESKS.setdefault(store, WeakValueDictionary())
    desk = desks.get(thread_id)
    if desk is None:
        desk = desks[thread_id] = _Desk()
    return desk


class _Keeper:
    """Renews the leases that one event loop holds in one store, with one task while there are any.

    It keeps no reference to its store, which is the weak key it is found by.
    """

    def __init__(self) -> None:
        self._leases: dict[str, tuple[Lease, Callable[[], None]]] = {}
        self._task: asyncio.Task[None] | None = None

    def keep(self, store: Store, lease: Lease, lost: Callable[[], None]) -> None:
        self._leases[lease.thread_id] = (lease, lost)
        if self._task is None or self._task.done():
            # It works for every run of this loop, so it must not belong to the one that happens to be the first.
            loop = asyncio.get_running_loop()
            self._task = loop.create_task(self._renew(store), name="plait: lease renewal", context=Context())

    def drop(self, lease: Lease) -> None:
        self._leases.pop(lease.thread_id, None)
        if not self._leases and self._task is not None:
            self._task.cancel()
            self._task = None

    async def _renew(self, store: Store) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            asked = dict(self._leases)
            try:
                held = await store.renew([lease for lease, _ in asked.values()], LEASE_SECONDS)
            except PlaitError as error:  # the next round may reach it; an append fails if the lease was lost
                logger.warning("leases could not be renewed: %s", type(error).__name__)
                continue
            renewed = {lease.thread_id: lease for lease in held}
            for thread_id, (lease, lost) in asked.items():
                if self._leases.get(thread_id) != (lease, lost):
                    continue  # given back meanwhile
                if thread_id in renewed:
                    self._leases[thread_id] = (renewed[thread_id], lost)
                else:
                    logger.warning("run %s lost its lease on thread %s and is stopped", lease.run_id, thread_id)
                    lost()


_KEEPERS: Final[WeakKeyDictionary[Store, WeakKeyDictionary[asyncio.AbstractEventLoop, _Keeper]]] = WeakKeyDictionary()


def _keeper(store: Store) -> _Keeper:
    return _KEEPERS.setdefault(store, WeakKeyDictionary()).setdefault(asyncio.get_running_loop(), _Keeper())
