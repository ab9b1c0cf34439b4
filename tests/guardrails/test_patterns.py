from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from plait.agent import Agent
from plait.errors import ConfigurationError
from plait.guardrails.checks import Event, InputCheck, OutputCheck, ToolCallCheck, ToolResultCheck, changed_by
from plait.guardrails.guarding import Guardrails
from plait.guardrails.patterns import MAX_PATTERN, MAX_PATTERNS, Patterns, Within, forbid, redact
from plait.hooks import Veto
from plait.messages import (
    AssistantMessage,
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
from plait.providers.offline import OfflineProvider
from plait.run import RunContext

CONTEXT = RunContext(deps=None)
MAIL = r"\S+@\S+\.\w+"
KEY = "sk-[A-Za-z0-9]{8,}"
VETO = Veto(reason="it holds what is not allowed here")


def asked(*messages: Message) -> InputCheck:
    return InputCheck(context=CONTEXT, messages=messages)


def answered(*parts: Any) -> OutputCheck:
    return OutputCheck(context=CONTEXT, message=AssistantMessage(parts=parts))


def called(arguments: str) -> ToolCallCheck:
    return ToolCallCheck(context=CONTEXT, call=ToolCall(id="a", name="f", arguments=arguments))


def gave(*parts: Any) -> ToolResultCheck:
    call = ToolCall(id="a", name="f")
    return ToolResultCheck(context=CONTEXT, call=call, result=ToolResult(call_id="a", name="f", parts=parts))


# --- forbidding ---


@pytest.mark.parametrize(
    "event",
    [
        asked(UserMessage(text="my key is sk-12345678, keep it")),
        asked(UserMessage(text="hi"), AssistantMessage(text="yes?"), UserMessage(text="sk-12345678")),
        asked(UserMessage(parts=[TextPart(text="look"), FilePart(data=b"sk-12345678", media_type="text/csv")])),
        asked(UserMessage(parts=[TextPart(text="look"), FilePart(data=b"key: sk-12345678")])),
        asked(UserMessage(parts=[TextPart(text="look"), FilePart(data=b"\xffsk-12345678", media_type="text/plain")])),
        asked(UserMessage(parts=[TextPart(text="look"), FilePart(file_id="f1", name="sk-12345678.pdf")])),
        asked(ToolMessage(parts=[ToolResult(call_id="a", text="sk-12345678")]), UserMessage(text="hi")),
        answered(TextPart(text="it is sk-12345678")),
        answered(TextPart(text="not sk-12345678", refusal=True)),
        answered(ReasoningPart(text="sk-12345678?"), TextPart(text="hm")),
        called('{"key":"sk-12345678"}'),
        called(r'{"k":["\u0073\u006b\u002d12345678"]}'),
        called('{"sk-12345678":1}'),
        called("sk-12345678 is no JSON"),
        gave(TextPart(text="sk-12345678")),
        gave(TextPart(text="half \ud800 a letter: sk-12345678")),
    ],
)
def test_what_matches_is_refused_anywhere(event: Event) -> None:
    assert forbid(KEY)(event) == VETO


@pytest.mark.parametrize(
    "event",
    [
        asked(UserMessage(text="my key is secret")),
        asked(SystemMessage(text="keys look like sk-12345678"), UserMessage(text="hi")),
        asked(UserMessage(parts=[TextPart(text="look"), FilePart(data=b"%PDF-\xff sk-12345678")])),
        asked(UserMessage(parts=[TextPart(text="look"), ImagePart(data=b"sk-12345678")])),
        answered(TextPart(text="sk-123")),
        called("{}"),
        called("[" * 100_000),
        gave(),
    ],
)
def test_what_does_not_match_passes(event: Event) -> None:
    assert forbid(KEY)(event) is None


async def test_a_refusal_says_what_the_developer_said_and_not_what_was_found() -> None:
    no_keys = forbid(MAIL, KEY, name="no keys", reason="keys are not for chats")
    guardrails = Guardrails(input=[no_keys])
    assert await guardrails.check_input(CONTEXT, [UserMessage(text="sk-12345678")]) == Veto(
        reason="refused by the check 'no keys': keys are not for chats"
    )
    assert repr(no_keys) == "<check 'no keys'>"


def test_case_is_ignored_where_the_pattern_says_so() -> None:
    assert forbid("(?i)secret")(asked(UserMessage(text="SeCrEt"))) == VETO
    assert forbid("secret")(asked(UserMessage(text="SeCrEt"))) is None


BLOW_UPS = [
    (r"^(a+)+$", "a" * 100_000 + "!"),
    (r"^(a|aa)+$", "a" * 100_000 + "!"),
    (r"^(a|a?)+$", "a" * 100_000 + "!"),
    (r"^([a-zA-Z]+)*$", "a" * 100_000 + "!"),
    (r"(.*a){12}$", "a" * 100_000 + "!"),
    (r"^(\w+\s?)*$", "word " * 20_000 + "!"),
    (r"(x+x+)+y", "x" * 100_000),
    (r"^(([a-z])+.)+[A-Z]([a-z])+$", "a" * 100_000),
    (r"[ab]*a[ab]{300}c", "ab" * 50_000),
]


@pytest.mark.fault("S14")
@pytest.mark.parametrize(("pattern", "text"), BLOW_UPS)
def test_no_text_holds_a_check_up(pattern: str, text: str) -> None:
    """With Python's own engine most of these would not return before the test's time is up."""
    assert len(text) >= 100_000
    assert not Patterns([pattern]).match(text)
    assert redact(pattern, within="line").text(text) == text


@pytest.mark.fault("S14")
def test_words_and_lines_are_searched_once_each() -> None:
    text = "ada@example.org \t\n" * 10_000
    assert redact(MAIL).text(text) == "[redacted] \t\n" * 10_000
    assert redact(MAIL, within="line").text(text) == "[redacted]\n" * 10_000


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("(?=a)b", "look-around, including look-ahead and look-behind, is not supported"),
        ("(?<!a)b", "look-around, including look-ahead and look-behind, is not supported"),
        (r"(a)\1", "backreferences are not supported"),
        ("(", "unclosed group"),
    ],
)
def test_what_has_no_linear_search_is_refused(pattern: str, why: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        forbid(pattern)
    assert str(raised.value) == (
        f"the pattern {pattern!r} cannot be used: {why} (patterns are searched in linear time, in the syntax of "
        "https://docs.rs/regex)"
    )


@pytest.mark.fault("S14")
@pytest.mark.parametrize("pattern", [r"\w{100}", "(?:a{50}){50}{50}", "(?x) .{0,999} # all"])
def test_a_pattern_that_grows_large_is_refused(pattern: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        redact(pattern)
    assert "Compiled regex exceeds size limit" in str(raised.value) or str(raised.value) == (
        f"the pattern {pattern!r} is too large once its repetitions are written out; say fewer, or narrower classes: "
        "[0-9] in place of \\d, [A-Za-z0-9_] in place of \\w"
    )


@pytest.mark.parametrize(
    "pattern",
    [
        r"(?i)\bignore\b.{0,200}\binstructions\b",
        r"(?:\d[ -]?){13,16}",
        r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}\b",
        r"(?x) sk - \d+  # a key",
        r"^\s*BEGIN [A-Z ]+ KEY",
        r"\p{Cyrillic}+",
    ],
)
def test_usual_patterns_are_not_too_large(pattern: str) -> None:
    Patterns([pattern])


@pytest.mark.parametrize(
    ("patterns", "why"),
    [
        ([], f"give 1 to {MAX_PATTERNS} patterns, not 0"),
        (["a"] * (MAX_PATTERNS + 1), f"give 1 to {MAX_PATTERNS} patterns, not {MAX_PATTERNS + 1}"),
        ([""], "a pattern has 1 to 1,000 characters; '' has 0"),
        (["a" * (MAX_PATTERN + 1)], f"a pattern has 1 to 1,000 characters; '{'a' * 79}… has 1,001"),
        ([3], "a pattern is a text, not int"),
    ],
)
def test_patterns_are_texts_and_bounded(patterns: Any, why: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        forbid(*patterns)
    assert str(raised.value) == why


# --- redacting ---


@pytest.mark.parametrize(
    ("within", "text", "left"),
    [
        ("word", "write to ada@example.org, or\nbob@example.org!", "write to [redacted] or\n[redacted]"),
        ("line", "write to ada@example.org, or\r\nto nobody", "[redacted]\r\nto nobody"),
        ("word", "nothing  to\tsee", "nothing  to\tsee"),
        ("word", "", ""),
        ("word", " ada@example.org ", " [redacted] "),
    ],
)
def test_words_or_lines_are_taken_out_whole(within: Within, text: str, left: str) -> None:
    assert redact(MAIL, within=within).text(text) == left


@given(st.lists(st.sampled_from(["a", "ada@example.org", "sk-12345678abc", " ", "\n", "\ud800", ","])))
def test_nothing_that_matches_is_left(pieces: list[str]) -> None:
    made = redact(MAIL, KEY, replacement="***").text("".join(pieces))
    assert redact(MAIL, KEY).text(made) == made
    assert "@" not in made
    assert "sk-" not in made


async def test_each_place_is_redacted() -> None:
    no_mail = redact(MAIL, replacement="***")
    guardrails = Guardrails(input=[no_mail], output=[no_mail], tool_call=[no_mail], tool_result=[no_mail])
    image = ImagePart(data=b"x")
    prompt = [
        SystemMessage(text="be kind, ask boss@example.org"),
        ToolMessage(parts=[ToolResult(call_id="a", text="of ada@example.org")]),
        UserMessage(
            parts=[
                TextPart(text="I am ada@example.org"),
                image,
                FilePart(data=b"by ada@example.org", media_type="text/plain"),
            ],
            metadata={"k": 1},
        ),
    ]
    assert await guardrails.check_input(CONTEXT, prompt) == (
        SystemMessage(text="be kind, ask boss@example.org"),
        ToolMessage(parts=[ToolResult(call_id="a", text="of ***")]),
        UserMessage(
            parts=[TextPart(text="I am ***"), image, FilePart(data=b"by ***", media_type="text/plain")],
            metadata={"k": 1},
        ),
    )
    call = ToolCall(id="a", name="f", arguments='{"to":["ada@example.org",1],"from":{"bob@example.org":null}}')
    thoughts = ReasoningPart(text="tell ada@example.org", details={"signature": "s"})
    answer = AssistantMessage(parts=[thoughts, TextPart(text="to ada@example.org", details={"at": 3}), call])
    assert await guardrails.check_output(CONTEXT, answer) == AssistantMessage(parts=[TextPart(text="to ***"), call])
    made = await guardrails.check_call(CONTEXT, call, None)
    assert isinstance(made, ToolCall)
    assert json.loads(made.arguments) == {"to": ["***", 1], "from": {"bob@example.org": None}}
    no_json = ToolCall(id="a", name="f", arguments="to ada@example.org")
    assert await guardrails.check_call(CONTEXT, no_json, None) == ToolCall(id="a", name="f", arguments="to ***")
    result = ToolResult(call_id="a", name="f", parts=[TextPart(text="of ada@example.org"), image], is_error=True)
    assert await guardrails.check_result(CONTEXT, call, result) == ToolResult(
        call_id="a", name="f", parts=[TextPart(text="of ***"), image], is_error=True
    )


@pytest.mark.parametrize(
    "event",
    [
        asked(UserMessage(text="hi"), UserMessage(parts=[FilePart(data=b"\xff"), TextPart(text="x")])),
        answered(ReasoningPart(text="hm"), TextPart(text="hello"), ToolCall(id="a", name="f")),
        called('{ "x" : 1.0 }'),
        called("no JSON"),
        gave(TextPart(text="found"), ImagePart(url="https://example.org/ada@example.org")),
    ],
)
def test_what_holds_nothing_stays_as_it_is(event: Event) -> None:
    assert redact(MAIL)(event) is None


def test_redact_takes_words_or_lines() -> None:
    with pytest.raises(ConfigurationError) as raised:
        redact("a", within="page")  # type: ignore[arg-type]
    assert str(raised.value) == "redact(within=...) takes 'word' or 'line', not 'page'"
    assert repr(redact("a", name="names")) == "<check 'names'>"


# --- parts that are read as one text ---

SPLIT = [
    asked(UserMessage(parts=[TextPart(text="the key is sk-12"), TextPart(text="345678")])),
    asked(UserMessage(parts=[TextPart(text="sk-12"), ImagePart(data=b"x"), TextPart(text="345678")])),
    answered(TextPart(text="sk-1"), TextPart(text="23456"), TextPart(text="78")),
    answered(TextPart(text="sk-12"), ReasoningPart(text="hm"), TextPart(text="345678")),
    answered(TextPart(text="sk-12", refusal=True), TextPart(text="345678", refusal=True)),
    answered(ReasoningPart(text="sk-12"), TextPart(text="hm"), ReasoningPart(text="345678")),
    gave(TextPart(text="sk-12"), TextPart(text="345678")),
]


@pytest.mark.fault("S14")
@pytest.mark.parametrize("event", SPLIT)
def test_what_parts_say_together_is_found(event: Event) -> None:
    assert forbid(KEY)(event) == VETO
    changed = changed_by(event, redact(KEY)(event))  # type: ignore[type-var]  # it is one of them
    assert changed is not None
    assert forbid(KEY)(changed) is None


def test_parts_stay_apart_where_nothing_spans_them() -> None:
    event = answered(TextPart(text="to sk-12345678 "), TextPart(text="or"), TextPart(text=" sk-87654321"))
    made = AssistantMessage(parts=[TextPart(text="to [redacted] "), TextPart(text="or"), TextPart(text=" [redacted]")])
    assert redact(KEY)(event) == made


def test_what_spans_parts_is_taken_out_whole_and_they_become_one() -> None:
    thought = ReasoningPart(text="hm")
    event = answered(TextPart(text="it is sk-12345678"), thought, TextPart(text="90 , so"))
    assert redact(KEY)(event) == AssistantMessage(parts=[TextPart(text="it is [redacted] , so"), thought])


def test_a_word_that_begins_with_its_part_is_found_too() -> None:
    event = answered(TextPart(text="my"), TextPart(text="secret"))
    assert forbid("^secret$")(event) == VETO
    assert redact("^secret$")(event) == AssistantMessage(parts=[TextPart(text="[redacted]")])


@pytest.mark.parametrize("arguments", ['{"key":"sk-12345678"}', r'{"k":["\u0073k-12345678"]}', "sk-12345678"])
def test_what_an_answer_asks_of_a_tool_belongs_to_its_texts(arguments: str) -> None:
    event = answered(TextPart(text="I look"), ToolCall(id="a", name="f", arguments=arguments))
    assert forbid(KEY)(event) == VETO


# --- JSON ---


@pytest.mark.parametrize(
    ("pattern", "text", "left"),
    [
        (MAIL, '{"from":"ada@example.org","n":3}', '{"from":"[redacted]","n":3}'),
        (MAIL, '[{"a": ["I am ada@example.org", null]}]', '[{"a":["I am [redacted]",null]}]'),
        (MAIL, r' {"a":"\u0061da\u0040example.org"}', '{"a":"[redacted]"}'),
        (MAIL, '{"ada@example.org": true}', '{"[redacted]":true}'),
        (MAIL, '{ "nothing" : 1.50 }', '{ "nothing" : 1.50 }'),
        ("[0-9]{7}", '{"phone":5551234,"n":3}', '{"phone":"[redacted]","n":3}'),
        ('"key":"', '{"key":"x","n": 3}', "[redacted] 3}"),
        (MAIL, '{"a": ada@example.org}', '{"a": [redacted]'),
        (MAIL, "[" * 100_000, "[" * 100_000),
    ],
)
def test_json_stays_json(pattern: str, text: str, left: str) -> None:
    assert redact(pattern).text(text) == left
    assert redact(pattern)(answered(TextPart(text=text))) == (
        None if left == text else AssistantMessage(parts=[TextPart(text=left)])
    )


def test_json_in_several_parts_stays_json() -> None:
    event = answered(TextPart(text='{"from":"ada@exa'), TextPart(text='mple.org"}'))
    assert redact(MAIL)(event) == AssistantMessage(parts=[TextPart(text='{"from":"[redacted]"}')])


class Call(BaseModel):
    title: str
    n: int


async def test_an_answer_of_a_type_is_redacted_and_still_of_it() -> None:
    agent = Agent(
        provider=OfflineProvider(['{"title":"call 555-1234","n":3}']),
        output=Call,
        guardrails=Guardrails(output=[redact("[0-9]{3}-[0-9]{4}")]),
    )
    assert await agent.chat("hi") == Call(title="call [redacted]", n=3)
