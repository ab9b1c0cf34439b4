"""How OpenAI's responses are written: as one JSON object, or as named events. Knows no wire.

https://platform.openai.com/docs/api-reference/responses and .../responses-streaming
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from plait.testing.dialect import MADE_AT, halves, named_calls, names_of, to_json
from plait.testing.framing import server_sent
from plait.testing.reply import Asked

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from plait.testing.dialect import NamedCall
    from plait.testing.reply import DialectName, Style
    from plait.testing.said import Said

_INCOMPLETE: Final = {"length": "max_output_tokens"}
_COMPLETE: Final = ("stop", "tool_calls")
_ENDS: Final = (b'{"type": "response.completed"', b'{"type": "response.incomplete"')

Numbered = tuple[str, dict[str, Any]]
"""The type and the fields of an event, before it has its number."""


class ResponsesDialect:
    """OpenAI's responses: items of output, opened and closed in a stream, and the whole once more at its end."""

    name: DialectName = "responses"
    root = "/v1"
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
        return to_json(_response(asked, said))

    def events(self, said: Said, asked: Asked) -> list[bytes]:
        """Write an answer as events: the head, each item opened, in pieces and closed, and the whole response."""
        head = _response(asked)
        made: list[Numbered] = [("response.created", {"response": head}), ("response.in_progress", {"response": head})]
        for index, item in enumerate(_items(said, asked)):
            made += _message(index, item, said) if item["type"] == "message" else call_events(index, item)
        whole = _response(asked, said)
        ending = "incomplete" if whole["status"] == "incomplete" else "completed"
        return numbered([*made, (f"response.{ending}", {"response": whole})])

    def is_end(self, event: bytes) -> bool:
        """The whole response is the end mark, complete or not."""
        return event.startswith(_ENDS)

    def frame(self, events: Sequence[bytes], style: Style) -> list[bytes]:
        """Write server-sent events with their names."""
        return server_sent(events, style, named=True)

    def error(self, status: int, message: str) -> bytes:
        """Write an error answer."""
        return to_json({"error": {"message": message, "type": "fault", "param": None, "code": f"fault_{status}"}})

    def failure(self, code: str, message: str) -> bytes:
        """Write an error in a stream."""
        return to_json({"type": "error", "sequence_number": 0, "code": code, "message": message, "param": None})


def numbered(events: Sequence[Numbered]) -> list[bytes]:
    """Give the data of events, numbered as they come."""
    return [to_json({"type": kind, "sequence_number": n, **fields}) for n, (kind, fields) in enumerate(events)]


def call_item(call: NamedCall, status: str = "completed") -> dict[str, Any]:
    """Give a call as the dialect writes it."""
    return {
        "id": f"fc_{call.id}",
        "type": "function_call",
        "status": status,
        "arguments": call.text,
        "call_id": call.id,
        "name": call.name,
    }


def call_events(index: int, item: Mapping[str, Any]) -> list[Numbered]:
    """Give the events of one call: opened, its arguments in pieces, closed."""
    at = {"item_id": item["id"], "output_index": index}
    opened = {**item, "status": "in_progress", "arguments": ""}
    return [
        ("response.output_item.added", {"output_index": index, "item": opened}),
        *(("response.function_call_arguments.delta", {**at, "delta": one}) for one in halves(item["arguments"])),
        ("response.function_call_arguments.done", {**at, "arguments": item["arguments"]}),
        ("response.output_item.done", {"output_index": index, "item": dict(item)}),
    ]


def _message(index: int, item: Mapping[str, Any], said: Said) -> list[Numbered]:
    at = {"item_id": item["id"], "output_index": index}
    opened = {**item, "status": "in_progress", "content": []}
    made: list[Numbered] = [("response.output_item.added", {"output_index": index, "item": opened})]
    for number, part in enumerate(item["content"]):
        here = {**at, "content_index": number}
        is_text = part["type"] == "output_text"
        field, pieces = ("text", said.pieces()) if is_text else ("refusal", [part["refusal"]])
        more: dict[str, Any] = {"logprobs": []} if is_text else {}
        made.append(("response.content_part.added", {**here, "part": {**part, field: ""}}))
        made += [(f"response.{part['type']}.delta", {**here, "delta": piece, **more}) for piece in pieces]
        made.append((f"response.{part['type']}.done", {**here, field: part[field], **more}))
        made.append(("response.content_part.done", {**here, "part": part}))
    return [*made, ("response.output_item.done", {"output_index": index, "item": dict(item)})]


def _items(said: Said, asked: Asked) -> list[dict[str, Any]]:
    content: list[dict[str, Any]] = []
    if said.text is not None:
        content.append({"type": "output_text", "annotations": [], "logprobs": [], "text": said.text})
    if said.refusal is not None:
        content.append({"type": "refusal", "refusal": said.refusal})
    status = "completed" if said.reason in _COMPLETE else "incomplete"
    message = {"id": f"msg_{asked.number}", "type": "message", "status": status, "role": "assistant"}
    calls = [call_item(call) for call in named_calls(said, asked)]
    return [{**message, "content": content}, *calls] if content else calls


def _response(asked: Asked, said: Said | None = None) -> dict[str, Any]:
    """Give the response as it stands: under way, or with all that it says."""
    made: dict[str, Any] = {
        "id": f"resp_{asked.number}",
        "object": "response",
        "created_at": MADE_AT,
        "status": "in_progress",
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "model": asked.model,
        "output": [],
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "usage": None,
    }
    if said is None:
        return made
    made["output"] = _items(said, asked)
    made["usage"] = None if said.usage is None else _usage(*said.usage)
    if said.reason is None:
        made["status"] = None
    elif said.reason in _COMPLETE:
        made["status"] = "completed"
    else:
        made |= {"status": "incomplete", "incomplete_details": {"reason": _INCOMPLETE.get(said.reason, said.reason)}}
    return made


def _usage(sent: int, received: int) -> dict[str, Any]:
    return {
        "input_tokens": sent,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": received,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": sent + received,
    }
