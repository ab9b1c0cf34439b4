"""Which providers there are, their addresses, keys and default models, in one table."""

from __future__ import annotations

import os
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Final

from plait.errors import ConfigurationError, excerpt
from plait.providers.offline import OfflineProvider

if TYPE_CHECKING:
    from plait.providers.base import Provider


@dataclass(frozen=True, slots=True, kw_only=True)
class Vendor:
    """A provider that can be named.

    Attributes:
        base_url: where its API is.
        key: the environment variable that holds its key; None when it needs none.
        model: the model that is used when none is named.
        base_url_variable: an environment variable that names another address.
    """

    base_url: str
    key: str | None
    model: str
    base_url_variable: str | None = None


VENDORS: Final[dict[str, Vendor]] = {
    "openai": Vendor(
        base_url="https://api.openai.com/v1", key="OPENAI_API_KEY", model="gpt-4o", base_url_variable="OPENAI_BASE_URL"
    ),
    "openrouter": Vendor(base_url="https://openrouter.ai/api/v1", key="OPENROUTER_API_KEY", model="openai/gpt-4o"),
    "ollama": Vendor(
        base_url="http://localhost:11434/v1", key=None, model="llama3.1", base_url_variable="OLLAMA_BASE_URL"
    ),
}
OFFLINE: Final = "offline"


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
        if not hasattr(name, "stream") or not hasattr(name, "model"):
            kind = type(name).__name__
            msg = f"provider must be a name such as 'openai' or 'openai:gpt-4o', or a provider object, not {kind}"
            raise ConfigurationError(msg)
        return name
    vendor, said = _names(name, model, base_url)
    if vendor == OFFLINE:
        return OfflineProvider(model=said or OFFLINE)
    return _over_http(vendor, said, api_key, base_url)


def _names(name: str | None, model: str | None, base_url: str | None) -> tuple[str, str | None]:
    """The vendor and the model that these arguments mean."""
    if name is not None:
        vendor, _, said = name.partition(":")
        if vendor not in VENDORS and vendor != OFFLINE:
            raise ConfigurationError(_unknown(vendor))
        if said and model and said != model:
            msg = f"two models are named: {said!r} in provider={name!r}, and model={model!r}; name one"
            raise ConfigurationError(msg)
        return vendor, model or said or None
    vendor, _, said = (model or "").partition(":")
    if said and (vendor in VENDORS or vendor == OFFLINE):
        return vendor, said
    if base_url is not None:
        return "openai", model
    found = next((vendor for vendor, entry in VENDORS.items() if entry.key and os.environ.get(entry.key)), None)
    if found is None:
        keys = " or ".join(entry.key for entry in VENDORS.values() if entry.key)
        msg = (
            f"no provider is named and no key is set: set {keys}, or name one, such as provider='openai' with "
            "api_key=..., provider='ollama' for a local server, or provider='offline' to try without a key"
        )
        raise ConfigurationError(msg)
    return found, model


def _unknown(vendor: str) -> str:
    known = sorted([*VENDORS, OFFLINE])
    close = get_close_matches(vendor, known, 1)
    meant = f" Did you mean {close[0]!r}?" if close else ""
    return f"there is no provider {excerpt(repr(vendor), 60)}; the providers are {', '.join(known)}.{meant}"


def _over_http(vendor: str, model: str | None, api_key: str | None, base_url: str | None) -> Provider:
    from plait.providers.chat import ChatProvider  # it brings the HTTP library, 0.1 s to import
    from plait.providers.retry import Retrying

    entry = VENDORS[vendor]
    from_environment = os.environ.get(entry.base_url_variable) if entry.base_url_variable else None
    key = api_key or (os.environ.get(entry.key) if entry.key else None) or None
    if key is None and entry.key is not None and base_url is None and not from_environment:
        msg = f"provider {vendor!r} needs a key: set {entry.key}, or pass api_key=..."
        raise ConfigurationError(msg)
    address = base_url or from_environment or entry.base_url
    return Retrying(ChatProvider(model=model or entry.model, name=vendor, api_key=key, base_url=address))
