from __future__ import annotations

import gc

import pytest

from plait.attachments import parse_data_url
from plait.errors import ConfigurationError
from plait.messages import AudioPart, ImagePart, Message, TextPart, ToolMessage, ToolResult, UserMessage
from plait.providers.history import unsendable
from plait.providers.wire import MessageBytes, Recent, data_url, dollars, image_url, token_count

SOUND = AudioPart(data=b"RIFF")
NAMED = b"[A sound (audio/wav) stood here, which cannot be shown to this model.]"


class Encoder:
    """Says texts, and has no place for sounds."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, message: Message) -> bytes:
        self.calls += 1
        parts = [part for one in message.parts for part in (one.parts if isinstance(one, ToolResult) else (one,))]
        for part in parts:
            if isinstance(part, AudioPart):
                raise unsendable(part.type, message.role, "acme")
        return b" ".join(part.text.encode() for part in parts if isinstance(part, TextPart))


def test_a_message_is_encoded_once_and_forgotten_with_it() -> None:
    encode = Encoder()
    kept = MessageBytes(encode)
    message = UserMessage(text="hi")
    one, two = kept.all([message, message])
    assert one is two
    assert (one, encode.calls, len(kept)) == (b"hi", 1, 1)
    assert kept.all([UserMessage(text="hi")]) == [b"hi"]  # another message
    del message
    gc.collect()
    assert len(kept) == 0


def test_what_is_new_is_refused_and_what_was_said_before_is_named() -> None:
    kept = MessageBytes(Encoder())
    message, after = UserMessage(text="Hear:", parts=[SOUND]), UserMessage(text="So?")
    for _ in range(2):  # what was sent as earlier is refused as new all the same
        assert kept.all([message, after], earlier=1) == [b"Hear: " + NAMED, b"So?"]
        with pytest.raises(ConfigurationError, match="a part of type 'audio', which cannot be sent to 'acme'"):
            kept.all([after, message], earlier=1)


def test_what_a_tool_gave_is_always_named() -> None:
    encode = Encoder()
    kept = MessageBytes(encode)
    given = ToolMessage(parts=(ToolResult(call_id="c", parts=(SOUND,)),))
    assert kept.all([given]) == kept.all([given], earlier=1) == [NAMED]
    calls = encode.calls
    kept.all([given])
    assert encode.calls == calls


def test_what_is_said_in_place_of_a_message_is_kept_for_it() -> None:
    kept = MessageBytes(Encoder())
    message, said = UserMessage(text="x"), UserMessage(text="y")
    assert not kept.knows(message, spare=True)
    kept.keep(message, said, spare=False)
    assert kept.knows(message, spare=False)
    assert kept.all([message]) == [b"y"]
    sound = UserMessage(parts=[SOUND])
    with pytest.raises(ConfigurationError, match="cannot be sent to 'acme'"):
        kept.keep(said, sound, spare=False)
    kept.keep(said, sound, spare=True)
    assert (kept.knows(said, spare=True), kept.knows(said, spare=False)) == (True, False)
    assert kept.all([said], earlier=1) == [NAMED]


def test_values_are_made_once_for_the_same_objects() -> None:
    made: list[int] = []

    def make() -> int:
        made.append(len(made))
        return made[-1]

    recent: Recent[int] = Recent()
    one, same_as_one = ["a"], ["a"]
    assert [recent.get((one,), make), recent.get((one,), make), recent.get((same_as_one,), make)] == [0, 0, 1]
    others = [[number] for number in range(63)]
    assert [recent.get((other,), make) for other in others] == list(range(2, 65))
    assert recent.get((same_as_one,), make) == 1  # one more than there is room for: the oldest went, and nothing else
    assert recent.get((one,), make) == 65


def test_bytes_as_an_address() -> None:
    assert parse_data_url(data_url(b"\0\xff", "image/webp")) == ("image/webp", b"\0\xff")
    assert image_url(ImagePart(data=b"GIF?", media_type="image/gif")) == data_url(b"GIF?", "image/gif")
    assert image_url(ImagePart(url="https://x.test/a.gif")) == "https://x.test/a.gif"


def test_counts_and_costs_that_make_sense() -> None:
    assert [token_count(value) for value in (0, 7, 10**12, -1, 1.0, True, "7", None)] == [0, 7, *[None] * 6]
    assert [dollars(value) for value in (0, 0.5, 10**7, -1, True, "1", None)] == [0.0, 0.5, *[None] * 5]
