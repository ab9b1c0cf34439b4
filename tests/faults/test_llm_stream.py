"""Bodies that are no answer, streams that break off, and every way to cut and write a stream that means the same."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from faults.trials import AGENTS, KEY, QUICK, STREAMED, WAYS, Way, trial
from plait import ModelError, ProtocolViolation, ProviderError, RetryPolicy, StreamTruncated, TransportError
from plait.providers.http import TransportLimits
from plait.testing import Cut, Reply, Said, Style, Wire, answer, fault
from plait.testing.chat import ChatDialect, chunk
from plait.testing.reply import Asked

if TYPE_CHECKING:
    from plait.testing.reply import Scripted

ONCE = RetryPolicy(max_retries=0)
FEW = TransportLimits(silence=0.25, total=0.6)
TEXT = "ä\U0001f388 is \u4e2d\u6587"
SAID = Said(text=TEXT, piece=3)
EVENTS = ChatDialect().frame(ChatDialect().events(SAID, Asked(model="m1", number=1)), Style())
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
@pytest.mark.parametrize("way", WAYS)
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
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["application/json", "text/plain", "", "APPLICATION/JSON; charset=UTF-8"])
@pytest.mark.parametrize("before", [b"", b"\xef\xbb\xbf", b" \n"])
async def test_a_sound_answer_under_another_name(kind: str, before: bytes, way: Way) -> None:
    """A server that does not stream sends JSON; only what says so can be told from a stream."""
    body = before + ChatDialect().whole(SAID, Asked())
    async with trial(Reply(body=body, headers=(("content-type", kind),)), way=way) as made:
        outcome = await made.ask()
        if way in STREAMED and "json" not in kind.lower():
            assert type(outcome.error) is ProtocolViolation
        else:
            assert (outcome.text, outcome.error) == (TEXT, None)


# --- streams that end too early --------------------------------------------------------------------------------------


@pytest.mark.fault("L20", "L21", "L22", "L24")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("then", ["fin", "rst", "end", "hold"])
@pytest.mark.parametrize("at", [0, 1, 3])
async def test_the_answer_ends_too_early(at: int, then: str, way: Way) -> None:
    """Tried again as long as nothing was handed out; never a success."""
    broken = Reply(said=SAID, wire=Wire(cut=Cut(event=at, then=then)))  # type: ignore[arg-type]
    async with trial(broken, answer("yes"), way=way, limits=FEW) as made:
        outcome = await made.ask()
        partial = TEXT[: 3 * max(0, at - 1)]
        if way not in STREAMED and then == "end":  # half a JSON object, sent in full
            assert type(outcome.error) is ProtocolViolation
        elif way in STREAMED and partial:
            error = outcome.error
            assert (type(error), error.partial, outcome.text) == (StreamTruncated, partial, partial)
            assert (error.timeout, made.sent) == (then == "hold", 1)
        elif way in STREAMED and at == 0 and then == "end":
            assert type(outcome.error) is ProtocolViolation  # no event at all
        else:
            assert (outcome.text, outcome.error, made.sent) == ("yes", None, 2)


@pytest.mark.fault("L20", "L21", "L22", "L24")
@pytest.mark.parametrize("way", STREAMED)
@pytest.mark.parametrize("then", ["fin", "rst", "end", "hold"])
async def test_what_ends_after_its_end_mark_is_whole(then: str, way: Way) -> None:
    ended = Reply(said=SAID, wire=Wire(cut=Cut(event=len(EVENTS) - 2, then=then)))  # type: ignore[arg-type]
    async with trial(ended, way=way, limits=FEW) as made:
        outcome = await made.ask()
        assert (outcome.text, outcome.error, made.sent) == (TEXT, None, 1)


@pytest.mark.fault("L22")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
async def test_no_framing_makes_a_cut_answer_whole(framing: str, way: Way) -> None:
    wire = Wire(framing=framing, cut=Cut(event=3, then="end"))  # type: ignore[arg-type]
    async with trial(Reply(said=SAID, wire=wire), way=way, policy=ONCE) as made:
        assert type((await made.ask()).error) is (StreamTruncated if way in STREAMED else ProtocolViolation)


@pytest.mark.fault("L23")
@pytest.mark.parametrize("way", STREAMED)
@pytest.mark.parametrize("byte", [1, 5, 6, 7, 40, 80, -3])
async def test_half_an_event_is_never_read(byte: int, way: Way) -> None:
    half = len(EVENTS[3]) + byte if byte < 0 else byte
    broken = Reply(said=SAID, wire=Wire(cut=Cut(event=3, byte=half, then="end")))
    async with trial(broken, way=way) as made:
        outcome = await made.ask()
        assert (type(outcome.error), outcome.text, outcome.error.partial) == (StreamTruncated, TEXT[:6], TEXT[:6])


@pytest.mark.fault("L23", "L28")
@pytest.mark.parametrize("way", STREAMED)
async def test_the_last_event_counts_without_its_blank_line_when_it_is_whole(way: Way) -> None:
    for cut in (1, 2):
        whole = Reply(said=SAID, wire=Wire(cut=Cut(event=len(EVENTS) - 3, byte=len(EVENTS[-3]) - cut, then="end")))
        async with trial(whole, way=way) as made:
            assert ((await made.ask()).text) == TEXT


@pytest.mark.fault("L24")
@pytest.mark.parametrize("way", STREAMED)
async def test_pings_are_no_silence_and_the_total_ends_them(way: Way) -> None:
    begun = b"".join(EVENTS[:2])
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
    pings = [step for _ in range(40) for step in (b": ping\n\n", 0.02)]
    limits = TransportLimits(silence=0.2, total=0.5)
    async with trial(Reply(raw=(head, begun, *pings)), way=way, limits=limits) as made:
        error = (await made.ask()).error
        assert (type(error), error.timeout, error.partial) == (StreamTruncated, True, TEXT[:3])
        assert "within 0.5 s" in str(error)


# --- the same stream, however it is cut and written ------------------------------------------------------------------


def finished(number: int) -> tuple[int, int]:
    """Where the event with the end mark begins, and where it is whole, in the answer to a request of this number."""
    events = ChatDialect().frame(ChatDialect().events(SAID, Asked(model="m1", number=number)), Style())
    return sum(map(len, events[:-3])), sum(map(len, events[:-2])) - 2  # it counts without its blank line


@pytest.mark.fault("L26", "L22", "L23")
async def test_a_stream_cut_at_every_byte() -> None:
    """By the end of the body: before the end mark it is never a success, after it the same answer."""
    async with trial(way="client streamed", policy=ONCE) as made:
        for cut in [*range(0, sum(map(len, EVENTS)), 13), *range(*finished(100)), sum(map(len, EVENTS)) + 9]:
            made.server.play(Reply(said=SAID, wire=Wire(cut=Cut(byte=cut, then="end"))))
            _, whole = finished(made.sent + 1)
            outcome = await made.ask()
            if cut < whole:
                assert isinstance(outcome.error, StreamTruncated | ProtocolViolation), cut
                assert TEXT.startswith(outcome.text)
            else:
                assert (outcome.text, outcome.error) == (TEXT, None), cut


@pytest.mark.fault("L26")
@pytest.mark.parametrize("then", ["fin", "rst"])
async def test_a_stream_whose_connection_ends_at_every_byte(then: Any) -> None:
    async with trial(way="client streamed", policy=ONCE) as made:
        for cut in range(0, sum(map(len, EVENTS)), 17):
            made.server.play(Reply(said=SAID, wire=Wire(cut=Cut(byte=cut, then=then))))
            _, whole = finished(made.sent + 1)
            outcome = await made.ask()
            if cut < whole + 2:  # nobody can know what would have followed
                assert type(outcome.error) in (StreamTruncated, TransportError), cut
                assert TEXT.startswith(outcome.text)
            else:
                assert (outcome.text, outcome.error) == (TEXT, None), cut


@pytest.mark.fault("L26")
@pytest.mark.parametrize("then", ["fin", "rst"])
async def test_an_answer_in_one_piece_whose_connection_ends_at_every_byte(then: Any) -> None:
    whole = ChatDialect().whole(SAID, Asked(model="m1"))
    async with trial(way="client", policy=ONCE) as made:
        for cut in range(0, len(whole), 11):
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
@pytest.mark.parametrize("way", STREAMED)
@pytest.mark.parametrize("piece", [None, 1, 3])
@pytest.mark.parametrize("style", STYLES)
async def test_however_it_is_written_and_cut_it_is_the_same(style: str, piece: int | None, way: Way) -> None:
    async with trial(Reply(said=SAID, style=STYLES[style], wire=Wire(piece=piece)), way=way) as made:
        outcome = await made.ask()
        assert (outcome.text, outcome.error, made.sent) == (TEXT, None, 1)


@pytest.mark.fault("L26", "L29")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
async def test_byte_by_byte_in_every_framing(framing: str, way: Way) -> None:
    wire = Wire(framing=framing, piece=1)  # type: ignore[arg-type]
    async with trial(Reply(said=SAID, wire=wire), way=way) as made:
        assert ((await made.ask()).text, made.sent) == (TEXT, 1)


# --- what the stream holds besides -----------------------------------------------------------------------------------


@pytest.mark.fault("L30")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("bad", [b"\xff", b"\xc3(", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\xaf"])
async def test_what_is_not_utf8_is_a_violation_everywhere(bad: bytes, way: Way) -> None:
    events = tuple(
        event.replace(b"@", bad) for event in (chunk({"content": "so far"}), chunk({"content": "@"}, "stop"))
    )
    body = ChatDialect().whole(Said(text="@"), Asked()).replace(b"@", bad)
    async with trial(Reply(body=body, events=events), way=way) as made:
        outcome = await made.ask()
        assert (type(outcome.error), made.sent) == (ProtocolViolation, 1)
        assert outcome.text == ("so far" if way in STREAMED else "")


ERRORS: list[tuple[Any, int | None, str | None, bool]] = [
    ({"message": "down", "code": 503}, 503, "503", True),
    ({"message": "slow", "code": "rate_limit_exceeded"}, 429, "rate_limit_exceeded", True),
    ({"message": "no", "type": "invalid_request_error", "code": None}, None, "invalid_request_error", False),
    ({"message": "down", "type": "server_error", "param": {"deep": [1e308]}}, None, "server_error", True),
    ("down", None, None, False),
    ({}, None, None, False),
    ([1, None], None, None, False),
    ({"message": None, "code": KEY}, None, "***", False),
    ({"message": ["x"], "code": ["y"]}, None, None, False),
]


@pytest.mark.fault("L32")
@pytest.mark.parametrize("way", STREAMED)
@pytest.mark.parametrize("number", range(len(ERRORS)))
async def test_an_error_inside_a_stream(number: int, way: Way) -> None:
    said, status, code, retryable = ERRORS[number]
    event = json.dumps({"error": said}).encode()
    events = (chunk({"content": "so "}), chunk({"content": "far"}), event, chunk({"content": "never"}, "stop"))
    async with trial(Reply(events=events), way=way) as made:
        outcome = await made.ask()
        if said in ({}, []):  # says nothing, as if it were not there
            return
        error = outcome.error
        assert isinstance(error, ProviderError)
        assert (error.status, error.code, error.retryable) == (status, code, retryable)
        assert (error.partial, outcome.text, made.sent) == ("so far", "so far", 1)


@pytest.mark.fault("L33")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("number", range(len(ERRORS)))
async def test_an_error_as_the_whole_answer(number: int, way: Way) -> None:
    said, status, code, retryable = ERRORS[number]
    if said == {}:
        return
    async with trial(Reply(body=json.dumps({"error": said}).encode()), way=way) as made:
        error = (await made.ask()).error
        assert isinstance(error, ProviderError)
        assert (error.status, error.code, error.retryable) == (status, code, retryable)
        assert made.sent == (1 + QUICK.max_retries if retryable else 1)


@pytest.mark.fault("L34")
@pytest.mark.parametrize("way", STREAMED)
@pytest.mark.parametrize("name", ["no-done", "done-twice", "junk-after-done"])
async def test_what_comes_after_the_end_mark_changes_nothing(name: str, way: Way) -> None:
    async with trial(fault(name, said=SAID), way=way) as made:
        outcome = await made.ask()
        assert (outcome.text, outcome.error, made.sent) == (TEXT, None, 1)


NO_EVENTS = [
    *(
        b"{not json",
        b"null",
        b"42",
        b"-1e999",
        b"[]",
        b'[{"choices": []}]',
        b'"text"',
        b"[DONE",
        b"true",
        b"{}{}",
        b"\0",
    ),
    *(b'{"choices": {}}', b'{"choices": [null]}', b'{"choices": [7]}', b'{"choices": "x"}', b'{"choices": [[]]}'),
    *(b'{"choices": [{"delta": []}]}', b'{"choices": [{"delta": {"content": 5}}]}', b'{"choices": [{"index": "0"}]}'),
    *(b'{"choices": [{"index": 1e999}]}', b'{"choices": [{"delta": {"tool_calls": [null]}}]}'),
    *(b'{"choices": [{"delta": {"tool_calls": {}}}]}', b'{"choices": [{"finish_reason": 7}]}'),
    b'{"x": ' + b"[" * 50_000,
]
UNKNOWN = [
    *(b"{}", b'{"type": "ping"}', b'{"choices": []}', b'{"choices": null}', b'{"choices": [{}]}', b'{"x": 1e999}'),
    *(b'{"choices": [{"index": 0, "delta": null}]}', b'{"choices": [{"index": null, "delta": {}}]}'),
    *(b'{"object": "thread.run", "data": [[[{"a": null}]]]}', b'{"error": null, "usage": null, "id": null}'),
    *(b'{"choices": [{"delta": {"content": null, "tool_calls": null, "refusal": null}}]}', b'{"usage": [1, "x"]}'),
    b'{"choices": [{"delta": {"content": [{"type": "thinking"}, null, 7]}}]}',
]


@pytest.mark.fault("L35", "L36")
@pytest.mark.parametrize("way", STREAMED)
@pytest.mark.parametrize("data", NO_EVENTS, ids=lambda data: repr(data[:40]))
async def test_an_event_that_is_none_of_the_dialect(data: bytes, way: Way) -> None:
    async with trial(Reply(events=(chunk({"content": "so far"}), data, chunk({}, "stop"), b"[DONE]")), way=way) as made:
        outcome = await made.ask()
        error = outcome.error
        assert (type(error), error.partial, outcome.text) == (ProtocolViolation, "so far", "so far")
        assert (error.retryable, made.sent) == (False, 1)
        assert len(error.excerpt) <= 201


@pytest.mark.fault("L35", "L36")
@pytest.mark.parametrize("way", STREAMED)
@pytest.mark.parametrize("data", UNKNOWN, ids=lambda data: repr(data[:40]))
async def test_an_event_of_an_unknown_kind_is_skipped(data: bytes, way: Way) -> None:
    events = (data, chunk({"content": "yes"}), data, chunk({}, "stop"), data, b"[DONE]")
    async with trial(Reply(events=events), way=way) as made:
        outcome = await made.ask()
        assert (outcome.text, outcome.error, made.sent) == ("yes", None, 1)


@pytest.mark.fault("L20", "L32")
@pytest.mark.parametrize("way", AGENTS)
async def test_a_failure_is_in_the_log_with_what_had_arrived(way: Way) -> None:
    broken: Scripted = fault("closed-midway", at=3, said=SAID)
    async with trial(broken, way=way, policy=ONCE) as made:
        assert isinstance((await made.ask()).error, ModelError)
        messages = made.agent.history
        said = [message.text for message in messages if message.role == "assistant"]
        assert said == ([TEXT[:6]] if way in STREAMED else [])
