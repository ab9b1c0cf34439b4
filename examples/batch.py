"""Serve a hundred people at once, with a client for each: ``python examples/batch.py [--async] openrouter``."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from command import run
from plait import AsyncOpenRouterClient, OpenRouterClient, StopSignal, ToolClient

PEOPLE = 100
QUESTION = "Suggest a name for a boat."


def ask(provider: str = "offline", question: str = QUESTION) -> None:
    """Ask for all of them, in fifty threads, and print the answers in order."""
    stop = StopSignal()

    def answer_for(person: int) -> str | None:
        client = ToolClient(OpenRouterClient(provider=provider))
        messages = [{"role": "user", "content": f"I am person {person}. {question}"}]
        completion = client.chat(messages, stop=stop)
        return completion.choices[0].message.content

    with ThreadPoolExecutor(50) as threads:
        try:
            for person, answer in enumerate(threads.map(answer_for, range(PEOPLE))):
                print(f"{person}: {answer}")
        except KeyboardInterrupt:
            stop.set()  # Ctrl-C reaches this thread alone; this ends the calls of the others
            raise


async def ask_async(provider: str = "offline", question: str = QUESTION) -> None:
    """Do the same in an event loop, without a thread."""

    async def answer_for(person: int) -> str | None:
        client = AsyncOpenRouterClient(provider=provider)
        completion = await client.create([{"role": "user", "content": f"I am person {person}. {question}"}])
        return completion.choices[0].message.content

    answers = await asyncio.gather(*(answer_for(person) for person in range(PEOPLE)))
    for person, answer in enumerate(answers):
        print(f"{person}: {answer}")


if __name__ == "__main__":
    run(ask, ask_async)
