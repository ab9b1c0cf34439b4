"""What a log means: `Tail`, which reads it entry by entry, and the views over it.

Everything that can be derived from entries is a view: a pure function over an iterable of them. Knows nothing of
where entries are stored or who writes them.
"""

from __future__ import annotations

from copy import copy
from itertools import count
from typing import TYPE_CHECKING, Final, assert_never

import msgspec

from plait.entries import ContextNote, MessageEntry, RunEnd, RunStart, ToolEnd, ToolStart
from plait.events import (
    MessageAdded,
    MessagesSummarised,
    RunEvent,
    RunFinished,
    RunStarted,
    ToolCallFinished,
    ToolCallStarted,
    Usage,
)
from plait.frozen import assemble
from plait.messages import Message, ReasoningPart, TextPart, ToolCall, ToolMessage, ToolResult

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

    from plait.entries import Entry

REPAIR: Final = "plait.repair"
"""Metadata key of messages with which a run asks again for an answer in the form that was asked for."""


def _synthetic(call: ToolCall, *, begun: bool, end: RunEnd | None) -> ToolResult:
    """The result of a call that has none, because its run ended first."""
    why = {
        "user_stop": "the run was stopped",
        "deadline": "the run's time was up",
        "max_tool_calls": "the run had reached its limit of tool calls",
    }.get((end and end.stop_reason) or "", "the run was interrupted")
    what = "cancelled while it ran; it may or may not have happened" if begun else "not carried out"
    return ToolResult(call_id=call.id, name=call.name, text=f"This call was {what}: {why}.", is_error=True)


class Tail:
    """Where a log ends, kept up to date entry by entry: the messages to send, and the state of its last run.

    It costs time only for what is new, so a long thread is as cheap to continue as a short one. `history`,
    `usage` and the loop all read a log through this one class.
    """

    __slots__ = (
        "_ids",
        "_others",
        "_renamed",
        "_results",
        "_system",
        "messages",
        "n",
        "numbers",
        "pending",
        "repeats",
        "run",
        "started",
        "summary",
    )

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self.n = 0
        self.messages: list[Message] = []
        self.numbers: list[int] = []  # of the entry that each message came with
        self.summary: ContextNote | None = None  # the last one
        self.pending: dict[str, ToolCall] = {}
        self.started: set[str] = set()
        self.repeats: dict[str, int] = {}
        self.run: RunState | None = None
        self._results: dict[str, ToolResult] = {}
        self._ids: set[str] = set()
        self._renamed: dict[str, list[str]] = {}
        self._system: list[Message] = []  # what may be sent: system text, and all else
        self._others: list[Message] = []
        for item in entries:
            self.add(item)

    def add(self, item: Entry) -> None:
        """Take in the next entry."""
        self.n = item.n
        body = item.body
        kind = type(body)
        if kind is MessageEntry:
            self._message(body)  # type: ignore[arg-type]  # the exact type was asked for
        elif kind is ToolEnd:
            self._result(body.result)  # type: ignore[union-attr]
        elif kind is ToolStart:
            self.started.add(self._own_id(body.call_id, self.started))  # type: ignore[union-attr]
            if self.run:
                self.run.tool_calls += 1
        elif kind is RunStart:
            self._run_started(item.run_id or "", body)  # type: ignore[arg-type]
        elif kind is RunEnd and self.run:
            self.run.end = body  # type: ignore[assignment]
        elif kind is ContextNote:
            self._noted(body)  # type: ignore[arg-type]

    def _run_started(self, run_id: str, body: RunStart) -> None:
        if self.run is not None and self.run.run_id == run_id:
            # It goes on where it was: calls without results are still to be carried out, and the limits count anew.
            self.run.resume()
        else:
            self._answer_pending()
            self.run = RunState(run_id, body.agent_name, len(self.messages), len(self._others))

    def _noted(self, body: ContextNote) -> None:
        if body.summary:
            self.summary = body
        if self.run and body.usage is not None:
            self.run.used(body.usage)

    def _message(self, body: MessageEntry) -> None:
        message = body.message
        role = message.role
        if role == "tool":
            self._tool_message(message)
            return
        self._answer_pending()
        first = message.parts[0] if len(message.parts) == 1 else None
        is_sent = True
        if type(first) is not TextPart or not first.text:
            message = self._called(_own_parts(message))
            is_sent = role != "assistant" or says_something(message)
        self.messages.append(message)
        self.numbers.append(self.n)
        if is_sent:
            (self._system if role == "system" else self._others).append(message)
        if role == "assistant":
            if self.run:
                self.run.answered(body)
        elif self.run and role != "system":
            if REPAIR in message.metadata:
                self.run.repairs += 1
            else:
                self.run.asked()

    def _called(self, message: Message) -> Message:
        """Note the calls of an answer; gives the answer with calls whose ids are unique in the thread.

        Models and servers repeat ids, within one answer and from turn to turn, and a result names nothing but an id.
        """
        calls = message.tool_calls
        if not calls:
            return message
        ids = {call.id for call in calls}
        self._renamed = {}
        if len(ids) < len(calls) or "" in ids or not ids.isdisjoint(self._ids):
            parts = tuple(self._unique(part, ids) if type(part) is ToolCall else part for part in message.parts)
            message = message.model_copy(update={"parts": parts})
            calls = message.tool_calls
        else:
            self._ids |= ids
        self.pending = {call.id: call for call in calls}
        self.repeats = self.run.called(calls) if self.run else {}
        return message

    def _unique(self, call: ToolCall, others: Container[str]) -> ToolCall:
        """Give the call with an id that is taken neither in the thread nor by ``others``, those of its answer."""
        name = call.id
        if not name or name in self._ids:
            made = (f"call_{self.n}_{number}" for number in count(len(self._ids)))  # the same whenever the log is read
            name = next(name for name in made if name not in self._ids and name not in others)
        self._ids.add(name)
        self._renamed.setdefault(call.id, []).append(name)
        return call if name == call.id else call.model_copy(update={"id": name})

    def _own_id(self, call_id: str, taken: Container[str]) -> str:
        """The id under which a call is pending: this one, or for the id it came with the first that is not taken."""
        if call_id in self.pending and call_id not in taken:
            return call_id
        return next((name for name in self._renamed.get(call_id, ()) if name not in taken), call_id)

    def _tool_message(self, message: Message) -> None:
        """Take in results that came as a message, in a history that somebody handed over."""
        before = len(self.messages)
        for result in message.tool_results:
            self._result(result)
        if len(self.messages) > before and self.messages[-1].parts == message.parts:
            self.messages[-1] = self._others[-1] = message

    def _result(self, result: ToolResult) -> None:
        name = result.call_id
        if name not in self.pending or name in self._results:
            name = self._own_id(name, self._results)
            if name not in self.pending or name in self._results:
                return  # a result nobody asked for, or a second one: never sent
        self._results[name] = result if name == result.call_id else result.model_copy(update={"call_id": name})
        if len(self._results) == len(self.pending):
            self._answer_pending()

    def _answer_pending(self) -> None:
        """Close the last turn's calls: each gets exactly one result, a synthetic one if need be."""
        closing = self._closing()
        if not closing:
            return
        self.messages += closing
        self._others += closing
        self.numbers.append(self.n)
        self.pending = {}
        self.started = set()
        self._results = {}

    def _closing(self) -> list[Message]:
        """Give the message, if one is needed, that closes the last turn's calls."""
        if not self.pending:
            return []
        parts = [
            self._results.get(name)
            or _synthetic(call, begun=name in self.started, end=self.run.end if self.run else None)
            for name, call in self.pending.items()
        ]
        return [assemble(ToolMessage, {"parts": tuple(parts)})]

    def call(self, call_id: str) -> ToolCall | None:
        """Give the call of the last answer that this id means, while it has no result; else None."""
        name = self._own_id(call_id, self._results)
        return None if name in self._results else self.pending.get(name)

    @property
    def waiting(self) -> list[ToolCall]:
        """The last answer's tool calls that have no result yet, in the model's order."""
        results = self._results
        return [call for name, call in self.pending.items() if name not in results]

    def sendable(self) -> list[Message]:
        """Give the messages as they may be sent now.

        System text comes first, each call has exactly one result, and answers that say nothing (a model can spend
        all its tokens on thinking) are left out: providers refuse a conversation with such a message.
        """
        return [*self._system, *self._others, *self._closing()]

    def summarised(self, messages: Iterable[Message]) -> int:
        """Count how many of these messages, from the first, the summary stands for: 0 where its end is not in them."""
        last = self.summary.last if self.summary else 0
        end = {id(message) for message, n in zip(self.messages, self.numbers, strict=True) if n == last}
        return max((at for at, message in enumerate(messages, 1) if id(message) in end), default=0)

    def run_begins(self) -> int:
        """Give the index in `sendable` at which the last run begins; system text stands before it in any case."""
        return len(self._system) + (self.run.others if self.run else len(self._others))

    def copy(self) -> Tail:
        """Give a tail that ends where this one does, and goes on by itself."""
        made = copy(self)
        for name in _OWN_TO_EACH:
            setattr(made, name, copy(getattr(self, name)))
        return made

    def of_run(self) -> list[Message]:
        """Give the messages of the last run, its prompt first; each call has exactly one result."""
        return [*self.messages[self.run.first :], *self._closing()] if self.run else []


# What a copy has by itself.
_OWN_TO_EACH: Final = tuple(name for name in Tail.__slots__ if name not in {"n", "summary"})


class RunState:
    """What the log says of its last run so far."""

    __slots__ = (
        "_streaks",
        "agent_name",
        "end",
        "first",
        "last",
        "others",
        "repairs",
        "run_id",
        "tool_calls",
        "turns",
        "usage",
    )

    def __init__(self, run_id: str, agent_name: str, first: int, others: int) -> None:
        self.run_id = run_id
        self.agent_name = agent_name
        self.first = first  # the index of its first message
        self.others = others  # how many messages before it may be sent, without system text
        self.turns = 0
        self.tool_calls = 0
        self.usage: Usage | None = None
        self.last: MessageEntry | None = None
        self.end: RunEnd | None = None
        self.repairs = 0
        self._streaks: dict[tuple[str, str], int] = {}

    def resume(self) -> None:
        """Go on after an end."""
        self.end = None
        self.turns = self.tool_calls = self.repairs = 0

    def called(self, calls: Iterable[ToolCall]) -> dict[str, int]:
        """Count in how many turns running each of these calls was made with the same arguments; by call id.

        The same call several times in one turn counts once: rolling dice three times is no loop.
        """
        before, self._streaks = self._streaks, {}
        repeats = {}
        for call in calls:
            key = call.name, call.arguments
            repeats[call.id] = self._streaks[key] = before.get(key, 0) + 1
        return repeats

    def asked(self) -> None:
        """Begin to count: a person speaks only in the prompt, so answers before this came with it, as a history."""
        self.turns = 0
        self.last = None
        self._streaks = {}

    def answered(self, body: MessageEntry) -> None:
        """Count an answer of the model."""
        self.turns += 1
        self.last = body
        if body.usage is not None:
            self.used(body.usage)

    def used(self, usage: Usage) -> None:
        """Count tokens."""
        self.usage = usage if self.usage is None else self.usage + usage


def _own_parts(message: Message) -> Message:
    """The message without parts that its role cannot have: only a model calls tools, and only tools give results."""
    foreign = (ToolResult,) if message.role == "assistant" else (ToolResult, ToolCall)
    own = tuple([part for part in message.parts if not isinstance(part, foreign)])
    return message if len(own) == len(message.parts) else message.model_copy(update={"parts": own})


def says_something(answer: Message) -> bool:
    """Whether an answer holds more than thoughts and empty text."""
    return any(type(part) is not ReasoningPart and (type(part) is not TextPart or part.text) for part in answer.parts)


def without_tools(messages: Iterable[Message]) -> list[Message]:
    """Give the messages without tool calls and their results; an answer that was nothing else is left out."""
    kept = []
    for message in messages:
        if message.role == "tool":
            continue
        if message.tool_calls:
            parts = tuple(part for part in message.parts if type(part) is not ToolCall)
            if any(type(part) is not ReasoningPart for part in parts):
                kept.append(message.model_copy(update={"parts": parts}))
        else:
            kept.append(message)
    return kept


def history(log: Iterable[Entry], *, tools: bool = True) -> list[Message]:
    """View: the messages to send. Each tool call has exactly one result, and system text comes first.

    Args:
        log: the entries of a thread, from its beginning.
        tools: False leaves tool calls and their results out.
    """
    messages = Tail(log).sendable()
    return messages if tools else without_tools(messages)


def hidden(log: Iterable[Entry], note: ContextNote) -> list[Message]:
    """View: the messages that a summary hides from the model.

    Args:
        log: the entries of a thread, from its beginning.
        note: the summary, the body of one of them.
    """
    tail = Tail(log)
    return [message for n, message in zip(tail.numbers, tail.messages, strict=True) if note.first <= n <= note.last]


def usage(log: Iterable[Entry]) -> Usage | None:
    """View: the tokens of all answers together; None when no provider reported any."""
    total: Usage | None = None
    for item in log:
        used = item.body.usage if isinstance(item.body, MessageEntry | ContextNote) else None
        if used is not None:
            total = used if total is None else total + used
    return total


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    """What a thread holds, in numbers; ``seconds`` is the time from its first entry to its last."""

    entries: int
    messages: int
    runs: int
    tool_calls: int
    seconds: float


def stats(log: Iterable[Entry]) -> Stats:
    """View: the thread in numbers."""
    items = list(log)
    kinds = [item.kind for item in items]
    return Stats(
        entries=len(items),
        messages=kinds.count("message"),
        runs=len({item.run_id for item in items if item.kind == "run_started"}),
        tool_calls=kinds.count("tool_started"),
        seconds=items[-1].at - items[0].at if items else 0.0,
    )


def events(log: Iterable[Entry], thread_id: str = "") -> list[RunEvent]:
    """View: the run events that a log stands for, without the deltas, which are not kept."""
    tail = Tail()
    return [event for item in log for event in entry_events(tail, item, thread_id)]


def entry_events(tail: Tail, item: Entry, thread_id: str = "") -> list[RunEvent]:
    """Give the events that one entry stands for, and add it to the tail of what came before."""
    body = item.body
    events: list[RunEvent] = []
    match body:
        case RunStart():
            events.append(RunStarted(item.run_id or "", thread_id, body.agent_name, body.resumed))
        case MessageEntry():
            tail.add(item)
            called = body.message.role == "assistant" and body.message.tool_calls
            message = tail.messages[-1] if called else body.message  # its calls have the ids that later events name
            return [MessageAdded(message, body.usage, body.finish_reason)]
        case ToolStart():
            if (call := tail.call(body.call_id)) is not None:
                events.append(ToolCallStarted(call))
        case ToolEnd():
            if (call := tail.call(body.result.call_id)) is not None:
                events.append(ToolCallFinished(call, body.result, body.seconds))
        case RunEnd():
            events.append(RunFinished(body.stop_reason, tail.run.usage if tail.run else None, body.error))
        case ContextNote():
            if body.summary:
                events.append(MessagesSummarised(body.first, body.last, body.usage))
        case _:
            assert_never(body)
    tail.add(item)
    return events
