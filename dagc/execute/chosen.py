"""Chosen tokens of two runs: a near tie of two logits may fall either way, anything else may not."""

from __future__ import annotations

import numpy as np

from ..ir.graph import Graph
from .values import Floats, Ints


def chooses_tokens(graph: Graph) -> bool:
    """Whether the graph returns the tokens that its logits choose."""
    last = graph.segments[-1]
    output = last.by_name[last.output]
    while output.is_collective or output.kind == "slice":
        output = last.by_name[output.inputs[0]]
    return output.kind == "argmax"


def are_largest(logits: Floats, tokens: Ints, allowed: float) -> bool:
    """Whether `tokens` [..] are where `logits` [.., vocab] are largest, up to `allowed` times the largest of all logits."""
    if tokens.shape != logits.shape[:-1] or not logits.size:
        return False
    if tokens.min() < 0 or tokens.max() >= logits.shape[-1]:
        return False
    chosen_logits = np.take_along_axis(logits, tokens[..., None], axis=-1)[..., 0]
    behind = logits.max(axis=-1) - chosen_logits
    return bool((behind <= allowed * np.abs(logits).max()).all())
