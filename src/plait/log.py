"""The log of a thread: frozen entries numbered from 1, and the views over them.

An entry is ``{v, n, id, at, run_id, kind, body}``. Everything that can be derived from entries is a view here: a
pure function over an iterable of them. Knows nothing of where entries are stored or who writes them.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from os import urandom
from time import time
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import Field

from plait import events as ev
from plait.errors import ConfigurationError, CorruptRecord, excerpt
from plait.events import StopReason, Usage
from plait.frozen import Frozen, parse_json, to_json
from plait.messages import AnyMessage, Message, TextPart, ToolCall, ToolMessage, ToolResult

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

VERSION: Final = 1


class RunStart(Frozen):
    """A run begins. ``resumed`` is set when a run that had ended goes on."""

    kind: Literal["run_started"] = "run_started"
    agent_name: str = ""
    resumed: bool = False


class MessageEntry(Frozen):
    """A message joins the thread. Answers of a model carry their tokens and finish reason.

    ``cut`` says why an answer is not whole: a stop, or an error in the middle of the stream.
    """

    kind: Literal["message"] = "message"
    message: AnyMessage
    usage: Usage | None = None
    finish_reason: str | None = None
    cut: str | None = None


class ToolStart(Frozen):
    """A tool is about to be called. Written before the call: without a result after it, the call may have happened."""

    kind: Literal["tool_started"] = "tool_started"
    call_id: str


class ToolEnd(Frozen):
    """The result of a tool call, after ``seconds``."""

    kind: Literal["tool_result"] = "tool_result"
    result: ToolResult
    seconds: float = 0.0


class RunEnd(Frozen):
    """A run ended: with a stop reason, or with the error it failed with."""

    kind: Literal["run_finished"] = "run_finished"
    stop_reason: StopReason | None = None
    error: str | None = None


Body = Annotated[RunStart | MessageEntry | ToolStart | ToolEnd | RunEnd, Field(discriminator="kind")]
Kind = Literal["run_started", "message", "tool_started", "tool_result", "run_finished"]


class Entry(Frozen):
    """One entry of a thread's log.

    Attributes:
        v: the version of the format.
        n: its number in the thread, from 1 without gaps.
        id: its own id; the id of a message is its entry's.
        at: seconds since the epoch. Order is by number, never by time.
        run_id: the run that wrote it.
        body: what happened.
    """

    v: int = VERSION
    n: int
    id: str
    at: float
    run_id: str | None = None
    body: Body

    @property
    def kind(self) -> Kind:
        """What kind of entry this is."""
        return self.body.kind


def entry(n: int, body: RunStart | MessageEntry | ToolStart | ToolEnd | RunEnd, run_id: str | None = None) -> Entry:
    """Make the entry that says ``body`` as number ``n``, now."""
    prefix = "msg" if type(body) is MessageEntry else "ent"
    return Entry.model_construct(n=n, id=f"{prefix}_{urandom(16).hex()}", at=time(), run_id=run_id, body=body)


def encode(item: Entry) -> bytes:
    """Give an entry as one line of JSON, ``{v, n, id, at, run_id, kind, body}``."""
    body = item.body.to_json()
    body.pop("kind", None)
    return to_json(
        {"v": item.v, "n": item.n, "id": item.id, "at": item.at, "run_id": item.run_id, "kind": item.kind, "body": body}
    )


def decode(line: bytes | str) -> Entry:
    """Read what `encode` gave.

    Raises:
        CorruptRecord: it is no entry, or one of a newer version.
    """
    try:
        data = parse_json(line)
        if data["v"] > VERSION:
            msg = f"entry {data.get('id')!r} has version {data['v']}, and this plait reads up to {VERSION}: update plait"
            raise CorruptRecord(msg, record=str(data.get("id", "")))
        data["body"]["kind"] = data.pop("kind")
        return Entry(**data)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        why = str(error) if isinstance(error, ConfigurationError) else type(error).__name__
        msg = f"a stored entry cannot be read ({why}): {excerpt(line, 80)}"
        raise CorruptRecord(msg, record=excerpt(line, 80)) from error


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

    __slots__ = ("_results", "messages", "n", "pending", "repeats", "run", "started")

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self.n = 0
        self.messages: list[Message] = []
        self.pending: dict[str, ToolCall] = {}
        self.started: set[str] = set()
        self.repeats: dict[str, int] = {}
        self.run: RunState | None = None
        self._results: dict[str, ToolResult] = {}
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
            self.started.add(body.call_id)  # type: ignore[union-attr]
            if self.run:
                self.run.tool_calls += 1
        elif kind is RunStart:
            self._run_started(item.run_id or "", body)  # type: ignore[arg-type]
        elif kind is RunEnd and self.run:
            self.run.end = body  # type: ignore[assignment]

    def _run_started(self, run_id: str, body: RunStart) -> None:
        if self.run is not None and self.run.run_id == run_id:
            # It goes on where it was: calls without results are still to be carried out, and the limits count anew.
            self.run.resume()
        else:
            self._answer_pending()
            self.run = RunState(run_id, body.agent_name, len(self.messages))

    def _message(self, body: MessageEntry) -> None:
        self._answer_pending()
        message = body.message
        self.messages.append(message)
        if message.role == "assistant":
            if self.run:
                self.run.answered(body)
            self._called(message.tool_calls)
        elif self.run and REPAIR in message.metadata:
            self.run.repairs += 1

    def _called(self, calls: tuple[ToolCall, ...]) -> None:
        self.pending = {call.id: call for call in calls}
        self.repeats = {}
        for call in calls:
            if self.run:
                self.repeats[call.id] = self.run.called(call)

    def _result(self, result: ToolResult) -> None:
        if result.call_id not in self.pending or result.call_id in self._results:
            return  # a result nobody asked for, or a second one: never sent
        self._results[result.call_id] = result
        if len(self._results) == len(self.pending):
            self._answer_pending()

    def _answer_pending(self) -> None:
        """Close the last turn's calls: each gets exactly one result, a synthetic one if need be."""
        if not self.pending:
            return
        parts = tuple(
            self._results.get(call.id)
            or _synthetic(call, begun=call.id in self.started, end=self.run.end if self.run else None)
            for call in self.pending.values()
        )
        self.messages.append(ToolMessage.model_construct(parts=parts))
        self.pending = {}
        self.started = set()
        self._results = {}

    @property
    def waiting(self) -> list[ToolCall]:
        """The last answer's tool calls that have no result yet, in the model's order."""
        return [call for call in self.pending.values() if call.id not in self._results]

    def sendable(self) -> list[Message]:
        """Give the messages as they may be sent now: system text first, each call with exactly one result."""
        if self.pending:
            closed = copy(self)
            closed.messages = list(self.messages)
            closed._answer_pending()  # noqa: SLF001  # its own class
            return system_first(closed.messages)
        return system_first(self.messages)


class RunState:
    """What the log says of its last run so far."""

    __slots__ = (
        "_call",
        "_times",
        "agent_name",
        "end",
        "first",
        "last",
        "repairs",
        "run_id",
        "tool_calls",
        "turns",
        "usage",
    )

    def __init__(self, run_id: str, agent_name: str, first: int) -> None:
        self.run_id = run_id
        self.agent_name = agent_name
        self.first = first  # the index of its first message
        self.turns = 0
        self.tool_calls = 0
        self.usage: Usage | None = None
        self.last: MessageEntry | None = None
        self.end: RunEnd | None = None
        self.repairs = 0
        self._call = ("", "")
        self._times = 0

    def resume(self) -> None:
        """Go on after an end."""
        self.end = None
        self.turns = self.tool_calls = self.repairs = 0

    def called(self, call: ToolCall) -> int:
        """Count how many times running this same call was made, this time included."""
        same = (call.name, call.arguments) == self._call
        self._call, self._times = (call.name, call.arguments), self._times + 1 if same else 1
        return self._times

    def answered(self, body: MessageEntry) -> None:
        self.turns += 1
        self.last = body
        if body.usage is not None:
            self.usage = body.usage if self.usage is None else self.usage + body.usage


def system_first(messages: Sequence[Message]) -> list[Message]:
    """Give the messages with system text before everything else, otherwise in order."""
    if not any(message.role == "system" for message in messages):
        return list(messages)
    return [m for m in messages if m.role == "system"] + [m for m in messages if m.role != "system"]


def without_tools(messages: Iterable[Message]) -> list[Message]:
    """Give the messages without tool calls and their results; an answer that was nothing else is left out."""
    kept = []
    for message in messages:
        if message.role == "tool":
            continue
        if message.tool_calls:
            parts = tuple(part for part in message.parts if type(part) is not ToolCall)
            if any(type(part) is TextPart for part in parts):
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


def usage(log: Iterable[Entry]) -> Usage | None:
    """View: the tokens of all answers together; None when no provider reported any."""
    total: Usage | None = None
    for item in log:
        used = item.body.usage if isinstance(item.body, MessageEntry) else None
        if used is not None:
            total = used if total is None else total + used
    return total


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
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


def events(log: Iterable[Entry], thread_id: str = "") -> list[ev.RunEvent]:
    """View: the run events that a log stands for, without the deltas, which are not kept."""
    tail = Tail()
    return [event for item in log for event in entry_events(tail, item, thread_id)]


def entry_events(tail: Tail, item: Entry, thread_id: str = "") -> list[ev.RunEvent]:
    """Give the events that one entry stands for, and add it to the tail of what came before."""
    body = item.body
    calls = tail.pending
    tail.add(item)
    match body:
        case RunStart():
            return [ev.RunStarted(item.run_id or "", thread_id, body.agent_name, body.resumed)]
        case MessageEntry():
            return [ev.MessageAdded(body.message, body.usage, body.finish_reason)]
        case ToolStart():
            return [ev.ToolCallStarted(calls[body.call_id])] if body.call_id in calls else []
        case ToolEnd():
            call = calls.get(body.result.call_id)
            return [ev.ToolCallFinished(call, body.result, body.seconds)] if call else []
        case RunEnd():
            return [ev.RunFinished(body.stop_reason, tail.run.usage if tail.run else None, body.error)]
