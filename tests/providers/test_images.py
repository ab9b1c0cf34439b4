from __future__ import annotations

import asyncio
import json
import os
import pickle
import subprocess
import sys
from base64 import b64decode, b64encode
from dataclasses import fields, replace
from email.parser import BytesParser
from email.policy import HTTP
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from openai import APIStatusError, AsyncOpenAI

from plait import (
    ConfigurationError,
    EmptyAnswer,
    ImagePart,
    LimitExceeded,
    ProtocolViolation,
    ProviderError,
    RateLimited,
    RetryPolicy,
    SecurityError,
    TransportError,
    Usage,
)
from plait.providers.http import TransportLimits
from plait.providers.images import AsyncImageClient, ImageEditResponse, ImageGenerationResponse
from plait.providers.models import IMAGE_MODELS
from recorded import read_recordings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from plait.providers.image_input import ImageSource
    from providers.conftest import Loopback, Received, Serve

PATIENCE = 10.0
KEY = "sk-very-secret-key-0123456789"
PNG = b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")
WIDE_PNG = PNG[:16] + (2).to_bytes(4, "big") + PNG[20:]
JPEG = b"\xff\xd8\xff\xe0\0\x10JFIF\0" + bytes(20) + b"\xff\xd9"
GIF = b"GIF89a\1\0\1\0\0\0\0,\0\0\0\0\1\0\1\0\0\2\2D\1\0;"
WEBP = b"RIFF" + (16).to_bytes(4, "little") + b"WEBPVP8 " + bytes(8)
BASE64 = b64encode(PNG).decode()
AT_ONCE = RetryPolicy(initial_delay=0, max_delay=0)


def made(*images: bytes, **more: Any) -> dict[str, Any]:
    return {"created": 1, "data": [{"b64_json": b64encode(image).decode()} for image in images], **more}


def client_of(server: Loopback, provider: str = "openai", **options: Any) -> AsyncImageClient:
    return AsyncImageClient(KEY, provider=provider, base_url=server.url, **options)


def form_of(request: Received) -> list[tuple[str, str | None, str, bytes]]:
    """Read a form as any server does: name, file name, type and content of each field, in order."""
    head = f"content-type: {request.headers['content-type']}\r\n\r\n".encode()
    read = BytesParser(policy=HTTP).parsebytes(head + request.body)
    assert read.is_multipart()
    fields = []
    for part in read.iter_parts():
        content = part.get_payload(decode=True)
        assert isinstance(content, bytes)
        name = part.get_param("name", header="content-disposition")
        fields.append((str(name), part.get_filename(), part.get_content_type(), content))
    return fields


# --- the recordings ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def recorded(shared: Path) -> dict[str, dict[str, Any]]:
    """The recorded exchanges by what tells them apart: the last words of their ids."""
    found = read_recordings(shared, "openai-images", "openrouter-images")
    return {str(one["id"]).removesuffix(".1").rsplit("/", 1)[-1][-40:]: one for one in found}


SUCCESSES = (
    "sta-cooking-pasta-wearing-a-hat-of-some-sort"[-40:],
    "ruby-spec-fixtures-images-variations-image-png"[-40:],
    "unctionality-gpt-image-1-5-supports-image-edits-with-mu"[-40:],
    "basic-functionality-openai-gpt-image-1-can-paint-images"[-40:],
    "functionality-openrouter-google-gemini-3-1-flash-lite-im"[-40:],
)
FAILURES = (
    "ctionality-with-remote-urls-rejects-edits-with-a-url-h"[-40:],
    "ctionality-with-remote-urls-rejects-edits-with-a-url-t"[-40:],
)


def test_every_recording_is_looked_at(recorded: dict[str, dict[str, Any]]) -> None:
    assert sorted(recorded) == sorted((*SUCCESSES, *FAILURES))


@pytest.mark.parametrize("name", SUCCESSES)
async def test_an_answer_is_what_the_sdk_reads(
    name: str, recorded: dict[str, dict[str, Any]], servers: dict[str, str]
) -> None:
    recording = recorded[name]
    url, picked = f"{servers['as recorded']}/v1", {"x-replay-id": recording["id"]}
    async with AsyncOpenAI(api_key=KEY, base_url=url, default_headers=picked, max_retries=0) as sdk:
        theirs = await sdk.images.generate(prompt="x")
    provider = "openrouter" if "openrouter" in recording["provider"] else "openai"
    ours = await AsyncImageClient(KEY, provider=provider, base_url=url, headers=picked).generate("x")
    assert (ours.success, ours.error) == (True, None)
    assert theirs.data is not None
    assert [image.data for image in ours.images] == [one.b64_json and b64decode(one.b64_json) for one in theirs.data]
    assert [image.url for image in ours.images] == [one.url for one in theirs.data]
    assert ours.revised_prompt == theirs.data[0].revised_prompt
    details = theirs.model_dump(exclude_unset=True)
    del details["data"]
    assert ours.details == details
    if provider == "openai" and theirs.usage is not None:
        assert ours.usage == Usage(input_tokens=theirs.usage.input_tokens, output_tokens=theirs.usage.output_tokens)


async def test_openrouter_tells_the_cost_and_the_type(
    recorded: dict[str, dict[str, Any]], servers: dict[str, str]
) -> None:
    client = AsyncImageClient(KEY, provider="openrouter", base_url=f"{servers['as recorded']}/api/v1")
    made = await client.generate("a siamese cat")
    assert made.usage == Usage(input_tokens=5, output_tokens=1537, cost=0.03422675)
    assert made.media_type == "image/jpeg"
    assert made.image_bytes == b64decode(json.loads(recorded[SUCCESSES[4]]["response"]["body"])["data"][0]["b64_json"])
    assert (made.model, made.size, made.quality) == (IMAGE_MODELS["openrouter"], "1024x1024", "standard")


@pytest.mark.parametrize("name", FAILURES)
async def test_a_refusal_is_what_the_sdk_reads(
    name: str, recorded: dict[str, dict[str, Any]], servers: dict[str, str]
) -> None:
    url, picked = f"{servers['as recorded']}/v1", {"x-replay-id": recorded[name]["id"]}
    async with AsyncOpenAI(api_key=KEY, base_url=url, default_headers=picked, max_retries=0) as sdk:
        with pytest.raises(APIStatusError) as caught:
            await sdk.images.edit(image=PNG, prompt="turn the logo to green")
    ours = await AsyncImageClient(KEY, base_url=url, headers=picked).edit("turn the logo to green", PNG)
    theirs = caught.value
    assert (ours.success, ours.images, ours.image_url, ours.image_bytes) == (False, (), None, None)
    assert isinstance(ours.failure, ProviderError)
    assert (ours.failure.status, ours.failure.code) == (theirs.status_code, theirs.code)
    assert isinstance(theirs.body, dict)
    assert ours.error == f"openai answered 400 ({theirs.code}): {theirs.body['message']}"


ASKED: dict[str, Callable[[AsyncImageClient], Any]] = {
    SUCCESSES[0]: lambda client: client.generate(
        "A baby sea otter cooking pasta wearing a hat of some sort", "256x256", model="dall-e-2"
    ),
    SUCCESSES[3]: lambda client: client.generate("a siamese cat", model="gpt-image-1"),
    SUCCESSES[4]: lambda client: client.generate("a siamese cat", model="google/gemini-3.1-flash-lite-image"),
}


@pytest.mark.parametrize("name", ASKED)
async def test_a_request_is_the_recorded_one(name: str, recorded: dict[str, dict[str, Any]], serve: Serve) -> None:
    """But for ``n``, which the recorded program sends although it is 1."""
    server = await serve(serve.whole(made(PNG)))
    recording = recorded[name]
    provider = "openrouter" if "openrouter" in recording["provider"] else "openai"
    await ASKED[name](client_of(server, provider))
    [request] = server.requests
    assert request.json == {key: value for key, value in recording["request"]["body"].items() if key != "n"}
    assert request.path.removeprefix("/v1") == recording["request"]["path"].removeprefix("/api").removeprefix("/v1")
    assert request.headers["content-type"] == "application/json"


async def test_an_edit_says_what_the_recorded_one_says(recorded: dict[str, dict[str, Any]], serve: Serve) -> None:
    """The recorded program sends JSON with images in base64; a form says the same to every model, a third shorter."""
    server = await serve(serve.whole(made(PNG)))
    said = recorded[SUCCESSES[2]]["request"]
    urls = [image["image_url"] for image in said["body"]["images"]]
    response = await client_of(server).edit(said["body"]["prompt"], urls, size="auto", model=said["body"]["model"])
    assert response.success
    [request] = server.requests
    assert request.path == said["path"]
    assert form_of(request) == [
        ("model", None, "text/plain", said["body"]["model"].encode()),
        ("prompt", None, "text/plain", said["body"]["prompt"].encode()),
        *(("image[]", f"image-{number}.png", "image/png", PNG) for number in (1, 2)),
    ]
    assert [b64decode(url.removeprefix("data:image/png;base64,")) for url in urls] == [PNG, PNG]


# --- the sdk's form ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3])
async def test_a_form_means_what_the_sdks_means(count: int, serve: Serve) -> None:
    server = await serve(serve.whole(made(PNG)))
    prompt = 'a "q" é\r\n--x 🦦'
    images = [("a.png", PNG, "image/png"), ("b.jpg", JPEG, "image/jpeg"), ("c.webp", WEBP, "image/webp")][:count]
    async with AsyncOpenAI(api_key=KEY, base_url=server.url, max_retries=0) as sdk:
        await sdk.images.edit(
            image=images if count > 1 else images[0],
            prompt=prompt,
            mask=("m.png", PNG, "image/png"),
            model="gpt-image-1.5",
            n=2,
            size="1024x1024",
            quality="high",
            background="transparent",
        )
    ours = await client_of(server).edit(
        prompt,
        [data for _, data, _ in images],
        PNG,
        model="gpt-image-1.5",
        n=2,
        quality="hd",
        extra={"background": "transparent"},
    )
    assert ours.success
    theirs, sent = server.requests
    assert (theirs.path, theirs.headers["authorization"]) == (sent.path, sent.headers["authorization"])
    assert int(sent.headers["content-length"]) == len(sent.body)

    def meaning(request: Received) -> list[tuple[str, str, bytes, bool]]:
        return sorted((name, kind, content, file is None) for name, file, kind, content in form_of(request))

    assert meaning(sent) == meaning(theirs)
    assert len(form_of(sent)) == 6 + count + 1


async def test_values_that_a_form_can_carry(serve: Serve) -> None:
    server = await serve(serve.whole(made(PNG)))
    extra = {"a": True, "b": False, "c": 80, "d": 0.5, "e": "text"}
    assert (await client_of(server).edit("x", PNG, extra=extra, size="auto")).success
    fields = [(name, content) for name, file, _, content in form_of(server.requests[0]) if file is None]
    assert fields[2:] == [("a", b"true"), ("b", b"false"), ("c", b"80"), ("d", b"0.5"), ("e", b"text")]
    refused = await client_of(server).edit("x", PNG, extra={"svg": {"model": "m"}})
    assert refused.error == ("the field 'svg' of extra is sent in a form, so it must be text, a number, True or False")
    assert len(server.requests) == 1


# --- requests ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "quality", "said"),
    [
        ("gpt-image-1", "auto", None),
        ("gpt-image-1", "standard", None),
        ("gpt-image-1", "hd", "high"),
        ("gpt-image-1.5", "low", "low"),
        ("gpt-image-2.5-flare", "max", "max"),
        ("dall-e-3", "auto", None),
        ("dall-e-3", "standard", None),
        ("dall-e-3", "hd", "hd"),
        ("dall-e-3", "high", "hd"),
        ("dall-e-3", "medium", "standard"),
    ],
)
async def test_quality_is_said_in_the_models_words(model: str, quality: str, said: str | None, serve: Serve) -> None:
    server = await serve(serve.whole(made(PNG)))
    response = await client_of(server).generate("x", quality=quality, model=model)
    assert response.quality == quality
    assert server.requests[0].json == {"model": model, "prompt": "x", "size": "1024x1024"} | (
        {} if said is None else {"quality": said}
    )


async def test_what_else_can_be_said(serve: Serve) -> None:
    server = await serve(serve.whole(made(PNG, PNG)))
    response = await client_of(server).generate("x", "auto", n=2, extra={"background": "transparent", "user": "ada"})
    assert len(response.images) == 2
    assert server.requests[0].json == {
        "model": "gpt-image-1", "prompt": "x", "n": 2, "background": "transparent", "user": "ada"
    }  # fmt: skip


@pytest.mark.parametrize(("provider", "images"), [("openai", None), ("openai", PNG), ("openrouter", None)])
async def test_extra_has_the_last_word(provider: str, images: bytes | None, serve: Serve) -> None:
    """Each field is said once, in JSON and in a form alike; one that is None is not said."""
    server = await serve(serve.whole(made(PNG)))
    client = client_of(server, provider)
    extra = {"size": "1024x1024", "quality": "low", "user": None}
    assert (await client.generate("x", "1x1", "hd", "m", images, extra=extra)).success
    assert (await client.generate("x", "1x1", "hd", "m", images, extra={"size": None})).success
    first, second = (
        request.json if images is None else {name: content.decode() for name, file, _, content in fields if not file}
        for request in server.requests
        for fields in [[] if images is None else form_of(request)]
    )
    assert first == {"model": "m", "prompt": "x", "size": "1024x1024", "quality": "low"}
    assert second == {"model": "m", "prompt": "x", "quality": "high"}
    if images is not None:
        assert [name for name, *_ in form_of(server.requests[0])] == ["model", "prompt", "size", "quality", "image"]


@pytest.mark.parametrize(
    "name", ["model", "prompt", "n", "stream", "image", "image[]", "mask", "input_references"]
)  # fmt: skip
async def test_extra_leaves_alone_what_the_arguments_say(name: str, serve: Serve) -> None:
    server = await serve(serve.whole(made(PNG)))
    for provider in ("openai", "openrouter"):
        client = client_of(server, provider)
        for response in (await client.generate("x", extra={name: "y"}), await client.edit("x", PNG, extra={name: "y"})):
            assert type(response.failure) is ConfigurationError
            assert response.error == f"extra must not hold [{name!r}]: the request says that itself"
    assert server.connections == 0


async def test_what_is_no_json_is_not_said(serve: Serve) -> None:
    server = await serve(serve.whole(made(PNG)))
    for images in (None, PNG):
        response = await client_of(server).generate("x", images=images, extra={"when": object()})
        assert type(response.failure) is ConfigurationError
        assert "object" in str(response.error)
    assert server.connections == 0


async def test_reference_images_go_to_the_edit_endpoint(serve: Serve) -> None:
    server = await serve(serve.whole(made(PNG)))
    response = await client_of(server).generate("x", images=[PNG, JPEG])
    assert isinstance(response, ImageGenerationResponse)
    [request] = server.requests
    assert request.path == "/v1/images/edits"
    assert [field[0] for field in form_of(request)] == ["model", "prompt", "size", "image[]", "image[]"]


async def test_reference_images_for_openrouter(serve: Serve) -> None:
    server = await serve(serve.whole(made(PNG)))
    client = client_of(server, "openrouter")
    first = await client.generate("x", "2048x2048", images=PNG, n=2)
    second = await client.edit("y", [PNG, GIF], model="openai/gpt-image-2")
    assert (first.success, second.success) == (True, True)
    sent = [
        {"type": "image_url", "image_url": {"url": f"data:{kind};base64,{b64encode(data).decode()}"}}
        for kind, data in (("image/png", PNG), ("image/gif", GIF))
    ]
    assert [(request.path, request.json) for request in server.requests] == [
        (
            "/v1/images",
            {
                "model": IMAGE_MODELS["openrouter"],
                "prompt": "x",
                "n": 2,
                "size": "2048x2048",
                "input_references": sent[:1],
            },
        ),
        ("/v1/images", {"model": "openai/gpt-image-2", "prompt": "y", "input_references": sent}),
    ]


async def test_openrouter_takes_no_mask(serve: Serve) -> None:
    server = await serve(serve.whole(made(PNG)))
    response = await client_of(server, "openrouter").edit("x", PNG, PNG)
    assert response.error == (
        "provider 'openrouter' takes no mask: say in the prompt what shall change, or use provider 'openai'"
    )
    assert isinstance(response.failure, ConfigurationError)
    assert server.requests == []


# --- images in --------------------------------------------------------------------------------------------------------

FORMS: dict[str, Callable[[Path], Any]] = {
    "bytes": lambda _: PNG,
    "bytearray": lambda _: bytearray(PNG),
    "memoryview": lambda _: memoryview(PNG),
    "a path": lambda folder: folder / "otter.txt",
    "a path as text": lambda folder: str(folder / "otter.txt"),
    "a relative path": lambda _: "otter.txt",
    "base64": lambda _: BASE64,
    "base64 in lines": lambda _: f" {BASE64[:40]}\n{BASE64[40:]}\n",
    "a data address": lambda _: f"data:image/jpeg;base64,{BASE64}",
    "a data address with percents": lambda _: "DATA:image/png," + "".join(f"%{byte:02x}" for byte in PNG),
    "a part with data": lambda _: ImagePart(data=PNG, media_type="image/jpeg"),
    "a part with a data address": lambda _: ImagePart(url=f"data:image/png;base64,{BASE64}"),
}


@pytest.mark.parametrize("form", FORMS)
async def test_an_image_may_come_in_many_forms(form: str, serve: Serve, tmp_path: Path) -> None:
    """Whatever it is called, its bytes say what it is."""
    (tmp_path / "otter.txt").write_bytes(PNG)
    server = await serve(serve.whole(made(PNG)))
    source: ImageSource = FORMS[form](tmp_path)
    assert (await client_of(server).edit("x", source)).success
    assert form_of(server.requests[0])[-1] == ("image", "image-1.png", "image/png", PNG)


@pytest.mark.parametrize(("data", "kind"), [(PNG, "png"), (JPEG, "jpeg"), (GIF, "gif"), (WEBP, "webp")])
async def test_the_type_is_that_of_the_bytes(data: bytes, kind: str, serve: Serve) -> None:
    server = await serve(serve.whole(made(data)))
    response = await client_of(server).edit("x", data)
    assert form_of(server.requests[0])[-1] == ("image", f"image-1.{kind}", f"image/{kind}", data)
    assert (response.image_bytes, response.media_type) == (data, f"image/{kind}")


async def test_an_image_may_be_an_address(serve: Serve) -> None:
    files = await serve(serve.whole(PNG, headers={"content-type": "text/plain"}))
    server = await serve(serve.whole(made(PNG)))

    async def resolve(_host: str) -> Sequence[str]:
        return ["127.0.0.1"]

    client = client_of(server, allow_private_urls=True, resolve=resolve)
    url = f"http://images.test:{files.port}/a.png"
    assert (await client.edit("x", [url, ImagePart(url=url)], url)).success
    assert [field[3] for field in form_of(server.requests[0])[-3:]] == [PNG, PNG, PNG]
    assert {"authorization", "cookie"} & {name for request in files.requests for name in request.headers} == set()
    assert KEY not in str([request.headers for request in files.requests])


@pytest.mark.fault("S03")
@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::ffff:127.0.0.1"])
async def test_an_image_from_inside_is_not_fetched(address: str, serve: Serve) -> None:
    server = await serve(serve.whole(made(PNG)))

    async def resolve(_host: str) -> Sequence[str]:
        return [address]

    client = client_of(server, resolve=resolve)
    for response in (
        await client.edit("x", "http://images.test/a.png"),
        await client.generate("x", images=[PNG, "https://images.test/a.png"]),
        await client.edit("x", PNG, ImagePart(url="http://images.test/a.png")),
    ):
        assert response.success is False
        assert type(response.failure) is SecurityError
        assert str(response.error).startswith("'images.test' is not fetched: it is a ")
    assert server.connections == 0


class B(os.PathLike[bytes]):
    def __fspath__(self) -> bytes:
        return b"otter.png"

    def __repr__(self) -> str:
        return "B(b'otter.png')"


NOTHING = "is no address (http:, https:, data:), no base64 of an image, and no file that is there"
BAD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "empty": (lambda _: b"", "image 1 is empty"),
    "an empty file": (lambda folder: folder / "empty.png", "image 1 is empty"),
    "no image": (lambda _: b"<svg></svg>", "image 1 is no PNG, JPEG, WebP or GIF image: it begins with b'<svg></svg>'"),
    "a file that is no image": (
        lambda folder: folder / "notes.png",
        "image 1 is no PNG, JPEG, WebP or GIF image: it begins with b'my notes'",
    ),
    "a cut PNG": (lambda _: PNG[:-12], "image 1 is a broken image/png image: its end is missing"),
    "a cut JPEG": (lambda _: JPEG[:-2], "image 1 is a broken image/jpeg image: its end is missing"),
    "a cut GIF": (lambda _: GIF[:-2], "image 1 is a broken image/gif image: its end is missing"),
    "a cut WebP": (lambda _: WEBP[:-1], "image 1 is a broken image/webp image: its end is missing"),
    "a cut file": (lambda folder: folder / "cut.png", "image 1 is a broken image/png image: its end is missing"),
    "no such file": (
        lambda _: Path("nowhere.png"),
        "image 1, the file 'nowhere.png', cannot be read: no such file or directory",
    ),
    "no such file, as text": (
        lambda _: "nowhere.png",
        f"image 1 ('nowhere.png') {NOTHING}",
    ),
    "a folder": (lambda _: Path("folder"), "image 1, 'folder', is no file"),
    "a pipe": (lambda _: Path("pipe"), "image 1, 'pipe', is no file"),
    "a broken link": (
        lambda _: "link.png",
        "image 1, the file 'link.png', cannot be read: no such file or directory",
    ),
    "a path of bytes": (
        lambda _: B(),
        "image 1 is named by the path of a file, not B(b'otter.png')",
    ),
    "a path that cannot be": (
        lambda _: Path("\ud800"),
        r"image 1 is named by the path of a file, not PosixPath('\ud800')",
    ),
    "no text": (
        lambda _: " ",
        f"image 1 ('') {NOTHING}",
    ),
    "another scheme": (
        lambda _: "file:///etc/passwd",
        f"image 1 ('file:///etc/passwd') {NOTHING}",
    ),
    "NUL": (
        lambda _: "a\0b",
        rf"image 1 ('a\\x00b') {NOTHING}",
    ),
    "a data address without data": (
        lambda _: "data:image/png;base64",
        "image 1 is a data: address whose data cannot be read; it must be data:image/png;base64,...",
    ),
    "a data address with bad base64": (
        lambda _: "data:image/png;base64,=x=",
        "image 1 is a data: address whose data cannot be read; it must be data:image/png;base64,...",
    ),
    "an empty part": (lambda _: ImagePart(), "image 1 is an ImagePart with neither data nor url"),
    "another type": (
        lambda _: [7],
        "image 1 is of the type int; an image is an address, a data: address, base64, bytes, a path, or an ImagePart",
    ),
    "a set": (
        lambda _: {PNG},
        "image 1 is of the type set; an image is an address, a data: address, base64, bytes, a path, or an ImagePart",
    ),
    "none": (lambda _: [], "edit needs an image; generate makes one from words alone"),
    "too many": (lambda _: [PNG] * 17, "at most 16 images can be sent together, not 17"),
    "too large": (lambda _: PNG + bytes(50 * 2**20), "image 1 has more than 50 MB; make it smaller"),
}


@pytest.mark.parametrize("case", BAD)
async def test_an_image_that_cannot_be_sent(case: str, serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "notes.png").write_text("my notes")
    (tmp_path / "cut.png").write_bytes(PNG[:40])
    (tmp_path / "folder").mkdir()
    (tmp_path / "link.png").symlink_to("nowhere.png")
    os.mkfifo(tmp_path / "pipe")
    server = await serve(serve.whole(made(PNG)))
    source, said = BAD[case]
    response = await client_of(server).edit("x", source(tmp_path))
    assert (response.success, response.error, response.message) == (False, said, said)
    assert type(response.failure) is ConfigurationError
    assert server.connections == 0


async def test_an_address_that_cannot_be_fetched(serve: Serve) -> None:
    server = await serve(serve.whole(made(PNG)))
    files = await serve(serve.whole(b"gone", status=404), serve.whole(b"<html>"), serve.whole(bytes(51 * 2**20)))
    client = client_of(server, allow_private_urls=True)
    url = f"http://127.0.0.1:{files.port}/a.png"
    failures = [(await client.edit("x", url)).failure for _ in range(3)]
    assert [(type(failure), str(failure)) for failure in failures] == [
        (TransportError, "'127.0.0.1' answered 404 instead of the file; check the address"),
        (ConfigurationError, "image 1 is no PNG, JPEG, WebP or GIF image: it begins with b'<html>'"),
        (LimitExceeded, "what '127.0.0.1' sends has more than 52428800 bytes"),
    ]
    assert server.connections == 0


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (b"", "the mask is empty"),
        (JPEG, "the mask is image/jpeg; it must be a PNG, transparent where the image may change"),
        (WIDE_PNG, "the mask has 2x1 pixels and image 1 has 1x1; they must be of the same size"),
        (Path("nowhere.png"), "the mask, the file 'nowhere.png', cannot be read: no such file or directory"),
    ],
)
async def test_a_mask_that_does_not_fit(mask: ImageSource, said: str, serve: Serve) -> None:
    server = await serve(serve.whole(made(PNG)))
    response = await client_of(server).edit("x", PNG, mask)
    assert (response.error, response.mask_provided, response.images_count) == (said, True, 1)
    assert server.connections == 0


async def test_a_mask_is_sent_beside_the_images(serve: Serve) -> None:
    server = await serve(serve.whole(made(PNG)))
    response = await client_of(server).edit("x", [JPEG, WIDE_PNG], PNG)
    assert (response.success, response.mask_provided, response.images_count) == (True, True, 2)
    assert form_of(server.requests[0])[-3:] == [
        ("image[]", "image-1.jpeg", "image/jpeg", JPEG),
        ("image[]", "image-2.png", "image/png", WIDE_PNG),
        ("mask", "mask.png", "image/png", PNG),
    ]


@pytest.mark.parametrize("mask", ["", None])
async def test_no_mask(mask: str | None, serve: Serve) -> None:
    server = await serve(serve.whole(made(PNG)))
    response = await client_of(server).edit("x", [PNG, JPEG], mask)
    assert (response.mask_provided, response.images_count) == (False, 2)
    assert "mask" not in [field[0] for field in form_of(server.requests[0])]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"prompt": ""}, "prompt must be a text that is not empty, not ''"),
        ({"prompt": None}, "prompt must be a text that is not empty, not None"),
        ({"size": 1024}, "size must be a text that is not empty, not 1024"),
        ({"quality": ""}, "quality must be a text that is not empty, not ''"),
        ({"model": 4}, "model must be a text that is not empty, not 4"),
        ({"n": 0}, "n must be a whole number of at least 1, not 0"),
        ({"n": True}, "n must be a whole number of at least 1, not True"),
        ({"extra": "x"}, "extra must be a mapping of the request's further fields, not str"),
    ],
)
async def test_settings_that_make_no_sense(options: dict[str, Any], said: str, serve: Serve) -> None:
    server = await serve(serve.whole(made(PNG)))
    response = await client_of(server).generate(**{"prompt": "x", **options})
    assert (response.success, response.error) == (False, said)
    assert server.connections == 0


# --- answers ----------------------------------------------------------------------------------------------------------


async def test_an_answer_with_bytes(serve: Serve) -> None:
    usage = {"input_tokens": 10, "output_tokens": 20, "total_tokens": 30}
    server = await serve(serve.whole(made(PNG, created=7, quality="high", usage=usage)))
    response = await client_of(server).generate("an otter", quality="hd")
    assert (response.prompt, response.model, response.size, response.quality) == (
        "an otter", "gpt-image-1", "1024x1024", "hd"
    )  # fmt: skip
    assert (response.success, response.error, response.failure) == (True, None, None)
    assert response.message == "gpt-image-1 gave 1 image"
    assert response.images == (ImagePart(data=PNG, media_type="image/png"),)
    assert (response.image_bytes, response.media_type) == (PNG, "image/png")
    assert response.image_url == f"data:image/png;base64,{BASE64}"
    assert response.usage == Usage(input_tokens=10, output_tokens=20)
    assert response.details == {"created": 7, "quality": "high", "usage": usage}
    assert repr(response) == (
        "ImageGenerationResponse(success=True, images=1 (70 bytes of image/png), model='gpt-image-1', "
        "prompt='an otter')"
    )


async def test_an_answer_with_an_address(serve: Serve) -> None:
    said = {"data": [{"url": "https://images.test/a.png?sig=1", "revised_prompt": "a sea otter"}]}
    server = await serve(serve.whole(said))
    response = await client_of(server).generate("an otter", model="dall-e-3")
    assert response.success
    assert response.images == (ImagePart(url="https://images.test/a.png?sig=1"),)
    assert (response.image_url, response.image_bytes, response.media_type) == (said["data"][0]["url"], None, None)
    assert (response.revised_prompt, response.usage) == ("a sea otter", None)


async def test_an_answer_with_an_address_that_holds_the_image(serve: Serve) -> None:
    server = await serve(serve.whole({"data": [{"url": f"data:image/gif;base64,{BASE64}"}]}))
    response = await client_of(server).generate("an otter")
    assert response.images == (ImagePart(data=PNG, media_type="image/png"),)
    assert response.image_url == f"data:image/png;base64,{BASE64}"


@pytest.mark.parametrize(
    ("item", "more", "kind"),
    [
        ({"b64_json": b64encode(b"<svg/>").decode(), "media_type": "image/svg+xml"}, {}, "image/svg+xml"),
        ({"b64_json": b64encode(b"<svg/>").decode()}, {"output_format": "svg"}, "image/svg"),
        ({"b64_json": b64encode(b"unknown").decode()}, {}, "image/png"),
        ({"b64_json": b64encode(JPEG).decode(), "media_type": "image/png"}, {"output_format": "png"}, "image/jpeg"),
        ({"b64_json": b64encode(b"unknown").decode(), "media_type": "text/html\r\nx: y"}, {}, "image/png"),
        ({"b64_json": b64encode(b"unknown").decode(), "media_type": "image/."}, {}, "image/png"),
        ({"b64_json": b64encode(b"unknown").decode()}, {"output_format": "../x"}, "image/png"),
        ({"b64_json": b64encode(b"unknown").decode()}, {"output_format": None}, "image/png"),
    ],
)
async def test_the_type_of_an_answer(item: dict[str, Any], more: dict[str, Any], kind: str, serve: Serve) -> None:
    server = await serve(serve.whole({"data": [item], **more}))
    assert (await client_of(server).generate("x")).media_type == kind


@pytest.mark.parametrize(
    ("usage", "read"),
    [
        (None, None),
        ("many", None),
        ({"input_tokens": -1, "output_tokens": 1}, None),
        ({"input_tokens": 1}, None),
        ({"prompt_tokens": 1, "completion_tokens": 2}, Usage(input_tokens=1, output_tokens=2)),
        ({"prompt_tokens": 1, "completion_tokens": 2, "cost": 0}, Usage(input_tokens=1, output_tokens=2, cost=0.0)),
        ({"prompt_tokens": 1, "completion_tokens": 2, "cost": -1}, Usage(input_tokens=1, output_tokens=2)),
        ({"prompt_tokens": 1, "completion_tokens": 2, "cost": True}, Usage(input_tokens=1, output_tokens=2)),
    ],
)
async def test_tokens_and_cost(usage: object, read: Usage | None, serve: Serve) -> None:
    server = await serve(serve.whole(made(PNG, usage=usage)))
    assert (await client_of(server, "openrouter").generate("x")).usage == read


@pytest.mark.parametrize(
    ("status", "body", "kind", "said"),
    [
        (400, {"error": {"message": "no", "code": "moderation_blocked"}}, ProviderError,
         "openai answered 400 (moderation_blocked): no"),
        (401, {"error": {"message": f"bad key {KEY}"}}, ProviderError,
         "openai answered 401: bad key ***; check the key that was given, or OPENAI_API_KEY"),
        (404, {"error": "gone"}, ProviderError,
         "openai answered 404: gone; check the model name 'gpt-image-1' and the base_url (asked at {address})"),
        (200, {"error": {"message": "no", "code": 400}}, ProviderError, "openai answered 400: no"),
        (200, {"data": []}, EmptyAnswer, "openai answered without an image"),
        (200, {"data": None}, EmptyAnswer, "openai answered without an image"),
        (200, {}, EmptyAnswer, "openai answered without an image"),
        (200, {"data": [{}]}, EmptyAnswer, "openai answered without an image"),
        (200, {"data": [{"b64_json": "", "url": None}]}, EmptyAnswer, "openai answered without an image"),
        (200, {"data": [{"b64_json": "no*base64"}]}, ProtocolViolation,
         "{address} sent no answer with images: no*base64"),
        (200, {"data": [{"url": "javascript:alert(1)"}]}, ProtocolViolation,
         "{address} sent no answer with images: javascript:alert(1)"),
        (200, {"data": [{"url": "data:image/png;base64,no*base64"}]}, ProtocolViolation,
         "{address} sent no answer with images: data:image/png;base64,no*base64"),
        (200, {"data": ["x"]}, ProtocolViolation, '{address} sent no answer with images: {"data": ["x"]}'),
        (200, {"data": 7}, ProtocolViolation, '{address} sent no answer with images: {"data": 7}'),
        (200, [], ProtocolViolation, "{address} sent no answer with images: []"),
        (200, b'{"data": [{"b64_json": "aGk="}], "a": ' + b"[" * 150 + b"]" * 150 + b"}", ProtocolViolation,
         '{address} sent something that cannot be kept: {"data": [{"b64_json": "aGk="}], "a": ' + "[" * 150 + "]" * 12
         + "…"),
        (200, b"<html>hi", ProtocolViolation, "{address} sent no answer with images: <html>hi"),
        (200, b"", ProtocolViolation, "{address} sent no answer with images"),
    ],
)  # fmt: skip
async def test_a_failure_is_a_value(status: int, body: object, kind: type[Exception], said: str, serve: Serve) -> None:
    """Never a success without an image, and never a second request for what will fail again."""
    server = await serve(serve.whole(body, status=status))
    address = f"127.0.0.1:{server.port}"
    generated = await client_of(server, retry=AT_ONCE).generate("x") if kind is not EmptyAnswer else None
    edited = await client_of(server).edit("x", PNG)
    for response in filter(None, (generated, edited)):
        assert (response.success, response.images, response.image_url) == (False, (), None)
        assert type(response.failure) is kind
        assert response.error == said.replace("{address}", address)
        assert response.failure.__traceback__ is None
    assert len(server.requests) == (1 if generated is None else 2)
    assert repr(edited).startswith("ImageEditResponse(success=False, error=")


@pytest.mark.parametrize(("status", "kind"), [(429, RateLimited), (500, ProviderError), (503, ProviderError)])
async def test_passing_failures_are_tried_again(status: int, kind: type[Exception], serve: Serve) -> None:
    failing = serve.whole({"error": {"message": "busy"}}, status=status)
    server = await serve(failing, failing, serve.whole(made(PNG)), failing)
    client = client_of(server, retry=AT_ONCE)
    assert (await client.generate("x")).success
    assert len(server.requests) == 3
    response = await client.edit("x", PNG)
    assert type(response.failure) is kind
    assert response.error == f"openai answered {status}: busy (after 3 tries)"
    assert len(server.requests) == 6
    assert len({request.body for request in server.requests[3:]}) == 1


async def test_an_error_inside_a_success_is_judged_by_its_code(serve: Serve) -> None:
    server = await serve(serve.whole({"error": {"message": "busy", "code": 502}}), serve.whole(made(PNG)))
    assert (await client_of(server, "openrouter", retry=AT_ONCE).generate("x")).success
    assert len(server.requests) == 2


async def test_a_provider_that_asks_to_wait_is_waited_for(serve: Serve) -> None:
    busy = serve.whole({"error": {"message": "busy"}}, status=429, headers={"retry-after-ms": "20"})
    later = serve.whole({"error": {"message": "busy"}}, status=429, headers={"retry-after": "3600"})
    server = await serve(busy, serve.whole(made(PNG)), later)
    assert (await client_of(server).generate("x")).success
    response = await client_of(server).generate("x")
    assert isinstance(response.failure, RateLimited)
    assert (response.failure.retry_after, response.failure.attempts) == (3600.0, 1)
    assert response.failure.longest_wait == 60.0  # the sentence says why there was no other try


async def test_tries_are_in_the_log(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "plait.providers")
    server = await serve(serve.whole({"error": "busy"}, status=503), serve.whole(made(PNG)))
    assert (await client_of(server, retry=AT_ONCE).generate("x", model="m")).success
    said = [record.getMessage() for record in caplog.records if record.name == "plait.providers"]
    assert said == ["openai:m request 1 failed (ProviderError 503); next in 0.00 s"]


async def test_no_retry_is_no_retry(serve: Serve) -> None:
    server = await serve(serve.whole({"error": "busy"}, status=500))
    response = await client_of(server, retry=RetryPolicy(max_retries=0)).generate("x")
    assert response.error == "openai answered 500: busy"
    assert len(server.requests) == 1


async def test_a_time_out_is_not_tried_again(serve: Serve) -> None:
    """The image may have been made, and a second one would be paid for."""
    server = await serve(["hold"])
    response = await client_of(server, limits=TransportLimits(total=0.2)).generate("x")
    assert isinstance(response.failure, TransportError)
    assert (response.failure.timeout, response.failure.attempts) == (True, 1)
    assert len(server.requests) == 1


async def test_a_deadline_bounds_all_tries(serve: Serve) -> None:
    server = await serve(serve.whole({"error": "busy"}, status=503), ["hold"])
    client = client_of(server, retry=RetryPolicy(initial_delay=0, max_delay=0, deadline=0.2))
    async with asyncio.timeout(PATIENCE):
        failure = (await client.generate("x")).failure
    assert type(failure) is TransportError
    assert (failure.timeout, failure.attempts) == (True, 2)
    assert str(failure) == "openai gave no answer within 0.2 s, all tries together (after 2 tries)"


async def test_an_answer_that_is_too_large(serve: Serve) -> None:
    server = await serve(serve.whole(made(PNG)))
    response = await client_of(server, limits=TransportLimits(answer_bytes=50)).generate("x")
    assert isinstance(response.failure, LimitExceeded)
    assert response.error == f"the answer of 127.0.0.1:{server.port} has more than 50 bytes"


async def test_whoever_cancels_gets_what_asyncio_promises(serve: Serve) -> None:
    server = await serve(["hold"])
    task = asyncio.create_task(client_of(server).generate("x"))
    await asyncio.wait_for(server.asked.wait(), PATIENCE)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(server.left.wait(), PATIENCE)


# --- files ------------------------------------------------------------------------------------------------------------


async def test_images_are_saved_in_one_call(serve: Serve, tmp_path: Path) -> None:
    server = await serve(serve.whole(made(PNG, JPEG)))
    response = await client_of(server).generate("x", n=2)
    assert await response.save("otter.png") == (Path("otter.png"), Path("otter-2.png"))
    assert [(tmp_path / name).read_bytes() for name in ("otter.png", "otter-2.png")] == [PNG, JPEG]
    assert await response.save(tmp_path / "cat") == (tmp_path / "cat.png", tmp_path / "cat-2.jpg")


async def test_images_at_addresses_are_fetched_to_be_saved(serve: Serve, tmp_path: Path) -> None:
    files = await serve(serve.whole(WEBP, headers={"content-type": "image/webp"}))
    server = await serve(serve.whole({"data": [{"url": f"http://127.0.0.1:{files.port}/a?sig=1"}]}))
    response = await client_of(server, allow_private_urls=True).generate("x", model="dall-e-3")
    assert await response.save("otter") == (Path("otter.webp"),)
    assert (tmp_path / "otter.webp").read_bytes() == WEBP
    assert await response.download() == (ImagePart(data=WEBP, media_type="image/webp"),)
    assert KEY not in str([request.headers for request in files.requests])


@pytest.mark.fault("S03")
async def test_an_address_that_the_provider_names_is_guarded_too(serve: Serve, tmp_path: Path) -> None:
    files = await serve(serve.whole(PNG))
    server = await serve(serve.whole({"data": [{"url": f"http://127.0.0.1:{files.port}/a"}]}))
    response = await client_of(server).generate("x")
    with pytest.raises(SecurityError):
        await response.save("otter.png")
    assert (files.connections, (tmp_path / "otter.png").exists()) == (0, False)


async def test_an_address_that_holds_no_image(serve: Serve) -> None:
    files = await serve(serve.whole(b"<html>", headers={"content-type": "text/html"}))
    server = await serve(serve.whole({"data": [{"url": f"http://127.0.0.1:{files.port}/a"}]}))
    response = await client_of(server, allow_private_urls=True).generate("x")
    with pytest.raises(ProtocolViolation, match="the address of the image gave 'text/html', which is no image"):
        await response.download()


async def test_a_failure_is_raised_by_whoever_saves_it(serve: Serve, tmp_path: Path) -> None:
    server = await serve(serve.whole({"error": {"message": "no"}}, status=400))
    response = await client_of(server).generate("x")
    with pytest.raises(ProviderError, match="openai answered 400: no"):
        await response.save("otter.png")
    assert not (tmp_path / "otter.png").exists()


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("nowhere/otter.png", "the image cannot be written to 'nowhere/otter.png': No such file or directory"),
        ("n" * 300, f"the image cannot be written to '{'n' * 100}…': File name too long"),
        ("\ud800.png", r"an image is named by the path of a file, not '\ud800.png'"),
        (".", "the image cannot be written to '.': it is a folder; name a file in it"),
        ("..", "the image cannot be written to '..': it is a folder; name a file in it"),
        ("", "an image is named by the path of a file, not ''"),
        ("a\0b.png", r"an image is named by the path of a file, not 'a\x00b.png'"),
        (None, "an image is named by the path of a file, not None"),
    ],
)
async def test_a_file_that_cannot_be_written(path: Any, said: str, serve: Serve) -> None:
    server = await serve(serve.whole(made(PNG)))
    response = await client_of(server).generate("x")
    with pytest.raises(ConfigurationError) as caught:
        await response.save(path)
    assert str(caught.value) == said


async def test_a_folder_is_not_taken_for_the_beginning_of_a_name(serve: Serve, tmp_path: Path) -> None:
    server = await serve(serve.whole(made(PNG)))
    response = await client_of(server).generate("x")
    (tmp_path / "otters").mkdir()
    with pytest.raises(ConfigurationError, match="it is a folder; name a file in it"):
        await response.save(tmp_path / "otters")
    assert not (tmp_path / "otters.png").exists()


async def test_what_was_made_can_be_changed(serve: Serve) -> None:
    """A response's images, and its address, are images to give to `edit`."""
    server = await serve(serve.whole(made(PNG)))
    client = client_of(server)
    first = await client.generate("x")
    assert first.image_url is not None
    assert (await client.edit("y", first.images)).success
    assert (await client.edit("y", first.image_url, mask=first.images[0])).success
    assert [field[3] for request in server.requests[1:] for field in form_of(request) if field[1]] == [PNG, PNG, PNG]


async def test_a_response_can_be_pickled(serve: Serve) -> None:
    server = await serve(serve.whole(made(PNG)), serve.whole({"error": {"message": KEY}}, status=400))
    for _ in range(2):
        response = await client_of(server).edit("x", PNG)
        data = pickle.dumps(response)
        again = pickle.loads(data)  # noqa: S301  # our own
        assert isinstance(again, ImageEditResponse)
        assert (again.images, again.error, again.details) == (response.images, response.error, response.details)
        assert KEY.encode() not in data


async def test_a_response_is_a_value(serve: Serve, tmp_path: Path) -> None:
    """It fetches as its client may, and shows no way to; read back elsewhere, it fetches as anybody's."""

    async def resolve(_host: str) -> Sequence[str]:  # which cannot be pickled
        return ["127.0.0.1"]

    files = await serve(serve.whole(PNG))
    url = f"http://images.test:{files.port}/a.png"
    server = await serve(serve.whole({"created": 1, "data": [{"url": url}]}))
    response = await client_of(server, allow_private_urls=True, resolve=resolve).generate("x")
    again = pickle.loads(pickle.dumps(response))  # noqa: S301  # our own
    by_hand = ImageGenerationResponse(
        prompt="x", model="gpt-image-1", size="1024x1024", quality="standard", images=(ImagePart(url=url),),
        details={"created": 1},
    )  # fmt: skip
    assert response == again == by_hand
    assert response != replace(by_hand, images=())
    assert {field.name for field in fields(response) if callable(getattr(response, field.name))} == {"_fetch"}
    assert await response.download() == (ImagePart(data=PNG, media_type="image/png"),)
    for other in (again, by_hand):
        with pytest.raises(SecurityError, match="only 80 and 443 are asked"):
            await other.save("otter.png")
    assert (len(files.requests), (tmp_path / "otter.png").exists()) == (1, False)


# --- keys -------------------------------------------------------------------------------------------------------------


async def test_two_clients_with_two_keys_never_mix(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-environment")
    before = dict(os.environ)
    server = await serve(serve.whole(made(PNG)))
    clients = [AsyncImageClient(key, base_url=server.url) for key in ("sk-one", "sk-two", None)]
    await asyncio.gather(
        *(client.generate(f"{number}") for number, client in enumerate(clients)),
        *(client.edit(f"{number}", PNG) for number, client in enumerate(clients)),
    )
    sent = sorted(
        (request.json["prompt"] if request.path.endswith("generations") else form_of(request)[1][3].decode(),
         request.headers["authorization"])
        for request in server.requests
    )  # fmt: skip
    keys = ["sk-one", "sk-two", "sk-of-the-environment"]
    assert sent == sorted((str(number), f"Bearer {key}") for number, key in enumerate(keys) for _ in range(2))
    assert dict(os.environ) == before


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ({"api_key": 5}, "api_key must be a text, not int"),
        ({"base_url": 5}, "base_url must be a text, not int"),
        ({"limits": 5}, "limits must be TransportLimits(...), not int"),
        ({"retry": 5}, "retry must be RetryPolicy(...), not int"),
    ],
)
def test_an_argument_of_the_wrong_type(argument: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        AsyncImageClient(**{"api_key": KEY, **argument})
    assert str(caught.value) == said


def test_a_key_is_needed() -> None:
    for provider, variable in (("openai", "OPENAI_API_KEY"), ("openrouter", "OPENROUTER_API_KEY")):
        with pytest.raises(ConfigurationError) as caught:
            AsyncImageClient(provider=provider)
        assert str(caught.value) == f"provider {provider!r} needs a key: set {variable}, or pass the key"


def test_the_usual_variables_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", KEY)
    monkeypatch.setenv("OPENROUTER_BASE_URL", "http://127.0.0.1:1/api/v1/")
    client = AsyncImageClient(provider="openrouter")
    assert repr(client) == "AsyncImageClient(provider='openrouter', base_url='http://127.0.0.1:1/api/v1')"


def test_a_provider_without_images() -> None:
    with pytest.raises(ConfigurationError) as caught:
        AsyncImageClient(KEY, provider="anthropic")
    assert str(caught.value) == (
        "no image endpoint of a provider 'anthropic' is known; use 'openai' or 'openrouter', or give the base_url of "
        "a server that speaks OpenAI's"
    )


async def test_any_server_that_speaks_openais(serve: Serve) -> None:
    server = await serve(serve.whole(made(PNG)))
    client = AsyncImageClient(provider="local", base_url=server.url)
    response = await client.generate("x", model="flux")
    assert (response.success, response.model) == (True, "flux")
    assert "authorization" not in server.requests[0].headers


def test_a_client_shows_no_key() -> None:
    client = AsyncImageClient(KEY)
    assert KEY not in repr(client)
    with pytest.raises(TypeError, match="an image client holds a key"):
        pickle.dumps(client)


def test_a_client_is_made_without_the_http_library() -> None:
    code = (
        "import sys\nfrom plait.providers.images import AsyncImageClient\nAsyncImageClient('sk-x')\n"
        "print('aiohttp' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
