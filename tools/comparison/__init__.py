"""Comparison of compiled plans with published measurements and estimates; `tools/accuracy.py` is the command."""
