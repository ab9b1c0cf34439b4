"""Read-only models: `Frozen`, what its fields may hold, its hash keys, and making one without checks.

Knows nothing of messages, logs or agents. Everything that is stored, sent between agents or kept in a
thread is made of these, so that no reader can change what another one sees.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal, NoReturn, Self, TypeVar, Union
from typing import get_args as arguments_of
from typing import get_origin as origin_of

import msgspec
from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, ValidationError
from pydantic_core import CoreSchema, ErrorDetails, PydanticSerializationError

from plait.errors import EXCERPT_LENGTH, ConfigurationError, excerpt
from plait.plain import Content, FrozenDict, Value, freeze, shown, thaw

T = TypeVar("T")


class _AsFrozenDict:
    """Makes a `FrozenDict` of a field's value. Pydantic's own `GetPydanticSchema` takes 18 ms to import."""

    @staticmethod
    def __get_pydantic_core_schema__(_source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return handler(FrozenDict)


class _AsTuple:
    """Makes a tuple of a field's value."""

    @staticmethod
    def __get_pydantic_core_schema__(source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return handler(tuple[arguments_of(source)[0], ...])  # type: ignore[misc]  # a type made at run time


JsonObject = Annotated[Mapping[str, Any], _AsFrozenDict]
"""The type of a field that takes any mapping of plain data, and holds a `FrozenDict`."""

TupleOf = Annotated[Sequence[T], _AsTuple]
"""``TupleOf[X]`` is the type of a field that takes any list of X, and holds a tuple."""


class _Layout(msgspec.Struct, frozen=True):
    """What is worked out once for a class of values.

    Attributes:
        open: the fields whose type, or default, lets a list, dict or anything at all in; frozen after validation.
        fields: each field's name, whether JSON always has it, and its default.
        recipe: the defaults of the fields that have one, and the names of all; None where a default is made anew for
            each value, or something is private.
    """

    open: tuple[tuple[str, Content], ...]
    fields: tuple[tuple[str, bool, Any], ...]
    recipe: tuple[dict[str, Any], set[str]] | None


# What pydantic keeps of a value, written without asking a class whether it is frozen.
_new: Final = object.__new__
_set_dict: Final = BaseModel.__dict__["__dict__"].__set__
_set_fields_set: Final = BaseModel.__dict__["__pydantic_fields_set__"].__set__
_set_extra: Final = BaseModel.__dict__["__pydantic_extra__"].__set__
_set_private: Final = BaseModel.__dict__["__pydantic_private__"].__set__

_MOST_SHOWN: Final = 64  # bytes of a field in a repr
_MISSING: Final = object()
"""Stands for the default of a field that has none."""

_CONTAINERS: Final = (list, tuple, dict)


class Frozen(BaseModel, Value):
    """A read-only value: fields cannot be set, unknown fields are refused, lists become tuples, dicts read-only.

    Equal content gives an equal `hash_key`, in every process. ``repr`` shows only what differs from the
    defaults.

    Raises:
        ConfigurationError: a field is missing, unknown, or of the wrong type; the sentence says which.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        populate_by_name=True,
        allow_inf_nan=False,
        ser_json_bytes="base64",
        val_json_bytes="base64",
        # Validators are built when a class is first used: building them at import would double its cost.
        defer_build=True,
    )

    _layout: ClassVar[_Layout | None] = None

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        cls._layout = None
        if cls.model_config.get("extra") != "forbid" or not cls.model_config.get("frozen"):
            msg = f"{cls.__name__} changes extra or frozen in its model_config, which a Frozen value cannot do without"
            raise ConfigurationError(msg)

    @classmethod
    def _lay_out(cls) -> _Layout:
        """Work out the layout of a class when it is first needed: its forward references can be followed by then."""
        openness: list[tuple[str, Content]] = []
        fields: list[tuple[str, bool, Any]] = []
        defaults: dict[str, Any] = {}
        plain = not cls.__private_attributes__
        for name, field in cls.model_fields.items():
            content = _content(field.annotation, field.metadata)
            default = _MISSING
            if field.default_factory in _CONTAINERS:
                default = freeze(field.default_factory())
            elif field.default_factory is not None:
                plain = False
            elif not field.is_required():
                default = freeze(field.default, "typed")
            if default is not _MISSING:
                defaults[name] = default
            if content is None and default is not field.default and not field.is_required():
                content = "typed"  # pydantic does not check defaults, so a mutable one comes as it is
            if content is not None:
                openness.append((name, content))
            fields.append((name, name == "type" or default is _MISSING, default))
        recipe = (defaults, set(cls.model_fields)) if plain else None
        cls._layout = _Layout(tuple(openness), tuple(fields), recipe)
        return cls._layout

    @classmethod
    def model_construct(cls, _fields_set: set[str] | None = None, **values: Any) -> Self:
        """As pydantic's, unchecked; the defaults are frozen."""
        if (cls._layout or cls._lay_out()).recipe is None:
            return super().model_construct(_fields_set, **values)
        made = assemble(cls, values)
        _set_fields_set(made, set(values) if _fields_set is None else _fields_set)
        return made

    def __init__(self, /, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise ConfigurationError(describe(error)) from None

    # Without this mark, pydantic would make each nested value by calling ``__init__``, at three times the cost.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    @classmethod
    def model_validate(cls, obj: Any, **options: Any) -> Self:
        """As pydantic's.

        Raises:
            ConfigurationError: the data is no such value.
        """
        try:
            return super().model_validate(obj, **options)
        except ValidationError as error:
            raise ConfigurationError(describe(error)) from None

    @classmethod
    def model_validate_json(cls, json_data: str | bytes | bytearray, **options: Any) -> Self:
        """As pydantic's.

        Raises:
            ConfigurationError: the text is no JSON, or no such value.
        """
        try:
            return super().model_validate_json(json_data, **options)
        except ValidationError as error:
            raise ConfigurationError(describe(error)) from None

    if not TYPE_CHECKING:  # to type checkers, a class with ``__setattr__`` has every attribute

        def __setattr__(self, name: str, value: object) -> NoReturn:
            msg = f"{type(self).__name__}.{name} cannot be set: the value is read-only; use .model_copy(update={{...}})"
            raise AttributeError(msg)

        def __delattr__(self, name: str) -> NoReturn:
            msg = f"{type(self).__name__}.{name} cannot be deleted: the value is read-only"
            raise AttributeError(msg)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Give a copy with some fields changed; unlike pydantic's own, the changes are validated and frozen.

        Raises:
            ConfigurationError: a changed field has the wrong type or an unknown name.
        """
        if not update:
            return super().model_copy(deep=deep)
        fields = {name: self.__dict__[name] for name in type(self).model_fields}
        unknown = [name for name in update if name not in fields]
        if unknown:
            name = excerpt(repr(unknown[0]), 60)
            msg = f"{type(self).__name__} has no field {name} to change; its fields are {', '.join(fields)}"
            raise ConfigurationError(msg)
        return type(self)(**{**fields, **update})

    def model_dump(self, **options: Any) -> dict[str, Any]:
        """As pydantic's; nested values are whole, also those of subclasses of the type their field declares.

        Fields declared as lists hold tuples, which is nothing to warn about.
        """
        return super().model_dump(**{"warnings": False, "serialize_as_any": True, **options})

    def model_dump_json(self, **options: Any) -> str:
        """As pydantic's, with the differences of `model_dump`; half a surrogate pair is written as its escape."""
        try:
            return super().model_dump_json(**{"warnings": False, "serialize_as_any": True, **options})
        except PydanticSerializationError:
            indent = options.pop("indent", None)
            plain = self.model_dump(mode="json", **options)
            return json.dumps(plain, indent=indent, separators=None if indent else (",", ":"))

    def model_post_init(self, _context: Any, /) -> None:
        """Freeze the fields whose declared type is mutable (pydantic calls this after validation)."""
        layout = self._layout or self._lay_out()
        for name, content in layout.open:
            self.__dict__[name] = freeze(self.__dict__[name], content)

    def to_json(self) -> dict[str, Any]:
        """Give the value as plain JSON data: every field that differs from its default, and the ``type`` of parts."""
        layout = self._layout or self._lay_out()
        values = self.__dict__
        data = {}
        for name, always, default in layout.fields:
            value = values[name]
            if always or (value is not default and _differs(value, default)):
                data[name] = thaw(value)
        return data

    @property
    def class_(self) -> str:
        """The name this value's class has in JSON."""
        return type(self).__name__

    @property
    def hash_key(self) -> str:
        """SHA-256 over class and content, 64 hexadecimal digits: equal content gives an equal key."""
        content = json.dumps([self.class_, self.to_json()], sort_keys=True, separators=(",", ":"))
        return sha256(content.encode("ascii")).hexdigest()

    def __repr_args__(self) -> Iterator[tuple[str, Any]]:
        layout = self._layout or self._lay_out()
        for name, _, default in layout.fields:
            value = self.__dict__[name]
            if _differs(value, default):
                yield name, _Sized(value) if isinstance(value, bytes) and len(value) > _MOST_SHOWN else value


class _Sized:
    """Stands for bytes that are too many to show, as those of an image."""

    __slots__ = ("_size",)

    def __init__(self, data: bytes) -> None:
        self._size = len(data)

    def __repr__(self) -> str:
        return f"<{self._size:,} bytes>"


F = TypeVar("F", bound=Frozen)


def assemble(cls: type[F], fields: dict[str, Any]) -> F:
    """Make a value of fields that are known to be right and frozen, unchecked; those left out have their defaults.

    The loop makes some ten values a turn out of others that were checked before; checking them again would be the
    greater part of what a turn costs. Pydantic's own ``model_construct`` does the same at eight times the cost.
    """
    recipe = (cls._layout or cls._lay_out()).recipe  # the second half of its class
    if recipe is None:
        return cls.model_construct(**fields)
    defaults, names = recipe
    made = _new(cls)
    _set_dict(made, defaults | fields)
    _set_fields_set(made, names)
    _set_extra(made, None)
    _set_private(made, None)
    return made


def _differs(value: object, default: object) -> bool:
    """Whether a value has to be said; False, 0 and 0.0 are equal to Python, but not in JSON."""
    return type(value) is not type(default) or value != default


def _content(annotation: Any, metadata: Sequence[object] = ()) -> Content | None:
    """What a field of this type may hold that is to be frozen after validation; None when there is nothing."""
    origin, arguments = origin_of(annotation), arguments_of(annotation)
    if origin is Annotated:
        return _content(arguments[0], arguments[1:])
    if origin is Literal or _AsFrozenDict in metadata:
        return None
    if origin is None:
        closed = isinstance(annotation, type) and issubclass(annotation, _CLOSED)
        return None if closed or annotation is None else "plain"
    if origin in (Union, UnionType, tuple) or _AsTuple in metadata:
        inside = {_content(argument) for argument in arguments if argument is not ...}
    elif isinstance(origin, type) and issubclass(origin, list | Mapping | Sequence):
        inside = {"typed", *map(_content, arguments)}
    else:
        return "plain"
    return "plain" if "plain" in inside else "typed" if "typed" in inside else None


_CLOSED: Final = (Frozen, FrozenDict, str, int, float, bytes, type(None))


def describe(error: ValidationError, most: int = 3) -> str:
    """Say in one sentence what pydantic found wrong: which field, what was expected, what was given.

    Args:
        error: pydantic's error; its own text has several lines and a web address.
        most: how many of its findings to name.
    """
    length = EXCERPT_LENGTH // (2 * most)
    found = error.errors(include_url=False)
    said = []
    for item in found[:most]:
        where = ".".join(excerpt(str(step), length) for step in item["loc"])
        message = _finding(item)
        if message.startswith(f"{error.title} is not valid"):  # said by the ``__init__`` of a class that has its own
            return message
        if item["type"] not in ("missing", "extra_forbidden") and not isinstance(_cause(item), ConfigurationError):
            message += f" (given: {excerpt(shown(item['input']), length)})"
        said.append(f"{where}: {message}" if where else message)
    more = f"; and {len(found) - most} more" if len(found) > most else ""
    return f"{error.title} is not valid: {'; '.join(said)}{more}"


def _cause(item: ErrorDetails) -> object:
    return item.get("ctx", {}).get("error")


def _finding(item: ErrorDetails) -> str:
    """What one of pydantic's findings says, without the foreign text it repeats."""
    cause = _cause(item)
    if isinstance(cause, ConfigurationError):
        return str(cause)
    if item["type"] == "union_tag_invalid":
        return f"the type should be one of {item['ctx']['expected_tags']}"
    message = item["msg"].removeprefix("Value error, ")
    return message[:1].lower() + message[1:]
