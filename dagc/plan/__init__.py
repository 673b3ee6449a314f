"""The compiled plan as a record: results of each phase, metrics, requirements and verdicts."""
