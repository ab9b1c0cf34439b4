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
from dataclasses import replace
from difflib import get_close_matches
from functools import partial
from math import inf
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from plait.errors import LimitExceeded, ToolError, excerpt
from plait.messages import TextPart, ToolResult
from plait.run import DEFAULT_TOOL_TIMEOUT, DEFAULT_TOOLS_AT_ONCE
from plait.tool_results import cut, join_pieces, to_parts
from plait.toolbase import prepare
from plait.workers import WORKERS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterable, Iterator, Mapping, Sequence

    from plait.messages import ContentPart, ToolCall
    from plait.run import RunContext
    from plait.toolbase import Prepared, Tool

logger = logging.getLogger("plait.tools")

_SAID: Final = 500
_TOGETHER_SECONDS: Final = 0.005
_SECRET_TEXT: Final = re.compile(r"^<secret:([^<>]+)>$")
_LIKE_A_SECRET: Final = re.compile(
    r"(?i)\b(?:sk|pk|rk|ghp|gho|xox[abp])[-_][a-z0-9_-]{12,}|(?<=bearer )\S{8,}|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"
    r"|(?:(?<=key=)|(?<=token=)|(?<=secret=)|(?<=password=)|(?<=pwd=))[^\s&\"',;]+"
)


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

    Yields:
        The calls that have finished since the last list; the order of calls is the caller's to restore.
    """
    for wave in _waves(calls, tools, sequential=sequential):
        if len(wave) == 1:
            yield [await _carry_out(wave[0], tools, context)]
            continue
        async with aclosing(_together(wave, tools, context, at_once)) as batches:
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
    calls: Sequence[ToolCall], tools: Mapping[str, Tool], context: RunContext[Any], at_once: int
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
                task = loop.create_task(_as_value(call, tools, context), name=f"plait: tool {call.name}")
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


async def _as_value(call: ToolCall, tools: Mapping[str, Tool], context: RunContext[Any]) -> Finished | BaseException:
    """Carry out a call in a task of its own: a task that raised KeyboardInterrupt would end the event loop."""
    try:
        return await _carry_out(call, tools, context)
    except asyncio.CancelledError:
        raise
    except BaseException as error:  # noqa: BLE001  # raised again by the run's own task
        return error


def _finished(call: ToolCall, task: asyncio.Task[Finished | BaseException]) -> Finished:
    if task.cancelled():
        return Finished(call, _error(call, f"the tool {call.name!r} was cancelled from outside its run"), 0.0)
    outcome = task.result()
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome


async def _carry_out(call: ToolCall, tools: Mapping[str, Tool], context: RunContext[Any]) -> Finished:
    """Carry out one call; everything but an end from outside becomes a result."""
    started = perf_counter()
    is_error = False
    parts: tuple[ContentPart, ...]
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
        value = await _run(tool, prepared, arguments)
        is_error = isinstance(value, ToolResult) and value.is_error
        parts = to_parts(value, tool.max_result)
    except ToolError as error:
        is_error = True
        parts = (TextPart(text=cut(str(error), tools[call.name].max_result if call.name in tools else _SAID)),)
    except Exception as error:  # noqa: BLE001  # a tool is foreign code
        is_error = True
        logger.debug("the tool %r raised %s", call.name, type(error).__name__, exc_info=error)
        parts = (TextPart(text=_said(error)),)
    if context.secrets:
        parts = tuple(_without_secrets(part, context) for part in parts)
    result = ToolResult(call_id=call.id, name=call.name, parts=parts, is_error=is_error)
    return Finished(call, result, perf_counter() - started)


def _error(call: ToolCall, text: str) -> ToolResult:
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
        found = _SECRET_TEXT.match(value) if type(value) is str else None
        if found and found[1] in context.secrets:
            arguments[name] = context.secrets[found[1]].reveal()


def _without_secrets(part: ContentPart, context: RunContext[Any]) -> ContentPart:
    if not isinstance(part, TextPart):
        return part
    text = part.text
    for name, secret in context.secrets.items():
        value = secret.reveal()
        if len(value) >= 4:  # noqa: PLR2004  # a shorter one is found in every text
            text = text.replace(value, f"<secret:{name}>")
    return part if text == part.text else TextPart(text=text)


async def _run(tool: Tool, prepared: Prepared, arguments: dict[str, Any]) -> Any:
    """Call the tool, within its time.

    Raises:
        ToolError: its time is up, or it cancelled itself.
    """
    seconds = DEFAULT_TOOL_TIMEOUT if tool.timeout is None else tool.timeout
    task = asyncio.current_task()
    assert task is not None  # noqa: S101  # a coroutine that runs in asyncio runs in a task
    before = task.cancelling()
    own = [0]
    try:
        async with asyncio.timeout(None if seconds == inf else seconds) as timer:
            try:
                if prepared.kind == "async":
                    value = await _driven(tool.execute(**arguments), task, own)
                else:
                    value = await _driven(_run_other(tool, prepared, arguments), task, own)
            except asyncio.CancelledError:
                if task.cancelling() - before > own[0]:
                    raise
                await _take_back(task, own[0], before)
                msg = f"the tool {tool.name!r} cancelled itself"
                raise ToolError(msg) from None
            if own[0]:
                await _take_back(task, own[0], before)
            return value
    except TimeoutError:
        if not timer.expired():
            raise
        if prepared.kind in {"sync", "generator"}:
            logger.warning("the sync tool %r is still in its thread; %d threads are left so", tool.name, WORKERS.left)
        msg = f"the tool {tool.name!r} gave no result within {seconds:g} seconds and was cancelled"
        raise ToolError(msg) from None


async def _run_other(tool: Tool, prepared: Prepared, arguments: dict[str, Any]) -> Any:
    """Call a tool that is no coroutine function."""
    if prepared.kind == "async_generator":
        pieces: list[object] = []
        async with aclosing(tool.execute(**arguments)) as source:
            async for piece in source:
                if _enough(pieces, piece, tool.max_result):
                    break
        return join_pieces(pieces)
    try:
        function = partial(_exhaust, tool, arguments) if prepared.kind == "generator" else partial(tool.execute, **arguments)
        value = await WORKERS.run(function)
    except LimitExceeded as error:
        msg = f"the tool {tool.name!r} was not called: {error}"
        raise ToolError(msg) from None
    return await value if inspect.isawaitable(value) else value


def _exhaust(tool: Tool, arguments: dict[str, Any]) -> object:
    pieces: list[object] = []
    with closing(tool.execute(**arguments)) as source:
        for piece in source:
            if _enough(pieces, piece, tool.max_result):
                break
    return join_pieces(pieces)


def _enough(pieces: list[object], piece: object, most: int) -> bool:
    """Add a piece; say whether the model would not see another one."""
    pieces.append(piece)
    return len(pieces) > most or (isinstance(piece, str) and sum(len(p) for p in pieces if isinstance(p, str)) > most)


@types.coroutine
def _driven(
    coroutine: Coroutine[Any, Any, Any], task: asyncio.Task[Any], own: list[int]
) -> Generator[Any, None, Any]:
    """Await a coroutine, and count in ``own`` how often it cancelled the task that runs it.

    Somebody else's cancellation comes while the task waits; a tool's own comes while it runs. Nothing else tells
    the two from one another.
    """
    thrown: BaseException | None = None
    while True:
        before = task.cancelling()
        try:
            waits_for = coroutine.send(None) if thrown is None else coroutine.throw(thrown)
        except StopIteration as stop:
            return stop.value
        finally:
            own[0] += max(0, task.cancelling() - before)
        thrown = None
        try:
            yield waits_for
        except GeneratorExit:
            coroutine.close()
            raise
        except BaseException as error:  # noqa: BLE001  # goes on into the coroutine
            thrown = error


async def _take_back(task: asyncio.Task[Any], times: int, before: int) -> None:
    """Take back the cancellations that a tool asked for itself, and catch one that is still to come."""
    for _ in range(times):
        task.uncancel()
    try:
        await asyncio.sleep(0)
    except asyncio.CancelledError:
        if task.cancelling() > before:
            raise


def _said(error: Exception) -> str:
    """Give an exception as text for the model: type and message, no traceback, secrets cut."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001  # a foreign class's own __str__
        text = ""
    if isinstance(error, ExceptionGroup):
        text = "; ".join([text, *(f"{type(inner).__name__}: {inner}" for inner in error.exceptions[:3])])
    clean = _LIKE_A_SECRET.sub("***", excerpt(text, _SAID))
    return f"{type(error).__name__}: {clean}" if clean else type(error).__name__


def _unknown(name: str, tools: Mapping[str, Tool]) -> str:
    return f"there is no tool {excerpt(name, 64)!r}; {known_tools(name, tools)}"


def known_tools(name: str, names: Iterable[str]) -> str:
    """Say which tools there are, those with a name like the given one first; for an error sentence."""
    known = sorted(set(names))
    near = get_close_matches(name[:64], known)
    ordered = [*near, *(other for other in known if other not in near)]
    return f"the tools are: {excerpt(', '.join(ordered), _SAID)}" if ordered else "there are no tools"
