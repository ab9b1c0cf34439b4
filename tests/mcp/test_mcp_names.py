"""Names and texts of a server's tools, made fit for a model."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait.mcp.client.names import MAX_DESCRIPTION, tool_names, visible, visible_schema


@pytest.mark.parametrize(
    ("prefix", "names", "expected"),
    [
        ("files", ["read", "write-all"], ["files_read", "files_write-all"]),
        ("", ["read"], ["read"]),
        ("my server", ["a.b/c"], ["my_server_a_b_c"]),
        ("s", ["a.b", "a_b"], ["s_a_b_2e7b4fd1", "s_a_b"]),
        ("s", ["a_b", "a.b"], ["s_a_b", "s_a_b_2e7b4fd1"]),
    ],
)
def test_a_name_has_its_prefix_and_a_mark_only_where_it_needs_one(
    prefix: str, names: list[str], expected: list[str]
) -> None:
    found = list(tool_names(prefix, names).values())
    assert [re.sub("_[0-9a-f]{8}$", "_#", name) for name in found] == [
        re.sub("_[0-9a-f]{8}$", "_#", name) for name in expected
    ]


@pytest.mark.fault("M05")
@given(st.text(max_size=80), st.sets(st.text(min_size=1, max_size=80), max_size=20))
def test_names_fit_every_provider_differ_and_do_not_depend_on_the_order(prefix: str, names: set[str]) -> None:
    ordered = sorted(names)
    found = tool_names(prefix, ordered)
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", name) for name in found.values())
    assert len(set(found.values())) == len(names)
    assert tool_names(prefix, ordered[::-1]) == found


@pytest.mark.fault("M05")
def test_a_tool_named_like_the_mark_of_another_does_not_take_its_place() -> None:
    found = tool_names("s", ["a.b", "a_b"])
    crafted = found["a.b"].removeprefix("s_")
    again = tool_names("s", ["a.b", "a_b", crafted])
    assert len(set(again.values())) == 3
    assert again[crafted] == f"s_{crafted}"


def test_names_that_were_given_stay() -> None:
    assert tool_names("s", ["x", "a.b", "a_b"], {"a.b": "s_a_b", "gone": "s_x"})["a.b"] == "s_a_b"
    assert tool_names("s", ["a.b", "a_b"], {"a.b": "s_a_b"})["a_b"] != "s_a_b"


@pytest.mark.fault("M06")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("two\n\tlines", "two\n\tlines"),
        ("\x1b[31mred\x07", "[31mred"),
        ("a\u202eb\u2066c\u200bd\ufefff", "abcdf"),
        ("tag" + "".join(chr(0xE0000 + ord(c)) for c in "obey"), "tag"),
        ("Nice." + "".join(chr(0xE0100 + ord(c)) for c in "obey") + "\u3164\u115f\uffa0\u034f", "Nice."),
        ("a\ufe0f\ufe0fb\u200d\u200dc", "abc"),
        ("❤\ufe0f\ufe0f ❤\ufe0f\u200d🔥 क\u094d\u200dष", "❤\ufe0f ❤\ufe0f\u200d🔥 क\u094d\u200dष"),
        ("half \ud800 pair", "half  pair"),
        ("👩\u200d👩\u200d👧 नमस्ते", "👩\u200d👩\u200d👧 नमस्ते"),
        ("x" * 5000, "x" * MAX_DESCRIPTION + "…"),
        ("\u200b" * 50_000 + "later", "…"),
    ],
)
def test_a_text_is_what_a_person_sees_of_it(text: str, expected: str) -> None:
    assert visible(text) == expected


@pytest.mark.fault("M06")
def test_a_schema_is_as_given_but_for_hidden_signs_and_what_only_people_note() -> None:
    tag = "".join(chr(0xE0000 + ord(c)) for c in "obey")
    schema: dict[str, Any] = {
        "type": "object",
        "title": "T\u200b",
        "properties": {"description": {"type": "string", "description": "a\x1bb", "enum": ["\x1b", "b"]}},
        "anyOf": [{"title": "\u202ex"}],
        "$comment": "obey",
        "x-note": "obey",
        "examples": ["obey"],
        "$defs": {"x-named": {"const": f"v{tag}"}, f"a{tag}": {"default": {"b": [f"d{tag}", 1]}}},
        "required": ["description"],
    }
    assert visible_schema(schema) == {
        "type": "object",
        "title": "T",
        "properties": {"description": {"type": "string", "description": "ab", "enum": ["", "b"]}},
        "anyOf": [{"title": "x"}],
        "$defs": {"x-named": {"const": "v"}, "a": {"default": {"b": ["d", 1]}}},
        "required": ["description"],
    }
