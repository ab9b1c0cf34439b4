"""Faults of the connection and of HTTP, the same for every dialect."""

from __future__ import annotations

from email.utils import formatdate
from typing import TYPE_CHECKING, Final, Literal

from plait.testing.dialects import DIALECTS
from plait.testing.fault import Fault, Place, Setting, healthy
from plait.testing.reply import Cut, Reply, Style, Wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from plait.testing.reply import Asked, DialectName, Step
    from plait.testing.said import Said

_HTML: Final = b"<!doctype html>\n<html><head><title>502</title></head><body><h1>Bad gateway</h1></body></html>\n"
_AN_HOUR: Final = 3600
_EARLIER: Final = 1_700_000_000  # a server's clock may be years off


def _refused(row: str, name: str, status: int, sentence: str, *headers: tuple[str, str]) -> Fault:
    return Fault(row=row, name=name, sentence=sentence, make=lambda place, asked: Reply(status=status, headers=headers))


def _raw(row: str, name: str, sentence: str, *steps: Step) -> Fault:
    return Fault(row=row, name=name, sentence=sentence, make=lambda place, asked: Reply(raw=steps))


def _setting(row: str, name: str, setting: Setting, sentence: str) -> Fault:
    return Fault(row=row, name=name, sentence=sentence, make=healthy, setting=setting)


def _body(row: str, name: str, sentence: str, body: bytes, *, status: int = 200, kind: str = "text/html") -> Fault:
    reply = Reply(status=status, body=body, headers=(("content-type", kind),))
    return Fault(row=row, name=name, sentence=sentence, make=lambda place, asked: reply)


def _over(row: str, name: str, sentence: str, wire: Callable[[Place], Wire]) -> Fault:
    return Fault(row=row, name=name, sentence=sentence, make=lambda place, asked: place.reply().over(wire(place)))


def _cut(row: str, name: str, sentence: str, then: Literal["fin", "rst", "hold", "end"], at: int = 3) -> Fault:
    return _over(row, name, sentence, lambda place: Wire(cut=place.cut(at, then)))


def _styled(row: str, name: str, sentence: str, style: Style, *dialects: DialectName) -> Fault:
    def make(place: Place, asked: Asked) -> Reply:
        said: Said = place.reply().said
        return Reply(said=said, style=style, streamed=asked.stream)

    return Fault(row=row, name=name, sentence=sentence, make=make, dialects=dialects or tuple(DIALECTS))


def _wait(place: Place, asked: Asked) -> Reply:
    return Reply(status=429, headers=(("Retry-After", str(place.number(1))),))


def _date(place: Place, asked: Asked) -> Reply:
    dates = (("Date", _EARLIER), ("Retry-After", _EARLIER + place.number(1)))
    return Reply(status=429, headers=tuple((name, formatdate(at, usegmt=True)) for name, at in dates))


def _milliseconds(place: Place, asked: Asked) -> Reply:
    return Reply(status=429, headers=(("retry-after-ms", str(place.number(50))), ("Retry-After", str(_AN_HOUR))))


def _redirect(place: Place, asked: Asked) -> Reply:
    return Reply(status=307, headers=(("Location", place.to or asked.url),), body=b"")


def _elsewhere(place: Place, asked: Asked) -> Reply:
    return Reply(status=302, headers=(("Location", place.to or "http://127.0.0.1:9/v1/elsewhere"),), body=b"")


def _endless(place: Place, asked: Asked) -> Reply:
    kind = DIALECTS[asked.dialect].stream_type if asked.stream else "application/json"
    flood = Wire(framing="chunked", flood=b"x" * 65_536)
    return Reply(body=b"data: ", headers=(("content-type", kind),), wire=flood)


STATUS_FAULTS: Final = (
    Fault(row="L01", name="wait-seconds", sentence="429, asks to wait some seconds (at)", make=_wait),
    Fault(
        row="L02", name="wait-date", sentence="429, asks to wait till a date by its own clock (at: seconds)", make=_date
    ),
    Fault(row="L03", name="wait-ms", sentence="429, milliseconds to wait (at) beside an hour", make=_milliseconds),
    _refused("L04", "wait-junk", 429, "429, asks to wait 'soon'", ("Retry-After", "soon")),
    _refused("L04", "wait-for-years", 429, "429, asks to wait thirty years", ("Retry-After", "1e9")),
    _refused("L05", "rate-limited", 429, "429, says nothing of how long"),
    _refused("L06", "server-error", 500, "500"),
    _refused("L06", "bad-gateway", 502, "502"),
    _refused("L06", "unavailable", 503, "503"),
    _refused("L06", "gateway-timeout", 504, "504"),
    _refused("L06", "overloaded", 529, "529"),
    _refused("L06", "request-timeout", 408, "408"),
    _refused("L06", "conflict", 409, "409"),
    _refused("L07", "bad-request", 400, "400"),
    _refused("L07", "unauthorized", 401, "401"),
    _refused("L07", "forbidden", 403, "403"),
    _refused("L07", "not-found", 404, "404"),
    _refused("L07", "too-large", 413, "413"),
    _refused("L07", "unprocessable", 422, "422"),
    _refused("L08", "retry-forbidden", 503, "503 that says not to try again", ("x-should-retry", "false")),
    _refused("L08", "retry-wanted", 400, "400 that says to try again", ("x-should-retry", "true")),
    _body("L09", "error-page", "502 with an HTML page", _HTML, status=502),
    _body("L09", "error-empty", "500 with nothing", b"", status=500),
    _body(
        "L09", "error-cut", "503 with half an error object", b'{"error": {"mess', status=503, kind="application/json"
    ),
)

CONNECTION_FAULTS: Final = (
    _setting("L10", "refused", "refused", "nobody listens"),
    _setting("L11", "no-such-host", "no such host", "the host's name cannot be resolved"),
    _setting("L12", "not-tls", "not tls", "https is asked for, and plain HTTP spoken"),
    _setting("L12", "certificate-expired", "expired", "the certificate's time is over"),
    _setting("L12", "certificate-of-another", "wrong-name", "the certificate is another host's"),
    _raw("L13", "closed-at-once", "the connection is closed before any byte", "fin"),
    _raw("L13", "reset-at-once", "the connection is reset before any byte", "rst"),
    _over(
        "L13",
        "cut-head",
        "the status line or headers break off (at: bytes)",
        lambda place: Wire(cut=Cut(head=place.number(30))),
    ),
    _raw("L14", "not-http", "another protocol answers", b"SSH-2.0-OpenSSH_9.6\r\n\r\n", "fin"),
    _raw("L14", "bad-status", "the status is no number", b"HTTP/1.1 abc OK\r\n\r\n", "fin"),
    _over(
        "L14",
        "bad-chunk-size",
        "a chunk's size is no number (at: which chunk)",
        lambda place: Wire(framing="chunked", bad_chunk=place.number(0), then="fin"),
    ),
    _raw("L15", "no-answer", "nothing comes, and the connection stays open", "hold"),
    _over("L16", "closed-after", "the connection is closed after a whole answer", lambda place: Wire(then="fin")),
    Fault(row="L17", name="redirect-loop", sentence="a redirect to itself", make=_redirect),
    Fault(row="L17", name="redirect-elsewhere", sentence="a redirect to another host (to)", make=_elsewhere),
    _over("L18", "not-gzip", "the body is said to be gzip and is not", lambda place: Wire(gzip="false")),
    _over(
        "L18",
        "too-short",
        "the body is shorter than declared",
        lambda place: Wire(framing="length", longer=place.number(100)),
    ),
)

BODY_FAULTS: Final = (
    _body("L19", "html-page", "200 with an HTML page", _HTML),
    _body("L19", "empty", "200 with nothing", b"", kind="application/json"),
    _body(
        "L19", "cut-json", "200 with half a JSON object", b'{"id": "c1", "choices": [{"mess', kind="application/json"
    ),
    _cut("L20", "closed-midway", "the connection is closed after some events (at) or bytes (byte)", "fin"),
    _cut("L21", "reset-midway", "the connection is reset after some events (at) or bytes (byte)", "rst"),
    _cut(
        "L22",
        "ended-midway",
        "the body ends in order, without the end mark, after some events (at) or bytes (byte)",
        "end",
    ),
    _over(
        "L23",
        "half-event",
        "the body ends in order, in the middle of an event (at: which, byte: of it)",
        lambda place: Wire(cut=Cut(event=place.number(3), byte=40 if place.byte is None else place.byte, then="end")),
    ),
    _cut("L24", "silent-midway", "silence after some events (at) or bytes (byte)", "hold"),
    _over("L25", "slow-drip", "a byte every 20 milliseconds", lambda place: Wire(piece=1, pause=0.02)),
    _over(
        "L26",
        "one-byte-pieces",
        "each byte by itself (at: bytes in a piece)",
        lambda place: Wire(piece=place.number(1)),
    ),
    _styled("L27", "newlines-crlf", "lines end with CR LF", Style(newline="\r\n")),
    _styled("L27", "newlines-cr", "lines end with CR", Style(newline="\r"), "chat", "anthropic", "responses"),
    _styled(
        "L27",
        "newlines-mixed",
        "lines end in every way, after a byte order mark",
        Style(newline="mixed", bom=True),
    ),
    _styled("L28", "comments", "comments, ids, unknown fields or blank lines between the events", Style(comments=True)),
    _styled(
        "L28",
        "two-line-data",
        "no space after 'data:', data in two lines, no blank line at the end",
        Style(space=False, lines=True, last_blank=False),
    ),
    Fault(
        row="L51",
        name="endless-line",
        sentence="a line that never ends",
        make=_endless,
    ),
)
