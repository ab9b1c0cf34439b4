"""Histories as a service keeps them: plain JSON of what was said and which functions were called. Pure.

::

    [
        {"role": "user", "content": "What is the weather in Lisbon?"},
        {"role": "function", "content": "get_weather", "args": {"city": "Lisbon"}, "result": "sunny", "id": "call_1", "turn": 1},
        {"role": "assistant", "content": "It is sunny."},
    ]

Functions of one ``turn`` were called together. ``said`` holds the whole message, as `Message.to_json` gives it, where
the other fields do not show all of it: an image, or what a provider wants to have back unchanged. An entry
``{"role": "summary", "content": "..."}`` stands for all before it where a model cannot be sent all of that. What is
written here and read again says the same to a model, byte for byte.
"""  # noqa: E501  # an entry is read best on one line

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from plait.clients.completions import shows_all
from plait.clients.conversation import ROLES, read_messages
from plait.context.summaries import summary_message
from plait.entries import ContextNote
from plait.errors import ConfigurationError, excerpt
from plait.expenses import SUMMARY
from plait.messages import (
    AssistantMessage,
    Message,
    SystemMessage,
    TextPart,
    ToolCall,
    ToolMessage,
    ToolResult,
    UserMessage,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from plait.messages import ContentPart

HistoryEntry = dict[str, Any]
"""One entry of a history: plain JSON."""

_PLAIN: Final = frozenset({UserMessage, SystemMessage, AssistantMessage, Message})
_PLACE: Final = re.compile(r"\bmessages\[(\d+)\]")
_ROLES: Final = (*ROLES, "function", SUMMARY)
_NOT_KEPT: Final = "(The result of this call was not kept.)"
_OF_FUNCTIONS: Final = frozenset({"role", "content", "args", "arguments", "result", "parts", "is_error", "id", "turn"})
_OF_SUMMARIES: Final = frozenset({"role", "content"})


def shown(messages: Iterable[Message], summary: ContextNote | None = None, summarised: int = 0) -> list[HistoryEntry]:
    """Give a history of messages that are valid to send.

    Args:
        messages: what was said.
        summary: what stands for the first of them.
        summarised: for how many; 0 leaves it out.
    """
    made: list[HistoryEntry] = []
    turn = 0
    called: dict[str, HistoryEntry] = {}
    for number, message in enumerate(messages):
        if summary is not None and number == summarised > 0:
            made.append({"role": SUMMARY, "content": summary.summary})
        if message.role == "tool":
            for result in message.tool_results:
                if (entry := called.get(result.call_id)) is not None:
                    entry |= _result(result)
            continue
        calls = message.tool_calls
        turn += bool(calls)
        if not calls or message.text or not _is_shown(message):
            made.append(_entry(message) | ({"turn": turn} if calls else {}))
        called = {call.id: _call(call) | {"turn": turn} for call in calls}
        made += called.values()
    return made


def _entry(message: Message) -> HistoryEntry:
    entry: HistoryEntry = {"role": message.role, "content": message.text}
    return entry if _is_shown(message) else entry | {"said": message.to_json()}


def _is_shown(message: Message) -> bool:
    """Whether text and calls are all that there is to a message."""
    if type(message) not in _PLAIN or message.metadata:
        return False
    if message.role == "assistant":
        return shows_all(message) and not message.reasoning and not message.refusal and not _details(message)
    texts = [part for part in message.parts if type(part) is TextPart and not part.details]
    return len(texts) == len(message.parts) <= 1


def _details(message: Message) -> bool:
    return isinstance(message, AssistantMessage) and bool(message.details)


def _call(call: ToolCall) -> HistoryEntry:
    entry: HistoryEntry = {"role": "function", "content": call.name, "id": call.id}
    try:
        args = json.loads(call.arguments)
    except (ValueError, RecursionError):
        args = None
    if isinstance(args, dict):
        entry["args"] = args
    if not isinstance(args, dict) or _dumped(args) != call.arguments:
        entry["arguments"] = call.arguments  # as the model wrote them
    return entry


def _dumped(args: Mapping[str, Any]) -> str:
    return json.dumps(args, ensure_ascii=False)


def _result(result: ToolResult) -> HistoryEntry:
    entry: HistoryEntry = {"result": result.text}
    if len(result.parts) != 1 or type(result.parts[0]) is not TextPart or result.parts[0].details:
        entry["parts"] = result.to_json().get("parts", [])
    return entry | {"is_error": True} if result.is_error else entry


class Conversation(NamedTuple):
    """What a history holds.

    Attributes:
        messages: what was said.
        summary: what stands for the first of them, as the log of a thread that begins with these messages has it.
    """

    messages: tuple[Message, ...] = ()
    summary: ContextNote | None = None


def read_history(history: Sequence[Any] | None, provider: str) -> Conversation:
    """Read a history; what was given is left as it is. Of several summaries the last one counts.

    Args:
        history: entries as `shown` gives them, messages as OpenAI's chat API has them, `Message`s, or a mixture.
        provider: who is asked: details in OpenAI's messages are taken to be this provider's.

    Raises:
        ConfigurationError: an entry cannot be read; the sentence says which and why.
    """
    if history is None:
        return Conversation()
    if isinstance(history, str | Mapping) or not isinstance(history, Sequence):
        msg = f"history is a list of messages, oldest first, such as response.history; not {type(history).__name__}"
        raise ConfigurationError(msg)
    messages: tuple[Message, ...] = ()
    summary: ContextNote | None = None
    begin = 0
    for number, item in enumerate(history):
        if isinstance(item, Mapping) and item.get("role") == SUMMARY:
            text = _summary(item, f"history[{number}]")
            messages += _read(history, begin, number, provider)
            begin = number + 1
            if messages:
                summary = ContextNote(by=SUMMARY, summary=text, first=1, last=len(messages))
            else:
                messages = (summary_message(text),)  # somebody took away what it stands for
    return Conversation(messages + _read(history, begin, len(history), provider), summary)


def _summary(item: Mapping[str, Any], where: str) -> str:
    _check_fields(item, where, "summary", _OF_SUMMARIES)
    text = item.get("content")
    if not isinstance(text, str) or not text.strip():
        msg = f"{where}['content'] is the text of the summary, not {excerpt(repr(text), 60)}"
        raise ConfigurationError(msg)
    return text


def _check_fields(item: Mapping[str, Any], where: str, what: str, known: frozenset[str]) -> None:
    if unknown := [name for name in item if name not in known]:
        msg = f"{where} has a field {excerpt(repr(unknown[0]), 60)}, which is not sent; leave it out: "
        msg += f"a {what} has {', '.join(sorted(known))}"
        raise ConfigurationError(msg)


def _read(history: Sequence[Any], begin: int, end: int, provider: str) -> tuple[Message, ...]:
    """Read a part of a history that has no summary in it."""
    if begin == end:
        return ()
    numbers, items = zip(*_messages(history, begin, end), strict=True)
    try:
        return read_messages(items, provider)
    except ConfigurationError as error:
        said = _PLACE.sub(lambda place: f"history[{numbers[int(place[1])]}]", str(error), count=1)
        raise ConfigurationError(said) from error


def _messages(history: Sequence[Any], begin: int, end: int) -> Iterator[tuple[int, Any]]:
    """Give the messages of a part, each with the number of its entry: ours are read, all others left for others."""
    answer: AssistantMessage | None = None  # one that waits for the functions that it called
    since = begin  # its entry, or that of the first of the functions
    turn: object = None
    functions: list[tuple[ToolCall, ToolResult]] = []

    def together() -> Iterator[tuple[int, Message]]:
        if answer is not None or functions:
            said = answer or AssistantMessage()
            known = {call.id for call in said.tool_calls}
            new = [call for call, _ in functions if call.id not in known]
            yield since, said.model_copy(update={"parts": (*said.parts, *new)}) if new else said
            yield since, ToolMessage(parts=[result for _, result in functions])

    for number in range(begin, end):
        item = history[number]
        where = f"history[{number}]"
        if not isinstance(item, Mapping) or not ("said" in item or "turn" in item or item.get("role") == "function"):
            yield from together()
            answer, functions = None, []
            if isinstance(item, Mapping) and item.get("role") not in _ROLES:
                msg = f"{where} has the role {excerpt(repr(item.get('role')), 60)}; the roles are {', '.join(_ROLES)}"
                raise ConfigurationError(msg)
            yield number, item
        elif item.get("role") == "function":
            if (answer is not None or functions) and item.get("turn", turn) != turn:
                yield from together()
                answer, functions = None, []
            if answer is None and not functions:
                since = number
            turn = item.get("turn", turn)
            functions.append(_function(item, where, number))
        else:
            yield from together()
            answer, functions = None, []
            message = _whole(item, where)
            if isinstance(message, AssistantMessage) and ("turn" in item or message.tool_calls):
                answer, since, turn = message, number, item.get("turn")
            else:
                yield number, message
    yield from together()


def _whole(item: Mapping[str, Any], where: str) -> Message:
    """Give the message that an entry stands for: the whole one that it holds, unless somebody changed its text."""
    plain = {name: value for name, value in item.items() if name not in {"said", "turn"}}
    message = read_messages([plain], "")[0] if plain.get("content") or "said" not in item else None
    if not isinstance(item.get("said"), Mapping):
        if message is None or "said" in item:
            msg = f"{where}['said'] is a message as Message.to_json gives it, not {type(item.get('said')).__name__}"
            raise ConfigurationError(msg)
        return message
    try:
        said = Message.from_json(dict(item["said"]))
    except ConfigurationError as error:
        msg = f"{where}['said'] cannot be read: {error}"
        raise ConfigurationError(msg) from None
    return said if message is None or message.text == said.text else message


def _function(item: Mapping[str, Any], where: str, number: int) -> tuple[ToolCall, ToolResult]:
    _check_fields(item, where, "function", _OF_FUNCTIONS)
    name, args = item.get("content"), item.get("args", {})
    if not isinstance(name, str) or not name:
        msg = f"{where}['content'] is the name of the function, a text, not {excerpt(repr(name), 60)}"
        raise ConfigurationError(msg)
    arguments = item.get("arguments")
    if not isinstance(arguments, str):
        if not isinstance(args, Mapping):
            msg = f"{where}['args'] is a dict of the function's arguments, not {type(args).__name__}"
            raise ConfigurationError(msg)
        try:
            arguments = _dumped(dict(args))
        except (TypeError, ValueError, RecursionError):
            msg = f"{where}['args'] holds something that is no JSON"
            raise ConfigurationError(msg) from None
    call_id = str(item.get("id") or f"call_{number}")
    result = item.get("result", _NOT_KEPT)
    if not isinstance(result, str):
        msg = f"{where}['result'] is the text that the function gave, not {type(result).__name__}"
        raise ConfigurationError(msg)
    parts: Sequence[ContentPart] = item.get("parts", (TextPart(text=result),))
    try:
        given = ToolResult(call_id=call_id, name=name, parts=parts, is_error=item.get("is_error") is True)
    except ConfigurationError as error:
        msg = f"{where}['parts'] cannot be read: {error}"
        raise ConfigurationError(msg) from None
    return ToolCall(id=call_id, name=name, arguments=arguments), given
