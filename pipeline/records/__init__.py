"""The record of one image: its JSON Schema, the check against it, and the key of a cached answer."""
