"""Values of an output type while their JSON still comes: fields that have not come yet are None, or their default.

Owns how far a JSON text has come, what of its value is certain, and the validator that takes it; what is certain of a
type, and what may be missing, is read from pydantic's core schema. Knows nothing of providers, runs or streams.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast

from pydantic_core import SchemaValidator, from_json, to_json

from plait.schema import MAX_ANSWER
from plait.shape import MAX_DEPTH

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from plait.schema import OutputSchema

T = TypeVar("T")

_Node = dict[str, Any]  # of a core schema: https://docs.pydantic.dev/latest/api/pydantic_core_schema/

_GROWTH: Final = 50
"""A text is read anew when it has grown by this part of itself, so that the time for all readings is linear."""
_LARGE: Final = 50_000
"""Characters from which on it is read anew ever less often: who keeps all values does not keep it fifty times."""

_START: Final = re.compile(r"\s*(?:```[a-zA-Z]*\s*\n\s*)?(?=[\[{])")
_TOKEN: Final = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"|["\[\]{},:]', re.DOTALL)
_ABSENT: Final = object()
_RELAXED: Final = "~"
"""Ends the reference of a definition in which everything may be missing."""

_ROUND: Final = frozenset({"default", "nullable", "model", "dataclass"})
_FUNCTIONS: Final = frozenset({"function-before", "function-after", "function-wrap"})
_LISTS: Final = frozenset({"list", "set", "frozenset"})
_OBJECTS: Final = frozenset({"model-fields", "typed-dict", "dataclass-args"})


class Partials(Generic[T]):
    """The values that a growing text stands for.

    A value is given when more of it is certain and fits the type as far as it has come: a text may grow, and so may
    lists and objects; numbers, dates, enums and what else means something else by half are left out until they are
    whole, and so are untagged unions and what is in a type of unknown make. Of a type that is no object, such as
    ``int`` or ``str``, there are no partial values.
    """

    __slots__ = ("_form", "_last", "_outline", "_pieces", "_read", "_size", "_text", "_wrapped")

    def __init__(self, output: OutputSchema[T]) -> None:
        """Say of which type; its validator is made once for an `OutputSchema`."""
        if _Form not in output.derived:
            output.derived[_Form] = _Form(output.core)
        self._form: _Form = output.derived[_Form]
        self._wrapped = output.wrapped
        self._last: object = _ABSENT
        self.begin()

    def begin(self) -> None:
        """Forget the text: another one begins."""
        self._text = ""
        self._pieces: list[str] = []
        self._size = self._read = 0
        self._outline: _Outline | None = None

    def add(self, pieces: Iterable[str]) -> T | None:
        """Take in more of the text.

        Returns:
            The value so far, if it is another one than the last; None when there is nothing new to show.
        """
        before = len(self._pieces)
        self._pieces.extend(pieces)
        self._size += sum(map(len, self._pieces[before:]))
        grown = self._read // _GROWTH + max(0, self._read - _LARGE) // 2
        if self._size - self._read < max(1, grown) or self._size > MAX_ANSWER:
            return None
        text = self._text = "".join((self._text, *self._pieces))
        self._pieces.clear()
        self._read = self._size
        if self._outline is None:
            if (start := _START.match(text)) is None:
                return None
            self._outline = _Outline(start.end())
        value = self._value(self._outline, text)
        return value if value is not None and self.is_new(value) else None

    def is_new(self, value: T) -> bool:
        """Say whether a value differs from the last that was new; then it is the last from now on."""
        try:
            same = value == self._last
        except Exception:  # noqa: BLE001  # comparing is the types' own
            same = False
        if not same:
            self._last = value
        return not same

    def _value(self, outline: _Outline, text: str) -> T | None:
        form, certain = self._form, outline.certain(text)
        levels = len(outline.opened)
        if levels > MAX_DEPTH:
            return None
        try:
            data = from_json(certain, allow_partial="trailing-strings")
            if self._wrapped:
                if not (isinstance(data, dict) and data.keys() <= {"result"}):  # some models leave the wrapping out
                    data, levels = {"result": data}, levels + (levels > 0)
                if not isinstance(data.get("result"), dict | list):
                    return None
            if form.certain(form.root, data, levels, half=outline.half) is _ABSENT or (self._wrapped and not data):
                return None
            value = form.validator.validate_json(to_json(data))
        except Exception:  # noqa: BLE001  # validators that the user wrote run here, on values that are not whole
            return None
        made: T = value["result"] if self._wrapped else value
        return made


class _Outline:
    """How far a JSON text has come: which lists and objects are open, and where its last whole token ends.

    Attributes:
        opened: the brackets that are open, outermost first.
        half: whether it ends within a string that is a value.
    """

    __slots__ = ("_closed", "_end", "_mark", "_start", "half", "opened")

    def __init__(self, start: int) -> None:
        self.opened: list[str] = []
        self.half = False
        self._start = self._end = start
        self._mark = ""  # the first character of the last token
        self._closed = False

    def certain(self, text: str) -> str:
        """Read on, and give the text without what may still become something else: a number, a word, half a key."""
        opened = self.opened
        self.half = False
        for match in () if self._closed else _TOKEN.finditer(text, self._end):
            start, end = match.span()
            mark = text[start]
            if mark == '"' and end - start == 1:  # it has not ended yet
                self.half = bool(opened) and (opened[-1] == "[" or self._mark == ":")
                break
            self._mark, self._end = mark, end
            if mark in "[{":
                opened.append(mark)
            elif mark in "]}":
                opened.pop()
                if not opened:
                    self._closed = True
                    break
        return text[self._start :] if self.half else text[self._start : self._end]


class _Form:
    """A type as it may be while its value grows: its relaxed validator, and what of a value is certain.

    Attributes:
        root: the type's core schema.
        validator: takes values in which fields of models, dataclasses and typed dicts are missing.
    """

    __slots__ = ("_definitions", "root", "validator")

    def __init__(self, core: Mapping[str, Any]) -> None:
        self.root: _Node = dict(core)
        self._definitions: dict[str, _Node] = {one["ref"]: one for one in core.get("definitions", ())}
        self.validator = _validator(_relaxed(self.root))

    def certain(self, node: _Node | None, value: Any, levels: int, *, half: bool) -> Any:
        """Give what is certain of a value that is still open.

        Args:
            node: the core schema of it.
            value: plain JSON data; what is not certain is taken out of it.
            levels: how many lists and objects are open, from this one inwards; 0 for a string.
            half: whether in the innermost of them a string is open.

        Returns:
            The value, or `_ABSENT` if nothing of it may be shown.
        """
        node = self._meant(node, value, levels, half=half)
        if node is None:
            return _ABSENT
        kind = node["type"]
        if levels == 0:
            whole = not half or (kind == "str" and not node.keys() & {"pattern", "min_length"})
            return value if whole else _ABSENT
        last: Any
        if isinstance(value, dict) and (kind in _OBJECTS or kind == "dict"):
            last = next(reversed(value), None)
            child = node.get("values_schema") if kind == "dict" else _field(node, last)
        elif isinstance(value, list) and (child := _item(node)) is not None:
            last = len(value) - 1
        else:
            return _ABSENT
        if value and (levels > 1 or half):
            inner = self.certain(child, value[last], levels - 1, half=half)
            if inner is _ABSENT:
                del value[last]
        return value

    def _meant(self, node: _Node | None, value: Any, levels: int, *, half: bool) -> _Node | None:
        """Find the schema of an open value itself, behind references, wrappers and the tag of a union."""
        while node is not None:
            kind = node["type"]
            if kind == "definition-ref":
                node = self._definitions.get(node["schema_ref"])
            elif kind in _ROUND or kind == "definitions" or (kind in _FUNCTIONS and levels):
                node = None if node.get("custom_init") else node["schema"]
            elif kind == "tagged-union":
                tag = _tag(node, value)
                growing = half and levels == 1 and isinstance(value, dict) and next(reversed(value), None) == tag
                node = None if tag is None or growing else node["choices"].get(value[tag])
                node = node if isinstance(node, dict) else None
            else:
                return node
        return None


def _item(node: _Node) -> _Node | None:
    """Give the schema of the items of a list that may have any number of them; None for what else there is."""
    items: Any = node.get("items_schema")
    if node.get("type") == "tuple":
        return items[0] if node.get("variadic_item_index") == 0 and len(items) == 1 else None
    return items if node.get("type") in _LISTS else None


def _tag(node: _Node, value: Any) -> str | None:
    """Give the key under which an object says which of a union it is, if it says so in a text."""
    said = node["discriminator"]
    keys = [said] if isinstance(said, str) else [path[0] for path in said if len(path) == 1] if said else []
    if isinstance(value, dict):
        return next((key for key in keys if isinstance(value.get(key), str)), None)
    return None


def _field(node: _Node, key: object) -> _Node | None:
    """Give the schema of the field that a key of a JSON object stands for."""
    fields = node["fields"]
    named = fields.items() if isinstance(fields, dict) else [(field["name"], field) for field in fields]
    for name, field in named:
        alias = field.get("validation_alias")
        if key in (name, alias) or (isinstance(alias, list) and (alias == [key] or [key] in alias)):
            found: _Node = field["schema"]
            return found
    return None


def _relaxed(node: Any) -> Any:
    """Give a core schema in which fields may be missing, but in untagged unions: there they tell what is meant."""
    if not isinstance(node, dict) or node.get("custom_init"):
        return node
    kind, made = node.get("type"), {key: value for key, value in node.items() if key != "ref"}
    if kind == "definition-ref":
        made["schema_ref"] += _RELAXED
    elif kind == "definitions":
        relaxed = [{**_relaxed(one), "ref": one["ref"] + _RELAXED} for one in node["definitions"]]
        made["definitions"] = [*node["definitions"], *relaxed]
        made["schema"] = _relaxed(node["schema"])
    elif kind in _ROUND or kind in _FUNCTIONS:
        made["schema"] = _relaxed(node["schema"])
    elif kind in _OBJECTS:
        total, fields = node.get("total", True), node["fields"]
        listed = isinstance(fields, list)
        made["fields"] = (
            [_optional(one, total=True) for one in fields]
            if listed
            else {name: _optional(one, total=total) for name, one in fields.items()}
        )
    elif kind == "tagged-union":
        made["choices"] = {tag: _relaxed(one) for tag, one in node["choices"].items()}
    elif (item := _item(node)) is not None:
        made["items_schema"] = [_relaxed(item)] if kind == "tuple" else _relaxed(item)
    elif kind == "dict" and "values_schema" in node:
        made["values_schema"] = _relaxed(node["values_schema"])
    return made


def _optional(field: _Node, *, total: bool) -> _Node:
    made = {**field, "schema": _relaxed(field["schema"])}
    needed = field.get("required", total)
    if field["type"] == "typed-dict-field":
        made["required"] = False
    if needed and field["schema"]["type"] != "default":
        made["schema"] = {"type": "default", "schema": made["schema"], "default": None, "validate_default": False}
    return made


def _validator(core: _Node) -> SchemaValidator:
    make = cast("Any", SchemaValidator)
    try:
        # Otherwise the validators that classes hold already would stand in for what is said here of their fields.
        made = make(core, _use_prebuilt=False)
    except TypeError:  # a pydantic that knows no such word; with it, models are shown when they are whole
        made = make(core)
    return cast("SchemaValidator", made)
