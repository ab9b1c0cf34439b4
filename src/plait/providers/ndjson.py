"""Lines of JSON, read piece by piece: Ollama's streams.

Owns the framing only: bytes in, the lines of JSON out (https://github.com/ndjson/ndjson-spec). It knows nothing of
sockets, and of JSON just enough to judge a line that the end of the stream cut off.
"""

from __future__ import annotations

from typing import Final

import msgspec

from plait.plain import parse_json

_BOM: Final = b"\xef\xbb\xbf"


class LineReader(msgspec.Struct, gc=False, eq=False):
    """Turns the bytes of one stream into its lines, however the bytes are cut; blank lines are skipped.

    A line keeps the CR of CR LF, which is white space to JSON. The time this takes is in proportion to the bytes, also
    for one line of 10 MB that arrives byte by byte.

    Attributes:
        size: the bytes held of a line that is not complete yet.
    """

    size: int = 0
    _line: list[bytes] | None = None  # the pieces of the last line, which has no end yet
    _begun: bool = False

    def feed(self, part: bytes) -> list[bytes]:
        """Take in what one read gave; give the lines that are complete now."""
        if b"\n" not in part:
            if part:
                if self._line is None:
                    self._line = []
                self._line.append(part)
                self.size += len(part)
            return []
        if self._line is not None:
            self._line.append(part)
            part = b"".join(self._line)
            self._line = None
        lines = part.split(b"\n")
        del part  # it may be large
        rest = lines.pop()
        if not self._begun:
            self._begun = True
            lines[0] = lines[0].removeprefix(_BOM)
        if rest:
            self._line = [rest]
        self.size = len(rest)
        return [line for line in lines if line and not line.isspace()]

    def end(self) -> list[bytes]:
        """Give the last line, when the stream ended (cleanly) before the end of the line.

        It counts when it is provably whole: one JSON object, no beginning of which is itself one. Half a line is
        dropped.
        """
        return [line for line in self.feed(b"\n") if _is_object(line)]


def _is_object(data: bytes) -> bool:
    """Whether this is one JSON object, and nothing else."""
    try:
        return isinstance(parse_json(data), dict)
    except (ValueError, RecursionError):
        return False
