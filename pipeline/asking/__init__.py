"""Asks an engine about a chunk until each image has an answer or a failure."""
