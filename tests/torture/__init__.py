"""The service under faults, and an offline check that it kept what it promises: `make torture`."""
