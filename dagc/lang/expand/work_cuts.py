"""Chunks of equally much work: a prompt cut so that every pass multiplies about as much as any other.

Later tokens attend to more than earlier ones, so later chunks are shorter. The work of the first x new tokens is a x + (pairs of queries and keys), which
grows with x; the cuts are where it is a multiple of its n-th part, found by bisection.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from ...base.frozen import replace
from ...ir.entries import group_of
from ...ir.graph import Graph
from ...ir.op import Op
from ...ir.ops.op_set import flops
from ...ir.routed_dims import stem
from ...ir.segment import Segment
from ...spec.phase import Phase
from ...spec.spec import Spec
from ...spec.unit import Unit
from ..fits import tokens_divide_by
from . import expand


def with_cuts(spec: Spec) -> Spec:
    """The spec whose prompts that are to be cut by work are. Raises SpecError where a phase has no graph."""
    if not any(phase.by_work for phase in spec.phases):
        return spec
    return replace(spec, phases=tuple(_cut(spec, phase) for phase in spec.phases))


def _cut(spec: Spec, phase: Phase) -> Phase:
    if not phase.by_work or phase.passes == 1:
        return phase
    new = phase.new_tokens
    work = work_of(expand.run(Unit(spec, phase)), phase.context - new)
    sizes = cuts(work, new, phase.passes, tokens_divide_by(phase))
    return replace(phase, cuts=sizes, tokens=max(sizes), passes=len(sizes), last=0)


def work_of(graph: Graph, before: int) -> Callable[[float], float]:
    """FLOPs of the layers for the first new tokens of a prompt, behind so many cached ones, by how many they are. What the head does for the last
    token of a pass is the same in all."""
    linear = 0.0
    others: list[tuple[Segment, Op]] = []
    for segment in graph.segments[:-1]:
        for op in segment.ops:
            dims = [op.dims, *(segment.dims_of(name) for name in op.inputs)]
            if any(d == "context" or stem(d) == "chosen" or group_of(d) is not None for own in dims for d in own):
                others.append((segment, op))
            else:
                linear += segment.repeat * flops(segment, op) / segment.sizes["seq"]

    def work(tokens: float) -> float:
        found = linear * tokens
        for segment, op in others if tokens else ():
            sized = segment.with_sizes({**segment.sizes, "seq": tokens, "context": before + tokens})
            found += segment.repeat * flops(sized, op)
        return found

    return work


def cuts(work: Callable[[float], float], tokens: int, count: int, unit: int) -> tuple[int, ...]:
    """Tokens of each of so many chunks, in multiples of `unit`; fewer where one would be empty."""
    total, edges = work(tokens), [0]
    for k in range(1, count):
        low, high = edges[-1] // unit, tokens // unit
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if work(middle * unit) < total * k / count else (low, middle)
        if edges[-1] < low * unit < tokens:
            edges.append(low * unit)
    edges.append(tokens)
    return tuple(b - a for a, b in pairwise(edges))
