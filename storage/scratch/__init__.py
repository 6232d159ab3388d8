"""Scratch storage for images while their job is open: a folder or a bucket."""
