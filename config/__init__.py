"""The settings, and the engine that they name."""
