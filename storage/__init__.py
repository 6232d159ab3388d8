"""What we remember: SQL rows, scratch objects, Redis signals."""
