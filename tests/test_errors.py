from __future__ import annotations

import pickle

import pytest

from plait.errors import ModelError, ProviderError, RateLimited, StreamTruncated, plain_seconds


@pytest.mark.parametrize(
    ("number", "expected"),
    [(0.0, "0 s"), (0.02, "0.02 s"), (61.5, "61.5 s"), (90.0, "90 s"), (1e9, "1,000,000,000 s"), (1e-9, "0 s")],
)
def test_seconds_are_written_for_people(number: float, expected: str) -> None:
    assert plain_seconds(number) == expected


def test_an_error_says_what_its_fields_say() -> None:
    error = RateLimited("slow down", status=429, retry_after=90.0)
    assert str(error) == "slow down; it asks to wait 90 s"
    error.attempts = 3
    assert str(error) == "slow down; it asks to wait 90 s (after 3 tries)"
    error.longest_wait = 60.0
    said = "slow down; it asks to wait 90 s, above the limit of 60 s, so it was not waited for (after 3 tries)"
    assert str(error) == said
    assert str(pickle.loads(pickle.dumps(error))) == said  # noqa: S301  # our own
    assert error.args == ("slow down",)


@pytest.mark.parametrize("error", [ProviderError("no", status=500), StreamTruncated("no"), ModelError("no")])
def test_an_error_without_them_says_its_message(error: ModelError) -> None:
    assert str(error) == "no"
    error.attempts = 2
    assert str(error) == "no (after 2 tries)"
