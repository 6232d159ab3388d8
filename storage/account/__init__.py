"""Data of an account: keys, credits, usage, secrets, cached answers."""
