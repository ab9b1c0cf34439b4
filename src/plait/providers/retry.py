"""Asking again: a policy, a pure plan, the tries of one request, and the provider that carries them out round another.

Knows no dialect and no HTTP: the errors say whether another try may help (``retryable``, in which a provider's
``x-should-retry`` has the last word) and how long the provider asks to wait (``retry_after``).
"""

from __future__ import annotations

import asyncio
import logging
import random as _random
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from math import inf
from typing import TYPE_CHECKING, Any, Final, Literal, Self, assert_never, get_args

from plait.errors import (
    ConfigurationError,
    EmptyAnswer,
    ModelError,
    ProviderError,
    RateLimited,
    StreamTruncated,
    TransportError,
    excerpt,
)
from plait.events import AttemptDelta, Fold, UsageDelta
from plait.providers.base import PREAMBLE, Losses
from plait.providers.deadline import Deadline
from plait.providers.encoding import encoded

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from plait.events import Delta
    from plait.providers.base import Provider, Request
    from plait.providers.encoding import Encoded

logger = logging.getLogger("plait.providers")

Backoff = Literal["exponential", "linear", "fixed"]
FailureKind = Literal["rate_limit", "server_error", "timeout", "connection", "empty_answer", "other"]

_BACKOFFS: Final[tuple[Backoff, ...]] = get_args(Backoff)
_KINDS: Final[tuple[FailureKind, ...]] = get_args(FailureKind)
_REQUEST_TIMEOUT: Final = 408
_LARGEST: Final = sys.float_info.max


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


def _is_amount(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _LARGEST


def _are_rules(value: object) -> bool:
    return isinstance(value, Mapping) and all(
        kind in _KINDS and isinstance(rule, RetryRule) for kind, rule in value.items()
    )


_COUNT: Final = (_is_count, "a whole number, 0 or more")
_SECONDS: Final = (_is_amount, "seconds, 0 or more")
_ALLOWED: Final[dict[str, tuple[Callable[[Any], bool], str]]] = {
    "max_retries": _COUNT,
    "restarts": _COUNT,
    "initial_delay": _SECONDS,
    "max_delay": _SECONDS,
    "backoff": (lambda value: value in _BACKOFFS, ", ".join(map(repr, _BACKOFFS))),
    "factor": (_is_amount, "a number, 0 or more"),
    "jitter": (lambda value: _is_amount(value) and value <= 1, "a share, from 0 to 1"),
    "retry_after_cap": (lambda value: _is_amount(value) or value == inf, "seconds, 0 or more"),
    "deadline": (lambda value: value is None or (_is_amount(value) and value > 0), "seconds, more than 0, or None"),
    "rules": (_are_rules, f"a dict of RetryRule, with keys among {', '.join(map(repr, _KINDS))}"),
}


def _check(name: str, value: object, label: str) -> None:
    """Refuse a value that an option cannot have; the label says whose it is.

    Raises:
        ConfigurationError: it names the label, the value and what is allowed.
    """
    is_right, allowed = _ALLOWED[name]
    if not is_right(value):
        msg = f"{label} is {excerpt(repr(value), 80)}; it must be {allowed}"
        raise ConfigurationError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryRule:
    """What holds for one kind of failure; what is None is as in the policy.

    Raises:
        ConfigurationError: an option has a value that it cannot have.
    """

    max_retries: int | None = None
    backoff: Backoff | None = None
    initial_delay: float | None = None
    max_delay: float | None = None

    def __post_init__(self) -> None:
        for item in fields(self):
            if (value := getattr(self, item.name)) is not None:
                _check(item.name, value, f"{item.name} of a RetryRule")


_NO_RULE: Final = RetryRule()


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """When, and how often, a failed request is sent again.

    Attributes:
        max_retries: the most further requests, whatever failed: n means at most n + 1 requests.
        restarts: how many of them may ask anew for an answer that broke off after its beginning. Readers then get an
            `AttemptDelta`, which says that what they have is void, before the first delta of the new answer.
        initial_delay: seconds before the first further request.
        max_delay: the longest of our own delays, in seconds.
        backoff: how delays grow: by a factor, by a step, or not.
        factor: that of the exponential one.
        jitter: the share of a delay, from 0 to 1, that is left to chance, so that clients do not return together.
        retry_after_cap: the most seconds a provider may ask to wait; if it asks for more, the error is raised at once.
        deadline: seconds for all tries together, from the first request to the end of the answer, or None.
        rules: what differs for a kind of failure. A rule may allow fewer requests than the policy, never more; the
            number of requests sent so far counts all kinds.

    Raises:
        ConfigurationError: an option has a value that it cannot have.
    """

    max_retries: int = 2
    restarts: int = 0
    initial_delay: float = 0.5
    max_delay: float = 8.0
    backoff: Backoff = "exponential"
    factor: float = 2.0
    jitter: float = 0.25
    retry_after_cap: float = 60.0
    deadline: float | None = 600.0
    rules: Mapping[FailureKind, RetryRule] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for item in fields(self):
            _check(item.name, getattr(self, item.name), f"{item.name} of a RetryPolicy")

    @classmethod
    def from_strategy(cls, strategy: Mapping[str, Any]) -> Self:
        """Make a policy of a table of error classes, as it is kept in settings and passed as ``retry_strategy``.

        Args:
            strategy: for an error class (``"rate_limit"``, ``"server_error"``, ``"timeout"``, or another
                `FailureKind`) a dict with any of ``max_retries``, ``backoff``, ``initial_delay`` and ``max_delay``;
                and for all of them any of the same, and ``backoff_base``, the factor of exponential delays.

        Returns:
            A policy in which each class is tried as often as the table says, and a class that is not in it as usual.
            ``max_retries`` for all is the most for any.

        Raises:
            ConfigurationError: the table has an unknown key, or a value that cannot be; it is named.
        """
        common = _entries(strategy, "retry_strategy", (*_KINDS, *_RULE_KEYS, "backoff_base"))
        rules = {
            kind: RetryRule(**_entries(common.pop(kind), f"retry_strategy[{kind!r}]", _RULE_KEYS))
            for kind in _KINDS
            if kind in common
        }
        if "backoff_base" in common:
            common["factor"] = common.pop("backoff_base")
        if "max_retries" not in common:
            counts = {kind: rules.get(kind, _NO_RULE).max_retries for kind in _KINDS}
            usual = DEFAULT_POLICY.max_retries
            most = common["max_retries"] = max(usual if count is None else count for count in counts.values())
            for kind in (kind for kind in _KINDS if counts[kind] is None and most > usual):
                rules[kind] = replace(rules.get(kind, _NO_RULE), max_retries=usual)
        return cls(**common, rules=rules)


_RULE_KEYS: Final = tuple(item.name for item in fields(RetryRule))


def _entries(table: Any, where: str, known: tuple[str, ...]) -> dict[str, Any]:
    """Give the entries of a table of settings, which are known and, but for the tables in it, of the right kind."""
    if not isinstance(table, Mapping):
        msg = f"{where} is {excerpt(repr(table), 80)}; it must be a dict with any of {', '.join(known)}"
        raise ConfigurationError(msg)
    for key, value in table.items():
        if key not in known:
            msg = f"{where} has an unknown key {excerpt(repr(key), 60)}; the keys are {', '.join(known)}"
            raise ConfigurationError(msg)
        if key not in _KINDS:
            _check("factor" if key == "backoff_base" else key, value, f"{where}[{key!r}]")
    return dict(table)


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
    most = policy.max_retries if rule.max_retries is None else min(rule.max_retries, policy.max_retries)
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


class Tries:
    """The tries of one request: how many there were, since when, and what a policy says to a failure.

    Whoever asks counts each request before it is sent, and asks what comes after one that failed.

    Attributes:
        count: how many requests were sent.
    """

    __slots__ = ("_begun", "_clock", "_model", "_policy", "_provider", "_random", "count")

    def __init__(
        self,
        policy: RetryPolicy,
        provider: str,
        model: str,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = _random.random,
    ) -> None:
        """Begin; who is asked is for logs and errors."""
        self.count = 0
        self._policy = policy
        self._provider = provider
        self._model = model
        self._clock = clock
        self._random = random
        self._begun = clock()

    @property
    def left(self) -> float | None:
        """The seconds that are left for all tries together; None when they have no deadline."""
        return None if self._policy.deadline is None else self._policy.deadline - (self._clock() - self._begun)

    @property
    def within(self) -> str:
        """The deadline, in the words of an error."""
        return f"within {self._policy.deadline:g} s, all tries together"

    def delay_after(self, error: ModelError) -> float | None:
        """Say how many seconds to wait before the next request, or, in the error too, that there is none."""
        policy = self._policy
        delay = plan(policy, error, self.count, self._clock() - self._begun, self._random)
        if delay is not None:
            status = getattr(error, "status", None)
            what = type(error).__name__ if status is None else f"{type(error).__name__} {status}"
            who = (self._provider, self._model)
            logger.debug("%s:%s request %d failed (%s); next in %.2f s", *who, self.count, what, delay)
        elif isinstance(error, ProviderError) and error.retryable and error.retry_after is not None:
            cap = policy.retry_after_cap
            error.longest_wait = cap if error.retry_after > cap else None
        return delay

    def unanswered(self) -> TransportError:
        """Make the error for a deadline that passed before an answer had begun."""
        msg = f"{self._provider} gave no answer {self.within}"
        late = TransportError(msg, timeout=True, provider=self._provider)
        late.attempts = self.count
        return late


class Retrying:
    """A provider that asks another one again when it fails.

    Once something of an answer was handed out it is final, unless the policy allows restarts: readers then get an
    `AttemptDelta` as the first of the new answer. Until that comes, what they have stands.
    """

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

    def encoded(self, request: Request) -> Encoded:
        """Give what would be sent for a request; see `encoded`."""
        return encoded(self.provider, request)

    async def stream(self, request: Request) -> AsyncGenerator[list[Delta], None]:
        """Answer a request; see `Provider.stream`.

        Raises:
            ModelError: the last try's; ``attempts`` says how many requests were sent, ``partial`` is the text that
                readers have.
        """
        tries = Tries(self.policy, self.name, self.model, self._clock, self._random)
        restarts = 0
        void: Any = None  # the text that readers have of an answer that broke off and is asked for anew
        losses = request.losses or Losses()
        limit: Deadline | None = None
        try:
            while True:
                tries.count += 1
                spoke = told = False
                if limit is None and not (tries.count == 1 and self._first_is_bounded):
                    limit = None if (left := tries.left) is None else Deadline(left)
                try:
                    batches = self.provider.stream(request)
                    try:
                        async for batch in batches if limit is None else limit.over(batches):
                            if void is not None:
                                void = None
                                yield [AttemptDelta(tries.count)]
                            if not spoke:
                                kinds = {type(delta) for delta in batch}
                                spoke, told = not kinds <= PREAMBLE, told or UsageDelta in kinds
                            yield batch
                            del batch  # it need not last until the next one comes
                        return
                    finally:
                        await batches.aclose()
                except ModelError as error:
                    error.attempts = tries.count
                    error.partial = error.partial or void
                    may_try = not spoke or restarts < self.policy.restarts
                    delay = tries.delay_after(error) if may_try else None
                    if delay is None:
                        raise
                    restarts += spoke
                    if spoke or told:  # its tokens count, too
                        void = error.partial or ""
                    else:
                        losses.add(error, self.name, self.model)
                except TimeoutError:
                    if limit is None or not limit.passed:
                        raise
                    late = self._cut(tries, limit.given) if spoke else tries.unanswered()
                    late.partial = late.partial or void
                    raise late from None
                await self._wait(delay, losses)
        finally:
            if limit is not None:
                limit.end()

    async def _wait(self, delay: float, losses: Losses) -> None:
        losses.waiting = True  # also where this wait is the end
        await self._sleep(delay)
        losses.waiting = False

    def _cut(self, tries: Tries, given: list[list[Delta]]) -> ModelError:
        """Make the error for a deadline that passed after an answer had begun."""
        made = Fold(self.name, self.model)
        for batch in given:
            made.add(batch)
        msg = f"the answer of {self.name} was not complete {tries.within}"
        partial = made.answer().message.text
        late = StreamTruncated(msg, timeout=True, provider=self.name, partial=partial)
        late.attempts = tries.count
        return late
