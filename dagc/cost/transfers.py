"""transfers: what one collective of a graph costs, and a send from a stage to the next.

Alpha-beta over the levels of links (`network.py`), or a measured kernel where a calibration knows it (`exchange.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from ..base.collectives import COLLECTIVES, SEND, wire_bytes
from ..base.frozen import replace
from ..base.traced import called
from ..ir.graph import Graph, Stage
from ..ir.groups import GroupShape
from ..ir.handed_on import Made, are_handed_on, crossing, crossing_back, sent
from ..ir.mesh import Mesh
from ..ir.op import Op
from ..ir.ops.attributes.moves import RingTurnAttrs
from ..ir.ops.sizes import local_bytes
from ..ir.requests import request_moves
from ..ir.segment import Segment
from ..spec.hardware import Hardware, Link, Tier
from .expert_load import ExpertLoad
from .network import CollectiveTime, beyond_ports, collective_time, crossing_time, spanned
from .records import NO_HOPS, NO_TRANSFER, Array, Hops, OpCost, Transfer

if TYPE_CHECKING:
    from .exchange import Exchanges
    from .kept_costs import SegmentCosts
    from .schedule.training.cell_orders import PipelineSchedule

TOKEN_B = 8
"""Bytes of a token's id."""


def collective_cost(
    segment: Segment,
    op: Op,
    mesh: Mesh,
    hardware: Hardware,
    experts: ExpertLoad | None,
    exchanges: Exchanges | None,
    kept: SegmentCosts | None = None,
    between: Link | None = None,
) -> OpCost:
    """`between`: what joins the phase's pool and that of its experts, where they are two."""
    source = op.inputs[0]
    layout = op.sharding if COLLECTIVES[op.runtime_kind].sends_result else segment.sharding_of(source)
    assert layout is not None
    payload = local_bytes(segment, source, layout.dims, mesh)
    worst = experts.most if experts is not None and op.is_token_exchange else 1.0
    if op.is_across and between is not None:
        return _linked_cost(op, payload, worst, mesh, between)
    if kept is None:
        return call_cost(op, payload, worst, mesh, hardware, exchanges)
    sent = exchanges.tokens(op, payload * worst) if exchanges is not None and op.is_token_exchange else None
    key = op.runtime_kind, _steps(op), payload, worst, mesh.group(op.axes), sent
    return kept.call(key, lambda: call_cost(op, payload, worst, mesh, hardware, exchanges))


def _steps(op: Op) -> int:
    return op.attrs.steps if isinstance(op.attrs, RingTurnAttrs) else 1


@called
def call_cost(
    op: Op, payload: float, worst: float, mesh: Mesh, hardware: Hardware, exchanges: Exchanges | None
) -> OpCost:
    """Of a payload on the mean rank, `worst` times as much on the busiest."""
    group = mesh.group_of(op.kind, op.axes)
    if group.ends is not None:
        bound = _crossed(group, hardware).bound
        by_level = partial(_by_level, hardware=hardware)
        return _crossing_cost(op, payload, worst, group, mesh, hardware.links, bound, by_level)
    steps = _steps(op)
    found = collective_time(op.runtime_kind, payload * worst, group, *hardware.links)
    floor = collective_time(op.runtime_kind, payload, group, *hardware.links, floor=True)
    one = np.ones((1,) * len(mesh.atoms))
    wire = wire_bytes(op.runtime_kind, payload, group.ranks) * steps
    moving = collective_time(op.runtime_kind, payload * worst, group, *hardware.links, floor=True)
    bound = _link_bound(float(found.time_s), float(moving.time_s), _crossed(group, hardware).bound)
    level_B = _by_level(found, wire, hardware)
    time_s = float(found.time_s)
    measured = exchanges.measured(op, payload * worst, group, time_s) if exchanges is not None else None
    if measured is not None:
        time_s = float(measured.time_s)
        return OpCost(
            one * time_s * steps, one * min(float(floor.time_s), time_s) * steps, bound, 0.0, 0.0, payload, wire, group,
            measured.family, measured.family, measured.error, measured.outside, measured.table, measured.instead_of,
            level_B=level_B, buffer_B=measured.buffer_B,
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
        level_B=level_B,
    )


LINKED = "pools"
"""Names the links between pools among what bounds a time, and among levels."""


@called
def _linked_cost(op: Op, payload: float, worst: float, mesh: Mesh, link: Link) -> OpCost:
    """The same to experts in another pool."""
    group = mesh.crossing(op.kind)
    return _crossing_cost(op, payload, worst, group, mesh, (link,), LINKED, lambda found, wire_B: {LINKED: wire_B})


def _crossing_cost(
    op: Op, payload: float, worst: float, group: GroupShape, mesh: Mesh, links: tuple[Link, ...], bound: str,
    by_level: Callable[[CollectiveTime[float], float], Mapping[str, float]],
) -> OpCost:  # fmt: skip
    """Between attention and experts on other GPUs. `payload`: what a rank gets; the busiest rank is one of the experts."""
    assert group.ends is not None
    sent, received = (1.0, worst) if op.on else (worst, 1.0)
    found = crossing_time(payload, group, *links, sent=sent, received=received)
    moving = crossing_time(payload, group, *links, floor=True, sent=sent, received=received)
    floor = crossing_time(payload, group, *links, floor=True)
    one = np.ones((1,) * len(mesh.atoms))
    wire = payload * group.ends.receivers / group.ends.senders
    bound = _link_bound(float(found.time_s), float(moving.time_s), bound)
    return OpCost(
        one * float(found.time_s), one * float(floor.time_s), bound, 0.0, 0.0, payload, wire, group, found.algorithm,
        level_B=by_level(found, wire),
    )  # fmt: skip


def _by_level(found: CollectiveTime[float], wire_B: float, hardware: Hardware) -> dict[str, float]:
    """Bytes on the wire by level, in the parts that the fastest algorithm has there."""
    total = sum(found.level_B)
    parts = zip(hardware.tiers, found.level_B, strict=True)
    return {tier.name: float(wire_B * part / total) for tier, part in parts if total and part}


def _link_bound(time_s: float, moving_s: float, crossed: str) -> str:
    """Latency, when moving the bytes takes less than half of the time; else the links that the group crosses."""
    return "latency" if moving_s < time_s / 2 else crossed


def _crossed(group: GroupShape, hardware: Hardware) -> Tier:
    """The outermost links that a group crosses."""
    return hardware.tiers[spanned(group, hardware.links)[2][-1]]


def stage_edges(graph: Graph, hardware: Hardware) -> tuple[tuple[Transfer, ...], Transfer]:
    """Sends of the graph, each of its values' local shards and as long as between the two of its GPUs that are farthest apart;
    and of the sampled tokens from the last stage back to the first."""
    mesh = graph.the_mesh
    if mesh.stages == 1:
        return (), NO_TRANSFER

    def transfer(size: float, source: int, target: int) -> Transfer:
        return between_stages(size, source, target, mesh, hardware)

    sent_B = [
        sum(local_bytes(s, name, layout.dims, mesh) for _, s, name, layout in sent(graph, e)) for e in graph.sends
    ]
    last = graph.segment(graph.stages[-1].layers[0][0])
    sequences = sum(last.size("batch", part) for part in last.parts) or last.sizes["batch"]
    tokens_B = sequences / mesh.size(graph.sends[-1].sharding.dims[0]) * TOKEN_B
    edges = (transfer(size, e.source, e.target) for size, e in zip(sent_B, graph.sends, strict=True))
    return tuple(edges), transfer(tokens_B, mesh.stages - 1, 0)


def stage_returns(graph: Graph, hardware: Hardware) -> tuple[Transfer, ...]:
    """Of a training step the sends of gradients back; none where they are as large as those forward."""
    mesh = graph.the_mesh
    if mesh.stages == 1 or graph.embedding.upstream is None or not are_handed_on(graph):
        return ()
    sizes = [sum(local_bytes(s, n, at.dims, mesh) for _, s, n, at in sent(graph, e, back=True)) for e in graph.sends]
    ends = zip(sizes, graph.sends, strict=True)
    return tuple(between_stages(size, e.source, e.target, mesh, hardware) for size, e in ends)


def step_hops(graph: Graph, stages: tuple[Stage, ...], schedule: PipelineSchedule, hardware: Hardware) -> Hops:
    """Of a training step whose layers hand values on beside the residual stream the sends between its virtual `stages`."""
    mesh = graph.the_mesh
    if mesh.stages == 1 or not are_handed_on(graph):
        return NO_HOPS
    _, first, name, layout = next(sent(graph, graph.sends[0]))
    plain_B, virtual = local_bytes(first, name, layout.dims, mesh), replace(graph, stages=stages)

    def beside_B(made: Mapping[str, Made]) -> float:
        of = [(one.segment, one.value, one.segment.sharding_of(one.value)) for one in made.values()]
        return sum(local_bytes(segment, value, at.dims, mesh) for segment, value, at in of if at is not None)

    found = {}
    for route in schedule.routes:
        for k, (here, there) in enumerate(pairwise(route.seats)):
            if here.gpu != there.gpu:
                sizes = (plain_B + beside_B(of(virtual, k + 1)) for of in (crossing, crossing_back))
                ahead, back = (between_stages(size, here.gpu, there.gpu, mesh, hardware) for size in sizes)
                found[k, min(here.gpu, there.gpu), max(here.gpu, there.gpu)] = ahead, back
    return found


def between_stages(size: float, source: int, target: int, mesh: Mesh, hardware: Hardware) -> Transfer:
    """A send of so many bytes from every rank of a stage to its equal on another."""
    ids = mesh.ids.reshape(mesh.stages, -1)
    return _transfer(size, mesh.shape_of(np.stack([ids[source], ids[target]], axis=1)), hardware)


def request_costs(graph: Graph, hardware: Hardware) -> dict[str, OpCost]:
    """Of the scatter of token ids and of the gather of what ranks chose, by kind; of those that the graph has. Hardware names no
    links of hosts: they take those that join the GPUs, so that what stays in a node is as fast there as anything is."""
    mesh = graph.the_mesh
    return {
        move.kind: _request_cost(
            move.kind, move.payload_B(graph), move.group(mesh), hardware, np.ones((1,) * len(mesh.atoms))
        )
        for move in request_moves(graph)
    }


def _request_cost(kind: str, payload: float, group: GroupShape, hardware: Hardware, one: Array) -> OpCost:
    found = collective_time(kind, payload, group, *hardware.links)
    floor_s = float(collective_time(kind, payload, group, *hardware.links, floor=True).time_s)
    wire, time_s = wire_bytes(kind, payload, group.ranks), float(found.time_s)
    bound = _link_bound(time_s, floor_s, _crossed(group, hardware).bound)
    return OpCost(
        one * time_s, one * floor_s, bound, payload_B=payload, wire_B=wire, group=group, algorithm=found.algorithm,
        level_B=_by_level(found, wire, hardware),
    )  # fmt: skip


@called
def _transfer(size: float, group: GroupShape, hardware: Hardware) -> Transfer:
    found = collective_time(SEND.name, size, group, *hardware.links)
    floor = collective_time(SEND.name, size, group, *hardware.links, floor=True)
    tier = _crossed(group, hardware)
    time_s = max(float(found.time_s), _nccl_send_s(size, group, hardware))
    bound = _link_bound(time_s, float(floor.time_s), tier.bound)
    return Transfer(size, time_s, float(floor.time_s), bound, tier.name)


def _nccl_send_s(size: float, group: GroupShape, hardware: Hardware) -> float:
    """Of a send that leaves its node, where the hardware names a calibration: no faster than a hop of NCCL."""
    network = beyond_ports(SEND.name, size, group, hardware.links) if hardware.calibration is not None else None
    if network is None:
        return 0.0
    from ..calib import cluster_collective

    return cluster_collective.time_s(SEND.name, 0.0, network.wire_B, network.domains, network.link_Bps)
