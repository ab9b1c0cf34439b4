"""Cases of the durable store: appends to a SQLite file, beside the same rows written by hand with `sqlite3`."""

from __future__ import annotations

import asyncio
import gc
import json
import sqlite3
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

import orjson

from plait import Message, Store, open_store
from plait.entries import Entry, MessageEntry, encode, entry

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from benchmarks.goals import Raw
    from benchmarks.setting import Setting

_TEXT: Final = "It is sunny in Lisbon, with a light wind from the north-west and 21 degrees in the afternoon. " * 2
_AT_ONCE: Final = 16
_INSERT: Final = "INSERT INTO entries (thread_id, n, id, run_id, kind, at, line, crc) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"


def made(first: int, count: int) -> list[Entry]:
    """Make entries with the numbers from ``first``: messages of some 190 characters."""
    body = MessageEntry(message=Message(text=_TEXT, role="user"))
    return [entry(number, body, "run_0") for number in range(first, first + count)]


class Floor:
    """Rows of the same tables, written by hand: one thread, one connection, one transaction for each append."""

    def __init__(self, path: Path, like: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=FULL")
        self._connection.execute("PRAGMA foreign_keys=ON")
        with sqlite3.connect(like) as model:
            statements = model.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
        model.close()
        for (statement,) in statements:
            self._connection.execute(statement)

    def new_thread(self, thread_id: str) -> None:
        """Add a thread."""
        self._connection.execute("INSERT INTO threads VALUES (?, 'default', NULL, ?)", (thread_id, time.time()))

    def append(self, thread_id: str, items: Sequence[dict[str, Any]]) -> None:
        """Encode and add entries; they are durable when this returns."""
        rows = []
        for item in items:
            line = orjson.dumps(item)
            columns = (item["n"], item["id"], item["run_id"], item["kind"], item["at"])
            rows.append((thread_id, *columns, line.decode(), crc32(line)))
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany(_INSERT, rows)
        self._connection.execute("COMMIT")

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


class _Best:
    """The least CPU and wall seconds of several rounds."""

    def __init__(self) -> None:
        self.cpu = self.wall = float("inf")

    async def measure(self, operation: Callable[[], Awaitable[None]]) -> None:
        gc.collect()
        wall, cpu = time.perf_counter(), time.process_time()
        await operation()
        self.cpu = min(self.cpu, time.process_time() - cpu)
        self.wall = min(self.wall, time.perf_counter() - wall)


async def _sequential(setting: Setting, store: Store, floor: Floor, size: int) -> dict[str, tuple[float, float]]:
    """Append ``size`` entries again and again; give CPU seconds a commit, and entries a second, of both sides."""
    appends = setting.sized(40)
    best = {"floor": _Best(), "plait": _Best()}
    thread_id = (await store.new_thread()).thread_id
    floor.new_thread(thread_id)
    n = 1
    for _ in range(setting.times(15) + 1):
        batches = [made(n + size * number, size) for number in range(appends)]
        plain = [[json.loads(encode(item)) for item in batch] for batch in batches]
        n += size * appends

        async def by_plait(batches: list[list[Entry]] = batches) -> None:
            for batch in batches:
                await store.append(thread_id, batch)

        async def by_hand(plain: list[list[dict[str, Any]]] = plain) -> None:
            for batch in plain:
                floor.append(thread_id, batch)

        await best["plait"].measure(by_plait)
        await best["floor"].measure(by_hand)
    return {side: (found.cpu / appends, size * appends / found.wall) for side, found in best.items()}


async def _at_once(setting: Setting, store: Store, floor: Floor) -> dict[str, float]:
    """Sixteen threads that each append one entry after the other, all at once; give wall seconds an entry."""
    appends = setting.sized(20)
    best = {"floor": _Best(), "plait": _Best()}
    for _ in range(setting.times(15) + 1):
        threads = [(await store.new_thread()).thread_id for _ in range(_AT_ONCE)]
        for made_id in threads:
            floor.new_thread(made_id)
        entries = {each: made(1, appends) for each in threads}
        plain = {each: [json.loads(encode(item)) for item in found] for each, found in entries.items()}

        async def by_plait(entries: dict[str, list[Entry]] = entries) -> None:
            async def one(thread_id: str, items: list[Entry]) -> None:
                for item in items:
                    await store.append(thread_id, [item])

            await asyncio.gather(*(one(*pair) for pair in entries.items()))

        async def by_hand(plain: dict[str, list[dict[str, Any]]] = plain) -> None:
            for number in range(appends):
                for its_id, items in plain.items():
                    floor.append(its_id, items[number : number + 1])

        await best["plait"].measure(by_plait)
        await best["floor"].measure(by_hand)
    return {side: found.wall / (_AT_ONCE * appends) for side, found in best.items()}


def appends(setting: Setting, names: Sequence[str]) -> Raw:  # noqa: ARG001  # the sides are the two files here
    """Appends of one entry, of fifty, and of sixteen threads at once."""
    with tempfile.TemporaryDirectory(prefix="plait-bench-") as folder:
        return asyncio.run(_appends(setting, Path(folder)))


async def _appends(setting: Setting, folder: Path) -> Raw:
    store = open_store(f"sqlite:///{folder / 'plait.db'}")
    await store.new_thread()
    floor = Floor(folder / "floor.db", folder / "plait.db")
    try:
        one = await _sequential(setting, store, floor, 1)
        fifty = await _sequential(setting, store, floor, 50)
        crowd = await _at_once(setting, store, floor)
    finally:
        await store.close()
        floor.close()
    return {
        side: {
            "one": one[side][0],
            "one_rate": one[side][1],
            "fifty": fifty[side][0],
            "fifty_rate": fifty[side][1],
            "crowd": crowd[side],
            "crowd_rate": 1 / crowd[side],
        }
        for side in one
    }
