"""Give a model a name of your own: ``python examples/custom_model.py [--async] openrouter mistralai/mistral-small``."""

from __future__ import annotations

from command import run
from plait import AsyncOpenRouterClient, OpenRouterClient

MODEL = "acme/otter-large"
QUESTION = "Who are you?"


def ask(provider: str = "offline", model: str = MODEL, question: str = QUESTION) -> None:
    """Name a model, ask it by that name, and print who answered."""
    OpenRouterClient.register_model("HOUSE_MODEL", model)
    client = OpenRouterClient(model="HOUSE_MODEL", provider=provider)
    completion = client.create([{"role": "user", "content": question}])
    print(f"{completion.model}: {completion.choices[0].message.content}")


async def ask_async(provider: str = "offline", model: str = MODEL, question: str = QUESTION) -> None:
    """Do the same in an event loop."""
    AsyncOpenRouterClient.register_model("HOUSE_MODEL", model)
    client = AsyncOpenRouterClient(model="HOUSE_MODEL", provider=provider)
    completion = await client.create([{"role": "user", "content": question}])
    print(f"{completion.model}: {completion.choices[0].message.content}")


if __name__ == "__main__":
    run(ask, ask_async)
