"""A message with fewer tokens: what of it stays, and how it says that something is missing.

The log keeps the whole; what is made here is only sent. Texts are cut, the longest first; files, images and sound that
do not fit are named instead. System text, the lines round untrusted text and the arguments of calls are never cut, and
an answer with what its provider wants back unchanged (signatures, items with ids) is told as another model's, or left
as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from plait.counting import message_tokens
from plait.log import without_tools
from plait.marks import is_line, spans
from plait.messages import AssistantMessage, AudioPart, FilePart, ImagePart, TextPart, ToolResult

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from plait.counting import Counter
    from plait.marks import Span
    from plait.messages import Message, Part

_TAIL: Final = 4  # one part in so many of what stays is the end of a text: results often say there what came out
_TRIES: Final = 4
_SHORTEST: Final = "[...]"


class Forms:
    """The forms in which messages are sent, each made once: providers keep the bytes of a message with its object."""

    __slots__ = ("_bare", "_counter", "_shorter")

    def __init__(self, counter: Counter | None) -> None:
        self._counter = counter
        self._shorter: dict[int, tuple[Message, int, Message]] = {}
        self._bare: dict[int, tuple[Message, Message | None]] = {}

    def copy(self) -> Forms:
        """Give others that know what these know."""
        made = Forms(self._counter)
        made._shorter, made._bare = dict(self._shorter), dict(self._bare)
        return made

    def tokens(self, message: Message) -> int:
        """Count a message; without a counter each has none."""
        return 0 if self._counter is None else message_tokens(message, self._counter)

    def shorter(self, whole: Message, most: int) -> tuple[Message, bool]:
        """Give a message with at most ``most`` tokens, as `cut` does, and whether it was cut just now."""
        if self._counter is None or message_tokens(whole, self._counter) <= most:
            return whole, False
        known = self._shorter.get(id(whole))
        if known is not None and known[1] == most:
            return known[2], False
        made = cut(whole, most, self._counter)
        self._shorter[id(whole)] = whole, most, made
        return made, made is not whole

    def without_calls(self, message: Message) -> Message | None:
        """Give a message without tool calls and results; None where it is nothing else."""
        if message.role == "tool":
            return None
        if message.role != "assistant" or not message.tool_calls:
            return message
        known = self._bare.get(id(message))
        if known is None:
            known = self._bare[id(message)] = message, next(iter(without_tools([message])), None)
        return known[1]


def cut(message: Message, most: int, counter: Counter) -> Message:
    """Give the message with at most ``most`` tokens.

    Args:
        message: the whole message.
        most: how many tokens are wanted.
        counter: counts them.

    Returns:
        The message itself, where it is small enough or has nothing to cut. Else a new one, which is larger than
        ``most`` where that which is never touched is.
    """
    source = _cuttable(message)
    least, size = message, message_tokens(message, counter)
    while source is not None and size > most:
        made = _with_shorter_texts(source, most, counter)
        if (tokens := message_tokens(made, counter)) < size:
            least, size = made, tokens
        source = _with_fewer_media(source)
    return least


def shortened(text: str, most: int, counter: Counter) -> str:
    """Give a text with at most ``most`` tokens: its beginning and its end, and between them what was left out.

    Where the cut goes through untrusted text, what is left of that stands between its two lines as before.
    The least that is given is a mark; a text that is no longer than that is given as it is.
    """
    count = counter.count(text)
    if count <= most:
        return text
    space = most - counter.count(_mark(count))
    mark = _mark(count - max(0, space))
    marked = tuple(spans(text))
    kept = len(text) * space // count
    while kept > 0:
        tail = kept // _TAIL
        made = _without(text, kept - tail, len(text) - tail, mark, marked)
        over = counter.count(made) - most
        if over <= 0:
            return made
        kept = min(kept * space // (space + over), kept - 1 - kept // 32)
    least = mark.strip()
    if counter.count(least) > most:
        least = _SHORTEST
    return least if counter.count(least) < count else text


def _without(text: str, begin: int, end: int, instead: str, marked: Sequence[Span]) -> str:
    """Give a text with something in place of what lies between two places, the lines round untrusted text whole."""
    before = behind = ""
    for span in marked:
        if span.begin < begin < span.inside:
            begin = span.begin
        elif span.close < begin < span.end:
            begin = span.close
        if span.begin < end < span.inside:
            end = span.inside
        elif span.close < end < span.end:
            end = span.end
        begins, ends = (span.inside <= place <= span.close for place in (begin, end))
        if begins and not ends:
            before = text[span.close : span.end]
        elif ends and not begins:
            behind = text[span.begin : span.inside]
    return f"{text[:begin]}{before}{instead}{behind}{text[end:]}"


def _mark(tokens: int) -> str:
    return f"\n[... about {tokens:,} tokens left out ...]\n"


def _cuttable(message: Message) -> Message | None:
    """The message in a form whose texts may be changed; None where there is none."""
    if message.role == "system":
        return None
    if message.role != "assistant":
        return message
    if not getattr(message, "details", None) and not any(getattr(part, "details", None) for part in message.parts):
        return message
    if message.tool_calls:
        return None
    texts = [TextPart(text=part.text, refusal=part.refusal) for part in message.parts if isinstance(part, TextPart)]
    return AssistantMessage(parts=texts, metadata=message.metadata) if texts else None


def _with_shorter_texts(message: Message, most: int, counter: Counter) -> Message:
    texts = list(_texts(message.parts))
    counts = [counter.count(text) for text in texts]
    room = most - message_tokens(message, counter) + sum(counts)
    made = message
    for _ in range(_TRIES):
        level = _level(counts, room)
        shorter = (
            shortened(text, level, counter) if count > level else text
            for text, count in zip(texts, counts, strict=True)
        )
        made = message.model_copy(update={"parts": _told(message.parts, shorter)})
        over = message_tokens(made, counter) - most
        if over <= 0 or level == 0:
            break
        room -= over  # texts joined can have more tokens than each by itself
    return made


def _level(counts: Sequence[int], room: int) -> int:
    """The length to which the longest texts are cut so that all together have room; short ones stay whole."""
    left = len(counts)
    for count in sorted(counts):
        if count * left > room:
            return max(0, room // left)
        room -= count
        left -= 1
    return max(counts, default=0)


def _texts(parts: Sequence[Part]) -> Iterator[str]:
    for part in parts:
        if isinstance(part, TextPart):
            if not is_line(part.text):
                yield part.text
        elif isinstance(part, ToolResult):
            yield from _texts(part.parts)


def _told(parts: Sequence[Part], texts: Iterator[str]) -> list[Part]:
    """The parts with other texts, which come in the order of `_texts`."""
    made: list[Part] = []
    for part in parts:
        if isinstance(part, TextPart) and not is_line(part.text):
            text = next(texts)
            made.append(part if text == part.text else part.model_copy(update={"text": text}))
        elif isinstance(part, ToolResult):
            made.append(part.model_copy(update={"parts": _told(part.parts, texts)}))
        else:
            made.append(part)
    return made


def _with_fewer_media(message: Message) -> Message | None:
    """The message with its last image, sound or file named instead; None where it has none."""
    if message.role == "assistant":
        return None
    parts = _without_last(message.parts)
    return None if parts is None else message.model_copy(update={"parts": parts})


def _without_last(parts: Sequence[Part]) -> list[Part] | None:
    for number in range(len(parts) - 1, -1, -1):
        part = parts[number]
        instead: Part | None = None
        if isinstance(part, ImagePart | AudioPart | FilePart):
            instead = TextPart(text=f"[{part.type} left out: too large]")
        elif isinstance(part, ToolResult) and (inside := _without_last(part.parts)) is not None:
            instead = part.model_copy(update={"parts": inside})
        if instead is not None:
            return [*parts[:number], instead, *parts[number + 1 :]]
    return None
