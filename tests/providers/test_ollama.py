from __future__ import annotations

import asyncio
import base64
import json
import random
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait import Agent, get_provider
from plait.entries import MessageEntry, decode, encode, entry
from plait.errors import (
    ConfigurationError,
    EmptyAnswer,
    LimitExceeded,
    ModelError,
    PlaitError,
    ProtocolViolation,
    ProviderError,
    SecurityError,
    StreamTruncated,
    TransportError,
)
from plait.events import Answer, Fold, ModelDelta, Usage
from plait.messages import (
    AssistantMessage,
    AudioPart,
    FilePart,
    ImagePart,
    Message,
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
from plait.providers.base import Provider, Request, Settings, ToolDefinition
from plait.providers.http import TransportLimits
from plait.providers.image_input import Fetching
from plait.providers.ndjson import LineReader
from plait.providers.ollama import OllamaProvider, OneBound
from plait.providers.ollama_answer import OllamaReader
from plait.providers.retry import Retrying, RetryPolicy
from plait.providers.status import Service
from plait.schema import output_schema

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from providers.conftest import Serve, Step

PATIENCE = 10.0
HI = (UserMessage(text="hi"),)
SERVICE = Service(provider="ollama", address="localhost:11434", model="m1")
ADD = ToolDefinition(name="add", description="Adds.", parameters={"type": "object"}, strict=True)
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYGBgAAAABQABpfZFQAAAAABJRU5ErkJggg=="
)
PICTURE = base64.b64encode(PNG).decode()


def provider(url: str = "http://127.0.0.1:9", **options: Any) -> OllamaProvider:
    return OllamaProvider("m1", base_url=url, **options)


def body(*messages: Message, **options: Any) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(provider().encode(Request(messages=messages, **options)))
    return made


def wire(message: Message) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = body(message)["messages"]
    return made


async def ask(asked: Provider, *messages: Message, stream: bool = True) -> Answer:
    fold = Fold(asked.name, asked.model)
    async for batch in asked.stream(Request(messages=messages or HI, stream=stream)):
        fold.add(batch)
    return fold.answer()


# --- requests --------------------------------------------------------------------------------------------------------


def test_a_plain_request() -> None:
    assert body(SystemMessage(text="Be kind."), *HI, stream=False) == {
        "model": "m1",
        "stream": False,
        "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "hi"}],
    }
    assert body(*HI)["stream"] is True


def test_a_message_has_one_text_and_images_beside_it() -> None:
    parts = (TextPart(text="look"), ImagePart(data=PNG), TextPart(text="here"), ImagePart(data=b"abc"))
    images = [PICTURE, base64.b64encode(b"abc").decode()]
    assert wire(UserMessage(parts=parts)) == [{"role": "user", "content": "look\nhere", "images": images}]
    address = ImagePart(url=f"data:image/png;base64,{PICTURE}")
    assert wire(UserMessage(parts=(address,))) == [{"role": "user", "content": "", "images": [PICTURE]}]


def test_what_models_said_goes_back() -> None:
    call = ToolCall(id="c1", name="add", arguments='{ "x":1.0, "y":1e2 }')
    refusal = TextPart(text="No.", refusal=True)
    assert wire(AssistantMessage(text="yes")) == [{"role": "assistant", "content": "yes"}]
    assert wire(AssistantMessage(parts=(refusal,))) == [{"role": "assistant", "content": "No."}]
    message = AssistantMessage(text="I will", parts=(call, call))
    function = {"name": "add", "arguments": {"x": 1.0, "y": 100.0}}
    sent = {"id": "c1", "type": "function", "function": function}
    assert wire(message) == [{"role": "assistant", "content": "I will", "tool_calls": [sent, sent]}]
    assert b'"arguments":{ "x":1.0, "y":1e2 }' in provider().encode(Request(messages=[message]))  # as they were said


def test_thoughts_go_back_to_whom_they_came_from() -> None:
    parts = (ReasoningPart(text="h"), ReasoningPart(text="m"), ServerToolPart(name="search"), TextPart(text="yes"))
    own = AssistantMessage(parts=parts, provider="ollama", details=FrozenDict({"other": 1}))
    plain = {"role": "assistant", "content": "yes"}
    assert wire(own) == [plain | {"thinking": "hm"}]
    assert wire(AssistantMessage(parts=(*parts, ImagePart(data=PNG)), provider="openrouter")) == [plain]
    assert wire(AssistantMessage(parts=parts)) == [plain]


@pytest.mark.parametrize(
    ("name", "arguments", "sent_name", "sent_arguments"),
    [
        ("add", '{"x": 1e999}', "add", {"invalid_json": '{"x": 1e999}'}),
        ("add", '{"x"', "add", {"invalid_json": '{"x"'}),
        ("add", "[1]", "add", {"invalid_json": "[1]"}),
        ("add", "[" * 10_000, "add", {"invalid_json": "[" * 10_000}),
        ("add", '{"x":"a\ud800\\\\\udfff"}', "add", {"x": "a\ud800\\\udfff"}),
        ("add", '"\ud800"', "add", {"invalid_json": '"\ud800"'}),
        ("add", "", "add", {}),
        ("add", " null ", "add", {}),
        ("größe\n", "{}", "gr__e_", {}),
        ("", "{}", "_", {}),
    ],
)
def test_a_call_goes_back_in_a_form_that_servers_take(
    name: str, arguments: str, sent_name: str, sent_arguments: Any
) -> None:
    parts = (TextPart(text="\ud83d"), ToolCall(id="c1", name=name, arguments=arguments))
    (said,) = wire(AssistantMessage(parts=parts))
    assert said["tool_calls"][0]["function"] == {"name": sent_name, "arguments": sent_arguments}
    assert said["content"] == "\ud83d"
    (result,) = wire(ToolMessage(parts=(ToolResult(call_id="c1", name=name, text="x"),)))
    assert result.get("tool_name", "_") == sent_name


def test_results_are_one_message_each_and_their_images_follow() -> None:
    image = ImagePart(data=PNG)
    message = ToolMessage(
        parts=(
            ToolResult(call_id="c1", name="see", parts=(TextPart(text="a picture"), image)),
            ToolResult(call_id="c2", text="3"),
            ToolResult(call_id="c3", name="see", parts=(image,)),
        )
    )
    assert wire(message) == [
        {"role": "tool", "content": "a picture", "tool_call_id": "c1", "tool_name": "see"},
        {"role": "tool", "content": "3", "tool_call_id": "c2"},
        {"role": "tool", "content": "", "tool_call_id": "c3", "tool_name": "see"},
        {
            "role": "user",
            "content": "From the result of 'see' (c1):\nFrom the result of 'see' (c3):",
            "images": [PICTURE, PICTURE],
        },
    ]


AUDIO = AudioPart(data=b"abc")
FILE = FilePart(data=b"abc")


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (UserMessage(parts=(AUDIO,)), "role 'user' has a part of type 'audio', which cannot be sent to 'ollama'"),
        (UserMessage(parts=(FILE,)), "role 'user' has a part of type 'file', which cannot be sent to 'ollama'"),
        (UserMessage(parts=(ToolCall(id="c", name="x"),)), "role 'user' has a part of type 'tool_call'"),
        (SystemMessage(parts=(ImagePart(data=PNG),)), "role 'system' has a part of type 'image'"),
        (AssistantMessage(parts=(ImagePart(data=PNG),)), "role 'assistant' has a part of type 'image'"),
        (ToolMessage(text="x"), "role 'tool' has a part of type 'text'"),
        (UserMessage(parts=(ImagePart(),)), "neither url nor data"),
        (UserMessage(parts=(ImagePart(url="/etc/passwd"),)), "'/etc/passwd' is no address; it must begin with http"),
        (UserMessage(parts=(ImagePart(url="file:///x.png"),)), "'file:///x.png' is no address"),
        (UserMessage(parts=(ImagePart(url="data:image/png;base64,%%"),)), "data: address whose data cannot be read"),
    ],
)
async def test_what_cannot_be_said_is_refused_before_anything_is_sent(
    message: Message, said: str, serve: Serve
) -> None:
    server = await serve(serve.whole(b"x"))
    with pytest.raises(ConfigurationError) as caught:
        await ask(provider(server.url), message)
    assert said in str(caught.value)
    assert server.connections == 0


def test_settings_are_options() -> None:
    settings = Settings(
        temperature=0.5,
        max_tokens=9,
        top_p=0.9,
        stop=("a", "b"),
        seed=1,
        n=1,
        tool_choice="auto",
        parallel_tool_calls=True,
        extra=FrozenDict({"options": {"seed": 7, "num_ctx": 8192}, "think": "low", "keep_alive": 0}),
    )
    sent = body(*HI, settings=settings, tools=[ADD, ToolDefinition(name="now")], stream=False)
    del sent["messages"]
    assert sent == {
        "model": "m1",
        "stream": False,
        "options": {
            "temperature": 0.5,
            "num_predict": 9,
            "top_p": 0.9,
            "stop": ["a", "b"],
            "seed": 7,
            "num_ctx": 8192,
        },
        "think": "low",
        "keep_alive": 0,
        "tools": [
            {
                "type": "function",
                "function": {"name": "add", "description": "Adds.", "parameters": {"type": "object"}},
            },
            {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}},
        ],
    }


def test_tools_that_must_not_be_called_are_not_told_of() -> None:
    assert "tools" not in body(*HI, settings=Settings(tool_choice="none", parallel_tool_calls=False), tools=[ADD])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (Settings(n=2), "'ollama' gives one answer to a request, not n=2"),
        (Settings(tool_choice="required"), "'ollama' cannot be made to call a tool: tool_choice='required'"),
        (Settings(tool_choice="add"), "'ollama' cannot be made to call a tool: tool_choice='add'"),
        (
            Settings(parallel_tool_calls=False),
            "'ollama' cannot be kept from calling several tools",
        ),
        (Settings(extra=FrozenDict({"messages": []})), "settings.extra must not hold ['messages']"),
        (Settings(extra=FrozenDict({"options": [1]})), "settings.extra['options'] of 'ollama' is an object"),
    ],
)
async def test_a_setting_without_a_place_is_refused_before_anything_is_sent(
    settings: Settings, said: str, serve: Serve
) -> None:
    server = await serve(serve.whole(b"x"))
    with pytest.raises(ConfigurationError) as caught:
        async for _ in provider(server.url).stream(Request(messages=HI, settings=settings, tools=[ADD])):
            pass
    assert said in str(caught.value)
    assert server.connections == 0


def test_settings_of_tools_mean_nothing_without_tools() -> None:
    assert body(*HI, settings=Settings(tool_choice="required", parallel_tool_calls=False)) == body(*HI)


def test_an_output_type_is_a_format() -> None:
    output = output_schema(dict[Literal["a"], int])
    assert body(*HI, output=output)["format"] == output.schema


def test_a_threads_next_request_begins_with_the_bytes_of_the_last() -> None:
    asked = provider()
    history: list[Message] = [SystemMessage(text="Be kind."), UserMessage(text="hi")]
    before = asked.encode(Request(messages=history, tools=(ADD,)))
    call = ToolCall(id="c1", name="add", arguments="{}")
    history += [AssistantMessage(parts=(call,)), ToolMessage(parts=(ToolResult(call_id="c1", text="3"),))]
    after = asked.encode(Request(messages=history, tools=(ADD,)))
    assert after.startswith(before[: before.rindex(b"]")] + b",")


# --- images that have an address -------------------------------------------------------------------------------------


def answer(text: str | None = "yes", **fields: Any) -> dict[str, Any]:
    return line(text, done=True, done_reason="stop", **fields)


def picture(serve: Serve, data: bytes = PNG, **options: Any) -> list[Step]:
    return serve.whole(data, headers={"content-type": "image/png"}, **options)


async def test_an_image_is_fetched_once_for_each_message(serve: Serve) -> None:
    images = await serve(picture(serve))
    server = await serve(serve.whole(answer()))
    message = UserMessage(parts=(TextPart(text="what is it?"), ImagePart(url=f"{images.url}/a.png")))
    seen = ToolMessage(parts=(ToolResult(call_id="c1", name="see", parts=(ImagePart(url=images.url),)),))
    asked = provider(server.url, allow_private_urls=True)
    for history in ([message], [message, seen], [message, seen]):
        assert (await ask(asked, *history)).message.text == "yes"
    assert (await ask(provider(server.url, allow_private_urls=True), message)).message.text == "yes"
    first = {"role": "user", "content": "what is it?", "images": [PICTURE]}
    assert server.requests[0].json["messages"] == [first]
    assert server.requests[2].json["messages"] == [
        first,
        {"role": "tool", "content": "", "tool_call_id": "c1", "tool_name": "see"},
        {"role": "user", "content": "From the result of 'see' (c1):", "images": [PICTURE]},
    ]
    assert [request.path for request in images.requests] == ["/v1/a.png", "/v1"]
    assert message.parts[1] == ImagePart(url=f"{images.url}/a.png")  # the message itself is what it was


@pytest.mark.fault("S03")
async def test_an_address_of_this_machine_is_not_asked(serve: Serve) -> None:
    images, server = await serve(picture(serve)), await serve(serve.whole(answer()))
    message = UserMessage(parts=(ImagePart(url=f"{images.url}/a.png"),))
    with pytest.raises(SecurityError, match=r"127\.0\.0\.1"):
        await ask(provider(server.url), message)
    await ask(provider(server.url, allow_private_urls=True), message)
    with pytest.raises(SecurityError, match=r"127\.0\.0\.1"):  # what others were allowed to fetch is not for it either
        await ask(provider(server.url), message)
    assert (len(images.requests), len(server.requests)) == (1, 1)


async def rebinding(host: str) -> Sequence[str]:
    return ["203.0.113.7", "10.0.0.1"]


@pytest.mark.fault("S03")
async def test_every_address_of_a_name_is_looked_at() -> None:
    message = UserMessage(parts=(ImagePart(url="http://images.test/a.png"),))
    with pytest.raises(SecurityError, match=r"images\.test"):
        await ask(provider(resolve=rebinding), message)


@pytest.mark.parametrize(
    ("data", "status", "made", "said"),
    [
        (b"<html>", 200, ConfigurationError, "is no PNG, JPEG, WebP or GIF image"),
        (PNG[:40], 200, ConfigurationError, "is a broken image/png image"),
        (b"", 200, ConfigurationError, "is empty"),
        (b"gone", 404, TransportError, "'127.0.0.1' answered 404"),
    ],
)
async def test_what_cannot_be_fetched_is_said_before_anything_is_sent(
    data: bytes, status: int, made: type[PlaitError], said: str, serve: Serve
) -> None:
    images, server = await serve(picture(serve, data, status=status)), await serve(serve.whole(answer()))
    message = UserMessage(parts=(ImagePart(url=f"{images.url}/a.png"),))
    with pytest.raises(made, match=said):
        await ask(provider(server.url, allow_private_urls=True), message)
    assert server.connections == 0


async def test_all_images_of_a_request_are_fetched_within_one_bound(serve: Serve) -> None:
    images = await serve(picture(serve))
    whole = OneBound(Fetching(allow_private=True), left=len(PNG) + 5)
    assert (await whole(images.url)).data == PNG
    with pytest.raises(LimitExceeded, match="sends has more than 5 bytes"):
        await whole(images.url)
    late = OneBound(Fetching(allow_private=True), within=0.0)
    with pytest.raises(TransportError, match="the images of the request could not be fetched within 0 s, all of them"):
        await late(images.url)
    assert len(images.requests) == 2


async def test_a_deadline_for_all_tries_is_one_for_the_images_too(serve: Serve) -> None:
    images = await serve(["hold"])
    asked = get_provider(
        "ollama:llava",
        allow_private_urls=True,
        retry=RetryPolicy(deadline=0.1),
    )
    message = UserMessage(parts=(ImagePart(url=images.url),))
    with pytest.raises(TransportError, match=r"ollama gave no answer within 0\.1 s, all tries together"):
        async with asyncio.timeout(PATIENCE):
            await ask(asked, message)


async def test_the_time_of_fetching_is_part_of_the_time_of_the_request(serve: Serve) -> None:
    images, server = await serve(["hold"]), await serve(serve.whole(answer()))
    limits = TransportLimits(total=0.1)
    asked = provider(server.url, allow_private_urls=True, limits=limits)
    with pytest.raises(TransportError) as raised:
        await ask(asked, UserMessage(parts=(ImagePart(url=images.url),)))
    assert (raised.value.timeout, server.connections) == (True, 0)


@pytest.mark.parametrize("earlier", [0, 1])
async def test_an_image_that_is_gone_does_not_end_a_conversation(earlier: int, serve: Serve) -> None:
    """One of a tool, or one of an earlier message; when it is there again it is seen again."""
    gone = picture(serve, b"gone", status=404)
    images, server = await serve(gone, picture(serve)), await serve(serve.whole(answer()))
    addresses = (ImagePart(url=f"{images.url}/gone.png"), ImagePart(data=PNG))
    said: Message = UserMessage(text="Look!", parts=addresses)
    if not earlier:
        said = ToolMessage(parts=(ToolResult(call_id="c1", text="Look!", parts=addresses),))
    request = Request(messages=[said, UserMessage(text="So?")], earlier=earlier, stream=False)
    for _ in range(2):
        async for _ in provider(server.url, allow_private_urls=True).stream(request):
            pass
    first, second = (str(one.json["messages"][:-1]) for one in server.requests)
    named = f"[An image ({images.url}/gone.png) stood here, which cannot be shown to this model.]"
    assert f"Look!\\n{named}" in first
    assert (first.count(PICTURE), second.count(PICTURE)) == (1, 2)
    assert "stood here" not in second


async def test_of_an_image_by_address_a_request_with_other_parts_that_have_no_place_is_refused(serve: Serve) -> None:
    images, server = await serve(picture(serve)), await serve(serve.whole(answer()))
    message = UserMessage(parts=(ImagePart(url=images.url), AUDIO))
    with pytest.raises(ConfigurationError, match="has a part of type 'audio', which cannot be sent to 'ollama'"):
        await ask(provider(server.url, allow_private_urls=True), message)
    assert server.connections == 0


async def test_the_same_program_asks_ollama_with_an_address(serve: Serve) -> None:
    images, server = await serve(picture(serve)), await serve(serve.whole(answer("a dot")))
    asked = get_provider("ollama:llava", base_url=server.url, allow_private_urls=True)
    prompt = UserMessage(text="what is it?", parts=(ImagePart(url=images.url),))
    assert (await Agent(provider=asked).run(prompt)).output == "a dot"
    assert server.requests[0].json["messages"][-1]["images"] == [PICTURE]


# --- answers ---------------------------------------------------------------------------------------------------------

COUNTS: dict[str, Any] = {"prompt_eval_count": 7, "eval_count": 5}


def line(content: str | None = "", *, done: bool = False, **fields: Any) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": content}
    message |= {name: fields.pop(name) for name in ("thinking", "tool_calls") if name in fields}
    return {"model": "m1:4b", "created_at": "2026-08-04T19:59:02.85Z", "message": message, "done": done, **fields}


def called(name: str = "add", arguments: Any = None, **fields: Any) -> dict[str, Any]:
    return {**fields, "function": {"name": name, "arguments": {} if arguments is None else arguments}}


END = line(done=True, done_reason="stop", **COUNTS)


def as_bytes(one: object) -> bytes:
    return one if isinstance(one, bytes) else json.dumps(one).encode()


def read(pieces: Iterable[bytes], *, clean: bool = True) -> Answer | PlaitError:
    """Read a stream with plait's pure parts, as its provider does; gives the answer, or the error that is raised."""
    lines, answers, fold = LineReader(), OllamaReader(SERVICE), Fold("ollama", "m1")
    begun = b""
    try:
        for piece in pieces:
            begun = (begun + piece)[:1000]
            fold.add(answers.feed(lines.feed(piece)))
            if answers.done:
                break
        else:
            if clean and (last := lines.end()):
                fold.add(answers.feed(last))
        fold.add(answers.end(begun, broken=None if clean else TransportError("it broke")))
    except PlaitError as error:
        error.partial = error.partial or answers.partial
        return error
    return fold.answer()


def read_stream(*lines: object) -> Answer:
    found = read([as_bytes(one) + b"\n" for one in lines])
    if isinstance(found, PlaitError):
        raise found
    return found


def read_whole(one: object) -> Answer:
    fold = Fold("ollama", "m1")
    fold.add(OllamaReader(SERVICE).whole(as_bytes(one)))
    return fold.answer()


def said(found: Answer) -> tuple[str, str | None]:
    return found.message.text, found.finish_reason


def calls(found: Answer) -> list[tuple[str, str, str]]:
    return [(call.id, call.name, call.arguments) for call in found.message.tool_calls]


EXPECTED = Answer(
    AssistantMessage(
        parts=(ReasoningPart(text="hm"), TextPart(text="yes"), ToolCall(id="c1", name="add", arguments='{"x": 1}')),
        provider="ollama",
        model="m1:4b",
    ),
    "stop",
    Usage(input_tokens=7, output_tokens=5),
)
STREAM = (
    line(thinking="h"),
    line(thinking="m"),
    line("ye"),
    line("s"),
    line(tool_calls=[called(arguments={"x": 1}, id="c1")]),
    END,
)


def test_an_answer() -> None:
    assert read_stream(*STREAM) == EXPECTED
    call = called(arguments={"x": 1}, id="c1")
    assert read_whole(answer("yes", thinking="hm", tool_calls=[call], **COUNTS)) == EXPECTED


@given(st.lists(st.integers(0, 2000), max_size=20), st.sampled_from([b"\n", b"\r\n", b"\n\n"]), st.booleans())
def test_it_is_the_same_however_it_is_cut(cuts: list[int], end: bytes, last: bool) -> None:
    stream = end.join(as_bytes(one) for one in STREAM) + (end if last else b"")
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    assert read(stream[a:b] for a, b in pairwise(edges)) == EXPECTED
    assert read(stream[n : n + 1] for n in range(len(stream))) == EXPECTED


@pytest.mark.fault("L22", "L23")
def test_a_stream_that_ends_anywhere_else_is_never_a_success() -> None:
    stream = b"".join(as_bytes(one) + b"\n" for one in STREAM)
    for cut in range(len(stream) - 1):
        for clean in (True, False):
            found = read([stream[:cut]], clean=clean)
            kind = StreamTruncated if not clean or b"}\n" in stream[:cut] else (StreamTruncated, ProtocolViolation)
            assert isinstance(found, kind), (cut, found)
    assert read([stream[: stream.index(b'"s"')]]).partial == "ye"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("arguments", "kept"),
    [
        (b'{"y":1.0, "x":1e2,"n":123456789012345678901234567890}', None),
        (b'{"a":"\\u003cb\\u003e \\u00fc","a":[1, {"b":null}]}', None),
        (b'{"x":1e999}', None),
        (b"[1]", None),
        (b"null", ""),
        (b'"{\\"x\\": 1}"', '{"x": 1}'),
        (b'"\\ud83d"', "\ud83d"),
        (b'{"s":"\\ud83d","f":1.5,"n":123456789012345678901234567890}', None),
        (b'""', ""),
    ],
)
@pytest.mark.fault("L46")
def test_arguments_are_kept_as_they_were_said(arguments: bytes, kept: str | None) -> None:
    data = json.dumps(answer(None, tool_calls=[called(arguments="HERE")])).encode().replace(b'"HERE"', arguments)
    expected = [("", "add", arguments.decode() if kept is None else kept)]
    assert calls(read_whole(data)) == expected
    assert calls(read_stream(data)) == expected


def test_calls_are_numbered_as_they_come() -> None:
    first, second = called("f", {"a": 1}), called("g", id="x")
    first["function"]["index"], second["function"]["index"] = 7, 0
    found = read_stream(line(tool_calls=[first]), line(tool_calls=[second, first]), line(tool_calls=[{}]), END)
    same = ("", "f", '{"a": 1}')
    assert calls(found) == [same, ("x", "g", "{}"), same, ("", "", "")]
    assert said(found) == ("", "stop")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"done_reason": "length"}, "length"),
        ({"done_reason": "because"}, "because"),
        ({"done_reason": None}, ""),
        ({}, ""),
    ],
)
@pytest.mark.fault("L40")
def test_reasons_pass_through(fields: dict[str, Any], expected: str) -> None:
    assert said(read_stream(line("a"), line(done=True, **fields))) == ("a", expected)
    assert said(read_whole(line("a", done=True, **fields))) == ("a", expected)


@pytest.mark.parametrize(
    "counts",
    [
        {},
        {"prompt_eval_count": 7},
        {"eval_count": 5},
        {"prompt_eval_count": -1, "eval_count": 5},
        {"prompt_eval_count": 7, "eval_count": 1e99},
        {"prompt_eval_count": 7, "eval_count": "many"},
        {"prompt_eval_count": True, "eval_count": [5]},
    ],
)
@pytest.mark.fault("L50")
def test_tokens_without_sense_are_not_counted(counts: dict[str, Any]) -> None:
    assert read_whole(answer("a", **counts)).usage is None


@pytest.mark.fault("L34")
def test_what_comes_after_the_end_is_ignored() -> None:
    assert read_stream(*STREAM, b"junk", line("more"), b'{"error":"x"}') == EXPECTED
    assert read([b"\n".join(map(as_bytes, (*STREAM, b"junk", line("more"))))]) == EXPECTED


@pytest.mark.parametrize(
    "event", [{}, {"type": "ping"}, {"model": "m1:4b"}, line(None), {"message": None}, {"error": ""}]
)
def test_lines_that_say_nothing_are_skipped(event: dict[str, Any]) -> None:
    assert read_stream(event, *STREAM) == EXPECTED


def test_what_is_not_known_is_left_alone() -> None:
    odd = line("a", x_new={"deep": [1e308]}, logprobs=None, remote_model="x")
    odd["message"] |= {"images": None, "tool_name": 7}
    assert said(read_stream(odd, END)) == ("a", "stop")


VIOLATIONS: list[bytes] = [
    b"null",
    b"7",
    b"[]",
    b'"text"',
    b"<html>",
    b"data: {}",
    b'{"message": {"content": "a"',
    b'{"message": []}',
    b'{"message": {"content": 5}}',
    b'{"message": {"content": "\xff"}}',
    b'{"message": {"tool_calls": [7]}}',
    b'{"message": {"tool_calls": [{"function": {"name": "f", "arguments": {"a": "\xff"}}}]}}',
    b'{"done": "yes"}',
    b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
]


@pytest.mark.parametrize("data", VIOLATIONS, ids=lambda data: repr(data[:40]))
@pytest.mark.fault("L30", "L35")
def test_what_is_no_answer_is_a_violation(data: bytes) -> None:
    with pytest.raises(ProtocolViolation) as caught:
        read_whole(data)
    assert len(caught.value.excerpt) <= 201
    with pytest.raises(ProtocolViolation) as caught:
        read_stream(line("so far"), data)
    assert (caught.value.partial, caught.value.retryable) == ("so far", False)


@pytest.mark.parametrize("found", [{"message": None, "done": True}, {"done": True}, {"detail": "no"}, {}])
@pytest.mark.fault("L36")
def test_an_answer_without_a_message_is_a_violation(found: object) -> None:
    with pytest.raises(ProtocolViolation, match="ollama answered without a message"):
        read_whole(found)
    with pytest.raises(ProtocolViolation, match="ollama answered without a message"):
        read_stream({}, {"done": True})


@pytest.mark.fault("L31")
def test_lone_surrogates_and_nul_are_kept() -> None:
    data = b'{"message":{"content":"a\\ud83d\\u0000","thinking":"\\udfff"},"done":true}'
    for found in (read_stream(data), read_whole(data), read_whole(b"\xef\xbb\xbf" + data)):
        assert (found.message.text, found.message.reasoning) == ("a\ud83d\0", "\udfff")


@pytest.mark.parametrize(
    ("error", "said"), [("it broke", "it broke"), ({"message": "it broke", "code": 503}, "503"), (["x"], "an error")]
)
@pytest.mark.fault("L32", "L33")
def test_an_error_inside_a_success_is_an_error(error: object, said: str) -> None:
    with pytest.raises(ProviderError, match=said):
        read_whole({"error": error})
    with pytest.raises(ProviderError, match=said) as caught:
        read_stream(line("so far"), {"error": error}, END)
    assert (caught.value.partial, caught.value.provider) == ("so far", "ollama")


@pytest.mark.parametrize("message", [{"content": None}, {"content": ""}, {"content": "", "thinking": "hm"}])
@pytest.mark.fault("L37")
def test_an_empty_answer_is_one_unless_it_says_why(message: dict[str, Any]) -> None:
    for reason in ("stop", "load", "odd", None):
        found = {"message": message, "done": True, "done_reason": reason}
        with pytest.raises(EmptyAnswer) as caught:
            read_whole(found)
        assert caught.value.retryable
        with pytest.raises(EmptyAnswer):
            read_stream({"message": message}, found)
    assert said(read_whole({"message": message, "done": True, "done_reason": "length"})) == ("", "length")


def test_a_whole_answer_may_be_a_stream_or_a_pretty_picture() -> None:
    lines = [as_bytes(one) for one in STREAM]
    assert read_whole(b"\r\n".join(lines)) == EXPECTED
    assert said(read_whole(json.dumps(answer("a"), indent=2).encode())) == ("a", "stop")
    assert said(read_whole({"message": {"content": "a"}})) == ("a", "")  # the end of the body is its end
    for unfinished in (b"\n".join(lines[:-1]), b"\n".join(lines[:-1]) + b'\n{"do', lines[2]):
        with pytest.raises(StreamTruncated) as caught:
            read_whole(unfinished)
        assert caught.value.partial in ("yes", "ye")
    with pytest.raises(ProtocolViolation):
        read_whole(b"\n".join([lines[0], b"junk", *lines[1:]]))
    with pytest.raises(ProviderError, match="it broke"):
        read_whole(b'%b\n{"error": "it broke"}\n' % lines[0])


def test_spoilt_streams_give_an_answer_or_an_error_of_ours() -> None:
    """What comes out is the same however it is cut; an answer is fit to be stored, an error fit to be shown."""
    chance = random.Random(7)  # noqa: S311  # nothing is kept secret by it
    whole = b"".join(as_bytes(one) + b"\n" for one in STREAM)
    kinds = set()
    for _ in range(1500):
        stream = bytearray(whole)
        for _ in range(chance.choice([1, 1, 2, 5])):
            place = chance.randrange(len(stream) + 1)
            far = min(len(stream), place + chance.choice([1, 1, 3, 40, 300]))
            match chance.randrange(4):
                case 0:
                    stream[place:far] = bytes(chance.randrange(256) for _ in range(far - place))
                case 1:
                    del stream[place:far]
                case 2:
                    stream[place:place] = stream[place:far] * chance.choice([1, 2, 50])
                case _:
                    ends = [0, *(n + 1 for n, byte in enumerate(stream) if byte == 10)]
                    place = chance.choice(ends)
                    stream[place:place] = chance.choice(VIOLATIONS[:-1]) + b"\n"
        clean = chance.random() < 0.5
        found = read([bytes(stream)], clean=clean)
        again = read([bytes(stream[n : n + 7]) for n in range(0, len(stream), 7)], clean=clean)
        kinds.add(type(found))
        if isinstance(found, Answer):
            assert found == again
            kept = entry(1, MessageEntry(message=found.message, usage=found.usage), "run_1")
            assert decode(encode(kept)) == kept
        else:
            assert (type(found), str(found), found.partial) == (type(again), str(again), again.partial)  # type: ignore[union-attr]
            assert str(found).isprintable()
        try:
            as_one = read_whole(bytes(stream))
        except PlaitError:
            assert not isinstance(found, Answer) or not clean
        else:
            assert as_one == found or not clean
    assert kinds >= {Answer, ProtocolViolation, StreamTruncated}


# --- over HTTP -------------------------------------------------------------------------------------------------------

NDJSON = "application/x-ndjson"


def streamed(serve: Serve, *lines: object, end: bool = True, kind: str = NDJSON) -> list[Step]:
    steps = [one if isinstance(one, str | asyncio.Event) else as_bytes(one) + b"\n" for one in lines]
    return serve.stream(*steps, end=end, kind=kind)  # type: ignore[arg-type]  # the texts are steps


async def test_a_stream_over_http_comes_in_batches(serve: Serve) -> None:
    go = asyncio.Event()
    server = await serve(streamed(serve, as_bytes(line("a")) + b"\n" + as_bytes(line("b")), go, line("c"), END))
    batches = []
    async for batch in provider(server.url).stream(Request(messages=HI)):
        batches.append([type(delta).__name__ for delta in batch])
        go.set()
    assert batches[0] == ["ModelDelta", "TextDelta", "TextDelta"]
    assert [name for batch in batches[1:] for name in batch] == ["TextDelta", "UsageDelta", "FinishDelta"]
    (request,) = server.requests
    assert (request.path, request.headers.get("authorization")) == ("/api/chat", None)


@pytest.mark.parametrize("kind", [NDJSON, "application/jsonlines", "application/json", "text/plain", "application/x"])
async def test_a_stream_is_one_whatever_it_is_called(kind: str, serve: Serve) -> None:
    server = await serve(streamed(serve, *STREAM, kind=kind))
    assert await ask(provider(server.url)) == EXPECTED


async def test_a_whole_answer_is_one_whether_or_not_a_stream_was_asked_for(serve: Serve) -> None:
    server = await serve(serve.whole(answer("a", **COUNTS)))
    for stream in (True, False):
        found = await ask(provider(server.url), stream=stream)
        assert (said(found), found.usage) == (("a", "stop"), EXPECTED.usage)
    assert [request.json["stream"] for request in server.requests] == [True, False]


async def test_the_connection_is_kept(serve: Serve) -> None:
    server = await serve(streamed(serve, *STREAM), serve.whole(answer()), streamed(serve, *STREAM))
    asked = provider(server.url)
    for _ in range(3):
        assert (await ask(asked)).finish_reason == "stop"
    assert (server.connections, len(server.requests)) == (1, 3)


@pytest.mark.parametrize(
    ("steps", "late"),
    [
        (["END"], False),
        (["close"], False),
        (["reset"], False),
        (["hold"], True),
        ([b'{"message": {"content": "never"}', "END"], False),
    ],
)
@pytest.mark.fault("L20", "L21", "L22", "L23", "L24")
async def test_a_stream_without_its_end_is_never_a_success(steps: list[Any], late: bool, serve: Serve) -> None:
    begun = [as_bytes(line(text)) + b"\n" for text in ("a", "b")]
    ended = steps[-1] == "END"
    server = await serve(serve.stream(*begun, *(one for one in steps if one != "END"), end=ended, kind=NDJSON))
    with pytest.raises(StreamTruncated) as caught:
        await ask(provider(server.url, limits=TransportLimits(silence=0.2)))
    assert (caught.value.partial, caught.value.timeout, caught.value.retryable) == ("ab", late, True)


@pytest.mark.parametrize("page", [b"", b"hello\n"])
@pytest.mark.fault("L19")
async def test_a_stream_of_nothing_is_a_violation(page: bytes, serve: Serve) -> None:
    server = await serve(serve.stream(*([page] if page else []), kind=NDJSON))
    with pytest.raises(ProtocolViolation):
        await ask(provider(server.url))


@pytest.mark.fault("L51")
async def test_a_line_that_never_ends_is_too_large(serve: Serve) -> None:
    server = await serve(serve.stream(*[b"x" * 1000] * 20, "hold", end=False, kind=NDJSON))
    with pytest.raises(LimitExceeded) as caught:
        await ask(provider(server.url, limits=TransportLimits(answer_bytes=10_000)))
    assert caught.value.limit == 10_000


async def test_a_model_that_is_not_there_can_be_had(serve: Serve) -> None:
    server = await serve(serve.whole({"error": "model 'm1' not found"}, 404))
    for stream in (True, False):
        with pytest.raises(ProviderError) as caught:
            await ask(provider(server.url), stream=stream)
        assert str(caught.value) == (
            "ollama answered 404: model 'm1' not found; get it with 'ollama pull m1', or check its name and the "
            f"base_url (asked at 127.0.0.1:{server.port}/api/chat)"
        )
        assert (caught.value.status, caught.value.retryable) == (404, False)


async def test_nobody_there_is_told_what_to_start() -> None:
    with pytest.raises(TransportError, match="ollama serve"):
        await ask(OllamaProvider("m1", base_url="http://127.0.0.1:1"))


async def test_left_early_the_connection_is_closed(serve: Serve) -> None:
    server = await serve(streamed(serve, line("a"), "hold", end=False))
    stream = provider(server.url).stream(Request(messages=HI))
    await anext(stream)
    await stream.aclose()
    await asyncio.wait_for(server.left.wait(), PATIENCE)


async def test_who_answered_is_told_once(serve: Serve) -> None:
    server = await serve(streamed(serve, *STREAM))
    deltas = [delta async for batch in provider(server.url).stream(Request(messages=HI)) for delta in batch]
    assert [one for one in deltas if isinstance(one, ModelDelta)] == [ModelDelta("m1:4b", "", "ollama")]


@pytest.mark.parametrize("root", ["", "/", "/v1", "/api", "/api/"])
def test_an_address_is_taken_however_it_ends(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert OllamaProvider("m1", base_url=f"http://box.test:1{root}").base_url == "http://box.test:1"
    monkeypatch.setenv("OLLAMA_HOST", f"box.test{root}")
    assert OllamaProvider("m1").base_url == "http://box.test:11434"


def test_it_is_made_by_name() -> None:
    made = get_provider("ollama:qwen3:4b", base_url="http://box.test:1")
    assert isinstance(made, Retrying)
    assert isinstance(made.provider, OllamaProvider)
    assert (made.name, made.model) == ("ollama", "qwen3:4b")


async def test_a_call_without_an_id_runs_and_its_result_goes_back(serve: Serve) -> None:
    def add(x: int, y: int) -> int:
        """Add two numbers."""
        return x + y

    call = called(arguments={"x": 1, "y": 2})
    server = await serve(
        streamed(serve, line(tool_calls=[call]), line(tool_calls=[call]), END), streamed(serve, line("3"), END)
    )
    agent = Agent(provider=provider(server.url), tools=[add])
    assert (await agent.run("add")).output == "3"
    _, said_before, *results = server.requests[1].json["messages"]
    ids = [one["id"] for one in said_before["tool_calls"]]
    assert len(set(ids)) == 2
    assert [one["function"] for one in said_before["tool_calls"]] == [call["function"]] * 2
    assert results == [{"role": "tool", "content": "3", "tool_call_id": name, "tool_name": "add"} for name in ids]


async def test_errors_are_of_the_one_kind(serve: Serve) -> None:
    server = await serve(serve.whole({"error": "server busy, please try again"}, 503))
    with pytest.raises(ModelError) as caught:
        await ask(provider(server.url))
    assert (caught.value.retryable, caught.value.provider) == (True, "ollama")
