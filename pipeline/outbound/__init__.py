"""Requests to URLs that callers name: which addresses are allowed, the guard that enforces it, and webhooks."""
