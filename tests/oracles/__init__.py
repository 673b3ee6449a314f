"""Collectives that XLA and PyTorch DTensor emit for given layouts, against those of dagc for the same layouts."""
