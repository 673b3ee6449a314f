"""Numeric proof of a lowering: the model graph on whole tensors against the placed graph, rank by rank."""
