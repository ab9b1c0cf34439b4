"""Tell apart what can go wrong, with a log of what happened: ``python examples/failures.py [--async] openai:gpt-9``."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

from command import run
from plait import (
    AsyncOpenRouterClient,
    OpenRouterAPIError,
    OpenRouterClient,
    OpenRouterConnectionError,
    OpenRouterError,
    RateLimited,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

QUESTION = "Are you there?"


def ask(provider: str = "offline", question: str = QUESTION) -> None:
    """Ask, once more at most, and print the answer, or what to do now."""
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("plait").setLevel(logging.DEBUG)  # requests and retries, without what was said
    client = OpenRouterClient(provider=provider, max_retries=1, retry_initial_delay=0.1)
    with advice():
        completion = client.create([{"role": "user", "content": question}])
        print(completion.choices[0].message.content)


async def ask_async(provider: str = "offline", question: str = QUESTION) -> None:
    """Do the same in an event loop."""
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("plait").setLevel(logging.DEBUG)
    client = AsyncOpenRouterClient(provider=provider, max_retries=1, retry_initial_delay=0.1)
    with advice():
        completion = await client.create([{"role": "user", "content": question}])
        print(completion.choices[0].message.content)


@contextmanager
def advice() -> Iterator[None]:
    """Say what to do about an error, and raise it on."""
    try:
        yield
    except RateLimited as error:
        print(f"Too many requests. Ask again later{f', in {error.retry_after:g} s' if error.retry_after else ''}.")
        raise
    except OpenRouterAPIError as error:
        again = "Ask again later." if error.retryable else "Asking again would not help."
        print(f"The provider said no, with status {error.status}. {again}")
        raise
    except OpenRouterConnectionError:
        print("Nobody answered. Look at the address and the network.")
        raise
    except OpenRouterError:
        print("There was an answer, but no good one.")
        raise


if __name__ == "__main__":
    run(ask, ask_async)
