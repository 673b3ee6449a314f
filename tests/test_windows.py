"""Windows and chunks: pairs counted as the mask has them, and no more of the cache read than the mask lets through."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import spec_text
from hypothesis import given
from hypothesis import strategies as st

import dagc
from dagc.execute.numpy.ops import visible
from dagc.ir.mesh import Mesh
from dagc.ir.op import Op
from dagc.ir.ops.attention_work import query_key_pairs, seen_share
from dagc.ir.ops.attributes.attention import AttendAttrs
from dagc.ir.ops.op_set import traffic
from dagc.ir.segment import Segment

SIZE = st.integers(1, 40)


@given(queries=SIZE, before=st.integers(0, 40), window=SIZE, chunk=SIZE)
def test_pairs_and_tokens_seen_are_those_of_the_mask(queries: int, before: int, window: int, chunk: int) -> None:
    """Of a prompt, of one after a cached prefix, and of a decode step."""
    tokens = before + queries
    op = Op("o", "attend", ("q", "k", "v"), ("seq",), "bf16", attrs=AttendAttrs(chunk=chunk, window=window))
    sizes = {"seq": float(queries), "context": float(tokens)}
    segment = Segment("s", 1, "x", (), "bf16", (op,), "o", (), sizes)
    mask = visible(np.arange(before, tokens), np.arange(tokens), True, window, chunk)
    assert query_key_pairs(segment, op) == mask.sum()
    assert seen_share(segment, op, Mesh((), {}, {})) >= mask.any(axis=0).mean() - 1e-12
    if queries == 1:
        assert np.isclose(seen_share(segment, op, Mesh((), {}, {})), mask.mean())


def attention(phase: str, kind: str, window: int) -> tuple[Segment, Op, Mesh]:
    model = (
        "layers = 1, hidden = 64, vocab = 512, dtype = bf16\n"
        f"attention {{ heads = 8, kv_heads = 4, head_dim = 8, window = {window} }}\nmlp {{ hidden = 64 }}"
    )
    text = spec_text(kind=kind, phase=phase, model=model, workload="sequences = 4, prompt = 256 tok, output = 256 tok")
    graph = dagc.compile_text(text).phases[kind].graph
    segment, op = next((s, o) for s in graph.segments for o in s.ops if o.kind == "attend")
    return segment, op, graph.the_mesh


@pytest.mark.parametrize(
    ("phase", "kind", "window", "tokens"),
    [
        ("gpus = [0]", "decode", 0, 512),
        ("gpus = [0]", "decode", 32, 32),
        ("gpus = [0]", "decode", 4096, 512),
        ("gpus = 0..3, sp = 4", "decode", 0, 128),
        ("gpus = 0..3, sp = 4", "decode", 32, 32),
        ("gpus = [0]", "prefill", 32, 256),
        ("gpus = 0..3, sp = 4", "prefill", 32, 64 + 31),
        ("gpus = 0..3, sp = 4, sp_method = ring", "prefill", 0, 256),
    ],
)
def test_attention_reads_the_tokens_that_it_sees(phase: str, kind: str, window: int, tokens: int) -> None:
    segment, op, mesh = attention(phase, kind, window)
    sequences, heads, width, each_B = 4, 8, 8, 2
    queries = 1 if kind == "decode" else 256 / mesh.size(op.loop("seq"))
    ends_B = 2 * sequences * heads * queries * width * each_B  # queries and results
    cache_B = 2 * sequences * 4 * tokens * width * each_B
    assert traffic(segment, op, mesh).activations_B == ends_B + cache_B
