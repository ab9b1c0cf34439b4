"""How OpenAI's chat dialect writes an answer: as one JSON object, or as events. Knows no wire.

https://platform.openai.com/docs/api-reference/chat
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, Protocol

from plait.testing.reply import Asked

if TYPE_CHECKING:
    from plait.testing.reply import Style
    from plait.testing.said import Said

_NEWLINES: Final = ("\n", "\r\n", "\r")
_BOM: Final = b"\xef\xbb\xbf"


class Dialect(Protocol):
    """What a dialect is to the server: another one is another module with these methods."""

    def asked(self, body: Any, *, number: int, url: str) -> Asked:
        """Read a request; ``body`` is its JSON, or None if it was none."""
        ...

    def whole(self, said: Said, asked: Asked) -> bytes:
        """Write an answer in one piece."""
        ...

    def events(self, said: Said, asked: Asked) -> list[bytes]:
        """Write an answer as the data of events, its end mark included."""
        ...

    def frame(self, events: list[bytes], style: Style) -> list[bytes]:
        """Write the events of a stream as they are sent."""
        ...

    def error(self, status: int, message: str) -> bytes:
        """Write an error answer."""
        ...


class ChatDialect:
    """OpenAI's chat dialect."""

    def asked(self, body: Any, *, number: int, url: str) -> Asked:
        """Read a request."""
        said = body if isinstance(body, dict) else {}
        options = said.get("stream_options")
        tools = said.get("tools")
        functions = (
            [tool.get("function") for tool in tools if isinstance(tool, dict)] if isinstance(tools, list) else []
        )
        return Asked(
            model=str(said.get("model", "fault-1")),
            stream=said.get("stream") is True,
            tools=tuple(str(one.get("name")) for one in functions if isinstance(one, dict)),
            usage=isinstance(options, dict) and options.get("include_usage") is True,
            number=number,
            url=url,
        )

    def whole(self, said: Said, asked: Asked) -> bytes:
        """Write an answer in one piece."""
        message: dict[str, Any] = {"role": "assistant", "content": said.text}
        if said.refusal is not None:
            message["refusal"] = said.refusal
        if said.calls:
            message["tool_calls"] = [{**call, "type": "function"} for call in _calls(said, asked)]
        made = _head("chat.completion", asked)
        made["choices"] = [{"index": 0, "message": message, "finish_reason": said.reason}]
        if said.usage is not None:
            made["usage"] = _usage(said.usage)
        return _json(made)

    def events(self, said: Said, asked: Asked) -> list[bytes]:
        """Write an answer as events: the role, the text, the calls, the finish reason, the tokens, ``[DONE]``."""
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": "" if said.text is not None else None}]
        deltas += [{"content": piece} for piece in said.pieces()]
        if said.refusal is not None:
            deltas.append({"refusal": said.refusal})
        for index, call in enumerate(_calls(said, asked)):
            named, text = call["function"]["name"], call["function"]["arguments"]
            begun = {"index": index, "id": call["id"], "type": "function", "function": {"name": named, "arguments": ""}}
            half = (len(text) + 1) // 2
            deltas.append({"tool_calls": [begun]})
            deltas += [
                {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}
                for piece in (text[:half], text[half:])
                if piece
            ]
        made = [chunk(delta, asked=asked) for delta in deltas]
        made.append(chunk({}, said.reason, asked=asked))
        if said.usage is not None and asked.usage:
            made.append(_json({**_head("chat.completion.chunk", asked), "choices": [], "usage": _usage(said.usage)}))
        return [*made, b"[DONE]"]

    def frame(self, events: list[bytes], style: Style) -> list[bytes]:
        """Write server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""
        return [
            (_BOM if style.bom and number == 0 else b"") + _event(data, style, number, last=number == len(events) - 1)
            for number, data in enumerate(events)
        ]

    def error(self, status: int, message: str) -> bytes:
        """Write an error answer."""
        return _json({"error": {"message": message, "type": "fault", "param": None, "code": f"fault_{status}"}})


def chunk(delta: dict[str, Any] | None, finish_reason: str | None = None, *, asked: Asked | None = None) -> bytes:
    """Give the data of one event of the dialect, with one choice."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return _json({**_head("chat.completion.chunk", asked or Asked()), "choices": [choice]})


def _head(kind: str, asked: Asked) -> dict[str, Any]:
    return {"id": f"chatcmpl-{asked.number}", "object": kind, "created": 1_700_000_000, "model": asked.model}


def _usage(tokens: tuple[int, int]) -> dict[str, int]:
    sent, received = tokens
    return {"prompt_tokens": sent, "completion_tokens": received, "total_tokens": sent + received}


def _calls(said: Said, asked: Asked) -> list[dict[str, Any]]:
    first = asked.tools[0] if asked.tools else "tool"
    return [
        {
            "id": f"call_{asked.number}_{number}" if call.id is None else call.id,
            "function": {"name": call.name or first, "arguments": call.text},
        }
        for number, call in enumerate(said.calls)
    ]


def _json(value: object) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # a lone surrogate has no UTF-8; JSON says it escaped
        return json.dumps(value).encode()


def _event(data: bytes, style: Style, number: int, *, last: bool) -> bytes:
    newline = _NEWLINES[number % 3] if style.newline == "mixed" else style.newline
    before = b"data: " if style.space else b"data:"
    lines = [data[:1], data[1:]] if style.lines and data[:1] == b"{" else [data]  # a line end is allowed after "{"
    written = [before + line for line in lines]
    if style.comments:
        written = [b": ping", b"event: chunk", b"id: %d" % number, b"retry: 5", *written, b":", b"unknown: x"]
    ends = newline.encode()
    text = ends.join(written) + ends
    if style.comments:
        text = b"data" + ends * 2 + text  # an event without data
    return text + (b"" if last and not style.last_blank else ends)
