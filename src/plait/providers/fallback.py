"""Asking another provider when one fails. Knows no dialect, and nothing of waiting or asking the same one again."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from plait.errors import ConfigurationError, ModelError, PlaitError, Refused, excerpt
from plait.events import Fold, ModelDelta
from plait.messages import AssistantMessage
from plait.providers.base import PREAMBLE
from plait.providers.encoding import encoded

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from plait.events import Delta
    from plait.providers.base import Provider, Request
    from plait.providers.encoding import Encoded

logger = logging.getLogger("plait.providers")

_GOES_ON: Final = (ModelError, ConfigurationError)


class Fallback:
    """A provider that asks several in turn, until one of them begins to answer.

    The next one is asked for each failure of asking a model, also for those that trying again would not mend (a wrong
    key, a model that is gone), and for a request that a provider cannot express: nothing was sent then, and the next
    one may take the image, or the setting. A failure is final once the first delta of an answer was handed out. So is
    a refusal, for a model that declines has answered; and whatever else is no failure of a model: an answer above a
    limit of size, a recording that does not match, a cancellation.

    What is no part of an answer yet (who answers, the tokens so far) is handed out with the answer's first delta, so
    that nothing is seen of a provider that failed.

    Attributes:
        providers: who is asked, in this order.
        name: the first one's name. Who answered is said by the answer: `ModelDelta`, ``RunResult.provider``.
        model: the first one's model.
    """

    def __init__(self, *providers: Provider | Sequence[Provider]) -> None:
        """Wrap providers.

        Args:
            *providers: one or more, or one list of them.

        Raises:
            ConfigurationError: there is none, or one of them is no provider.
        """
        listed = len(providers) == 1 and isinstance(providers[0], list | tuple)
        given: Sequence[object] = providers[0] if listed else providers  # type: ignore[assignment]  # just looked at
        self.providers = tuple(_provider(one) for one in given)
        if not self.providers:
            msg = "Fallback needs at least one provider"
            raise ConfigurationError(msg)
        self.name = self.providers[0].name
        self.model = self.providers[0].model

    def __repr__(self) -> str:
        return f"Fallback({', '.join(map(repr, self.providers))})"

    def encoded(self, request: Request) -> Encoded:
        """Give what would be sent first for a request: by the first provider that can express it; see `encoded`.

        Raises:
            ConfigurationError: none of them can; the last one's.
        """
        *others, last = self._in_order(request)
        for provider in others:
            with suppress(ConfigurationError):
                return encoded(provider, request)
        return encoded(last, request)

    async def stream(self, request: Request) -> AsyncGenerator[list[Delta], None]:
        """Answer a request; see `Provider.stream`.

        Raises:
            ModelError: no provider answered, or one broke off: its error, which tells of each that was asked before
                it (``before``); ``attempts`` says how many requests were sent to all of them.
            ConfigurationError: the same, where the last one cannot express the request.
        """
        sent = 0
        before: list[str] = []
        for number, provider in enumerate(self._in_order(request), 1):
            # Who answers, for those that do not say so themselves.
            held: list[Delta] | None = [ModelDelta(provider.model, provider=provider.name)]
            batches = provider.stream(request)
            try:
                async for batch in batches:
                    if held is None:
                        yield batch
                    else:
                        held += batch
                        if any(type(delta) not in PREAMBLE for delta in batch):
                            first, held = held, None
                            yield first
                            del first
                    del batch  # it need not last until the next one comes
            except _GOES_ON as error:
                who = f"{provider.name}:{provider.model}"
                failed = f"{who} failed: {excerpt(str(error))}"
                if isinstance(error, ModelError):
                    sent += error.attempts
                    error.attempts = sent
                if held is None or number == len(self.providers) or isinstance(error, Refused):
                    _tell(error, before)
                    raise
                before.append(failed)
                if request.losses is not None:
                    told = Fold(provider.name, provider.model)
                    told.add(held)
                    request.losses.add(error, provider.name, told.model, told.usage)
                logger.info("%s failed (%s); the next provider is asked", who, type(error).__name__)
            else:
                if held is not None:  # it ended without an answer, which its reader will say
                    yield held
                return
            finally:
                await batches.aclose()

    def _in_order(self, request: Request) -> Sequence[Provider]:
        """Give the providers, the one that paused in the middle of its answer first: only it can go on with it."""
        last = request.messages[-1] if request.messages else None
        if not isinstance(last, AssistantMessage):
            return self.providers
        return sorted(self.providers, key=lambda provider: provider.name != last.provider)


def _tell(error: PlaitError, before: Sequence[str]) -> None:
    """Let an error tell of those that were asked before."""
    if isinstance(error, ModelError):
        error.before = (*before, *error.before)
    else:
        for failed in before:
            error.add_note(f"before it, {failed}")


def _provider(value: Any) -> Provider:
    if not callable(getattr(value, "stream", None)) or not hasattr(value, "model"):
        what = excerpt(repr(value), 60)
        msg = f"Fallback takes provider objects, not {what}; get_provider(['openai', 'anthropic']) makes one of names"
        raise ConfigurationError(msg)
    return value  # type: ignore[no-any-return]  # it was just looked at
