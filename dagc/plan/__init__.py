"""The compiled plan as a record: results of each phase, requirements and verdicts."""
