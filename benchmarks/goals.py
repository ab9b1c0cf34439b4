"""What is measured, what it may cost, and what the figures say: pure functions on values. Knows not how to measure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Rule = Literal["ratio", "difference", "value"]
Raw = dict[str, dict[str, float]]
"""What a case measured: by side (``"floor"``, ``"plait"``), by name; in seconds, bytes, or plain numbers."""

SCALES: Final = {"us": 1e6, "ms": 1e3, "KB": 1 / 1024, "x": 1.0, "": 1.0, "/s": 1.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """One figure, and the most it may be.

    Attributes:
        case: the case that measures it.
        name: its name in what the case measured.
        label: what it is, for people.
        unit: of what each side measured (see `SCALES`).
        rule: how the sides become one figure: plait divided by the floor, plait less the floor, or plait alone.
        most: the goal; None for a figure that is only told. A ratio is in times, everything else in ``unit``.
        counts: whether to miss it is a failure.
    """

    case: str
    name: str
    label: str
    unit: str = "us"
    rule: Rule = "ratio"
    most: float | None = None
    counts: bool = True


@dataclass(frozen=True, slots=True)
class Verdict:
    """A goal, what was measured, and what that means: ``"ok"``, ``"MISS"``, ``"over"`` (does not count), ``"-"``."""

    goal: Goal
    floor: float | None
    plait: float | None
    figure: float | None
    word: Literal["ok", "MISS", "over", "-", "FAILED"]


_RATIO: Final = 1.3
GOALS: Final = (
    Goal(case="run", name="run", label="one run", most=_RATIO),
    Goal(case="tools", name="tools", label="tool turn, 3 parallel calls", most=_RATIO),
    Goal(case="structured", name="structured", label="structured answer", most=_RATIO),
    Goal(case="burst", name="chunk", label="streamed chunk, in a burst", most=_RATIO),
    Goal(case="burst", name="short", label="short stream, 20 chunks", most=_RATIO, counts=False),
    Goal(case="hooks", name="answer", label="all hooks: streamed answer, 20 chunks", most=1.5),
    Goal(case="hooks", name="turn", label="all hooks: tool turn, 3 parallel calls", most=1.5, counts=False),
    Goal(case="paced", name="paced", label="streamed chunk, 1 ms apart", most=1.5),
    *(
        Goal(case=case, name=name, label=f"{title}: {label}", most=most)
        for case, title in {"anthropic": "Anthropic", "ollama": "Ollama", "responses": "Responses"}.items()
        for name, label, most in (("run", "one run", _RATIO), ("chunk", "chunk", _RATIO), ("paced", "1 ms apart", 1.5))
    ),
    Goal(case="client", name="create", label="chat client: one completion", most=_RATIO),
    Goal(case="client", name="chunk", label="chat client: streamed chunk, in a burst", most=_RATIO),
    Goal(case="client", name="built", label="1,000 clients built at once, stall", unit="ms", rule="value", most=50),
    Goal(case="sync", name="sync", label="what a sync call adds (floor: awaited)", rule="difference", most=200),
    Goal(case="first", name="first", label="first token, wall", unit="ms", rule="difference", most=0.3),
    Goal(case="growth", name="growth", label="turn 400 against turn 1", unit="x", rule="value", most=_RATIO),
    Goal(case="growth", name="last", label="turn 400", counts=False),
    Goal(case="window", name="growth", label="turn 400 against turn 1, window", unit="x", rule="value", most=_RATIO),
    Goal(case="crowd", name="crowd", label="1,000 runs at once, CPU a run", most=1.5),
    Goal(case="memory", name="crowd", label="1,000 runs at once, peak memory a run", unit="KB", rule="value", most=30),
    Goal(case="imports", name="root", label="import plait, above bare", unit="ms", rule="difference", most=30),
    Goal(case="imports", name="agent", label="import Agent, tool (floor: see below)", unit="ms", most=1.5),
    Goal(case="imports", name="heavy", label="heavy modules this imports", unit="", rule="value", most=0),
    Goal(case="build", name="build", label="agent with five known tools", rule="value", most=50),
    Goal(case="store", name="one", label="durable append of 1, CPU a commit", most=4),
    Goal(case="store", name="fifty", label="durable append of 50, CPU a commit", most=4.0),
    Goal(case="store", name="crowd", label="16 appends at once, wall an entry", most=1),
    Goal(case="store", name="one_rate", label="appends of 1, entries a second", unit="/s"),
    Goal(case="store", name="fifty_rate", label="appends of 50, entries a second", unit="/s"),
    Goal(case="store", name="crowd_rate", label="16 appends at once, entries a second", unit="/s"),
    Goal(case="stalls", name="whole", label="loop stall: 10 MB answer", unit="ms", rule="value", most=50),
    Goal(case="stalls", name="streamed", label="loop stall: 10 MB streamed", unit="ms", rule="value", most=50),
    Goal(case="stalls", name="result", label="loop stall: 50 MB tool result", unit="ms", rule="value", most=50),
    # What stands still here is one full collection of everything in the process, which the program decides on.
    Goal(
        case="stalls",
        name="streams",
        label="loop stall: 1,000 live streams, gc as it comes",
        unit="ms",
        rule="value",
        most=50,
        counts=False,
    ),
    Goal(
        case="stalls",
        name="streams_set",
        label="the same, gc set for many runs (README)",
        unit="ms",
        rule="value",
        most=50,
    ),
    Goal(case="linear", name="events", label="twice the stream events", unit="x", rule="value", most=2.2),
    Goal(case="linear", name="bytes", label="twice the bytes of an answer", unit="x", rule="value", most=2.2),
    Goal(case="linear", name="arguments", label="twice the tool-argument pieces", unit="x", rule="value", most=2.2),
    Goal(case="memory", name="whole", label="peak memory over a 10 MB answer", unit="x", rule="value", most=3),
    Goal(case="memory", name="streamed", label="peak memory over 10 MB streamed", unit="x", rule="value", most=3),
)


def case_names() -> list[str]:
    """Give the cases, in the order they run in."""
    return list(dict.fromkeys(goal.case for goal in GOALS))


def judge(goal: Goal, raw: Raw | None) -> Verdict:
    """Say what a case's measurements mean for a goal; None stands for a case that failed."""
    if raw is None:
        return Verdict(goal, None, None, None, "FAILED")
    floor, plait = (raw.get(side, {}).get(goal.name) for side in ("floor", "plait"))
    if plait is None:
        return Verdict(goal, floor, plait, None, "FAILED")
    scale = SCALES[goal.unit]
    figure: float | None = plait * scale
    if goal.rule == "ratio":
        figure = plait / floor if floor else None
    elif goal.rule == "difference":
        figure = (plait - floor) * scale if floor is not None else None
    if figure is None:
        return Verdict(goal, floor, plait, None, "FAILED")
    if goal.most is None:
        return Verdict(goal, floor, plait, figure, "-")
    # What is shown decides: a figure that reads like the goal has met it.
    met = round(figure, 2) <= goal.most
    return Verdict(goal, floor, plait, figure, "ok" if met else "MISS" if goal.counts else "over")


def judged(measured: Mapping[str, Raw | None]) -> list[Verdict]:
    """Judge every goal of the cases that ran."""
    return [judge(goal, measured[goal.case]) for goal in GOALS if goal.case in measured]


def shown(value: float | None, unit: str) -> str:
    """Write a side's measurement down: ``"111 us"``."""
    if value is None:
        return "-"
    scaled = value * SCALES[unit]
    digits = 0 if abs(scaled) >= 100 or scaled == int(scaled) else 1 if abs(scaled) >= 10 else 2  # noqa: PLR2004
    return f"{scaled:,.{digits}f} {unit}".rstrip() if unit not in ("x", "/s") else f"{scaled:,.{digits}f}{unit}"


def _compared(goal: Goal, figure: float | None) -> str:
    if figure is None:
        return "-"
    if goal.rule == "ratio":
        return f"{figure:.2f}x"
    return ("+" if goal.rule == "difference" else "") + shown(figure / SCALES[goal.unit], goal.unit)


def cells(verdict: Verdict) -> list[str]:
    """Give a row of the table: what, floor, plait, figure, goal, verdict."""
    goal = verdict.goal
    sides = [shown(value, goal.unit) for value in (verdict.floor, verdict.plait)]
    most = "-" if goal.most is None else _compared(goal, goal.most)
    return [goal.label, *sides, _compared(goal, verdict.figure), most, verdict.word]


def sentence(verdicts: Sequence[Verdict]) -> tuple[bool, str]:
    """Say in one sentence whether every goal was met, and which were not."""
    failed = list(dict.fromkeys(verdict.goal.case for verdict in verdicts if verdict.word == "FAILED"))
    missed = [
        f"{verdict.goal.label} ({_compared(verdict.goal, verdict.figure)}, goal {cells(verdict)[4]})"
        for verdict in verdicts
        if verdict.word == "MISS"
    ]
    counted = sum(verdict.word in ("ok", "MISS") for verdict in verdicts)
    parts = []
    if missed:
        parts.append(f"{len(missed)} of {counted} goals missed: {'; '.join(missed)}")
    if failed:
        parts.append(f"these cases could not be measured: {', '.join(failed)}")
    if parts:
        return False, f"plait: {'; and '.join(parts)}."
    return True, f"plait: all {counted} goals met."


HEADS: Final = ("what", "floor", "plait", "figure", "goal", "met")


def markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay a table out in Markdown, in even columns: the first to the left, the others to the right."""
    widths = [max(len(row[column]) for row in (heads, *rows)) for column in range(len(heads))]

    def line(row: Sequence[str]) -> str:
        laid = (
            text.ljust(width) if column == 0 else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        return f"| {' | '.join(laid)} |"

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([line(heads), f"| {' | '.join(rule)} |", *map(line, rows)])
