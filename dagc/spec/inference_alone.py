"""Questions that are of inference alone: they are refused of phases that train, rather than answered for nothing."""

from __future__ import annotations

from collections.abc import Sequence

from ..base.diagnostics import Diagnostic, SpecError
from .phase import Phase
from .spec import Spec


def inference_phases(spec: Spec, names: Sequence[str], what: str) -> tuple[Phase, ...]:
    """The phases of inference, or those named. Raises SpecError with E14 for a name that no phase has, for one that trains, and where
    every phase does. `what`: what is not there for one that trains, with its verb (`dagc fit is`)."""
    known = [phase.name for phase in (*spec.phases, *spec.trainings)]
    for name in names:
        if name not in known:
            raise SpecError([Diagnostic("E14", f"unknown phase `{name}`", help=(f"phases: {', '.join(known)}",))])
    training = [phase for phase in spec.trainings if phase.name in names or not (names or spec.phases)]
    if training:
        first = training[0]
        raise SpecError(
            [
                Diagnostic(
                    "E14", f"phase `{first.name}` trains: {what} for inference alone", first.spans.get("kind", first.span),
                    help=("`dagc compile` gives a training step's time, bubbles and memory", "`dagc list metrics` has what `require` may ask of it"),
                )
            ]
        )  # fmt: skip
    return tuple(phase for phase in spec.phases if not names or phase.name in names)
