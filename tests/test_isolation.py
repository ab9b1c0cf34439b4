"""Tools in processes of their own: what crosses, and that nothing is left of them, whatever they do."""

from __future__ import annotations

import asyncio
import functools
import os
import re
import resource
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import isolated_tools as tools
from executing import executing
from faults.aftermath import HOWS, WITHIN, How, agent_with, ask, assert_goes_on, calls, nothing_left, until
from plait import ConfigurationError, ImagePart, RunContext, Secret, StopSignal, ToolCall, ToolError, tool
from plait.homes import Home, home_of
from plait.isolation import MAY_HAVE_HAPPENED, call_isolated
from plait.messages import ToolResult
from plait.portal import PORTAL
from plait.providers.base import ToolDefinition
from plait.tools import FunctionTool, Tool, as_tool, find_tools, renamed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from plait.tools import ToolForm

CONTEXT = RunContext(deps=None, user_id="ada", thread_id="trip", run_id="run_1", agent_name="guide")
DOCS = Path(__file__).parents[1] / "docs"


async def carry_out(form: ToolForm, arguments: str = "{}", context: RunContext[None] = CONTEXT) -> ToolResult:
    made = as_tool(form)
    call = ToolCall(id="c", name=made.name, arguments=arguments)
    async with asyncio.timeout(WITHIN), executing([call], {made.name: made}, context) as batches:
        (result,) = [one.result async for batch in batches for one in batch]
    return result


def alive(pid: int) -> bool:
    """Whether a process is there that could still do something."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in {"Z", "X"}


def told(path: Path) -> list[int]:
    return [int(pid) for pid in path.read_text().split()]


def children() -> set[str]:
    """Give the processes that this one started, dead ones too that nobody has reaped."""
    listed = Path("/proc/self/task").glob("*/children")
    return {pid for of_one_thread in listed for pid in of_one_thread.read_text().split()}


@pytest.fixture(autouse=True)
def no_process_left() -> Iterator[None]:
    before = children()
    yield
    assert children() - before == set()


async def gone(path: Path) -> bool:
    """Wait until every process is gone that a tool told of."""
    pids = told(path)
    await until(lambda: not any(map(alive, pids)))
    return True


# --- what crosses ---------------------------------------------------------------------------------------------------

CUT = "\n[cut: only the first 9 characters are shown]"
RESULTS: list[tuple[ToolForm, str, str]] = [
    (tools.add, '{"a": 1, "b": 2}', "3"),
    (tools.add, '{"a": 1, "b": null}', "11"),
    (tools.length, '{"points": [{"x": 3}, {"x": 4, "y": 1}]}', '{"points":2,"far":4}'),
    (tools.pieces, "", "one two"),
    (tools.pieces_in_time, "{}", "one two"),
    (tools.loop_of_its_own, "{}", "done"),
    (tools.long_text, '{"size": 50000000}', "x" * 20 + "\n[cut: only the first 20 characters are shown]"),
    (tools.half_a_pair, '{"text": "\\ud83d\\ude00"}', "\U0001f600\udc00"),
    (tools.chatty, "{}", "said"),
    (tools.closes_its_output, "{}", "said"),
    (tools.who, '{"asked": "x"}', '["ada","trip","trip","guide","x"]'),
    (tools.who, '{"asked": "x", "user_id": "eve"}', '["ada","trip","trip","guide","x"]'),
    (tools.without_color, "{}", "none None"),
    (tools.Doubles(), '{"number": 12}', "1212"),
    (tools.Doubles(), '{"number": 123}', "12312\n[cut: only the first 5 characters are shown]"),
    (renamed(tools.Doubles(), "twice", "Says it twice."), '{"number": 1}', "11"),
    (renamed(tools.add, "plus", "Adds."), '{"a": 1}', "11"),
    ({"func": tools.plainly, "isolate": True}, '{"text": "Hi"}', "hi"),
    ({"func": tools.plainly, "isolate": True, "max_result": 9}, f'{{"text": "{"A" * 490_000}"}}', "a" * 9 + CUT),
    ({"func": tools.add, "isolate": True, "name": "sum_up"}, '{"a": 1}', "11"),
    (
        {
            "func": tools.by_hand,
            "isolate": True,
            "function_schema": {"name": "shout", "parameters": {"properties": {"text": {"enum": ["a", "b"]}}}},
        },
        '{"text": "b"}',
        "B",
    ),
    ({"func": re.findall, "isolate": True, "function_schema": {"type": "object"}}, "{}", "ERROR"),
]


@pytest.mark.parametrize(("form", "arguments", "text"), RESULTS)
async def test_a_result_is_as_it_would_be_here(form: ToolForm, arguments: str, text: str) -> None:
    async with nothing_left():
        result = await carry_out(form, arguments)
    if text == "ERROR":
        assert result.is_error
        assert result.text.startswith("TypeError: findall() missing")
    else:
        assert result == ToolResult(call_id="c", name=as_tool(form).name, text=text)


@pytest.mark.parametrize("size", [10, 2_000_000])
async def test_images_cross(size: int) -> None:
    result = await carry_out(tools.picture, f'{{"size": {size}}}')
    assert result.parts == (ImagePart(data=tools.PNG + bytes(size), media_type="image/png"),)


async def test_more_than_anybody_wants_is_not_taken() -> None:
    result = await carry_out(tools.pictures, '{"count": 5}')
    assert result.is_error
    assert result.text == f"the tool 'pictures' gave more than 64,000,000 bytes, and was ended; {MAY_HAVE_HAPPENED}"


@pytest.mark.parametrize(
    ("form", "arguments", "text"),
    [
        (tools.refuses, "{}", "no such city"),
        (tools.raises, "{}", r"ValueError: key=\*\*\* second line"),
        (tools.formless, "{}", "the result is of type object, which has no form in JSON; .*"),
        (tools.add, '{"a": "x"}', "wrong arguments for 'add': .*"),
        (tools.add, "{", "the text of the arguments of 'add' .*"),
        (tools.picture, '{"size": 20000000}', "the tool returned 20,000,008 bytes of image/png; .*"),
        (tools.pay, '{"note": "x"}', "the tool 'pay' needs the secret 'token', which was not given to this run"),
    ],
)
async def test_errors_are_as_they_would_be_here(form: ToolForm, arguments: str, text: str) -> None:
    result = await carry_out(form, arguments)
    assert result.is_error
    assert re.fullmatch(text, result.text)


async def test_secrets_cross_and_are_seen_nowhere() -> None:
    secrets = {"token": Secret("hunter2-hunter2"), "note": Secret("abcdef-ghijkl")}
    context = RunContext(deps=None, secrets=secrets)
    result = await carry_out(tools.pay, '{"note": "<secret:note>"}', context)
    assert result.text == '{"token":"<secret:token>","note":"lkjihg-fedcba","elsewhere":false}'
    result = await carry_out(tools.refuses_to_pay, "{}", context)
    assert result.text == "ValueError: <secret:token> was refused"


async def test_what_a_tool_prints_goes_where_ours_goes(capfd: pytest.CaptureFixture[str]) -> None:
    assert (await carry_out(tools.chatty)).text == "said"
    assert capfd.readouterr() == ("{}\n\n\n", "{}\n")


async def test_sixteen_at_once() -> None:
    many = [ToolCall(id=f"c{n}", name="add", arguments=f'{{"a": {n}}}') for n in range(16)]
    async with nothing_left(), executing(many, {"add": tools.add}, CONTEXT) as batches:
        results = [one.result async for batch in batches for one in batch]
    assert {result.call_id: result.text for result in results} == {f"c{n}": str(n + 10) for n in range(16)}


def test_a_sync_caller(tmp_path: Path) -> None:
    for _ in range(2):
        assert PORTAL.call(lambda: carry_out(tools.add, '{"a": 1}')).text == "11"
    path = tmp_path / "told"
    assert "was killed" in PORTAL.call(lambda: carry_out(tools.spins, f'{{"path": "{path}"}}')).text
    assert not alive(*told(path))


async def test_where_no_file_can_be_opened_it_is_said() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    arguments = '{"a": 1}'
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        result = await carry_out(tools.add, arguments)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert result.text == "the process of the tool 'add' could not be started: Too many open files"
    assert (await carry_out(tools.add, arguments)).text == "11"


# --- the end --------------------------------------------------------------------------------------------------------

ENDLESS: list[FunctionTool[..., Any]] = [
    tools.spins,
    tools.holds_the_interpreter,
    tools.sleeps_in_c,
    tools.deaf,
    tools.starts_others,
]


@pytest.mark.fault("T03")
@pytest.mark.parametrize(
    ("endless", "how"), [(one, "chat") for one in ENDLESS] + [(tools.spins, how) for how in HOWS[1:]]
)
async def test_at_its_deadline_it_dies(endless: FunctionTool[..., Any], how: How, tmp_path: Path) -> None:
    path = tmp_path / "told"
    agent = agent_with(endless, made=calls(endless.name, arguments=f'{{"path": "{path}"}}'))
    async with nothing_left():
        said = await ask(agent, how)
    assert said == (
        f"ERROR the tool {endless.name!r} gave no result within 1.5 seconds and was killed, with all that it started; "
        f"{MAY_HAVE_HAPPENED}"
    )
    assert await gone(path)
    await assert_goes_on(agent)


@pytest.mark.fault("T03")
@pytest.mark.parametrize("endless", ENDLESS, ids=[one.name for one in ENDLESS])
async def test_when_its_run_is_cancelled_it_dies(endless: FunctionTool[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "told"
    form = {"func": endless, "isolate": True, "timeout": 60}
    agent = agent_with(form, made=calls(endless.name, arguments=f'{{"path": "{path}"}}'))
    async with nothing_left():
        task = asyncio.ensure_future(agent.chat("go"))
        await until(path.exists)
        assert all(map(alive, told(path)))
        task.cancel()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert await gone(path)
    await assert_goes_on(agent)


@pytest.mark.fault("T03")
async def test_when_its_run_is_stopped_it_dies(tmp_path: Path) -> None:
    path = tmp_path / "told"
    form = {"func": tools.holds_the_interpreter, "isolate": True, "timeout": 60}
    agent = agent_with(form, made=calls("holds_the_interpreter", arguments=f'{{"path": "{path}"}}'))
    stop = StopSignal()
    async with nothing_left(), asyncio.timeout(WITHIN):
        run = agent.run("go", stop=stop)
        await until(path.exists)
        stop.set()
        assert (await run).stop_reason == "user_stop"
        assert not any(map(alive, told(path)))
    await assert_goes_on(agent)


async def test_one_that_is_cancelled_before_it_begins_leaves_nothing() -> None:
    for ticks in range(12):
        async with nothing_left():
            task = asyncio.ensure_future(carry_out(tools.add, '{"a": 1}'))
            for _ in range(ticks):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task


def test_one_that_nobody_can_wait_for_dies(tmp_path: Path) -> None:
    """A coroutine that its event loop has forgotten is closed, and cannot wait for anything any more."""
    path = tmp_path / "told"
    call = ToolCall(id="c", name="spins", arguments=f'{{"path": "{path}"}}')
    waiting = call_isolated(home_of(tools.spins.function, "spins"), call, CONTEXT, 100)
    loop = asyncio.new_event_loop()
    try:
        task = loop.create_task(waiting)
        loop.run_until_complete(until(path.exists))
        waiting.close()
        assert not alive(*told(path))
        task.cancel()
        with pytest.raises(RuntimeError, match="already awaited"):  # which is how asyncio finds it closed
            loop.run_until_complete(task)
    finally:
        loop.close()


async def test_what_it_leaves_behind_ends_with_the_call(tmp_path: Path) -> None:
    path = tmp_path / "told"
    async with nothing_left():
        assert (await carry_out(tools.leaves_others, f'{{"path": "{path}"}}')).text == "done"
    assert await gone(path)


async def test_a_fork_does_not_keep_the_call_waiting(tmp_path: Path) -> None:
    path = tmp_path / "told"
    result = await carry_out(tools.leaves_a_fork, f'{{"path": "{path}"}}')
    assert "ended with exit code 5" in result.text
    assert await gone(path)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("exit", "with exit code 3"),
        ("exit well", "with exit code 0"),
        ("sys.exit", "with exit code 4"),
        ("segfault", "by SIGSEGV"),
        ("abort", "by SIGABRT"),
        ("killed", "by SIGKILL, as the system does where memory is short"),
        ("odd signal", f"by signal {signal.SIGRTMIN + 3}"),
    ],
)
async def test_a_process_that_ends_itself_is_an_error_result(how: str, said: str) -> None:
    agent = agent_with(tools.ends, made=calls("ends", arguments=f'{{"how": "{how}"}}'))
    async with nothing_left():
        answer = await ask(agent, "chat")
    assert answer == f"ERROR the process of the tool 'ends' ended {said}, without a result; {MAY_HAVE_HAPPENED}"
    await assert_goes_on(agent)


async def test_memory_that_is_not_there_is_an_error_result() -> None:
    assert (await carry_out(tools.ends, '{"how": "memory"}')).text == "MemoryError"


# --- the start ------------------------------------------------------------------------------------------------------

SLOW = """
import os, time
from pathlib import Path
here = Path(__file__).parent
mine = here / f"{os.getpid()}.starting"
mine.touch()
(here / f"{os.getpid()}.seen").write_text(str(len(list(here.glob("*.starting")))))
START
mine.unlink()
def quick() -> str:
    return "ok"
def hangs() -> None:
    (here / f"{os.getpid()}.told").touch()
    time.sleep(60)
"""
PROCESSORS = len(os.sched_getaffinity(0))


def slow(folder: Path, start: str, name: str = "quick") -> Home:
    """Write a module, which nobody imports here, that takes its time when a process starts; say what is in it."""
    module = f"slow_{folder.name}".replace("-", "_").replace("[", "_").replace("]", "_")
    (folder / f"{module}.py").write_text(SLOW.replace("START", start))
    return Home(module=module, name=name)


def written(folder: Path, kind: str) -> list[str]:
    return [path.read_text() for path in folder.glob(f"*.{kind}")]


async def call_home(home: Home, seconds: float = 20, **bound: float) -> str:
    call = ToolCall(id="c", name=home.name, arguments="{}")
    return (await call_isolated(home, call, CONTEXT, 100, seconds, **bound)).text


async def test_to_start_is_not_the_time_of_the_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    home = slow(tmp_path, "time.sleep(1.2)")
    assert await asyncio.gather(*[call_home(home, 1.0) for _ in range(3)]) == ["ok"] * 3


async def test_one_that_does_not_start_was_not_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    home = slow(tmp_path, "time.sleep(60)")
    for seconds, within, said in [(0.1, 0.5, "0.5"), (0.7, 0.5, "0.7")]:
        with pytest.raises(ToolError) as caught:
            await call_home(home, seconds, starts_within=within)
        assert str(caught.value) == (
            f"the process for the tool 'quick' did not start within {said} seconds; it was not called"
        )


async def test_one_that_does_not_take_its_job_was_not_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text("import os, time\nif os.getsid(0) == os.getpid(): time.sleep(60)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    call = ToolCall(id="c", name="plainly", arguments=f'{{"text": "{"x" * 5_000_000}"}}')
    with pytest.raises(ToolError, match=r"did not start within 0\.5 seconds; it was not called"):
        await call_isolated(home_of(tools.plainly, "plainly"), call, CONTEXT, 100, 0.1, starts_within=0.5)


async def test_one_that_ends_before_it_begins_was_not_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ToolError) as caught:
        await call_home(slow(tmp_path, "os._exit(7)"))
    assert str(caught.value) == (
        "the process for the tool 'quick' ended with exit code 7 before it began; it was not called"
    )


async def test_no_more_start_at_once_than_there_are_processors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    home = slow(tmp_path, "time.sleep(0.2)")

    async def some() -> list[str]:
        return await asyncio.gather(*[call_home(home) for _ in range(4)])

    loops = [asyncio.to_thread(asyncio.run, some()) for _ in range(2)]
    assert await asyncio.gather(some(), *loops) == [["ok"] * 4] * 3
    counted = [int(count) for count in written(tmp_path, "seen")]
    assert len(counted) == 12
    assert max(counted) <= PROCESSORS


async def test_an_event_loop_that_stands_still_holds_up_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a notebook: a sync call holds up the loop whose processes are about to begin."""
    monkeypatch.syspath_prepend(tmp_path)
    home = slow(tmp_path, "time.sleep(0.2)")
    asked = [asyncio.ensure_future(call_home(home)) for _ in range(2 * PROCESSORS)]
    await until(lambda: any(tmp_path.glob("*.starting")))
    assert PORTAL.call(lambda: call_home(home)) == "ok"
    assert await asyncio.gather(*asked) == ["ok"] * len(asked)


async def test_those_that_wait_for_their_turn_can_be_cancelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    home = slow(tmp_path, "time.sleep(60)")
    asked = [asyncio.ensure_future(call_home(home, 0.1)) for _ in range(PROCESSORS + 6)]
    await until(lambda: len(written(tmp_path, "seen")) == PROCESSORS)
    for one in reversed(asked):
        one.cancel()
    async with asyncio.timeout(WITHIN):
        ended = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(one) for one in ended] == [asyncio.CancelledError] * len(asked)
        assert len(written(tmp_path, "seen")) == PROCESSORS
        assert (await carry_out(tools.add, '{"a": 1}')).text == "11"


async def test_a_deadline_is_kept_beside_many_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    home = slow(tmp_path, "", "hangs")
    quick = asyncio.gather(*[call_home(slow(tmp_path, "")) for _ in range(8)])

    async def ends() -> None:
        with pytest.raises(ToolError, match=r"gave no result within 1 seconds and was killed"):
            await call_home(home, 1.0)

    await asyncio.gather(*[ends() for _ in range(4)])
    assert await quick == ["ok"] * 8
    assert len(written(tmp_path, "told")) == 4  # each was called, and so had all of its second


# --- programs -------------------------------------------------------------------------------------------------------

PROGRAM = """
import asyncio, os, sys
from plait import Agent, OfflineProvider, ToolCall, tool
from plait.tools import as_tool
import isolated_tools
BEFORE

@tool(isolate=True, timeout=20)
def shout(text: str) -> str:
    return text.upper() + __name__

@tool(isolate=True)
async def asks_another(text: str) -> str:
    return "asked: " + await agent("shout", '{"text": "%s"}' % text).chat("go")

def agent(name, arguments):
    def answer(request):
        last = request.messages[-1]
        return last.tool_results[0].text if last.role == "tool" else ToolCall(id="c", name=name, arguments=arguments)
    endless = {"func": getattr(isolated_tools, name, shout), "isolate": True, "timeout": 60}
    return Agent(provider=OfflineProvider(function=answer), tools=[globals().get(name, endless)])

def main():
    print("begins", flush=True)
    print(asyncio.run(agent(*sys.argv[1:3]).chat("go")))

GUARD
    main()
"""
GUARD = "if __name__ == '__main__':"


def program(folder: Path, guard: str = GUARD, before: str = "") -> Path:
    path = folder / "program.py"
    path.write_text(PROGRAM.replace("GUARD", guard).replace("BEFORE", before))
    return path


def started(*command: str, **options: Any) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*filter(None, sys.path), str(Path(__file__).parent)])}
    return subprocess.Popen(
        [sys.executable, *command],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def finished(*command: str) -> tuple[str, str]:
    with started(*command) as process:
        return process.communicate(timeout=45)


def test_a_tool_of_the_program_itself(tmp_path: Path) -> None:
    path = program(tmp_path)
    assert finished(str(path), "shout", '{"text": "hi"}') == ("begins\nHI__plait_main__\n", "")


def test_a_tool_of_the_program_that_calls_another(tmp_path: Path) -> None:
    path = program(tmp_path)
    said = "begins\nasked: HI__plait_main__\n"
    assert finished(str(path), "asks_another", '{"text": "hi"}') == (said, "")


def test_a_tool_of_a_module_that_is_the_program(tmp_path: Path) -> None:
    program(tmp_path)
    assert finished("-m", "program", "shout", '{"text": "hi"}') == ("begins\nHIprogram\n", "")


AGAIN = (
    "the tool 'shout' was not called: to find it, its process read {!r}, which began to run the program again; put "
    "what starts the program under `if __name__ == '__main__':`"
)


@pytest.mark.parametrize(
    ("before", "guard", "printed"),
    [
        ("", "if True:", "begins\n"),
        ("if __name__ != '__main__': sys.exit()", GUARD, ""),
        ("if __name__ != '__main__': from test_isolation import other; other()", GUARD, ""),
    ],
    ids=["it is run", "it exits", "it calls"],
)
def test_a_program_that_would_be_run_again(before: str, guard: str, printed: str, tmp_path: Path) -> None:
    path = program(tmp_path, guard, before)
    out, errors = finished(str(path), "shout", '{"text": "hi"}')
    said = AGAIN.format(str(path))
    assert out == f"begins\n{printed}{said}\n"
    assert errors == f"plait: {said}\n"


def other() -> None:
    """Call an isolated tool, with no event loop to be refused."""
    with pytest.raises(StopIteration):
        call_isolated(home_of(tools.by_hand, "x"), ToolCall(id="c", name="x"), CONTEXT, 100).send(None)


def test_a_program_that_cannot_be_read_again(tmp_path: Path) -> None:
    path = program(tmp_path, before="if __name__ != '__main__': raise ValueError('not\\ntwice')")
    out, errors = finished(str(path), "shout", '{"text": "hi"}')
    said = f"the process of the tool 'shout' cannot import {str(path)!r}: ValueError: not twice"
    assert (out, errors) == (f"begins\n{said}\n", "")


def test_a_tool_that_is_not_there_the_second_time(tmp_path: Path) -> None:
    path = program(tmp_path)
    path.write_text(path.read_text().replace(GUARD, f"if __name__ != '__main__': del shout\n{GUARD}"))
    out, _ = finished(str(path), "shout", '{"text": "hi"}')
    assert out == "begins\nthe process of the tool 'shout' found no 'shout' in '__plait_main__'\n"


@pytest.mark.parametrize("endless", [one.name for one in ENDLESS if one is not tools.starts_others])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["killed", "interrupted"])
def test_it_dies_with_its_parent(endless: str, number: int, tmp_path: Path) -> None:
    path = tmp_path / "told"
    with started(str(program(tmp_path)), endless, f'{{"path": "{path}"}}') as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begins\n"
        asyncio.run(until(path.exists))
        assert alive(*told(path))
        process.send_signal(number)
        process.communicate(timeout=WITHIN)
    assert process.returncode == -number
    assert asyncio.run(gone(path))


def test_it_dies_with_a_parent_that_died_while_it_began() -> None:
    command = textwrap.dedent("""
        import asyncio, glob, os, isolated_tools
        from plait import RunContext, ToolCall
        from plait.homes import home_of
        from plait.isolation import call_isolated
        async def main():
            home = home_of(isolated_tools.spins.function, "spins")
            call = ToolCall(id="c", name="spins", arguments='{"path": "told"}')
            asyncio.ensure_future(call_isolated(home, call, RunContext(deps=None), 100))
            while not (
                    found := "".join(open(path).read() for path in glob.glob("/proc/self/task/*/children")).split()):
                await asyncio.sleep(0)
            print(found[0], flush=True)
            os.kill(os.getpid(), 9)
        asyncio.run(main())
    """)
    with started("-c", command) as process:
        out, _ = process.communicate(timeout=WITHIN)
    asyncio.run(until(lambda: not alive(int(out))))


@pytest.mark.parametrize("how", ["watched_by_the_system(held)", "threading.Thread(target=watch, args=(held,)).start()"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_the_lifeline(how: str, when: str) -> None:
    """Each way to hold on to it: where the system does not watch it, a thread does."""
    held, lifeline = os.pipe()
    code = f"""
import sys, threading, time
from plait.isolated import watch, watched_by_the_system
held = int(sys.argv[1])
sys.stdin.readline()
{how}
print("holds", flush=True)
time.sleep(60)
"""
    with started("-c", code, str(held), pass_fds=[held], start_new_session=True, stdin=subprocess.PIPE) as process:
        os.close(held)
        assert process.stdin is not None
        assert process.stdout is not None
        if when == "before":
            os.close(lifeline)
        process.stdin.write("\n")
        process.stdin.flush()
        if when == "after":
            assert process.stdout.readline() == "holds\n"
            os.close(lifeline)
        assert process.wait(WITHIN) == -signal.SIGKILL


def test_at_a_prompt_it_is_refused() -> None:
    code = "from plait import tool\n@tool(isolate=True)\ndef shout(text: str) -> str: ...\n"
    _, errors = finished("-c", code)
    assert errors.splitlines()[-1] == (
        "plait.errors.ConfigurationError: the tool 'shout' cannot be isolated, because another process could not find "
        "it: it was written at a prompt or in a notebook, which is no file that could be read again; write it with "
        "def, or as a class, at the top of a module"
    )


# --- what cannot be isolated ----------------------------------------------------------------------------------------


class Told(Tool):
    name = "told"
    isolate = True

    def __init__(self, limit: int = 3) -> None:
        self.limit = limit

    def execute(self) -> int:
        return self.limit


class WithContext(Tool):
    name = "with_context"
    isolate = True

    def execute(self, context: RunContext[None]) -> None: ...


class Written(Tool):
    name = "written"
    isolate = True

    def get_definition(self) -> ToolDefinition:
        return ToolDefinition(name="written", description="", parameters={"type": "object"}, strict=False)

    def execute(self) -> str:
        return "done"


class Thing:
    def method(self) -> None: ...


def told_of(context: RunContext[None]) -> None: ...


def above() -> None: ...


replaced = above


def above() -> None: ...  # type: ignore[no-redef]


def nested() -> Callable[[], None]:
    def inside() -> None: ...

    return inside


REFUSED: list[tuple[Callable[[], object], str]] = [
    (lambda: tool(isolate=True)(lambda: 1), "no name for a tool"),
    (lambda: tool(isolate=True, name="x")(lambda: 1), "<lambda>' is no name that its module holds"),
    (lambda: tool(isolate=True)(nested()), "'nested.<locals>.inside' is no name that its module holds"),
    (lambda: tool(isolate=True)(told_of), "its parameter 'context' is a RunContext, whose deps cannot cross"),
    (lambda: tool(isolate=True)(Thing.method), "'method' is a method and cannot be isolated"),
    (lambda: as_tool({"func": Thing().method, "isolate": True}), "it is a method, and what it belongs to"),
    (lambda: as_tool({"func": functools.partial(told), "isolate": True}), "partial objects have no name in a module"),
    (lambda: as_tool({"func": replaced, "isolate": True}), "'above' of 'test_isolation' is something else"),
    (lambda: as_tool(Told()), "nobody has the arguments of Told.__init__"),
    (lambda: as_tool(WithContext()), "its parameter 'context' is a RunContext"),
]


@pytest.mark.parametrize(("make", "said"), REFUSED)
def test_what_cannot_be_isolated_is_refused_at_once(make: Callable[[], object], said: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(said)):
        make()


def test_one_that_another_decorator_hides_is_refused_when_an_agent_is_made() -> None:
    hidden = tool(isolate=True)(replaced)
    for forms in ([hidden], ["above"]):
        with pytest.raises(ConfigurationError, match="'above' of 'test_isolation' is something else, or not there"):
            find_tools(forms)


async def test_a_class_with_a_schema_of_its_own() -> None:
    assert (await carry_out(Written())).text == "done"


# --- the page -------------------------------------------------------------------------------------------------------


def test_the_program_of_the_page_runs(tmp_path: Path) -> None:
    (block,) = re.findall(r"^```py\n(.*?)^```", (DOCS / "tools.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)
    path = tmp_path / "report.py"
    path.write_text(block)
    assert finished(str(path)) == ("multiply says: 42\n", "")
