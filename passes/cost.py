"""cost: what one execution of every op takes, per rank by broadcasting.

Measured kernel times where the hardware names a calibration that knows the kernel (`dagc/cost/match.py`). Else the
roofline: max(FLOPs / (peak mfu), bytes / (bandwidth mbu)) + launch. Collectives: two-level alpha-beta. Expert ops: work
follows the load of the rank, weight bytes the distinct experts its tokens hit. The floor takes datasheet peaks and no
overhead at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from dagc.cost.expert_load import ExpertLoad
from dagc.cost.network import collective_time
from dagc.cost.records import NO_TRANSFER, Array, Costs, OpCost, Transfer
from dagc.ir.collectives import COLLECTIVES, SEND, wire_bytes
from dagc.ir.graph import Graph, Op, Segment
from dagc.ir.groups import group_shape
from dagc.ir.mesh import Mesh
from dagc.ir.ops.attributes import RingTurnAttrs, SoftmaxMergeAttrs
from dagc.ir.ops.ops import OPS, local_bytes, local_flops, rank_share, traffic
from dagc.ir.routed_dims import Rows, routers, rows_of
from dagc.spec.hardware import Hardware
from dagc.spec.unit import Unit

if TYPE_CHECKING:
    from dagc.cost.exchange import Exchanges
    from dagc.cost.measured import Measured

ABOUT = "estimate every op over its ranks, with a floor beside each estimate"


def run(graph: Graph, unit: Unit, hardware: Hardware | None = None) -> Costs:
    """Costs of every op of every segment; `hardware` replaces the spec's (sensitivities)."""
    machine = hardware or unit.spec.hardware
    costs: dict[tuple[str, str], OpCost] = {}
    load = np.ones(1)
    distinct, plain, dropped, error = 0.0, 1.0, 0.0, 0.0
    for segment in graph.segments:
        loads = {rows: ExpertLoad.of(segment, rows, graph.the_mesh, unit) for rows in routers(segment)}
        if loads:
            experts = max(loads.values(), key=lambda found: found.most)
            load, distinct = experts.in_mesh_order(experts.ranks.relative), experts.ranks.distinct
            plain, dropped, error = experts.ranks.plain, experts.ranks.dropped, experts.ranks.error
        measured = _measured(segment, graph.the_mesh, unit, machine, loads)
        exchanges = _exchanges(segment, unit, machine)
        for op in segment.ops:
            rows = rows_of(op.dims)
            busy = loads[rows] if rows is not None else None
            if op.is_collective:
                cost = _collective(segment, op, graph.the_mesh, machine, busy, exchanges)
            else:
                cost = _compute(segment, op, graph.the_mesh, machine, busy, measured.get(op.name))
                launched = op.name in measured or not OPS[op.kind].fused
                if not unit.phase.cuda_graph and launched and cost.time_s.any():
                    launch_s = cost.launch_s + machine.launch_s
                    cost = replace(cost, time_s=cost.time_s + machine.launch_s, launch_s=launch_s)
            costs[segment.name, op.name] = cost
    edges, tokens = _stage_edges(graph, machine)
    return Costs(costs, edges, tokens, load, distinct, plain, dropped, load_error=error, host_s=unit.phase.host_s)


def _measured(
    segment: Segment, mesh: Mesh, unit: Unit, machine: Hardware, loads: Mapping[Rows, ExpertLoad]
) -> dict[str, Measured]:
    """Times of measured kernels, when the hardware names a calibration."""
    if machine.calibration is None:
        return {}
    from dagc.cost.match import measured_times

    return measured_times(segment, mesh, unit.spec.model, unit.phase, machine, loads)


def _exchanges(segment: Segment, unit: Unit, machine: Hardware) -> Exchanges | None:
    """Measured collectives, when the hardware names a calibration."""
    if machine.calibration is None:
        return None
    from dagc.calib import load
    from dagc.cost.exchange import Exchanges

    return Exchanges(segment, unit, machine, load(machine.calibration))


def _compute(
    segment: Segment, op: Op, mesh: Mesh, machine: Hardware, experts: ExpertLoad | None, measured: Measured | None
) -> OpCost:
    flops = local_flops(segment, op, mesh)
    moved = traffic(segment, op, mesh)
    work = reads = np.ones((1,) * len(mesh.atoms))
    share = rank_share(segment, op, mesh)
    if experts is not None and op.scope == "experts":
        work, reads = experts.work, experts.reads
    moved_B = (moved.activations_B * work + moved.weights_B) + moved.expert_weights_B * reads
    peak = (
        machine.peak_flops(_math_dtype(segment, op)) if OPS[op.kind].uses_tensor_cores else machine.peak_flops("fp32")
    )
    launch = 0.0 if OPS[op.kind].fused else machine.launch_s
    own_flops = flops * work * share
    compute_s, memory_s = own_flops / (peak * machine.mfu), moved_B / (machine.hbm_Bps * machine.mbu)
    time: Array = np.maximum(compute_s, memory_s) + launch
    floor: Array = np.maximum(own_flops / peak, moved_B / machine.hbm_Bps)
    bound = "compute" if compute_s.max() > memory_s.max() else "memory"
    if measured is None:
        return OpCost(time, floor, bound, flops, float(moved_B.max()), launch_s=launch)
    return OpCost(
        measured.time_s, np.minimum(floor, measured.time_s), bound, flops, float(moved_B.max()),
        family=measured.family, error=measured.error, outside=measured.outside,
    )  # fmt: skip


def _math_dtype(segment: Segment, op: Op) -> str:
    """A matmul runs at the precision of its weight; attention at that of its activations."""
    return next((segment.weight[n].dtype for n in op.inputs if n.startswith("@")), op.dtype)


def _collective(
    segment: Segment,
    op: Op,
    mesh: Mesh,
    machine: Hardware,
    experts: ExpertLoad | None,
    exchanges: Exchanges | None,
) -> OpCost:
    source = op.inputs[0]
    layout = op.sharding if COLLECTIVES[op.kind].sends_result else segment.sharding_of(source)
    assert layout is not None
    payload = local_bytes(segment, source, layout.dims, mesh)
    if (
        isinstance(op.attrs, SoftmaxMergeAttrs) and op.attrs.is_statistic
    ):  # the row statistics of a split softmax: one number a row
        from dagc.ir.graph import DTYPE_BYTES

        width = segment.size(segment.dims_of(source)[-1]) / mesh.size(layout.dims[-1])
        payload = payload / width / DTYPE_BYTES[segment.dtype_of(source)] * DTYPE_BYTES[op.dtype]
    group = mesh.group(op.axes)
    steps = op.attrs.steps if isinstance(op.attrs, RingTurnAttrs) else 1
    worst = experts.most if experts is not None and op.is_token_exchange else 1.0
    found = collective_time(op.kind, payload * worst, group, machine.node, machine.cluster)
    floor = collective_time(op.kind, payload, group, machine.node, machine.cluster, floor=True)
    one = np.ones((1,) * len(mesh.atoms))
    wire = wire_bytes(op.kind, payload, group.ranks) * steps
    moving = collective_time(op.kind, payload * worst, group, machine.node, machine.cluster, floor=True)
    bound = _link_bound(float(found.time_s), float(moving.time_s), group.nodes)
    time_s = float(found.time_s)
    measured = exchanges.measured(op, payload * worst, group, time_s) if exchanges is not None else None
    if measured is not None:
        time_s = float(measured.time_s)
        return OpCost(
            one * time_s * steps, one * min(float(floor.time_s), time_s) * steps, bound, 0.0, 0.0, payload, wire, group,
            measured.family, measured.family, measured.error, measured.outside,
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


def _stage_edges(graph: Graph, machine: Hardware) -> tuple[tuple[Transfer, ...], Transfer]:
    """Sends of the graph, each of its value's local shard; and of the sampled tokens back to the first stage. All take as
    long as between the two GPUs that are farthest apart."""
    mesh = graph.the_mesh
    if mesh.stages == 1:
        return (), NO_TRANSFER
    ids = mesh.ids.reshape(mesh.stages, -1)
    pairs = np.stack([ids[:-1].ravel(), ids[1:].ravel()], axis=1)
    group = group_shape(pairs, mesh.the_gpus.per_node)

    def transfer(size: float) -> Transfer:
        found = collective_time(SEND.name, size, group, machine.node, machine.cluster)
        floor = collective_time(SEND.name, size, group, machine.node, machine.cluster, floor=True)
        bound = _link_bound(float(found.time_s), float(floor.time_s), group.nodes)
        return Transfer(size, float(found.time_s), float(floor.time_s), bound)

    takers = [graph.segment(graph.stages[edge.target].layers[0][0]) for edge in graph.sends]
    sent_B = [local_bytes(s, s.input, edge.sharding.dims, mesh) for s, edge in zip(takers, graph.sends, strict=True)]
    last = takers[-1]
    tokens_B = last.sizes["batch"] / mesh.size(graph.sends[-1].sharding.dims[0]) * TOKEN_B
    return tuple(transfer(size) for size in sent_B), transfer(tokens_B)


TOKEN_B = 8
"""Bytes of a token's id."""
