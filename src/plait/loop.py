"""The one loop: a function of the log.

It looks where the log ends (`next_step`) and does the next thing: ask the model, call tools, or finish. A first run,
a continuation, a resume after a stop and a resume after a crash are the same call. It writes an intent before each
effect and the result after it, and yields lists of events; `Agent`'s methods only drain it.

It knows one provider method, the executor of tools and a `Thread`; it knows no wire format and no store. What a turn
asks is made in `composing`, tool calls are carried out by `calling`, and what an answer comes to is `outcome`'s.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic

import msgspec
from typing_extensions import TypeVar

from plait.assignment import Assignment
from plait.calling import Calls
from plait.checking import checked
from plait.composing import Composer, Ending
from plait.entries import ContextNote, MessageEntry, RunEnd, RunStart
from plait.errands import MAX_DEPTH, Errands, depth_here
from plait.errors import (
    GuardrailError,
    LimitExceeded,
    NothingToResume,
    OutputInvalid,
    PlaitError,
    StateConflict,
    excerpt,
)
from plait.events import CUT, PAUSED, RunFinished, StopReason, TextDelta
from plait.expenses import Expenses
from plait.guardrails.guarding import WITHHELD
from plait.hooks import AfterRequest, HookName, RunEnded, TokenReceived, Veto
from plait.log import REPAIR
from plait.messages import AssistantMessage, Message, TextPart, ToolCall, UserMessage
from plait.outcome import raise_refusal, validated, whole_answer
from plait.purse import may_be_charged
from plait.run import RunLimits, RunResult
from plait.scopes import settle
from plait.stops import Guard

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Sequence

    from plait.entries import Body
    from plait.events import Delta, Event, Usage
    from plait.inquiry import Inquiry
    from plait.log import Tail

logger = logging.getLogger("plait.run")

Output = TypeVar("Output", default=str)

MAX_REPAIRS: Final = 2
"""How often one run asks again for an answer that does not fit the output type."""

_HOOKS: Final[dict[str, HookName]] = {
    "max_turns": "on_max_turns_reached",
    "max_tool_calls": "on_max_tool_calls_reached",
    "user_stop": "on_manual_stop",
}


class Ask(msgspec.Struct, frozen=True, gc=False):
    """Next, the model is asked."""

    turn: int


class CallTools(msgspec.Struct, frozen=True, gc=False):
    """Next, these calls of the last answer get their results. ``doubtful`` ones were begun before a crash."""

    calls: tuple[ToolCall, ...]
    doubtful: tuple[ToolCall, ...] = ()


class Finish(msgspec.Struct, frozen=True, gc=False):
    """Next, the run ends."""

    stop_reason: StopReason


def next_step(tail: Tail, limits: RunLimits) -> Ask | CallTools | Finish:
    """Say what a run does next, from nothing but the end of its log and its limits."""
    run = tail.run
    if run is None:
        return Finish("response")
    if tail.pending and (waiting := tail.waiting):
        started = tail.started
        doubtful = [call for call in waiting if call.id in started]
        left = max(0, limits.max_tool_calls - run.tool_calls)
        ready = [call for call in waiting if call.id not in started][:left]
        return CallTools(tuple(ready), tuple(doubtful)) if ready or doubtful else Finish("max_tool_calls")
    last = tail.messages[-1] if tail.messages else None
    if last is not None and last.role == "assistant" and not (run.last and _goes_on(run.last)):
        return Finish("response")
    if run.turns >= limits.max_turns:
        return Finish("max_turns")
    return Ask(run.turns + 1)


def _goes_on(last: MessageEntry) -> bool:
    """Whether the model is asked again after this answer: it was cut off, or its provider only paused."""
    return last.cut is not None or last.finish_reason in PAUSED


def _is_withheld(last: MessageEntry) -> bool:
    """Whether an answer stands in the log only to say that nobody may see it."""
    return last.cut is not None and last.message.text == WITHHELD


class Run(Assignment[Output], Generic[Output], kw_only=True, eq=False):
    """One run: what it was given, and, when `events` is drained, its `result`."""

    result: RunResult[Output] | None = None
    _inquiry: Inquiry | None = None
    _held: bool = False

    async def events(self) -> AsyncGenerator[list[Event], None]:
        """Carry the run out, and give its events: one list for each socket read and each step.

        Drive it from one task: a stop cancels what that task waits for, here inside.

        Raises:
            PlaitError: the run failed; the log says so and is valid to send.
        """
        self._check_depth()
        guard = Guard(self.stop, self.limits.deadline, self.context, self.stopped)
        thread, errands = self.thread, Errands(watched=self.debug)
        expenses = Expenses.of(self) if self.prompt else None
        try:
            async with guard:
                expenses = await self._begin(guard, expenses)
                composer, calls = Composer(self, expenses), Calls(self, expenses)
                while self.result is None:
                    match next_step(thread.tail, self.limits):
                        case Ask(turn):
                            if events := await thread.flush():
                                yield events
                            inquiry = await composer.inquiry(turn)
                            if isinstance(inquiry, Ending):
                                self._finish_early(inquiry.stop_reason, inquiry.error)
                                continue
                            self._inquiry = inquiry
                            answers = self._answers(inquiry, expenses)
                            fold, tells = inquiry.fold, "on_token_received" in self.hooks
                            try:
                                async for deltas in answers:
                                    fold.add(deltas)
                                    if tells:
                                        await self.hooks.tell("on_token_received", self._tokens(deltas, turn))
                                    yield deltas  # type: ignore[misc]  # a list of deltas is a list of events
                            finally:
                                await answers.aclose()
                            await self._take(inquiry, expenses, turn)
                        case CallTools(wanted, doubtful):
                            steps = calls.carry_out(wanted, doubtful, errands)
                            try:
                                async for events in steps:
                                    yield events
                            finally:
                                await steps.aclose()
                        case Finish(reason):
                            self._finish(reason)
                    if guard.fired:
                        await guard.checkpoint()
            # What comes now can no longer be stopped, so that a run ends once and says so once.
            yield await self._end(guard.stopped, expenses)
        except BaseException as error:
            await settle(partial(self._failed, error, expenses))
            raise
        finally:
            await self._leave(errands)
        self._raise_where_refused()

    def _raise_where_refused(self) -> None:
        if self.strict and self.result is not None and self.result.stop_reason == "guardrail":
            raise GuardrailError(self.result.error or "a guardrail ended the run")

    async def _leave(self, errands: Errands) -> None:
        try:
            await errands.end()
        finally:
            if self._held:  # another run may hold the thread by now
                await self.thread.leave()

    def _check_depth(self) -> None:
        if depth_here() > MAX_DEPTH:
            msg = f"agent {self.context.agent_name!r} would be one of more than {MAX_DEPTH} agents within agents"
            raise LimitExceeded(msg, limit=MAX_DEPTH)

    async def _begin(self, guard: Guard, expenses: Expenses | None) -> Expenses:
        """Wait for the run's turn on its thread, and put its beginning at the end of the log.

        There is none where the log stands in the middle of this run. A prompt that a check refuses never gets there;
        the run has its result then.
        """
        if guard.fired:  # before it began
            await guard.checkpoint()
        await self.thread.hold(self.context.run_id, guard.interrupt, self.if_busy)
        self._held = True
        self.thread.observed = self.observed
        last = self.thread.tail.run
        if expenses is not None:
            checked_prompt: tuple[Message, ...] | Veto = self.prompt
            if self.guardrails.checks_input:
                checked_prompt = await self.guardrails.check_input(self.context, self.prompt, expenses.ask)
            if isinstance(checked_prompt, Veto):
                used = expenses.usage_before
                self.result = self._result("guardrail", began=False, error=checked_prompt.reason, usage=used)
                return expenses
            self._add(RunStart(self.context.agent_name))
            for note in expenses.early:
                self._add(note)
            for message in checked_prompt:
                self._add(MessageEntry(message))
            return expenses
        if last is None:
            msg = f"thread {self.thread.thread_id!r} holds no run that could go on; begin one with a prompt"
            raise NothingToResume(msg)
        self.context = replace(self.context, run_id=last.run_id)
        if last.end is not None and last.end.stop_reason != "response":
            self._add(RunStart(agent_name=self.context.agent_name, resumed=True))
        return Expenses.of(self)

    def _answers(self, inquiry: Inquiry, expenses: Expenses) -> AsyncGenerator[list[Delta], None]:
        """Ask the model; where answers are checked, they come when they were."""
        if self.guardrails.checks_output:
            return checked(self, inquiry, expenses.ask)
        return self.provider.stream(inquiry.request)

    async def _take(self, inquiry: Inquiry, expenses: Expenses, turn: int) -> None:
        """Add the model's answer to the log, if it is one."""
        fold = inquiry.fold
        refused = inquiry.refused is not None
        if self.prices is not None and not self.prices.loaded:
            await self.prices.load()
        answer = expenses.priced(fold.answer() if refused else whole_answer(fold, self.provider.name))
        self._inquiry = None
        message, why = answer.message, answer.finish_reason
        if self.correction is not None and inquiry.tokens and answer.usage is not None:
            provider = self.provider
            self.correction.learn(provider.name, provider.model, inquiry.tokens, answer.usage.input_tokens)
        if refused:
            withheld = message.model_copy(update={"parts": (TextPart(text=WITHHELD),)})
            self._add(MessageEntry(withheld, answer.usage, why, cut="guardrail"))
            await expenses.settled(inquiry, answer, turn)
            self._finish_early("guardrail", inquiry.refused)
            return
        self._add(MessageEntry(message, answer.usage, why))
        if inquiry.reservation is not None:
            await expenses.settled(inquiry, answer, turn)
        if "on_after_request" in self.hooks:
            await self.hooks.call("on_after_request", AfterRequest(context=self.context_now, answer=answer, turn=turn))

    def _tokens(self, deltas: Sequence[Delta], turn: int) -> Iterator[TokenReceived]:
        for delta in deltas:
            if type(delta) is TextDelta and not delta.choice:
                yield TokenReceived(context=self.context, text=delta.text, turn=turn)

    def _finish_early(self, reason: StopReason, error: str | None = None) -> None:
        """End a run that was stopped or vetoed, and make its result."""
        self._add(RunEnd(stop_reason=reason, error=error))
        self.result = self._result(reason, error=error)

    def _finish(self, reason: StopReason) -> None:
        """Make the result of a run whose log has come to its end, or add the wish for an answer in another form."""
        tail, output = self.thread.tail, None
        last = tail.run.last if tail.run else None
        if reason == "response" and last is not None:
            raise_refusal(last)
        if reason == "response" and self.output is not None and last is not None:
            try:
                output = validated(last, self.output)
            except OutputInvalid as error:
                if not error.retryable or tail.run is None or tail.run.repairs >= MAX_REPAIRS:
                    raise
                if tail.run.end is not None:
                    self._add(RunStart(agent_name=self.context.agent_name, resumed=True))
                self._add(MessageEntry(message=UserMessage(text=str(error), metadata={REPAIR: True})))
                return
        if tail.run is None or tail.run.end is None:
            self._add(RunEnd(reason))
        self.result = self._result(reason, output=output)

    async def _end(self, stopped: StopReason | None, expenses: Expenses | None) -> list[Event]:
        """Make the end of the run durable, tell the hooks, and give the last events."""
        run = self.thread.tail.run
        if not self._held or run is None or run.run_id != self.context.run_id:  # it never began
            if stopped is not None or self.result is None:
                used = expenses.usage_before if expenses is not None else None
                self.result = self._result(stopped or "user_stop", began=False, usage=used)
            self._log_end(self.result)
            await self._tell_end(self.result)
            return [RunFinished(self.result.stop_reason, self.result.usage, self.result.error)]
        if stopped is not None and self.result is None:
            await self._break_off(stopped, expenses)
            self._finish_early(stopped)
        events = await self.thread.flush()
        if self.result is not None:
            self._log_end(self.result)
            if self.hooks:
                await self._tell_end(self.result)
        return events

    def _log_end(self, result: RunResult[Output]) -> None:
        reason, name = result.stop_reason, self.context.agent_name
        logger.info("run %s of %s ended: %s, %d turns", self.context.run_id, name, reason, self._turns())

    async def _tell_end(self, result: RunResult[Output]) -> None:
        for hook in (_HOOKS.get(result.stop_reason), "on_final_response"):
            if hook is not None and hook in self.hooks:
                await self.hooks.call(hook, RunEnded(context=self.context_now, result=result))

    async def _break_off(self, why: str, expenses: Expenses | None, error: BaseException | None = None) -> None:
        """Keep the text that a request had reached which came to no whole answer, and settle it."""
        inquiry, self._inquiry = self._inquiry, None
        if inquiry is None or expenses is None:
            return
        used = expenses.taken(inquiry)
        # A whole answer that is an error is none, such as one without words.
        message = None if inquiry.fold.finished and isinstance(error, Exception) else inquiry.partial()
        if message is None and inquiry.unseen is not None and inquiry.received():
            message = AssistantMessage(text=WITHHELD, provider=self.provider.name, model=self.provider.model)
        if message is not None:
            self._add(MessageEntry(message=message, usage=used, cut=why))
        elif may_be_charged(error, begun=inquiry.begun):
            self._add(ContextNote(by="request", usage=used))
        await expenses.broken_off(inquiry, used, error)

    async def _failed(self, error: BaseException, expenses: Expenses | None) -> None:
        """Say in the log that the run failed, as far as the log can still be written."""
        if not self._held:
            return
        cancelled = isinstance(error, asyncio.CancelledError | GeneratorExit)
        kind = "cancelled" if cancelled else type(error).__name__  # its sentence may hold the model's words
        logger.info("run %s of %s failed: %s", self.context.run_id, self.context.agent_name, kind)
        run = self.thread.tail.run
        if isinstance(error, StateConflict) or run is None or run.run_id != self.context.run_id:
            return
        try:
            if run.end is None:
                await self._break_off("cancelled" if cancelled else "error", expenses, error)
                self._add(RunEnd(error="cancelled" if cancelled else f"{kind}: {excerpt(str(error))}"))
            await self.thread.flush()
        except PlaitError as failure:
            logger.warning("the end of run %s could not be written: %s", self.context.run_id, failure)

    def _add(self, body: Body) -> None:
        self.thread.add(self.context.run_id, body)

    def _turns(self) -> int:
        run = self.thread.tail.run
        return run.turns if run is not None and run.run_id == self.context.run_id else 0

    def _result(
        self,
        reason: StopReason,
        *,
        output: Any = None,
        began: bool = True,
        error: str | None = None,
        usage: Usage | None = None,
    ) -> RunResult[Output]:
        tail = self.thread.tail
        history = tuple(tail.sendable())
        run = tail.run if began else None
        last = run.last if run else None
        text = last.message.text if last and not _is_withheld(last) else ""
        message = last.message if last else None
        return RunResult(
            output=text if self.output is None else output,  # type: ignore[arg-type]  # Output is str without a type
            stop_reason=reason,
            messages=tuple(tail.of_run()) if run else self.prompt,
            history=history,
            usage=run.usage if run else usage,
            thread_id=self.thread.thread_id,
            run_id=self.context.run_id,
            agent_name=self.context.agent_name,
            error=error,
            truncated=last is not None and last.finish_reason in CUT,
            finish_reason=last.finish_reason if last else None,
            provider=message.provider if isinstance(message, AssistantMessage) else None,
            model=message.model if isinstance(message, AssistantMessage) else None,
        )
