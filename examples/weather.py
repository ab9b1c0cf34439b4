"""Ask any model about the weather: ``python examples/weather.py anthropic "Do I need an umbrella in Tokyo?"``.

The provider may be followed by the model, as in ``ollama:qwen3:4b``. Keys and addresses are taken from the provider's
usual variables, such as ANTHROPIC_API_KEY and ANTHROPIC_BASE_URL.
"""

from __future__ import annotations

import asyncio
import sys

from plait import Agent, PlaitError, TextDelta, ToolCallFinished

QUESTION = "What is the weather in Lisbon now, and what will it be like in Porto?"


async def get_weather(city: str) -> str:
    """Get the current weather for a city.

    Args:
        city: the city to look at.
    """
    return f"Weather in {city}: 72F (22C), sunny with light clouds, humidity 45%, wind 8 mph NW"


async def get_forecast(city: str, days: int = 3) -> str:
    """Get the weather of the next days for a city.

    Args:
        city: the city to look at.
        days: how many days to look ahead.
    """
    return f"Weather in {city} for {days} days: rain at first, then brighter, 64F (18C)"


async def main(provider: str = "offline", question: str = QUESTION) -> int:
    """Answer one question, showing text and tool calls as they come; give the program's exit code."""
    try:
        agent = Agent(role="Answer from what your tools say.", provider=provider, tools=[get_weather, get_forecast])
        run = agent.run(question)
        async for event in run:
            if isinstance(event, TextDelta):
                print(event.text, end="", flush=True)
            elif isinstance(event, ToolCallFinished):
                print(f"\n[{event.call.name} {event.call.arguments}: {event.result.text}]")
        answered = await run
    except PlaitError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    print(f"\n({answered.provider}:{answered.model}, {answered.stop_reason})")
    return 0 if answered.stop_reason == "response" else 3


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*sys.argv[1:3])))
