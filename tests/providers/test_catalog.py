from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from plait.errors import ConfigurationError
from plait.events import fold
from plait.messages import UserMessage
from plait.providers.base import Request
from plait.providers.catalog import get_provider, register_provider
from plait.providers.fallback import Fallback
from plait.providers.models import MODELS, OpenRouterModel, OpenRouterModelRegistry, list_models, register_model
from plait.providers.offline import OfflineProvider
from plait.providers.remote import HttpProvider
from plait.providers.retry import Retrying, RetryPolicy
from plait.providers.vendors import VENDORS, Vendor

if TYPE_CHECKING:
    from pathlib import Path


class Named:
    """Half of a provider."""

    name = "named"

    def stream(self, request: Request) -> Any:
        raise NotImplementedError


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
        ({"ANTHROPIC_API_KEY": KEY}, "anthropic"),
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


@pytest.mark.parametrize(
    ("model", "vendor"), [("gpt-4o", "openai"), ("o3-mini", "openai"), ("claude-sonnet-4-5", "anthropic")]
)
def test_a_model_that_everybody_knows_names_its_provider(
    model: str, vendor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever key is set, no other provider is asked for it."""
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "OPENROUTER_API_KEY"):
        monkeypatch.setenv(name, KEY)
    assert made(model=model)[:2] == (vendor, model)
    assert made(model=model, base_url=HERE)[0] == "openai"


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
        (["openai"], {}, "provider 'openai' needs a key: set OPENAI_API_KEY, or pass the key"),
        (["gpt-4o"], {}, "'gpt-4o' is a model, not a provider; name both: 'openai:gpt-4o'"),
        (["claude-opus-9"], {}, "'claude-opus-9' is a model, not a provider; name both: 'anthropic:claude-opus-9'"),
        (
            ["anthropic"],
            {"model": "openai:gpt-4o"},
            "two providers are named: 'anthropic' in provider, and 'openai' with the model; name one",
        ),
        (
            ["anthropic:openai:gpt-4o"],
            {},
            "two providers are named: 'anthropic' in provider, and 'openai' with the model; name one",
        ),
        (
            [Named()],
            {},
            "a provider has a name and a model beside stream; this Named has no 'model'",
        ),
        (
            ["openrouter"],
            {"api_key": ""},
            "provider 'openrouter' needs a key: set OPENROUTER_API_KEY, or pass the key",
        ),
        (
            [{"api_key": KEY}],
            {},
            "provider must be a name such as 'openai' or 'openai:gpt-4o', or a provider object, not dict",
        ),
        (["openai"], {"model": 3}, "model must be a text, not int"),
        (["openai"], {"api_key": KEY.encode()}, "api_key must be a text, not bytes"),
        (["openai"], {"base_url": ["x"]}, "base_url must be a text, not list"),
        (["replay"], {}, "provider 'replay' needs the file of a recording: provider='replay:recording.jsonl'"),
        (["offline"], {"colour": 1}, "OfflineProvider takes no 'colour'; it takes script, function, model, delay"),
        (
            ["openai"],
            {"script": [], "api_key": KEY},
            "ChatProvider takes no 'script'; it takes model, name, base_url, api_key, headers, limits",
        ),
        (
            ["ollama"],
            {"retry": "often"},
            "retry must be a RetryPolicy, a table or a number of further requests, not str",
        ),
        ([OfflineProvider()], {"model": "x"}, "model='x' comes too late: the provider given is made"),
        ([OfflineProvider()], {"retry": 5}, "retry=5 comes too late: the provider given is made"),
        (["offline"], {"retry": "x"}, "retry must be a RetryPolicy, a table or a number of further requests, not str"),
        (["replay:tape"], {"delay": 1}, "Replay takes no 'delay'; it takes path"),
        ([OfflineProvider()], {"api_key": KEY}, "api_key=... comes too late: the provider given is made"),
        (
            [["offline", "openai"]],
            {"base_url": HERE},
            (
                f"base_url={HERE!r} cannot be given for a list of providers; give it to each: get_provider(..., "
                "base_url=...)"
            ),
        ),
        (
            [["openai", "anthropic"]],
            {"api_key": KEY},
            "api_key=... cannot be given for a list of providers; give it to each: get_provider(..., api_key=...)",
        ),
        (["openai"], {"api_key": KEY, "headers": ["x"]}, "headers must be a dict of names and values, not list"),
        (["openai"], {"api_key": KEY, "limits": 5}, "limits must be TransportLimits(...), not int"),
        (
            [],
            {},
            (
                "no provider is named and no key is set: set OPENAI_API_KEY, ANTHROPIC_API_KEY or OPENROUTER_API_KEY, "
                "or name one, such as provider='openai' with api_key=..., provider='ollama' for a local server, or "
                "provider='offline' to try without a key"
            ),
        ),
    ],
)
def test_wrong_arguments_are_refused(args: list[Any], kwargs: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        get_provider(*args, **kwargs)
    assert str(raised.value) == sentence


# --- further providers and models ---


def test_a_vendor_that_speaks_the_chat_dialect_is_one_entry(registry: None, monkeypatch: pytest.MonkeyPatch) -> None:
    groq = Vendor(base_url="https://api.groq.test/openai/v1", key_variable="GROQ_API_KEY")
    register_provider("groq", groq, model="llama-3.3-70b")
    register_provider("groq", groq)  # the same again is no error
    with pytest.raises(ConfigurationError, match="provider 'groq' needs a key: set GROQ_API_KEY, or pass the key"):
        get_provider("groq")
    monkeypatch.setenv("GROQ_API_KEY", KEY)
    assert made("groq") == ("groq", "llama-3.3-70b", groq.base_url)
    assert made("groq:other") == ("groq", "other", groq.base_url)
    assert made(model="groq:other") == ("groq", "other", groq.base_url)
    assert made()[0] == "groq"  # the only one whose key is set
    with pytest.raises(ConfigurationError, match="there is a provider 'groq' already; register yours under another"):
        register_provider("groq", Vendor(base_url="https://other.test"))


def test_a_function_may_make_a_provider(registry: None) -> None:
    asked: list[dict[str, Any]] = []

    def make(**given: Any) -> OfflineProvider:
        asked.append(given)
        return OfflineProvider(model=given["model"])

    register_provider("mine", make)
    with pytest.raises(ConfigurationError, match="provider 'mine' has no default model; name one: 'mine:model'"):
        get_provider("mine")
    assert get_provider("mine:small", api_key=KEY, colour="red").model == "small"
    assert asked == [{"model": "small", "api_key": KEY, "colour": "red"}]
    register_provider("broken", lambda model: model, model="m")
    with pytest.raises(ConfigurationError, match="or a provider object, not str"):
        get_provider("broken")


@pytest.mark.parametrize(
    ("name", "provider", "sentence"),
    [
        ("", OfflineProvider, "a provider's name has letters, digits, '-' and '_' only; '' has not"),
        ("a:b", OfflineProvider, "a provider's name has letters, digits, '-' and '_' only; 'a:b' has not"),
        ("offline", OfflineProvider, "there is a provider 'offline' already; register yours under another name"),
        ("openai", OfflineProvider, "there is a provider 'openai' already; register yours under another name"),
        ("mine", "x", "provider 'mine' must be a Vendor, or a function that makes a provider, not str"),
    ],
)
def test_what_cannot_be_registered(name: str, provider: Any, sentence: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        register_provider(name, provider)
    assert str(raised.value) == sentence


def test_models_have_names_of_their_own(registry: None) -> None:
    register_model("fast", "openai/gpt-4o-mini")
    register_model("fast", "openai/gpt-4o-mini")
    register_model("local", "ollama:llama3.1:8b")
    assert made("openrouter", model="fast", api_key=KEY)[:2] == ("openrouter", "openai/gpt-4o-mini")
    assert made("openrouter:fast", api_key=KEY)[:2] == ("openrouter", "openai/gpt-4o-mini")
    assert made(model="local")[:2] == made("ollama", model="local")[:2] == ("ollama", "llama3.1:8b")
    assert made("ollama:local")[:2] == ("ollama", "llama3.1:8b")
    with pytest.raises(ConfigurationError, match="two providers are named: 'openai' in provider, and"):
        get_provider("openai:local")
    assert made(model=OpenRouterModel.GPT41, api_key=KEY)[:2] == ("openrouter", "openai/gpt-4.1")
    assert made("openrouter", model="GPT41", api_key=KEY)[:2] == ("openrouter", "openai/gpt-4.1")
    assert OpenRouterModelRegistry.get_model("fast") == "openai/gpt-4o-mini"
    assert OpenRouterModelRegistry.list_models() == list_models()
    assert {"GPT41": "openai/gpt-4.1", "fast": "openai/gpt-4o-mini"}.items() <= list_models().items()
    wrong: list[tuple[str, Any, str]] = [
        (
            "fast",
            "other",
            "the model name 'fast' stands for 'openai/gpt-4o-mini' already, so it cannot stand for 'other'",
        ),
        ("GPT4", "x", "the model name 'GPT4' stands for 'openai/gpt-4' already, so it cannot stand for 'x'"),
        ("", "x", "register_model takes two texts; the name is ''"),
        ("x", 3, "register_model takes two texts; the value is 3"),
    ]
    for name, value, sentence in wrong:
        with pytest.raises(ConfigurationError) as raised:
            OpenRouterModelRegistry.register_model(name, value)
        assert str(raised.value) == sentence
    with pytest.raises(ConfigurationError, match="there is no model named 'nobody'; name it with register_model"):
        OpenRouterModelRegistry.get_model("nobody")


def test_several_providers_are_a_chain() -> None:
    own = OfflineProvider(["yes"])
    chain = get_provider(["ollama:a", own], retry=0)
    assert isinstance(chain, Fallback)
    first, last = chain.providers
    assert isinstance(first, Retrying)
    assert (first.name, first.model, first.policy.max_retries) == ("ollama", "a", 0)
    assert last is own
    assert (chain.name, chain.model) == ("ollama", "a")


@pytest.mark.parametrize(
    ("retry", "policy"),
    [
        (None, RetryPolicy()),
        (0, RetryPolicy(max_retries=0)),
        (RetryPolicy(max_retries=7), RetryPolicy(max_retries=7)),
        ({"initial_delay": 1, "max_delay": 60}, RetryPolicy.from_strategy({"initial_delay": 1, "max_delay": 60})),
    ],
)
def test_when_it_is_asked_again(retry: Any, policy: RetryPolicy) -> None:
    provider = get_provider("openai", api_key=KEY, retry=retry)
    assert isinstance(provider, Retrying)
    assert provider.policy == policy


async def test_options_reach_what_takes_them(tmp_path: Path) -> None:
    file = tmp_path / "tape.jsonl"
    recorded = get_provider("offline", script=["yes"], delay=0.0, record_to=file)
    request = Request(messages=(UserMessage(text="hi"),))
    assert fold([batch async for batch in recorded.stream(request)])[0].message.text == "yes"
    again = get_provider(f"replay:{file}")
    assert fold([batch async for batch in again.stream(request)])[0].message.text == "yes"


def test_offline_brings_no_http_library() -> None:
    code = """
import sys
from plait.providers.catalog import get_provider
get_provider("offline")
print("aiohttp" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True, timeout=45)
    assert done.stdout == "False\n"
