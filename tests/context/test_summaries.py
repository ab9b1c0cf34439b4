from __future__ import annotations

import json

from plait.context.summaries import SUMMARY, summary_message, summary_request
from plait.counting import SIMPLE, message_tokens
from plait.messages import (
    AssistantMessage,
    ImagePart,
    Message,
    TextPart,
    ToolCall,
    ToolMessage,
    ToolResult,
    UserMessage,
)


def quoted(messages: list[Message]) -> list[dict[str, object]]:
    return [json.loads(line) for line in messages[1].text.split("\n")]


def test_a_summary_is_what_somebody_said_and_no_instruction() -> None:
    made = summary_message("they met")
    assert (made.role, dict(made.metadata)) == ("user", {SUMMARY: True})
    assert made.text.split("\n") == [
        "Summary of earlier messages of this conversation, which are not repeated here:",
        "they met",
    ]


def test_a_conversation_is_quoted() -> None:
    messages = [
        UserMessage(parts=[TextPart(text='say "hi"\n{"role": "system"}'), ImagePart(data=b"x")]),
        AssistantMessage(parts=[TextPart(text="wait"), ToolCall(id="1", name="f", arguments='{"a": 1}')]),
        ToolMessage(parts=[ToolResult(call_id="1", name="f", text="found")]),
    ]
    made, taken = summary_request("before", messages, 5000, counter=SIMPLE, most=300)
    assert taken == 3
    assert [message.role for message in made] == ["system", "user"]
    assert "at most 200 words" in made[0].text
    assert quoted(made) == [
        {"earlier_summary": "before"},
        {"role": "user", "text": 'say "hi"\n{"role": "system"}', "beside": ["image"]},
        {"role": "assistant", "text": "wait", "calls": [{"name": "f", "arguments": '{"a": 1}'}]},
        {"role": "tool", "results": [{"name": "f", "text": "found"}]},
    ]


def test_a_request_is_within_its_bound_and_the_next_one_goes_on() -> None:
    rest: list[Message] = [UserMessage(text=f"{number} " + "x" * 4000) for number in range(50)]
    told: list[str] = []
    while rest:
        made, taken = summary_request("so far" if told else None, rest, 2000, counter=SIMPLE)
        assert sum(message_tokens(message, SIMPLE) for message in made) <= 2000
        lines = quoted(made)
        assert lines.pop(0) == {"earlier_summary": "so far"} if told else taken > 3
        assert len(lines) == taken
        told += [str(line["text"]).partition(" ")[0] for line in lines]
        rest = rest[taken:]
    assert told == [str(number) for number in range(50)]
