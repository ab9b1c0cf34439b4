from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import typing
from dataclasses import dataclass
from datetime import date
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, Literal, NotRequired, Optional, Union

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AfterValidator, BaseModel, Field, Json, field_validator
from typing_extensions import TypedDict

from plait.errors import ConfigurationError, OutputInvalid, ToolError
from plait.schema import FunctionSchema, function_schema, output_schema

if TYPE_CHECKING:
    from collections.abc import Callable

    from somewhere_else import Context  # type: ignore[import-not-found]  # never imported at run time


def nothing_injected(name: str, annotation: Any) -> str | None:
    return None


def injector(name: str, annotation: Any) -> str | None:
    return "user" if name == "user_id" else "context" if annotation == "Context" else None


def read(function: Callable[..., Any], **options: Any) -> FunctionSchema:
    return function_schema(function, nothing_injected, **options)


class Unit(Enum):
    CELSIUS = "C"
    FAHRENHEIT = "F"


class Address(BaseModel):
    """Where somebody lives."""

    city: str
    zip: str = "0000"


class Node(BaseModel):
    name: str
    child: Node | None = None


@dataclass
class Point:
    x: int
    y: float = 0.5


class Options(TypedDict):
    size: int
    color: NotRequired[str]


class OldOptions(typing.TypedDict, total=False):
    size: typing.Required[int]
    color: str


def test_a_plain_function_gives_the_strict_flavour() -> None:
    def get_weather(city: str, days: int = 3) -> str:
        """Get the weather."""
        return f"{city}{days}"

    schema = read(get_weather)
    assert (schema.name, schema.description, schema.strict) == ("get_weather", "Get the weather.", True)
    assert schema.parameters == {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "days": {"anyOf": [{"type": "integer"}, {"type": "null"}], "description": "(default: 3)"},
        },
        "required": ["city", "days"],
        "additionalProperties": False,
    }


def test_the_ordinary_flavour_keeps_optional_parameters_and_defaults() -> None:
    def find(city: str, days: int = 3, unit: Unit = Unit.CELSIUS) -> None: ...

    schema = read(find, strict=False)
    assert schema.strict is False
    assert schema.parameters == schema.ordinary == read(find).ordinary
    assert schema.parameters == {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer", "default": 3},
            "unit": {"$ref": "#/$defs/Unit", "default": "C"},
        },
        "required": ["city"],
        "additionalProperties": False,
        "$defs": {"Unit": {"enum": ["C", "F"], "type": "string"}},
    }


STRING, NULL = {"type": "string"}, {"type": "null"}


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (int | None, {"anyOf": [{"type": "integer"}, NULL]}),
        (Optional[int], {"anyOf": [{"type": "integer"}, NULL]}),  # noqa: UP045  # the old spelling is a case
        (Union[int, str], {"anyOf": [{"type": "integer"}, STRING]}),  # noqa: UP007
        (Literal["a", "b"], {"enum": ["a", "b"], "type": "string"}),
        (Unit, {"$ref": "#/$defs/Unit"}),
        (list[Point], {"type": "array", "items": {"$ref": "#/$defs/Point"}}),
        (Address, {"$ref": "#/$defs/Address"}),
        (Options, {"$ref": "#/$defs/Options"}),
        (OldOptions, {"$ref": "#/$defs/OldOptions"}),
        (set[str], {"type": "array", "items": STRING}),
        (date, {"type": "string", "format": "date"}),
        (bool, {"type": "boolean"}),
        (Annotated[int, Field(ge=1)], {"type": "integer", "minimum": 1}),
        (Annotated[str, Field(min_length=2)], {"type": "string", "description": "(at least 2 characters)"}),
        (Annotated[int, "how many"], {"type": "integer", "description": "how many"}),
        (Annotated[Address, Field(description="home")], None),
    ],
)
def test_each_kind_of_annotation_has_a_strict_form(annotation: Any, expected: dict[str, Any] | None) -> None:
    def use(it): ...  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202  # its type is this test's parameter

    use.__annotations__["it"] = annotation
    schema = read(use)
    assert schema.strict is True
    assert schema.parameters["required"] == ["it"]
    inlined = {  # strict mode takes nothing beside a reference
        "description": "home",
        "type": "object",
        "properties": {"city": STRING, "zip": {"anyOf": [STRING, NULL], "description": '(default: "0000")'}},
        "required": ["city", "zip"],
        "additionalProperties": False,
    }
    assert schema.parameters["properties"]["it"] == (inlined if expected is None else expected)


def test_strict_mode_goes_into_definitions() -> None:
    def use(options: OldOptions, node: Node) -> None: ...

    defined = read(use).parameters["$defs"]
    assert defined == {
        "OldOptions": {
            "type": "object",
            "properties": {"size": {"type": "integer"}, "color": {"anyOf": [STRING, NULL]}},
            "required": ["size", "color"],
            "additionalProperties": False,
        },
        "Node": {
            "type": "object",
            "properties": {"name": STRING, "child": {"anyOf": [{"$ref": "#/$defs/Node"}, NULL]}},
            "required": ["name", "child"],
            "additionalProperties": False,
        },
    }


@pytest.mark.parametrize("annotation", [dict[str, int], dict, Any, list[Any], tuple[int, str]])
def test_what_has_no_strict_form_keeps_its_ordinary_one(annotation: Any) -> None:
    def use(it, more: int = 1): ...  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202  # as above

    use.__annotations__["it"] = annotation
    schema = read(use)
    assert schema.strict is False
    assert schema.parameters["required"] == ["it"]
    assert schema.parameters["properties"]["more"] == {"type": "integer", "default": 1}
    with pytest.raises(ConfigurationError, match="'use' has no strict schema"):
        read(use, strict=True)


def test_a_mapping_of_numbers_says_what_its_values_are() -> None:
    def use(scores: dict[str, int]) -> None: ...

    schema = read(use)
    assert schema.parameters["properties"]["scores"] == {"type": "object", "additionalProperties": {"type": "integer"}}
    assert schema.validate('{"scores": {"a": 1}}') == {"scores": {"a": 1}}


@pytest.mark.parametrize(
    "docstring",
    [
        "Do it.\n\nSlowly.\n\nArgs:\n    x: The x\n        of it.\n    y (int): The y.\n\nReturns:\n    None",
        "Do it.\n\nSlowly.\n\nParameters\n----------\nx : str\n    The x\n    of it.\ny : int\n    The y.\n",
        "Do it.\n\nSlowly.\n\n:param x: The x\n    of it.\n:param int y: The y.\n:returns: None",
    ],
)
def test_docstrings_of_every_style_describe_the_parameters(docstring: str) -> None:
    def use(x: str, y: int = 1) -> None: ...

    use.__doc__ = docstring
    schema = read(use)
    assert schema.description == "Do it.\n\nSlowly."
    properties = schema.parameters["properties"]
    assert properties["x"] == {"type": "string", "description": "The x of it."}
    assert properties["y"]["description"] == "The y. (default: 1)"


def test_a_field_says_more_than_the_docstring() -> None:
    def use(x: Annotated[str, Field(description="from the field")], y: int = Field(default=4, ge=1)) -> None:
        """Do it.

        Args:
            x: from the docstring
            y: the y
        """

    schema = read(use)
    assert schema.parameters["properties"]["x"]["description"] == "from the field"
    assert schema.parameters["properties"]["y"]["description"] == "the y (default: 4)"
    assert schema.validate('{"x": "a"}') == {"x": "a", "y": 4}
    with pytest.raises(ToolError, match="'y' should be greater than or equal to 1"):
        schema.validate('{"x": "a", "y": 0}')


@pytest.mark.parametrize(("docstring", "imported"), [("Do it.", "False"), ("Do it.\n\nArgs:\n    x: The x.", "True")])
def test_docstring_parser_is_imported_only_for_a_docstring_with_parameters(docstring: str, imported: str) -> None:
    code = (
        "import sys\nfrom plait.schema import function_schema\n"
        f"def f(x: int):\n    {docstring!r}\n"
        "function_schema(f, lambda name, kind: None)\n"
        "print('docstring_parser' in sys.modules)\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, check=True, timeout=45, env=_environment(), capture_output=True, text=True)
    assert done.stdout.strip() == imported


def test_the_schema_has_the_same_bytes_in_every_process() -> None:
    code = (
        "import json\nfrom plait.schema import function_schema\n"
        "def f(tags: set[str] = {'a', 'b', 'c', 'd'}, more: frozenset[str] = frozenset('efgh')): ...\n"
        "print(json.dumps(function_schema(f, lambda name, kind: None).parameters))\n"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", code], check=True, timeout=45, env=_environment(seed), capture_output=True
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(seen) == 1


def _environment(seed: str = "0") -> dict[str, str]:
    return {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}


def test_star_parameters_are_refused_by_name() -> None:
    def spread(*names: str) -> None: ...

    def options(**flags: str) -> None: ...

    def first(x: int, /) -> None: ...

    with pytest.raises(ConfigurationError, match=r"tool 'spread': the parameter '\*names' has no form"):
        read(spread)
    with pytest.raises(ConfigurationError, match=r"tool 'options': the parameter '\*\*flags' has no form"):
        read(options)
    with pytest.raises(ConfigurationError, match="tool 'first': the parameter 'x' is positional-only"):
        read(first)


class Socket:
    pass


def test_a_parameter_without_a_form_in_json_is_refused_by_name() -> None:
    def send(text: str, to: Socket) -> None: ...

    def later(text: str, then: typing.Callable[[], None]) -> None: ...

    with pytest.raises(ConfigurationError, match="tool 'send': the parameter 'to' has a type without a form in JSON"):
        read(send)
    with pytest.raises(ConfigurationError, match="tool 'later': the parameter 'then' has a type without a form"):
        read(later)


def test_an_annotation_that_cannot_be_resolved_is_refused_by_name() -> None:
    def use(it: Missing) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(ConfigurationError, match="annotation 'Missing' of the parameter 'it' cannot be resolved"):
        read(use)


def test_types_defined_in_a_running_function_are_found() -> None:
    class Local(BaseModel):
        x: int

    def outer_use(it: Local, many: list[Local]) -> None: ...

    value = read(outer_use).validate('{"it": {"x": 1}, "many": [{"x": 2}]}')
    assert value == {"it": Local(x=1), "many": [Local(x=2)]}


def test_injected_parameters_are_not_in_the_schema_and_never_from_the_model() -> None:
    def use(city: str, user_id: str, where: Context, days: int = 1) -> None: ...

    schema = function_schema(use, injector)
    assert schema.injected == (("user_id", "user"), ("where", "context"))
    assert list(schema.parameters["properties"]) == ["city", "days"]
    assert schema.parameters["required"] == ["city", "days"]
    assert schema.validate('{"city": "Bonn", "user_id": "root", "where": {}}') == {"city": "Bonn"}


def test_methods_partials_and_callable_objects() -> None:
    class Shop:
        def buy(self, item: str, count: int = 1) -> None:
            """Buy something."""

        def __call__(self, item: str) -> None: ...

    shop = Shop()
    method = read(shop.buy)
    assert (method.name, method.description) == ("buy", "Buy something.")
    assert list(method.parameters["properties"]) == ["item", "count"]
    unbound = read(Shop.buy, skip_first=True)
    assert list(unbound.parameters["properties"]) == ["item", "count"]
    fixed = read(functools.partial(shop.buy, count=5))
    assert (fixed.name, fixed.description, list(fixed.parameters["properties"])) == ("buy", "Buy something.", ["item"])
    assert list(read(functools.partial(shop.buy, "tea")).parameters["properties"]) == ["count"]
    called = read(shop)
    assert (called.name, list(called.parameters["properties"])) == ("Shop", ["item"])


def test_the_second_time_is_a_look_up_and_wrappers_have_their_own() -> None:
    def use(x: int) -> None: ...

    @functools.wraps(use)
    def wrapper(x: int) -> None: ...

    schema = read(use)
    assert read(use) is schema
    assert read(wrapper) is not schema
    assert read(wrapper) is read(wrapper)
    assert read(use, strict=False).strict is False


def test_parameter_names_may_be_anything_python_allows() -> None:
    def use(model_config: str, json: str, _hidden: int, copy: bool = False) -> None: ...

    given = '{"model_config": "a", "json": "b", "_hidden": 1, "copy": true}'
    assert read(use).validate(given) == {"model_config": "a", "json": "b", "_hidden": 1, "copy": True}


def weather(city: str, days: int = 3, home: Address | None = None, *, points: list[Point] | None = None) -> None: ...


def test_arguments_become_python_values() -> None:
    given = '{"city": "Bonn", "days": 2, "home": {"city": "Ulm"}, "points": [{"x": 1, "y": 2}]}'
    assert read(weather).validate(given) == {
        "city": "Bonn",
        "days": 2,
        "home": Address(city="Ulm"),
        "points": [Point(1, 2.0)],
    }


def test_null_means_the_default_where_strict_mode_made_it_nullable() -> None:
    given = '{"city": "Bonn", "days": null, "home": {"city": "Ulm", "zip": null}, "points": [{"x": 1, "y": null}]}'
    assert read(weather).validate(given) == {
        "city": "Bonn",
        "home": Address(city="Ulm", zip="0000"),
        "points": [Point(1, 0.5)],
    }
    assert read(weather).validate('{"city": "Bonn", "home": null}') == {"city": "Bonn", "home": None}


def test_null_for_a_required_parameter_is_wrong() -> None:
    with pytest.raises(ToolError, match=r"^wrong arguments for 'weather': 'city' should be a valid string, got null$"):
        read(weather).validate('{"city": null}')


@pytest.mark.parametrize("text", ["", "  \n", "null", "{}", b""])
def test_no_arguments_are_an_empty_object(text: str | bytes) -> None:
    def now(zone: str = "UTC") -> None: ...

    assert read(now).validate(text) == {}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "wrong arguments for 'weather': 'city' is missing"),
        ('{"city": 1}', "wrong arguments for 'weather': 'city' should be a valid string, got 1"),
        (
            '{"city": "a", "days": "many"}',
            (
                "wrong arguments for 'weather': 'days' should be a valid integer, unable to parse string as an "
                'integer, got "many"'
            ),
        ),
        (
            '{"city": "a", "town": "b"}',
            "wrong arguments for 'weather': 'town' is not known here; known are: city, days, home, points",
        ),
        (
            '{"city": "a", "home": {}, "points": [{"x": "b"}]}',
            (
                "wrong arguments for 'weather': 'home.city' is missing; 'points[0].x' should be a valid integer, "
                'unable to parse string as an integer, got "b"'
            ),
        ),
        ("[]", "wrong arguments for 'weather': it should be an object, got a list of 0"),
        ('"city"', "wrong arguments for 'weather': it should be an object, got \"city\""),
        (
            '{"city": "a"',
            (
                "the text of the arguments of 'weather' is not valid JSON: Expecting ',' delimiter at line 1 column "
                "13, it ends too early"
            ),
        ),
        (
            "{city: 'a'}",
            (
                "the text of the arguments of 'weather' is not valid JSON: Expecting property name enclosed in double "
                "quotes at line 1 column 2, near \"{city: 'a'}\""
            ),
        ),
        (
            '{"city": "a", "city": "b"}',
            "the text of the arguments of 'weather' holds the key 'city' twice in one object",
        ),
        (
            '{"city": 1e999}',
            "the text of the arguments of 'weather' holds the number 1e999, which is too large or no number",
        ),
        (
            '{"city": NaN}',
            "the text of the arguments of 'weather' holds the number NaN, which is too large or no number",
        ),
        (
            '{"city": ' + "9" * 5_000 + "}",
            (
                "the text of the arguments of 'weather' holds the number 99999999999999999999…, which is too large or "
                "no number"
            ),
        ),
        (
            '{"city": ' + "[" * 100_000,
            "the text of the arguments of 'weather' is nested too deeply: more than 100 levels",
        ),
        (
            '{"city": ' + "[" * 101 + "]" * 101 + "}",
            "the text of the arguments of 'weather' is nested too deeply: more than 100 levels",
        ),
        (
            '{"city": "' + "x" * 1_000_000 + '"}',
            "the text of the arguments of 'weather' is too long: 1,000,012 characters, and at most 500,000 are taken",
        ),
        (
            '{"city": "\\ud83d"}',
            "wrong arguments for 'weather': a text holds half of a surrogate pair, which is no character",
        ),
        (b'{"city": "\xff"}', "the text of the arguments of 'weather' is not valid JSON: byte 10 is not UTF-8"),
    ],
)
def test_arguments_that_do_not_fit_give_a_sentence(text: str | bytes, sentence: str) -> None:
    with pytest.raises(ToolError) as caught:
        read(weather).validate(text)
    assert str(caught.value) == sentence


def test_a_whole_number_that_no_float_holds_is_wrong() -> None:
    def use(x: float) -> None: ...

    with pytest.raises(ToolError, match="'x' should be a finite number"):
        read(use).validate('{"x": 1' + "0" * 400 + "}")


def test_many_faults_are_cut() -> None:
    def use(numbers: list[int]) -> None: ...

    with pytest.raises(ToolError, match=r"and 95 more$"):
        read(use).validate(json.dumps({"numbers": ["a"] * 100}))


@given(st.text())
def test_no_text_makes_the_validator_fail_otherwise(text: str) -> None:
    try:
        assert set(read(weather).validate(text)) <= {"city", "days", "home", "points"}
    except ToolError as error:
        assert "weather" in str(error)  # noqa: PT017  # a text may also happen to fit


def test_a_validator_that_fails_in_its_own_way_is_a_sentence_too() -> None:
    class Strange(BaseModel):
        x: int

        @field_validator("x")
        @classmethod
        def check(cls, value: int) -> int:
            raise KeyError(value)

    def use(it: Strange) -> None: ...

    with pytest.raises(ToolError, match=r"^wrong arguments for 'use': KeyError: 1$"):
        read(use).validate('{"it": {"x": 1}}')
    with pytest.raises(OutputInvalid, match=r"^the answer does not fit 'Strange': KeyError: 1$"):
        output_schema(Strange).validate('{"x": 1}')


def test_arguments_are_new_in_each_call() -> None:
    def use(items: list[int] = Field(default=[1])) -> None: ...  # noqa: B008  # pydantic's own form of a default

    first = read(use).validate("{}")
    first["items"].append(2)
    assert read(use).validate("{}") == {"items": [1]}


# --- structured answers


def test_an_output_type_with_an_object_is_used_as_it_is() -> None:
    schema = output_schema(Address)
    assert (schema.name, schema.description, schema.strict, schema.wrapped) == (
        "Address",
        "Where somebody lives.",
        True,
        False,
    )
    assert schema.schema["required"] == ["city", "zip"]
    assert schema.validate('{"city": "Bonn", "zip": null}') == Address(city="Bonn")


@pytest.mark.parametrize(
    ("output", "name", "text", "expected"),
    [
        (int, "int", '{"result": 3}', 3),
        (int, "int", "3", 3),
        (list[Point], "list_Point", '{"result": [{"x": 1, "y": 2}]}', [Point(1, 2.0)]),
        (list[int], "list", "[1, 2]", [1, 2]),
        (Address | None, "Address_None", '{"result": null}', None),
        (Unit, "Unit", '{"result": "F"}', Unit.FAHRENHEIT),
        (Literal["yes", "no"], "Literal_yes_no", '{"result": "no"}', "no"),
        (Point, "Point", '{"x": 1, "y": null}', Point(1, 0.5)),
        (Options, "Options", '{"size": 1}', {"size": 1}),
        (OldOptions, "OldOptions", '{"size": 1, "color": null}', {"size": 1}),
        (dict[str, int], "dict", '{"a": 1}', {"a": 1}),
        (Node, "Node", '{"name": "a", "child": {"name": "b", "child": null}}', Node(name="a", child=Node(name="b"))),
        (Address, "Address", '```json\n{"city": "Bonn"}\n```', Address(city="Bonn")),
    ],
)
def test_answers_become_values(output: Any, name: str, text: str, expected: object) -> None:
    schema = output_schema(output)
    assert schema.name.startswith(name)
    assert schema.schema["type"] == "object"
    assert schema.validate(text) == expected


def test_a_recursive_type_has_an_object_at_its_root() -> None:
    assert output_schema(Node).schema == {
        "type": "object",
        "properties": {"name": STRING, "child": {"anyOf": [{"$ref": "#/$defs/Node"}, NULL]}},
        "required": ["name", "child"],
        "additionalProperties": False,
        "$defs": {
            "Node": {
                "type": "object",
                "properties": {"name": STRING, "child": {"anyOf": [{"$ref": "#/$defs/Node"}, NULL]}},
                "required": ["name", "child"],
                "additionalProperties": False,
            }
        },
    }


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "",
            (
                "the answer is not valid JSON: Expecting value at line 1 column 1, it ends too early; it must be one "
                "JSON value that fits 'Address', without other text"
            ),
        ),
        ('{"zip": 1}', "the answer does not fit 'Address': 'city' is missing; 'zip' should be a valid string, got 1"),
        ("[1]", "the answer does not fit 'Address': it should be an object, got a list of 1"),
    ],
)
def test_an_answer_that_does_not_fit_gives_a_sentence_and_the_text(text: str, sentence: str) -> None:
    with pytest.raises(OutputInvalid) as caught:
        output_schema(Address).validate(text)
    assert (str(caught.value), caught.value.text) == (sentence, text)


def test_json_inside_a_text_has_faults_of_its_own() -> None:
    with pytest.raises(OutputInvalid) as caught:
        output_schema(dict[str, Json[int]]).validate('{"a": "x"}')
    assert str(caught.value) == (
        "the answer does not fit 'dict_str_Annotated_int_Json': 'a' Invalid JSON: expected value at line 1 column 1, "
        'got "x"'
    )


def test_the_name_of_an_output_type_is_the_same_in_every_process() -> None:
    """It is part of the request, which a replay compares and a provider's prompt cache lives on."""
    checked = output_schema(Annotated[int, AfterValidator(nothing_injected)])
    assert checked.name == "Annotated_int_AfterValidator_func_function_nothing_injected"


def test_output_schemas_are_kept_on_their_type() -> None:
    class Local(BaseModel):
        x: int

    class Below(Local):
        y: int

    assert output_schema(Local) is output_schema(Local)
    assert output_schema(Below).name == "Below"
    assert output_schema(list[int]) is output_schema(list[int])


def test_an_output_type_without_a_form_in_json_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="has no form in JSON"):
        output_schema(Socket)
