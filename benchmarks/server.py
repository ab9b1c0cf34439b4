"""A fake model server that costs next to nothing: every answer is made once and sent as ready bytes.

The name of the model is the script: ``fake`` and parts such as ``-words20``, in any order (see `Script`). Speaks the
chat dialect, and the others by their paths (`benchmarks.dialects`), over HTTP/1.1, only as far as the clients measured
here need it. ``GET /`` tells the CPU it used.

``python -m benchmarks.server`` prints its port, and ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import threading
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from benchmarks.clock import pin, raise_file_limit
from benchmarks.dialects import DIALECTS

FORM: Final = '{"name":"Paris","country":"France","population":2102650,"tags":["capital","river"]}'
_MODEL: Final = re.compile(rb'"model": ?"(fake[a-z0-9-]*)"')
_STREAMED: Final = re.compile(rb'"stream": ?true')
_FORMAT: Final = re.compile(rb'"response_format": ?\{')
_RESULT: Final = re.compile(rb'"role": ?"tool"')
_TOOL: Final = re.compile(rb'"name": ?"([A-Za-z_]+)", ?"desc|"function": ?\{[^{]*?"name": ?"([A-Za-z_]+)"')
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_END: Final = b"\r\n\r\n"
_BACKLOG: Final = 4096
_PATHS: Final = {name: dialect.path.encode() for name, dialect in DIALECTS.items()}


@dataclass(frozen=True, slots=True)
class Script:
    """What the server does with a request.

    Attributes:
        words: words of an answer.
        pieces: pieces the answer is streamed in; each a word, or ``size`` characters if that is given.
        size: characters of a piece, and of a whole answer if ``pieces`` is 1.
        gap: milliseconds between pieces; 0 sends all at once, still as one HTTP chunk for each event.
        wait: milliseconds before the answer begins.
        calls: tool calls that the first turn asks for.
        arguments: pieces that the arguments of one streamed tool call come in.
        form: 1 for an answer that is a city as JSON; to a client that offers tools and names no format, it is the
            arguments of its last tool, which is how such clients ask for a form.
    """

    words: int = 20
    pieces: int = 20
    size: int = 0
    gap: int = 0
    wait: int = 0
    calls: int = 0
    arguments: int = 0
    form: int = 0


def model_of(**parts: int) -> str:
    """Name the model whose script this is: ``model_of(pieces=20)`` is ``"fake-pieces20"``."""
    return "-".join(["fake", *(f"{key}{value}" for key, value in parts.items())])


@lru_cache
def script_of(model: str) -> Script:
    """Read the name of a model."""
    return Script(**{key: int(value) for key, value in re.findall(r"-([a-z]+)(\d+)", model)})


def _http(kind: str, body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\ncontent-length: %d\r\n\r\n%s" % (kind.encode(), len(body), body)


def _dumps(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _pieces(script: Script) -> list[str]:
    if script.size:
        return ["x" * script.size] * script.pieces
    return [f"word{number % 10} " for number in range(script.pieces)]


def _calls(script: Script, tools: tuple[str, ...]) -> list[dict[str, object]]:
    asked = (
        [(tools[-1], FORM)]
        if script.form
        else [(tools[number % len(tools)], f'{{"x":{number}}}') for number in range(script.calls)]
    )
    return [
        {
            "index": number,
            "id": f"call_{number}",
            "type": "function",
            "function": {"name": name, "arguments": arguments},
        }
        for number, (name, arguments) in enumerate(asked)
    ]


def _text(script: Script) -> str:
    if script.form:
        return FORM
    return "x" * script.size if script.size else " ".join(f"word{number % 10}" for number in range(script.words))


@lru_cache
def whole(model: str, tools: tuple[str, ...] = (), dialect: str | None = None) -> bytes:
    """Make an answer in one piece: calls of ``tools`` if there are any, else text."""
    script = script_of(model)
    text = _text(script)
    if dialect is not None:
        return _http("application/json", _dumps(DIALECTS[dialect].whole(model, text)))
    message: dict[str, object] = {"role": "assistant", "content": text}
    if tools:
        calls = [{key: value for key, value in call.items() if key != "index"} for call in _calls(script, tools)]
        message = {"role": "assistant", "content": None, "tool_calls": calls}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "tool_calls" if tools else "stop"}
    usage = {"prompt_tokens": 30, "completion_tokens": 20, "total_tokens": 50}
    head = {"id": "chatcmpl-fake", "object": "chat.completion", "created": 1_750_000_000, "model": model}
    return _http("application/json", _dumps({**head, "choices": [choice], "usage": usage}))


@lru_cache
def streamed(model: str, tools: tuple[str, ...] = (), dialect: str | None = None) -> tuple[bytes, ...]:
    """Make a streamed answer: its head, then one HTTP chunk for each event."""
    script = script_of(model)
    if dialect is not None:
        return _chunked(DIALECTS[dialect].content_type, DIALECTS[dialect].lines(model, _pieces(script)))
    head = {"id": "chatcmpl-fake", "object": "chat.completion.chunk", "created": 1_750_000_000, "model": model}
    deltas: list[dict[str, object]] = [{"role": "assistant", "content": ""}]
    if tools and script.arguments:
        begun = {"index": 0, "id": "call_0", "type": "function", "function": {"name": tools[0], "arguments": '{"x":"'}}
        pieces = ["abcdefgh"] * script.arguments + ['"}']
        more: list[dict[str, object]] = [
            {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]} for piece in pieces
        ]
        deltas.append({"tool_calls": [begun]})
        deltas += more
    elif tools:
        deltas += [{"tool_calls": [call]} for call in _calls(script, tools)]
    else:
        deltas += [{"content": piece} for piece in _pieces(script)]
    events: list[dict[str, object]] = [
        {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas
    ]
    ending = "tool_calls" if tools else "stop"
    events.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": ending}]})
    usage = {"prompt_tokens": 30, "completion_tokens": script.pieces, "total_tokens": 30 + script.pieces}
    events.append({**head, "choices": [], "usage": usage})
    lines = [b"data: %s\n\n" % _dumps(event) for event in events] + [b"data: [DONE]\n\n"]
    return _chunked("text/event-stream", lines)


def _chunked(kind: str, lines: list[bytes]) -> tuple[bytes, ...]:
    """Give the head, and one HTTP chunk for each event; what comes before the first piece of text comes with it."""
    chunks = [b"%x\r\n%s\r\n" % (len(line), line) for line in lines]
    chunks[-1] += b"0\r\n\r\n"
    chunks[1] = chunks[0] + chunks[1]
    start = b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\ntransfer-encoding: chunked\r\n\r\n" % kind.encode()
    return (start, *chunks[1:])


@lru_cache
def burst(model: str, tools: tuple[str, ...] = (), dialect: str | None = None) -> bytes:
    """Give a streamed answer as one piece."""
    return b"".join(streamed(model, tools, dialect))


class Connection(asyncio.Protocol):
    """One client: reads requests, one after the other, and sends their answers."""

    def __init__(self) -> None:
        self._received = bytearray()
        self._whole_at = 0  # bytes of the request under way, once its head has been read
        self._body_at = 0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        if isinstance(transport, asyncio.Transport):
            self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's signature
        """Stop sending."""
        self._transport = None

    def data_received(self, data: bytes) -> None:
        """Collect a request, and answer it when it is whole."""
        received = self._received
        received += data
        if not self._whole_at:
            end = received.find(_END)
            if end < 0:
                return
            length = _LENGTH.search(received, 0, end)
            self._body_at = end + len(_END)
            self._whole_at = self._body_at + (int(length[1]) if length else 0)
        if len(received) < self._whole_at:
            return
        path = bytes(received[: received.find(b" HTTP/")])
        body = bytes(received[self._body_at : self._whole_at])
        del received[: self._whole_at]
        self._whole_at = 0
        if path.startswith(b"GET"):
            self._write(_http("application/json", _dumps({"cpu": time.process_time()})))
        else:
            self._answer(path, body)

    def _answer(self, path: bytes, body: bytes) -> None:
        found = _MODEL.search(body)
        model = found[1].decode() if found else "fake"
        script = script_of(model)
        tools: tuple[str, ...] = ()
        is_asking = script.form and not _FORMAT.search(body)
        if is_asking or (script.calls and not _RESULT.search(body)):
            tools = tuple(dict.fromkeys((one or other).decode() for one, other in _TOOL.findall(body)))
        asked = (model, tools, next((name for name, one in _PATHS.items() if path.endswith(one)), None))
        is_streamed = bool(_STREAMED.search(body))
        if script.wait:
            asyncio.get_running_loop().call_later(script.wait / 1000, self._send, asked, is_streamed, script.gap)
        else:
            self._send(asked, is_streamed, script.gap)

    def _send(self, asked: tuple[str, tuple[str, ...], str | None], is_streamed: bool, gap: int) -> None:  # noqa: FBT001
        if not is_streamed:
            self._write(whole(*asked))
        elif not gap:
            self._write(burst(*asked))
        else:
            chunks = streamed(*asked)
            self._write(chunks[0] + chunks[1])
            self._next(chunks, 2, gap / 1000)

    def _next(self, chunks: tuple[bytes, ...], number: int, gap: float) -> None:
        """Send the rest one by one, each ``gap`` seconds after the last was sent, never two together."""
        if number < len(chunks) and self._transport is not None:
            asyncio.get_running_loop().call_later(gap, self._step, chunks, number, gap)

    def _step(self, chunks: tuple[bytes, ...], number: int, gap: float) -> None:
        self._write(chunks[number])
        self._next(chunks, number + 1, gap)

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)


async def serve() -> None:
    """Serve until standard input ends."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()

    def wait() -> None:
        sys.stdin.read()
        loop.call_soon_threadsafe(ended.set)

    server = await loop.create_server(Connection, "127.0.0.1", 0, backlog=_BACKLOG)
    print(server.sockets[0].getsockname()[1], flush=True)
    threading.Thread(target=wait, daemon=True).start()
    await ended.wait()
    server.close()


if __name__ == "__main__":
    pin("server")
    raise_file_limit()
    asyncio.run(serve())
