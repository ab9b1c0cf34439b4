"""Tools that run in processes of their own; a module, because such a process imports it."""

from __future__ import annotations

import asyncio
import ctypes
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel
from typing_extensions import override

from plait import ImagePart, Secret, ToolError, tool
from plait.tools import Tool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

PNG = b"\x89PNG\r\n\x1a\n"
SECONDS = 1.5  # longer than a process takes to begin


class Point(BaseModel):
    x: int
    y: int = 0


@tool(isolate=True)
def add(a: int, b: int = 10) -> int:
    return a + b


@tool(isolate=True)
async def length(points: list[Point]) -> dict[str, Any]:
    await asyncio.sleep(0)
    return {"points": len(points), "far": max(point.x for point in points)}


@tool(isolate=True)
def pieces() -> Iterator[str]:
    yield "one "
    yield "two"


@tool(isolate=True)
async def pieces_in_time() -> AsyncIterator[str]:
    yield "one "
    await asyncio.sleep(0)
    yield "two"


@tool(isolate=True)
def loop_of_its_own() -> str:
    return asyncio.run(asyncio.sleep(0, "done"))


@tool(isolate=True)
def picture(size: int) -> bytes:
    return PNG + bytes(size)


@tool(isolate=True)
def pictures(count: int) -> list[ImagePart]:
    return [ImagePart(data=bytes(9_900_000))] * count


@tool(isolate=True, max_result=20)
def long_text(size: int) -> str:
    return "x" * size


@tool(isolate=True)
def half_a_pair(text: str) -> str:
    return text + "\udc00"


@tool(isolate=True)
def chatty() -> str:
    print("{}", flush=True)  # noqa: T201  # what it is about
    os.write(1, b"\n\n")
    sys.stderr.write("{}\n")
    return "said"


@tool(isolate=True)
def closes_its_output() -> str:
    sys.stdout.close()
    return "said"


@tool(isolate=True)
def refuses() -> str:
    msg = "no such city"
    raise ToolError(msg)


@tool(isolate=True)
def raises() -> str:
    msg = "key=sk-secret-0123456789abcdef\nsecond line"
    raise ValueError(msg)


@tool(isolate=True)
def formless() -> object:
    return object()


@tool(isolate=True)
def who(user_id: str, chat_id: str, thread_id: str, agent_name: str, asked: str) -> list[str]:
    return [user_id, chat_id, thread_id, agent_name, asked]


@tool(isolate=True)
def pay(token: Secret, note: str) -> dict[str, Any]:
    seen = Path("/proc/self/environ").read_bytes() + Path("/proc/self/cmdline").read_bytes()
    return {"token": token.reveal(), "note": note[::-1], "elsewhere": token.reveal().encode() in seen}


@tool(isolate=True)
def refuses_to_pay(token: Secret) -> None:
    msg = f"{token.reveal()} was refused"
    raise ValueError(msg)


@tool(isolate=True)
def without_color(color: str = "none", token: Secret | None = None) -> str:
    return f"{color} {token}"


class Doubles(Tool):
    name = "doubles"
    description = "Doubles a number."
    isolate = True
    max_result = 5

    @override
    def execute(self, number: int) -> str:
        return str(number) * 2


def by_hand(text: str) -> str:
    return text.upper()


def plainly(text: str) -> str:
    return text.lower()


# --- those that do not end ------------------------------------------------------------------------------------------


def tell(path: str, *more: int) -> None:
    """Say in a file which processes are there; it is whole when it is there."""
    unfinished = Path(f"{path}.unfinished")
    unfinished.write_text(" ".join(map(str, (os.getpid(), *more))))
    unfinished.rename(path)


@tool(isolate=True, timeout=SECONDS)
def spins(path: str) -> None:
    tell(path)
    while True:
        pass


@tool(isolate=True, timeout=SECONDS)
def holds_the_interpreter(path: str) -> None:
    tell(path)
    re.match(r"(a+)+$", "a" * 60 + "b")


@tool(isolate=True, timeout=SECONDS)
def sleeps_in_c(path: str) -> None:
    tell(path)
    ctypes.PyDLL(None).sleep(60)  # which keeps the interpreter to itself


@tool(isolate=True, timeout=SECONDS)
async def deaf(path: str) -> None:
    for number in (signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: None)
    tell(path)
    while True:
        try:
            await asyncio.sleep(60)
        except BaseException:  # noqa: BLE001, S112  # it does not listen to anything
            continue


@tool(isolate=True, timeout=SECONDS)
def starts_others(path: str) -> None:
    command = ["sleep", "60"]
    plain = subprocess.Popen(command)
    of_its_own_group = subprocess.Popen(command, process_group=0)
    left = subprocess.run(["sh", "-c", "sleep 60 >/dev/null & echo $!"], stdout=subprocess.PIPE, check=True)
    forked = os.fork()
    if not forked:
        time.sleep(60)
    tell(path, plain.pid, of_its_own_group.pid, int(left.stdout), forked)
    time.sleep(60)


@tool(isolate=True)
def leaves_others(path: str) -> str:
    tell(path, subprocess.Popen(["sleep", "60"]).pid)
    threading.Thread(target=time.sleep, args=(60,)).start()
    return "done"


@tool(isolate=True)
def leaves_a_fork(path: str) -> None:
    if forked := os.fork():
        tell(path, forked)
        os._exit(5)
    time.sleep(60)


@tool(isolate=True)
def ends(how: str) -> None:
    match how:
        case "exit":
            os._exit(3)
        case "exit well":
            os._exit(0)
        case "sys.exit":
            sys.exit(4)
        case "segfault":
            ctypes.string_at(0)
        case "abort":
            os.abort()
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "odd signal":
            os.kill(os.getpid(), signal.SIGRTMIN + 3)
        case _:  # no memory
            resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))
            bytearray(2**40)
