"""Every row of the matrix has a test, and every mark names a row."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from faults.matrix import AREAS, ROWS

if TYPE_CHECKING:
    from collections.abc import Iterator

TESTS = Path(__file__).parents[1]
MARK = "pytest.mark.fault"


def marks(file: Path) -> Iterator[tuple[str, str]]:
    """Give each row that a test of a file says it proves, with the test's name."""
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            for mark in node.decorator_list:
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == MARK:
                    for row in mark.args:
                        assert isinstance(row, ast.Constant), f"{node.name}: a row is named by plain text"
                        yield str(row.value), f"{file.name}::{node.name}"


def marked() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for file in sorted(TESTS.rglob("test_*.py")):
        for row, name in marks(file):
            found.setdefault(row, []).append(name)
    return found


def test_rows_are_named_once_and_in_order() -> None:
    ids = [row.id for row in ROWS]
    assert [row for row, times in Counter(ids).items() if times > 1] == []
    assert ids == sorted(ids, key=lambda row: (list(AREAS).index(row[0]), row))


def test_every_row_has_a_test() -> None:
    found = marked()
    assert [row.id for row in ROWS if row.id not in found] == []


def test_every_mark_names_a_row() -> None:
    known = {row.id for row in ROWS}
    assert {row: names for row, names in marked().items() if row not in known} == {}


def test_marks_stand_only_where_they_are_found() -> None:
    """A mark in another form, or on a class or a parameter, would be run by pytest and missed here."""
    for file in sorted(TESTS.rglob("*.py")):
        tree = ast.parse(file.read_text())
        used = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and ast.unparse(node) == MARK]
        assert len(used) == len({name for _, name in marks(file)}), file.name


def test_rows_are_short() -> None:
    assert [row.id for row in ROWS if max(map(len, row)) > 64 or not all(row)] == []
