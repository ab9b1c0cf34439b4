from __future__ import annotations

import os
from typing import Any

import pytest

from plait.errors import ConfigurationError
from plait.providers.vendors import (
    PLAIN_FORM,
    VENDORS,
    ChatForm,
    Vendor,
    address_for,
    find_vendor,
    headers_for,
    key_of,
    secrets_in,
)

KEY = "sk-very-secret-key"
HERE = "http://127.0.0.1:9"


def test_each_vendors_key_comes_from_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, vendor in VENDORS.items():
        assert vendor.key_variable is not None
        if vendor.key_needed:
            with pytest.raises(ConfigurationError) as raised:
                key_of(name, vendor, None, needed=True)
            assert str(raised.value) == f"provider {name!r} needs a key: set {vendor.key_variable}, or pass the key"
        else:
            assert key_of(name, vendor, None, needed=False) is None
        monkeypatch.setenv(vendor.key_variable, " sk-from-environment\n")
        before = dict(os.environ)
        assert key_of(name, vendor, None, needed=True) == "sk-from-environment"
        assert key_of(name, vendor, KEY, needed=True) == KEY
        assert dict(os.environ) == before
        monkeypatch.delenv(vendor.key_variable)


def test_an_address_is_the_one_given_or_the_variables_or_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    vendor = VENDORS["openai"]
    assert address_for(vendor, None) == "https://api.openai.com/v1"
    monkeypatch.setenv("OPENAI_BASE_URL", "https://proxy.test/v2/")
    assert address_for(vendor, None) == "https://proxy.test/v2"
    assert address_for(vendor, "http://x.test/") == "http://x.test"


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("", "http://localhost:11434"),
        ("box", "http://box:11434"),
        ("box:99", "http://box:99"),
        (":99", "http://localhost:99"),
        ("0.0.0.0:99", "http://127.0.0.1:99"),
        ("https://box", "https://box"),
        ("http://box:99/", "http://box:99"),
        ("http://box:99/v1", "http://box:99"),
        ("[::1]:99", "http://[::1]:99"),
    ],
)
def test_ollama_host_is_read_as_ollama_reads_it(host: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", host)
    assert address_for(VENDORS["ollama"], None) == url
    assert address_for(VENDORS["ollama-chat"], None) == f"{url}/v1"


def test_a_key_goes_where_its_vendor_looks_for_it() -> None:
    ours = {"content-type": "application/json", "accept": "application/json, text/event-stream", "user-agent": "plait"}
    assert headers_for(VENDORS["openai"], KEY, {}) == {**ours, "authorization": f"Bearer {KEY}"}
    assert headers_for(VENDORS["ollama"], None, {"X-Title": "t"}) == {**ours, "x-title": "t"}
    assert headers_for(VENDORS["anthropic"], KEY, {"Anthropic-Version": "2099-01-01"}) == {
        **ours,
        "x-api-key": KEY,
        "anthropic-version": "2099-01-01",
    }


def test_an_unknown_name_is_a_server_of_the_dialect_at_an_address() -> None:
    assert find_vendor("openai", "chat", None) is VENDORS["openai"]
    assert find_vendor("acme", "chat", HERE) == Vendor(base_url=HERE, key_needed=False)
    made = find_vendor("acme", "anthropic", HERE)
    assert (made.key_header, made.headers) == ("x-api-key", {"anthropic-version": "2023-06-01"})
    assert (made.key_variable, made.form) == (None, PLAIN_FORM)
    with pytest.raises(ConfigurationError, match="there is no vendor 'acme'; name one of openai, "):
        find_vendor("acme", "chat", None)


def test_a_vendor_that_speaks_another_dialect_is_refused() -> None:
    with pytest.raises(ConfigurationError) as raised:
        find_vendor("anthropic", "chat", HERE)
    assert str(raised.value) == (
        "'anthropic' speaks the dialect 'anthropic', not 'chat'; get_provider('anthropic') makes the right one"
    )


@pytest.mark.parametrize(
    ("made", "options", "sentence"),
    [
        (Vendor, {"base_url": 5}, "base_url of a Vendor must be a text that is not empty, not 5"),
        (Vendor, {"base_url": ""}, "base_url of a Vendor must be a text that is not empty, not ''"),
        (
            Vendor,
            {"dialect": "foo"},
            "dialect of a Vendor: there is no 'foo'; there are chat, responses, anthropic, ollama",
        ),
        (
            Vendor,
            {"output_modes": ("json",)},
            "output_modes of a Vendor: there is no 'json'; there are native, tool, prompt",
        ),
        (Vendor, {"form": {}}, "form of a Vendor must be a ChatForm, not dict"),
        (Vendor, {"headers": ["a"]}, "headers must be a dict of names and values, not list"),
        (
            Vendor,
            {"headers": {"a": 5}},
            "the header 'a' cannot be sent: its name and value must be text without line ends",
        ),
        (
            Vendor,
            {"headers": {"a b": "c"}},
            "the header 'a b' cannot be sent: its name and value must be text without line ends",
        ),
        (ChatForm, {"takes": ["video"]}, "takes of a ChatForm: there is no 'video'; there are image, audio, file"),
    ],
)
def test_what_makes_no_sense_is_refused(made: type[Vendor | ChatForm], options: dict[str, Any], sentence: str) -> None:
    usual: dict[str, Any] = {"base_url": HERE} if made is Vendor else {}
    with pytest.raises(ConfigurationError) as raised:
        made(**usual | options)
    assert str(raised.value) == sentence
    with pytest.raises(
        ConfigurationError, match="ignores of a ChatForm: there is no 'sed'; there are temperature, max"
    ):
        ChatForm(ignores=frozenset({"sed"}))


def test_headers_are_told_apart_without_regard_to_case() -> None:
    vendor = Vendor(base_url=HERE, key_header="X-Api-Key", headers={"X-Title": "ours"})
    sent = headers_for(vendor, KEY, {"x-api-key": "mine", "x-TITLE": "yours"})
    assert {name: sent[name] for name in sent if name.startswith("x-")} == {"x-api-key": "mine", "x-title": "yours"}


def test_an_address_that_ollama_could_not_read_either_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "localhost:abc")
    with pytest.raises(ConfigurationError) as raised:
        address_for(VENDORS["ollama"], None)
    assert str(raised.value) == "OLLAMA_HOST names no address: 'localhost:abc'; correct it, or pass base_url"


def test_what_authorises_is_a_secret() -> None:
    headers = {
        "x-api-token": "other-secret",
        "cookie": "id=short",
        "x-title": "no secret",
        "authorization": f"Bearer {KEY}",
    }
    assert set(secrets_in(KEY, headers)) == {KEY, f"Bearer {KEY}", "other-secret", "id=short"}
    assert secrets_in(None, {"x-key": "tiny"}) == ()
