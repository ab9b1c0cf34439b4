from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait.context import LastN, get_memory_strategy, strategy_of
from plait.errors import ConfigurationError
from plait.messages import AssistantMessage, Message, SystemMessage, ToolCall, ToolMessage, ToolResult, UserMessage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SYSTEM = SystemMessage(text="s")


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
    chosen = list(LastN(n=n).choose(messages))
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
    assert LastN(n=4).choose(messages) is messages
    assert LastN().choose([]) == []


def test_system_text_is_extra() -> None:
    messages = valid_history(3, [None, 0, None, 0])
    assert LastN(n=2).choose(messages) == [SYSTEM, SYSTEM, SYSTEM, *messages[-2:]]
    only = [SYSTEM] * 5
    assert LastN(n=1).choose(only) == only


def test_results_that_lost_their_call_go_with_it() -> None:
    user, call, results, answer, again = valid_history(0, [None, 1, 0, None])
    assert LastN(n=3).choose([user, call, results, answer, again]) == [answer, again]
    assert LastN(n=4).choose([user, call, results, answer, again]) == [call, results, answer, again]


def test_the_newest_user_message_stays() -> None:
    user, first, results, second, more = valid_history(1, [None, 2, 1])[1:]
    assert LastN(n=2).choose([SYSTEM, user, first, results, second, more]) == [SYSTEM, user, second, more]


def test_the_last_call_and_its_results_stay() -> None:
    """Without them the model would only call again."""
    user, call, results = valid_history(0, [None, 1])
    assert LastN(n=1).choose([user, call, results]) == [user, call, results]
    assert LastN(n=1).choose([UserMessage(text="old"), user, call, results]) == [user, call, results]


# --- by name ---


def test_strategies_by_name() -> None:
    assert get_memory_strategy("last_n", n=3) == LastN(n=3)
    assert get_memory_strategy("last_n") == LastN(n=20)
    assert strategy_of("last_n", {"n": 3}) == LastN(n=3)
    assert strategy_of("last_n", None) == LastN()
    own = LastN(n=2)
    assert strategy_of(own, None) is strategy_of(own, {}) is own


def test_a_strategy_of_ones_own() -> None:
    class Newest:
        def choose(self, messages: Sequence[Message]) -> Sequence[Message]:
            return messages[-1:]

    own = Newest()
    assert strategy_of(own, None) is own


@pytest.mark.parametrize(
    ("make", "args", "params", "sentence"),
    [
        (LastN, [], {"n": 0}, "memory strategy 'last_n' takes n as a whole number of at least 1, not 0"),
        (LastN, [], {"n": True}, "memory strategy 'last_n' takes n as a whole number of at least 1, not True"),
        (
            get_memory_strategy,
            ["last_n"],
            {"n": "many"},
            "memory strategy 'last_n' takes n as a whole number of at least 1, not str",
        ),
        (get_memory_strategy, ["last_n"], {"m": 3}, "memory strategy 'last_n' has no parameter 'm'; it takes n"),
        (get_memory_strategy, ["newest"], {}, "there is no memory strategy 'newest'; there is 'last_n'"),
        (get_memory_strategy, [["last_n"]], {}, "there is no memory strategy list; there is 'last_n'"),
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
            [LastN(), {"n": 3}],
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
