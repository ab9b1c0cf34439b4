"""A small HTTP server on 127.0.0.1 that does what it is told, and knows who is connected.

Knows HTTP as far as a POST with a length needs it, and no dialect.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from typing import TYPE_CHECKING, Any, Literal, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Step = bytes | float | Literal["reset", "close", "hold"]
"""Bytes to send; seconds to wait; or: reset the connection, close it, or wait until the client leaves."""

OK = b"HTTP/1.1 200 OK\r\n"
HEAD = OK + b"content-type: text/event-stream\r\n"
CHUNKED = b"transfer-encoding: chunked\r\n\r\n"
UNTIL_CLOSED = b"connection: close\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"


class Server:
    """Answers each request with the steps that a function gives for its JSON.

    Attributes:
        url: where it is, for a provider's ``base_url``.
        open: how many connections there are.
        busy: how many requests are being answered.
    """

    def __init__(self, answer: Callable[[Any], Iterable[Step]]) -> None:
        self.url = ""
        self.open = 0
        self.busy = 0
        self._answer = answer
        self._writers: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in self._writers.values():
            writer.transport.abort()
        await asyncio.gather(*self._writers, return_exceptions=True)
        await self._server.wait_closed()

    @property
    def tasks(self) -> set[asyncio.Task[Any]]:
        """The server's own tasks, one for each connection."""
        return set(self._writers)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._writers[task] = writer
        self.open += 1
        try:
            goes_on = True
            while goes_on and (asked := await _asked(reader)) is not None:
                self.busy += 1
                try:
                    goes_on = await self._play(asked, reader, writer)
                finally:
                    self.busy -= 1
        except ConnectionError:
            pass
        finally:
            self.open -= 1
            del self._writers[task]
            writer.close()

    async def _play(self, asked: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; say whether the connection goes on."""
        for step in self._answer(json.loads(asked)):
            if isinstance(step, bytes):
                writer.write(step)
                await writer.drain()
                await asyncio.sleep(0)  # so that the client may read each piece by itself
            elif isinstance(step, float):
                await asyncio.sleep(step)
            elif step == "hold":
                return bool(await reader.read(1))
            else:
                if step == "reset":
                    raw = writer.get_extra_info("socket")
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    writer.transport.abort()
                return False
            if writer.transport.is_closing():
                return False
        return True


async def _asked(reader: asyncio.StreamReader) -> bytes | None:
    """Give the body of the next request; None when the client has left."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        return await reader.readexactly(int(length.partition(b":")[2]))
    except asyncio.IncompleteReadError:
        return None


def chunk(piece: bytes) -> bytes:
    """Give a piece of a body as HTTP's chunked encoding has it."""
    return b"%x\r\n%b\r\n" % (len(piece), piece)


def whole(body: object, status: int = 200, head: str = "") -> list[Step]:
    """Give the steps of an answer that is one JSON value; ``head`` is further lines, each with its end."""
    sent = json.dumps(body).encode()
    head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n{head}content-length: {len(sent)}\r\n\r\n"
    return [head.encode() + sent]


def streamed(*steps: Step) -> list[Step]:
    """Give the steps of a streamed answer, each piece of which is a chunk."""
    return [HEAD + CHUNKED, *(chunk(step) if isinstance(step, bytes) else step for step in steps), LAST_CHUNK]
