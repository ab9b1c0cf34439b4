"""The bench: ``python -m benchmarks``. Runs the cases, prints the table, and exits with 1 when a goal is missed."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.request import ProxyHandler, build_opener

from benchmarks.goals import HEADS, Raw, case_names, cells, judged, markdown, sentence, shown
from benchmarks.imports import AGENT, FLOOR, peer_imports
from benchmarks.peers import PEERS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from benchmarks.goals import Verdict

ROOT: Final = Path(__file__).parents[1]
APART: Final = {"memory": (("answer_memory", "floor plait"), ("crowd_memory", "floor"), ("crowd_memory", "plait"))}
"""Cases of several probes, each with its sides, each in a process of its own; the others are one probe."""
PEERS_CASE: Final = "peers"
_SECONDS: Final = 180
_TRIES: Final = 3
_QUICK: Final = 0.2
_PEER_EFFORT: Final = 0.1
_PACKAGES: Final = ("aiohttp", "orjson", "msgspec", "pydantic", "sqlalchemy")
_PEER_HEADS: Final = ("client CPU", "one run", "tool turn", "burst chunk", "import")
_MS: Final = "ms"


EXPLANATION: Final = (
    "Client CPU (user and system), the least of many short rounds in which plait and a hand-written loop on aiohttp "
    "and orjson take turns against a local fake server. A figure is plait's cost divided by the floor's (x), less the "
    "floor's (+), or plait's own; 'over' marks a goal that does not count. The floor of importing is nothing for "
    f"`import plait`, and `{FLOOR}` for `{AGENT}`; that of the store is sqlite3 in one thread, with the same rows and "
    "one transaction for each append. A case that misses a goal is measured again, twice at most; the least counts."
)


DESCRIPTION: Final = "Measure plait beside a hand-written loop; exits with 1 when a goal is missed."


class Failed(Exception):
    """A probe could not measure; the sentence says why."""


@contextmanager
def server() -> Iterator[str]:
    """Run the fake server in a process of its own; gives its base URL."""
    command = [sys.executable, "-m", "benchmarks.server"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        written, read = process.stdin, process.stdout
        if written is None or read is None:  # they are pipes
            raise AssertionError
        try:
            yield f"http://127.0.0.1:{int(read.readline())}/v1"
        finally:
            written.close()
            process.wait(10)


def server_cpu(url: str) -> float:
    """Ask the server how many CPU seconds it has used."""
    with build_opener(ProxyHandler({})).open(url, timeout=10) as answer:
        found: dict[str, float] = json.load(answer)
    return found["cpu"]


def probe(name: str, url: str, sides: Sequence[str], effort: float, size: float) -> Raw:
    """Measure in a process of its own.

    Raises:
        Failed: it ended with an error, or did not end.
    """
    command = [sys.executable, "-m", "benchmarks.probe", name, "--url", url, "--sides", *sides]
    command += ["--effort", str(effort), "--size", str(size)]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        msg = f"{name} did not end within {_SECONDS} s"
        raise Failed(msg) from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no word of why"])[-1]
        msg = f"{name} ended with status {done.returncode}: {last[:300]}"
        raise Failed(msg)
    raw: Raw = json.loads(done.stdout.splitlines()[-1])
    return raw


def merged(parts: Sequence[Raw]) -> Raw:
    """Put the measurements of several probes together."""
    raw: Raw = {}
    for part in parts:
        for side, found in part.items():
            raw.setdefault(side, {}).update(found)
    return raw


def bettered(raw: Raw, again: Raw) -> Raw:
    """Give the least of two measurements, figure by figure; of rates, the most."""
    return {
        side: {
            name: (max if name.endswith("_rate") else min)(value, again[side][name]) for name, value in found.items()
        }
        for side, found in raw.items()
    }


def run_case(case: str, url: str, effort: float, size: float) -> Raw | None:
    """Run one case and say how it went, in a line; None when it failed.

    A case that misses a goal is measured again, twice at most, and the least of each figure counts: other programs, and
    a clock that changes its speed, only ever add to a figure.
    """
    began, cpu = time.monotonic(), server_cpu(url)
    probes = APART.get(case, ((case, "floor plait"),))
    raw: Raw = {}
    try:
        for _ in range(_TRIES):
            found = merged([probe(name, url, sides.split(), effort, size) for name, sides in probes])
            raw = bettered(raw, found) if raw else found
            if all(verdict.word != "MISS" for verdict in judged({case: raw})):
                break
    except Failed as error:
        print(f"  {case:<12} FAILED: {error}", flush=True)
        return None
    took = time.monotonic() - began
    told = ", ".join(f"{cell[0]} {cell[3]} {cell[5]}".rstrip(" -") for cell in map(cells, judged({case: raw})))
    busy = (server_cpu(url) - cpu) / took
    print(f"  {case:<12} {took:4.1f} s, server {busy:3.0%} busy: {told}", flush=True)
    return raw


def run_peers(url: str, effort: float) -> list[list[str]]:
    """Measure what is installed of other libraries; gives the rows of their table."""
    present = {name: peer for name, peer in PEERS.items() if peer.is_installed}
    if not present:
        return []
    imports = peer_imports({name: peer.statement for name, peer in present.items()}, 3)
    rows = []
    for name, peer in present.items():
        began = time.monotonic()
        try:
            raw = probe("peer", url, ["floor", name], effort * _PEER_EFFORT, 1)
        except Failed as error:
            print(f"  {name:<12} FAILED: {error}", flush=True)
            continue
        row = peer_row(f"{name} {version(peer.package)}", raw["floor"], raw[name], imports[name])
        rows.append(row)
        print(f"  {name:<12} {time.monotonic() - began:4.1f} s: {', '.join(row[1:])}", flush=True)
    return rows


def peer_row(title: str, floor: Mapping[str, float], found: Mapping[str, float], imported: float) -> list[str]:
    """Give a row of the table of libraries: each cost, and how many times the floor's it is."""
    row = [f"{shown(found[key], 'us')} ({found[key] / floor[key]:.1f}x)" for key in ("run", "tools", "chunk")]
    return [title, *row, shown(imported, _MS)]


def own_row(measured: Mapping[str, Raw | None]) -> list[list[str]]:
    """Give plait's row of that table, when all that it needs was measured."""
    found = [measured.get(case) for case in ("run", "tools", "burst", "imports")]
    if not all(found):
        return []
    raw = merged([part for part in found if part])
    return [peer_row("plait", raw["floor"], raw["plait"], raw["plait"]["agent"])]


def machine() -> str:
    """Say when and on what the figures were taken."""
    cpu = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text("utf-8").splitlines()
        cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), cpu)
    versions = []
    for package in _PACKAGES:
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            versions.append(f"{package} (no metadata)")
    return (
        f"{time.strftime('%Y-%m-%d')}, {cpu}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"{', '.join(versions)}."
    )


def report(verdicts: Sequence[Verdict], peers: Sequence[Sequence[str]]) -> str:
    """Write the tables and what is to be known about them, in Markdown."""
    parts = [
        machine(),
        EXPLANATION,
        markdown(HEADS, [cells(verdict) for verdict in verdicts]),
    ]
    if peers:
        parts.append(markdown(_PEER_HEADS, peers))
    return "\n\n".join(parts)


def show(verdicts: Sequence[Verdict], peers: Sequence[Sequence[str]]) -> None:
    """Print the tables: with rich in a terminal, else as Markdown."""
    if not sys.stdout.isatty():
        print(f"\n{report(verdicts, peers)}\n")
        return
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for heads, rows in ((HEADS, [cells(verdict) for verdict in verdicts]), (_PEER_HEADS, peers)):
        if rows:
            table = Table(*heads)
            for row in rows:
                table.add_row(*row, style="red" if row[-1] in ("MISS", "FAILED") else "")
            console.print(table)
    console.print(machine(), style="dim")


def arguments(given: Sequence[str] | None = None) -> Any:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=DESCRIPTION)
    cases = [*case_names(), PEERS_CASE]
    parser.add_argument("--case", action="append", choices=cases, help="only this case (may be given again)")
    parser.add_argument("--rounds", type=float, default=1.0, help="how many times the usual rounds are measured")
    parser.add_argument("--quick", action="store_true", help="a fifth of the rounds: a look, no measurement")
    parser.add_argument("--size", type=float, default=1.0, help="less than 1: smaller answers and crowds, for tests")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write the tables to this file")
    return parser.parse_args(given)


def main() -> int:
    """Run what the command line asks for; gives the exit status."""
    given = arguments()
    effort = given.rounds * (_QUICK if given.quick else 1)
    chosen = given.case or [*case_names(), PEERS_CASE]
    began = time.monotonic()
    print(f"plait: measuring {', '.join(chosen)}", flush=True)
    with server() as url:
        measured = {case: run_case(case, url, effort, given.size) for case in case_names() if case in chosen}
        peers = run_peers(url, effort) if PEERS_CASE in chosen else []
    verdicts = judged(measured)
    peers = own_row(measured) + peers if peers else []
    show(verdicts, peers)
    met, said = sentence(verdicts)
    print(f"{said} ({time.monotonic() - began:.0f} s)")
    if given.markdown:
        text = f"# What plait costs\n\nWritten by `make bench`.\n\n{report(verdicts, peers)}\n\n{said}\n"
        given.markdown.write_text(text, "utf-8")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
