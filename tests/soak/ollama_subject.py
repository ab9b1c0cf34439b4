"""Ollama's own dialect, as it is proved."""

from __future__ import annotations

from typing import Any

from plait.providers.ndjson import LineReader
from plait.providers.ollama import OllamaProvider
from plait.providers.ollama_answer import OllamaReader
from plait.providers.status import Service
from soak.streams import Event, JsonLines, Reference, Subject

SERVICE = Service(provider="ollama", address="127.0.0.1:80", model="m-1")


def _line(content: str = "", **fields: Any) -> Event:
    return {"model": "m-1", "created_at": "now", "message": {"role": "assistant", "content": content, **fields}}


def _growth(content: str = "", **fields: Any) -> Event:
    return {**_line(content, **fields), "done": False}


def _end(reason: str | None, content: str = "", **counts: int) -> Event:
    return {**_line(content), "done": True, "done_reason": reason, "total_duration": 10**10, **counts}


def _call(name: str, arguments: object, **fields: Any) -> dict[str, Any]:
    return {**fields, "function": {"name": name, "arguments": arguments}}


REFERENCES = (
    Reference(
        "plain text with usage",
        (
            *(_growth(piece) for piece in ("The", " quick", " brown fox", ",", ' said "no".\n', "Twice\\.")),
            _end("stop", prompt_eval_count=12, eval_count=9),
        ),
        text='The quick brown fox, said "no".\nTwice\\.',
        finish="stop",
        usage=(12, 9),
    ),
    Reference(
        "tool calls",
        (
            _growth("Looking."),
            # As texts, which may be written in several ways without becoming other arguments.
            _growth(tool_calls=[_call("weather", '{"place": "København"}', id="call_a")]),
            _growth(),
            _growth(tool_calls=[_call("time", '{"zone": "CET"}'), _call("ping", "{}", id="call_c")]),
            _end("stop", prompt_eval_count=40, eval_count=25),
        ),
        text="Looking.",
        finish="stop",
        calls=(
            ("call_a", "weather", '{"place": "København"}'),
            ("", "time", '{"zone": "CET"}'),
            ("call_c", "ping", "{}"),
        ),
        usage=(40, 25),
    ),
    Reference(
        "reasoning and text that was cut",
        (
            _growth(thinking="Hm: "),
            _growth(thinking="日本語 — naïve?"),
            _growth("Привет, "),
            _growth("мир 👋🏽"),
            _end("length", " — e\u0301."),
        ),
        text="Привет, мир 👋🏽 — e\u0301.",
        reasoning="Hm: 日本語 — naïve?",
        finish="length",
    ),
)

JUNK = (
    b'{"message": null}',
    b'{"message": []}',
    b'{"message": {"content": 7}}',
    b'{"message": {"content": "\\ud800"}}',
    b'{"message": {"content": "\\u0000", "thinking": "\\udfff"}}',
    b'{"message": {"content": "\xff"}}',
    b'{"message": {"content": "x"}, "error": "no"}',
    b'{"message": {"tool_calls": {}}}',
    b'{"message": {"tool_calls": [null]}}',
    b'{"message": {"tool_calls": [{}, {"function": null}, {"id": 5}]}}',
    b'{"message": {"tool_calls": [{"function": {"name": "\\udfff", "arguments": {"a": "\\ud800", "b": 1e999}}}]}}',
    b'{"message": {"tool_calls": [{"function": {"name": "f", "arguments": {"a": 1e999, "b": [NaN]}}}]}}',
    b'{"message": {"tool_calls": [{"function": {"name": "f", "arguments": {"a": "\xff"}}}]}}',
    b'{"message": {"tool_calls": [{"function": {"name": "f", "arguments": "{"}}, {"function": {"arguments": 7}}]}}',
    b'{"message": {"content": "x"}, "done": null}',
    b'{"done": "yes"}',
    b'{"done": true}',
    b'{"done": true, "done_reason": 7}',
    b'{"done": true, "prompt_eval_count": -1, "eval_count": 1e99}',
    b'{"done": true, "prompt_eval_count": [], "eval_count": "\\ud800"}',
    b'{"done": true, "done_reason": "\\ud800"}',
    b'{"model": "\\ud800"}',
    b'{"model": 5}',
    b"data: {}",
)


def _text_of(event: Event) -> str:
    return str(event["message"]["content"])


def _is_end(event: Event) -> bool:
    return bool(event["done"])


OLLAMA = Subject(
    name="ollama",
    provider=lambda url: OllamaProvider("m-1", base_url=url),
    framing=LineReader,
    reader=lambda: OllamaReader(SERVICE),
    wire=JsonLines(after=(b"not json", b'{"message":{"content":"more"},"done":false}', b"null")),
    references=REFERENCES,
    junk=JUNK,
    text_of=_text_of,
    is_end=_is_end,
    content_type="application/x-ndjson",
)
