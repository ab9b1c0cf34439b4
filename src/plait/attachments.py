"""Files as parts of a message: what a file is, its first bytes say, and not its name.

Knows nothing of providers; which of them takes what is theirs to say.
"""

from __future__ import annotations

import mimetypes
import os
from pathlib import Path
from typing import Final

from plait.errors import ConfigurationError, excerpt
from plait.messages import AudioPart, FilePart, ImagePart

MOST_BYTES: Final = 50 * 2**20
"""The most bytes of one file: no provider takes more."""

_BEGINNINGS: Final = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF87a": "image/gif",
    b"GIF89a": "image/gif",
    b"%PDF-": "application/pdf",
    b"ID3": "audio/mpeg",
    b"\xff\xfb": "audio/mpeg",
    b"\xff\xf3": "audio/mpeg",
    b"\xff\xf2": "audio/mpeg",
    b"fLaC": "audio/flac",
    b"OggS": "audio/ogg",
}
_RIFF: Final = {b"WEBP": "image/webp", b"WAVE": "audio/wav"}


def media_type_of(data: bytes) -> str | None:
    """Say what a file is by its first bytes: an image (PNG, JPEG, GIF, WebP), sound, or a PDF; None for all else."""
    if data[:4] == b"RIFF":
        return _RIFF.get(data[8:12])
    return next((kind for beginning, kind in _BEGINNINGS.items() if data.startswith(beginning)), None)


def image_type(part: ImagePart) -> str:
    """Give the media type of an image's data as its first bytes say it: providers refuse another."""
    return media_type_of(part.data or b"") or part.media_type


def attachment(path: str | os.PathLike[str]) -> ImagePart | AudioPart | FilePart:
    """Read a file as a part of a message: ``UserMessage(text="What is this?", parts=[attachment("cat.jpg")])``.

    Args:
        path: where the file is.

    Returns:
        An image, sound, or a document, as the file's first bytes say; for a document that they do not tell, its type is
        what its name says.

    Raises:
        ConfigurationError: it is no path, no file, cannot be read, is empty, has more than 50 MB, or is a broken image.
    """
    file = path_of(path, "an attachment")
    data = read_file(file, "the attachment")
    what = f"the attachment {excerpt(file.name, 100)!r}"
    check_size(data, what)
    kind = media_type_of(data) or mimetypes.guess_type(file.name)[0] or "application/octet-stream"
    match kind.partition("/")[0]:
        case "image":
            return checked_image(data, what)
        case "audio":
            return AudioPart(data=data, media_type=kind)
        case _:
            return FilePart(data=data, media_type=kind, name=file.name)


def path_of(path: str | os.PathLike[str], what: str) -> Path:
    """Give the path of a file that somebody named; ``what`` is named by it, such as ``"an image"``.

    Raises:
        ConfigurationError: it is no path.
    """
    named: object = os.fspath(path) if isinstance(path, os.PathLike) else path
    if isinstance(named, str) and named and "\0" not in named and _can_be_a_name(named):
        return Path(named)
    msg = f"{what} is named by the path of a file, not {excerpt(repr(path), 60)}"
    raise ConfigurationError(msg)


def _can_be_a_name(text: str) -> bool:
    """Whether the system can be told of it: not with half a surrogate pair in it."""
    try:
        os.fsencode(text)
    except UnicodeError:
        return False
    return True


def read_file(path: Path, what: str) -> bytes:
    """Read a file that somebody named, or as much of it as shows that it is too large.

    Args:
        path: where it is.
        what: what to call it in an error: ``"the mask"``.

    Raises:
        ConfigurationError: it is no file, or cannot be read.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe would keep its reader waiting
            msg = f"{what}, {excerpt(str(path), 100)!r}, is no file"
            raise ConfigurationError(msg)
        with path.open("rb") as file:
            return file.read(MOST_BYTES + 1)
    except OSError as error:
        reason = os.strerror(error.errno).lower() if error.errno else type(error).__name__
        msg = f"{what}, the file {excerpt(str(path), 100)!r}, cannot be read: {reason}"
        raise ConfigurationError(msg) from error


def check_size(data: bytes, what: str) -> None:
    """Check that there is something, and not too much of it.

    Raises:
        ConfigurationError: there is nothing, or more than 50 MB.
    """
    if not data:
        msg = f"{what} is empty"
        raise ConfigurationError(msg)
    if len(data) > MOST_BYTES:
        msg = f"{what} has more than {MOST_BYTES // 2**20} MB; make it smaller"
        raise ConfigurationError(msg)


def checked_image(data: bytes, what: str) -> ImagePart:
    """Make the part of an image whose bytes are of a known type, and all there.

    Raises:
        ConfigurationError: it is empty, too large, no image, or cut off.
    """
    check_size(data, what)
    media_type = media_type_of(data)
    if media_type is None or not media_type.startswith("image/"):
        msg = f"{what} is no PNG, JPEG, WebP or GIF image: it begins with {excerpt(repr(data[:12]), 60)}"
        raise ConfigurationError(msg)
    if not _is_complete(data, media_type):
        msg = f"{what} is a broken {media_type} image: its end is missing"
        raise ConfigurationError(msg)
    return ImagePart(data=data, media_type=media_type)


def _is_complete(data: bytes, media_type: str) -> bool:
    """Whether the mark is there with which its format ends; what stands behind it does no harm."""
    match media_type:
        case "image/png":
            return b"IEND" in data
        case "image/jpeg":
            return b"\xff\xd9" in data
        case "image/gif":
            return b"\0;" in data  # the end of the last block, and of the file
        case _:
            return len(data) >= int.from_bytes(data[4:8], "little") + 8
