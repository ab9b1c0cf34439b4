"""What a recording is: a file of JSON Lines with one exchange in each, and where a request differs from a recorded one.

An exchange is what a provider was asked and what it gave: ``{v, provider, model, request, batches, error, cut}``.
Knows nothing of who asks, or of what is done with an exchange.
"""

from __future__ import annotations

import errno
import json
import os
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final, NamedTuple, get_args

import msgspec
from msgspec import structs

from plait import errors
from plait.errors import ConfigurationError, CorruptRecord, PlaitError, StoreError, StoreUnavailable, excerpt
from plait.events import Delta, PartDelta
from plait.messages import Message
from plait.plain import parse_json, thaw, to_json

if TYPE_CHECKING:
    from pathlib import Path

    from plait.providers.base import Request, Settings, ToolDefinition

VERSION: Final = 1
_SHOWN: Final = 80
_BEFORE: Final = 20  # characters of what two texts have in common that are shown before they differ
_NOTHING: Final = object()
_OUTPUT: Final = ("name", "description", "schema", "strict")  # what a provider can send of an `OutputSchema`
_DELTAS: Final[dict[object, type[Any]]] = {kind.__struct_config__.tag: kind for kind in get_args(Delta)}
_ERRORS: Final = {
    kind.__name__: kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, PlaitError)
}


class Failure(msgspec.Struct, frozen=True):
    """An error as plain data: its class, its message and its fields."""

    type: str
    message: str
    fields: dict[str, Any]


class Exchange(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a provider was asked, and what it gave.

    Attributes:
        v: the version of the format.
        provider: the provider's name.
        model: the model's name.
        request: what it was asked, see `request_data`.
        batches: the lists of deltas as they came.
        error: what it raised after them.
        cut: whether its reader left before it had come to an end.
    """

    v: int
    provider: str
    model: str
    request: dict[str, Any]
    batches: list[list[Any]]
    error: Failure | None = None
    cut: bool = False


class Difference(NamedTuple):
    """The first place in which two requests differ, and what stands there, each at most 80 characters."""

    where: str
    recorded: str
    asked: str


# --- requests --------------------------------------------------------------------------------------------------------


def request_data(request: Request) -> dict[str, Any]:
    """Give all of a request that a provider can send, as plain data.

    What no provider sends is left out: a message's metadata and class, and who wrote an answer that is sent back. So is
    whether the answer is streamed: it is the same answer.
    """
    output = request.output
    return {
        "messages": [_message_data(message) for message in request.messages],
        "tools": [_data(tool) for tool in request.tools],
        "output": None if output is None else {name: thaw(getattr(output, name)) for name in _OUTPUT},
        "settings": _data(request.settings),
    }


def _message_data(message: Message) -> dict[str, Any]:
    data = {"role": message.role, "parts": thaw(message.parts)}
    details = getattr(message, "details", None)
    return {**data, "details": thaw(details)} if details else data


def _data(value: ToolDefinition | Settings) -> dict[str, Any]:
    """The fields that differ from their defaults."""
    found = {item.name: (getattr(value, item.name), item.default) for item in fields(value)}
    return {name: thaw(given) for name, (given, default) in found.items() if given != default}


def first_difference(recorded: Any, asked: Any, where: str = "") -> Difference | None:
    """Find the first place in which two values of plain data differ; the order of keys is none."""
    if isinstance(recorded, dict) and isinstance(asked, dict):
        for key in (*recorded, *(key for key in asked if key not in recorded)):
            step = f"{'.' if where else ''}{key}" if key.isidentifier() else f"[{key!r}]"
            found = first_difference(recorded.get(key, _NOTHING), asked.get(key, _NOTHING), where + step)
            if found is not None:
                return found
        return None
    if isinstance(recorded, list) and isinstance(asked, list):
        for at in range(max(len(recorded), len(asked))):
            one, other = (items[at] if at < len(items) else _NOTHING for items in (recorded, asked))
            found = first_difference(one, other, f"{where}[{at}]")
            if found is not None:
                return found
        return None
    if type(recorded) is type(asked) and recorded == asked:
        return None
    return Difference(where, *_shown(recorded, asked))


def _shown(recorded: object, asked: object) -> tuple[str, str]:
    """Two values from shortly before the place in which their texts differ."""
    one, other = (
        "nothing" if value is _NOTHING else json.dumps(value, ensure_ascii=False) for value in (recorded, asked)
    )
    pairs = enumerate(zip(one, other, strict=False))
    start = next((at for at, (a, b) in pairs if a != b), min(len(one), len(other))) - _BEFORE
    return _from(one, start), _from(other, start)


def _from(text: str, start: int) -> str:
    """At most 80 printable characters of a text; unlike an `excerpt` it keeps each space, which may be what differs."""
    text = f"…{text[start:]}" if start > _BEFORE else text
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text[:_SHOWN])
    return safe if len(text) <= _SHOWN and len(safe) <= _SHOWN else f"{safe[: _SHOWN - 1]}…"


# --- errors ----------------------------------------------------------------------------------------------------------


def failure_of(error: PlaitError) -> Failure:
    """Give an error as plain data; one of a class that is not ours as one of the class of ours that it derives from."""
    kind = next(kind.__name__ for kind in type(error).__mro__ if kind.__name__ in _ERRORS)
    plain = {name: value if _is_plain(value) else None for name, value in vars(error).items()}
    return Failure(kind, BaseException.__str__(error), plain)


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, str | int | float | list | tuple)


_TUPLES: Final = frozenset({"before", "ring"})  # fields of errors that JSON makes lists of


def error_of(failure: Failure) -> PlaitError:
    """Make the error that `failure_of` was given. Only classes of `plait.errors` are made."""
    kind = _ERRORS[failure.type]
    made = kind.__new__(kind, failure.message)
    vars(made).update({name: tuple(value) if name in _TUPLES else value for name, value in failure.fields.items()})
    return made


# --- files -----------------------------------------------------------------------------------------------------------


def prepare(path: Path) -> None:
    """See that exchanges can be appended to a file, which is made if it is not there.

    Raises:
        ConfigurationError: it cannot be written, or there is no such folder.
        CorruptRecord: it is no recording, or its last line is cut.
    """
    try:
        _check_kind(path)
        with path.open("a+b") as file:
            size = file.tell()
            file.seek(0)
            first = file.readline()
            file.seek(max(0, size - 1))
            end = file.read(1)
    except OSError as error:
        why = f"there is no folder {str(path.parent)!r}" if not path.parent.is_dir() else _why(error)
        msg = f"the recording {str(path)!r} cannot be written: {why}"
        raise ConfigurationError(msg) from error
    if first:
        decode(first, path, 1)
    if end not in (b"", b"\n"):
        msg = f"the last line of the recording {str(path)!r} is cut; delete that line, or record to another file"
        raise CorruptRecord(msg, record="the last line")


def _check_kind(path: Path) -> None:
    """See that nothing is there that never comes to an end.

    Raises:
        OSError: it is a pipe or a device.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):  # a folder is refused by the system, in its own words
        raise OSError(errno.EINVAL, "it is no file")


def append(path: Path, exchange: Exchange) -> None:
    """Write an exchange at the end of a file, as one whole line, or not at all.

    Raises:
        StoreError: it could not be written, or holds what has no form in JSON.
    """
    try:
        line = to_json(exchange) + b"\n"
    except TypeError as error:
        msg = f"an exchange with {exchange.provider} cannot be recorded: {excerpt(str(error))}"
        raise StoreError(msg) from error
    try:
        with path.open("ab", buffering=0) as file:
            written = file.write(line)
            if written < len(line):
                file.truncate(file.tell() - written)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # noqa: TRY301  # told as the others are
    except OSError as error:
        msg = f"an exchange could not be written to the recording {str(path)!r}: {_why(error)}"
        raise StoreUnavailable(msg) from error


def read(path: Path) -> list[Exchange]:
    """Give the exchanges of a file, in its order.

    Raises:
        ConfigurationError: there is no such file, or it cannot be read.
        CorruptRecord: it is no recording, one of a newer version, or a line is cut.
    """
    try:
        _check_kind(path)
        lines = path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        msg = f"there is no recording {str(path)!r}; record_to=... makes one"
        raise ConfigurationError(msg) from None
    except OSError as error:
        msg = f"the recording {str(path)!r} cannot be read: {_why(error)}"
        raise ConfigurationError(msg) from error
    return [decode(line, path, number) for number, line in enumerate(lines, 1) if line.strip()]


def decode(line: bytes, path: Path, number: int) -> Exchange:
    """Read one line; path and number are for the error's sentence.

    Raises:
        CorruptRecord: it is no exchange, one of a newer version, or cut.
    """
    where = f"line {number} of the recording {str(path)!r}"
    try:
        data = parse_json(line)
        made = msgspec.convert(data, Exchange)
        if made.v != VERSION:
            msg = f"{where} has version {made.v}, and this plait reads version {VERSION}; update plait, or record anew"
            raise CorruptRecord(msg, record=f"line {number}")
        if made.error is not None:
            error_of(made.error)
        return structs.replace(made, batches=[[_delta(delta) for delta in batch] for batch in made.batches])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        if line.endswith(b"\n"):
            msg = f"{where} is no exchange ({_reason(error)}): {excerpt(line, 80)}"
        else:
            msg = f"{where} is cut in the middle; delete that line, or the file to record anew"
        raise CorruptRecord(msg, record=f"line {number}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"unknown type {excerpt(str(error), 40)}"
    plain = isinstance(error, msgspec.ValidationError | ConfigurationError)  # their sentences are for people
    return excerpt(str(error), 100) if plain else "no JSON object"


def _delta(data: dict[str, Any]) -> Any:
    kind = _DELTAS[data["type"]]
    if kind is not PartDelta:
        return msgspec.convert(data, kind, dec_hook=_usage)
    (part,) = Message(parts=[data["part"]]).parts  # which of its classes it is, msgspec cannot tell
    return PartDelta(part, data.get("choice", 0))  # type: ignore[arg-type]  # what was written was of one of them


def _usage(kind: type, value: Any) -> object:
    return kind(**value)


def _why(error: OSError) -> str:
    return (error.strerror or type(error).__name__).lower()
