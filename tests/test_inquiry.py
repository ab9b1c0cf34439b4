from __future__ import annotations

from plait.counting import SIMPLE, message_tokens, tools_tokens
from plait.inquiry import fixed_tokens, input_tokens
from plait.messages import UserMessage
from plait.plain import FrozenDict
from plait.providers.base import Request, Settings, ToolDefinition

HELLO = UserMessage(text="hello")
LOOK = ToolDefinition(name="look", description="Looks.")


def test_fields_of_ones_own_are_part_of_the_input() -> None:
    searches = {"type": "web_search", "description": "searches " * 1_000}
    plain, own = Settings(temperature=0), Settings(extra=FrozenDict({"tools": [searches]}))

    assert fixed_tokens((LOOK,), None, plain) == tools_tokens((LOOK,), SIMPLE)
    assert fixed_tokens((LOOK,), None, own) > tools_tokens((LOOK,), SIMPLE) + 1_000
    assert input_tokens(Request(messages=(HELLO,), tools=(LOOK,), settings=own)) == (
        message_tokens(HELLO, SIMPLE) + fixed_tokens((LOOK,), None, own)
    )
