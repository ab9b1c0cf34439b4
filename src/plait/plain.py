"""Plain data: what JSON can hold, read-only; freezing and thawing it, and its one JSON encoding.

Knows nothing of models: a `Value` says for itself what its plain data is.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping
from math import isfinite
from reprlib import Repr
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn, Self

import msgspec
from pydantic_core import CoreSchema, core_schema

from plait.errors import ConfigurationError, excerpt

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler

MAX_DEPTH: Final = 100
"""How deep lists and mappings inside a value may be nested."""

Content = Literal["plain", "typed"]
"""What a container may hold: plain JSON data, or what the type of its field was checked for, bytes and `Value` too."""

_SCALARS: Final = frozenset({str, int, bool, type(None)})

shown: Final = Repr().repr
"""As ``repr``, but bounded, whatever it is given."""


class Value:
    """What is no plain data itself, and gives it."""

    __slots__ = ()

    def to_json(self) -> dict[str, Any]:
        """Give the value as plain JSON data."""
        raise NotImplementedError


def to_json(value: object) -> bytes:
    r"""Encode plain data as compact JSON.

    Lone surrogates, which UTF-8 cannot carry (models do produce them), are written as ``\udXXX`` escapes,
    which every JSON reader turns back into the same text. This is the only place that escapes them.

    Raises:
        TypeError: for anything that is not plain data, a msgspec struct or a `Value`.
    """
    try:
        return _encode(value)
    except UnicodeEncodeError:
        plain = msgspec.to_builtins(value, enc_hook=_plain)
        return json.dumps(plain, separators=(",", ":"), allow_nan=False).encode("ascii")


def _plain(value: object) -> object:
    if isinstance(value, Value):
        return value.to_json()
    msg = f"{type(value).__name__} has no form in JSON"
    raise TypeError(msg)


_encode = msgspec.json.Encoder(enc_hook=_plain).encode


def parse_json(text: str | bytes) -> Any:
    """Read JSON as `to_json` writes it, escaped lone surrogates included.

    Raises:
        ValueError: the text is no JSON, is nested too deeply, or holds a number that is out of range.
    """
    try:
        try:
            return msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeError):
            # msgspec refuses lone surrogates, which json reads; json reads NaN and 1e999, which msgspec refuses.
            return json.loads(text, parse_constant=_number, parse_float=_number)
    except RecursionError:
        msg = "the JSON is nested too deeply"
        raise ValueError(msg) from None


def _number(text: str) -> float:
    number = float(text)
    if not isfinite(number):
        msg = f"{excerpt(text, 20)} is no number that JSON can hold"
        raise ValueError(msg)
    return number


class FrozenDict(dict[str, Any]):
    """A read-only, hashable, picklable mapping that is a plain JSON object.

    A subclass of dict, so that JSON encoders, pydantic and ``==`` treat it as one; whatever would change it
    raises TypeError. Its values are frozen by `freeze`.

    Raises:
        ConfigurationError: a key is no string, or a value cannot be frozen.
    """

    __slots__ = ()

    def __new__(cls, value: Mapping[str, Any] | None = None, /) -> Self:
        """Make it of a copy of ``value``, frozen."""
        made = super().__new__(cls)
        if value:
            dict.update(made, {_key(key): _frozen(item, 1, "plain") for key, item in value.items()})
        return made

    def __init__(self, value: Mapping[str, Any] | None = None, /) -> None:
        """Do nothing: ``__new__`` filled it, and calling this again must not."""

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        msg = "this mapping is read-only; make a changed copy with {**mapping, ...}"
        raise TypeError(msg)

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __hash__(self) -> int:  # type: ignore[override]  # dict has none; this one never changes
        return hash(frozenset(self.items()))

    def __reduce__(self) -> tuple[Any, tuple[dict[str, Any]]]:
        return (_filled, (dict(self),))

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, _: object) -> Self:
        return self

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: object, _handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            _mapping,
            json_schema_input_schema=core_schema.dict_schema(keys_schema=core_schema.str_schema()),
            serialization=core_schema.plain_serializer_function_ser_schema(thaw, when_used="always"),
        )


def _mapping(value: object) -> FrozenDict:
    if type(value) is FrozenDict:
        return value
    if not isinstance(value, Mapping):
        msg = "input should be a mapping"
        raise ConfigurationError(msg)
    return FrozenDict(value)


def _filled(items: Mapping[str, Any]) -> FrozenDict:
    """Make a `FrozenDict` of what is frozen already."""
    made = FrozenDict()
    dict.update(made, items)
    return made


EMPTY: Final = FrozenDict()


def _key(key: object) -> str:
    if type(key) is str:
        return key
    if isinstance(key, str):
        return str.__str__(key)
    msg = f"the key {excerpt(shown(key), 33)} of a mapping is no string; JSON objects have string keys"
    raise ConfigurationError(msg)


def freeze(value: Any, content: Content = "plain") -> Any:
    """Make plain data read-only: lists become tuples, dicts `FrozenDict`, all the way down.

    Args:
        value: the data.
        content: ``"typed"`` lets bytes and a `Value` stand in it, and what is a ``str`` or an ``int`` stay as it is.

    Raises:
        ConfigurationError: for a set, bytes, an arbitrary object, a number JSON cannot hold (NaN, infinity), or
            data nested deeper than `MAX_DEPTH`: it could not be written as JSON and read back as it was.
    """
    return _frozen(value, 0, content)


def _frozen(value: Any, depth: int, content: Content) -> Any:
    kind = type(value)
    if kind in _SCALARS or kind is FrozenDict:
        return value
    if depth > MAX_DEPTH:
        msg = f"the data is nested deeper than {MAX_DEPTH} levels"
        raise ConfigurationError(msg)
    if isinstance(value, float):
        if not isfinite(value):
            msg = f"{value!r} has no form in JSON; use None, or a string"
            raise ConfigurationError(msg)
        return value if kind is float else float(value)
    if isinstance(value, dict):
        return _filled({_key(key): _frozen(item, depth + 1, content) for key, item in value.items()})
    if isinstance(value, list | tuple):
        return tuple([_frozen(item, depth + 1, content) for item in value])
    if content == "typed" and isinstance(value, Value | bytes | str | int):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    msg = f"{kind.__name__} cannot be kept in a frozen value; use strings, numbers, lists and dicts"
    if isinstance(value, Value):
        msg = f"{kind.__name__} could not be read back from plain data; use a field of its type, or its to_json()"
    elif kind is bytes:
        msg = "bytes could not be read back from plain data; use a field of type bytes, or base64 text"
    raise ConfigurationError(msg)


def thaw(value: Any) -> Any:
    """Give plain JSON data for a frozen value: lists and dicts, `Value.to_json`, bytes as base64."""
    kind = type(value)
    if kind in _SCALARS or kind is float:
        return value
    if isinstance(value, Value):
        return value.to_json()
    if isinstance(value, dict):
        return {key: thaw(item) for key, item in value.items()}
    if isinstance(value, bytes):
        return b64encode(value).decode("ascii")
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    return [thaw(item) for item in value]
