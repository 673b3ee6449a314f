"""What a GPU of a pipeline does in a training step, added up: where the step goes, its collectives, and its ops by cell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

from ..base.axes import STAGES
from ..base.frozen import record
from ..cost.records import NO_TRANSFER, Costs, Transfer
from ..cost.schedule.training.cell_orders import Seat
from ..ir.op import BACKWARD, FORWARD, UPDATE, Op
from ..ir.ops.attributes.moves import RingTurnAttrs
from ..ir.segment import Segment
from .result import CollectiveTotal
from .trained import TrainingResult

FORWARD_NAME = "forward"
"""What the cell of the forward pass, which has no name in a graph, is called elsewhere."""


@record
class StepShares:
    """Seconds of a step on one GPU of the pipeline; they sum to the step. `exposed_s`: data is moved and nothing computed."""

    stage: int
    compute_s: float
    exposed_s: float
    bubble_s: float
    update_s: float


@record
class CellCollectives:
    """Calls of one collective in the cells of one name in a step."""

    cell: str
    total: CollectiveTotal


@record
class StepOp:
    """All calls of an op in a step on one GPU, on its slowest rank."""

    layer: str
    op: str
    kind: str
    cell: str
    count: int
    time_s: float
    bound: str
    is_collective: bool


def cell_name(cell: str) -> str:
    return cell or FORWARD_NAME


def shares(result: TrainingResult, stage: int) -> StepShares:
    exposed_s, busy_s = result.exposed_on(stage), result.steps.busy_s[stage]
    exposed_s = min(exposed_s, busy_s)
    return StepShares(stage, busy_s - exposed_s, exposed_s, result.steps.bubbles_s[stage], result.update_s)


def busiest(result: TrainingResult) -> int:
    """The place in the pipeline whose cells take longest."""
    return max(range(result.steps.schedule.gpus), key=lambda stage: result.steps.busy_s[stage])


def layers_on(result: TrainingResult, stage: int) -> Counter[str]:
    """Layers that a GPU holds, over all its chunks."""
    found: Counter[str] = Counter()
    for (gpu, _), (_, virtual) in result.steps.schedule.stage_at.items():
        if gpu == stage:
            found.update(dict(result.stages[virtual].layers))
    return found


def passes(result: TrainingResult) -> int:
    """Micro-batches that go through a chunk in a step."""
    return result.graph.microbatches * result.graph.lanes // len(result.steps.schedule.routes)


def step_ops(result: TrainingResult, stage: int) -> tuple[StepOp, ...]:
    """The longest first."""
    found = [
        StepOp(
            segment.name, op.name, op.runtime_kind, cell_name(op.cell), calls,
            calls * float(result.costs.ops[segment.name, op.name].time_s.max()), result.costs.ops[segment.name, op.name].bound,
            op.is_collective,
        )
        for segment, op, calls in called(result, stage)
    ]  # fmt: skip
    return tuple(sorted(found, key=lambda one: -one.time_s))


def step_collectives(result: TrainingResult, stage: int) -> tuple[CellCollectives, ...]:
    """By cell, kind, group and payload; of one rank of a GPU of the pipeline."""
    mesh = result.graph.the_mesh
    totals: dict[tuple[str, str, tuple[str, ...], float], CollectiveTotal] = {}

    def add(cell: str, one: CollectiveTotal) -> None:
        key = (cell, one.kind, one.axes, one.payload_B)
        old = totals.get(key)
        if old is not None:
            levels = {n: old.level_B.get(n, 0.0) + one.level_B.get(n, 0.0) for n in (*old.level_B, *one.level_B)}
            count, wire_B, time_s = old.count + one.count, old.wire_B + one.wire_B, old.time_s + one.time_s
            one = CollectiveTotal(one.kind, one.axes, one.group_size, count, one.payload_B, wire_B, time_s, levels)
        totals[key] = one

    for segment, op, calls in called(result, stage):
        if op.is_collective:
            cost = result.costs.ops[segment.name, op.name]
            turns = op.attrs.steps if isinstance(op.attrs, RingTurnAttrs) else 1
            add(
                cell_name(op.cell),
                CollectiveTotal(
                    op.runtime_kind, mesh.label(op.axes, op.scope), mesh.ranks_of(op.kind, op.axes), calls * turns, cost.payload_B,
                    cost.wire_B * calls, float(cost.time_s.max()) * calls, {n: b * calls for n, b in cost.level_B.items()},
                ),
            )  # fmt: skip
    if result.copies:
        add(UPDATE, result.copies[stage])
    for cell, kind, edge in sends(result, stage):
        calls = passes(result)
        wire_B = edge.payload_B * calls if kind == "send" else 0.0
        levels = {edge.level: wire_B} if kind == "send" else {}
        add(cell, CollectiveTotal(kind, (STAGES,), 2, calls, edge.payload_B, wire_B, edge.time_s * calls, levels))
    return tuple(CellCollectives(cell, total) for (cell, *_), total in totals.items())


def edge_between(costs: Costs, here: Seat, there: Seat, stage: int, *, back: bool = False) -> Transfer:
    """What sends from one seat to another, which have this virtual stage and the next: nothing on the same GPU. `back`: gradients."""
    if not costs.edges or here.gpu == there.gpu:
        return NO_TRANSFER
    if costs.hops:
        return costs.hops[stage, min(here.gpu, there.gpu), max(here.gpu, there.gpu)][back]
    return costs.edges[min(here.gpu, there.gpu)] if abs(here.gpu - there.gpu) == 1 else costs.transfer


def largest_hop(result: TrainingResult, a: int, b: int) -> tuple[Transfer, Transfer]:
    """What sends from a GPU of a pipeline to another, and of gradients back: of several chunks the largest."""
    if not result.costs.hops:
        edge = edge_between(result.costs, Seat(a, 0), Seat(b, 0), 0)
        return edge, edge
    found = [hop for (_, *ends), hop in result.costs.hops.items() if set(ends) == {a, b}]
    return max(found, key=lambda hop: hop[0].payload_B, default=(result.costs.edges[min(a, b)],) * 2)


def called(result: TrainingResult, stage: int) -> Iterator[tuple[Segment, Op, int]]:
    """Every op of the layers of a GPU, with its calls in a step: an update is once a step."""
    layers, each = layers_on(result, stage), passes(result)
    for segment in result.graph.segments:
        if layers[segment.name]:
            for op in segment.ops:
                yield segment, op, layers[segment.name] * (1 if op.cell == UPDATE else each)


def sends(result: TrainingResult, stage: int) -> Iterator[tuple[str, str, Transfer]]:
    """(cell, send or recv, what sends) of each neighbour of its chunks: activations forward, gradients back."""
    for route in result.steps.schedule.routes:
        for k, (here, there) in enumerate(pairwise(route.seats)):
            edge, back = (edge_between(result.costs, here, there, k, back=back) for back in (False, True))
            if here.gpu == there.gpu:
                continue
            if here.gpu == stage:
                yield from ((cell_name(FORWARD), "send", edge), (BACKWARD, "recv", back))
            if there.gpu == stage:
                yield from ((cell_name(FORWARD), "recv", edge), (BACKWARD, "send", back))
