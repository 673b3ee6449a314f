"""Training steps of small specs: the model with its backward pass, that graph on its ranks, and runs of both."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from conftest import spec_text

from dagc.base.diagnostics import Collector
from dagc.base.source import Source
from dagc.execute.inputs import Inputs
from dagc.execute.prove import Comparison, Recording, single
from dagc.execute.prove_training import reach
from dagc.execute.training import TrainingMachine
from dagc.ir.graph import Graph
from dagc.lang.load import load
from dagc.pipeline.lower import lower
from dagc.spec.unit import Unit

WORK = "sequences = 8, prompt = 8 tok, output = 4 tok"


@dataclass(frozen=True)
class Step:
    """`levels`: the graph after every pass, by the pass, each verified."""

    unit: Unit
    levels: dict[str, Graph]

    @property
    def model(self) -> Graph:
        """With its gradients, before anything is split."""
        return self.levels["recompute"]

    @property
    def placed(self) -> Graph:
        return self.levels["place"]

    def inputs(self) -> Inputs:
        """Random tokens, and of each the next as its label."""
        sizes = self.model.head.sizes
        count = self.model.microbatches * self.model.lanes * int(sizes["batch"])
        vocab = int(self.unit.spec.model.count("vocab"))
        ids = np.random.default_rng(1).integers(0, vocab, (count, int(sizes["seq"]) + reach(self.model)))
        return Inputs(ids[:, : int(sizes["seq"])], self.unit.routing, labels=ids[:, 1:])


def step_of(text: str) -> Step:
    """Of the spec's only training phase. Raises SpecError."""
    spec = load(Source("step.moe", text), Collector())
    unit = Unit(spec, spec.trainings[0])
    return Step(unit, dict(lower(unit)))


def library_text(model: str, kind: str, phase: str, more: str = "") -> str:
    """A phase of a library model, in bf16 where it trains. `more`: of the model's body."""
    changed = "weight_dtype = bf16" if kind == "train" else ""
    return (
        'moe 1\nhardware from "h100-sxm" { gpus = 64 }\nworkload { sequences = 16, prompt = 256 tok, output = 16 tok }\n'
        f'model from "{model}" {{ {changed}\n{more} }}\nphase step {{ kind = {kind}, {phase} }}'
    )


def training_text(phase: str, model: str = "", workload: str = WORK, extra: str = "") -> str:
    return spec_text(kind="step", phase=f"kind = train\n{phase}", model=model, workload=workload, extra=extra)


def small_step(phase: str, model: str = "", workload: str = WORK, extra: str = "") -> Step:
    return step_of(training_text(phase, model, workload, extra))


def whole_run(step: Step, inputs: Inputs | None = None) -> TrainingMachine:
    """The step on one rank."""
    machine = TrainingMachine(step.model, inputs or step.inputs(), single())
    machine.step()
    return machine


def sharded_run(step: Step, graph: Graph | None = None) -> TrainingMachine:
    """The step rank by rank."""
    graph = graph or step.placed
    machine = TrainingMachine(graph, step.inputs(), graph.the_mesh)
    machine.step()
    return machine


def differences(whole: TrainingMachine, sharded: TrainingMachine) -> dict[tuple[str, int, str], float]:
    """Of each gradient and each new weight, relative to its largest number, or to a millionth of the largest of all."""
    check, found = Comparison(sharded.shards, Recording(whole)), {}
    for what in ("gradients", "weights"):
        ours, theirs = getattr(whole, what), getattr(sharded, what)
        assert ours.keys() == theirs.keys()
        least = 1e-6 * max(np.abs(ranks[0]).max() for _, _, ranks in ours.values())
        for key, (_, op, values) in theirs.items():
            found[what, *key] = check.difference(ours[key][2][0], op, list(values), least)
    return found
