"""Counting tokens: of a text, of a message as it is sent, of the definitions of tools.

Owns the exact counter, which is tiktoken's, and what is counted for parts that are no text; the estimate is
`plait.estimates`'. What was counted once is kept as long as it lives. Knows nothing of windows, of what is left out of
them, or of prices.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from importlib.util import find_spec, module_from_spec
from math import ceil
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, Protocol, assert_never
from weakref import ref

from plait.errors import ConfigurationError, MissingExtra, excerpt
from plait.estimates import SIMPLE, Correction, simple
from plait.plain import to_json

if TYPE_CHECKING:
    from types import ModuleType

    from tiktoken import Encoding

    from plait.messages import Message, Part
    from plait.providers.base import ToolDefinition
    from plait.schema import OutputSchema

_PER_MESSAGE: Final = 4
"""What a role and the marks round a message take: three or four tokens with OpenAI's models
(https://github.com/openai/openai-cookbook/blob/main/examples/How_to_count_tokens_with_tiktoken.ipynb)."""
_PER_CALL: Final = 4
_PER_DEFINITION: Final = 8
_IMAGE: Final = 1000
_SMALL_IMAGE: Final = 85  # https://platform.openai.com/docs/guides/images-vision#calculating-costs
_BYTES_OF_SOUND: Final = 1000
_BYTES_OF_FILE: Final = 50
_FILE_ELSEWHERE: Final = 2000


class Counter(Protocol):
    """Counts the tokens of a text; any object with this method is a counter."""

    def count(self, text: str) -> int:
        """Give how many tokens a text has: a whole number of at least 0, for every text."""
        ...


# --- the exact count -------------------------------------------------------------------------------------------------

_LONGEST: Final = 4000
"""Characters that tiktoken is given at once. A long run of one character takes it quadratic time in older releases, and
one of a million blanks makes newer ones panic."""


def accurate(model: str = "") -> Counter:
    """Give the counter that counts as OpenAI's models do, with the package tiktoken.

    What looks like a special token, such as ``<|endoftext|>``, is counted as the text it is. The table of the model's
    vocabulary must lie on this machine where tiktoken keeps it: nothing is ever downloaded. It is looked for at once
    and read at the first count, which takes some tenths of a second; ``count("")`` does it beforehand.

    Args:
        model: its name, as in requests. One that tiktoken does not know is taken for one with ``o200k_base``.

    Raises:
        MissingExtra: tiktoken is not installed.
        ConfigurationError: the table is not on this machine, or damaged.
    """
    try:
        from tiktoken.model import encoding_name_for_model
    except ImportError:
        extra = "tokens"
        raise MissingExtra(extra, "counting tokens accurately") from None
    try:
        name = encoding_name_for_model(model.rpartition("/")[2])
    except KeyError:
        name = "o200k_base"
    return _vocabulary("r50k_base" if name == "gpt2" else name)  # the same tokens, in one file


@functools.cache
def _vocabulary(name: str) -> _Exact:
    descriptions = _descriptions()
    vars(descriptions)["load_tiktoken_bpe"] = functools.partial(_table, name)
    return _Exact(getattr(descriptions, name)())


def _descriptions() -> ModuleType:
    """Give a copy of tiktoken's module of encodings, in which the function that downloads can be replaced."""
    spec = find_spec("tiktoken_ext.openai_public")
    assert spec is not None  # noqa: S101  # it is part of tiktoken
    assert spec.loader is not None  # noqa: S101
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _table(name: str, address: str, expected_hash: str | None = None) -> bytes:
    """Give the file that tiktoken keeps for an address: https://github.com/openai/tiktoken/blob/main/tiktoken/load.py."""
    import tempfile
    from hashlib import sha1, sha256

    folder = os.environ.get("TIKTOKEN_CACHE_DIR", os.environ.get("DATA_GYM_CACHE_DIR"))
    if folder is None:
        folder = str(Path(tempfile.gettempdir(), "data-gym-cache"))
    path = Path(folder, sha1(address.encode(), usedforsecurity=False).hexdigest())
    try:
        data = path.read_bytes() if folder else None
    except OSError:
        data = None
    if data is not None and expected_hash in (None, sha256(data).hexdigest()):
        return data
    where = path if folder else "TIKTOKEN_CACHE_DIR is empty"
    state = f"is not on this machine ({where})" if data is None else f"is damaged ({path})"
    msg = (
        f"counting accurately needs tiktoken's table {name!r}, which {state}, and plait downloads nothing by itself. "
        "Name a folder in the environment variable TIKTOKEN_CACHE_DIR and fetch it once: "
        f"python -c \"import tiktoken; tiktoken.get_encoding('{name}')\". Or count with 'Simple'"
    )
    raise ConfigurationError(msg)


class _Exact:
    """Counts with one of tiktoken's encodings, which is made at the first count, once for all threads."""

    __slots__ = ("_description", "_encoding", "_lock")

    def __init__(self, description: dict[str, Any]) -> None:
        """Take what tiktoken's encoding is made of, with the bytes of its table in the place of what they say."""
        self._description = description
        self._encoding: Encoding | None = None
        self._lock = Lock()

    def count(self, text: str) -> int:
        encode = (self._encoding or self._load()).encode_ordinary
        length = len(text)
        if length <= _LONGEST:
            return len(encode(text))
        total = begin = 0
        while begin < length:
            end = begin + _LONGEST
            if end < length:  # a word goes with the blank before it
                blank = max(text.rfind(" ", begin + 1, end), text.rfind("\n", begin + 1, end))
                end = blank if blank > 0 else end
            total += len(encode(text[begin:end]))
            begin = end
        return total

    def _load(self) -> Encoding:
        from base64 import b64decode

        from tiktoken import Encoding

        with self._lock:
            if self._encoding is None:
                lines = [line.split() for line in self._description["mergeable_ranks"].splitlines() if line]
                ranks = {b64decode(token): int(rank) for token, rank in lines}
                self._encoding = Encoding(**{**self._description, "mergeable_ranks": ranks})
                self._description = {}
            return self._encoding


def counter_of(method: str | Counter, model: str = "") -> Counter:
    """Give the counter that a user asks for.

    Args:
        method: ``"Accurate"`` or ``"Simple"``, in upper or lower case, or a counter of one's own.
        model: the name of the model whose tokens are counted.

    Raises:
        ConfigurationError: it is none of these, or cannot be had on this machine; see `accurate`.
    """
    if isinstance(method, str):
        named = {"accurate": accurate, "simple": simple}.get(method.strip().casefold())
        if named is not None:
            return named(model)
    elif callable(getattr(method, "count", None)) and not isinstance(method, type | Sequence):
        return method
    msg = (
        f"tokens are counted by 'Accurate', 'Simple' or an object with count(text), not by {excerpt(repr(method), 60)}"
    )
    raise ConfigurationError(msg)


# --- what is sent ----------------------------------------------------------------------------------------------------


class _Kept(ref[Any]):
    """A weak reference to what was counted, with its tokens. It holds the counter, so that its number stays its own."""

    __slots__ = ("counter", "key", "tokens")

    counter: Counter
    key: tuple[int, int]
    tokens: int


_KEPT: Final[dict[tuple[int, int], _Kept]] = {}
"""By the numbers of what was counted and of the counter: comparing messages costs more than counting them."""


def _forget(entry: _Kept) -> None:
    _KEPT.pop(entry.key, None)


def _keep(counted: object, counter: Counter, tokens: int) -> int:
    entry = _Kept(counted, _forget)
    entry.counter, entry.key, entry.tokens = counter, (id(counted), id(counter)), tokens
    _KEPT[entry.key] = entry
    return tokens


def message_tokens(message: Message, counter: Counter) -> int:
    """Count a message as it is sent; each is counted once by each counter.

    Counted are texts, reasoning, the names and arguments of tool calls, what tools and the provider's own tools gave,
    4 for each message and 4 for each call and result. What is no text is counted by rule: 1,000 for an image, 85 with
    ``detail="low"``; one for each 1,000 bytes of sound; one for each 50 bytes of a file, 2,000 for a file that lies
    elsewhere. The rules are rough, for vendors differ; `Correction` learns what they leave out.

    Raises:
        ConfigurationError: a counter of the user's own gave something else than a number of tokens.
    """
    entry = _KEPT.get((id(message), id(counter)))
    if entry is not None:
        return entry.tokens
    return _keep(message, counter, _PER_MESSAGE + sum([_part(part, counter) for part in message.parts]))


def _part(part: Part, counter: Counter) -> int:
    match part.type:
        case "text" | "reasoning":
            return _text(part.text, counter)
        case "tool_call":
            return _PER_CALL + _text(part.name, counter) + _text(part.arguments, counter)
        case "tool_result":
            return _PER_CALL + sum([_part(one, counter) for one in part.parts])
        case "server_tool":
            return _PER_CALL + _text(part.name, counter) + _json(part.details, counter)
        case "image":
            return _SMALL_IMAGE if part.detail == "low" else _IMAGE
        case "audio":
            return ceil(len(part.data) / _BYTES_OF_SOUND)
        case "file":
            return _FILE_ELSEWHERE if part.data is None else ceil(len(part.data) / _BYTES_OF_FILE)
        case _:
            assert_never(part.type)


def _text(text: str, counter: Counter) -> int:
    tokens = counter.count(text)
    if type(tokens) is int and tokens >= 0:
        return tokens
    msg = f"{type(counter).__name__}.count(text) gives a whole number of at least 0, not {excerpt(repr(tokens), 60)}"
    raise ConfigurationError(msg)


def _json(data: object, counter: Counter) -> int:
    return _text(to_json(data).decode(), counter)


def tools_tokens(definitions: Sequence[ToolDefinition], counter: Counter) -> int:
    """Count what a model is told of tools: names, descriptions and schemas as JSON, and 8 for each.

    Each definition is counted once by each counter.

    Raises:
        ConfigurationError: as `message_tokens`.
    """
    return sum([_defined(one, one.parameters, counter) for one in definitions])


def output_tokens(output: OutputSchema[Any], counter: Counter) -> int:
    """Count what a model is told of the type of its answer; once for each type and counter, as `tools_tokens` does."""
    return _defined(output, output.schema, counter)


def _defined(one: ToolDefinition | OutputSchema[Any], schema: dict[str, Any], counter: Counter) -> int:
    entry = _KEPT.get((id(one), id(counter)))
    if entry is not None:
        return entry.tokens
    said = _text(one.name, counter) + _text(one.description, counter) + _json(schema, counter)
    return _keep(one, counter, _PER_DEFINITION + said)


__all__ = [
    "SIMPLE",
    "Correction",
    "Counter",
    "accurate",
    "counter_of",
    "message_tokens",
    "output_tokens",
    "simple",
    "tools_tokens",
]
