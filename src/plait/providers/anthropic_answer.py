"""Answers in Anthropic's Messages dialect: from JSON, whole or in events, to deltas. Pure; it does no I/O.

https://docs.anthropic.com/en/api/messages and .../build-with-claude/streaming

An answer is a list of blocks, and goes back as it came: a block with fields of its own (a signature, citations, what
a tool of the provider's gave) becomes a whole part that holds them, and a block of a kind that is not known here is
kept as a `ServerToolPart`. A block that was cut off is left out where it could not go back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

import msgspec

from plait.errors import excerpt
from plait.events import (
    DetailsDelta,
    ModelDelta,
    PartDelta,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    Usage,
    UsageDelta,
)
from plait.frozen import assemble
from plait.messages import ReasoningPart, ServerToolPart, TextPart
from plait.plain import parse_json, to_json
from plait.providers.judging import Judge, fields_of, usage_of
from plait.providers.wire import token_count

if TYPE_CHECKING:
    from collections.abc import Mapping

    from plait.errors import ModelError
    from plait.events import Delta
    from plait.providers.status import Service

_SAID_OF_ITSELF: Final = {
    "text": frozenset({"type", "text", "citations"}),
    "thinking": frozenset({"type", "thinking", "signature"}),
    "tool_use": frozenset({"type", "id", "name", "input"}),
}


class _Piece(msgspec.Struct, gc=False):
    """What a block, or the message, grows by."""

    type: str | None = None
    text: str | None = None
    partial_json: str | None = None
    thinking: str | None = None
    signature: str | None = None
    citation: Any = None
    content: Any = None
    encrypted_content: Any = None
    stop_reason: str | None = None
    stop_sequence: Any = None
    stop_details: Any = None
    container: Any = None


class _Message(msgspec.Struct, gc=False):
    """A message, whole or as it begins."""

    type: str | None = None
    id: str | None = None
    model: str | None = None
    content: list[Any] | None = None
    stop_reason: str | None = None
    stop_sequence: Any = None
    stop_details: Any = None
    container: Any = None
    usage: Any = None
    error: Any = None
    request_id: Any = None


class _Event(_Message, gc=False):
    """An event of a stream. A whole answer is read as one, too: an event has no field of a message's but these."""

    index: int | None = None
    delta: _Piece | None = None
    content_block: Any = None
    message: _Message | None = None


class _Block(msgspec.Struct, gc=False, eq=False):
    """A block that has begun."""

    kind: str
    began: dict[str, Any]  # the block, as it began
    number: int = -1  # our index of the tool call that it is
    pieces: list[str] = msgspec.field(default_factory=list)  # of its text, its thought, or its input as JSON
    signature: str | None = None
    citations: list[Any] | None = None

    @property
    def details(self) -> dict[str, Any]:
        """Its fields beside those which the part it becomes says by itself."""
        own = _SAID_OF_ITSELF[self.kind]
        if own.issuperset(self.began):
            return {}
        return {name: value for name, value in self.began.items() if name not in own and value is not None}


class AnthropicReader(Judge[_Event]):
    """Turns one answer's JSON into deltas, and judges at its end whether it was complete: ``message_stop`` says so."""

    __slots__ = ("_blocks", "_calls", "_text", "_used")

    decoder: ClassVar[msgspec.json.Decoder[Any]] = msgspec.json.Decoder(_Event)

    def __init__(self, service: Service) -> None:
        """Say who answers."""
        super().__init__(service)
        self._blocks: dict[int | None, _Block] = {}  # those that have begun and not ended, by their number
        self._text: _Block | None = None  # the text that would go on if more text came
        self._calls = 0
        self._used: dict[str, Any] = {}

    def _take(self, answer: _Event, body: bytes, deltas: list[Delta]) -> bool:
        if answer.error or answer.type == "error":
            raise self._reported(answer)
        if answer.content is None:
            raise self._violation(body, what="answered without content")
        self._begin(answer, deltas)
        self._stop(answer, deltas)
        return True

    def _add(self, event: _Event, deltas: list[Delta]) -> bool:
        if event.type != "content_block_delta":
            return self._mark(event, deltas)
        piece = event.delta
        if piece is None:
            raise self._violation(piece, what="sent a piece that holds nothing")
        block = self._blocks.get(event.index)
        if block is None:
            block = self._block_of(event, piece, deltas)
        if (text := piece.text) is not None and block.kind == "text":  # nearly all of them
            if text:
                block.pieces.append(text)
                self._spoke = True
                deltas.append(TextDelta(text))
        else:
            _grow(block, piece, deltas)
        return False

    def _mark(self, event: _Event, deltas: list[Delta]) -> bool:
        """Read an event that begins or ends something; one of a kind that is not known says nothing."""
        match event.type:
            case "content_block_start":
                self._start(event.index, event.content_block, deltas)
            case "content_block_stop":
                number = self._last if event.index is None else event.index
                if (block := self._blocks.pop(number, None)) is not None:
                    self._close(block, deltas)
            case "message_start":
                if event.message is not None:
                    self._begin(event.message, deltas)
            case "message_delta":
                self._stop(event.delta or _NOTHING, deltas)
                self._use(event.usage, deltas)
            case "message_stop":
                for left in self._blocks.values():  # some servers do not end their blocks
                    self._close(left, deltas)
                return True
            case kind if kind == "error" or event.error:
                raise self._reported(event)
            case _:
                pass
        return False

    @property
    def _last(self) -> int | None:
        """The number of the block that began last of those which have not ended."""
        return next(reversed(self._blocks), None)

    def _begin(self, message: _Message, deltas: list[Delta]) -> None:
        if message.model or message.id:
            deltas.append(ModelDelta(message.model or "", message.id or "", self._service.provider))
        for block in message.content or ():
            self._close(self._start(None, block, deltas), deltas)
            del self._blocks[None]
        self._use(message.usage, deltas)

    def _start(self, number: int | None, began: Any, deltas: list[Delta]) -> _Block:
        kind = began.get("type") if type(began) is dict else None
        if type(kind) is not str:
            raise self._violation(began, what="sent a block without a type")
        if (left := self._blocks.pop(number, None)) is not None:
            self._close(left, deltas)
        block = _Block(kind, began)
        self._blocks[number] = block
        if kind == "text":
            self._close_text(deltas)
            self._text = block
            block.citations = _list(began.get("citations"))
            if text := _text(began.get("text")):
                block.pieces.append(text)
                self._spoke = True
                deltas.append(TextDelta(text))
        elif kind == "thinking":
            block.signature = _text(began.get("signature"))
            if thought := _text(began.get("thinking")):
                block.pieces.append(thought)
                deltas.append(ReasoningDelta(thought))
        elif kind == "tool_use":
            self._spoke = True
            block.number = self._calls
            self._calls += 1
            details = self._kept(block.details) if block.details else None
            name = _text(began.get("name"))
            deltas.append(ToolCallDelta(block.number, _text(began.get("id")), name, details=details))
        elif kind == "fallback" and type(to := began.get("to")) is dict:  # another model goes on
            deltas.append(ModelDelta(_text(to.get("model")), "", self._service.provider))
        return block

    def _block_of(self, event: _Event, piece: _Piece, deltas: list[Delta]) -> _Block:
        """Give the block of a piece under no known number: the last one, if it has none, else a new one."""
        if event.index is None and self._blocks:
            return self._blocks[self._last]
        if piece.partial_json:
            raise self._violation(piece.partial_json, what="sent a piece of a call that never began")
        kind = "text" if piece.text is not None else "thinking" if piece.thinking is not None else ""
        return self._start(event.index, {"type": kind}, deltas) if kind else _Block(kind, {})

    def _close(self, block: _Block, deltas: list[Delta]) -> None:
        """Give what is left to say of a block that has ended."""
        kind = block.kind
        if kind == "text":
            details = block.details
            if block.citations:
                details["citations"] = block.citations
            if details:
                text = "".join(block.pieces)
                self._give(assemble(TextPart, {"text": text, "details": self._kept(details)}), deltas)
        elif kind == "thinking":
            details = block.details
            if block.signature:
                details["signature"] = block.signature
            if details or block.pieces:
                thought = "".join(block.pieces)
                self._give(assemble(ReasoningPart, {"text": thought, "details": self._kept(details)}), deltas)
        elif kind == "redacted_thinking":
            self._give(assemble(ReasoningPart, {"details": self._kept(block.began)}), deltas)
        elif kind == "tool_use":
            if not block.pieces:
                given = self._kept(block.began.get("input")) or {}
                deltas.append(ToolCallDelta(block.number, arguments=_text(given) or to_json(given).decode()))
        elif (record := _record(block)) is not None:
            self._spoke = True
            name = _text(record.get("name")) or kind
            self._give(assemble(ServerToolPart, {"name": name, "details": self._kept(record)}), deltas)

    def _give(self, part: TextPart | ReasoningPart | ServerToolPart, deltas: list[Delta]) -> None:
        deltas.append(PartDelta(part))
        self._text = None

    def _close_text(self, deltas: list[Delta]) -> None:
        """End the text that came before, so that the block which now begins is a part of its own."""
        if self._text is not None and self._text.pieces:
            self._give(assemble(TextPart, {"text": "".join(self._text.pieces)}), deltas)

    def _stop(self, said: _Piece | _Message, deltas: list[Delta]) -> None:
        """Note why the answer ends, and give what else is said of it."""
        if said.stop_reason is not None:
            self._reason = said.stop_reason
        sequence, details, container = said.stop_sequence, said.stop_details, said.container
        if sequence is None and details is None and container is None:
            return
        found = {"stop_sequence": sequence, "stop_details": details, "container": container}
        deltas.append(DetailsDelta(self._kept({name: value for name, value in found.items() if value is not None})))
        if type(details) is dict and (why := _text(details.get("explanation"))):
            deltas.append(RefusalDelta(why))

    def _use(self, usage: object, deltas: list[Delta]) -> None:
        """Count tokens: each report is of the whole answer so far, and leaves out what it has nothing new on."""
        if not isinstance(usage, dict):
            return
        self._used.update({name: value for name, value in usage.items() if value is not None})
        if (used := read_usage(self._used)) is not None:
            deltas.append(UsageDelta(used))

    def _reported(self, event: _Message) -> ModelError:
        error = self._error(event.error)
        if request_id := _text(event.request_id):
            error.request_id = excerpt(self._service.clean(request_id))
        return error


_NOTHING: Final = _Piece()


def _grow(block: _Block, piece: _Piece, deltas: list[Delta]) -> None:
    """Add a piece to a block; one that does not fit it says nothing."""
    kind = block.kind
    if kind == "thinking":
        if piece.thinking:
            block.pieces.append(piece.thinking)
            deltas.append(ReasoningDelta(piece.thinking))
        if piece.signature is not None:
            block.signature = piece.signature
    elif kind == "text":
        if piece.citation is not None:
            block.citations = block.citations or []
            block.citations.append(piece.citation)
    elif kind == "compaction":
        block.began |= {"content": piece.content, "encrypted_content": piece.encrypted_content}
    elif piece.partial_json:
        block.pieces.append(piece.partial_json)
        if kind == "tool_use":
            deltas.append(ToolCallDelta(block.number, arguments=piece.partial_json))


def _record(block: _Block) -> dict[str, Any] | None:
    """Give a block as it would be in a whole answer; None if its input was cut off."""
    if not block.pieces:
        return block.began
    try:
        return {**block.began, "input": parse_json("".join(block.pieces))}
    except ValueError:
        return None


def _text(value: object) -> str:
    return value if type(value) is str else ""


def _list(value: object) -> list[Any] | None:
    return value if type(value) is list else None


def read_usage(said: Mapping[str, Any]) -> Usage | None:
    """Read the tokens of a request; see `usage_of`.

    ``input_tokens`` counts only what neither came from the cache nor was written to it.
    """
    read = token_count(said.get("cache_read_input_tokens")) or 0
    written = token_count(said.get("cache_creation_input_tokens")) or 0
    sent = token_count(said.get("input_tokens"))
    return usage_of(
        None if sent is None else sent + read + written,
        said.get("output_tokens"),
        read=read,
        written=written,
        thought=fields_of(said.get("output_tokens_details")).get("thinking_tokens"),
    )
