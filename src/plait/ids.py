"""Ids: a prefix that says of what, and 128 random bits of the operating system."""

from __future__ import annotations

import os
from typing import Final

_BYTES: Final = 16
_AHEAD: Final = 64
"""Numbers drawn at once: asking the system for each costs more than everything else that is done for an entry."""

_drawn: list[str] = []  # taking one out is a single step, so threads need no lock

os.register_at_fork(after_in_child=_drawn.clear)  # a child must not use its parent's numbers


def new_id(prefix: str) -> str:
    """Make an id that is like no other: ``run_`` and 32 hexadecimal digits, for the prefix ``"run"``."""
    try:
        return f"{prefix}_{_drawn.pop()}"
    except IndexError:
        numbers = os.urandom(_BYTES * _AHEAD).hex()
        _drawn.extend(numbers[start : start + 2 * _BYTES] for start in range(0, len(numbers), 2 * _BYTES))
        return f"{prefix}_{os.urandom(_BYTES).hex()}"
