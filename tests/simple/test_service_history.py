"""Histories as services keep them: plain JSON that says the same to a model, whoever wrote it."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait import AsyncOpenAISimpleAgent, ConfigurationError, MemoryStore, OfflineProvider, get_provider
from plait.context.summaries import summary_message
from plait.entries import ContextNote, MessageEntry, entry
from plait.log import history as view_of_history
from plait.messages import (
    AssistantMessage,
    ImagePart,
    Message,
    ReasoningPart,
    ServerToolPart,
    SystemMessage,
    TextPart,
    ToolCall,
    ToolMessage,
    ToolResult,
    UserMessage,
)
from plait.providers.base import Request
from plait.providers.encoding import encoded
from plait.simple.history import read_history, shown
from plait.testing import FaultServer
from test_examples import ABOUT_WEATHER, replies_of, variables_for
from test_recorded_runs import FAMILIES, conversations

if TYPE_CHECKING:
    from pathlib import Path

    from plait.providers.base import Provider

PNG: Final = b"\x89PNG\r\n\x1a\n" + b"\0" * 12 + b"IEND\xaeB`\x82"
PROVIDERS: Final = {
    name: get_provider(name, model="any", api_key="k") for name in ("openai", "anthropic", "ollama", "openrouter")
} | {"offline": OfflineProvider(), "responses": get_provider("openai-responses", model="any", api_key="k")}


def through_json(messages: list[Message]) -> tuple[Message, ...]:
    """Write a history, send it as JSON, and read it again."""
    return read_history(json.loads(json.dumps(shown(messages))), "openai").messages


def body(provider: Provider, messages: Any) -> bytes:
    return encoded(provider, Request(messages=messages)).body


# --- any conversation -------------------------------------------------------------------------------------------------

words = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
texts = words.map(lambda text: TextPart(text=text))
images = st.sampled_from([ImagePart(data=PNG), ImagePart(url="https://example.org/a.png", detail="low")])
prompts = st.builds(lambda parts: UserMessage(parts=parts), st.lists(texts | images, min_size=1, max_size=3))
system = words.map(lambda text: SystemMessage(text=text))
plain_json = st.recursive(st.none() | st.booleans() | st.integers() | words, lambda inner: st.lists(inner, max_size=2))
arguments = (
    st.dictionaries(words, plain_json, max_size=3).map(json.dumps)
    | st.dictionaries(words, plain_json, max_size=3).map(lambda said: json.dumps(said, ensure_ascii=False))
    | st.sampled_from(["", "{}", " { } ", '{"a":1e2}', '{"a":1,"a":2}', "[1]", '{"a": ', "no JSON", '"text"', "null"])
    | words
)
THOUGHTS: Final = {
    "anthropic": [
        ReasoningPart(text="Hm", details={"signature": "sig=="}),
        ReasoningPart(details={"type": "redacted_thinking", "data": "c2VjcmV0"}),
    ],
    "openai-responses": [
        ReasoningPart(text="Hm", details={"id": "rs_1", "type": "reasoning", "encrypted_content": "x"})
    ],
    "ollama": [ReasoningPart(text="Hm")],
    "openai": [ReasoningPart(text="Hm")],
    "openrouter": [ReasoningPart(text="Hm")],
}
DETAILS: Final = {"openrouter": {"reasoning_details": [{"type": "reasoning.encrypted", "data": "abc", "index": 0}]}}
CITED: Final = TextPart(text="As said", details={"citations": [{"type": "char_location", "cited_text": "x"}]})
SEARCHED: Final = ServerToolPart(name="web_search", details={"type": "server_tool_use", "id": "s", "input": {}})


@st.composite
def turns(draw: st.DrawFn) -> list[Message]:
    """What one model says after a prompt: calls with their results, and a text; thoughts and fields of its own."""
    provider = draw(st.sampled_from([None, *THOUGHTS]))
    more: dict[str, Any] = {"provider": provider, "model": "any"} if provider else {}
    made: list[Message] = []
    for _ in range(draw(st.integers(0, 2))):
        count = draw(st.integers(1, 3))
        calls = [
            ToolCall(
                id=f"call_{draw(st.integers(0, 10**9))}_{len(made)}_{number}",
                name=draw(st.sampled_from(["f", "get_weather"])),
                arguments=draw(arguments),
                details=draw(st.sampled_from([{}, {"caller": {"type": "direct"}}])),
            )
            for number in range(count)
        ]
        said = draw(st.lists(texts | st.just(CITED), max_size=2))
        thoughts = draw(st.lists(st.sampled_from(THOUGHTS[provider]), max_size=2)) if provider else []
        details = draw(st.sampled_from([{}, DETAILS.get(provider or "", {})]))
        made.append(AssistantMessage(parts=[*thoughts, *said, *calls], details=details, **more))
        results = [
            ToolResult(
                call_id=call.id,
                name=call.name,
                parts=draw(st.just(()) | st.lists(texts | images, min_size=1, max_size=2)),
                is_error=draw(st.booleans()),
            )
            for call in calls
        ]
        made.append(ToolMessage(parts=results))
    last = draw(st.lists(texts, min_size=1, max_size=2))
    if provider == "anthropic":
        last += draw(st.lists(st.sampled_from([CITED, SEARCHED]), max_size=1))
    if draw(st.booleans()):
        last = [TextPart(text="I will not.", refusal=True)]
    return [*made, AssistantMessage(parts=last, **more)]


@st.composite
def any_conversation(draw: st.DrawFn) -> list[Message]:
    made: list[Message] = draw(st.lists(system, max_size=1))
    for _ in range(draw(st.integers(1, 3))):
        made += [draw(prompts), *draw(turns())]
    log = [entry(number, MessageEntry(message), "run") for number, message in enumerate(made, 1)]
    return view_of_history(log)  # as runs give it: ids are unique, and each call has its result


@given(any_conversation())
def test_what_is_read_again_says_the_same_to_every_model(messages: list[Message]) -> None:
    before = deepcopy(messages)
    again = through_json(messages)
    for name, provider in PROVIDERS.items():
        assert body(provider, again) == body(provider, messages), name
    assert messages == before
    assert shown(again) == shown(messages)


@given(any_conversation())
def test_a_history_is_what_people_read(messages: list[Message]) -> None:
    entries = shown(messages)
    said = [(message.role, message.text) for message in messages if message.role != "tool" and message.text]
    calls = [call for message in messages for call in message.tool_calls]
    results = [result for message in messages for result in message.tool_results]
    functions = [one for one in entries if one["role"] == "function"]
    assert [(one["role"], one["content"]) for one in entries if one["role"] != "function" and one["content"]] == said
    assert [(one["content"], one["id"]) for one in functions] == [(call.name, call.id) for call in calls]
    assert [(one["result"], one.get("is_error", False)) for one in functions] == [
        (result.text, result.is_error) for result in results
    ]


@pytest.mark.parametrize("family", ABOUT_WEATHER)
async def test_what_models_thought_goes_back_through_json(shared: Path, family: str, monkeypatch: Any) -> None:
    """Recorded answers with signatures and encrypted thoughts: the next message begins with what was sent before."""
    wanted = f"{family}/{ABOUT_WEATHER[family]}"
    (recorded,) = (one for one in conversations(shared, family) if one.scenario == wanted)
    provider, model = FAMILIES[family].provider, recorded.bodies[0]["model"]
    called = iter(recorded.results)
    hooks = {"on_token_received": lambda event: None}  # so that answers are asked for as streams, as recorded

    def get_weather(city: str) -> str:
        """Say the weather."""
        return next(called)

    with FaultServer(*replies_of(recorded), "You are welcome.") as server:
        for name, value in variables_for(provider, server).items():
            monkeypatch.setenv(name, value)
        agent = AsyncOpenAISimpleAgent("W", provider=f"{provider}:{model}", tool_registry=[get_weather], hooks=hooks)
        first = await agent.send_message(recorded.prompts[0].text)
        history = json.loads(json.dumps(first.history))
        second = await agent.send_message("Thanks!", history=history)
        *before, last = server.requests
    thread = FAMILIES[family].thread
    sent, again = before[-1][thread], last[thread]
    assert again[: len(sent)] == sent
    assert (first.stop_reason, second.output) == ("response", "You are welcome.")
    assert second.history[: len(first.history)] == first.history == history


# --- histories that were written by hand ------------------------------------------------------------------------------

HAND_WRITTEN: Final[list[dict[str, Any]]] = [
    {"role": "user", "content": "what is the weather in tokyo"},
    {"role": "function", "content": "get_weather", "args": {"city": "tokyo"}},
    {"role": "assistant", "content": "the weather in tokyo is sunny"},
]
OPENAI: Final[list[dict[str, Any]]] = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": [{"type": "text", "text": "Both?"}]},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}},
            {"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
        ],
    },
    {"role": "tool", "tool_call_id": "a", "content": "one"},
    {"role": "tool", "tool_call_id": "b", "content": "two"},
    {"role": "assistant", "content": "Both."},
]
SAID: Final = {
    "role": "assistant",
    "content": "",
    "said": AssistantMessage(parts=[ToolCall(id="a", name="f")]).to_json(),
}


def test_a_call_without_a_result_has_one_that_says_so() -> None:
    before = deepcopy(HAND_WRITTEN)
    asked, called, gave, said = read_history(HAND_WRITTEN, "openai").messages
    assert [asked, said] == [
        UserMessage(text=HAND_WRITTEN[0]["content"]),
        AssistantMessage(text=HAND_WRITTEN[2]["content"]),
    ]
    (call,), (result,) = called.tool_calls, gave.tool_results
    assert (call.name, call.arguments) == ("get_weather", '{"city": "tokyo"}')
    assert (result.call_id, result.text) == (call.id, "(The result of this call was not kept.)")
    assert before == HAND_WRITTEN


def test_functions_that_stand_together_were_called_together_unless_their_turns_differ() -> None:
    def functions(*turns: int | None) -> list[int]:
        given = [
            {"role": "function", "content": "f", "args": {"n": n}, "result": str(n)}
            | ({} if t is None else {"turn": t})
            for n, t in enumerate(turns)
        ]
        return [len(message.tool_calls) for message in read_history(given, "openai").messages if message.tool_calls]

    assert functions(None, None) == [2]
    assert functions(1, 1, 2) == [2, 1]
    assert functions(1, 2, None) == [1, 2]


def test_the_form_of_openai_is_read_too() -> None:
    before = deepcopy(OPENAI)
    messages = read_history(OPENAI, "openai").messages
    assert [message.role for message in messages] == ["system", "user", "assistant", "tool", "assistant"]
    assert [(result.call_id, result.text) for result in messages[3].tool_results] == [("a", "one"), ("b", "two")]
    assert before == OPENAI
    assert shown(messages)[2:4] == [
        {"role": "function", "content": "f", "id": "a", "args": {"x": 1}, "turn": 1, "result": "one"},
        {"role": "function", "content": "g", "id": "b", "args": {}, "turn": 1, "result": "two"},
    ]


def test_forms_may_be_mixed() -> None:
    given = (UserMessage(text="One"), {"role": "assistant", "content": "1"}, *HAND_WRITTEN, *OPENAI[1:])
    messages = read_history(given, "openai").messages
    assert [message.role for message in messages] == [
        *("user", "assistant"),
        *("user", "assistant", "tool", "assistant"),
        *("user", "assistant", "tool", "assistant"),
    ]
    assert messages[0] is given[0]


def test_a_text_that_somebody_changed_is_what_is_sent() -> None:
    said = AssistantMessage(parts=[TextPart(text="Ada", details={"citations": [1]})], provider="anthropic")
    (made,) = shown([said])
    assert read_history([made], "openai").messages == (said,)
    assert read_history([made | {"content": "[name]"}], "openai").messages == (AssistantMessage(text="[name]"),)


@pytest.mark.parametrize(
    ("history", "sentence"),
    [
        ("Hi", "history is a list of messages, oldest first, such as response.history; not str"),
        ({"role": "user", "content": "Hi"}, "history is a list of messages, oldest first, .*; not dict"),
        (iter([]), "history is a list of messages, oldest first, .*; not list_iterator"),
        ([4], r"history\[0\] is of type int; a message is a dict such as {'role': 'user', 'content': 'Hello'}"),
        ([*HAND_WRITTEN, {"role": "bot"}], r"history\[3\] has the role 'bot'; the roles are .*, function, summary"),
        ([*HAND_WRITTEN, {"role": "user"}], r"history\[3\] has no content; give it a text, or a list of parts"),
        ([{"role": "user", "content": "Hi", "to": "you"}], r"history\[0\] has a field 'to', which .*; leave it out"),
        ([{"role": "function"}], r"history\[0\]\['content'\] is the name of the function, a text, not None"),
        ([{"role": "function", "content": "f", "x": 1}], r"history\[0\] has a field 'x', which .* leave it out: a fun"),
        ([*HAND_WRITTEN, {"role": "summary"}], r"history\[3\]\['content'\] is the text of the summary, not None"),
        ([{"role": "summary", "content": "x", "n": 1}], r"history\[0\] has a field 'n', which .*: a summary has"),
        ([{"role": "function", "content": "f", "args": []}], r"\['args'\] is a dict of the function's arguments"),
        ([{"role": "function", "content": "f", "args": {"x": {1}}}], r"\['args'\] holds something that is no JSON"),
        ([{"role": "function", "content": "f", "result": 4}], r"\['result'\] is the text that the function gave"),
        ([{"role": "function", "content": "f", "parts": 4}], r"history\[0\]\['parts'\] cannot be read: "),
        ([{"role": "user", "content": "Hi", "said": 4}], r"\['said'\] is a message as Message.to_json gives it"),
        ([{"role": "user", "content": "", "said": {"parts": 4}}], r"history\[0\]\['said'\] cannot be read: "),
        (OPENAI[:3], r"history\[2\] has the call 'a', which has no result: after a message with tool_calls"),
        ([*HAND_WRITTEN, *OPENAI[1:4]], r"history\[4\] has the call 'b', which has no result"),
        ([*HAND_WRITTEN, OPENAI[0], SAID], r"history\[4\] has the call 'a', which has no result"),
        ([*OPENAI[:3], {"role": "summary", "content": "x"}, *OPENAI[3:]], r"history\[2\] has the call 'a', which"),
        ([*HAND_WRITTEN, OPENAI[3]], r"history\[3\] has a result of the call 'a', and no such call is in the"),
    ],
)  # fmt: skip
async def test_what_cannot_be_read_is_said(history: Any, sentence: str) -> None:
    model = OfflineProvider(["never"])
    with pytest.raises(ConfigurationError, match=sentence):
        await AsyncOpenAISimpleAgent(provider=model).send_message("Hi", history=history)
    assert model.requests == []


# --- summaries --------------------------------------------------------------------------------------------------------


def counting_summaries(asked: list[int]) -> OfflineProvider:
    """Give a model that counts what it is asked to sum up."""

    def answer(request: Request) -> str:
        if "Write down what it needs" not in request.messages[0].text:
            return f"Answer to {request.messages[-1].text}"
        asked.append(len(request.messages[1].text))
        return f"Summary {len(asked)}."

    return OfflineProvider(function=answer)


WINDOWS: Final[list[dict[str, Any]]] = [
    {"max_messages_in_context": 6},
    {"max_context_length": 300},
    {"max_messages_in_context": 8, "max_context_length": 400, "keep_function_calls_in_context": False},
]


@pytest.mark.parametrize("window", WINDOWS)
async def test_a_summary_goes_with_the_history_and_is_made_once(window: dict[str, Any]) -> None:
    summaries: dict[str, list[int]] = {"history": [], "store": []}
    sent: dict[str, list[Any]] = {}
    for kept, asked in summaries.items():
        model = counting_summaries(asked)
        store = MemoryStore() if kept == "store" else None
        agent = AsyncOpenAISimpleAgent(provider=model, dropping_strategy="summary_dropping", store=store, **window)
        history: list[dict[str, Any]] | None = None if store else []
        response = await agent.send_message("Question?", history, chat_id="1")
        for number in range(1, 30):
            history = None if store else json.loads(json.dumps(response.history))
            response = await agent.send_message(f"Question {number}? " + "Well? " * 8, history, chat_id="1")
        sent[kept] = [[message.text for message in request.messages] for request in model.requests]
        assert [one["content"] for one in response.history if one["role"] == "summary"] == [f"Summary {len(asked)}."]
        assert [one["role"] for one in response.history_without_function_calls] == ["user", "assistant"] * 30
    assert sent["history"] == sent["store"]
    assert summaries["history"] == summaries["store"]
    assert 2 < len(summaries["store"]) < 20


def test_a_summary_stands_behind_what_it_stands_for() -> None:
    written = [*HAND_WRITTEN, {"role": "summary", "content": "Sunny."}, {"role": "user", "content": "And Rome?"}]
    read = read_history(written, "openai")
    assert read.summary == ContextNote(by="summary", summary="Sunny.", first=1, last=4)
    assert shown(read.messages, read.summary, 4)[3:] == written[3:]
    later = read_history([*written, {"role": "summary", "content": "Rome, too."}], "openai")
    assert later.summary == ContextNote(by="summary", summary="Rome, too.", first=1, last=5)


async def test_a_summary_is_sent_in_place_of_what_was_taken_away() -> None:
    model = OfflineProvider(["Yes."])
    agent = AsyncOpenAISimpleAgent(provider=model)
    history = [{"role": "summary", "content": "Tea."}, {"role": "assistant", "content": "Tea it is."}]
    response = await agent.send_message("Sure?", history)
    said = [message.text for message in model.requests[0].messages]
    assert said == [summary_message("Tea.").text, "Tea it is.", "Sure?"]
    assert read_history(response.history, "openai").messages[0] == summary_message("Tea.")
