"""Redirects that ask for the key, hostile records, JSON bombs, code in data, use without bounds, forged identities."""

from __future__ import annotations

import ast
import asyncio
import json
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

import pytest
from pydantic import BaseModel

import plait
from faults.aftermath import HOWS, STILL_HERE, How, agent_with, ask, assert_goes_on, calls, nothing_left, stored
from plait import (
    Agent,
    ConfigurationError,
    CorruptRecord,
    Message,
    OfflineProvider,
    OutputInvalid,
    PlaitError,
    ProviderError,
    Request,
    RunContext,
    Secret,
    ToolCall,
    ToolError,
    history,
    tool,
)
from plait.builtin import calculate
from plait.errands import MAX_DEPTH
from plait.providers.base import Settings
from plait.run import DEFAULT_TOOLS_AT_ONCE
from plait.testing import FaultServer, Reply, answer

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from plait.testing.server import Certificate

KEY = "sk-very-secret-key-0123456789"
SOURCE = Path(plait.__file__).parent


async def outcome(work: Awaitable[Any]) -> Any:
    """Give what comes of it, be it an error."""
    try:
        return await work
    except Exception as error:  # noqa: BLE001  # what is looked at
        return error


# --- S02: redirects ---------------------------------------------------------------------------------------------------


@pytest.mark.fault("S02")
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("tls", [None, "good"])
@pytest.mark.parametrize("how", HOWS)
async def test_the_key_goes_to_no_redirect_target(
    how: How, tls: Certificate | None, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To another port, another host, from https to http, with credentials in the address, or back to itself."""
    with FaultServer(answer("stolen")) as thief:
        for target in (
            thief.url,
            f"http://localhost:{thief.port}/v1/chat/completions",
            f"http://user:word@127.0.0.1:{thief.port}/",
            f"//127.0.0.1:{thief.port}/v1/chat/completions",
            "/v1/elsewhere",
        ):
            redirect = Reply(status=status, headers=(("Location", target),), body=b"moved")
            with FaultServer(redirect, answer("followed"), tls=tls) as server:
                if tls:
                    from plait.testing import certificate

                    monkeypatch.setenv("SSL_CERT_FILE", str(certificate(tls)))
                agent: Agent[Any, Any] = Agent(provider="openai", model="m1", api_key=KEY, base_url=server.url)
                with pytest.raises(PlaitError) as caught:
                    await ask(agent, how)
                assert KEY not in str(caught.value)
                assert "word" not in str(caught.value)
                if isinstance(caught.value, ProviderError):
                    assert caught.value.status == status
                    assert len(server.exchanges) == 1
        assert thief.connections == 0


# --- S12: hostile records ---------------------------------------------------------------------------------------------

HOSTILE: list[dict[str, Any]] = [
    {"class_": "os.system", "role": "user", "parts": [{"type": "text", "text": "hi"}]},
    {"class_": "plait.store.database.DatabaseStore", "url": "sqlite:///other.db", "role": "user", "parts": []},
    {"class_": "hostile_module.Payload", "role": "user", "parts": [{"type": "text", "text": "hi"}], "do": "touch x"},
    {"class_": "__main__.Message", "__class__": "subprocess.Popen", "__reduce__": ["os.system", ["touch x"]],
     "role": "user", "parts": [{"type": "text", "text": "hi"}]},
    {"role": "user", "parts": [{"type": "text", "text": "hi"}], "metadata": {"py/object": "os.system", "$type": "X",
     "__reduce__": "gASVIAAAAAAAAACMBXBvc2l4lIwGc3lzdGVtlJOUjAd0b3VjaCB4lIWUUpQu",
     "!!python/object/apply": "os.system"}},
]  # fmt: skip


def hostile_row(path: str, thread_id: str, n: int, line: str) -> None:
    with closing(sqlite3.connect(path)) as other, other:
        row = (thread_id, n, f"msg_{n}", "run_x", "message", 0.0, line, crc32(line.encode()))
        columns = "thread_id, n, id, run_id, kind, at, line, crc"
        other.execute(f"INSERT INTO entries ({columns}) VALUES (?,?,?,?,?,?,?,?)", row)  # noqa: S608


@pytest.mark.fault("S12")
@pytest.mark.parametrize("message", HOSTILE)
async def test_a_hostile_record_is_data(
    message: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trap = tmp_path / "hostile_module.py"
    trap.write_text("from pathlib import Path\nPath('x').touch()\nclass Payload: pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    async with nothing_left(), stored() as store:
        agent: Agent[Any, Any] = Agent(provider=OfflineProvider(function=lambda _: STILL_HERE), store=store)
        await agent.chat("begin", thread="t")
        last = (await agent.log("t"))[-1]
        info = await store.find("t")
        assert info is not None
        line = {"v": 1, "n": last.n + 1, "id": f"msg_{last.n + 1}", "at": 0.0, "run_id": "run_x", "kind": "message"}
        hostile_row("plait.db", info.thread_id, last.n + 1, json.dumps({**line, "body": {"message": message}}))

        modules = set(sys.modules)
        fresh: Agent[Any, Any] = Agent(provider=OfflineProvider(function=lambda _: STILL_HERE), store=store)
        log = await outcome(fresh.log("t"))
        if isinstance(log, CorruptRecord):
            assert "touch x" not in str(log)
        else:
            loaded = list(history(log))[-1]
            assert isinstance(loaded, Message)
            assert type(loaded).__module__.startswith("plait.")
            await assert_goes_on(fresh, "t")
        assert "hostile_module" not in sys.modules
        assert [name for name in set(sys.modules) - modules if not name.startswith(("plait", "sqlalchemy"))] == []
        assert not (tmp_path / "x").exists()


# --- S13: JSON bombs --------------------------------------------------------------------------------------------------

BOMBS = {
    "deep list": "[" * 100_000 + "]" * 100_000,
    "deep object": '{"x":' * 80_000 + "1" + "}" * 80_000,
    "no end": '{"x":[' + "[" * 100_000,
    "1e999": '{"x": 1e999}',
    "-1e999": '{"x": -1e999}',
    "NaN": '{"x": NaN}',
    "digits": '{"x": ' + "9" * 5_000 + "}",
    "many digits": '{"x": ' + "9" * 400_000 + "}",
    "fraction": '{"x": 0.' + "9" * 400_000 + "}",
    "twice": '{"x": 1, "x": 2}',
    "exponent": '{"x": 1e-999999999999}',
    "many keys": "{" + ",".join(f'"k{n}": 1' for n in range(30_000)) + "}",
    "escapes": '{"x": "' + "\\ud800" * 50_000 + '"}',
}
bombs = pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
FITS = {"exponent", "fraction"}


class Number(BaseModel):
    x: float


@pytest.mark.fault("S13")
@bombs
async def test_a_bomb_in_arguments_is_an_error_result(bomb: str) -> None:
    ran: list[float] = []

    def take(x: float) -> str:
        ran.append(x)
        return "taken"

    def take_any(x: Any = None) -> str:
        ran.append(x)
        return "taken"

    by_hand = {"name": "any", "func": take_any, "function_schema": {"type": "object"}}
    async with stored() as store:
        for form, name in ((take, "take"), (by_hand, "any")):
            for how in HOWS:
                agent = agent_with(form, made=calls(name, arguments=bomb), store=store)
                thread = f"{name}-{how}"
                said = await ask(agent, how, thread=thread)
                assert said.startswith("ERROR ") or said == "taken"
                assert len(said) < 1000
                await assert_goes_on(agent, thread)
    assert all(isinstance(x, str | None) or abs(x) < 10 for x in ran)


@pytest.mark.fault("S13")
@bombs
async def test_a_bomb_as_an_answer_is_text_or_an_error(bomb: str) -> None:
    for output in (Number, dict[str, float], list[int]):
        provider = OfflineProvider(function=lambda _: bomb)
        typed: Agent[Any, Any] = Agent(provider=provider, output=output)
        value = await outcome(typed.chat("go"))
        if isinstance(value, Exception):
            assert isinstance(value, OutputInvalid)
            assert len(str(value)) < 1000
        else:
            assert isinstance(value, output if output is Number else dict)
    async with stored() as store:
        plain: Agent[Any, Any] = Agent(provider=OfflineProvider(function=lambda _: bomb), store=store)
        for how in HOWS:
            assert await ask(plain, how, thread=how) == bomb
            assert list(history(await plain.log(how)))[-1].text == bomb


@pytest.mark.fault("S13")
@bombs
async def test_a_bomb_on_the_wire_is_a_bounded_error(bomb: str) -> None:
    """As the whole body, as a field nobody asked for, and in place of a field that is used; whole and streamed."""
    ok = '"choices":[{"index":0,"delta":{"content":"fine"},"message":{"content":"fine"},"finish_reason":"stop"}]'
    for body in (bomb, f'{{"extra":{bomb},{ok}}}', f'{{"choices":{bomb}}}', f'{{{ok},"usage":{bomb}}}'):
        data = body.encode("utf-8", "surrogatepass")
        reply = Reply(body=data, events=(data, b"[DONE]"))
        with FaultServer(reply) as server:
            agent: Agent[Any, Any] = Agent(provider="openai", model="m1", api_key=KEY, base_url=server.url)
            for how in ("chat", "stream"):
                said = await outcome(ask(agent, how))
                assert said == "fine" or (isinstance(said, PlaitError) and len(str(said)) < 1000)


@pytest.mark.fault("S13")
@bombs
async def test_a_bomb_in_a_stored_row_is_a_corrupt_record(bomb: str) -> None:
    async with stored() as store:
        agent: Agent[Any, Any] = Agent(provider=OfflineProvider(function=lambda _: STILL_HERE), store=store)
        await agent.chat("begin", thread="t")
        last = (await agent.log("t"))[-1]
        info = await store.find("t")
        assert info is not None
        message = f'{{"role":"user","parts":[{{"type":"text","text":"x"}}],"metadata":{bomb}}}'
        head = f'{{"v":1,"n":{last.n + 1},"id":"msg_9","at":0.0,"run_id":"r","kind":"message","body":{{"message":'
        hostile_row("plait.db", info.thread_id, last.n + 1, f"{head}{message}}}}}")
        log = await outcome(agent.log("t"))
        if isinstance(log, CorruptRecord):
            assert len(str(log)) < 1000
            assert len(await store.read(info.thread_id, after=last.n + 1)) == 0
        else:
            assert len(log) == last.n + 1


@pytest.mark.fault("S13")
def test_a_bomb_in_the_settings_is_refused() -> None:
    deep: Any = 1
    for _ in range(100_000):
        deep = [deep]
    cyclic: dict[str, Any] = {}
    cyclic["self"] = cyclic
    values: list[Any] = [deep, cyclic, float("inf"), {1, 2}, object(), 10**6000]
    wrong: list[Any] = [*({"x": value} for value in values), [1], {1: 2}]
    for extra in wrong:
        with pytest.raises(ConfigurationError) as caught:
            Settings(extra=extra)
        assert len(str(caught.value)) < 1000
    given: Any = {"x": [1]}
    assert Settings(extra=given).extra == {"x": (1,)}


# --- S16: code --------------------------------------------------------------------------------------------------------

BUILTINS = {"eval", "exec", "compile", "__import__", "execfile", "input", "breakpoint"}
MODULES = {"pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "jsonpickle", "subprocess", "pty", "runpy"}
MODULES |= {"importlib", "code", "codeop", "yaml", "joblib"}
METHODS = {"system", "popen", "execv", "execve", "execvp", "spawnl", "spawnv", "fork", "posix_spawn", "import_module"}
METHODS |= {"create_subprocess_shell", "create_subprocess_exec", "subprocess_shell", "subprocess_exec"}
ALLOWED = {
    ("__init__.py", "importlib"),  # names are loaded when they are used: import_module of a fixed table
    ("__init__.py", "import_module"),
    ("cli.py", "importlib"),  # importlib.metadata: the version
    ("demo.py", "subprocess"),  # the demo shows that a thread outlives its process; no shell, nothing of a model's
    ("isolation.py", "subprocess"),  # this interpreter, for a tool that its author isolates; no shell, and no pickle
    ("isolated.py", "importlib"),  # there: the tool's module, by the name that its author gave it
    ("isolated.py", "import_module"),
    ("isolated.py", "exec"),  # there: the program that the user started, as multiprocessing runs it
    ("isolated.py", "compile"),
    ("counting.py", "importlib"),  # a private copy of tiktoken's own table of encodings
    ("mcp/client/stdio.py", "subprocess_exec"),  # the server that the user named, as program and arguments; no shell
    ("mcp/client/session.py", "importlib"),  # importlib.metadata: the version
    ("providers/catalog.py", "importlib"),  # the provider of a dialect: import_module of a fixed table
    ("talk.py", "input"),  # the prompt of the command
}


def dangers(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        match node:
            case ast.Call(func=ast.Name(id=name)) if name in BUILTINS:
                found.add(name)
            case ast.Call(func=ast.Attribute(attr=name, value=ast.Name(id=of))) if name in METHODS and of != "self":
                found.add(name)
            case ast.Import(names=names):
                found |= {alias.name.partition(".")[0] for alias in names} & MODULES
            case ast.ImportFrom(module=str(module)):
                found |= {module.partition(".")[0]} & MODULES
            case ast.Call(keywords=keywords) if any(
                keyword.arg == "shell" and not (isinstance(keyword.value, ast.Constant) and not keyword.value.value)
                for keyword in keywords
            ):
                found.add("shell=")
            case _:
                pass
    return found


@pytest.mark.fault("S12", "S16")
def test_nothing_in_the_source_evaluates_unpickles_or_starts_anything() -> None:
    files = sorted(SOURCE.rglob("*.py"))
    assert len(files) > 50
    found = {(str(file.relative_to(SOURCE)), what) for file in files for what in dangers(file)}
    assert found - ALLOWED == set()


@pytest.mark.fault("S16")
@pytest.mark.parametrize(
    "expression",
    [
        "9**9**9",
        "9**9**9**9**9",
        "(9**999)**999",
        "-9**9**9 % 7",
        "factorial(10**9)",
        "10**10**10 // 3",
        "2**0.5**-9999",
        "1e308*1e308",
        "0**-1",
        "1" * 100_000,
        "(" * 10_000 + "1" + ")" * 10_000,
        "__import__('os').system('touch x')",
        "().__class__.__bases__[0].__subclasses__()",
        "(lambda: 1)()",
        "[x for x in range(10**9)]",
        "'a' * 10**10",
        "f'{1}'",
        "open('/etc/passwd').read()",
        "1 if 1 else 2",
        "x := 5",
        "max(*range(10**9))",
        "\x00",
        "1\n2",
    ],
)
async def test_no_expression_does_more_than_arithmetic(expression: str, tmp_path: Path) -> None:
    with pytest.raises(ToolError) as caught:
        calculate(expression)
    assert len(str(caught.value)) < 500
    arguments = json.dumps({"expression": expression})
    agent = agent_with("calculate", made=calls("calculate", arguments=arguments))
    assert (await ask(agent, "chat")).startswith("ERROR ")
    assert not (tmp_path / "x").exists()
    await assert_goes_on(agent)


# --- S17: use without bounds ------------------------------------------------------------------------------------------


@pytest.mark.fault("S17")
@pytest.mark.parametrize("how", HOWS)
async def test_a_model_that_never_stops_is_stopped(how: How) -> None:
    ran: list[int] = []

    def again(n: int) -> str:
        ran.append(n)
        return "more"

    def answer_again(request: Request) -> Any:
        if request.messages[-1].text == "Are you still there?":
            return STILL_HERE
        number = len(request.messages)
        return ToolCall(id=str(number), name="again", arguments=f'{{"n": {number}}}')

    async with nothing_left():
        agent: Agent[Any, Any] = Agent(provider=OfflineProvider(function=answer_again), tools=[again])
        await ask(agent, how)
        assert len(ran) == 10
        if how == "chat":
            await assert_goes_on(agent)
        assert (await agent.run("go")).stop_reason == "max_turns"


@pytest.mark.fault("S17")
@pytest.mark.parametrize("count", [128, 1000])
async def test_a_fan_out_is_bounded(count: int) -> None:
    running, most, ran = 0, 0, 0

    async def work() -> str:
        nonlocal running, most, ran
        running += 1
        ran += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return "done"

    agent = agent_with(work, made=calls("work", count))
    result = await agent.run("go")
    assert result.stop_reason == "max_tool_calls"
    assert (ran, most) == (50, DEFAULT_TOOLS_AT_ONCE)
    chatted = agent_with(work, made=calls("work", count))
    await ask(chatted, "chat")
    await assert_goes_on(chatted)


@pytest.mark.fault("S17")
@pytest.mark.parametrize("way", ["chat", "run", "stream", "in a thread", "in a task"])
async def test_agents_within_agents_are_bounded(way: str) -> None:
    depth: list[int] = []

    async def delegate() -> str:
        depth.append(1)
        if way == "in a task":
            return str(await asyncio.create_task(ask(agent(), "chat")))
        how: How = "run" if way == "run" else "stream" if way == "stream" else "chat"
        return await ask(agent(), how)

    def delegate_in_a_thread() -> str:
        depth.append(1)
        return asyncio.run(ask(agent(), "chat"))

    def agent() -> Agent[Any, Any]:
        return agent_with(delegate_in_a_thread if way == "in a thread" else delegate)

    async with nothing_left():
        outermost = agent()
        said = await ask(outermost, "chat")
        assert said.count("ERROR ") == 1
        assert "LimitExceeded: agent 'Assistant' would be one of more than 8 agents within agents" in said
        assert len(depth) == MAX_DEPTH + 1
        await assert_goes_on(outermost)


@pytest.mark.fault("S17")
async def test_agents_side_by_side_are_not_agents_within_agents() -> None:
    async def delegate() -> str:
        agents: list[Agent[Any, Any]] = [Agent(provider="offline") for _ in range(20)]
        said = [await agent.chat("hi") for agent in agents]
        said += await asyncio.gather(*(agent.chat("again") for agent in agents))
        return str(len(said))

    assert await ask(agent_with(delegate), "chat") == "40"


# --- S19: forged identities -------------------------------------------------------------------------------------------


@pytest.mark.fault("S19")
@pytest.mark.parametrize("how", HOWS)
async def test_what_the_run_fills_in_no_model_can_send(how: How) -> None:
    seen: list[Any] = []
    forged = {
        "user_id": "eve",
        "thread_id": "thr_eve",
        "chat_id": "thr_eve",
        "agent_name": "Eve",
        "context": {"user_id": "eve", "deps": None},
        "token": "eve's",
        "run_id": "run_eve",
        "idempotency_key": "eve",
        "city": "Lisbon",
    }

    @tool(strict=False)
    def look(  # noqa: PLR0917
        city: str, user_id: str, thread_id: str, chat_id: str, agent_name: str, context: RunContext[Any], token: Secret
    ) -> str:
        """Look."""
        one_thread = thread_id == chat_id == context.thread_id
        seen.append((city, user_id, one_thread, agent_name, context.user_id, token.reveal()))
        return "seen"

    def look_by_hand(city: str, user_id: str) -> str:
        seen.append((city, user_id))
        return "seen"

    by_hand = {
        "name": "by_hand",
        "func": look_by_hand,
        "function_schema": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "user_id": {"type": "string"}},
        },
    }
    secrets = {"token": Secret("mine-mine-mine")}
    options: dict[str, Any] = {"secrets": secrets, "user_id": "ann"}
    agent = agent_with(look, made=calls("look", arguments=json.dumps(forged)), name="Helper")
    said = await ask(agent, how, **options)
    assert seen == ([("Lisbon", "ann", True, "Helper", "ann", "mine-mine-mine")] if said == "seen" else [])
    seen.clear()
    honest = agent_with(look, made=calls("look", arguments='{"city": "Lisbon"}'), name="Helper")
    assert await ask(honest, how, **options) == "seen"
    assert seen == [("Lisbon", "ann", True, "Helper", "ann", "mine-mine-mine")]
    provider: Any = honest.provider
    [definition] = provider.requests[0].tools
    assert list(definition.parameters["properties"]) == ["city"]
    seen.clear()
    listed = agent_with(by_hand, made=calls("by_hand", arguments='{"city": "Lisbon", "user_id": "eve"}'))
    await ask(listed, how, user_id="ann")
    assert seen == [("Lisbon", "ann")]
