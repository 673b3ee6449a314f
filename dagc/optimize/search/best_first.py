"""best_first: one plan after another, exact until no bound can reach what was found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np

from ...base.frozen import record
from .certificate import Certificate
from .exact import Plan
from .objectives import Floats, Objective
from .space import Ints, Rows, Tally, Values

SLACK = 1e-9
"""Share by which a bound may exceed an exact cost: rounding of sums in another order."""


@record(slots=False)
class Found:
    """A plan that was costed and meets every requirement. `scores`: one for each objective, less is better. `row`: its place in the
    space, by which equals are told apart in the end."""

    row: int
    values: Values
    plan: Plan
    scores: tuple[float, ...]


@record(slots=False)
class Outcome:
    """`found`: every legal plan that was costed, the best first: of two objectives the front first. `front`: those that no other
    is better than in both."""

    objectives: tuple[Objective, ...]
    found: tuple[Found, ...]
    front: tuple[Found, ...]
    certificate: Certificate


@dataclass
class Search:
    """Of one phase. `rows`: legal plans; `bounds`: by objective, of each row, never above its exact score. `tally`: what rules
    rejected so far, `equal`: rows that were left out because they are another one."""

    rows: Rows
    bounds: Sequence[Floats]
    objectives: Sequence[Objective]
    evaluate: Callable[[Values], Plan]
    tally: Tally
    size: int
    equal: int = 0
    top: int = 1
    budget_s: float | None = None
    began: float = field(default_factory=perf_counter)
    told: Callable[[Found, int], None] | None = None
    found: list[Found] = field(default_factory=list)
    done: int = 0
    bounded: int = 0
    broken: int = 0
    stopped: bool = False

    def run(self) -> Outcome:
        order = self.order()
        seen = 0
        try:
            for row in order:
                if self.passed(row):
                    self.bounded += 1
                    seen += 1
                    if len(self.objectives) == 1:  # all that follow have bounds at least as bad
                        self.bounded += len(order) - seen
                        seen = len(order)
                        break
                    continue
                if self.budget_s is not None and perf_counter() - self.began > self.budget_s and self.found:
                    break
                self.visit(int(row))
                seen += 1
        except KeyboardInterrupt:
            self.stopped = True
        return self.outcome(order[seen:])

    def order(self) -> Ints:
        """Rows by their bounds; of two objectives, those first whose bounds are good in both."""
        if not len(self.rows):
            return np.zeros(0, dtype=np.int64)
        if len(self.bounds) == 1:
            return np.lexsort((np.arange(len(self.rows)), self.bounds[0]))
        total = np.zeros(len(self.rows))
        for column in self.bounds:
            rank = np.argsort(np.argsort(column, kind="stable"), kind="stable")
            total = np.maximum(total, rank)
        return np.lexsort((np.arange(len(self.rows)), total))

    def passed(self, row: int) -> bool:
        """Whether the bound of a row proves that it is worse than what was found."""
        if len(self.objectives) == 1:
            best = self.best()
            return best is not None and float(self.bounds[0][row]) > best + abs(best) * SLACK
        own = [float(column[row]) for column in self.bounds]
        return any(
            all(s + abs(s) * SLACK <= b for s, b in zip(one.scores, own, strict=True))
            and any(s + abs(s) * SLACK < b for s, b in zip(one.scores, own, strict=True))
            for one in self.front()
        )

    def best(self) -> float | None:
        """The score that a plan must reach to be among the best so many."""
        if len(self.found) < self.top:
            return None
        return sorted(one.scores[0] for one in self.found)[self.top - 1]

    def visit(self, row: int) -> None:
        values = self.rows.values(row)
        plan = self.evaluate(values)
        self.done += 1
        if plan.refused is not None:
            rule, code = plan.refused
            self.tally.add(rule, plan.why or rule, code, 1, values)
        if plan.estimate is not None:
            scores = tuple(float(o.score(plan.terms)) for o in self.objectives)
            if any(float(c[row]) > s + abs(s) * SLACK for c, s in zip(self.bounds, scores, strict=True)):
                self.broken += 1
            if plan.refused is None:
                one = Found(row, values, plan, scores)
                self.found.append(one)
                if self.told is not None:
                    self.told(one, self.done)

    def front(self) -> list[Found]:
        return front(self.found)

    def outcome(self, left: Ints) -> Outcome:
        ranked = sorted(self.found, key=lambda one: (*one.scores[:1], one.row))
        edge = front(ranked)
        gap, bound = None, None
        if len(left) and len(self.objectives) == 1:
            lowest = float(self.bounds[0][left].min())
            bound = self.objectives[0].shown(lowest)
            if ranked:
                best = ranked[0].scores[0]
                gap = abs(best - min(best, lowest)) / abs(lowest) if lowest else float("inf")
        certificate = Certificate(
            self.size, tuple(self.tally), self.equal, len(self.found), self.bounded, len(left), bound, gap, self.broken,
            perf_counter() - self.began,
        )  # fmt: skip
        return Outcome(tuple(self.objectives), tuple(ranked), tuple(edge), certificate)


def front(found: Sequence[Found]) -> list[Found]:
    """Those that no other is at least as good as in all objectives and better in one, best of the first objective first."""
    out: list[Found] = []
    for one in sorted(found, key=lambda one: (*one.scores, one.row)):
        if not any(dominates(other.scores, one.scores) for other in out):
            out.append(one)
    return out


def dominates(a: Sequence[float], b: Sequence[float]) -> bool:
    return all(x <= y for x, y in zip(a, b, strict=True)) and any(x < y for x, y in zip(a, b, strict=True))
