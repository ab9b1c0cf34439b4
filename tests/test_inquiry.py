from __future__ import annotations

import pytest

from plait.counting import SIMPLE, message_tokens, tools_tokens
from plait.events import Fold, TextDelta, Usage, UsageDelta
from plait.inquiry import Inquiry, fixed_tokens, input_tokens
from plait.messages import AssistantMessage, UserMessage
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


COUNTED = message_tokens(AssistantMessage(text="so many words"), SIMPLE)


@pytest.mark.parametrize(
    ("most", "told", "output"),
    [(None, 0, COUNTED), (100, 0, COUNTED), (3, 0, 3), (3, 2, 3), (100, 50, 50)],
)
def test_a_cut_answer_took_no_more_than_it_might(most: int | None, told: int, output: int) -> None:
    request = Request(messages=(HELLO,), settings=Settings(max_tokens=most))
    inquiry = Inquiry(request, Fold("fake", "m"))
    inquiry.fold.add([TextDelta("so many words"), UsageDelta(Usage(output_tokens=told))])

    assert COUNTED > 3
    assert inquiry.taken() == Usage(input_tokens=message_tokens(HELLO, SIMPLE), output_tokens=output, estimated=True)
