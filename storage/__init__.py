"""Everything the service stores: SQL rows, scratch objects, Redis signals."""
