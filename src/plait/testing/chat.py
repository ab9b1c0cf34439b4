"""How OpenAI's chat dialect writes an answer: as one JSON object, or as events. Knows no wire.

https://platform.openai.com/docs/api-reference/chat
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from plait.testing.dialect import MADE_AT, halves, named_calls, names_of, to_json
from plait.testing.framing import server_sent
from plait.testing.reply import Asked

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from plait.testing.reply import DialectName, Style
    from plait.testing.said import Said

DONE: Final = b"[DONE]"
_UNFINISHED: Final = b'"finish_reason": null'
_FINISHED: Final = b'"finish_reason": '


class ChatDialect:
    """OpenAI's chat dialect, which many others speak."""

    name: DialectName = "chat"
    root = "/v1"
    stream_type = "text/event-stream"

    def asked(self, body: Mapping[str, Any]) -> Asked:
        """Read a request."""
        options = body.get("stream_options")
        tools = body.get("tools")
        return Asked(
            model=str(body.get("model", "fault-1")),
            stream=body.get("stream") is True,
            tools=names_of([tool.get("function") for tool in tools if isinstance(tool, dict)] if tools else None),
            usage=isinstance(options, dict) and options.get("include_usage") is True,
        )

    def whole(self, said: Said, asked: Asked) -> bytes:
        """Write an answer in one piece."""
        message: dict[str, Any] = {"role": "assistant", "content": said.text}
        if said.refusal is not None:
            message["refusal"] = said.refusal
        if said.calls:
            message["tool_calls"] = [
                {"id": call.id, "function": {"name": call.name, "arguments": call.text}, "type": "function"}
                for call in named_calls(said, asked)
            ]
        made = _head("chat.completion", asked)
        made["choices"] = [{"index": 0, "message": message, "finish_reason": said.reason}]
        if said.usage is not None:
            made["usage"] = _usage(said.usage)
        return to_json(made)

    def events(self, said: Said, asked: Asked) -> list[bytes]:
        """Write an answer as events: the role, the text, the calls, the finish reason, the tokens, ``[DONE]``."""
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": "" if said.text is not None else None}]
        deltas += [{"content": piece} for piece in said.pieces()]
        if said.refusal is not None:
            deltas.append({"refusal": said.refusal})
        for index, call in enumerate(named_calls(said, asked)):
            function = {"name": call.name, "arguments": ""}
            deltas.append({"tool_calls": [{"index": index, "id": call.id, "type": "function", "function": function}]})
            deltas += [
                {"tool_calls": [{"index": index, "function": {"arguments": piece}}]} for piece in halves(call.text)
            ]
        made = [chunk(delta, asked=asked) for delta in deltas]
        made.append(chunk({}, said.reason, asked=asked))
        if said.usage is not None and asked.usage:
            made.append(to_json({**_head("chat.completion.chunk", asked), "choices": [], "usage": _usage(said.usage)}))
        return [*made, DONE]

    def is_end(self, event: bytes) -> bool:
        """A finish reason is an end mark, and so is ``[DONE]``."""
        return event == DONE or (_FINISHED in event and _UNFINISHED not in event)

    def frame(self, events: Sequence[bytes], style: Style) -> list[bytes]:
        """Write server-sent events."""
        return server_sent(events, style)

    def error(self, status: int, message: str) -> bytes:
        """Write an error answer."""
        return to_json({"error": {"message": message, "type": "fault", "param": None, "code": f"fault_{status}"}})

    def failure(self, code: str, message: str) -> bytes:
        """Write an error in a stream."""
        return to_json({"error": {"message": message, "type": code, "code": None}})


def chunk(delta: dict[str, Any] | None, finish_reason: str | None = None, *, asked: Asked | None = None) -> bytes:
    """Give the data of one event of the dialect, with one choice."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return to_json({**_head("chat.completion.chunk", asked or Asked()), "choices": [choice]})


def _head(kind: str, asked: Asked) -> dict[str, Any]:
    return {"id": f"chatcmpl-{asked.number}", "object": kind, "created": MADE_AT, "model": asked.model}


def _usage(tokens: tuple[int, int]) -> dict[str, int]:
    sent, received = tokens
    return {"prompt_tokens": sent, "completion_tokens": received, "total_tokens": sent + received}
