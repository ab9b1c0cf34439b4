"""Data checked against schemas written by hand."""

from __future__ import annotations

from typing import Any

import pytest

from plait.shape import MAX_STEPS, faults

TOO_MUCH = f"the value cannot be checked against its schema within {MAX_STEPS:,} steps; a smaller one may be"


@pytest.mark.fault("S17")
@pytest.mark.parametrize("word", ["allOf", "anyOf"])
def test_a_schema_that_stands_for_a_thousand_million_is_given_up(word: str) -> None:
    steps: dict[str, Any] = {f"d{n}": {word: [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(30)}
    schema = {"$ref": "#/$defs/d0", "$defs": {**steps, "d30": {"type": "string"}}}
    assert list(faults(1, schema))[-1] == TOO_MUCH


@pytest.mark.fault("S17")
def test_many_values_against_many_choices_are_given_up() -> None:
    schema = {"type": "array", "items": {"enum": list(range(10_000))}}
    assert list(faults([9_999] * 10_000, schema)) == [TOO_MUCH]


def test_a_long_list_is_checked_whole() -> None:
    schema = {"type": "array", "items": {"type": "integer"}}
    assert list(faults([*range(250_000), "x"], schema)) == ["'[250000]' should be integer, got \"x\""]
