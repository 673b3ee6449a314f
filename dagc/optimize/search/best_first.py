"""best_first: one plan after another, the best bound first, until no bound can reach what was found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from time import perf_counter

import numpy as np

from ...base.frozen import record
from ...plan.refusal_rules import of_requirement
from .bound import News
from .certificate import Certificate
from .exact import Plan
from .objectives import Floats, Objective
from .space import Flags, Ints, Rows, Rule, Tally, Values

BATCH = 4
"""Plans that are costed before bounds are looked at again: the same number wherever they are costed, so that the answer is the same."""
GLANCES = 8
"""Plans that are glanced at beside them."""
FIRST = 2
"""Glances, and plans, of the first batch of a search with a budget: how long one takes is not known."""
LOOKED_AT = 256
"""Rows among which those of a batch are chosen."""
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


@record
class Limit:
    """A requirement on an objective: a score that no plan may exceed."""

    objective: Objective
    score: float
    label: str


MEMORY = "memory"
"""The rule of plans that do not fit."""
LEFT, COSTED, BOUNDED, REFUSED = 0, 1, 2, 3
"""What became of a row; from REFUSED on, a place in `Fates.rules`."""


@record(slots=False)
class Fates:
    """What became of each row that rules let pass."""

    rows: Rows
    code: Ints
    rules: tuple[str, ...]


@record(slots=False)
class Outcome:
    """`found`: every legal plan that was costed and passes, the best first. `front`: those that fewer than `band` others are
    better than in all objectives. `rules`: by which the rows of `fates` were chosen."""

    objectives: tuple[Objective, ...]
    found: tuple[Found, ...]
    front: tuple[Found, ...]
    certificate: Certificate
    fates: Fates
    rules: tuple[Rule, ...] = ()


Bound = Callable[[Sequence[Objective]], Sequence[Floats]]
"""Scores that no row can beat, by objective."""


@dataclass
class Search:
    """Of one phase. `rows`: legal plans. `evaluate`: costs a row exactly; bounds may be better afterwards. `tally`: what rules rejected so
    far, `equal`: rows that were left out because they are another one. `band`: of several objectives, plans stay that fewer others than this are
    better than. `seen`: rows that cost little once another one was glanced at, whose bounds are near to their costs; None: there are none."""

    rows: Rows
    bound: Bound
    objectives: Sequence[Objective]
    limits: Sequence[Limit]
    evaluate: Callable[[Sequence[int]], Sequence[Plan]]
    score: Callable[[Objective, Plan], float]
    news: Callable[[int], News]
    unseen: Callable[[int], News]
    look: Callable[[Sequence[int]], None]
    too_full: Callable[[], Flags]
    tally: Tally
    size: int
    alike: Callable[[int, Plan], Flags] | None = None
    sight: Callable[[int], tuple[str, str, Flags] | None] | None = None
    seen: Callable[[], Flags] | None = None
    equal: int = 0
    top: int = 1
    band: int = 1
    budget_s: float | None = None
    began: float = field(default_factory=perf_counter)
    told: Callable[[Found, int], None] | None = None
    found: list[Found] = field(default_factory=list)
    edge: list[Found] = field(default_factory=list)
    done: int = 0
    bounded: int = 0
    broken: int = 0
    stopped: bool = False
    glance_s: float = 0.0
    plan_s: float = 0.0
    fate: Ints = field(init=False)
    refusing: list[str] = field(default_factory=list)

    def run(self) -> Outcome:
        open_ = np.ones(len(self.rows), dtype=bool)
        self.fate = np.full(len(self.rows), LEFT, dtype=np.int64)
        pending: list[int] = []
        try:
            while open_.any():
                if self.budget_s is not None and perf_counter() - self.began > self.budget_s:
                    break
                self.refuse_certain(open_)
                scores = self.bound(self.objectives)
                at = np.flatnonzero(open_)
                if not len(at):
                    break
                row = int(at[np.argmin(scores[0][at])])
                if self.passed(scores, row):
                    out = at[self.all_passed(scores, at)]
                    self.bounded += len(out)
                    open_[out] = False
                    self.fate[out] = BOUNDED
                    continue
                batch, glances = self.batch(scores, at, open_)
                if glances:
                    glances = self.affordable(glances, self.glance_s)
                    start = perf_counter()
                    self.look(glances)
                    self.glance_s = (perf_counter() - start) / len(glances)
                    if self.found and self.seen is None:
                        continue
                    batch = self.sighted(glances, open_) if self.seen is None else self.near(self.seen(), open_)
                    if not batch:
                        continue
                    scores = self.bound(self.objectives)
                pending = batch
                batch = self.affordable(batch, self.plan_s)
                open_[pending[len(batch) :]] = True
                start = perf_counter()
                plans = self.evaluate(batch)
                self.plan_s = (perf_counter() - start) / len(batch)
                for row, plan in zip(batch, plans, strict=True):
                    self.visit(row, plan, scores, open_)
                pending = []
        except KeyboardInterrupt:
            open_[pending] = self.fate[pending] == LEFT  # nobody knows them yet
            self.stopped = True
        return self.outcome(np.flatnonzero(open_))

    def refuse_certain(self, open_: Flags) -> None:
        """Rows that do not fit, or fail a requirement, for certain."""
        self._refuse(open_, open_ & self.too_full(), MEMORY, "E04")
        for limit in self.limits:
            (least,) = self.bound((limit.objective,))
            over = open_ & (least > limit.score + abs(limit.score) * SLACK)
            self._refuse(open_, over, of_requirement(limit.label), "R07")

    def _refuse(self, open_: Flags, those: Flags, rule: str, code: str, why: str = "") -> None:
        out = np.flatnonzero(those)
        if len(out):
            self.tally.add(rule, why or rule, code, len(out), self.rows.values(int(out[0])))
            self.fate[out] = self.refusal(rule)
            open_[out] = False

    def refusal(self, rule: str) -> int:
        """The fate of rows that this rule refuses."""
        if rule not in self.refusing:
            self.refusing.append(rule)
        return REFUSED + self.refusing.index(rule)

    def batch(self, scores: Sequence[Floats], at: Ints, open_: Flags) -> tuple[list[int], list[int]]:
        """The rows that are costed next: the best bounds, each of which tells something that those before it do not; or the rows that are
        glanced at before. Always at least one leaves the open ones, or is glanced at."""
        few = at[self.first(scores, at)]
        few = few[np.lexsort((few, *reversed([column[few] for column in scores])))]
        out: list[int] = []
        glances: list[int] = []
        told: set[tuple[int, int]] = set()
        passed = self.all_passed(scores, few)
        for row, worse in zip(few.tolist(), passed.tolist(), strict=True):
            if worse and len(self.objectives) > 1:  # what follows need not be beaten too
                open_[row] = False
                self.bounded += 1
                self.fate[row] = BOUNDED
                continue
            if worse or len(out) == BATCH or len(glances) == GLANCES:
                break
            if not open_[row]:
                continue
            unseen = self.unseen(row)
            if unseen and not out:
                if not unseen <= told:
                    told |= unseen
                    glances.append(row)
                continue
            if unseen or glances or self.not_run(row, open_):
                continue
            news = self.news(row)
            if news and news <= told:
                continue
            told |= news
            out.append(row)
            open_[row] = False
        return out, glances

    def not_run(self, row: int, open_: Flags) -> bool:
        """Whether the layout of a row is refused at sight, and with it all others like it."""
        found = None if self.sight is None else self.sight(row)
        if found is None:
            return False
        rule, why, same = found
        self._refuse(open_, open_ & same, rule, "E05", why)
        return True

    @staticmethod
    def first(scores: Sequence[Floats], at: Ints) -> Ints:
        """Places of some rows of the best bounds: of two objectives, and equals in the first, by the second."""
        first = scores[0][at]
        equal = np.flatnonzero(first == first.min())
        by, among = (
            (scores[1][at[equal]], equal) if len(scores) > 1 and len(equal) > BATCH else (first, np.arange(len(at)))
        )
        return among[np.argpartition(by, LOOKED_AT - 1)[:LOOKED_AT]] if len(by) > LOOKED_AT else among

    def sighted(self, glances: Sequence[int], open_: Flags) -> list[int]:
        """The best of the rows that were glanced at, which is costed at once where nothing was found yet: somebody waits for a first plan."""
        self.refuse_certain(open_)
        scores = self.bound(self.objectives)[0]
        fine = [row for row in glances if open_[row] and not self.not_run(row, open_)]
        best = sorted(fine, key=lambda row: (scores[row], row))[:1]
        open_[best] = False
        return best

    def near(self, seen: Flags, open_: Flags) -> list[int]:
        """The best of the rows that cost little: several until there are as many plans as are asked for, then one, if its bound may still be reached. Bounds of others
        promise much: whoever waits for them alone waits long for a good plan."""
        self.refuse_certain(open_)
        scores = self.bound(self.objectives)
        at = np.flatnonzero(seen & open_)
        at = at[~self.all_passed(scores, at)] if len(at) else at
        order = np.lexsort((at, scores[0][at]))[: BATCH if len(self.found) < self.top else 1]
        fine = [row for row in at[order].tolist() if not self.not_run(row, open_)]
        open_[fine] = False
        return fine

    def affordable(self, rows: list[int], each_s: float) -> list[int]:
        """As many as there is time for, at least one; all without a budget."""
        if self.budget_s is None:
            return rows
        left_s = self.budget_s - (perf_counter() - self.began)
        return rows[: max(1, int(left_s / each_s)) if each_s else FIRST]

    def passed(self, scores: Sequence[Floats], row: int) -> bool:
        """Whether the bound of a row proves that it is worse than what was found."""
        return bool(self.all_passed(scores, np.asarray([row]))[0])

    def all_passed(self, scores: Sequence[Floats], at: Ints) -> Flags:
        if len(self.objectives) == 1:
            best = self.best()
            if best is None:
                return np.zeros(len(at), dtype=bool)
            found: Flags = scores[0][at] > best + abs(best) * SLACK
            return found
        better = np.zeros(len(at), dtype=np.int64)
        for one in self.edge:
            own = [column[at] for column in scores]
            as_good = np.all([b >= s for s, b in zip(one.scores, own, strict=True)], axis=0)
            better += as_good & np.any([b > s + abs(s) * SLACK for s, b in zip(one.scores, own, strict=True)], axis=0)
        beaten: Flags = better >= self.band
        return beaten

    def best(self) -> float | None:
        """The score that a plan must reach to be among the best so many."""
        if len(self.found) < self.top:
            return None
        return sorted(one.scores[0] for one in self.found)[self.top - 1]

    def visit(self, row: int, plan: Plan, before: Sequence[Floats], open_: Flags) -> None:
        values = self.rows.values(row)
        least = [float(column[row]) for column in before]
        self.done += 1
        if plan.refused is not None:
            rule, code = plan.refused
            self.tally.add(rule, plan.why or rule, code, 1, values)
            self.fate[row] = self.refusal(rule)
            if self.alike is not None:
                same = open_ & self.alike(row, plan)
                self.tally.add(rule, plan.why or rule, code, int(same.sum()), values)
                self.fate[same] = self.refusal(rule)
                open_ &= ~same
        if plan.estimate is None:
            return
        scores = tuple(self.score(o, plan) for o in self.objectives)
        after = [float(column[row]) for column in self.bound(self.objectives)]
        if any(max(b, a) > s + abs(s) * SLACK for b, a, s in zip(least, after, scores, strict=True)):
            self.broken += 1
        if plan.refused is None:
            one = Found(row, values, plan, scores)
            self.found.append(one)
            self.fate[row] = COSTED
            if len(self.objectives) > 1:
                self.edge = front([*self.edge, one], self.band)
            if self.told is not None:
                self.told(one, self.done)

    def outcome(self, left: Ints) -> Outcome:
        ranked = sorted(self.found, key=lambda one: (*one.scores[:1], one.row))
        gap, bound = None, None
        if len(left) and len(self.objectives) == 1:
            lowest = float(self.bound(self.objectives)[0][left].min())
            bound = self.objectives[0].shown(lowest)
            if ranked:
                best = ranked[0].scores[0]
                gap = max(0.0, best - lowest) / abs(best) if best else float("inf")
        certificate = Certificate(
            self.size, tuple(self.tally), self.equal, len(self.found), self.bounded, len(left), bound, gap, self.broken,
            self.done, perf_counter() - self.began,
        )  # fmt: skip
        fates = Fates(self.rows, self.fate, tuple(self.refusing))
        return Outcome(tuple(self.objectives), tuple(ranked), tuple(front(ranked, self.band)), certificate, fates)


def front(found: Sequence[Found], band: int = 1) -> list[Found]:
    """Those that fewer than `band` others are at least as good as in all objectives and better in one; best of the first objective first."""
    out: list[Found] = []
    for one in sorted(found, key=lambda one: (*one.scores, one.row)):
        better = (True for other in out if dominates(other.scores, one.scores))
        if sum(islice(better, band)) < band:
            out.append(one)
    return out


def dominates(a: Sequence[float], b: Sequence[float]) -> bool:
    return all(x <= y for x, y in zip(a, b, strict=True)) and any(x < y for x, y in zip(a, b, strict=True))
