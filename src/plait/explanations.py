"""What a run would ask first, explained before anything is sent: under `Agent.explain`.

Puts the run's beginning on a copy of its thread, composes the request that the loop would, and says where each message
of it comes from. What is told of a request, and how that is drawn, is `plait.explaining`'s.
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
    from plait.messages import Message

_NAMES: Final = {"summary": "summary", "dropped_note": "context note", "overflow_note": "context note"}


async def explained(given: Assignment[Any], thread: str | None) -> Explanation:
    """Explain the first request of a run.

    Args:
        given: the run, on a copy of the thread that it would continue.
        thread: what that one is called; None for a new one.

    Raises:
        ConfigurationError: the provider cannot express the request.
        LimitExceeded: what must be sent is more than the context window holds.
    """
    tail, run_id = given.thread.tail, given.context.run_id
    begun = tail.n + 1
    given.thread.add(run_id, RunStart(given.context.agent_name))
    for message in given.prompt:
        given.thread.add(run_id, MessageEntry(message))
    composer = Composer(given, Expenses(given, None))
    chosen = composer.chosen()
    request = composer.request(chosen, 1)
    sent = encoded(given.provider, request)
    named, whole = _named(given, chosen)
    prices, counter = given.prices, given.counter or SIMPLE
    if prices is not None and not prices.loaded:
        await prices.load()
    return explain(
        sent,
        request,
        origins_of(request.messages, tail, thread=thread, begun=begun, named=named, whole=whole),
        counting=Counting(
            lambda message: message_tokens(message, counter),
            lambda tools: tools_tokens(tools, counter),
            lambda output: output_tokens(output, counter),
        ),
        cost=None if prices is None else lambda usage: prices.cost(sent.provider, sent.model, usage),
    )


def _named(given: Assignment[Any], chosen: Chosen) -> tuple[dict[int, str], dict[int, Message]]:
    """Name what is sent beside the thread's own messages, and find the whole of what is sent only in part, by id."""
    named = {} if given.system is None else {id(given.system): "system prompt"}
    whole: dict[int, Message] = {}
    messages, trimmer = given.thread.tail.sendable(), given.thread.trimmer
    origins = [] if trimmer is None else trimmer.origins()
    for message, origin in zip(chosen.messages[len(named) :], origins, strict=False):
        if isinstance(origin, str):
            named[id(message)] = _NAMES[origin]
        elif message is not messages[origin]:
            whole[id(message)] = messages[origin]
    return named, whole
