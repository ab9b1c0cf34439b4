from __future__ import annotations

import base64
import json
from types import SimpleNamespace
from typing import Any

import pytest
from openai.types.chat import ChatCompletionMessage as SdkMessage

from plait import ChatCompletion
from plait.clients.answers import answer_message
from plait.clients.conversation import read_messages
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
)

URL = "data:image/png;base64,aGk="


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("Hello", UserMessage(text="Hello")),
        ({"role": "user", "content": "Hello"}, UserMessage(text="Hello")),
        ({"role": "system", "content": "Be brief."}, SystemMessage(text="Be brief.")),
        ({"role": "developer", "content": "Be brief."}, SystemMessage(text="Be brief.")),
        ({"role": "assistant", "content": "Hi."}, AssistantMessage(text="Hi.")),
        (
            {"role": "assistant", "content": None, "refusal": "No."},
            AssistantMessage(parts=[TextPart(text="No.", refusal=True)]),
        ),
        (UserMessage(text="as it is"), UserMessage(text="as it is")),
        (
            {"role": "user", "content": [{"type": "text", "text": "What?"}, "And?"]},
            UserMessage(parts=[TextPart(text="What?"), TextPart(text="And?")]),
        ),
        (
            {"role": "user", "content": [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}]},
            UserMessage(parts=[TextPart(text="x", details={"cache_control": {"type": "ephemeral"}})]),
        ),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": URL, "detail": "low"}}]},
            UserMessage(parts=[ImagePart(url=URL, detail="low")]),
        ),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": "https://example.org/a.png"}]},
            UserMessage(parts=[ImagePart(url="https://example.org/a.png")]),
        ),
        (
            {
                "role": "user",
                "content": [
                    {
                        "type": "input_audio",
                        "input_audio": {"data": base64.b64encode(b"sound").decode(), "format": "mp3"},
                    }
                ],
            },
            UserMessage(parts=[AudioPart(data=b"sound", media_type="audio/mpeg")]),
        ),
        (
            {"role": "user", "content": [{"type": "file", "file": {"file_id": "file-1", "filename": "a.pdf"}}]},
            UserMessage(parts=[FilePart(file_id="file-1", name="a.pdf")]),
        ),
        (
            {"role": "assistant", "content": "", "images": [{"type": "image_url", "image_url": {"url": URL}}]},
            AssistantMessage(parts=[ImagePart(url=URL)]),
        ),
        (
            {"role": "user", "content": [{"type": "file", "file": {"file_data": URL}}]},
            UserMessage(parts=[FilePart(url=URL)]),
        ),
        (
            {
                "role": "assistant",
                "content": "Yes.",
                "reasoning": "Hm.",
                "reasoning_details": [{"type": "x", "data": "y"}],
            },
            AssistantMessage(
                parts=[ReasoningPart(text="Hm."), TextPart(text="Yes.")],
                details={"reasoning_details": [{"type": "x", "data": "y"}]},
                provider="openrouter",
            ),
        ),
        (
            SdkMessage(role="assistant", content="from the SDK"),
            AssistantMessage(text="from the SDK"),
        ),
    ],
)
def test_a_message_is_read(given: Any, expected: Message) -> None:
    assert read_messages([given], "openrouter") == (expected,)


def test_a_text_alone_is_what_the_user_says() -> None:
    assert read_messages("Hello", "openai") == (UserMessage(text="Hello"),)


def call(*ids: str) -> dict[str, Any]:
    calls = [{"id": one, "type": "function", "function": {"name": "look", "arguments": "{}"}} for one in ids]
    return {"role": "assistant", "tool_calls": calls}


def result(call_id: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": f"of {call_id}"}


def called(*ids: str) -> AssistantMessage:
    return AssistantMessage(parts=[ToolCall(id=one, name="look", arguments="{}") for one in ids])


def test_the_results_of_one_turn_s_calls_are_one_message() -> None:
    first, second = ToolResult(call_id="a", text="of a"), ToolResult(call_id="b", text="of b")
    given = [call("a", "b"), result("a"), result("b"), "And now?", call("c"), result("c")]
    assert read_messages(given, "openai") == (
        called("a", "b"),
        ToolMessage(parts=[first, second]),
        UserMessage(text="And now?"),
        called("c"),
        ToolMessage(parts=[ToolResult(call_id="c", text="of c")]),
    )


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (
            [call("a")],
            r"messages\[0\] has the call 'a', which has no result: after a message with tool_calls, each of them needs",
        ),
        ([call("a", "b"), result("a")], r"messages\[0\] has the call 'b', which has no result"),
        ([call("a"), "And now?", result("a")], r"messages\[0\] has the call 'a', which has no result"),
        (["Hi", call("a", "b"), result("b"), result("c")], r"messages\[3\] has a result of the call 'c'"),
        (
            ["Hello", result("a")],
            r"messages\[1\] has a result of the call 'a', and no such call is in the message before it",
        ),
    ],
)
def test_each_call_has_exactly_one_result(given: list[Any], sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        read_messages(given, "openai")


CITED = {"type": "url_citation", "url_citation": {"url": "u", "title": "t", "start_index": 0, "end_index": 1}}
ANSWERS = {
    "plain": [ReasoningPart(text="Hm."), TextPart(text="Yes.")],
    "signed thoughts": [ReasoningPart(text="Hm.", details={"signature": "s"}), TextPart(text="Yes.")],
    "an image": [TextPart(text="Look."), ImagePart(data=b"hi", media_type="image/png")],
    "text in pieces": [TextPart(text="One."), ReasoningPart(text="Hm."), TextPart(text="Two.")],
}


@pytest.mark.parametrize("parts", ANSWERS.values(), ids=ANSWERS)
def test_an_answer_goes_back_as_it_came_also_as_a_dict(parts: list[Any]) -> None:
    details: dict[str, Any] = {
        "reasoning_details": [{"type": "reasoning.encrypted", "data": "secret"}],
        "annotations": [CITED, {"type": "file", "file": {"hash": "h"}}],
    }
    answer = AssistantMessage(parts=parts, provider="openrouter", model="m", details=details)
    shown = answer_message(answer)
    assert shown.annotations == [CITED]
    for given in (shown, shown.model_dump(), shown.to_dict(), json.loads(shown.model_dump_json())):
        assert read_messages([given], "openrouter") == (answer,)


def test_a_signature_of_a_call_goes_back_too() -> None:
    signed = {"extra_content": {"google": {"thought_signature": "s"}}}
    answer = AssistantMessage(parts=[ToolCall(id="a", name="look", arguments="{}", details=signed)], provider="openai")
    shown = answer_message(answer)
    assert read_messages([shown.model_dump(), result("a")], "openai")[0] == answer
    assert read_messages([{"role": "assistant", "tool_calls": shown.tool_calls}, result("a")], "openai")[0] == called(
        "a"
    )
    foreign = {**call("a")["tool_calls"][0], **signed}
    (read, _) = read_messages([{"role": "assistant", "tool_calls": [foreign]}, result("a")], "openai")
    assert read.tool_calls[0].details == signed


def test_an_answer_that_the_caller_changed_is_the_caller_s() -> None:
    answer = AssistantMessage(parts=[ReasoningPart(text="Hm.", details={"signature": "s"}), TextPart(text="Yes.")])
    changed = {**answer_message(answer).model_dump(), "content": "No."}
    assert read_messages([changed], "anthropic")[0].text == "No."


def test_what_is_given_is_left_as_it_is() -> None:
    given = [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}]
    read_messages(given, "openai")
    assert given == [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}]


CALL = "{'id': ..., 'type': 'function', 'function': {'name', 'arguments'}}"
PARTS = "parts are text, image_url, input_audio and file, as OpenAI has them, or those that plait.attachment makes"
TAKEN = (
    "a message of role 'assistant' has annotations, content, images, reasoning, reasoning_content, reasoning_details, "
    "refusal, role, said, tool_calls"
)
MESSAGE = "a message is a dict such as {'role': 'user', 'content': 'Hello'}"


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ([], "messages must be a list such as [{'role': 'user', 'content': 'Hello'}]; there are none"),
        (7, "messages must be a list such as [{'role': 'user', 'content': 'Hello'}]; not int"),
        (["Hi", 7], f"messages[1] is of type int; {MESSAGE}"),
        ([SimpleNamespace(role="user")], f"messages[0] is of type SimpleNamespace; {MESSAGE}"),
        (
            [ChatCompletion(id="x", choices=[], created=0, model="m")],
            "messages[0] is a whole completion; what goes among the messages is its choices[0].message",
        ),
        ([{"content": "x"}], "messages[0] has the role None; the roles are system, developer, user, assistant, tool"),
        (
            [{"role": ["user"], "content": "x"}],
            "messages[0] has the role ['user']; the roles are system, developer, user, assistant, tool",
        ),
        (
            [{"role": "robot", "content": "x"}],
            "messages[0] has the role 'robot'; the roles are system, developer, user, assistant, tool",
        ),
        (
            [{"role": "user", "content": "x", "n": "A"}],
            "messages[0] has a field 'n', which is not sent; leave it out: a message of role 'user' has content, role",
        ),
        ([{"role": "user"}], "messages[0] has no content; give it a text, or a list of parts"),
        ([{"role": "user", "content": 7}], "messages[0]['content'] is a text, or a list of parts, not int"),
        (
            [{"role": "user", "content": [{"type": "video"}]}],
            f"messages[0]['content'][0] cannot be read ('video'); {PARTS}",
        ),
        (
            [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "*", "format": "wav"}}]}],
            "messages[0]['content'][0] holds data that is no base64",
        ),
        (
            [{"role": "tool", "content": "x"}],
            "messages[0] has no tool_call_id; a message of role 'tool' names the call whose result it is",
        ),
        (
            [{"role": "assistant", "tool_calls": [{"id": "x"}]}],
            f"messages[0]['tool_calls'][0] is no call: it must be {CALL}",
        ),
        (
            [{"role": "assistant", "tool_calls": [{"function": {"name": "x", "arguments": {}}}]}],
            "messages[0]['tool_calls'][0]['function']['arguments'] is the text of a JSON object, not dict",
        ),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "u", "detail": "most"}}]}],
            "messages[0]: ",
        ),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": URL, "cache_control": {}}]}],
            "messages[0]['content'][0] has a field 'cache_control', which is not sent with a part of this type",
        ),
        (
            [{"role": "user", "content": [{"type": "file", "file": {}}]}],
            "messages[0]['content'][0] holds no file: it needs file_data or file_id",
        ),
        (
            [{"role": "user", "content": [{"type": "file"}]}],
            "messages[0]['content'][0] has no 'file', an object with what it is",
        ),
        ([{"role": "user", "content": [{"type": "text"}]}], "messages[0]: "),
        (
            [{"role": "tool", "tool_call_id": "a", "content": 0}],
            "messages[0]['content'] is a text, or a list of parts, not int",
        ),
        ([{"role": "assistant", "tool_calls": 7}], "messages[0]['tool_calls'] is a list, not int"),
        (
            [{"role": "assistant", "reasoning_details": {"a": 1}}],
            "messages[0]['reasoning_details'] is a list, not dict",
        ),
        (
            [{"role": "assistant", "audio": {"id": "x"}}],
            f"messages[0] has a field 'audio', which is not sent; leave it out: {TAKEN}",
        ),
    ],
)
def test_what_cannot_be_read_is_said(given: Any, sentence: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_messages(given, "openai")
    said = str(caught.value)
    assert said == sentence or (sentence.endswith(": ") and said.startswith(sentence))
