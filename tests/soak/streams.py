"""Reference streams of the chat dialect, the many ways to write them down, and a second, slow reader to judge by.

Knows what a stream says and how servers write it; nothing of plait's own reading.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import random

BOM = b"\xef\xbb\xbf"
DONE = b"[DONE]"
ENDS = (b"\n", b"\r\n", b"\r")
PINGS = (b": ping", b":", b": OPENROUTER PROCESSING", b"id: 7", b"retry: 10", b"event: message", b"unknown: field")
AFTER_DONE = (b"not json", b'{"choices":[{"index":0,"delta":{"content":"more"}}]}', b"null")


def _chunk(finish: str | None = None, **delta: Any) -> dict[str, Any]:
    return {
        "id": "gen-1",
        "object": "chat.completion.chunk",
        "model": "m-1",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }


def _usage(sent: int, received: int) -> dict[str, Any]:
    usage = {"prompt_tokens": sent, "completion_tokens": received, "total_tokens": sent + received}
    return {"id": "gen-1", "model": "m-1", "choices": [], "usage": usage}


def _call(index: int, arguments: str, id_: str | None = None, name: str | None = None) -> dict[str, Any]:
    function = {"arguments": arguments} if name is None else {"name": name, "arguments": arguments}
    call = {"index": index, "function": function}
    return call if id_ is None else {**call, "id": id_, "type": "function"}


@dataclass(frozen=True)
class Reference:
    """A stream, and what it says when all its pieces are put together by hand.

    Attributes:
        name: what it is a stream of.
        events: the JSON of its events, without the last one, ``[DONE]``.
        text, reasoning, refusal, calls, finish, usage: what it says.
    """

    name: str
    events: tuple[dict[str, Any], ...]
    text: str
    finish: str
    reasoning: str = ""
    refusal: str = ""
    calls: tuple[tuple[str, str, str], ...] = ()
    usage: tuple[int, int] | None = None

    def chance_of_writing(self, chance: random.Random) -> bytes:
        """Write the stream down in one of the ways in which servers do."""
        return _Writer(chance).written(self.events)

    def plainly(self, end: bytes = b"\n") -> bytes:
        """Write the stream down with one kind of line end, a ping in its middle, and each third event in many lines."""
        pieces = []
        for number, event in enumerate(self.events):
            text = json.dumps(event, ensure_ascii=False, indent=None if number % 3 else 0).encode()
            pieces.append(b"".join(b"data: " + line + end for line in text.split(b"\n")) + end)
        pieces.insert(len(pieces) // 2, b": ping" + end * 2)
        return b"".join(pieces) + b"data: [DONE]" + end * 2


REFERENCES = (
    Reference(
        "plain text with usage",
        (
            _chunk(role="assistant", content=""),
            *(_chunk(content=piece) for piece in ("The", " quick", " brown fox", ",", ' said "no".\n', "Twice\\.")),
            _chunk("stop"),
            _usage(12, 9),
        ),
        text='The quick brown fox, said "no".\nTwice\\.',
        finish="stop",
        usage=(12, 9),
    ),
    Reference(
        "parallel tool calls",
        (
            _chunk(role="assistant", content=None),
            _chunk(content="Looking."),
            _chunk(tool_calls=[_call(0, "", "call_a", "weather")]),
            _chunk(tool_calls=[_call(0, '{"pla')]),
            _chunk(tool_calls=[_call(1, '{"', "call_b", "time"), _call(0, 'ce": "Køb')]),
            _chunk(tool_calls=[_call(0, 'enhavn"}')]),
            _chunk(tool_calls=[_call(1, 'zone": "CET"}')]),
            _chunk(tool_calls=[_call(2, "{}", "call_c", "ping")]),
            _chunk("tool_calls"),
            _usage(40, 25),
        ),
        text="Looking.",
        finish="tool_calls",
        calls=(
            ("call_a", "weather", '{"place": "København"}'),
            ("call_b", "time", '{"zone": "CET"}'),
            ("call_c", "ping", "{}"),
        ),
        usage=(40, 25),
    ),
    Reference(
        "reasoning, text and a refusal",
        (
            _chunk(role="assistant", content="", reasoning="Hm: "),
            _chunk(reasoning="日本語 — "),
            _chunk(reasoning_content="naïve?"),
            _chunk(content="Привет, "),
            _chunk(content="мир 👋🏽"),
            _chunk(content=" — e\u0301."),
            _chunk(refusal="I won't "),
            _chunk(refusal="do that ✋"),
            _chunk("stop"),
        ),
        text="Привет, мир 👋🏽 — e\u0301.",
        reasoning="Hm: 日本語 — naïve?",
        refusal="I won't do that ✋",
        finish="stop",
    ),
)


class _Writer:
    """Writes a stream: line by line, each with an end that cannot be read together with the one before."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._ends = chance.choice([(b"\n",), (b"\n",), (b"\r\n",), (b"\r",), ENDS])
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

    def written(self, events: tuple[dict[str, Any], ...]) -> bytes:
        chance = self._chance
        for event in events:
            self._ping()
            indent = 1 if chance.random() < self._lines else None
            separators = (",", ":") if chance.random() < 0.5 and indent is None else None
            text = json.dumps(event, ensure_ascii=chance.random() < 0.3, indent=indent, separators=separators)
            self._data(text.encode())
            self._line(b"")
        for _ in range(chance.choice([0, 1, 1, 1, 2, 3])):
            self._ping()
            self._data(DONE)
            self._line(b"")
            if chance.random() < 0.2:
                self._data(chance.choice(AFTER_DONE))
                self._line(b"")
        if chance.random() < 0.2:
            self._written.pop()  # the last blank line
        return b"".join(self._written)


@dataclass(frozen=True)
class Seen:
    """What the beginning of a stream says, by the slow reader."""

    anything: bool
    finished: bool
    text: str


def seen(beginning: bytes, *, clean: bool) -> Seen:
    """Read the beginning of a stream, as the standard says, slowly.

    Args:
        beginning: the stream up to where it was cut.
        clean: whether its end says that nothing more will come: a whole event without its blank line counts then.
    """
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
    if clean and _whole(rest):
        events.append(rest)
    text, finished = "", False
    for event in events:
        if event == DONE:
            finished = True
            break
        for choice in json.loads(event)["choices"]:
            text += choice["delta"].get("content") or ""
            finished = finished or choice["finish_reason"] is not None
    return Seen(bool(events), finished, text)


def _value(line: bytes) -> list[bytes]:
    name, _, value = line.partition(b":")
    return [value.removeprefix(b" ")] if name == b"data" else []


def _whole(data: bytes) -> bool:
    try:
        return data == DONE or isinstance(json.loads(data), dict)
    except ValueError:
        return False


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
