"""What a value of the script language may be, and the sentence for one that may not. Knows none of the values."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from plait.errors import ConfigurationError, excerpt

if TYPE_CHECKING:
    from collections.abc import Sequence


def refuse(where: str, value: object, allowed: str) -> NoReturn:
    """Say what something is, and what it may be.

    Raises:
        ConfigurationError: always.
    """
    msg = f"{where} is {excerpt(repr(value), 80)}; give {allowed}"
    raise ConfigurationError(msg)


def one_of(where: str, value: object, allowed: Sequence[str]) -> None:
    """Refuse what is none of some words."""
    if not isinstance(value, str) or value not in allowed:
        *first, last = map(repr, allowed)
        refuse(where, value, f"{', '.join(first)} or {last}")


def whole(where: str, value: object, least: int = 0, most: int | None = None) -> None:
    """Refuse what is no whole number, or out of bounds."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least or (most is not None and value > most):
        refuse(where, value, f"a whole number from {least}{'' if most is None else f' to {most}'}")


def seconds(where: str, value: object) -> None:
    """Refuse what is no length of time."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:  # NaN is refused too
        refuse(where, value, "seconds, from 0")


def of_kind(where: str, value: object, kind: type | tuple[type, ...], allowed: str) -> None:
    """Refuse what is of another type."""
    if not isinstance(value, kind):
        refuse(where, value, allowed)
