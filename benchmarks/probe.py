"""One measurement in a process of its own: ``python -m benchmarks.probe NAME --url URL``; prints a line of JSON.

The process runs on one CPU, and the server on another.
"""

from __future__ import annotations

import argparse
import asyncio
import inspect
import json
import logging
import os
import sys
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from benchmarks import clients, imports, limits, store, turns
from benchmarks.clock import pin, raise_file_limit
from benchmarks.setting import Setting
from benchmarks.sides import City, make_side

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from benchmarks.goals import Raw
    from benchmarks.sides import Side


async def peer(setting: Setting, sides: Mapping[str, Side]) -> Raw:
    """What is measured of other libraries: a run, a tool turn, a streamed chunk; after a look at their answers."""
    for name, side in sides.items():
        await check(name, side)
    parts = [await measure(setting, sides) for measure in (turns.run, turns.tools, turns.burst)]
    return {name: {key: value for part in parts for key, value in part[name].items()} for name in sides}


async def check(name: str, side: Side) -> None:
    """See that a side does the jobs: a fast wrong answer is no answer.

    Raises:
        AssertionError: it does not.
    """
    from benchmarks.server import model_of

    words = " ".join(f"word{number}" for number in range(5))
    found = [
        str(await side.runner(model_of(words=5))()),
        str(await side.runner(model_of(words=5, calls=3), tools=True)()),
        "".join([text async for text in side.streamer(model_of(pieces=5))()]).rstrip(),
    ]
    city = await side.runner(model_of(form=1), form=True)()
    if found != [words] * 3 or not isinstance(city, City):
        msg = f"{name} gave {found!r} and {city!r} instead of {words!r} three times and a City"
        raise AssertionError(msg)


PROBES: Final[Mapping[str, Callable[..., Any]]] = {
    "run": turns.run,
    "tools": turns.tools,
    "structured": turns.structured,
    "burst": turns.burst,
    "hooks": turns.hooks,
    "paced": turns.paced,
    "anthropic": partial(turns.dialect, "anthropic"),
    "ollama": partial(turns.dialect, "ollama"),
    "responses": partial(turns.dialect, "responses"),
    "client": clients.client,
    "sync": clients.sync_client,
    "first": turns.first,
    "growth": turns.growth,
    "window": turns.window,
    "crowd": limits.crowd,
    "crowd_memory": limits.crowd_memory,
    "imports": imports.imports,
    "build": imports.build,
    "store": store.appends,
    "stalls": limits.stalls,
    "linear": limits.linear,
    "answer_memory": limits.answer_memory,
    "peer": peer,
}


async def _on_one_loop(name: str, setting: Setting, names: Sequence[str]) -> Raw:
    async with AsyncExitStack() as stack:
        sides: dict[str, Side] = {}
        for side in names:
            sides[side] = make_side(side, setting.base_url)
            stack.push_async_callback(sides[side].close)
        raw: Raw = await PROBES[name](setting, sides)
        return raw


def measured(name: str, setting: Setting, names: Sequence[str]) -> Raw:
    """Measure: most probes have all their sides on one event loop; the others see to that themselves."""
    if inspect.iscoroutinefunction(PROBES[name]):
        return asyncio.run(_on_one_loop(name, setting, names))
    raw: Raw = PROBES[name](setting, names)
    return raw


def main() -> None:
    """Run the probe that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.probe")
    parser.add_argument("name", choices=PROBES)
    parser.add_argument("--url", required=True)
    parser.add_argument("--sides", nargs="+", default=["floor", "plait"])
    parser.add_argument("--effort", type=float, default=1.0)
    parser.add_argument("--size", type=float, default=1.0)
    given = parser.parse_args()
    pin("client")
    raise_file_limit()
    logging.disable(logging.WARNING)
    os.environ["OTEL_SDK_DISABLED"] = "true"
    raw = measured(given.name, Setting(base_url=given.url, effort=given.effort, size=given.size), given.sides)
    sys.stdout.write("\n" + json.dumps(raw) + "\n")  # some libraries print


if __name__ == "__main__":
    main()
