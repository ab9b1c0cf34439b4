"""OpenAI's chat dialect, as it is proved."""

from __future__ import annotations

from typing import Any

from plait.providers.chat import ChatProvider
from plait.providers.chat_answer import ChatReader
from plait.providers.sse import EventReader
from plait.providers.status import Service
from soak.streams import Event, Reference, ServerSent, Subject

SERVICE = Service(provider="openai", address="127.0.0.1:80", model="m-1")


def _chunk(finish: str | None = None, **delta: Any) -> dict[str, Any]:
    return {
        "id": "gen-1",
        "object": "chat.completion.chunk",
        "model": "m-1",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }


def _usage(sent: int, received: int) -> dict[str, Any]:
    usage = {"prompt_tokens": sent, "completion_tokens": received, "total_tokens": sent + received}
    return {"id": "gen-1", "model": "m-1", "choices": [], "usage": usage}


def _call(index: int, arguments: str, id_: str | None = None, name: str | None = None) -> dict[str, Any]:
    function = {"arguments": arguments} if name is None else {"name": name, "arguments": arguments}
    call = {"index": index, "function": function}
    return call if id_ is None else {**call, "id": id_, "type": "function"}


REFERENCES = (
    Reference(
        "plain text with usage",
        (
            _chunk(role="assistant", content=""),
            *(_chunk(content=piece) for piece in ("The", " quick", " brown fox", ",", ' said "no".\n', "Twice\\.")),
            _chunk("stop"),
            _usage(12, 9),
        ),
        text='The quick brown fox, said "no".\nTwice\\.',
        finish="stop",
        usage=(12, 9),
    ),
    Reference(
        "parallel tool calls",
        (
            _chunk(role="assistant", content=None),
            _chunk(content="Looking."),
            _chunk(tool_calls=[_call(0, "", "call_a", "weather")]),
            _chunk(tool_calls=[_call(0, '{"pla')]),
            _chunk(tool_calls=[_call(1, '{"', "call_b", "time"), _call(0, 'ce": "Køb')]),
            _chunk(tool_calls=[_call(0, 'enhavn"}')]),
            _chunk(tool_calls=[_call(1, 'zone": "CET"}')]),
            _chunk(tool_calls=[_call(2, "{}", "call_c", "ping")]),
            _chunk("tool_calls"),
            _usage(40, 25),
        ),
        text="Looking.",
        finish="tool_calls",
        calls=(
            ("call_a", "weather", '{"place": "København"}'),
            ("call_b", "time", '{"zone": "CET"}'),
            ("call_c", "ping", "{}"),
        ),
        usage=(40, 25),
    ),
    Reference(
        "reasoning, text and a refusal",
        (
            _chunk(role="assistant", content="", reasoning="Hm: "),
            _chunk(reasoning="日本語 — "),
            _chunk(reasoning_content="naïve?"),
            _chunk(content="Привет, "),
            _chunk(content="мир 👋🏽"),
            _chunk(content=" — e\u0301."),
            _chunk(refusal="I won't "),
            _chunk(refusal="do that ✋"),
            _chunk("stop"),
        ),
        text="Привет, мир 👋🏽 — e\u0301.",
        reasoning="Hm: 日本語 — naïve?",
        refusal="I won't do that ✋",
        finish="stop",
    ),
)


JUNK = (
    b'{"choices": null}',
    b'{"choices": [null]}',
    b'{"choices": {}}',
    b'{"choices": [{"index": "x"}]}',
    b'{"choices": [{"index": -1, "delta": {"content": "x"}}]}',
    b'{"choices": [{"index": 99999999999999999999, "delta": {}}]}',
    b'{"choices": [{"delta": {"content": 7}}]}',
    b'{"choices": [{"delta": {"content": [{"text": "a"}, 5, {"text": null}]}}]}',
    b'{"choices": [{"delta": {"content": "\\ud800"}}]}',
    b'{"choices": [{"delta": {"content": "\\u0000"}}]}',
    b'{"choices": [{"delta": {"content": "\xff"}}]}',
    b'{"choices": [{"delta": {"tool_calls": [{"function": {"arguments": {"a": 1e999}}}]}}]}',
    b'{"choices": [{"delta": {"tool_calls": [{"index": -3, "function": null}]}}]}',
    b'{"choices": [{"delta": {"tool_calls": [{"index": 1, "id": 5}]}}]}',
    b'{"choices": [{"delta": {"tool_calls": [{"id": "", "function": {"name": "\\udfff"}}]}}]}',
    b'{"choices": [{"delta": {"reasoning_details": [{"type": "reasoning.text", "text": 5}, 7, null]}}]}',
    b'{"choices": [{"delta": {"annotations": {"a": 1}}, "finish_reason": ""}]}',
    b'{"choices": [{"delta": {"content": "x"}, "error": "no"}]}',
    b'{"usage": {"prompt_tokens": -1, "completion_tokens": 1e99}, "choices": []}',
    b'{"usage": {"prompt_tokens": 1, "completion_tokens": 2, "cost": 1e999}, "choices": []}',
    b'{"usage": 3}',
)


def _text_of(event: Event) -> str:
    return "".join(choice["delta"].get("content") or "" for choice in event["choices"])


def _is_end(event: Event) -> bool:
    return any(choice["finish_reason"] is not None for choice in event["choices"])


CHAT = Subject(
    name="chat",
    provider=lambda url: ChatProvider("m-1", base_url=url, api_key="sk-soak"),
    framing=EventReader,
    reader=lambda: ChatReader(SERVICE),
    wire=ServerSent(done=True, after=(b"not json", b'{"choices":[{"index":0,"delta":{"content":"more"}}]}', b"null")),
    references=REFERENCES,
    junk=JUNK,
    text_of=_text_of,
    is_end=_is_end,
)
