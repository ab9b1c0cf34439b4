from __future__ import annotations

import pytest
from benchmarks.counting import ALLOWED, ALLOWED_ODD, MODELS, errors, kinds, odd_kinds
from hypothesis import given
from hypothesis import strategies as st

from plait.estimates import SIMPLE, Correction, simple

ANY_TEXT = st.text(st.characters(codec=None), max_size=300)
JOINT = 20  # what the seam of two texts can cost


@pytest.mark.usefixtures("counted")
@pytest.mark.parametrize(("texts", "allowed"), [(kinds(), ALLOWED), (odd_kinds(), ALLOWED_ODD)], ids=["written", "odd"])
def test_estimates_are_off_by_no_more_than_is_said(texts: dict[str, str], allowed: float) -> None:
    """The texts are others than it was fitted to."""
    found = {kind: errors(text) for kind, text in texts.items()}
    assert len(found) >= 12
    off = [
        (kind, model, round(error, 3))
        for kind, both in found.items()
        for model, (_, error) in zip(MODELS, both, strict=True)
        if abs(error) > allowed
    ]
    assert off == []


@pytest.mark.parametrize(
    ("sign", "in_a_token"),
    [("-", 64), ("=", 64), ("_", 64), (".", 64), ("\0", 64), ("\n", 24), ("\r", 24), ("a", 8), ("Z", 8)],
)
def test_a_long_run_of_one_character_costs_few_tokens(sign: str, in_a_token: int) -> None:
    runs = [SIMPLE.count(f"x {sign * length} y") for length in (50, 500, 5_000, 50_000)]
    assert runs == sorted(runs)
    assert abs(runs[-1] - 50_000 / in_a_token) < JOINT


@pytest.fixture
def counted(tables: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tables))


@given(ANY_TEXT)
def test_any_text_has_at_least_one_token_and_at_most_its_bytes(text: str) -> None:
    most = len(text.encode("utf-8", "surrogatepass"))
    for counter in (simple(), simple("gpt-4")):
        assert min(1, most) <= counter.count(text) <= most


@given(ANY_TEXT, ANY_TEXT)
def test_two_texts_have_about_as_many_tokens_as_both_together(one: str, other: str) -> None:
    assert abs(SIMPLE.count(one + other) - SIMPLE.count(one) - SIMPLE.count(other)) <= JOINT


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [
        ("a" * 1_000_000, 100_000, 260_000),
        (" " * 1_000_000, 7_000, 30_000),
        ("\N{GRINNING FACE}" * 1_000, 1_000, 2_000),
        ("\ud800" * 100, 1, 300),
        ("\0" * 100, 1, 100),
        ("hi", 1, 2),
        ("Hello, world!", 3, 6),
        ("<|endoftext|>", 3, 8),
    ],
    ids=["letters", "blanks", "emoji", "surrogates", "zeros", "word", "greeting", "special token"],
)
def test_odd_texts_are_not_counted_absurdly(text: str, least: int, most: int) -> None:
    assert least <= SIMPLE.count(text) <= most


def test_models_with_the_smaller_vocabulary_are_told_by_name() -> None:
    older = ["gpt-4", "gpt-4-turbo", "gpt-3.5-turbo", "gpt-35-turbo", "ft:gpt-4:me", "openai/gpt-4", "davinci-002"]
    newer = ["", "gpt-4o", "gpt-4o-mini", "gpt-4.1", "gpt-5", "openai/gpt-4o", "ft:gpt-4o:me", "o3", "claude-sonnet-4"]
    assert [name for name in older if simple(name) is SIMPLE] == []
    assert [name for name in newer if simple(name) is not SIMPLE] == []


def test_a_correction_goes_towards_what_is_reported() -> None:
    correction = Correction()
    assert correction.factor("openai", "gpt-5") == 1.0
    correction.learn("openai", "gpt-5", 1_000, 1_300)
    first = correction.factor("openai", "gpt-5")
    for _ in range(20):
        correction.learn("openai", "gpt-5", 1_000, 1_300)
    assert 1.15 < first < correction.factor("openai", "gpt-5") < 1.3
    assert correction.factor("openai", "gpt-5") == pytest.approx(1.3, abs=0.01)
    assert correction.factor("openai", "gpt-4o") == correction.factor("other", "gpt-5") == 1.0


@pytest.mark.parametrize(
    ("estimated", "reported"),
    [(0, 0), (0, 500), (49, 60), (500, 0), (500, 40), (1_000, 9_000), (9_000, 1_000), (-5, -5)],
)
def test_a_correction_takes_nothing_from_what_cannot_be_compared(estimated: int, reported: int) -> None:
    correction = Correction()
    correction.learn("openai", "gpt-5", estimated, reported)
    assert correction.factor("openai", "gpt-5") == 1.0


@given(st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 10**9))))
def test_a_factor_stays_between_a_half_and_three(reports: list[tuple[int, int]]) -> None:
    correction = Correction()
    for estimated, reported in reports:
        correction.learn("openai", "gpt-5", estimated, reported)
    assert 0.5 <= correction.factor("openai", "gpt-5") <= 3.0
