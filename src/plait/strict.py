"""JSON Schema as plain data: made tidy, and brought into the strict flavour that providers can enforce.

Knows nothing of Python types (`plait.schema`), nor of what a provider does with a schema.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from plait.shape import ALTERNATIVES, MAX_DEPTH, resolve

if TYPE_CHECKING:
    from collections.abc import Mapping

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
        elif key in ALTERNATIVES:
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
