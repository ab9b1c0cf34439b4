"""Anthropic's Messages dialect, as it is proved."""

from __future__ import annotations

from typing import Any

from plait.providers.anthropic import AnthropicProvider
from plait.providers.anthropic_answer import AnthropicReader
from plait.providers.sse import EventReader
from plait.providers.status import Service
from soak.streams import Event, Reference, ServerSent, Subject

SERVICE = Service(provider="anthropic", address="127.0.0.1:80", model="m-1")


def _start(sent: int) -> Event:
    usage = {"input_tokens": sent, "cache_read_input_tokens": 0, "output_tokens": 1}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m-1", "content": [], "usage": usage}
    return {"type": "message_start", "message": message}


def _block(index: int, kind: str, *pieces: dict[str, Any], **fields: Any) -> list[Event]:
    grown = [{"type": "content_block_delta", "index": index, "delta": piece} for piece in pieces]
    opened = {"type": "content_block_start", "index": index, "content_block": {"type": kind, **fields}}
    return [opened, *grown, {"type": "content_block_stop", "index": index}]


def _text(index: int, *pieces: str) -> list[Event]:
    return _block(index, "text", *({"type": "text_delta", "text": piece} for piece in pieces), text="")


def _call(index: int, id_: str, name: str, *pieces: str) -> list[Event]:
    grown = ({"type": "input_json_delta", "partial_json": piece} for piece in pieces)
    return _block(index, "tool_use", *grown, id=id_, name=name, input={})


def _end(reason: str, received: int, **details: Any) -> list[Event]:
    delta = {"stop_reason": reason, "stop_sequence": None, **details}
    return [{"type": "message_delta", "delta": delta, "usage": {"output_tokens": received}}, {"type": "message_stop"}]


_COUNTED = ({"type": "thinking_delta", "thinking": "Hm: 日本語 — "}, {"type": "thinking_delta", "thinking": "naïve?"})
_CITED = {"type": "citations_delta", "citation": {"type": "char_location", "cited_text": "мир"}}

REFERENCES = (
    Reference(
        "plain text",
        (
            _start(12),
            {"type": "ping"},
            *_text(0, "The", " quick", " brown fox", ",", ' said "no".\n', "Twice\\."),
            *_end("end_turn", 9),
        ),
        text='The quick brown fox, said "no".\nTwice\\.',
        finish="end_turn",
        usage=(12, 9),
    ),
    Reference(
        "parallel tool calls, and one of the provider's own",
        (
            _start(40),
            *_text(0, "Looking."),
            *_call(1, "call_a", "weather", "", '{"pla', 'ce": "Køb', 'enhavn"}'),
            *_block(
                2, "server_tool_use", {"type": "input_json_delta", "partial_json": "{}"}, id="s", name="x", input={}
            ),
            *_block(3, "web_search_tool_result", tool_use_id="s", content=[{"title": "✋", "page_age": None}]),
            *_call(4, "call_b", "time", '{"zone": "CET"}'),
            *_call(5, "call_c", "ping"),
            *_end("tool_use", 25),
        ),
        text="Looking.",
        finish="tool_use",
        calls=(
            ("call_a", "weather", '{"place": "København"}'),
            ("call_b", "time", '{"zone": "CET"}'),
            ("call_c", "ping", "{}"),
        ),
        usage=(40, 25),
    ),
    Reference(
        "thoughts, citations and a refusal",
        (
            _start(7),
            *_block(
                0, "thinking", *_COUNTED, {"type": "signature_delta", "signature": "sig"}, thinking="", signature=""
            ),
            *_block(1, "redacted_thinking", data="secret"),
            *_text(2, "Привет, "),
            *_block(3, "text", _CITED, {"type": "text_delta", "text": "мир 👋🏽"}, text="", citations=[]),
            *_text(4, " — e\u0301."),
            *_end("refusal", 3, stop_details={"type": "refusal", "explanation": "I won't do that ✋"}),
        ),
        text="Привет, мир 👋🏽 — e\u0301.",
        reasoning="Hm: 日本語 — naïve?",
        refusal="I won't do that ✋",
        finish="refusal",
        usage=(7, 3),
    ),
)


JUNK = (
    b'{"type": "message_start"}',
    b'{"type": "message_start", "message": {"content": [{"type": "text", "text": "x"}, null]}}',
    b'{"type": "message_start", "message": {"content": [{"type": "thinking"}], "usage": {"input_tokens": -1}}}',
    b'{"type": "content_block_start", "index": null, "content_block": {"type": "text", "text": 5}}',
    b'{"type": "content_block_start", "index": -1, "content_block": {"type": "tool_use", "id": 5, "input": [1e999]}}',
    b'{"type": "content_block_start", "index": 99999999999999999999, "content_block": {"type": "text"}}',
    b'{"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "signature": "\\ud800"}}',
    b'{"type": "content_block_start", "index": 3, "content_block": {"type": "redacted_thinking"}}',
    b'{"type": "content_block_start", "index": 3, "content_block": {"type": "x", "name": "\\udfff", "input": [1e400]}}',
    b'{"type": "content_block_start", "index": 3, "content_block": {"type": "x", "deep": '
    + b"[" * 200
    + b"]" * 200
    + b"}}",
    b'{"type": "content_block_start", "content_block": 7}',
    b'{"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "\\u0000\\ud800"}}',
    b'{"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": 7}}',
    b'{"type": "content_block_delta", "index": 1, "delta": {"type": "citations_delta", "citation": [1e999]}}',
    b'{"type": "content_block_delta", "index": 7, "delta": {"type": "signature_delta", "signature": "x"}}',
    b'{"type": "content_block_delta", "delta": {"partial_json": "{"}}',
    b'{"type": "content_block_delta"}',
    b'{"type": "content_block_stop"}',
    b'{"type": "content_block_stop", "index": 1}',
    b'{"type": "message_delta"}',
    b'{"type": "message_delta", "delta": {"stop_reason": "refusal", "stop_details": {"explanation": "\\ud800"}}}',
    b'{"type": "message_delta", "delta": {"container": 7, "stop_details": [1e308]}, "usage": []}',
    b'{"type": "message_delta", "usage": {"input_tokens": 1e99, "output_tokens": -1}}',
    b'{"type": "error"}',
    b'{"type": "error", "error": {"type": 7, "message": null}, "request_id": 5}',
    b'{"type": "news", "index": {}}',
)


def _text_of(event: Event) -> str:
    return str(event["delta"].get("text", "")) if event["type"] == "content_block_delta" else ""


def _is_end(event: Event) -> bool:
    return bool(event["type"] == "message_stop")


ANTHROPIC = Subject(
    name="anthropic",
    provider=lambda url: AnthropicProvider("m-1", base_url=url, api_key="sk-soak"),
    framing=EventReader,
    reader=lambda: AnthropicReader(SERVICE),
    wire=ServerSent(done=False, after=(b"not json", b'{"type": "error", "error": {"message": "no"}}', b"null")),
    references=REFERENCES,
    junk=JUNK,
    text_of=_text_of,
    is_end=_is_end,
)
