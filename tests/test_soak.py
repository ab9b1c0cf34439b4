"""The long proofs of `make soak`, in short: the same functions, a few cases of each."""

from __future__ import annotations

import os
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from soak.cancellations import KINDS, WAYS, Way, cancellations, steps
from soak.chat_subject import CHAT
from soak.cuts import cuts, expected, junk, positions, read, said, sockets
from soak.memory import failures, memory
from soak.ollama_subject import OLLAMA
from soak.progress import Proof, percentile, table
from soak.stops import PLACES, stops
from soak.subjects import SUBJECTS
from soak.world import STORES

if TYPE_CHECKING:
    from collections.abc import Callable

    from soak.streams import Reference, Subject

SOAK = Path(__file__).with_name("soak")


def soak(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the program, which forks, and must have no threads of the tests' when it does."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "src")}
    command = [sys.executable, str(SOAK), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=50, env=environment)


of_each_dialect = pytest.mark.parametrize("subject", SUBJECTS, ids=lambda subject: subject.name)


def proven(prove: Callable[..., None], count: int, *subject: Subject) -> Proof:
    """Do so many cases of a proof; it must hold."""
    proof = Proof(prove.__name__, count, out=StringIO())
    prove(proof, *subject)
    proof.finish()
    assert (proof.differences, proof.left) == ([], [])
    assert proof.done >= min(count, proof.wanted)
    return proof


@pytest.mark.fault("P01")
def test_a_process_that_is_killed_again_and_again_goes_on_where_it_was() -> None:
    done = soak("kills", "--count", "16")
    assert done.returncode == 0, done.stdout + done.stderr
    figures = next(line.split() for line in done.stdout.splitlines() if line.startswith("kills "))
    assert int(figures[1]) >= 16
    assert figures[2:4] == ["0", "0"]


@pytest.mark.fault("S17")
@pytest.mark.parametrize("proof", ["budgets-of-8", "agents-of-8"])
def test_processes_that_spend_from_one_budget_never_pass_it(proof: str) -> None:
    done = soak(proof, "--count", "3")
    assert done.returncode == 0, done.stdout + done.stderr
    figures = next(line.split() for line in done.stdout.splitlines() if line.startswith(f"{proof} "))
    assert figures[1:4] == ["3", "0", "0"]
    counts = next(line for line in done.stdout.splitlines() if line.startswith(f"{proof}: "))
    assert int(counts.removeprefix(f"{proof}: ").split()[0].replace(",", "")) > 50, counts  # calls


@of_each_dialect
@pytest.mark.fault("L22", "L23", "L26", "L27", "L29")
def test_a_stream_cut_at_any_position(subject: Subject) -> None:
    proof = proven(positions, 2_500, subject)
    assert min(proof.counts.values()) > 100  # of both kinds


@of_each_dialect
@pytest.mark.fault("L22", "L23", "L26", "L27", "L28", "L29", "L34")
def test_streams_written_down_and_cut_at_random(subject: Subject) -> None:
    proof = proven(cuts, 700, subject)
    assert set(proof.counts) == {"ends that were an answer", "ends that were none"}
    assert min(proof.counts.values()) > 20


@of_each_dialect
@pytest.mark.fault("L20", "L21", "L22", "L26")
def test_streams_cut_at_random_through_a_socket(subject: Subject) -> None:
    proof = proven(sockets, 100, subject)
    assert set(proof.counts) == {"whole", "ended", "broken", "reset"}


@of_each_dialect
@pytest.mark.fault("L30", "L35", "L36")
def test_spoilt_streams_give_a_result_or_a_typed_error(subject: Subject) -> None:
    proof = proven(junk, 600, subject)
    assert {"Answer", "ProtocolViolation", "ProviderError", "StreamTruncated"} <= set(proof.counts)


@pytest.mark.fault("C01")
def test_runs_cancelled_at_random_moments() -> None:
    proof = proven(cancellations, 60)
    cancelled = [what.split(" on ") for what in proof.counts if what != "ended before"]
    assert {kind for kind, _ in cancelled} == set(KINDS)
    assert {store for _, store in cancelled} == set(STORES)


@pytest.mark.fault("C01")
@pytest.mark.parametrize("way", WAYS[::7], ids=lambda way: "-".join(map(str, way)))
def test_a_run_cancelled_at_each_of_its_steps(way: Way) -> None:
    proof = Proof("steps", 1_000, out=StringIO())
    steps(proof, [way])
    assert (proof.differences, proof.left) == ([], [])
    assert proof.done > 5
    assert proof.counts[f"{way.kind} on {way.store}"] > 4


@pytest.mark.fault("C05")
def test_runs_stopped_at_random_moments() -> None:
    proof = proven(stops, 48)
    assert {what for what in proof.counts if what != "ended before"} == set(PLACES)
    assert len(proof.times["all"]) == sum(len(proof.times[what]) for what in PLACES)


@pytest.mark.parametrize("prove", [memory, failures])
def test_memory_stays_what_it_was(prove: Callable[[Proof], None]) -> None:
    proof = proven(prove, 180)
    assert proof.counts["runs in which they were"] == 135


# --- the proofs themselves --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("subject", "reference"),
    [(subject, reference) for subject in SUBJECTS for reference in subject.references],
    ids=lambda one: one.name,
)
def test_the_reference_streams_say_what_they_are_said_to_say(subject: Subject, reference: Reference) -> None:
    for end in subject.wire.ends:
        stream = subject.wire.plainly(reference.events, end)
        outcome = read(subject, [stream])
        assert not isinstance(outcome, Exception)
        assert said(outcome) == expected(reference)
        there = subject.seen(stream, clean=True)
        assert (there.anything, there.finished, there.text) == (True, True, reference.text)


A = b'data: {"choices":[{"delta":{"content":"a"},"finish_reason":null}]}'
B = b'{"message":{"content":"b"},"done":false}'


@pytest.mark.parametrize(
    ("subject", "beginning", "clean", "text", "finished"),
    [
        (CHAT, b"", True, "", False),
        (CHAT, A, True, "a", False),
        (CHAT, A + b"\n", False, "", False),
        (CHAT, A + b"\n\n", False, "a", False),
        (CHAT, A[:-1], True, "", False),
        (CHAT, b"data: [DONE", True, "", False),
        (CHAT, b"data: [DONE]", True, "", True),
        (OLLAMA, b"", True, "", False),
        (OLLAMA, B, True, "b", False),
        (OLLAMA, B, False, "", False),
        (OLLAMA, B[:-1], True, "", False),
        (OLLAMA, b"\r\n" + B + b"\r\n" + B.replace(b"false", b"true") + b"\njunk", False, "bb", True),
    ],
)
def test_the_slow_reader(subject: Subject, beginning: bytes, clean: bool, text: str, finished: bool) -> None:
    there = subject.seen(beginning, clean=clean)
    assert (there.text, there.finished) == (text, finished)


def test_a_proof_that_does_not_hold_says_so_and_how_to_see_it_again() -> None:
    out = StringIO()
    proof = Proof("cuts", 3, seed=5, out=out)
    for case in proof.cases():
        if case == 1:
            proof.differs(case, "it was wrong")
        proof.did()
    proof.leaves(2, "a socket")
    proof.finish()
    assert not proof.holds
    assert 'cuts, case 1: it was wrong\n    again: make soak ARGS="cuts --seed 5 --at 1"\n' in out.getvalue()
    assert "3 of 3 in 0 s, 1 differ, 1 left something behind\n" in out.getvalue()
    assert table([proof]).splitlines()[1].split()[:4] == ["cuts", "3", "1", "1"]


def test_the_times_of_a_proof_are_shown_in_milliseconds() -> None:
    proof = Proof("stops", 1, out=StringIO())
    proof.times["all"] = [seconds / 1000 for seconds in range(200, 0, -1)]
    assert [percentile(proof.times["all"], share) for share in (0, 50, 99, 100)] == [0.001, 0.1, 0.198, 0.2]
    assert table([proof]).splitlines()[-2:] == [
        "stops, ms                    cases      p50      p90      p99     most",
        "all                            200    100.0    180.0    198.0    200.0",
    ]


def test_a_case_is_the_same_when_it_is_done_again() -> None:
    one, other = Proof("cuts", 10, seed=3), Proof("cuts", 1, seed=3, at=7)
    assert list(other.cases()) == [7]
    assert one.chance(7).random() == other.chance(7).random() != one.chance(8).random()


def test_a_proof_ends_when_its_budget_is_spent() -> None:
    proof = Proof("cuts", 10, budget=0.0, out=StringIO())
    assert list(proof.cases()) == []
    assert not proof.holds


def test_the_program_refuses_what_it_does_not_know() -> None:
    done = soak("everything")
    assert done.returncode == 2
    assert "there is no proof 'everything'; the proofs are kills, budgets," in done.stderr
