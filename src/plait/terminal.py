"""A run as people see it in a terminal: streamed text, tool calls with their times, tokens.

In a terminal it is live and coloured; where output goes to a file or a pipe it is plain lines. What models and tools
say is data: control characters are taken out, so that they cannot drive the terminal.
"""

from __future__ import annotations

import json
import sys
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, TextIO

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from plait.errors import excerpt
from plait.events import (
    MessageAdded,
    ReasoningDelta,
    RefusalDelta,
    RunFinished,
    TextDelta,
    ToolCallFinished,
    ToolCallStarted,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterable

    from plait.events import Event
    from plait.messages import ToolCall
    from plait.run import RunResult

_KEPT_CONTROLS: Final = {"\n", "\t"}
_RESULT_WIDTH: Final = 100


def printable(text: str) -> str:
    """Take out what could drive a terminal: control characters other than line ends and tabs."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in _KEPT_CONTROLS else "�" for c in text)


class View:
    """Shows one run. Feed it the events; `finish` says how it ended.

    Args:
        out: where to write; live when it is a terminal.
    """

    def __init__(self, out: TextIO | None = None) -> None:
        self.console = Console(file=out or sys.stdout, highlight=False, soft_wrap=True)
        self._live: Live | None = None
        self._running: dict[str, tuple[ToolCall, float]] = {}
        self._started = monotonic()
        self._turns = 0
        self._in_text = False
        self._thinking = False

    async def show(self, batches: AsyncIterable[list[Event]]) -> None:
        """Show a run's events while they come."""
        self._wait_for("thinking")
        try:
            async for batch in batches:
                for event in batch:
                    self._event(event)
        finally:
            self._stop_live()
            self._end_text()

    def _event(self, event: Event) -> None:
        match event:
            case TextDelta() | RefusalDelta():
                self._text(event.text)
            case ReasoningDelta():
                self._reasoning(event.text)
            case MessageAdded() if event.message.role == "assistant":
                self._turns += 1
                self._end_text()
            case ToolCallStarted():
                self._end_text()
                self._running[event.call.id] = (event.call, monotonic())
                self._show_running()
            case ToolCallFinished():
                self._finished(event)
            case RunFinished():
                self._stop_live()
            case _:
                pass

    def _text(self, text: str) -> None:
        self._stop_live()
        if self._thinking:
            self._end_text()
        self._in_text = True
        self.console.file.write(printable(text))
        self.console.file.flush()

    def _reasoning(self, text: str) -> None:
        if self.console.is_terminal:  # a pipe gets the answer only
            self._stop_live()
            self._thinking = self._in_text = True
            self.console.print(Text(printable(text), style="dim italic"), end="")

    def _end_text(self) -> None:
        if self._in_text:
            self.console.file.write("\n")
            self.console.file.flush()
        self._in_text = self._thinking = False

    def _finished(self, event: ToolCallFinished) -> None:
        self._running.pop(event.call.id, None)
        self._stop_live()
        mark, style = ("✗", "red") if event.result.is_error else ("✓", "green")
        line = Text.assemble(
            (f"  {mark} ", style),
            (_call(event.call), "cyan"),
            f" → {excerpt(event.result.text or '(no text)', _RESULT_WIDTH)}",
            (f"  {event.seconds:.2f} s", "dim"),
        )
        self.console.print(line)
        if self._running:
            self._show_running()
        else:
            self._wait_for("thinking")

    def _show_running(self) -> None:
        table = Table.grid(padding=(0, 1))
        for call, _ in self._running.values():
            table.add_row(Spinner("dots", style="cyan"), Text(_call(call), style="cyan"))
        self._replace_live(table)

    def _wait_for(self, what: str) -> None:
        self._replace_live(Spinner("dots", Text(what, style="dim"), style="dim"))

    def _replace_live(self, shown: Any) -> None:
        if not self.console.is_terminal:
            return
        if self._live is None:
            self._live = Live(shown, console=self.console, transient=True, refresh_per_second=12)
            self._live.start()
        else:
            self._live.update(shown)

    def _stop_live(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def finish(self, result: RunResult[Any]) -> None:
        """Say how the run ended: who answered, turns, tokens, time."""
        who = ":".join(name for name in (result.provider, result.model) if name) or "nobody"
        said = [f"{who} answered" if result.stop_reason == "response" else f"ended: {result.stop_reason}"]
        said.append(f"{self._turns} turn{'' if self._turns == 1 else 's'}")
        if result.usage is not None:
            said.append(f"{result.usage.input_tokens:,} tokens in, {result.usage.output_tokens:,} out")
        if result.cost is not None:
            said.append(f"${result.cost:.4f}")
        said.append(f"{monotonic() - self._started:.1f} s")
        if result.truncated:
            said.append("the answer was cut at the token limit")
        self.console.print(Text("  " + " · ".join(said), style="dim"))


def _call(call: ToolCall) -> str:
    """A call as a person would write it: ``get_weather(city='Lisbon')``."""
    try:
        arguments = json.loads(call.arguments or "{}")
    except ValueError:
        arguments = None
    if not isinstance(arguments, dict):
        return f"{call.name}({excerpt(call.arguments, 60)})"
    shown = ", ".join(f"{name}={value!r}" for name, value in arguments.items() if value is not None)
    return f"{excerpt(call.name, 60)}({excerpt(shown, 80)})"
