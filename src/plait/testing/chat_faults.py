"""What OpenAI's chat dialect can get wrong in its writing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from plait.testing.chat import DONE, ChatDialect, chunk
from plait.testing.misprints import edited, ended, streamed
from plait.testing.reply import Reply
from plait.testing.said import Call, Said

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from plait.testing.fault import Place
    from plait.testing.misprints import Make
    from plait.testing.reply import Asked

_DIALECT: Final = ChatDialect()
_ERROR: Final = {"error": {"message": "the model is overloaded", "type": "server_error", "code": 503}}
_TWO: Final = Said(calls=(Call(arguments={"city": "A"}), Call(arguments={"city": "B"})))
_A, _B = ('{"city": ', '"A"}'), ('{"city": ', '"B"}')


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


def _pieces(deltas: Callable[[str], list[dict[str, Any]]]) -> Make:
    """Stream two calls in these pieces; ``deltas`` takes the name of the tool."""

    def events(tool: str, asked: Asked) -> list[bytes]:
        made = [chunk({"tool_calls": [piece]}, asked=asked) for piece in deltas(tool)]
        return [*made, chunk({}, "tool_calls", asked=asked), DONE]

    return streamed(_TWO, events)


CHAT: Final[Mapping[str, Make]] = {
    "error-as-answer": lambda place, asked: Reply(body=json.dumps(_ERROR).encode()),
    "no-done": ended(_DIALECT, lambda ending: ending[:-1]),
    "choices-empty": edited(_DIALECT, lambda data: _without(data, [])),
    "choices-null": edited(_DIALECT, lambda data: _without(data, None)),
    "choices-of-null": edited(_DIALECT, lambda data: _without(data, [None])),
    "choices-absent": edited(_DIALECT, _absent),
    "azure-first-chunk": _azure,
    "null-reason": edited(_DIALECT, _no_reason),
    "extra-keys": edited(_DIALECT, _more_keys),
    "missing-ids": edited(_DIALECT, _no_ids, _TWO),
    "mixed-pieces": _pieces(
        lambda tool: [
            _piece(0, "", tool, "a"),
            _piece(1, "", tool, "b"),
            _piece(0, _A[0]),
            _piece(1, _B[0]),
            _piece(1, _B[1]),
            _piece(0, _A[1]),
        ]
    ),
    "falling-numbers": _pieces(
        lambda tool: [_piece(7, _A[0], tool, "a"), _piece(7, _A[1]), _piece(2, _B[0], tool, "b"), _piece(2, _B[1])]
    ),
    "no-numbers": _pieces(
        lambda tool: [
            _piece(None, _A[0], tool, "a"),
            _piece(None, _A[1]),
            _piece(None, _B[0], tool, "b"),
            _piece(None, _B[1]),
        ]
    ),
    "arguments-as-object": edited(_DIALECT, _objects, _TWO),
    "absurd-usage": edited(_DIALECT, _absurd_usage),
}
