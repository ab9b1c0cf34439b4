"""What a tool is: `Tool`, which users subclass, `FunctionTool`, which every other form builds, and what both need.

Knows what the model is told of a tool, how its words become arguments, and which parameters the run fills. Knows
nothing of the forms users write tools in (`plait.tools`), nor of carrying calls out (`plait.executor`).
"""

from __future__ import annotations

import functools
import inspect
import re
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from math import inf
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Final, Generic, Literal, ParamSpec, TypeVar

import msgspec
from typing_extensions import override

from plait.errors import ConfigurationError, ToolError, excerpt
from plait.interrupts import Secret
from plait.providers.base import ToolDefinition
from plait.run import DEFAULT_TOOL_RESULT_CHARACTERS, RunContext
from plait.schema import FunctionSchema, function_schema
from plait.shape import faults, read_json
from plait.signatures import function_name, plain_function, read_parameters

if TYPE_CHECKING:
    from collections.abc import Iterable

    from plait.homes import Home  # noqa: TC004  # msgspec would need it to read one, which nobody does

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)

Kind = Literal["async", "sync", "async_generator", "generator"]
Source = Literal["user_id", "chat_id", "thread_id", "agent_name", "context", "secret"]

_NAME: Final = r"[a-zA-Z0-9_-]{1,64}"  # what OpenAI and Anthropic take
_BY_NAME: Final[Mapping[str, Source]] = {
    "user_id": "user_id",
    "chat_id": "chat_id",
    "thread_id": "thread_id",
    "agent_name": "agent_name",
}
_BY_TEXT: Final = r"(?:^|[\[|. ])(RunContext|Secret)(?:$|[\[\]|, ])"


class Prepared(msgspec.Struct, frozen=True, eq=False):
    """What is found out about a tool once, and used in every call.

    Attributes:
        definition: what the model is told.
        ordinary: its parameters for a caller that is no model: what may be left out is not required there.
        validate: the model's text to keyword arguments; raises `ToolError` where it does not fit.
        injected: the parameters that the run fills, each with what goes there.
        optional: those of them that may stay away.
        kind: how the function runs: a coroutine, in a thread, or as a generator of pieces.
        home: where a process of its own finds it; None for a tool that runs in this one.
    """

    definition: ToolDefinition
    ordinary: dict[str, Any]
    validate: Callable[[str | bytes], dict[str, Any]]
    injected: tuple[tuple[str, str], ...]
    optional: frozenset[str]
    kind: Kind
    home: Home | None = None


class Tool:
    """A tool with full control: subclass it, set ``name`` and ``description``, write ``execute``.

    ``execute`` is sync (it then runs in a thread) or async, and takes the model's arguments by name. Without a
    ``get_definition`` of its own the schema is read from its signature.

    Attributes:
        name: letters, digits, ``_`` and ``-``, at most 64.
        description: tells the model when and how to use it; else the docstring of ``execute``.
        timeout: seconds for one call; None for 60, ``math.inf`` for no limit.
        idempotent: a call that may have happened before a crash may be made again.
        exclusive: no other call of the same turn runs meanwhile.
        max_result: characters of a result that the model gets.
        isolate: each call runs in a process of its own, which is killed when its time is up. The class is made anew
            there, so its ``__init__`` takes no arguments.
    """

    __slots__ = ("__weakref__", "_prepared")

    name: str = ""
    description: str = ""
    timeout: float | None = None
    idempotent: bool = False
    exclusive: bool = False
    max_result: int = DEFAULT_TOOL_RESULT_CHARACTERS
    isolate: bool = False

    _prepared: Prepared

    def execute(self, *args: Any, **kwargs: Any) -> Any:
        """Do what the tool does; a subclass names its parameters."""
        msg = f"{type(self).__name__} has no execute method"
        raise NotImplementedError(msg)

    def get_definition(self) -> ToolDefinition:
        """Give what the model is told, read from the signature of ``execute``."""
        schema = function_schema(self.execute, source_of)
        return ToolDefinition(
            name=self.name,
            description=self.description or schema.description,
            parameters=schema.parameters,
            strict=schema.strict,
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}(name={self.name!r})"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class FunctionTool(Tool, Generic[P, R_co]):
    """A function as a tool. Calling it calls the function.

    Attributes:
        function: the function.
        prepared: its schema and validator.
        method: the function waits for the ``self`` it is read through.
    """

    name: str
    description: str
    function: Callable[P, R_co]
    prepared: Prepared
    timeout: float | None = None
    idempotent: bool = False
    exclusive: bool = False
    max_result: int = DEFAULT_TOOL_RESULT_CHARACTERS
    isolate: bool = False
    method: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "_prepared", self.prepared)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Call the function."""
        return self.function(*args, **kwargs)

    def __get__(self, instance: object, owner: type | None = None) -> FunctionTool[..., Any]:
        """Bind a method that is a tool to the object it is read through, as Python binds methods."""
        if instance is None or not self.method:
            return self
        return replace(self, function=self.function.__get__(instance, owner), method=False)

    @property
    def __wrapped__(self) -> Callable[P, R_co]:
        """The function, for `inspect.signature`."""
        return self.function

    @property
    def __name__(self) -> str:
        """The function's name."""
        return function_name(self.function)

    @override
    def execute(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        if self.method:
            msg = f"the tool {self.name!r} is a method; take it from an object, as in tools=[thing.{self.name}]"
            raise ConfigurationError(msg)
        return self.function(*args, **kwargs)

    @override
    def get_definition(self) -> ToolDefinition:
        """Give what the model is told."""
        return self.prepared.definition


def check_name(name: object, where: str) -> None:
    """Refuse a name that providers would refuse.

    Raises:
        ConfigurationError: it is not 1 to 64 letters, digits, ``_`` and ``-``.
    """
    if not isinstance(name, str) or not re.fullmatch(_NAME, name):
        msg = (
            f"{excerpt(repr(name))} ({where}) is no name for a tool: use letters, digits, '_' and '-', at most 64; "
            "set name='...'"
        )
        raise ConfigurationError(msg)


def check_description(name: str, description: object) -> None:
    """Refuse a description that is no text.

    Raises:
        ConfigurationError: it is something else.
    """
    if not isinstance(description, str):
        msg = f"the description of the tool {name!r} must be a text, not {type(description).__name__}"
        raise ConfigurationError(msg)


def check_options(tool: Tool) -> None:
    """Refuse options that cannot be meant.

    Raises:
        ConfigurationError: one of them is wrong.
    """
    timeout: object = tool.timeout
    if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout > 0):
        msg = f"the timeout of the tool {tool.name!r} must be seconds above 0, or None for 60, not {timeout!r}"
        raise ConfigurationError(msg)
    if type(tool.max_result) is not int or tool.max_result < 1:
        msg = f"max_result of the tool {tool.name!r} must be a number of characters above 0, not {tool.max_result!r}"
        raise ConfigurationError(msg)
    check_switch(tool.name, "idempotent", tool.idempotent)
    check_switch(tool.name, "exclusive", tool.exclusive)
    check_switch(tool.name, "isolate", tool.isolate)


def check_switch(name: str, option: str, value: object) -> None:
    """Refuse what is neither true nor false: any text, ``"no"`` as well, would count as true.

    Raises:
        ConfigurationError: it is no bool.
    """
    if not isinstance(value, bool):
        msg = f"{option} of the tool {name!r} must be True or False, not {excerpt(repr(value))}"
        raise ConfigurationError(msg)


def prepare(tool: Tool) -> Prepared:
    """Give what is found out about a tool once; the second time this is an attribute.

    Raises:
        ConfigurationError: the tool has no usable name, schema or ``execute``.
    """
    try:
        return tool._prepared  # noqa: SLF001  # kept there by this function
    except AttributeError:
        made = _prepare(tool)
        object.__setattr__(tool, "_prepared", made)
        return made


class _Renamed(Tool):
    """A tool under another name; in all else it is the one that it stands for."""

    __slots__ = ("_tool", "description", "exclusive", "idempotent", "isolate", "max_result", "name", "timeout")

    def __init__(self, tool: Tool, definition: ToolDefinition) -> None:
        self.name, self.description = definition.name, definition.description
        self.timeout, self.idempotent, self.exclusive = tool.timeout, tool.idempotent, tool.exclusive
        self.max_result, self.isolate = tool.max_result, tool.isolate
        self._tool = tool
        self._prepared = msgspec.structs.replace(prepare(tool), definition=definition)

    @override
    def execute(self, *args: Any, **kwargs: Any) -> Any:
        """Do what the tool does."""
        return self._tool.execute(*args, **kwargs)

    @override
    def get_definition(self) -> ToolDefinition:
        """Give what the model is told."""
        return self._prepared.definition


def renamed(tool: Tool, name: str, description: str) -> Tool:
    """Give a tool under another name and description: its schema, its checks and its options stay.

    Raises:
        ConfigurationError: it is no name for a tool, or the description is no text.
    """
    check_name(name, tool.name)
    check_description(name, description)
    return _Renamed(tool, replace(prepare(tool).definition, name=name, description=description))


def isolated(prepared: Prepared, target: object, *, by_hand: bool) -> Prepared:
    """Prepare a tool for a process of its own.

    Args:
        prepared: what was found out about it.
        target: its function, or its class.
        by_hand: somebody wrote its schema.

    Raises:
        ConfigurationError: another process cannot find it, or cannot give it what it takes.
    """
    from plait.homes import home_of  # most programs need not pay for it

    definition = prepared.definition
    for name, source in prepared.injected:
        if source == "context":
            msg = (
                f"the tool {definition.name!r} cannot be isolated: its parameter {name!r} is a RunContext, whose deps "
                "cannot cross into another process; take user_id, chat_id, agent_name or a Secret instead"
            )
            raise ConfigurationError(msg)
    home = home_of(target, definition.name, definition.parameters if by_hand else None)
    return msgspec.structs.replace(prepared, home=home)


def findable(prepared: Prepared, target: object) -> Prepared:
    """Give what was found out about a tool whose function or class, where it is isolated, stands at its home.

    Raises:
        ConfigurationError: another process would find something else there, or nothing.
    """
    if prepared.home is not None:
        from plait.homes import confirm

        confirm(prepared.home, target, prepared.definition.name)
    return prepared


def in_this_process(tool: Tool, name: str, max_result: int) -> Tool:
    """Give an isolated tool as one that runs here, under another name and without a time limit of its own."""
    here = _Renamed(tool, replace(prepare(tool).definition, name=name))
    here.timeout, here.max_result, here.isolate = inf, max_result, False
    here._prepared = msgspec.structs.replace(here._prepared, home=None)  # noqa: SLF001  # of this module
    return here


class Toolbox(msgspec.Struct, frozen=True, eq=False):
    """The tools of whoever asks a model, and what each request needs to know of them, found out once.

    Attributes:
        tools: the tools by name.
        definitions: what the model is told of them.
        told: whether any of them receives something of the run's context.
    """

    tools: dict[str, Tool]
    definitions: tuple[ToolDefinition, ...]
    told: bool

    @classmethod
    def of(cls, tools: dict[str, Tool]) -> Toolbox:
        """Prepare tools.

        Raises:
            ConfigurationError: one of them has no usable name, schema or ``execute``.
        """
        prepared = [prepare(tool) for tool in tools.values()]
        return cls(tools, tuple([one.definition for one in prepared]), any(one.injected for one in prepared))

    def joined(self, more: Iterable[Tool]) -> Toolbox:
        """Give a toolbox with more tools; those in it stay as they are.

        Raises:
            ConfigurationError: two tools have the same name, or one of them cannot be used.
        """
        tools = dict(self.tools)
        for tool in more:
            if tools.setdefault(tool.name, tool) is not tool:
                raise same_name(tool.name)
        return Toolbox.of(tools)


NO_TOOLS: Final = Toolbox({}, (), told=False)


def same_name(name: str) -> ConfigurationError:
    """Make the error for two tools of one name: neither may take the other's place unseen."""
    return ConfigurationError(f"two tools are named {name!r}; give one of them another name with name='...'")


def _prepare(tool: Tool) -> Prepared:
    check_name(tool.name, type(tool).__name__)
    check_options(tool)
    if type(tool).get_definition is not Tool.get_definition:
        definition: object = tool.get_definition()
        if not isinstance(definition, ToolDefinition):
            msg = f"get_definition of the tool {tool.name!r} gave {type(definition).__name__}, not a ToolDefinition"
            raise ConfigurationError(msg)
        check_switch(tool.name, "strict", definition.strict)
        prepared = by_hand(definition, tool.execute)
        return _isolated_class(tool, prepared, written=True) if tool.isolate else prepared
    schema = msgspec.structs.replace(function_schema(tool.execute, source_of), name=tool.name)
    prepared = by_signature(schema, tool.get_definition(), tool.execute)
    return _isolated_class(tool, prepared, written=False) if tool.isolate else prepared


def _isolated_class(tool: Tool, prepared: Prepared, *, written: bool) -> Prepared:
    kind = type(tool)
    if kind.__init__ is not object.__init__ and len(inspect.signature(kind.__init__).parameters) > 1:
        msg = (
            f"the tool {tool.name!r} cannot be isolated: its class is made anew in another process, where nobody has "
            f"the arguments of {kind.__name__}.__init__; let it take none"
        )
        raise ConfigurationError(msg)
    return findable(isolated(prepared, kind, by_hand=written), kind)


def by_signature(schema: FunctionSchema, definition: ToolDefinition, function: Callable[..., Any]) -> Prepared:
    """Prepare a tool whose schema was read from its function."""
    optional = _optional(function, schema.injected)
    return Prepared(definition, schema.ordinary, schema.validate, schema.injected, optional, kind_of(function))


def by_hand(definition: ToolDefinition, function: Callable[..., Any]) -> Prepared:
    """Prepare a tool whose schema somebody wrote: it is used as it is, and arguments are checked against it.

    Raises:
        ConfigurationError: the schema has no object at its root.
    """
    if definition.parameters.get("type", "object") != "object":
        msg = f"the schema of the tool {definition.name!r} must have an object at its root: {{'type': 'object', ...}}"
        raise ConfigurationError(msg)
    read = list(read_parameters(function, source_of, lenient=True))
    injected = tuple((parameter.name, parameter.source) for parameter in read if parameter.source is not None)
    check = functools.partial(_checked, definition, frozenset(name for name, _ in injected))
    return Prepared(
        definition, definition.parameters, check, injected, _optional(function, injected), kind_of(function)
    )


def _optional(function: Callable[..., Any], injected: Iterable[tuple[str, str]]) -> frozenset[str]:
    names = {name for name, source in injected if source == "secret"}
    if not names:
        return frozenset()
    read = read_parameters(function, source_of, lenient=True)
    return frozenset(parameter.name for parameter in read if parameter.name in names and parameter.optional)


def _checked(definition: ToolDefinition, hidden: frozenset[str], text: str | bytes) -> dict[str, Any]:
    try:
        given = read_json(text) if text and not text.isspace() else {}
    except ValueError as error:
        msg = f"the text of the arguments of {definition.name!r} {error}"
        raise ToolError(msg) from None
    if isinstance(given, dict):
        given = {name: value for name, value in given.items() if name not in hidden}
    schema = {"type": "object", **definition.parameters}
    found = list(islice(faults({} if given is None else given, schema), 5))
    if found:
        msg = f"wrong arguments for {definition.name!r}: {'; '.join(found)}"
        raise ToolError(msg)
    return given if isinstance(given, dict) else {}


def kind_of(function: Callable[..., Any]) -> Kind:
    """Say how a function runs: as a coroutine, as an (async) generator of pieces, or in a thread."""
    code = plain_function(function)
    if inspect.iscoroutinefunction(code):
        return "async"
    if inspect.isasyncgenfunction(code):
        return "async_generator"
    return "generator" if inspect.isgeneratorfunction(code) else "sync"


def source_of(name: str, annotation: Any) -> Source | None:
    """Say what of the run goes into a parameter, or None for one that the model fills.

    Args:
        name: the parameter's name: ``user_id``, ``chat_id``, ``thread_id``, ``agent_name``.
        annotation: its type: `RunContext` or `Secret`, also optional or annotated; text is looked at as text.
    """
    if isinstance(annotation, str):
        found = re.search(_BY_TEXT, annotation)
        by_type: Source | None = None if found is None else "context" if found[1] == "RunContext" else "secret"
    else:
        by_type = _source_of_type(annotation)
    return by_type or _BY_NAME.get(name)


def _source_of_type(annotation: Any) -> Source | None:
    origin = typing.get_origin(annotation)
    if origin in {typing.Union, UnionType}:
        return next(filter(None, map(_source_of_type, typing.get_args(annotation))), None)
    if origin is Annotated:
        return _source_of_type(typing.get_args(annotation)[0])
    kind = origin or annotation
    if not isinstance(kind, type):
        return None
    return "context" if issubclass(kind, RunContext) else "secret" if issubclass(kind, Secret) else None
