from __future__ import annotations

import gc
import pickle
import subprocess
import sys
from typing import TYPE_CHECKING, Any

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
    ReasoningPart,
    SystemMessage,
    TextPart,
    ToolCall,
    ToolMessage,
    ToolResult,
    UserMessage,
    as_message,
)
from plait.plain import EMPTY, FrozenDict, parse_json, to_json

if TYPE_CHECKING:
    from plait.frozen import Frozen
    from plait.messages import Part

# Any text JSON can hold: lone surrogates and NUL too.
texts = st.text(st.characters(codec=None), max_size=8)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
json_data = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=5
)
objects = st.dictionaries(texts | st.sampled_from(["class_", "role", "type", "text"]), json_data, max_size=3)

text_parts = st.builds(TextPart, text=texts, refusal=st.booleans())
images = st.builds(ImagePart, url=st.none() | texts, data=st.none() | st.binary(max_size=8))
sounds = st.builds(AudioPart, data=st.binary(max_size=8), media_type=texts)
files = st.builds(FilePart, data=st.none() | st.binary(max_size=8), file_id=st.none() | texts, name=st.none() | texts)
content_parts = st.one_of(text_parts, images, sounds, files)
parts = st.one_of(
    content_parts,
    st.builds(ReasoningPart, text=texts, details=objects),
    st.builds(ToolCall, id=texts, name=texts, arguments=texts),
    st.builds(ToolResult, call_id=texts, name=texts, parts=st.lists(content_parts, max_size=2), is_error=st.booleans()),
)
some_parts = st.lists(parts, max_size=3)


class Scored(AssistantMessage):
    """A user's own class, with a default of its own for a field it inherits."""

    metadata: Any = FrozenDict({"kind": "scored"})
    score: float = 0.0
    tags: list[str] = []  # noqa: RUF012  # pydantic copies it, and plait freezes the copy
    image: bytes = b""


class Summary(Message, class_name="summary"):
    """A message that holds others."""

    of: Message
    sources: list[Message] = []  # noqa: RUF012  # as above
    by_name: dict[str, Message] | None = None


flat = st.one_of(
    st.builds(
        Message, role=st.sampled_from(["system", "user", "assistant", "tool"]), parts=some_parts, metadata=objects
    ),
    st.builds(UserMessage, parts=some_parts, metadata=objects),
    st.builds(SystemMessage, text=texts),
    st.builds(AssistantMessage, parts=some_parts, provider=st.none() | texts, model=st.none() | texts, details=objects),
    st.builds(ToolMessage, parts=some_parts),
    st.builds(
        Scored,
        parts=some_parts,
        metadata=objects,
        score=st.floats(allow_nan=False, allow_infinity=False),
        tags=st.lists(texts, max_size=2),
        image=st.binary(max_size=8),
    ),
    st.builds(
        lambda name, role, extra: Message.from_json({**extra, "class_": f"Unheard of {name}", "role": role}),
        texts,
        st.sampled_from(["user", "assistant"]),
        objects.map(lambda extra: {f"x{key}": value for key, value in extra.items()}),
    ),
)
messages = flat | st.builds(
    Summary, of=flat, sources=st.lists(flat, max_size=2), by_name=st.none() | st.dictionaries(texts, flat, max_size=2)
)


def run(code: str) -> str:
    """Run code in a process that knows none of the classes of these tests."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, text=True, timeout=45)
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- making messages, as users and type checkers see it ---


def test_shorthand() -> None:
    assert Message(text="hi") == Message(parts=(TextPart(text="hi"),))
    assert UserMessage(text="x", parts=[ImagePart(url="u")]).parts == (TextPart(text="x"), ImagePart(url="u"))
    assert Message(parts=[TextPart(text="a"), TextPart(text="b")]).text == "ab"
    assert ToolResult(call_id="c", text="ok") == ToolResult(call_id="c", parts=[TextPart(text="ok")])
    assert ToolResult(call_id="c", text="ok", parts=(ImagePart(url="u"),)).parts[1] == ImagePart(url="u")
    assert ToolCall(id="c", name="f").arguments == ""
    assert Message(text=None).parts == Message().parts == ()
    assert Scored(text="x", score=2, tags=["a"]).tags == ("a",)  # type: ignore[comparison-overlap]  # frozen


def test_repr_is_what_one_would_write() -> None:
    assert repr(Message(text="hi")) == "Message(text='hi')"
    assert repr((Message(text="You said: Hello!"),)) == "(Message(text='You said: Hello!'),)"
    assert repr(AssistantMessage(text="hi", model="m")) == "AssistantMessage(text='hi', model='m')"
    assert repr(UserMessage(text="hi", metadata={"a": [1]})) == "UserMessage(text='hi', metadata={'a': (1,)})"
    assert repr(Message()) == "Message()"
    assert (
        repr(Message(parts=[TextPart(text="no", refusal=True)]))
        == "Message(parts=(TextPart(text='no', refusal=True),))"
    )
    assert repr(Message(text="a", parts=[ImagePart(url="u")])) == (
        "Message(parts=(TextPart(text='a'), ImagePart(url='u')))"
    )
    assert repr(ToolMessage(parts=[ToolResult(call_id="c", text="x")])) == (
        "ToolMessage(parts=(ToolResult(call_id='c', parts=(TextPart(text='x'),)),))"
    )


def test_what_a_message_says() -> None:
    made = AssistantMessage(
        parts=[
            ReasoningPart(text="hm"),
            TextPart(text="a"),
            ToolCall(id="1", name="f"),
            TextPart(text="no", refusal=True),
            TextPart(text="b"),
            ToolCall(id="2", name="g"),
        ]
    )
    assert (made.text, str(made), made.refusal, made.reasoning) == ("ab", "ab", "no", "hm")
    assert made.tool_calls == (ToolCall(id="1", name="f"), ToolCall(id="2", name="g"))
    assert made.tool_results == ()
    assert Message(parts=[TextPart(text="no", refusal=True)]).text == ""
    assert f"{UserMessage(text='hi')}" == "hi"
    results = (ToolResult(call_id="1", text="x"), ToolResult(call_id="2"))
    assert ToolMessage(parts=results).tool_results == results


@pytest.mark.parametrize(
    ("made", "role"),
    [
        (Message, "user"),
        (UserMessage, "user"),
        (SystemMessage, "system"),
        (AssistantMessage, "assistant"),
        (ToolMessage, "tool"),
    ],
)
def test_roles(made: type[Message], role: str) -> None:
    assert made(text="x").role == role


ROLES = "role: input should be 'system', 'user', 'assistant' or 'tool'"


@pytest.mark.parametrize(
    ("made", "fields", "sentence"),
    [
        (Message, {"role": "robot"}, f"{ROLES} (given: 'robot')"),
        (Message, {"content": "x"}, "content: extra inputs are not permitted"),
        (Message, {"parts": "abc"}, "parts: input should be a valid tuple (given: 'abc')"),
        (Message, {"text": "x", "parts": "abc"}, "parts: input should be a valid tuple (given: 'abc')"),
        (Message, {"text": "x", "parts": 3}, "parts: input should be a valid tuple (given: 3)"),
        (
            Message,
            {"parts": [{"type": "video"}]},
            (
                "parts.0: the type should be one of 'text', 'reasoning', 'tool_call', 'tool_result', 'server_tool', "
                "'image', 'audio', 'file' (given: {'type': 'video'})"
            ),
        ),
        (
            Message,
            {"parts": [ToolCall(id="1", name="f"), "x"]},
            "parts.1: input should be a valid dictionary or object to extract fields from (given: 'x')",
        ),
        (Message, {"parts": [{"type": "text"}]}, "parts.0.text.text: field required"),
        (
            ToolResult,
            {"call_id": "c", "parts": [ToolCall(id="1", name="f")]},
            "parts.0: the type should be one of 'text', 'image', 'audio', 'file' (given: ToolCall(id='1', name='f'))",
        ),
        (
            Message,
            {"metadata": {1: 2}},
            "metadata: the key 1 of a mapping is no string; JSON objects have string keys",
        ),
        (
            ImagePart,
            {"data": "not base64!"},
            "data: data should be valid base64: Invalid symbol 32, offset 3. (given: 'not base64!')",
        ),
        (Summary, {"of": "x"}, "of: input should be a valid dictionary or instance of Message (given: 'x')"),
        (Summary, {"of": {"role": "robot"}}, f"of: Message is not valid: {ROLES} (given: 'robot')"),
    ],
)
def test_wrong_input_is_one_sentence(made: type[Frozen], fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        made(**fields)
    assert str(raised.value) == f"{made.__name__} is not valid: {sentence}"
    with pytest.raises(ConfigurationError) as raised:
        made.model_validate(fields)
    assert str(raised.value) == f"{made.__name__} is not valid: {sentence}"


def test_wrong_shorthand_is_one_sentence() -> None:
    with pytest.raises(ConfigurationError, match=r"^Message\(text=\.\.\.\) takes a str, not int$"):
        Message(text=3)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"^ToolResult\(text=\.\.\.\) takes a str, not bytes$"):
        ToolResult(call_id="c", text=b"")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"^class_ is no field of Message; Message\.from_json reads what to"):
        Message(class_="Message")  # type: ignore[call-arg]
    with pytest.raises(ConfigurationError, match=r"^Message has no field 'text' to change; its fields are role, par"):
        Message(text="x").model_copy(update={"text": "y"})
    with pytest.raises(ConfigurationError, match=r"^Message is not valid: input should be an object \(given: \[\]\)$"):
        Message.model_validate_json("[]")


def test_nothing_of_the_caller_is_changed_or_kept() -> None:
    given_parts: list[Part] = [TextPart(text="a")]
    given_metadata = {"a": [1]}
    made = Message(text="x", parts=given_parts, metadata=given_metadata)
    given_parts.append(TextPart(text="b"))
    given_metadata["a"].append(2)
    assert given_parts == [TextPart(text="a"), TextPart(text="b")]
    assert made == Message(parts=[TextPart(text="x"), TextPart(text="a")], metadata={"a": [1]})


# --- JSON ---


@given(messages)
def test_every_message_survives_json(message: Message) -> None:
    data = message.to_json()
    again = Message.from_json(parse_json(to_json(data)))
    assert again == message
    assert type(again) is type(message)
    assert (again.hash_key, hash(again), again.to_json()) == (message.hash_key, hash(message), data)
    assert repr(again) == repr(message)


@given(messages)
def test_every_message_survives_pickling(message: Message) -> None:
    again = pickle.loads(pickle.dumps(message))  # noqa: S301  # its own bytes
    assert again == message
    assert type(again) is type(message)
    assert again.to_json() == message.to_json()


@given(messages)
def test_the_whole_is_in_pydantics_json(message: Message) -> None:
    data = message.model_dump()
    assert data.keys() == type(message).model_fields.keys()
    if isinstance(message, Summary):
        assert data["of"].keys() == type(message.of).model_fields.keys()


def test_json_form() -> None:
    assert Message(text="hi").to_json() == {
        "class_": "Message",
        "role": "user",
        "parts": [{"type": "text", "text": "hi"}],
    }
    assert AssistantMessage(parts=[ToolCall(id="1", name="f", arguments="{")], details={"a": ()}).to_json() == {
        "class_": "AssistantMessage",
        "role": "assistant",
        "parts": [{"type": "tool_call", "id": "1", "name": "f", "arguments": "{"}],
        "details": {"a": []},
    }
    assert Message(parts=[ImagePart(data=b"\xff\x00")]).to_json()["parts"] == [{"type": "image", "data": "/wA="}]
    assert Message(text="\ud800\x00").to_json()["parts"] == [{"type": "text", "text": "\ud800\x00"}]


def test_subclasses_keep_their_class_and_fields() -> None:
    nested = Summary(
        of=Scored(text="a", score=1.5), sources=[UserMessage(text="b"), Summary(of=Message())], by_name={"c": Scored()}
    )
    again = Message.from_json(parse_json(to_json(nested.to_json())))
    assert again == nested
    assert isinstance(again, Summary)
    assert [type(again.of), type(again.sources[1])] == [Scored, Summary]
    assert nested.to_json()["class_"] == nested.class_ == "summary"
    assert parse_json(nested.model_dump_json())["of"]["score"] == 1.5


def test_a_field_takes_messages_of_its_class_only() -> None:
    class Reply(Message):
        to: UserMessage

    assert Reply(to=UserMessage(text="x")).to.text == "x"
    assert Reply.model_validate({"to": {"class_": "UserMessage", "parts": []}}).to == UserMessage()
    with pytest.raises(ConfigurationError, match="to: input should be a UserMessage, not a SystemMessage"):
        Reply.model_validate({"to": {"class_": "SystemMessage"}})
    with pytest.raises(ConfigurationError, match="to: input should be a valid dictionary or instance of UserMessage"):
        Reply(to=SystemMessage(text="x"))  # type: ignore[arg-type]


UNKNOWN = {
    "class_": "Quote",
    "role": "assistant",
    "parts": [{"type": "text", "text": "hi"}],
    "metadata": {"a": [1]},
    "source": {"author": "x", "pages": [1, 2]},
    "extra": 1,
    "unknown_class": "y",
    "text": "z",
}


def test_a_message_of_an_unknown_class_is_kept_as_it_is() -> None:
    made = Message.from_json(UNKNOWN)
    assert made.to_json() == UNKNOWN
    assert isinstance(made, Message)
    assert (made.role, made.text, made.metadata, made.class_) == ("assistant", "hi", {"a": (1,)}, "Quote")
    assert repr(made).startswith("Message(role='assistant', text='hi', ")
    assert made == Message.from_json(UNKNOWN)
    assert made != Message.from_json({**UNKNOWN, "class_": "Other"})
    changed = made.model_copy(update={"metadata": {}})
    assert changed.to_json() == {key: value for key, value in UNKNOWN.items() if key != "metadata"}
    for name in ("_UnknownMessage", "", "plait.messages.Message", "os.system"):
        assert Message.from_json({"class_": name, "role": "user"}).to_json() == {"class_": name, "role": "user"}


def test_another_process_that_does_not_know_a_class_keeps_its_messages() -> None:
    nested = Summary(of=Scored(text="a", score=1.5, metadata={}), sources=[UserMessage(text="\ud800")])
    data = to_json(nested.to_json())
    code = f"""
from plait.messages import Message
from plait.plain import parse_json, to_json
made = Message.from_json(parse_json({data!r}))
inner = Message.from_json(parse_json({to_json(nested.of.to_json())!r}))
assert (inner.role, inner.text) == ("assistant", "a"), inner
print(to_json(made.to_json()).decode(), made.hash_key)
"""
    written, hash_key = run(code).rsplit(maxsplit=1)
    assert Message.from_json(parse_json(written)) == nested
    assert hash_key == nested.hash_key


def test_loading_imports_nothing() -> None:
    code = """
import sys
from plait.messages import Message
Message.from_json({"class_": "warm"})
before = set(sys.modules)
made = Message.from_json({"class_": "antigravity.Message", "role": "user"})
made.to_json(), made.hash_key
print(sorted(set(sys.modules) - before))
"""
    assert run(code) == "[]\n"


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (None, "a message is a JSON object, not NoneType"),
        ([], "a message is a JSON object, not list"),
        ({"class_": 3}, "the class_ of a message is a text, not int"),
        ({"class_": ["Message"]}, "the class_ of a message is a text, not list"),
        ({"class_": "Message", "no": 1}, "Message is not valid: no: extra inputs are not permitted"),
        ({"class_": "Unheard of", "parts": 3}, "Message is not valid: parts: input should be a valid tuple (given: 3)"),
    ],
)
def test_what_is_no_message_is_refused(data: Any, sentence: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        Message.from_json(data)
    assert str(raised.value) == sentence


# --- classes ---


def test_two_classes_of_one_name_are_an_error() -> None:
    with pytest.raises(
        ConfigurationError, match=r"two message classes are named 'Scored': .* give one of them class_name="
    ):
        type("Scored", (Message,), {"__module__": "elsewhere"})
    with pytest.raises(ConfigurationError, match="two message classes are named 'Message'"):
        type("Message", (Message,), {})
    with pytest.raises(ConfigurationError, match="two message classes are named 'summary'"):
        type("Mine", (Message,), {}, class_name="summary")
    made = type("Scored", (Message,), {"__module__": "elsewhere"}, class_name="Scored elsewhere")
    assert type(Message.from_json({"class_": "Scored elsewhere"})) is made
    assert type(Message.from_json({"class_": "Scored"})) is Scored


def test_a_class_may_be_defined_again() -> None:
    def define() -> type[Message]:
        class Again(Message):
            x: int = 0

        return Again

    first, second = define(), define()
    assert first is not second
    assert type(Message.from_json({"class_": "Again", "x": 1})) is second


def test_a_class_that_is_gone_is_unknown() -> None:
    made = type("Passing", (Message,), {})
    assert type(Message.from_json({"class_": "Passing"})) is made
    del made
    gc.collect()
    assert Message.from_json({"class_": "Passing", "role": "user"}).to_json() == {"class_": "Passing", "role": "user"}


# --- what users hand over as a prompt ---


def test_as_message() -> None:
    made = UserMessage(text="x")
    assert as_message(made) is made
    assert as_message("x") == made
    assert as_message({"role": "user", "content": "x"}) == made
    assert as_message(FrozenDict({"role": "assistant", "content": ""})) == AssistantMessage(text="")
    assert as_message({"role": "system", "content": "x"}) == SystemMessage(text="x")
    assert as_message({"role": "developer", "content": "x"}) == SystemMessage(text="x")


@pytest.mark.parametrize(("value", "kind"), [(None, "NoneType"), (["x"], "list"), (3, "int")])
def test_what_is_no_prompt_is_refused(value: Any, kind: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        as_message(value)
    assert str(raised.value) == (
        f"a prompt or message is text, a Message, or {{'role': 'user', 'content': 'text'}}, not {kind}"
    )


@pytest.mark.parametrize(
    ("value", "has"),
    [
        ({}, "nothing"),
        ({"role": "robot", "content": "secret"}, "role='robot', content"),
        ({"role": [], "content": "secret"}, "role=[], content"),
        ({"role": "user", "content": b"secret"}, "role='user', content"),
        ({"role": "assistant", "content": None, "tool_calls": [1]}, "role='assistant', content, tool_calls"),
        ({"role": "assistant", "content": "x", "tool_calls": [1]}, "role='assistant', content, tool_calls"),
        ({"role": "tool", "content": "x", "tool_call_id": "1"}, "role='tool', content, tool_call_id"),
        ({"role": "tool", "content": "x"}, "role='tool', content"),
    ],
)
def test_a_mapping_that_is_no_plain_message_is_refused(value: dict[str, Any], has: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        as_message(value)
    assert str(raised.value) == (
        f"a message needs a role (user, system, developer, assistant) and a text content; this one has {has}. "
        "Make a Message of what is more than text"
    )


def test_defaults_are_shared_and_read_only() -> None:
    assert Message(text="a").metadata is EMPTY
    with pytest.raises(TypeError, match="read-only"):
        Message(text="a").metadata["x"] = 1  # type: ignore[index]


def test_a_repr_does_not_hold_an_image() -> None:
    assert repr(ImagePart(data=b"short")) == "ImagePart(data=b'short')"
    assert repr(ImagePart(data=bytes(5_000_000), detail="low")) == "ImagePart(data=<5,000,000 bytes>, detail='low')"
