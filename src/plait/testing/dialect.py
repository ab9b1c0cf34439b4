"""What a dialect is to the server, and what all of them share: calls with names and ids, JSON that always encodes."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from plait.testing.reply import Asked, DialectName, Style
    from plait.testing.said import Said

MADE_AT = 1_700_000_000
"""When every answer says that it was made, in seconds since 1970."""


class Dialect(Protocol):
    """How one kind of provider reads and writes: another one is another module with these methods.

    Attributes:
        name: what it is called.
        root: what the base URL of its clients ends with.
        stream_type: the content type of its streams.
    """

    name: DialectName
    root: str
    stream_type: str

    def asked(self, body: Mapping[str, Any]) -> Asked:
        """Read a request's JSON object; the server fills in where and when it came."""
        ...

    def whole(self, said: Said, asked: Asked) -> bytes:
        """Write an answer in one piece."""
        ...

    def events(self, said: Said, asked: Asked) -> list[bytes]:
        """Write an answer as the data of events, its end mark included."""
        ...

    def is_end(self, event: bytes) -> bool:
        """Say whether an event that `events` has written tells that the answer is complete."""
        ...

    def frame(self, events: Sequence[bytes], style: Style) -> list[bytes]:
        """Write the events of a stream as they are sent."""
        ...

    def error(self, status: int, message: str) -> bytes:
        """Write an error answer."""
        ...

    def failure(self, code: str, message: str) -> bytes:
        """Write the data of the event with which a stream that had begun fails."""
        ...


class NamedCall(NamedTuple):
    """A tool call as it is written: its id, the tool's name, the arguments as the model's own text."""

    id: str
    name: str
    text: str


def named_calls(said: Said, asked: Asked) -> list[NamedCall]:
    """Give the calls of an answer with the names and ids that were left to be made."""
    first = asked.tools[0] if asked.tools else "tool"
    return [
        NamedCall(f"call_{asked.number}_{number}" if call.id is None else call.id, call.name or first, call.text)
        for number, call in enumerate(said.calls)
    ]


def halves(text: str) -> list[str]:
    """Cut arguments as a stream does; there is no empty piece."""
    half = (len(text) + 1) // 2
    return [piece for piece in (text[:half], text[half:]) if piece]


def names_of(tools: object) -> tuple[str, ...]:
    """Give the names of the tools that a request offers, as far as they have one."""
    found = [tool for tool in tools if isinstance(tool, dict)] if isinstance(tools, list) else []
    return tuple(str(tool["name"]) for tool in found if "name" in tool)


def to_json(value: object) -> bytes:
    """Write JSON; a lone surrogate, which has no UTF-8, is escaped."""
    try:
        return json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return json.dumps(value).encode()


def json_value(text: str) -> Any:
    """Give the JSON value that a text is, for dialects that write arguments so; of what is no JSON, the text itself."""
    try:
        return json.loads(text, parse_float=_number, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return text


def _number(text: str) -> float | int:
    number = float(text)
    return number if abs(number) < float("inf") else int(Decimal(text))  # JSON has no infinity, and no largest number


def _refuse(text: str) -> NoReturn:
    raise ValueError(text)
