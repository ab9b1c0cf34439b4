"""What goes to a screen: foreign text made safe, consoles, moving lines, an error in one sentence.

What models and tools say is data: nothing in it can drive the terminal. Knows nothing of runs.
"""

from __future__ import annotations

import os
import re
import sys
import traceback
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Final, TextIO

from rich.console import Console
from rich.control import Control
from rich.segment import ControlType
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Sequence

INDENT: Final = "  "
NARROWEST: Final = 24
"""The columns that every screen is taken to have."""

_CONTROLS: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_REORDERING: Final = re.compile("[\u202a-\u202e\u2066-\u2069]")
_LONGEST: Final = 2_000
_FRAMES: Final = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_ASCII_FRAMES: Final = "|/-\\"


def printable(text: str) -> str:
    """Make foreign text safe to show: control characters become visible signs, and line ends and tabs stay.

    Letters, joined emoji and special spaces stay too: they are text. A carriage return goes where it belongs to the end
    of a line.
    """
    return _CONTROLS.sub(_sign, text)


def _sign(found: re.Match[str]) -> str:
    code = ord(found[0])
    if found[0] == "\r" and found.string[found.end() : found.end() + 1] in ("", "\n"):
        return ""
    if code < 0x20:  # noqa: PLR2004  # Unicode has a picture for each of the first 32 control characters, and for DEL
        return chr(0x2400 + code)
    return "␡" if found[0] == "\x7f" else "�"


def one_line(text: str, length: int) -> str:
    """Give the beginning of foreign text as one line that is safe to show.

    Args:
        text: what was said.
        length: the most characters to keep; ``…`` stands for what was cut.
    """
    line = " ".join(text[: length * 4].split())
    cut = len(line) > length or len(text) > length * 4
    return _REORDERING.sub("�", printable(line[:length])) + ("…" if cut else "")


def fitted(text: str, cells: int) -> str:
    """Cut text to a width in a terminal, where some characters are two cells wide."""
    line = Text(text)
    line.truncate(max(cells, 1), overflow="ellipsis")
    return line.plain


class _Console(Console):
    """A console that says so when its reader is gone, and leaves it to the program to end."""

    def on_broken_pipe(self) -> None:
        raise  # noqa: PLE0704  # it is called while the error is being handled


def console_for(file: TextIO) -> Console:
    """Give a console that writes to a file as it is told: nothing in a text is markup, nothing is wrapped.

    ``NO_COLOR`` takes bold and dim out too, so that no escape sequence is left in what stays on the screen.
    """
    plain = bool(os.environ.get("NO_COLOR"))
    return _Console(
        file=file,
        color_system=None if plain else "auto",
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=True,
    )


class Status:
    """The moving lines below everything else, each with what is done and for how long.

    They are painted over in place, with one write for each painting, and are gone when cleared. The cursor stays
    visible throughout, so that a process that is killed leaves a sound terminal.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._frames = _FRAMES if console.encoding.lower().startswith("utf") else _ASCII_FRAMES
        self._frame = 0
        self._height = 0

    def paint(self, doing: Sequence[tuple[str, float]]) -> None:
        """Show what is being done: labels, and since when by the monotonic clock."""
        width, height = self._console.size
        shown, hidden = doing[: max(height - 2, 1)], max(len(doing) - max(height - 2, 1), 0)
        self._frame = (self._frame + 1) % len(self._frames)
        lines = [self._line(label, monotonic() - since, max(width - 1, NARROWEST)) for label, since in shown]
        if hidden:
            lines.append(Text(f"{INDENT}and {hidden} more", style="dim"))
        with self._console:  # one write
            self.clear()
            for number, line in enumerate(lines):
                self._console.print(line, end="\n" if number < len(lines) - 1 else "")
        self._height = len(lines)

    def clear(self, least: int = 0) -> None:
        """Take the lines away, at least so many; the cursor is then where they began."""
        height = max(self._height, least)
        if height:
            erase = (ControlType.ERASE_IN_LINE, 2)
            up = ((ControlType.CURSOR_UP, 1), erase) * (height - 1)
            self._console.control(Control(ControlType.CARRIAGE_RETURN, erase, *up))
        self._height = 0

    def _line(self, label: str, seconds: float, width: int) -> Text:
        elapsed = f"{INDENT}{seconds:.1f} s"
        label = fitted(label, width - len(INDENT) - 2 - len(elapsed))
        return Text.assemble((f"{INDENT}{self._frames[self._frame]} ", "cyan"), (label, "cyan"), (elapsed, "dim"))


def show_error(error: BaseException | None, sentence: str | None = None) -> None:
    """Say an error on standard error: one sentence in one line, which begins with ``plait:``.

    Args:
        error: what was raised, if anything was; its traceback is shown too where ``PLAIT_DEBUG`` is set.
        sentence: what to say; the error's own words without one.
    """
    console = console_for(sys.stderr)
    said = Text(f"plait: {one_line(sentence or str(error), _LONGEST)}", style="red")
    with suppress(OSError):  # nobody can be told
        if error is not None and os.environ.get("PLAIT_DEBUG"):
            traceback.print_exception(error)
        console.print(said, soft_wrap=not console.is_terminal)
