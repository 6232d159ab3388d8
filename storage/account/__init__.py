"""What belongs to an account: keys, credits, usage, secrets, cached answers."""
