"""One training step in NumPy, rank by rank: every micro-batch forward and back, the gradients of the weights added up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..base.axes import ENDS
from ..ir.graph import Graph
from ..ir.op import BACKWARD, FORWARD, RECOMPUTE, UPDATE, WEIGHT, Op
from ..ir.ops.attributes.training import AccumulateAttrs, StoreAttrs, WeightAttrs
from ..ir.segment import Segment
from .dispatcher import Env, Results, RunPlace, run_cells
from .failure import ExecutionError, Wrong
from .machine import RankMachine
from .traffic import count
from .values import Floats

Key = tuple[int, str]
"""(layer, weight)."""


@dataclass
class TrainingMachine(RankMachine):
    """`gradients`: of each weight its layer, the op that adds it up, and what every rank has of it, which may be partial; `weights`: the
    same of the new ones. Of a table that layers share there is one gradient, but where two stages have copies of it.
    `losses`: of the tokens, by micro-batch and rank; `of_routers`: the same of each loss of a router; `ends`: while both ends of a pipeline meet, what each brings, by op."""

    gradients: dict[Key, tuple[Segment, Op, list[Floats]]] = field(default_factory=dict)
    weights: dict[Key, tuple[Segment, Op, list[Floats]]] = field(default_factory=dict)
    losses: list[list[Floats]] = field(default_factory=list)
    of_routers: dict[Key, list[list[Floats]]] = field(default_factory=dict)
    ends: dict[str, list[tuple[Op, list[object]]]] = field(default_factory=dict)
    meeting: bool = False

    def step(self) -> None:
        """Every micro-batch forward through all layers, then back. Raises ExecutionError."""
        parts = self.graph.microbatches * self.graph.lanes
        size = self.inputs.tokens.shape[0] // parts
        for part in range(parts):
            self.shards.offset = part * size
            self.one(self.entry(self.inputs.tokens[part * size : (part + 1) * size]))
        self.update()

    def one(self, values: list[object]) -> None:
        """One micro-batch."""
        layers = list(self.graph.layers)
        begins = {self.graph.first_layer(stage.index): stage.index for stage in self.graph.stages[1:]}
        kept: list[Env] = []
        beside: Env = {}
        for segment, layer in layers:
            if layer in begins:
                self.hand_over(begins[layer], values, beside)
            env: Env = {segment.input: values, **taken_in(segment, beside)}
            run_cells(self, segment, layer, env, (FORWARD,))
            values = env[segment.output]
            beside.update({name: env[value] for name, value in segment.handed})
            kept.append(env)
            for op in segment.ops:
                if op.kind == "router_loss" and op.cell == FORWARD:
                    found = [np.asarray(value) for value in env[op.name]]
                    self.of_routers.setdefault((layer, op.name), []).append(found)
        self.losses.append([v for v in values if isinstance(v, np.ndarray)])
        upstream: list[object] = []
        back: Env = {}
        for (segment, layer), env in zip(reversed(layers), reversed(kept), strict=True):
            if segment.upstream is not None:
                env[segment.upstream.name] = upstream
            env |= given_back(segment, env, back)
            run_cells(self, segment, layer, env, (RECOMPUTE, BACKWARD, WEIGHT))
            back |= {name: env[value] for name, value in segment.gives}
            upstream = env[segment.downstream] if segment.downstream else []
            if layer in begins:
                self.hand_over(begins[layer], upstream, back, back=True)
            self.add_up(segment, layer, env)

    def add_up(self, segment: Segment, layer: int, env: Env) -> None:
        for op in segment.ops:
            if isinstance(op.attrs, AccumulateAttrs):
                at, home, key = owner(self.graph, segment, layer, op.attrs.weight)
                own = [np.asarray(value) for value in env[op.name]]
                before = self.gradients[key][2] if key in self.gradients else [np.zeros(v.shape) for v in own]
                if [v.shape for v in before] != [v.shape for v in own]:
                    raise ExecutionError(f"{segment.name}[{layer}]/{op.name}", "the table's own sum is split otherwise")
                self.gradients[key] = at, home, [a + b for a, b in zip(before, own, strict=True)]

    def update(self) -> None:
        """New weights, from gradients that are added up."""
        self.meeting = True
        for segment, layer in self.graph.layers:
            if any(ENDS in op.axes for op in segment.ops):
                run_cells(self, segment, layer, self.summed(segment, layer), (UPDATE,))
        self.meeting = False
        for segment, layer in self.graph.layers:
            env = self.summed(segment, layer)
            run_cells(self, segment, layer, env, (UPDATE,))
            for op in segment.ops:
                if isinstance(op.attrs, StoreAttrs):
                    new = [np.asarray(value) for value in env[op.name]]
                    self.weights[layer, op.attrs.weight] = segment, op, new

    def summed(self, segment: Segment, layer: int) -> Env:
        """The gradients of a layer's weights, by the ops that add them up."""
        own = [op for at, op, _ in self.gradients.values() if at is segment]
        return {op.name: [*self.gradients[layer, op.of(AccumulateAttrs).weight][2]] for op in dict.fromkeys(own)}

    def collective(self, place: RunPlace, operands: Results) -> Results:
        """As on the ranks of a stage; what both ends of a pipeline add up is first brought by each."""
        if ENDS not in place.op.axes:
            return super().collective(place, operands)
        segment, op = place.segment, place.op
        brought = self.ends.setdefault(table_of(segment, op), [])
        if self.meeting:
            brought.append((op, operands[0]))
            return operands[:1]
        if len(brought) != 2 or brought[0][0].sharding != brought[1][0].sharding:
            raise Wrong(f"{op.name}: the other end of the pipeline does not bring the same part")
        added = [np.asarray(a) + np.asarray(b) for a, b in zip(*(values for _, values in brought), strict=True)]
        moved = count(self.shards, segment, op, operands[0], added)
        self.record.traffic.setdefault((segment.name, op.name), []).append(moved)
        return [[*added]]

    @property
    def whole_gradients(self) -> dict[Key, tuple[Segment, Op, list[Floats]]]:
        return with_copies(self.gradients)

    @property
    def loss(self) -> float:
        """Mean over the tokens, with the losses of routers; for a run on one rank."""
        return sum(
            float(np.mean([np.mean(ranks[0]) for ranks in one])) for one in (self.losses, *self.of_routers.values())
        )


def table_of(segment: Segment, op: Op) -> str:
    """The weight of the first layer whose gradient an op between the ends of a pipeline moves."""
    while not isinstance(op.attrs, WeightAttrs):
        op = segment.by_name[op.inputs[0]]
    return segment.weight[f"@{op.attrs.weight}"].tied or f"@{op.attrs.weight}"


def taken_in(segment: Segment, beside: Env) -> Env:
    """What a layer takes beside the residual stream."""
    return {one.name: beside[one.name] for one in segment.taken}


def given_back(segment: Segment, env: Env, back: Env) -> Env:
    """Gradients of what a layer hands on or takes beside the residual stream, from layers behind; zeros where none of them reads it. `env`: the
    values themselves; `back`: by name, of which these are gone then."""
    own = {one.name: one.name for one in segment.taken} | dict(segment.handed)
    found: Env = {}
    for name, value in segment.gets:
        numbers: list[Any] = env[own[name]]
        found[value.name] = back.pop(name) if name in back else [0.0 * x for x in numbers]
    return found


def owner(graph: Graph, segment: Segment, layer: int, weight: str) -> tuple[Segment, Op, Key]:
    """Where the sum of a weight's gradients is: its layer, the op there, its key. A layer that makes no new one of a table that it
    shares adds to that of the first layer. Raises ExecutionError."""
    tied = segment.weight[f"@{weight}"].tied.removeprefix("@")
    if tied and not stores(segment, weight):
        segment, layer, weight = graph.embedding, -1, tied
    for op in segment.ops:
        if isinstance(op.attrs, AccumulateAttrs) and op.attrs.weight == weight:
            return segment, op, (layer, weight)
    raise ExecutionError(f"{segment.name}[{layer}]", f"nothing adds up the gradients of @{weight}")


def stores(segment: Segment, weight: str) -> bool:
    """Whether a layer makes a new one of a weight."""
    return any(isinstance(op.attrs, StoreAttrs) and op.attrs.weight == weight for op in segment.ops)


def with_copies(
    gradients: Mapping[Key, tuple[Segment, Op, list[Floats]]],
) -> dict[Key, tuple[Segment, Op, list[Floats]]]:
    """Of a table with copies the sum over them, as the first layer's."""
    found: dict[Key, tuple[Segment, Op, list[Floats]]] = {}
    for key, (segment, op, values) in gradients.items():
        own = of_table(segment, key)
        if own in found:
            other, its, before = found[own]
            values = [a + b for a, b in zip(before, values, strict=True)]
            segment, op = (segment, op) if key == own else (other, its)
        found[own] = segment, op, values
    return found


def of_table(segment: Segment, key: Key) -> Key:
    """The key of a weight; of a copy of a table the table's."""
    tied = segment.weight[f"@{key[1]}"].tied
    return (-1, tied.removeprefix("@")) if tied else key
