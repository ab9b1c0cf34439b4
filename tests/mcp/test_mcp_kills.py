"""A server that dies before, during and after a call: who waits is told at once, and the next call works."""

from __future__ import annotations

import asyncio
import shlex
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import foreign
from plait import Agent, MCPConnection, OfflineProvider, ToolCall, ToolCallFinished, ToolError

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator, Mapping

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")

AT_ONCE = 1.0  # seconds within which whoever waits for a dead server must be told
LONG = {"duration": 1000, "steps": 10}
BROKE_OFF = (
    "the MCP server 'v' broke off under the call of 'v_echo' (the server ended the connection); it may have happened: "
    "find out before you repeat it"
)


@dataclass
class Victim:
    """A server that can be killed: its own process, or the child of a connection."""

    mode: str
    target: str | list[str]
    command: list[str] = field(default_factory=list)
    port: int = 0
    log: Path = Path()
    stack: ExitStack = field(default_factory=ExitStack)
    process: subprocess.Popen[bytes] | None = None
    before: set[int] = field(default_factory=foreign.children)

    def start(self) -> None:
        """Start it, if it is not the connection that does."""
        if self.command:
            running = foreign.listening(self.command, self.port, self.log, {"PORT": str(self.port)})
            self.process = self.stack.enter_context(running)

    @property
    def pid(self) -> int:
        if self.process is not None:
            return self.process.pid
        (pid,) = foreign.children() - self.before
        return pid

    def kill(self) -> None:
        """Kill it; it is dead when this returns."""
        foreign.kill(self.pid)

    @property
    def left(self) -> set[int]:
        """The processes that a connection left."""
        return foreign.children() - self.before if self.process is None else set()


@pytest.fixture(params=["stdio", "http", "sse"])
def victim(request: pytest.FixtureRequest, others: foreign.Foreign, tmp_path: Path) -> Iterator[Victim]:
    """The protocol's own server, once for each transport."""
    if request.param == "stdio":
        yield Victim("stdio", [*others.everything, "stdio"])
        return
    port = foreign.free_port()
    word, path = {"http": ("streamableHttp", "mcp"), "sse": ("sse", "sse")}[request.param]
    url, command = f"http://127.0.0.1:{port}/{path}", [*others.everything, word]
    made = Victim(request.param, url, command, port, tmp_path / "log")
    with made.stack:
        made.start()
        yield made


async def echo(connection: MCPConnection) -> str:
    result = await connection.tools["v_echo"].execute(message="hi")
    return str(result.text)


@pytest.mark.fault("M01", "M08")
async def test_a_call_after_a_death_finds_the_server_again(victim: Victim) -> None:
    """It does so even when nobody has noticed the death; the older transport cannot tell that a call was not sent."""
    async with MCPConnection("v", victim.target) as connection:
        for _ in range(3):
            assert await echo(connection) == "Echo: hi"
            victim.kill()
            victim.start()
            try:
                assert await echo(connection) == "Echo: hi"
            except ToolError as error:
                assert (str(error), victim.mode) == (BROKE_OFF, "sse")  # noqa: PT017  # it may end well
        assert await echo(connection) == "Echo: hi"
    assert victim.left == set()


@pytest.mark.fault("M01", "M12")
async def test_calls_under_way_fail_at_once_and_the_next_one_works(victim: Victim) -> None:
    async with MCPConnection("v", victim.target) as connection:
        slow = connection.tools["v_trigger-long-running-operation"]
        pending = [asyncio.create_task(slow.execute(**LONG)) for _ in range(3)]
        assert await echo(connection) == "Echo: hi"  # so they have been sent
        victim.kill()
        async with asyncio.timeout(AT_ONCE):
            ended = await asyncio.gather(*pending, return_exceptions=True)
        assert [type(error) for error in ended] == [ToolError] * 3
        for error in ended:
            said = str(error)
            assert said.startswith(
                "the MCP server 'v' broke off under the call of 'v_trigger-long-running-operation' ("
            )
            assert said.endswith("); it may have happened: find out before you repeat it")
        victim.start()
        assert await echo(connection) == "Echo: hi"
    assert victim.left == set()


@pytest.mark.fault("M01", "M13")
async def test_a_question_of_a_server_that_dies_keeps_nobody_waiting(victim: Victim) -> None:
    asked, never = asyncio.Event(), asyncio.Event()

    async def person(message: str, schema: Mapping[str, Any]) -> Mapping[str, Any] | None:
        asked.set()
        await never.wait()
        return None

    async with MCPConnection("v", victim.target, on_elicitation=person) as connection:
        pending = asyncio.create_task(connection.tools["v_trigger-elicitation-request"].execute())
        async with asyncio.timeout(foreign.PATIENCE):
            await asked.wait()
        victim.kill()
        async with asyncio.timeout(AT_ONCE):
            with pytest.raises(ToolError, match="broke off under the call"):
                await pending
        victim.start()
        assert await echo(connection) == "Echo: hi"
    assert victim.left == set()


@pytest.mark.fault("M01")
@pytest.mark.parametrize("victim", ["http", "sse"], indirect=True)
async def test_a_server_that_stays_away_is_said_to_be_away(victim: Victim) -> None:
    async with MCPConnection("v", victim.target) as connection:
        assert await echo(connection) == "Echo: hi"
        victim.kill()
        async with asyncio.timeout(AT_ONCE):
            with pytest.raises(ToolError) as away:
                await echo(connection)
        victim.start()
        assert await echo(connection) == "Echo: hi"
    cannot = f"the MCP server 'v' cannot be used: {victim.target} cannot be reached: All connection attempts failed"
    assert str(away.value) == (BROKE_OFF if victim.mode == "sse" else cannot)


@pytest.mark.fault("M01")
async def test_an_agent_is_told_and_goes_on(victim: Victim) -> None:
    calls = [
        ToolCall(id="1", name="v_trigger-long-running-operation", arguments='{"duration": 1000, "steps": 10}'),
        ToolCall(id="2", name="v_echo", arguments='{"message": "hi"}'),
    ]
    provider = OfflineProvider([calls, ToolCall(id="3", name="v_echo", arguments='{"message": "again"}'), "done"])
    async with MCPConnection("v", victim.target) as connection:
        run = Agent(provider=provider, tools=[*connection.tools.values()]).run("go")
        async for event in run:
            if isinstance(event, ToolCallFinished) and event.result.call_id == "2":
                victim.kill()
                victim.start()
        assert (await run).output == "done"
    broken, fine = provider.requests[1].messages[-1].tool_results
    assert broken.is_error
    assert "it may have happened" in broken.text
    assert (fine.text, fine.is_error) == ("Echo: hi", False)
    assert provider.requests[2].messages[-1].tool_results[0].text == "Echo: again"
    assert victim.left == set()


@pytest.mark.fault("M12")
async def test_what_a_server_started_ends_with_it(others: foreign.Foreign) -> None:
    """A helper that does not end by itself, and holds the server's pipes, is in the server's process group."""
    before = foreign.children()
    command = ["/bin/sh", "-c", f"sleep 1000 & exec {shlex.join(others.everything)} stdio"]
    async with MCPConnection("v", command) as connection:
        (first,) = foreign.children() - before
        assert len(foreign.group(first)) == 2
        foreign.kill(first)
        assert await echo(connection) == "Echo: hi"
        (second,) = foreign.children() - before
        assert len(foreign.group(second)) == 2
    assert foreign.group(first) | foreign.group(second) == set()
