"""Who catches a mutant, and which mutants compute the same for a reason that can be stated."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from dagc.cost.records import Costs
from dagc.execute.prove import Alone, alone, prove_graph
from dagc.execute.prove_training import compared, random_step, whole_model
from dagc.ir.graph import Graph
from dagc.ir.ops.attributes.training import StoreAttrs
from dagc.ir.segment import Segment
from dagc.ir.verify.verify import VerifyError, verify
from dagc.spec.unit import Unit

from .mutations import MUTATIONS, Mutant
from .plans import PLANS, placed

COMMUTATIVE = ("add", "multiply", "contract")


@dataclass(frozen=True)
class Verdict:
    """`structural`: the verifier's message, empty when it passes. `numeric`: differs, stopped (at an op it names), unnamed
    (without naming one) or same. `equal`: why the mutant computes the same, empty when no rule says so."""

    plan: str
    mutant: Mutant
    structural: str
    numeric: str
    equal: str

    @property
    def caught(self) -> bool:
        return bool(self.structural) or self.proved_wrong

    @property
    def proved_wrong(self) -> bool:
        return self.numeric in ("differs", "stopped")

    @property
    def escaped(self) -> bool:
        return not self.caught and not self.equal

    def __str__(self) -> str:
        return f"{self.mutant.kind} [{self.plan}] {self.mutant.where}"


def judge(plan: str, mutant: Mutant) -> Verdict:
    _, unit, costs = placed(plan)
    return Verdict(plan, mutant, structural(mutant.graph), numeric(mutant.graph, unit, costs), why_equal(mutant))


def structural(graph: Graph, before: Graph | None = None) -> str:
    """`before`: what a pass would have been given."""
    try:
        verify(graph, before)
    except VerifyError as error:
        return str(error)
    return ""


_MODELS: dict[int, tuple[Unit, Alone]] = {}


def _model(unit: Unit) -> Alone:
    """What a unit's graphs were lowered from, which is no mutant."""
    if id(unit) not in _MODELS:
        _MODELS[id(unit)] = unit, alone(unit)
    return _MODELS[id(unit)][1]


def numeric(graph: Graph, unit: Unit, costs: Costs) -> str:
    """The proof alone, whatever the verifier says. Stopping short counts only if the message names an op or edge."""
    try:
        with np.errstate(all="ignore"):
            if unit.phase.training is not None:
                return of_step(graph, unit, costs)
            proof = prove_graph(graph, unit, costs, alone=_model(unit))
    except Exception as error:
        names = [op.name for segment in graph.segments for op in segment.ops]
        return "stopped" if any(name in str(error) for name in names) else "unnamed"
    return "same" if proof.holds else "stopped" if np.isinf(proof.error) else "differs"


_STEPS: dict[int, tuple[Unit, Graph]] = {}


def of_step(graph: Graph, unit: Unit, costs: Costs) -> str:
    """As `numeric`, of a training step."""
    if id(unit) not in _STEPS:
        _STEPS[id(unit)] = unit, whole_model(unit)
    model = _STEPS[id(unit)][1]
    inputs = random_step(model, unit.phase.sequences, unit.spec.model.count("vocab"), unit.routing)
    proof = compared(model, graph, inputs, unit.phase.gpu_count, costs)
    if proof.why:
        return "stopped" if any(op.name in proof.why for s in graph.segments for op in s.ops) else "unnamed"
    return "same" if proof.holds else "stopped" if np.isinf(proof.gradient_error) else "differs"


def why_equal(mutant: Mutant) -> str:
    """The rule by which a mutant computes what the graph did, or nothing."""
    before, after = mutant.before, mutant.after
    if before is None or after is None:
        return ""
    if mutant.kind == "swap two inputs" and before.kind in COMMUTATIVE:
        return f"{before.kind} does not depend on the order of its operands"
    segment = next(s for s in mutant.graph.segments if any(op is after for op in s.ops))
    if after.name not in read(segment):
        return "nothing that a layer hands on is made of it"
    for old, new in zip(before.inputs, after.inputs, strict=True):
        if old == new or mutant.kind != "read another value":
            continue
        if old in segment.copies and segment.copies[old] == segment.copies.get(new):
            return "another copy of the same weight"
    return ""


def read(segment: Segment) -> set[str]:
    """Ops that something is made of which a layer hands on or stores."""
    alive = {segment.output, segment.downstream, *(value for _, value in (*segment.handed, *segment.gives))}
    for op in reversed(segment.ops):
        if isinstance(op.attrs, StoreAttrs) or any(value.name in alive for value in op.results):
            alive |= {op.name, *op.inputs}
    return alive


def mutants(plans: Iterable[str] = PLANS) -> Iterator[tuple[str, Mutant]]:
    """Every mutant of every plan that is not the graph itself."""
    for plan in plans:
        graph, _, _ = placed(plan)
        for mutation in MUTATIONS:
            for mutant in mutation(graph):
                if mutant.graph != graph:
                    yield plan, mutant


def sample(count: int, seed: int, plans: Iterable[str] = PLANS) -> list[tuple[str, Mutant]]:
    """`count` mutants, as evenly over the kinds as their numbers allow."""
    rng = random.Random(seed)
    kinds: dict[str, list[tuple[str, Mutant]]] = {}
    for plan, mutant in mutants(plans):
        kinds.setdefault(mutant.kind, []).append((plan, mutant))
    for found in kinds.values():
        rng.shuffle(found)
    picked: list[tuple[str, Mutant]] = []
    while len(picked) < count and any(kinds.values()):
        for found in kinds.values():
            if found and len(picked) < count:
                picked.append(found.pop())
    return picked
