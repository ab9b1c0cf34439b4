"""One trial of a fault: a server with a script, a program that asks it, and the check that every trial ends with."""

from __future__ import annotations

import asyncio
import logging
import threading
import traceback
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

from plait import Agent, PlaitError, Request, Retrying, RetryPolicy, Tool, UserMessage, tool
from plait.events import Answer, Fold
from plait.providers.base import ToolDefinition
from plait.providers.chat import ChatProvider
from plait.providers.http import TransportLimits
from plait.testing import FaultServer, answer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from plait.testing.reply import Scripted
    from plait.testing.server import Certificate

Way = Literal["client", "client streamed", "agent", "agent streamed"]
WAYS: tuple[Way, ...] = get_args(Way)
STREAMED: tuple[Way, ...] = ("client streamed", "agent streamed")
AGENTS: tuple[Way, ...] = ("agent", "agent streamed")

KEY = "sk-very-secret-key-0123456789"
QUICK = RetryPolicy(max_retries=2, initial_delay=0.001, max_delay=0.002, jitter=0.0)
SHORT = TransportLimits(connect=2.0, silence=2.0, total=4.0)
WITHIN = 8.0
LONGEST_SENTENCE = 700
OPEN_FILES = Path("/dev/fd")


@dataclass
class Outcome:
    """What became of one question: the text that was handed out, and the error or the whole answer."""

    text: str = ""
    error: Any = None
    answer: Answer | None = None


@dataclass
class Trial:
    """A program that asks a server with faults.

    Attributes:
        server: the server.
        way: how it is asked.
        calls: the cities that the tool was called with, in order.
    """

    server: FaultServer
    way: Way
    url: str
    policy: RetryPolicy
    limits: TransportLimits
    calls: list[str] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        inner = ChatProvider("m1", name="acme", base_url=self.url, api_key=KEY, limits=self.limits)
        self.provider = Retrying(inner, self.policy)
        self.agent: Agent[Any, Any] = Agent(
            role="r", provider=self.provider, tools=[self._tool()], store="memory://", **self.options
        )

    def _tool(self) -> Tool:
        calls = self.calls

        @tool
        async def weather(city: str) -> str:
            """Tell the weather.

            Args:
                city: where.
            """
            calls.append(city)
            return f"sunny in {city}"

        return weather

    async def ask(self) -> Outcome:
        """Ask once, and note what became of it. An error that is not ours is raised."""
        made = Outcome()
        self.outcomes.append(made)
        try:
            await asyncio.wait_for(self._ask(made), WITHIN)
        except PlaitError as error:
            made.error = error
        return made

    async def _ask(self, made: Outcome) -> None:
        match self.way:
            case "agent":
                made.text = await self.agent.chat("hi")
            case "agent streamed":
                async for piece in self.agent.stream("hi"):
                    made.text += piece
            case "client" | "client streamed":
                fold = Fold("acme", "m1")
                offered = ToolDefinition(name="weather")
                request = Request(
                    messages=(UserMessage(text="hi"),), tools=(offered,), stream=self.way == "client streamed"
                )
                try:
                    async for batch in self.provider.stream(request):
                        fold.add(batch)
                finally:
                    made.text = fold.answer().message.text
                made.answer = fold.answer()

    @property
    def sent(self) -> int:
        """How many requests the server got."""
        return len(self.server.exchanges)


@asynccontextmanager
async def trial(
    *script: Scripted,
    way: Way,
    url: str | None = None,
    tls: Certificate | None = None,
    policy: RetryPolicy = QUICK,
    limits: TransportLimits = SHORT,
    heals: bool = True,
    **options: Any,
) -> AsyncIterator[Trial]:
    """Try a script; when the block is left, see that nothing is left of it and that the program can go on.

    Args:
        script: what the server answers.
        way: how it is asked.
        url: where, if not at the server's own address.
        tls: see `FaultServer`.
        policy: of the retries.
        limits: of each request.
        heals: whether the program can go on at this address once the server is healthy.
        options: further options of the agent.
    """
    tasks, threads, before = asyncio.all_tasks(), set(threading.enumerate()), _open_files()
    with FaultServer(*script, tls=tls) as server, _records() as records:
        files = _open_files()
        made = Trial(server, way, url or server.url, policy, limits, options=options)
        yield made
        await _let_it_settle(server, files)
        assert asyncio.all_tasks() - tasks == set()
        assert server.open_connections <= 1, "one question at a time needs one connection"
        if heals:
            await _goes_on(made)
        for outcome in made.outcomes:
            _keeps_the_secret(outcome.error)
        assert KEY not in "\n".join(records.lines)
        assert KEY not in repr((made.provider, made.agent, await made.agent.log()))
    assert set(threading.enumerate()) - threads == set()
    for _ in range(2000):  # what was kept for a next request ends with the server
        if _open_files() <= before:
            break
        await asyncio.sleep(0.001)
    assert _open_files() <= before, "a file or socket outlives the server"


async def _let_it_settle(server: FaultServer, files: int) -> None:
    """Wait for the server to see the ends of what the client closed; what is kept stays open, and idle."""
    for _ in range(4000):
        if server.wait_until_idle(0):
            break
        await asyncio.sleep(0.001)  # the loop must go on: it is what closes connections
    assert server.wait_until_idle(0), f"still under way: {server.exchanges}"
    quiet = 0
    for _ in range(2000):  # what one side has closed, the other is told of a moment later
        quiet = quiet + 1 if _open_files() - files == 2 * server.open_connections else 0
        if quiet == 2:
            break
        await asyncio.sleep(0.001)
    assert _open_files() - files == 2 * server.open_connections, "a file or socket is left"


async def _goes_on(made: Trial) -> None:
    """With a healthy server the same program answers, over a kept connection if there is one."""
    server = made.server
    opened, kept, earlier = server.connections, server.open_connections, len(server.requests)
    server.play(answer("well"))
    if made.way in AGENTS:
        assert await asyncio.wait_for(made.agent.chat("and now?"), WITHIN) == "well"
        assert_sendable(server.requests[-1]["messages"])
    else:
        outcome = await made.ask()
        assert (outcome.text, outcome.error) == ("well", None)
    assert (len(server.requests), server.connections) == (earlier + 1, opened + 1 - kept)


def assert_sendable(messages: list[dict[str, Any]]) -> None:
    """Each tool call has exactly one result, right after its message; ids are unique."""
    seen: set[str] = set()
    waiting: list[str] = []
    for message in messages:
        if message["role"] == "tool":
            assert message["tool_call_id"] in waiting
            waiting.remove(message["tool_call_id"])
            continue
        assert waiting == [], f"no result of {waiting}"
        waiting = [call["id"] for call in message.get("tool_calls", ())]
        assert all(waiting)
        assert len({*seen, *waiting}) == len(seen) + len(waiting)
        seen |= {*waiting}
        assert message["role"] != "assistant" or message["content"] or waiting or message.get("refusal")
    assert waiting == []


def _keeps_the_secret(error: BaseException | None) -> None:
    """Look in everything that a log or a tracker of errors would show of an error, and of its causes."""
    if error is None:
        return
    shown = "".join(traceback.format_exception(error))
    assert len(str(error)) < LONGEST_SENTENCE
    assert "\n" not in str(error)
    one: BaseException | None = error
    while one is not None:
        shown += f"{one} {one!r} {vars(one)!r} {one.args!r}"
        one = one.__cause__ or one.__context__
    assert KEY not in shown


class _records:  # noqa: N801  # used as a function
    """Keeps every log record as text."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __enter__(self) -> Self:
        self._handler = logging.Handler(logging.DEBUG)
        self._handler.emit = lambda record: self.lines.append(f"{record.getMessage()} {vars(record)!r}")  # type: ignore[method-assign]
        self._logger = logging.getLogger("plait")
        self._level = self._logger.level
        self._logger.setLevel(logging.DEBUG)
        self._logger.addHandler(self._handler)
        return self

    def __exit__(self, *_: object) -> None:
        self._logger.removeHandler(self._handler)
        self._logger.setLevel(self._level)


def _open_files() -> int:
    return len(list(OPEN_FILES.iterdir())) if OPEN_FILES.is_dir() else 0
