"""The process of an isolated tool: it finds the tool, carries out one call, says the result and exits.

`plait.isolation` starts it, and says over there what is told and when it is killed. Here it sees to two things: it ends
when the process that started it is gone, and it does not run the program again while it looks for the tool.
"""

from __future__ import annotations

import asyncio
import fcntl
import gc
import importlib
import os
import select
import signal
import sys
import threading
from contextlib import aclosing, contextmanager, suppress
from functools import partial
from math import inf
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, NoReturn

import msgspec

from plait.errands import Errands
from plait.errors import ConfigurationError
from plait.executor import error_result
from plait.homes import find
from plait.interrupts import Secret
from plait.isolation import BEGUN, REFUSALS, Job
from plait.messages import ToolCall
from plait.plain import to_json
from plait.run import RunContext
from plait.tool_results import Mask, error_text
from plait.tools import Tool, as_tool, execute, in_this_process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from plait.messages import ToolResult

    Say = Callable[[ToolResult], None]

PROGRAM: Final = "__plait_main__"
"""What the program's file is named here, so that what it does as ``__main__`` is not done again."""


def main(told: dict[str, Any], socket: str, lifeline: str) -> None:
    """Carry out the one call of this process.

    Args:
        told: a `Job` as JSON data.
        socket: the number of the descriptor that the result is said to.
        lifeline: the number of the one that is open as long as the starting process lives.
    """
    _end_with(int(lifeline))
    os.set_inheritable(int(socket), False)  # noqa: FBT003  # Python's own
    os.register_at_fork(after_in_child=partial(os.close, int(socket)))
    job = msgspec.convert(told, Job)
    sys.argv[:] = job.argv
    call = ToolCall(**job.call)
    say = partial(_say, int(socket))
    secrets = {name: Secret(value) for name, value in job.secrets.items()}
    try:
        with _not_the_program(job, partial(_refuse, say, call, job)):
            tool = _find(job, call)
    except ConfigurationError as error:
        say(error_result(call, str(error)))
    except Exception as error:  # noqa: BLE001  # the user's module is foreign code
        where = job.home.file or job.home.module
        text = error_text(error, Mask(secrets))
        say(error_result(call, f"the process of the tool {call.name!r} cannot import {where!r}: {text}"))
    else:
        context = RunContext(
            deps=None,
            user_id=job.user_id,
            thread_id=job.thread_id,
            chat_id=job.chat_id,
            run_id=job.run_id,
            agent_name=job.agent_name,
            secrets=secrets,
        )
        gc.freeze()  # what was imported lives until the end: nobody need look whether it does
        gc.enable()
        asyncio.run(_carry_out(int(socket), call, tool, context, say))


async def _carry_out(socket: int, call: ToolCall, tool: Tool, context: RunContext[None], say: Say) -> None:
    errands = Errands()
    os.write(socket, BEGUN)
    try:
        async with aclosing(execute([call], {call.name: tool}, context, errands)) as batches:
            async for batch in batches:
                say(batch[0].result)
    finally:
        await errands.end()


def _say(socket: int, result: ToolResult) -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with suppress(OSError, ValueError):  # it is closed, here or at its other end
                stream.flush()
    line = memoryview(to_json(result) + b"\n")
    while line:
        line = line[os.write(socket, line) :]


# --- the end --------------------------------------------------------------------------------------------------------


def _end_with(lifeline: int) -> None:
    """See that this process group is killed when the other end of a pipe is closed."""
    os.set_inheritable(lifeline, False)  # noqa: FBT003  # Python's own
    if not watched_by_the_system(lifeline):
        threading.Thread(target=watch, args=(lifeline,), name="plait: lifeline", daemon=True).start()


def watched_by_the_system(lifeline: int) -> bool:
    """Let the system kill this process group when the other end of a pipe is closed: no tool can hold that up.

    Returns:
        Whether it will: Linux does (fcntl(2), F_SETSIG).
    """
    if sys.platform != "linux":
        return False
    try:
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(lifeline, fcntl.F_SETFL, os.O_ASYNC)
    except OSError:
        return False
    if select.select([lifeline], [], [], 0)[0]:  # it was closed before
        os.killpg(0, signal.SIGKILL)
    return True


def watch(lifeline: int) -> None:
    """Wait until the other end of a pipe is closed, then kill this process group."""
    os.read(lifeline, 1)
    os.killpg(0, signal.SIGKILL)


# --- the tool -------------------------------------------------------------------------------------------------------


def _find(job: Job, call: ToolCall) -> Tool:
    module = _program(job.home.file) if job.home.file else importlib.import_module(job.home.module)
    try:
        found = find(job.home, module)
    except AttributeError:
        msg = f"the process of the tool {call.name!r} found no {job.home.name!r} in {module.__name__!r}"
        raise ConfigurationError(msg) from None
    if isinstance(found, type) and issubclass(found, Tool):
        return in_this_process(found(), call.name, job.max_result)
    return as_tool(
        {
            "func": found,
            "name": call.name,
            "function_schema": job.home.parameters and {"parameters": job.home.parameters},
            "timeout": inf,  # the process that started this one holds the clock
            "max_result": job.max_result,
        }
    )


def _program(file: str) -> ModuleType:
    """Read the program's file as a module, as `multiprocessing` does."""
    module = ModuleType(PROGRAM)
    module.__file__ = file
    sys.modules[PROGRAM] = sys.modules["__main__"] = module
    exec(compile(Path(file).read_bytes(), file, "exec"), vars(module))  # noqa: S102  # what the user started
    return module


@contextmanager
def _not_the_program(job: Job, refuse: Callable[[], NoReturn]) -> Iterator[None]:
    """Refuse what shows that the program runs again: an isolated call, its own event loop, an exit."""

    def no_loop(_: asyncio.BaseEventLoop) -> None:
        refuse()

    runs = asyncio.BaseEventLoop.run_forever
    if job.home.file:  # other modules may run a loop when they are imported, to read what they need
        asyncio.BaseEventLoop.run_forever = no_loop  # type: ignore[assignment, method-assign]  # in this process only
    REFUSALS.append(refuse)
    try:
        yield
    except SystemExit:
        refuse()
    finally:
        REFUSALS.remove(refuse)
        asyncio.BaseEventLoop.run_forever = runs  # type: ignore[method-assign]


def _refuse(say: Say, call: ToolCall, job: Job) -> NoReturn:
    text = (
        f"the tool {call.name!r} was not called: to find it, its process read {job.home.file or job.home.module!r}, "
        "which began to run the program again; put what starts the program under `if __name__ == '__main__':`"
    )
    sys.stderr.write(f"plait: {text}\n")
    say(error_result(call, text))
    os._exit(1)
