"""What an image model answers: the responses that programs get, and how they are read from the provider's JSON.

Knows the shapes that OpenAI and OpenRouter answer in, which differ in details only, and no HTTP.
"""

from __future__ import annotations

import asyncio
import os
import re
from base64 import b64decode
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from plait.attachments import media_type_of, parse_data_url, path_of
from plait.errors import ConfigurationError, EmptyAnswer, PlaitError, ProtocolViolation, excerpt
from plait.events import Usage
from plait.messages import ImagePart
from plait.plain import EMPTY, freeze, parse_json
from plait.providers.image_input import Fetching
from plait.providers.status import error_object, violation
from plait.providers.wire import data_url, dollars, token_count

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from plait.providers.status import Service

_IMAGE_TYPE: Final = re.compile(r"image/\w+([.+-]\w+)*", re.ASCII)
_WEB: Final = ("http://", "https://")
_SUFFIXES: Final = {"image/jpeg": ".jpg", "image/svg+xml": ".svg"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageResponse:
    """What came of asking for images: the images, or the failure. One of the two is always there, and never both.

    Attributes:
        prompt: what was asked for.
        model: the model that was asked.
        size: the size that was asked for, in pixels (``"1024x1024"``), or ``"auto"``.
        images: the images, with ``data``, or with the ``url`` at which the provider keeps them for an hour or so.
        failure: what went wrong; of the tree in `plait.errors`.
        revised_prompt: what the model made of the prompt, where it says so.
        usage: tokens, and the cost where the provider tells it; None when it says nothing.
        details: the other fields of the provider's answer, as they are.
    """

    prompt: str
    model: str
    size: str
    images: tuple[ImagePart, ...] = ()
    failure: PlaitError | None = None
    revised_prompt: str | None = None
    usage: Usage | None = None
    details: Mapping[str, Any] = EMPTY
    _fetch: Fetching = field(default=Fetching(), compare=False)

    @property
    def success(self) -> bool:
        """Whether there is an image."""
        return bool(self.images)

    @property
    def error(self) -> str | None:
        """What went wrong, in a sentence; None after a success."""
        return None if self.failure is None else str(self.failure)

    @property
    def message(self) -> str:
        """What happened, in a sentence."""
        count = len(self.images)
        return self.error or f"{self.model} gave {count} image{'' if count == 1 else 's'}"

    @property
    def image_url(self) -> str | None:
        """Where the first image is: at the provider's address, else in a ``data:`` address that holds it."""
        if not self.images:
            return None
        first = self.images[0]
        return data_url(first.data, first.media_type) if first.data is not None else first.url

    @property
    def image_bytes(self) -> bytes | None:
        """The first image; None when there is none, or only its address (see `download`)."""
        return self.images[0].data if self.images else None

    @property
    def media_type(self) -> str | None:
        """What the first image is, such as ``"image/png"``; None when there is none, or only its address."""
        return self.images[0].media_type if self.images and self.images[0].data is not None else None

    def __repr__(self) -> str:
        what = f"images={len(self.images)} ({self._shown()})" if self.images else f"error={self.error!r}"
        prompt = excerpt(str(self.prompt), 40)
        return f"{type(self).__name__}(success={self.success}, {what}, model={self.model!r}, prompt={prompt!r})"

    def _shown(self) -> str:
        first = self.images[0]
        return "an address" if first.data is None else f"{len(first.data)} bytes of {first.media_type}"

    async def download(self) -> tuple[ImagePart, ...]:
        """Give the images, all with ``data``: those that are addresses are fetched, without any key.

        Raises:
            PlaitError: the failure, if there is one instead of images.
            SecurityError, TransportError, LimitExceeded: one cannot be fetched; see `fetch`.
            ProtocolViolation: what was fetched is no image.
        """
        if self.failure is not None:
            raise self.failure
        return tuple([await self._with_data(image) for image in self.images])

    async def _with_data(self, image: ImagePart) -> ImagePart:
        if image.data is not None or image.url is None:
            return image
        fetched = await self._fetch(image.url)
        media_type = media_type_of(fetched.data) or fetched.media_type
        if not fetched.data or not _IMAGE_TYPE.fullmatch(media_type):
            msg = f"the address of the image gave {excerpt(media_type, 40) or 'something'!r}, which is no image"
            raise ProtocolViolation(msg, excerpt=excerpt(fetched.data))
        return ImagePart(data=fetched.data, media_type=media_type)

    async def save(self, path: str | os.PathLike[str]) -> tuple[Path, ...]:
        """Write the images into files.

        Args:
            path: the file for the first image; without a suffix it gets that of the image's type. A suffix that is
                there stays, whatever the image is: nothing is converted. Further images go beside it: ``otter.png``,
                ``otter-2.png``.

        Returns:
            The files, in the order of the images.

        Raises:
            PlaitError: there is no image, or it cannot be fetched; see `download`.
            ConfigurationError: it is no path, or that of a folder, or a file cannot be written.
        """
        file = path_of(path, "an image")
        images = await self.download()
        return await asyncio.to_thread(_write, file, images)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ImageGenerationResponse(ImageResponse):
    """What came of asking for new images; ``quality`` is the one that was asked for."""

    quality: str = "auto"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ImageEditResponse(ImageResponse):
    """What came of asking for changed images: how many went there (``images_count``), and whether a mask did."""

    images_count: int = 0
    mask_provided: bool = False


class Answer(NamedTuple):
    """What a provider's answer holds: see `ImageResponse`."""

    images: tuple[ImagePart, ...]
    revised_prompt: str | None
    usage: Usage | None
    details: Mapping[str, Any]


def read_answer(body: bytes, service: Service) -> Answer:
    """Read an answer.

    Raises:
        ProviderError: it holds an error.
        ProtocolViolation: it is no answer of this kind.
        EmptyAnswer: it holds no image.
    """
    try:
        said = parse_json(body)
    except ValueError:
        said = None
    if not isinstance(said, dict):
        raise _no_answer(body, service)
    if said.get("error"):
        raise error_object(said["error"], service)
    items = said.get("data") or ()
    if not isinstance(items, list | tuple) or not all(isinstance(item, dict) for item in items):
        raise _no_answer(body, service)
    declared = said.get("output_format")
    named = f"image/{declared}" if isinstance(declared, str) else ""
    usual = named if _IMAGE_TYPE.fullmatch(named) else "image/png"
    images = [image for item in items if (image := _image(item, usual, service)) is not None]
    if not images:
        msg = f"{service.provider} answered without an image"
        raise EmptyAnswer(msg, provider=service.provider)
    revised = next((item["revised_prompt"] for item in items if isinstance(item.get("revised_prompt"), str)), None)
    try:
        details = freeze({name: value for name, value in said.items() if name != "data"})
    except ConfigurationError:  # of what we wrote it would be one
        raise violation(service, "sent something that cannot be kept", body[:1000]) from None
    return Answer(tuple(images), revised, _usage(said.get("usage")), details)


def _image(item: dict[str, Any], usual: str, service: Service) -> ImagePart | None:
    encoded, url, declared = item.get("b64_json"), item.get("url"), item.get("media_type")
    if isinstance(encoded, str) and encoded:
        try:
            data = b64decode(encoded, validate=True)
        except ValueError:
            raise _no_answer(encoded.encode("utf-8", "replace"), service) from None
    elif not (isinstance(url, str) and url):
        return None
    elif url.lower().startswith(_WEB):
        return ImagePart(url=url)
    elif (found := parse_data_url(url)) is not None and found.data:
        data = found.data
    else:
        raise _no_answer(url.encode("utf-8", "replace"), service)
    kind = declared if isinstance(declared, str) and _IMAGE_TYPE.fullmatch(declared) else usual
    return ImagePart(data=data, media_type=media_type_of(data) or kind)


def _no_answer(said: bytes, service: Service) -> ProtocolViolation:
    return violation(service, "sent no answer with images", said[:1000])


def _usage(said: object) -> Usage | None:
    """Read tokens by OpenAI's names for images, and by those that OpenRouter uses; None when they make no sense."""
    if not isinstance(said, dict):
        return None
    sent = token_count(said.get("input_tokens", said.get("prompt_tokens")))
    received = token_count(said.get("output_tokens", said.get("completion_tokens")))
    if sent is None or received is None:
        return None
    return Usage(input_tokens=sent, output_tokens=received, cost=dollars(said.get("cost")))


def _write(path: Path, images: Sequence[ImagePart]) -> tuple[Path, ...]:
    """Write each image into its own file, and give the files."""
    if os.path.isdir(path):  # noqa: PTH112  # of a name that is too long, `Path.is_dir` raises an error
        msg = f"the image cannot be written to {excerpt(str(path), 100)!r}: it is a folder; name a file in it"
        raise ConfigurationError(msg)
    written = []
    for number, image in enumerate(images, 1):
        named = path if path.suffix else path.with_suffix(_suffix(image.media_type))
        file = named if number == 1 else named.with_stem(f"{named.stem}-{number}")
        try:
            file.write_bytes(image.data or b"")
        except OSError as error:
            reason = error.strerror or type(error).__name__
            msg = f"the image cannot be written to {excerpt(str(file), 100)!r}: {reason}"
            raise ConfigurationError(msg) from error
        written.append(file)
    return tuple(written)


def _suffix(media_type: str) -> str:
    return _SUFFIXES.get(media_type) or f".{media_type.rpartition('/')[2]}"


__all__ = [
    "Answer",
    "ImageEditResponse",
    "ImageGenerationResponse",
    "ImageResponse",
    "read_answer",
]
