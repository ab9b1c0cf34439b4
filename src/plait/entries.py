"""The entries of a thread's log: their kinds, and the one pair of functions that encodes and decodes them.

An entry is ``{v, n, id, at, run_id, kind, body}``. Knows nothing of what a log means (`plait.log`), or of where
entries are stored.

Entries are msgspec structs: a run makes some ten of them, and a pydantic model costs ten times as much. Making one
checks nothing; the messages and results in it were checked when they were made. Reading one checks all of it.
"""

from __future__ import annotations

from time import time
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from plait.errors import CorruptRecord, excerpt
from plait.events import StopReason, Usage
from plait.ids import new_id
from plait.messages import Message, ToolResult
from plait.plain import parse_json, thaw, to_json

if TYPE_CHECKING:
    from plait.frozen import Frozen

VERSION: Final = 1

Kind = Literal["run_started", "message", "tool_started", "tool_result", "context_note", "run_finished"]


class _Body(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, forbid_unknown_fields=True, tag_field="kind"):
    """What an entry says; its class is its kind."""

    @property
    def kind(self) -> Kind:
        """The kind of the entry."""
        return self.__struct_config__.tag  # type: ignore[return-value]  # each class below names one


class RunStart(_Body, frozen=True, gc=False, tag="run_started"):
    """A run begins. ``resumed`` is set when a run that had ended goes on."""

    agent_name: str = ""
    resumed: bool = False


class MessageEntry(_Body, frozen=True, gc=False, tag="message"):
    """A message joins the thread. Answers of a model carry their tokens and finish reason.

    ``cut`` says why an answer is not whole: the stop reason, "cancelled", or "error".
    """

    message: Message
    usage: Usage | None = None
    finish_reason: str | None = None
    cut: str | None = None


class ToolStart(_Body, frozen=True, gc=False, tag="tool_started"):
    """A tool is about to be called. Written before the call: without a result after it, the call may have happened."""

    call_id: str


class ToolEnd(_Body, frozen=True, gc=False, tag="tool_result"):
    """The result of a tool call, after ``seconds``."""

    result: ToolResult
    seconds: float = 0.0


class ContextNote(_Body, frozen=True, gc=False, tag="context_note"):
    """What was asked of a model and is no part of the conversation.

    Attributes:
        by: what asked: ``"summary"``, the name of a check, or ``"request"`` for one that was cut before it had text.
        summary: of a summary, its text, which is sent in place of the messages it hides; they stay in the log.
        first: of a summary, the number of the first entry that it hides.
        last: of a summary, that of the last one.
        usage: the tokens it took.
    """

    by: str
    summary: str = ""
    first: int = 0
    last: int = 0
    usage: Usage | None = None


class RunEnd(_Body, frozen=True, gc=False, tag="run_finished"):
    """A run ended: with a stop reason, or with the error it failed with."""

    stop_reason: StopReason | None = None
    error: str | None = None


Body = RunStart | MessageEntry | ToolStart | ToolEnd | ContextNote | RunEnd


class Entry(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True, kw_only=True):
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


# msgspec reads the annotations of a class when it is first decoded, and crashes when two threads do so at once.
msgspec.json.Decoder(Entry)


def entry(n: int, body: Body, run_id: str | None = None) -> Entry:
    """Make the entry that says ``body`` as number ``n``, now."""
    name = new_id("msg" if type(body) is MessageEntry else "ent")
    return Entry(n=n, id=name, at=time(), run_id=run_id, body=body)


def encode(item: Entry) -> bytes:
    """Give an entry as one line of JSON, ``{v, n, id, at, run_id, kind, body}``."""
    body = msgspec.to_builtins(item.body, enc_hook=thaw)
    kind = body.pop("kind")
    return to_json(
        {"v": item.v, "n": item.n, "id": item.id, "at": item.at, "run_id": item.run_id, "kind": kind, "body": body}
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
        return msgspec.convert(data, Entry, dec_hook=_frozen)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        why = excerpt(str(error)) if isinstance(error, msgspec.ValidationError) else type(error).__name__
        msg = f"a stored entry cannot be read ({why}): {excerpt(line, 80)}"
        raise CorruptRecord(msg, record=excerpt(name, 80)) from error


def _frozen(kind: type, value: Any) -> Frozen:
    """Read a message, result or usage inside an entry."""
    return Message.from_json(value) if kind is Message else kind(**value)
