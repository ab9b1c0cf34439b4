"""Promises, streamed promises and scopes: each case that makes sense both ways runs eager and lazy."""

# ruff: noqa: SLF001 - what a promise keeps and forgets shows only inside it
from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import sys
import threading
import traceback
import weakref
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from plait import scopes
from plait.errors import Cancelled, ConfigurationError, NotReplayable
from plait.promises import Promise, Scope, StreamedPromise, current_promise, current_scope, one_by_one

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Sequence

both = pytest.mark.parametrize("start_soon", [True, False], ids=["eager", "lazy"])
SOON = 5.0  # no test waits this long unless it fails

Ints = StreamedPromise[int, Any]


class Whole:
    """A result that can be told from an equal one, and weakly held."""


async def tick(count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def forever() -> NoReturn:
    await asyncio.Event().wait()
    raise AssertionError


async def read(promise: AsyncIterable[int]) -> tuple[list[int], BaseException | None]:
    """Give the pieces, and the error that came after them."""
    pieces: list[int] = []
    try:
        async for piece in promise:
            pieces.append(piece)  # noqa: PERF401 - what came before an error is wanted
    except Exception as error:  # noqa: BLE001
        return pieces, error
    return pieces, None


def counted(*batches: list[int], error: BaseException | None = None) -> Callable[[], AsyncIterator[list[int]]]:
    async def streamer() -> AsyncIterator[list[int]]:
        for batch in batches:
            await asyncio.sleep(0)
            yield batch
        if error is not None:
            raise error

    return streamer


def endless(closed: list[str] | None = None) -> Callable[[], AsyncIterator[list[int]]]:
    async def streamer() -> AsyncIterator[list[int]]:
        try:
            yield [1, 2]
            await forever()
        finally:
            if closed is not None:
                closed.append("closed")

    return streamer


def others() -> set[asyncio.Task[Any]]:
    return asyncio.all_tasks() - {asyncio.current_task()}


@pytest.fixture(autouse=True)
async def _no_noise() -> AsyncIterator[None]:
    """Fail when the loop was told of an exception that nobody retrieved."""
    noise: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: noise.append(context["message"]))
    yield
    await tick()
    gc.collect()
    assert noise == []


# --- the whole -------------------------------------------------------------------------------------------------------


@pytest.mark.fault("C09")
@both
async def test_ten_readers_early_and_late_get_the_same_object(start_soon: bool) -> None:
    calls = []
    go = asyncio.Event()

    async def resolver() -> Whole:
        calls.append(1)
        await go.wait()
        return Whole()

    promise = Promise(resolver, start_soon=start_soon)
    async with asyncio.timeout(SOON), asyncio.TaskGroup() as group:
        early = [group.create_task(promise.aresolve()) for _ in range(10)]
        await tick()
        go.set()
    late = [await promise for _ in range(10)]
    assert len({id(task.result()) for task in early} | {id(whole) for whole in late}) == 1
    assert calls == [1]


async def test_a_prefilled_promise_is_resolved_and_starts_nothing() -> None:
    promise: Promise[int | None] = Promise(prefill_result=None)
    assert (promise.done(), await promise, others()) == (True, None, set())


@pytest.mark.parametrize(
    "make",
    [
        Promise,
        lambda: Promise(forever, prefill_result=1),
        Ints,
        lambda: Ints(endless(), prefill_pieces=[1]),
        lambda: Ints(endless(), prefill_result=1),
        lambda: Ints(endless(), bound=0),
        lambda: Ints(prefill_pieces=[1], bound=1),
    ],
)
async def test_contradicting_arguments_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(ConfigurationError):
        make()


async def test_an_eager_promise_starts_at_the_next_tick_and_a_lazy_one_when_read() -> None:
    started = []

    async def resolver(name: str) -> None:
        started.append(name)

    eager = Promise(lambda: resolver("eager"))
    lazy = Promise(lambda: resolver("lazy"), start_soon=False)
    assert started == []
    await tick(1)
    assert started == ["eager"]
    await tick(10)
    assert started == ["eager"]
    await lazy
    await eager
    assert started == ["eager", "lazy"]


async def test_a_lazy_stream_starts_when_iterated() -> None:
    promise = Ints(counted([1], [2]), start_soon=False)
    assert repr(promise) == "<StreamedPromise pending>"
    assert await read(promise) == ([1, 2], None)


@both
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "pieces"])
async def test_a_reader_that_times_out_changes_nothing(start_soon: bool, stream: bool) -> None:
    go = asyncio.Event()

    async def streamer() -> AsyncIterator[list[int]]:
        yield [1]
        await go.wait()
        yield [2]

    promise = Ints(streamer, sum, start_soon=start_soon)
    reader: Coroutine[Any, Any, object] = read(promise) if stream else promise.aresolve()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader, 0.01)
    other = asyncio.create_task(promise.aresolve())
    await tick()
    assert not promise.done()
    go.set()
    async with asyncio.timeout(SOON):
        assert (await other, await promise, await read(promise)) == (3, 3, ([1, 2], None))


@both
async def test_a_cancelled_reader_changes_nothing(start_soon: bool) -> None:
    go = asyncio.Event()

    async def resolver() -> str:
        await go.wait()
        return "whole"

    promise = Promise(resolver, start_soon=start_soon)
    first, second = asyncio.create_task(promise.aresolve()), asyncio.create_task(promise.aresolve())
    await tick()
    first.cancel()
    await tick()
    assert (first.cancelled(), second.done(), promise.done()) == (True, False, False)
    go.set()
    async with asyncio.timeout(SOON):
        assert (await second, await promise) == ("whole", "whole")


async def test_readers_that_gave_up_are_forgotten() -> None:
    promise = Ints(endless())
    await tick()
    for _ in range(20):
        for reader in (promise.aresolve(), read(promise)):
            task: asyncio.Task[object] = asyncio.create_task(reader)
            await tick()
            task.cancel()
            await tick()
    assert not promise._waiting
    assert not promise._stalled
    await promise._end()


# --- errors ----------------------------------------------------------------------------------------------------------


@both
async def test_every_reader_gets_the_error_with_its_original_traceback(start_soon: bool) -> None:
    async def culprit() -> NoReturn:
        msg = "broken"
        raise ValueError(msg)

    promise = Promise(culprit, start_soon=start_soon)
    errors, depths, tails = [], [], []
    for _ in range(5):
        with pytest.raises(ValueError, match="broken") as caught:
            await promise
        frames = traceback.extract_tb(caught.value.__traceback__)
        errors.append(caught.value)
        depths.append(len(frames))
        tails.append(frames[-1].name)
    assert len(set(map(id, errors))) == 1
    assert len(set(depths)) == 1
    assert set(tails) == {"culprit"}


async def test_an_error_passes_through_a_chain_of_promises() -> None:
    async def culprit() -> NoReturn:
        raise LookupError

    first = Promise(culprit)
    second = Promise(first.aresolve)
    third = Promise(second.aresolve, start_soon=False)
    with pytest.raises(LookupError) as caught:
        await third
    assert traceback.extract_tb(caught.value.__traceback__)[-1].name == "culprit"
    with pytest.raises(LookupError) as again:
        await first
    assert again.value is caught.value


@pytest.mark.fault("C09")
@both
async def test_an_error_nobody_reads_makes_no_noise(start_soon: bool) -> None:
    ran = []

    async def culprit() -> NoReturn:
        ran.append(1)
        raise LookupError

    promise = Promise(culprit, start_soon=start_soon)
    await tick()
    assert ran == ([1] if start_soon else [])
    held = weakref.ref(promise)
    del promise
    gc.collect()
    assert held() is None  # so the loop has been told all it will be told of it, and `_no_noise` sees that


async def test_a_resolver_that_cannot_be_called_is_an_error_for_readers() -> None:
    promise: Promise[int] = Promise(None.__class__)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        await promise


async def test_a_stop_async_iteration_of_a_producer_does_not_look_like_the_end() -> None:
    def resolver(pieces: Sequence[int]) -> int:
        raise StopAsyncIteration

    pieces, error = await read(Ints(counted([1]), resolver))
    assert (pieces, type(error), type(error.__cause__ if error else None)) == ([1], RuntimeError, StopAsyncIteration)


# --- pieces ----------------------------------------------------------------------------------------------------------


@both
async def test_ten_readers_early_and_late_see_the_same_pieces(start_soon: bool) -> None:
    promise = Ints(counted([1, 2], [], [3], [4, 5]), start_soon=start_soon)
    early = [asyncio.create_task(read(promise)) for _ in range(10)]
    async with asyncio.timeout(SOON):
        seen = [await task for task in early] + [await read(promise) for _ in range(10)]
    assert seen == [([1, 2, 3, 4, 5], None)] * 20
    assert await promise == (1, 2, 3, 4, 5)


@both
async def test_an_error_comes_after_the_earlier_pieces_on_every_replay(start_soon: bool) -> None:
    error = ValueError("late")
    promise = Ints(counted([1], [2, 3], error=error), start_soon=start_soon)
    early = asyncio.create_task(read(promise))
    async with asyncio.timeout(SOON):
        seen = [await early, await read(promise), await read(promise)]
    assert seen == [([1, 2, 3], error)] * 3
    with pytest.raises(ValueError, match="late"):
        await promise


async def test_batches_arrive_as_they_were_made_and_replay_as_one() -> None:
    promise = Ints(counted([1, 2], [3], [4, 5]))
    live = [batch async for batch in promise.batches()]
    replay = [batch async for batch in promise.batches()]
    assert (live, replay) == ([[1, 2], [3], [4, 5]], [[1, 2, 3, 4, 5]])


async def test_a_batch_belongs_to_its_reader() -> None:
    promise = Ints(counted([1, 2]))
    async for batch in promise.batches():
        batch.clear()
    assert (await read(promise), await promise) == (([1, 2], None), (1, 2))


async def test_a_promise_can_stream_another() -> None:
    first = Ints(counted([1, 2], [3]))
    second = Ints(first.batches, sum)
    assert (await read(second), await second) == (([1, 2, 3], None), 6)


async def test_single_pieces_are_wrapped_and_their_iterator_closed() -> None:
    closed = []

    async def pieces() -> AsyncIterator[int]:
        try:
            for n in range(3):
                yield n
            await forever()
        finally:
            closed.append("closed")

    promise = Ints(lambda: one_by_one(pieces()))
    reader = aiter(promise)
    async with asyncio.timeout(SOON):
        assert [await anext(reader) for _ in range(3)] == [0, 1, 2]
        await promise._end()
    assert closed == ["closed"]


async def test_a_streamer_of_text_is_told_to_yield_lists() -> None:
    async def streamer() -> AsyncIterator[str]:
        yield "not a list"

    with pytest.raises(ConfigurationError, match="one_by_one"):
        await StreamedPromise[str, Any](streamer)


@pytest.mark.parametrize("kind", ["plain", "async"])
async def test_the_resolver_makes_the_whole_of_all_pieces(kind: str) -> None:
    async def resolver(pieces: Sequence[int]) -> int:
        await asyncio.sleep(0)
        return sum(pieces)

    promise = Ints(counted([1, 2], [3]), sum if kind == "plain" else resolver)
    assert await promise == 6


async def test_prefilled_pieces_replay() -> None:
    alone: StreamedPromise[int, tuple[int, ...]] = Ints(prefill_pieces=[1, 2])
    folded = Ints(prefill_pieces=[1, 2], resolver=sum)
    known = Ints(prefill_pieces=[1, 2], prefill_result="three")
    assert (alone.done(), folded.done(), known.done()) == (True, False, True)
    assert [await read(alone), await read(folded), await read(known)] == [([1, 2], None)] * 3
    assert (await alone, await folded, await known) == ((1, 2), 3, "three")


async def test_waiting_costs_one_future_per_batch_and_reading_what_is_there_none(monkeypatch: Any) -> None:
    loop = asyncio.get_running_loop()
    made: list[object] = []
    create_future = loop.create_future

    def counting() -> asyncio.Future[Any]:
        made.append(1)
        return create_future()

    promise = Ints(counted(*[[n] * 100 for n in range(20)]))
    monkeypatch.setattr(loop, "create_future", counting)
    await read(promise)
    live = len(made)
    await read(promise)
    assert (live <= 22, len(made) - live) == (True, 0)


# --- bounded ---------------------------------------------------------------------------------------------------------


def ahead(produced: list[int], total: int) -> Callable[[], AsyncIterator[list[int]]]:
    async def pieces() -> AsyncIterator[int]:
        for n in range(total):
            produced.append(n)
            yield n

    return lambda: one_by_one(pieces())


@both
@pytest.mark.parametrize("bound", [1, 3])
async def test_a_bounded_producer_is_never_further_ahead_than_its_bound(start_soon: bool, bound: int) -> None:
    produced: list[int] = []
    promise = Ints(ahead(produced, 20), bound=bound, start_soon=start_soon)
    seen, lead = [], []
    async with asyncio.timeout(SOON):
        async for piece in promise:
            seen.append(piece)
            await tick(10)
            lead.append(len(produced) - len(seen))
    assert seen == list(range(20))
    assert max(lead) == bound
    assert len(promise._pieces) == 0


async def test_a_bounded_stream_has_one_reader() -> None:
    promise = Ints(counted([1], [2]), bound=5)
    assert await read(promise) == ([1, 2], None)
    for again in (promise.__aiter__, promise.batches, promise.sole_reader):
        with pytest.raises(NotReplayable):
            again()


async def test_a_bounded_reader_gets_the_error_after_the_pieces() -> None:
    error = ValueError("late")
    assert await read(Ints(counted([1], [2], error=error), bound=1)) == ([1, 2], error)


async def test_bounded_batches() -> None:
    produced: list[int] = []
    promise = Ints(ahead(produced, 7), bound=3)
    async with asyncio.timeout(SOON):
        assert [n async for batch in promise.batches() for n in batch] == list(range(7))


@pytest.mark.parametrize("how", ["break", "aclose", "del"])
async def test_leaving_a_bounded_reader_lets_the_producer_finish(how: str) -> None:
    produced: list[int] = []
    promise = Ints(ahead(produced, 50), lambda _: "whole", bound=2)
    async with asyncio.timeout(SOON):
        if how == "break":
            async for _ in promise:
                break
        else:
            reader = aiter(promise)
            await anext(reader)
            if how == "aclose":
                await reader.aclose()
                with pytest.raises(StopAsyncIteration):
                    await anext(reader)
            del reader
        assert await promise == "whole"
    assert (len(produced), len(promise._pieces)) == (50, 0)


async def test_awaiting_a_bounded_stream_without_a_reader_discards_it() -> None:
    produced: list[int] = []
    promise = Ints(ahead(produced, 50), lambda _: "whole", bound=2)
    async with asyncio.timeout(SOON):
        assert await promise == "whole"
    with pytest.raises(NotReplayable):
        aiter(promise)


async def test_a_bounded_stream_has_no_whole_of_its_pieces() -> None:
    unread = await Ints(counted([1]), bound=2)
    for look in (list, len):
        with pytest.raises(NotReplayable):
            look(unread)
    error = (await read(Ints(counted([1]), sum, bound=2)))[1]
    assert isinstance(error, NotReplayable)


async def test_leaving_the_scope_discards_what_is_unread() -> None:
    produced: list[int] = []
    async with asyncio.timeout(SOON), Scope():
        promise = Ints(ahead(produced, 50), lambda _: "whole", bound=2)
        unread = Ints(ahead([], 50), lambda _: "whole", bound=2)
        reader = aiter(promise)
        await anext(reader)
    assert (await promise, await unread, len(produced)) == ("whole", "whole", 50)
    with pytest.raises(NotReplayable, match="discarded when its scope was left"):
        await anext(reader)


async def test_leaving_the_scope_lets_another_task_read_on() -> None:
    async with asyncio.timeout(SOON), Scope():
        promise = Ints(ahead([], 50), bound=2)
        reader = Promise(lambda: read(promise))
        await tick()
    assert await reader == (list(range(50)), None)


# --- cancelling ------------------------------------------------------------------------------------------------------


@both
async def test_cancel_ends_the_producer_and_readers_get_cancelled_after_the_pieces(start_soon: bool) -> None:
    closed: list[str] = []
    promise = Ints(endless(closed), name="x", start_soon=start_soon)
    early = asyncio.create_task(read(promise))
    whole = asyncio.create_task(promise.aresolve())
    await tick(5)
    promise.cancel()
    promise.cancel()
    assert (promise.done(), promise.cancelled(), repr(promise)) == (True, True, "<StreamedPromise 'x' cancelled>")
    async with asyncio.timeout(SOON):
        for pieces, error in (await early, await read(promise)):
            assert (pieces, type(error), str(error)) == ([1, 2], Cancelled, "StreamedPromise 'x' was cancelled")
        with pytest.raises(Cancelled):
            await whole
    await tick()
    assert (closed, others()) == (["closed"], set())


async def test_cancel_before_the_first_tick_or_the_first_reader() -> None:
    started: list[str] = []

    async def resolver() -> None:
        started.append("started")

    for start_soon in (True, False):
        promise = Promise(resolver, start_soon=start_soon)
        promise.cancel()
        await tick()
        with pytest.raises(Cancelled):
            await promise
    assert started == []


async def test_cancel_of_a_resolved_promise_changes_nothing() -> None:
    promise: Promise[int] = Promise(prefill_result=1)
    promise.cancel()
    assert (promise.cancelled(), await promise) == (False, 1)


async def test_cancel_reaches_what_the_producer_started_and_what_that_started() -> None:
    made: list[Promise[object]] = []

    async def outer(depth: int) -> None:
        if depth:
            made.append(Promise(lambda: outer(depth - 1)))
        await forever()

    top = Promise(lambda: outer(3))
    await tick(10)
    assert len(others()) == 4
    top.cancel()
    assert [p.cancelled() for p in made] == [True] * 3
    await tick()
    assert others() == set()


@both
async def test_a_producer_that_ends_takes_its_children_with_it(start_soon: bool) -> None:
    children: list[Promise[object]] = []

    async def resolver() -> str:
        children.append(Promise(forever))
        await tick()
        return "whole"

    async def failing() -> NoReturn:
        await resolver()
        raise LookupError

    assert await Promise(resolver, start_soon=start_soon) == "whole"
    assert others() == set()
    with pytest.raises(LookupError):
        await Promise(failing, start_soon=start_soon)
    assert (others(), [child.cancelled() for child in children]) == (set(), [True, True])


@pytest.mark.parametrize("stream", [False, True])
async def test_a_cancelled_error_from_foreign_code_leaves_no_reader_hanging(stream: bool) -> None:
    async def resolver() -> NoReturn:
        await asyncio.sleep(0)
        raise asyncio.CancelledError

    streamer = counted([1], error=asyncio.CancelledError())
    promise: Promise[object] = Ints(streamer) if stream else Promise(resolver)
    async with asyncio.timeout(SOON):
        with pytest.raises(Cancelled):
            await promise
    assert promise.cancelled()


async def test_a_task_cancelled_behind_the_promises_back_before_it_began() -> None:
    promise = Promise(forever)
    (task,) = others()
    task.cancel()
    async with asyncio.timeout(SOON):
        with pytest.raises(Cancelled):
            await promise


async def test_a_producer_that_ignores_its_cancellation_is_waited_for_a_while_and_reported(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scopes, "GRACE", 0.05)
    let_go = asyncio.Event()

    async def stubborn() -> None:
        while not let_go.is_set():
            try:
                await let_go.wait()
            except asyncio.CancelledError:
                continue

    promise = Promise(stubborn, name="mule")
    async with asyncio.timeout(SOON):
        async with promise:
            await tick()
        assert caplog.record_tuples == [
            ("plait.promises", logging.WARNING, "'mule' was cancelled and is still running after 0.05 s")
        ]
        with pytest.raises(Cancelled):
            await promise
        let_go.set()
        await tick()
    assert others() == set()


async def test_a_producer_may_take_time_to_clean_up() -> None:
    steps = []

    async def careful() -> None:
        try:
            await forever()
        finally:
            await asyncio.sleep(0.02)
            steps.append("cleaned up")

    async with Promise(careful) as promise:
        await tick()
    assert (steps, promise.cancelled(), others()) == (["cleaned up"], True, set())


async def test_a_second_cancel_does_not_cut_the_clean_up_short() -> None:
    steps = []

    async def careful() -> None:
        try:
            await forever()
        finally:
            await asyncio.sleep(0.02)
            steps.append("cleaned up")

    async def owner() -> None:
        async with Scope():
            _ = Promise(careful)
            await forever()

    task = asyncio.create_task(owner())
    await tick()
    for _ in range(3):
        task.cancel()
        await tick()
    async with asyncio.timeout(SOON):
        with pytest.raises(asyncio.CancelledError):
            await task
    assert (steps, others()) == (["cleaned up"], set())


async def test_an_error_raised_while_cleaning_up_is_said_and_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def clumsy() -> None:
        try:
            await forever()
        finally:
            raise LookupError

    async with Promise(clumsy, name="c") as promise:
        await tick()
    with pytest.raises(Cancelled):
        await promise
    assert caplog.messages == ["<Promise 'c' cancelled> raised LookupError while it was cleaning up"]


async def test_leaving_the_block_of_a_promise_that_is_done() -> None:
    async with Promise(lambda: asyncio.sleep(0, "whole")) as promise:
        assert await promise == "whole"
    assert await promise == "whole"


async def test_the_time_out_of_a_reader_does_not_own_the_promise_but_a_scope_does() -> None:
    async with Scope() as scope:
        promise = Promise(forever)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await promise
        assert not promise.done()
        scope.cancel()
    assert promise.cancelled()


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("stream", [False, True])
def test_an_interrupt_in_a_producer_is_raised_and_leaves_no_reader_hanging(
    error: type[BaseException], stream: bool
) -> None:
    async def resolver() -> NoReturn:
        await asyncio.sleep(0)
        raise error

    loop = asyncio.new_event_loop()
    noise: list[object] = []
    loop.set_exception_handler(lambda _loop, context: noise.append(context))
    seen: list[object] = []

    async def reader(promise: Promise[object]) -> None:
        try:
            if isinstance(promise, StreamedPromise):
                async for piece in promise:
                    seen.append(piece)  # noqa: PERF401 - what came before an error is wanted
            await promise
        except error as caught:
            seen.append(type(caught))

    async def main() -> None:
        promise: Promise[object] = Ints(counted([1], error=error())) if stream else Promise(resolver)
        async with asyncio.TaskGroup() as group:
            for _ in range(2):
                group.create_task(reader(promise))

    task = loop.create_task(main())
    with pytest.raises(error):
        loop.run_until_complete(task)
    loop.run_until_complete(asyncio.wait_for(task, SOON))
    loop.close()
    assert sorted(map(repr, seen)) == sorted(map(repr, [1, 1, error, error] if stream else [error, error]))
    del task
    gc.collect()
    assert noise == []


def test_an_interrupt_leaves_asyncio_run_at_once_with_its_children_cancelled() -> None:
    ended = []

    async def child() -> None:
        try:
            await forever()
        finally:
            ended.append("child")

    async def resolver() -> NoReturn:
        _ = Promise(child)
        await tick()
        raise KeyboardInterrupt

    async def main() -> None:
        await Promise(resolver)

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())
    assert ended == ["child"]


async def test_a_generator_exit_of_a_producer_reaches_its_readers() -> None:
    async def resolver() -> NoReturn:
        raise GeneratorExit

    promise = Promise(resolver)
    async with asyncio.timeout(SOON):
        with pytest.raises(GeneratorExit):
            await promise


def test_an_interrupt_cancels_what_its_producer_started() -> None:
    children: list[Promise[object]] = []

    async def resolver() -> NoReturn:
        children.append(Promise(forever))
        await tick()
        raise KeyboardInterrupt

    async def main() -> None:
        await Promise(resolver)

    loop = asyncio.new_event_loop()
    task = loop.create_task(main())
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(task)
    assert children[0].cancelled()
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(task)
    loop.run_until_complete(tick())
    assert asyncio.all_tasks(loop) == set()
    loop.close()


async def test_a_reader_and_its_promise_cancelled_in_one_tick() -> None:
    promise = Ints(endless())
    readers: list[asyncio.Task[Any]] = [asyncio.create_task(promise.aresolve()), asyncio.create_task(read(promise))]
    await tick()
    for reader in readers:
        reader.cancel()
    promise.cancel()
    await asyncio.wait(readers, timeout=SOON)
    assert [reader.cancelled() for reader in readers] == [True, True]


async def test_a_streamer_left_while_it_waits_for_its_reader_is_closed_before_its_task_ends() -> None:
    closed = []

    async def streamer() -> AsyncIterator[list[int]]:
        try:
            while True:
                yield [1]
        finally:
            await asyncio.sleep(0)
            closed.append("closed")

    async with Ints(streamer, bound=2):
        await tick()
    assert closed == ["closed"]


async def test_pieces_that_come_after_the_cancellation_are_not_seen() -> None:
    async def streamer() -> AsyncIterator[list[int]]:
        with suppress(asyncio.CancelledError):
            yield [1]
            await forever()
        yield [2]
        yield [3]

    async with asyncio.timeout(SOON), Ints(streamer) as promise:
        assert await anext(aiter(promise)) == 1
        await tick()
    pieces, error = await read(promise)
    assert (pieces, type(error), others()) == ([1], Cancelled, set())


async def test_a_producer_that_ends_its_own_promise_does_not_wait_for_itself(caplog: pytest.LogCaptureFixture) -> None:
    async def resolver() -> None:
        async with promise:
            pass
        await forever()

    promise = Promise(resolver)
    async with asyncio.timeout(SOON):
        with pytest.raises(Cancelled):
            await promise
        await tick()
    assert (caplog.messages, others()) == ([], set())


# --- owners ----------------------------------------------------------------------------------------------------------


async def test_leaving_a_scope_waits_for_what_was_started_in_it() -> None:
    order: list[int] = []

    async def child(depth: int) -> None:
        await tick()
        if depth:
            _ = Promise(lambda: child(depth - 1), owner=scope)
        order.append(depth)

    async with asyncio.timeout(SOON), Scope() as scope:
        _ = Promise(lambda: child(2))
    assert (order, scope.closed, others()) == ([2, 1, 0], True, set())


async def test_errors_of_what_a_scope_owns_go_to_readers_not_to_the_block() -> None:
    async def culprit() -> NoReturn:
        raise LookupError

    async with Scope():
        promise = Promise(culprit)
    with pytest.raises(LookupError):
        await promise


async def test_leaving_a_scope_by_an_error_cancels_what_it_owns() -> None:
    ended = []

    async def child() -> None:
        try:
            await forever()
        finally:
            await tick()
            ended.append("child")

    async def block() -> NoReturn:
        async with Scope():
            made.append(Promise(child))
            await tick()
            raise LookupError

    made: list[Promise[object]] = []
    with pytest.raises(LookupError):
        await block()
    assert (ended, made[0].cancelled(), others()) == (["child"], True, set())


async def test_a_time_out_round_a_scope_cancels_what_it_owns() -> None:
    made: list[Promise[object]] = []
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01), Scope():
            made.append(Promise(forever))
    assert (made[0].cancelled(), others()) == (True, set())


@pytest.mark.parametrize("waiting", [False, True], ids=["in the block", "while leaving"])
async def test_cancelling_the_task_of_a_scope_cancels_what_it_owns(waiting: bool) -> None:
    made: list[Promise[object]] = []

    async def owner() -> None:
        async with Scope():
            made.append(Promise(forever))
            if not waiting:
                await made[0]

    task = asyncio.create_task(owner())
    await tick()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (made[0].cancelled(), others()) == (True, set())


@both
async def test_a_promise_made_in_no_scope_ends_with_the_task_that_made_it(start_soon: bool) -> None:
    async def caller() -> Promise[object]:
        promise: Promise[object] = Promise(forever, start_soon=start_soon)
        await tick()
        return promise

    promise = await asyncio.create_task(caller())
    await tick()
    async with asyncio.timeout(SOON):
        with pytest.raises(Cancelled):
            await promise
    assert others() == set()


async def test_cancelling_a_task_that_awaits_its_promise_cancels_it() -> None:
    made: list[Promise[object]] = []

    async def caller() -> None:
        made.append(Promise(forever))
        await made[0]

    task = asyncio.create_task(caller())
    await tick()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await tick()
    assert (made[0].cancelled(), others()) == (True, set())


async def test_a_task_made_in_a_scope_makes_promises_for_that_scope() -> None:
    async def caller() -> Promise[object]:
        return Promise(tick)

    async with Scope():
        promise = await asyncio.create_task(caller())
        await tick(5)
    assert (promise.cancelled(), await promise) == (False, None)


async def test_a_promise_can_be_given_to_another_owner() -> None:
    scope = Scope()

    async def caller() -> Promise[object]:
        return Promise(forever, owner=scope)

    promise = await asyncio.create_task(caller())
    await tick()
    assert not promise.done()
    async with scope:
        scope.cancel()
    assert (promise.cancelled(), others()) == (True, set())


@both
async def test_a_promise_of_a_scope_that_has_ended_is_cancelled(start_soon: bool) -> None:
    async with Scope() as scope:
        lazy = Promise(forever, start_soon=False)
    late = Promise(forever, owner=scope, start_soon=start_soon)
    for promise in (lazy, late):
        with pytest.raises(Cancelled, match="owner has ended"):
            await promise


async def test_a_scope_is_entered_once() -> None:
    async with Scope() as scope:
        with pytest.raises(ConfigurationError):
            await scope.__aenter__()
    with pytest.raises(ConfigurationError):
        await scope.__aenter__()


@pytest.mark.parametrize("closed", [False, True])
async def test_a_scope_owns_tasks_too(closed: bool) -> None:
    scope = Scope()
    task = asyncio.create_task(forever())
    if closed:
        scope.cancel()
        scope.adopt(task)
    else:
        scope.adopt(task)
        scope.cancel()
    await tick()
    assert task.cancelled()


async def test_the_current_scope_and_promise() -> None:
    seen: list[object] = []

    async def resolver() -> None:
        seen.append(current_promise())
        async with Scope() as inner:
            seen.extend([current_scope() is inner, current_promise()])
        seen.append(current_scope() is not inner)

    assert (current_scope(), current_promise()) == (None, None)
    promise = Promise(resolver)
    await promise
    assert seen == [promise, True, promise, True]
    assert (current_scope(), current_promise()) == (None, None)


async def test_a_lazy_promise_runs_in_the_context_it_was_made_in() -> None:
    var = contextvars.ContextVar("var", default="none")

    async def resolver() -> str:
        return var.get()

    var.set("maker")
    promise = Promise(resolver, start_soon=False)
    var.set("reader")
    assert await promise == "maker"


# --- event loops -----------------------------------------------------------------------------------------------------


def test_made_without_a_loop_it_waits_for_its_first_reader() -> None:
    promise = Ints(counted([1], [2]), sum)

    async def main() -> object:
        await tick()
        state = repr(promise)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(promise, 0)
        return state, await read(promise), await promise

    assert asyncio.run(main()) == ("<StreamedPromise pending>", ([1, 2], None), 3)
    assert asyncio.run(promise.aresolve()) == 3
    assert asyncio.run(read(promise)) == ([1, 2], None)


async def test_a_bound_promise_refuses_another_loop() -> None:
    promise: Ints = Ints(endless(), name="far")
    await tick()

    def elsewhere() -> None:
        for reading in (promise.aresolve, lambda: read(promise)):
            with pytest.raises(ConfigurationError, match="'far' running> belongs to another event loop"):
                raise asyncio.run(reading())[1] or AssertionError

    await asyncio.to_thread(elsewhere)
    await asyncio.to_thread(promise.cancel)
    await tick()
    assert promise.cancelled()


async def test_a_promise_made_in_another_loop_of_a_copied_context_is_not_ours() -> None:
    async def main() -> str:
        return await Promise(lambda: asyncio.sleep(0, "whole"))

    async with Scope():
        assert await asyncio.to_thread(asyncio.run, main()) == "whole"


def test_a_promise_whose_loop_was_closed_is_cancelled() -> None:
    made: list[Promise[object]] = []

    async def main() -> None:
        made.append(Promise(forever))
        await tick()

    asyncio.run(main())
    with pytest.raises(Cancelled):
        asyncio.run(made[0].aresolve())


async def test_a_promise_made_in_a_callback_is_owned_by_the_loop() -> None:
    made: list[Promise[str]] = []
    asyncio.get_running_loop().call_soon(lambda: made.append(Promise(lambda: asyncio.sleep(0, "whole"))))
    await tick()
    assert await made[0] == "whole"


# --- the sole reader -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batches", [False, True])
async def test_breaking_out_of_a_sole_reader_cancels_at_once(batches: bool) -> None:
    closed: list[str] = []
    promise = Ints(endless(closed))
    async with asyncio.timeout(SOON):
        if batches:
            async for batch in promise.sole_reader().batches():
                assert batch == [1, 2]
                break
        else:
            async for piece in promise.sole_reader():
                assert piece == 1
                break
        assert promise.cancelled()
        await tick()
    assert (closed, others()) == (["closed"], set())


async def test_dropping_a_sole_reader_that_an_error_or_a_time_out_left() -> None:
    async def failing(promise: StreamedPromise[int, object]) -> None:
        async for _ in promise.sole_reader():
            raise LookupError

    async def waiting(promise: StreamedPromise[int, object]) -> None:
        async with asyncio.timeout(0.01):
            async for _ in promise.sole_reader():
                pass

    for reading in (failing, waiting):
        promise: StreamedPromise[int, object] = Ints(endless())
        with pytest.raises((LookupError, TimeoutError)) as caught:
            await reading(promise)
        assert promise.cancelled()
        del caught


async def test_closing_a_sole_reader_cancels_and_waits() -> None:
    steps = []

    async def streamer() -> AsyncIterator[list[int]]:
        try:
            yield [1]
            await forever()
        finally:
            await asyncio.sleep(0.01)
            steps.append("cleaned up")

    async with asyncio.timeout(SOON), aclosing(Ints(streamer).sole_reader()) as reader:
        assert await anext(reader) == 1
    assert (steps, others()) == (["cleaned up"], set())
    with pytest.raises(StopAsyncIteration):
        await anext(reader)


async def test_a_sole_reader_read_to_the_end_cancels_nothing() -> None:
    promise = Ints(counted([1], [2]), sum)
    assert [n async for n in promise.sole_reader()] == [1, 2]
    assert await promise == 3


async def test_a_bounded_sole_reader_cancels() -> None:
    promise = Ints(ahead([], 50), bound=2)
    async for _ in promise.sole_reader():
        break
    assert promise.cancelled()


async def test_a_sole_reader_never_used_cancels_too() -> None:
    promise = Ints(endless(), start_soon=False)
    promise.sole_reader()
    assert promise.cancelled()


async def test_a_sole_reader_dropped_in_another_thread_cancels_in_the_loop() -> None:
    promise = Ints(endless())
    held = [promise.sole_reader()]
    await tick()
    thread = threading.Thread(target=held.clear)
    thread.start()
    async with asyncio.timeout(SOON):
        with pytest.raises(Cancelled):
            await promise
    thread.join()


def test_a_sole_reader_dropped_after_its_loop_was_closed_does_no_harm() -> None:
    loop = asyncio.new_event_loop()
    held: list[object] = []

    async def main() -> StreamedPromise[int, object]:
        promise: StreamedPromise[int, object] = Ints(endless(), owner=Scope())
        held.append(promise.sole_reader())
        return promise

    promise = loop.run_until_complete(main())
    (task,) = asyncio.all_tasks(loop)
    task.cancel()
    loop.run_until_complete(asyncio.wait([task]))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
    held.clear()
    assert promise.cancelled()


def test_a_sole_reader_dropped_when_its_loop_was_closed_under_it_does_no_harm() -> None:
    loop = asyncio.new_event_loop()
    held: list[object] = []
    promise = Ints(endless(), owner=Scope())

    async def main() -> None:
        held.append(promise.sole_reader())
        held.extend([asyncio.create_task(promise.aresolve()), asyncio.create_task(read(promise))])
        await tick()

    loop.run_until_complete(main())
    tasks = asyncio.all_tasks(loop)
    loop.close()
    del held[0]
    assert promise.cancelled()
    for task in tasks:
        task._log_destroy_pending = False  # type: ignore[attr-defined]


# --- what is left ----------------------------------------------------------------------------------------------------


async def test_a_thousand_promises_leave_no_task_and_no_owner_entry() -> None:
    async with Scope() as scope:
        made = [Ints(counted([n], [n]), sum, start_soon=bool(n % 2)) for n in range(1000)]
        assert [await promise for promise in made] == [2 * n for n in range(1000)]
        await tick(1)
        assert (others(), scope._children) == (set(), {})


@both
async def test_a_dropped_promise_takes_its_pieces_along_without_the_collector(start_soon: bool) -> None:
    class Piece:
        pass

    async def streamer() -> AsyncIterator[list[Piece]]:
        yield [Piece()]

    gc.collect()
    gc.disable()
    try:
        promise: StreamedPromise[Piece, list[Piece]] = StreamedPromise(streamer, list, start_soon=start_soon)
        piece = weakref.ref(await anext(aiter(promise)))
        whole = weakref.ref((await promise)[0])
        await tick(1)
        assert (piece() is None, whole() is None) == (False, False)
        del promise
        assert (piece(), whole()) == (None, None)
    finally:
        gc.enable()


async def test_a_dropped_failed_promise_takes_its_pieces_along_without_the_collector() -> None:
    class Piece:
        pass

    async def streamer() -> AsyncIterator[list[Piece]]:
        yield [Piece()]
        raise LookupError

    async def reading(promise: StreamedPromise[Piece, object]) -> weakref.ref[Piece]:
        first = weakref.ref(await anext(aiter(promise)))
        with suppress(LookupError):
            await promise
        return first

    gc.collect()
    gc.disable()
    try:
        promise: StreamedPromise[Piece, object] = StreamedPromise(streamer)
        while not promise.done():
            await tick(1)
        await tick(1)
        first = weakref.ref(promise._pieces[0])
        del promise
        if sys.version_info >= (3, 12):
            gc.collect()  # there a failed producer's frames are a cycle, which only the collector takes apart
        assert first() is None
        read_before = await reading(StreamedPromise(streamer))
    finally:
        gc.enable()
    await tick(1)
    gc.collect()  # the error's traceback holds the reader's frame, and that its promise: as with asyncio's futures
    assert read_before() is None


async def test_a_context_that_outlives_a_promise_does_not_keep_it() -> None:
    contexts: list[contextvars.Context] = []

    async def resolver() -> Whole:
        contexts.append(contextvars.copy_context())
        return Whole()

    promise = Promise(resolver)
    whole = weakref.ref(await promise)
    await tick(1)
    del promise
    assert whole() is None


async def test_repr_says_name_and_state() -> None:
    async def culprit() -> NoReturn:
        raise LookupError

    lazy = Promise(forever, name="x", start_soon=False)
    running, failed = Promise(forever), Promise(culprit, name="bad")
    resolved: Promise[int] = Promise(prefill_result=1, name="one")
    await tick()
    assert [repr(p) for p in (lazy, running, failed, resolved)] == [
        "<Promise 'x' pending>",
        "<Promise running>",
        "<Promise 'bad' failed>",
        "<Promise 'one' resolved>",
    ]
    running.cancel()
