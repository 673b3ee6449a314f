"""Widths and vocabularies that tp does not divide."""

from __future__ import annotations

import pytest
from conftest import spec_text

import dagc


@pytest.mark.parametrize(
    "tp, heads, kv_heads, width, vocab",
    [
        (6, 6, 6, 27, 32),
        (6, 6, 2, 27, 32),
        (12, 12, 4, 1000, 50257),
        (10, 10, 5, 77, 64),
        (5, 25, 5, 5504, 32001),
        (14, 14, 2, 486, 151),
    ],
)
def test_what_tp_does_not_divide_is_left_whole(tp: int, heads: int, kv_heads: int, width: int, vocab: int) -> None:
    """A dense model: a width and a vocabulary that do not divide are reported, split less, and computed right."""
    model = (
        f"layers = 2, hidden = {4 * heads}, vocab = {vocab}, dtype = fp32\n"
        f"attention {{ kind = gqa, heads = {heads}, kv_heads = {kv_heads}, head_dim = 4 }}\nmlp {{ hidden = {width} }}"
    )
    plan = dagc.compile_text(spec_text(phase=f"gpus = 0..{tp - 1}, tp = {tp}", model=model))
    assert any(d.code == "W06" and f"width {width} does not divide by tp {tp}" in d.message for d in plan.diagnostics)
    assert plan.prove("prefill").verdict == "equal"
    for segment in plan.phases["prefill"].graph.segments:
        for weight in segment.weights:
            assert weight.sharding is not None
            for dim, axes in zip(weight.dims, weight.sharding.dims, strict=True):
                assert segment.size(dim, weight.scope) % plan.phases["prefill"].graph.the_mesh.size(axes) == 0
