"""Tool calls carried out as a run does it, for tests that have no run."""

from __future__ import annotations

from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any

from plait.errands import Errands
from plait.executor import execute

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence

    from plait.executor import Finished
    from plait.messages import ToolCall
    from plait.run import RunContext
    from plait.tools import Tool


@asynccontextmanager
async def executing(
    calls: Sequence[ToolCall], tools: Mapping[str, Tool], context: RunContext[Any], **options: Any
) -> AsyncIterator[AsyncGenerator[list[Finished], None]]:
    """Carry calls out; when the block is left, what still runs is cancelled, and what the tools started ends."""
    errands = Errands()
    try:
        async with aclosing(execute(calls, tools, context, errands, **options)) as batches:
            yield batches
    finally:
        await errands.end()
