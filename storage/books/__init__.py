"""Compares what the database and scratch say with each other, and changes nothing: docs/adr/0053-alerts-and-the-check.md."""
