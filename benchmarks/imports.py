"""Cases of what it costs to begin: importing plait, and building an agent. No server is asked."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Final

from benchmarks.clock import race
from benchmarks.sides import Plait

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from benchmarks.goals import Raw
    from benchmarks.setting import Setting

BARE: Final = "pass"
ROOT: Final = "import plait"
FLOOR: Final = "import asyncio, msgspec; from pydantic import BaseModel"
AGENT: Final = "from plait import Agent, tool"
HEAVY: Final = (
    *("aiohttp", "alembic", "anyio", "docstring_parser", "rich", "sqlalchemy", "typer"),  # of plait itself
    *("cryptography", "genai_prices", "mcp", "opentelemetry", "psycopg", "redis", "saq"),  # of its extras
    *("starlette", "tiktoken", "uvicorn"),
)
"""What only those who use it pay for."""

_MEASURE: Final = "import time; began = time.process_time(); {}; print(time.process_time() - began)"
_COUNT: Final = "import sys; {}; print(sum(name in sys.modules for name in {!r}))"


def _printed(program: str) -> float:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    return float(done.stdout.splitlines()[-1])


def cpu_of(statements: Sequence[str], rounds: int) -> list[float]:
    """Give the least CPU seconds of each statement in fresh interpreters, with compiled files in place."""
    least = [float("inf")] * len(statements)
    for _ in range(rounds):
        for number, statement in enumerate(statements):
            least[number] = min(least[number], _printed(_MEASURE.format(statement)))
    return least


def imports(setting: Setting, names: Sequence[str]) -> Raw:  # noqa: ARG001  # the sides are statements here
    """What importing the root costs beside nothing, and importing an agent beside what it stands on."""
    bare, root, floor, agent = cpu_of((BARE, ROOT, FLOOR, AGENT), setting.times(25))
    heavy = _printed(_COUNT.format(AGENT, HEAVY))
    return {"floor": {"root": bare, "agent": floor}, "plait": {"root": root, "agent": agent, "heavy": heavy}}


def build(setting: Setting, names: Sequence[str]) -> Raw:  # noqa: ARG001  # the floor builds a dict
    """Make an agent with five tools that were seen before."""
    from benchmarks.floor import Floor

    async def measured() -> dict[str, float]:
        floor, plait = Floor(setting.base_url), Plait(setting.base_url)
        jobs = {"floor": _awaited(floor.builder()), "plait": _awaited(plait.builder())}
        try:
            return await race(jobs, rounds=setting.times(100), seconds=0.004)
        finally:
            await floor.close()

    return {name: {"build": value} for name, value in asyncio.run(measured()).items()}


def _awaited(function: Callable[[], object]) -> Callable[[], Awaitable[object]]:
    async def operation() -> object:
        return function()

    return operation


def peer_imports(statements: Mapping[str, str], rounds: int) -> dict[str, float]:
    """Give the CPU seconds of importing each peer, by name."""
    return dict(zip(statements, cpu_of(list(statements.values()), rounds), strict=True))
