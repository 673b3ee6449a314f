"""Serving at the level of requests: arrivals, policies, step prices, percentiles."""
