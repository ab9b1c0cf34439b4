"""A script: what may be an entry of it, and the reply that an entry has for a request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from plait.errors import ConfigurationError, excerpt
from plait.testing.faults import FAULTS
from plait.testing.reply import Reply, answer

if TYPE_CHECKING:
    from plait.testing.reply import Asked, Scripted

_ENTRIES: Final = (
    'give a Reply, the text of an answer, fault("name"), or a function that gives one of them to a request'
)


def checked(script: tuple[Scripted, ...]) -> tuple[Scripted, ...]:
    """Give a script as it is; an empty one is one answer of a few words.

    Raises:
        ConfigurationError: something else is in it, or a text that is a fault's name.
    """
    for number, entry in enumerate(script, 1):
        if isinstance(entry, str) and entry in FAULTS:
            msg = (
                f"entry {number} of the script is the text {entry!r}, which is a fault's name; write "
                f'fault("{entry}") for the fault, or answer("{entry}") for an answer that says it'
            )
            raise ConfigurationError(msg)
        if not (isinstance(entry, Reply | str) or callable(entry)):
            msg = f"entry {number} of the script is {excerpt(repr(entry), 80)}; {_ENTRIES}"
            raise ConfigurationError(msg)
    return script or (answer(),)


def reply_of(scripted: Scripted, asked: Asked) -> Reply:
    """Give the reply that an entry of a script has for a request.

    Raises:
        ConfigurationError: a function gave something else.
    """
    given = scripted(asked) if callable(scripted) else scripted
    if callable(given):  # a function that chose a fault
        given = given(asked)
    if isinstance(given, str):
        return answer(given)
    if not isinstance(given, Reply):
        msg = f"a function of the script gave {excerpt(repr(given), 80)}; {_ENTRIES}"
        raise ConfigurationError(msg)
    return given
