from __future__ import annotations

import copy
import json
import math
import pickle
from collections import OrderedDict
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given

from plain_data import json_data, nested, objects
from plait.errors import ConfigurationError
from plait.events import TextDelta
from plait.frozen import Frozen, JsonObject
from plait.plain import EMPTY, MAX_DEPTH, FrozenDict, freeze, parse_json, thaw, to_json

if TYPE_CHECKING:
    from collections.abc import Callable


class Shade(StrEnum):
    DARK = "dark"


class Point(Frozen):
    x: int


class Holder(Frozen):
    anything: Any = None
    mapping: JsonObject = EMPTY


# --- reading and writing JSON ---


@given(json_data)
def test_json_round_trip(value: object) -> None:
    assert parse_json(to_json(value)) == value
    assert json.loads(to_json(value)) == value


def test_only_lone_surrogates_are_escaped() -> None:
    assert to_json({"a": "é\x00"}) == '{"a":"é\\u0000"}'.encode()
    assert to_json({"a": "é\ud800"}) == b'{"a":"\\u00e9\\ud800"}'
    assert to_json(TextDelta("\udfff")) == b'{"type":"text","text":"\\udfff"}'
    assert to_json([Point(x=1)]) == b'[{"x":1}]'
    assert to_json({"b": b"x", "surrogate": "\ud800"}) == b'{"b":"eA==","surrogate":"\\ud800"}'


@pytest.mark.parametrize("value", [object(), iter([1]), {"a": object()}, {"\ud800": object()}])
def test_what_is_no_data_is_not_encoded(value: object) -> None:
    with pytest.raises(TypeError, match="has no form in JSON"):
        to_json(value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "nul",
        "[" * 100_000,
        '{"a":' * 100_000,
        "1e999",
        '{"a": -1e999}',
        "NaN",
        "[Infinity]",
        "9" * 5_000,
        b"\xff",
        b'"\xff"',
        '"\ud800',
        "[1,]",
    ],
    ids=lambda text: repr(text[:12]),
)
def test_bad_json_is_a_value_error(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r".") as raised:
        parse_json(text)
    assert len(str(raised.value)) < 300


def test_json_of_other_writers_is_read() -> None:
    assert parse_json('"\ud800"') == "\ud800"
    assert parse_json(b'{"a": 1, "a": 2}') == {"a": 2}
    assert parse_json("123456789012345678901234567890") == 123456789012345678901234567890
    assert parse_json('"\\ud83d\\ude00"') == "\N{GRINNING FACE}"


# --- FrozenDict ---


@given(objects)
def test_a_frozen_dict_is_the_plain_mapping(value: dict[str, Any]) -> None:
    made = FrozenDict(value)
    assert thaw(made) == value
    assert made == FrozenDict(value)
    assert hash(made) == hash(FrozenDict(value))
    assert pickle.loads(pickle.dumps(made)) == made  # noqa: S301  # its own bytes
    assert parse_json(to_json(made)) == value


def test_a_frozen_dict_reads_as_a_dict() -> None:
    made = FrozenDict({"a": [1, {"b": 2}]})
    assert made == {"a": (1, {"b": 2})}
    assert repr(made) == "{'a': (1, {'b': 2})}"
    assert {**made, "c": 3} == {"a": (1, {"b": 2}), "c": 3}
    assert made | {"c": 3} == {"a": (1, {"b": 2}), "c": 3}
    assert isinstance(made["a"][1], FrozenDict)
    assert FrozenDict() == FrozenDict(None) == EMPTY == {}
    assert FrozenDict(MappingProxyType({"a": 1})) == {"a": 1}
    assert copy.copy(made) is made
    assert copy.deepcopy(made) is made
    assert type(made.copy()) is dict


def test_nothing_changes_a_frozen_dict() -> None:
    made = FrozenDict({"a": 1})
    changes: list[Callable[[], object]] = [
        lambda: made.__setitem__("a", 2),
        lambda: made.__delitem__("a"),
        lambda: made.__ior__({"a": 2}),
        lambda: made.update(a=2),
        lambda: made.setdefault("b", 2),
        lambda: made.pop("a"),
        made.popitem,
        made.clear,
    ]
    for change in changes:
        with pytest.raises(TypeError, match="read-only"):
            change()
    made.__init__({"a": 2})  # type: ignore[misc]  # the point of the test
    assert made == {"a": 1}


def test_the_given_mapping_stays_the_callers() -> None:
    inner = [1]
    given_mapping = {"a": inner}
    made = FrozenDict(given_mapping)
    inner.append(2)
    given_mapping["b"] = [3]
    assert made == {"a": (1,)}


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ({1: 2}, "the key 1 of a mapping is no string"),
        ({"a": {None: 2}}, "the key None of a mapping is no string"),
        ({"a": {1}}, "set cannot be kept in a frozen value"),
        ({"a": frozenset()}, "frozenset cannot be kept"),
        ({"a": object()}, "object cannot be kept"),
        ({"a": b"x"}, "bytes could not be read back from plain data; use a field of type bytes"),
        ({"a": Point(x=1)}, "Point could not be read back from plain data; use a field of its type"),
        ({"a": math.nan}, "nan has no form in JSON"),
        ({"a": [-math.inf]}, "-inf has no form in JSON"),
    ],
)
def test_what_json_cannot_hold_is_refused(value: dict[Any, Any], sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        FrozenDict(value)
    with pytest.raises(ConfigurationError, match=sentence):
        Holder(mapping=value)
    with pytest.raises(ConfigurationError, match=sentence):
        Holder(anything=value)


def test_depth_is_bounded() -> None:
    assert to_json(FrozenDict(nested(MAX_DEPTH))) == b'{"a":' * MAX_DEPTH + b"{}" + b"}" * MAX_DEPTH
    for deep in (nested(MAX_DEPTH + 1), nested(100_000)):
        with pytest.raises(ConfigurationError, match="nested deeper than 100 levels"):
            FrozenDict(deep)
    with pytest.raises(ConfigurationError, match="mapping: the data is nested deeper than 100 levels"):
        Holder(mapping=nested(5_000))
    while deep:  # taken apart by hand: releasing it at once would itself be deep
        deep = deep.pop("a")


def test_subclasses_of_plain_types_become_plain() -> None:
    class Name(str):
        __slots__ = ()

    class Count(int):
        pass

    class Size(float):
        pass

    given_mapping: dict[str, Any] = OrderedDict({Name("key"): [Name("x"), Count(3), Size(1.5), Shade.DARK]})
    made = FrozenDict(given_mapping)
    assert made == {"key": ("x", 3, 1.5, "dark")}
    assert [type(item) for item in (*made, *made["key"])] == [str, str, int, float, str]
    with pytest.raises(ConfigurationError, match="nan"):
        freeze(Size("nan"))
