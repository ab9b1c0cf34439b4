"""The command ``plait``: try it (`demo`), ask once (`run`), talk (`chat`).

Owns options, exit codes, signals and the sentences for errors. What a run looks like is `plait.terminal`'s business.
The library is imported when a command needs it, so that help and usage errors come at once.
"""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import sys
import threading
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple, cast

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from collections.abc import Iterator

    from plait.agent import Agent
    from plait.messages import Message
    from plait.run import StopSignal
    from plait.streams import AgentRun
    from plait.terminal import View

FAILED: Final = 1
MISUSED: Final = 2
ENDED_EARLY: Final = 3
INTERRUPTED: Final = 128 + 2  # as shells say it of a process that SIGINT ended
PIPE_CLOSED: Final = 128 + 13
_CLOSING_SECONDS: Final = 2.0

_HELP: Final = """LLM agents that stream, stop, resume and remember.

\b
  plait demo                           needs no key
  plait run "Why is the sky blue?"     needs a key, or --provider offline
  plait chat --thread diary            goes on another day
"""
_EPILOG: Final = """\b
Keys come from the environment: OPENAI_API_KEY, ANTHROPIC_API_KEY, OPENROUTER_API_KEY.

\b
Exit codes:
  0    answered
  1    an error; one sentence on standard error says which
  2    wrong usage or settings; nothing was sent
  3    ended early: by a limit, or by Ctrl-C, which keeps what was said
  130  Ctrl-C at the prompt, or a second one during an answer

\b
PLAIT_DEBUG=1 shows where an error comes from. NO_COLOR=1 takes colours out.
"""


class _Group(TyperGroup):
    """Lets the end of our reader pass to `main`: Typer would take it for an error."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise _PipeClosedError from error


class _PipeClosedError(Exception):
    """Whoever read our output is gone, as with ``plait run ... | head``."""


class _UsageError(Exception):
    """The command was called wrongly, or its settings are; nothing was sent."""


app = typer.Typer(
    cls=_Group,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

ProviderOption = Annotated[
    str | None,
    typer.Option(
        "--provider",
        "-p",
        metavar="NAME",
        help="openai, anthropic, openrouter, ollama, offline, ...; also with the model: openai:gpt-4o. Without it: "
        "whose key is set.",
    ),
]
ModelOption = Annotated[
    str | None, typer.Option("--model", "-m", metavar="NAME", help="The model; else the provider's default.")
]
BaseUrlOption = Annotated[
    str | None, typer.Option("--base-url", metavar="URL", help="Where a server is that speaks the provider's dialect.")
]
RoleOption = Annotated[str, typer.Option("--role", metavar="TEXT", help="Who the agent is.")]
ToolOption = Annotated[
    list[str] | None,
    typer.Option("--tool", "-t", metavar="NAME", help="A ready-made tool: calculate, get_current_time. Repeatable."),
]
McpOption = Annotated[
    list[str] | None,
    typer.Option(
        "--mcp",
        metavar="SERVER",
        help="An MCP server, whose tools the agent has: its URL, or the command that starts it, in quotes. Repeatable.",
    ),
]
ThreadOption = Annotated[
    str | None, typer.Option("--thread", metavar="NAME", help="Go on with the stored thread of this name, or begin it.")
]
StoreOption = Annotated[
    str | None,
    typer.Option("--store", metavar="URL", help="Where threads are kept; else PLAIT_STORE, else sqlite:///plait.db."),
]
AttachOption = Annotated[
    list[str] | None,
    typer.Option("--attach", "-a", metavar="FILE", help="A file to send along: an image, a PDF, sound. Repeatable."),
]
RecordOption = Annotated[
    str | None,
    typer.Option(
        "--record", metavar="FILE", help="Append what is asked and answered; --provider replay:FILE plays it."
    ),
]
VerboseOption = Annotated[
    bool, typer.Option("--verbose", "-v", help="Show what happens inside, line by line, on standard error.")
]

DEFAULT_ROLE: Final = "You are a helpful assistant. Answer briefly."


@app.callback(invoke_without_command=True, help=_HELP, epilog=_EPILOG)
def _plait(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,  # noqa: FBT002
) -> None:
    if version:
        from importlib.metadata import version as version_of

        typer.echo(f"plait {version_of('plait')}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(MISUSED)


@app.command(short_help="See it work, without a key or a network.")
def demo() -> None:
    """See it work: two tools at once, a streamed answer, and a memory that outlives the process.

    Needs no key: without one, the offline provider answers.
    """
    from plait.demo import demo as show

    raise typer.Exit(show())


@app.command(epilog=_EPILOG)
def run(  # noqa: PLR0917  # typer calls it by keyword
    prompt: Annotated[
        str | None, typer.Argument(help="What to ask; '-' reads it from standard input.", show_default=False)
    ] = None,
    attach: AttachOption = None,
    provider: ProviderOption = None,
    model: ModelOption = None,
    base_url: BaseUrlOption = None,
    role: RoleOption = DEFAULT_ROLE,
    tool: ToolOption = None,
    mcp: McpOption = None,
    thread: ThreadOption = None,
    store: StoreOption = None,
    record: RecordOption = None,
    resume: Annotated[  # noqa: FBT002
        bool, typer.Option("--resume", help="Go on with the thread's last run: after a crash, a failure or a stop.")
    ] = False,
    verbose: VerboseOption = False,  # noqa: FBT002
) -> None:
    """Ask once.

    The answer goes to standard output, tool calls and the rest to standard error: > and | get the answer alone.
    """
    from plait.errors import NothingToResume
    from plait.talk import shown

    if resume and (prompt is not None or thread is None):
        msg = "--resume goes on with a stored thread: give it --thread NAME, and no prompt"
        raise _UsageError(msg)
    if not resume and prompt is None:
        msg = "there is no prompt: give one, or '-' to read it from standard input"
        raise _UsageError(msg)
    if resume and attach:
        msg = "--attach goes with a prompt, and --resume goes on without one"
        raise _UsageError(msg)
    said = "" if prompt is None else _with_files(_prompt(prompt), attach or [])
    asked = _Asked(provider, model, base_url, record)
    agent = _agent(asked, role=role, tools=tool, servers=mcp, thread=thread, store=store)
    view = _view(hold=bool(tool or mcp) and not sys.stdout.isatty(), verbose=verbose)

    def begin(stop: StopSignal) -> AgentRun[Any]:
        return agent.resume(thread, stop=stop) if resume else agent.run(said, thread=thread, stop=stop)

    try:
        with _runner() as runner:
            result = runner.run(shown(begin, view))
    except NothingToResume as error:
        msg = f"thread {thread!r} holds no run that could go on; give a prompt in place of --resume"
        raise _UsageError(msg) from error
    raise typer.Exit(0 if result.stop_reason == "response" else ENDED_EARLY)


@app.command(epilog=_EPILOG)
def chat(  # noqa: PLR0917  # typer calls it by keyword
    provider: ProviderOption = None,
    model: ModelOption = None,
    base_url: BaseUrlOption = None,
    role: RoleOption = DEFAULT_ROLE,
    tool: ToolOption = None,
    mcp: McpOption = None,
    thread: ThreadOption = None,
    store: StoreOption = None,
    record: RecordOption = None,
    verbose: VerboseOption = False,  # noqa: FBT002
) -> None:
    """Talk with an agent.

    It remembers what was said; with --thread, also the next time. Ctrl-C stops an answer, /help lists the commands.
    """
    from plait.talk import Talk

    asked = _Asked(provider, model, base_url, record)
    agent = _agent(asked, role=role, tools=tool, servers=mcp, thread=thread, store=store)
    with _runner() as runner:
        ending = Talk(agent, thread, _view(verbose=verbose), runner).hold()
    raise typer.Exit({"answered": 0, "early": ENDED_EARLY, "failed": FAILED, "interrupted": INTERRUPTED}[ending])


@contextmanager
def _runner() -> Iterator[asyncio.Runner]:
    """Give an event loop, and close it; what will not end when it is cancelled is left behind with the process."""
    closing = threading.Timer(_CLOSING_SECONDS, _leave)
    closing.daemon = True
    try:
        with asyncio.Runner() as runner:
            try:
                yield runner
            finally:
                closing.start()
    finally:
        closing.cancel()


def _leave() -> None:
    _say(None, "something that was cut off does not end; the process ends without it")
    os._exit(INTERRUPTED)


def _prompt(given: str) -> str:
    if given == "-":
        if sys.stdin.isatty():
            typer.echo("Type the prompt; Ctrl-D on an empty line ends it.", err=True)
        try:
            if isinstance(sys.stdin, TextIOWrapper):
                sys.stdin.reconfigure(errors="strict")
            given = sys.stdin.read()
        except UnicodeDecodeError as error:
            msg = f"the prompt on standard input is no {error.encoding.upper()} text"
            raise _UsageError(msg) from error
    if not given.strip():
        msg = "the prompt is empty"
        raise _UsageError(msg)
    return given


def _with_files(text: str, files: list[str]) -> str | Message:
    if not files:
        return text
    from plait.attachments import attachment
    from plait.errors import ConfigurationError
    from plait.messages import UserMessage

    try:
        return UserMessage(text=text, parts=[attachment(file) for file in files])
    except ConfigurationError as error:
        raise _UsageError(str(error)) from error


class _Asked(NamedTuple):
    """Who is asked, in the words of the command line."""

    provider: str | None
    model: str | None
    base_url: str | None
    record: str | None


def _agent(
    asked: _Asked,
    *,
    role: str,
    tools: list[str] | None,
    servers: list[str] | None,
    thread: str | None,
    store: str | None,
) -> Agent[Any, Any]:
    from plait.agent import Agent
    from plait.errors import ConfigurationError, CorruptRecord
    from plait.providers.catalog import get_provider
    from plait.store.memory import MemoryStore

    if store is not None and thread is None:
        msg = "--store says where threads are kept: give it --thread NAME too"
        raise _UsageError(msg)
    try:
        return Agent(
            role=role,
            provider=get_provider(asked.provider, model=asked.model, base_url=asked.base_url, record_to=asked.record),
            tools=tools,
            mcp_servers=[_server(said) for said in servers or ()],
            store=store if thread is not None else MemoryStore(),
        )
    except (ConfigurationError, CorruptRecord) as error:
        raise _UsageError(_in_options(str(error))) from error


def _server(said: str) -> str | list[str]:
    """Read an MCP server: an address, or a command as a shell would read it."""
    if said.startswith(("http://", "https://")):
        return said
    try:
        return shlex.split(said)
    except ValueError as error:
        msg = f"--mcp {said!r} is no command that can be read ({error}); write it as in a shell"
        raise _UsageError(msg) from error


def _in_options(sentence: str) -> str:
    """Say in the command's words what the library says in Python's."""
    sentence = re.sub(r"provider='(\w+)' with api_key=\.\.\.,? ?(or )?", "", sentence)
    sentence = re.sub(r",? or pass the key", "", sentence)
    sentence = sentence.replace("api_key or ", "").replace("record_to=...", "--record FILE")
    sentence = re.sub(r"\b(provider|model|base_url)=(?=['\"])", lambda found: f"--{_dashed(found[1])} ", sentence)
    return re.sub(r"\bbase_url\b", "--base-url", sentence)


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def _view(*, hold: bool = False, verbose: bool = False) -> View:
    from plait.terminal import View

    view = View(sys.stdout, sys.stderr, live=not verbose, hold=hold)
    if verbose:
        show_records(view)
    return view


def show_records(view: View) -> None:
    """Show the records of plait's loggers on standard error, one line each."""
    import logging

    from plait.screen import one_line

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            line = f"{self.format(record)} {one_line(record.getMessage(), 2_000)}"
            with suppress(OSError, ValueError):  # nobody listens any more
                if threading.current_thread() is threading.main_thread():
                    view.aside(line)
                else:
                    sys.stderr.write(f"{line}\n")
                    sys.stderr.flush()

    lines = Lines()
    lines.setFormatter(logging.Formatter("%(asctime)s.%(msecs)03d %(levelname)s %(name)s:", "%H:%M:%S"))
    logger = logging.getLogger("plait")
    logger.setLevel(logging.DEBUG)
    logger.addHandler(lines)


def _say(error: BaseException | None, sentence: str | None = None) -> None:
    from plait.screen import show_error

    show_error(error, _in_options(str(error)) if sentence is None and error is not None else sentence)


def _code(arguments: list[str] | None) -> int:
    """Run the command and give its exit code; an error becomes one sentence."""
    from plait.errors import ConfigurationError, PlaitError

    # UsageError, which Typer takes from Click or brings itself, according to its version.
    misuse = cast("type[Exception]", typer.BadParameter.__mro__[1])
    try:
        return int(app(arguments, prog_name="plait", standalone_mode=False) or 0)
    except misuse as error:
        context = getattr(error, "ctx", None)
        where = context.command_path if context is not None else "plait"
        said = getattr(error, "format_message", error.__str__)()
        _say(error, f"{said[:1].lower()}{said[1:].rstrip('.')}; '{where} --help' shows the usage")
        return MISUSED
    except (_UsageError, ConfigurationError) as error:
        _say(error)
        return MISUSED
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except _PipeClosedError:
        return PIPE_CLOSED
    except PlaitError as error:
        _say(error)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        _say(error, f"the system refused: {error.strerror or error}{where}")
    except Exception as error:  # noqa: BLE001  # a mistake of ours is said in one sentence, too
        _say(error, f"something unexpected went wrong ({type(error).__name__}: {error}); PLAIT_DEBUG=1 shows where")
    return FAILED


def _sound_streams() -> None:
    """Make the standard streams usable: open where they were closed, and never failing at a sign they do not have."""
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:  # the number is free: the next file opened would get it, a database for example
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
            setattr(sys, name, open(number, mode, encoding="utf-8"))  # noqa: SIM115, PTH123  # as long as the process
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")


def main(arguments: list[str] | None = None) -> None:
    """Run the command ``plait``; ends the process with its exit code.

    Args:
        arguments: those after the command's name; else the process's own.
    """
    _sound_streams()
    code = _code(arguments)
    lost = code == PIPE_CLOSED
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError as error:
        code = code or (PIPE_CLOSED if isinstance(error, BrokenPipeError) else FAILED)
        lost = True
    if lost:  # what is left to write cannot be written, and Python would try it once more when the process ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.exit(code)


if __name__ == "__main__":
    main()
