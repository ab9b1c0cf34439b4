from __future__ import annotations

from math import inf, nan
from typing import Any

import pytest

from plait.errors import ConfigurationError
from plait.plain import FrozenDict
from plait.providers.base import Settings


@pytest.mark.parametrize(
    ("name", "value", "takes"),
    [
        ("temperature", "hot", "a number of at least 0, not 'hot'"),
        ("temperature", True, "a number of at least 0, not True"),
        ("temperature", -0.1, "a number of at least 0, not -0.1"),
        ("temperature", nan, "a number of at least 0, not nan"),
        ("temperature", inf, "a number of at least 0, not inf"),
        ("max_tokens", -3, "a whole number of at least 0, not -3"),
        ("max_tokens", 5.0, "a whole number of at least 0, not 5.0"),
        ("top_p", 1.1, "a number from 0 to 1, not 1.1"),
        ("stop", 5, "a text, or several in a list, not 5"),
        ("stop", ["a", None], "a text, or several in a list, not ['a', None]"),
        ("seed", "7", "a whole number, not '7'"),
        ("n", 0, "a whole number of at least 1, not 0"),
        ("n", True, "a whole number of at least 1, not True"),
        ("tool_choice", "", "'auto', 'none', 'required' or the name of a tool, not ''"),
        ("tool_choice", ["look"], "'auto', 'none', 'required' or the name of a tool, not ['look']"),
        ("parallel_tool_calls", 1, "True or False, not 1"),
        ("cache", "2h", "True, False, '5m' or '1h', not '2h'"),
        ("cache", 1, "True, False, '5m' or '1h', not 1"),
        ("output_mode", ["tool"], "'native', 'tool' or 'prompt', not ['tool']"),
    ],
)
def test_a_value_that_no_provider_could_take_is_refused_at_once(name: str, value: object, takes: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings(**{name: value})  # type: ignore[arg-type]  # which is the mistake
    assert str(caught.value) == f"Settings({name}=...) takes {takes}"


def test_what_is_at_the_border_is_taken() -> None:
    taken: dict[str, Any] = {
        "temperature": 0,
        "max_tokens": 0,
        "top_p": 1,
        "stop": ("END",),
        "seed": -1,
        "n": 1,
        "tool_choice": "look",
        "parallel_tool_calls": False,
        "cache": "1h",
        "output_mode": "tool",
        "extra": FrozenDict({"k": 1}),
    }
    made = Settings(**taken)
    assert {name: getattr(made, name) for name in taken} == taken
