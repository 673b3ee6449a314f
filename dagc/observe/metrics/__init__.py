"""A run as its metrics show it: what engines, drivers and clients counted, and the spec's requirements judged on it."""
