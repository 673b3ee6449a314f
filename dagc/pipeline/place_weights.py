"""Whether phases that share GPUs still store their weights once where one of them is placed otherwise."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ..base.diagnostics import Collector, SpecError
from ..base.frozen import replace
from ..ir.mesh import MeshError
from ..plan.result import PhaseResult
from ..spec.spec import Spec
from ..spec.unit import Unit
from .analyse import cost_graph
from .lower import unverified
from .place_trial import Trial, default_ids, with_ids

SAME = 1e-12
"""Relative difference of two sums of the same terms."""


class Guard:
    """Whether a way stores weights no more often than the default order: phases that use the same GPUs have most in common."""

    def __init__(self, spec: Spec, trials: Sequence[Trial]) -> None:
        self.trials = trials
        own = {trial.unit.phase.name for trial in trials}
        self.others: dict[str, PhaseResult] = {}
        for phase in spec.phases:
            trained = any(trial.unit.phase.training for trial in trials)  # whose weights are its own
            if not trained and phase.name not in own and any(phase.shares(trial.unit.phase) for trial in trials):
                best = phase.strategy.best
                try:
                    default = phase.strategy.ids or (default_ids(phase) if best else ())
                    unit = Unit(spec, with_ids(phase, default, best=best), Collector())
                    self.others[phase.name] = cost_graph(unverified(unit), unit)
                except (SpecError, MeshError):  # compiling it says why
                    continue
        shared = self.others or len(trials) > 1
        self.results = {t.unit.phase.name: cost_graph(t.base, t.unit) for t in trials} if shared else {}
        self.before_B = self._held(self.results)

    def _held(self, results: Mapping[str, PhaseResult]) -> float:
        """Weights on the fullest GPU."""
        from . import pools

        return max((pool.weights_B for pool in pools.run({**self.others, **results})), default=0.0) if results else 0.0

    def keeps(self, ids_of: Callable[[Trial], tuple[int, ...]]) -> bool:
        """`ids_of`: the GPU of every rank of a phase."""
        if not self.results:
            return True
        moved = {}
        for trial in self.trials:
            name, ids = trial.unit.phase.name, ids_of(trial)
            moved[name] = replace(self.results[name], graph=trial.lowered(ids), gpus=ids)
        return self._held(moved) <= self.before_B * (1 + SAME)
