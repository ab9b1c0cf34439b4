"""Promises: answers that are awaited whole or read piece by piece.

This module owns when a producer starts, what ends it, and what its readers are told. It does not know what is produced:
messages, runs and token streams are promises made by higher modules.

Who may end a producer without being asked is its owner's business (`plait.scopes`); how its whole, its pieces and its
errors reach readers is theirs (`plait.readers`).
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from contextvars import copy_context
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, Never, Self, TypeVar, cast, overload

from plait.errors import Cancelled, ConfigurationError, NotReplayable
from plait.readers import (
    BatchReader,
    NotKept,
    Outcome,
    PieceReader,
    SoleReader,
    Window,
    WindowReader,
    close_stream,
    join,
    one_by_one,
    wake,
)
from plait.scopes import FATAL, Producer, Scope, current_scope, owner_here, running_loop

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Awaitable, Callable, Generator, Iterable, Sequence
    from contextvars import Context

    from plait.readers import Ending, Waiting

__all__ = ["PieceReader", "Promise", "Scope", "StreamedPromise", "current_promise", "current_scope", "one_by_one"]

T_co = TypeVar("T_co", covariant=True)
Piece_co = TypeVar("Piece_co", covariant=True)

_log = logging.getLogger(__name__)


class _Unset(Enum):
    UNSET = "unset"


_UNSET: Final = _Unset.UNSET
_TEXT: Final = (str, bytes)
_OWN_FRAMES: Final = {__name__, Outcome.__module__, Producer.__module__}


class Promise(Outcome[T_co]):
    """An answer that is or will be there: ``await promise`` gives it, to any number of readers, early or late.

    Args:
        resolver: gives the whole. It runs once, in a task of its own.
        prefill_result: the whole, instead of a resolver; such a promise is resolved from the start.
        start_soon: start at the next tick of the loop; else at the first await or iteration. Made without a running
            loop, a promise waits for the first reader anyway, and is then owned by that reader's loop.
        name: what errors, logs and repr call it.
        owner: the scope that owns it; by default the enclosing one, else the calling task.

    Raises:
        ConfigurationError: not exactly one of resolver and prefill_result; when read, if it belongs to another loop.
    """

    __slots__ = ("__weakref__", "_later", "_producer", "_resolver")

    def __init__(
        self,
        resolver: Callable[[], Awaitable[T_co]] | None = None,
        *,
        prefill_result: T_co | Literal[_Unset.UNSET] = _UNSET,
        start_soon: bool = True,
        name: str | None = None,
        owner: Scope | None = None,
    ) -> None:
        if (resolver is None) is (prefill_result is _UNSET):
            msg = f"{type(self).__name__} {name!r} needs either resolver= or prefill_result="
            raise ConfigurationError(msg)
        Outcome.__init__(self, name)
        self._resolver: Callable[[], Awaitable[T_co]] = resolver or _no_resolver
        self._producer: Producer | None = None
        self._later: tuple[Scope, Context] | None = None
        if resolver is None:
            self._state, self._whole = "resolved", prefill_result
            return
        loop = running_loop()
        context = copy_context()  # it runs in its maker's context, whoever reads it first
        if owner is None:
            owner = owner_here(loop, context)
        if loop is not None and start_soon:
            self._start(loop, owner, context)
        else:
            self._later = owner, context

    def cancel(self) -> None:
        """Cancel the producer and all it started; readers get `Cancelled` after the pieces there are.

        It is cancelled at once, also when its producer takes time to clean up. One that is done stays as it is.
        Called from outside its event loop (another thread, a finalizer), the loop is told to do it.
        """
        if self.done() or self._pass_on(self.cancel):
            return
        self._settle_cancelled()
        if self._producer is not None:
            self._producer.stop()

    def owner_leaves(self) -> None:
        """Go on without the calling task, which leaves the scope that owns this; nothing to do for a whole."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self._end()

    async def _end(self) -> None:
        """Cancel, and wait until the producer really ended."""
        self.cancel()
        if self._producer is not None:
            await self._producer.wait()

    def _pass_on(self, callback: Callable[[], None]) -> bool:
        return self._producer is not None and self._producer.pass_on(callback)

    def _begin(self) -> None:
        """Start if need be, for a reader who is going to wait here."""
        loop = asyncio.get_running_loop()
        if self._later is not None:
            self._start(loop, *self._later)
        elif self._producer is None or loop is not self._producer.loop:
            msg = f"{self!r} belongs to another event loop; read it there, or await it there before reading it here"
            raise ConfigurationError(msg)

    def _start(self, loop: asyncio.AbstractEventLoop, owner: Scope, context: Context) -> None:
        if owner.closed:
            self._settle_cancelled(", for its owner has ended")
            return
        if owner.loop is not loop and not owner.bind(loop):
            msg = f"{self!r} is owned by a scope of another event loop; read it there"
            raise ConfigurationError(msg)
        self._state, self._later = "running", None
        name = self._name or type(self).__name__
        self._producer = Producer(self, self._produce, self._ended, owner, loop, name, context)

    def _make(self) -> Awaitable[T_co]:
        resolver, self._resolver = self._resolver, _no_resolver
        return resolver()

    async def _produce(self, producer: Producer) -> None:
        self._producer = producer  # an eager task runs while its producer is being made
        try:
            producer.enter()
            try:
                whole = await self._make()
            except FATAL:
                producer.cancel()
                raise
            except BaseException:
                await producer.clear()
                raise
            else:
                if producer.busy:
                    await producer.clear()
            finally:
                producer.leave()
        except asyncio.CancelledError:
            raise  # readers are told in _ended, as for a task that was cancelled before it began
        except BaseException as error:
            self._fail(error)
            if isinstance(error, FATAL):
                raise
        else:
            self._settle("resolved", whole)
        finally:
            del self  # the error's traceback may keep this frame, which must not keep the promise

    def _ended(self, task: asyncio.Task[None]) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.end(task)
        if not self.done():
            self._settle_cancelled()

    def _settle_cancelled(self, why: str = "") -> None:
        self._resolver, self._later = _no_resolver, None
        name = "" if self._name is None else f" {self._name!r}"
        self._settle("cancelled", error=Cancelled(f"{type(self).__name__}{name} was cancelled{why}"))

    def _fail(self, error: BaseException) -> None:
        if self.done():  # readers have been told that it was cancelled
            _log.warning("%r raised %s while it was cleaning up", self, type(error).__name__)
            return
        traceback = error.__traceback__
        while traceback is not None and traceback.tb_frame.f_globals.get("__name__") in _OWN_FRAMES:
            traceback = traceback.tb_next
        if isinstance(error, StopAsyncIteration):  # to an `async for` it would look like the end
            reason = RuntimeError(f"{type(self).__name__} {self._name!r}: the producer raised StopAsyncIteration")
            reason.__cause__ = error
            error = reason
        error.__traceback__ = traceback or error.__traceback__
        self._settle("failed", error=error)


class StreamedPromise(Promise[T_co], Generic[Piece_co, T_co]):
    """A promise whose pieces can be read while they come: ``async for piece in promise``.

    Every reader, early or late, gets every piece from the first on, then the error if there was one. With ``bound``
    nothing is kept: there is one reader, and the streamer is asked for more only while fewer than ``bound`` pieces are
    unread. When that reader leaves (or when the promise is awaited without one) what is unread is discarded and the
    producer goes on to its end.

    Args:
        streamer: gives an async iterator of batches, each a list of pieces; see `one_by_one` for single pieces.
        resolver: makes the whole of all pieces, plain or async; by default their tuple. With ``bound`` these pieces are
            a sequence that raises `NotReplayable` when it is looked into.
        prefill_pieces: all pieces, instead of a streamer.
        prefill_result: the whole, where it is known from the start.
        bound: the most pieces the producer may be ahead of the one reader, at least 1 (a batch is never split).
        start_soon, name, owner: as for `Promise`.

    Raises:
        ConfigurationError: neither or both of streamer and prefilled values; a bound below 1 or without a streamer.
    """

    __slots__ = ("_fold", "_pieces", "_stalled", "_streamer")

    @overload
    def __init__(
        self: StreamedPromise[Piece_co, tuple[Piece_co, ...]],
        streamer: Callable[[], AsyncIterable[Sequence[Piece_co]]] | None = None,
        resolver: None = None,
        *,
        prefill_pieces: Iterable[Piece_co] | None = None,
        bound: int | None = None,
        start_soon: bool = True,
        name: str | None = None,
        owner: Scope | None = None,
    ) -> None: ...

    @overload
    def __init__(
        self,
        streamer: Callable[[], AsyncIterable[Sequence[Piece_co]]],
        resolver: Callable[[Sequence[Piece_co]], Awaitable[T_co]],
        *,
        bound: int | None = None,
        start_soon: bool = True,
        name: str | None = None,
        owner: Scope | None = None,
    ) -> None: ...

    @overload
    def __init__(
        self,
        streamer: Callable[[], AsyncIterable[Sequence[Piece_co]]] | None = None,
        resolver: Callable[[Sequence[Piece_co]], T_co | Awaitable[T_co]] | None = None,
        *,
        prefill_pieces: Iterable[Piece_co] | None = None,
        prefill_result: T_co | Literal[_Unset.UNSET] = _UNSET,
        bound: int | None = None,
        start_soon: bool = True,
        name: str | None = None,
        owner: Scope | None = None,
    ) -> None: ...

    def __init__(
        self,
        streamer: Callable[[], AsyncIterable[Sequence[Piece_co]]] | None = None,
        resolver: Callable[[Sequence[Piece_co]], T_co | Awaitable[T_co]] | None = None,
        *,
        prefill_pieces: Iterable[Piece_co] | None = None,
        prefill_result: T_co | Literal[_Unset.UNSET] = _UNSET,
        bound: int | None = None,
        start_soon: bool = True,
        name: str | None = None,
        owner: Scope | None = None,
    ) -> None:
        if (streamer is None) is (prefill_pieces is None and prefill_result is _UNSET):
            msg = f"{type(self).__name__} {name!r} needs either streamer= or prefill_pieces= or prefill_result="
            raise ConfigurationError(msg)
        if bound is not None and (streamer is None or bound < 1):
            msg = f"{type(self).__name__} {name!r}: bound needs a streamer and at least 1, not {bound!r}"
            raise ConfigurationError(msg)
        self._streamer = streamer
        self._fold = resolver
        self._pieces: list[Piece_co] | Window[Piece_co] = list(prefill_pieces or ()) if bound is None else Window(bound)
        self._stalled: Waiting = {}
        if prefill_result is _UNSET and streamer is None and resolver is None:
            prefill_result = cast("T_co", tuple(self._pieces))
        made = _no_resolver if prefill_result is _UNSET else None
        super().__init__(made, prefill_result=prefill_result, start_soon=start_soon, name=name, owner=owner)

    def __await__(self) -> Generator[Any, None, T_co]:
        if isinstance(self._pieces, Window) and not self._pieces.taken:
            self._discard()
        return super().__await__()

    def __aiter__(self) -> PieceReader[Piece_co]:
        return self._reader()

    def batches(self) -> BatchReader[Piece_co]:
        """Read lists of pieces, each list all that came since the last; from the first piece on, like ``async for``."""
        return BatchReader(self._reader())

    def sole_reader(self) -> PieceReader[Piece_co]:
        """Read as one who alone holds the promise: dropping the reader half read cancels the promise at once.

        For an iterator that is all the caller gets to see: ``break`` or ``del`` ends the producer, and ``aclose``
        also waits until it ended.
        """
        self._take_seat()
        return SoleReader(self)

    def owner_leaves(self) -> None:
        """Go on without the calling task, which leaves the scope that owns this; what only it could read is dropped."""
        if isinstance(self._pieces, Window) and not self._pieces.attended:
            self._discard()

    def _reader(self) -> PieceReader[Piece_co]:
        self._take_seat()
        if isinstance(self._pieces, Window):
            return WindowReader(self)
        return PieceReader(self)

    def _take_seat(self) -> None:
        if isinstance(self._pieces, Window):
            if self._pieces.taken:
                msg = f"{self!r} keeps no pieces and has, or had, its one reader; make it without bound= to replay it"
                raise NotReplayable(msg)
            self._pieces.take_seat()

    def _discard(self) -> None:
        if isinstance(self._pieces, Window) and not self.done() and not self._pass_on(self._discard):
            self._pieces.discard()
            wake(self._stalled)

    def _more(self) -> Waiting:
        """Say where a reader waits who has read all there is; raise the error, or StopAsyncIteration, at the end."""
        try:
            if isinstance(self._pieces, Window) and self._pieces.discarded:
                msg = f"what was unread of {self!r} was discarded when its scope was left"
                raise NotReplayable(msg)
            if not self.done():
                self._begin()
                if self._state == "running":
                    return self._stalled
            if self._error is None:
                raise StopAsyncIteration
            self._raise()
        finally:
            del self  # the traceback keeps this frame, which must not keep the promise

    async def _make(self) -> T_co:
        pieces, stalled = self._pieces, self._stalled
        window = pieces if isinstance(pieces, Window) else None
        streamer, self._streamer = self._streamer, None  # what it was made of need not last as long as the stream
        if streamer is not None:
            stream = await self._open(streamer)
            del streamer
            try:
                async for batch in stream:
                    if self._state != "running":  # cancelled, and the streamer took no notice
                        break
                    if isinstance(batch, _TEXT):
                        kind = type(batch).__name__
                        msg = f"{self!r}: a streamer yields lists of pieces, not {kind}; wrap it in one_by_one"
                        raise ConfigurationError(msg)
                    if window is not None and window.discarded:
                        continue
                    before = len(pieces)
                    pieces.extend(self._pieces_of(batch))
                    if stalled and len(pieces) > before:
                        wake(stalled)
                    while window is not None and window.full:
                        future = join(window.room)
                        try:
                            await future
                        finally:
                            window.room.pop(future, None)
                    del batch  # it need not last until the next one comes
            finally:
                await close_stream(stream)
        whole = self._whole_of(tuple(pieces) if window is None else NotKept())
        return cast("T_co", await whole if inspect.isawaitable(whole) else whole)

    async def _open(self, streamer: Callable[[], AsyncIterable[Sequence[Any]]]) -> AsyncIterable[Sequence[Any]]:
        """Begin the stream of batches."""
        return streamer()

    def _pieces_of(self, batch: Sequence[Any]) -> Sequence[Piece_co]:
        """Give the pieces that a batch of the stream stands for."""
        return batch

    def _whole_of(self, pieces: Sequence[Piece_co]) -> object:
        """Give the whole, or what gives it when awaited."""
        return pieces if self._fold is None else self._fold(pieces)

    def _settle(self, state: Ending, whole: object = None, error: BaseException | None = None) -> None:
        super()._settle(state, whole, error)
        self._streamer = self._fold = None
        wake(self._stalled)


async def _no_resolver() -> Never:
    """Stand for a resolver where there is none, or no longer; it is never called."""
    raise NotImplementedError


def current_promise() -> Promise[Any] | None:
    """Give the promise whose producer the caller is part of, or None."""
    scope = current_scope()
    return None if scope is None else cast("Promise[Any] | None", scope.producing)
