"""How a phase places experts on ranks, in words."""

from __future__ import annotations

from math import ceil
from statistics import fmean

from ...base.units import BYTE_RATE, BYTES, TIME, show
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
    anew = [*placed_anew(result), *from_hosts(plan, result)]
    layers = placed_experts(result.graph, plan.units[result.name])
    if not layers:
        return anew
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
    return [line, *anew]


def placed_anew(result: PhaseResult) -> list[str]:
    """What placing experts anew by loads that change moves and gains."""
    found = result.rebalanced
    if found is None:
        return []
    line = (
        f"experts placed anew every {found.every:,} steps: busiest rank {result.costs.imbalance:.3f} times the mean over time, {found.imbalance:.3f} with the "
        f"first placement kept; {show(found.moved_B, BYTES)} move in {show(found.move_s, TIME)}"
    )
    steps = None if found.break_even is None else max(1, ceil(found.break_even))
    even = "" if steps is None else f", earned back in {steps:,} step{'s' if steps > 1 else ''}"
    worth = f"{found.gain:.2%} of the time is saved" if found.gain >= 0 else f"{-found.gain:.2%} more time is taken"
    return [f"{line}{even}: {worth}"]


def from_hosts(plan: CompiledPlan, result: PhaseResult) -> list[str]:
    """How many experts GPUs hold, what the others take, and how long it is until these are there."""
    found, phase = result.expert_cache, plan.spec.phase(result.name)
    if found is None or not result.graph.copies:
        return []
    use, link = phase.experts, plan.spec.of(phase).hardware.host_link
    kept = {"lru": "those used last", "frequency": "the most popular"}[use.cache] if use.warm else "none of them yet"
    when = (
        "as a layer asks for them" if use.foretold is None else f"{use.foretold:.0%} of them named by the layer before"
    )
    steps = (
        "" if found.steps is None else f" as {max(1, ceil(found.steps)):,} passes need them, {show(found.warm_s, TIME)}"
    )
    loaded = (
        "" if found.load_s is None else f", all experts of a host from its storage after {show(found.load_s, TIME)}"
    )
    return [
        f"experts: GPUs hold {use.resident} of a layer ({kept}), {show(found.held_B, BYTES)} each, the others are in host memory: {found.found:.1%} of what a pass "
        f"needs is there, a GPU copies {show(found.copied_B, BYTES, 3)} in it at {show(link.bandwidth_Bps, BYTE_RATE, 3)}, {when}; {found.slowdown:.2f} times the "
        f"time with all of them on GPUs, {found.cold_slowdown:.2f} times with none",
        f"experts are there after {show(found.fill_s, TIME)} of copies{steps}{loaded}",
    ]
