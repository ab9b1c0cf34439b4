"""What would be sent, piece by piece: where each piece comes from, how many tokens it is, what the request may cost.

Owns `Explanation`, how it is made of an encoded request, and how it is drawn. Pure: asks no provider, reads no store,
and knows neither how tokens are counted nor what they cost; both are given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, assert_never

import msgspec

from plait.errors import excerpt
from plait.events import Usage
from plait.plain import parse_json, shown
from plait.providers.base import DEFAULT_SETTINGS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from plait.log import Tail
    from plait.messages import ContentPart, Message, Part
    from plait.providers.base import Request, Settings, ToolDefinition
    from plait.providers.encoding import Encoded
    from plait.schema import OutputSchema

WIDTH: Final = 100
"""The most characters of a line of a drawn explanation."""

_EXCERPT: Final = 200
_ORIGIN: Final = 32
_WHAT: Final = 20
_NUMBERS: Final = 9
_MOST_TOKENS: Final = ("max_completion_tokens", "max_output_tokens", "max_tokens")
_ADDED: Final = "added or changed before it is sent"


class Counting(NamedTuple):
    """How the tokens of a request's pieces are counted."""

    message: Callable[[Message], int]
    tools: Callable[[Sequence[ToolDefinition]], int]
    output: Callable[[OutputSchema[Any]], int]


class ExplainedPart(msgspec.Struct, frozen=True, kw_only=True):
    """One piece of a request.

    Attributes:
        origin: where it comes from: ``"system prompt"``, ``"thread 'trip', entry 12"``, ``"tool get_weather"``.
        what: a message's role, with the kinds of its parts that are no text; or ``"tool"``, ``"output type"``,
            ``"setting"``.
        tokens: an estimate; 0 for a setting, which the model does not read.
        excerpt: its beginning, on one line: at most 200 characters.
    """

    origin: str
    what: str
    tokens: int
    excerpt: str


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """The request that would be sent. Printed, it is a table of its parts.

    Attributes:
        provider: who would be asked first.
        model: the model.
        url: where the request would go; empty when it goes nowhere.
        headers: what the library says in the headers; what authorises is ``***``.
        body: the request's body, byte for byte.
        parts: what it is made of: system text, tools, the form of the answer, the other messages, settings.
        tokens: an estimate of the input's tokens: the sum of the parts'.
        max_tokens: the most tokens that may be answered, where the request says so.
        price: what the input would cost in US dollars, by that estimate; None when no price is known.
        highest_price: the same with the longest answer; None when there is no price or no ``max_tokens``.
        unfetched: the addresses of images that would be fetched first, because the provider takes bytes; they are not
            in the body.
    """

    provider: str
    model: str
    url: str
    headers: dict[str, str]
    body: bytes
    parts: tuple[ExplainedPart, ...]
    tokens: int
    max_tokens: int | None = None
    price: float | None = None
    highest_price: float | None = None
    unfetched: tuple[str, ...] = ()

    @property
    def json(self) -> dict[str, Any]:
        """The body as plain data."""
        read: dict[str, Any] = parse_json(self.body)
        return read

    def __repr__(self) -> str:
        return f"Explanation({self.provider}:{self.model}, {len(self.parts)} parts, {self.tokens} tokens)"

    def __str__(self) -> str:
        return "\n".join(_drawn(self))


def explain(
    encoded: Encoded,
    request: Request,
    origins: Sequence[str],
    *,
    counting: Counting,
    cost: Callable[[Usage], float | None] | None = None,
) -> Explanation:
    """Explain a request that was encoded, and not sent.

    Args:
        encoded: what would be sent.
        request: what it was encoded of.
        origins: for each message of the request where it comes from; see `origins_of`.
        counting: how tokens are counted.
        cost: gives what tokens cost in US dollars, and None where it does not know; None when no price is known.
    """
    said = [
        ExplainedPart(
            origin=origin,
            what=_kinds(message),
            tokens=counting.message(message),
            excerpt=excerpt(" ".join(map(_words, message.parts)), _EXCERPT),
        )
        for message, origin in zip(request.messages, origins, strict=True)
    ]
    first = next((at for at, message in enumerate(request.messages) if message.role != "system"), len(said))
    output = [] if request.output is None else [_form(request.output, counting)]
    tools = [_tool(tool, counting) for tool in request.tools]
    parts = (*said[:first], *tools, *output, *said[first:], *_settings(request.settings))
    tokens = sum(part.tokens for part in parts)
    most = _most_tokens(parse_json(encoded.body))
    longest = None if most is None else Usage(input_tokens=tokens, output_tokens=most)
    return Explanation(
        provider=encoded.provider,
        model=encoded.model,
        url=encoded.url,
        headers=encoded.headers,
        body=encoded.body,
        parts=parts,
        tokens=tokens,
        max_tokens=most,
        price=None if cost is None else cost(Usage(input_tokens=tokens)),
        highest_price=None if cost is None or longest is None else cost(longest),
        unfetched=encoded.unfetched,
    )


# --- where messages come from ----------------------------------------------------------------------------------------


def origins_of(
    messages: Sequence[Message],
    tail: Tail,
    *,
    thread: str | None,
    begun: int,
    named: Mapping[int, str] | None = None,
    whole: Mapping[int, Message] | None = None,
) -> list[str]:
    """Say of each message where it comes from.

    Args:
        messages: those of a request.
        tail: what the log says whose messages they are, with those of the run that is explained.
        thread: the thread's name; None for one that has none.
        begun: the number of the entry with which that run begins: what is said behind it is the prompt.
        named: origins that somebody else knows, by the ``id`` of the message: ``"system prompt"``, ``"summary"``.
        whole: messages of the log of which only a part is sent, by the ``id`` of that part.
    """
    numbers = {id(message): number for message, number in zip(tail.messages, tail.numbers, strict=True)}
    whose = "this thread" if thread is None else f"thread {thread!r}"

    def origin(message: Message) -> str:
        if named and id(message) in named:
            return named[id(message)]
        if whole and id(message) in whole:
            return f"{origin(whole[id(message)])}, in part"
        number = numbers.get(id(message))
        if number is None or number == begun:  # a call that had no result got one with the run's beginning
            return _ADDED
        return "prompt" if number > begun else f"{whose}, entry {number}"

    return [origin(message) for message in messages]


# --- parts -----------------------------------------------------------------------------------------------------------


def _kinds(message: Message) -> str:
    kinds = [kind for kind in dict.fromkeys(part.type for part in message.parts) if kind != "text"]
    if message.role == "tool":
        kinds = [kind for kind in kinds if kind != "tool_result"]
    return f"{message.role}: {', '.join(kinds)}" if kinds else message.role


def _words(part: Part | ContentPart) -> str:
    match part.type:
        case "text":
            return part.text
        case "reasoning":
            return f"[thought: {part.text}]"
        case "tool_call":
            return f"{part.name}({part.arguments})"
        case "tool_result":
            said = " ".join(map(_words, part.parts))
            return f"{part.name or part.call_id}{' failed' if part.is_error else ''}: {said}"
        case "server_tool":
            return f"[{part.name}]"
        case "image" | "file":
            held = part.url if part.data is None else f"{len(part.data):,} bytes"
            return f"[{part.type}: {held or getattr(part, 'file_id', None)}]"
        case "audio":
            return f"[audio: {len(part.data):,} bytes]"
        case _:
            assert_never(part)


def _tool(tool: ToolDefinition, counting: Counting) -> ExplainedPart:
    takes = ", ".join(tool.parameters.get("properties", ()))
    said = f"{tool.name}({takes}) {tool.description}"
    tokens = counting.tools([tool])
    return ExplainedPart(origin=f"tool {tool.name}", what="tool", tokens=tokens, excerpt=excerpt(said, _EXCERPT))


def _form(output: OutputSchema[Any], counting: Counting) -> ExplainedPart:
    return ExplainedPart(
        origin=f"output type {output.name}",
        what="output type",
        tokens=counting.output(output),
        excerpt=excerpt(shown(output.schema), _EXCERPT),
    )


def _settings(settings: Settings) -> list[ExplainedPart]:
    names = (name for name in settings.__slots__ if name != "extra")
    given = {name: getattr(settings, name) for name in names}
    said = {name: value for name, value in given.items() if value != getattr(DEFAULT_SETTINGS, name)}
    said |= {f"extra[{name!r}]": value for name, value in settings.extra.items()}
    return [
        ExplainedPart(origin=f"setting {name}", what="setting", tokens=0, excerpt=excerpt(shown(value), _EXCERPT))
        for name, value in said.items()
    ]


def _most_tokens(body: Mapping[str, Any]) -> int | None:
    """Give the most tokens of all answers together that a body allows, in whatever words it says so."""
    options = body.get("options")
    said = [body.get(name) for name in _MOST_TOKENS]
    said.append(options.get("num_predict") if isinstance(options, dict) else None)
    plain = body.get("settings")  # of the form that is shown where there is no dialect
    told = plain if isinstance(plain, dict) else body
    said.append(told.get("max_tokens"))
    most = next((value for value in said if type(value) is int and value >= 0), None)
    answers = told.get("n")
    return None if most is None else most * (answers if type(answers) is int else 1)


# --- drawing ---------------------------------------------------------------------------------------------------------


def _drawn(it: Explanation) -> list[str]:
    """Draw the table: who is asked and how, a line for each part, the sums."""
    where = f"POST {it.url}" if it.url else "nothing is sent"
    lines = [f"{it.provider}:{it.model}  {where}  {len(it.body):,} bytes"]
    lines += [f"  {name}: {value}" for name, value in it.headers.items()]
    origins = min(_ORIGIN, max((len(part.origin) for part in it.parts), default=0))
    kinds = min(_WHAT, max((len(part.what) for part in it.parts), default=0))
    lines.append(f"{'tokens':>{_NUMBERS}}  {'origin':{origins}}  {'what':{kinds}}  excerpt")
    for part in it.parts:
        tokens = f"{part.tokens:,}" if part.tokens else "-"
        origin, what = _cut(part.origin, origins, end=origins // 2), _cut(part.what, kinds)
        lines.append(f"{tokens:>{_NUMBERS}}  {origin:{origins}}  {what:{kinds}}  {part.excerpt}")
    lines.append(f"{it.tokens:>{_NUMBERS},}  in all, by an estimate{_dollars(it.price)}")
    if it.max_tokens is not None:
        lines.append(
            f"{it.max_tokens:>{_NUMBERS},}  at most in the answer{_dollars(it.highest_price, ', with what is sent')}"
        )
    lines += [f"  to be fetched first: {address}" for address in it.unfetched]
    return [_cut(line) for line in lines]


def _dollars(price: float | None, of: str = "") -> str:
    return "" if price is None else f"{of}: ${price:.6f}"


def _cut(text: str, width: int = WIDTH, *, end: int = 0) -> str:
    """Make a text safe to show, and so many characters at most; unlike in an `excerpt`, spaces stay as they are.

    Args:
        text: what is shown.
        width: the most characters.
        end: how many of its last ones are kept when it is cut.
    """
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
    return safe if len(safe) <= width else f"{safe[: width - 1 - end]}…{safe[len(safe) - end :]}"
