"""Whether a twin is lowered as its plan is: the same ops, layouts, groups and order."""

from __future__ import annotations

from dataclasses import replace

from ..ir.graph import Graph
from ..ir.ops.attributes.attention import AttendAttrs, SelectAttrs, TemperAttrs
from ..ir.ops.attributes.attrs import Attrs
from ..ir.ops.attributes.experts import RouterAttrs
from ..ir.ops.attributes.losses import LossAttrs, ShareAttrs


def otherwise(plan: Graph, twin: Graph) -> str:
    """Where a twin's lowering is not the plan's: mesh, order of layers, every op with its kind, group, layout and place;
    empty where it is."""
    edges = [[(replace(e, beside=()), e.values) for e in g.sends] for g in (plan, twin)]
    if edges[0] != edges[1]:
        return "its sends"
    for name in ("phase", "kind", "level", "mesh", "lanes"):
        if getattr(plan, name) != getattr(twin, name):
            return f"its {name}"
    if (plan.microbatches > 1) != (twin.microbatches > 1):
        return "its micro-batches"
    if [(s.index, s.gpus) for s in plan.stages] != [(s.index, s.gpus) for s in twin.stages]:
        return "its GPUs"
    kinds = [[list(dict.fromkeys(name for name, _ in s.layers)) for s in g.stages] for g in (plan, twin)]
    if kinds[0] != kinds[1] or [s.name for s in plan.segments] != [s.name for s in twin.segments]:
        return "its order of layers"
    for a, b in zip(plan.segments, twin.segments, strict=True):
        for name in (
            "input",
            "input_dims",
            "input_dtype",
            "output",
            "entry",
            "weights",
            "upstream",
            "downstream",
            "taken",
            "handed",
        ):
            if getattr(a, name) != getattr(b, name):
                return f"{a.name}: its {name}"
        if len(a.ops) != len(b.ops):
            return f"{a.name}: {len(b.ops)} ops, the plan has {len(a.ops)}"
        for op, other in zip(a.ops, b.ops, strict=True):
            if replace(op, attrs=_unsized(op.attrs)) != replace(other, attrs=_unsized(other.attrs)):
                return f"{a.name}/{op.name}"
    return ""


def _unsized(attrs: Attrs) -> Attrs:
    """Attributes without those that are sizes: of these only whether there are any."""
    if isinstance(attrs, TemperAttrs):
        return attrs.but(floor=1.0)
    if isinstance(attrs, AttendAttrs):
        return attrs.but(
            window=min(attrs.window, 1), chunk=min(attrs.chunk, 1), chosen=min(attrs.chosen, 1), chosen_together=min(attrs.chosen_together, 1),
            chosen_entries=min(attrs.chosen_entries, 1),
        )  # fmt: skip
    if isinstance(attrs, SelectAttrs):
        return attrs.but(together=min(attrs.together, 1), local=1)
    if isinstance(attrs, LossAttrs):
        return attrs.but(tokens=1)
    if isinstance(attrs, ShareAttrs):
        return attrs.but(sequences=min(attrs.sequences, 1))
    return attrs.but(top_k=1, groups_limit=1) if isinstance(attrs, RouterAttrs) else attrs
