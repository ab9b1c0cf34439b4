"""`Secret`: a value that tools may have and nobody may see."""

from __future__ import annotations

from typing import NoReturn, Self

from plait.errors import ConfigurationError


class Secret:
    """A password, token or key. It has no text form: not in repr, str, JSON, logs, pickles or prompts.

    A tool that declares a parameter of this type gets the value; nothing else does::

        @tool
        def orders(shop: str, token: Secret) -> list[str]:
            return fetch(shop, token.reveal())

    Raises:
        ConfigurationError: the value is no text.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        if not isinstance(value, str):
            msg = f"a Secret holds a text, not {type(value).__name__}"
            raise ConfigurationError(msg)
        self._value = value

    def reveal(self) -> str:
        """Give the value itself."""
        return self._value

    def __repr__(self) -> str:
        return "Secret('***')"

    def __format__(self, spec: str) -> str:
        return format("***", spec)

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, _: object) -> Self:
        return self

    def __reduce__(self) -> NoReturn:
        msg = "a Secret cannot be pickled; give it to the process that needs it in another way"
        raise TypeError(msg)
