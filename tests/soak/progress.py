"""What a proof reports: how far it is, what differed, what was left behind, and its figures at the end.

Owns the cases of a proof (which are there, and the chance of each), its budget, and what people see. It does not know
what is proved.
"""

from __future__ import annotations

import random
import sys
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from math import ceil, inf
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterator

SHOWN = 20  # differences of one proof that are printed in full
QUICK = 0.2  # seconds between updates of a terminal's line
SLOW = 5.0  # seconds between lines elsewhere


@dataclass
class Proof:
    """One proof under way.

    Attributes:
        name: what it is called on the command line.
        wanted: how many cases are to be done.
        seed: what all chance of it comes from.
        budget: seconds after which it ends early.
        at: the one case to do, instead of ``wanted``.
        out: where progress goes.
        done: how many cases were done.
        differences: what was not as it must be, each with the command that repeats it.
        left: what a case left behind, likewise.
        counts: how often what happened, to show that the cases are of the kinds they should be.
        times: how long what took, in seconds; one time for each case.
    """

    name: str
    wanted: int
    seed: int = 1
    budget: float = inf
    at: int | None = None
    out: TextIO = field(default_factory=lambda: sys.stderr)
    done: int = 0
    differences: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    times: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    began: float = field(default_factory=time.monotonic)
    ended: float | None = None
    _shown: float = 0.0

    def cases(self, first: int = 0) -> Iterator[int]:
        """Give the numbers of the cases to do, until enough was `did` or the budget is spent."""
        if self.at is not None:
            yield self.at
            return
        number = first
        while self.goes_on:
            yield number
            number += 1

    @property
    def goes_on(self) -> bool:
        """Whether there is more to do, and time left for it."""
        return self.done < self.wanted and self.seconds < self.budget

    def chance(self, case: int) -> random.Random:
        """Give the chance of one case: the same whenever it is done again."""
        return random.Random(f"{self.name}:{self.seed}:{case}")  # noqa: S311  # repeatable, nothing secret

    def did(self, number: int = 1) -> None:
        """Count what was done, and show it."""
        self.done += number
        self._show()

    def differs(self, case: int, what: str) -> None:
        """Note that a case is not as it must be."""
        self._note(self.differences, case, what)

    def leaves(self, case: int, what: str) -> None:
        """Note that a case left something behind."""
        self._note(self.left, case, what)

    def finish(self) -> None:
        """Say that the proof is over."""
        self.ended = time.monotonic()
        self._show(last=True)

    @property
    def seconds(self) -> float:
        """How long it took, or has taken so far."""
        return (self.ended or time.monotonic()) - self.began

    @property
    def holds(self) -> bool:
        """Whether something was done, and all of it was as it must be."""
        return self.done > 0 and not self.differences and not self.left

    def _note(self, where: list[str], case: int, what: str) -> None:
        again = f'make soak ARGS="{self.name} --seed {self.seed} --at {case}"'
        said = f"{self.name}, case {case}: {what}\n    again: {again}"
        where.append(said)
        if len(where) <= SHOWN:
            self._print(said)

    def _show(self, *, last: bool = False) -> None:
        now = time.monotonic()
        if not last and now - self._shown < (QUICK if self.out.isatty() else SLOW):
            return
        self._shown = now
        line = f"{self.name}: {self.done:,} of {self.wanted:,} in {self.seconds:.0f} s"
        if self.differences or self.left:
            line += f", {len(self.differences)} differ, {len(self.left)} left something behind"
        if self.out.isatty():
            self.out.write(f"\r\x1b[2K{line}" + ("\n" if last else ""))
        else:
            self.out.write(line + "\n")
        self.out.flush()

    def _print(self, said: str) -> None:
        self.out.write(("\r\x1b[2K" if self.out.isatty() else "") + said + "\n")
        self.out.flush()


def table(proofs: list[Proof]) -> str:
    """Give the figures of proofs that are over, one line each, and below them what they consisted of."""
    lines = [f"{'proof':<20} {'done':>9} {'differ':>7} {'left':>6} {'seconds':>8} {'a second':>9}"]
    for proof in proofs:
        rate = proof.done / proof.seconds if proof.seconds else 0.0
        figures = f"{len(proof.differences):>7,} {len(proof.left):>6,} {proof.seconds:>8.1f} {rate:>9,.0f}"
        lines.append(f"{proof.name:<20} {proof.done:>9,} {figures}")
    lines.append("")
    for proof in proofs:
        of_these = ", ".join(f"{count:,} {what}" for what, count in sorted(proof.counts.items()))
        lines.append(f"{proof.name}: {of_these or 'nothing counted'}")
    for proof in proofs:
        if proof.times:
            lines += ["", f"{proof.name + ', ms':<24} {'cases':>9} {'p50':>8} {'p90':>8} {'p99':>8} {'most':>8}"]
            lines += [_line_of(what, times) for what, times in proof.times.items() if times]
    return "\n".join(lines) + "\n"


def percentile(times: list[float], share: int) -> float:
    """Give the time that so many of a hundred did not pass; the longest for 100."""
    return sorted(times)[max(0, ceil(len(times) * share / 100) - 1)]


def _line_of(what: str, times: list[float]) -> str:
    figures = (f"{percentile(times, share) * 1000:>8.1f}" for share in (50, 90, 99, 100))
    return f"{what:<24} {len(times):>9,} {' '.join(figures)}"
