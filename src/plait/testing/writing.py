"""From a reply to the steps that a connection takes: bytes, pauses and ends. Pure; it does no I/O."""

from __future__ import annotations

import gzip
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from plait.testing.reply import Flood

if TYPE_CHECKING:
    from collections.abc import Iterable

    from plait.testing.dialect import Dialect
    from plait.testing.reply import Asked, Reply, Step, Wire

_FIRST_ERROR: Final = 300
_ENDLESS: Final = 10**12


def steps_of(reply: Reply, dialect: Dialect, asked: Asked) -> list[Step]:
    """Give the steps that carry out a reply; those after which the connection is kept have no end among them."""
    if reply.raw is not None:
        return list(reply.raw)
    wire = reply.wire
    cut = wire.cut
    streamed = _is_streamed(reply, asked)
    pieces = _pieces(reply, dialect, asked, streamed=streamed)
    whole_size = sum(map(len, pieces))
    broken = cut is not None and cut.head is None
    if broken:
        pieces = _cut(pieces, wire, streamed=streamed)
    if wire.gzip == "true":
        pieces = [gzip.compress(b"".join(pieces), mtime=0)]
        whole_size = len(pieces[0])
    ends_clean = cut is None or cut.then == "end"
    declared = (sum(map(len, pieces)) if ends_clean else whole_size) + wire.longer
    framing = wire.framing or ("chunked" if streamed else "length")
    kind = dialect.stream_type if streamed else "application/json"
    head = _head(reply, framing, _ENDLESS if wire.flood else declared, kind)
    steps: list[Step] = [wire.delay] if wire.delay else []
    if cut is not None and cut.head is not None:
        return [*steps, head[: cut.head], "fin" if cut.then == "end" else cut.then]
    chunked = framing == "chunked"
    steps.append(head)
    for number, piece in enumerate(_split(pieces, wire.piece)):
        if wire.pause and number:
            steps.append(wire.pause)
        size = b"ZZ" if wire.bad_chunk == number else b"%x" % len(piece)
        steps.append(b"%b\r\n%b\r\n" % (size, piece) if chunked else piece)
    if wire.flood:
        return [*steps, Flood(b"%x\r\n%b\r\n" % (len(wire.flood), wire.flood) if chunked else wire.flood)]
    if cut is not None and cut.then != "end":
        return [*_joined(steps), cut.then]
    if chunked:
        steps.append(b"0\r\n\r\n")
    if wire.then != "keep":
        steps.append(wire.then)
    elif framing == "close" or wire.longer:
        steps.append("fin")
    return _joined(steps)


def _is_streamed(reply: Reply, asked: Asked) -> bool:
    if reply.status >= _FIRST_ERROR or (reply.body is not None and reply.events is None):
        return False
    return asked.stream if reply.streamed is None else reply.streamed


def _pieces(reply: Reply, dialect: Dialect, asked: Asked, *, streamed: bool) -> list[bytes]:
    if streamed:
        events = dialect.events(reply.said, asked) if reply.events is None else list(reply.events)
        return dialect.frame(events, reply.style)
    if reply.body is not None:
        return [reply.body]
    if reply.status >= _FIRST_ERROR:
        return [dialect.error(reply.status, f"the fault server answers {reply.status}, as its script says")]
    return [dialect.whole(reply.said, asked)]


def _cut(pieces: list[bytes], wire: Wire, *, streamed: bool) -> list[bytes]:
    cut = wire.cut
    if cut is None:
        return pieces
    if cut.event is not None and streamed:
        return [*pieces[: cut.event], *(piece[: cut.byte or 0] for piece in pieces[cut.event : cut.event + 1])]
    left = cut.byte if cut.byte is not None and cut.event is None else sum(map(len, pieces)) // 2
    made = []
    for piece in pieces:
        made.append(piece[:left])
        left = max(0, left - len(piece))
    return [piece for piece in made if piece]


def _split(pieces: Iterable[bytes], size: int | None) -> list[bytes]:
    if size is None:
        return [piece for piece in pieces if piece]
    body = b"".join(pieces)
    return [body[at : at + size] for at in range(0, len(body), size)]


def _head(reply: Reply, framing: str, length: int, kind: str) -> bytes:
    usual = {"content-type": kind}
    if framing == "chunked":
        usual["transfer-encoding"] = "chunked"
    elif framing == "length":
        usual["content-length"] = str(length)
    if reply.wire.gzip is not None:
        usual["content-encoding"] = "gzip"
    given = {name.lower() for name, _ in reply.headers}
    fields = [*((name, value) for name, value in usual.items() if name not in given), *reply.headers]
    try:
        phrase = HTTPStatus(reply.status).phrase
    except ValueError:
        phrase = "Unnamed"
    lines = [f"HTTP/1.1 {reply.status} {phrase}", *(f"{name}: {value}" for name, value in fields)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8")


def _joined(steps: list[Step]) -> list[Step]:
    """Nothing is gained by sending the empty piece that a cut may leave."""
    return [step for step in steps if step != b""]
