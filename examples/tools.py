"""Let the model call a function: ``python examples/tools.py [--async] openrouter "Roll the dice 3 times"``."""

from __future__ import annotations

from command import run
from plait import AsyncOpenRouterClient, AsyncToolClient, OpenRouterClient, ToolClient

QUESTION = "Roll a die."


def roll(sides: int = 6) -> dict[str, int]:
    """Roll one die.

    Args:
        sides: how many sides the die has.
    """
    return {"roll": sides}  # a loaded die, so that this example always says the same


async def roll_async(sides: int = 6) -> dict[str, int]:
    """Roll one die, as `roll` does; tools may be sync or async.

    Args:
        sides: how many sides the die has.
    """
    return roll(sides)


def ask(provider: str = "offline", question: str = QUESTION) -> None:
    """Ask a model that may roll dice, and print its answer and why it ended."""
    client = ToolClient(OpenRouterClient(provider=provider))
    client.register_tool("dice_roll", "Roll one die", roll)
    completion = client.chat([{"role": "user", "content": question}])
    print(completion.choices[0].message.content)
    print(f"({completion.stop_reason})")


async def ask_async(provider: str = "offline", question: str = QUESTION) -> None:
    """Do the same in an event loop."""
    client = AsyncToolClient(AsyncOpenRouterClient(provider=provider))
    client.register_tool("dice_roll", "Roll one die", roll_async)
    completion = await client.chat([{"role": "user", "content": question}])
    print(completion.choices[0].message.content)
    print(f"({completion.stop_reason})")


if __name__ == "__main__":
    run(ask, ask_async)
