"""Recording what a provider is asked and gives, and giving it again from the file, without a network.

`plait.providers.tape` knows the file. A recording holds prompts and answers as they are; keys stand in no request.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from plait.attachments import path_of
from plait.errors import PlaitError, ReplayMismatch, StoreError
from plait.providers.encoding import encoded
from plait.providers.tape import (
    VERSION,
    Exchange,
    append,
    error_of,
    failure_of,
    first_difference,
    prepare,
    read,
    request_data,
)

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncGenerator, Callable

    from plait.events import Delta
    from plait.providers.base import Provider, Request
    from plait.providers.encoding import Encoded
    from plait.providers.tape import Difference

_LEAVES_WITHIN: Final = 1.0  # seconds that the reader of a cut answer has to leave, as the one before it did


class Recording:
    """A provider that asks another one, and appends every exchange to a file.

    An exchange is written when it ends: complete, with an error, or because its reader left. Exchanges of several
    tasks, and of several recordings to one file, may run at once.

    Attributes:
        provider: the one that is asked.
        path: the file.
    """

    def __init__(self, provider: Provider, path: str | os.PathLike[str]) -> None:
        """Wrap a provider. The file is made if it is not there; what it holds is kept.

        Raises:
            ConfigurationError: the file cannot be written.
            CorruptRecord: the file is there, and is no recording.
        """
        self.provider = provider
        self.path = path_of(path, "a recording")
        self.name = provider.name
        self.model = provider.model
        prepare(self.path)

    def __repr__(self) -> str:
        return f"Recording({self.provider!r}, {str(self.path)!r})"

    def encoded(self, request: Request) -> Encoded:
        """Give what would be sent for a request; see `encoded`."""
        return encoded(self.provider, request)

    async def stream(self, request: Request) -> AsyncGenerator[list[Delta], None]:
        """Answer a request; see `Provider.stream`.

        Raises:
            ModelError: what the provider raised; where it could not be recorded, with a note that says so.
            StoreError: a complete answer could not be recorded.
        """
        asked = request_data(request)
        given: list[list[Delta]] = []
        batches = self.provider.stream(request)
        try:
            try:
                async for batch in batches:
                    given.append(batch)
                    yield batch
            finally:
                await batches.aclose()
        except BaseException as error:
            try:
                self._append(asked, given, error)
            except StoreError as lost:
                error.add_note(str(lost))
            raise
        self._append(asked, given)

    def _append(self, asked: dict[str, Any], given: list[list[Delta]], end: BaseException | None = None) -> None:
        exchange = Exchange(
            v=VERSION,
            provider=self.name,
            model=self.model,
            request=asked,
            batches=given,
            error=failure_of(end) if isinstance(end, PlaitError) else None,
            cut=end is not None and not isinstance(end, PlaitError),
        )
        append(self.path, exchange)


class Replay:
    """A provider that answers from a recording, without a network.

    A request is answered by the first exchange that is not used yet and whose request is equal, so that tasks which
    ran at once may ask in another order. Answers come in the batches in which they came, or in one where they are asked
    for whole; errors are raised again, with their type and fields. There is no wait between batches.

    Attributes:
        path: the file.
        name: the name of the provider that was recorded.
        model: the name of its model.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Read a recording, as a whole.

        Raises:
            ConfigurationError: there is no such file, or it cannot be read.
            CorruptRecord: it is no recording, one of a newer version, or its last line is cut.
        """
        self.path = path_of(path, "a recording")
        exchanges = read(self.path)
        self.name = exchanges[0].provider if exchanges else "replay"
        self.model = exchanges[0].model if exchanges else ""
        self._asked = 0
        self._count = len(exchanges)
        self._unused = dict(enumerate(exchanges, 1))

    def __repr__(self) -> str:
        return f"Replay({str(self.path)!r}, {self._count} exchanges, {self.unused} not used)"

    @property
    def unused(self) -> int:
        """How many exchanges nobody has asked for yet."""
        return len(self._unused)

    async def stream(self, request: Request) -> AsyncGenerator[list[Delta], None]:
        """Answer a request; see `Provider.stream`.

        Raises:
            ReplayMismatch: the recording does not hold this request; the sentence names the first difference from the
                next exchange that is not used. Or it does, and its reader left in the middle, and this one does not.
            PlaitError: what was recorded.
        """
        number, exchange = self._take(request_data(request))
        batches = exchange.batches
        if not request.stream and exchange.error is None and not exchange.cut:
            batches = [[delta for batch in batches for delta in batch]]
        for batch in batches:
            await asyncio.sleep(0)  # as between two reads of a socket, others get their turn
            yield batch
        if exchange.error is not None:
            raise error_of(exchange.error)
        if exchange.cut:
            await asyncio.sleep(_LEAVES_WITHIN)
            msg = (
                f"exchange {number} of the recording {str(self.path)!r} ends here, after {len(exchange.batches)} "
                "batches: when it was recorded, the answer was not read to its end"
            )
            raise ReplayMismatch(msg)

    def _take(self, asked: dict[str, Any]) -> tuple[int, Exchange]:
        """Give the exchange that answers a request, with its number."""
        self._asked += 1
        first: tuple[int, Difference] | None = None
        for number, exchange in self._unused.items():
            found = first_difference(exchange.request, asked)
            if found is None:
                del self._unused[number]
                return number, exchange
            first = first or (number, found)
        where = f"the recording {str(self.path)!r}"
        if first is None:
            msg = f"{where} is used up: it holds {self._count} exchanges, and this is request {self._asked}"
            raise ReplayMismatch(msg)
        number, found = first
        msg = (
            f"request {self._asked} is not in {where}: {found.where} differs from its exchange {number}, the next one: "
            f"recorded was {found.recorded}, asked is {found.asked}"
        )
        raise ReplayMismatch(msg, **found._asdict())


def cassette(make: Callable[[], Provider], path: str | os.PathLike[str]) -> Recording | Replay:
    """Give a provider for a test: it records when there is nothing in the file yet, and replays the file ever after.

    Args:
        make: makes the provider to record. It is not called for a replay, which so needs neither key nor network.
        path: the file; delete it to record anew.

    Raises:
        ConfigurationError: the file can be neither read nor written; or what ``make`` raises.
        CorruptRecord: the file is no recording.
    """
    file = path_of(path, "a recording")
    recorded = file.exists() and file.stat().st_size > 0
    return Replay(file) if recorded else Recording(make(), file)
