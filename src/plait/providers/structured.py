"""How a model is asked for an answer of a type: by a schema of the provider's own, by a tool, or in the prompt.

Owns which of these modes a model can do, and what a request becomes in each. An answer is text in all of them (what a
tool was called with is read as text by `plait.providers.reading`), so all that comes after is the same. Pure; knows no
dialect.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from plait.errors import ConfigurationError
from plait.messages import SystemMessage, TextPart
from plait.plain import to_json
from plait.providers.base import ToolDefinition
from plait.providers.wire import Recent

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from plait.messages import Message
    from plait.plain import FrozenDict
    from plait.providers.base import OutputMode, Request, Settings
    from plait.schema import OutputSchema

# What models can do, as their names begin; whatever is not said here can do all that its provider can.
_MODELS: Final[tuple[tuple[str, tuple[OutputMode, ...]], ...]] = (
    # https://platform.openai.com/docs/guides/structured-outputs: gpt-4o-2024-08-06 and newer enforce a schema.
    (r"o1-(mini|preview)", ("prompt",)),
    (r"gpt-3\.?5|gpt-4(-|$)|gpt-4o-2024-05-13|gpt-4o(-mini)?-audio|gpt-audio|chatgpt-4o", ("tool", "prompt")),
    # https://platform.claude.com/docs/en/build-with-claude/structured-outputs: 4.1, 4.5 and newer enforce a schema.
    (r"claude-(instant|v?2)", ("prompt",)),
    (r"claude-3|claude-(opus|sonnet)-4(-0|[-@]\d{8}|$)", ("tool", "prompt")),
    # These think unless they are told not to, or always, and a model that thinks cannot be made to call a tool.
    (r"claude-[a-z]+-([5-9]|preview)", ("native", "prompt")),
)

_BESIDE_TOOLS: Final = r"gpt-(?!oss)|chatgpt|o\d|claude"
"""Models that call tools although a schema is enforced. Where every token is held to the schema none can be called, as
with Ollama (https://github.com/ollama/ollama/issues/13750) and vLLM (https://github.com/vllm-project/vllm/issues/39929).
"""

_TOOL: Final = "Gives the final answer. Call it once, when there is nothing left to find out or to do."
_PROMPT: Final = (
    "Your final answer is one JSON object that fits the JSON Schema below. Write this object alone, with no other "
    "words before or after it."
)
_LONGEST_NAME: Final = 64


class Asking:
    """Asks one model for answers of a type."""

    __slots__ = ("_beside_tools", "_kept", "_model", "_modes", "_provider")

    def __init__(self, provider: str, model: str, modes: tuple[OutputMode, ...]) -> None:
        """Say who is asked.

        Args:
            provider: the vendor's name.
            model: the model's name.
            modes: what the vendor can do, best first.
        """
        can = _modes_of(model)
        self._beside_tools = re.match(_BESIDE_TOOLS, _bare(model)) is not None
        self._provider = provider
        self._model = model
        self._modes = tuple(mode for mode in modes if mode in can)
        self._kept: Recent[Any] = Recent()

    @property
    def native(self) -> bool:
        """Whether the model can be held to a schema: that of an answer, or that of a tool."""
        return "native" in self._modes

    def form(
        self, request: Request, output: OutputSchema[Any], enforces: Callable[[OutputSchema[Any]], bool]
    ) -> tuple[Request, str | None]:
        """Give the request to send, and the name of the tool whose arguments are the answer, if one is.

        Args:
            request: what is asked for.
            output: the type of the answer.
            enforces: says whether the dialect can have a very schema enforced; asked once for each.

        Raises:
            ConfigurationError: the mode that the settings ask for, or any mode, is none that the model can do.
        """
        mode = self._mode(request, output, enforces)
        if mode == "native":
            return request, None
        if mode == "prompt":
            first = request.messages[0] if request.messages and request.messages[0].role == "system" else None
            told = self._kept.get((output, first), lambda: _told(first, output))
            rest = request.messages[1:] if first is not None else request.messages
            earlier = request.earlier + (first is None)
            return replace(request, messages=[told, *rest], output=None, earlier=earlier), None
        tools, settings = request.tools, request.settings
        offered, chosen = self._kept.get((output, settings, *tools), lambda: _offered(tools, settings, output))
        return replace(request, tools=offered, settings=chosen, output=None), offered[-1].name

    def _mode(
        self, request: Request, output: OutputSchema[Any], enforces: Callable[[OutputSchema[Any]], bool]
    ) -> OutputMode:
        settings = request.settings
        wanted, can, why = settings.output_mode, self._modes, ""
        if "tool" in can and _thinks(self._model, settings.extra):
            can, why = tuple(mode for mode in can if mode != "tool"), " while it thinks"
        if wanted is None:
            calls = bool(request.tools) and settings.tool_choice != "none"
            for mode in sorted(can, key="native".__eq__) if calls and not self._beside_tools else can:
                if mode != "native" or self._kept.get((output,), lambda: enforces(output)):
                    return mode
        elif wanted in can:
            return wanted
        what = "an output type" if wanted is None else f"output_mode={wanted!r}"
        msg = f"model {self._model!r} of {self._provider!r} cannot do {what}{why}"
        raise ConfigurationError(f"{msg}; it can do {' and '.join(map(repr, can))}" if can else msg)


def _bare(model: str) -> str:
    return model.lower().removeprefix("ft:").rpartition("/")[2]


def _modes_of(model: str) -> tuple[OutputMode, ...]:
    """Give what a model can do, whoever serves it: ``openai/gpt-4o``, ``ft:gpt-4o:mine`` and ``gpt-4o`` are one."""
    name = _bare(model)
    found = next((can for pattern, can in _MODELS if re.match(pattern, name)), ("native", "tool", "prompt"))
    return tuple(mode for mode in found if mode != "tool") if name.endswith(":thinking") else found


def _thinks(model: str, extra: FrozenDict) -> bool:
    """Whether a model is asked to think in a way that forbids to force a tool.

    Anthropic refuses such a request (https://platform.claude.com/docs/en/build-with-claude/extended-thinking), and so
    do others that have the same field; OpenRouter drops the thinking of Claude.
    """
    asked = [extra.get("thinking"), extra.get("reasoning") if "claude" in model.lower() else None]
    return any(one and not (_is_off(one) if isinstance(one, dict) else False) for one in asked)


def _is_off(said: dict[str, Any]) -> bool:
    return said.get("type") == "disabled" or said.get("enabled") is False or said.get("effort") == "none"


def _told(first: Message | None, output: OutputSchema[Any]) -> SystemMessage | Message:
    """Give the system message with what the answer must be: the same words, whatever was asked before."""
    said = f"{_PROMPT}\n\n{to_json(output.schema).decode()}"
    if first is None:
        return SystemMessage(text=said)
    *before, last = first.parts or (TextPart(text=""),)
    if type(last) is not TextPart:
        return first.model_copy(update={"parts": (*before, last, TextPart(text=said))})
    # In the text itself, not after it: servers take system text in one piece, and a mark for the cache stays last.
    longer = last.model_copy(update={"text": f"{last.text}\n\n{said}".lstrip("\n")})
    return first.model_copy(update={"parts": (*before, longer)})


def _offered(
    tools: Sequence[ToolDefinition], settings: Settings, output: OutputSchema[Any]
) -> tuple[tuple[ToolDefinition, ...], Settings]:
    """Give the tools, at their end the one that takes the answer, and the settings that make a model call it."""
    taken = {tool.name for tool in tools}
    name, number = output.name, 1
    while name in taken:
        number += 1
        name = f"{output.name[: _LONGEST_NAME - len(str(number)) - 1]}_{number}"
    description = f"{_TOOL}\n\n{output.description}" if output.description else _TOOL
    answer = ToolDefinition(name=name, description=description, parameters=output.schema, strict=output.strict)
    choice = settings.tool_choice
    if choice not in taken:
        choice = "required" if tools and choice != "none" else name
    return (*tools, answer), replace(settings, tool_choice=choice)
