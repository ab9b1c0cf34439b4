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
_SHOWN: Final = frozenset("\n\t\u200d")  # the last joins emoji and letters of Indic scripts


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

    Control, formatting and private characters go, among them the tags and the marks of direction that hide text.
    """
    seen = "".join(c for c in text[: most * 2] if c in _SHOWN or unicodedata.category(c) not in _HIDDEN)
    return seen if len(seen) <= most and len(text) <= most * 2 else f"{seen[:most]}…"


def visible_schema(schema: Any) -> Any:
    """Give a JSON Schema whose titles and descriptions are `visible`, and which is else the same."""
    if isinstance(schema, dict):
        return {
            key: visible(value) if key in {"title", "description"} and isinstance(value, str) else visible_schema(value)
            for key, value in schema.items()
        }
    return [visible_schema(item) for item in schema] if isinstance(schema, list) else schema
