"""What ``debug_print=True`` prints: readable, without secrets, and nothing that drives a terminal."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from plait import AsyncOpenAISimpleAgent, OfflineProvider, Secret, ToolCall
from plait.testing import FaultServer, tool_calls
from test_readme import run_block

KINDS = ("python", "text")
SEEN = pytest.CaptureFixture[str]


def lookup(word: str) -> str:
    """Look a word up."""
    if word == "none":
        msg = "no such word"
        raise ValueError(msg)
    return f"{word}: found"


async def test_requests_calls_and_decisions_in_readable_lines(capsys: SEEN) -> None:
    both = tool_calls(("lookup", {"word": "tea"}), ("lookup", {"word": "none"}), text="I look.")
    with FaultServer(both, "Found.") as server:
        agent = AsyncOpenAISimpleAgent(
            "Lib",
            model="gpt-4o-mini",
            api_key="sk-very-secret",
            base_url=server.url,
            tool_registry=[lookup],
            max_messages_in_context=4,
            execute_function_concurrently=False,
            current_cost_per_million_tokens=1,
        )
        history = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}] * 2
        await agent.send_message("Tea?", history, debug_print=True)
        printed = capsys.readouterr().out
        assert re.sub(r"\d\.\d{3} s", "0.000 s", printed).splitlines() == [
            "[Lib] -- leaves out 1 message more, 1 in all",
            "[Lib] -> turn 1: asks with 5 messages, tools lookup",
            "[Lib]    system: Earlier messages of this conversation were left out here.",
            "[Lib]    assistant: Hi",
            "[Lib]    user: Hello",
            "[Lib]    assistant: Hi",
            "[Lib]    user: Tea?",
            "[Lib] <- assistant: I look.",
            '[Lib] <- assistant: wants lookup({"word": "tea"})',
            '[Lib] <- assistant: wants lookup({"word": "none"})',
            "[Lib] <- openai:gpt-4o-mini ended with tool_calls, 9 tokens in, 12 out",
            '[Lib] => calls lookup({"word": "tea"})',
            '[Lib] => calls lookup({"word": "none"})',
            "[Lib] <= lookup gave, after 0.000 s: tea: found",
            "[Lib] !! lookup gave, after 0.000 s: ValueError: no such word",
            "[Lib] -- leaves out 2 messages more, 3 in all",
            "[Lib] -> turn 2: asks with 5 messages, tools lookup",
            "[Lib]    system: Earlier messages of this conversation were left out here.",
            "[Lib]    assistant: Hi",
            "[Lib]    user: Tea?",
            "[Lib]    assistant: I look.",
            '[Lib]    assistant: wants lookup({"word": "tea"})',
            '[Lib]    assistant: wants lookup({"word": "none"})',
            "[Lib]    tool: lookup gave tea: found",
            "[Lib]    tool: lookup gave ValueError: no such word",
            "[Lib] <- assistant: Found.",
            "[Lib] <- openai:gpt-4o-mini ended with stop, 9 tokens in, 12 out",
            "[Lib] ## ended: response, 18 tokens in, 24 out, 0.000042 USD",
        ]
        assert "sk-very-secret" not in printed
        await agent.send_message("Tea?")
        assert capsys.readouterr().out == ""


async def test_nothing_long_and_nothing_that_drives_a_terminal(capsys: SEEN) -> None:
    def look(word: str, token: Secret = Secret("sk-123456")) -> str:  # noqa: B008  # a default of the function's own
        """Look."""
        return "\x1b[31mred\x1b[0m\r\n" + "long " * 10_000

    call = ToolCall(id="c", name="look", arguments='{"word": "\\u001b[2J' + "x" * 5000 + '"}')
    agent = AsyncOpenAISimpleAgent(
        "\x1b]0;title\x07", provider=OfflineProvider([call, "\x1b[1mbold\x07" + "y" * 5000]), tool_registry=[look]
    )
    await agent.send_message(
        "\x1b[2J" + "z" * 5000, history=[{"role": "user", "content": "a\nb"}] * 20, debug_print=True
    )
    printed = capsys.readouterr().out
    assert [c for c in printed if not c.isprintable() and c != "\n"] == []
    assert max(map(len, printed.splitlines())) < 300
    assert "... 15 earlier" in printed
    assert "sk-123456" not in printed


async def test_how_it_ended_is_printed(capsys: SEEN) -> None:
    agent = AsyncOpenAISimpleAgent(
        "Cheap",
        provider="offline",
        budget_control={"max_budget_for_this_chat": 0},
        current_cost_per_million_tokens=1,
    )
    await agent.send_message("Hi", debug_print=True)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2].startswith("[Cheap] -- the budget of 0.00 USD for this chat is used up")
    assert lines[-1].startswith("[Cheap] ## ended: budget (the budget of 0.00 USD for this chat is used up")


async def test_the_page_shows_what_is_printed() -> None:
    page = (Path(__file__).parents[2] / "docs" / "service.md").read_text("utf-8")
    example, shown = (re.findall(rf"^```{kind}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)[0] for kind in KINDS)
    printed = await run_block(example.replace('chat_id="trip")', 'chat_id="trip", debug_print=True)', 1))
    assert re.sub(r"\d\.\d{3} s", "0.000 s", printed) == shown


@pytest.mark.parametrize(
    ("whose", "begins"),
    [
        ({}, "[Shop] "),
        ({"user_id": "ann"}, "[Shop ann] "),
        ({"chat_id": "42"}, "[Shop /42] "),
        ({"user_id": "ann", "chat_id": "4\u202e2"}, "[Shop ann/4\\u202e2] "),
    ],
)
async def test_lines_name_the_user_and_the_chat_that_were_given(
    whose: dict[str, Any], begins: str, capsys: SEEN
) -> None:
    await AsyncOpenAISimpleAgent("Shop", provider="offline").send_message("Hi", debug_print=True, **whose)
    await AsyncOpenAISimpleAgent("Shop", provider="offline", **whose).send_message("Hi", debug_print=True)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10
    assert [line for line in lines if not line.startswith(begins)] == []


async def test_what_is_no_text_is_named(capsys: SEEN) -> None:
    from plait import ImagePart

    model = OfflineProvider(["Nice."])
    await AsyncOpenAISimpleAgent("Eye", provider=model).send_message(
        ["Look!", ImagePart(url="https://example.org/a.png?key=sk-123")], debug_print=True
    )
    printed = capsys.readouterr().out
    assert "[Eye]    user: image" in printed
    assert "sk-123" not in printed
