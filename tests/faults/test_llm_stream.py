"""Bodies that are no answer, streams that break off, and every way to cut and write a stream that means the same."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from faults.spoken import ERRORS, KEY, SPOKEN, Answered, at_once, end_of, events, framed, whole, with_event
from faults.trials import QUICK, trial
from faults.ways import CHAT, EVERY, Way, by_agents, by_clients, streamed
from plait import ModelError, ProtocolViolation, ProviderError, RetryPolicy, StreamTruncated, TransportError
from plait.providers.http import TransportLimits
from plait.testing import Call, Cut, Reply, Said, Style, Wire, answer, fault

if TYPE_CHECKING:
    from plait.testing.reply import DialectName

ONCE = RetryPolicy(max_retries=0)
FEW = TransportLimits(silence=0.25, total=0.6)
TEXT = "ä\U0001f388 is \u4e2d\u6587"
SAID = Said(text=TEXT, piece=3)
HTML = b"<!doctype html>\n<html><body>Log in, please \x1b[31m " + b"x" * 5000


# --- 200, and no answer ----------------------------------------------------------------------------------------------

NO_ANSWER: dict[str, tuple[bytes, str]] = {
    "HTML": (HTML, "text/html"),
    "HTML that says it is JSON": (HTML, "application/json"),
    "HTML that says it is a stream": (HTML, "text/event-stream"),
    "HTML with a BOM": (b"\xef\xbb\xbf\r\n " + HTML, "text/html; charset=utf-8"),
    "nothing": (b"", "application/json"),
    "nothing of a stream": (b"", "text/event-stream"),
    "nothing of nothing": (b"", ""),
    "white space": (b" \r\n\r\n\t", "application/json"),
    "cut JSON": (b'{"id": "c1", "choices": [{"message": {"content": "so', "application/json"),
    "an array": (b"[]", "application/json"),
    "null": (b"null", "application/json"),
    "a number": (b"1e999", "application/json"),
    "a text": (b'"hello"', "application/json"),
    "two objects": (b'{"choices": []}{"choices": []}', "application/json"),
    "deep JSON": (b'{"choices": ' + b"[" * 100_000, "application/json"),
    "the key": (f'["{KEY}"]'.encode(), "application/json"),
    "the key on a page": (f"<html>{KEY}".encode(), "text/html"),
    "UTF-16": ('{"choices": 7}'.encode("utf-16"), "application/json"),
    "an image": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "image/png"),
}


@pytest.mark.fault("L19")
@pytest.mark.parametrize("way", EVERY)
@pytest.mark.parametrize("what", NO_ANSWER)
async def test_a_success_that_is_no_answer(what: str, way: Way) -> None:
    body, kind = NO_ANSWER[what]
    async with trial(Reply(body=body, headers=(("content-type", kind),)), way=way) as made:
        error = (await made.ask()).error
        assert (type(error), error.retryable, made.sent) == (ProtocolViolation, False, 1)
        assert len(error.excerpt) <= 201
        assert error.excerpt.isprintable()
        if "HTML" in what:
            assert "check base_url" in str(error) or "sent no event in its stream" in str(error)


@pytest.mark.fault("L19")
@pytest.mark.parametrize("way", EVERY)
@pytest.mark.parametrize("kind", ["application/json", "text/plain", "", "APPLICATION/JSON; charset=UTF-8"])
@pytest.mark.parametrize("before", [b"", b"\xef\xbb\xbf", b" \n"])
async def test_a_sound_answer_under_another_name(kind: str, before: bytes, way: Way) -> None:
    """A server that does not stream sends JSON; only what says so can be told from events, and is one line of them."""
    body = before + whole(way.dialect, SAID)
    async with trial(Reply(body=body, headers=(("content-type", kind),)), way=way) as made:
        outcome = await made.ask()
        if way.is_streamed and "json" not in kind.lower() and way.dialect != "ollama":
            assert type(outcome.error) is ProtocolViolation
        else:
            assert (outcome.text, outcome.error) == (TEXT, None)


# --- streams that end too early --------------------------------------------------------------------------------------


@pytest.mark.fault("L20", "L21", "L22", "L24")
@pytest.mark.parametrize("way", EVERY)
@pytest.mark.parametrize("then", ["fin", "rst", "end", "hold"])
@pytest.mark.parametrize("pieces", [None, 0, 2])
async def test_the_answer_ends_too_early(pieces: int | None, then: str, way: Way) -> None:
    """Without an event, before the text or in it. Tried again as long as nothing was handed out; never a success."""
    at = 0 if pieces is None else SPOKEN[way.dialect].opening + pieces
    broken = Reply(said=SAID, wire=Wire(cut=Cut(event=at, then=then)))  # type: ignore[arg-type]
    async with trial(broken, answer("yes"), way=way, limits=FEW) as made:
        outcome = await made.ask()
        partial = TEXT[: 3 * (pieces or 0)]
        if not way.is_streamed and then == "end":  # half a JSON object, sent in full
            assert type(outcome.error) is ProtocolViolation
        elif way.is_streamed and partial:
            error = outcome.error
            assert (type(error), error.partial, outcome.text) == (StreamTruncated, partial, partial)
            assert (error.timeout, made.sent) == (then == "hold", 1)
        elif way.is_streamed and at == 0 and then == "end":
            assert type(outcome.error) is ProtocolViolation  # no event at all
        else:
            assert (outcome.text, outcome.error, made.sent) == ("yes", None, 2)


@pytest.mark.fault("L20", "L21", "L22", "L24")
@pytest.mark.parametrize("way", streamed())
@pytest.mark.parametrize("then", ["fin", "rst", "end", "hold"])
async def test_what_ends_after_its_end_mark_is_whole(then: str, way: Way) -> None:
    ended = Reply(said=SAID, wire=Wire(cut=Cut(event=end_of(way.dialect, SAID) + 1, then=then)))  # type: ignore[arg-type]
    async with trial(ended, way=way, limits=FEW) as made:
        outcome = await made.ask()
        assert (outcome.text, outcome.error, made.sent) == (TEXT, None, 1)


@pytest.mark.fault("L22")
@pytest.mark.parametrize("way", EVERY)
async def test_all_is_said_but_that_it_is_complete(way: Way) -> None:
    async with trial(fault("no-end-mark", said=SAID), way=way) as made:
        outcome = await made.ask()
        if way.is_streamed:
            error = outcome.error
            assert (type(error), error.partial, outcome.text, made.sent) == (StreamTruncated, TEXT, TEXT, 1)
        else:
            assert (outcome.text, outcome.error) == (TEXT, None)


@pytest.mark.fault("L22")
@pytest.mark.parametrize("way", EVERY)
@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
async def test_no_framing_makes_a_cut_answer_whole(framing: str, way: Way) -> None:
    at = SPOKEN[way.dialect].opening + 2
    wire = Wire(framing=framing, cut=Cut(event=at, then="end"))  # type: ignore[arg-type]
    async with trial(Reply(said=SAID, wire=wire), way=way, policy=ONCE) as made:
        assert type((await made.ask()).error) is (StreamTruncated if way.is_streamed else ProtocolViolation)


@pytest.mark.fault("L23")
@pytest.mark.parametrize("way", streamed())
@pytest.mark.parametrize("byte", [1, 5, 6, 7, 40, 80, -3])
async def test_half_an_event_is_never_read(byte: int, way: Way) -> None:
    at = SPOKEN[way.dialect].opening + 2
    half = len(framed(way.dialect, SAID)[at]) + byte if byte < 0 else byte
    broken = Reply(said=SAID, wire=Wire(cut=Cut(event=at, byte=half, then="end")))
    async with trial(broken, way=way) as made:
        outcome = await made.ask()
        assert (type(outcome.error), outcome.text, outcome.error.partial) == (StreamTruncated, TEXT[:6], TEXT[:6])


@pytest.mark.fault("L23", "L28")
@pytest.mark.parametrize("way", streamed())
async def test_the_last_event_counts_without_its_blank_line_when_it_is_whole(way: Way) -> None:
    at = end_of(way.dialect, SAID)
    for number in range(len(SPOKEN[way.dialect].blank)):
        size = len(framed(way.dialect, SAID)[at]) - number - 1
        async with trial(Reply(said=SAID, wire=Wire(cut=Cut(event=at, byte=size, then="end"))), way=way) as made:
            outcome = await made.ask()
            assert (outcome.text, outcome.error) == (TEXT, None)


@pytest.mark.fault("L24")
@pytest.mark.parametrize("way", streamed())
async def test_pings_are_no_silence_and_the_total_ends_them(way: Way) -> None:
    spoken = SPOKEN[way.dialect]
    begun = b"".join(framed(way.dialect, SAID)[: spoken.opening + 1])
    head = f"HTTP/1.1 200 OK\r\ncontent-type: {spoken.kind}\r\n\r\n".encode()
    pings = [step for _ in range(40) for step in (spoken.ping, 0.02)]
    limits = TransportLimits(silence=0.2, total=0.5)
    async with trial(Reply(raw=(head, begun, *pings)), way=way, limits=limits) as made:
        error = (await made.ask()).error
        assert (type(error), error.timeout, error.partial) == (StreamTruncated, True, TEXT[:3])
        assert "within 0.5 s" in str(error)


# --- the same stream, however it is cut and written ------------------------------------------------------------------


def size_of(dialect: DialectName) -> int:
    return sum(map(len, framed(dialect, SAID)))


def finished(dialect: DialectName, number: int) -> tuple[int, int]:
    """Where the event with the end mark begins, and where it is whole, in the answer to a request of this number."""
    made, at = framed(dialect, SAID, number), end_of(dialect, SAID)
    return sum(map(len, made[:at])), sum(map(len, made[: at + 1])) - len(SPOKEN[dialect].blank)


@pytest.mark.fault("L26", "L22", "L23")
@pytest.mark.parametrize("way", streamed(by_clients()))
async def test_a_stream_cut_at_every_byte(way: Way) -> None:
    """By the end of the body: before the end mark it is never a success, after it the same answer."""
    size, (last, mark) = size_of(way.dialect), finished(way.dialect, 100)
    async with trial(way=way, policy=ONCE) as made:
        for cut in [*range(0, size, 13), *range(last, mark, max(1, (mark - last) // 150)), size + 9]:
            made.server.play(Reply(said=SAID, wire=Wire(cut=Cut(byte=cut, then="end"))))
            _, complete = finished(way.dialect, made.sent + 1)
            outcome = await made.ask()
            if cut < complete:
                assert isinstance(outcome.error, StreamTruncated | ProtocolViolation), cut
                assert TEXT.startswith(outcome.text)
            else:
                assert (outcome.text, outcome.error) == (TEXT, None), cut


@pytest.mark.fault("L26")
@pytest.mark.parametrize("way", streamed(by_clients()))
@pytest.mark.parametrize("then", ["fin", "rst"])
async def test_a_stream_whose_connection_ends_at_every_byte(then: Any, way: Way) -> None:
    async with trial(way=way, policy=ONCE) as made:
        for cut in range(0, size_of(way.dialect), 17):
            made.server.play(Reply(said=SAID, wire=Wire(cut=Cut(byte=cut, then=then))))
            _, complete = finished(way.dialect, made.sent + 1)
            outcome = await made.ask()
            if cut < complete + len(SPOKEN[way.dialect].blank):  # nobody can know what would have followed
                assert type(outcome.error) in (StreamTruncated, TransportError), cut
                assert TEXT.startswith(outcome.text)
            else:
                assert (outcome.text, outcome.error) == (TEXT, None), cut


@pytest.mark.fault("L26")
@pytest.mark.parametrize("way", [way for way in by_clients() if not way.is_streamed])
@pytest.mark.parametrize("then", ["fin", "rst"])
async def test_an_answer_in_one_piece_whose_connection_ends_at_every_byte(then: Any, way: Way) -> None:
    async with trial(way=way, policy=ONCE) as made:
        for cut in range(0, len(whole(way.dialect, SAID)), 11):
            made.server.play(Reply(said=SAID, wire=Wire(cut=Cut(byte=cut, then=then))))
            assert type((await made.ask()).error) is TransportError


STYLES = {
    "CRLF": Style(newline="\r\n"),
    "CR": Style(newline="\r"),
    "mixed": Style(newline="mixed"),
    "BOM": Style(bom=True),
    "comments": Style(comments=True),
    "comments, CRLF": Style(comments=True, newline="\r\n"),
    "no space": Style(space=False),
    "two lines": Style(lines=True),
    "two lines, CR": Style(lines=True, newline="\r", space=False),
    "no last blank line": Style(last_blank=False),
    "all": Style(newline="mixed", bom=True, comments=True, lines=True, space=False, last_blank=False),
}


@pytest.mark.fault("L26", "L27", "L28", "L29")
@pytest.mark.parametrize("piece", [None, 1, 3])
@pytest.mark.parametrize(
    ("style", "way"),
    [
        (style, way)
        for style in STYLES
        for way in streamed()
        if STYLES[style].newline != "\r" or way.dialect != "ollama"  # in JSON it is white space, and ends no line
    ],
)
async def test_however_it_is_written_and_cut_it_is_the_same(style: str, piece: int | None, way: Way) -> None:
    async with trial(Reply(said=SAID, style=STYLES[style], wire=Wire(piece=piece)), way=way) as made:
        outcome = await made.ask()
        assert (outcome.text, outcome.error, made.sent) == (TEXT, None, 1)


@pytest.mark.fault("L26", "L29")
@pytest.mark.parametrize("way", EVERY)
@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
async def test_byte_by_byte_in_every_framing(framing: str, way: Way) -> None:
    wire = Wire(framing=framing, piece=1)  # type: ignore[arg-type]
    async with trial(Reply(said=SAID, wire=wire), way=way) as made:
        assert ((await made.ask()).text, made.sent) == (TEXT, 1)


@pytest.mark.fault("L26")
@pytest.mark.parametrize("way", streamed())
async def test_what_comes_at_once_is_the_same(way: Way) -> None:
    said = Said(text=TEXT, calls=(Call(name="weather", arguments={"city": "A"}), Call(name="weather", id="b")))
    async with trial(Reply(events=at_once(way.dialect, said)), answer("yes"), way=way) as made:
        outcome = await made.ask()
        assert outcome.error is None
        assert outcome.text.startswith(TEXT)
        if way.is_agent:
            assert (made.calls, made.sent, outcome.text[-3:]) == (["A"], 2, "yes")
        else:
            assert outcome.answer is not None
            calls = outcome.answer.message.tool_calls
            assert [json.loads(call.arguments) for call in calls] == [{"city": "A"}, {}]


# --- what the stream holds besides -----------------------------------------------------------------------------------


@pytest.mark.fault("L30")
@pytest.mark.parametrize("way", EVERY)
@pytest.mark.parametrize("bad", [b"\xff", b"\xc3(", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\xaf"])
async def test_what_is_not_utf8_is_a_violation_everywhere(bad: bytes, way: Way) -> None:
    said = Said(text="so far@", piece=6)
    written = tuple(event.replace(b"@", bad) for event in events(way.dialect, said))
    body = whole(way.dialect, said).replace(b"@", bad)
    async with trial(Reply(body=body, events=written), way=way) as made:
        outcome = await made.ask()
        assert (type(outcome.error), made.sent) == (ProtocolViolation, 1)
        assert outcome.text == ("so far" if way.is_streamed else "")


def errors(kind: str, ways: tuple[Way, ...]) -> list[tuple[Way, Answered]]:
    return [(way, one) for way in ways for one in ERRORS[way.dialect] if kind in one.where]


@pytest.mark.fault("L32")
@pytest.mark.parametrize(("way", "one"), errors("stream", streamed()))
async def test_an_error_inside_a_stream(one: Answered, way: Way) -> None:
    async with trial(with_event(way.dialect, one.said), way=way) as made:
        outcome = await made.ask()
        error = outcome.error
        assert isinstance(error, ProviderError)
        assert (error.status, error.code, error.retryable) == (one.status, one.code, one.retryable)
        assert (error.partial, outcome.text, made.sent) == ("so far", "so far", 1)


@pytest.mark.fault("L33")
@pytest.mark.parametrize(("way", "one"), errors("answer", EVERY))
async def test_an_error_as_the_whole_answer(one: Answered, way: Way) -> None:
    async with trial(Reply(body=one.said), way=way) as made:
        error = (await made.ask()).error
        assert isinstance(error, ProviderError)
        assert (error.status, error.code, error.retryable) == (one.status, one.code, one.retryable)
        assert made.sent == (1 + QUICK.max_retries if one.retryable else 1)


@pytest.mark.fault("L32", "L33")
@pytest.mark.parametrize("way", EVERY)
async def test_the_errors_of_the_catalogue(way: Way) -> None:
    async with trial(fault("error-midway" if way.is_streamed else "error-as-answer"), way=way) as made:
        error = (await made.ask()).error
        assert isinstance(error, ProviderError)
        assert "the model is overloaded" in str(error)


@pytest.mark.fault("L32")
@pytest.mark.parametrize("way", streamed(CHAT))
@pytest.mark.parametrize("said", [b'{"error": {}}', b'{"error": []}', b'{"error": null}'])
async def test_an_error_that_says_nothing_is_none(said: bytes, way: Way) -> None:
    async with trial(with_event(way.dialect, said), way=way) as made:
        outcome = await made.ask()
        assert (outcome.text, outcome.error) == ("so far", None)


@pytest.mark.fault("L34")
@pytest.mark.parametrize(
    ("name", "way"),
    [
        *((name, way) for name in ("done-twice", "junk-after-done") for way in streamed()),
        *(("no-done", way) for way in streamed(CHAT)),
    ],
)
async def test_what_comes_after_the_end_mark_changes_nothing(name: str, way: Way) -> None:
    async with trial(fault(name, said=SAID), way=way) as made:
        outcome = await made.ask()
        assert (outcome.text, outcome.error, made.sent) == (TEXT, None, 1)


@pytest.mark.fault("L35")
@pytest.mark.parametrize(
    ("way", "data"),
    [(way, data) for way in streamed() for data in SPOKEN[way.dialect].nonsense],
    ids=lambda one: repr(one[:40]) if isinstance(one, bytes) else str(one),
)
async def test_an_event_that_is_none_of_the_dialect(data: bytes, way: Way) -> None:
    async with trial(with_event(way.dialect, data), way=way) as made:
        outcome = await made.ask()
        error = outcome.error
        assert (type(error), error.partial, outcome.text) == (ProtocolViolation, "so far", "so far")
        assert (error.retryable, made.sent) == (False, 1)
        assert len(error.excerpt) <= 201


@pytest.mark.fault("L35", "L36")
@pytest.mark.parametrize(
    ("way", "data"),
    [(way, data) for way in streamed() for data in SPOKEN[way.dialect].news],
    ids=lambda one: repr(one[:40]) if isinstance(one, bytes) else str(one),
)
async def test_an_event_of_an_unknown_kind_is_skipped(data: bytes, way: Way) -> None:
    *before, last = events(way.dialect, Said(text="yes", piece=1))
    async with trial(Reply(events=(data, *before[:-2], data, *before[-2:], data, last)), way=way) as made:
        outcome = await made.ask()
        assert (outcome.text, outcome.error, made.sent) == ("yes", None, 1)


@pytest.mark.fault("L35")
@pytest.mark.parametrize("way", EVERY)
@pytest.mark.parametrize("name", ["event-no-json", "event-null", "event-number", "event-array", "event-unknown"])
async def test_the_events_of_the_catalogue(name: str, way: Way) -> None:
    """In place of an answer in one piece none of them is one, not even an event."""
    async with trial(fault(name, said="one two three four"), way=way) as made:
        outcome = await made.ask()
        if name == "event-unknown" and way.is_streamed:
            assert (outcome.text, outcome.error, made.sent) == ("one two three four", None, 1)
        else:
            assert (type(outcome.error), made.sent) == (ProtocolViolation, 1)


@pytest.mark.fault("L20", "L32")
@pytest.mark.parametrize("way", by_agents())
async def test_a_failure_is_in_the_log_with_what_had_arrived(way: Way) -> None:
    broken = fault("closed-midway", at=SPOKEN[way.dialect].opening + 2, said=SAID)
    async with trial(broken, way=way, policy=ONCE) as made:
        assert isinstance((await made.ask()).error, ModelError)
        messages = made.agent.history
        said = [message.text for message in messages if message.role == "assistant"]
        assert said == ([TEXT[:6]] if way.is_streamed else [])
