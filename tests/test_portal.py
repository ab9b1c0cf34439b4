from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import signal
import subprocess
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from plait.errors import Cancelled, ConfigurationError
from plait.portal import Portal, SyncStream
from plait.promises import Promise, Scope, StreamedPromise

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

PATIENCE = 10.0


@pytest.fixture
def portal() -> Iterator[Portal]:
    made = Portal()
    yield made
    made.close()


def portal_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "plait: portal"]


async def double(number: int) -> int:
    await asyncio.sleep(0)
    return 2 * number


def test_a_call_gives_what_the_coroutine_gives(portal: Portal) -> None:
    assert [portal.call(lambda number=number: double(number)) for number in range(3)] == [0, 2, 4]  # type: ignore[misc]


def test_an_error_keeps_its_type_and_its_cause(portal: Portal) -> None:
    cause, failure = KeyError("inner"), LookupError("outer")

    async def fail() -> None:
        raise failure from cause

    with pytest.raises(LookupError, match="outer") as caught:
        portal.call(fail)
    assert caught.value.__cause__ is cause


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_an_error_that_would_end_an_event_loop_ends_only_the_call(portal: Portal, kind: type[BaseException]) -> None:
    async def fail() -> None:
        raise kind

    with pytest.raises(kind):
        portal.call(fail)
    assert portal.call(lambda: double(4)) == 8


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_such_an_error_of_a_task_inside_is_the_caller_s_and_ends_nothing_else(
    portal: Portal, kind: type[BaseException]
) -> None:
    waiting, go_on = threading.Event(), threading.Event()

    async def wait() -> str:
        waiting.set()
        while not go_on.is_set():  # noqa: ASYNC110  # it is another thread's
            await asyncio.sleep(0.001)
        return "undisturbed"

    async def fail() -> None:
        raise kind

    async def in_a_task() -> None:
        await Promise(fail)

    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(portal.call, wait)
        assert waiting.wait(PATIENCE)
        with pytest.raises(kind):
            portal.call(in_a_task)
        go_on.set()
        assert other.result(PATIENCE) == "undisturbed"
    assert portal.call(lambda: double(4)) == 8


def test_what_a_call_gave_is_kept_by_nobody(portal: Portal) -> None:
    class Whole:
        pass

    async def make() -> Whole:
        return Whole()

    gc.disable()
    try:
        made = weakref.ref(portal.call(make))
        portal.call(lambda: double(1))  # by now the task of the first call has ended
        assert made() is None
    finally:
        gc.enable()


async def test_an_awaiting_caller_has_work_done_in_the_portal(portal: Portal) -> None:
    async def where() -> str:
        return threading.current_thread().name

    assert await portal.bring(where) == "plait: portal"
    ended = threading.Event()

    async def wait() -> None:
        try:
            await asyncio.sleep(PATIENCE)
        finally:
            ended.set()

    bringing = asyncio.create_task(portal.bring(wait))
    await portal.bring(where)
    bringing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await bringing
    assert await asyncio.to_thread(ended.wait, PATIENCE)

    async def inside() -> str:
        return await portal.bring(where)

    assert await portal.bring(inside) == "plait: portal"


def test_all_callers_share_one_thread(portal: Portal) -> None:
    async def where() -> str:
        return threading.current_thread().name

    with ThreadPoolExecutor(50) as pool:
        names = set(pool.map(lambda _: portal.call(where), range(200)))
    assert names == {"plait: portal"}
    assert len(portal_threads()) <= 2  # this one, and that of the process


def test_calls_of_many_threads_run_side_by_side(portal: Portal) -> None:
    meeting = asyncio.Barrier(50)

    async def meet() -> int:
        async with asyncio.timeout(PATIENCE):
            return await meeting.wait()

    with ThreadPoolExecutor(50) as pool:
        assert sorted(pool.map(lambda _: portal.call(meet), range(50))) == list(range(50))


def test_a_call_sees_the_caller_s_context_variables(portal: Portal) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
    variable.set("set by the caller")

    async def seen() -> str:
        return variable.get()

    assert portal.call(seen) == "set by the caller"


async def test_a_call_works_under_a_running_event_loop(portal: Portal) -> None:
    assert portal.call(lambda: double(21)) == 42


def test_a_call_on_the_portal_s_own_thread_is_refused(portal: Portal) -> None:
    async def nested() -> int:
        return portal.call(lambda: double(1))

    with pytest.raises(ConfigurationError, match="would wait for itself; in a coroutine await the async form"):
        portal.call(nested)


def test_what_ends_a_caller_ends_its_call(portal: Portal) -> None:
    begun, ended = threading.Event(), threading.Event()

    async def wait() -> None:
        begun.set()
        try:
            await asyncio.sleep(PATIENCE)
        finally:
            await asyncio.sleep(0)  # it may clean up
            ended.set()

    def interrupt() -> None:
        assert begun.wait(PATIENCE)
        os.kill(os.getpid(), signal.SIGINT)

    interrupter = threading.Thread(target=interrupt)
    interrupter.start()
    with pytest.raises(KeyboardInterrupt):
        portal.call(wait)
    assert ended.is_set()  # the caller waited for it
    interrupter.join()
    assert portal.call(lambda: double(1)) == 2


def test_a_closed_portal_ends_its_thread_and_its_calls_and_begins_anew(portal: Portal) -> None:
    before = len(portal_threads())
    begun = threading.Event()

    async def wait() -> None:
        begun.set()
        await asyncio.sleep(PATIENCE)

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(portal.call, wait)
        assert begun.wait(PATIENCE)
        portal.close()
        with pytest.raises(Cancelled, match="cancelled before it had its answer"):
            waiting.result(PATIENCE)
    assert len(portal_threads()) == before
    assert portal.call(lambda: double(3)) == 6


async def test_a_call_ends_with_the_scope_of_another_loop_it_was_made_in(portal: Portal) -> None:
    begun, outcome = threading.Event(), []

    async def wait() -> None:
        begun.set()
        await asyncio.sleep(PATIENCE)

    def called() -> None:
        try:
            portal.call(wait)
        except Cancelled as error:
            outcome.append(str(error))

    async with Scope() as scope:
        working = asyncio.get_running_loop().run_in_executor(None, contextvars.copy_context().run, called)
        await asyncio.to_thread(begun.wait, PATIENCE)
        scope.cancel()
    await asyncio.wait_for(working, PATIENCE)
    assert outcome == ["a sync call was cancelled before it had its answer"]


# --- streams ----------------------------------------------------------------------------------------------------------


class Source:
    """Gives batches of numbers; notes whether it was ended early."""

    def __init__(self, *batches: list[int], error: Exception | None = None, endless: bool = False) -> None:
        self.batches, self.error, self.endless = batches, error, endless
        self.ended = threading.Event()

    async def read(self) -> AsyncIterator[list[int]]:
        try:
            for batch in self.batches:
                yield batch
            if self.error is not None:
                raise self.error
            if self.endless:
                await asyncio.Event().wait()
        finally:
            self.ended.set()


def test_a_stream_gives_its_pieces_in_order_and_ends(portal: Portal) -> None:
    stream = portal.iterate(Source([1, 2], [], [3]).read)
    assert isinstance(stream, SyncStream)
    assert (list(stream), list(stream)) == ([1, 2, 3], [])


def test_a_stream_may_be_opened_by_a_coroutine(portal: Portal) -> None:
    async def opened() -> AsyncIterator[list[int]]:
        return Source([4, 5]).read()

    assert list(portal.iterate(opened)) == [4, 5]


def test_an_error_comes_after_the_pieces_before_it(portal: Portal) -> None:
    stream = portal.iterate(Source([1], [2], error=LookupError("broken")).read)
    assert [next(stream), next(stream)] == [1, 2]
    with pytest.raises(LookupError, match="broken"):
        next(stream)


@pytest.mark.parametrize("how", ["drop", "close", "with"])
def test_leaving_a_stream_early_ends_its_source(portal: Portal, how: str) -> None:
    source = Source([1, 2], endless=True)
    stream = portal.iterate(source.read)
    assert next(stream) == 1
    if how == "drop":
        del stream
        assert source.ended.wait(PATIENCE)
        return
    if how == "close":
        stream.close()
    else:
        with stream:
            pass
    assert source.ended.is_set()  # leaving waits for the end
    assert list(stream) == []


def test_a_stream_may_be_closed_by_another_thread(portal: Portal) -> None:
    source = Source([1], endless=True)
    stream = portal.iterate(source.read)
    assert next(stream) == 1
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(list, stream)
        stream.close()
        assert reading.result(PATIENCE) == []
    assert source.ended.is_set()


def test_two_threads_may_read_one_stream(portal: Portal) -> None:
    stream = portal.iterate(Source(*[[number] for number in range(100)]).read)
    with ThreadPoolExecutor(2) as pool:
        read = list(pool.map(lambda _: list(stream), range(2)))
    assert sorted(read[0] + read[1]) == list(range(100))


def test_what_goes_wrong_in_opening_a_stream_is_raised_where_it_was_asked(portal: Portal) -> None:
    async def opened() -> AsyncIterator[list[int]]:
        raise failure

    failure = LookupError("closed")
    with pytest.raises(LookupError, match="closed"):
        portal.iterate(opened)


def test_leaving_a_stream_of_a_promise_waits_until_that_has_ended(portal: Portal) -> None:
    source = Source([1], endless=True)

    async def opened() -> Any:
        return StreamedPromise(source.read).sole_reader().batches()

    stream = portal.iterate(opened)
    assert next(stream) == 1
    stream.close()
    assert source.ended.is_set()


def test_ctrl_c_while_a_stream_waits_ends_it(portal: Portal) -> None:
    source = Source([1], endless=True)
    stream = portal.iterate(source.read)
    assert next(stream) == 1
    timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        next(stream)
    timer.join()
    assert source.ended.is_set()


# --- programs ---------------------------------------------------------------------------------------------------------


def run(program: str) -> tuple[int, str, str]:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=45, check=False)
    return done.returncode, done.stdout, done.stderr


def test_a_program_ends_without_a_word_while_a_call_is_under_way_elsewhere() -> None:
    program = """
import asyncio, threading
from plait.portal import PORTAL
begun = threading.Event()
async def wait():
    begun.set()
    try:
        await asyncio.sleep(60)
    finally:
        print("ended")
def call():
    try:
        PORTAL.call(wait)
    except Exception as error:
        print(type(error).__name__)
threading.Thread(target=call, daemon=True).start()
begun.wait()
"""
    code, out, err = run(program)
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == "ended"


def test_a_call_of_a_finalizer_while_the_interpreter_ends_is_refused_and_no_deadlock() -> None:
    program = """
import os
from plait.portal import PORTAL
async def nothing(): return None
class Late:
    def __del__(self, call=PORTAL.call, write=os.write):
        try:
            call(nothing)
        except Exception as error:
            write(1, str(error).encode())
late = Late()
late.itself = late
"""
    code, out, err = run(program)
    assert (code, out, err) == (0, "no sync call can be made any more: the interpreter is ending", "")


def test_a_pool_of_waiting_threads_ends_with_the_program() -> None:
    program = """
import asyncio, threading
from concurrent.futures import ThreadPoolExecutor
from plait.portal import PORTAL
begun = threading.Semaphore(0)
async def wait():
    begun.release()
    await asyncio.sleep(60)
pool = ThreadPoolExecutor(20)
calls = [pool.submit(PORTAL.call, wait) for _ in range(20)]
for _ in calls:
    begun.acquire()
raise SystemExit(7)
"""
    assert run(program) == (7, "", "")


def test_ctrl_c_under_a_running_event_loop_cancels_a_call() -> None:
    program = """
import asyncio, os, signal, threading
from plait.portal import PORTAL
async def wait():
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        await asyncio.sleep(60)
    finally:
        print("cancelled", flush=True)
async def batches():
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        await asyncio.sleep(60)
        yield [1]
    finally:
        print("closed", flush=True)
async def call():
    PORTAL.call(wait)
async def read():
    list(PORTAL.iterate(batches))
for main in (call, read):
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        print("interrupted")
"""
    assert run(program) == (0, "cancelled\ninterrupted\nclosed\ninterrupted\n", "")


def test_a_forked_child_begins_with_a_portal_of_its_own() -> None:
    program = """
import os
from plait.portal import PORTAL
async def pid(): return os.getpid()
parent = PORTAL.call(pid)
child = os.fork()
if not child:
    ok = PORTAL.call(pid) == os.getpid() != parent
    PORTAL.close()
    os._exit(0 if ok else 1)
_, status = os.waitpid(child, 0)
print(os.waitstatus_to_exitcode(status), PORTAL.call(pid) == parent)
"""
    code, out, err = run(program)
    assert (code, out, [line for line in err.splitlines() if "fork" not in line]) == (0, "0 True\n", [])
