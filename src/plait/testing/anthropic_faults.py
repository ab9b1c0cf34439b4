"""What Anthropic's dialect can get wrong in its writing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from plait.testing.anthropic import AnthropicDialect, event
from plait.testing.misprints import edited, streamed
from plait.testing.reply import Reply
from plait.testing.said import Call, Said

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from plait.testing.misprints import Make
    from plait.testing.reply import Asked

_DIALECT: Final = AnthropicDialect()
_TWO: Final = Said(calls=(Call(arguments={"city": "A"}), Call(arguments={"city": "B"})))
_A, _B = ('{"city": ', '"A"}'), ('{"city": ', '"B"}')


def _blocks(data: dict[str, Any]) -> list[dict[str, Any]]:
    opened = data.get("content_block")
    return list(data.get("content", ())) if opened is None else [opened]


def _no_ids(data: dict[str, Any]) -> None:
    for one in _blocks(data):
        one.pop("id", None)


def _no_reason(data: dict[str, Any]) -> None:
    for holder in (data, data.get("delta", {})):
        if "stop_reason" in holder:
            holder["stop_reason"] = None


def _more_keys(data: dict[str, Any]) -> None:
    data |= {"x_new": {"deep": [1e308]}, "container": None}
    for one in (*_blocks(data), *(data[name] for name in ("message", "delta", "usage") if name in data)):
        one |= {"citations": None, "x_more": [None, {}]}


def _absurd_usage(data: dict[str, Any]) -> None:
    for holder in (data, data.get("message", {})):
        if "usage" in holder:
            holder["usage"] = {"input_tokens": -5, "output_tokens": "many", "cache_read_input_tokens": 10**30}


def _content(value: object) -> Callable[[dict[str, Any]], None]:
    def edit(data: dict[str, Any]) -> None:
        for name in ("content", "content_block"):
            if name in data:
                data[name] = value

    return edit


def _absent(data: dict[str, Any]) -> None:
    for name in ("content", "content_block"):
        data.pop(name, None)


def _opened(index: int, tool: str, call_id: str, **given: object) -> bytes:
    opened = {"type": "tool_use", "id": call_id, "name": tool, "input": given}
    return event("content_block_start", index=index, content_block=opened)


def _piece(index: int, arguments: str) -> bytes:
    return event("content_block_delta", index=index, delta={"type": "input_json_delta", "partial_json": arguments})


def _closed(index: int) -> bytes:
    return event("content_block_stop", index=index)


def _pieces(blocks: Callable[[str], list[bytes]]) -> Make:
    """Stream two calls in these events; ``blocks`` takes the name of the tool."""

    def events(tool: str, asked: Asked) -> list[bytes]:
        healthy = _DIALECT.events(_TWO, asked)
        return [*healthy[:2], *blocks(tool), *healthy[-2:]]

    return streamed(_TWO, events)


ANTHROPIC: Final[Mapping[str, Make]] = {
    "error-as-answer": lambda place, asked: Reply(body=_DIALECT.error(529, "the model is overloaded")),
    "answer-null": edited(_DIALECT, _content(None)),
    "answer-of-null": edited(_DIALECT, _content([None])),
    "answer-absent": edited(_DIALECT, _absent),
    "null-reason": edited(_DIALECT, _no_reason),
    "extra-keys": edited(_DIALECT, _more_keys),
    "missing-ids": edited(_DIALECT, _no_ids, _TWO),
    "mixed-pieces": _pieces(
        lambda tool: [
            _opened(0, tool, "a"),
            _opened(1, tool, "b"),
            *(_piece(0, _A[0]), _piece(1, _B[0]), _piece(1, _B[1]), _piece(0, _A[1])),
            _closed(1),
            _closed(0),
        ]
    ),
    "falling-numbers": _pieces(
        lambda tool: [
            *(_opened(7, tool, "a"), _piece(7, _A[0]), _piece(7, _A[1]), _closed(7)),
            *(_opened(2, tool, "b"), _piece(2, _B[0]), _piece(2, _B[1]), _closed(2)),
        ]
    ),
    "arguments-as-object": _pieces(
        lambda tool: [_opened(0, tool, "a", city="A"), _closed(0), _opened(1, tool, "b", city="B"), _closed(1)]
    ),
    "absurd-usage": edited(_DIALECT, _absurd_usage),
}
