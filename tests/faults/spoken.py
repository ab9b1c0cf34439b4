"""What differs from dialect to dialect in the tests of faults, in one table; and events put together from it."""

from __future__ import annotations

import json
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, NamedTuple, assert_never

from plait.testing import Reply, Said, Style
from plait.testing.anthropic import event
from plait.testing.chat import chunk
from plait.testing.dialect import to_json
from plait.testing.dialects import DIALECTS
from plait.testing.reply import Asked

if TYPE_CHECKING:
    from collections.abc import Mapping

    from plait.testing.reply import DialectName


KEY: Final = "sk-very-secret-key-0123456789"


class Spoken(NamedTuple):
    """What the tests must know of a dialect.

    Attributes:
        provider: the module and the class of its provider.
        opening: how many events of a stream come before the first piece of text.
        nonsense: events that it does not have.
        news: events that it may have one day, or that say nothing.
        kind: the content type of its streams.
        ping: what may stand between two events and says nothing.
        blank: what ends an event, so that it is whole without it.
    """

    provider: str
    opening: int
    nonsense: tuple[bytes, ...]
    news: tuple[bytes, ...]
    kind: str = "text/event-stream"
    ping: bytes = b": ping\n\n"
    blank: bytes = b"\n\n"


_NO_OBJECTS: Final = (
    *(
        b"{not json",
        b"null",
        b"42",
        b"-1e999",
        b"[]",
        b'[{"choices": []}]',
        b'"text"',
        b"[DONE",
        b"true",
        b"{}{}",
        b"\0",
    ),
    b'{"x": ' + b"[" * 50_000,
)
_UNFIT: Final = (b"NaN", b"1e999", b"[" * 200 + b"]" * 200)
"""Values that a field of a provider's own cannot have: they could not be written as JSON again."""

_NEWS: Final = (
    *(b"{}", b'{"type": "news"}', b'{"object": "thread.run", "data": [[[{"a": null}]]]}'),
    *(b'{"x": %b}' % value for value in _UNFIT),
)
_DELTA: Final = b'{"type": "content_block_delta", "index": 0, "delta": '
_BLOCK: Final = b'{"type": "content_block_start", "index": 1, "content_block": '
_TEXT: Final = b'{"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": '
_ITEM: Final = b'{"type": "response.output_item.done", "output_index": 1, "item": '

SPOKEN: Final[Mapping[DialectName, Spoken]] = {
    "chat": Spoken(
        "plait.providers.chat:ChatProvider",
        opening=1,
        nonsense=(
            *_NO_OBJECTS,
            *(b'{"choices": {}}', b'{"choices": [null]}', b'{"choices": [7]}', b'{"choices": "x"}'),
            *(b'{"choices": [[]]}', b'{"choices": [{"delta": []}]}', b'{"choices": [{"delta": {"content": 5}}]}'),
            *(b'{"choices": [{"index": "0"}]}', b'{"choices": [{"index": 1e999}]}'),
            *(b'{"choices": [{"delta": {"tool_calls": [null]}}]}', b'{"choices": [{"delta": {"tool_calls": {}}}]}'),
            b'{"choices": [{"finish_reason": 7}]}',
            *(b'{"choices": [{"delta": {"reasoning_details": [{"x": %b}]}}]}' % value for value in _UNFIT),
            *(b'{"choices": [{"delta": {"annotations": [%b]}}]}' % value for value in _UNFIT),
            *(b'{"choices": [{"delta": {"tool_calls": [{"extra_content": %b}]}}]}' % value for value in _UNFIT),
        ),
        news=(
            *_NEWS,
            *(b'{"choices": []}', b'{"choices": null}', b'{"choices": [{}]}', b'{"usage": [1, "x"]}'),
            *(b'{"choices": [{"index": 0, "delta": null}]}', b'{"choices": [{"index": null, "delta": {}}]}'),
            b'{"choices": [{"delta": {"content": null, "tool_calls": null, "refusal": null}}]}',
            b'{"choices": [{"delta": {"content": [{"type": "thinking"}, null, 7]}}]}',
            b'{"error": null, "usage": null, "id": null}',
        ),
    ),
    "anthropic": Spoken(
        "plait.providers.anthropic:AnthropicProvider",
        opening=3,
        nonsense=(
            *_NO_OBJECTS,
            *(b'{"type": 7}', _DELTA + b"null}", _DELTA + b"[]}", _DELTA + b'{"type": "text_delta", "text": 5}}'),
            b'{"type": "content_block_start", "index": 1, "content_block": null}',
            b'{"type": "message_delta", "delta": {"stop_reason": 7}}',
            *(_BLOCK + b'{"type": "tool_use", "x": %b}}' % value for value in _UNFIT),
            *(_BLOCK + b'{"type": "news", "x": %b}}' % value for value in _UNFIT),
            *(_BLOCK + b'{"type": "text", "citations": [%b]}}' % value for value in _UNFIT),
            *(b'{"type": "message_delta", "delta": {"container": %b}}' % value for value in _UNFIT),
        ),
        news=(
            *_NEWS,
            *(b'{"type": "ping"}', b'{"type": "ping", "data": [null]}', _DELTA + b'{"type": "news_delta", "x": 1}}'),
        ),
    ),
    "ollama": Spoken(
        "plait.providers.ollama:OllamaProvider",
        opening=0,
        nonsense=(
            *_NO_OBJECTS,
            *(b'{"message": 7}', b'{"message": []}', b'{"message": {"content": 5}}', b'{"done": "yes"}'),
            *(b'{"message": {"tool_calls": {}}}', b'{"message": {"tool_calls": [null]}}'),
        ),
        news=(
            *_NEWS,
            *(b'{"done": false}', b'{"message": {"content": ""}, "done": false}', b'{"message": null}'),
            b'{"message": {"role": "assistant", "content": null, "tool_calls": null}, "done": false}',
        ),
        kind="application/x-ndjson",
        ping=b"\n",
        blank=b"\n",
    ),
    "responses": Spoken(
        "plait.providers.responses:ResponsesProvider",
        opening=4,
        nonsense=(
            *_NO_OBJECTS,
            *(b'{"type": 7}', _TEXT + b"5}", _TEXT + b"[]}"),
            b'{"type": "response.output_item.added", "output_index": 1, "item": 7}',
            b'{"type": "response.completed", "response": 7}',
            *(_ITEM + b'{"type": "reasoning", "x": %b}}' % value for value in _UNFIT),
            *(_ITEM + b'{"type": "function_call", "x": %b}}' % value for value in _UNFIT),
            *(_ITEM + b'{"type": "news_call", "x": %b}}' % value for value in _UNFIT),
        ),
        news=(
            *_NEWS,
            *(b'{"type": "response.queued"}', b'{"type": "response.audio.delta", "delta": "AAAA"}'),
            b'{"type": "response.output_text.annotation.added", "item_id": "msg_1", "annotation": null}',
            b'{"type": "keepalive", "sequence_number": 3}',
        ),
    ),
}


class Answered(NamedTuple):
    """An error that came with a success, in a stream or as an answer, and what it is."""

    where: str
    said: bytes
    status: int | None = None
    code: str | None = None
    retryable: bool = False


def _chat(said: object, *read: Any) -> Answered:
    return Answered("stream, answer", to_json({"error": said}), *read)


def _anthropic(said: object, *read: Any) -> Answered:
    return Answered("stream, answer", to_json({"type": "error", "error": said}), *read)


def _responses(said: Mapping[str, object], *read: Any) -> tuple[Answered, ...]:
    """Give what it says in each place: an event of errors, of both shapes in use; and a response that has failed."""
    failed = {"id": "resp_1", "object": "response", "status": "failed", "model": "m1", "output": [], "error": said}
    return (
        Answered("stream", to_json({"type": "error", "sequence_number": 9, "param": None, **said}), *read),
        Answered("stream", to_json({"type": "error", "sequence_number": 9, "error": said}), *read),
        Answered("stream", to_json({"type": "response.failed", "response": failed}), *read),
        Answered("answer", to_json(failed), *read),
        Answered("answer", to_json({"error": said}), *read),
    )


ERRORS: Final[Mapping[DialectName, tuple[Answered, ...]]] = {
    "chat": (
        _chat({"message": "down", "code": 503}, 503, "503", True),
        _chat({"message": "slow", "code": "rate_limit_exceeded"}, 429, "rate_limit_exceeded", True),
        _chat({"message": "no", "type": "invalid_request_error", "code": None}, None, "invalid_request_error"),
        _chat({"message": "down", "type": "server_error", "param": {"deep": [1e308]}}, None, "server_error", True),
        _chat("down"),
        _chat([1, None]),
        _chat({"message": None, "code": KEY}, None, "***"),
        _chat({"message": ["x"], "code": ["y"]}),
    ),
    "anthropic": (
        _anthropic({"type": "overloaded_error", "message": "Overloaded"}, None, "overloaded_error", True),
        _anthropic({"type": "rate_limit_error", "message": "slow"}, 429, "rate_limit_error", True),
        _anthropic({"type": "api_error", "message": "down"}, None, "api_error", True),
        _anthropic({"type": "invalid_request_error", "message": "no"}, None, "invalid_request_error"),
        _anthropic({"type": KEY, "message": None}, None, "***"),
        _anthropic("down"),
        _anthropic({"type": ["x"], "message": ["y"]}),
    ),
    "ollama": (
        Answered("stream, answer", b'{"error": "an error was encountered while running the model"}'),
        Answered("stream, answer", to_json({"error": f"not with {KEY}"})),
        Answered("stream, answer", b'{"error": {"message": "down", "code": 503}}', 503, "503", True),
    ),
    "responses": (
        *_responses({"code": "server_error", "message": "down"}, None, "server_error", True),
        *_responses({"code": "rate_limit_exceeded", "message": "slow"}, 429, "rate_limit_exceeded", True),
        *_responses({"code": "invalid_prompt", "message": "no"}, None, "invalid_prompt"),
        *_responses({"code": KEY, "message": None}, None, "***"),
        *_responses({"code": None, "message": "down"}),
    ),
}


DECLINED: Final = "I would rather not."
_BOTH: Final = {
    "filtered": (Said(text="so far", finish_reason="content_filter"), "so far"),
    "filtered before a word": (Said(finish_reason="content_filter"), ""),
    "declined": (Said(refusal=DECLINED), DECLINED),
    "declined after a word": (Said(text="Well,", refusal="no."), "no."),
}
REFUSALS: Final[Mapping[DialectName, Mapping[str, tuple[Said, str]]]] = {
    "chat": _BOTH,
    "anthropic": _BOTH,
    "ollama": {},  # what it serves has no other word for it than its text
    "responses": _BOTH,
}
"""Ways to refuse, and the text of the error that tells of each."""

AT_THE_LIMIT: Final[Mapping[DialectName, str]] = {
    "chat": "length",
    "anthropic": "max_tokens",
    "ollama": "length",
    "responses": "max_output_tokens",
}
"""Each one's own word for an answer that its token limit has cut."""

WITH_CALLS: Final[Mapping[DialectName, tuple[str, ...]]] = {
    "chat": ("stop", "function_call", "", "odd"),
    "anthropic": ("stop", "function_call", "", "odd"),
    "ollama": ("stop", "function_call", "", "odd"),
    "responses": ("stop",),  # any other word for why it stopped makes it incomplete, and its calls with it
}
"""Finish reasons beside which calls are calls all the same."""

_NO_NUMBERS: Final[tuple[Any, ...]] = (-5, 1e300, 10**30, "7", True, None)


def _counts(sent: str, received: str) -> tuple[Any, ...]:
    return (None, {}, [], "many", *({sent: number, received: 3} for number in _NO_NUMBERS), {"total_tokens": 12})


ABSURD: Final[Mapping[DialectName, tuple[Any, ...]]] = {
    "chat": _counts("prompt_tokens", "completion_tokens"),
    "anthropic": _counts("input_tokens", "output_tokens"),
    "ollama": tuple({"prompt_eval_count": number, "eval_count": number} for number in _NO_NUMBERS),
    "responses": _counts("input_tokens", "output_tokens"),
}
"""Tokens that make no sense, as each dialect tells them."""


def written(dialect: DialectName, text: str, usage: Any) -> Reply:
    """Give an answer that tells such tokens, whole and streamed."""
    said = Said(text=text, usage=None)

    def edited(data: bytes) -> bytes:
        if not data.startswith(b"{"):
            return data
        made = json.loads(data)
        if dialect == "ollama":
            return to_json(made | usage if made["done"] else made)
        for holder in (made, made.get("message"), made.get("response")):
            if isinstance(holder, dict) and holder.get("object") != "chat.completion.chunk":
                holder["usage"] = usage
        return to_json(made)

    told = [*events(dialect, said)]
    if dialect == "chat":
        told.insert(-1, to_json({"choices": [], "usage": usage}))
    return Reply(body=edited(whole(dialect, said)), events=[edited(event) for event in told])


def at_once(dialect: DialectName, said: Said) -> tuple[bytes, ...]:
    """Give a stream that says everything at once: in its last event, or in as few as the dialect allows."""
    made = events(dialect, said)
    match dialect:
        case "chat":
            message = json.loads(whole(dialect, said))["choices"][0]["message"]
            return (chunk(message, said.reason),)
        case "anthropic":
            content = json.loads(whole(dialect, said))["content"]
            blocks = [event("content_block_start", index=at, content_block=block) for at, block in enumerate(content)]
            return (made[0], *blocks, *made[-2:])
        case "ollama":
            return (whole(dialect, said),)
        case "responses":
            return (made[-1],)
        case other:
            assert_never(other)


def provider(dialect: DialectName, base_url: str, **options: Any) -> Any:
    """Make the provider that speaks a dialect."""
    module, _, name = SPOKEN[dialect].provider.partition(":")
    return getattr(import_module(module), name)("m1", name="acme", base_url=base_url, **options)


def events(dialect: DialectName, said: Said, number: int = 1) -> list[bytes]:
    """Give the data of the events of an answer to the request of this number."""
    return DIALECTS[dialect].events(said, Asked(model="m1", number=number, dialect=dialect))


def framed(dialect: DialectName, said: Said, number: int = 1) -> list[bytes]:
    """Give the events as they are sent."""
    return DIALECTS[dialect].frame(events(dialect, said, number), Style())


def whole(dialect: DialectName, said: Said) -> bytes:
    """Give the answer in one piece."""
    return DIALECTS[dialect].whole(said, Asked(model="m1", dialect=dialect))


def end_of(dialect: DialectName, said: Said) -> int:
    """Give the place of the first event that is an end mark."""
    return next(at for at, event in enumerate(events(dialect, said)) if DIALECTS[dialect].is_end(event))


def with_event(dialect: DialectName, *data: bytes, said: str = "so far") -> Reply:
    """Give a stream that has said something when these events come, and then ends as it should."""
    spoken = Said(text=said, piece=3)
    made = events(dialect, spoken)
    at = SPOKEN[dialect].opening + len(spoken.pieces())
    return Reply(events=(*made[:at], *data, *made[at:]), streamed=True)
