"""Messages and their parts: what people, models and tools say, as read-only values.

Knows nothing of wire formats (providers), of ids and order (the log), or of how an answer arrives (events).
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final, Literal, Self
from weakref import WeakValueDictionary

from pydantic import Field, PlainSerializer, WrapValidator

from plait.errors import ConfigurationError
from plait.frozen import EMPTY, Frozen, JsonObject

Role = Literal["system", "user", "assistant", "tool"]


class TextPart(Frozen):
    """Text. ``refusal`` marks the words with which a model declined to answer."""

    type: Literal["text"] = "text"
    text: str
    refusal: bool = False


class ReasoningPart(Frozen):
    """What a model thought. ``details`` holds signatures and encrypted forms, which go back unchanged."""

    type: Literal["reasoning"] = "reasoning"
    text: str = ""
    details: JsonObject = EMPTY


class ToolCall(Frozen):
    """A model's wish to call a tool. ``arguments`` is the model's own text, normally a JSON object."""

    type: Literal["tool_call"] = "tool_call"
    id: str
    name: str
    arguments: str = ""


class ImagePart(Frozen):
    """An image: a ``url``, or ``data`` (bytes) with its ``media_type``. ``detail`` is OpenAI's low, high or auto."""

    type: Literal["image"] = "image"
    url: str | None = None
    data: bytes | None = None
    media_type: str = "image/png"
    detail: Literal["low", "high", "auto"] | None = None


class AudioPart(Frozen):
    """Sound: ``data`` (bytes) with its ``media_type``."""

    type: Literal["audio"] = "audio"
    data: bytes
    media_type: str = "audio/wav"


class FilePart(Frozen):
    """A document: ``data`` (bytes) with its ``media_type``, a ``url``, or the ``file_id`` a provider gave it."""

    type: Literal["file"] = "file"
    data: bytes | None = None
    url: str | None = None
    file_id: str | None = None
    name: str | None = None
    media_type: str = "application/pdf"


ContentPart = Annotated[TextPart | ImagePart | AudioPart | FilePart, Field(discriminator="type")]


class ToolResult(Frozen):
    """What a tool call gave. ``ToolResult(call_id=..., text="...")`` is shorthand for one text part."""

    type: Literal["tool_result"] = "tool_result"
    call_id: str
    name: str = ""
    parts: tuple[ContentPart, ...] = ()
    is_error: bool = False

    def __init__(self, /, *, text: str | None = None, **fields: Any) -> None:
        if text is not None:
            fields["parts"] = (TextPart(text=text), *fields.get("parts", ()))
        super().__init__(**fields)

    @property
    def text(self) -> str:
        """The text parts, joined."""
        return _text(self.parts)


Part = Annotated[
    TextPart | ReasoningPart | ToolCall | ToolResult | ImagePart | AudioPart | FilePart, Field(discriminator="type")
]


def _text(parts: tuple[Any, ...]) -> str:
    if len(parts) == 1 and type(parts[0]) is TextPart:
        return "" if parts[0].refusal else parts[0].text
    return "".join(part.text for part in parts if type(part) is TextPart and not part.refusal)


class Message(Frozen):
    """One message of a thread: a role, parts, and a free ``metadata`` mapping.

    ``Message(text="hi")`` is shorthand for one text part. Subclass it to add fields: the JSON then carries
    ``class_`` (the class's name, or ``class Mine(Message, class_name="...")``), and where the class is not
    known, loading gives a `Message` that keeps the extra fields and writes them back unchanged.

    Raises:
        ConfigurationError: a field is unknown or has the wrong type.
    """

    role: Role = "user"
    parts: tuple[Part, ...] = ()
    metadata: JsonObject = EMPTY

    _class_name: ClassVar[str] = "Message"

    def __init__(self, /, *, text: str | None = None, **fields: Any) -> None:
        if text is not None:
            if type(text) is not str:
                msg = f"{type(self).__name__}(text=...) takes a str, not {type(text).__name__}"
                raise ConfigurationError(msg)
            fields["parts"] = (TextPart(text=text), *fields.get("parts", ()))
        super().__init__(**fields)

    def __init_subclass__(cls, *, class_name: str | None = None, **options: Any) -> None:
        super().__init_subclass__(**options)
        name = class_name or cls.__name__
        known = _CLASSES.get(name)
        if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            msg = (
                f"two message classes are named {name!r}: {known.__module__}.{known.__qualname__} and "
                f"{cls.__module__}.{cls.__qualname__}; give one of them class_name='...'"
            )
            raise ConfigurationError(msg)
        cls._class_name = name
        _CLASSES[name] = cls

    @property
    def class_(self) -> str:
        """The name of this message's class in JSON."""
        return self._class_name

    @property
    def text(self) -> str:
        """The text parts, joined; a refusal is no text (see `refusal`)."""
        return _text(self.parts)

    @property
    def refusal(self) -> str:
        """The words with which the model declined to answer, or the empty string."""
        return "".join(part.text for part in self.parts if type(part) is TextPart and part.refusal)

    @property
    def reasoning(self) -> str:
        """The reasoning parts, joined."""
        return "".join(part.text for part in self.parts if type(part) is ReasoningPart)

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The tool calls, in the model's order."""
        return tuple(part for part in self.parts if type(part) is ToolCall)

    @property
    def tool_results(self) -> tuple[ToolResult, ...]:
        """The tool results, in the order of their calls."""
        return tuple(part for part in self.parts if type(part) is ToolResult)

    def __str__(self) -> str:
        return self.text

    def __repr_args__(self) -> Any:
        for name, value in super().__repr_args__():
            plain = name == "parts" and len(value) == 1 and value[0] == TextPart(text=value[0].__dict__.get("text", ""))
            yield ("text", value[0].text) if plain else (name, value)

    def to_json(self) -> dict[str, Any]:
        """Give this message as plain JSON data: ``class_`` and every field that differs from its default."""
        return {"class_": self.class_, **super().to_json()}

    @staticmethod
    def from_json(data: Any) -> Message:
        """Read what `to_json` gave; a class that is not known here gives a `Message` with the same content.

        Raises:
            ConfigurationError: the data is no message.
        """
        if not isinstance(data, dict):
            msg = f"a message is a JSON object, not {type(data).__name__}"
            raise ConfigurationError(msg)
        fields = {key: value for key, value in data.items() if key != "class_"}
        name = data.get("class_", "Message")
        known = Message if name == "Message" else _CLASSES.get(name)
        return _UnknownMessage.restore(name, fields) if known is None else known(**fields)


_CLASSES: Final[WeakValueDictionary[str, type[Message]]] = WeakValueDictionary()


class UserMessage(Message):
    """What a person said."""

    role: Role = "user"


class SystemMessage(Message):
    """Instructions for the model."""

    role: Role = "system"


class AssistantMessage(Message):
    """What a model answered, and which: ``details`` holds the provider's own fields, which go back unchanged."""

    role: Role = "assistant"
    provider: str | None = None
    model: str | None = None
    details: JsonObject = EMPTY


class ToolMessage(Message):
    """The results of one turn's tool calls, in the order of the calls."""

    role: Role = "tool"


class _UnknownMessage(Message):
    """A message whose class this process does not know: its extra fields are kept and written back."""

    unknown_class: str
    extra: JsonObject = EMPTY

    @classmethod
    def restore(cls, name: str, fields: dict[str, Any]) -> Self:
        own = {key: fields[key] for key in Message.model_fields if key in fields}
        extra = {key: value for key, value in fields.items() if key not in own}
        return cls(**own, unknown_class=name, extra=extra)

    @property
    def class_(self) -> str:
        return self.unknown_class

    def to_json(self) -> dict[str, Any]:
        data = super().to_json()
        extra = data.pop("extra", {})
        del data["unknown_class"]
        return {**data, **extra}

    def __repr_name__(self) -> str:
        return "Message"


def _load(value: Any, handler: Any) -> Message:
    return value if isinstance(value, Message) else Message.from_json(value)


AnyMessage = Annotated[Message, WrapValidator(_load), PlainSerializer(Message.to_json)]
"""The type of a field that holds a message of any class, known or not."""

_BY_ROLE: Final[dict[str, type[Message]]] = {
    "user": UserMessage,
    "system": SystemMessage,
    "developer": SystemMessage,
    "assistant": AssistantMessage,
    "tool": ToolMessage,
}


def as_message(value: str | Message | dict[str, Any]) -> Message:
    """Make a message of what users hand over: text (a user's), a message, or ``{"role": ..., "content": ...}``.

    Raises:
        ConfigurationError: it is none of these, or its role is unknown.
    """
    if isinstance(value, str):
        return UserMessage(text=value)
    if isinstance(value, Message):
        return value
    if isinstance(value, dict) and isinstance(value.get("role"), str) and "content" in value:
        made = _BY_ROLE.get(value["role"])
        if made is not None and isinstance(value["content"], str):
            return made(text=value["content"])
    msg = (
        f"a prompt or message is text, a Message, or {{'role': 'user', 'content': 'text'}}, not {type(value).__name__}"
        if not isinstance(value, dict)
        else f"a message needs a role ({', '.join(_BY_ROLE)}) and a text content; this one has {sorted(value)}"
    )
    raise ConfigurationError(msg)


__all__ = [
    "AnyMessage",
    "AssistantMessage",
    "AudioPart",
    "ContentPart",
    "FilePart",
    "ImagePart",
    "Message",
    "Part",
    "ReasoningPart",
    "Role",
    "SystemMessage",
    "TextPart",
    "ToolCall",
    "ToolMessage",
    "ToolResult",
    "UserMessage",
    "as_message",
]
