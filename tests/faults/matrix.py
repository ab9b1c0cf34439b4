"""The fault matrix: what can go wrong, and what must happen then.

One row for each fault; ``@pytest.mark.fault("L01")`` on a test says that it proves the row, and its parameter ``way``
or ``dialect`` for which dialect. ``make faults`` shows which rows hold. Common to all rows: a typed error or the right
result, within its time; no task, socket, thread or file left; a log that can be sent again; no secret in any output.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from plait.testing.reply import DialectName


class Row(NamedTuple):
    """One fault and what must happen."""

    id: str
    fault: str
    must: str

    @property
    def is_spoken(self) -> bool:
        """Whether it is about a model's API, and so to be proved for every dialect, whole and streamed."""
        return self.id.startswith("L")


AREAS: Final = {
    "L": "the model's API",
    "T": "tools",
    "C": "cancellation",
    "P": "persistence",
    "S": "security",
    "M": "MCP servers",
}

ROWS: Final = tuple(
    Row(*row)
    for row in (
        ("L01", "429 with Retry-After in seconds", "waits at least that long, then answers"),
        ("L02", "429 with Retry-After as a date", "waits until that date, by the server's own clock"),
        ("L03", "429 with retry-after-ms", "milliseconds win over seconds"),
        ("L04", "Retry-After past, junk, NaN, negative, huge", "own back-off; above the cap RateLimited at once"),
        ("L05", "429 for ever", "RateLimited after the last try, with retry_after"),
        ("L06", "408, 409, 500, 502, 503, 504, 529", "tried again; for ever: ProviderError with the status"),
        ("L07", "400, 401, 403, 404, 413, 422", "never tried again; the provider's words kept, the key not"),
        ("L08", "x-should-retry: true or false", "the header wins over the status"),
        ("L09", "an error whose body is HTML or empty", "judged by its status; no parse error"),
        ("L10", "connection refused", "tried again, then TransportError"),
        ("L11", "the name is not found", "TransportError; no thread left"),
        ("L12", "TLS: none, wrong name, expired", "TransportError; a bad certificate is final, never passed over"),
        ("L13", "reset or end before any byte; cut headers", "tried again, then TransportError"),
        ("L14", "not HTTP; a bad chunk size", "ProtocolViolation"),
        ("L15", "no answer at all", "TransportError by time-out; one deadline bounds all tries"),
        ("L16", "a kept connection has gone stale", "a new connection, unseen; the request counts once"),
        ("L17", "redirects in a circle or to another host", "an error; the key goes nowhere else"),
        ("L18", "gzip that is none; a body shorter than said", "ProtocolViolation or TransportError"),
        ("L19", "200 with HTML, nothing, or cut JSON", "ProtocolViolation, at most 200 characters of it"),
        ("L20", "the connection ends mid-stream", "StreamTruncated with the partial text"),
        ("L21", "the connection is reset mid-stream", "the same; tried again only if nothing was handed out"),
        ("L22", "a clean end without an end mark", "StreamTruncated, never a success"),
        ("L23", "half an event, then a clean end", "StreamTruncated; the half event is never read"),
        ("L24", "silence mid-stream", "StreamTruncated after the idle limit"),
        ("L25", "a slow drip, each byte in time", "the total deadline ends it"),
        ("L26", "a stream cut anywhere; one byte at a time", "the same result"),
        ("L27", "CRLF, CR, mixed line ends, a BOM", "the same result"),
        ("L28", "comments, ids, odd spacing, empty data", "the same result"),
        ("L29", "UTF-8 split across pieces", "the same result"),
        ("L30", "bytes that are no UTF-8", "the same choice everywhere, never a crash"),
        ("L31", "half surrogates and NUL in text", "kept, through store, log and JSON"),
        ("L32", "an error inside a 200 stream", "ProviderError with its code; the partial text kept"),
        ("L33", "an error as a whole 200 answer", "ProviderError; tried again by its code"),
        ("L34", "no [DONE], two of them, junk behind", "the same result"),
        ("L35", "an event that is no JSON or no object; new types", "ProtocolViolation; what is new is passed over"),
        ("L36", "no choices; a first event without any", "ProtocolViolation; a mere opening is passed over"),
        ("L37", "content null or empty, no calls", "EmptyAnswer, never an empty success"),
        ("L38", "the answer reached its token limit", "truncated=True; structured output raises"),
        ("L39", "a refusal or a content filter", "Refused with its text; never tried again"),
        ("L40", "finish reasons new or null; extra keys", "passed on; null at the end is no end mark"),
        ("L41", "arguments not JSON, cut, empty, of wrong types", "an error result, asked again within bounds"),
        ("L42", "a tool that does not exist", "an error result that names the tools; the run goes on"),
        ("L43", "call ids twice, missing or empty", "made unique; each call runs once and has its result"),
        ("L44", "128 calls in one answer", "all run, bounded at once, results in the order of the calls"),
        ("L45", "deltas of several calls mixed; index absent", "the right name with the right arguments"),
        ("L46", "arguments as an object; type missing", "accepted"),
        ("L47", "calls with finish stop; text before them", "the calls run and the loop goes on, streamed too"),
        ("L48", "arguments cut by the token limit", "not carried out; the model is told why"),
        ("L49", "a model that never stops calling", "ends with max_turns; repetition is said to the model"),
        ("L50", "usage missing or absurd", "None, not 0"),
        ("L51", "10 MB answers and events; a line without end", "linear time, bounded memory, a cap: LimitExceeded"),
        ("L52", "1 MB of arguments", "taken, or an error result at the cap"),
        ("L53", "an answer that does not fit its form", "asked again within bounds, then OutputInvalid"),
        ("L54", "the first of a chain fails at each stage", "the next is asked before the first token, never after it"),
        ("T01", "a tool raises anything", "an error result: type and message, no traceback, no secret"),
        ("T02", "an async tool hangs", "ended at its time, whatever it does about it"),
        ("T03", "sync tools hang in their threads", "the run goes on; threads are bounded and reported"),
        ("T04", "a tool blocks the event loop", "sync ones cannot; debug=True names the one that does"),
        ("T05", "results that are no JSON", "a stated form or a clear error, never a guess"),
        ("T06", "a result of 50 MB", "cut, and the text says so; the loop never stalls"),
        ("T07", "a tool changes its arguments or the history", "everybody else sees the original"),
        ("T08", "a tool cancels itself", "an error result; the run is not cancelled"),
        ("T09", "a tool raises SystemExit or the like", "what happened is saved, then it is raised"),
        ("T10", "a tool starts a task and returns", "the run owns it: ended with the run, or reported"),
        ("T11", "one of ten tools at once fails", "the other nine keep their results"),
        ("T12", "a generator tool is left half read", "it is closed"),
        ("T13", "a hook raises or hangs", "given up, logged once; the run is not touched"),
        ("C01", "cancelled at every await point", "one CancelledError; resume gives the same answer"),
        ("C02", "cancelled twice", "cleaning up is shielded, and bounded"),
        ("C03", "asyncio.timeout around a run", "TimeoutError outside; else as when cancelled"),
        ("C04", "an interrupt from the keyboard", "ends within a second, saved, without a storm of tracebacks"),
        (
            "C05",
            "a stop: in an answer, a tool, a back-off",
            "ends with user_stop, text and its tokens kept, socket closed",
        ),
        ("C08", "an iterator is dropped half read", "its run ends; a block closes it at once"),
        ("C09", "a promise awaited by none, by ten, after failure", "each reader gets the error; no noise, no hang"),
        ("C11", "a new event loop; a fork", "everything works in the new one"),
        ("P01", "killed at every write", "the same answer, each message once, no doubtful call repeated"),
        ("P06", "the database is locked by another", "waits, then StoreUnavailable (busy); no write is lost"),
        ("P08", "eight processes open a new file at once", "all succeed"),
        ("P14", "an old schema; a newer one", "one transaction, however often killed; or refused"),
        ("S01", "an MCP server repeats its secrets", "in no error and no log; the other words stay"),
        ("S02", "a redirect asks for the key", "the key is never sent there"),
        ("S03", "an image's address leads to the inside", "blocked once resolved, and at each redirect"),
        ("S07", "a page elsewhere asks, or a name that leads here", "Host, Origin, token checked before all else"),
        ("S10", "a tool's text, a file or a server gives orders", "marked; what is of high risk then needs a person"),
        ("S11", "a tool's text poses as a fact about the user", "only what people said is taken for theirs"),
        ("S12", "a store holds hostile records", "data stays data: nothing is imported, built or run"),
        ("S13", "JSON bombs", "a bounded error, or bounded work"),
        ("S14", "a pattern and a text that blow each other up", "searched in linear time; large patterns refused"),
        ("S16", "eval, exec, shell, pickle", "not in the source; calculations are bounded"),
        ("S17", "use without bounds", "caps on turns, calls, depth and fan-out, on by default"),
        ("S19", "the model sends user_id, thread_id, context", "what the run fills in wins; not in any schema"),
        ("S20", "a token given to one server, for another", "it is compared, and goes no further"),
        (
            "M01",
            "a server dies before, during or after a call",
            "calls fail in 1 s; opened anew; repeated only if idempotent",
        ),
        ("M02", "no answer; an answer to nothing; two answers", "ends at its time; ignored with a warning"),
        ("M03", "junk, logs or 10 MB on its standard output", "skipped with a warning; capped"),
        ("M04", "it changes its tools after they were approved", "a changed tool waits for a new approval"),
        ("M05", "one name for two tools, or two servers", "names of their own; none stands before another"),
        ("M06", "a description with orders or hidden signs", "data: hidden signs removed, capped, shown as it is"),
        ("M07", "results too large, binary, of unknown types", "capped; a placeholder with the type"),
        ("M08", "404 after the server was started again", "a new session, once, then the call"),
        ("M09", "closed by another task; two at once", "one task owns each session; nothing left"),
        ("M10", "streams that keep ending", "opened again a few times, not for ever"),
        ("M11", "schemas that are invalid, recursive, 1 MB", "the tool refused with the reason, the others kept"),
        ("M12", "the server's own child processes", "its process group is killed, whenever Python ends the program"),
        ("M13", "it asks for the model or for a person", "denied unless somebody was named to answer"),
    )
)

STREAMS_ONLY: Final[frozenset[str]] = frozenset(("L23", "L27", "L28", "L34"))
"""Rows of what only a stream has: events, their lines, and what comes behind the end mark."""

NOT_IN: Final[Mapping[tuple[str, DialectName], str]] = MappingProxyType(
    {("L39", "ollama"): "what it serves has no other word for a refusal than its text"}
)
"""Rows that have no test in a dialect, and why."""
