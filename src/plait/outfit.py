"""What all runs of an agent share, and making a run of it: an agent's outfit.

Found out once, when the agent is made. Owns the tools of MCP servers, which come later, and what must fit together:
tools and checks, what is always sent and the context window. Knows nothing of how a run is drained.
"""

from __future__ import annotations

from dataclasses import replace
from time import monotonic
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Generic

import msgspec
from typing_extensions import TypeVar

from plait.context.window import ContextWindow, MemoryStrategy, check_room
from plait.counting import Correction, Counter, counter_of
from plait.guardrails.guarding import Guardrails
from plait.hooks import Hooks
from plait.ids import new_id
from plait.inquiry import fixed_tokens
from plait.limits import Budget, budgets_of
from plait.loop import Run
from plait.messages import SystemMessage
from plait.open_threads import OpenThreads
from plait.options import stop_of
from plait.plain import EMPTY
from plait.prices import Prices
from plait.providers.base import Provider, Settings
from plait.run import DEFAULT_USER, RunContext, RunLimits
from plait.schema import OutputSchema
from plait.stops import Guard
from plait.threads import Thread
from plait.tools import Toolbox

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from plait.explaining import Explanation
    from plait.messages import Message
    from plait.options import RunOptions

Output = TypeVar("Output", default=str)

_SOON: Final = 0.001


class Outfit(msgspec.Struct, Generic[Output], kw_only=True, eq=False):
    """What all runs of one agent share.

    Attributes:
        name: what the agent is called.
        servers: MCP servers, whose tools join the toolbox once they are connected; an `MCPServers`, or None.
        counter: counts tokens for the context window; None where nothing is counted.
        correction: how far its counts are from what providers report.

    Raises:
        ConfigurationError: a check names a tool that is not there, or what is always sent leaves no room.
    """

    name: str
    provider: Provider
    system: SystemMessage | None
    toolbox: Toolbox
    strategy: MemoryStrategy
    output: OutputSchema[Any] | None
    settings: Settings
    limits: RunLimits
    hooks: Hooks
    guardrails: Guardrails
    prices: Prices
    budgets: tuple[Budget, ...]
    servers: Any
    threads: OpenThreads
    sequential: bool
    debug: bool
    counter: Counter | None = None
    correction: Correction | None = None

    def __post_init__(self) -> None:
        if self.servers is None:
            self.guardrails.check_names(self.toolbox.tools)
        self._equip(self.toolbox)

    def _equip(self, toolbox: Toolbox) -> None:
        """Take tools, once it is clear that they fit into the context window.

        Raises:
            ConfigurationError: what is always sent leaves no room for anything else.
        """
        marked = self.guardrails.definitions(toolbox.definitions, toolbox.tools)
        if marked is not toolbox.definitions:
            toolbox = msgspec.structs.replace(toolbox, definitions=tuple(marked))
        window = self.strategy
        if isinstance(window, ContextWindow) and (window.counts or window.summary_bound):
            self.counter = self.counter or counter_of(window.counting, self.provider.model)
            self.correction = self.correction or Correction()
            definitions, counter = toolbox.definitions, self.counter
            always = fixed_tokens(definitions, self.output, self.settings, counter, system=self.system)
            check_room(window, counter, always)
        self.toolbox = toolbox

    async def opened(self, thread: str, user_id: str) -> Thread:
        """Open a thread of the agent's store, for the other faces of the engine."""
        return await self.threads.open(thread, user_id)

    async def made(
        self,
        prompt: tuple[Message, ...],
        thread: Thread | Coroutine[Any, Any, Thread] | str,
        options: RunOptions,
        *,
        user_id: str = DEFAULT_USER,
        observed: bool = True,
        strict: bool = False,
    ) -> Run[Output]:
        """Make a run, for the other faces of the engine, which drain it.

        A stop signal, or the deadline, also ends the wait for a thread that is looked up and for servers that are
        connected; the run then ends before it begins.

        Args:
            prompt: what begins it; nothing, to go on with the thread's last run.
            thread: where it happens, or what opens it; a name is that of a thread in the agent's store.
            options: see `RunOptions`; they have been checked.
            user_id: whose thread it is, where it is named.
            observed: whether the events are read, and not only the result.
            strict: whether a guardrail's refusal is raised, and not only a stop reason.
        """
        if isinstance(thread, Thread) and self.servers is None:  # there is nothing to wait for
            return self.assembled(prompt, thread, options, observed=observed, strict=strict)
        stop, limits = stop_of(options.get("stop")), options.get("limits", self.limits)
        opening = self.threads.open(thread, user_id) if isinstance(thread, str) else thread
        if stop is None and limits.deadline is None:
            ready = opening if isinstance(opening, Thread) else await opening
            await self._connect()
            return self.assembled(prompt, ready, options, observed=observed, strict=strict)
        began = monotonic()
        ready = Thread.for_one_run(new_id("thr"), user_id, thread if isinstance(thread, str) else "")
        context = RunContext(deps=None, user_id=user_id, chat_id=ready.name or ready.thread_id)
        async with Guard(stop, limits.deadline, context) as guard:
            ready = opening if isinstance(opening, Thread) else await opening
            await self._connect()
        run = self.assembled(prompt, ready, options, observed=observed, strict=strict)
        run.stopped = guard.stopped
        if limits.deadline is not None:
            run.limits = replace(limits, deadline=max(limits.deadline - (monotonic() - began), _SOON))
        return run

    async def explained(
        self,
        prompt: tuple[Message, ...],
        thread: Thread | str | None,
        options: RunOptions,
        *,
        user_id: str = DEFAULT_USER,
        observed: bool = True,
    ) -> Explanation:
        """Explain what `made` would ask first, for the faces of the engine; takes what that takes.

        Args:
            prompt: what would begin the run.
            thread: where: the name of a thread in the agent's store, which stays as it is; one that nobody else sees;
                None for a new one.
            options: see `RunOptions`.
            user_id: whose thread it is, where it is named.
            observed: whether the events would be read.
        """
        from plait.explanations import explained  # few runs are explained

        name, scratch = None, thread
        if isinstance(thread, str):
            name, found = thread, await self.threads.find(thread, user_id)
            scratch = None if found is None else await found.scratch()
        if not isinstance(scratch, Thread):
            scratch = Thread.for_one_run(new_id("thr"), user_id)
        return await explained(self.assembled(prompt, scratch, options, observed=observed, strict=False), name)

    async def _connect(self) -> None:
        if self.servers is not None:
            await self.servers.open()
            with self.servers.renewed(self.toolbox) as renewed:
                self.guardrails.check_names(renewed.tools)
                if renewed is not self.toolbox:
                    self._equip(renewed)

    def assembled(
        self, prompt: tuple[Message, ...], thread: Thread, options: RunOptions, *, observed: bool, strict: bool
    ) -> Run[Output]:
        """Make a run on a thread that is open; see `made`."""
        budgets = budgets_of(options["budget"]) if "budget" in options else self.budgets
        return Run(
            thread=thread,
            context=RunContext(
                deps=options.get("deps"),
                user_id=thread.user_id,
                thread_id=thread.thread_id,
                chat_id=thread.name,
                run_id=new_id("run"),
                agent_name=self.name,
                secrets=MappingProxyType(dict(options["secrets"])) if "secrets" in options else EMPTY,
            ),
            provider=self.provider,
            prompt=prompt,
            system=self.system,
            toolbox=self.toolbox,
            strategy=self.strategy,
            counter=self.counter,
            correction=self.correction,
            output=self.output,
            settings=self.settings,
            limits=options.get("limits", self.limits),
            hooks=self.hooks.joined(Hooks(options["hooks"])) if "hooks" in options else self.hooks,
            guardrails=self.guardrails,
            prices=self.prices,
            budgets=budgets,
            ledger=self.threads.store if budgets else None,
            stop=stop_of(options.get("stop")),
            if_busy=options.get("if_busy", "queue"),
            sequential=self.sequential,
            observed=observed,
            strict=strict,
            debug=self.debug,
        )
