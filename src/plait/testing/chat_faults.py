"""Faults in how OpenAI's chat dialect is written: JSON that is not what its reference says."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from plait.testing.chat import ChatDialect, chunk
from plait.testing.fault import Fault, Place
from plait.testing.reply import Reply
from plait.testing.said import Call, Said

if TYPE_CHECKING:
    from collections.abc import Callable

    from plait.testing.reply import Asked

_DIALECT: Final = ChatDialect()
_ERROR: Final = {"message": "the model is overloaded", "type": "server_error", "code": 503}
_DONE: Final = b"[DONE]"


def _written(
    row: str, name: str, sentence: str, edit: Callable[[dict[str, Any]], None], said: Said | None = None
) -> Fault:
    """A fault that changes every JSON object of an answer."""

    def make(place: Place, asked: Asked) -> Reply:
        spoken = place.reply(said).said
        events = tuple(_edited(event, edit) for event in _DIALECT.events(spoken, asked))
        return Reply(body=_edited(_DIALECT.whole(spoken, asked), edit), events=events)

    return Fault(row=row, name=name, sentence=sentence, make=make)


def _edited(data: bytes, edit: Callable[[dict[str, Any]], None]) -> bytes:
    if data == _DONE:
        return data
    made = json.loads(data)
    edit(made)
    return json.dumps(made).encode()


def _inserted(row: str, name: str, sentence: str, data: bytes) -> Fault:
    """A fault that puts a foreign event into a stream, and in place of an answer in one piece."""

    def make(place: Place, asked: Asked) -> Reply:
        events = _DIALECT.events(place.reply().said, asked)
        at = place.number(3)
        return Reply(body=data, events=(*events[:at], data, *events[at:]))

    return Fault(row=row, name=name, sentence=sentence, make=make)


def _ended(row: str, name: str, sentence: str, *ending: bytes) -> Fault:
    """A fault of what stands after the last chunk of a stream."""

    def make(place: Place, asked: Asked) -> Reply:
        said = place.reply().said
        return Reply(said=said, events=(*_DIALECT.events(said, asked)[:-1], *ending))

    return Fault(row=row, name=name, sentence=sentence, make=make)


def _streamed(row: str, name: str, sentence: str, said: Said, deltas: Callable[[str], list[dict[str, Any]]]) -> Fault:
    """A fault of how the pieces of tool calls come; ``deltas`` takes the name of the tool."""

    def make(place: Place, asked: Asked) -> Reply:
        tool = asked.tools[0] if asked.tools else "tool"
        events = [chunk({"tool_calls": [piece]}, asked=asked) for piece in deltas(tool)]
        return Reply(said=said, events=(*events, chunk({}, "tool_calls", asked=asked), _DONE))

    return Fault(row=row, name=name, sentence=sentence, make=make)


def _each_choice(data: dict[str, Any]) -> list[dict[str, Any]]:
    return list(data["choices"])


def _each_call(data: dict[str, Any]) -> list[dict[str, Any]]:
    said = [choice.get("delta") or choice.get("message") or {} for choice in _each_choice(data)]
    return [call for one in said for call in one.get("tool_calls", [])]


def _no_reason(data: dict[str, Any]) -> None:
    for choice in _each_choice(data):
        choice["finish_reason"] = None


def _more_keys(data: dict[str, Any]) -> None:
    data |= {"x_new": {"deep": [1e308]}, "service_tier": None, "system_fingerprint": 7}
    for choice in _each_choice(data):
        choice |= {"logprobs": {"content": None}, "content_filter_results": {}}


def _no_ids(data: dict[str, Any]) -> None:
    for call in _each_call(data):
        call.pop("id", None)


def _objects(data: dict[str, Any]) -> None:
    for call in _each_call(data):
        call.pop("type", None)
        function = call["function"]
        # In a stream the arguments come once, whole; the pieces after it are empty.
        function["arguments"] = {"city": "A"} if "name" in function else ""


def _absurd_usage(data: dict[str, Any]) -> None:
    if data.get("usage") is not None:
        data["usage"] = {"prompt_tokens": -5, "completion_tokens": "many", "total_tokens": 10**30}


def _without(data: dict[str, Any], value: object) -> None:
    data["choices"] = value


def _absent(data: dict[str, Any]) -> None:
    del data["choices"]


def _piece(index: int | None, arguments: str, name: str | None = None, call_id: str | None = None) -> dict[str, Any]:
    function = {"arguments": arguments} if name is None else {"name": name, "arguments": arguments}
    made: dict[str, Any] = {"function": function}
    if call_id is not None:
        made["id"] = call_id
    return made if index is None else {"index": index, **made}


def _azure(place: Place, asked: Asked) -> Reply:
    said = place.reply().said
    first = json.dumps({"choices": [], "created": 0, "id": "", "model": "", "prompt_filter_results": []}).encode()
    return Reply(said=said, events=(first, *_DIALECT.events(said, asked)))


def _bad_bytes(place: Place, asked: Asked) -> Reply:
    reply = place.reply(Said(text="so far @ and on"))
    events = tuple(event.replace(b"@", b"\xff") for event in _DIALECT.events(reply.said, asked))
    return Reply(body=_DIALECT.whole(reply.said, asked).replace(b"@", b"\xff"), events=events)


_TWO: Final = Said(calls=(Call(arguments={"city": "A"}), Call(arguments={"city": "B"})))
_A, _B = ('{"city": ', '"A"}'), ('{"city": ', '"B"}')

CHAT_FAULTS: Final = (
    Fault(row="L30", name="bad-utf8", sentence="a byte that is no UTF-8", make=_bad_bytes),
    _inserted(
        "L32", "error-midway", "an error object inside a 200 stream (at)", json.dumps({"error": _ERROR}).encode()
    ),
    Fault(
        row="L33",
        name="error-as-answer",
        sentence="200, and an error object is the whole answer",
        make=lambda place, asked: Reply(body=json.dumps({"error": _ERROR}).encode()),
    ),
    _ended("L34", "no-done", "no [DONE] at the end"),
    _ended("L34", "done-twice", "[DONE] twice", _DONE, _DONE),
    _ended("L34", "junk-after-done", "[DONE], and then junk", _DONE, b"junk", b'{"choices": 7}'),
    _inserted("L35", "event-no-json", "an event that is no JSON (at)", b"{not json"),
    _inserted("L35", "event-null", "an event that is null (at)", b"null"),
    _inserted("L35", "event-number", "an event that is a number (at)", b"42"),
    _inserted("L35", "event-array", "an event that is an array (at)", b'[{"choices": []}, 1e999]'),
    _inserted("L35", "event-unknown", "an event of an unknown type (at)", b'{"type": "ping", "data": {}}'),
    _written("L36", "choices-empty", "choices is empty", lambda data: _without(data, [])),
    _written("L36", "choices-null", "choices is null", lambda data: _without(data, None)),
    _written("L36", "choices-of-null", "choices holds null", lambda data: _without(data, [None])),
    _written("L36", "choices-absent", "there are no choices", _absent),
    Fault(row="L36", name="azure-first-chunk", sentence="Azure's first chunk, which has no choice", make=_azure),
    _written("L40", "null-reason", "the finish reason is null, and [DONE] comes", _no_reason),
    _written("L40", "extra-keys", "keys nobody knows", _more_keys),
    _written("L43", "missing-ids", "tool calls without ids", _no_ids, _TWO),
    _streamed(
        "L45",
        "mixed-pieces",
        "the pieces of two calls in turn",
        _TWO,
        lambda tool: [
            _piece(0, "", tool, "a"),
            _piece(1, "", tool, "b"),
            _piece(0, _A[0]),
            _piece(1, _B[0]),
            _piece(1, _B[1]),
            _piece(0, _A[1]),
        ],
    ),
    _streamed(
        "L45",
        "falling-numbers",
        "calls numbered downwards, with gaps",
        _TWO,
        lambda tool: [_piece(7, _A[0], tool, "a"), _piece(7, _A[1]), _piece(2, _B[0], tool, "b"), _piece(2, _B[1])],
    ),
    _streamed(
        "L45",
        "no-numbers",
        "pieces without numbers",
        _TWO,
        lambda tool: [
            _piece(None, _A[0], tool, "a"),
            _piece(None, _A[1]),
            _piece(None, _B[0], tool, "b"),
            _piece(None, _B[1]),
        ],
    ),
    _written("L46", "arguments-as-object", "arguments as a JSON object, calls without a type", _objects, _TWO),
    _written("L50", "absurd-usage", "tokens that make no sense", _absurd_usage),
)
