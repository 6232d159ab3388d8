"""From URLs to bytes, in one thread, behind the guard of pipeline/outbound/guard.py."""
