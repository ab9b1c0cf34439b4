from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from terminals import WITHIN, Terminal, screen, steady

if TYPE_CHECKING:
    from collections.abc import Iterator

DEMO = [sys.executable, "-m", "plait.cli", "demo"]
FIRST = [
    "",
    "Process 1 of 2",
    "> What is the weather in Lisbon, and what is the distance to Berlin? By the way, my name is Ada.",
    "",
]
TOOLS = [
    "  ✓ distance(start='Lisbon', end='Berlin') → 2,313 km  _ s",
    "  ✓ weather(city='Lisbon') → sunny, 24 °C  _ s",
    "",
    "weather says: sunny, 24 °C",
    "distance says: 2,313 km",
    "",
    "  offline answered · 2 turns · _ tokens · _ s",
]
SECOND = [
    "",
    "Process 2 of 2, which knows nothing but the thread's name",
    "> What is my name?",
    "",
    "Your name is Ada.",
    "",
    "  offline answered · 1 turn · _ tokens · _ s",
    "",
    "Two processes, one thread: the second read in an SQLite file what the first was told.",
]
NO_KEY = "No key is set, so the offline provider answered. Set OPENAI_API_KEY to see a model do it."


def demo(**environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        DEMO,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env={**os.environ, "PYTHONUTF8": "1", **environment},
    )


def test_in_a_terminal() -> None:
    with Terminal.of(DEMO, columns=120) as terminal:
        terminal.expect("weather(city='Lisbon')")
        terminal.expect("distance(start='Lisbon', end='Berlin')")
        assert terminal.end() == 0
    assert steady("\n".join(screen(terminal.written))).splitlines() == [*FIRST, *TOOLS, *SECOND, NO_KEY]


def test_interrupted() -> None:
    with Terminal.of(DEMO, columns=120) as terminal:
        terminal.expect("distance(start='Lisbon', end='Berlin')")
        terminal.send("\x03")
        assert terminal.end() == 130
    assert steady("\n".join(screen(terminal.written))).splitlines() == [
        *FIRST,
        "  ✗ weather(city='Lisbon') → cut off  _ s",
        "  ✗ distance(start='Lisbon', end='Berlin') → cut off  _ s",
    ]


@contextmanager
def refusing() -> Iterator[tuple[str, list[str]]]:
    """A server that knows no model; gives its address, and the paths that were asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.path)
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(503)
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_plain_and_with_a_provider_that_fails() -> None:
    """The failing provider is asked once, and replaced. Two demonstrations at once save time."""
    with (
        refusing() as (address, asked),
        demo() as offline,
        demo(OPENAI_API_KEY="sk-made-up-key", OPENAI_BASE_URL=address) as failing,
    ):
        said, errors = offline.communicate(timeout=WITHIN)
        assert steady(said).splitlines() == [*FIRST, *TOOLS, *SECOND, NO_KEY]
        assert (offline.returncode, errors) == (0, "")
        said, errors = failing.communicate(timeout=WITHIN)
    lines = steady(said).splitlines()
    assert lines[4].startswith("openai:gpt-4o could not answer (openai answered 503")
    assert lines[4].endswith("); the offline provider goes on where it stopped.")
    assert [*lines[:4], *lines[5:]] == [*FIRST, *TOOLS, *SECOND]
    assert (failing.returncode, errors, asked) == (0, "", ["/v1/chat/completions"])
    assert "sk-made-up-key" not in said
