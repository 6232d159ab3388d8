"""The fields of a request, and the check of their values and limits."""
