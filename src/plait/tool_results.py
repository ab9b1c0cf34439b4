"""How the value a tool returned reaches the model: the one table of forms.

============================================  =======================================================
returned                                      what the model gets
============================================  =======================================================
``str``                                       the text as it is
None                                          the text of `NOTHING`
pydantic model, dataclass, TypedDict, dict,   JSON; a model as its ``model_dump(mode="json")`` says, a named
list, tuple, msgspec struct, number, bool     tuple as an object
set, frozenset                                a JSON list, sorted by the JSON text of its items
datetime, date, time, timedelta               JSON: ISO 8601 text
Decimal, UUID, Path, IP address               JSON: text
Enum                                          its value
bytes: PNG, JPEG, GIF, WebP                   an image part, told by the first bytes
bytes: WAV, MP3; PDF                          an audio part; a file part
bytes: other                                  the text, if it is UTF-8, else an error
an image of Pillow                            an image part, as PNG
`Message`, `ToolResult`, a part, parts        its text, image, audio and file parts
(async) generator                             its pieces: texts joined, others a JSON list
NaN, a cycle, a `Secret`, anything else       an error that names the place and the type
============================================  =======================================================

Text and JSON end after ``most`` characters with a note that says so; JSON is not encoded past that point, so that
a huge value costs no more than what is kept of it. Knows nothing of how tools are called.
"""

from __future__ import annotations

import dataclasses
import json
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from math import isfinite
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import msgspec
from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from plait.errors import ToolError
from plait.interrupts import Secret
from plait.messages import AudioPart, FilePart, ImagePart, Message, TextPart, ToolResult

if TYPE_CHECKING:
    from collections.abc import Iterable

    from plait.messages import ContentPart

NOTHING: Final = "The tool finished and returned nothing."
MAX_BINARY: Final = 10_000_000
"""Bytes of one image, sound or document that a tool may return."""
_MAX_DEPTH: Final = 100
_PARTS: Final = (TextPart, ImagePart, AudioPart, FilePart)
_SCALARS: Final = (date, time, timedelta, UUID, PurePath, IPv4Address, IPv6Address)
_quoted = json.encoder.encode_basestring

_BY_FIRST_BYTES: Final = (
    (b"\x89PNG\r\n\x1a\n", 0, "image/png"),
    (b"\xff\xd8\xff", 0, "image/jpeg"),
    (b"GIF8", 0, "image/gif"),
    (b"WEBP", 8, "image/webp"),
    (b"WAVE", 8, "audio/wav"),
    (b"ID3", 0, "audio/mpeg"),
    (b"%PDF-", 0, "application/pdf"),
)


def to_parts(value: object, most: int) -> tuple[ContentPart, ...]:
    """Give the parts that the model gets for a returned value, by the table above.

    Args:
        value: what the tool returned.
        most: characters of text, over all parts, before the cut.

    Raises:
        ToolError: the value has no form for a model; the sentence names the place and the type.
    """
    if isinstance(value, ToolResult):
        return _cut_parts(value.parts, most)
    if isinstance(value, Message):
        return _cut_parts([part for part in value.parts if isinstance(part, _PARTS)], most)
    if isinstance(value, _PARTS):
        return _cut_parts([value], most)
    if isinstance(value, list | tuple) and value and all(isinstance(item, _PARTS) for item in value):
        return _cut_parts(value, most)
    if isinstance(value, bytes | bytearray | memoryview):
        return _cut_parts([_binary(bytes(value))], most)
    if type(value).__module__.partition(".")[0] == "PIL" and hasattr(value, "save"):
        return (_picture(value),)
    return (TextPart(text=to_text(value, most)),)


def to_text(value: object, most: int) -> str:
    """Give a value as the text the model gets: a ``str`` as it is, everything else as JSON.

    Raises:
        ToolError: as `to_parts`.
    """
    if value is None:
        return NOTHING
    if isinstance(value, str) and not isinstance(value, Enum):
        return cut(value, most)
    if isinstance(value, Enum) and isinstance(value.value, str):
        return cut(value.value, most)
    return cut(_Encoder(most).encode(value), most)


def cut(text: str, most: int) -> str:
    """Cut a text after ``most`` characters, and say so."""
    return text if len(text) <= most else f"{text[:most]}\n[cut: only the first {most:,} characters are shown]"


class Pieces:
    """Collects what a generator tool gives, until it is more than the model would see."""

    __slots__ = ("_left", "_pieces")

    def __init__(self, most: int) -> None:
        self._left = most
        self._pieces: list[object] = []

    def add(self, piece: object) -> bool:
        """Add a piece; say whether no more is wanted."""
        self._pieces.append(piece)
        self._left -= max(1, len(piece)) if isinstance(piece, str) else 1
        return self._left < 0

    def value(self) -> object:
        """Give the pieces as one value: texts joined, others as a list."""
        texts = [piece for piece in self._pieces if isinstance(piece, str)]
        return "".join(texts) if len(texts) == len(self._pieces) else self._pieces


def _cut_parts(parts: Iterable[ContentPart], most: int) -> tuple[ContentPart, ...]:
    kept: list[ContentPart] = []
    for part in parts:
        if not isinstance(part, TextPart):
            if part.data is not None and len(part.data) > MAX_BINARY:
                size = f"{len(part.data):,} bytes of {part.media_type}"
                msg = f"the tool returned {size}; at most {MAX_BINARY:,} are taken"
                raise ToolError(msg)
            kept.append(part)
        elif most > 0:
            kept.append(part if len(part.text) <= most else TextPart(text=cut(part.text, most)))
            most -= len(part.text)
    return tuple(kept)


def _binary(data: bytes) -> ContentPart:
    kind = next((kind for mark, at, kind in _BY_FIRST_BYTES if data[at : at + len(mark)] == mark), "")
    if kind.startswith("image/"):
        return ImagePart(data=data, media_type=kind)
    if kind.startswith("audio/"):
        return AudioPart(data=data, media_type=kind)
    if kind:
        return FilePart(data=data, media_type=kind)
    try:
        return TextPart(text=data.decode())
    except UnicodeDecodeError:
        msg = (
            f"the tool returned {len(data):,} bytes of an unknown kind; return an ImagePart, AudioPart or FilePart "
            "with its media_type"
        )
        raise ToolError(msg) from None


def _picture(image: Any) -> ImagePart:
    from io import BytesIO

    out = BytesIO()
    image.save(out, format="PNG")
    return ImagePart(data=out.getvalue(), media_type="image/png")


class _FullError(Exception):
    """Enough was encoded."""


class _Encoder:
    """Encodes a value as compact JSON, and stops once more than ``most`` characters are there."""

    def __init__(self, most: int) -> None:
        self.pieces: list[str] = []
        self.left = most + 1
        self.open: set[int] = set()

    def encode(self, value: object) -> str:
        with suppress(_FullError):
            self._value(value, "the result")
        return "".join(self.pieces)

    def _put(self, piece: str) -> None:
        self.pieces.append(piece)
        self.left -= len(piece)
        if self.left <= 0:
            raise _FullError

    def _value(self, value: Any, path: str) -> None:
        if isinstance(value, str) and not isinstance(value, Enum):
            self._put(_quoted(value if len(value) <= self.left else value[: self.left]))
        elif value is None or isinstance(value, bool):
            self._put({None: "null", True: "true", False: "false"}[value])
        elif isinstance(value, int | float) and not isinstance(value, Enum):
            self._put(_number(value, path))
        elif isinstance(value, Enum):
            self._value(value.value, path)
        elif isinstance(value, Decimal) and value.is_finite():
            self._put(f'"{value}"')
        elif isinstance(value, _SCALARS):
            self._put(_quoted(_scalar(value)))
        else:
            self._container(value, path)

    def _container(self, value: Any, path: str) -> None:
        if id(value) in self.open:
            msg = f"{path} holds itself; a tool can only return values without cycles"
            raise ToolError(msg)
        if len(self.open) >= _MAX_DEPTH:
            msg = f"the result is nested too deeply: more than {_MAX_DEPTH} levels"
            raise ToolError(msg)
        self.open.add(id(value))
        if isinstance(value, BaseModel):
            self._value(value.model_dump(mode="json"), path)
        elif isinstance(value, Mapping):
            self._object(((_key(key, path), item) for key, item in value.items()), path)
        elif isinstance(value, set | frozenset):
            self._array(sorted(value, key=lambda item: _Encoder(self.left).encode(item)), path)
        elif isinstance(value, tuple) and hasattr(value, "_fields"):
            self._object(zip(value._fields, value, strict=False), path)
        elif isinstance(value, list | tuple | deque | range):
            self._array(value, path)
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            self._object(((field.name, getattr(value, field.name)) for field in dataclasses.fields(value)), path)
        elif isinstance(value, msgspec.Struct):
            self._object(((name, getattr(value, name)) for name in value.__struct_fields__), path)
        else:
            raise ToolError(_no_form(value, path))
        self.open.discard(id(value))

    def _object(self, items: Iterable[tuple[str, Any]], path: str) -> None:
        before = "{"
        for key, item in items:
            self._put(f"{before}{_quoted(key)}:")
            self._value(item, f"{path}.{key}" if len(path) < _MAX_DEPTH else path)
            before = ","
        self._put("}" if before == "," else "{}")

    def _array(self, items: Iterable[Any], path: str) -> None:
        before = "["
        for index, item in enumerate(items):
            self._put(before)
            self._value(item, f"{path}[{index}]" if len(path) < _MAX_DEPTH else path)
            before = ","
        self._put("]" if before == "," else "[]")


def _number(value: float, path: str) -> str:
    if isinstance(value, float) and not isfinite(value):
        raise ToolError(_no_form(value, path))
    try:
        return int.__repr__(value) if isinstance(value, int) else float.__repr__(value)
    except ValueError:  # Python writes at most 4,300 digits
        msg = f"{path} is a number with too many digits"
        raise ToolError(msg) from None


def _scalar(value: object) -> str:
    return str(to_jsonable_python(value) if isinstance(value, date | time | timedelta) else value)


def _key(key: object, path: str) -> str:
    match key:
        case str() if not isinstance(key, Enum):
            return key
        case Enum():
            return _key(key.value, path)
        case None | bool():
            return {None: "null", True: "true", False: "false"}[key]
        case int() | float():
            return _number(key, path)
        case date() | time() | timedelta() | UUID() | PurePath() | IPv4Address() | IPv6Address():
            return _scalar(key)
        case Decimal():
            return str(key)
        case _:
            msg = f"{path} has a key of type {type(key).__name__}; the keys of JSON objects are text"
            raise ToolError(msg)


def _no_form(value: object, path: str) -> str:
    what = "a Secret, which no model may see" if isinstance(value, Secret) else f"of type {type(value).__name__}"
    shown = f"the number {value!r}" if isinstance(value, float | Decimal) else what
    return f"{path} is {shown}, which has no form in JSON; return text, numbers, lists, dicts, models or parts"
