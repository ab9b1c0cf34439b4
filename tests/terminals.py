"""Terminals for tests: one made of a string, one that a process is started in, and what a person sees on them."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

WITHIN = 20.0
_TOKEN = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])|\x1b\][^\x07]*\x07|([\r\n\x08\x07])|([^\x1b\r\n\x08\x07]+)")


class StringTerminal(io.StringIO):
    """A text stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def screen(written: str) -> list[str]:
    """Give the lines a person sees after this was written to a terminal; wide characters count as one column."""
    rows, row, column = [""], 0, 0
    for token in _TOKEN.finditer(written):
        number, kind, control, text = token.groups()
        match kind or control:
            case "\n":
                row += 1
                rows += [""] * (row + 1 - len(rows))
                column = 0  # the line discipline writes a carriage return with it
            case "\r":
                column = 0
            case "\x08":
                column = max(column - 1, 0)
            case "A":
                row -= int(number or 1)
                assert row >= 0, "the cursor was moved above the first line"
            case "K":
                rows[row] = "" if number == "2" else rows[row][:column]
            case "l" if number == "?25":
                message = "the cursor was hidden: a process that is killed would leave it so"
                raise AssertionError(message)
            case None if text:
                rows[row] = f"{rows[row][:column]:<{column}}{text}{rows[row][column + len(text) :]}"
                column += len(text)
            case _:
                pass
    return [line.rstrip() for line in rows]


def timeless(text: str) -> str:
    """Put ``_`` in the place of seconds."""
    return re.sub(r"\d+\.\d+ s\b", "_ s", text)


def steady(text: str) -> str:
    """Put ``_`` in the place of seconds and of token counts, which are the provider's affair."""
    return re.sub(r"[\d,]+ tokens in, [\d,]+ out", "_ tokens", timeless(text))


class Terminal:
    """A process in a pseudo-terminal.

    Attributes:
        written: everything it wrote so far.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], columns: int) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**os.environ, "TERM": "xterm", "PYTHONUTF8": "1", **environment},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509  # Ctrl-C needs it
        )
        os.close(slave)
        self._bytes = b""
        self._seen = 0

    @classmethod
    @contextmanager
    def of(cls, command: Sequence[str], columns: int = 80, **environment: str) -> Iterator[Self]:
        """Run a command in a terminal; it is killed when the block is left."""
        terminal = cls(command, environment, columns)
        try:
            yield terminal
        finally:
            terminal.process.kill()
            terminal.process.wait()
            os.close(terminal._master)

    @property
    def written(self) -> str:
        return self._bytes.decode("utf-8", "replace")

    def expect(self, text: str) -> None:
        """Wait until the process has written a text, after what was expected before."""
        assert self._arrived(text, WITHIN), f"{text!r} did not come; what came: {self.written!r}"

    def _arrived(self, text: str, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while (found := self.written.find(text, self._seen)) < 0:
            if not self._read(end - time.monotonic()):
                return False
        self._seen = found + len(text)
        return True

    def send(self, text: str) -> None:
        """Type something."""
        os.write(self._master, text.encode())

    def press(self, key: str, text: str) -> None:
        """Press a key until a text comes: readline can miss a signal that comes just as it begins to wait."""
        for _ in range(int(WITHIN)):
            self.send(key)
            if self._arrived(text, 1.0):
                return
        self.expect(text)

    def end(self) -> int:
        """Wait for the end of the process; gives its exit code."""
        end = time.monotonic() + WITHIN
        while self._read(end - time.monotonic()):
            pass
        return self.process.wait(WITHIN)

    def _read(self, seconds: float) -> bool:
        """Read what there is; False at the end, or when nothing came in time."""
        ready, _, _ = select.select([self._master], [], [], max(seconds, 0))
        part = b""
        with suppress(OSError):  # this is how a pseudo-terminal ends
            part = os.read(self._master, 65536) if ready else b""
        self._bytes += part
        return bool(part)
