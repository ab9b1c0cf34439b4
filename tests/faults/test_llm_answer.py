"""Sound answers with odd contents: characters, empty ones, refusals, finish reasons, tokens, and very large ones."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from faults.trials import AGENTS, STREAMED, WAYS, Way, trial
from plait import EmptyAnswer, LimitExceeded, ProtocolViolation, Refused, RetryPolicy, StreamTruncated
from plait.providers.http import TransportLimits
from plait.testing import FaultServer, Flood, Reply, Said, Wire, answer, fault
from plait.testing.chat import chunk

if TYPE_CHECKING:
    from plait.testing.reply import Scripted

ONCE = RetryPolicy(max_retries=0)
MEGABYTE = 2**20


def as_whole(**fields: Any) -> bytes:
    return json.dumps({"id": "c1", "model": "m1", **fields}).encode()


def choice(message: object, finish: str | None = "stop", **fields: Any) -> dict[str, Any]:
    return {"index": 0, "message": message, "finish_reason": finish, **fields}


# --- choices ---------------------------------------------------------------------------------------------------------


@pytest.mark.fault("L36")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["choices-empty", "choices-null", "choices-of-null", "choices-absent"])
async def test_there_is_no_choice(name: str, way: Way) -> None:
    async with trial(fault(name), way=way) as made:
        error = (await made.ask()).error
        assert (type(error), error.retryable, made.sent) == (ProtocolViolation, False, 1)


@pytest.mark.fault("L36")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "choices",
    [None, [], {}, 7, "x", [None], [7], [[]], [{"message": 7}], [{"message": {"content": {"a": 1}}}]],
    ids=repr,
)
async def test_choices_that_are_none(choices: object, way: Way) -> None:
    async with trial(Reply(body=as_whole(choices=choices)), way=way) as made:
        assert (type((await made.ask()).error), made.sent) == (ProtocolViolation, 1)


@pytest.mark.fault("L36")
@pytest.mark.parametrize("way", WAYS)
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
async def test_a_choice_nobody_asked_for_is_not_mixed_in(order: tuple[int, int]) -> None:
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
    async with trial(Reply(events=events), way="client streamed") as made:
        outcome = await made.ask()
        assert (outcome.text, outcome.error) == ("yes", None)


@pytest.mark.fault("L36")
@pytest.mark.parametrize("way", WAYS)
async def test_azures_first_chunk_is_skipped(way: Way) -> None:
    async with trial(fault("azure-first-chunk", said=Said(text="yes")), way=way) as made:
        outcome = await made.ask()
        assert (outcome.text, outcome.error) == ("yes", None)


# --- nothing, refusals, reasons --------------------------------------------------------------------------------------


@pytest.mark.fault("L37")
@pytest.mark.parametrize("way", WAYS)
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
@pytest.mark.parametrize("way", AGENTS)
@pytest.mark.parametrize("text", ["as far as it", ""])
async def test_an_answer_cut_by_the_limit_says_so(text: str, way: Way) -> None:
    async with trial(Reply(said=Said(text=text, finish_reason="length")), way=way) as made:
        outcome = await made.ask()
        assert (outcome.text, outcome.error, made.sent) == (text, None, 1)
        result = await made.agent.run("hi")
        assert (result.truncated, result.finish_reason, result.text) == (True, "length", text)


@pytest.mark.fault("L38")
async def test_the_client_gets_the_reason_and_a_form_raises() -> None:
    from pydantic import BaseModel

    from plait import OutputInvalid

    class City(BaseModel):
        name: str

    cut = Reply(said=Said(text='{"name": "Lis', finish_reason="length"))
    for way in ("client", "client streamed"):
        async with trial(cut, way=way) as made:
            outcome = await made.ask()
            assert outcome.answer is not None
            assert outcome.answer.finish_reason == "length"
    async with trial(cut, answer('{"name": "well"}'), way="agent", output=City, heals=False) as made:
        assert (type((await made.ask()).error), made.sent) == (OutputInvalid, 1)


REFUSED: dict[str, Scripted] = {
    "filtered": Reply(said=Said(text="so far", finish_reason="content_filter")),
    "filtered before a word": Reply(said=Said(finish_reason="content_filter")),
    "declined": Reply(said=Said(refusal="I would rather not.")),
    "declined after a word": Reply(said=Said(text="Well,", refusal="no.")),
}


@pytest.mark.fault("L39")
@pytest.mark.parametrize("way", AGENTS)
@pytest.mark.parametrize("how", REFUSED)
async def test_a_refusal_is_never_asked_for_again(how: str, way: Way) -> None:
    async with trial(REFUSED[how], way=way) as made:
        error = (await made.ask()).error
        texts = {"filtered": "so far", "declined": "I would rather not.", "declined after a word": "no."}
        assert (type(error), error.text, made.sent) == (Refused, texts.get(how, ""), 1)


@pytest.mark.fault("L40")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("reason", ["eos_token", "", "STOP", "x" * 1000, "\ud83d"])
async def test_an_unknown_reason_passes_through(reason: str, way: Way) -> None:
    async with trial(Reply(said=Said(text="yes", finish_reason=reason)), way=way) as made:
        outcome = await made.ask()
        assert (outcome.text, outcome.error, made.sent) == ("yes", None, 1)
        assert outcome.answer is None or outcome.answer.finish_reason == reason


@pytest.mark.fault("L40")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["null-reason", "extra-keys"])
async def test_a_null_reason_with_done_and_extra_keys(name: str, way: Way) -> None:
    async with trial(fault(name, said=Said(text="yes")), way=way) as made:
        outcome = await made.ask()
        assert (outcome.text, outcome.error, made.sent) == ("yes", None, 1)


@pytest.mark.fault("L40", "L22")
@pytest.mark.parametrize("way", STREAMED)
async def test_a_null_reason_without_done_is_no_end_mark(way: Way) -> None:
    async with trial(Reply(events=(chunk({"content": "so far"}), chunk({}))), way=way) as made:
        error = (await made.ask()).error
        assert (type(error), error.partial) == (StreamTruncated, "so far")


# --- characters ------------------------------------------------------------------------------------------------------


@pytest.mark.fault("L31")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("text", ["a\ud83d\0b", "\udc00", "\0", "\ud83d \ude00", "\u2028\x85\x1b[31m\r\n", "\ufeffa"])
async def test_odd_characters_are_kept(text: str, way: Way) -> None:
    async with trial(answer(text, piece=1), way=way) as made:
        outcome = await made.ask()
        assert (outcome.text, outcome.error, made.sent) == (text, None, 1)


@pytest.mark.fault("L31")
async def test_odd_characters_survive_a_store_on_disk_and_go_back(tmp_path: Any) -> None:
    text = "a\ud83d\0b\u2028"
    async with trial(answer(text), way="agent", heals=False) as made:
        from plait import Agent

        url = f"sqlite:///{tmp_path}/threads.db"
        first = Agent(role="r", provider=made.provider, store=url)
        assert await first.chat("one", thread="t") == text
        await first.store.close()
        second = Agent(role="r", provider=made.provider, store=url)
        assert await second.chat("two", thread="t") == text
        await second.store.close()
        assert [one["content"] for one in made.server.requests[-1]["messages"]] == ["r", "one", text, "two"]


# --- tokens ----------------------------------------------------------------------------------------------------------


USAGES: list[Any] = [
    None,
    {},
    [],
    "many",
    {"prompt_tokens": -5, "completion_tokens": 3},
    {"prompt_tokens": 1e300, "completion_tokens": 3},
    {"prompt_tokens": 10**30, "completion_tokens": 3},
    {"prompt_tokens": "7", "completion_tokens": True},
    {"prompt_tokens": None, "completion_tokens": None},
    {"total_tokens": 12},
]


@pytest.mark.fault("L50")
@pytest.mark.parametrize("way", AGENTS)
@pytest.mark.parametrize("usage", USAGES, ids=repr)
async def test_tokens_that_make_no_sense_are_unknown(usage: object, way: Way) -> None:
    events = (chunk({"content": "yes"}), chunk({}, "stop"), as_whole(choices=[], usage=usage), b"[DONE]")
    body = as_whole(choices=[choice({"content": "yes"})], usage=usage)
    async with trial(Reply(body=body, events=events), way=way) as made:
        outcome = await made.ask()
        assert (outcome.text, outcome.error) == ("yes", None)
        result = await made.agent.run("hi")
        assert (result.usage, result.output) == (None, "yes")


# --- very large answers ----------------------------------------------------------------------------------------------


@pytest.mark.fault("L51")
@pytest.mark.parametrize("way", WAYS)
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
from plait import Agent

async def main():
    agent = Agent(role="r", provider="openai", base_url=sys.argv[1], api_key="sk-secret-secret")
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
@pytest.mark.parametrize("piece", [10**7, 10**5, 50])
async def test_a_large_answer_takes_at_most_three_times_its_size(piece: int) -> None:
    """Of its bytes, that is: in a stream a small piece comes in an envelope many times its size."""
    size = 10**7 if piece > 1000 else 10**6
    large = answer("x" * size, piece=piece)
    with FaultServer("warm", large, "warm", large) as server:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", PEAK, server.url),
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
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("what", ["one answer", "one event", "many events", "an endless line", "endless pings"])
@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
async def test_what_is_too_large_is_given_up(what: str, framing: Any, way: Way) -> None:
    wire = Wire(framing=framing)
    kind = (("content-type", "text/event-stream" if way in STREAMED else "application/json"),)
    replies = {
        "one answer": answer("x" * 200_000).over(wire),
        "one event": answer("x" * 200_000, piece=200_000).over(wire),
        "many events": answer("y" * 2000, piece=1).over(wire),
        "an endless line": Reply(body=b"data: ", headers=kind, wire=Wire(framing=framing, flood=b"x" * 5000)),
        "endless pings": Reply(body=b": ", headers=kind, wire=Wire(framing=framing, flood=b": ping\n\n" * 500)),
    }
    limits = TransportLimits(answer_bytes=50_000, stream_bytes=200_000, silence=2.0, total=4.0)
    if what == "many events" and way not in STREAMED:
        return
    async with trial(replies[what], way=way, limits=limits) as made:
        error = (await made.ask()).error
        assert (type(error), made.sent) == (LimitExceeded, 1)
        assert error.limit in (50_000, 200_000)


@pytest.mark.fault("L51")
@pytest.mark.parametrize("way", WAYS)
async def test_a_head_that_never_ends(way: Way) -> None:
    reply = Reply(raw=(b"HTTP/1.1 200 OK\r\n", Flood(b"a: b\r\n" * 1000)))
    async with trial(reply, way=way, limits=TransportLimits(silence=0.5, total=1.0), policy=ONCE) as made:
        assert type((await made.ask()).error) is ProtocolViolation
