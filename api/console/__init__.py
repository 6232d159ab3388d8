"""/console: pages for people. They are a client of the public API and of nothing else."""
