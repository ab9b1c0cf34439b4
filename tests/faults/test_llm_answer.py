"""Sound answers with odd contents: characters, empty ones, refusals, finish reasons, tokens, and very large ones."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel

from faults.spoken import ABSURD, AT_THE_LIMIT, REFUSALS, SPOKEN, events, provider, whole, written
from faults.trials import trial
from faults.turns import turns
from faults.ways import CHAT, DIALECTS, EVERY, SHARED, Way, by_agents, by_clients, of, streamed
from plait import (
    Agent,
    EmptyAnswer,
    LimitExceeded,
    ModelError,
    OutputInvalid,
    ProtocolViolation,
    Refused,
    Request,
    RetryPolicy,
    StreamTruncated,
    UserMessage,
)
from plait.loop import MAX_REPAIRS
from plait.providers.chat import ChatProvider
from plait.providers.fallback import Fallback
from plait.providers.http import TransportLimits
from plait.testing import Call, Cut, FaultServer, Flood, Reply, Said, Wire, answer, fault
from plait.testing.chat import chunk

if TYPE_CHECKING:
    from pathlib import Path

    from plait.testing.reply import DialectName

ONCE = RetryPolicy(max_retries=0)
MEGABYTE = 2**20


def as_whole(**fields: Any) -> bytes:
    return json.dumps({"id": "c1", "model": "m1", **fields}).encode()


def choice(message: object, finish: str | None = "stop", **fields: Any) -> dict[str, Any]:
    return {"index": 0, "message": message, "finish_reason": finish, **fields}


# --- choices ---------------------------------------------------------------------------------------------------------


@pytest.mark.fault("L36")
@pytest.mark.parametrize("way", CHAT)
@pytest.mark.parametrize("name", ["choices-empty", "choices-null", "choices-of-null", "choices-absent"])
async def test_there_is_no_choice(name: str, way: Way) -> None:
    async with trial(fault(name), way=way) as made:
        error = (await made.ask()).error
        assert (type(error), error.retryable, made.sent) == (ProtocolViolation, False, 1)


@pytest.mark.fault("L36")
@pytest.mark.parametrize("way", CHAT)
@pytest.mark.parametrize(
    "choices",
    [None, [], {}, 7, "x", [None], [7], [[]], [{"message": 7}], [{"message": {"content": {"a": 1}}}]],
    ids=repr,
)
async def test_choices_that_are_none(choices: object, way: Way) -> None:
    async with trial(Reply(body=as_whole(choices=choices)), way=way) as made:
        assert (type((await made.ask()).error), made.sent) == (ProtocolViolation, 1)


@pytest.mark.fault("L36")
@pytest.mark.parametrize("way", CHAT)
@pytest.mark.parametrize("index", [1, 7, -1, None])
async def test_a_choice_that_is_numbered_from_elsewhere(index: int | None, way: Way) -> None:
    body = as_whole(choices=[choice({"content": "yes"}) | {"index": index}])
    events = tuple(
        as_whole(choices=[{"index": index, "delta": delta, "finish_reason": finish}])
        for delta, finish in (({"content": "y"}, None), ({"content": "es"}, None), ({}, "stop"))
    )
    async with trial(Reply(body=body, events=events), way=way) as made:
        outcome = await made.ask()
        assert (outcome.text, outcome.error, made.sent) == ("yes", None, 1)


@pytest.mark.fault("L36")
@pytest.mark.parametrize("order", [(0, 1), (1, 0), (2, 1)])
@pytest.mark.parametrize("way", streamed(by_clients(CHAT)))
async def test_a_choice_nobody_asked_for_is_not_mixed_in(order: tuple[int, int], way: Way) -> None:
    first, second = order
    events = tuple(
        as_whole(choices=[{"index": index, "delta": {"content": text}, "finish_reason": finish}])
        for index, text, finish in (
            (first, "y", None),
            (second, "n", None),
            (first, "es", "stop"),
            (second, "o", "stop"),
        )
    )
    async with trial(Reply(events=events), way=way) as made:
        outcome = await made.ask()
        assert (outcome.text, outcome.error) == ("yes", None)


@pytest.mark.fault("L36")
@pytest.mark.parametrize("way", CHAT)
async def test_azures_first_chunk_is_skipped(way: Way) -> None:
    async with trial(fault("azure-first-chunk", said=Said(text="yes")), way=way) as made:
        outcome = await made.ask()
        assert (outcome.text, outcome.error) == ("yes", None)


@pytest.mark.fault("L36")
@pytest.mark.parametrize("way", of(EVERY, "anthropic", "ollama", "responses"))
@pytest.mark.parametrize("name", ["answer-null", "answer-of-null", "answer-absent"])
async def test_there_is_no_answer(name: str, way: Way) -> None:
    """Never an answer: what is of another type is a violation, and what is only absent may be an empty answer."""
    async with trial(fault(name), way=way) as made:
        error = (await made.ask()).error
        assert type(error) in ((ProtocolViolation,) if name == "answer-of-null" else (ProtocolViolation, EmptyAnswer))


# --- nothing, refusals, reasons --------------------------------------------------------------------------------------


@pytest.mark.fault("L37")
@pytest.mark.parametrize("way", EVERY)
@pytest.mark.parametrize(
    "said",
    [
        Said(),
        Said(text=""),
        Said(text=None, finish_reason="tool_calls"),
        Said(text="", finish_reason="odd", usage=None),
    ],
    ids=repr,
)
async def test_an_empty_answer_is_asked_for_again(said: Said, way: Way) -> None:
    async with trial(Reply(said=said), answer("yes"), way=way) as made:
        outcome = await made.ask()
        assert (outcome.text, outcome.error, made.sent) == ("yes", None, 2)
        made.server.play(Reply(said=said))
        error = (await made.ask()).error
        assert (type(error), error.retryable, error.attempts) == (EmptyAnswer, True, 3)


@pytest.mark.fault("L38")
@pytest.mark.parametrize("way", by_agents())
@pytest.mark.parametrize("text", ["as far as it", ""])
async def test_an_answer_cut_by_the_limit_says_so(text: str, way: Way) -> None:
    async with trial(Reply(said=Said(text=text, finish_reason="length")), way=way) as made:
        outcome = await made.ask()
        assert (outcome.text, outcome.error, made.sent) == (text, None, 1)
        result = await made.agent.run("hi")
        assert (result.truncated, result.finish_reason, result.text) == (True, AT_THE_LIMIT[way.dialect], text)


class City(BaseModel):
    name: str


CUT = Reply(said=Said(text='{"name": "Lis', finish_reason="length"))


@pytest.mark.fault("L38")
@pytest.mark.parametrize("way", by_clients())
async def test_the_client_gets_the_reason(way: Way) -> None:
    async with trial(CUT, way=way) as made:
        outcome = await made.ask()
        assert outcome.answer is not None
        assert outcome.answer.finish_reason == AT_THE_LIMIT[way.dialect]


@pytest.mark.fault("L38")
@pytest.mark.parametrize("way", by_agents())
async def test_a_form_that_is_cut_is_an_error(way: Way) -> None:
    async with trial(CUT, answer('{"name": "well"}'), way=way, output=City, heals=False) as made:
        assert (type((await made.ask()).error), made.sent) == (OutputInvalid, 1)


@pytest.mark.fault("L39")
@pytest.mark.parametrize(("way", "how"), [(way, how) for way in by_agents() for how in REFUSALS[way.dialect]])
async def test_a_refusal_is_never_asked_for_again(how: str, way: Way) -> None:
    said, text = REFUSALS[way.dialect][how]
    async with trial(Reply(said=said), way=way) as made:
        error = (await made.ask()).error
        assert (type(error), error.text, made.sent) == (Refused, text, 1)


@pytest.mark.fault("L40")
@pytest.mark.parametrize("way", EVERY)
@pytest.mark.parametrize("reason", ["eos_token", "", "STOP", "x" * 1000, "\ud83d"])
async def test_an_unknown_reason_passes_through(reason: str, way: Way) -> None:
    async with trial(Reply(said=Said(text="yes", finish_reason=reason)), way=way) as made:
        outcome = await made.ask()
        assert (outcome.text, outcome.error, made.sent) == ("yes", None, 1)
        assert outcome.answer is None or outcome.answer.finish_reason == reason


@pytest.mark.fault("L40")
@pytest.mark.parametrize("way", EVERY)
@pytest.mark.parametrize("name", ["null-reason", "extra-keys"])
async def test_a_null_reason_with_done_and_extra_keys(name: str, way: Way) -> None:
    async with trial(fault(name, said=Said(text="yes")), way=way) as made:
        outcome = await made.ask()
        assert (outcome.text, outcome.error, made.sent) == ("yes", None, 1)


@pytest.mark.fault("L40", "L22")
@pytest.mark.parametrize("way", streamed(CHAT))
async def test_a_null_reason_without_done_is_no_end_mark(way: Way) -> None:
    async with trial(Reply(events=(chunk({"content": "so far"}), chunk({}))), way=way) as made:
        error = (await made.ask()).error
        assert (type(error), error.partial) == (StreamTruncated, "so far")


# --- forms and fallbacks ---------------------------------------------------------------------------------------------


@pytest.mark.fault("L53")
@pytest.mark.parametrize("way", by_agents())
async def test_an_answer_without_its_form_is_asked_for_again_within_bounds(way: Way) -> None:
    wrong = [answer(text) for text in ("Lisbon", '{"name": 7}', '{"town": "Lisbon"}')]
    async with trial(*wrong, way=way, output=City, heals=False) as made:
        error = (await made.ask()).error
        assert (type(error), made.sent) == (OutputInvalid, 1 + MAX_REPAIRS)
        assert error.text == '{"town": "Lisbon"}'
        for number in (1, 2):
            asked = turns(way.dialect, made.server.requests[number])
            assert asked[-1].role == "user"
            assert "'City'" in asked[-1].text


@pytest.mark.fault("L53")
@pytest.mark.parametrize("way", by_agents())
async def test_the_form_may_come_with_the_last_try(way: Way) -> None:
    script = ("Lisbon", "{", '{"name": "Lisbon"}')
    async with trial(*script, way=way, output=City, heals=False) as made:
        result = await made.agent.run("hi")
        assert (result.output, made.sent) == (City(name="Lisbon"), 3)
        made.server.play("Lisbon")


@pytest.mark.fault("L54")
@pytest.mark.parametrize("way", EVERY)
@pytest.mark.parametrize("at", [None, 0, 2], ids=["before the answer", "before a word", "after two"])
async def test_another_model_is_asked_only_before_the_first_word(at: int | None, way: Way) -> None:
    cut = None if at is None else Wire(cut=Cut(event=SPOKEN[way.dialect].opening + at, then="rst"))
    failing = fault("overloaded") if cut is None else answer("one two three").over(cut)
    async with trial(failing, way=way, policy=ONCE) as made:
        with FaultServer("another") as other:
            chain = Fallback(made.provider, ChatProvider("m2", name="other", base_url=other.url))
            made.use(chain)
            outcome = await made.ask()
            assert other.wait_until_idle()
            if way.is_streamed and at == 2:
                assert (type(outcome.error), outcome.text, len(other.requests)) == (StreamTruncated, "one two", 0)
            else:
                assert (outcome.text, outcome.error, len(other.requests)) == ("another", None, 1)


# --- characters ------------------------------------------------------------------------------------------------------


@pytest.mark.fault("L31")
@pytest.mark.parametrize("way", EVERY)
@pytest.mark.parametrize("text", ["a\ud83d\0b", "\udc00", "\0", "\ud83d \ude00", "\u2028\x85\x1b[31m\r\n", "\ufeffa"])
async def test_odd_characters_are_kept(text: str, way: Way) -> None:
    async with trial(answer(text, piece=1), way=way) as made:
        outcome = await made.ask()
        assert (outcome.text, outcome.error, made.sent) == (text, None, 1)


@pytest.mark.fault("L31")
@pytest.mark.parametrize("way", [way for way in by_agents() if not way.is_streamed])
async def test_odd_characters_survive_a_store_on_disk_and_go_back(way: Way, tmp_path: Path) -> None:
    text = "a\ud83d\0b\u2028"
    async with trial(answer(text), way=way, heals=False) as made:
        url = f"sqlite:///{tmp_path}/threads.db"
        first = Agent(role="r", provider=made.provider, store=url)
        assert await first.chat("one", thread="t") == text
        await first.store.close()
        second = Agent(role="r", provider=made.provider, store=url)
        assert await second.chat("two", thread="t") == text
        await second.store.close()
        assert [turn.text for turn in turns(way.dialect, made.server.requests[-1])] == ["r", "one", text, "two"]


# --- tokens ----------------------------------------------------------------------------------------------------------


@pytest.mark.fault("L50")
@pytest.mark.parametrize(
    ("way", "usage"),
    [(way, usage) for way in by_agents() for usage in ABSURD[way.dialect]],
    ids=lambda one: str(one) if isinstance(one, Way) else repr(one),
)
async def test_tokens_that_make_no_sense_are_unknown(usage: object, way: Way) -> None:
    async with trial(written(way.dialect, "yes", usage), way=way) as made:
        outcome = await made.ask()
        assert (outcome.text, outcome.error) == ("yes", None)
        result = await made.agent.run("hi")
        assert (result.usage, result.output) == (None, "yes")


@pytest.mark.fault("L50")
@pytest.mark.parametrize("way", EVERY)
@pytest.mark.parametrize("name", ["no-usage", "absurd-usage"])
async def test_the_tokens_of_the_catalogue(name: str, way: Way) -> None:
    async with trial(fault(name), way=way) as made:
        outcome = await made.ask()
        assert (outcome.text != "", outcome.error) == (True, None)
        assert outcome.answer is None or outcome.answer.usage is None


# --- very deep and very large answers --------------------------------------------------------------------------------


@pytest.mark.fault("L35", "S13")
@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("opened", [b"[", b'{"a":'])
def test_what_is_nested_deeply_is_a_violation_or_kept(opened: bytes, dialect: DialectName) -> None:
    """At each depth: there are some that a decoder just takes, and what looks at its values does not."""
    asked = provider(dialect, "http://127.0.0.1:9", api_key="sk-secret-secret")
    said = Said(text="@@", piece=2, calls=(Call(name="@@", arguments={"city": "@@"}, id="@@"),))
    for depth in (*range(800, 1000), 5000, 100_000):
        bomb = opened * depth + b"1" + (b"]" if opened == b"[" else b"}") * depth
        request = Request(messages=(UserMessage(text="hi"),))
        for event in events(dialect, said):
            for place in range(event.count(b'"@@"')):
                before, after = _parted(event, place)
                reader = asked.reader(request)
                reader.feed([before + bomb + after])
                with suppress(ModelError):
                    reader.end(b"")
        body = whole(dialect, said)
        for place in range(body.count(b'"@@"')):
            before, after = _parted(body, place)
            with suppress(ModelError):
                asked.reader(request).whole(before + bomb + after)


def _parted(data: bytes, place: int) -> tuple[bytes, bytes]:
    """Cut the mark of this number out."""
    parts = data.split(b'"@@"')
    return b'"@@"'.join(parts[: place + 1]), b'"@@"'.join(parts[place + 1 :])


@pytest.mark.fault("L51")
@pytest.mark.parametrize("way", EVERY)
@pytest.mark.parametrize("reply", ["one event", "large events", "tiny events"])
async def test_a_large_answer(reply: str, way: Way) -> None:
    size, piece = {"one event": (10**7, 10**7), "large events": (10**7, 10**5), "tiny events": (20_000, 1)}[reply]
    text = "x" * size
    async with trial(answer(text, piece=piece), way=way, limits=TransportLimits(total=8.0)) as made:
        outcome = await made.ask()
        assert (len(outcome.text), outcome.error) == (size, None)
        assert outcome.text == text


PEAK = """
import asyncio, sys, tracemalloc
from faults.spoken import provider
from plait import Agent

async def main():
    agent = Agent(role="r", provider=provider(sys.argv[1], sys.argv[2], api_key="sk-secret-secret"))
    for streamed in (False, True):
        await agent.chat("warm")
        agent.new_thread()
        tracemalloc.start()
        text = await agent.stream("hi") if streamed else await agent.chat("hi")
        print(len(text), tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        agent.new_thread()
        del text

asyncio.run(main())
"""


@pytest.mark.fault("L51")
@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("piece", [10**7, 10**5, 50])
async def test_a_large_answer_takes_at_most_three_times_its_size(piece: int, dialect: DialectName) -> None:
    """Of its bytes, that is: in a stream a small piece comes in an envelope many times its size."""
    size = 10**7 if piece > 1000 else 10**6
    large = answer("x" * size, piece=piece)
    with FaultServer("warm", large, "warm", large) as server:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", PEAK, dialect, server.url_for(dialect)),
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        out, _ = await asyncio.wait_for(process.communicate(), 60)
        lines = [tuple(map(int, line.split())) for line in out.decode().splitlines()]
        assert [length for length, _ in lines] == [size, size]
        sent = [exchange.size for exchange in server.exchanges[1::2]]
        assert [peak / bytes_sent < 3.2 for (_, peak), bytes_sent in zip(lines, sent, strict=True)] == [True, True], (
            lines,
            sent,
        )


@pytest.mark.fault("L51")
@pytest.mark.parametrize(
    ("way", "what"),
    [
        (way, what)
        for way in SHARED
        for what in ("one answer", "one event", "many events", "an endless line", "endless pings")
        if what != "many events" or way.is_streamed
    ],
)
@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
async def test_what_is_too_large_is_given_up(what: str, framing: Any, way: Way) -> None:
    wire = Wire(framing=framing)
    spoken = SPOKEN[way.dialect]
    kind = (("content-type", spoken.kind if way.is_streamed else "application/json"),)
    replies = {
        "one answer": answer("x" * 200_000).over(wire),
        "one event": answer("x" * 200_000, piece=200_000).over(wire),
        "many events": answer("y" * 2000, piece=1).over(wire),
        "an endless line": Reply(body=b"data: ", headers=kind, wire=Wire(framing=framing, flood=b"x" * 5000)),
        "endless pings": Reply(body=b" ", headers=kind, wire=Wire(framing=framing, flood=spoken.ping * 500)),
    }
    limits = TransportLimits(answer_bytes=50_000, stream_bytes=200_000, silence=2.0, total=4.0)
    async with trial(replies[what], way=way, limits=limits) as made:
        error = (await made.ask()).error
        assert (type(error), made.sent) == (LimitExceeded, 1)
        assert error.limit in (50_000, 200_000)


@pytest.mark.fault("L51")
@pytest.mark.parametrize("way", EVERY)
async def test_a_head_that_never_ends(way: Way) -> None:
    reply = Reply(raw=(b"HTTP/1.1 200 OK\r\n", Flood(b"a: b\r\n" * 1000)))
    async with trial(reply, way=way, limits=TransportLimits(silence=0.5, total=1.0), policy=ONCE) as made:
        assert type((await made.ask()).error) is ProtocolViolation
