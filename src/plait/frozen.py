"""Read-only values: `Frozen` models, `FrozenDict`, their hash keys and their one JSON encoding.

Knows nothing of messages, logs or agents. Everything that is stored, sent between agents or kept in a
thread is made of these, so that no reader can change what another one sees.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping
from hashlib import sha256
from math import isfinite
from typing import Annotated, Any, ClassVar, NoReturn, Self

import msgspec
from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, ValidationError
from pydantic_core import CoreSchema, core_schema

from plait.errors import ConfigurationError, excerpt

_encode = msgspec.json.Encoder().encode
_SAFE = frozenset({str, int, float, bool, type(None), bytes})


def to_json(value: object) -> bytes:
    """Encode plain data as compact JSON.

    Lone surrogates, which UTF-8 cannot carry (models do produce them), are written as ``\\udXXX`` escapes,
    which every JSON reader turns back into the same text. This is the only place that escapes them.

    Raises:
        TypeError: for anything that is not plain data, a msgspec struct or a `Frozen` value.
    """
    try:
        return _encode(value)
    except UnicodeEncodeError:
        return json.dumps(msgspec.to_builtins(value), separators=(",", ":"), allow_nan=False).encode("ascii")


def parse_json(text: str | bytes) -> Any:
    """Read JSON as `to_json` writes it, escaped lone surrogates included.

    Raises:
        ValueError: the text is no JSON.
    """
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return json.loads(text)  # msgspec refuses lone surrogates, which json reads


class FrozenDict(dict[str, Any]):
    """A read-only, hashable, picklable mapping that is a plain JSON object.

    A subclass of dict, so that JSON encoders, pydantic and ``==`` treat it as one; whatever would change it
    raises TypeError. Its values are frozen by `freeze`.
    """

    __slots__ = ()

    def __init__(self, value: Mapping[str, Any] | None = None, /) -> None:
        super().__init__({_key(key): freeze(item) for key, item in value.items()} if value else ())

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        msg = "this mapping is read-only; make a changed copy with {**mapping, ...}"
        raise TypeError(msg)

    __setitem__ = __delitem__ = __ior__ = _refuse  # type: ignore[assignment]
    clear = pop = popitem = setdefault = update = _refuse  # type: ignore[assignment]

    def __hash__(self) -> int:  # type: ignore[override]  # dict has none; this one never changes
        return hash(frozenset(self.items()))

    def __reduce__(self) -> tuple[type[FrozenDict], tuple[dict[str, Any]]]:
        return (FrozenDict, (dict(self),))

    def __copy__(self) -> FrozenDict:
        return self

    def __deepcopy__(self, _: object) -> FrozenDict:
        return self

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: object, _handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(
            lambda value: value if type(value) is cls else cls(value),
            core_schema.dict_schema(keys_schema=core_schema.str_schema()),
            serialization=core_schema.plain_serializer_function_ser_schema(thaw, when_used="always"),
        )


EMPTY = FrozenDict()



class _AsFrozenDict:
    """Makes a `FrozenDict` of a field's value. Pydantic's own `GetPydanticSchema` takes 18 ms to import."""

    @staticmethod
    def __get_pydantic_core_schema__(_source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return handler(FrozenDict)


JsonObject = Annotated[Mapping[str, Any], _AsFrozenDict]
"""The type of a field that takes any mapping of plain data, and holds a `FrozenDict`."""


def _key(key: object) -> str:
    if not isinstance(key, str):
        msg = f"the key {key!r} of a mapping is no string; JSON objects have string keys"
        raise ValueError(msg)  # noqa: TRY004  # pydantic turns ValueError, not TypeError, into its own error
    return key


def freeze(value: Any) -> Any:
    """Make plain data read-only: lists become tuples, dicts `FrozenDict`, all the way down.

    Raises:
        ValueError: for a set, an arbitrary object, or a number JSON cannot hold (NaN, infinity).
    """
    kind = type(value)
    if kind in _SAFE:
        if kind is float and not isfinite(value):
            msg = f"{value!r} has no form in JSON; use None, or a string"
            raise ValueError(msg)
        return value
    if kind is FrozenDict or isinstance(value, Frozen):
        return value
    if isinstance(value, dict):
        return FrozenDict(value)
    if isinstance(value, list | tuple):
        return tuple(freeze(item) for item in value)
    if isinstance(value, str | int | float):
        return value
    msg = f"{kind.__name__} cannot be kept in a frozen value; use strings, numbers, lists, dicts or Frozen models"
    raise ValueError(msg)


def thaw(value: Any) -> Any:
    """Give plain JSON data for a frozen value: lists and dicts, `Frozen.to_json`, bytes as base64."""
    if isinstance(value, str | int | float | None):
        return value
    if isinstance(value, Frozen):
        return value.to_json()
    if isinstance(value, dict):
        return {key: thaw(item) for key, item in value.items()}
    if isinstance(value, bytes):
        return b64encode(value).decode("ascii")
    return [thaw(item) for item in value]


class Frozen(BaseModel):
    """A read-only value: fields cannot be set, unknown fields are refused, lists become tuples, dicts read-only.

    Equal content gives an equal `hash_key`, in every process. ``repr`` shows only what differs from the
    defaults.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", ser_json_bytes="base64", val_json_bytes="base64", ser_json_inf_nan="null",
        # Validators are built when a class is first used: building them at import would double its cost.
        defer_build=True,
    )

    # Fields whose type lets a list, dict or anything at all in; frozen after validation. Worked out once a class.
    _open_fields: ClassVar[tuple[str, ...]] = ()
    _defaults: ClassVar[Mapping[str, Any]] = {}

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        cls._open_fields = tuple(n for n, f in cls.model_fields.items() if _is_open(f.annotation))
        cls._defaults = {n: f.get_default() for n, f in cls.model_fields.items() if not f.is_required()}

    @classmethod
    def model_construct(cls, _fields_set: set[str] | None = None, **values: Any) -> Self:
        """As pydantic's, and four times as fast: make a value of fields that are known to be right, unchecked.

        The loop makes some ten values a turn out of others that were checked before; checking them again would
        be the greater part of what a turn costs. Fields must be frozen already; none may have a default factory.
        """
        made = cls.__new__(cls)
        write = object.__setattr__
        write(made, "__dict__", {**cls._defaults, **values})
        write(made, "__pydantic_fields_set__", set(values) if _fields_set is None else _fields_set)
        write(made, "__pydantic_extra__", None)
        write(made, "__pydantic_private__", None)
        return made

    def __init__(self, /, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise ConfigurationError(describe(error)) from None

    def __setattr__(self, name: str, value: object) -> NoReturn:
        msg = f"{type(self).__name__}.{name} cannot be set: the value is read-only; use .model_copy(update={{...}})"
        raise AttributeError(msg)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Give a copy with some fields changed; unlike pydantic's own, the changes are validated and frozen.

        Raises:
            ConfigurationError: a changed field has the wrong type or an unknown name.
        """
        return type(self)(**{**self.__dict__, **update}) if update else super().model_copy(deep=deep)

    def model_dump(self, **options: Any) -> dict[str, Any]:
        """As pydantic's; fields declared as lists hold tuples here, which is nothing to warn about."""
        return super().model_dump(**{"warnings": False, **options})

    def model_dump_json(self, **options: Any) -> str:
        """As pydantic's, without its warnings (see `model_dump`)."""
        return super().model_dump_json(**{"warnings": False, **options})

    def model_post_init(self, context: Any, /) -> None:
        """Freeze the fields whose declared type is mutable (pydantic calls this after validation)."""
        for name in self._open_fields:
            self.__dict__[name] = freeze(self.__dict__[name])

    def to_json(self) -> dict[str, Any]:
        """Give the value as plain JSON data: every field that differs from its default, and the ``type`` of parts."""
        data = {}
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if name == "type" or field.is_required() or value != field.get_default(call_default_factory=True):
                data[name] = thaw(value)
        return data

    @property
    def class_(self) -> str:
        """The name this value's class has in JSON."""
        return type(self).__name__

    @property
    def hash_key(self) -> str:
        """SHA-256 over class and content, 64 hexadecimal digits: equal content gives an equal key."""
        content = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return sha256(f"{self.class_}:{content}".encode()).hexdigest()

    def __repr_args__(self) -> Any:
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if field.is_required() or value != field.get_default(call_default_factory=True):
                yield name, value


def _is_open(annotation: Any) -> bool:
    """Whether a field of this type may hold something mutable after validation."""
    if annotation in _SAFE or annotation is FrozenDict:
        return False
    if isinstance(annotation, type) and not hasattr(annotation, "__args__"):
        return not issubclass(annotation, Frozen | str | int | float | bytes)
    text = str(annotation)
    return any(word in text for word in ("list", "List", "dict", "Dict", "Mapping", "Sequence", "Any", "set", "object"))


def describe(error: ValidationError, most: int = 3) -> str:
    """Say in one sentence what pydantic found wrong: which field, what was expected, what was given.

    Args:
        error: pydantic's error; its own text has several lines and a web address.
        most: how many of its findings to name.
    """
    found = error.errors(include_url=False, include_context=False)
    said = []
    for item in found[:most]:
        where = ".".join(str(step) for step in item["loc"])
        given = "" if item["type"] in ("missing", "extra_forbidden") else f" (given: {excerpt(repr(item['input']), 60)})"
        message = item["msg"].removeprefix("Value error, ")
        said.append((f"{where}: " if where else "") + message[:1].lower() + message[1:] + given)
    more = f"; and {len(found) - most} more" if len(found) > most else ""
    return f"{error.title} is not valid: {'; '.join(said)}{more}"
