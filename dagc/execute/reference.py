"""Proof against another program's model: its weights, its token ids, its logits."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..base.diagnostics import Collector
from ..base.frozen import record, replace
from ..ir.graph import Graph
from ..lang.whole_sequence import every_position
from ..pipeline.compile import compile_spec
from ..spec.phase import Phase
from ..spec.spec import Spec
from ..spec.strategy import Strategy
from ..spec.unit import Unit
from .checkpoint import Checkpoint, read_arrays
from .failure import ExecutionError
from .inputs import History, Inputs
from .prove import Alone, Proof, model_graph, not_run, prove
from .values import Floats, Ints

LARGEST = 200e6
"""Parameters of the largest model that is run at its full dims."""


class ReferenceMismatch(ValueError):
    """The reference does not fit the spec."""


@record
class Reference:
    """`input_ids` [sequences, tokens] and the `logits` [sequences, tokens, vocab] that another program gave for them.
    `decode_logits` [sequences, 1, vocab]: of the last token, computed with a cache of the others."""

    input_ids: Ints
    logits: Floats
    decode_logits: Floats | None = None

    @classmethod
    def open(cls, path: Path) -> Reference:
        """An `.npz` file with arrays of these names."""
        try:
            arrays = read_arrays(path)
        except ValueError as error:
            raise ReferenceMismatch(str(error)) from None
        missing = next((name for name in ("input_ids", "logits") if name not in arrays), None)
        if missing is not None:
            raise ReferenceMismatch(f"`{path}` has no array `{missing}`")
        return cls(arrays["input_ids"], arrays["logits"], arrays.get("decode_logits"))

    def check(self, vocab: int) -> None:
        """The arrays fit each other and the vocabulary."""
        ids = self.input_ids
        if ids.ndim != 2 or ids.dtype.kind not in "iu" or not ids.size:
            raise ReferenceMismatch("`input_ids` of the reference are whole numbers [sequences, tokens]")
        if int(ids.min()) < 0 or int(ids.max()) >= vocab:
            raise ReferenceMismatch(
                f"`input_ids` of the reference go from {ids.min()} to {ids.max()}, beyond the vocabulary of {vocab}"
            )
        wanted = {"logits": (*ids.shape, vocab), "decode_logits": (ids.shape[0], 1, vocab)}
        for name, shape in wanted.items():
            array = getattr(self, name)
            if array is not None and array.shape != shape:
                raise ReferenceMismatch(f"`{name}` of the reference has shape {list(array.shape)}, not {list(shape)}")

    def taken(self, spec: Spec, phase: Phase) -> tuple[Ints, Floats]:
        """The phase's token ids and the logits that they must give."""
        last = phase.context if phase.generates else spec.workload.prompt
        if phase.sequences > self.input_ids.shape[0] or last > self.input_ids.shape[1]:
            have = " x ".join(map(str, self.input_ids.shape))
            raise ReferenceMismatch(f"phase `{phase.name}` has {phase.sequences} x {last} tokens, the reference {have}")
        if phase.batching.places != phase.sequences:
            raise ReferenceMismatch(
                f"phase `{phase.name}` has {phase.sequences} sequences in {phase.batching.places} places: choose a batch that fills them"
            )
        first = last - 1 if phase.generates else 0
        ids = self.input_ids[: phase.sequences]
        logits = self.logits[: phase.sequences, first:last]
        if phase.generates and self.decode_logits is not None and last == self.input_ids.shape[1]:
            logits = self.decode_logits[: phase.sequences]
        return ids[:, :last], logits


Models = list[Alone]
"""Models by themselves, each with inputs of its own, that have run."""


def known(models: Models, graph: Graph, inputs: Inputs) -> Alone:
    """The model on these inputs, which is added where it has not run yet."""
    for one in models:
        own = one.inputs
        same = own.weights is inputs.weights and own.history is inputs.history and own.routing == inputs.routing
        if same and np.array_equal(own.tokens, inputs.tokens) and one.graph == graph:
            return one
    models.append(Alone(graph, inputs))
    return models[-1]


def prove_reference(
    spec: Spec, phase: Phase, checkpoint: Checkpoint, reference: Reference | None, models: Models | None = None
) -> Proof:
    """The phase at its full dims with real weights: the model's logits at every position against the reference, and
    the placed graph against the model. A decode step finds the cache that the model leaves after the tokens before.
    `models`: for strategies of one checkpoint, which share what the model computes. Raises ReferenceMismatch."""
    models = [] if models is None else models
    model = every_position(spec.model)
    plan = compile_spec(replace(spec, model=model, requirements=()), Collector(), [phase.name])
    unit = plan.units[phase.name]
    if plan.params[0] > LARGEST:
        raise ReferenceMismatch(f"a model of {plan.params[0]:.3g} parameters is too large to be run at its full dims")
    alone = model_graph(unit)
    checkpoint.check(alone)
    if reference is None:
        return prove(plan, phase.name, weights=checkpoint, model=alone)
    reference.check(spec.model.count("vocab"))
    ids, logits = reference.taken(spec, phase)
    routing = unit.routing
    if phase.takes_prompts:
        ran = known(models, alone, Inputs(ids, routing, checkpoint))
        return prove(plan, phase.name, alone=ran, expected=logits)
    try:
        history = cache_after(unit, checkpoint, ids[:, :-1], models)
    except ExecutionError as error:
        return not_run(phase.name, unit, f"the model alone breaks off at {error.where}: {error.reason}")
    ran = known(models, alone, Inputs(ids[:, -1:], routing, checkpoint, history))
    return prove(plan, phase.name, alone=ran, expected=logits)


def cache_after(unit: Unit, weights: Checkpoint, ids: Ints, models: Models | None = None) -> History:
    """The KV cache after a prefill of these tokens [sequences, tokens] on the model graph. Raises ExecutionError."""
    sequences, tokens = ids.shape
    phase = Phase("cache", "prefill", unit.phase.gpus[:1], tokens, tokens, sequences, Strategy())
    work = replace(unit.spec.workload, prompt=tokens, sequences=sequences)
    graph = model_graph(Unit(replace(unit.spec, workload=work), phase))
    return known([] if models is None else models, graph, Inputs(ids, unit.routing, weights)).history
