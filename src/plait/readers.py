"""Readers: how those who wait for a promise wait, and what they get: its whole, its pieces, its error.

This module owns what has come of a promise and each reader's place in it. It does not know who produces, or who may
end that: a reader of pieces gets the pieces and, as callables, how to wait for more and how to leave.

A reader owns nothing: it waits on a future of its own, so its time-out or cancellation is nobody else's business.
"""

# ruff: noqa: SLF001 - a stream and its readers are of one kind
from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Generic, Literal, Never, NoReturn, Protocol, Self, TypeVar, cast
from weakref import ref

from plait.errors import NotReplayable

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Coroutine, Generator
    from types import TracebackType

T_co = TypeVar("T_co", covariant=True)
Piece = TypeVar("Piece")
Piece_co = TypeVar("Piece_co", covariant=True)

Ending = Literal["resolved", "failed", "cancelled"]
Waiting = dict[asyncio.Future[None], None]
"""Those who wait for one thing: a dict, because a reader that gives up must leave the queue in O(1)."""


def join(waiting: Waiting) -> asyncio.Future[None]:
    """Give a future that `wake` ends, and that is nobody else's; who has awaited it takes it out."""
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    waiting[future] = None
    return future


def wake(waiting: Waiting) -> None:
    """Let all who wait go on."""
    for future in waiting:
        if not future.done():
            try:
                future.set_result(None)
            except RuntimeError:
                return  # the loop is closed: nobody waits there any more
    waiting.clear()


class Outcome(Generic[T_co]):
    """What has come of a promise, for any number of readers, early or late: its whole or its error.

    A subclass gets it: `_begin` is called by each reader who has to wait, and `_settle` ends the waiting, once.
    """

    __slots__ = ("_error", "_name", "_state", "_traceback", "_waiting", "_whole")

    def __init__(self, name: str | None) -> None:
        self._name = name
        self._state: Literal["pending", "running"] | Ending = "pending"
        self._whole: Any = None
        self._error: BaseException | None = None
        self._traceback: TracebackType | None = None
        self._waiting: Waiting | None = None

    def __await__(self) -> Generator[Any, None, T_co]:
        if not self.done():
            self._begin()
            if self._state == "running":
                if self._waiting is None:
                    self._waiting = {}
                waiting = self._waiting
                future = join(waiting)
                try:
                    yield from future
                finally:
                    waiting.pop(future, None)
        if self._error is None:
            whole: T_co = self._whole
            return whole
        try:
            self._raise()
        finally:
            del self  # the traceback keeps this frame, which must not keep the promise

    async def aresolve(self) -> T_co:
        """Give the whole, as ``await promise`` does."""
        try:
            return await self
        finally:
            del self  # as in __await__

    def done(self) -> bool:
        """Whether it is resolved, failed or cancelled."""
        return self._state not in {"pending", "running"}

    def cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self._state == "cancelled"

    def __repr__(self) -> str:
        return f"<{type(self).__name__}{'' if self._name is None else f' {self._name!r}'} {self._state}>"

    def _begin(self) -> None:
        raise NotImplementedError

    def _settle(self, state: Ending, whole: object = None, error: BaseException | None = None) -> None:
        """Tell the readers what came of it, unless they have been told."""
        if self.done():
            return
        self._state, self._whole, self._error = state, whole, error
        if error is not None:
            self._traceback = error.__traceback__
        if self._waiting is not None:
            wake(self._waiting)

    def _raise(self) -> NoReturn:
        """Raise the error as it was when it was settled: each reader would else leave its frames in it."""
        error = cast("BaseException", self._error)
        try:
            raise error.with_traceback(self._traceback)
        finally:
            del self, error  # as in __await__


class Window(deque[Piece]):
    """The unread pieces of a bounded stream: its one reader takes them out, its producer waits while it is full."""

    __slots__ = ("_bound", "_reader", "discarded", "room", "taken")

    def __init__(self, bound: int) -> None:
        super().__init__()
        self._bound = bound
        self._reader: ref[asyncio.Task[Any]] | None = None
        self.room: Waiting = {}
        self.taken = False
        self.discarded = False

    @property
    def full(self) -> bool:
        """Whether as many pieces are unread as may be; then the producer waits for `room`."""
        return len(self) >= self._bound

    @property
    def attended(self) -> bool:
        """Whether a task other than the calling one took the seat, and may still read."""
        reader = None if self._reader is None else self._reader()
        return reader is not None and not reader.done() and reader is not asyncio.current_task()

    def take_seat(self) -> None:
        """Let the calling task be the one reader."""
        self.taken = True
        with suppress(RuntimeError):  # no event loop runs here
            task = asyncio.current_task()
            self._reader = None if task is None else ref(task)

    def take_piece(self) -> Piece:
        """Take the first unread piece out."""
        piece = self.popleft()
        self._wake()
        return piece

    def take_all(self) -> list[Piece]:
        """Take all unread pieces out."""
        pieces = list(self)
        self.clear()
        self._wake()
        return pieces

    def discard(self) -> None:
        """Drop what is unread; the producer goes on, and nobody reads what it yields."""
        self.taken = self.discarded = True
        self.clear()
        self._wake()

    def _wake(self) -> None:
        if self.room and not self.full:
            wake(self.room)


class NotKept(Sequence[Never]):
    """The pieces of a bounded stream, for its resolver."""

    def __getitem__(self, _index: object) -> NoReturn:
        msg = "a bounded stream keeps no pieces, so there is no whole of them; read it, or make it without bound="
        raise NotReplayable(msg)

    def __len__(self) -> int:
        return self[0]


class Source(Protocol[Piece]):
    """A stream as its readers see it; `StreamedPromise` is one."""

    _pieces: list[Piece] | Window[Piece]
    """Those there are; a window's are taken out, others are kept for other readers."""

    def _more(self) -> Waiting:
        """Say where to wait for more; raises the error, or StopAsyncIteration, if there will be none."""
        ...

    def _discard(self) -> None:
        """Go on to the end, with nobody who reads."""
        ...

    def cancel(self) -> None:
        """End it now."""
        ...

    async def _end(self) -> None:
        """Cancel, and wait until it ended."""
        ...


class PieceReader(Generic[Piece_co]):
    """One reading of a stream, piece by piece; made by iterating a `StreamedPromise`."""

    __slots__ = ("_pieces", "_position", "_source")

    def __init__(self, source: Source[Piece_co]) -> None:
        self._source: Source[Piece_co] | None = source
        self._pieces = source._pieces
        self._position = 0  # in a window always 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Piece_co:
        pieces = self._pieces
        try:
            while self._position >= len(pieces):
                if self._source is None:
                    raise StopAsyncIteration  # noqa: TRY301  # it was closed, perhaps while this waited
                waiting = self._source._more()
                future = join(waiting)
                try:
                    await future
                finally:
                    waiting.pop(future, None)
        except BaseException:
            del self, pieces  # the traceback keeps this frame, and an error must not keep the reader that met it
            raise
        if isinstance(pieces, Window):
            return pieces.take_piece()
        piece = pieces[self._position]
        self._position += 1
        return piece

    async def aclose(self) -> None:
        """Leave; the promise takes no notice of it."""
        self._position = sys.maxsize
        self._source = None

    def batches(self) -> BatchReader[Piece_co]:
        """Read on in lists, each all that is there."""
        return BatchReader(self)

    async def _next_batch(self) -> list[Piece_co]:
        try:
            first = await self.__anext__()
        except BaseException:
            del self  # as in __anext__
            raise
        if isinstance(self._pieces, Window):
            return [first, *self._pieces.take_all()]
        batch = self._pieces[self._position - 1 :]
        self._position += len(batch) - 1
        return batch


class WindowReader(PieceReader[Piece_co]):
    """The one reader of a bounded stream: dropping it is leaving, at once, in whatever thread that happens."""

    __slots__ = ()

    def __del__(self) -> None:
        if self._source is not None:
            self._source._discard()

    async def aclose(self) -> None:
        """Leave: the stream runs on unread."""
        source = self._source
        await super().aclose()
        if source is not None:
            source._discard()


class SoleReader(PieceReader[Piece_co]):
    """The reader of one who alone holds a stream: dropping it ends the stream, at once, in whatever thread."""

    __slots__ = ()

    def __del__(self) -> None:
        if self._source is not None:
            self._source.cancel()

    async def aclose(self) -> None:
        """Leave: the promise is cancelled; waits until it ended."""
        source = self._source
        await super().aclose()
        if source is not None:
            await source._end()


class BatchReader(Generic[Piece_co]):
    """One reading of a stream in lists of pieces; made by `StreamedPromise.batches`."""

    __slots__ = ("_reader",)

    def __init__(self, reader: PieceReader[Piece_co]) -> None:
        self._reader = reader

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> Coroutine[Any, Any, list[Piece_co]]:
        return self._reader._next_batch()

    async def aclose(self) -> None:
        """Leave, as `PieceReader.aclose` does."""
        await self._reader.aclose()


async def one_by_one(pieces: AsyncIterable[Piece]) -> AsyncIterator[list[Piece]]:
    """Turn an iterator of single pieces into the batches a streamer gives; it is closed with them, also half read."""
    try:
        async for piece in pieces:
            yield [piece]
    finally:
        await close_stream(pieces)


async def close_stream(stream: object) -> None:
    """Close an async generator that may be half read; asyncio would do it later, in a task that nobody owns."""
    aclose = getattr(stream, "aclose", None)
    if aclose is not None:
        await aclose()
