from __future__ import annotations

import json
import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait.providers.sse import EventReader

ONE = b'{"text":"one"}'
TWO = '{"text":"zwölf 🎈"}'.encode()
PLAIN = b"data: " + ONE + b"\n\ndata: " + TWO + b"\n\ndata: [DONE]\n\n"
EXPECTED = [ONE, TWO, b"[DONE]"]


def read(stream: bytes, cuts: list[int] | None = None) -> list[bytes]:
    reader = EventReader()
    edges = [0, *sorted(cuts or ()), len(stream)]
    found = [event for a, b in pairwise(edges) for event in reader.feed(stream[a:b])]
    return found + reader.end()


@pytest.mark.parametrize(
    "stream",
    [
        PLAIN,
        PLAIN.replace(b"\n", b"\r\n"),
        PLAIN.replace(b"\n", b"\r"),
        PLAIN.replace(b"\n\n", b"\r\n\r", 1).replace(b"\n\n", b"\r\r\n", 1),
        b"\xef\xbb\xbf" + PLAIN,
        b": hello\n\n" + PLAIN.replace(b"\n\n", b"\n: comment\n\n:\n\n"),
        PLAIN.replace(b"data: ", b"event: message\nid: 7\nretry: 10\ndata: "),
        PLAIN.replace(b"data: ", b"data:"),
        PLAIN.replace(b"data: ", b"data:\n\ndata\n\nunknown: x\n\ndata: "),
        PLAIN.rstrip(b"\n"),
        PLAIN.rstrip(b"\n") + b"\n",
        PLAIN.replace(b"\n\n", b"\n\n\n\n\n"),
    ],
)
def test_every_way_to_write_it_means_the_same(stream: bytes) -> None:
    assert read(stream) == EXPECTED
    assert read(stream, list(range(len(stream)))) == EXPECTED  # byte by byte
    for cut in range(len(stream)):
        assert read(stream, [cut]) == EXPECTED


@given(st.lists(st.integers(0, len(PLAIN) * 2)), st.sampled_from([b"\n", b"\r\n", b"\r"]))
def test_cuts_change_nothing(cuts: list[int], end: bytes) -> None:
    stream = PLAIN.replace(b"\n", end)
    assert read(stream, [min(cut, len(stream)) for cut in cuts]) == EXPECTED


def test_data_lines_of_one_event_are_joined() -> None:
    assert read(b'data: {"a":\ndata:1,\ndata\ndata:  "b":2}\n\n') == [b'{"a":\n1,\n\n "b":2}']


def test_of_the_space_after_the_colon_one_is_taken_off() -> None:
    assert read(b"data:   x\n\n") == [b"  x"]


@pytest.mark.parametrize("last", [b'data: {"a": 1', b"data: 12", b"data: [DON", b'data: {"a":\n', b"data: nul", b"dat"])
def test_half_an_event_at_the_end_is_dropped(last: bytes) -> None:
    assert read(PLAIN + last) == EXPECTED


def test_an_event_without_its_blank_line_counts_only_when_it_is_whole() -> None:
    stream = b"data: " + ONE
    assert [cut for cut in range(len(stream) + 1) if read(stream[:cut])] == [len(stream)]


def test_a_long_line_and_many_lines_take_time_in_proportion() -> None:
    """Ten million bytes in small pieces end within the time one test has, which quadratic work would not."""
    text = json.dumps({"text": "x" * 5_000_000}).encode()
    lines = b"\ndata:".join([b"y" * 60] * 50_000)
    reader = EventReader()
    found = []
    for stream in (b"data: " + text + b"\n\n", b"data:" + lines + b"\n\n"):
        for start in range(0, len(stream), 64):
            found += reader.feed(stream[start : start + 64])
    assert found == [text, lines.replace(b"\ndata:", b"\n")]
    assert reader.size == 0


def test_it_says_how_much_it_holds() -> None:
    reader = EventReader()
    assert (reader.feed(b"data: abc\n\ndata: 12345\ndata: 6"), reader.size) == ([b"abc"], 5 + 7)
    assert (reader.feed(b"7"), reader.size) == ([], 5 + 8)
    assert (reader.feed(b"\n\n"), reader.size) == ([b"12345\n67"], 0)


def test_bytes_without_meaning_are_survived() -> None:
    junk = random.Random(1)  # noqa: S311  # nothing is kept secret by it
    for _ in range(300):
        noise = bytes(junk.choices(b"\r\n: data[]{}\xef\xbb\xbf\x00", k=junk.randrange(60)))
        noise += b"".join(junk.choices([b"data", b"data:", b"data: ", b":", b"\r", b"\n", b"{", b"}"], k=20))
        assert read(noise, list(range(len(noise)))) == read(noise)
        assert read(noise + b"\n\n" + PLAIN)[-3:] == EXPECTED
