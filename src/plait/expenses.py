"""What a run spends: each request is reserved from its budgets before it is sent, and settled after.

Asks the models that help a run: those of checks and summaries. Knows nothing of what the run asks its own model, nor of
what is done with an answer.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial, reduce
from operator import add
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from plait.assignment import Assignment
from plait.entries import ContextNote
from plait.events import Answer, Fold, Usage
from plait.frozen import assemble
from plait.guardrails.checks import answered
from plait.hooks import BudgetExceeded
from plait.inquiry import Inquiry, input_tokens
from plait.limits import Exceeded, NoRoom
from plait.providers.base import Losses
from plait.purse import Purse, may_be_charged
from plait.scopes import settle

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from plait.log import RunState
    from plait.providers.base import Provider, Request
    from plait.purse import Took

T = TypeVar("T")

REQUEST: Final = "request"
"""Who asks for what the run asks its own model."""
SUMMARY: Final = "summary"
"""Who asks for a summary, which has a note of its own."""


class Expenses(msgspec.Struct, eq=False):
    """The expenses of one run; of one without budgets they are only priced.

    Attributes:
        given: the run.
        purse: what it holds of its budgets; None where there are none.
        early: what was asked before the log knew of the run.
    """

    given: Assignment[Any]
    purse: Purse | None
    early: list[ContextNote] = msgspec.field(default_factory=list)

    @classmethod
    def of(cls, given: Assignment[Any]) -> Expenses:
        """Give those of a run that begins or goes on."""
        if not given.budgets or given.prices is None or given.ledger is None:
            return cls(given, None)
        context = given.context
        whose = {"user_id": context.user_id, "thread_id": context.thread_id, "run_id": context.run_id}
        return cls(given, Purse(given.budgets, given.prices, given.ledger, **whose))

    def unasked(self, request: Request, provider: Provider) -> Inquiry | None:
        """Give a request as it is to be sent where there is no budget to ask; else None."""
        if self.purse is not None:
            return None
        return Inquiry(request, Fold(provider.name, provider.model))

    async def reserved(
        self, request: Request, provider: Provider, tokens: int | None = None, *, auxiliary: bool = False
    ) -> Inquiry | Exceeded:
        """Reserve what a request may use; gives it as it is to be sent, or the budget that has no room for it.

        Args:
            request: what is to be asked.
            provider: who is to be asked.
            tokens: an estimate of its input, where one was made already.
            auxiliary: whether it only helps the run, and may use the reserved part.

        Raises:
            ConfigurationError: a price is not known.
            StoreUnavailable: the accounts cannot be reached; nothing may be sent.
        """
        fold = Fold(provider.name, provider.model)
        if self.purse is None:
            if self.given.prices is not None:
                await self.given.prices.load()
            return Inquiry(request, fold)
        estimate = input_tokens(request) if tokens is None else tokens
        taken = await self.purse.reserve(request, provider, estimate, auxiliary=auxiliary)
        return taken if isinstance(taken, Exceeded) else Inquiry(replace(taken.request, losses=Losses()), fold, taken)

    async def returned(self, inquiry: Inquiry) -> None:
        """Give back what was reserved for a request that was not sent."""
        if inquiry.reservation is not None:
            await _to_its_end(inquiry.reservation.release)

    def priced(self, answer: Answer) -> Answer:
        """Give a whole answer with what it cost."""
        usage, prices, message = answer.usage, self.given.prices, answer.message
        if usage is None or prices is None:
            return answer
        cost = prices.cost(message.provider or "", message.model or "", usage)
        return answer if cost == usage.cost else msgspec.structs.replace(answer, usage=_costing(usage, cost))

    def taken(self, inquiry: Inquiry) -> Usage:
        """Say what a request took that came to no whole answer, with what that cost."""
        used, come, prices = inquiry.taken(), inquiry.come, self.given.prices
        return used if prices is None else _costing(used, prices.cost(come.provider, come.model, used))

    async def settled(self, inquiry: Inquiry, answer: Answer, turn: int, by: str = REQUEST) -> None:
        """Settle a request that was answered.

        Args:
            inquiry: the request.
            answer: the answer, as it is priced.
            turn: of the run.
            by: who asked; what tries took that failed before the answer is noted in the log under this name.
        """
        reservation, message = inquiry.reservation, answer.message
        if reservation is None:
            return
        used, lost = answer.usage or inquiry.taken(), self._lost(inquiry, by)
        close = partial(reservation.settle, used, provider=message.provider, model=message.model, lost=lost)
        for exceeded in await _to_its_end(close):
            await self.tell(exceeded, turn)

    async def broken_off(self, inquiry: Inquiry, used: Usage, error: BaseException | None, by: str = REQUEST) -> None:
        """Settle a request that came to no whole answer.

        Args:
            inquiry: the request.
            used: what it took.
            error: what it failed with; None for a stop.
            by: as for `settled`.
        """
        reservation, come = inquiry.reservation, inquiry.come
        if reservation is None:
            return
        close = partial(
            reservation.broke_off,
            error,
            used,
            begun=inquiry.begun,
            provider=come.provider,
            model=come.model,
            lost=self._lost(inquiry, by),
            waiting=inquiry.waiting,
        )
        await _to_its_end(close)

    def _lost(self, inquiry: Inquiry, by: str) -> list[Took]:
        """Say what tries took that failed, and note it in the log."""
        lost, prices = inquiry.lost(), self.given.prices
        for provider, model, used in lost:
            cost = None if prices is None else prices.cost(provider, model, used)
            self._note(ContextNote(by=by, usage=_costing(used, cost)))
        return lost

    async def ask(self, request: Request, provider: Provider, by: str) -> Answer:
        """Ask a model that helps the run, within what the budgets leave; what a check took is noted in the log.

        Args:
            request: what it is asked.
            provider: who.
            by: on behalf of whom: ``"summary"``, or the name of a check.

        Raises:
            NoRoom: a budget has no room for it. The hooks are told.
            ConfigurationError: its price is not known.
            ModelError: it could not be asked, or gave no whole answer.
        """
        inquiry = await self.reserved(request, provider, auxiliary=True)
        if isinstance(inquiry, Exceeded):
            await self.tell(inquiry, self._turn)
            raise NoRoom(str(inquiry), limit=float(inquiry.limit))
        try:
            answer = self.priced(await answered(inquiry.request, provider, inquiry.fold))
        except BaseException as error:
            used = self.taken(inquiry)
            if may_be_charged(error, begun=inquiry.begun):
                self._note(ContextNote(by=by, usage=used))
            await self.broken_off(inquiry, used, error, by)
            raise
        if by != SUMMARY and answer.usage is not None:
            self._note(ContextNote(by=by, usage=answer.usage))
        await self.settled(inquiry, answer, self._turn, by)
        return answer

    @property
    def _run(self) -> RunState | None:
        """The run in the log, once that knows of it."""
        run = self.given.thread.tail.run
        return run if run is not None and run.run_id == self.given.context.run_id else None

    @property
    def _turn(self) -> int:
        return 0 if (run := self._run) is None else run.turns

    def _note(self, note: ContextNote) -> None:
        if (run := self._run) is None:
            self.early.append(note)
        else:
            self.given.thread.add(run.run_id, note)

    @property
    def usage_before(self) -> Usage | None:
        """What was used before the log knew of the run; None for nothing."""
        return reduce(add, used) if (used := [note.usage for note in self.early if note.usage is not None]) else None

    async def tell(self, exceeded: Exceeded, turn: int) -> None:
        """Tell the hooks of a budget that has no room, or was passed."""
        given = self.given
        if "on_budget_exceeded" not in given.hooks:
            return
        event = BudgetExceeded(
            context=given.context_now,
            reason=str(exceeded),
            per=exceeded.budget.per or exceeded.budget.key or "",
            unit=exceeded.unit,
            limit=float(exceeded.limit),
            spent=float(exceeded.used),
            needed=float(exceeded.needed),
            stops=exceeded.budget.stop,
            turn=turn,
        )
        await given.hooks.call("on_budget_exceeded", event)


def _costing(usage: Usage, cost: float | None) -> Usage:
    return assemble(Usage, usage.__dict__ | {"cost": cost})  # each answer has one: a copy takes seven times as long


async def _to_its_end(close: Callable[[], Coroutine[object, object, T]]) -> T:
    """Settle what may be settled twice: once more, where the run was cancelled in the middle of it."""
    try:
        return await close()
    except asyncio.CancelledError:
        await settle(close)
        raise
