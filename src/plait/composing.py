"""What the model is asked in a turn: the messages that are chosen, and the request as hooks and budgets want it.

Knows the thread, and what chooses from it; knows nothing of how the answer comes, or what is done with it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec

from plait.assignment import Assignment
from plait.context.trimmed import Trimmed
from plait.context.trimming import Trimmer
from plait.context.window import ContextWindow
from plait.counting import SIMPLE
from plait.events import StopReason
from plait.expenses import Expenses
from plait.hooks import BeforeRequest, ContextOverflow, MessagesDropped, PrefixChanged, Veto
from plait.inquiry import fixed_tokens
from plait.limits import Exceeded
from plait.messages import Message
from plait.prefixes import first_change
from plait.providers.base import Request, Settings
from plait.providers.encoding import encoded
from plait.summarising import as_sent, end_of, summarise

if TYPE_CHECKING:
    from collections.abc import Sequence

    from plait.inquiry import Inquiry


class Ending(msgspec.Struct, frozen=True, gc=False):
    """A run that ends instead of asking, and why."""

    stop_reason: StopReason
    error: str


class Chosen(msgspec.Struct, frozen=True, gc=False):
    """The messages to send, how many of them were said before this run, and what a trimmer said of them."""

    messages: list[Message]
    earlier: int
    trimmed: Trimmed | None = None


class Composer(msgspec.Struct, eq=False, gc=False):
    """Makes the requests of one run."""

    given: Assignment[Any]
    expenses: Expenses
    _later: Settings | None = None

    async def inquiry(self, turn: int) -> Inquiry | Ending:
        """Make what is asked in a turn, as hooks and budgets want it; or say why the run ends instead."""
        given = self.given
        chosen = self.chosen()
        if chosen.trimmed is not None:
            chosen = await self._trimmed(chosen, chosen.trimmed, turn)
        composed = request = self.request(chosen, turn)
        if "on_before_request" in given.hooks:
            event = BeforeRequest(context=given.context_now, request=request, turn=turn)
            decision = await given.hooks.call("on_before_request", event)
            if isinstance(decision, Veto):
                return Ending("guardrail", decision.reason)
            if isinstance(decision, Request):
                request = decision
        trimmed = chosen.trimmed if request is composed else None
        tokens = None if trimmed is None else self._corrected(trimmed)
        expenses = self.expenses
        inquiry: Inquiry | Exceeded | None = expenses.unasked(request, given.provider)
        if inquiry is None:
            inquiry = await expenses.reserved(request, given.provider, tokens)
        if isinstance(inquiry, Exceeded):
            await self.expenses.tell(inquiry, turn)
            return Ending("budget", str(inquiry))
        if trimmed is not None:
            inquiry.tokens = trimmed.tokens
        if "on_prefix_changed" in given.hooks:
            try:
                await self._compare(inquiry.request, chosen.trimmed, turn)
            except BaseException:
                await self.expenses.returned(inquiry)
                raise
        return inquiry

    def request(self, chosen: Chosen, turn: int) -> Request:
        """Make the request of a turn."""
        given = self.given
        return Request(
            messages=chosen.messages,
            tools=given.toolbox.definitions,
            output=given.output,
            settings=given.settings if turn == 1 else self._later_settings(),
            stream=self._streams(),
            earlier=chosen.earlier,
        )

    def _streams(self) -> bool:
        """Whether the answer is asked for as a stream: somebody reads it, or wants to have what a cut one said."""
        given = self.given
        return (
            given.observed
            or given.stop is not None
            or given.limits.deadline is not None
            or "on_token_received" in given.hooks
        )

    def _later_settings(self) -> Settings:
        """Give the settings of all turns but the first: a model that must call a tool in each could never answer."""
        if self._later is None:
            settings = self.given.settings
            free = settings.tool_choice in {None, "auto", "none"}
            self._later = settings if free else replace(settings, tool_choice=None)
        return self._later

    # --- which messages ----------------------------------------------------------------------------------------------

    def chosen(self) -> Chosen:
        """Choose what of the thread is sent."""
        given, tail = self.given, self.given.thread.tail
        messages, first_of_run = tail.sendable(), tail.run_begins()
        last = tail.run.last if tail.run else None
        whole = messages
        if last is not None and last.cut is not None and messages and messages[-1] is last.message:
            messages = messages[:-1]  # the answer is asked for anew, not to be continued in the middle
        system = [given.system] if given.system is not None else []
        strategy = given.strategy
        if isinstance(strategy, ContextWindow):
            if given.thread.trimmer is None and strategy.leaves_alone(len(messages)):
                return Chosen([*system, *messages], len(system) + first_of_run)
            trimmer = self._trimmer(strategy)
            asked = first_of_run if last is None else _behind_answer(whole)
            trimmed = trimmer.trim(messages, first_of_run, self._factor(), asked)
            return self._from_trimmer(trimmed)
        sent = messages if strategy is None else strategy.choose(messages)
        earlier = max(0, len(system) + len(sent) - (len(messages) - first_of_run))
        return Chosen([*system, *sent], earlier)

    def _from_trimmer(self, trimmed: Trimmed) -> Chosen:
        system = [self.given.system] if self.given.system is not None else []
        return Chosen([*system, *trimmed.messages], len(system) + trimmed.earlier, trimmed)

    def _trimmer(self, window: ContextWindow) -> Trimmer:
        """Give the thread's trimmer, which has taken in what was said before."""
        given, thread = self.given, self.given.thread
        if thread.trimmer is None:
            note = thread.tail.summary
            summary = None if note is None else (end_of(note, thread.tail), as_sent(given, note.summary))
            thread.trimmer = Trimmer(window, given.counter, summary=summary)
        if window.counts or window.summary_bound:
            counter, definitions = given.counter or SIMPLE, given.toolbox.definitions
            thread.trimmer.fixed_tokens = fixed_tokens(
                definitions, given.output, given.settings, counter, system=given.system
            )
        return thread.trimmer

    def _factor(self) -> float:
        correction = self.given.correction
        provider = self.given.provider
        return 1.0 if correction is None else correction.factor(provider.name, provider.model)

    def _corrected(self, trimmed: Trimmed) -> int | None:
        """Give the tokens of what is sent, as providers have counted so far."""
        return None if trimmed.tokens is None else round(trimmed.tokens * self._factor())

    async def _trimmed(self, chosen: Chosen, trimmed: Trimmed, turn: int) -> Chosen:
        """Tell the hooks what is left out, and have it summarised."""
        given = self.given
        if trimmed.overflowed and "on_context_overflow" in given.hooks:
            limit = given.strategy.max_tokens if isinstance(given.strategy, ContextWindow) else None
            told = ContextOverflow(
                context=given.context_now, tokens=self._corrected(trimmed) or 0, limit=limit or 0, turn=turn
            )
            await given.hooks.call("on_context_overflow", told)
        if trimmed.dropped and "on_message_dropped" in given.hooks:
            left_out = MessagesDropped(
                context=given.context_now, messages=trimmed.dropped, total=trimmed.dropped_total, turn=turn
            )
            await given.hooks.call("on_message_dropped", left_out)
        if trimmed.summarize is None or not isinstance(given.strategy, ContextWindow):
            return chosen
        trimmer = self._trimmer(given.strategy)
        text = await summarise(given, self.expenses, trimmed.summarize, given.strategy)
        if text is None:
            trimmer.unsummarised()
            return chosen
        after = trimmer.summarised(trimmed.summarize.upto, text)
        return self._from_trimmer(after)

    async def _compare(self, request: Request, trimmed: Trimmed | None, turn: int) -> None:
        """Tell the hooks where a request parts from the thread's last one."""
        given, thread = self.given, self.given.thread
        before, now = thread.last_sent, encoded(given.provider, request)
        thread.last_sent = now
        change = None if before is None else first_change(before, now)
        if change is not None:
            told = PrefixChanged(
                context=given.context_now,
                at=change.at,
                before=change.before,
                after=change.after,
                message=change.message,
                trimmed=trimmed is not None and not trimmed.stable,
                turn=turn,
            )
            await given.hooks.call("on_prefix_changed", told)


def _behind_answer(messages: Sequence[Message]) -> int:
    """Give the index behind the last answer: what stands there was in no request yet."""
    return next((at for at in range(len(messages), 0, -1) if messages[at - 1].role == "assistant"), 0)
