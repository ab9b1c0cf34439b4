"""The Model Context Protocol: tools of other programs for agents here, and tools of here for other programs."""
