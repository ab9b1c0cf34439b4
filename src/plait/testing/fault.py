"""What an entry of the catalogue of faults is, and where it is injected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from plait.errors import ConfigurationError
from plait.testing.checks import of_kind, whole
from plait.testing.reply import Asked, Cut, DialectName, Reply
from plait.testing.said import Said

if TYPE_CHECKING:
    from collections.abc import Callable

Setting = Literal["", "refused", "no such host", "not tls", "expired", "wrong-name"]
"""What a server must be for a fault that happens before there is a request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a fault happens; what is None is where the fault itself finds it best.

    Attributes:
        at: its place as the fault counts: events of a stream, seconds to wait, bytes of a head, a chunk's number.
        byte: bytes of the body, for those faults that cut one.
        said: what the answer would have said.
        to: where a redirect leads.

    Raises:
        ConfigurationError: one of them is something else.
    """

    at: int | None = None
    byte: int | None = None
    said: Said | None = None
    to: str = ""

    def __post_init__(self) -> None:
        for name in ("at", "byte"):
            if getattr(self, name) is not None:
                whole(f"{name} of a fault", getattr(self, name))
        of_kind("said of a fault", self.said, (Said, type(None)), "a Said(...), or the text of the answer")
        of_kind("to of a fault", self.to, str, "an address, as a text")

    def number(self, usual: int) -> int:
        """Give the place, or the usual one."""
        return usual if self.at is None else self.at

    def cut(self, usual: int, then: Literal["fin", "rst", "hold", "end"]) -> Cut:
        """Give the cut at this place, or after the usual number of events."""
        if self.byte is not None:
            return Cut(byte=self.byte, then=then)
        return Cut(event=self.number(usual), then=then)

    def reply(self, said: Said | None = None) -> Reply:
        """Give the healthy reply: what was to be said, else this, else a few words."""
        spoken = self.said or said
        return Reply() if spoken is None else Reply(said=spoken)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One way for a provider to fail.

    Attributes:
        row: its group's number in the fault matrix, such as ``"L20"``.
        name: its own name, such as ``"closed-midway"``.
        sentence: what happens.
        make: gives the reply that does it.
        setting: what the server must be, for what goes wrong before there is a request.
        dialects: those in which it can happen.
    """

    row: str
    name: str
    sentence: str
    make: Callable[[Place, Asked], Reply]
    setting: Setting = ""
    dialects: tuple[DialectName, ...] = get_args(DialectName)


@dataclass(frozen=True, slots=True)
class Injected:
    """A fault at a place: an entry of a script."""

    fault: Fault
    place: Place

    def __call__(self, asked: Asked) -> Reply:
        """Give the reply to a request.

        Raises:
            ConfigurationError: the request is in a dialect in which this cannot happen.
        """
        if asked.dialect not in self.fault.dialects:
            msg = (
                f"the fault {self.fault.name!r} is none of the dialect {asked.dialect!r}, in which {asked.url} was "
                f"asked; it happens in {', '.join(map(repr, self.fault.dialects))}"
            )
            raise ConfigurationError(msg)
        return self.fault.make(self.place, asked)


def healthy(place: Place, asked: Asked) -> Reply:
    """Give an answer in which nothing goes wrong."""
    del asked
    return place.reply()
