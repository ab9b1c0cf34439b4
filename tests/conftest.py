"""What every test gets: an empty folder, a clean environment, and a check that nothing outlives it."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from hypothesis.database import DirectoryBasedExampleDatabase

from plait.providers import catalog, models
from plait.providers.models import MODELS
from plait.providers.vendors import VENDORS
from recorded import read_recordings, replay_servers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

ROOT = Path(__file__).parents[1]
IN_CI = os.environ.get("CI") == "true"
SHARED = Path(os.environ.get("PLAIT_SHARED") or ROOT.parent / "shared")

# Names of variables that would let the machine's own settings, keys or proxies into a test.
FOREIGN_PREFIXES = ("PLAIT_", "OPENAI_", "OPENROUTER_", "ANTHROPIC_", "OLLAMA_", "OTEL_")
FOREIGN_SUFFIXES = ("_API_KEY", "_PROXY")

# How long threads and tasks that are already ending may take to be gone.
THREADS_END_WITHIN = 5.0
TASKS_END_WITHIN_TICKS = 5

_threads_before = pytest.StashKey[frozenset[threading.Thread]]()

# A slow machine is no finding (no deadline); CI tries the same examples each time, a contributor new ones.
settings.register_profile(
    "plait",
    deadline=None,
    derandomize=IN_CI,
    database=None if IN_CI else DirectoryBasedExampleDatabase(ROOT / ".hypothesis"),
)
settings.load_profile("plait")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of recordings and other material kept beside the checkout, or at ``$PLAIT_SHARED``."""
    if not SHARED.is_dir():
        reason = f"needs the shared folder, which is not at {str(SHARED)!r}; set PLAIT_SHARED to where it is"
        if IN_CI:
            pytest.fail(reason)
        pytest.skip(reason)
    return SHARED


@pytest.fixture(scope="session")
def tables() -> Path:
    """The folder of tiktoken's tables, as installed by ``make test``."""
    folder = Path(sys.prefix) / "tables"
    if not folder.is_dir():
        reason = f"needs tiktoken's tables in {str(folder)!r}; 'make test' installs them"
        if IN_CI:
            pytest.fail(reason)
        pytest.skip(reason)
    return folder


@pytest.fixture(scope="session")
def recordings(shared: Path) -> list[dict[str, Any]]:
    """Every recorded exchange of the chat dialect."""
    return read_recordings(shared)


@pytest.fixture(scope="session")
def servers(shared: Path) -> Iterator[dict[str, str]]:
    """Where the replay servers listen, one for each delivery."""
    with replay_servers(shared) as made:
        yield made


@pytest.fixture
def registry() -> Iterator[None]:
    """Forget after the test what it registered."""
    tables: list[dict[str, Any]] = [catalog.REGISTERED, VENDORS, MODELS, models.OWN]
    before = [dict(table) for table in tables]
    yield
    for table, kept in zip(tables, before, strict=True):
        table.clear()
        table.update(kept)


@pytest.fixture(autouse=True)
def _own_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the test in an empty folder, without keys, proxies or settings of the machine."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.upper().startswith(FOREIGN_PREFIXES) or name.upper().endswith(FOREIGN_SUFFIXES):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    """Take back what the test, or a program that it ran here, said of logging: pytest keeps every record it gets."""
    loggers = [logging.getLogger(), logging.getLogger("plait")]
    before = [(logger.level, list(logger.handlers)) for logger in loggers]
    yield
    for logger, (level, handlers) in zip(loggers, before, strict=True):
        logger.setLevel(level)
        for handler in [one for one in logger.handlers if one not in handlers]:
            logger.removeHandler(handler)


@pytest.fixture(autouse=True)
def _nothing_left(request: pytest.FixtureRequest) -> None:
    """Note what runs before the test; `pytest_runtest_teardown` looks for threads, after the event loop is gone."""
    request.node.stash[_threads_before] = frozenset(threading.enumerate())
    if inspect.iscoroutinefunction(getattr(request.node, "obj", None)):
        request.getfixturevalue("_no_task_left")


@pytest.fixture
async def _no_task_left() -> AsyncIterator[None]:
    """Fail when a task is left, in the test's own loop, once its other fixtures are closed."""
    before = asyncio.all_tasks()
    yield
    for _ in range(TASKS_END_WITHIN_TICKS):  # a task that was cancelled just now ends at the next tick
        await asyncio.sleep(0)
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    if left:
        pytest.fail(f"tasks left behind: {sorted(map(repr, left))}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """Fail when a thread is left that would keep the process alive."""
    yield
    before = item.stash.get(_threads_before, None)
    if before is None:  # the set-up failed before it was noted
        return
    left = [thread for thread in threading.enumerate() if thread not in before and not thread.daemon]
    for thread in left:
        thread.join(THREADS_END_WITHIN)
    if alive := [repr(thread) for thread in left if thread.is_alive()]:
        pytest.fail(f"threads left behind: {alive}")
