"""Answers in Ollama's own dialect: from JSON, whole or in lines, to deltas. Pure; it does no I/O.

https://docs.ollama.com/api/chat and https://github.com/ollama/ollama/blob/main/api/types.go

Each line is a message that grows, the last one is ``done``. Tool calls come whole, their arguments as an object, of
which the model's own text is kept. Nothing comes after an error.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, ClassVar, Final

import msgspec

from plait.events import (
    ModelDelta,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    UsageDelta,
)
from plait.plain import parse_json, to_json
from plait.providers.judging import Judge, usage_of
from plait.providers.ndjson import LineReader

if TYPE_CHECKING:
    from plait.events import Delta
    from plait.providers.status import Service

_NOTHING: Final = msgspec.Raw(b"null")
_NO_MESSAGE: Final = "answered without a message"


class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: msgspec.Raw = _NOTHING


class _Call(msgspec.Struct, gc=False):
    id: str | None = None
    function: _Function | None = None


class _Message(msgspec.Struct, gc=False):
    content: str | None = None
    thinking: str | None = None
    tool_calls: list[_Call] | None = None


class _Line(msgspec.Struct, gc=False):
    model: str | None = None
    message: _Message | None = None
    done: bool | None = None
    done_reason: str | None = None
    prompt_eval_count: Any = None
    eval_count: Any = None
    error: Any = None


class OllamaReader(Judge[_Line]):
    """Turns one answer's JSON into deltas, and judges at its end whether it was complete: its last line says so."""

    __slots__ = ("_calls", "_named", "_seen")

    decoder: ClassVar[msgspec.json.Decoder[Any]] = msgspec.json.Decoder(_Line)

    def __init__(self, service: Service) -> None:
        """Say who answers."""
        super().__init__(service)
        self._named = False
        self._seen = False  # a message, be it empty
        self._calls = 0

    def _events_in(self, body: bytes) -> list[bytes]:
        reader = LineReader()
        lines = reader.feed(body) + reader.end()
        # Else it is one object, written over several lines.
        return lines if len(lines) > 1 and lines[0].rstrip()[-1:] == b"}" else []

    def _take(self, answer: _Line, body: bytes, deltas: list[Delta]) -> bool:
        if answer.message is None and not answer.error:
            raise self._violation(body, what=_NO_MESSAGE)
        return self._add(answer, deltas) or answer.done is None  # then the end of the body is its end mark

    def _add(self, event: _Line, deltas: list[Delta]) -> bool:
        if event.error:
            raise self._error(event.error)
        if not self._named and event.model:
            self._named = True
            deltas.append(ModelDelta(event.model, "", self._service.provider))
        message = event.message
        if message is not None:
            self._seen = True
            if message.thinking:
                deltas.append(ReasoningDelta(message.thinking))
            if message.content:
                self._spoke = True
                deltas.append(TextDelta(message.content))
            if message.tool_calls:
                self._spoke = True
                deltas += map(self._call, message.tool_calls)
        if not event.done:
            return False
        if not self._seen:
            raise self._violation(to_json(event), what=_NO_MESSAGE)
        self._reason = event.done_reason
        if (usage := usage_of(event.prompt_eval_count, event.eval_count)) is not None:
            deltas.append(UsageDelta(usage))
        return True

    def _call(self, call: _Call) -> ToolCallDelta:
        """Give a call, which comes whole, under the number of its place: servers' own begin anew, or are missing."""
        function = call.function or _Function()
        index, self._calls = self._calls, self._calls + 1
        return ToolCallDelta(index, call.id or "", function.name or "", self._arguments(bytes(function.arguments)))

    def _arguments(self, said: bytes) -> str:
        """Give the arguments of a call as text; some servers send them as one."""
        text: str | None
        try:
            text = parse_json(said) if said[:1] == b'"' else said.decode()
        except ValueError:
            text = None
        if text is None:  # what is kept as it came was not checked by the decoder
            raise self._violation(said, what="sent arguments that are not UTF-8")
        return "" if text == "null" else text

    def _convert(self, value: Any) -> _Line:
        for call in _calls_in(value):
            call["arguments"] = msgspec.Raw(json.dumps(call["arguments"], separators=(",", ":")).encode())
        return super()._convert(value)


def _calls_in(value: Any) -> list[dict[str, Any]]:
    """Find the functions that are called, with arguments, in a line that may be anything."""
    message = value.get("message") if isinstance(value, dict) else None
    calls = message.get("tool_calls") if isinstance(message, dict) else None
    found = [call.get("function") for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []
    return [function for function in found if isinstance(function, dict) and "arguments" in function]
