"""The dialects a server speaks, and which one a request is in."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from plait.testing.anthropic import AnthropicDialect
from plait.testing.chat import ChatDialect
from plait.testing.ollama import OllamaDialect
from plait.testing.responses import ResponsesDialect

if TYPE_CHECKING:
    from collections.abc import Mapping

    from plait.testing.dialect import Dialect
    from plait.testing.reply import DialectName

DIALECTS: Final[Mapping[DialectName, Dialect]] = MappingProxyType(
    {
        "chat": ChatDialect(),
        "anthropic": AnthropicDialect(),
        "ollama": OllamaDialect(),
        "responses": ResponsesDialect(),
    }
)
"""Every dialect by its name."""

_PATHS: Final[tuple[tuple[str, DialectName], ...]] = (
    ("/messages", "anthropic"),
    ("/api/chat", "ollama"),
    ("/responses", "responses"),
)


def dialect_of(path: str) -> Dialect:
    """Give the dialect in which a path is asked; what no other knows is OpenAI's chat."""
    asked = path.partition("?")[0].rstrip("/")
    return DIALECTS[next((name for ending, name in _PATHS if asked.endswith(ending)), "chat")]
