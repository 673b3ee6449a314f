"""A compiled plan as a record, which every report and exporter reads; `dagc.api.Plan` is its public face."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..base.diagnostics import Diagnostic
from ..base.frozen import field, record
from ..base.units import Quantity
from ..spec.phase import Phase
from ..spec.spec import Spec
from ..spec.unit import Unit
from .pools import Pool, kv_tokens

if TYPE_CHECKING:
    from ..serving.result import ServeResult
    from .require import Verdict
    from .result import PhaseResult
    from .subject import Subject
    from .trained import TrainingResult


def cached_tokens(phase: Phase) -> int:
    """Tokens of all sequences of a phase when its cache is fullest."""
    return sum(part.sequences * part.context for part in phase.as_parts)


def _short(message: str) -> str:
    return message.replace(" does not fit:", ":").replace(" do not fit together", "")


@record(slots=False)
class CompiledPlan:
    """`params`: (total, active per token), counted from the blocks. `servings`: those that were simulated: that a requirement names, or
    that were asked for; `simulations`: what simulates them (`dagc.pipeline.serve.Servings`) with the step prices that it has. `trainings`: phases that train; `phases` are inference. `asked`: metrics that
    requirements name, and constants."""

    spec: Spec
    phases: Mapping[str, PhaseResult]
    units: Mapping[str, Unit] = field(repr=False)
    requirements: tuple[Verdict, ...]
    params: tuple[float, float]
    pools: tuple[Pool, ...]
    diagnostics: tuple[Diagnostic, ...]
    servings: Mapping[str, ServeResult] = field(default_factory=dict, repr=False)
    simulations: Any = field(default=None, repr=False, compare=False)
    trainings: Mapping[str, TrainingResult] = field(default_factory=dict)
    asked: Mapping[str, Quantity] = field(default_factory=dict, repr=False, compare=False)

    def subject(self, phase: str = "") -> Subject:
        """What metrics are of."""
        from .subject import Subject

        return Subject(self.spec, self.phases, self.params, self.pools, phase, self.servings, self.trainings)

    @property
    def fits(self) -> bool:
        """No GPU needs more memory than it has, whatever phases share it."""
        return all(pool.fits for pool in self.pools) and all(found.fits for found in self.trainings.values())

    @property
    def passed(self) -> bool:
        """It fits and every requirement holds."""
        return self.fits and all(v.passed for v in self.requirements)

    @property
    def verdict(self) -> str:
        """How many requirements fail or hold, in words."""
        total, failed = len(self.requirements), sum(not v.passed for v in self.requirements)
        if failed:
            return f"{failed} of {total} requirement{'s fail' if total > 1 else ' fails'}"
        return (
            "no requirements"
            if not total
            else "the requirement holds"
            if total == 1
            else f"all {total} requirements hold"
        )

    @property
    def overflow(self) -> tuple[str, ...]:
        """What does not fit, by how much, and what would fix it: lines that every output begins with. Empty if it fits."""
        errors = [d for d in self.diagnostics if d.code == "E04"]
        return tuple(line for d in errors for line in (f"DOES NOT FIT: {_short(d.message)}", *d.because, *d.help))

    @property
    def titles(self) -> tuple[str, ...]:
        """First lines of every picture: what does not fit, where something does not."""
        return tuple(line for line in self.overflow if line.startswith("DOES NOT FIT"))

    def titles_of(self, phase: str) -> tuple[str, ...]:
        """`titles` for a picture of one phase, which what does not fit of that phase leads."""
        return tuple(sorted(self.titles, key=lambda line: f"`{phase}`" not in line))

    @property
    def shared(self) -> tuple[Pool, ...]:
        """Those of the pools whose GPUs several phases use."""
        return tuple(pool for pool in self.pools if pool.shared)

    def kv_tokens(self, phase: str) -> tuple[float, ...]:
        """By stage: tokens of cache that the phase has room for (see `dagc.plan.pools.kv_tokens`)."""
        return kv_tokens(self.phases[phase], self.pools, cached_tokens(self.spec.phase(phase)))
