"""OpenAI's Responses dialect, as it is proved."""

from __future__ import annotations

from typing import Any

from plait.providers.responses import ResponsesProvider
from plait.providers.responses_answer import ResponsesReader
from plait.providers.sse import EventReader
from plait.providers.status import Service
from soak.streams import Event, Reference, ServerSent, Subject

SERVICE = Service(provider="openai-responses", address="127.0.0.1:80", model="m-1")

Item = dict[str, Any]


def _response(status: str, *output: Item, **fields: Any) -> Event:
    return {"id": "resp_1", "object": "response", "model": "m-1", "status": status, "output": [*output], **fields}


def _created() -> Event:
    return {"type": "response.created", "response": _response("in_progress", usage=None)}


def _end(status: str, *output: Item, **fields: Any) -> Event:
    return {"type": f"response.{status}", "response": _response(status, *output, **fields)}


def _usage(sent: int, received: int) -> dict[str, int]:
    return {"input_tokens": sent, "output_tokens": received, "total_tokens": sent + received}


def _added(at: int, item: Item) -> Event:
    opened = {**item, **{name: empty for name, empty in (("content", []), ("arguments", "")) if name in item}}
    return {"type": "response.output_item.added", "output_index": at, "item": opened}


def _done(at: int, item: Item) -> Event:
    return {"type": "response.output_item.done", "output_index": at, "item": item}


def _grown(at: int, kind: str, *pieces: str, **fields: int) -> list[Event]:
    return [{"type": f"response.{kind}.delta", "output_index": at, "delta": piece, **fields} for piece in pieces]


def _message(text: str, *annotations: Item) -> Item:
    content = [{"type": "output_text", "text": text, "annotations": [*annotations], "logprobs": []}]
    return {"id": "msg_1", "type": "message", "status": "completed", "role": "assistant", "content": content}


def _call(id_: str, name: str, arguments: str) -> Item:
    return {"id": f"fc_{id_}", "type": "function_call", "call_id": id_, "name": name, "arguments": arguments}


_PLAIN = _message('The quick brown fox, said "no".\nTwice\\.')
_LOOKING = _message("Looking.")
_CALLS = (
    _call("call_a", "weather", '{"place": "København"}'),
    _call("call_b", "time", '{"zone": "CET"}'),
    _call("call_c", "ping", "{}"),
)
_SEARCH = {"id": "ws_1", "type": "web_search_call", "status": "completed", "action": {"type": "search", "query": "мир"}}
_NOTED = _message("Привет, мир 👋🏽 — e\u0301.", {"type": "url_citation", "url": "https://x.test", "start_index": 0})
_REFUSED = {**_message(""), "id": "msg_2", "content": [{"type": "refusal", "refusal": "I won't do that ✋"}]}
_THOUGHT = {
    "id": "rs_1",
    "type": "reasoning",
    "summary": [{"type": "summary_text", "text": "Hm: 日本語"}, {"type": "summary_text", "text": "naïve?"}],
    "encrypted_content": "gAAAAA==",
}
_SUMMARY = "reasoning_summary_text"
_ARGUMENTS = "function_call_arguments"

REFERENCES = (
    Reference(
        "plain text with usage",
        (
            _created(),
            _added(0, _PLAIN),
            *_grown(0, "output_text", "The", " quick", " brown fox", ",", ' said "no".\n', "Twice\\."),
            {"type": "response.output_text.done", "output_index": 0, "text": "never read"},
            _done(0, _PLAIN),
            _end("completed", _PLAIN, usage=_usage(12, 9)),
        ),
        text='The quick brown fox, said "no".\nTwice\\.',
        finish="completed",
        usage=(12, 9),
    ),
    Reference(
        "parallel tool calls",
        (
            _created(),
            _added(0, _LOOKING),
            *_grown(0, "output_text", "Looking."),
            _done(0, _LOOKING),
            _added(1, _CALLS[0]),
            *_grown(1, _ARGUMENTS, '{"pla'),
            _added(2, _CALLS[1]),
            *_grown(2, _ARGUMENTS, '{"'),
            *_grown(1, _ARGUMENTS, 'ce": "Køb', 'enhavn"}'),
            _done(1, _CALLS[0]),
            *_grown(2, _ARGUMENTS, 'zone": "CET"}'),
            _done(2, _CALLS[1]),
            _done(3, _CALLS[2]),
            _end("completed", _LOOKING, *_CALLS, usage=_usage(40, 25)),
        ),
        text="Looking.",
        finish="completed",
        calls=tuple([(call["call_id"], call["name"], call["arguments"]) for call in _CALLS]),
        usage=(40, 25),
    ),
    Reference(
        "reasoning, a search, text and a refusal, cut",
        (
            _created(),
            _added(0, _THOUGHT),
            *_grown(0, _SUMMARY, "Hm: ", "日本語", summary_index=0),
            *_grown(0, _SUMMARY, "naïve?", summary_index=1),
            _done(0, _THOUGHT),
            _added(1, _SEARCH),
            {"type": "response.web_search_call.searching", "output_index": 1, "item_id": "ws_1"},
            _done(1, _SEARCH),
            _added(2, _NOTED),
            *_grown(2, "output_text", "Привет, ", "мир 👋🏽", " — e\u0301."),
            _done(2, _NOTED),
            _added(3, _REFUSED),
            *_grown(3, "refusal", "I won't ", "do that ✋"),
            _done(3, _REFUSED),
            _end("incomplete", incomplete_details={"reason": "max_output_tokens"}),
        ),
        text="Привет, мир 👋🏽 — e\u0301.",
        reasoning="Hm: 日本語\n\nnaïve?",
        refusal="I won't do that ✋",
        finish="max_output_tokens",
    ),
)

_DELTA = b'{"type": "response.output_text.delta", "output_index": 0, "delta": '
_DONE = b'{"type": "response.output_item.done", "output_index": 7, "item": '
_END = b'{"type": "response.completed", "response": '

JUNK = (
    _DELTA + b"7}",
    _DELTA + b"null}",
    _DELTA + b'"\\ud800"}',
    _DELTA + b'"\\u0000"}',
    _DELTA + b'"\xff"}',
    b'{"type": "response.output_text.delta", "output_index": -1, "delta": "x"}',
    b'{"type": "response.output_text.delta", "output_index": 99999999999999999999, "delta": "x"}',
    b'{"type": "response.refusal.delta", "output_index": 0, "delta": "no"}',
    b'{"type": "response.reasoning_text.delta", "content_index": "x", "delta": "hm"}',
    b'{"type": "response.function_call_arguments.delta", "output_index": 8, "delta": "{"}',
    b'{"type": "response.output_item.added", "output_index": 0, "item": null}',
    b'{"type": "response.output_item.added", "item": {"type": "function_call", "name": "\\udfff", "arguments": [1]}}',
    _DONE + b'{"type": "message", "content": [null, 7, {"type": {}}, {"type": "output_text", "text": 7}]}}',
    _DONE
    + b'{"type": "message", "id": [1], "content": [{"type": "output_text", "text": "x", "annotations": {"a": 1}}]}}',
    _DONE + b'{"type": "message", "id": 1e999, "phase": "x", "content": [{"type": "refusal", "refusal": "\\ud800"}]}}',
    _DONE + b'{"type": "reasoning", "summary": [{"text": ["x"]}, null], "encrypted_content": NaN}}',
    _DONE + b'{"type": "reasoning", "summary": {}, "content": [{"text": "\\ud800"}]}}',
    _DONE + b'{"type": "function_call", "call_id": 5, "name": null, "arguments": {"a": 1e999}}}',
    _DONE + b'{"type": "of_tomorrow_call", "a": %b%b}}' % (b"[" * 150, b"]" * 150),
    _DONE + b'{"type": 7}}',
    _END + b"7}",
    _END + b"{}}",
    _END + b'{"status": "failed"}}',
    _END + b'{"status": 7}}',
    _END + b'{"output": [null]}}',
    _END + b'{"output": [{"type": "message", "content": [{"type": "output_text", "text": "x"}]}]}}',
    _END + b'{"usage": {"input_tokens": -1, "output_tokens": 1e99, "cost": 1e999}}}',
    _END + b'{"usage": 3, "incomplete_details": 3, "status": "incomplete"}}',
    b'{"type": "error", "code": {}, "message": []}',
    b'{"type": "error"}',
)


def _text_of(event: Event) -> str:
    return str(event["delta"]) if event["type"] == "response.output_text.delta" else ""


def _is_end(event: Event) -> bool:
    return event["type"] in ("response.completed", "response.incomplete")


RESPONSES = Subject(
    name="responses",
    provider=lambda url: ResponsesProvider("m-1", base_url=url, api_key="sk-soak"),
    framing=EventReader,
    reader=lambda: ResponsesReader(SERVICE),
    wire=ServerSent(done=False, after=(b"[DONE]", b"not json", _DELTA + b'"more"}', b"null")),
    references=REFERENCES,
    junk=JUNK,
    text_of=_text_of,
    is_end=_is_end,
)
