"""Having messages summarised that leave the context window: asking the model, in rounds, and the note in the log.

What is asked is made in `plait.context.summaries`; when it is wanted, a trimmer says. A summary that cannot be had is
no failure of the run: the messages are only left out, and the trimmer asks again.
"""

from __future__ import annotations

import logging
from bisect import bisect_right
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any, Final

from plait.context.summaries import summary_request
from plait.counting import SIMPLE
from plait.entries import ContextNote
from plait.errors import ConfigurationError, LimitExceeded
from plait.events import CUT
from plait.expenses import SUMMARY
from plait.guardrails.provenance import mark_text
from plait.providers.base import Request, Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from plait.assignment import Assignment
    from plait.context.trimmed import Unsummarised
    from plait.context.window import ContextWindow
    from plait.events import Usage
    from plait.expenses import Expenses
    from plait.log import Tail
    from plait.messages import Message

logger = logging.getLogger("plait.run")

_MOST_INPUT: Final = 16_000
"""The most tokens of what is summarised in one request."""

_LEAST_INPUT: Final = 4_000
"""As many may always be summarised in one: a smaller window says what is wanted, and not what a model can take."""

_THOUGHT: Final = 1_000
"""Tokens that a model may think before it writes a summary."""


async def summarise(
    given: Assignment[Any], expenses: Expenses, wanted: Unsummarised, window: ContextWindow
) -> str | None:
    """Have messages summarised, and note it in the log; gives the text to send, None where there is none.

    Args:
        given: the run.
        expenses: asks the model, within what the budgets leave for such requests.
        wanted: what is to be summarised. What does not fit into one request is worked in by further ones.
        window: says how long requests and summaries may be.
    """
    limit = max(_LEAST_INPUT, min(_MOST_INPUT, window.max_tokens or _MOST_INPUT))
    settings = Settings(max_tokens=window.summary_bound + _THOUGHT)
    counter, bound = given.counter or SIMPLE, window.summary_bound
    text, rest = wanted.earlier, wanted.messages
    used: list[Usage] = []
    try:
        while rest:
            asked, taken = summary_request(text, rest, limit, counter=counter, most=bound)
            request = Request(messages=asked, settings=settings, stream=False)
            answer = await expenses.ask(request, given.provider, SUMMARY)
            used += [answer.usage] if answer.usage is not None else []
            text, rest = answer.message.text.strip(), rest[taken:]
            if not text or answer.finish_reason in CUT:
                _go_without(given, used, "the summary was cut" if text else "the summary is empty")
                return None
    except Exception as error:  # noqa: BLE001  # a provider may be anybody's
        ours = isinstance(error, LimitExceeded | ConfigurationError)  # of others the words may be the model's
        _go_without(given, used, str(error) if ours else type(error).__name__)
        return None
    numbers = _numbers(given.thread.tail)[wanted.since : wanted.upto]
    before = given.thread.tail.summary if wanted.earlier is not None else None
    first = min(numbers[0], before.first) if before is not None else numbers[0]
    note = ContextNote(
        by=SUMMARY, summary=text or "", first=first, last=numbers[-1], usage=reduce(add, used) if used else None
    )
    given.thread.add(given.context.run_id, note)
    return as_sent(given, note.summary)


def _go_without(given: Assignment[Any], used: Sequence[Usage], why: str) -> None:
    """Go on without a summary; what was asked in vain is noted."""
    logger.warning("earlier messages could not be summarised and are left out: %s", why)
    if used:
        given.thread.add(given.context.run_id, ContextNote(by=SUMMARY, usage=reduce(add, used)))


def as_sent(given: Assignment[Any], summary: str) -> str:
    """Give a summary as it is sent: it may quote what others wrote, and is marked where such texts are."""
    return mark_text(summary, SUMMARY) if given.guardrails.mark_untrusted else summary


def end_of(note: ContextNote, tail: Tail) -> int:
    """Give the index in `Tail.sendable` behind the last message that a summary hides."""
    return bisect_right(_numbers(tail), note.last)


def _numbers(tail: Tail) -> list[int]:
    """Give for each message to send the number of its entry; system text, which was moved to the front, has none."""
    sent = tail.sendable()
    if len(sent) == len(tail.messages) and all(map(_same, sent, tail.messages)):
        return tail.numbers
    by_message = {id(message): n for message, n in zip(tail.messages, tail.numbers, strict=True)}
    return [0 if message.role == "system" else by_message.get(id(message), tail.n) for message in sent]


def _same(one: Message, other: Message) -> bool:
    return one is other
