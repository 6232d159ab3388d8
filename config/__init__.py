"""The settings, and the engine that they choose."""
