"""Messages and their parts: what people, models and tools say, as read-only values.

Knows nothing of wire formats (providers), of ids and order (the log), or of how an answer arrives (events).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal, Self
from weakref import WeakValueDictionary

from pydantic import ConfigDict, Field
from pydantic_core import core_schema

from plait.errors import ConfigurationError, excerpt
from plait.frozen import Frozen, JsonObject, TupleOf, assemble
from plait.plain import EMPTY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import GetCoreSchemaHandler, ValidatorFunctionWrapHandler
    from pydantic_core import CoreSchema

Role = Literal["system", "user", "assistant", "tool"]


class TextPart(Frozen):
    """Text. ``refusal`` marks the words with which a model declined to answer.

    ``details`` holds the provider's own fields of it, such as citations, which go back unchanged; in what a person says
    or the system text, fields for one provider, such as Anthropic's ``{"cache_control": {"type": "ephemeral"}}``.
    """

    type: Literal["text"] = "text"
    text: str
    refusal: bool = False
    details: JsonObject = EMPTY

    @property
    def citations(self) -> tuple[JsonObject, ...]:
        """What the text refers to, as its provider says it: Anthropic's ``citations``, OpenAI's ``annotations``."""
        found = self.details.get("citations") or self.details.get("annotations")
        return tuple(found) if isinstance(found, tuple | list) else ()


class ReasoningPart(Frozen):
    """What a model thought. ``details`` holds signatures and encrypted forms, which go back unchanged."""

    type: Literal["reasoning"] = "reasoning"
    text: str = ""
    details: JsonObject = EMPTY


class ToolCall(Frozen):
    """A model's wish to call a tool. ``arguments`` is the model's own text, normally a JSON object.

    ``details`` holds the provider's own fields of the call, which go back unchanged.
    """

    type: Literal["tool_call"] = "tool_call"
    id: str
    name: str
    arguments: str = ""
    details: JsonObject = EMPTY


class ServerToolPart(Frozen):
    """What the provider did by itself while it answered: a search, code it ran, an image it made.

    ``name`` is the provider's word for it. ``details`` is its own record of it, a call, a result or both, which goes
    back unchanged; nothing of it is carried out here.
    """

    type: Literal["server_tool"] = "server_tool"
    name: str
    details: JsonObject = EMPTY


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
    """A document: ``data`` (bytes) with its ``media_type``, a ``url``, or the ``file_id`` a provider gave it.

    ``details`` holds fields for one provider, such as Anthropic's ``{"citations": {"enabled": True}}``.
    """

    type: Literal["file"] = "file"
    data: bytes | None = None
    url: str | None = None
    file_id: str | None = None
    name: str | None = None
    media_type: str = "application/pdf"
    details: JsonObject = EMPTY


ContentPart = Annotated[TextPart | ImagePart | AudioPart | FilePart, Field(discriminator="type")]


class ToolResult(Frozen):
    """What a tool call gave. ``ToolResult(call_id=..., text="...")`` is shorthand for one text part."""

    type: Literal["tool_result"] = "tool_result"
    call_id: str
    name: str = ""
    parts: TupleOf[ContentPart] = ()
    is_error: bool = False

    if TYPE_CHECKING:
        _text: str | None = Field(default=None, alias="text")  # not a field: it tells type checkers of ``text=``
    else:

        def __init__(self, /, **fields: Any) -> None:
            super().__init__(**_with_text(type(self), fields))

    @property
    def text(self) -> str:
        """The text parts, joined."""
        return _text(self.parts)


Part = Annotated[
    TextPart | ReasoningPart | ToolCall | ToolResult | ServerToolPart | ImagePart | AudioPart | FilePart,
    Field(discriminator="type"),
]


def _with_text(cls: type[Frozen], fields: dict[str, Any]) -> dict[str, Any]:
    """Put what ``text=`` says in front of the parts."""
    text = fields.pop("text", None)
    if text is None:
        return fields
    if not isinstance(text, str):
        msg = f"{cls.__name__}(text=...) takes a str, not {type(text).__name__}"
        raise ConfigurationError(msg)
    parts = fields.get("parts", ())
    if not isinstance(parts, Sequence) or isinstance(parts, str):
        return fields  # pydantic says what is wrong with them
    fields["parts"] = (assemble(TextPart, {"text": text}), *parts)
    return fields


def _text(parts: Sequence[Any]) -> str:
    if len(parts) == 1 and type(parts[0]) is TextPart:
        return "" if parts[0].refusal else parts[0].text
    return "".join([part.text for part in parts if type(part) is TextPart and not part.refusal])


class Message(Frozen):
    """One message of a thread: a role, parts, and a free ``metadata`` mapping.

    ``Message(text="hi")`` is shorthand for one text part. Subclass it to add fields: the JSON then carries
    ``class_`` (the class's name, or ``class Mine(Message, class_name="...")``), and where the class is not
    known, loading gives a `Message` that keeps the extra fields and writes them back unchanged.

    Raises:
        ConfigurationError: a field is unknown or has the wrong type.
    """

    role: Role = "user"
    parts: TupleOf[Part] = ()
    metadata: JsonObject = EMPTY

    _class_name: ClassVar[str] = "Message"

    if TYPE_CHECKING:
        _text: str | None = Field(default=None, alias="text")  # not a field: it tells type checkers of ``text=``
    else:

        def __init__(self, /, **fields: Any) -> None:
            if "class_" in fields:
                msg = f"class_ is no field of {type(self).__name__}; Message.from_json reads what to_json wrote"
                raise ConfigurationError(msg)
            super().__init__(**_with_text(type(self), fields))

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

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler, /) -> CoreSchema:
        """Let a field of this type read each message as what its JSON says it is, a subclass or an unknown class."""
        return core_schema.no_info_wrap_validator_function(cls._read, handler(source))

    @classmethod
    def _read(cls, value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        if type(value) is not dict or "class_" not in value:
            return handler(value)
        made = Message.from_json(value)
        if not isinstance(made, cls | _UnknownMessage):
            msg = f"input should be a {cls.__name__}, not a {made.class_}"
            raise ConfigurationError(msg)
        return made

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
        return "".join([part.text for part in self.parts if type(part) is TextPart and part.refusal])

    @property
    def reasoning(self) -> str:
        """The reasoning parts, joined."""
        return "".join(part.text for part in self.parts if type(part) is ReasoningPart)

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The tool calls, in the model's order."""
        return tuple([part for part in self.parts if type(part) is ToolCall])

    @property
    def tool_results(self) -> tuple[ToolResult, ...]:
        """The tool results, in the order of their calls."""
        return tuple([part for part in self.parts if type(part) is ToolResult])

    def __str__(self) -> str:
        return self.text

    def __repr_args__(self) -> Iterator[tuple[str, Any]]:
        for name, value in super().__repr_args__():
            plain = name == "parts" and len(value) == 1 and type(value[0]) is TextPart and not value[0].refusal
            yield ("text", value[0].text) if plain else (name, value)

    def to_json(self) -> dict[str, Any]:
        """Give this message as plain JSON data: ``class_``, ``role``, and every field that differs from its default."""
        # Where the class is not known, nobody knows its default role either.
        return {"class_": self.class_, "role": self.role, **super().to_json()}

    @staticmethod
    def from_json(data: Any) -> Message:
        """Read what `to_json` gave; a class that is not known here gives a `Message` with the same content.

        Raises:
            ConfigurationError: the data is no message.
        """
        if not isinstance(data, dict):
            msg = f"a message is a JSON object, not {type(data).__name__}"
            raise ConfigurationError(msg)
        fields = {**data}
        name = fields.pop("class_", "Message")
        if not isinstance(name, str):
            msg = f"the class_ of a message is a text, not {type(name).__name__}"
            raise ConfigurationError(msg)
        known = _CLASSES.get(name)
        return _UnknownMessage.restore(name, fields) if known is None else known(**fields)


_CLASSES: Final[WeakValueDictionary[str, type[Message]]] = WeakValueDictionary({"Message": Message})


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

    @property
    def citations(self) -> tuple[JsonObject, ...]:
        """What the answer refers to, each as its provider says it."""
        of_parts = [one for part in self.parts if type(part) is TextPart for one in part.citations]
        return (*of_parts, *self.details.get("annotations", ()))


class ToolMessage(Message):
    """The results of one turn's tool calls, in the order of the calls."""

    role: Role = "tool"


class _UnknownMessage(Message):
    """A message whose class is not known in this process: its extra fields are kept and written back."""

    model_config = ConfigDict(title="Message")

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


del _CLASSES["_UnknownMessage"]  # it stands for every class but itself

_BY_ROLE: Final[dict[str, type[Message]]] = {
    "user": UserMessage,
    "system": SystemMessage,
    "developer": SystemMessage,
    "assistant": AssistantMessage,
}


def as_message(value: str | Message | Mapping[str, Any]) -> Message:
    """Make a message of what users hand over: text (a user's), a message, or ``{"role": ..., "content": ...}``.

    Raises:
        ConfigurationError: it is none of these, or its role is unknown.
    """
    if type(value) is str:
        return assemble(UserMessage, {"parts": (assemble(TextPart, {"text": value}),)})
    if isinstance(value, str):
        return UserMessage(text=str(value))
    if isinstance(value, Message):
        return value
    if not isinstance(value, Mapping):
        msg = (
            "a prompt or message is text, a Message, or {'role': 'user', 'content': 'text'}, "
            f"not {type(value).__name__}"
        )
        raise ConfigurationError(msg)
    role, content = value.get("role"), value.get("content")
    made = _BY_ROLE.get(role) if isinstance(role, str) else None
    if made is None or not isinstance(content, str) or len(value) > len(("role", "content")):
        has = excerpt(", ".join(f"{key}={item!r}" if key == "role" else str(key) for key, item in value.items()), 100)
        msg = (
            f"a message needs a role ({', '.join(_BY_ROLE)}) and a text content; this one has {has or 'nothing'}. "
            "Make a Message of what is more than text"
        )
        raise ConfigurationError(msg)
    return made(text=content)


__all__ = [
    "AssistantMessage",
    "AudioPart",
    "ContentPart",
    "FilePart",
    "ImagePart",
    "Message",
    "Part",
    "ReasoningPart",
    "Role",
    "ServerToolPart",
    "SystemMessage",
    "TextPart",
    "ToolCall",
    "ToolMessage",
    "ToolResult",
    "UserMessage",
    "as_message",
]
