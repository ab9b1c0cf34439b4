"""The command line of the long proofs: which there are, and their figures at the end."""

from __future__ import annotations

import argparse
import sys
import threading
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple

from soak.budgets import agents, agents_of_8, budgets, budgets_of_8
from soak.cancellations import cancellations, steps
from soak.cuts import cuts, junk, positions, sockets
from soak.kills import kills
from soak.leftovers import descriptors, threads_left
from soak.memory import failures, memory
from soak.progress import Proof, table
from soak.stops import stops
from soak.subjects import SUBJECTS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

IDLE: Final = 10.0  # seconds within which threads that nobody needs any more must have ended


class Known(NamedTuple):
    """A proof, how many cases of it are done when nobody says how many, and what it does."""

    prove: Callable[[Proof], None]
    usual: int
    says: str | None


_OF_EACH_DIALECT: Final = (
    (positions, 100_000),  # all there are: some thousands
    (cuts, 100_000),
    (sockets, 5_000),
    (junk, 100_000),
)
_OTHERS: Final = (
    (cancellations, 10_000),
    (steps, 100_000),  # all there are: about 800
    (stops, 1_000),
    (memory, 10_000),
    (failures, 10_000),
)
PROOFS: Final = {
    "kills": Known(kills, 1_000, kills.__doc__),
    "budgets": Known(budgets, 20, budgets.__doc__),
    "budgets-of-8": Known(budgets_of_8, 50, budgets_of_8.__doc__),
    "agents": Known(agents, 20, agents.__doc__),
    "agents-of-8": Known(agents_of_8, 50, agents_of_8.__doc__),
    **{
        f"{prove.__name__}-{subject.name}": Known(partial(prove, subject=subject), usual, prove.__doc__)
        for prove, usual in _OF_EACH_DIALECT
        for subject in SUBJECTS
    },
    **{prove.__name__: Known(prove, usual, prove.__doc__) for prove, usual in _OTHERS},
}


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    said = "\n".join(f"  {name:<20} {known.usual:>9,}  {known.says}" for name, known in PROOFS.items())
    parser = argparse.ArgumentParser(
        prog="python tests/soak",
        description="Prove at length what the tests prove in short.",
        epilog=f"proofs, and how many cases each has by itself:\n{said}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("proofs", nargs="*", metavar="PROOF", help="which to do (all of them)")
    parser.add_argument("--count", type=int, help="how many cases of each")
    parser.add_argument("--seed", type=int, default=1, help="what all chance comes from (1)")
    parser.add_argument("--seconds", type=float, default=inf, help="end each proof after so many seconds")
    parser.add_argument("--at", type=int, help="do this one case, as a failure names it")
    arguments = parser.parse_args(given)
    unknown = [name for name in arguments.proofs if name not in PROOFS]
    if unknown:
        parser.error(f"there is no proof {unknown[0]!r}; the proofs are {', '.join(PROOFS)}")
    if arguments.at is not None and len(arguments.proofs) != 1:
        parser.error("--at needs the one proof whose case it is")
    return arguments


def main(given: Sequence[str] | None = None) -> int:
    """Do the proofs; print their figures; give 1 if one of them does not hold."""
    arguments = _arguments(given)
    threads, files = set(threading.enumerate()), descriptors()
    done = []
    for name in arguments.proofs or PROOFS:  # those that fork come first: nothing has started a thread yet
        known = PROOFS[name]
        wanted = 1 if arguments.at is not None else arguments.count or known.usual
        proof = Proof(name, wanted, arguments.seed, arguments.seconds, arguments.at)
        done.append(proof)
        try:
            known.prove(proof)
        finally:
            proof.finish()
    sys.stdout.write("\n" + table(done))
    left = [*threads_left(threads, IDLE), *(descriptors() - files)]
    sys.stdout.write(f"left in this process: {', '.join(left) or 'no thread, no file, no socket'}\n")
    return 0 if all(proof.holds for proof in done) and not left else 1
