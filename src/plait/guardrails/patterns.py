"""Checks by regular expression: `forbid` refuses what matches, `redact` takes it out.

The engine is Rust's ``regex``, which comes with pydantic. Its time grows with the length of the text and never with
its shape (https://docs.rs/regex/latest/regex/#untrusted-input), so no text can hold a run up. The price is that it
knows no look-around and no backreferences, and that it only says whether a text matches, not where: `redact` takes out
the whole word or line.
"""

from __future__ import annotations

import re
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, Final, Literal, assert_never, get_args

from pydantic_core import SchemaError, SchemaValidator, core_schema

from plait.errors import ConfigurationError, excerpt
from plait.guardrails.checks import (
    Event,
    InputCheck,
    OutputCheck,
    ToolCallCheck,
    ToolResultCheck,
    read_with,
    texts_of,
)
from plait.guardrails.reading import told, with_text
from plait.hooks import Veto
from plait.messages import FilePart, Message, ReasoningPart, TextPart, ToolCall, ToolResult
from plait.plain import parse_json, to_json

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_PATTERN: Final = 1_000
"""Characters of one pattern."""
MAX_PATTERNS: Final = 100
_SIZE_PROBE: Final = 16
"""The engine refuses what compiles to more than 10 MB. A pattern must fit this many times: its size bounds the time for
each character of a text."""

Within = Literal["word", "line"]
_UNITS: Final = {"word": re.compile(r"(\s+)"), "line": re.compile(r"([\r\n]+)")}

REDACTED: Final = "[redacted]"


class Patterns:
    """Compiled patterns.

    Args:
        patterns: regular expressions in the syntax of Rust's ``regex``; ``(?i)`` at the beginning ignores case.

    Raises:
        ConfigurationError: there is none, or too many; or one is too large, or cannot be read.
    """

    __slots__ = ("_compiled",)

    def __init__(self, patterns: Sequence[str]) -> None:
        if not 1 <= len(patterns) <= MAX_PATTERNS:
            msg = f"give 1 to {MAX_PATTERNS} patterns, not {len(patterns)}"
            raise ConfigurationError(msg)
        self._compiled = tuple(_compile(pattern) for pattern in patterns)

    def match(self, text: str) -> bool:
        """Whether one of them is found in a text, anywhere in it."""
        try:
            text.encode()
        except UnicodeEncodeError:  # half a character; the engine would take the whole text for no text
            text = text.encode("utf-8", "replace").decode()
        return any(pattern.isinstance_python(text) for pattern in self._compiled)


def _compile(pattern: str) -> SchemaValidator:
    if not isinstance(pattern, str):
        msg = f"a pattern is a text, not {type(pattern).__name__}"
        raise ConfigurationError(msg)
    shown = excerpt(repr(pattern), 80)
    if not pattern or len(pattern) > MAX_PATTERN:
        msg = f"a pattern has 1 to {MAX_PATTERN:,} characters; {shown} has {len(pattern):,}"
        raise ConfigurationError(msg)
    try:
        compiled = _validator(pattern)
    except SchemaError as error:
        why = str(error).rstrip().rpartition("\n")[2].removeprefix("error: ").strip()
        msg = (
            f"the pattern {shown} cannot be used: {excerpt(why)} (patterns are searched in linear time, in the syntax "
            "of https://docs.rs/regex)"
        )
        raise ConfigurationError(msg) from None
    try:
        _validator(f"(?:{pattern}\n){{{_SIZE_PROBE}}}")
    except SchemaError:
        msg = (
            f"the pattern {shown} is too large once its repetitions are written out; say fewer, or narrower classes: "
            "[0-9] in place of \\d, [A-Za-z0-9_] in place of \\w"
        )
        raise ConfigurationError(msg) from None
    return compiled


def _validator(pattern: str) -> SchemaValidator:
    return SchemaValidator(core_schema.str_schema(pattern=pattern, regex_engine="rust-regex"))


class Forbid:
    """A check that refuses texts in which a pattern is found; see `forbid`."""

    __slots__ = ("_patterns", "_reason", "name")

    def __init__(self, patterns: Patterns, name: str, reason: str) -> None:
        self.name = name
        self._patterns = patterns
        self._reason = reason

    def __call__(self, event: Event) -> Veto | None:
        """Look at every text of an event."""
        return Veto(reason=self._reason) if any(map(self._patterns.match, texts_of(event, apart=True))) else None

    def __repr__(self) -> str:
        return f"<check {self.name!r}>"


def forbid(*patterns: str, name: str = "forbid", reason: str = "it holds what is not allowed here") -> Forbid:
    """Make a check that refuses what a pattern is found in, for any place: input, output, tool calls, tool results.

    Args:
        *patterns: regular expressions, searched for anywhere in each text; see `Patterns`.
        name: what refusals call it.
        reason: why, for the user or the model. Say nothing of what was found.

    Raises:
        ConfigurationError: a pattern cannot be used.
    """
    return Forbid(Patterns(patterns), name, reason)


class Redact:
    """A check that takes out what a pattern is found in; see `redact`."""

    __slots__ = ("_patterns", "_replacement", "_unit", "name")

    def __init__(self, patterns: Patterns, replacement: str, unit: re.Pattern[str], name: str) -> None:
        self.name = name
        self._patterns = patterns
        self._replacement = replacement
        self._unit = unit

    def __call__(self, event: Event) -> list[Message] | Message | ToolCall | ToolResult | None:
        """Give what the event is about without what matches; None where nothing does."""
        match event:
            case InputCheck():
                messages = [self._message(one) if one.role != "system" else one for one in event.messages]
                return messages if any(map(_is_not, messages, event.messages)) else None
            case OutputCheck():
                message = self._message(event.message)
                return None if message is event.message else message
            case ToolCallCheck():
                arguments = self._arguments(event.call.arguments)
                changed = arguments != event.call.arguments
                return event.call.model_copy(update={"arguments": arguments}) if changed else None
            case ToolResultCheck():
                result: ToolResult = self._part(event.result)
                return None if result is event.result else result
            case _:
                assert_never(event)

    def __repr__(self) -> str:
        return f"<check {self.name!r}>"

    def text(self, text: str) -> str:
        """Give a text with each word or line that matches replaced; one that is JSON stays JSON."""
        return self._across((text,))

    def _across(self, texts: Sequence[str]) -> str:
        """Redact texts that are read as one."""
        if (data := _json(texts)) is not None:
            plain = self._plain(data, strict=True)
            whole = "".join(texts) if plain == data else to_json(plain).decode()
            if not any(map(self._is_found, self._unit.split(whole)[::2])):
                return whole  # else it is found in what is no value, such as a name with what it names
        return self._words(*texts)

    def _words(self, *texts: str) -> str:
        """Take out a word of texts where it matches, or a piece of it that is in one of them."""
        borders = list(accumulate(map(len, texts[:-1])))
        made, place, border = [], 0, 0
        for number, unit in enumerate(self._unit.split("".join(texts))):
            end, cuts = place + len(unit), [0]
            while border < len(borders) and borders[border] < end:
                cuts.append(borders[border] - place)
                border += 1
            pieces = [unit, *[unit[a:b] for a, b in pairwise([*cuts, len(unit)])]] if len(cuts) > 1 else [unit]
            between = number % 2  # what separates words
            made.append(self._replacement if not between and any(map(self._is_found, pieces)) else unit)
            place = end
        return "".join(made)

    def _is_found(self, text: str) -> bool:
        return text != "" and self._patterns.match(text)

    def _message(self, message: Message) -> Message:
        parts = self._parts(message.parts)
        return message if parts is message.parts else message.model_copy(update={"parts": parts})

    def _parts(self, parts: Sequence[Any]) -> Sequence[Any]:
        """Give parts without what matches; the same ones where nothing does."""
        made: list[Any] = list(parts)
        read: dict[object, list[int]] = {}
        for place, part in enumerate(parts):
            if isinstance(part, TextPart | ReasoningPart):
                read.setdefault(read_with(part), []).append(place)
            else:
                made[place] = self._part(part)
        for places in read.values():
            self._read_as_one(made, places)
        kept = [part for part in made if part is not None]
        return parts if len(kept) == len(parts) and not any(map(_is_not, kept, parts)) else tuple(kept)

    def _read_as_one(self, parts: list[Any], places: Sequence[int]) -> None:
        """Redact the parts at these places, which are read as one text; None stands for one that is gone."""
        texts = [parts[place].text for place in places]
        whole = self._across(texts)
        if whole == "".join(texts):
            return
        first = parts[places[0]]
        left: list[str | None] = [self.text(text) for text in texts]
        spans = whole != "".join(map(str, left))
        if type(first) is ReasoningPart:
            # Thoughts that match go as a whole: their provider has signed them, and takes no others.
            left = [None if spans or own != text else text for own, text in zip(left, texts, strict=True)]
        elif spans:
            left = [whole, *[None] * (len(places) - 1)]
        for place, old, new in zip(places, texts, left, strict=True):
            if new is None:
                parts[place] = None
            elif new != old:
                # What its provider says of places in it, such as citations, is no longer true of it.
                parts[place] = TextPart(text=new, refusal=first.refusal)

    def _part(self, part: Any) -> Any:
        """Give a part without what matches; the same one where nothing does."""
        match part:
            case ToolResult():
                parts = self._parts(part.parts)
                return part if parts is part.parts else part.model_copy(update={"parts": parts})
            case FilePart():
                held = told(part)
                text = "" if held is None else self.text(held.text)
                return part if held is None or text == held.text else with_text(part, text)
            case _:
                return part

    def _arguments(self, arguments: str) -> str:
        data = _json((arguments,))
        if data is None:
            return self.text(arguments)
        plain = self._plain(data)
        return arguments if plain == data else to_json(plain).decode()

    def _plain(self, data: Any, *, strict: bool = False) -> Any:
        """Give plain data with its texts redacted; ``strict`` says that numbers and the names of fields are, too."""
        match data:
            case str():
                return self._words(data)
            case dict():
                plain = {key: self._plain(value, strict=strict) for key, value in data.items()}
                return {self._words(key): value for key, value in plain.items()} if strict else plain
            case list():
                return [self._plain(value, strict=strict) for value in data]
            case int() | float() if strict and self._is_found(to_json(data).decode()):
                return self._replacement
            case _:
                return data


def _json(texts: Sequence[str]) -> Any:
    """Give what texts are together, if that is a JSON object or array; else None."""
    first = next((text.lstrip()[:1] for text in texts if not text.isspace() and text), "")
    if first not in {"{", "["}:
        return None
    try:
        return parse_json("".join(texts))
    except ValueError:
        return None


def _is_not(one: object, other: object) -> bool:
    return one is not other


def redact(*patterns: str, replacement: str = REDACTED, within: Within = "word", name: str = "redact") -> Redact:
    """Make a check that replaces each word, or line, in which a pattern is found, for any place.

    Nothing of the word or line is left, so that half a secret never stays behind; a pattern that spans several words
    needs ``within="line"``.

    Args:
        *patterns: regular expressions, searched for in each word or line by itself; see `Patterns`.
        replacement: what stands in its place.
        within: ``"word"``, from white space to white space, or ``"line"``.
        name: what failures call it.

    Raises:
        ConfigurationError: a pattern cannot be used, or ``within`` is something else.
    """
    unit = _UNITS.get(within)
    if unit is None:
        msg = f"redact(within=...) takes {' or '.join(map(repr, get_args(Within)))}, not {excerpt(repr(within), 60)}"
        raise ConfigurationError(msg)
    return Redact(Patterns(patterns), replacement, unit, name)
