"""Compare a compiled plan with its model, number by number."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..driver import lower
from ..ir.graph import Graph
from ..ir.mesh import Mesh
from ..ir.unit import Unit
from ..plan import Plan
from .execute import Inputs, Machine

TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True)
class Proof:
    """`error`: largest difference of the winning logits, relative to their scale; `same`: the chosen tokens agree."""

    phase: str
    ranks: int
    error: float
    same: bool

    @property
    def holds(self) -> bool:
        return self.same and self.error <= TOLERANCE


def prove(plan: Plan, phase: str) -> Proof:
    """Run a phase at its full dims on one rank and on all of its ranks. For small models: everything is float64 and
    every rank is held at once."""
    unit = plan.units[phase]
    return prove_graph(plan.phases[phase].graph, unit)


def prove_graph(placed: Graph, unit: Unit) -> Proof:
    """Like prove, of a placed graph that may not be the plan's own."""
    model = next(graph for _, graph in lower(Unit(unit.spec, unit.phase)))
    seq = unit.spec.workload.prompt if placed.kind == "prefill" else 1
    vocab = unit.spec.model.count("vocab")
    rng = np.random.default_rng(1)
    inputs = Inputs(
        rng.integers(0, vocab, (unit.phase.sequences, seq)), unit.spec.workload.routing, unit.phase.strategy.redundant
    )
    want = Machine(model, inputs, Mesh((), {}, {})).run()
    got = Machine(placed, inputs, placed.the_mesh).run()
    expected, found = (np.concatenate([b.value for b in run]) for run in (want, got))
    error = float(np.abs(expected - found).max() / max(1e-300, np.abs(expected).max()))
    same = all(np.array_equal(a.index, b.index) for a, b in zip(want, got, strict=True))
    return Proof(placed.phase, len(unit.phase.gpus), error if np.isfinite(error) else float("inf"), same)
