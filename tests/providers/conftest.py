"""A scripted HTTP server on 127.0.0.1, which can also break every rule."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import pytest

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Mapping, Sequence

Step = bytes | asyncio.Event | Literal["reset", "close", "hold"]
"""Bytes to send; an event to wait for; or: reset the connection, close it, or keep it open till the client goes."""

PATIENCE = 10.0  # seconds within which what a test waits for must happen


@dataclass
class Received:
    """A request as the server saw it."""

    path: str
    headers: dict[str, str]
    body: bytes
    connection: int

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Loopback:
    """A server that gives its answers in turn; the last one is given again and again."""

    answers: Sequence[Sequence[Step]]
    url: str = ""
    port: int = 0
    requests: list[Received] = field(default_factory=list)
    connections: int = 0
    open: int = 0
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)  # the last connection is gone
    writers: dict[asyncio.Task[None], asyncio.StreamWriter] = field(default_factory=dict)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        number = self.connections
        task = asyncio.current_task()
        assert task is not None
        self.writers[task] = writer
        try:
            while (request := await _read_request(reader, number)) is not None:
                answer = self.answers[min(len(self.requests), len(self.answers) - 1)]
                self.requests.append(request)
                self.asked.set()
                for step in answer:
                    if not await _play(step, reader, writer):
                        return
        except ConnectionError:
            pass
        finally:
            self.open -= 1
            if not self.open:
                self.left.set()
            writer.close()

    async def stop(self) -> None:
        """End what still runs by closing its connection: a cancelled handler would be reported as an error."""
        for step in (step for answer in self.answers for step in answer):
            if isinstance(step, asyncio.Event):
                step.set()
        for writer in self.writers.values():
            writer.transport.abort()
        await asyncio.gather(*self.writers, return_exceptions=True)


async def _read_request(reader: asyncio.StreamReader, connection: int) -> Received | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.strip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Received(first.split()[1], headers, body, connection)


async def _play(step: Step, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Do one step; say whether the connection goes on."""
    if isinstance(step, bytes):
        writer.write(step)
        await writer.drain()
        return True
    if isinstance(step, asyncio.Event):
        await step.wait()
        return True
    if step == "hold":
        await reader.read()
    elif step == "reset":
        raw = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
    return False


class Serve:
    """Starts servers, and writes down answers for them."""

    def __init__(self) -> None:
        self.running: list[tuple[asyncio.Server, Loopback]] = []

    async def __call__(self, *answers: Sequence[Step], tls: ssl.SSLContext | None = None) -> Loopback:
        made = Loopback(answers)
        server = await asyncio.start_server(made.serve, "127.0.0.1", 0, ssl=tls)
        self.running.append((server, made))
        made.port = server.sockets[0].getsockname()[1]
        made.url = f"{'https' if tls else 'http'}://127.0.0.1:{made.port}/v1"
        return made

    @staticmethod
    def whole(body: object, status: int = 200, headers: Mapping[str, str] | None = None) -> list[Step]:
        """An answer in one piece; what is not bytes is sent as JSON."""
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        fields = {"content-type": "application/json", **(headers or {})}
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        return [f"HTTP/1.1 {status} X\r\n{lines}content-length: {len(sent)}\r\n\r\n".encode() + sent]

    @staticmethod
    def stream(*pieces: Step, end: bool = True, kind: str = "text/event-stream") -> list[Step]:
        """A streamed answer, one HTTP chunk for each piece."""
        steps: list[Step] = [f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n".encode()]
        steps += [b"%x\r\n%b\r\n" % (len(one), one) if isinstance(one, bytes) else one for one in pieces]
        return [*steps, b"0\r\n\r\n"] if end else steps

    @staticmethod
    def event(value: object) -> bytes:
        """One server-sent event."""
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        return b"data: " + data + b"\n\n"

    @staticmethod
    def chunk(text: str | None = None, finish: str | None = None, choice: int = 0, **delta: Any) -> dict[str, Any]:
        """A chunk of the chat dialect."""
        said = {**({"content": text} if text is not None else {}), **delta}
        return {"id": "c1", "model": "m1", "choices": [{"index": choice, "delta": said, "finish_reason": finish}]}


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """A starter of servers, which are stopped after the test."""
    made = Serve()
    yield made
    for server, loopback in made.running:
        server.close()
        await loopback.stop()
