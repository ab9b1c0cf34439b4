"""What a server says of a tool, judged: usable, or refused with the reason; and its pin, by which a change is seen.

Pure, but for the checker of JSON Schemas, which comes with the SDK and is loaded when the first tool is judged.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from plait.errors import excerpt
from plait.mcp.client.names import visible, visible_schema
from plait.shape import resolve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

MAX_TOOLS: Final = 1_000
"""Tools of one server that are looked at."""
MAX_SCHEMA: Final = 100_000
"""Bytes of JSON; a model would pay for them in every request."""
MAX_NESTING: Final = 50
MAX_VALUES: Final = 5_000
"""Values within one schema: objects, lists, texts, numbers. The checker of schemas needs about 0.1 ms for each."""
MAX_ALL_VALUES: Final = 100_000
"""Values within all schemas of a server."""
MAX_EXPANDED: Final = 10_000
"""Values of a schema with every reference replaced by what it refers to: so much is walked for one argument."""
MAX_REFUSED: Final = 100
"""Tools of which the reason is kept; of more, they are counted."""
MAX_TOOL_NAME: Final = 256
_MAPS: Final = frozenset({"properties", "patternProperties", "dependentSchemas"})
"""Keywords whose keys are names, not keywords."""
_APART: Final = frozenset({"$defs", "definitions", "enum", "const", "default", "examples"})
"""Keywords with no schema in them; definitions are followed from where they are used."""
_FLAT: Final = frozenset({"string", "number", "integer", "boolean", "array"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A tool as its server lists it.

    Attributes:
        name: the server's name for it.
        description: its description, made visible and cut.
        parameters: its JSON Schema; the texts in it made visible.
        pin: a hash of name, description and schema as the server gave them.
    """

    name: str
    description: str
    parameters: dict[str, Any]
    pin: str


class Unusable(Exception):
    """The tool cannot be offered to a model; the message is the reason."""


def judge_all(
    found: Iterable[tuple[str, str, dict[str, Any]]], refused: Mapping[str, str], is_over: Callable[[], bool]
) -> tuple[dict[str, Listed], dict[str, str]]:
    """Judge what a server lists; of many tools that takes long, so it is for a thread.

    Args:
        found: name, description and schema of each tool.
        refused: tools that were refused already, with the reason.
        is_over: whether nobody waits for it any more.

    Returns:
        The usable tools by the server's names, and the first `MAX_REFUSED` others with the reason.
    """
    usable: dict[str, Listed] = {}
    reasons = dict(refused)
    room = MAX_ALL_VALUES
    for name, description, schema in found:
        if is_over():
            break
        try:
            if name in usable:
                msg = "another tool of this server has the same name"
                raise Unusable(msg)  # noqa: TRY301  # one place notes the reasons
            room -= count(schema)
            if room < 0:
                msg = f"with it, the schemas of this server hold more than {MAX_ALL_VALUES:,} values"
                raise Unusable(msg)  # noqa: TRY301
            usable[name] = judge(name, description, schema)
        except Unusable as error:
            if len(reasons) < MAX_REFUSED:
                reasons[excerpt(name, MAX_TOOL_NAME)] = str(error)
    return usable, reasons


def judge(name: str, description: str, schema: dict[str, Any]) -> Listed:
    """Give a tool that can be offered to a model.

    Raises:
        Unusable: it cannot.
    """
    if not name or len(name) > MAX_TOOL_NAME:
        msg = f"its name has {len(name)} characters; 1 to {MAX_TOOL_NAME} are taken"
        raise Unusable(msg)
    text = _read(schema)
    if schema.get("type", "object") != "object":
        msg = "its schema has no object at its root"
        raise Unusable(msg)
    _check(schema)
    _follow(schema)
    pin = sha256(json.dumps([name, description, text]).encode()).hexdigest()
    parameters = {"type": "object", "properties": {}, **visible_schema(schema)}
    return Listed(name=name, description=visible(description), parameters=parameters, pin=pin)


def judge_question(schema: dict[str, Any]) -> None:
    """Judge what a server asks a person: flat fields, as the protocol has them, and nothing that refers to anything.

    Raises:
        Unusable: it is something else.
    """
    _read(schema)
    fields = schema.get("properties", {})
    flat = isinstance(fields, dict) and all(_is_flat(field) for field in fields.values())
    if not flat or not schema.keys() <= {"$schema", "type", "title", "description", "properties", "required"}:
        msg = "its schema is not one of flat fields"
        raise Unusable(msg)
    _check(schema)


def _is_flat(field: Any) -> bool:
    """Whether a field is plain; one for several choices is a list of plain ones."""
    if not isinstance(field, dict) or field.get("type") not in _FLAT or field.keys() & {"$ref", "allOf", "properties"}:
        return False
    choices = [
        choice
        for part in (field, field.get("items", {}))
        for word in ("oneOf", "anyOf")
        for choice in (part.get(word, []) if isinstance(part, dict) else [part])
    ]
    return all(isinstance(choice, dict) and choice.keys() <= {"const", "title", "description"} for choice in choices)


def count(schema: dict[str, Any]) -> int:
    """How many values a schema holds.

    Raises:
        Unusable: it is nested too deeply.
    """
    level: list[Any] = [schema]
    held = 1
    for _ in range(MAX_NESTING):
        below = [item for part in level for item in (part.values() if isinstance(part, dict) else part)]
        held += len(below)
        level = [item for item in below if isinstance(item, dict | list)]
        if not level:
            return held
    msg = f"its schema is nested deeper than {MAX_NESTING} levels"
    raise Unusable(msg)


def _read(schema: dict[str, Any]) -> str:
    """Give a schema as JSON, if it is within the bounds."""
    held = count(schema)
    try:
        text = json.dumps(schema, sort_keys=True, allow_nan=False)
    except ValueError:
        msg = "its schema holds a number that JSON cannot hold"
        raise Unusable(msg) from None
    if len(text) > MAX_SCHEMA:
        msg = f"its schema has {len(text):,} bytes; at most {MAX_SCHEMA:,} are taken"
        raise Unusable(msg)
    if held > MAX_VALUES:
        msg = f"its schema holds {held:,} values; at most {MAX_VALUES:,} are taken"
        raise Unusable(msg)
    return text


def _check(schema: dict[str, Any]) -> None:
    from jsonschema import Draft202012Validator, SchemaError  # type: ignore[import-untyped]  # has no types
    from jsonschema.validators import validator_for  # type: ignore[import-untyped]  # has no types

    try:
        validator_for(schema, default=Draft202012Validator).check_schema(schema)
    except SchemaError as error:
        where = "/".join(map(str, error.absolute_path))
        msg = f"its schema is no JSON Schema{f', at {excerpt(where, 60)!r}' if where else ''}: {excerpt(error.message)}"
        raise Unusable(msg) from None
    except Exception as error:  # noqa: BLE001  # foreign: addresses and patterns in schemas break it in many ways
        msg = f"its schema cannot be checked ({type(error).__name__})"
        raise Unusable(msg) from None


@dataclass(slots=True)
class _Part:
    """What a reference leads to.

    Attributes:
        size: its values, with what its references lead to as far as that is counted.
        references: those that are not counted yet.
    """

    size: int
    references: list[str]


def _follow(root: dict[str, Any]) -> None:
    """Follow every reference once, and count what they stand for; one that leads back to where it stands has no end."""
    sizes: dict[str, int] = {}
    inside = {"#": _part(root)}  # from the root to where we are
    read = inside["#"].size
    while inside:
        here, part = next(reversed(inside.items()))
        if part.size > MAX_EXPANDED or read > MAX_EXPANDED:
            msg = f"its schema stands for more than {MAX_EXPANDED:,} values, once its references are followed"
            raise Unusable(msg)
        if not part.references:
            sizes[here] = part.size
            del inside[here]
            continue
        reference = part.references[-1]
        if reference in sizes:
            part.references.pop()
            part.size += sizes[reference]
            continue
        if reference in inside:
            msg = f"its schema is recursive, by {excerpt(reference, 60)!r}"
            raise Unusable(msg)
        target = resolve(reference, root) if reference.startswith("#/") else None
        if target is None:
            msg = f"its schema refers to {excerpt(reference, 60)!r}, which is not in it"
            raise Unusable(msg)
        inside[reference] = _part(target)
        read += inside[reference].size


def _part(schema: Any) -> _Part:
    part = _Part(0, [])
    left: list[tuple[Any, bool]] = [(schema, False)]
    while left:
        item, is_map = left.pop()
        part.size += 1
        if isinstance(item, list):
            left += [(inner, False) for inner in item]
        elif isinstance(item, dict):
            if not is_map and isinstance(reference := item.get("$ref"), str):
                part.references.append(reference)
            left += [(inner, not is_map and key in _MAPS) for key, inner in item.items() if is_map or key not in _APART]
    return part
