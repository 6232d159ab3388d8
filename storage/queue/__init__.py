"""The queue: steps, their leases, and when steps are announced to workers."""
