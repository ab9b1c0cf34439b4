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
    AttemptDelta,
    DetailsDelta,
    FinishDelta,
    ModelDelta,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    Usage,
    UsageDelta,
    fold,
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
        ({"max_delay": 10.0}, [1.0, 2.0, 4.0, 8.0, 10.0]),
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


def test_any_wait_may_be_obeyed() -> None:
    policy = RetryPolicy(retry_after_cap=float("inf"), deadline=None)
    assert plan(policy, RateLimited("wait", retry_after=1e9), 1, 0.0, lambda: 1.0) == 1e9


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


KINDS_OF_FAILURES = ("rate_limit", "server_error", "timeout", "connection", "empty_answer", "other")
QUOTED = ", ".join(map(repr, KINDS_OF_FAILURES))
COUNT = "a whole number, 0 or more"
SECONDS = "seconds, 0 or more"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_retries": -1}, f"max_retries of a RetryPolicy is -1; it must be {COUNT}"),
        ({"max_retries": 1.0}, f"max_retries of a RetryPolicy is 1.0; it must be {COUNT}"),
        ({"max_retries": True}, f"max_retries of a RetryPolicy is True; it must be {COUNT}"),
        ({"restarts": None}, f"restarts of a RetryPolicy is None; it must be {COUNT}"),
        ({"initial_delay": -0.1}, f"initial_delay of a RetryPolicy is -0.1; it must be {SECONDS}"),
        ({"max_delay": "8"}, f"max_delay of a RetryPolicy is '8'; it must be {SECONDS}"),
        ({"retry_after_cap": None}, f"retry_after_cap of a RetryPolicy is None; it must be {SECONDS}"),
        ({"max_delay": float("inf")}, f"max_delay of a RetryPolicy is inf; it must be {SECONDS}"),
        ({"retry_after_cap": float("nan")}, f"retry_after_cap of a RetryPolicy is nan; it must be {SECONDS}"),
        ({"jitter": 1.5}, "jitter of a RetryPolicy is 1.5; it must be a share, from 0 to 1"),
        ({"factor": float("nan")}, "factor of a RetryPolicy is nan; it must be a number, 0 or more"),
        ({"deadline": 0}, "deadline of a RetryPolicy is 0; it must be seconds, more than 0, or None"),
        ({"backoff": "slow"}, "backoff of a RetryPolicy is 'slow'; it must be 'exponential', 'linear', 'fixed'"),
        ({"backoff": ["fixed"]}, "backoff of a RetryPolicy is ['fixed']; it must be 'exponential', 'linear', 'fixed'"),
        (
            {"rules": {"timeout": 1}},
            f"rules of a RetryPolicy is {{'timeout': 1}}; it must be a dict of RetryRule, with keys among {QUOTED}",
        ),
        (
            {"rules": ["timeout"]},
            f"rules of a RetryPolicy is ['timeout']; it must be a dict of RetryRule, with keys among {QUOTED}",
        ),
    ],
)
def test_options_without_sense_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        RetryPolicy(**options)
    assert str(caught.value) == said


def test_a_rule_for_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=f"with keys among {QUOTED}$"):
        RetryPolicy(rules={"time": RetryRule()})  # type: ignore[dict-item]


def test_so_are_those_of_a_rule() -> None:
    with pytest.raises(ConfigurationError, match="initial_delay of a RetryRule is -1; it must be"):
        RetryRule(initial_delay=-1)


# --- policies from settings ------------------------------------------------------------------------------------------

STRATEGY: dict[str, Any] = {
    "rate_limit": {"max_retries": 5, "backoff": "exponential"},
    "server_error": {"max_retries": 3, "backoff": "linear"},
    "timeout": {"max_retries": 2, "backoff": "fixed"},
    "backoff_base": 2,
    "initial_delay": 1,
    "max_delay": 60,
}


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RateLimited("slow"), [1, 2, 4, 8, 16]),
        (DOWN, [1, 2, 3]),
        (TransportError("late", timeout=True), [1, 1]),
        (TransportError("gone"), [1, 2]),  # a class that is not in the table is tried as usual
        (EmptyAnswer("nothing"), [1, 2]),
        (ProviderError("wrong key", status=401), []),
    ],
)
def test_a_strategy_says_it_for_each_class_of_errors(error: ModelError, expected: list[float]) -> None:
    assert delays(RetryPolicy.from_strategy(STRATEGY), error, random=0.0) == expected


@pytest.mark.parametrize(
    ("strategy", "policy"),
    [
        ({}, RetryPolicy()),
        ({"max_retries": 0}, RetryPolicy(max_retries=0)),
        (
            {"max_retries": 4, "timeout": {"max_delay": 3}},
            RetryPolicy(max_retries=4, rules={"timeout": RetryRule(max_delay=3)}),
        ),
        ({"timeout": {"max_retries": 1}}, RetryPolicy(rules={"timeout": RetryRule(max_retries=1)})),
        (
            {"backoff": "linear", "backoff_base": 3, "initial_delay": 0.1},
            RetryPolicy(backoff="linear", factor=3, initial_delay=0.1),
        ),
    ],
)
def test_what_a_strategy_leaves_out_is_as_usual(strategy: dict[str, Any], policy: RetryPolicy) -> None:
    assert RetryPolicy.from_strategy(strategy) == policy


@pytest.mark.parametrize("most", [0, 1, 2])
@pytest.mark.parametrize("error", [error for error, _ in KINDS])
def test_the_number_for_all_bounds_each_class(error: ModelError, most: int) -> None:
    assert len(delays(RetryPolicy.from_strategy({**STRATEGY, "max_retries": most}), error)) <= most


RULE_KEYS = "max_retries, backoff, initial_delay, max_delay"
KEYS = f"{', '.join(KINDS_OF_FAILURES)}, {RULE_KEYS}, backoff_base"


@pytest.mark.parametrize(
    ("strategy", "said"),
    [
        ("fast", f"retry_strategy is 'fast'; it must be a dict with any of {KEYS}"),
        ({"rate_limits": {}}, f"retry_strategy has an unknown key 'rate_limits'; the keys are {KEYS}"),
        ({7: {}}, f"retry_strategy has an unknown key 7; the keys are {KEYS}"),
        ({"timeout": 3}, f"retry_strategy['timeout'] is 3; it must be a dict with any of {RULE_KEYS}"),
        ({"timeout": {"tries": 3}}, f"retry_strategy['timeout'] has an unknown key 'tries'; the keys are {RULE_KEYS}"),
        ({"timeout": {"max_retries": -1}}, f"retry_strategy['timeout']['max_retries'] is -1; it must be {COUNT}"),
        ({"timeout": {"max_retries": None}}, f"retry_strategy['timeout']['max_retries'] is None; it must be {COUNT}"),
        ({"backoff_base": "2"}, "retry_strategy['backoff_base'] is '2'; it must be a number, 0 or more"),
        ({"max_delay": float("nan")}, f"retry_strategy['max_delay'] is nan; it must be {SECONDS}"),
        (
            {"rate_limit": {"backoff": "jitter"}},
            "retry_strategy['rate_limit']['backoff'] is 'jitter'; it must be 'exponential', 'linear', 'fixed'",
        ),
    ],
)  # fmt: skip
def test_a_strategy_without_sense_is_refused(strategy: Any, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        RetryPolicy.from_strategy(strategy)
    assert str(caught.value) == said


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
    assert await collect(Retrying(script, sleep=Sleeper())) == [ModelDelta("m1"), cost, AttemptDelta(2), *DELTAS]


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


# --- restarts --------------------------------------------------------------------------------------------------------

CUT = StreamTruncated("cut", partial="ab")
RESTARTING = RetryPolicy(max_retries=3, restarts=1, initial_delay=1.0, jitter=0.0)


async def gather(provider: Retrying) -> tuple[list[Any], ModelError | None]:
    """Give the batches that came, and the error that came after them."""
    got: list[Any] = []
    try:
        async for batch in provider.stream(REQUEST):
            got.append(batch)  # noqa: PERF401  # what came before an error is kept
    except ModelError as error:
        return got, error
    return got, None


@pytest.mark.parametrize(
    "error", [CUT, TransportError("gone"), ProviderError("overloaded", status=529, retryable=True), RateLimited("slow")]
)
async def test_a_restart_begins_anew_and_says_so(error: ModelError) -> None:
    script = Script([[ModelDelta("m1"), TextDelta("ab")], error], ANSWER)
    sleep = Sleeper()
    got, failure = await gather(Retrying(script, RESTARTING, sleep=sleep))
    assert got == [[ModelDelta("m1"), TextDelta("ab")], [AttemptDelta(2)], *ANSWER]
    assert (failure, script.asked, script.closed, sleep.slept) == (None, 2, 2, [1.0])


async def test_the_answer_after_a_restart_is_the_new_one_alone_and_both_are_counted() -> None:
    used = UsageDelta(Usage(input_tokens=5, output_tokens=1, cost=0.5))
    script = Script([[TextDelta("ab"), used], CUT], [[TextDelta("hi")], [FinishDelta("stop"), used]])
    got, _ = await gather(Retrying(script, RESTARTING, sleep=Sleeper()))
    (answer,) = fold(got)
    assert answer.message.text == "hi"
    assert answer.usage == Usage(input_tokens=10, output_tokens=2, cost=1.0, requests=2)


async def test_what_was_handed_out_stands_until_the_new_answer_begins() -> None:
    sleep = Sleeper()
    script = Script([[TextDelta("ab")], CUT], [DOWN], [TransportError("gone")], ANSWER)
    got, failure = await gather(Retrying(script, RESTARTING, sleep=sleep))
    assert (got, failure) == ([[TextDelta("ab")], [AttemptDelta(4)], *ANSWER], None)
    assert sleep.slept == [1.0, 2.0, 4.0]
    script = Script([[TextDelta("ab")], CUT], [ProviderError("wrong key", status=401)])
    got, failure = await gather(Retrying(script, RESTARTING, sleep=Sleeper()))
    assert got == [[TextDelta("ab")]]
    assert failure is not None
    assert (str(failure), failure.partial, failure.attempts) == ("wrong key (after 2 tries)", "ab", 2)


async def test_tokens_told_before_a_failure_count_too() -> None:
    """Anthropic tells of the input before it may say that it is overloaded."""
    told = UsageDelta(Usage(input_tokens=1000, cost=0.5))
    script = Script([[ModelDelta("m1"), told], DOWN], [[told], [TextDelta("hi"), FinishDelta("stop")]])
    got, failure = await gather(Retrying(script, STEADY, sleep=Sleeper()))
    assert got == [[ModelDelta("m1"), told], [AttemptDelta(2)], [told], [TextDelta("hi"), FinishDelta("stop")]]
    assert failure is None
    (answer,) = fold(got)
    assert (answer.message.text, answer.usage) == ("hi", Usage(input_tokens=2000, requests=2, cost=1.0))


@pytest.mark.parametrize(("restarts", "most", "asked"), [(0, 5, 1), (1, 5, 2), (2, 5, 3), (9, 3, 4), (5, 0, 1)])
async def test_restarts_are_bounded_and_part_of_all_requests(restarts: int, most: int, asked: int) -> None:
    script = Script([[TextDelta("ab")], StreamTruncated("cut", partial="ab")])
    policy = RetryPolicy(max_retries=most, restarts=restarts)
    got, failure = await gather(Retrying(script, policy, sleep=Sleeper()))
    anew = [batch for number in range(2, asked + 1) for batch in ([AttemptDelta(number)], [TextDelta("ab")])]
    assert got == [[TextDelta("ab")], *anew]
    assert isinstance(failure, StreamTruncated)
    assert (failure.attempts, failure.partial, script.asked) == (asked, "ab", asked)


async def test_what_will_not_help_is_not_restarted() -> None:
    script = Script([[TextDelta("ab")], ProtocolViolation("no JSON", partial="ab")], ANSWER)
    got, failure = await gather(Retrying(script, RESTARTING, sleep=Sleeper()))
    assert (got, type(failure), script.asked) == ([[TextDelta("ab")]], ProtocolViolation, 1)


@pytest.mark.parametrize(
    ("second", "made", "partial", "more"),
    [
        (["hang"], TransportError, "ab", []),
        ([[TextDelta("c")], "hang"], StreamTruncated, "c", [[AttemptDelta(2)], [TextDelta("c")]]),
    ],
)
async def test_the_deadline_bounds_restarts_too(second: Any, made: Any, partial: str, more: list[Any]) -> None:
    script = Script([[TextDelta("ab")], StreamTruncated("cut", partial="ab")], second)
    policy = RetryPolicy(restarts=1, initial_delay=0.0, deadline=0.2)
    got, failure = await asyncio.wait_for(gather(Retrying(script, policy)), PATIENCE)
    assert got == [[TextDelta("ab")], *more]
    assert isinstance(failure, made)
    assert (failure.partial, failure.attempts) == (partial, 2)


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


async def test_an_answer_that_broke_off_is_asked_for_anew_where_that_is_allowed(serve: Serve) -> None:
    sleep = Sleeper()
    server = await serve(
        serve.stream(serve.event(serve.chunk("old")), "reset", end=False),
        serve.whole({}, 503),
        serve.stream(serve.event(serve.chunk("new", "stop"))),
    )
    provider = Retrying(
        ChatProvider("m1", name="acme", base_url=server.url), RetryPolicy(max_retries=2, restarts=1), sleep=sleep
    )
    who = ModelDelta("m1", "c1", "acme")
    assert await collect(provider) == [
        *[who, TextDelta("old")],
        *[AttemptDelta(3), who, TextDelta("new"), FinishDelta("stop")],
    ]
    assert (len(server.requests), len(sleep.slept)) == (3, 2)
