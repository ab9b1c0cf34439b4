from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from plait import __version__
from plait.cli import main
from terminals import WITHIN, Terminal, screen, steady

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PLAIT = [sys.executable, "-m", "plait.cli"]
OFFLINE = ["--provider", "offline"]
TALKING = "Talking with offline. /help lists the commands, Ctrl-D ends."
PROGRAM = '''
import asyncio
import plait.agent
import plait.cli
import plait.talk
from plait import OfflineProvider, register_tool
from plait.cli import main

async def wait(seconds: int) -> str:
    """Wait."""
    await asyncio.sleep(seconds / 10)
    return "done"

async def stubborn() -> str:
    """Does not let itself be stopped."""
    for _ in range(200):
        try:
            await asyncio.sleep(0.1)
        except asyncio.CancelledError:
            print("no", flush=True)
    return "done"

register_tool(wait)
register_tool(stubborn)
plait.cli._CLOSING_SECONDS = 0.5
plait.talk._SLOW_FINGER = 60.0
plait.agent.get_provider = lambda *given, **more: OfflineProvider(delay=0.05)
main()
'''


class Done(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def plait(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Runner:
    return Runner(capsys, monkeypatch)


class Runner:
    """Runs the command in this process, without a terminal."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._capsys = capsys
        self._monkeypatch = monkeypatch

    def __call__(self, *arguments: str, given: str | bytes = "") -> Done:
        raw = given.encode() if isinstance(given, str) else given
        self._monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw), encoding="utf-8"))
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        assert isinstance(ended.value.code, int)
        out, err = self._capsys.readouterr()
        return Done(ended.value.code, out, steady(err))


def process(*arguments: str, given: str = "", **options: object) -> Done:
    """Run the command in a process of its own, without a terminal."""
    done = subprocess.run(
        [*PLAIT, *arguments],
        input=given,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=WITHIN,
        check=False,
        **options,  # type: ignore[call-overload]  # environment and the like
    )
    return Done(done.returncode, done.stdout, steady(done.stderr))


@pytest.fixture
def slow(tmp_path: Path) -> list[str]:
    """The command with tools that take their time, and an offline provider that speaks slowly."""
    path = tmp_path / "slow.py"
    path.write_text(PROGRAM, encoding="utf-8")
    return [sys.executable, str(path)]


def shown(terminal: Terminal) -> list[str]:
    return steady("\n".join(screen(terminal.written))).splitlines()


# --- usage -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [(), ("run",), ("chat",)])
def test_help_says_options_keys_and_exit_codes(plait: Runner, command: Sequence[str]) -> None:
    done = plait(*command, "--help")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"Usage: plait {' '.join([*command, '[OPTIONS]'])}")
    assert "OPENAI_API_KEY, ANTHROPIC_API_KEY, OPENROUTER_API_KEY" in done.out
    assert [line.split()[0] for line in done.out.split("Exit codes:\n")[1].splitlines()[:5]] == [
        "0",
        "1",
        "2",
        "3",
        "130",
    ]
    assert plait(*command, "-h") == done


def test_examples_in_the_help_keep_their_lines(plait: Runner) -> None:
    lines = [line.strip() for line in plait("--help").out.splitlines()]
    assert [line.split("  ")[0] for line in lines if line.startswith("plait ")] == [
        "plait demo",
        'plait run "Why is the sky blue?"',
        "plait chat --thread diary",
    ]


def test_version(plait: Runner) -> None:
    assert plait("--version") == (0, f"plait {__version__}\n", "")


def test_nothing_asked_for_shows_the_help_and_is_an_error(plait: Runner) -> None:
    done = plait()
    assert (done.code, done.out) == (2, "")
    assert done.err == plait("--help").out


def test_help_is_cheap() -> None:
    code = "import sys, plait.cli\ntry: plait.cli.main(['run', '--help'])\nexcept SystemExit: print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=WITHIN, check=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    heavy = {"aiohttp", "sqlalchemy", "alembic", "anyio", "plait.agent", "plait.screen", "plait.terminal"}
    assert loaded & heavy == set()
    assert "plait.cli" in loaded


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["run"], "there is no prompt: give one, or '-' to read it from standard input"),
        (["run", "", *OFFLINE], "the prompt is empty"),
        (["run", " \n", *OFFLINE], "the prompt is empty"),
        (["run", "-", *OFFLINE], "the prompt is empty"),
        (["run", "hi", "--resume"], "--resume goes on with a stored thread: give it --thread NAME, and no prompt"),
        (["run", "--resume"], "--resume goes on with a stored thread: give it --thread NAME, and no prompt"),
        (["run", "hi", "--store", "sqlite:///x.db"], "--store says where threads are kept: give it --thread NAME too"),
        (["chat", "--store", "sqlite:///x.db"], "--store says where threads are kept: give it --thread NAME too"),
        (["frob"], "no such command 'frob'; 'plait --help' shows the usage"),
    ],
)
def test_wrong_usage(plait: Runner, arguments: list[str], sentence: str) -> None:
    assert plait(*arguments) == (2, "", f"plait: {sentence}\n")


@pytest.mark.parametrize(
    ("arguments", "beginning"),
    [
        (["run", "hi"], "no provider is named and no key is set: set OPENAI_API_KEY, ANTHROPIC_API_KEY or OPEN"),
        (["run", "hi", "-p", "openai"], "provider 'openai' needs a key: set OPENAI_API_KEY"),
        (["chat", "-p", "opnai"], "there is no provider 'opnai'"),
        (["run", "hi", *OFFLINE, "-t", "calc"], "there is no tool 'calc'"),
        (["run", "hi", *OFFLINE, "--thread", "x", "--store", "x.db"], "'x.db' is no URL of a store; for a file"),
        (["run", "hi", "--base-url", "nonsense"], "'nonsense' is no address"),
        (["run", "hi", "there"], "got unexpected extra argument"),
        (["run", "hi", "--provider"], "option '--provider' requires an argument"),
        (["run", "hi", "--bogus"], "no such option: --bogus"),
    ],
)
def test_wrong_settings(plait: Runner, arguments: list[str], beginning: str) -> None:
    done = plait(*arguments)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert done.err.startswith(f"plait: {beginning}")
    assert "api_key=" not in done.err
    assert "provider=" not in done.err


# --- run -------------------------------------------------------------------------------------------------------------


def test_run_gives_the_answer_alone_on_standard_output(plait: Runner) -> None:
    assert plait("run", "What is 17 * 23?", *OFFLINE, "--tool", "calculate") == (
        0,
        "calculate says: 391\n",
        "  ✓ calculate(expression='17 * 23') → 391  _ s\n  offline answered · 2 turns · _ tokens · _ s\n",
    )


def test_run_reads_standard_input(plait: Runner) -> None:
    done = plait("run", "-", *OFFLINE, given="two\nlines ä 日本\n")
    assert (done.code, done.out) == (0, "You said: two\nlines ä 日本\n")


def test_a_run_is_recorded_and_played_again(plait: Runner, tmp_path: Path) -> None:
    file = str(tmp_path / "tape.jsonl")
    again = ("-p", f"replay:{file}")
    first = plait("run", "Say hello", *OFFLINE, "--record", file)
    assert (first.code, first.out) == (0, "You said: Say hello\n")
    assert plait("run", "Say hello", *again)[:2] == (0, "You said: Say hello\n")
    other = plait("run", "Say good night", *again)
    assert (other.code, other.out, other.err.count("\n")) == (1, "", 1)
    assert "Say hello" in other.err
    assert "Say good night" in other.err
    lost = plait("run", "hi", "-p", "replay:nowhere.jsonl")
    assert (lost.code, lost.out, lost.err.count("\n")) == (2, "", 1)
    assert "nowhere.jsonl" in lost.err
    lost = plait("run", "hi", *OFFLINE, "--record", "no/such/folder/tape.jsonl")
    assert (lost.code, lost.out, lost.err.count("\n")) == (2, "", 1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "hi", "-p", "replay:nowhere.jsonl"], "--record FILE makes one"),
        (["run", "hi", "-p", "ollama:m", "--base-url", "http://127.0.0.1:1"], "correct OLLAMA_HOST or --base-url"),
        (["run", "hi", "-p", "openai:m", "--base-url", "http://127.0.0.1:1"], "and --base-url if you gave one"),
    ],
)
def test_errors_are_in_the_commands_words(plait: Runner, arguments: list[str], words: str) -> None:
    done = plait(*arguments)
    assert (done.code != 0, done.out, done.err.count("\n")) == (True, "", 1)
    assert words in done.err
    assert "base_url" not in done.err
    assert "record_to" not in done.err


def test_files_go_along_with_a_prompt(plait: Runner, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("hello")
    tape = tmp_path / "tape.jsonl"
    done = plait("run", "Read this", *OFFLINE, "-a", str(tmp_path / "a.txt"), "--record", str(tape))
    assert (done.code, done.out) == (0, "You said: Read this\n")
    (exchange,) = map(json.loads, tape.read_text("utf-8").splitlines()[-1:])
    (parts,) = [message["parts"] for message in exchange["request"]["messages"] if message["role"] == "user"]
    assert [part["type"] for part in parts] == ["text", "file"]
    for arguments, sentence in (
        (("run", "hi", "-a", "nowhere.png"), "the attachment, the file 'nowhere.png', cannot be read: no such file or"),
        (("run", "--resume", "--thread", "t", "-a", "x"), "--attach goes with a prompt, and --resume goes on without"),
    ):
        lost = plait(*arguments)
        assert (lost.code, lost.out, lost.err.count("\n")) == (2, "", 1)
        assert lost.err.startswith(f"plait: {sentence}")


MCP_SERVER = """
from plait import MCPServer

def tell(city: str) -> str:
    "Tell the weather."
    return f"sunny in {city}"

MCPServer("weather", tools=[tell]).run()
"""


def test_the_tools_of_an_mcp_server(plait: Runner, tmp_path: Path) -> None:
    (tmp_path / "weather.py").write_text(MCP_SERVER)
    done = plait("run", *OFFLINE, "--mcp", f"'{sys.executable}' weather.py", "What is the weather in Oslo?")
    assert (done.code, done.out) == (0, "weather_tell says: sunny in Oslo\n")
    assert "weather_tell(city='Oslo') → sunny in Oslo" in done.err


@pytest.mark.parametrize(
    ("server", "code", "words"),
    [
        ("http://127.0.0.1:1/mcp", 1, "the MCP server '127_0_0_1_1' cannot be used: http://127.0.0.1:1/mcp cannot be"),
        ("no-such-program", 1, "cannot be used: the program 'no-such-program' cannot be started"),
        ("'open", 2, """--mcp "'open" is no command that can be read (No closing quotation)"""),
    ],
)
def test_what_is_no_mcp_server_is_said(plait: Runner, server: str, code: int, words: str) -> None:
    done = plait("run", *OFFLINE, "--mcp", server, "hello")
    assert (done.code, done.out, done.err.count("\n")) == (code, "", 1)
    assert words in done.err


def test_run_refuses_what_is_no_text(plait: Runner) -> None:
    done = plait("run", "-", *OFFLINE, given=b"\x89PNG\xff")
    assert done == (2, "", "plait: the prompt on standard input is no UTF-8 text\n")


def test_run_with_a_very_long_line(plait: Runner) -> None:
    line = "word " * 20_000
    assert plait("run", "-", *OFFLINE, given=line).out == f"You said: {line}\n"


def test_control_characters_of_the_model_are_shown_not_sent(plait: Runner) -> None:
    assert plait("run", "\x1b[2J\x07 tab\t日本 👨‍👩‍👧", *OFFLINE).out == "You said: ␛[2J␇ tab\t日本 👨‍👩‍👧\n"


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    """A server that always gives this answer; gives its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(status)
            self.send_header("content-type", "text/event-stream" if status == 200 else "application/json")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("status", [401, 404])
def test_an_error_of_the_server_is_one_sentence(plait: Runner, status: int) -> None:
    body = json.dumps({"error": {"message": "No \x1b[2J\nway"}}).encode()
    with answering(status, body) as address:
        done = plait("run", "hi", "--base-url", address)
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    assert done.err.startswith(f"plait: openai answered {status}")
    assert "\x1b" not in done.err


def test_a_broken_answer_keeps_what_came(plait: Runner) -> None:
    delta = {"choices": [{"index": 0, "delta": {"content": "Half an ans"}, "finish_reason": None}]}
    with answering(200, b"data: " + json.dumps(delta).encode() + b"\n\n") as address:
        done = plait("run", "hi", "--base-url", address)
    assert (done.code, done.out, done.err.count("\n")) == (1, "Half an ans\n", 1)
    assert done.err.startswith("plait: the stream of openai ended before the answer did")


def test_a_store_that_is_none(plait: Runner) -> None:
    Path("broken.db").write_text("no database", encoding="utf-8")
    for command in (["run", "hi"], ["chat"]):
        done = plait(*command, *OFFLINE, "--thread", "x", "--store", "sqlite:///broken.db")
        assert (done.code, done.out) == (1, "")
        assert done.err.splitlines()[-1].startswith(f"plait: '{Path('broken.db').absolute()}' is no store")
    assert Path("broken.db").read_text(encoding="utf-8") == "no database"


def test_a_folder_that_is_not_there(plait: Runner) -> None:
    done = plait("run", "hi", *OFFLINE, "--thread", "x", "--store", "sqlite:///no/such.db")
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    assert done.err.startswith("plait: the folder ")


def test_debugging_shows_the_traceback(plait: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAIT_DEBUG", "1")
    done = plait("run", "hi", "-p", "opnai")
    assert done.code == 2
    assert done.err.startswith("Traceback (most recent call last):")
    assert done.err.splitlines()[-1].startswith("plait: there is no provider 'opnai'")


def test_a_mistake_of_ours_is_one_sentence_too(plait: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plait.cli._view", lambda **_: 1 / 0)
    assert plait("run", "hi", *OFFLINE) == (
        1,
        "",
        "plait: something unexpected went wrong (ZeroDivisionError: division by zero); PLAIT_DEBUG=1 shows where\n",
    )


def test_threads_outlive_the_process_and_resume() -> None:
    name = 'odd "name" / ü 日本'
    assert process("run", "My name is Ada.", *OFFLINE, "--thread", name).out == "You said: My name is Ada.\n"
    assert process("run", "What is my name?", *OFFLINE, "--thread", name).out == "Your name is Ada.\n"
    assert process("run", "--resume", *OFFLINE, "--thread", name) == (
        0,
        "Your name is Ada.\n",
        "  nothing was asked: the last run had ended with this answer\n",
    )


def test_nothing_to_resume(plait: Runner) -> None:
    assert plait("run", "--resume", *OFFLINE, "--thread", "other", "--store", "memory://") == (
        2,
        "",
        "plait: thread 'other' holds no run that could go on; give a prompt in place of --resume\n",
    )


def test_records_are_shown_on_request() -> None:
    done = process("run", "the secret word", *OFFLINE, "--verbose")
    assert (done.code, done.out) == (0, "You said: the secret word\n")
    records = [line for line in done.err.splitlines() if "plait.run:" in line]
    assert records
    assert "secret" not in done.err


# --- streams that are closed, full or left ---------------------------------------------------------------------------


def in_shell(line: str) -> Done:
    command = f"{sys.executable} -m plait.cli"
    done = subprocess.run(
        ["bash", "-c", line.replace("plait", command, 1)], capture_output=True, text=True, timeout=WITHIN, check=False
    )
    return Done(done.returncode, done.stdout, steady(done.stderr))


@pytest.mark.parametrize(
    ("line", "code", "out", "err"),
    [
        ("plait run hi -p offline --thread t <&- >&- 2>&-", 0, "", ""),
        ("plait chat -p offline <&-", 0, "", f"{TALKING}\n"),
        ("plait run hi -p offline > /dev/full", 1, "", "plait: the system refused: No space left on device\n"),
    ],
)
def test_closed_and_full_streams(line: str, code: int, out: str, err: str) -> None:
    assert in_shell(line) == (code, out, err)


def test_a_reader_that_leaves() -> None:
    with subprocess.Popen(
        [*PLAIT, "run", "-", *OFFLINE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdin.write(b"line\n" * 50_000)
        running.stdin.close()
        assert running.stdout.readline() == b"You said: line\n"
        running.stdout.close()
        assert (running.wait(WITHIN), running.stderr.read()) == (141, b"")


def test_signs_that_the_output_does_not_have() -> None:
    done = process(
        "run", "1+1", *OFFLINE, "-t", "calculate", env={**os.environ, "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    )
    assert (done.code, done.out) == (0, "calculate says: 2\n")
    assert done.err.splitlines()[0] == "  ? calculate(expression='1+1') ? 2  _ s"


# --- chat ------------------------------------------------------------------------------------------------------------


def test_chat_from_a_pipe_remembers(plait: Runner) -> None:
    done = plait("chat", *OFFLINE, given="My name is Ada.\n\nWhat is my name?\n/new\nWhat is my name?")
    assert (done.code, done.out) == (
        0,
        "You said: My name is Ada.\nYour name is Ada.\nYou have not told me your name.\n",
    )
    assert done.err.splitlines()[:2] == [TALKING, "  offline answered · 1 turn · _ tokens · _ s"]
    assert "A new thread begins." in done.err.splitlines()


def test_chat_commands(plait: Runner) -> None:
    done = plait("chat", *OFFLINE, given="/frob\n/resume\n/help\n/etc/hosts\n/resume\n/exit\nnever read\n")
    assert (done.code, done.out) == (0, "You said: /etc/hosts\n")
    assert done.err.splitlines() == [
        TALKING,
        "There is no command '/frob'; /help lists them.",
        "There is nothing to go on with: nothing was asked yet.",
        "/new      begin a new thread",
        "/resume   go on with the last answer: after a stop, a failure or a crash",
        "/help     show this",
        "/exit     end; Ctrl-D does too",
        "Ctrl-C stops an answer and keeps what was said.",
        "  offline answered · 1 turn · _ tokens · _ s",
        "There is nothing to go on with: the last run ended with an answer.",
    ]


def test_chat_goes_on_after_a_failure_and_says_so_at_the_end(plait: Runner) -> None:
    with answering(404, b"{}") as address:
        done = plait("chat", "--base-url", address, given="hi\nho\n")
    assert (done.code, done.out) == (1, "")
    assert done.err.count("plait: openai answered 404") == 2
    assert done.err.count("/resume tries it again.") == 2


def test_chat_on_a_stored_thread_says_what_it_goes_on_with() -> None:
    first = process("chat", *OFFLINE, "--thread", "diary", given="My name is Ada.\n/new\nHo\n")
    assert first.err.splitlines()[1] == "A new thread 'diary' begins."
    assert "A new thread 'diary-2' begins." in first.err.splitlines()
    second = process("chat", *OFFLINE, "--thread", "diary", given="What is my name?\n/new\nHo\n")
    assert second.err.splitlines()[:2] == [TALKING, "Thread 'diary' goes on: 2 messages so far."]
    assert "A new thread 'diary-3' begins." in second.err.splitlines()
    assert second.out == "Your name is Ada.\nYou said: Ho\n"


# --- in a terminal ---------------------------------------------------------------------------------------------------


def test_ctrl_c_stops_an_answer_and_keeps_what_was_said(slow: list[str]) -> None:
    with Terminal.of([*slow, "run", "a b c d e f g h i j k l m n o p", *OFFLINE]) as terminal:
        terminal.expect("You said: a b")
        terminal.send("\x03")
        assert terminal.end() == 3
    lines = shown(terminal)
    assert lines[0].startswith("You said: a b")
    assert "p" not in lines[0].removeprefix("You said:")
    assert lines[1:] == ["", "  stopped · 1 turn · _ tokens · _ s"]


def test_ctrl_c_during_a_tool_leaves_no_moving_lines(slow: list[str]) -> None:
    with Terminal.of([*slow, "run", "wait 600", *OFFLINE, "-t", "wait"]) as terminal:
        terminal.expect("wait(seconds=600)")
        terminal.send("\x03")
        assert terminal.end() == 3
    assert shown(terminal) == [
        "  ✗ wait(seconds=600) → cut off  _ s",
        "  stopped · 1 turn · _ tokens · _ s",
    ]


def test_a_second_ctrl_c_cuts_off_what_will_not_stop(slow: list[str]) -> None:
    with Terminal.of([*slow, "run", "stubborn", *OFFLINE, "-t", "stubborn"]) as terminal:
        terminal.expect("stubborn()")
        terminal.send("\x03")
        terminal.expect("no")
        terminal.send("\x03")
        assert terminal.end() == 130
    assert shown(terminal)[-1] == "plait: something that was cut off does not end; the process ends without it"


def test_chat_in_a_terminal(slow: list[str]) -> None:
    with Terminal.of([*slow, "chat", *OFFLINE]) as terminal:
        terminal.expect("> ")
        terminal.send("one two three four five six seven eight\r")
        terminal.expect("You said: one")
        terminal.send("\x03")
        terminal.expect("stopped")
        terminal.expect("> ")
        terminal.press("\x03", "> ")  # meant for the answer, and late
        terminal.send("/resume\r")
        terminal.expect("seven eight")
        terminal.expect("> ")
        terminal.send("Hello\r")
        terminal.expect("Before that you said: one two three")
        terminal.expect("> ")
        terminal.send("\x1b[A\x1b[A")  # the line before the last
        terminal.expect("/resume")
        terminal.send("\x15\x04")
        assert terminal.end() == 0
    lines = shown(terminal)
    assert lines[0] == TALKING
    assert lines[2] == "> one two three four five six seven eight"


def test_ctrl_c_at_the_prompt_clears_a_line_or_ends(slow: list[str]) -> None:
    with Terminal.of([*slow, "chat", *OFFLINE]) as terminal:
        terminal.expect("> ")
        terminal.send("half a line")
        terminal.expect("half a line")
        terminal.press("\x03", "> ")
        terminal.press("\x03", "\n")
        assert terminal.end() == 130
    assert shown(terminal)[-1] == ">"


def test_ctrl_d_ends(slow: list[str]) -> None:
    with Terminal.of([*slow, "chat", *OFFLINE], columns=40) as terminal:
        terminal.expect("> ")
        terminal.send("\x04")
        assert terminal.end() == 0


def test_a_process_that_was_killed_is_named_and_its_run_resumed(slow: list[str]) -> None:
    with Terminal.of([*slow, "chat", *OFFLINE, "--thread", "diary"]) as terminal:
        terminal.expect("> ")
        terminal.send("one two three four five six seven eight\r")
        terminal.expect("You said: one")
        os.killpg(terminal.process.pid, signal.SIGKILL)
        terminal.process.wait(WITHIN)
    done = process("chat", *OFFLINE, "--thread", "diary", given="/resume\n")
    assert (done.code, done.out) == (0, "You said: one two three four five six seven eight\n")
    assert done.err == (
        f"{TALKING}\n"
        "Thread 'diary' goes on: 1 message so far.\n"
        "Its last run did not finish: its process was ended. /resume goes on with it.\n"
        "  offline answered · 1 turn · _ tokens · _ s\n"
    )


def test_an_answer_into_a_file_with_notes_in_the_terminal(slow: list[str]) -> None:
    command = f"{' '.join(slow)} run 'wait 3' -p offline -t wait > answer.txt"
    with Terminal.of(["bash", "-c", command]) as terminal:
        terminal.expect("wait(seconds=3)")
        assert terminal.end() == 0
    assert Path("answer.txt").read_text(encoding="utf-8") == "wait says: done\n"
    assert shown(terminal) == [
        "  ✓ wait(seconds=3) → done  _ s",
        "  offline answered · 2 turns · _ tokens · _ s",
    ]
