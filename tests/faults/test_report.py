"""The report of the matrix says what the tests said."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from faults.matrix import NOT_IN, ROWS, Row
from faults.report import Column, Matrix, Outcome, Verdict, main
from faults.ways import DIALECTS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROW = Row("T99", "a fault", "what must happen")
SPOKEN = Row("L99", "a fault", "what must happen")
OK: dict[Column, list[Outcome | None]] = {name: ["passed"] for name in DIALECTS}


def matrix_of(row: Row, columns: int, outcomes: Mapping[Column, Sequence[Outcome | None]]) -> Matrix:
    """Give the matrix of one row whose tests went so; None is a test that never ran."""
    matrix = Matrix(Console(file=io.StringIO(), width=columns), [row])
    for column, those in outcomes.items():
        for number, outcome in enumerate(those):
            name = f"{column} {number}"
            matrix.tests[row.id, column].append(name)
            if outcome is not None:
                matrix.outcomes[name] = outcome
    return matrix


def shown(matrix: Matrix) -> list[str]:
    """Show the matrix, and give its lines."""
    text: str = matrix.console.file.getvalue()  # type: ignore[attr-defined]
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= matrix.console.width
    return text.splitlines()


@pytest.mark.parametrize(
    ("outcomes", "verdict", "cell"),
    [
        ([], "no test", ""),
        (["passed"], "holds", "ok 1"),
        (["passed", "passed"], "holds", "ok 2"),
        (["passed", "failed"], "FAILS", "failed 1"),
        (["skipped"], "no test", ""),
        (["passed", "skipped"], "holds", "ok 1"),
        (["passed", None], "FAILS", "failed 1"),
    ],
)
@pytest.mark.parametrize("columns", [100, 200])
def test_a_row_holds_when_its_tests_passed(
    outcomes: list[Outcome | None], verdict: Verdict, cell: str, columns: int
) -> None:
    matrix = matrix_of(ROW, columns, {"any": outcomes})
    assert matrix.verdict(ROW) == verdict
    assert matrix.show() is (verdict == "holds")
    lines = shown(matrix)
    [line] = [line for line in lines if line.startswith("T99")]
    must = ["what", "must", "happen"] if columns == 200 else []
    assert line.split() == ["T99", "a", "fault", *must, *cell.split()]
    assert lines[-1].startswith("1 row: 1 ")


@pytest.mark.parametrize(
    ("changed", "verdict", "cells"),
    [
        ({}, "holds", "ok 1 ok 1 ok 1 ok 1"),
        ({"ollama": []}, "no test", "ok 1 ok 1 no test ok 1"),
        ({"ollama": ["skipped"]}, "no test", "ok 1 ok 1 no test ok 1"),
        ({"anthropic": ["passed", "failed", None]}, "FAILS", "ok 1 failed 2 ok 1 ok 1"),
        ({"any": ["passed", "passed"]}, "holds", "ok 2 ok 1 ok 1 ok 1 ok 1"),
        ({"any": ["failed"]}, "FAILS", "failed 1 ok 1 ok 1 ok 1 ok 1"),
    ],
)
def test_a_row_of_the_api_holds_in_every_dialect(
    changed: dict[Column, list[Outcome | None]], verdict: Verdict, cells: str
) -> None:
    matrix = matrix_of(SPOKEN, 100, {**OK, **changed})
    assert matrix.verdict(SPOKEN) == verdict
    assert matrix.show() is (verdict == "holds")
    [line] = [line for line in shown(matrix) if line.startswith("L99")]
    assert line.split() == ["L99", "a", "fault", *cells.split()]


def test_where_a_row_need_not_hold_the_reason_is_told() -> None:
    row = next(row for row in ROWS if row.id == "L39")
    matrix = matrix_of(row, 100, {**OK, "ollama": []})
    assert matrix.show()
    lines = shown(matrix)
    [line] = [line for line in lines if line.startswith("L39")]
    assert line.split()[-7:] == ["ok", "1", "ok", "1", "-", "ok", "1"]
    assert f"- L39 ollama: {NOT_IN['L39', 'ollama']}" in lines


def test_rows_that_are_none_are_refused(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["Z99", "T04", "L999"]) == 2
    said = " ".join(capfd.readouterr().out.split())
    assert said == f"no row is called Z99 or L999; the rows are {', '.join(row.id for row in ROWS)}"
