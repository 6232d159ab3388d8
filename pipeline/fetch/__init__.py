"""Fetches image URLs in one thread. Every request passes the guard of pipeline/outbound/guard.py."""
