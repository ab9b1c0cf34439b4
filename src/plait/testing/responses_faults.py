"""What the dialect of OpenAI's responses can get wrong in its writing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from plait.testing.dialect import NamedCall
from plait.testing.misprints import edited, streamed
from plait.testing.reply import Reply
from plait.testing.responses import ResponsesDialect, call_events, call_item, numbered
from plait.testing.said import Call, Said

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from plait.testing.fault import Place
    from plait.testing.misprints import Edit, Make
    from plait.testing.reply import Asked
    from plait.testing.responses import Numbered

_DIALECT: Final = ResponsesDialect()
_TWO: Final = Said(calls=(Call(arguments={"city": "A"}), Call(arguments={"city": "B"})))
_ERROR: Final = {"code": "server_error", "message": "the model is overloaded"}


def _holders(data: dict[str, Any]) -> list[dict[str, Any]]:
    """Give what of an event or answer is a response: the answer itself, or what the event brings."""
    return [data] if "output" in data else [data["response"]] if "response" in data else []


def _items(data: dict[str, Any]) -> list[dict[str, Any]]:
    return [*(item for one in _holders(data) for item in one["output"]), *([data["item"]] if "item" in data else [])]


def _no_ids(data: dict[str, Any]) -> None:
    for item in _items(data):
        item.pop("call_id", None)


def _no_reason(data: dict[str, Any]) -> None:
    for one in _holders(data):
        one["status"] = None


def _more_keys(data: dict[str, Any]) -> None:
    data |= {"x_new": {"deep": [1e308]}, "obfuscation": "kyBY07m8"}
    for one in (*_holders(data), *_items(data), *([data["part"]] if "part" in data else [])):
        one |= {"x_more": [None, {}], "service_tier": None}


def _objects(data: dict[str, Any]) -> None:
    for item in _items(data):
        if item.get("arguments"):
            item["arguments"] = json.loads(item["arguments"])
    if data.get("type") == "response.function_call_arguments.done":
        data["arguments"] = json.loads(data["arguments"])


def _absurd_usage(data: dict[str, Any]) -> None:
    for one in _holders(data):
        if one["usage"] is not None:
            one["usage"] = {"input_tokens": -5, "output_tokens": "many", "total_tokens": 10**30}


def _output(value: object) -> Edit:
    def edit(data: dict[str, Any]) -> None:
        for one in _holders(data):
            one["output"] = value
        if "item" in data:
            data["item"] = value

    return edit


def _absent(data: dict[str, Any]) -> None:
    for one in _holders(data):
        del one["output"]
    data.pop("item", None)


def _failed(place: Place, asked: Asked) -> dict[str, Any]:
    whole: dict[str, Any] = json.loads(_DIALECT.whole(place.reply().said, asked))
    return {**whole, "status": "failed", "output": [], "error": _ERROR, "usage": None}


def _failed_answer(place: Place, asked: Asked) -> Reply:
    return Reply(body=json.dumps(_failed(place, asked)).encode())


def _failed_midway(place: Place, asked: Asked) -> Reply:
    events = _DIALECT.events(place.reply().said, asked)[: place.number(6)]
    event = {"type": "response.failed", "sequence_number": len(events), "response": _failed(place, asked)}
    return Reply(body=json.dumps(event["response"]).encode(), events=(*events, json.dumps(event).encode()))


def _pieces(order: Callable[[list[Numbered], list[Numbered]], list[Numbered]], *numbers: int) -> Make:
    """Stream two calls so numbered; ``order`` takes the five events of each, and gives all in another order."""

    def events(tool: str, asked: Asked) -> list[bytes]:
        calls = [NamedCall(name, tool, json.dumps({"city": name})) for name in "AB"]
        first, second = (call_events(at, call_item(call)) for at, call in zip(numbers, calls, strict=True))
        healthy = [json.loads(event) for event in _DIALECT.events(_TWO, asked)]
        opening, ending = ([(str(event.pop("type")), event) for event in some] for some in (healthy[:2], healthy[-1:]))
        return numbered([*opening, *order(first, second), *ending])

    return streamed(_TWO, events)


RESPONSES: Final[Mapping[str, Make]] = {
    "error-as-answer": _failed_answer,
    "failed-midway": _failed_midway,
    "answer-null": edited(_DIALECT, _output(None)),
    "answer-of-null": edited(_DIALECT, _output([None])),
    "answer-absent": edited(_DIALECT, _absent),
    "null-reason": edited(_DIALECT, _no_reason),
    "extra-keys": edited(_DIALECT, _more_keys),
    "missing-ids": edited(_DIALECT, _no_ids, _TWO),
    "mixed-pieces": _pieces(lambda a, b: [a[0], b[0], a[1], b[1], b[2], a[2], *b[3:], *a[3:]], 0, 1),
    "falling-numbers": _pieces(lambda a, b: [*a, *b], 7, 2),
    "arguments-as-object": edited(_DIALECT, _objects, _TWO),
    "absurd-usage": edited(_DIALECT, _absurd_usage),
}
