from __future__ import annotations

from typing import Any, Literal

import pytest
from anthropic import transform_schema
from pydantic import BaseModel, Field

from plait.providers.anthropic_schema import enforced, within_limits
from plait.providers.base import ToolDefinition


class Address(BaseModel):
    """Where somebody lives."""

    street: str = Field(min_length=1, description="With the number.")
    kind: Literal["home", "work"] = "home"
    since: str | None = Field(default=None, json_schema_extra={"format": "date"})


class Person(BaseModel):
    name: str = Field(pattern="^[A-Z]")
    age: int = Field(ge=0, le=150)
    addresses: list[Address] = Field(min_length=2)
    email: str = Field(json_schema_extra={"format": "email"})
    nick: str = Field(json_schema_extra={"format": "nickname"})
    some: list[float] = Field(min_length=1, max_length=3)


class Tree(BaseModel):
    children: list[Tree]


def without_types_of_literals(node: Any) -> Any:
    """The SDK takes the type away where the values are listed; with it the schema says the same."""
    if isinstance(node, dict):
        listed = "enum" in node or "const" in node
        return {key: without_types_of_literals(value) for key, value in node.items() if not (listed and key == "type")}
    return [without_types_of_literals(item) for item in node] if isinstance(node, list) else node


@pytest.mark.parametrize(
    "schema",
    [
        Person.model_json_schema(),
        Address.model_json_schema(),
        {"type": "object", "properties": {}},
        {"type": "object", "properties": {"a": {"type": "integer", "multipleOf": 2}}, "required": ["a"]},
        {"type": "object", "properties": {"a": {"oneOf": [{"type": "null"}, {"type": "boolean"}]}}},
        {"type": "object", "properties": {"a": {"allOf": [{"type": "string"}]}, "b": {"const": 1}}, "title": "T"},
        {"type": "array", "items": {"type": "string", "maxLength": 3}, "minItems": 1, "uniqueItems": True},
        {"$ref": "#/$defs/A", "description": "Not here.", "$defs": {"A": {"type": "string", "format": "odd"}}},
    ],
)
def test_a_schema_is_enforced_in_the_form_that_the_sdk_gives_it(schema: dict[str, Any]) -> None:
    made = enforced(schema)
    assert without_types_of_literals(made) == transform_schema(schema)


def test_what_cannot_be_enforced_is_told() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer", "minimum": 1, "description": "Some."}}}
    made = enforced(schema)
    assert made is not None
    assert made["properties"]["a"] == {"type": "integer", "description": "Some.\n\n{minimum: 1}"}
    assert made["additionalProperties"] is False
    assert schema["properties"]["a"]["minimum"] == 1  # type: ignore[index]  # it is as it was


@pytest.mark.parametrize(
    "schema",
    [
        Tree.model_json_schema(),
        {"$ref": "#/$defs/A", "$defs": {"A": {"anyOf": [{"$ref": "#/$defs/B"}]}, "B": {"$ref": "#/$defs/A"}}},
        {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}},
        {"type": "object", "properties": {"a": {"$ref": "https://x.test/schema"}}},
        {"type": "object"},
        {"type": "object", "additionalProperties": {"type": "integer"}},
        {"type": "object", "properties": {}, "additionalProperties": True},
        {"type": "object", "properties": {"a": {}}},
        {"type": "object", "properties": {"a": True}},
        {"type": "array", "items": {}},
        {},
    ],
)
def test_a_schema_that_leaves_something_open_or_is_recursive_cannot_be_enforced(schema: dict[str, Any]) -> None:
    assert enforced(schema) is None


def test_a_definition_that_is_used_twice_is_not_recursive() -> None:
    made = enforced(
        {
            "type": "object",
            "properties": {"a": {"$ref": "#/$defs/A"}, "b": {"$ref": "#/$defs/B"}},
            "$defs": {"A": {"type": "object", "properties": {"b": {"$ref": "#/$defs/B"}}}, "B": {"type": "string"}},
        }
    )
    assert made is not None
    assert made["$defs"]["B"] == {"type": "string"}


def strict(properties: dict[str, Any], *, strict: bool = True, required: list[str] | None = None) -> ToolDefinition:
    parameters = {
        "type": "object",
        "properties": properties,
        "required": list(properties) if required is None else required,
        "additionalProperties": False,
    }
    return ToolDefinition(name="t", parameters=parameters, strict=strict)


def test_more_than_the_api_enforces_is_not_asked_for() -> None:
    plain, maybe = {"type": "string"}, {"anyOf": [{"type": "string"}, {"type": "null"}]}
    assert within_limits([strict({"a": plain})] * 20, None)
    assert not within_limits([strict({"a": plain})] * 21, None)
    assert within_limits([strict({"a": plain}, strict=False)] * 99, None)
    assert within_limits([strict({str(n): maybe for n in range(16)})], None)
    assert not within_limits([strict({str(n): maybe for n in range(17)})], None)
    assert not within_limits([strict({str(n): {"type": ["string", "null"]} for n in range(17)})], None)
    assert within_limits([strict({str(n): plain for n in range(24)}, required=[])], None)
    assert not within_limits([strict({str(n): plain for n in range(25)}, required=[])], None)
