"""The Model Context Protocol: the tools of MCP servers as plait's, and plait's tools for MCP hosts."""
