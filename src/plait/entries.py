"""The entries of a thread's log: their kinds, and the one pair of functions that encodes and decodes them.

An entry is ``{v, n, id, at, run_id, kind, body}``. Knows nothing of what a log means (`plait.log`), or of where
entries are stored.
"""

from __future__ import annotations

from time import time
from typing import Annotated, Final, Literal

from pydantic import Field

from plait.errors import ConfigurationError, CorruptRecord, excerpt
from plait.events import StopReason, Usage
from plait.frozen import Frozen, parse_json, to_json
from plait.ids import new_id
from plait.messages import Message, ToolResult

VERSION: Final = 1


class RunStart(Frozen):
    """A run begins. ``resumed`` is set when a run that had ended goes on."""

    kind: Literal["run_started"] = "run_started"
    agent_name: str = ""
    resumed: bool = False


class MessageEntry(Frozen):
    """A message joins the thread. Answers of a model carry their tokens and finish reason.

    ``cut`` says why an answer is not whole: the stop reason, "cancelled", or "error".
    """

    kind: Literal["message"] = "message"
    message: Message
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
    name = new_id("msg" if type(body) is MessageEntry else "ent")
    return Entry.model_construct(n=n, id=name, at=time(), run_id=run_id, body=body)


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
    name = ""
    try:
        data = parse_json(line)
        name = str(data["id"])
        if type(data["v"]) is not int or not 1 <= data["v"] <= VERSION:
            msg = f"entry {name!r} has version {data['v']!r:.20}, and this plait reads 1 to {VERSION}; update plait"
            raise CorruptRecord(msg, record=name)
        data["body"]["kind"] = data.pop("kind")
        return Entry(**data)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        why = str(error) if isinstance(error, ConfigurationError) else type(error).__name__
        msg = f"a stored entry cannot be read ({why}): {excerpt(line, 80)}"
        raise CorruptRecord(msg, record=excerpt(name, 80)) from error
