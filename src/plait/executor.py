"""Carrying out tool calls: every outcome is a value, and only ends from outside are raised.

A tool that is unknown, gets wrong arguments, raises, hangs, or cancels itself gives an error result for the model.
What is raised: the cancellation of the run, and KeyboardInterrupt, SystemExit and GeneratorExit out of a tool, each
after all other calls were cancelled. Knows nothing of logs, hooks and limits: the loop that calls it does.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import re
import types
from collections import deque
from contextlib import aclosing, closing
from contextvars import Context
from dataclasses import replace
from functools import partial
from math import inf
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from plait.errands import Errands
from plait.errors import LimitExceeded, ToolError, excerpt
from plait.messages import TextPart, ToolResult
from plait.run import DEFAULT_TOOL_TIMEOUT, DEFAULT_TOOLS_AT_ONCE
from plait.tool_results import MAX_SAID, NO_MASK, Mask, Pieces, cut, error_text, to_parts
from plait.toolbase import prepare
from plait.workers import WORKERS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Coroutine, Generator, Iterable, Iterator, Mapping, Sequence

    from plait.messages import ContentPart, ToolCall
    from plait.run import RunContext
    from plait.toolbase import Prepared, Tool

logger = logging.getLogger("plait.tools")

_GRACE: Final = 0.5
"""Seconds between the cancellations of a tool whose time is up and that does not end."""
_TRIES: Final = 3
_TOGETHER_SECONDS: Final = 0.005
_TEXT_OF_ONE: Final = r"^<secret:([^<>]+)>$"


class Finished(NamedTuple):
    """A tool call that has its result.

    Attributes:
        call: the call.
        result: what the model gets.
        seconds: how long it took.
    """

    call: ToolCall
    result: ToolResult
    seconds: float


async def execute(
    calls: Sequence[ToolCall],
    tools: Mapping[str, Tool],
    context: RunContext[Any],
    *,
    sequential: bool = False,
    at_once: int = DEFAULT_TOOLS_AT_ONCE,
    errands: Errands | None = None,
) -> AsyncGenerator[list[Finished], None]:
    """Carry out the tool calls of one turn, and give each result when it is there.

    One call is awaited directly; several run concurrently. An exclusive tool waits for the calls before it and
    holds up those after it. Close this generator (`contextlib.aclosing`): that cancels what still runs.

    Args:
        calls: the calls, in the model's order.
        tools: the tools by name.
        context: what tools receive that ask for it; each gets its own ``tool_call_id`` and ``idempotency_key``.
        sequential: carry the calls out one after the other.
        at_once: how many run at the same time.
        errands: owns what the tools start, and ends it when the run ends; without one it ends with this generator.

    Yields:
        The calls that have finished since the last list; the order of calls is the caller's to restore.
    """
    if errands is None:
        own = Errands()
        try:
            async with aclosing(
                execute(calls, tools, context, sequential=sequential, at_once=at_once, errands=own)
            ) as batches:
                async for batch in batches:
                    yield batch
        finally:
            await own.end()
        return
    for wave in _waves(calls, tools, sequential=sequential):
        if len(wave) == 1:
            yield [await _carry_out(wave[0], tools, context, errands)]
            continue
        async with aclosing(_together(wave, tools, context, errands, at_once)) as batches:
            async for batch in batches:
                yield batch


def _waves(calls: Iterable[ToolCall], tools: Mapping[str, Tool], *, sequential: bool) -> Iterator[list[ToolCall]]:
    """Give the calls in groups, of which one runs after the other."""
    wave: list[ToolCall] = []
    for call in calls:
        tool = tools.get(call.name)
        alone = sequential or (tool is not None and tool.exclusive)
        if alone and wave:
            yield wave
            wave = []
        wave.append(call)
        if alone:
            yield wave
            wave = []
    if wave:
        yield wave


async def _together(
    calls: Sequence[ToolCall], tools: Mapping[str, Tool], context: RunContext[Any], errands: Errands, at_once: int
) -> AsyncGenerator[list[Finished], None]:
    loop = asyncio.get_running_loop()
    waiting = deque(calls)
    running: dict[asyncio.Task[Finished | BaseException], ToolCall] = {}
    ended: list[tuple[ToolCall, asyncio.Task[Finished | BaseException]]] = []
    wake: asyncio.Future[None] = loop.create_future()
    all_ended: asyncio.Future[None] = loop.create_future()

    def note(task: asyncio.Task[Finished | BaseException]) -> None:
        ended.append((running.pop(task), task))
        _set(wake)
        if not running:
            _set(all_ended)

    try:
        while waiting or running or ended:
            while waiting and len(running) < at_once:
                call = waiting.popleft()
                task = loop.create_task(_as_value(call, tools, context, errands), name=f"plait: tool {call.name}")
                running[task] = call
                task.add_done_callback(note)
            if not ended:
                await wake
            wake = loop.create_future()
            if running and not waiting:
                # Calls that end at about the same time are given together, so that a log has them in one order.
                all_ended = loop.create_future()
                timer = loop.call_later(_TOGETHER_SECONDS, _set, all_ended)
                await all_ended
                timer.cancel()
            batch, ended = ended, []
            yield [_finished(call, task) for call, task in batch]
    finally:
        await _end(running)


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def _end(running: Mapping[asyncio.Task[Any], object]) -> None:
    """Cancel what still runs, and wait until it has ended, also when this is cancelled meanwhile."""
    cancelled: asyncio.CancelledError | None = None
    for task in running:
        task.cancel()
    while running:
        try:
            await asyncio.wait(tuple(running))
        except asyncio.CancelledError as error:
            cancelled = error
        else:
            await asyncio.sleep(0)  # lets the tasks' callbacks take them out
    if cancelled is not None:
        raise cancelled


async def _as_value(
    call: ToolCall, tools: Mapping[str, Tool], context: RunContext[Any], errands: Errands
) -> Finished | BaseException:
    """Carry out a call in a task of its own: a task that raised KeyboardInterrupt would end the event loop."""
    try:
        return await _carry_out(call, tools, context, errands)
    except asyncio.CancelledError:
        raise
    except BaseException as error:  # noqa: BLE001  # raised again by the run's own task
        return error


def _finished(call: ToolCall, task: asyncio.Task[Finished | BaseException]) -> Finished:
    if task.cancelled():
        return Finished(call, error_result(call, f"the tool {call.name!r} was cancelled from outside its run"), 0.0)
    outcome = task.result()
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome


async def _carry_out(
    call: ToolCall, tools: Mapping[str, Tool], context: RunContext[Any], errands: Errands
) -> Finished:
    """Carry out one call; everything but an end from outside becomes a result."""
    started = perf_counter()
    is_error = False
    parts: tuple[ContentPart, ...]
    mask = Mask(context.secrets) if context.secrets else NO_MASK
    try:
        tool = tools.get(call.name)
        if tool is None:
            raise ToolError(_unknown(call.name, tools))  # noqa: TRY301  # one place makes results of errors
        prepared = prepare(tool)
        arguments = prepared.validate(call.arguments)
        if prepared.injected:
            _inject(arguments, prepared, call, context)
        if context.secrets:
            _put_secrets(arguments, context)
        errand = errands.begin(call.name, context.run_id)
        try:
            value = await _run(tool, prepared, arguments, mask)
        finally:
            errands.finish(errand)
        is_error = isinstance(value, ToolResult) and value.is_error
        parts = to_parts(value, tool.max_result, mask)
    except ToolError as error:
        is_error = True
        most = tools[call.name].max_result if call.name in tools else MAX_SAID
        parts = (TextPart(text=cut(mask(str(error)), most)),)
    except Exception as error:  # noqa: BLE001  # a tool is foreign code
        is_error = True
        logger.debug("the tool %r raised %s", call.name, type(error).__name__)  # its words may be secret
        parts = (TextPart(text=error_text(error, mask)),)
    result = ToolResult.model_construct(call_id=call.id, name=call.name, parts=parts, is_error=is_error)
    return Finished(call, result, perf_counter() - started)


def error_result(call: ToolCall, text: str) -> ToolResult:
    """Give the result of a call that went wrong, or was not carried out: ``text`` tells the model why."""
    return ToolResult(call_id=call.id, name=call.name, text=text, is_error=True)


def _inject(arguments: dict[str, Any], prepared: Prepared, call: ToolCall, context: RunContext[Any]) -> None:
    """Fill what the run fills; whatever the model sent under these names is overwritten."""
    for name, source in prepared.injected:
        if source == "context":
            key = f"{context.run_id}:{call.id}"
            arguments[name] = replace(context, tool_call_id=call.id, idempotency_key=key)
        elif source != "secret":
            arguments[name] = getattr(context, source)
        elif name in context.secrets:
            arguments[name] = context.secrets[name]
        elif name not in prepared.optional:
            msg = f"the tool {call.name!r} needs the secret {name!r}, which was not given to this run"
            raise ToolError(msg)


def _put_secrets(arguments: dict[str, Any], context: RunContext[Any]) -> None:
    """Put a secret's value in place of an argument that is exactly ``<secret:name>``."""
    for name, value in arguments.items():
        found = re.match(_TEXT_OF_ONE, value) if type(value) is str else None
        if found and found[1] in context.secrets:
            arguments[name] = context.secrets[found[1]].reveal()


async def _run(tool: Tool, prepared: Prepared, arguments: dict[str, Any], mask: Mask) -> Any:
    """Call the tool, within its time.

    Raises:
        ToolError: its time is up, or it cancelled itself.
    """
    seconds = DEFAULT_TOOL_TIMEOUT if tool.timeout is None else tool.timeout
    work = tool.execute(**arguments) if prepared.kind == "async" else _run_other(tool, prepared, arguments, mask)
    watch = _Watch(seconds)
    failure: BaseException | None = None
    value = None
    try:
        value = await watch.drive(work)
    except BaseException as error:  # noqa: BLE001  # raised again below, once it is known who cancelled
        failure = error
    cancelled = isinstance(failure, asyncio.CancelledError)
    if cancelled or watch.own or watch.expired:
        others = await watch.take_back()
        if cancelled and others:
            raise asyncio.CancelledError from failure
    if failure is None:
        return value
    if not cancelled:
        try:
            raise failure
        finally:
            del failure  # its traceback holds this frame
    if not watch.expired:
        msg = f"the tool {tool.name!r} cancelled itself"
        raise ToolError(msg)
    if prepared.kind in {"sync", "generator"}:
        logger.warning("the sync tool %r is still in its thread; threads left so: %d", tool.name, WORKERS.left)
        what = "may still be at work, because a function in a thread cannot be stopped: find out before you repeat it"
    else:
        what = "was cancelled"
    msg = f"the tool {tool.name!r} gave no result within {seconds:g} seconds and {what}"
    raise ToolError(msg)


async def _run_other(tool: Tool, prepared: Prepared, arguments: dict[str, Any], mask: Mask) -> Any:
    """Call a tool that is no coroutine function."""
    if prepared.kind == "async_generator":
        pieces = Pieces(tool.max_result, mask)
        async with aclosing(tool.execute(**arguments)) as source:
            async for piece in source:
                if pieces.add(piece):
                    break
        return pieces.value()
    blocking = partial(_exhaust, tool, mask) if prepared.kind == "generator" else tool.execute
    try:
        value = await WORKERS.run(partial(blocking, **arguments))
    except LimitExceeded as error:
        msg = f"the tool {tool.name!r} was not called: {error}"
        raise ToolError(msg) from None
    return await value if inspect.isawaitable(value) else value


def _exhaust(tool: Tool, mask: Mask, /, **arguments: Any) -> object:
    pieces = Pieces(tool.max_result, mask)
    with closing(tool.execute(**arguments)) as source:
        for piece in source:
            if pieces.add(piece):
                break
    return pieces.value()


class _Watch:
    """Drives a tool's coroutine, cancels it when its time is up, and counts how often it cancels itself.

    Somebody else's cancellation comes while the task waits, a tool's own while the tool runs. Nothing else tells
    the two from one another. Leaner than `asyncio.timeout`, which cannot tell them at all.
    """

    __slots__ = ("_before", "_hurry", "_loop", "_seconds", "_task", "_timer", "expired", "own")

    def __init__(self, seconds: float) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # a coroutine that asyncio runs is in a task
        self._task = task
        self._loop = task.get_loop()
        self._before = task.cancelling()
        self._seconds = seconds
        self._timer: asyncio.TimerHandle | None = None
        self._hurry: asyncio.TimerHandle | None = None
        self.own = 0
        self.expired = 0

    @types.coroutine
    def drive(self, coroutine: Coroutine[Any, Any, Any]) -> Generator[Any, None, Any]:
        """Await the coroutine; the clock runs from the first time it waits for something."""
        task, thrown = self._task, None
        try:
            while True:
                before = task.cancelling()
                try:
                    waits_for = coroutine.send(None) if thrown is None else coroutine.throw(thrown)
                except StopIteration as stop:
                    return stop.value
                finally:
                    self.own += max(0, task.cancelling() - before)
                if self._timer is None and self._seconds < inf:
                    self._timer = self._loop.call_later(self._seconds, self._expire, context=Context())
                try:
                    yield waits_for
                    thrown = None
                except BaseException as error:
                    if isinstance(error, GeneratorExit) or self.expired > _TRIES:
                        coroutine.close()  # it would not end
                        raise
                    thrown = error
                    if self._hurry is None and isinstance(error, asyncio.CancelledError):
                        self._hurry = self._loop.call_later(_GRACE, self._insist, context=Context())
        finally:
            for timer in (self._timer, self._hurry):
                if timer is not None:
                    timer.cancel()

    def _insist(self) -> None:
        """See that a tool which was cancelled from outside does end, and not only swallow the cancellation."""
        self._hurry = None
        if self._task.cancelling() - self._before > self.own + self.expired:
            if self._timer is not None:
                self._timer.cancel()
            self._expire()

    def _expire(self) -> None:
        self.expired += 1
        self._timer = self._loop.call_later(_GRACE, self._expire, context=Context())
        self._task.cancel()

    async def take_back(self) -> bool:
        """Take back the cancellations of the tool and of its time; say whether there are others."""
        mine = self.own + self.expired
        others = self._task.cancelling() - self._before > mine
        for _ in range(mine):
            self._task.uncancel()
        if self.own and not others:  # a tool that did not wait after it has not got its cancellation yet
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                return self._task.cancelling() > self._before
        return others


def _unknown(name: str, tools: Mapping[str, Tool]) -> str:
    return f"there is no tool {excerpt(name, 64)!r}; {known_tools(name, tools)}"


def known_tools(name: str, names: Iterable[str]) -> str:
    """Say which tools there are, those with a name like the given one first; for an error sentence."""
    from difflib import get_close_matches

    known = sorted(set(names))
    near = get_close_matches(name[:64], known)
    ordered = [*near, *(other for other in known if other not in near)]
    return f"the tools are: {excerpt(', '.join(ordered), MAX_SAID)}" if ordered else "there are no tools"
