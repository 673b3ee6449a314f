"""The placed graph, unrolled lazily: one node per op, layer, stage, micro-batch and lane, for all its ranks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from string import ascii_lowercase

from ...base.axes import STAGES
from ...base.collectives import GATHER, REQUESTS, SCATTER
from ...base.dtypes import DTYPE_BYTES
from ...cost.records import Array
from ...cost.schedule.records import Run
from ...ir.graph import Graph
from ...ir.op import COMM, Op
from ...ir.ops.sizes import local_count
from ...ir.requests import RequestMove, request_moves
from ...ir.segment import Segment
from ...plan.result import PhaseResult
from .request_times import begin_s, took_s


@dataclass(frozen=True, slots=True)
class Node:
    """`id` is stable: `s0.m0.sparse.3/gqa.q`, and so is `layer`: `sparse.3`, counted over the model. `gpus` are the stage's ids, in rank order; times are the earliest
    start over its ranks and the longest duration. `group` labels the axes of a collective. A scatter is over as soon as its ids
    are needed: it starts before the pass, at a negative time, where that is at its beginning."""

    id: str
    op: str
    kind: str
    phase: str
    layer: str
    stage: int
    microbatch: int
    gpus: tuple[int, ...]
    stream: str
    start_s: float
    time_s: float
    flops: float
    bytes: float
    group: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Edge:
    """`kind` is data (a value), stream (program order of a rank's stream), transfer (between stages) or request (ids from the
    front end, or to it, while other passes run: no step waits for it). A receive is posted ahead and waits for its send alone. An attention over a ring begins with the permutes that it reads, on the block of its
    own rank, and ends no earlier than they do."""

    src: str
    dst: str
    kind: str
    bytes: float


def counts(result: PhaseResult) -> tuple[int, int]:
    """(nodes, edges) that `unroll` yields, without unrolling."""
    graph = result.graph
    nodes = edges = 0
    streams = 0
    ends = {move.kind for move in request_moves(graph)}
    for stage in graph.stages:
        per_cell = [(graph.segment(name), count) for name, count in stage.layers]
        sends = int(stage.index < len(graph.stages) - 1)
        receives = int(stage.index > 0)
        for segment, count in per_cell:
            nodes += count * len(segment.ops)
            edges += count * sum(len(segment.waits(op)[0]) for op in segment.ops)
        waiting = [sum(segment.waits(op)[1] for op in segment.ops) for segment, count in per_cell for _ in range(count)]
        edges += sum(waiting) - next(filter(None, waiting), 0)  # but in the first layer, whose copies are there
        if not receives and SCATTER.name not in ends:
            edges -= sum(
                1 for op in per_cell[0][0].ops for n in per_cell[0][0].waits(op)[0] if n == per_cell[0][0].input
            )
        nodes += sends + receives
        edges += sends * 2  # the value into the send, and the transfer
        cell = [graph.stream_of(segment, op) for segment, count in per_cell for op in segment.ops * count]
        used = {s: cell.count(s) + (sends if s == COMM else 0) for s in graph.streams}
        passes = graph.microbatches * graph.lanes
        streams += sum(max(0, n * passes - 1) for n in used.values())
    passes = graph.microbatches * graph.lanes
    host = int(result.schedule.host_s > 0)
    nodes, edges = nodes + len(ends), edges + (GATHER.name in ends)
    return nodes * passes + host, edges * passes + streams + host


def unroll(result: PhaseResult) -> Iterator[Node | Edge]:
    """Nodes and edges in an order in which every edge's ends are already out."""
    graph = result.graph
    arrivals: dict[tuple[int, int, int], str] = {}
    for stage in graph.stages:
        last: dict[str, str] = {}
        if stage.index == 0 and result.schedule.host_s > 0:
            yield _host(result)
            last["compute"] = "host"
        for microbatch in range(graph.microbatches):
            yield from _cell(result, stage.index, microbatch, arrivals, last)


def _host(result: PhaseResult) -> Node:
    """The host's part of a pass, which the GPUs of the first stage wait for."""
    gpus, time_s = result.graph.stages[0].gpus, result.schedule.host_s
    return Node(
        id="host",
        op="host",
        kind="host",
        phase=result.graph.phase,
        layer="",
        stage=0,
        microbatch=0,
        gpus=gpus,
        stream="compute",
        start_s=0.0,
        time_s=time_s,
        flops=0.0,
        bytes=0.0,
        group=(),
    )


def _edge_node(result: PhaseResult, kind: str, stage: int, microbatch: int, lane: int, start_s: float) -> Node:
    """One end of a transfer between stages. A receive takes no time: it is posted ahead."""
    graph, transfer = result.graph, result.costs.edges[stage if kind == "send" else stage - 1]
    return Node(
        id=_end_id(graph, kind, stage, microbatch, lane),
        op=kind,
        kind=kind,
        phase=graph.phase,
        layer="",
        stage=stage,
        microbatch=microbatch,
        gpus=graph.stages[stage].gpus,
        stream="comm",
        start_s=start_s,
        time_s=transfer.time_s if kind == "send" else 0.0,
        flops=0.0,
        bytes=transfer.payload_B,
        group=(STAGES,),
    )


def _request_node(result: PhaseResult, move: RequestMove, microbatch: int, lane: int) -> Node:
    """One end of the graph. It takes no stream of a GPU."""
    graph, cost = result.graph, result.requests[move.kind]
    return Node(
        id=_end_id(graph, move.kind, move.stage, microbatch, lane),
        op=move.kind,
        kind=move.kind,
        phase=graph.phase,
        layer="",
        stage=move.stage,
        microbatch=microbatch,
        gpus=graph.stages[move.stage].gpus,
        stream="host",
        start_s=begin_s(result, move, microbatch, lane),
        time_s=took_s(result, move),
        flops=0.0,
        bytes=cost.payload_B,
        group=graph.the_mesh.label(move.axes),
    )


def _cell(
    result: PhaseResult,
    stage: int,
    microbatch: int,
    arrivals: dict[tuple[int, int, int], str],
    last: dict[str, str],
) -> Iterator[Node | Edge]:
    graph, sends = result.graph, result.costs.edges
    value: dict[int, str] = {}
    copied: dict[int, str] = {}  # the last copy of the layer before
    waiting_nodes: list[tuple[Node, list[Edge]]] = []
    tag = f"s{stage}.m{microbatch}"
    for lane in range(graph.lanes):
        if stage > 0:
            begin = result.schedule.sends[stage - 1, microbatch][1]
            node = _edge_node(result, "recv", stage, microbatch, lane, begin)
            source = arrivals[stage, microbatch, lane]
            waiting_nodes.append((node, [Edge(source, node.id, "transfer", sends[stage - 1].payload_B)]))
            value[lane] = node.id
    moves = {move.kind: move for move in request_moves(graph)}
    scatter, gather = moves.get(SCATTER.name), moves.get(GATHER.name)
    if stage == 0 and scatter is not None:
        for lane in range(graph.lanes):
            node = _request_node(result, scatter, microbatch, lane)
            waiting_nodes.append((node, []))
            value[lane] = node.id
    index = graph.first_layer(stage)
    for run in result.schedule.cells[stage][microbatch]:
        segment = graph.segment(run.segment)
        steps = [_steps(result, segment, run, lane, stage) for lane in range(graph.lanes)]
        for repeat in range(run.count):
            start_s = run.start_s + repeat * run.period_s
            layer = graph.layer_name(run.segment, index)
            for lane in range(graph.lanes):
                prefix = f"{tag}{_lane(graph.lanes, lane)}.{layer}"
                fed = segment.input, value.get(lane)
                before = copied.get(lane)
                scattered = _end_id(graph, SCATTER.name, stage, microbatch, lane)
                waiting_nodes += [
                    _op_node(graph, step, start_s, prefix, layer, stage, microbatch, fed, scattered, before)
                    for step in steps[lane]
                ]
                for step in steps[lane]:
                    if step.op.is_ahead:
                        copied[lane] = f"{prefix}/{step.op.name}"
                value[lane] = f"{prefix}/{segment.output}"
            index += 1
    if stage < len(graph.stages) - 1:
        for lane in range(graph.lanes):
            begin, end = result.schedule.sends[stage, microbatch]
            start = end - sends[stage].time_s * (graph.lanes - lane)
            start = max(begin, start) if graph.lanes == 1 else start
            node = _edge_node(result, "send", stage, microbatch, lane, start)
            waiting_nodes.append((node, [Edge(value[lane], node.id, "data", sends[stage].payload_B)]))
            arrivals[stage + 1, microbatch, lane] = node.id
    if stage == len(graph.stages) - 1 and gather is not None:
        for lane in range(graph.lanes):
            node = _request_node(result, gather, microbatch, lane)
            waiting_nodes.append((node, [Edge(value[lane], node.id, "request", node.bytes)]))
    waiting_nodes.sort(key=lambda item: item[0].start_s)
    out: set[str] = set()
    for node, edges in _topological(waiting_nodes, out):
        yield node
        yield from edges
        if node.kind == "recv" or node.kind in REQUESTS:
            continue  # occupies no stream: it may be posted before anything else is done
        if node.stream in last:
            yield Edge(last[node.stream], node.id, "stream", 0.0)
        last[node.stream] = node.id


def _topological(waiting_nodes: list[tuple[Node, list[Edge]]], done: set[str]) -> Iterator[tuple[Node, list[Edge]]]:
    """By start time, but never before an input of the same cell (nodes of no duration tie)."""
    waiting = {node.id: (node, edges) for node, edges in waiting_nodes}

    def emit(key: str) -> Iterator[tuple[Node, list[Edge]]]:
        stack = [key]
        while stack:
            top = stack[-1]
            missing = [e.src for e in waiting[top][1] if e.src in waiting and e.src not in done]
            if missing and top not in done:
                stack.extend(missing)
                continue
            stack.pop()
            if top not in done:
                done.add(top)
                yield waiting[top]

    for node, _ in waiting_nodes:
        if node.id not in done:
            yield from emit(node.id)


@dataclass(frozen=True, slots=True)
class _Step:
    """What the layers of a run share of an op: `inputs` are the names of values and their bytes; `start_s` counts from the layer's start; `ahead`: it reads what
    copies of the layer before brought."""

    op: Op
    gpus: tuple[int, ...]
    stream: str
    start_s: float
    time_s: float
    flops: float
    bytes: float
    group: tuple[str, ...]
    inputs: tuple[tuple[str, float], ...]
    ahead: bool


def _steps(result: PhaseResult, segment: Segment, run: Run, lane: int, stage: int) -> list[_Step]:
    graph = result.graph
    mesh = graph.the_mesh
    found = []
    for op in segment.ops:
        cost = result.costs.ops[segment.name, op.name]
        inputs = []
        names, ahead = segment.waits(op)
        for name in names:
            layout = segment.sharding_of(name)
            assert layout is not None
            size = local_count(segment, segment.dims_of(name), layout.dims, mesh, segment.scope_of(name))
            inputs.append((name, size * DTYPE_BYTES[segment.dtype_of(name)]))
        step = _Step(
            op=op,
            gpus=_gpus(result, op, stage),
            stream=graph.stream_of(segment, op),
            start_s=_low(run.starts[op.name, lane]),
            time_s=float(cost.time_s.max()),
            flops=cost.flops,
            bytes=cost.payload_B if op.is_collective else cost.bytes,
            group=mesh.label(op.axes, op.scope) if op.axes else (),
            inputs=tuple(inputs),
            ahead=ahead,
        )
        found.append(step)
    return found


def _op_node(
    graph: Graph,
    step: _Step,
    start_s: float,
    prefix: str,
    layer: str,
    stage: int,
    microbatch: int,
    fed: tuple[str, str | None],
    scatter: str,
    copied: str | None,
) -> tuple[Node, list[Edge]]:
    """`start_s`: of its layer; `fed`: the name of what the layer is given, and the node that gives it (None: the host does);
    `scatter`: the node that gives out the tokens; `copied`: the last copy from the host that the layer before began."""
    name, given = fed
    node = Node(
        id=f"{prefix}/{step.op.name}",
        op=step.op.name,
        kind=step.op.runtime_kind,
        phase=graph.phase,
        layer=layer,
        stage=stage,
        microbatch=microbatch,
        gpus=step.gpus,
        stream=step.stream,
        start_s=start_s + step.start_s,
        time_s=step.time_s,
        flops=step.flops,
        bytes=step.bytes,
        group=step.group,
    )
    edges = []
    for source, size in step.inputs:
        src = given if source == name else f"{prefix}/{source}"
        if src is not None:
            edges.append(Edge(src, node.id, "request" if src == scatter else "data", size))
    if step.ahead and copied is not None:
        edges.append(Edge(copied, node.id, "data", 0.0))
    return node, edges


def _end_id(graph: Graph, kind: str, stage: int, microbatch: int, lane: int) -> str:
    """Of what stands at an end of a cell, outside its layers."""
    return f"s{stage}.m{microbatch}{_lane(graph.lanes, lane)}/{kind}"


def _lane(lanes: int, lane: int) -> str:
    return "" if lanes == 1 else f".{lane_letter(lane)}"


def lane_letter(lane: int) -> str:
    return ascii_lowercase[lane] if lane < len(ascii_lowercase) else f"z{lane}"


def _gpus(result: PhaseResult, op: Op, stage: int) -> tuple[int, ...]:
    """Those of its ranks, in rank order; of what goes across both ends."""
    seats = result.seats[stage :: len(result.graph.stages)]
    return tuple(gpu for seat in seats if op.is_at(seat.on) for gpu in seat.gpus)


def _low(array: Array) -> float:
    return float(array.min())
