"""The tables of a store, as this version writes them. A change here needs a new module in ``versions``."""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKeyConstraint,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
)

HEAD: Final = "plait_0002"
"""The revision that these tables are; the name tells a file of plait's from one of another program's."""

BASE: Final = "base"
"""What Alembic calls the state before the first revision."""

metadata: Final = MetaData()

threads: Final = Table(
    "threads",
    metadata,
    Column("thread_id", Text, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("name", Text),
    Column("created_at", Double, nullable=False),
    PrimaryKeyConstraint("thread_id", name="threads_key"),
    UniqueConstraint("user_id", "name", name="threads_name"),
)

entries: Final = Table(
    "entries",
    metadata,
    Column("thread_id", Text, nullable=False),
    Column("n", Integer, nullable=False),
    Column("id", Text, nullable=False),
    Column("run_id", Text),
    Column("kind", Text, nullable=False),
    Column("at", Double, nullable=False),
    Column("line", Text, nullable=False),  # the whole entry as JSON; the columns before it are for queries
    Column("crc", BigInteger, nullable=False),  # CRC-32 of the line: text in which a bit flipped is still good JSON
    PrimaryKeyConstraint("thread_id", "n", name="entries_key"),
    ForeignKeyConstraint(["thread_id"], ["threads.thread_id"], name="entries_thread"),
    UniqueConstraint("id", name="entries_id"),
)

leases: Final = Table(
    "leases",
    metadata,
    Column("thread_id", Text, nullable=False),
    Column("run_id", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("expires_at", Double, nullable=False),
    PrimaryKeyConstraint("thread_id", name="leases_key"),
)

accounts: Final = Table(
    "accounts",
    metadata,
    Column("account", Text, nullable=False),
    Column("nanos", BigInteger, nullable=False),  # nano-dollars, with what is reserved
    Column("tokens", BigInteger, nullable=False),
    Column("estimated_nanos", BigInteger, nullable=False),  # how many of them are an estimate
    Column("estimated_tokens", BigInteger, nullable=False),
    Column("unpriced", BigInteger, nullable=False),  # calls
    PrimaryKeyConstraint("account", name="accounts_key"),
)

reservations: Final = Table(
    "reservations",
    metadata,
    Column("operation", Text, nullable=False),
    Column("account", Text, nullable=False),
    Column("units", BigInteger, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("nanos", BigInteger, nullable=False),
    Column("priced", Boolean, nullable=False),
    Column("at", Double, nullable=False),
    PrimaryKeyConstraint("operation", "account", name="reservations_key"),
)

stamp: Final = Table(
    "alembic_version",
    MetaData(),  # Alembic's own table, as it makes it
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)
