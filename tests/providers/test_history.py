from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait.errors import ConfigurationError
from plait.messages import (
    AssistantMessage,
    AudioPart,
    FilePart,
    ImagePart,
    Message,
    Role,
    TextPart,
    ToolCall,
    ToolMessage,
    ToolResult,
    UserMessage,
)
from plait.plain import FrozenDict, parse_json
from plait.providers.base import Settings, ToolDefinition
from plait.providers.history import (
    check_extra,
    check_said_by_model,
    check_unsaid,
    described,
    named_tool,
    sendable_arguments,
    sendable_id,
    sendable_name,
    source_of,
    spared,
    text_in_lines,
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
    said = "a message with role {!r} has a part of type {!r}, which cannot be sent to 'acme'; leave it out{}"
    told: list[tuple[str, Role, str]] = [
        ("audio", "user", ", or send it as text"),
        ("file", "tool", ", or send it as text or images"),
        ("image", "system", ", or put it into a user message"),
        ("tool_call", "user", ""),
    ]
    for kind, role, more in told:
        assert str(unsendable(kind, role, "acme")) == said.format(role, kind, more)


def test_what_models_do_not_say_is_refused_but_not_an_image_that_another_one_made() -> None:
    image = ImagePart(data=b"x")
    check_said_by_model(AssistantMessage(provider="other", parts=(TextPart(text="Look:"), image)), "acme")
    with pytest.raises(ConfigurationError, match="role 'assistant' has a part of type 'image'"):
        check_said_by_model(AssistantMessage(parts=(image,)), "acme")


def test_what_has_no_place_is_refused_only_if_it_is_said() -> None:
    check_unsaid("acme", {"seed": None, "n": None})
    with pytest.raises(ConfigurationError, match="'acme' takes no 'seed'; leave it out"):
        check_unsaid("acme", {"n": None, "seed": 0})


def test_a_tool_is_described_by_what_is_known_of_it() -> None:
    assert described(ToolDefinition(name="look")) == {"name": "look"}
    assert described(ToolDefinition(name="look", description="Looks.")) == {"name": "look", "description": "Looks."}


def test_a_tool_that_must_be_called_is_one_of_those_that_are_offered() -> None:
    tools = [{"name": "look"}, {"type": "function", "function": {"name": "hear"}}, {"type": "search"}, 5]
    for choice in (None, "auto", "none", "required"):
        assert named_tool(Settings(tool_choice=choice), tools) is None
    assert [named_tool(Settings(tool_choice=name), tools) for name in ("look", "hear")] == ["look", "hear"]
    with pytest.raises(ConfigurationError, match="tool_choice='any' names no tool of the request; it has look, hear"):
        named_tool(Settings(tool_choice="any"), tools)


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

    sound, file, image = AudioPart(data=b"x"), FilePart(data=b"x", name="a\nb.pdf"), ImagePart(data=b"x")
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
    sung = AssistantMessage(parts=(TextPart(text="Hear"), sound, TextPart(text="!")))
    assert spared(sung, encode).text == (
        "Hear\n[A sound (audio/wav) stood here, which cannot be shown to this model.]\n!"
    )


def test_texts_that_are_sent_as_one_stand_on_lines_of_their_own() -> None:
    assert text_in_lines([TextPart(text="one"), ImagePart(data=b"x"), TextPart(text="two")]) == "one\ntwo"
    assert text_in_lines([]) == ""
