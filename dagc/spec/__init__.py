"""Typed records of what a spec says: hardware, model, workload, strategy, requirements."""
