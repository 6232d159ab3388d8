"""The front door: checks size and shape, finds the account, makes the job, waits or answers 202."""
