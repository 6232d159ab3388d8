"""Benchmarks of this service. They report ratios, measured in one run on one machine."""
