"""The SQL transactions of a job, from accept to its end and later."""
