"""What ``plait demo`` shows: two tools at once, a streamed answer, and a memory that outlives the process."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from plait.agent import Agent
from plait.errors import ConfigurationError
from plait.providers.offline import OfflineProvider
from plait.terminal import View

ROLE = "You help with travel plans. Use the tools for facts. Answer in one or two sentences."
THREAD = "holiday"
QUESTIONS = (
    "What is the weather in Lisbon, and what is the distance to Berlin? By the way, my name is Ada.",
    "What is my name?",
)
WEATHER = {"lisbon": "sunny, 24 °C", "berlin": "light rain, 13 °C"}
KILOMETRES = {frozenset({"lisbon", "berlin"}): 2313}


async def weather(city: str) -> str:
    """Tell the weather in a city just now.

    Args:
        city: the city's English name.
    """
    await asyncio.sleep(0.6)
    return f"{city}: {WEATHER.get(city.lower(), 'no report')}"


async def distance(start: str, end: str) -> str:
    """Tell how far it is from one city to another, in kilometres.

    Args:
        start: where from.
        end: where to.
    """
    await asyncio.sleep(0.4)
    found = KILOMETRES.get(frozenset({start.lower(), end.lower()}))
    return f"{start} to {end}: {found} km" if found else f"the way from {start} to {end} is not known"


def demo() -> None:
    """Run the demonstration: each question in a process of its own, on one stored thread."""
    with tempfile.TemporaryDirectory(prefix="plait-demo-") as folder:
        store = f"sqlite:///{Path(folder, 'demo.db')}"
        for number, question in enumerate(QUESTIONS, 1):
            sys.stdout.write(f"\n[process {number} of {len(QUESTIONS)}] > {question}\n\n")
            sys.stdout.flush()
            done = subprocess.run([sys.executable, "-m", "plait.demo", store, question], check=False)  # noqa: S603
            if done.returncode:
                raise SystemExit(done.returncode)
    sys.stdout.write(
        "\nTwo processes, one thread: the second read in the SQLite file what the first was told.\n"
    )


async def _ask(store: str, question: str) -> None:
    """Answer one question: what each process of the demonstration does."""
    try:
        agent: Agent[Any, Any] = Agent(role=ROLE, tools=[weather, distance], store=store)
    except ConfigurationError:  # no key is set
        agent = Agent(role=ROLE, tools=[weather, distance], store=store, provider=OfflineProvider(delay=0.04))
    view = View()
    run = agent.run(question, thread=THREAD)
    await view.show(run.batches())
    view.finish(await run)


if __name__ == "__main__":
    asyncio.run(_ask(sys.argv[1], sys.argv[2]))
