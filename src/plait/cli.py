"""The command ``plait``: try it (`demo`), talk (`chat`), ask once (`run`)."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress
from typing import Annotated, Any

import typer

from plait.agent import Agent
from plait.demo import demo as run_demo
from plait.errors import PlaitError
from plait.run import StopSignal
from plait.terminal import View, printable

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="LLM agents that stream, stop, resume and remember.",
    epilog="Keys come from the environment (OPENAI_API_KEY, OPENROUTER_API_KEY); --provider offline needs none.",
)

ProviderOption = Annotated[
    str | None,
    typer.Option("--provider", "-p", help="openai, openrouter, ollama or offline, or with the model: openai:gpt-4o."),
]
ModelOption = Annotated[str | None, typer.Option("--model", "-m", help="The model; else the provider's default.")]
BaseUrlOption = Annotated[str | None, typer.Option("--base-url", help="Where a compatible server is.")]
RoleOption = Annotated[str, typer.Option("--role", help="Who the agent is.")]
ToolOption = Annotated[
    list[str] | None, typer.Option("--tool", "-t", help="A ready-made tool: calculate, get_current_time. Repeatable.")
]
ThreadOption = Annotated[str | None, typer.Option("--thread", help="Continue or start the stored thread of this name.")]
StoreOption = Annotated[
    str | None, typer.Option("--store", help="Where threads are kept; else PLAIT_STORE, else sqlite:///plait.db.")
]

DEFAULT_ROLE = "You are a helpful assistant. Answer briefly."


@app.command()
def demo() -> None:
    """Show what plait does: two tools at once, a streamed answer, and a memory that outlives the process.

    Needs no key: without one, the offline provider answers.
    """
    run_demo()


@app.command()
def run(  # noqa: PLR0917  # typer calls it by keyword
    prompt: Annotated[str, typer.Argument(help="What to ask; '-' reads it from standard input.")],
    provider: ProviderOption = None,
    model: ModelOption = None,
    base_url: BaseUrlOption = None,
    role: RoleOption = DEFAULT_ROLE,
    tool: ToolOption = None,
    thread: ThreadOption = None,
    store: StoreOption = None,
) -> None:
    """Ask once, and show the run: text as it comes, tool calls with their times, tokens."""
    agent = _agent(provider=provider, model=model, base_url=base_url, role=role, tools=tool, store=store)
    text = sys.stdin.read() if prompt == "-" else prompt
    reason = asyncio.run(_ask(agent, text, thread))
    if reason != "response":
        raise typer.Exit(3)


@app.command()
def chat(  # noqa: PLR0917  # typer calls it by keyword
    provider: ProviderOption = None,
    model: ModelOption = None,
    base_url: BaseUrlOption = None,
    role: RoleOption = DEFAULT_ROLE,
    tool: ToolOption = None,
    thread: ThreadOption = None,
    store: StoreOption = None,
) -> None:
    """Talk with an agent. Ctrl-C stops an answer, Ctrl-D or /exit ends, /new begins anew."""
    agent = _agent(
        provider=provider, model=model, base_url=base_url, role=role, tools=tool, store=store if thread else "memory://"
    )
    _talk(agent, thread or "chat")


def _agent(
    *,
    provider: str | None,
    model: str | None,
    base_url: str | None,
    role: str,
    tools: list[str] | None,
    store: str | None,
) -> Agent[Any, Any]:
    return Agent(role=role, provider=provider, model=model, base_url=base_url, tools=tools, store=store)


async def _ask(agent: Agent[Any, Any], prompt: str, thread: str | None) -> str:
    """Show one run; Ctrl-C stops it, and what was said stays in the thread."""
    view, stop = View(), StopSignal()
    loop = asyncio.get_running_loop()
    with suppress(NotImplementedError):  # Windows has no signal handlers in the loop; there Ctrl-C cancels the run
        loop.add_signal_handler(signal.SIGINT, stop.set)
    try:
        run = agent.run(prompt, thread=thread, stop=stop)
        await view.show(run.batches())
        result = await run
    finally:
        with suppress(NotImplementedError):
            loop.remove_signal_handler(signal.SIGINT)
    view.finish(result)
    return result.stop_reason


def _talk(agent: Agent[Any, Any], thread: str) -> None:
    """Read a line, answer it, until the end of the input."""
    typer.echo(f"Talking with {agent.provider.name}:{agent.provider.model}. /new begins anew, /exit or Ctrl-D ends.")
    turns = 0
    while True:
        try:
            line = input("\n> " if sys.stdin.isatty() else "").strip()
        except (EOFError, KeyboardInterrupt):
            typer.echo()
            return
        if line == "/exit":
            return
        if line == "/new":
            turns += 1
            typer.echo("A new thread begins.")
        elif line:
            try:
                asyncio.run(_ask(agent, line, thread if turns == 0 else f"{thread}-{turns}"))
            except PlaitError as error:  # one failed answer does not end the talk
                _say(error)


def _say(what: object) -> None:
    typer.secho(f"plait: {printable(str(what))}", err=True, fg=typer.colors.RED)


def main() -> None:
    """Run the command; an error is one sentence, never a traceback (set PLAIT_DEBUG to see it)."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output is gone, as with `plait run ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except PlaitError as error:
        _say(error)
        sys.exit(1)
    except Exception as error:
        if os.environ.get("PLAIT_DEBUG"):
            raise
        _say(f"something unexpected went wrong ({type(error).__name__}: {error}); set PLAIT_DEBUG=1 for more")
        sys.exit(1)


if __name__ == "__main__":
    main()
