from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest

from plait.errors import (
    ConfigurationError,
    EmptyAnswer,
    LimitExceeded,
    ModelError,
    ProtocolViolation,
    ProviderError,
    RateLimited,
    Refused,
    StreamTruncated,
    TransportError,
)
from plait.events import (
    DetailsDelta,
    FinishDelta,
    ModelDelta,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    Usage,
    UsageDelta,
)
from plait.messages import UserMessage
from plait.providers.base import Request
from plait.providers.chat import ChatProvider
from plait.providers.retry import Retrying, RetryPolicy, RetryRule, kind_of, plan

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from plait.events import Delta
    from providers.conftest import Serve

PATIENCE = 10.0
STEADY = RetryPolicy(max_retries=10, initial_delay=1.0, max_delay=60.0, jitter=0.0)
DOWN = ProviderError("down", status=500, retryable=True)
REQUEST = Request(messages=[UserMessage(text="hi")])


def delays(policy: RetryPolicy, error: ModelError = DOWN, random: float = 1.0) -> list[float]:
    made = []
    attempt = 1
    while attempt < 20 and (delay := plan(policy, error, attempt, 0.0, lambda: random)) is not None:
        made.append(delay)
        attempt += 1
    return made


# --- the plan --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [1.0, 2.0, 4.0, 8.0, 16.0]),
        ({"factor": 3.0, "max_delay": 20.0}, [1.0, 3.0, 9.0, 20.0, 20.0]),
        ({"backoff": "linear"}, [1.0, 2.0, 3.0, 4.0, 5.0]),
        ({"backoff": "linear", "max_delay": 2.5}, [1.0, 2.0, 2.5, 2.5, 2.5]),
        ({"backoff": "fixed"}, [1.0] * 5),
        ({"factor": 1e300}, [1.0, 60.0, 60.0, 60.0, 60.0]),
        ({"jitter": 0.5}, [0.5, 1.0, 2.0, 4.0, 8.0]),
    ],
)
def test_delays_grow_as_configured(options: dict[str, Any], expected: list[float]) -> None:
    policy = RetryPolicy(**{"max_retries": 5, "initial_delay": 1.0, "max_delay": 60.0, "jitter": 0.0, **options})
    assert delays(policy) == expected


def test_jitter_only_shortens_and_by_its_share() -> None:
    policy = RetryPolicy(initial_delay=1.0, jitter=0.25, backoff="fixed")
    assert plan(policy, DOWN, 1, 0.0, lambda: 0.0) == 1.0
    assert plan(policy, DOWN, 1, 0.0, lambda: 1.0) == 0.75


@pytest.mark.parametrize("most", [0, 1, 2, 5])
def test_n_retries_are_at_most_n(most: int) -> None:
    assert len(delays(RetryPolicy(max_retries=most))) == most


@pytest.mark.parametrize(
    "error",
    [
        ProviderError("no", status=400),
        ProtocolViolation("no"),
        Refused("no"),
        TransportError("bad certificate", retryable=False),
        ProviderError("x-should-retry: false", status=503, retryable=False),
    ],
)
def test_what_says_that_it_will_not_help_is_final(error: ModelError) -> None:
    assert delays(STEADY, error) == []


@pytest.mark.parametrize(
    ("retry_after", "expected"), [(0.0, 0.0), (0.05, 0.05), (7.0, 7.0), (60.0, 60.0), (60.1, None), (1e9, None)]
)
@pytest.mark.parametrize("made", [RateLimited, ProviderError])
def test_what_the_provider_asks_is_obeyed_up_to_the_cap(
    made: type[ProviderError], retry_after: float, expected: float | None
) -> None:
    error = made("wait", status=429, retry_after=retry_after, retryable=True)
    assert plan(RetryPolicy(max_delay=1.0), error, 1, 0.0, lambda: 1.0) == expected


def test_no_wait_goes_past_the_deadline() -> None:
    policy = RetryPolicy(initial_delay=4.0, jitter=0.0, deadline=10.0)
    assert plan(policy, DOWN, 1, 5.9, lambda: 0.0) == 4.0
    assert plan(policy, DOWN, 1, 6.0, lambda: 0.0) is None
    endless = RetryPolicy(initial_delay=4.0, jitter=0.0, deadline=None)
    assert plan(endless, DOWN, 1, 1e9, lambda: 0.0) == 4.0


KINDS: list[tuple[ModelError, str]] = [
    (RateLimited("x"), "rate_limit"),
    (ProviderError("x", status=503, retryable=True), "server_error"),
    (ProviderError("x", status=408, retryable=True), "timeout"),
    (TransportError("x", timeout=True), "timeout"),
    (StreamTruncated("x", timeout=True), "timeout"),
    (TransportError("x"), "connection"),
    (StreamTruncated("x"), "connection"),
    (EmptyAnswer("x"), "empty_answer"),
    (ModelError("x", retryable=True), "other"),
]


@pytest.mark.parametrize(("error", "kind"), KINDS)
def test_each_kind_of_failure_can_have_its_own_rule(error: ModelError, kind: Any) -> None:
    assert kind_of(error) == kind
    rule = RetryRule(max_retries=3, backoff="fixed", initial_delay=5.0)
    assert delays(RetryPolicy(max_retries=9, jitter=0.0, rules={kind: rule}), error) == [5.0, 5.0, 5.0]
    assert len(delays(RetryPolicy(max_retries=1, rules={kind: RetryRule(max_delay=0.0)}), error)) == 1


@pytest.mark.parametrize(("error", "kind"), KINDS)
@pytest.mark.parametrize("most", [0, 1, 2])
def test_no_rule_allows_more_than_the_policy(error: ModelError, kind: Any, most: int) -> None:
    policy = RetryPolicy(max_retries=most, rules={kind: RetryRule(max_retries=5)})
    assert len(delays(policy, error)) == most


@pytest.mark.parametrize(
    "options", [{"max_retries": -1}, {"initial_delay": -0.1}, {"jitter": 1.5}, {"factor": float("nan")}]
)
def test_numbers_without_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        RetryPolicy(**options)


# --- carrying it out -------------------------------------------------------------------------------------------------


class Script:
    """A provider whose tries are written down: batches, and then perhaps an error."""

    name = "acme"
    model = "m1"

    def __init__(self, *tries: list[Any]) -> None:
        self.tries = tries
        self.asked = 0
        self.closed = 0

    async def stream(self, request: Request) -> AsyncGenerator[list[Delta], None]:
        self.asked += 1
        try:
            for step in self.tries[min(self.asked, len(self.tries)) - 1]:
                if isinstance(step, Exception):
                    raise step
                if step == "hang":
                    await asyncio.Event().wait()
                yield step
        finally:
            self.closed += 1


class Sleeper:
    """Notes how long it should have slept."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.slept.append(seconds)


async def collect(provider: Retrying) -> list[Any]:
    return [delta async for batch in provider.stream(REQUEST) for delta in batch]


ANSWER: list[Any] = [[ModelDelta("m1"), TextDelta("hi")], [FinishDelta("stop")]]
DELTAS = [delta for batch in ANSWER for delta in batch]


async def test_it_asks_again_till_there_is_an_answer() -> None:
    sleep = Sleeper()
    script = Script([DOWN], [TransportError("gone")], ANSWER)
    policy = RetryPolicy(max_retries=2, initial_delay=1.0, jitter=0.0)
    assert await collect(Retrying(script, policy, sleep=sleep)) == DELTAS
    assert (script.asked, script.closed, sleep.slept) == (3, 3, [1.0, 2.0])


async def test_it_gives_up_with_the_last_error_and_the_number_of_requests() -> None:
    script = Script([DOWN], [RateLimited("slow", retry_after=0.0)])
    with pytest.raises(RateLimited) as caught:
        await collect(Retrying(script, RetryPolicy(max_retries=3), sleep=Sleeper()))
    assert (caught.value.attempts, script.asked) == (4, 4)


async def test_a_wait_above_the_cap_is_said_to_be() -> None:
    error = RateLimited("slow down", status=429, retry_after=1e9)
    with pytest.raises(RateLimited) as caught:
        await collect(Retrying(Script([error]), sleep=Sleeper()))
    waits = "it asks to wait 1,000,000,000 s, above the limit of 60 s, so it was not waited for"
    assert str(caught.value) == f"slow down; {waits}"


async def test_without_retries_one_request_is_sent() -> None:
    script = Script([DOWN])
    with pytest.raises(ProviderError) as caught:
        await collect(Retrying(script, RetryPolicy(max_retries=0), sleep=Sleeper()))
    assert (caught.value.attempts, script.asked) == (1, 1)


async def test_what_is_no_failure_of_the_model_is_not_tried_again() -> None:
    script = Script([LimitExceeded("too large")])
    with pytest.raises(LimitExceeded):
        await collect(Retrying(script, sleep=Sleeper()))
    assert script.asked == 1


CONTENT: list[Any] = [
    TextDelta("a"),
    ReasoningDelta("a"),
    RefusalDelta("a"),
    ToolCallDelta(0, "id", "name"),
    DetailsDelta({"a": 1}),
    FinishDelta("stop"),
]


@pytest.mark.parametrize("content", CONTENT, ids=lambda delta: type(delta).__name__)
async def test_once_content_was_handed_out_nothing_is_asked_again(content: Any) -> None:
    script = Script([[ModelDelta("m1")], [content], StreamTruncated("cut", partial="a")], ANSWER)
    got: list[Any] = []

    async def collect_into() -> None:
        async for batch in Retrying(script, sleep=Sleeper()).stream(REQUEST):
            got.extend(batch)

    with pytest.raises(StreamTruncated) as caught:
        await collect_into()
    assert (got, script.asked, caught.value.attempts) == ([ModelDelta("m1"), content], 1, 1)


async def test_who_answers_and_what_it_cost_is_no_content() -> None:
    cost = UsageDelta(Usage(input_tokens=5))
    script = Script([[ModelDelta("m1"), cost], EmptyAnswer("nothing")], ANSWER)
    assert await collect(Retrying(script, sleep=Sleeper())) == [ModelDelta("m1"), cost, *DELTAS]


async def test_the_deadline_bounds_all_tries_together() -> None:
    script = Script([DOWN], ["hang"])
    policy = RetryPolicy(initial_delay=0.0, deadline=0.2)
    with pytest.raises(TransportError, match=r"acme gave no answer within 0.2 s, all tries together") as caught:
        await asyncio.wait_for(collect(Retrying(script, policy)), PATIENCE)
    assert (caught.value.timeout, caught.value.attempts, script.closed) == (True, 2, 2)


SLOW: list[Any] = [[ModelDelta("m1"), TextDelta("a")], [TextDelta("b", 1), TextDelta("c")], "hang"]


async def test_the_deadline_cuts_an_answer_that_has_begun_too() -> None:
    script = Script([DOWN], SLOW)
    got: list[Any] = []

    async def collect_into() -> None:
        async for batch in Retrying(script, RetryPolicy(initial_delay=0.0, deadline=0.2)).stream(REQUEST):
            got.extend(batch)

    with pytest.raises(StreamTruncated) as caught:
        await asyncio.wait_for(collect_into(), PATIENCE)
    error = caught.value
    assert str(error) == "the answer of acme was not complete within 0.2 s, all tries together (after 2 tries)"
    assert (error.timeout, error.partial, error.attempts, error.provider) == (True, "ac", 2, "acme")
    assert got == [ModelDelta("m1"), TextDelta("a"), TextDelta("b", 1), TextDelta("c")]
    assert (script.asked, script.closed) == (2, 2)


async def test_an_answer_that_drips_ends_at_the_deadline_though_nobody_waits_when_it_passes() -> None:
    passed = asyncio.Event()
    asyncio.get_running_loop().call_later(0.3, passed.set)
    script = Script([[TextDelta("a")], *[[TextDelta("b")]] * 1000])
    stream = Retrying(script, RetryPolicy(deadline=0.1)).stream(REQUEST)
    assert await anext(stream) == [TextDelta("a")]
    await asyncio.wait_for(passed.wait(), PATIENCE)  # not cancelled: this is the reader's own time
    with pytest.raises(StreamTruncated) as caught:
        await anext(stream)
    assert (caught.value.timeout, caught.value.partial, script.closed) == (True, "a", 1)


async def test_a_first_request_that_ends_by_itself_in_time_needs_no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    class Bounded(Script):
        total = 600.0

    loop = asyncio.get_running_loop()
    timers: list[float] = []
    call_at = loop.call_at

    def noted(when: float, *rest: Any, **options: Any) -> asyncio.TimerHandle:
        timers.append(when)
        return call_at(when, *rest, **options)

    monkeypatch.setattr(loop, "call_at", noted)
    assert await collect(Retrying(Bounded(ANSWER))) == DELTAS
    assert timers == []
    many = [[TextDelta("x")] for _ in range(100)]
    assert len(await collect(Retrying(Bounded([DOWN], [DOWN], many), sleep=Sleeper()))) == 100
    assert len(timers) == 1  # one for a request, not one for each try or batch


@pytest.mark.parametrize("begun", [True, False])
async def test_cancelled_from_outside_it_is_no_time_out(begun: bool) -> None:
    waiting = asyncio.Event()

    class Told(Script):
        async def stream(self, request: Request) -> AsyncGenerator[list[Delta], None]:
            if begun:
                yield [TextDelta("a")]
            waiting.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(collect(Retrying(Told(), RetryPolicy(deadline=60.0))))
    await asyncio.wait_for(waiting.wait(), PATIENCE)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, PATIENCE)


async def test_after_the_deadline_the_readers_task_is_not_left_cancelled() -> None:
    with pytest.raises(StreamTruncated):
        async with asyncio.timeout(PATIENCE):
            await collect(Retrying(Script(SLOW), RetryPolicy(deadline=0.05)))
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    async with asyncio.timeout(PATIENCE):
        await asyncio.sleep(0)


async def test_cancelled_while_it_waits_it_ends_at_once() -> None:
    asleep = asyncio.Event()

    async def sleep(seconds: float) -> None:
        asleep.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(collect(Retrying(Script([DOWN]), sleep=sleep)))
    await asyncio.wait_for(asleep.wait(), PATIENCE)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, PATIENCE)


async def test_left_half_read_it_closes_what_it_asked() -> None:
    script = Script(ANSWER)
    stream = Retrying(script).stream(REQUEST)
    await anext(stream)
    assert script.closed == 0
    await stream.aclose()
    assert script.closed == 1


async def test_tries_are_logged_without_content(caplog: pytest.LogCaptureFixture) -> None:
    script = Script([ProviderError("the secret of sk-1", status=500, retryable=True)], ANSWER)
    with caplog.at_level(logging.DEBUG, "plait.providers"):
        await collect(Retrying(script, RetryPolicy(initial_delay=1.0, jitter=0.0), sleep=Sleeper()))
    assert caplog.messages == ["acme:m1 request 1 failed (ProviderError 500); next in 1.00 s"]
    assert [record.levelname for record in caplog.records] == ["DEBUG"]


# --- over HTTP -------------------------------------------------------------------------------------------------------


async def test_a_request_goes_through_after_what_was_asked_to_wait(serve: Serve) -> None:
    sleep = Sleeper()
    server = await serve(
        serve.whole({}, 429, {"retry-after-ms": "50", "retry-after": "9"}),
        serve.whole({"error": {"message": "busy", "code": 503}}),
        ["close"],
        serve.stream(serve.event(serve.chunk("hi")), "reset", end=False),
        serve.stream(serve.event(serve.chunk("hi", "stop"))),
    )
    provider = Retrying(ChatProvider("m1", name="acme", base_url=server.url), RetryPolicy(max_retries=4), sleep=sleep)
    with pytest.raises(StreamTruncated) as caught:  # by then something had been handed out
        await collect(provider)
    error = caught.value
    assert (error.attempts, error.partial, len(sleep.slept), sleep.slept[0]) == (4, "hi", 3, 0.05)
    assert await collect(provider) == [ModelDelta("m1", "c1", "acme"), TextDelta("hi"), FinishDelta("stop")]
    assert len(server.requests) == 5


@pytest.mark.parametrize("end", ["close", "reset"])
@pytest.mark.parametrize("most", [0, 1])
async def test_a_dropped_request_on_a_kept_connection_is_counted(most: int, end: Any, serve: Serve) -> None:
    server = await serve(serve.stream(serve.event(serve.chunk("hi", "stop"))), [end])
    policy = RetryPolicy(max_retries=most)
    provider = Retrying(ChatProvider("m1", name="acme", base_url=server.url), policy, sleep=Sleeper())
    assert await collect(provider) == [ModelDelta("m1", "c1", "acme"), TextDelta("hi"), FinishDelta("stop")]
    with pytest.raises(TransportError) as caught:
        await collect(provider)
    assert (caught.value.attempts, len(server.requests)) == (most + 1, most + 2)
