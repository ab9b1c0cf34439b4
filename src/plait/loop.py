"""The one loop: a function of the log.

It looks where the log ends (`next_step`) and does the next thing: ask the model, call tools, or finish. A first run,
a continuation, a resume after a stop and a resume after a crash are the same call. It writes an intent before each
effect and the result after it, and yields lists of events; `Agent`'s methods only drain it.

It knows one provider method, the executor of tools and a `Thread`; it knows no wire format and no store.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic

import msgspec
from typing_extensions import TypeVar

from plait.context import MemoryStrategy
from plait.entries import MessageEntry, RunEnd, RunStart, ToolEnd, ToolStart
from plait.errands import MAX_DEPTH, Errands, depth_here
from plait.errors import (
    ConfigurationError,
    EmptyAnswer,
    LimitExceeded,
    NothingToResume,
    OutputInvalid,
    PlaitError,
    Refused,
    StateConflict,
    StreamTruncated,
    excerpt,
)
from plait.events import CUT, DECLINED, MAY_BE_EMPTY, PAUSED, Answer, Fold, RunFinished, StopReason
from plait.executor import Finished, error_result
from plait.hooks import AfterRequest, BeforeRequest, FunctionCallEnd, FunctionCallStart, HookName, Hooks, RunEnded, Veto
from plait.log import REPAIR, says_something
from plait.messages import AssistantMessage, Message, SystemMessage, TextPart, ToolCall, ToolResult, UserMessage
from plait.providers.base import DEFAULT_SETTINGS, Provider, Request, Settings
from plait.run import DEFAULT_LIMITS, RunContext, RunLimits, RunResult, StopSignal
from plait.schema import OutputSchema
from plait.scopes import settle
from plait.stops import Guard
from plait.threads import IfBusy, Thread
from plait.tools import NO_TOOLS, Toolbox, execute

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from plait.entries import Body
    from plait.events import Event
    from plait.log import Tail

logger = logging.getLogger("plait.run")

Output = TypeVar("Output", default=str)

MAX_REPAIRS: Final = 2
"""How often one run asks again for an answer that does not fit the output type."""

REPEATS: Final = 3
"""The same call with the same arguments in this many turns running is said to the model."""

_MAY_HAVE_HAPPENED: Final = (
    "This call was begun, and the program ended before its result was written down: it may or may not have happened. "
    "It was not repeated. Find out before you call it again."
)
_CUT: Final = "The answer reached the token limit in the middle of this call, so it was not carried out."


_HOOKS: Final[dict[str, HookName]] = {"max_turns": "on_max_turns_reached", "user_stop": "on_manual_stop"}


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


class Run(msgspec.Struct, Generic[Output], kw_only=True, eq=False):
    """One run: what it was given, and, when `events` is drained, its `result`.

    Attributes:
        prompt: the messages that begin the run; empty to go on with the thread's last run.
        context: what tools and hooks receive; names the run, the thread, the user and the agent.
        system: the agent's system prompt.
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
    output: OutputSchema[Any] | None = None
    settings: Settings = DEFAULT_SETTINGS
    limits: RunLimits = DEFAULT_LIMITS
    hooks: Hooks = msgspec.field(default_factory=Hooks)
    stop: StopSignal | asyncio.Event | None = None
    if_busy: IfBusy = "queue"
    sequential: bool = False
    observed: bool = True
    debug: bool = False
    result: RunResult[Output] | None = None
    _fold: Fold | None = None
    _later: Settings | None = None

    async def events(self) -> AsyncGenerator[list[Event], None]:
        """Carry the run out, and give its events: one list for each socket read and each step.

        Drive it from one task: a stop cancels what that task waits for, here inside.

        Raises:
            PlaitError: the run failed; the log says so and is valid to send.
        """
        self._check_depth()
        guard = Guard(self.stop, self.limits.deadline)
        thread, errands = self.thread, Errands(watched=self.debug)
        held = False
        try:
            async with guard:
                await thread.hold(self.context.run_id, guard.interrupt, self.if_busy)
                held = True
                self._begin()
                while self.result is None:
                    match next_step(thread.tail, self.limits):
                        case Ask(turn):
                            if events := await thread.flush():
                                yield events
                            if (request := await self._request(turn)) is None:
                                continue
                            fold = self._fold = Fold(self.provider.name, self.provider.model)
                            answers = self.provider.stream(request)
                            try:
                                async for deltas in answers:
                                    fold.add(deltas)
                                    yield deltas  # type: ignore[misc]  # a list of deltas is a list of events
                            finally:
                                await answers.aclose()
                            await self._take(fold, turn)
                        case CallTools(calls, doubtful):
                            ready = await self._begun(calls, doubtful)
                            yield await thread.flush()
                            tools, told = self.toolbox.tools, self._told()
                            results = execute(ready, tools, told, errands, sequential=self.sequential)
                            try:
                                async for finished in results:
                                    self._add_results(finished)
                                    yield await thread.flush()
                                    if self.hooks:
                                        await self._told_calls(finished)
                            finally:
                                await results.aclose()
                        case Finish(reason):
                            self._finish(reason)
                    if guard.fired:
                        await guard.checkpoint()
            # What comes now can no longer be stopped, so that a run ends once and says so once.
            yield await self._end(guard.stopped, held=held)
        except BaseException as error:
            await settle(partial(self._failed, error, held=held))
            raise
        finally:
            await self._leave(errands, held=held)

    async def _leave(self, errands: Errands, *, held: bool) -> None:
        try:
            await errands.end()
        finally:
            if held:  # another run may hold the thread by now
                await self.thread.leave()

    def _check_depth(self) -> None:
        if depth_here() > MAX_DEPTH:
            msg = f"agent {self.context.agent_name!r} would be one of more than {MAX_DEPTH} agents within agents"
            raise LimitExceeded(msg, limit=MAX_DEPTH)

    def _begin(self) -> None:
        """Put the run's beginning at the end of the log, unless the log stands in the middle of this run."""
        self.thread.observed = self.observed
        last = self.thread.tail.run
        if self.prompt:
            self._add(RunStart(self.context.agent_name))
            for message in self.prompt:
                self._add(MessageEntry(message))
            return
        if last is None:
            msg = f"thread {self.thread.thread_id!r} holds no run that could go on; begin one with a prompt"
            raise NothingToResume(msg)
        self.context = replace(self.context, run_id=last.run_id)
        if last.end is not None and last.end.stop_reason != "response":
            self._add(RunStart(agent_name=self.context.agent_name, resumed=True))

    async def _request(self, turn: int) -> Request | None:
        """Make the request of a turn, as the hooks want it; None when one of them refused it, and the run has ended."""
        messages = self._messages()
        request = Request(
            messages=messages,
            tools=self.toolbox.definitions,
            output=self.output,
            settings=self.settings if turn == 1 else self._later_settings(),
            # A run that may be stopped in the middle of an answer streams it, to have the text so far.
            stream=self.observed or self.stop is not None or self.limits.deadline is not None,
            earlier=self._earlier(messages),
        )
        if "on_before_request" not in self.hooks:
            return request
        event = BeforeRequest(context=self._context(), request=request, turn=turn)
        decision = await self.hooks.call("on_before_request", event)
        if isinstance(decision, Veto):
            self._finish_early("guardrail", decision.reason)
            return None
        return decision if isinstance(decision, Request) else request

    def _later_settings(self) -> Settings:
        """Give the settings of all turns but the first: a model that must call a tool in each could never answer."""
        if self._later is None:
            settings = self.settings
            free = settings.tool_choice in {None, "auto", "none"}
            self._later = settings if free else replace(settings, tool_choice=None)
        return self._later

    async def _take(self, fold: Fold, turn: int) -> None:
        """Add the model's answer to the log, if it is one."""
        self._fold = None if fold.finished else fold
        answer = whole_answer(fold, self.provider.name)
        message, why = answer.message, answer.finish_reason
        self._add(MessageEntry(message, answer.usage, why))
        if "on_after_request" in self.hooks:
            await self.hooks.call("on_after_request", AfterRequest(context=self._context(), answer=answer, turn=turn))

    async def _begun(self, calls: Sequence[ToolCall], doubtful: Sequence[ToolCall]) -> list[ToolCall]:
        """Give the calls to carry out, with an intent in the log for each; the others have their results there."""
        ready: list[ToolCall] = []
        for call in doubtful:
            tool = self.toolbox.tools.get(call.name)
            if tool is None or not tool.idempotent:
                self._add_result(call, error_result(call, _MAY_HAVE_HAPPENED))
            elif (allowed := await self._allowed(call)) is not None:
                ready.append(allowed)
        cut = self._cut_call()
        for call in calls:
            if call.id == cut:
                self._add_result(call, error_result(call, _CUT))
            elif (allowed := await self._allowed(call) if self.hooks else call) is not None:
                self._add(ToolStart(call.id))
                ready.append(allowed)
        return ready

    def _add_results(self, finished: Sequence[Finished]) -> None:
        for one in finished:
            self._add_result(one.call, one.result, one.seconds)

    def _cut_call(self) -> str | None:
        """The id of the call in whose middle the last answer reached its token limit: it is the answer's last."""
        tail = self.thread.tail
        cut = tail.run is not None and tail.run.last is not None and tail.run.last.finish_reason in CUT
        return next(reversed(tail.pending)) if cut and tail.pending else None

    async def _allowed(self, call: ToolCall) -> ToolCall | None:
        """Ask the hooks about a call; a vetoed one has its result when this returns None."""
        if "on_function_call_start" not in self.hooks:
            return call
        event = FunctionCallStart(context=self._context(), call=call)
        decision = await self.hooks.call("on_function_call_start", event)
        if isinstance(decision, Veto):
            self._add_result(call, error_result(call, f"This call was not allowed: {decision.reason}"))
            return None
        return decision.model_copy(update={"id": call.id}) if isinstance(decision, ToolCall) else call

    async def _told_calls(self, finished: Sequence[Finished]) -> None:
        """Tell the hooks of calls whose results are in the log."""
        for one in finished:
            names: tuple[HookName, ...] = ("on_function_call_error", "on_function_call_end")
            for name in names if one.result.is_error else names[1:]:
                if name in self.hooks:
                    event = FunctionCallEnd(
                        context=self._context(), call=one.call, result=one.result, seconds=one.seconds
                    )
                    await self.hooks.call(name, event)

    def _add_result(self, call: ToolCall, result: ToolResult, seconds: float = 0.0) -> None:
        times = self.thread.tail.repeats.get(call.id, 1)
        if times >= REPEATS:
            said = f"\n[This is the same call with the same arguments in {times} turns running. Do something else.]"
            result = result.model_copy(update={"parts": (*result.parts, TextPart(text=said))})
        self._add(ToolEnd(result, seconds))

    def _finish_early(self, reason: StopReason, error: str | None = None) -> None:
        """End a run that was stopped or vetoed, and make its result."""
        self._add(RunEnd(stop_reason=reason, error=error))
        self.result = self._result(reason, error=error)

    def _finish(self, reason: StopReason) -> None:
        """Make the result of a run whose log has come to its end, or add the wish for an answer in another form."""
        tail, output = self.thread.tail, None
        last = tail.run.last if tail.run else None
        if reason == "response" and last is not None:
            _raise_refusal(last)
        if reason == "response" and self.output is not None and last is not None:
            try:
                output = self._validated(last, self.output)
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

    @staticmethod
    def _validated(last: MessageEntry, output: OutputSchema[Any]) -> object:
        text = last.message.text
        provider = last.message.provider if isinstance(last.message, AssistantMessage) else None
        if last.finish_reason in CUT:
            msg = f"the answer reached its token limit before it was a whole {output.name}: {excerpt(text, 80)}"
            raise OutputInvalid(msg, text=text, provider=provider)
        try:
            return output.validate(text)
        except OutputInvalid as error:
            error.retryable, error.provider = True, provider
            raise

    async def _end(self, stopped: StopReason | None, *, held: bool) -> list[Event]:
        """Make the end of the run durable, tell the hooks, and give the last events."""
        if stopped is not None and not held:  # it never began
            self.result = self._result(stopped, began=False)
            return [RunFinished(stopped)]
        if stopped is not None and self.result is None:
            self._keep_partial(stopped)
            self._finish_early(stopped)
        events = await self.thread.flush()
        if self.result is not None:
            reason = self.result.stop_reason
            name = self.context.agent_name
            logger.info("run %s of %s ended: %s, %d turns", self.context.run_id, name, reason, self._turns())
            for hook in (_HOOKS.get(reason), "on_final_response") if self.hooks else ():
                if hook is not None and hook in self.hooks:
                    await self.hooks.call(hook, RunEnded(context=self._context(), result=self.result))
        return events

    def _keep_partial(self, why: str) -> None:
        """Keep the text that a cut answer had reached; half received tool calls are dropped."""
        fold, self._fold = self._fold, None
        if fold is not None:
            try:
                answer = fold.answer(calls=False)
            except ConfigurationError:  # its provider gave what cannot be kept; the run has its end all the same
                return
            if answer.message.parts:
                self._add(MessageEntry(message=answer.message, usage=answer.usage, cut=why))

    async def _failed(self, error: BaseException, *, held: bool) -> None:
        """Say in the log that the run failed, as far as the log can still be written."""
        if not held:
            return
        cancelled = isinstance(error, asyncio.CancelledError | GeneratorExit)
        kind = "cancelled" if cancelled else type(error).__name__  # its sentence may hold the model's words
        logger.info("run %s of %s failed: %s", self.context.run_id, self.context.agent_name, kind)
        run = self.thread.tail.run
        if isinstance(error, StateConflict) or run is None or run.run_id != self.context.run_id:
            return
        try:
            if run.end is None:
                self._keep_partial("cancelled" if cancelled else "error")
                self._add(RunEnd(error="cancelled" if cancelled else f"{kind}: {excerpt(str(error))}"))
            await self.thread.flush()
        except PlaitError as failure:
            logger.warning("the end of run %s could not be written: %s", self.context.run_id, failure)

    def _add(self, body: Body) -> None:
        self.thread.add(self.context.run_id, body)

    def _messages(self) -> list[Message]:
        tail = self.thread.tail
        messages: Sequence[Message] = tail.sendable()
        if self._ends_cut():
            messages = messages[:-1]  # the answer is asked for anew, not to be continued in the middle
        if self.strategy is not None:
            messages = self.strategy.choose(messages)
        return [self.system, *messages] if self.system is not None else list(messages)

    def _ends_cut(self) -> bool:
        """Whether the thread ends with an answer of this run that was cut off."""
        tail = self.thread.tail
        last = tail.run.last if tail.run else None
        return last is not None and last.cut is not None and tail.messages[-1] is last.message

    def _earlier(self, messages: Sequence[Message]) -> int:
        """Count the messages to send that were said before this run; those of the run come last."""
        tail = self.thread.tail
        of_run = len(tail.messages) - tail.run.first if tail.run else 0
        return max(0, len(messages) - of_run + self._ends_cut())

    def _context(self) -> RunContext[Any]:
        run = self.thread.tail.run
        return replace(self.context, usage=run.usage) if run and run.usage else self.context

    def _told(self) -> RunContext[Any]:
        """Give the context for tools; its usage is made only where one of them looks at it."""
        return self._context() if self.toolbox.told else self.context

    def _turns(self) -> int:
        return self.thread.tail.run.turns if self.thread.tail.run else 0

    def _result(
        self, reason: StopReason, *, output: Any = None, began: bool = True, error: str | None = None
    ) -> RunResult[Output]:
        tail = self.thread.tail
        history = tuple(tail.sendable())
        run = tail.run if began else None
        last = run.last if run else None
        text = last.message.text if last else ""
        message = last.message if last else None
        return RunResult(
            output=text if self.output is None else output,  # type: ignore[arg-type]  # Output is str without a type
            stop_reason=reason,
            messages=tuple(tail.of_run()) if run else self.prompt,
            history=history,
            usage=run.usage if run else None,
            thread_id=self.thread.thread_id,
            run_id=self.context.run_id,
            agent_name=self.context.agent_name,
            error=error,
            truncated=last is not None and last.finish_reason in CUT,
            finish_reason=last.finish_reason if last else None,
            provider=message.provider if isinstance(message, AssistantMessage) else None,
            model=message.model if isinstance(message, AssistantMessage) else None,
        )


def whole_answer(fold: Fold, provider: str) -> Answer:
    """Give the answer that a request got, the first of several, if it is one.

    Args:
        fold: what came.
        provider: who answered, for errors.

    Raises:
        StreamTruncated: its end mark did not come.
        EmptyAnswer: it says nothing, and gives no reason for it.
    """
    answer = fold.answer()
    if not fold.finished:
        msg = f"{provider} ended its stream without an end mark"
        raise StreamTruncated(msg, partial=answer.message.text, provider=provider)
    if not says_something(answer.message) and answer.finish_reason not in MAY_BE_EMPTY:
        msg = "the model gave a complete answer without text or tool calls"
        raise EmptyAnswer(msg, provider=answer.message.provider)
    return answer


def _raise_refusal(last: MessageEntry) -> None:
    """Raise `Refused` for an answer in which the model, or the provider's filter, declined."""
    message = last.message
    if message.refusal or last.finish_reason in DECLINED:
        text = message.refusal or message.text
        provider = message.provider if isinstance(message, AssistantMessage) else None
        if message.refusal or not text:
            msg = f"the model declined to answer{': ' if text else ''}{excerpt(text)}"
        else:
            msg = f"the provider's content filter cut the answer short, after: {excerpt(text)}"
        raise Refused(msg, text=text, provider=provider)
