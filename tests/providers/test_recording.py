from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait import Agent, PlaitError, RunLimits, StopSignal, ToolCall, tool
from plait.errors import (
    ConfigurationError,
    CorruptRecord,
    EmptyAnswer,
    LimitExceeded,
    MissingExtra,
    ModelError,
    OutputInvalid,
    ProtocolViolation,
    ProviderError,
    RateLimited,
    Refused,
    ReplayMismatch,
    StoreError,
    StoreUnavailable,
    StreamTruncated,
    TransportError,
)
from plait.events import (
    AttemptDelta,
    Delta,
    DetailsDelta,
    FinishDelta,
    ModelDelta,
    PartDelta,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    Usage,
    UsageDelta,
)
from plait.messages import (
    AssistantMessage,
    ImagePart,
    ReasoningPart,
    ServerToolPart,
    SystemMessage,
    TextPart,
    ToolMessage,
    ToolResult,
    UserMessage,
)
from plait.plain import FrozenDict
from plait.providers.base import Request, Settings, ToolDefinition
from plait.providers.chat import ChatProvider
from plait.providers.offline import OfflineProvider
from plait.providers.recording import Recording, Replay, cassette
from plait.providers.retry import Retrying, RetryPolicy
from plait.providers.tape import first_difference, request_data
from plait.schema import output_schema
from plait.testing import FaultServer, fault, tool_calls

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from plait.providers.base import Provider

PATIENCE = 10.0
FILE = "run.jsonl"
HI = Request(messages=[UserMessage(text="hi")])
ANSWER: list[Any] = [[ModelDelta("m1", "id", "acme"), TextDelta("Hel")], [TextDelta("lo"), FinishDelta("stop")]]


class Script:
    """A provider whose answers are written down: batches, and then perhaps an error."""

    name = "acme"
    model = "m1"

    def __init__(self, *answers: list[Any]) -> None:
        self.answers = iter(answers)
        self.closed = 0

    async def stream(self, request: Request) -> AsyncGenerator[list[Delta], None]:
        try:
            for step in next(self.answers):
                if isinstance(step, BaseException):
                    raise step
                if step == "hang":
                    await asyncio.Event().wait()
                yield step
        finally:
            self.closed += 1


async def gather(provider: Provider, request: Request = HI) -> tuple[list[Any], Any]:
    """Give the batches that came, and the error that came after them."""
    got: list[Any] = []
    try:
        async for batch in provider.stream(request):
            got.append(batch)  # noqa: PERF401  # what came before an error is kept
    except PlaitError as error:
        return got, error
    return got, None


def asks(*texts: str, **options: Any) -> Request:
    return Request(messages=[UserMessage(text=text) for text in texts], **options)


async def record(*answers: list[Any], requests: list[Request] | None = None, path: str = FILE) -> None:
    provider = Recording(Script(*answers), path)
    for request in requests or [HI] * len(answers):
        await gather(provider, request)


def content() -> str:
    return Path(FILE).read_text("utf-8")


def lines() -> list[Any]:
    return [json.loads(line) for line in content().splitlines()]


def write(text: str | bytes) -> None:
    Path(FILE).write_bytes(text.encode() if isinstance(text, str) else text)


# --- what was given is given again -----------------------------------------------------------------------------------


async def test_an_exchange_is_a_line_and_is_given_again_in_the_same_batches() -> None:
    request = asks("hi", tools=[ToolDefinition(name="now")], settings=Settings(temperature=0, stop=("x",)))
    recording = Recording(Script(ANSWER), FILE)
    assert await gather(recording, request) == (ANSWER, None)
    assert lines() == [
        {
            "v": 1,
            "provider": "acme",
            "model": "m1",
            "request": {
                "messages": [{"role": "user", "parts": [{"type": "text", "text": "hi"}]}],
                "tools": [{"name": "now", "parameters": {"type": "object", "properties": {}}}],
                "output": None,
                "settings": {"temperature": 0, "stop": ["x"]},
            },
            "batches": [
                [
                    {"type": "model", "model": "m1", "response_id": "id", "provider": "acme"},
                    {"type": "text", "text": "Hel"},
                ],
                [{"type": "text", "text": "lo"}, {"type": "finish", "finish_reason": "stop"}],
            ],
        }
    ]
    replay = Replay(FILE)
    assert (replay.name, replay.model, replay.unused) == ("acme", "m1", 1)
    assert await gather(replay, request) == (ANSWER, None)
    assert replay.unused == 0


DELTAS: list[Any] = [
    TextDelta("a\n\u2028\ud83d\x00"),
    TextDelta("b", 1),
    RefusalDelta("no"),
    ReasoningDelta("hm"),
    ToolCallDelta(3, "id", "name", '{"a"', 1, {"signature": "s"}),
    PartDelta(TextPart(text="t", details={"citations": [{"url": "u"}]})),
    PartDelta(ReasoningPart(text="r", details={"signature": "s"}), 1),
    PartDelta(ServerToolPart(name="web_search", details={"query": "q"})),
    PartDelta(ImagePart(data=b"\xff\x00")),
    DetailsDelta({"a": [1, None, {"b": 1.5}]}, 2),
    UsageDelta(Usage(input_tokens=5, requests=2, cost=0.25)),
    ModelDelta("m", "id", "p"),
    AttemptDelta(2),
    FinishDelta("stop", 1),
]


def test_every_kind_of_delta_is_tried() -> None:
    assert {type(delta) for delta in DELTAS} == set(Delta.__args__)


async def test_every_kind_of_delta_comes_back_as_it_was() -> None:
    await record([DELTAS, [], *[[delta] for delta in DELTAS]])
    got, error = await gather(Replay(FILE))
    assert (got, error) == ([DELTAS, [], *[[delta] for delta in DELTAS]], None)
    assert [type(delta) for delta in got[0]] == [type(delta) for delta in DELTAS]
    assert content().count("\n") == 1


LIMITED = RateLimited("slow", status=429, code="busy", body="b", retry_after=90.0, provider="acme", request_id="r")
LIMITED.attempts = 3
LIMITED.longest_wait = 60.0
NOTED = ProviderError("no", status=401)
NOTED.add_note("before it, two failed")
ERRORS: list[PlaitError] = [
    LIMITED,
    NOTED,
    TransportError("gone", timeout=True),
    TransportError("bad certificate", retryable=False),
    ProtocolViolation("no JSON", excerpt="<html>"),
    StreamTruncated("cut", partial="Hel", timeout=True),
    EmptyAnswer("nothing"),
    Refused("declined", text="I will not"),
    OutputInvalid("no", text="x"),
    LimitExceeded("too large", limit=16e6),
    ConfigurationError("acme takes no PDF"),
    MissingExtra("tokens", "counting"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("before", [[], ANSWER])
async def test_an_error_comes_back_with_its_type_and_fields(error: PlaitError, before: list[Any]) -> None:
    await record([*before, error])
    got, again = await gather(Replay(FILE))
    assert got == before
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


async def test_an_error_of_ones_own_comes_back_as_the_one_it_derives_from() -> None:
    class Busy(ProviderError):
        """Of a user's own provider."""

    await record([Busy("busy", status=503, partial=AssistantMessage(text="a"))])
    _, error = await gather(Replay(FILE))
    assert (type(error), error.status, error.partial) == (ProviderError, 503, None)


async def test_what_its_reader_left_ends_there() -> None:
    script = Script([*ANSWER, "hang"])
    stream = Recording(script, FILE).stream(HI)
    await anext(stream)
    await stream.aclose()
    assert (script.closed, lines()[0]["cut"], len(lines()[0]["batches"])) == (1, True, 1)
    got, error = await asyncio.wait_for(gather(Replay(FILE)), PATIENCE)
    assert got == ANSWER[:1]
    said = (
        "exchange 1 of the recording 'run.jsonl' ends here, after 1 batches: when it was recorded, the answer was not "
        "read to its end"
    )
    assert (type(error), str(error), error.where) == (ReplayMismatch, said, "")


async def test_what_was_cancelled_is_recorded_and_stays_cancelled() -> None:
    begun = asyncio.Event()
    provider = Recording(Script([ANSWER[0], "hang"]), FILE)

    async def read() -> None:
        async for _ in provider.stream(HI):
            begun.set()

    task = asyncio.create_task(read())
    await asyncio.wait_for(begun.wait(), PATIENCE)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, PATIENCE)
    assert [(line["cut"], len(line["batches"])) for line in lines()] == [(True, 1)]


# --- finding the exchange --------------------------------------------------------------------------------------------


async def test_requests_may_come_in_another_order() -> None:
    texts = ["a", "b", "c", "a"]
    answers = [[[TextDelta(f"{text}{number}")]] for number, text in enumerate(texts)]
    await record(*answers, requests=[asks(text) for text in texts])
    replay = Replay(FILE)
    got = await asyncio.gather(*(gather(replay, asks(text)) for text in ("c", "a", "a", "b")))
    assert [batches[0][0].text for batches, _ in got] == ["c2", "a0", "a3", "b1"]


LONG = "You are a guide. " * 50


def history(system: str, city: str = "Lisbon", **call: Any) -> list[Any]:
    asked = ToolCall(**{"id": "a", "name": "weather", "arguments": f'{{"city": "{city}"}}', **call})
    return [
        SystemMessage(text=system),
        UserMessage(text="How is it?"),
        AssistantMessage(parts=[asked], provider="acme", model="m1"),
        ToolMessage(parts=[ToolResult(call_id="a", name="weather", text=f"sunny in {city}")]),
    ]


WEATHER = ToolDefinition(name="weather", description="Tell the weather.")
RECORDED = Request(messages=history(LONG + "It is 12:00."), tools=[WEATHER], settings=Settings(max_tokens=10))
SYSTEM = RECORDED.messages[:1]


def changed(**options: Any) -> Request:
    same = {name: getattr(RECORDED, name) for name in ("messages", "tools", "output", "settings")}
    return Request(**{**same, **options})


@pytest.mark.parametrize(
    ("request_", "where", "recorded", "asked"),
    [
        (
            changed(messages=history(LONG + "It is 12:01.")),
            "messages[0].parts[0].text",
            '… a guide. It is 12:00."',
            '… a guide. It is 12:01."',
        ),
        (
            changed(messages=[*SYSTEM, *history("", "Porto")[1:]]),
            "messages[2].parts[0].arguments",
            '"{\\"city\\": \\"Lisbon\\"}"',
            '"{\\"city\\": \\"Porto\\"}"',
        ),
        (
            changed(messages=[*SYSTEM, *history("", details={"signature": "s"})[1:]]),
            "messages[2].parts[0].details",
            "nothing",
            '{"signature": "s"}',
        ),
        (
            changed(messages=RECORDED.messages[:3]),
            "messages[3]",
            '{"role": "tool", "parts": [{"type": "tool_result", "call_id": "a", "name": "wea…',
            "nothing",
        ),
        (
            changed(messages=[SYSTEM[0], UserMessage(text="How  is it?")]),
            "messages[1].parts[0].text",
            '"How is it?"',
            '"How  is it?"',
        ),
        (
            changed(messages=[SYSTEM[0], UserMessage(text="How is it\u202e?")]),
            "messages[1].parts[0].text",
            '"How is it?"',
            '"How is it\\u202e?"',
        ),
        (changed(messages=[SYSTEM[0], SystemMessage(text="How is it?")]), "messages[1].role", '"user"', '"system"'),
        (
            changed(tools=[]),
            "tools[0]",
            '{"name": "weather", "description": "Tell the weather.", "parameters": {"type": …',
            "nothing",
        ),
        (
            changed(tools=[ToolDefinition(name="weather", description="Tell it.")]),
            "tools[0].description",
            '"Tell the weather."',
            '"Tell it."',
        ),
        (
            changed(tools=[ToolDefinition(name="weather", description="Tell the weather.", parameters={"my-key": 1})]),
            "tools[0].parameters.type",
            '"object"',
            "nothing",
        ),
        (
            changed(settings=Settings(max_tokens=10, extra=FrozenDict({"my-key": {"a": 1}}))),
            "settings.extra",
            "nothing",
            '{"my-key": {"a": 1}}',
        ),
        (changed(settings=Settings(max_tokens=10, temperature=0)), "settings.temperature", "nothing", "0"),
    ],
)
async def test_the_first_difference_is_told(request_: Request, where: str, recorded: str, asked: str) -> None:
    await record(ANSWER, ANSWER, requests=[RECORDED, HI])
    replay = Replay(FILE)
    got, error = await gather(replay, request_)
    assert got == []
    assert (type(error), error.where, error.recorded, error.asked) == (ReplayMismatch, where, recorded, asked)
    assert str(error) == (
        f"request 1 is not in the recording 'run.jsonl': {where} differs from its exchange 1, the next one: recorded "
        f"was {recorded}, asked is {asked}"
    )
    assert replay.unused == 2
    assert await gather(replay, RECORDED) == (ANSWER, None)


async def test_the_form_of_an_answer_is_part_of_the_request() -> None:
    one, other = output_schema(list[int]), output_schema(list[str])
    await record(ANSWER, requests=[asks("hi", output=one)])
    replay = Replay(FILE)
    _, error = await gather(replay, asks("hi", output=other))
    assert error.where.startswith("output.")
    assert await gather(replay, asks("hi", output=output_schema(list[int]))) == (ANSWER, None)


async def test_what_no_provider_sends_makes_no_difference() -> None:
    said = [UserMessage(text="hi", metadata={"at": "12:00"}), AssistantMessage(text="a", provider="acme", model="m1")]
    again = [UserMessage(text="hi", metadata={"at": "12:01"}), AssistantMessage(text="a", provider="x", model="m2")]
    await record(ANSWER, requests=[Request(messages=said)])
    assert "12:00" not in content()
    assert await gather(Replay(FILE), Request(messages=again)) == (ANSWER, None)


async def test_a_recording_that_is_used_up_says_how_much_it_held() -> None:
    await record(ANSWER, ANSWER)
    replay = Replay(FILE)
    await gather(replay)
    await gather(replay)
    _, error = await gather(replay)
    said = "the recording 'run.jsonl' is used up: it holds 2 exchanges, and this is request 3"
    assert (type(error), str(error), error.where) == (ReplayMismatch, said, "")
    assert repr(replay) == "Replay('run.jsonl', 2 exchanges, 0 not used)"


json_data = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(json_data, json_data)
def test_two_values_differ_or_are_the_same(one: Any, other: Any) -> None:
    assert first_difference(one, one) is None
    same = json.dumps(one, sort_keys=True).replace("-0.0", "0.0") == json.dumps(other, sort_keys=True).replace(
        "-0.0", "0.0"
    )
    found = first_difference(one, other)
    assert (found is None) == same
    if found is not None:
        assert max(map(len, found[1:])) <= 80


async def test_a_mismatch_is_neither_tried_again_nor_hidden_by_others() -> None:
    await record(ANSWER)
    _, error = await gather(Retrying(Replay(FILE), RetryPolicy(max_retries=5, restarts=5)), asks("other"))
    assert isinstance(error, ReplayMismatch)
    assert error.retryable is False


# --- the file --------------------------------------------------------------------------------------------------------


async def test_recordings_of_one_file_follow_each_other() -> None:
    await record(ANSWER)
    await record(ANSWER, requests=[asks("again")])
    assert [line["request"]["messages"][0]["parts"][0]["text"] for line in lines()] == ["hi", "again"]


async def test_many_at_once_write_whole_lines() -> None:
    provider = Recording(Script(*[ANSWER] * 50), FILE)
    await asyncio.gather(*(gather(provider, asks(str(number) * 10_000)) for number in range(50)))
    assert len(lines()) == 50


EMPTY = '{"v":1,"provider":"","model":"","request":{},"batches":[]}'


def holding(**fields: Any) -> bytes:
    return json.dumps({**json.loads(EMPTY), **fields}).encode() + b"\n"


@pytest.mark.parametrize("make", [Replay, lambda path: Recording(Script(), path)])
@pytest.mark.parametrize(
    ("written", "said"),
    [
        (b"Dear diary,\nit rained.\n", "is no exchange (no JSON object): Dear diary,"),
        (b'{"a": 1}\n', 'is no exchange (Object missing required field `v`): {"a": 1}'),
        (b"[1]\n", "is no exchange (Expected `object`, got `array`): [1]"),
        (b"\xff\xfe\n", "is no exchange (no JSON object): \ufffd\ufffd"),
        (holding(v=2), "has version 2, and this plait reads version 1; update plait, or record anew"),
        (holding(batches=[[{"type": "odd"}]]), "is no exchange (unknown type 'odd'): "),
        (
            holding(batches=[[{"type": "text", "text": 1}]]),
            "is no exchange (Expected `str`, got `int` - at `$.text`): ",
        ),
        (holding(batches=[[7]]), "is no exchange (no JSON object): "),
        (
            holding(batches=[[{"type": "part", "part": {"type": "odd"}}]]),
            "is no exchange (Message is not valid: parts.0: ",
        ),
        (
            holding(error={"type": "SystemExit", "message": "", "fields": {}}),
            "is no exchange (unknown type 'SystemExit'): ",
        ),
        (
            holding(error={"type": "ModelError"}),
            "is no exchange (Object missing required field `message` - at `$.error`): ",
        ),
        (b'{"v":1,"provider":"ac', "is cut in the middle; delete that line, or the file to record anew"),
    ],
)
def test_what_is_no_recording_is_told(make: Any, written: bytes, said: str) -> None:
    write(written)
    with pytest.raises(CorruptRecord) as caught:
        make(FILE)
    assert str(caught.value).startswith(f"line 1 of the recording 'run.jsonl' {said}")
    assert (len(str(caught.value)) < 300, caught.value.record) == (True, "line 1")
    assert Path(FILE).read_bytes() == written


async def test_a_last_line_that_is_cut_is_told_and_never_written_on() -> None:
    await record(ANSWER, ANSWER)
    whole = content()
    write(whole[:-20])
    with pytest.raises(CorruptRecord, match=r"^line 2 of the recording 'run.jsonl' is cut in the middle; delete that"):
        Replay(FILE)
    with pytest.raises(
        CorruptRecord, match=r"^the last line of the recording 'run.jsonl' is cut; delete that line, or"
    ):
        Recording(Script(), FILE)
    write(whole[:-1])  # whole, but for the line's end, as some editors leave it
    assert Replay(FILE).unused == 2


@pytest.mark.parametrize("path", [None, 5, "", "a\0b", "\ud800", b"x"])
def test_what_is_no_path_is_refused(path: Any) -> None:
    for make in (Replay, lambda path: Recording(Script(), path)):
        with pytest.raises(ConfigurationError, match=r"^a recording is named by the path of a file, not "):
            make(path)


def test_where_there_is_no_file_or_folder() -> None:
    with pytest.raises(ConfigurationError) as caught:
        Replay("no.jsonl")
    assert str(caught.value) == "there is no recording 'no.jsonl'; record_to=... makes one"
    with pytest.raises(ConfigurationError) as caught:
        Recording(Script(), "no/such/run.jsonl")
    path = Path("no/such/run.jsonl")
    said = f"the recording {str(path)!r} cannot be written: there is no folder {str(path.parent)!r}"
    assert str(caught.value) == said
    Path("folder").mkdir()
    with pytest.raises(ConfigurationError, match=r"^the recording 'folder' cannot be read: "):
        Replay("folder")
    with pytest.raises(ConfigurationError, match=r"^the recording 'folder' cannot be written: "):
        Recording(Script(), "folder")


def test_a_pipe_is_not_waited_for() -> None:
    os.mkfifo("pipe")
    with pytest.raises(ConfigurationError, match=r"^the recording 'pipe' cannot be read: it is no file$"):
        Replay("pipe")
    with pytest.raises(ConfigurationError, match=r"^the recording 'pipe' cannot be written: it is no file$"):
        Recording(Script(), "pipe")


FULL = """
import asyncio, resource, sys
from plait import OfflineProvider, Request, StoreUnavailable, UserMessage
from plait.providers.recording import Recording

async def ask(provider, text):
    try:
        async for _ in provider.stream(Request(messages=[UserMessage(text=text)])):
            pass
    except StoreUnavailable as error:
        print(error)

async def main():
    provider = Recording(OfflineProvider(["a", "b", "c"]), "run.jsonl")
    await ask(provider, "short")
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, resource.RLIM_INFINITY))
    await ask(provider, "x" * 10_000)
    await ask(provider, "short again")
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)  # others write when the process ends

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits on the size of files")
def test_a_full_disk_leaves_whole_lines_and_is_told() -> None:
    ran = subprocess.run([sys.executable, "-c", FULL], capture_output=True, text=True, timeout=45, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith("an exchange could not be written to the recording 'run.jsonl': ")
    assert len(ran.stdout.splitlines()) == 1
    assert [line["request"]["messages"][0]["parts"][0]["text"] for line in lines()] == ["short", "short again"]


def replace_by_folder() -> None:
    Path(FILE).unlink()
    Path(FILE).mkdir()


async def test_a_file_that_is_gone_bad_does_not_hide_what_happened() -> None:
    provider = Recording(Script([ProviderError("down", status=500)], ANSWER, [ANSWER[0], "hang"]), FILE)
    replace_by_folder()
    _, error = await gather(provider)
    assert (type(error), error.status) == (ProviderError, 500)
    (note,) = error.__notes__
    assert note.startswith("an exchange could not be written to the recording 'run.jsonl': ")
    got, error = await gather(provider)
    assert (got, type(error)) == (ANSWER, StoreUnavailable)
    stream = provider.stream(HI)
    await anext(stream)
    await stream.aclose()  # its reader has left, and is told nothing


async def test_what_has_no_form_in_a_file_is_told() -> None:
    _, error = await gather(Recording(Script([[DetailsDelta({"a": object()})]]), FILE))
    said = "an exchange with acme cannot be recorded: object has no form in JSON"
    assert (type(error), str(error)) == (StoreError, said)


# --- cassettes -------------------------------------------------------------------------------------------------------


async def test_a_cassette_records_once_and_replays_ever_after() -> None:
    made: list[Script] = []

    def make() -> Script:
        made.append(Script(ANSWER))
        return made[-1]

    for kind in (Recording, Replay, Replay):
        provider = cassette(make, Path(FILE))
        assert type(provider) is kind
        assert await gather(provider) == (ANSWER, None)
    assert (len(made), len(lines())) == (1, 1)


def test_a_cassette_on_which_nothing_was_recorded_is_recorded() -> None:
    assert isinstance(cassette(Script, FILE), Recording)
    assert Path(FILE).stat().st_size == 0
    assert isinstance(cassette(Script, FILE), Recording)


# --- whole runs ------------------------------------------------------------------------------------------------------


@tool
def weather(city: str) -> str:
    """Tell the weather."""
    return f"sunny in {city}"


def agent_over(provider: Provider, **options: Any) -> Agent[Any, Any]:
    return Agent(role="a guide", provider=provider, tools=[weather], **options)


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_run_is_replayed_without_a_network(streamed: bool) -> None:
    async def outcome(provider: Provider) -> tuple[Any, ...]:
        agent = agent_over(provider)
        if not streamed:
            return (await agent.chat("How is it?"),)
        run = agent.run("How is it?")
        events = [event async for event in run if isinstance(event, Delta)]
        result = await run
        return events, result.output, result.messages, result.usage, result.provider, result.model

    script = (
        fault("overloaded"),
        tool_calls(("weather", {"city": "Lisbon"}), ("weather", {"city": "Porto"})),
        "It is sunny.",
    )
    with FaultServer(*script) as server:
        chat = ChatProvider("m1", name="acme", base_url=server.url, api_key="sk-very-secret-key")
        recorded = await outcome(Recording(Retrying(chat, RetryPolicy(initial_delay=0.0)), FILE))
    assert "sk-very-secret-key" not in content()
    replay = Replay(FILE)
    assert await outcome(replay) == recorded
    assert (replay.unused, len(lines())) == (0, 2)


async def test_a_run_that_was_stopped_is_stopped_in_its_replay() -> None:
    async def stopped(provider: Provider) -> tuple[Any, ...]:
        stop = StopSignal()
        run = agent_over(provider).run("count", stop=stop)
        async for event in run:
            if isinstance(event, TextDelta):
                stop.set()
        result = await run
        return result.stop_reason, result.text

    slow = OfflineProvider(["one two three four five six seven"], delay=0.05)
    assert (await stopped(Recording(slow, FILE)))[0] == "user_stop"
    assert (await stopped(Replay(FILE)))[0] == "user_stop"


async def test_a_run_out_of_time_is_so_in_its_replay() -> None:
    async def late(provider: Provider) -> str:
        run = agent_over(provider).run("count", limits=RunLimits(deadline=0.1))
        return str((await run).stop_reason)

    assert await late(Recording(Script([ANSWER[0], "hang"]), FILE)) == "deadline"
    assert await late(Replay(FILE)) == "deadline"


async def test_a_changed_program_is_told_where_it_differs() -> None:
    recorded: list[str | ToolCall] = [ToolCall(id="a", name="weather", arguments='{"city": "Lisbon"}'), "It is sunny."]
    await agent_over(Recording(OfflineProvider(recorded), FILE)).chat("How is it?")

    @tool(name="weather")
    def changed_weather(city: str) -> str:
        """Tell the weather."""
        return f"rain in {city}"

    agent: Agent[Any, Any] = Agent(role="a guide", provider=Replay(FILE), tools=[changed_weather])
    with pytest.raises(ReplayMismatch) as caught:
        await agent.chat("How is it?")
    error = caught.value
    assert (error.where, error.recorded, error.asked) == (
        "messages[3].parts[0].parts[0].text",
        '"sunny in Lisbon"',
        '"rain in Lisbon"',
    )


async def test_recording_logs_nothing_of_what_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "plait"):
        await record(ANSWER)
        await gather(Replay(FILE))
    assert caplog.messages == []


def test_a_request_is_plain_data() -> None:
    data = request_data(Request(messages=[UserMessage(parts=[ImagePart(data=b"\xff")]), SystemMessage(text="s")]))
    assert data["messages"] == [
        {"role": "user", "parts": [{"type": "image", "data": "/w=="}]},
        {"role": "system", "parts": [{"type": "text", "text": "s"}]},
    ]
    assert json.loads(json.dumps(data)) == data


async def test_model_errors_of_a_recording_can_be_caught_as_such() -> None:
    await record([TransportError("gone")])
    with pytest.raises(ModelError, match=r"^gone$"):
        await anext(Replay(FILE).stream(HI))


async def test_what_was_recorded_as_a_stream_is_answered_whole_and_the_other_way_round(tmp_path: Path) -> None:
    for recorded in (True, False):
        file = tmp_path / f"{recorded}.jsonl"
        asked = Request(messages=(UserMessage(text="hi"),), stream=recorded)
        tape = Recording(OfflineProvider(["one two three"]), file)
        batches = [batch async for batch in tape.stream(asked)]
        again = [batch async for batch in Replay(file).stream(replace(asked, stream=not recorded))]
        assert [delta for batch in again for delta in batch] == [delta for batch in batches for delta in batch]
        assert (len(batches) > 1, len(again)) == (recorded, 1)
