"""The dialects that are proved, one line each."""

from __future__ import annotations

from typing import Final

from soak.anthropic_subject import ANTHROPIC
from soak.chat_subject import CHAT
from soak.ollama_subject import OLLAMA
from soak.responses_subject import RESPONSES

SUBJECTS: Final = (CHAT, ANTHROPIC, OLLAMA, RESPONSES)
