"""What passes between the SDK and a transport, looked at: answers that fit nothing, and pieces the SDK would refuse.

The SDK reads a result as a whole: one tool without a schema, or one piece of content of a new type, and all of it is
refused. So the pieces are made readable here, before it reads them. Answers to nothing that was asked are dropped by
it without a word; here is where that is said. Loaded with the SDK.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCError, JSONRPCNotification, JSONRPCRequest, JSONRPCResponse

from plait.errors import excerpt
from plait.mcp.client.listing import MAX_REFUSED, MAX_TOOL_NAME, MAX_TOOLS, Unusable, count
from plait.mcp.client.results import readable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType
    from typing import Self

    from mcp.shared._stream_protocols import ReadStream, WriteStream

logger = logging.getLogger("plait.mcp")

Item = SessionMessage | Exception

MAX_UNANSWERED: Final = 64
"""Requests of a server that wait for their answer to be written; before it takes some, no more is read from it."""


class Tap:
    """What is known of the messages of one session.

    Args:
        server: the server's name, for the log.
        ended: called when the server's side has ended.
        changed: called when the server says that its tools have changed.

    Attributes:
        listed: how many tools the last listing has had.
        tools: name, description and schema of the first `MAX_TOOLS` of them, as the server gave them.
        refused: the first `MAX_REFUSED` of them that are none, with the reason.
    """

    def __init__(self, server: str, ended: Callable[[], None], changed: Callable[[], None]) -> None:
        self.begin_listing()
        self.ended = ended
        self._changed = changed
        self._server = server
        self._asked: dict[str, str] = {}
        self._given_up: set[str] = set()
        self._warned: set[str] = set()
        self._unanswered: Counter[str] = Counter()
        self._room = asyncio.Event()
        self._room.set()

    def begin_listing(self) -> None:
        """Forget the last listing."""
        self.listed = 0
        self.tools: list[tuple[str, str, dict[str, Any]]] = []
        self.refused: dict[str, str] = {}

    def warn(self, what: str) -> None:
        """Say what the server did wrong, once for each wrong."""
        if what not in self._warned:
            self._warned.add(what)
            logger.warning("the MCP server %r %s", self._server, what)

    def sent(self, item: SessionMessage) -> None:
        """Note what goes out."""
        match item.message:
            case JSONRPCRequest(id=number, method=method):
                self._asked[str(number)] = method
            case JSONRPCNotification(method="notifications/cancelled", params={"requestId": number}):
                if self._asked.pop(str(number), None) is not None:
                    self._given_up.add(str(number))
            case _:
                pass

    async def may_read(self) -> None:
        """Wait until a server that asks faster than it takes answers has taken some."""
        await self._room.wait()

    def written(self, item: SessionMessage) -> None:
        """Note what has gone out."""
        if isinstance(item.message, JSONRPCResponse | JSONRPCError):
            self._settled(str(item.message.id))

    def _settled(self, number: str) -> None:
        if self._unanswered[number] > 0:
            self._unanswered[number] -= 1
        self._unanswered += Counter()  # without those that are answered
        if self._unanswered.total() < MAX_UNANSWERED:
            self._room.set()

    def heard(self, item: Item) -> None:
        """Look at what comes in, and make it readable."""
        if isinstance(item, ValueError):  # other exceptions tell that the connection ends
            self.warn("sent what is no message; it is skipped")
        if isinstance(item, Exception):
            return
        message = item.message
        if isinstance(message, JSONRPCNotification) and message.method == "notifications/tools/list_changed":
            self._changed()
        if isinstance(message, JSONRPCNotification) and message.method == "notifications/cancelled":
            self._settled(str((message.params or {}).get("requestId")))  # the SDK answers it no more
        if isinstance(message, JSONRPCRequest):
            self._unanswered[str(message.id)] += 1
            if self._unanswered.total() >= MAX_UNANSWERED:
                self._room.clear()
        if not isinstance(message, JSONRPCResponse | JSONRPCError):
            return
        number = str(message.id)
        method = self._asked.pop(number, None)
        if method is None and number in self._given_up:
            self._given_up.discard(number)
        elif method is None:
            self.warn("answered what was not asked, or answered twice; that is ignored")
        elif isinstance(message, JSONRPCResponse):
            self._make_readable(method, message.result)

    def _make_readable(self, method: str, result: dict[str, Any]) -> None:
        if method == "tools/list":
            given = result.get("tools")
            given = given if isinstance(given, list) else []
            self.listed += len(given)
            result["tools"] = [self._tool(item) for item in given if self._is_tool(item)]
        elif method == "tools/call" and "content" in result:
            given = result["content"]
            result["content"] = [readable(block) for block in (given if isinstance(given, list) else [given])]

    def _is_tool(self, item: Any) -> bool:
        """Whether it is a tool that may be used; of another, the reason is kept."""
        name = item.get("name") if isinstance(item, dict) else None
        shown = excerpt(name, MAX_TOOL_NAME) if isinstance(name, str) else excerpt(repr(item), 40)
        why = self._why_not(item) if isinstance(name, str) else "it has no name"
        if why and len(self.refused) < MAX_REFUSED:
            self.refused[shown] = why
        return not why and len(self.tools) < MAX_TOOLS

    @staticmethod
    def _why_not(item: dict[str, Any]) -> str:
        schema, execution = item.get("inputSchema"), item.get("execution")
        if not isinstance(schema, dict):
            return f"its schema is {'missing' if schema is None else 'no object'}"
        if schema.get("type", "object") != "object":
            return "its schema has no object at its root"
        if isinstance(execution, dict) and execution.get("taskSupport") == "required":
            return "it can be called only as a task, which is not done here"
        try:
            count(schema)
        except Unusable as error:
            return str(error)
        return ""

    def _tool(self, item: dict[str, Any]) -> dict[str, Any]:
        """Keep a tool, and give what the SDK needs of it: which arguments are headers, too.

        It would take one schema that is none for the fault of the whole list, and could be kept busy with an output
        schema.
        """
        name, said, schema = item["name"], item.get("description"), item["inputSchema"]
        self.tools.append((name, said if isinstance(said, str) else "", {"type": "object", **schema}))
        fields = schema.get("properties")
        plain = (
            {key: field for key, field in fields.items() if isinstance(field, dict)} if isinstance(fields, dict) else {}
        )
        return {"name": name, "inputSchema": {"type": "object", "properties": plain}}


@asynccontextmanager
async def tapped(transport: AbstractAsyncContextManager[Any], tap: Tap) -> AsyncGenerator[Any, None]:
    """Give a transport whose messages pass a `Tap`."""
    async with transport as (read, write):
        yield _Read(read, tap), _Write(write, tap)


class _Read:
    """What comes from the server."""

    def __init__(self, stream: ReadStream[Item], tap: Tap) -> None:
        self._stream = stream
        self._tap = tap

    @property
    def last_context(self) -> Any:
        return getattr(self._stream, "last_context", None)

    async def receive(self) -> Item:
        await self._tap.may_read()
        item = await self._stream.receive()
        self._tap.heard(item)
        return item

    async def aclose(self) -> None:
        await self._stream.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Item:
        await self._tap.may_read()
        try:
            item = await self._stream.__anext__()
        except StopAsyncIteration:
            self._tap.ended()
            raise
        self._tap.heard(item)
        return item

    async def __aenter__(self) -> Self:
        await self._stream.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self._stream.__aexit__(kind, error, trace)


class _Write:
    """What goes to the server."""

    def __init__(self, stream: WriteStream[SessionMessage], tap: Tap) -> None:
        self._stream = stream
        self._tap = tap

    async def send(self, item: SessionMessage, /) -> None:
        self._tap.sent(item)
        try:
            await self._stream.send(item)
        finally:
            self._tap.written(item)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def __aenter__(self) -> Self:
        await self._stream.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self._stream.__aexit__(kind, error, trace)
