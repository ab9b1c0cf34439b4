"""How a file is connected to, and what SQLite's errors mean to whoever uses a store."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from time import monotonic, sleep
from typing import Final, Literal
from urllib.parse import quote

from sqlalchemy.exc import DBAPIError

from plait.errors import ConfigurationError, CorruptRecord, PlaitError, StateConflict, StoreUnavailable, excerpt

Mode = Literal["ro", "rw", "rwc"]

_FULL: Final = 2  # https://sqlite.org/pragma.html#pragma_synchronous
_RETRY_SECONDS: Final = 0.005


def connect(path: str, mode: Mode, busy_seconds: float) -> sqlite3.Connection:
    """Connect without changing anything; statements begin no transaction by themselves.

    Args:
        path: the absolute path.
        mode: ``"ro"`` reads only, ``"rw"`` needs the file to be there, ``"rwc"`` makes it.
        busy_seconds: how long a statement waits for another's lock.

    Raises:
        sqlite3.Error: the file cannot be opened.
    """
    address = f"file:{quote(os.fsencode(path))}?mode={mode}"
    # The threads of a store use their own connections each; at exit another one may have to close them.
    connection = sqlite3.connect(
        address, uri=True, timeout=busy_seconds, isolation_level=None, check_same_thread=False, cached_statements=64
    )
    connection.text_factory = _text
    return connection


def _text(value: bytes) -> str | bytes:
    """Give text as it is stored: one that is no UTF-8 any more must not hide the other rows of a result."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value


def secure(connection: sqlite3.Connection, busy_seconds: float) -> None:
    """Make what is committed survive a loss of power, readers not wait for writers, and foreign keys hold.

    Raises:
        sqlite3.Error: the settings cannot be made, for instance because another process has a lock.
        StoreUnavailable: SQLite did not take them; write-ahead logs need shared memory, which network drives lack.
    """
    mode = _write_ahead(connection, busy_seconds)
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA fullfsync=ON")  # on macOS, fsync alone does not reach the disk
    connection.execute("PRAGMA foreign_keys=ON")
    level = connection.execute("PRAGMA synchronous").fetchone()[0]
    keys = connection.execute("PRAGMA foreign_keys").fetchone()[0]
    if (mode, level, keys) != ("wal", _FULL, 1):
        msg = (
            f"SQLite cannot keep this file safe (journal {mode!r}, synchronous {level}, foreign keys {keys}); put it "
            "on a local disk, in a folder that can be written to"
        )
        raise StoreUnavailable(msg)


def _write_ahead(connection: sqlite3.Connection, busy_seconds: float) -> str:
    """Ask for a write-ahead log until nobody else's lock is in the way; gives the kind of journal there is then."""
    until = monotonic() + busy_seconds
    while True:
        try:
            return str(connection.execute("PRAGMA journal_mode=WAL").fetchone()[0])
        except sqlite3.OperationalError as error:  # of two that ask at once, SQLite lets only one wait
            if not is_busy(error) or monotonic() > until:
                raise
            sleep(_RETRY_SECONDS)


def driver_error(error: Exception) -> Exception:
    """Give the driver's own error for one that SQLAlchemy wrapped."""
    return error.orig if isinstance(error, DBAPIError) and isinstance(error.orig, Exception) else error


def code(error: Exception) -> str:
    """Give SQLite's name of an error, such as ``"SQLITE_BUSY_RECOVERY"``; empty when it is not SQLite's."""
    return getattr(driver_error(error), "sqlite_errorname", "")


def is_busy(error: Exception) -> bool:
    """Whether another connection's lock was in the way."""
    return code(error).startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))


def translated(error: Exception, path: str, busy_seconds: float) -> PlaitError:
    """Give the error of plait's for one of SQLite's or SQLAlchemy's, as whoever waits for the result gets it."""
    name = code(error)
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return StoreUnavailable(
            f"the store {path!r} is busy: another program held a lock on it for more than {busy_seconds:g} s; nothing "
            "was written, try again"
        )
    if name.startswith("SQLITE_CONSTRAINT"):
        said = excerpt(str(driver_error(error)), 80)
        return StateConflict(f"the store {path!r} holds what was to be added already ({said}); nothing was written")
    if name.startswith("SQLITE_CORRUPT"):
        return CorruptRecord(
            f"the file {path!r} is damaged ({excerpt(str(driver_error(error)), 80)}); keep a copy of it, and see what "
            "'sqlite3 FILE .recover' can save",
            record=path,
        )
    if isinstance(error, UnicodeEncodeError):
        return ConfigurationError("an id or name holds half a surrogate pair, which no store can keep; leave it out")
    if isinstance(error, OverflowError):
        return ConfigurationError("a number is larger than 64 bits, which no store can keep")
    if name == "SQLITE_NOTADB":
        return refusal(path, "it is no SQLite database")
    return StoreUnavailable(f"the store {path!r} cannot be used: {_reason(name, error, path)}; nothing was written")


def _reason(name: str, error: Exception, path: str) -> str:
    if name == "SQLITE_FULL":
        return "the disk is full"
    if name.startswith("SQLITE_READONLY"):
        return "the file or its folder may not be written to"
    if name.startswith("SQLITE_CANTOPEN"):
        return f"the file cannot be opened; check that this user may read and write it and {str(Path(path).parent)!r}"
    if name.startswith("SQLITE_IOERR"):
        return f"reading or writing the disk failed ({name})"
    return excerpt(str(driver_error(error)), 120) + (f" ({name})" if name else "")


def refusal(path: str, why: str, instead: str = "give the address of another file") -> StoreUnavailable:
    """Make the error for a file that is no store of plait's; trying again will not help."""
    error = StoreUnavailable(f"{path!r} is no store of this plait: {why}; it was left as it is; {instead}")
    error.retryable = False
    return error
