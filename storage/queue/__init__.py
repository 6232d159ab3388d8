"""The queue: steps, their leases, and which of them are announced when."""
