"""The hosts that are connected: what is kept of each, and telling them what has changed. Imports the SDK.

Up to protocol version 2025-11-25 a change is told to every connection; from 2026-07-28 on, to those that listen
(``subscriptions/listen``), which is the SDK's business. Knows nothing of what is offered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

import anyio
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler
from mcp.shared.subscriptions import ResourceUpdated, event_to_notification

from plait.ids import new_id

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mcp.server.connection import Connection
    from mcp.server.session import ServerSession
    from mcp.shared.subscriptions import ServerEvent

    from plait.mcp.server.host import LogLevel

_TELL_WITHIN: Final = 1.0
"""Seconds; a host that does not read holds up nobody."""


class Peer:
    """What is kept of one connection.

    Attributes:
        thread_id: stands for it where tools ask for a thread.
        level: the least grave log records it wants.
        subscribed: the addresses of which it wants to know when they change.
    """

    __slots__ = ("level", "subscribed", "thread_id")

    def __init__(self) -> None:
        self.thread_id = new_id("thr")
        self.level: LogLevel = "debug"
        self.subscribed: set[str] = set()


class Peers:
    """All connections of one transport that are still there.

    Attributes:
        listen: answers hosts that want to hear of changes.
    """

    def __init__(self) -> None:
        self._peers: WeakKeyDictionary[Connection, Peer] = WeakKeyDictionary()
        self._bus = InMemorySubscriptionBus()
        self.listen = ListenHandler(self._bus)

    def of(self, session: ServerSession) -> Peer:
        """Give what is kept of a connection."""
        connection = session._connection  # noqa: SLF001  # the SDK shows a connection's state in no other way
        return self._peers.setdefault(connection, Peer())

    async def tell(self, event: ServerEvent) -> None:
        """Tell those who want to know; of lists, all who have asked for something before."""
        await self._bus.publish(event)
        note = event_to_notification(event, {}).model_dump(by_alias=True, mode="json", exclude_none=True)
        concerned = [
            connection
            for connection, peer in self._peers.items()
            if not isinstance(event, ResourceUpdated) or event.uri in peer.subscribed
        ]
        async with anyio.create_task_group() as group:
            for connection in concerned:
                group.start_soon(_tell, connection, note["method"], note.get("params"))


async def _tell(connection: Connection, method: str, params: Mapping[str, Any] | None) -> None:
    with anyio.move_on_after(_TELL_WITHIN):
        await connection.outbound.notify(method, params)
