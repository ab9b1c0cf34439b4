"""The bytes of a stream as lines, however they are cut; and what is provably whole. Pure; it does no I/O."""

from __future__ import annotations

from typing import Final

import msgspec

from plait.plain import parse_json

_BOM: Final = b"\xef\xbb\xbf"


class Lines(msgspec.Struct, gc=False, eq=False):
    """Splits the bytes of one stream at its line feeds; a byte order mark at its beginning is dropped.

    The time this takes is in proportion to the bytes, also for one line of 10 MB that arrives byte by byte.

    Attributes:
        size: the bytes held of what is not complete yet.
    """

    size: int = 0
    _rest: int = 0  # the bytes of the last line, which has no end yet
    _line: list[bytes] | None = None  # its pieces
    _begun: bool = False

    def _split(self, part: bytes) -> list[bytes]:
        """Take in what one read gave; give the lines that are complete now, without their line feeds."""
        if b"\n" not in part:
            if part:
                if self._line is None:
                    self._line = []
                self._line.append(part)
                self._rest += len(part)
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
        self._rest = len(rest)
        return lines


def is_object(data: bytes) -> bool:
    """Whether this is one JSON object and nothing else: no beginning of one is itself one."""
    try:
        return isinstance(parse_json(data), dict)
    except (ValueError, RecursionError):
        return False
