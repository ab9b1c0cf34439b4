"""What offers our tools to MCP hosts."""
