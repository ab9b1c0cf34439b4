"""Foreign callables of one event, a hook or a check: prepared once, called so that they can break nothing.

They may be sync or async, and get ``user_id`` and ``chat_id`` where they declare them. Knows nothing of what events
there are, nor of what is made of an answer.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from plait.driving import CancelledItself, TimeUp, drive
from plait.errors import ConfigurationError, LimitExceeded, excerpt

if TYPE_CHECKING:
    from plait.run import RunContext


_SAID: Final = 400


class RunScoped(Protocol):
    """An event of a run."""

    @property
    def context(self) -> RunContext[Any]:
        """Whose run it is."""
        ...


class Failed(msgspec.Struct, frozen=True, gc=False):
    """What came of a callable that raised, hung or cancelled itself.

    Attributes:
        error: the name of the error's class.
        late: whether its time was up.
        kind: the error's class; None where that does not matter.
        said: the words of an error that plait makes of what its caller has configured: of a limit, or of a setting. No
            others are kept, for they may hold what people said.
    """

    error: str
    late: bool = False
    kind: type[BaseException] | None = None
    said: str = ""

    @classmethod
    def of(cls, error: BaseException) -> Failed:
        """Say what came of a callable that raised an error."""
        ours = isinstance(error, ConfigurationError | LimitExceeded)
        return cls(type(error).__name__, kind=type(error), said=excerpt(str(error), _SAID) if ours else "")


class Prepared(msgspec.Struct, eq=False):
    """A callable with what was found out about it when it was registered.

    Attributes:
        function: the callable.
        injected: the parameters that are filled in.
        is_reported: whether its owner has logged that it failed; it does so once.
    """

    function: Callable[..., Awaitable[Any] | Any]
    injected: tuple[str, ...] = ()
    is_reported: bool = False

    async def call(self, event: RunScoped, time_limit: float) -> object | Failed:
        """Call it with an event. A sync one runs on the event loop, and no time bounds it.

        Args:
            event: what it is asked about.
            time_limit: seconds that an async one may take.

        Raises:
            CancelledError: this task was cancelled from outside.
        """
        before = _cancellations()
        if before:
            await asyncio.sleep(0)  # a cancellation on its way arrives here, and is not taken for the callable's own
        answer = self.begin(event)
        return answer if answer is None else await self.finish(answer, time_limit, before)

    def begin(self, event: RunScoped) -> object | Failed:
        """Call it, and give what it returned: of an async one what is to be awaited, by `finish`."""
        try:
            return self.function(event, **self._given(event)) if self.injected else self.function(event)
        except asyncio.CancelledError:
            return Failed("CancelledError")
        except Exception as error:  # noqa: BLE001  # foreign code
            return Failed.of(error)

    async def finish(self, answer: object, time_limit: float, before: int = 0) -> object | Failed:
        """Await what `begin` gave, if it is to be awaited; ``before`` says how often this task was told to end before.

        Raises:
            CancelledError: this task was cancelled from outside.
        """
        if not inspect.isawaitable(answer):
            return answer
        try:
            given: object = await drive(answer if inspect.iscoroutine(answer) else _awaited(answer), time_limit)
        except TimeUp:
            return Failed("TimeoutError", late=True)
        except CancelledItself:
            return Failed("CancelledError")
        except (Exception, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and _cancellations() > before:
                raise
            return Failed.of(error)
        return given

    def _given(self, event: RunScoped) -> dict[str, str]:
        values = {"user_id": event.context.user_id, "chat_id": event.context.chat_id}
        return {name: values[name] for name in self.injected}


def prepare(what: str, function: Callable[..., Awaitable[Any] | Any]) -> Prepared:
    """Look at a callable once.

    Args:
        what: its name in errors: ``"the hook 'on_manual_stop'"``.
        function: what takes one event, and ``user_id`` and ``chat_id`` where it declares them.

    Raises:
        ConfigurationError: it cannot be called so.
    """
    if not callable(function):
        msg = f"{what} must be a function of one event (sync or async), not {type(function).__name__}"
        raise ConfigurationError(msg)
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some builtins have no signature
        return Prepared(function)
    injected = tuple(n for n in ("user_id", "chat_id") if n in signature.parameters)
    try:
        signature.bind(None, **dict.fromkeys(injected))
    except TypeError as error:
        msg = f"{what} must take one event, and user_id and chat_id if it likes: {error}"
        raise ConfigurationError(msg) from None
    return Prepared(function, injected)


async def _awaited(answer: Awaitable[Any]) -> object:
    return await answer


def _cancellations() -> int:
    """Say how often this task was told to end."""
    task = asyncio.current_task()
    return task.cancelling() if task is not None else 0
