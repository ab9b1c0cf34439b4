"""Guardrails: callables that pass, change or refuse what goes into a run, comes out of it, or is done by its tools.

Unlike a hook, a check that raises, hangs or returns nonsense refuses, unless ``on_failure="open"`` was chosen. Every
refusal names the check, and none repeats an error's words. Knows nothing of the loop that asks.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, get_args

import msgspec

from plait.callables import Failed, Prepared, prepare
from plait.checks import Ask, Check, InputCheck, OutputCheck, ToolCallCheck, ToolResultCheck, ask
from plait.errors import ConfigurationError, excerpt
from plait.hooks import Veto
from plait.messages import AssistantMessage, Message, SystemMessage, TextPart, ToolCall, ToolResult
from plait.provenance import UNTRUSTED_NOTE, is_tainted, mark, mark_definition, source_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from plait.judge import InjectionJudge
    from plait.providers.base import ToolDefinition
    from plait.run import RunContext
    from plait.toolbase import Tool

logger = logging.getLogger("plait.guardrails")

OnFailure = Literal["closed", "open"]

CHECK_SECONDS: Final = 10.0
APPROVAL_SECONDS: Final = 300.0
"""Seconds for whoever is asked to approve a call; a person may have to be found."""

WITHHELD: Final = "[This answer was withheld by a guardrail.]"
"""What stands in the thread in place of an answer that was refused."""
