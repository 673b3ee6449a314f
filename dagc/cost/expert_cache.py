"""expert_cache: what a phase whose GPUs hold some of their experts keeps where, and how long its caches take to fill."""

from __future__ import annotations

from math import ceil, isfinite

import numpy as np

from ..ir.graph import Graph
from ..ir.ops.attributes.copies import ExpertCopyAttrs
from ..ir.routed_dims import group_limit, resident_share, routers, skipped
from ..ir.segment import Segment
from ..spec.hardware import Hardware
from ..spec.unit import Unit
from .cached_experts import Held, characteristic_steps, needed
from .expert_load import expert_axes, placed_layers, routed_layers, routed_tokens
from .memory import weight_size
from .records import Costs


def copied_bytes(graph: Graph, costs: Costs) -> float:
    """Experts that come to a GPU in a pass, of the stage to which most come, on the busiest of its ranks."""
    of_layer = {
        s.name: sum(costs.ops[s.name, op.name].bytes for op in s.ops if isinstance(op.attrs, ExpertCopyAttrs))
        for s in graph.segments
    }
    return graph.in_fullest_stage(of_layer) * graph.microbatches * graph.lanes


def held_bytes(graph: Graph) -> float:
    """Experts on a GPU of the stage that has most."""
    of_layer = {
        s.name: sum(weight_size(s, w, graph.the_mesh) for w in s.weights if _comes(s, w.name)) for s in graph.segments
    }
    return graph.in_fullest_stage(of_layer)


def host_expert_bytes(graph: Graph, rule: str) -> float:
    """Experts that host memory keeps for a GPU, of the stage with most: those that the GPU never has, or all of them where any may have to
    make room."""
    of_layer = {s.name: sum(_on_host(s, graph, rule)) for s in graph.segments}
    return graph.in_fullest_stage(of_layer)


def _comes(segment: Segment, weight: str) -> bool:
    return any(isinstance(op.attrs, ExpertCopyAttrs) and op.inputs[0] == weight for op in segment.ops)


def _on_host(segment: Segment, graph: Graph, rule: str) -> list[float]:
    found = []
    for weight in segment.weights:
        if _comes(segment, weight.name):
            share = resident_share(segment, weight)
            whole = weight_size(segment, weight, graph.the_mesh) / share
            found.append(whole * (1.0 - share) if rule == "frequency" else whole)
    return found


def load_seconds(graph: Graph, hardware: Hardware) -> float | None:
    """Until the experts of all GPUs of a host came from its storage; those that GPUs have alike come once."""
    if hardware.disk_Bps is None:
        return None
    mesh = graph.the_mesh
    total_B = 0.0
    for stage in graph.stages:
        for name, count in stage.layers:
            segment = graph.segment(name)
            for weight in segment.weights:
                if _comes(segment, weight.name):
                    each_B = weight_size(segment, weight, mesh) / resident_share(segment, weight)
                    assert weight.sharding is not None
                    parts = mesh.size(sum(weight.sharding.dims, ()))
                    total_B += count * each_B * parts
    hosts = max(1, ceil(len(mesh.all_gpus) / hardware.per_host))
    return total_B / hosts / hardware.disk_Bps


def steps_to_fill(graph: Graph, unit: Unit) -> float | None:
    """Passes of a micro-batch after which a GPU that began with none has as many experts as it has room for, of the layer and rank where that
    takes longest; None where they are not kept as they are used, or never are so many."""
    use, s = unit.phase.experts, unit.phase.strategy
    if use.cache != "lru":
        return None
    mesh, most = graph.the_mesh, 0.0
    for segment in graph.segments:
        for rows in routers(segment):
            axes, slot = expert_axes(segment, rows)
            tokens, _ = routed_tokens(segment, slot, mesh, unit.phase.batching)
            whole = max(1, ceil(tokens - 1e-9))
            count, top_k, ranks = int(segment.sizes[rows.expert]), int(segment.sizes[rows.choice]), mesh.size(axes)
            held = Held.of(use, count + s.redundant, ranks)
            if held.all:
                continue
            numbers = tuple(i for own, i in graph.layers if own is segment) if unit.routing.layers else ()
            routings = unit.routing.of_layers(numbers, routed_layers(graph) if numbers else ())
            given = count, top_k, ranks, s.redundant, whole, group_limit(segment, rows).groups
            chances, slots = placed_layers(routings, *given, mesh.group(axes).nodes, s.placing)
            for p, own in zip(chances, slots, strict=True):
                q = needed(p * (1.0 - skipped(segment, rows)), own, whole)
                most = max(most, float(np.max(characteristic_steps(q, held.room))))
    return most if isfinite(most) and most > 0 else None
