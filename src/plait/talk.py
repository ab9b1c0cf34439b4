"""A run at the terminal, and a talk of many: reading lines, showing answers, and what Ctrl-C does.

Knows agents and views; options, exit codes and the sentences of usage errors are the command's business.
"""

from __future__ import annotations

import asyncio
import re
import signal
import sys
from collections.abc import Callable
from contextlib import contextmanager, suppress
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Literal

from plait.errors import PlaitError
from plait.log import Tail
from plait.run import StopSignal
from plait.screen import show_error

if TYPE_CHECKING:
    from collections.abc import Iterator

    from plait.agent import Agent
    from plait.run import RunResult
    from plait.streams import AgentRun
    from plait.terminal import View

Begin = Callable[["StopSignal"], "AgentRun[Any]"]
"""Begins a run that ends when the signal is set."""

Ending = Literal["answered", "early", "failed", "interrupted"]
"""How an answer, or a whole talk, ended."""

_SLOW_FINGER: Final = 1.0
"""Seconds after a stopped answer in which Ctrl-C at the prompt is taken to have been meant for the answer."""

_COMMANDS: Final = """\
/new      begin a new thread
/resume   go on with the last answer: after a stop, a failure or a crash
/help     show this
/exit     end; Ctrl-D does too
Ctrl-C stops an answer and keeps what was said."""


async def shown(begin: Begin, view: View) -> RunResult[Any]:
    """Carry a run out and show it. Ctrl-C stops it, and what was said stays in the thread; a second one cuts it off."""
    stop = StopSignal()
    with _interrupts(stop, view):
        run = begin(stop)
        await view.show(run.batches())
        result = await run
    view.finish(result)
    return result


@contextmanager
def _interrupts(stop: StopSignal, view: View) -> Iterator[None]:
    loop, task = asyncio.get_running_loop(), asyncio.current_task()

    def interrupt() -> None:
        if not stop.is_set():
            stop.set()
            view.stopping()
        elif task is not None:
            loop.remove_signal_handler(signal.SIGINT)  # a third one raises KeyboardInterrupt wherever we are
            task.cancel()

    with suppress(NotImplementedError):  # Windows has no signal handlers in the loop; there Ctrl-C cancels the run
        loop.add_signal_handler(signal.SIGINT, interrupt)
    try:
        yield
    except asyncio.CancelledError:
        if stop.is_set():
            raise KeyboardInterrupt from None
        raise
    finally:
        with suppress(NotImplementedError):
            loop.remove_signal_handler(signal.SIGINT)


class Talk:
    """A talk: reads a line, shows the answer, until the end of the input."""

    def __init__(self, agent: Agent[Any, Any], thread: str | None, view: View, runner: asyncio.Runner) -> None:
        self._agent = agent
        self._stored = thread is not None
        self._first = self._thread = thread or "chat"
        self._view = view
        self._runner = runner
        self._stopped_at = 0.0

    def hold(self) -> Ending:
        """Talk, until the input ends.

        Returns:
            How the last answer ended, when the lines came from a file or a pipe: nobody was there to see it. Of people,
            ``"answered"``, or ``"interrupted"`` when they left by Ctrl-C.
        """
        self._runner.run(self._greet())
        with suppress(ImportError):  # Windows has none
            import readline  # noqa: F401  # gives input() its editing and history
        last: Ending = "answered"
        while True:
            try:
                line = self._line()
            except KeyboardInterrupt:
                if self._meant_for_the_answer():
                    continue
                return "interrupted"
            if line is None or line in ("/exit", "/quit"):
                return "answered" if sys.stdin.isatty() else last
            if re.fullmatch(r"/[a-z]*", line):
                last = self._command(line) or last
            elif line:
                last = self._answer(self._asking(line))

    def _asking(self, text: str) -> Begin:
        return lambda stop: self._agent.run(text, thread=self._thread, stop=stop)

    async def _greet(self) -> None:
        provider = self._agent.provider
        name = ":".join(dict.fromkeys((provider.name, provider.model)))
        self._view.note(f"Talking with {name}. /help lists the commands, Ctrl-D ends.", "dim")
        if not self._stored:
            return
        tail = Tail(await self._agent.log(self._thread))
        if tail.run is None:
            self._view.note(f"A new thread {self._thread!r} begins.", "dim")
            return
        count = len(tail.sendable())
        self._view.note(f"Thread {self._thread!r} goes on: {count} message{'' if count == 1 else 's'} so far.", "dim")
        info = await self._agent.store.thread(self._thread)
        if await self._agent.store.holder(info.thread_id) is not None:
            self._view.note("Another process is answering on it just now; what you ask waits for that.", "yellow")
        elif tail.run.end is None:
            self._view.note("Its last run did not finish: its process was ended. /resume goes on with it.", "yellow")
        elif tail.run.end.stop_reason is None:
            self._view.note("Its last run failed. /resume goes on with it.", "yellow")

    @staticmethod
    def _line() -> str | None:
        """Read a line of input, None at its end; a prompt is shown to people only, and never in a file."""
        if sys.stdin.isatty() and sys.stdout.isatty():
            try:
                return input("\n> ").strip()
            except EOFError:
                _new_line()
                return None
        if sys.stdin.isatty():
            sys.stderr.write("\n> ")
            sys.stderr.flush()
        line = sys.stdin.readline()
        return line.strip() if line else None

    def _meant_for_the_answer(self) -> bool:
        """Whether Ctrl-C at the prompt came late for an answer, or cleared a line; it ends the talk otherwise."""
        typed = ""
        with suppress(ImportError):
            import readline

            typed = readline.get_line_buffer()
        _new_line()
        return bool(typed.strip()) or monotonic() - self._stopped_at < _SLOW_FINGER

    def _command(self, line: str) -> Ending | None:
        match line:
            case "/resume":
                return self._resume()
            case "/help":
                self._view.note(_COMMANDS)
            case "/new":
                self._thread = self._runner.run(self._next_name())
                name = f" {self._thread!r}" if self._stored else ""
                self._view.note(f"A new thread{name} begins.", "dim")
            case _:
                self._view.note(f"There is no command {line!r}; /help lists them.", "yellow")
        return None

    async def _next_name(self) -> str:
        """Give the first of ``name-2``, ``name-3``, ... of which nothing is stored."""
        number = 2
        while await self._agent.log(f"{self._first}-{number}"):
            number += 1
        return f"{self._first}-{number}"

    def _resume(self) -> Ending | None:
        run = Tail(self._runner.run(self._agent.log(self._thread))).run
        if run is None or (run.end is not None and run.end.stop_reason == "response"):
            why = "nothing was asked yet" if run is None else "the last run ended with an answer"
            self._view.note(f"There is nothing to go on with: {why}.", "yellow")
            return None
        return self._answer(lambda stop: self._agent.resume(self._thread, stop=stop))

    def _answer(self, begin: Begin) -> Ending:
        """Show one answer; a failure is said and does not end the talk."""
        try:
            result = self._runner.run(shown(begin, self._view))
        except PlaitError as error:
            show_error(error)
            self._view.note("/resume tries it again.", "dim")
            return "failed"
        except KeyboardInterrupt:
            self._stopped_at = monotonic()
            self._view.note("The answer was cut off.", "yellow")
            return "interrupted"
        if result.stop_reason == "user_stop":
            self._stopped_at = monotonic()
        return "answered" if result.stop_reason == "response" else "early"


def _new_line() -> None:
    sys.stderr.write("\n")
    sys.stderr.flush()
