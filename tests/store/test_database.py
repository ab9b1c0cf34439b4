from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import traceback
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from msgspec.structs import replace
from sqlalchemy import Engine, create_engine, event

from plait.entries import Entry, MessageEntry, entry
from plait.errors import ConfigurationError, CorruptRecord, StateConflict, StoreError, StoreUnavailable
from plait.messages import UserMessage
from plait.store.base import owner_name
from plait.store.database import DatabaseStore
from plait.store.ledger import Spending
from plait.store.migrations.tables import HEAD, metadata
from plait.store.migrations.upgrade import is_older
from plait.store.sqlite.connections import secure

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

URL = "sqlite:///plait.db"
PROCESSES = Path(__file__).with_name("processes.py")
PATIENCE = 100.0  # seconds, for a machine that is slow
STAMP_TABLE = "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"


def talk(first: int, count: int = 1, text: str = "message") -> list[Entry]:
    """Entries from number ``first`` on, each another message."""
    return [entry(n, MessageEntry(message=UserMessage(text=f"{text} {n}"))) for n in range(first, first + count)]


@pytest.fixture
async def store() -> AsyncIterator[DatabaseStore]:
    async with opened() as made:
        yield made


@asynccontextmanager
async def opened(url: str = URL, busy_seconds: float = 5.0) -> AsyncIterator[DatabaseStore]:
    made = DatabaseStore(url, busy_seconds=busy_seconds)
    try:
        yield made
    finally:
        await made.close()


@contextmanager
def listening(name: str, listener: Callable[..., object]) -> Iterator[None]:
    """Hear of what every engine does."""
    event.listen(Engine, name, listener)
    try:
        yield
    finally:
        event.remove(Engine, name, listener)


@contextmanager
def plain(path: str = "plait.db") -> Iterator[sqlite3.Connection]:
    """A connection that plait knows nothing of."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


async def elsewhere(command: str, *arguments: object) -> Any:
    """Run a command of processes.py; gives what it printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(PROCESSES),
        command,
        *map(json.dumps, arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    async with asyncio.timeout(PATIENCE):
        printed, said = await process.communicate()
    assert process.returncode == 0, said.decode()
    return json.loads(printed)


# --- addresses --------------------------------------------------------------------------------------------------------


async def test_a_relative_address_is_of_the_folder_it_was_given_in(tmp_path: Path) -> None:
    async with opened() as store:
        (tmp_path / "elsewhere").mkdir()
        os.chdir(tmp_path / "elsewhere")
        await store.thread("a")

    assert repr(store) == f"DatabaseStore('sqlite:///{tmp_path}/plait.db')"
    assert (tmp_path / "plait.db").exists()


async def test_an_absolute_address_and_odd_characters_in_it(tmp_path: Path) -> None:
    path = tmp_path / "what? 100% #1 caf\N{LATIN SMALL LETTER E WITH ACUTE}.db"
    async with opened(f"sqlite:///{path}") as store:
        await store.thread("a")

    assert path.exists()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://host/name", "there is no database store for 'postgresql' URLs yet; use 'sqlite:///file.db'"),
        ("plait.db", "there is no database store for 'plait.db' URLs yet"),
        ("sqlite://", "names no file; use 'sqlite:///file.db', or MemoryStore"),
        ("sqlite:///", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("sqlite:///a\0b", "holds a control character"),
    ],
)
def test_an_address_of_no_database_is_refused(url: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        DatabaseStore(url)

    assert said in str(caught.value)


def test_making_a_store_opens_nothing(tmp_path: Path) -> None:
    DatabaseStore(URL)

    assert list(tmp_path.iterdir()) == []


# --- durability and transactions --------------------------------------------------------------------------------------


async def test_every_connection_keeps_what_is_committed_through_a_loss_of_power() -> None:
    connections: list[sqlite3.Connection] = []
    with listening("connect", lambda connection, _: connections.append(connection)):
        async with opened() as store:
            await store.append("thr_1", talk(1))
            await asyncio.gather(*(store.read("thr_1") for _ in range(20)))

            settings = [
                [connection.execute(f"PRAGMA {name}").fetchone()[0] for connection in connections]
                for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
            ]

    assert len(connections) == 3  # a writer, two readers
    assert settings == [["wal"] * 3, [2] * 3, [1] * 3, [5000] * 3]


async def test_what_waits_together_is_committed_together(store: DatabaseStore) -> None:
    await store.new_thread()
    commits: list[object] = []
    logs = {f"thr_{number}": talk(1, 2) for number in range(50)}
    with plain() as other, listening("commit", commits.append):
        other.execute("BEGIN IMMEDIATE")  # all wait for this
        tasks = [asyncio.ensure_future(store.append(thread_id, log)) for thread_id, log in logs.items()]
        await asyncio.sleep(0)
        other.execute("COMMIT")
        await asyncio.gather(*tasks)

    assert len(commits) <= 2
    assert {thread_id: await store.read(thread_id) for thread_id in logs} == logs


async def test_nothing_is_handed_out_before_its_commit(store: DatabaseStore) -> None:
    await store.new_thread()
    loop = asyncio.get_running_loop()
    seen: list[bool] = []
    tasks: list[asyncio.Task[None]] = []

    def about_to_commit(_: object) -> None:
        for _ in range(3):  # whatever was handed out has arrived by then
            asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result(PATIENCE)
        seen.append(any(task.done() for task in tasks))

    with listening("commit", about_to_commit):
        tasks += [asyncio.create_task(store.append(f"thr_{number}", talk(1))) for number in range(10)]
        await asyncio.gather(*tasks)

    assert seen[0] is False


async def test_one_that_is_refused_disturbs_none_that_are_committed_with_it(store: DatabaseStore) -> None:
    taken = talk(1)
    await store.append("thr_taken", taken)
    commits: list[object] = []
    logs = {f"thr_{number}": talk(1, 2) for number in range(9)}
    with plain() as other, listening("commit", commits.append):
        other.execute("BEGIN IMMEDIATE")
        tasks = [asyncio.ensure_future(store.append(thread_id, log)) for thread_id, log in logs.items()]
        refused = asyncio.ensure_future(store.append("thr_taken", talk(1, 3)))
        await asyncio.sleep(0)
        other.execute("COMMIT")
        outcomes = await asyncio.gather(*tasks[:5], refused, *tasks[5:], return_exceptions=True)

    assert [type(outcome) for outcome in outcomes] == [type(None)] * 5 + [StateConflict] + [type(None)] * 4
    assert len(commits) <= 2
    assert {thread_id: await store.read(thread_id) for thread_id in logs} == logs
    assert await store.read("thr_taken") == taken


async def test_the_keys_of_the_tables_are_the_last_line_of_defence(store: DatabaseStore) -> None:
    """An id that another thread has is found by no other check; it fails alone, and in the middle of its append."""
    first = talk(1)
    await store.append("thr_1", first)
    new = talk(1)
    twin = [*talk(1), replace(first[0], n=2)]

    outcomes = await asyncio.gather(store.append("thr_2", twin), store.append("thr_3", new), return_exceptions=True)

    assert [type(outcome) for outcome in outcomes] == [StateConflict, type(None)]
    assert [await store.read(f"thr_{n}") for n in (1, 2, 3)] == [first, [], new]


async def test_a_value_that_no_database_can_hold_is_refused(store: DatabaseStore) -> None:
    half = [replace(item, run_id="\ud800") for item in talk(1)]

    with pytest.raises(ConfigurationError, match="half a surrogate pair"):
        await store.append("thr_1", half)
    with pytest.raises(ConfigurationError, match="64 bits"):
        await store.read("thr_1", after=2**70)

    assert await store.read("thr_1") == []


# --- cancelling -------------------------------------------------------------------------------------------------------


async def test_what_is_read_after_a_cancelled_append_does_not_change(store: DatabaseStore) -> None:
    """The append waits for a lock when it is cancelled, and may be carried out or left out; a read waits to know."""
    await store.new_thread()
    loop = asyncio.get_running_loop()
    begun = asyncio.Event()
    log = talk(1)
    with plain() as other, listening("begin", lambda _: loop.call_soon_threadsafe(begun.set)):
        other.execute("BEGIN IMMEDIATE")
        task = asyncio.ensure_future(store.append("thr_1", log))
        await asyncio.wait_for(begun.wait(), PATIENCE)
        task.cancel()
        await asyncio.wait([task])
        reading = asyncio.ensure_future(store.read("thr_1"))
        await asyncio.sleep(0)
        other.execute("COMMIT")

    assert task.cancelled()
    found = await reading
    assert found in ([], log)
    assert await store.read("thr_1") == found


async def test_an_append_that_is_cancelled_before_its_turn_is_left_out(store: DatabaseStore) -> None:
    await store.new_thread()
    loop = asyncio.get_running_loop()
    begun = asyncio.Event()
    with plain() as other, listening("begin", lambda _: loop.call_soon_threadsafe(begun.set)):
        other.execute("BEGIN IMMEDIATE")
        first = asyncio.ensure_future(store.append("thr_1", talk(1)))
        await asyncio.wait_for(begun.wait(), PATIENCE)
        second = asyncio.ensure_future(store.append("thr_2", talk(1)))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.wait([second])
        other.execute("COMMIT")
        await first

    assert [len(await store.read(f"thr_{n}")) for n in (1, 2)] == [1, 0]


# --- loops, threads, processes ----------------------------------------------------------------------------------------


def test_a_store_serves_one_event_loop_after_the_other() -> None:
    store = DatabaseStore(URL)
    log = talk(1, 3)
    for item in log:
        asyncio.run(store.append("thr_1", [item]))

    async def rest() -> list[Entry]:
        found = await store.read("thr_1")
        await store.close()
        return found

    assert asyncio.run(rest()) == log


def test_a_store_serves_several_threads_at_once() -> None:
    store = DatabaseStore(URL)
    logs = {f"thr_{number}": talk(1, 20) for number in range(4)}
    found: dict[str, list[Entry]] = {}

    async def work(thread_id: str) -> None:
        for item in logs[thread_id]:
            await store.append(thread_id, [item])
        found[thread_id] = await store.read(thread_id)

    threads = [threading.Thread(target=lambda name=name: asyncio.run(work(name))) for name in logs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    asyncio.run(store.close())

    assert found == logs


async def test_closing_finishes_what_is_under_way_and_leaves_no_thread() -> None:
    before = set(threading.enumerate())
    store = DatabaseStore(URL)
    logs = {f"thr_{number}": talk(1, 2) for number in range(20)}
    tasks = [asyncio.ensure_future(store.append(thread_id, log)) for thread_id, log in logs.items()]
    tasks.append(asyncio.ensure_future(store.append("thr_read", talk(1))))
    await asyncio.sleep(0)

    await store.close()

    assert set(threading.enumerate()) <= before
    await asyncio.gather(*tasks)
    async with opened() as again:
        assert {thread_id: await again.read(thread_id) for thread_id in logs} == logs


async def test_the_threads_of_a_store_that_is_dropped_end() -> None:
    before = set(threading.enumerate())
    store = DatabaseStore(URL)
    await store.append("thr_1", talk(1))
    await store.read("thr_1")
    own = set(threading.enumerate()) - before

    del store
    gc.collect()
    for thread in own:
        await asyncio.to_thread(thread.join, PATIENCE)

    assert len(own) == 2
    assert not any(thread.is_alive() for thread in own)


async def test_a_process_that_ends_without_closing_loses_nothing(tmp_path: Path) -> None:
    assert await elsewhere("exit_without_closing", str(tmp_path / "plait.db")) is True

    async with opened() as store:
        info = await store.thread("one")
        assert [item.n for item in await store.read(info.thread_id)] == list(range(1, 1003))


@pytest.mark.fault("C11")
async def test_parent_and_child_of_a_fork_both_go_on(tmp_path: Path) -> None:
    assert await elsewhere("use_in_parent_and_child", str(tmp_path / "plait.db")) == [0]

    async with opened() as store:
        info = await store.thread("one")
        assert [item.n for item in await store.read(info.thread_id)] == [1, 2, 3]


@pytest.mark.fault("P08")
async def test_processes_that_open_a_new_file_at_once_all_succeed(tmp_path: Path) -> None:
    assert await elsewhere("open_at_once", str(tmp_path), 10, 8) == [0] * 80


async def test_of_processes_that_append_to_one_thread_one_is_first_each_time(tmp_path: Path) -> None:
    won = await elsewhere("hammer", str(tmp_path / "plait.db"), 2, 40)

    async with opened() as store:
        log = await store.read((await store.thread("one")).thread_id)
    assert won == [40, 40]
    assert [item.n for item in log] == list(range(1, 161))
    assert all(first.run_id == second.run_id for first, second in zip(log[::2], log[1::2], strict=True))


async def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    acknowledged = await elsewhere("kill_in_a_storm", str(tmp_path / "plait.db"), 20)

    async with opened() as store:
        found = {thread_id: len(await store.read(thread_id)) for thread_id in acknowledged}
    assert len(acknowledged) == 4
    assert {thread_id: found[thread_id] >= n for thread_id, n in acknowledged.items()} == dict.fromkeys(found, True)


# --- a disk that fails ------------------------------------------------------------------------------------------------


async def test_a_full_disk_loses_nothing_and_stops_no_reader() -> None:
    pages = 40

    def bound(connection: sqlite3.Connection, _: object) -> None:
        connection.execute(f"PRAGMA max_page_count={pages}")

    with listening("connect", bound):
        async with opened() as store:
            small, large = talk(1), talk(1, 20, text="x" * 10_000)
            await store.append("thr_1", small)
            outcomes = await asyncio.gather(
                store.append("thr_2", talk(1)),
                store.append("thr_3", large),
                store.append("thr_4", talk(1)),
                return_exceptions=True,
            )
            assert [type(outcome) for outcome in outcomes] == [type(None), StoreUnavailable, type(None)]
            with pytest.raises(StoreUnavailable, match="the disk is full; nothing was written") as caught:
                await store.append("thr_3", large)

            assert caught.value.retryable
            assert "xxxx" not in "".join(traceback.format_exception(caught.value))
            assert [await store.read(f"thr_{n}") for n in (1, 3)] == [small, []]

            pages = 1_000_000
            await store.append("thr_3", large)
            assert await store.read("thr_3") == large


async def test_an_error_of_the_disk_loses_nothing(tmp_path: Path) -> None:
    found = await elsewhere("fail_to_write", str(tmp_path / "plait.db"), 300_000)

    assert "cannot be used" in found["said"]
    assert found["acknowledged"] > 0
    assert found["during"] == found["acknowledged"]
    assert found["after"] == found["acknowledged"] + 50
    with plain() as other:
        assert other.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


@pytest.mark.fault("P06")
async def test_a_lock_is_waited_for_and_then_the_store_is_busy() -> None:
    log = talk(1)
    async with opened(busy_seconds=0.1) as store:
        await store.append("thr_1", log)
        with plain() as other:
            other.execute("BEGIN EXCLUSIVE")
            outcomes = await asyncio.gather(
                *(store.append(f"thr_{n}", talk(1)) for n in (2, 3)), store.thread("a"), return_exceptions=True
            )

            assert [type(outcome) for outcome in outcomes] == [StoreUnavailable] * 3
            assert "is busy: another program held a lock on it for more than 0.1 s" in str(outcomes[0])
            assert await store.read("thr_1") == log
            other.execute("COMMIT")

        await store.append("thr_2", log := talk(1))
        assert await store.read("thr_2") == log
        assert await store.read("thr_3") == []


@pytest.fixture
def locked_away() -> Iterator[Path]:
    """A store that anyone may read and nobody may write, where every user can reach it."""
    asyncio.run(_made())
    folder = Path(tempfile.mkdtemp(prefix="plait"))
    shutil.copy("plait.db", folder / "plait.db")
    (folder / "plait.db").chmod(0o444)
    folder.chmod(0o555)
    yield folder / "plait.db"
    folder.chmod(0o755)
    shutil.rmtree(folder)


async def _made() -> None:
    async with opened() as store:
        await store.thread("one")


async def test_a_file_that_is_being_read_as_it_was_before_is_waited_for() -> None:
    """A process killed while it made the file leaves one without a write-ahead log; to have one, it must be alone."""
    async with opened() as store:
        await store.thread("a")
    async with opened(busy_seconds=PATIENCE) as store:
        with plain() as other:
            other.execute("PRAGMA journal_mode=DELETE")
            other.execute("BEGIN")
            other.execute("SELECT * FROM threads").fetchall()
            task = asyncio.ensure_future(store.thread("a"))
            await asyncio.wait([task], timeout=0.2)
            assert not task.done()
            other.execute("COMMIT")

            assert (await task).name == "a"


def test_a_file_that_cannot_be_kept_safe_is_refused() -> None:
    with closing(sqlite3.connect(":memory:")) as connection, pytest.raises(StoreUnavailable, match="put it on a local"):
        secure(connection, 0)


def _killed_in_the_making(path: Path) -> None:
    """Leave half a transaction in a file, and the journal with which the next to open it can undo that."""
    with plain("other.db") as connection:
        connection.execute("PRAGMA cache_size = 1")
        connection.execute("BEGIN EXCLUSIVE")
        connection.execute("CREATE TABLE threads (thread_id TEXT)")
        connection.executemany("INSERT INTO threads VALUES (?)", [("x" * 1000,)] * 100)
        shutil.copy("other.db", path)
        shutil.copy("other.db-journal", path.with_name(f"{path.name}-journal"))


async def test_a_file_whose_maker_was_killed_is_made_anew(tmp_path: Path) -> None:
    _killed_in_the_making(tmp_path / "plait.db")
    assert (tmp_path / "plait.db").stat().st_size > 0
    async with opened() as store:
        info = await store.thread("a")
        assert await store.thread("a") == info

    with plain() as connection:
        assert connection.execute("SELECT name FROM threads").fetchall() == [("a",)]


async def test_what_people_said_stands_in_no_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, "sqlalchemy.engine")
    async with opened() as store:
        await store.append("thr_1", talk(1, text="between us"))
        await store.thread("Ann's diary")

    assert "INSERT INTO entries" in caplog.text
    assert "between us" not in caplog.text
    assert "Ann's diary" not in caplog.text


async def test_a_file_that_may_not_be_written_is_said_to_be_one(locked_away: Path) -> None:
    found = await elsewhere("write_where_one_may_not", str(locked_away))

    assert f"the store {str(locked_away)!r} cannot be used: the file" in found["said"]
    assert os.listdir(locked_away.parent) == ["plait.db"]  # noqa: PTH208  # in a coroutine


async def test_a_missing_folder_is_named_and_may_be_made(tmp_path: Path) -> None:
    async with opened("sqlite:///data/plait.db") as store:
        with pytest.raises(StoreUnavailable, match="does not exist; make it first") as caught:
            await store.thread("a")
        assert repr(str(tmp_path / "data")) in str(caught.value)

        (tmp_path / "data").mkdir()
        await store.thread("a")


def _take_away(folder: Path) -> None:
    for path in folder.glob("plait.db*"):
        path.unlink()


async def test_a_file_that_is_taken_away_is_not_made_anew_without_its_tables(tmp_path: Path) -> None:
    async with opened() as store:
        await store.read("thr_1")  # a reader is connected, the writer is not
        _take_away(tmp_path)
        with pytest.raises(StoreUnavailable, match="the file cannot be opened"):
            await store.append("thr_1", talk(1))

        await store.append("thr_1", talk(1))


# --- damaged records --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "damage",
    [
        "line = substr(line, 1, length(line) - 9)",
        "line = ''",
        "line = 'null'",
        "line = replace(line, 'message', 'massage')",
        "line = CAST(x'7bff7d' AS TEXT)",
        "line = x'00'",
        "crc = crc + 1",
    ],
)
async def test_a_damaged_record_is_named_and_the_others_are_read(store: DatabaseStore, damage: str) -> None:
    log = talk(1, 5)
    await store.append("thr_1", log)
    await store.append("thr_2", other := talk(1, 2))
    with plain() as connection:
        connection.execute(f"UPDATE entries SET {damage} WHERE thread_id = 'thr_1' AND n = 3")  # noqa: S608

    with pytest.raises(
        CorruptRecord, match=r"entry 3 of thread 'thr_1' .*; entries after it can, with after=3"
    ) as caught:
        await store.read("thr_1")

    assert caught.value.record == log[2].id
    assert len(str(caught.value)) < 500
    assert await store.read("thr_1", after=3) == log[3:]
    assert await store.read("thr_2") == other
    await store.append("thr_1", talk(6))


@pytest.mark.parametrize(
    ("old", "new", "said"), [('"v":1', '"v":99', "update plait"), ('"n":1', '"n":7', "it says it is number 7")]
)
async def test_a_record_that_is_not_what_it_should_be_is_refused(
    store: DatabaseStore, old: str, new: str, said: str
) -> None:
    await store.append("thr_1", talk(1))
    with plain() as connection:
        (line,) = connection.execute("SELECT line FROM entries").fetchone()
        changed = line.replace(old, new)
        assert changed != line
        connection.execute("UPDATE entries SET line = ?, crc = ?", (changed, crc32(changed.encode())))

    with pytest.raises(CorruptRecord, match=said):
        await store.read("thr_1")


def _damage(path: Path) -> None:
    """Spoil the beginning of every page but the first."""
    content = bytearray(path.read_bytes())
    for start in range(4096, len(content), 4096):
        content[start : start + 200] = b"\xa5" * 200
    path.write_bytes(content)


async def test_a_damaged_file_raises_errors_of_stores_only(tmp_path: Path) -> None:
    async with opened() as store:
        await store.append("thr_1", talk(1, 200))
    _damage(tmp_path / "plait.db")

    async with opened() as store:
        outcomes = await asyncio.gather(
            store.read("thr_1"),
            store.append("thr_1", talk(201)),
            store.thread("a"),
            store.holder("thr_1"),
            return_exceptions=True,
        )

    assert [isinstance(outcome, StoreError) for outcome in outcomes] == [True] * 4
    assert "is damaged" in str(outcomes[0])


# --- other files, and other versions ----------------------------------------------------------------------------------


def _text(path: Path) -> None:
    path.write_text("dear diary\n" * 1000)


def _foreign(path: Path) -> None:
    with plain(str(path)) as connection:
        connection.execute("CREATE TABLE diary (text TEXT)")


def _stamped(revision: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        with plain(str(path)) as connection:
            connection.execute(STAMP_TABLE)
            connection.execute("CREATE TABLE threads (thread_id TEXT)")
            connection.execute("INSERT INTO alembic_version VALUES (?)", (revision,))

    return make


def _foreign_and_unstamped(path: Path) -> None:
    _foreign(path)
    with plain(str(path)) as connection:
        connection.execute(STAMP_TABLE)


def _content(folder: Path) -> dict[Path, bytes | None]:
    return {path: path.read_bytes() if path.is_file() else None for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_text, "it is no SQLite database; it was left as it is; give the address of another file"),
        (_foreign, "it holds the tables of another program"),
        (_foreign_and_unstamped, "it holds the tables of another program"),
        (_stamped("plait_9999"), "its revision 'plait_9999' is unknown here, so a newer version made it"),
        (_stamped("plait"), "its revision 'plait' is unknown here"),
        (_stamped("1975ea83b712"), "update plait"),
        (Path.mkdir, "it is a folder"),
    ],
)
@pytest.mark.fault("P14")
async def test_what_is_no_store_of_this_version_is_refused_and_left_as_it_is(
    tmp_path: Path, make: Callable[[Path], None], said: str
) -> None:
    path = tmp_path / "plait.db"
    make(path)
    before = _content(tmp_path)
    async with opened() as store:
        for use in (store.thread("a"), store.append("thr_1", talk(1))):
            with pytest.raises(StoreUnavailable, match="is no store of this plait") as caught:
                await use
            assert said in str(caught.value)
            assert repr(str(path)) in str(caught.value)
            assert not caught.value.retryable

    assert _content(tmp_path) == before


async def test_an_empty_file_is_a_new_one(tmp_path: Path) -> None:
    (tmp_path / "plait.db").touch()
    async with opened() as store:
        await store.thread("a")

    with plain() as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(HEAD,)]


async def test_alembic_is_not_imported_for_a_file_of_this_version(tmp_path: Path) -> None:
    assert await elsewhere("what_is_imported", str(tmp_path / "plait.db")) == ["sqlalchemy"]


def _older() -> None:
    """A file as Alembic leaves it before the first revision."""
    with plain() as connection:
        connection.execute(STAMP_TABLE)


def _tables(path: str) -> list[tuple[object, ...]]:
    with plain(path) as connection:
        return connection.execute(
            "SELECT type, name, sql FROM sqlite_master WHERE name != 'alembic_version' ORDER BY name"
        ).fetchall()


async def test_a_file_of_an_older_version_is_brought_up_to_date_in_one_transaction() -> None:
    _older()
    commits: list[object] = []
    with listening("commit", commits.append):
        async with opened() as store:
            assert await store.read("thr_1") == []
            assert len(commits) == 2  # the upgrade, and the reading
            await store.append("thr_1", log := talk(1, 2))
            assert await store.read("thr_1") == log

    with plain() as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(HEAD,)]


async def test_an_upgrade_that_fails_leaves_the_file_as_it_was() -> None:
    _older()
    before = _tables("plait.db")
    pages = 7  # enough for the first of the new tables

    def bound(connection: sqlite3.Connection, _: object) -> None:
        connection.execute(f"PRAGMA max_page_count={pages}")

    with listening("connect", bound):
        async with opened() as store:
            with pytest.raises(StoreUnavailable, match="the disk is full"):
                await store.thread("a")
            assert _tables("plait.db") == before

            pages = 1000
            await store.thread("a")


def _of_the_first_revision() -> None:
    """A file as plait made it when its tables were those of plait_0001: a thread of Ann's with two entries."""
    with plain() as connection:
        connection.executescript(Path(__file__).with_name("plait_0001.sql").read_text("utf-8"))


@pytest.mark.fault("P14")
async def test_a_file_of_the_first_revision_is_brought_up_to_date() -> None:
    _of_the_first_revision()
    async with opened() as store:
        thread = await store.find("talk", "ann")
        assert thread is not None
        log = await store.read(thread.thread_id)
        assert [item.n for item in log] == [1, 2]
        assert isinstance(log[1].body, MessageEntry)
        assert log[1].body.message.text == "message 2"
        assert await store.spending(["a"]) == [Spending()]
        await store.append(thread.thread_id, talk(3))

    with plain() as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(HEAD,)]
    async with opened("sqlite:///new.db") as store:
        await store.thread("a")
    assert _tables("plait.db") == _tables("new.db")


@pytest.mark.fault("P14")
async def test_an_upgrade_that_is_killed_at_any_moment_is_done_again(tmp_path: Path) -> None:
    _of_the_first_revision()
    stamps = await elsewhere("kill_an_upgrade", str(tmp_path / "plait.db"))

    killed = stamps.index(HEAD)
    assert stamps == ["plait_0001"] * killed + [HEAD] * (len(stamps) - killed)
    assert killed > 5
    async with opened() as store:
        thread = await store.find("talk", "ann")
        assert thread is not None
        assert len(await store.read(thread.thread_id)) == 2


async def test_the_migrations_make_the_tables_that_new_files_have() -> None:
    _older()
    for url in (URL, "sqlite:///new.db"):
        async with opened(url) as store:
            await store.thread("a")

    assert _tables("plait.db") == _tables("new.db") != []
    engine = create_engine(URL)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


def test_only_what_came_before_is_older() -> None:
    revisions = ("base", "plait_0001", HEAD, "plait_9999", "plait_", "head")
    assert [is_older(revision) for revision in revisions] == [True] * 2 + [False] * 4


# --- sizes ------------------------------------------------------------------------------------------------------------


async def test_a_long_thread_and_a_large_message(store: DatabaseStore) -> None:
    log = [*talk(1, 2000), *talk(2001, text="x" * 10_000_000)]
    await store.append("thr_1", log)

    assert await store.read("thr_1", after=1998) == log[1998:]
    assert len(await store.read("thr_1")) == 2001


async def test_leases_survive_the_store(store: DatabaseStore) -> None:
    mine = await store.acquire("thr_1", "run_1", owner_name(), 60)
    async with opened() as other:
        assert await other.holder("thr_1") == mine
        assert await other.acquire("thr_1", "run_2", owner_name(), 60) is None


async def test_a_file_that_is_deleted_while_it_is_open_is_noticed(tmp_path: Path) -> None:
    store = DatabaseStore(f"sqlite:///{tmp_path / 'gone.db'}")
    await store.append("thr_1", talk(1))
    for end in ("", "-wal", "-shm"):
        (tmp_path / f"gone.db{end}").unlink()
    with pytest.raises(StoreUnavailable, match="was deleted or replaced while it was open; nothing was written"):
        await store.append("thr_2", talk(1))
    log = talk(1)
    await store.append("thr_3", log)
    assert await store.read("thr_3") == log
    await store.close()
