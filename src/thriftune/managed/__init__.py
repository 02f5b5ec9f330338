"""Models that somebody else's machines train and run: tuning jobs, their cost in tokens, and the endpoints they leave.

A provider is one `Backend` in a file of its own and a row of `managed/backends.py`; no stage knows one by name.
"""
