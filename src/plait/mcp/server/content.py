"""Parts of messages as content of the Model Context Protocol, and back. Imports the SDK's types.

Knows nothing of calls and connections.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from binascii import Error as NoBase64
from typing import TYPE_CHECKING, Any, Final, Literal, assert_never
from urllib.parse import quote

from mcp_types import (
    AudioContent,
    BlobResourceContents,
    CallToolResult,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    SamplingMessage,
    TextContent,
    TextResourceContents,
)

from plait.errors import ToolError
from plait.messages import AssistantMessage, AudioPart, FilePart, ImagePart, TextPart
from plait.shape import read_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mcp_types import ContentBlock, CreateMessageResult, SamplingMessageContentBlock

    from plait.messages import ContentPart, Message, ToolResult

_SAMPLED_ROLES: Final[Mapping[str, Literal["user", "assistant"]]] = {"user": "user", "assistant": "assistant"}

Contents = TextResourceContents | BlobResourceContents

_TEXT_TYPES: Final = frozenset({"application/json", "application/xml", "application/yaml", "image/svg+xml"})


def fitting(value: Any) -> Any:
    """Give plain JSON data with texts that UTF-8 can carry.

    Two surrogates that are a pair become their character, and one alone U+FFFD. JSON could say it by its escape, as
    `plait.plain.to_json` does for our own readers, but most hosts refuse the whole message for one.
    """
    if isinstance(value, str):
        if value.isascii():
            return value
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, dict):
        return {fitting(key): fitting(item) for key, item in value.items()}
    return [fitting(item) for item in value] if isinstance(value, list | tuple) else value


def to_call_result(result: ToolResult) -> CallToolResult:
    """Give the result of a tool call; text that is a JSON object is also sent as one."""
    return CallToolResult(
        content=[to_content(part) for part in result.parts],
        structured_content=None if result.is_error else _structured(result),
        is_error=result.is_error,
    )


def _structured(result: ToolResult) -> dict[str, Any] | None:
    match result.parts:
        case (TextPart(text=text),) if text.startswith("{"):
            try:
                read = read_json(text)
            except ValueError:  # it only looked like JSON, or was cut
                return None
            return fitting(read) if isinstance(read, dict) else None
    return None


def to_content(part: ContentPart) -> ContentBlock:
    """Give a part as the protocol writes it; a file is an embedded resource, what has only an address a link."""
    match part:
        case TextPart():
            return TextContent(text=part.text)
        case AudioPart():
            return AudioContent(data=_base64(part.data), mime_type=part.media_type)
        case ImagePart(data=bytes(data)):
            return ImageContent(data=_base64(data), mime_type=part.media_type)
        case FilePart(data=bytes(data)):
            uri = part.url or f"attachment:{quote(fitting(part.name or 'file'))}"
            return EmbeddedResource(resource=_contents(data, part.media_type, uri))
        case ImagePart(url=str(url)):
            return ResourceLink(uri=url, name="image", mime_type=part.media_type)
        case FilePart(url=str(url)):
            return ResourceLink(uri=url, name=part.name or "file", mime_type=part.media_type)
        case ImagePart() | FilePart():
            msg = f"the tool returned {part.type!r} without data or url, which an MCP host cannot use"
            raise ToolError(msg)
        case _:
            assert_never(part)


def to_contents(part: ContentPart, uri: str, media_type: str | None) -> Contents:
    """Give a part as what a resource holds.

    Args:
        part: text, or something with data.
        uri: the resource's.
        media_type: the resource's; else the part's own.

    Raises:
        ToolError: the part has only an address.
    """
    if isinstance(part, TextPart):
        return TextResourceContents(uri=uri, mime_type=media_type or "text/plain", text=part.text)
    if part.data is None:
        msg = f"what the resource gave holds no data but only the address of an {part.type}"
        raise ToolError(msg)
    return _contents(part.data, media_type or part.media_type, uri)


def _contents(data: bytes, media_type: str, uri: str) -> Contents:
    kind = media_type.partition(";")[0].strip().lower()
    if kind.startswith("text/") or kind in _TEXT_TYPES or kind.endswith("+json"):
        try:
            return TextResourceContents(uri=uri, mime_type=media_type, text=data.decode())
        except UnicodeDecodeError:
            pass  # it is not what it says; its bytes are still what they are
    return BlobResourceContents(uri=uri, mime_type=media_type, blob=_base64(data))


def _base64(data: bytes) -> str:
    return b64encode(data).decode("ascii")


def to_sampling(message: Message) -> SamplingMessage:
    """Give a message as a host's model can be asked with it.

    Raises:
        ToolError: it is no user's or assistant's, or holds something other than text, images and sound.
    """
    if message.role not in _SAMPLED_ROLES:
        msg = f"the model of an MCP host takes what users and assistants say, not {message.role!r} messages"
        raise ToolError(msg)
    blocks: list[SamplingMessageContentBlock] = []
    for part in message.parts:
        block: object = None
        if isinstance(part, TextPart):
            block = TextContent(text=fitting(part.text))
        elif isinstance(part, AudioPart | ImagePart):
            block = to_content(part)
        if not isinstance(block, TextContent | ImageContent | AudioContent):
            msg = f"the model of an MCP host takes text, images and sound with their data, not {part.type!r}"
            raise ToolError(msg)
        blocks.append(block)
    return SamplingMessage(role=_SAMPLED_ROLES[message.role], content=blocks[0] if len(blocks) == 1 else blocks)


def sampled(answer: CreateMessageResult) -> AssistantMessage:
    """Give what a host's model answered.

    Raises:
        ToolError: its data is no base64.
    """
    content = answer.content
    part: ContentPart
    try:
        match content:
            case TextContent():
                part = TextPart(text=content.text)
            case ImageContent():
                part = ImagePart(data=b64decode(content.data, validate=True), media_type=content.mime_type)
            case AudioContent():
                part = AudioPart(data=b64decode(content.data, validate=True), media_type=content.mime_type)
            case _:
                assert_never(content)
    except NoBase64:
        msg = f"the MCP host's model answered with {content.type!r} whose data is no base64"
        raise ToolError(msg) from None
    return AssistantMessage(parts=(part,), model=answer.model)
