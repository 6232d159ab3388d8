"""Runs the service under faults and then checks that it kept its promises: `make torture`."""
