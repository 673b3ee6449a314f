"""A sensible layout for phases on GPUs that they share, where nothing is written yet: one that fits, and takes little time.

It is found by descent, attention and experts in turn, over the layouts that the rules allow; `dagc search` proves what is best."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from ..base.axes import DATA, EXPERT, TENSOR
from ..base.diagnostics import Collector, SpecError
from ..base.frozen import record
from ..pipeline.changed import Held, with_phases
from ..pipeline.compile import compile_spec
from ..spec.phase import Phase
from ..spec.strategy import Strategy
from .fewest import Question
from .room import Fit

COMPILED = 40
"""Plans that are compiled at most."""

Side = tuple[tuple[str, int], ...]
"""The degrees of attention, or of the experts."""


@record
class FirstPlan:
    """`phases`: in the layout that was chosen. `time_s`: of each phase's pass. `compiled`: how many layouts were."""

    phases: tuple[Phase, ...]
    time_s: tuple[float, ...]
    compiled: int


def first_plan(
    fit: Fit, names: Sequence[str], gpus: int, weights: Sequence[float], progress: Callable[[int], None] | None = None
) -> FirstPlan | None:
    """On so many GPUs, from the first. `weights`: how often a pass of each phase counts; `progress` is told how many layouts were
    compiled. None where no layout fits."""
    return _Descent(Question(fit, names, None, list(range(gpus))), gpus, tuple(weights), progress).answer()


@dataclass(slots=True)
class _Descent:
    question: Question
    gpus: int
    weights: tuple[float, ...]
    progress: Callable[[int], None] | None = None
    tried: dict[tuple[Side, Side], FirstPlan | None] = field(default_factory=dict)
    compiled: int = 0

    def answer(self) -> FirstPlan | None:
        """With as few stages as can be: only these make a batch wait for itself."""
        by_stages: dict[int, dict[tuple[Side, Side], Strategy]] = {}
        for s in self.question.layouts(self.gpus):
            if self.question.bound(s)[0] <= 1:
                by_stages.setdefault(s.pp, {})[_side(s, "attention"), _side(s, "experts")] = s
        for stages in sorted(by_stages):
            self.tried.clear()
            found = self.descended(by_stages[stages])
            if found is not None:
                return replace(found, compiled=self.compiled)
        return None

    def descended(self, layouts: dict[tuple[Side, Side], Strategy]) -> FirstPlan | None:
        """Attention's degrees, then the experts', then attention's again; from the first layout that fits."""
        first = next((key for key in sorted(layouts, key=_widest) if self.plan(key, layouts) is not None), None)
        if first is None:
            return None
        for side in (0, 1, 0):
            beside = [key for key in layouts if key[1 - side] == first[1 - side]]
            first = self.best(sorted(beside, key=_widest), layouts, first)
        return self.plan(first, layouts)

    def best(
        self, keys: Iterable[tuple[Side, Side]], layouts: dict[tuple[Side, Side], Strategy], first: tuple[Side, Side]
    ) -> tuple[Side, Side]:
        found = {key: plan for key in keys if (plan := self.plan(key, layouts)) is not None}
        return min(found, key=lambda key: self.cost_s(found[key]), default=first)

    def cost_s(self, plan: FirstPlan) -> float:
        return sum(weight * time_s for weight, time_s in zip(self.weights, plan.time_s, strict=True))

    def plan(self, key: tuple[Side, Side], layouts: dict[tuple[Side, Side], Strategy]) -> FirstPlan | None:
        """The phases in a layout, compiled; None where it is refused or does not fit, or enough are compiled."""
        if key not in self.tried:
            self.tried[key] = self._plan(layouts[key])
        return self.tried[key]

    def _plan(self, s: Strategy) -> FirstPlan | None:
        phases, held = self.question.held(s, self.gpus)
        if not isinstance(held, Held) or not held.fits or self.compiled >= COMPILED:
            return None
        changes = self.question.fit.changes
        phases = [self.split(phase) for phase in phases]
        spec = with_phases(replace(changes.spec, serves=(), requirements=()), [changes.with_engine(p) for p in phases])
        self.compiled += 1
        if self.progress is not None:
            self.progress(self.compiled)
        try:
            plan = compile_spec(spec, Collector(), self.question.names)
        except SpecError:
            return None
        times = tuple(plan.phases[phase.name].time_s for phase in phases)
        return FirstPlan(tuple(phases), times, self.compiled) if plan.fits else None

    def split(self, phase: Phase) -> Phase:
        """Over several stages, as many micro-batches as keep them busy, where the batch has so many."""
        s = phase.strategy
        ranks = dict(s.attention.degrees).get(DATA, 1) if s.attention is not None else s.dp
        if s.pp == 1 or phase.sequences % (s.pp * ranks):
            return phase
        split = replace(phase, strategy=replace(s, microbatches=s.pp))
        return phase if self.question.fit.changes.refusal(split) is not None else split


def _side(s: Strategy, name: str) -> Side:
    fold = s.attention if name == "attention" else s.experts
    if fold is not None:
        return fold.degrees
    return ((DATA, s.dp), (TENSOR, s.tp)) if name == "attention" else ()


def _widest(key: tuple[Side, Side]) -> tuple[int, ...]:
    """Experts spread before they are cut, attention cut before it is copied: the order in which layouts are tried."""
    attention, experts = (dict(side) for side in key)
    return (experts.get(TENSOR, 1), -experts.get(EXPERT, 1), attention.get(DATA, 1), attention.get(TENSOR, 1))
