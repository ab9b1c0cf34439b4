"""A run as people see it: the answer while it comes, tool calls with their times, how it ended.

The answer goes to one stream and everything else, the notes, to another, which may be the same. In a terminal the
notes are coloured, and lines at the bottom say what is going on; in files and pipes they are plain lines.

Knows events and results, not where they come from; how a screen is written to is `plait.screen`.
"""

from __future__ import annotations

import asyncio
import json
import sys
import textwrap
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Literal, TextIO

from rich.cells import cell_len
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
from plait.screen import INDENT, NARROWEST, Status, console_for, fitted, one_line, printable

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Sequence

    from plait.events import Event, StopReason
    from plait.messages import ToolCall
    from plait.run import RunResult

_PLAIN_CALL: Final = 80
_PLAIN_RESULT: Final = 100
_TICK_SECONDS: Final = 0.1

_ENDINGS: Final[dict[StopReason, str]] = {
    "max_turns": "ended at its limit of turns",
    "max_tool_calls": "ended at its limit of tool calls",
    "budget": "ended at its budget",
    "deadline": "ended at its deadline",
    "user_stop": "stopped",
    "interrupt": "waits for a person",
    "guardrail": "ended by a check",
}


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
        self._status = Status(self.console) if live and self._in_terminal and file.isatty() else None
        self._joined = file is self._answer or (file.isatty() and self._answer.isatty())
        self._hold = hold
        self._above: Literal["answer", "notes"] | None = None
        self._open: Literal["answer", "notes"] | None = None
        self._asides: list[str] = []
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

    def aside(self, line: str) -> None:
        """Write a line of somebody else's among the notes; it waits while a line of the answer is open beside it."""
        if self._status is not None:
            self._status.clear()
        if self._joined and self._open == "answer":
            self._asides.append(line)
            return
        if self._joined:
            self._end_line()
        self.console.file.write(f"{line}\n")
        self.console.file.flush()

    def finish(self, result: RunResult[Any]) -> None:
        """Say how the run ended: who answered, turns, tokens, time. An answer that had no events is given here."""
        if not self._answered and result.stop_reason == "response" and result.text:
            self._write_answer(result.text)
            self._end_line()
        if not self._turns and result.stop_reason == "response":
            self.note(f"{INDENT}nothing was asked: the last run had ended with this answer", "dim")
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
        width = max(self.console.width, NARROWEST) if self._in_terminal else len(line) + len(INDENT)
        for row in textwrap.wrap(line, width, initial_indent=INDENT, subsequent_indent=INDENT):
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
            self._open = "answer"
            if shown.endswith("\n"):
                self._open = None
                self._say_asides()

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
        seconds = f"{INDENT}{_seconds(event.seconds)}"
        if self._in_terminal:
            room = max(self.console.width - len(f"{INDENT}{mark}  → {lines}{seconds}"), NARROWEST // 2)
            of_result = min(cell_len(said), max(room // 2, room - cell_len(call)))
            call, said = fitted(call, room - of_result), fitted(said, of_result)
        return Text.assemble(
            (f"{INDENT}{mark} ", style), (call, "cyan"), f" → {said}", (lines, "dim"), (seconds, "dim")
        )

    def _unfinished(self) -> None:
        """Name the tool calls that the end of the run cut off."""
        running, self._running = self._running, {}
        for label, since in running.values():
            self._begin("notes")
            seconds = f"{INDENT}{_seconds(monotonic() - since)}"
            width = self.console.width - len(f"{INDENT}✗  → cut off{seconds}") if self._in_terminal else len(label)
            call = fitted(label, max(width, NARROWEST // 2))
            self.console.print(Text.assemble((f"{INDENT}✗ ", "red"), (call, "cyan"), " → cut off", (seconds, "dim")))

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
        self._say_asides()

    def _say_asides(self) -> None:
        lines, self._asides = self._asides, []
        for line in lines:
            self.aside(line)

    async def _tick(self) -> None:
        """Keep the moving lines moving. What is over within the first tick is never shown."""
        while self._status is not None:
            await asyncio.sleep(_TICK_SECONDS)
            if self._open is None:
                waiting = [self._waiting] if self._waiting is not None else []
                self._status.paint([*self._running.values(), *waiting])


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


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"  # noqa: PLR2004  # tenths are enough then
