"""MCP servers as a client sees them: connections, and their tools as ours."""
