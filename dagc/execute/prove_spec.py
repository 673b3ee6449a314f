"""The proof of a phase of a spec, as somebody asks for it: on the small twin, or with the weights of a checkpoint."""

from __future__ import annotations

from pathlib import Path

from ..base.diagnostics import Collector, Diagnostic, SpecError
from ..base.frozen import replace
from ..pipeline.compile import compile_spec
from ..spec.phase import Phase
from ..spec.spec import Spec
from ..spec.unit import Unit
from .checkpoint import Checkpoint, CheckpointError
from .prove import Proof, prove_small
from .prove_training import TrainingProof, prove_training
from .reference import Reference, ReferenceMismatch, prove_reference


def prove_phase(spec: Spec, phase: Phase, weights: Path | None, reference: Path | None) -> Proof | TrainingProof:
    """On a small twin with random weights, or at full dims with the weights given. Raises SpecError where a file does not fit."""
    if phase.training is not None:
        if weights is not None:
            message = f"phase `{phase.name}` trains: it is proved with random weights"
            raise SpecError([Diagnostic("E14", message, phase.span, help=("leave out `--weights`",))])
        plan = compile_spec(replace(spec, requirements=()), Collector(), [phase.name])
        return prove_training(plan.trainings[phase.name], Unit(plan.spec, plan.spec.phase(phase.name)))
    if weights is None:
        return prove_small(compile_spec(replace(spec, requirements=()), Collector(), [phase.name]), phase.name)
    try:
        found = Reference.open(reference) if reference is not None else None
        return prove_reference(spec, phase, Checkpoint.open(spec.model, weights), found)
    except (CheckpointError, ReferenceMismatch) as error:
        raise SpecError([Diagnostic("E05", str(error))]) from None
