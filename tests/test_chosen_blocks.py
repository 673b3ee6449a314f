"""Blocks of tokens that an indexer selects for each head: against loops, on every rank, and refused where they cannot be."""

from __future__ import annotations

import numpy as np
import pytest
from state_specs import SPARSE, state_spec

import dagc
from dagc.base.diagnostics import SpecError
from dagc.execute.numpy.ops import of_chosen, select_blocks
from dagc.execute.prove import prove
from dagc.ir.ops.attention_work import query_key_pairs

BLOCKS = (
    SPARSE.replace("sparse_block(x) {", "sparse_block(x) {\n  let index_heads = heads")
    .replace("  iw[batch, seq, index_heads] = h * Wiw[hidden, index_heads]\n", "")
    .replace("iq[batch, seq, index_heads, index_dim] = h * Wiq[hidden, index_heads, index_dim]", "iq[batch, seq, heads, index_dim] = h * Wiq[hidden, heads, index_dim]")
    .replace("  let index_heads = heads\n", "")
    .replace("select(iq, ik, iw, top_k = attention.index_top_k)", "select(iq, ik, top_k = 3, together = 16)")
)  # fmt: skip


@pytest.mark.parametrize("local", [1, 2])
@pytest.mark.parametrize(("context", "first"), [(13, 0), (12, 11), (9, 4), (5, 0)])
def test_blocks_are_those_of_a_loop(context: int, first: int, local: int) -> None:
    torch = pytest.importorskip("torch")
    from dagc.execute.torch import ops

    random, block, count = np.random.default_rng(context + local), 3, 6
    at = np.arange(first, context)
    queries, keys = random.normal(size=(2, len(at), 2, 4)), random.normal(size=(2, context, 4))
    found = select_blocks(queries, keys, at, block, local, min(count, context))
    other = ops.select_blocks(*map(torch.as_tensor, (queries, keys, at)), block, local, min(count, context))
    assert (np.asarray(other) == found).all()
    seen, dims, pairs = of_chosen(
        found, ("batch", "seq", "heads", "chosen"), np.arange(context) <= at[:, None], np.arange(context)
    )
    assert dims == ("batch", "seq", "heads", "context")
    for b, q, h in np.ndindex(2, len(at), 2):
        scores = [queries[b, q, h] @ keys[b, t] if t <= at[q] else -np.inf for t in range(context)]
        best = [max(scores[i : i + block]) for i in range(0, context, block)]
        own = int(at[q]) // block
        always = [own - k for k in range(local) if own >= k]
        rest = sorted((i for i in range(len(best)) if i not in always and best[i] > -np.inf), key=lambda i: -best[i])
        chosen = [*always, *rest][: count // block]
        wanted = {t for i in chosen for t in range(i * block, (i + 1) * block) if t <= at[q]}
        assert set(np.flatnonzero(seen[b, q, h])) == wanted
    assert pairs == seen.sum() / 2


@pytest.mark.parametrize("kind", ["prefill", "decode"])
def test_pairs_are_those_that_ranks_count(kind: str) -> None:
    """The proof counts them on a small twin; here the formula stands against a sum over queries at full size."""
    plan = dagc.compile_text(state_spec(BLOCKS, kind=kind, prompt=250))
    graph = plan.phases[kind].graph
    segment = graph.segment("hybrid")
    op = next(op for op in segment.ops if op.kind == "attend")
    context = int(segment.size("context"))
    first = context - int(segment.size("seq"))
    assert query_key_pairs(segment, op) == sum(min(p + 1, 2 * 16 + p % 16 + 1) for p in range(first, context))


@pytest.mark.parametrize(
    ("kind", "phase"),
    [("prefill", "gpus = 0..3, tp = 2, sp = 2"), ("decode", "gpus = 0..3, tp = 2, sp = 2"), ("mixed", "gpus = 0..1, tp = 2, decode = 16, prompts = [60 tok]")],
)  # fmt: skip
def test_every_rank_computes_what_the_unsharded_model_does(kind: str, phase: str) -> None:
    assert prove(dagc.compile_text(state_spec(BLOCKS, phase, kind, prompt=64)), kind).holds


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("together = 16", "together = 16, local = 4", "local 4 exceeds the 3 blocks"),
        ("together = 16", "local = 2", "`select` takes 3 tensors"),
        ("select(iq, ik,", "select(ik, ik,", "`select` of blocks takes queries [batch, seq, heads, width]"),
    ],
)
def test_what_is_no_choice_of_blocks_is_refused(old: str, new: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        dagc.compile_text(state_spec(BLOCKS.replace(old, new)))
    assert message in str(caught.value)
