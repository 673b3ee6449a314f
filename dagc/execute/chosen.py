"""Chosen tokens of two runs: a near tie of two logits may fall either way, anything else may not."""

from __future__ import annotations

import numpy as np

from .values import Floats, Ints


def are_largest(logits: Floats, tokens: Ints, allowed: float) -> bool:
    """Whether `tokens` [..] are where `logits` [.., vocab] are largest, up to `allowed` times the largest of all logits."""
    if tokens.shape != logits.shape[:-1] or not logits.size:
        return False
    if tokens.min() < 0 or tokens.max() >= logits.shape[-1]:
        return False
    taken = np.take_along_axis(logits, tokens[..., None], axis=-1)[..., 0]
    behind = logits.max(axis=-1) - taken
    return bool((behind <= allowed * np.abs(logits).max()).all())
