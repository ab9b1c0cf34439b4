"""What Ollama's dialect can get wrong in its writing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from plait.testing.misprints import edited, streamed
from plait.testing.ollama import OllamaDialect, line
from plait.testing.reply import Reply
from plait.testing.said import Call, Said

if TYPE_CHECKING:
    from collections.abc import Mapping

    from plait.testing.misprints import Edit, Make
    from plait.testing.reply import Asked

_DIALECT: Final = OllamaDialect()
_TWO: Final = Said(calls=(Call(arguments={"city": "A"}), Call(arguments={"city": "B"})))


def _calls(data: dict[str, Any]) -> list[dict[str, Any]]:
    return list(data["message"].get("tool_calls", ()))


def _no_ids(data: dict[str, Any]) -> None:
    for call in _calls(data):
        call.pop("id", None)


def _no_reason(data: dict[str, Any]) -> None:
    if "done_reason" in data:
        data["done_reason"] = None


def _more_keys(data: dict[str, Any]) -> None:
    data |= {"x_new": {"deep": [1e308]}, "logprobs": None}
    data["message"] |= {"images": None, "x_more": [None, {}]}


def _texts(data: dict[str, Any]) -> None:
    for call in _calls(data):
        call["function"]["arguments"] = json.dumps(call["function"]["arguments"])


def _absurd_usage(data: dict[str, Any]) -> None:
    if "eval_count" in data:
        data |= {"prompt_eval_count": -5, "eval_count": "many"}


def _message(value: object) -> Edit:
    def edit(data: dict[str, Any]) -> None:
        data["message"] = value

    return edit


def _absent(data: dict[str, Any]) -> None:
    del data["message"]


def _numbers(*numbers: int | None) -> Make:
    """Stream two calls so numbered, in a line of both; None leaves the number out."""

    def events(tool: str, asked: Asked) -> list[bytes]:
        calls = []
        for number, city in zip(numbers, "AB", strict=True):
            function = {"name": tool, "arguments": {"city": city}}
            calls.append({"id": city, "function": function if number is None else {"index": number, **function}})
        made = line({"role": "assistant", "content": "", "tool_calls": calls}, asked)
        return [made, _DIALECT.events(_TWO, asked)[-1]]

    return streamed(_TWO, events)


OLLAMA: Final[Mapping[str, Make]] = {
    "error-as-answer": lambda place, asked: Reply(body=_DIALECT.error(503, "the model is overloaded")),
    "answer-null": edited(_DIALECT, _message(None)),
    "answer-of-null": edited(_DIALECT, _message([None])),
    "answer-absent": edited(_DIALECT, _absent),
    "null-reason": edited(_DIALECT, _no_reason),
    "extra-keys": edited(_DIALECT, _more_keys),
    "missing-ids": edited(_DIALECT, _no_ids, _TWO),
    "falling-numbers": _numbers(7, 2),
    "no-numbers": _numbers(None, None),
    "arguments-as-text": edited(_DIALECT, _texts, _TWO),
    "absurd-usage": edited(_DIALECT, _absurd_usage),
}
