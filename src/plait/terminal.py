"""A run as people see it: the answer while it comes, tool calls with their times, how it ended.

The answer goes to one stream and everything else, the notes, to another, which may be the same. In a terminal the
notes are coloured, and lines at the bottom say what is going on; in files and pipes they are plain lines. What models
and tools say is data: nothing in it can drive the terminal.

Knows events and results, not where they come from.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import textwrap
import traceback
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Literal, TextIO

from rich.cells import cell_len
from rich.console import Console
from rich.control import Control
from rich.segment import ControlType
from rich.text import Text

from plait.events import (
    MessageAdded,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Sequence

    from plait.events import Event, StopReason
    from plait.messages import ToolCall
    from plait.run import RunResult

_CONTROLS: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_REORDERING: Final = re.compile("[\u202a-\u202e\u2066-\u2069]")
_PLAIN_CALL: Final = 80
_PLAIN_RESULT: Final = 100
_NARROWEST: Final = 24
_LONGEST: Final = 2_000
_TICK_SECONDS: Final = 0.1
_FRAMES: Final = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_ASCII_FRAMES: Final = "|/-\\"
_INDENT: Final = "  "

_ENDINGS: Final[dict[StopReason, str]] = {
    "max_turns": "ended at its limit of turns",
    "max_tool_calls": "ended at its limit of tool calls",
    "budget": "ended at its budget",
    "deadline": "ended at its deadline",
    "user_stop": "stopped",
    "interrupt": "waits for a person",
    "guardrail": "ended by a check",
}


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


class View:
    """Shows runs, one after the other: `show` each while it is under way, then `finish` with its result.

    Args:
        answer: where the answer goes; standard output without one.
        notes: where tool calls, endings and the rest go; where the answer goes without one.
        live: False leaves out the moving lines, also in a terminal.
        hold: keeps an answer back until it is known whether tools will be called with it. Then what was said on the way
            to the answer is a note, and the answer is alone in its stream.
    """

    def __init__(
        self, answer: TextIO | None = None, notes: TextIO | None = None, *, live: bool = True, hold: bool = False
    ) -> None:
        self._answer = answer or sys.stdout
        file = notes or self._answer
        self.console = console_for(file)
        self._in_terminal = self.console.is_terminal and not self.console.is_dumb_terminal
        self._status = _Status(self.console) if live and self._in_terminal and file.isatty() else None
        self._joined = file is self._answer or (file.isatty() and self._answer.isatty())
        self._hold = hold
        self._above: Literal["answer", "notes"] | None = None
        self._open: Literal["answer", "notes"] | None = None
        self._pieces: list[str] = []
        self._held: list[str] = []
        self._waiting: tuple[str, float] | None = None
        self._running: dict[str, tuple[str, float]] = {}
        self._started = monotonic()
        self._turns = 0
        self._answered = False

    async def show(self, batches: AsyncIterable[Sequence[Event]]) -> None:
        """Show a run's events while they come."""
        self._started = monotonic()
        self._turns, self._answered, self._above = 0, False, None
        self._waiting = ("thinking", self._started)
        ticker = asyncio.get_running_loop().create_task(self._tick()) if self._status else None
        try:
            async for batch in batches:
                for event in batch:
                    self._take(event)
                self._write_pieces()
        finally:
            self._waiting = None
            if ticker is not None:
                ticker.cancel()
                with suppress(asyncio.CancelledError):
                    await ticker
            if self._status is not None:
                self._status.clear()  # an error may be said next, by someone else
            self._write_pieces()
            self._release(final=True)
            self._end_line()
            self._unfinished()

    def note(self, text: str, style: str = "") -> None:
        """Write a line of notes."""
        self._begin("notes")
        self.console.print(Text(printable(text), style=style), soft_wrap=not self.console.is_terminal)

    def stopping(self) -> None:
        """Say, in the moving lines, that the run was asked to stop."""
        if self._status is not None and self._open is None:
            self._status.clear(least=1)  # the terminal has written ^C there
        self._waiting = ("stopping", monotonic())

    def break_line(self) -> None:
        """Begin a new line if one is under way on the same screen, for someone else who writes to it."""
        if self._status is not None:
            self._status.clear()
        if self._joined:
            self._write_pieces()
            self._end_line()

    def finish(self, result: RunResult[Any]) -> None:
        """Say how the run ended: who answered, turns, tokens, time. An answer that had no events is given here."""
        if not self._answered and result.stop_reason == "response" and result.text:
            self._write_answer(result.text)
            self._end_line()
        if not self._turns and result.stop_reason == "response":
            self.note(f"{_INDENT}nothing was asked: the last run had ended with this answer", "dim")
            return
        said = [_ending(result), f"{self._turns} turn{'' if self._turns == 1 else 's'}"]
        if result.usage is not None:
            said.append(f"{result.usage.input_tokens:,} tokens in, {result.usage.output_tokens:,} out")
        if result.cost is not None:
            said.append(f"${result.cost:.4f}")
        said.append(f"{monotonic() - self._started:.1f} s")
        if result.truncated:
            said.append("the answer was cut at the token limit")
        line = " · ".join(said)
        self._begin("notes")
        width = max(self.console.width, _NARROWEST) if self._in_terminal else len(line) + len(_INDENT)
        for row in textwrap.wrap(line, width, initial_indent=_INDENT, subsequent_indent=_INDENT):
            self.console.print(Text(row, style="dim"))

    # --- events ------------------------------------------------------------------------------------------------------

    def _take(self, event: Event) -> None:
        if isinstance(event, TextDelta | RefusalDelta):
            self._pieces.append(event.text)
            return
        self._write_pieces()
        match event:
            case ReasoningDelta():
                self._reasoning(event.text)
            case ToolCallDelta() if self._waiting is None:  # the text is at its end, and a call may take long to write
                self._end_line()
                self._waiting = ("thinking", monotonic())
            case MessageAdded() if event.message.role == "assistant":
                self._turns += 1
                self._release(final=not event.message.tool_calls)
                self._end_line()
            case ToolCallStarted():
                self._waiting = None
                self._running[event.call.id] = (_written(event.call, _PLAIN_CALL), monotonic())
            case ToolCallFinished():
                self._running.pop(event.call.id, None)
                self._begin("notes")
                self.console.print(self._finished(event))
                if not self._running:
                    self._waiting = ("thinking", monotonic())
            case _:
                pass

    def _write_pieces(self) -> None:
        """Write what came with one read of the socket at once."""
        if not self._pieces:
            return
        text = "".join(self._pieces)
        self._pieces.clear()
        if self._hold:
            self._held.append(text)
        else:
            self._write_answer(text)

    def _write_answer(self, text: str) -> None:
        self._waiting = None
        self._answered = True
        self._begin("answer")
        shown = printable(text)
        self._answer.write(shown)
        self._answer.flush()
        if shown:
            self._open = None if shown.endswith("\n") else "answer"

    def _release(self, *, final: bool) -> None:
        """Write what was held back: the answer, or what was said before tools were called."""
        text = "".join(self._held)
        self._held.clear()
        if text and final:
            self._write_answer(text)
        elif text.strip():
            self._begin("notes")
            self.console.print(Text(printable(text.rstrip("\n")), style="dim"))

    def _reasoning(self, text: str) -> None:
        if not self._in_terminal:  # it is for watching, not for keeping
            return
        self._waiting = None
        self._begin("notes")
        self.console.print(Text(printable(text), style="dim italic"), end="")
        self._open = None if text.endswith("\n") else "notes"

    def _finished(self, event: ToolCallFinished) -> Text:
        """Give the line of a tool call that has its result; in a terminal it fits into one row."""
        mark, style = ("✗", "red") if event.result.is_error else ("✓", "green")
        call = _written(event.call, _PLAIN_CALL)
        said = one_line(event.result.text, _PLAIN_RESULT) or "(no text)"
        rows = event.result.text.strip().count("\n") + 1
        lines = f" ({rows} lines)" if said.endswith("…") and rows > 1 else ""
        seconds = f"{_INDENT}{_seconds(event.seconds)}"
        if self._in_terminal:
            room = max(self.console.width - len(f"{_INDENT}{mark}  → {lines}{seconds}"), _NARROWEST // 2)
            of_result = min(cell_len(said), max(room // 2, room - cell_len(call)))
            call, said = _cut(call, room - of_result), _cut(said, of_result)
        return Text.assemble(
            (f"{_INDENT}{mark} ", style), (call, "cyan"), f" → {said}", (lines, "dim"), (seconds, "dim")
        )

    def _unfinished(self) -> None:
        """Name the tool calls that the end of the run cut off."""
        running, self._running = self._running, {}
        for label, since in running.values():
            self._begin("notes")
            seconds = f"{_INDENT}{_seconds(monotonic() - since)}"
            width = self.console.width - len(f"{_INDENT}✗  → cut off{seconds}") if self._in_terminal else len(label)
            call = _cut(label, max(width, _NARROWEST // 2))
            self.console.print(Text.assemble((f"{_INDENT}✗ ", "red"), (call, "cyan"), " → cut off", (seconds, "dim")))

    # --- lines and blocks --------------------------------------------------------------------------------------------

    def _begin(self, what: Literal["answer", "notes"]) -> None:
        """Make ready to write: no moving lines, and an empty line between answer and notes on one screen."""
        if self._status is not None:
            self._status.clear()
        if self._open not in (None, what):
            self._end_line()
        if self._joined and self._above not in (None, what):
            self._answer.write("\n")
            self._answer.flush()
        self._above = what

    def _end_line(self) -> None:
        if self._open is not None:
            stream = self._answer if self._open == "answer" else self.console.file
            stream.write("\n")
            stream.flush()
        self._open = None

    async def _tick(self) -> None:
        """Keep the moving lines moving. What is over within the first tick is never shown."""
        while self._status is not None:
            await asyncio.sleep(_TICK_SECONDS)
            if self._open is None:
                waiting = [self._waiting] if self._waiting is not None else []
                self._status.paint([*self._running.values(), *waiting])


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


class _Status:
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
        lines = [self._line(label, monotonic() - since, max(width - 1, _NARROWEST)) for label, since in shown]
        if hidden:
            lines.append(Text(f"{_INDENT}and {hidden} more", style="dim"))
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
        elapsed = f"{_INDENT}{seconds:.1f} s"
        label = _cut(label, width - len(_INDENT) - 2 - len(elapsed))
        return Text.assemble((f"{_INDENT}{self._frames[self._frame]} ", "cyan"), (label, "cyan"), (elapsed, "dim"))


def _ending(result: RunResult[Any]) -> str:
    if result.stop_reason != "response":
        return _ENDINGS[result.stop_reason] + (f" ({one_line(result.error, _PLAIN_RESULT)})" if result.error else "")
    names = dict.fromkeys(one_line(name, _PLAIN_CALL) for name in (result.provider, result.model) if name)
    return f"{':'.join(names) or 'the model'} answered"


def _written(call: ToolCall, length: int) -> str:
    """A call as a person would write it: ``get_weather(city='Lisbon')``."""
    try:
        arguments = json.loads(call.arguments or "{}")
    except (ValueError, RecursionError):
        arguments = None
    if isinstance(arguments, dict):
        given = ", ".join(f"{name}={value!r}" for name, value in arguments.items() if value is not None)
    else:
        given = call.arguments
    return f"{one_line(call.name, length)}({one_line(given, length)})"


def _cut(text: str, cells: int) -> str:
    """Cut text to a width in a terminal, where some characters are two cells wide."""
    line = Text(text)
    line.truncate(max(cells, 1), overflow="ellipsis")
    return line.plain


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"  # noqa: PLR2004  # tenths are enough then


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
