"""Images from models: `AsyncImageClient`, over OpenAI's image endpoints and OpenRouter's.

Checks what it is given before it asks, writes the request in the provider's form, and turns whatever comes of it into
a response. Knows nothing of agents or chat.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

from plait.errors import ConfigurationError, ModelError, PlaitError, excerpt
from plait.plain import EMPTY
from plait.providers.http import Endpoint, TransportLimits, address_of
from plait.providers.image_answer import (
    Answer,
    ImageEditResponse,
    ImageGenerationResponse,
    ImageResponse,
    read_answer,
)
from plait.providers.image_input import Fetching, image_of
from plait.providers.image_request import USUAL_SIZE, Encoded, ImageRequest, check, encode
from plait.providers.models import IMAGE_MODELS, model_named
from plait.providers.retry import RetryPolicy, RetryRule, Tries
from plait.providers.status import Service
from plait.providers.vendors import address_for, find_vendor, headers_for, key_of, secrets_in

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from plait.providers.http.fetching import Resolve
    from plait.providers.image_input import ImageSource

R = TypeVar("R", bound=ImageResponse)

_LIMITS: Final = TransportLimits(answer_bytes=128 * 2**20)  # ten images in base64
_RETRIES: Final = RetryPolicy(
    # Who asks again after a time-out, or for an answer without an image, may pay for two.
    rules={"timeout": RetryRule(max_retries=0), "empty_answer": RetryRule(max_retries=0)}
)


class AsyncImageClient:
    """Makes and changes images.

    `generate` and `edit` do not raise what goes wrong: they give a response with ``success=False``, the sentence in
    ``error`` and the exception in ``failure``. There is nothing to close: connections belong to the event loop, and are
    closed with it.
    """

    def __init__(
        self,
        api_key: str | None = None,
        *,
        provider: str = "openai",
        base_url: str | None = None,
        headers: Mapping[str, str] = EMPTY,
        limits: TransportLimits = _LIMITS,
        retry: RetryPolicy = _RETRIES,
        allow_private_urls: bool = False,
        resolve: Resolve | None = None,
    ) -> None:
        """Find address and key; nothing is sent, and nothing is written to the environment.

        Args:
            api_key: the key; without one the provider's usual variable is read.
            provider: ``"openai"``, ``"openrouter"``, or any other name for a server at ``base_url`` that has OpenAI's
                image endpoints.
            base_url: where the API is; without one the provider's variable, else its usual address.
            headers: further headers, which take the place of ours.
            limits: how long and how much a request may take.
            retry: when a request is sent again. Time-outs are not tried again by default: the image may have been made.
            allow_private_urls: whether images may be fetched from private networks and this machine, and from any port.
                Not for a program that takes addresses from others.
            resolve: gives the addresses of a name, for images that are fetched; the system does if it is None.

        Raises:
            ConfigurationError: no key is set, the provider is unknown, an address or header cannot be sent, or an
                argument is of the wrong type.
        """
        for what, value, kind, called in (
            ("api_key", api_key, str | None, "a text"),
            ("base_url", base_url, str | None, "a text"),
            ("limits", limits, TransportLimits, "TransportLimits(...)"),
            ("retry", retry, RetryPolicy, "RetryPolicy(...)"),
        ):
            if not isinstance(value, kind):
                msg = f"{what} must be {called}, not {type(value).__name__}"
                raise ConfigurationError(msg)
        if base_url is None and provider not in IMAGE_MODELS:
            msg = (
                f"no image endpoint of a provider {excerpt(repr(provider), 60)} is known; use "
                f"{' or '.join(map(repr, IMAGE_MODELS))}, or give the base_url of a server that speaks OpenAI's"
            )
            raise ConfigurationError(msg)
        vendor = find_vendor(provider, "chat", base_url)
        url = address_for(vendor, base_url)
        key = key_of(provider, vendor, api_key, needed=vendor.key_needed and base_url is None)
        self.provider = provider
        self.base_url = url
        self._headers = headers_for(vendor, key, headers)
        self._limits = limits
        self._retry = retry
        self._fetch = Fetching(allow_private_urls, resolve)
        self._service = Service(
            provider=provider,
            address=address_of(url),
            key_variable=vendor.key_variable,
            unreachable=vendor.unreachable,
            secrets=secrets_in(key, self._headers),
        )

    def __repr__(self) -> str:
        return f"AsyncImageClient(provider={self.provider!r}, base_url={self.base_url!r})"

    def __reduce__(self) -> NoReturn:
        msg = "an image client holds a key; make a new one in the other process"
        raise TypeError(msg)

    async def generate(
        self,
        prompt: str,
        size: str = USUAL_SIZE,
        quality: str = "standard",
        model: str | None = None,
        images: ImageSource | Sequence[ImageSource] | None = None,
        *,
        n: int = 1,
        extra: Mapping[str, Any] = EMPTY,
    ) -> ImageGenerationResponse:
        """Make images from words.

        Args:
            prompt: what they shall show.
            size: width and height in pixels (``"1536x1024"``), or ``"auto"``. OpenRouter is told of another than the
                usual one only, for many of its models take none.
            quality: ``"standard"`` and ``"auto"`` leave it to the model; else ``"low"``, ``"medium"``, ``"high"`` or
                ``"hd"``, each said in the words that the model takes.
            model: the model; the provider's default if it is None.
            images: what the model may look at: addresses, ``data:`` addresses, base64, bytes, paths or `ImagePart`s.
                OpenAI takes them at its edit endpoint only, so that is where they are sent.
            n: how many images; a model may give fewer.
            extra: further fields of the provider's request, such as ``{"background": "transparent"}``. They have the
                last word; one that is None is left out.

        Returns:
            The images, or what went wrong.
        """
        asked = ImageRequest(prompt, self._model(model), size, quality, n, extra)
        respond = partial(
            ImageGenerationResponse, prompt=prompt, model=asked.model, size=size, quality=quality, _fetch=self._fetch
        )
        return await self._answered(respond, asked, _listed(images), None)

    async def edit(
        self,
        prompt: str,
        images: ImageSource | Sequence[ImageSource],
        mask: ImageSource | None = "",
        size: str = USUAL_SIZE,
        model: str | None = None,
        *,
        quality: str = "standard",
        n: int = 1,
        extra: Mapping[str, Any] = EMPTY,
    ) -> ImageEditResponse:
        """Change images, or make one of several.

        Args:
            prompt: what shall be there afterwards.
            images: one or up to 16, as in `generate`; all of them are sent.
            mask: where the first image may change: a PNG of the same size, transparent there. Without one, anywhere.
            size: as in `generate`.
            model: as in `generate`.
            quality: as in `generate`.
            n: how many images.
            extra: as in `generate`.

        Returns:
            The images, or what went wrong.
        """
        sources = _listed(images)
        masked = mask is not None and mask != ""
        asked = ImageRequest(prompt, self._model(model), size, quality, n, extra)
        respond = partial(
            ImageEditResponse,
            prompt=prompt,
            model=asked.model,
            size=size,
            images_count=len(sources),
            mask_provided=masked,
            _fetch=self._fetch,
        )
        if not sources:
            msg = "edit needs an image; generate makes one from words alone"
            return respond(failure=ConfigurationError(msg))
        return await self._answered(respond, asked, sources, mask if masked else None)

    def _model(self, model: str | None) -> str:
        said = model or IMAGE_MODELS.get(self.provider, IMAGE_MODELS["openai"])
        return model_named(said).removeprefix(f"{self.provider}:") if isinstance(said, str) else said

    async def _answered(
        self, respond: Callable[..., R], asked: ImageRequest, images: Sequence[ImageSource], mask: ImageSource | None
    ) -> R:
        """Ask, and make the response of what came of it."""
        try:
            check(asked, len(images))
            read = [await image_of(image, self._fetch, f"image {number}") for number, image in enumerate(images, 1)]
            read_mask = None if mask is None else await image_of(mask, self._fetch, "the mask")
            encoded = encode(self.provider, asked._replace(images=tuple(read), mask=read_mask))
            answer = await self._ask(encoded, asked.model)
        except PlaitError as failure:
            # A response is kept; the frames would keep the request's images, and its headers, with it.
            return respond(failure=failure.with_traceback(None))
        return respond(**answer._asdict())

    async def _ask(self, encoded: Encoded, model: str) -> Answer:
        """Send a request, again where that may help, and read its answer."""
        service = replace(self._service, model=model)
        headers = self._headers | {"content-type": encoded.content_type}
        endpoint = Endpoint(f"{self.base_url}{encoded.path}", service, headers=headers, limits=self._limits)
        tries = Tries(self._retry, self.provider, model)
        try:
            async with asyncio.timeout(self._retry.deadline):
                while True:
                    tries.count += 1
                    try:
                        body = await endpoint.post(encoded.body)
                        return await asyncio.to_thread(read_answer, body, service)  # megabytes of base64
                    except ModelError as error:
                        error.attempts = tries.count
                        if (delay := tries.delay_after(error)) is None:
                            raise
                    await asyncio.sleep(delay)
        except TimeoutError:
            raise tries.unanswered() from None


def _listed(images: ImageSource | Sequence[ImageSource] | None) -> Sequence[ImageSource]:
    """Give images as a list, also a single one."""
    if images is None:
        return ()
    if isinstance(images, Sequence) and not isinstance(images, str | bytes | bytearray | memoryview):
        return tuple(images)
    return (images,)


__all__ = ["AsyncImageClient", "ImageEditResponse", "ImageGenerationResponse", "ImageResponse"]
