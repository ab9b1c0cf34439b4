"""Guardrails: callables that pass, change or refuse what goes into a run, comes out of it, or is done by its tools.

Unlike a hook, a check that raises, hangs or returns nonsense refuses, unless ``on_failure="open"`` was chosen. Every
refusal names the check, and none repeats an error's words. Knows nothing of the loop that asks.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import msgspec

from plait.callables import Failed, Prepared, prepare
from plait.errors import ConfigurationError, excerpt
from plait.guardrails.checks import (
    AnEvent,
    Ask,
    Check,
    InputCheck,
    OutputCheck,
    ToolCallCheck,
    ToolResultCheck,
    ask,
    changed_by,
)
from plait.guardrails.provenance import UNTRUSTED_NOTE, is_tainted, mark, mark_definition, server_of, source_of
from plait.hooks import Veto
from plait.limits import NoRoom
from plait.messages import AssistantMessage, Message, SystemMessage, TextPart, ToolCall, ToolResult

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from plait.guardrails.judge import InjectionJudge
    from plait.providers.base import ToolDefinition
    from plait.run import RunContext
    from plait.toolbase import Tool

logger = logging.getLogger("plait.guardrails")

OnFailure = Literal["closed", "open"]
Place = Literal["input", "output", "tool_call", "tool_result"]

CHECK_SECONDS: Final = 10.0
APPROVAL_SECONDS: Final = 300.0
"""Seconds for whoever is asked to approve a call: a person may have to be found."""

WITHHELD: Final = "[This answer was withheld by a guardrail.]"
"""What stands in the thread in place of an answer that was refused."""

_NOBODY: Final = (
    "it may have lasting effects, and the conversation holds text that others wrote, so that a person must approve it; "
    "nobody can be asked here"
)
_NOT_APPROVED: Final = "it was put before a person, who did not approve it"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Guardrails:
    """What an agent checks: ``Agent(guardrails=Guardrails(input=[...], output=[...]))``.

    Each check is a function of one event, sync or async, that returns None (pass), a `Veto` (refuse), or what it
    changed. They are called in order; what one changes, the next ones see, and the first refusal ends it. Sync checks
    run on the event loop, so they should be short.

    Attributes:
        input: checks of the prompt (`InputCheck`), before anything is written or sent.
        output: checks of each answer (`OutputCheck`), before anybody sees it. Answers then come in one piece.
        tool_call: checks of each tool call (`ToolCallCheck`), before it is carried out.
        tool_result: checks of what each tool gave (`ToolResultCheck`), before the model reads it.
        on_failure: what a check that raises, hangs or returns nonsense means: ``"closed"`` refuses, ``"open"`` passes,
            and is logged the first time.
        time_limit: seconds that an async check may take.
        mark_untrusted: stand the results of tools, and what MCP servers say of theirs, between marks, and tell the
            model that what stands there is data.
        high_risk: names of tools that need approval once untrusted text is in the thread.
        trusted: names of tools whose results hold nothing that others could write.
        approve: asked about such calls, as a check is (`ToolCallCheck`); only True approves. Without it they are
            refused. It may take 300 seconds, or its attribute ``time_limit``.

    Raises:
        ConfigurationError: a value has the wrong type or is out of range, or a check cannot be called with one event.
    """

    input: Sequence[Check] = ()
    output: Sequence[Check] = ()
    tool_call: Sequence[Check] = ()
    tool_result: Sequence[Check] = ()
    on_failure: OnFailure = "closed"
    time_limit: float = CHECK_SECONDS
    mark_untrusted: bool = False
    high_risk: Collection[str] = ()
    trusted: Collection[str] = ()
    approve: Check | None = None
    _guards: Mapping[Place, tuple[_Guard, ...]] = field(init=False, repr=False)
    _approval: _Guard | None = field(init=False, repr=False, default=None)

    def __post_init__(self) -> None:
        if self.on_failure not in get_args(OnFailure):
            msg = f"Guardrails(on_failure=...) takes 'closed' or 'open', not {excerpt(repr(self.on_failure), 60)}"
            raise ConfigurationError(msg)
        if not _is_seconds(self.time_limit):
            msg = f"Guardrails(time_limit=...) takes seconds above 0, not {excerpt(repr(self.time_limit), 60)}"
            raise ConfigurationError(msg)
        for name in ("high_risk", "trusted"):
            object.__setattr__(self, name, _names(name, getattr(self, name)))
        if both := sorted(set(self.high_risk) & set(self.trusted)):
            msg = f"the tool {both[0]!r} is both high_risk and trusted; what it gives is trusted only where it is safe"
            raise ConfigurationError(msg)
        guards = {}
        for place in get_args(Place):
            checks = _checks(place, getattr(self, place))
            object.__setattr__(self, place, checks)
            guards[place] = tuple(self._guard(place, check, self.time_limit) for check in checks)
        object.__setattr__(self, "_guards", guards)
        if self.approve is not None:
            object.__setattr__(self, "_approval", self._guard("approve", self.approve, APPROVAL_SECONDS))

    def _guard(self, place: str, check: Check, time_limit: float) -> _Guard:
        name = _name_of(check)
        own: Any = getattr(check, "time_limit", None)
        policy = getattr(check, "on_failure", None)
        return _Guard(
            name=name,
            prepared=prepare(f"the {place} check {name!r}", check),
            time_limit=own if _is_seconds(own) else time_limit,
            is_open=(policy if policy in get_args(OnFailure) else self.on_failure) == "open",
        )

    @property
    def checks_input(self) -> bool:
        """Whether `check_input` does anything."""
        return bool(self.input)

    @property
    def checks_output(self) -> bool:
        """Whether `check_output` does anything; then answers are held back until they were checked."""
        return bool(self.output)

    @property
    def checks_calls(self) -> bool:
        """Whether `check_call` does anything."""
        return bool(self.tool_call or self.high_risk)

    @property
    def checks_results(self) -> bool:
        """Whether `check_result` does anything."""
        return bool(self.tool_result or self.mark_untrusted)

    def judged_by(self, judge: InjectionJudge) -> Guardrails:
        """Give these guardrails with a judge behind the other checks of all that it reads."""
        more: dict[str, Any] = {place: (*getattr(self, place), judge) for place in judge.reads}
        return replace(self, **more)

    def check_names(self, tools: Collection[str]) -> None:
        """See that the tools of high risk, and the trusted ones, are there: a misspelt name would protect nothing.

        Args:
            tools: the names of all tools that the agent can have.

        Raises:
            ConfigurationError: one of them is not there.
        """
        for what, names in (("high_risk", self.high_risk), ("trusted", self.trusted)):
            if missing := sorted(set(names).difference(tools)):
                has = excerpt(", ".join(sorted(tools))) or "no tools"
                msg = f"Guardrails({what}=...) names {missing[0]!r}, which is no tool of this agent; it has {has}"
                raise ConfigurationError(msg)

    async def check_input(
        self, context: RunContext[Any], messages: Sequence[Message], ask: Ask = ask
    ) -> tuple[Message, ...] | Veto:
        """Check a prompt. Call it before anything of the run is written: a refused prompt leaves no trace.

        Args:
            context: whose run it is.
            messages: the prompt.
            ask: asks another provider for a check.

        Returns:
            The messages as the checks want them, the newest of the role user; or the first refusal.
        """
        event = InputCheck(context=context, messages=tuple(messages), ask=ask)
        checked = await self._checked("input", event)
        return checked if isinstance(checked, Veto) else checked.messages

    async def check_output(
        self, context: RunContext[Any], message: AssistantMessage, ask: Ask = ask
    ) -> AssistantMessage | Veto:
        """Check an answer. Call it before any piece of it is shown, and before its tool calls are carried out.

        Returns:
            The answer as the checks want it, the same object where they changed nothing; or the first refusal.
        """
        event = OutputCheck(context=context, message=message, ask=ask)
        checked = await self._checked("output", event)
        return checked if isinstance(checked, Veto) else checked.message

    async def check_call(
        self,
        context: RunContext[Any],
        call: ToolCall,
        tool: Tool | None,
        thread: Iterable[Message] = (),
        ask: Ask = ask,
    ) -> ToolCall | Veto:
        """Check a tool call, and ask for approval where its tool is of high risk and the thread is tainted.

        Args:
            context: whose run it is.
            call: the call.
            tool: the tool it names; None where there is none.
            thread: all messages of the thread so far, also those that are no longer sent; read only for a tool of
                high risk.
            ask: asks another provider for a check.

        Returns:
            The call, with arguments as the checks want them; or the first refusal.
        """
        event = ToolCallCheck(context=context, call=call, tool=tool, ask=ask)
        checked = await self._checked("tool_call", event)
        if isinstance(checked, Veto):
            return checked
        if call.name in self.high_risk and is_tainted(thread, self.trusted):
            return await self._approved(checked) or checked.call
        return checked.call

    async def check_result(
        self,
        context: RunContext[Any],
        call: ToolCall,
        result: ToolResult,
        tool: Tool | None = None,
        ask: Ask = ask,
    ) -> ToolResult:
        """Check what a tool gave, and mark it where that was asked for. Call it before the result is written.

        Returns:
            The result as the checks want it; an error result that says why, where it was refused.
        """
        event = ToolResultCheck(context=context, call=call, result=result, ask=ask)
        checked = await self._checked("tool_result", event)
        if isinstance(checked, Veto):
            said = f"The result of this call was withheld: {checked.reason}."
            return ToolResult(call_id=result.call_id, name=result.name, text=said, is_error=True)
        return mark(checked.result, source_of(call.name, tool)) if self.mark_untrusted else checked.result

    def instructions(self, system: SystemMessage | None) -> SystemMessage | None:
        """Give the system text with what the model must know of marks, where texts are marked."""
        if not self.mark_untrusted:
            return system
        if system is None:
            return SystemMessage(text=UNTRUSTED_NOTE)
        return system.model_copy(update={"parts": (*system.parts, TextPart(text=f"\n\n{UNTRUSTED_NOTE}"))})

    def definitions(self, definitions: Sequence[ToolDefinition], tools: Mapping[str, Tool]) -> Sequence[ToolDefinition]:
        """Give what the model is told of its tools, with what MCP servers say of theirs marked where that was asked."""
        if not self.mark_untrusted or not any(map(server_of, tools.values())):
            return definitions
        return tuple([_marked(definition, tools.get(definition.name)) for definition in definitions])

    async def _checked(self, place: Place, event: AnEvent) -> AnEvent | Veto:
        """Ask the checks of one place in order; what one changes, the next ones see."""
        for guard in self._guards[place]:
            answer = await guard.prepared.call(event, guard.time_limit)
            if answer is None:
                continue
            if isinstance(answer, Veto):
                return guard.refusal(answer)
            changed = None if isinstance(answer, Failed) else changed_by(event, answer)
            if changed is not None:
                event = changed
            elif not guard.is_open or _had_no_room(answer):
                return guard.failure(answer)
            else:
                guard.log_once(answer)
        return event

    async def _approved(self, event: ToolCallCheck) -> Veto | None:
        """Ask for approval of a call; nothing but True approves, whatever ``on_failure`` says."""
        guard = self._approval
        if guard is None:
            return Veto(reason=_NOBODY)
        answer = await guard.prepared.call(event, guard.time_limit)
        if answer is True:
            return None
        if answer is False:
            return Veto(reason=_NOT_APPROVED)
        return guard.refusal(answer) if isinstance(answer, Veto) else guard.failure(answer)


class _Guard(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A check with what was found out about it when the guardrails were made."""

    name: str
    prepared: Prepared
    time_limit: float
    is_open: bool

    def refusal(self, veto: Veto) -> Veto:
        return Veto(reason=f"refused by the check {self.name!r}: {veto.reason}")

    def failure(self, answer: object) -> Veto:
        return Veto(
            reason=f"the check {self.name!r} failed, and what it could not check is refused: {self.why(answer)}"
        )

    def why(self, answer: object) -> str:
        """Say what went wrong: in the words of an error only where they are plait's own."""
        if not isinstance(answer, Failed):
            return f"it returned {type(answer).__name__}"
        if answer.said:
            return answer.said
        return f"{answer.error}; it may take {self.time_limit:g} s" if answer.late else answer.error

    def log_once(self, answer: object) -> None:
        if not self.prepared.is_reported:
            self.prepared.is_reported = True
            logger.warning("the check %s failed, and what it could not check passes: %s", self.name, self.why(answer))


def _had_no_room(answer: object) -> bool:
    """Whether a budget kept a check from asking: else whoever uses a budget up would switch its checks off."""
    return isinstance(answer, Failed) and answer.kind is not None and issubclass(answer.kind, NoRoom)


def _marked(definition: ToolDefinition, tool: Tool | None) -> ToolDefinition:
    return definition if server_of(tool) is None else mark_definition(definition, source_of(definition.name, tool))


def _checks(place: str, given: object) -> tuple[Check, ...]:
    if isinstance(given, str) or not isinstance(given, Iterable):
        msg = (
            f"Guardrails({place}=...) takes a list of functions, not {type(given).__name__}; put a single one in [...]"
        )
        raise ConfigurationError(msg)
    return tuple(given)


def _names(what: str, given: object) -> frozenset[str]:
    names = None if isinstance(given, str) or not isinstance(given, Iterable) else tuple(given)
    if names is None or not all(isinstance(name, str) for name in names):
        msg = f"Guardrails({what}=...) takes the names of tools in a list, not {excerpt(repr(given), 60)}"
        raise ConfigurationError(msg)
    return frozenset(names)


def _is_seconds(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


def _name_of(check: object) -> str:
    """Give what refusals call a check: its own ``name``, else that of its function or class."""
    while isinstance(check, partial):
        check = check.func
    for own in (getattr(check, "name", None), getattr(check, "__name__", None)):
        if isinstance(own, str) and own:
            return own
    return type(check).__name__


NO_GUARDRAILS: Final = Guardrails()
