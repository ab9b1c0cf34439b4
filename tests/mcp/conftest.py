"""Servers written by others for the tests of MCP."""

from __future__ import annotations

import os

import pytest

import foreign


@pytest.fixture(scope="session")
def others() -> foreign.Foreign:
    """MCP servers and checks written by others, as installed by ``make test``."""
    try:
        return foreign.find()
    except FileNotFoundError as error:
        reason = f"needs MCP servers written by others, and {str(error)!r} is missing; 'make test' installs it"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
