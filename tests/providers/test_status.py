from __future__ import annotations

import json
from typing import Any

import pytest

from plait.errors import ProviderError, RateLimited
from plait.providers.status import Service, error_object, http_error, retry_after

KEY = "sk-very-secret-key"
SERVICE = Service(provider="acme", address="acme.test:443", model="m1", key_variable="ACME_API_KEY", secrets=(KEY,))


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "1e9"}, 1e9),
        ({"retry-after-ms": "50", "retry-after": "9"}, 0.05),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
        # The server's clock says how long it is till the date, not ours.
        ({"retry-after": "Wed, 21 Oct 2015 07:28:30 GMT", "date": "Wed, 21 Oct 2015 07:28:00 GMT"}, 30.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT", "date": "Wed, 21 Oct 2015 07:28:01 GMT"}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, None),
        *[({"retry-after": junk}, None) for junk in ("", "soon", "-5", "nan", "inf", "-inf", "1,5", "Wed, 99 Oct")],
        *[({"retry-after": junk}, None) for junk in ("1e400", "0x1", "1_0", "\u0663", "1 2", "1; 2", "--1", "e5", ".")],
        ({"retry-after": " +2.5E0 "}, 2.5),
        ({}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504, 529])
def test_what_passes_by_itself_is_retryable(status: int) -> None:
    assert http_error(status, {}, b"", SERVICE).retryable is True
    assert http_error(status, {"x-should-retry": "false"}, b"", SERVICE).retryable is False


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
def test_what_is_wrong_with_the_request_is_not(status: int) -> None:
    assert http_error(status, {}, b"", SERVICE).retryable is False
    assert http_error(status, {"x-should-retry": "true"}, b"", SERVICE).retryable is True
    assert http_error(status, {"x-should-retry": "perhaps"}, b"", SERVICE).retryable is False


@pytest.mark.parametrize(
    ("body", "message", "code"),
    [
        (
            {"error": {"message": "Too long.", "type": "invalid_request_error", "code": "context_length"}},
            " (context_length): Too long.",
            "context_length",
        ),
        ({"error": {"message": "No.", "type": "bad", "code": None}}, " (bad): No.", "bad"),
        ({"error": "model 'x' not found"}, ": model 'x' not found", None),
        ({"message": "No.", "code": 12}, " (12): No.", "12"),
        ({"detail": "Not here."}, ": Not here.", None),
        ([{"error": {"message": "No.", "status": "INVALID"}}], " (INVALID): No.", "INVALID"),
        ({"error": {"code": 422, "message": "Bad", "metadata": {"raw": "upstream"}}}, ": Bad: upstream", "422"),
        ({"something": "else"}, "", None),
        ([1, 2], "", None),
        (b"<html>\n <h1>Bad gateway</h1>\x1b[31m", ": <html> <h1>Bad gateway</h1>\\x1b[31m", None),
        (b"", "", None),
        (b"\xff\xfe", ": \ufffd\ufffd", None),
        (b'{"error":' + b"[" * 100_000, ": " + ('{"error":' + "[" * 191) + "…", None),
    ],
)
def test_every_shape_of_body_is_told(body: Any, message: str, code: str | None) -> None:
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    error = http_error(422, {}, sent, SERVICE)
    assert (str(error), error.code, error.status, error.provider) == (f"acme answered 422{message}", code, 422, "acme")
    assert len(error.body) <= 201


def test_the_message_is_cut_and_the_key_is_not_in_it() -> None:
    body = json.dumps({"error": {"message": f"Incorrect API key provided: {KEY}. " + "x" * 5000, "code": KEY}}).encode()
    error = http_error(401, {"x-request-id": "req_1"}, body, SERVICE)
    assert KEY not in f"{error} {error.body} {error.code} {error!r}"
    assert str(error).startswith("acme answered 401 (***): Incorrect API key provided: ***. xxx")
    assert str(error).endswith("…; check the key that was given, or ACME_API_KEY")
    assert len(str(error)) < 350
    assert error.request_id == "req_1"


def test_not_found_names_model_and_address() -> None:
    said = str(http_error(404, {}, b"", SERVICE))
    assert said == "acme answered 404; check the model name 'm1' and the base_url (asked at acme.test:443)"


def test_not_found_says_the_whole_address_in_one_sentence() -> None:
    service = Service(provider="acme", address="acme.test:443", model="m1", path=f"/{KEY}/v1/chat", secrets=(KEY,))
    assert str(http_error(404, {}, b'{"error": "You have no access to it."}', service)) == (
        "acme answered 404: You have no access to it; check the model name 'm1' and the base_url "
        "(asked at acme.test:443/***/v1/chat)"
    )


def test_429_is_rate_limited() -> None:
    error = http_error(429, {"retry-after": "3", "cf-ray": "abc"}, b"", SERVICE)
    assert (type(error), error.retry_after, error.request_id) == (RateLimited, 3.0, "abc")
    assert http_error(503, {"retry-after": "3"}, b"", SERVICE).retry_after == 3.0


@pytest.mark.parametrize(
    ("said", "made", "status", "retryable"),
    [
        ({"code": 429, "message": "slow"}, RateLimited, 429, True),
        ({"code": "rate_limit_exceeded", "message": "slow"}, RateLimited, 429, True),
        ({"code": 502, "message": "down"}, ProviderError, 502, True),
        ({"code": "400", "message": "bad"}, ProviderError, 400, False),
        ({"type": "server_error", "message": "down"}, ProviderError, None, True),
        ({"type": "overloaded_error", "message": "busy"}, ProviderError, None, True),
        ({"type": "api_error", "message": "down"}, ProviderError, None, True),
        ({"type": "timeout_error", "message": "late"}, ProviderError, None, True),
        ({"type": "rate_limit_error", "message": "slow"}, RateLimited, 429, True),
        ({"type": "invalid_request_error", "message": "no"}, ProviderError, None, False),
        ({"code": "content_policy", "message": "no"}, ProviderError, None, False),
        ({"code": 7, "message": "no"}, ProviderError, None, False),
        ("down", ProviderError, None, False),
    ],
)
def test_errors_inside_a_success(said: object, made: type, status: int | None, retryable: bool) -> None:
    error = error_object(said, SERVICE)
    assert (type(error), error.status, error.retryable) == (made, status, retryable)
