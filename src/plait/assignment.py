"""What a run is given: for whom, on which thread, by which provider, with which tools and within which limits.

A value that the parts of the loop read. Knows nothing of what they do with it.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any, Generic

import msgspec
from typing_extensions import TypeVar

from plait.context.window import MemoryStrategy
from plait.counting import Correction, Counter
from plait.events import StopReason
from plait.guardrails.guarding import NO_GUARDRAILS, Guardrails
from plait.hooks import Hooks
from plait.limits import Budget
from plait.messages import Message, SystemMessage
from plait.prices import Prices
from plait.providers.base import DEFAULT_SETTINGS, Provider, Settings
from plait.run import DEFAULT_LIMITS, RunContext, RunLimits, StopPoll, StopSignal
from plait.schema import OutputSchema
from plait.store.ledger import Ledger
from plait.threads import IfBusy, Thread
from plait.tools import NO_TOOLS, Toolbox

Output = TypeVar("Output", default=str)


class Assignment(msgspec.Struct, Generic[Output], kw_only=True, eq=False):
    """What one run was given.

    Attributes:
        prompt: the messages that begin the run; empty to go on with the thread's last run.
        context: what tools and hooks receive; names the run, the thread, the user and the agent.
        system: the agent's system prompt.
        strategy: chooses what of the thread is sent; None sends all of it.
        counter: counts tokens for it; None where nothing is counted.
        correction: how far its counts are from what providers report.
        prices: what models cost; None where nobody asks.
        budgets: what the run must keep within.
        ledger: where what was spent of them is kept.
        strict: whether a guardrail's refusal is raised, for callers who get nothing but the answer.
        stop: what ends the run from outside.
        stopped: why it ends before it begins: it was stopped while its thread was opened.
        observed: whether somebody reads the events, and not only the result; then the provider is asked for a stream.
        debug: whether a watchdog reports tools that block the event loop.
    """

    thread: Thread
    context: RunContext[Any]
    provider: Provider
    prompt: tuple[Message, ...] = ()
    system: SystemMessage | None = None
    toolbox: Toolbox = NO_TOOLS
    strategy: MemoryStrategy | None = None
    counter: Counter | None = None
    correction: Correction | None = None
    output: OutputSchema[Any] | None = None
    settings: Settings = DEFAULT_SETTINGS
    limits: RunLimits = DEFAULT_LIMITS
    hooks: Hooks = msgspec.field(default_factory=Hooks)
    guardrails: Guardrails = NO_GUARDRAILS
    prices: Prices | None = None
    budgets: tuple[Budget, ...] = ()
    ledger: Ledger | None = None
    stop: StopSignal | StopPoll | asyncio.Event | None = None
    stopped: StopReason | None = None
    if_busy: IfBusy = "queue"
    sequential: bool = False
    observed: bool = True
    strict: bool = False
    debug: bool = False

    _now: RunContext[Any] | None = None  # as it was given last

    @property
    def context_now(self) -> RunContext[Any]:
        """The context with the tokens that the run has used so far."""
        run = self.thread.tail.run
        used = run.usage if run is not None and run.run_id == self.context.run_id else None
        if used is None:
            return self.context
        if self._now is None or self._now.usage is not used or self._now.run_id != self.context.run_id:
            self._now = replace(self.context, usage=used)
        return self._now
