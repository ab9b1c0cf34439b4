"""Promises: answers that are awaited whole or read piece by piece, and the scopes that own them.

This module owns when a producer starts, who may end it, and how its pieces, its whole and its errors reach readers. It
does not know what is produced: messages, runs and token streams are promises made by higher modules.

A reader owns nothing: it waits on a future of its own, so its time-out or cancellation is nobody else's business. A
promise is owned by a `Scope`: the one it was made in, else one that stands for the task that made it, else (made in no
task) its event loop. What ends an owner cancels what it owns.
"""

# ruff: noqa: SLF001 - promises, scopes and readers are one mechanism and know each other's insides
from __future__ import annotations

import asyncio
import inspect
import logging
import sys
from collections import deque
from collections.abc import Sequence
from contextvars import Context, ContextVar, copy_context
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, Never, NoReturn, Self, TypeVar, cast
from weakref import WeakKeyDictionary

from plait.errors import Cancelled, ConfigurationError, NotReplayable

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterable
    from types import TracebackType

T = TypeVar("T")
Piece = TypeVar("Piece")

GRACE: Final = 1.0
"""Seconds a cancelled producer may take to clean up before it is reported."""

_log = logging.getLogger(__name__)
_Outcome = Literal["resolved", "failed", "cancelled"]
_Waiting = dict[asyncio.Future[None], None]  # a dict, because a reader that gives up must leave the queue in O(1)


class _Unset(Enum):
    UNSET = "unset"


_UNSET: Final = _Unset.UNSET
_FATAL: Final = (KeyboardInterrupt, SystemExit, GeneratorExit)  # told to readers, and raised all the same


class Scope:
    """Owns promises and tasks: nothing that is started in it outlives it.

    ``async with Scope():`` makes it the owner of every promise made in the block, also by functions and tasks called
    there. Leaving the block normally waits for them (their errors go to their readers, not to the block); leaving it
    by an exception or by cancellation cancels them and waits, at most `GRACE` seconds, until they really ended. A
    bounded stream that the leaving task would have had to read is discarded unread, so that its producer can finish.

    While a promise's producer runs, the current scope is the promise's own; it ends with the producer.
    """

    # The context of a run outlives the run wherever a callback keeps it (a pooled connection keeps that of the run that
    # opened it). So contexts hold this small object, never the promise, and it lets go of the promise at the end.
    __slots__ = ("__weakref__", "_children", "_closed", "_entered", "_loop", "_outer", "_promise")

    def __init__(self) -> None:
        self._children: dict[asyncio.Task[Any], Promise[Any] | asyncio.Task[Any]] | None = None
        self._closed = self._entered = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._outer: Scope | None = None
        self._promise: Promise[Any] | None = None

    @property
    def closed(self) -> bool:
        """Whether it has ended: a promise made in it now is cancelled from the start."""
        return self._closed

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """Own a task of this event loop: it is waited for or cancelled as the promises are."""
        if self._loop is None:
            self._loop = task.get_loop()
        self._own(task, task)
        task.add_done_callback(self._disown)
        if self._closed:
            task.cancel()

    def cancel(self) -> None:
        """Cancel all that is owned, now; what is made in this scope later is cancelled from the start."""
        self._closed = True
        for child in tuple(self._children.values()) if self._children else ():
            child.cancel()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        if self._closed or self._entered or self._loop not in {None, loop}:
            msg = "a Scope can be entered once, in the event loop of what it owns; make a new one"
            raise ConfigurationError(msg)
        self._entered, self._loop = True, loop
        self._outer = _scope.get()
        _scope.set(self)
        return self

    async def __aexit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        if _scope.get() is self:
            _scope.set(self._outer)
        if error is None:
            try:
                while self._children:
                    for child in tuple(self._children.values()):
                        if isinstance(child, StreamedPromise):
                            child._owner_leaves()
                    await asyncio.wait(tuple(self._children))
            except BaseException:
                await self._wind_up()
                raise
        await self._wind_up()

    async def _wind_up(self) -> None:
        self.cancel()
        if self._children:
            await _let_end(self._children)

    def _own(self, task: asyncio.Task[Any], child: Promise[Any] | asyncio.Task[Any]) -> None:
        if self._children is None:
            self._children = {}
        self._children[task] = child

    def _disown(self, task: asyncio.Task[Any]) -> None:
        if self._children is not None:
            self._children.pop(task, None)

    def _task_ended(self, _task: asyncio.Task[Any]) -> None:
        self.cancel()


_scope: ContextVar[Scope | None] = ContextVar("plait_scope", default=None)
_scope_of_task: WeakKeyDictionary[asyncio.Task[Any], Scope] = WeakKeyDictionary()
_loop_owned: Final = Scope()  # never closed: asyncio cancels its tasks when their loop is closed


def current_scope() -> Scope | None:
    """Give the innermost scope round the caller (a block's or a producer's), or None."""
    return _scope.get()


def current_promise() -> Promise[Any] | None:
    """Give the promise whose producer the caller is part of, or None."""
    scope = _scope.get()
    while scope is not None and scope._promise is None:
        scope = scope._outer
    return None if scope is None else scope._promise


class Promise(Generic[T]):
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

    __slots__ = (
        "__weakref__",
        "_context",
        "_error",
        "_loop",
        "_name",
        "_owner",
        "_resolver",
        "_scope",
        "_state",
        "_task",
        "_traceback",
        "_waiting",
        "_whole",
    )

    def __init__(
        self,
        resolver: Callable[[], Awaitable[T]] | None = None,
        *,
        prefill_result: T | Literal[_Unset.UNSET] = _UNSET,
        start_soon: bool = True,
        name: str | None = None,
        owner: Scope | None = None,
    ) -> None:
        if (resolver is None) is (prefill_result is _UNSET):
            msg = f"{type(self).__name__} {name!r} needs either resolver= or prefill_result="
            raise ConfigurationError(msg)
        self._resolver = resolver
        self._prepare(prefill_result, start_soon=start_soon, name=name, owner=owner)

    def _prepare(
        self, whole: T | Literal[_Unset.UNSET], *, start_soon: bool, name: str | None, owner: Scope | None
    ) -> None:
        self._state: Literal["pending", "running"] | _Outcome = "pending"
        self._name = name
        self._whole: T | None = None
        self._error: BaseException | None = None
        self._traceback: TracebackType | None = None
        self._waiting: _Waiting = {}
        self._owner = owner
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._scope: Scope | None = None
        self._context: Context | None = None
        if whole is not _UNSET:
            self._state, self._whole = "resolved", whole
            return
        loop = _running_loop()
        if loop is not None and owner is None:
            self._owner = _enclosing_scope(loop)
        if loop is not None and start_soon:
            self._start(loop)
        else:
            self._context = copy_context()  # it runs in its maker's context, whoever reads it first

    def __await__(self) -> Generator[Any, None, T]:
        if not self.done():
            loop = self._bind()
            if not self.done():
                future: asyncio.Future[None] = loop.create_future()
                self._waiting[future] = None
                try:
                    yield from future
                finally:
                    self._waiting.pop(future, None)
        if self._error is None:
            return cast("T", self._whole)
        try:
            self._raise()
        finally:
            del self  # the traceback keeps this frame, which must not keep the promise

    async def aresolve(self) -> T:
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

    def cancel(self) -> None:
        """Cancel the producer and all it started; readers get `Cancelled` after the pieces there are.

        It is cancelled at once, also when its producer takes time to clean up. One that is done stays as it is.
        Called from outside its event loop (another thread, a finalizer), the loop is told to do it.
        """
        if self.done() or _pass_on(self._loop, self.cancel):
            return
        self._settle("cancelled", error=self._cancelled_error("was cancelled"))
        if self._loop is None or self._loop.is_closed():
            return
        if self._scope is not None:
            self._scope.cancel()
        if self._task is not None:
            self._task.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self._end()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}{'' if self._name is None else f' {self._name!r}'} {self._state}>"

    async def _end(self) -> None:
        """Cancel, and wait until the producer really ended."""
        self.cancel()
        if self._task is not None:
            await _let_end((self._task,))

    def _bind(self) -> asyncio.AbstractEventLoop:
        """Start if need be, and give the loop to wait on. Whoever waits here is `current_promise`."""
        loop = asyncio.get_running_loop()
        if self._state == "pending":
            self._start(loop)
        elif loop is not self._loop:
            msg = f"{self!r} belongs to another event loop; read it there, or await it there before reading it here"
            raise ConfigurationError(msg)
        return loop

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._owner is None:
            self._owner = _loop_owned
        owner = self._owner
        if owner._closed:
            self._settle("cancelled", error=self._cancelled_error("was cancelled, for its owner has ended"))
            return
        if owner is not _loop_owned and owner._loop is not loop:
            if owner._loop is not None:
                msg = f"{self!r} is owned by a scope of another event loop; read it there"
                raise ConfigurationError(msg)
            owner._loop = loop
        self._loop = loop
        self._state = "running"
        self._task = loop.create_task(self._produce(), name=self._name or type(self).__name__, context=self._context)
        self._context = None
        owner._own(self._task, self)
        self._task.add_done_callback(self._ended)

    async def _make(self) -> T:
        return await cast("Callable[[], Awaitable[T]]", self._resolver)()

    async def _produce(self) -> None:
        scope = self._scope = Scope()
        scope._loop, scope._outer, scope._promise = self._loop, self._owner, self
        _scope.set(scope)
        try:
            try:
                whole = await self._make()
            except _FATAL:
                raise
            except BaseException:
                await scope._wind_up()
                raise
            if scope._children:
                await scope._wind_up()
        except asyncio.CancelledError:
            raise  # readers are told in _ended, as for a task that was cancelled before it began
        except _FATAL as error:
            scope.cancel()
            self._fail(error)
            raise
        except BaseException as error:  # noqa: BLE001 - it is raised to every reader
            self._fail(error)
        else:
            self._settle("resolved", whole)
        finally:
            scope._closed, scope._promise = True, None
            del self, scope  # the error's traceback may keep this frame, which must not keep the promise

    def _ended(self, task: asyncio.Task[None]) -> None:
        cast("Scope", self._owner)._disown(task)
        self._task = self._scope = self._owner = None
        if not task.cancelled():
            task.exception()  # asked for, so that asyncio does not report it as never retrieved
        if not self.done():
            self._settle("cancelled", error=self._cancelled_error("was cancelled"))

    def _settle(self, state: _Outcome, whole: T | None = None, error: BaseException | None = None) -> None:
        if self.done():
            return
        self._state, self._whole, self._error = state, whole, error
        self._resolver = self._context = None
        _wake(self._waiting)

    def _fail(self, error: BaseException) -> None:
        if self.done():  # readers have been told that it was cancelled
            _log.warning("%r raised %s while it was cleaning up", self, type(error).__name__)
            return
        traceback = error.__traceback__
        while traceback is not None and traceback.tb_frame.f_globals is globals():
            traceback = traceback.tb_next
        if isinstance(error, StopAsyncIteration):  # to an `async for` it would look like the end
            reason = RuntimeError(f"{type(self).__name__} {self._name!r}: the producer raised StopAsyncIteration")
            reason.__cause__ = error
            error = reason
        self._traceback = error.__traceback__ = traceback or error.__traceback__
        self._settle("failed", error=error)

    def _raise(self) -> NoReturn:
        error = cast("BaseException", self._error)
        try:
            raise error.with_traceback(self._traceback)
        finally:
            del self, error  # as in __await__

    def _cancelled_error(self, what: str) -> Cancelled:
        return Cancelled(f"{type(self).__name__}{'' if self._name is None else f' {self._name!r}'} {what}")


class StreamedPromise(Promise[T], Generic[Piece, T]):
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

    __slots__ = ("_bound", "_discarding", "_fold", "_pieces", "_reader", "_room", "_stalled", "_streamer", "_taken")

    def __init__(
        self,
        streamer: Callable[[], AsyncIterable[Sequence[Piece]]] | None = None,
        resolver: Callable[[Sequence[Piece]], T | Awaitable[T]] | None = None,
        *,
        prefill_pieces: Iterable[Piece] | None = None,
        prefill_result: T | Literal[_Unset.UNSET] = _UNSET,
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
        self._resolver = None
        self._streamer = streamer
        self._fold = resolver
        self._bound = bound
        self._pieces: list[Piece] | deque[Piece] = list(prefill_pieces or ()) if bound is None else deque()
        self._stalled: _Waiting = {}
        self._room: asyncio.Future[None] | None = None
        self._taken = self._discarding = False
        self._reader: asyncio.Task[Any] | None = None
        if prefill_result is _UNSET and streamer is None and resolver is None:
            prefill_result = cast("T", tuple(self._pieces))
        self._prepare(prefill_result, start_soon=start_soon, name=name, owner=owner)

    def __await__(self) -> Generator[Any, None, T]:
        if self._bound is not None and not self._taken:
            self._discard()
        return Promise.__await__(self)

    def __aiter__(self) -> PieceReader[Piece]:
        return PieceReader(self)

    def batches(self) -> BatchReader[Piece]:
        """Read lists of pieces, each list all that came since the last; from the first piece on, like ``async for``."""
        return BatchReader(PieceReader(self))

    def sole_reader(self) -> PieceReader[Piece]:
        """Read as one who alone holds the promise: dropping the reader half read cancels the promise at once.

        For an iterator that is all the caller gets to see: ``break`` or ``del`` ends the producer, and ``aclose``
        also waits until it ended.
        """
        return PieceReader(self, sole=True)

    async def _make(self) -> T:
        if self._streamer is not None:
            stream = self._streamer()
            try:
                await self._fill(stream)
            finally:
                await _close(stream)
        pieces: Sequence[Piece] = tuple(self._pieces) if self._bound is None else _NotKept()
        if self._fold is None:
            return cast("T", pieces)
        whole = self._fold(pieces)
        return cast("T", await whole if inspect.isawaitable(whole) else whole)

    async def _fill(self, stream: AsyncIterable[Sequence[Piece]]) -> None:
        pieces, stalled, bound = self._pieces, self._stalled, self._bound
        async for batch in stream:
            if self._state != "running":  # cancelled, and the streamer took no notice
                break
            if isinstance(batch, str | bytes):
                msg = f"{self!r}: a streamer yields lists of pieces, not {type(batch).__name__}; wrap it in one_by_one"
                raise ConfigurationError(msg)
            if self._discarding:
                continue
            pieces.extend(batch)
            if stalled and batch:
                _wake(stalled)
            while bound is not None and len(pieces) >= bound:
                self._room = asyncio.get_running_loop().create_future()
                await self._room

    def _pop(self) -> Piece:
        piece = cast("deque[Piece]", self._pieces).popleft()
        self._more_room()
        return piece

    def _pop_all(self) -> list[Piece]:
        pieces = list(self._pieces)
        self._pieces.clear()
        self._more_room()
        return pieces

    def _more_room(self) -> None:
        if self._room is not None and not self._room.done() and len(self._pieces) < cast("int", self._bound):
            self._room.set_result(None)

    async def _more(self) -> None:
        """Wait until there are more pieces, or the end."""
        loop = self._bind()
        if self.done():
            return
        future: asyncio.Future[None] = loop.create_future()
        self._stalled[future] = None
        try:
            await future
        finally:
            self._stalled.pop(future, None)
            del self  # as in __await__

    def _take(self) -> None:
        """Give the one seat of a bounded stream to the calling task."""
        if self._taken:
            msg = f"{self!r} keeps no pieces and has, or had, its one reader; make it without bound= to replay it"
            raise NotReplayable(msg)
        self._taken = True
        self._reader = asyncio.current_task() if _running_loop() is not None else None

    def _discard(self) -> None:
        if self.done() or _pass_on(self._loop, self._discard):
            return
        self._taken = self._discarding = True
        self._pieces.clear()
        self._more_room()
        _wake(self._stalled)

    def _owner_leaves(self) -> None:
        reader = self._reader
        if self._bound is not None and (reader is None or reader.done() or reader is asyncio.current_task()):
            self._discard()

    def _settle(self, state: _Outcome, whole: T | None = None, error: BaseException | None = None) -> None:
        super()._settle(state, whole, error)
        self._streamer = self._fold = self._reader = None
        _wake(self._stalled)


class PieceReader(Generic[Piece]):
    """One reading of a stream, piece by piece; made by iterating a `StreamedPromise`."""

    __slots__ = ("_closed", "_lease", "_position", "_promise", "_sole")

    def __init__(self, promise: StreamedPromise[Piece, Any], *, sole: bool = False) -> None:
        self._promise = promise
        self._position = 0
        self._closed = False
        self._sole = sole
        self._lease: _Lease | None = None
        if promise._bound is not None:
            promise._take()
        if sole:
            self._lease = _Lease(promise.cancel)
        elif promise._bound is not None:
            self._lease = _Lease(promise._discard)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Piece:
        pieces = self._promise._pieces
        if self._position >= len(pieces):
            try:
                await self._next_or_end()
            except BaseException:
                del self, pieces  # as in Promise.__await__; a sole reader must not be kept by the error that it met
                raise
        if isinstance(pieces, deque):
            return self._promise._pop()
        piece = pieces[self._position]
        self._position += 1
        return piece

    async def aclose(self) -> None:
        """Leave: a sole reader cancels the promise and waits until it ended; a bounded stream runs on unread."""
        self._closed = True
        self._position = sys.maxsize
        if self._sole:
            await self._promise._end()
        elif self._lease is not None:
            self._promise._discard()

    def batches(self) -> BatchReader[Piece]:
        """Read on in lists, each all that is there."""
        return BatchReader(self)

    async def _next_batch(self) -> list[Piece]:
        pieces = self._promise._pieces
        try:
            if self._position >= len(pieces):
                await self._next_or_end()
            if isinstance(pieces, deque):
                return self._promise._pop_all()
            batch = pieces[self._position :]
            self._position += len(batch)
            return batch
        finally:
            del self, pieces  # as in __anext__

    async def _next_or_end(self) -> None:
        """Return when there is an unread piece; raise the error, or StopAsyncIteration, at the end."""
        promise = self._promise
        try:
            while not self._closed and self._position >= len(promise._pieces):
                if promise._discarding:
                    msg = f"what was unread of {promise!r} was discarded when its scope was left"
                    raise NotReplayable(msg)
                if not promise.done():
                    await promise._more()
                elif promise._error is not None:
                    promise._raise()
                else:
                    break
            else:
                if not self._closed:
                    return
            raise StopAsyncIteration
        finally:
            del self, promise  # as in __anext__


class BatchReader(Generic[Piece]):
    """One reading of a stream in lists of pieces; made by `StreamedPromise.batches`."""

    __slots__ = ("_reader",)

    def __init__(self, reader: PieceReader[Piece]) -> None:
        self._reader = reader

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> Coroutine[Any, Any, list[Piece]]:
        return self._reader._next_batch()

    async def aclose(self) -> None:
        """Leave, as `PieceReader.aclose` does."""
        await self._reader.aclose()


class _Lease:
    """Calls when it is dropped: with the reader that holds it, at once, in whatever thread that happens."""

    __slots__ = ("_leave",)

    def __init__(self, leave: Callable[[], None]) -> None:
        self._leave = leave

    def __del__(self) -> None:
        self._leave()


class _NotKept(Sequence[Never]):
    """The pieces of a bounded stream, for its resolver."""

    def __getitem__(self, _index: object) -> NoReturn:
        msg = "a bounded stream keeps no pieces, so there is no whole of them; read it, or make it without bound="
        raise NotReplayable(msg)

    def __len__(self) -> int:
        return self[0]


async def one_by_one(pieces: AsyncIterable[Piece]) -> AsyncIterator[list[Piece]]:
    """Turn an iterator of single pieces into the batches a streamer gives; it is closed with them, also half read."""
    try:
        async for piece in pieces:
            yield [piece]
    finally:
        await _close(pieces)


async def _close(stream: object) -> None:
    """Close an async generator that may be half read; asyncio would do it later, in a task that nobody owns."""
    aclose = getattr(stream, "aclose", None)
    if aclose is not None:
        await aclose()


async def _let_end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Wait at most `GRACE` seconds for cancelled tasks; a cancellation meanwhile is raised when that is over."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + GRACE
    left = {task for task in tasks if not task.done()} - {asyncio.current_task()}
    cancelled: asyncio.CancelledError | None = None
    while left and (seconds := deadline - loop.time()) > 0:
        try:
            await asyncio.wait(left, timeout=seconds)
        except asyncio.CancelledError as error:
            cancelled = error
        left = {task for task in left if not task.done()}
    for task in left:
        _log.warning("%r was cancelled and is still running after %g s", task.get_name(), GRACE)
    if cancelled is not None:
        try:
            raise cancelled
        finally:
            del cancelled


def _wake(waiting: _Waiting) -> None:
    for future in waiting:
        if not future.done():
            try:
                future.set_result(None)
            except RuntimeError:
                return  # the loop is closed: nobody waits there any more
    waiting.clear()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _pass_on(loop: asyncio.AbstractEventLoop | None, callback: Callable[[], None]) -> bool:
    """Have the callback called in its loop, unless that is here, closed, or not yet known; say whether."""
    if loop is None or loop is _running_loop():
        return False
    try:
        loop.call_soon_threadsafe(callback)
    except RuntimeError:
        return False
    return True


def _enclosing_scope(loop: asyncio.AbstractEventLoop) -> Scope | None:
    """Give the current scope, else the one that stands for the current task; None outside both."""
    scope = _scope.get()
    if scope is not None and scope._loop is loop:  # contexts are copied to other threads, and so to other loops
        return scope
    task = asyncio.current_task(loop)
    if task is None:
        return None
    scope = _scope_of_task.get(task)
    if scope is None:
        scope = _scope_of_task[task] = Scope()
        scope._loop = loop
        task.add_done_callback(scope._task_ended)
    return scope
