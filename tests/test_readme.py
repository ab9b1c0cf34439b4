"""Every Python block of the README runs as it stands, and the short ones are as short as promised."""

from __future__ import annotations

import ast
import inspect
import io
import re
from codeop import CommandCompiler
from contextlib import redirect_stdout
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"
SECTIONS = re.split(r"^## ", README.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
BLOCKS = [
    (section.splitlines()[0], code)
    for section in SECTIONS
    for code in re.findall(r"^```python\n(.*?)^```", section, flags=re.MULTILINE | re.DOTALL)
]
PRINTED = {
    "First answer": "You said: Hello!\n",
    "A tool: two lines more": "weather says: It is sunny in Lisbon.\n",
    "Streaming: one line more": "You said: Tell me about Lisbon.",
    "A thread that outlives the process: no line more": "You said: My name is Ada.\n",
    "An answer with a form": "name='Lisbon' population=545796\n",
    "Clients in the shapes of OpenAI's SDK": "weather says: It is sunny in Lisbon.\n",
    "Without `await`": "You said: Hello!\n",
    "MCP": "MCPServer('lisbon', tools=['guide'])\n",
}
LINES = {
    "First answer": 3,
    "A tool: two lines more": 5,
    "Streaming: one line more": 4,
    "A thread that outlives the process: no line more": 3,
}


async def run_block(code: str) -> str:
    """Run a block as ``python -m asyncio`` would, and give what it printed."""
    compiled = compile(code, str(README), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    names = {"__name__": "__main__"}
    printed = io.StringIO()
    with redirect_stdout(printed):
        waiting = eval(compiled, names)  # noqa: S307  # our own README
        if inspect.isawaitable(waiting):
            await waiting
    return printed.getvalue()


@pytest.mark.parametrize(("title", "code"), BLOCKS, ids=[f"{n}: {title}" for n, (title, _) in enumerate(BLOCKS)])
async def test_block_runs(title: str, code: str) -> None:
    printed = await run_block(code)
    assert printed == PRINTED.get(title, printed)


def test_each_block_can_be_pasted_into_the_async_prompt() -> None:
    """The prompt reads statement by statement, and a compound one ends at a blank line, not at the next statement."""
    for _, block in BLOCKS:
        compiler = CommandCompiler()
        compiler.compiler.flags |= ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        waiting: list[str] = []
        for line in [*block.splitlines(), ""]:
            waiting.append(line)
            if compiler("\n".join(waiting), symbol="single") is not None:
                waiting = []
        assert [line for line in waiting if line] == []


def test_promised_lengths() -> None:
    first: dict[str, str] = {}
    for title, code in BLOCKS:
        first.setdefault(title, code)
    lengths = {title: len([line for line in first[title].splitlines() if line.strip()]) for title in LINES}
    assert lengths == LINES
    assert set(PRINTED) <= set(first)
