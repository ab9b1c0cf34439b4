"""Asking again: a policy, a pure plan, and the provider that carries it out round another one.

Knows no dialect and no HTTP: the errors say whether another try may help (``retryable``, in which a provider's
``x-should-retry`` has the last word) and how long the provider asks to wait (``retry_after``).
"""

from __future__ import annotations

import asyncio
import logging
import random as _random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, Self, assert_never

from plait.errors import (
    ConfigurationError,
    EmptyAnswer,
    ModelError,
    ProviderError,
    RateLimited,
    StreamTruncated,
    TransportError,
)
from plait.events import ModelDelta, TextDelta, UsageDelta
from plait.providers.status import plain_seconds

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping

    from plait.events import Delta
    from plait.providers.base import Provider, Request

logger = logging.getLogger("plait.providers")

Backoff = Literal["exponential", "linear", "fixed"]
FailureKind = Literal["rate_limit", "server_error", "timeout", "connection", "empty_answer", "other"]

_REQUEST_TIMEOUT: Final = 408
_PREAMBLE: Final = frozenset({ModelDelta, UsageDelta})  # what may be said again by another try


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryRule:
    """What holds for one kind of failure; what is None is as in the policy."""

    max_retries: int | None = None
    backoff: Backoff | None = None
    initial_delay: float | None = None
    max_delay: float | None = None


_NO_RULE: Final = RetryRule()


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """When, and how often, a failed request is sent again.

    Attributes:
        max_retries: the most further requests, whatever failed: n means at most n + 1 requests.
        initial_delay: seconds before the first of them.
        max_delay: the longest of our own delays, in seconds.
        backoff: how delays grow: by a factor, by a step, or not.
        factor: that of the exponential one.
        jitter: the share of a delay, from 0 to 1, that is left to chance, so that clients do not return together.
        retry_after_cap: the most seconds a provider may ask to wait; if it asks for more, the error is raised at once.
        deadline: seconds for all tries together, from the first request to the end of the answer, or None.
        rules: what differs for a kind of failure. The number of requests sent so far counts all kinds.
    """

    max_retries: int = 2
    initial_delay: float = 0.5
    max_delay: float = 8.0
    backoff: Backoff = "exponential"
    factor: float = 2.0
    jitter: float = 0.25
    retry_after_cap: float = 60.0
    deadline: float | None = 600.0
    rules: Mapping[FailureKind, RetryRule] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse numbers that make no sense.

        Raises:
            ConfigurationError: a number is negative, or the jitter above 1.
        """
        for name in ("max_retries", "initial_delay", "max_delay", "factor", "jitter", "retry_after_cap"):
            if not getattr(self, name) >= 0:
                msg = f"RetryPolicy({name}={getattr(self, name)!r}): must be 0 or more"
                raise ConfigurationError(msg)
        if self.jitter > 1:
            msg = f"RetryPolicy(jitter={self.jitter!r}): a share is from 0 to 1"
            raise ConfigurationError(msg)


DEFAULT_POLICY: Final = RetryPolicy()


def kind_of(error: ModelError) -> FailureKind:
    """Say what kind of failure an error is, for a policy's rules."""
    if isinstance(error, RateLimited):
        return "rate_limit"
    if isinstance(error, ProviderError):
        return "timeout" if error.status == _REQUEST_TIMEOUT else "server_error"
    if isinstance(error, TransportError | StreamTruncated):
        return "timeout" if error.timeout else "connection"
    return "empty_answer" if isinstance(error, EmptyAnswer) else "other"


def plan(
    policy: RetryPolicy, error: ModelError, attempt: int, elapsed: float, random: Callable[[], float]
) -> float | None:
    """Decide what to do after a failure.

    Args:
        policy: the rules.
        error: what failed.
        attempt: how many requests were sent, from 1.
        elapsed: seconds since the first was begun.
        random: gives a number from 0 to 1.

    Returns:
        The seconds to wait before the next request, or None when the error is final.
    """
    rule = policy.rules.get(kind_of(error), _NO_RULE)
    most = policy.max_retries if rule.max_retries is None else rule.max_retries
    if not error.retryable or attempt > most:
        return None
    asked = error.retry_after if isinstance(error, ProviderError) else None
    if asked is not None:
        if asked > policy.retry_after_cap:
            return None
        delay = asked
    else:
        delay = _own_delay(policy, rule, attempt) * (1 - policy.jitter * random())
    if policy.deadline is not None and elapsed + delay >= policy.deadline:
        return None
    return delay


def _own_delay(policy: RetryPolicy, rule: RetryRule, attempt: int) -> float:
    first = policy.initial_delay if rule.initial_delay is None else rule.initial_delay
    longest = policy.max_delay if rule.max_delay is None else rule.max_delay
    match rule.backoff or policy.backoff:
        case "fixed":
            delay = first
        case "linear":
            delay = first * attempt
        case "exponential":
            try:
                delay = first * policy.factor ** (attempt - 1)
            except OverflowError:
                delay = longest
        case other:
            assert_never(other)
    return min(delay, longest)


class Retrying:
    """A provider that asks another one again when it fails, as long as nothing of an answer was handed out."""

    def __init__(
        self,
        provider: Provider,
        policy: RetryPolicy = DEFAULT_POLICY,
        *,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = _random.random,
    ) -> None:
        """Wrap a provider.

        Args:
            provider: the one that is asked.
            policy: when it is asked again.
            sleep: waits for some seconds.
            clock: gives seconds from any beginning, never going back.
            random: gives a number from 0 to 1.
        """
        self.provider = provider
        self.policy = policy
        self.name = provider.name
        self.model = provider.model
        own = getattr(provider, "total", None)  # a provider that ends each request within a time of its own
        self._first_is_bounded = own is not None and (policy.deadline is None or own <= policy.deadline)
        self._sleep = sleep
        self._clock = clock
        self._random = random

    def __repr__(self) -> str:
        return f"Retrying({self.provider!r})"

    async def stream(self, request: Request) -> AsyncGenerator[list[Delta], None]:
        """Answer a request; see `Provider.stream`.

        Raises:
            ModelError: the last try's; ``attempts`` says how many requests were sent.
        """
        begun = self._clock()
        attempt = 0
        limit: _Deadline | None = None
        try:
            while True:
                attempt += 1
                spoke = False
                if limit is None and self.policy.deadline is not None and not (attempt == 1 and self._first_is_bounded):
                    limit = _Deadline(self.policy.deadline - (self._clock() - begun))
                try:
                    batches = self.provider.stream(request)
                    try:
                        async for batch in batches if limit is None else limit.over(batches):
                            spoke = spoke or any(type(delta) not in _PREAMBLE for delta in batch)
                            yield batch
                            del batch  # it need not last until the next one comes
                        return
                    finally:
                        await batches.aclose()
                except ModelError as error:
                    error.attempts = attempt
                    elapsed = self._clock() - begun
                    delay = None if spoke else plan(self.policy, error, attempt, elapsed, self._random)
                    if delay is None:
                        if not spoke:
                            self._say_if_too_long(error)
                        raise
                    self._note(error, attempt, delay)
                except TimeoutError:
                    if limit is None or not limit.passed:
                        raise
                    late = self._late(limit.given if spoke else None)
                    late.attempts = attempt
                    raise late from None
                await self._sleep(delay)
        finally:
            if limit is not None:
                limit.end()

    def _say_if_too_long(self, error: ModelError) -> None:
        """Add to the error's sentence that its provider asks to wait longer than the policy allows, if it does."""
        asked = error.retry_after if isinstance(error, ProviderError) and error.retryable else None
        cap = self.policy.retry_after_cap
        if asked is not None and asked > cap:
            wish = f"; it asks to wait {plain_seconds(asked)}"
            said = str(error.args[0]).removesuffix(wish)
            error.args = (f"{said}{wish}, above the limit of {plain_seconds(cap)}, so it was not waited for",)

    def _late(self, given: list[list[Delta]] | None) -> ModelError:
        """Make the error for a deadline that passed, before (None) or after an answer had begun."""
        within = f"within {self.policy.deadline:g} s, all tries together"
        if given is None:
            return TransportError(f"{self.name} gave no answer {within}", timeout=True, provider=self.name)
        deltas = (delta for batch in given for delta in batch)
        text = "".join(delta.text for delta in deltas if type(delta) is TextDelta and delta.choice == 0)
        msg = f"the answer of {self.name} was not complete {within}"
        return StreamTruncated(msg, timeout=True, provider=self.name, partial=text)

    def _note(self, error: ModelError, attempt: int, delay: float) -> None:
        status = getattr(error, "status", None)
        what = type(error).__name__ if status is None else f"{type(error).__name__} {status}"
        logger.debug("%s:%s request %d failed (%s); next in %.2f s", self.name, self.model, attempt, what, delay)


class _Deadline:
    """Ends the wait for a batch at one moment, whichever batch it is: one timer, and none for each.

    `asyncio.timeout` cannot stand round a ``yield``: it would cancel what the reader does between two batches.
    """

    __slots__ = ("_batches", "_cancelled", "_timer", "_waiting", "given", "passed")

    def __init__(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self.passed = False
        self.given: list[list[Delta]] = []
        self._batches: AsyncIterator[list[Delta]] | None = None
        self._cancelled = False  # whether the wait was ended, which has to be taken back
        self._waiting: asyncio.Task[object] | None = None
        self._timer = loop.call_at(loop.time() + seconds, self._pass)

    def over(self, batches: AsyncIterator[list[Delta]]) -> Self:
        """Give these batches, until the deadline: an iteration raises TimeoutError when it passed."""
        self._batches = batches
        return self

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[Delta]:
        if self._batches is None:
            raise StopAsyncIteration
        if self.passed:
            raise TimeoutError
        task = self._waiting = asyncio.current_task()
        before = task.cancelling() if task is not None else 0
        try:
            batch = await anext(self._batches)
        except asyncio.CancelledError:
            if (left := self._take_back()) is not None and left <= before:
                raise TimeoutError from None
            raise
        except BaseException:
            self._take_back()
            raise
        self._take_back()
        self.given.append(batch)
        return batch

    def end(self) -> None:
        """Forget the timer."""
        self._timer.cancel()

    def _pass(self) -> None:
        self.passed = True
        if self._waiting is not None:
            self._cancelled = self._waiting.cancel()

    def _take_back(self) -> int | None:
        """Say that nobody waits any more; take back the cancellation that ended the wait, and count what is left."""
        task, self._waiting = self._waiting, None
        if not self._cancelled or task is None:
            return None
        self._cancelled = False
        return task.uncancel()
