"""The threads that an agent has open: its own with each user, in memory, and named ones of its store.

Owns where they are kept and how many. What happens on a thread is `plait.threads`' and the loop's.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from plait.ids import new_id
from plait.store.base import check_name
from plait.store.catalog import open_store
from plait.threads import Thread

if TYPE_CHECKING:
    from plait.messages import Message
    from plait.store.base import Store

KEPT: Final = 256
"""Tails of recently used threads that an agent keeps, so that it reads only what is new."""


class OpenThreads:
    """The threads of one agent.

    Args:
        store: where named threads live: a URL or a store; None for the usual one.
    """

    __slots__ = ("_named", "_own", "_store")

    def __init__(self, store: str | Store | None) -> None:
        self._store = store
        self._own: dict[str, Thread] = {}
        self._named: OrderedDict[tuple[str, str], Thread] = OrderedDict()

    @property
    def store(self) -> Store:
        """Where named threads live; opened when first used.

        Raises:
            ConfigurationError: the URL names no store.
            StoreUnavailable: the file is no database of plait's, or cannot be opened.
        """
        if self._store is None or isinstance(self._store, str):
            self._store = open_store(self._store)
        return self._store

    def said(self, user_id: str) -> list[Message]:
        """Give the messages of the agent's own thread with a user."""
        own = self._own.get(user_id)
        return own.tail.sendable() if own else []

    def forget(self, user_id: str) -> None:
        """Let go of the agent's own thread with a user."""
        self._own.pop(user_id, None)

    async def open(self, name: str | None, user_id: str) -> Thread:
        """Give a thread, which is made if there is none; without a name, the agent's own with this user.

        Raises:
            ConfigurationError: a name that no thread or user can have.
            StoreError: the store cannot be read or written.
        """
        if name is not None:
            return await self._opened(name, user_id)
        own = self._own.get(user_id)
        if own is None:
            own = self._own[user_id] = Thread.in_memory(new_id("thr"), user_id)
        return own

    async def find(self, name: str | None, user_id: str) -> Thread | None:
        """Give a thread if it is there; looking for one creates none. Raises as `open`."""
        if name is None:
            return self._own.get(user_id)
        known = self._named.get((check_name(name), check_name(user_id, "user id")))
        if known is not None or await self.store.find(name, user_id) is None:
            return known
        return await self._opened(name, user_id)

    async def _opened(self, name: str, user_id: str) -> Thread:
        key = (check_name(name), check_name(user_id, "user id"))
        opened = self._named.get(key)
        if opened is None:
            info = await self.store.thread(name, user_id)
            opened = self._named.setdefault(key, Thread.stored(self.store, info.thread_id, user_id, name))
            if len(self._named) > KEPT:
                self._named.popitem(last=False)
        self._named.move_to_end(key)
        return opened
