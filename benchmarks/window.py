"""What a turn of a long thread costs with a window: ``python -m benchmarks.window``.

A thread of 2,000 messages with a window of 16,000 tokens: the program prints the microseconds of CPU that choosing what
is sent takes around some turns, and those of a whole run with a model that answers at once. The figures are flat: a
turn pays for its own messages, and not for the thread's.
"""

from __future__ import annotations

import asyncio
import gc
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from plait import Agent, Answer, OfflineProvider, Usage
from plait.context.trimming import Trimmer
from plait.context.window import get_memory_strategy
from plait.counting import counter_of
from plait.messages import AssistantMessage, ToolCall, ToolMessage, ToolResult, UserMessage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from plait import Request
    from plait.messages import Message

TURNS: Final = (1, 100, 400, 1000, 2000)
AROUND: Final = 20
"""So many turns before and after a turn count for it: one alone is too short for the clock."""
WINDOW: Final = 16_000
ROUNDS: Final = 7


def thread(messages: int) -> list[Message]:
    """Make a conversation in which every other run calls a tool."""
    made: list[Message] = []
    number = 0
    while len(made) < messages:
        number += 1
        made.append(UserMessage(text=f"Question {number}: " + "what of this and that? " * 10))
        if number % 2:
            call = ToolCall(id=f"call_{number}", name="search", arguments=f'{{"query": "number {number}"}}')
            made.append(AssistantMessage(parts=[call]))
            made.append(ToolMessage(parts=[ToolResult(call_id=call.id, name="search", text="a line found\n" * 30)]))
        made.append(AssistantMessage(text=f"Answer {number}: " + "as far as this is known, so it is. " * 10))
    return made[:messages]


def asked(messages: list[Message]) -> list[tuple[int, int]]:
    """Say when the model is asked: after how many messages, and where the run begins in them."""
    first = 0
    made = []
    for number, message in enumerate(messages):
        if message.role == "user":
            first = number
        if message.role in ("user", "tool"):
            made.append((number + 1, first))
    return made


def seconds(name: str, messages: list[Message], turns: list[tuple[int, int]]) -> list[float]:
    """Give the CPU seconds of each turn, with a summariser that answers at once."""
    window = get_memory_strategy(name, max_tokens=WINDOW)
    trimmer = Trimmer(window, counter_of(window.counting), 500)
    took = []
    for count, first in turns:
        so_far = messages[:count]  # what a thread gives is a copy, too
        began = time.perf_counter()
        said = trimmer.trim(so_far, first)
        if said.summarize is not None:
            trimmer.summarised(said.summarize.upto, "This and that was asked and answered. " * 20)
        took.append(time.perf_counter() - began)
    return took


def figures(name: str, size: int = 2000, rounds: int = ROUNDS) -> dict[int, float]:
    """Give the mean microseconds in the trimmer of the turns around some messages: each turn's least of many rounds."""
    rows = []
    turns: list[tuple[int, int]] = []
    for _ in range(rounds):
        messages = thread(size)  # anew, so that nothing of it is counted yet
        turns = asked(messages)
        with undisturbed():
            rows.append(seconds(name, messages, turns))
    return around([count for count, _ in turns], rows)


def whole_runs(name: str, size: int = 2000, rounds: int = ROUNDS) -> dict[int, float]:
    """Give the same of whole runs, of two messages each, on a thread in memory; summaries are among them."""
    rows = []
    for _ in range(rounds):
        with undisturbed():
            rows.append(asyncio.run(seconds_of_runs(name, size // 2)))
    return around([2 * number + 1 for number in range(size // 2)], rows)


async def seconds_of_runs(name: str, turns: int) -> list[float]:
    """Give the CPU seconds of each run."""
    text = "As far as this is known, so it is. " * 10

    def answer(request: Request) -> Answer:
        used = Usage(input_tokens=len(request.messages), output_tokens=100)
        return Answer(AssistantMessage(text=text), finish_reason="stop", usage=used)

    provider = OfflineProvider(function=answer)
    agent = Agent(
        role="You are helpful.", provider=provider, memory_strategy=name, memory_params={"max_tokens": WINDOW}
    )
    took = []
    for number in range(turns):
        began = time.process_time()
        await agent.chat(f"Question {number}: what of this and that?")
        took.append(time.process_time() - began)
        provider.requests.clear()
    return took


@contextmanager
def undisturbed() -> Iterator[None]:
    """Collect no garbage meanwhile."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def around(counts: Sequence[int], rows: Sequence[Sequence[float]]) -> dict[int, float]:
    """Give the mean microseconds of the turns that are near some numbers of messages.

    Args:
        counts: how many messages there were at each turn.
        rows: for each round the seconds of each turn, of which the least counts.
    """
    least = [min(column) for column in zip(*rows, strict=True)]
    found = {}
    for wanted in TURNS:
        if wanted <= counts[-1] + 1:
            near = min(range(len(counts)), key=lambda place: abs(counts[place] - wanted))
            some = least[max(0, near - AROUND) : near + AROUND + 1]
            found[wanted] = sum(some) / len(some) * 1e6
    return found


def main() -> None:
    """Print the table."""
    print(f"us a turn around message ...{'':8}" + "".join(f"{turn:>8}" for turn in TURNS))
    for name in ("token_window", "simple", "summary_dropping"):
        for what, found in ((name, figures(name)), (f"{name}, whole run", whole_runs(name))):
            print(f"{what:36}" + "".join(f"{found[turn]:>8.1f}" for turn in TURNS))


if __name__ == "__main__":
    main()
