"""Models by name: the one that each provider is asked for by default, OpenRouter's, and names of your own."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from plait.errors import ConfigurationError, excerpt

MODELS: Final[dict[str, str]] = {
    "openai": "gpt-4o",
    "openai-responses": "gpt-4o",
    "anthropic": "claude-sonnet-4-5",
    "openrouter": "openai/gpt-4o",
    "openrouter-responses": "openai/gpt-4o",
    "ollama": "llama3.1",
    "ollama-chat": "llama3.1",
    "offline": "offline",
}
"""The default model of each provider."""

IMAGE_MODELS: Final[dict[str, str]] = {
    "openai": "gpt-image-1",
    "openrouter": "google/gemini-3.1-flash-lite-image",
}
"""The default model for images of each provider that has an image endpoint."""


_MAKERS: Final = {"openai": ("gpt-", "chatgpt-", "o1", "o3", "o4"), "anthropic": ("claude-",)}


def maker_of(model: str) -> str | None:
    """Give the provider whose own models begin as this name does, for those that everybody knows by name."""
    return next((name for name, beginnings in _MAKERS.items() if model.startswith(beginnings)), None)


class OpenRouterModel(StrEnum):
    """Models by the names that users of OpenRouter clients know; any other model is named by its own text."""

    GPT4_TURBO = "openai/gpt-4-turbo-preview"
    GPT4 = "openai/gpt-4"
    GPT41 = "openai/gpt-4.1"
    GPT35_TURBO = "openai/gpt-3.5-turbo"
    CLAUDE_3_OPUS = "anthropic/claude-3-opus"
    CLAUDE_3_SONNET = "anthropic/claude-3-sonnet"
    CLAUDE_3_HAIKU = "anthropic/claude-3-haiku"
    GEMINI_PRO = "google/gemini-pro"
    MIXTRAL_8X7B = "mistral/mixtral-8x7b"
    MISTRAL_MEDIUM = "mistral/mistral-medium"
    MISTRAL_SMALL = "mistral/mistral-small"
    MISTRAL_TINY = "mistral/mistral-tiny"


OWN: Final[dict[str, str]] = {}
"""What `register_model` was given."""


def register_model(name: str, value: str) -> None:
    """Give a model a name of your own, which every provider then takes as ``model=``.

    Args:
        name: the name, such as ``"fast"``.
        value: the model as its provider spells it, or ``provider:model``.

    Raises:
        ConfigurationError: the name stands for another model already; the same value twice is no error.
    """
    for what, text in (("name", name), ("value", value)):
        if not isinstance(text, str) or not text.strip():
            msg = f"register_model takes two texts; the {what} is {excerpt(repr(text), 60)}"
            raise ConfigurationError(msg)
    known = list_models().get(name)
    if known is not None and known != value:
        msg = f"the model name {name!r} stands for {known!r} already, so it cannot stand for {excerpt(value, 60)!r}"
        raise ConfigurationError(msg)
    OWN[name] = str(value)


def model_named(name: str) -> str:
    """Give the model that a name stands for; any other text is a model's own name."""
    if isinstance(name, OpenRouterModel):
        return name.value
    return OWN.get(name) or (OpenRouterModel[name].value if name in OpenRouterModel.__members__ else name)


def list_models() -> dict[str, str]:
    """Give every name that stands for a model: OpenRouter's, then those registered."""
    return {member.name: member.value for member in OpenRouterModel} | OWN


class OpenRouterModelRegistry:
    """The registry of model names, in the form that users of OpenRouter clients know."""

    @classmethod
    def register_model(cls, name: str, value: str) -> None:
        """See `register_model`."""
        register_model(name, value)

    @classmethod
    def get_model(cls, name: str) -> str:
        """Give the model that a name stands for.

        Raises:
            ConfigurationError: it stands for none.
        """
        found = list_models().get(name)
        if found is None:
            msg = f"there is no model named {excerpt(repr(name), 60)}; name it with register_model(name, value)"
            raise ConfigurationError(msg)
        return found

    @classmethod
    def list_models(cls) -> dict[str, str]:
        """See `list_models`."""
        return list_models()
