"""Stream an answer for which tools run: ``python examples/streaming_tools.py [--async] openrouter:openai/o4-mini``.

The stream waits while a tool runs, and goes on with the next answer of the model.
"""

from __future__ import annotations

from command import run
from plait import AsyncOpenRouterClient, AsyncToolClient, OpenRouterClient, ToolClient

QUESTION = "What is the weather in Oslo now?"


def get_weather(city: str) -> str:
    """Get the weather of a city as it is now.

    Args:
        city: the city's name.
    """
    return f"{city}: 7 degrees, light rain"


def ask(provider: str = "offline", question: str = QUESTION) -> None:
    """Print the pieces of what the model says before and after it looked at the weather."""
    client = ToolClient(OpenRouterClient(provider=provider))
    client.register_tool("get_weather", "Get the weather of a city", get_weather)
    with client.chat([{"role": "user", "content": question}], stream=True) as stream:
        for chunk in stream:
            print(chunk.choices[0].delta.content or "", end="", flush=True)
        print(f"\n({stream.get_final_completion().stop_reason})")


async def ask_async(provider: str = "offline", question: str = QUESTION) -> None:
    """Do the same in an event loop."""
    client = AsyncToolClient(AsyncOpenRouterClient(provider=provider))
    client.register_tool("get_weather", "Get the weather of a city", get_weather)
    async with await client.chat([{"role": "user", "content": question}], stream=True) as stream:
        async for chunk in stream:
            print(chunk.choices[0].delta.content or "", end="", flush=True)
        completion = await stream.get_final_completion()
        print(f"\n({completion.stop_reason})")


if __name__ == "__main__":
    run(ask, ask_async)
