"""Requests for images, in the forms of OpenAI and OpenRouter. Pure: what is asked for goes in, bytes come out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from plait.errors import ConfigurationError, excerpt
from plait.plain import EMPTY, freeze, to_json
from plait.providers.image_input import png_size
from plait.providers.multipart import File, encode_form
from plait.providers.wire import data_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from plait.messages import ImagePart

_MOST_IMAGES: Final = 16
_USUAL_QUALITIES: Final = frozenset({"standard", "auto"})  # left to the model
_QUALITIES: Final = {"hd": "high"}
_DALL_E_QUALITIES: Final = {"low": "standard", "medium": "standard", "high": "hd"}
USUAL_SIZE: Final = "1024x1024"
"""The size of an image when nothing is said of it."""


class Order(NamedTuple):
    """What is asked for.

    Attributes:
        prompt: what the images shall show.
        model: the model.
        size: width and height in pixels, ``"1024x1024"``, or ``"auto"``.
        quality: in the words of any model, or ``"auto"``.
        n: how many images.
        extra: further fields of the provider's request.
        images: those to begin with, with ``data``.
        mask: where the first of them may change.
    """

    prompt: str
    model: str
    size: str
    quality: str
    n: int = 1
    extra: Mapping[str, Any] = EMPTY
    images: tuple[ImagePart, ...] = ()
    mask: ImagePart | None = None


class Wire(NamedTuple):
    """A request in a provider's form; ``path`` is below the base URL."""

    path: str
    content_type: str
    body: bytes


def check(order: Order, images: int) -> None:
    """Check what is asked for, and how many images there are to begin with.

    Raises:
        ConfigurationError: something in it makes no sense.
    """
    for name in ("prompt", "model", "size", "quality"):
        value = getattr(order, name)
        if not isinstance(value, str) or not value.strip():
            msg = f"{name} must be a text that is not empty, not {excerpt(repr(value), 40)}"
            raise ConfigurationError(msg)
    if type(order.n) is not int or order.n < 1:
        msg = f"n must be a whole number of at least 1, not {excerpt(repr(order.n), 40)}"
        raise ConfigurationError(msg)
    if not isinstance(order.extra, Mapping):
        msg = f"extra must be a mapping of the request's further fields, not {type(order.extra).__name__}"
        raise ConfigurationError(msg)
    if images > _MOST_IMAGES:
        msg = f"at most {_MOST_IMAGES} images can be sent together, not {images}"
        raise ConfigurationError(msg)


def encode(provider: str, order: Order) -> Wire:
    """Write a request as a provider takes it; one that is not known, as OpenAI does.

    Raises:
        ConfigurationError: the provider has no place for something in it, or the mask does not fit.
    """
    if order.mask is not None:
        _check_mask(order.mask, order.images[0])
    return _FORMS.get(provider, _openai_form)(order)


def _check_mask(mask: ImagePart, image: ImagePart) -> None:
    """Check what OpenAI wants of a mask (https://platform.openai.com/docs/api-reference/images/createEdit)."""
    if mask.media_type != "image/png":
        msg = f"the mask is {mask.media_type}; it must be a PNG, transparent where the image may change"
        raise ConfigurationError(msg)
    covers, covered = png_size(mask.data or b""), png_size(image.data or b"")
    if covers is not None and covered is not None and covers != covered:
        msg = "the mask has {}x{} pixels and image 1 has {}x{}; they must be of the same size"
        raise ConfigurationError(msg.format(*covers, *covered))


def _openai_form(order: Order) -> Wire:
    """Write a request as OpenAI takes it: JSON for words alone, a form where there are images."""
    if not order.images:
        return Wire("/images/generations", "application/json", to_json(dict(_settings(order))))
    fields: list[tuple[str, str | File]] = [(name, _text(name, value)) for name, value in _settings(order)]
    name = "image" if len(order.images) == 1 else "image[]"
    fields += [(name, _file(f"image-{number}", image)) for number, image in enumerate(order.images, 1)]
    if order.mask is not None:
        fields.append(("mask", _file("mask", order.mask)))
    return Wire("/images/edits", *encode_form(fields))


def _openrouter_form(order: Order) -> Wire:
    """Write a request as OpenRouter takes it (https://openrouter.ai/docs/api/api-reference/images/generate-an-image)."""
    if order.mask is not None:
        msg = "provider 'openrouter' takes no mask: say in the prompt what shall change, or use provider 'openai'"
        raise ConfigurationError(msg)
    fields = dict(_settings(order))
    if order.size == USUAL_SIZE and "size" not in order.extra:
        del fields["size"]  # many models there take none
    if order.images:
        urls = [data_url(image.data or b"", image.media_type) for image in order.images]
        fields["input_references"] = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return Wire("/images", "application/json", to_json(fields))


_FORMS: Final[dict[str, Callable[[Order], Wire]]] = {"openai": _openai_form, "openrouter": _openrouter_form}


def _settings(order: Order) -> Iterator[tuple[str, Any]]:
    """Give the fields that all forms share; what is the default everywhere is not sent."""
    yield "model", order.model
    yield "prompt", order.prompt
    if order.n > 1:
        yield "n", order.n
    if order.size != "auto":
        yield "size", order.size
    if order.quality not in _USUAL_QUALITIES:
        yield "quality", _said(order.quality, order.model)
    yield from freeze(order.extra).items()  # which refuses what cannot be written as JSON


def _said(quality: str, model: str) -> str:
    """Say a quality in the words that a model takes: DALL·E's are others than everybody's."""
    dall_e = model.rpartition("/")[2].startswith("dall-e")
    return (_DALL_E_QUALITIES if dall_e else _QUALITIES).get(quality, quality)


def _text(name: str, value: object) -> str:
    """Write a field's value into a form."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    msg = f"the field {name!r} of extra is sent in a form, so it must be text, a number, True or False"
    raise ConfigurationError(msg)


def _file(name: str, image: ImagePart) -> File:
    return File(f"{name}.{image.media_type.rpartition('/')[2]}", image.data or b"", image.media_type)
