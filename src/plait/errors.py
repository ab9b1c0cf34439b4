"""Every error plait raises, in one tree.

::

    PlaitError, also named AgentError
    ├── ConfigurationError (ValueError)   a wrong argument, provider, model, tool or key; nothing was sent
    │   └── MissingExtra                  an optional dependency is not installed
    ├── ModelError                        asking a model went wrong; also named OpenRouterError
    │   ├── TransportError                no connection, a time-out, ...; also named OpenRouterConnectionError
    │   ├── ProviderError                 an error answer (``status``, ``code``); also named OpenRouterAPIError
    │   │   └── RateLimited               it asked us to slow down (``retry_after`` seconds)
    │   ├── ProtocolViolation             the answer was not what its protocol says (``excerpt``)
    │   ├── StreamTruncated               a stream ended without its end mark
    │   ├── EmptyAnswer                   a complete answer without content
    │   ├── Refused                       the model or its filter declined (``text``)
    │   └── OutputInvalid                 the answer does not fit the output type (``text``)
    ├── ToolError                         raised by a tool to tell the model what went wrong
    ├── MCPError                          an MCP server cannot be reached, or is none (``server``)
    ├── LimitExceeded                     a size, count or rate limit (``limit``)
    ├── Cancelled                         what readers of a cancelled promise get
    ├── NotReplayable                     a bounded stream was read a second time
    ├── ReplayMismatch                    a recording does not hold what was asked (``where``, ``recorded``, ``asked``)
    ├── DeadlockError                     an agent waits for its own answer
    ├── StoreError
    │   ├── StoreUnavailable              the store cannot be reached, or is busy
    │   ├── StateConflict                 another writer appended first
    │   ├── CorruptRecord                 a stored record cannot be read (``record``)
    │   ├── UnknownThread                 no such thread, for this user
    │   └── NothingToResume               the thread holds no run that could go on
    ├── ReplyError                        an answer to an interrupt that cannot be taken
    │   ├── WrongInteraction, StaleInteraction, AlreadyAnswered, Expired, InvalidReply
    │   └── SessionGone                   the session was evicted, expired or deleted
    ├── GuardrailError                    a check refused the input, the output or a call
    └── SecurityError                     an address, path or permission that is never allowed

Only failures are errors: a run that reaches a limit, is stopped, or waits for a person ends with a
``stop_reason``. Messages carry no secret, and at most 200 characters of foreign text (`excerpt`).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, ClassVar, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

# Records of plait's loggers are shown only where the application asks for them. This is the module that every module
# with a logger imports.
logging.getLogger("plait").addHandler(logging.NullHandler())

EXCERPT_LENGTH: Final = 200


def excerpt(text: str | bytes, length: int = EXCERPT_LENGTH) -> str:
    """Give the beginning of foreign text as one printable line, for an error message.

    Args:
        text: anything a server, model or file said; bytes are read as UTF-8.
        length: the most characters of it to keep.

    Returns:
        At most ``length`` characters and ``…`` when something was cut; control characters are escaped,
        so that foreign text can neither start a new log record nor drive a terminal.
    """
    whole = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    line = " ".join(whole[: length * 4].split())
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in line)
    return safe if len(safe) <= length and len(whole) <= length * 4 else safe[:length] + "…"


def plain_seconds(number: float) -> str:
    """Write seconds down for a person: ``0.02 s``, ``90 s``, ``1,000,000,000 s``."""
    return f"{number:,.0f} s" if number >= 1000 else f"{round(number, 3):g} s"  # noqa: PLR2004  # where ``g`` counts digits


class PlaitError(Exception):
    """The base of every error of this library.

    Attributes:
        retryable: whether the same call may succeed when tried again.
        partial: what had arrived before the failure (text, a message or a `RunResult`), else None.
    """

    retryable: bool = False
    partial: Any = None


AgentError = PlaitError
"""The base of every error, under the name that users of agents and threads know."""


class ConfigurationError(PlaitError, ValueError):
    """An argument, name or setting is wrong; nothing was sent and nothing was written."""


class MissingExtra(ConfigurationError):
    """An optional dependency is needed that is not installed."""

    def __init__(self, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs the {extra!r} extra; install it with: pip install 'plait[{extra}]'")
        self.extra = extra


class ModelError(PlaitError):
    """Asking a model went wrong.

    Attributes:
        provider: the provider's name, where it is known.
        request_id: the provider's own id of the request, where it sent one.
        attempts: how many requests were sent.
        before: what went wrong with those that a chain of providers had asked before this one, a sentence for each.
    """

    default_retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        provider: str | None = None,
        request_id: str | None = None,
        partial: Any = None,
        retryable: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.provider = provider
        self.request_id = request_id
        self.partial = partial
        self.retryable = self.default_retryable if retryable is None else retryable
        self.attempts = 1
        self.before: tuple[str, ...] = ()

    def __str__(self) -> str:
        tries = f" (after {self.attempts} tries)" if self.attempts > 1 else ""
        before = f"; before it, {'; '.join(self.before)}" if self.before else ""
        return f"{super().__str__()}{self._more()}{tries}{before}"

    def _more(self) -> str:
        """What the error's fields say beside its message."""
        return ""


OpenRouterError = ModelError
"""What goes wrong in asking a model, under the name that users of OpenRouter clients know."""


class TransportError(ModelError):
    """No connection (``sent`` is False), a time-out (``timeout`` is True), or a connection that broke."""

    default_retryable = True

    def __init__(self, message: str, *, timeout: bool = False, sent: bool = True, **details: Any) -> None:
        super().__init__(message, **details)
        self.timeout = timeout
        self.sent = sent


OpenRouterConnectionError = TransportError
"""See `OpenRouterError`."""


class ProviderError(ModelError):
    """The provider answered with an error.

    Attributes:
        status: the HTTP status, or the code of an error object inside a 200 answer; None if it had none.
        code: the provider's own word for it, such as ``"insufficient_quota"``.
        body: at most 200 characters of what the provider wrote.
        retry_after: the seconds it asked to wait before the next try, or None.
        longest_wait: the most seconds that would have been waited, where it asked for more; else None.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        body: str = "",
        retry_after: float | None = None,
        **details: Any,
    ) -> None:
        super().__init__(message, **details)
        self.status = status
        self.code = code
        self.body = body
        self.retry_after = retry_after
        self.longest_wait: float | None = None

    def _more(self) -> str:
        if self.retry_after is None:
            return ""
        wish = f"; it asks to wait {plain_seconds(self.retry_after)}"
        if self.longest_wait is None:
            return wish
        return f"{wish}, above the limit of {plain_seconds(self.longest_wait)}, so it was not waited for"


OpenRouterAPIError = ProviderError
"""See `OpenRouterError`."""


class RateLimited(ProviderError):
    """The provider asked to slow down; ``retry_after`` holds the seconds it named, or None."""

    default_retryable = True


class ProtocolViolation(ModelError):
    """The answer was not what its protocol says; ``excerpt`` holds the beginning of it."""

    def __init__(self, message: str, *, excerpt: str = "", **details: Any) -> None:
        super().__init__(message, **details)
        self.excerpt = excerpt


class StreamTruncated(ModelError):
    """A stream ended without its protocol's end mark; ``partial`` holds the text that had arrived."""

    default_retryable = True

    def __init__(self, message: str, *, timeout: bool = False, **details: Any) -> None:
        super().__init__(message, **details)
        self.timeout = timeout


class EmptyAnswer(ModelError):
    """The answer was complete and held neither text nor a tool call."""

    default_retryable = True


class Refused(ModelError):
    """The model, or the provider's content filter, declined to answer; ``text`` is what it said."""

    def __init__(self, message: str, *, text: str = "", **details: Any) -> None:
        super().__init__(message, **details)
        self.text = text


class OutputInvalid(ModelError):
    """The answer does not fit the output type that was asked for; ``text`` is the last answer."""

    def __init__(self, message: str, *, text: str = "", **details: Any) -> None:
        super().__init__(message, **details)
        self.text = text


class ToolError(PlaitError):
    """Raise it in a tool to give the model an error result with exactly this text."""


class MCPError(PlaitError):
    """An MCP server cannot be used: not reached, not allowed in, no MCP server, or without a usable tool.

    Attributes:
        server: the name it was registered under.
    """

    def __init__(self, message: str, *, server: str = "", retryable: bool = False) -> None:
        super().__init__(message)
        self.server = server
        self.retryable = retryable


class LimitExceeded(PlaitError):
    """A size, count or rate limit was reached; ``limit`` is its value."""

    def __init__(self, message: str, *, limit: float | None = None) -> None:
        super().__init__(message)
        self.limit = limit


class Cancelled(PlaitError):
    """What readers of a promise get after its pieces when it was cancelled.

    Not an `asyncio.CancelledError`: the reader itself was not cancelled and may go on.
    """


class NotReplayable(PlaitError):
    """A bounded stream keeps no history: it has one reader, and this would be a second."""


class ReplayMismatch(PlaitError):
    """A recording was asked what it does not hold.

    Attributes:
        where: the first place in which the request differs from the recorded one, such as
            ``messages[1].parts[0].text``; empty when the recording is used up, or ends in the middle of an answer.
        recorded: what was recorded there, at most 80 characters.
        asked: what was asked instead, at most 80 characters.
    """

    def __init__(self, message: str, *, where: str = "", recorded: str = "", asked: str = "") -> None:
        super().__init__(message)
        self.where = where
        self.recorded = recorded
        self.asked = asked


class DeadlockError(PlaitError):
    """An agent waits for its own answer, directly or round a ring; ``ring`` names who waits for whom."""

    def __init__(self, message: str, *, ring: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.ring = tuple(ring)


class StoreError(PlaitError):
    """Reading or writing a store went wrong."""


class StoreUnavailable(StoreError):
    """The store cannot be reached, is busy, or is no store; what it holds is untouched."""

    retryable = True


class StateConflict(StoreError):
    """Another writer appended to the thread first; nothing of this append was written."""

    def __init__(self, message: str, *, expected: int | None = None, found: int | None = None) -> None:
        super().__init__(message)
        self.expected = expected
        self.found = found


class CorruptRecord(StoreError):
    """A stored record cannot be read; ``record`` names it. Other records are untouched."""

    def __init__(self, message: str, *, record: str = "") -> None:
        super().__init__(message)
        self.record = record


class UnknownThread(StoreError):
    """There is no such thread for this user."""


class NothingToResume(StoreError):
    """The thread holds no run that could go on."""


class ReplyError(PlaitError):
    """An answer to an interrupt that cannot be taken."""


class WrongInteraction(ReplyError):
    """The answer names an interrupt of another run."""


class StaleInteraction(ReplyError):
    """The run has moved on; the interrupt is no longer open."""


class AlreadyAnswered(ReplyError):
    """The interrupt has a different answer already."""


class Expired(ReplyError):
    """The interrupt's time was up before the answer came."""


class InvalidReply(ReplyError):
    """The answer is of the wrong type or names an option that was not offered; the interrupt stays open."""


class SessionGone(ReplyError):
    """The session was evicted, expired or deleted; it is not silently begun anew."""


class GuardrailError(PlaitError):
    """A guardrail refused the input, the output or a tool call."""


class SecurityError(PlaitError):
    """An address, path or permission that is never allowed."""
