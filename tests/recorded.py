"""The recorded exchanges, and the ways in which the replay server serves them."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FAMILIES: Final = {"openai-chat": "openai", "ollama-openai": "ollama-chat", "openrouter-chat": "openrouter"}
DELIVERIES: Final = {
    "as recorded": (),
    "byte by byte": ("--rechunk", "1"),
    "cut at random": ("--rechunk", "7", "--seed", "4"),
    "other line ends, comments": ("--crlf", "--pings"),
}


def read_recordings(shared: Path, *families: str) -> list[dict[str, Any]]:
    """Give every recording of these kinds of endpoints, by their ids; without a kind, those of the chat dialect."""
    found = [
        json.loads(path.read_text("utf-8"))
        for family in families or FAMILIES
        for path in (shared / "recordings" / family).iterdir()
    ]
    return sorted(found, key=lambda recording: str(recording["id"]))


@contextmanager
def replay_servers(shared: Path) -> Iterator[dict[str, str]]:
    """Start one replay server for each delivery; gives where each listens."""
    command = [
        sys.executable,
        str(shared / "tools/replay_server.py"),
        str(shared / "recordings"),
        "--port",
        "0",
    ]
    with ExitStack() as stack:
        made = {}
        for delivery, options in DELIVERIES.items():
            server = stack.enter_context(subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True))
            stack.callback(server.terminate)
            assert server.stdout is not None
            made[delivery] = server.stdout.readline().rsplit(" ", 1)[-1].strip()
        yield made
