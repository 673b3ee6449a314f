"""A training step as a graph: a node for each cell of each GPU of a pipeline, for each send between stages, and for new weights. Its longest
path is the step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

from ...base.axes import STAGES
from ...base.diagnostics import Diagnostic, SpecError
from ...cost.schedule.training.cell_orders import Part, cells_of
from ...cost.schedule.training.makespan import Timed
from ...cost.training.cell_costs import CELL_GROUPS
from ...plan.step_totals import edge_between
from ...plan.trained import TrainingResult
from .size import MOST_HELD
from .unroll import Edge, Node

CELLS = {Part.FORWARD: "forward", Part.BACKWARD: "backward", Part.INPUT: "input", Part.WEIGHT: "weight"}
"""What cells are called among the costs of a layer."""
PAIR, UPDATE = "pair", "update"


def check_cells(result: TrainingResult, ranks: str) -> None:
    """Raises SpecError with E05."""
    times = len(result.graph.stages[0].gpus) if ranks == "all" else 1
    cells = sum(loop.times * len(loop.body) for order in result.steps.schedule.orders for loop in order)
    if 3 * cells * times > MOST_HELD:
        because = (f"`{result.name}` has {cells * times:,} cells in {result.graph.microbatches:,} micro-batches",)
        help = ("fewer micro-batches have the same shape",)
        raise SpecError([Diagnostic("E05", "the graph would be too large", because=because, help=help)])


def step_graph(result: TrainingResult) -> Iterator[Node | Edge]:
    """Nodes and edges, every edge behind its ends."""
    return iter(_StepGraph(result).items())


class _StepGraph:
    def __init__(self, result: TrainingResult) -> None:
        self.result, self.schedule = result, result.steps.schedule
        self.flops = self._flops()
        self.ends_s: dict[str, float] = {}
        self.holder: dict[tuple[int, int, Part, int], str] = {}
        """(route, virtual stage, part, micro-batch) -> the node whose result that is; of gradients BACKWARD."""

    def _flops(self) -> Counter[tuple[int, str]]:
        """Of a micro-batch in the cells of a virtual stage, on one rank."""
        found: Counter[tuple[int, str]] = Counter()
        for stage, own in enumerate(self.result.stages):
            for name, count in own.layers:
                for op in self.result.graph.segment(name).ops:
                    flops = count * self.result.costs.ops[name, op.name].flops
                    for cell, groups in CELL_GROUPS.items():
                        if op.cell in groups:
                            found[stage, cell] += flops  # type: ignore[assignment]
        return found

    def items(self) -> list[Node | Edge]:
        nodes: list[Node] = []
        edges: list[Edge] = []
        ends: list[str] = []
        for gpu in range(self.schedule.gpus):
            line = [self.node(gpu, timed) for timed in self.result.steps.written(gpu)]
            nodes += line
            edges += [Edge(a.id, b.id, "stream", 0.0) for a, b in pairwise(line)]
            ends.append(line[-1].id)
        nodes += self.sends(edges)
        for gpu in range(self.schedule.gpus) if self.result.update_s else ():
            new = self.update(gpu)
            nodes.append(new)
            edges += [Edge(end, new.id, "stream" if own == gpu else "data", 0.0) for own, end in enumerate(ends)]
        return [*nodes, *edges]

    def node(self, gpu: int, timed: Timed) -> Node:
        cells = cells_of(timed.entry)
        name = f"g{gpu}.{self.schedule.said(timed.entry)}"
        self.ends_s[name] = timed.end_s
        flops = 0.0
        places = []
        for cell in cells:
            route, stage = self.schedule.stage_at[gpu, cell.chunk]
            part = Part.BACKWARD if cell.part.is_gradient else cell.part
            self.holder[route, stage, part, cell.microbatch] = name
            flops += self.flops[stage, CELLS[cell.part]]
            places.append(f"part {stage}")
        kind = CELLS[cells[0].part] if len(cells) == 1 else PAIR
        return Node(
            name, kind, kind, self.result.name, " and ".join(dict.fromkeys(places)), gpu, cells[0].microbatch,
            self.result.graph.stages[gpu].gpus, "compute", timed.start_s, timed.end_s - timed.start_s, flops, 0.0, (),
        )  # fmt: skip

    def sends(self, edges: list[Edge]) -> Iterator[Node]:
        """What cells hand on: to another GPU by a send, which runs beside what it computes. Gradients read what forward cells keep, those of weights
        what those of inputs keep."""
        split = self.result.steps.times.backward_s is None
        for (route, stage, part, number), name in list(self.holder.items()):
            seats = self.schedule.routes[route].seats
            kept = self.result.kept[stage]
            if part is Part.WEIGHT:
                continue
            if part is Part.FORWARD:
                edges.append(Edge(name, self.holder[route, stage, Part.BACKWARD, number], "data", kept.whole_B))
            elif split and (last := self.holder.get((route, stage, Part.WEIGHT, number))) is not None and last != name:
                edges.append(Edge(name, last, "data", kept.late_B))
            other = stage + (1 if part is Part.FORWARD else -1)
            if 0 <= other < len(seats):
                here, there, reader = seats[stage], seats[other], self.holder[route, other, part, number]
                if here.gpu == there.gpu:
                    edges.append(Edge(name, reader, "data", 0.0))
                    continue
                back = part is not Part.FORWARD
                edge = edge_between(self.result.costs, here, there, min(stage, other), back=back)
                send = f"g{here.gpu}.{part.value}{number}.{here.chunk}>g{there.gpu}"
                edges += [Edge(name, send, "data", edge.payload_B), Edge(send, reader, "transfer", edge.payload_B)]
                yield Node(
                    send, "send", "send", self.result.name, f"part {stage}", here.gpu, number, self.result.graph.stages[here.gpu].gpus, "comm",
                    self.ends_s[name], edge.time_s, 0.0, edge.payload_B, (STAGES,),
                )  # fmt: skip

    def update(self, gpu: int) -> Node:
        result = self.result
        return Node(
            f"g{gpu}.{UPDATE}", UPDATE, UPDATE, result.name, "", gpu, 0, result.graph.stages[gpu].gpus, "compute", result.steps.makespan_s,
            result.update_s, 0.0, 0.0, (),
        )  # fmt: skip
