"""transfers: what one collective of a graph costs, and a send from a stage to the next.

Two-level alpha-beta (`network.py`), or a measured kernel where a calibration knows it (`exchange.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..base.collectives import COLLECTIVES, SEND, wire_bytes
from ..ir.graph import Graph, Op, Segment
from ..ir.groups import group_shape
from ..ir.mesh import Mesh
from ..ir.ops.attributes import RingTurnAttrs
from ..ir.ops.sizes import local_bytes
from ..spec.hardware import Hardware
from .expert_load import ExpertLoad
from .network import collective_time
from .records import NO_TRANSFER, OpCost, Transfer

if TYPE_CHECKING:
    from .exchange import Exchanges

TOKEN_B = 8
"""Bytes of a token's id."""


def collective_cost(
    segment: Segment,
    op: Op,
    mesh: Mesh,
    hardware: Hardware,
    experts: ExpertLoad | None,
    exchanges: Exchanges | None,
) -> OpCost:
    source = op.inputs[0]
    layout = op.sharding if COLLECTIVES[op.runtime_kind].sends_result else segment.sharding_of(source)
    assert layout is not None
    payload = local_bytes(segment, source, layout.dims, mesh)
    group = mesh.group(op.axes)
    steps = op.attrs.steps if isinstance(op.attrs, RingTurnAttrs) else 1
    worst = experts.most if experts is not None and op.is_token_exchange else 1.0
    found = collective_time(op.runtime_kind, payload * worst, group, hardware.node, hardware.cluster)
    floor = collective_time(op.runtime_kind, payload, group, hardware.node, hardware.cluster, floor=True)
    one = np.ones((1,) * len(mesh.atoms))
    wire = wire_bytes(op.runtime_kind, payload, group.ranks) * steps
    moving = collective_time(op.runtime_kind, payload * worst, group, hardware.node, hardware.cluster, floor=True)
    bound = _link_bound(float(found.time_s), float(moving.time_s), group.nodes)
    time_s = float(found.time_s)
    measured = exchanges.measured(op, payload * worst, group, time_s) if exchanges is not None else None
    if measured is not None:
        time_s = float(measured.time_s)
        return OpCost(
            one * time_s * steps, one * min(float(floor.time_s), time_s) * steps, bound, 0.0, 0.0, payload, wire, group,
            measured.family, measured.family, measured.error, measured.outside, measured.table, measured.instead_of,
        )  # fmt: skip
    return OpCost(
        one * float(found.time_s) * steps,
        one * float(floor.time_s) * steps,
        bound,
        0.0,
        0.0,
        payload,
        wire,
        group,
        found.algorithm,
    )


def _link_bound(time_s: float, moving_s: float, nodes: int) -> str:
    """Latency, when moving the bytes takes less than half of the time; else the link that carries them."""
    if moving_s < time_s / 2:
        return "latency"
    return "cluster" if nodes > 1 else "node"


def stage_edges(graph: Graph, hardware: Hardware) -> tuple[tuple[Transfer, ...], Transfer]:
    """Sends of the graph, each of its value's local shard; and of the sampled tokens back to the first stage. All take as
    long as between the two GPUs that are farthest apart."""
    mesh = graph.the_mesh
    if mesh.stages == 1:
        return (), NO_TRANSFER
    ids = mesh.ids.reshape(mesh.stages, -1)
    pairs = np.stack([ids[:-1].ravel(), ids[1:].ravel()], axis=1)
    group = group_shape(pairs, mesh.the_gpus.per_node)

    def transfer(size: float) -> Transfer:
        found = collective_time(SEND.name, size, group, hardware.node, hardware.cluster)
        floor = collective_time(SEND.name, size, group, hardware.node, hardware.cluster, floor=True)
        bound = _link_bound(float(found.time_s), float(floor.time_s), group.nodes)
        return Transfer(size, float(found.time_s), float(floor.time_s), bound)

    takers = [graph.segment(graph.stages[edge.target].layers[0][0]) for edge in graph.sends]
    sent_B = [local_bytes(s, s.input, edge.sharding.dims, mesh) for s, edge in zip(takers, graph.sends, strict=True)]
    last = takers[-1]
    sequences = sum(last.size("batch", part) for part in last.parts) or last.sizes["batch"]
    tokens_B = sequences / mesh.size(graph.sends[-1].sharding.dims[0]) * TOKEN_B
    return tuple(transfer(size) for size in sent_B), transfer(tokens_B)
