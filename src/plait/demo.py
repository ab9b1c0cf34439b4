"""What ``plait demo`` shows: two tools at once, a streamed answer, and a memory that outlives the process.

Each question is answered by a process of its own (``python -m plait.demo``), on one stored thread.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from plait.agent import Agent
from plait.errors import ConfigurationError, ModelError, PlaitError
from plait.providers.catalog import get_provider
from plait.providers.offline import OfflineProvider
from plait.providers.retry import Retrying, RetryPolicy
from plait.run import RunLimits
from plait.screen import one_line, show_error
from plait.terminal import View

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

_GRACE: Final = 3.0
_SECONDS: Final = 20.0
"""How long one answer may take. A demonstration that hangs shows nothing."""


async def weather(city: str) -> str:
    """Tell the weather in a city just now.

    Args:
        city: the city's English name.
    """
    await asyncio.sleep(0.7)
    return WEATHER.get(city.lower(), "no report")


async def distance(start: str, end: str) -> str:
    """Tell how far it is from one city to another, in kilometres.

    Args:
        start: where from.
        end: where to.
    """
    await asyncio.sleep(0.5)
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
            code = _process(store, question, provider)
            if code == OFFLINE_FROM_NOW:
                provider = "offline"
            elif code:
                return code
    view.console.print()
    view.note("Two processes, one thread: the second read in an SQLite file what the first was told.")
    if not provider and isinstance(_provider(provider), OfflineProvider):
        view.note("No key is set, so the offline provider answered. Set OPENAI_API_KEY to see a model do it.", "dim")
    return 0


def _process(*arguments: str) -> int:
    """Run this module in a process of its own; gives its exit code, as shells say it."""
    with subprocess.Popen([sys.executable, "-m", "plait.demo", *arguments]) as process:  # noqa: S603
        try:
            code = process.wait()
        except KeyboardInterrupt:  # it was interrupted too, and takes its moving lines off the screen
            with suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
                process.wait(_GRACE)
            process.kill()
            raise
    return code if code >= 0 else 128 - code


async def _answer(store: str, question: str, provider_name: str) -> int:
    """Answer one question: what each process of the demonstration does."""
    view = View()
    provider = _provider(provider_name)
    agent = _agent(store, provider)
    try:
        run = agent.run(question, thread=THREAD, limits=RunLimits(deadline=_SECONDS))
        await view.show(run.batches())
        result = await run
    except ModelError as error:
        failure = one_line(str(error), 200)
    else:
        if result.stop_reason != "deadline":
            view.finish(result)
            return 0
        failure = f"no answer within {_SECONDS:g} s"
    name = f"{provider.name}:{provider.model}"
    view.note(f"{name} could not answer ({failure}); the offline provider goes on where it stopped.", "yellow")
    run = _agent(store, _offline()).resume(THREAD)
    await view.show(run.batches())
    view.finish(await run)
    return OFFLINE_FROM_NOW


def _agent(store: str, provider: Provider) -> Agent[Any, Any]:
    return Agent(role=ROLE, tools=[weather, distance], store=store, provider=provider)


def _provider(name: str) -> Provider:
    """Give the provider of this name, else the one whose key is set, else the offline one.

    Nobody watches a provider that is asked again and again: it is asked once.
    """
    try:
        found = get_provider(name or None)
    except ConfigurationError:
        found = get_provider("offline")
    if found.name == "offline":
        return _offline()
    return Retrying(found.provider, RetryPolicy(max_retries=0)) if isinstance(found, Retrying) else found


def _offline() -> Provider:
    return OfflineProvider(delay=0.04)


def _main(arguments: Sequence[str]) -> int:
    try:
        return asyncio.run(_answer(*arguments))
    except PlaitError as error:
        show_error(error)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
