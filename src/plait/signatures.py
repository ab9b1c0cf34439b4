"""What Python says about a function: its name, its parameters with their types, and its docstring.

Owns resolving annotations, written as text or not, and reading docstrings. Knows nothing of JSON or of tools.
"""

from __future__ import annotations

import functools
import inspect
import re
import sys
import typing
from types import GenericAlias, SimpleNamespace, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Final, NotRequired, TypeVar, Union

import msgspec
from typing_extensions import TypedDict

from plait.errors import ConfigurationError, excerpt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

T = TypeVar("T")
Injector = typing.Callable[[str, Any], "str | None"]
"""Gets a parameter's name and type (text, where it cannot be resolved); gives what to put there, or None."""

_SECTIONS: Final = (
    r"(?im)^\s*(args|arguments|params|parameters|keyword args|keyword arguments|other parameters)\s*:?\s*$"
    r"|^\s*[:@]param\b"
)


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """One parameter, as a caller by name sees it.

    Attributes:
        name: its name.
        annotation: its type; text where only the injector knows what it means.
        default: its default, or `inspect.Parameter.empty`.
        source: what the injector said; None for a parameter that the model fills.
    """

    name: str
    annotation: Any
    default: Any
    source: str | None

    @property
    def optional(self) -> bool:
        """Whether it has a default."""
        return self.default is not inspect.Parameter.empty


def keep_on(owner: Any, key: str, mode: object, make: Callable[[], T]) -> T:
    """Give what was made for this owner before, or make it.

    It is kept on the owner, so that both end together. `functools.wraps` and inheritance hand copies on; the
    owner's own identity tells it from them. What cannot be kept (on built-ins, on slots) is made each time.
    """
    kept = getattr(owner, "__dict__", {}).get(key)
    if kept is not None and kept[0] is owner and kept[1] == mode:
        found: T = kept[2]
        return found
    made = make()
    try:
        setattr(owner, key, (owner, mode, made))
    except (AttributeError, TypeError):
        return made
    return made


def function_name(function: Callable[..., Any]) -> str:
    """Give the name of a function, of what a `functools.partial` calls, or of a callable object's class."""
    bare = _without_partials(function)
    return str(getattr(bare, "__name__", type(bare).__name__))


def plain_function(function: Callable[..., Any]) -> Any:
    """Find the function that was written: under partials, wrappers, bound methods and callable objects."""
    bare = inspect.unwrap(_without_partials(function))
    if not inspect.isroutine(bare):
        bare = inspect.unwrap(type(bare).__call__)
    return getattr(bare, "__func__", bare)


def _without_partials(function: Callable[..., Any]) -> Callable[..., Any]:
    while isinstance(function, functools.partial):
        function = function.func
    return function


def read_parameters(
    function: Callable[..., Any], injector: Injector, *, skip_first: bool = False, lenient: bool = False
) -> Iterator[Parameter]:
    """Give the parameters that are filled by name, those fixed by a `functools.partial` left out.

    Args:
        function: anything that can be called.
        injector: says which parameters the program fills.
        skip_first: leave the first parameter out (the ``self`` of a method that is not bound yet).
        lenient: for a function with a schema written by hand: pass over what a model could not fill.

    Raises:
        ConfigurationError: a parameter cannot be filled by name, or its type cannot be resolved.
    """
    name = function_name(function)
    try:
        signature = _signature(function)
    except (TypeError, ValueError) as error:
        if lenient:
            return
        msg = f"tool {name!r} has no signature that Python can read ({error}); wrap it in a function with annotations"
        raise ConfigurationError(msg) from None
    fixed = function.keywords if isinstance(function, functools.partial) else {}
    for index, parameter in enumerate(signature.parameters.values()):
        if parameter.name in fixed or (skip_first and index == 0):
            continue
        if parameter.kind not in {parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD}:
            if lenient:
                continue
            raise ConfigurationError(_cannot_be_named(name, parameter))
        try:
            annotation = _resolved(parameter, function, name, injector)
        except ConfigurationError:
            if not lenient:
                raise
            annotation = Any
        source = injector(parameter.name, annotation)
        yield Parameter(name=parameter.name, annotation=annotation, default=parameter.default, source=source)


def _cannot_be_named(name: str, parameter: inspect.Parameter) -> str:
    if parameter.kind is parameter.POSITIONAL_ONLY:
        return f"tool {name!r}: the parameter {parameter.name!r} is positional-only; tools are called by name"
    stars = "*" if parameter.kind is parameter.VAR_POSITIONAL else "**"
    return (
        f"tool {name!r}: the parameter {stars + parameter.name!r} has no form in JSON Schema; name every parameter, "
        "or take one list or dict"
    )


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    if sys.version_info >= (3, 14):
        from annotationlib import Format  # new in this version

        return inspect.signature(function, annotation_format=Format.FORWARDREF)
    return inspect.signature(function)


def _resolved(parameter: inspect.Parameter, function: Callable[..., Any], name: str, injector: Injector) -> Any:
    annotation = parameter.annotation
    if annotation is parameter.empty:
        kind = type(parameter.default)
        return kind if kind in {bool, int, float, str} else Any
    code = plain_function(function)
    holder = SimpleNamespace(__annotations__={"it": annotation})
    try:
        return typing.get_type_hints(holder, getattr(code, "__globals__", {}), _locals(code), include_extras=True)["it"]
    except Exception as error:
        text = annotation if isinstance(annotation, str) else getattr(annotation, "__forward_arg__", str(annotation))
        if injector(parameter.name, text) is not None:
            return text  # imported for type checkers only
        msg = (
            f"tool {name!r}: the annotation {excerpt(text)!r} of the parameter {parameter.name!r} cannot be resolved "
            f"({excerpt(str(error))}); define or import it, at run time, before the function"
        )
        raise ConfigurationError(msg) from error


def _locals(code: Any) -> dict[str, Any]:
    """Give the names that a function defined inside others can see, while those others are still running."""
    names: dict[str, Any] = {}
    inside = str(getattr(code, "__qualname__", ""))
    if "<locals>" not in inside:
        return names
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001  # the only way to a running function's names
    while frame is not None:
        if frame.f_globals is code.__globals__ and inside.startswith(f"{frame.f_code.co_qualname}.<locals>."):
            names = {**frame.f_locals, **names}
        frame = frame.f_back
    return names


def read_docstring(function: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    """Give a docstring's prose, and what it says about each parameter (Google, NumPy and Sphinx style)."""
    text = inspect.getdoc(_without_partials(function)) or ""
    if not re.search(_SECTIONS, text):
        return text.strip(), {}
    from docstring_parser import parse  # most programs need not pay for it

    parsed = parse(text)
    told = {
        entry.arg_name.lstrip("*"): " ".join(entry.description.split()) for entry in parsed.params if entry.description
    }
    return (parsed.description or "").strip(), told


def modern(annotation: Any, inside: tuple[Any, ...] = ()) -> Any:
    """Put `typing_extensions.TypedDict` in place of `typing.TypedDict`, which pydantic refuses before Python 3.12.

    Raises:
        ConfigurationError: a TypedDict holds itself.
    """
    if sys.version_info >= (3, 12):
        return annotation
    if typing.is_typeddict(annotation) and type(annotation).__module__ == "typing":
        if annotation in inside:
            msg = f"{annotation.__name__} holds itself; take TypedDict from typing_extensions for it"
            raise ConfigurationError(msg)
        return _modern_typed_dict(annotation, (*inside, annotation))
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if not arguments or origin is typing.Literal:
        return annotation
    if origin is Annotated:
        return Annotated[(modern(arguments[0], inside), *arguments[1:])]
    changed = tuple(item if isinstance(item, list) else modern(item, inside) for item in arguments)
    if all(new is old for new, old in zip(changed, arguments, strict=True)):
        return annotation
    if isinstance(annotation, UnionType):
        return Union[changed]  # noqa: UP007  # the members are known at run time only
    return annotation.copy_with(changed) if hasattr(annotation, "copy_with") else GenericAlias(origin, changed)


def _modern_typed_dict(annotation: Any, inside: tuple[Any, ...]) -> Any:
    fields: dict[str, Any] = {}
    for key, hint in typing.get_type_hints(annotation, include_extras=True).items():
        marked = typing.get_origin(hint)
        kind = modern(typing.get_args(hint)[0] if marked in {typing.Required, NotRequired} else hint, inside)
        needed = marked is typing.Required or (marked is not NotRequired and key in annotation.__required_keys__)
        fields[key] = kind if needed else NotRequired[kind]
    made = typing.cast("Any", TypedDict)(annotation.__name__, fields)
    made.__doc__, made.__module__ = annotation.__doc__, annotation.__module__
    if hasattr(annotation, "__pydantic_config__"):
        made.__pydantic_config__ = annotation.__pydantic_config__
    return made
