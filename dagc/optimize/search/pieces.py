"""pieces: exact costs and bounds of the plans of one space: what was costed is kept, and bounds learn from it.

What an op takes follows before any collective is inserted, so a glance at a plan, lowered up to there, tells what its ops take for a
fraction of what it costs to compile it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property, partial

import numpy as np

from ...base.axes import EXPERT_TENSOR, TENSOR
from ...base.diagnostics import Collector
from ...base.frozen import replace
from ...base.low_precision import RECIPES, WHOLE
from ...lang.open_spec import OpenSpec
from ...spec.hardware import Hardware
from ...spec.unit import Unit
from .bound import Bounds, News
from .bound_keys import usable
from .bound_pieces import Learnt
from .costing import Told, costing
from .exact import BLOCKS, CACHE, LAYOUT, Judge, Plan
from .glance import head_strides, meshed
from .objectives import Floats, Objective, Terms
from .rules import Facts
from .space import Flags, Ints, Pause, Rows, never, packed
from .step_bound import StepBounds
from .step_pieces import StepLearnt
from .step_rules import ORDERED
from .workers import Costed, Run, Task, Text

SIZES = {"sequences", "chunk", "microbatches"}
"""Choices that are of sizes alone."""
DECIDED_BY = {BLOCKS: (TENSOR, EXPERT_TENSOR), CACHE: ("dcp",)}
"""Rule that refuses a plan -> the choices that decide it alone."""
FEW = 64
"""Rows of a space below which this process costs all: others would take longer to begin."""


class Pieces:
    """Exact costs and bounds of the rows of one phase's space. What was costed once is kept."""

    def __init__(
        self,
        spec: OpenSpec,
        name: str,
        facts: Facts,
        rows: Rows,
        judge: Judge,
        text: Text | None = None,
        run: Run | None = None,
        pause: Pause = never,
    ) -> None:
        """Raises Late."""
        self.text, self.run = text, run
        self.spec, self.name, self.facts, self.rows, self.judge = spec, name, facts, rows, judge
        self.bounds = self._bounds(pause)
        self.sighted: set[int] = set()  # layouts that were looked at
        self.seen: set[int] = set()  # rows that were glanced at
        self.known: dict[int, Plan] = {}
        self.costing = costing(facts.phase)
        count = len(rows)
        phase = facts.phase
        self.gpus, self.sequences, draft = (
            np.broadcast_to(rows.number(name), (count,)).astype(np.float64) for name in ("gpus", "sequences", "draft")
        )
        pools = facts.pools
        self.price, self.power = (
            _of_pools(rows, pools, each) for each in (lambda own: own.price_per_s, lambda own: own.power_W)
        )
        steps = range(int(draft.max(initial=0)) + 1)
        self.peak_flops = self.gpus * _of_pools(rows, pools, lambda own: own.peak_flops(facts.spec.model.weight_dtype))
        for name in (*WHOLE, *RECIPES) if phase.training is not None else ():
            at = rows.is_("matmul_dtype", name)
            peaks = _of_pools(rows, pools, partial(Hardware.peak_flops, dtype=name))
            self.peak_flops = np.where(at, self.gpus * peaks, self.peak_flops)
        per_step = np.sum([np.where(draft >= k, phase.kept(k), 0.0) for k in steps], axis=0)
        self.per_step = per_step if phase.generates else np.ones(count)
        self.tokens = self.sequences * (facts.new if phase.takes_prompts else self.per_step)
        if phase.lengths is not None:
            self.tokens = np.full(count, float(phase.lengths.tokens))

    def _bounds(self, pause: Pause) -> Bounds | StepBounds | None:
        """Of the rows; None where nothing is known. Raises Late."""
        if self.facts.phase.training is not None:
            return StepBounds(self.rows, self.facts, pause)
        return Bounds(self.rows, self.facts, self._strides(), pause) if usable(self.rows, self.facts) else None

    def _strides(self) -> Mapping[int, int] | None:
        phase = self.spec.phase(self.name, self.rows.values(0), Collector()) if len(self.rows) else None
        degrees = np.unique(self.rows.number(TENSOR)).tolist()
        return None if phase is None else head_strides(self.judge, phase, degrees)

    def bound(self, objectives: Sequence[Objective]) -> list[Floats]:
        """Scores that no row can beat."""
        count, own = len(self.rows), self.bounds
        if isinstance(own, StepBounds):
            own.settle()
        time_s = np.zeros(count) if own is None else own.time_s
        with np.errstate(divide="ignore"):
            terms = Terms(
                time_s / self.per_step, self.tokens / time_s, self.gpus, self.sequences, self.price * self.gpus, self.power * self.gpus
            )  # fmt: skip
            if isinstance(own, StepBounds):
                mfu = own.flops / (time_s * self.peak_flops) if own.flops else np.full(count, np.inf)
                terms = replace(terms, mfu=mfu, peak_B=own.peak_B * (1.0 - 1e-9))
            scores = [
                np.nan_to_num(np.asarray(o.score(terms), dtype=np.float64), nan=np.inf, posinf=np.inf, neginf=-np.inf)
                for o in objectives
            ]
            return [np.broadcast_to(one, (count,)) for one in scores]

    def evaluate(self, rows: Sequence[int]) -> list[Plan]:
        """Plans of some rows, each costed once."""
        new = [row for row in rows if row not in self.known]
        if self.run is None or self.text is None or len(self.rows) < FEW:
            for row in new:
                self.known[row] = self._here(row)
        else:
            for row, found in zip(new, self.run([self._task(row, self.text) for row in new]), strict=True):
                self.known[row] = self._taken(row, found)
        return [self.known[row] for row in rows]

    def look(self, rows: Sequence[int]) -> None:
        """Lets bounds learn from a glance at some rows what their ops take."""
        if self.run is None or self.text is None or len(self.rows) < FEW:
            for row in rows:
                phase = self.spec.phase(self.name, self.rows.values(row), Collector())
                self._learn(row, None if phase is None else self.costing.glance(self.judge, phase))
        else:
            tasks = [self._task(row, self.text, glance=True) for row in rows]
            for row, found in zip(rows, self.run(tasks), strict=True):
                self._learn(row, found.learnt)
        self.seen.update(rows)

    def _learn(self, row: int, learnt: Told | None) -> None:
        if isinstance(learnt, Learnt) and isinstance(self.bounds, Bounds):
            self.bounds.learn(row, learnt)
        if isinstance(learnt, StepLearnt) and isinstance(self.bounds, StepBounds):
            self.bounds.learn(row, learnt)

    def _wanted(self, row: int) -> bool:
        return self.bounds is not None and not self.bounds.known(row)

    def _here(self, row: int) -> Plan:
        values = self.rows.values(row)
        phase = self.spec.phase(self.name, values, Collector())
        if phase is None or self.bounds is None or not self._wanted(row):
            return self.judge.of_values(self.spec, values)
        plan, learnt = self.costing.seen(self.judge, phase)
        self._learn(row, learnt)
        return plan

    def _task(self, row: int, text: Text, *, glance: bool = False) -> Task:
        alone = tuple(p.name for p in self.judge.spec.phases)
        wanted, values = self._wanted(row), tuple(self.rows.values(row).items())
        return Task(text, self.name, alone, values, wanted, self.judge.allowed, glance)

    def _taken(self, row: int, found: Costed) -> Plan:
        """A plan that was costed elsewhere."""
        phase = self.spec.phase(self.name, self.rows.values(row), Collector())
        self._learn(row, found.learnt)
        if phase is None or found.figures is None:
            return Plan(phase or self.facts.phase, None, found.refused, found.why)
        unit = Unit(self.judge.spec, phase, Collector())
        return Plan(phase, self.costing.unpacked(unit, found.figures), found.refused, found.why)

    def news(self, row: int) -> News:
        """What a row would tell of others; nothing: all is known."""
        return frozenset() if self.bounds is None else self.bounds.news(row)

    def unseen(self, row: int) -> News:
        """What a glance at a row would tell something of."""
        return frozenset() if self.bounds is None or row in self.seen else self.bounds.unseen(row)

    @property
    def trains(self) -> bool:
        return self.facts.phase.training is not None

    def cheap(self) -> Flags:
        """Rows of phases that train whose cells are priced: their order alone is left."""
        return self.bounds.priced if isinstance(self.bounds, StepBounds) else np.zeros(len(self.rows), dtype=bool)

    def sight(self, row: int) -> tuple[str, str, Flags] | None:
        """(rule, why, all rows that it refuses) where who must run plans refuses the layout of a row before collectives are there. Layouts
        are looked at once."""
        at_sight = getattr(self.judge.allowed, "at_sight", None)
        if at_sight is None or int(self.layouts[row]) in self.sighted:
            return None
        layouts = self.layouts
        self.sighted.add(int(layouts[row]))
        phase = self.spec.phase(self.name, self.rows.values(row), Collector())
        if phase is None or phase.strategy.best or phase.strategy.balanced:
            return None
        units = self.judge.units(phase)
        graphs = [graph for unit in units if (graph := meshed(self.judge, unit)) is not None]
        found = at_sight(units, graphs) if len(graphs) == len(units) else None
        if found is None:
            return None
        rule, why, whatever_sizes = found
        same = layouts == layouts[row]
        return rule, why, same if whatever_sizes else same & (np.arange(len(self.rows)) == row)

    @cached_property
    def layouts(self) -> Ints:
        """A number for the layout of each row."""
        return self._alike_but(SIZES)

    @cached_property
    def costs_alike(self) -> Ints:
        """A number for what each row of a training phase is before its cells are ordered."""
        return self._alike_but(ORDERED)

    def _alike_but(self, paths: Collection[str]) -> Ints:
        """The same number for rows that differ in these choices alone."""
        own = [column for column, d in zip(self.rows.places, self.rows.domains, strict=True) if d.path not in paths]
        return packed(own) if own else np.zeros(len(self.rows), dtype=np.int64)

    def too_full(self) -> Flags:
        """Rows whose weights and cache alone do not fit, as far as is known."""
        return np.zeros(len(self.rows), dtype=bool) if self.bounds is None else self.bounds.too_full

    def alike(self, row: int, plan: Plan) -> Flags:
        """Rows that are refused for the same reason as one that was."""
        same = np.zeros(len(self.rows), dtype=bool)
        if plan.refused is not None and plan.refused[0] == LAYOUT and self.facts.phase.training is not None:
            found: Flags = self.costs_alike == self.costs_alike[row]
            return found
        decided = DECIDED_BY.get(plan.refused[0]) if plan.refused is not None else None
        if decided is not None:
            same[:] = True
            for name in decided:
                column = np.broadcast_to(self.rows.number(name), (len(self.rows),))
                same &= column == column[row]
        return same


def _of_pools(rows: Rows, pools: Mapping[str, Hardware], what: Callable[[Hardware], float | None]) -> Floats:
    """What one GPU of each row's pool has; not a number where that is not given."""
    known = {name: what(hardware) for name, hardware in pools.items()}
    out = np.full(len(rows), np.nan)
    for name, value in known.items():
        at = np.broadcast_to(rows.is_("hardware", name) if len(known) > 1 else True, (len(rows),))
        out[at] = np.nan if value is None else value
    return out
