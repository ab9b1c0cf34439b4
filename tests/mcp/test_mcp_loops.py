"""One connection in several event loops and threads, and closed at any moment: nobody waits for ever."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from mcp_servers import WITHIN, call, gone, noted, pids, raw, until
from plait import MCPClient, OfflineProvider, OpenRouterClient, ToolCall, ToolError
from plait.errors import MCPError
from plait.mcp.client.connection import MCPConnection

if TYPE_CHECKING:
    from pathlib import Path

STANDS_STILL = (
    "the MCP server 'raw' is open on another event loop, and its event loop does not run: it was left, or a sync call "
    "blocks it; use the async form there, or close it there first"
)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def in_thread(work: Any) -> Any:
    """Give what comes of a coroutine in an event loop of a thread of its own, while this thread waits for it."""
    found: list[Any] = []

    async def bounded() -> Any:
        async with asyncio.timeout(WITHIN):
            return await work()

    def run() -> None:
        try:
            found.append(asyncio.run(bounded()))
        except Exception as error:  # noqa: BLE001  # it is what the test asks for
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(2 * WITHIN)
    (outcome,) = found
    return outcome


# --- the loop of the session stands still ---


@pytest.mark.fault("M09")
async def test_a_call_from_elsewhere_does_not_wait_for_a_loop_that_waits_for_it(log: Path) -> None:
    async with MCPConnection("raw", raw(log=str(log))) as connection:
        outcome = in_thread(lambda: call(connection.tools, "raw_act"))
        assert (type(outcome), str(outcome)) == (ToolError, STANDS_STILL)
        outcome = in_thread(connection.open)
        assert (type(outcome), str(outcome)) == (MCPError, STANDS_STILL)
        assert (await call(connection.tools, "raw_act")).text == "act done"
    assert len(pids(log)) == 1


@pytest.mark.fault("M09")
async def test_closing_from_elsewhere_does_not_wait_for_a_loop_that_waits_for_it(log: Path) -> None:
    connection = MCPConnection("raw", raw(log=str(log)))
    before = asyncio.all_tasks()
    await connection.open()
    assert in_thread(connection.close) is None
    assert all(map(gone, pids(log)))
    await until(lambda: asyncio.all_tasks() == before)


@pytest.mark.fault("M09")
async def test_a_sync_client_used_in_the_event_loop_that_it_was_registered_in() -> None:
    script: list[ToolCall | str] = [ToolCall(id="1", name="raw_act", arguments="{}"), "Done."]
    provider = OfflineProvider(script)
    client = MCPClient(OpenRouterClient(provider=provider))
    before = asyncio.all_tasks()
    await client.aregister_mcp_server("raw", raw())
    assert client.chat("Go.").choices[0].message.content == "Done."
    assert [result.text for result in provider.requests[-1].messages[-1].tool_results] == ["act done"]
    client.close()
    await until(lambda: asyncio.all_tasks() == before)


@pytest.mark.fault("M09")
def test_closing_where_the_loop_of_the_session_is_between_two_runs(log: Path) -> None:
    with asyncio.Runner() as home:
        connection = MCPConnection("raw", raw(log=str(log)))
        home.run(connection.open())
        assert in_thread(connection.close) is None
        assert all(map(gone, pids(log)))
        home.run(connection.close())


@pytest.mark.fault("M09")
def test_a_call_from_elsewhere_ends_with_its_time_where_the_loop_was_left_under_it(log: Path) -> None:
    connection = MCPConnection("raw", raw(log=str(log), call="hang"), timeout=0.2)
    outcome: list[Any] = []
    with asyncio.Runner() as home:
        home.run(connection.open())
        thread = threading.Thread(target=lambda: outcome.append(in_thread(lambda: call(connection.tools, "raw_act"))))

        async def until_it_is_called() -> None:
            thread.start()
            await until(lambda: noted(log, "call"))

        home.run(until_it_is_called())
        thread.join(2 * WITHIN)
        home.run(connection.close())
    assert [(type(error), str(error)) for error in outcome] == [(ToolError, STANDS_STILL)]


@pytest.mark.fault("M09")
def test_a_call_from_elsewhere_is_told_that_the_loop_ended_under_it(log: Path) -> None:
    connection = MCPConnection("raw", raw(log=str(log), call="hang"))
    outcome: list[Any] = []
    thread = threading.Thread(target=lambda: outcome.append(in_thread(lambda: call(connection.tools, "raw_act"))))

    async def home() -> None:
        await connection.open()
        thread.start()
        await until(lambda: noted(log, "call"))

    asyncio.run(home())
    thread.join(2 * WITHIN)
    said = "the event loop in which the MCP server 'raw' was open has ended"
    assert [(type(error), str(error)) for error in outcome] == [(ToolError, said)]
    assert all(map(gone, pids(log)))


@pytest.mark.fault("M09")
def test_threads_that_open_at_once_share_one_session(log: Path) -> None:
    connection = MCPConnection("raw", raw(log=str(log)))
    together, last = threading.Barrier(8), threading.Barrier(8)
    said: list[str] = []

    async def use() -> None:
        together.wait(WITHIN)
        await connection.open()
        said.append((await call(connection.tools, "raw_act")).text)
        await asyncio.to_thread(last.wait, WITHIN)  # the loop that has the session serves the others

    threads = [threading.Thread(target=lambda: asyncio.run(use())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * WITHIN)
    asyncio.run(connection.close())
    assert (said, len(pids(log))) == (["act done"] * 8, 1)
    assert all(map(gone, pids(log)))


# --- closed meanwhile ---


@pytest.mark.fault("M09", "M12")
async def test_closing_under_an_idempotent_call_starts_no_new_server(log: Path) -> None:
    connection = MCPConnection("raw", raw(log=str(log), call="hang"), idempotent=True)
    await connection.open()
    calling = asyncio.create_task(call(connection.tools, "raw_act"))
    await until(lambda: noted(log, "call"))
    await connection.close()
    with pytest.raises(ToolError, match=r"^the MCP server 'raw' was closed; open it again to call 'raw_act'$"):
        async with asyncio.timeout(WITHIN):
            await calling
    assert len(pids(log)) == 1
    assert all(map(gone, pids(log)))


@pytest.mark.fault("M09", "M12")
async def test_closing_while_a_call_waits_for_the_next_try_starts_no_new_server(log: Path) -> None:
    connection = MCPConnection("raw", raw(log=str(log), call="die"))
    await connection.open()
    for _ in range(2):
        with pytest.raises(ToolError, match="broke off"):
            await call(connection.tools, "raw_act")
    started = len(pids(log))
    calling = asyncio.create_task(call(connection.tools, "raw_act"))
    await asyncio.sleep(0)  # it waits now
    await connection.close()
    with pytest.raises(ToolError, match="was closed; open it again"):
        await calling
    assert len(pids(log)) == started


@pytest.mark.fault("M09")
@pytest.mark.parametrize("turns", range(1, 5))
async def test_closing_while_it_opens_ends_both(turns: int, log: Path) -> None:
    connection = MCPConnection("raw", raw(log=str(log)))
    opening = asyncio.create_task(connection.open())
    for _ in range(turns):
        await asyncio.sleep(0)
    await connection.close()
    async with asyncio.timeout(WITHIN):
        with pytest.raises(MCPError, match="was closed"):
            await opening
    assert all(map(gone, pids(log)))
