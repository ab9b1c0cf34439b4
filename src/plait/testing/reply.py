"""The script language: what a server does with one request, as small frozen values.

A `Reply` is what is said, how it is written, and what goes wrong on the wire. It knows no dialect: `writing` makes
the bytes of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal, overload

from plait.errors import ConfigurationError
from plait.messages import ToolCall
from plait.testing.checks import of_kind, one_of, refuse, seconds, whole
from plait.testing.said import WORDS, Call, Said

if TYPE_CHECKING:
    from collections.abc import Sequence

End = Literal["fin", "rst", "hold"]
"""Close the connection; reset it; or say nothing more, and wait till the client goes."""

DialectName = Literal["chat", "anthropic", "ollama", "responses"]
"""OpenAI's chat completions, Anthropic's messages, Ollama's own chat, OpenAI's responses."""

_ENDS: Final = ("fin", "rst", "hold")
_LOWEST_STATUS: Final = 100
_HIGHEST_STATUS: Final = 999
_STEPS: Final = "bytes to send, seconds to wait, a Gate, a Flood, 'fin', 'rst' or 'hold'"


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

    def __post_init__(self) -> None:
        if not isinstance(self.data, bytes) or not self.data:
            refuse("the data of a Flood", self.data, "at least one byte, as bytes")


Step = bytes | float | Gate | Flood | End
"""Bytes to send; seconds to wait; a gate to wait at; bytes without end; or the end of the connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """How the events of a stream are written: all of it is allowed, and means the same.

    Ollama's streams are lines of JSON, so that ``space`` and ``lines`` change nothing there.

    Attributes:
        newline: what ends a line; ``"mixed"`` takes another one for each event. Lines of JSON cannot end with CR.
        bom: whether the stream begins with a byte order mark.
        space: whether a space follows ``data:``.
        comments: whether comments, empty events, ``id``, ``event`` and ``retry`` stand between the events; of lines
            of JSON, whether blank lines do.
        lines: whether the data of each event comes in two lines.
        last_blank: whether a blank line ends the last event; of lines of JSON, whether the last line ends.

    Raises:
        ConfigurationError: one of them is something else.
    """

    newline: Literal["\n", "\r\n", "\r", "mixed"] = "\n"
    bom: bool = False
    space: bool = True
    comments: bool = False
    lines: bool = False
    last_blank: bool = True

    def __post_init__(self) -> None:
        one_of("the newline of a Style", self.newline, ("\n", "\r\n", "\r", "mixed"))
        for name in ("bom", "space", "comments", "lines", "last_blank"):
            of_kind(f"{name} of a Style", getattr(self, name), bool, "True or False")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """Where a reply breaks off, and how.

    Attributes:
        head: after so many bytes of the status line and headers.
        event: after so many events; an answer in one piece is cut in the middle.
        byte: after so many bytes of the body; with ``event``, of the event that would come next.
        then: ``"fin"`` closes the connection, ``"rst"`` resets it, ``"hold"`` is silence, ``"end"`` ends the body as
            if all had been said.

    Raises:
        ConfigurationError: one of them is something else.
    """

    head: int | None = None
    byte: int | None = None
    event: int | None = None
    then: Literal["fin", "rst", "hold", "end"] = "fin"

    def __post_init__(self) -> None:
        for name in ("head", "byte", "event"):
            if getattr(self, name) is not None:
                whole(f"{name} of a Cut", getattr(self, name))
        one_of("then of a Cut", self.then, (*_ENDS, "end"))


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

    Raises:
        ConfigurationError: one of them is something else.
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

    def __post_init__(self) -> None:
        if self.framing is not None:
            one_of("the framing of a Wire", self.framing, ("chunked", "length", "close"))
        if self.gzip is not None:
            one_of("gzip of a Wire", self.gzip, ("true", "false"))
        if self.piece is not None:
            whole("the piece of a Wire", self.piece, 1)
        if self.bad_chunk is not None:
            whole("bad_chunk of a Wire", self.bad_chunk)
        whole("longer of a Wire", self.longer)
        seconds("the delay of a Wire", self.delay)
        seconds("the pause of a Wire", self.pause)
        of_kind("the cut of a Wire", self.cut, (Cut, type(None)), "a Cut(...)")
        of_kind("the flood of a Wire", self.flood, bytes, "bytes")
        one_of("then of a Wire", self.then, (*_ENDS, "keep"))


@dataclass(frozen=True, slots=True, init=False)
class Reply:
    """What a server does with one request.

    Attributes:
        said: what the answer says; a text may be given for an answer that says it.
        status: the HTTP status; from 300 on the body is the dialect's error object.
        headers: names and values, in place of the usual ones of the same name; a name may come twice. A mapping
            may be given.
        body: in place of what the dialect writes in one piece, and for streams too if ``events`` is not given.
        events: the data of the events in place of what the dialect writes in a stream.
        streamed: whether to stream, whatever was asked for.
        style: how events are written.
        wire: what happens to the bytes.
        raw: the steps to take, in place of all else.

    Raises:
        ConfigurationError: one of them is something else.
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

    def __init__(  # the fields, some of which may be given in a shorter form
        self,
        *,
        said: Said | str = Said(text=WORDS),  # noqa: B008  # frozen
        status: int = 200,
        headers: Sequence[tuple[str, str]] | Mapping[str, str] = (),
        body: bytes | None = None,
        events: Sequence[bytes] | None = None,
        streamed: bool | None = None,
        style: Style = Style(),
        wire: Wire = Wire(),
        raw: Sequence[Step] | None = None,
    ) -> None:
        of_kind("said of a Reply", said, (Said, str), "a Said(...), or the text of the answer")
        whole("the status of a Reply", status, _LOWEST_STATUS, _HIGHEST_STATUS)
        of_kind("the body of a Reply", body, (bytes, type(None)), "bytes")
        of_kind("streamed of a Reply", streamed, (bool, type(None)), "True, False or None")
        of_kind("the style of a Reply", style, Style, "a Style(...)")
        of_kind("the wire of a Reply", wire, Wire, "a Wire(...)")
        given: dict[str, object] = {
            "said": Said(text=said) if isinstance(said, str) else said,
            "status": status,
            "headers": _fields(headers),
            "body": body,
            "events": None if events is None else _events(events),
            "streamed": streamed,
            "style": style,
            "wire": wire,
            "raw": None if raw is None else _steps(raw),
        }
        for name, value in given.items():
            object.__setattr__(self, name, value)

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
        dialect: the dialect it is in.
    """

    model: str = "fault-1"
    stream: bool = False
    tools: tuple[str, ...] = ()
    usage: bool = True
    number: int = 1
    url: str = ""
    dialect: DialectName = "chat"


Scripted = Reply | str | Callable[[Asked], "Reply | str | Callable[[Asked], Reply]"]
"""One entry of a script: a reply, the text of an answer, or a function (a fault is one) that gives one of them."""

Calling = Call | ToolCall | tuple[str, "Mapping[str, Any] | str"]
"""A call of a tool: a call, or a pair of a tool's name and its arguments."""

_CALLS: Final = 'a Call, a ToolCall, or a pair such as ("weather", {"city": "Lisbon"})'
_PAIR: Final = 2


def answer(text: str | None = WORDS, *, piece: int | None = None, **said: Any) -> Reply:
    """Give a reply that says a text; see `Said` for what else it may say."""
    return Reply(said=Said(text=text, piece=piece, **said))


@overload
def tool_calls(name: str, arguments: Mapping[str, Any] | str = ..., /, *, text: str | None = None) -> Reply: ...
@overload
def tool_calls(*calls: Calling, text: str | None = None) -> Reply: ...
def tool_calls(*calls: Calling | str | Mapping[str, Any], text: str | None = None) -> Reply:
    """Give a reply that calls tools.

    Args:
        *calls: each a `Call`, a `ToolCall`, or a pair of a tool's name and its arguments. For one call, the name and
            the arguments may be given by themselves.
        text: what is said before the calls.

    Raises:
        ConfigurationError: there is no call, or something else is given.
    """
    if not calls:
        msg = f"tool_calls() needs at least one call: {_CALLS}"
        raise ConfigurationError(msg)
    given: tuple[object, ...] = (calls,) if isinstance(calls[0], str) else calls
    return Reply(said=Said(text=text, calls=tuple(_call(call) for call in given)))


def _call(given: object) -> Call:
    match given:
        case Call():
            return given
        case ToolCall():
            return Call(name=given.name, arguments=given.arguments, id=given.id)
        case (str(name),):
            return Call(name=name)
        case (str(name), str() | Mapping() as arguments):
            return Call(name=name, arguments=arguments)
        case _:
            return refuse("a call given to tool_calls()", given, _CALLS)


def _fields(given: object) -> tuple[tuple[str, str], ...]:
    pairs = tuple(given.items()) if isinstance(given, Mapping) else given
    if not isinstance(pairs, tuple | list) or not all(_is_field(pair) for pair in pairs):
        refuse("headers of a Reply", given, "pairs of texts, or a mapping: {'Retry-After': '1'}")
    return tuple((name, value) for name, value in pairs)


def _is_field(pair: object) -> bool:
    return isinstance(pair, tuple | list) and len(pair) == _PAIR and all(isinstance(text, str) for text in pair)


def _events(given: object) -> tuple[bytes, ...]:
    if not isinstance(given, tuple | list) or not all(isinstance(event, bytes) for event in given):
        refuse("events of a Reply", given, "a tuple of bytes, the data of each event")
    return tuple(given)


def _steps(given: object) -> tuple[Step, ...]:
    if not isinstance(given, tuple | list) or not given:
        refuse("raw of a Reply", given, f"a tuple of steps, each {_STEPS}")
    for number, step in enumerate(given, 1):
        is_time = isinstance(step, int | float) and not isinstance(step, bool) and step >= 0
        if not (is_time or isinstance(step, bytes | Gate | Flood) or step in _ENDS):
            refuse(f"step {number} of raw of a Reply", step, _STEPS)
    return tuple(given)
