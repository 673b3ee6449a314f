"""One training step in NumPy, rank by rank: every micro-batch forward and back, the gradients of the weights added up."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..ir.graph import BACKWARD, FORWARD, RECOMPUTE, UPDATE, WEIGHT, Op, Segment
from ..ir.ops.attributes import AccumulateAttrs, StoreAttrs
from .dispatcher import Env, run_cells
from .machine import RankMachine
from .values import Floats

Key = tuple[int, str]
"""(layer, weight)."""


@dataclass
class TrainingMachine(RankMachine):
    """`gradients`: of each weight its layer, the op that adds it up, and what every rank has of it, which may be partial; `weights`: the
    same of the new ones.
    `losses`: of the tokens, by micro-batch and rank."""

    gradients: dict[Key, tuple[Segment, Op, list[Floats]]] = field(default_factory=dict)
    weights: dict[Key, tuple[Segment, Op, list[Floats]]] = field(default_factory=dict)
    losses: list[list[Floats]] = field(default_factory=list)

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
        for segment, layer in layers:
            if layer in begins:
                self.hand_over(begins[layer], values)
            env: Env = {segment.input: values}
            run_cells(self, segment, layer, env, (FORWARD,))
            values = env[segment.output]
            kept.append(env)
        self.losses.append([v for v in values if isinstance(v, np.ndarray)])
        upstream: list[object] = []
        for (segment, layer), env in zip(reversed(layers), reversed(kept), strict=True):
            if segment.upstream is not None:
                env[segment.upstream.name] = upstream
            run_cells(self, segment, layer, env, (RECOMPUTE, BACKWARD, WEIGHT))
            upstream = env[segment.downstream] if segment.downstream else []
            if layer in begins:
                self.hand_over(begins[layer], upstream)  # back, in the same layout
            self.add_up(segment, layer, env)

    def add_up(self, segment: Segment, layer: int, env: Env) -> None:
        for op in segment.ops:
            if isinstance(op.attrs, AccumulateAttrs):
                key = layer, op.attrs.weight
                own = [np.asarray(value) for value in env[op.name]]
                before = self.gradients[key][2] if key in self.gradients else [np.zeros(v.shape) for v in own]
                self.gradients[key] = segment, op, [a + b for a, b in zip(before, own, strict=True)]

    def update(self) -> None:
        """New weights, from gradients that are added up."""
        for segment, layer in self.graph.layers:
            own = [op for at, op, _ in self.gradients.values() if at is segment]
            env: Env = {
                op.name: [*self.gradients[layer, op.of(AccumulateAttrs).weight][2]] for op in dict.fromkeys(own)
            }
            run_cells(self, segment, layer, env, (UPDATE,))
            for op in segment.ops:
                if isinstance(op.attrs, StoreAttrs):
                    new = [np.asarray(value) for value in env[op.name]]
                    self.weights[layer, op.attrs.weight] = segment, op, new

    @property
    def loss(self) -> float:
        """Mean over the tokens; for a run on one rank."""
        return float(np.mean([np.mean(ranks[0]) for ranks in self.losses]))
