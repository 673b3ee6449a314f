"""A training step compared with that of the whole model: loss, every gradient, every new weight; and what ranks moved and computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..base.frozen import record
from ..cost.records import Costs
from ..cost.schedule.training.verify_orders import verify_orders
from ..ir.graph import Graph
from ..ir.op import Op
from ..ir.ops.attributes.losses import LabelsAttrs
from ..ir.segment import Segment
from ..ir.verify.violation import VerifyError
from ..pipeline.lower import lower
from ..pipeline.strategy import backward_of
from ..plan.trained import TrainingResult
from ..spec.unit import Unit
from ..spec.workload import Routing
from .failure import ExecutionError
from .inputs import Inputs
from .lowered_alike import otherwise
from .prove import Comparison, Recording, around, largest, single, verified
from .token_groups import with_groups
from .traffic import compare_bytes
from .training import Key, TrainingMachine, of_table
from .twin import NoTwin, Twin, or_no_twin, twin_of
from .values import Floats
from .work import wrong_work

TOLERANCE = 1e-9
"""Largest allowed error of a gradient, relative to its scale."""
NOTHING = 1e-6
"""A gradient that is so small beside the largest of all is compared with that: a router with one choice, whose weight is always one,
has nothing but rounding."""
OF_WEIGHTS = 1e-6
"""And of a new weight: AdamW divides a gradient by its own size, so where it is nearly nothing rounding decides its sign."""


@record
class TrainingProof:
    """`verdict`: equal; differs, the lowering computes or moves something else; not run, `why`: nothing is known. Errors are the largest
    differences relative to the scale of what is compared: `loss_error`, `gradient_error` of the `weights` that have gradients,
    `weight_error` of new weights. `first`: what differs first."""

    phase: str
    ranks: int
    loss_error: float = np.inf
    gradient_error: float = np.inf
    weight_error: float = np.inf
    weights: int = 0
    collectives: int = 0
    first: str = ""
    why: str = ""
    bytes_wrong: tuple[str, ...] = ()
    work_wrong: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        if self.why:
            return "not run"
        same = self.loss_error <= TOLERANCE and self.gradient_error <= TOLERANCE and self.weight_error <= OF_WEIGHTS
        return "equal" if same and not (self.first or self.bytes_wrong or self.work_wrong) else "differs"

    @property
    def holds(self) -> bool:
        return self.verdict == "equal"


def prove_training(result: TrainingResult, unit: Unit) -> TrainingProof:
    """The phase's own lowering, run on the sizes of its small twin, against the twin of its model; and the order of its cells."""
    ranks = unit.phase.gpu_count
    try:
        verify_orders(result.steps.schedule)
    except VerifyError as error:
        return TrainingProof(result.name, ranks, first=f"the order of cells: {error}")
    try:
        with or_no_twin():
            twin = verified(twin_of(result.graph, whole_model(unit), unit.routing))
    except NoTwin as error:
        return TrainingProof(result.name, ranks, why=f"it has no small twin: {error}")
    if differs := otherwise(result.graph, twin.placed):
        return TrainingProof(result.name, ranks, why=f"the twin was lowered otherwise: {differs}")
    inputs = step_inputs(twin)
    return compared(twin.model, twin.placed, inputs, ranks, result.costs, result.graph)


def whole_model(unit: Unit) -> Graph:
    """The model with its gradients: one rank, nothing split, nothing done anew."""
    graph = next(graph for _, graph in lower(Unit(unit.spec, unit.phase)))
    return backward_of(unit).run(graph)


def step_inputs(twin: Twin) -> Inputs:
    """Random token ids, with those that follow each."""
    return random_step(twin.placed, twin.sequences, twin.vocab, twin.routing)


def random_step(graph: Graph, sequences: int, vocab: int, routing: Routing) -> Inputs:
    """Of a graph with as many sequences, and of each what its losses ask for."""
    length = int(graph.segments[0].sizes["seq"])
    ids = np.random.default_rng(1).integers(0, vocab, (sequences, length + reach(graph)))
    return Inputs(ids[:, :length], routing, labels=ids[:, 1:])


def reach(graph: Graph) -> int:
    """How many tokens ahead a step looks."""
    return max((op.attrs.ahead for s in graph.segments for op in s.ops if isinstance(op.attrs, LabelsAttrs)), default=1)


def compared(
    model: Graph, placed: Graph, inputs: Inputs, ranks: int, costs: Costs | None = None, costed: Graph | None = None
) -> TrainingProof:
    """One step of both. `costed`: the graph that `costs` are of, where its sizes are others."""
    reference = TrainingMachine(model, with_groups(inputs, placed), single())
    machine = TrainingMachine(placed, inputs, placed.the_mesh)
    try:
        reference.step()
    except ExecutionError as error:
        return TrainingProof(placed.phase, ranks, why=f"the model alone breaks off at {error.where}: {error.reason}")
    try:
        machine.step()
    except ExecutionError as error:
        where = f"{error.where}: {error.reason}"
        if not error.wrong:
            return TrainingProof(placed.phase, ranks, why=f"the executor breaks off at {where}")
        return TrainingProof(placed.phase, ranks, first=where, lines=around(placed, error.where))
    check = Comparison(machine.shards, Recording(reference))
    of_head = losses(check, placed, reference.losses, machine.losses)
    loss, gradient, weight = (
        max(losses_of_routers(check, placed, reference.of_routers, machine.of_routers), of_head), worst(check, reference.whole_gradients, machine.whole_gradients),
        worst(check, reference.weights, machine.weights),
    )  # fmt: skip
    first = next(
        (
            name
            for (error, name), most in ((loss, TOLERANCE), (gradient, TOLERANCE), (weight, OF_WEIGHTS))
            if not error <= most
        ),
        "",
    )
    moved = () if costs is None else tuple(compare_bytes(machine.shards, machine.record, costs, costed or placed))
    return TrainingProof(
        placed.phase, ranks, loss[0], gradient[0], weight[0], len(machine.gradients), len(machine.record.traffic), first,
        bytes_wrong=moved, work_wrong=tuple(wrong_work(machine.shards, machine.record)), lines=around(placed, first) if first else (),
    )  # fmt: skip


Found = Mapping[Key, tuple[Segment, Op, list[Floats]]]


def worst(check: Comparison, whole: Found, split: Found) -> tuple[float, str]:
    """(largest error, where) over all weights, each copy of a table by itself; infinite where one has none."""
    ours = {key: of_table(segment, key) for key, (segment, _, _) in split.items()}
    if whole.keys() != {*ours.values()}:
        layer, name = min(whole.keys() ^ {*ours.values()})
        return np.inf, f"@{name} of layer {layer}: only one of the runs has it"
    least = NOTHING * max((largest(ranks[0]) for _, _, ranks in whole.values()), default=0.0)
    errors = [
        (check.difference(whole[ours[key]][2][0], op, list(values), least), f"{segment.name}[{key[0]}]/{op.name}")
        for key, (segment, op, values) in split.items()
    ]
    return max(errors, key=lambda found: (np.isnan(found[0]), found[0]), default=(0.0, ""))


def losses(
    check: Comparison, placed: Graph, whole: Sequence[Sequence[Floats]], split: Sequence[Sequence[object]]
) -> tuple[float, str]:
    """Of every token, by micro-batch and rank."""
    head = placed.head
    op = head.by_name[head.output]
    errors = [check.difference(one[0], op, list(ranks)) for one, ranks in zip(whole, split, strict=True)]
    return max(errors, default=np.inf), f"{head.name}/{op.name}"


ByRouter = Mapping[Key, Sequence[Sequence[object]]]
"""(layer, op) -> by micro-batch and rank."""


def losses_of_routers(check: Comparison, placed: Graph, whole: ByRouter, split: ByRouter) -> tuple[float, str]:
    """Of every token, in every layer that has some."""
    if whole.keys() != split.keys():
        layer, name = min(whole.keys() ^ split.keys())
        return np.inf, f"{name} of layer {layer}: only one of the runs has it"
    at = dict((layer, segment) for segment, layer in placed.layers)
    errors = [
        (
            check.difference(np.asarray(one[0]), at[layer].by_name[name], list(ranks)),
            f"{at[layer].name}[{layer}]/{name}",
        )
        for (layer, name), found in split.items()
        for one, ranks in zip(whole[layer, name], found, strict=True)
    ]
    return max(errors, default=(0.0, ""))
