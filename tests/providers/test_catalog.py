from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

from plait.errors import ConfigurationError
from plait.providers.catalog import get_provider
from plait.providers.models import MODELS
from plait.providers.remote import HttpProvider
from plait.providers.offline import OfflineProvider
from plait.providers.retry import Retrying
from plait.providers.vendors import VENDORS

KEY = "sk-made-up-0123456789"


def made(*args: Any, **kwargs: Any) -> tuple[str, str, str]:
    """The vendor, model and address of what `get_provider` makes, which asks again when it fails."""
    provider = get_provider(*args, **kwargs)
    assert isinstance(provider, Retrying)
    assert isinstance(provider.provider, HttpProvider)
    assert (provider.name, provider.model) == (provider.provider.name, provider.provider.model)
    return provider.name, provider.model, provider.provider.base_url


def test_every_vendor_has_a_default_model() -> None:
    assert MODELS.keys() - {"offline"} == VENDORS.keys()


OPENAI, OPENROUTER, OLLAMA = (VENDORS[name].base_url for name in ("openai", "openrouter", "ollama"))
HERE = "http://127.0.0.1:9/v1"


@pytest.mark.parametrize(
    ("args", "kwargs", "expected"),
    [
        (["openai"], {}, ("openai", "gpt-4o", OPENAI)),
        (["openai:gpt-x"], {}, ("openai", "gpt-x", OPENAI)),
        (["openai"], {"model": "gpt-x"}, ("openai", "gpt-x", OPENAI)),
        (["openai:gpt-x"], {"model": "gpt-x"}, ("openai", "gpt-x", OPENAI)),
        (["openai"], {"model": "openai:gpt-x"}, ("openai", "gpt-x", OPENAI)),
        (["openai:"], {}, ("openai", "gpt-4o", OPENAI)),
        (["openai"], {"model": "ft:gpt-x:me"}, ("openai", "ft:gpt-x:me", OPENAI)),
        (["openrouter"], {}, ("openrouter", "openai/gpt-4o", OPENROUTER)),
        (["ollama"], {}, ("ollama", "llama3.1", OLLAMA)),
        (["ollama:llama3.1:8b"], {}, ("ollama", "llama3.1:8b", OLLAMA)),
        (["ollama"], {"model": "llama3.1:8b"}, ("ollama", "llama3.1:8b", OLLAMA)),
        ([], {"model": "openrouter:a/b:free"}, ("openrouter", "a/b:free", OPENROUTER)),
        ([], {"model": "ollama:x"}, ("ollama", "x", OLLAMA)),
        ([], {"base_url": HERE}, ("openai", "gpt-4o", HERE)),
        ([], {"base_url": HERE, "model": "llama3.1:8b"}, ("openai", "llama3.1:8b", HERE)),
        (["openrouter"], {"base_url": HERE}, ("openrouter", "openai/gpt-4o", HERE)),
    ],
)
def test_names(args: list[Any], kwargs: dict[str, Any], expected: tuple[str, str, str]) -> None:
    assert made(*args, api_key=KEY, **kwargs) == expected


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"OPENAI_API_KEY": KEY}, "openai"),
        ({"OPENROUTER_API_KEY": KEY}, "openrouter"),
        ({"OPENROUTER_API_KEY": KEY, "OPENAI_API_KEY": KEY}, "openai"),
        ({"OPENROUTER_API_KEY": KEY, "OPENAI_API_KEY": ""}, "openrouter"),
    ],
)
def test_the_vendor_whose_key_is_set(variables: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    assert made()[0] == expected
    assert made(model="llama3.1:8b")[:2] == (expected, "llama3.1:8b")
    assert dict(os.environ) == before


def test_addresses_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/openai")
    assert made() == ("openai", "gpt-4o", "http://127.0.0.1:9/openai")
    assert made(base_url="http://127.0.0.1:8/v1")[2] == "http://127.0.0.1:8/v1"


def test_no_key_is_shown() -> None:
    assert KEY not in repr(get_provider("openai", api_key=KEY))


def test_offline() -> None:
    provider = get_provider("offline")
    assert isinstance(provider, OfflineProvider)
    assert (provider.name, provider.model) == ("offline", "offline")
    assert get_provider("offline:small").model == get_provider(model="offline:small").model == "small"
    assert get_provider("offline", model="small").model == "small"


def test_a_provider_object_is_given_back() -> None:
    own = OfflineProvider()
    assert get_provider(own) is own


KNOWN = (
    "the providers are anthropic, offline, ollama, ollama-chat, openai, openai-responses, openrouter, "
    "openrouter-responses, replay."
)


@pytest.mark.parametrize(
    ("args", "kwargs", "sentence"),
    [
        (["openia"], {}, f"there is no provider 'openia'; {KNOWN} Did you mean 'openai'?"),
        ([""], {}, f"there is no provider ''; {KNOWN}"),
        (["x" * 1000], {}, f"there is no provider '{'x' * 59}…; {KNOWN}"),
        (["openai:a"], {"model": "b"}, "two models are named: 'a' in provider, and 'b' in model; name one"),
        (["openai"], {}, "provider 'openai' needs a key: set OPENAI_API_KEY, or pass api_key=..."),
        (
            ["openrouter"],
            {"api_key": ""},
            "provider 'openrouter' needs a key: set OPENROUTER_API_KEY, or pass api_key=...",
        ),
        (
            [{"api_key": KEY}],
            {},
            "provider must be a name such as 'openai' or 'openai:gpt-4o', or a provider object, not dict",
        ),
        (["openai"], {"model": 3}, "model must be a text, not int"),
        (["openai"], {"api_key": KEY.encode()}, "api_key must be a text, not bytes"),
        (["openai"], {"base_url": ["x"]}, "base_url must be a text, not list"),
        (
            [],
            {},
            (
                "no provider is named and no key is set: set OPENAI_API_KEY, ANTHROPIC_API_KEY or OPENROUTER_API_KEY, or "
                "name one, such as provider='openai' with api_key=..., provider='ollama' for a local server, or provider='offline' to "
                "try without a key"
            ),
        ),
    ],
)
def test_wrong_arguments_are_refused(args: list[Any], kwargs: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        get_provider(*args, **kwargs)
    assert str(raised.value) == sentence


def test_offline_brings_no_http_library() -> None:
    code = """
import sys
from plait.providers.catalog import get_provider
get_provider("offline")
print("aiohttp" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True, timeout=60)
    assert done.stdout == "False\n"
