"""Faults in what is said: an answer that is sound on the wire and odd in itself, the same for every dialect."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from plait.testing.fault import Fault, Place
from plait.testing.reply import Reply, Wire
from plait.testing.said import BY_ITSELF, Call, Said

if TYPE_CHECKING:
    from plait.testing.reply import Asked

BALLOONS: Final = "ä\U0001f388 \u4e2d\u6587 \U0001f469\u200d\U0001f680"
MANY: Final = 128
_MEGABYTE: Final = 2**20


def _says(row: str, name: str, sentence: str, **said: Any) -> Fault:
    reply = Reply(said=Said(**said))
    return Fault(row=row, name=name, sentence=sentence, make=lambda place, asked: reply)


def _declines(name: str, sentence: str, **said: Any) -> Fault:
    """A fault of row L39; what Ollama serves has no other word for it than its text."""
    return replace(_says("L39", name, sentence, **said), dialects=("chat", "anthropic", "responses"))


def _calls(
    row: str, name: str, sentence: str, *calls: Call, text: str | None = None, reason: str | None = BY_ITSELF
) -> Fault:
    return _says(row, name, sentence, calls=calls, text=text, finish_reason=reason)


def _in_pieces(place: Place, asked: Asked) -> Reply:
    return place.reply(Said(text=BALLOONS)).over(Wire(piece=place.number(1)))


def _large(place: Place, asked: Asked) -> Reply:
    size = place.number(10 * _MEGABYTE)
    return Reply(said=Said(text="x" * size, piece=max(1, size)))


def _tiny(place: Place, asked: Asked) -> Reply:
    return Reply(said=Said(text="y" * place.number(20_000), piece=1))


ANSWER_FAULTS: Final = (
    Fault(row="L29", name="split-characters", sentence="characters of several bytes, cut apart", make=_in_pieces),
    _says("L31", "odd-characters", "a lone surrogate and a NUL in the text", text="a\ud83d\0b"),
    _says("L37", "null-content", "a complete answer whose text is null"),
    _says("L37", "empty-content", "a complete answer with the empty text", text=""),
    _says("L38", "cut-by-limit", "the text is cut by the token limit", text="as far as it", finish_reason="length"),
    _declines("filtered", "the content filter ended it", text="so far", finish_reason="content_filter"),
    _declines("refusal", "the model declines", refusal="I would rather not."),
    _says("L40", "odd-reason", "a finish reason nobody knows", text="an answer", finish_reason="eos_token"),
    _calls("L41", "arguments-no-json", "arguments that are no JSON", Call(arguments="city=Lisbon")),
    _calls("L41", "arguments-cut", "arguments that break off", Call(arguments='{"city": "Lis')),
    _calls("L41", "arguments-empty", "the empty text as arguments", Call(arguments="")),
    _calls("L41", "arguments-array", "an array as arguments", Call(arguments='["Lisbon"]')),
    _calls("L41", "arguments-null", "null as arguments", Call(arguments="null")),
    _calls("L41", "arguments-of-wrong-types", "arguments of other types", Call(arguments='{"city": {"a": [1e999]}}')),
    _calls(
        "L41",
        "arguments-unknown",
        "an argument the tool does not have",
        Call(arguments='{"city": "Lisbon", "extra": 1}'),
    ),
    _calls("L42", "unknown-tool", "a call of a tool that does not exist", Call(name="no_such_tool")),
    _calls(
        "L43", "same-ids", "three calls with the same id", *[Call(id="call_1", arguments={"city": c}) for c in "ABC"]
    ),
    _calls("L43", "empty-ids", "three calls with empty ids", *[Call(id="", arguments={"city": c}) for c in "ABC"]),
    _calls("L44", "many-calls", f"{MANY} calls at once", *[Call(arguments={"city": str(n)}) for n in range(MANY)]),
    _calls(
        "L47",
        "call-with-stop",
        "a tool call whose finish reason is 'stop'",
        Call(arguments={"city": "A"}),
        reason="stop",
    ),
    _calls("L47", "space-before-call", "white space before a tool call", Call(arguments={"city": "A"}), text=" \n"),
    _calls(
        "L48", "call-cut-by-limit", "arguments cut by the token limit", Call(arguments='{"city": "Lis'), reason="length"
    ),
    _calls("L49", "endless-calls", "the same tool call in answer to everything", Call(arguments={"city": "A"})),
    _says("L50", "no-usage", "no word of the tokens", text="an answer", usage=None),
    Fault(row="L51", name="large-answer", sentence="an answer of 10 MB, in one event (at: bytes)", make=_large),
    Fault(row="L51", name="tiny-events", sentence="20,000 events of one character (at: how many)", make=_tiny),
    _calls("L52", "large-arguments", "arguments of 1 MB", Call(arguments={"city": "x" * _MEGABYTE})),
)
