"""The log of a server: each request, what was sent for it, and how it ended. Shared by two threads; no I/O."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from plait.errors import excerpt

if TYPE_CHECKING:
    from collections.abc import Callable

Ending = Literal["open", "complete", "client left", "reset", "closed"]
"""Still under way; all was sent; the client closed first; we reset the connection; we closed it early."""


_KEPT: Final = 2**20


class Received(NamedTuple):
    """A request as it came; see `Exchange`."""

    method: str
    path: str
    headers: dict[str, str]
    raw: bytes
    body: Any


@dataclass(eq=False)
class Exchange:
    """One request and what became of it.

    Attributes:
        number: from 1, in the order of arrival.
        connection: the number of its connection, from 1.
        method: ``"POST"``, usually.
        path: the path asked for.
        headers: by lower-case name; not shown by ``repr``, for a key is among them.
        raw: the body's bytes.
        body: the body's JSON, or None if it is none.
        sent: what was sent, headers included: its first megabyte.
        size: how many bytes were sent.
        ended: how it ended; see `Ending`.
        seconds: from the request's arrival to its end.
    """

    number: int
    connection: int
    method: str
    path: str
    headers: dict[str, str] = field(repr=False)
    raw: bytes = field(repr=False)
    body: Any = field(repr=False)
    sent: bytearray = field(default_factory=bytearray, repr=False)
    size: int = 0
    ended: Ending = "open"
    seconds: float = 0.0
    began: float = field(default_factory=monotonic, repr=False)

    def __str__(self) -> str:
        streamed = " streamed" if isinstance(self.body, dict) and self.body.get("stream") is True else ""
        what = f"{self.method} {excerpt(self.path, 100)}{streamed}"
        how = f"{self.size} bytes sent, {self.ended}, {self.seconds:.3f} s"
        return f"{self.number:>4}  connection {self.connection}  {what}  {how}"

    def note(self, data: bytes) -> None:
        """Note what was sent."""
        self.size += len(data)
        if len(self.sent) < _KEPT:
            self.sent += data[: _KEPT - len(self.sent)]


class Ledger:
    """The exchanges and connections of a server, and waiting for something to be true of them.

    Attributes:
        exchanges: every request, oldest first.
        connections: how many there were.
        open: the numbers of those that are open.
        failure: the first error in a script, or in what is told of exchanges.
    """

    def __init__(self, tell: Callable[[Exchange], None] | None) -> None:
        self.exchanges: list[Exchange] = []
        self.connections = 0
        self.open: set[int] = set()
        self.failure: Exception | None = None
        self._tell = tell
        self._changed = threading.Condition()

    def connected(self) -> int:
        """Note a connection; gives its number."""
        with self._changed:
            self.connections += 1
            self.open.add(self.connections)
            self._changed.notify_all()
            return self.connections

    def disconnected(self, connection: int) -> None:
        """Note the end of a connection."""
        with self._changed:
            self.open.discard(connection)
            self._changed.notify_all()

    def began(self, connection: int, request: Received) -> Exchange:
        """Note a request."""
        with self._changed:
            made = Exchange(len(self.exchanges) + 1, connection, *request)
            self.exchanges.append(made)
            self._changed.notify_all()
            return made

    def ended(self, exchange: Exchange, how: Ending) -> None:
        """Note the end of an exchange, and tell whoever wants to know."""
        with self._changed:
            exchange.seconds = monotonic() - exchange.began
            exchange.ended = how
            self._changed.notify_all()
        if self._tell is not None:
            self._tell(exchange)

    def failed(self, error: Exception) -> None:
        """Note what went wrong in code that the server calls."""
        if self.failure is None:
            self.failure = error

    def wait(self, is_so: Callable[[], bool], seconds: float) -> bool:
        """Wait until something is so; says whether it came to be."""
        with self._changed:
            return self._changed.wait_for(is_so, seconds)
