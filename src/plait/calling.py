"""The tool calls of a run: which are carried out, with an intent in the log for each, and their results there.

The executor carries them out; what the log and the hooks are told of them is known here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from plait.assignment import Assignment
from plait.entries import ToolEnd, ToolStart
from plait.events import CUT
from plait.executor import Finished, error_result, execute
from plait.expenses import Expenses
from plait.hooks import FunctionCallEnd, FunctionCallStart, Veto
from plait.messages import TextPart, ToolCall

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from plait.entries import Body
    from plait.errands import Errands
    from plait.events import Event
    from plait.hooks import HookName
    from plait.messages import ToolResult

REPEATS: Final = 3
"""The same call with the same arguments in this many turns running is said to the model."""

_MAY_HAVE_HAPPENED: Final = (
    "This call was begun, and the program ended before its result was written down: it may or may not have happened. "
    "It was not repeated. Find out before you call it again."
)
_CUT: Final = "The answer reached the token limit in the middle of this call, so it was not carried out."
_FAILED: Final[HookName] = "on_function_call_error"
_ENDINGS: Final[tuple[HookName, ...]] = (_FAILED, "on_function_call_end")


class Calls(msgspec.Struct, eq=False, gc=False):
    """The tool calls of one run."""

    given: Assignment[Any]
    expenses: Expenses

    async def carry_out(
        self, calls: Sequence[ToolCall], doubtful: Sequence[ToolCall], errands: Errands
    ) -> AsyncGenerator[list[Event], None]:
        """Carry calls out, and give what happens: first their beginning, then results, as they come.

        Close this generator (`contextlib.aclosing`): that cancels what still runs.

        Args:
            calls: of the last answer.
            doubtful: those that were begun before a crash.
            errands: owns what the tools start.
        """
        given = self.given
        thread = given.thread
        ready = await self._begun(calls, doubtful)
        yield await thread.flush()
        context = given.context_now if given.toolbox.told else given.context  # made only where a tool looks at it
        results = execute(ready, given.toolbox.tools, context, errands, sequential=given.sequential)
        try:
            async for finished in results:
                told = []
                for one in finished:
                    told.append(await self._checked(one) if given.guardrails.checks_results else one)
                    self._add_result(told[-1].call, told[-1].result, told[-1].seconds)
                yield await thread.flush()
                if given.hooks:
                    await self._tell(told)
        finally:
            await results.aclose()

    async def _begun(self, calls: Sequence[ToolCall], doubtful: Sequence[ToolCall]) -> list[ToolCall]:
        """Give the calls to carry out, with an intent in the log for each; the others have their results there."""
        asks = self.given.hooks or self.given.guardrails.checks_calls
        ready: list[ToolCall] = []
        for call in doubtful:
            tool = self.given.toolbox.tools.get(call.name)
            if tool is None or not tool.idempotent:
                self._add_result(call, error_result(call, _MAY_HAVE_HAPPENED))
            elif (allowed := await self._allowed(call)) is not None:
                ready.append(allowed)
        cut = self._cut_call()
        begun: list[ToolCall] = []
        for call in calls:
            if call.id == cut:
                self._add_result(call, error_result(call, _CUT))
            elif (allowed := await self._allowed(call) if asks else call) is not None:
                begun.append(allowed)
        for call in begun:  # none before all are decided on: a stop meanwhile finds that nothing has happened
            self._add(ToolStart(call.id))
        return ready + begun

    async def _tell(self, finished: Sequence[Finished]) -> None:
        """Tell the hooks of calls whose results are in the log."""
        given = self.given
        for one in finished:
            for name in _ENDINGS if one.result.is_error else _ENDINGS[1:]:
                if name in given.hooks:
                    event = FunctionCallEnd(
                        context=given.context_now, call=one.call, result=one.result, seconds=one.seconds
                    )
                    await given.hooks.call(name, event)

    def _cut_call(self) -> str | None:
        """The id of the call in whose middle the last answer reached its token limit: it is the answer's last."""
        tail = self.given.thread.tail
        cut = tail.run is not None and tail.run.last is not None and tail.run.last.finish_reason in CUT
        return next(reversed(tail.pending)) if cut and tail.pending else None

    async def _allowed(self, call: ToolCall) -> ToolCall | None:
        """Ask hooks and guardrails about a call, which have the last word; a refused one then has its result."""
        given, guardrails = self.given, self.given.guardrails
        decision: object = None
        if "on_function_call_start" in given.hooks:
            event = FunctionCallStart(context=given.context_now, call=call)
            decision = await given.hooks.call("on_function_call_start", event)
        allowed = decision.model_copy(update={"id": call.id}) if isinstance(decision, ToolCall) else call
        if guardrails.checks_calls and not isinstance(decision, Veto):
            tool, said = given.toolbox.tools.get(allowed.name), given.thread.tail.messages
            decision = await guardrails.check_call(given.context_now, allowed, tool, said, self.expenses.ask)
            allowed = decision if isinstance(decision, ToolCall) else allowed
        if isinstance(decision, Veto):
            result = error_result(call, f"This call was not allowed: {decision.reason}")
            self._add_result(call, result)
            if _FAILED in given.hooks:
                told = FunctionCallEnd(context=given.context_now, call=call, result=result, seconds=0.0, refused=True)
                await given.hooks.call(_FAILED, told)
            return None
        return allowed

    async def _checked(self, one: Finished) -> Finished:
        """Give a result as the guardrails want it."""
        given = self.given
        tool = given.toolbox.tools.get(one.call.name)
        result = await given.guardrails.check_result(given.context_now, one.call, one.result, tool, self.expenses.ask)
        return one if result is one.result else msgspec.structs.replace(one, result=result)

    def _add_result(self, call: ToolCall, result: ToolResult, seconds: float = 0.0) -> None:
        times = self.given.thread.tail.repeats.get(call.id, 1)
        if times >= REPEATS:
            said = f"\n[This is the same call with the same arguments in {times} turns running. Do something else.]"
            result = result.model_copy(update={"parts": (*result.parts, TextPart(text=said))})
        self._add(ToolEnd(result, seconds))

    def _add(self, body: Body) -> None:
        self.given.thread.add(self.given.context.run_id, body)
