"""Recorded conversations with tools, gone through again by the real loop with real tool functions."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from plait import Agent, MemoryStore, TextDelta, ToolCallFinished, history
from plait.providers.chat import ChatProvider
from recorded import DELIVERIES, FAMILIES

if TYPE_CHECKING:
    from collections.abc import Callable

Recording = dict[str, Any]


def conversations(recordings: list[Recording]) -> list[list[Recording]]:
    """The conversations in which results of tools were sent, each with its exchanges in order."""
    by_scenario: dict[str, list[Recording]] = {}
    for recording in recordings:
        by_scenario.setdefault(recording["scenario"], []).append(recording)
    return [
        sorted(steps, key=lambda step: int(step["step"]))
        for steps in by_scenario.values()
        if any("tool_result_turn" in step["features"] for step in steps)
    ]


def text_of(content: Any) -> str:
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def answer_of(recording: Recording) -> str:
    """The text a recorded response holds, read by hand."""
    body = recording["response"]["body"]
    if not recording["stream"]:
        return str(json.loads(body)["choices"][0]["message"]["content"] or "")
    chunks = [json.loads(line[6:]) for line in body.splitlines() if line.startswith("data: {")]
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])


class Tools:
    """The recorded tools as functions: they note their arguments, and give the recorded results in order."""

    def __init__(self, steps: list[Recording]) -> None:
        sent = steps[-1]["request"]["body"]["messages"]
        self.results = [text_of(message["content"]) for message in sent if message["role"] == "tool"]
        self.called: list[tuple[str, dict[str, Any]]] = []
        offered = steps[0]["request"]["body"]["tools"]
        self.forms = [
            {
                "name": tool["function"]["name"],
                "function_schema": tool,
                "func": self._function(tool["function"]["name"]),
            }
            for tool in offered
        ]

    def _function(self, name: str) -> Callable[..., Any]:
        async def call(**arguments: Any) -> str:
            self.called.append((name, arguments))
            return self.results[len(self.called) - 1]

        return call


def calls_in(messages: list[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    made = [call["function"] for message in messages for call in message.get("tool_calls", [])]
    return [(call["name"], json.loads(call["arguments"])) for call in made]


@pytest.mark.parametrize("delivery", DELIVERIES)
async def test_each_conversation_comes_to_its_recorded_end(
    recordings: list[Recording], servers: dict[str, str], delivery: str
) -> None:
    gone_through = 0
    for steps in conversations(recordings):
        first, last = steps[0], steps[-1]
        messages = last["request"]["body"]["messages"]
        provider = ChatProvider(
            first["request"]["body"]["model"],
            name=FAMILIES[first["provider"]],
            base_url=servers[delivery] + first["request"]["path"].removesuffix("/chat/completions"),
            api_key="sk-recorded",
            headers={"x-replay-id": first["scenario"]},
        )
        tools = Tools(steps)
        role = next((text_of(m["content"]) for m in messages if m["role"] in ("system", "developer")), None)
        agent = Agent(role=role, provider=provider, tools=tools.forms, store=MemoryStore())
        prompts = [text_of(message["content"]) for message in messages if message["role"] == "user"]
        asked = 0
        output, streamed, finished = "", "", 0
        for prompt in prompts:
            if asked == len(steps):  # a recorded client that put a user's words behind a result had no more answers
                break
            streamed = ""
            run = agent.run(prompt, thread="t")
            async for event in run:
                if isinstance(event, TextDelta):
                    streamed += event.text
                finished += isinstance(event, ToolCallFinished)
            result = await run
            asked += sum(message.role == "assistant" for message in result.messages)
            assert result.stop_reason == "response"
            output = str(result.output)
        assert asked == len(steps)
        assert output == answer_of(last)
        assert streamed.endswith(output)
        assert tools.called == calls_in(messages)
        assert finished == len(tools.called)
        kept = [r.text for message in history(await agent.log("t")) for r in message.tool_results]
        assert kept == tools.results
        gone_through += 1
    assert gone_through == 5
