"""`extract-image mcp`: the service's API as tools for agents, by the Model Context Protocol."""
