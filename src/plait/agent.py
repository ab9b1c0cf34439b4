"""`Agent`: who answers, with which model and tools. Its methods build a run and drain the loop.

`chat` and `stream` give text, `stream_output` the values that an answer grows into, `run` and `resume` a promise of
events and a `RunResult`. Knows the layers below; nothing below knows it.
"""

from __future__ import annotations

import re
from math import inf
from typing import TYPE_CHECKING, Any, Final, Generic, Self, Unpack, cast

from typing_extensions import TypeVar

from plait.builtin import READY_MADE
from plait.context.window import strategy_of
from plait.errors import ConfigurationError, NothingToResume, ToolError, excerpt
from plait.hooks import Hooks
from plait.ids import new_id
from plait.limits import budgets_of
from plait.messages import SystemMessage
from plait.open_threads import OpenThreads
from plait.options import (
    check_options,
    definition_of,
    guardrails_of,
    list_of_tools,
    messages_of,
    settings_of,
    store_of,
)
from plait.outfit import Outfit
from plait.portal import PORTAL
from plait.prices import Prices
from plait.providers.base import DEFAULT_SETTINGS
from plait.providers.catalog import get_provider
from plait.run import DEFAULT_LIMITS, DEFAULT_USER, RunLimits
from plait.schema import output_schema
from plait.streams import AgentRun, OutputStream, TextStream, result_of
from plait.threads import Thread
from plait.tools import Toolbox, as_tool, find_tools

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from plait.context.window import MemoryStrategy
    from plait.definition import AgentDefinition
    from plait.entries import Entry
    from plait.explaining import Explanation
    from plait.guardrails.guarding import Guardrails
    from plait.guardrails.judge import InjectionJudge
    from plait.hooks import Hook
    from plait.limits import BudgetLike
    from plait.loop import Run
    from plait.mcp.client.several import MCPServerForm, MCPServers
    from plait.messages import Message
    from plait.options import Prompt, RunOptions
    from plait.portal import SyncStream
    from plait.prices import PriceLike
    from plait.providers.base import Provider, Settings
    from plait.run import RunResult
    from plait.store.base import Store
    from plait.tools import FunctionTool, Tool, ToolForm

_SOON: Final = 0.001

Deps = TypeVar("Deps", default=Any)
Output = TypeVar("Output", default=str)


class Agent(Generic[Deps, Output]):
    """A model with instructions, tools and memory.

    Args:
        definition: who the agent is, as an `AgentDefinition`; or give ``role`` and what belongs to it.
        role: who the agent is, in a sentence or a page.
        name: what it is called in logs, events and results.
        provider: ``"openai"``, ``"anthropic"``, ``"ollama"``, ``"openrouter"``, ``"offline"``, together with the model
            (``"openai:gpt-4o"``), or a provider object; a list of these is a chain, in which the next one is asked when
            one fails. Without one: the provider whose key is set.
        api_key: its key; without one the provider's usual environment variable is read.
        model: the model's name; without one the provider's default. ``"openai:gpt-4o"`` names both.
        goal: what the agent is for.
        constraints: rules it keeps.
        personality: traits by name.
        tools: functions, ``@tool`` functions, `Tool` objects, dicts, or names of registered and built-in tools.
        memory_strategy: which messages of a thread are sent: ``"last_n"``, or a strategy object.
        memory_params: its parameters, such as ``{"n": 20}``.
        temperature: sent only when given.
        max_tokens: the most tokens of one answer; sent only when given.
        output: the type of the answer (a pydantic model, a dataclass, ``list[str]``, ...); text without one.
        base_url: where the provider is, for servers that speak a provider's dialect.
        store: where named threads live: a URL or a store; else ``PLAIT_STORE``, else ``sqlite:///plait.db``.
        max_turns: model requests of one run.
        max_tool_calls: tool calls of one run.
        hooks: callables by hook name (see `plait.hooks`).
        settings: further settings of the model (see `Settings`).
        sequential_tools: carries the tool calls of one turn out one after the other.
        budget: how much its runs, chats or users may use: a `Budget`, or several. What was spent is kept in the store.
        prices: what models cost, for budgets and for ``result.cost``: a `Price`, or prices by model; see `Prices`.
            Without them what the provider reports, then what the ``prices`` extra knows.
        guardrails: checks of prompts, answers, tool calls and their results; see `Guardrails`.
        judge_provider: a second model that judges whether a prompt, or what a tool gave, tries to change the agent's
            instructions: a provider, its name, or an `InjectionJudge`, which also says what holds when it fails.
        mcp_servers: MCP servers whose tools the agent has, too: a list of URLs, commands (``["npx", "server"]``) and
            `MCPConnection`s, or a dict of them by name. They are connected with the first run, until `close`, or as
            long as the event loop.
        debug: while a run is under way, a watchdog logs a warning (to ``plait.tools``) when a tool has blocked the
            event loop for 0.25 s, with its name and the line of code.

    Attributes:
        definition: who it is.
        outfit: what its runs share, for the other faces of the engine.

    Raises:
        ConfigurationError: an argument is of the wrong type, or names something unknown; the sentence says which.
    """

    __slots__ = ("__weakref__", "definition", "outfit")

    def __init__(  # noqa: PLR0917  # the order that is documented
        self,
        definition: AgentDefinition | None = None,
        role: str | None = None,
        name: str | None = None,
        provider: str | Provider | Sequence[str | Provider] | None = None,
        api_key: str | None = None,
        model: str | None = None,
        goal: str | None = None,
        constraints: Sequence[str] | None = None,
        personality: Mapping[str, str] | None = None,
        tools: Sequence[str | ToolForm] | None = None,
        memory_strategy: str | MemoryStrategy = "last_n",
        memory_params: Mapping[str, Any] | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        *,
        output: type[Output] | None = None,
        base_url: str | None = None,
        store: str | Store | None = None,
        max_turns: int = DEFAULT_LIMITS.max_turns,
        max_tool_calls: int = DEFAULT_LIMITS.max_tool_calls,
        hooks: Mapping[str, Hook | Sequence[Hook]] | None = None,
        settings: Settings | None = None,
        sequential_tools: bool = False,
        budget: BudgetLike | None = None,
        prices: PriceLike | Mapping[str, PriceLike] | None = None,
        guardrails: Guardrails | None = None,
        judge_provider: str | Provider | InjectionJudge | None = None,
        mcp_servers: Sequence[MCPServerForm] | Mapping[str, MCPServerForm] | None = None,
        debug: bool = False,
    ) -> None:
        self.definition = definition_of(definition, role, goal, constraints, personality)
        checks = guardrails_of(guardrails, judge_provider)
        prompt = self.definition.compile()
        self.outfit: Outfit[Output] = Outfit(
            name=name or self.definition.name or "Assistant",
            provider=get_provider(provider, model=model, api_key=api_key, base_url=base_url),
            system=checks.instructions(SystemMessage(text=prompt) if prompt else None),
            toolbox=Toolbox.of(find_tools(list_of_tools(tools), READY_MADE)),
            strategy=strategy_of(memory_strategy, memory_params),
            output=None if output is None or output is str else output_schema(output),
            settings=settings_of(settings or DEFAULT_SETTINGS, temperature, max_tokens),
            limits=RunLimits(max_turns=max_turns, max_tool_calls=max_tool_calls),
            hooks=Hooks(hooks),
            guardrails=checks,
            prices=Prices(prices),
            budgets=budgets_of(budget),
            servers=None if not mcp_servers else _mcp_servers(mcp_servers),
            threads=OpenThreads(store_of(store)),
            sequential=sequential_tools,
            debug=debug,
        )

    def __repr__(self) -> str:
        model = f"{self.provider.name}:{self.provider.model}"
        return f"Agent(name={self.name!r}, model={model!r}, tools={list(self.tools)})"

    @property
    def name(self) -> str:
        """What it is called in logs, events and results."""
        return self.outfit.name

    @property
    def provider(self) -> Provider:
        """Who is asked; another may be put in its place between runs."""
        return self.outfit.provider

    @provider.setter
    def provider(self, provider: Provider) -> None:
        self.outfit.provider = provider

    @property
    def limits(self) -> RunLimits:
        """The limits of its runs."""
        return self.outfit.limits

    @property
    def tools(self) -> dict[str, Tool]:
        """The agent's tools by name; those of MCP servers are among them once these are connected."""
        return self.outfit.toolbox.tools

    @property
    def system_prompt(self) -> str:
        """The text that is sent before every conversation."""
        return self.outfit.system.text if self.outfit.system else ""

    @property
    def store(self) -> Store:
        """Where named threads live; opened when first used.

        Raises:
            ConfigurationError: the URL names no store.
            StoreUnavailable: the file is no database of plait's, or cannot be opened.
        """
        return self.outfit.threads.store

    @property
    def history(self) -> list[Message]:
        """The messages of the agent's own thread with the default user: what `chat` without ``thread`` continues."""
        return self.outfit.threads.said(DEFAULT_USER)

    def new_thread(self, user_id: str = DEFAULT_USER) -> None:
        """Begin anew: the next `chat` without ``thread`` knows nothing of the earlier ones. A run under way goes on."""
        self.outfit.threads.forget(user_id)

    async def chat(
        self, content: Prompt, user_id: str = DEFAULT_USER, *, thread: str | None = None, **options: Unpack[RunOptions]
    ) -> Output:
        """Answer, and remember: the next call goes on with the same thread.

        Args:
            content: what the user says: text, a `Message`, or several.
            user_id: whose thread it is; each user has their own.
            thread: the name of a thread in the agent's store, which outlives the process; each user has threads of
                their own. Without one, the agent's own thread with this user, in memory, until `new_thread`.
            **options: see `RunOptions`.

        Returns:
            The answer's text, or a value of the agent's output type. When a limit or a stop ended the run before
            there was an answer: the text so far, or None with an output type; `run` says why.

        Raises:
            ModelError: the model could not be asked, or its answer was no good.
            GuardrailError: a guardrail, or a hook, refused the prompt or the answer.
            StoreError: the store could not be read or written.
        """
        messages = messages_of(content)
        check_options(options)
        made = await self.outfit.made(
            messages, self.outfit.threads.open(thread, user_id), options, observed=False, strict=True
        )
        async for _ in made.events():  # never left early, so there is nothing to close
            pass
        return result_of(made).output

    def stream(
        self, content: Prompt, user_id: str = DEFAULT_USER, *, thread: str | None = None, **options: Unpack[RunOptions]
    ) -> TextStream:
        """Answer as `chat` does, and give the text while it comes: ``async for text in agent.stream("...")``.

        The pieces are the text of every answer of the run, also what the model says before it calls tools; answers
        are parted by a blank line, and so is one that begins anew (`RetryPolicy.restarts`) from what it makes void.
        Awaiting the stream gives the text of the last answer. Leaving the loop early
        ends the run, for nobody else can hold it; what was said until then stays in the thread. For events, tool
        calls and the result use `run`.
        """
        messages = messages_of(content)
        check_options(options)

        async def made() -> Run[Output]:
            return await self.outfit.made(messages, self.outfit.threads.open(thread, user_id), options, strict=True)

        return TextStream(made, f"stream of {self.name}")

    def stream_output(
        self, content: Prompt, user_id: str = DEFAULT_USER, *, thread: str | None = None, **options: Unpack[RunOptions]
    ) -> OutputStream[Output]:
        """Answer as `chat` does, and give the output while it grows: ``async for story in agent.stream_output("...")``.

        The pieces are values of the output type in which fields that have not come yet are None, or their default,
        and lists are as long as they have come; the last piece is the whole, validated output, which awaiting the
        stream gives too. An answer that does not fit is asked for again, and its pieces begin anew. Leaving the loop
        early ends the run, as with `stream`.

        Validators of the output type see these values, too; one that they fail is not given. Of types that are no
        objects or lists, such as ``int``, the whole is the only piece.

        Raises:
            ConfigurationError: the agent has no output type.
        """
        if self.outfit.output is None:
            msg = f"agent {self.name!r} has no output type, so what it gives is text: use stream, or Agent(output=...)"
            raise ConfigurationError(msg)
        messages = messages_of(content)
        check_options(options)

        async def made() -> Run[Output]:
            return await self.outfit.made(messages, self.outfit.threads.open(thread, user_id), options, strict=True)

        from plait.partials import Partials  # few agents need it, and its patterns take time to compile

        return OutputStream(made, Partials(self.outfit.output), f"output of {self.name}")

    def run(
        self,
        prompt: Prompt,
        *,
        thread: str | None = None,
        user_id: str = DEFAULT_USER,
        **options: Unpack[RunOptions],
    ) -> AgentRun[Output]:
        """Begin a run, and give the promise of its `RunResult` and its events.

        Args:
            prompt: what to answer: text, a `Message`, or several (a history, the newest last).
            thread: the name of a thread in the agent's store; without one, a fresh thread in memory.
            user_id: for whom the run is.
            **options: see `RunOptions`.

        Returns:
            ``await`` it for the result, iterate it for events, as often as you like. It belongs to the enclosing
            scope, else to the calling task, and is cancelled when its owner ends.
        """
        messages = messages_of(prompt)
        check_options(options)

        async def made() -> Run[Output]:
            if thread is None:
                return await self.outfit.made(messages, Thread.for_one_run(new_id("thr"), user_id), options)
            return await self.outfit.made(messages, self.outfit.threads.open(thread, user_id), options)

        return AgentRun(made, f"run of {self.name}")

    def resume(
        self, thread: str | None = None, *, user_id: str = DEFAULT_USER, **options: Unpack[RunOptions]
    ) -> AgentRun[Output]:
        """Go on with a thread's last run: after a crash, a failure, a stop or a limit.

        A tool call that had begun before a crash is repeated only if its tool is idempotent; otherwise the model is
        told that it may have happened. A run that had ended with an answer gives its result again, and asks nobody.

        Raises:
            NothingToResume: (when awaited) the thread holds no run.
        """
        check_options(options)

        async def made() -> Run[Output]:
            return await self.outfit.made((), self._found(thread, user_id), options)

        return AgentRun(made, f"run of {self.name}")

    async def explain(self, prompt: Prompt, *, thread: str | None = None, user_id: str = DEFAULT_USER) -> Explanation:
        """Show the request that `run` would send for a prompt, and send nothing; printed, it is a table of its parts.

        Nobody is called: no model, hook, check or budget, and no MCP server, of whose tools it shows those that are
        connected already. Not in it: a summary that has to be made first, and the ``max_tokens`` that a budget leaves.

        Args:
            prompt: as for `run`.
            thread: the name of a thread in the agent's store, which is read and not changed.
            user_id: whose thread it is.

        Raises:
            ConfigurationError: the prompt is none, or the provider cannot express the request.
            LimitExceeded: what must be sent is more than the context window holds.
            StoreError: the store cannot be read.
        """
        return await self.outfit.explained(messages_of(prompt), thread, {}, user_id=user_id)

    async def _found(self, thread: str | None, user_id: str) -> Thread:
        opened = await self.outfit.threads.find(thread, user_id)
        if opened is None:
            whose = f"thread {excerpt(repr(thread), 80)} of user {excerpt(repr(user_id), 80)}"
            msg = f"there is no {whose}, so no run that could go on; begin one with a prompt"
            raise NothingToResume(msg)
        return opened

    def as_tool(self, name: str | None = None, description: str | None = None) -> FunctionTool[[str, str], Any]:
        """Give this agent as a tool, for other agents and for MCP hosts: each call is a run on a fresh thread.

        Args:
            name: the tool's name; else the agent's, in letters that a tool's name may have.
            description: when to use it; else the agent's role and goal.

        Returns:
            A tool of one parameter, ``prompt``, that gives the agent's answer. Its user is the caller's.
        """

        async def ask(prompt: str, user_id: str) -> Output:
            """Ask.

            Args:
                prompt: what to do or to answer, with all that must be known for it.
                user_id: for whom.
            """
            result = await self.run(prompt, user_id=user_id)
            if result.stop_reason != "response":
                text = f", after: {excerpt(result.text)}" if result.text else ""
                msg = f"{self.name} ended before it had an answer ({result.stop_reason}){text}"
                raise ToolError(msg)
            return result.output

        about = " ".join(filter(None, (self.definition.role, self.definition.goal)))
        form = {"func": ask, "timeout": inf, "description": description or about or f"Ask {self.name}."}
        made = as_tool({**form, "name": name or re.sub(r"[^a-zA-Z0-9_-]+", "_", self.name).strip("_")[:64] or "agent"})
        return cast("FunctionTool[[str, str], Any]", made)

    # The sync face: the same methods for callers who cannot await, each one line on the portal.

    def chat_sync(
        self, content: Prompt, user_id: str = DEFAULT_USER, *, thread: str | None = None, **options: Unpack[RunOptions]
    ) -> Output:
        """See `chat`; for sync callers, who may stand anywhere, also under a running event loop."""
        return PORTAL.call(lambda: self.chat(content, user_id, thread=thread, **options))

    def stream_sync(
        self, content: Prompt, user_id: str = DEFAULT_USER, *, thread: str | None = None, **options: Unpack[RunOptions]
    ) -> SyncStream[str]:
        """See `stream`; for sync callers: ``for text in agent.stream_sync("...")``."""
        return PORTAL.iterate(lambda: self.stream(content, user_id, thread=thread, **options).batches())

    def run_sync(
        self,
        prompt: Prompt,
        *,
        thread: str | None = None,
        user_id: str = DEFAULT_USER,
        **options: Unpack[RunOptions],
    ) -> RunResult[Output]:
        """See `run`; for sync callers, who get the result when the run has ended."""
        return PORTAL.call(lambda: self.run(prompt, thread=thread, user_id=user_id, **options))

    def resume_sync(
        self, thread: str | None = None, *, user_id: str = DEFAULT_USER, **options: Unpack[RunOptions]
    ) -> RunResult[Output]:
        """See `resume`; for sync callers, who get the result when the run has ended."""
        return PORTAL.call(lambda: self.resume(thread, user_id=user_id, **options))

    def stream_output_sync(
        self, content: Prompt, user_id: str = DEFAULT_USER, *, thread: str | None = None, **options: Unpack[RunOptions]
    ) -> SyncStream[Output]:
        """See `stream_output`; for sync callers."""
        return PORTAL.iterate(lambda: self.stream_output(content, user_id, thread=thread, **options).batches())

    def explain_sync(self, prompt: Prompt, *, thread: str | None = None, user_id: str = DEFAULT_USER) -> Explanation:
        """See `explain`; for sync callers."""
        return PORTAL.call(lambda: self.explain(prompt, thread=thread, user_id=user_id))

    def log_sync(self, thread: str | None = None, *, user_id: str = DEFAULT_USER) -> list[Entry]:
        """See `log`; for sync callers."""
        return PORTAL.call(lambda: self.log(thread, user_id=user_id))

    def close_sync(self) -> None:
        """See `close`; for sync callers."""
        PORTAL.call(self.close)

    async def log(self, thread: str | None = None, *, user_id: str = DEFAULT_USER) -> list[Entry]:
        """Give the entries of a thread, oldest first, for the views in `plait.log`; none where there is no thread."""
        opened = await self.outfit.threads.find(thread, user_id)
        return await opened.store.read(opened.thread_id) if opened else []

    async def close(self) -> None:
        """End the connections to MCP servers; there is nothing else to close. The next run connects anew."""
        if self.outfit.servers is not None:
            await self.outfit.servers.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close_sync()


def _mcp_servers(servers: Sequence[MCPServerForm] | Mapping[str, MCPServerForm]) -> MCPServers:
    from plait.mcp.client.several import MCPServers  # few agents have any

    return MCPServers(servers)


def create_agent(
    role: str,
    provider: str | Provider | Sequence[str | Provider] | None = None,
    api_key: str | None = None,
    **options: Any,
) -> Agent[Any, Any]:
    """Make an `Agent` from a role, a provider and whatever else `Agent` takes."""
    return Agent(role=role, provider=provider, api_key=api_key, **options)
