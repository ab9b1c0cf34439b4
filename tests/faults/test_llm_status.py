"""Answers with an error status: which are tried again, after how long, and what the error says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from faults.spoken import KEY
from faults.trials import QUICK, trial
from faults.ways import EACH, SHARED, Way
from plait import ProviderError, RateLimited, RetryPolicy
from plait.providers.http import TransportLimits
from plait.testing import FAULTS, Reply, Wire, answer, fault

EARLIER = "Wed, 21 Oct 2015 07:28:00 GMT"
A_SECOND = [
    [("Retry-After", "1")],
    # By the server's clock, which is years off.
    [("Date", EARLIER), ("Retry-After", "Wed, 21 Oct 2015 07:28:01 GMT")],
    [("Date", EARLIER), ("Retry-After", "Wed, 21 Oct 2015 08:28:01 +0100")],
    [("Date", "Thu, 01 Jan 2099 00:00:00 GMT"), ("Retry-After", "Thu, 01 Jan 2099 00:00:01 GMT")],
]


def refuses(status: int, *headers: tuple[str, str], body: bytes | None = None) -> Reply:
    return Reply(status=status, headers=headers, body=body)


@pytest.mark.fault("L01", "L02", "L03")
@pytest.mark.parametrize("way", SHARED)
@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ([("Retry-After", " 0.1 ")], 0.1),
        ([("RETRY-AFTER-MS", "50"), ("Retry-After", "9")], 0.05),
        ([("retry-after-ms", "nan"), ("Retry-After", "0.15")], 0.15),
    ],
)
async def test_what_is_asked_to_wait_is_waited(headers: list[tuple[str, str]], seconds: float, way: Way) -> None:
    async with trial(refuses(429, *headers), answer("yes"), way=way) as made:
        outcome = await made.ask()
        first, second = made.server.exchanges
        assert (outcome.text, outcome.error) == ("yes", None)
        assert second.began - first.began >= seconds


@pytest.mark.fault("L01", "L02")
@pytest.mark.parametrize("way", EACH)
async def test_a_second_by_the_server_s_clock_is_waited(way: Way) -> None:
    async with trial(refuses(429, *A_SECOND[1]), answer("yes"), way=way) as made:
        outcome = await made.ask()
        first, second = made.server.exchanges
        assert (outcome.text, outcome.error) == ("yes", None)
        assert second.began - first.began >= 1.0


@pytest.mark.fault("L01", "L02")
@pytest.mark.parametrize("way", SHARED)
@pytest.mark.parametrize("headers", A_SECOND)
async def test_a_second_is_asked_for(headers: list[tuple[str, str]], way: Way) -> None:
    policy = replace(QUICK, retry_after_cap=0.9)
    async with trial(refuses(429, *headers), way=way, policy=policy) as made:
        error = (await made.ask()).error
        assert (type(error), error.retry_after, made.sent) == (RateLimited, 1.0, 1)


JUNK = [
    *("soon", "nan", "-5", "inf", "1e400", "0x10", "1_0", "٣", "1, 2", "", "-0.0001", "9" * 400),
    *(EARLIER, "Wed, 99 Oct 2015 07:28:00 GMT", "Mon, 01 Jan 0001 00:00:00 GMT", "Mon, 01 Jan 1900 00:00:00 +9999"),
]


@pytest.mark.fault("L04")
@pytest.mark.parametrize("way", SHARED)
async def test_what_makes_no_sense_is_not_waited_for(way: Way) -> None:
    policy = replace(QUICK, retry_after_cap=0.0)  # with which whatever makes sense is an error
    async with trial(way=way, policy=policy) as made:
        for number, said in enumerate(JUNK):
            made.server.play(refuses(429, ("Retry-After", said)), answer(f"yes {number}"))
            outcome = await made.ask()
            assert (outcome.text, outcome.error) == (f"yes {number}", None), said
        made.server.play(refuses(429, ("Retry-After", "0.001")))
        assert type((await made.ask()).error) is RateLimited


@pytest.mark.fault("L04")
@pytest.mark.parametrize("way", SHARED)
@pytest.mark.parametrize("said", ["1e9", "61", "999999999999", "Fri, 31 Dec 9999 23:59:59 GMT"])
async def test_longer_than_the_cap_is_an_error_at_once(said: str, way: Way) -> None:
    async with trial(refuses(429, ("Retry-After", said)), way=way) as made:
        error = (await made.ask()).error
        assert type(error) is RateLimited
        assert error.retry_after is not None
        assert error.retry_after > QUICK.retry_after_cap
        waits = f"it asks to wait {error.retry_after:,.0f} s, above the limit of 60 s, so it was not waited for"
        assert str(error).endswith(waits)
        assert made.sent == 1


@pytest.mark.fault("L04")
@pytest.mark.parametrize("way", SHARED)
async def test_of_two_headers_one_is_believed(way: Way) -> None:
    twice = refuses(429, ("Retry-After", "0.1"), ("Retry-After", "0.2"))
    async with trial(twice, answer("yes"), way=way) as made:
        assert (await made.ask()).text == "yes"
        first, second = made.server.exchanges
        assert second.began - first.began >= 0.1


@pytest.mark.fault("L05")
@pytest.mark.parametrize("way", SHARED)
async def test_slowed_down_for_ever(way: Way) -> None:
    async with trial(refuses(429, ("Retry-After", "0.02")), way=way) as made:
        error = (await made.ask()).error
        assert (type(error), error.retry_after, error.attempts, error.status, made.sent) == (
            RateLimited, 0.02, 3, 429, 3
        )  # fmt: skip
        assert str(error).endswith("; it asks to wait 0.02 s (after 3 tries)")


@pytest.mark.fault("L06", "L09")
@pytest.mark.parametrize("way", SHARED)
@pytest.mark.parametrize(
    ("status", "body"),
    [
        *((status, None) for status in (408, 409, 500, 502, 503, 504, 529)),
        *((502, body) for body in (b"", b"<html>\n<h1>Bad gateway</h1>", b'{"error": {"mess', b"\xff\xfe\0", b"[]")),
    ],
)
async def test_what_passes_is_tried_again(status: int, body: bytes | None, way: Way) -> None:
    failing = refuses(status, ("content-type", "text/html"), body=body)
    async with trial(failing, answer("yes"), way=way) as made:
        outcome = await made.ask()
        assert (outcome.text, outcome.error, made.sent) == ("yes", None, 2)
        made.server.play(failing)
        error = (await made.ask()).error
        assert (type(error), error.status, error.attempts, made.sent) == (ProviderError, status, 3, 5)
        assert str(error).startswith(f"acme answered {status}")
        assert str(error).endswith("(after 3 tries)")


@pytest.mark.fault("L07")
@pytest.mark.parametrize("way", SHARED)
@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
async def test_what_is_wrong_is_not_tried_again(status: int, way: Way) -> None:
    body = f'{{"error": {{"message": "not with {KEY}", "code": "{KEY}", "param": null}}}}'.encode()
    async with trial(refuses(status, body=body), way=way) as made:
        error = (await made.ask()).error
        assert (type(error), error.status, error.retryable, made.sent) == (ProviderError, status, False, 1)
        assert "not with ***" in str(error)
        assert "tries" not in str(error)


@pytest.mark.fault("L08")
@pytest.mark.parametrize("way", SHARED)
@pytest.mark.parametrize(
    ("status", "wish", "sent"), [(503, "false", 1), (400, "true", 3), (429, "False", 1), (400, "?", 1)]
)
async def test_the_header_says_whether_to_try_again(status: int, wish: str, sent: int, way: Way) -> None:
    async with trial(refuses(status, ("X-Should-Retry", wish)), way=way) as made:
        assert ((await made.ask()).error.status, made.sent) == (status, sent)


@pytest.mark.fault("L09")
@pytest.mark.parametrize("way", SHARED)
@pytest.mark.parametrize("then", ["cut", "silent", "endless"])
async def test_an_error_whose_body_does_not_come_is_told_without_it(then: str, way: Way) -> None:
    head = b"HTTP/1.1 500 X\r\ncontent-length: 90\r\n\r\nhalf of"
    wires: dict[str, Any] = {
        "cut": Reply(raw=(head, "fin")),
        "silent": Reply(raw=(head, "hold")),
        "endless": Reply(status=500, body=b"half of", wire=Wire(framing="chunked", flood=b"x" * 1000)),
    }
    limits = TransportLimits(silence=0.1, total=0.7)
    async with trial(wires[then], way=way, policy=RetryPolicy(max_retries=0), limits=limits) as made:
        error = (await made.ask()).error
        assert (type(error), error.status) == (ProviderError, 500)
        assert str(error).startswith("acme answered 500: half of")


@pytest.mark.parametrize("way", [way for way in EACH if not way.is_streamed])
@pytest.mark.parametrize("name", [one.name for one in FAULTS.values() if one.row in ("L07", "L06", "L09")])
async def test_the_catalogue_says_the_same(name: str, way: Way) -> None:
    async with trial(fault(name), way=way) as made:
        error = (await made.ask()).error
        assert isinstance(error, ProviderError)
        assert error.retryable is (FAULTS[name].row != "L07")
