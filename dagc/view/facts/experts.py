"""How a phase places experts on ranks, in words."""

from __future__ import annotations

from statistics import fmean

from ...cost.placed_experts import placed_experts
from ...plan.plan import CompiledPlan
from ...plan.result import PhaseResult

PLACED_AS = {
    "linear": "as they are numbered",
    "eplb": "placed greedily by their loads (eplb)",
    "balanced": "placed by their loads (balanced)",
}


def expert_lines(plan: CompiledPlan, result: PhaseResult) -> list[str]:
    """How the phase places experts, and how even that makes its expert ranks by the loads alone."""
    layers = placed_experts(result.graph, plan.units[result.name])
    if not layers:
        return []
    how = PLACED_AS[str(plan.spec.phase(result.name).strategy.expert_placement)]
    several = len(layers) > 1
    mean = "in the mean of the layers " if several else ""
    moved = any(own.ranks.before != own.ranks.after for own in layers)
    numbered = f", {fmean(own.ranks.before for own in layers):.3f} as they are numbered" if moved else ""
    worst = max(layers, key=lambda own: own.ranks.after)
    line = (
        f"experts {how}: the busiest of {len(worst.experts)} ranks {mean}{fmean(own.ranks.after for own in layers):.3f} times the mean "
        f"load{numbered}; no placement of these copies below "
        f"{fmean(own.least for own in layers):.3f}"
    )
    name = worst.kind if worst.layer is None else f"layer {worst.layer}"
    line += f"; most in {name}: {worst.ranks.after:.3f}" if several else ""
    nodes = [own.nodes for own in layers if own.nodes is not None]
    if nodes:
        line += f"; busiest node {fmean(n.after for n in nodes):.3f}"
        line += f", {fmean(n.before for n in nodes):.3f} as they are numbered" if moved else ""
    return [line]
