"""Ready-made tools, offered only when they are named: ``calculate``, ``get_current_time``, ``search_documents``.

None of them evaluates code, opens files or starts programs. They are not in the shared registry: whoever looks
tools up passes `READY_MADE` to `plait.tools.find_tools`, so that a user's own tool of the same name goes before.
"""

from __future__ import annotations

import ast
import functools
import heapq
import inspect
import math
import operator
import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol, TypedDict

from plait.errors import ConfigurationError, ToolError, excerpt
from plait.tools import as_tool

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from plait.toolbase import Tool

Number = int | float

_MAX_EXPRESSION: Final = 500
_MAX_DEPTH: Final = 50
_MAX_BITS: Final = 4096
_MAX_EXPONENT: Final = 4096


def calculate(expression: str) -> str:
    """Calculate an arithmetic expression.

    Args:
        expression: numbers with + - * / // % ** and parentheses, the constants pi, e and tau, and the functions
            abs, round, min, max, sqrt, exp, log, log2, log10, sin, cos, tan, asin, acos, atan, atan2, degrees,
            radians, floor, ceil, factorial, gcd and hypot. Angles are in radians.
    """
    if len(expression) > _MAX_EXPRESSION:
        msg = f"the expression has {len(expression):,} characters; at most {_MAX_EXPRESSION} are calculated"
        raise ToolError(msg)
    try:
        tree = ast.parse(expression.strip(), mode="eval")
        result = _value(tree.body, _MAX_DEPTH)
        return str(result)
    except (SyntaxError, RecursionError, MemoryError):
        msg = f"{excerpt(expression, 80)!r} is no arithmetic expression; write for example '2 * (3 + 4) ** 2'"
    except ZeroDivisionError:
        msg = f"{excerpt(expression, 80)!r} divides by zero"
    except OverflowError:
        msg = f"the result of {excerpt(expression, 80)!r} is too large"
    except (ValueError, TypeError) as error:
        msg = f"{excerpt(expression, 80)!r} cannot be calculated: {excerpt(str(error), 80)}"
    raise ToolError(msg)


def _value(node: ast.expr, depth: int) -> Number:
    """Give the value of a syntax tree that holds nothing but what `calculate` promises."""
    if depth <= 0:
        msg = f"the expression is nested more than {_MAX_DEPTH} levels deep"
        raise ToolError(msg)
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return _bounded(value)
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=operand):
            inner = _value(operand, depth - 1)
            return -inner if isinstance(sign, ast.USub) else inner
        case ast.BinOp(left=left, op=sign, right=right):
            operation = _OPERATIONS.get(type(sign))
            if operation is not None:
                return _bounded(operation(_value(left, depth - 1), _value(right, depth - 1)))
        case ast.Name(id=name) if name in _CONSTANTS:
            return _CONSTANTS[name]
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in _FUNCTIONS:
            values = [_value(argument, depth - 1) for argument in arguments]
            return _bounded(_FUNCTIONS[name](*values))
        case _:
            pass
    allowed = f"the functions are {', '.join(sorted(_FUNCTIONS))}, the constants {', '.join(sorted(_CONSTANTS))}"
    msg = f"{excerpt(ast.unparse(node), 60)!r} is not allowed in an arithmetic expression; {allowed}"
    raise ToolError(msg)


def _bounded(value: Number | complex) -> Number:
    if isinstance(value, complex):
        msg = "the result is no real number"
        raise ToolError(msg)
    too_large = value.bit_length() > _MAX_BITS if isinstance(value, int) else not math.isfinite(value)
    if too_large:
        msg = f"the result is too large; at most {_MAX_BITS} bits are calculated"
        raise ToolError(msg)
    return value


def _power(base: Number, exponent: Number) -> Number:
    if isinstance(base, int) and isinstance(exponent, int):
        bits = max(1, base.bit_length()) * abs(exponent)
        if abs(exponent) > _MAX_EXPONENT or (exponent > 0 and abs(base) > 1 and bits > _MAX_BITS + base.bit_length()):
            msg = f"{excerpt(str(base), 20)} ** {excerpt(str(exponent), 20)} is too large to calculate"
            raise ToolError(msg)
    result: Number = base**exponent
    return result


def _factorial(value: Number) -> int:
    if isinstance(value, float) or not 0 <= value <= 300:  # noqa: PLR2004  # 300! has about 2,000 bits
        msg = "factorial takes a whole number from 0 to 300"
        raise ToolError(msg)
    return math.factorial(value)


def _round(value: Number, digits: Number = 0) -> Number:
    if isinstance(digits, float) or abs(digits) > 100:  # noqa: PLR2004  # more digits than any float has
        msg = "round takes a whole number of digits, at most 100"
        raise ToolError(msg)
    return round(value, digits) if digits else round(value)


_OPERATIONS: Final[Mapping[type[ast.operator], Callable[[Any, Any], Number]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: _power,
}
_CONSTANTS: Final[Mapping[str, float]] = {"pi": math.pi, "e": math.e, "tau": math.tau}
_FUNCTIONS: Final[Mapping[str, Callable[..., Number]]] = {
    "abs": abs,
    "round": _round,
    "min": min,
    "max": max,
    "factorial": _factorial,
    **{
        name: getattr(math, name)
        for name in (
            *("sqrt", "exp", "log", "log2", "log10", "sin", "cos", "tan", "asin", "acos", "atan", "atan2"),
            *("degrees", "radians", "floor", "ceil", "gcd", "hypot"),
        )
    },
}


def get_current_time(timezone: str = "UTC") -> str:
    """Get the current date and time.

    Args:
        timezone: an IANA name, such as "Europe/Berlin" or "UTC".
    """
    from datetime import datetime
    from zoneinfo import ZoneInfo

    try:
        zone = ZoneInfo(timezone)
    except (ValueError, OSError, KeyError):
        msg = (
            f"there is no time zone {excerpt(timezone, 40)!r} here; use an IANA name such as 'UTC', 'Europe/Berlin' or "
            "'America/New_York'"
        )
        raise ToolError(msg) from None
    now = datetime.now(zone)
    return f"{now.isoformat(timespec='seconds')} {timezone}, a {now:%A}"


class Passage(TypedDict):
    """A piece of a document that fits a query; a higher score fits better."""

    name: str
    text: str
    score: float


class DocumentIndex(Protocol):
    """What `search_documents` searches: anything with a ``search`` method, sync or async."""

    def search(self, query: str, limit: int) -> Sequence[Any] | Awaitable[Sequence[Any]]:
        """Give at most ``limit`` results, the best first, in any form a tool may return."""
        ...


class TextIndex:
    """An index in memory over documents by name, ranked by BM25.

    Documents are cut into passages at blank lines, of about a thousand characters.

    Args:
        documents: texts by name.

    Raises:
        ConfigurationError: a document is no text.

    The formula is that of Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009),
    with k1 = 1.2 and b = 0.75.
    """

    def __init__(self, documents: Mapping[str, str]) -> None:
        self._passages: list[tuple[str, str]] = []
        for name, text in documents.items():
            given: object = text
            if not isinstance(given, str):
                msg = f"documents are texts by name; {name!r} is {type(given).__name__}"
                raise ConfigurationError(msg)
            self._passages += [(str(name), passage) for passage in _passages(given)]
        self._lengths: list[int] = []
        self._holding: dict[str, list[tuple[int, int]]] = {}
        for number, (name, passage) in enumerate(self._passages):
            words = _words(f"{name} {passage}")
            self._lengths.append(len(words))
            for word, count in Counter(words).items():
                self._holding.setdefault(word, []).append((number, count))
        self._usual = sum(self._lengths) / len(self._lengths) if self._lengths else 1.0

    def search(self, query: str, limit: int = 5) -> list[Passage]:
        """Give at most ``limit`` passages that share a word with the query, the best first."""
        scores: Counter[int] = Counter()
        total = len(self._passages)
        for word in set(_words(query)):
            holding = self._holding.get(word, ())
            rarity = math.log(1 + (total - len(holding) + 0.5) / (len(holding) + 0.5))
            for number, count in holding:
                weight = count + 1.2 * (0.25 + 0.75 * self._lengths[number] / self._usual)
                scores[number] += rarity * count * 2.2 / weight  # type: ignore[assignment]  # counts of type float
        best = heapq.nsmallest(limit, scores.items(), key=lambda found: (-found[1], found[0]))
        return [
            Passage(name=self._passages[number][0], text=self._passages[number][1], score=round(score, 3))
            for number, score in best
        ]


_PASSAGE: Final = 1_000


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def _passages(text: str) -> list[str]:
    made: list[str] = []
    for paragraph in re.split(r"\n\s*\n", text):
        pieces = [paragraph[start : start + _PASSAGE].strip() for start in range(0, len(paragraph), _PASSAGE)]
        for piece in pieces:
            if made and len(made[-1]) + len(piece) < _PASSAGE:
                made[-1] = f"{made[-1]}\n\n{piece}".strip()
            elif piece:
                made.append(piece)
    return made


_SEARCH: Final = "Search the documents. Gives passages with the names of their documents, the best first."


def search_documents(index: Mapping[str, str] | DocumentIndex) -> Tool:
    """Make the tool ``search_documents`` over documents.

    Args:
        index: texts by name, which are ranked by BM25 in memory; or an object with ``search(query, limit)``.

    Returns:
        A tool to pass as ``tools=[search_documents(documents)]``; registered (`register_tool`), it is found by
        its name.

    Raises:
        ConfigurationError: ``index`` is neither.
    """
    if not isinstance(index, Mapping) and not callable(getattr(index, "search", None)):
        msg = (
            "search_documents takes a mapping of names to texts or an object with search(query, limit), not "
            f"{type(index).__name__}"
        )
        raise ConfigurationError(msg)
    searched: Any = TextIndex(index) if isinstance(index, Mapping) else index

    def find(query: str, limit: int = 5) -> object:
        """Search.

        Args:
            query: words to look for.
            limit: how many passages to give, from 1 to 20.
        """
        return searched.search(query, max(1, min(limit, 20))) or f"Nothing was found for {excerpt(query, 80)!r}."

    async def find_async(query: str, limit: int = 5) -> object:
        return await searched.search(query, max(1, min(limit, 20))) or f"Nothing was found for {excerpt(query, 80)!r}."

    find_async.__doc__ = find.__doc__
    function = find_async if inspect.iscoroutinefunction(getattr(searched, "search", None)) else find
    return as_tool({"name": "search_documents", "description": _SEARCH, "func": function, "idempotent": True})


def _no_documents() -> Tool:
    """Make the tool for agents that name it while nothing was registered: it says what is missing."""

    def find(query: str) -> str:
        msg = (
            f"nothing was searched for {excerpt(query, 80)!r}: the application named the tool 'search_documents' "
            "without registering search_documents(index)"
        )
        raise ToolError(msg)

    return as_tool({"name": "search_documents", "description": _SEARCH, "func": find})


@functools.cache
def _ready(function: Callable[..., str]) -> Tool:
    return as_tool({"func": function, "idempotent": True})


READY_MADE: Final[Mapping[str, Callable[[], Tool]]] = {
    "calculate": functools.partial(_ready, calculate),
    "get_current_time": functools.partial(_ready, get_current_time),
    "search_documents": _no_documents,
}
"""The tools that are found by their name without being registered."""
