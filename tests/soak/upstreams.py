"""What runs that are stopped run in: a server of each dialect that answers each case as the case wants, and stores.

Streams say what the references of the dialects say. One that is held never ends: its client has to leave.
"""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from plait import MemoryStore
from plait.providers.retry import Retrying, RetryPolicy
from plait.store.database import DatabaseStore
from soak.leftovers import descriptors
from soak.server import CHUNKED, LAST_CHUNK, OK, Server, Step, chunk
from soak.streams import DONE, ServerSent
from soak.subjects import SUBJECTS
from soak.world import left_by_runs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from plait.store.base import Store
    from soak.streams import Reference, Subject

LOOKING: Final = "Looking."  # what every dialect's answer with calls says
_PROMPT: Final = re.compile(r"\b(go|again|hold) (\d+)\b")
_PATIENT: Final = RetryPolicy(initial_delay=30.0, max_delay=30.0)


class Upstream:
    """A server of one dialect, and the provider that asks it.

    Prompts say what to do: ``go 7`` is answered as case 7 wants, ``again 7`` with plain text, ``hold 7`` never.

    Attributes:
        cases: how cases are answered, by their number.
        holds: the cases of the prompts that were never answered.
    """

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.server = Server(self._answer)
        self.cases: dict[int, Callable[[int], list[Step]]] = {}
        self.holds: set[int] = set()
        self.head: Step = OK + f"content-type: {subject.content_type}\r\n".encode() + CHUNKED

    def provider(self) -> Retrying:
        """Make the provider, which waits long before it asks again; the server must be there."""
        return Retrying(self.subject.provider(self.server.url), _PATIENT)

    @property
    def plain(self) -> Reference:
        """The answer that is plain text."""
        return self.subject.references[0]

    @property
    def calling(self) -> Reference:
        """The answer that calls the tools ``weather``, ``time`` and ``ping``."""
        return self.subject.references[1]

    def pieces(self, reference: Reference) -> tuple[list[bytes], int]:
        """Give a stream, record by record, and how many of these come before its end mark."""
        subject = self.subject
        records = [subject.wire.record(json.dumps(event).encode()) for event in reference.events]
        if isinstance(subject.wire, ServerSent) and subject.wire.done:
            records.append(subject.wire.record(DONE))
        return records, next(n for n, event in enumerate(reference.events) if subject.is_end(event))

    def whole(self, reference: Reference) -> list[Step]:
        """Give the steps of a stream that comes at once, and ends."""
        return [self.head, *map(chunk, self.pieces(reference)[0]), LAST_CHUNK]

    def held(self, pieces: list[bytes], pace: float) -> list[Step]:
        """Give the steps of a stream that comes piece by piece, after so many seconds each, and never ends."""
        return [self.head, *(step for piece in pieces for step in (pace, chunk(piece))), "hold"]

    def _answer(self, asked: Any) -> list[Step]:
        said = json.dumps(asked)
        *_, last = _PROMPT.finditer(said)
        number = int(last[2])
        match last[1]:
            case "again":
                return self.whole(self.plain)
            case "hold":
                self.holds.add(number)
                return ["hold"]
            case _:
                return self.cases[number](said.count(LOOKING, last.end()))


@dataclass
class Upstreams:
    """The servers of all dialects, the stores, and what there was when no run had begun."""

    of: dict[str, Upstream]
    stores: dict[str, Store]
    sockets: int
    tasks: set[asyncio.Task[Any]]

    async def left(self) -> list[str]:
        """Give what is left of runs that are over, but for idle connections and threads."""
        return await left_by_runs([upstream.server for upstream in self.of.values()], self.tasks, self.sockets)


@asynccontextmanager
async def upstreams(folder: Path) -> AsyncIterator[Upstreams]:
    """Start the servers, and open the stores, in a folder; they are closed again."""
    made = {subject.name: Upstream(subject) for subject in SUBJECTS}
    async with AsyncExitStack() as stack:
        for upstream in made.values():
            await stack.enter_async_context(upstream.server)
        stores: dict[str, Store] = {
            "memory": MemoryStore(),
            "sqlite": DatabaseStore(f"sqlite:///{folder / 'stops.db'}"),
        }
        for store in stores.values():
            stack.push_async_callback(store.close)
        yield Upstreams(made, stores, descriptors()["socket"], asyncio.all_tasks())
