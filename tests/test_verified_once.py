"""What the verifier looks at once, where passes change layouts alone, does not follow from layouts."""

from __future__ import annotations

import pytest
from conftest import ROOT, spec_text

from dagc.base.diagnostics import Collector
from dagc.base.frozen import replace
from dagc.base.source import Source
from dagc.ir.graph import Graph
from dagc.ir.op import Op
from dagc.ir.ops.op_set import OPS
from dagc.ir.segment import Segment
from dagc.ir.sharding import Sharding
from dagc.ir.verify import verify as verifying
from dagc.ir.verify.operands import verify_op
from dagc.lang.load import load
from dagc.pipeline.lower import lower
from dagc.spec.unit import Unit

TRAINED = spec_text(kind="step", phase="kind = train\ngpus = 0..7, ep = 4, tp = 2", dtype="bf16")


def graphs() -> list[Graph]:
    texts = [(ROOT / f"examples/{name}.moe").read_text() for name in ("custom_attention", "deepseek_v3_h800", "plan_a")]
    found = []
    for text in (*(text.partition("\nserve ")[0].partition("\nrequire")[0] for text in texts), TRAINED):
        spec = load(Source("s.moe", text), Collector(), {}, ROOT / "examples")
        for phase in (*spec.phases, *spec.trainings):
            found += [graph for name, graph in lower(Unit(spec, phase)) if name in ("tp", "reshard")]
    return found


def other_layouts(op: Op) -> list[Op]:
    """The op with each of its dims split by an axis of its own, and with a layout or without."""
    loops = tuple((dim, (f"axis{k}",)) for k, dim in enumerate(op.dims))
    given = Sharding(tuple((f"axis{k}",) for k in range(len(op.dims))), ("rest",))
    return [replace(op, loops=loops), replace(op, loops=()), replace(op, sharding=None), replace(op, sharding=given), replace(op, on="experts")]  # fmt: skip


def test_dims_and_dtypes_follow_from_no_layout() -> None:
    """But for kinds that read sums of rows where those are split, or exchange rows over axes that split experts."""
    kinds = set()
    for graph in graphs():
        for segment in graph.segments:
            for op in segment.ops:
                if not OPS[op.kind].checked_by_layout:
                    kinds.add(op.kind)
                    for other in other_layouts(op):
                        verify_op(segment, other)
    assert len(kinds) > 30


def test_ops_are_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ops whose loops a pass annotated are not, ops that it made or gave other operands are."""
    seen: list[tuple[str, str]] = []

    def counted(segment: Segment, op: Op) -> None:
        seen.append((segment.name, op.name))
        verify_op(segment, op)

    monkeypatch.setattr(verifying, "verify_op", counted)
    spec = load(Source("s.moe", spec_text(phase="gpus = 0..7, ep = 4, tp = 2")), Collector())
    counts = {}
    for name, graph in lower(Unit(spec, spec.phases[0])):
        counts[name] = len(seen)
        seen.clear()
        ops = [op for segment in graph.segments for op in segment.ops]
    assert counts["expand"] > 20 and counts["reshard"] == len(ops)
    assert counts["tp"] <= sum(bool(OPS[op.kind].checked_by_layout) for op in ops)
