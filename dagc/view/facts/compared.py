"""Two compiled phases side by side: which classes of ops take less time in one of them, so that all differences add up."""

from __future__ import annotations

from collections.abc import Mapping

from ...plan.result import PhaseResult
from ...plan.searched import Part

SMALL = 0.01
"""Parts that differ by less than this share of the larger total are one."""
REST = "all else"
OUTSIDE: Mapping[str, str] = {
    "send": "sends between stages",
    "token_return": "sends between stages",
    "host": "host before a pass",
    "launch": "launches before kernels",
}
"""What steps of the critical path are that no segment has."""


def parts(own: PhaseResult, other: PhaseResult, units: tuple[float, float]) -> tuple[Part, ...]:
    """Classes of ops on both critical paths, the largest difference first; `units`: what each whole path is in the unit of the comparison. Each class
    has its share of the path."""
    times = [_classes(result) for result in (own, other)]
    scaled = []
    for found, whole in zip(times, units, strict=True):
        total = sum(found.values()) or 1.0
        scaled.append({name: time / total * whole for name, time in found.items()})
    before, after = scaled
    every = [Part(name, before.get(name, 0.0), after.get(name, 0.0)) for name in dict.fromkeys((*before, *after))]
    least = SMALL * max(units)
    large = [one for one in every if abs(one.other - one.own) >= least]
    rest = [one for one in every if abs(one.other - one.own) < least]
    large.sort(key=lambda one: -abs(one.other - one.own))
    return (*large, Part(REST, sum(one.own for one in rest), sum(one.other for one in rest)))


def _classes(result: PhaseResult) -> dict[str, float]:
    """Seconds of the critical path by class: a collective with its group, another op by its kind and block."""
    mesh = result.graph.the_mesh
    ops = {(segment.name, op.name): op for segment in result.graph.segments for op in segment.ops}
    out: dict[str, float] = {}
    for step in result.path:
        op = ops.get((step.segment, step.op))
        if op is None:
            name = OUTSIDE.get(step.kind, step.kind)
        elif op.is_collective:
            name = f"{op.runtime_kind} over {'+'.join(mesh.label(op.axes, op.scope))}"
        else:
            name = f"{op.runtime_kind} of {op.block}" if op.block else op.runtime_kind
        out[name] = out.get(name, 0.0) + step.time_s
    return out
