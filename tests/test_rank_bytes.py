"""What one rank reads and writes of values, and the scores that it stores, against the arrays that it has when the plan runs on numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import spec_text
from state_specs import GROUPED, LINEAR, SPARSE, state_spec

import dagc
from dagc.base.dtypes import DTYPE_BYTES
from dagc.execute.machine import RankMachine
from dagc.execute.prove import twin_inputs, twin_of_phase
from dagc.ir.op import Op
from dagc.ir.ops.attention_operands import attend_operands, entry_operands
from dagc.ir.ops.attention_work import score_bytes, seen_bytes
from dagc.ir.ops.attributes.attention import AttendAttrs
from dagc.ir.ops.kind import Tokens
from dagc.ir.ops.op_set import OPS, read_bytes, result_bytes
from dagc.ir.segment import Segment

ALL_ENTRIES = """block grouped_block(x) {
  let ratio = 4
  h = rms_norm(x)
  q[batch, seq, heads, head_dim] = h * Wq[hidden, heads, head_dim]
  k[batch, seq, head_dim] = h * Wk[hidden, head_dim]
  z[batch, seq, head_dim] = h * Wz[hidden, head_dim]
  o = attend(q, k, k, causal = true, entries = pool(k, z, B[ratio, head_dim]))
  y[batch, seq, hidden] = o * Wo[heads, head_dim, hidden]
  return x + y
}
layer hybrid { grouped_block, moe }
"""
PLANS = [
    ("", "prefill", "gpus = 0..3, tp = 2, sp = 2"),
    ("", "prefill", "gpus = 0..3, sp = 4, sp_method = ring"),
    ("", "prefill", "gpus = 0..3, sp = 2, tp = 2, sp_method = ulysses"),
    ("", "prefill", "gpus = 0..7, tp = 4, sequence_parallel = true, ep = 2"),
    ("", "decode", "gpus = 0..7, tp = 8, dcp = 2"),
    ("", "decode", "gpus = 0..7, attention { dp = 2, sp = 2, tp = 2 }, experts { ep = 4, tp = 2 }"),
    (LINEAR, "prefill", "gpus = 0..3, tp = 2, sp = 2"),
    (LINEAR, "decode", "gpus = 0..3, tp = 2, dp = 2"),
    (SPARSE, "prefill", "gpus = 0..3, tp = 2, sp = 2"),
    (GROUPED, "prefill", "gpus = 0..3, tp = 2, sp = 2"),
    (GROUPED, "decode", "gpus = 0..7, tp = 2, sp = 4"),
    (ALL_ENTRIES, "decode", "gpus = 0..7, tp = 8, dcp = 2"),
    (ALL_ENTRIES, "decode", "gpus = 0..3, tp = 2, sp = 2"),
]


def plan_of(block: str, kind: str, phase: str) -> dagc.Plan:
    text = state_spec(block, phase, kind) if block else spec_text(kind=kind, phase=phase)
    return dagc.compile_text(
        text.replace(", index_heads = 4, index_dim = 16, index_top_k = 32", "") if "index" not in block else text
    )


def numbers(value: Any) -> int:
    return int(np.asarray(value[0] if isinstance(value, tuple) else value).size)


@pytest.mark.parametrize(("block", "kind", "phase"), PLANS)
def test_values_that_a_rank_reads_and_writes_are_as_large_as_its_arrays(block: str, kind: str, phase: str) -> None:
    """Of every op but those on rows of experts, which differ in number; caches and attention read a part."""
    twin = twin_of_phase(plan_of(block, kind, phase), kind)
    mesh, held, seen = twin.placed.the_mesh, dict[tuple[str, str], list[Any]](), set[str]()

    def watch(segment: Segment, layer: int, op: Op, values: list[Any]) -> None:
        held[segment.name, op.name] = values
        record = OPS[op.kind] if op.name in segment.by_name else None
        if record is None or op.is_collective or op.scope == "experts" or record.tokens is Tokens.AT_HOME:
            return
        seen.add(op.kind)
        assert max(map(numbers, values)) == pytest.approx(result_bytes(segment, op, mesh) / DTYPE_BYTES[op.dtype])
        partly = record.local or record.tokens in (Tokens.CACHE, Tokens.ATTEND)
        for name in () if partly else op.inputs:
            if (segment.name, name) in held and not segment.is_further(name):
                stated = read_bytes(segment, op, name, mesh) / DTYPE_BYTES[segment.dtype_of(name)]
                assert max(map(numbers, held[segment.name, name])) == pytest.approx(stated), (op.name, name)

    RankMachine(twin.placed, twin_inputs(twin), mesh, watch).run()
    assert len(seen) > 8


ATTENDING = [
    (block, kind, phase) for block, kind, phase in PLANS if block not in (SPARSE, LINEAR) and "ring" not in phase
]


@pytest.mark.parametrize(("block", "kind", "phase"), ATTENDING)
def test_scores_and_keys_of_the_rank_that_sees_most_are_counted_by_hand(block: str, kind: str, phase: str) -> None:
    """Position by position: tokens of its part of the context that any of its queries sees; the first part has the entries, too."""
    graph = plan_of(block, kind, phase).phases[kind].graph
    mesh, found = graph.the_mesh, 0
    for segment in graph.body:
        for op in (op for op in segment.ops if OPS[op.kind].tokens is Tokens.ATTEND):
            attrs, found = op.of(AttendAttrs), found + 1
            seq, context = (int(segment.size(d)) for d in ("seq", "context"))
            queries, parts = mesh.size(op.loop("seq")), mesh.size(op.loop("context"))
            rows, most = seq // queries, (0, 0)
            grouped = [
                segment.size(d) for n in entry_operands(op)[1] for d in segment.dims_of(n) if d.startswith("entries.")
            ]
            entries = min([*grouped, *([seq * attrs.chosen_entries] if attrs.chosen_entries else [])], default=0)
            for query in range(queries):
                own = context - seq + query * rows + np.arange(rows)[:, None]
                for part in range(parts):
                    at = part * context // parts + np.arange(context // parts)[None]
                    visible = (at <= own) & (at > own - (attrs.window or context))
                    most = max(
                        most, (int(visible.any(0).sum()) + (entries if part == 0 else 0), -part), key=lambda n: n[0]
                    )
            heads = np.prod([segment.size(d) / mesh.size(op.loop(d)) for d in op.dims[:-1] if d != "seq"])
            assert score_bytes(segment, op, mesh) == pytest.approx(heads * rows * most[0] * DTYPE_BYTES[op.dtype])
            value = attend_operands(op)[2]
            tokens = most[0] - (entries if most[1] == 0 else 0)
            whole = segment.size("context") / parts
            layout_B = segment.count(segment.dims_of(value)) * DTYPE_BYTES[segment.dtype_of(value)]
            split = np.prod([mesh.size(op.loop(d)) for d in segment.dims_of(value)])
            assert seen_bytes(segment, op, value, mesh) == pytest.approx(layout_B / split * tokens / whole)
    assert found
