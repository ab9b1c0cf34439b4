"""Images as people hand them over, made into bytes of a known type before anything is asked.

Takes addresses, ``data:`` addresses, base64, bytes, files and image parts; what an image is, its first bytes say and
not its name. Addresses are fetched within the bounds of a `Fetching`. Knows no provider.
"""

from __future__ import annotations

import asyncio
import os
import re
from base64 import b64decode
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from plait.attachments import MOST_BYTES, checked_image, media_type_of, parse_data_url, path_of, read_file
from plait.errors import ConfigurationError, excerpt
from plait.messages import ImagePart

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from plait.providers.http.fetching import Fetched, Resolve

ImageSource = str | bytes | bytearray | memoryview | os.PathLike[str] | ImagePart
"""An address, a ``data:`` address, base64 text, the bytes, a file's path, or a part of a message."""

FETCH_SECONDS: Final = 30.0
"""Within how many seconds an image has to be fetched."""

_SCHEME: Final = re.compile(r"([a-z][a-z0-9+.-]*):", re.IGNORECASE)
_PNG_SIZE: Final = slice(16, 24)  # width and height, right after the name of the first chunk
_LONGEST_PATH: Final = 4096


@dataclass(frozen=True, slots=True)
class Fetching:
    """Gets images that are addresses: what a program allows, within the bounds of an image.

    Read back from a pickle it is the usual one: what one process allows, another does not.

    Attributes:
        allow_private: whether addresses of private networks may be asked, and any port; see `fetch`.
        resolve: gives the addresses of a name; the system does if it is None.
    """

    allow_private: bool = False
    resolve: Resolve | None = None

    async def __call__(self, url: str, /, *, most: int = MOST_BYTES, seconds: float = FETCH_SECONDS) -> Fetched:
        """Get what is at an ``http`` or ``https`` address; see `fetch` for the bounds, and for what is raised."""
        from plait.providers.http.fetching import fetch  # it imports aiohttp

        return await fetch(url, most=most, seconds=seconds, allow_private=self.allow_private, resolve=self.resolve)

    def __reduce__(self) -> tuple[type[Fetching], tuple[()]]:
        return Fetching, ()


def png_size(data: bytes) -> tuple[int, int] | None:
    """Give the width and height of a PNG in pixels; None for anything else."""
    if media_type_of(data) != "image/png":
        return None
    sides = data[_PNG_SIZE]
    return int.from_bytes(sides[:4], "big"), int.from_bytes(sides[4:], "big")


async def image_of(source: ImageSource, fetch: Callable[[str], Awaitable[Fetched]], what: str) -> ImagePart:
    """Give an image as bytes with its type.

    Args:
        source: where it is, or what it is.
        fetch: gets what is at an ``http`` or ``https`` address.
        what: what to call it in an error: ``"the mask"``.

    Raises:
        ConfigurationError: it is nothing of what is taken, is not there, is empty, cut off, too large, or no image.
        SecurityError, TransportError, ProtocolViolation, LimitExceeded: it cannot be fetched; see `fetch`.
    """
    if isinstance(source, ImagePart):
        if source.data is not None:
            return checked_image(source.data, what)
        if source.url is None:
            msg = f"{what} is an ImagePart with neither data nor url"
            raise ConfigurationError(msg)
        source = source.url
    if isinstance(source, bytes | bytearray | memoryview):
        return checked_image(bytes(source), what)
    if isinstance(source, os.PathLike):
        return checked_image(await asyncio.to_thread(read_file, path_of(source, what), what), what)
    if not isinstance(source, str):
        msg = (
            f"{what} is of the type {type(source).__name__}; an image is an address, a data: address, base64, bytes, "
            "a path, or an ImagePart"
        )
        raise ConfigurationError(msg)
    return await _image_of_text(source.strip(), fetch, what)


async def _image_of_text(text: str, fetch: Callable[[str], Awaitable[Fetched]], what: str) -> ImagePart:
    scheme = _SCHEME.match(text)
    kind = scheme[1].lower() if scheme is not None else ""
    if kind in ("http", "https"):
        return checked_image((await fetch(text)).data, what)
    if kind == "data":
        found = parse_data_url(text)
        if found is None:
            msg = f"{what} is a data: address whose data cannot be read; it must be data:image/png;base64,..."
            raise ConfigurationError(msg)
        return checked_image(found.data, what)
    data = _unbase64(text)
    if data is not None and media_type_of(data) is not None:
        return checked_image(data, what)
    if 0 < len(text) <= _LONGEST_PATH and "\0" not in text:
        path = Path(text)
        if await asyncio.to_thread(os.path.lexists, path):
            return checked_image(await asyncio.to_thread(read_file, path, what), what)
    msg = (
        f"{what} ({excerpt(text, 40)!r}) is no address (http:, https:, data:), no base64 of an image, and no file that "
        "is there"
    )
    raise ConfigurationError(msg)


def _unbase64(text: str) -> bytes | None:
    """Give what base64 stands for, in lines or in one; None when it is no base64."""
    try:
        return b64decode("".join(text.split()), validate=True)
    except ValueError:
        return None
