"""What goes wrong in the writing, whichever dialect it is: every object edited, an event put in, an end left out.

Each gives the ``make`` of a `Fault`. Knows no dialect by name.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from plait.testing.fault import Place
from plait.testing.reply import Asked, Reply

if TYPE_CHECKING:
    from plait.testing.dialect import Dialect
    from plait.testing.said import Said

Make = Callable[[Place, Asked], Reply]
Edit = Callable[[dict[str, Any]], None]
Ending = Callable[[list[bytes]], list[bytes]]


def edited(dialect: Dialect, edit: Edit, said: Said | None = None) -> Make:
    """Change every JSON object of an answer, whole or streamed."""

    def make(place: Place, asked: Asked) -> Reply:
        spoken = place.reply(said).said
        events = tuple(_changed(event, edit) for event in dialect.events(spoken, asked))
        return Reply(body=_changed(dialect.whole(spoken, asked), edit), events=events)

    return make


def _changed(data: bytes, edit: Edit) -> bytes:
    if not data.startswith(b"{"):  # [DONE]
        return data
    made = json.loads(data)
    edit(made)
    return json.dumps(made).encode()


def inserted(dialect: Dialect, data: bytes) -> Make:
    """Put a foreign event into a stream, and in place of an answer in one piece."""

    def make(place: Place, asked: Asked) -> Reply:
        events = dialect.events(place.reply().said, asked)
        at = place.number(3)
        return Reply(body=data, events=(*events[:at], data, *events[at:]))

    return make


def replaced(dialect: Dialect, old: bytes, new: bytes, said: Said) -> Make:
    """Put some bytes in place of others, in every event and in an answer in one piece."""

    def make(place: Place, asked: Asked) -> Reply:
        spoken = place.reply(said).said
        events = tuple(event.replace(old, new) for event in dialect.events(spoken, asked))
        return Reply(body=dialect.whole(spoken, asked).replace(old, new), events=events)

    return make


def ended(dialect: Dialect, ending: Ending) -> Make:
    """End a stream in another way: ``ending`` takes the events from the first end mark on, and gives others."""

    def make(place: Place, asked: Asked) -> Reply:
        said = place.reply().said
        events = dialect.events(said, asked)
        at = next(number for number, event in enumerate(events) if dialect.is_end(event))
        return Reply(said=said, events=(*events[:at], *ending(events[at:])))

    return make


def streamed(said: Said, events: Callable[[str, Asked], list[bytes]]) -> Make:
    """Stream tool calls in pieces of one's own; ``events`` takes the name of the tool and the request."""

    def make(_: Place, asked: Asked) -> Reply:
        return Reply(said=said, events=events(asked.tools[0] if asked.tools else "tool", asked))

    return make
