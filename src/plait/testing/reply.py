"""The script language: what a server does with one request, as small frozen values.

A `Reply` is what is said, how it is written, and what goes wrong on the wire. It knows no dialect: `writing` makes
the bytes of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal

from plait.errors import ConfigurationError, excerpt
from plait.testing.said import WORDS, Call, Said

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

End = Literal["fin", "rst", "hold"]
"""Close the connection; reset it; or say nothing more, and wait till the client goes."""


class Gate:
    """Holds a reply back until `open` is called, by any thread: a pause that ends when the test says so."""

    def __init__(self) -> None:
        self._is_open = False
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    def open(self) -> None:
        """Let every reply pass, now and later."""
        self._is_open = True
        for loop, event in self._waiting:
            if not loop.is_closed():
                loop.call_soon_threadsafe(event.set)

    async def wait(self) -> None:
        """Wait until it is open."""
        event = asyncio.Event()
        self._waiting.append((asyncio.get_running_loop(), event))
        if not self._is_open:
            await event.wait()


@dataclass(frozen=True, slots=True)
class Flood:
    """The same bytes again and again, until the client goes."""

    data: bytes


Step = bytes | float | Gate | Flood | End
"""Bytes to send; seconds to wait; a gate to wait at; bytes without end; or the end of the connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """How the events of a stream are written: all of it is allowed, and means the same.

    Attributes:
        newline: what ends a line; ``"mixed"`` takes another one for each event.
        bom: whether the stream begins with a byte order mark.
        space: whether a space follows ``data:``.
        comments: whether comments, empty events, ``id``, ``event`` and ``retry`` stand between the events.
        lines: whether the data of each event comes in two lines.
        last_blank: whether a blank line ends the last event.
    """

    newline: Literal["\n", "\r\n", "\r", "mixed"] = "\n"
    bom: bool = False
    space: bool = True
    comments: bool = False
    lines: bool = False
    last_blank: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """Where a reply breaks off, and how.

    Attributes:
        head: after so many bytes of the status line and headers.
        event: after so many events; an answer in one piece is cut in the middle.
        byte: after so many bytes of the body; with ``event``, of the event that would come next.
        then: ``"fin"`` closes the connection, ``"rst"`` resets it, ``"hold"`` is silence, ``"end"`` ends the body as
            if all had been said.
    """

    head: int | None = None
    byte: int | None = None
    event: int | None = None
    then: Literal["fin", "rst", "hold", "end"] = "fin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wire:
    """What happens to the bytes of a reply.

    Attributes:
        framing: how the end of the body is told: ``"chunked"``, ``"length"`` or, by closing, ``"close"``. By itself
            chunked for a stream and a length for an answer in one piece.
        delay: seconds before the first byte.
        piece: bytes that are sent at a time; without a number an event, or the whole.
        pause: seconds between two of them.
        gzip: ``"true"`` compresses the body, ``"false"`` only says so.
        longer: bytes that the declared length is too large by.
        bad_chunk: the number of the chunk, from 0, whose size is no number.
        cut: where the reply breaks off.
        flood: what follows the body without end.
        then: what happens to the connection after a whole reply.
    """

    framing: Literal["chunked", "length", "close"] | None = None
    delay: float = 0.0
    piece: int | None = None
    pause: float = 0.0
    gzip: Literal["true", "false"] | None = None
    longer: int = 0
    bad_chunk: int | None = None
    cut: Cut | None = None
    flood: bytes = b""
    then: End | Literal["keep"] = "keep"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a server does with one request.

    Attributes:
        said: what the answer says.
        status: the HTTP status; from 300 on the body is the dialect's error object.
        headers: names and values, in place of the usual ones of the same name; a name may come twice.
        body: in place of what the dialect writes in one piece, and for streams too if ``events`` is not given.
        events: the data of the events in place of what the dialect writes in a stream.
        streamed: whether to stream, whatever was asked for.
        style: how events are written.
        wire: what happens to the bytes.
        raw: the steps to take, in place of all else.
    """

    said: Said = Said(text=WORDS)  # noqa: RUF009  # frozen
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    events: tuple[bytes, ...] | None = None
    streamed: bool | None = None
    style: Style = Style()
    wire: Wire = Wire()
    raw: tuple[Step, ...] | None = None

    def over(self, wire: Wire) -> Reply:
        """Give the same reply over another wire."""
        return replace(self, wire=wire)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request as a dialect reads it.

    Attributes:
        model: the model asked for.
        stream: whether a stream is asked for.
        tools: the names of the tools on offer.
        usage: whether the tokens are to be told in a stream.
        number: the number of the request, from 1.
        url: the address that was asked.
    """

    model: str = "fault-1"
    stream: bool = False
    tools: tuple[str, ...] = ()
    usage: bool = True
    number: int = 1
    url: str = ""


Scripted = Reply | str | Callable[[Asked], "Reply | str"]
"""One entry of a script: a reply, the text of an answer, or a function that gives one of them to a request."""

_ENTRIES: Final = "give a Reply, the text of an answer, or a function that gives one of them to a request"
_NO_CALLS: Final = "tool_calls() needs at least one call: a Call, or a name and its arguments"


def answer(text: str | None = WORDS, *, piece: int | None = None, **said: Any) -> Reply:
    """Give a reply that says a text; see `Said` for what else it may say."""
    return Reply(said=Said(text=text, piece=piece, **said))


def checked(script: tuple[Scripted, ...]) -> tuple[Scripted, ...]:
    """Give a script as it is; an empty one is one answer of a few words.

    Raises:
        ConfigurationError: something else is in it.
    """
    for number, entry in enumerate(script, 1):
        if not (isinstance(entry, Reply | str) or callable(entry)):
            msg = f"entry {number} of the script is {excerpt(repr(entry), 80)}; {_ENTRIES}"
            raise ConfigurationError(msg)
    return script or (answer(),)


def reply_of(scripted: Scripted, asked: Asked) -> Reply:
    """Give the reply that an entry of a script has for a request.

    Raises:
        ConfigurationError: a function gave something else.
    """
    given = scripted(asked) if callable(scripted) else scripted
    if isinstance(given, str):
        return answer(given)
    if not isinstance(given, Reply):
        msg = f"a function of the script gave {excerpt(repr(given), 80)}; {_ENTRIES}"
        raise ConfigurationError(msg)
    return given


def tool_calls(*calls: Call | tuple[str, Mapping[str, Any] | str], text: str | None = None) -> Reply:
    """Give a reply that calls tools.

    Args:
        *calls: each a `Call`, or a pair of a tool's name and its arguments.
        text: what is said before the calls.
    """
    if not calls:
        raise ValueError(_NO_CALLS)
    made = tuple(call if isinstance(call, Call) else Call(name=call[0], arguments=call[1]) for call in calls)
    return Reply(said=Said(text=text, calls=made))
