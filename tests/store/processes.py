"""What the tests of stores run in processes of its own, because it forks, is killed or exits.

``python processes.py COMMAND ARGUMENTS`` prints one JSON value. Nothing here starts a thread before it forks, but for
the test of just that.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import event
from sqlalchemy.engine import Engine

from plait.entries import Entry, RunStart, entry
from plait.errors import StateConflict, StoreUnavailable
from plait.store.database import DatabaseStore
from plait.store.migrations.tables import HEAD

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

PATIENCE = 60.0  # seconds, for a machine that is slow


def entries(first: int, count: int, run_id: str = "run_1") -> list[Entry]:
    return [entry(n, RunStart(agent_name="someone" * 10), run_id) for n in range(first, first + count)]


def forked(work: Callable[[], Awaitable[object]]) -> int:
    """Run a coroutine in a child; its exit code is 0 when that went well. Gives the child's id."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        asyncio.run(asyncio.wait_for(work(), PATIENCE))
        code = 0
    except BaseException as error:  # noqa: BLE001  # a child must not go on as its parent
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(code)


def ended(pids: list[int]) -> list[int]:
    """Wait for children; gives their exit codes."""
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


def open_at_once(folder: str, files: int, processes: int) -> list[int]:
    """Let processes open and use each of several new files at the same moment; gives their exit codes."""
    codes = []
    for number in range(files):
        gate, gun = os.pipe()

        async def work(url: str = f"sqlite:///{folder}/{number}.db", gate: int = gate, gun: int = gun) -> None:
            os.close(gun)
            os.read(gate, 1)  # until the parent closes the other end
            store = DatabaseStore(url, busy_seconds=PATIENCE)
            info = await store.thread("shared")
            own = await store.new_thread()
            await store.append(own.thread_id, entries(1, 2))
            assert len(await store.read(own.thread_id)) == 2
            assert info == await store.thread("shared")
            await store.close()

        pids = [forked(work) for _ in range(processes)]
        os.close(gun)
        codes += ended(pids)
        os.close(gate)
    return codes


def hammer(path: str, processes: int, rounds: int) -> list[int]:
    """Let processes append to one thread, each entry after what they read; gives how often each was first."""
    reads = []
    pids = []
    for number in range(processes):
        tell, told = os.pipe()[::-1]

        async def work(run_id: str = f"run_{number}", tell: int = tell) -> None:
            store = DatabaseStore(f"sqlite:///{path}", busy_seconds=PATIENCE)
            thread_id = (await store.thread("one")).thread_id
            won = 0
            while won < rounds:
                last = len(await store.read(thread_id))
                try:
                    await store.append(thread_id, entries(last + 1, 2, run_id))
                    won += 1
                except StateConflict:
                    continue
            await store.close()
            os.write(tell, str(won).encode())

        pids.append(forked(work))
        os.close(tell)
        reads.append(told)
    assert ended(pids) == [0] * processes
    return [int(os.read(told, 100)) for told in reads]


def kill_in_a_storm(path: str, times: int) -> dict[str, int]:
    """Kill a process that appends to four threads, again and again; gives what it was told was durable, by thread."""
    acknowledged: dict[str, int] = {}
    for round_ in range(times):
        told, tell = os.pipe()

        async def work(tell: int = tell) -> None:
            store = DatabaseStore(f"sqlite:///{path}")

            async def storm(name: str) -> None:
                thread_id = (await store.thread(name)).thread_id
                n = len(await store.read(thread_id))
                while True:
                    await store.append(thread_id, entries(n + 1, 3))
                    n += 3
                    os.write(tell, f"{n} {thread_id}\n".encode())

            await asyncio.gather(*(storm(f"thread {number}") for number in range(4)))

        pid = forked(work)
        os.close(tell)
        with os.fdopen(told) as lines:
            for count, line in enumerate(lines):
                durable, of_thread = line.split()
                acknowledged[of_thread] = int(durable)
                if count == 5 + round_ * 3:
                    os.kill(pid, signal.SIGKILL)
        assert ended([pid]) == [-signal.SIGKILL]
        with closing(sqlite3.connect(path)) as connection:
            for thread_id, n in acknowledged.items():
                rows = connection.execute("SELECT n FROM entries WHERE thread_id = ? ORDER BY n", (thread_id,))
                numbers = [row[0] for row in rows]
                assert numbers == list(range(1, len(numbers) + 1)), f"a gap in {thread_id}"
                assert len(numbers) >= n, f"{thread_id} had {n} entries for certain, and has {len(numbers)}"
                assert len(numbers) % 3 == 0, f"half an append in {thread_id}"
    return acknowledged


def kill_an_upgrade(path: str) -> list[str]:
    """Kill a process at each statement with which it brings a file up to date; gives the stamps found after each."""
    stamps: list[str] = []
    while True:
        at = len(stamps)

        async def work(at: int = at) -> None:
            count = 0

            def die(*_: object) -> None:
                nonlocal count
                count += 1
                if count > at:
                    os.kill(os.getpid(), signal.SIGKILL)

            event.listen(Engine, "before_cursor_execute", die)
            event.listen(Engine, "commit", die)
            store = DatabaseStore(f"sqlite:///{path}")
            await store.spending(["a"])

        code = ended([forked(work)])[0]
        with closing(sqlite3.connect(path)) as connection:
            (stamp,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
            tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        assert ({"accounts", "reservations"} <= tables) == (stamp == HEAD), f"half an upgrade: {stamp}, {tables}"
        stamps.append(stamp)
        if code == 0:
            return stamps
        assert code == -signal.SIGKILL


def use_in_parent_and_child(path: str) -> list[int]:
    """Use a store before a fork, in the child and in the parent after it; gives the child's exit code."""
    store = DatabaseStore(f"sqlite:///{path}")

    async def append(first: int) -> None:
        thread_id = (await store.thread("one")).thread_id
        assert len(await store.read(thread_id)) == first - 1
        await store.append(thread_id, entries(first, 1))

    async def child() -> None:
        await append(2)
        await store.close()

    asyncio.run(append(1))
    codes = ended([forked(child)])
    asyncio.run(append(3))
    asyncio.run(store.close())
    return codes


def exit_without_closing(path: str) -> bool:
    """Append, hand in more and do not wait for it; the process ends without closing the store."""

    async def main() -> None:
        store = DatabaseStore(f"sqlite:///{path}")
        thread_id = (await store.thread("one")).thread_id
        await store.append(thread_id, entries(1, 2))
        keep.extend(asyncio.ensure_future(store.append(thread_id, entries(n, 20))) for n in range(3, 1003, 20))
        await asyncio.sleep(0)  # they are handed in now

    keep: list[asyncio.Future[None]] = []
    loop = asyncio.new_event_loop()  # left as it is, with appends under way
    loop.run_until_complete(main())
    return all(not future.cancelled() for future in keep)


def what_is_imported(path: str) -> list[str]:
    """Make a file, open it again; gives which of the heavy modules were imported."""

    async def main() -> None:
        for _ in range(2):
            store = DatabaseStore(f"sqlite:///{path}")
            await store.thread("one")
            await store.close()

    asyncio.run(main())
    return [name for name in ("alembic", "sqlalchemy") if name in sys.modules]


def write_where_one_may_not(path: str) -> dict[str, object]:
    """Read and write as a user who may only read the folder and the file."""
    if os.getuid() == 0:
        os.setuid(65534)

    async def main() -> dict[str, object]:
        store = DatabaseStore(f"sqlite:///{path}")
        try:
            await store.thread("two")
        except StoreUnavailable as error:
            return {"said": str(error)}
        return {}

    return asyncio.run(main())


def fail_to_write(path: str, size: int) -> dict[str, object]:
    """Append with a bound on the size of files, then without; gives what was said, and what is there."""

    async def main() -> dict[str, object]:
        store = DatabaseStore(f"sqlite:///{path}")
        thread_id = (await store.thread("one")).thread_id
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        n, said = 0, ""
        while not said:
            try:
                await store.append(thread_id, entries(n + 1, 50))
                n += 50
            except StoreUnavailable as error:
                said = str(error)
        during = len(await store.read(thread_id))
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        await store.append(thread_id, entries(n + 1, 50))
        after = len(await store.read(thread_id))
        await store.close()
        return {"said": said, "acknowledged": n, "during": during, "after": after}

    return asyncio.run(main())


COMMANDS: dict[str, Callable[..., object]] = {
    work.__name__: work
    for work in (
        open_at_once,
        hammer,
        kill_in_a_storm,
        kill_an_upgrade,
        use_in_parent_and_child,
        exit_without_closing,
        what_is_imported,
        write_where_one_may_not,
        fail_to_write,
    )
}

if __name__ == "__main__":
    assert Path(__file__).name == "processes.py"
    command, *arguments = sys.argv[1:]
    sys.stdout.write(json.dumps(COMMANDS[command](*map(json.loads, arguments))))
