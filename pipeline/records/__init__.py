"""The record of one image: its JSON Schema, its validation, and the cache key of an answer."""
