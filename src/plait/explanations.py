"""What a run would ask first, explained before anything is sent: under `Agent.explain`.

Puts the run's beginning behind a copy of its thread, and composes the request that the loop would.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from plait.composing import Composer
from plait.counting import SIMPLE, message_tokens, output_tokens, tools_tokens
from plait.entries import MessageEntry, RunStart
from plait.expenses import Expenses
from plait.explaining import Counting, Explanation, explain, origins_of
from plait.providers.encoding import encoded

if TYPE_CHECKING:
    from plait.assignment import Assignment
    from plait.composing import Chosen
    from plait.log import Tail

_NAMES: Final = {"summary": "summary", "dropped_note": "context note", "overflow_note": "context note"}


async def explained(given: Assignment[Any], thread: str | None) -> Explanation:
    """Explain the first request of a run.

    Args:
        given: the run, on a thread of its own with the entries of the one it would continue.
        thread: what that one is called; None for a new one.

    Raises:
        ConfigurationError: the provider cannot express the request.
        LimitExceeded: what must be sent is more than the context window holds.
    """
    scratch = given.thread
    begun = scratch.tail.n + 1
    scratch.add(given.context.run_id, RunStart(given.context.agent_name))
    for message in given.prompt:
        scratch.add(given.context.run_id, MessageEntry(message))
    composer = Composer(given, Expenses(given, None))
    chosen = composer.chosen()
    request = composer.request(chosen, 1)
    prices = given.prices
    if prices is not None and not prices.loaded:
        await prices.load()
    counter = given.counter or SIMPLE
    sent = encoded(given.provider, request)
    return explain(
        sent,
        request,
        origins_of(request.messages, scratch.tail, thread=thread, begun=begun, named=_named(given, chosen)),
        counting=Counting(
            lambda message: message_tokens(message, counter),
            lambda tools: tools_tokens(tools, counter),
            lambda output: output_tokens(output, counter),
        ),
        cost=None if prices is None else lambda usage: prices.cost(sent.provider, sent.model, usage),
    )


def _named(given: Assignment[Any], chosen: Chosen) -> dict[int, str]:
    """Name what is sent beside the thread's own messages, and what is sent only in part."""
    named = {} if given.system is None else {id(given.system): "system prompt"}
    own = chosen.messages[len(named) :]
    for message, origin in zip(own, chosen.origins, strict=False):
        if isinstance(origin, str):
            named[id(message)] = _NAMES[origin]
        elif message is not (entry := _sendable(given.thread.tail)[origin]):
            named[id(message)] = f"{_origin(given.thread.tail, entry)}, in part"
    return named


def _sendable(tail: Tail) -> list[Any]:
    return tail.sendable()


def _origin(tail: Tail, message: object) -> str:
    number = next((n for n, one in zip(tail.numbers, tail.messages, strict=True) if one is message), None)
    return "this thread" if number is None else f"entry {number}"
