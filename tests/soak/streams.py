"""Streams to read: what they say, the many ways to write them down, and a second, slow reader to judge by.

Knows what a stream says and how servers write it; nothing of plait's own reading, and of no dialect more than its
`Subject` says.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

    from plait.providers.http import Framing
    from plait.providers.judging import Judge
    from plait.providers.remote import HttpProvider

Event = dict[str, Any]

BOM = b"\xef\xbb\xbf"
DONE = b"[DONE]"
PINGS = (b": ping", b":", b": OPENROUTER PROCESSING", b"id: 7", b"retry: 10", b"event: message", b"unknown: field")
BEHIND = (0, 1, 3, 9)  # how much may come behind the last event
NO_EVENT = (
    *(b"null", b"5", b"[]", b'"text"', b"{}", b"NaN", b"{", b""),
    *(b"[" * 5000, b'{"a":' * 3000, b"\xff", b"<html>"),
    *(b'{"error": {"code": {}, "message": []}}', b'{"error": "\\ud800"}', b'{"error": [1]}'),
)
"""The data of records that are no event of any dialect, or an error."""


@dataclass(frozen=True)
class Reference:
    """A stream, and what it says when all its pieces are put together by hand.

    Attributes:
        name: what it is a stream of.
        events: the JSON of its events, without the last one of server-sent ones, ``[DONE]``.
        text, reasoning, refusal, calls, finish, usage: what it says.
    """

    name: str
    events: tuple[Event, ...]
    text: str
    finish: str
    reasoning: str = ""
    refusal: str = ""
    calls: tuple[tuple[str, str, str], ...] = ()
    usage: tuple[int, int] | None = None


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A dialect, as it is proved.

    Attributes:
        name: the dialect's.
        provider: makes the provider for a server at this address.
        framing, reader: plait's pure parts.
        wire: how its events are put down.
        references: streams of it.
        junk: the data of events that are not as they should be.
        text_of: what an event adds to the text.
        is_end: whether an event is an end mark.
        content_type: what its streams are called.
    """

    name: str
    provider: Callable[[str], HttpProvider]
    framing: Callable[[], Framing]
    reader: Callable[[], Judge[Any]]
    wire: Wire
    references: tuple[Reference, ...]
    junk: tuple[bytes, ...]
    text_of: Callable[[Event], str]
    is_end: Callable[[Event], bool]
    content_type: str = "text/event-stream"

    def seen(self, beginning: bytes, *, clean: bool) -> Seen:
        """Read the beginning of a stream slowly.

        Args:
            beginning: the stream up to where it was cut.
            clean: whether its end says that nothing more will come: a whole record without its end counts then.
        """
        records = self.wire.records(beginning, clean=clean)
        text = ""
        for record in records:
            if record == DONE:
                return Seen(anything=True, finished=True, text=text)
            event = json.loads(record)
            text += self.text_of(event)
            if self.is_end(event):
                return Seen(anything=True, finished=True, text=text)
        return Seen(anything=bool(records), finished=False, text=text)

    def junk_of(self, chance: random.Random) -> bytes:
        """Give something that should not be in a stream."""
        data = [*NO_EVENT, *self.junk]
        at = chance.randrange(len(data) + len(self.wire.noise))
        return self.wire.record(data[at]) if at < len(data) else self.wire.noise[at - len(data)]


@dataclass(frozen=True)
class Seen:
    """What the beginning of a stream says, by the slow reader."""

    anything: bool
    finished: bool
    text: str


class Wire(Protocol):
    """How events are put down, and taken up again slowly.

    Attributes:
        ends: the line ends there are.
        gap: what ends a record, where line ends are line feeds.
        noise: bytes that should not be there.
    """

    @property
    def ends(self) -> tuple[bytes, ...]: ...

    @property
    def gap(self) -> bytes: ...

    @property
    def noise(self) -> tuple[bytes, ...]: ...

    def record(self, data: bytes) -> bytes:
        """Put down one record."""
        ...

    def plainly(self, events: Sequence[Event], end: bytes) -> bytes:
        """Put a stream down with one kind of line end, and something between its records that says nothing."""
        ...

    def written(self, events: Sequence[Event], chance: random.Random) -> bytes:
        """Put a stream down in one of the ways in which servers do."""
        ...

    def records(self, beginning: bytes, *, clean: bool) -> list[bytes]:
        """Take up the records of the beginning of a stream."""
        ...


@dataclass(frozen=True)
class ServerSent:
    """Events sent by a server (https://html.spec.whatwg.org/multipage/server-sent-events.html).

    Attributes:
        done: whether a stream ends with ``[DONE]``.
        after: data that may come behind the last event.
    """

    done: bool
    after: tuple[bytes, ...]
    ends: tuple[bytes, ...] = (b"\n", b"\r\n", b"\r")
    gap: bytes = b"\n\n"
    noise: tuple[bytes, ...] = (b"data\n\n", b"\x00\n\n", b"\xef\xbb\xbfdata: {}\n\n", b"<html>\n\n", b"\r\r\n\n\r")

    def record(self, data: bytes) -> bytes:
        """Put down one event."""
        return b"data: " + data + b"\n\n"

    def plainly(self, events: Sequence[Event], end: bytes) -> bytes:
        """Put a stream down with a ping in its middle, and each third event in many lines; behind it, what there is."""
        pieces = []
        for number, event in enumerate(events):
            text = json.dumps(event, ensure_ascii=False, indent=None if number % 3 else 0).encode()
            pieces.append(b"".join(b"data: " + line + end for line in text.split(b"\n")) + end)
        pieces.insert(len(pieces) // 2, b": ping" + end * 2)
        behind = (DONE,) if self.done else self.after
        return b"".join([*pieces, *(b"data: " + data + end * 2 for data in behind)])

    def written(self, events: Sequence[Event], chance: random.Random) -> bytes:
        """Put a stream down in one of the ways in which servers do."""
        return _Writer(self, chance).written(events)

    def records(self, beginning: bytes, *, clean: bool) -> list[bytes]:
        """Take up the data of the events, as the standard says."""
        *lines, last = re.split(b"\r\n|\r|\n", beginning.removeprefix(BOM))
        events: list[bytes] = []
        data: list[bytes] = []
        for line in lines:
            if line:
                data += _value(line)
            elif data:
                events.append(b"\n".join(data))
                data = []
        rest = b"\n".join(data + _value(last))
        return [*events, rest] if clean and (rest == DONE or _is_object(rest)) else events


def _value(line: bytes) -> list[bytes]:
    name, _, value = line.partition(b":")
    return [value.removeprefix(b" ")] if name == b"data" else []


def _is_object(data: bytes) -> bool:
    try:
        return isinstance(json.loads(data), dict)
    except ValueError:
        return False


@dataclass(frozen=True)
class JsonLines:
    """Lines of JSON (https://github.com/ndjson/ndjson-spec).

    Attributes:
        after: lines that may come behind the last event.
    """

    after: tuple[bytes, ...]
    ends: tuple[bytes, ...] = (b"\n", b"\r\n")
    gap: bytes = b"\n"
    noise: tuple[bytes, ...] = (b"\x00\n", b"\xef\xbb\xbf{}\n", b"\r", b"\n\n \n")

    def record(self, data: bytes) -> bytes:
        """Put down one line."""
        return data + b"\n"

    def plainly(self, events: Sequence[Event], end: bytes) -> bytes:
        """Put a stream down with a blank line in its middle, and behind it what there may be."""
        pieces = [json.dumps(event, ensure_ascii=False).encode() + end for event in events]
        pieces.insert(len(pieces) // 2, end)
        return b"".join([*pieces, *(line + end for line in self.after)])

    def written(self, events: Sequence[Event], chance: random.Random) -> bytes:
        """Put a stream down in one of the ways in which servers do."""
        ends = chance.choice([self.ends[:1], self.ends[:1], self.ends[1:], self.ends])
        blanks = chance.choice([0.0, 0.2, 0.6])
        made = [BOM] if chance.random() < 0.2 else []
        data = [_dumped(event, chance) for event in events]
        data += chance.choices(self.after, k=chance.choice(BEHIND))
        for line in data:
            while chance.random() < blanks:
                made.append(chance.choice([b"", b" ", b"\t"]) + chance.choice(ends))
            made.append(line)
            made.append(chance.choice(ends))
        if chance.random() < 0.2:
            made.pop()  # the last line end
        return b"".join(made)

    def records(self, beginning: bytes, *, clean: bool) -> list[bytes]:
        """Take up the lines that are not blank."""
        *lines, last = beginning.removeprefix(BOM).split(b"\n")
        lines = [line.strip() for line in lines if line.strip()]
        return [*lines, last] if clean and _is_object(last) else lines


def _dumped(event: Event, chance: random.Random, indent: int | None = None) -> bytes:
    separators = (",", ":") if chance.random() < 0.5 and indent is None else None
    return json.dumps(event, ensure_ascii=chance.random() < 0.3, indent=indent, separators=separators).encode()


class _Writer:
    """Writes server-sent events: line by line, each with an end that cannot be read together with the one before."""

    def __init__(self, wire: ServerSent, chance: random.Random) -> None:
        self._wire = wire
        self._chance = chance
        self._ends = chance.choice([(b"\n",), (b"\n",), (b"\r\n",), (b"\r",), wire.ends])
        self._written = [BOM] if chance.random() < 0.2 else []
        self._last = b""
        self._pings = chance.choice([0.0, 0.2, 0.6])
        self._spaces = chance.choice([0.0, 0.5, 1.0])
        self._lines = chance.choice([0.0, 0.0, 0.5])

    def _line(self, line: bytes) -> None:
        end = self._chance.choice(self._ends)
        if not line and self._last == b"\r" and end == b"\n":
            end = b"\r"  # a line feed after it would belong to it
        self._written.append(line + end)
        self._last = end

    def _ping(self) -> None:
        while self._chance.random() < self._pings:
            self._line(self._chance.choice(PINGS))
            if self._chance.random() < 0.5:
                self._line(b"")

    def _data(self, data: bytes) -> None:
        for line in data.split(b"\n"):
            self._line((b"data: " if self._chance.random() < self._spaces else b"data:") + line)
            if self._chance.random() < self._pings / 2:
                self._line(self._chance.choice(PINGS))

    def _record(self, data: bytes) -> None:
        self._data(data)
        self._line(b"")

    def written(self, events: Sequence[Event]) -> bytes:
        chance = self._chance
        for event in events:
            self._ping()
            self._record(_dumped(event, chance, indent=1 if chance.random() < self._lines else None))
        if self._wire.done:
            for _ in range(chance.choice([0, 1, 1, 1, 2, 3])):
                self._ping()
                self._record(DONE)
                self._after()
        else:
            for _ in range(chance.choice(BEHIND)):
                self._record(chance.choice(self._wire.after))
        if chance.random() < 0.2:
            self._written.pop()  # the last blank line
        return b"".join(self._written)

    def _after(self) -> None:
        if self._chance.random() < 0.2:
            self._record(self._chance.choice(self._wire.after))


def in_pieces(stream: bytes, chance: random.Random) -> list[bytes]:
    """Cut a stream at random: into two, into few, into small pieces, or into single bytes."""
    kind = chance.random()
    if kind < 0.1:
        return [stream[n : n + 1] for n in range(len(stream))]
    if kind < 0.5:
        cuts = sorted(chance.randrange(len(stream) + 1) for _ in range(chance.choice([1, 1, 2, 5, 20])))
        return [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True) if start < end]
    most = chance.choice([2, 7, 64, 500])
    pieces, start = [], 0
    while start < len(stream):
        size = chance.randint(1, most)
        pieces.append(stream[start : start + size])
        start += size
    return pieces
