"""How Ollama's own chat is written: as one JSON object, or as a line of JSON for each piece. Knows no wire.

https://github.com/ollama/ollama/blob/main/docs/api.md#generate-a-chat-completion
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from plait.testing.dialect import json_value, named_calls, names_of, to_json
from plait.testing.framing import json_lines
from plait.testing.reply import Asked

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from plait.testing.dialect import NamedCall
    from plait.testing.reply import DialectName, Style
    from plait.testing.said import Said

_MADE_AT: Final = "2023-11-14T22:13:20.000000Z"
_REASONS: Final = {"tool_calls": "stop"}


class OllamaDialect:
    """Ollama's own chat: arguments are objects, each call comes whole, and nothing is ever refused."""

    name: DialectName = "ollama"
    root = ""
    stream_type = "application/x-ndjson"

    def asked(self, body: Mapping[str, Any]) -> Asked:
        """Read a request; whoever says nothing of a stream gets one."""
        tools = body.get("tools")
        return Asked(
            model=str(body.get("model", "fault-1")),
            stream=body.get("stream") is not False,
            tools=names_of([tool.get("function") for tool in tools if isinstance(tool, dict)] if tools else None),
        )

    def whole(self, said: Said, asked: Asked) -> bytes:
        """Write an answer in one piece."""
        said = _spoken(said)
        message: dict[str, Any] = {"role": "assistant", "content": "" if said.calls else None}
        if said.text is not None:
            message["content"] = said.text
        if said.calls:
            message["tool_calls"] = [tool_call(n, call) for n, call in enumerate(named_calls(said, asked))]
        return line(message, asked, **_end(said))

    def events(self, said: Said, asked: Asked) -> list[bytes]:
        """Write an answer as lines: the text in pieces, each call whole, and the end with the tokens."""
        said = _spoken(said)
        made = [line({"role": "assistant", "content": piece}, asked) for piece in said.pieces()]
        for number, call in enumerate(named_calls(said, asked)):
            made.append(line({"role": "assistant", "content": "", "tool_calls": [tool_call(number, call)]}, asked))
        nothing = None if said.text is None and not said.calls else ""
        return [*made, line({"role": "assistant", "content": nothing}, asked, **_end(said))]

    def is_end(self, event: bytes) -> bool:
        """The line that is done."""
        return b'"done": true' in event

    def frame(self, events: Sequence[bytes], style: Style) -> list[bytes]:
        """Write lines of JSON."""
        return json_lines(events, style)

    def error(self, status: int, message: str) -> bytes:
        """Write an error answer, which has no place for a status."""
        del status
        return to_json({"error": message})

    def failure(self, code: str, message: str) -> bytes:
        """Write an error in a stream, which has no place for a code."""
        del code
        return to_json({"error": message})


def line(message: Mapping[str, object] | None, asked: Asked, *, done: bool = False, **fields: object) -> bytes:
    """Give one line of the dialect."""
    return to_json({"model": asked.model, "created_at": _MADE_AT, "message": message, "done": done, **fields})


def tool_call(number: int, call: NamedCall) -> dict[str, Any]:
    """Give a call as the dialect writes it."""
    function = {"index": number, "name": call.name, "arguments": json_value(call.text)}
    return {"id": call.id, "function": function}


def _spoken(said: Said) -> Said:
    """A model of Ollama's has no other words to decline with than its text."""
    if said.refusal is None:
        return said
    return replace(said, text=(said.text or "") + said.refusal, refusal=None)


def _end(said: Said) -> dict[str, Any]:
    made: dict[str, Any] = {"done": True}
    if said.reason is not None:
        made["done_reason"] = _REASONS.get(said.reason, said.reason)
    made |= {"total_duration": 3_000_000, "load_duration": 1_000_000}
    if said.usage is not None:
        sent, received = said.usage
        made |= {"prompt_eval_count": sent, "prompt_eval_duration": 1_000_000}
        made |= {"eval_count": received, "eval_duration": 1_000_000}
    return made
