from __future__ import annotations

import copy
import json
import math
import pickle
from collections.abc import Callable, Mapping, Sequence
from enum import Enum, StrEnum
from functools import cached_property
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from plain_data import nested, objects
from plait.errors import ConfigurationError
from plait.frozen import Frozen, JsonObject, TupleOf
from plait.plain import EMPTY, FrozenDict, parse_json, to_json


class Shade(StrEnum):
    DARK = "dark"


class Point(Frozen):
    x: int
    y: int = 0


class Everything(Frozen):
    """One field of each kind that differs in how it is frozen."""

    anything: Any = None
    numbers: list[int] = []  # noqa: RUF012
    table: dict[str, list[int]] = {}  # noqa: RUF012
    made: list[str] = Field(default_factory=list)
    pair: tuple[int, list[str]] = (0, [])
    maybe: list[int] | None = None
    annotated: Annotated[list[int], Field(max_length=3)] = []  # noqa: RUF012
    mapping: JsonObject = EMPTY
    optional_mapping: JsonObject | None = None
    points: TupleOf[Point] = ()
    named: dict[str, Point] = {}  # noqa: RUF012
    blobs: list[bytes] = []  # noqa: RUF012
    shade: Shade = Shade.DARK
    word: Literal["a", "b"] = "a"


class Later(Frozen):
    """Refers to a class that is defined after it."""

    points: list[After]


class After(Frozen):
    x: int


# --- reading ---


def test_lists_and_dicts_are_frozen_whatever_the_field_says() -> None:
    value = Everything(
        anything=[{"a": [1]}],
        numbers=[1, 2],
        table={"a": [1]},
        made=["x"],
        pair=(1, ["y"]),
        maybe=[3],
        annotated=[4],
        mapping={"b": [5]},
        optional_mapping={"c": [6]},
        points=[Point(x=1)],
        named={"p": Point(x=2)},
        blobs=[b"z"],
    )
    found = {name: getattr(value, name) for name in type(value).model_fields}
    assert found == {
        "anything": ({"a": (1,)},),
        "numbers": (1, 2),
        "table": {"a": (1,)},
        "made": ("x",),
        "pair": (1, ("y",)),
        "maybe": (3,),
        "annotated": (4,),
        "mapping": {"b": (5,)},
        "optional_mapping": {"c": (6,)},
        "points": (Point(x=1),),
        "named": {"p": Point(x=2)},
        "blobs": (b"z",),
        "shade": Shade.DARK,
        "word": "a",
    }
    assert all(type(value) is not dict for value in found.values())
    assert isinstance(hash(value), int)


def test_defaults_are_frozen_too() -> None:
    value: Any = Everything()
    assert (value.numbers, value.table, value.made, value.pair) == ((), {}, (), (0, ()))
    assert type(value.table) is type(value.mapping) is FrozenDict
    constructed: Any = Everything.model_construct()
    assert constructed.table == {}
    assert type(constructed.numbers) is tuple
    assert Everything.model_construct() == Everything()


def test_forward_references_are_followed() -> None:
    value = Later(points=[After(x=1)])
    assert value.points == (After(x=1),)  # type: ignore[comparison-overlap]  # a list to the type checker
    assert Later(**value.to_json()) == value


def test_repr_shows_what_differs_from_the_defaults() -> None:
    assert repr(Everything()) == "Everything()"
    assert repr(Point(x=0)) == "Point(x=0)"
    assert repr(Point(x=0, y=1)) == "Point(x=0, y=1)"
    assert repr(Everything(numbers=[], mapping={}, made=[])) == "Everything()"
    assert repr(Everything(made=["a"], maybe=[])) == "Everything(made=('a',), maybe=())"


def test_a_list_of_points_is_a_list_to_the_caller() -> None:
    points: list[Point] = [Point(x=1)]
    value = Everything(points=points)
    points.append(Point(x=2))
    assert value.points == (Point(x=1),)


# --- nothing changes it ---


def test_nothing_changes_a_value() -> None:
    value = Point(x=1)
    with pytest.raises(AttributeError, match=r"Point\.x cannot be set: .* use \.model_copy\(update=\{\.\.\.\}\)"):
        value.x = 2
    with pytest.raises(AttributeError, match="cannot be set"):
        value.z = 2  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="cannot be deleted"):
        del value.x
    everything = Everything(mapping={"a": 1})
    with pytest.raises(TypeError, match="read-only"):
        everything.mapping["a"] = 2  # type: ignore[index]
    assert value == Point(x=1)


def test_a_copy_is_checked_and_frozen() -> None:
    value = Everything(numbers=[1])
    copied: Any = value.model_copy(update={"numbers": [2], "mapping": {"a": [1]}})
    assert copied == Everything(numbers=[2], mapping={"a": [1]})
    assert type(copied.numbers) is tuple
    assert value == Everything(numbers=[1])
    assert value.model_copy() == value.model_copy(deep=True) == copy.deepcopy(value) == copy.copy(value) == value
    with pytest.raises(ConfigurationError, match=r"numbers\.0: input should be a valid integer"):
        value.model_copy(update={"numbers": ["x"]})
    with pytest.raises(ConfigurationError, match="Point has no field 'z' to change; its fields are x, y"):
        Point(x=1).model_copy(update={"z": 1})


def test_a_cached_property_does_not_disturb_a_copy() -> None:
    class Cached(Frozen):
        x: int

        @cached_property
        def double(self) -> int:
            return 2 * self.x

    value = Cached(x=2)
    assert value.double == 4
    assert value.model_copy(update={"x": 3}).double == 6
    assert value.to_json() == {"x": 2}
    assert value == Cached(x=2)


# --- wrong input is one sentence ---


@pytest.mark.parametrize(
    ("made", "data", "sentence"),
    [
        (Point, {}, "x: field required"),
        (
            Point,
            {"x": "a"},
            "x: input should be a valid integer, unable to parse string as an integer (given: 'a')",
        ),
        (Point, {"x": 1, "z": 2}, "z: extra inputs are not permitted"),
        (Point, {"x": None}, "x: input should be a valid integer (given: None)"),
        (Everything, {"points": [{}]}, "points.0.x: field required"),
        (Everything, {"points": "ab"}, "points: input should be a valid tuple (given: 'ab')"),
        (Everything, {"mapping": 3}, "mapping: input should be a mapping"),
    ],
)
def test_wrong_input(made: type[Frozen], data: dict[str, Any], sentence: str) -> None:
    makers: list[Callable[[], Frozen]] = [lambda: made(**data), lambda: made.model_validate(data)]
    for make in makers:
        with pytest.raises(ConfigurationError) as raised:
            make()
        assert str(raised.value) == f"{made.__name__} is not valid: {sentence}"
        assert not isinstance(raised.value, ValidationError)
        assert raised.value.__cause__ is None


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"x": []}', "x: input should be a valid integer (given: [])"),
        ("[]", "input should be an object (given: [])"),
        ("{", "invalid JSON: EOF while parsing an object at line 1 column 1 (given: '{')"),
    ],
)
def test_wrong_json(text: str, sentence: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        Point.model_validate_json(text)
    assert str(raised.value) == f"Point is not valid: {sentence}"


def test_an_error_repeats_little_of_what_was_given() -> None:
    class Reluctant:
        def __repr__(self) -> str:
            raise RuntimeError

    long = "secret " * 1_000
    for wrong in (long, {long: long}, [long] * 50, Reluctant(), nested(900)):
        with pytest.raises(ConfigurationError) as raised:
            Point(x=wrong, y=wrong)  # type: ignore[arg-type]
        assert len(str(raised.value)) < 400
        assert "\n" not in str(raised.value)
    with pytest.raises(ConfigurationError) as raised:
        Point(x=1, **{f"{number}{long}\n": 0 for number in range(50)})
    assert len(str(raised.value)) < 400
    assert str(raised.value).endswith("; and 47 more")


def test_numbers_that_json_cannot_hold_are_refused() -> None:
    class Measured(Frozen):
        size: float

    with pytest.raises(ConfigurationError, match="size: input should be a finite number"):
        Measured(size=math.inf)


class Nested(BaseModel):
    x: int


class Colour(Enum):
    RED = 1


@pytest.mark.parametrize(
    ("kind", "value"),
    [(set[str], {"a"}), (frozenset[int], frozenset({1})), (Nested, Nested(x=1)), (Colour, Colour.RED)],
)
def test_fields_of_mutable_and_arbitrary_types_are_refused(kind: Any, value: object) -> None:
    made = type("Made", (Frozen,), {"__annotations__": {"field": kind}})
    with pytest.raises(ConfigurationError, match="cannot be kept in a frozen value"):
        made(field=value)


def test_a_class_cannot_give_up_what_frozen_means() -> None:
    for config in (ConfigDict(extra="allow"), ConfigDict(extra="ignore"), ConfigDict(frozen=False)):
        with pytest.raises(ConfigurationError, match="Loose changes extra or frozen in its model_config"):
            type("Loose", (Frozen,), {"model_config": config})


# --- JSON, hash keys, pickles ---


def test_json_leaves_defaults_out_and_restores_equal_values() -> None:
    value = Everything(
        numbers=[1], blobs=[b"\x00\xff"], named={"a": Point(x=1)}, points=[Point(x=2, y=3)], anything={"k": [False]}
    )
    data = value.to_json()
    assert data == {
        "anything": {"k": [False]},
        "numbers": [1],
        "points": [{"x": 2, "y": 3}],
        "named": {"a": {"x": 1}},
        "blobs": ["AP8="],
    }
    assert Everything(**parse_json(to_json(data))) == value
    assert Everything.model_validate_json(to_json(data)) == value
    assert Everything.model_validate_json(value.model_dump_json()) == value
    assert Everything().to_json() == {}


def test_what_is_equal_only_to_python_is_said() -> None:
    class Loose(Frozen):
        count: Any = 0

    assert [Loose(count=count).to_json() for count in (0, False, 0.0, None)] == [
        {},
        {"count": False},
        {"count": 0.0},
        {"count": None},
    ]


def test_fields_are_read_by_name_also_where_they_have_an_alias() -> None:
    class Aliased(Frozen):
        kind: str = Field(alias="type")

    value = Aliased(type="x")
    assert value.to_json() == {"kind": "x"}
    assert Aliased.model_validate(value.to_json()) == value
    assert value.model_copy(update={"kind": "y"}).kind == "y"


@given(objects)
def test_equal_content_gives_an_equal_hash_key(value: dict[str, Any]) -> None:
    backwards = dict(reversed(value.items()))
    one, other = Everything(mapping=value), Everything(mapping=backwards)
    assert one == other
    assert one.hash_key == other.hash_key == Everything(**parse_json(to_json(one.to_json()))).hash_key
    assert len(one.hash_key) == 64
    assert int(one.hash_key, 16) >= 0


def test_hash_keys_do_not_change_with_the_process_and_differ_with_class_and_content() -> None:
    class Other(Frozen):
        x: int

    assert Point(x=1).hash_key == "5361b571ae0e4087f50cdfa70a5b500fafc293e0709d59e5d24d37d26174fdab"
    keys = {Point(x=1).hash_key, Point(x=2).hash_key, Point(x=1, y=1).hash_key, Other(x=1).hash_key}
    assert len(keys) == 4
    assert Everything(numbers=[1]).hash_key == Everything(numbers=(1,)).hash_key  # type: ignore[arg-type]


def test_pickles_are_equal_and_frozen() -> None:
    value = Everything(numbers=[1], named={"a": Point(x=1)}, mapping={"b": {"c": [1]}}, anything=[{"d": 2}])
    again = pickle.loads(pickle.dumps(value))  # noqa: S301  # its own bytes
    assert again == value
    assert hash(again) == hash(value)
    assert type(again.named) is type(again.mapping["b"]) is type(again.anything[0]) is FrozenDict
    with pytest.raises(AttributeError, match="cannot be set"):
        again.numbers = ()


def test_values_work_in_models_of_others() -> None:
    class Theirs(BaseModel):
        point: Point
        table: FrozenDict = EMPTY
        many: Sequence[Point] = ()
        free: Mapping[str, Any] = EMPTY

    theirs = Theirs.model_validate({"point": {"x": 1}, "table": {"a": [1]}, "many": [Point(x=2)]})
    assert (theirs.point, theirs.table, theirs.many) == (Point(x=1), {"a": (1,)}, [Point(x=2)])
    assert theirs.model_dump()["table"] == {"a": [1]}
    with pytest.raises(ValidationError):
        Theirs.model_validate({"point": {"x": "?"}})
    assert TypeAdapter(FrozenDict).json_schema() == {"additionalProperties": True, "type": "object"}
    assert Everything.model_json_schema()["properties"]["points"]["items"] == {"$ref": "#/$defs/Point"}


def test_construct_checks_nothing_and_fills_in_defaults() -> None:
    assert Point.model_construct(x=1) == Point(x=1)
    assert Point.model_construct(x=1).model_fields_set == {"x"}
    assert pickle.loads(pickle.dumps(Point.model_construct(x=1))) == Point(x=1)  # noqa: S301  # its own bytes


def test_construct_makes_what_a_factory_makes() -> None:
    class Numbered(Frozen):
        number: int = Field(default_factory=lambda: 7)

    assert Numbered.model_construct() == Numbered() == Numbered(number=7)
    assert Numbered().to_json() == {"number": 7}


def test_half_a_surrogate_pair_is_written_as_its_escape() -> None:
    class Said(Frozen):
        text: str
        data: bytes = b"x"

    said = Said(text="a\ud800b")
    assert said.model_dump_json() == '{"text":"a\\ud800b","data":"eA=="}'
    assert json.loads(said.model_dump_json(indent=2)) == {"text": "a\ud800b", "data": "eA=="}
