"""A file as one process has it open: its threads, their connections, and the transactions they carry out.

One thread writes, and commits together what waits together; up to two others read. Work is a function that gets a
connection inside a transaction; what it does there is known elsewhere.
"""

from __future__ import annotations

import asyncio
import atexit
import ctypes
import os
import sqlite3
import threading
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Final, Generic, TypeVar, cast

from sqlalchemy import create_engine, event
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from plait.errors import PlaitError, StoreUnavailable
from plait.store.base import store_closed
from plait.store.sqlite.connections import connect, driver_error, is_busy, secure, translated
from plait.store.sqlite.opening import prepare

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection, Engine

T = TypeVar("T")

MAX_READERS: Final = 2
MAX_TOGETHER: Final = 256
_EXIT_SECONDS: Final = 5.0
_BEGIN_WRITE: Final = "BEGIN IMMEDIATE"
_BEGIN_READ: Final = "BEGIN"

# What the driver or SQLAlchemy raise: because of the file, or of a value that no database can hold.
_DATABASE_ERRORS: Final = (SQLAlchemyError, sqlite3.Error, UnicodeEncodeError, OverflowError)


class _Job(Generic[T]):
    """A function that waits for its transaction, and the future of whoever waits for its result.

    Without a function it asks for nothing but its turn; a thread ends with its ``is_last`` one.
    """

    __slots__ = ("error", "future", "is_last", "loop", "result", "work")

    def __init__(self, work: Callable[[Connection], T] | None = None, *, is_last: bool = False) -> None:
        self.work = work
        self.is_last = is_last
        self.result: T | None = None
        self.error: Exception | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self.future: asyncio.Future[T] | None = None

    def awaited(self) -> asyncio.Future[T]:
        self.loop = asyncio.get_running_loop()
        self.future = self.loop.create_future()
        return self.future

    @property
    def is_withdrawn(self) -> bool:
        return self.future is not None and self.future.cancelled()


class SqliteFile:
    """One file in one process. Opened by the first work, and opened anew after an error.

    Args:
        path: the absolute path.
        busy_seconds: how long to wait for a lock that another process holds.
    """

    def __init__(self, path: str, busy_seconds: float) -> None:
        self._path = path
        self._busy_seconds = busy_seconds
        # For whoever hands in work or stops the threads. A store may be collected, and stop its threads, anywhere.
        self._lock = threading.RLock()
        self._opening = threading.Lock()
        self._engine: Engine | None = None
        self._file: tuple[int, int] | None = None
        self._is_stopped = False
        self._writer: threading.Thread | None = None
        self._readers: list[threading.Thread] = []
        self._writes: SimpleQueue[_Job[object]] = SimpleQueue()
        self._reads: SimpleQueue[_Job[object]] = SimpleQueue()
        self._pending_reads = 0

    def write(self, work: Callable[[Connection], T] | None) -> asyncio.Future[T]:
        """Run a function in a write transaction; the future gets its result after the commit, or its error.

        An error undoes what the function did, and nothing else. Functions run in the order of these calls; one whose
        future is cancelled before its turn is left out. None for a function gives a future that is done when
        everything handed in before is, and needs no transaction.

        Raises:
            StoreUnavailable: `stop` was called.
        """
        job = _Job(work)
        future = job.awaited()
        with self._lock:
            self._check_running()
            if self._writer is None:
                self._writer = self._thread(self._write_all, "writer")
            self._writes.put(cast("_Job[object]", job))
        return future

    def read(self, work: Callable[[Connection], T]) -> asyncio.Future[T]:
        """Run a function in a read transaction, which sees one state of the file; the future gets its result.

        Raises:
            StoreUnavailable: `stop` was called.
        """
        job = _Job(work)
        future = job.awaited()
        with self._lock:
            self._check_running()
            self._pending_reads += 1
            if len(self._readers) < min(self._pending_reads, MAX_READERS):
                self._readers.append(self._thread(self._read_all, "reader"))
            self._reads.put(cast("_Job[object]", job))
        return future

    def _check_running(self) -> None:
        if self._is_stopped:
            raise store_closed()

    def _thread(self, target: Callable[[], None], what: str) -> threading.Thread:
        # A daemon, so that a program that forgets to close its store still ends; _stop_all waits for its work.
        thread = threading.Thread(target=target, name=f"plait store {what}", daemon=True)
        thread.start()
        _RUNNING.add(self)
        return thread

    def stop(self, *, awaited: bool = False) -> list[asyncio.Future[object]]:
        """Let the threads end after the work there is.

        Args:
            awaited: give a future of the running event loop for each thread, done when its connection is closed.
        """
        with self._lock:
            if self._is_stopped:
                return []
            self._is_stopped = True
            queues = [self._reads] * len(self._readers) + ([self._writes] if self._writer else [])
            futures = []
            for queue in queues:
                job = _Job[object](is_last=True)
                if awaited:
                    futures.append(job.awaited())
                queue.put(job)
            _RUNNING.discard(self)
            return futures

    def join(self, seconds: float) -> None:
        """Wait until the threads have ended, at most so long for each."""
        for thread in (*self._readers, self._writer):
            if thread is not None:
                thread.join(seconds)

    async def close(self) -> None:
        """Finish the work there is, close the connections, end the threads."""
        await asyncio.gather(*self.stop(awaited=True))
        self.join(_EXIT_SECONDS)  # they have nothing left to do

    def _connect(self, begin: str) -> Connection:
        """Connect for the transactions of one thread; the first to do so looks whether the file is a store."""
        with self._opening:
            if self._engine is None:
                engine = _engine(self._path, self._busy_seconds)
                prepare(self._path, engine, self._busy_seconds)
                self._engine, self._file = engine, _identity(self._path)
            try:
                connection = self._engine.execution_options(begin=begin).connect()
            except Exception:
                self._engine = None  # the file was taken away, perhaps: look again
                raise
        _CONNECTIONS.add(connection)
        return connection

    def _check_file(self) -> None:
        """See that the open file is still the one at its path: SQLite goes on writing to a deleted one unnoticed.

        Raises:
            StoreUnavailable: it was deleted or replaced; nothing was written.
        """
        if _identity(self._path) != self._file:
            with self._opening:
                self._engine = None
            msg = f"the store's file {self._path!r} was deleted or replaced while it was open; nothing was written"
            raise StoreUnavailable(msg)

    def _write_all(self) -> None:
        """The writer: take what waits, commit it, hand out the results, until the last job."""
        connection: Connection | None = None
        is_last = False
        while not is_last:
            jobs = _waiting(self._writes)
            todo = [job for job in jobs if job.work is not None and not job.is_withdrawn]
            if todo:
                connection = self._commit(connection, todo)
            is_last = jobs[-1].is_last
            if is_last and connection is not None:
                _disconnect(connection)
            _hand_out(jobs)
            del jobs, todo  # while it waits it holds nobody's results

    def _commit(self, connection: Connection | None, todo: list[_Job[object]]) -> Connection | None:
        """Carry jobs out in one transaction. If it fails as a whole, each alone, unless none can succeed just now.

        Returns:
            The connection to go on with; None after an error that a new one may not have.
        """
        try:
            if connection is None:
                connection = self._connect(_BEGIN_WRITE)
            else:
                self._check_file()
            _together(connection, todo)
        except Exception as error:  # noqa: BLE001  # raised again where the results are awaited
            is_usable = connection is not None and is_busy(error)
            if connection is not None and not is_usable:
                _disconnect(connection)
            if connection is not None and not is_usable and len(todo) > 1:
                connection = None
                for job in todo:
                    job.result = job.error = None
                    connection = self._commit(connection, [job])
                return connection
            for job in todo:
                job.error = self._translated(error)
            return connection if is_usable else None
        return connection

    def _read_all(self) -> None:
        """A reader: one job after the other, until its last."""
        connection: Connection | None = None
        while not (job := self._reads.get()).is_last:
            if job.work is not None and not job.is_withdrawn:
                connection = self._look(connection, job)
            with self._lock:
                self._pending_reads -= 1
            _hand_out([job])
            del job
        if connection is not None:
            _disconnect(connection)
        _hand_out([job])

    def _look(self, connection: Connection | None, job: _Job[object]) -> Connection | None:
        """Carry a job out in a read transaction; gives the connection to go on with, as `_commit` does."""
        try:
            if connection is None:
                connection = self._connect(_BEGIN_READ)
            _together(connection, [job])
        except Exception as error:  # noqa: BLE001  # raised again where the result is awaited
            job.error = self._translated(error)
            if connection is not None:
                _disconnect(connection)
            return None
        return connection

    def _translated(self, error: Exception) -> Exception:
        if isinstance(error, PlaitError):
            return error
        own = translated(error, self._path, self._busy_seconds)
        own.__cause__ = driver_error(error)
        return own


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116  # once for each commit, and four times as fast
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _engine(path: str, busy_seconds: float) -> Engine:
    """Make what connects to the file: each connection is secured, and begins its transactions as it was told."""

    def creator() -> sqlite3.Connection:
        connection = connect(path, "rw", busy_seconds)
        try:
            secure(connection, busy_seconds)
        except BaseException:
            connection.close()
            raise
        return connection

    def begin(connection: Connection) -> None:
        _driver(connection).execute(connection.get_execution_options()["begin"])

    # What people said must stand in no traceback and no log: no parameters there.
    engine = create_engine("sqlite://", creator=creator, poolclass=NullPool, hide_parameters=True)
    event.listen(engine, "begin", begin)
    return engine


def _driver(connection: Connection) -> sqlite3.Connection:
    return cast("sqlite3.Connection", connection.connection.driver_connection)


def _disconnect(connection: Connection) -> None:
    _CONNECTIONS.discard(connection)
    with suppress(*_DATABASE_ERRORS):  # it may be given up because it does not work
        connection.close()


def _waiting(queue: SimpleQueue[_Job[object]]) -> list[_Job[object]]:
    """Wait for a job, and give it with those behind it."""
    jobs = [queue.get()]
    with suppress(Empty):
        while not jobs[-1].is_last and len(jobs) < MAX_TOGETHER:
            jobs.append(queue.get_nowait())
    return jobs


def _together(connection: Connection, jobs: list[_Job[object]]) -> None:
    """Carry jobs out in one transaction; what one of them refuses is undone for it alone.

    Raises:
        Exception: of the database; the whole transaction is undone.
    """
    with connection.begin():
        driver = _driver(connection)  # SQLAlchemy's own savepoints cost as much as the work
        for job in jobs:
            driver.execute("SAVEPOINT job")
            try:
                job.result = job.work(connection) if job.work else None
            except _DATABASE_ERRORS:
                raise
            except Exception as error:  # noqa: BLE001  # raised again where the result is awaited
                job.error = error
                driver.execute("ROLLBACK TO job")
            driver.execute("RELEASE job")


def _hand_out(jobs: list[_Job[object]]) -> None:
    """Give results to the event loops that wait for them, with one call each."""
    by_loop: dict[asyncio.AbstractEventLoop, list[_Job[object]]] = {}
    for job in jobs:
        if job.loop is not None:
            by_loop.setdefault(job.loop, []).append(job)
    for loop, own in by_loop.items():
        with suppress(RuntimeError):  # the loop is closed, and nobody waits any more
            loop.call_soon_threadsafe(_settle, own)


def _settle(jobs: list[_Job[object]]) -> None:
    for job in jobs:
        if job.future is None or job.future.done():
            continue
        if job.error is not None:
            job.future.set_exception(job.error)
            job.error = None  # its traceback leads back here
        else:
            job.future.set_result(job.result)


_RUNNING: Final[set[SqliteFile]] = set()
_CONNECTIONS: Final[set[Connection]] = set()


def _stop_all() -> None:
    """At the end of the process: carry out what was handed in, and close the files."""
    for file in list(_RUNNING):
        file.stop()
        file.join(_EXIT_SECONDS)


def _forget_all() -> None:
    """In the child of a fork: the threads are gone, and the connections are the parent's.

    They must neither be used nor closed here (https://sqlite.org/howtocorrupt.html, 2.6), not even as garbage: each
    gets a reference that nobody gives back.
    """
    for connection in _CONNECTIONS:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))
    _CONNECTIONS.clear()
    _RUNNING.clear()


atexit.register(_stop_all)
os.register_at_fork(after_in_child=_forget_all)
