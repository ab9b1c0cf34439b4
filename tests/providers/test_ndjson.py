from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait.providers.ndjson import LineReader

ONE = b'{"text":"one"}'
TWO = '{"text":"zwölf 🎈"}'.encode()
PLAIN = ONE + b"\n" + TWO + b"\n"


def read(stream: bytes, cuts: list[int] | None = None) -> list[bytes]:
    reader = LineReader()
    edges = [0, *sorted(cuts or ()), len(stream)]
    found = [line for a, b in pairwise(edges) for line in reader.feed(stream[a:b])]
    return found + reader.end()


def lines(stream: bytes, cuts: list[int] | None = None) -> list[bytes]:
    """The lines without the white space round them, which JSON allows."""
    return [line.strip() for line in read(stream, cuts)]


@pytest.mark.parametrize(
    "stream",
    [
        PLAIN,
        PLAIN.replace(b"\n", b"\r\n"),
        PLAIN.replace(b"\n", b"\r\n", 1),
        b"\xef\xbb\xbf" + PLAIN,
        b"\xef\xbb\xbf\r\n" + PLAIN,
        b"\n\n" + PLAIN.replace(b"\n", b"\n\n \r\n\t\n"),
        PLAIN.rstrip(b"\n"),
        PLAIN.rstrip(b"\n") + b" \t",
        PLAIN.replace(b"\n", b" \n "),
    ],
)
def test_every_way_to_write_it_means_the_same(stream: bytes) -> None:
    assert lines(stream) == [ONE, TWO]
    assert lines(stream, list(range(len(stream)))) == [ONE, TWO]  # byte by byte
    for cut in range(len(stream)):
        assert lines(stream, [cut]) == [ONE, TWO]


@given(st.lists(st.integers(0, len(PLAIN) * 2)), st.sampled_from([b"\n", b"\r\n"]))
def test_cuts_change_nothing(cuts: list[int], end: bytes) -> None:
    stream = PLAIN.replace(b"\n", end)
    assert lines(stream, [min(cut, len(stream)) for cut in cuts]) == [ONE, TWO]


def test_a_line_is_given_as_it_is() -> None:
    assert read(b'{"a": "x\\n"}\n not json \n\x00\n') == [b'{"a": "x\\n"}', b" not json ", b"\x00"]


@pytest.mark.parametrize("last", [b'{"a": 1', b"12", b"nul", b'{"a":"\xc3', b"[]", b'"x"', b"{} {}", b"[" * 5000])
def test_half_a_line_at_the_end_is_dropped(last: bytes) -> None:
    assert read(PLAIN + last) == [ONE, TWO]


def test_a_line_without_its_end_counts_only_when_it_is_whole() -> None:
    assert [cut for cut in range(len(ONE) + 1) if read(ONE[:cut])] == [len(ONE)]


def test_a_long_line_and_many_lines_take_time_in_proportion() -> None:
    """Ten million bytes in small pieces end within the time one test has, which quadratic work would not."""
    long, many = b"x" * 5_000_000, [b"y" * 60] * 80_000
    reader = LineReader()
    found = []
    for stream in (long + b"\n", b"\n".join(many) + b"\n"):
        for start in range(0, len(stream), 64):
            found += reader.feed(stream[start : start + 64])
    assert found == [long, *many]
    assert reader.size == 0


def test_it_says_how_much_it_holds() -> None:
    reader = LineReader()
    assert (reader.feed(b"{}\n12345"), reader.size) == ([b"{}"], 5)
    assert (reader.feed(b"67"), reader.size) == ([], 7)
    assert (reader.feed(b""), reader.size) == ([], 7)
    assert (reader.feed(b"\n"), reader.size) == ([b"1234567"], 0)


def test_bytes_without_meaning_are_survived() -> None:
    junk = random.Random(1)  # noqa: S311  # nothing is kept secret by it
    for _ in range(300):
        noise = bytes(junk.choices(b'\r\n: {}[]"\xef\xbb\xbf\x00', k=junk.randrange(80)))
        assert read(noise, list(range(len(noise)))) == read(noise)
        assert read(noise + b"\n" + PLAIN)[-2:] == [ONE, TWO]
