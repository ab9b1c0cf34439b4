"""What a server calls its tools, made fit for a model: names that fit and never clash, texts without hidden signs.

Pure. A name depends on the server's tools alone, never on their order.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

T = TypeVar("T")

MAX_NAME: Final = 64
MAX_DESCRIPTION: Final = 4_000
"""Characters of a description that the model and the person who approves get."""
_MARK: Final = 8
_HALF: Final = r"[\ud800-\udfff]"
_HIDDEN: Final = frozenset(("Cc", "Cf", "Co", "Cs", "Cn", "Zl", "Zp"))
_IGNORED: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
"""Default_Ignorable_Code_Point of Unicode, beyond the categories above: letters and marks without a form."""
_JOINER: Final = "\u200d"
_AS_EMOJI: Final = "\ufe0f"
_NAMED: Final = frozenset(("properties", "patternProperties", "dependentSchemas", "$defs", "definitions"))
"""Keywords whose keys are names, not keywords."""
_UNUSED: Final = frozenset(("$comment", "examples"))


def whole_characters(data: T) -> T:
    """Give plain data whose texts can be sent: half a character, as models write, becomes U+FFFD."""
    text = json.dumps(data, ensure_ascii=False)
    if not re.search(_HALF, text):
        return data
    whole: T = json.loads(re.sub(_HALF, "\ufffd", text))
    return whole


def plain_name(name: str) -> str:
    """Give a name with ``_`` in place of everything that providers do not take."""
    return re.sub(r"[^a-zA-Z0-9_-]", "_", name)


def tool_names(prefix: str, names: Collection[str], kept: Mapping[str, str] | None = None) -> dict[str, str]:
    """Give each of a server's names as the model gets it: prefix, ``_`` and name, in 64 characters.

    One that is too long, or that cleaning made equal to another, ends in a mark made of the whole original.

    Args:
        prefix: what stands before; empty for nothing.
        names: the server's own names, none twice.
        kept: names that were given before, and stay.
    """
    given = {name: kept[name] for name in names if kept and name in kept}
    wanted = {name: plain_name(f"{prefix}_{name}" if prefix else name) for name in names if name not in given}
    times = Counter([*wanted.values(), *given.values()])
    for name, plain in wanted.items():
        own = times[plain] == 1 or (plain.endswith(name) and plain not in given.values())
        if plain and len(plain) <= MAX_NAME and own:
            given[name] = plain
    used = set(given.values())
    for name in sorted(wanted.keys() - given.keys()):
        given[name] = next(marked for marked in _marked(wanted[name], name) if marked not in used)
        used.add(given[name])
    return {name: given[name] for name in names}


def _marked(plain: str, name: str) -> Iterator[str]:
    """Give names with ever longer marks: a server may name a tool as another's mark would be."""
    whole = sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
    for size in range(_MARK, MAX_NAME):
        yield f"{plain[: MAX_NAME - size - 1]}_{whole[:size]}"


def visible(text: str, most: int = MAX_DESCRIPTION) -> str:
    """Give a text without signs that a model reads and a person does not see, and not longer than ``most``.

    Control, formatting and private characters go, and those that are drawn as nothing, among them tags, variations and
    marks of direction, which hide text. What joins emoji and letters of Indic scripts stays behind these.
    """
    seen: list[str] = []
    before = ""
    for c in text[: most * 2]:
        if _is_seen(c, before):
            seen.append(c)
            before = c
    shown = "".join(seen)
    return shown if len(shown) <= most and len(text) <= most * 2 else f"{shown[:most]}…"


def _is_seen(c: str, before: str) -> bool:
    if c.isascii():
        return c.isprintable() or c in "\n\t"
    behind = unicodedata.category(before) if before else ""
    if c == _JOINER:
        return behind in {"So", "Sk", "Mn"}  # also behind what makes an emoji of a sign
    if c == _AS_EMOJI:
        return behind == "So"
    return unicodedata.category(c) not in _HIDDEN and not _IGNORED.match(c)


def visible_schema(part: Any, *, named: bool = False) -> Any:
    """Give a JSON Schema all of whose texts are `visible`, names and choices too, without what only people note in it.

    Args:
        part: the schema, or a part of it.
        named: its keys are names.
    """
    if isinstance(part, str):
        return visible(part, len(part))
    if isinstance(part, list):
        return [visible_schema(item) for item in part]
    if not isinstance(part, dict):
        return part
    return {
        visible(key, len(key)): visible(value)
        if not named and key in {"title", "description"} and isinstance(value, str)
        else visible_schema(value, named=not named and key in _NAMED)
        for key, value in part.items()
        if named or not (key in _UNUSED or key.startswith("x-"))
    }
