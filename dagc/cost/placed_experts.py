"""placed_experts: which experts each rank of a phase has where its spec says how to place them, and how even that is."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil

import numpy as np

from ..base.arrays import NDArray
from ..base.frozen import record
from ..ir.graph import Graph
from ..ir.routed_dims import Rows, group_limit, routers
from ..ir.segment import Segment
from ..ir.sharding import Axes
from ..spec.unit import Unit
from .expert_balance import least_load
from .expert_load import expert_axes, placed_layers, routed_layers, routed_tokens
from .expert_placement import place_layers, rank_loads

Floats = NDArray[np.float64]


@record
class HeldExperts:
    """The experts in the slots of each rank [layers, ranks, slots], numbers from 0, for the rows of one router of a kind of layer, and
    the chances that they were placed by [layers, experts]. Ranks count over `axes`, major first. `layers`: numbers of those that
    have loads of their own; empty where one represents all of the kind."""

    segment: Segment
    rows: Rows
    axes: Axes
    layers: tuple[int, ...]
    chances: Floats
    slots: NDArray[np.int64]


@record
class Evenness:
    """Load of the busiest over the mean, by the loads of experts alone: of experts as they are numbered (without spare copies,
    where they fill the ranks) and as placed."""

    before: float
    after: float


@record
class PlacedLayer:
    """`layer`: number of a routed layer, the first transformer layer 0; None where all layers of the kind are alike. `kind`: its
    segment. `ranks` and `nodes`: how even they are, nodes where the expert ranks are on several. `least`: no placement of these
    copies has a busiest rank with less, over the mean. `experts` [ranks][slots]: numbers from 0."""

    layer: int | None
    kind: str
    ranks: Evenness
    nodes: Evenness | None
    least: float
    experts: tuple[tuple[int, ...], ...]


def placed_experts(graph: Graph, unit: Unit) -> tuple[PlacedLayer, ...]:
    """Of every layer with loads of its own; empty where the phase does not say how experts are placed."""
    if unit.phase.strategy.expert_placement is None:
        return ()
    return tuple(_layers(graph, unit))


def held_experts(graph: Graph, unit: Unit) -> Iterator[HeldExperts]:
    """Of every router, wherever experts are placed by their loads or as they are numbered."""
    mesh, strategy = graph.the_mesh, unit.phase.strategy
    routed = routed_layers(graph)
    for segment in graph.segments:
        for rows in routers(segment):
            axes, slot = expert_axes(segment, rows)
            tokens, _ = routed_tokens(segment, slot, mesh, unit.phase.batching)
            numbers = tuple(i for own, i in graph.layers if own is segment) if unit.routing.layers else ()
            routings = unit.routing.of_layers(numbers, routed if numbers else ())
            given = (
                int(segment.sizes[rows.expert]),
                int(segment.sizes[rows.choice]),
                mesh.size(axes),
                strategy.redundant,
                max(1, ceil(tokens - 1e-9)),
                group_limit(segment, rows).groups,
            )
            chances, slots = placed_layers(routings, *given, mesh.group(axes).nodes, strategy.placing)
            yield HeldExperts(segment, rows, axes, numbers if len(routings) > 1 else (), chances, slots)


def _layers(graph: Graph, unit: Unit) -> Iterator[PlacedLayer]:
    for own in held_experts(graph, unit):
        p, slots = own.chances, own.slots
        ranks, count, nodes = slots.shape[1], p.shape[1], graph.the_mesh.group(own.axes).nodes
        plain = place_layers(p, ranks, unit.phase.strategy.redundant if count % ranks else 0, how="linear")
        before, after = rank_loads(p, plain), rank_loads(p, slots)
        copies = np.stack([np.bincount(each.ravel(), minlength=count) for each in slots])
        least = least_load(p, copies, ranks) / after.mean(axis=1)
        for k in range(len(p)):
            yield PlacedLayer(
                own.layers[k] if own.layers else None,
                own.segment.name,
                Evenness(_most(before[k]), _most(after[k])),
                Evenness(_most(before[k], nodes), _most(after[k], nodes)) if 1 < nodes < ranks else None,
                float(least[k]),
                tuple(map(tuple, slots[k].tolist())),
            )


def _most(loads: Floats, groups: int = 0) -> float:
    """The largest over the mean, of ranks or of equal groups of neighbours."""
    own = loads.reshape(groups, -1).sum(axis=1) if groups else loads
    return float(own.max() / own.mean())
