"""What a server says, without what it was entrusted with: servers repeat tokens in errors, and errors are read by many.

Pure. Which values are secret is said by whoever has them.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Iterable

SHORTEST: Final = 6
"""Characters of a value that is looked for; a shorter one is found in every other sentence, and is hardly a secret."""
_SHOWN: Final = "***"


class Redactor:
    """Replaces secret values in foreign text, as they are and as JSON, Python and URLs write them.

    Args:
        values: the secrets.
    """

    __slots__ = ("_forms", "_pattern")

    def __init__(self, values: Iterable[str]) -> None:
        forms = {form for value in values if len(value) >= SHORTEST for form in _forms(value)}
        self._forms = sorted(forms, key=len, reverse=True)  # one may hold another
        self._pattern = re.compile("|".join(map(re.escape, self._forms))) if forms else None

    def __call__(self, text: str, *, is_tail: bool = False) -> str:
        """Give a text without secrets; it must not be cut before.

        Args:
            text: the whole text.
            is_tail: its beginning was lost, and may have been that of a secret.
        """
        if self._pattern is None:
            return text
        rest = max((_overlap(form, text) for form in self._forms), default=0) if is_tail else 0
        return self._pattern.sub(_SHOWN, text[rest:])


def _forms(value: str) -> Iterable[str]:
    return (
        value,
        json.dumps(value)[1:-1],
        json.dumps(value, ensure_ascii=False)[1:-1],
        repr(value)[1:-1],
        quote(value),
    )


def _overlap(form: str, text: str) -> int:
    """How much of a text's beginning is the end of a secret."""
    return next((len(form) - start for start in range(1, len(form)) if text.startswith(form[start:])), 0)
