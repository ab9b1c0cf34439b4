"""A chat of a service: ``python examples/one_message.py openai:gpt-4o-mini "What is the weather in Lisbon?" ...``.

Each word of the command line after the model is one message. Every message is answered by itself: what was said before
comes with it, as plain JSON, as from a database. Ctrl-C is the stop button of the message under way.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from typing import TYPE_CHECKING, Any

from plait import AsyncOpenAISimpleAgent, PlaitError

if TYPE_CHECKING:
    from plait.hooks import BudgetExceeded, FunctionCallEnd, RunEnded

QUESTIONS = ("What is the weather in Lisbon?", "And in Porto?")
WEATHER = {
    "name": "get_weather",
    "description": "Get the weather of a city as it is now.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "description": "the city's name"}},
        "required": ["city"],
    },
}
pressed: set[str] = set()  # the chats whose stop button was pressed; a service would have them in its database


async def get_weather(city: str, user_id: str) -> str:
    """Say the weather as a user likes it; the user's id comes from the service, and never from the model."""
    degrees = {"ann": "72F"}.get(user_id, "22C")
    return f"{city}: {degrees}, sunny"


async def is_stopped(chat_id: str) -> bool:
    """Say whether somebody pressed the stop button of a chat."""
    return chat_id in pressed


def tell(event: FunctionCallEnd, chat_id: str) -> None:
    """Show the people of a chat what is done for them."""
    print(f"[{chat_id}: {event.call.name} gave {event.result.text!r}]")


def warn(event: BudgetExceeded) -> None:
    """Tell whoever pays."""
    print(f"[{event.reason}]")


def note(event: RunEnded, user_id: str) -> None:
    """Write down what a message cost, as a service does in its books."""
    used = event.result.usage
    print(f"[{user_id}: {used.total_tokens if used else 0} tokens, {event.result.stop_reason}]")


def weather_service(model: str) -> AsyncOpenAISimpleAgent:
    """Make the agent: one for all users and chats."""
    return AsyncOpenAISimpleAgent(
        agent_name="Weather",
        agent_description="says what the weather is like",
        provider=model,
        system_prompt="Answer questions about the weather in one sentence. Look it up before you answer.",
        tool_registry=[{"name": "get_weather", "function_schema": WEATHER, "func": get_weather}],
        manual_stop_signal_function=is_stopped,
        check_for_stop_signal_time=0.1,
        max_context_length=16_000,
        max_token_per_message=4_000,
        max_messages_in_context=20,
        max_turns=5,
        hooks={"on_function_call_end": tell, "on_budget_exceeded": warn, "on_final_response": note},
        budget_control={"max_budget_for_this_chat": 0.05, "stop_on_budget_exceeded": True},
        current_cost_per_million_tokens={"input": 0.15, "output": 0.60},
        retry_strategy={"rate_limit": {"max_retries": 5, "backoff": "exponential"}, "initial_delay": 1},
    )


async def talk(model: str = "offline", *questions: str) -> None:
    """Send messages one after the other, each with what was said before."""
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, pressed.add, "trip")
    kept = "[]"  # in the service's database
    async with weather_service(model) as agent:
        for question in questions or QUESTIONS:
            history: list[dict[str, Any]] = json.loads(kept)
            response = await agent.send_message(question, history, user_id="ann", chat_id="trip")
            print(response.output)
            kept = json.dumps(response.history)
            if response.stop_reason != "response":
                print(f"({response.stop_reason})")
                break


if __name__ == "__main__":
    try:
        asyncio.run(talk(*sys.argv[1:]))
    except PlaitError as error:
        sys.exit(str(error))
