"""What the model is asked in a turn: the messages that are chosen, and the request as the hooks want it.

Knows the thread and the strategy that chooses from it; knows nothing of how the answer comes, or what is done with it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec

from plait.assignment import Assignment
from plait.hooks import BeforeRequest, Veto
from plait.providers.base import Request, Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from plait.messages import Message


class Composer(msgspec.Struct, eq=False):
    """Makes the requests of one run."""

    given: Assignment[Any]
    _later: Settings | None = None

    async def request(self, turn: int) -> Request | Veto:
        """Make the request of a turn; a `Veto` where a hook does not want it to be sent."""
        given = self.given
        messages = self._messages()
        request = Request(
            messages=messages,
            tools=given.toolbox.definitions,
            output=given.output,
            settings=given.settings if turn == 1 else self._later_settings(),
            stream=self._streams(),
            earlier=self._earlier(messages),
        )
        if "on_before_request" not in given.hooks:
            return request
        event = BeforeRequest(context=given.context_now, request=request, turn=turn)
        decision = await given.hooks.call("on_before_request", event)
        return decision if isinstance(decision, Request | Veto) else request

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

    def _messages(self) -> list[Message]:
        given = self.given
        messages: Sequence[Message] = given.thread.tail.sendable()
        if self._ends_cut():
            messages = messages[:-1]  # the answer is asked for anew, not to be continued in the middle
        if given.strategy is not None:
            messages = given.strategy.choose(messages)
        return [given.system, *messages] if given.system is not None else list(messages)

    def _ends_cut(self) -> bool:
        """Whether the thread ends with an answer of this run that was cut off."""
        tail = self.given.thread.tail
        last = tail.run.last if tail.run else None
        return last is not None and last.cut is not None and tail.messages[-1] is last.message

    def _earlier(self, messages: Sequence[Message]) -> int:
        """Count the messages to send that were said before this run; those of the run come last."""
        tail = self.given.thread.tail
        of_run = len(tail.messages) - tail.run.first if tail.run else 0
        return max(0, len(messages) - of_run + self._ends_cut())
