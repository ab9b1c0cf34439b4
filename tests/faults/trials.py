"""One trial of a fault: a server with a script, a program that asks it, and the check that every trial ends with."""

from __future__ import annotations

import asyncio
import logging
import traceback
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from faults.aftermath import nothing_left, open_files, until
from faults.spoken import KEY, provider
from faults.turns import assert_sent_whole, results
from plait import Agent, PlaitError, Request, Retrying, RetryPolicy, Tool, UserMessage, tool
from plait.events import Answer, Fold
from plait.providers.base import ToolDefinition
from plait.providers.http import TransportLimits
from plait.testing import FaultServer, answer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from faults.ways import Way
    from plait.providers.base import Provider
    from plait.testing.reply import Scripted
    from plait.testing.server import Certificate

QUICK = RetryPolicy(max_retries=2, initial_delay=0.001, max_delay=0.002, jitter=0.0)
SHORT = TransportLimits(connect=2.0, silence=2.0, total=4.0)
WITHIN = 8.0
LONGEST_SENTENCE = 700


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
        self._files = len(open_files())
        inner = provider(self.way.dialect, self.url, api_key=KEY, limits=self.limits)
        self.provider: Provider = Retrying(inner, self.policy)
        self.agent: Agent[Any, Any] = Agent(
            role="r", provider=self.provider, tools=[self._tool()], store="memory://", **self.options
        )

    def use(self, provider: Provider) -> None:
        """Ask another provider from now on."""
        self.provider = self.agent.provider = provider

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
        if self.way.is_agent and not self.way.is_streamed:
            made.text = await self.agent.chat("hi")
        elif self.way.is_agent:
            async for piece in self.agent.stream("hi"):
                made.text += piece
        else:
            await self._stream(made)

    async def _stream(self, made: Outcome) -> None:
        fold = Fold("acme", "m1")
        offered = ToolDefinition(name="weather")
        request = Request(messages=(UserMessage(text="hi"),), tools=(offered,), stream=self.way.is_streamed)
        try:
            async for batch in self.provider.stream(request):
                fold.add(batch)
        finally:
            made.text = fold.answer().message.text
        made.answer = fold.answer()

    async def settle(self) -> None:
        """Wait until no exchange is under way, and both sides know which connections are closed."""
        await until(lambda: self.server.wait_until_idle(0))
        quiet = 0

        def agreed() -> bool:  # twice, for what one side has closed, the other is told of a moment later
            nonlocal quiet
            quiet = quiet + 1 if len(open_files()) - self._files == 2 * self.server.open_connections else 0
            return quiet == 2

        await until(agreed)

    @property
    def sent(self) -> int:
        """How many requests the server got."""
        return len(self.server.exchanges)

    def told(self, number: int) -> list[str]:
        """Give what the tools told the model in a request, by its place from 0; from the end, below 0."""
        return results(self.way.dialect, self.server.requests[number])


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
    tasks, before = asyncio.all_tasks(), len(open_files())
    async with nothing_left():
        with FaultServer(*script, tls=tls) as server, _records() as records:
            made = Trial(server, way, url or server.url_for(way.dialect), policy, limits, options=options)
            yield made
            await made.settle()
            assert asyncio.all_tasks() - tasks == set()
            assert server.open_connections <= 1, "one question at a time needs one connection"
            if heals:
                await _goes_on(made)
            for outcome in made.outcomes:
                _keeps_the_secret(outcome.error)
            assert KEY not in "\n".join(records)
            assert KEY not in repr((made.provider, made.agent, await made.agent.log()))
        await until(lambda: len(open_files()) <= before)  # what was kept for a next request ends with the server


async def _goes_on(made: Trial) -> None:
    """With a healthy server the same program answers, over a kept connection if there is one."""
    server = made.server
    opened, kept, earlier = server.connections, server.open_connections, len(server.requests)
    server.play(answer("well"))
    if made.way.is_agent:
        assert await asyncio.wait_for(made.agent.chat("and now?"), WITHIN) == "well"
        assert_sent_whole(made.way.dialect, server.requests[-1])
    else:
        outcome = await made.ask()
        assert (outcome.text, outcome.error) == ("well", None)
    assert (len(server.requests), server.connections) == (earlier + 1, opened + 1 - kept)


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


class _Lines(logging.Handler):
    """Keeps every log record as text."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.getMessage()} {vars(record)!r}")


@contextmanager
def _records() -> Iterator[list[str]]:
    """Give everything that the library logs in the block."""
    kept, logger = _Lines(), logging.getLogger("plait")
    level = logger.level
    logger.setLevel(logging.DEBUG)
    logger.addHandler(kept)
    try:
        yield kept.lines
    finally:
        logger.removeHandler(kept)
        logger.setLevel(level)
