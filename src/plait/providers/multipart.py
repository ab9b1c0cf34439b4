"""Forms with files in them, as bytes: ``multipart/form-data`` (https://www.rfc-editor.org/rfc/rfc7578). Pure."""

from __future__ import annotations

from dataclasses import dataclass
from secrets import token_hex
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

# What would end a quoted name, written as browsers write it
# (https://html.spec.whatwg.org/multipage/form-control-infrastructure.html#multipart-form-data).
_ESCAPES: Final = str.maketrans({'"': "%22", "\r": "%0D", "\n": "%0A"})


@dataclass(frozen=True, slots=True)
class File:
    """A file in a form."""

    name: str
    data: bytes
    media_type: str


def encode_form(fields: Iterable[tuple[str, str | File]]) -> tuple[str, bytes]:
    """Write a form down.

    Args:
        fields: names with texts or files, in order; a name may come again.

    Returns:
        The content type, which names the boundary, and the body.
    """
    boundary = token_hex(16)  # nobody can guess it, so no value holds it
    parts = []
    for name, value in fields:
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name.translate(_ESCAPES)}"'
        if isinstance(value, File):
            head += f'; filename="{value.name.translate(_ESCAPES)}"\r\nContent-Type: {value.media_type}'
        content = value.data if isinstance(value, File) else value.encode("utf-8", "replace")
        parts += [head.encode("utf-8", "replace"), b"\r\n\r\n", content, b"\r\n"]
    return f"multipart/form-data; boundary={boundary}", b"".join([*parts, f"--{boundary}--\r\n".encode()])
