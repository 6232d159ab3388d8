"""Requests to addresses that strangers name: which are allowed, the guard that holds to it, and webhooks."""
