"""`extract-image run`: from a folder of pictures to a table.

The modules are the stages, in this order: scan, check, price, plan, send, follow, write. `flow.py` runs them, `state.py` keeps what
has happened, and `progress.py` says it.
"""
