"""A process of its own for a tool call, which ends when it must, whatever the tool does.

Each call starts one process, the leader of a session of its own, and speaks with it over a socket, in lines: a `Job` in
JSON, then `BEGUN` when it calls the tool, where the tool's time begins, then the result in JSON. Threads wait for the
starts, one for each processor: they are the queue of all event loops, and one that stands still holds up no other. The
process is killed with its session when the result is there, when the time is up, and when the caller is cancelled. A
pipe, the lifeline, is only held: when this process is gone, however it went, the system closes it, and the other one
ends. What happens inside that process is told in `plait.isolated`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack, suppress
from contextvars import Context
from functools import partial
from math import inf
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Self

import msgspec

from plait.errors import ToolError
from plait.homes import Home
from plait.messages import ToolResult
from plait.plain import parse_json, to_json
from plait.workers import STARTERS, WORKERS

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from plait.messages import ToolCall
    from plait.run import RunContext

MAX_ANSWER: Final = 64_000_000
"""Bytes of JSON that are read of what a process gives."""
MAY_HAVE_HAPPENED: Final = "what it did until then may have happened: find out before you repeat it"
BEGUN: Final = b"begun\n"
"""What a process says when it calls its tool; shorter than any result."""
STARTS_WITHIN: Final = 30.0
"""Seconds in which a process begins to call its tool; those of the tool where they are more."""

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
    "import gc, json, sys; gc.disable(); line = open(int(sys.argv[1]), 'rb', closefd=False).readline() or sys.exit(); "
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


async def call_isolated(
    home: Home,
    call: ToolCall,
    context: RunContext[Any],
    max_result: int,
    seconds: float = inf,
    *,
    starts_within: float = STARTS_WITHIN,
) -> ToolResult:
    """Carry out a tool call in a process of its own. Nothing of it is left when this returns or raises.

    Args:
        home: where the tool is.
        call: the call.
        context: what the tool may take of the run.
        max_result: characters of the result.
        seconds: how long the tool may take, from when it is called.
        starts_within: seconds that the process may take until then, or ``seconds`` where they are more; the time it
            waits for others to start is not among them.

    Raises:
        ToolError: the process did not start, ran out of time, or ended without a result; the sentence says which.
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
    async with _Child(call.name) as child:
        await STARTERS.run(partial(child.start, to_json(job) + b"\n", max(starts_within, seconds)))
        answer = await child.answer(seconds)
    if not answer.endswith(b"\n"):
        raise ToolError(_without_result(child, len(answer), seconds))
    read = partial(_read, answer)
    return read() if len(answer) < _QUICK else await WORKERS.run(read)


def _read(answer: bytes) -> ToolResult:
    return ToolResult.model_validate(parse_json(answer))


def _without_result(child: _Child, said: int, seconds: float) -> str:
    tool = child.tool
    if child.expired:
        return (
            f"the tool {tool!r} gave no result within {seconds:g} seconds and was killed, with all that it started; "
            f"{MAY_HAVE_HAPPENED}"
        )
    if said > MAX_ANSWER:
        return f"the tool {tool!r} gave more than {MAX_ANSWER:,} bytes, and was ended; {MAY_HAVE_HAPPENED}"
    code = child.exit_code
    if code is None or code >= 0:
        how = f"with exit code {code}"
    else:
        how = f"by {signal.Signals(-code).name if -code in set(signal.Signals) else f'signal {-code}'}"
        if -code == signal.SIGKILL:
            how += ", as the system does where memory is short"
    if not child.begun:
        return f"the process for the tool {tool!r} ended {how} before it began; it was not called"
    return f"the process of the tool {tool!r} ended {how}, without a result; {MAY_HAVE_HAPPENED}"


class _Child:
    """A process, from its start to its end.

    A thread starts it while an event loop may kill it at any time: what is killed before it is there never comes.

    Attributes:
        tool: the name of its tool.
        begun: it has said that it calls the tool.
        expired: it was killed because its time was up.
    """

    __slots__ = (
        "_began",
        "_head",
        "_held",
        "_killed",
        "_making",
        "_process",
        "_socket",
        "_starting",
        "begun",
        "expired",
        "tool",
    )

    def __init__(self, tool: str) -> None:
        self.tool = tool
        self.begun = self.expired = self._killed = False
        self._began = 0.0
        self._head = b""
        self._held = ExitStack()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._starting = threading.Lock()  # held by the thread as long as it uses the socket
        self._making = threading.Lock()  # held while it is made, and while it is said that it shall not be

    @property
    def exit_code(self) -> int | None:
        """Its exit code, below 0 for the signal that ended it; None while it is there."""
        return None if self._process is None else self._process.returncode

    def start(self, job: bytes, seconds: float) -> None:
        """Start it, tell it one line, and wait until it calls the tool, or says why not; blocks.

        Args:
            job: the line.
            seconds: how long that may take.

        Raises:
            ToolError: it could not be started, or not in time.
        """
        with self._starting:
            until = monotonic() + seconds
            with self._making:
                if self._killed:
                    return
                ours = self._make()
            try:
                with suppress(ConnectionError):  # it ended meanwhile
                    ours.settimeout(None if seconds == inf else seconds)
                    ours.sendall(job)
                with suppress(ConnectionError):
                    while left := len(BEGUN) - len(self._head):
                        ours.settimeout(None if seconds == inf else max(until - monotonic(), 0.001))
                        piece = ours.recv(left)
                        if not piece:
                            break
                        self._head += piece
            except TimeoutError:
                named = f"the process for the tool {self.tool!r}"
                msg = f"{named} did not start within {seconds:g} seconds; it was not called"
                raise ToolError(msg) from None
            self._began = monotonic()
            if self._head == BEGUN:
                self.begun, self._head = True, b""
            ours.setblocking(False)  # noqa: FBT003  # a method of Python's

    def _make(self) -> socket.socket:
        with ExitStack() as held:
            try:
                ours, theirs = socket.socketpair()
                held.enter_context(ours)
                with theirs:
                    line, lifeline = os.pipe()
                    held.callback(os.close, lifeline)
                    with open(line, "rb", buffering=0):  # noqa: PTH123  # no path; it is closed with the block
                        self._process = _start(theirs, line)
            except OSError as error:
                msg = f"the process of the tool {self.tool!r} could not be started: {error.strerror}"
                raise ToolError(msg) from None
            self._held = held.pop_all()
        self._socket = ours
        return ours

    async def answer(self, seconds: float) -> bytes:
        """Give all that the started process answers, with the line's end if that came.

        It is killed when the time of its tool is up. When it has answered it has half a second to exit by itself.

        Args:
            seconds: the time of its tool, since that was called.
        """
        assert self._socket is not None  # noqa: S101  # it is started, and only its caller ends it
        loop = asyncio.get_running_loop()
        pieces = [self._head]
        left = MAX_ANSWER
        timer = None
        if seconds < inf:  # a timer of no context: a cancelled one would hold the caller's until its time
            timer = loop.call_later(self._began + seconds - monotonic(), self._expire, context=Context())
        answered = False
        try:
            with suppress(ConnectionError):  # it ended meanwhile; what it said before can be read, or nothing
                while left >= 0 and (piece := await loop.sock_recv(self._socket, _PIECE)):
                    pieces.append(piece)
                    left -= len(piece)
                    if not answered and piece.endswith(b"\n"):
                        answered = True
                        if timer is not None:
                            timer.cancel()
                        timer = loop.call_later(_EXITS, self.kill)
        finally:
            if timer is not None:
                timer.cancel()
        return b"".join(pieces)

    def _expire(self) -> None:
        self.expired = True
        self.kill()

    def kill(self) -> None:
        """Kill the process and its session, and wake up who waits for its answer."""
        with self._making:
            self._killed = True
        if self._process is None or self._socket is None:
            return
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
        try:
            if kind is not None and issubclass(kind, GeneratorExit):  # the event loop is gone: nobody can wait but here
                if self._starting.acquire(timeout=_DIES):
                    self._starting.release()
                if self._process is not None:
                    with suppress(subprocess.TimeoutExpired):
                        self._process.wait(_DIES)
                return
            await self._reap()
        finally:
            self._held.close()

    def _is_gone(self) -> bool:
        return not self._starting.locked() and (self._process is None or self._process.poll() is not None)

    async def _reap(self) -> None:
        """Wait until the process is gone, also when this is cancelled meanwhile."""
        loop = asyncio.get_running_loop()
        until = loop.time() + _DIES
        pause, longest = _LOOKS_AGAIN
        cancelled: asyncio.CancelledError | None = None
        while not self._is_gone():
            if loop.time() > until:
                number = self._process and self._process.pid
                logger.warning("the process %s of the tool %r was killed and is still there", number, self.tool)
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
