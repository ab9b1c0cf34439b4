"""Server-sent events, read piece by piece.

Owns the framing only: bytes in, the data of complete events out. It knows nothing of sockets, and of JSON
just enough to judge an event that the end of the stream cut off. The rules are those of
https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream with two readings of
our own: an event without data is skipped, and so is everything but ``data`` (``event``, ``id``, ``retry``
and comments), for every dialect we speak repeats in its JSON what it says there.
"""

from __future__ import annotations

from typing import Final

from plait.providers.lines import Lines, is_object

DONE: Final = b"[DONE]"
"""The data of the event with which OpenAI's dialects end a stream."""


class EventReader(Lines, gc=False, eq=False):
    """Turns the bytes of one stream into the data of its events, however the bytes are cut."""

    _first: bytes | None = None  # the first data line of the open event
    _more: list[bytes] | None = None  # its further data lines
    _held: int = 0  # the bytes of both
    _after_cr: bool = False

    def feed(self, part: bytes) -> list[bytes]:
        """Take in what one read gave; give the data of the events that are complete now."""
        if self._after_cr or b"\r" in part:
            part = self._newlines(part)
        lines = self._split(part)
        del part  # it may be large
        events = self._take(lines) if lines else []
        self.size = self._held + self._rest
        return events

    def _take(self, lines: list[bytes]) -> list[bytes]:
        events = []
        first = self._first
        for line in lines:
            if line[:6] == b"data: ":
                value = line[6:]
            elif not line:
                if first is not None:
                    data = first if self._more is None else b"\n".join((first, *self._more))
                    if data:
                        events.append(data)
                    self._more = None
                    self._held = 0
                    first = None
                continue
            elif line[:5] == b"data:":
                value = line[5:]
            elif line == b"data":
                value = b""
            else:
                continue
            if first is None:
                first = value
                self._held = len(value)
            else:
                if self._more is None:
                    self._more = []
                self._more.append(value)
                self._held += len(value) + 1
        self._first = first
        return events

    def end(self) -> list[bytes]:
        """Give the last event, when the stream ended (cleanly) before the blank line that completes it.

        The standard drops such an event. Servers exist that end right after the last one, so it counts when
        it is provably whole: one JSON object, no beginning of which is itself one, or ``[DONE]``. Half an
        event is dropped.
        """
        self._after_cr = False
        events = self.feed(b"\n\n")
        return [data for data in events if _is_whole(data)]

    def _newlines(self, part: bytes) -> bytes:
        """Make every line end a line feed; of a pair that two reads cut apart, the second half is dropped."""
        if self._after_cr and part[:1] == b"\n":
            part = part[1:]
            if not part:
                self._after_cr = False
                return part
        self._after_cr = part[-1:] == b"\r" if part else self._after_cr
        return part.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _is_whole(data: bytes) -> bool:
    return data.strip() == DONE or is_object(data)
