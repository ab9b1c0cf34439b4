from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plait.context.bounds import Bounds
from plait.context.summaries import SUMMARY, is_prompt, summary_message
from plait.context.trimmed import Cut, Unsummarised
from plait.context.trimming import Trimmer
from plait.counting import message_tokens
from plait.errors import LimitExceeded
from plait.log import REPAIR
from plait.messages import (
    AssistantMessage,
    ImagePart,
    Message,
    Part,
    ReasoningPart,
    SystemMessage,
    TextPart,
    ToolCall,
    ToolMessage,
    ToolResult,
    UserMessage,
)

if TYPE_CHECKING:
    from collections.abc import Sequence


class Letters:
    """A token is a letter, so that tests can say how large a message is; a message has 4 more."""

    def __init__(self) -> None:
        self.counted: list[str] = []

    def count(self, text: str) -> int:
        self.counted.append(text)
        return len(text)


LETTERS = Letters()
SYSTEM = SystemMessage(text="s" * 16)


def user(letter: str, size: int = 20) -> Message:
    return UserMessage(text=letter * (size - 4))


def answer(letter: str, size: int = 20) -> Message:
    return AssistantMessage(text=letter * (size - 4))


def call(number: int, calls: int = 1, size: int = 20) -> list[Message]:
    """An answer with so many calls, and their results."""
    wanted = [ToolCall(id=f"{number}.{one}", name="f") for one in range(calls)]
    return [
        AssistantMessage(parts=wanted),
        ToolMessage(parts=[ToolResult(call_id=one.id, text="r" * (size // calls - 8)) for one in wanted]),
    ]


def tokens(messages: Sequence[Message]) -> int:
    return sum(message_tokens(message, LETTERS) for message in messages)


def quiet(**fields: object) -> Bounds:
    """Bounds without notes."""
    return Bounds(**{"overflow_note": None, "dropped_note": None, **fields})  # type: ignore[arg-type]  # a test's own


def test_without_bounds_all_is_sent_and_nothing_is_counted() -> None:
    messages = [SYSTEM, user("a"), *call(1), answer("b")]
    said = Trimmer(Bounds(), None).trim(messages, 1)
    assert said.messages == messages
    assert (said.tokens, said.stable, said.overflow, said.dropped_total) == (None, True, False, 0)
    assert (said.dropped, said.cut, said.summarize) == ((), (), None)


def test_as_many_of_the_newest_messages_as_fit() -> None:
    trimmer = Trimmer(quiet(max_tokens=100), LETTERS, fixed_tokens=10)
    messages = [SYSTEM, user("a"), answer("b"), user("c")]
    said = trimmer.trim(messages, 3)
    assert (said.messages, said.tokens, said.stable, said.overflow) == (messages, 90, True, False)
    messages += [answer("d"), user("e")]
    said = trimmer.trim(messages, 5)
    assert said.messages == [SYSTEM, *messages[3:]]
    assert (said.tokens, said.stable, said.overflow) == (90, False, True)
    assert (said.dropped, said.dropped_total) == (tuple(messages[1:3]), 2)
    assert trimmer.origins() == [0, 3, 4, 5]
    assert trimmer.trim(messages, 5).dropped == ()


def test_the_factor_makes_the_window_smaller() -> None:
    trimmer = Trimmer(quiet(max_tokens=100), LETTERS)
    messages = [user("a"), answer("b"), user("c"), answer("d"), user("e")]
    assert trimmer.trim(messages, 4).messages == messages
    said = trimmer.trim(messages, 4, factor=1.5)
    assert (said.messages, said.tokens) == (messages[2:], 60)


def test_a_call_and_its_results_are_one() -> None:
    messages = [user("a"), *call(1), user("b"), answer("c")]
    for room in range(60, 100):
        said = Trimmer(quiet(max_tokens=room), LETTERS).trim(messages, 3).messages
        assert said in (messages[3:], messages[1:], messages)


def test_the_newest_prompt_stands_before_the_last_messages() -> None:
    messages = [user("a"), answer("b"), user("c"), *call(1), *call(2), *call(3)]
    trimmer = Trimmer(quiet(last=4), None)
    said = trimmer.trim(messages, 2)
    assert said.messages == [messages[2], *messages[5:]]
    assert trimmer.origins() == [2, 5, 6, 7, 8]
    assert messages[2] not in said.dropped
    assert said.dropped_total == 4
    again = trimmer.trim([*messages, answer("d"), user("e")], 10)
    assert messages[2] in again.dropped
    assert again.dropped_total == 7


def test_who_asks_again_in_the_persons_name_is_not_the_newest_prompt() -> None:
    again = UserMessage(text="once more, as JSON", metadata={REPAIR: True})
    messages = [user("a"), answer("b"), again]
    assert Trimmer(quiet(last=1), None).trim(messages, 0).messages == [messages[0], again]


def test_first_and_last() -> None:
    messages = [SYSTEM, user("a"), answer("b"), user("c"), answer("d"), user("e"), answer("f"), user("g")]
    trimmer = Trimmer(quiet(first=2, last=2), None)
    assert trimmer.trim(messages[:6], 5).messages == [*messages[:3], *messages[4:6]]
    assert trimmer.trim(messages, 7).messages == [*messages[:3], *messages[6:]]
    assert trimmer.origins() == [0, 1, 2, 6, 7]


def test_the_first_messages_are_never_half_a_call() -> None:
    messages = [user("a"), *call(1), answer("b"), user("c")]
    assert Trimmer(quiet(first=2, last=1), None).trim(messages, 4).messages == [messages[0], messages[4]]
    assert Trimmer(quiet(first=3, last=1), None).trim(messages, 4).messages == [*messages[:3], messages[4]]


def test_the_first_messages_go_when_they_leave_no_room() -> None:
    messages = [user("a", 60), answer("b"), user("c", 50)]
    said = Trimmer(quiet(first=1, max_tokens=100), LETTERS).trim(messages, 2)
    assert said.messages == [messages[2]]
    assert said.dropped_total == 2


def test_a_share_leaves_the_beginning_alone_for_longer() -> None:
    messages: list[Message] = [user("a")]
    trimmer = Trimmer(quiet(max_tokens=200, trim_to=0.5), LETTERS)
    sizes, stable = [], []
    for number in range(16):
        said = trimmer.trim(messages, len(messages) - 1)
        sizes.append(len(said.messages))
        stable.append(said.stable)
        messages += [answer("b"), user(chr(ord("c") + number))]
    assert sizes == [1, 3, 5, 7, 9, 5, 7, 9, 5, 7, 9, 5, 7, 9, 5, 7]
    assert stable == [size != 5 or number < 3 for number, size in enumerate(sizes)]


def test_notes_are_there_while_it_is_so() -> None:
    bounds = Bounds(max_tokens=100, overflow_note="full", dropped_note="gone")
    trimmer = Trimmer(bounds, LETTERS)
    messages = [SYSTEM, user("a"), answer("b"), user("c")]
    assert trimmer.trim(messages, 3).messages == messages
    messages += [answer("d"), user("e")]
    said = trimmer.trim(messages, 5).messages
    assert said == [SYSTEM, SystemMessage(text="gone"), SystemMessage(text="full"), *messages[3:]]
    assert trimmer.origins() == [0, "dropped_note", "overflow_note", 3, 4, 5]
    assert tokens(said) == 96
    again = trimmer.trim([*messages, answer("f", 5), user("g", 5)], 7).messages
    assert again[1] is said[1]
    assert again[2] is said[2]
    few = Trimmer(Bounds(last=1, dropped_note="gone"), None).trim(messages, 5).messages
    assert few == [SYSTEM, SystemMessage(text="gone"), messages[-1]], "nothing overflowed"


def test_a_long_message_is_cut_once() -> None:
    trimmer = Trimmer(quiet(max_tokens_per_message=100), LETTERS)
    long = UserMessage(text="a" * 150 + "b" * 150)
    said = trimmer.trim([long], 0)
    text = said.messages[0].text
    assert text == "a" * 45 + "\n[... about 241 tokens left out ...]\n" + "b" * 14
    assert said.cut == (Cut(0, 304 - len(text) - 4),)
    assert (said.overflow, trimmer.origins()) == (False, [0])
    later = trimmer.trim([long, answer("c"), user("d")], 2)
    assert later.messages[0] is said.messages[0]
    assert (later.cut, later.stable) == ((), True)


def test_a_prompt_larger_than_the_window_is_cut() -> None:
    trimmer = Trimmer(quiet(max_tokens=200), LETTERS)
    messages = [SYSTEM, user("a", 500)]
    said = trimmer.trim(messages, 1)
    assert 150 < tokens(said.messages) <= 200
    assert "tokens left out" in said.messages[1].text
    assert (said.overflow, len(said.cut)) == (True, 1)
    messages += call(1, size=400)
    said = trimmer.trim(messages, 1)
    assert 180 < tokens(said.messages) <= 200
    assert [message.role for message in said.messages] == ["system", "user", "assistant", "tool"]
    assert said.messages[1].text.startswith("aaaaaaa")
    assert said.messages[3].tool_results[0].text.startswith("rrrrrrr")


def test_what_cannot_be_cut_is_an_error_with_both_numbers() -> None:
    messages = [SYSTEM, user("a")]
    with pytest.raises(
        LimitExceeded, match=r"takes 109 tokens, and at most 100 may be sent: .* and 100 of system text"
    ) as raised:
        Trimmer(quiet(max_tokens=100), LETTERS, fixed_tokens=80).trim([SYSTEM, UserMessage(text="abcdef")], 1)
    assert raised.value.limit == 100
    assert Trimmer(quiet(max_tokens=100), LETTERS, fixed_tokens=60).trim(messages, 1).messages == messages


def test_calls_of_earlier_runs_are_left_out() -> None:
    signed = ReasoningPart(text="hm", details={"signature": "x"})
    both = AssistantMessage(parts=[signed, TextPart(text="I look"), ToolCall(id="9", name="f")])
    found = ToolMessage(parts=[ToolResult(call_id="9", text="r")])
    messages = [user("a"), *call(1), both, found, answer("b")]
    trimmer = Trimmer(quiet(keep_tool_calls=False, last=50), None)
    assert trimmer.trim(messages, 0).messages == messages
    said = trimmer.trim([*messages, user("c"), *call(2)], 6)
    bare = AssistantMessage(parts=[signed, TextPart(text="I look")])
    assert said.messages == [messages[0], bare, messages[5], user("c"), *call(2)]
    assert (said.stable, said.dropped_total) == (False, 0)
    assert trimmer.origins() == [0, 3, 5, 6, 7, 8]
    later = trimmer.trim([*messages, user("c"), *call(2), answer("d"), user("e")], 10)
    assert later.messages == [messages[0], bare, messages[5], user("c"), answer("d"), user("e")]
    assert later.messages[1] is said.messages[1]


def test_summaries() -> None:
    bounds = quiet(max_tokens=400, dropping="summary", summary_tokens=120)
    trimmer = Trimmer(bounds, LETTERS)
    messages: list[Message] = [SYSTEM]
    for number in range(10):
        messages += [user(chr(ord("a") + number)), answer("x")]
    messages.append(user("z"))
    said = trimmer.trim(messages, 21)
    assert said.summarize == Unsummarised(tuple(messages[1:16]), 16, None, 1)
    assert said.messages == [SYSTEM, *messages[16:]]
    now = trimmer.summarised(16, "what was said")
    assert now.messages == [SYSTEM, summary_message("what was said"), *messages[16:]]
    assert now.messages[1].metadata == {SUMMARY: True}
    assert now.tokens == tokens(now.messages)
    assert (now.dropped, now.summarize) == (said.dropped, None)
    assert trimmer.origins() == [0, "summary", *range(16, 22)]
    more = [*messages, answer("x", 180), user("y")]
    said = trimmer.trim(more, 23)
    assert said.summarize == Unsummarised(tuple(more[16:23]), 23, "what was said", 16)
    opened = Trimmer(bounds, LETTERS, summary=(16, "what was said")).trim(messages, 21)
    assert (opened.messages, opened.summarize, opened.dropped) == (now.messages, None, ())
    assert opened.dropped_total == now.dropped_total == 15


def test_a_summary_that_is_too_long_is_cut() -> None:
    bounds = quiet(max_tokens=400, dropping="summary", summary_tokens=120)
    trimmer = Trimmer(bounds, LETTERS, summary=(1, "w" * 500))
    said = trimmer.trim([user("a"), answer("b"), user("c")], 2).messages
    assert said[1:] == [answer("b"), user("c")]
    assert message_tokens(said[0], LETTERS) <= 120


def test_without_its_summary_a_thread_is_trimmed_simply() -> None:
    trimmer = Trimmer(quiet(last=4, dropping="summary"), LETTERS)
    messages = [user("a"), answer("b"), user("c"), answer("d"), user("e")]
    said = trimmer.trim(messages, 4)
    assert said.summarize == Unsummarised(tuple(messages[:3]), 3, None, 0)
    trimmer.unsummarised()
    messages += [answer("f"), user("g")]
    said = trimmer.trim(messages, 6)
    assert (said.messages, said.summarize) == (messages[3:], None), "it is asked for again with the next that goes"
    messages += [answer("h"), user("i")]
    said = trimmer.trim(messages, 8)
    assert said.summarize == Unsummarised(tuple(messages[:7]), 7, None, 0)


def test_an_overflow_is_told_once_though_more_is_left_out_for_other_reasons() -> None:
    trimmer = Trimmer(quiet(last=3, max_tokens=200), LETTERS)
    messages: list[Message] = [user("a", 100), answer("b", 60), user("c", 100)]
    said = trimmer.trim(messages, 2)
    assert (said.overflow, said.overflowed) == (True, True)
    for _ in range(4):
        messages += [answer("d"), user("e")]
        said = trimmer.trim(messages, len(messages) - 1)
        assert (said.overflow, said.overflowed, bool(said.dropped)) == (True, False, True)


def test_a_thread_opened_where_the_model_goes_on_tells_nothing_again() -> None:
    messages = [user("a"), answer("b"), user("c"), answer("and")]
    opened = Trimmer(quiet(last=1), None)
    said = opened.trim(messages, 2, asked=4)
    assert (said.dropped, said.dropped_total) == ((), 2)
    assert Trimmer(quiet(last=1), None).trim(messages, 2).dropped == tuple(messages[:2])


def test_a_copy_goes_on_by_itself() -> None:
    trimmer = Trimmer(quiet(max_tokens=200, max_tokens_per_message=60), LETTERS)
    messages: list[Message] = [user("a", 40), answer("b", 40)]
    trimmer.trim(messages[:1], 0)
    more = [*messages, user("c", 100), answer("d", 50), user("e", 100)]
    first, again = (trimmer.copy().trim(more, 4) for _ in range(2))
    assert first == again
    said = trimmer.trim(more, 4)
    assert said == first
    assert len(said.cut) == 2
    assert said.dropped


def test_other_messages_are_taken_in_anew() -> None:
    trimmer = Trimmer(quiet(last=2), None)
    messages = [user("a"), answer("b"), user("c")]
    trimmer.trim(messages, 2)
    other = [user("x"), answer("y"), user("z")]
    said = trimmer.trim(other, 2)
    assert (said.messages, said.stable) == (other[1:], False)
    assert trimmer.trim(other[:1], 0).messages == other[:1]


def test_each_message_is_counted_once() -> None:
    counter = Letters()
    messages: list[Message] = [SYSTEM]
    trimmer = Trimmer(Bounds(max_tokens=400), counter)
    for number in range(100):
        messages.append(UserMessage(text=f"question {number}"))
        trimmer.trim(messages, len(messages) - 1)
        messages.append(AssistantMessage(text=f"answer {number}"))
    said = [text for text in counter.counted if "question" in text or "answer " in text]
    assert len([text for text in said if text.startswith(("question", "answer"))]) == 199
    assert len(set(said)) == len(said)


# --- any conversation, any bounds ---

_sizes = st.sampled_from([0, 1, 5, 20, 60, 300, 3000])


@st.composite
def a_unit(draw: st.DrawFn) -> list[Message]:
    """What a model says in one turn: a plain answer, or calls with their results."""
    text = "w" * draw(_sizes)
    kind = draw(st.sampled_from(["answer", "details", "calls", "calls"]))
    if kind == "answer":
        return [AssistantMessage(text=text)]
    if kind == "details":
        thought = ReasoningPart(text="t", details={"signature": "x"})
        parts: list[Part] = [thought, TextPart(text=text, details={"id": "i"})]
        return [AssistantMessage(parts=parts, provider="p", details={"a": 1})]
    names = draw(st.lists(st.sampled_from("fg"), min_size=1, max_size=3))
    calls = [ToolCall(id=f"{draw(st.uuids())}", name=name, arguments='{"q": 1}') for name in names]
    results = [ToolResult(call_id=one.id, text="r" * draw(_sizes)) for one in calls]
    return [AssistantMessage(parts=[TextPart(text=text), *calls]), ToolMessage(parts=results)]


@st.composite
def a_run(draw: st.DrawFn) -> list[list[Message]]:
    parts: list[Part] = [
        TextPart(text="u" * draw(_sizes)),
        *[ImagePart(data=b"x", detail="low")] * draw(st.integers(0, 1)),
    ]
    return [[UserMessage(parts=parts)], *draw(st.lists(a_unit(), max_size=5))]


threads = st.tuples(st.integers(0, 2), st.lists(a_run(), min_size=1, max_size=6))


@st.composite
def some_bounds(draw: st.DrawFn) -> Bounds:
    most = draw(st.none() | st.integers(300, 3000))
    last = draw(st.none() | st.integers(1, 12))
    summary = draw(st.booleans()) and (most is not None or last is not None)
    return Bounds(
        first=draw(st.integers(0, 3)),
        last=last,
        max_tokens=most,
        max_tokens_per_message=draw(st.none() | st.integers(100, min(2000, most or 2000))),
        keep_tool_calls=draw(st.booleans()),
        dropping="summary" if summary else "simple",
        trim_to=draw(st.sampled_from([None, 0.3, 0.8, 1.0])),
        overflow_note=draw(st.sampled_from([None, "full"])),
        dropped_note=draw(st.sampled_from([None, "gone"])),
    )


def is_valid(messages: Sequence[Message]) -> bool:
    """Each call has exactly one result, right after it, and system text comes first."""
    roles = [message.role for message in messages]
    if "system" in roles[roles.count("system") :]:
        return False
    expected: list[str] = []
    for message in messages:
        if [result.call_id for result in message.tool_results] != expected:
            return False
        expected = [call.id for call in message.tool_calls]
    return not expected


def turns(thread: tuple[int, list[list[list[Message]]]]) -> list[tuple[list[Message], int]]:
    """The messages at each time the model is asked, and where the run begins in them."""
    made: list[Message] = [SYSTEM] * thread[0]
    asked = []
    for run in thread[1]:
        first = len(made)
        for unit in run:
            made = [*made, *unit]
            if unit[-1].role != "assistant":
                asked.append((made, first))
    return asked


@settings(max_examples=300, deadline=None)
@given(threads, some_bounds(), st.sampled_from([1.0, 1.3]), st.booleans())
def test_any_thread_in_any_window(
    thread: tuple[int, list[list[list[Message]]]], bounds: Bounds, factor: float, summarise: bool
) -> None:
    trimmer = Trimmer(bounds, LETTERS, fixed_tokens=20)
    before: list[Message] = []
    dropped = 0
    summary: tuple[int, str] | None = None
    for messages, first in turns(thread):
        given_before = list(messages)
        try:
            said = trimmer.trim(messages, first, factor)
        except LimitExceeded:
            assert bounds.max_tokens is not None
            # Only what may not be cut can be too large: details of a provider, images, notes and marks.
            assert int(bounds.max_tokens / factor) < 700
            return
        assert messages == given_before
        if said.summarize is not None and summarise:
            assert bounds.dropping == "summary"
            summary = said.summarize.upto, "short"
            said = trimmer.summarised(*summary)
        check(said.messages, messages, bounds)
        assert said.tokens == tokens(said.messages) + 20
        if bounds.max_tokens is not None:
            assert said.tokens * factor <= bounds.max_tokens
        assert said.stable == ([*map(id, said.messages[: len(before)])] == [*map(id, before)])
        origins = trimmer.origins()
        assert said.earlier == sum(not isinstance(origin, int) or origin < first for origin in origins)
        dropped += len(said.dropped)
        assert dropped == said.dropped_total
        assert (SystemMessage(text="gone") in said.messages) == (bool(bounds.dropped_note) and said.dropped_total > 0)
        assert (SystemMessage(text="full") in said.messages) == (bool(bounds.overflow_note) and said.overflow)
        for message, origin in zip(said.messages, trimmer.origins(), strict=True):
            if isinstance(origin, int) and message is not messages[origin]:
                assert message.role == messages[origin].role
                assert tokens([message]) < tokens([messages[origin]])
        before = said.messages
        recut = [  # beside what the summary hides now, there was less room for it
            origin
            for message, origin in zip(said.messages, trimmer.origins(), strict=True)
            if isinstance(origin, int) and summary and (origin < summary[0] or message is not messages[origin])
        ]
        why = summary is not None and bounds.last is not None and bounds.max_tokens is not None
        if bounds.keep_tool_calls and not (bounds.first and summary) and not any(recut) and not why:
            anew = Trimmer(bounds, LETTERS, fixed_tokens=20, summary=summary).trim(messages, first, factor)
            assert anew.messages == said.messages
            assert (anew.tokens, anew.dropped_total) == (said.tokens, said.dropped_total)


def check(sent: Sequence[Message], messages: Sequence[Message], bounds: Bounds) -> None:
    assert is_valid(sent)
    system = [message for message in messages if message.role == "system"]
    assert list(sent[: len(system)]) == system
    newest = [message for message in messages if is_prompt(message)][-1]
    prompts = [message for message in sent if is_prompt(message)]
    assert prompts
    assert prompts[-1] == newest or prompts[-1].text != newest.text
    assert sent[-1].role == messages[-1].role
    if bounds.last is not None:
        others = [message for message in sent if message.role != "system" and SUMMARY not in message.metadata]
        assert len(others) <= bounds.first + max(bounds.last, 2) + 1
