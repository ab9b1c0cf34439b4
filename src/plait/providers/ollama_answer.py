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
    CUT,
    FinishDelta,
    ModelDelta,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    Usage,
    UsageDelta,
)
from plait.frozen import assemble
from plait.plain import parse_json, to_json
from plait.providers.judging import Judge
from plait.providers.ndjson import LineReader
from plait.providers.wire import token_count

if TYPE_CHECKING:
    from plait.errors import TransportError
    from plait.events import Delta
    from plait.providers.status import Service

_NOTHING: Final = msgspec.Raw(b"null")
_BEGINNING: Final = 1000  # bytes that may be shown
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
    """Turns one answer's JSON into deltas, and judges at its end whether it was complete.

    The end mark is given out by `end` alone, when it is sure that the answer is one.
    """

    __slots__ = ("_calls", "_complete", "_named", "_reason", "_seen", "_spoke")

    decoder: ClassVar[msgspec.json.Decoder[Any]] = msgspec.json.Decoder(_Line)

    def __init__(self, service: Service) -> None:
        """Say who answers."""
        super().__init__(service)
        self._named = False
        self._seen = False  # a message, be it empty
        self._spoke = False  # text or a tool call
        self._calls = 0
        self._complete = False
        self._reason: str | None = None

    def whole(self, body: bytes) -> list[Delta]:
        """Read an answer in one piece; some servers call a stream one, so that it may have several lines.

        Raises:
            ProtocolViolation, StreamTruncated, ProviderError, EmptyAnswer: as `end`.
        """
        try:
            answer: _Line = self.decoder.decode(body)
        except (ValueError, RecursionError):
            reader = LineReader()
            lines = reader.feed(body) + reader.end()
            if len(lines) > 1 and lines[0].rstrip()[-1:] == b"}":  # else it is one object, written over several lines
                return self.feed(lines) + self.end(body[:_BEGINNING])
            answer = self._read(body)
        if answer.message is None and not answer.error:
            raise self._violation(body, what=_NO_MESSAGE)
        self._fed = True
        self._add(answer, self._said)
        self._complete = self._complete or answer.done is None  # the end of the body is its end mark
        return self._said + self.end(body[:_BEGINNING])

    def end(self, beginning: bytes = b"", *, broken: TransportError | None = None) -> list[Delta]:
        """Judge the answer at its end; give its end mark.

        Args:
            beginning: the first bytes of the answer, to show if there was nothing in it.
            broken: how the stream broke off, if it did.

        Raises:
            StreamTruncated: no line was ``done``.
            ProtocolViolation: a line is no JSON object of this dialect, there was none, or no message in any.
            ProviderError: a line holds an error. As with all of these, ``partial`` is the text so far.
            EmptyAnswer: it is complete and says nothing.
        """
        if self._failure is not None:
            raise self._failure
        if not self._complete:
            raise self._truncated(beginning, broken)
        if not self._spoke and self._reason not in CUT:
            raise self._empty()
        return [FinishDelta(self._reason or "")]  # older servers name no reason

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
        self._complete = True
        self._reason = event.done_reason
        if (usage := read_usage(event.prompt_eval_count, event.eval_count)) is not None:
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


def read_usage(sent: object, received: object) -> Usage | None:
    """Read the tokens of a request; None when they make no sense or are missing, which is not the same as zero."""
    tokens = token_count(sent), token_count(received)
    if tokens[0] is None or tokens[1] is None:
        return None
    return assemble(Usage, {"input_tokens": tokens[0], "output_tokens": tokens[1]})
