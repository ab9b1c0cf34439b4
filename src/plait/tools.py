"""Tools: the forms users write them in, and the shared registry of names.

A tool is an instance of a `Tool` subclass, or a `FunctionTool`, which every other form builds: ``@tool``, a plain
function, a dict of name, schema and function. Hands on `execute` and the classes, so that this is the one place to
import tools from. Knows nothing of agents.
"""

from __future__ import annotations

import copy
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

import msgspec

from plait.errors import ConfigurationError, excerpt
from plait.executor import Finished, execute, known_tools
from plait.providers.base import ToolDefinition
from plait.run import DEFAULT_TOOL_RESULT_CHARACTERS
from plait.schema import FunctionSchema, function_schema
from plait.signatures import function_name, keep_on, plain_function
from plait.toolbase import (
    NO_TOOLS,
    FunctionTool,
    P,
    R_co,
    Tool,
    Toolbox,
    by_hand,
    by_signature,
    check_description,
    check_name,
    check_options,
    check_switch,
    findable,
    in_this_process,
    isolated,
    prepare,
    renamed,
    same_name,
    source_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

_KEPT: Final = "__plait_tool__"
_FORM_KEYS: Final = frozenset({"name", "description", "function_schema", "func"})
_OPTIONS: Final = frozenset({"timeout", "idempotent", "exclusive", "max_result", "isolate"})


@overload
def tool(function: Callable[P, R_co], /) -> FunctionTool[P, R_co]: ...


@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    timeout: float | None = None,
    idempotent: bool = False,
    exclusive: bool = False,
    strict: bool | None = None,
    max_result: int = DEFAULT_TOOL_RESULT_CHARACTERS,
    isolate: bool = False,
) -> Callable[[Callable[P, R_co]], FunctionTool[P, R_co]]: ...


def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    timeout: float | None = None,
    idempotent: bool = False,
    exclusive: bool = False,
    strict: bool | None = None,
    max_result: int = DEFAULT_TOOL_RESULT_CHARACTERS,
    isolate: bool = False,
) -> Any:
    """Make a function a tool, and register it by its name.

    ::

        @tool(description="Get current weather for a city")
        async def get_weather(city: str) -> str: ...

    Args:
        function: the function, sync or async, when used as ``@tool`` without brackets.
        name: the name for the model; else the function's.
        description: for the model; else the docstring.
        timeout: seconds for one call; None for 60, ``math.inf`` for no limit.
        idempotent: a call that may have happened before a crash may be made again.
        exclusive: no other call of the same turn runs meanwhile.
        strict: False for a schema with optional parameters, True to refuse what has no strict one; None for strict
            where it can be.
        max_result: characters of a result that the model gets.
        isolate: each call runs in a process of its own, which is killed, with what it started, when its time is up.

    Returns:
        A `FunctionTool`, which can still be called as the function; or a decorator that makes one.

    Raises:
        ConfigurationError: the function cannot be offered to a model, or an option is wrong.
    """

    def decorate(function: Callable[..., Any]) -> FunctionTool[..., Any]:
        if not callable(function) or isinstance(function, type):
            msg = f"@tool goes on a function, not on {_described(function)}"
            raise ConfigurationError(msg)
        if strict is not None:
            check_switch(function_name(function), "strict", strict)
        method = _is_method(function)
        if method and isolate is True:
            msg = (
                f"the tool {function_name(function)!r} is a method and cannot be isolated: its object cannot cross "
                "into another process; write it as a function at the top of a module"
            )
            raise ConfigurationError(msg)
        schema = function_schema(function, source_of, skip_first=method, strict=strict)
        made = _function_tool(
            function,
            name or schema.name,
            schema.description if description is None else description,
            schema,
            _Options(
                timeout=timeout, idempotent=idempotent, exclusive=exclusive, max_result=max_result, isolate=isolate
            ),
        )
        return replace(made, method=True) if method else _registered(made)

    return decorate if function is None else decorate(function)


def _is_method(function: Callable[..., Any]) -> bool:
    """Whether a function stands in a class body and waits for its ``self``."""
    inside = str(getattr(function, "__qualname__", "")).rpartition("<locals>.")[2]
    if "." not in inside or not inspect.isfunction(function):
        return False
    return next(iter(inspect.signature(function).parameters), "") in {"self", "cls"}


class _Options(msgspec.Struct, frozen=True, kw_only=True):
    timeout: float | None = None
    idempotent: bool = False
    exclusive: bool = False
    max_result: int = DEFAULT_TOOL_RESULT_CHARACTERS
    isolate: bool = False


_DEFAULTS: Final = _Options()


def _function_tool(
    function: Callable[..., Any],
    name: str,
    description: str,
    schema: FunctionSchema | ToolDefinition,
    options: _Options,
) -> FunctionTool[..., Any]:
    check_name(name, function_name(function))
    check_description(name, description)
    definition = ToolDefinition(name=name, description=description, parameters=schema.parameters, strict=schema.strict)
    prepared = (
        by_signature(msgspec.structs.replace(schema, name=name), definition, function)
        if isinstance(schema, FunctionSchema)
        else by_hand(definition, function)
    )
    if options.isolate is True:
        prepared = isolated(prepared, function, by_hand=not isinstance(schema, FunctionSchema))
    made: FunctionTool[..., Any] = FunctionTool(
        name=name,
        description=description,
        function=function,
        prepared=prepared,
        timeout=options.timeout,
        idempotent=options.idempotent,
        exclusive=options.exclusive,
        max_result=options.max_result,
        isolate=options.isolate,
    )
    check_options(made)
    return made


ToolForm = Tool | Mapping[str, Any] | Callable[..., Any]
"""What users hand over as a tool; a name is looked up instead (`find_tools`)."""


def as_tool(form: ToolForm) -> Tool:
    """Make a tool of any form users write. The second time for one function, this is a look-up.

    Args:
        form: a `Tool`; a function, method or other callable; or a mapping with ``func``, and optionally ``name``,
            ``description``, ``function_schema`` (parameters alone, ``{"name", "description", "parameters"}``, or
            ``{"type": "function", "function": {...}}``; it is used as given), ``timeout``, ``idempotent``,
            ``exclusive``, ``max_result`` and ``isolate``.

    Raises:
        ConfigurationError: it is no tool; the sentence says why.
    """
    if isinstance(form, Tool):
        if isinstance(form, FunctionTool) and form.method:
            msg = f"the tool {form.name!r} is a method; take it from an object, as in tools=[thing.{form.name}]"
            raise ConfigurationError(msg)
        return _findable(form)
    if isinstance(form, Mapping):
        return _findable(_from_mapping(form))
    if isinstance(form, type) or not callable(form):
        hint = f"; pass an instance: {form.__name__}()" if isinstance(form, type) and issubclass(form, Tool) else ""
        msg = f"{_described(form)} is no tool: give a function, a Tool, a dict with 'func', or a registered name{hint}"
        raise ConfigurationError(msg)
    function: Callable[..., Any] = form
    if inspect.ismethod(function):  # a new object each time; its schema is kept on the function behind it
        return _from_function(function)
    return keep_on(function, _KEPT, None, lambda: _from_function(function))


def _findable(made: Tool) -> Tool:
    """Give a tool that can be used: an isolated one stands where another process will look for it."""
    prepared = prepare(made)
    if isinstance(made, FunctionTool):  # a class was looked for when it was prepared
        findable(prepared, made.function)
    return made


def _from_function(function: Callable[..., Any]) -> FunctionTool[..., Any]:
    schema = function_schema(function, source_of)
    return _function_tool(function, schema.name, schema.description, schema, _DEFAULTS)


def _from_mapping(form: Mapping[str, Any]) -> FunctionTool[..., Any]:
    function = form.get("func")
    shown = excerpt(repr(form.get("name", sorted(map(str, form)))))
    if isinstance(function, FunctionTool):
        function = function.function
    if not callable(function) or isinstance(function, type):
        instead = f", not {_described(function)}" if "func" in form else ""
        msg = f"the tool {shown} needs a function under 'func'{instead}"
        raise ConfigurationError(msg)
    strange = form.keys() - _FORM_KEYS - _OPTIONS
    if strange:
        msg = f"the tool {shown} has unknown keys: {', '.join(sorted(map(str, strange)))}; known are: " + ", ".join(
            sorted(_FORM_KEYS | _OPTIONS)
        )
        raise ConfigurationError(msg)
    given = form.get("function_schema")
    options = _Options(**{key: form[key] for key in _OPTIONS & form.keys()})
    if not given:
        schema = function_schema(function, source_of)
        description = form.get("description", schema.description)
        return _function_tool(function, form.get("name") or schema.name, description, schema, options)
    if not isinstance(given, Mapping):
        msg = f"'function_schema' of the tool {shown} must be a dict, not {_described(given)}"
        raise ConfigurationError(msg)
    read = read_definition(given)
    name = form.get("name") or read.name or function_name(function)
    description = form.get("description") or read.description or inspect.getdoc(function) or ""
    return _function_tool(function, name, description, read, options)


def read_definition(given: Mapping[str, Any]) -> ToolDefinition:
    """Read what people write of a function for a model: OpenAI's or Anthropic's form of a tool, or parameters alone.

    What is missing is empty, the name too.

    Raises:
        ConfigurationError: ``strict`` is neither true nor false.
    """
    inner = given["function"] if isinstance(given.get("function"), Mapping) else given
    parameters = inner.get("parameters", inner.get("input_schema"))
    if not isinstance(parameters, Mapping):
        bare = inner is given and ("properties" in given or given.get("type", "function") != "function")
        parameters, inner = (given, {}) if bare else ({"type": "object", "properties": {}}, inner)
    if inner.get("strict") is not None:
        check_switch(str(inner.get("name", "")), "strict", inner["strict"])
    return ToolDefinition(
        name=inner.get("name", ""),
        description=inner.get("description", ""),
        parameters=copy.deepcopy(dict(parameters)),
        strict=inner.get("strict") is True,
    )


def _described(value: object) -> str:
    if isinstance(value, type):
        return f"the class {value.__name__}"
    return f"{type(value).__name__} {excerpt(repr(value), 60)}"


# --- the shared registry --------------------------------------------------------------------------------------------


class _Place(msgspec.Struct, frozen=True):
    """Where a tool was defined."""

    module: str
    qualname: str
    file: str

    def is_local(self) -> bool:
        return "<locals>" in self.qualname

    def same(self, other: _Place) -> bool:
        # A script is the module __main__ for itself and has its own name for others: then the file is the same.
        return self.module == other.module or (self.file != "" and self.file == other.file)


_REGISTRY: Final[dict[str, list[tuple[_Place, Tool]]]] = {}


def register_tool(form: ToolForm) -> Tool:
    """Register a tool by its name in the registry that all agents of the process share.

    A later one of the same module replaces an earlier one, so that a module or notebook cell may run again, and so
    does one defined inside a function. Two that different modules define under one name are both kept; naming them
    in ``tools=["name"]`` is then an error, while passing the tool itself goes on working.

    Returns:
        The tool.

    Raises:
        ConfigurationError: it is no tool.
    """
    return _registered(as_tool(form))


Registered = TypeVar("Registered", bound=Tool)


def _registered(made: Registered) -> Registered:
    place = _place(made)
    others = [
        (other, known)
        for other, known in _REGISTRY.get(made.name, ())
        if not (place.is_local() or other.is_local() or place.same(other))
    ]
    _REGISTRY[made.name] = [*others, (place, made)]
    return made


def _place(made: Tool) -> _Place:
    if not isinstance(made, FunctionTool):
        kind = type(made)
        return _Place(
            kind.__module__, kind.__qualname__, getattr(sys.modules.get(kind.__module__), "__file__", "") or ""
        )
    code = plain_function(made.function)
    file = getattr(getattr(code, "__code__", None), "co_filename", "")
    return _Place(str(getattr(code, "__module__", "")), str(getattr(code, "__qualname__", made.name)), file)


def find_tools(
    forms: Iterable[str | ToolForm], ready_made: Mapping[str, Callable[[], Tool]] | None = None
) -> dict[str, Tool]:
    """Give the tools of an agent by name, in the given order.

    Args:
        forms: names in the shared registry, and tools in any form `as_tool` takes.
        ready_made: makers of tools that need no registering, by name; a registered one goes before.

    Raises:
        ConfigurationError: a name is unknown or stands for several tools, or two tools have the same name.
    """
    found: dict[str, Tool] = {}
    for form in forms:
        made = _find(form, ready_made or {}) if isinstance(form, str) else as_tool(form)
        if found.setdefault(made.name, made) is not made:
            raise same_name(made.name)
    return found


def _find(name: str, ready_made: Mapping[str, Callable[[], Tool]]) -> Tool:
    known = _REGISTRY.get(name, ())
    if len(known) == 1:
        return _findable(known[0][1])
    if known:
        places = " and ".join(f"{place.module}.{place.qualname}" for place, _ in known)
        msg = f"{name!r} stands for several tools: {places}; pass the tool itself, or give one of them another name"
        raise ConfigurationError(msg)
    if name in ready_made:
        return ready_made[name]()
    msg = f"there is no tool {excerpt(name)!r}; {known_tools(name, [*_REGISTRY, *ready_made])}"
    raise ConfigurationError(msg)


__all__ = [
    "NO_TOOLS",
    "Finished",
    "FunctionTool",
    "Tool",
    "ToolDefinition",
    "ToolForm",
    "Toolbox",
    "as_tool",
    "execute",
    "find_tools",
    "in_this_process",
    "read_definition",
    "register_tool",
    "renamed",
    "tool",
]
