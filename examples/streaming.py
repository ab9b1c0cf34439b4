"""Show an answer while it comes: ``python examples/streaming.py [--async] openai:gpt-4.1 "What is 4 plus 5?"``."""

from __future__ import annotations

from command import run
from plait import AsyncOpenRouterClient, OpenRouterClient

QUESTION = "Count to five."


def ask(provider: str = "offline", question: str = QUESTION) -> None:
    """Print the pieces of an answer as they come, then why it ended."""
    client = OpenRouterClient(provider=provider)
    with client.create([{"role": "user", "content": question}], stream=True) as stream:
        for chunk in stream:
            print(chunk.choices[0].delta.content or "", end="", flush=True)
        print(f"\n({stream.get_final_completion().choices[0].finish_reason})")


async def ask_async(provider: str = "offline", question: str = QUESTION) -> None:
    """Do the same in an event loop."""
    client = AsyncOpenRouterClient(provider=provider)
    async with await client.create([{"role": "user", "content": question}], stream=True) as stream:
        async for chunk in stream:
            print(chunk.choices[0].delta.content or "", end="", flush=True)
        completion = await stream.get_final_completion()
        print(f"\n({completion.choices[0].finish_reason})")


if __name__ == "__main__":
    run(ask, ask_async)
