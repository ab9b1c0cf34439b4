"""Opening a store by its URL: one store per address and process, shared by all agents."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from plait.errors import ConfigurationError, excerpt
from plait.store.memory import MemoryStore

if TYPE_CHECKING:
    from plait.store.base import Store

_MEMORY: Final = "memory://"
_SQLITE: Final = "sqlite:///"
DEFAULT_URL: Final = f"{_SQLITE}plait.db"

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
    check_url(named)
    if named.startswith(_SQLITE):
        named = f"{_SQLITE}{Path(named.removeprefix(_SQLITE)).absolute()}"
    key = (os.getpid(), named)
    found = _OPEN.get(key)
    if found is None or found.closed:
        found = _OPEN[key] = _opened(key[1])
    return found


def check_url(url: str) -> None:
    """See that a URL names a kind of store that there is, without opening it; an empty one is the usual store's.

    Raises:
        ConfigurationError: it names none.
    """
    if not url or url.startswith((_SQLITE, _MEMORY)):
        return
    scheme, colon, path = url.partition("://")
    if scheme == "sqlite" and path:
        name = excerpt(path, 60)
        msg = f"the URL of a store has three slashes before the name of a file: 'sqlite:///{name}'"
    elif colon:
        msg = f"there is no store for {excerpt(scheme, 40)!r} URLs; use 'sqlite:///file.db', or 'memory://'"
    else:
        name = excerpt(url, 60)
        msg = f"{name!r} is no URL of a store; for a file of this name write 'sqlite:///{name}'"
    raise ConfigurationError(msg)


def _opened(url: str) -> Store:
    if url.startswith(_MEMORY):
        return MemoryStore()
    from plait.store.database import DatabaseStore  # SQLAlchemy takes 0.2 s to import

    return DatabaseStore(url)
