"""Opening a store by its URL: one store per address and process, shared by all agents."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from plait.errors import ConfigurationError, excerpt
from plait.store.memory import MemoryStore

if TYPE_CHECKING:
    from plait.store.base import Store

DEFAULT_URL: Final = "sqlite:///plait.db"

_OPEN: dict[tuple[int, str], Store] = {}


def open_store(url: str | None = None) -> Store:
    """Give the store at a URL, opening it when it is not open in this process yet.

    Args:
        url: ``sqlite:///file.db`` (relative to the working folder), ``sqlite:////absolute/file.db``, or ``memory://``
            for a store that ends with the process. None means ``PLAIT_STORE``, else ``sqlite:///plait.db``.

    Raises:
        ConfigurationError: the URL names no kind of store that there is.
        StoreUnavailable: the file is no database of plait's, or cannot be opened.
    """
    named = url or os.environ.get("PLAIT_STORE") or DEFAULT_URL
    if named.startswith("memory://"):
        key = (os.getpid(), named)
    elif named.startswith("sqlite:///"):
        path = named.removeprefix("sqlite:///")
        key = (os.getpid(), f"sqlite:///{Path(path).absolute()}")
    else:
        scheme, colon, _ = named.partition("://")
        if colon:
            msg = f"there is no store for {excerpt(scheme, 40)!r} URLs; use 'sqlite:///file.db', or 'memory://'"
        else:
            name = excerpt(named, 60)
            msg = f"{name!r} is no URL of a store; for a file of this name write 'sqlite:///{name}'"
        raise ConfigurationError(msg)
    found = _OPEN.get(key)
    if found is None or found.closed:
        found = _OPEN[key] = _opened(key[1])
    return found


def _opened(url: str) -> Store:
    if url.startswith("memory://"):
        return MemoryStore()
    from plait.store.database import DatabaseStore  # SQLAlchemy takes 0.2 s to import

    return DatabaseStore(url)
