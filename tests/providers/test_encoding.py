"""What would be sent for a request is what is sent: the same bytes, to the same place, and the key in none of it."""

from __future__ import annotations

import json
import re
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final, TypedDict

import msgspec
import pytest

from plait.errors import ConfigurationError
from plait.messages import (
    AssistantMessage,
    ImagePart,
    Message,
    SystemMessage,
    TextPart,
    ToolCall,
    ToolMessage,
    ToolResult,
    UserMessage,
)
from plait.plain import FrozenDict
from plait.providers.anthropic import AnthropicProvider
from plait.providers.base import Request, Settings, ToolDefinition
from plait.providers.chat import ChatProvider
from plait.providers.encoding import Encoded, encoded
from plait.providers.fallback import Fallback
from plait.providers.offline import OfflineProvider
from plait.providers.ollama import OllamaProvider
from plait.providers.recording import Recording, Replay
from plait.providers.responses import ResponsesProvider
from plait.providers.retry import Retrying
from plait.schema import output_schema
from plait.testing import FaultServer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from plait.events import Delta
    from plait.providers.base import Provider
    from plait.providers.remote import HttpProvider
    from providers.conftest import Serve

KEY: Final = "sk-very/secret-1234"
PNG: Final = (
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\1\0\0\0\1\x08\6\0\0\0\x1f\x15\xc4\x89\0\0\0\nIDATx\x9cc\0\1\0\0\5\0\1\r\n-"
    b"\xb4\0\0\0\0IEND\xaeB`\x82"
)
MADE: Final[dict[str, type[HttpProvider]]] = {
    "chat": ChatProvider,
    "responses": ResponsesProvider,
    "anthropic": AnthropicProvider,
    "ollama": OllamaProvider,
}
MODELS: Final = {"chat": "gpt-4o", "responses": "gpt-5", "anthropic": "claude-sonnet-4-5", "ollama": "llama3.2"}


class Trip(TypedDict):
    """A trip."""

    city: str


TRIP: Final = output_schema(Trip)
ADD: Final = ToolDefinition(name="add", description="Adds.", parameters={"type": "object", "properties": {}})
SYSTEM: Final = SystemMessage(text="Be <system>.")
CALLED: Final = AssistantMessage(parts=(TextPart(text="<called>"), ToolCall(id="c1", name="add", arguments='{"a":1}')))
THREAD: Final[tuple[Message, ...]] = (
    SYSTEM,
    UserMessage(text="<one>"),
    CALLED,
    ToolMessage(parts=(ToolResult(call_id="c1", name="add", text="<result>"),)),
    UserMessage(text="<two> ü \ud800"),
)
HI: Final = (UserMessage(text="hi"),)
REQUESTS: Final[dict[str, Request]] = {
    "a prompt": Request(messages=HI),
    "not streamed": Request(messages=HI, stream=False),
    "a thread with tools": Request(messages=THREAD, tools=[ADD]),
    "a tool that must be called": Request(messages=THREAD, tools=[ADD], settings=Settings(tool_choice="required")),
    "settings": Request(messages=HI, settings=Settings(temperature=0.5, max_tokens=7, top_p=0.9)),
    "texts to stop at": Request(messages=HI, settings=Settings(stop=("x", "y"))),
    "the cache": Request(messages=THREAD, tools=[ADD], settings=Settings(cache=True)),
    "fields of its own": Request(messages=HI, settings=Settings(extra=FrozenDict({"own": [1], "top_p": 0.1}))),
    "an output": Request(messages=THREAD, output=TRIP),
    "an output by a tool": Request(messages=THREAD, tools=[ADD], output=TRIP, settings=Settings(output_mode="tool")),
    "an output by the prompt": Request(messages=THREAD, output=TRIP, settings=Settings(output_mode="prompt")),
    "an output without system text": Request(messages=HI, output=TRIP, settings=Settings(output_mode="prompt")),
    "an image": Request(messages=[SYSTEM, UserMessage(parts=(TextPart(text="see"), ImagePart(data=PNG)))]),
    "nothing": Request(messages=()),
    "it begins with an answer": Request(messages=[SYSTEM, AssistantMessage(text="yes"), *HI]),
}


def provider(dialect: str, base_url: str = "http://127.0.0.1:9", **options: Any) -> HttpProvider:
    return MADE[dialect](MODELS[dialect], base_url=base_url, api_key=KEY, **options)


async def drain(asked: Provider, request: Request) -> None:
    async with aclosing(asked.stream(request)) as batches:
        async for _ in batches:
            pass


@pytest.mark.parametrize("what", REQUESTS)
@pytest.mark.parametrize("dialect", MADE)
async def test_what_is_shown_is_what_is_sent(dialect: str, what: str) -> None:
    request = REQUESTS[what]
    with FaultServer() as server:
        asked = provider(dialect, server.url_for(dialect), headers={"X-Own": f"with {KEY}", "x-own-token": "abc"})  # type: ignore[arg-type]  # it is one
        try:
            shown = asked.encoded(request)
        except ConfigurationError as error:
            with pytest.raises(ConfigurationError, match=f"^{re.escape(str(error))}$"):
                await drain(asked, request)
            assert server.exchanges == []  # of the server, not of the error
            return
        await drain(asked, request)
        (sent,) = server.exchanges
    assert shown.body == sent.raw
    assert shown.url == f"http://{sent.headers['host']}{sent.path}"
    assert sent.headers["x-own"] == f"with {KEY}"
    key_header = "x-api-key" if dialect == "anthropic" else "authorization"
    hidden = {key_header: "***", "x-own-token": "***", "x-own": "with ***"}
    assert shown.headers == {name: hidden.get(name, sent.headers[name]) for name in shown.headers}
    assert hidden.keys() <= shown.headers.keys()
    assert KEY.encode() not in msgspec.json.encode([*shown.headers.items(), shown.url, repr(shown)])
    assert (shown.provider, shown.model, shown.unfetched) == (asked.name, asked.model, ())


@pytest.mark.parametrize("dialect", MADE)
@pytest.mark.parametrize("what", ["a thread with tools", "an output by the prompt", "the cache"])
def test_each_message_stands_where_it_is_said_to(dialect: str, what: str) -> None:
    request = REQUESTS[what]
    shown = provider(dialect).encoded(request)
    marks = [b"<system>", b"<one>", b"<called>", b"<result>", b"<two>"]
    assert [[mark for mark in marks if mark in shown.body[start:end]] for start, end in shown.spans] == [
        [mark] for mark in marks
    ]
    for start, end in shown.spans:
        json.loads(b"[" + shown.body[start:end] + b"]")
    assert shown.prefix == shown.spans[-1][1]
    assert shown.body[shown.prefix :].startswith(b"]")


@pytest.mark.parametrize("dialect", MADE)
def test_what_a_mode_adds_in_front_is_no_message_of_the_request(dialect: str) -> None:
    shown = provider(dialect).encoded(REQUESTS["an output without system text"])
    ((start, end),) = shown.spans
    assert json.loads(shown.body[start:end]) == {"role": "user", "content": "hi"}


@pytest.mark.parametrize("dialect", MADE)
def test_a_message_of_which_nothing_is_sent_has_no_length(dialect: str) -> None:
    empty = ToolMessage(parts=())
    shown = provider(dialect).encoded(Request(messages=[*HI, empty, *HI]))
    one, none, other = shown.spans
    assert none[0] == none[1]
    assert json.loads(shown.body)  # no comma too many
    assert shown.body[slice(*one)] == shown.body[slice(*other)]
    assert one[1] < other[0]


async def test_an_image_that_would_be_fetched_is_named_and_not_fetched(serve: Serve) -> None:
    images = await serve(serve.whole(PNG, headers={"content-type": "image/png"}))
    result = ToolResult(call_id="c1", parts=(TextPart(text="<result>"), ImagePart(url=f"{images.url}/b.png")))
    said = UserMessage(parts=(TextPart(text="see"), ImagePart(url=f"{images.url}/a.png")))
    request = Request(messages=[said, CALLED, ToolMessage(parts=(result,))], stream=False)
    with FaultServer() as server:
        asked = provider("ollama", server.url_for("ollama"), allow_private_urls=True)
        shown = asked.encoded(request)
        assert shown.unfetched == (f"{images.url}/a.png", f"{images.url}/b.png")
        assert images.requests == []
        assert [message.get("images") for message in json.loads(shown.body)["messages"]] == [None] * 3
        await drain(asked, request)
        again = asked.encoded(request)  # they are known now
        assert (again.unfetched, again.body) == ((), server.exchanges[0].raw)
    assert len(images.requests) == 2


def test_wrappers_show_what_the_one_that_they_wrap_sends(tmp_path: Path) -> None:
    request = REQUESTS["a thread with tools"]
    inner = provider("anthropic")
    expected = inner.encoded(request)
    wrapped = Retrying(Recording(Fallback(inner, provider("chat")), tmp_path / "tape.jsonl"))
    assert encoded(wrapped, request) == expected


def test_a_chain_shows_the_first_that_can_express_the_request() -> None:
    request = Request(messages=HI, settings=Settings(seed=1))
    chat = provider("chat")
    assert encoded(Fallback(provider("anthropic"), chat), request) == chat.encoded(request)
    with pytest.raises(ConfigurationError, match="'anthropic' takes no 'seed'; leave it out"):
        encoded(Fallback(provider("responses"), provider("anthropic")), request)


def test_a_provider_that_sends_nothing_shows_the_request_in_plain_form(tmp_path: Path) -> None:
    (tmp_path / "tape.jsonl").write_bytes(b"")
    request = Request(messages=THREAD[:2], tools=[ADD], settings=Settings(max_tokens=5))
    shown = encoded(Retrying(OfflineProvider()), request)
    assert json.loads(shown.body) == {
        "model": "offline",
        "tools": [{"name": "add", "description": "Adds.", "parameters": {"type": "object", "properties": {}}}],
        "messages": [
            {"role": "system", "parts": [{"type": "text", "text": "Be <system>."}]},
            {"role": "user", "parts": [{"type": "text", "text": "<one>"}]},
        ],
        "settings": {"max_tokens": 5},
        "stream": True,
    }
    assert [json.loads(shown.body[start:end])["role"] for start, end in shown.spans] == ["system", "user"]
    assert (shown.provider, shown.url, shown.headers) == ("offline", "", {})
    assert repr(shown) == f"Encoded(offline:offline, {len(shown.body)} bytes, 2 messages)"
    assert encoded(Replay(tmp_path / "tape.jsonl"), request).url == ""


def test_a_provider_of_ones_own_needs_nothing_but_stream() -> None:
    class Own:
        name, model = "own", "m"

        async def stream(self, request: Request) -> AsyncGenerator[list[Delta], None]:
            raise AssertionError
            yield []

    shown = encoded(Retrying(Own()), Request(messages=HI))
    assert isinstance(shown, Encoded)
    assert (shown.provider, json.loads(shown.body)["model"]) == ("own", "m")


def test_the_key_is_hidden_in_a_header_of_any_name_and_however_short() -> None:
    headers = {"x-password": "hunter22", "cookie": "a=1; b=2", "x-note": "plain"}
    short = ChatProvider("m", base_url="http://127.0.0.1:9", api_key="abc", headers=headers).encoded(
        Request(messages=HI)
    )
    shown = {name: short.headers[name] for name in (*headers, "authorization")}
    assert shown == {"x-password": "***", "cookie": "***", "x-note": "plain", "authorization": "***"}
