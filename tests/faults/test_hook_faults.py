"""Hooks that raise, hang or decide nonsense."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from faults.aftermath import (
    HOWS,
    KEY,
    agent_with,
    ask,
    assert_goes_on,
    nothing_left,
)

if TYPE_CHECKING:
    from collections.abc import Callable

# --- T13: hooks that go wrong -----------------------------------------------------------------------------------------

EVERY_HOOK = (
    "on_before_request",
    "on_after_request",
    "on_function_call_start",
    "on_function_call_end",
    "on_final_response",
)


def hook_raises(_: object) -> None:
    raise ValueError(KEY)


async def hook_raises_later(_: object) -> None:
    await asyncio.sleep(0)
    raise RecursionError(KEY)


async def hook_cancels(_: object) -> None:
    raise asyncio.CancelledError


def hook_decides_nonsense(_: object) -> object:
    return object()


async def hook_hangs(_: object) -> None:
    await asyncio.Event().wait()


async def hook_swallows(_: object) -> None:
    while True:
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()


@pytest.mark.fault("T13")
@pytest.mark.parametrize("hook", [hook_raises, hook_raises_later, hook_cancels, hook_decides_nonsense])
@pytest.mark.parametrize("name", EVERY_HOOK)
async def test_a_hook_that_raises_does_not_touch_the_run(
    name: str, hook: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    def add() -> str:
        return "three"

    async with nothing_left():
        agent = agent_with(add, hooks={name: hook})
        for how in HOWS:
            assert await ask(agent, how) == "three"
        await assert_goes_on(agent)
    warned = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    watches = hook is hook_decides_nonsense and name not in ("on_before_request", "on_function_call_start")
    assert len(warned) == (0 if watches else 1)
    assert KEY not in caplog.text


@pytest.mark.fault("T13")
@pytest.mark.parametrize("hook", [hook_hangs, hook_swallows])
async def test_a_hook_that_hangs_is_given_up(hook: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    def add() -> str:
        return "three"

    async with nothing_left():
        agent = agent_with(add, hooks={"on_function_call_end": hook})
        agent.outfit.hooks.time_limit = 0.01  # ten seconds otherwise
        assert await ask(agent, "stream") == "three"
        await assert_goes_on(agent)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == [
        "the hook on_function_call_end failed and is ignored: TimeoutError; a hook may take 0.01 s"
    ]
