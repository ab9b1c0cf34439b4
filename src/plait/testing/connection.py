"""One connection of the fault server: requests in, the steps of a script out.

Speaks just enough HTTP/1.1 to read requests (https://www.rfc-editor.org/rfc/rfc9112); what goes out is bytes that
others wrote.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from typing import TYPE_CHECKING, Final, cast

from plait.testing.exchanges import Received
from plait.testing.reply import Flood, Gate

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from plait.testing.exchanges import Ending, Exchange, Ledger
    from plait.testing.reply import Step

_LARGEST: Final = 256 * 2**20
_TLS_HELLO: Final = b"\x16\x03"
_AT_ONCE: Final = 65_536


class Connection(asyncio.Protocol):
    """Reads requests one after the other, and takes the steps that answer each."""

    def __init__(self, ledger: Ledger, answer: Callable[[Exchange], Sequence[Step]], others: set[Connection]) -> None:
        """Take where to note what happens, what gives the steps for a request, and the set of open connections."""
        self._ledger = ledger
        self._others = others
        self._answer = answer
        self._read = bytearray()
        self._more = asyncio.Event()
        self._gone = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self.task: asyncio.Task[None] | None = None
        self.busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)
        self._number = self._ledger.connected()
        self._others -= {one for one in self._others if one.gone}
        self._others.add(self)
        self.task = asyncio.get_running_loop().create_task(self._serve(), name="plait: fault server connection")

    def data_received(self, data: bytes) -> None:
        """Keep what the client sends."""
        self._read += data
        self._more.set()

    def pause_writing(self) -> None:
        """Wait till the client reads."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Go on."""
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # the name is asyncio's
        """End what waits."""
        self._gone.set()
        self._more.set()
        self._writable.set()
        self._ledger.disconnected(self._number)

    @property
    def gone(self) -> bool:
        """Whether nothing of it is left."""
        return self._gone.is_set() and (self.task is None or self.task.done())

    def abort(self) -> None:
        """End at once."""
        self._transport.abort()

    async def end(self) -> None:
        """End at once, and wait till nothing of it is left."""
        self.abort()
        await self._gone.wait()
        if self.task is not None:
            await asyncio.gather(self.task, return_exceptions=True)

    async def _serve(self) -> None:
        try:
            while (request := await self._request()) is not None:
                exchange = self._ledger.began(self._number, request)
                self.busy = True
                try:
                    how = await self._play(self._answer(exchange), exchange)
                except Exception as error:  # noqa: BLE001  # a function of the script; raised when the server ends
                    self._ledger.failed(error)
                    how = "closed"
                self.busy = False
                self._ledger.ended(exchange, how)
                if how != "complete":
                    return
        except Exception as error:  # noqa: BLE001  # whoever is told of exchanges
            self._ledger.failed(error)
        finally:
            self._transport.close()

    async def _play(self, steps: Sequence[Step], exchange: Exchange) -> Ending:
        """Take the steps; gives how it ended."""
        for step in steps:
            if self._gone.is_set():
                return "client left"
            match step:
                case bytes():
                    for at in range(0, len(step), _AT_ONCE):
                        await self._send(step[at : at + _AT_ONCE], exchange)
                case Flood():
                    while not self._gone.is_set():
                        await self._send(step.data, exchange)
                    return "client left"
                case Gate():
                    await self._or_gone(step.wait())
                case "hold":
                    await self._gone.wait()
                    return "client left"
                case "fin":
                    return "closed"
                case "rst":
                    raw = self._transport.get_extra_info("socket")
                    if raw is not None:
                        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self._transport.abort()
                    return "reset"
                case _:
                    await self._or_gone(asyncio.sleep(step))
        return "client left" if self._gone.is_set() else "complete"

    async def _send(self, data: bytes, exchange: Exchange) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)
            exchange.note(data)
        await self._writable.wait()
        await asyncio.sleep(0)  # lets the loop see that the client has gone

    async def _or_gone(self, what: Awaitable[None]) -> None:
        """Wait for something, but no longer than the client does."""
        waiting = {asyncio.ensure_future(what), asyncio.ensure_future(self._gone.wait())}
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def _request(self) -> Received | None:
        """Read the next request; None when there is none."""
        if not self._read and not await self._has_more():
            return None
        if self._read.startswith(_TLS_HELLO):  # as web servers do that speak plain HTTP
            self._transport.write(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n")
            return None
        head = await self._until(b"\r\n\r\n")
        if head is None:
            return None
        first, *lines = head.decode("latin-1").strip().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        method, _, rest = first.partition(" ")
        if headers.get("expect", "").lower() == "100-continue":
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        length = headers.get("content-length", "0")
        if "chunked" in headers.get("transfer-encoding", "").lower():
            body = await self._chunks()
        else:
            body = await self._exactly(min(int(length), _LARGEST)) if length.isdigit() else None
        if body is None:
            return None
        try:
            parsed = json.loads(body)
        except (ValueError, RecursionError):
            parsed = None
        return Received(method, rest.rpartition(" ")[0], headers, body, parsed)

    async def _chunks(self) -> bytes | None:
        body = b""
        while (line := await self._until(b"\r\n")) is not None:
            try:
                size = int(line.partition(b";")[0], 16)
            except ValueError:
                return None
            chunk = await self._exactly(size + 2)
            if chunk is None or not size:
                return None if chunk is None else body
            body += chunk[:-2]
        return None

    async def _until(self, mark: bytes) -> bytes | None:
        while (at := self._read.find(mark)) < 0:
            if not await self._has_more():
                return None
        return self._taken(at + len(mark))

    async def _exactly(self, size: int) -> bytes | None:
        while len(self._read) < size:
            if not await self._has_more():
                return None
        return self._taken(size)

    def _taken(self, size: int) -> bytes:
        taken = bytes(self._read[:size])
        del self._read[:size]
        return taken

    async def _has_more(self) -> bool:
        if self._gone.is_set():
            return False
        self._more.clear()
        await self._more.wait()
        return True
