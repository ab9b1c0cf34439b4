"""How far estimates of tokens are off: ``python -m benchmarks.counting``.

Prints, for texts that the estimate was not fitted to, the tokens that OpenAI's two vocabularies give them and the error
of the estimate; then how long counting takes. Exits with 1 when a kind of text is more than 20 % off, or 40 % of what
no person writes.
Needs tiktoken and its tables (TIKTOKEN_CACHE_DIR), which `make test` installs beside itself.
"""

from __future__ import annotations

import base64
import json
import os
import sys
import time
from pathlib import Path
from random import Random
from string import ascii_lowercase, ascii_uppercase
from typing import TYPE_CHECKING, Final
from uuid import UUID

from plait.counting import accurate, simple

if TYPE_CHECKING:
    from plait.counting import Counter

ALLOWED: Final = 0.2
ALLOWED_ODD: Final = 0.4
MODELS: Final = ("gpt-4o", "gpt-4")
_TEXTS: Final = Path(__file__).parent / "texts"
_TABLES: Final = Path(sys.prefix) / "tables"
_WORDS: Final = (
    "order",
    "customer",
    "shipped",
    "invoice",
    "pending",
    "warehouse",
    "retry",
    "payment",
    "address",
    "region",
    "quantity",
    "discount",
    "refund",
    "created",
    "updated",
    "session",
    "gateway",
    "timeout",
    "connection",
    "worker",
)


def kinds() -> dict[str, str]:
    """Give the texts, a few hundred words each, by kind."""
    made = {path.stem: path.read_text("utf-8") for path in sorted(_TEXTS.glob("*.txt"))}
    chance = Random(20)  # noqa: S311  # the same texts each time
    records = [_record(chance) for _ in range(14)]
    made["json, compact"] = json.dumps(records, separators=(",", ":"))
    made["json, indented"] = json.dumps(records, indent=2)
    made["logs"] = "\n".join(_log_line(chance) for _ in range(40))
    made["base64"] = base64.b64encode(chance.randbytes(900)).decode()
    return made


def odd_kinds() -> dict[str, str]:
    """Give texts that no person writes, such as long runs of letters or of one sign, by kind."""
    chance = Random(21)  # noqa: S311  # the same texts each time

    def letters(among: str, length: int, lines: int = 1) -> str:
        return "\n".join("".join(chance.choices(among, k=length)) for _ in range(lines))

    return {
        "dna": letters("ACGT", 2_000),
        "protein, in lines": letters("ACDEFGHIKLMNPQRSTVWY", 60, 30),
        "identifiers, upper": letters(ascii_uppercase, 12, 150),
        "random, lower case": letters(ascii_lowercase, 2_000),
        "one letter": "a" * 2_000,
        "rule": "-" * 2_000,
        "line breaks": "\n" * 1_000,
        "table in Markdown": f"| {'-' * 30} | {'-' * 30} |\n" * 20,
        "table, narrow": "| name | value |\n| --- | --- |\n" + "| a | 1 |\n| b | 2 |\n" * 40,
        "contents, dotted": f"Introduction {'.' * 40} 12\n" * 40,
        "form": f"Name: {'_' * 22}\nDate: {'_' * 22}\n" * 30,
        "box": f"+{'-' * 60}+\n" + f"|{' ' * 60}|\n" * 10,
    }


def _record(chance: Random) -> dict[str, object]:
    return {
        "id": str(UUID(int=chance.getrandbits(128), version=4)),
        "status": chance.choice(_WORDS),
        "orderCount": chance.randrange(500),
        "total_amount": round(chance.random() * 900, 2),
        "tags": chance.sample(_WORDS, 3),
        "note": " ".join(chance.choices(_WORDS, k=9)),
        "createdAt": f"2025-{chance.randint(1, 12):02}-{chance.randint(1, 28):02}T{chance.randint(0, 23):02}:15:00Z",
        "active": chance.random() < 0.5,  # noqa: PLR2004  # a coin
        "parent": None,
    }


def _log_line(chance: Random) -> str:
    day, hour, minute, second = (chance.randint(1, most) for most in (28, 23, 59, 59))
    moment = f"2025-03-{day:02} {hour:02}:{minute:02}:{second:02}.{chance.randint(0, 999):03}"
    words = " ".join(chance.choices(_WORDS, k=5))
    return chance.choice(
        (
            f"{moment} INFO  [{chance.choice(_WORDS)}-{second}] {words}, {chance.randrange(10**6)} bytes",
            f"{moment} ERROR {words} request_id={UUID(int=chance.getrandbits(128), version=4)}",
            f'{moment} 10.0.{hour}.{minute} "GET /{chance.choice(_WORDS)}" 200 0.{chance.randint(1, 999)}',
        )
    )


def errors(text: str) -> list[tuple[int, float]]:
    """Give a text's tokens in each vocabulary, with the error of the estimate as a part of them.

    Raises:
        ConfigurationError: tiktoken or a table is missing.
    """
    counts = [(accurate(model).count(text), simple(model).count(text)) for model in MODELS]
    return [(tokens, estimated / tokens - 1) for tokens, estimated in counts]


def _microseconds(counter: Counter, text: str) -> float:
    """Give what 1,000 characters take, at the best of five."""
    best = float("inf")
    for _ in range(5):
        begin = time.perf_counter()
        counter.count(text)
        best = min(best, time.perf_counter() - begin)
    return best * 1e9 / len(text)


def main() -> int:
    """Print the table."""
    if _TABLES.is_dir():
        os.environ.setdefault("TIKTOKEN_CACHE_DIR", str(_TABLES))
    heads = "".join(f"{model:>10} {'error':>8}" for model in MODELS)
    print(f"{'kind of text':20}{'characters':>11}{heads}{'us/1000':>10}")
    worst = _print_kinds(kinds())
    print(f"\nThe worst is {worst:.1%} off; allowed are {ALLOWED:.0%}.\n")
    oddest = _print_kinds(odd_kinds())
    print(f"\nOf what no person writes the worst is {oddest:.1%} off; allowed are {ALLOWED_ODD:.0%}.")
    english = (_TEXTS / "english.txt").read_text("utf-8")
    for name, counter in (("Simple", simple()), ("Accurate", accurate(MODELS[0]))):
        long = _microseconds(counter, english * 600)
        print(
            f"{name}: {_microseconds(counter, english):.0f} us for 1,000 characters, {long:.0f} us each of 1,000,000."
        )
    return int(worst > ALLOWED or oddest > ALLOWED_ODD)


def _print_kinds(texts: dict[str, str]) -> float:
    """Print a line for each kind; give how far off the worst is."""
    worst = 0.0
    for kind, text in texts.items():
        found = errors(text)
        worst = max(worst, *(abs(error) for _, error in found))
        cells = "".join(f"{tokens:>10,} {error:>+8.1%}" for tokens, error in found)
        print(f"{kind:20}{len(text):>11,}{cells}{_microseconds(simple(), text):>10.1f}")
    return worst


if __name__ == "__main__":
    sys.exit(main())
