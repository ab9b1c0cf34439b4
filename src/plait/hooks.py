"""Hooks: callables that watch a run, and may change or veto a request or a tool call.

A hook is registered by name, takes one typed event, and may be sync or async; parameters named ``user_id`` and
``chat_id`` are filled where it declares them. A hook that fails, hangs or cancels itself never breaks the run: what
goes wrong with it is logged the first time, without the error's words, and what it returned is ignored. Sync hooks run
on the event loop, so they should be short. Knows nothing of who calls the hooks, and when.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Literal, Self, get_args

import msgspec
from msgspec.structs import replace

from plait.callables import Failed, Prepared, prepare
from plait.errors import ConfigurationError, excerpt
from plait.events import Answer
from plait.messages import Message, ToolCall, ToolResult
from plait.providers.base import Request
from plait.run import RunContext, RunResult

logger = logging.getLogger("plait.hooks")

HookName = Literal[
    "on_before_request",
    "on_after_request",
    "on_token_received",
    "on_function_call_start",
    "on_function_call_end",
    "on_function_call_error",
    "on_context_overflow",
    "on_message_dropped",
    "on_prefix_changed",
    "on_budget_exceeded",
    "on_max_turns_reached",
    "on_max_tool_calls_reached",
    "on_manual_stop",
    "on_final_response",
]
HOOK_NAMES: Final[tuple[str, ...]] = get_args(HookName)

Hook = Callable[..., Awaitable[Any] | Any]
HOOK_TIMEOUT: Final = 10.0


class Veto(msgspec.Struct, frozen=True, kw_only=True):
    """Returned by a hook to stop what it was asked about.

    Attributes:
        reason: a vetoed tool call gives the model an error result with this text; a vetoed request ends the run with
            the stop reason ``"guardrail"`` and this text as its error.
    """

    reason: str


class BeforeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """For ``on_before_request``: return a changed `Request`, a `Veto`, or None."""

    context: RunContext[Any]
    request: Request
    turn: int


class AfterRequest(msgspec.Struct, frozen=True, kw_only=True):
    """For ``on_after_request``: a complete answer."""

    context: RunContext[Any]
    answer: Answer
    turn: int


class TokenReceived(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """For ``on_token_received``: more text of an answer, as it came. With this hook answers are always streamed."""

    context: RunContext[Any]
    text: str
    turn: int


class FunctionCallStart(msgspec.Struct, frozen=True, kw_only=True):
    """For ``on_function_call_start``: return a changed `ToolCall` (its id stays), a `Veto`, or None."""

    context: RunContext[Any]
    call: ToolCall


class FunctionCallEnd(msgspec.Struct, frozen=True, kw_only=True):
    """For ``on_function_call_end`` and, where the result is an error, ``on_function_call_error``.

    ``refused`` marks a call that a hook or a check did not allow: it never began, and only the latter is told of it.
    """

    context: RunContext[Any]
    call: ToolCall
    result: ToolResult
    seconds: float
    refused: bool = False


class ContextOverflow(msgspec.Struct, frozen=True, kw_only=True):
    """For ``on_context_overflow``: what is to be sent would be longer than the context window.

    Attributes:
        tokens: those of what is sent instead.
        limit: the window's.
    """

    context: RunContext[Any]
    tokens: int
    limit: int
    turn: int


class MessagesDropped(msgspec.Struct, frozen=True, kw_only=True):
    """For ``on_message_dropped``: messages that were sent before are left out from now on; the log keeps them.

    Attributes:
        messages: those that are left out for the first time, in order.
        total: how many are left out now.
    """

    context: RunContext[Any]
    messages: tuple[Message, ...]
    total: int
    turn: int


class PrefixChanged(msgspec.Struct, frozen=True, kw_only=True):
    """For ``on_prefix_changed``: a request of a thread does not begin with the bytes of the one before it.

    What providers keep of a request in their prompt caches is of no use from there on.

    Attributes:
        at: the first byte of the body that differs, from 0.
        before: what the last request had there, and what came around it, at most 80 characters.
        after: what this one has.
        message: the number of the message it is in, from 0; None where it is outside of them, or not known.
        trimmed: whether messages were left out, cut or summarised since, which explains it.
    """

    context: RunContext[Any]
    at: int
    before: str
    after: str
    message: int | None
    trimmed: bool
    turn: int


class BudgetExceeded(msgspec.Struct, frozen=True, kw_only=True):
    """For ``on_budget_exceeded``: the next request may cost more than a budget has left.

    Attributes:
        reason: a sentence that says so.
        per: whose budget it is: ``"run"``, ``"chat"`` or ``"user"``, or the key of one that all share.
        unit: ``"USD"`` or ``"tokens"``.
        limit: the budget.
        spent: what was spent or is reserved of it.
        needed: the least that the request needs.
        stops: whether the run ends now.
    """

    context: RunContext[Any]
    reason: str
    per: str
    unit: str
    limit: float
    spent: float
    needed: float
    stops: bool
    turn: int


class RunEnded(msgspec.Struct, frozen=True, kw_only=True):
    """How the run ended: for ``on_final_response``, after every run that did not fail, and before it one of these.

    ``on_max_turns_reached``, ``on_max_tool_calls_reached``, ``on_manual_stop``.
    """

    context: RunContext[Any]
    result: RunResult[Any]


HookEvent = (
    BeforeRequest
    | AfterRequest
    | TokenReceived
    | FunctionCallStart
    | FunctionCallEnd
    | ContextOverflow
    | MessagesDropped
    | PrefixChanged
    | BudgetExceeded
    | RunEnded
)


class Hooks:
    """An agent's hooks by name. Looking up a name that has none costs one dict access.

    Args:
        hooks: for each name one callable, or several that are called in order.
        time_limit: seconds that an async hook may take.

    Raises:
        ConfigurationError: a name is unknown, or a value cannot be called with one event.
    """

    __slots__ = ("_prepared", "time_limit")

    def __init__(
        self, hooks: Mapping[str, Hook | Sequence[Hook]] | None = None, *, time_limit: float = HOOK_TIMEOUT
    ) -> None:
        self.time_limit = time_limit
        self._prepared: dict[str, tuple[Prepared, ...]] = {}
        if hooks is not None and not isinstance(hooks, Mapping):
            msg = f"hooks must be a mapping of names to functions, not {type(hooks).__name__}"
            raise ConfigurationError(msg)
        for name, given in (hooks or {}).items():
            if name not in HOOK_NAMES:
                msg = f"there is no hook {excerpt(repr(name), 60)}; the hooks are {', '.join(HOOK_NAMES)}"
                raise ConfigurationError(msg)
            functions = given if isinstance(given, Sequence) and not isinstance(given, str) else (given,)
            if prepared := tuple(prepare(f"the hook {name!r}", function) for function in functions):
                self._prepared[name] = prepared

    def joined(self, more: Hooks) -> Self:
        """Give these hooks and more: of each name, these are called first."""
        made = type(self)(time_limit=self.time_limit)
        mine, others = self._prepared, more._prepared  # its own class
        made._prepared = {  # noqa: SLF001  # likewise
            name: (*mine.get(name, ()), *others.get(name, ())) for name in mine | others
        }
        return made

    def __contains__(self, name: HookName) -> bool:
        return name in self._prepared

    def __bool__(self) -> bool:
        return bool(self._prepared)

    async def call(self, name: HookName, event: HookEvent) -> object:
        """Call the hooks of one name in order. What one changes, the next ones see.

        Returns:
            The first `Veto`, if there is one; else the request or call as the last hook changed it; else None.
        """
        veto: Veto | None = None
        changed: object = None
        for hook in self._prepared.get(name, ()):
            answer = await hook.call(event, self.time_limit)
            if isinstance(answer, Failed):
                self._failed_with(name, hook, answer)
            elif isinstance(answer, Veto):
                veto = veto or answer
            elif isinstance(answer, Request) and isinstance(event, BeforeRequest):
                event, changed = replace(event, request=answer), answer
            elif isinstance(answer, ToolCall) and isinstance(event, FunctionCallStart):
                event, changed = replace(event, call=answer), answer
            elif answer is not None and isinstance(event, BeforeRequest | FunctionCallStart):
                self._ignored(name, hook, f"it returned {type(answer).__name__}")
        return veto or changed

    async def tell(self, name: HookName, events: Iterable[HookEvent]) -> None:
        """Call the hooks of one name with each of several events; they change nothing, and there are many of these."""
        for event in events:
            for hook in self._prepared.get(name, ()):
                answer = hook.begin(event)
                if answer is not None:
                    answer = await hook.finish(answer, self.time_limit)
                    if isinstance(answer, Failed):
                        self._failed_with(name, hook, answer)

    def _failed_with(self, name: str, hook: Prepared, failed: Failed) -> None:
        late = f"; a hook may take {self.time_limit} s" if failed.late else ""
        self._ignored(name, hook, f"{failed.error}{late}")

    @staticmethod
    def _ignored(name: str, hook: Prepared, why: str) -> None:
        if not hook.is_reported:
            hook.is_reported = True
            logger.warning("the hook %s failed and is ignored: %s", name, why)
