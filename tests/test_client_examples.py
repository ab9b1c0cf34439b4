"""The programs of examples/ that show the chat clients: offline, from recordings, and wherever a caller may stand."""

from __future__ import annotations

import asyncio
import importlib.util
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, redirect_stdout
from contextvars import ContextVar, copy_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.request import urlopen

import pytest

from mcp_servers import gone
from plait.testing import FaultServer, Reply
from recorded import read_recordings
from test_examples import EXAMPLES, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

PATIENCE: Final = 20.0
NO: Final = "The provider said no, with status"
FORMS: Final = ((), ("--async",))
either_form = pytest.mark.parametrize("form", FORMS, ids=["sync", "async"])

SAID: Final = {
    "chat.py": ["You said: Why do cats purr?", "(4 tokens in, 6 out)"],
    "structured.py": ["Isla Moir will be 53 next year."],
    "tools.py": ['dice_roll says: {"roll":6}', "(response)"],
    "streaming.py": ["You said: Count to five.", "(stop)"],
    "streaming_tools.py": ["get_weather says: Oslo: 7 degrees, light rain", "(response)"],
    "custom_model.py": ["acme/otter-large: You said: Who are you?"],
    "failures.py": ["You said: Are you there?"],
    "batch.py": [f"{n}: You said: I am person {n}. Suggest a name for a boat." for n in range(100)],
    "mcp_client.py": ["Tools: dice_roll", 'dice_roll says: {"roll":6}'],
}
"""What each program prints when it asks the offline provider."""


AS_A_SCRIPT: Final = """
import atexit, runpy, sys, threading
def left():  # the last to be called; idle workers for sync tools are daemons, which hold nothing up
    print([thread.name for thread in threading.enumerate() if thread.name != "plait: sync tool"])
atexit.register(left)
sys.argv = sys.argv[1:]
sys.path.insert(0, sys.argv[0].rpartition("/")[0])
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@either_form
@pytest.mark.parametrize("program", SAID)
async def test_offline(program: str, form: tuple[str, ...], tmp_path: Path) -> None:
    """Each says what it should, as a plain script, and leaves no thread at its end."""
    script = tmp_path / "as_a_script.py"
    script.write_text(AS_A_SCRIPT)
    assert await run(str(script), str(EXAMPLES / program), *form) == (0, [*SAID[program], "['MainThread']"], b"")


# --- what was recorded ------------------------------------------------------------------------------------------------


class Recorded:
    """The recorded exchanges of one scenario, found by a part of its name."""

    def __init__(self, shared: Path, family: str, part: str) -> None:
        found = [one for one in read_recordings(shared, family) if part in one["scenario"]]
        assert len({one["scenario"] for one in found}) == 1
        self.exchanges = sorted(found, key=lambda one: int(one["step"]))
        self.ids = [one["id"] for one in self.exchanges]
        self.body = self.exchanges[0]["request"]["body"]
        self.model = f"{'openai' if family == 'openai-chat' else 'openrouter'}:{self.body['model']}"
        self.question: str = next(one["content"] for one in self.body["messages"] if one["role"] == "user")

    def answer(self, step: int = 0) -> dict[str, Any]:
        """Give a recorded answer."""
        whole: dict[str, Any] = json.loads(self.exchanges[step]["response"]["body"])
        return whole

    def text(self, step: int = 0) -> str:
        """Give the text of a recorded answer, streamed or not."""
        body = self.exchanges[step]["response"]["body"]
        if not self.exchanges[step]["stream"]:
            return str(self.answer(step)["choices"][0]["message"]["content"])
        events = [json.loads(line[6:]) for line in body.splitlines() if line.startswith("data: {")]
        return "".join(event["choices"][0]["delta"].get("content") or "" for event in events if event["choices"])

    def replies(self) -> list[Reply]:
        """Give the answers for a server that says them in turn."""
        answers = [one["response"] for one in self.exchanges]
        return [
            Reply(body=one["body"].encode(), headers={"content-type": one["headers"]["content-type"]})
            for one in answers
        ]


def addresses(server: str) -> dict[str, str]:
    """Give the environment in which the providers are asked at a replay server."""
    return {
        "OPENAI_API_KEY": "sk-test",
        "OPENROUTER_API_KEY": "sk-test",
        "OPENAI_BASE_URL": f"{server}/v1",
        "OPENROUTER_BASE_URL": f"{server}/api/v1",
    }


def journal(server: str, count: int) -> list[dict[str, Any]]:
    """Give the last exchanges of a replay server."""
    with urlopen(f"{server}/__journal") as answer:  # noqa: S310  # on 127.0.0.1
        return list(json.load(answer)[-count:])


def user(text: str) -> dict[str, str]:
    """Give a message as it stands in a request."""
    return {"role": "user", "content": text}


@either_form
async def test_chat_as_recorded(shared: Path, servers: dict[str, str], form: tuple[str, ...]) -> None:
    server, recorded = servers["as recorded"], Recorded(shared, "openai-chat", "call-with-params-openai-gpt-5-mini")
    used = recorded.answer(1)["usage"]
    done = await run("chat.py", *form, recorded.model, recorded.question, **addresses(server))
    tokens = f"({used['prompt_tokens']} tokens in, {used['completion_tokens']} out)"
    assert done == (0, [recorded.text(1), tokens], b"")
    (sent,) = journal(server, 1)
    assert (sent["id"], sent["path"]) == (recorded.ids[1], "/v1/chat/completions")
    assert sent["body"] == {"model": recorded.body["model"], "messages": [user(recorded.question)]}


@either_form
async def test_structured_as_recorded(shared: Path, servers: dict[str, str], form: tuple[str, ...]) -> None:
    server, recorded = servers["as recorded"], Recorded(shared, "openrouter-chat", "with-schema")
    person = json.loads(recorded.text())
    done = await run("structured.py", *form, recorded.model, recorded.question, **addresses(server))
    assert done == (0, [f"{person['name']} will be {person['age'] + 1} next year."], b"")
    (sent,) = journal(server, 1)
    wanted = sent["body"].pop("response_format")
    assert (sent["id"], sent["path"]) == (recorded.ids[0], "/api/v1/chat/completions")
    assert sent["body"] == {"model": recorded.body["model"], "messages": [user(recorded.question)]}
    assert (wanted["type"], sorted(wanted["json_schema"]["schema"]["properties"])) == ("json_schema", ["age", "name"])


@either_form
async def test_tools_as_recorded(shared: Path, servers: dict[str, str], form: tuple[str, ...]) -> None:
    server, recorded = servers["as recorded"], Recorded(shared, "openrouter-chat", "function-calling")
    done = await run("tools.py", *form, recorded.model, recorded.question, **addresses(server))
    assert done == (0, [*recorded.text(1).splitlines(), "(response)"], b"")
    first, second = journal(server, 2)
    assert [first["id"], second["id"]] == recorded.ids
    check_dice(recorded, first["body"], second["body"])


@either_form
async def test_mcp_tools_as_recorded(shared: Path, form: tuple[str, ...]) -> None:
    """To the model, the tool of an MCP server is the tool that was recorded."""
    recorded = Recorded(shared, "openrouter-chat", "function-calling")
    with FaultServer(*recorded.replies()) as server:
        variables = {"OPENROUTER_API_KEY": "sk-test", "OPENROUTER_BASE_URL": server.url}
        done = await run("mcp_client.py", *form, recorded.model, recorded.question, **variables)
        first, second = server.requests
    assert done == (0, ["Tools: dice_roll", *recorded.text(1).splitlines()], b"")
    check_dice(recorded, first, second)


def check_dice(recorded: Recorded, first: dict[str, Any], second: dict[str, Any]) -> None:
    """The tool is offered, and each recorded call of it is answered, in the order of the calls."""
    calls = recorded.answer()["choices"][0]["message"]["tool_calls"]
    assert [one["function"]["name"] for one in first["tools"]] == ["dice_roll"]
    assert first["tools"] == second["tools"]
    assert first["messages"] == [user(recorded.question)]
    asked, said, *results = second["messages"]
    assert asked == user(recorded.question)
    assert [(call["id"], call["function"]) for call in said["tool_calls"]] == [
        (call["id"], call["function"]) for call in calls
    ]
    assert results == [{"role": "tool", "tool_call_id": call["id"], "content": '{"roll":6}'} for call in calls]


@either_form
async def test_streaming_as_recorded(shared: Path, servers: dict[str, str], form: tuple[str, ...]) -> None:
    server, recorded = servers["as recorded"], Recorded(shared, "openai-chat", "logfire-otel")
    done = await run("streaming.py", *form, recorded.model, recorded.question, **addresses(server))
    assert done == (0, [recorded.text(), "(stop)"], b"")
    (sent,) = journal(server, 1)
    assert sent["id"] == recorded.ids[0]
    assert sent["body"] == {
        "model": recorded.body["model"],
        "messages": [user(recorded.question)],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


@either_form
async def test_streaming_with_tools_as_recorded(shared: Path, form: tuple[str, ...]) -> None:
    recorded = Recorded(shared, "openrouter-chat", "stream-encrypted-reasoning-survives")
    with FaultServer(*recorded.replies()) as server:
        variables = {"OPENROUTER_API_KEY": "sk-test", "OPENROUTER_BASE_URL": server.url}
        done = await run("streaming_tools.py", *form, recorded.model, recorded.question, **variables)
        first, second = server.requests
    assert done == (0, [*recorded.text(1).splitlines(), "(response)"], b"")
    assert (first["stream"], second["stream"]) == (True, True)
    assert first["messages"] == [user(recorded.question)]
    asked, said, result = second["messages"]
    (call,) = said["tool_calls"]
    city = json.loads(call["function"]["arguments"])["city"]
    assert asked == user(recorded.question)
    assert result == {"role": "tool", "tool_call_id": call["id"], "content": f"{city}: 7 degrees, light rain"}


@either_form
async def test_a_custom_model_as_recorded(shared: Path, servers: dict[str, str], form: tuple[str, ...]) -> None:
    server, recorded = servers["as recorded"], Recorded(shared, "openai-chat", "call-with-params-openai-gpt-5-mini")
    model = recorded.body["model"]
    done = await run("custom_model.py", *form, "openai", model, recorded.question, **addresses(server))
    assert done == (0, [f"{recorded.answer(1)['model']}: {recorded.text(1)}"], b"")
    (sent,) = journal(server, 1)
    assert (sent["id"], sent["body"]["model"]) == (recorded.ids[1], model)


@either_form
@pytest.mark.parametrize(
    ("family", "part", "status", "requests", "advice"),
    [
        ("openrouter-chat", "error-handling", 401, 1, f"{NO} 401. Asking again would not help."),
        ("openai-chat", "async-error", 404, 1, f"{NO} 404. Asking again would not help."),
        ("openrouter-chat", "errors-raised", 429, 2, "Too many requests. Ask again later."),
    ],
)  # fmt: skip
async def test_failures_as_recorded(  # noqa: PLR0917  # each row of the table
    shared: Path,
    servers: dict[str, str],
    form: tuple[str, ...],
    family: str,
    part: str,
    status: int,
    requests: int,
    advice: str,
) -> None:
    server, recorded = servers["as recorded"], Recorded(shared, family, part)
    code, said, errors = await run("failures.py", *form, recorded.model, recorded.question, **addresses(server))
    assert (code, said) == (1, [advice])
    *log, error = errors.decode().splitlines()
    provider = recorded.model.partition(":")[0]
    assert error.startswith(f"{provider} answered {status}")
    assert recorded.answer()["error"]["message"][:60] in error
    assert [line for line in log if f"answers {status}" in line] == [
        line for line in log if "plait.providers.http" in line
    ]
    assert len([line for line in log if f"answers {status}" in line]) == requests
    assert "sk-test" not in errors.decode()
    sent = journal(server, requests)
    assert {one["id"] for one in sent} <= set(recorded.ids)
    assert [one["body"]["messages"] for one in sent] == [[user(recorded.question)]] * requests


@either_form
async def test_failures_without_a_server(form: tuple[str, ...]) -> None:
    code, said, errors = await run("failures.py", *form, "openai", **addresses("http://127.0.0.1:1"))
    assert (code, said) == (1, ["Nobody answered. Look at the address and the network."])
    assert errors.decode().splitlines()[-1].startswith("cannot connect to 127.0.0.1:1: connection refused")


@either_form
async def test_a_hundred_clients_as_recorded(shared: Path, form: tuple[str, ...]) -> None:
    recorded = Recorded(shared, "openai-chat", "call-with-params-openai-gpt-5-mini")
    with FaultServer(*[recorded.text(1)] * 100) as server:
        variables = {"OPENAI_API_KEY": "sk-test", "OPENAI_BASE_URL": server.url}
        done = await run("batch.py", *form, recorded.model, recorded.question, **variables)
        sent = Counter(body["messages"][0]["content"] for body in server.requests)
    assert done == (0, [f"{person}: {recorded.text(1)}" for person in range(100)], b"")
    assert sent == {f"I am person {person}. {recorded.question}": 1 for person in range(100)}


async def test_a_hundred_clients_at_once_at_a_server_that_keeps_few_waiting(
    shared: Path, servers: dict[str, str]
) -> None:
    recorded = Recorded(shared, "openai-chat", "caching-system-message-openai-gpt-4o")
    variables = addresses(servers["as recorded"])
    code, said, errors = await run("batch.py", "--async", "openai:gpt-4o", "Hello there.", **variables)
    assert (code, errors) == (0, b"")
    assert said == [f"{person}: {recorded.text(0)}" for person in range(100)]


@pytest.mark.parametrize("program", SAID)
async def test_a_missing_key_is_one_line(program: str) -> None:
    form = FORMS[len(program) % 2]
    code, _, errors = await run(program, *form, "openai")
    (line,) = errors.decode().splitlines()
    assert (code, line) == (1, "provider 'openai' needs a key: set OPENAI_API_KEY, or pass the key")


async def test_too_many_words_are_one_line() -> None:
    usage = b"usage: python chat.py [--async] [provider] [question]\n"
    assert await run("chat.py", "offline", "Hello", "there") == (1, [], usage)


# --- where a caller may stand -----------------------------------------------------------------------------------------


def program_named(name: str) -> ModuleType:
    """Load a program as a module."""
    spec = importlib.util.spec_from_file_location(f"example_{Path(name).stem}", EXAMPLES / name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch, registry: None) -> dict[str, ModuleType]:
    """Every program, loaded as a notebook would."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return {name: program_named(name) for name in SAID}


class Printed(io.TextIOBase):
    """A stdout for many threads and tasks: each has what it printed itself."""

    def __init__(self) -> None:
        self.of: ContextVar[io.StringIO] = ContextVar("printed")

    def write(self, text: str) -> int:
        return self.of.get().write(text)

    def lines(self, form: Any, *words: str) -> list[str]:
        """Run a program here, and give what it printed."""
        self.of.set(io.StringIO())
        form(*words)
        return self.of.get().getvalue().splitlines()

    async def lines_async(self, form: Any, *words: str) -> list[str]:
        """Run a program in this event loop, and give what it printed."""
        self.of.set(io.StringIO())
        await form(*words)
        return self.of.get().getvalue().splitlines()


async def test_in_a_running_event_loop(programs: dict[str, ModuleType]) -> None:
    """As in a notebook: both forms work where an event loop runs, and say what the programs say."""
    with redirect_stdout(Printed()) as printed:
        asked = {name: printed.lines(program.ask) for name, program in programs.items()}
        awaited = {name: await printed.lines_async(program.ask_async) for name, program in programs.items()}
    assert asked == SAID
    assert awaited == SAID


def test_in_a_pool_of_fifty_threads(programs: dict[str, ModuleType]) -> None:
    """Each thread gets the answer of its own call, whether it has an event loop of its own or none."""
    printed = Printed()

    def here(name: str, number: int) -> list[str]:
        form = programs[name]
        if number % 2:
            return printed.lines(form.ask)
        return asyncio.run(printed.lines_async(form.ask_async))

    alone = [name for name in SAID if name not in {"batch.py", "mcp_client.py"}]
    with redirect_stdout(printed), ThreadPoolExecutor(50) as pool:
        jobs = [(name, number) for number in range(50) for name in alone]
        made = list(pool.map(lambda job: copy_context().run(here, *job), jobs))
    assert made == [SAID[name] for name, _ in jobs]


@contextmanager
def dice_server() -> Iterator[str]:
    """Run the program that serves over HTTP; give its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(EXAMPLES / "mcp_server.py"), port]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            said = process.stderr.readline()
            yield said.rsplit(" ", 1)[-1].strip()
        finally:
            process.send_signal(signal.SIGINT)
            assert (process.wait(PATIENCE), process.stderr.read()) == (0, "")


def test_fifty_threads_at_one_mcp_server(programs: dict[str, ModuleType]) -> None:
    program, printed = programs["mcp_client.py"], Printed()

    def here(url: str) -> list[str]:
        return printed.lines(program.ask, "offline", program.QUESTION, url)

    with dice_server() as url, redirect_stdout(printed):
        with ThreadPoolExecutor(50) as pool:
            made = list(pool.map(lambda _: copy_context().run(here, url), range(50)))
        awaited = asyncio.run(printed.lines_async(program.ask_async, "offline", program.QUESTION, url))
    assert made == [SAID["mcp_client.py"]] * 50
    assert awaited == SAID["mcp_client.py"]


def children(pid: int) -> list[int]:
    """Give the processes that a process started and that are there."""
    found = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(word) for threads in found for word in threads.read_text().split()]


@contextmanager
def silent_server() -> Iterator[tuple[str, threading.Event]]:
    """Run a server that reads a request and never answers; give its address, and whether it was asked."""
    asked = threading.Event()
    held: list[socket.socket] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return  # the test is over
            held.append(connection)
            if connection.recv(65_536):
                asked.set()

    with socket.create_server(("127.0.0.1", 0), backlog=200) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}", asked
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join(PATIENCE)
            for connection in held:
                connection.close()


@either_form
@pytest.mark.parametrize("program", [name for name in SAID if name not in {"structured.py", "custom_model.py"}])
def test_ctrl_c_while_it_waits(program: str, form: tuple[str, ...]) -> None:
    """It ends with exit code 130 and no traceback, and the MCP server that it started ends, too."""
    with silent_server() as (server, asked):
        environment = {**os.environ, **addresses(server), "PYTHONPATH": os.pathsep.join(sys.path)}
        process = subprocess.Popen(
            [sys.executable, str(EXAMPLES / program), *form, "openai"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            text=True,
        )
        try:
            assert asked.wait(PATIENCE)
            started = children(process.pid)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert (process.returncode, err) == (130, "")
    assert out == ("Tools: dice_roll\n" if program == "mcp_client.py" else "")
    assert len(started) == (1 if program == "mcp_client.py" else 0)
    assert all(gone(pid) for pid in started)


def test_every_program_is_tested_and_short() -> None:
    lengths = {path.name: len(path.read_text("utf-8").splitlines()) for path in EXAMPLES.glob("*.py")}
    service = "one_message.py"  # a whole service, in tests of its own
    assert lengths.keys() == {*SAID, "command.py", "mcp_server.py", "images.py", "weather.py", service}
    assert {name for name, length in lengths.items() if length > 70} <= {service}
    assert lengths[service] <= 100
