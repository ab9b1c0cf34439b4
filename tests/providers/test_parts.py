"""What each provider takes in messages and settings, as it is in the code and as docs/providers.md says it."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from plait import get_provider
from plait.errors import ConfigurationError
from plait.messages import (
    AssistantMessage,
    AudioPart,
    ContentPart,
    FilePart,
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
from plait.providers.base import DEFAULT_SETTINGS, Request, Settings, ToolDefinition
from plait.providers.catalog import OFFLINE, REPLAY
from plait.providers.models import MODELS
from plait.providers.ollama import OllamaProvider
from plait.providers.ollama_request import addresses_in
from plait.providers.remote import HttpProvider
from plait.providers.retry import Retrying
from plait.providers.vendors import VENDORS
from plait.schema import output_schema

if TYPE_CHECKING:
    from collections.abc import Sequence

PAGE: Final = (Path(__file__).parents[2] / "docs" / "providers.md").read_text("utf-8")
NAMES: Final = [*VENDORS]
PARTS: Final[dict[str, ContentPart]] = {
    "image": ImagePart(data=b"\x89PNG"),
    "image's address": ImagePart(url="https://x.test/a.png"),
    "PDF": FilePart(data=b"%PDF-", name="a.pdf"),
    "PDF's address": FilePart(url="https://x.test/a.pdf"),
    "text file": FilePart(data=b"a", media_type="text/plain", name="a.txt"),
    "other file": FilePart(data=b"a", media_type="application/msword", name="a.doc"),
    "`file_id`": FilePart(file_id="file-1"),
    "sound": AudioPart(data=b"RIFF"),
}
SETTINGS: Final[dict[str, Any]] = {
    "temperature": 1.0,
    "max_tokens": 5,
    "top_p": 0.5,
    "stop": ("x",),
    "seed": 1,
    "n": 2,
    "tool_choice": "required",
    "parallel_tool_calls": False,
    "cache": True,
}
FETCHED: Final = "fetched"
SPOKEN: Final = {
    "chat": "OpenAI's chat",
    "responses": "OpenAI's Responses",
    "anthropic": "Anthropic's Messages",
    "ollama": "Ollama's own",
}


def rows(beginning: str) -> dict[str, dict[str, str]]:
    """Read the table of the page whose head begins so: the cells of each row, by its name and the column's."""
    lines = PAGE[PAGE.index(f"| provider | {beginning}") :].split("\n\n", 1)[0].splitlines()
    (_, *heads), _, *body = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {name.strip("`"): dict(zip(heads, cells, strict=True)) for row in body for name, *cells in split(row)}


def split(row: list[str]) -> list[list[str]]:
    return [[name, *row[1:]] for name in row[0].split(", ")]


def made(name: str) -> HttpProvider:
    provider = get_provider(f"{name}:any", api_key="sk-test")
    assert isinstance(provider, Retrying)
    assert isinstance(provider.provider, HttpProvider)
    return provider.provider


def asked(part: ContentPart) -> UserMessage:
    return UserMessage(parts=(TextPart(text="See this:"), part))


def given(part: ContentPart) -> list[Message]:
    call = AssistantMessage(parts=(ToolCall(id="c1", name="look"),))
    return [UserMessage(text="Look!"), call, ToolMessage(parts=(ToolResult(call_id="c1", name="look", parts=(part,)),))]


def refusal(provider: HttpProvider, messages: list[Message], settings: Settings = DEFAULT_SETTINGS) -> str | None:
    """Give the sentence with which a request is refused before anything is sent; None if it is not."""
    if isinstance(provider, OllamaProvider) and any(addresses_in(message) for message in messages):
        return FETCHED  # before the request is sent
    try:
        provider.encode(Request(messages=messages, tools=[ToolDefinition(name="look")], settings=settings))
    except ConfigurationError as error:
        return str(error)
    return None


def takes(provider: HttpProvider, messages: list[Message]) -> str:
    said = refusal(provider, messages)
    assert said is None or said == FETCHED or repr(provider.name) in said
    return "yes" if said is None else "fetched" if said == FETCHED else "no"


@pytest.mark.parametrize("name", NAMES)
def test_a_provider_takes_the_parts_that_the_page_says(name: str) -> None:
    provider = made(name)
    said = rows("image |")[name]
    assert {what: takes(provider, [asked(part)]) for what, part in PARTS.items()} == said
    assert {what: shows(provider, given(part)) for what, part in PARTS.items()} == said
    earlier: dict[str, list[Message]] = {what: [asked(part), UserMessage(text="So?")] for what, part in PARTS.items()}
    assert {what: takes(provider, messages) for what, messages in earlier.items()} == said
    assert {what: shows(provider, messages, earlier=1) for what, messages in earlier.items()} == said


def shows(provider: HttpProvider, messages: list[Message], earlier: int = 0) -> str:
    """Say whether what a tool gave, or was said before, reaches the model; it is never a reason to refuse a request."""
    if isinstance(provider, OllamaProvider) and any(addresses_in(message) for message in messages):
        return FETCHED
    body = provider.encode(Request(messages=messages, tools=[ToolDefinition(name="look")], earlier=earlier))
    return "no" if b"stood here, which cannot be shown to this model.]" in body else "yes"


@pytest.mark.parametrize("name", NAMES)
def test_a_provider_refuses_the_settings_that_the_page_says(name: str) -> None:
    provider = made(name)
    told = {what: refusal(provider, [UserMessage(text="x")], Settings(**{what: v})) for what, v in SETTINGS.items()}
    refused = {what: said for what, said in told.items() if said is not None}
    assert all(repr(name) in said and what in said for what, said in refused.items())
    assert ", ".join(f"`{what}`" for what in refused) == rows("takes no")[name]["takes no"]


EXTRA: Final[dict[str, dict[str, Any]]] = {
    "chat": {"response_format": {"type": "json_object"}},
    "responses": {"text": {"verbosity": "low", "format": {"type": "json_object"}}},
    "anthropic": {"output_config": {"effort": "low", "format": None}},
    "ollama": {"format": "json"},
}


@pytest.mark.parametrize("name", NAMES)
def test_extra_has_the_last_word_and_no_field_is_said_twice(name: str) -> None:
    """Which of two fields of one name a server obeys is for nobody to know."""

    def read(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len(dict(pairs)) == len(pairs), f"twice in one object: {pairs}"
        return dict(pairs)

    extra: dict[str, Any] = {"model": "other", "temperature": 1, "tools": [{"type": "search"}]} | EXTRA[
        VENDORS[name].dialect
    ]
    request = Request(
        messages=[UserMessage(text="x")],
        tools=[ToolDefinition(name="look")],
        output=output_schema(list[str]),
        settings=Settings(temperature=0, max_tokens=9, extra=FrozenDict(extra)),
    )
    body = json.loads(made(name).encode(request), object_pairs_hook=read)
    ours, theirs = body["tools"]
    assert ours != theirs
    assert {field: body[field] for field in extra} == extra | {"tools": [ours, *extra["tools"]]}


@pytest.mark.parametrize(("name", "longest"), [("openai", 40), ("openai-responses", 64), ("openrouter", 80)])
def test_a_call_and_its_result_go_by_one_id_that_the_server_takes(name: str, longest: int) -> None:
    call = ToolCall(id="x" * 80, name="look", arguments="{}")
    asked_for = AssistantMessage(provider="other", parts=(call,))
    result = ToolMessage(parts=(ToolResult(call_id=call.id, text="a tree"),))
    body = made(name).encode(Request(messages=[UserMessage(text="x"), asked_for, result]))
    first, second = re.findall(rb'"(?:id|call_id|tool_call_id)":"([^"]*)"', body)
    assert (len(first), first) == (longest, second)


@pytest.mark.parametrize("name", NAMES)
def test_a_text_at_which_the_answer_ends_may_be_one_many_or_none(name: str) -> None:
    def body(stop: Sequence[str] | None) -> bytes | None:
        request = Request(messages=[UserMessage(text="x")], settings=Settings(stop=stop))
        return None if refusal(made(name), [UserMessage(text="x")], request.settings) else made(name).encode(request)

    assert body(()) == body([]) == body(None) is not None
    assert body("END") == body(("END",)) == body(["END"]) != body(None)
    for wrong in (5, [5], {"END": 1}):
        with pytest.raises(ConfigurationError, match=r"Settings\(stop=\.\.\.\) takes a text, or several in a list"):
            Settings(stop=wrong)  # type: ignore[arg-type]  # which is the mistake


def test_the_page_says_where_each_provider_is() -> None:
    told = rows("key |")
    assert [*told] == [*NAMES, OFFLINE, f"{REPLAY}:FILE"]
    for name, vendor in VENDORS.items():
        key = f"`{vendor.key_variable}`" if vendor.key_needed else "none needed"
        assert told[name] == {
            "key": key,
            "address, unless": f"`{vendor.base_url_variable}`",
            "speaks": SPOKEN[vendor.dialect],
            "default model": f"`{MODELS[name]}`",
        }


def test_ollamas_chat_takes_an_image_at_a_data_address_and_is_told_of_no_tools_that_it_may_not_call() -> None:
    provider = made("ollama-chat")
    tools = [ToolDefinition(name="look")]
    settings = Settings(tool_choice="none", n=1, parallel_tool_calls=True)
    image = asked(ImagePart(url="data:image/png;base64,AAAA"))
    body = provider.encode(Request(messages=[image], tools=tools, settings=settings, stream=False))
    assert re.findall(rb'"(?:tools|tool_choice|url)":[^,}]*', body) == [b'"url":"data:image/png;base64']
    with pytest.raises(ConfigurationError, match="'ollama-chat' takes no address of an image; give the image's data"):
        provider.encode(Request(messages=[asked(ImagePart(url="https://x.test/a.png"))]))


def test_files_that_openai_does_not_take_may_go_to_other_servers_of_its_dialect() -> None:
    file = Request(messages=[asked(PARTS["text file"])])
    with pytest.raises(
        ConfigurationError, match="a file of type 'text/plain' cannot be sent to 'openai'; it takes application/pdf"
    ):
        made("openai").encode(file)
    other = get_provider("openai:any", base_url="http://127.0.0.1:9/v1")
    assert isinstance(other, Retrying)
    assert isinstance(other.provider, HttpProvider)
    assert takes(other.provider, [*file.messages]) == "yes"


PNG: Final = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\0IEND\xaeB`\x82"


@pytest.mark.parametrize("name", NAMES)
def test_an_image_at_a_data_address_is_called_what_its_bytes_are(name: str) -> None:
    provider, data = made(name), b64encode(PNG).decode()
    url = ImagePart(url=f"DATA:image/jpg;BASE64,{data}")
    asked_for, same = (Request(messages=[asked(part)]) for part in (url, ImagePart(data=PNG)))
    assert provider.encode(asked_for) == provider.encode(same)
    assert data.encode() in provider.encode(same)
    assert b"jpg" not in provider.encode(asked_for)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("image", "sentence"),
    [
        (
            ImagePart(url="dot.png"),
            (
                "the image 'dot.png' is no address; it must begin with http:, https: or data:. A file is given with "
                "attachment('dot.png')"
            ),
        ),
        (ImagePart(data=PNG[:-4]), "an image part is a broken image/png image: its end is missing"),
        (ImagePart(data=b""), "an image part is empty"),
        (
            ImagePart(url="data:image/png;base64,?"),
            "an image part is a data: address whose data cannot be read; it must be data:image/png;base64,...",
        ),
    ],
)
def test_an_image_that_is_none_is_refused_in_one_sentence(name: str, image: ImagePart, sentence: str) -> None:
    assert refusal(made(name), [asked(image)]) == sentence


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_called_what_it_is_without_a_word_about_it(name: str) -> None:
    typed = FilePart(data=b"hello", media_type="text/plain", name="notes.txt")
    untyped = FilePart(data=b"hello", name="notes.txt")
    provider = made(name)
    if (sentence := refusal(provider, [asked(typed)])) is not None:
        assert refusal(provider, [asked(untyped)]) == sentence
    else:
        bodies = [provider.encode(Request(messages=[asked(part)])) for part in (typed, untyped)]
        assert bodies[0] == bodies[1]
        assert b"text/plain" in bodies[0]


@pytest.mark.parametrize("name", NAMES)
def test_texts_do_not_run_into_one_another(name: str) -> None:
    texts = (TextPart(text="one"), TextPart(text="two"))
    call = AssistantMessage(parts=(ToolCall(id="c1", name="look"),))
    result = ToolMessage(parts=(ToolResult(call_id="c1", name="look", parts=texts),))
    request = Request(messages=[SystemMessage(parts=texts), UserMessage(parts=texts), call, result])
    body = made(name).encode(request)
    assert (body.count(b"one"), body.count(b"two"), body.count(b"onetwo")) == (3, 3, 0)


@pytest.mark.parametrize("name", NAMES)
async def test_a_request_without_messages_is_not_sent(name: str) -> None:
    with pytest.raises(ConfigurationError, match="the request has no messages; give it at least what a user says"):
        async for _ in made(name).stream(Request(messages=[])):
            pass


@pytest.mark.parametrize("name", [name for name in NAMES if "ollama" not in name])
def test_a_tool_that_is_not_there_cannot_be_asked_for(name: str) -> None:
    said = refusal(made(name), [UserMessage(text="x")], Settings(tool_choice="any"))
    assert said == "tool_choice='any' names no tool of the request; it has look"
