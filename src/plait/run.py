"""The values of one run: its context, limits, stop signal and result. Knows nothing of how a run is carried out."""

from __future__ import annotations

import asyncio
import inspect
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from math import inf
from typing import TYPE_CHECKING, Any, Final, Generic

import msgspec
from typing_extensions import TypeVar

from plait.errors import ConfigurationError
from plait.events import StopReason, Usage
from plait.log import without_tools
from plait.messages import Message
from plait.plain import EMPTY

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from plait.interrupts import Secret

Deps = TypeVar("Deps", default=Any)
Output = TypeVar("Output", default=str)

DEFAULT_USER: Final = "default"
DEFAULT_MAX_TURNS: Final = 10
DEFAULT_MAX_TOOL_CALLS: Final = 50
DEFAULT_TOOLS_AT_ONCE: Final = 16
DEFAULT_TOOL_TIMEOUT: Final = 60.0
DEFAULT_TOOL_RESULT_CHARACTERS: Final = 50_000


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLimits:
    """What a run may use before it ends with the stop reason of the same name.

    Attributes:
        max_turns: model requests.
        max_tool_calls: tool calls, over all turns.
        deadline: seconds from the start of the run, or None.

    Raises:
        ConfigurationError: a limit is no whole number, or below its least (1 turn, 0 calls), or the deadline no
            number above 0.
    """

    max_turns: int = DEFAULT_MAX_TURNS
    max_tool_calls: int = DEFAULT_MAX_TOOL_CALLS
    deadline: float | None = None

    def __post_init__(self) -> None:
        for name, least in (("max_turns", 1), ("max_tool_calls", 0)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                msg = f"{name} must be a whole number of at least {least}, not {_shown(value)}"
                raise ConfigurationError(msg)
        if self.deadline is not None and not (type(self.deadline) in (int, float) and self.deadline > 0):
            msg = f"deadline must be a number of seconds above 0, or None, not {_shown(self.deadline)}"
            raise ConfigurationError(msg)


def _shown(value: object) -> str:
    """A wrong value in an error: numbers and None as they are, of everything else only the type."""
    return repr(value) if isinstance(value, int | float | None) else type(value).__name__


DEFAULT_LIMITS: Final = RunLimits()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContext(Generic[Deps]):
    """What tools and hooks receive when they ask for it.

    Attributes:
        deps: whatever the caller gave with ``deps=``.
        user_id: for whom the run is.
        thread_id: the thread it continues.
        chat_id: the same, as the caller calls it: the thread's name; without one, its id.
        run_id: the run.
        agent_name: the agent's name.
        usage: the tokens of the run's turns so far; None when no provider reported any.
        secrets: values for `Secret` parameters, by parameter name.
        tool_call_id: the call being carried out; empty outside a tool.
        idempotency_key: the same for every attempt at one tool call, also after a crash; empty outside a tool.
    """

    deps: Deps
    user_id: str = DEFAULT_USER
    thread_id: str = ""
    chat_id: str = ""
    run_id: str = ""
    agent_name: str = ""
    usage: Usage | None = None
    secrets: Mapping[str, Secret] = EMPTY
    tool_call_id: str = ""
    idempotency_key: str = ""

    def __post_init__(self) -> None:
        if not self.chat_id:
            object.__setattr__(self, "chat_id", self.thread_id)


class StopSignal:
    """Ends a run from outside: give it with ``stop=``, then call `set` from any task or thread.

    One signal may stop many runs. A run that sees it closes its socket, cancels its tools, keeps the partial text
    and ends with the stop reason ``"user_stop"``.
    """

    __slots__ = ("_set", "_watches")

    def __init__(self) -> None:
        self._set = False
        self._watches: dict[int, _Watch] = {}

    # No lock: it could be held by the very thread that a signal handler interrupts in order to call `set`. Taking an
    # entry out of a dict succeeds for one caller only, so each watch fires once.

    def set(self) -> None:
        """Stop every run that holds this signal, now and later. Threads and signal handlers may call it, also twice."""
        self._set = True
        for key in list(self._watches):
            watch = self._watches.pop(key, None)
            if watch is not None:
                with suppress(RuntimeError):  # its loop is closed, and nothing runs there any more
                    watch.loop.call_soon_threadsafe(watch.fire)

    def is_set(self) -> bool:
        """Whether `set` was called."""
        return self._set

    def on_set(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back on the running loop when the signal is set; soon, if it is set already.

        Returns:
            What takes this back: once it was called, on that loop, the callback is never called.
        """
        watch = _Watch(callback, asyncio.get_running_loop())
        key = id(watch)
        self._watches[key] = watch
        if self._set and self._watches.pop(key, None) is not None:
            watch.loop.call_soon(watch.fire)

        def forget() -> None:
            self._watches.pop(key, None)
            watch.callback = None

        return forget

    def __repr__(self) -> str:
        return f"StopSignal({'set' if self._set else 'not set'})"


class _Watch:
    """A callback that a signal calls on its loop, until it is taken back."""

    __slots__ = ("callback", "loop")

    def __init__(self, callback: Callable[[], None], loop: asyncio.AbstractEventLoop) -> None:
        self.callback: Callable[[], None] | None = callback
        self.loop = loop

    def fire(self) -> None:
        if self.callback is not None:
            self.callback()


@dataclass(frozen=True, slots=True)
class StopPoll:
    """Ends a run when a function says so: give it, or the bare function, with ``stop=``.

    The function is asked when the run begins and then every few seconds, also while the run waits to ask again, and in
    the middle of an answer or of a tool. One that fails is asked again; its first failure is logged, as a warning of
    ``plait.run``, with its traceback at DEBUG.

    Attributes:
        function: gives whether to stop. Sync (it is then called in a thread, so it may ask a database) or async;
            ``user_id`` and ``chat_id`` are filled where it declares them, and it takes nothing else.
        every: seconds between an answer and the next question; an async function has as long to answer, but at least
            a second.

    Raises:
        ConfigurationError: it is no such function, or ``every`` no number of seconds above 0.
    """

    function: Callable[..., bool | Awaitable[bool]]
    every: float = 3.0

    def __post_init__(self) -> None:
        if not callable(self.function) or isinstance(self.function, type):
            given = self.function
            what = f"the class {given.__name__}" if isinstance(given, type) else type(given).__name__
            msg = f"StopPoll takes a function that says whether to stop, not {what}"
            raise ConfigurationError(msg)
        if type(self.every) not in (int, float) or not 0 < self.every < inf:
            msg = f"StopPoll(every=...) takes seconds above 0, not {_shown(self.every)}"
            raise ConfigurationError(msg)
        wanted = self.told
        try:
            inspect.signature(self.function).bind(**dict.fromkeys(wanted))
        except TypeError as error:
            msg = f"a function that says whether to stop may take user_id and chat_id, and nothing else: {error}"
            raise ConfigurationError(msg) from None
        except ValueError:  # some builtins have no signature
            return

    @property
    def told(self) -> tuple[str, ...]:
        """Which of ``user_id`` and ``chat_id`` the function declares."""
        try:
            declared = inspect.signature(self.function).parameters
        except (TypeError, ValueError):
            return ()
        takes_all = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in declared.values())
        return tuple(name for name in ("user_id", "chat_id") if takes_all or name in declared)


class RunResult(msgspec.Struct, Generic[Output], frozen=True, kw_only=True, dict=True, weakref=True):
    """How a run ended. Every field is there for every stop reason.

    Attributes:
        output: the final text, or the value of the agent's output type; the text so far, or None, when the run ended
            before an answer was complete.
        stop_reason: why the run ended.
        messages: the messages of this run, the prompt first.
        history: the messages of the whole thread, as they can be sent again.
        usage: the tokens of all turns together; None when no provider reported any.
        truncated: whether the last answer was cut by the model's token limit.
        error: what went wrong, where the run ended early without failing; else None.
        finish_reason: why the model stopped its last answer, in the provider's word.
        provider: who gave the last answer.
        model: which model gave the last answer, as the provider names it.
    """

    output: Output
    stop_reason: StopReason
    messages: tuple[Message, ...]
    history: tuple[Message, ...]
    usage: Usage | None
    thread_id: str
    run_id: str
    agent_name: str
    truncated: bool = False
    error: str | None = None
    finish_reason: str | None = None
    provider: str | None = None
    model: str | None = None

    def __repr__(self) -> str:
        shown = [name for name in self.__struct_fields__ if name != "history"]
        return f"RunResult({', '.join(f'{name}={getattr(self, name)!r}' for name in shown)})"

    @cached_property
    def history_without_tool_calls(self) -> tuple[Message, ...]:
        """The history without tool calls and their results."""
        return tuple(without_tools(self.history))

    @property
    def cost(self) -> float | None:
        """US dollars for all turns as the provider reported them, or None when it reported none."""
        return self.usage.cost if self.usage else None

    @property
    def text(self) -> str:
        """The text of the last answer; empty when there was none."""
        return next((m.text for m in reversed(self.messages) if m.role == "assistant"), "")
