from __future__ import annotations

import asyncio
import base64
import json
import random
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait import Agent, MemoryStore
from plait.entries import MessageEntry, decode, encode, entry
from plait.errors import (
    ConfigurationError,
    EmptyAnswer,
    PlaitError,
    ProtocolViolation,
    ProviderError,
    RateLimited,
    Refused,
    StreamTruncated,
    TransportError,
)
from plait.events import (
    Answer,
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
from plait.providers.base import Request, Settings, ToolDefinition
from plait.providers.responses import ResponsesProvider
from plait.providers.responses_answer import ResponsesReader, read_usage
from plait.providers.responses_request import thinks
from plait.providers.sse import EventReader
from plait.providers.status import Service
from plait.schema import output_schema

if TYPE_CHECKING:
    from collections.abc import Iterable

    from plait.events import Delta
    from providers.conftest import Serve, Step

KEY = "sk-very-secret-key"
HI = (UserMessage(text="hi"),)
SERVICE = Service(provider="acme", address="acme.test:443", model="m1", secrets=(KEY,))
ADD = ToolDefinition(name="add", description="Adds.", parameters={"type": "object", "properties": {}})
ENCRYPTED = "reasoning.encrypted_content"

Item = dict[str, Any]


def provider(url: str = "http://127.0.0.1:9/v1", name: str = "acme", model: str = "m1") -> ResponsesProvider:
    return ResponsesProvider(model, name=name, base_url=url, api_key=KEY)


def body(*messages: Message, name: str = "acme", model: str = "m1", **options: Any) -> dict[str, Any]:
    request = Request(messages=messages, **options)
    made: dict[str, Any] = json.loads(provider(name=name, model=model).encode(request))
    return made


def items(*messages: Message) -> list[Item]:
    made: list[Item] = body(*messages)["input"]
    return made


def own(*parts: Part) -> AssistantMessage:
    """An answer of the provider that these tests ask."""
    return AssistantMessage(parts=parts, provider="acme")


# --- requests --------------------------------------------------------------------------------------------------------


def test_a_plain_request() -> None:
    assert body(SystemMessage(text="Be kind."), *HI, stream=False) == {
        "model": "m1",
        "instructions": "Be kind.",
        "input": [{"role": "user", "content": "hi"}],
    }
    assert body(*HI) == {"model": "m1", "stream": True, "input": [{"role": "user", "content": "hi"}]}


def test_system_text_that_does_not_stand_first_is_an_item() -> None:
    made = body(SystemMessage(text="Be kind."), SystemMessage(text="Be brief."), *HI)
    assert made["instructions"] == "Be kind."
    assert made["input"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]


def test_what_people_can_send() -> None:
    data = base64.b64encode(b"abc").decode()
    message = UserMessage(
        parts=(
            TextPart(text="look"),
            ImagePart(url="https://x.test/a.png", detail="low"),
            ImagePart(data=b"abc", media_type="image/jpeg"),
            FilePart(data=b"abc", name="a.pdf"),
            FilePart(data=b"abc"),
            FilePart(file_id="file_1"),
            FilePart(url="https://x.test/a.pdf"),
        )
    )
    assert items(message) == [
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "look"},
                {"type": "input_image", "image_url": "https://x.test/a.png", "detail": "low"},
                {"type": "input_image", "image_url": f"data:image/jpeg;base64,{data}"},
                {"type": "input_file", "filename": "a.pdf", "file_data": f"data:application/pdf;base64,{data}"},
                {
                    "type": "input_file",
                    "filename": "file.bin",
                    "file_data": f"data:application/octet-stream;base64,{data}",
                },
                {"type": "input_file", "file_id": "file_1"},
                {"type": "input_file", "file_url": "https://x.test/a.pdf"},
            ],
        }
    ]


HEAD: Final = {"id": "msg_1", "status": "completed", "phase": "commentary"}
NOTE: Final = {"type": "url_citation", "url": "https://x.test", "start_index": 0, "end_index": 1}
THOUGHT: Final = {"id": "rs_1", "type": "reasoning", "summary": [], "encrypted_content": "gAAA"}
SEARCH: Final = {"id": "ws_1", "type": "web_search_call", "status": "completed", "action": {"type": "search"}}


def test_what_the_model_said_goes_back_as_the_items_it_came_as() -> None:
    message = own(
        ReasoningPart(text="hm", details=FrozenDict(THOUGHT)),
        ServerToolPart(name="web_search", details=FrozenDict(SEARCH)),
        TextPart(text="a", details=FrozenDict({"message": HEAD, "annotations": [NOTE]})),
        TextPart(text="no", refusal=True, details=FrozenDict({"message": HEAD})),
        ToolCall(id="c1", name="add", arguments='{ "x":1 }', details=FrozenDict({"id": "fc_1", "status": "completed"})),
    )
    said = [
        {"type": "output_text", "text": "a", "annotations": [NOTE]},
        {"type": "refusal", "refusal": "no"},
    ]
    call = {"type": "function_call", "call_id": "c1", "name": "add", "arguments": '{ "x":1 }'}
    assert items(message) == [
        THOUGHT,
        SEARCH,
        {"type": "message", "role": "assistant", "content": said, **HEAD},
        {**call, "id": "fc_1", "status": "completed"},
    ]


def test_of_what_others_said_only_text_and_calls_go() -> None:
    parts = (
        ReasoningPart(text="hm", details=FrozenDict({"signature": "abc"})),
        ServerToolPart(name="web_search", details=FrozenDict(SEARCH)),
        TextPart(text="a", details=FrozenDict({"citations": [NOTE]})),
        TextPart(text="b"),
        TextPart(text=""),
        TextPart(text="no", refusal=True),
        ToolCall(id="c1", name="add", arguments="{}", details=FrozenDict({"id": "fc_1"})),
    )
    for message in (AssistantMessage(parts=parts, provider="anthropic"), Message(role="assistant", parts=parts)):
        assert items(*HI, message, *HI) == [
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": "a"},
            {"role": "assistant", "content": "b"},
            {"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
            {"type": "function_call", "call_id": "c1", "name": "add", "arguments": "{}"},
            {"role": "user", "content": "hi"},
        ]


def test_what_came_without_ids_goes_back_without() -> None:
    head, call = FrozenDict({"message": {"status": "completed"}}), ToolCall(id="c1", name="add", arguments="{}")
    parts = TextPart(text="a"), TextPart(text="b", details=head), TextPart(text="c", details=head), call
    answer = own(*parts, TextPart(text="d", details=head))
    said = [{"type": "output_text", "text": text, "annotations": []} for text in "bcd"]
    message = {"type": "message", "role": "assistant", "status": "completed"}
    assert items(*HI, answer, *HI)[1:-1] == [
        {"role": "assistant", "content": "a"},
        {**message, "content": said[:2]},
        {"type": "function_call", "call_id": "c1", "name": "add", "arguments": "{}"},
        {**message, "content": said[2:]},
    ]


def test_an_image_that_another_model_made_does_not_go() -> None:
    drawn = AssistantMessage(provider="openrouter", parts=(TextPart(text="Look:"), ImagePart(data=b"abc")))
    assert items(*HI, drawn, *HI)[1:-1] == [{"role": "assistant", "content": "Look:"}]


@pytest.mark.parametrize(
    "message",
    [
        AssistantMessage(),
        AssistantMessage(parts=(ReasoningPart(text="hm", details=FrozenDict(THOUGHT)),), provider="anthropic"),
        own(ReasoningPart(text="hm")),  # it was cut, so that nothing is known of it but its text
        own(ReasoningPart(text="hm", details=FrozenDict(THOUGHT))),  # what it led to was cut
    ],
)
def test_an_answer_of_which_nothing_can_go_back_is_left_out(message: AssistantMessage) -> None:
    user = {"role": "user", "content": "hi"}
    assert items(*HI, message, *HI) == [user, user]
    assert items(message) == []


def test_a_thought_goes_back_with_what_it_led_to_or_where_the_provider_puts_it_last() -> None:
    thought = ReasoningPart(details=FrozenDict(THOUGHT))
    call = ToolCall(id="c1", name="add", arguments="{}", details=FrozenDict({"id": "fc_1"}))
    said = {"type": "function_call", "call_id": "c1", "name": "add", "arguments": "{}", "id": "fc_1"}
    text, plain = TextPart(text="a"), {"role": "assistant", "content": "a"}
    assert items(own(thought, thought, call, thought, text, thought)) == [THOUGHT, THOUGHT, said, plain]
    last = {**THOUGHT, "format": "google-gemini-v1"}
    assert items(own(text, ReasoningPart(details=FrozenDict(last)))) == [plain, last]


def test_a_model_that_does_not_think_is_told_no_thoughts() -> None:
    search = ServerToolPart(name="web_search", details=FrozenDict(SEARCH))
    text = TextPart(text="a", details=FrozenDict({"message": HEAD}))
    led, free = own(ReasoningPart(details=FrozenDict(THOUGHT)), search, text), own(search, text)
    plain = {"role": "assistant", "content": "a"}
    said = {
        "type": "message",
        "role": "assistant",
        "content": [{"type": "output_text", "text": "a", "annotations": []}],
    }
    assert body(led, free, model="gpt-4o")["input"] == [plain, SEARCH, {**said, **HEAD}]
    for model in ("gpt-5", "m1"):
        assert body(led, model=model)["input"] == [THOUGHT, SEARCH, {**said, **HEAD}]


def test_results_may_hold_images_and_files() -> None:
    message = ToolMessage(
        parts=(
            ToolResult(call_id="c1", text="4"),
            ToolResult(call_id="c2", parts=(TextPart(text="a"), TextPart(text="b"))),
            ToolResult(call_id="c3", parts=(TextPart(text="see"), ImagePart(url="https://x.test/a.png"))),
            ToolResult(call_id="c4", parts=(FilePart(file_id="file_1"),), is_error=True),
            ToolResult(call_id="c5"),
        )
    )
    image = {"type": "input_image", "image_url": "https://x.test/a.png"}
    assert items(message) == [
        {"type": "function_call_output", "call_id": "c1", "output": "4"},
        {"type": "function_call_output", "call_id": "c2", "output": "a\nb"},
        {"type": "function_call_output", "call_id": "c3", "output": [{"type": "input_text", "text": "see"}, image]},
        {
            "type": "function_call_output",
            "call_id": "c4",
            "output": [{"type": "input_file", "file_id": "file_1"}],
        },
        {"type": "function_call_output", "call_id": "c5", "output": ""},
    ]


def test_a_call_goes_back_in_a_form_that_servers_take() -> None:
    calls = (ToolCall(id="c1", name="my tool", arguments='{"a'), ToolCall(id="c2", name="", arguments=""))
    assert items(own(*calls)) == [
        {"type": "function_call", "call_id": "c1", "name": "my_tool", "arguments": '{"invalid_json":"{\\"a"}'},
        {"type": "function_call", "call_id": "c2", "name": "_", "arguments": "{}"},
    ]


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (UserMessage(parts=(AudioPart(data=b"abc"),)), ("audio", "user", "acme")),
        (UserMessage(parts=(ToolCall(id="c", name="n"),)), ("tool_call", "user", "acme")),
        (UserMessage(parts=(TextPart(text="a"), ImagePart())), ("image", "url", "data")),
        (UserMessage(parts=(FilePart(),)), ("file", "acme")),
        (SystemMessage(parts=(ImagePart(url="https://x.test/a.png"),)), ("image", "system", "acme")),
        (AssistantMessage(parts=(ImagePart(url="https://x.test/a.png"),)), ("image", "assistant", "acme")),
        (ToolMessage(parts=(TextPart(text="a"),)), ("text", "tool", "acme")),
    ],
)
async def test_what_cannot_be_said_is_refused_before_anything_is_sent(
    message: Message, words: tuple[str, ...], serve: Serve
) -> None:
    server = await serve(serve.whole({}))
    for messages in ([message], [*HI, message]):
        with pytest.raises(ConfigurationError) as caught:
            await anext(provider(server.url).stream(Request(messages=messages)))
        assert all(word in str(caught.value) for word in words), str(caught.value)
    assert server.requests == []


def test_settings() -> None:
    settings = Settings(
        temperature=0.5,
        max_tokens=10,
        top_p=0.9,
        tool_choice="add",
        parallel_tool_calls=False,
        extra=FrozenDict({"reasoning": {"effort": "low"}, "store": False, "top_p": 0.8}),
    )
    function = {"type": "function", "name": "add", "description": "Adds.", "parameters": ADD.parameters}
    assert body(*HI, settings=settings, tools=[ADD]) == {
        "model": "m1",
        "temperature": 0.5,
        "max_output_tokens": 10,
        "top_p": 0.8,
        "stream": True,
        "tools": [{**function, "strict": False}],
        "tool_choice": {"type": "function", "name": "add"},
        "parallel_tool_calls": False,
        "reasoning": {"effort": "low"},
        "store": False,
        "input": [{"role": "user", "content": "hi"}],
    }
    assert "tool_choice" not in body(*HI, settings=settings)
    assert body(*HI, tools=[ADD], settings=Settings(tool_choice="required"))["tool_choice"] == "required"


def test_a_tool_says_whether_it_is_strict() -> None:
    strict = ToolDefinition(name="sub", strict=True)
    tools = body(*HI, tools=[ADD, strict])["tools"]
    assert [(tool["name"], tool["strict"], "description" in tool) for tool in tools] == [
        ("add", False, True),
        ("sub", True, False),
    ]


@pytest.mark.parametrize(("name", "value"), [("stop", ("x",)), ("seed", 1), ("n", 2)])
def test_what_the_dialect_has_no_place_for_is_refused(name: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=rf"^'acme' takes no '{name}'; leave it out$"):
        body(*HI, settings=Settings(**{name: value}))  # type: ignore[arg-type]


@pytest.mark.parametrize("field", ["input", "instructions", "stream"])
def test_the_librarys_own_fields_cannot_be_extra(field: str) -> None:
    with pytest.raises(ConfigurationError, match=field):
        body(*HI, settings=Settings(extra=FrozenDict({field: 1})))


def test_tools_of_the_provider_are_added_to_ours() -> None:
    search = {"type": "web_search"}
    settings = Settings(tool_choice="required", extra=FrozenDict({"tools": [search]}))
    both, alone = body(*HI, tools=[ADD], settings=settings), body(*HI, settings=settings)
    assert [tool["type"] for tool in both["tools"]] == ["function", "web_search"]
    assert (alone["tools"], alone["tool_choice"]) == ([search], "required")
    with pytest.raises(ConfigurationError, match=r"extra\['tools'\] must be a list, not dict"):
        body(*HI, settings=Settings(extra=FrozenDict({"tools": search})))


def test_models_that_think_are_asked_for_their_thoughts_in_encrypted_form() -> None:
    def included(model: str, **extra: Any) -> Any:
        return body(*HI, model=model, settings=Settings(extra=FrozenDict(extra))).get("include")

    assert included("gpt-5.2") == [ENCRYPTED]
    assert included("gpt-5.2", include=["file_search_call.results"]) == [ENCRYPTED, "file_search_call.results"]
    assert included("gpt-5.2", include=["file_search_call.results", ENCRYPTED]) == [
        ENCRYPTED,
        "file_search_call.results",
    ]
    assert included("gpt-5.2", include=[]) == []
    assert included("gpt-4o") is None
    assert included("gpt-4o", include=["file_search_call.results"]) == ["file_search_call.results"]


@pytest.mark.parametrize(
    ("expected", "models"),
    [
        (True, "o1 o3-mini o4-mini-2025-04-16 gpt-5 gpt-5.6-terra gpt-5.2-codex gpt-10 codex-mini-latest"),
        (True, "openai/gpt-5-mini openai/o3 ft:o4-mini:acme"),
        (False, "gpt-4o gpt-4.1-nano gpt-3.5-turbo gpt-35-turbo gpt-41 gpt-5-chat-latest chatgpt-4o-latest"),
        (False, "openai/gpt-4o ft:gpt-4o:acme"),
        (None, "gpt-oss-20b omni-1 m1 google/gemini-3-flash-preview"),
    ],
)
def test_which_models_think(expected: bool | None, models: str) -> None:
    assert {thinks(model) for model in models.split()} == {expected}


def test_an_output_type_is_a_form_of_text() -> None:
    class City:
        """A city."""

        name: str

    output = output_schema(dict[str, int])
    text = body(*HI, output=output)["text"]
    assert text == {
        "format": {"type": "json_schema", "name": output.name, "schema": output.schema, "strict": output.strict}
    }
    settings = Settings(extra=FrozenDict({"text": {"verbosity": "low"}}))
    assert body(*HI, output=output, settings=settings)["text"] == {**text, "verbosity": "low"}


def test_lone_surrogates_and_nul_can_be_sent() -> None:
    assert items(UserMessage(text="a\ud83d\0"))[0]["content"] == "a\ud83d\0"


def test_a_threads_next_request_begins_with_the_bytes_of_the_last() -> None:
    asked = provider()
    system, thread = SystemMessage(text="Be kind."), [UserMessage(text="a")]
    before = asked.encode(Request(messages=[system, *thread], tools=[ADD]))
    said = own(ToolCall(id="c1", name="add", arguments="{}", details=FrozenDict({"id": "fc_1"})))
    results = ToolMessage(parts=(ToolResult(call_id="c1", text="4"),))
    after = asked.encode(Request(messages=[system, *thread, said, results], tools=[ADD]))
    assert after.startswith(before[: before.rindex(b"]")] + b",")


def test_messages_are_encoded_once_and_for_one_provider() -> None:
    message = own(ServerToolPart(name="web_search", details=FrozenDict(SEARCH)), TextPart(text="a"))
    assert len(items(message)) == 2
    assert items(message) == items(message)
    assert body(message, name="other")["input"] == [{"role": "assistant", "content": "a"}]


# --- answers ---------------------------------------------------------------------------------------------------------

USAGE: Final = {
    "input_tokens": 9,
    "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2},
    "output_tokens": 3,
    "output_tokens_details": {"reasoning_tokens": 1},
    "total_tokens": 12,
}


def response(status: str | None = "completed", *output: object, **fields: Any) -> dict[str, Any]:
    made = {"id": "resp_1", "object": "response", "model": "m1-2025", "error": None, "incomplete_details": None}
    return {**made, "status": status, "output": list(output), "usage": USAGE, **fields}


def message_item(*content: object, **fields: Any) -> Item:
    return {
        "id": "msg_1",
        "type": "message",
        "status": "completed",
        "role": "assistant",
        "content": list(content),
        **fields,
    }


def text(said: str, *annotations: object) -> Item:
    return {"type": "output_text", "text": said, "annotations": list(annotations), "logprobs": []}


def call_item(id_: str = "call_1", arguments: Any = '{"x": 1}', **fields: Any) -> Item:
    return {"id": f"fc_{id_}", "type": "function_call", "call_id": id_, "name": "add", "arguments": arguments, **fields}


def thought_item(*summary: str, **fields: Any) -> Item:
    sections = [{"type": "summary_text", "text": one} for one in summary]
    return {"id": "rs_1", "type": "reasoning", "summary": sections, "encrypted_content": "gAAA", **fields}


def event(kind: str, **fields: Any) -> Item:
    return {"type": f"response.{kind}", "sequence_number": 1, **fields}


def added(index: int, item: Item) -> Item:
    return event("output_item.added", output_index=index, item={**item, "content": [], "arguments": ""})


def done(index: int, item: Item) -> Item:
    return event("output_item.done", output_index=index, item=item)


def says(index: int, *pieces: str, kind: str = "output_text") -> list[Item]:
    return [event(f"{kind}.delta", output_index=index, content_index=0, delta=piece) for piece in pieces]


def ends(*output: object, status: str = "completed", **fields: Any) -> Item:
    return event(status, response=response(status, *output, **fields))


CREATED: Final = event("created", response={**response("in_progress"), "usage": None})


def as_bytes(one: object) -> bytes:
    return one if isinstance(one, bytes) else json.dumps(one).encode()


def as_stream(*events: object) -> bytes:
    return b"".join(b"event: x\ndata: " + as_bytes(one) + b"\n\n" for one in events)


def read(pieces: Iterable[bytes], *, clean: bool = True) -> Answer | PlaitError:
    """Read a stream with plait's pure parts, as its provider does; gives the answer, or the error that is raised."""
    frames, answers, fold = EventReader(), ResponsesReader(SERVICE), Fold("acme", "m1")
    begun = b""
    try:
        for piece in pieces:
            begun = begun or piece
            fold.add(answers.feed(frames.feed(piece)))
            if answers.done:
                break
        else:
            if clean and (last := frames.end()):
                fold.add(answers.feed(last))
        fold.add(answers.end(begun, broken=None if clean else TransportError("it broke")))
    except PlaitError as error:
        error.partial = error.partial or answers.partial
        return error
    return fold.answer()


def read_stream(*events: object) -> Answer:
    found = read([as_stream(*events)])
    if isinstance(found, PlaitError):
        raise found
    return found


def read_whole(answer: object) -> Answer:
    fold = Fold("acme", "m1")
    fold.add(ResponsesReader(SERVICE).whole(as_bytes(answer)))
    return fold.answer()


def deltas(*events: object) -> list[Delta]:
    reader = ResponsesReader(SERVICE)
    return [*reader.feed(map(as_bytes, events)), *reader.end()]


def parts(found: Answer) -> tuple[Part, ...]:
    return tuple(found.message.parts)


ITEMS: Final = (
    thought_item("hm", "so"),
    message_item(text("Let me ", NOTE), text("see."), phase="commentary"),
    SEARCH,
    call_item(status="completed"),
    call_item("call_2", "{}"),
    message_item(text("Done."), id="msg_2"),
)
HEAD_1: Final = {"id": "msg_1", "status": "completed", "phase": "commentary"}
EXPECTED: Final = Answer(
    own(
        ReasoningPart(text="hm\n\nso", details=FrozenDict(ITEMS[0])),
        TextPart(text="Let me ", details=FrozenDict({"message": HEAD_1, "annotations": [NOTE]})),
        TextPart(text="see.", details=FrozenDict({"message": HEAD_1})),
        ServerToolPart(name="web_search", details=FrozenDict(SEARCH)),
        ToolCall(
            id="call_1",
            name="add",
            arguments='{"x": 1}',
            details=FrozenDict({"id": "fc_call_1", "status": "completed"}),
        ),
        ToolCall(id="call_2", name="add", arguments="{}", details=FrozenDict({"id": "fc_call_2"})),
        TextPart(text="Done.", details=FrozenDict({"message": {"id": "msg_2", "status": "completed"}})),
    ).model_copy(update={"model": "m1-2025"}),
    "completed",
    Usage(input_tokens=9, output_tokens=3, cache_read_tokens=4, cache_write_tokens=2, reasoning_tokens=1),
    "resp_1",
)
STREAM: Final = (
    CREATED,
    event("in_progress", response=response("in_progress")),
    added(0, ITEMS[0]),
    event("reasoning_summary_part.added", output_index=0, summary_index=0, part={"type": "summary_text", "text": ""}),
    event("reasoning_summary_text.delta", output_index=0, summary_index=0, delta="h"),
    event("reasoning_summary_text.delta", output_index=0, summary_index=0, delta="m"),
    event("reasoning_summary_text.delta", output_index=0, summary_index=1, delta="so"),
    done(0, ITEMS[0]),
    added(1, ITEMS[1]),
    *says(1, "Let", " me "),
    event("output_text.annotation.added", output_index=1, annotation=NOTE),
    event("output_text.delta", output_index=1, content_index=1, delta="see."),
    done(1, ITEMS[1]),
    added(2, SEARCH),
    event("web_search_call.searching", output_index=2, item_id="ws_1"),
    done(2, SEARCH),
    added(3, ITEMS[3]),
    added(4, ITEMS[4]),
    *says(4, "{", kind="function_call_arguments"),
    *says(3, '{"x"', kind="function_call_arguments"),
    *says(4, "}", kind="function_call_arguments"),
    *says(3, ": 1}", kind="function_call_arguments"),
    done(4, ITEMS[4]),
    done(3, ITEMS[3]),
    added(5, ITEMS[5]),
    *says(5, "Done", "."),
    done(5, ITEMS[5]),
    ends(*ITEMS),
)


def test_a_whole_answer() -> None:
    assert read_whole(response("completed", *ITEMS)) == EXPECTED


def test_a_stream() -> None:
    assert read_stream(*STREAM) == EXPECTED


def test_what_was_said_goes_back_as_it_came() -> None:
    def kept(item: Item) -> Item:  # empty lists of probabilities are not
        content = [{name: value for name, value in part.items() if name != "logprobs"} for part in item["content"]]
        return {**item, "content": content}

    sent = [kept(item) if item["type"] == "message" else item for item in ITEMS]
    assert items(EXPECTED.message) == sent


@given(cuts=st.lists(st.integers(0, len(as_stream(*STREAM))), max_size=30))
@pytest.mark.fault("L26")
def test_a_stream_is_the_same_however_it_is_cut(cuts: list[int]) -> None:
    stream = as_stream(*STREAM)
    places = [0, *sorted(cuts), len(stream)]
    assert read([stream[start:end] for start, end in pairwise(places)]) == EXPECTED


def test_plain_text_is_told_once() -> None:
    item = message_item(text("yes"))
    usage = Usage(input_tokens=9, output_tokens=3, cache_read_tokens=4, cache_write_tokens=2, reasoning_tokens=1)
    assert deltas(CREATED, added(0, item), *says(0, "y", "es"), done(0, item), ends(item)) == [
        ModelDelta("m1-2025", "resp_1", "acme"),
        TextDelta("y"),
        TextDelta("es"),
        UsageDelta(usage),
        FinishDelta("completed"),
    ]


def test_plain_text_is_a_part_of_its_own_when_something_follows() -> None:
    first, last = message_item(text("a")), message_item(text("b"), id="msg_2")
    call = call_item()
    begun = (CREATED, added(0, first), *says(0, "a"), done(0, first), added(1, call), done(1, call))
    made = deltas(*begun, added(2, last), *says(2, "b"), done(2, last), ends(first, call, last))
    assert made[1:5] == [
        TextDelta("a"),
        PartDelta(TextPart(text="a")),
        ToolCallDelta(0, "call_1", "add"),
        ToolCallDelta(0, arguments='{"x": 1}', details={"id": "fc_call_1"}),
    ]
    called = ToolCall(id="call_1", name="add", arguments='{"x": 1}', details=FrozenDict({"id": "fc_call_1"}))
    expected = (TextPart(text="a"), called, TextPart(text="b"))
    assert parts(read_stream(*begun, *says(2, "b"), done(2, last), ends())) == expected
    assert parts(read_whole(response("completed", first, call, last))) == expected


def test_text_behind_a_thought_or_with_a_phase_has_what_must_go_back() -> None:
    (thought, said) = parts(read_whole(response("completed", thought_item(), message_item(text("a")))))
    assert thought == ReasoningPart(details=FrozenDict(thought_item()))
    assert said == TextPart(text="a", details=FrozenDict({"message": {"id": "msg_1", "status": "completed"}}))
    item = message_item(text("a"), phase="final_answer", status=None)
    assert parts(read_whole(response("completed", item))) == (
        TextPart(text="a", details=FrozenDict({"message": {"id": "msg_1", "phase": "final_answer"}})),
    )


def test_a_refusal() -> None:
    item = message_item({"type": "refusal", "refusal": "I won't."})
    stream = (CREATED, added(0, item), *says(0, "I ", "won't.", kind="refusal"), done(0, item), ends(item))
    assert deltas(*stream)[1:3] == [RefusalDelta("I "), RefusalDelta("won't.")]
    for found in (read_stream(*stream), read_whole(response("completed", item))):
        assert parts(found) == (TextPart(text="I won't.", refusal=True),)


def test_text_and_then_a_refusal_in_one_message() -> None:
    item = message_item(text("Well, "), {"type": "refusal", "refusal": "no."})
    stream = (CREATED, *says(0, "Well, "), *says(0, "no", ".", kind="refusal"), done(0, item), ends(item))
    details = FrozenDict({"message": {"id": "msg_1", "status": "completed"}})
    expected = (TextPart(text="Well, ", details=details), TextPart(text="no.", refusal=True, details=details))
    for found in (read_stream(*stream), read_whole(response("completed", item))):
        assert parts(found) == expected
        assert (found.message.text, found.message.refusal) == ("Well, ", "no.")


TOLD: Final = (
    (message_item(text("yes")), says(0, "y")),
    (message_item({"type": "refusal", "refusal": "no, no"}), says(0, "no", kind="refusal")),
    (message_item(text("ye"), text("s")), says(0, "y", "e")),
    (thought_item("hm"), says(0, "h", kind="reasoning_summary_text")),
    (thought_item(content=[{"type": "reasoning_text", "text": "hm"}]), says(0, "h", kind="reasoning_text")),
    (call_item(arguments='{"x": 1}'), says(0, '{"x', kind="function_call_arguments")),
)


@pytest.mark.parametrize(("item", "pieces"), TOLD)
def test_a_done_item_completes_what_its_pieces_missed(item: Item, pieces: list[Item]) -> None:
    said = message_item(text("."), id="msg_2")
    expected = read_whole(response("completed", item, said))
    assert read_stream(CREATED, added(0, item), *pieces, done(0, item), done(1, said), ends(item, said)) == expected
    assert read_stream(CREATED, *pieces, done(0, item), done(1, said), ends()) == expected
    assert read_stream(CREATED, added(0, item), done(0, item), done(1, said), ends()) == expected


@pytest.mark.parametrize(("item", "pieces"), TOLD)
def test_the_whole_answer_completes_what_no_item_told(item: Item, pieces: list[Item]) -> None:
    said = message_item(text("."), id="msg_2")
    whole = read_whole(response("completed", item, said))
    assert read_stream(ends(item, said)) == whole
    assert read_stream(CREATED, added(0, item), *pieces, added(1, said), ends(item, said)) == whole


def test_what_is_done_is_right_where_its_pieces_said_something_else() -> None:
    item = message_item(text("yes"))
    found = read_stream(CREATED, added(0, item), *says(0, "no"), done(0, item), ends(item))
    assert found.message.text == "yes"


def test_an_item_is_done_once() -> None:
    item = message_item(text("yes"))
    assert read_stream(CREATED, done(0, item), done(0, item), ends(item)).message.text == "yes"
    numbered_from_one = read_stream(CREATED, added(1, item), *says(1, "yes"), done(1, item), ends(item))
    assert numbered_from_one.message.text == "yes"


def test_an_item_that_no_event_told_of_is_in_the_whole_answer() -> None:
    thought, first, last = thought_item("hm"), message_item(text("yes")), call_item()
    told = (CREATED, added(1, first), *says(1, "yes"), done(1, first))
    found = read_stream(*told, ends(thought, first, last))
    assert (found.message.text, found.message.reasoning, len(found.message.tool_calls)) == ("yes", "hm", 1)


def test_items_without_a_number_are_told_apart_by_their_ends() -> None:
    def bare(one: Item) -> Item:
        return {name: value for name, value in one.items() if name != "output_index"}

    assert (
        read_stream(*map(bare, (CREATED, *says(0, "a"), done(0, message_item(text("a"))), ends()))).message.text == "a"
    )
    first, last = call_item(), call_item("call_2", "{}")
    stream = (CREATED, added(0, first), done(0, first), added(1, last), done(1, last), ends(first, last))
    assert read_stream(*map(bare, stream)).message == read_stream(*stream).message


def test_items_that_grow_at_the_same_time_are_told_apart_and_keep_their_order() -> None:
    first, second = message_item(text("one two")), message_item(text("three four"), id="msg_2")
    thought, call, items = thought_item("hm"), call_item(), range(5)
    output = [thought, first, SEARCH, second, call]
    begun = [added(0, thought), added(1, first), added(2, SEARCH), added(3, second), added(4, call)]
    grown = [
        *says(3, "three "),
        *says(1, "one "),
        *says(4, '{"x"', kind="function_call_arguments"),
        event("reasoning_summary_text.delta", output_index=0, summary_index=0, delta="hm"),
        *says(1, "two"),
        *says(3, "four"),
        *says(4, ": 1}", kind="function_call_arguments"),
    ]
    expected = read_whole(response("completed", *output))
    for order in (items, items[::-1], (2, 4, 0, 3, 1)):
        done_in_order = [done(at, output[at]) for at in order]
        assert read_stream(CREATED, *begun, *grown, *done_in_order, ends(*output)) == expected
        begun_in_order = [begun[at] for at in order]
        assert read_stream(CREATED, *begun_in_order, *grown, ends(*output)).message.text == "one twothree four"
    assert read_stream(CREATED, *begun, *grown, ends(*output)) == expected  # no item was said to be done
    assert read_stream(CREATED, *grown, ends(*output)).message.text == "three fourone two"  # nor to have begun
    cut = read([as_stream(CREATED, *begun, *grown)])
    assert isinstance(cut, StreamTruncated)
    assert cut.partial == "one twothree four"


def test_an_empty_text_beside_a_refusal_says_nothing() -> None:
    item = message_item(text("", NOTE), {"type": "refusal", "refusal": "No."})
    found = read_stream(CREATED, added(0, item), *says(0, "N", "o.", kind="refusal"), done(0, item), ends(item))
    assert (found.message.text, found.message.refusal) == ("", "No.")


def test_thoughts_in_the_open_are_read_where_there_is_no_summary() -> None:
    item = thought_item(content=[{"type": "reasoning_text", "text": "hm"}, {"type": "reasoning_text", "text": "so"}])
    said = message_item(text("a"))
    stream = (
        CREATED,
        event("reasoning_text.delta", output_index=0, content_index=0, delta="hm"),
        event("reasoning_text.delta", output_index=0, content_index=1, delta="so"),
        event("reasoning_summary_text.delta", output_index=0, summary_index=0, delta="never told"),
        done(0, item),
        done(1, said),
        ends(),
    )
    assert [one for one in deltas(*stream) if isinstance(one, ReasoningDelta)] == [
        ReasoningDelta("hm"),
        ReasoningDelta("\n\nso"),
    ]
    assert read_stream(*stream).message.reasoning == "hm\n\nso"


def test_a_thought_may_stand_last() -> None:
    said, last = message_item(text("a")), thought_item("hm", format="google-gemini-v1")
    stream = (CREATED, *says(0, "a"), done(0, said), *says(1, "hm", kind="reasoning_summary_text"), done(1, last))
    for found in (read_whole(response("completed", said, last)), read_stream(*stream, ends(said, last))):
        assert parts(found) == (TextPart(text="a"), ReasoningPart(text="hm", details=FrozenDict(last)))
        assert items(found.message) == [{"role": "assistant", "content": "a"}, last]


def test_a_thought_that_was_cut_is_text_alone() -> None:
    cut = {"incomplete_details": {"reason": "max_output_tokens"}}
    stream = (CREATED, *says(0, "hm", kind="reasoning_summary_text"), done(0, thought_item("hm")))
    for found in (
        read_stream(*stream, ends(thought_item("hm"), status="incomplete", **cut)),
        read_whole(response("incomplete", thought_item("hm"), **cut)),
        read_whole(response("completed", thought_item("hm", status="incomplete"), message_item(), call_item())),
    ):
        assert parts(found)[0] == ReasoningPart(text="hm")
    broken = read([as_stream(*stream)])
    assert isinstance(broken, StreamTruncated)


@pytest.mark.parametrize(
    ("details", "reason"),
    [
        ({"reason": "max_output_tokens"}, "max_output_tokens"),
        ({"reason": "content_filter"}, "content_filter"),
        ({"reason": "steered"}, "steered"),
        ({"reason": "odd"}, "odd"),
        ({"reason": None}, "incomplete"),
        ({"reason": 7}, "incomplete"),
        (None, "incomplete"),
    ],
)
@pytest.mark.fault("L38", "L40")
def test_why_an_answer_is_incomplete(details: object, reason: str) -> None:
    item = message_item(text("a"), status="incomplete")
    for found in (
        read_whole(response("incomplete", item, incomplete_details=details)),
        read_stream(CREATED, *says(0, "a"), done(0, item), ends(status="incomplete", incomplete_details=details)),
        read_stream(CREATED, event("completed", response=response("incomplete", item, incomplete_details=details))),
    ):
        assert (found.message.text, found.finish_reason) == ("a", reason)


def test_a_status_that_is_not_told_is_complete() -> None:
    assert read_whole(response(None, message_item(text("a")))).finish_reason == "completed"
    assert read_stream(event("completed", response={"output": [message_item(text("a"))]})).finish_reason == "completed"


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("file_search_call", "file_search"),
        ("code_interpreter_call", "code_interpreter"),
        ("image_generation_call", "image_generation"),
        ("mcp_list_tools", "mcp_list_tools"),
        ("mcp_call", "mcp"),
        ("mcp_approval_request", "mcp_approval_request"),
        ("compaction", "compaction"),
        ("of_tomorrow_call", "of_tomorrow"),
    ],
)
def test_what_the_providers_own_tools_did_is_a_part(kind: str, name: str) -> None:
    item = {"id": "x_1", "type": kind, "status": "completed", "result": None, "outputs": [{"logs": "1"}]}
    for found in (read_whole(response("completed", item)), read_stream(CREATED, added(0, item), done(0, item), ends())):
        assert parts(found) == (ServerToolPart(name=name, details=FrozenDict(item)),)
        assert items(found.message) == [item]


@pytest.mark.fault("L46")
def test_arguments_may_be_an_object_and_null() -> None:
    for arguments, expected in (({"x": 1}, '{"x":1}'), (None, ""), ("", "")):
        item = call_item(arguments=arguments)
        found = read_whole(response("completed", item))
        assert [call.arguments for call in found.message.tool_calls] == [expected]
        assert read_stream(CREATED, done(0, item), ends()) == found


@pytest.mark.fault("L43")
def test_a_call_without_ids_or_a_name_is_one() -> None:
    item = {"type": "function_call", "arguments": "{}"}
    for found in (read_whole(response("completed", item)), read_stream(CREATED, added(0, item), done(0, item), ends())):
        assert parts(found) == (ToolCall(id="", name="", arguments="{}"),)


def test_the_end_does_not_wait_for_an_item() -> None:
    end = {**ends(message_item(text("ab"))), "output_index": 7}
    assert read_stream(CREATED, *says(0, "a"), end, b"junk") == read_stream(CREATED, ends(message_item(text("ab"))))


def test_what_comes_after_the_end_is_ignored() -> None:
    assert read_stream(*STREAM, b"[DONE]", b"junk", ends(status="failed")) == EXPECTED


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"type": "keepalive"},
        {"type": "response.of_tomorrow", "item": 7, "delta": [1], "code": {}, "error": None, "response": None},
        {"type": "response.queued", "response": {"status": "queued"}},
        {"type": "response.output_text.delta", "output_index": 0, "delta": None},
        {"type": "response.output_text.delta", "output_index": 0, "delta": ""},
        {"type": "response.output_text.done", "output_index": 0, "text": "never read"},
        {"type": "response.audio.delta", "delta": "AAAA"},
        {"type": "response.output_item.done", "output_index": 9, "item": {"type": None}},
        {"type": "response.output_item.done", "output_index": 9, "item": {"type": "message", "content": 7}},
        {"type": "response.output_item.done", "output_index": 9, "item": message_item({"type": ["x"]}, 7, {"type": 8})},
    ],
)
@pytest.mark.fault("L35")
def test_events_that_say_nothing_are_skipped(said: object) -> None:
    before, after = STREAM[:-1], STREAM[-1]
    assert read_stream(said, *before, said, after) == EXPECTED


VIOLATIONS: Final = (
    b"junk",
    b"{",
    b"null",
    b"5",
    b"[]",
    b'"text"',
    b"\xff",
    b"[" * 5000,
    b'{"type": 7}',
    b'{"type": "response.output_text.delta", "output_index": 0, "delta": 5}',
    b'{"type": "response.output_text.delta", "output_index": "0", "delta": "x"}',
    b'{"type": "response.output_item.added", "output_index": 0, "item": null}',
    b'{"type": "response.output_item.done", "output_index": 0}',
    b'{"type": "response.output_item.done", "output_index": 8, "item": {"type": "x_call", "score": NaN}}',
    b'{"type": "response.output_item.done", "output_index": 8, "item": {"type": "x", "a": %b%b}}'
    % (b"[" * 200, b"]" * 200),
    b'{"type": "response.completed", "response": 7}',
    b'{"type": "response.completed", "response": {"output": [null]}}',
)


@pytest.mark.parametrize("data", VIOLATIONS, ids=lambda data: repr(data[:60]))
@pytest.mark.fault("L35", "L36")
def test_what_is_no_event_is_a_violation(data: bytes) -> None:
    with pytest.raises(ProtocolViolation) as caught:
        read_stream(CREATED, *says(0, "so far"), data)
    assert (caught.value.partial, caught.value.provider) == ("so far", "acme")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "answer",
    [
        b"<html>",
        b"",
        b"null",
        b"[]",
        {},
        {"output": None, "status": "completed"},
        response("completed", None),
        response("in_progress"),
        response("queued"),
        response("cancelled"),
    ],
)
@pytest.mark.fault("L19", "L36")
def test_what_is_no_answer_is_a_violation(answer: object) -> None:
    with pytest.raises(ProtocolViolation) as caught:
        read_whole(answer)
    assert caught.value.provider == "acme"


@pytest.mark.fault("L31")
def test_lone_surrogates_and_nul_are_kept() -> None:
    item = message_item(text("a\ud83d\0", {"note": "\udfff"}))
    for found in (read_whole(response("completed", item)), read_stream(*says(0, "a\ud83d"), done(0, item), ends())):
        assert found.message.text == "a\ud83d\0"
        assert items(found.message)[0]["content"][0]["annotations"] == [{"note": "\udfff"}]


ERRORS: Final = (
    ({"code": "rate_limit_exceeded", "message": "slow"}, RateLimited, 429, "rate_limit_exceeded"),
    ({"code": "server_error", "message": "down"}, ProviderError, None, "server_error"),
    ({"code": "invalid_prompt", "message": "no"}, ProviderError, None, "invalid_prompt"),
    ({"code": 503, "message": "down"}, ProviderError, 503, "503"),
)


@pytest.mark.parametrize(("error", "kind", "status", "code"), ERRORS)
@pytest.mark.fault("L32", "L33")
def test_an_error_inside_a_success_is_an_error(
    error: Item, kind: type[ProviderError], status: int | None, code: str
) -> None:
    failed = response("failed", error=error, usage=None)
    for answer in ({"error": error}, failed):
        with pytest.raises(kind) as caught:
            read_whole(answer)
        assert (type(caught.value), caught.value.status, caught.value.code) == (kind, status, code)
    for said in ({"type": "error", **error}, {"type": "error", "error": error}, event("failed", response=failed)):
        with pytest.raises(kind) as caught:
            read_stream(CREATED, *says(0, "so far"), said, ends())
        assert (type(caught.value), caught.value.status, caught.value.code) == (kind, status, code)
        assert (caught.value.partial, caught.value.provider) == ("so far", "acme")


def test_a_failure_that_says_nothing_may_pass() -> None:
    with pytest.raises(ProviderError, match="the model failed") as caught:
        read_stream(CREATED, ends(status="failed"))
    assert caught.value.retryable


def test_a_failure_tells_its_tokens_before() -> None:
    reader = ResponsesReader(SERVICE)
    made = reader.feed([as_bytes(ends(message_item(text("so far")), status="failed"))])
    assert [type(one) for one in made] == [ModelDelta, TextDelta, UsageDelta]
    with pytest.raises(ProviderError) as caught:
        reader.end()
    assert caught.value.partial == "so far"


@pytest.mark.parametrize("output", [(), (message_item(),), (message_item(text("")),), (thought_item("hm"),)])
@pytest.mark.fault("L37")
def test_an_empty_answer_is_one_unless_it_says_why(output: tuple[Item, ...]) -> None:
    stream = [CREATED, *(done(index, item) for index, item in enumerate(output))]
    with pytest.raises(EmptyAnswer) as caught:
        read_whole(response("completed", *output))
    assert caught.value.retryable
    with pytest.raises(EmptyAnswer):
        read_stream(*stream, ends(*output))
    for reason in ("max_output_tokens", "content_filter"):
        why = {"incomplete_details": {"reason": reason}}
        assert read_whole(response("incomplete", *output, **why)).message.text == ""
        assert read_stream(*stream, ends(status="incomplete", **why)).finish_reason == reason


@pytest.mark.parametrize("last", [b"[DONE]", event("in_progress", response=response("in_progress"))])
@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.fault("L20", "L22", "L34")
def test_a_stream_without_its_end_is_never_a_success(last: object, clean: bool) -> None:
    item = message_item(text("so far"))
    found = read([as_stream(CREATED, *says(0, "so far"), done(0, item), last)], clean=clean)
    assert isinstance(found, StreamTruncated)
    assert found.partial == "so far"


@pytest.mark.parametrize(
    "usage",
    [
        None,
        7,
        {},
        {"input_tokens": 1},
        {"input_tokens": -1, "output_tokens": 1},
        {"input_tokens": "1", "output_tokens": 1},
        {"input_tokens": True, "output_tokens": 1},
        {"input_tokens": 1, "output_tokens": 1e9},
        {"input_tokens": 1, "output_tokens": 10**20},
    ],
)
@pytest.mark.fault("L50")
def test_tokens_without_sense_are_unknown_not_zero(usage: object) -> None:
    assert read_usage(usage) is None
    assert read_whole(response("completed", message_item(text("a")), usage=usage)).usage is None


def test_details_without_sense_do_not_spoil_the_tokens() -> None:
    usage = {"input_tokens": 1, "output_tokens": 2, "cost": -1, "input_tokens_details": {"cached_tokens": -1}}
    assert read_usage({**usage, "output_tokens_details": 7}) == Usage(input_tokens=1, output_tokens=2)
    assert read_usage({**usage, "cost": 0.5}) == Usage(input_tokens=1, output_tokens=2, cost=0.5)


def test_spoilt_streams_give_an_answer_or_an_error_of_ours() -> None:
    """What comes out is the same however it is cut; an answer is fit to be stored, an error fit to be shown."""
    chance = random.Random(7)  # noqa: S311  # nothing is kept secret by it
    whole = as_stream(*STREAM)
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
                    ends_of_events = [0, *(n + 2 for n in range(len(stream)) if stream[n : n + 2] == b"\n\n")]
                    place = chance.choice(ends_of_events)
                    stream[place:place] = b"data: " + chance.choice([*VIOLATIONS, *map(as_bytes, STREAM)]) + b"\n\n"
        clean = chance.random() < 0.5
        found = read([bytes(stream)], clean=clean)
        again = read([bytes(stream[n : n + 7]) for n in range(0, len(stream), 7)], clean=clean)
        kinds.add(type(found))
        if isinstance(found, Answer):
            assert found == again
            kept = entry(1, MessageEntry(message=found.message, usage=found.usage), "run_1")
            assert decode(encode(kept)) == kept
            provider().encode(Request(messages=[found.message]))
        else:
            assert (type(found), str(found), found.partial) == (type(again), str(again), again.partial)  # type: ignore[union-attr]
            assert str(found).isprintable()
    assert kinds >= {Answer, ProtocolViolation, StreamTruncated}


# --- over HTTP -------------------------------------------------------------------------------------------------------


def streamed(serve: Serve, *events: object) -> list[Step]:
    steps = [one if isinstance(one, asyncio.Event) else as_stream(one) for one in events]
    return serve.stream(*steps)


async def test_a_stream_over_http_comes_in_batches(serve: Serve) -> None:
    go = asyncio.Event()
    item = message_item(text("ab"))
    server = await serve(
        streamed(serve, CREATED, *says(0, "a"), go, *says(0, "b"), done(0, item), ends(item), b"[DONE]")
    )
    asked = provider(server.url)
    for _ in range(2):
        told = ""
        async for batch in asked.stream(Request(messages=HI)):
            told += "".join(one.text for one in batch if isinstance(one, TextDelta))
            if told == "a":
                go.set()
        assert told == "ab"
    assert server.connections == 1  # it is kept, although the server said more than the end
    assert (server.requests[0].path, server.requests[0].json["stream"]) == ("/v1/responses", True)


async def test_a_whole_answer_over_http_is_one_batch(serve: Serve) -> None:
    server = await serve(serve.whole(response("completed", *ITEMS)))
    batches = [batch async for batch in provider(server.url).stream(Request(messages=HI, stream=False))]
    assert len(batches) == 1
    fold = Fold("acme", "m1")
    fold.add(batches[0])
    assert fold.answer() == EXPECTED
    assert "stream" not in server.requests[0].json


async def test_the_loop_asks_again_with_what_was_said(serve: Serve) -> None:
    """A tool is called, and the thought that led to it goes back with the call, before its result."""
    call = call_item(arguments='{"x": 2, "y": 2}', status="completed")
    last = message_item(text("It is 4."))
    server = await serve(
        streamed(serve, CREATED, done(0, thought_item("hm")), added(1, call), done(1, call), ends()),
        streamed(serve, CREATED, *says(0, "It is 4."), done(0, last), ends(last)),
    )

    async def add(x: int, y: int) -> int:
        return x + y

    result = await Agent(provider=provider(server.url), tools=[add], store=MemoryStore()).run("2 + 2?")
    assert (result.stop_reason, result.output, result.finish_reason) == ("response", "It is 4.", "completed")
    assert server.requests[1].json["input"] == [
        {"role": "user", "content": "2 + 2?"},
        thought_item("hm"),
        call,
        {"type": "function_call_output", "call_id": "call_1", "output": "4"},
    ]


async def test_the_loop_knows_what_was_cut_and_what_was_refused(serve: Serve) -> None:
    cut = {"incomplete_details": None}
    refusal = message_item({"type": "refusal", "refusal": "I won't."})
    server = await serve(
        serve.whole(response("incomplete", message_item(text("a")), **cut)), serve.whole(response("completed", refusal))
    )
    agent = Agent(provider=provider(server.url), store=MemoryStore())
    assert (await agent.run("hi")).truncated
    with pytest.raises(Refused) as caught:
        await agent.run("hi")
    assert caught.value.text == "I won't."
