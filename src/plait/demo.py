"""What ``plait demo`` shows: two tools at once, a streamed answer, and a memory that outlives the process.

Each question is answered by a process of its own (``python -m plait.demo``), on one stored thread.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from plait.agent import Agent
from plait.errors import ConfigurationError, ModelError
from plait.providers.catalog import VENDORS, get_provider
from plait.providers.offline import OfflineProvider
from plait.providers.retry import Retrying
from plait.run import RunLimits
from plait.terminal import View, one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from plait.providers.base import Provider

ROLE: Final = "You help with travel plans. Use the tools for facts. Answer in one or two sentences."
THREAD: Final = "holiday"
QUESTIONS: Final = (
    "What is the weather in Lisbon, and what is the distance to Berlin? By the way, my name is Ada.",
    "What is my name?",
)
WEATHER: Final = {"lisbon": "sunny, 24 °C", "berlin": "light rain, 13 °C"}
KILOMETRES: Final = {frozenset({"lisbon", "berlin"}): "2,313 km"}

OFFLINE_FROM_NOW: Final = 20
"""The exit code of a process whose provider failed, so that the offline provider went on."""

_SECONDS: Final = 20.0
"""How long one answer may take. A demonstration that hangs shows nothing."""


async def weather(city: str) -> str:
    """Tell the weather in a city just now.

    Args:
        city: the city's English name.
    """
    await asyncio.sleep(0.9)
    return WEATHER.get(city.lower(), "no report")


async def distance(start: str, end: str) -> str:
    """Tell how far it is from one city to another, in kilometres.

    Args:
        start: where from.
        end: where to.
    """
    await asyncio.sleep(0.6)
    return KILOMETRES.get(frozenset({start.lower(), end.lower()}), "not known")


def demo() -> int:
    """Show the demonstration; gives the exit code."""
    view = View()
    with tempfile.TemporaryDirectory(prefix="plait-demo-") as folder:
        store = f"sqlite:///{Path(folder, 'demo.db')}"
        provider = ""
        for number, question in enumerate(QUESTIONS, 1):
            again = "" if number == 1 else ", which knows nothing but the thread's name"
            view.console.print()
            view.note(f"Process {number} of {len(QUESTIONS)}{again}", "bold")
            view.note(f"> {question}", "bold cyan")
            view.console.print()
            done = subprocess.run(  # noqa: S603
                [sys.executable, "-m", "plait.demo", store, question, provider], check=False
            )
            if done.returncode == OFFLINE_FROM_NOW:
                provider = "offline"
            elif done.returncode:
                return 128 - done.returncode if done.returncode < 0 else done.returncode
    view.console.print()
    view.note("Two processes, one thread: the second read in an SQLite file what the first was told.")
    return 0
