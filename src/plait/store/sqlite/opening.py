"""Which files are stores: a new one is made, one of an older version is brought up to date, any other is refused."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateIndex, CreateTable

from plait.errors import StoreUnavailable
from plait.store.migrations.tables import BASE, HEAD, metadata, stamp
from plait.store.sqlite.connections import code, connect, refusal

if TYPE_CHECKING:
    from sqlalchemy import Engine

_NEW: Final = ""
_READ_STAMP: Final = "SELECT version_num FROM alembic_version"
_SET_STAMP: Final = "INSERT INTO alembic_version (version_num) VALUES (?)"


def prepare(path: str, engine: Engine, busy_seconds: float) -> None:
    """Make sure that a file is a store of this version; any number of processes may do so at once.

    Args:
        path: the absolute path.
        engine: connects to the file as a store, to bring it up to date.
        busy_seconds: how long to wait for a lock that another process holds.

    Raises:
        StoreUnavailable: the file is no store, or one of a newer version; it is left as it is. Or there is no folder.
        sqlite3.Error: the file cannot be opened, read or written.
    """
    folder = Path(path).parent
    if not folder.is_dir():
        msg = f"the folder {str(folder)!r}, in which the store {path!r} was to be, does not exist; make it first"
        raise StoreUnavailable(msg)
    if Path(path).is_dir():
        raise refusal(path, "it is a folder")
    found = _look(path, busy_seconds)
    if found == _NEW:
        found = _make(path, busy_seconds)
    if found != HEAD:
        _upgrade(path, engine, found)


def _look(path: str, busy_seconds: float) -> str:
    """Give the stamp of a file without changing anything, `_NEW` for one that is to be made."""
    if not Path(path).exists() or Path(path).stat().st_size == 0:
        return _NEW
    connection = connect(path, "ro", busy_seconds)
    try:
        return _stamp(connection, path)
    except sqlite3.OperationalError as error:
        if code(error).startswith("SQLITE_READONLY"):
            return _NEW  # its last writer was killed; who can write sees the state before
        raise
    finally:
        connection.close()


def _stamp(connection: sqlite3.Connection, path: str) -> str:
    """Give the revision a file is stamped with: `_NEW` for an empty one, `BASE` for one that was emptied by Alembic."""
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if not tables:
        return _NEW
    revisions = connection.execute(_READ_STAMP).fetchall() if stamp.name in tables else []
    if tables == {stamp.name} and not revisions:
        return BASE
    if len(revisions) == 1 and isinstance(revisions[0][0], str) and revisions[0][0]:
        return str(revisions[0][0])
    raise refusal(path, "it holds the tables of another program")


def _make(path: str, busy_seconds: float) -> str:
    """Make the tables and the stamp in one transaction, unless another process was first; gives the stamp."""
    connection = connect(path, "rwc", busy_seconds)
    try:
        connection.execute("BEGIN EXCLUSIVE")
        found = _stamp(connection, path)
        if found == _NEW:
            for statement in _statements():
                connection.execute(statement)
            connection.execute(_SET_STAMP, (HEAD,))
            connection.execute("COMMIT")
            found = HEAD
        return found
    finally:
        connection.close()  # a transaction that is still open is undone


def _statements() -> list[str]:
    dialect = sqlite.dialect()
    tables = [*metadata.sorted_tables, stamp]
    made = [str(CreateTable(table).compile(dialect=dialect)) for table in tables]
    return made + [str(CreateIndex(index).compile(dialect=dialect)) for table in tables for index in table.indexes]


def _upgrade(path: str, engine: Engine, found: str) -> None:
    from plait.store.migrations.upgrade import is_older, upgrade

    if not is_older(found):
        raise refusal(path, f"its revision {found!r} is unknown here, so a newer version made it", "update plait")
    with engine.execution_options(begin="BEGIN EXCLUSIVE").connect() as connection, connection.begin():
        upgrade(connection)
