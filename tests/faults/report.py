"""Runs the tests of the fault matrix, and shows it as one table of rows and dialects. Call it with rows for only those.

Exits with 0 when every row holds: each of its tests passed, and there is one for every dialect that it is about.
"""

from __future__ import annotations

import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal

import pytest
from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS))

from faults.matrix import AREAS, NOT_IN, ROWS, Row  # noqa: E402  # found beside this program, wherever it is called from
from faults.ways import DIALECTS, Way  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Sequence

    from plait.testing.reply import DialectName

Outcome = Literal["passed", "failed", "skipped"]
Verdict = Literal["holds", "FAILS", "no test"]
Column = Literal["any", "chat", "anthropic", "ollama", "responses"]
"""A dialect; or ``any``, for tests that have none to do with one."""

COLUMNS: tuple[Column, ...] = ("any", *DIALECTS)
PIPE_COLUMNS = 100
WIDE = 150
_STYLES = {"holds": "green", "FAILS": "bold red", "no test": "bold yellow"}


class Matrix:
    """A pytest plugin that notes how the tests of each row went."""

    def __init__(self, console: Console, wanted: Sequence[Row]) -> None:
        self.console = console
        self.wanted = wanted
        self.tests: dict[tuple[str, Column], list[str]] = {(row.id, column): [] for row in wanted for column in COLUMNS}
        self.outcomes: dict[str, Outcome] = {}
        self.failures: list[tuple[str, str]] = []
        self.total = 0
        self.began = perf_counter()
        self._live: Live | None = None
        self._told = 0

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        kept = []
        wanted = {row.id for row in self.wanted}
        for item in items:
            rows = wanted & {row for mark in item.iter_markers("fault") for row in mark.args}
            for row in rows:
                self.tests[row, column_of(item)].append(item.nodeid)
            if rows:
                kept.append(item)
        items[:] = kept
        self.total = len(kept)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.failures.append((report.nodeid, str(report.longrepr)))

    def pytest_sessionstart(self) -> None:
        if self.console.is_terminal:
            self._live = Live(
                console=self.console,
                refresh_per_second=8,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
                get_renderable=self._progress,
            )
            self._live.start()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.outcomes[report.nodeid] = "failed"
            self.failures.append((report.nodeid, str(report.longrepr)))
        elif report.skipped:
            self.outcomes.setdefault(report.nodeid, "skipped")
        elif report.when == "call":
            self.outcomes.setdefault(report.nodeid, "passed")
        part = len(self.outcomes) * 10 // max(1, self.total)
        if self._live is None and part > self._told:
            self._told = part
            done = f"{len(self.outcomes)} of {_counted(self.total, 'test')}"
            self.console.print(f"plait: {done}, {self._seconds()}", highlight=False)

    def pytest_sessionfinish(self) -> None:
        if self._live is not None:
            self._live.stop()

    def _seconds(self) -> str:
        return f"{perf_counter() - self.began:.0f} s"

    def _progress(self) -> Group:
        done = len(self.outcomes)
        failed = sum(outcome == "failed" for outcome in self.outcomes.values())
        line = f"{done} of {_counted(self.total, 'test')}, {self._seconds()}" if self.total else "looking for tests"
        text = Text(line + (f", {failed} failed" if failed else ""), style="red" if failed else "")
        return Group(ProgressBar(total=max(1, self.total), completed=done, width=min(60, self.console.width)), text)

    def verdict(self, row: Row) -> Verdict:
        """Say whether a row holds, in every dialect if it is about one."""
        found = [self.cell(row, column) for column in COLUMNS]
        if "FAILS" in found:
            return "FAILS"
        return "no test" if "no test" in found or "holds" not in found else "holds"

    def cell(self, row: Row, column: Column) -> Verdict | None:
        """Say whether a row holds in a dialect, or None where it need not; tests that were skipped prove nothing."""
        found = [self.outcomes.get(test, "failed") for test in self.tests[row.id, column]]
        if "failed" in found:
            return "FAILS"
        if "passed" in found:
            return "holds"
        return None if is_exempt(row, column) else "no test"

    def table(self) -> Table:
        """Give the matrix as a table; what must happen stands in it where there is room."""
        table = Table(box=box.SIMPLE if self.console.is_terminal else None, pad_edge=False, expand=False)
        is_wide = self.console.width >= WIDE
        table.add_column("row", style="bold", no_wrap=True)
        table.add_column("fault")
        if is_wide:
            table.add_column("what must happen")
        for column in COLUMNS:
            table.add_column(column, no_wrap=True)
        for area, name in AREAS.items():
            rows = [row for row in self.wanted if row.id[0] == area]
            if rows:
                table.add_row("", Text(name, style="bold"))
            for row in rows:
                words = (row.fault, row.must) if is_wide else (row.fault,)
                table.add_row(row.id, *words, *(self._shown(row, column) for column in COLUMNS))
        return table

    def _shown(self, row: Row, column: Column) -> Text:
        verdict, tests = self.cell(row, column), self.tests[row.id, column]
        passed = sum(self.outcomes.get(test) == "passed" for test in tests)
        match verdict:
            case None:
                return Text("-" if (row.id, column) in NOT_IN else "")
            case "holds":
                said = f"ok {passed}"
            case "FAILS":
                said = f"failed {len(tests) - passed}"
            case _:
                said = "no test"
        return Text(said, style=_STYLES[verdict])

    def show(self) -> bool:
        """Print the matrix and what failed; say whether every row holds."""
        self.console.print(self.table())
        for (name, dialect), why in NOT_IN.items():
            if any(row.id == name for row in self.wanted):
                self.console.print(f"- {name} {dialect}: {why}", highlight=False)
        for test, why in self.failures:
            self.console.rule(test, style="red", align="left")
            self.console.print(why, markup=False, highlight=False)
        counts = {verdict: sum(self.verdict(row) == verdict for row in self.wanted) for verdict in _STYLES}
        said = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
        line = f"{_counted(len(self.wanted), 'row')}: {said}; {_counted(self.total, 'test')} in {self._seconds()}"
        self.console.print(line, highlight=False)
        return counts["holds"] == len(self.wanted) and not self.failures


def column_of(item: pytest.Item) -> Column:
    """Give the dialect of a test, which its parameters tell."""
    parameters: dict[str, Any] = getattr(getattr(item, "callspec", None), "params", {})
    way = parameters.get("way")
    dialect: DialectName | None = way.dialect if isinstance(way, Way) else parameters.get("dialect")
    return dialect or "any"


def is_exempt(row: Row, column: Column) -> bool:
    """Whether a row needs no test there: it is about no dialect, or there is a reason."""
    return column == "any" or not row.is_spoken or (row.id, column) in NOT_IN


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def main(names: Sequence[str]) -> int:
    """Run the tests of the named rows (``"T"`` for all that begin so), else of all; gives the exit code.

    It is 0 when every row holds, 1 when one does not, and 2, with nothing run, when a name is no row's.
    """
    unknown = [name for name in names if not any(row.id.startswith(name) for row in ROWS)]
    wanted = [row for row in ROWS if not names or row.id.startswith(tuple(names))]
    with os.fdopen(os.dup(sys.stdout.fileno()), "w") as out:  # pytest captures the descriptor itself
        console = Console(width=None if out.isatty() else PIPE_COLUMNS, file=out)
        if unknown:
            line = f"no row is called {' or '.join(unknown)}; the rows are {', '.join(row.id for row in ROWS)}"
            console.print(line, highlight=False)
            return 2
        matrix = Matrix(console, wanted)
        options: list[Any] = [
            "-p",
            "no:terminal",
            "-o",
            "addopts=",
            "--strict-markers",
            "--strict-config",
            "-m",
            "fault",
        ]
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):  # noqa: PTH123
            code = pytest.main([*options, "--rootdir", str(TESTS.parent), str(TESTS)], plugins=[matrix])
        return 0 if matrix.show() and code == pytest.ExitCode.OK else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
