"""Alembic, for the rare file that an older version made. Importing it takes 0.4 s, so it is done when needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

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
    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    return revision in {BASE, *known} - {HEAD}


def upgrade(connection: Connection) -> None:
    """Bring the tables to this version, within the transaction that is under way on the connection."""
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, HEAD)
