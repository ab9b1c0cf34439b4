"""What a model's answer comes to: whether it is whole, declined, or of the type that was asked for.

Pure functions of an answer; what a run does with them is the loop's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from plait.errors import EmptyAnswer, OutputInvalid, Refused, StreamTruncated, excerpt
from plait.events import CUT, DECLINED, MAY_BE_EMPTY, Answer, Fold
from plait.log import says_something
from plait.messages import AssistantMessage

if TYPE_CHECKING:
    from plait.entries import MessageEntry
    from plait.schema import OutputSchema


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


def raise_refusal(last: MessageEntry) -> None:
    """Make sure that an answer is one in which neither the model nor the provider's filter declined.

    Raises:
        Refused: it is.
    """
    message = last.message
    if message.refusal or last.finish_reason in DECLINED:
        text = message.refusal or message.text
        provider = provider_of(last)
        if message.refusal or not text:
            msg = f"the model declined to answer{': ' if text else ''}{excerpt(text)}"
        else:
            msg = f"the provider's content filter cut the answer short, after: {excerpt(text)}"
        raise Refused(msg, text=text, provider=provider)


def validated(last: MessageEntry, output: OutputSchema[Any]) -> object:
    """Give the value of the output type that an answer's text stands for.

    Raises:
        OutputInvalid: the answer was cut by its token limit; or it does not fit, which asking again (``retryable``)
            may mend.
    """
    text = last.message.text
    provider = provider_of(last)
    if last.finish_reason in CUT:
        msg = f"the answer reached its token limit before it was a whole {output.name}: {excerpt(text, 80)}"
        raise OutputInvalid(msg, text=text, provider=provider)
    try:
        return output.validate(text)
    except OutputInvalid as error:
        error.retryable, error.provider = True, provider
        raise


def provider_of(last: MessageEntry) -> str | None:
    """Name the provider that gave an answer."""
    return last.message.provider if isinstance(last.message, AssistantMessage) else None
