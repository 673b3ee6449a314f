"""`dagc.verify`: the numeric proof of a spec's lowering."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..base.frozen import record, replace
from .asked_specs import check_phases, spec_of

if TYPE_CHECKING:
    from ..execute.prove import Proof
    from ..execute.prove_training import TrainingProof
    from .asked_specs import Settings


@record
class Verification:
    """The proof of each phase. True where all hold: a phase that could not be run is not proved."""

    proofs: tuple[Proof | TrainingProof, ...]

    @property
    def holds(self) -> bool:
        return all(proof.holds for proof in self.proofs)

    def __getitem__(self, phase: str) -> Proof | TrainingProof:
        for proof in self.proofs:
            if proof.phase == phase:
                return proof
        raise KeyError(phase)

    def __bool__(self) -> bool:
        return self.holds

    def __repr__(self) -> str:
        return f"<Verification {', '.join(f'{proof.phase} {proof.verdict}' for proof in self.proofs)}>"


def verify(
    spec_file: str | Path,
    *,
    settings: Settings | None = None,
    phases: Sequence[str] = (),
    weights: str | Path | None = None,
    reference: str | Path | None = None,
    allow_import: Sequence[str | Path] = (),
) -> Verification:
    """Run each phase (or those named) rank by rank on NumPy tensors and compare it with the whole model: its small twin on random
    weights, or at its full dims with `weights` (an .npz checkpoint), then also with the logits of another program in `reference`
    (.npz). Raises SpecError where the spec, the weights or the reference cannot be read."""
    from ..base.diagnostics import Diagnostic, SpecError
    from ..execute.prove_spec import prove_phase

    spec = spec_of(spec_file, settings, allow_import)
    check_phases(spec, phases)
    if reference is not None and weights is None:
        raise SpecError([Diagnostic("E14", "a reference needs weights: logits belong to weights")])
    own = [phase for phase in (*spec.phases, *spec.trainings) if not phases or phase.name in phases]
    files = [None if path is None else Path(path) for path in (weights, reference)]
    return Verification(tuple(prove_phase(replace(spec, requirements=()), phase, *files) for phase in own))
