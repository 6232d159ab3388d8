"""The load: the client that sends the planned requests, and the account that misbehaves."""
