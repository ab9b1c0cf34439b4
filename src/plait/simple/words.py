"""What a service's words mean to an `Agent`: its context window, who it asks, and errors in the words that were used.

Pure; knows no run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Literal

from plait.context.window import ContextWindow
from plait.errors import ConfigurationError, excerpt
from plait.providers.catalog import get_provider, names_provider

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from plait.counting import Counter
    from plait.providers.base import Provider
    from plait.providers.retry import RetryPolicy

DroppingStrategy = Literal["simple", "summary_dropping"]
Where = Mapping[str, str | None]
"""An API's key and address."""

_DROPPING: Final = {"simple": "simple", "summary_dropping": "summary"}
_SAID: Final = {
    "max_tokens_per_message": "max_token_per_message",
    "max_tokens": "max_context_length",
    "last": "max_messages_in_context",
    "keep_tool_calls": "keep_function_calls_in_context",
    "counting": "context_handling_method",
    "overflow_note": "prompt_when_context_overflow",
    "dropped_note": "prompt_when_message_is_dropped",
    "dropping": "dropping_strategy",
}
"""What services call the fields of a `ContextWindow`."""

_FIELD: Final = re.compile(rf"(?<!')\b({'|'.join(_SAID)})\b")
_ELSEWHERE: Final = {
    "StopPoll(every=...)": "check_for_stop_signal_time",
    "StopPoll": "manual_stop_signal_function",
    "tools takes": "tool_registry takes",
    "tools=[": "tool_registry=[",
    "budget takes": "budget_control takes",
}


@contextmanager
def in_the_words_of_services() -> Iterator[None]:
    """Say in errors what the parameters are called that somebody wrote."""
    try:
        yield
    except ConfigurationError as error:
        said = str(error)
        for name, word in _ELSEWHERE.items():
            said = said.replace(name, word)
        if said == str(error):
            raise
        raise ConfigurationError(said) from error


def window_of(
    *,
    counting: str | Counter,
    max_context_length: int | None,
    max_token_per_message: int | None,
    max_messages_in_context: int | None,
    dropping: DroppingStrategy,
    when_it_overflows: str | None,
    when_messages_are_dropped: str | None,
    keep_function_calls: bool,
) -> ContextWindow:
    """Give the window that a service's words mean.

    Raises:
        ConfigurationError: a value cannot be, or two cannot both hold.
    """
    if not isinstance(dropping, str) or dropping not in _DROPPING:
        msg = f"dropping_strategy is 'simple' or 'summary_dropping', not {excerpt(repr(dropping), 60)}"
        raise ConfigurationError(msg)
    notes = {"overflow_note": when_it_overflows, "dropped_note": when_messages_are_dropped}
    try:
        return ContextWindow(
            counting=counting,
            max_tokens=max_context_length,
            max_tokens_per_message=max_token_per_message,
            last=max_messages_in_context,
            dropping=_DROPPING[dropping],  # type: ignore[arg-type]  # the table says it
            keep_tool_calls=keep_function_calls,
            **{name: note for name, note in notes.items() if note is not None},  # type: ignore[arg-type]  # these two
        )
    except ConfigurationError as error:
        said = _FIELD.sub(lambda found: _SAID[found[1]], str(error)).replace("'summary'", "'summary_dropping'")
        raise ConfigurationError(said) from error


def provider_of(
    models: Sequence[str | Provider] | None,
    model: str | None,
    provider: str | Provider | None,
    retry: RetryPolicy | Mapping[str, Any] | int | None,
    where: Where,
) -> Provider:
    """Give who is asked: one provider, or a chain of those that ``models`` names.

    Of a chain, the address and the key are for models that name no provider.

    Raises:
        ConfigurationError: there is none, or one that cannot be asked.
    """
    if models is None:
        return _one(model, provider, retry, where)
    if model is not None or not isinstance(provider, str | None):
        msg = "give models=[...], or one model= or provider object, not both"
        raise ConfigurationError(msg)
    if not isinstance(models, list | tuple) or not models:
        msg = "models is a list of models, in the order in which they are asked, and has at least one"
        raise ConfigurationError(msg)
    return get_provider(
        [
            _one(model, provider, retry, {} if names_provider(model) else where)
            if isinstance(model, str)
            else get_provider(model)
            for model in models
        ]
    )


def _one(
    model: str | None,
    provider: str | Provider | None,
    retry: RetryPolicy | Mapping[str, Any] | int | None,
    where: Where,
) -> Provider:
    """Give one provider: OpenAI, or whoever speaks its language at an address, where nobody is named."""
    if provider is None and not (isinstance(model, str) and names_provider(model)):
        provider = "openai"
    return get_provider(provider, model=model, retry=retry, **where)
