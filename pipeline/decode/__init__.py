"""Decodes images in child processes, because a hostile image may crash its decoder, and converts them for the model."""
