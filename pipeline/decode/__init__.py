"""From bytes to pictures a model can take, in child processes that may die of it."""
