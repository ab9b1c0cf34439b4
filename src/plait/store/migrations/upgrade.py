"""Alembic, for the rare file that an older version made. Importing it takes 0.4 s, so it is done when needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError

from plait.store.migrations.tables import BASE, HEAD

if TYPE_CHECKING:
    from sqlalchemy import Connection

_SCRIPTS = "plait.store:migrations"


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", _SCRIPTS)
    return config


def is_older(revision: str) -> bool:
    """Whether a stamp is that of an older version of plait; False for one that is not known here."""
    if revision == BASE:
        return True
    try:
        found = ScriptDirectory.from_config(_config()).get_revision(revision)
    except CommandError:
        return False
    return found is not None and found.revision == revision != HEAD  # Alembic also takes the beginning of one


def upgrade(connection: Connection) -> None:
    """Bring the tables to this version, within the transaction that is under way on the connection."""
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, HEAD)
