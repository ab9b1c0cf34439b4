"""What a case is run with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Where the server is, and how much is measured.

    Attributes:
        base_url: where a client finds the server.
        effort: 1 for a full measurement, less for a quick one.
        size: 1 for answers and crowds of full size; less only to see that a case works.
    """

    base_url: str
    effort: float = 1.0
    size: float = 1.0

    def times(self, full: int, *, least: int = 1) -> int:
        """Give how often something is done, of ``full`` times."""
        return max(least, round(full * self.effort))

    def sized(self, full: int, *, least: int = 1) -> int:
        """Give how large something is, of a ``full`` size."""
        return max(least, round(full * self.size))
