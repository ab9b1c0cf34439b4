"""The bench: what its figures mean, and that every case runs. No test looks at a time."""

from __future__ import annotations

import json
import subprocess
import sys
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from benchmarks import window
from benchmarks.__main__ import APART, arguments, bettered, own_row, peer_row, server, server_cpu
from benchmarks.clock import Ticker, cost, race
from benchmarks.goals import (
    GOALS,
    Goal,
    Raw,
    case_names,
    cells,
    judge,
    judged,
    markdown,
    sentence,
    shown,
)
from benchmarks.peers import PEERS
from benchmarks.probe import PROBES, measured
from benchmarks.server import Script, burst, model_of, script_of, streamed, whole
from benchmarks.setting import Setting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[1]
RATIO = Goal(case="run", name="run", label="one run", most=1.3)
ADDED = Goal(case="first", name="first", label="first token", unit="ms", rule="difference", most=0.3)
OWN = Goal(case="memory", name="crowd", label="memory", unit="KB", rule="value", most=30)


def sides(name: str, floor: float, plait: float) -> Raw:
    return {"floor": {name: floor}, "plait": {name: plait}}


@pytest.mark.parametrize(
    ("goal", "floor", "plait", "row"),
    [
        (RATIO, 1e-4, 1.2e-4, ["one run", "100 us", "120 us", "1.20x", "1.30x", "ok"]),
        (RATIO, 1e-4, 1.3e-4, ["one run", "100 us", "130 us", "1.30x", "1.30x", "ok"]),
        (RATIO, 1e-4, 1.31e-4, ["one run", "100 us", "131 us", "1.31x", "1.30x", "MISS"]),
        (ADDED, 4e-4, 6e-4, ["first token", "0.40 ms", "0.60 ms", "+0.20 ms", "+0.30 ms", "ok"]),
        (ADDED, 4e-4, 8e-4, ["first token", "0.40 ms", "0.80 ms", "+0.40 ms", "+0.30 ms", "MISS"]),
        (OWN, 99_999, 20_480, ["memory", "97.7 KB", "20 KB", "20 KB", "30 KB", "ok"]),
        (OWN, 0, 40_960, ["memory", "0 KB", "40 KB", "40 KB", "30 KB", "MISS"]),
    ],
)
def test_a_figure_is_judged_by_its_rule(goal: Goal, floor: float, plait: float, row: list[str]) -> None:
    assert cells(judge(goal, sides(goal.name, floor, plait))) == row


def test_what_does_not_count_is_no_miss() -> None:
    over = Goal(case="run", name="run", label="one run", most=1.3, counts=False)
    told = Goal(case="run", name="run", label="one run")
    raw = sides("run", 1.0, 9.0)
    assert [judge(goal, raw).word for goal in (over, told)] == ["over", "-"]
    assert sentence([judge(over, raw), judge(told, raw)]) == (True, "plait: all 0 goals met.")


@pytest.mark.parametrize("raw", [None, {}, {"floor": {"run": 1.0}}, {"plait": {"run": 1.0}}, sides("run", 0.0, 1.0)])
def test_what_was_not_measured_is_not_met(raw: Raw | None) -> None:
    verdict = judge(RATIO, raw)
    assert (verdict.figure, verdict.word, cells(verdict)[3]) == (None, "FAILED", "-")
    assert sentence([verdict]) == (False, "plait: these cases could not be measured: run.")


def test_the_sentence_names_what_was_missed() -> None:
    by_case: dict[str, Raw | None] = {"run": sides("run", 1e-4, 2e-4), "build": None}
    verdicts = [*judged(by_case), judge(ADDED, sides("first", 0.0, 1e-4))]
    assert sentence(verdicts) == (
        False,
        "plait: 1 of 2 goals missed: one run (2.00x, goal 1.30x); and these cases could not be measured: build.",
    )
    assert sentence(verdicts[-1:]) == (True, "plait: all 1 goals met.")


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (None, "us", "-"),
        (1.234e-6, "us", "1.23 us"),
        (12.34e-6, "us", "12.3 us"),
        (1234.5e-6, "us", "1,234 us"),
        (0.0, "", "0"),
        (45_000.4, "/s", "45,000/s"),
        (1.5, "x", "1.50x"),
    ],
)
def test_measurements_are_short(value: float | None, unit: str, text: str) -> None:
    assert shown(value, unit) == text


def test_a_table_is_even() -> None:
    assert markdown(["what", "x"], [["run", "1.20x"]]).splitlines() == [
        "| what |     x |",
        "| ---- | ----: |",
        "| run  | 1.20x |",
    ]


def test_every_goal_has_a_probe_and_a_name_of_its_own() -> None:
    probes = [name for case in case_names() for name, _ in APART.get(case, ((case, ""),))]
    assert set(probes) == set(PROBES) - {"peer"}
    assert len({(goal.case, goal.name) for goal in GOALS}) == len(GOALS)
    assert len({goal.label for goal in GOALS}) == len(GOALS)


def test_the_rows_of_libraries_give_times_of_the_floor() -> None:
    floor = {"run": 1e-4, "tools": 2e-4, "chunk": 2e-6}
    found = {"run": 2e-4, "tools": 3e-4, "chunk": 3e-6}
    expected = ["200 us (2.0x)", "300 us (1.5x)", "3 us (1.5x)", "120 ms"]
    assert peer_row("it", floor, found, 0.12) == ["it", *expected]
    by_case: dict[str, Raw | None] = {
        "run": sides("run", 1e-4, 2e-4),
        "tools": sides("tools", 2e-4, 3e-4),
        "burst": sides("chunk", 2e-6, 3e-6),
        "imports": sides("agent", 0.1, 0.12),
    }
    assert own_row(by_case) == [["plait", *expected]]
    assert own_row({**by_case, "run": None}) == []


def test_the_command_line() -> None:
    given = arguments(["--case", "run", "--case", "peers", "--quick", "--markdown", "out.md"])
    assert (given.case, given.quick, given.rounds, given.markdown) == (["run", "peers"], True, 1.0, Path("out.md"))


def test_a_setting_scales_effort_and_size_apart() -> None:
    setting = Setting(base_url="", effort=0.1, size=0.5)
    assert (setting.times(400), setting.times(3), setting.sized(400), setting.sized(1)) == (40, 1, 200, 1)


async def test_sides_take_turns() -> None:
    seen: list[str] = []

    async def one() -> None:
        seen.append("one")

    async def other() -> None:
        seen.append("other")

    least = await race({"one": one, "other": other}, rounds=2, seconds=0.0)
    assert seen[-4:] == ["one", "other", "other", "one"]
    assert all(0 < value < 1 for value in least.values())
    assert await cost(one, 5) > 0
    assert seen[-5:] == ["one"] * 5


async def test_a_ticker_sees_a_stall() -> None:
    import time

    async with Ticker() as ticker:
        assert ticker.longest == 0
        time.sleep(0.05)  # noqa: ASYNC251  # this is the stall
    assert ticker.longest > 0.04


# --- the server -------------------------------------------------------------------------------------------------------


def body_of(answer: bytes) -> bytes:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    return body


def events_of(answer: bytes) -> list[str]:
    """Take HTTP's chunks apart; one event is in each."""
    events: list[str] = []
    body = body_of(answer)
    while True:
        size, _, rest = body.partition(b"\r\n")
        if not int(size, 16):
            return events
        events.append(rest[: int(size, 16)].decode())
        body = rest[int(size, 16) + 2 :]


def test_a_model_is_a_script() -> None:
    assert model_of(words=3, gap=1) == "fake-words3-gap1"
    assert script_of("fake-words3-gap1") == Script(words=3, gap=1)


def test_whole_answers() -> None:
    message = json.loads(body_of(whole(model_of(words=3), ())))["choices"][0]["message"]
    assert message == {"role": "assistant", "content": "word0 word1 word2"}
    assert json.loads(body_of(whole(model_of(size=9), ())))["choices"][0]["message"]["content"] == "x" * 9
    calls = json.loads(body_of(whole(model_of(calls=3), ("a", "b"))))["choices"][0]["message"]["tool_calls"]
    assert [(call["id"], call["function"]) for call in calls] == [
        ("call_0", {"name": "a", "arguments": '{"x":0}'}),
        ("call_1", {"name": "b", "arguments": '{"x":1}'}),
        ("call_2", {"name": "a", "arguments": '{"x":2}'}),
    ]


def test_a_burst_is_one_http_chunk_for_each_event() -> None:
    model = model_of(pieces=3)
    events = events_of(burst(model, ()))
    assert all(event.startswith("data: ") and event.endswith("\n\n") for event in events)
    assert events[-1] == "data: [DONE]\n\n"
    parsed = [json.loads(event[6:]) for event in events[:-1]]
    assert [chunk["choices"][0]["delta"].get("content") for chunk in parsed[:-1]] == [
        *("", "word0 ", "word1 ", "word2 "),
        None,
    ]
    assert parsed[-2]["choices"][0]["finish_reason"] == "stop"
    assert parsed[-1]["usage"]["completion_tokens"] == 3
    assert b"".join(streamed(model, ())) == burst(model, ())


def test_arguments_come_in_pieces() -> None:
    parsed = [json.loads(event[6:]) for event in events_of(burst(model_of(calls=1, arguments=2), ("keep",)))[:-1]]
    deltas = [chunk["choices"][0]["delta"] for chunk in parsed if chunk["choices"]]
    text = "".join(delta["tool_calls"][0]["function"]["arguments"] for delta in deltas if "tool_calls" in delta)
    assert json.loads(text) == {"x": "abcdefgh" * 2}


# --- windows ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("measure", [window.figures, window.whole_runs])
def test_turns_in_a_window_are_measured_where_they_are(measure: Callable[..., dict[int, float]]) -> None:
    found = measure("summary_dropping", size=120, rounds=1)
    assert list(found) == [1, 100]
    assert all(isfinite(microseconds) for microseconds in found.values())


# --- the cases --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with server() as found:
        yield found


def test_the_server_tells_its_cpu(url: str) -> None:
    assert 0 < server_cpu(url) < 60


def test_the_bench_prints_a_table_and_a_sentence(tmp_path: Path) -> None:
    """A small run from end to end; whether goals are met is not its business."""
    file = tmp_path / "results.md"
    command = [sys.executable, "-m", "benchmarks", "--rounds", "0.001", "--size", "0.002", "--case", "run"]
    done = subprocess.run([*command, "--markdown", str(file)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    said = done.stdout.splitlines()[-1]
    assert said.startswith("plait: all " if done.returncode == 0 else "plait: ")
    assert "could not be measured" not in said
    labels = [goal.label for goal in GOALS if goal.case == "run"]
    assert [line[2:].split("  ")[0].split(" |")[0] for line in done.stdout.splitlines() if line.startswith("| ")][
        2:
    ] == labels
    assert said.rsplit(" (", 1)[0] in file.read_text("utf-8")


@pytest.mark.parametrize("name", [name for name in PROBES if name not in ("run", "peer", "imports")])
def test_a_probe_measures_what_its_goals_name(url: str, name: str) -> None:
    raw = measured(name, Setting(base_url=url, effort=0.001, size=0.002), ["floor", "plait"])
    case = next(case for case in case_names() if name in [probe for probe, _ in APART.get(case, ((case, ""),))])
    names = {goal.name for goal in GOALS if goal.case == case}
    assert names & set(raw["plait"])
    if case not in APART:
        assert names <= set(raw["plait"])
    # How much it is, so small a measurement cannot say: a slope of noise may even fall.
    assert all(isinstance(value, float | int) and isfinite(value) for found in raw.values() for value in found.values())


def test_the_official_sdk_does_the_same_jobs(url: str) -> None:
    raw = measured("peer", Setting(base_url=url, effort=0.001, size=0.002), ["floor", "openai SDK", "plait"])
    names = ["chunk", "run", "short", "tools"]
    assert {side: sorted(found) for side, found in raw.items()} == {"floor": names, "openai SDK": names, "plait": names}
    assert PEERS["openai SDK"].is_installed


def test_of_two_measurements_the_least_counts_and_of_rates_the_most() -> None:
    first = {"floor": {"run": 2.0, "one_rate": 5.0}, "plait": {"run": 3.0, "one_rate": 4.0}}
    again = {"floor": {"run": 1.0, "one_rate": 6.0}, "plait": {"run": 4.0, "one_rate": 3.0}}
    assert bettered(first, again) == {"floor": {"run": 1.0, "one_rate": 6.0}, "plait": {"run": 3.0, "one_rate": 4.0}}
