"""Compare a compiled plan with its model, number by number."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..driver import lower
from ..ir.graph import Graph, Op, Segment
from ..ir.mesh import Mesh
from ..ir.unit import Unit
from ..plan import Plan
from .execute import Inputs, Machine

TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True)
class Proof:
    """`error`: largest difference of the winning logits, relative to their scale; `same`: the chosen tokens agree;
    `first`: where the two runs part, when they do: segment, layer and op."""

    phase: str
    ranks: int
    error: float
    same: bool
    first: str = ""

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
    reference = Machine(model, inputs, Mesh((), {}, {}))
    machine = Machine(placed, inputs, placed.the_mesh)
    want, got = reference.run(), machine.run()
    expected, found = (np.concatenate([b.value for b in run]) for run in (want, got))
    error = float(np.abs(expected - found).max() / max(1e-300, np.abs(expected).max()))
    same = all(np.array_equal(a.index, b.index) for a, b in zip(want, got, strict=True))
    error = error if np.isfinite(error) else float("inf")
    first = "" if same and error <= TOLERANCE else first_difference(reference, machine)
    return Proof(placed.phase, len(unit.phase.gpus), error, same, first)


def first_difference(reference: Machine, machine: Machine) -> str:
    """Run both again and compare every op whose value is a whole tensor in each."""
    seen: dict[tuple[str, int, str, int], np.ndarray] = {}
    found: list[str] = []

    def remember(segment: Segment, layer: int, op: Op, values: list[object]) -> None:
        if isinstance(values[0], np.ndarray):
            seen[segment.name, layer, op.name, reference.offset] = values[0]

    def compare(segment: Segment, layer: int, op: Op, values: list[object]) -> None:
        whole = seen.get((segment.name, layer, op.name, machine.offset))
        if found or whole is None or op.sharding is None or op.sharding.partial:
            return
        for rank, value in zip(machine.ranks, values, strict=True):
            part = machine.shard(whole, op.sharding.dims, rank)
            if not isinstance(value, np.ndarray) or part.shape != value.shape:
                continue
            scale = max(1e-300, float(np.abs(part).max(initial=0.0)))
            if not np.abs(part - value).max(initial=0.0) <= 1e-7 * scale:
                found.append(f"{segment.name}[{layer}]/{op.name}")
                return

    reference.watch, machine.watch = remember, compare
    reference.run()
    machine.run()
    return found[0] if found else "the result"
