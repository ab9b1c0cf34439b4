"""MCP servers for tests: child processes, and one that says over HTTP exactly what a test tells it to."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence

    from plait.messages import ToolResult
    from plait.toolbase import Tool

HERE = Path(__file__).parent / "mcp"
WITHIN = 20.0
MOST_SAID = 100_000  # one argument of a program has at most 128 KiB
TOOL = {"name": "act", "description": "Act.", "inputSchema": {"type": "object", "properties": {}}}


def raw(**plan: Any) -> list[str]:
    """Give the command of a server that speaks raw lines and does what the plan says."""
    said = json.dumps(plan)
    if len(said) > MOST_SAID:
        Path("plan.json").write_text(said)
        said = "@plan.json"
    return [sys.executable, "-S", "-E", str(HERE / "raw_server.py"), said]


def official(*arguments: str) -> list[str]:
    """Give the command of a server made with the official SDK."""
    return [sys.executable, str(HERE / "sdk_server.py"), *arguments]


def noted(log: Path, word: str) -> list[str]:
    """Give what a raw server noted behind a word."""
    lines = log.read_text().splitlines() if log.exists() else []
    return [line.removeprefix(word).strip() for line in lines if line.startswith(word)]


def pids(log: Path) -> list[int]:
    """Give the processes that were started."""
    return [int(pid) for word in ("start", "grandchild") for pid in noted(log, word)]


def is_alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(pid: int) -> bool:
    """Wait until a process is gone."""
    until = time.monotonic() + WITHIN
    while is_alive(pid) and time.monotonic() < until:
        time.sleep(0.005)
    return not is_alive(pid)


async def until(true: Callable[[], Any]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(WITHIN):
        while not true():  # noqa: ASYNC110  # of what another process does there is no event
            await asyncio.sleep(0.005)


async def call(tools: Mapping[str, Tool], name: str, **arguments: Any) -> ToolResult:
    """Call a tool as the executor does."""
    result: ToolResult = await tools[name].execute(**arguments)
    return result


def free_port() -> int:
    """Give a port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def listening(kind: str, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server of the official SDK over HTTP."""
    process = subprocess.Popen(official(kind, str(port)), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        until = time.monotonic() + WITHIN
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 0.2).close()
                break
            except OSError:
                assert process.poll() is None
                assert time.monotonic() < until
                time.sleep(0.02)
        yield process
    finally:
        process.kill()
        process.wait()


class Asked(NamedTuple):
    """A request."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


class Talk:
    """What a server over HTTP may say, on one connection."""

    def __init__(self, asked: Asked, writer: asyncio.StreamWriter) -> None:
        self.asked = asked
        self.writer = writer

    @property
    def id(self) -> Any:
        """The id of the request."""
        return self.asked.body.get("id")

    @property
    def rpc(self) -> str:
        """The method of the message, or of the request where there is none."""
        return str(self.asked.body.get("method", "")) if self.asked.body else self.asked.method

    def answer(self, status: int, body: bytes = b"", kind: str = "application/json", **headers: str) -> None:
        """Say an answer as a whole."""
        lines = [f"HTTP/1.1 {status} X", f"content-length: {len(body)}", f"content-type: {kind}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.writer.write("\r\n".join([*lines, "", ""]).encode() + body)

    def result(self, result: Any, **headers: str) -> None:
        """Answer the request with a result."""
        self.answer(200, json.dumps({"jsonrpc": "2.0", "id": self.id, "result": result}).encode(), **headers)

    def events(self, *events: bytes, end: bool = True) -> None:
        """Say events."""
        self.writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
            + b"".join(b"%x\r\n%s\r\n" % (len(event), event) for event in events)
            + (b"0\r\n\r\n" if end else b"")
        )

    def usual(self, tools: Sequence[Any] = (TOOL,), **headers: str) -> bool:
        """Answer what comes before a call as a server should; say whether this was it."""
        version = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}}
        match self.rpc:
            case "initialize":
                self.result({**version, "serverInfo": {"name": "raw", "version": "1"}}, **headers)
            case "tools/list":
                self.result({"tools": list(tools)})
            case "notifications/initialized" | "notifications/cancelled":
                self.answer(202)
            case "GET" | "DELETE":
                self.answer(405)
            case _:
                return False
        return True


@asynccontextmanager
async def saying(handle: Callable[[Talk], Awaitable[None] | None]) -> AsyncGenerator[tuple[str, list[Asked]], None]:
    """Run a server that answers each request by a function; give its URL and what it was asked."""
    seen: list[Asked] = []
    connections: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        task.add_done_callback(connections.discard)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                first, *lines = head.decode().splitlines()
                headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                method, path, _ = first.split(" ", 2)
                asked = Asked(method, path, headers, json.loads(body) if body else None)
                seen.append(asked)
                waits = handle(Talk(asked, writer))
                if waits is not None:
                    await waits
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # it is over; asyncio's streams take no other end
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/mcp", seen
    finally:
        server.close()
        for task in tuple(connections):
            task.cancel()
        if connections:
            await asyncio.wait(tuple(connections))
        await server.wait_closed()


def open_files() -> int:
    """How many files, sockets and pipes this process has open."""
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208  # a count
