"""What an MCP tool gives, as the parts that models take.

======================  ===============================================================================================
content                 becomes
======================  ===============================================================================================
text                    a text part
image, audio            an image or audio part, told by its first bytes; else a placeholder with type and size
resource with text      a text part that begins with the resource's address
resource with a blob    an image, audio, file or text part, by its first bytes; else a placeholder
resource_link           a text part: name, address, type
anything else           a placeholder that names the type
structuredContent       its JSON, unless a text says the same
======================  ===============================================================================================

A placeholder is a text in square brackets. Works on the protocol's plain JSON
(https://modelcontextprotocol.io/specification/2025-11-25/server/tools#tool-result); knows nothing of the SDK.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import TYPE_CHECKING, Any, Final

from plait.errors import ToolError, excerpt
from plait.messages import AudioPart, TextPart, ToolResult
from plait.plain import parse_json
from plait.tool_results import MAX_BINARY, to_parts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from plait.messages import ContentPart

MAX_BLOCKS: Final = 100
"""Pieces of content of one result that are looked at."""
_SOUNDS: Final[Mapping[str, str]] = {
    "audio/mpeg": "audio/mpeg",
    "audio/mp3": "audio/mpeg",
    "audio/wav": "audio/wav",
    "audio/x-wav": "audio/wav",
}


def is_known(block: Any) -> bool:
    """Whether a piece of content is one that the protocol knows, with everything it must have."""
    match block:
        case {"type": "text", "text": str()}:
            return True
        case {"type": "image" | "audio", "data": str(), "mimeType": str()}:
            return True
        case {"type": "resource_link", "uri": str(), "name": str()}:
            return True
        case {"type": "resource", "resource": {"uri": str(), "text": str()} | {"uri": str(), "blob": str()}}:
            return True
        case _:
            return False


def readable(block: Any) -> dict[str, Any]:
    """Give a piece of content with only the fields that are used; one that is not known becomes a placeholder."""
    if not is_known(block):
        kind = block.get("type") if isinstance(block, dict) else None
        shown = f"of the unknown type {excerpt(kind, 40)!r}" if isinstance(kind, str) else "without a type"
        return {"type": "text", "text": f"[content {shown} left out]"}
    if block["type"] != "resource":
        kept = ("type", "text", "data", "mimeType", "uri", "name", "description")
        return {key: block[key] for key in kept if isinstance(block.get(key), str)}
    inner = block["resource"]
    fields = {key: inner[key] for key in ("uri", "mimeType", "text", "blob") if isinstance(inner.get(key), str)}
    return {"type": "resource", "resource": fields}


def to_result(name: str, content: list[Any], structured: Any, most: int, *, is_error: bool) -> ToolResult:
    """Give what a model gets for a tool's result.

    Args:
        name: the tool, as the model knows it.
        content: the pieces, as plain JSON.
        structured: the structured content, None for none.
        most: characters of text; binary data is bounded by `MAX_BINARY` bytes in all.
        is_error: the tool says that it failed.
    """
    parts: list[ContentPart] = []
    room = MAX_BINARY
    for block in content[:MAX_BLOCKS]:
        for part in _parts(block, most, room):
            parts.append(part)
            room -= len(getattr(part, "data", None) or b"")
    if len(content) > MAX_BLOCKS:
        parts.append(TextPart(text=f"[{len(content) - MAX_BLOCKS:,} more pieces of content left out]"))
    if structured is not None and not _is_said(structured, [part.text for part in parts if isinstance(part, TextPart)]):
        parts.append(TextPart(text=json.dumps(structured, ensure_ascii=False, separators=(",", ":"))))
    return ToolResult(call_id="", name=name, parts=parts or (TextPart(text="[no content]"),), is_error=is_error)


def _is_said(structured: Any, texts: list[str]) -> bool:
    """Whether texts say what the structured content says; what is no object is wrapped by many servers as a result."""
    plain = isinstance(structured, dict) and structured.keys() == {"result"}
    forms = [structured, structured["result"]] if plain else [structured]
    read = [_read(text) for text in texts]
    return any(form in read or form in texts or form in (read, texts) for form in forms)


def _read(text: str) -> Any:
    try:
        return parse_json(text)
    except ValueError:
        return text


def _parts(block: Any, most: int, room: int) -> tuple[ContentPart, ...]:
    match readable(block):
        case {"type": "text", "text": text}:
            return (TextPart(text=text),)
        case {"type": "image" | "audio", "data": data} as found:
            return _binary(data, found["mimeType"], most, room)
        case {"type": "resource", "resource": {"uri": uri, "text": text}}:
            return (TextPart(text=f"[resource {excerpt(uri)}]\n{text}"),)
        case {"type": "resource", "resource": {"uri": uri, "blob": data} as found}:
            kind = found.get("mimeType") or "application/octet-stream"
            return (TextPart(text=f"[resource {excerpt(uri)}]"), *_binary(data, kind, most, room))
        case {"name": linked, "uri": uri, **more}:
            said = "".join(f", {excerpt(more[key])}" for key in ("mimeType", "description") if more.get(key))
            return (TextPart(text=f"[link to the resource {excerpt(linked, 100)}: {excerpt(uri)}{said}]"),)
        case _:  # `readable` gives nothing else
            return ()


def _binary(data: str, kind: str, most: int, room: int) -> tuple[ContentPart, ...]:
    shown = excerpt(kind, 60)
    size = len(data) * 3 // 4
    if size > room:
        return (TextPart(text=f"[{shown} of {size:,} bytes left out: at most {MAX_BINARY:,} are taken]"),)
    try:
        raw = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        return (TextPart(text=f"[{shown} left out: its data is no base64]"),)
    try:
        parts = to_parts(raw, most)
    except ToolError:
        parts = ()
    if parts and (kind.startswith(("text/", "application/")) or not isinstance(parts[0], TextPart)):
        return parts
    if kind in _SOUNDS:
        return (AudioPart(data=raw, media_type=_SOUNDS[kind]),)
    return (TextPart(text=f"[{shown} of {len(raw):,} bytes left out: models do not take this type]"),)
