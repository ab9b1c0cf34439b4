"""Types of many makes, values of them, and what it means that a value may grow into another."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import date
from enum import Enum
from typing import Annotated, Any, Literal, NotRequired

from hypothesis import strategies as st
from pydantic import BaseModel, Field
from typing_extensions import TypedDict


class Color(Enum):
    RED = "red"
    REDDISH = "reddish"


class Cat(BaseModel):
    kind: Literal["cat"]
    name: str


class Cattle(BaseModel):
    kind: Literal["cattle"]
    count: int
    name: str = "unnamed"


@dataclass
class Point:
    x: int
    y: float = 0.5


class Options(TypedDict):
    size: int
    label: NotRequired[str]


class Entry(BaseModel):
    title: str
    day: date
    below: list[Entry] = []


class Everything(BaseModel):
    name: str
    color: Color
    pet: Annotated[Cat | Cattle, Field(discriminator="kind")]
    either: Cat | Cattle
    points: list[Point]
    options: Options
    entries: dict[str, Entry]
    first: Entry | None = None
    number: int = 7
    word: Literal["yes", "yesterday"] = "yes"
    code: str = Field(default="abc", pattern="^[a-c]{3}$")
    aliased: str = Field(default="", alias="under-another-name")
    tags: set[str] = set()
    row: tuple[Point, ...] = ()
    pair: tuple[int, str] = (0, "")


_text = st.text(st.sampled_from('ab ,:"\\{}[]é\u20ac\U0001f600\n0'), max_size=6)
_cats = st.builds(Cat, kind=st.just("cat"), name=_text)
_cattle = st.builds(Cattle, kind=st.just("cattle"), count=st.integers(), name=_text)
_points = st.builds(Point, x=st.integers(), y=st.floats(allow_nan=False, allow_infinity=False))
_options = st.fixed_dictionaries({"size": st.integers()}, optional={"label": _text})
_entries = st.recursive(
    st.builds(Entry, title=_text, day=st.dates()),
    lambda entries: st.builds(Entry, title=_text, day=st.dates(), below=st.lists(entries, max_size=2)),
    max_leaves=4,
)
_everything = st.builds(
    Everything,
    name=_text,
    color=st.sampled_from(Color),
    pet=_cats | _cattle,
    either=_cats | _cattle,
    points=st.lists(_points, max_size=3),
    options=_options,
    entries=st.dictionaries(_text, _entries, max_size=2),
    first=st.none() | _entries,
    number=st.integers(),
    word=st.sampled_from(["yes", "yesterday"]),
    code=st.text("abc", min_size=3, max_size=3),
    tags=st.sets(_text, max_size=2),
    row=st.lists(_points, max_size=2).map(tuple),
    pair=st.tuples(st.integers(), _text),
    **{"under-another-name": _text},
)

VALUES: dict[Any, st.SearchStrategy[Any]] = {
    Everything: _everything,
    Point: _points,
    Options: _options,
    Entry | None: st.none() | _entries,
    list[Entry]: st.lists(_entries, max_size=3),
    list[int]: st.lists(st.integers(), max_size=4),
    dict[str, Entry]: st.dictionaries(_text, _entries, max_size=3),
    Annotated[Cat | Cattle, Field(discriminator="kind")]: _cats | _cattle,
    Cat | Cattle: _cats | _cattle,
    int: st.integers(),
    str: _text,
}
"""Types, each with values of it."""


def may_become(part: Any, whole: Any) -> bool:
    """Whether a value may grow into another: what is in it is there, too, or is what stands for nothing yet."""
    if part is None or part == whole:
        return True
    if type(part) is not type(whole):
        return False
    match part:
        case str():
            return bool(whole.startswith(part))
        case list() | tuple():
            return len(part) <= len(whole) and all(map(may_become, part, whole))
        case set():
            return all(any(may_become(one, other) for other in whole) for one in part)
        case dict():
            return part.keys() <= whole.keys() and all(may_become(part[key], whole[key]) for key in part)
        case BaseModel():
            defaults = {name: field.get_default() for name, field in type(part).model_fields.items()}
        case _ if dataclasses.is_dataclass(part):
            defaults = {field.name: field.default for field in dataclasses.fields(part)}
        case _:
            return False
    return all(
        getattr(part, name) == default or may_become(getattr(part, name), getattr(whole, name))
        for name, default in defaults.items()
    )
