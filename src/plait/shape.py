"""JSON and JSON Schema as plain data: reading JSON within bounds, the strict flavour, checking a value.

Knows nothing of Python types, functions or tools (`plait.schema`), nor of what a provider does with a schema.
"""

from __future__ import annotations

import json
from math import isfinite
from typing import TYPE_CHECKING, Any, Final, NoReturn

from plait.errors import excerpt

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Json = dict[str, Any] | list[Any] | str | int | float | bool | None

MAX_TEXT: Final = 500_000
"""Characters of JSON that one tool call may carry; about as much as a model can write in one answer."""
MAX_DEPTH: Final = 100
"""How deep lists and objects may be nested."""
_SHOWN: Final = 60
_ALTERNATIVES: Final = ("anyOf", "oneOf")

# What OpenAI's strict mode takes, https://platform.openai.com/docs/guides/structured-outputs (supported schemas).
_STRICT_FORMATS: Final = frozenset(
    {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"}
)
_STRICT_DROPPED: Final = frozenset(
    {"title", "default", "examples", "uniqueItems", "deprecated", "writeOnly", "discriminator"}
)
_STRICT_TOLD: Final = {
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minProperties": "at least {} entries",
    "maxProperties": "at most {} entries",
}
_STRICT_KEPT: Final = frozenset(
    {"type", "enum", "const", "description", "multipleOf", "minimum", "maximum", "exclusiveMinimum"}
    | {"exclusiveMaximum", "minItems", "maxItems", "required", "additionalProperties"}
)


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
    try:
        whole = text.decode() if isinstance(text, bytes) else text
        data: Json = _DECODER.decode(whole)
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


def tidy(schema: dict[str, Any]) -> dict[str, Any]:
    """Give a schema without the titles that generators put on every property; the order of keys is kept."""
    made: dict[str, Any] = _tidy(schema)
    return made


def _tidy(node: Any) -> Any:
    if isinstance(node, list):
        return [_tidy(item) for item in node]
    if not isinstance(node, dict):
        return node
    made: dict[str, Any] = {}
    for key, value in node.items():
        if key in {"properties", "$defs"} and isinstance(value, dict):
            made[key] = {name: _tidy(child) for name, child in value.items()}  # here a title is a name
        elif key in {"default", "const", "enum", "examples"}:
            made[key] = value
        elif key != "title":
            made[key] = _tidy(value)
    return made


def resolve(reference: str, root: Mapping[str, Any]) -> Any:
    """Follow a reference inside one document (``#/$defs/Name``); None when it leads nowhere."""
    found: Any = root
    for step in reference.removeprefix("#").split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if not isinstance(found, dict) or name not in found:
            return None
        found = found[name]
    return found


def takes_null(node: Any, root: Mapping[str, Any], depth: int = 0) -> bool:
    """Whether a value of this schema may be null."""
    if not isinstance(node, dict) or depth > MAX_DEPTH:
        return False
    kind = node.get("type")
    if kind == "null" or (isinstance(kind, list) and "null" in kind):
        return True
    if "const" in node or "enum" in node:
        return node.get("const", 0) is None or None in node.get("enum", ())
    if "$ref" in node:
        return takes_null(resolve(node["$ref"], root), root, depth + 1)
    choices = node.get("anyOf") or node.get("oneOf")
    if choices:
        return any(takes_null(choice, root, depth + 1) for choice in choices)
    return kind is None and "properties" not in node


class _NotStrictError(Exception):
    """There is no strict form."""


def strict_form(schema: dict[str, Any]) -> dict[str, Any] | None:
    """Give the strict flavour of a schema: every property required, optional ones nullable, no others allowed.

    A null given for a property that was made nullable means "not given" (`without_nulls`). What strict mode
    does not know (defaults, lengths) is told in the description instead.

    Returns:
        The strict schema, or None where there is none: mappings with free keys, values of any type, tuples.

    The rules are OpenAI's, https://platform.openai.com/docs/guides/structured-outputs.
    """
    try:
        made = _strict(schema, schema)
        if made.get("type") != "object" or "properties" not in made:
            return None
        used = _references(made, schema)
        if used:
            defined = schema["$defs"].items()
            made["$defs"] = {name: _strict(node, schema) for name, node in defined if f"#/$defs/{name}" in used}
    except _NotStrictError:
        return None
    return made


def _references(made: Any, root: dict[str, Any]) -> set[str]:
    """Find every reference in a schema, and in what it refers to."""
    found: set[str] = set()
    waiting: list[Any] = [made]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            reference = node.get("$ref")
            if isinstance(reference, str) and reference not in found:
                found.add(reference)
                waiting.append(resolve(reference, root))
            waiting.extend(node.values())
        elif isinstance(node, list):
            waiting.extend(node)
    return found


def _strict(node: Any, root: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(node, dict):
        raise _NotStrictError
    if "$ref" in node:
        return _strict_reference(node, root)
    made: dict[str, Any] = {}
    told: list[str] = []
    for key, value in node.items():
        if key == "properties":
            made["properties"] = {name: _strict_property(name, child, node, root) for name, child in value.items()}
        elif key == "items":
            made["items"] = _strict(value, root)
        elif key in _ALTERNATIVES:
            made["anyOf"] = [_strict(choice, root) for choice in value]
        elif (key == "format" and value in _STRICT_FORMATS) or (key == "pattern" and "(?" not in value):
            made[key] = value
        elif key in _STRICT_TOLD:
            told.append(_STRICT_TOLD[key].format(value))
        elif key in _STRICT_KEPT:
            made[key] = value
        elif key not in _STRICT_DROPPED | {"format", "pattern", "$defs"}:
            raise _NotStrictError
    if node.get("type") == "object":
        if "properties" not in node or node.get("additionalProperties", False) is not False:
            raise _NotStrictError
        made["required"] = list(node["properties"])
        made["additionalProperties"] = False
    elif not made.keys() & {"type", "anyOf", "enum", "const"} or (made.get("type") == "array" and "items" not in made):
        raise _NotStrictError
    return _described(made, told)


def _strict_reference(node: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    """Strict mode takes a reference only alone: with anything beside it, what it names is put in its place."""
    beside = {key: value for key, value in node.items() if key not in {"$ref", "$defs", "default"}}
    if not beside and "$defs" not in node:
        return {"$ref": node["$ref"]}
    named = resolve(node["$ref"], root)
    if not isinstance(named, dict) or "$ref" in named:
        raise _NotStrictError
    return _strict({**named, **beside}, root)


def _strict_property(name: str, node: Any, parent: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    made = _strict(node, root)
    if name in parent.get("required", ()):
        return made
    default = node.get("default")
    told = [] if default is None else [f"default: {json.dumps(default, ensure_ascii=False)}"]
    if takes_null(node, root):
        return _described(made, told)
    description = {"description": made.pop("description")} if "description" in made else {}
    return _described({"anyOf": [made, {"type": "null"}], **description}, told)


def _described(made: dict[str, Any], told: list[str]) -> dict[str, Any]:
    if told:
        made["description"] = f"{made.get('description', '')} ({', '.join(told)})".lstrip()
    return made


def without_nulls(value: Any, schema: dict[str, Any]) -> Any:
    """Give the value without the nulls that mean "not given": those of optional properties that take no null.

    Args:
        value: plain JSON data, nested at most `MAX_DEPTH` deep.
        schema: the ordinary schema, not its strict form.
    """
    return _without_nulls(value, schema, schema)


def _without_nulls(value: Any, node: Any, root: dict[str, Any]) -> Any:
    if not isinstance(value, dict | list):
        return value
    node = _meant(node, value, root)
    if isinstance(value, list):
        return [_without_nulls(item, node.get("items"), root) for item in value]
    known, needed, others = node.get("properties", {}), node.get("required", ()), node.get("additionalProperties")
    return {
        key: _without_nulls(item, known.get(key, others), root)
        for key, item in value.items()
        if item is not None or key not in known or key in needed or takes_null(known[key], root)
    }


def _meant(node: Any, value: dict[str, Any] | list[Any], root: dict[str, Any]) -> dict[str, Any]:
    """Find the schema, behind references and alternatives, that the object or list was written for."""
    waiting, possible = [node], []
    for _ in range(MAX_DEPTH):
        this = waiting.pop(0) if waiting else None
        if not isinstance(this, dict):
            continue
        if "$ref" in this:
            waiting.append(resolve(this["$ref"], root))
        elif choices := this.get("anyOf") or this.get("oneOf"):
            waiting.extend(choices)
        elif this.get("type") == ("array" if isinstance(value, list) else "object"):
            possible.append(this)
    for this in possible:
        if isinstance(value, list) or value.keys() <= this.get("properties", value).keys():
            return this
    return possible[0] if possible else {}


def faults(value: Any, schema: Mapping[str, Any]) -> Iterator[str]:
    """Check plain JSON data against a schema that somebody wrote by hand.

    Looked at are: type, enum, const, required, properties, additionalProperties, items, anyOf, oneOf, allOf
    and references inside the schema. Other keywords are left to the tool.

    Args:
        value: plain JSON data, nested at most `MAX_DEPTH` deep.
        schema: the schema.

    Yields:
        One sentence for each fault, such as ``"'city' is missing"``.
    """
    yield from _faults(value, schema, schema, "", 0)


def _faults(value: Any, node: Any, root: Mapping[str, Any], path: str, hops: int) -> Iterator[str]:
    if not isinstance(node, dict) or hops > MAX_DEPTH:
        return
    here = repr(path) if path else "the value"
    if isinstance(node.get("$ref"), str):
        yield from _faults(value, resolve(node["$ref"], root), root, path, hops + 1)
    for part in node.get("allOf", ()):
        yield from _faults(value, part, root, path, hops + 1)
    for word in _ALTERNATIVES:
        choices = node.get(word)
        if choices and not any(next(_faults(value, choice, root, path, hops + 1), None) is None for choice in choices):
            yield f"{here} fits none of the {len(choices)} forms it may have, got {shown(value)}"
    kinds = node.get("type")
    if kinds is not None:
        allowed = [kinds] if isinstance(kinds, str) else list(kinds)
        if not any(_is(value, kind) for kind in allowed):
            yield f"{here} should be {' or '.join(allowed)}, got {shown(value)}"
            return
    if "enum" in node and not any(_same(value, choice) for choice in node["enum"]):
        yield f"{here} should be one of {', '.join(shown(choice) for choice in node['enum'])}, got {shown(value)}"
    if "const" in node and not _same(value, node["const"]):
        yield f"{here} should be {shown(node['const'])}, got {shown(value)}"
    if isinstance(value, dict):
        yield from _object_faults(value, node, root, path)
    elif isinstance(value, list) and "items" in node:
        for index, item in enumerate(value):
            yield from _faults(item, node["items"], root, f"{path}[{index}]", 0)


def _object_faults(
    value: dict[str, Any], node: Mapping[str, Any], root: Mapping[str, Any], path: str
) -> Iterator[str]:
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
