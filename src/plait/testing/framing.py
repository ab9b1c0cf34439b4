"""How the events of a stream are put on the wire: as server-sent events, or as lines of JSON. Knows no dialect."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from plait.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from plait.testing.reply import Style

_BOM: Final = b"\xef\xbb\xbf"
_NEWLINES: Final = (b"\n", b"\r\n", b"\r")
_TYPE: Final = re.compile(rb'\{"type": ?"([\w.]+)"')


def server_sent(events: Sequence[bytes], style: Style, *, named: bool = False) -> list[bytes]:
    """Write server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html).

    Args:
        events: the data of each.
        style: how.
        named: whether an ``event`` line repeats the type that an event's JSON begins with.
    """
    last = len(events) - 1
    return [
        _start(style, number) + _event(data, style, number, named=named, last=number == last)
        for number, data in enumerate(events)
    ]


def json_lines(events: Sequence[bytes], style: Style) -> list[bytes]:
    """Write one line for each event, as `Style` says of lines of JSON.

    Raises:
        ConfigurationError: the lines were to end with CR, which in JSON is white space.
    """
    if style.newline == "\r":
        msg = "the newline of a Style is '\\r', which ends no line of JSON; give '\\n', '\\r\\n' or 'mixed'"
        raise ConfigurationError(msg)
    written = []
    for number, data in enumerate(events):
        end = _NEWLINES[number % 2] if style.newline == "mixed" else style.newline.encode()
        is_last = number == len(events) - 1
        before = end * 2 if style.comments else b""
        written.append(_start(style, number) + before + data + (b"" if is_last and not style.last_blank else end))
    return written


def _start(style: Style, number: int) -> bytes:
    return _BOM if style.bom and number == 0 else b""


def _event(data: bytes, style: Style, number: int, *, named: bool, last: bool) -> bytes:
    ends = _NEWLINES[number % 3] if style.newline == "mixed" else style.newline.encode()
    before = b"data: " if style.space else b"data:"
    lines = [data[:1], data[1:]] if style.lines and data[:1] == b"{" else [data]  # a line end is allowed after "{"
    written = [before + line for line in lines]
    kind = _TYPE.match(data) if named else None
    if kind is not None:
        written.insert(0, b"event: " + kind[1])
    elif style.comments:
        written.insert(0, b"event: chunk")
    if style.comments:
        written = [b": ping", b"id: %d" % number, b"retry: 5", *written, b":", b"unknown: x"]
    text = ends.join(written) + ends
    if style.comments:
        text = b"data" + ends * 2 + text  # an event without data
    return text + (b"" if last and not style.last_blank else ends)
