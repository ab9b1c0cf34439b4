"""The program of examples/ that answers message by message: offline, from recordings, stopped and out of money."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from plait.testing import Cut, FaultServer, Wire, answer, tool_calls
from test_client_examples import Recorded, addresses, journal
from test_examples import EXAMPLES, run

if TYPE_CHECKING:
    from pathlib import Path

PROMPT = "Answer questions about the weather in one sentence. Look it up before you answer."


async def test_offline() -> None:
    code, lines, errors = await run("one_message.py")
    assert (code, errors) == (0, b"")
    assert [line for line in lines if "tokens" not in line] == [
        "[trip: get_weather gave 'Lisbon: 72F, sunny']",
        "get_weather says: Lisbon: 72F, sunny",
        "[trip: get_weather gave 'Porto: 72F, sunny']",
        "get_weather says: Porto: 72F, sunny",
    ]
    assert [line.partition(": ")[0] for line in lines if "tokens, response]" in line] == ["[ann", "[ann"]


async def test_as_recorded(shared: Path) -> None:
    """Two recorded answers with a call between them: what is asked is what was asked when they were recorded."""
    recorded = Recorded(shared, "openrouter-chat", "stream-encrypted-reasoning-survives")
    with FaultServer(*recorded.replies(), "You are welcome.") as server:
        variables = {"OPENROUTER_API_KEY": "sk-test", "OPENROUTER_BASE_URL": server.url}
        code, lines, errors = await run("one_message.py", recorded.model, recorded.question, "Thanks!", **variables)
        first, second, third = (body["messages"] for body in server.requests)
    assert (code, errors) == (0, b"")
    assert "".join(recorded.text(1).splitlines()) in "".join(lines)
    assert lines[-1] == "You are welcome."
    assert first == [{"role": "system", "content": PROMPT}, {"role": "user", "content": recorded.question}]
    assert second[:2] == first
    assert third[: len(second)] == second  # with the model's encrypted thoughts, through JSON
    assert third[-1] == {"role": "user", "content": "Thanks!"}


async def test_an_answer_as_recorded(shared: Path, servers: dict[str, str]) -> None:
    server, recorded = servers["cut at random"], Recorded(shared, "openai-chat", "logfire-otel")
    code, lines, errors = await run("one_message.py", recorded.model, recorded.question, **addresses(server))
    assert (code, errors) == (0, b"")
    assert lines[1:] == recorded.text().splitlines()
    assert journal(server, 1)[0]["id"] == recorded.ids[0]


async def test_the_stop_button() -> None:
    held = answer("It is sunny in Lisbon.").over(Wire(cut=Cut(event=4, then="hold")))
    with FaultServer(tool_calls("get_weather", {"city": "Lisbon"}), held) as server:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, str(EXAMPLES / "one_message.py"), "openai:gpt-4o-mini"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(sys.path),
                "OPENAI_API_KEY": "sk-test",
                "OPENAI_BASE_URL": server.url,
            },
        )
        assert await asyncio.to_thread(server.wait_for_requests, 2, 20.0)
        process.send_signal(signal.SIGINT)
        out, err = await asyncio.wait_for(process.communicate(), 20)
    assert (process.returncode, err) == (0, b"")
    *_, said, why = out.decode().splitlines()
    assert "It is sunny in Lisbon.".startswith(said)
    assert why == "(user_stop)"


async def test_what_goes_wrong_is_said() -> None:
    assert await run("one_message.py", "openai") == (
        *(1, []),
        b"provider 'openai' needs a key: set OPENAI_API_KEY, or pass the key\n",
    )


@pytest.mark.parametrize("tokens", [400_000])
async def test_a_chat_that_has_used_its_money(tokens: int) -> None:
    rich = answer("Dear.", usage=(tokens, 10))
    with FaultServer(rich) as server:
        variables = {"OPENAI_API_KEY": "sk-test", "OPENAI_BASE_URL": server.url}
        code, lines, _ = await run("one_message.py", "openai:gpt-4o-mini", "One", "Two", **variables)
    assert (code, lines[-1], "Dear." in lines) == (0, "(budget)", True)
