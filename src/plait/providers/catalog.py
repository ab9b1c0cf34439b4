"""Which providers can be named, and making one of a name.

Where vendors are and which keys they need is theirs to know (`plait.providers.vendors`); which model is asked for
when none is named stands in `plait.providers.models`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import import_module
from inspect import signature
from typing import TYPE_CHECKING, Any, Final

from plait.errors import ConfigurationError, excerpt
from plait.providers.models import MODELS, OpenRouterModel, maker_of, model_named

if TYPE_CHECKING:
    from pathlib import Path

    from plait.providers.base import Provider
    from plait.providers.retry import RetryPolicy
    from plait.providers.vendors import Vendor

OFFLINE: Final = "offline"
REPLAY: Final = "replay"
"""The name of the provider that answers from a recording; what follows its colon is the file."""

_SECRET: Final = frozenset({"api_key", "headers"})
"""Arguments whose values no error shows."""

ProviderMaker = Callable[..., "Provider"]
"""Makes a provider: called with ``model`` and with whatever else was given to `get_provider`."""

# The class of each dialect; their modules bring the HTTP library, 0.1 s to import.
_DIALECTS: Final = {
    "chat": ("plait.providers.chat", "ChatProvider"),
    "responses": ("plait.providers.responses", "ResponsesProvider"),
    "anthropic": ("plait.providers.anthropic", "AnthropicProvider"),
    "ollama": ("plait.providers.ollama", "OllamaProvider"),
}
REGISTERED: Final[dict[str, Vendor | ProviderMaker]] = {}
"""What `register_provider` was given."""


def register_provider(name: str, provider: Vendor | ProviderMaker, *, model: str | None = None) -> None:
    """Make a provider known by name, for `get_provider` and for every ``provider=``.

    Args:
        name: the name: letters, digits, ``-`` and ``_``.
        provider: a `Vendor`, which says where a service is and which dialect it speaks; or a function or class that
            makes a provider, called with ``model=`` and whatever else is given to `get_provider`.
        model: the model to ask for when none is named.

    Raises:
        ConfigurationError: the name cannot be used, or means another provider already.
    """
    from plait.providers.vendors import VENDORS, Vendor

    if not isinstance(name, str) or not name.replace("-", "").replace("_", "").isalnum():
        msg = f"a provider's name has letters, digits, '-' and '_' only; {excerpt(repr(name), 60)} has not"
        raise ConfigurationError(msg)
    if not (isinstance(provider, Vendor) or callable(provider)):
        msg = f"provider {name!r} must be a Vendor, or a function that makes a provider, not {type(provider).__name__}"
        raise ConfigurationError(msg)
    if name in (OFFLINE, REPLAY) or VENDORS.get(name, REGISTERED.get(name, provider)) != provider:
        msg = f"there is a provider {name!r} already; register yours under another name"
        raise ConfigurationError(msg)
    REGISTERED[name] = provider
    if isinstance(provider, Vendor):
        VENDORS[name] = provider
    if model is not None:
        MODELS[name] = model


def get_provider(
    name: str | Provider | Sequence[str | Provider] | None = None,
    *,
    model: str | None = None,
    api_key: str | None = None,
    base_url: str | None = None,
    retry: RetryPolicy | Mapping[str, Any] | int | None = None,
    record_to: str | Path | None = None,
    **options: Any,
) -> Provider:
    """Make a provider by name.

    Args:
        name: ``"openai"``, or ``"openai:gpt-4o"`` with the model; a provider object, which is given back; or a list of
            these, each asked when the one before it fails (see `Fallback`). Without one: what ``model`` names
            (``"openai:gpt-4o"``), else OpenAI's dialect at ``base_url``, else the provider whose key is set in the
            environment.
        model: the model's name, or a registered one (`register_model`); without one the provider's default.
        api_key: its key; without one the provider's usual environment variable is read.
        base_url: where it is; without one its own address.
        retry: when it is asked again: a policy, a number of further requests, or a table (see
            `RetryPolicy.from_strategy`); `RetryPolicy()` without one.
        record_to: a file to which every exchange is appended, for ``provider="replay:file"``.
        **options: what else the provider takes: ``headers`` and ``limits`` for those asked over HTTP, ``script`` or
            ``function`` for the offline one, anything for registered ones.

    Raises:
        ConfigurationError: the provider is unknown, no key is set, or an argument is of the wrong type.
    """
    for what, value in (("model", model), ("api_key", api_key), ("base_url", base_url)):
        if value is not None and not isinstance(value, str):
            msg = f"{what} must be a text, not {type(value).__name__}"
            raise ConfigurationError(msg)
    if retry is not None:
        _policy(retry)
    made: Provider
    if name is None or isinstance(name, str):
        vendor, said = _names(name, model, base_url)
        made = _made(vendor, said, {"api_key": api_key, "base_url": base_url, "retry": retry}, options)
    else:
        more = {"model": model, "api_key": api_key, "base_url": base_url, **options}
        given = {what: value for what, value in more.items() if value is not None}
        if retry is not None and not isinstance(name, Sequence):
            given["retry"] = retry
        made = _chain(name, given, retry) if isinstance(name, Sequence) else _as_given(name, given)
    if record_to is None:
        return made
    from plait.providers.recording import Recording

    return Recording(made, record_to)


def _chain(
    names: Sequence[str | Provider], given: Mapping[str, Any], retry: RetryPolicy | Mapping[str, Any] | int | None
) -> Provider:
    from plait.providers.fallback import Fallback

    if given:
        what, said = _first_of(given)
        msg = f"{said} cannot be given for a list of providers; give it to each: get_provider(..., {what}=...)"
        raise ConfigurationError(msg)
    return Fallback(*(get_provider(one, retry=retry if isinstance(one, str) else None) for one in names))


def _as_given(provider: Any, given: Mapping[str, Any]) -> Provider:
    made = _checked(provider)
    if other := {what: value for what, value in given.items() if getattr(made, what, None) != value}:
        msg = f"{_first_of(other)[1]} comes too late: the provider given is made"
        raise ConfigurationError(msg)
    return made


def _first_of(given: Mapping[str, Any]) -> tuple[str, str]:
    """Give the name of the first argument, and how to show it with its value."""
    what, value = next(iter(given.items()))
    return what, f"{what}={'...' if what in _SECRET else excerpt(repr(value), 60)}"


def _checked(made: Any) -> Provider:
    if callable(getattr(made, "stream", None)) and not isinstance(made, type):
        missing = [what for what in ("name", "model") if not isinstance(getattr(made, what, None), str)]
        if missing:
            msg = f"a provider has a name and a model beside stream; this {type(made).__name__} has no {missing[0]!r}"
            raise ConfigurationError(msg)
    else:
        kind = type(made).__name__
        msg = f"provider must be a name such as 'openai' or 'openai:gpt-4o', or a provider object, not {kind}"
        raise ConfigurationError(msg)
    return made  # type: ignore[no-any-return]  # it was just looked at


def _made(vendor: str, model: str, known: Mapping[str, Any], options: dict[str, Any]) -> Provider:
    given = {what: value for what, value in known.items() if value is not None}
    if vendor == REPLAY:
        from plait.providers.recording import Replay

        return Replay(**_taken(Replay, {"path": model, **options}))
    if vendor == OFFLINE:
        from plait.providers.offline import OfflineProvider

        return OfflineProvider(**_taken(OfflineProvider, {"model": model, **options}))
    registered = REGISTERED.get(vendor)
    if registered is not None and callable(registered):
        return _checked(registered(model=model, **given, **options))
    from plait.providers.retry import Retrying
    from plait.providers.vendors import VENDORS

    module, name = _DIALECTS[VENDORS[vendor].dialect]
    kind = getattr(import_module(module), name)
    given.pop("retry", None)
    made = kind(**_taken(kind, {"model": model, "name": vendor, **given, **options}))
    return Retrying(made, _policy(known["retry"]))


def _taken(kind: Callable[..., Any], given: dict[str, Any]) -> dict[str, Any]:
    """Give what a provider is made with, if it takes all of it."""
    takes = _parameters(kind)
    if unknown := [what for what in given if what not in takes]:
        what = ", ".join(takes)
        msg = f"{kind.__name__} takes no {excerpt(unknown[0], 40)!r}; it takes {what}"
        raise ConfigurationError(msg)
    return given


@cache
def _parameters(kind: Callable[..., Any]) -> tuple[str, ...]:
    return tuple(signature(kind).parameters)


def _policy(retry: object) -> RetryPolicy:
    from plait.providers.retry import DEFAULT_POLICY, RetryPolicy

    if retry is None or isinstance(retry, RetryPolicy):
        return retry or DEFAULT_POLICY
    if isinstance(retry, Mapping):
        return RetryPolicy.from_strategy(retry)
    if isinstance(retry, int) and not isinstance(retry, bool):
        return RetryPolicy(max_retries=retry)
    msg = f"retry must be a RetryPolicy, a table or a number of further requests, not {type(retry).__name__}"
    raise ConfigurationError(msg)


def _names(name: str | None, model: str | None, base_url: str | None) -> tuple[str, str]:
    """The vendor and the model that these arguments mean.

    Raises:
        ConfigurationError: they name two providers, or two models, or none that is known.
    """
    if isinstance(model, OpenRouterModel) and name is None and base_url is None:
        name = "openrouter"
    named, vendor = _parts(model or ""), None
    if name is not None:
        vendor, _, said = name.partition(":")
        if vendor not in _known():
            raise ConfigurationError(_unknown(name))
        for other, _ in (_parts(said), named):
            if other not in (None, vendor):
                msg = f"two providers are named: {vendor!r} in provider, and {other!r} with the model; name one"
                raise ConfigurationError(msg)
        model_in_name = _parts(said)[1]
        if model_in_name and named[1] and model_in_name != named[1]:
            both = f"{excerpt(repr(model_in_name), 60)} in provider, and {excerpt(repr(named[1]), 60)} in model"
            msg = f"two models are named: {both}; name one"
            raise ConfigurationError(msg)
        return vendor, named[1] or model_in_name or _default_model(vendor)
    vendor = named[0] or ("openai" if base_url is not None else maker_of(named[1]) or _with_a_key())
    return vendor, named[1] or _default_model(vendor)


def _parts(model: str) -> tuple[str | None, str]:
    """The provider that stands before a model's name, if one does, and the model; registered names are looked up."""
    text = model_named(model)
    vendor, _, said = text.partition(":")
    return (vendor, model_named(said)) if said and vendor in _known() else (None, text)


def names_provider(model: str) -> bool:
    """Whether a model's name also says which provider it is of: ``"anthropic:claude-sonnet-4-5"``, not ``"gpt-4o"``."""
    return isinstance(model, OpenRouterModel) or _parts(model)[0] is not None


def _known() -> set[str]:
    return {*MODELS, *REGISTERED, REPLAY}


def _default_model(vendor: str) -> str:
    if vendor in MODELS:
        return MODELS[vendor]
    if vendor == REPLAY:
        msg = "provider 'replay' needs the file of a recording: provider='replay:recording.jsonl'"
    else:
        msg = f"provider {vendor!r} has no default model; name one: {vendor + ':model'!r}"
    raise ConfigurationError(msg)


def _with_a_key() -> str:
    """The first vendor whose key is set."""
    from plait.providers.vendors import VENDORS

    variables = {name: entry.key_variable for name, entry in VENDORS.items() if entry.key_needed and entry.key_variable}
    found = next((name for name, variable in variables.items() if os.environ.get(variable)), None)
    if found is None:
        *some, last = dict.fromkeys(variables.values())
        msg = (
            f"no provider is named and no key is set: set {', '.join(some)} or {last}, or name one, such as "
            "provider='openai' with api_key=..., provider='ollama' for a local server, or provider='offline' to try "
            "without a key"
        )
        raise ConfigurationError(msg)
    return found


def _unknown(name: str) -> str:
    from difflib import get_close_matches

    vendor, known = name.partition(":")[0], sorted(_known())
    if maker := maker_of(name):
        return f"{excerpt(repr(name), 60)} is a model, not a provider; name both: {excerpt(f'{maker}:{name}', 60)!r}"
    close = get_close_matches(vendor, known, 1)
    meant = f" Did you mean {close[0]!r}?" if close else ""
    return f"there is no provider {excerpt(repr(vendor), 60)}; the providers are {', '.join(known)}.{meant}"
