"""Answers in OpenAI's Responses dialect: from JSON, whole or in events, to deltas. Pure; it does no I/O.

https://platform.openai.com/docs/api-reference/responses/object and .../responses-streaming

An answer is a list of items: messages, thoughts, calls, and what the provider's own tools did. Each is announced,
grows, and is said once more when it is done, which completes what its pieces missed. The last event holds the whole
answer; nothing comes after it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

import msgspec

from plait.events import (
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
from plait.plain import EMPTY, FrozenDict, to_json
from plait.providers.judging import Judge, fields_of, usage_of

if TYPE_CHECKING:
    from plait.errors import ModelError, TransportError
    from plait.events import Delta
    from plait.providers.status import Service

_ENDS: Final = frozenset({"completed", "incomplete", "failed"})
_PARAGRAPH: Final = "\n\n"  # stands between the sections of a thought

# The pieces by which items grow: of texts, and of a call's arguments.
_TEXT: Final = "response.output_text.delta"
_REFUSAL: Final = "response.refusal.delta"
_SAYS: Final[dict[str, type[TextDelta | RefusalDelta | ReasoningDelta]]] = {
    _TEXT: TextDelta,
    _REFUSAL: RefusalDelta,
    "response.reasoning_summary_text.delta": ReasoningDelta,
    "response.reasoning_text.delta": ReasoningDelta,
}
_ARGUMENTS: Final = "response.function_call_arguments.delta"

_CONTENT: Final = {"output_text": (_TEXT, "text"), "refusal": (_REFUSAL, "refusal")}  # of messages; its field of text
_OF_MESSAGES: Final = frozenset({"type", "role", "content"})  # what is said of a message by other means
_OF_CALLS: Final = frozenset({"type", "call_id", "name", "arguments"})


class _Response(msgspec.Struct, gc=False):
    """An answer, whole or as far as it has come."""

    id: str | None = None
    model: str | None = None
    status: str | None = None
    output: Any = None
    usage: Any = None
    incomplete_details: Any = None
    error: Any = None


class _Event(_Response, gc=False):
    """An event, or an answer in one piece."""

    type: str = ""
    delta: Any = None
    output_index: int | None = None
    content_index: int | None = None
    summary_index: int | None = None
    item: Any = None
    response: _Response | None = None
    code: Any = None
    message: Any = None


class _Item(msgspec.Struct, gc=False, eq=False):
    """What was seen of one item of the answer."""

    index: int
    growth: str = ""  # the kind of the pieces it grows by; another kind of pieces waits until it is done
    pieces: list[str] = msgspec.field(default_factory=list)
    section: int = 0
    call: int | None = None  # our number of the call that it is
    done: bool = False


class ResponsesReader(Judge[_Event]):
    """Turns one answer's JSON into deltas, and judges at its end whether it was complete.

    A part is given whole when something of it must go back, or when something else comes behind it. A thought is given
    whole only then: the last one of an answer that was cut is cut itself, and must not go back. One item grows at a
    time: what comes of others meanwhile waits until it is done, so that parts keep their order.
    """

    __slots__ = ("_calls", "_held", "_item", "_items", "_named", "_thought", "_waiting")

    decoder: ClassVar[msgspec.json.Decoder[Any]] = msgspec.json.Decoder(_Event)

    def __init__(self, service: Service) -> None:
        """Say who answers."""
        super().__init__(service)
        self._named = False
        self._items: dict[int, _Item] = {}
        self._item = _Item(-1, done=True)  # the one that grows
        self._held: dict[int, list[_Event]] = {}  # what came of others meanwhile, by their index
        self._calls = 0
        self._thought = False  # a thought came, with which what follows it must go back
        self._waiting: TextPart | ReasoningPart | None = None  # it is whole, and given when something comes behind it

    def _take(self, answer: _Event, body: bytes, deltas: list[Delta]) -> bool:
        if answer.error:
            raise self._error(answer.error)
        if type(answer.output) is not list or answer.status not in (None, *_ENDS):
            raise self._violation(body, what="answered with a response that is not finished")
        self._name(answer, deltas)
        self._conclude(answer, answer.status or "completed", deltas)
        return True

    def _truncated(self, beginning: bytes, broken: TransportError | None) -> ModelError:
        self._release_all(self._said)  # it is part of what came
        return super()._truncated(beginning, broken)

    def _add(self, event: _Event, deltas: list[Delta]) -> bool:
        item, index = self._item, event.output_index
        if index != item.index and not (index is None or item.done or event.response is not None):
            self._held.setdefault(index, []).append(event)
            return False
        made = _SAYS.get(event.type)
        if made is None and event.type != _ARGUMENTS:
            return self._other(event, deltas)
        text = event.delta
        if type(text) is not str:
            if text is None:
                return False
            raise self._violation(to_json(text), what="sent a piece that is no text")
        if index != item.index:
            item = self._at(index, deltas)
        if item.growth != event.type:
            if item.growth or not text:
                return False
            item.growth = event.type
            self._spoke = self._spoke or (made is not None and made is not ReasoningDelta)
        if made is ReasoningDelta:
            section = event.content_index if event.summary_index is None else event.summary_index
            if section is not None and section != item.section:
                item.section = section
                text = _PARAGRAPH + text if item.pieces else text
        item.pieces.append(text)
        if made is not None:
            deltas.append(made(text))
        elif item.call is not None:
            deltas.append(ToolCallDelta(item.call, arguments=text))
        return False

    def _other(self, event: _Event, deltas: list[Delta]) -> bool:
        """Add what is no piece; say whether it ends the answer. An event of a kind that is not known adds nothing."""
        kind = event.type
        if kind == "error" or event.error:
            raise self._error(event.error or {"code": event.code, "message": event.message})
        response = event.response
        if response is not None:
            self._name(response, deltas)
            ending = kind.removeprefix("response.")
            if ending not in _ENDS:
                return False
            self._conclude(response, response.status if response.status in _ENDS else ending, deltas)
            return True
        if kind == "response.output_item.added":
            self._begin(self._object(event.item), self._at(event.output_index, deltas), deltas)
        elif kind == "response.output_item.done":
            self._finish(self._object(event.item), self._at(event.output_index, deltas), deltas)
            self._release(deltas)
        return False

    def _release(self, deltas: list[Delta]) -> None:
        """Add what waited for the item that is done now."""
        held, self._held = self._held, {}
        while held and self._item.done:
            for event in held.pop(next(iter(held))):
                self._add(event, deltas)
        self._held = held

    def _release_all(self, deltas: list[Delta]) -> None:
        """Add all that waited: the answer is at its end, whether or not it was said of each item that it is done."""
        while self._held:
            self._item.done = True
            self._release(deltas)

    def _name(self, response: _Response, deltas: list[Delta]) -> None:
        if not self._named and (response.model or response.id):
            self._named = True
            deltas.append(ModelDelta(response.model or "", response.id or "", self._service.provider))

    def _at(self, index: int | None, deltas: list[Delta]) -> _Item:
        """Give the item of an index; without one, the one that grows. What waited for a further item is given now."""
        if index is None:
            index = len(self._items) if self._item.done else self._item.index
        item = self._items.get(index)
        if item is None:
            item = self._items[index] = _Item(index)
            self._give(deltas)
        self._item = item
        return item

    def _give(self, deltas: list[Delta]) -> None:
        if self._waiting is not None:
            deltas.append(PartDelta(self._waiting))
            self._waiting = None

    def _begin(self, said: dict[str, Any], item: _Item, deltas: list[Delta]) -> None:
        """Add the beginning of a call; whatever else begins says nothing yet."""
        name = _text(said.get("name"))
        if said.get("type") == "function_call" and name and item.call is None and not item.done:
            arguments = _text(said.get("arguments"))
            item.growth = _ARGUMENTS
            item.pieces.append(arguments)
            deltas.append(ToolCallDelta(self._number(item), _text(said.get("call_id")), name, arguments))

    def _number(self, item: _Item) -> int:
        """Give a call its number: they are counted as they begin."""
        number = item.call = self._calls
        self._calls += 1
        self._spoke = True
        return number

    def _finish(self, said: dict[str, Any], item: _Item, deltas: list[Delta]) -> None:
        """Add what is only said of an item when it is done, and what its pieces missed."""
        if item.done:
            return
        item.done = True
        self._give(deltas)
        kind = said.get("type")
        if kind == "message":
            self._finish_message(said, item, deltas)
        elif kind == "reasoning":
            self._finish_thought(said, item, deltas)
        elif kind == "function_call":
            self._finish_call(said, item, deltas)
        elif type(kind) is str and kind:
            self._spoke = True
            fields = {"name": kind.removesuffix("_call"), "details": self._kept(said)}
            deltas.append(PartDelta(assemble(ServerToolPart, fields)))

    def _finish_message(self, said: dict[str, Any], item: _Item, deltas: list[Delta]) -> None:
        """Add a message: as parts if it has more than text, or stands behind a thought, with which it must go back."""
        if self._finish_plain(said, item, deltas):
            return
        head = {name: value for name, value in said.items() if name not in _OF_MESSAGES and value is not None}
        content = []
        for part in _objects(said.get("content")):
            growth, field = _CONTENT.get(_text(part.get("type")), ("", ""))
            if growth and (part.get(field) or not item.pieces):  # nothing beside something says nothing
                more = {name: value for name, value in part.items() if name not in ("type", field) and value}
                content.append((growth, _text(part.get(field)), more))
        streamed = "".join(item.pieces)
        plain = not (
            self._thought
            or "phase" in head
            or any(more for _, _, more in content)
            or len({growth for growth, _, _ in content}) > 1
            or not "".join([text for growth, text, _ in content if growth == item.growth]).startswith(streamed)
        )
        for growth, text, more in content:
            seen = min(len(text), len(streamed)) if growth == item.growth else 0
            streamed = streamed[seen:]
            if missing := text[seen:]:
                self._spoke = True
                deltas.append(_SAYS[growth](missing))
            if not plain:
                deltas.append(PartDelta(_as_part(growth, text, self._kept({"message": head, **more}))))
        text = "".join([text for _, text, _ in content])
        if plain and text:
            self._waiting = _as_part(content[0][0], text, EMPTY)

    def _finish_plain(self, said: dict[str, Any], item: _Item, deltas: list[Delta]) -> bool:
        """Add a message that is nothing but one text, as most are; say whether it was one."""
        parts, streamed = said.get("content"), "".join(item.pieces)
        if self._thought or said.get("phase") is not None or type(parts) is not list or len(parts) != 1:
            return False
        part = parts[0]
        text = part.get("text") if type(part) is dict and part.get("type") == "output_text" else None
        if type(text) is not str or any(value for name, value in part.items() if name not in ("type", "text")):
            return False
        if not text.startswith(streamed) or (streamed and item.growth != _TEXT):
            return False
        if missing := text[len(streamed) :]:
            self._spoke = True
            deltas.append(TextDelta(missing))
        if text:
            self._waiting = _as_part(_TEXT, text, EMPTY)
        return True

    def _finish_thought(self, said: dict[str, Any], item: _Item, deltas: list[Delta]) -> None:
        """Add a thought: what goes back is the item as it came, its id and its encrypted form with it."""
        streamed = "".join(item.pieces)
        sections = _objects(said.get("summary")) or _objects(said.get("content"))
        text = _PARAGRAPH.join([_text(section.get("text")) for section in sections]) or streamed
        if text.startswith(streamed) and len(text) > len(streamed):
            deltas.append(ReasoningDelta(text[len(streamed) :]))
        self._thought = True
        if said.get("status") != "incomplete":
            self._waiting = assemble(ReasoningPart, {"text": text, "details": self._kept(said)})

    def _finish_call(self, said: dict[str, Any], item: _Item, deltas: list[Delta]) -> None:
        """Add what a call has beside its arguments: an id of its own, and what else there is, must go back."""
        arguments, streamed = _text(said.get("arguments")), "".join(item.pieces)
        own = {name: value for name, value in said.items() if name not in _OF_CALLS and value is not None}
        details = self._kept(own)
        if item.call is None:
            id_, name = _text(said.get("call_id")), _text(said.get("name"))
            deltas.append(ToolCallDelta(self._number(item), id_, name, arguments or streamed, details=details))
        else:
            missing = arguments[len(streamed) :] if arguments.startswith(streamed) else ""
            deltas.append(ToolCallDelta(item.call, arguments=missing, details=details))

    def _conclude(self, response: _Response, status: str, deltas: list[Delta]) -> None:
        """Add what the whole answer says beside its items, and those that were not told before.

        Raises:
            ProviderError: the answer failed.
        """
        output = response.output if type(response.output) is list else []
        more = len(output) > len(self._items) + len(self._held)  # some count from one, so that indexes do not tell
        growing = self._item.index
        for index in sorted(range(len(output)), key=lambda index: index != growing):  # that one first
            if more or index in self._items or index in self._held:
                item = self._at(index, deltas)
                for event in self._held.pop(index, ()):
                    self._add(event, deltas)
                self._finish(self._object(output[index]), item, deltas)
        self._release_all(deltas)
        if (usage := read_usage(response.usage)) is not None:
            deltas.append(UsageDelta(usage))
        if status == "failed":
            raise self._error(response.error or {"code": "server_error", "message": "the model failed"})
        if status == "completed":
            self._reason = status
            if type(self._waiting) is ReasoningPart:
                self._give(deltas)
        else:
            why = response.incomplete_details
            reason = why.get("reason") if type(why) is dict else None
            self._reason = reason if type(reason) is str else status

    def _object(self, item: object) -> dict[str, Any]:
        if type(item) is dict:
            return item
        raise self._violation(to_json(item), what="sent an item that is none")


def _as_part(growth: str, text: str, details: FrozenDict) -> TextPart:
    return assemble(TextPart, {"text": text, "refusal": growth == _REFUSAL, "details": details})


def _text(value: object) -> str:
    """Give what should be a text; arguments may be an object, and null is nothing."""
    if type(value) is str:
        return value
    return "" if value is None else to_json(value).decode()


def _objects(value: object) -> list[dict[str, Any]]:
    return [item for item in value if type(item) is dict] if isinstance(value, list) else []


def read_usage(said: object) -> Usage | None:
    """Read the tokens of a request; see `usage_of`."""
    told = fields_of(said)
    of_input, of_output = fields_of(told.get("input_tokens_details")), fields_of(told.get("output_tokens_details"))
    return usage_of(
        told.get("input_tokens"),
        told.get("output_tokens"),
        read=of_input.get("cached_tokens"),
        written=of_input.get("cache_write_tokens"),
        thought=of_output.get("reasoning_tokens"),
        cost=told.get("cost"),
    )
