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
from collections import deque
from contextlib import aclosing, closing
from dataclasses import replace
from functools import partial
from math import inf
from operator import itemgetter
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

import msgspec

from plait.driving import CancelledItself, TimeUp, drive
from plait.errors import ToolError, excerpt
from plait.frozen import assemble
from plait.messages import TextPart, ToolCall, ToolResult
from plait.run import DEFAULT_TOOL_TIMEOUT, DEFAULT_TOOLS_AT_ONCE
from plait.tool_results import MAX_SAID, NO_MASK, Mask, Pieces, Slow, cut, error_text, to_parts
from plait.toolbase import prepare
from plait.workers import WORKERS, NoThreadLeft

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence

    from plait.errands import Errands
    from plait.messages import ContentPart
    from plait.run import RunContext
    from plait.toolbase import Prepared, Tool

logger = logging.getLogger("plait.tools")

_TOGETHER_SECONDS: Final = 0.005
_first: Final = itemgetter(0)
_TEXT_OF_ONE: Final = r"^<secret:([^<>]+)>$"


class Finished(msgspec.Struct, frozen=True, gc=False):
    """A tool call that has its result.

    Attributes:
        call: the call.
        result: what the model gets.
        seconds: how long it took.
    """

    call: ToolCall
    result: ToolResult
    seconds: float


def execute(
    calls: Sequence[ToolCall],
    tools: Mapping[str, Tool],
    context: RunContext[Any],
    errands: Errands,
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
        errands: owns what the tools start; whoever made it ends it when this generator is closed.
        sequential: carry the calls out one after the other.
        at_once: how many run at the same time.

    Returns:
        An iterator of lists: the calls that have finished since the last one, in the model's order.
    """
    waves = _waves(calls, tools, sequential=sequential)
    if len(waves) == 1 and len(waves[0]) > 1:
        return _together(waves[0], tools, context, errands, at_once)
    return _in_waves(waves, tools, context, errands, at_once)


async def _in_waves(
    waves: Sequence[Sequence[ToolCall]],
    tools: Mapping[str, Tool],
    context: RunContext[Any],
    errands: Errands,
    at_once: int,
) -> AsyncGenerator[list[Finished], None]:
    for wave in waves:
        if len(wave) == 1:
            yield [_finished(await _carry_out(wave[0], tools, context, errands))]
            continue
        async with aclosing(_together(wave, tools, context, errands, at_once)) as batches:
            async for batch in batches:
                yield batch


def _waves(calls: Iterable[ToolCall], tools: Mapping[str, Tool], *, sequential: bool) -> list[list[ToolCall]]:
    """Give the calls in groups, of which one runs after the other."""
    waves: list[list[ToolCall]] = []
    joins = False  # whether the next call may run together with the last
    for call in calls:
        tool = tools.get(call.name)
        alone = sequential or (tool is not None and tool.exclusive)
        if joins and not alone:
            waves[-1].append(call)
        else:
            waves.append([call])
        joins = not alone
    return waves


async def _together(
    calls: Sequence[ToolCall], tools: Mapping[str, Tool], context: RunContext[Any], errands: Errands, at_once: int
) -> AsyncGenerator[list[Finished], None]:
    loop = asyncio.get_running_loop()
    waiting = deque(enumerate(calls))
    running: dict[int, asyncio.Task[None]] = {}
    ended: list[tuple[int, Finished | BaseException]] = []
    wake: asyncio.Future[None] | None = None
    for_all = False  # whether the end of one call is no reason to wake up

    async def carry(number: int, call: ToolCall) -> None:
        outcome: Finished | BaseException | None = None
        try:
            outcome = await _carry_out(call, tools, context, errands)
        finally:
            del running[number]
            ended.append((number, _cancelled(call) if outcome is None else outcome))
            if wake is not None and not (for_all and running):
                _set(wake)

    try:
        while waiting or running or ended:
            if waiting and len(running) < at_once:
                begun = [waiting.popleft() for _ in range(min(len(waiting), at_once - len(running)))]
                for number, call in begun:
                    running[number] = loop.create_task(carry(number, call), name=f"plait: tool {call.name}")
                await asyncio.sleep(0)  # now each has begun, and tells of its end itself
                if running:
                    lost = [one for one in begun if one[0] in running and running[one[0]].done()]
                    ended += [(number, _cancelled(call)) for number, call in lost]
                    _drop_ended(running)
            if not ended:
                wake = loop.create_future()
                await wake
            if running and not waiting:
                # Calls that end at about the same time are given together, so that a log has them in one order.
                wake, for_all = loop.create_future(), True
                timer = loop.call_later(_TOGETHER_SECONDS, _set, wake)
                await wake
                timer.cancel()
            wake, for_all = None, False
            ended.sort(key=_first)
            batch = [_finished(outcome) for _, outcome in ended]
            ended.clear()
            yield batch
    finally:
        await _end(running)


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _cancelled(call: ToolCall) -> Finished:
    return Finished(call, error_result(call, f"the tool {call.name!r} was cancelled from outside its run"), 0.0)


def _drop_ended(running: dict[int, asyncio.Task[None]]) -> None:
    """Forget tasks that were cancelled before they began, and so could not tell of their end."""
    for number in [number for number, task in running.items() if task.done()]:
        del running[number]


async def _end(running: dict[int, asyncio.Task[None]]) -> None:
    """Cancel what still runs, and wait until it has ended, also when this is cancelled meanwhile."""
    cancelled: asyncio.CancelledError | None = None
    for task in running.values():
        task.cancel()
    while running:
        try:
            await asyncio.wait(tuple(running.values()))
        except asyncio.CancelledError as error:
            cancelled = error
        _drop_ended(running)
    if cancelled is not None:
        raise cancelled


def _finished(outcome: Finished | BaseException) -> Finished:
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome


async def _carry_out(
    call: ToolCall, tools: Mapping[str, Tool], context: RunContext[Any], errands: Errands
) -> Finished | BaseException:
    """Carry out one call; everything but an end from outside becomes a result.

    KeyboardInterrupt and its like are given, not raised: a task that raised one would end the event loop.
    """
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
        seconds = DEFAULT_TOOL_TIMEOUT if tool.timeout is None else tool.timeout
        try:
            if prepared.home is not None:
                from plait.isolation import call_isolated  # most programs need not pay for it

                work = call_isolated(prepared.home, call, context, tool.max_result, seconds)
                seconds = inf  # it keeps the time itself, from when the tool begins
            else:
                work = tool.execute(**arguments) if prepared.kind == "async" else _work(tool, prepared, arguments, mask)
            value = await drive(work, seconds)
        except (CancelledItself, TimeUp) as ending:
            raise ToolError(_ended(tool, prepared, ending)) from None  # what else it raised is nobody's business
        finally:
            errands.finish(errand)
        is_error = isinstance(value, ToolResult) and value.is_error
        try:
            parts = to_parts(value, tool.max_result, mask, quickly=True)
        except Slow:
            parts = await WORKERS.run(partial(to_parts, value, tool.max_result, mask))
    except ToolError as error:
        is_error = True
        most = tools[call.name].max_result if call.name in tools else MAX_SAID
        parts = (TextPart(text=cut(mask(str(error)), most)),)
    except Exception as error:  # noqa: BLE001  # a tool is foreign code
        is_error = True
        logger.debug("the tool %r raised %s", call.name, type(error).__name__)  # its words may be secret
        parts = (TextPart(text=error_text(error, mask)),)
    except asyncio.CancelledError:
        raise
    except BaseException as error:  # noqa: BLE001  # raised again by the run's own task
        return error
    result = assemble(ToolResult, {"call_id": call.id, "name": call.name, "parts": parts, "is_error": is_error})
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


def _ended(tool: Tool, prepared: Prepared, ending: CancelledItself | TimeUp) -> str:
    """Say how a tool was ended that gave no result."""
    if isinstance(ending, CancelledItself):
        return f"the tool {tool.name!r} cancelled itself"
    if prepared.kind in {"sync", "generator"}:
        what = "may still be at work, because a function in a thread cannot be stopped: find out before you repeat it"
    else:
        what = "was cancelled"
    seconds = DEFAULT_TOOL_TIMEOUT if tool.timeout is None else tool.timeout
    return f"the tool {tool.name!r} gave no result within {seconds:g} seconds and {what}"


async def _work(tool: Tool, prepared: Prepared, arguments: dict[str, Any], mask: Mask) -> Any:
    """Call a tool that is no coroutine function."""
    if prepared.kind == "async_generator":
        pieces = Pieces(tool.max_result, mask)
        async with aclosing(tool.execute(**arguments)) as source:
            async for piece in source:
                if pieces.add(piece):
                    break
        return pieces.value()
    pieces = Pieces(tool.max_result, mask)
    blocking = partial(_exhaust, tool, pieces) if prepared.kind == "generator" else tool.execute
    try:
        value = await WORKERS.run(partial(blocking, **arguments), partial(_tell_left, tool))
    except NoThreadLeft as error:
        msg = f"the tool {tool.name!r} was not called: {error}"
        raise ToolError(msg) from None
    except BaseException:
        pieces.refuse()  # a generator that is left in its thread is closed at its next piece
        raise
    return await value if inspect.isawaitable(value) else value


def _tell_left(tool: Tool) -> None:
    logger.warning("the sync tool %r is still in its thread; threads left so: %d", tool.name, WORKERS.left)


def _exhaust(tool: Tool, pieces: Pieces, /, **arguments: Any) -> object:
    with closing(tool.execute(**arguments)) as source:
        for piece in source:
            if pieces.add(piece):
                break
    return pieces.value()


def _unknown(name: str, tools: Mapping[str, Tool]) -> str:
    return f"there is no tool {excerpt(name, 64)!r}; {known_tools(name, tools)}"


def known_tools(name: str, names: Iterable[str]) -> str:
    """Say which tools there are, those with a name like the given one first; for an error sentence."""
    from difflib import get_close_matches

    known = sorted(set(names))
    near = get_close_matches(name[:64], known)
    ordered = [*near, *(other for other in known if other not in near)]
    return f"the tools are: {excerpt(', '.join(ordered), MAX_SAID)}" if ordered else "there are no tools"
