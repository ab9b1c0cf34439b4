"""Every Python block of the pages in docs/ runs as it stands, and what they show is what there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from plait.testing import FAULTS
from test_readme import run_block

DOCS = Path(__file__).parents[1] / "docs"
BLOCKS = [
    (f"{page.stem} {number}", code)
    for page in sorted(DOCS.glob("*.md"))
    for number, code in enumerate(
        re.findall(r"^```python\n(.*?)^```", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL), 1
    )
]


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize("code", [code for _, code in BLOCKS], ids=[name for name, _ in BLOCKS])
async def test_block_runs(code: str) -> None:
    assert await run_block(code) == ""


def test_the_page_on_testing_names_faults_that_are_there() -> None:
    page = (DOCS / "testing.md").read_text("utf-8")
    named = re.findall(r'fault\("([\w-]+)"', page) + re.findall(r"--fault ([\w-]+)", page)
    rows = {one.row for one in FAULTS.values()}
    assert [name for name in named if name not in FAULTS and name not in rows and name != "name"] == []
    assert len(named) >= 5
