from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from plait.errors import (
    ConfigurationError,
    EmptyAnswer,
    PlaitError,
    ProtocolViolation,
    ProviderError,
    RateLimited,
    StreamTruncated,
    TransportError,
)
from plait.events import (
    Answer,
    Delta,
    DetailsDelta,
    FinishDelta,
    Fold,
    ModelDelta,
    PartDelta,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    Usage,
    UsageDelta,
)
from plait.messages import (
    AssistantMessage,
    AudioPart,
    FilePart,
    ImagePart,
    Message,
    Part,
    ReasoningPart,
    ServerToolPart,
    SystemMessage,
    TextPart,
    ToolCall,
    ToolMessage,
    ToolResult,
    UserMessage,
)
from plait.plain import FrozenDict
from plait.providers.anthropic import AnthropicProvider
from plait.providers.anthropic_answer import AnthropicReader, read_usage
from plait.providers.anthropic_request import encode_container, encode_message
from plait.providers.base import Request, Settings, ToolDefinition
from plait.providers.chat import ChatProvider
from plait.providers.sse import EventReader
from plait.providers.status import Service
from plait.schema import output_schema

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from providers.conftest import Serve


class Forest(BaseModel):
    trees: list[Forest]


KEY: Final = "sk-ant-very-secret"
SERVICE: Final = Service(provider="anthropic", address="127.0.0.1:80", model="claude-1")
HI: Final = UserMessage(text="Hi")
PNG: Final = b"\x89PNG"
MARK: Final = {"type": "ephemeral"}


def provider(**options: Any) -> AnthropicProvider:
    return AnthropicProvider("claude-1", api_key=KEY, **options)


def body(*messages: Message, **fields: Any) -> Any:
    request = Request(messages=messages or (HI,), **{"stream": False, **fields})
    return json.loads(provider().encode(request))


def sent(message: Message) -> Any:
    """The blocks in which a message is sent."""
    data = encode_message(message, "anthropic")
    if not data:
        return None
    content = json.loads(data)["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


# --- requests --------------------------------------------------------------------------------------------------------


def test_a_plain_request() -> None:
    assert body(SystemMessage(text="Be brief."), HI, AssistantMessage(text="Hello."), UserMessage(text="More")) == {
        "model": "claude-1",
        "max_tokens": 4096,
        "system": [{"type": "text", "text": "Be brief."}],
        "messages": [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello."},
            {"role": "user", "content": "More"},
        ],
    }
    assert body(stream=True)["stream"] is True


def test_all_system_text_is_said_first() -> None:
    later = SystemMessage(parts=(TextPart(text="b"), TextPart(text=""), TextPart(text="c")))
    made = body(SystemMessage(text="a"), HI, later)
    assert made["system"] == [{"type": "text", "text": text} for text in "abc"]
    assert made["messages"] == [{"role": "user", "content": "Hi"}]
    assert "system" not in body(SystemMessage(text=""), HI)


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (TextPart(text="Hi", details={"cache_control": MARK, "annotations": [1]}), {"cache_control": MARK}),
        (ImagePart(data=PNG), {"type": "base64", "media_type": "image/png", "data": "iVBORw=="}),
        (ImagePart(url="data:image/gif;base64,R0lG"), {"type": "base64", "media_type": "image/gif", "data": "R0lG"}),
        (ImagePart(url="https://a.test/b.png", detail="low"), {"type": "url", "url": "https://a.test/b.png"}),
        (FilePart(data=b"%PDF", name="a.pdf"), {"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="}),
        (FilePart(url="https://a.test/b.pdf"), {"type": "url", "url": "https://a.test/b.pdf"}),
        (FilePart(url="data:text/plain,grün"), {"type": "text", "media_type": "text/plain", "data": "grün"}),
        (FilePart(file_id="file_1"), {"type": "file", "file_id": "file_1"}),
        (FilePart(file_id="file_1", media_type="image/png"), {"type": "file", "file_id": "file_1"}),
        (
            FilePart(data="\ufeffgrün".encode(), media_type="text/markdown; charset=utf-8"),
            {"type": "text", "media_type": "text/plain", "data": "grün"},
        ),
    ],
)
def test_what_people_can_send(part: Part, said: dict[str, Any]) -> None:
    (block,) = sent(UserMessage(parts=(part,)))
    match part:
        case TextPart():
            assert block == {"type": "text", "text": "Hi", **said}
        case ImagePart():
            assert block == {"type": "image", "source": said}
        case FilePart(media_type="image/png"):
            assert block == {"type": "image", "source": said}
        case FilePart(name="a.pdf"):
            assert block == {"type": "document", "source": said, "title": "a.pdf"}
        case _:
            assert block == {"type": "document", "source": said}


def test_fields_of_a_document_and_a_file_for_the_code_execution_tool() -> None:
    details = {"citations": {"enabled": True}, "context": "of 1993", "cache_control": MARK, "source": "no"}
    (document,) = sent(UserMessage(parts=(FilePart(file_id="file_1", details=details),)))
    del details["source"]
    assert document == {"type": "document", "source": {"type": "file", "file_id": "file_1"}, **details}
    upload = FilePart(file_id="file_2", media_type="text/csv")
    assert sent(UserMessage(parts=(upload,))) == [{"type": "container_upload", "file_id": "file_2"}]


SAID: Final = AssistantMessage(
    provider="anthropic",
    parts=(
        ReasoningPart(text="Hm", details={"signature": "sig"}),
        ReasoningPart(details={"type": "redacted_thinking", "data": "secret"}),
        TextPart(text="As said", details={"citations": [{"type": "char_location", "cited_text": "x"}]}),
        ServerToolPart(name="web_search", details={"type": "server_tool_use", "id": "s", "input": {}, "x": None}),
        TextPart(text="because", refusal=True),
        ToolCall(id="c1", name="add", arguments='{"a": 1.0}', details={"caller": {"type": "direct"}}),
    ),
)


def test_what_the_model_said_goes_back_unchanged_and_in_its_order() -> None:
    assert sent(SAID) == [
        {"type": "thinking", "thinking": "Hm", "signature": "sig"},
        {"type": "redacted_thinking", "data": "secret"},
        {"type": "text", "text": "As said", "citations": [{"type": "char_location", "cited_text": "x"}]},
        {"type": "server_tool_use", "id": "s", "input": {}, "x": None},
        {"type": "tool_use", "id": "c1", "name": "add", "input": {"a": 1.0}, "caller": {"type": "direct"}},
    ]


def test_of_what_another_said_only_text_and_calls_go_on() -> None:
    image = ImagePart(data=PNG)
    other = SAID.model_copy(update={"provider": "openai", "parts": (*SAID.parts, image)})
    assert sent(other) == [
        {"type": "text", "text": "As said"},
        {"type": "text", "text": "because"},
        {"type": "tool_use", "id": "c1", "name": "add", "input": {"a": 1.0}},
    ]


def test_what_is_empty_or_was_cut_off_is_left_out() -> None:
    assert sent(UserMessage(parts=(TextPart(text=""), TextPart(text="Hi")))) == [{"type": "text", "text": "Hi"}]
    cut = AssistantMessage(provider="anthropic", parts=(ReasoningPart(text="I was about to"), TextPart(text="")))
    assert sent(cut) is None
    assert body(HI, cut, UserMessage(text=""), HI)["messages"] == [{"role": "user", "content": "Hi"}] * 2


@pytest.mark.parametrize("blank", ["", " ", "\n\n", "\t\r\n\u2028"])
def test_a_text_of_white_space_is_left_out(blank: str) -> None:
    """The API refuses it, but beside a call its own models say such texts, and it takes them back."""
    text, call = TextPart(text=blank), ToolCall(id="a", name="add", arguments="{}")
    said = {"type": "tool_use", "id": "a", "name": "add", "input": {}}
    assert sent(AssistantMessage(parts=(text, call))) == [*([{"type": "text", "text": blank}] if blank else []), said]
    assert sent(AssistantMessage(parts=(text, text))) is None
    nothing = ServerToolPart(name="search")
    assert sent(AssistantMessage(provider="anthropic", parts=(nothing, text))) is None
    assert sent(UserMessage(parts=(text,))) is None
    assert sent(ToolMessage(parts=(ToolResult(call_id="a", parts=(text,)),))) == [
        {"type": "tool_result", "tool_use_id": "a"}
    ]
    assert "system" not in body(SystemMessage(text=blank), HI)


def test_an_error_has_words_and_nothing_else() -> None:
    """The API: "content cannot be empty if `is_error` is true", "all content must be type `text`" there."""
    seen = (TextPart(text="no map"), ImagePart(data=PNG))
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw=="}}
    assert sent(
        ToolMessage(
            parts=(
                ToolResult(call_id="a", name="look", parts=seen, is_error=True),
                ToolResult(call_id="b", parts=seen[1:], is_error=True),
                ToolResult(call_id="c", text="", is_error=True),
            )
        )
    ) == [
        {"type": "tool_result", "tool_use_id": "a", "is_error": True, "content": "no map"},
        {"type": "tool_result", "tool_use_id": "b", "is_error": True, "content": "The call failed."},
        {"type": "tool_result", "tool_use_id": "c", "is_error": True, "content": "The call failed."},
        {"type": "text", "text": "From the result of 'look' (a):"},
        image,
        {"type": "text", "text": "From the result of b:"},
        image,
    ]


def test_the_first_message_is_a_users() -> None:
    """The API says: first message must use the "user" role. What is sent of a long thread may begin with an answer."""
    answer = AssistantMessage(text="Hello.")
    said = body(SystemMessage(text="Be kind."), UserMessage(text=" "), answer, HI)["messages"]
    assert [message["role"] for message in said] == ["user", "assistant", "user"]
    assert said[1:] == body(HI, answer, HI)["messages"][1:]


def test_the_results_of_a_turn_are_one_message() -> None:
    results = ToolMessage(
        parts=(
            ToolResult(call_id="a", text="18 C"),
            ToolResult(call_id="b", text="no such city", is_error=True),
            ToolResult(call_id="c", parts=(TextPart(text="it"), ImagePart(data=PNG), FilePart(data=b"%PDF-"))),
            ToolResult(call_id="d", text=""),
        )
    )
    image = {"type": "base64", "media_type": "image/png", "data": "iVBORw=="}
    pdf = {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}
    assert body(HI, results)["messages"][1] == {
        "role": "user",
        "content": [
            {"type": "tool_result", "tool_use_id": "a", "content": "18 C"},
            {"type": "tool_result", "tool_use_id": "b", "content": "no such city", "is_error": True},
            {
                "type": "tool_result",
                "tool_use_id": "c",
                "content": [
                    {"type": "text", "text": "it"},
                    {"type": "image", "source": image},
                    {"type": "document", "source": pdf},
                ],
            },
            {"type": "tool_result", "tool_use_id": "d"},
        ],
    }


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (ToolCall(id="a", name="add", arguments=""), ("a", "add", {})),
        (ToolCall(id="a", name="add", arguments="[1]"), ("a", "add", {"invalid_json": "[1]"})),
        (ToolCall(id="a", name="add", arguments='{"a": '), ("a", "add", {"invalid_json": '{"a": '})),
        (ToolCall(id="a", name="my tool!", arguments="{}"), ("a", "my_tool_", {})),
        (ToolCall(id="call|1 \0", name="add"), ("call_7c1_20_0", "add", {})),
        (ToolCall(id="", name=""), ("_", "_", {})),
    ],
)
def test_a_call_goes_back_in_a_form_that_the_api_takes(call: ToolCall, said: tuple[str, str, Any]) -> None:
    (block,) = sent(AssistantMessage(parts=(call,)))
    assert (block["id"], block["name"], block["input"]) == said
    (result,) = sent(ToolMessage(parts=(ToolResult(call_id=call.id, text="3"),)))
    assert result["tool_use_id"] == said[0]


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        (UserMessage(parts=(AudioPart(data=b"RIFF"),)), "role 'user' has a part of type 'audio', which cannot be sent"),
        (SystemMessage(parts=(ImagePart(data=PNG),)), "role 'system' has a part of type 'image', which cannot be sent"),
        (ToolMessage(parts=(TextPart(text="x"),)), "role 'tool' has a part of type 'text', which cannot be sent"),
        (AssistantMessage(parts=(ImagePart(data=PNG),)), "role 'assistant' has a part of type 'image'"),
        (UserMessage(parts=(ReasoningPart(text="x"),)), "role 'user' has a part of type 'reasoning'"),
        (UserMessage(parts=(ImagePart(data=b"<svg>", media_type="image/svg+xml"),)), "'image/svg+xml' cannot be sent"),
        (
            UserMessage(parts=(ImagePart(url="data:image/png;base64,?"),)),
            "an image part is a data: address whose data cannot be read; it must be data:image/png;base64,...",
        ),
        (UserMessage(parts=(ImagePart(),)), "an image part has neither url nor data; give it one of them"),
        (UserMessage(parts=(FilePart(),)), "a file part has neither data nor url nor file_id; give it one of them"),
        (
            UserMessage(parts=(FilePart(url="https://a.test/b.txt", media_type="text/plain"),)),
            "a file of type 'text/plain' cannot be sent to 'anthropic' by its address, only application/pdf; give its",
        ),
        (
            UserMessage(parts=(FilePart(data=b"PK", media_type="application/zip"),)),
            "type 'application/zip' cannot be sent",
        ),
        (
            UserMessage(parts=(FilePart(data=b"gr\xfcn", media_type="text/plain", name="a.txt"),)),
            "the text file 'a.txt' is not in UTF-8: its byte 2 is no part of any character",
        ),
    ],
)
def test_a_part_without_a_place_is_refused(message: Message, sentence: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        body(message)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (Settings(seed=1), "'anthropic' takes no 'seed'; leave it out"),
        (Settings(n=2), "'anthropic' takes no 'n'; leave it out"),
        (Settings(extra=FrozenDict({"messages": []})), "settings.extra must not hold ['messages']"),
        (
            Settings(extra=FrozenDict({"stream": True, "system": ""})),
            "settings.extra must not hold ['stream', 'system']",
        ),
    ],
)
def test_a_setting_without_a_place_is_refused(settings: Settings, sentence: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        body(settings=settings)
    assert sentence in str(caught.value)


TOOL: Final = ToolDefinition(name="add", description="Adds.", parameters={"type": "object", "properties": {}})


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (Settings(temperature=0.0, top_p=0.5, max_tokens=7, n=1), {"temperature": 0.0, "top_p": 0.5, "max_tokens": 7}),
        (Settings(stop=("a", "b")), {"stop_sequences": ["a", "b"]}),
        (Settings(stop=()), {}),
        (Settings(max_tokens=0), {"max_tokens": 0}),  # which fills the prompt cache, and asks for nothing
        (
            Settings(extra=FrozenDict({"thinking": {"type": "enabled", "budget_tokens": 10_000}})),
            {"max_tokens": 14_096},
        ),
        (Settings(extra=FrozenDict({"thinking": {"type": "adaptive"}})), {}),
        (Settings(temperature=1, extra=FrozenDict({"temperature": 0.5, "metadata": {"user_id": "u"}})), {}),
        (Settings(tool_choice="auto"), {}),
    ],
)
def test_settings(settings: Settings, said: dict[str, Any]) -> None:
    made = body(settings=settings)
    expected = {"max_tokens": 4096, **said, **json.loads(json.dumps(settings.extra))}
    assert {name: value for name, value in made.items() if name not in ("model", "messages")} == expected


@pytest.mark.parametrize(
    ("settings", "choice"),
    [
        (Settings(), None),
        (Settings(tool_choice="auto"), {"type": "auto"}),
        (Settings(tool_choice="required"), {"type": "any"}),
        (Settings(tool_choice="none", parallel_tool_calls=False), {"type": "none"}),
        (Settings(tool_choice="add", parallel_tool_calls=True), {"type": "tool", "name": "add"}),
        (Settings(parallel_tool_calls=False), {"type": "auto", "disable_parallel_tool_use": True}),
        (
            Settings(tool_choice="required", parallel_tool_calls=False),
            {"type": "any", "disable_parallel_tool_use": True},
        ),
    ],
)
def test_the_choice_of_tools(settings: Settings, choice: dict[str, Any] | None) -> None:
    made = body(settings=settings, tools=[TOOL])
    assert made["tools"] == [{"name": "add", "description": "Adds.", "input_schema": TOOL.parameters}]
    assert made.get("tool_choice") == choice


def test_a_strict_tool_is_enforced_where_the_model_can() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer", "minimum": 1}}, "required": ["a"]}
    tool = ToolDefinition(name="add", parameters={**schema, "additionalProperties": False}, strict=True)
    told = {
        **schema,
        "properties": {"a": {"type": "integer", "description": "{minimum: 1}"}},
        "additionalProperties": False,
    }
    assert body(tools=[tool])["tools"] == [{"name": "add", "input_schema": told, "strict": True}]
    plain = [{"name": "add", "input_schema": tool.parameters}]
    assert body(tools=[tool] * 21)["tools"] == plain * 21
    older = AnthropicProvider("claude-sonnet-4-20250514", api_key=KEY).encode(Request(messages=[HI], tools=[tool]))
    assert json.loads(older)["tools"] == plain
    deep = ToolDefinition(
        name="add", parameters={"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/A"}}}, strict=True
    )
    assert body(tools=[deep])["tools"] == [{"name": "add", "input_schema": deep.parameters}]


def test_a_schema_that_cannot_be_enforced_is_refused_where_nobody_asks_for_the_output_in_another_way() -> None:
    output = output_schema(Forest)
    assert not provider().enforces(output)
    with pytest.raises(
        ConfigurationError, match="'anthropic' cannot enforce the schema of 'Forest', which is recursive"
    ):
        body(output=output)
    assert provider().enforces(output_schema(list[int]))


def test_tools_of_the_providers_own_are_offered_beside_the_others() -> None:
    search = {"type": "web_search_20250305", "name": "web_search"}
    settings = Settings(extra=FrozenDict({"tools": [search]}), tool_choice="auto")
    assert body(settings=settings)["tools"] == [search]
    made = body(settings=settings, tools=[ToolDefinition(name="now")])
    assert [tool["name"] for tool in made["tools"]] == ["now", "web_search"]
    assert made["tool_choice"] == {"type": "auto"}


def test_an_output_type_is_enforced_and_leaves_other_fields_of_its_place_alone() -> None:
    output = output_schema(list[int])
    settings = Settings(extra=FrozenDict({"output_config": {"effort": "low"}}))
    made = body(output=output, settings=settings)["output_config"]
    assert made["effort"] == "low"
    assert made["format"]["type"] == "json_schema"
    assert made["format"]["schema"]["properties"]["result"] == {"type": "array", "items": {"type": "integer"}}


# --- the prompt cache ------------------------------------------------------------------------------------------------


def test_a_mark_ends_what_threads_share_and_the_api_marks_the_rest() -> None:
    messages = (SystemMessage(text="a"), SystemMessage(text="b"), HI)
    made = body(*messages, settings=Settings(cache=True), tools=[TOOL])
    assert made["cache_control"] == MARK
    assert made["system"] == [{"type": "text", "text": "a"}, {"type": "text", "text": "b", "cache_control": MARK}]
    assert json.dumps(made).count("cache_control") == 2
    hour = {"type": "ephemeral", "ttl": "1h"}
    bare = body(HI, settings=Settings(cache="1h"), tools=[ToolDefinition(name="now"), TOOL])
    assert bare["cache_control"] == bare["tools"][1]["cache_control"] == hour
    assert json.dumps(bare).count("cache_control") == 2
    assert body(HI, settings=Settings(cache=True))["cache_control"] == MARK


def test_without_being_asked_for_nothing_is_marked_but_what_somebody_marked() -> None:
    marked = SystemMessage(
        parts=(TextPart(text='"cache_control":', details={"cache_control": MARK}), TextPart(text="b"))
    )
    for cache in (None, False):
        assert "cache_control" not in json.dumps(body(SystemMessage(text="a"), HI, settings=Settings(cache=cache)))
    said = body(marked, HI, settings=Settings(cache=True))["system"]
    assert said == [{"type": "text", "text": '"cache_control":', "cache_control": MARK}, {"type": "text", "text": "b"}]
    quoted = body(SystemMessage(text='"cache_control":'), HI, settings=Settings(cache=True))["system"]
    assert quoted == [{"type": "text", "text": '"cache_control":', "cache_control": MARK}]


def test_other_dialects_leave_the_hint_out() -> None:
    asked = Request(messages=[UserMessage(parts=(TextPart(text="Hi", details={"cache_control": MARK}),))])
    plain = Request(messages=[HI])
    chat = ChatProvider("m", base_url="http://127.0.0.1:9")
    hinted = Request(messages=asked.messages, settings=Settings(cache=True))
    assert chat.encode(hinted) == chat.encode(plain)


@pytest.mark.parametrize("cache", [None, True])
def test_a_threads_next_request_begins_with_the_bytes_of_the_last(cache: bool | None) -> None:
    asked = provider()
    settings, tools = Settings(cache=cache), [TOOL]
    messages: list[Message] = [SystemMessage(text="Be brief."), HI]
    before = asked.encode(Request(messages=messages, settings=settings, tools=tools))
    messages += [SAID, ToolMessage(parts=(ToolResult(call_id="c1", text="3"),))]
    after = asked.encode(Request(messages=messages, settings=settings, tools=tools))
    assert after.startswith(before[: before.rindex(b"]")] + b",")


def test_lone_surrogates_and_nul_can_be_sent() -> None:
    assert body(UserMessage(text="\ud800\0"))["messages"][0]["content"] == "\ud800\0"


# --- containers ------------------------------------------------------------------------------------------------------

NOW: Final = datetime(2026, 5, 1, tzinfo=UTC)


def container(expires_at: object, **settings: Any) -> Any:
    details = {"container": {"id": "box", "expires_at": expires_at}}
    answer = AssistantMessage(text="x", provider="anthropic", details=details)
    extra = FrozenDict(settings or {"tools": [{"type": "code_execution_20260120", "name": "code_execution"}]})
    request = Request(messages=[HI, answer, HI], settings=Settings(extra=extra))
    return json.loads(b"{" + encode_container(request, "anthropic", NOW).removeprefix(b",") + b"}").get("container")


def test_a_container_is_named_again_as_long_as_it_lives() -> None:
    assert container("2026-05-01T00:00:01Z") == "box"
    assert container("2026-05-01T00:00:00Z") is None
    assert [container(junk) for junk in ("2026-05-02", "soon", None, 7)] == [None] * 4
    assert container("2027-01-01T00:00:00Z", container="mine", tools=[]) is None
    assert container("2027-01-01T00:00:00Z", metadata={}) is None


def test_only_ones_own_container_is_named() -> None:
    details = {"container": {"id": "box", "expires_at": "2027-01-01T00:00:00Z"}}
    settings = Settings(extra=FrozenDict({"tools": []}))
    for said in (AssistantMessage(text="x", provider="other", details=details), AssistantMessage(text="x"), HI):
        assert encode_container(Request(messages=[said], settings=settings), "anthropic", NOW) == b""
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    answer = AssistantMessage(text="x", provider="anthropic", details={"container": {"id": "box", "expires_at": later}})
    assert body(HI, answer, HI, settings=settings)["container"] == "box"


# --- answers ---------------------------------------------------------------------------------------------------------


def sse(*events: object) -> bytes:
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)


def began(index: int, kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": {"type": kind, **fields}}


def grew(index: int, kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": {"type": f"{kind}_delta", **fields}}


def ended(index: int) -> dict[str, Any]:
    return {"type": "content_block_stop", "index": index}


def text(index: int, *pieces: str) -> list[dict[str, Any]]:
    return [began(index, "text", text=""), *(grew(index, "text", text=piece) for piece in pieces), ended(index)]


def called(index: int, *pieces: str, **fields: Any) -> list[dict[str, Any]]:
    block = {"id": f"c{index}", "name": "add", "input": {}, **fields}
    grown = (grew(index, "input_json", partial_json=piece) for piece in pieces)
    return [began(index, "tool_use", **block), *grown, ended(index)]


def stopped(reason: str | None = "end_turn", **fields: Any) -> list[dict[str, Any]]:
    delta = {"stop_reason": reason, "stop_sequence": None, **fields}
    return [{"type": "message_delta", "delta": delta, "usage": {"output_tokens": 7}}, {"type": "message_stop"}]


START: Final = {
    "type": "message_start",
    "message": {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-1-1",
        "content": [],
        "stop_reason": None,
        "usage": {"input_tokens": 5, "output_tokens": 1},
    },
}
SPENT: Final = Usage(input_tokens=5, output_tokens=7)


def read(pieces: Iterable[bytes], *, clean: bool = True) -> Answer | PlaitError:
    """Read a stream with the pure parts, as the provider does."""
    frames, reader, fold = EventReader(), AnthropicReader(SERVICE), Fold("anthropic", "claude-1")
    begun = b""
    try:
        for piece in pieces:
            begun = begun or piece
            if events := frames.feed(piece):
                fold.add(reader.feed(events))
            if reader.done:
                break
        else:
            if clean and (events := frames.end()):
                fold.add(reader.feed(events))
        fold.add(reader.end(begun, broken=None if clean else TransportError("it broke")))
    except PlaitError as error:
        error.partial = error.partial or reader.partial
        return error
    return fold.answer()


def answer_to(*events: object) -> Answer:
    found = read([sse(*events)])
    assert isinstance(found, Answer), found
    return found


def failure_of(*events: object) -> PlaitError:
    found = read([sse(*events)])
    assert isinstance(found, PlaitError), found
    return found


def deltas_of(*events: object) -> list[Delta]:
    reader = AnthropicReader(SERVICE)
    said = reader.feed([json.dumps(event).encode() for event in events])
    return said + reader.end()


def test_the_deltas_of_a_stream() -> None:
    signed = [began(0, "thinking", thinking="", signature=""), grew(0, "thinking", thinking="Hm"), ended(0)]
    signed.insert(2, grew(0, "signature", signature="sig"))
    events = [
        START,
        {"type": "ping"},
        *signed,
        *text(1, "He", "", "llo"),
        *called(2, "", '{"a"', ": 1}"),
        *stopped("tool_use"),
    ]
    assert deltas_of(*events) == [
        ModelDelta("claude-1-1", "msg_1", "anthropic"),
        UsageDelta(Usage(input_tokens=5, output_tokens=1)),
        ReasoningDelta("Hm"),
        PartDelta(ReasoningPart(text="Hm", details={"signature": "sig"})),
        TextDelta("He"),
        TextDelta("llo"),
        ToolCallDelta(0, "c2", "add"),
        ToolCallDelta(0, arguments='{"a"'),
        ToolCallDelta(0, arguments=": 1}"),
        UsageDelta(SPENT),
        FinishDelta("tool_use"),
    ]


def test_every_kind_of_block_becomes_a_part_in_its_order() -> None:
    result = {"tool_use_id": "s1", "content": [{"type": "web_search_result", "page_age": None}]}
    search = began(3, "server_tool_use", id="s1", name="web_search", input={})
    cited = {"type": "char_location", "cited_text": "x"}
    answer = answer_to(
        START,
        *[began(0, "thinking", thinking="", signature=""), grew(0, "signature", signature="only"), ended(0)],
        *[began(1, "redacted_thinking", data="secret"), ended(1)],
        *text(2, "I look"),
        *[search, grew(3, "input_json", partial_json='{"query": "x"}'), ended(3)],
        *[began(4, "web_search_tool_result", **result), ended(4)],
        *text(5, "Found: "),
        *[
            began(6, "text", text="", citations=[]),
            grew(6, "citations", citation=cited),
            grew(6, "text", text="it"),
            ended(6),
        ],
        *text(7, "."),
        *[began(8, "hologram", light=[1]), ended(8)],
        *[
            began(8, "compaction", content=None),
            grew(8, "compaction", content="So far", encrypted_content="x"),
            ended(8),
        ],
        *called(9, caller={"type": "direct"}, toolset_name=None),
        *text(10, "So."),
        *stopped(),
    )
    assert answer.message == AssistantMessage(
        provider="anthropic",
        model="claude-1-1",
        parts=(
            ReasoningPart(details={"signature": "only"}),
            ReasoningPart(details={"type": "redacted_thinking", "data": "secret"}),
            TextPart(text="I look"),
            ServerToolPart(
                name="web_search",
                details={"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"query": "x"}},
            ),
            ServerToolPart(name="web_search_tool_result", details={"type": "web_search_tool_result", **result}),
            TextPart(text="Found: "),
            TextPart(text="it", details={"citations": [cited]}),
            TextPart(text="."),
            ServerToolPart(name="hologram", details={"type": "hologram", "light": [1]}),
            ServerToolPart(
                name="compaction", details={"type": "compaction", "content": "So far", "encrypted_content": "x"}
            ),
            ToolCall(id="c9", name="add", arguments="{}", details={"caller": {"type": "direct"}}),
            TextPart(text="So."),
        ),
    )
    assert answer.message.text == "I lookFound: it.So."
    whole = {**START["message"], "content": sent(answer.message), "stop_reason": "end_turn"}  # type: ignore[dict-item]  # it is a dict
    reader, fold = AnthropicReader(SERVICE), Fold("anthropic", "claude-1")
    fold.add(reader.whole(json.dumps(whole).encode()))
    assert fold.answer().message == answer.message


def test_what_goes_with_the_end_is_kept() -> None:
    box = {"id": "box", "expires_at": "2026-05-01T00:00:00Z"}
    answer = answer_to(START, *text(0, "a"), *stopped("stop_sequence", stop_sequence="X", container=box))
    assert answer.message.details == {"stop_sequence": "X", "container": box}
    assert (answer.finish_reason, answer.usage) == ("stop_sequence", SPENT)


def test_who_goes_on_where_a_model_declined_is_who_answers() -> None:
    hops = [("claude-1", "claude-2"), ("claude-2", "claude-3")]
    blocks = [{"from": {"model": one}, "to": {"model": other}, "trigger": {"type": "refusal"}} for one, other in hops]
    events = [event for at, hop in enumerate(blocks) for event in (began(at, "fallback", **hop), ended(at))]
    found = answer_to(START, *events, *text(2, "Yes."), *stopped())
    assert (found.message.model, found.response_id) == ("claude-3", "msg_1")
    assert sent(found.message) == [*({"type": "fallback"} | hop for hop in blocks), {"type": "text", "text": "Yes."}]


def test_the_reason_of_a_refusal_is_its_text() -> None:
    details = {"type": "refusal", "category": "bio", "explanation": "It is dangerous."}
    answer = answer_to(START, *text(0, "Well,"), *stopped("refusal", stop_details=details))
    assert (answer.message.text, answer.message.refusal) == ("Well,", "It is dangerous.")
    assert answer.message.details == {"stop_details": details}
    assert sent(answer.message) == [{"type": "text", "text": "Well,"}]
    silent = answer_to(START, *stopped("refusal", stop_details={**details, "explanation": None}))
    assert (silent.finish_reason, silent.message.parts) == ("refusal", ())
    assert RefusalDelta("It is dangerous.") in deltas_of(START, *stopped("refusal", stop_details=details))


@pytest.mark.parametrize(
    ("events", "arguments"),
    [
        (called(0), "{}"),
        (called(0, "", ""), "{}"),
        (called(0, input={"a": 1}), '{"a":1}'),
        (called(0, '{"a": 2}', input={"a": 1}), '{"a": 2}'),
        (called(0, input='{"a": 3}'), '{"a": 3}'),
        (called(0, input=None), "{}"),
        (called(0, '{"a": ')[:-1], '{"a": '),
        (called(0)[:-1], "{}"),
    ],
)
def test_the_arguments_of_a_call(events: list[Any], arguments: str) -> None:
    (call,) = answer_to(START, *events, *stopped("tool_use")).message.tool_calls
    assert (call.id, call.name, call.arguments) == ("c0", "add", arguments)


def test_a_call_of_the_providers_own_tool_whose_input_was_cut_off_is_left_out() -> None:
    cut = [began(0, "server_tool_use", id="s", name="x", input={}), grew(0, "input_json", partial_json='{"q')]
    answer = answer_to(START, *cut, *stopped("max_tokens"))
    assert (answer.message.parts, answer.finish_reason) == ((), "max_tokens")


def test_blocks_are_told_apart_by_their_numbers_or_their_order() -> None:
    mixed = [
        called(0, "1")[0],
        called(1)[0],
        *(grew(n, "input_json", partial_json=str(n)) for n in (1, 0, 1)),
        ended(0),
        ended(1),
    ]
    calls = answer_to(START, *mixed, *stopped()).message.tool_calls
    assert [(call.id, call.arguments) for call in calls] == [("c0", "0"), ("c1", "11")]
    numbered = [*text(0, "a"), *called(1, "{}"), *text(2, "b")]
    bare = [{name: value for name, value in event.items() if name != "index"} for event in numbered]
    parts = answer_to(START, *bare, *stopped()).message.parts
    assert parts == (TextPart(text="a"), ToolCall(id="c1", name="add", arguments="{}"), TextPart(text="b"))
    some = [event if event["type"] == "content_block_start" else bare[at] for at, event in enumerate(numbered)]
    assert answer_to(START, *some, *stopped()).message.parts == parts
    unended = [event for event in bare if event["type"] != "content_block_stop"]
    assert answer_to(START, *unended, *stopped()).message.parts == parts
    endless = [*text(0, "a")[:-1], *called(1)[:-1], *stopped()]
    assert answer_to(START, *endless).message.parts == (
        TextPart(text="a"),
        ToolCall(id="c1", name="add", arguments="{}"),
    )


def test_the_end_of_another_block_ends_none() -> None:
    first, second = called(0, "", "")[0], grew(0, "input_json", partial_json="{}")
    (call,) = answer_to(START, first, ended(9), second, ended(0), *stopped()).message.tool_calls
    assert call.arguments == "{}"


def test_an_empty_thought_is_none() -> None:
    empty = [began(0, "thinking", thinking="", signature=""), ended(0)]
    assert answer_to(START, *empty, *text(1, "a"), *stopped()).message.parts == (TextPart(text="a"),)


def test_pieces_of_blocks_that_never_began_count_where_they_say_what_they_are() -> None:
    answer = answer_to(START, grew(3, "thinking", thinking="Hm"), grew(4, "text", text="Hi"), *stopped())
    assert (answer.message.reasoning, answer.message.text) == ("Hm", "Hi")
    with pytest.raises(ProtocolViolation):
        raise failure_of(START, grew(3, "input_json", partial_json="{"), *stopped())


@pytest.mark.parametrize(
    "event",
    [
        {"type": "ping"},
        {"type": "news", "content_block": 7, "delta": {}},
        {},
        grew(0, "news", news=[1]),
        {"type": "content_block_stop", "index": 9},
        {"type": "content_block_stop"},
    ],
)
def test_events_that_say_nothing_are_skipped(event: Any) -> None:
    assert answer_to(event, START, event, *text(0, "a"), event, *stopped()).message.text == "a"


def test_what_comes_after_the_end_is_ignored() -> None:
    assert (
        answer_to(START, *text(0, "a"), *stopped(), *text(1, "b"), {"type": "error", "error": {}}).message.text == "a"
    )


@pytest.mark.parametrize(
    ("said", "usage"),
    [
        ({"input_tokens": 5, "output_tokens": 7}, SPENT),
        (
            {
                "input_tokens": 5,
                "output_tokens": 7,
                "cache_read_input_tokens": 100,
                "cache_creation_input_tokens": 20,
                "output_tokens_details": {"thinking_tokens": 3},
            },
            Usage(input_tokens=125, output_tokens=7, cache_read_tokens=100, cache_write_tokens=20, reasoning_tokens=3),
        ),
        ({"input_tokens": 5, "output_tokens": 7, "cache_read_input_tokens": -1, "output_tokens_details": [1]}, SPENT),
        ({"input_tokens": -5, "output_tokens": 7}, None),
        ({"input_tokens": 5, "output_tokens": "7"}, None),
        ({"input_tokens": 5, "output_tokens": 10**30}, None),
        ({"input_tokens": True, "output_tokens": 7}, None),
        ({"output_tokens": 7}, None),
        ({}, None),
    ],
)
def test_tokens(said: dict[str, Any], usage: Usage | None) -> None:
    assert read_usage(said) == usage
    begun = {**START, "message": {"model": "m", "content": []}}
    told = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": said}
    assert answer_to(begun, *text(0, "a"), told, {"type": "message_stop"}).usage == usage


def test_later_counts_take_the_place_of_earlier_ones_but_leave_what_they_leave_out() -> None:
    begun = {"input_tokens": 5, "cache_read_input_tokens": 100, "output_tokens": 1}
    start = {"type": "message_start", "message": {"usage": begun}}
    told = {"output_tokens": 9, "input_tokens": 6, "cache_read_input_tokens": None}
    events = [start, *text(0, "a"), {"type": "message_delta", "delta": {}, "usage": told}, {"type": "message_stop"}]
    assert answer_to(*events).usage == Usage(input_tokens=106, output_tokens=9, cache_read_tokens=100)


# --- what is no answer -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "event",
    [
        b"{nope",
        b"null",
        b"7",
        b"[]",
        b"\xff",
        b"<html>",
        b'{"type": "content_block_delta", "index": 0, "delta": null}',
        b'{"type": "content_block_delta", "index": 0, "delta": {"text": 7}}',
        b'{"type": "content_block_start", "index": 1, "content_block": null}',
        b'{"type": "content_block_start", "index": 1, "content_block": {"type": 7}}',
        b'{"type": "content_block_start", "index": 1}',
        b'{"type": "content_block_start", "index": 1, "content_block": {"type": "x", "deep": '
        + b"[" * 300
        + b"]" * 300
        + b"}}",
        b'{"type": "message_delta", "delta": {"stop_reason": 7}}',
    ],
)
def test_an_event_that_makes_no_sense_is_a_violation(event: bytes) -> None:
    start, rest = sse(START, *text(0, "so far")), sse(ended(1), *stopped())
    error = read([start + b"data: " + event + b"\n\n" + rest])
    assert isinstance(error, ProtocolViolation)
    assert (error.provider, error.partial) == ("anthropic", "so far")
    assert len(error.excerpt) <= 201


@pytest.mark.parametrize(
    "answer", [b"", b"{}", b'{"content": null}', b'{"content": {}}', b'{"content": [null]}', b"[]"]
)
def test_a_whole_answer_without_blocks_is_a_violation(answer: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        AnthropicReader(SERVICE).whole(answer)


@pytest.mark.parametrize(
    ("error", "made", "status", "retryable"),
    [
        ({"type": "overloaded_error", "message": "Overloaded"}, ProviderError, None, True),
        ({"type": "api_error", "message": "down"}, ProviderError, None, True),
        ({"type": "timeout_error", "message": "late"}, ProviderError, None, True),
        ({"type": "rate_limit_error", "message": "slow"}, RateLimited, 429, True),
        ({"type": "invalid_request_error", "message": "no"}, ProviderError, None, False),
        (None, ProviderError, None, False),
    ],
)
def test_an_error_inside_a_success_is_one(
    error: Any, made: type[ProviderError], status: int | None, retryable: bool
) -> None:
    event = {"type": "error", "error": error, "request_id": "req_1"}
    midway = failure_of(START, *text(0, "so far"), event)
    with pytest.raises(made) as whole:
        AnthropicReader(SERVICE).whole(json.dumps(event).encode())
    for found, partial in ((midway, "so far"), (whole.value, "")):
        assert isinstance(found, made)
        assert (found.status, found.retryable, found.request_id) == (status, retryable, "req_1")
        assert (found.code, found.partial) == (error and error["type"], partial)


def test_a_stream_without_its_end_mark_is_never_an_answer() -> None:
    events = [START, *text(0, "so far"), *stopped()]
    for more in ([], [b"data: [DONE]\n\n"], [b'data: {"type": "message_sto']):
        error = read([sse(*events[:-1]), *more])
        assert isinstance(error, StreamTruncated)
        assert error.partial == "so far"
    broken = read([sse(*events[:-1])], clean=False)
    assert isinstance(broken, StreamTruncated)
    assert isinstance(broken.__cause__, TransportError)
    assert isinstance(read([sse(*events)], clean=False), Answer)
    assert isinstance(read([b"<html>no</html>"]), ProtocolViolation)


@pytest.mark.parametrize(
    ("events", "empty"),
    [
        (stopped(), True),
        ([*text(0, ""), *stopped("stop_sequence")], True),
        ([began(0, "thinking", thinking="Hm", signature="s"), ended(0), *stopped()], True),
        (stopped(None), True),
        (stopped("max_tokens"), False),
        (stopped("model_context_window_exceeded"), False),
        (stopped("refusal"), False),
        (stopped("pause_turn"), False),
        (stopped("compaction"), False),
        ([*called(0), *stopped("tool_use")], False),
        ([*text(0, "a"), *stopped(None)], False),
        ([*text(0, "a"), *stopped("news")], False),
    ],
)
def test_an_answer_that_says_nothing_is_none_unless_it_says_why(events: list[Any], empty: bool) -> None:
    found = read([sse(START, *events)])
    assert isinstance(found, EmptyAnswer if empty else Answer)
    if isinstance(found, Answer):
        assert found.finish_reason == (events[-2]["delta"]["stop_reason"] or "")


def test_lone_surrogates_and_nul_are_kept() -> None:
    answer = answer_to(START, *text(0, "\ud800", "\0"), *called(1, '{"a": "\ud801"}'), *stopped())
    assert answer.message.text == "\ud800\0"
    assert answer.message.tool_calls[0].arguments == '{"a": "\ud801"}'


# --- cut and mangled streams -----------------------------------------------------------------------------------------

STREAM: Final = sse(
    START,
    *[began(0, "thinking", thinking="", signature=""), grew(0, "thinking", thinking="Grü")],
    *[grew(0, "signature", signature="sig"), ended(0)],
    *text(1, "Hällo ", "\N{SNOWMAN}"),
    {"type": "ping"},
    *text(2, "you"),
    *called(3, "", '{"a": ', "1}"),
    *[began(4, "web_search_tool_result", content=[{"x": None}]), ended(4)],
    *stopped("tool_use"),
)


def in_pieces(stream: bytes, cuts: Sequence[int]) -> list[bytes]:
    places = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    return [stream[a:b] for a, b in pairwise(places)]


@given(st.lists(st.integers(0, 10_000), max_size=60), st.sampled_from([b"\n", b"\r\n", b"\r"]))
def test_how_a_stream_is_cut_makes_no_difference(cuts: list[int], end: bytes) -> None:
    assert read(in_pieces(STREAM.replace(b"\n", end), cuts)) == read([STREAM])


@given(st.data())
def test_a_mangled_stream_is_an_answer_or_a_typed_error(data: st.DataObject) -> None:
    stream = bytearray(STREAM)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(stream) - 1))
        length = data.draw(st.integers(0, 40))
        put = data.draw(
            st.one_of(st.binary(max_size=8), st.sampled_from([b"null", b"{}", b'"', b"-1", b"text", b"\n\n"]))
        )
        stream[at : at + length] = put
        stream = stream or bytearray(b"x")
    clean = data.draw(st.booleans())
    found = read([bytes(stream)], clean=clean)
    assert isinstance(found, Answer | PlaitError)
    if isinstance(found, Answer):
        assert b"message_stop" in stream
        encode_message(found.message, "anthropic")
    again = read(in_pieces(bytes(stream), data.draw(st.lists(st.integers(0, 10_000), max_size=10))), clean=clean)
    assert type(again) is type(found)
    assert again == found if isinstance(found, Answer) else again.partial == found.partial  # type: ignore[union-attr]  # both are errors


# --- over HTTP -------------------------------------------------------------------------------------------------------


async def test_a_request_says_who_asks_and_in_which_version(serve: Serve) -> None:
    server = await serve(serve.whole({"content": [{"type": "text", "text": "Hi"}], "stop_reason": "end_turn"}))
    for base_url in (server.url, server.url.removesuffix("/v1"), server.url + "/"):
        asked = provider(base_url=base_url)
        async for deltas in asked.stream(Request(messages=[HI], stream=False)):
            assert deltas == [TextDelta("Hi"), FinishDelta("end_turn")]
    for request in server.requests:
        assert (request.path, request.headers["x-api-key"]) == ("/v1/messages", KEY)
        assert request.headers["anthropic-version"] == "2023-06-01"
        assert "authorization" not in request.headers
    assert len(server.requests) == 3


async def test_a_status_is_an_error_with_what_the_api_said(serve: Serve) -> None:
    said = {"type": "error", "error": {"type": "overloaded_error", "message": f"Overloaded, {KEY}"}, "request_id": "r"}
    server = await serve(serve.whole(said, 529, {"request-id": "req_9", "retry-after": "7"}))
    with pytest.raises(ProviderError) as caught:
        async for _ in provider(base_url=server.url).stream(Request(messages=[HI])):
            pass
    error = caught.value
    assert str(error) == "anthropic answered 529 (overloaded_error): Overloaded, ***; it asks to wait 7 s"
    assert (error.status, error.retryable, error.retry_after) == (529, True, 7.0)
    assert error.request_id == "req_9"


async def test_a_stream_over_http_comes_in_batches(serve: Serve) -> None:
    server = await serve(serve.stream(sse(START), sse(*text(0, "Hi")), sse(*stopped())))
    batches = [batch async for batch in provider(base_url=server.url).stream(Request(messages=[HI]))]
    assert [delta for batch in batches for delta in batch] == [
        ModelDelta("claude-1-1", "msg_1", "anthropic"),
        UsageDelta(Usage(input_tokens=5, output_tokens=1)),
        TextDelta("Hi"),
        UsageDelta(SPENT),
        FinishDelta("end_turn"),
    ]
    assert server.requests[0].json["stream"] is True


def test_details_are_frozen_where_they_are_given_out() -> None:
    given = [
        delta
        for delta in deltas_of(START, *text(0, "a"), *stopped(container={"id": "x"}))
        if type(delta) is DetailsDelta
    ]
    assert given == [DetailsDelta({"container": {"id": "x"}})]
    with pytest.raises(TypeError):
        given[0].details["container"]["id"] = "y"
