"""The front door: checks size and shape, names the account, makes the job, waits or answers 202."""
