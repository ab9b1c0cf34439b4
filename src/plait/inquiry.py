"""One request under way: what was asked, what came of it so far, and what that took.

Knows nothing of how the answer comes, or of what is done with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from plait.counting import SIMPLE, message_tokens, output_tokens, tools_tokens
from plait.errors import ConfigurationError
from plait.events import Fold, Usage
from plait.plain import to_json
from plait.providers.base import Request
from plait.purse import Reservation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from plait.counting import Counter
    from plait.messages import Message
    from plait.providers.base import Settings, ToolDefinition
    from plait.purse import Took
    from plait.schema import OutputSchema


class Inquiry(msgspec.Struct, eq=False, gc=False):
    """What a model was asked, and what it has answered so far.

    Attributes:
        request: as it is sent.
        fold: what has come.
        reservation: what is reserved for it, where there are budgets.
        tokens: an estimate of its input, where one was made; for learning how good it was.
        unseen: what has come and is held back until it was checked.
        refused: why a check refused the answer.
    """

    request: Request
    fold: Fold
    reservation: Reservation | None = None
    tokens: int | None = None
    unseen: Fold | None = None
    refused: str | None = None

    @property
    def come(self) -> Fold:
        """What has come, shown or held back."""
        return self.fold if self.unseen is None else self.unseen

    @property
    def begun(self) -> bool:
        """Whether anything has come of an answer, or of its figures."""
        return self.come.usage is not None or self.received() > 0

    @property
    def waiting(self) -> bool:
        """Whether no request is under way and nothing has come: the last try failed, and the next is yet to be sent."""
        losses = self.request.losses
        return losses is not None and losses.waiting and not self.begun

    def lost(self) -> list[Took]:
        """Say what tries took that failed before, and may be charged: what they told, else the input that was sent."""
        losses = self.request.losses
        if losses is None or not losses.lost:
            return []
        sent = Usage(input_tokens=input_tokens(self.request))
        guess = {"cost": None, "estimated": True}
        return [(one.provider, one.model, (one.usage or sent).model_copy(update=guess)) for one in losses.lost]

    def partial(self) -> Message | None:
        """Give the answer as far as it came, without calls, which may be half received; None if there is none."""
        try:
            message = self.fold.answer(calls=False).message
        except ConfigurationError:  # its provider gave what cannot be kept
            return None
        return message if message.parts else None

    def taken(self) -> Usage:
        """Say what a request took: the input that was sent, and the output that was received.

        It is our estimate where the provider had not told all of it, which most do at the end only.
        """
        if self.waiting:
            return Usage(requests=0)
        told = self.come.usage
        if told is not None and self.come.finished:
            return told
        told = told or Usage()
        return told.model_copy(
            update={
                "input_tokens": told.input_tokens or input_tokens(self.request),
                "output_tokens": max(told.output_tokens, self.received()),
                "cost": None,  # what was told in the middle of an answer is too little
                "estimated": True,
            }
        )

    def received(self) -> int:
        """Estimate the tokens of what was received, half received calls included; no answer has more than it may."""
        most = self.request.settings.max_tokens
        try:
            messages = [answer.message for answer in self.come.answers()]
        except ConfigurationError:
            return 0
        counted = [message_tokens(message, SIMPLE) for message in messages if message.parts]
        return sum(counted if most is None else [min(tokens, most) for tokens in counted])


def input_tokens(request: Request, counter: Counter = SIMPLE) -> int:
    """Count the tokens of a request: its messages, and what is sent beside them."""
    of_messages = sum([message_tokens(message, counter) for message in request.messages])
    return of_messages + fixed_tokens(request.tools, request.output, request.settings, counter)


def fixed_tokens(
    tools: Sequence[ToolDefinition],
    output: OutputSchema[Any] | None,
    settings: Settings,
    counter: Counter = SIMPLE,
    *,
    system: Message | None = None,
) -> int:
    """Count what is sent beside the messages: definitions of tools, the form of the answer, and fields of one's own.

    With an agent's system prompt, if it is given: it is sent with each request, and is none of the thread's messages.

    Fields of the request that plait does not know (``extra``) may be read by the model, such as the provider's own
    tools, so they are counted as JSON.
    """
    of_output = output_tokens(output, counter) if output is not None else 0
    of_extra = counter.count(to_json(settings.extra).decode()) if settings.extra else 0
    of_system = message_tokens(system, counter) if system is not None else 0
    return tools_tokens(tools, counter) + of_output + of_extra + of_system
