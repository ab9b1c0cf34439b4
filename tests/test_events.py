from __future__ import annotations

import json
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait.errors import ConfigurationError
from plait.events import (
    Answer,
    AttemptDelta,
    Delta,
    DetailsDelta,
    Event,
    FinishDelta,
    Fold,
    MessageAdded,
    ModelDelta,
    PartDelta,
    ReasoningDelta,
    RefusalDelta,
    RunFinished,
    RunStarted,
    TextDelta,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
    Usage,
    UsageDelta,
    fold,
)
from plait.messages import (
    AssistantMessage,
    ReasoningPart,
    ServerToolPart,
    TextPart,
    ToolCall,
    ToolResult,
    UserMessage,
)
from plait.plain import FrozenDict, to_json

texts = st.text(st.characters(codec=None), max_size=5)
choices = st.integers(0, 2)
deltas: st.SearchStrategy[Delta] = st.one_of(
    st.builds(TextDelta, text=texts, choice=choices),
    st.builds(RefusalDelta, text=texts, choice=choices),
    st.builds(ReasoningDelta, text=texts, choice=choices),
    st.builds(ToolCallDelta, index=st.integers(0, 3), id=st.just(""), name=texts, arguments=texts, choice=choices),
    st.builds(DetailsDelta, details=st.dictionaries(texts, st.integers(), max_size=2), choice=choices),
    st.builds(UsageDelta, usage=st.builds(Usage, input_tokens=st.integers(0, 9))),
    st.builds(ModelDelta, model=texts, response_id=texts, provider=texts),
    st.builds(FinishDelta, finish_reason=st.sampled_from(["stop", "length"]), choice=choices),
)


@st.composite
def streams(draw: st.DrawFn) -> list[Delta]:
    """Deltas whose tool calls have ids from their first piece on, as sound providers send them."""
    made: list[Delta] = []
    for delta in draw(st.lists(deltas, max_size=20)):
        named = (
            msgspec.structs.replace(delta, id=f"{delta.choice}/{delta.index}")
            if isinstance(delta, ToolCallDelta)
            else delta
        )
        made.append(named)
    return made


# --- folding ---


@given(streams(), st.data())
def test_batches_do_not_matter(stream: list[Delta], data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    batches = [stream[start:end] for start, end in pairwise([0, *cuts, len(stream)])]
    assert fold(batches, provider="p", model="m") == fold([stream], provider="p", model="m")
    assert fold(([delta] for delta in stream), provider="p", model="m") == fold([stream], provider="p", model="m")


@given(streams())
def test_nothing_is_lost(stream: list[Delta]) -> None:
    made = Fold("p", "m")
    made.add(stream)
    for choice, answer in zip(
        sorted({delta.choice for delta in stream if hasattr(delta, "choice")}), made.answers(), strict=True
    ):
        own = [delta for delta in stream if getattr(delta, "choice", None) == choice]
        message = answer.message
        assert message.text == "".join(delta.text for delta in own if isinstance(delta, TextDelta))
        assert message.refusal == "".join(delta.text for delta in own if isinstance(delta, RefusalDelta))
        assert message.reasoning == "".join(delta.text for delta in own if isinstance(delta, ReasoningDelta))
        calls = {delta.index for delta in own if isinstance(delta, ToolCallDelta)}
        assert [(call.id, call.arguments) for call in message.tool_calls] == [
            (
                f"{choice}/{index}",
                "".join(d.arguments for d in own if isinstance(d, ToolCallDelta) and d.index == index),
            )
            for index in sorted(calls)
        ]
        assert made.answer(choice) == answer
        assert made.answer(choice, calls=False).message.tool_calls == ()
    usages = [delta.usage for delta in stream if isinstance(delta, UsageDelta)]
    assert made.usage == (usages[-1] if usages else None)


def test_a_whole_answer() -> None:
    stream: list[list[Delta]] = [
        [ModelDelta("gpt-x", "resp_1", "openai"), ReasoningDelta("let "), ReasoningDelta("me see")],
        [TextDelta("Hel"), DetailsDelta({"a": 1, "signature": "s"})],
        [TextDelta("lo"), DetailsDelta({"a": [2]}), ToolCallDelta(0, "c1", "f", '{"x"')],
        [
            ToolCallDelta(0, arguments=":1}"),
            FinishDelta("tool_calls"),
            UsageDelta(Usage(input_tokens=3, output_tokens=4)),
        ],
    ]
    assert fold(stream) == (
        Answer(
            AssistantMessage(
                parts=[
                    ReasoningPart(text="let me see"),
                    TextPart(text="Hello"),
                    ToolCall(id="c1", name="f", arguments='{"x":1}'),
                ],
                provider="openai",
                model="gpt-x",
                details={"a": [2], "signature": "s"},
            ),
            "tool_calls",
            Usage(input_tokens=3, output_tokens=4),
            "resp_1",
        ),
    )


SIGNED = ReasoningPart(text="let me see", details=FrozenDict({"signature": "s"}))
CITED = TextPart(text="it is so", details=FrozenDict({"citations": [{"url": "u"}]}))
SEARCH = ServerToolPart(name="web_search", details=FrozenDict({"id": "srv_1"}))


def test_parts_keep_their_order_and_the_providers_own_fields() -> None:
    stream: list[Delta] = [
        ReasoningDelta("let me "),
        ReasoningDelta("see"),
        PartDelta(SIGNED),
        TextDelta("I search. "),
        ToolCallDelta(0, "c0", "f", "{}"),
        PartDelta(SEARCH),
        TextDelta("it is "),
        TextDelta("so"),
        PartDelta(CITED),
        ReasoningDelta("hm"),
        TextDelta("And "),
        ToolCallDelta(1, "c1", "f", details={"a": [1]}),
        TextDelta("more"),
        RefusalDelta("no"),
        PartDelta(TextPart(text="no", refusal=True, details=FrozenDict({"why": 1}))),
        RefusalDelta("no!"),
    ]
    (answer,) = fold([stream])
    assert answer.message.parts == (
        SIGNED,
        TextPart(text="I search. "),
        ToolCall(id="c0", name="f", arguments="{}"),
        SEARCH,
        CITED,
        ReasoningPart(text="hm"),
        TextPart(text="And more"),
        ToolCall(id="c1", name="f", details=FrozenDict({"a": [1]})),
        TextPart(text="no", refusal=True, details=FrozenDict({"why": 1})),
        TextPart(text="no!", refusal=True),
    )
    assert (answer.message.text, answer.message.reasoning) == ("I search. it is soAnd more", "let me seehm")
    assert answer.message.citations == ({"url": "u"},)


def test_a_new_attempt_voids_what_came_before_and_both_are_counted() -> None:
    told = Usage(input_tokens=3, output_tokens=1, cost=0.5)
    first: list[Delta] = [ModelDelta("m1", "r1", "p1"), TextDelta("Hel"), ToolCallDelta(0, "c", "f"), UsageDelta(told)]
    second: list[Delta] = [AttemptDelta(2), ModelDelta("m1", "r2", "p1"), TextDelta("Hello"), FinishDelta("stop")]
    (answer,) = fold([first, [*second, UsageDelta(told)]])
    assert answer == Answer(
        AssistantMessage(text="Hello", provider="p1", model="m1"),
        "stop",
        Usage(input_tokens=6, output_tokens=2, requests=2, cost=1.0),
        "r2",
    )
    (answer,) = fold([first[:2], [*second, UsageDelta(told)]])
    assert answer.usage == Usage(input_tokens=3, output_tokens=1, requests=2, cost=None)
    (answer,) = fold([first[:2], second[:3], second[:3], [FinishDelta("stop"), UsageDelta(told)]])
    assert answer.usage == Usage(input_tokens=3, output_tokens=1, requests=3, cost=None)
    made = Fold("p", "m")
    made.add([TextDelta("a"), FinishDelta("stop"), AttemptDelta(2)])
    assert not made.finished


def test_names_come_from_the_request_where_the_stream_has_none() -> None:
    (answer,) = fold([[TextDelta("x"), ModelDelta(response_id="r")]], provider="p", model="m")
    assert (answer.message.provider, answer.message.model, answer.response_id) == ("p", "m", "r")
    (answer,) = fold([[TextDelta("x")]])
    assert (answer.message.provider, answer.message.model) == (None, None)


def test_calls_mixed_by_index_with_gaps() -> None:
    stream: list[Delta] = [
        ToolCallDelta(7, "b", "g"),
        ToolCallDelta(2, "a", "f", "{"),
        ToolCallDelta(7, arguments="[1"),
        ToolCallDelta(2, "a", "f", "}"),
        ToolCallDelta(7, arguments="]"),
    ]
    (answer,) = fold([stream])
    assert answer.message.tool_calls == (
        ToolCall(id="a", name="f", arguments="{}"),
        ToolCall(id="b", name="g", arguments="[1]"),
    )


def test_calls_keep_the_ids_the_server_gave() -> None:
    stream: list[Delta] = [ToolCallDelta(0, "x", "a"), ToolCallDelta(1, "x", "b"), ToolCallDelta(2, "", "c")]
    (answer,) = fold([stream])
    assert [(call.id, call.name) for call in answer.message.tool_calls] == [("x", "a"), ("x", "b"), ("", "c")]


def test_choices_are_told_apart() -> None:
    stream: list[Delta] = [
        TextDelta("b", choice=1),
        TextDelta("a"),
        FinishDelta("stop", choice=1),
        FinishDelta("length"),
    ]
    assert [(answer.message.text, answer.finish_reason) for answer in fold([stream])] == [
        ("a", "length"),
        ("b", "stop"),
    ]


def test_finished_when_every_answer_has_its_end_mark() -> None:
    made = Fold("p", "m")
    assert not made.finished
    made.add([TextDelta("a"), TextDelta("b", choice=1), FinishDelta("stop")])
    assert not made.finished
    made.add([FinishDelta("stop", choice=1)])
    assert made.finished


def test_an_answer_that_never_came() -> None:
    assert fold([]) == ()
    assert Fold("p", "m").answer() == Answer(AssistantMessage(provider="p", model="m"))


def test_details_that_are_no_data_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="object cannot be kept"):
        fold([[DetailsDelta({"a": object()})]])


def test_what_a_fold_makes_is_what_the_checked_constructor_makes() -> None:
    (answer,) = fold([[TextDelta("a"), ReasoningDelta("b"), ToolCallDelta(0, "c", "f"), DetailsDelta({"x": [{}]})]])
    checked = AssistantMessage.from_json(answer.message.to_json())
    assert checked == answer.message
    assert hash(checked) == hash(answer.message)


# --- usage ---


def test_usage_adds_up() -> None:
    one = Usage(
        input_tokens=1, output_tokens=2, cache_read_tokens=3, cache_write_tokens=4, reasoning_tokens=5, cost=0.25
    )
    two = Usage(
        input_tokens=10, output_tokens=20, cache_read_tokens=30, cache_write_tokens=40, reasoning_tokens=50, cost=0.5
    )
    assert one + two == Usage(
        input_tokens=11,
        output_tokens=22,
        cache_read_tokens=33,
        cache_write_tokens=44,
        reasoning_tokens=55,
        requests=2,
        cost=0.75,
    )
    assert (one + two).total_tokens == 33
    assert one.cost == 0.25


def test_an_unknown_cost_makes_the_sum_unknown() -> None:
    known, unknown, nothing = Usage(cost=0.5), Usage(), Usage(requests=0)
    assert (known + unknown).cost is (unknown + known).cost is (unknown + unknown).cost is None
    assert (known + Usage(cost=0.0)).cost == 0.5
    assert (known + nothing).cost == (nothing + known).cost == 0.5
    assert (nothing + nothing).cost is None


# --- events as JSON and as values ---


EVENTS: list[tuple[Event, str]] = [
    (TextDelta("a"), '{"type":"text","text":"a"}'),
    (TextDelta("a", 1), '{"type":"text","text":"a","choice":1}'),
    (RefusalDelta("a"), '{"type":"refusal","text":"a"}'),
    (ReasoningDelta("a"), '{"type":"reasoning","text":"a"}'),
    (ToolCallDelta(0, "c", "f", "{}"), '{"type":"tool_call","index":0,"id":"c","name":"f","arguments":"{}"}'),
    (DetailsDelta({"a": [1]}), '{"type":"details","details":{"a":[1]}}'),
    (ToolCallDelta(0, details={"a": 1}), '{"type":"tool_call","index":0,"details":{"a":1}}'),
    (PartDelta(SEARCH), '{"type":"part","part":{"type":"server_tool","name":"web_search","details":{"id":"srv_1"}}}'),
    (AttemptDelta(2), '{"type":"attempt","attempt":2}'),
    (UsageDelta(Usage(input_tokens=1)), '{"type":"usage","usage":{"input_tokens":1}}'),
    (ModelDelta("m"), '{"type":"model","model":"m"}'),
    (FinishDelta("stop"), '{"type":"finish","finish_reason":"stop"}'),
    (RunStarted("r", "t", "a"), '{"type":"run_started","run_id":"r","thread_id":"t","agent_name":"a"}'),
    (
        MessageAdded(UserMessage(text="a"), Usage(), "stop"),
        (
            '{"type":"message","message":{"class_":"UserMessage","role":"user","parts":[{"type":"text","text":"a"}]},'
            '"usage":{},"finish_reason":"stop"}'
        ),
    ),
    (
        ToolCallStarted(ToolCall(id="c", name="f")),
        '{"type":"tool_started","call":{"type":"tool_call","id":"c","name":"f"}}',
    ),
    (
        ToolCallFinished(ToolCall(id="c", name="f"), ToolResult(call_id="c", text="x"), 0.5),
        (
            '{"type":"tool_finished","call":{"type":"tool_call","id":"c","name":"f"},'
            '"result":{"type":"tool_result","call_id":"c","parts":[{"type":"text","text":"x"}]},"seconds":0.5}'
        ),
    ),
    (
        RunFinished("response", Usage(output_tokens=1)),
        '{"type":"run_finished","stop_reason":"response","usage":{"output_tokens":1}}',
    ),
    (RunFinished(None, error="Refused: no"), '{"type":"run_finished","stop_reason":null,"error":"Refused: no"}'),
]


@pytest.mark.parametrize(("event", "text"), EVENTS, ids=lambda value: type(value).__name__)
def test_events_as_json(event: Event, text: str) -> None:
    assert to_json(event).decode() == text


@pytest.mark.parametrize("text", ["\ud800", "a\x00b", "\u2028</script>"])
def test_any_text_survives_as_json(text: str) -> None:
    for event in (TextDelta(text), MessageAdded(UserMessage(text=text)), DetailsDelta({text: text})):
        line = to_json(event)
        assert b"\n" not in line
        assert json.dumps(text) in json.dumps(json.loads(line))


@pytest.mark.parametrize("event", [event for event, _ in EVENTS], ids=lambda event: type(event).__name__)
def test_events_cannot_be_changed(event: Event) -> None:
    name = event.__struct_fields__[0]
    with pytest.raises(AttributeError, match="immutable"):
        setattr(event, name, None)
    assert msgspec.structs.replace(event) == event
