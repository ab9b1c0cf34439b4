"""How many tokens a text has, without a vocabulary: an estimate, and what providers' reports correct it by.

Knows nothing of messages, and of no vocabulary more than what its pieces cost on average.
"""

from __future__ import annotations

import re
from typing import Final


def _kinds() -> bytes:
    """Give what stands for each first byte of a character in UTF-8: a letter for its kind."""
    kinds = bytearray(b"." * 128)
    for characters, kind in (
        (range(ord("a"), ord("z") + 1), "a"),
        (range(ord("A"), ord("Z") + 1), "A"),
        (b"0123456789", "0"),
        (b" \t", " "),
        (b"\r\n", "\n"),
    ):
        for character in characters:
            kinds[character] = ord(kind)
    for last, kind in (
        (0xC2, "s"),  # signs of Latin-1; what lies before these are bytes inside characters
        (0xCD, "e"),  # Latin letters with accents
        (0xCF, "g"),  # Greek
        (0xD3, "r"),  # Cyrillic
        (0xD7, "h"),  # Armenian, Hebrew
        (0xDB, "b"),  # Arabic
        (0xDF, "y"),  # Syriac, Thaana, N'Ko
        (0xE0, "i"),  # scripts of India, Thai, Lao
        (0xE1, "x"),  # Georgian, Khmer, ..., Vietnamese letters
        (0xE2, "p"),  # punctuation, arrows, boxes, mathematics
        (0xE3, "k"),  # Japanese syllables, punctuation of East Asia
        (0xE9, "c"),  # Chinese characters
        (0xED, "j"),  # Korean syllables
        (0xEF, "f"),  # wide forms
        (0xFF, "m"),  # emoji and all that is rare
    ):
        kinds += kind.encode() * (last + 1 - len(kinds))
    return bytes(kinds)


_KINDS: Final = _kinds()
_INSIDE: Final = bytes(range(0x80, 0xC0))  # the further bytes of characters

_COSTS: Final[tuple[tuple[bytes, float, float], ...]] = (
    (b" a", 0.88, 1.00),  # words
    (b"\na", 0.94, 1.00),
    (b".a", 1.20, 1.20),
    (b" A", 1.30, 1.30),
    (b"\nA", 0.50, 0.50),
    (b".A", 1.60, 1.60),
    (b"aaaaaaaa", 1.00, 1.00),  # long words: one of eight letters has one of these, one of sixteen has two
    (b"aaaaaaaaaaaa", 1.00, 1.00),
    (b"a" * 40, 12.20, 12.20),  # no word any more, but what machines write
    (b"aA", 1.00, 1.00),
    (b"AA", 0.23, 0.26),
    (b"A" * 12, 3.00, 3.00),
    (b"A" * 16, 3.20, 3.20),
    (b"a0", 0.39, 0.31),  # identifiers, base64
    (b"0a", 1.30, 1.30),
    (b"A0", 2.10, 2.30),
    (b"0A", 1.90, 2.10),
    (b"0", 0.30, 0.33),  # numbers
    (b" 0", 0.65, 0.50),
    (b".0", 0.85, 0.84),
    (b"0.", 0.91, 0.92),
    (b" .", 1.20, 1.20),  # punctuation and blanks
    (b"....", 1.00, 1.00),
    (b". ", 0.95, 0.93),
    (b" . ", -0.60, -0.60),  # a sign by itself, in a table or between the words of a programme
    (b"\n", 0.66, 0.30),
    (b"                ", 0.30, 0.30),
    (b"s", 1.27, 1.50),  # other scripts
    (b"e", 1.24, 2.00),
    (b"g", 0.40, 1.05),
    (b"r", 0.19, 0.34),
    (b" r", 0.67, 1.20),
    (b"h", 0.49, 1.19),
    (b"b", 0.35, 0.73),
    (b" b", 0.00, 0.53),
    (b"y", 1.80, 1.80),
    (b"i", 0.38, 1.21),
    (b"x", 0.30, 0.38),
    (b"p", 1.77, 1.80),
    (b"k", 0.74, 1.01),
    (b"c", 0.87, 1.27),
    (b"j", 0.76, 1.27),
    (b"f", 0.60, 0.60),
    (b"m", 1.40, 2.38),
)
"""What makes tokens, as a pattern of kinds, with the tokens of one: in a vocabulary of 200,000, and in one of 100,000.

Fitted by least squares to some 1,600 texts of 45 kinds in tiktoken's o200k_base and cl100k_base, but for those of long
runs of letters, which were set by hand; ``python -m benchmarks.counting`` shows how far off it is on others.
"""
_LONG: Final = (b"." * 16, b"\n" * 16, b"a" * 40, b"A" * 16)  # where one of these is, a run of one character may be
_RUN: Final = re.compile(rb"([^ 0-9\x80-\xff])\1{15,}")  # blanks and digits have patterns of their own
_KEPT: Final = 3
_PER_TOKEN: Final = {ord("a"): 8, ord("A"): 8, ord("\n"): 24, ord(" "): 16, ord("."): 64}
"""How many times one character stands in a token of nothing else, by its kind."""
_OLDER: Final = r"(ft:)?(gpt-4(?![o.])|gpt-3|text-(embedding|davinci)|davinci|babbage|code-)"
"""Models that have the smaller vocabulary, in which most scripts take more tokens."""


class Estimate:
    """Counts how often each pattern of kinds comes: some thirty passes at the speed of memory, and no more."""

    __slots__ = ("_ascii", "_costs")

    def __init__(self, column: int) -> None:
        """Take the column of the costs that the vocabulary has."""
        self._costs = tuple((pattern, costs[column]) for pattern, *costs in _COSTS)
        self._ascii = tuple(cost for cost in self._costs if not set(cost[0]) & set(_KINDS[0xC2:]))

    def count(self, text: str) -> int:
        """Estimate the tokens of a text: never fails, and never gives more than its bytes in UTF-8."""
        if not text:
            return 0
        data = text.encode("utf-8", "surrogatepass")
        kinds = b" %b " % data.translate(_KINDS, _INSIDE)
        tokens = 0.0
        if any(map(kinds.__contains__, _LONG)):
            runs: list[tuple[int, int]] = []

            def shortened(run: re.Match[bytes]) -> bytes:
                runs.append((_KINDS[run[1][0]], run.end() - run.start() - _KEPT))
                return run[1] * _KEPT

            kinds = b" %b " % _RUN.sub(shortened, data).translate(_KINDS, _INSIDE)
            tokens = sum([length / _PER_TOKEN[kind] for kind, length in runs])
        costs = self._ascii if text.isascii() else self._costs
        tokens += sum([cost * kinds.count(pattern) for pattern, cost in costs])
        return min(max(round(tokens), 1), len(data))


SIMPLE: Final = Estimate(0)
"""Estimates tokens without tables, for the vocabularies of today's models: see `simple`."""
_SIMPLE_OLDER: Final = Estimate(1)


def simple(model: str = "") -> Estimate:
    """Give a counter that estimates: at most 20 % off for texts of some hundred words, and often within 10 %.

    In a few languages, such as Vietnamese and Finnish, it is up to 30 % off, and up to 40 % in tables and in letters
    that machines wrote. It needs no table and no package, and takes about 30 microseconds for 1,000 characters, 60
    where they hold long runs of letters or of one sign. Vocabularies differ by as much as three times in what a Hindi
    or Arabic text takes, so it asks for the model: OpenAI's models before gpt-4o have a smaller vocabulary than all
    others are taken to have.

    Args:
        model: its name, as in requests.
    """
    return _SIMPLE_OLDER if re.match(_OLDER, model.rpartition("/")[2]) else SIMPLE


# --- what providers report -------------------------------------------------------------------------------------------

_LEAST: Final = 50
_MOST_OFF: Final = 8
_MEMORY: Final = 0.8
_TRUST: Final = 500.0  # so many tokens were as estimated, before anything is known
_LOWEST: Final = 0.5
_HIGHEST: Final = 3.0


class Correction:
    """How far estimates are from what providers report, for each provider and model.

    Long requests count more than short ones, and late ones more than early ones: each new one takes a fifth from the
    weight of those before it.
    """

    __slots__ = ("_sums",)

    def __init__(self) -> None:
        self._sums: dict[tuple[str, str], tuple[float, float]] = {}

    def learn(self, provider: str, model: str, estimated: int, reported: int) -> None:
        """Take the tokens of one request, as estimated and as reported; cached input is part of both.

        Requests below 50 tokens say nothing, and those off by more than eight times were not counted alike; both are
        passed over.
        """
        if estimated < _LEAST or reported < _LEAST or not 1 / _MOST_OFF <= reported / estimated <= _MOST_OFF:
            return
        told, was = self._sums.get((provider, model), (_TRUST, _TRUST))
        self._sums[provider, model] = (told * _MEMORY + estimated, was * _MEMORY + reported)

    def factor(self, provider: str, model: str) -> float:
        """Give what an estimate is to be multiplied with: 1.0 before anything was learnt, and always 0.5 to 3."""
        told, was = self._sums.get((provider, model), (1.0, 1.0))
        return min(max(was / told, _LOWEST), _HIGHEST)
