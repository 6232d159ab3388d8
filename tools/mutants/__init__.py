"""Takes safeguards out of the code, one at a time, and says which tests notice: `python -m tools.mutants`."""
