"""An MCP server with all that the official conformance suite asks for, made of what plait offers everybody.

Run it as ``python conformance_server.py [port]``. What each tool, prompt and resource must be is said in the suite:
https://github.com/modelcontextprotocol/conformance.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys

from plait import AudioPart, FilePart, ImagePart, TextPart, ToolError
from plait.mcp.server import MCPServer, mcp_host

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg=="
)
WAV = b"RIFF$\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0@\x1f\0\0@\x1f\0\0\x01\0\x08\0data\0\0\0\0"
PAUSE = 0.05  # seconds, as the suite asks for

server = MCPServer("plait conformance", "Has everything the conformance suite asks for.", version="1.0.0")


# --- tools: results


@server.add_tool
def test_simple_text() -> str:
    """Give a simple text."""
    return "This is a simple text response for testing."


@server.add_tool
def test_image_content() -> ImagePart:
    """Give an image."""
    return ImagePart(data=PNG, media_type="image/png")


@server.add_tool
def test_audio_content() -> AudioPart:
    """Give a sound."""
    return AudioPart(data=WAV, media_type="audio/wav")


@server.add_tool
def test_embedded_resource() -> FilePart:
    """Give an embedded resource."""
    text = b"This is an embedded resource content."
    return FilePart(data=text, url="test://embedded-resource", media_type="text/plain")


@server.add_tool
def test_multiple_content_types() -> list[TextPart | ImagePart | FilePart]:
    """Give a text, an image and an embedded resource."""
    data = json.dumps({"test": "data", "value": 123}).encode()
    return [
        TextPart(text="Multiple content types test:"),
        ImagePart(data=PNG, media_type="image/png"),
        FilePart(data=data, url="test://mixed-content-resource", media_type="application/json"),
    ]


@server.add_tool
def test_error_handling() -> str:
    """Go wrong."""
    msg = "This tool intentionally returns an error for testing"
    raise ToolError(msg)


# --- tools: talking to the host


@server.add_tool
async def test_tool_with_logging() -> str:
    """Send three log records."""
    host = mcp_host()
    assert host is not None
    await host.log("Tool execution started")
    await asyncio.sleep(PAUSE)
    await host.log("Tool processing data")
    await asyncio.sleep(PAUSE)
    await host.log("Tool execution completed")
    return "Three log records were sent."


@server.add_tool
async def test_tool_with_progress() -> str:
    """Report progress three times."""
    host = mcp_host()
    assert host is not None
    for done in (0, 50, 100):
        await host.report_progress(done, 100)
        await asyncio.sleep(PAUSE)
    return "Progress was reported three times."


@server.add_tool
async def test_sampling(prompt: str) -> str:
    """Ask the host's model.

    Args:
        prompt: what to ask.
    """
    host = mcp_host()
    assert host is not None
    answer = await host.sample(prompt, max_tokens=100)
    return f"LLM response: {answer.text}"


async def _ask(message: str, properties: dict[str, object], required: list[str] | None = None) -> str:
    host = mcp_host()
    assert host is not None
    form: dict[str, object] = {"type": "object", "properties": properties}
    answer = await host.elicit(message, form if required is None else {**form, "required": required})
    return f"action={answer.action}, content={json.dumps(dict(answer.values))}"


@server.add_tool
async def test_elicitation(message: str) -> str:
    """Ask the person at the host.

    Args:
        message: what to ask.
    """
    properties: dict[str, object] = {
        "username": {"type": "string", "description": "User's response"},
        "email": {"type": "string", "description": "User's email address"},
    }
    return f"User response: {await _ask(message, properties, ['username', 'email'])}"


@server.add_tool
async def test_elicitation_sep1034_defaults() -> str:
    """Ask the person with a form that has defaults."""
    properties: dict[str, object] = {
        "name": {"type": "string", "default": "John Doe"},
        "age": {"type": "integer", "default": 30},
        "score": {"type": "number", "default": 95.5},
        "status": {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
        "verified": {"type": "boolean", "default": True},
    }
    return f"Elicitation completed: {await _ask('Who are you?', properties)}"


@server.add_tool
async def test_elicitation_sep1330_enums() -> str:
    """Ask the person with a form that has every kind of choice."""
    options = ["option1", "option2", "option3"]
    titled = [
        {"const": "value1", "title": "First Option"},
        {"const": "value2", "title": "Second Option"},
        {"const": "value3", "title": "Third Option"},
    ]
    properties: dict[str, object] = {
        "untitledSingle": {"type": "string", "enum": options},
        "titledSingle": {"type": "string", "oneOf": titled},
        "legacyEnum": {
            "type": "string",
            "enum": ["opt1", "opt2", "opt3"],
            "enumNames": ["Option One", "Option Two", "Option Three"],
        },
        "untitledMulti": {"type": "array", "items": {"type": "string", "enum": options}},
        "titledMulti": {"type": "array", "items": {"anyOf": titled}},
    }
    return f"Elicitation completed: {await _ask('Choose.', properties)}"


server.add_tool(
    {
        "name": "json_schema_2020_12_tool",
        "description": "Tool with JSON Schema 2020-12 features",
        "function_schema": {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "$defs": {
                "address": {
                    "type": "object",
                    "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
                }
            },
            "properties": {"name": {"type": "string"}, "address": {"$ref": "#/$defs/address"}},
            "additionalProperties": False,
        },
        "func": lambda name="", address=None: f"{name}: {address}",
    }
)


# --- resources


@server.resource("test://static-text", media_type="text/plain")
def static_text() -> str:
    """A text that never changes."""
    return "This is the content of the static text resource."


@server.resource("test://static-binary", media_type="image/png")
def static_binary() -> bytes:
    """An image that never changes."""
    return PNG


@server.resource("test://template/{id}/data", name="template_data", media_type="application/json")
def template_data(id: str) -> str:  # noqa: A002  # the suite's name
    """Data for an id."""
    return json.dumps({"id": id, "templateTest": True, "data": f"Data for ID: {id}"})


@server.resource("test://watched-resource", media_type="text/plain")
def watched_resource() -> str:
    """A text that hosts may subscribe to."""
    return "Watched resource content."


# --- prompts


@server.prompt
def test_simple_prompt() -> str:
    """Say one thing."""
    return "This is a simple prompt for testing."


@server.prompt
def test_prompt_with_arguments(arg1: str, arg2: str) -> str:
    """Say what the arguments are.

    Args:
        arg1: First test argument
        arg2: Second test argument
    """
    return f"Prompt with arguments: arg1='{arg1}', arg2='{arg2}'"


@server.prompt
def test_prompt_with_embedded_resource(resourceUri: str) -> list[FilePart | TextPart]:  # noqa: N803  # the suite's name
    """Say something about a resource.

    Args:
        resourceUri: URI of the resource to embed
    """
    return [
        FilePart(data=b"Embedded resource content for testing.", url=resourceUri, media_type="text/plain"),
        TextPart(text="Please process the embedded resource above."),
    ]


@server.prompt
def test_prompt_with_image() -> list[ImagePart | TextPart]:
    """Say something about an image."""
    return [ImagePart(data=PNG, media_type="image/png"), TextPart(text="Please analyze the image above.")]


if __name__ == "__main__":
    server.run(transport="http", port=int(sys.argv[1]) if len(sys.argv) > 1 else 0)
