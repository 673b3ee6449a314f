"""Traces of ranks against a plan, call by call: collectives that are missing, too many, of another size or group, or late."""
