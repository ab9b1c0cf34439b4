"""The first tables: threads, their entries, and who runs on them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "plait_0001"
down_revision: str | None = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "threads",
        sa.Column("thread_id", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("thread_id", name="threads_key"),
        sa.UniqueConstraint("user_id", "name", name="threads_name"),
    )
    op.create_table(
        "entries",
        sa.Column("thread_id", sa.Text(), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("line", sa.Text(), nullable=False),
        sa.Column("crc", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("thread_id", "n", name="entries_key"),
        sa.ForeignKeyConstraint(["thread_id"], ["threads.thread_id"], name="entries_thread"),
        sa.UniqueConstraint("id", name="entries_id"),
    )
    op.create_table(
        "leases",
        sa.Column("thread_id", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("thread_id", name="leases_key"),
    )
