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
    from collections.abc import Callable

    from plait.messages import ImagePart

_MOST_IMAGES: Final = 16
_USUAL_QUALITIES: Final = frozenset({"standard", "auto"})  # left to the model
_QUALITIES: Final = {"hd": "high"}
_DALL_E_QUALITIES: Final = {"low": "standard", "medium": "standard", "high": "hd"}
_OWN_FIELDS: Final = frozenset({"model", "prompt", "n", "stream", "image", "image[]", "mask", "input_references"})
USUAL_SIZE: Final = "1024x1024"
"""The size of an image when nothing is said of it."""


class ImageRequest(NamedTuple):
    """What is asked for.

    Attributes:
        prompt: what the images shall show.
        model: the model.
        size: width and height in pixels, ``"1024x1024"``, or ``"auto"``.
        quality: in the words of any model, or ``"auto"``.
        n: how many images.
        extra: further fields of the provider's request, which have the last word; one that is None is left out.
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


class Encoded(NamedTuple):
    """A request in a provider's form; ``path`` is below the base URL."""

    path: str
    content_type: str
    body: bytes


def check(asked: ImageRequest, images: int) -> None:
    """Check what is asked for, and how many images there are to begin with.

    Raises:
        ConfigurationError: something in it makes no sense.
    """
    for name in ("prompt", "model", "size", "quality"):
        value = getattr(asked, name)
        if not isinstance(value, str) or not value.strip():
            msg = f"{name} must be a text that is not empty, not {excerpt(repr(value), 40)}"
            raise ConfigurationError(msg)
    if type(asked.n) is not int or asked.n < 1:
        msg = f"n must be a whole number of at least 1, not {excerpt(repr(asked.n), 40)}"
        raise ConfigurationError(msg)
    if not isinstance(asked.extra, Mapping):
        msg = f"extra must be a mapping of the request's further fields, not {type(asked.extra).__name__}"
        raise ConfigurationError(msg)
    if taken := _OWN_FIELDS & asked.extra.keys():
        msg = f"extra must not hold {sorted(taken)}: the request says that itself"
        raise ConfigurationError(msg)
    if images > _MOST_IMAGES:
        msg = f"at most {_MOST_IMAGES} images can be sent together, not {images}"
        raise ConfigurationError(msg)


def encode(provider: str, asked: ImageRequest) -> Encoded:
    """Write a request as a provider takes it; one that is not known, as OpenAI does.

    Raises:
        ConfigurationError: the provider has no place for something in it, or the mask does not fit.
    """
    if asked.mask is not None:
        _check_mask(asked.mask, asked.images[0])
    return _FORMS.get(provider, _openai_form)(asked)


def _check_mask(mask: ImagePart, image: ImagePart) -> None:
    """Check what OpenAI wants of a mask (https://platform.openai.com/docs/api-reference/images/createEdit)."""
    if mask.media_type != "image/png":
        msg = f"the mask is {mask.media_type}; it must be a PNG, transparent where the image may change"
        raise ConfigurationError(msg)
    size, wanted = png_size(mask.data or b""), png_size(image.data or b"")
    if size is not None and wanted is not None and size != wanted:
        msg = "the mask has {}x{} pixels and image 1 has {}x{}; they must be of the same size"
        raise ConfigurationError(msg.format(*size, *wanted))


def _openai_form(asked: ImageRequest) -> Encoded:
    """Write a request as OpenAI takes it: JSON for words alone, a form where there are images."""
    if not asked.images:
        return Encoded("/images/generations", "application/json", to_json(_settings(asked)))
    fields: list[tuple[str, str | File]] = [(name, _text(name, value)) for name, value in _settings(asked).items()]
    name = "image" if len(asked.images) == 1 else "image[]"
    fields += [(name, _file(f"image-{number}", image)) for number, image in enumerate(asked.images, 1)]
    if asked.mask is not None:
        fields.append(("mask", _file("mask", asked.mask)))
    return Encoded("/images/edits", *encode_form(fields))


def _openrouter_form(asked: ImageRequest) -> Encoded:
    """Write a request as OpenRouter takes it (https://openrouter.ai/docs/api/api-reference/images/generate-an-image)."""
    if asked.mask is not None:
        msg = "provider 'openrouter' takes no mask: say in the prompt what shall change, or use provider 'openai'"
        raise ConfigurationError(msg)
    fields = _settings(asked)
    if asked.size == USUAL_SIZE and "size" not in asked.extra:
        del fields["size"]  # many models there take none
    if asked.images:
        urls = [data_url(image.data or b"", image.media_type) for image in asked.images]
        fields["input_references"] = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return Encoded("/images", "application/json", to_json(fields))


_FORMS: Final[dict[str, Callable[[ImageRequest], Encoded]]] = {"openai": _openai_form, "openrouter": _openrouter_form}


def _settings(asked: ImageRequest) -> dict[str, Any]:
    """Give the fields that all forms share; what is the default everywhere is not sent."""
    fields: dict[str, Any] = {"model": asked.model, "prompt": asked.prompt}
    if asked.n > 1:
        fields["n"] = asked.n
    if asked.size != "auto":
        fields["size"] = asked.size
    if asked.quality not in _USUAL_QUALITIES:
        fields["quality"] = _said(asked.quality, asked.model)
    fields |= freeze(asked.extra)  # which refuses what cannot be written as JSON
    return {name: value for name, value in fields.items() if value is not None}


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
