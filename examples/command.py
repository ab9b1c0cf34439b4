"""How the programs beside this one begin and end: words, errors in one line, Ctrl-C. Nothing about plait itself."""

from __future__ import annotations

import asyncio
import inspect
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plait import PlaitError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


def run(form: Callable[..., None], async_form: Callable[..., Coroutine[Any, Any, None]]) -> None:
    """Run one of two forms of a program with the words of the command line: the async one after ``--async``.

    What goes wrong is one line on stderr and exit code 1, as is Ctrl-C with exit code 130.
    """
    words = [word for word in sys.argv[1:] if word != "--async"]
    try:
        inspect.signature(form).bind(*words)
    except TypeError:
        names = "".join(f" [{name}]" for name in inspect.signature(form).parameters)
        sys.exit(f"usage: python {Path(sys.argv[0]).name} [--async]{names}")
    try:
        if "--async" in sys.argv:
            asyncio.run(async_form(*words))
        else:
            form(*words)
    except PlaitError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
