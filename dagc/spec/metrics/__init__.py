"""The metrics: one record each, with how it follows from the plan; every output reads the table."""
