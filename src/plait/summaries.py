"""Summaries of messages that are left out: how they are asked for, and how they stand in what is sent.

What is summarised was said by people, models and tools, so it is data: quoted where it is summarised, and never system
text where the summary is sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from plait.cutting import shortened
from plait.messages import Message, SystemMessage, TextPart, UserMessage
from plait.plain import to_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from plait.counting import Counter

SUMMARY: Final = "plait.summary"
"""Metadata key of the message that stands for those that a summary hides."""

_HEAD: Final = "Summary of earlier messages of this conversation, which are not repeated here:"


def summary_message(text: str) -> Message:
    """Make the message that is sent in place of the summarised ones; its first line says what it is."""
    return UserMessage(text=f"{_HEAD}\n{text}", metadata={SUMMARY: True})


def summary_request_messages(
    earlier: str | None, messages: Sequence[Message], limit: int, *, counter: Counter, most: int = 1000
) -> list[Message]:
    """Make what a model is asked for a summary.

    Args:
        earlier: the summary so far, into which the messages are to be worked; None when there is none.
        messages: what is to be summarised, in order.
        limit: the most tokens of the request. Long messages are cut for it; where that is not enough, the oldest are
            left out, and the request says how many.
        counter: counts them.
        most: how many tokens the summary may have.

    Returns:
        System text with the task, and one user message with the conversation, quoted: a JSON object on each line.
    """
    raise NotImplementedError
