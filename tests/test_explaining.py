"""What is told of a request that would be sent: its parts, where they come from, their tokens, and what it may cost."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, TypedDict

import pytest

from plait.entries import Entry, MessageEntry, RunEnd, RunStart, ToolEnd, ToolStart
from plait.explaining import WIDTH, Counting, ExplainedPart, Explanation, explain, origins_of
from plait.log import Tail
from plait.messages import (
    AssistantMessage,
    AudioPart,
    FilePart,
    ImagePart,
    Message,
    ReasoningPart,
    SystemMessage,
    TextPart,
    ToolCall,
    ToolMessage,
    ToolResult,
    UserMessage,
)
from plait.plain import FrozenDict
from plait.providers.anthropic import AnthropicProvider
from plait.providers.base import Request, Settings, ToolDefinition
from plait.providers.chat import ChatProvider
from plait.providers.encoding import encoded
from plait.providers.offline import OfflineProvider
from plait.providers.ollama import OllamaProvider
from plait.providers.responses import ResponsesProvider
from plait.schema import output_schema

if TYPE_CHECKING:
    from plait.entries import Body
    from plait.events import Usage
    from plait.providers.base import Provider

KEY: Final = "sk-very-secret-1234"
COUNTING: Final = Counting(
    message=lambda message: 10 + len(message.text), tools=lambda tools: 100 * len(tools), output=lambda _: 1_000
)


class Trip(TypedDict):
    """A trip."""

    city: str


WEATHER: Final = ToolDefinition(
    name="get_weather",
    description="Looks\nout.",
    parameters={"type": "object", "properties": {"city": {"type": "string"}, "day": {"type": "string"}}},
)


def cost(usage: Usage) -> float:
    return usage.input_tokens * 1e-6 + usage.output_tokens * 1e-5


def explained(provider: Provider, request: Request, *origins: str, **options: Any) -> Explanation:
    told = origins or ("prompt",) * len(request.messages)
    return explain(encoded(provider, request), request, told, counting=COUNTING, **options)


def test_each_part_is_told_with_where_it_comes_from() -> None:
    request = Request(
        messages=[SystemMessage(text="Be kind."), UserMessage(text="hi"), UserMessage(text="and?")],
        tools=[WEATHER],
        output=output_schema(Trip),
        settings=Settings(temperature=0.5, max_tokens=50, n=2, extra=FrozenDict({"user": "me"})),
    )
    made = explained(
        ChatProvider("gpt-4o", api_key=KEY),
        request,
        "system prompt",
        "thread 'trip', entry 2",
        "prompt",
        cost=cost,
    )
    schema = made.parts[2].excerpt
    assert schema.startswith("{'additionalProperties': False, ")
    assert made.parts == (
        ExplainedPart(origin="system prompt", what="system", tokens=18, excerpt="Be kind."),
        ExplainedPart(origin="tool get_weather", what="tool", tokens=100, excerpt="get_weather(city, day) Looks out."),
        ExplainedPart(origin="output type Trip", what="output type", tokens=1_000, excerpt=schema),
        ExplainedPart(origin="thread 'trip', entry 2", what="user", tokens=12, excerpt="hi"),
        ExplainedPart(origin="prompt", what="user", tokens=14, excerpt="and?"),
        ExplainedPart(origin="setting temperature", what="setting", tokens=0, excerpt="0.5"),
        ExplainedPart(origin="setting max_tokens", what="setting", tokens=0, excerpt="50"),
        ExplainedPart(origin="setting n", what="setting", tokens=0, excerpt="2"),
        ExplainedPart(origin="setting extra['user']", what="setting", tokens=0, excerpt="'me'"),
    )
    assert (made.provider, made.model) == ("openai", "gpt-4o")
    assert made.url == "https://api.openai.com/v1/chat/completions"
    assert (made.tokens, made.max_tokens) == (1_144, 100)
    assert [made.price, made.highest_price] == pytest.approx([0.001144, 0.002144])
    assert made.body == encoded(ChatProvider("gpt-4o", api_key=KEY), request).body
    assert made.json == json.loads(made.body)
    assert repr(made) == "Explanation(openai:gpt-4o, 9 parts, 1144 tokens)"


@pytest.mark.parametrize(
    ("provider", "most"),
    [
        (ChatProvider("gpt-4o", api_key=KEY), None),
        (ChatProvider("m", name="openrouter", api_key=KEY), None),
        (ResponsesProvider("gpt-4o", api_key=KEY), None),
        (AnthropicProvider("claude-sonnet-4-5", api_key=KEY), 4096),
        (OllamaProvider("m"), None),
        (OfflineProvider(), None),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_the_longest_answer_is_read_from_what_is_sent(provider: Provider, most: int | None) -> None:
    hi = (UserMessage(text="hi"),)
    asked = explained(provider, Request(messages=hi, settings=Settings(max_tokens=7)), cost=cost)
    silent = explained(provider, Request(messages=hi), cost=cost)
    assert (asked.max_tokens, silent.max_tokens) == (7, most)
    assert asked.highest_price == pytest.approx(12e-6 + 7e-5)
    assert silent.highest_price == (None if most is None else pytest.approx(12e-6 + most * 1e-5))


def test_an_unknown_price_is_none_and_not_nothing() -> None:
    request = Request(messages=[UserMessage(text="hi")], settings=Settings(max_tokens=7))
    for made in (explained(OfflineProvider(), request), explained(OfflineProvider(), request, cost=lambda _: None)):
        assert (made.price, made.highest_price) == (None, None)
        assert "$" not in str(made)


@pytest.mark.parametrize(
    ("message", "what", "excerpt"),
    [
        (
            AssistantMessage(parts=(ReasoningPart(text="so"), TextPart(text="a"))),
            "assistant: reasoning",
            "[thought: so] a",
        ),
        (
            AssistantMessage(parts=(ToolCall(id="c1", name="add", arguments='{"a":1}'),)),
            "assistant: tool_call",
            'add({"a":1})',
        ),
        (
            ToolMessage(
                parts=(
                    ToolResult(call_id="c1", name="add", text="3"),
                    ToolResult(call_id="c2", text="no", is_error=True),
                )
            ),
            "tool",
            "add: 3 c2 failed: no",
        ),
        (UserMessage(parts=(TextPart(text="see"), ImagePart(data=b"\x89PNG"))), "user: image", "see [image: 4 bytes]"),
        (UserMessage(parts=(ImagePart(url="https://x.test/a"),)), "user: image", "[image: https://x.test/a]"),
        (UserMessage(parts=(FilePart(file_id="file-1"),)), "user: file", "[file: file-1]"),
        (UserMessage(parts=(AudioPart(data=b"RIFF"),)), "user: audio", "[audio: 4 bytes]"),
        (UserMessage(text="a\x1b[31m\n\nb\u202e"), "user", "a\\x1b[31m b\\u202e"),
        (UserMessage(text="x" * 300), "user", "x" * 200 + "…"),
        (UserMessage(parts=()), "user", ""),
    ],
)
def test_what_a_message_holds_is_said_in_one_line(message: Message, what: str, excerpt: str) -> None:
    (part,) = explained(OfflineProvider(), Request(messages=[message])).parts
    assert part == ExplainedPart(origin="prompt", what=what, tokens=COUNTING.message(message), excerpt=excerpt)


def test_printed_it_is_a_table() -> None:
    request = Request(
        messages=[SystemMessage(text="Be kind. " * 20), UserMessage(text="hi\x1b[2J")],
        tools=[WEATHER],
        settings=Settings(temperature=0.5),
    )
    made = explained(
        AnthropicProvider("claude-sonnet-4-5", api_key=KEY),
        request,
        "system prompt",
        "thread 'a very long name indeed of a thread', entries 2 to 3",
        cost=cost,
    )
    size = f"{len(made.body)} bytes"
    assert str(made).splitlines() == [
        f"anthropic:claude-sonnet-4-5  POST https://api.anthropic.com/v1/messages  {size}",
        "  content-type: application/json",
        "  accept: application/json, text/event-stream",
        "  user-agent: plait",
        "  x-api-key: ***",
        "  anthropic-version: 2023-06-01",
        "   tokens  origin                            what     excerpt",
        "      190  system prompt                     system   Be kind. Be kind. Be kind. Be kind. Be kind. …",
        "      100  tool get_weather                  tool     get_weather(city, day) Looks out.",
        "       16  thread 'a very …, entries 2 to 3  user     hi\\x1b[2J",
        "        -  setting temperature               setting  0.5",
        "      306  in all, by an estimate: $0.000306",
        "    4,096  at most in the answer, with what is sent: $0.041266",
    ]
    assert KEY not in str(made) + repr(made) + str(made.headers)


def test_no_line_is_wider_than_the_table_and_none_drives_the_terminal() -> None:
    request = Request(messages=[UserMessage(text="x\x1b\u202e" * 500)], tools=[WEATHER] * 3)
    made = explained(OfflineProvider(model="m\x1b" * 200), request, "thread '\x1b[31m\n'" + "y" * 300)
    lines = str(made).split("\n")
    assert max(map(len, lines)) == WIDTH
    assert all(line.isprintable() for line in lines)
    assert "nothing is sent" in str(explained(OfflineProvider(), request))


def test_images_that_would_be_fetched_are_named() -> None:
    message = UserMessage(parts=(TextPart(text="see"), ImagePart(url="https://x.test/a.png")))
    made = explained(OllamaProvider("m"), Request(messages=[message]))
    assert made.unfetched == ("https://x.test/a.png",)
    assert str(made).splitlines()[-1] == "  to be fetched first: https://x.test/a.png"


def test_each_message_needs_its_origin() -> None:
    with pytest.raises(ValueError, match="shorter"):
        explained(OfflineProvider(), Request(messages=[UserMessage(text="a"), UserMessage(text="b")]), "prompt")


# --- origins ---------------------------------------------------------------------------------------------------------


def log(*bodies: Body) -> list[Entry]:
    """A log in which each run's beginning is that of another run."""
    runs = 0
    entries = []
    for n, body in enumerate(bodies, 1):
        runs += isinstance(body, RunStart)
        entries.append(Entry(n=n, id=f"e{n}", at=0.0, run_id=f"r{runs}", body=body))
    return entries


def calls(*ids: str) -> AssistantMessage:
    return AssistantMessage(parts=tuple(ToolCall(id=name, name="add", arguments="{}") for name in ids))


THREAD: Final = log(
    RunStart(),
    MessageEntry(UserMessage(text="a")),
    MessageEntry(calls("c1", "c2")),
    ToolStart("c1"),
    ToolStart("c2"),
    ToolEnd(ToolResult(call_id="c2", text="2")),
    ToolEnd(ToolResult(call_id="c1", text="1")),
    MessageEntry(AssistantMessage(text="b")),
    RunEnd("response"),
    RunStart(),
    MessageEntry(UserMessage(text="c")),
    MessageEntry(calls("c1")),  # an id that was used before: the tail gives the call another one
    RunEnd("max_tool_calls"),
    RunStart(),
    MessageEntry(UserMessage(text="d")),
)


def test_messages_are_traced_to_their_entries() -> None:
    tail = Tail(THREAD)
    system, summary = SystemMessage(text="Be kind."), UserMessage(text="[summary]")
    messages = [system, summary, *tail.sendable(), UserMessage(text="cut")]
    named = {id(system): "system prompt", id(summary): "summary"}
    assert origins_of(messages, tail, thread="trip", begun=14, named=named) == [
        "system prompt",
        "summary",
        "thread 'trip', entry 2",
        "thread 'trip', entry 3",
        "thread 'trip', entry 7",
        "thread 'trip', entry 8",
        "thread 'trip', entry 11",
        "thread 'trip', entry 12",
        "added or changed before it is sent",
        "prompt",
        "added or changed before it is sent",
    ]


def test_a_history_that_is_handed_over_is_the_prompt() -> None:
    results = ToolMessage(parts=(ToolResult(call_id="c1", text="1"),))
    tail = Tail(log(RunStart(), *map(MessageEntry, (UserMessage(text="a"), calls("c1"), results))))
    assert origins_of(tail.sendable(), tail, thread=None, begun=1) == ["prompt"] * 3
    assert origins_of(tail.sendable(), tail, thread=None, begun=9)[0] == "this thread, entry 2"
