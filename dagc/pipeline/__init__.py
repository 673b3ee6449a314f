"""The pipeline: runs the passes in order with the verifier after each, from spec to compiled plan."""
