from __future__ import annotations

import asyncio
import base64
import gc
import json
import pickle
import traceback
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Literal

import pytest

from plait import Agent
from plait.errors import (
    ConfigurationError,
    EmptyAnswer,
    ModelError,
    ProtocolViolation,
    ProviderError,
    RateLimited,
    Refused,
    StreamTruncated,
    TransportError,
)
from plait.events import Answer, FinishDelta, Fold, ModelDelta, Usage, UsageDelta
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
from plait.providers.base import Request, Settings, ToolDefinition
from plait.providers.chat import ChatProvider
from plait.providers.chat_answer import ChatReader, read_usage
from plait.providers.chat_request import message_bytes
from plait.providers.http import TransportLimits
from plait.providers.status import Service
from plait.providers.vendors import ChatForm
from plait.schema import output_schema

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from plait.events import Delta
    from providers.conftest import Serve

PATIENCE = 10.0
KEY = "sk-very-secret-key"
HI = (UserMessage(text="hi"),)
SERVICE = Service(provider="acme", address="acme.test:443", model="m1", secrets=(KEY,))


def provider(url: str = "http://127.0.0.1:9/v1", name: str = "acme", **options: Any) -> ChatProvider:
    return ChatProvider("m1", name=name, base_url=url, api_key=KEY, **options)


def body(*messages: Message, name: str = "acme", **options: Any) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(provider(name=name).encode(Request(messages=messages, **options)))
    return made


def wire(message: Message, name: str = "acme") -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = body(message, name=name)["messages"]
    return made


async def ask(asked: ChatProvider, *, stream: bool = True, **options: Any) -> list[Answer]:
    fold = Fold(asked.name, asked.model)
    async for batch in asked.stream(Request(messages=HI, stream=stream, **options)):
        fold.add(batch)
    return list(fold.answers())


# --- requests --------------------------------------------------------------------------------------------------------


def test_a_plain_request() -> None:
    assert body(SystemMessage(text="Be kind."), *HI, stream=False) == {
        "model": "m1",
        "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "hi"}],
    }
    assert body(*HI) == {
        "model": "m1",
        "stream": True,
        "stream_options": {"include_usage": True},
        "messages": [{"role": "user", "content": "hi"}],
    }


def test_what_people_can_send() -> None:
    data = base64.b64encode(b"abc").decode()
    message = UserMessage(
        parts=(
            TextPart(text="look"),
            ImagePart(url="https://x.test/a.png", detail="low"),
            ImagePart(data=b"abc", media_type="image/jpeg"),
            AudioPart(data=b"abc", media_type="audio/mpeg"),
            FilePart(data=b"abc", name="a.pdf"),
            FilePart(data=b"abc"),
            FilePart(file_id="file_1"),
        )
    )
    assert wire(message) == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "look"},
                {"type": "image_url", "image_url": {"url": "https://x.test/a.png", "detail": "low"}},
                {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{data}"}},
                {"type": "input_audio", "input_audio": {"data": data, "format": "mp3"}},
                {"type": "file", "file": {"file_data": f"data:application/pdf;base64,{data}", "filename": "a.pdf"}},
                {
                    "type": "file",
                    "file": {"file_data": f"data:application/octet-stream;base64,{data}", "filename": "file.bin"},
                },
                {"type": "file", "file": {"file_id": "file_1"}},
            ],
        }
    ]
    by_address = UserMessage(parts=(FilePart(url="https://x.test/a.pdf"),))
    assert wire(by_address, "openrouter")[0]["content"] == [
        {"type": "file", "file": {"file_data": "https://x.test/a.pdf", "filename": "a.pdf"}}
    ]


def test_what_models_said_goes_back() -> None:
    call = ToolCall(id="c1", name="add", arguments='{ "x":1 }')
    sent = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{ "x":1 }'}}
    assert wire(AssistantMessage(text="yes")) == [{"role": "assistant", "content": "yes"}]
    assert wire(AssistantMessage()) == [{"role": "assistant", "content": ""}]
    assert wire(AssistantMessage(parts=(call,))) == [{"role": "assistant", "content": None, "tool_calls": [sent]}]
    assert wire(AssistantMessage(text="I will", parts=(call,))) == [
        {"role": "assistant", "content": "I will", "tool_calls": [sent]}
    ]
    assert wire(AssistantMessage(parts=(TextPart(text="No.", refusal=True),))) == [
        {"role": "assistant", "content": None, "refusal": "No."}
    ]


@pytest.mark.parametrize(
    ("name", "arguments", "sent_name", "sent_arguments"),
    [
        ("add", '{"x": 1e999}', "add", '{"invalid_json":"{\\"x\\": 1e999}"}'),
        ("add", '{"x"', "add", '{"invalid_json":"{\\"x\\""}'),
        ("add", "[" * 10_000, "add", json.dumps({"invalid_json": "[" * 10_000}, separators=(",", ":"))),
        ("add", "[1]", "add", '{"invalid_json":"[1]"}'),
        ("add", '"\ud800"', "add", '{"invalid_json":"\\"\\ud800\\""}'),
        ("add", "", "add", "{}"),
        ("add", " \n", "add", "{}"),
        ("add", "null", "add", "{}"),
        ("add", ' {"x":"\ud800"}', "add", ' {"x":"\ud800"}'),
        ("", "{}", "_", "{}"),
        (" files.read\x1b", "{}", "_files_read_", "{}"),
        ("größe\n", "{}", "gr__e_", "{}"),
        ("x" * 65, "{}", "x" * 64, "{}"),
    ],
)
def test_a_call_goes_back_in_a_form_that_servers_take(
    name: str, arguments: str, sent_name: str, sent_arguments: str
) -> None:
    message = AssistantMessage(parts=(ToolCall(id="c1", name=name, arguments=arguments),))
    (call,) = wire(message)[0]["tool_calls"]
    assert call["function"] == {"name": sent_name, "arguments": sent_arguments}


def test_images_and_signatures_of_calls_go_back_to_their_vendor_alone() -> None:
    parts = (
        TextPart(text="a cat"),
        ImagePart(data=b"\x89PNG\r\n\x1a\n", media_type="image/png"),  # cut, as it came
        ToolCall(id="c", name="f", arguments="{}", details=FrozenDict({"extra_content": {"google": {"s": 1}}, "x": 1})),
    )
    message = AssistantMessage(parts=parts, provider="openrouter")
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    plain = {"role": "assistant", "content": "a cat", "tool_calls": [call]}
    own = {**plain, "tool_calls": [{**call, "extra_content": {"google": {"s": 1}}}]}
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    assert wire(message, "openrouter") == [{**own, "images": [image]}]
    assert wire(message, "openai") == wire(message) == [plain]
    with pytest.raises(ConfigurationError, match="a message with role 'assistant' has a part of type 'image', which"):
        wire(AssistantMessage(parts=parts), "openrouter")


@pytest.mark.parametrize("stream", [False, True])
def test_images_and_signatures_of_calls_are_read(stream: bool) -> None:
    call = {"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}, "extra_content": {"g": 1}}
    said = {
        "content": "a cat",
        "tool_calls": [call],
        "images": [
            {"type": "image_url", "image_url": {"url": "data:image/webp;base64,iVBORw=="}},
            {"type": "image_url", "image_url": {"url": "https://x.test/cat.png"}},
            {"type": "image_url"},
            7,
        ],
    }
    reader, fold = ChatReader(SERVICE), Fold("acme", "m1")
    event = {"choices": [{"index": 0, "delta" if stream else "message": said, "finish_reason": "stop"}]}
    if stream:
        fold.add(reader.feed([json.dumps(event).encode()]))
        fold.add(reader.end())
    else:
        fold.add(reader.whole(json.dumps(event).encode()))
    assert fold.answer().message.parts == (
        TextPart(text="a cat"),
        ToolCall(id="c", name="f", arguments="{}", details=FrozenDict({"extra_content": {"g": 1}})),
        ImagePart(data=b"\x89PNG", media_type="image/webp"),
        ImagePart(url="https://x.test/cat.png"),
    )


def test_a_vendors_own_fields_go_back_to_it_alone() -> None:
    details = {"reasoning_details": [{"type": "reasoning.encrypted", "data": "x"}], "annotations": [1], "other": 2}
    message = AssistantMessage(
        parts=(ReasoningPart(text="hm"), TextPart(text="yes")), provider="openrouter", details=FrozenDict(details)
    )
    plain = {"role": "assistant", "content": "yes"}
    own = {"reasoning_details": details["reasoning_details"], "annotations": [1]}
    assert wire(message, "openrouter") == [plain | own]
    assert wire(message, "openai") == wire(message) == [plain]
    thought = message.model_copy(update={"details": FrozenDict(), "provider": "ollama-chat"})
    assert wire(thought, "ollama-chat") == [plain | {"reasoning": "hm"}]
    assert wire(thought, "openrouter") == [plain]


def test_results_are_one_message_each_and_their_images_follow() -> None:
    image = ImagePart(url="https://x.test/a.png")
    message = ToolMessage(
        parts=(
            ToolResult(call_id="c1", name="see", parts=(TextPart(text="a picture"), image)),
            ToolResult(call_id="c2", name="add", text="3", is_error=False),
        )
    )
    assert wire(message) == [
        {"role": "tool", "tool_call_id": "c1", "content": "a picture"},
        {"role": "tool", "tool_call_id": "c2", "content": "3"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "From the result of 'see' (c1):"},
                {"type": "image_url", "image_url": {"url": "https://x.test/a.png"}},
            ],
        },
    ]


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (UserMessage(parts=(ToolCall(id="c", name="x"),)), "role 'user' has a part of type 'tool_call'"),
        (SystemMessage(parts=(ImagePart(url="https://x.test"),)), "role 'system' has a part of type 'image'"),
        (AssistantMessage(parts=(ImagePart(url="https://x.test"),)), "role 'assistant' has a part of type 'image'"),
        (ToolMessage(text="x"), "role 'tool' has a part of type 'text'"),
        (UserMessage(parts=(ImagePart(),)), "neither url nor data"),
        (UserMessage(parts=(FilePart(url="https://x.test"),)), "'acme' takes no file's url"),
        (UserMessage(parts=(FilePart(),)), "'acme' takes no file without data"),
    ],
)
async def test_what_cannot_be_said_is_refused_before_anything_is_sent(
    message: Message, said: str, serve: Serve
) -> None:
    server = await serve(serve.whole(b"x"))
    with pytest.raises(ConfigurationError, match=said):
        async for _ in provider(server.url).stream(Request(messages=[message])):
            pass
    assert server.connections == 0


def test_settings() -> None:
    settings = Settings(
        temperature=0.5,
        max_tokens=9,
        top_p=0.9,
        stop=("a", "b"),
        seed=1,
        n=2,
        tool_choice="add",
        parallel_tool_calls=False,
        extra=FrozenDict({"seed": 7, "reasoning": {"effort": "low"}}),
    )
    tool = ToolDefinition(name="add", description="Adds.", parameters={"type": "object"}, strict=True)
    bare = ToolDefinition(name="now")
    sent = body(*HI, settings=settings, tools=[tool, bare], stream=False)
    del sent["messages"]
    assert sent == {
        "model": "m1",
        "temperature": 0.5,
        "max_tokens": 9,
        "top_p": 0.9,
        "stop": ["a", "b"],
        "seed": 7,
        "n": 2,
        "tool_choice": {"type": "function", "function": {"name": "add"}},
        "parallel_tool_calls": False,
        "reasoning": {"effort": "low"},
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "add",
                    "description": "Adds.",
                    "parameters": {"type": "object"},
                    "strict": True,
                },
            },
            {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}},
        ],
    }
    assert body(*HI, settings=Settings(tool_choice="required"), tools=[bare])["tool_choice"] == "required"
    assert body(*HI, settings=Settings(tool_choice="required", parallel_tool_calls=True)) == body(*HI)


def test_openai_itself_gets_the_newer_name_of_max_tokens() -> None:
    request = Request(messages=HI, settings=Settings(max_tokens=9), stream=False)
    real = json.loads(ChatProvider("m1", api_key=KEY).encode(request))
    assert (real.get("max_tokens"), real.get("max_completion_tokens")) == (None, 9)
    assert body(*HI, name="openai", settings=request.settings)["max_tokens"] == 9


def test_the_librarys_own_fields_cannot_be_extra() -> None:
    with pytest.raises(ConfigurationError, match="messages"):
        body(*HI, settings=Settings(extra=FrozenDict({"messages": []})))


def test_an_output_type_is_a_response_format() -> None:
    output = output_schema(dict[Literal["a"], int])
    sent = body(*HI, output=output)["response_format"]
    expected = {"name": output.name, "schema": output.schema, **({"strict": True} if output.strict else {})}
    assert sent == {"type": "json_schema", "json_schema": expected}


def test_lone_surrogates_and_nul_can_be_sent() -> None:
    assert wire(UserMessage(text="a\ud83d\0")) == [{"role": "user", "content": "a\ud83d\0"}]


def test_a_threads_next_request_begins_with_the_bytes_of_the_last() -> None:
    asked = provider()
    tools = (ToolDefinition(name="add"),)
    history: list[Message] = [SystemMessage(text="Be kind."), UserMessage(text="hi")]
    before = asked.encode(Request(messages=history, tools=tools))
    history += [AssistantMessage(text="yes"), UserMessage(text="and?")]
    after = asked.encode(Request(messages=history, tools=tools))
    assert after.startswith(before[: before.rindex(b"]")] + b",")


def test_messages_are_encoded_once_and_forgotten_with_them() -> None:
    kept = message_bytes(ChatForm(provider="alone"))
    assert message_bytes(ChatForm(provider="alone")) is kept  # for all providers that send the same form
    message = UserMessage(text="hi")
    one, two = kept.all([message])[0], kept.all([message])[0]
    assert one is two
    assert kept.all([UserMessage(text="hi"), message])[1] is one
    gc.collect()
    assert len(kept) == 1
    del message
    gc.collect()
    assert len(kept) == 0


def test_tools_are_told_apart_by_what_they_are() -> None:
    asked = provider()
    for number in range(100):
        tools = [ToolDefinition(name=f"tool_{number}")]
        sent = json.loads(asked.encode(Request(messages=HI, tools=tools, settings=Settings(seed=number))))
        assert (sent["tools"][0]["function"]["name"], sent["seed"]) == (f"tool_{number}", number)


# --- answers ---------------------------------------------------------------------------------------------------------

USAGE = {
    "prompt_tokens": 7,
    "completion_tokens": 5,
    "total_tokens": 12,
    "prompt_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 2},
    "completion_tokens_details": {"reasoning_tokens": 4},
    "cost": 0.25,
}


def whole(message: dict[str, Any] | None = None, finish: str | None = "stop", **fields: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": "yes"} | (message or {}), "finish_reason": finish}
    return {"id": "a1", "model": "m1-7", "choices": [choice], **fields}


def read_whole(answer: object) -> list[Answer]:
    fold = Fold("acme", "m1")
    fold.add(ChatReader(SERVICE).whole(answer if isinstance(answer, bytes) else json.dumps(answer).encode()))
    return list(fold.answers())


def read_stream(*events: Any, expected: int = 1) -> list[Answer]:
    reader = ChatReader(SERVICE, expected=expected)
    fold = Fold("acme", "m1")
    for event in events:
        fold.add(reader.feed([event if isinstance(event, bytes) else json.dumps(event).encode()]))
    fold.add(reader.end())
    return list(fold.answers())


def chunk(finish: str | None = None, index: int = 0, **delta: Any) -> dict[str, Any]:
    return {"id": "a1", "model": "m1-7", "choices": [{"index": index, "delta": delta, "finish_reason": finish}]}


def said(answers: Sequence[Answer]) -> list[tuple[str, str | None]]:
    return [(answer.message.text, answer.finish_reason) for answer in answers]


def calls(answers: Sequence[Answer]) -> list[tuple[str, str, str]]:
    return [(call.id, call.name, call.arguments) for call in answers[0].message.tool_calls]


def test_a_whole_answer() -> None:
    details = {"reasoning_details": [{"type": "reasoning.text", "text": "hm"}], "annotations": [{"type": "file"}]}
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"x": 1}'}}
    answer = whole({"reasoning": "hm", "refusal": "no", "tool_calls": [call], **details}, usage=USAGE)
    expected = AssistantMessage(
        parts=(
            ReasoningPart(text="hm"),
            TextPart(text="yes"),
            TextPart(text="no", refusal=True),
            ToolCall(id="c1", name="add", arguments='{"x": 1}'),
        ),
        provider="acme",
        model="m1-7",
        details=FrozenDict(details),
    )
    usage = Usage(
        input_tokens=7, output_tokens=5, cache_read_tokens=3, cache_write_tokens=2, reasoning_tokens=4, cost=0.25
    )
    assert read_whole(answer) == [Answer(expected, "stop", usage, "a1")]


@pytest.mark.parametrize(
    "usage",
    [
        None,
        "many",
        [],
        {},
        {"prompt_tokens": 5},
        USAGE | {"prompt_tokens": -1},
        USAGE | {"completion_tokens": "5"},
        USAGE | {"completion_tokens": 1e99},
        USAGE | {"prompt_tokens": True},
        USAGE | {"prompt_tokens": 10**30},
    ],
)
def test_tokens_without_sense_are_unknown_not_zero(usage: object) -> None:
    assert read_whole(whole(usage=usage))[0].usage is None
    assert read_usage(usage) is None


def test_details_without_sense_do_not_spoil_the_tokens() -> None:
    odd = USAGE | {"prompt_tokens_details": None, "completion_tokens_details": {"reasoning_tokens": -4}, "cost": -1}
    assert read_usage(odd) == Usage(input_tokens=7, output_tokens=5)
    assert read_usage(json.loads('{"prompt_tokens": 1, "completion_tokens": 1, "cost": 1e999}')) == Usage(
        input_tokens=1, output_tokens=1
    )
    assert said(read_whole(json.dumps(whole()).encode()[:-1] + b', "usage": {"prompt_tokens": 1e999}}')) == [
        ("yes", "stop")
    ]


def test_a_stream() -> None:
    answers = read_stream(
        chunk(role="assistant", content=""),
        chunk(reasoning_content="h"),
        chunk(reasoning_content="m"),
        chunk(content="y"),
        chunk(content="es"),
        chunk(refusal="n"),
        chunk(refusal="o"),
        chunk("stop"),
        {"choices": [], "usage": USAGE},
        b"[DONE]",
    )
    parts = (ReasoningPart(text="hm"), TextPart(text="yes"), TextPart(text="no", refusal=True))
    message = AssistantMessage(parts=parts, provider="acme", model="m1-7")
    assert answers == [Answer(message, "stop", read_usage(USAGE), "a1")]


@pytest.mark.parametrize("told", [[USAGE], [USAGE, 3], [{}, USAGE, {"prompt_tokens": -1}]])
def test_tokens_without_sense_do_not_hide_others_however_the_stream_is_cut(told: list[object]) -> None:
    events = [chunk("stop", content="yes"), *({"choices": [], "usage": usage} for usage in told)]
    reader, fold = ChatReader(SERVICE), Fold("acme", "m1")
    fold.add(reader.feed([json.dumps(event).encode() for event in events]))
    fold.add(reader.end())
    assert list(fold.answers()) == read_stream(*events)
    assert fold.usage == read_usage(USAGE)


def test_reasoning_in_pieces_is_put_together_as_it_must_go_back() -> None:
    text = {"type": "reasoning.text", "index": 0, "format": None}
    answers = read_stream(
        chunk(reasoning="a", reasoning_details=[text | {"text": "a"}]),
        chunk(reasoning="b", reasoning_details=[text | {"text": "b", "signature": "s"}]),
        chunk(reasoning_details=[{"type": "reasoning.encrypted", "index": 1, "data": "x"}]),
        chunk(reasoning_details=[{"type": "reasoning.encrypted", "index": 1, "data": "y"}]),
        chunk("stop", content="yes"),
    )
    assert answers[0].message.to_json()["details"] == {
        "reasoning_details": [
            text | {"text": "ab", "signature": "s"},
            {"type": "reasoning.encrypted", "index": 1, "data": "x"},
            {"type": "reasoning.encrypted", "index": 1, "data": "y"},
        ]
    }


def test_odd_details_of_reasoning_go_back_as_they_came() -> None:
    summary = {"type": "reasoning.summary", "id": "r1"}
    answers = read_stream(
        chunk(reasoning_details=["odd", {"type": ["odd"]}, {"type": "reasoning.text"}, {"type": "reasoning.text"}]),
        chunk(reasoning_details=[summary | {"summary": None}, {"type": "reasoning.summary", "summary": "a"}]),
        chunk(reasoning_details=[summary | {"summary": 5}, summary | {"summary": "b"}, {"type": "reasoning.summary"}]),
        chunk(reasoning_details=[summary | {"id": "r2", "summary": "c"}, None]),
        chunk("stop", content="yes"),
    )
    assert answers[0].message.to_json()["details"] == {
        "reasoning_details": [
            "odd",
            {"type": ["odd"]},
            {"type": "reasoning.text"},
            summary | {"summary": "ab"},
            {"type": "reasoning.summary", "id": "r2", "summary": "c"},
            None,
        ]
    }


@pytest.mark.parametrize("value", ["NaN", "[" * 200 + "]" * 200])
@pytest.mark.parametrize("field", ["reasoning_details", "annotations", "extra_content"])
def test_own_fields_that_could_not_go_back_are_refused(field: str, value: str) -> None:
    fields = f'"tool_calls": [{{"{field}": {value}}}]' if field == "extra_content" else f'"{field}": [{value}]'
    answer = f'{{"choices": [{{"message": {{"content": "yes", {fields}}}, "finish_reason": "stop"}}]}}'
    with pytest.raises(ProtocolViolation, match="acme sent something that cannot be kept: ") as caught:
        ChatReader(SERVICE).whole(answer.encode())
    assert caught.value.partial == "yes"


def test_thoughts_among_the_parts_of_content_are_thoughts() -> None:
    """As Mistral's models think: https://docs.mistral.ai/capabilities/reasoning/."""
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm, "}, {"type": "text", "text": "4."}]}
    for answer in (
        read_stream(
            chunk(content=[thought]), chunk(content=[{"type": "text", "text": "It is"}]), chunk("stop", content=" 4")
        ),
        read_whole(whole({"content": [thought, {"type": "text", "text": "It is 4"}]})),
    ):
        assert answer[0].message.parts == (ReasoningPart(text="Hm, 4."), TextPart(text="It is 4"))


def test_an_empty_reason_is_no_end_mark() -> None:
    """Some servers say it with every piece: a stream that breaks off must not pass for a whole one."""
    pieces = chunk("", content="a"), chunk("", content="b")
    with pytest.raises(StreamTruncated):
        read_stream(*pieces)
    assert (
        said(read_stream(*pieces, chunk("stop")))
        == said(read_stream(*pieces, chunk("stop"), chunk("")))
        == [("ab", "stop")]
    )
    assert said(read_stream(*pieces, b" [DONE]")) == [("ab", "")]


def test_several_choices_are_told_apart() -> None:
    events = [
        chunk(index=1, content="b"),
        chunk(index=0, content="a"),
        chunk("stop", index=0),
        chunk(index=1, content="B"),
        chunk("length", index=1),
    ]
    assert said(read_stream(*events, expected=2)) == [("a", "stop"), ("bB", "length")]
    with pytest.raises(StreamTruncated) as caught:
        read_stream(*events[:-1], expected=2)
    assert caught.value.partial == "a"
    with pytest.raises(StreamTruncated):
        read_stream(chunk("stop", content="a"), expected=2)


def piece(index: int | None = None, id: str | None = None, name: str | None = None, arguments: Any = "") -> Any:  # noqa: A002  # the field's name
    made: dict[str, Any] = {"function": {"name": name, "arguments": arguments}}
    return made | ({} if index is None else {"index": index}) | ({} if id is None else {"id": id})


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        # One call in pieces, then another.
        (
            [piece(0, "a", "f"), piece(0, arguments="{"), piece(0, arguments="}"), piece(1, "b", "g", "{}")],
            [("a", "f", "{}"), ("b", "g", "{}")],
        ),
        # Pieces of two calls mixed.
        (
            [piece(0, "a", "f", "1"), piece(1, "b", "g", "2"), piece(0, arguments="3"), piece(1, arguments="4")],
            [("a", "f", "13"), ("b", "g", "24")],
        ),
        # Gaps in the index, and the higher first.
        ([piece(5, "b", "g", "2"), piece(2, "a", "f", "1")], [("a", "f", "1"), ("b", "g", "2")]),
        # No index: by id, else the last call.
        (
            [piece(None, "a", "f", "1"), piece(None, "b", "g", "2"), piece(None, "a", None, "3"), piece(arguments="4")],
            [("a", "f", "13"), ("b", "g", "24")],
        ),
        # No index and no id: a name begins a call.
        ([piece(name="f", arguments="1"), piece(arguments="2"), piece(name="g", arguments="3")], ["f12", "g3"]),
        # A new id and name under an old index is another call; the same id again is not.
        (
            [piece(0, "a", "f", "1"), piece(0, "b", "g", "2"), piece(0, arguments="3"), piece(0, "b", "g", "4")],
            [("a", "f", "1"), ("b", "g", "234")],
        ),
        # The id comes late, and the name again and again.
        ([piece(0, None, "f", "1"), piece(0, "a", "f", "2")], [("a", "f", "12")]),
        # Another name is another call, whatever else is the same.
        ([piece(0, None, "f"), piece(0, None, "g", "2")], ["f", "g2"]),
        (
            [piece(0, "a", "f"), piece(0, "a", "g", "2"), piece(0, "a", arguments="3")],
            [("a", "f", ""), ("a", "g", "23")],
        ),
        ([piece(None, "a", "f"), piece(None, "a", "g", "2"), piece(None, "a", None, "3")], ["f", "g23"]),
        # Arguments as an object, or not at all.
        (
            [piece(0, "a", "f", {"x": [1, "ü"]}), piece(1, "b", "g", None)],
            [("a", "f", '{"x":[1,"ü"]}'), ("b", "g", "")],
        ),
        # Whole calls of one tool, all of them under one index: another one each, unless the id says no.
        ([piece(0, "", "f", '{"a":1}'), piece(0, "", "f", '{"a":2}')], ['f{"a":1}', 'f{"a":2}']),
        ([piece(0, "", "f", '{"a":'), piece(0, "", "f", '{"b":1}}')], ['f{"a":{"b":1}}']),
        ([piece(0, "a", "f", "{}"), piece(0, "a", "f", "{}")], ["f{}{}"]),
        # A mixture of both ways to count.
        ([piece(0, "a", "f", "1"), piece(None, "b", "g", "2"), piece(1, "c", "h", "3")], ["f1", "g2", "h3"]),
    ],
)
def test_pieces_of_tool_calls_find_their_call(pieces: list[Any], expected: list[Any]) -> None:
    answers = read_stream(*[chunk(tool_calls=[one]) for one in pieces], chunk("tool_calls"))
    together = read_stream(chunk(tool_calls=pieces), chunk("tool_calls"))
    assert [found[1:] for found in calls(together)] == [found[1:] for found in calls(answers)]
    if isinstance(expected[0], str):
        assert [name + arguments for _, name, arguments in calls(answers)] == expected
    else:
        assert calls(answers) == expected


def test_calls_of_a_whole_answer_are_one_each_whatever_their_numbers() -> None:
    same = {"id": "a", "index": 0, "function": {"name": "f", "arguments": {}}}
    odd = [same, same, {"function": {"name": "g"}}, {"id": None, "function": None}]
    found = calls(read_whole(whole({"content": None, "tool_calls": odd}, "stop")))
    assert found == [("a", "f", "{}"), ("a", "f", "{}"), ("", "g", ""), ("", "", "")]  # ids are as they were sent


@pytest.mark.parametrize(
    "message",
    [
        {"tool_calls": None, "function_call": {"name": "old", "arguments": "{}"}, "audio": None, "new": {"a": 1}},
        {"content": [{"type": "text", "text": "y"}, {"type": "thinking", "thinking": []}, {"text": "es"}, 7]},
        {"role": None},
    ],
)
def test_what_is_not_known_is_left_alone(message: dict[str, Any]) -> None:
    assert said(read_whole(whole(message, service_tier=None, logprobs={"a": 1}))) == [("yes", "stop")]


def test_reasons_pass_through() -> None:
    assert said(read_whole(whole(finish="because"))) == [("yes", "because")]
    assert said(read_whole(whole(finish=None))) == [("yes", "")]
    assert said(read_stream(chunk(content="a"), b"[DONE]")) == [("a", "")]
    assert said(read_stream(chunk("stop", content="a"))) == [("a", "stop")]


def test_what_comes_after_the_end_is_ignored() -> None:
    assert said(read_stream(chunk("stop", content="a"), b"[DONE]", b"[DONE]", b"junk")) == [("a", "stop")]


@pytest.mark.parametrize(
    "event",
    [
        {"choices": None, "prompt_filter_results": []},
        {"choices": [], "prompt_filter_results": []},
        {"type": "ping"},
        {"choices": [{"index": 0, "delta": None}]},
        {"choices": [{}]},
        {"object": "other", "choices": []},
    ],
)
def test_events_that_say_nothing_are_skipped(event: dict[str, Any]) -> None:
    assert said(read_stream(event, chunk("stop", content="a"))) == [("a", "stop")]


VIOLATIONS: list[bytes] = [
    b"",
    b"null",
    b"7",
    b"[]",
    b'"text"',
    b"<html>",
    b'{"choices": [{"index": 0',
    b'{"choices": {}}',
    b'{"choices": [{"delta": {"content": 5}, "message": {"content": 5}}]}',
    b'{"choices": [{"delta": {"content": "\xff"}, "message": {"content": "\xff"}}]}',
    b'{"choices": [{"index": 0, "delta": {"tool_calls": [7]}, "message": {"tool_calls": [7]}}]}',
    b'{"usage": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    b'{"choices": ' + b"9" * 10_000 + b"}",
]


@pytest.mark.parametrize("data", VIOLATIONS, ids=lambda data: repr(data[:40]))
def test_what_is_no_answer_is_a_violation(data: bytes) -> None:
    with pytest.raises(ProtocolViolation) as caught:
        read_whole(data)
    assert len(caught.value.excerpt) <= 201
    with pytest.raises(ProtocolViolation) as caught:
        read_stream(chunk(content="so far"), data)
    assert (caught.value.partial, caught.value.retryable) == ("so far", False)


@pytest.mark.parametrize("answer", [{"choices": None}, {"choices": []}, {}, {"id": "x"}, {"detail": "no"}])
def test_a_whole_answer_without_choices_is_a_violation(answer: object) -> None:
    with pytest.raises(ProtocolViolation, match="acme answered without a choice"):
        read_whole(answer)
    with pytest.raises(ProtocolViolation, match="acme answered without a choice"):
        read_stream(answer, answer, b"[DONE]")


def test_duplicate_keys_and_huge_numbers_are_survived() -> None:
    answer = b'{"id":"a","id":"b","x":1e999,"y":' + b"9" * 400 + b',"choices":[{"message":{"content":"yes"}}]}'
    assert said(read_whole(answer)) == [("yes", "")]


def test_lone_surrogates_and_nul_are_kept() -> None:
    data = b'{"choices":[{"index":0,"delta":{"content":"a\\ud83d\\u0000"},"finish_reason":"stop"}]}'
    assert said(read_stream(data)) == [("a\ud83d\0", "stop")]
    assert said(read_whole(data.replace(b"delta", b"message"))) == [("a\ud83d\0", "stop")]


@pytest.mark.parametrize(
    ("error", "made", "status", "code", "retryable"),
    [
        ({"message": "bad", "code": 400}, ProviderError, 400, "400", False),
        ({"message": "slow", "code": 429}, RateLimited, 429, "429", True),
        ({"message": "down", "type": "server_error"}, ProviderError, None, "server_error", True),
        ("down", ProviderError, None, None, False),
    ],
)
def test_an_error_inside_a_success_is_an_error(
    error: object, made: type, status: int | None, code: str | None, retryable: bool
) -> None:
    bare = [error | {"object": "error"}] if isinstance(error, dict) else []
    nested = {"choices": [{"error": error, "finish_reason": "error"}]}
    for answer in ({"error": error}, whole(error=error), nested, *bare):
        with pytest.raises(ProviderError) as caught:
            read_whole(answer)
        found = caught.value
        assert (type(found), found.status, found.code, found.retryable) == (made, status, code, retryable)
        with pytest.raises(ProviderError) as caught:
            read_stream(chunk(content="so far"), answer)
        assert caught.value.partial == "so far"


@pytest.mark.parametrize("content", [None, ""])
def test_an_empty_answer_is_one_unless_it_says_why(content: str | None) -> None:
    for finish in ("stop", "tool_calls", "odd", None):
        with pytest.raises(EmptyAnswer) as caught:
            read_whole(whole({"content": content}, finish))
        assert caught.value.retryable
    with pytest.raises(EmptyAnswer):
        read_stream(chunk(content=content), chunk("stop"))
    for finish in ("length", "content_filter"):
        assert said(read_whole(whole({"content": content}, finish))) == [("", finish)]
        assert said(read_stream(chunk(content=content), chunk(finish))) == [("", finish)]


THOUGHT: dict[str, Any] = {"content": None, "reasoning": "hm"}
CALL = {"id": "c1", "type": "function", "function": {"name": "", "arguments": ""}}
SILENT: list[dict[str, Any]] = [
    {"content": None},
    {"content": ""},
    {"content": []},
    {"content": [{"type": "thinking", "thinking": []}]},
    {"content": [{"type": "text", "text": ""}]},
    {"content": None, "tool_calls": []},
    {"content": None, "refusal": ""},
    THOUGHT,
    {"content": None, "reasoning_details": [{"type": "reasoning.text", "text": "hm"}]},
]
SPEAKING: list[dict[str, Any]] = [
    {"content": " "},
    {"content": [{"type": "thinking"}, {"type": "text", "text": "yes"}]},
    {"content": None, "refusal": "no"},
    {"content": None, "tool_calls": [CALL]},
    THOUGHT | {"content": "yes"},
]


class Unjudged:
    """A provider that gives the deltas of one message as they were read, whether or not they are an answer."""

    name = "acme"
    model = "m1"

    def __init__(self, message: dict[str, Any], finish: str | None) -> None:
        self.deltas = ChatReader(SERVICE).feed([json.dumps(whole(message, finish)).encode()])
        self.finish = finish or ""

    async def stream(self, request: Request) -> AsyncGenerator[list[Delta], None]:
        yield [*self.deltas, FinishDelta(self.finish)]


async def judged_by_the_loop(message: dict[str, Any], finish: str | None) -> bool:
    """Whether the loop takes a message for an empty answer."""
    try:
        await Agent(provider=Unjudged(message, finish), max_turns=1).run("hi")
    except EmptyAnswer:
        return True
    except Refused:
        pass
    return False


@pytest.mark.parametrize("finish", ["stop", "tool_calls", "length", "content_filter", "odd", "", None])
@pytest.mark.parametrize("message", [*SILENT, *SPEAKING], ids=json.dumps)
async def test_what_is_empty_is_so_for_the_provider_and_for_the_loop(
    message: dict[str, Any], finish: str | None
) -> None:
    """Only the provider's verdict is asked for again, so the loop must not find more of them."""
    empty = message in SILENT and finish not in ("length", "content_filter")
    said_so = pytest.raises(EmptyAnswer) if empty else nullcontext()
    with said_so:
        assert read_whole(whole(message, finish))[0].finish_reason == (finish or "")
    with said_so:
        assert read_stream(whole(message, finish), b"[DONE]")[0].finish_reason == (finish or "")
    assert await judged_by_the_loop(message, finish) is empty


# --- over HTTP -------------------------------------------------------------------------------------------------------


async def test_a_stream_over_http_comes_in_batches(serve: Serve) -> None:
    go = asyncio.Event()
    server = await serve(
        serve.stream(
            serve.event(serve.chunk("a")) + serve.event(serve.chunk("b")),
            go,
            serve.event(serve.chunk("c", "stop")),
            serve.event({"choices": [], "usage": USAGE}) + serve.event(b"[DONE]"),
        )
    )
    batches = []
    async for batch in provider(server.url).stream(Request(messages=HI)):
        batches.append([type(delta).__name__ for delta in batch])
        go.set()
    assert batches[0] == ["ModelDelta", "TextDelta", "TextDelta"]
    assert [name for batch in batches[1:] for name in batch] == ["TextDelta", "UsageDelta", "FinishDelta"]
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"


async def test_a_whole_answer_over_http_is_one_batch(serve: Serve) -> None:
    server = await serve(serve.whole(whole(usage=USAGE)))
    batches = [batch async for batch in provider(server.url).stream(Request(messages=HI, stream=False))]
    assert [[type(delta).__name__ for delta in batch] for batch in batches] == [
        ["ModelDelta", "TextDelta", "UsageDelta", "FinishDelta"]
    ]


async def test_after_each_kind_of_end_the_connection_is_kept(serve: Serve) -> None:
    event = serve.event(serve.chunk("a", "stop"))
    server = await serve(
        serve.stream(event),
        serve.stream(event + serve.event(b"[DONE]")),
        serve.stream(event, serve.event(b"[DONE]"), b"data: junk\n\n"),
        serve.whole(whole()),
    )
    asked = provider(server.url)
    for _ in range(4):
        assert (await ask(asked))[0].finish_reason == "stop"
    assert (server.connections, len(server.requests)) == (1, 4)


@pytest.mark.parametrize(
    ("steps", "partial", "late"),
    [
        (["END"], "ab", False),
        (["close"], "ab", False),
        (["reset"], "ab", False),
        (["hold"], "ab", True),
        ([b'data: {"choices": [{"index": 0, "delta": {"content": "never"', "END"], "ab", False),
        ([b'data: {"choices": [{"index": 0, "delta": {"content": "never"\n\n', "END"], None, False),
    ],
)
async def test_a_stream_without_its_end_is_never_a_success(
    steps: list[Any], partial: str | None, late: bool, serve: Serve
) -> None:
    begun = [serve.event(serve.chunk("a")), serve.event(serve.chunk("b"))]
    ended = steps[-1] == "END"
    server = await serve(serve.stream(*begun, *(step for step in steps if step != "END"), end=ended))
    got: list[Any] = []

    async def collect() -> None:
        async for batch in provider(server.url, limits=TransportLimits(silence=0.2)).stream(Request(messages=HI)):
            got.extend(batch)

    with pytest.raises(ModelError) as caught:
        await collect()
    error = caught.value
    if partial is None:  # an event that is complete, and no JSON
        assert (type(error), error.partial) == (ProtocolViolation, "ab")
    else:
        assert isinstance(error, StreamTruncated)
        assert (error.partial, error.timeout, error.retryable) == (partial, late, True)
        assert error.__cause__ is None or isinstance(error.__cause__, TransportError)
    assert len(got) == 3


async def test_a_break_after_the_end_mark_is_no_failure(serve: Serve) -> None:
    end = serve.event(serve.chunk("a", "stop"))
    for last in ("close", "reset", "hold"):
        server = await serve(serve.stream(end, last, end=False))
        asked = provider(server.url, limits=TransportLimits(silence=0.2))
        assert said(await asyncio.wait_for(ask(asked), PATIENCE)) == [("a", "stop")]


@pytest.mark.parametrize("page", [b"", b"<html>", b"hello\n\n", b'{"error": {"message": "x"}}'])
async def test_a_stream_without_events_is_a_violation(page: bytes, serve: Serve) -> None:
    server = await serve(serve.stream(*([page] if page else [])))
    with pytest.raises(ProtocolViolation, match="acme sent no event in its stream"):
        await ask(provider(server.url))


@pytest.mark.parametrize("comments", [b": ping\n\n", b"\xef\xbb\xbf\r\n: OPENROUTER PROCESSING\r\n\r\n" * 3])
async def test_a_stream_of_comments_alone_broke_off(comments: bytes, serve: Serve) -> None:
    server = await serve(serve.stream(comments))
    with pytest.raises(StreamTruncated) as caught:
        await ask(provider(server.url))
    assert (caught.value.retryable, caught.value.partial) == (True, "")


async def test_an_answer_that_ends_in_an_error_is_none(serve: Serve) -> None:
    server = await serve(serve.stream(serve.event(serve.chunk("a")), serve.event(serve.chunk("", "error"))))
    with pytest.raises(ProviderError, match="failed in the middle of its answer") as caught:
        await ask(provider(server.url))
    assert (caught.value.retryable, caught.value.code, caught.value.partial) == (True, "error", "a")


async def test_no_local_variable_of_a_failure_holds_the_key(serve: Serve) -> None:
    server = await serve(["reset"])
    with pytest.raises(TransportError) as caught:
        await ask(ChatProvider("m-1", name="acme", base_url=server.url, api_key="sk-very-secret"))
    # What tools that report errors write down, without this test's own frame.
    library = caught.value.__traceback__ and caught.value.__traceback__.tb_next
    shown = "".join(
        traceback.TracebackException(type(caught.value), caught.value, library, capture_locals=True).format()
    )
    assert "exchange.py" in shown
    assert "sk-very-secret" not in shown


@pytest.mark.parametrize("batches", [0, 1, 2])
async def test_left_early_the_connection_is_closed(batches: int, serve: Serve) -> None:
    server = await serve(serve.stream(serve.event(serve.chunk("a")), "hold", end=False))
    stream = provider(server.url).stream(Request(messages=HI))
    if batches == 0:
        await stream.aclose()
        assert server.connections == 0
        return
    await anext(stream)
    if batches == 1:
        await stream.aclose()
    else:
        task = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await asyncio.wait_for(server.left.wait(), PATIENCE)


async def test_many_at_once_each_get_their_own(serve: Serve) -> None:
    server = await serve(serve.stream(serve.event(serve.chunk("a", "stop"))))
    asked = provider(server.url)
    answers = await asyncio.gather(*(ask(asked) for _ in range(100)))
    assert [said(answer) for answer in answers] == [[("a", "stop")]] * 100


async def test_who_answered_is_told_once(serve: Serve) -> None:
    server = await serve(serve.stream(*[serve.event(serve.chunk(text)) for text in "ab"], serve.event(chunk("stop"))))
    deltas = [delta async for batch in provider(server.url).stream(Request(messages=HI)) for delta in batch]
    assert [delta for delta in deltas if isinstance(delta, ModelDelta)] == [ModelDelta("m1", "c1", "acme")]
    assert not any(isinstance(delta, UsageDelta) for delta in deltas)


# --- vendors and keys ------------------------------------------------------------------------------------------------


async def test_the_key_given_goes_before_the_variable(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-variable")
    server = await serve(serve.whole(whole()))
    await ask(ChatProvider("m", base_url=server.url), stream=False)
    await ask(ChatProvider("m", base_url=server.url, api_key=" sk-given\n"), stream=False)
    await ask(
        ChatProvider("m", base_url=server.url, headers={"Authorization": "Basic x", "X-Title": "t"}), stream=False
    )
    assert [request.headers["authorization"] for request in server.requests] == [
        "Bearer sk-variable",
        "Bearer sk-given",
        "Basic x",
    ]
    assert server.requests[2].headers["x-title"] == "t"


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"name": "nobody"}, "there is no vendor 'nobody'; name one of openai, "),
        ({"base_url": "x.test/v1"}, "'x.test/v1' is no address"),
        ({"base_url": "https://user:word@x.test"}, "user name or password"),
        ({"api_key": "sk-\u00e4"}, "characters that cannot be sent"),
        ({"api_key": "sk-1\r\nX-Evil: 1"}, "characters that cannot be sent"),
        ({"headers": {"X-A": "1\r\nX-Evil: 1"}}, "the header 'X-A' cannot be sent"),
    ],
)
def test_what_cannot_be_right_is_refused(options: dict[str, Any], what: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ChatProvider("m", **{"api_key": KEY, **options})
    assert what in str(caught.value)
    assert "Evil" not in str(caught.value)
    assert "word@" not in str(caught.value)


def test_a_provider_shows_and_copies_no_key() -> None:
    asked = provider()
    assert repr(asked) == "ChatProvider('m1', name='acme', base_url='http://127.0.0.1:9/v1')"
    assert KEY not in repr(SERVICE)
    with pytest.raises(TypeError):
        pickle.dumps(asked)


async def test_a_key_that_is_echoed_is_cut_out(serve: Serve) -> None:
    echo = {"error": {"message": f"Incorrect API key provided: {KEY}", "code": "invalid_api_key"}}
    server = await serve(serve.whole(echo, 401), serve.whole(f"<html>{KEY}".encode()), serve.whole({"error": KEY}))
    asked = provider(server.url, headers={"X-Api-Token": "other-secret"})
    for _ in range(3):
        with pytest.raises(ModelError) as caught:
            await ask(asked, stream=False)
        assert KEY not in f"{caught.value} {vars(caught.value)}"


@pytest.mark.parametrize("echo", [r"sk-\"quoted\"/key\\end", r"sk-\"quoted\"\/key\\end"])
async def test_a_key_that_is_echoed_in_json_is_cut_out(echo: str, serve: Serve) -> None:
    server = await serve(serve.whole(b'{"error": {"message": "no %b"}}' % echo.encode(), 401))
    with pytest.raises(ProviderError) as caught:
        await ask(ChatProvider("m-1", name="acme", base_url=server.url, api_key='sk-"quoted"/key\\end'), stream=False)
    assert "quoted" not in f"{caught.value} {vars(caught.value)}"
