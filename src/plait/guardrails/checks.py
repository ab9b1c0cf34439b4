"""What a guardrail is asked about: one typed event for each place where a run can be checked, and its texts.

Knows nothing of what checks there are, nor of who calls them.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, assert_never

import msgspec
from msgspec.structs import replace

from plait.errors import StreamTruncated
from plait.events import Answer, Fold
from plait.guardrails.reading import told
from plait.messages import (
    AssistantMessage,
    AudioPart,
    FilePart,
    ImagePart,
    Message,
    Part,
    ReasoningPart,
    TextPart,
    ToolCall,
    ToolResult,
)
from plait.providers.base import Provider, Request
from plait.run import RunContext
from plait.toolbase import Tool

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Ask = Callable[[Request, Provider, str], Awaitable[Answer]]
"""Asks another provider for the check of this name. The loop hands one in that keeps account of the tokens."""


async def ask(request: Request, provider: Provider, by: str) -> Answer:  # noqa: ARG001  # it keeps no account
    """Ask a provider, and give its whole answer.

    Args:
        request: what it is asked.
        provider: who is asked.
        by: the check that asks.

    Raises:
        ModelError: it gave none; see the tree in `plait.errors`.
    """
    return await answered(request, provider, Fold(provider.name, provider.model))


async def answered(request: Request, provider: Provider, fold: Fold) -> Answer:
    """Ask a provider, and give its whole answer, which is collected in ``fold`` while it comes.

    Raises:
        ModelError: it gave none; see the tree in `plait.errors`.
    """
    async with aclosing(provider.stream(request)) as answers:
        async for deltas in answers:
            fold.add(deltas)
    if not fold.finished:
        msg = f"{provider.name} ended its stream without an end mark"
        raise StreamTruncated(msg, provider=provider.name)
    return fold.answer()


class InputCheck(msgspec.Struct, frozen=True, kw_only=True):
    """The prompt of a run, before anything of it is written or sent.

    Return a changed text or `Message` in place of the newest message, a list of messages in place of all, a `Veto`,
    or None.
    """

    context: RunContext[Any]
    messages: tuple[Message, ...]
    ask: Ask = ask


class OutputCheck(msgspec.Struct, frozen=True, kw_only=True):
    """An answer of the model, before anybody sees it: return a changed text or `Message`, a `Veto`, or None."""

    context: RunContext[Any]
    message: AssistantMessage
    ask: Ask = ask


class ToolCallCheck(msgspec.Struct, frozen=True, kw_only=True):
    """A tool call, before it is carried out: return a `ToolCall` with changed arguments, a `Veto`, or None.

    Attributes:
        tool: the tool that is called; None where the model named one that is not there.
    """

    context: RunContext[Any]
    call: ToolCall
    tool: Tool | None = None
    ask: Ask = ask


class ToolResultCheck(msgspec.Struct, frozen=True, kw_only=True):
    """What a tool gave, before the model reads it: return a changed text or `ToolResult`, a `Veto`, or None."""

    context: RunContext[Any]
    call: ToolCall
    result: ToolResult
    ask: Ask = ask


Event = InputCheck | OutputCheck | ToolCallCheck | ToolResultCheck
AnEvent = TypeVar("AnEvent", InputCheck, OutputCheck, ToolCallCheck, ToolResultCheck)

Check = Callable[..., Awaitable[Any] | Any]
"""A guardrail: a function of one event, sync or async. What its parameters ``user_id`` and ``chat_id`` hold is filled
in. An object with ``__call__`` may bring its own ``name``, ``time_limit`` (seconds) and ``on_failure``."""

Attached = Literal["image", "audio", "file"]
"""What can stand in a message beside its text."""

_FOREIGN_ROLES: Final = frozenset(("user", "tool"))

M = TypeVar("M", bound=Message)


def changed_by(event: AnEvent, answer: object) -> AnEvent | None:
    """Give an event as what a check returned changes it; None where that makes no sense.

    What a check may not change stays as it was: who answered, the ids that belong together, and which tool is called.
    """
    match event:
        case InputCheck():
            messages = _prompt(event.messages, answer)
            return None if messages is None else replace(event, messages=messages)
        case OutputCheck():
            said = _with_text(event.message, answer) if isinstance(answer, str) else answer
            if not isinstance(said, Message) or said.role != "assistant":
                return None
            return replace(event, message=event.message.model_copy(update={"parts": said.parts}))
        case ToolCallCheck():
            call = event.call
            if not isinstance(answer, ToolCall) or answer.name != call.name:  # another tool may have checks of its own
                return None
            return replace(event, call=call.model_copy(update={"arguments": answer.arguments}))
        case ToolResultCheck():
            own = {"call_id": event.result.call_id, "name": event.result.name}
            if isinstance(answer, str):
                answer = event.result.model_copy(update={"parts": (TextPart(text=answer),)})
            return replace(event, result=answer.model_copy(update=own)) if isinstance(answer, ToolResult) else None
        case _:
            assert_never(event)


def _prompt(before: Sequence[Message], answer: object) -> tuple[Message, ...] | None:
    """Give the prompt that an answer means: all of its messages, the newest one, or the text of that."""
    if isinstance(answer, str):
        answer = _with_text(before[-1], answer)
    messages = (*before[:-1], answer) if isinstance(answer, Message) else answer
    if not isinstance(messages, list | tuple) or not all(isinstance(message, Message) for message in messages):
        return None
    return tuple(messages) if messages and messages[-1].role == "user" else None


def _with_text(message: M, text: str) -> M:
    """Give a message with this in place of all its text."""
    others = [part for part in message.parts if not isinstance(part, TextPart)]
    place = next((n for n, part in enumerate(message.parts) if isinstance(part, TextPart)), 0)
    parts = (*others[:place], TextPart(text=text), *others[place:])
    return message.model_copy(update={"parts": parts})


def texts_of(event: Event, *, apart: bool = False) -> Iterator[str]:
    """Give the texts that an event is about: what people and tools say, what a model answers or asks a tool.

    The system text of a prompt is the developer's own and left out. Files are read where they are text, and thoughts
    count as what a model answers: they are shown, too. The text parts of a message are joined, as everybody reads them.

    Args:
        event: what is asked about.
        apart: give each of several text parts by itself, too: a word may begin where a part does.
    """
    for parts in _parts_of(event):
        yield from _texts(parts, apart=apart)


def _parts_of(event: Event) -> Iterator[Sequence[Part]]:
    """Give the parts of what an event is about, message by message."""
    match event:
        case InputCheck():
            for message in event.messages:
                if message.role in _FOREIGN_ROLES:
                    yield message.parts
        case OutputCheck():
            yield event.message.parts
        case ToolCallCheck():
            yield (event.call,)
        case ToolResultCheck():
            yield event.result.parts
        case _:
            assert_never(event)


def _texts(parts: Sequence[Part], *, apart: bool) -> Iterator[str]:
    read: dict[object, list[str]] = {}
    for part in parts:
        match part:
            case TextPart() | ReasoningPart():
                read.setdefault(read_with(part), []).append(part.text)
            case ToolResult():
                yield from _texts(part.parts, apart=apart)
            case ToolCall():
                yield part.arguments
                yield from _strings(part.arguments)
            case FilePart():
                if part.name:
                    yield part.name
                if (file := told(part)) is not None:
                    yield file.text
            case _:
                pass
    for texts in read.values():
        yield "".join(texts)
        if apart and len(texts) > 1:
            yield from texts


def read_with(part: TextPart | ReasoningPart) -> object:
    """Give what is the same for all parts of a message that are read as one text: words, refusals or thoughts."""
    return part.type, getattr(part, "refusal", False)


def unread(event: Event) -> Iterator[tuple[Attached, str]]:
    """Give what of an event `texts_of` has no text of, or not all of it: its kind, and what to call it.

    Such are images, sound, files that lie elsewhere or are no text, and PDFs, whose letters do not say what they show.
    """
    for parts in _parts_of(event):
        yield from _unread(parts)


def _unread(parts: Sequence[Part]) -> Iterator[tuple[Attached, str]]:
    for part in parts:
        match part:
            case ToolResult():
                yield from _unread(part.parts)
            case ImagePart():
                yield "image", "an image"
            case AudioPart():
                yield "audio", "sound"
            case FilePart(data=None):
                yield "file", "a file that lies elsewhere"
            case FilePart():
                file = told(part)
                if file is None or not file.is_all:
                    yield "file", "a PDF" if part.media_type == "application/pdf" else "a file that is no plain text"
            case _:
                pass


def _strings(arguments: str) -> Iterator[str]:
    """Give the texts inside a call's arguments: JSON can write any letter as an escape."""
    try:
        waiting = [json.loads(arguments)]
    except (ValueError, RecursionError):
        return
    while waiting:
        match waiting.pop():
            case str(text):
                yield text
            case dict(fields):
                waiting += [*fields, *fields.values()]
            case list(items):
                waiting += items
            case _:
                pass
