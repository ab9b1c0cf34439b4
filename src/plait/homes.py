"""Where another process finds a tool: by its module and its name there, or by the file of the program.

Knows nothing of processes.
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import Any

import msgspec

from plait.errors import ConfigurationError
from plait.signatures import plain_function


class Home(msgspec.Struct, frozen=True, kw_only=True):
    """Where a function, or a subclass of `Tool`, is found by another process.

    Attributes:
        module: the module to import.
        name: its name there, with dots for what stands inside a class.
        file: instead of the module: the program's file, when that is where it was written.
        parameters: the JSON Schema somebody wrote for it; None for the one its signature gives.
    """

    module: str
    name: str
    file: str = ""
    parameters: dict[str, Any] | None = None


def find(home: Home, module: object) -> Any:
    """Give what stands at a home.

    Args:
        home: where.
        module: the module of that name.

    Raises:
        AttributeError: nothing does.
    """
    found = module
    for step in home.name.split("."):
        found = getattr(found, step)
    return found


def home_of(target: Any, tool: str, parameters: dict[str, Any] | None = None) -> Home:
    """Say where another process finds a function or class, as far as that can be known when it is defined.

    Args:
        target: the function, or the class.
        tool: the name of the tool.
        parameters: the JSON Schema somebody wrote for it.

    Raises:
        ConfigurationError: it can be found nowhere; the sentence says what to do.
    """
    module, name = getattr(target, "__module__", None), getattr(target, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str):
        raise _homeless(tool, f"{type(target).__name__} objects have no name in a module")
    if inspect.ismethod(target):
        raise _homeless(tool, "it is a method, and what it belongs to cannot cross")
    if "<" in name:
        raise _homeless(tool, f"{name!r} is no name that its module holds")
    if getattr(sys, "frozen", False) or not sys.executable:
        raise _homeless(tool, "this program brings no Python interpreter that could be started")
    if sys.modules.get(module) is not sys.modules["__main__"]:
        return Home(module=module, name=name, parameters=parameters)
    module, file = _program(target, tool)
    return Home(module=module, name=name, file=file, parameters=parameters)


def _program(target: Any, tool: str) -> tuple[str, str]:
    """Give the module, and the file, of a program that defines a tool; the file is empty after ``python -m``."""
    main = sys.modules["__main__"]
    code = None if isinstance(target, type) else plain_function(target)
    if getattr(code, "__globals__", vars(main)) is vars(main):
        spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
        if spec is not None and spec.name != "__main__":  # the module has a name of its own
            return spec.name, ""
        written = getattr(getattr(code, "__code__", None), "co_filename", file)
        if file and Path(file).is_file() and not str(written).startswith("<"):
            return "__main__", str(Path(file).absolute())
    raise _homeless(tool, "it was written at a prompt or in a notebook, which is no file that could be read again")


def confirm(home: Home, target: object, tool: str) -> None:
    """See that what stands at a home is what belongs there: a decorator above ``@tool`` may have replaced it.

    Args:
        home: where.
        target: the function, or the class.
        tool: the name of the tool.

    Raises:
        ConfigurationError: it is something else, or nothing.
    """
    module = sys.modules.get(str(getattr(target, "__module__", "")))
    try:
        found = find(home, module)
    except AttributeError:
        found = None
    if found is not target and getattr(found, "function", None) is not target:
        raise _homeless(tool, f"{home.name!r} of {home.module!r} is something else, or not there")


def _homeless(tool: str, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"the tool {tool!r} cannot be isolated, because another process could not find it: {why}; "
        "write it with def, or as a class, at the top of a module"
    )
