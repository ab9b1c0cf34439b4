"""A process of its own for a tool call, which ends when it must, whatever the tool does.

Each call starts one process, the leader of a session of its own, and speaks with it in JSON over a socket: a `Job`, one
line, then the result, one line. The process is killed with its session when the result is there, when the time is up,
and when the caller is cancelled. A pipe, the lifeline, is only held: when this process is gone, however it went, the
system closes it, and the other one ends. What happens inside that process is told in `plait.isolated`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self
from weakref import WeakKeyDictionary

import msgspec

from plait.errors import ToolError
from plait.homes import Home
from plait.messages import ToolResult
from plait.plain import parse_json, to_json
from plait.workers import WORKERS

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from plait.messages import ToolCall
    from plait.run import RunContext

MAX_ANSWER: Final = 64_000_000
"""Bytes of JSON that are read of what a process gives."""
MAY_HAVE_HAPPENED: Final = "what it did until then may have happened: find out before you repeat it"

_EXITS: Final = 0.5
"""Seconds that a process has to exit after its result, before it is killed."""
_DIES: Final = 5.0
"""Seconds in which a killed process is gone; one that the system cannot end is given up."""
_LOOKS_AGAIN: Final = (0.0005, 0.02)
"""Seconds between looks for a process that was killed: the first, and the longest."""
_PIECE: Final = 262_144
_QUICK: Final = 1_000_000
"""Bytes of JSON that are decoded in less than the time an event loop may stand still."""
_PROCESSES: Final = Path("/proc")
_BOOT: Final = (
    "import json, sys; line = open(int(sys.argv[1]), 'rb', closefd=False).readline() or sys.exit(); "
    "job = json.loads(line); sys.path[:] = job['path']; from plait.isolated import main; main(job, *sys.argv[1:])"
)

logger = logging.getLogger("plait.tools")

REFUSALS: Final[list[Callable[[], None]]] = []
"""What a process that is still looking for its tool does about a call of another one; it does not return."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What a process is told.

    Attributes:
        path: `sys.path` of this process.
        argv: its `sys.argv`.
        home: where the tool is.
        call: the model's call, in its own words.
        user_id, thread_id, chat_id, run_id, agent_name: as in the run's context.
        secrets: the run's secrets, for tools that take them, and so that none is in a result.
        max_result: characters of the result.
    """

    path: list[str]
    argv: list[str]
    home: Home
    call: dict[str, Any]
    user_id: str
    thread_id: str
    chat_id: str
    run_id: str
    agent_name: str
    secrets: dict[str, str]
    max_result: int


async def call_isolated(home: Home, call: ToolCall, context: RunContext[Any], max_result: int) -> ToolResult:
    """Carry out a tool call in a process of its own. Nothing of it is left when this returns or raises.

    Args:
        home: where the tool is.
        call: the call.
        context: what the tool may take of the run.
        max_result: characters of the result.

    Raises:
        ToolError: the process could not be started, or ended without a result; the sentence says how.
    """
    for refuse in REFUSALS:
        refuse()
    job = Job(
        path=[str(entry) for entry in sys.path],
        argv=sys.argv,
        home=home,
        call=call.to_json(),
        user_id=context.user_id,
        thread_id=context.thread_id,
        chat_id=context.chat_id,
        run_id=context.run_id,
        agent_name=context.agent_name,
        secrets={name: secret.reveal() for name, secret in context.secrets.items()},
        max_result=max_result,
    )
    async with _turn():  # a start holds up the event loop, in a thread as well: between two, others have their turn
        await asyncio.sleep(0)
        child = _Child(call.name)
    async with child:
        answer = await child.ask(to_json(job) + b"\n")
    if not answer.endswith(b"\n"):
        raise ToolError(_how_it_ended(call.name, len(answer), child.exit_code))
    read = partial(_read, answer)
    return read() if len(answer) < _QUICK else await WORKERS.run(read)


def _read(answer: bytes) -> ToolResult:
    return ToolResult.model_validate(parse_json(answer))


_turns: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock]] = WeakKeyDictionary()


def _turn() -> asyncio.Lock:
    loop = asyncio.get_running_loop()
    lock = _turns.get(loop)
    if lock is None:
        lock = _turns[loop] = asyncio.Lock()
    return lock


def _how_it_ended(tool: str, said: int, code: int | None) -> str:
    if said > MAX_ANSWER:
        return f"the tool {tool!r} gave more than {MAX_ANSWER:,} bytes, and was ended; {MAY_HAVE_HAPPENED}"
    if code is None or code >= 0:
        how = f"with exit code {code}"
    else:
        how = f"by {signal.Signals(-code).name if -code in set(signal.Signals) else f'signal {-code}'}"
        if -code == signal.SIGKILL:
            how += ", as the system does where memory is short"
    return f"the process of the tool {tool!r} ended {how}, without a result; {MAY_HAVE_HAPPENED}"


class _Child:
    """A process, from its start to its end.

    Raises:
        ToolError: it could not be started.
    """

    __slots__ = ("_held", "_process", "_socket", "_tool")

    def __init__(self, tool: str) -> None:
        self._tool = tool
        with ExitStack() as held:
            try:
                self._socket, theirs = socket.socketpair()
                held.enter_context(self._socket)
                with theirs:
                    line, lifeline = os.pipe()
                    held.callback(os.close, lifeline)
                    with open(line, "rb", buffering=0):  # noqa: PTH123  # no path; it is closed with the block
                        self._process = _start(theirs, line)
            except OSError as error:
                msg = f"the process of the tool {tool!r} could not be started: {error.strerror}"
                raise ToolError(msg) from None
            self._socket.setblocking(False)  # noqa: FBT003  # a method of Python's
            self._held = held.pop_all()

    @property
    def exit_code(self) -> int | None:
        """Its exit code, below 0 for the signal that ended it; None while it is there."""
        return self._process.returncode

    async def ask(self, line: bytes) -> bytes:
        """Say one line, and give all that the process answers, with the line's end if that came.

        A process that has answered has half a second to exit by itself.
        """
        loop = asyncio.get_running_loop()
        pieces: list[bytes] = []
        left = MAX_ANSWER
        timer: asyncio.TimerHandle | None = None
        try:
            with suppress(ConnectionError):  # it ended meanwhile; what it said before can be read, or nothing
                await loop.sock_sendall(self._socket, line)
            with suppress(ConnectionError):
                while left >= 0 and (piece := await loop.sock_recv(self._socket, _PIECE)):
                    pieces.append(piece)
                    left -= len(piece)
                    if timer is None and piece.endswith(b"\n"):
                        timer = loop.call_later(_EXITS, self.kill)
        finally:
            if timer is not None:
                timer.cancel()
        return b"".join(pieces)

    def kill(self) -> None:
        """Kill the process and its session, and wake up who waits for its answer."""
        if self._process.returncode is None:  # as long as it is not reaped, nobody else has its number
            leader = self._process.pid
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(leader, signal.SIGKILL)
            for member in _others_of(leader):
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(member, signal.SIGKILL)
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        self._held.close()
        if kind is not None and issubclass(kind, GeneratorExit):  # the event loop is gone: nobody can wait but here
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_DIES)
            return
        await self._reap()

    async def _reap(self) -> None:
        """Wait until the process is gone, also when this is cancelled meanwhile."""
        loop = asyncio.get_running_loop()
        until = loop.time() + _DIES
        pause, longest = _LOOKS_AGAIN
        cancelled: asyncio.CancelledError | None = None
        while self._process.poll() is None:
            if loop.time() > until:
                logger.warning(
                    "the process %d of the tool %r was killed and is still there", self._process.pid, self._tool
                )
                break
            try:
                await asyncio.sleep(pause)
            except asyncio.CancelledError as error:
                cancelled = error
            pause = min(2 * pause, longest)
        if cancelled is not None:
            raise cancelled


def _start(theirs: socket.socket, line: int) -> subprocess.Popen[bytes]:
    theirs.setblocking(True)  # noqa: FBT003  # a method of Python's; there may be a default time-out for sockets
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # noqa: SLF001  # as multiprocessing does
    fds = (theirs.fileno(), line)
    return subprocess.Popen(  # noqa: S603  # this interpreter
        [sys.executable, *flags, "-c", _BOOT, *map(str, fds)],
        stdin=subprocess.DEVNULL,
        pass_fds=fds,
        start_new_session=True,
    )


def _others_of(leader: int) -> list[int]:
    """Give the processes of a session that set up groups of their own, as shells do; where the system lists them."""
    found = []
    with suppress(OSError):
        for name in os.listdir(_PROCESSES):  # noqa: PTH208  # names are all that is needed
            with suppress(ValueError, OSError):
                if os.getsid(int(name)) == leader != int(name):
                    found.append(int(name))
    return found
