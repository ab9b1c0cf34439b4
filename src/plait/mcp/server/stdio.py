"""MCP over stdin and stdout: one JSON message a line. Imports the SDK.

While it serves, stdout belongs to the protocol: what tools, libraries and child processes print goes to stderr, and
what they read is empty. Nothing here holds a thread, so that a server ends when it is told to, also while it waits
for input. Knows nothing of what the messages say.
"""

from __future__ import annotations

import asyncio
import logging
import os
import select
import sys
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

import anyio
from mcp.shared.message import SessionMessage
from mcp_types import (
    INTERNAL_ERROR,
    INVALID_REQUEST,
    PARSE_ERROR,
    ErrorData,
    JSONRPCError,
    JSONRPCNotification,
    JSONRPCResponse,
    jsonrpc_message_adapter,
)
from pydantic import ValidationError
from pydantic_core import from_json

from plait.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
    from mcp.server.lowlevel import Server
    from mcp_types import JSONRPCMessage

    Incoming = SessionMessage | Exception

MAX_LINE: Final = 4 * 1024 * 1024
"""Bytes of one message; a longer one is refused, and read past."""
_AT_ONCE: Final = 65_536
_LAST_WORDS: Final = 1.0
"""Seconds to write what was answered before the host closed stdin."""

_TAKING: Final = threading.Lock()

logger = logging.getLogger("plait.mcp")


async def serve(server: Server[Any]) -> None:
    """Serve the host at stdin and stdout, until it closes stdin or goes away. Calls under way are then cancelled."""
    to_server, inbox = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    outbox, to_host = anyio.create_memory_object_stream[SessionMessage](0)
    with _taken() as (source, sink):
        async with to_server, inbox, outbox, to_host, anyio.create_task_group() as group:

            async def send() -> None:
                await _send(sink, to_host)
                group.cancel_scope.cancel()

            group.start_soon(_receive, source, to_server, outbox.clone())
            group.start_soon(send)
            await server.run(inbox, outbox, server.create_initialization_options())
            await anyio.sleep(_LAST_WORDS)  # or shorter: what is written ends this
            group.cancel_scope.cancel()


@contextmanager
def _taken() -> Iterator[tuple[int, int]]:
    """Take stdin and stdout away from the process, and give them as two descriptors.

    Raises:
        ConfigurationError: one of them is closed, or they are taken already.
    """
    if not _TAKING.acquire(blocking=False):
        msg = "stdin and stdout are being served already, and there is one host at them; serve others over HTTP"
        raise ConfigurationError(msg)
    try:
        with _redirected() as both:
            yield both
    finally:
        _TAKING.release()


@contextmanager
def _redirected() -> Iterator[tuple[int, int]]:
    _flush()
    try:
        source, sink, nothing = os.dup(0), os.dup(1), os.open(os.devnull, os.O_RDWR)
    except OSError as error:
        msg = f"stdin and stdout must be open to serve over them: {error.strerror}"
        raise ConfigurationError(msg) from error
    try:
        os.dup2(nothing, 0)
        try:
            os.dup2(2, 1)
        except OSError:  # there is no stderr
            os.dup2(nothing, 1)
        yield source, sink
    finally:
        _flush()
        os.dup2(source, 0)
        os.dup2(sink, 1)
        for taken in (source, sink, nothing):
            os.close(taken)


def _flush() -> None:
    with suppress(OSError, ValueError):  # nobody reads it; it is closed
        sys.stdout.flush()


async def _receive(
    source: int, to_server: MemoryObjectSendStream[Incoming], outbox: MemoryObjectSendStream[SessionMessage]
) -> None:
    async with to_server, outbox:
        async for line in _lines(source):
            message = _read(line)
            with suppress(anyio.BrokenResourceError):  # the server has ended
                if isinstance(message, JSONRPCError):
                    await outbox.send(SessionMessage(message))
                elif message is not None:
                    await to_server.send(message)


def _read(line: bytes | None) -> SessionMessage | JSONRPCError | None:
    """Read a line; None for an empty one."""
    if line is None:
        return _refusal(INVALID_REQUEST, f"a message may have {MAX_LINE:,} bytes")
    if not line.strip():
        return None
    try:
        message = jsonrpc_message_adapter.validate_json(line, by_name=False)
    except ValidationError as error:
        if error.errors(include_url=False, include_context=False, include_input=False)[0]["type"] == "json_invalid":
            return _refusal(PARSE_ERROR, "not valid JSON")
        return _refusal(INVALID_REQUEST, "no message of JSON-RPC 2.0")
    if isinstance(message, JSONRPCNotification) and "id" in from_json(line):
        # To the SDK, a request whose id is none is a note, which nobody would answer.
        return _refusal(INVALID_REQUEST, "the id of a request must be a text or a whole number")
    return SessionMessage(message)


def _refusal(code: int, why: str) -> JSONRPCError:
    logger.debug("a line on stdin was refused: %s", why)
    return JSONRPCError(jsonrpc="2.0", id=None, error=ErrorData(code=code, message=why))


async def _lines(source: int) -> AsyncIterator[bytes | None]:
    """Give each line; None for one that was too long."""
    kept, too_long = b"", False
    loop = asyncio.get_running_loop()
    while True:
        await _ready(source, loop.add_reader, loop.remove_reader)
        data = os.read(source, _AT_ONCE)
        if not data:
            if kept and not too_long:
                yield kept
            return
        first, *others = data.split(b"\n")
        kept += first
        for other in others:
            yield None if too_long else kept
            kept, too_long = other, False
        if len(kept) > MAX_LINE:
            kept, too_long = b"", True


async def _send(sink: int, to_host: MemoryObjectReceiveStream[SessionMessage]) -> None:
    """Write messages until there are no more, or nobody reads them."""
    loop = asyncio.get_running_loop()
    try:
        async with to_host:
            async for message in to_host:
                left = memoryview(_written(message.message))
                while left:
                    await _ready(sink, loop.add_writer, loop.remove_writer)
                    # So much, a pipe that is ready takes without making the whole program wait for its reader.
                    left = left[os.write(sink, left[: select.PIPE_BUF]) :]
    except OSError:
        logger.debug("the host no longer reads")


def _written(message: JSONRPCMessage) -> bytes:
    """Give a message as a line; an error in place of an answer that cannot be written, and nothing for a note."""
    try:
        return f"{message.model_dump_json(by_alias=True, exclude_unset=True)}\n".encode()
    except ValueError as error:  # half a surrogate pair, or what has no form in JSON
        logger.warning("a message to the host cannot be written: %s", type(error).__name__)
        if not isinstance(message, JSONRPCResponse | JSONRPCError):
            return b""
        why = ErrorData(code=INTERNAL_ERROR, message="the answer has no form in JSON")
        return _written(JSONRPCError(jsonrpc="2.0", id=message.id, error=why))


async def _ready(fd: int, watch: Callable[..., None], leave: Callable[[int], bool]) -> None:
    """Wait until a descriptor can be read or written."""
    turn = asyncio.get_running_loop().create_future()
    try:
        watch(fd, _set, turn)
    except PermissionError:  # a file, which can always be
        await asyncio.sleep(0)
        return
    try:
        await turn
    finally:
        leave(fd)


def _set(turn: asyncio.Future[None]) -> None:
    if not turn.done():
        turn.set_result(None)
