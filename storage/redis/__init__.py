"""What is kept in Redis: signals, counters, the limits of models. Nothing that may not be lost."""
