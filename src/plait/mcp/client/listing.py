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
    from collections.abc import Iterable, Mapping

MAX_SCHEMA: Final = 100_000
"""Bytes of JSON; a model would pay for them in every request."""
MAX_NESTING: Final = 50
MAX_TOOL_NAME: Final = 256


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
    found: Iterable[tuple[str, str, dict[str, Any]]], refused: Mapping[str, str]
) -> tuple[dict[str, Listed], dict[str, str]]:
    """Judge what a server lists; of many tools that takes long, so it is for a thread.

    Args:
        found: name, description and schema of each tool.
        refused: tools that were refused already, with the reason.

    Returns:
        The usable tools by the server's names, and the others with the reason.
    """
    usable: dict[str, Listed] = {}
    reasons = dict(refused)
    for name, description, schema in found:
        try:
            if name in usable:
                msg = "another tool of this server has the same name"
                raise Unusable(msg)  # noqa: TRY301  # one place notes the reasons
            usable[name] = judge(name, description, schema)
        except Unusable as error:
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
    if _nested(schema):
        msg = f"its schema is nested deeper than {MAX_NESTING} levels"
        raise Unusable(msg)
    text = json.dumps(schema, sort_keys=True)
    if len(text) > MAX_SCHEMA:
        msg = f"its schema has {len(text):,} bytes; at most {MAX_SCHEMA:,} are taken"
        raise Unusable(msg)
    if schema.get("type", "object") != "object":
        msg = "its schema has no object at its root"
        raise Unusable(msg)
    _check(schema)
    _follow(schema, schema, (), set())
    pin = sha256(json.dumps([name, description, text]).encode()).hexdigest()
    parameters = {"type": "object", "properties": {}, **visible_schema(schema)}
    return Listed(name=name, description=visible(description), parameters=parameters, pin=pin)


def _nested(schema: dict[str, Any]) -> bool:
    level: list[Any] = [schema]
    for _ in range(MAX_NESTING):
        level = [
            item
            for part in level
            for item in (part.values() if isinstance(part, dict) else part)
            if isinstance(item, dict | list)
        ]
        if not level:
            return False
    return True


def _check(schema: dict[str, Any]) -> None:
    from jsonschema import Draft202012Validator, SchemaError  # type: ignore[import-untyped]  # has no types
    from jsonschema.validators import validator_for  # type: ignore[import-untyped]  # has no types

    try:
        validator_for(schema, default=Draft202012Validator).check_schema(schema)
    except SchemaError as error:
        where = "/".join(map(str, error.absolute_path))
        msg = f"its schema is no JSON Schema{f', at {excerpt(where, 60)!r}' if where else ''}: {excerpt(error.message)}"
        raise Unusable(msg) from None


def _follow(root: dict[str, Any], part: Any, inside: tuple[str, ...], known: set[str]) -> None:
    """Follow every reference once; one that leads back to where it stands has no end."""
    if isinstance(part, list):
        for item in part:
            _follow(root, item, inside, known)
    if not isinstance(part, dict):
        return
    reference = part.get("$ref")
    if isinstance(reference, str) and reference not in known:
        if reference in inside or reference == "#":
            msg = f"its schema is recursive, by {excerpt(reference, 60)!r}"
            raise Unusable(msg)
        target = resolve(reference, root) if reference.startswith("#/") else None
        if target is None:
            msg = f"its schema refers to {excerpt(reference, 60)!r}, which is not in it"
            raise Unusable(msg)
        _follow(root, target, (*inside, reference), known)
        known.add(reference)
    for key, item in part.items():
        if key not in {"$defs", "definitions", "enum", "const", "default", "examples"}:  # definitions: where used
            _follow(root, item, inside, known)
