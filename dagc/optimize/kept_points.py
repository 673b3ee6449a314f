"""Points of one spec that differ in sizes alone, with the graphs that they share: the rows that compiling each would give."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..base.diagnostics import Collector, SpecError
from ..base.frozen import replace
from ..base.source import Source

if TYPE_CHECKING:
    from ..lang.reread import Rereading, Watched
    from ..pipeline.kept import Layouts
    from ..plan.result import PhaseResult
    from ..spec.phase import Phase
    from ..spec.spec import Spec
    from .point import SweepRow, Task


MOST_FAMILIES = 16
"""Of specs of one hardware and model, that are kept at once."""


def _compares(phase: Phase) -> bool:
    """Whether more than its own price is found of a phase: of other placements of its GPUs or experts, or of all experts on GPUs."""
    return phase.strategy.best or phase.strategy.rebalance is not None or bool(phase.experts.resident)


class KeptPoints:
    """Of the tasks of one sweep, which differ in their settings alone."""

    def __init__(self, task: Task) -> None:
        from ..lang.reread import Rereading

        base = Path(task.base_dir) if task.base_dir is not None else None
        self.read: Rereading = Rereading(Source(task.name, task.text), base, task.allow_import)
        self.families: list[tuple[Spec, Watched, Layouts]] = []
        self.params: dict[int, tuple[object, tuple[float, float]]] = {}

    def row(self, task: Task) -> SweepRow | None:
        """The row of a task; None where its point is to be compiled: it is wrong, its layout is new, or not all of it is kept."""
        try:
            return self._row(task)
        except SpecError:
            return None  # with all that is wrong, once it is compiled

    def _row(self, task: Task) -> SweepRow | None:
        from ..pipeline import pools
        from ..plan import require
        from ..plan.subject import Subject, all_metrics
        from .point import row_of

        spec = self.read.spec(dict(task.settings))
        if spec.serves or any(map(_compares, spec.phases)):
            return None
        own, layouts = self._own(spec)
        names = [phase.name for phase in own.phases if not task.phases or phase.name in task.phases]
        found = [self._result(own, layouts, name) for name in names]
        results = {name: result for name, result in zip(names, found, strict=True) if result is not None}
        if not names or len(results) < len(names) or not set(task.phases) <= set(names):
            return None
        out = Collector()
        params, shared = self._parameters(results[names[0]]), pools.run(results)
        metrics = all_metrics(Subject(spec, results, params, shared))
        verdicts = require.run(spec, results, params, shared, out, metrics=metrics)
        out.check()
        fits = all(pool.fits for pool in shared)
        return row_of(dict(task.settings), metrics, verdicts, fits)

    def _own(self, spec: Spec) -> tuple[Spec, Layouts]:
        """The spec with watched constants, and the layouts of specs whose hardware and model are the same, and all constants that
        these have asked for."""
        from ..lang.reread import Watched
        from ..pipeline.kept import Layouts

        for first, watched, layouts in self.families:
            same = first.hardware is spec.hardware and first.model is spec.model and first.others == spec.others
            if same and watched.same(spec.constants):
                return replace(spec, constants=watched.at(spec.constants)), layouts
        watched, layouts = Watched(spec.constants), Layouts(fresh=1)
        self.families.insert(0, (spec, watched, layouts))
        del self.families[MOST_FAMILIES:]
        return replace(spec, constants=watched), layouts

    def _result(self, spec: Spec, layouts: Layouts, name: str) -> PhaseResult | None:
        """By its layout; None where that is new, or not kept."""
        from ..pipeline.kept import LOST
        from ..pipeline.outline import outline
        from ..spec.unit import Unit

        unit = Unit(spec, spec.phase(name), Collector())
        try:
            found = layouts.of(unit)
            return None if found is None else outline(unit, *found)
        except LOST:
            layouts.lose(unit)
            return None

    def _parameters(self, result: PhaseResult) -> tuple[float, float]:
        from ..pipeline.parameters import count_parameters

        weights = result.graph.segments[0].weights
        known = self.params.get(id(weights))
        if known is None:
            known = self.params[id(weights)] = weights, count_parameters(result.graph)
        return known[1]
