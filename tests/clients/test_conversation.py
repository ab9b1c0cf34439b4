from __future__ import annotations

import base64
from types import SimpleNamespace
from typing import Any

import pytest
from openai.types.chat import ChatCompletionMessage as SdkMessage

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
from plait.plain import FrozenDict

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
            {
                "role": "assistant",
                "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"a": 1}'}}],
            },
            AssistantMessage(parts=[ToolCall(id="c1", name="look", arguments='{"a": 1}')]),
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


def test_the_results_of_one_turn_s_calls_are_one_message() -> None:
    def result(call_id: str) -> dict[str, Any]:
        return {"role": "tool", "tool_call_id": call_id, "content": f"of {call_id}"}

    first, second = ToolResult(call_id="a", text="of a"), ToolResult(call_id="b", text="of b")
    assert read_messages([result("a"), result("b"), "And now?", result("a")], "openai") == (
        ToolMessage(parts=[first, second]),
        UserMessage(text="And now?"),
        ToolMessage(parts=[first]),
    )


def test_an_answer_goes_back_as_it_came_also_as_a_dict() -> None:
    details: dict[str, Any] = {
        "reasoning_details": [{"type": "reasoning.encrypted", "data": "secret"}],
        "annotations": [
            {"type": "url_citation", "url_citation": {"url": "u", "title": "t", "start_index": 0, "end_index": 1}},
            {"type": "file", "file": {"hash": "h"}},
        ],
    }
    answer = AssistantMessage(
        parts=[ReasoningPart(text="Hm.", details={"signature": "s"}), TextPart(text="Yes.")],
        provider="openrouter",
        model="m",
        details=details,
    )
    shown = answer_message(answer)
    assert (shown.annotations, shown.details) == (
        details["annotations"][:1],
        {"annotations": details["annotations"][1:]},
    )
    assert read_messages([shown], "openrouter") == (answer,)
    as_dict = AssistantMessage(
        parts=[ReasoningPart(text="Hm."), TextPart(text="Yes.")], provider="openrouter", details=details
    )
    assert read_messages([shown.model_dump()], "openrouter") == (as_dict,)
    assert read_messages([shown.to_dict()], "openrouter") == (as_dict,)


def test_what_is_given_is_left_as_it_is() -> None:
    given = [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}]
    read_messages(given, "openai")
    assert given == [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}]


CALL = "{'id': ..., 'type': 'function', 'function': {'name', 'arguments'}}"
PARTS = "parts are text, image_url, input_audio and file, as OpenAI has them, or those that plait.attachment makes"
MESSAGE = "a message is a dict such as {'role': 'user', 'content': 'Hello'}"


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ([], "messages must be a list such as [{'role': 'user', 'content': 'Hello'}]; there are none"),
        (7, "messages must be a list such as [{'role': 'user', 'content': 'Hello'}]; not int"),
        (["Hi", 7], f"messages[1] is a int; {MESSAGE}"),
        ([SimpleNamespace(role="user")], f"messages[0] is a SimpleNamespace; {MESSAGE}"),
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
            [{"role": "user", "content": "x", "name": "Ann"}],
            "messages[0] has a field 'name', which is not sent; a message of role 'user' has content, role",
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
    ],
)
def test_what_cannot_be_read_is_said(given: Any, sentence: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_messages(given, "openai")
    said = str(caught.value)
    assert said == sentence or (sentence.endswith(": ") and said.startswith(sentence))


def test_details_of_an_answer_are_frozen_with_it() -> None:
    (read,) = read_messages([{"role": "assistant", "content": "x", "details": {"a": [1]}}], "openrouter")
    assert isinstance(read, AssistantMessage)
    assert (read.details, type(read.details)) == ({"a": (1,)}, FrozenDict)
