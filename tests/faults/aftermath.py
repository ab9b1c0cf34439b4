"""What every fault ends with: a log that can be sent again, and nothing left behind."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal

from plait import Agent, OfflineProvider, ToolCall, history
from plait.store.database import DatabaseStore
from plait.tools import as_tool
from plait.workers import WORKERS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from plait import Request
    from plait.messages import Message
    from plait.tools import Tool

How = Literal["chat", "run", "stream"]
HOWS: tuple[How, ...] = ("chat", "run", "stream")
WITHIN = 20
KEY = "sk-secret-0123456789abcdef"
AGAIN = "Are you still there?"
STILL_HERE = "Yes, I am."
OPEN_FILES = "/dev/fd"
_POOLS = ("plait: sync tool", "plait store")  # idle threads of a pool, and of a store that is closed meanwhile


def answers(*calls: ToolCall) -> Callable[[Request], str | list[ToolCall]]:
    """Give a model that makes these calls, then says what came of them, and answers whoever asks again."""

    def answer(request: Request) -> str | list[ToolCall]:
        last = request.messages[-1]
        if last.text == AGAIN:
            return STILL_HERE
        if last.role != "tool":
            return list(calls)
        return "\n".join(("ERROR " if result.is_error else "") + result.text for result in last.tool_results)

    return answer


def calls(name: str, count: int = 1, arguments: str = "") -> list[ToolCall]:
    return [ToolCall(id=f"call_{n}", name=name, arguments=arguments) for n in range(count)]


def timed(function: Callable[..., Any], seconds: float) -> Tool:
    """Give a function as a tool with so many seconds for a call."""
    return as_tool({"func": function, "timeout": seconds})


def agent_with(*tools: Any, made: Sequence[ToolCall] | None = None, **options: Any) -> Agent[Any, Any]:
    """Give an agent whose model calls its first tool once, unless calls are given."""
    agent: Agent[Any, Any] = Agent(provider=OfflineProvider(["unused"]), tools=tools, **options)
    script = calls(next(iter(agent.tools))) if made is None else made
    agent.provider = OfflineProvider(function=answers(*script))
    return agent


async def ask(agent: Agent[Any, Any], how: How, prompt: str = "go", **options: Any) -> str:
    """Ask whole or streamed, and give the text."""
    async with asyncio.timeout(WITHIN):
        match how:
            case "chat":
                return str(await agent.chat(prompt, **options))
            case "run":
                run = agent.run(prompt, **options)
                async for _ in run:
                    pass
                return str((await run).output)
            case "stream":
                return "".join([text async for text in agent.stream(prompt, **options)])


def assert_sendable(messages: Sequence[Message]) -> None:
    """Each tool call is followed by exactly one result, and no result stands alone."""
    waiting: list[str] = []
    for message in messages:
        for result in message.tool_results:
            assert result.call_id in waiting, f"a result of no call: {result.call_id}"
            waiting.remove(result.call_id)
        if not message.tool_results:
            assert waiting == [], f"calls without a result: {waiting}"
            waiting = [call.id for call in message.tool_calls]
    assert waiting == [], f"calls without a result: {waiting}"


async def assert_goes_on(agent: Agent[Any, Any], thread: str | None = None) -> None:
    """The thread can be sent again and is answered."""
    log = await agent.log(thread)
    if log:
        assert_sendable(list(history(log)))
    assert await ask(agent, "chat", AGAIN, thread=thread) == STILL_HERE
    assert_sendable(list(history(await agent.log(thread))))


def open_files() -> set[str]:
    """Give the number, and what it stands for, of each open file and socket; nothing where they cannot be listed."""
    found = set()
    for number in os.listdir(OPEN_FILES) if os.path.isdir(OPEN_FILES) else ():  # noqa: PTH112, PTH208  # may be gone soon
        try:
            found.add(f"{number} {os.readlink(f'{OPEN_FILES}/{number}')}")  # noqa: PTH115
        except FileNotFoundError:  # the listing itself
            continue
        except OSError:  # where they are no links
            found.add(number)
    return found


async def until(is_so: Callable[[], bool]) -> None:
    """Wait until something is so that no event tells of; fail when it does not come to be."""
    async with asyncio.timeout(WITHIN):
        while not is_so():  # noqa: ASYNC110  # it is about another thread, or the system
            await asyncio.sleep(0.001)  # the loop must go on: it is what closes connections


def _threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if not thread.name.startswith(_POOLS)}


@asynccontextmanager
async def nothing_left() -> AsyncIterator[None]:
    """Fail when the block leaves a task, a thread, a blocking function, a socket or a file."""
    tasks, threads, files, working = asyncio.all_tasks(), _threads(), open_files(), WORKERS.left
    yield
    for _ in range(5):  # what was cancelled just now ends at the next tick
        await asyncio.sleep(0)
    assert asyncio.all_tasks() - tasks == set()
    assert _threads() - threads == set()
    assert WORKERS.left <= working
    if open_files() - files:
        gc.collect()
    assert open_files() - files == set()


@asynccontextmanager
async def stored(url: str = "sqlite:///plait.db") -> AsyncIterator[DatabaseStore]:
    store = DatabaseStore(url)
    try:
        yield store
    finally:
        await store.close()
