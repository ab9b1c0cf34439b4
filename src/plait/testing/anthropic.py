"""How Anthropic's messages are written: as one JSON object, or as named events. Knows no wire.

https://docs.anthropic.com/en/api/messages and https://docs.anthropic.com/en/docs/build-with-claude/streaming
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from plait.testing.dialect import halves, json_value, named_calls, names_of, to_json
from plait.testing.framing import server_sent
from plait.testing.reply import Asked

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from plait.testing.reply import DialectName, Style
    from plait.testing.said import Said

_REASONS: Final = {"stop": "end_turn", "tool_calls": "tool_use", "length": "max_tokens", "content_filter": "refusal"}
_ERRORS: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}


class AnthropicDialect:
    """Anthropic's messages: blocks of content, each opened and closed in a stream."""

    name: DialectName = "anthropic"
    root = ""
    stream_type = "text/event-stream"

    def asked(self, body: Mapping[str, Any]) -> Asked:
        """Read a request."""
        return Asked(
            model=str(body.get("model", "fault-1")),
            stream=body.get("stream") is True,
            tools=names_of(body.get("tools")),
        )

    def whole(self, said: Said, asked: Asked) -> bytes:
        """Write an answer in one piece."""
        content: list[dict[str, Any]] = [] if said.text is None else [{"type": "text", "text": said.text}]
        content += [
            {"type": "tool_use", "id": call.id, "name": call.name, "input": json_value(call.text)}
            for call in named_calls(said, asked)
        ]
        usage = {} if said.usage is None else {"usage": _usage(*said.usage)}
        return to_json({**_head(asked), "content": content, **_stop(said), **usage})

    def events(self, said: Said, asked: Asked) -> list[bytes]:
        """Write an answer as events: the head, a ping, each block in pieces, the stop reason, ``message_stop``."""
        usage = {} if said.usage is None else {"usage": _usage(said.usage[0], 1)}
        head = {**_head(asked), "content": [], "stop_reason": None, "stop_sequence": None, **usage}
        made = [event("message_start", message=head), event("ping")]
        index = 0
        if said.text is not None:
            text = ({"type": "text_delta", "text": piece} for piece in said.pieces())
            made += block(index, {"type": "text", "text": ""}, text)
            index += 1
        for number, call in enumerate(named_calls(said, asked), index):
            opened = {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}
            pieces = ["", *halves(call.text)]
            made += block(number, opened, ({"type": "input_json_delta", "partial_json": piece} for piece in pieces))
        spent = {} if said.usage is None else {"usage": {"output_tokens": said.usage[1]}}
        made.append(event("message_delta", delta=_stop(said), **spent))
        return [*made, event("message_stop")]

    def is_end(self, event: bytes) -> bool:
        """Only ``message_stop`` is an end mark."""
        return event.startswith(b'{"type": "message_stop"')

    def frame(self, events: Sequence[bytes], style: Style) -> list[bytes]:
        """Write server-sent events with their names."""
        return server_sent(events, style, named=True)

    def error(self, status: int, message: str) -> bytes:
        """Write an error answer."""
        return self.failure(_ERRORS.get(status, "api_error"), message)

    def failure(self, code: str, message: str) -> bytes:
        """Write an error in a stream, which is the same object."""
        return event("error", error={"type": code, "message": message})


def event(kind: str, **fields: object) -> bytes:
    """Give the data of one event of the dialect."""
    return to_json({"type": kind, **fields})


def block(index: int | None, opened: Mapping[str, object], deltas: Iterable[Mapping[str, object]]) -> list[bytes]:
    """Give the events of one block of content: opened, its pieces, closed."""
    numbered = {} if index is None else {"index": index}
    return [
        event("content_block_start", **numbered, content_block=opened),
        *(event("content_block_delta", **numbered, delta=delta) for delta in deltas),
        event("content_block_stop", **numbered),
    ]


def _head(asked: Asked) -> dict[str, Any]:
    return {"id": f"msg_{asked.number}", "type": "message", "role": "assistant", "model": asked.model}


def _stop(said: Said) -> dict[str, Any]:
    if said.refusal is not None:
        details = {"type": "refusal", "category": None, "explanation": said.refusal}
        return {"stop_reason": "refusal", "stop_sequence": None, "stop_details": details}
    reason = said.reason
    return {"stop_reason": None if reason is None else _REASONS.get(reason, reason), "stop_sequence": None}


def _usage(sent: int, received: int) -> dict[str, int]:
    return {
        "input_tokens": sent,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": received,
    }
