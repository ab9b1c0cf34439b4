"""Every row of the matrix has a test, in every dialect that it is about, and every mark names a row."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from faults import test_llm_answer, test_llm_connection, test_llm_status, test_llm_stream, test_llm_tools
from faults.matrix import AREAS, NOT_IN, ROWS, STREAMS_ONLY
from faults.ways import DIALECTS, Way

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

    from plait.testing.reply import DialectName

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


def proved() -> set[tuple[str, DialectName, bool]]:
    """Give each row that is proved, with the dialect and whether streamed: the parameters of the tests tell."""
    found: set[tuple[str, DialectName, bool]] = set()
    for module in (test_llm_status, test_llm_connection, test_llm_stream, test_llm_answer, test_llm_tools):
        for test in vars(module).values():
            marks = getattr(test, "pytestmark", ())
            rows = [row for mark in marks if mark.name == "fault" for row in mark.args]
            found |= {
                (row, *where) for mark in marks if mark.name == "parametrize" for where in _told(mark) for row in rows
            }
    return found


def _told(mark: pytest.Mark) -> Iterator[tuple[DialectName, bool]]:
    """Give what a parameter tells; one that is only a dialect is asked whole and streamed."""
    names, values = mark.args
    for value in values:
        for one in [value] if isinstance(names, str) else value:
            if isinstance(one, Way):
                yield one.dialect, one.is_streamed
            elif names == "dialect":
                yield from ((one, False), (one, True))


def test_every_row_of_the_api_is_proved_in_every_dialect_whole_and_streamed() -> None:
    expected = {
        (row.id, dialect, is_streamed)
        for row in ROWS
        if row.is_spoken
        for dialect in DIALECTS
        if (row.id, dialect) not in NOT_IN
        for is_streamed in ((True,) if row.id in STREAMS_ONLY else (False, True))
    }
    assert sorted(expected - proved()) == []


def test_every_exception_is_one() -> None:
    found = proved()
    assert {(row, dialect) for row, dialect, _ in found} & NOT_IN.keys() == set()
    assert {row for row, _, is_streamed in found if not is_streamed} & STREAMS_ONLY == set()


def test_rows_are_short() -> None:
    assert [row.id for row in ROWS if max(map(len, row)) > 64 or not all(row)] == []
