"""Runs the passes: spec in, results out."""
