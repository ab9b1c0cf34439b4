"""Ask once: ``python examples/chat.py [--async] openrouter:openai/gpt-4o "What is 4200 + 42?"``.

The provider may be followed by the model. Keys and addresses are taken from the provider's usual variables, such as
OPENROUTER_API_KEY and OPENROUTER_BASE_URL.
"""

from __future__ import annotations

from command import run
from plait import AsyncOpenRouterClient, OpenRouterClient

QUESTION = "Why do cats purr?"


def ask(provider: str = "offline", question: str = QUESTION) -> None:
    """Ask, and print the answer and its tokens."""
    client = OpenRouterClient(provider=provider)
    completion = client.create([{"role": "user", "content": question}])
    print(completion.choices[0].message.content)
    if completion.usage:
        print(f"({completion.usage.prompt_tokens} tokens in, {completion.usage.completion_tokens} out)")


async def ask_async(provider: str = "offline", question: str = QUESTION) -> None:
    """Do the same in an event loop."""
    client = AsyncOpenRouterClient(provider=provider)
    completion = await client.create([{"role": "user", "content": question}])
    print(completion.choices[0].message.content)
    if completion.usage:
        print(f"({completion.usage.prompt_tokens} tokens in, {completion.usage.completion_tokens} out)")


if __name__ == "__main__":
    run(ask, ask_async)
