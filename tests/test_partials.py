"""Partial values: what is shown of a value while its JSON still comes."""

from __future__ import annotations

import json
from datetime import date
from itertools import pairwise
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, TypeAdapter, model_validator

from growing import VALUES, Cat, Cattle, Color, Entry, Everything, Point, may_become
from plait.partials import Partials
from plait.schema import output_schema


def grown(output: Any, text: str) -> list[Any]:
    """Every value that is shown while a text comes letter by letter."""
    partials: Partials[Any] = Partials(output_schema(output))
    return [value for letter in text if (value := partials.add([letter])) is not None]


def shown(output: Any, text: str) -> Any:
    """What is shown of a text that comes at once."""
    return Partials[Any](output_schema(output)).add([text])


# --- fields ----------------------------------------------------------------------------------------------------------


def test_text_grows_and_what_has_not_come_is_none() -> None:
    made = grown(Entry, '{"title": "Ab", "day": "2024-02-29"}')
    assert made == [
        Entry.model_construct(title=None, day=None, below=[]),
        Entry.model_construct(title="", day=None, below=[]),
        Entry.model_construct(title="A", day=None, below=[]),
        Entry.model_construct(title="Ab", day=None, below=[]),
        Entry(title="Ab", day=date(2024, 2, 29)),
    ]


def test_defaults_stand_for_what_has_not_come() -> None:
    assert shown(Point, '{"x": 1, "y": 2') == Point(1, 0.5)
    assert shown(Everything, "{").number == 7


@pytest.mark.parametrize(
    ("text", "field", "expected"),
    [
        ('{"number": 12', "number", 7),
        ('{"number": 12,', "number", 12),
        ('{"color": "red', "color", None),
        ('{"color": "red"', "color", Color.RED),
        ('{"word": "yes', "word", "yes"),
        ('{"word": "yesterda', "word", "yes"),
        ('{"word": "yesterday"', "word", "yesterday"),
        ('{"code": "cba', "code", "abc"),
        ('{"code": "cba"', "code", "cba"),
        ('{"under-another-name": "x', "aliased", "x"),
        ('{"tags": ["x", "y', "tags", {"x", "y"}),
        ('{"first": nul', "first", None),
        ('{"row": [{"x": 1}, {"x": 2, "y": 3', "row", (Point(1), Point(2))),
        ('{"pair": [1, "a', "pair", (0, "")),
        ('{"pair": [1, "a"]', "pair", (1, "a")),
        ('{"first": {"title": "T', "first", Entry.model_construct(title="T", day=None, below=[])),
        ('{"points": [{"x": 1}, {"y": 2.5, "x": 3', "points", [Point(1, 0.5), Point(None, 2.5)]),  # type: ignore[arg-type]
        ('{"options": {"label": "L', "options", {"size": None, "label": "L"}),
        ('{"options": {', "options", {"size": None}),
        ('{"pet": {"kind": "cat', "pet", None),
        ('{"pet": {"kind": "cat"', "pet", Cat.model_construct(kind="cat", name=None)),
        ('{"pet": {"kind": "cattle", "name": "M', "pet", Cattle.model_construct(kind="cattle", count=None, name="M")),
        ('{"pet": {"name": "M', "pet", None),
        ('{"either": {"kind": "cat", "name": "Tom"', "either", None),
        ('{"either": {"kind": "cat", "name": "Tom"}', "either", Cat(kind="cat", name="Tom")),
        (
            '{"entries": {"a": {"title": "A", "day": "2024-',
            "entries",
            {"a": Entry.model_construct(title="A", day=None)},
        ),
        ('{"entries": {"a', "entries", {}),
    ],
)
def test_a_field_while_it_comes(text: str, field: str, expected: object) -> None:
    assert getattr(shown(Everything, text), field) == expected


def test_a_half_date_does_not_hide_what_came_before() -> None:
    assert shown(list[Entry], '{"result": [{"title": "A", "day": "2024-01-01"}, {"title": "B", "day": "20') == [
        Entry(title="A", day=date(2024, 1, 1)),
        Entry.model_construct(title="B", day=None, below=[]),
    ]


def test_half_an_escape_is_left_out() -> None:
    assert [one.name for one in grown(Cat, r'{"name": "a\"é"')] == [None, "", "a", 'a"', 'a"é']


# --- types that are no objects ---------------------------------------------------------------------------------------


def test_a_list_grows_with_or_without_its_wrapping() -> None:
    assert grown(list[int], '{"result": [1, 23, 4]}') == [[], [1], [1, 23], [1, 23, 4]]
    assert grown(list[int], "[1, 23, 4]") == [[], [1], [1, 23], [1, 23, 4]]


@pytest.mark.parametrize(
    ("output", "text"),
    [
        (int, '{"result": 123}'),
        (str, '{"result": "a b"}'),
        (Cat | Cattle, '{"result": {"kind": "cat", "name": "T"'),
        (tuple[int, int], '{"result": [1, 2'),
        (Any, '{"result": {"a": "b'),
    ],
    ids=repr,
)
def test_others_have_no_partial_values(output: object, text: str) -> None:
    assert grown(output, text) == []


def test_an_object_or_nothing_grows() -> None:
    assert grown(Entry | None, '{"result": null}') == []
    assert [one.title for one in grown(Entry | None, '{"title": "A')] == ["", "A"]
    assert [one.title for one in grown(Entry | None, '{"result": {"title": "A')] == [None, "", "A"]
    tagged = Annotated[Cat | Cattle, Field(discriminator="kind")]
    assert grown(tagged, '{"kind": "cat", "name": "T') == [
        Cat.model_construct(kind="cat", name=None),
        Cat.model_construct(kind="cat", name=""),
        Cat(kind="cat", name="T"),
    ]


# --- texts that are not only JSON ------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", ["", "  \n", "```json\n", "```\n", "\n```JSON \n\n  "])
def test_a_fence_is_skipped(before: str) -> None:
    assert grown(list[int], before + "[1, 2]\n```") == [[], [1], [1, 2]]


@pytest.mark.parametrize("text", ["Here it is: [1]", "```json [1]", "1", '"[1]"', "]", "", "null"])
def test_other_words_are_no_value(text: str) -> None:
    assert grown(list[int], text) == []


@pytest.mark.parametrize("text", ["[1]]]", "[1] and [2]", '[1]"[', "[1] }"])
def test_what_comes_after_the_value_is_not_read(text: str) -> None:
    assert grown(list[int], text) == [[], [1]]


@pytest.mark.parametrize("text", ['{"result": [1}', '{"result": [1 2', '{"result": [}}]]', "[" * 300, '{"result" [1'])
def test_broken_json_is_no_error(text: str) -> None:
    assert all(value in ([], [1]) for value in grown(list[int], text))


def test_another_text_begins_anew_and_nothing_is_shown_twice_running() -> None:
    partials = Partials(output_schema(list[int]))
    assert partials.add(["[1,"]) == [1]
    partials.begin()
    assert partials.add(["[1,"]) is None
    assert partials.add(["2,"]) == [1, 2]
    assert not partials.is_new([1, 2])
    assert partials.is_new([1])


# --- validators of the user's own ------------------------------------------------------------------------------------


class Range(BaseModel):
    low: int
    high: int
    note: str = ""

    @model_validator(mode="after")
    def check(self) -> Range:
        if self.low > self.high:
            msg = "low is above high"
            raise ValueError(msg)
        return self


def test_a_value_that_a_validator_fails_is_left_out() -> None:
    assert grown(Range, '{"low": 1, "high": 2, "note": "a"}') == [
        Range(low=1, high=2),  # before that the validator compares None
        Range(low=1, high=2, note="a"),
    ]
    assert grown(Range, '{"low": 3, "high": 2, "note": "a"}') == []


def test_a_class_that_is_made_in_its_own_way_is_shown_whole() -> None:
    class Own(BaseModel):
        x: int
        y: int

        def __init__(self, /, **fields: Any) -> None:
            super().__init__(**fields)

    class Outer(BaseModel):
        own: Own
        name: str

    assert [one.own for one in grown(Outer, '{"own": {"x": 1, "y": 2}, "name": "')] == [
        None,
        Own(x=1, y=2),
        Own(x=1, y=2),
    ]


def test_values_that_cannot_be_compared_are_all_shown() -> None:
    class Odd(BaseModel):
        x: str

        def __eq__(self, other: object) -> bool:
            raise TypeError

        __hash__ = None  # type: ignore[assignment]

    assert [one.x for one in grown(Odd, '{"x": "a"')] == [*[None] * 6, "", "a", "a"]


# --- any value, cut anywhere -----------------------------------------------------------------------------------------

TYPES = [pytest.param(output, values, id=str(output)) for output, values in VALUES.items()]


@pytest.mark.parametrize(("output", "values"), TYPES)
@given(data=st.data())
def test_every_value_may_become_the_next_and_the_whole(
    output: Any, values: st.SearchStrategy[Any], data: st.DataObject
) -> None:
    whole = data.draw(values)
    adapter: TypeAdapter[Any] = TypeAdapter(output)
    schema = output_schema(output)
    plain = adapter.dump_python(whole, mode="json", by_alias=True)
    if schema.wrapped and data.draw(st.booleans()):
        plain = {"result": plain}
    text = json.dumps(plain, ensure_ascii=data.draw(st.booleans()), indent=data.draw(st.sampled_from([None, 1])))
    partials: Partials[Any] = Partials(schema)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=20)) | {0, len(text)})
    made = [partials.add([text[start:end]]) for start, end in pairwise(cuts)]
    values_shown = [value for value in made if value is not None]
    for value in values_shown:
        assert may_become(value, whole), (value, whole)
    assert all(may_become(one, other) for one, other in pairwise(values_shown))
    assert schema.validate(text) == whole
    if values_shown and isinstance(plain, dict) and cuts[-2] < len(text) * 0.9:
        assert values_shown[-1] == whole


# --- cost ------------------------------------------------------------------------------------------------------------


def test_the_validator_of_a_type_is_made_once() -> None:
    schema = output_schema(Entry)
    first = Partials(schema)
    assert list(schema.derived.values()) == [first._form]  # noqa: SLF001  # there is no other sign of it
    assert Partials(schema)._form is first._form  # noqa: SLF001


def test_a_text_is_read_anew_only_as_it_grows_by_a_part_of_itself() -> None:
    class Counted(BaseModel):
        numbers: list[int]

        @model_validator(mode="after")
        def count(self) -> Counted:
            read.append(len(self.numbers))
            return self

    def readings(count: int) -> int:
        read.clear()
        partials = Partials(output_schema(Counted))
        for piece in ('{"numbers": [', *(f"{number}," for number in range(1, count))):
            partials.add([piece])
        return len(read)

    read: list[int] = []
    assert readings(10) == 10
    assert readings(10_000) - readings(5_000) < 50  # fifty in each doubling, about: less than ln 2 / ln 1.02
    assert read[-1] > 4_900


def test_a_large_value_is_not_made_many_times() -> None:
    """Its reader may keep all that was shown: that is to be a few times the whole, however large it becomes."""
    text = json.dumps(list(range(100_000, 200_000)))
    partials: Partials[Any] = Partials(output_schema(list[int]))
    pieces = [text[at : at + 100] for at in range(0, len(text), 100)]
    sizes = [len(value) for piece in pieces if (value := partials.add([piece])) is not None]
    assert (sizes[0], sizes == sorted(sizes)) == (12, True)
    assert 100_000 < sum(sizes) < 600_000
    assert len(sizes) > 100
