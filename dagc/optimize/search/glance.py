"""glance: a plan lowered up to where collectives would be inserted: its ops have their degrees, and so their prices.

Sharding passes annotate ops alone; finding chains of moves, scheduling and memory are most of what compiling takes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ...base.axes import TENSOR
from ...base.diagnostics import Collector, SpecError
from ...base.frozen import replace
from ...cost import chunks
from ...cost.kv_cache import cache_bytes, cache_policy
from ...cost.memory import weight_size
from ...cost.price import price
from ...ir.graph import Graph
from ...ir.graph_pass import GraphPass, PassError
from ...ir.mesh import Factors
from ...ir.op import Weight
from ...ir.ops.op_set import input_layout, result_layout
from ...ir.routed_dims import dim_like
from ...ir.segment import Segment
from ...ir.sharding import Sharding
from ...passes import GRAPH_PASSES
from ...passes.mesh import MakeMesh, wanted_cuts, with_cuts
from ...passes.pp import PipelineParallel
from ...passes.reshard import Reshard
from ...pipeline.analyse import of_size
from ...pipeline.kept import LOST
from ...pipeline.lower import passes_of
from ...pipeline.run_passes import run
from ...spec.phase import Phase
from ...spec.unit import Unit
from .bound_pieces import Learnt, Stored, ops_of
from .exact import Judge, own_names, plain_ops


def glanced(judge: Judge, phase: Phase) -> Learnt | None:
    """What bounds learn from the ops of a plan; None where it is not legal, which compiling it says."""
    unit = Unit(judge.spec, phase, Collector())
    try:
        graph = annotated(judge, unit)
        template, _ = judge.estimates.layouts.expansions.at(unit)
        first = of_size(graph, phase, chunks.sizes(phase)[0])
        return ops_of(first, price(first, unit, kept=template.costs), own_ops(judge, unit), stored(graph, unit))
    except (SpecError, PassError, ArithmeticError, *LOST):
        return None


def meshed(judge: Judge, unit: Unit) -> Graph | None:
    """The graph as far as its mesh and its stages go; None where there is none."""
    try:
        return _lowered(judge, unit, (MakeMesh, PipelineParallel))
    except (SpecError, PassError, ArithmeticError, *LOST):
        return None


def annotated(judge: Judge, unit: Unit) -> Graph:
    """The graph before collectives. Raises SpecError, PassError, Untraceable."""
    return _lowered(judge, unit, GRAPH_PASSES[: GRAPH_PASSES.index(Reshard)])


def _lowered(judge: Judge, unit: Unit, kinds: Sequence[type[GraphPass]]) -> Graph:
    template, sizes = judge.estimates.layouts.expansions.at(unit)
    batching = unit.phase.batching
    graph = replace(template.at(sizes), microbatches=batching.microbatches, lanes=batching.lanes)
    *_, (_, graph) = run([one for one in passes_of(unit) if type(one) in kinds], graph)
    return graph


def stored(graph: Graph, unit: Unit) -> Stored:
    """Weights lie as their first op needs them, caches as their op makes them. What is tied may be stored once, so it counts for nothing."""
    mesh, policy = graph.the_mesh, cache_policy(unit.phase)
    dense_B = routed_B = cache_B = 0.0
    resident = unit.phase.experts.resident
    for segment in graph.segments:
        layout: dict[str, Sharding] = {}
        for op in segment.ops:
            for name in op.inputs:
                if name.startswith("@"):
                    layout.setdefault(name, Sharding(input_layout(segment, op, name)))
        for weight in segment.weights:
            if weight.name in layout and not weight.tied:
                size_B = segment.repeat * weight_size(segment, replace(weight, sharding=layout[weight.name]), mesh)
                share = 1.0 if not resident else min(1.0, resident / physical(segment, weight))
                dense_B, routed_B = (
                    (dense_B, routed_B + size_B * share) if weight.scope == "experts" else (dense_B + size_B, routed_B)
                )
        laid = replace(segment, ops=tuple(replace(op, sharding=result_layout(segment, op)) for op in segment.ops))
        cache_B += segment.repeat * cache_bytes(laid, mesh, graph.kind, policy)
    return Stored(dense_B, routed_B, cache_B)


def physical(segment: Segment, weight: Weight) -> float:
    """Experts of a layer with their copies; of what is no weight of them one."""
    expert = dim_like(weight.dims, "expert")
    return 1.0 if expert is None else segment.size(expert, "experts")


def own_ops(judge: Judge, unit: Unit) -> Mapping[str, frozenset[str]]:
    """Ops of each segment before anything is inserted."""
    try:
        template, _ = judge.estimates.layouts.expansions.at(unit)
    except LOST:
        return plain_ops(unit)
    return own_names(template.graph, unit)


def head_strides(judge: Judge, phase: Phase, degrees: Iterable[int]) -> Mapping[int, int] | None:
    """Of each degree of tp the strides at which heads cut its axis, as a sum of them; None where the model has no graph."""
    try:
        template, _ = judge.estimates.layouts.expansions.at(Unit(judge.spec, phase, Collector()))
    except (SpecError, *LOST):
        return None
    out = {}
    for degree in degrees:
        sides = (((TENSOR, degree),),)
        mesh = with_cuts(sides, wanted_cuts(template.graph, Factors(sides, tuple(d for d, _ in phase.strategy.shard))))
        out[degree] = sum(mesh.stride(name) for name in mesh.sizes)
    return out
