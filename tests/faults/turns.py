"""A request as it came to a server, in whichever dialect: who said what, which calls were made, what they gave."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from plait.testing.reply import DialectName


class Sent(NamedTuple):
    """A call as it was sent back: its id, the tool's name, the arguments as text."""

    id: str
    name: str
    arguments: str


class Turn(NamedTuple):
    """What one message of a request says; ``results`` are pairs of the id of a call and what came of it."""

    role: str
    text: str
    calls: tuple[Sent, ...] = ()
    results: tuple[tuple[str, str], ...] = ()


def turns(dialect: DialectName, request: Mapping[str, Any]) -> list[Turn]:
    """Read what a request sends, the system's words first."""
    return _READERS[dialect](request)


def results(dialect: DialectName, request: Mapping[str, Any]) -> list[str]:
    """Give what the tools told the model, in the order sent."""
    return [text for turn in turns(dialect, request) for _, text in turn.results]


def assert_sent_whole(dialect: DialectName, request: Mapping[str, Any]) -> None:
    """See that a request can be sent: each call has one result, which follows it, and nobody says nothing."""
    said = turns(dialect, request)
    waiting: list[str] = []
    for turn in said:
        for name, _ in turn.results:
            assert name in waiting, f"a result of no call: {name}"
            waiting.remove(name)
        if not turn.results:
            assert waiting == [], f"calls without a result: {waiting}"
            waiting = [call.id for call in turn.calls]
        assert turn.text or turn.calls or turn.results or turn.role == "user"
    assert waiting == [], f"calls without a result: {waiting}"
    ids = [call.id for turn in said for call in turn.calls]
    assert all(ids)
    assert len({*ids}) == len(ids)


def _chat(request: Mapping[str, Any]) -> list[Turn]:
    made = []
    for one in request["messages"]:
        calls = [
            Sent(call["id"], call["function"]["name"], call["function"]["arguments"])
            for call in one.get("tool_calls", ())
        ]
        text = _text(one["content"]) or one.get("refusal") or ""
        if one["role"] == "tool":
            made.append(Turn("tool", "", results=((one["tool_call_id"], text),)))
        else:
            made.append(Turn(one["role"], text, tuple(calls)))
    return made


def _anthropic(request: Mapping[str, Any]) -> list[Turn]:
    made = [Turn("system", _text(request["system"]))] if "system" in request else []
    for one in request["messages"]:
        parts = one["content"] if isinstance(one["content"], list) else []
        calls = [
            Sent(part["id"], part["name"], json.dumps(part["input"])) for part in parts if part["type"] == "tool_use"
        ]
        told = [
            (part["tool_use_id"], _text(part.get("content", ""))) for part in parts if part["type"] == "tool_result"
        ]
        made.append(Turn(one["role"], _text(one["content"]), tuple(calls), tuple(told)))
    return made


def _ollama(request: Mapping[str, Any]) -> list[Turn]:
    """Calls of Ollama's may have no ids: their results come in the order of the calls."""
    made: list[Turn] = []
    waiting: list[str] = []
    for number, one in enumerate(request["messages"]):
        if one["role"] == "tool":
            call_id = waiting.pop(0) if waiting else "of no call"
            made.append(Turn("tool", "", results=((call_id, one["content"]),)))
            continue
        calls = [
            Sent(f"{number}.{n}", call["function"]["name"], json.dumps(call["function"]["arguments"]))
            for n, call in enumerate(one.get("tool_calls", ()))
        ]
        waiting = [call.id for call in calls]
        made.append(Turn(one["role"], one.get("content") or "", tuple(calls)))
    return made


def _responses(request: Mapping[str, Any]) -> list[Turn]:
    """Items of one turn stand beside each other: what is said, and each call."""
    made = [Turn("system", request["instructions"])] if request.get("instructions") else []
    given = request["input"]
    for item in [{"role": "user", "content": given}] if isinstance(given, str) else given:
        match item.get("type", "message"):
            case "message":
                made.append(Turn(item["role"], _text(item["content"])))
            case "function_call":
                call = Sent(item["call_id"], item["name"], item["arguments"])
                if made and made[-1].role == "assistant":
                    made[-1] = made[-1]._replace(calls=(*made[-1].calls, call))
                else:
                    made.append(Turn("assistant", "", (call,)))
            case "function_call_output":
                made.append(Turn("tool", "", results=((item["call_id"], _text(item["output"])),)))
            case "reasoning":
                continue
            case other:
                raise AssertionError(other)
    return made


def _text(content: str | Sequence[Mapping[str, Any]] | None) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(_words(content))


def _words(parts: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    return (str(part.get("text") or part.get("refusal") or "") for part in parts)


_READERS: Mapping[DialectName, Callable[[Mapping[str, Any]], list[Turn]]] = {
    "chat": _chat,
    "anthropic": _anthropic,
    "ollama": _ollama,
    "responses": _responses,
}
