"""What a file says, as far as it is text: by its byte order mark, by the charset it names, else as UTF-8.

Knows nothing of events, nor of what is looked for in a text.
"""

from __future__ import annotations

import codecs
import re
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from plait.messages import FilePart

_PDF: Final = b"%PDF-"
_PDF_BEGINS_WITHIN: Final = 1024  # bytes, as its readers have it
_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, with whose mark it begins
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_CHARSET: Final = re.compile(r""";\s*charset\s*=\s*["']?([\w.:-]+)["']?""", re.IGNORECASE)
_NO_CHARSETS: Final = frozenset(("punycode", "idna", "unicode-escape", "raw-unicode-escape"))
"""Codecs that no file is written in; the time of some grows with the square of the text."""
_NOT_IN_TEXT: Final = re.compile("[\0-\x08\x0e-\x1a\x1c-\x1f]")  # ESC stands in logs, for their colours
_TEXT: Final = re.compile(r"text/|.*(json|xml|yaml|javascript)\s*(;|$)", re.IGNORECASE)


class Told(NamedTuple):
    """The text of a file, and whether it is surely all that the file says."""

    text: str
    is_all: bool


def told(part: FilePart) -> Told | None:
    """Give what a file says; None where it is no text, or lies elsewhere.

    A PDF may be written in letters and still say what these do not: its text is never all. Nor is that which holds
    signs that no text has, such as the zeros of UTF-16 without its mark.
    """
    data = part.data
    if data is None:
        return None
    text = _decoded(data, part.media_type)
    if text is None:
        return None
    return Told(text, _PDF not in data[:_PDF_BEGINS_WITHIN] and _NOT_IN_TEXT.search(text) is None)


def _decoded(data: bytes, media_type: str) -> str | None:
    mark = next((encoding for mark, encoding in _MARKS if data.startswith(mark)), None)
    for encoding in (mark, _charset(media_type), "utf-8"):
        if encoding is not None:
            try:
                return data.decode(encoding)
            except (UnicodeError, LookupError):  # a charset may be no text, or not be true
                pass
    # What browsers take a page for that is neither UTF-8 nor says what it is; each byte is a letter there.
    return data.decode("latin-1") if _TEXT.match(media_type.strip()) else None


def _charset(media_type: str) -> str | None:
    found = _CHARSET.search(media_type)
    try:
        name = codecs.lookup(found[1]).name if found else None
    except LookupError:
        return None
    return None if name is None or name.replace("_", "-") in _NO_CHARSETS else name


def with_text(part: FilePart, text: str) -> FilePart:
    """Give a file with this text in its place, as UTF-8."""
    return part.model_copy(
        update={
            "data": text.encode("utf-8", "replace"),
            "media_type": _CHARSET.sub("; charset=utf-8", part.media_type),
        }
    )
