"""Ops and collectives on NumPy arrays, in float64."""
