"""The eager engine: the time loop on torch operations.

Every row is a system of its own; a solve with joint coupling is a solve with one row.
Per-row quantities (times, step sizes, errors) are columns, ``[rows, 1]``.
"""
