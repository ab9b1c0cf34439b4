"""Plain data of every shape, for tests of what keeps it and writes it."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

# Any text JSON can hold: lone surrogates and NUL too.
texts = st.text(st.characters(codec=None), max_size=8)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
json_data = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=8
)
objects = st.dictionaries(texts, json_data, max_size=4)


def nested(depth: int) -> dict[str, Any]:
    """Give mappings within mappings, so many below the first."""
    made: dict[str, Any] = {}
    for _ in range(depth):
        made = {"a": made}
    return made
