"""Makes sense of results: table -> laws -> fits with intervals -> figures -> report.

Needs no device and nothing of the other rooms: a table from anywhere is enough.
"""
