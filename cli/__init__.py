"""The commands of `extract-image`, such as serve, web, worker, supervisor, keys, credits and demo."""
