"""What a run spends: each request is reserved from its budgets before it is sent, and settled after.

Asks the models that help a run: those of checks and summaries. Knows nothing of what the run asks its own model, nor of
what is done with an answer.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

import msgspec

from plait.assignment import Assignment
from plait.entries import ContextNote
from plait.errors import LimitExceeded
from plait.events import Answer, Fold, Usage
from plait.guardrails.checks import ask
from plait.hooks import BudgetExceeded
from plait.inquiry import Inquiry, input_tokens
from plait.limits import Exceeded
from plait.purse import Purse
from plait.scopes import settle
from plait.store.ledger import NANOS

if TYPE_CHECKING:
    from plait.providers.base import Provider, Request
    from plait.purse import Reservation


SUMMARY: Final = "summary"
"""Who asks for a summary, which has a note of its own."""


class Expenses(msgspec.Struct, eq=False, gc=False):
    """The expenses of one run; of one without budgets they are only priced."""

    given: Assignment[Any]
    purse: Purse | None
    early: list[ContextNote] = msgspec.field(default_factory=list)  # noted before the log knew of the run

    @classmethod
    def of(cls, given: Assignment[Any]) -> Expenses:
        """Give those of a run that begins or goes on."""
        if not given.budgets or given.prices is None or given.ledger is None:
            return cls(given, None)
        context = given.context
        whose = {"user_id": context.user_id, "thread_id": context.thread_id, "run_id": context.run_id}
        return cls(given, Purse(given.budgets, given.prices, given.ledger, **whose))

    async def reserved(self, request: Request, tokens: int | None, turn: int) -> Inquiry | Exceeded:
        """Reserve what a request of the run may use; gives it as it is to be sent, or the budget that has no room.

        Args:
            request: what is to be asked.
            tokens: an estimate of its input, where one was made already.
            turn: of which turn.

        Raises:
            ConfigurationError: a price is not known.
            StoreUnavailable: the accounts cannot be reached; nothing may be sent.
        """
        provider = self.given.provider
        fold = Fold(provider.name, provider.model)
        if self.purse is None:
            return Inquiry(request, fold)
        estimate = input_tokens(request) if tokens is None else tokens
        taken = await self.purse.reserve(request, provider, estimate)
        if isinstance(taken, Exceeded):
            await self._tell(taken, turn)
            return taken
        return Inquiry(taken.request, fold, taken)

    async def answered(self, inquiry: Inquiry, answer: Answer, turn: int) -> Answer:
        """Settle a whole answer; gives it with what it cost."""
        message = answer.message
        usage, who, model = answer.usage, message.provider or "", message.model or ""
        prices = self.given.prices
        if prices is not None and usage is not None:
            if not prices.loaded:
                await prices.load()
            cost = prices.cost(who, model, usage)
            if cost != usage.cost:
                usage = usage.model_copy(update={"cost": cost})
                answer = msgspec.structs.replace(answer, usage=usage)
        if inquiry.reservation is not None:
            used = usage or inquiry.taken()
            for exceeded in await inquiry.reservation.settle(used, provider=who, model=model):
                await self._tell(exceeded, turn)
        return answer

    async def broken_off(self, inquiry: Inquiry, error: BaseException | None) -> Usage:
        """Settle a request that came to no whole answer; gives what it took, which is an estimate.

        Args:
            inquiry: the request.
            error: what it failed with; None for a stop.
        """
        used, fold = inquiry.taken(), inquiry.fold
        if self.given.prices is not None and self.given.prices.loaded:
            cost = self.given.prices.cost(fold.provider, fold.model, used)
            used = used.model_copy(update={"cost": cost})
        if inquiry.reservation is not None:
            who = {"provider": fold.provider, "model": fold.model}
            await inquiry.reservation.broke_off(error, used, begun=inquiry.begun, **who)
        return used

    async def ask(self, request: Request, provider: Provider, by: str) -> Answer:
        """Ask a model that helps the run, within what the budgets leave; what a check took is noted in the log.

        Args:
            request: what it is asked.
            provider: who.
            by: on behalf of whom: ``"summary"``, or the name of a check.

        Raises:
            LimitExceeded: a budget has no room for it.
            ModelError: it could not be asked, or gave no whole answer.
        """
        reservation: Reservation | None = None
        if self.purse is not None:
            taken = await self.purse.reserve(request, provider, input_tokens(request), auxiliary=True)
            if isinstance(taken, Exceeded):
                raise LimitExceeded(str(taken), limit=float(taken.limit))
            reservation, request = taken, taken.request
        try:
            answer = await ask(request, provider, by)
        except BaseException as error:
            if reservation is not None:
                used = Inquiry(request, Fold(provider.name, provider.model)).taken()
                begun = getattr(error, "partial", None) is not None
                await settle(partial(reservation.broke_off, error, used, begun=begun))
            raise
        inquiry = Inquiry(request, Fold(provider.name, provider.model), reservation)
        answer = await self.answered(inquiry, answer, 0)
        if by != SUMMARY and answer.usage is not None:
            self._note(ContextNote(by=by, usage=answer.usage))
        return answer

    def _note(self, note: ContextNote) -> None:
        run = self.given.thread.tail.run
        if run is not None and run.run_id == self.given.context.run_id:
            self.given.thread.add(run.run_id, note)
        else:
            self.early.append(note)

    async def _tell(self, exceeded: Exceeded, turn: int) -> None:
        given = self.given
        if "on_budget_exceeded" not in given.hooks:
            return
        spent = exceeded.spent.nanos / NANOS if exceeded.unit == "USD" else exceeded.spent.tokens
        event = BudgetExceeded(
            context=given.context_now,
            reason=str(exceeded),
            per=exceeded.budget.key or exceeded.budget.per,
            unit=exceeded.unit,
            limit=float(exceeded.limit),
            spent=float(spent),
            needed=float(exceeded.needed),
            stops=exceeded.budget.stop,
            turn=turn,
        )
        await given.hooks.call("on_budget_exceeded", event)
