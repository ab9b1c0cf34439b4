"""Answers that nobody sees before they were checked, where an agent has checks of its output.

Stands between a provider and the loop: what comes is held back until the answer is whole, and then given as the checks
want it. Knows nothing of logs and limits.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from plait.errors import PlaitError, ProtocolViolation
from plait.events import (
    AttemptDelta,
    DetailsDelta,
    FinishDelta,
    Fold,
    ModelDelta,
    PartDelta,
    TextDelta,
    ToolCallDelta,
    UsageDelta,
)
from plait.hooks import Veto
from plait.messages import AssistantMessage, TextPart, ToolCall
from plait.outcome import whole_answer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable

    from plait.assignment import Assignment
    from plait.events import Answer, Delta
    from plait.guardrails.checks import Ask
    from plait.inquiry import Inquiry


async def checked(given: Assignment[Any], inquiry: Inquiry, ask: Ask) -> AsyncGenerator[list[Delta], None]:
    """Ask the model, and give its answer, in one piece, once the checks of the output have seen it whole.

    Of an answer that they refuse nothing is given but its end, and ``inquiry.refused`` says why.

    Args:
        given: the run.
        inquiry: what is asked.
        ask: asks another model for a check.

    Raises:
        ModelError: see `Provider.stream` and `whole_answer`; it tells nothing of what had come.
    """
    held: list[Delta] = []
    provider = given.provider
    unseen = inquiry.unseen = Fold(provider.name, provider.model)
    try:
        async with aclosing(provider.stream(inquiry.request)) as answers:
            async for deltas in answers:
                unseen.add(deltas)
                held += deltas
        answer = whole_answer(unseen, provider.name)
    except PlaitError as error:
        raise _without_words(error) from None
    verdict = await given.guardrails.check_output(given.context_now, answer.message, ask)
    if isinstance(verdict, Veto):
        inquiry.refused = verdict.reason
        verdict = answer.message.model_copy(update={"parts": (), "details": {}})
    yield _of_the_first(held, unseen) if verdict is answer.message else _deltas(answer, verdict)


def _without_words(error: PlaitError) -> PlaitError:
    """Take out of an error what it tells of an answer that nobody has checked."""
    error.partial = None
    if isinstance(error, ProtocolViolation):
        error.excerpt = ""
        error.args = (f"{error.provider or 'the provider'} gave an answer that is not what its protocol says",)
    return error


def _of_the_first(held: Iterable[Delta], whole: Fold) -> list[Delta]:
    """Give what came of the first answer of several, as it came, without attempts that are void."""
    given: list[Delta] = []
    for delta in held:
        if type(delta) is AttemptDelta:
            given.clear()
        elif type(delta) is not UsageDelta and not getattr(delta, "choice", 0):
            given.append(delta)
    if whole.usage is not None:  # that of void attempts, too
        given.insert(len(given) - 1, UsageDelta(whole.usage))
    return given


def _deltas(answer: Answer, message: AssistantMessage) -> list[Delta]:
    """Give an answer whose message is another now."""
    made: list[Delta] = [ModelDelta(message.model or "", answer.response_id, message.provider or "")]
    index = 0
    for part in message.parts:
        if isinstance(part, ToolCall):
            made.append(ToolCallDelta(index, part.id, part.name, part.arguments, details=dict(part.details) or None))
            index += 1
            continue
        if isinstance(part, TextPart) and not part.refusal:
            made.append(TextDelta(part.text))
        if not isinstance(part, TextPart) or part.refusal or part.details:
            made.append(PartDelta(part))  # type: ignore[arg-type]  # the others are those that an answer can have
    if message.details:
        made.append(DetailsDelta(dict(message.details)))
    if answer.usage is not None:
        made.append(UsageDelta(answer.usage))
    return [*made, FinishDelta(answer.finish_reason or "stop")]
