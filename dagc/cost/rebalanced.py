"""rebalanced: what placing experts anew moves, by GPU and link, and what it is worth."""

from __future__ import annotations

import numpy as np

from ..base.arrays import NDArray
from ..ir.graph import Graph
from ..ir.routed_dims import Rows, group_limit, routers, rows_with
from ..ir.segment import Segment
from ..spec.hardware import Hardware
from ..spec.rebalance import Rebalance
from ..spec.unit import Unit
from .expert_load import expert_axes, rows_of_series
from .memory import weight_size
from .rebalancing import moves_over_time
from .records import Array


def moved(graph: Graph, unit: Unit, plan: Rebalance) -> tuple[int, float, float]:
    """(placements after the first, bytes that all GPUs get, seconds until the last has its part), of one placement in the mean.

    A GPU gets an expert from one of its node where one has it, else over the cluster's links, one after the other."""
    mesh, hardware = graph.the_mesh, unit.spec.experts_on(unit.phase)
    stages = {index: stage.index for stage in graph.stages for index in _indices(graph, stage.index)}
    seconds: dict[int, Array] = {}
    total_B, times = 0.0, 0
    for segment in graph.segments:
        numbers = tuple(index for own, index in graph.layers if own is segment)
        for rows in routers(segment):
            axes, _ = expert_axes(segment, rows)
            ranks, nodes = mesh.size(axes), mesh.group(axes).nodes
            table = rows_of_series(plan, numbers, graph)
            s = unit.phase.strategy
            found = moves_over_time(
                plan,
                table,
                int(segment.sizes[rows.choice]),
                ranks,
                s.redundant,
                group_limit(segment, rows).groups,
                nodes,
                s.placing,
            )
            times, each_B = len(found.inside), expert_bytes(graph, segment, rows)
            per_rank = len(graph.the_mesh.all_gpus) if mesh.apart is None else len(mesh.apart.gpus.ids)
            copies = per_rank / (len(graph.stages) * ranks)
            total_B += float((found.inside + found.across).sum()) * each_B * copies * (len(numbers) / len(table))
            time_s = _seconds(found.inside, found.across, each_B, hardware).sum(axis=0)
            for k, index in enumerate(numbers):
                own = time_s[k if len(table) > 1 else 0]
                seconds[stages[index]] = seconds.get(stages[index], np.zeros(ranks)) + own
    if not times:
        return 0, 0.0, 0.0
    longest = max((float(each.max()) for each in seconds.values()), default=0.0)
    return times, total_B / times, longest / times


def _indices(graph: Graph, stage: int) -> range:
    first = graph.first_layer(stage)
    return range(first, first + sum(count for _, count in graph.stages[stage].layers))


def _seconds(inside: NDArray[np.int64], across: NDArray[np.int64], each_B: float, hardware: Hardware) -> Array:
    """[placements, layers, ranks]"""
    near, far = hardware.node, hardware.cluster
    moving = inside * (each_B / near.bandwidth_Bps) + across * (each_B / far.bandwidth_Bps)
    return np.asarray(moving + (inside > 0) * near.latency_s + (across > 0) * far.latency_s)


def expert_bytes(graph: Graph, segment: Segment, rows: Rows) -> float:
    """Weights of one expert on one rank."""
    mesh = graph.the_mesh
    slots = segment.size(rows.expert, "experts") / mesh.size(expert_axes(segment, rows)[0])
    own = (w for w in segment.weights if w.scope == "experts" and rows in rows_with(segment, w))
    return sum(weight_size(segment, weight, mesh) for weight in own) / slots
