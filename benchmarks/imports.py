"""Measure what importing plait costs, in CPU time, beside the goals: ``python benchmarks/imports.py``.

Each statement runs in an interpreter of its own; the least of several runs counts, because other programs on the
machine can only make a run slower.
"""

from __future__ import annotations

import os
import subprocess
import sys

RUNS = 15
BARE = "pass"
ROOT = "import plait"
FLOOR = "import asyncio, msgspec; from pydantic import BaseModel"
AGENT = "from plait import Agent, tool"
ROOT_GOAL_MS = 30.0
AGENT_GOAL_RATIO = 1.5
MEASURE = "import time; began = time.process_time(); {}; print((time.process_time() - began) * 1000)"


def cpu_ms(statement: str) -> float:
    """Give the milliseconds of CPU that a statement takes in a fresh interpreter, with compiled files in place."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-c", MEASURE.format(statement)]
    times = [subprocess.run(command, capture_output=True, text=True, check=True, env=environment) for _ in range(RUNS)]
    return min(float(done.stdout) for done in times)


def main() -> int:
    """Print the figures; exit with 1 when a goal is missed."""
    bare, root, floor, agent = (cpu_ms(statement) for statement in (BARE, ROOT, FLOOR, AGENT))
    rows = [
        (
            ROOT,
            f"{root - bare:6.1f} ms above a bare interpreter",
            root - bare <= ROOT_GOAL_MS,
            f"{ROOT_GOAL_MS:.0f} ms",
        ),
        (
            AGENT,
            f"{agent / floor:6.2f}x of {FLOOR!r} ({agent:.1f} against {floor:.1f} ms)",
            agent / floor <= AGENT_GOAL_RATIO,
            f"{AGENT_GOAL_RATIO}x",
        ),
    ]
    for statement, figure, met, goal in rows:
        print(f"{'ok  ' if met else 'MISS'} {statement:32} {figure}; goal {goal}")
    return 0 if all(met for _, _, met, _ in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
