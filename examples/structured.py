"""Get a value of a type: ``python examples/structured.py [--async] openrouter "Invent a lighthouse keeper."``."""

from __future__ import annotations

from pydantic import BaseModel, Field

from command import run
from plait import AsyncOpenRouterClient, OpenRouterClient

QUESTION = "Invent Isla Moir, a keeper of lighthouses, who is 52 years old."


class Person(BaseModel):
    """Somebody."""

    name: str = Field(description="first name, and last name if there is one")
    age: int = Field(description="in years", ge=0)


def ask(provider: str = "offline", question: str = QUESTION) -> None:
    """Ask for a person, and print what is known of them."""
    client = OpenRouterClient(provider=provider)
    completion = client.parse([{"role": "user", "content": question}], Person)
    show(completion.choices[0].message.parsed)


async def ask_async(provider: str = "offline", question: str = QUESTION) -> None:
    """Do the same in an event loop."""
    client = AsyncOpenRouterClient(provider=provider)
    completion = await client.parse([{"role": "user", "content": question}], Person)
    show(completion.choices[0].message.parsed)


def show(person: Person | None) -> None:
    """Print a person."""
    if person:
        print(f"{person.name} will be {person.age + 1} next year.")


if __name__ == "__main__":
    run(ask, ask_async)
