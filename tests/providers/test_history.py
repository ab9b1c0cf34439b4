from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait.errors import ConfigurationError
from plait.messages import (
    AudioPart,
    FilePart,
    ImagePart,
    Message,
    TextPart,
    ToolCall,
    ToolMessage,
    ToolResult,
    UserMessage,
)
from plait.plain import FrozenDict, parse_json
from plait.providers.base import Settings
from plait.providers.history import (
    Unfetched,
    check_extra,
    sendable_arguments,
    sendable_id,
    sendable_name,
    source_of,
    spared,
    unsendable,
)


@pytest.mark.parametrize(
    ("name", "sent"),
    [("add", "add"), ("", "_"), (" files.read\x1b", "_files_read_"), ("größe", "gr__e"), ("x" * 65, "x" * 64)],
)
def test_names_are_in_the_letters_of_names(name: str, sent: str) -> None:
    assert sendable_name(name) == sent
    assert sendable_name(sent) == sent


@given(st.text() | st.recursive(st.none() | st.floats() | st.text(), st.lists).map(json.dumps))
def test_arguments_are_always_an_object(text: str) -> None:
    assert type(parse_json(sendable_arguments(ToolCall(id="c", name="f", arguments=text)))) is dict


@pytest.mark.parametrize("text", ["{}", ' {"x":1.0,\n"x":1e2}', '{"a":"\ud800"}'])
def test_arguments_that_are_an_object_are_left_as_they_are(text: str) -> None:
    assert sendable_arguments(ToolCall(id="c", name="f", arguments=text)) == text


def test_a_long_id_is_cut_and_goes_on_to_differ() -> None:
    said = [f"{'x' * 70}{number}\ud800" for number in range(3)]
    made = [sendable_id(one, 40) for one in said]
    assert {len(one) for one in made} == {40}
    assert len(set(made)) == len(said)
    assert made == [sendable_id(one, 40) for one in said]
    assert [sendable_id("x" * 40, longest) for longest in (40, None)] == ["x" * 40] * 2


def test_what_a_tool_gave_names_its_call() -> None:
    assert source_of(ToolResult(call_id="c1", name="see")) == "From the result of 'see' (c1):"
    assert source_of(ToolResult(call_id="c1")) == "From the result of c1:"


def test_what_cannot_be_sent_is_named_with_its_place_and_the_provider() -> None:
    said = "a message with role 'user' has a part of type 'audio', which cannot be sent to 'acme'"
    assert str(unsendable("audio", "user", "acme")) == said


def test_the_requests_own_fields_are_not_for_extra() -> None:
    own = frozenset({"messages", "stream"})
    check_extra(Settings(extra=FrozenDict({"think": True})), own)
    with pytest.raises(ConfigurationError, match=r"must not hold \['messages', 'stream'\]"):
        check_extra(Settings(extra=FrozenDict({"stream": 1, "messages": [], "think": True})), own)


def test_what_cannot_be_sent_is_named_in_its_place() -> None:
    def encode(message: Message) -> None:
        for part in message.parts:
            for one in part.parts if isinstance(part, ToolResult) else (part,):
                if isinstance(one, AudioPart | FilePart):
                    raise unsendable(one.type, message.role, "acme")
                if isinstance(one, ImagePart) and one.url:
                    raise Unfetched(message, "acme")

    sound, file, image = (
        AudioPart(data=b"x"),
        FilePart(data=b"x", name="a\nb.pdf"),
        ImagePart(url="https://x.test/a.png"),
    )
    told: list[TextPart | ImagePart | AudioPart | FilePart] = [TextPart(text="Hear"), sound, image, file]
    named = (
        TextPart(text="Hear"),
        TextPart(text="[A sound (audio/wav) stood here, which cannot be shown to this model.]"),
        image,
        TextPart(text="[A file (a b.pdf) stood here, which cannot be shown to this model.]"),
    )
    assert spared(UserMessage(parts=told), encode) == UserMessage(parts=named)
    result = ToolResult(call_id="c", name="look", parts=told, is_error=True)
    assert spared(ToolMessage(parts=(result,)), encode) == ToolMessage(
        parts=(ToolResult(call_id="c", name="look", parts=named, is_error=True),)
    )
