"""Answers that are given as a call of a tool: what of them is text, and what is not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait import (
    Answer,
    AssistantMessage,
    Delta,
    DetailsDelta,
    FinishDelta,
    ModelDelta,
    ReasoningDelta,
    ReasoningPart,
    RefusalDelta,
    StreamTruncated,
    TextDelta,
    TextPart,
    ToolCall,
    ToolCallDelta,
    Usage,
    UsageDelta,
)
from plait.events import PartDelta, fold
from plait.providers.judging import Judge
from plait.providers.reading import AnswerByTool
from plait.providers.status import Service

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Read(Judge[Any]):
    """A dialect's reader that has its deltas already; each of them is one event."""

    def __init__(self, deltas: Sequence[Delta], failure: Exception | None = None) -> None:
        super().__init__(Service(provider="acme", address="acme.test:443"))
        self.deltas = list(deltas)
        self.failure = failure

    @property
    def partial(self) -> str:
        return "what the dialect read"

    def whole(self, body: bytes) -> list[Delta]:
        del body
        return self.deltas

    def feed(self, events: Iterable[bytes]) -> list[Delta]:
        taken = [self.deltas.pop(0) for _ in events]
        self.done = not self.deltas
        return taken

    def end(self, beginning: bytes = b"", *, broken: Any = None) -> list[Delta]:
        del beginning, broken
        if self.failure is not None:
            raise self.failure
        return []


def whole(*deltas: Delta) -> list[Delta]:
    return AnswerByTool(Read(deltas), "Recipe").whole(b"")


def begun(index: int = 0, name: str = "Recipe", arguments: str = "", choice: int = 0) -> ToolCallDelta:
    return ToolCallDelta(index, f"c{index}", name, arguments, choice)


def more(arguments: str, index: int = 0, choice: int = 0) -> ToolCallDelta:
    return ToolCallDelta(index, arguments=arguments, choice=choice)


def test_arguments_are_the_text() -> None:
    assert whole(ModelDelta("m"), begun(), more('{"a"'), more(": 1}"), FinishDelta("tool_calls")) == [
        ModelDelta("m"),
        TextDelta('{"a"'),
        TextDelta(": 1}"),
        FinishDelta("tool_calls"),
    ]


def test_what_is_no_text_and_no_call_passes() -> None:
    passing: list[Delta] = [
        ModelDelta("m", "r1", "p"),
        ReasoningDelta("Hm."),
        RefusalDelta("No."),
        PartDelta(ReasoningPart(text="Hm.", details={"signature": "s"})),
        PartDelta(TextPart(text="No.", refusal=True)),
        DetailsDelta({"a": 1}),
        UsageDelta(Usage(input_tokens=1, output_tokens=2)),
    ]
    assert whole(*passing) == passing


def test_text_before_the_call_is_a_thought_and_waits_for_the_call() -> None:
    reader = AnswerByTool(Read([TextDelta("Here "), TextDelta("it is:"), begun(arguments="{}")]), "Recipe")
    assert reader.feed([b"", b""]) == []
    assert reader.feed([b""]) == [ReasoningDelta("Here "), ReasoningDelta("it is:"), TextDelta("{}")]
    assert reader.done


def test_text_after_the_call_is_a_thought() -> None:
    assert whole(begun(arguments="{}"), TextDelta("There."), FinishDelta("stop")) == [
        TextDelta("{}"),
        ReasoningDelta("There."),
        FinishDelta("stop"),
    ]


def test_a_whole_part_is_thought_once() -> None:
    part = PartDelta(TextPart(text="Here it is:"))
    said = [ReasoningDelta("Here it is:"), TextDelta("{}")]
    assert whole(TextDelta("Here it is:"), part, begun(arguments="{}")) == said
    assert whole(part, begun(arguments="{}")) == said


def test_text_without_a_call_is_the_answer() -> None:
    text: list[Delta] = [TextDelta("{"), TextDelta("}"), PartDelta(TextPart(text="{}")), FinishDelta("stop")]
    assert whole(*text) == text


def test_other_calls_pass_with_the_text_before_them() -> None:
    passing: list[Delta] = [TextDelta("Let me see."), begun(0, "look"), more("{}", 0), FinishDelta("tool_calls")]
    assert whole(*passing) == passing


def test_the_answer_beside_other_calls_is_text() -> None:
    deltas: list[Delta] = [begun(0, "look", "{}"), begun(1), more("[", 1), begun(2, "look", "{}"), more("]", 1)]
    assert fold([whole(*deltas, FinishDelta("x"))]) == (
        Answer(
            AssistantMessage(
                parts=(
                    ToolCall(id="c0", name="look", arguments="{}"),
                    TextPart(text="[]"),
                    ToolCall(id="c2", name="look", arguments="{}"),
                )
            ),
            "x",
        ),
    )


def test_only_the_first_of_several_answers_counts() -> None:
    assert whole(begun(0, arguments="[1]"), begun(1), more("[2]", 1), FinishDelta("stop")) == [
        TextDelta("[1]"),
        FinishDelta("stop"),
    ]


def test_a_name_may_come_late() -> None:
    late = ToolCallDelta(0, "c0", "", "[")
    assert whole(late, begun(0, "Recipe", "]")) == [TextDelta("["), TextDelta("]")]
    assert whole(late, begun(0, "look", "]")) == [late, begun(0, "look", "]")]


def test_a_call_without_a_name_passes_at_the_end() -> None:
    nameless = ToolCallDelta(0, "c0", "", "{}")
    assert whole(nameless, FinishDelta("stop")) == [nameless, FinishDelta("stop")]


@pytest.mark.parametrize("arguments", [(), ("",)])
def test_an_answer_without_arguments_is_an_empty_object(arguments: tuple[str, ...]) -> None:
    assert whole(begun(), *map(more, arguments), FinishDelta("stop")) == [TextDelta("{}"), FinishDelta("stop")]


def test_choices_are_read_apart() -> None:
    deltas: list[Delta] = [
        TextDelta("One:", 1),
        begun(0, "look", choice=0),
        begun(0, choice=1),
        more("[1]", 0, 1),
        TextDelta("[2]", 2),
        FinishDelta("a", 0),
        FinishDelta("b", 1),
        FinishDelta("c", 2),
    ]
    first, second, third = fold([whole(*deltas)])
    assert first.message.tool_calls == (ToolCall(id="c0", name="look", arguments=""),)
    assert (second.message.text, second.message.reasoning, third.message.text) == ("[1]", "One:", "[2]")


def test_the_partial_text_is_the_answers() -> None:
    failure = StreamTruncated("it broke off")
    reader = AnswerByTool(Read([begun(), more('{"a'), more("[", 0, 1)], failure), "Recipe")
    assert reader.partial == "what the dialect read"
    reader.feed([b""] * 3)
    assert reader.partial == '{"a'
    with pytest.raises(StreamTruncated) as caught:
        reader.end()
    assert caught.value is failure


SCRIPTS = st.lists(
    st.one_of(
        st.sampled_from(["a", "b"]).map(TextDelta),
        st.sampled_from(["c", "d"]).map(ReasoningDelta),
        st.integers(0, 2).map(lambda index: more("e", index)),
        st.integers(0, 2).map(lambda index: begun(index, "look", "f")),
        st.integers(0, 2).map(lambda index: begun(index, "Recipe", "g")),
    ),
    max_size=12,
)


@given(SCRIPTS, st.data())
def test_how_a_stream_is_cut_changes_nothing(script: list[Delta], data: st.DataObject) -> None:
    deltas = [*script, FinishDelta("stop")]
    read = Read(deltas)
    reader, made = AnswerByTool(read, "Recipe"), []
    while not reader.done:
        made += reader.feed([b""] * data.draw(st.integers(1, len(read.deltas))))
    assert made == whole(*deltas)


@given(SCRIPTS)
def test_without_an_answer_by_tool_nothing_is_changed(script: list[Delta]) -> None:
    [answer] = fold([whole(*script, FinishDelta("stop"))])
    [said] = fold([[*script, FinishDelta("stop")]])
    assert all(call.name != "Recipe" for call in answer.message.tool_calls)
    if all(call.name != "Recipe" for call in said.message.tool_calls):
        assert answer.message.text == said.message.text
        assert answer.message.tool_calls == said.message.tool_calls
