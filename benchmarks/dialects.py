"""The other dialects: how the fake server writes an answer in each, and how a hand-written client asks and reads.

Answers are text only; the chat dialect, in `server` and `floor`, has the other jobs.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import orjson

from benchmarks.sides import PROMPT, ROLE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_SYSTEM: Final = {"role": "system", "content": ROLE}
_USER: Final = {"role": "user", "content": PROMPT}
_TOKENS: Final = {"input_tokens": 30, "output_tokens": 20}


@dataclass(frozen=True, slots=True)
class Dialect:
    """A dialect, as both ends of a connection know it.

    Attributes:
        provider: its provider's name in plait.
        root: what the base URL ends with.
        path: what is asked, below the root.
        content_type: of a streamed answer.
        request: the body of a request for this model, but for ``stream``.
        whole: an answer in one piece that says this text.
        lines: a streamed answer that says these pieces, as the lines of its body.
        text_of: what a hand-written client takes out of an answer.
        piece_of: what it takes out of one line of a stream; nothing of most lines.
    """

    provider: str
    root: str
    path: str
    content_type: str
    request: Callable[[str], dict[str, Any]]
    whole: Callable[[str, str], dict[str, Any]]
    lines: Callable[[str, Sequence[str]], list[bytes]]
    text_of: Callable[[Any], str]
    piece_of: Callable[[bytes], str | None]


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _event(data: dict[str, Any]) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (data["type"].encode(), _json(data))


def _anthropic_lines(model: str, pieces: Sequence[str]) -> list[bytes]:
    message = {"id": "msg_fake", "type": "message", "role": "assistant", "model": model, "content": []}
    begun = {**message, "stop_reason": None, "stop_sequence": None, "usage": {"input_tokens": 30, "output_tokens": 1}}
    block = {"type": "text", "text": ""}
    return [
        _event({"type": "message_start", "message": begun}),
        _event({"type": "content_block_start", "index": 0, "content_block": block}),
        *(
            _event({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}})
            for piece in pieces
        ),
        _event({"type": "content_block_stop", "index": 0}),
        _event({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 20}}),
        _event({"type": "message_stop"}),
    ]


def _anthropic_whole(model: str, text: str) -> dict[str, Any]:
    content = [{"type": "text", "text": text}]
    made = {"id": "msg_fake", "type": "message", "role": "assistant", "model": model, "content": content}
    return {**made, "stop_reason": "end_turn", "stop_sequence": None, "usage": _TOKENS}


_ANTHROPIC_TEXT: Final = b'data: {"type":"content_block_delta"'


def _anthropic_piece(line: bytes) -> str | None:
    if not line.startswith(_ANTHROPIC_TEXT):
        return None
    text: str | None = orjson.loads(line[6:])["delta"].get("text")
    return text


def _ollama_lines(model: str, pieces: Sequence[str]) -> list[bytes]:
    head = {"model": model, "created_at": "2025-06-15T12:00:00.000000Z"}
    ended = {"done": True, "done_reason": "stop", "prompt_eval_count": 30, "eval_count": 20}
    said = [{**head, "message": {"role": "assistant", "content": piece}, "done": False} for piece in pieces]
    last = {**head, "message": {"role": "assistant", "content": ""}, **ended}
    return [_json(line) + b"\n" for line in (*said, last)]


def _ollama_whole(model: str, text: str) -> dict[str, Any]:
    return {**json.loads(_ollama_lines(model, ())[0]), "message": {"role": "assistant", "content": text}}


def _ollama_piece(line: bytes) -> str | None:
    text: str | None = orjson.loads(line)["message"]["content"] if line else None
    return text


def _response(model: str, status: str, output: list[dict[str, Any]]) -> dict[str, Any]:
    head = {"id": "resp_fake", "object": "response", "created_at": 1_750_000_000, "model": model, "status": status}
    return {**head, "output": output, "usage": {**_TOKENS, "total_tokens": 50} if output else None}


def _output(text: str) -> list[dict[str, Any]]:
    part = {"type": "output_text", "text": text, "annotations": []}
    return [{"id": "msg_fake", "type": "message", "role": "assistant", "status": "completed", "content": [part]}]


def _responses_lines(model: str, pieces: Sequence[str]) -> list[bytes]:
    where = {"item_id": "msg_fake", "output_index": 0, "content_index": 0}
    item = {"id": "msg_fake", "type": "message", "role": "assistant", "status": "in_progress", "content": []}
    part = {"type": "output_text", "text": "", "annotations": []}
    whole = _output("".join(pieces))
    deltas = [{"type": "response.output_text.delta", **where, "delta": piece} for piece in pieces]
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": _response(model, "in_progress", [])},
        {"type": "response.output_item.added", "output_index": 0, "item": item},
        {"type": "response.content_part.added", **where, "part": part},
        *deltas,
        {"type": "response.output_text.done", **where, "text": "".join(pieces)},
        {"type": "response.output_item.done", "output_index": 0, "item": whole[0]},
        {"type": "response.completed", "response": _response(model, "completed", whole)},
    ]
    return [_event({**event, "sequence_number": number}) for number, event in enumerate(events)]


_RESPONSES_TEXT: Final = b'data: {"type":"response.output_text.delta"'


def _responses_piece(line: bytes) -> str | None:
    if not line.startswith(_RESPONSES_TEXT):
        return None
    text: str = orjson.loads(line[6:])["delta"]
    return text


DIALECTS: Final = {
    "anthropic": Dialect(
        provider="anthropic",
        root="",
        path="/v1/messages",
        content_type="text/event-stream",
        request=lambda model: {"model": model, "max_tokens": 4096, "system": ROLE, "messages": [_USER]},
        whole=_anthropic_whole,
        lines=_anthropic_lines,
        text_of=lambda answer: answer["content"][0]["text"],
        piece_of=_anthropic_piece,
    ),
    "ollama": Dialect(
        provider="ollama",
        root="",
        path="/api/chat",
        content_type="application/x-ndjson",
        request=lambda model: {"model": model, "messages": [_SYSTEM, _USER]},
        whole=_ollama_whole,
        lines=_ollama_lines,
        text_of=lambda answer: answer["message"]["content"],
        piece_of=_ollama_piece,
    ),
    "responses": Dialect(
        provider="openai-responses",
        root="/v1",
        path="/responses",
        content_type="text/event-stream",
        request=lambda model: {"model": model, "input": [_SYSTEM, _USER]},
        whole=lambda model, text: _response(model, "completed", _output(text)),
        lines=_responses_lines,
        text_of=lambda answer: answer["output"][0]["content"][0]["text"],
        piece_of=_responses_piece,
    ),
}
"""The dialects by the names of their cases."""
