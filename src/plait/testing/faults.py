"""The catalogue of faults, and how one is put into a script."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from plait.errors import ConfigurationError, excerpt
from plait.testing.answer_faults import ANSWER_FAULTS
from plait.testing.checks import of_kind
from plait.testing.dialect_faults import DIALECT_FAULTS
from plait.testing.fault import Fault, Injected, Place
from plait.testing.said import Said
from plait.testing.wire_faults import BODY_FAULTS, CONNECTION_FAULTS, STATUS_FAULTS

if TYPE_CHECKING:
    from collections.abc import Mapping

_ALL: Final = sorted(
    (*STATUS_FAULTS, *CONNECTION_FAULTS, *BODY_FAULTS, *ANSWER_FAULTS, *DIALECT_FAULTS), key=lambda one: one.row
)

FAULTS: Final[Mapping[str, Fault]] = MappingProxyType({one.name: one for one in _ALL})
"""Every fault by its name, in the order of the rows they belong to."""


def find_fault(name: str) -> Fault:
    """Give a fault by its own name, or the first one of a row.

    Raises:
        ConfigurationError: there is none of that name.
    """
    of_kind("the name of a fault", name, str, "a name such as 'rate-limited', or the number of a row such as 'L05'")
    found = FAULTS.get(name.lower()) or _of_row(name.upper())
    if found is None:
        from difflib import get_close_matches

        close = get_close_matches(name, FAULTS, 1)
        meant = f"did you mean {close[0]!r}? " if close else ""
        msg = f"there is no fault {excerpt(name, 60)!r}; {meant}'python -m plait.testing --list' shows all"
        raise ConfigurationError(msg)
    return found


def _of_row(row: str) -> Fault | None:
    """Give the first fault of a row; for a dialect in which it cannot happen, the first that can."""
    found = [one for one in _ALL if one.row == row]
    dialects = {dialect: one for one in reversed(found) for dialect in one.dialects}
    if not found or set(found[0].dialects) == set(dialects):
        return found[0] if found else None
    return replace(
        found[0], make=lambda place, asked: dialects[asked.dialect].make(place, asked), dialects=tuple(dialects)
    )


def fault(
    name: str, *, at: int | None = None, byte: int | None = None, said: Said | str | None = None, to: str = ""
) -> Injected:
    """Put a fault into a script.

    Args:
        name: its name in `FAULTS`, or the number of a row, which stands for the first fault of it.
        at: where it happens, as the fault counts (see its sentence); without it, where it is most telling.
        byte: after how many bytes of the body, for faults that cut one.
        said: what the answer would have said; a text will do.
        to: where a redirect leads.

    Raises:
        ConfigurationError: there is no such fault; or it is none of a reply (nobody listens, a bad certificate), and
            the server must be made so; or a place is something else.
    """
    found = find_fault(name)
    if found.setting:
        msg = (
            f"the fault {found.name!r} happens before there is a request, so it is no reply: use "
            f"{_SETTINGS[found.setting]}"
        )
        raise ConfigurationError(msg)
    spoken = Said(text=said) if isinstance(said, str) else said
    return Injected(found, Place(at=at, byte=byte, said=spoken, to=to))


_SETTINGS: Final = {
    "refused": "server.refuse()",
    "no such host": "the base_url 'http://no-such-host.invalid/v1'",
    "not tls": "'https' in the url of a server without tls",
    "expired": "FaultServer(tls='expired')",
    "wrong-name": "FaultServer(tls='wrong-name')",
}
