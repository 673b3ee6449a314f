"""How many parameters a model has, counted from its blocks."""

from __future__ import annotations

from ..base.diagnostics import Collector
from ..base.dtypes import INDICES
from ..base.units import SCALAR, show
from ..ir.graph import Graph
from ..ir.op import Weight
from ..ir.routed_dims import rows_with, skipped
from ..ir.segment import Segment
from ..spec.spec import Spec


def count_parameters(graph: Graph) -> tuple[float, float]:
    """(total, active per token): routed experts count top_k of their number in the second, less the share of empty ones, a tied head and
    tables of whole numbers not at all."""
    total = active = 0.0
    for segment in graph.segments:
        for weight in (w for w in segment.weights if not w.tied and w.dtype not in INDICES):
            size = segment.count(weight.dims) * segment.repeat
            total += size
            active += size * active_share(segment, weight)
    return total, active


def active_share(segment: Segment, weight: Weight) -> float:
    """Part of a weight that the choices of one token use."""
    if weight.scope != "experts":
        return 1.0
    chosen = (
        segment.sizes[rows.choice] * (1.0 - skipped(segment, rows, 0.0)) / segment.sizes[rows.expert]
        for rows in rows_with(segment, weight)
    )
    return min(1.0, sum(chosen))


def check_stated(spec: Spec, derived: float, out: Collector) -> None:
    """A stated parameter count is checked, never used."""
    stated = spec.model.params_stated
    if stated is None or abs(stated - derived) <= 0.05 * derived:
        return
    ratio = max(stated / derived, derived / stated)
    out.add(
        "W06",
        f"`params` says {show(stated, SCALAR)}, the model has {show(derived, SCALAR)}: {ratio:.1f}x {'less' if derived < stated else 'more'}",
        spec.model.spans.get("params", spec.model.span),
        "stated here",
        because=("every figure uses the parameters counted from the blocks",),
    )
