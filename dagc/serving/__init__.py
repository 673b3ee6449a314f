"""Serving at the level of requests: arrivals, policies, percentiles."""
