"""From Python to JSON Schema and back: a function's parameters, and the type of a structured answer.

Owns what a signature and its docstring say to a model, and the compiled validators that turn the model's JSON
into Python values. Each is made once for a function or type and kept on it. Knows nothing of tools, of what is
injected into a parameter (it asks a callable), or of providers; JSON Schema as data is `plait.strict`'s.
"""

from __future__ import annotations

import functools
import inspect
import re
import typing
from collections.abc import Mapping
from types import GenericAlias
from typing import TYPE_CHECKING, Annotated, Any, Final, Generic, NotRequired, TypeVar, overload

import msgspec
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import SchemaValidator, to_json, to_jsonable_python
from typing_extensions import TypedDict, override

from plait.errors import ConfigurationError, OutputInvalid, ToolError, excerpt
from plait.shape import joined, read_json, resolve, shown, unknown
from plait.signatures import Parameter, function_name, keep_on, modern, read_docstring, read_parameters
from plait.strict import strict_form, tidy, without_nulls

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic_core import ErrorDetails

    from plait.signatures import Injector

T = TypeVar("T")
MAX_ANSWER: Final = 16_000_000
"""Characters of a structured answer that are read."""
_MOST_FAULTS: Final = 5
_KEPT: Final = "__plait_schema__"
_FENCE: Final = r"```[a-zA-Z]*\s*\n(.*?)\n?\s*```"


class FunctionSchema(msgspec.Struct, frozen=True, kw_only=True, eq=False, weakref=True):
    """What a model is told about a function, and the way back from the model's words.

    Attributes:
        name: the function's name.
        description: the docstring without its sections.
        parameters: a JSON Schema object: the strict flavour where there is one (`plait.strict.strict_form`).
        strict: whether it is the strict flavour.
        ordinary: the ordinary flavour, in which what has a default need not be given.
        injected: the parameters the model never sees, each with what the injector said about it.
    """

    name: str
    description: str
    parameters: dict[str, Any]
    strict: bool
    ordinary: dict[str, Any]
    injected: tuple[tuple[str, str], ...]
    _validator: SchemaValidator

    def validate(self, text: str | bytes) -> dict[str, Any]:
        """Turn the model's arguments into Python values, new ones in each call.

        Args:
            text: a JSON object; nothing, blanks and ``null`` stand for one without entries.

        Returns:
            Keyword arguments, without those that were not given and without the injected ones.

        Raises:
            ToolError: they do not fit; the sentence says what and where, for the model.
        """
        text = text if text and not text.isspace() else "{}"
        try:
            data = read_json(text)
        except ValueError as error:
            msg = f"the text of the arguments of {self.name!r} {error}"
            raise ToolError(msg) from None
        try:
            given: dict[str, Any] = _validated(self._validator, "{}" if data is None else text, data, self.ordinary)
        except ValidationError as error:
            msg = f"wrong arguments for {self.name!r}: {_sentence(error, self.ordinary)}"
            raise ToolError(msg) from None
        except Exception as error:  # a validator that the user wrote
            msg = f"wrong arguments for {self.name!r}: {type(error).__name__}: {excerpt(str(error))}"
            raise ToolError(msg) from error
        for name, _ in self.injected:
            given.pop(name, None)
        return given


class OutputSchema(msgspec.Struct, Generic[T], frozen=True, kw_only=True, eq=False, weakref=True):
    """What a model is told about the answer wanted of it, and the way back from the answer.

    Attributes:
        name: a name providers take: letters, digits, ``_`` and ``-``, at most 64.
        description: the type's docstring, else empty.
        schema: a JSON Schema object: the strict flavour where there is one.
        strict: whether it is the strict flavour.
        wrapped: the answer is an object with the value under ``"result"``, for the type itself is no object.
        core: the type, so wrapped, as pydantic's core schema.
        derived: what other modules made of it, each under a class of its own, kept as long as this.
    """

    name: str
    description: str
    schema: dict[str, Any]
    strict: bool
    wrapped: bool
    core: Mapping[str, Any]
    derived: dict[type, Any] = msgspec.field(default_factory=dict)
    _ordinary: dict[str, Any]
    _validator: SchemaValidator

    def validate(self, text: str) -> T:
        """Turn an answer into a value of the type; a Markdown fence round the JSON is taken off.

        Raises:
            OutputInvalid: the answer does not fit; the sentence says what and where, for the model.
        """
        fenced = re.fullmatch(_FENCE, text.strip(), re.DOTALL)
        body = fenced[1] if fenced else text
        try:
            data = read_json(body, most=MAX_ANSWER)
            if self.wrapped and not (isinstance(data, dict) and data.keys() == {"result"}):
                data = {"result": data}  # some models leave the wrapping out
                body = to_json(data).decode()
            value = _validated(self._validator, body, data, self._ordinary)
        except ValidationError as error:
            msg = f"the answer does not fit {self.name!r}: {_sentence(error, self._ordinary)}"
            raise OutputInvalid(msg, text=text) from None
        except ValueError as error:
            msg = f"the answer {error}; it must be one JSON value that fits {self.name!r}, without other text"
            raise OutputInvalid(msg, text=text) from None
        except Exception as error:  # a validator that the user wrote
            msg = f"the answer does not fit {self.name!r}: {type(error).__name__}: {excerpt(str(error))}"
            raise OutputInvalid(msg, text=text) from error
        made: T = value["result"] if self.wrapped else value
        return made


def function_schema(
    function: Callable[..., Any], injector: Injector, *, skip_first: bool = False, strict: bool | None = None
) -> FunctionSchema:
    """Read a function's signature and docstring; the second time for one function, this is a look-up.

    Args:
        function: a function, method, `functools.partial` (what it fixes by name is not shown to the model) or
            object with ``__call__``.
        injector: says which parameters are filled by the program.
        skip_first: leave the first parameter out (the ``self`` of a method that is not bound yet).
        strict: False for the ordinary schema, True to refuse what has no strict one, None for strict where
            there is a strict one.

    Raises:
        ConfigurationError: the function cannot be offered to a model; it names the function and the parameter.
    """
    owner: Any = function.__func__ if inspect.ismethod(function) else function
    mode = (injector, skip_first, strict, inspect.ismethod(function))
    return keep_on(owner, _KEPT, mode, lambda: _read_function(function, injector, skip_first=skip_first, strict=strict))


@overload
def output_schema(output: type[T]) -> OutputSchema[T]: ...


@overload
def output_schema(output: object) -> OutputSchema[Any]: ...


def output_schema(output: object) -> OutputSchema[Any]:
    """Describe the type of a structured answer; the second time for one type, this is a look-up.

    Args:
        output: a pydantic model, dataclass, TypedDict, ``list[T]``, ``dict[str, T]``, union, enum or scalar.

    Raises:
        ConfigurationError: the type has no form in JSON.
    """
    if type(output) is not GenericAlias and isinstance(output, type) and output.__module__ != "builtins":
        return keep_on(output, _KEPT, "output", lambda: _read_type(output))
    try:
        return _read_generic(output)
    except TypeError:  # not hashable, such as Annotated[int, []]
        return _read_type(output)


@functools.lru_cache(maxsize=256)
def _read_generic(output: object) -> OutputSchema[Any]:
    return _read_type(output)


def _read_type(output: object) -> OutputSchema[Any]:
    name = getattr(output, "__name__", "") if isinstance(output, type) else ""
    # Without the modules, and without the addresses of functions, which differ from process to process.
    plain_name = re.sub(r"\w+\.| at 0x[0-9a-fA-F]+", "", name or str(output))
    shown_name = re.sub(r"[^a-zA-Z0-9_-]+", "_", plain_name).strip("_")[:64]
    annotation = modern(output)
    try:
        adapter, ordinary = _compile(annotation)
        wrapped = ordinary.get("type") != "object"
        if wrapped:
            adapter, ordinary = _compile(_typed_dict("Result", {"result": annotation}))
    except Exception as error:  # the types' own hooks run here
        msg = f"the output type {output!r} has no form in JSON: {excerpt(str(error))}"
        raise ConfigurationError(msg) from error
    strict = strict_form(ordinary)
    return OutputSchema(
        name=shown_name or "result",
        description=ordinary.get("description", ""),
        schema=ordinary if strict is None else strict,
        strict=strict is not None,
        wrapped=wrapped,
        core=adapter.core_schema,
        _ordinary=ordinary,
        _validator=_validator(adapter),
    )


def _read_function(
    function: Callable[..., Any], injector: Injector, *, skip_first: bool, strict: bool | None
) -> FunctionSchema:
    name = function_name(function)
    description, told = read_docstring(function)
    fields: dict[str, Any] = {}
    defaults: dict[str, Any] = {}
    injected: list[tuple[str, str]] = []
    for parameter in read_parameters(function, injector, skip_first=skip_first):
        if parameter.source is not None:
            injected.append((parameter.name, parameter.source))
            continue
        fields[parameter.name] = _field(parameter, told.get(parameter.name))
        if parameter.optional and not isinstance(parameter.default, FieldInfo):
            defaults[parameter.name] = parameter.default
    # Accepted and thrown away, so that a model that sends one is not told that there is such a parameter.
    hidden: dict[str, Any] = {parameter: NotRequired[Any] for parameter, _ in injected}
    try:
        adapter, ordinary = _compile(_typed_dict(name, fields | hidden))
    except Exception as error:  # the types' own hooks run here
        raise _refusal(name, fields, error) from error
    _finish(ordinary, defaults, hidden)
    made = None if strict is False else strict_form(ordinary)
    if strict is True and made is None:
        msg = (
            f"tool {name!r} has no strict schema: a parameter takes a mapping with free keys, any value or a "
            "tuple; use a model or TypedDict for it, or leave strict=True out"
        )
        raise ConfigurationError(msg)
    return FunctionSchema(
        name=name,
        description=description,
        parameters=ordinary if made is None else made,
        strict=made is not None,
        ordinary=ordinary,
        injected=tuple(injected),
        _validator=_validator(adapter),
    )


def _field(parameter: Parameter, told: str | None) -> Any:
    """Give a parameter as the field of a TypedDict: its type with its description, optional if it has a default."""
    field = modern(parameter.annotation)
    metadata = getattr(field, "__metadata__", ())
    if isinstance(parameter.default, FieldInfo):
        metadata = (*metadata, parameter.default)
        field = Annotated[field, parameter.default]
    said = [item.description for item in metadata if isinstance(item, FieldInfo) and item.description]
    said += [item for item in metadata if isinstance(item, str)]
    said += [item.documentation for item in metadata if isinstance(getattr(item, "documentation", None), str)]
    description = said[0] if said else told
    if description:
        field = Annotated[field, Field(description=description)]
    return NotRequired[field] if parameter.optional and not isinstance(parameter.default, FieldInfo) else field


def _finish(ordinary: dict[str, Any], defaults: Mapping[str, Any], hidden: Mapping[str, Any]) -> None:
    properties: dict[str, Any] = ordinary.setdefault("properties", {})
    for name in hidden:
        del properties[name]
    for name, default in defaults.items():
        try:
            properties[name]["default"] = _plain(default)
        except (ValueError, TypeError, RecursionError):  # a default only Python can say
            continue


def _refusal(name: str, fields: Mapping[str, Any], error: Exception) -> ConfigurationError:
    for parameter, field in fields.items():
        try:
            _compile(_typed_dict(name, {parameter: field}))
        except Exception as reason:  # noqa: BLE001  # the same foreign hooks as before
            why = excerpt(str(reason).split("\n", 1)[0])
            return ConfigurationError(
                f"tool {name!r}: the parameter {parameter!r} has a type without a form in JSON: {why}"
            )
    return ConfigurationError(f"tool {name!r} cannot be described to a model: {excerpt(str(error))}")


class _Schema(GenerateJsonSchema):
    """pydantic's generator without its warnings, and with sets in the same order in every process."""

    ignored_warning_kinds = {"skipped-choice", "non-serializable-default", "skipped-discriminator"}  # noqa: RUF012  # pydantic's own

    @override
    def encode_default(self, dft: Any) -> Any:
        return _plain(super().encode_default(sorted(dft, key=repr) if isinstance(dft, set | frozenset) else dft))


def _plain(value: Any) -> Any:
    return to_jsonable_python(sorted(value, key=repr) if isinstance(value, set | frozenset) else value)


def _typed_dict(name: str, fields: dict[str, Any]) -> Any:
    # A TypedDict, not a model: its keys may have any name, and what was not given stays away.
    made = typing.cast("Any", TypedDict)(name, fields)
    made.__pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False, val_json_bytes="base64")
    return made


def _compile(annotation: Any) -> tuple[TypeAdapter[Any], dict[str, Any]]:
    """Give the validator of a type and its ordinary JSON Schema, whose root is no bare reference."""
    adapter: TypeAdapter[Any] = TypeAdapter(annotation)
    schema = tidy(adapter.json_schema(schema_generator=_Schema))
    if "$ref" in schema:
        schema = {**resolve(schema["$ref"], schema), "$defs": schema["$defs"]}
    return adapter, schema


def _validator(adapter: TypeAdapter[Any]) -> SchemaValidator:
    return typing.cast("SchemaValidator", adapter.validator)


def _validated(validator: SchemaValidator, text: str | bytes, data: Any, ordinary: dict[str, Any]) -> Any:
    """Validate; where that fails, once more without the nulls that stand for "not given"."""
    try:
        return validator.validate_json(text)
    except ValidationError:
        pruned = without_nulls(data, ordinary) if "null" in str(text) else data
        if pruned == data:
            raise
        return validator.validate_json(to_json(pruned))


def _sentence(error: ValidationError, ordinary: Mapping[str, Any]) -> str:
    details = error.errors(include_url=False, include_context=False)
    said = [_fault(detail, ordinary) for detail in details[:_MOST_FAULTS]]
    more = len(details) - len(said)
    return "; ".join(said) + (f"; and {more} more" if more else "")


def _fault(detail: ErrorDetails, ordinary: Mapping[str, Any]) -> str:
    path = ""
    for step in detail["loc"]:
        path = f"{path}[{step}]" if isinstance(step, int) else joined(path, step)
    if detail["type"] == "json_invalid" and not detail["loc"]:  # what else is invalid was found before
        return "a text holds half of a surrogate pair, which is no character"
    if detail["type"] == "missing":
        return f"{path!r} is missing"
    if detail["type"] == "extra_forbidden":
        return unknown(path, ordinary["properties"]) if len(detail["loc"]) == 1 else f"{path!r} is not known here"
    said = detail["msg"]
    for prefix in ("Input ", "Value error, ", "Assertion failed, "):
        said = said.removeprefix(prefix)
    return f"{repr(path) if path else 'it'} {excerpt(said)}, got {shown(_json_of(detail['input']))}"


def _json_of(value: Any) -> Any:
    return value if isinstance(value, str | int | float | list | dict | type(None)) else type(value).__name__


__all__ = ["FunctionSchema", "OutputSchema", "function_schema", "output_schema"]
