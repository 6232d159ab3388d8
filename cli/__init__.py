"""What a person types: serve, web, worker, supervisor, keys, credits, demo."""
