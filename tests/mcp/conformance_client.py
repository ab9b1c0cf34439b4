"""An MCP client for the official conformance suite, made of plait's connection.

The suite runs it as ``python conformance_client.py URL``, with the scenario's name in the environment. What each
scenario looks at is said in the suite: https://github.com/modelcontextprotocol/conformance.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import TYPE_CHECKING, Any

from plait import MCPConnection, MCPError

if TYPE_CHECKING:
    from collections.abc import Mapping

EXPECTED = {
    "tools_call": "The sum of 5 and 3 is 8",
    "elicitation-sep1034-client-defaults": (
        'Elicitation completed: {"name":"John Doe","age":30,"score":95.5,"status":"active","verified":true}'
    ),
    "sse-retry": "Reconnection test completed successfully",
}
ARGUMENTS = {"tools_call": {"a": 5, "b": 3}}


async def accept(message: str, schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Fill in nothing."""
    return {}


async def main(scenario: str, url: str) -> None:
    connection = MCPConnection("suite", url, on_elicitation=accept)
    try:
        tools = await connection.open()
    except MCPError as error:
        # The server of this scenario has no tool, and a connection is for tools.
        assert scenario == "initialize"
        assert str(error) == "the MCP server 'suite' offers no tool that can be used"  # noqa: PT017
        return
    (tool,) = tools.values()
    result = await tool.execute(**ARGUMENTS.get(scenario, {}))
    await connection.close()
    assert (result.is_error, result.text) == (False, EXPECTED[scenario]), result


if __name__ == "__main__":
    asyncio.run(main(os.environ["MCP_CONFORMANCE_SCENARIO"], sys.argv[1]))
