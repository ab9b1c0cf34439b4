"""Work done in another event loop, awaited in this one; nobody waits for a loop that stands still.

Knows nothing of MCP. A loop is asked to show itself before it gets work, and again whenever it takes long: it may have
ended, be between two runs, or be blocked by the very caller who waits for it (a sync call made in it).
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar

from plait.mcp.client.failures import Unheard

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")

_SHOWS_ITSELF: Final = 1.0
"""Seconds that a loop may take for its next turn."""


async def elsewhere(loop: asyncio.AbstractEventLoop, work: Callable[[], Coroutine[Any, Any, T]], seconds: float) -> T:
    """Have a coroutine run in another event loop, and give its outcome.

    Args:
        loop: where it runs.
        work: makes the coroutine.
        seconds: how long it usually takes at most; from then on it is made sure that the loop still runs.

    Raises:
        Unheard: the loop does not run, or has ended.
    """
    await _show(loop)
    coroutine = work()
    try:
        outcome = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, loop))
    except RuntimeError:
        coroutine.close()
        raise Unheard(ended=True) from None
    try:
        while not (await asyncio.wait((outcome,), timeout=seconds))[0]:
            await _show(loop)
    finally:
        outcome.cancel()  # what has ended takes no notice
    if outcome.cancelled():
        raise Unheard(ended=True)
    return outcome.result()


async def _show(loop: asyncio.AbstractEventLoop) -> None:
    """Have a loop show that it runs."""
    if not loop.is_running():
        raise Unheard(ended=loop.is_closed())
    turned: Future[None] = Future()

    def turn() -> None:
        with suppress(InvalidStateError):  # nobody waits any more
            turned.set_result(None)

    try:
        loop.call_soon_threadsafe(turn)
    except RuntimeError:
        raise Unheard(ended=True) from None
    try:
        async with asyncio.timeout(_SHOWS_ITSELF):
            await asyncio.wrap_future(turned)
    except TimeoutError:
        raise Unheard(ended=loop.is_closed()) from None
