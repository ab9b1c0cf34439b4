"""Where a request parts from the one before it, and that the requests of a thread never part without a reason."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait.messages import (
    AssistantMessage,
    ImagePart,
    Message,
    SystemMessage,
    TextPart,
    ToolCall,
    ToolMessage,
    ToolResult,
    UserMessage,
)
from plait.plain import FrozenDict
from plait.prefixes import PrefixChange, first_change
from plait.providers.anthropic import AnthropicProvider
from plait.providers.base import Request, Settings, ToolDefinition
from plait.providers.chat import ChatProvider
from plait.providers.encoding import Encoded, encoded
from plait.providers.offline import OfflineProvider
from plait.providers.ollama import OllamaProvider
from plait.providers.responses import ResponsesProvider
from plait.schema import output_schema

if TYPE_CHECKING:
    from collections.abc import Sequence

    from plait.providers.base import Provider

PROVIDERS: Final[dict[str, Provider]] = {
    "chat": ChatProvider("gpt-4o", api_key="sk-1234567"),
    "openrouter": ChatProvider("some/model", name="openrouter", api_key="sk-1234567"),
    "responses": ResponsesProvider("gpt-5", api_key="sk-1234567"),
    "anthropic": AnthropicProvider("claude-sonnet-4-5", api_key="sk-1234567"),
    "ollama": OllamaProvider("llama3.2"),
    "offline": OfflineProvider(),
}
ADD: Final = ToolDefinition(name="add", description="Adds.")
SUB: Final = ToolDefinition(name="sub", description="Subtracts.")
PNG: Final = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\0IEND\xaeB`\x82"


def bare(body: bytes, *spans: tuple[int, int], prefix: int | None = None) -> Encoded:
    return Encoded(provider="p", model="m", body=body, prefix=len(body) if prefix is None else prefix, spans=spans)


# --- the function ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "change"),
    [
        (b"", b"", None),
        (b"abc", b"abc", None),
        (b"abc", b"abcdef", None),
        (b"abc", b"", PrefixChange(at=0, before="abc", after="")),
        (b"abc", b"ab", PrefixChange(at=2, before="abc", after="ab")),
        (b"abc", b"xbc", PrefixChange(at=0, before="abc", after="xbc")),
        (b"abcd", b"abxd", PrefixChange(at=2, before="abcd", after="abxd")),
        (b"abcd", b"abcx", PrefixChange(at=3, before="abcd", after="abcx")),
    ],
)
def test_the_first_byte_that_differs_is_named(before: bytes, after: bytes, change: PrefixChange | None) -> None:
    assert first_change(bare(before), bare(after)) == change


def test_what_stands_behind_the_prefix_may_change() -> None:
    assert first_change(bare(b"abc,1", prefix=3), bare(b"abc,2")) is None


@given(st.binary(max_size=300), st.binary(max_size=300), st.integers(0, 300))
def test_it_is_the_first_one_and_all_before_it_is_the_same(one: bytes, other: bytes, common: int) -> None:
    other = one[:common] + other
    change = first_change(bare(one), bare(other))
    if change is None:
        assert other[: len(one)] == one
    else:
        assert one[: change.at] == other[: change.at]
        assert one[change.at : change.at + 1] != other[change.at : change.at + 1]


def test_a_change_in_megabytes_is_found_and_shown_with_what_stands_round_it() -> None:
    start = b"x" * 5_000_000
    one, other = start + "…ä€ before".encode() + b"y" * 1_000_000, start + "…ä€ after\n\x1b[31m".encode() + start
    change = first_change(bare(one), bare(other))
    assert change is not None
    assert change.at == len(start) + len("…ä€ ".encode())
    assert (change.before, change.after) == (
        f"xxxxxxx…ä€ before{'y' * 22}…",
        "xxxxxxx…ä€ after \\x1b[31mxxxxxxxxxxxxxx…",
    )
    assert len(change.before) == len(change.after) == 40


def test_an_excerpt_begins_with_a_whole_character() -> None:
    change = first_change(bare("€".encode() * 20 + b"a"), bare("€".encode() * 20 + b"b"))
    assert change == PrefixChange(at=60, before="€€€€€a", after="€€€€€b")


@pytest.mark.parametrize(("at", "message"), [(0, None), (4, None), (5, 0), (7, 0), (8, 2), (9, 2), (12, 2)])
def test_the_message_of_a_byte_is_named_and_a_comma_belongs_to_what_follows_it(at: int, message: int | None) -> None:
    body = b"head[aaa,bbbb"
    other = body[:at] + b"!" + body[at + 1 :]
    change = first_change(bare(body, (5, 8), (9, 9), (9, 13)), bare(other))
    assert change is not None
    assert (change.at, change.message) == (at, message)


def test_it_says_so_in_a_sentence() -> None:
    change = PrefixChange(at=7, message=2, before="a", after="b")
    assert str(change) == "the prefix changed at byte 7, in message 2: 'a' became 'b'"
    change = PrefixChange(at=7, before="a", after="b")
    assert str(change) == "the prefix changed at byte 7, before the messages: 'a' became 'b'"


# --- the requests of a thread ----------------------------------------------------------------------------------------

Turn = tuple[str, str, str]
TURNS: Final = st.lists(
    st.tuples(st.sampled_from(["text", "tools", "image", "nothing"]), st.text(max_size=20), st.text(max_size=20)),
    min_size=1,
    max_size=6,
)
HOW: Final[st.SearchStrategy[dict[str, Any]]] = st.fixed_dictionaries(
    {},
    optional={"max_tokens": st.integers(1, 9_999), "temperature": st.sampled_from([0.0, 1.0]), "top_p": st.just(0.5)},
)


def said(number: int, turn: Turn) -> list[Message]:
    """One turn of a conversation: a prompt, perhaps with calls and their results, and an answer."""
    kind, prompt, answer = turn
    messages: list[Message] = [UserMessage(text=prompt or "?")]
    if kind == "image":
        messages = [UserMessage(parts=(TextPart(text=prompt or "?"), ImagePart(data=PNG)))]
    if kind == "tools":
        call = ToolCall(id="call", name="add", arguments=f'{{"n":{number}}}')
        messages += [AssistantMessage(parts=(call,)), ToolMessage(parts=(ToolResult(call_id="call", text=answer),))]
    return [*messages, AssistantMessage(text="" if kind == "nothing" else answer or "!", provider="anthropic")]


@pytest.mark.parametrize("name", PROVIDERS)
@given(turns=TURNS, system=st.booleans(), cache=st.sampled_from([None, True, "1h"]), data=st.data())
def test_the_requests_of_a_thread_never_part(
    name: str, turns: list[Turn], system: bool, cache: Any, data: st.DataObject
) -> None:
    thread: list[Message] = [SystemMessage(text="Be kind.")] if system else []
    before = None
    for number, turn in enumerate(turns):
        messages = said(number, turn)
        for end in range(1, len(messages) + 1):
            if messages[end - 1].role == "assistant":
                continue
            how = data.draw(HOW)
            request = Request(
                messages=[*thread, *messages[:end]],
                tools=[ADD, SUB],
                settings=Settings(cache=cache, **how),
                stream=data.draw(st.booleans()),
                earlier=len(thread),
            )
            after = encoded(PROVIDERS[name], request)
            if before is not None:
                assert first_change(before, after) is None
            before = after
        thread += messages


@pytest.mark.parametrize("mode", ["native", "tool", "prompt"])
@pytest.mark.parametrize("name", PROVIDERS)
def test_nor_do_those_that_ask_for_an_output(name: str, mode: Any) -> None:
    if (name, mode) == ("ollama", "tool"):
        return  # which it cannot do
    output, thread = output_schema(list[int]), said(1, ("tools", "a", "b"))
    settings = Settings(output_mode=mode)
    before, after = (
        encoded(PROVIDERS[name], Request(messages=thread[:end], tools=[ADD], output=output, settings=settings))
        for end in (1, 3)
    )
    assert first_change(before, after) is None


@pytest.mark.parametrize("name", [name for name in PROVIDERS if name not in ("ollama", "anthropic")])
def test_a_tool_that_must_be_called_only_in_the_first_turn_costs_no_cache(name: str) -> None:
    thread = said(1, ("tools", "a", "b"))
    before, after = (
        encoded(PROVIDERS[name], Request(messages=thread[:end], tools=[ADD], settings=Settings(tool_choice=choice)))
        for end, choice in ((1, "required"), (3, None))
    )
    assert first_change(before, after) is None


def test_on_anthropic_it_does_and_it_is_said() -> None:
    thread = said(1, ("tools", "a", "b"))
    before, after = (
        encoded(
            PROVIDERS["anthropic"], Request(messages=thread[:end], tools=[ADD], settings=Settings(tool_choice=choice))
        )
        for end, choice in ((1, "required"), (3, None))
    )
    change = first_change(before, after)
    assert change is not None
    assert (change.message, before.body[change.at :].startswith(b'tool_choice":{"type":"any"}')) == (None, True)


THREAD: Final[tuple[Message, ...]] = (
    SystemMessage(text="Be kind."),
    UserMessage(text="first"),
    AssistantMessage(text="second"),
    UserMessage(text="third"),
)


def changed(name: str, one: Request, other: Request) -> tuple[int | None, bytes, bytes]:
    """What differs first: the message, and what both have from there on."""
    before, after = encoded(PROVIDERS[name], one), encoded(PROVIDERS[name], other)
    change = first_change(before, after)
    assert change is not None
    assert before.body[: change.at] == after.body[: change.at]
    return change.message, before.body[change.at :][:8], after.body[change.at :][:8]


@pytest.mark.parametrize("name", PROVIDERS)
def test_other_system_text_is_a_change_of_its_message(name: str) -> None:
    request = Request(messages=THREAD, tools=[ADD])
    other = replace(request, messages=[SystemMessage(text="Be kinder."), *THREAD[1:]])
    assert changed(name, request, other)[0] == 0
    assert [part[:1] for part in changed(name, request, other)[1:]] == [b".", b"e"]


@pytest.mark.parametrize("name", PROVIDERS)
@pytest.mark.parametrize(
    ("tools", "parts"), [([SUB, ADD], [b"sub", b"add"]), ([ADD, SUB], [b"]", b","]), ([ADD, ADD], [b"]", b","])]
)
def test_other_tools_or_another_order_are_a_change_before_the_messages(
    name: str, tools: Sequence[ToolDefinition], parts: list[bytes]
) -> None:
    request = Request(messages=THREAD, tools=[ADD])
    message, *found = changed(name, request, replace(request, tools=tools))
    expected = parts if parts[0] == b"]" else parts[::-1]
    assert message is None
    assert [one.startswith(start) for one, start in zip(found, expected, strict=True)] == [True, True]


@pytest.mark.parametrize("name", PROVIDERS)
@pytest.mark.parametrize("dropped", [1, 2, 3])
def test_a_message_that_is_left_out_is_named(name: str, dropped: int) -> None:
    request = Request(messages=THREAD, tools=[ADD])
    others = [message for number, message in enumerate(THREAD) if number != dropped]
    assert changed(name, request, replace(request, messages=others))[0] == dropped


@pytest.mark.parametrize("name", PROVIDERS)
def test_all_messages_but_the_newest_left_out(name: str) -> None:
    request = Request(messages=THREAD)
    message, before, after = changed(name, request, replace(request, messages=[THREAD[0], THREAD[3]]))
    assert (message, before[:5], after[:5]) == (1, b"first", b"third")


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_part_of_the_prompt_that_the_caller_changes_is_a_change_before_the_messages(name: str) -> None:
    request = Request(messages=THREAD, settings=Settings(extra=FrozenDict({"thinking": 1})))
    other = replace(request, settings=Settings(extra=FrozenDict({"thinking": 2})))
    if name == "offline":  # it has no words for what only a dialect has
        assert first_change(encoded(PROVIDERS[name], request), encoded(PROVIDERS[name], other)) is None
    else:
        message, before, after = changed(name, request, other)
        assert (message, before[:1], after[:1]) == (None, b"1", b"2")
