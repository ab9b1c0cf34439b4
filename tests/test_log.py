from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait import log as views
from plait.entries import (
    Body,
    ContextNote,
    Entry,
    MessageEntry,
    RunEnd,
    RunStart,
    ToolEnd,
    ToolStart,
    decode,
    encode,
    entry,
)
from plait.errors import CorruptRecord
from plait.events import (
    MessageAdded,
    MessagesSummarised,
    RunFinished,
    RunStarted,
    ToolCallFinished,
    ToolCallStarted,
    Usage,
)
from plait.log import REPAIR, Stats, Tail, entry_events, hidden, history, says_something, stats, usage, without_tools
from plait.messages import (
    AssistantMessage,
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

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

# --- logs of any kind: also such as no loop would write ---

texts = st.text(st.characters(codec=None), max_size=5)
# Few, so that they meet; some are like those that are made up.
ids = st.sampled_from(["a", "b", "c", "", *(f"call_{n}_{k}" for n in (2, 3, 4) for k in (0, 1, 2))])
calls = st.builds(ToolCall, id=ids, name=st.sampled_from(["f", "g"]), arguments=st.sampled_from(["", "{}"]))
results = st.builds(ToolResult, call_id=ids, text=st.sampled_from(["one", "two"]), is_error=st.booleans())
any_parts = st.lists(
    st.one_of(
        st.builds(TextPart, text=st.sampled_from(["", "hi"])),
        st.builds(ReasoningPart, text=st.just("hm")),
        calls,
        results,
        st.just(ImagePart(url="u")),
    ),
    max_size=4,
)
any_messages = st.one_of(
    st.builds(UserMessage, parts=any_parts, metadata=st.sampled_from([{}, {REPAIR: True}])),
    st.builds(SystemMessage, parts=any_parts),
    st.builds(AssistantMessage, parts=any_parts),
    st.builds(AssistantMessage, parts=st.lists(calls, min_size=1, max_size=3)),
    st.builds(ToolMessage, parts=any_parts),
    st.builds(ToolMessage, parts=st.lists(results, max_size=3)),
)
stop_reasons = st.sampled_from(["response", "user_stop", "deadline", "max_tool_calls", None])
bodies: st.SearchStrategy[Body] = st.one_of(
    st.builds(RunStart, resumed=st.booleans()),
    st.builds(
        MessageEntry,
        message=any_messages,
        usage=st.none() | st.builds(Usage, input_tokens=st.integers(0, 9)),
        finish_reason=st.sampled_from([None, "stop", "length"]),
        cut=st.sampled_from([None, "user_stop"]),
    ),
    st.builds(ToolStart, call_id=ids),
    st.builds(ToolEnd, result=results, seconds=st.floats(0, 9)),
    st.builds(RunEnd, stop_reason=stop_reasons),
)


def numbered(bodies: list[tuple[Body, str | None]]) -> list[Entry]:
    return [Entry(n=n, id=f"ent_{n}", at=float(n), run_id=run, body=body) for n, (body, run) in enumerate(bodies, 1)]


logs = st.lists(st.tuples(bodies, st.sampled_from(["run_1", "run_2", None])), max_size=14).map(numbered)


def log_of(*said: Body, run: str = "run_1") -> list[Entry]:
    return numbered([(body, run) for body in said])


def says(message: Message, **more: Any) -> MessageEntry:
    return MessageEntry(message=message, **more)


def wanting(*wanted: str) -> AssistantMessage:
    return AssistantMessage(parts=[ToolCall(id=name, name="f") for name in wanted])


def gave(call_id: str, text: str = "ok") -> ToolEnd:
    return ToolEnd(result=ToolResult(call_id=call_id, name="f", text=text))


HELLO = UserMessage(text="hello")
ANSWER = AssistantMessage(text="answer")


def faults(messages: list[Message]) -> Iterator[str]:
    """What a provider would refuse."""
    roles = [message.role for message in messages]
    if "system" in roles[roles.count("system") :]:
        yield f"system text is not first: {roles}"
    seen: list[str] = []
    for message, following in zip(messages, [*messages, None][1:], strict=True):
        wanted = [call.id for call in message.tool_calls]
        seen += wanted
        if wanted:
            if message.role != "assistant":
                yield f"a call by {message.role}"
            answered = [result.call_id for result in following.tool_results] if following else []
            if answered != wanted or following is None or following.role != "tool":
                yield f"calls {wanted} are followed by results {answered}"
        if message.tool_results and message.role != "tool":
            yield f"a result from {message.role}"
        if message.role == "assistant" and not any(not isinstance(part, ReasoningPart) for part in message.parts):
            yield "an answer that says nothing"
    results = [result.call_id for message in messages for result in message.tool_results]
    if results != seen:
        yield f"results {results} for calls {seen}"
    if "" in seen or len(set(seen)) < len(seen):
        yield f"call ids are not unique: {seen}"


def state(tail: Tail) -> dict[str, Any]:
    run = tail.run
    return {
        "n": tail.n,
        "messages": tail.messages,
        "pending": tail.pending,
        "started": tail.started,
        "repeats": tail.repeats,
        "waiting": tail.waiting,
        "sendable": tail.sendable(),
        "run_begins": tail.run_begins(),
        "of_run": tail.of_run(),
        "run": None if run is None else {name: getattr(run, name) for name in run.__slots__},
    }


# --- properties of any log ---


@given(logs)
def test_any_history_is_valid_to_send(log: list[Entry]) -> None:
    for end in range(len(log) + 1):
        assert list(faults(history(log[:end]))) == []
    bare = history(log, tools=False)
    assert not any(message.tool_calls or message.tool_results or message.role == "tool" for message in bare)
    assert list(faults(bare)) == []


@given(logs)
def test_a_tail_fed_entry_by_entry_is_the_tail_of_all(log: list[Entry]) -> None:
    tail = Tail()
    for number, item in enumerate(log, 1):
        tail.add(item)
        assert state(tail) == state(Tail(log[:number]))


@given(logs)
def test_what_may_be_sent_is_kept_in_order_as_the_thread_grows(log: list[Entry]) -> None:
    """The same as all messages put in order from scratch, wherever the last run begins among them."""

    def ordered(messages: list[Message]) -> list[Message]:
        sent = [message for message in messages if message.role != "assistant" or says_something(message)]
        return sorted(sent, key=lambda message: message.role != "system")

    tail = Tail()
    for item in log:
        twin = tail.copy()
        tail.add(item)
        closing = tail.sendable()[-1:] if tail.pending else []
        assert tail.sendable() == ordered([*tail.messages, *closing])
        first = tail.run.first if tail.run else len(tail.messages)
        late = [message for message in tail.messages[first:] if message.role == "system"]
        assert tail.run_begins() == len(ordered(tail.messages[:first])) + len(late)
        twin.add(item)
        assert state(twin) == state(tail)


@given(logs)
def test_views_are_pure(log: list[Entry]) -> None:
    lines = [encode(item) for item in log]
    every: list[Callable[[Iterable[Entry]], object]] = [
        history,
        usage,
        stats,
        views.events,
        lambda entries: history(entries, tools=False),
        lambda entries: state(Tail(entries)),
    ]
    for view in every:
        assert view(log) == view(log) == view(iter(log)) == view([decode(line) for line in lines])
    assert [encode(item) for item in log] == lines


@given(logs)
def test_what_was_said_stays_in_front(log: list[Entry]) -> None:
    """Providers' prompt caches live on requests that begin as the last one did."""
    tail = Tail()
    before: list[Message] = []
    for item in log:
        tail.add(item)
        if isinstance(item.body, MessageEntry) and item.body.message.role == "system":
            before = []  # it comes in front of everything
        now = tail.sendable()
        assert now[: len(before)] == before
        before = now if not tail.pending else now[:-1]


@given(logs)
def test_every_message_of_the_user_is_in_the_history(log: list[Entry]) -> None:
    said = [
        item.body.message.text
        for item in log
        if isinstance(item.body, MessageEntry) and item.body.message.role == "user"
    ]
    assert [message.text for message in history(log) if message.role == "user"] == said


@given(logs)
def test_a_result_is_what_the_log_says_first(log: list[Entry]) -> None:
    said = {"one", "two"}
    known = {item.body.result.text for item in log if isinstance(item.body, ToolEnd)} | {
        result.text for item in log if isinstance(item.body, MessageEntry) for result in item.body.message.tool_results
    }
    found = {result.text for message in history(log) for result in message.tool_results}
    assert found & said <= known
    assert all(text.startswith("This call was ") for text in found - said)


@given(logs)
def test_events_of_a_log_are_those_of_its_entries(log: list[Entry]) -> None:
    tail = Tail()
    one_by_one = [event for item in log for event in entry_events(tail, item, "thr_1")]
    assert one_by_one == views.events(log, "thr_1")
    assert state(tail) == state(Tail(log))
    finished = [event.call.id for event in one_by_one if isinstance(event, ToolCallFinished)]
    assert len(finished) == len(set(finished)), "each call finishes once"


# --- entries as lines ---

messages = st.one_of(
    any_messages,
    st.builds(UserMessage, text=texts, metadata=st.dictionaries(texts, texts | st.integers() | st.none(), max_size=2)),
    st.builds(UserMessage, parts=st.lists(st.builds(ImagePart, data=st.binary(max_size=5)), max_size=2)),
    st.builds(lambda text: Message.from_json({"class_": "Unheard of", "role": "user", "odd": {text: [text]}}), texts),
)


@given(
    st.builds(
        Entry,
        n=st.integers(1),
        id=texts,
        at=st.floats(allow_nan=False, allow_infinity=False),
        run_id=st.none() | texts,
        body=bodies | st.builds(MessageEntry, message=messages),
    )
)
def test_every_entry_survives_its_line(item: Entry) -> None:
    line = encode(item)
    assert decode(line) == item
    assert decode(line.decode()) == item
    assert encode(decode(line)) == line
    assert b"\n" not in line


def test_the_form_of_a_line() -> None:
    item = Entry(n=3, id="msg_1", at=1.5, run_id="run_1", body=says(HELLO, usage=Usage(input_tokens=2)))
    assert encode(item).decode() == (
        '{"v":1,"n":3,"id":"msg_1","at":1.5,"run_id":"run_1","kind":"message","body":{"message":{"class_":"UserMessage",'
        '"role":"user","parts":[{"type":"text","text":"hello"}]},"usage":{"input_tokens":2}}}'
    )
    assert encode(Entry(n=1, id="e", at=0.0, body=RunStart())).decode() == (
        '{"v":1,"n":1,"id":"e","at":0.0,"run_id":null,"kind":"run_started","body":{}}'
    )
    assert item.kind == "message"


def test_entries_are_made_with_ids_of_their_own() -> None:
    made = [entry(1, RunStart(agent_name="a"), "run_1"), entry(2, says(HELLO), "run_1"), entry(2, says(HELLO))]
    assert [(item.n, item.run_id, item.body, item.v) for item in made] == [
        (1, "run_1", RunStart(agent_name="a"), 1),
        (2, "run_1", says(HELLO), 1),
        (2, None, says(HELLO), 1),
    ]
    assert [item.id.partition("_")[0] for item in made] == ["ent", "msg", "msg"]
    assert all(len(item.id.partition("_")[2]) == 32 for item in made)
    assert len({item.id for item in made}) == 3
    assert made[0].at <= made[2].at
    assert all(decode(encode(item)) == item for item in made)


def test_an_entry_is_never_changed() -> None:
    item = entry(1, says(UserMessage(text="a", metadata={"k": [1]})))
    with pytest.raises(AttributeError, match="immutable type: 'Entry'"):
        item.n = 2  # type: ignore[misc]
    assert isinstance(item.body, MessageEntry)
    with pytest.raises(TypeError, match="read-only"):
        item.body.message.metadata["k"] = 2  # type: ignore[index]


GOOD = json.loads(encode(Entry(n=1, id="ent_1", at=0.0, body=RunStart())))


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"", "ValueError|JSONDecodeError"),
        (b"null", "TypeError"),
        (b"[]", "TypeError"),
        (b'"text"', "TypeError"),
        (b"\xff\xfe", "Error"),
        ("[" * 100_000, "ValueError"),
        (b"{}", "KeyError"),
        ({**GOOD, "v": 2}, "entry 'ent_1' has version 2, and this plait reads 1 to 1; update plait"),
        ({**GOOD, "v": 0}, "has version 0"),
        ({**GOOD, "v": "1"}, "has version '1'"),
        ({**GOOD, "v": True}, "has version True"),
        ({**GOOD, "kind": "unheard_of"}, r"Invalid value 'unheard_of' - at `\$.body.kind`"),
        ({**GOOD, "kind": None}, r"Expected `str`, got `NoneType` - at `\$.body.kind`"),
        ({**GOOD, "body": []}, "TypeError"),
        ({**GOOD, "body": None}, "TypeError"),
        ({**GOOD, "body": {"more": 1}}, r"unknown field `more` - at `\$.body`"),
        ({**GOOD, "n": "x"}, r"Expected `int`, got `str` - at `\$.n`"),
        ({**GOOD, "more": 1}, "unknown field `more`"),
        ({**GOOD, "kind": "message", "body": {"message": {"role": "robot"}}}, "role: input should be 'system'"),
        ({**GOOD, "kind": "message", "body": {"message": {"class_": 3}}}, "class_"),
        ({**GOOD, "kind": "tool_result", "body": {"result": {"call_id": "a"}, "seconds": "x"}}, "seconds"),
        ('{"v":1,"n":1,"id":"e","at":1e999,"run_id":null,"kind":"run_started","body":{}}', "ValueError"),
        ('{"v":1,"n":1,"id":"e","at":NaN,"run_id":null,"kind":"run_started","body":{}}', "ValueError"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_line_that_is_no_entry(line: Any, why: str) -> None:
    with pytest.raises(CorruptRecord, match=why) as raised:
        decode(json.dumps(line) if isinstance(line, dict) else line)
    assert len(str(raised.value)) < 700
    assert "\n" not in str(raised.value)
    assert raised.value.record == ("ent_1" if isinstance(line, dict) else "")


# --- history ---


def test_a_plain_conversation() -> None:
    log = log_of(RunStart(), says(HELLO), says(ANSWER), RunEnd(stop_reason="response"))
    assert history(log) == [HELLO, ANSWER]
    assert history([]) == []


def test_system_text_comes_first() -> None:
    late = SystemMessage(text="late")
    log = log_of(says(HELLO), says(SystemMessage(text="early")), says(ANSWER), says(late))
    assert history(log) == [SystemMessage(text="early"), late, HELLO, ANSWER]


def test_results_come_in_the_order_of_the_calls() -> None:
    log = log_of(
        says(HELLO),
        says(wanting("a", "b")),
        ToolStart(call_id="a"),
        ToolStart(call_id="b"),
        gave("b", "2"),
        gave("a", "1"),
    )
    assert history(log) == [HELLO, wanting("a", "b"), ToolMessage(parts=[gave("a", "1").result, gave("b", "2").result])]


def synthetic(text: str, call_id: str = "a") -> ToolResult:
    return ToolResult(call_id=call_id, name="f", text=text, is_error=True)


@pytest.mark.parametrize(
    ("reason", "why"),
    [
        ("user_stop", "the run was stopped"),
        ("deadline", "the run's time was up"),
        ("max_tool_calls", "the run had reached its limit of tool calls"),
        ("budget", "the run was interrupted"),
        (None, "the run was interrupted"),
    ],
)
def test_a_call_without_a_result_gets_one(reason: Any, why: str) -> None:
    log = log_of(RunStart(), says(HELLO), says(wanting("a", "b")), ToolStart(call_id="a"), RunEnd(stop_reason=reason))
    expected = [
        synthetic(f"This call was cancelled while it ran; it may or may not have happened: {why}."),
        synthetic(f"This call was not carried out: {why}.", "b"),
    ]
    assert history(log)[-1] == ToolMessage(parts=expected)
    later = [*log, *numbered([(says(HELLO), "run_2")])]
    assert history(later) == [HELLO, wanting("a", "b"), ToolMessage(parts=expected), HELLO]


def test_a_result_that_nobody_asked_for_or_a_second_one_is_not_sent() -> None:
    log = log_of(
        gave("x"),
        says(wanting("a")),
        gave("x"),
        gave("a", "first"),
        gave("a", "second"),
        says(ANSWER),
        gave("a", "late"),
    )
    assert history(log) == [wanting("a"), ToolMessage(parts=[gave("a", "first").result]), ANSWER]


def test_a_resumed_run_goes_on_with_its_calls() -> None:
    begun = log_of(
        RunStart(),
        says(HELLO),
        says(wanting("a")),
        ToolStart(call_id="a"),
        RunEnd(stop_reason="user_stop"),
        RunStart(resumed=True),
    )
    tail = Tail(begun)
    assert tail.waiting == [ToolCall(id="a", name="f")]
    assert tail.started == {"a"}
    assert tail.run is not None
    assert (tail.run.end, tail.run.turns, tail.run.tool_calls) == (None, 0, 0)
    assert history([*begun, *log_of(gave("a"))]) == [HELLO, wanting("a"), ToolMessage(parts=[gave("a").result])]
    other = [*begun[:5], *numbered([(RunStart(), "run_2")])]
    assert Tail(other).waiting == []


def test_calls_of_one_id_are_told_apart_within_an_answer() -> None:
    twice = AssistantMessage(parts=[ToolCall(id="a", name="f"), ToolCall(id="a", name="g"), ToolCall(id="", name="h")])
    log = log_of(says(HELLO), says(twice))
    tail = Tail(log)
    names = [call.id for call in tail.waiting]
    assert [call.name for call in tail.waiting] == ["f", "g", "h"]
    assert names[0] == "a"
    assert len(set(names)) == 3
    assert "" not in names
    assert [call.id for call in Tail(log).waiting] == names, "the same whenever the log is read"
    for name in names:
        tail.add(Entry(n=tail.n + 1, id="e", at=0.0, body=gave(name, name)))
    assert tail.sendable()[-1] == ToolMessage(parts=[gave(name, name).result for name in names])


def test_calls_of_one_id_are_told_apart_from_turn_to_turn() -> None:
    log = log_of(says(wanting("a")), gave("a", "1"), says(wanting("a")), gave("a", "2"))
    found = history(log)
    assert list(faults(found)) == []
    assert [message.text or message.tool_results[0].text for message in found if message.role == "tool"] == ["1", "2"]


def test_a_made_up_id_is_no_other_call_s() -> None:
    tail = Tail(
        log_of(RunStart(), says(HELLO), says(wanting("a")), gave("a"), RunStart(), says(wanting("a", "call_6_1")))
    )
    first, second = [call.id for call in tail.waiting]
    assert second == "call_6_1"
    for n, name in enumerate((first, second), 7):
        tail.add(Entry(n=n, id="e", at=0.0, run_id="run_1", body=ToolStart(call_id=name)))
        assert tail.started == {first, second} if name == second else {first}
    tail.add(Entry(n=9, id="e", at=0.0, run_id="run_1", body=gave(second, "second")))
    assert [call.id for call in tail.waiting] == [first]
    tail.add(Entry(n=10, id="e", at=0.0, run_id="run_1", body=gave(first, "first")))
    assert tail.sendable()[-1] == ToolMessage(parts=[gave(first, "first").result, gave(second, "second").result])


def test_a_made_up_id_that_is_taken_is_not_made_up_again_and_again() -> None:
    log = log_of(says(wanting("call_3_1")), gave("call_3_1"), says(wanting("")))
    (made,) = [call.id for call in Tail(log).waiting]
    assert made not in {"", "call_3_1"}


def test_events_name_calls_as_they_are_named_in_the_thread() -> None:
    log = log_of(says(wanting("")), ToolStart(call_id="call_1_0"), gave("call_1_0"))
    added, started, finished = views.events(log)
    (call,) = wanting("call_1_0").tool_calls
    assert added == MessageAdded(wanting("call_1_0"))
    assert (started, finished) == (ToolCallStarted(call), ToolCallFinished(call, gave("call_1_0").result))


def test_a_history_with_results_that_somebody_handed_over() -> None:
    answered = ToolMessage(parts=[gave("a").result, gave("b").result], metadata={"kept": True})
    log = log_of(RunStart(), says(HELLO), says(wanting("a", "b")), says(answered), says(ANSWER))
    assert history(log) == [HELLO, wanting("a", "b"), answered, ANSWER]
    one_by_one = [says(ToolMessage(parts=[gave(name).result])) for name in ("b", "a")]
    log = log_of(RunStart(), says(HELLO), says(wanting("a", "b")), *one_by_one, says(ANSWER))
    assert history(log) == [HELLO, wanting("a", "b"), ToolMessage(parts=answered.parts), ANSWER]
    stray = ToolMessage(parts=[gave("z").result])
    assert history(log_of(says(stray), says(HELLO), says(stray))) == [HELLO]


def test_calls_and_results_belong_to_their_roles() -> None:
    odd = UserMessage(parts=[TextPart(text="x"), ToolCall(id="a", name="f"), gave("a").result])
    assert history(log_of(says(odd))) == [UserMessage(text="x")]


def test_an_answer_that_says_nothing_is_not_sent() -> None:
    thought = AssistantMessage(parts=[ReasoningPart(text="hm")])
    log = log_of(RunStart(), says(HELLO), says(thought, finish_reason="length"), says(HELLO), says(AssistantMessage()))
    assert history(log) == [HELLO, HELLO]
    assert Tail(log).of_run() == [HELLO, thought, HELLO, AssistantMessage()]


def test_history_without_tools() -> None:
    both = AssistantMessage(parts=[TextPart(text="I look"), ToolCall(id="a", name="f")])
    drawn = AssistantMessage(parts=[ReasoningPart(text="hm"), ImagePart(url="u"), ToolCall(id="b", name="f")])
    only = AssistantMessage(parts=[ReasoningPart(text="hm"), ToolCall(id="c", name="f")])
    log = log_of(says(HELLO), says(both), gave("a"), says(drawn), gave("b"), says(only), gave("c"), says(ANSWER))
    assert history(log, tools=False) == [
        HELLO,
        AssistantMessage(text="I look"),
        AssistantMessage(parts=[ReasoningPart(text="hm"), ImagePart(url="u")]),
        ANSWER,
    ]
    assert without_tools(history(log)) == history(log, tools=False)


def test_sending_changes_nothing() -> None:
    tail = Tail(log_of(says(HELLO), says(wanting("a"))))
    before = state(tail)
    sent = tail.sendable()
    sent.clear()
    tail.of_run().clear()
    assert state(tail) == before
    assert len(tail.messages) == 2


# --- the state of the last run ---


def test_the_last_run() -> None:
    used = Usage(input_tokens=1, output_tokens=2)
    log = [
        *log_of(RunStart(), says(HELLO), says(ANSWER, usage=used)),
        *numbered(
            [
                (RunStart(agent_name="second"), "run_2"),
                (says(HELLO), "run_2"),
                (says(wanting("a", "b"), usage=used), "run_2"),
                (ToolStart(call_id="a"), "run_2"),
                (ToolStart(call_id="b"), "run_2"),
                (gave("a"), "run_2"),
                (gave("b"), "run_2"),
                (says(ANSWER, usage=used, finish_reason="stop"), "run_2"),
                (says(UserMessage(text="again", metadata={REPAIR: True})), "run_2"),
                (says(ANSWER), "run_2"),
                (RunEnd(stop_reason="response"), "run_2"),
            ]
        ),
    ]
    tail = Tail(log)
    run = tail.run
    assert run is not None
    assert (run.run_id, run.agent_name, run.turns, run.tool_calls, run.repairs, run.usage, run.last, run.end) == (
        "run_2",
        "second",
        3,
        2,
        1,
        used + used,
        says(ANSWER),
        RunEnd(stop_reason="response"),
    )
    assert [message.role for message in tail.of_run()] == [
        "user",
        "assistant",
        "tool",
        "assistant",
        "user",
        "assistant",
    ]
    assert tail.of_run() == history(log)[2:]
    assert Tail().of_run() == []


def test_answers_that_came_with_the_prompt_are_no_turns() -> None:
    handed_over = [
        says(HELLO),
        says(wanting("a")),
        says(ToolMessage(parts=[gave("a").result])),
        says(ANSWER),
        says(HELLO),
    ]
    tail = Tail(log_of(RunStart(), *handed_over))
    assert tail.run is not None
    assert (tail.run.turns, tail.run.tool_calls, tail.run.last) == (0, 0, None)
    for item in log_of(says(wanting("b")), gave("b"), says(ANSWER)):
        tail.add(item)
    assert (tail.run.turns, tail.run.last) == (2, says(ANSWER))
    assert tail.of_run() == [HELLO, wanting("a"), handed_over[2].message, ANSWER, HELLO, *tail.of_run()[-3:]]


def test_the_messages_of_a_run_keep_their_order_when_system_text_is_among_them() -> None:
    late = SystemMessage(text="late")
    log = [
        *log_of(RunStart(), says(HELLO), says(ANSWER)),
        *log_of(RunStart(), says(late), says(HELLO), says(ANSWER), run="run_2"),
    ]
    assert Tail(log).of_run() == [late, HELLO, ANSWER]
    assert history(log) == [late, HELLO, ANSWER, HELLO, ANSWER]


def test_the_same_call_running_is_counted() -> None:
    def turn(call_id: str, arguments: str = "{}", name: str = "f") -> tuple[MessageEntry, ToolEnd]:
        return says(AssistantMessage(parts=[ToolCall(id=call_id, name=name, arguments=arguments)])), gave(call_id)

    def times(*turns: tuple[MessageEntry, ToolEnd]) -> int:
        tail = Tail(log_of(RunStart(), *[body for one in turns for body in one]))
        (count,) = tail.repeats.values()
        return count

    assert times(turn("a")) == 1
    assert times(turn("a"), turn("b"), turn("c")) == 3
    assert times(turn("a"), turn("b", '{"x":1}'), turn("c")) == 1
    assert times(turn("a"), turn("b", name="g"), turn("c", name="g")) == 2


# --- usage, statistics, events ---


def test_usage_of_a_log() -> None:
    log = log_of(
        says(HELLO),
        says(ANSWER, usage=Usage(input_tokens=1, cost=0.5)),
        says(ANSWER),
        says(ANSWER, usage=Usage(input_tokens=2, cost=0.25)),
    )
    assert usage(log) == Usage(input_tokens=3, requests=2, cost=0.75)
    assert usage(log_of(says(HELLO))) is None


def test_statistics_of_a_log() -> None:
    log = log_of(
        RunStart(),
        says(HELLO),
        says(wanting("a")),
        ToolStart(call_id="a"),
        gave("a"),
        says(ANSWER),
        RunEnd(),
        RunStart(resumed=True),
    )
    assert stats(log) == Stats(entries=8, messages=3, runs=1, tool_calls=1, seconds=7.0)
    assert stats([]) == Stats(entries=0, messages=0, runs=0, tool_calls=0, seconds=0.0)


def test_events_of_a_log() -> None:
    used = Usage(input_tokens=1)
    call, result = ToolCall(id="a", name="f"), gave("a").result
    log = log_of(
        RunStart(agent_name="agent"),
        says(HELLO),
        says(wanting("a"), usage=used, finish_reason="tool_calls"),
        ToolStart(call_id="z"),
        ToolStart(call_id="a"),
        ToolEnd(result=result, seconds=0.5),
        gave("a"),
        RunEnd(stop_reason="response"),
        RunStart(agent_name="agent", resumed=True),
        RunEnd(error="Refused: no"),
    )
    assert views.events(log, "thr_1") == [
        RunStarted("run_1", "thr_1", "agent"),
        MessageAdded(HELLO),
        MessageAdded(wanting("a"), used, "tool_calls"),
        ToolCallStarted(call),
        ToolCallFinished(call, result, 0.5),
        RunFinished("response", used),
        RunStarted("run_1", "thr_1", "agent", resumed=True),
        RunFinished(None, used, "Refused: no"),
    ]


@pytest.mark.parametrize(
    "make", [lambda: numbered([]), lambda: log_of(RunEnd(stop_reason="response"), ToolStart(call_id="a"))]
)
def test_logs_without_a_run(make: Callable[[], list[Entry]]) -> None:
    tail = Tail(make())
    assert (tail.run, tail.sendable(), tail.waiting) == (None, [], [])


def test_metadata_in_a_stored_message_is_frozen_again() -> None:
    item = decode(encode(entry(1, says(UserMessage(text="a", metadata={"k": {"x": [1]}})))))
    assert isinstance(item.body, MessageEntry)
    assert type(item.body.message.metadata) is type(item.body.message.metadata["k"]) is FrozenDict


def test_a_summary_hides_entries_that_can_be_looked_at_behind_it() -> None:
    said = [UserMessage(text="one"), AssistantMessage(text="two"), UserMessage(text="three")]
    bodies: list[Body] = [RunStart("a"), *map(MessageEntry, said)]
    note = ContextNote(by="summary", summary="They counted.", first=2, last=3, usage=Usage(output_tokens=3))
    log = [entry(n, body, "run_1") for n, body in enumerate([*bodies, note], 1)]
    assert hidden(log, note) == said[:2]
    assert history(log) == said
    assert usage(log) == Usage(output_tokens=3)
    assert views.events(log)[-1] == MessagesSummarised(2, 3, Usage(output_tokens=3))
    assert [decode(encode(item)) for item in log] == log
    tail = Tail(log)
    assert (tail.summary, tail.numbers) == (note, [2, 3, 4])
    assert tail.run is not None
    assert tail.run.usage == Usage(output_tokens=3)
