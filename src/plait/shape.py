"""JSON as plain data: reading it within bounds, and checking it against a schema written by hand.

Knows nothing of Python types, functions or tools (`plait.schema`), nor of what a provider does with a schema.
"""

from __future__ import annotations

import json
from math import isfinite
from typing import TYPE_CHECKING, Any, Final, NoReturn

import msgspec

from plait.errors import excerpt

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

Json = dict[str, Any] | list[Any] | str | int | float | bool | None

MAX_TEXT: Final = 500_000
"""Characters of JSON that one tool call may carry; about as much as a model can write in one answer."""
MAX_DEPTH: Final = 100
"""How deep lists and objects may be nested."""
MAX_STEPS: Final = 300_000
"""Parts of data and schema that are compared for one value; about as many as `MAX_TEXT` characters hold values."""
_SHOWN: Final = 60
_decode: Final = msgspec.json.Decoder().decode
ALTERNATIVES: Final = ("anyOf", "oneOf")


def read_json(text: str | bytes, *, most: int = MAX_TEXT) -> Json:
    """Read JSON that a model or a server wrote.

    Args:
        text: the JSON; bytes are UTF-8.
        most: the most characters (of bytes: bytes) that are looked at.

    Raises:
        ValueError: it is too long, no JSON, nested deeper than `MAX_DEPTH`, or holds a number JSON cannot
            hold or a key twice. The text of the error says what and where, as the end of a sentence that
            begins with what was read: ``"is not valid JSON: ..."``.
    """
    if len(text) > most:
        msg = f"is too long: {len(text):,} characters, and at most {most:,} are taken"
        raise ValueError(msg)
    data: Json
    try:
        data = _decode(text)
    except (ValueError, RecursionError):
        pass  # below it is said what is wrong, if anything
    else:
        if type(data) is dict and _plainly_sound(text if isinstance(text, str) else text.decode(), len(data)):
            return data
    try:
        whole = text.decode() if isinstance(text, bytes) else text
        data = _DECODER.decode(whole)
    except json.JSONDecodeError as error:
        start = max(0, error.pos - _SHOWN // 2)
        near = excerpt(error.doc[start : error.pos + _SHOWN // 2], _SHOWN)
        where = "it ends too early" if error.pos >= len(error.doc.rstrip()) else f"near {near!r}"
        msg = f"is not valid JSON: {error.msg} at line {error.lineno} column {error.colno}, {where}"
        raise ValueError(msg) from None
    except UnicodeDecodeError as error:
        msg = f"is not valid JSON: byte {error.start} is not UTF-8"
        raise ValueError(msg) from None
    except RecursionError:
        raise ValueError(_too_deep()) from None
    if whole.count("[") + whole.count("{") > MAX_DEPTH and _deeper(data, MAX_DEPTH):
        raise ValueError(_too_deep())
    return data


def _plainly_sound(text: str, keys: int) -> bool:
    """Whether an object's text shows at a glance that no key comes twice and that nothing is nested deeply.

    With no other object inside, it has a colon for each key, and none more unless a key comes twice or a string holds
    one.
    """
    return text.count("{") == 1 and text.count(":") == keys and text.count("[") < MAX_DEPTH


def _too_deep() -> str:
    return f"is nested too deeply: more than {MAX_DEPTH} levels"


def _deeper(data: Json, most: int) -> bool:
    level: list[Any] = [data]
    for _ in range(most + 1):
        level = [
            child
            for item in level
            for child in (item.values() if isinstance(item, dict) else item if isinstance(item, list) else ())
            if isinstance(child, dict | list)
        ]
        if not level:
            return False
    return True


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) == len(pairs):
        return made
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            msg = f"holds the key {excerpt(key, _SHOWN)!r} twice in one object"
            raise ValueError(msg)
        seen.add(key)
    return made


def _finite(text: str) -> float:
    value = float(text)
    return value if isfinite(value) else _no_number(text)


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:  # Python reads at most 4,300 digits
        return _no_number(text)


def _no_number(text: str) -> NoReturn:
    msg = f"holds the number {excerpt(text, 20)}, which is too large or no number"
    raise ValueError(msg)


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_unique, parse_float=_finite, parse_int=_whole, parse_constant=_no_number
)


def resolve(reference: str, root: Mapping[str, Any]) -> Any:
    """Follow a reference inside one document (``#/$defs/Name``); None when it leads nowhere."""
    found: Any = root
    for step in reference.removeprefix("#").split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if not isinstance(found, dict) or name not in found:
            return None
        found = found[name]
    return found


def faults(value: Any, schema: Mapping[str, Any]) -> Iterator[str]:
    """Check plain JSON data against a schema that somebody wrote by hand.

    Looked at are: type, enum, const, required, properties, additionalProperties, items, anyOf, oneOf, allOf
    and references inside the schema. Other keywords are left to the tool.

    Args:
        value: plain JSON data, nested at most `MAX_DEPTH` deep.
        schema: the schema.

    Yields:
        One sentence for each fault, such as ``"'city' is missing"``; the last may be that it takes too long to look
        at more, for a schema can stand for far more than its text.
    """
    try:
        yield from _faults(value, schema, _Root(schema), "", 0)
    except _TooMuch:
        yield f"the value cannot be checked against its schema within {MAX_STEPS:,} steps; a smaller one may be"


class _TooMuch(Exception):
    """The steps are used up."""


class _Root:
    """The whole schema, and how many steps are left."""

    __slots__ = ("left", "schema")

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self.schema = schema
        self.left = MAX_STEPS

    def step(self, steps: int) -> None:
        self.left -= steps
        if self.left < 0:
            raise _TooMuch


def _faults(value: Any, node: Any, root: _Root, path: str, hops: int) -> Iterator[str]:
    root.step(1)
    if not isinstance(node, dict) or hops > MAX_DEPTH:
        return
    here = repr(path) if path else "the value"
    if isinstance(node.get("$ref"), str):
        yield from _faults(value, resolve(node["$ref"], root.schema), root, path, hops + 1)
    for part in node.get("allOf", ()):
        yield from _faults(value, part, root, path, hops + 1)
    for word in ALTERNATIVES:
        choices = node.get(word)
        if choices and not any(next(_faults(value, choice, root, path, hops + 1), None) is None for choice in choices):
            yield f"{here} fits none of the {len(choices)} forms it may have, got {shown(value)}"
    kinds = node.get("type")
    if kinds is not None:
        allowed = [kinds] if isinstance(kinds, str) else list(kinds)
        if not any(_is(value, kind) for kind in allowed):
            yield f"{here} should be {' or '.join(allowed)}, got {shown(value)}"
            return
    if "enum" in node and not _among(value, node["enum"], root):
        yield f"{here} should be one of {', '.join(shown(choice) for choice in node['enum'])}, got {shown(value)}"
    if "const" in node and not _same(value, node["const"]):
        yield f"{here} should be {shown(node['const'])}, got {shown(value)}"
    if isinstance(value, dict):
        yield from _object_faults(value, node, root, path)
    elif isinstance(value, list) and "items" in node:
        for index, item in enumerate(value):
            yield from _faults(item, node["items"], root, f"{path}[{index}]", 0)


def _among(value: Any, choices: Sequence[Any], root: _Root) -> bool:
    root.step(len(choices))
    return any(_same(value, choice) for choice in choices)


def _object_faults(value: dict[str, Any], node: Mapping[str, Any], root: _Root, path: str) -> Iterator[str]:
    known, others = node.get("properties", {}), node.get("additionalProperties", True)
    for name in node.get("required", ()):
        if name not in value:
            yield f"{joined(path, name)!r} is missing"
    for name, item in value.items():
        if name not in known and others is False:
            yield unknown(joined(path, name), known)
        else:
            yield from _faults(item, known.get(name, others), root, joined(path, name), 0)


def _same(value: Any, other: Any) -> bool:
    return bool(value == other) and isinstance(value, bool) == isinstance(other, bool)


def _is(value: Any, kind: str) -> bool:
    match kind:
        case "object":
            return isinstance(value, dict)
        case "array":
            return isinstance(value, list)
        case "string":
            return isinstance(value, str)
        case "boolean":
            return isinstance(value, bool)
        case "null":
            return value is None
        case "integer":
            return not isinstance(value, bool) and (
                isinstance(value, int) or (isinstance(value, float) and value.is_integer())
            )
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case _:
            return True


def joined(path: str, name: object) -> str:
    """Name a place inside data: ``joined("address", "city")`` is ``"address.city"``."""
    step = excerpt(str(name), _SHOWN)
    return f"{path}.{step}" if path else step


def unknown(path: str, known: Mapping[str, object]) -> str:
    """Say that a property is not known, and which ones are."""
    there = f"known are: {', '.join(known)}" if known else "there are none"
    return f"{path!r} is not known here; {excerpt(there)}"


def shown(value: Any) -> str:
    """Give a short form of plain JSON data for a sentence: at most 60 characters, or what kind of data it is."""
    match value:
        case dict():
            return "an object"
        case list():
            return f"a list of {len(value)}"
        case _:
            return excerpt(json.dumps(value, ensure_ascii=False), _SHOWN)
