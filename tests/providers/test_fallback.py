from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Literal, get_args

import pytest

from plait import Agent, PlaitError, history
from plait.errors import (
    ConfigurationError,
    EmptyAnswer,
    LimitExceeded,
    ModelError,
    ProviderError,
    RateLimited,
    Refused,
    StreamTruncated,
    TransportError,
)
from plait.events import Answer, FinishDelta, Fold, ModelDelta, TextDelta, Usage, UsageDelta
from plait.messages import AssistantMessage, UserMessage
from plait.providers.base import Request
from plait.providers.chat import ChatProvider
from plait.providers.fallback import Fallback
from plait.providers.offline import OfflineProvider
from plait.providers.retry import Retrying, RetryPolicy
from plait.testing import FaultServer, fault

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from plait.events import Delta
    from plait.testing.reply import Scripted

PATIENCE = 10.0
KEY = "sk-very-secret-key-0123456789"
REQUEST = Request(messages=[UserMessage(text="hi")])
ONCE = RetryPolicy(max_retries=0)


class Script:
    """A provider whose one answer is written down: batches, and then perhaps an error."""

    def __init__(self, name: str, *steps: Any) -> None:
        self.name = name
        self.model = f"{name}-1"
        self.steps = steps
        self.asked = 0
        self.closed = 0

    async def stream(self, request: Request) -> AsyncGenerator[list[Delta], None]:
        self.asked += 1
        try:
            for step in self.steps:
                if isinstance(step, BaseException):
                    raise step
                if step == "hang":
                    await asyncio.Event().wait()
                yield step
        finally:
            self.closed += 1


async def gather(provider: Fallback) -> tuple[list[Any], Any]:
    """Give the batches that came, and the error that came after them."""
    got: list[Any] = []
    try:
        async for batch in provider.stream(REQUEST):
            got.append(batch)  # noqa: PERF401  # what came before an error is kept
    except PlaitError as error:
        return got, error
    return got, None


HI: list[Any] = [[TextDelta("hi")], [FinishDelta("stop")]]


def answering() -> Script:
    return Script("two", *HI)


FROM_TWO = [[ModelDelta("two-1", provider="two"), TextDelta("hi")], [FinishDelta("stop")]]

GOES_ON: list[PlaitError] = [
    TransportError("gone"),
    ProviderError("wrong key", status=401),
    ProviderError("down", status=500, retryable=True),
    RateLimited("slow", retry_after=1e9),
    EmptyAnswer("nothing"),
    StreamTruncated("cut"),
    ConfigurationError("one cannot send a PDF"),
]


@pytest.mark.parametrize("error", GOES_ON, ids=lambda error: type(error).__name__)
async def test_the_next_one_is_asked_when_one_fails(error: PlaitError) -> None:
    one, two = Script("one", error), answering()
    assert await gather(Fallback(one, two)) == (FROM_TWO, None)
    assert (one.asked, one.closed, two.asked, two.closed) == (1, 1, 1, 1)


@pytest.mark.parametrize(
    "error", [Refused("no"), LimitExceeded("too large"), asyncio.CancelledError(), RuntimeError("a bug")], ids=repr
)
async def test_what_is_no_failure_of_a_model_is_final(error: BaseException) -> None:
    one, two = Script("one", error), answering()
    with pytest.raises(type(error)) as caught:
        await anext(Fallback(one, two).stream(REQUEST))
    assert caught.value is error
    assert (one.closed, two.asked) == (1, 0)


async def test_once_an_answer_began_it_is_final() -> None:
    one, two = Script("one", [TextDelta("a")], StreamTruncated("cut", partial="a")), answering()
    got, error = await gather(Fallback(one, two))
    assert got == [[ModelDelta("one-1", provider="one"), TextDelta("a")]]
    assert (type(error), error.partial, two.asked) == (StreamTruncated, "a", 0)


async def test_nothing_is_seen_of_one_that_failed_before_its_answer() -> None:
    said: list[Delta] = [ModelDelta("one-1", "id-1", "one"), UsageDelta(Usage(input_tokens=5))]
    one = Script("one", said, StreamTruncated("cut"))
    assert await gather(Fallback(one, answering())) == (FROM_TWO, None)
    one = Script("one", said, [TextDelta("a")], [TextDelta("b")])
    got, _ = await gather(Fallback(one, answering()))
    assert got == [[ModelDelta("one-1", provider="one"), *said, TextDelta("a")], [TextDelta("b")]]


async def test_a_stream_that_ends_without_an_answer_is_for_its_reader_to_judge() -> None:
    one, two = Script("one", [UsageDelta(Usage())]), answering()
    assert await gather(Fallback(one, two)) == (
        [[ModelDelta("one-1", provider="one"), UsageDelta(Usage())]],
        None,
    )
    assert two.asked == 0


async def test_when_all_fail_the_last_error_tells_of_the_others() -> None:
    chain = Fallback(
        Retrying(Script("one", ProviderError("busy", status=503, retryable=True)), RetryPolicy(initial_delay=0.0)),
        Script("two", ConfigurationError("two takes no PDF")),
        Script("three", ProviderError("wrong key", status=401)),
    )
    _, error = await gather(chain)
    before = ("one:one-1 failed: busy (after 3 tries)", "two:two-1 failed: two takes no PDF")
    assert (error.before, error.attempts) == (before, 4)
    assert str(error) == f"wrong key (after 4 tries); before it, {before[0]}; {before[1]}"


async def test_an_answer_that_broke_off_tells_of_those_before_it() -> None:
    chain = Fallback(Script("one", TransportError("gone")), Script("two", [TextDelta("a")], StreamTruncated("cut")))
    _, error = await gather(chain)
    assert str(error) == "cut (after 2 tries); before it, one:one-1 failed: gone"


async def test_each_of_a_chain_may_try_again_by_itself() -> None:
    one = Script("one", TransportError("gone"))
    two = answering()
    chain = Fallback(Retrying(one, RetryPolicy(max_retries=2, initial_delay=0.0)), two)
    assert (await gather(chain))[0] == FROM_TWO
    assert (one.asked, two.asked) == (3, 1)


async def test_tokens_told_before_a_failure_are_no_answer() -> None:
    """Tried again, the first one says that another attempt begins; that is none of the answer's either."""
    told = UsageDelta(Usage(input_tokens=5))
    first, second = Script("one", [ModelDelta("m1"), told], TransportError("down")), answering()
    again = Retrying(first, RetryPolicy(max_retries=1, initial_delay=0))
    assert await gather(Fallback(again, second)) == ([[ModelDelta("two-1", provider="two"), *HI[0]], HI[1]], None)
    assert (first.asked, second.asked) == (2, 1)


async def test_a_chain_may_be_tried_again_and_be_part_of_a_chain() -> None:
    one, two = Script("one", TransportError("gone")), Script("two", TransportError("gone"))
    again = Retrying(Fallback(one, two), RetryPolicy(max_retries=1, initial_delay=0.0))
    got, error = await gather(Fallback(again, Script("three", *HI)))
    assert (got[0][0], error) == (ModelDelta("three-1", provider="three"), None)
    assert (one.asked, two.asked) == (2, 2)


async def test_the_same_provider_may_be_asked_twice() -> None:
    one = Script("one", TransportError("gone"))
    _, error = await gather(Fallback(one, one))
    assert (one.asked, isinstance(error, TransportError)) == (2, True)


async def test_an_answer_that_was_paused_is_finished_by_who_began_it() -> None:
    paused = Answer(AssistantMessage(text="I look."), "pause_turn")

    class Named(OfflineProvider):
        name = "other"

    first = OfflineProvider([RateLimited("slow down"), "not I"])
    second = Named([paused, "It is sunny."])
    result = await Agent(provider=Fallback(first, second)).run("hi")
    assert (result.output, result.provider) == ("It is sunny.", "other")
    assert (len(first.requests), len(second.requests)) == (1, 2)


async def test_left_half_read_it_closes_what_it_asked() -> None:
    one = Script("one", *HI)
    stream = Fallback(one, answering()).stream(REQUEST)
    await anext(stream)
    assert one.closed == 0
    await stream.aclose()
    assert one.closed == 1


async def test_cancelled_it_asks_nobody_else() -> None:
    one, two = Script("one", "hang"), answering()
    task = asyncio.create_task(gather(Fallback(one, two)))
    await asyncio.sleep(0)
    assert one.asked == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, PATIENCE)
    assert (one.closed, two.asked) == (1, 0)


def test_it_is_made_of_providers_or_a_list_of_them() -> None:
    one, two = answering(), answering()
    for made in (Fallback(one, two), Fallback([one, two]), Fallback((one, two))):
        assert (made.providers, made.name, made.model) == ((one, two), "two", "two-1")
    assert repr(Fallback(OfflineProvider(["a"]))) == "Fallback(OfflineProvider(model='offline'))"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((), "Fallback needs at least one provider"),
        (([],), "Fallback needs at least one provider"),
        (("openai",), "Fallback takes provider objects, not 'openai'; get_provider(['openai', 'anthropic']) makes one"),
        ((["openai:gpt-4o"],), "Fallback takes provider objects, not 'openai:gpt-4o'; get_provider("),
        ((None,), "Fallback takes provider objects, not None; get_provider("),
    ],
)
def test_what_is_no_provider_is_refused(given: Any, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Fallback(*given)
    assert str(caught.value).startswith(said)


async def test_it_is_logged_without_content(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "plait.providers"):
        await gather(Fallback(Script("one", ProviderError("the words of a user")), answering()))
    assert caplog.messages == ["one:one-1 failed (ProviderError); the next provider is asked"]


# --- over HTTP, at each stage ----------------------------------------------------------------------------------------

Way = Literal["client", "client streamed", "agent", "agent streamed"]
WAYS: tuple[Way, ...] = get_args(Way)

BEFORE: dict[str, Scripted] = {
    "wrong key": fault("unauthorized"),
    "no such model": fault("not-found"),
    "slow down": fault("rate-limited"),
    "server error": fault("server-error"),
    "an error as the answer": fault("error-as-answer"),
    "no HTTP": fault("not-http"),
    "a web page": fault("html-page"),
    "closed at once": fault("closed-at-once"),
    "closed before the first event": fault("closed-midway", at=0),
    "closed before the first token": fault("closed-midway", at=1),
    "an error before the first token": fault("error-midway", at=1),
}
AFTER: dict[str, Scripted] = {
    "closed after the first token": fault("closed-midway", at=2),
    "reset after some": fault("reset-midway", at=3),
    "an error after some": fault("error-midway", at=3),
    "ended after the last, without an end mark": fault("ended-midway", at=4),
}


async def ask(provider: Fallback, way: Way) -> tuple[str, str | None, str | None, Any]:
    """Give the text that was handed out, who gave it (provider and model), and the error."""
    if way.startswith("client"):
        fold = Fold(provider.name, provider.model)
        failure = None
        try:
            async for batch in provider.stream(Request(messages=REQUEST.messages, stream=way == "client streamed")):
                fold.add(batch)
        except ModelError as error:
            failure = error
        message = fold.answer().message
        return message.text, message.provider, message.model, failure
    agent = Agent(role="r", provider=provider)
    if way == "agent":
        try:
            text = await agent.chat("hi")
        except ModelError as error:
            return "", None, None, error
        *_, answer = history(await agent.log())
        assert isinstance(answer, AssistantMessage)
        return text, answer.provider, answer.model, None
    text, run = "", agent.run("hi")
    try:
        async for event in run:
            if isinstance(event, TextDelta):
                text += event.text
        result = await run
    except ModelError as error:
        return text, None, None, error
    assert result.text == text
    return text, result.provider, result.model, None


@pytest.mark.fault("L54")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("stage", ["refused", *BEFORE, *AFTER])
async def test_the_next_one_is_asked_only_before_the_first_token(stage: str, way: Way) -> None:
    script = BEFORE.get(stage) or AFTER.get(stage) or "never sent"
    with FaultServer(script) as first, FaultServer("Hello from two.") as second:
        if stage == "refused":
            first.refuse()
        one = ChatProvider("m1", name="one", base_url=first.url, api_key=KEY)
        two = ChatProvider("m2", name="two", base_url=second.url, api_key=KEY)
        chain = Fallback(Retrying(one, ONCE), Retrying(two, ONCE))
        text, provider, model, error = await asyncio.wait_for(ask(chain, way), PATIENCE)
        assert len(first.requests) == (stage != "refused")
        if stage in AFTER and way.endswith("streamed"):
            assert isinstance(error, ModelError)
            assert text
            assert (error.partial, error.attempts, second.requests) == (text, 1, [])
        else:
            assert (text, provider, error) == ("Hello from two.", "two", None)
            assert model == second.requests[0]["model"] == "m2"
            assert len(second.requests) == 1
            assert second.wait_until_idle()


@pytest.mark.fault("L54")
@pytest.mark.parametrize("way", WAYS)
async def test_when_all_fail_no_key_is_told(way: Way) -> None:
    with FaultServer(fault("unauthorized")) as first, FaultServer(fault("server-error")) as second:
        one = ChatProvider("m1", name="one", base_url=first.url, api_key=KEY)
        two = ChatProvider("m2", name="two", base_url=second.url, api_key=KEY)
        policy = RetryPolicy(max_retries=2, initial_delay=0.0)
        *_, error = await asyncio.wait_for(ask(Fallback(Retrying(one), Retrying(two, policy)), way), PATIENCE)
        assert (type(error), error.status, error.attempts) == (ProviderError, 500, 4)
        (failed,) = error.before
        assert failed.startswith("one:m1 failed: one answered 401")
        assert KEY not in str(error)
        assert (len(first.requests), len(second.requests)) == (1, 3)
