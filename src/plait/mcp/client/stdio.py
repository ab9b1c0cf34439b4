"""A server as a child process: its lines are messages, and nothing of it is left in the end.

The SDK's own stdio transport has no bound on a line and waits for the end of a pipe that a grandchild may hold. This
one gives up a line beyond `MAX_LINE`, takes the end of the process for the end, and has the child lead a process group
that is killed whole: on closing, at the end of the event loop, and when Python ends this process. A process ended by a
signal that Python does not see (SIGKILL, and SIGTERM unless somebody handles it) cannot kill it any more; its server
finds its input ended, and what that started is up to it. Loaded with the SDK.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import weakref
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Self, cast

import anyio
from mcp.client.stdio import get_default_environment
from mcp.shared.message import SessionMessage
from mcp_types import ErrorData, JSONRPCError, JSONRPCRequest, jsonrpc_message_adapter
from typing_extensions import override

from plait.errors import excerpt
from plait.mcp.client.failures import CannotReach, Unsent

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from types import TracebackType

    from plait.mcp.client.redact import Redactor
    from plait.mcp.client.targets import Command

MAX_LINE: Final = 16_000_000
"""Bytes of one message."""
_TOO_LONG: Final = -32_955
_AHEAD: Final = 64
"""Messages read before they are asked for; then the child has to wait."""
_STAYS: Final = 0.5
"""Seconds for a child to end by itself once its input has ended,"""
_ENDS: Final = 0.5
"""and after it was told to. The protocol asks for this order; the times are ours."""
_LOOKS_AGAIN: Final = 0.005
_DRAINS: Final = 0.2
"""Seconds in which what a dead child has written is still read."""
_TAIL: Final = 2_000
_EDGE: Final = 300
_NUMBER: Final = (
    rb'^\{"jsonrpc":\s*"2\.0",\s*"id":\s*(\d{1,18})[,}]|"id":\s*(\d{1,18})\s*(?:,\s*"jsonrpc":\s*"2\.0"\s*)?\}\s*$'
)


class ChildStreams:
    """A transport of the SDK: entered, it starts the server; left, it ends it.

    Args:
        command: the program.
        warn: told what the child did wrong.
        redact: takes secrets out of what it says.
    """

    def __init__(self, command: Command, warn: Callable[[str], None], redact: Redactor) -> None:
        self._command = command
        self._warn = warn
        self._redact = redact
        self._child: Child | None = None

    @property
    def last_words(self) -> str:
        """What the server wrote last to its standard error, for an error sentence."""
        return self._child.last_words if self._child else ""

    def kill(self) -> None:
        """Kill the server at once: its event loop is gone."""
        if self._child is not None:
            self._child.kill()

    async def __aenter__(self) -> tuple[ChildOutput, ChildInput]:
        loop, command = asyncio.get_running_loop(), self._command
        env = {**get_default_environment(), **{name: value.reveal() for name, value in command.env.items()}}
        try:
            transport, child = await loop.subprocess_exec(
                lambda: Child(self._warn, self._redact), *command.argv, env=env, cwd=command.cwd, start_new_session=True
            )
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
            msg = f"the program {excerpt(command.argv[0], 100)!r} cannot be started: {why}"
            raise CannotReach(msg) from None
        child.started(transport)
        self._child = child
        return child.output, child.input

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._child is not None:
            await _outlasting(self._child.end())


async def _outlasting(ending: Coroutine[Any, Any, None]) -> None:
    """Await the end of a child, which is bounded, whoever is cancelled meanwhile."""
    with anyio.CancelScope(shield=True):
        task = asyncio.ensure_future(ending)
        cancelled = None
        while not task.done():
            try:
                await asyncio.shield(task)
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled
        task.result()


class Child(asyncio.SubprocessProtocol):
    """The process: cuts its output into messages, and ends it.

    Attributes:
        output, input: what the SDK reads and writes.
    """

    def __init__(self, warn: Callable[[str], None], redact: Redactor) -> None:
        self.output = ChildOutput(self)
        self.input = ChildInput(self)
        self._warn = warn
        self._redact = redact
        self._line = bytearray()
        self._edges: tuple[bytes, bytes] | None = None
        self._said = b""
        self._exited = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()

    def started(self, transport: asyncio.SubprocessTransport) -> None:
        """Take what the event loop calls the process."""
        self._transport = transport
        self._stdin = cast("asyncio.WriteTransport", transport.get_pipe_transport(0))
        self._stdout = cast("asyncio.ReadTransport", transport.get_pipe_transport(1))
        self.kill = weakref.finalize(self, _kill_group, transport.get_pid(), os.getpid())

    @property
    def last_words(self) -> str:
        """What it wrote last to its standard error, for an error sentence."""
        text = self._redact(self._said.decode("utf-8", "replace"), is_tail=len(self._said) == _TAIL)
        return excerpt(text.strip().rpartition("\n")[2])

    @override
    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if fd == 1:
            self._cut(data)
        else:
            self._said = (self._said + data)[-_TAIL:]

    @override
    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        if fd == 1:
            self.output.end()
        elif fd == 0:
            self._writable.set()

    @override
    def process_exited(self) -> None:
        self._exited.set()
        self._writable.set()
        # Somebody else may hold its pipes open.
        asyncio.get_running_loop().call_later(_DRAINS, self.output.end)

    def pause_writing(self) -> None:
        """Be told that the child does not read."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Be told that it reads again."""
        self._writable.set()

    def hold(self) -> None:
        """Let the child wait until it is read."""
        self._stdout.pause_reading()

    def go_on(self) -> None:
        """Read on."""
        self._stdout.resume_reading()

    def _cut(self, data: bytes) -> None:
        *ended, rest = data.split(b"\n")
        for piece in ended:
            self._add(piece)
            line, edges = bytes(self._line), self._edges
            self._line.clear()
            self._edges = None
            if edges is not None:
                self._answer_for(*edges)
            elif line.strip():
                self._read(line)
        self._add(rest)

    def _add(self, piece: bytes) -> None:
        """Add to the line; of one that is too long, keep both ends."""
        if self._edges is not None:
            self._edges = (self._edges[0], (self._edges[1] + piece)[-_EDGE:])
        elif len(self._line) + len(piece) <= MAX_LINE:
            self._line += piece
        else:
            self._line += piece
            self._edges = (bytes(self._line[:_EDGE]), bytes(self._line[-_EDGE:]))
            self._line.clear()

    def _read(self, line: bytes) -> None:
        try:
            message = jsonrpc_message_adapter.validate_json(line, by_name=False)
        except ValueError:
            self._warn("writes lines to its standard output that are no messages; they are skipped")
            return
        self.output.put(SessionMessage(message))

    def _answer_for(self, head: bytes, tail: bytes) -> None:
        """Give an error for the answer that a line too long was, as far as its ends tell whose."""
        self._warn(f"wrote a line of more than {MAX_LINE:,} bytes; it is skipped")
        found = re.search(_NUMBER, head) or re.search(_NUMBER, tail)
        if found:
            said = f"the answer has more than {MAX_LINE:,} bytes"
            error = ErrorData(code=_TOO_LONG, message=said)
            number = int(found[1] or found[2])
            self.output.put(SessionMessage(JSONRPCError(jsonrpc="2.0", id=number, error=error)))

    async def write(self, line: bytes) -> None:
        """Write a line, once the child reads.

        Raises:
            BrokenResourceError: the child has ended, and has not got the line.
        """
        await self._writable.wait()
        if not self._exited.is_set() and not self._stdin.is_closing():
            self._stdin.write(line)
            if not self._stdin.is_closing():  # it is, at once, when nobody is left to read
                return
        raise anyio.BrokenResourceError

    async def end(self) -> None:
        """End the process and everything it started: its input ends, it is told to end, its group is killed."""
        self._stdin.close()
        if not await self._exits(_STAYS):
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._transport.get_pid(), signal.SIGTERM)
            await self._exits(_ENDS)
        self.kill()
        await self._exits(_ENDS)
        await self._group_ends()
        self.output.end()
        self._transport.close()
        await asyncio.sleep(0)  # the pipes are closed in the next turn of the loop

    async def _group_ends(self) -> None:
        """Wait until nobody of the group is left; those who were killed take a moment to go."""
        with suppress(ProcessLookupError, PermissionError, TimeoutError):
            async with asyncio.timeout(_ENDS):
                while True:
                    os.killpg(self._transport.get_pid(), 0)
                    await asyncio.sleep(_LOOKS_AGAIN)

    async def _exits(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._exited.wait(), seconds)
        return self._exited.is_set()


def _kill_group(group: int, owner: int) -> None:
    """Kill a process group, unless this is a fork of the process that started it."""
    if os.getpid() == owner:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


class ChildOutput:
    """The messages of a child; what the SDK reads."""

    def __init__(self, child: Child) -> None:
        self._child = child
        self._waiting: deque[SessionMessage] = deque()
        self._there = asyncio.Event()
        self._ended = self._held = False

    def put(self, message: SessionMessage) -> None:
        """Take a message from the child."""
        self._waiting.append(message)
        self._there.set()
        if len(self._waiting) >= _AHEAD and not self._held:
            self._held = True
            self._child.hold()

    def end(self) -> None:
        """Give no more than what has come."""
        self._ended = True
        self._there.set()

    async def receive(self) -> SessionMessage:
        """Give the next message.

        Raises:
            EndOfStream: there is none.
        """
        while not self._waiting:
            if self._ended:
                raise anyio.EndOfStream
            self._there.clear()
            await self._there.wait()
        message = self._waiting.popleft()
        if self._held and not self._waiting and not self._ended:
            self._held = False
            self._child.go_on()
        return message

    async def aclose(self) -> None:
        """Give no more."""
        self._waiting.clear()
        self.end()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage:
        try:
            return await self.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


class ChildInput:
    """What the SDK writes to a child."""

    def __init__(self, child: Child) -> None:
        self._child = child

    async def send(self, item: SessionMessage, /) -> None:
        """Send a message.

        Raises:
            Unsent: it is a request, and the child has ended.
            BrokenResourceError: it is something else, and the child has ended.
        """
        try:
            await self._child.write(item.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n")
        except anyio.BrokenResourceError:
            if isinstance(item.message, JSONRPCRequest):  # the SDK would say the same as of one that was sent
                raise Unsent from None
            raise

    async def aclose(self) -> None:
        """Do nothing: the input ends with the child."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
