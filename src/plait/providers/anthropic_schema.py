"""JSON Schemas in the form that Anthropic's API can enforce. Pure functions.

https://docs.anthropic.com/en/docs/build-with-claude/structured-outputs

It takes less of JSON Schema than others do. What it cannot enforce is told to the model in the description instead, as
the official SDK does; the answer is checked here anyway.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from plait.providers.base import ToolDefinition
    from plait.schema import OutputSchema

_FORMATS: Final = ("date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid")
_KEPT_WITH_A_TYPE: Final = (
    *(("string", "format", one) for one in _FORMATS),
    *(("array", "minItems", number) for number in (0, 1)),
)
_KEPT: Final = frozenset(
    {"$ref", "$defs", "type", "enum", "const", "anyOf", "allOf", "description", "title", "properties", "required"}
    | {"additionalProperties", "items"}
)
_REFERENCE: Final = "#/$defs/"

# The most of one request, https://docs.anthropic.com/en/docs/build-with-claude/structured-outputs#schema-complexity-limits
_MOST_STRICT: Final = 20
_MOST_OPTIONAL: Final = 24
_MOST_UNIONS: Final = 16


def enforced(schema: dict[str, Any]) -> dict[str, Any] | None:
    """Give a schema in the form that can be enforced; None for one that cannot: it is recursive, or says no type."""
    try:
        made = _enforced(schema)
    except _Unenforceable:
        return None
    return None if _is_recursive(made) else made


class _Unenforceable(Exception):
    """A schema leaves open what type a value has, or which keys, or refers to what is no definition of it."""


def _enforced(node: Any) -> dict[str, Any]:
    if not isinstance(node, dict):
        raise _Unenforceable
    made: dict[str, Any] = {}
    told: dict[str, Any] = {}
    if "$ref" in node:  # nothing may stand beside it but definitions
        if not str(node["$ref"]).startswith(_REFERENCE):
            raise _Unenforceable  # the whole schema, which is recursion, or what stands elsewhere
        node = {key: node[key] for key in ("$ref", "$defs") if key in node}
    for key, value in node.items():
        match key:
            case "$defs" | "properties" if isinstance(value, dict):
                made[key] = {name: _enforced(child) for name, child in value.items()}
            case "anyOf" | "oneOf" if isinstance(value, list):
                made["anyOf"] = [_enforced(child) for child in value]
            case "allOf" if isinstance(value, list):
                made[key] = [_enforced(child) for child in value]
            case "items":
                made[key] = _enforced(value)
            case _ if key in _KEPT or (node.get("type"), key, value) in _KEPT_WITH_A_TYPE:
                made[key] = value
            case _:
                told[key] = value
    if not made.keys() & {"type", "anyOf", "allOf", "enum", "const", "$ref"}:
        raise _Unenforceable
    if made.get("type") == "object":
        if made.get("additionalProperties", "properties" not in made) is not False:
            raise _Unenforceable  # keys of any name
        made["additionalProperties"] = False
    if told:
        said = "{" + ", ".join(f"{key}: {value}" for key, value in told.items()) + "}"
        made["description"] = f"{made['description']}\n\n{said}" if made.get("description") else said
    return made


def _is_recursive(schema: dict[str, Any]) -> bool:
    """Whether a definition needs itself."""
    definitions = schema.get("$defs", {})
    needs = {name: set(_references(node)) for name, node in definitions.items()}
    for name, first in needs.items():
        seen: set[str] = set()
        ahead = first
        while ahead:
            seen |= ahead
            ahead = {further for one in ahead for further in needs.get(one, ())} - seen
        if name in seen:
            return True
    return False


def _references(node: Any) -> Iterator[str]:
    for one in _nodes(node):
        target = one.get("$ref")
        if isinstance(target, str):
            yield target.removeprefix(_REFERENCE)


def _nodes(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _nodes(child)


def within_limits(tools: Sequence[ToolDefinition], output: OutputSchema[Any] | None) -> bool:
    """Whether the API may be asked to enforce all of a request's strict tools: it refuses a request with too many.

    Most tools are strict because they can be, not because somebody wanted it, and what a model calls them with is
    checked here in any case.
    """
    schemas = [tool.parameters for tool in tools if tool.strict]
    everything = schemas if output is None else [*schemas, output.schema]
    nodes = [node for schema in everything for node in _nodes(schema)]
    return len(schemas) <= _MOST_STRICT and _unions(nodes) <= _MOST_UNIONS and _optional(nodes) <= _MOST_OPTIONAL


def _unions(nodes: Iterable[dict[str, Any]]) -> int:
    return sum("anyOf" in node or "oneOf" in node or isinstance(node.get("type"), list) for node in nodes)


def _optional(nodes: Iterable[dict[str, Any]]) -> int:
    return sum(
        len(node["properties"].keys() - set(node.get("required", ())))
        for node in nodes
        if isinstance(node.get("properties"), dict)
    )
