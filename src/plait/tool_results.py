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
a huge value costs no more than what is kept of it. An exception becomes one line. The run's secrets are masked in the
values themselves, before anything is escaped or cut. Knows nothing of how tools are called.
"""

from __future__ import annotations

import dataclasses
import json
import re
from codecs import utf_8_decode
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from heapq import nsmallest
from ipaddress import IPv4Address, IPv6Address
from math import inf, isfinite
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote
from uuid import UUID

import msgspec
from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from plait.errors import ToolError, excerpt
from plait.frozen import assemble
from plait.interrupts import Secret
from plait.messages import AudioPart, FilePart, ImagePart, Message, TextPart, ToolResult

if TYPE_CHECKING:
    from collections.abc import Iterable

    from plait.messages import ContentPart

NOTHING: Final = "The tool finished and returned nothing."
MAX_BINARY: Final = 10_000_000
"""Bytes of one image, sound or document that a tool may return."""
MAX_SAID: Final = 500
"""Characters of what went wrong that the model gets."""
_MAX_DEPTH: Final = 100
_SHORTEST_SECRET: Final = 4
"""Characters; a shorter one is found in every text."""
_KEYS_AND_PASSWORDS: Final = (
    r"(?i)\b(?:sk|pk|rk|ghp|gho|xox[abp])[-_][a-z0-9_-]{12,}|(?<=bearer )\S{8,}|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"
    r"|(?:(?<=key=)|(?<=token=)|(?<=secret=)|(?<=password=)|(?<=pwd=))[^\s&\"',;]+"
)
_PARTS: Final = (TextPart, ImagePart, AudioPart, FilePart)
_SCALARS: Final = (date, time, timedelta, UUID, PurePath, IPv4Address, IPv6Address)
_quoted = json.encoder.encode_basestring
_BYTES_OF_ONE: Final = 4
_LONGEST_MARK: Final = 16
_QUICK: Final = 10_000
"""Pieces of JSON that are written in less than the time an event loop may stand still."""
_STEPS_OF_SORTING: Final = 10

_BY_FIRST_BYTES: Final = (
    (b"\x89PNG\r\n\x1a\n", 0, "image/png"),
    (b"\xff\xd8\xff", 0, "image/jpeg"),
    (b"GIF8", 0, "image/gif"),
    (b"WEBP", 8, "image/webp"),
    (b"WAVE", 8, "audio/wav"),
    (b"ID3", 0, "audio/mpeg"),
    (b"%PDF-", 0, "application/pdf"),
)


class Mask:
    """Puts ``<secret:name>`` in place of secrets, as they are and as they stand in JSON, in a repr or in a URL.

    Args:
        secrets: the values by name. Those of fewer than four characters are left: they are in every text.

    Attributes:
        longest: the characters of the longest form that is looked for.
    """

    __slots__ = ("_marks", "longest")

    def __init__(self, secrets: Mapping[str, Secret]) -> None:
        marks: dict[str, str] = {}
        for name, secret in secrets.items():
            value = secret.reveal()
            if len(value) >= _SHORTEST_SECRET:
                for written in _forms(value):
                    marks.setdefault(written, f"<secret:{name}>")
        # A secret can be the beginning of another one.
        self._marks = sorted(marks.items(), key=lambda mark: len(mark[0]), reverse=True)
        self.longest = len(self._marks[0][0]) if marks else 0

    def __call__(self, text: str) -> str:
        """Give the text with the names of the secrets in place of the secrets."""
        for written, mark in self._marks:
            text = text.replace(written, mark)
        return text

    def first(self, text: str, most: int) -> str:
        """Give a beginning of the masked text of more than ``most`` characters, all of it where it has no more."""
        size = most + self.longest + 1
        while len(text) > size:
            # What a secret of the rest begins with stands behind the first `most` characters.
            if len(masked := self(text[:size])) > most + self.longest:
                return masked
            size *= 2
        return self(text)


def _forms(value: str) -> tuple[str, ...]:
    as_repr = repr(value)[1:-1], repr(f'"{value}')[2:-1]  # Python chooses the quotes, and escapes those alone
    as_json = json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]
    return (value, *as_json, *as_repr, quote(value, safe="", errors="surrogatepass"))


NO_MASK: Final = Mask({})


class Slow(Exception):  # no error: it says that the work belongs into a thread
    """To give this value a form takes longer than an event loop may stand still."""


def to_parts(value: object, most: int, mask: Mask = NO_MASK, *, quickly: bool = False) -> tuple[ContentPart, ...]:
    """Give the parts that the model gets for a returned value, by the table above.

    Args:
        value: what the tool returned.
        most: characters of text, over all parts, before the cut.
        mask: takes the secrets out.
        quickly: give up where it would take long.

    Raises:
        ToolError: the value has no form for a model; the sentence names the place and the type.
        Slow: it would take long.
    """
    if type(value) is str:  # nearly all of them
        return (assemble(TextPart, {"text": cut(mask(value), most)}),)
    if isinstance(value, ToolResult):
        return _cut_parts(value.parts, most, mask)
    if isinstance(value, Message):
        return _cut_parts([part for part in value.parts if isinstance(part, _PARTS)], most, mask)
    if isinstance(value, _PARTS):
        return _cut_parts([value], most, mask)
    if isinstance(value, list | tuple) and value and all(isinstance(item, _PARTS) for item in value):
        return _cut_parts(value, most, mask)
    if isinstance(value, bytes | bytearray | memoryview):
        return _cut_parts([_binary(value, most + mask.longest)], most, mask)
    if type(value).__module__.partition(".")[0] == "PIL" and hasattr(value, "save"):
        if quickly:
            raise Slow
        return (_picture(value),)
    return (TextPart(text=to_text(value, most, mask, quickly=quickly)),)


def to_text(value: object, most: int, mask: Mask = NO_MASK, *, quickly: bool = False) -> str:
    """Give a value as the text the model gets: a ``str`` as it is, everything else as JSON.

    Raises:
        ToolError: as `to_parts`.
    """
    if value is None:
        return NOTHING
    if isinstance(value, str) and not isinstance(value, Enum):
        return cut(mask.first(str.__str__(value), most), most)  # a subclass can say anything of itself
    if isinstance(value, Enum) and isinstance(value.value, str):
        return cut(mask.first(value.value, most), most)
    return cut(_Encoder(most, mask, _QUICK if quickly else inf).encode(value), most)


def error_text(error: Exception, mask: Mask = NO_MASK) -> str:
    """Give an exception as one line for the model: type and message, no traceback, keys and passwords masked."""
    text = _words(error)
    if isinstance(error, BaseExceptionGroup):
        text = "; ".join([text, *(f"{type(inner).__name__}: {_words(inner)}" for inner in error.exceptions[:3])])
    line = " ".join(mask.first(text, MAX_SAID * 8)[: MAX_SAID * 8].split())
    clean = excerpt(re.sub(_KEYS_AND_PASSWORDS, "***", line), MAX_SAID)
    return f"{type(error).__name__}: {clean}" if clean else type(error).__name__


def _words(error: BaseException) -> str:
    try:
        return str.__str__(str(error))
    except Exception:  # noqa: BLE001  # a foreign class's own __str__
        return ""


def cut(text: str, most: int) -> str:
    """Cut a text after ``most`` characters, and say so."""
    return text if len(text) <= most else f"{text[:most]}\n[cut: only the first {most:,} characters are shown]"


class Pieces:
    """Collects what a generator tool gives, until it is more than the model would see."""

    __slots__ = ("_left", "_mask", "_most", "_pieces")

    def __init__(self, most: int, mask: Mask = NO_MASK) -> None:
        self._mask = mask
        self._most = most + mask.longest  # what is broken off in a secret stands behind the cut
        self._left: float = self._most
        self._pieces: list[object] = []

    def add(self, piece: object) -> bool:
        """Add a piece; say whether no more is wanted."""
        self._pieces.append(piece)
        self._left -= max(1, len(piece)) if isinstance(piece, str) else 1
        if -inf < self._left < 0 and self._mask.longest and isinstance(whole := self.value(), str):
            self._left = self._most - len(self._mask(whole))
        return self._left < 0

    def refuse(self) -> None:
        """Want no more, whatever there is."""
        self._left = -inf

    def value(self) -> object:
        """Give the pieces as one value: texts joined, others as a list."""
        texts = [piece for piece in self._pieces if isinstance(piece, str)]
        return "".join(texts) if len(texts) == len(self._pieces) else self._pieces


def _cut_parts(parts: Iterable[ContentPart], most: int, mask: Mask) -> tuple[ContentPart, ...]:
    kept: list[ContentPart] = []
    for given in parts:
        part = _masked(given, mask) if mask.longest else given
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


def _masked(part: ContentPart, mask: Mask) -> ContentPart:
    said = {name: getattr(part, name, None) for name in ("text", "url", "name", "file_id")}
    changed = {name: mask(text) for name, text in said.items() if text and mask(text) != text}
    return part.model_copy(update=changed) if changed else part


def _binary(given: bytes | bytearray | memoryview, most: int) -> ContentPart:
    """Give binary data as a part; of text, what comes after ``most`` characters may be missing."""
    data = memoryview(given).cast("B")
    head = bytes(data[:_LONGEST_MARK])
    kind = next((kind for mark, at, kind in _BY_FIRST_BYTES if head[at : at + len(mark)] == mark), "")
    if kind and len(data) > MAX_BINARY:
        msg = f"the tool returned {len(data):,} bytes of {kind}; at most {MAX_BINARY:,} are taken"
        raise ToolError(msg)
    if kind.startswith("image/"):
        return ImagePart(data=bytes(data), media_type=kind)
    if kind.startswith("audio/"):
        return AudioPart(data=bytes(data), media_type=kind)
    if kind:
        return FilePart(data=bytes(data), media_type=kind)
    bound = most * _BYTES_OF_ONE + 1  # decoded as if more came: what is broken off at the end is left out
    try:
        text, _ = utf_8_decode(bytes(data[:bound]), "strict", len(data) <= bound)
    except UnicodeDecodeError:
        msg = (
            f"the tool returned {len(data):,} bytes of an unknown kind; return an ImagePart, AudioPart or FilePart "
            "with its media_type"
        )
        raise ToolError(msg) from None
    return TextPart(text=text)


def _picture(image: Any) -> ImagePart:
    from io import BytesIO

    out = BytesIO()
    image.save(out, format="PNG")
    return ImagePart(data=out.getvalue(), media_type="image/png")


class _FullError(Exception):
    """Enough was encoded."""


class _Encoder:
    """Encodes a value as compact JSON, and stops once more than ``most`` characters are there.

    It gives up with `Slow` where that takes more than ``steps``.
    """

    def __init__(self, most: int, mask: Mask, steps: float = inf) -> None:
        self.mask = mask
        self.masks = mask.longest > 0
        self.pieces: list[str] = []
        self.left = most + 1
        self.steps = steps
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
        if len(self.pieces) > self.steps:
            raise Slow

    def _value(self, value: Any, path: str) -> None:
        if isinstance(value, str) and not isinstance(value, Enum):
            text = str.__str__(value)
            if self.masks:
                text = self.mask.first(text, self.left)
            self._put(_quoted(text if len(text) <= self.left else text[: self.left]))
        elif value is None or isinstance(value, bool):
            self._put({None: "null", True: "true", False: "false"}[value])
        elif isinstance(value, int | float) and not isinstance(value, Enum):
            number = _number(value, path)
            masked = self.mask(number) if self.masks else number
            self._put(number if masked == number else _quoted(masked))
        elif isinstance(value, Enum):
            self._value(value.value, path)
        elif isinstance(value, Decimal) and value.is_finite():
            self._put(_quoted(self.mask(str(value))))
        elif isinstance(value, _SCALARS):
            self._put(_quoted(self.mask(_scalar(value))))
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
            self._array(self._sorted(value), path)
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
            self._put(f"{before}{_quoted(self.mask(key) if self.masks else key)}:")
            self._value(item, f"{path}.{key}" if len(path) < _MAX_DEPTH else path)
            before = ","
        self._put("}" if before == "," else "{}")

    def _sorted(self, items: set[Any] | frozenset[Any]) -> list[Any]:
        if len(items) > self.steps / _STEPS_OF_SORTING:
            raise Slow
        # No more than can be shown; and not by `sorted`, which would hold up every thread while it sorts millions.
        return nsmallest(self.left, items, key=lambda item: _Encoder(self.left, self.mask).encode(item))

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
