from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait.context.window import ContextWindow, check_room, get_memory_strategy, last_n, strategy_of
from plait.counting import SIMPLE
from plait.errors import ConfigurationError
from plait.messages import AssistantMessage, Message, SystemMessage, ToolCall, ToolMessage, ToolResult, UserMessage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SYSTEM = SystemMessage(text="s")
NAMES = "there is 'last_n', 'first_last', 'token_window', 'simple', 'summary_dropping'"


def turn(number: int, calls: int) -> list[Message]:
    """An answer with so many tool calls and their results; without calls, a plain answer."""
    if not calls:
        return [AssistantMessage(text=f"answer {number}")]
    wanted = [ToolCall(id=f"{number}.{call}", name="f") for call in range(calls)]
    return [
        AssistantMessage(parts=wanted),
        ToolMessage(parts=[ToolResult(call_id=call.id, text="r") for call in wanted]),
    ]


# What follows the system text: a user's message (None), or an answer with so many calls.
steps = st.lists(st.none() | st.integers(0, 2), max_size=20)


def valid_history(system: int, steps: Sequence[int | None]) -> list[Message]:
    made: list[Message] = [SYSTEM] * system
    for number, step in enumerate(steps):
        made += [UserMessage(text=f"user {number}")] if step is None else turn(number, step)
    return made


def is_valid(messages: Sequence[Message]) -> bool:
    roles = [message.role for message in messages]
    if "system" in roles[roles.count("system") :]:
        return False
    expected: list[str] = []
    for message in messages:
        if [result.call_id for result in message.tool_results] != expected:
            return False
        expected = [call.id for call in message.tool_calls]
    return not expected


@given(st.integers(0, 3), steps, st.integers(1, 12))
def test_last_n_of_any_history(system: int, steps: list[int | None], n: int) -> None:
    messages = valid_history(system, steps)
    before = list(messages)
    chosen = list(last_n(n=n).choose(messages))
    assert messages == before
    assert is_valid(chosen)
    assert [message for message in messages if message in chosen] == chosen, "in order, and nothing is made up"
    assert chosen[:system] == [SYSTEM] * system
    users = [message for message in messages if message.role == "user"]
    assert not users or users[-1] in chosen
    if messages:
        assert chosen[-1] == messages[-1], "where the thread is now is never left out"
    last, others = messages[system:][-n:], chosen[system:]
    assert len(others) <= n + 1 + (n == 1)
    assert [message for message in others if message not in last] in (
        [],
        users[-1:],
        messages[-2:-1] if n == 1 else [],
        [*users[-1:], *messages[-2:-1]] if n == 1 else [],
    )
    left_out = [message for message in last if message not in others]
    assert left_out in ([], last[:1])
    assert all(message.role == "tool" for message in left_out), "only results that have lost their call"


def test_a_short_history_is_sent_as_it_is() -> None:
    messages = valid_history(2, [None, 1, 0])
    assert last_n(n=4).choose(messages) == messages
    assert last_n().choose([]) == []


def test_system_text_is_extra() -> None:
    messages = valid_history(3, [None, 0, None, 0])
    assert last_n(n=2).choose(messages) == [SYSTEM, SYSTEM, SYSTEM, *messages[-2:]]
    only = [SYSTEM] * 5
    assert last_n(n=1).choose(only) == only


def test_results_that_lost_their_call_go_with_it() -> None:
    user, call, results, answer, again = valid_history(0, [None, 1, 0, None])
    assert last_n(n=3).choose([user, call, results, answer, again]) == [answer, again]
    assert last_n(n=4).choose([user, call, results, answer, again]) == [call, results, answer, again]


def test_the_newest_user_message_stays() -> None:
    user, first, results, second, more = valid_history(1, [None, 2, 1])[1:]
    assert last_n(n=2).choose([SYSTEM, user, first, results, second, more]) == [SYSTEM, user, second, more]


def test_the_last_call_and_its_results_stay() -> None:
    """Without them the model would only call again."""
    user, call, results = valid_history(0, [None, 1])
    assert last_n(n=1).choose([user, call, results]) == [user, call, results]
    assert last_n(n=1).choose([UserMessage(text="old"), user, call, results]) == [user, call, results]


# --- by name ---


def test_strategies_by_name() -> None:
    assert get_memory_strategy("last_n", n=3) == last_n(n=3)
    assert get_memory_strategy("last_n") == last_n(n=20)
    assert strategy_of("last_n", {"n": 3}) == last_n(n=3)
    assert strategy_of("last_n", None) == last_n()
    assert get_memory_strategy("last_n", n=3) == ContextWindow(last=3, dropped_note=None)
    assert get_memory_strategy("first_last") == ContextWindow(first=2, last=10, dropped_note=None)
    assert get_memory_strategy("token_window") == ContextWindow(max_tokens=100_000)
    assert get_memory_strategy("simple", max_tokens=500, last=4, max_tokens_per_message=50, keep_tool_calls=False) == (
        ContextWindow(max_tokens=500, last=4, max_tokens_per_message=50, keep_tool_calls=False)
    )
    summary = get_memory_strategy("summary_dropping", summary_tokens=500)
    assert summary == ContextWindow(max_tokens=100_000, dropping="summary", summary_tokens=500)
    own = last_n(n=2)
    assert strategy_of(own, None) is strategy_of(own, {}) is own


async def test_build_gives_what_is_sent_with_a_system_prompt() -> None:
    said = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    built = await get_memory_strategy("last_n", n=1).build(said, "s")
    assert built == [SYSTEM, UserMessage(text="c")]
    long = [UserMessage(text="x" * 100), AssistantMessage(text="y" * 100), UserMessage(text="z" * 100)]
    window = ContextWindow(dropping="summary", max_tokens=1000, dropped_note=None, overflow_note=None)
    assert await window.build(long) == long
    assert await window.build(long, max_tokens=40) == long[2:]


def test_tool_calls_of_earlier_runs() -> None:
    messages = valid_history(0, [None, 1, 0, None, 1])
    window = ContextWindow(keep_tool_calls=False)
    assert window.choose(messages) == [messages[0], *messages[3:]]


def test_a_window_without_room_is_refused() -> None:
    window = ContextWindow(max_tokens=100, dropped_note=None, overflow_note=None)
    check_room(window, SIMPLE, 68)
    check_room(ContextWindow(), SIMPLE, 10**9)
    with pytest.raises(ConfigurationError) as raised:
        check_room(window, SIMPLE, 69)
    assert str(raised.value) == (
        "system prompt, tools and notes take 69 tokens, and at most 100 may be sent: there is no room for messages; "
        "let more be sent, or say less"
    )


def test_a_strategy_of_ones_own() -> None:
    class Newest:
        def choose(self, messages: Sequence[Message]) -> Sequence[Message]:
            return messages[-1:]

    own = Newest()
    assert strategy_of(own, None) is own


@pytest.mark.parametrize(
    ("make", "args", "params", "sentence"),
    [
        (last_n, [], {"n": 0}, "memory strategy 'last_n' takes n as a whole number of at least 1, not 0"),
        (last_n, [], {"n": True}, "memory strategy 'last_n' takes n as a whole number of at least 1, not True"),
        (
            get_memory_strategy,
            ["last_n"],
            {"n": "many"},
            "memory strategy 'last_n' takes n as a whole number of at least 1, not str",
        ),
        (get_memory_strategy, ["last_n"], {"m": 3}, "memory strategy 'last_n' has no parameter 'm'; it takes n"),
        (get_memory_strategy, ["newest"], {}, f"there is no memory strategy 'newest'; {NAMES}"),
        (get_memory_strategy, [["last_n"]], {}, f"there is no memory strategy list; {NAMES}"),
        (
            get_memory_strategy,
            ["first_last"],
            {"last": 0},
            "memory strategy 'first_last' takes last as a whole number of at least 1, not 0",
        ),
        (
            get_memory_strategy,
            ["token_window"],
            {"n": 3},
            "memory strategy 'token_window' has no parameter 'n'; it takes max_tokens, counting",
        ),
        (
            strategy_of,
            [3, None],
            {},
            "memory_strategy must be a name such as 'last_n', or an object with choose(), not int",
        ),
        (
            strategy_of,
            ["last_n", [3]],
            {},
            "memory_params must be a mapping of names to values, such as {'n': 20}, not list",
        ),
        (
            strategy_of,
            ["last_n", {3: 3}],
            {},
            "memory_params must be a mapping of names to values, such as {'n': 20}, not dict",
        ),
        (
            strategy_of,
            [last_n(), {"n": 3}],
            {},
            "memory_params belong to a memory_strategy given by name; give these to the object itself",
        ),
    ],
)
def test_wrong_strategies_are_refused(
    make: Callable[..., Any], args: list[Any], params: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigurationError) as raised:
        make(*args, **params)
    assert str(raised.value) == sentence


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        (
            {"max_tokens": 1000, "max_tokens_per_message": 2000},
            (
                "max_tokens_per_message is 2000 and max_tokens only 1000: one message would be larger than all that "
                "may be sent; make it the smaller of the two"
            ),
        ),
        (
            {"max_tokens": 1000, "summary_tokens": 501},
            (
                "summary_tokens is 501 and max_tokens only 1000: a summary may take half of what may be sent at most; "
                "make it smaller"
            ),
        ),
        (
            {"max_tokens": 255, "dropping": "summary"},
            "max_tokens is 255, and summaries need at least 256; raise it, or let dropping be 'simple'",
        ),
        (
            {"dropping": "summary"},
            "with neither last nor max_tokens nothing is left out that could be summarised; give one of them",
        ),
        ({"first": -1}, "a context window takes first as a whole number of at least 0, not -1"),
        ({"max_tokens": 31}, "a context window takes max_tokens as a whole number of at least 32, not 31"),
        ({"max_tokens": "9"}, "a context window takes max_tokens as a whole number of at least 32, not str"),
        ({"dropping": "all"}, "a context window takes dropping as 'simple' or 'summary', not 'all'"),
        ({"trim_to": 0}, "a context window takes trim_to as a number above 0 and at most 1, not 0"),
        ({"trim_to": True}, "a context window takes trim_to as a number above 0 and at most 1, not True"),
        ({"keep_tool_calls": 1}, "a context window takes keep_tool_calls as True or False, not 1"),
        ({"dropped_note": 1}, "a context window takes dropped_note as a text, or None for no note, not int"),
    ],
)
def test_impossible_windows_are_refused(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        ContextWindow(**fields)
    assert str(raised.value) == sentence


def test_what_is_not_said_of_summaries() -> None:
    assert ContextWindow(max_tokens=4000).summary_bound == 0
    windows = [ContextWindow(dropping="summary", last=9, max_tokens=most) for most in (4000, 90_000, None)]
    assert [(window.summary_bound, window.share) for window in windows] == [(500, 0.5), (1000, 0.5), (1000, 0.5)]
    assert ContextWindow().share == 1.0
