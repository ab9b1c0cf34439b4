"""Files as parts of a message: what a file is, its first bytes say, and not its name.

What a part is to be called when it is sent, and whether it can be, is worked out here for all providers; which of them
takes what is theirs to say.
"""

from __future__ import annotations

import mimetypes
import os
import re
from base64 import b64decode
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

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
_PDF: Final = "application/pdf"  # which a file is where nobody says otherwise
_PDF_BEGINS_WITHIN: Final = 1024  # bytes, as its readers have it
_UNKNOWN: Final = "application/octet-stream"
_PNG_END: Final = b"\0\0\0\0IEND\xaeB`\x82"  # the last chunk, which is always the same
_JPEG_MARKER: Final = re.compile(rb"\xff[^\0\xd0-\xd7\xff]")  # but for those that stand in the midst of the image
_JPEG_END, _JPEG_WITHOUT_LENGTH = 0xD9, b"\x01\xd8"
_GIF_END, _GIF_IMAGE, _GIF_EXTENSION = b";,!"
_MOST_BLOCKS: Final = 500_000  # twice as many as 50 MB of a GIF take


def media_type_of(data: bytes) -> str | None:
    """Say what a file is by its first bytes: an image (PNG, JPEG, GIF, WebP), sound, or a PDF; None for all else."""
    if data[:4] == b"RIFF":
        return _RIFF.get(data[8:12])
    return next((kind for beginning, kind in _BEGINNINGS.items() if data.startswith(beginning)), None)


def image_type(part: ImagePart) -> str:
    """Give the media type of an image's data as its first bytes say it: providers refuse another."""
    return media_type_of(part.data or b"") or part.media_type


class Inline(NamedTuple):
    """What a part holds by itself: what its bytes are, and the bytes."""

    media_type: str
    data: bytes


def is_web_address(url: str) -> bool:
    """Whether an address is one that can be fetched."""
    return url.partition(":")[0].lower() in ("http", "https")


def image_source(part: ImagePart) -> Inline | str:
    """Give the bytes of an image, called what they are, also of one in a ``data:`` address; or its web address.

    Raises:
        ConfigurationError: there is neither, the address is none, or the bytes are of a known kind and not all there.
    """
    if part.data is not None:
        held = Inline(part.media_type, part.data)
    elif part.url is None:
        msg = "an image part has neither url nor data; give it one of them"
        raise ConfigurationError(msg)
    elif is_web_address(part.url):
        return part.url
    elif part.url[:5].lower() == "data:":
        held = _held_by(part.url, "an image part", "image/png")
    else:
        url = excerpt(part.url, 60)
        msg = f"the image {url!r} is no address; it must begin with http:, https: or data:"
        path = url.removeprefix("file://")
        if "://" not in path:
            msg += f". A file is given with attachment({path!r})"
        raise ConfigurationError(msg)
    check_size(held.data, "an image part")
    found = media_type_of(held.data)
    if found is None or not found.startswith("image/"):
        return held
    _check_end(held.data, found, "an image part")
    return Inline(found, held.data)


def file_data(part: FilePart) -> Inline | None:
    """Give the bytes of a file, also of one in a ``data:`` address; None for one that is elsewhere.

    Raises:
        ConfigurationError: the ``data:`` address cannot be read.
    """
    if part.data is not None:
        return Inline(file_type(part), part.data)
    if part.url is None or part.url[:5].lower() != "data:":
        return None
    return _held_by(part.url, "a file part", _PDF)


def file_type(part: FilePart) -> str:
    """Give the media type of a file: the one it was given, else what its first bytes say, else what its name says."""
    if part.media_type != _PDF:  # which also a part says that was told nothing
        return part.media_type
    named = _type_by_name(part.name or "")
    if part.data is None:
        return named or _PDF
    if b"%PDF-" in part.data[:_PDF_BEGINS_WITHIN]:
        return _PDF
    return media_type_of(part.data) or named or _UNKNOWN


def file_name(part: FilePart, media_type: str) -> str:
    """Give the name of a file; one of no name is called by its type."""
    return part.name or f"file{mimetypes.guess_extension(media_type) or ''}"


def _type_by_name(name: str) -> str | None:
    found, packed = mimetypes.guess_type(name)
    return _UNKNOWN if packed else found


def parse_data_url(url: str) -> Inline | None:
    """Give what a ``data:`` address holds (https://www.rfc-editor.org/rfc/rfc2397).

    Its words may be in any case, and base64 in lines, as people hand them over.

    Returns:
        None for any other address, and for one whose bytes cannot be read.
    """
    head, comma, body = url.partition(",")
    if not (comma and head[:5].lower() == "data:"):
        return None
    kind, *parameters = head[5:].split(";")
    data = unquote_to_bytes(body)
    if any(parameter.strip().lower() == "base64" for parameter in parameters):
        try:
            data = b64decode(b"".join(data.split()), validate=True)
        except ValueError:
            return None
    return Inline(kind.strip().lower() or "text/plain", data)


def _held_by(url: str, what: str, example: str) -> Inline:
    found = parse_data_url(url)
    if found is None:
        msg = f"{what} is a data: address whose data cannot be read; it must be data:{example};base64,..."
        raise ConfigurationError(msg)
    return found


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
    kind = media_type_of(data) or _type_by_name(file.name) or _UNKNOWN
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
    _check_end(data, media_type, what)
    return ImagePart(data=data, media_type=media_type)


def _check_end(data: bytes, media_type: str, what: str) -> None:
    if not _is_complete(data, media_type):
        msg = f"{what} is a broken {media_type} image: its end is missing"
        raise ConfigurationError(msg)


def _is_complete(data: bytes, media_type: str) -> bool:
    """Whether the mark is there with which its format ends; what stands behind it does no harm."""
    match media_type:
        case "image/png":
            return _PNG_END in data
        case "image/jpeg":
            return _jpeg_ends(data)
        case "image/gif":
            return _gif_ends(data)
        case _:
            return len(data) >= int.from_bytes(data[4:8], "little") + 8


def _jpeg_ends(data: bytes) -> bool:
    """Whether a JPEG's end is there, and not only that of a smaller picture that it holds.

    A marker is followed by the length of its segment, and the scan's by the image, in which ``FF`` is no marker when 0
    stands behind it (https://www.w3.org/Graphics/JPEG/itu-t81.pdf, annex B).
    """
    at = 0
    for _ in range(_MOST_BLOCKS):
        found = _JPEG_MARKER.search(data, at)
        if found is None:
            return False
        at = found.end()
        marker = data[at - 1]
        if marker == _JPEG_END:
            return True
        if marker not in _JPEG_WITHOUT_LENGTH:
            at += int.from_bytes(data[at : at + 2], "big")
    return False


def _gif_ends(data: bytes) -> bool:
    """Whether a GIF's end is there, to which its blocks lead one after another.

    The blocks are those of https://www.w3.org/Graphics/GIF/spec-gif89a.txt; what is none is passed over, as programs do
    that show such images.
    """
    in_blocks = False  # within the data of an image or an extension, in pieces of up to 255 bytes
    try:
        at = 13 + _colours(data[10])
        for _ in range(_MOST_BLOCKS):
            kind = data[at]
            at += 1
            if in_blocks:
                in_blocks = kind > 0
                at += kind
            elif kind == _GIF_END:
                return True
            elif kind in (_GIF_IMAGE, _GIF_EXTENSION):
                at += 1 if kind == _GIF_EXTENSION else 10 + _colours(data[at + 8])
                in_blocks = True
    except IndexError:
        pass
    return False


def _colours(flags: int) -> int:
    """Give the bytes of the table of colours that follows a head with these flags."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0
