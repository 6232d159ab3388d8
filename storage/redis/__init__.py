"""Everything in Redis: signals, counters, model limits. All of it may be lost without harm."""
