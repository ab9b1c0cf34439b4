"""The report of the matrix says what the tests said."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from faults.matrix import ROWS, Row
from faults.report import Matrix, Outcome, Verdict, main

ROW = Row("T99", "a fault", "what must happen")


@pytest.mark.parametrize(
    ("outcomes", "verdict"),
    [
        ([], "no test"),
        (["passed"], "holds"),
        (["passed", "passed"], "holds"),
        (["passed", "failed"], "FAILS"),
        (["skipped"], "no test"),
        (["passed", "skipped"], "holds"),
        (["passed", None], "FAILS"),
    ],
)
@pytest.mark.parametrize("columns", [100, 200])
def test_a_row_holds_when_its_tests_passed(outcomes: list[Outcome | None], verdict: Verdict, columns: int) -> None:
    shown = io.StringIO()
    matrix = Matrix(Console(file=shown, width=columns), [ROW])
    for number, outcome in enumerate(outcomes):
        matrix.tests[ROW.id].append(str(number))
        if outcome is not None:  # one that never ran
            matrix.outcomes[str(number)] = outcome
    assert matrix.verdict(ROW) == verdict
    assert matrix.show() is (verdict == "holds")
    passed = outcomes.count("passed")
    [line] = [line for line in shown.getvalue().splitlines() if line.startswith("T99")]
    assert line.split() == [
        "T99",
        *["a", "fault", "what", "must", "happen"],
        f"{passed}/{len(outcomes)}",
        *verdict.split(),
    ]
    assert "\x1b" not in shown.getvalue()
    assert shown.getvalue().splitlines()[-1].startswith("1 row: 1 ")


def test_rows_that_are_none_are_refused(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["Z99", "T04", "L999"]) == 2
    said = " ".join(capfd.readouterr().out.split())
    assert said == f"no row is called Z99 or L999; the rows are {', '.join(row.id for row in ROWS)}"
