"""Names the parameters of the tests of faults."""

from __future__ import annotations

from faults.ways import Way


def pytest_make_parametrize_id(val: object) -> str | None:
    """Write a way as it is said; pytest names the rest."""
    return str(val) if isinstance(val, Way) else None
