"""Hooks: callables that watch a run, and may change or veto a request or a tool call.

A hook is registered by name, takes one typed event, and may be sync or async; parameters named ``user_id`` and
``chat_id`` are filled where it declares them. A hook that fails or hangs never breaks the run: its error is logged
once. Sync hooks run on the event loop, so they should be short. Knows nothing of who calls the hooks, and when.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from plait.errors import ConfigurationError, excerpt

if TYPE_CHECKING:
    from plait.events import Answer
    from plait.messages import ToolCall, ToolResult
    from plait.providers.base import Request
    from plait.run import RunContext, RunResult

logger = logging.getLogger("plait.hooks")

HookName = Literal[
    "on_before_request",
    "on_after_request",
    "on_function_call_start",
    "on_function_call_end",
    "on_function_call_error",
    "on_max_turns_reached",
    "on_manual_stop",
    "on_final_response",
]
HOOK_NAMES: Final[tuple[str, ...]] = get_args(HookName)

Hook = Callable[..., Awaitable[Any] | Any]
HOOK_TIMEOUT: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Veto:
    """Returned by a hook to stop what it was asked about.

    Attributes:
        reason: a vetoed tool call gives the model an error result with this text; a vetoed request ends the run with
            the stop reason ``"guardrail"`` and this text as its error.
    """

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BeforeRequest:
    """For ``on_before_request``: return a changed `Request`, a `Veto`, or None."""

    context: RunContext[Any]
    request: Request
    turn: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AfterRequest:
    """For ``on_after_request``: a complete answer."""

    context: RunContext[Any]
    answer: Answer
    turn: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionCallStart:
    """For ``on_function_call_start``: return a changed `ToolCall` (its id stays), a `Veto`, or None."""

    context: RunContext[Any]
    call: ToolCall


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionCallEnd:
    """For ``on_function_call_end`` and, where the result is an error, ``on_function_call_error``."""

    context: RunContext[Any]
    call: ToolCall
    result: ToolResult
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnded:
    """For ``on_final_response``, ``on_max_turns_reached`` and ``on_manual_stop``: how the run ended."""

    context: RunContext[Any]
    result: RunResult[Any]


HookEvent = BeforeRequest | AfterRequest | FunctionCallStart | FunctionCallEnd | RunEnded


@dataclass(slots=True)
class _Prepared:
    """A hook with what was found out about it when it was registered."""

    name: str
    function: Hook
    injected: tuple[str, ...]
    failed: bool = False

    async def __call__(self, event: HookEvent, time_limit: float) -> object:
        context = event.context
        values = {"user_id": context.user_id, "chat_id": context.thread_id}
        answer = self.function(event, **{name: values[name] for name in self.injected})
        if inspect.isawaitable(answer):
            async with asyncio.timeout(time_limit):
                answer = await answer
        return answer


class Hooks:
    """An agent's hooks by name. Looking up a name that has none costs one dict access.

    Args:
        hooks: for each name one callable, or several that are called in order.
        time_limit: seconds that an async hook may take.

    Raises:
        ConfigurationError: a name is unknown, or a value cannot be called.
    """

    __slots__ = ("_prepared", "time_limit")

    def __init__(self, hooks: Mapping[str, Hook | Sequence[Hook]] | None = None, *, time_limit: float = HOOK_TIMEOUT) -> None:
        self.time_limit = time_limit
        self._prepared: dict[str, tuple[_Prepared, ...]] = {}
        for name, given in (hooks or {}).items():
            if name not in HOOK_NAMES:
                msg = f"there is no hook {name!r}; the hooks are {', '.join(HOOK_NAMES)}"
                raise ConfigurationError(msg)
            functions = tuple(given) if isinstance(given, Sequence) else (given,)
            self._prepared[name] = tuple(_prepare(name, function) for function in functions)

    def __contains__(self, name: HookName) -> bool:
        return name in self._prepared

    def __bool__(self) -> bool:
        return bool(self._prepared)

    async def call(self, name: HookName, event: HookEvent) -> object:
        """Call the hooks of one name in order.

        Returns:
            The first answer that is not None; the remaining hooks are still called.
        """
        decision: object = None
        for hook in self._prepared.get(name, ()):
            try:
                answer = await hook(event, self.time_limit)
            except Exception as error:  # noqa: BLE001  # a hook is foreign code and may not break the run
                if not hook.failed:
                    hook.failed = True
                    logger.warning("the hook %s failed and is ignored: %s: %s", name, type(error).__name__, excerpt(str(error)))
            else:
                decision = answer if decision is None else decision
        return decision


def _prepare(name: str, function: Hook) -> _Prepared:
    if not callable(function):
        msg = f"the hook {name!r} must be a function of one event (sync or async), not {type(function).__name__}"
        raise ConfigurationError(msg)
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # some builtins have no signature
        parameters = {}  # type: ignore[assignment]
    return _Prepared(name, function, tuple(n for n in ("user_id", "chat_id") if n in parameters))
