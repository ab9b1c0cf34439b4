"""What each provider takes in messages and settings, as it is in the code and as docs/providers.md says it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

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
    TextPart,
    ToolCall,
    ToolMessage,
    ToolResult,
    UserMessage,
)
from plait.providers.base import DEFAULT_SETTINGS, Request, Settings, ToolDefinition
from plait.providers.catalog import OFFLINE, REPLAY
from plait.providers.models import MODELS
from plait.providers.ollama_request import Unfetched
from plait.providers.remote import HttpProvider
from plait.providers.retry import Retrying
from plait.providers.vendors import VENDORS

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
    try:
        provider.encode(Request(messages=messages, tools=[ToolDefinition(name="look")], settings=settings))
    except Unfetched:  # it is fetched before the request is sent
        return FETCHED
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
    assert {what: takes(provider, given(part)) for what, part in PARTS.items()} == said


@pytest.mark.parametrize("name", NAMES)
def test_a_provider_refuses_the_settings_that_the_page_says(name: str) -> None:
    provider = made(name)
    told = {what: refusal(provider, [UserMessage(text="x")], Settings(**{what: v})) for what, v in SETTINGS.items()}
    refused = {what: said for what, said in told.items() if said is not None}
    assert all(repr(name) in said and what in said for what, said in refused.items())
    assert ", ".join(f"`{what}`" for what in refused) == rows("takes no")[name]["takes no"]


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
