"""What an MCP server offers: tools by name, prompts by name, resources by address.

Prompts and resources are functions carried out as tools are, so that they have the same checks, threads and time-outs.
Knows nothing of the protocol, but for the form of resource addresses, which is the SDK's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from plait.errors import ConfigurationError, excerpt
from plait.signatures import read_parameters
from plait.toolbase import prepare, source_of
from plait.tools import as_tool, find_tools

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mcp.shared.uri_template import UriTemplate

    from plait.toolbase import Tool
    from plait.tools import ToolForm

MAX_TEXT: Final = 4_000_000
"""Characters of one prompt or resource."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Argument:
    """An argument of a prompt or a resource's address.

    Attributes:
        name: its name.
        description: what it is for.
        required: whether it must be given.
        choices: the only values there are; empty when there are others.
    """

    name: str
    description: str
    required: bool
    choices: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A prompt that a person at a host can choose.

    Attributes:
        tool: makes it.
        arguments: what it is made from.
    """

    tool: Tool
    arguments: tuple[Argument, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """Something to read at an address.

    Attributes:
        tool: reads it.
        uri: the address, or the template of addresses.
        template: how to tell the arguments from an address; None where there is only one address.
        arguments: what the template names.
        media_type: of what is read; None where it shows itself.
    """

    tool: Tool
    uri: str
    template: UriTemplate | None
    arguments: tuple[Argument, ...]
    media_type: str | None


class Offer:
    """What one server offers; it may grow while hosts are connected."""

    def __init__(self) -> None:
        self.tools: dict[str, Tool] = {}
        self.prompts: dict[str, Prompt] = {}
        self.resources: dict[str, Resource] = {}

    def add_tools(self, forms: Iterable[str | ToolForm]) -> list[Tool]:
        """Add tools, all or none.

        Raises:
            ConfigurationError: one of them is no tool, or its name is taken by another.
        """
        found = find_tools(forms)
        for name, tool in found.items():
            if self.tools.get(name, tool) is not tool:
                msg = f"the server has another tool named {name!r}; give one of them another name with name='...'"
                raise ConfigurationError(msg)
        self.tools |= found
        return list(found.values())

    def add_prompt(self, function: Callable[..., Any], name: str | None, description: str | None) -> None:
        """Add a prompt.

        Raises:
            ConfigurationError: the function cannot be one, or the name is taken.
        """
        tool = _reader(function, name, description)
        if tool.name in self.prompts:
            msg = f"the server has another prompt named {tool.name!r}; give one of them another name with name='...'"
            raise ConfigurationError(msg)
        self.prompts[tool.name] = Prompt(tool=tool, arguments=_arguments(function, tool))

    def add_resource(
        self,
        uri: str,
        function: Callable[..., Any],
        name: str | None,
        description: str | None,
        media_type: str | None,
    ) -> None:
        """Add a resource, or a family of them where the address holds names in braces.

        Raises:
            ConfigurationError: the function cannot read it, the address is no template, or is taken.
        """
        from mcp.shared.uri_template import InvalidUriTemplate, UriTemplate

        try:
            template = UriTemplate.parse(uri)
        except InvalidUriTemplate as error:
            msg = f"{excerpt(uri)!r} is no template of addresses (RFC 6570): {excerpt(str(error))}"
            raise ConfigurationError(msg) from None
        tool = _reader(function, name, description)
        arguments = _arguments(function, tool)
        named, taken = set(template.variable_names), {argument.name for argument in arguments}
        missing = {argument.name for argument in arguments if argument.required} - named
        if named - taken or missing:
            lacking = ", ".join(sorted((named - taken) | missing))
            msg = f"the resource {excerpt(uri)!r} and the parameters of {tool.name!r} do not agree about: {lacking}"
            raise ConfigurationError(msg)
        if uri in self.resources:
            msg = f"the server has another resource at {excerpt(uri)!r}"
            raise ConfigurationError(msg)
        self.resources[uri] = Resource(
            tool=tool, uri=uri, template=template if named else None, arguments=arguments, media_type=media_type
        )


def _reader(function: Callable[..., Any], name: str | None, description: str | None) -> Tool:
    form: dict[str, Any] = {"func": function, "max_result": MAX_TEXT}
    if name is not None:
        form["name"] = name
    if description is not None:
        form["description"] = description
    return as_tool(form)


def _arguments(function: Callable[..., Any], tool: Tool) -> tuple[Argument, ...]:
    properties: dict[str, Any] = prepare(tool).definition.parameters.get("properties", {})
    return tuple(
        Argument(
            name=parameter.name,
            description=properties.get(parameter.name, {}).get("description", ""),
            required=not parameter.optional,
            choices=tuple(_choices(properties.get(parameter.name, {}))),
        )
        for parameter in read_parameters(function, source_of)
        if parameter.source is None
    )


def _choices(schema: dict[str, Any]) -> list[str]:
    named = [*schema.get("enum", ()), *([schema["const"]] if "const" in schema else ())]
    inner = [choice for other in schema.get("anyOf", ()) for choice in _choices(other)]
    return [choice for choice in (*named, *inner) if isinstance(choice, str)]
