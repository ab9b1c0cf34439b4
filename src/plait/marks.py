"""The two lines between which untrusted text stands: what they look like, and where they are in a text.

Knows nothing of messages, nor of what is untrusted (see `plait.guardrails.provenance`).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

DIGITS: Final = 32
_OPENING: Final = re.compile(rf'<untrusted source="[^"\n]*" mark="([0-9a-f]{{{DIGITS}}})">\n')
_CLOSING: Final = re.compile(rf'\n</untrusted mark="[0-9a-f]{{{DIGITS}}}">')
_NOT_IN_A_SOURCE: Final = re.compile(r"[^\w:/. -]")


class Span(NamedTuple):
    """Where in a text something marked stands: its opening line, itself, and its closing line."""

    begin: int
    inside: int
    close: int
    end: int


def lines(source: str, digest: str) -> tuple[str, str]:
    """Give the opening and the closing line with this mark, each with the line break towards what it marks."""
    return f'<untrusted source="{_NOT_IN_A_SOURCE.sub("_", source)}" mark="{digest}">\n', closing(digest)


def closing(digest: str) -> str:
    """Give the closing line with this mark."""
    return f'\n</untrusted mark="{digest}">'


def opened(text: str, place: int = 0) -> re.Match[str] | None:
    """Find the next opening line; its group 1 is the mark."""
    return _OPENING.search(text, place)


def is_line(text: str) -> bool:
    """Whether a text is one of the two lines and nothing else, as where what is marked has several parts."""
    return bool(_OPENING.fullmatch(text) or _CLOSING.fullmatch(text))


def spans(text: str) -> Iterator[Span]:
    """Find what is marked, from the beginning; what is not closed in this text reaches to its end."""
    found = opened(text)
    while found is not None:
        line = closing(found[1])
        close = text.find(line, found.end())
        end = len(text) if close < 0 else close + len(line)
        yield Span(found.start(), found.end(), len(text) if close < 0 else close, end)
        found = opened(text, end)
