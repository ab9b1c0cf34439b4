"""What every store does: each test runs on each kind."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from plait.entries import Entry, MessageEntry, RunStart, entry
from plait.errors import ConfigurationError, StateConflict, StoreUnavailable
from plait.messages import UserMessage
from plait.store.base import Lease, ThreadInfo, owner_name
from plait.store.database import DatabaseStore
from plait.store.memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from plait.store.base import Store

ODD_NAMES = [
    "my thread",
    "My Thread",
    "'; DROP TABLE threads; --",
    '"quoted"',
    "../../etc/passwd",
    "50%_*?",
    "caf\N{LATIN SMALL LETTER E WITH ACUTE}",
    "cafe\N{COMBINING ACUTE ACCENT}",
    "\N{FAMILY}\u200d\N{FIRE}",
    "\u202eright to left",
    " ",
    "x" * 200,
]
NO_NAMES = ["", "\x00", "line\nbreak", "\ud83d", "x" * 201, "x" * 10_000]
ODD_TEXTS = ["", "\x00", "half \ud83d pair", "\N{FIRE}", "'\"\\", "x" * 1_000_000, "\u2028\r\n", "{}"]


@pytest.fixture(params=["memory", "database"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    made: Store = MemoryStore() if request.param == "memory" else DatabaseStore("sqlite:///plait.db")
    yield made
    await made.close()


def talk(first: int, count: int = 1, run_id: str = "run_1") -> list[Entry]:
    """Entries from number ``first`` on, each another message."""
    return [
        entry(n, MessageEntry(message=UserMessage(text=f"message {n}")), run_id) for n in range(first, first + count)
    ]


async def test_entries_are_read_back_as_they_were_written(store: Store) -> None:
    thread_id = (await store.new_thread()).thread_id
    log = [entry(1, RunStart(agent_name="clerk"), "run_1"), *talk(2, 3), entry(5, RunStart())]

    await store.append(thread_id, log[:2])
    await store.append(thread_id, log[2:])

    assert await store.read(thread_id) == log
    assert [await store.read(thread_id, after=n) for n in (0, 3, 5, 9)] == [log, log[3:], [], []]


async def test_nothing_is_read_of_a_thread_that_is_not_known(store: Store) -> None:
    assert await store.read("thr_unknown") == []


async def test_what_a_reader_does_with_its_list_changes_nothing(store: Store) -> None:
    thread_id = (await store.new_thread()).thread_id
    log = talk(1, 2)
    given = list(log)
    await store.append(thread_id, given)

    given.clear()
    (await store.read(thread_id)).clear()

    assert await store.read(thread_id) == log


async def test_threads_do_not_mix(store: Store) -> None:
    first, second = (await store.new_thread()).thread_id, (await store.new_thread()).thread_id
    logs = {first: talk(1, 2), second: talk(1, 3)}
    for thread_id, log in logs.items():
        await store.append(thread_id, log)

    assert {thread_id: await store.read(thread_id) for thread_id in logs} == logs


async def test_a_thread_may_begin_with_its_first_entry(store: Store) -> None:
    log = talk(1, 2)

    await store.append("thr_mine", log[:1])
    await store.append("thr_mine", log[1:])

    assert await store.read("thr_mine") == log


async def test_of_two_writers_one_is_first(store: Store) -> None:
    thread_id = (await store.new_thread()).thread_id
    logs = [talk(1, 2, "run_1"), talk(1, 2, "run_2")]

    outcomes = await asyncio.gather(*(store.append(thread_id, log) for log in logs), return_exceptions=True)

    (first,) = [number for number, outcome in enumerate(outcomes) if outcome is None]
    error = outcomes[1 - first]
    assert isinstance(error, StateConflict)
    assert (error.expected, error.found) == (1, 3)
    assert await store.read(thread_id) == logs[first]


@pytest.mark.parametrize("first", [1, 2, 4, 100])
async def test_an_append_at_another_number_than_the_next_changes_nothing(store: Store, first: int) -> None:
    thread_id = (await store.new_thread()).thread_id
    log = talk(1, 2)
    await store.append(thread_id, log)

    with pytest.raises(StateConflict, match=f"entry {first} cannot be appended") as caught:
        await store.append(thread_id, talk(first, 3))

    assert (caught.value.expected, caught.value.found) == (first, 3)
    assert await store.read(thread_id) == log


@pytest.mark.parametrize("numbers", [(1, 3), (1, 1), (2, 1), (0, 1), (-1, 0)])
async def test_entries_that_do_not_follow_each_other_are_refused(store: Store, numbers: tuple[int, ...]) -> None:
    thread_id = (await store.new_thread()).thread_id

    with pytest.raises(ConfigurationError, match="number them one after the other"):
        await store.append(thread_id, [entry(n, RunStart()) for n in numbers])

    assert await store.read(thread_id) == []


async def test_an_append_may_be_repeated(store: Store) -> None:
    thread_id = (await store.new_thread()).thread_id
    log = talk(1, 4)
    await store.append(thread_id, log[:2])
    await store.append(thread_id, log[2:])

    await store.append(thread_id, log[:2])
    await store.append(thread_id, log[2:])
    await store.append(thread_id, log)

    assert await store.read(thread_id) == log


async def test_a_repeated_append_with_something_new_is_a_conflict(store: Store) -> None:
    thread_id = (await store.new_thread()).thread_id
    log = talk(1, 3)
    await store.append(thread_id, log[:2])

    with pytest.raises(StateConflict):
        await store.append(thread_id, log)

    assert await store.read(thread_id) == log[:2]


async def test_no_entries_are_no_append(store: Store) -> None:
    await store.append("thr_1", [])

    assert await store.read("thr_1") == []


async def test_order_is_by_number_when_the_clock_goes_back(store: Store) -> None:
    thread_id = (await store.new_thread()).thread_id
    log = [replace(item, at=1000.0 - item.n) for item in talk(1, 5)]
    for item in log:
        await store.append(thread_id, [item])

    assert await store.read(thread_id) == log


@pytest.mark.parametrize("text", ODD_TEXTS, ids=[ascii(text[:20]) for text in ODD_TEXTS])
async def test_any_text_is_kept(store: Store, text: str) -> None:
    thread_id = (await store.new_thread()).thread_id
    log = [entry(1, MessageEntry(message=UserMessage(text=text)), "run_1")]

    await store.append(thread_id, log)

    assert await store.read(thread_id) == log


async def test_a_name_is_that_of_one_thread_of_one_user(store: Store) -> None:
    asked = [(name, user) for name in ("a", "b") for user in ("ann", "bob")]

    first = {key: await store.thread(*key) for key in asked}
    again = {key: await store.thread(*key) for key in asked}

    assert first == again
    assert len({info.thread_id for info in first.values()}) == 4
    assert {key: (info.name, info.user_id) for key, info in first.items()} == {key: key for key in asked}


async def test_a_thread_that_many_ask_for_at_once_is_made_once(store: Store) -> None:
    found = await asyncio.gather(*(store.thread("shared") for _ in range(20)))

    assert set(found) == {found[0]}


async def test_threads_without_a_name_are_new_each_time(store: Store) -> None:
    first, second = await store.new_thread("ann"), await store.new_thread("ann")

    assert first == ThreadInfo(thread_id=first.thread_id, name=None, user_id="ann")
    assert first.thread_id != second.thread_id


async def test_any_name_is_data(store: Store) -> None:
    by_name = {name: await store.thread(name) for name in ODD_NAMES}
    by_user = {name: await store.thread("a", name) for name in ODD_NAMES}

    assert {name: await store.thread(name) for name in ODD_NAMES} == by_name
    assert {name: info.name for name, info in by_name.items()} == {name: name for name in ODD_NAMES}
    assert {name: info.user_id for name, info in by_user.items()} == {name: name for name in ODD_NAMES}
    assert len({info.thread_id for info in (*by_name.values(), *by_user.values())}) == 2 * len(ODD_NAMES)


@pytest.mark.parametrize("name", NO_NAMES, ids=ascii)
async def test_what_is_no_name_is_refused(store: Store, name: str) -> None:
    with pytest.raises(ConfigurationError, match="the thread name"):
        await store.thread(name)
    with pytest.raises(ConfigurationError, match="the user id"):
        await store.thread("a", name)
    with pytest.raises(ConfigurationError, match="the user id"):
        await store.new_thread(name)


async def test_one_owner_holds_a_thread(store: Store) -> None:
    ann, bob = owner_name(), owner_name()

    mine = await store.acquire("thr_1", "run_1", ann, 60)
    theirs = await store.acquire("thr_1", "run_2", bob, 60)

    assert mine is not None
    assert mine == Lease(thread_id="thr_1", run_id="run_1", owner=ann, expires_at=mine.expires_at)
    assert theirs is None
    assert await store.holder("thr_1") == mine
    assert await store.holder("thr_2") is None


async def test_of_many_owners_one_gets_the_thread(store: Store) -> None:
    got = await asyncio.gather(*(store.acquire("thr_1", f"run_{n}", owner_name(), 60) for n in range(20)))

    (lease,) = [lease for lease in got if lease is not None]
    assert await store.holder("thr_1") == lease


async def test_an_owner_may_take_its_thread_again(store: Store) -> None:
    owner = owner_name()
    await store.acquire("thr_1", "run_1", owner, 60)

    again = await store.acquire("thr_1", "run_2", owner, 90)

    assert again is not None
    assert await store.holder("thr_1") == again


async def test_a_thread_that_was_given_back_can_be_taken(store: Store) -> None:
    mine = await store.acquire("thr_1", "run_1", owner_name(), 60)
    assert mine is not None

    await store.release(mine)

    assert await store.holder("thr_1") is None
    theirs = await store.acquire("thr_1", "run_2", owner_name(), 60)
    assert theirs is not None
    await store.release(mine)  # it is lost, so nothing happens
    assert await store.holder("thr_1") == theirs


async def test_leases_are_extended(store: Store) -> None:
    held = [await store.acquire(f"thr_{n}", "run_1", owner_name(), 60) for n in range(3)]
    leases = [lease for lease in held if lease is not None]
    await store.release(leases[1])

    renewed = await store.renew(leases, 600)

    assert [lease.thread_id for lease in renewed] == ["thr_0", "thr_2"]
    assert all(new.expires_at > leases[0].expires_at + 500 for new in renewed)
    assert [await store.holder(lease.thread_id) for lease in leases] == [renewed[0], None, renewed[1]]


async def test_a_lease_that_ran_out_can_be_taken_and_is_lost_then(store: Store) -> None:
    mine = await store.acquire("thr_1", "run_1", owner_name(), 0)
    assert mine is not None
    assert await store.holder("thr_1") is None

    theirs = await store.acquire("thr_1", "run_2", owner_name(), 60)

    assert theirs is not None
    assert await store.renew([mine], 60) == []
    with pytest.raises(StateConflict, match="run 'run_1' no longer holds thread 'thr_1': run 'run_2' holds it now"):
        await store.append("thr_1", talk(1), lease=mine)
    await store.release(mine)
    assert await store.holder("thr_1") == theirs
    assert await store.read("thr_1") == []


async def test_a_lease_that_ran_out_holds_until_another_takes_it(store: Store) -> None:
    mine = await store.acquire("thr_1", "run_1", owner_name(), 0)
    log = talk(1)

    await store.append("thr_1", log, lease=mine)
    renewed = await store.renew([mine] if mine else [], 60)

    assert await store.read("thr_1") == log
    assert [await store.holder("thr_1")] == renewed


async def test_a_lease_that_was_given_back_holds_nothing(store: Store) -> None:
    mine = await store.acquire("thr_1", "run_1", owner_name(), 60)
    assert mine is not None
    await store.release(mine)

    with pytest.raises(StateConflict, match="it was given back"):
        await store.append("thr_1", talk(1), lease=mine)

    assert await store.read("thr_1") == []


async def test_a_lease_is_for_one_thread(store: Store) -> None:
    mine = await store.acquire("thr_1", "run_1", owner_name(), 60)

    with pytest.raises(StateConflict):
        await store.append("thr_2", talk(1), lease=mine)

    assert await store.read("thr_2") == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only /proc proves that a process is gone")
async def test_the_thread_of_a_process_that_is_gone_is_free_at_once(store: Store) -> None:
    code = "from plait.store.base import owner_name; print(owner_name())"
    told = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", code], capture_output=True, check=True)
    await store.acquire("thr_1", "run_1", told.stdout.decode().strip(), 3600)

    holder = await store.holder("thr_1")
    lease = await store.acquire("thr_1", "run_2", owner_name(), 60)

    assert holder is None
    assert lease is not None
    assert await store.holder("thr_1") == lease


async def test_an_append_that_is_cancelled_is_there_or_not_and_can_be_repeated(store: Store) -> None:
    thread_id = (await store.new_thread()).thread_id
    log = talk(1, 3)
    for item in log:
        task = asyncio.ensure_future(store.append(thread_id, [item]))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])

        found = await store.read(thread_id)
        assert found in (log[: item.n - 1], log[: item.n])
        assert await store.read(thread_id) == found
        await store.append(thread_id, [item])

    assert await store.read(thread_id) == log


async def test_a_closed_store_says_so(store: Store) -> None:
    lease = await store.acquire("thr_1", "run_1", owner_name(), 60)
    assert lease is not None
    assert not store.closed

    await store.close()
    await store.close()

    assert store.closed
    for use in (
        store.thread("a"),
        store.new_thread(),
        store.read("thr_1"),
        store.append("thr_1", talk(1)),
        store.acquire("thr_1", "run_1", "me", 1),
        store.renew([lease], 1),
        store.release(lease),
        store.holder("thr_1"),
    ):
        with pytest.raises(StoreUnavailable, match="the store is closed"):
            await use


async def test_a_forgotten_thread_leaves_nothing() -> None:
    store = MemoryStore()
    info = await store.thread("a")
    await store.append(info.thread_id, talk(1, 3))
    await store.acquire(info.thread_id, "run_1", owner_name(), 60)

    store.forget(info.thread_id)
    store.forget("thr_unknown")

    assert repr(store) == "MemoryStore(0 threads)"
    assert await store.holder(info.thread_id) is None
    assert (await store.thread("a")).thread_id != info.thread_id


def test_only_what_others_can_reach_is_shared() -> None:
    assert (MemoryStore().shared, DatabaseStore("sqlite:///plait.db").shared) == (False, True)
