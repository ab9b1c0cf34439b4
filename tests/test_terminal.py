from __future__ import annotations

import asyncio
import io
from typing import TYPE_CHECKING, Any

import pytest
from rich.cells import cell_len

from plait.errors import TransportError
from plait.events import (
    Event,
    FinishDelta,
    MessageAdded,
    ReasoningDelta,
    RunFinished,
    RunStarted,
    StopReason,
    TextDelta,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
    Usage,
)
from plait.messages import AssistantMessage, TextPart, ToolCall, ToolResult
from plait.run import RunResult
from plait.terminal import View
from terminals import StringTerminal, screen, timeless

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

WEATHER = ToolCall(id="1", name="weather", arguments='{"city": "Lisbon", "unit": null}')
DISTANCE = ToolCall(id="2", name="distance", arguments='{"start": "Lisbon", "end": "Berlin"}')


@pytest.fixture(autouse=True)
def _terminal_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "70")
    monkeypatch.setenv("LINES", "24")


def finished(call: ToolCall, text: str, *, seconds: float = 0.5, is_error: bool = False) -> ToolCallFinished:
    return ToolCallFinished(call, ToolResult(call_id=call.id, name=call.name, text=text, is_error=is_error), seconds)


def said(text: str, *calls: ToolCall) -> MessageAdded:
    parts = (TextPart(text=text),) if text else ()
    return MessageAdded(AssistantMessage(parts=(*parts, *calls)))


def result(reason: StopReason = "response", **changes: Any) -> RunResult[str]:
    fields: dict[str, Any] = {
        "output": "",
        "stop_reason": reason,
        "messages": (),
        "history": (),
        "usage": Usage(input_tokens=1200, output_tokens=7),
        "thread_id": "thr_1",
        "run_id": "run_1",
        "agent_name": "Assistant",
        "provider": "openai",
        "model": "gpt-4o",
    }
    return RunResult(**{**fields, **changes})


async def batches(*items: list[Event]) -> AsyncIterator[list[Event]]:
    for item in items:
        yield item


TOOL_RUN: list[list[Event]] = [
    [RunStarted("run_1", "thr_1", "Assistant")],
    [TextDelta("Let me "), TextDelta("look.")],
    [ToolCallDelta(0, "1", "weather"), ToolCallDelta(1, "2", "distance"), FinishDelta("tool_calls")],
    [said("Let me look.", WEATHER, DISTANCE), ToolCallStarted(WEATHER), ToolCallStarted(DISTANCE)],
    [finished(DISTANCE, "no such city", is_error=True), finished(WEATHER, "sunny,\n24 °C", seconds=12.34)],
    [TextDelta("It is "), TextDelta("sunny.\nGo")],
    [TextDelta("!")],
    [said("It is sunny.\nGo!"), RunFinished("response")],
]
TOOL_LINES = [
    "  ✗ distance(start='Lisbon', end='Berlin') → no such city  _ s",
    "  ✓ weather(city='Lisbon') → sunny, 24 °C  _ s",
]
ENDING = "  openai:gpt-4o answered · 2 turns · 1,200 tokens in, 7 out · _ s"


async def shown(view: View, run: list[list[Event]]) -> None:
    async with asyncio.timeout(10):
        await view.show(batches(*run))
    view.finish(result())


async def test_answer_and_notes_apart() -> None:
    answer, notes = io.StringIO(), io.StringIO()
    await shown(View(answer, notes), TOOL_RUN)
    assert answer.getvalue() == "Let me look.\nIt is sunny.\nGo!\n"
    assert timeless(notes.getvalue()).splitlines() == [*TOOL_LINES, ENDING]


async def test_held_answer_is_alone() -> None:
    answer, notes = io.StringIO(), io.StringIO()
    await shown(View(answer, notes, hold=True), TOOL_RUN)
    assert answer.getvalue() == "It is sunny.\nGo!\n"
    assert timeless(notes.getvalue()).splitlines() == ["Let me look.", *TOOL_LINES, ENDING]


async def test_one_plain_stream_has_empty_lines_between_answer_and_notes() -> None:
    out = io.StringIO()
    await shown(View(out), TOOL_RUN)
    assert timeless(out.getvalue()).splitlines() == [
        "Let me look.",
        "",
        *TOOL_LINES,
        "",
        "It is sunny.",
        "Go!",
        "",
        ENDING,
    ]


async def test_in_a_terminal_the_same_is_left_when_nothing_moves() -> None:
    out = StringTerminal()
    await shown(View(out), TOOL_RUN)
    assert timeless("\n".join(screen(out.getvalue()))).splitlines() == [
        "Let me look.",
        "",
        *TOOL_LINES,
        "",
        "It is sunny.",
        "Go!",
        "",
        ENDING,
    ]
    assert "\x1b[32m" in out.getvalue()
    assert "\x1b[31m" in out.getvalue()


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
async def test_no_colours(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    out = StringTerminal()
    await shown(View(out), TOOL_RUN)
    assert "\x1b" not in out.getvalue()
    assert timeless(out.getvalue()).splitlines()[2:4] == TOOL_LINES


async def until(out: io.StringIO, *texts: str, after: int = 0) -> None:
    """Wait until all these texts were written, each after so many characters."""
    while not all(text in out.getvalue()[after:] for text in texts):  # noqa: ASYNC110  # a stream tells nobody
        await asyncio.sleep(0.01)


async def test_a_run_that_fails_leaves_no_moving_line_for_its_error_to_be_written_on() -> None:
    out, failure = StringTerminal(), TransportError("no connection")

    async def run() -> AsyncIterator[list[Event]]:
        await until(out, "thinking")
        yield []
        raise failure

    view = View(out)
    async with asyncio.timeout(10):
        with pytest.raises(TransportError):
            await view.show(run())
    out.write("plait: no connection")
    assert screen(out.getvalue()) == ["plait: no connection"]


async def test_tools_at_once_move_together_and_leave_only_their_lines() -> None:
    out = StringTerminal()

    async def run() -> AsyncIterator[list[Event]]:
        await until(out, "thinking")
        yield [said("", WEATHER, DISTANCE), ToolCallStarted(WEATHER), ToolCallStarted(DISTANCE)]
        await until(out, "weather(city='Lisbon')", "distance(start='Lisbon', end='Berlin')")
        for _ in range(2):  # it moves
            await until(out, "weather", "distance", after=len(out.getvalue()))
        moving.extend(timeless("\n".join(screen(out.getvalue()))).splitlines())
        yield [finished(DISTANCE, "2,313 km")]
        await until(out, "weather", after=len(out.getvalue()))
        half.extend(timeless("\n".join(screen(out.getvalue()))).splitlines())
        yield [finished(WEATHER, "sunny")]
        await until(out, "sunny")
        yield [TextDelta("Done."), said("Done."), RunFinished("response")]

    moving: list[str] = []
    half: list[str] = []
    view = View(out)
    async with asyncio.timeout(10):
        await view.show(run())
    assert [line[4:] for line in moving] == [
        "weather(city='Lisbon')  _ s",
        "distance(start='Lisbon', end='Berlin')  _ s",
    ]
    done = "  ✓ distance(start='Lisbon', end='Berlin') → 2,313 km  _ s"
    assert half[0] == done
    assert [line[4:] for line in half[1:]] == ["weather(city='Lisbon')  _ s"]
    assert timeless("\n".join(screen(out.getvalue()))).splitlines() == [
        done,
        "  ✓ weather(city='Lisbon') → sunny  _ s",
        "",
        "Done.",
    ]


async def test_more_tools_than_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINES", "6")
    out = StringTerminal()
    calls = [ToolCall(id=str(number), name=f"tool{number}", arguments="{}") for number in range(9)]

    async def run() -> AsyncIterator[list[Event]]:
        yield [said("", *calls), *map(ToolCallStarted, calls)]
        await until(out, "and 5 more")
        moving.extend(line[2:].split("  ")[0].split(" ", 1)[1] for line in screen(out.getvalue()))
        yield [finished(call, "ok") for call in calls]

    moving: list[str] = []
    async with asyncio.timeout(10):
        await View(out).show(run())
    assert moving == ["tool0()", "tool1()", "tool2()", "tool3()", "5 more"]
    assert timeless("\n".join(screen(out.getvalue()))).splitlines() == [f"  ✓ tool{n}() → ok  _ s" for n in range(9)]


async def test_what_a_stop_cut_off_is_named() -> None:
    out = StringTerminal()

    async def run() -> AsyncIterator[list[Event]]:
        yield [said("", WEATHER), ToolCallStarted(WEATHER)]
        await until(out, "weather")
        view.stopping()
        await until(out, "stopping")
        yield [RunFinished("user_stop")]

    view = View(out)
    async with asyncio.timeout(10):
        await view.show(run())
    view.finish(result("user_stop", usage=None))
    assert timeless("\n".join(screen(out.getvalue()))).splitlines() == [
        "  ✗ weather(city='Lisbon') → cut off  _ s",
        "  stopped · 1 turn · _ s",
    ]


async def test_a_failure_leaves_what_was_said_and_a_clean_line() -> None:
    async def run() -> AsyncIterator[list[Event]]:
        yield [TextDelta("Half an ans")]
        raise ConnectionError

    answer, notes = io.StringIO(), io.StringIO()
    with pytest.raises(ConnectionError):
        await View(answer, notes, hold=True).show(run())
    assert (answer.getvalue(), notes.getvalue()) == ("Half an ans\n", "")


async def test_reasoning_is_for_watching() -> None:
    run: list[list[Event]] = [
        [ReasoningDelta("Let me "), ReasoningDelta("think.")],
        [TextDelta("Yes."), said("Yes."), RunFinished("response")],
    ]
    plain, watched = io.StringIO(), StringTerminal()
    await View(plain).show(batches(*run))
    await View(watched).show(batches(*run))
    assert plain.getvalue() == "Yes.\n"
    assert screen(watched.getvalue()) == ["Let me think.", "", "Yes.", ""]


async def test_each_read_of_the_socket_is_written_at_once() -> None:
    class Counting(io.StringIO):
        def __init__(self) -> None:
            super().__init__()
            self.log: list[str] = []

        def write(self, text: str) -> int:
            self.log.append(text)
            return super().write(text)

        def flush(self) -> None:
            self.log.append("flush")

    out = Counting()
    await View(out).show(batches([TextDelta("a"), TextDelta("b")], [TextDelta("c\n")], [said("abc\n")]))
    assert out.log == ["ab", "flush", "c\n", "flush"]


async def test_long_answer_is_written_whole() -> None:
    piece = "Fifty characters of text with signs: é 日本 👨‍👩‍👧.\n"
    out = io.StringIO()
    read: list[Event] = [TextDelta(piece)] * 64
    await View(out).show(batches(*[read] * 400))
    assert out.getvalue() == piece * 64 * 400


@pytest.mark.parametrize("columns", [40, 80])
async def test_a_tool_call_takes_one_row(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    out = StringTerminal()
    calls = [
        ToolCall(id="1", name="read_the_whole_document", arguments='{"name": "' + "long " * 40 + '"}'),
        ToolCall(id="2", name="übersetze", arguments='{"text": "日本語日本語日本語"}'),
        ToolCall(id="3", name="broken", arguments='{"half'),
    ]
    texts = ["\n".join(f"line {number}" for number in range(50)), "日本語" * 60, "\x1b[2Jgone\u202e👨‍👩‍👧"]
    await View(out).show(batches([finished(call, text) for call, text in zip(calls, texts, strict=True)]))
    rows = screen(out.getvalue())
    assert len(rows) == 4
    assert [row for row in rows if cell_len(row) > columns] == []
    assert all(row.endswith("  0.50 s") for row in rows[:3])
    assert "… (50 lines)" in rows[0]
    assert rows[2] == '  ✓ broken({"half) → ␛[2Jgone�👨‍👩‍👧  0.50 s'


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (result(), "openai:gpt-4o answered · 1 turn"),
        (result(provider="offline", model="offline"), "offline answered · 1 turn"),
        (result(provider=None, model=None, usage=None), "the model answered · 1 turn · _ s"),
        (result("max_turns"), "ended at its limit of turns · 0 turns · 1,200 tokens in, 7 out · _ s"),
        (result("guardrail", error="no\nsecrets", usage=None), "ended by a check (no secrets) · 0 turns · _ s"),
        (
            result("deadline", usage=Usage(cost=0.0123)),
            "ended at its deadline · 0 turns · 0 tokens in, 0 out · $0.0123",
        ),
        (result("user_stop", truncated=True), "_ s · the answer was cut at the token limit"),
    ],
)
async def test_endings(given: RunResult[str], line: str) -> None:
    out = io.StringIO()
    view = View(out)
    await view.show(batches([said("")] if given.stop_reason == "response" else []))
    view.finish(given)
    assert line in timeless(out.getvalue())
    assert out.getvalue().count("\n") == 1


async def test_an_ending_wraps_between_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    out = StringTerminal()
    await View(out).show(batches([said("")]))
    view = View(out)
    await view.show(batches([said("")]))
    view.finish(result())
    assert timeless("\n".join(screen(out.getvalue()))).splitlines() == [
        "  openai:gpt-4o answered · 1 turn ·",
        "  1,200 tokens in, 7 out · _ s",
    ]


async def test_an_answer_without_events_is_given_at_the_end() -> None:
    answer, notes = io.StringIO(), io.StringIO()
    view = View(answer, notes)
    await view.show(batches())
    view.finish(result(messages=(AssistantMessage(text="As before."),)))
    assert answer.getvalue() == "As before.\n"
    assert notes.getvalue() == "  nothing was asked: the last run had ended with this answer\n"


async def test_who_else_writes_gets_a_line_of_its_own_and_waits_for_the_end_of_the_answers() -> None:
    async def run() -> AsyncIterator[list[Event]]:
        view.aside("before")
        yield [TextDelta("Half")]
        view.aside("a record")
        yield [TextDelta(" done.\nMore")]
        view.aside("another")
        yield [said("Half done.\nMore")]

    out = StringTerminal()
    view = View(out, live=False)
    await view.show(run())
    assert out.getvalue() == "before\nHalf done.\nMore\na record\nanother\n"


async def test_a_reader_of_notes_that_is_gone() -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        await View(io.StringIO(), Gone()).show(batches([finished(WEATHER, "sunny")]))
