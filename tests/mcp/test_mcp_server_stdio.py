"""`MCPServer` over stdin and stdout, as a host starts it."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import mcp_types as types
import pytest
from mcp import Client
from mcp.client.stdio import StdioServerParameters

from hosting import TIMEOUT, text, until
from plait.mcp.server.stdio import _written

if TYPE_CHECKING:
    from pathlib import Path

STDIO = """
import asyncio, os, subprocess, sys, time
from pathlib import Path
from plait.mcp.server.server import MCPServer, mcp_host

async def wait(mark: str) -> str:
    child = await asyncio.create_subprocess_exec("sleep", "600")
    Path(mark).write_text(str(child.pid))
    try:
        await asyncio.sleep(600)
    finally:
        child.kill()
        await child.wait()
        Path(mark + ".ended").touch()
    return ""

def noisy() -> str:
    print("printed by a tool")
    os.write(1, b"written by a tool\\n")
    subprocess.run(["echo", "said by a child"], check=True)
    return f"{input.__name__} read {sys.stdin.read()!r}"

def block(mark: str) -> None:
    Path(mark).touch()
    time.sleep(600)

async def halves() -> str:
    await mcp_host().log({"\\ud83d": ["a \\ud83d"]})
    return '{"half": "\\\\ud83d"} \\ud83d\\ude00'

print("before")
MCPServer("stdio", tools=[wait, noisy, block, halves]).run()
print("after")
"""


class Process:
    """A server that speaks over pipes, as a host would start it."""

    def __init__(self, folder: Path) -> None:
        program = folder / "program.py"
        program.write_text(STDIO.replace('print("before")', ""))
        self.running = subprocess.Popen(
            [sys.executable, str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert self.running.stdin is not None
        assert self.running.stdout is not None
        self.stdin, self.stdout = self.running.stdin, self.running.stdout
        self.received = b""

    def send(self, *messages: dict[str, Any] | bytes) -> None:
        lines = (message if isinstance(message, bytes) else json.dumps(message).encode() for message in messages)
        self.stdin.write(b"".join(line + b"\n" for line in lines))
        self.stdin.flush()

    def receive(self) -> dict[str, Any]:
        while b"\n" not in self.received:
            assert select.select([self.stdout], [], [], TIMEOUT)[0], "no answer"
            more = os.read(self.stdout.fileno(), 65_536)
            assert more, self.running.communicate(timeout=TIMEOUT)[1].decode()
            self.received += more
        line, _, self.received = self.received.partition(b"\n")
        told: dict[str, Any] = json.loads(line)
        return told

    def greet(self) -> None:
        client = {"name": "t", "version": "1"}
        params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client}
        self.send({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params})
        assert self.receive()["result"]["serverInfo"]["name"] == "stdio"
        self.send({"jsonrpc": "2.0", "method": "notifications/initialized"})

    def call(self, number: int, name: str, **arguments: object) -> None:
        params = {"name": name, "arguments": arguments}
        self.send({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params})

    def hang_up(self) -> None:
        self.running.stdin = None
        with suppress(BrokenPipeError):  # it has ended before
            self.stdin.close()

    def end(self) -> tuple[int, str, str]:
        """Give the exit code, and what else was on stdout and stderr."""
        out, err = self.running.communicate(timeout=TIMEOUT)
        return self.running.returncode, (self.received + out).decode(), err.decode()


@pytest.fixture
def process(tmp_path: Path) -> Any:
    made = Process(tmp_path)
    yield made
    made.hang_up()
    try:
        made.running.wait(TIMEOUT)
    finally:
        made.running.kill()
        made.running.communicate()


async def test_the_sdks_client_over_stdio() -> None:
    program = "from plait import MCPServer; MCPServer('s', tools=[{'name': 'hi', 'func': lambda: 'ho'}]).run()"
    environment = {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    parameters = StdioServerParameters(command=sys.executable, args=["-c", program], env=environment)
    async with Client(parameters, read_timeout_seconds=TIMEOUT) as client:
        assert text(await client.call_tool("hi")) == "ho"


def test_stdout_belongs_to_the_protocol_and_stdin_too(process: Process) -> None:
    process.greet()
    process.call(1, "noisy")
    assert process.receive()["result"]["content"] == [{"type": "text", "text": "input read ''"}]
    code, out, err = process.end()
    assert (code, out) == (0, "after\n")  # it is given back
    assert sorted(err.splitlines()) == ["printed by a tool", "said by a child", "written by a tool"]


@pytest.mark.fault("S13")
def test_lines_that_are_no_messages_get_bounded_errors_and_the_rest_goes_on(process: Process) -> None:
    process.greet()
    bombs = [
        (b"junk", types.PARSE_ERROR),
        (b"[" * 100_000, types.PARSE_ERROR),
        (b'{"a":' * 100_000, types.PARSE_ERROR),
        (b"1" * 100_000, types.PARSE_ERROR),
        (b"{}", types.INVALID_REQUEST),
        (b"\xff\xfe", types.PARSE_ERROR),
        (b'{"jsonrpc":"2.0","id":81.5,"method":"ping"}', types.INVALID_REQUEST),
        (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', types.INVALID_REQUEST),
        (b'{"jsonrpc":"2.0","id":true,"method":"ping"}', types.INVALID_REQUEST),
        (b'{"jsonrpc":"2.0","\\u0069d":[],"method":"notifications/initialized"}', types.INVALID_REQUEST),
        (b'"' + b"x" * 5_000_000 + b'"', types.INVALID_REQUEST),
    ]
    for bomb, code in bombs:
        process.send(bomb, b"")
        answer = process.receive()
        assert (answer["id"], answer["error"]["code"]) == (None, code), bomb[:20]
        assert len(json.dumps(answer)) < 300
    number = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"noisy","arguments":{"a":%b}}}'
    for many in (b"1e999", b"9" * 5000, b"[" * 150 + b"]" * 150):
        process.send(number % many)
        answer = process.receive()
        assert "error" in answer or answer["result"]["isError"], many[:20]
        assert len(json.dumps(answer)) < 500
    process.send({"jsonrpc": "2.0", "id": 2, "method": "ping"})
    assert process.receive() == {"jsonrpc": "2.0", "id": 2, "result": {}}


def test_half_a_surrogate_pair_ends_nothing(process: Process, tmp_path: Path) -> None:
    process.greet()
    mark = tmp_path / "mark"
    process.call(1, "wait", mark=str(mark))
    process.call(2, "halves")
    log, answer = process.receive(), process.receive()
    assert log["params"]["data"] == {"\N{REPLACEMENT CHARACTER}": ["a \N{REPLACEMENT CHARACTER}"]}
    said = '{"half": "\\ud83d"} \N{GRINNING FACE}'
    assert answer["result"]["content"] == [{"type": "text", "text": said}]
    process.send({"jsonrpc": "2.0", "id": 3, "method": "ping"})
    assert process.receive() == {"jsonrpc": "2.0", "id": 3, "result": {}}
    assert not (tmp_path / "mark.ended").exists()  # the other call goes on


def test_an_answer_that_cannot_be_written_is_an_error() -> None:
    bad = types.JSONRPCResponse(jsonrpc="2.0", id=7, result={"a": "\ud83d"})
    assert json.loads(_written(bad)) == {
        "jsonrpc": "2.0",
        "id": 7,
        "error": {"code": types.INTERNAL_ERROR, "message": "the answer has no form in JSON"},
    }
    assert _written(types.JSONRPCNotification(jsonrpc="2.0", method="a", params={"a": "\ud83d"})) == b""


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("ending", ["eof", "sigterm", "ctrl-c"])
async def test_every_end_ends_the_process_with_nothing_left(process: Process, ending: str, tmp_path: Path) -> None:
    process.greet()
    mark = tmp_path / "mark"
    process.call(1, "wait", mark=str(mark))
    process.call(2, "block", mark=str(tmp_path / "blocking"))
    await until(lambda: mark.exists() and mark.read_text() != "" and (tmp_path / "blocking").exists())
    if ending == "eof":
        process.hang_up()
    else:
        process.running.send_signal(signal.SIGTERM if ending == "sigterm" else signal.SIGINT)
    code, out, err = await asyncio.to_thread(process.end)
    assert err == ""
    assert code == 0
    assert out.splitlines()[-1] == "after"
    assert (tmp_path / "mark.ended").exists()
    assert not _is_running(int(mark.read_text()))


def test_a_host_that_does_not_read_and_goes_away(process: Process) -> None:
    process.greet()
    for number in range(2000):
        process.send({"jsonrpc": "2.0", "id": number, "method": "tools/list"})
    process.stdout.close()
    assert process.running.stderr is not None
    with suppress(BrokenPipeError):
        while process.running.poll() is None:
            process.send({"jsonrpc": "2.0", "id": 1, "method": "tools/list"})
    process.running.wait(TIMEOUT)
    said = process.running.stderr.read().decode()
    assert said.splitlines()[-1] == "BrokenPipeError: [Errno 32] Broken pipe"  # of the program's own print
    assert "plait" not in said


def test_stdin_and_stdout_are_served_once_at_a_time(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(TWICE)
    done = subprocess.run(
        [sys.executable, str(program)], input="", check=False, capture_output=True, text=True, timeout=TIMEOUT
    )
    said = "stdin and stdout are being served already, and there is one host at them; serve others over HTTP"
    assert (done.stdout, done.stderr, done.returncode) == (f"[None, '{said}']\nagain\n", "", 0)


TWICE = """
import asyncio
from plait import MCPServer

server = MCPServer("twice")

async def main():
    done = await asyncio.gather(server.serve_stdio(), server.serve_stdio(), return_exceptions=True)
    print([one and str(one) for one in done])

asyncio.run(main())
server.run()
print("again")
"""


def test_a_file_of_requests_as_stdin(tmp_path: Path) -> None:
    requests = tmp_path / "requests"
    initialize = {
        "jsonrpc": "2.0",
        "id": 0,
        "method": "initialize",
        "params": {
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": {"name": "t", "version": "1"},
        },
    }
    requests.write_text(json.dumps(initialize))  # with no end of line
    answers = tmp_path / "answers"
    program = "from plait import MCPServer; MCPServer('file').run()"
    with requests.open() as source, answers.open("w") as sink:
        subprocess.run([sys.executable, "-c", program], stdin=source, stdout=sink, check=True, timeout=TIMEOUT)
    assert json.loads(answers.read_text())["result"]["serverInfo"]["name"] == "file"
