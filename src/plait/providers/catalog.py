"""Which providers can be named, and the model each is asked for when none is.

Makes providers of names; where they are and which keys they need is theirs to know.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from plait.errors import ConfigurationError, excerpt

if TYPE_CHECKING:
    from plait.providers.base import Provider

OFFLINE: Final = "offline"

MODELS: Final[dict[str, str]] = {
    "openai": "gpt-4o",
    "openrouter": "openai/gpt-4o",
    "ollama": "llama3.1",
    OFFLINE: "offline",
}
"""The default model of each provider, in the order in which keys are looked for."""


def get_provider(
    name: str | Provider | None = None,
    *,
    model: str | None = None,
    api_key: str | None = None,
    base_url: str | None = None,
) -> Provider:
    """Make a provider by name.

    Args:
        name: ``"openai"``, or ``"openai:gpt-4o"`` with the model, or a provider object, which is given back. Without
            one: what ``model`` names (``"openai:gpt-4o"``), else OpenAI's dialect at ``base_url``, else the provider
            whose key is set in the environment.
        model: the model's name; without one the provider's default.
        api_key: its key; without one the provider's usual environment variable is read.
        base_url: where it is; without one its own address.

    Raises:
        ConfigurationError: the provider is unknown, no key is set, or an argument is of the wrong type.
    """
    for what, value in (("model", model), ("api_key", api_key), ("base_url", base_url)):
        if value is not None and not isinstance(value, str):
            msg = f"{what} must be a text, not {type(value).__name__}"
            raise ConfigurationError(msg)
    if name is not None and not isinstance(name, str):
        if not callable(getattr(name, "stream", None)) or not hasattr(name, "model"):
            kind = type(name).__name__
            msg = f"provider must be a name such as 'openai' or 'openai:gpt-4o', or a provider object, not {kind}"
            raise ConfigurationError(msg)
        return name
    vendor, said = _names(name, model, base_url)
    said = said or MODELS[vendor]
    if vendor == OFFLINE:
        from plait.providers.offline import OfflineProvider

        return OfflineProvider(model=said)
    from plait.providers.chat import ChatProvider  # it brings the HTTP library, 0.1 s to import
    from plait.providers.retry import Retrying

    return Retrying(ChatProvider(model=said, name=vendor, api_key=api_key, base_url=base_url))


def _names(name: str | None, model: str | None, base_url: str | None) -> tuple[str, str | None]:
    """The vendor and the model that these arguments mean."""
    if name is not None:
        vendor, _, said = name.partition(":")
        if vendor not in MODELS:
            raise ConfigurationError(_unknown(vendor))
        model = (model or "").removeprefix(f"{vendor}:")
        if said and model and said != model:
            both = f"{excerpt(repr(said), 60)} in provider, and {excerpt(repr(model), 60)} in model"
            msg = f"two models are named: {both}; name one"
            raise ConfigurationError(msg)
        return vendor, model or said
    vendor, _, said = (model or "").partition(":")
    if said and vendor in MODELS:
        return vendor, said
    return ("openai" if base_url is not None else _with_a_key()), model


def _with_a_key() -> str:
    """The first vendor whose key is set."""
    from plait.providers.chat import VENDORS

    variables = {name: entry.key_variable for name, entry in VENDORS.items() if entry.key_needed and entry.key_variable}
    found = next((name for name in MODELS if os.environ.get(variables.get(name, ""))), None)
    if found is None:
        msg = (
            f"no provider is named and no key is set: set {' or '.join(variables.values())}, or name one, such as "
            "provider='openai' with api_key=..., provider='ollama' for a local server, or provider='offline' to try "
            "without a key"
        )
        raise ConfigurationError(msg)
    return found


def _unknown(vendor: str) -> str:
    from difflib import get_close_matches

    known = sorted(MODELS)
    close = get_close_matches(vendor, known, 1)
    meant = f" Did you mean {close[0]!r}?" if close else ""
    return f"there is no provider {excerpt(repr(vendor), 60)}; the providers are {', '.join(known)}.{meant}"
