"""Faults in how a dialect is written: JSON that is not what its reference says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from plait.testing.anthropic_faults import ANTHROPIC
from plait.testing.chat_faults import CHAT
from plait.testing.dialects import DIALECTS
from plait.testing.fault import Fault
from plait.testing.misprints import ended, inserted, replaced
from plait.testing.ollama_faults import OLLAMA
from plait.testing.responses_faults import RESPONSES
from plait.testing.said import Said

if TYPE_CHECKING:
    from collections.abc import Mapping

    from plait.testing.dialect import Dialect
    from plait.testing.fault import Place
    from plait.testing.misprints import Make
    from plait.testing.reply import Asked, DialectName, Reply

_NAMES: Final = (
    ("L22", "no-end-mark", "the body ends in order, and all is said but that the answer is complete"),
    ("L30", "bad-utf8", "a byte that is no UTF-8"),
    ("L32", "error-midway", "an error inside a 200 stream (at)"),
    ("L32", "failed-midway", "the response has failed, in a 200 stream (at)"),
    ("L33", "error-as-answer", "200, and an error is the whole answer"),
    ("L34", "no-done", "no [DONE] at the end"),
    ("L34", "done-twice", "the last event twice"),
    ("L34", "junk-after-done", "the last event, and then junk"),
    ("L35", "event-no-json", "an event that is no JSON (at)"),
    ("L35", "event-null", "an event that is null (at)"),
    ("L35", "event-number", "an event that is a number (at)"),
    ("L35", "event-array", "an event that is an array (at)"),
    ("L35", "event-unknown", "an event of an unknown type (at)"),
    ("L36", "choices-empty", "choices is empty"),
    ("L36", "choices-null", "choices is null"),
    ("L36", "choices-of-null", "choices holds null"),
    ("L36", "choices-absent", "there are no choices"),
    ("L36", "azure-first-chunk", "Azure's first chunk, which has no choice"),
    ("L36", "answer-null", "null where the answer should be"),
    ("L36", "answer-of-null", "where the answer should be is a list of null"),
    ("L36", "answer-absent", "there is no place for an answer"),
    ("L40", "null-reason", "the finish reason is null, and the end mark comes"),
    ("L40", "extra-keys", "keys nobody knows"),
    ("L43", "missing-ids", "tool calls without ids"),
    ("L45", "mixed-pieces", "the pieces of two calls in turn"),
    ("L45", "falling-numbers", "calls numbered downwards, with gaps"),
    ("L45", "no-numbers", "pieces of calls without numbers"),
    ("L46", "arguments-as-object", "arguments as a JSON object where a text, or pieces of one, should be"),
    ("L46", "arguments-as-text", "arguments as a text where a JSON object should be"),
    ("L50", "absurd-usage", "tokens that make no sense"),
)


def _of_all(dialect: Dialect) -> dict[str, Make]:
    """What every dialect can get wrong."""
    return {
        "no-end-mark": ended(dialect, lambda ending: []),
        "bad-utf8": replaced(dialect, b"@", b"\xff", Said(text="so far @ and on")),
        "error-midway": inserted(dialect, dialect.failure("overloaded_error", "the model is overloaded")),
        "done-twice": ended(dialect, lambda ending: [*ending, ending[-1]]),
        "junk-after-done": ended(dialect, lambda ending: [*ending, b"junk", b'{"choices": 7}']),
        "event-no-json": inserted(dialect, b"{not json"),
        "event-null": inserted(dialect, b"null"),
        "event-number": inserted(dialect, b"42"),
        "event-array": inserted(dialect, b'[{"choices": []}, 1e999]'),
        "event-unknown": inserted(dialect, b'{"type": "news", "data": {}}'),
    }


_OF_ONE: Final[Mapping[DialectName, Mapping[str, Make]]] = {
    "chat": CHAT,
    "anthropic": ANTHROPIC,
    "ollama": OLLAMA,
    "responses": RESPONSES,
}


_MAKES: Final = {name: {**_of_all(dialect), **_OF_ONE[name]} for name, dialect in DIALECTS.items()}


def _fault(row: str, name: str, sentence: str) -> Fault:
    """Gather what each dialect does for a name."""
    makes = {dialect: those[name] for dialect, those in _MAKES.items() if name in those}

    def make(place: Place, asked: Asked) -> Reply:
        return makes[asked.dialect](place, asked)

    return Fault(row=row, name=name, sentence=sentence, make=make, dialects=tuple(makes))


DIALECT_FAULTS: Final = tuple(_fault(*named) for named in _NAMES)
