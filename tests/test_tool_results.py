from __future__ import annotations

import enum
import json
from collections import deque, namedtuple
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import BaseModel

from plait.errors import ToolError
from plait.interrupts import Secret
from plait.messages import (
    AssistantMessage,
    AudioPart,
    FilePart,
    ImagePart,
    Message,
    ReasoningPart,
    TextPart,
    ToolResult,
)
from plait.tool_results import NOTHING, Mask, Pieces, to_parts, to_text

MOST = 50_000


class Color(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Model(BaseModel):
    when: date
    tags: list[str] = []


@dataclass
class Point:
    x: int
    label: str | None = None


class Wire(msgspec.Struct):
    a: int


Pair = namedtuple("Pair", ["left", "right"])  # noqa: PYI024  # the untyped form is a case


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("as it is", "as it is"),
        ("", ""),
        ('{"a": 1}', '{"a": 1}'),
        (None, NOTHING),
        (True, "true"),
        (3, "3"),
        (0.5, "0.5"),
        (10**30, "1" + "0" * 30),
        ({"a": [1, 2.5, None, False, "ü\n"]}, '{"a":[1,2.5,null,false,"ü\\n"]}'),
        ({}, "{}"),
        ([], "[]"),
        ((1, "a"), '[1,"a"]'),
        (deque([1]), "[1]"),
        (range(3), "[0,1,2]"),
        ({3, 1, 2}, "[1,2,3]"),
        (frozenset({"b", "a"}), '["a","b"]'),
        (Model(when=date(2025, 1, 2), tags=["x"]), '{"when":"2025-01-02","tags":["x"]}'),
        ([Point(1), Point(2, "b")], '[{"x":1,"label":null},{"x":2,"label":"b"}]'),
        (Wire(a=1), '{"a":1}'),
        (Pair(1, 2), '{"left":1,"right":2}'),
        (datetime(2025, 1, 2, 3, 4, tzinfo=UTC), '"2025-01-02T03:04:00Z"'),
        (timedelta(hours=1), '"PT1H"'),
        (Decimal("1.10"), '"1.10"'),
        (UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
        (PurePosixPath("/a"), '"/a"'),
        (Color.RED, "red"),
        ({"c": Color.RED, "l": Level.HIGH}, '{"c":"red","l":3}'),
        ({1: "a", Color.RED: 2, date(2025, 1, 2): 3, None: 4}, '{"1":"a","red":2,"2025-01-02":3,"null":4}'),
    ],
)
def test_the_table_of_texts(value: object, text: str) -> None:
    assert to_parts(value, MOST) == (TextPart(text=text),)


PNG, WAV, PDF = b"\x89PNG\r\n\x1a\n...", b"RIFF....WAVEfmt ", b"%PDF-1.7"
IMAGE = ImagePart(url="https://example.org/a.png")


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        (PNG, (ImagePart(data=PNG, media_type="image/png"),)),
        (bytearray(b"\xff\xd8\xff\xe0"), (ImagePart(data=b"\xff\xd8\xff\xe0", media_type="image/jpeg"),)),
        (WAV, (AudioPart(data=WAV, media_type="audio/wav"),)),
        (PDF, (FilePart(data=PDF, media_type="application/pdf"),)),
        ("grün".encode(), (TextPart(text="grün"),)),
        (IMAGE, (IMAGE,)),
        ([TextPart(text="a"), IMAGE], (TextPart(text="a"), IMAGE)),
        (Message(text="hello"), (TextPart(text="hello"),)),
        (
            AssistantMessage(parts=(ReasoningPart(text="hm"), TextPart(text="so"))),
            (TextPart(text="so"),),
        ),
        (ToolResult(call_id="x", text="from another"), (TextPart(text="from another"),)),
    ],
)
def test_the_table_of_parts(value: object, parts: tuple[object, ...]) -> None:
    assert to_parts(value, MOST) == parts


def test_an_image_of_pillow_becomes_a_png() -> None:
    class Picture:
        __module__ = "PIL.Image"

        def save(self, out: Any, format: str) -> None:  # noqa: A002  # Pillow's own name
            assert format == "PNG"
            out.write(PNG)

    assert to_parts(Picture(), MOST) == (ImagePart(data=PNG, media_type="image/png"),)


CYCLE: list[Any] = [1]
CYCLE.append({"again": CYCLE})


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (float("nan"), "the result is the number nan, which has no form in JSON"),
        ({"a": [1, float("inf")]}, r"the result.a\[1\] is the number inf, which has no form in JSON"),
        (Decimal("NaN"), r"the number Decimal\('NaN'\)"),
        (CYCLE, r"the result\[1\].again holds itself"),
        (object(), "the result is of type object, which has no form in JSON; return text, numbers, lists"),
        ({"a": object}, "the result.a is of type type"),
        ({"a": Secret("hunter2")}, "the result.a is a Secret, which no model may see"),
        ({(1, 2): 3}, "the result has a key of type tuple"),
        (b"\x00\xff\xfe", "3 bytes of an unknown kind; return an ImagePart"),
        (1 + 2j, "of type complex"),
        ([10**5000], r"the result\[0\] is a number with too many digits"),
    ],
)
def test_what_has_no_form_is_an_error_that_names_the_place(value: object, sentence: str) -> None:
    with pytest.raises(ToolError, match=sentence):
        to_parts(value, MOST)


def test_deep_values_are_an_error() -> None:
    deep: list[Any] = []
    for _ in range(200):
        deep = [deep]
    with pytest.raises(ToolError, match="nested too deeply: more than 100 levels"):
        to_text(deep, MOST)


def test_text_is_cut_and_says_so() -> None:
    assert to_text("x" * 10, 10) == "x" * 10
    assert to_text("x" * 11, 10) == "x" * 10 + "\n[cut: only the first 10 characters are shown]"
    parts = to_parts([TextPart(text="abc"), IMAGE, TextPart(text="def"), TextPart(text="ghi")], 4)
    note = "\n[cut: only the first 1 characters are shown]"
    assert parts == (TextPart(text="abc"), IMAGE, TextPart(text=f"d{note}"))


class Endless(list[int]):
    """Never ends, so that only an encoder that stops comes back from it."""

    def __iter__(self) -> Any:
        while True:
            yield 7


def test_nothing_is_encoded_past_the_cut() -> None:
    assert to_text({"numbers": Endless()}, 20) == '{"numbers":[7,7,7,7,\n[cut: only the first 20 characters are shown]'
    huge = "x" * 50_000_000
    assert to_text([huge], 10) == '["xxxxxxxx\n[cut: only the first 10 characters are shown]'


def test_binary_results_have_a_limit_and_are_not_cut() -> None:
    with pytest.raises(ToolError, match="returned 10,000,001 bytes of image/png; at most 10,000,000 are taken"):
        to_parts(ImagePart(data=b"x" * 10_000_001), MOST)


def test_pieces_are_joined_and_end_where_the_model_would_not_see_more() -> None:
    texts = Pieces(5)
    assert [texts.add(piece) for piece in ("ab", "cd", "ef")] == [False, False, True]
    assert texts.value() == "abcdef"
    mixed = Pieces(2)
    assert [mixed.add(piece) for piece in (1, "a", 2)] == [False, False, True]
    assert mixed.value() == [1, "a", 2]
    assert Pieces(5).value() == ""


SECRETS = {"short": Secret("abc"), "one": Secret("hunter2"), "two": Secret("hunter2-long"), "path": Secret("C:\\new")}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("hunter2 hunter2-long abc", "<secret:one> <secret:two> abc"),
        ({"hunter2": {"hunter2-long"}}, '{"<secret:one>":["<secret:two>"]}'),
        (PurePosixPath("/hunter2"), '"/<secret:one>"'),
        ("C:\\new C:\\\\new C%3A%5Cnew", "<secret:path> <secret:path> <secret:path>"),
        (Model(when=date(2025, 1, 2), tags=["hunter2"]), '{"when":"2025-01-02","tags":["<secret:one>"]}'),
    ],
)
def test_secrets_are_masked_wherever_they_stand(value: object, text: str) -> None:
    assert to_parts(value, MOST, Mask(SECRETS)) == (TextPart(text=text),)


@given(st.text(min_size=4), st.text(), st.text(), st.integers(0, 30))
def test_a_mask_lets_no_secret_through(secret: str, before: str, after: str, most: int) -> None:
    value = f"{before}{secret}{after}"
    mask = Mask({"NAME": Secret(secret)})
    assume(secret not in f"{before}<secret:NAME>{after}<secret:NAME>")
    assert json.loads(to_text([value], 1_000_000, mask)) == [mask(value)]
    assert secret not in mask(value)
    assert to_text(value, most, mask).startswith(mask(value)[:most])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(st.lists(JSON) | st.dictionaries(st.text(), JSON))
def test_plain_data_survives_the_way_there_and_back(value: object) -> None:
    assert json.loads(to_text(value, 1_000_000)) == value
